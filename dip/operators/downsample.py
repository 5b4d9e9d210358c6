"""The downsampler of super-resolution: a low-pass filter, then every factor-th sample."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import torch

from dip.errors import positive_float, positive_int, unknown
from dip.operators.basic import precise

__all__ = ["Downsample"]

DEFAULT_SIGMA = 0.5  # of the Gaussian kernel, in low-resolution pixels


class Downsample(torch.nn.Module):
    r"""Reduce height and width by an integer factor, antialiased.

    In each direction the low-resolution pixel k is a weighted mean of the high-resolution pixels i,

    .. math:: y_k = \sum_i w_{ki} x_i, \qquad w_{ki} \propto L\left(\frac{i - c_k}{factor}\right), \qquad
              c_k = factor \cdot k + phase \cdot (factor - 1),

    with the kernel L stretched by the factor. Weights that would fall outside the image are dropped and the
    rest is normalised to sum to one, so a constant image stays constant up to its border.

    Parameters
    ----------
    factor : int
        At least 1. Height and width of the image must be multiples of it.
    kernel : {"lanczos2", "lanczos3", "box", "gaussian"}
        The kernel L(t), with t in low-resolution pixels:

        - "lanczos2", "lanczos3": sinc(t) sinc(t / a) for abs(t) < a, with a = 2 or 3;
        - "box": 1 for abs(t) < 1/2, and 1/2 at abs(t) = 1/2: at phase 0.5 the mean over factor x factor
          blocks;
        - "gaussian": exp(-t^2 / (2 sigma^2)), not truncated.
    phase : float
        Where in its block of `factor` pixels a low-resolution pixel is centred, from 0 (on the first pixel)
        to 1 (on the last). The default, 0.5, is the middle, for odd and even factors, as in Pillow.
    sigma : float, optional
        Standard deviation of the Gaussian in low-resolution pixels, 0.5 by default; refused for other
        kernels.

    Raises
    ------
    ValueError, TypeError
        If one of these is out of its range, or the kernel is unknown.

    Notes
    -----
    Both directions are matrix products, in float32 (float64 for float64 input) also under autocast. The
    matrices are built in float64 and kept for every size, dtype and device met. There is no scatter or atomic
    addition in the gradient either, so a GPU gives the same numbers each time.

    At phase 0.5, "lanczos3" is ``PIL.Image.resize(..., LANCZOS)``, and "lanczos2" is, away from the border,
    the operator of D. Ulyanov, A. Vedaldi, V. Lempitsky, "Deep Image Prior", CVPR 2018.

    Examples
    --------
    >>> x = torch.arange(8.0).reshape(1, 1, 2, 4)
    >>> Downsample(2, "box")(x)
    tensor([[[[2.5000, 4.5000]]]])
    """

    def __init__(
        self, factor: int, kernel: str = "lanczos2", *, phase: float = 0.5, sigma: float | None = None
    ) -> None:
        super().__init__()
        self.factor = positive_int(factor, "factor")
        if not isinstance(kernel, str) or kernel not in _KERNELS:
            raise unknown("kernel", kernel, _KERNELS)
        self.kernel = kernel
        self.phase = positive_float(phase, "phase", zero_ok=True)
        if self.phase > 1:
            raise ValueError(f"phase must be from 0 to 1, got {phase}; 0.5 is the middle of a block")
        if sigma is not None and kernel != "gaussian":
            raise ValueError(f"sigma={sigma} means nothing to the {kernel} kernel; leave it out")
        self.sigma = DEFAULT_SIGMA if sigma is None else positive_float(sigma, "sigma")
        self._matrices: dict[tuple[int, torch.dtype, torch.device, bool], torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Downsample `x`, (..., H, W), to (..., H / factor, W / factor).

        Raises
        ------
        ValueError
            If height or width is not a multiple of the factor.
        TypeError
            If `x` is not a real floating-point tensor.
        """
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor or not height or not width:
            raise ValueError(
                f"height and width must be multiples of the factor {self.factor}, got {height} x {width}; "
                f"crop the image, or choose a factor that divides both"
            )
        rows, columns = self._matrix(height, x), self._matrix(width, x)
        return _sandwich(rows, x, columns.T)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Apply the transpose A^T, for which <A x, y> = <x, A^T y>.

        Parameters
        ----------
        y : Tensor, (..., h, w)
            Of the low resolution.

        Returns
        -------
        Tensor, (..., factor * h, factor * w)
            Not an interpolation: a constant image keeps its sum and so shrinks by factor^2.
        """
        height, width = y.shape[-2:]
        rows, columns = self._matrix(self.factor * height, y), self._matrix(self.factor * width, y)
        return _sandwich(rows.T, y, columns)

    def enlarge(self, y: torch.Tensor) -> torch.Tensor:
        r"""Enlarge `y` by cubic convolution, each pixel where the operator has its centre.

        High-resolution pixel i is a weighted mean of the low-resolution pixels k, :math:`v_{ik} \propto C(i / factor -
        c_k / factor)`, with Keys's kernel C (a = -1/2); weights outside the image are dropped and the rest is
        normalised. At phase 0.5 that is ``PIL.Image.resize(..., BICUBIC)``.

        Parameters
        ----------
        y : Tensor, (..., h, w)
            Of the low resolution.

        Returns
        -------
        Tensor, (..., factor * h, factor * w)
        """
        rows, columns = (self._matrix(self.factor * size, y, enlarging=True) for size in y.shape[-2:])
        return _sandwich(rows, y, columns.T)

    def consistent(self, x: torch.Tensor | None, y: torch.Tensor, times: int = 10) -> torch.Tensor:
        r"""Change `x` so that it comes down to `y`: iterative back-projection, :math:`x ← x + U (y - A x)`.

        U is `enlarge`. What is added is smooth, so the detail that x has of its own stays.

        Parameters
        ----------
        x : Tensor, (..., factor * h, factor * w), or None
            Where to begin; None = 0, which gives y enlarged, and sharper than by U alone.
        y : Tensor, (..., h, w)
            Of the low resolution.
        times : int
            How often, at least once.

        References
        ----------
        Irani and Peleg, "Improving resolution by image registration", CVGIP: Graphical Models and Image Processing
        1991.
        """
        if x is None:
            x = y.new_zeros(*y.shape[:-2], *(self.factor * size for size in y.shape[-2:]))
        # x + U s with A U s = y - A x, for which all steps but the first and the last are on the small picture
        added = rest = y - self(x)
        if positive_int(times, "times") > 1:
            rows, columns = (self._matrix(n, y) @ self._matrix(n, y, enlarging=True) for n in x.shape[-2:])
            for _ in range(times - 1):
                added = added + rest - _sandwich(rows, added, columns.T)
        return x + self.enlarge(added)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        sigma = f", sigma={self.sigma}" if self.kernel == "gaussian" else ""
        return f'factor={self.factor}, kernel="{self.kernel}", phase={self.phase}{sigma}'

    def _matrix(self, size: int, like: torch.Tensor, *, enlarging: bool = False) -> torch.Tensor:
        dtype = precise(like)
        key = size, dtype, like.device, enlarging
        if key not in self._matrices:
            if enlarging:
                weights = _enlarging_weights(size, self.factor, self.phase)
            else:
                weights = _weights(size, self.factor, _KERNELS[self.kernel], self.phase, self.sigma)
            # The dtype first, as not every device knows float64; and never an inference tensor, which could
            # not serve a later gradient.
            with torch.inference_mode(False):
                self._matrices[key] = torch.from_numpy(weights).to(dtype).to(like.device)
        return self._matrices[key]


def _sandwich(left: torch.Tensor, x: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    # Half precision would lose the small weights, and with them the constant images. (The meta device, on which
    # only shapes are computed, knows no autocast.)
    precise = contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
    with precise:
        return left @ (x.to(left.dtype) @ right)


def _weights(
    size: int, factor: int, kernel: Callable[[np.ndarray, float], np.ndarray], phase: float, sigma: float
) -> np.ndarray:
    """Return the weights of one direction, float64 (size / factor, size), every row of sum 1."""
    centres = factor * np.arange(size // factor) + phase * (factor - 1)
    weights = kernel((np.arange(size) - centres[:, None]) / factor, sigma)
    return weights / weights.sum(axis=1, keepdims=True)


def _enlarging_weights(size: int, factor: int, phase: float) -> np.ndarray:
    """Return the weights of `Downsample.enlarge` in one direction, float64 (size, size / factor)."""
    centres = factor * np.arange(size // factor) + phase * (factor - 1)
    weights = _cubic((np.arange(size)[:, None] - centres) / factor)
    return weights / weights.sum(axis=1, keepdims=True)


def _cubic(t: np.ndarray) -> np.ndarray:
    """Return Keys's kernel with a = -1/2 ("Cubic convolution interpolation for digital image processing", 1981)."""
    t = np.abs(t)
    near, far = (1.5 * t - 2.5) * t**2 + 1, ((2.5 - 0.5 * t) * t - 4) * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _lanczos2(t: np.ndarray, sigma: float) -> np.ndarray:
    return np.where(np.abs(t) < 2, np.sinc(t) * np.sinc(t / 2), 0.0)


def _lanczos3(t: np.ndarray, sigma: float) -> np.ndarray:
    return np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0.0)


def _box(t: np.ndarray, sigma: float) -> np.ndarray:
    return np.heaviside(0.5 - np.abs(t), 0.5)


def _gaussian(t: np.ndarray, sigma: float) -> np.ndarray:
    # Relative to the nearest pixel: a very narrow Gaussian would otherwise be zero everywhere.
    nearest = np.square(t).min(axis=1, keepdims=True)
    return np.exp((nearest - np.square(t)) / (2 * sigma**2))


_KERNELS = {"lanczos2": _lanczos2, "lanczos3": _lanczos3, "box": _box, "gaussian": _gaussian}
