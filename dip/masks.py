"""The known pixels of a picture, as tasks are told of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import images
from dip.images import Layout

__all__ = ["check", "over", "surest", "to_tensor"]


def check(mask: Any, layout: Layout) -> None:
    """Refuse a mask that is not of the picture's size; its values are looked at by `to_tensor`.

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


def to_tensor(mask: np.ndarray | Tensor, height: int, width: int, *, name: str = "mask") -> Tensor:
    """Turn a mask into weights: 1 where a pixel is known, 0 where it is missing.

    Parameters
    ----------
    mask : numpy.ndarray or torch.Tensor
        Shape (H, W); a tensor may have (1, H, W) or (1, 1, H, W). bool: True is known. Integers: non-zero is
        known, so 0/1 and 0/255 mean the same. Floats: a weight in [0, 1].
    height, width : int
        The size of the image that the mask belongs to.
    name : str, optional
        What the messages call the mask.

    Returns
    -------
    torch.Tensor
        Shape (1, 1, H, W), float32 in [0, 1], on the CPU; it shares no memory with `mask`.

    Raises
    ------
    TypeError
        If `mask` is neither an array nor a tensor, or its dtype is complex, object or the like.
    ValueError
        If it has another shape, marks no pixel as known, or holds NaN, negative values or floats above 1.

    Examples
    --------
    >>> to_tensor(np.array([[0, 255]], np.uint8), 1, 2)
    tensor([[[[0., 1.]]]])
    """
    kind = images.kind_of(mask, name)
    dtype = images.dtype_name(mask.dtype)
    if dtype not in ("bool", *images.NUMBERS):
        raise TypeError(f"{name} has dtype {dtype}; allowed: bool, integers, floats; pass {name} != 0")
    shape = tuple(mask.shape)
    shape = shape[-2:] if kind == "torch" and len(shape) in (3, 4) and set(shape[:-2]) == {1} else shape
    if shape != (height, width):
        reason = "" if len(shape) == 2 else f"; a mask has one value a pixel and no channels: {name}.all(axis=0)"
        raise ValueError(f"{name} has shape {tuple(mask.shape)}; the image needs ({height}, {width}){reason}")
    values = images.as_numpy(mask).reshape(height, width)
    if values.dtype.kind == "f":
        least, most = float(values.min()), float(values.max())  # either is NaN if any value is
        if not (least >= 0 and most <= 1):
            advice = f"allowed: [0, 1] with 1 = known, no NaN; pass {name} > 0, or divide by its white"
            raise ValueError(f"{name} has float values from {least:g} to {most:g}; {advice}")
    elif values.dtype.kind == "i" and int(values.min()) < 0:
        raise ValueError(f"{name} has negative values; allowed: 0 = missing, above = known; pass {name} > 0")
    else:
        values = values != 0
    weights = values.astype(np.float32)
    if not weights.any():
        advice = "non-zero means known, so invert a mask of the missing pixels"
        raise ValueError(f"{name} marks no pixel as known: it is 0 everywhere; {advice}")
    return torch.from_numpy(weights[None, None])


def over(known: np.ndarray, layout: Layout) -> np.ndarray:
    """Return what is known of each pixel, (H, W), in a shape that goes with an image of that layout."""
    return known.reshape([n if axis in layout.row_and_column_axes else 1 for axis, n in enumerate(layout.shape)])


def surest(weight: Tensor) -> Tensor:
    """Return (H, W), bool: of the known pixels those whose weight is the median, or more: all, where they are alike."""
    weight = weight[0, 0]
    return weight >= weight[weight > 0].median()
