"""Deconvolution beside noise: the filter before the fit, and noise that grows with the light."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from scipy.fft import dctn, idctn
from skimage.metrics import peak_signal_noise_ratio
from small import NET, QUICK, picture

import dip
from dip import cli, files
from dip.noise import PoissonGaussian, noise_level
from dip.operators import Blur, gaussian_psf

PSF = gaussian_psf(1.6)
FAST = {"preset": "fast", "network": NET, "precision": "float32"}


def light(size=96, channels=1):
    """Part of a real photograph, blurred, (size, size) or (size, size, channels), as it would be without noise."""
    clean = skimage.data.astronaut()[30 : 30 + size, 180 : 180 + size, :channels].astype(np.float32) / 255
    made = Blur(PSF)(torch.from_numpy(clean).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    return made[..., 0] if channels == 1 else made


def with_noise(made, noise, seed=0):
    draw = np.random.default_rng(seed)
    if noise.gain:
        made = draw.poisson(made.clip(0) / noise.gain) * noise.gain
    return (made + draw.normal(0, noise.sigma, made.shape)).astype(np.float32)


def as_fitted(task):
    """Return y as the fit sees it, in the layout of the image."""
    y = dip.Fit(task, **FAST).y[0].permute(1, 2, 0).numpy()
    return y[..., 0] if y.shape[2] == 1 else y


# ---------------------------------------------------------------------- the band


def test_the_band_is_that_of_the_cosine_transform():
    """Of an image mirrored about its outermost pixels a symmetric blur is diagonal in the cosine transform (type I)."""
    y = np.random.default_rng(0).random((24, 33))
    line = np.array([1.0, 4.0, 1.0]) / 6
    found = Blur(np.outer(line, line)).band_limited(torch.from_numpy(y)[None, None], 0.05)[0, 0].numpy()
    gains = [(line[1] + 2 * line[0] * np.cos(np.pi * np.arange(n) / (n - 1))) ** 2 for n in y.shape]
    power = np.outer(*gains)
    expected = idctn(dctn(y, type=1) * 1.05 * power / (power + 0.05), type=1)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_round_the_border_the_band_is_that_of_the_fourier_transform():
    y, psf = np.random.default_rng(0).random((3, 16, 20)), np.random.default_rng(1).random((3, 5, 4))
    found = Blur(psf, boundary="wrap").band_limited(torch.from_numpy(y), 0.1).numpy()
    power = np.abs(np.fft.fft2(psf / psf.sum((1, 2), keepdims=True), s=(16, 20))) ** 2
    expected = np.fft.ifft2(np.fft.fft2(y) * 1.1 * power / (power + 0.1)).real
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 12)])
@pytest.mark.parametrize("boundary", ["mirror", "nearest", "wrap", "zero"])
def test_what_is_constant_stays_in_the_band(size, boundary):
    gray = torch.full((1, 1, *size), 0.3)
    psf = np.ones((min(size[0], 3), min(size[1], 3)))
    torch.testing.assert_close(Blur(psf, boundary=boundary).band_limited(gray, 0.05), gray)


# ---------------------------------------------------------------------- the filter


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [4, 10, 40])
def test_most_of_the_noise_is_taken_off_before_the_fit(sigma, channels):
    made = light(channels=channels)
    y = with_noise(made, PoissonGaussian(0, sigma / 255))
    filtered = as_fitted(dip.Deblur(y, PSF, data_range=1.0))
    before, after = (np.square(one - made).mean() for one in (y, filtered))
    assert after < before / 4  # half of the error and less
    assert np.abs(filtered - made).max() < np.abs(y - made).max()


@pytest.mark.parametrize("noise", ["poisson", PoissonGaussian(1 / 30, 0.02)])
def test_counts_are_filtered_where_they_have_one_noise(noise):
    made, model = light(), PoissonGaussian(1 / 30, 0.02)
    y = with_noise(made, model)
    task = dip.Deblur(y, PSF, noise=noise)
    filtered = as_fitted(task)
    for part in (made < 0.2, made > 0.6):  # where it is dark, and where it is bright
        assert np.square(filtered - made)[part].mean() < np.square(y - made)[part].mean() / 4
    assert task.noise is not None
    assert task.noise.gain == pytest.approx(1 / 30, rel=0.25)
    # the damping suits the mean of the variance
    expected = 40 * (task.noise.gain * y.mean() + task.noise.sigma**2)
    if not task.noise.offset:
        assert task._known_damping == pytest.approx(expected, rel=1e-3)


def test_the_rest_is_damped_less_than_all_of_the_noise_would_be():
    y = with_noise(light(), PoissonGaussian(0, 8 / 255))
    level = noise_level(torch.from_numpy(y)[None, None])
    for filters, times in ((True, 40), (False, 160)):
        task = dip.Deblur(y, PSF)
        dip.Fit(task, **FAST, **({} if filters else {"loss": "mse"}))
        assert task._known_damping == pytest.approx(times * level**2)
    told = dip.Deblur(y, PSF, noise=PoissonGaussian(0, 0.05))
    dip.Fit(told, **FAST)
    assert told._known_damping == pytest.approx(40 * 0.05**2)


def test_what_cannot_be_told_from_noise_stays():
    """Noise that is not independent from pixel to pixel, next to nothing of a picture, and what was a JPEG."""
    made = light()
    grain = np.random.default_rng(0).normal(0, 0.2, made.shape)
    coarse = made + Blur(gaussian_psf(1.0))(torch.from_numpy(grain)[None])[0].numpy()
    Image.fromarray((made.clip(0, 1) * 255).astype(np.uint8)).save(packed := io.BytesIO(), format="JPEG", quality=40)
    jpeg = np.asarray(Image.open(packed)).astype(np.float32) / 255
    small = picture((4, 5))
    for y, psf in ((coarse.astype(np.float32), PSF), (jpeg, PSF), (small, np.ones((3, 3)))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the JPEG it is told
            np.testing.assert_array_equal(as_fitted(dip.Deblur(y, psf)), y)


def test_another_loss_and_the_preset_paper_see_y_as_it_is():
    y = with_noise(light(), PoissonGaussian(0, 0.05))
    for options in ({**QUICK}, {**FAST, "loss": "mse"}):
        fit = dip.Fit(dip.Deblur(y, PSF), **options)
        np.testing.assert_array_equal(fit.y[0, 0].numpy(), y)


def test_crops_are_of_what_was_filtered():
    y = with_noise(light(), PoissonGaussian(0, 0.05))
    whole, crops = (dip.Fit(dip.Deblur(y, PSF), **FAST, tile=tile) for tile in (None, 48))
    torch.testing.assert_close(crops.y, whole.y, rtol=0, atol=0)
    assert not np.array_equal(whole.y[0, 0].numpy(), y)


def test_a_fit_of_few_photons_does_not_end_in_noise():
    clean = skimage.data.camera()[100:164, 220:284].astype(np.float32) / 255
    y = with_noise(Blur(PSF)(torch.from_numpy(clean)[None])[0].numpy(), PoissonGaussian(1 / 20))
    solve = {"down": (8, 16, 16), "up": (8, 16, 16), "skip": (4, 4, 4)}
    restored = dip.deblur(y, PSF, noise="poisson", iters=300, **FAST | {"network": solve})
    ours, before = (peak_signal_noise_ratio(clean, one.clip(0, 1), data_range=1) for one in (restored, y))
    assert ours > before + 3


# ---------------------------------------------------------------------- words


def test_noise_that_grows_is_refused_beside_another_loss():
    y = with_noise(light(), PoissonGaussian(1 / 30))
    for options in ({}, {"preset": "fast", "loss": "mse"}):
        with pytest.raises(ValueError, match='for preset="fast"'):
            dip.deblur(y, PSF, noise="poisson", iters=1, **options)
    with pytest.raises(ValueError, match="unknown noise 'poison'"):
        dip.deblur(y, PSF, noise="poison", **FAST)


def test_noise_that_grows_without_a_word_is_said():
    y = with_noise(light(128), PoissonGaussian(1 / 20))
    with pytest.warns(RuntimeWarning, match="seems to grow with its light"):
        dip.Fit(dip.Deblur(y, PSF), **FAST)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dip.Fit(dip.Deblur(y, PSF, noise="poisson"), **FAST)
        dip.Fit(dip.Deblur(y, PSF, noise="gaussian"), **FAST)


def test_a_checkpoint_goes_on_and_knows_the_noise(tmp_path):
    y, path = with_noise(light(64), PoissonGaussian(1 / 30)), tmp_path / "fit.st"
    whole = dip.fit(dip.Deblur(y, PSF, noise="poisson"), iters=30, **FAST)
    dip.fit(dip.Deblur(y, PSF, noise="poisson"), iters=10, checkpoint=path, **FAST)
    resumed = dip.fit(dip.Deblur(y, PSF, noise="poisson"), iters=30, resume=path, **FAST)
    np.testing.assert_array_equal(resumed.image, whole.image)
    with pytest.raises(dip.CheckpointError, match="noise"):
        dip.fit(dip.Deblur(y, PSF, noise=PoissonGaussian(1 / 20)), iters=30, resume=path, **FAST)


def test_the_command_finds_the_noise_and_tells(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    counts = np.random.default_rng(0).poisson(light() * 60).clip(0, 255).astype(np.uint8)
    files.write("in.png", counts)
    words = ["deblur", "in.png", "--psf-sigma", "1.6", "-o", "out.png", "--json", "out.json", "--data-range", "60"]
    words += ["--preset", "fast", "--iters", "2", "--down", "8x2", "--skip", "4x2", "--noise", "poisson"]
    assert cli.main(words) == 0
    assert "noise of photons of 1 each" in capsys.readouterr().out
    assert json.loads(Path("out.json").read_text())["settings"]["noise"].startswith("PoissonGaussian(gain=1.0")
    assert cli.main([*words, "--gain", "1", "--force"]) == 0
    assert cli.main([*words[:-2], "--gain", "1", "--force"]) == 2
    assert "--gain means nothing without --noise poisson" in capsys.readouterr().err
