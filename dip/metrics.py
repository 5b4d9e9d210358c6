"""Picture quality against a reference: PSNR and SSIM, measured by scikit-image.

Both images go through `dip.images.describe`, so they may be of different kinds and dtypes (a float image
against its 8-bit reference); each is brought to [0, 1] by its own data range first. Alpha is not looked at.
Nothing is clipped: values outside the range count as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from dip import images
from dip.errors import shown

__all__ = ["psnr", "psnr_y", "ssim"]

Image = np.ndarray | torch.Tensor
Range = float | Sequence[float] | None


def psnr(image: Image, reference: Image, *, data_range: Range = None, channel_axis: int | None = None) -> float:
    """Measure the peak signal-to-noise ratio, over all pixels and channels.

    10 log10(peak^2 / MSE), where the peak is the width of the data range.

    Parameters
    ----------
    image, reference : ndarray or Tensor
        Of the same height, width and number of channels (without alpha); see `dip.images.describe`.
    data_range : float or (float, float), optional
        Range of a clean image, high or (low, high), for both; by default, for each, the integer type's range,
        and [0, 1] for floats.
    channel_axis : int, optional
        Axis of the channels in both, where it is not the usual one.

    Returns
    -------
    float
        In decibel, exact to about 1e-5; ``inf`` for equal images.

    Raises
    ------
    ValueError
        If sizes or channels differ, or an image holds NaN or infinity, or values far from the usual range where
        `data_range` is not given.

    Examples
    --------
    >>> round(psnr(np.full((8, 8), 0.6), np.full((8, 8), 0.5)), 3)
    20.0
    """
    first, second = _pair(image, reference, data_range, channel_axis)
    return _psnr(first, second, peak=1.0)


def ssim(image: Image, reference: Image, *, data_range: Range = None, channel_axis: int | None = None) -> float:
    """Measure the structural similarity, the mean over pixels and channels.

    scikit-image's default: a uniform window of 7 x 7 pixels. An image with a side under 7 gets the largest
    odd window that fits it.

    Parameters
    ----------
    image, reference, data_range, channel_axis
        As for `psnr`.

    Returns
    -------
    float
        At most 1, for equal images; ``nan`` where a side is under 3 pixels, too few for a variance.

    Raises
    ------
    ValueError
        As for `psnr`.

    References
    ----------
    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE Transactions on Image Processing 13(4), 2004.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((16, 16))
    >>> ssim(image, image)
    1.0
    """
    from skimage.metrics import structural_similarity

    first, second = _pair(image, reference, data_range, channel_axis)
    side = min(7, *first.shape[:2])
    if side < 3:
        return math.nan
    window = side if side % 2 else side - 1
    return float(structural_similarity(first, second, win_size=window, data_range=1.0, channel_axis=-1))


def psnr_y(
    image: Image,
    reference: Image,
    *,
    border: int = 0,
    data_range: Range = None,
    channel_axis: int | None = None,
) -> float:
    """Measure the PSNR of the luma, as is the custom in super-resolution.

    Luma is Y of BT.601, from 16 (black) to 235 (white) as in MATLAB's ``rgb2ycbcr``, not rounded; the peak is
    255. So the same error gives about 1.3 dB more than on a scale of its own range. A gray image is its own
    luma, from 0 to 255, which is also the custom.

    Parameters
    ----------
    image, reference : ndarray or Tensor
        RGB or gray, of the same height and width.
    border : int
        Width in pixels of the frame that is left out, usually the factor of the super-resolution.
    data_range, channel_axis
        As for `psnr`.

    Returns
    -------
    float
        In decibel; ``inf`` for equal images.

    Raises
    ------
    ValueError
        As for `psnr`; or if the border leaves no pixel, or there are neither one nor three channels.

    Examples
    --------
    >>> reference = np.random.default_rng(0).random((16, 16, 3))
    >>> psnr_y(reference, reference, border=4)
    inf
    """
    first, second = _pair(image, reference, data_range, channel_axis)
    height, width, channels = first.shape
    if channels not in (1, 3):
        raise ValueError(f"luma is defined for 1 (gray) or 3 (RGB) channels, not {channels}; use psnr")
    if isinstance(border, bool) or not isinstance(border, (int, np.integer)) or border < 0:
        raise ValueError(f"border must be a whole number from 0 up, not {shown(border)}; pass the factor")
    if 2 * border >= min(height, width):
        raise ValueError(f"a border of {border} leaves nothing of {height} x {width} pixels; make it smaller")
    inside = np.s_[border : height - border, border : width - border]
    return _psnr(_luma(first[inside]), _luma(second[inside]), peak=255.0)


def _pair(image: Image, reference: Image, data_range: Range, channel_axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 (H, W, C) in [0, 1], of one shape."""
    layouts = [
        images.describe(picture, channel_axis=channel_axis, data_range=data_range, name=name)
        for picture, name in ((image, "image"), (reference, "reference"))
    ]
    shapes = [(layout.height, layout.width, layout.channels) for layout in layouts]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "image and reference must agree in height, width and channels, not "
            + " and ".join(f"{height} x {width} x {channels}" for height, width, channels in shapes)
        )
    spread = 1.0 if data_range is None else math.inf  # a range that is given is meant
    tensors = (
        images.to_tensor(image, layouts[0], spread=spread, fitted=False),
        images.to_tensor(reference, layouts[1], name="reference", spread=spread, fitted=False),
    )
    first, second = (tensor[0].numpy().transpose(1, 2, 0).astype(np.float64) for tensor in tensors)
    return first, second


def _psnr(first: np.ndarray, second: np.ndarray, *, peak: float) -> float:
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):  # equal images: log10(peak^2 / 0) is the infinity that is meant
        return float(peak_signal_noise_ratio(second, first, data_range=peak))


def _luma(picture: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2ycbcr

    return rgb2ycbcr(picture)[..., 0] if picture.shape[-1] == 3 else 255 * picture[..., 0]
