"""The known pixels of a picture, as tasks are told of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from dip.images import Layout

__all__ = ["check", "over", "surest"]


def check(mask: Any, layout: Layout) -> None:
    """Refuse a mask that is not of the picture's size; its values are looked at by `dip.images.mask_to_tensor`.

    Raises
    ------
    TypeError, ValueError
        It is a masked array of numpy, or of another shape.
    """
    if isinstance(mask, np.ma.MaskedArray):
        raise TypeError(
            "mask is a numpy masked array; pass a plain one of which True = known: ~mask.mask, if what it masks is "
            "missing, or mask.filled(0)"
        )
    given, size = tuple(getattr(mask, "shape", ())), (layout.height, layout.width)
    if given[-2:] != size:
        each = "; pass mask.all(axis=-1), or where each channel has its own take dip.reconstruct(..., weight=)"
        raise ValueError(
            f"mask {f'has shape {given}' if given else f'is a {type(mask).__name__}'}; an array or tensor of shape "
            f"{size} is needed, True = the pixel is known{each if given[:-1] == size else ''}"
        )


def over(known: np.ndarray, layout: Layout) -> np.ndarray:
    """Return what is known of each pixel, (H, W), in a shape that goes with an image of that layout."""
    return known.reshape([n if axis in layout.row_and_column_axes else 1 for axis, n in enumerate(layout.shape)])


def surest(weight: Tensor) -> Tensor:
    """Return (H, W), bool: of the known pixels those whose weight is the median, or more: all, where they are alike."""
    weight = weight[0, 0]
    return weight >= weight[weight > 0].median()
