"""Pictures that use little of their range: a fit sees them in a range of their own."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio
from small import NET, QUICK, assert_equal_states, picture, quick_fit, trained_state

import dip

MASK = dip.degradations.random_mask((16, 16), 0.6, seed=0)
LARGE = dip.degradations.random_mask((88, 88), 0.6, seed=0)
LOSSES = dip.losses


def noisy(times=1.0, above=0.0, size=16):
    """What uses less than all of its range, with noise; of powers of two the same but for them."""
    return (picture((size, size, 3)) * np.float32(times) + np.float32(above)).astype(np.float32)


def task_of(kind, image):
    if kind == "denoise":
        return dip.Denoise(image, data_range=1.0)
    return dip.Inpaint(image, MASK if len(image) == 16 else LARGE, data_range=1.0)


@pytest.mark.parametrize(
    ("kind", "preset", "size"),
    [
        ("denoise", "paper", 16),
        ("denoise", "fast", 16),
        ("inpaint", "paper", 16),
        ("inpaint", "fast-sparse", 16),
        ("inpaint", "fast", 88),
    ],
)
@pytest.mark.usefixtures("few_turns")
def test_a_picture_is_fitted_alike_however_dark_it_is(kind, preset, size):
    """Between powers of two nothing is rounded another way."""
    options = {"preset": preset, "iters": 4, "progress": False, "precision": "float32", "network": NET}
    one, other = (dip.fit(task_of(kind, noisy(1 / times, size=size)), **options) for times in (4, 64))
    assert torch.equal(one.y, other.y)
    np.testing.assert_array_equal(one.history["loss"], other.history["loss"])
    np.testing.assert_array_equal(one.image, 16 * other.image)


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_the_range_is_that_of_what_is_known(kind):
    image = noisy(1 / 8, 0.5)
    fit = quick_fit(task_of(kind, image))
    seen = image if kind == "denoise" else image[MASK]
    more = 0.0 if kind == "denoise" else 0.1
    low, span = seen.min() - more * np.ptp(seen), (1 + 2 * more) * np.ptp(seen)
    expected = (image - low) / span * (1 if kind == "denoise" else MASK[..., None])
    np.testing.assert_allclose(fit.y[0].movedim(0, -1), expected, atol=2e-5)
    made = fit.current[0].movedim(0, -1).numpy() * span + low
    if kind == "inpaint":
        made = np.where(MASK[..., None], image, made)
    np.testing.assert_allclose(
        fit.image, np.clip(made, *((image.min(), image.max()) if not more else (0, 1))), atol=1e-6
    )


def test_what_is_nowhere_beyond_black_or_white_is_not_looked_for_there():
    """Missing pixels may be brighter than those that are known, but not than white."""
    image = noisy(1 / 8)
    image -= image.min()
    assert quick_fit(dip.Inpaint(image, MASK, data_range=1.0)).y[0, :, torch.from_numpy(MASK)].min() == 0
    low, high = image[MASK].min(), image[MASK].max()
    bright = image + (1 - high)
    y = quick_fit(dip.Inpaint(bright, MASK, data_range=1.0)).y
    assert float(y.max()) == pytest.approx(1, abs=1e-5)
    assert float(y[0, :, torch.from_numpy(MASK)].min()) == pytest.approx(0.1 / 1.1, abs=1e-3)
    assert low < 0.02


@pytest.mark.parametrize(
    "image",
    [noisy(), noisy(0.9), np.full((16, 16), 0.25, np.float32), np.zeros((16, 16), np.float32)],
    ids=["bright", "less bright", "gray", "black"],
)
def test_other_pictures_are_left_as_they_are(image):
    fit = quick_fit(dip.Denoise(image, data_range=1.0), iters=1)
    torch.testing.assert_close(fit.y[0].movedim(0, -1).numpy(), image.reshape(16, 16, -1), rtol=0, atol=0)


def test_missing_pixels_do_not_tell_the_range():
    image, hot = noisy(1 / 8), noisy(1 / 8)
    hot[~MASK] = 0.9
    for make in (
        lambda one: dip.Denoise(one, mask=MASK, data_range=1.0),
        lambda one: dip.Inpaint(one, MASK, data_range=1.0),
    ):
        one, other = (quick_fit(make(given), iters=2) for given in (image, hot))
        known = torch.from_numpy(MASK)
        assert torch.equal(one.y[..., known], other.y[..., known])
        assert float(one.y[..., known].max()) > 0.85


class Linear(torch.nn.Conv2d):
    """A network of one's own."""

    def __init__(self):
        super().__init__(8, 3, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": LOSSES.Huber()},
        {"loss": "poisson"},
        {"loss": lambda prediction, y: (prediction - y).abs().mean()},
        {"penalty": LOSSES.TotalVariation(1e-3)},
        {"stop": dip.stopping.Discrepancy(0.02, earliest=1)},
        {"code": dip.codes.Denoised(level=0.02)},
        {"network": Linear()},
    ],
    ids=["huber", "poisson", "own loss", "penalty", "discrepancy", "level", "own network"],
)
def test_what_is_told_in_units_of_white_means_that(options):
    image = noisy(1 / 8)
    task = dip.Denoise(image, data_range=1.0)
    fit = quick_fit(task, iters=1, **options)
    np.testing.assert_array_equal(fit.y[0].movedim(0, -1), image)
    again = quick_fit(task, iters=1)  # the same task, without
    assert float(again.y.max()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_psnr_is_that_of_the_picture(kind):
    image, clean = noisy(1 / 8), noisy(1 / 8) + np.float32(0.01)
    fit = quick_fit(task_of(kind, image), reference=clean)
    expected = peak_signal_noise_ratio(clean.astype(float), fit.image.astype(float), data_range=1)
    assert fit.history["psnr"][-1] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_known_pixels_come_back_bit_by_bit(dtype):
    image = picture((16, 16, 3), dtype, white=np.iinfo(dtype).max // 9)
    made = quick_fit(dip.Inpaint(image, MASK, data_range=np.iinfo(dtype).max)).image
    np.testing.assert_array_equal(made[MASK], image[MASK])
    assert made.dtype == dtype
    assert made.max() < np.iinfo(dtype).max // 4


def sharper(kind, image, **options):
    if kind == "deblur":
        return dip.Deblur(image, dip.operators.gaussian_psf(1.0), data_range=1.0, **options)
    return dip.SuperResolve(image, 2, data_range=1.0)


@pytest.mark.parametrize("kind", ["deblur", "super_resolve"])
@pytest.mark.parametrize("above", [0.0, 0.5])
def test_of_blurred_and_small_pictures_the_range_is_that_of_sharper_ones(kind, above):
    image = gaussian_filter(noisy(1 / 8, above), (1, 1, 0))
    one, other = (
        quick_fit(sharper(kind, (given + above).astype(np.float32))) for given in (image - above, image / 8 - above / 8)
    )
    low, high = float(one.y.min()), float(one.y.max())
    assert 0 <= low < 0.45
    assert 0.5 < high < 0.95
    assert (
        float(torch.corrcoef(torch.stack([one.y.flatten(), torch.from_numpy(image).permute(2, 0, 1).flatten()]))[0, 1])
        > 0.9999
    )
    torch.testing.assert_close(other.y, one.y, rtol=0, atol=1e-3)
    clean = one.task.compose(one.current)
    assert image.min() - 0.2 < float(clean.min()) <= float(clean.max()) < image.max() + 0.2
    np.testing.assert_allclose(one.image, clean[0].movedim(0, -1), atol=1e-6)


@pytest.mark.parametrize("kind", ["deblur", "super_resolve"])
def test_points_of_light_may_be_brighter_than_all_that_was_seen(kind):
    stars = np.zeros((32, 32), np.float32)
    stars[[5, 9, 20, 27], [7, 22, 11, 28]] = 0.4, 0.9, 0.6, 0.5
    forward = sharper(kind, stars)._operator
    seen = forward(torch.from_numpy(stars)[None, None])[0, 0].numpy()
    assert seen.max() < 0.45
    fit = quick_fit(sharper(kind, seen), iters=1)
    np.testing.assert_array_equal(fit.y[0, 0], seen)


def test_beyond_the_border_black_stays_black():
    image = gaussian_filter(noisy(1 / 8, 0.3), (1, 1, 0))
    fit = quick_fit(sharper("deblur", image, boundary="zero"), iters=1)
    np.testing.assert_allclose(fit.y[0].movedim(0, -1) / float(fit.y.max()), image / image.max(), atol=1e-6)


def test_the_damping_of_a_dark_picture_is_that_of_a_bright_one():
    """Its noise is as much weaker."""
    clean = gaussian_filter(skimage.data.camera()[180:276, 180:276] / 255.0, 1.0)
    clean = (clean - clean.min()) / np.ptp(clean)
    y = clean + np.random.default_rng(0).normal(0, 0.01, clean.shape)
    options = {**QUICK, "loss": "back-projection", "iters": 1}
    bright, dark = (dip.fit(sharper("deblur", (y / times).astype(np.float32)), **options) for times in (1, 8))
    ours, theirs = (fit.task._known_damping for fit in (dark, bright))
    span = float(bright.y.max() - bright.y.min()) / float(dark.y.max() - dark.y.min())
    assert 1 < span < 2.5
    assert ours == pytest.approx(theirs / span**2, rel=0.1)


def test_noise_that_grows_with_the_light_is_as_strong_as_is_said():
    """On the scale of the fit, which is stretched after the noise was made the same everywhere."""
    clean = np.kron(np.linspace(0.02, 0.1, 64), np.ones((64, 4))).astype(np.float32).reshape(64, 256)
    counts = dip.degradations.poisson(clean, 2000, seed=0, clip=False)
    model = dip.noise.PoissonGaussian(1 / 2000)
    fit = quick_fit(dip.Denoise(counts, noise=model, data_range=1.0), iters=1)
    apart = torch.diff(fit.y[0, 0], dim=0).flatten() / 2**0.5  # rows are alike but for their noise
    assert float(fit.y.max() - fit.y.min()) == pytest.approx(1, abs=1e-3)
    assert fit.task.level == pytest.approx(float(apart.std()) * dip.noise.level.MORE, rel=0.05)
    assert 0.015 < float(np.mean(fit.image)) < 0.11


def test_a_fit_goes_on_from_its_checkpoint(tmp_path):
    image = noisy(1 / 8)
    whole = quick_fit(dip.Denoise(image, data_range=1.0), iters=6)
    half = quick_fit(dip.Denoise(image, data_range=1.0), iters=3)
    half.save(tmp_path / "half")
    gone_on = dip.Fit(dip.Denoise(image, data_range=1.0), **QUICK).load(tmp_path / "half")
    gone_on.run(3)
    assert_equal_states(trained_state(whole), trained_state(gone_on))
    np.testing.assert_array_equal(whole.image, gone_on.image)
