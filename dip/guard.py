"""The divergence guard: notice that a fit has gone wrong, and go back to where it had not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


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

    A loss is bad if it is not finite, or if it is `rise` times as large as its running mean (decay 0.9). The state is
    copied every `every` iterations, before the optimiser's step, and only where the loss was good: so the weights that
    are kept are weights whose loss is known.

    Parameters
    ----------
    rise : float, default 10**0.5
        A rise by 5 dB is not the usual scatter of the jitter (the original research code has the same figure).
    every : int, default 25
        Iterations between copies.
    patience : int, default 5
        Give up when a state was restored so often without a good copy in between.
    """

    def __init__(self, *, rise: float = math.sqrt(10), every: int = 25, patience: int = 5) -> None:
        self.rise, self.every, self.patience = rise, every, patience
        self.mean: float | None = None
        self.good: dict[str, Any] | None = None
        self.good_iteration = 0
        self.failures = 0

    def is_bad(self, loss: float) -> bool:
        """Tell whether a loss is not finite or has suddenly risen."""
        return not math.isfinite(loss) or (self.mean is not None and loss > self.rise * self.mean)

    def accept(self, losses: list[float]) -> None:
        """Take note of good losses."""
        for loss in losses:
            self.mean = loss if self.mean is None else 0.9 * self.mean + 0.1 * loss

    def keep(self, iteration: int, state: Callable[[], dict[str, Any]]) -> None:
        """Copy a state whose loss was good, if a copy is due."""
        if self.good is None or iteration - self.good_iteration >= self.every:
            self.good, self.good_iteration, self.failures = state(), iteration, 0

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
        return self.good

    @property
    def lr_factor(self) -> float:
        """By how much the steps are shortened: by half for each failure since the last good copy."""
        return 0.5**self.failures

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, the last good state included."""
        return {
            "mean": self.mean,
            "good": self.good,
            "good_iteration": self.good_iteration,
            "failures": self.failures,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.mean, self.good = state["mean"], state["good"]
        self.good_iteration, self.failures = state["good_iteration"], state["failures"]
