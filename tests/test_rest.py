"""What a fit has left of a noisy picture that is more than noise, and is given back."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import skimage.data
import torch
from scipy.fft import dctn, idctn
from small import QUICK

import dip
from dip import noise
from dip.wiener import opponent


def as_tensor(picture):
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(picture).transpose(2, 0, 1), np.float32))[None]


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def waves(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.sin(0.9 * rows + 0.5 * columns)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_it_is_a_wiener_filter_of_all_patches(channels):
    """By SciPy's transform, patch by patch, where all patches that a pixel is in are inside the picture."""
    sigma, rest = 0.07, 0.1 * drawn(30, 26, channels) + 0.1 * waves(30, 26)[..., None]
    colours = opponent(channels).double().numpy()
    corners = list(itertools.product(range(23), range(19)))
    patches = np.stack([(rest @ colours.T)[i : i + 8, j : j + 8] for i, j in corners])
    transformed = dctn(patches, axes=(1, 2), norm="ortho")
    weights = np.maximum(0, 1 - (1 + 512 / 780) * sigma**2 / np.square(transformed).mean(0))
    expected = np.zeros_like(rest)
    for (i, j), patch in zip(corners, idctn(transformed * weights, axes=(1, 2), norm="ortho"), strict=True):
        expected[i : i + 8, j : j + 8] += patch / 64
    found = noise.more_than_noise(as_tensor(rest), sigma)
    assert 0.05 < weights.mean() < 0.5
    np.testing.assert_allclose(found[..., 7:-7, 7:-7], as_tensor(expected @ colours)[..., 7:-7, 7:-7], atol=1e-5)


def test_noise_is_left_and_structure_is_given_back():
    structure, other = (as_tensor(0.05 * one) for one in (waves(128, 128), drawn(128, 128)))
    assert noise.more_than_noise(other, 0.05).std() < 0.01
    back = noise.more_than_noise(structure + other, 0.05)
    assert (back - structure).square().mean() < 0.2 * structure.square().mean()
    told = torch.full((1, 64), 0.05)
    torch.testing.assert_close(noise.more_than_noise(structure + other, told), back)
    assert not noise.more_than_noise(structure + other, float("inf")).any()


def test_what_is_not_known_does_not_count():
    rest = as_tensor(0.05 * waves(64, 64) + 0.02 * drawn(64, 64))
    known = torch.ones(64, 64, dtype=torch.bool)
    known[20:30, 10:50] = False
    found = noise.more_than_noise(rest, 0.02, known)
    assert torch.equal(found, noise.more_than_noise(torch.where(known, rest, 7.0), 0.02, known))
    assert found[..., 40:, :].std() > 0.02
    assert not noise.more_than_noise(rest, 0.02, torch.zeros_like(known)).any()


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (8, 8), (9, 30)])
def test_small_pictures(size):
    found = noise.more_than_noise(as_tensor(drawn(*size)), 0.5)
    assert found.shape == (1, 1, *size)
    assert bool(found.any()) == (min(size) >= 8)


@pytest.mark.parametrize("sigma", [3, 10, 25])
def test_the_likely_level_is_not_increased(sigma):
    clean = skimage.data.astronaut()[100:228, 200:328] / 255
    y = as_tensor(clean + sigma / 255 * drawn(*clean.shape))
    assert noise.as_it_is(y) == pytest.approx(sigma / 255, rel=0.12)
    assert noise.as_it_is(y) <= noise.noise_level(y)


def noisy(size=96, sigma=3):
    clean = skimage.data.immunohistochemistry()[200 : 200 + size, 200 : 200 + size]
    return clean, (clean + sigma * drawn(*clean.shape)).clip(0, 255).round().astype(np.uint8)


def test_a_fit_that_has_not_found_all_detail_gets_it_back():
    clean, y = noisy()
    fit = dip.fit(dip.Denoise(y, noise="gaussian"), preset="fast", iters=100, seed=0, reference=clean, progress=False)
    x = fit.current + noise.more_than_noise(fit.y - fit.current, noise.as_it_is(fit.y))
    np.testing.assert_array_equal(fit.image, fit.task.output(fit.task.compose(x)))
    found, without = (
        dip.metrics.psnr(one, clean) for one in (fit.image, fit.task.output(fit.task.compose(fit.current)))
    )
    assert found > without + 4
    assert fit.history["psnr"][-1] == pytest.approx(found, abs=0.2)  # but for 8 bits, of what is returned


def test_what_cannot_be_told_is_left():
    """Where noise grows with the light, or next to nothing is known."""
    counts = np.random.default_rng(0).poisson(5 * skimage.data.camera()[100:164, 200:264] / 255) / 5
    for y, options in ((counts.astype(np.float32), {}), (noisy(66)[1][..., 0], {"mask": np.zeros((66, 66), bool)})):
        for mask in options.values():
            mask[::3, ::3] = True
        code = dip.codes.Denoised(level=0.1, noise=2, renewed=3)
        task = dip.Denoise(y, data_range=float(y.max()), **options)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            fit = dip.fit(task, **{**QUICK, "code": code, "iters": 2, "consistent": True})
        np.testing.assert_array_equal(fit.image, task.output(task.compose(fit.current)))
