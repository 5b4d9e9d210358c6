"""Noise that grows with the light: its model, the transform that makes it the same everywhere, and fits with it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from skimage import data
from skimage.transform import resize
from small import QUICK, picture, quick_fit
from test_cli import QUICK as QUICK_WORDS
from test_cli import dip_command

import dip
from dip import files, noise
from dip.noise import PoissonGaussian, Stabilising
from dip.noise.stabilising import expected

PHOTOS = {"camera": data.camera()[100:292, 130:322], "coffee": data.coffee()[60:220, 200:360]}


def as_tensor(pixels):
    return torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1)[None].astype(np.float32))


def counts(clean, gain, sigma=0.0, offset=0.0, seed=0):
    """y of an image without its offset."""
    rng = np.random.default_rng(seed)
    return offset + gain * rng.poisson(clean / gain) + sigma * rng.standard_normal(np.shape(clean))


# ---------------------------------------------------------------------- the model


def test_the_model_counts_photons_from_the_offset():
    camera = PoissonGaussian(gain=2.0, sigma=3.0, offset=100.0)
    assert camera.variance(100.0) == 9
    assert camera.variance(90.0) == 9  # there is no negative light
    assert camera.variance(108.0) == 2 * 8 + 9
    inside = camera.within(100, 300)
    assert (inside.gain, inside.sigma, inside.offset) == (0.01, 0.015, 0.0)
    assert inside.variance(0.04) * 200**2 == pytest.approx(camera.variance(108.0))
    assert inside.without(100, 300) == camera


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"gain": -1}, ValueError, "gain must be a finite number of 0 or more"),
        ({"gain": 1, "sigma": math.nan}, ValueError, "sigma must be"),
        ({"gain": "1"}, TypeError, "gain must be"),
        ({"gain": 1, "offset": math.inf}, ValueError, "offset must be a finite number, not inf"),
        ({"gain": 1, "offset": None}, TypeError, "offset must be a finite number, not None"),
        ({"gain": 1, "offset": "0.5"}, TypeError, "offset must be a finite number, not '0.5'"),
        ({"gain": 1, "offset": 10**400}, ValueError, "too large"),
        ({"gain": 0}, ValueError, "there is no noise"),
    ],
)
def test_a_model_of_other_numbers_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        PoissonGaussian(**given)


# ---------------------------------------------------------------------- the transform


@pytest.mark.parametrize("photons", [0.0, 0.3, 2.0, 17.0, 63.9, 64.1, 180.0, 5000.0])
@pytest.mark.parametrize("read", [0.0, 0.4, 3.0])
def test_the_mean_of_the_transform_is_that_of_all_that_may_be_counted(photons, read):
    """Against a sum over counts, and over ever so many values of the read noise."""
    z = np.linspace(-9, 9, 2001)
    shares = scipy.stats.norm.pdf(z) * (z[1] - z[0]) if read else np.eye(1, len(z), len(z) // 2)[0]  # 1 at 0

    spread = 9 * math.sqrt(photons) + 12
    around = range(max(0, int(photons - spread)), int(photons + spread) + 1)
    weights = scipy.stats.poisson.pmf(np.array(around), photons)
    of_counts = [2 * np.sqrt(np.maximum(k + read * z + 3 / 8 + read**2, 0)) @ shares for k in around]
    oracle = np.dot(weights / weights.sum(), of_counts)
    assert expected(np.array([photons]), read)[0] == pytest.approx(oracle, abs=2e-4 if read else 1e-5)


@pytest.mark.parametrize(
    "model", [PoissonGaussian(0.05), PoissonGaussian(0.02, 0.03), PoissonGaussian(0.01, 0.02, 0.2)]
)
def test_noise_becomes_the_same_everywhere_and_the_mean_comes_back(model):
    stabilising = Stabilising(model)
    for x in (0.25, 0.4, 0.7, 1.0):
        y = counts(np.full(200_000, x - model.offset), model.gain, model.sigma, model.offset)
        stable = stabilising.forward(torch.from_numpy(y))
        assert float(stable.std()) == pytest.approx(stabilising.level, rel=0.05)
        back = float(stabilising.inverse(stable.mean()[None]))
        off = 4 * math.sqrt(model.variance(x) / len(y))
        assert back == pytest.approx(x, abs=off + 2e-4)


def test_few_photons_come_back_without_bias():
    """Where the inverse of the formula itself is off by far: of a mean of half a photon by a third."""
    stabilising = Stabilising(PoissonGaussian(0.5))
    y = torch.from_numpy(counts(np.full(400_000, 0.25), 0.5))
    stable = stabilising.forward(y).mean()
    assert float(stabilising.inverse(stable[None])) == pytest.approx(0.25, abs=2e-3)
    naive = 0.5 * ((stable * stabilising._span + stabilising._black) ** 2 / 4 - 3 / 8)
    assert float(naive) < 0.2


@pytest.mark.parametrize(
    "model",
    [PoissonGaussian(0.1), PoissonGaussian(1e-6, 0.1), PoissonGaussian(1e-9, 1e-4), PoissonGaussian(2.0, 0.5, -0.3)],
)
def test_black_and_white_stay_where_they_are(model):
    stabilising = Stabilising(model)
    ends = stabilising.inverse(torch.tensor([-0.5, 0.0, 1.0, 1.5]))
    assert ends.tolist() == pytest.approx([0, 0, 1, 1], abs=1e-6)
    rising = stabilising.inverse(torch.linspace(0, 1, 1001)).diff()
    assert (rising > 0).all()
    assert torch.isfinite(stabilising.forward(torch.linspace(-2, 3, 11))).all()


def test_where_there_is_an_offset_nothing_is_darker():
    stabilising = Stabilising(PoissonGaussian(0.01, 0.0, 0.2))
    assert stabilising.inverse(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([0.2, 1.0])
    with pytest.raises(ValueError, match=r"where there is no light, is 1\.5 times white"):
        Stabilising(PoissonGaussian(0.01, 0.0, 1.5))


def test_noise_of_the_camera_alone_changes_nothing():
    x = torch.rand(1, 3, 8, 8)
    plain = Stabilising(PoissonGaussian(0, 0.1))
    assert plain.level == 0.1
    assert plain.forward(x) is x
    assert plain.inverse(x) is x
    # and next to that it is a straight line
    nearly = Stabilising(PoissonGaussian(1e-7, 0.1))
    torch.testing.assert_close(nearly.forward(x), x, atol=1e-4, rtol=0)
    assert nearly.level == pytest.approx(0.1, rel=1e-3)


def test_a_picture_that_is_not_finite_stays_so():
    stabilising = Stabilising(PoissonGaussian(0.1))
    assert stabilising.inverse(torch.tensor([0.5, math.nan])).isnan().tolist() == [False, True]


# ---------------------------------------------------------------------- what is found


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize(("gain", "sigma", "offset"), [(0.01, 0, 0), (0.01, 0.02, 0), (0.03, 0.04, 0), (0.01, 0, 0.1)])
def test_the_noise_of_a_photograph_is_found(name, gain, sigma, offset):
    clean = PHOTOS[name] / 255
    found = noise.found(as_tensor(counts(clean, gain, sigma, offset)))
    for x in np.quantile(clean, (0.1, 0.5, 0.9)):
        true = math.sqrt(gain * x + sigma**2)
        assert math.sqrt(found.variance(x + offset)) == pytest.approx(true, rel=0.13)


@pytest.mark.parametrize("peak", [0.5, 2, 10, 40])
@pytest.mark.parametrize("name", PHOTOS)
def test_counts_are_told_by_their_values(name, peak):
    clean = PHOTOS[name] / 255
    found = noise.found(as_tensor(counts(clean, 1 / peak)))
    assert (found.gain, found.sigma, found.offset) == (pytest.approx(1 / peak, rel=1e-4), 0, 0)
    # in 8 bits they are rounded
    if peak == 10:
        eight = np.rint(np.clip(counts(clean, 1 / peak), 0, 1) * 255) / 255
        assert noise.found(as_tensor(eight)).gain == pytest.approx(1 / peak, rel=0.02)


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("sigma", [5, 15, 25])
def test_noise_that_does_not_grow_is_found_not_to(name, sigma):
    noisy = dip.degradations.gaussian(PHOTOS[name], sigma, seed=0) / 255
    found = noise.found(as_tensor(noisy))
    assert found.gain == 0
    true = np.std(noisy - PHOTOS[name] / 255)
    assert found.sigma == pytest.approx(true, rel=0.15)


def test_few_values_that_are_no_counts_are_not_taken_for_them():
    """A drawing, and a photograph in few shades of gray."""
    drawing = np.zeros((96, 96))
    drawing[20:50, 30:70], drawing[60:80, 10:80] = 0.5, 1.0
    shades = np.rint(PHOTOS["camera"] / 255 * 12) / 12
    for clean in (drawing, shades):
        found = noise.found(as_tensor(clean))
        assert found is None or found.gain < 0.02


@pytest.mark.parametrize(("peak", "sigma"), [(50, 6), (40, 5), (60, 6.5), (10, 2.5)])
def test_equal_noise_in_few_shades_is_not_taken_for_counts(peak, sigma):
    """A dark picture in 8 bits, whose noise is as strong as that of counts would be where it is bright."""
    dark = np.rint(PHOTOS["camera"] / 255 * peak + sigma * np.random.default_rng(0).standard_normal((192, 192)) + 20)
    found = noise.found(as_tensor(dark))
    assert math.sqrt(found.variance(20)) == pytest.approx(sigma, rel=0.2)
    assert math.sqrt(found.variance(20 + peak)) == pytest.approx(sigma, rel=0.2)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 20), (1.0, 30), (0.6, 0), (1.4, 0), (2.0, 10)])
def test_counts_of_another_gain_or_offset_are_not_taken_for_plain_ones(gain, offset):
    clean = PHOTOS["camera"] / 255 * 60
    found = noise.found(as_tensor(np.rint(counts(clean, gain, 0.0, offset))))
    for x in np.quantile(clean, (0.1, 0.9)):
        assert found.variance(x + offset) == pytest.approx(gain * x, rel=0.25, abs=0.15 * gain * clean.mean())


@pytest.mark.parametrize("size", [(1, 5000), (2, 5000), (30, 2), (2, 2), (1, 1), (3, 3)])
def test_strips_have_no_model_and_are_fitted_all_the_same(size):
    strip = np.random.default_rng(0).poisson(30, size).astype(np.uint8)
    assert noise.found(as_tensor(strip)) is None or min(size) > 2
    for given in (None, PoissonGaussian(1.0)):
        assert torch.isfinite(dip.Denoise(strip, noise=given).load().y).all()


@pytest.mark.parametrize("pixels", [np.full((40, 40), 0.5), np.random.default_rng(0).random((12, 12))])
def test_of_pictures_that_tell_nothing_nothing_is_found(pixels):
    assert noise.found(as_tensor(pixels)) is None


# ---------------------------------------------------------------------- the task


def test_a_fit_finds_more_where_it_knows_the_noise():
    """Dark and bright halves: with one level of noise for both, what is fitted of one half is wrong."""
    y, x = np.mgrid[:64, :64] / 64
    clean = np.where(x < 0.5, 0.04, 0.8) * (1 + 0.3 * np.sin(9 * y)) / 1.1
    noisy = counts(clean, 0.05).astype(np.float32)
    options = {"preset": "fast", "iters": 120, "seed": 0, "progress": False, "reference": clean.astype(np.float32)}

    def psnr(given):
        fit = dip.fit(dip.Denoise(noisy, noise=given), **options)
        assert fit.history["psnr"][-1] == pytest.approx(dip.metrics.psnr(fit.image, clean), abs=0.01)
        return fit.history["psnr"][-1]

    assert psnr(PoissonGaussian(0.05)) > psnr("gaussian") + 1


def test_the_level_of_what_is_stabilised_goes_into_the_code():
    known = PoissonGaussian(0.2)
    noisy = counts(PHOTOS["camera"][:64, :64] / 255, 0.2).astype(np.float32)
    fit = dip.Fit(dip.Denoise(noisy, noise=known), preset="fast")
    level = 1.2 * Stabilising(known).level
    assert fit.task.level == pytest.approx(level)
    assert fit._code.level == fit.task.level
    torch.testing.assert_close(fit.y, Stabilising(known).forward(torch.from_numpy(noisy)[None, None]))


@pytest.mark.parametrize(("dtype", "white"), [("uint8", 255), ("uint16", 60000), ("float64", 3.0)])
def test_the_result_has_the_numbers_of_the_image(dtype, white):
    """In the numbers of a camera: gain, read noise and offset."""
    clean = white * (0.1 + 0.8 * PHOTOS["coffee"][:48, :48] / 255)
    gain, offset = white / 100, 0.05 * white
    noisy = counts(clean - offset, gain, 0.01 * white, offset)
    noisy = np.rint(noisy.clip(0, white)).astype(dtype) if dtype != "float64" else noisy
    model = PoissonGaussian(gain, 0.01 * white, offset)
    fit = quick_fit(dip.Denoise(noisy, noise=model, data_range=white), iters=60, lr=0.02)
    assert (fit.image.shape, fit.image.dtype) == (noisy.shape, np.dtype(dtype))
    assert fit.task.noise == model
    assert fit.image.min() >= offset * (1 - 1e-6) - 0.5 * (dtype != "float64")
    assert np.abs(fit.image.mean((0, 1)) - clean.mean((0, 1))).max() < 0.1 * white
    # as the transform has it, by hand, of one pixel of the picture
    stable = fit.picture[0, :, 7, 9].double().numpy() * fit.task._stabilising._span + fit.task._stabilising._black
    naive = offset + gain * ((stable / 2) ** 2 - 3 / 8 - (0.01 * white / gain) ** 2)
    np.testing.assert_allclose(fit.image[7, 9], naive + gain / 4, atol=0.03 * gain + 0.51 * (dtype != "float64"))


def test_alpha_is_kept_and_a_tensor_comes_back_as_one():
    rgba = (picture((24, 24, 4)) * 255).astype(np.uint8)
    fit = quick_fit(dip.Denoise(rgba, noise=PoissonGaussian(4.0)))
    np.testing.assert_array_equal(fit.image[..., 3], rgba[..., 3])
    brought_back = Stabilising(PoissonGaussian(4 / 255)).inverse(fit.picture)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(fit.image[..., :3], brought_back * 255, atol=0.501)  # but for rounding
    assert np.abs(fit.picture[0].permute(1, 2, 0).numpy() * 255 - fit.image[..., :3]).max() > 5
    batch = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    restored = dip.denoise(batch, noise=PoissonGaussian(0.1), iters=2, **QUICK)
    each = [dip.denoise(one, noise=PoissonGaussian(0.1), iters=2, **QUICK) for one in batch]
    torch.testing.assert_close(restored, torch.stack(each))
    assert not torch.equal(restored[0], dip.denoise(batch[0], iters=2, **QUICK))


def test_what_is_found_is_told_in_the_numbers_of_the_image():
    clean = PHOTOS["camera"].astype(float) * 8
    noisy = counts(clean, 20.0, 30.0, 100.0)
    task = dip.Denoise(np.rint(noisy).clip(0).astype(np.uint16), noise="poisson", data_range=(100, 2140))
    assert task.noise is None
    assert task.words == ""
    task.load()
    assert task.noise.gain == pytest.approx(20, rel=0.25)
    assert task.noise.variance(1100) == pytest.approx(20 * 1000 + 900, rel=0.25)
    assert f"photons of {task.noise.gain:.3g} each" in task.words


@pytest.mark.parametrize("photons", [0.2, 0.5, 1.0])
def test_unclipped_counts_of_few_photons_are_no_wrong_range(photons):
    noisy = (np.random.default_rng(0).poisson(0.9 * photons, (64, 64)) / photons).astype(np.float32)
    assert (noisy > 2).mean() > 0.01
    with pytest.raises(ValueError, match=r'of few photons: dip.denoise takes noise="poisson"'):
        dip.Denoise(noisy).load()
    for given in ("poisson", PoissonGaussian(1 / photons)):
        assert torch.isfinite(dip.Denoise(noisy, noise=given).load().y).all()


@pytest.mark.parametrize("photons", [20, 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_in_a_small_picture_the_noise_grows_if_that_is_said(photons, seed):
    """Of 64 x 64 pixels few groups are equally bright, and structure in the dark one hides that the noise grows."""
    clean = resize(PHOTOS["camera"][100:356, 150:406] / 255, (64, 64), anti_aliasing=True)
    y = np.random.default_rng(seed).poisson(clean * photons) / photons
    task = dip.Denoise(y, noise="poisson")
    task.load()
    assert task.noise.gain == pytest.approx(1 / photons, rel=1e-3)


def test_what_is_found_has_as_many_digits_as_mean_something():
    counts = np.random.default_rng(0).poisson(PHOTOS["camera"] / 255 * 20) * 10
    task = dip.Denoise(counts.astype(np.uint16), noise="poisson")
    with pytest.warns(RuntimeWarning, match="its white is taken for 1023"):
        task.load()
    assert task.noise == PoissonGaussian(10.0)


@pytest.mark.filterwarnings("ignore:.*does not seem to grow:RuntimeWarning")
def test_light_below_black_is_none():
    """Read noise may lie there, and whole parts of a picture do not: it has another range, or was standardised."""
    rng, side = np.random.default_rng(0), 64
    light = np.linspace(0, 1, side)[None] * np.ones((side, 1))
    around = (2 * light - 1.2 + rng.normal(0, 0.05, light.shape)).astype(np.float32)
    darker = (light - 0.25 + rng.normal(0, 0.05, light.shape)).astype(np.float32)
    for given in ("poisson", PoissonGaussian(0.01)):
        with pytest.raises(ValueError, match=r"darker than its black, 0: .* down to -0\.\d+, .* data_range="):
            dip.Denoise(around, noise=given).load()
        with pytest.warns(RuntimeWarning, match=r"darker than its black, 0: .* down to -0\.\d+, .* data_range="):
            dip.Denoise(darker, noise=given).load()
    same = (light + rng.normal(0, 0.2, light.shape)).astype(np.float32)
    dip.Denoise(same, noise=PoissonGaussian(0.01)).load()
    task = dip.Denoise(same, noise="poisson")
    with pytest.warns(RuntimeWarning, match=r"not seem to grow .* standard deviation 0\.\d+; if it does"):
        task.load()
    assert task.noise.gain == 0
    assert task.noise.sigma == pytest.approx(0.2, rel=0.2)
    dip.Denoise(darker, noise=PoissonGaussian(0.01), data_range=(-0.3, 1)).load()
    darker[:, 32:] = 9.0
    with pytest.raises(ValueError, match="brighter than its white"), pytest.warns(RuntimeWarning, match="darker"):
        dip.Denoise(darker, noise="poisson").load()
    with pytest.raises(ValueError, match=r"clip it$"):  # no word of photons
        dip.Denoise((5 * around).astype(np.float32)).load()


def test_a_white_that_is_too_low_is_told():
    """Nothing above white is returned, and of counts pixels alone do not tell."""
    few = np.random.default_rng(0).poisson(PHOTOS["camera"] / 255 * 3).astype(np.float32)
    for given in ("poisson", PoissonGaussian(1.0)):
        with pytest.warns(RuntimeWarning, match=r"brighter than its white, 1: .* means up to 2\.\d+, .* data_range="):
            dip.Denoise(few, noise=given).load()
        dip.Denoise(few, noise=given, data_range=3).load()
        with pytest.raises(ValueError, match="brighter than its white"):
            dip.Denoise(few * 50, noise=given).load()


def test_where_noise_grows_without_a_word_it_is_said():
    clean = PHOTOS["coffee"] / 255
    noisy = counts(clean, 0.02).astype(np.float32)
    with pytest.warns(RuntimeWarning, match='seems to grow with its light, from .* noise="poisson"'):
        dip.Denoise(noisy).load()
    for silent in (
        dip.Denoise(noisy, noise="gaussian"),
        dip.Denoise(noisy, noise="poisson"),
        dip.Denoise(dip.degradations.gaussian(clean, 25, seed=0)),
        dip.Denoise(dip.degradations.gaussian(clean, 50, seed=0)),  # much of it cut off at black
        dip.Denoise(clean),
    ):
        silent.load()
    dip.Fit(dip.Denoise(noisy), loss="poisson", **QUICK)  # which is for such noise


def test_noise_that_cannot_be_told_is_taken_for_the_same_everywhere():
    blurred = np.repeat(np.repeat(np.random.default_rng(0).random((40, 40)), 2, 0), 2, 1).astype(np.float32)
    task = dip.Denoise(blurred, noise="poisson")
    with pytest.warns(RuntimeWarning, match="cannot be told from it .* taken for the same everywhere"):
        observation = task.load()
    torch.testing.assert_close(observation.y[0, 0], torch.from_numpy(blurred))
    assert task.noise is None


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("poison", ValueError, "did you mean 'poisson'"),
        (0.1, TypeError, "dip.noise.PoissonGaussian"),
        (PoissonGaussian, TypeError, "dip.noise.PoissonGaussian"),
    ],
)
def test_another_word_for_noise_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        dip.Denoise(picture(), noise=given)


@pytest.mark.parametrize("given", ["poisson", PoissonGaussian(0.1)])
def test_what_looks_at_the_noise_in_another_way_is_refused(given):
    task = dip.Denoise(picture(), noise=given)
    with pytest.raises(ValueError, match="the fit sees it on a scale"):
        dip.Fit(task, loss="poisson", **QUICK)
    with pytest.raises(ValueError, match="noise= says that it grows"):
        dip.Fit(task, stop=dip.stopping.Discrepancy(0.1), **QUICK)
    with pytest.raises(ValueError, match='noise means nothing with backend="trained"'):
        dip.denoise(picture(), noise=given, backend="trained", model="cnn5")
    dip.Fit(dip.Denoise(picture(), noise="gaussian"), loss="poisson", **QUICK)


def test_a_fit_that_found_the_noise_goes_on_with_another_number_of_threads(tmp_path):
    """What is found differs in its last digits then."""
    noisy = (counts(PHOTOS["coffee"] / 255, 0.03) + 1e-3).astype(np.float32)[:96, :96]
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            fit = quick_fit(
                dip.Denoise(noisy, noise="poisson"),
                iters=count,
                checkpoint=tmp_path / "fit.st",
                resume=tmp_path / "fit.st" if count == 2 else None,
            )
            found.append(fit.task.noise)
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]
    assert fit.iteration == 2


def test_noise_that_does_not_grow_is_as_if_nothing_was_said():
    """But for its level, which is known."""
    task = dip.Denoise(picture(), noise=PoissonGaussian(0, 0.1))
    fit = quick_fit(task, stop=dip.stopping.Discrepancy(1e-3, earliest=1))
    np.testing.assert_array_equal(fit.image, quick_fit().image)
    assert task.level == pytest.approx(0.12)


def test_a_checkpoint_knows_the_noise(tmp_path):
    noisy = counts(picture((24, 24, 3)), 0.05).astype(np.float32)

    def task(gain=0.05):
        return dip.Denoise(noisy, noise=PoissonGaussian(gain))

    whole = quick_fit(task(), iters=6)
    quick_fit(task(), iters=3, checkpoint=tmp_path / "fit.st")
    resumed = quick_fit(task(), iters=6, resume=tmp_path / "fit.st")
    np.testing.assert_array_equal(resumed.image, whole.image)
    with pytest.raises(dip.CheckpointError, match="noise: "):
        quick_fit(task(0.06), iters=6, resume=tmp_path / "fit.st")


# ---------------------------------------------------------------------- the command


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clean = (PHOTOS["camera"][:96, :96].astype(float) * 16).astype(np.uint16)
    files.write("clean.png", clean)
    files.write("in.png", np.rint(counts(clean.astype(float), 100.0)).clip(0, 65535).astype(np.uint16))
    return tmp_path


@pytest.mark.usefixtures("here")
def test_the_command_finds_the_noise_and_tells(capsys):
    words = ("--noise", "poisson", "--data-range", 4095, "--json", "r.json", "--reference", "clean.png")
    assert dip_command("denoise", "in.png", "-o", "out.png", *words, *QUICK_WORDS) == 0
    assert "noise of photons of 100 each" in capsys.readouterr().out
    report = json.loads(Path("r.json").read_text())
    assert report["settings"]["noise"].startswith(("PoissonGaussian(gain=100", "PoissonGaussian(gain=99.999"))


@pytest.mark.usefixtures("here")
def test_the_command_takes_what_is_known_of_a_camera():
    words = ("--gain", 100, "--read-noise", 5, "--offset", 3, "--json", "r.json", "--data-range", 4095)
    assert dip_command("denoise", "in.png", "-o", "out.png", "--noise", "poisson", *words, *QUICK_WORDS) == 0
    known = "PoissonGaussian(gain=100.0, sigma=5.0, offset=3.0)"
    assert json.loads(Path("r.json").read_text())["settings"]["noise"] == known


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--gain", 1), "--gain means nothing without --noise poisson"),
        (("--noise", "gaussian", "--gain", 1), "--gain means nothing without --noise poisson"),
        (("--noise", "poisson", "--read-noise", 1), "--read-noise means nothing without --gain"),
        (("--noise", "poisson", "--offset", 1), "--offset means nothing without --gain"),
        (("--noise", "poisson", "--gain", 0), "--gain must be a finite number above 0, not 0"),
        (("--noise", "poisson", "--gain", 1, "--read-noise", -1), "--read-noise must be a finite number of 0 or more"),
        (("--noise", "poisson", "--gain", 1, "--offset", 5000, "--data-range", 4095), "is 1.221 times white"),
        (("--noise", "poisson", "--loss", "poisson"), "--loss"),
    ],
)
def test_the_command_refuses_what_means_nothing(words, told, capsys):
    assert dip_command("denoise", "in.png", "-o", "out.png", *words, *QUICK_WORDS) == 2
    assert told in capsys.readouterr().err
    assert not Path("out.png").exists()


@pytest.mark.usefixtures("here")
def test_the_command_takes_an_offset_without_a_range():
    """It is in the numbers of the file, whose white is that of its type."""
    assert dip_command(
        "denoise", "in.png", "-o", "out.png", "--noise", "poisson", "--gain", 100, "--offset", 50, *QUICK_WORDS
    ) in (0,)
    assert files.read("out.png").pixels.min() >= 50


def test_counts_above_white_beside_a_reference_are_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clean = np.full((40, 40), 0.9, np.float32)
    files.write("clean.tif", clean)
    files.write("in.tif", counts(clean, 1.0).astype(np.float32))
    words = ("--noise", "poisson", "--gain", 1, "--reference", "clean.tif", "--json", "r.json")
    assert dip_command("denoise", "in.tif", "-o", "out.tif", *words, *QUICK_WORDS) == 0
    figures = json.loads(Path("r.json").read_text())["figures"]
    assert figures["psnr"] == pytest.approx(dip.metrics.psnr(files.read("out.tif").pixels, clean), abs=1e-3)
    assert figures["psnr_before"] < 2


@pytest.mark.usefixtures("here")
def test_a_folder_on_workers_and_a_stack_know_of_the_noise(tmp_path):
    import tifffile

    Path("pictures").mkdir()
    for name in ("a.png", "b.png"):
        files.write(f"pictures/{name}", files.read("in.png").pixels[:48, :48])
    words = ("--noise", "poisson", "--gain", 100, "--data-range", 4095, "--json", "r.json", *QUICK_WORDS)
    assert dip_command("denoise", "pictures", "-o", "restored", "--workers", 2, *words) == 0
    entries = json.loads(Path("r.json").read_text())
    assert [one["settings"]["noise"] for one in entries] == [repr(PoissonGaussian(100.0))] * 2
    page = files.read("in.png").pixels[:48, :48]
    tifffile.imwrite("stack.tif", np.stack([page, page]))
    assert dip_command("denoise", "stack.tif", "-o", "done.tif", *words[: -len(QUICK_WORDS) - 2], *QUICK_WORDS) == 0
    made, alike = tifffile.imread("done.tif")[1].astype(int), files.read("restored/a.png").pixels
    assert np.abs(made - alike).max() <= 2  # with another number of threads


@pytest.mark.usefixtures("here")
def test_a_trained_model_is_not_told_what_a_fit_would_do(recwarn):
    """The picture's noise grows, which has no meaning there."""
    assert dip_command("denoise", "in.png", "-o", "out.png", "--backend", "trained", "--model", "cnn5") == 0
    assert not [one for one in recwarn if "grow" in str(one.message)]


@pytest.mark.usefixtures("here")
def test_the_command_has_no_word_of_noise_for_a_trained_model(capsys):
    words = ("--backend", "trained", "--model", "cnn5", "--noise", "poisson")
    assert dip_command("denoise", "in.png", "-o", "out.png", *words) == 2
    assert "--noise means nothing with --backend trained" in capsys.readouterr().err
