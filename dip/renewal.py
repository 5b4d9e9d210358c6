"""When the code of a fit is made anew, and what comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dip import codes

if TYPE_CHECKING:
    from dip.solver import Fit

__all__ = ["load_state_dict", "renew", "state_dict"]


def renew(fit: Fit) -> None:
    """Make the code of a fit anew, if it is of that kind, and this is the time."""
    code, settings = fit._code, fit.settings
    if (
        not isinstance(code, codes.RENEWED)
        or not code.renews(fit.iteration, settings.tiles)
        or fit._view.settled
        or settings.optimize_code
    ):
        return
    fit._watch.settle(fit)  # what goes into the code cannot be taken back
    passed = fit.iteration // settings.tiles
    fit._code = code.renew(fit.code, settings.frame, fit.task, fit.y, fit.current, passed)
    if fit._code is not code:
        fit._flips.follow(fit._code, fit.iteration)
        fit._guard.forget_losses()  # of a code that is so different the loss may be many times as large


def state_dict(fit: Fit) -> dict[str, Any]:
    """Return what the code of a fit has learned on the way."""
    return fit._code.state_dict() if isinstance(fit._code, codes.RENEWED) else {}


def load_state_dict(fit: Fit, state: dict[str, Any] | None) -> None:
    """Go on from that; of a fit that was saved before there was such a thing it is None."""
    if state is not None and isinstance(fit._code, codes.RENEWED):
        fit._code = fit._code.recalled(state)
        fit._flips.follow(fit._code)
