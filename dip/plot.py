"""Pictures of pictures: before, after and original side by side, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dip import images
from dip.errors import non_negative_int

__all__ = ["side_by_side"]

_BACKGROUND, _INK = (255, 255, 255), (0, 0, 0)
_SMALLEST, _LARGEST = 8, 28  # size of the letters in pixels


def side_by_side(pictures: Sequence[np.ndarray | torch.Tensor], labels: Sequence[str], *, gap: int = 8) -> np.ndarray:
    """Put pictures in a row, each with its label above it.

    Parameters
    ----------
    pictures : sequence of ndarray or Tensor
        Gray or RGB, of any kind that `dip.images.describe` understands, each shown by its own data range (values
        outside it are clipped; alpha is not shown). Sizes may differ: each picture is centred in a cell as large
        as the largest.
    labels : sequence of str
        One line for each picture.
    gap : int, default 8
        White pixels between the pictures and around them.

    Returns
    -------
    ndarray
        (H, W, 3), uint8.

    Raises
    ------
    ValueError
        There is no picture, not one label for each, or a picture is neither gray nor RGB.

    Examples
    --------
    >>> row = side_by_side([np.zeros((64, 96)), np.ones((64, 96))], ["before", "after"], gap=4)
    >>> row.shape[1], row.dtype
    (204, dtype('uint8'))
    """
    from PIL import Image, ImageDraw

    gap = non_negative_int(gap, "gap")
    if not pictures or len(pictures) != len(labels):
        raise ValueError(f"{len(pictures)} pictures and {len(labels)} labels; give one label for each picture")
    cells = [_eight_bits(picture) for picture in pictures]
    height = max(cell.shape[0] for cell in cells)
    width = max(cell.shape[1] for cell in cells)
    font, ascent, head = _font(labels, width)
    canvas = Image.new("RGB", (gap + len(cells) * (width + gap), gap + head + height + gap), _BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for i, (cell, label) in enumerate(zip(cells, labels, strict=True)):
        left = gap + i * (width + gap)
        pen.text((left + width / 2, gap + ascent), label, fill=_INK, font=font, anchor="ms")
        place = (left + (width - cell.shape[1]) // 2, gap + head + (height - cell.shape[0]) // 2)
        canvas.paste(Image.fromarray(cell), place)
    return np.array(canvas)


def _eight_bits(picture: np.ndarray | torch.Tensor) -> np.ndarray:
    """A picture as (H, W, 3), uint8."""
    layout = images.describe(picture)
    if layout.channels not in (1, 3):
        raise ValueError(f"a picture has {layout.channels} channels; only gray and RGB can be shown")
    x = images.to_tensor(picture, layout, fitted=False)[0].clamp(0, 1)
    rows = np.rint(255 * x.numpy().transpose(1, 2, 0)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(rows, (*rows.shape[:2], 3)))


def _font(labels: Sequence[str], width: int) -> tuple[Any, int, int]:
    """The largest font in which each label fits its cell, how far its letters rise, and the height of the line."""
    from PIL import ImageFont

    for size in range(_LARGEST, _SMALLEST - 1, -1):
        font: Any = ImageFont.load_default(size=size)
        if max(font.getlength(label) for label in labels) <= width:
            break
    ascent, descent = font.getmetrics()
    return font, ascent, ascent + descent + 2
