"""A part of a large picture that a network learns from, which then makes the whole."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.codes import Frame
from dip.crops import Crop, Place, axes, whole

_NEAR = 3  # pixels to each side that count as near


class Excerpt:
    """The way of a fit that sees one part of the picture all the time; methods as of `dip.crops.Whole`.

    That part is where most known pixels have missing ones nearby, in a square of `tile` pixels a side.

    Parameters
    ----------
    frame : Frame
        Where the picture lies in the code.
    tile : int
        Side in pixels of the code, a multiple of `step`.
    step : int
        It begins at multiples of it, as crops do.
    weight : Tensor
        (1, 1, inner_height, inner_width): 0 = the pixel is missing.
    """

    def __init__(self, frame: Frame, tile: int, step: int, weight: Tensor) -> None:
        begins = _most(frame.extend((weight > 0) * near(1 - weight), "constant"), tile, step)
        places = [axis.at(begin) for axis, begin in zip(axes(frame, tile, step), begins, strict=True)]
        self._crop, self._tile = Crop(*zip(*places, strict=True)), pass_tile(tile, frame)
        self.place: Place = self._crop.y
        """Which part of the picture it is, without what the code has beyond it."""

    def part(self, code: Tensor) -> Tensor:
        """Return that part of the code."""
        return code[..., *self._crop.code].contiguous(memory_format=torch.channels_last)

    def picture(self, made: Tensor) -> Tensor:
        """Return what belongs to `place` of what the network has made of that."""
        return made[..., *self._crop.x]

    def made(self, network: Any, code: Tensor, dtype: torch.dtype, iteration: int) -> Tensor:
        """Return what the network makes of a whole code, by the statistics that its normalisations had last."""
        return whole(network, code, self._tile, dtype)


def pass_tile(tile: int, frame: Frame) -> int:
    """Return the side of a tile of the last pass: that of the part, or so many times it that a picture has 8 or more.

    Much of a small one is margin; who has memory for a large picture has it for larger ones, too.
    """
    return tile * max(1, math.isqrt(frame.height * frame.width // (8 * tile**2)))


def near(shown: Tensor) -> Tensor:
    """Return how much is shown of the 7 x 7 pixels about each, (n, 1, H, W)."""
    return F.avg_pool2d(F.pad(shown, (_NEAR,) * 4, mode="replicate"), 2 * _NEAR + 1, stride=1)


def _most(worth: Tensor, tile: int, step: int) -> tuple[int, int]:
    """Return at which row and column, multiples of `step`, the tile of most worth begins."""
    blocks = F.avg_pool2d(worth, step)
    sums = F.avg_pool2d(blocks, [min(tile // step, extent) for extent in blocks.shape[2:]], stride=1)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return step * top, step * left
