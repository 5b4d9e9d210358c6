"""The range that a fit takes for a picture which uses little of its own: its contrast is stretched.

The weights of a network move by steps of one length, whatever the picture is, and its output goes from 0 to 1: beside
the contrast of a picture that ends at a sixteenth of white a step is sixteen times as far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Module

from dip import codes, losses
from dip.stopping import BY_ITSELF

__all__ = ["AS_IT_IS", "Stretch", "Stretching", "of", "of_sharper", "unitless"]


class Stretch(NamedTuple):
    """A range of the picture, which the fit sees as [0, 1]."""

    low: float
    span: float

    def forward(self, y: Tensor) -> Tensor:
        """Return what the fit sees of y."""
        return y if self == AS_IT_IS else (y - self.low) / self.span

    def inverse(self, x: Tensor) -> Tensor:
        """Return x as it is in the picture."""
        return x if self == AS_IT_IS else self.low + self.span * x


AS_IT_IS = Stretch(0.0, 1.0)


@runtime_checkable
class Stretching(Protocol):
    """A task of which a fit may see a picture in another range."""

    stretches: bool
    """Whether this one does; it says so before `load`."""


def of(known: Tensor, beyond: float = 0.0) -> Stretch:
    """Return the range of the known values of a picture whose white is 1, and some of it `beyond`, within [0, 1].

    Where it is half of [0, 1] or more, or next to nothing, the picture is left as it is.
    """
    darkest, brightest = float(known.min()), float(known.max())
    more = beyond * (brightest - darkest)
    return _within(darkest - more, brightest + more)


def of_sharper(
    y: Tensor, nearer: Callable[[Tensor | None, Tensor], Tensor], times: float = 2.0, *, from_black: bool = False
) -> Stretch:
    """Return a range for a picture that is sharper than y, a blurred or small one whose white is 1.

    Parameters
    ----------
    y : Tensor
        What was observed.
    nearer : callable
        ``nearer(x, y)`` returns a picture that fits y better than x does; of None a first one. Eight such, none of
        which is below black, tell how far beyond the range of y the picture may go.
    times : float
        How many times as far beyond it as they are there is to be room. Where that is more than twice the range, there
        are points of light, of whose true brightness y says little, and the picture is left as it is.
    from_black : bool
        Whether the range is to begin at black, since A knows of that.
    """
    low, high = float(y.min()), float(y.max())
    span = high - low
    if not _NOTHING < span < _ENOUGH:
        return AS_IT_IS
    x: Tensor | None = None
    for _ in range(_TURNS):
        x = nearer(x, y).clamp(min=0)
    assert x is not None
    above, below = max(0.0, float(x.max()) - high), max(0.0, low - float(x.min()))
    if times * above > _POINTS * span:
        return AS_IT_IS
    return _within(0.0 if from_black else low - times * below - _MORE * span, high + times * above + _MORE * span)


def _within(low: float, high: float) -> Stretch:
    low, high = max(0.0, low), min(1.0, high)
    return Stretch(low, high - low) if _NOTHING < high - low < _ENOUGH else AS_IT_IS


def unitless(network: Any, loss: Any, penalties: Any, stop: Any, code: Any) -> bool:
    """Whether nothing that a fit was given is in the unit of white, so that the fit may have one of its own.

    Own losses, rules and networks may be, as are penalties, and the levels of noise that are told.
    """
    return (
        not isinstance(network, Module)
        and isinstance(loss, losses.MSE | losses.L1 | losses.BackProjection)
        and not penalties
        and (stop is None or type(stop) in BY_ITSELF.values())
        and not (isinstance(code, codes.Denoised) and code.level is not None)
    )


_NOTHING, _ENOUGH = 1e-5, 0.5  # of white
# Of y's range, by trials with photographs, stars and beads (docs/fast.md).
_TURNS, _POINTS, _MORE = 8, 2.0, 0.1
