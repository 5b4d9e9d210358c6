"""What the solver needs to know of a task."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Observation(NamedTuple):
    """What was observed: y, and the weight of each of its elements (None = 1)."""

    y: Tensor
    weight: Tensor | None


class Problem(Protocol):
    """A task as the solver sees it: one y, one A, and what becomes of x (see `dip.tasks`)."""

    @property
    def task(self) -> str:
        """Name of the task, for presets and checkpoints."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the image x."""

    @property
    def default_preset(self) -> str:
        """Preset to take if none is named."""

    @property
    def device(self) -> torch.device | None:
        """The device that "auto" is to take, if the task has reason to prefer one."""

    @property
    def support(self) -> int | None:
        """How many pixels of y around one A looks at beyond its own, or None where it may be any of them."""

    @property
    def factor(self) -> int:
        """How many pixels of x a pixel of y has in each direction."""

    def load(self) -> Observation:
        """Check the values of the observation and return it, on the CPU."""

    def place(self, observation: Observation) -> None:
        """Take the observation as it lies on the device; prepare and check the operator there."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the prediction A x."""

    def compose(self, x: Tensor) -> Tensor:
        """Return the picture to give out for an x (inpainting puts the known pixels back)."""

    def output(self, x: Tensor) -> Any:
        """Return a picture in the user's kind of array."""

    def clean(self, reference: Any) -> Tensor:
        """Return a reference picture as an x, on the CPU."""

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this task from another of its kind, in JSON types."""


@runtime_checkable
class Correcting(Protocol):
    """A task that can correct a picture."""

    def consistent(self, x: Tensor | None, y: Tensor, times: int = 10) -> Tensor:
        """Return x, corrected so often that A x comes to y, or nearer to it; of None a first picture."""


@runtime_checkable
class Unbiased(Protocol):
    """A task of which a fit comes to another mean than x, or leaves some of it, and that knows the way back."""

    def unbiased(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the x of which the fit of y has come to this one."""


@runtime_checkable
class Holding(Protocol):
    """A task that can do without some of what is known."""

    def held_out(
        self, folds: int, place: tuple[slice, slice], progress: bool | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is made of all that is known, and of a place without a fold of it each, with the weights there.

        The picture is (1, C, H, W), those of the folds (folds, C, h, w), and their weights (folds, 1, h, w).
        """

    def refined(self, x: Tensor) -> Tensor:
        """Return an x that is nearly right after a last filter."""


@runtime_checkable
class Particular(Protocol):
    """A task that does not go with every loss and stopping rule."""

    def check_options(self, loss: Any, stop: Any, *, corrected: bool) -> None:
        """Raise ValueError for a loss or a rule (None = none) that does not go with it.

        `corrected` says whether pictures will be (`Correcting`, `Unbiased`): those of the code, or the one returned.
        """


def corrected(task: Any, x: Tensor, y: Tensor) -> Tensor:
    """Return a corrected x, in [0, 1], as a task that can correct pictures returns it."""
    if isinstance(task, Unbiased):
        return task.unbiased(x, y)
    return task.consistent(x, y, times=1).clamp(0, 1)  # more often, noise of y would come back with the rest
