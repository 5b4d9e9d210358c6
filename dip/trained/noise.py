"""The noise that training pictures are given, anew at each step, by `dip.degradations`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dip import degradations
from dip.errors import shown, unknown

__all__ = ["KINDS", "Noise", "read"]

KINDS = {
    "none": "no noise: the pictures as they are",
    "gaussian": "standard deviation on the scale of 0 to 255, above 0 and at most 1000",
    "poisson": "photons at white, above 0 and at most 1e6",
    "impulse": "share of the values that become black or white, above 0 and at most 1",
}
_MOST = {"none": 0.0, "gaussian": 1000.0, "poisson": 1e6, "impulse": 1.0}


@dataclass(frozen=True)
class Noise:
    """A kind of noise and its level, or the range from which each picture's level is drawn.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    low, high : float
        The level, see `KINDS`; uniform between the two for each picture where they differ.
    clip : bool
        Whether noisy values are clipped to [0, 1], as a camera does.
    """

    kind: str
    low: float
    high: float
    clip: bool = False

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return noisy copies of pictures (N, C, H, W), float32 in [0, 1]."""
        level = rng.uniform(self.low, self.high, (len(x), 1, 1, 1)).astype(x.dtype)
        if self.kind == "gaussian":
            noisy = degradations.add_gaussian(x, level / 255, rng)
        elif self.kind == "poisson":
            noisy = degradations.draw_photons(x, level, rng)
        elif self.kind == "impulse":
            noisy = degradations.replace_some(x, level, 0.5, rng.random(x.shape, dtype=np.float32))
        else:
            return x.copy()
        return noisy.clip(0, 1) if self.clip else noisy

    @property
    def always(self) -> bool:
        """Whether every picture becomes noisy: there is noise, and its level never 0."""
        return self.kind != "none" and self.low > 0

    def __str__(self) -> str:
        if self.kind == "none":
            return "none"
        level = f"{self.low:g}" if self.low == self.high else f"{self.low:g}-{self.high:g}"
        return f"{self.kind}:{level}"


def read(text: str, *, clip: bool = False) -> Noise:
    """Read a noise from its name and level.

    Parameters
    ----------
    text : str
        "gaussian:25" (sigma on the scale of 0 to 255), "gaussian:0-55" (a range), "poisson:30" (photons at white),
        "impulse:0.1" (share of the values), or "none".
    clip : bool, default False
        Clip noisy values to [0, 1].

    Returns
    -------
    Noise

    Raises
    ------
    ValueError
        The kind is unknown or the level not one.

    Examples
    --------
    >>> str(read("gaussian:0-55"))
    'gaussian:0-55'
    """
    kind, _, level = text.partition(":") if isinstance(text, str) else (text, "", "")
    if kind not in KINDS:
        raise unknown("noise", kind, KINDS)
    if kind == "none" and not level:
        return Noise("none", 0.0, 0.0)
    first, separator, last = level.partition("-")
    try:
        low = float(first)
        high = float(last) if separator else low
    except ValueError:
        low, high = math.nan, math.nan
    least = low >= 0 if kind == "gaussian" and separator else low > 0
    if not (least and low <= high <= _MOST[kind]):
        raise ValueError(
            f"noise {shown(text)} has no level that makes sense; allowed for {kind}: {KINDS[kind]}, or a range of it, "
            'as in "gaussian:25" or "gaussian:5-55"'
        )
    return Noise(kind, low, high, clip)
