"""Noise and masks, against the theory of each."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from dip import degradations
from dip.degradations import gaussian, impulse, poisson, random_mask, speckle, text_mask

NOISES: dict[str, Callable] = {
    "gaussian": lambda image, **kw: gaussian(image, 25, **kw),
    "poisson": lambda image, **kw: poisson(image, 30, **kw),
    "impulse": lambda image, **kw: impulse(image, 0.2, **kw),
    "speckle": lambda image, **kw: speckle(image, 0.2, **kw),
}


@pytest.fixture(params=list(NOISES))
def noise(request: pytest.FixtureRequest) -> Callable:
    return NOISES[request.param]


def as_dtype(image: np.ndarray, dtype: str) -> np.ndarray:
    """Bring [0, 1] to the whole range of a dtype."""
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    return (image * top).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (7, 13, 3)])
def test_kind_dtype_and_shape_are_kept(noise: Callable, dtype: str, shape: tuple[int, ...]) -> None:
    image = as_dtype(np.random.default_rng(0).random(shape), dtype)
    before = image.copy()
    noisy = noise(image, seed=0)
    assert (type(noisy), noisy.dtype, noisy.shape) == (np.ndarray, image.dtype, shape)
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(noisy, image)


def test_torch_in_torch_out(noise: Callable) -> None:
    image = torch.rand(3, 7, 13, generator=torch.Generator().manual_seed(0))
    noisy = noise(image, seed=0)
    assert (noisy.dtype, noisy.shape, noisy.device) == (image.dtype, image.shape, image.device)


def test_seed_is_the_only_source_of_noise(noise: Callable) -> None:
    image = np.random.default_rng(0).random((32, 32))
    state = pickle.dumps(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    first, again, other = noise(image, seed=1), noise(image, seed=1), noise(image, seed=2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert pickle.dumps(np.random.get_state()) == state[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state[1])


def test_same_noise_in_every_layout(noise: Callable) -> None:
    image = np.random.default_rng(0).random((7, 13, 3)).astype(np.float32)
    expected = noise(image, seed=0)
    for axis in (0, 1):
        moved = noise(np.moveaxis(image, -1, axis), seed=0, channel_axis=axis)
        np.testing.assert_array_equal(np.moveaxis(moved, axis, -1), expected)
    tensor = noise(torch.from_numpy(image).permute(2, 0, 1), seed=0)
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), expected)


def test_alpha_is_left_alone(noise: Callable) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    noisy = noise(image, seed=0)
    np.testing.assert_array_equal(noisy[..., 3], image[..., 3])
    np.testing.assert_array_equal(noisy[..., :3], noise(image[..., :3], seed=0))
    assert not np.array_equal(noisy[..., :3], image[..., :3])


def test_noise_scales_with_the_data_range(noise: Callable) -> None:
    image = np.random.default_rng(0).random((16, 16))
    noisy = noise(100 + 50 * image, seed=0, data_range=(100, 150))
    np.testing.assert_allclose((noisy - 100) / 50, noise(image, seed=0), atol=1e-6)


@pytest.mark.parametrize("seed", [-1, 0.5, None, True, "0"])
def test_bad_seeds_are_refused(noise: Callable, seed: object) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number from 0 up"):
        noise(np.zeros((4, 4)), seed=seed)


def test_seed_is_required(noise: Callable) -> None:
    with pytest.raises(TypeError, match="seed"):
        noise(np.zeros((4, 4)))


def test_nan_is_refused(noise: Callable) -> None:
    with pytest.raises(ValueError, match="NaN"):
        noise(np.full((4, 4), np.nan), seed=0)


@pytest.mark.parametrize("name", ["gaussian", "poisson", "speckle"])
def test_clip_keeps_the_data_range(name: str) -> None:
    image = np.full((64, 64), 0.97)
    unclipped = NOISES[name](image, seed=0, clip=False)
    assert unclipped.max() > 1
    np.testing.assert_array_equal(NOISES[name](image, seed=0, clip=True), unclipped.clip(0, 1))


def test_integers_are_rounded_and_always_clipped() -> None:
    image = data.astronaut()[:64, :64]
    exact = gaussian(image.astype(np.float64), 25, seed=0, clip=False, data_range=255)
    for clip in (True, False):
        np.testing.assert_array_equal(gaussian(image, 25, seed=0, clip=clip), np.rint(exact).clip(0, 255))


def test_integers_may_overshoot_a_range_smaller_than_their_own() -> None:
    image = np.full((64, 64), 4000, np.uint16)
    assert gaussian(image, 25, seed=0, data_range=4095).max() == 4095
    assert gaussian(image, 25, seed=0, data_range=4095, clip=False).max() > 4095


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_gaussian_statistics(sigma: float) -> None:
    image = data.astronaut() / 255
    noise = 255 * (gaussian(image, sigma, seed=0, clip=False) - image)
    assert noise.std() == pytest.approx(sigma, rel=0.005)
    assert noise.mean() == pytest.approx(0, abs=0.01 * sigma)
    kurtosis = np.mean(noise**4) / noise.var() ** 2
    assert kurtosis == pytest.approx(3, rel=0.02)
    # White: neighbours and channels are independent.
    flat = [noise[:, 1:, 0].ravel(), noise[:, :-1, 0].ravel(), noise[:, 1:, 1].ravel()]
    np.testing.assert_allclose(np.corrcoef(flat), np.eye(3), atol=0.01)


def clipped_error(image: np.ndarray, sigma: float) -> float:
    """The expected mean squared error of clip(x + n, 0, 1), n ~ N(0, sigma^2): tails cut off at a and b."""
    a, b = -image / sigma, (1 - image) / sigma
    inside = norm.cdf(b) - norm.cdf(a) - b * norm.pdf(b) + a * norm.pdf(a)
    return sigma**2 * float(np.mean(inside + a**2 * norm.cdf(a) + b**2 * norm.sf(b)))


@pytest.mark.parametrize("seed", [0, 1])
def test_psnr_of_gaussian_noise(seed: int) -> None:
    image = data.astronaut() / 255
    clipped = peak_signal_noise_ratio(image, gaussian(image, 25, seed=seed))
    unclipped = peak_signal_noise_ratio(image, gaussian(image, 25, seed=seed, clip=False), data_range=1)
    assert clipped == pytest.approx(-10 * math.log10(clipped_error(image, 25 / 255)), abs=0.02)
    assert unclipped == pytest.approx(20 * math.log10(255 / 25), abs=0.02)


@pytest.mark.parametrize("seed", [0, 1])
def test_psnr_of_the_reference_experiment(data_dir: Path, seed: int) -> None:
    with Image.open(data_dir / "set9" / "f16.png") as file:
        image = np.asarray(file) / 255
    assert peak_signal_noise_ratio(image, gaussian(image, 25, seed=seed)) == pytest.approx(20.364, abs=0.02)


@pytest.mark.parametrize("peak", [1, 30, 1e6])
@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_poisson_statistics(peak: float, level: float) -> None:
    noisy = poisson(np.full((300, 300), level), peak, seed=0, clip=False)
    assert noisy.mean() == pytest.approx(level, abs=4 * math.sqrt(level / peak) / 300)
    assert noisy.var() == pytest.approx(level / peak, rel=0.05)
    np.testing.assert_allclose(noisy * peak, np.rint(noisy * peak), rtol=1e-9)  # whole photons


def test_poisson_takes_what_is_below_black_for_black() -> None:
    assert not poisson(np.full((8, 8), -0.01), 1000, seed=0).any()


@pytest.mark.parametrize("salt", [0, 0.25, 0.5, 1])
def test_impulse_fractions(salt: float) -> None:
    image = np.full((300, 300, 3), 0.4)
    noisy = impulse(image, 0.3, salt=salt, seed=0)
    assert np.mean(noisy == 1) == pytest.approx(0.3 * salt, abs=0.005)
    assert np.mean(noisy == 0) == pytest.approx(0.3 * (1 - salt), abs=0.005)
    assert np.mean(noisy == np.float32(0.4)) == pytest.approx(0.7, abs=0.005)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_impulse_leaves_the_others_as_they_were(dtype: str) -> None:
    image = as_dtype(np.random.default_rng(0).random((64, 64)), dtype)
    noisy = impulse(image, 0.2, seed=0)
    top = as_dtype(np.ones(1), dtype)[0]
    hit = noisy != image
    assert 0 < hit.mean() < 0.25
    assert set(np.unique(noisy[hit])) == {0, top}


def test_impulse_hits_whole_pixels_when_asked() -> None:
    image = np.full((100, 100, 3), 0.4)

    def channels_hit(per_channel: bool) -> np.ndarray:
        noisy = impulse(image, 0.3, per_channel=per_channel, seed=0)
        return np.unique(np.count_nonzero(np.isin(noisy, (0, 1)), axis=-1))

    assert list(channels_hit(False)) == [0, 3]
    assert list(channels_hit(True)) == [0, 1, 2, 3]


@pytest.mark.parametrize("amount", [0, 1])
def test_impulse_of_nothing_and_of_everything(amount: int) -> None:
    noisy = impulse(np.full((16, 16), 0.5), amount, seed=0)
    assert np.mean(noisy != 0.5) == amount


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_speckle_statistics(level: float) -> None:
    noisy = speckle(np.full((300, 300), level), 0.2, seed=0, clip=False)
    assert noisy.mean() == pytest.approx(level, rel=0.005)
    assert noisy.var() == pytest.approx((0.2 * level) ** 2, rel=0.02)


@pytest.mark.parametrize("function", [gaussian, speckle])
def test_no_noise_at_sigma_zero(function: Callable) -> None:
    image = data.astronaut()[:16, :16]
    np.testing.assert_array_equal(function(image, 0, seed=0), image)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda image: gaussian(image, -1, seed=0), "sigma"),
        (lambda image: gaussian(image, math.nan, seed=0), "sigma"),
        (lambda image: speckle(image, -0.1, seed=0), "sigma"),
        (lambda image: poisson(image, 0, seed=0), "peak"),
        (lambda image: poisson(image, 1e16, seed=0), "at most 1e15"),
        (lambda image: impulse(image, 1.1, seed=0), "amount must be a fraction"),
        (lambda image: impulse(image, -0.1, seed=0), "amount"),
        (lambda image: impulse(image, 0.1, salt=50, seed=0), "salt must be a fraction"),
        (lambda image: random_mask((4, 4), 0, seed=0), "keep must be above 0"),
        (lambda image: random_mask((4, 4), 50, seed=0), "divide by 100"),
        (lambda image: random_mask((4, 4, 3), 0.5, seed=0), r"image.shape\[:2\]"),
        (lambda image: random_mask((4, 0), 0.5, seed=0), "width"),
        (lambda image: random_mask((4, 4), 0.5, seed=-1), "seed"),
        (lambda image: text_mask((4, 4), " \n"), "at least one letter"),
        (lambda image: text_mask((4, 4), size=0), "size"),
        (lambda image: text_mask(image), "shape must be"),
    ],
)
def test_bad_options_are_refused(call: Callable, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(np.zeros((4, 4)))


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
def test_random_mask_is_bernoulli(keep: float) -> None:
    masks = np.stack([random_mask((100, 101), keep, seed=seed) for seed in range(20)])
    assert masks.dtype == bool
    deviation = math.sqrt(keep * (1 - keep) / masks[0].size)
    fractions = masks.mean(axis=(1, 2))
    assert np.abs(fractions - keep).max() < 4 * deviation
    assert 0.5 * deviation < fractions.std() < 1.7 * deviation  # a number that varies, as it should
    assert np.corrcoef(masks[0].ravel(), masks[1].ravel())[0, 1] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("keep", [0.02, 1 / 3, 0.5, 1])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 65)])
def test_random_mask_can_be_exact(keep: float, shape: tuple[int, int]) -> None:
    mask = random_mask(shape, keep, exact=True, seed=0)
    assert mask.shape == shape
    assert mask.sum() == max(1, round(keep * mask.size))


@pytest.mark.parametrize("exact", [True, False])
def test_random_mask_keeps_one_pixel_at_least(exact: bool) -> None:
    assert all(random_mask((2, 2), 0.01, exact=exact, seed=seed).sum() == 1 for seed in range(5))


def test_random_mask_with_one_seed_grows_with_keep() -> None:
    few, many = random_mask((32, 32), 0.2, seed=3), random_mask((32, 32), 0.6, seed=3)
    np.testing.assert_array_equal(few, random_mask((32, 32), 0.2, seed=3))
    assert not np.any(few & ~many)


@pytest.mark.parametrize("shape", [(16, 16), (32, 32), (65, 129), (200, 64), (512, 512)])
def test_text_mask_covers_the_picture(shape: tuple[int, int]) -> None:
    missing = ~text_mask(shape)
    assert missing.shape == shape
    assert 0.04 < missing.mean() < 0.2
    # There is text in every quarter, not in a corner only.
    half = shape[0] // 2, shape[1] // 2
    for rows in (np.s_[: half[0]], np.s_[half[0] :]):
        for columns in (np.s_[: half[1]], np.s_[half[1] :]):
            assert missing[rows, columns].mean() > 0.04


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 200), (200, 1), (5, 5)])
@pytest.mark.parametrize("size", [None, 1, 400])
def test_text_mask_of_a_tiny_picture_has_a_known_pixel(shape: tuple[int, int], size: int | None) -> None:
    mask = text_mask(shape, size=size)
    assert mask.shape == shape
    assert mask.any()


def test_text_mask_follows_text_and_size() -> None:
    assert not np.array_equal(text_mask((64, 64), "one"), text_mask((64, 64), "two"))
    np.testing.assert_array_equal(text_mask((64, 64), "a b"), text_mask((64, 64), " a\nb "))
    # Larger letters have longer strokes, so fewer borders between known and missing.
    borders = [np.count_nonzero(np.diff(text_mask((256, 256), size=size))) for size in (12, 48)]
    assert borders[1] < borders[0] / 2


def test_public_names() -> None:
    assert sorted(degradations.__all__) == sorted([*NOISES, "jpeg", "random_mask", "text_mask"])
