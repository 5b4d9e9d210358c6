"""The border between the user's arrays and the one form used inside.

Inside the package an image x is a float32 tensor of shape (1, C, H, W) whose clean range is [0, 1]; only
this module knows any other. `describe` looks at type, shape and dtype and returns a `Layout`, with which
`to_tensor` and `from_tensor` convert there and back, so that results have the form of what was given.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from dip.errors import shown

__all__ = ["NUMBERS", "Layout", "as_numpy", "describe", "dtype_name", "from_tensor", "kind_of", "resized", "to_tensor"]

# Integer types whose whole range is the clean range by default; int16 from CT or int64 by accident say too little.
_RANGED_INTEGERS = ("uint8", "uint16")
_OTHER_INTEGERS = ("int8", "int16", "int32", "int64", "uint32", "uint64")
_FLOATS = ("float16", "bfloat16", "float32", "float64")
NUMBERS = (*_RANGED_INTEGERS, *_OTHER_INTEGERS, *_FLOATS)

# Noise may overshoot the clean range; with a value more than FAR spans outside, or more than SHARE of them beyond one
# span, it is far more likely that another range was meant.
_FAR, _SHARE = 4.0, 0.01
_EACH = "of several pictures each is a fit (dip.run_all)"

_Array = np.ndarray | torch.Tensor
_Enlarge = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Layout:
    """What is needed to turn an x back into what the user gave.

    Attributes
    ----------
    kind : {"numpy", "torch"}
        The library of the image.
    shape : tuple of int
        The shape as given, alpha and batch axis included.
    dtype : numpy.dtype or torch.dtype
        The type as given, with its byte order.
    device : torch.device or None
        The device of a tensor, None for numpy.
    channel_axis : int or None
        The position of the channels in `shape`, counted from 0; None for a gray image without such an axis.
    alpha : bool
        True if the last channel is opacity (numpy, (H, W, 4)); it is kept apart and is not part of x.
    low, high : float
        The clean range in the image's own units: `low` becomes 0 in x and `high` becomes 1.
    range_given : bool
        Whether the user said so; else it is the type's.
    """

    kind: Literal["numpy", "torch"]
    shape: tuple[int, ...]
    dtype: Any
    device: torch.device | None
    channel_axis: int | None
    alpha: bool
    low: float
    high: float
    range_given: bool = True

    @property
    def channels(self) -> int:
        """The number of channels of x: alpha is not counted."""
        return 1 if self.channel_axis is None else self.shape[self.channel_axis] - self.alpha

    @property
    def height(self) -> int:
        """The number of rows."""
        return self.shape[self.row_and_column_axes[0]]

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.shape[self.row_and_column_axes[1]]

    @property
    def row_and_column_axes(self) -> list[int]:
        """The positions of rows and columns in `shape`: the last two but the channels' (a batch axis may be first)."""
        return [axis for axis in range(len(self.shape)) if axis != self.channel_axis][-2:]


def describe(
    image: _Array,
    *,
    channel_axis: int | None = None,
    data_range: float | Sequence[float] | None = None,
    name: str = "image",
) -> Layout:
    """Read the layout of an image from its type, shape and dtype, without a pass over its data.

    Parameters
    ----------
    image : numpy.ndarray or torch.Tensor
        numpy: (H, W) gray, (H, W, 3) RGB, (H, W, 4) RGBA; torch: (H, W), (C, H, W) or (1, C, H, W). Any other
        order or number of channels needs `channel_axis`. uint8, uint16, float16, float32, float64 (torch:
        bfloat16 too); other integer types need `data_range`.
    channel_axis : int, optional
        The position of the channels; negative counts from the end. With it all channels are restored alike
        and none is taken for alpha.
    data_range : float or (float, float), optional
        The range of the clean image: its white (black is 0), or (black, white). By default the integer type's
        range, and [0, 1] for floats.
    name : str, optional
        What the messages call the image.

    Returns
    -------
    Layout
        For `to_tensor` and `from_tensor`.

    Raises
    ------
    TypeError
        If `image` is neither an array nor a tensor, or its dtype is not one of those above.
    ValueError
        If the shape (such as a tensor's (H, W, 3)), `channel_axis` or `data_range` makes no image.

    Examples
    --------
    >>> layout = describe(np.zeros((7, 13, 3), np.uint8))
    >>> layout.channels, layout.height, layout.width, layout.high
    (3, 7, 13, 255.0)
    """
    kind = kind_of(image, name)
    shape = tuple(int(size) for size in image.shape)
    low, high = _clean_range(dtype_name(image.dtype), data_range, name)
    axis, alpha = _channels(kind, shape, channel_axis, name)
    if 0 in shape:
        raise ValueError(f"{name} is empty: its shape is {shape}; every axis must have a size of 1 or more")
    device = image.device if isinstance(image, torch.Tensor) else None
    return Layout(kind, shape, image.dtype, device, axis, alpha, low, high, data_range is not None)


def to_tensor(
    image: _Array,
    layout: Layout,
    *,
    name: str = "image",
    known: np.ndarray | None = None,
    spread: float = 1.0,
    fitted: bool = True,
) -> torch.Tensor:
    """Turn an image into x, the form used inside.

    Computes ``x = (image - low) / (high - low)`` in float64 and rounds once. The image is not modified.

    Parameters
    ----------
    image, layout, name
        The image, what `describe` says of it, and what the messages call it.
    known : numpy.ndarray, optional
        (H, W), bool: values where it is False do not matter, not even NaN, and become `low`.
    spread : float, default 1
        How many spans noise may well reach beyond the clean range.
    fitted : bool, default True
        Whether it is the image of a fit: a mask or a model of the noise is no advice for others.

    Returns
    -------
    torch.Tensor
        Shape (1, C, H, W), float32, on the CPU, without alpha; fresh memory; noise may overshoot [0, 1].

    Raises
    ------
    ValueError
        If the image does not fit `layout`, holds NaN or infinity, or is implausible for its clean range: a
        value more than 4 `spread` spans outside, or more than 1 % of them more than `spread`.

    Examples
    --------
    >>> image = np.array([[0, 255]], np.uint8)
    >>> to_tensor(image, describe(image))
    tensor([[[[0., 1.]]]])
    """
    if tuple(image.shape) != layout.shape or image.dtype != layout.dtype:
        given, expected = f"{image.dtype} {tuple(image.shape)}", f"{layout.dtype} {layout.shape}"
        raise ValueError(f"{name} is {given}, but its layout is for {expected}; describe the image again")
    planes = _planes(as_numpy(image), layout)
    if known is not None:
        planes = np.where(known, planes, np.asarray(layout.low).astype(planes.dtype))
    _refuse_not_finite(planes, name, fitted)
    colours, span = planes[: layout.channels], layout.high - layout.low
    lowest, highest, reach = float(colours.min()), float(colours.max()), spread * span
    far = lowest < layout.low - _FAR * reach or highest > layout.high + _FAR * reach
    x = np.empty(colours.shape, np.float32)
    if not far:
        for plane, target in zip(colours, x, strict=True):  # one by one: each needs a float64 copy
            target[...] = np.subtract(plane, layout.low, dtype=np.float64) / span
        if lowest < layout.low - reach or highest > layout.high + reach:
            far = int(np.count_nonzero((x < -spread) | (x > 1 + spread))) > _SHARE * x.size
    if far:
        raise _implausible(layout, lowest, highest, name, fitted)
    return torch.from_numpy(x[None])


def from_tensor(
    x: torch.Tensor, layout: Layout, *, alpha_from: _Array | None = None, enlarge: _Enlarge | None = None
) -> _Array:
    """Turn x back into an image as the user gave it.

    Computes ``image = low + (high - low) * x`` in float64. Integers are rounded to the nearest and clipped to
    what the type can hold, so that an observation that overshoots its `data_range` comes back as it was;
    floats are not clipped.

    Parameters
    ----------
    x : torch.Tensor
        Shape (1, C, H, W), floating, on any device. H and W may differ from the layout's (super-resolution).
    layout : Layout
        From `describe`.
    alpha_from : numpy.ndarray, optional
        The image that `layout` describes. Needed where it has alpha, ignored elsewhere. Alpha comes back
        untouched, or at another size by `enlarge` (see `resized`).

    Returns
    -------
    numpy.ndarray or torch.Tensor
        Kind, dtype, range, axis order and device of `layout`; fresh memory.

    Raises
    ------
    ValueError
        If x has another shape than (1, C, H, W) with the layout's C, is not finite where integers are wanted,
        or if the alpha is missing.

    Examples
    --------
    >>> layout = describe(np.zeros((1, 2), np.uint8))
    >>> from_tensor(torch.tensor([[[[0.5, 1.2]]]]), layout)
    array([[128, 255]], dtype=uint8)
    """
    if x.ndim != 4 or x.shape[:2] != (1, layout.channels) or 0 in x.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}; the layout needs (1, {layout.channels}, H, W)")
    if layout.alpha and tuple(getattr(alpha_from, "shape", ())) != layout.shape:
        raise ValueError(f"alpha_from must be the image of shape {layout.shape}, not {shown(alpha_from)}")
    shape = list(layout.shape)
    for axis, size in zip(layout.row_and_column_axes, x.shape[2:], strict=True):
        shape[axis] = size
    image = np.empty(shape, _carrier(layout))
    planes = _planes(image, layout)
    for plane, channel in zip(planes, as_numpy(x)[0], strict=False):  # alpha, the last plane, has none in x
        values = layout.low + (layout.high - layout.low) * channel.astype(np.float64)
        plane[...] = _fit_dtype(values, image.dtype)
    if layout.alpha and alpha_from is not None:
        planes[-1] = resized(_planes(as_numpy(alpha_from), layout)[-1], (x.shape[2], x.shape[3]), enlarge)
    if layout.kind == "numpy":
        return image
    return torch.from_numpy(image).to(layout.dtype).to(layout.device)


def kind_of(image: Any, name: str) -> Literal["numpy", "torch"]:
    """Which library an image belongs to; anything that is not a plain dense array or tensor is refused."""
    if isinstance(image, np.ma.MaskedArray):
        advice = f"pass {name}.filled(0), and to dip.denoise or dip.inpaint mask=~{name}.mask, its known pixels"
        raise TypeError(f"{name} is a numpy masked array; {advice}")
    if isinstance(image, np.ndarray):
        return "numpy"
    if not isinstance(image, torch.Tensor):
        advice = f"pass a numpy array or a torch tensor, as in np.asarray({name})"
        if isinstance(image, (str, os.PathLike)):
            advice = f"read it first: dip.files.read({shown(image)}).pixels"
        raise TypeError(f"{name} is a {type(image).__name__}; {advice}")
    if image.layout != torch.strided or image.is_quantized or image.device.type == "meta":
        raise TypeError(f"{name} is a sparse, quantized or meta tensor; pass a dense one: {name}.to_dense()")
    return "torch"


def dtype_name(dtype: Any) -> str:
    """The name of a dtype, the same for both libraries and any byte order."""
    return getattr(dtype, "name", None) or str(dtype).removeprefix("torch.")


def _clean_range(dtype: str, data_range: Any, name: str) -> tuple[float, float]:
    """The clean range of a dtype, checked against what the type can hold."""
    if dtype not in NUMBERS:
        advice = {
            "bool": "convert it to uint8 with 0 and 255, or pass it as a mask",
            "comp": "pass its magnitude, or its real and imaginary parts as two channels with channel_axis",
        }.get(dtype[:4], "convert it to float32")
        allowed = "uint8, uint16, float16, float32, float64, or with data_range another integer type"
        raise TypeError(f"{name} has dtype {dtype}; allowed: {allowed}; {advice}")
    if data_range is None and dtype in _OTHER_INTEGERS:
        advice = "pass data_range, as in 255 or (low, high), or convert it to uint8 or uint16"
        raise TypeError(f"{name} has dtype {dtype}, which says too little about its clean range; {advice}")
    if data_range is None:
        return 0.0, float(np.iinfo(dtype).max) if dtype in _RANGED_INTEGERS else 1.0
    advice = "data_range must be a positive number (white), or (low, high) with low < high"
    pair = np.asarray(data_range)
    low, high = 0.0, math.nan
    if pair.dtype.kind in "iuf" and pair.shape in ((), (2,)):
        low, high = (0.0, float(pair)) if pair.ndim == 0 else (float(pair[0]), float(pair[1]))
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"{advice}, not {shown(data_range)}")
    limits: Any = torch.finfo(getattr(torch, dtype)) if dtype in _FLOATS else np.iinfo(dtype)
    if low < float(limits.min) or high > float(limits.max):
        raise ValueError(f"data_range {low:g} to {high:g} does not fit {name}'s dtype {dtype}; {advice}")
    return low, high


def _channels(kind: str, shape: tuple[int, ...], channel_axis: Any, name: str) -> tuple[int | None, bool]:
    """Where the channels are (None: there is no such axis), and whether the last one is alpha."""
    batched = kind == "torch" and len(shape) == 4
    if batched and shape[0] != 1:
        raise ValueError(f"{name} of shape {shape} is a batch of {shape[0]}; one image a fit: pass {name}[0]")
    allowed = "(H, W), (C, H, W) or (1, C, H, W)" if kind == "torch" else "(H, W), (H, W, 3) or (H, W, 4)"
    if len(shape) not in (2, 3) and not batched:
        raise ValueError(f"{name} has shape {shape}; allowed: {allowed}, or 3 axes with channel_axis; {_EACH}")
    if channel_axis is None:
        if len(shape) == 2:
            return None, False
        if kind == "torch":
            if shape[-1] in (3, 4) and shape[-3] > 4:
                advice = "pass channel_axis=-1 if the last axis holds the colours, channel_axis=0 if the first does"
                raise ValueError(f"{name} is a tensor {shape}, which looks like (H, W, C); {advice}")
            return len(shape) - 3, False
        if shape[2] not in (3, 4):
            first = shape[0] <= 4 < shape[2]
            advice = f"pass channel_axis={0 if first else -1} if the {'first' if first else 'last'} axis holds channels"
            raise ValueError(f"{name} has shape {shape}; allowed: {allowed}; {advice}; {_EACH}")
        return 2, shape[2] == 4
    if len(shape) == 2:
        raise ValueError(f"{name} of shape {shape} is gray and has no channel axis; leave channel_axis out")
    axes = range(batched, len(shape))
    axis: Any = channel_axis if isinstance(channel_axis, (int, np.integer)) else len(shape)
    axis = int(axis) if axis >= 0 else int(axis) + len(shape)
    if isinstance(channel_axis, bool) or axis not in axes:
        advice = f"allowed: {axes[0]} to {axes[-1]}, or counted from the end -1 to {-len(axes)}"
        raise ValueError(f"channel_axis {shown(channel_axis)} for {name} of shape {shape}; {advice}")
    return axis, False


def is_batch(image: Any, channel_axis: int | None = None) -> bool:
    """Tell whether an image is a tensor (N, C, H, W) of several, which are restored one by one."""
    return isinstance(image, torch.Tensor) and image.ndim == 4 and len(image) > 1 and channel_axis is None


def as_numpy(image: _Array) -> np.ndarray:
    """The same values as a plain array, without a copy where the library allows."""
    if isinstance(image, np.ndarray):
        return np.asarray(image)
    return (image.float() if image.dtype == torch.bfloat16 else image).numpy(force=True)


def _planes(image: np.ndarray, layout: Layout) -> np.ndarray:
    """A (C, H, W) view of an array with the layout's axes; alpha, if any, is the last plane."""
    if layout.channel_axis is None:
        return image[None]
    if len(layout.shape) == 4:
        return np.moveaxis(image[0], layout.channel_axis - 1, 0)
    return np.moveaxis(image, layout.channel_axis, 0)


def _refuse_not_finite(planes: np.ndarray, name: str, fitted: bool) -> None:
    """Refuse NaN and infinity in any plane, alpha included."""
    if planes.dtype.kind != "f" or np.isfinite([planes.min(), planes.max()]).all():  # NaN passes through both
        return
    bad = planes.size - sum(int(np.count_nonzero(np.isfinite(plane))) for plane in planes)
    advice = "only finite ones are allowed: set them to "
    if fitted:
        advice += (
            "any number and mark their pixels as missing (False) in the mask of dip.denoise or dip.inpaint (of a small "
            "or a blurred image: 0 in the weight of dip.reconstruct with dip.operators.Downsample or Blur)"
        )
    else:
        advice += "numbers, or crop to where there are some"
    raise ValueError(f"{name} has {bad} NaN or infinite values; {advice}")


def _implausible(layout: Layout, lowest: float, highest: float, name: str, fitted: bool) -> ValueError:
    """The error for values far outside the clean range, with the range that was probably meant."""
    whites = [white for white in (255, 4095, 65535) if layout.high < white and white / 4 < highest < 1.4 * white]
    dark = lowest < -0.3 * highest
    advice = "pass data_range=(low, high), the darkest and the brightest value of the clean image"
    if whites and not dark:  # a picture that begins at 0, with some noise
        advice = f"pass data_range={whites[0]} if that is its white, or divide by {whites[0]}"
    clean = f"far outside the clean range [{layout.low:g}, {layout.high:g}]"
    if fitted:
        advice += "; if it is noise, clip it" + ("" if dark else ' (of few photons: dip.denoise takes noise="poisson")')
    return ValueError(f"{name} has values from {lowest:g} to {highest:g}, {clean}; {advice}")


def _carrier(layout: Layout) -> np.dtype:
    """The numpy dtype that holds a result; bfloat16, which numpy lacks, travels as float32."""
    if layout.kind == "numpy":
        return layout.dtype
    return np.dtype("float32" if layout.dtype == torch.bfloat16 else str(layout.dtype).removeprefix("torch."))


def _fit_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round and clip float64 values where the dtype is an integer one; NaN has no integer and is refused."""
    if dtype.kind == "f":
        return values
    if not np.isfinite(values).all():
        raise ValueError(f"x has values that are NaN or infinite, which {dtype.name} cannot hold")
    info = np.iinfo(dtype)
    top = float(info.max) if info.bits < 64 else math.nextafter(float(info.max), 0.0)  # 2**63 would wrap
    return np.clip(np.rint(values), float(info.min), top)


def resized(alpha: np.ndarray, size: tuple[int, int], enlarge: _Enlarge | None = None) -> np.ndarray:
    """Alpha (H, W) at another size; an opaque picture stays opaque because interpolation may not overshoot.

    It is that of `enlarge`, which takes (1, 1, H, W), or else bicubic.
    """
    if alpha.shape == size:
        return alpha
    by = enlarge or functools.partial(torch.nn.functional.interpolate, size=size, mode="bicubic", align_corners=False)
    made = by(torch.from_numpy(alpha.astype(np.float64))[None, None])[0, 0].numpy()
    return _fit_dtype(np.clip(made, float(alpha.min()), float(alpha.max())), alpha.dtype).astype(alpha.dtype)
