"""Data losses that know the task: what its operator has weakened, or lost in rounding."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Self

import torch

from dip.errors import positive_float
from dip.losses.residuals import residual_of

__all__ = ["OF_TASKS", "BackProjection", "Quantization"]


@dataclass(frozen=True)
class _OfTask:
    """A loss that asks its task.

    Parameters
    ----------
    task : object, optional
        Where A is; a fit fills it in.
    """

    _: KW_ONLY
    task: Any = field(default=None, repr=False, compare=False)

    def of(self, task: Any) -> Self:
        """Return the loss of a task.

        Raises
        ------
        ValueError
            The task is not of the kind that the loss is for.
        """
        raise NotImplementedError

    def _known(self, prediction: torch.Tensor, observation: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Return the residual, where there is a task and no weight."""
        if self.task is None:
            raise RuntimeError(f"{self!r} belongs to no task; give it to dip.fit as loss=")
        if weight is not None:
            raise ValueError(f"{self!r} takes no weights; take another loss")
        return residual_of(prediction, observation)


@dataclass(frozen=True)
class BackProjection(_OfTask):
    r"""Mean squared error after the operator has been undone, as far as it can be.

    .. math:: E = \frac{1}{n} \left\| (A A^T + λ I)^{-1/2} (A x - y) \right\|^2

    What A weakens, the fine of a blurred image, weighs as much as the rest, down to where the damping λ of the task
    says that y is noise: a fit finds it in far fewer iterations than by the squared error of A x.

    Parameters
    ----------
    task : object, optional
        Where A is; a fit fills it in. It has a method ``whitened(residual)``, as `dip.Deblur` has.

    References
    ----------
    Tirer and Giryes, "Back-projection based fidelity term for ill-posed linear inverse problems", IEEE Transactions on
    Image Processing 2020; in a deep image prior: Zukerman, Tirer, Giryes, "BP-DIP: a backprojection based deep image
    prior", EUSIPCO 2020.
    """

    def of(self, task: Any) -> BackProjection:
        """Return the loss of a task.

        Raises
        ------
        ValueError
            The task cannot undo its operator.
        """
        if not hasattr(task, "whitened"):
            raise ValueError(f"loss={self!r} undoes a blur: it is for dip.Deblur, not for {task.task}")
        return replace(self, task=task)

    def __call__(
        self, prediction: torch.Tensor, observation: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss, parameters as for `MSE`, but without weights."""
        residual = self._known(prediction, observation, weight)
        whitened: torch.Tensor = self.task.whitened(residual)
        return whitened.square().mean()


@dataclass(frozen=True)
class Quantization(_OfTask):
    r"""Squared error of values that are known to whole steps q only: within some part of a step none counts.

    .. math:: E = \frac{1}{n} \sum_j \frac{\bar q}{q_j} \max(|r_j| - f q_j / 2, \; 0)^2,

    with the mean step :math:`\bar q`: an error weighs the more, the finer its step is, but not as much as if it were
    counted in steps. With f = 1 all that would be rounded to y costs nothing, with f = 0 it is a squared error.

    Parameters
    ----------
    free : float, optional
        f, 0 to 1. By default it follows from the error σ of the JPEG (`dip.operators.JPEG.error`): (σ - 0.03) / 0.06,
        from 0 to 0.5; the less is known, the less is gained by being near to it (by trials, see docs/fast.md).
    task : object, optional
        Where the steps are; a fit fills it in. It has the attributes ``steps``, a Tensor that broadcasts to y, and
        ``error``, as `dip.Dejpeg` has.
    """

    free: float | None = None

    def __post_init__(self) -> None:
        if self.free is None:
            return
        free = positive_float(self.free, "free", zero_ok=True)
        if free > 1:
            raise ValueError(f"free={free:g}: give a part of the interval, 0 to 1")
        object.__setattr__(self, "free", free)

    def of(self, task: Any) -> Quantization:
        """Return the loss of a task.

        Raises
        ------
        ValueError
            The task's observation was not rounded to steps.
        """
        if not hasattr(task, "steps"):
            raise ValueError(f"loss={self!r} is for what was rounded: for dip.Dejpeg, not for {task.task}")
        return replace(self, task=task)

    def __call__(
        self, prediction: torch.Tensor, observation: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss, parameters as for `MSE`, but without weights."""
        residual, steps = self._known(prediction, observation, weight), self.task.steps
        free = min(max((self.task.error - 0.03) / 0.06, 0.0), 0.5) if self.free is None else self.free
        beyond = (residual.abs() - free / 2 * steps).clamp(min=0)
        return (beyond.square() * (steps.mean() / steps)).mean()


OF_TASKS = (BackProjection, Quantization)
"""Losses with a method `of`."""
