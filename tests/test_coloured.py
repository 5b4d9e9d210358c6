"""Noise that is not independent from pixel to pixel: its spectrum, and what a fit makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from scipy.fft import dctn, idctn
from scipy.ndimage import convolve, gaussian_filter
from small import NET, QUICK, picture

import dip
from dip import guides, noise
from dip.flips import Flips
from dip.noise.level import MORE
from dip.wiener import cosines, opponent

LINE = np.array([0.5, 1.0, 0.5]) / np.sqrt(1.5)


def as_tensor(image):
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1), np.float32))[None]


def smooth(size=128, channels=3):
    """A photograph without its finest detail, (H, W, C)."""
    photo = skimage.data.astronaut()[:size, :size] / 255
    return gaussian_filter(photo, (2, 2, 0))[..., :channels]


def coloured(shape, sigma, seed=0):
    """Noise as an interpolation leaves it: neighbours along rows and columns have two thirds in common."""
    drawn = np.random.default_rng(seed).normal(0, sigma, shape)
    return convolve(convolve(drawn, LINE[:, None, None], mode="wrap"), LINE[None, :, None], mode="wrap")


def by_hand(sigma):
    """The standard deviation of each coefficient of such noise, from the correlation of the pixels of a patch."""
    apart = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    line = np.correlate(LINE, LINE, "full")[2:]
    along = np.where(apart < 3, line[np.minimum(apart, 2)], 0.0)
    transform = cosines().numpy()
    return sigma * np.sqrt(np.diag(transform @ np.kron(along, along) @ transform.T))


@pytest.mark.parametrize("channels", [1, 3])
def test_of_independent_noise_there_is_none(channels):
    y = smooth(channels=channels) + np.random.default_rng(0).normal(0, 0.1, (128, 128, channels))
    assert noise.spectrum(as_tensor(y)) is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_the_spectrum_is_found(channels, sigma):
    y = as_tensor(smooth(channels=channels) + coloured((128, 128, channels), sigma))
    found, expected = noise.spectrum(y) / MORE, by_hand(sigma)
    assert found.shape == (channels, 64)
    strong = expected > 0.3 * expected.max()
    strong[0] = False  # the mean stays as it is
    ratio = found[:, torch.from_numpy(strong)].numpy() / expected[strong]
    assert ratio.min() > 0.8
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert ratio.max() < 1.6  # the coarsest, which structure is like
    assert float(found[:, -1].max()) < 0.2 * float(found[:, 9].min())  # and next to nothing that is fine
    assert noise.noise_level(y) < 0.3 * sigma  # where the finest detail alone tells nearly nothing
    assert noise.total(MORE * torch.tensor(expected)) / MORE == pytest.approx(sigma, rel=1e-6)


def test_a_jpeg_keeps_gray_noise_and_the_coarse_one_of_colours():
    clean = smooth()
    noisy = np.rint(np.clip(clean + np.random.default_rng(0).normal(0, 0.1, clean.shape), 0, 1) * 255).astype(np.uint8)
    saved = dip.degradations.jpeg(noisy, 98)
    left = (opponent(3) @ (as_tensor(saved / 255) - as_tensor(clean))[0].flatten(1)).std(dim=1)
    found = noise.spectrum(as_tensor(saved / 255)) / MORE
    assert torch.equal(found[0, 1:], found[0, 1].expand(63))
    assert float(found[0, 1]) == pytest.approx(float(left[0]), rel=0.1)
    for colour in (1, 2):
        assert float(found[colour, 63]) < 0.3 * float(found[colour, 9])
        assert float(found[colour].square().mean().sqrt()) == pytest.approx(float(left[colour]), rel=0.3)


def test_gray_noise_in_colour_is_gray():
    clean = smooth()
    y = clean + np.random.default_rng(0).normal(0, 0.1, (128, 128, 1))
    found = noise.spectrum(as_tensor(y)) / MORE
    assert float(found[0, 1]) == pytest.approx(0.1 * 3**0.5, rel=0.25)  # the same in all three
    assert float(found[1:, 20:].max()) < 0.02


def test_texture_of_one_colour_does_not_make_independent_noise_another():
    texture = skimage.data.brick()[:72, :72, None] / 255 * np.array([1.0, 0.8, 0.7])
    for sigma in (0.02, 0.06):
        y = texture + np.random.default_rng(0).normal(0, sigma, texture.shape)
        assert noise.spectrum(as_tensor(y)) is None


def test_what_is_blank_tells_nothing():
    y = np.clip(smooth() + coloured((128, 128, 3), 0.05), 0.01, 0.99)
    framed = np.pad(y, ((60, 60), (60, 60), (0, 0)), constant_values=1.0)
    one, other = (noise.total(noise.spectrum(as_tensor(each))) for each in (y, framed))
    assert other == pytest.approx(one, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 40, 3), (7, 7, 3), (12, 12, 1), (7, 900, 1), (900, 6, 3)])
def test_of_small_pictures_there_is_none(shape):
    assert noise.spectrum(as_tensor(coloured(shape, 0.1))) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_blank_page_has_no_noise(channels):
    blank = torch.full((1, channels, 40, 40), 0.3)
    found = noise.spectrum(blank)
    assert found is None or float(found.max()) < 1e-4
    for sigma in (torch.zeros(channels, 64), torch.full((channels, 64), 0.1)):
        torch.testing.assert_close(guides.wiener(blank, blank, sigma)[0], blank, rtol=0, atol=1e-6)
    made = dip.denoise(blank[0, 0].numpy(), preset="fast", network=NET, iters=2, progress=False)
    np.testing.assert_array_equal(made, blank[0, 0].numpy())


def test_large_pictures_are_looked_at_in_some_places():
    tile = smooth() + coloured((128, 128, 3), 0.1)
    one, other = (noise.spectrum(as_tensor(each)) for each in (tile, np.tile(tile, (5, 6, 1))))
    assert noise.total(other) == pytest.approx(noise.total(one), rel=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_wiener_filter_takes_a_spectrum(channels):
    """As SciPy's cosine transform weighs each coefficient of each patch."""
    draw, gain = np.random.default_rng(0), 0.5
    pilot = picture((17, 21, channels)).astype(float)
    noisy = pilot + draw.normal(0, 0.1, pilot.shape)
    sigma = draw.uniform(0.02, 0.2, (channels, 64))
    (found,) = guides.wiener(as_tensor(noisy), as_tensor(pilot), torch.from_numpy(sigma).float(), (gain,))
    colours = opponent(channels).double().numpy()
    y, guide = noisy @ colours.T, pilot @ colours.T
    total, weights = np.zeros_like(y), np.zeros_like(y)
    for channel in range(channels):
        level = sigma[channel].reshape(8, 8)
        for top in range(10):
            for left in range(14):
                patch = np.s_[top : top + 8, left : left + 8, channel]
                power = dctn(guide[patch], norm="ortho") ** 2
                kept = power / (power + (gain * level) ** 2)
                kept[0, 0] = 1
                weight = 1 / ((kept * level) ** 2).sum()
                total[patch] += weight * idctn(kept * dctn(y[patch], norm="ortho"), norm="ortho")
                weights[patch] += weight
    inside = np.s_[7:-7, 7:-7]
    expected = (total[inside] / weights[inside]) @ colours
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy()[inside], expected, rtol=0, atol=2e-5)


def test_a_spectrum_of_one_level_is_a_level():
    y, pilot = as_tensor(picture((30, 30, 3))), as_tensor(picture((30, 30, 3), seed=1))
    one, other = (guides.wiener(y, pilot, level)[0] for level in (0.1, torch.full((3, 64), 0.1)))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_filter_that_is_told_the_spectrum_is_better():
    clean = skimage.data.astronaut()[:128, :128] / 255
    y = as_tensor(clean + coloured(clean.shape, 0.1))
    found = noise.spectrum(y)
    level = noise.total(found)
    pilot = guides.pilot(y, level)
    psnr = [
        dip.metrics.psnr(guides.wiener(y, pilot, sigma)[0].double(), as_tensor(clean).double())
        for sigma in (noise.noise_level(y), level, found)
    ]
    assert psnr[0] + 2 < psnr[2]
    assert psnr[1] + 0.3 < psnr[2]


def test_a_fit_finds_the_spectrum():
    y = (smooth(64) + coloured((64, 64, 3), 0.1)).astype(np.float32)
    fit = dip.Fit(dip.Denoise(y, noise="gaussian"), network=NET, code="denoised")
    found = noise.spectrum(as_tensor(y))
    assert torch.equal(fit._code.spectrum, found)
    assert fit._code.level == noise.total(found) > 2 * noise.noise_level(as_tensor(y))
    pilot = guides.pilot(as_tensor(y), noise.total(found))
    filtered = torch.cat(guides.wiener(as_tensor(y), pilot, found, (0.5, 1.0)), dim=1)
    expected = 0.03 / noise.total(found) * (filtered - filtered.mean((2, 3), keepdim=True))
    torch.testing.assert_close(fit.code[:, 3:9], fit.settings.frame.extend(expected))


def test_pictures_made_anew_are_filtered_by_the_spectrum():
    y = (smooth(64) + coloured((64, 64, 3), 0.1)).astype(np.float32)
    options = {**QUICK, "code": dip.codes.Denoised(noise=2, renewed=3), "average": 0.9}
    fit = dip.Fit(dip.Denoise(y, noise="gaussian"), **options).run(3)
    average, level = fit.current.clone(), fit._code.level
    fit.run(1)
    filtered = torch.cat(guides.wiener(as_tensor(y), average, noise.spectrum(as_tensor(y)), (0.5, 1.0)), dim=1)
    expected = 0.03 / level * (filtered - filtered.mean((2, 3), keepdim=True))
    torch.testing.assert_close(fit.code[:, 3:9], fit.settings.frame.extend(expected))


def test_a_level_that_is_told_is_that_of_independent_noise():
    y = (smooth(64) + coloured((64, 64, 3), 0.1)).astype(np.float32)
    told = dip.Fit(dip.Denoise(y, noise="gaussian"), network=NET, code=dip.codes.Denoised(level=0.05))
    assert told._code.spectrum is None
    assert told._code.level == 0.05
    independent = (smooth(64) + np.random.default_rng(0).normal(0, 0.1, (64, 64, 3))).astype(np.float32)
    assert dip.Fit(dip.Denoise(independent, noise="gaussian"), network=NET, code="denoised")._code.spectrum is None


# ---------------------------------------------------------------------- structure that was taken for such noise


def stained(size=48, sigma=5.0):
    """A gray micrograph that is full of structure, and with weak independent noise, of 8 bits."""
    clean = skimage.data.immunohistochemistry()[:size, :size, 1]
    noisy = clean + np.random.default_rng(0).normal(0, sigma, clean.shape)
    return clean, noisy.clip(0, 255).round().astype(np.uint8)


def test_a_fit_tells_structure_from_noise(monkeypatch):
    """By how much it leaves, where what that is says nothing."""
    monkeypatch.setattr(dip.Denoise, "independent", lambda task, left, y: None)
    clean, y = stained()
    fit = dip.Fit(dip.Denoise(y, noise="gaussian"), preset="fast", seed=0)
    assert fit._code.level == noise.total(fit._code.spectrum) > 3.5 * 5 / 255
    levels = [fit._code.level]
    for iterations in (100, 99):
        average = fit.run(iterations).current.clone()
        left, believed = noise.at_most(fit.y - average, fit.y), fit._code.spectrum
        enough = 0.95 if fit._code.doubted else 0.8
        fit.run(1)
        expected = torch.minimum(left, believed)
        levels.append(fit._code.level)
        if noise.total(expected) >= enough * noise.total(believed):
            assert torch.equal(fit._code.spectrum, believed)
            continue
        assert torch.equal(fit._code.spectrum, expected)
        assert levels[-1] == noise.total(fit._code.spectrum) == fit._flips._moment.level
        pictures = fit.code[:, :3] * levels[-1] / 0.03  # scaled by what is believed
        means = guides.denoised(fit.y, levels[-1])[0]
        shown = fit.settings.frame.extend(means - means.mean((2, 3), keepdim=True))
        torch.testing.assert_close(pictures[:, :1], shown, atol=1e-4, rtol=1e-3)
    assert levels[2] < 0.8 * levels[0]
    assert fit._flips.began is None  # the residual is still above the noise's variance
    assert dip.metrics.psnr(fit.image, clean) > 29.8  # believing it has 29.5


@pytest.mark.parametrize("channels", [1, 3])
def test_independent_noise_is_seen_in_what_is_left(channels, monkeypatch):
    monkeypatch.setattr("dip.noise.level.of_colours", lambda *_: np.inf)
    clean, y = stained(64)
    if channels == 3:
        clean = skimage.data.immunohistochemistry()[:64, :64]
        y = (clean + np.random.default_rng(0).normal(0, 3, clean.shape)).clip(0, 255).round().astype(np.uint8)
    fit = dip.Fit(dip.Denoise(y, noise="gaussian"), preset="fast", seed=0)
    believed = fit._code.level
    for iterations in (100, 99, 99, 99):
        rest = fit.y - fit.run(iterations).current
        if fit.run(1)._code.spectrum is None:
            break
    assert fit._code.spectrum is None
    expected = min(noise.noise_level(fit.y), noise.noise_level(rest))
    assert fit._code.level == expected == fit._flips._moment.level < 0.6 * believed
    means = guides.denoised(fit.y, expected)[0]
    shown = fit.settings.frame.extend(means - means.mean((2, 3), keepdim=True))
    torch.testing.assert_close(fit.code[:, :channels], min(1, 0.03 / expected) * shown, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_left_of_other_noise_is_not_independent(channels):
    y = as_tensor(smooth(channels=channels) + coloured((128, 128, channels), 0.05))
    left = as_tensor(coloured((128, 128, channels), 0.05))
    assert noise.independent_level(left, y) is None
    common = as_tensor(np.random.default_rng(0).normal(0, 0.05, (128, 128, 1)) * np.ones(channels))
    assert (noise.independent_level(common, y) is None) == (channels == 3)
    alone = as_tensor(np.random.default_rng(0).normal(0, 0.01, (128, 128, channels)))
    assert noise.independent_level(alone, y) == min(noise.noise_level(alone), noise.noise_level(y))


def test_of_a_black_frame_what_is_left_tells_no_level():
    y = as_tensor(
        np.pad(smooth(64, 1) + np.random.default_rng(0).normal(0, 0.05, (64, 64, 1)), ((32, 32), (32, 32), (0, 0)))
    )
    y = y.clamp(0, 1)
    left = torch.where(
        y > 0, as_tensor(np.random.default_rng(1).normal(0, 0.02, (128, 128, 1))), 1e-4 * torch.rand_like(y)
    )
    found = noise.independent_level(left, y)
    assert found in (None, noise.noise_level(y))


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_that_is_there_is_not_doubted(channels):
    y = (smooth(48, channels) + coloured((48, 48, channels), 0.1)).astype(np.float32).squeeze()
    fit = dip.Fit(dip.Denoise(y, noise="gaussian"), preset="fast", seed=0)
    found, level = fit._code.spectrum, fit._code.level
    fit.run(201)
    assert torch.equal(fit._code.spectrum, found)
    assert fit._code.level == level


@pytest.mark.parametrize("masked", [False, True])
def test_noise_is_no_stronger_than_what_is_left(masked):
    """Of noise alone it is that noise, by half more, whatever is left where pixels are not known, or were cut off."""
    left, there = as_tensor(coloured((128, 128, 3), 0.1)), torch.from_numpy(scratched())
    y = 0.5 + left
    left[..., :50], y[..., :50] = 0.0, y.min()
    if masked:
        left[..., ~there] = 9.0
    found = noise.at_most(left, y, there if masked else None)
    expected = torch.from_numpy(1.5 * by_hand(0.1)).float().expand(3, 64)
    torch.testing.assert_close(found[:, 1:], expected[:, 1:], rtol=0.1, atol=0.002)
    assert torch.equal(found[:, 0], found[:, [1, 8]].amax(1))


def test_a_black_picture_has_no_noise_to_doubt():
    options = {**QUICK, "code": dip.codes.Denoised(noise=2, renewed=3)}
    fit = dip.Fit(dip.Denoise(np.zeros((64, 64, 3), np.float32), noise="gaussian"), **options).run(4)
    assert not fit._code.doubted
    assert np.isfinite(fit.image).all()


def test_what_was_not_doubted_in_time_is_believed(monkeypatch):
    monkeypatch.setattr(dip.Denoise, "independent", lambda task, left, y: None)
    monkeypatch.setattr(dip.Denoise, "at_most", lambda task, left, y: task.spectrum / 2)
    _, y = stained()
    fit = dip.Fit(dip.Denoise(y, noise="gaussian"), **{**QUICK, "code": dip.codes.Denoised(noise=2, renewed=201)})
    level = fit._code.level
    fit.run(202)
    assert fit._code.level == level


@pytest.mark.parametrize("interrupted", [1, 4, 5])
def test_a_fit_that_learned_so_goes_on_as_it_was(interrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(dip.Denoise, "at_most", lambda task, left, y: task.spectrum / 2)
    _, y = stained()
    options = {**QUICK, "code": dip.codes.Denoised(noise=2, renewed=4), "flips": "auto"}
    whole = dip.Fit(dip.Denoise(y, noise="gaussian"), **options)
    level = whole._code.level
    whole.run(12)
    assert whole._code.level == pytest.approx(level / 2)
    begun = dip.Fit(dip.Denoise(y, noise="gaussian"), **options).run(interrupted)
    assert begun._code.level == (whole._code.level if interrupted > 4 else level)
    begun.save(tmp_path / "fit.safetensors")
    resumed = dip.Fit(dip.Denoise(y, noise="gaussian"), **options).load(tmp_path / "fit.safetensors")
    assert resumed._code.level == begun._code.level
    assert torch.equal(resumed._code.spectrum, begun._code.spectrum)
    resumed.run(12 - interrupted)
    assert torch.equal(resumed.current, whole.current)
    assert resumed._flips._moment.level == whole._flips._moment.level


def test_flips_that_began_by_a_wrong_level_begin_anew():
    flips = Flips(None, torch.device("cpu"), level=1.0)
    assert not flips.look(25, torch.full((1, 1, 2, 2), 0.5))
    assert flips.began == 25  # below 0.3 of the variance
    flips.follow(dip.codes.Denoised(level=0.4), 50)
    assert flips.began is None
    assert not flips.look(75, torch.full((1, 1, 2, 2), 0.5))
    assert flips.began is None
    flips.look(100, torch.full((1, 1, 2, 2), 0.2))
    assert flips.began == 100
    flips.follow(dip.codes.Denoised(level=0.35), 125)  # hardly lower
    assert flips.began == 100
    flips.follow(dip.codes.Denoised(level=0.1))  # of a fit that is resumed
    assert flips.began == 100


# ---------------------------------------------------------------------- where pixels are missing


def scratched(size=128):
    """Which pixels are known, (H, W): all but lines and spots."""
    there = np.ones((size, size), bool)
    there[::23] = there[:, 5::31] = False
    there[40:60, 70:84] = False
    return there


def test_the_spectrum_is_that_of_the_known_pixels():
    there = scratched()
    y = smooth() + coloured((128, 128, 3), 0.1)
    expected = noise.spectrum(as_tensor(y))
    holes = as_tensor(np.where(there[..., None], y, 3.0))
    found = noise.spectrum(holes, torch.from_numpy(there))
    torch.testing.assert_close(found[:, 1:20], expected[:, 1:20], rtol=0.3, atol=0.01)
    level, told = noise.level_and_spectrum(holes, torch.from_numpy(there))
    assert torch.equal(told, found)
    assert level == noise.total(found)
    few = torch.from_numpy(np.random.default_rng(0).random((128, 128)) < 0.7)  # hardly a whole patch
    assert noise.spectrum(holes, few) is None
    assert noise.level_and_spectrum(holes, few) == (noise.noise_level(holes, few), None)


def test_a_fit_with_a_mask_finds_the_spectrum():
    there, clean = scratched(96), smooth(96)
    y = (clean + coloured(clean.shape, 0.1)).astype(np.float32)
    task = dip.Denoise(np.where(there[..., None], y, np.nan).astype(np.float32), mask=there, noise="gaussian")
    options = {**QUICK, "code": dip.codes.Denoised(noise=2, renewed=3), "average": 0.9}
    fit = dip.Fit(task, **options).run(3)
    found = noise.spectrum(fit.y, torch.from_numpy(there))
    assert torch.equal(fit._code.spectrum, found)
    assert torch.equal(task.spectrum, found)
    assert fit._code.level == task.level == noise.total(found)
    average = fit.current.clone()
    fit.run(1)
    whole = torch.where(torch.from_numpy(there), fit.y, average)
    filtered = torch.cat(guides.wiener(whole, average, found, (0.5, 1.0)), dim=1)
    expected = 0.03 / task.level * (filtered - filtered.mean((2, 3), keepdim=True))
    torch.testing.assert_close(fit.code[:, 3:9], fit.settings.frame.extend(expected))
    assert fit.history["loss"][-1] < fit.history["loss"][0]


def test_each_fit_of_a_task_looks_at_the_noise_as_it_sees_it():
    """A penalty is in units of white, so that with one a dark picture is not stretched."""
    y = ((smooth(64) + coloured((64, 64, 3), 0.1)) / 16).astype(np.float32)
    task = dip.Denoise(y, noise="gaussian", data_range=1.0)
    levels = []
    for penalty in ((), dip.losses.TotalVariation(1e-3), ()):
        fit = dip.Fit(task, penalty=penalty, **{**QUICK, "code": "denoised"})
        assert fit._code.level == task.level == noise.total(noise.spectrum(fit.y))
        levels.append(task.level)
    assert levels[0] == levels[2] > 8 * levels[1]
