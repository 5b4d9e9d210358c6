"""Noise, masks and JPEGs for test cases: what is done to a clean picture so that a restoration can be judged.

The noise functions take any image that `dip.images.describe` understands and return a new one of the same
kind, shape, dtype and range; alpha is left alone. They compute in [0, 1] with x as float32, whatever the
dtype. Integers come back rounded, and clipped to what the type can hold whether `clip` is set or not.

Every function that draws numbers needs a `seed`, of which nothing else in the process knows: the numbers come from
``numpy.random.default_rng(seed)``, drawn in float64 in the order channel, row, column. So one seed gives the
same noise for every layout of the same picture, and the same on every machine with the same version of numpy.
"""

from __future__ import annotations

import io
import itertools
import operator
from collections.abc import Sequence
from typing import TypeVar, cast

import numpy as np
import torch

from dip import images
from dip.errors import positive_float, positive_int, shown, unknown

__all__ = ["gaussian", "impulse", "jpeg", "poisson", "random_mask", "speckle", "text_mask"]

Image = TypeVar("Image", np.ndarray, torch.Tensor)

_FILLER = (
    "The picture under these words was never seen by the network that brings it back. No other picture was: "
    "what it knows is how pictures hang together, and that is enough to read between the lines."
)


def gaussian(
    image: Image,
    sigma: float,
    *,
    clip: bool = True,
    seed: int,
    data_range: float | Sequence[float] | None = None,
    channel_axis: int | None = None,
) -> Image:
    """Add white Gaussian noise: y = x + n, n ~ N(0, (sigma / 255)^2), with x in [0, 1].

    Parameters
    ----------
    image : ndarray or Tensor
        The clean image; see `dip.images.describe`.
    sigma : float
        Standard deviation on the field's scale of 0 to 255, for every dtype: 25 means 25/255 of the data
        range.
    clip : bool
        Whether to clip the result to the data range, as a camera does and the papers mostly do. It matters:
        the PSNR at sigma 25 is 20.17 dB without and about 20.4 dB with it, so say which was used.
    seed : int
        At least 0.
    data_range : float or (float, float), optional
        Range of the clean image, high or (low, high); by default the integer type's range, and [0, 1] for
        floats.
    channel_axis : int, optional
        Axis of the channels, where they are not last (numpy) or first (torch), or neither one, three nor
        RGBA.

    Returns
    -------
    ndarray or Tensor
        The noisy image, as `image` in kind, shape, dtype and range.

    Raises
    ------
    ValueError, TypeError
        If the image, `sigma` or `seed` is not one of the above.

    Examples
    --------
    >>> noisy = gaussian(np.full((64, 64), 128, np.uint8), 25, seed=0)
    >>> noisy.dtype, round(float(noisy.std()))
    (dtype('uint8'), 25)
    """
    sigma = positive_float(sigma, "sigma", zero_ok=True) / 255
    rng = _generator(seed)
    x, layout = _open(image, data_range, channel_axis)
    return _close(add_gaussian(x, sigma, rng), image, layout, clip=clip)


def poisson(
    image: Image,
    peak: float,
    *,
    clip: bool = True,
    seed: int,
    data_range: float | Sequence[float] | None = None,
    channel_axis: int | None = None,
) -> Image:
    """Draw photon counts: y = k / peak, k ~ Poisson(peak x), with x in [0, 1].

    The variance of y is x / peak: a bright pixel (x = 1) has a signal-to-noise ratio of sqrt(peak).

    Parameters
    ----------
    image : ndarray or Tensor
        The clean image; values under its range, which would be negative light, count as 0.
    peak : float
        Mean number of photons at the top of the data range, up to 1e15; 1 is very dark, 1000 is good light.
    clip, seed, data_range, channel_axis
        As for `gaussian`.

    Returns
    -------
    ndarray or Tensor
        The noisy image, as `image` in kind, shape, dtype and range.

    Examples
    --------
    >>> poisson(np.zeros((2, 2)), 10, seed=0)
    array([[0., 0.],
           [0., 0.]])
    """
    peak = positive_float(peak, "peak")
    if peak > 1e15:
        raise ValueError(f"peak must be at most 1e15 photons, not {peak:g}; there is no noise at that light")
    rng = _generator(seed)
    x, layout = _open(image, data_range, channel_axis)
    return _close(draw_photons(x, peak, rng), image, layout, clip=clip)


def impulse(
    image: Image,
    amount: float,
    *,
    salt: float = 0.5,
    per_channel: bool = True,
    seed: int,
    data_range: float | Sequence[float] | None = None,
    channel_axis: int | None = None,
) -> Image:
    """Replace values by white or black: salt-and-pepper noise.

    Parameters
    ----------
    image : ndarray or Tensor
        The clean image.
    amount : float
        Probability that a value is replaced, from 0 to 1.
    salt : float
        Share of white (the top of the data range) among the replaced, from 0 to 1; the others are black (its
        bottom).
    per_channel : bool
        Whether each channel is hit for itself (dead photosites; scikit-image and MATLAB do the same) or a
        pixel as a whole, in all its channels (False).
    seed, data_range, channel_axis
        As for `gaussian`.

    Returns
    -------
    ndarray or Tensor
        The noisy image, as `image` in kind, shape, dtype and range; values that were not hit are as they
        were, floats to the precision of float32.

    Examples
    --------
    >>> impulse(np.full((1, 8), 0.5), 0.5, seed=0)
    array([[0.5, 0. , 1. , 1. , 0.5, 0.5, 0.5, 0.5]])
    """
    amount = _fraction(amount, "amount")
    salt = _fraction(salt, "salt")
    rng = _generator(seed)
    x, layout = _open(image, data_range, channel_axis)
    u = rng.random(x.shape if per_channel else x[:1].shape)
    return _close(replace_some(x, amount, salt, u), image, layout, clip=False)


def speckle(
    image: Image,
    sigma: float,
    *,
    clip: bool = True,
    seed: int,
    data_range: float | Sequence[float] | None = None,
    channel_axis: int | None = None,
) -> Image:
    """Multiply by noise: y = x (1 + n), n ~ N(0, sigma^2), with x in [0, 1].

    The variance of y is (x sigma)^2, so that black stays black.

    Parameters
    ----------
    image : ndarray or Tensor
        The clean image.
    sigma : float
        Standard deviation relative to the value itself: 0.2 is 20 % of it. Not on the scale of 0 to 255.
    clip, seed, data_range, channel_axis
        As for `gaussian`.

    Returns
    -------
    ndarray or Tensor
        The noisy image, as `image` in kind, shape, dtype and range.

    Examples
    --------
    >>> noisy = speckle(np.full((64, 64), 0.5), 0.2, seed=0)
    >>> round(float(noisy.std()), 1)
    0.1
    """
    sigma = positive_float(sigma, "sigma", zero_ok=True)
    rng = _generator(seed)
    x, layout = _open(image, data_range, channel_axis)
    return _close(x * (1 + sigma * rng.standard_normal(x.shape)), image, layout, clip=clip)


def jpeg(
    image: Image,
    quality: int,
    *,
    subsampling: str = "4:2:0",
    data_range: float | Sequence[float] | None = None,
    channel_axis: int | None = None,
) -> Image:
    """Save as a JPEG and read it back, by Pillow.

    Parameters
    ----------
    image : ndarray or Tensor
        The clean image, gray or RGB; it is rounded to 8 bits first.
    quality : int
        1 to 100, as libjpeg counts.
    subsampling : {"4:2:0", "4:2:2", "4:4:4"}
        Of the colours: one value for 2 x 2 pixels, for 1 x 2, or for each.
    data_range, channel_axis
        As for `gaussian`.

    Returns
    -------
    ndarray or Tensor
        The image as it is read back, as `image` in kind, shape, dtype and range.

    Examples
    --------
    >>> jpeg(np.full((16, 16), 100, np.uint8), 10).max()
    np.uint8(98)
    """
    from PIL import Image as PillowImage

    if positive_int(quality, "quality") > 100:
        raise ValueError(f"quality must be at most 100, not {quality}")
    if subsampling not in ("4:2:0", "4:2:2", "4:4:4"):
        raise unknown("subsampling", subsampling, ("4:2:0", "4:2:2", "4:4:4"))
    x, layout = _open(image, data_range, channel_axis)
    if len(x) not in (1, 3):
        raise ValueError(f"a JPEG is gray or RGB, and the image has {len(x)} channels")
    pixels = np.ascontiguousarray(np.moveaxis(np.rint(255 * x.clip(0, 1)).astype(np.uint8), 0, -1))
    picture = PillowImage.fromarray(pixels[..., 0] if len(x) == 1 else pixels)
    options = {} if len(x) == 1 else {"subsampling": subsampling}
    picture.save(packed := io.BytesIO(), "JPEG", quality=quality, **options)
    read = np.asarray(PillowImage.open(packed))
    return _close(np.atleast_3d(read).transpose(2, 0, 1) / 255, image, layout, clip=False)


def random_mask(shape: Sequence[int], keep: float, *, exact: bool = False, seed: int) -> np.ndarray:
    """Choose which pixels are known, at random.

    Parameters
    ----------
    shape : (int, int)
        Height and width.
    keep : float
        Fraction of the pixels that is known, above 0 and at most 1.
    exact : bool
        Whether exactly round(keep * H * W) pixels are known, or each one is with probability `keep`
        (Bernoulli, as in the Deep Image Prior paper). In both, one pixel at least.
    seed : int
        At least 0.

    Returns
    -------
    ndarray, bool, (H, W)
        True = known.

    Examples
    --------
    >>> int(random_mask((10, 10), 0.3, exact=True, seed=0).sum())
    30
    """
    height, width = _size(shape)
    keep = _fraction(keep, "keep")
    if keep == 0:
        raise ValueError("keep must be above 0, not 0: nothing can be restored without a known pixel")
    u = _generator(seed).random((height, width))
    count = round(keep * u.size) if exact else int(np.count_nonzero(u < keep))
    # The lowest count values: without exact, these are the pixels with u < keep.
    known = np.zeros(u.size, bool)
    known[np.argsort(u, axis=None, kind="stable")[: max(1, count)]] = True
    return known.reshape(height, width)


def text_mask(shape: Sequence[int], text: str = _FILLER, *, size: int | None = None) -> np.ndarray:
    """Write over a picture: the mask in which the letters are missing.

    The words are repeated until they fill the picture line by line. With the default text and size 10 to 16 %
    is missing of a picture that is large enough for a few words. The letters are those of the font that
    Pillow brings, which may change with its version; for a benchmark, save the mask.

    Parameters
    ----------
    shape : (int, int)
        Height and width.
    text : str
        What to write; line breaks count as spaces.
    size : int, optional
        Size of the letters in pixels; by default a twentieth of the shorter side, but at least 10.

    Returns
    -------
    ndarray, bool, (H, W)
        True = known, False = under a letter. At least one pixel is known, however small the picture.

    Examples
    --------
    >>> mask = text_mask((128, 128), "deep image prior", size=20)
    >>> mask.shape, mask.dtype
    ((128, 128), dtype('bool'))
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw, ImageFont

    height, width = _size(shape)
    if not isinstance(text, str) or not text.split():
        raise ValueError(f"text must be a string with at least one letter, not {shown(text)}")
    size = max(10, round(min(height, width) / 20)) if size is None else positive_int(size, "size")
    font = ImageFont.load_default(size=size)
    canvas = PillowImage.new("1", (width, height), 1)  # one bit a pixel, so letters have hard edges
    pen = ImageDraw.Draw(canvas)
    words = itertools.cycle(text.split())
    for top in range(0, height, size + size // 2):
        left = 0.0
        while left < width:
            word = next(words) + " "
            pen.text((left, top), word, fill=0, font=font)
            left += max(1.0, pen.textlength(word, font=font))
    known = np.array(canvas, dtype=bool)
    if not known.any():
        known[-1, -1] = True
    return known


# ---------------------------------------------------------------------- the noise itself, for stacks of pictures too


def add_gaussian(x: np.ndarray, sigma: float | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return x + n, n ~ N(0, sigma^2), in the precision of x; `sigma` in units of x, broadcast."""
    noise: np.ndarray = rng.standard_normal(x.shape, dtype=x.dtype.type)
    return x + sigma * noise


def draw_photons(x: np.ndarray, peak: float | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return k / peak, k ~ Poisson(peak x), in the precision of x; `peak` is broadcast."""
    drawn: np.ndarray = rng.poisson(peak * x.clip(min=0)) / peak
    return drawn.astype(x.dtype, copy=False)


def replace_some(x: np.ndarray, amount: float | np.ndarray, salt: float, u: np.ndarray) -> np.ndarray:
    """Return x with 1 where u < amount salt and 0 where u < amount beyond; u ~ U(0, 1) and `amount` are broadcast."""
    return np.where(u < amount, np.where(u < amount * salt, 1.0, 0.0), x).astype(x.dtype, copy=False)


def _open(
    image: Image, data_range: float | Sequence[float] | None, channel_axis: int | None
) -> tuple[np.ndarray, images.Layout]:
    """Return x as float64 (C, H, W) in [0, 1], and how to go back."""
    layout = images.describe(image, channel_axis=channel_axis, data_range=data_range)
    return images.to_tensor(image, layout, fitted=False)[0].numpy().astype(np.float64), layout


def _close(noisy: np.ndarray, image: Image, layout: images.Layout, *, clip: bool) -> Image:
    y = torch.from_numpy((noisy.clip(0, 1) if clip else noisy)[None])
    return cast(Image, images.from_tensor(y, layout, alpha_from=image))


def _generator(seed: int) -> np.random.Generator:
    # default_rng also takes None (the clock) and generators (which it would advance); neither is a seed.
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"seed must be a whole number from 0 up, not {shown(seed)}; pass an int such as 0")
    return np.random.default_rng(number)


def _fraction(value: float, name: str) -> float:
    number = positive_float(value, name, zero_ok=True)
    if number > 1:
        raise ValueError(f"{name} must be a fraction from 0 to 1, not {number:g}; for per cent divide by 100")
    return number


def _size(shape: Sequence[int]) -> tuple[int, int]:
    if not isinstance(shape, (tuple, list, torch.Size)) or len(shape) != 2:
        raise ValueError(f"shape must be (height, width), not {shown(shape)}; pass image.shape[:2]")
    return positive_int(shape[0], "height"), positive_int(shape[1], "width")
