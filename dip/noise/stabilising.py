"""Noise that grows with the light, made the same everywhere: the generalised Anscombe transform and its inverse."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dip.noise.model import PoissonGaussian

_FEW = 64.0  # photons up to which the mean of the transform is summed, and beyond which it is a series
_WIDE, _NODES = 8.0, 2001  # of the integral over the normal part
ROWS = 4096  # of the table of an inverse


class Stabilising:
    r"""The generalised Anscombe transform of a noisy picture, and its exact unbiased inverse.

    .. math:: T(y) = 2 \sqrt{\max\left(\frac{y - o}{g} + \frac{3}{8} + \frac{σ^2}{g^2}, \; 0\right)}

    has noise of nearly the standard deviation 1, however much light there is. A denoiser of it comes to the mean of
    T(y), not to T of the mean: so what goes back is the x of which E[T(y)] is that value. Both are scaled, so that the
    mean of black is 0 and that of white is 1. With the gain 0 nothing is changed.

    Parameters
    ----------
    noise : PoissonGaussian
        The noise of a picture in [0, 1].

    Attributes
    ----------
    level : float
        Standard deviation of the noise in what `forward` returns. (Of less than a photon or two it is lower.)

    References
    ----------
    Mäkitalo, Foi, "A closed-form approximation of the exact unbiased inverse of the Anscombe variance-stabilizing
    transformation", IEEE Transactions on Image Processing 2011; "Optimal inversion of the generalized Anscombe
    transformation for Poisson-Gaussian noise", 2013.
    """

    def __init__(self, noise: PoissonGaussian) -> None:
        self.noise = noise
        self.level = noise.sigma
        if not noise.gain:
            return
        self._read = noise.sigma / noise.gain  # in photons
        darkest = max(0.0, noise.offset)  # of a picture; below the offset there is no light
        if darkest >= 1:
            raise ValueError(
                f"the offset of the noise, where there is no light, is {noise.offset:g} times white; give both in the "
                "numbers of the image: the offset, and data_range=(black, white) of the clean image"
            )
        first, last = ((x - noise.offset) / noise.gain for x in (darkest, 1.0))
        # nearly straight in the root of the light, in which the rows are evenly spaced
        roots = np.linspace(math.sqrt(first), math.sqrt(last), ROWS)
        photons = roots**2
        means = expected(photons, self._read)
        self._black, self._span = float(means[0]), float(means[-1] - means[0])
        self.level = 1 / self._span
        rows = np.linspace(means[0], means[-1], ROWS)
        light = np.interp(rows, means, roots) ** 2
        self._table = torch.from_numpy((noise.offset + noise.gain * light).clip(darkest, 1).astype(np.float32))

    def forward(self, y: Tensor) -> Tensor:
        """Return T(y), scaled, of a noisy picture."""
        if not self.noise.gain:
            return y
        photons = (y.numpy(force=True).astype(np.float64) - self.noise.offset) / self.noise.gain
        stable = (transformed(photons, self._read) - self._black) / self._span
        return torch.from_numpy(stable).to(y)

    def inverse(self, stable: Tensor) -> Tensor:
        """Return the picture, in [0, 1], whose noisy ones come to this after `forward` in the mean."""
        if not self.noise.gain:
            return stable
        if self._table.device != stable.device:
            self._table = self._table.to(stable.device)
        return looked_up(self._table, stable)


def looked_up(table: Tensor, share: Tensor) -> Tensor:
    """Return what is at these parts, from 0 to 1, of the way along a table of `ROWS` values, on one device."""
    place = share.float().clamp(0, 1) * (ROWS - 1)
    row = place.floor().clamp(max=ROWS - 2)
    below = row.nan_to_num().long()  # of a fit that diverged it is NaN
    return torch.lerp(table[below], table[below + 1], place - row).to(share.dtype)


def transformed(photons: np.ndarray, read: float) -> np.ndarray:
    """Return T of values in photons, with read noise in photons; not scaled."""
    return 2 * np.sqrt(np.maximum(photons + 3 / 8 + read**2, 0))


def expected(photons: np.ndarray, read: float) -> np.ndarray:
    """Return E[T] where there are so many photons in the mean, (N,), and read noise of so many.

    Of few it is summed over all that may be counted, with the normal part by the trapezoidal rule. Of many it is the
    series about the mean: with m = λ + 3/8 + r² and the central moments of the sum of the two,

        E √(m + d) ≈ √m (1 - E d² / 8 m² + E d³ / 16 m³ - 5 E d⁴ / 128 m⁴) .
    """
    from scipy import stats

    made = np.empty_like(photons)
    few = photons <= _FEW
    counts = np.arange(int(_FEW + 12 * math.sqrt(_FEW)) + 1)
    nodes = np.linspace(-_WIDE, _WIDE, _NODES)  # evenly: the root has a kink, which spoils finer rules
    weights = np.exp(-(nodes**2) / 2)
    each = transformed(counts[:, None] + read * nodes, read) @ (weights / weights.sum())
    made[few] = stats.poisson.pmf(counts, photons[few, None]) @ each
    many = photons[~few]
    m, second = many + 3 / 8 + read**2, many + read**2
    fourth = 3 * second**2 + many
    made[~few] = 2 * np.sqrt(m) * (1 - second / (8 * m**2) + many / (16 * m**3) - 5 * fourth / (128 * m**4))
    return made
