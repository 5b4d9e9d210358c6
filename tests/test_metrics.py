"""PSNR and SSIM, against scikit-image and the standard's own coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import dip
from dip.metrics import psnr, psnr_y, ssim

METRICS = [psnr, ssim, psnr_y]


def pair(dtype: str = "uint8", size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A crop of a photograph with noise, and without."""
    reference = data.astronaut()[100 : 100 + size, 200 : 200 + size + 5]
    noise = np.random.default_rng(0).normal(0, 20, reference.shape)
    noisy = np.rint(reference + noise).clip(0, 255).astype(np.uint8)
    if dtype == "uint16":
        return noisy.astype(np.uint16) * 257, reference.astype(np.uint16) * 257
    if dtype == "uint8":
        return noisy, reference
    return (noisy / 255).astype(dtype), (reference / 255).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("gray", [True, False])
def test_equals_scikit_image(dtype: str, gray: bool) -> None:
    image, reference = (array[..., 0] if gray else array for array in pair(dtype))
    span = np.iinfo(dtype).max if dtype.startswith("u") else 1
    assert psnr(image, reference) == pytest.approx(peak_signal_noise_ratio(reference, image, data_range=span))
    expected = structural_similarity(reference, image, data_range=span, channel_axis=None if gray else -1)
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_value_does_not_depend_on_how_the_image_is_stored(metric: Callable) -> None:
    image, reference = pair()
    expected = metric(image, reference)
    assert metric(*pair("uint16")) == pytest.approx(expected)
    assert metric(*pair("float32")) == pytest.approx(expected, rel=1e-5)
    assert metric(image / 255, reference) == pytest.approx(expected, rel=1e-5)
    assert metric(image / 2.0, reference / 2.0, data_range=127.5) == pytest.approx(expected, rel=1e-5)
    shifted = image / 2.0 - 3, reference / 2.0 - 3
    assert metric(*shifted, data_range=(-3, 124.5)) == pytest.approx(expected, rel=1e-5)
    moved = [np.moveaxis(array, -1, 0) for array in (image, reference)]
    assert metric(*moved, channel_axis=0) == pytest.approx(expected)
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in moved]
    assert metric(*tensors) == pytest.approx(expected)
    assert metric(tensors[0][None], reference) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_alpha_does_not_count(metric: Callable) -> None:
    image, reference = pair()
    opaque = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    clear = np.dstack([reference, np.zeros(image.shape[:2], np.uint8)])
    assert metric(opaque, clear) == metric(opaque, reference) == metric(image, reference)


@pytest.mark.parametrize("metric", [psnr, psnr_y])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (7, 13, 3)])
def test_psnr_of_equal_images_is_infinite(metric: Callable, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random(shape)
    assert metric(image, image) == math.inf


def test_psnr_by_hand() -> None:
    # One of four 8-bit pixels is off by 10: the mean squared error is 25.
    reference = np.zeros((2, 2), np.uint8)
    image = np.array([[10, 0], [0, 0]], np.uint8)
    assert psnr(image, reference) == pytest.approx(20 * math.log10(255 / 5), abs=1e-5)
    # Values beyond the range count in full.
    assert psnr(np.full((2, 2), 1.1), np.full((2, 2), 1.0)) == pytest.approx(20, abs=1e-4)


@pytest.mark.parametrize("side", [3, 4, 5, 6, 7, 8])
def test_ssim_window_shrinks_with_the_image(side: int) -> None:
    rng = np.random.default_rng(0)
    image, reference = rng.random((side, 20)), rng.random((side, 20))
    window = {3: 3, 4: 3, 5: 5, 6: 5}.get(side, 7)
    expected = structural_similarity(reference, image, data_range=1, win_size=window)
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-5)
    assert ssim(image, image) == 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 20), (20, 1, 3)])
def test_ssim_is_not_defined_below_three_pixels(shape: tuple[int, ...]) -> None:
    assert math.isnan(ssim(np.zeros(shape), np.zeros(shape)))


@pytest.mark.parametrize("border", [0, 4])
def test_psnr_y_is_on_the_luma_of_bt601(border: int) -> None:
    image, reference = pair("float64")
    inside = np.s_[border : image.shape[0] - border, border : image.shape[1] - border]

    def luma(picture: np.ndarray) -> np.ndarray:
        return 16 + picture[inside] @ np.array([65.481, 128.553, 24.966])

    expected = 10 * math.log10(255**2 / np.mean((luma(image) - luma(reference)) ** 2))
    assert psnr_y(image, reference, border=border) == pytest.approx(expected, rel=1e-5)


def test_psnr_y_of_gray_is_psnr() -> None:
    image, reference = (array[..., 1] for array in pair())
    assert psnr_y(image, reference) == pytest.approx(psnr(image, reference))
    assert psnr_y(image, reference, border=3) == pytest.approx(psnr(image[3:-3, 3:-3], reference[3:-3, 3:-3]))


@pytest.mark.parametrize("border", [-1, 1.0, True, None])
def test_psnr_y_refuses_border(border: object) -> None:
    with pytest.raises(ValueError, match="border must be a whole number"):
        psnr_y(np.zeros((8, 8)), np.zeros((8, 8)), border=border)  # type: ignore[arg-type]


def test_psnr_y_refuses_what_has_no_luma_or_no_pixels() -> None:
    with pytest.raises(ValueError, match="not 5; use psnr"):
        psnr_y(np.zeros((8, 8, 5)), np.zeros((8, 8, 5)), channel_axis=-1)
    with pytest.raises(ValueError, match="border of 4 leaves nothing of 8 x 9"):
        psnr_y(np.zeros((8, 9)), np.zeros((8, 9)), border=4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(8, 9), (9, 8), (8, 8, 3)])
def test_unequal_images_are_refused(metric: Callable, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="8 x 8 x 1"):
        metric(np.zeros(shape), np.zeros((8, 8)))


@pytest.mark.parametrize("metric", METRICS)
def test_bad_images_are_refused_by_name(metric: Callable) -> None:
    with pytest.raises(ValueError, match="reference"):
        metric(np.zeros((8, 8)), np.full((8, 8), np.nan))
    with pytest.raises(ValueError, match="data_range"):
        metric(np.full((8, 8), 200.0), np.zeros((8, 8)))


def test_a_range_that_is_given_is_meant():
    """Counts of few photons go far beyond white."""
    counts, clean = np.array([[0.0, 7.0]]), np.array([[0.5, 0.5]])
    with pytest.raises(ValueError, match="far outside the clean range"):
        psnr(counts, clean)
    assert psnr(counts, clean, data_range=1) == pytest.approx(-10 * np.log10((0.25 + 42.25) / 2))


@pytest.mark.parametrize(
    ("value", "words"),
    [(math.nan, "image has 1 NaN .* set them to numbers, or crop"), (255.0, "pass data_range=255 .* divide by 255$")],
)
@pytest.mark.parametrize("use", [lambda x: psnr(x, x), lambda x: dip.degradations.gaussian(x, sigma=25, seed=0)])
def test_advice_is_not_that_for_a_fit(use: Callable, value: float, words: str) -> None:
    image = np.full((8, 9), 0.5) if math.isnan(value) else np.full((8, 9), value)
    image[2, 3] = value
    with pytest.raises(ValueError, match=words) as caught:
        use(image)
    assert "mask" not in str(caught.value)
    assert "poisson" not in str(caught.value)
