"""The gradients of convolutions on a CPU: of the weights, strip by strip, and of an input that was padded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["MODE", "TAPS", "WeightGradient", "filter_of", "gradients_of", "to_input"]

MODE = {True: "reflect", False: "constant"}
TAPS = {"bilinear": (0.25, 0.75, 0.75, 0.25), "nearest": (1.0, 1.0)}  # what twofold upsampling makes of a pixel


def gradients_of(
    g: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return PyTorch's gradients of a convolution with zero padding (rows, columns)."""
    geometry = ([stride] * 2, padding, [1, 1], False, [0, 0], 1)
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        g, x, weight, [weight.shape[0]], *geometry, wanted
    )
    return found


class WeightGradient:
    """The gradients of a convolution's weight and bias, summed over strips.

    In float32 at least: a sum in bfloat16 would soon be too large for its parts to matter.
    """

    def __init__(self, weight: Tensor, stride: int, wanted: tuple[bool, bool]) -> None:
        self.weight, self.stride, self.wanted = weight, stride, wanted  # those of weight and bias, or one of them
        self._sums: list[Tensor | None] = []

    def add(self, g: Tensor, seen: Tensor) -> None:
        """Add the part of a strip, from the gradient there and the input that it sees."""
        if not any(self.wanted):
            return
        parts = gradients_of(g, seen, self.weight, self.stride, (0, 0), (False, *self.wanted))[1:]
        if not self._sums:
            self._sums = [None if part is None else part.to(_at_least_float32(part)) for part in parts]
        else:
            for total, part in zip(self._sums, parts, strict=True):
                if total is not None:
                    total += part

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of weight and bias, None where one is not wanted."""
        to_weight, to_bias = self._sums or (None, None)
        return to_weight, to_bias


def _at_least_float32(t: Tensor) -> torch.dtype:
    return torch.promote_types(t.dtype, torch.float32)


def to_input(g: Tensor, x: Tensor, weight: Tensor, stride: int, pad: int = 0, reflect: bool = False) -> Tensor:
    """Return the gradient of the input x of a padded convolution; of x only shape and order count.

    With padding by reflection it is that with zeros, and what falls on the padding added to the pixels reflected there.
    """
    to_x = gradients_of(g, x, weight, stride, (pad, pad), (True, False, False))[0]
    if not (pad and reflect):
        return to_x
    height, width = x.shape[2:]
    kernel = weight.shape[-1]

    def back(part: Tensor, rows: int, columns: int, padding: tuple[int, int]) -> Tensor:
        seen = part.new_empty((*x.shape[:2], rows, columns))
        return gradients_of(part, seen, weight, stride, padding, (True, False, False))[0]

    def edges(axis: int, size: int) -> Iterator[tuple[Tensor, int, int, int]]:
        """Yield the outputs that see the padding on one side, what they see, where in it the padding is and falls."""
        outputs = g.shape[axis]
        near = min(math.ceil(pad / stride), outputs)
        yield g.narrow(axis, 0, near), (near - 1) * stride + kernel, 0, 1
        far = max(0, math.ceil((size + pad + 1 - kernel) / stride))
        if far < outputs:
            begin = size + pad - far * stride
            yield g.narrow(axis, far, outputs - far), begin + pad, begin, size - 1 - pad

    for part, extent, begin, target in edges(2, height):  # above and below, with the corners
        beyond = back(part, extent, width + 2 * pad, (0, 0)).narrow(2, begin, pad)
        inside = to_x.narrow(2, target, pad)
        inside += torch.ops.aten.reflection_pad2d_backward(beyond, inside, [pad, pad, 0, 0]).flip(2)
    for part, extent, begin, target in edges(3, width):  # left and right
        beyond = back(part, height, extent, (pad, 0)).narrow(3, begin, pad)
        to_x.narrow(3, target, pad).add_(beyond.flip(3))
    return to_x


def filter_of(taps: Sequence[float], like: Tensor) -> Tensor:
    """Return the kernel that filters each channel of `like` with the taps along rows and columns."""
    line = torch.tensor(taps, dtype=like.dtype, device=like.device)
    return torch.outer(line, line).expand(like.shape[1], 1, -1, -1)
