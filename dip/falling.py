"""How the residual falls in the course of a fit, which tells whether it is the picture or the noise that is learnt.

While a fit learns the picture, its residual falls ever more slowly, since what is easy to learn comes first. Noise is
unlike anything that the weights have come to, and is learnt faster and faster. So the fall over some iterations, as a
part of what is left, has a minimum where the one takes over from the other. Two look for it: the preset "fast", which
begins its flips then (`dip.flips.Moment`), and a stopping rule (`dip.stopping.ResidualFall`).
"""

from __future__ import annotations

from collections.abc import Sequence

APART = 4  # looks from a residual to that with which it is compared
FASTER = 1.15  # times the slowest fall that there was
_SLOWEST = 1e-3  # a fall over 100 iterations that is below this is taken for as large


def falls_of(residuals: Sequence[float]) -> list[float]:
    """Return by what part of itself each residual is less than the one four looks before, from the fifth on."""
    pairs = zip(residuals, residuals[APART:], strict=False)
    return [(before - now) / max(abs(now), 1e-12) for before, now in pairs]


def faster(fall: float, least: float, *, ratio: float = FASTER, window: int = 100) -> bool:
    """Tell whether a fall over so many iterations is clearly larger than the least that there was."""
    return fall > ratio * max(least, _SLOWEST * window / 100)
