"""The divergence guard: notice that a fit has gone wrong, and go back to where it had not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dip import devices
from dip.devices import Fetched
from dip.errors import warn

if TYPE_CHECKING:
    from dip.solver import Fit


class DivergenceError(RuntimeError):
    """A fit diverged again and again from the same state.

    Attributes
    ----------
    fit : Fit or None
        The fit, as it was when it gave up: nothing that was reached before is lost.
    """

    fit: Any = None


class Guard:
    """Watch the loss; keep the last good state.

    A loss is bad if it is not finite, or if it is `rise` times as large as any of late: as their maximum, which decays
    by 2 % an iteration, and as that was when the state was last copied, since a loss may rise step by step. (The mean
    would not do: for a picture of few pixels the jitter scatters the loss by more than that.) Below a thousandth of the
    first loss a rise does no harm and is let be, and so it is during the first `every` iterations, when the steps are
    still finding their length. The state is copied every `every` iterations, before the optimiser's step, and only
    where the loss was good: so the weights that are kept are weights whose loss is known.

    Parameters
    ----------
    rise : float, default 10**0.5
        A rise by 5 dB is not the usual scatter of the jitter (the original research code has the same figure).
    every : int, default 25
        Iterations between copies.
    patience : int, default 5
        Give up when a state was restored so often without a good copy in between.
    """

    _DECAY = 0.98
    _HARMLESS = 1e-3

    def __init__(self, *, rise: float = math.sqrt(10), every: int = 25, patience: int = 5) -> None:
        self.rise, self.every, self.patience = rise, every, patience
        self.seen = 0
        self.first = self.level = 0.0
        self.kept_level = math.inf
        self.good: dict[str, Any] | None = None
        self.good_iteration = 0
        self.restored = 0
        self.failures = 0

    def is_bad(self, loss: float) -> bool:
        """Tell whether a loss is not finite or has suddenly risen."""
        if not math.isfinite(loss) or self.seen < self.every:
            return not math.isfinite(loss)
        return loss > max(self.rise * min(self.level, self.kept_level), self._HARMLESS * self.first)

    def accept(self, losses: list[float]) -> None:
        """Take note of good losses."""
        for loss in losses:
            self.seen += 1
            self.first = abs(loss) if self.seen == 1 else self.first
            self.level = max(abs(loss), self._DECAY * self.level)

    def is_due(self, iteration: int) -> bool:
        """Tell whether a state is to be kept, if its loss is good."""
        # Counted from a restoration too: the shorter steps are to show that they lead further than the last ones did.
        return self.good is None or iteration - max(self.good_iteration, self.restored) >= self.every

    def keep(self, iteration: int, state: dict[str, Any] | None) -> None:
        """Keep the copy of a state whose loss was good, if there is one."""
        if state is not None:
            self.good, self.good_iteration, self.failures = state, iteration, 0
            self.kept_level = self.level if self.seen >= self.every else math.inf

    def forget_losses(self) -> None:
        """Compare the next losses with none before them; the state that was kept stays."""
        self.seen, self.first, self.level, self.kept_level = 0, 0.0, 0.0, math.inf

    def back(self, iteration: int, loss: float) -> dict[str, Any]:
        """Return the state to go back to.

        Raises
        ------
        DivergenceError
            There is none, or it has failed too often.
        """
        self.failures += 1
        if self.good is None:
            raise DivergenceError(
                f"the loss was {loss:g} at the first iteration; check that the forward operator and the loss return "
                "finite numbers for an image in [0, 1]"
            )
        if self.failures > self.patience:
            raise DivergenceError(
                f"the loss became {loss:g} at iteration {iteration}, and {self.patience} fresh starts from iteration "
                f"{self.good_iteration} with smaller steps went the same way; take a lower learning rate (lr=...), "
                'precision="float32", or another seed'
            )
        self.restored = iteration
        return self.good

    @property
    def lr_factor(self) -> float:
        """By how much the steps are shortened: by half for each failure since the last good copy."""
        return 0.5**self.failures

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, the last good state included."""
        return {
            "seen": self.seen,
            "first": self.first,
            "level": self.level,
            "kept_level": self.kept_level,
            "good": self.good,
            "good_iteration": self.good_iteration,
            "restored": self.restored,
            "failures": self.failures,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.seen, self.first, self.level = state["seen"], state["first"], state["level"]
        self.kept_level, self.good = state["kept_level"], state["good"]
        self.good_iteration, self.restored = state["good_iteration"], state["restored"]
        self.failures = state["failures"]


class Watch:
    """The losses of a fit that its guard has not seen yet, and what is done about a bad one.

    On the CPU every loss is looked at. To look at one on an accelerator means to wait for it, so there they are looked
    at together, when the next state is copied: those up to the last copy, which are there by then. That is early
    enough, since the state goes back as a whole.
    """

    def __init__(self, unchecked: list[Tensor] | None = None) -> None:
        self.unchecked = unchecked or []
        # a state, its iteration and the losses up to there: it is kept if they are good
        self._copied: tuple[int, dict[str, Any], Fetched] | None = None

    def check(self, fit: Fit, loss: Tensor) -> bool:
        """Take the loss of an iteration; return False if the state had to be restored."""
        guard = fit._guard
        self.unchecked.append(loss)
        waits = devices.asynchronous(fit.device) and fit._rule is None and fit.iteration > 1
        if waits and fit.iteration % guard.every:
            return True
        if waits and self._copied and not self._look(fit):
            return False
        if guard.is_due(fit.iteration):
            self._copied = fit.iteration, fit._kept_state(), Fetched(torch.stack(self.unchecked))
            if waits:
                return True
        return self.settle(fit)

    def settle(self, fit: Fit) -> bool:
        """Look at the losses that nobody has looked at yet; return False if the state had to be restored."""
        while self.unchecked:
            if not self._look(fit):
                return False
        return True

    def _look(self, fit: Fit) -> bool:
        """Look at the losses up to the last copy, and keep that; at all where there is none."""
        last, state, fetched = self._copied or (fit.iteration, None, Fetched(torch.stack(self.unchecked)))
        values = fetched.values()
        bad = next(filter(fit._guard.is_bad, values), None)
        if bad is not None:
            self.unchecked.clear()
            self._copied = None
            self._recover(fit, bad)
            return False
        del self.unchecked[: len(values)]
        fit._guard.accept(values)
        fit._guard.keep(last, state)
        self._copied = None
        return True

    def _recover(self, fit: Fit, loss: float) -> None:
        guard = fit._guard
        try:
            good = guard.back(fit.iteration, loss)
        except DivergenceError as error:
            if guard.good is not None:
                fit._load_trainable_state(guard.good)
            error.fit = fit
            raise
        fit._load_trainable_state(good)
        fit._flips.forget()
        if fit._rule is not None:
            fit._rule.forget()
        back_to = guard.good_iteration
        fit.recoveries.append({"iteration": fit.iteration, "loss": loss, "back_to": back_to})
        warn(
            f"the loss became {loss:.3g} at iteration {fit.iteration}; went back to the state of iteration {back_to} "
            "and on from there with smaller steps",
        )
