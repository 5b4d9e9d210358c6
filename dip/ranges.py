"""The clean range of an image, so far as its values tell: what is taken where nothing is said, and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import images, masks
from dip.errors import warn
from dip.images import Layout

__all__ = ["is_narrowed", "narrowed", "of_batch", "warn_of", "white_of", "white_of_all"]

_Range = float | Sequence[float] | None

_BITS = (8, 10, 12, 14)  # of cameras and detectors, whose values travel in 16
_FEW = 1e-3  # of the values: what may be hot pixels rather than light
_DARK = 0.1  # a picture of floats that ends there is very dark, or in another unit


def _bits(highest: float) -> int | None:
    """Return in how few bits of the usual ones integers up to `highest` have room; None for 16, and for black."""
    return next((one for one in _BITS if 0 < highest < 2**one), None)


def white_of(highest: float) -> float | None:
    """Return the white of these bits; None for 16, and for black."""
    found = _bits(highest)
    return None if found is None else 2.0**found - 1


def white_of_all(highest: float, told: str, advice: str) -> float | None:
    """Return the white that the highest value of several uint16 pictures tells, with a warning; None for 16 bits.

    The warning begins with what is `told` of them, up to "end at", and ends with `advice`.
    """
    white = white_of(highest)
    if white is not None:
        warn(
            f"{told} end at {highest:g}: their white is taken for {white:g} ({_bits(white)} bits); if it is another, "
            f"{advice}"
        )
    return white


def narrowed(image: Any, layout: Layout, known: np.ndarray | None = None) -> Layout:
    """Return the layout with the white that the values of an image tell, where its white was not given.

    A uint16 image of which all values have room in 8, 10, 12 or 14 bits is taken for one of these: beside the white of
    16 bits it would be a very dark picture, with a PSNR to match, and options in units of white. (Where the clean
    picture is no brighter than its observation, nothing is lost by it.) Only values that are `known`, (H, W), count.
    """
    if layout.range_given or images.dtype_name(layout.dtype) != "uint16":
        return layout
    values = images.as_numpy(image)
    if known is not None:
        values = np.where(masks.over(known, layout), values, 0)
    white = white_of(float((values[..., :-1] if layout.alpha else values).max()))
    return layout if white is None else replace(layout, high=white)


def of_batch(batch: Tensor, data_range: _Range, mask: Any = None) -> _Range:
    """Return the clean range for each picture of a batch, (N, C, H, W): one for all, of uint16 found in all of them.

    Of a series some pictures may be darker than others; each with a white of its own they would not fit together.

    Parameters
    ----------
    batch : Tensor
        The pictures.
    data_range : float or (float, float), optional
        As given; what is given is returned.
    mask : array, optional
        Where they are known; other values do not count.
    """
    if data_range is not None or images.dtype_name(batch.dtype) != "uint16":
        return data_range
    values = images.as_numpy(batch)
    if mask is not None:
        height, width = batch.shape[2:]
        values = values[..., masks.to_tensor(mask, height, width)[0, 0].numpy() > 0]
    told = "the images are uint16, and the values of all"
    return white_of_all(float(values.max()), told, "give data_range=") or 65535.0


def is_narrowed(layout: Layout) -> bool:
    """Tell whether a layout's white is one that was found."""
    return not layout.range_given and images.dtype_name(layout.dtype) == "uint16" and layout.high < 65535


def warn_of(y: Tensor, layout: Layout, spread: float, known: np.ndarray | None = None) -> None:
    """Warn where the values suggest another clean range than the one that is taken.

    Parameters
    ----------
    y : Tensor
        The image, (1, C, H, W), of which the clean range is [0, 1].
    layout : Layout
        What is taken.
    spread : float
        How many spans noise may well reach beyond the range; only at 1 are values looked at that are outside.
    known : ndarray, optional
        (H, W), bool: where the image is known; other values say nothing.
    """
    if known is not None and known.any():
        y = y[..., torch.from_numpy(known)]
    if not layout.range_given:
        _warn_of_dark(y, layout)
    if spread != 1:
        return
    outside = float(((y < -0.25) | (y > 1.25)).float().mean())
    if outside > 0.1:
        low, high = (layout.low + (layout.high - layout.low) * float(value) for value in (y.min(), y.max()))
        warn(
            f"{outside:.0%} of the image's values are far outside its clean range [{layout.low:g}, {layout.high:g}], "
            f"in which the result will lie; they go from {low:.3g} to {high:.3g}: if that is not noise, give "
            "data_range=(black, white) of the clean image"
        )


def _warn_of_dark(y: Tensor, layout: Layout) -> None:
    kind, highest = images.dtype_name(layout.dtype), float(y.max())
    if "float" in kind and 0 < highest < _DARK:
        warn(
            f"the image's values end at {highest:.3g}, and the white of floats is 1; if its white is another, give "
            "data_range=: as it is, it is taken for a very dark picture"
        )
    if kind != "uint16":
        return
    end = round(highest * layout.high)
    most = round(float(np.quantile(y.numpy(), 1 - _FEW, method="lower")) * layout.high)
    if is_narrowed(layout):
        warn(
            f"the image is uint16, and its values end at {end}: its white is taken for {layout.high:g} "
            f"({_bits(layout.high)} bits); if it is another, give data_range="
        )
    white = white_of(most)
    if white is None or layout.high <= white:
        return
    if end <= white:
        told = (
            f"values end at {end} of 65535; if its white is {white:g} ({_bits(most)} bits), give data_range={white:g}"
        )
    else:
        told = (
            f"values end at {most} but for a few, up to {end}; if those are no light (hot pixels), set them to their "
            f"neighbours' and give data_range={white:g} ({_bits(most)} bits)"
        )
    warn(f"the image is uint16, but its {told}: as it is, it is taken for a very dark picture")
