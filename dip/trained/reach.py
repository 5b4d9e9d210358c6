"""How far a model sees: its receptive field and its total stride, from its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

__all__ = ["Reach", "reach_of"]


@dataclass(frozen=True)
class Reach:
    """How far one pixel of the output sees, in pixels of the input, along either axis.

    Attributes
    ----------
    before, after : int
        The farthest pixel that counts towards lower and towards higher indices, over all positions of the output pixel.
    stride : int
        The total stride: the model commutes with shifts by so many pixels (away from the borders).
    """

    before: int
    after: int
    stride: int

    @property
    def field(self) -> int:
        """The size of the receptive field: all pixels that some output pixel sees."""
        return self.before + 1 + self.after


def reach_of(path: Sequence[nn.Module]) -> Reach:
    """Follow an output pixel back through layers, as an interval, for every phase of the total stride.

    Parameters
    ----------
    path : sequence of Module
        The layers on the longest way from input to output, in order. Those that are neither convolutions, maximum
        pooling nor upsampling by repetition are taken to act on each pixel alone.

    Returns
    -------
    Reach
    """
    steps = [step for layer in path if (step := _step(layer)) is not None]
    scale, stride = 1.0, 1
    for step in steps:
        scale *= 1 / step.stride if step.up else step.stride
        stride = max(stride, round(scale))
    before = after = 0
    for position in range(stride):
        low = high = position
        for step in reversed(steps):
            low, high = step.back(low, high)
        before, after = max(before, position - low), max(after, high - position)
    return Reach(before, after, stride)


@dataclass(frozen=True)
class _Step:
    """A layer by which output o comes from inputs s o - p to s o - p + k - 1, or the transpose of one."""

    kernel: int
    stride: int
    padding: int
    up: bool

    def back(self, low: int, high: int) -> tuple[int, int]:
        if self.up:
            return -((self.kernel - 1 - self.padding - low) // self.stride), (high + self.padding) // self.stride
        return low * self.stride - self.padding, high * self.stride - self.padding + self.kernel - 1


def _step(layer: nn.Module) -> _Step | None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        (kernel, _), (stride, _), padding = layer.kernel_size, layer.stride, layer.padding
        return _Step(kernel, stride, int(padding[0]), isinstance(layer, nn.ConvTranspose2d))
    if isinstance(layer, nn.MaxPool2d):
        return _Step(int(layer.kernel_size), int(layer.stride), 0, up=False)  # type: ignore[arg-type]
    if isinstance(layer, nn.Upsample):  # repetition is a transposed convolution with a kernel of ones
        factor = int(float(layer.scale_factor))  # type: ignore[arg-type]
        return _Step(factor, factor, 0, up=True)
    return None
