"""Pictures of any size through a model, in overlapping tiles that leave no grid.

A tile is wrong near its own border, where the model saw padding in place of the picture. So tiles overlap by more than
the model's reach on both sides; a pixel counts nothing where it is nearer to the tile's border than that, and the rest
of the overlap is a smooth passage from one tile to the next. Offsets are multiples of the model's total stride. Then
tiles and the picture as a whole give the same numbers, at the picture's border too: there a tile ends where the picture
does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.errors import non_negative_int, positive_int
from dip.trained.architectures import Model

__all__ = ["TILE", "Plan", "apply", "plan"]

TILE = 512
"""Pixels a side of a tile: what is in memory at one time is the layers of so many, whatever the size of the picture."""
_PASSAGE = 16  # pixels in which one tile passes into the next


class Plan(NamedTuple):
    """How a picture is cut: the size of a tile, the overlap, and how much of it does not count on either side."""

    tile: int
    overlap: int
    margin: int


def plan(model: Model, tile: int = TILE, overlap: int | None = None) -> Plan:
    """Choose tiles that suit a model.

    Parameters
    ----------
    model : Model
        Its reach and total stride are read off its layers.
    tile : int
        Pixels a side, at most; made smaller to a size that the model takes.
    overlap : int, optional
        Pixels that neighbours share; by default as many as make tiles and the whole the same. Fewer are allowed (0 too,
        and then there are seams); rounded up to the total stride.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError, TypeError
        The tile is too small for its overlap.
    """
    reach = model.reach
    stride, halo = reach.stride, max(reach.before, reach.after)
    if overlap is None:
        overlap = 2 * halo + _PASSAGE
    overlap = _up(non_negative_int(overlap, "overlap"), stride)
    wanted = positive_int(tile, "tile")
    size = wanted - (wanted - model.remainder) % stride
    # a tile advances by at least a stride; its neighbours on both sides must not meet in its middle
    least = max(_up(2 * overlap + stride, stride) + model.remainder, model.least)
    if size < least:
        raise ValueError(
            f"tile={wanted} is too small for this model with an overlap of {overlap}; pass tile={least} or more"
        )
    return Plan(size, overlap, max(0, min(halo, (overlap - 1) // 2)))


def apply(model: Model, x: Tensor, cut: Plan | None) -> Tensor:
    """Return what a model makes of a picture.

    Parameters
    ----------
    model : Model
        In evaluation mode, on the device of `x`.
    x : Tensor
        (1, C, H, W) with the model's channels, of any size.
    cut : Plan or None
        From `plan`; None takes the picture as a whole.

    Returns
    -------
    Tensor
        (1, C, H, W). A size that the model does not take is padded below and on the right by repeating the last row and
        column, and cropped.
    """
    height, width = x.shape[-2:]
    tall, wide = model.padded_size(height, width)
    if (tall, wide) != (height, width):
        x = F.pad(x, (0, wide - width, 0, tall - height), mode="replicate")
    if cut is None or max(tall, wide) <= cut.tile:
        found: Tensor = model(x)
        return found[..., :height, :width]
    rows, columns = _spans(tall, cut, model), _spans(wide, cut, model)
    total = torch.zeros_like(x)
    weights = torch.zeros_like(x[:, :1])
    for top, bottom in rows:
        down = _window(top, bottom, tall, cut).to(x.device)
        for left, right in columns:
            window = down[:, None] * _window(left, right, wide, cut).to(x.device)
            total[..., top:bottom, left:right] += window * model(x[..., top:bottom, left:right])
            weights[..., top:bottom, left:right] += window
    return (total / weights)[..., :height, :width]


def _spans(size: int, cut: Plan, model: Model) -> list[tuple[int, int]]:
    """From where to where each tile reaches along one axis; the last one ends with the picture, and may be smaller."""
    if size <= cut.tile:
        return [(0, size)]
    stride = model.reach.stride
    step = (cut.tile - cut.overlap) // stride * stride
    count = math.ceil((size - cut.tile) / step) + 1
    spans = [(i * step, i * step + cut.tile) for i in range(count - 1)]
    # the last begins earlier rather than end later, so that it is no smaller than the others
    start = max(0, size - cut.tile) // stride * stride
    return [*spans, (start, size)]


def _window(start: int, end: int, size: int, cut: Plan) -> Tensor:
    """The weights of a tile along one axis: 0 in the margin, a raised cosine through the passage, 1 in the middle."""
    window = torch.ones(end - start)
    passage = cut.overlap - 2 * cut.margin
    if passage > 0:
        rise = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(passage) + 0.5) / passage)
        ramp = torch.cat([torch.zeros(cut.margin), rise])
        if start > 0:
            window[: len(ramp)] = ramp
        if end < size:
            window[-len(ramp) :] = ramp.flip(0)
    return window


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
