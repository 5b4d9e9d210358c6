"""What is known of noise that grows with the light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dip.errors import finite_float, positive_float, shown, unknown

GAUSSIAN, POISSON = "gaussian", "poisson"


@dataclass(frozen=True)
class PoissonGaussian:
    r"""Noise of counted photons, and of the camera that counts them, in the numbers of the image.

    .. math:: y = o + g k + n, \quad k \sim \text{Poisson}\left(\frac{x - o}{g}\right), \quad n \sim N(0, σ^2),

    of an image x whose light is x - o: the variance of y is g (x - o) + σ².

    Parameters
    ----------
    gain : float
        g, how much one photon (in a camera: one electron) adds: 1 where the numbers are counts, 1 / peak where white
        is 1 and as many as `peak` make it. With 0 the noise is normal, of standard deviation σ everywhere.
    sigma : float, default 0
        σ, of the noise where there is no light: a camera's read noise.
    offset : float, default 0
        o, the number where there is no light.

    Raises
    ------
    TypeError, ValueError
        One of them is no finite number, or negative (but the offset), or gain and sigma are both 0.

    References
    ----------
    Foi, Trimeche, Katkovnik, Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for single-image
    raw-data", IEEE Transactions on Image Processing 2008.

    Examples
    --------
    >>> PoissonGaussian(gain=2.0, sigma=3.0).variance(8.0)
    25.0
    """

    gain: float
    sigma: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gain", "sigma"):
            object.__setattr__(self, name, positive_float(getattr(self, name), name, zero_ok=True))
        object.__setattr__(self, "offset", finite_float(self.offset, "offset"))
        if not self.gain and not self.sigma:
            raise ValueError("gain=0 and sigma=0: then there is no noise; give the one or the other")

    def variance(self, x: float) -> float:
        """Return the variance of y where the image is x."""
        return self.gain * max(x - self.offset, 0.0) + self.sigma**2

    def within(self, low: float, high: float) -> PoissonGaussian:
        """Return the same noise of an image whose range from `low` to `high` has become 0 to 1."""
        span = high - low
        return PoissonGaussian(self.gain / span, self.sigma / span, (self.offset - low) / span)

    def without(self, low: float, high: float) -> PoissonGaussian:
        """Return what `within` was called on."""
        span = high - low
        return PoissonGaussian(self.gain * span, self.sigma * span, self.offset * span + low)

    @property
    def words(self) -> str:
        """What it is, for people."""
        if not self.gain:
            return f"noise of standard deviation {self.sigma:.3g}"
        beside = f" and read noise of {self.sigma:.3g}" if self.sigma else ""
        above = f" above {self.offset:.3g}" if self.offset else ""
        return f"noise of photons of {self.gain:.3g} each{beside}{above}"


Noise = str | PoissonGaussian | None
"""What may be said of the noise: nothing, "gaussian", "poisson", or its model."""


def rounded(value: float) -> float:
    """Return a number with as many digits as mean something: the last ones depend on the number of threads."""
    return float(f"{value:.6g}")


def check(noise: Any) -> Noise:
    """Return what was said of the noise.

    Raises
    ------
    TypeError, ValueError
        It is nothing of the kind.
    """
    if noise is None or isinstance(noise, PoissonGaussian):
        return noise
    if not isinstance(noise, str):
        raise TypeError(
            f'noise={shown(noise)}: give "{GAUSSIAN}", "{POISSON}", of which gain and read noise are found in the '
            "image, or dip.noise.PoissonGaussian(gain, sigma) where they are known"
        )
    if noise not in (GAUSSIAN, POISSON):
        raise unknown("noise", noise, (GAUSSIAN, POISSON))
    return noise
