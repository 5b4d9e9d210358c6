"""Noise that was clipped at black and white: what is found of it, and what "fast" makes of it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio
from test_cli import dip_command, here  # noqa: F401  (a folder of its own for each test)

import dip
from dip import benchmark, noise
from dip.noise import Clipped, PoissonGaussian, clipped, clipping, noise_level


def photograph(name: str, side: int = 128) -> np.ndarray:
    """Return the middle of a photograph of scikit-image, (H, W) or (H, W, 3), floats in [0, 1]."""
    pixels = getattr(skimage.data, name)()
    top, left = ((extent - side) // 2 for extent in pixels.shape[:2])
    return pixels[top : top + side, left : left + side] / 255


def dark(name: str, side: int = 128) -> np.ndarray:
    """Return the same, so dark that most of it is black."""
    return np.clip(2 * photograph(name, side) - 1.1, 0, 1)


def noisy(clean: np.ndarray, sigma: float, *, clip: bool = True, seed: int = 0) -> np.ndarray:
    y = clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)
    return (np.clip(y, 0, 1) if clip else y).astype(np.float32)


def as_tensor(picture: np.ndarray) -> torch.Tensor:
    planes = picture[None] if picture.ndim == 2 else np.moveaxis(picture, -1, 0)
    return torch.from_numpy(np.ascontiguousarray(planes, np.float32))[None]


def a_model(sigma: float, clipped: list[list[bool]]) -> Clipped:
    channels = len(clipped[0])
    return Clipped(sigma, torch.zeros(channels).double(), torch.ones(channels).double(), torch.tensor(clipped))


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
@pytest.mark.parametrize(("low", "high"), [(True, True), (True, False), (False, True), (False, False)])
def test_moments_are_those_of_a_clipped_normal_variable(sigma, low, high):
    x = torch.tensor([[0.0, 0.03, 0.4, 0.91, 1.0]], dtype=torch.float64)
    mean, deviation, there = a_model(sigma, [[low], [high]]).moments(x)
    first, last = (0 if low else -np.inf), (1 if high else np.inf)
    n = np.linspace(-9 * sigma, 9 * sigma, 200_001)
    weights = stats.norm.pdf(n, scale=sigma) * (n[1] - n[0])
    for i, light in enumerate(x[0].tolist()):
        y = np.clip(light + n, first, last)
        expected = float(weights @ y)
        assert float(mean[0, i]) == pytest.approx(expected, abs=1e-6)
        assert float(deviation[0, i]) == pytest.approx(float(np.sqrt(weights @ (y - expected) ** 2)), abs=1e-5)
        for found, end in zip(there[:, 0, i].tolist(), (first - light, light - last), strict=True):
            assert found == pytest.approx(stats.norm.cdf(end / sigma), abs=1e-9)


def test_the_inverse_leads_back_from_the_means_channel_by_channel():
    model = a_model(0.2, [[True, False, True], [True, False, False]])
    x = torch.linspace(0, 1, 300, dtype=torch.float64).repeat(3, 1)
    means = model.moments(x)[0]
    assert float((means - x)[0].abs().max()) == pytest.approx(0.2 / np.sqrt(2 * np.pi), rel=1e-3)
    back = model.inverse(means.float().reshape(1, 3, 20, 15))
    assert back.shape == (1, 3, 20, 15)
    assert float((back.reshape(3, -1) - x).abs().max()) < 2e-6
    for beyond, expected in ((-1.0, [0, -1, 0]), (2.0, [1, 2, 2])):  # it stays where nothing was clipped
        assert model.inverse(torch.full((1, 3, 1, 1), beyond)).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_channel_of_one_value_stays_as_it_is():
    model = Clipped(0.1, torch.tensor([0.0, 0.3]).double(), torch.tensor([1.0, 0.3]).double(), torch.ones(2, 2) > 0)
    back = model.inverse(torch.full((1, 2, 3, 3), 0.3))
    assert torch.allclose(back[0, 1], torch.tensor(0.3))


def test_means_and_variances_from_before_clipping_are_found():
    x, sigma, white = np.array([0.2, 0.5, 0.9, 1.0]), np.array([0.05, 0.3, 0.1, 0.2]), 1.0
    y = np.minimum(x + sigma * np.random.default_rng(0).standard_normal((1_000_000, 4)), white)
    before = clipped.unclipped(torch.from_numpy(y.mean(0)), torch.from_numpy(y.var(0)), white)
    np.testing.assert_allclose(before[0], x, atol=2e-3)
    np.testing.assert_allclose(before[1], sigma**2, rtol=0.02)
    assert before[2][:3].all()
    all_white = clipped.unclipped(torch.tensor([0.999]).double(), torch.tensor([1e-4]).double(), white)
    assert not all_white[2].any()


@pytest.mark.parametrize("sigma", [15 / 255, 25 / 255, 50 / 255])
@pytest.mark.parametrize("clean", [dark("camera"), dark("astronaut"), photograph("coffee"), photograph("astronaut")])
def test_the_level_is_that_before_the_noise_was_clipped(clean, sigma):
    y = as_tensor(noisy(clean, sigma))
    found = clipping(y)
    assert found is not None
    assert found.sigma == pytest.approx(sigma, rel=0.13)
    assert noise_level(y) == pytest.approx(sigma, rel=0.13)
    assert noise.by_mask(y) < 0.93 * found.sigma  # what does not know of it
    told = clipping(y, sigma=sigma)
    assert told is not None
    assert told.sigma == sigma


def test_8_bits_are_clipped_as_floats_are():
    y = noisy(dark("astronaut"), 25 / 255)
    found, rounded = clipping(as_tensor(y)), clipping(as_tensor(np.round(y * 255) / 255))
    assert found is not None
    assert rounded is not None
    assert rounded.sigma == pytest.approx(found.sigma, rel=0.03)
    assert torch.equal(rounded.clipped[0], torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("name", ["camera", "astronaut", "coffee", "moon", "page"])
def test_what_was_not_clipped_is_not_taken_for_it(name):
    clean = photograph(name)
    assert clipping(as_tensor(clean)) is None
    assert clipping(as_tensor(noisy(clean, 0.1, clip=False))) is None
    assert clipping(as_tensor(noisy(0.4 + 0.2 * clean, 0.05))) is None  # nothing is near an end
    photons = np.random.default_rng(0).poisson(80 * clean) / 80
    assert clipping(as_tensor(photons)) is None
    # of noise that is the same everywhere below a bright end that was cut off without any
    cut = np.minimum(noisy(0.1 + 0.8 * clean, 0.03, clip=False), 0.5)
    told = clipping(as_tensor(cut))
    assert told is None or not told.clipped[0].any()


def test_small_flat_and_few_known_pixels_are_no_matter():
    y = as_tensor(noisy(dark("camera"), 0.1))
    assert clipping(y[..., :4, :4]) is None
    assert clipping(torch.zeros(1, 3, 32, 32)) is None
    few = torch.zeros(128, 128, dtype=torch.bool)
    few[::2] = True
    assert clipping(y, few) is None


def test_pixels_that_are_not_known_do_not_count():
    y = as_tensor(noisy(dark("camera"), 0.1))
    known = torch.ones(128, 128, dtype=torch.bool)
    known[40:60, 30:90] = False
    found = clipping(y, known)
    assert found is not None
    spoilt = torch.where(known, y, -7.0)
    other = clipping(spoilt, known)
    assert other is not None
    assert other.sigma == found.sigma
    assert torch.equal(other.first, found.first)
    assert found.sigma == pytest.approx(0.1, rel=0.1)


def fitted(task: dip.Denoise, iters: int = 60, **options) -> dip.Fit:
    return dip.fit(task, preset="fast", iters=iters, seed=0, progress=False, **options)


@pytest.fixture
def nothing_given_back(monkeypatch):
    """Let what a fit has left be noise, whatever it is."""
    monkeypatch.setattr("dip.denoising.more_than_noise", lambda rest, sigma, known: torch.zeros_like(rest))


@pytest.mark.usefixtures("nothing_given_back")
def test_fast_gives_black_back():
    clean = dark("camera", 80)
    y = noisy(clean, 25 / 255)

    def as_fitted(fit: dip.Fit) -> np.ndarray:
        return fit.task.compose(fit.current)[0, 0].numpy()

    np.testing.assert_array_equal(
        fitted(dip.Denoise(y), 3, consistent=False).image, as_fitted(fitted(dip.Denoise(y), 3))
    )
    fit = fitted(dip.Denoise(y), 250, reference=clean.astype(np.float32))
    before = as_fitted(fit)
    assert fit.task.clipped is not None
    found, without = (peak_signal_noise_ratio(clean, one, data_range=1) for one in (fit.image, before))
    assert found > without + 1
    assert fit.history["psnr"][-1] == pytest.approx(found, abs=0.01)  # of the picture that is returned
    black = clean == 0
    assert np.median(fit.image[black]) < 0.3 * np.median(before[black])
    bright = clean > 0.4  # where there is no end nearby nothing changes
    assert np.abs(fit.image - before)[bright & (before > 0.4) & (before < 0.6)].max() < 1e-3


@pytest.mark.usefixtures("nothing_given_back")
@pytest.mark.parametrize(
    ("task", "options"),
    [
        (lambda y: dip.Denoise(noisy(dark("camera", 64), 0.1, clip=False)), {}),
        (lambda y: dip.Denoise(y), {"loss": "l1"}),
        (lambda y: dip.Denoise(y, noise=PoissonGaussian(1 / 50, 0.05)), {}),
    ],
    ids=["not clipped", "the median is the picture", "it grows with the light"],
)
def test_nothing_is_undone_where_the_mean_is_no_other(task, options):
    y = noisy(dark("camera", 64), 0.1)
    found, as_fitted = (fitted(task(y), 3, **options, **leave).image for leave in ({}, {"consistent": False}))
    np.testing.assert_array_equal(found, as_fitted)


def test_it_is_not_undone_of_what_comes_to_no_mean():
    with pytest.raises(ValueError, match=r"consistent=True undoes .* loss=L1\(\) comes to no mean; leave out"):
        dip.Fit(dip.Denoise(noisy(dark("camera", 64), 0.1)), preset="fast", loss="l1", consistent=True)


def test_what_is_all_white_or_hardly_a_picture_is_fitted_all_the_same():
    white = np.clip(1.05 + 0.1 * np.random.default_rng(0).standard_normal((100, 100)), 0, 1).astype(np.float32)
    assert np.mean(white == 1) > 0.6
    for y in (white, np.uint8([[0, 60], [120, 180]]), np.zeros((2, 40), np.uint8)):
        for noise_ in (None, "poisson"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit = fitted(dip.Denoise(y, noise=noise_), 1)
            assert np.isfinite(np.float64(fit.image)).all()


def test_pixels_that_are_half_known_may_be_brighter_than_those_that_are_known():
    clean = np.where(np.arange(96) < 64, 0.5 * dark("camera", 96), 0.9).astype(np.float32)
    y, weight = noisy(clean, 0.05), np.where(np.arange(96) < 64, 1, 0.5) * np.ones((96, 1))
    task = dip.Denoise(y, mask=weight)
    dip.Fit(task, preset="fast", progress=False)
    assert task.clipped is not None
    assert float(task.clipped.last.max()) < 0.9
    bright = torch.full((1, 1, 4, 4), 0.9)
    assert torch.allclose(task.unbiased(bright, bright), bright, atol=1e-4)


def test_what_is_known_of_too_few_pixels_is_no_reason_to_lose_a_fit():
    known = np.zeros((66, 66), bool)
    known[::3, ::3] = True
    task = dip.Denoise(noisy(dark("camera", 66), 0.1), mask=known)
    fit = fitted(task, 1, code=dip.codes.Denoised(level=0.1))
    assert fit.image.shape == (66, 66)
    assert task.clipped is None
    with pytest.raises(ValueError, match="hardly any known pixels"):
        noise_level(torch.rand(1, 1, 32, 32), torch.zeros(32, 32, dtype=torch.bool))


@pytest.mark.parametrize("name", ["camera", "astronaut", "moon"])
def test_few_photons_that_nobody_says_anything_of_are_left_alone(name):
    y = (np.random.default_rng(0).poisson(5 * photograph(name, 64)) / 5).astype(np.float32)
    task = dip.Denoise(y, data_range=1)
    fitted(task, 1)
    assert task.clipped is None
    dark_8_bits = np.round(255 * noisy(dark(name, 64), 0.1)).astype(np.uint8)
    task = dip.Denoise(dark_8_bits)
    fitted(task, 1)
    assert task.clipped is not None


def test_a_level_that_is_told_is_taken():
    y = noisy(dark("camera", 64), 0.1)
    task = dip.Denoise(y, noise=PoissonGaussian(0, 0.09))
    fitted(task, 1)
    assert task.clipped is not None
    assert task.clipped.sigma == pytest.approx(0.09, rel=1e-6)


def saturated(clean: np.ndarray, photons: int) -> np.ndarray:
    counts = np.random.default_rng(0).poisson(clean * photons)
    return np.minimum(counts / photons, 1).astype(np.float32)


@pytest.mark.parametrize("photons", [20, 80])
@pytest.mark.parametrize("name", ["retina", "coffee", "coins"])
def test_the_gain_is_found_though_white_was_cut_off(name, photons):
    clean = np.clip(1.4 * photograph(name), 0, 1)
    y = saturated(clean, photons)
    y += np.where(y < 1, np.random.default_rng(1).uniform(-1e-4, 1e-4, clean.shape), 0)  # no counts can be told
    model = noise.found(as_tensor(np.minimum(y, 1)))
    assert model is not None
    middle = float(np.median(clean))
    assert model.variance(middle) == pytest.approx(middle / photons, rel=0.15)


def test_fast_gives_white_back_of_few_photons():
    clean = np.clip(2 * photograph("coffee", 64), 0, 1)
    y = saturated(clean, 20)
    fit = fitted(dip.Denoise(y, noise=PoissonGaussian(1 / 20)), 150)
    before = fit.task.output(fit.task.compose(fit.picture))
    found, as_fitted = (peak_signal_noise_ratio(clean, one, data_range=1) for one in (fit.image, before))
    at_black, at_white = fit.task.clipped.clipped
    assert not at_black.any()
    assert at_white.any()
    assert found > as_fitted + 1


@pytest.mark.usefixtures("nothing_given_back")
def test_the_papers_preset_does_not_undo_it_unless_it_is_asked_to():
    y = noisy(dark("camera", 64), 0.1)
    small = {"down": [8, 8], "up": [8, 8], "skip": [4, 4]}
    gray = torch.full((1, 1, 64, 64), 0.06)
    plain, asked = (dip.Fit(dip.Denoise(y), network=small, consistent=one, progress=False) for one in (False, True))
    assert torch.equal(plain.compose(gray), gray)
    x = asked.compose(gray).flatten(1).double()
    assert float(x.mean()) < 0.045
    assert asked.task.clipped.moments(x)[0] == pytest.approx(0.06, abs=1e-5)


def test_the_command_line_says_so_and_can_leave_it(tmp_path, capsys):
    y = (255 * noisy(dark("camera", 64), 0.1)).round().astype(np.uint8)
    dip.files.write("noisy.png", y)
    words = ("denoise", "noisy.png", "--preset", "fast", "--iters", 2, "--seed", 0)
    assert dip_command(*words, "-o", "a.png", "--json", "a.json") == 0
    assert "64 x 64 gray pixels (height x width), noise that was clipped; preset fast" in capsys.readouterr().out
    assert dip_command(*words, "-o", "b.png", "--no-consistent") == 0
    assert "noise that was clipped" not in capsys.readouterr().out
    assert json.loads(Path("a.json").read_text())["settings"]["consistent"] is True
    assert dip_command("denoise", "noisy.png", "-o", "c.png", "--backend", "trained", "--consistent") == 2
    assert "--consistent" in capsys.readouterr().err


def test_rivals_may_have_it_undone_too():
    clean = dark("camera").astype(np.float32)
    case = benchmark.Case(y=noisy(clean, 25 / 255), clean=clean, problem=lambda case: None, sigma=25 / 255)
    results = [one.function(case, **one.options) for one in (benchmark.find(name) for name in ("tv", "tv+declipped"))]
    before, after = (peak_signal_noise_ratio(clean, np.clip(one, 0, 1), data_range=1) for one in results)
    assert after > before + 1
    with pytest.raises(ValueError, match="told the level of the noise, and fast is not"):
        benchmark.find("fast+declipped")
