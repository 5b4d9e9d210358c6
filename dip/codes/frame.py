"""Where the image lies in what the network makes, and what a code is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """Where the image lies in what the network makes: the network's size, and the image's window in it."""

    height: int
    width: int
    top: int
    left: int
    inner_height: int
    inner_width: int

    @classmethod
    def around(cls, size: tuple[int, int], padded: tuple[int, int]) -> Frame:
        """Centre an image of `size` (H, W) in `padded` (H, W)."""
        return cls(*padded, (padded[0] - size[0]) // 2, (padded[1] - size[1]) // 2, *size)

    def reduced(self, factor: int) -> Frame:
        """Return the frame of a code of which the network makes this one, so many times as high and wide."""
        if factor == 1:
            return self
        size = (self.height // factor, self.width // factor)
        return Frame.around(size, size)

    def crop(self, x: Tensor) -> Tensor:
        """Cut the image's window out of (..., height, width)."""
        if (self.height, self.width) == (self.inner_height, self.inner_width):
            return x
        return x[..., self.top : self.top + self.inner_height, self.left : self.left + self.inner_width]

    def extend(self, x: Tensor, mode: str = "replicate") -> Tensor:
        """Let the edge pixels of (1, C, inner_height, inner_width) go on to the frame's size ("constant": zeros)."""
        right = self.width - self.left - self.inner_width
        bottom = self.height - self.top - self.inner_height
        return F.pad(x, (self.left, right, self.top, bottom), mode=mode)


@runtime_checkable
class Code(Protocol):
    """What can be a code: it has a number of channels and can be drawn at a size."""

    @property
    def channels(self) -> int:
        """Number of channels of the code."""

    def draw(self, frame: Frame, generator: torch.Generator) -> Tensor:
        """Return z, float32 of shape (1, channels, frame.height, frame.width), on the CPU."""
