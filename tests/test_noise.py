"""The level of the noise that is found in a picture, against noise of known level."""

from __future__ import annotations

import io
import math

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
import torch
from scipy import stats
from skimage import data
from small import NET, picture

import dip
from dip import noise
from dip.noise import level, noise_level


def as_tensor(pixels):
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1)))[None]


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_noise_level_is_found(sigma, channels):
    y, x = np.mgrid[:96, :120] / 100
    smooth = (0.5 + 0.3 * np.sin(4 * x + 3 * y))[..., None]
    noisy = as_tensor(smooth + np.random.default_rng(0).normal(0, sigma, (96, 120, channels)))
    assert noise_level(noisy) == pytest.approx(sigma, rel=0.03)  # the mask's: patches' is increased
    assert noise.by_mask(noisy) == pytest.approx(sigma, rel=0.03)
    assert noise.by_patches(noisy.float()) == pytest.approx(sigma, rel=0.08)


@pytest.mark.parametrize("sigma", [3, 5, 10, 25, 50])
def test_structure_is_hardly_taken_for_noise(sigma):
    """Of photographs in colour."""
    for clean in (data.astronaut()[:160, 200:360], data.coffee()[100:260, 200:360], data.chelsea()[60:220, 100:260]):
        noisy = dip.degradations.gaussian(clean, sigma, seed=0)
        true = np.std(noisy / 255.0 - clean / 255.0)
        found = noise.by_patches(as_tensor(noisy / np.float32(255)))
        assert found == pytest.approx(true, rel=0.15)
        assert 0.92 * true < noise_level(as_tensor(noisy / 255.0)) < 1.35 * true


def test_fine_stripes_are_not_noise():
    """The mask sees nothing else; patches of them are few directions."""
    y, x = np.mgrid[:128, :128]
    stripes = 0.5 + 0.2 * np.sin(2.2 * x + 1.9 * y)[..., None] * np.ones(3)
    noisy = as_tensor(stripes + np.random.default_rng(0).normal(0, 0.02, stripes.shape))
    assert noise.by_mask(noisy) > 0.1
    assert noise_level(noisy) == pytest.approx(1.2 * 0.02, rel=0.08)


def test_noise_that_channels_have_in_common_is_not_taken_for_structure():
    """Gray noise in a picture in colour, and what JPEG with coarser colours leaves of noise."""
    clean = data.coffee()[100:356, 200:456]
    gray = np.clip(clean + np.random.default_rng(0).normal(0, 10, (256, 256, 1)), 0, 255).astype(np.uint8)
    true = np.std(gray / 255.0 - clean / 255.0)
    assert noise_level(as_tensor(gray / 255.0)) == pytest.approx(true, rel=0.2)
    stream = io.BytesIO()
    noisy = dip.degradations.gaussian(clean, 10, seed=0)
    PIL.Image.fromarray(noisy).save(stream, "JPEG", quality=95, subsampling="4:2:0")
    saved = np.asarray(PIL.Image.open(stream))
    of_luma = np.std((saved / 255.0 - clean / 255.0) @ [0.299, 0.587, 0.114])
    assert noise_level(as_tensor(saved / 255.0)) == pytest.approx(of_luma, rel=0.25)


def test_of_noise_that_neighbours_have_in_common_the_mask_tells(photo):
    noisy = photo / 255 + scipy.ndimage.gaussian_filter(
        np.random.default_rng(0).normal(0, 0.1, photo.shape), (0.8, 0.8, 0)
    )
    assert noise.by_patches(as_tensor(noisy).float()) == math.inf
    assert noise_level(as_tensor(noisy)) == noise.by_mask(as_tensor(noisy).float())


def test_noise_that_depends_on_brightness_is_averaged():
    clean = data.camera()[100:356, 100:356] / 255
    noisy = np.random.default_rng(0).poisson(clean * 60) / 60
    assert noise.by_patches(as_tensor(noisy).float()) == pytest.approx(np.std(noisy - clean), rel=0.1)


def test_where_noise_was_cut_off_is_left_out():
    """Half of the picture is white and so is half of the noise there."""
    clean = np.full((96, 96, 3), 0.4)
    clean[:48] = 1.0
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 0.05, clean.shape), 0, 1)
    assert noise.by_patches(as_tensor(noisy).float()) == pytest.approx(0.05, rel=0.05)


def test_a_picture_without_noise_has_none():
    y, x = np.mgrid[:40, :30]
    ramp = as_tensor(0.01 * x + 0.02 * y)
    assert noise_level(ramp) == pytest.approx(0, abs=1e-6)
    assert noise_level(torch.full((1, 3, 40, 40), 0.25)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [(2, 9), (3, 3), (4, 200), (12, 12), (1, 1)])
def test_small_pictures_have_the_masks_level(size):
    small = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = noise.by_mask(small) if min(size) > 2 else 0
    assert noise_level(small) == expected
    assert math.isfinite(expected)


def test_the_limit_is_the_roughness_that_patches_of_noise_have():
    """0.999 of all patches of noise are within it."""
    for channels in (1, 3):
        patches = torch.randn(channels, 25, 200_000, generator=torch.Generator().manual_seed(0))
        within = (level.roughness(patches).sum(0) <= level._limit(channels)).double().mean()
        assert 0.998 < within < 0.9999


def test_the_smallest_eigenvalues_are_as_many_as_have_their_median_as_mean():
    """Three of five, worked out by hand: 1, 2, 3 have mean and median 2; 1, 2, 3, 10 have 4 and 2.5."""
    values = torch.tensor([1.0, 2, 3, 10, 40], dtype=torch.float64)
    turn = torch.from_numpy(stats.ortho_group.rvs(5, random_state=0))
    root = turn @ torch.diag(values.sqrt())
    patches = torch.cat([root, -root], dim=1) * math.sqrt(5)  # whose covariance is that
    assert float(level._least_variance(patches)) == pytest.approx(2)


def test_large_pictures_are_looked_at_in_some_places():
    large = 0.5 + 0.1 * torch.randn(1, 1, 900, 1100, generator=torch.Generator().manual_seed(0))
    assert level.patches_of(large).shape[2] <= 2**15
    assert noise_level(large) == pytest.approx(0.1, rel=0.03)


def test_a_level_that_is_known_is_taken():
    def fitted(**given):
        return dip.fit(dip.Denoise(picture((24, 20, 3))), network=NET, iters=1, progress=False, seed=0, **given)

    found = fitted(code="denoised")
    same = fitted(code=dip.codes.Denoised(level=found._code.level))
    other = fitted(code=dip.codes.Denoised(level=2 * found._code.level), flips="auto")
    assert torch.equal(found.code, same.code)
    assert not torch.equal(found.code, other.code)
    assert other._flips._moment.level == 2 * found._code.level
    with pytest.raises(ValueError, match="level"):
        dip.codes.Denoised(level=0)


def stained(size=96):
    """A micrograph that is full of detail, as it is."""
    return data.immunohistochemistry()[200 : 200 + size, 200 : 200 + size] / 255


def rounded(picture):
    return as_tensor(np.float32(np.clip(np.rint(255 * picture), 0, 255) / 255))


def drawn(picture, sigma):
    return np.random.default_rng(0).normal(0, sigma / 255, picture.shape)


@pytest.mark.parametrize("sigma", [1.5, 3, 8])
def test_differences_of_colours_tell_what_detail_hides(sigma):
    noisy = rounded(stained() + drawn(stained(), sigma))
    found, true = noise.by_colours(noisy), np.hypot(sigma, 12**-0.5) / 255
    assert found == pytest.approx(true, rel=0.1)
    assert noise_level(noisy) == min(noise.by_mask(noisy), 1.2 * noise.by_patches(noisy), 1.2 * found)
    if sigma < 4:
        assert min(noise.by_mask(noisy), noise.by_patches(noisy)) > 1.1 * true
        assert noise.level_and_spectrum(noisy) == (noise_level(noisy), None)


def test_differences_of_colours_tell_it_of_the_known_pixels():
    known = torch.ones(96, 96, dtype=torch.bool)
    known[40:60, 30:70] = False
    noisy = rounded(stained() + drawn(stained(), 3))
    found = noise.by_colours(noisy, known)
    assert found == pytest.approx(3 / 255, rel=0.1)
    assert noise.by_colours(torch.where(known, noisy, 0.37), known) == found


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x + drawn(x, 8)[..., :1],
        lambda x: x + drawn(x, 15)[..., :1] + drawn(x, 3)[..., ::-1],
        lambda x: x + drawn(x, 8) * (1, 0.6, 1.4),
        lambda x: scipy.ndimage.gaussian_filter(x + drawn(x, 8), (0.6, 0.6, 0)),
        lambda x: scipy.ndimage.zoom(x + drawn(x, 8), (1.5, 1.5, 1), order=1),
        lambda x: dip.degradations.jpeg(np.uint8(255 * np.clip(x + drawn(x, 3), 0, 1)), 95) / 255,
        lambda x: x,
    ],
    ids=[
        "all of it gray",
        "most of it gray",
        "another in each channel",
        "blurred",
        "enlarged",
        "the rounding of a JPEG",
        "none",
    ],
)
def test_differences_of_colours_tell_nothing_of_other_noise(made):
    assert noise.by_colours(rounded(made(stained()))) == math.inf


@pytest.mark.parametrize("shape", [(1, 1, 96, 96), (1, 4, 96, 96), (1, 3, 20, 20)])
def test_it_takes_three_channels_and_some_patches(shape):
    assert noise.by_colours(torch.rand(shape, generator=torch.Generator().manual_seed(0))) == math.inf


@pytest.mark.parametrize("name", ["camera", "brick", "coins", "page"])
@pytest.mark.parametrize("sigma", [0, 2])
def test_a_jpeg_shows_its_blocks(name, sigma):
    """Of a blurred photograph, also where a crop begins between the blocks."""
    photo = getattr(data, name)()[:160, :160] / 255
    grain = np.random.default_rng(0).normal(0, sigma / 255, photo.shape)
    blurred = np.rint((scipy.ndimage.gaussian_filter(photo, 1.6) + grain).clip(0, 1) * 255).astype(np.uint8)
    packed = io.BytesIO()
    PIL.Image.fromarray(blurred).save(packed, format="JPEG", quality=75)
    jpeg = np.asarray(PIL.Image.open(packed))

    def found(pixels):
        return noise.blocks(torch.from_numpy(pixels / np.float32(255))[None, None])

    assert found(blurred) < 1.15
    assert found(jpeg) > 1.4
    assert found(jpeg[3:, 5:]) > 1.4
    assert found(jpeg[:40]) == 1
    assert found(np.full((64, 64), 7, np.uint8)) <= 1
