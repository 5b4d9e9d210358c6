"""The statistics of a picture, found by the kernel that makes it, for the normalisation that follows.

A pass over the picture less: what is to be summed is there when it is written.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

__all__ = ["Following"]


class Following:
    """A batch normalisation with statistics of its own, of a picture to be made; true once they are found.

    Parameters
    ----------
    norm : BatchNorm2d
        The layer.
    bias : Tensor or None
        To be added to the picture before, though that is not done (see `dip.networks.fused`).

    Attributes
    ----------
    mean, deviation : Tensor
        Of each channel, the latter 1 / deviation; there once a kernel is told to find them.
    """

    # for a kernel that is to find nothing
    NOTHING: ClassVar[tuple[Any, ...]] = ((None,) * 6, (0.0, 0.0))

    mean: Tensor
    deviation: Tensor

    def __init__(self, norm: Any, bias: Tensor | None) -> None:
        self._norm, self._bias, self._found = norm, bias, False

    def __bool__(self) -> bool:
        return self._found

    def sought(self) -> tuple[tuple[Tensor | None, ...], tuple[float, float]]:
        """Return what a kernel is given that finds the statistics: tensors, and what counts in the running ones."""
        norm, self._found = self._norm, True
        bias = None if self._bias is None else self._bias.detach()
        self.mean, self.deviation = (norm.running_mean.new_empty(len(norm.running_mean)) for _ in range(2))
        tensors = bias, self.mean, self.deviation, norm.running_mean, norm.running_var, norm.num_batches_tracked
        return tensors, (float(norm.eps), float(norm.momentum))
