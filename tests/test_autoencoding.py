"""The code that is the fit's own average, made consistent with what was observed; what it begins with; such results."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import torch
from small import NET, QUICK, lightly_filtered, picture, quick_fit, with_holes

import dip
from dip import guides
from dip.codes import Autoencoding, Frame

SMALL = {**QUICK, "code": Autoencoding(noise=2, renewed=3)}


def enlarging(**options):
    return dip.SuperResolve(picture((12, 9, 3)), 2, **options)


def as_tensor(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def about_zero(x):
    return x - x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_code_has_its_picture_about_zero_and_noise_beside_it(channels):
    frame, code = Frame.around((20, 29), (32, 32)), Autoencoding(scale=0.5, noise=4, image_channels=channels)
    first = torch.rand(1, channels, 20, 29)
    z = code.draw(frame, torch.Generator().manual_seed(0), first)
    assert z.shape == (1, code.channels, 32, 32) == (1, channels + 4, 32, 32)
    torch.testing.assert_close(frame.crop(z)[:, :channels], 0.5 * about_zero(first))
    assert 0 <= z[:, channels:].min() < 0.01
    assert 0.09 < z[:, channels:].max() <= 0.1


@pytest.mark.parametrize("kernel", ["lanczos2", "box"])
def test_it_is_the_average_again_and_again_corrected(kernel):
    """The correction is worked out by dip.operators.Downsample, which has tests of its own."""
    y, task = as_tensor(picture((12, 9, 3))), enlarging(kernel=kernel)
    operator = dip.operators.Downsample(2, kernel)
    fit = dip.Fit(task, **SMALL)
    code, frame = fit.code.clone(), fit.settings.frame
    scale = 2**0.75  # of twice as high and wide
    torch.testing.assert_close(code[:, :3], scale * frame.extend(about_zero(operator.consistent(None, y))))
    fit.run(3)
    for _ in range(2):
        assert torch.equal(fit.code, code)
        code[:, :3] = scale * frame.extend(about_zero(operator.consistent(fit.current, y)))
        fit.run(1)
        torch.testing.assert_close(fit.code, code)
        code = fit.code.clone()
        fit.run(2)
    kept = dip.fit(task, iters=4, **{**SMALL, "code": Autoencoding(noise=2, renewed=0)})
    assert torch.equal(kept.code, dip.Fit(task, **SMALL).code)


@pytest.mark.parametrize("renewed", [2, 3, 4])  # before the checkpoint, just after it, later
def test_a_resumed_fit_goes_on_bit_for_bit(renewed, tmp_path):
    options = {**SMALL, "code": Autoencoding(noise=2, renewed=renewed), "seed": 1}
    whole = dip.fit(enlarging(), iters=6, **options)
    dip.fit(enlarging(), iters=3, checkpoint=tmp_path / "a.ckpt", **options)
    resumed = dip.fit(enlarging(), iters=6, resume=tmp_path / "a.ckpt", **options)
    assert torch.equal(whole.picture, resumed.picture)
    assert torch.equal(whole.code, resumed.code)


def test_a_code_that_is_optimised_is_left_alone():
    fit = dip.fit(enlarging(), iters=5, optimize_code=True, lr=1e-4, **SMALL)
    assert (fit.code - dip.Fit(enlarging(), **SMALL).code).abs().max() < 1e-3


def test_the_presets_jitter_is_for_its_own_code():
    def jitter(**options):
        return dip.Fit(enlarging(), preset="fast", **options).settings.jitter

    assert jitter() == jitter(code=Autoencoding(noise=2)) == 0.3
    assert jitter(code="uniform") == 0.03
    assert jitter(code="uniform", jitter=0.2) == 0.2


def test_in_crops_it_is_renewed_once_for_all_tiles():
    small, codes = picture((36, 50, 3)), []
    options = {"tile": 48, "network": NET, "code": Autoencoding(noise=2, renewed=2), "progress": False}
    keep = [lambda fit: codes.append(fit.code.clone())]
    fit = dip.fit(dip.SuperResolve(small, 2), iters=100, callbacks=keep, **options)
    assert (fit.settings.tiles, fit._view.frozen_at) == (6, 50)
    assert [i for i in range(1, 100) if not torch.equal(codes[i], codes[i - 1])] == [12, 24, 36, 48]


# ---------------------------------------------------------------------- missing pixels


@pytest.mark.parametrize("shape", [(19, 14), (16, 16, 3)])
def test_of_missing_pixels_it_is_the_average_with_the_known_ones_put_back(shape):
    task, weight = with_holes(shape)
    fit = dip.Fit(task, **{**SMALL, "code": Autoencoding(scale=0.5, noise=2, renewed=3)})
    frame, channels = fit.settings.frame, fit.y.shape[1]
    first = guides.inpainted(fit.y, weight)
    torch.testing.assert_close(fit.code[:, :channels], 0.5 * frame.extend(about_zero(first)))
    noise = fit.code[:, channels:].clone()
    fit.run(3)
    mixed = lightly_filtered(fit.current, fit.y, weight)
    fit.run(1)
    torch.testing.assert_close(fit.code[:, :channels], 0.5 * frame.extend(about_zero(mixed)))
    assert torch.equal(fit.code[:, channels:], noise)


@pytest.mark.parametrize("tile", [None, 32])
def test_a_picture_that_grows_has_its_scale_after_so_many_iterations(tile):
    task, weight = with_holes((40, 36))
    code = Autoencoding(scale=0.5, noise=2, renewed=2, grown=4)
    fit = dip.Fit(task, **{**SMALL, "code": code, "tile": tile})
    frame, channels, tiles = fit.settings.frame, fit.y.shape[1], fit.settings.tiles
    assert (tiles > 1) == bool(tile)
    assert not fit.code[:, :channels].any()
    for scale in (0.25, 0.5, 0.5):  # it stops growing
        while fit.iteration % (2 * tiles) or not fit.iteration:
            fit.step()
        mixed = lightly_filtered(fit.current, fit.y, weight)
        fit.step()
        torch.testing.assert_close(fit.code[:, :channels], scale * frame.extend(about_zero(mixed)))


def test_the_code_has_the_known_pixels_also_where_the_result_has_not():
    codes = [dip.fit(with_holes(keep_known=keep)[0], iters=4, **SMALL).code for keep in (True, False)]
    assert torch.equal(*codes)


def test_a_resumed_fit_of_missing_pixels_goes_on_bit_for_bit(tmp_path):
    options = {**SMALL, "code": Autoencoding(noise=2, renewed=2, grown=6)}
    whole = dip.fit(with_holes()[0], iters=9, **options)
    dip.fit(with_holes()[0], iters=3, checkpoint=tmp_path / "a.ckpt", **options)
    resumed = dip.fit(with_holes()[0], iters=9, resume=tmp_path / "a.ckpt", **options)
    assert torch.equal(whole.picture, resumed.picture)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (16, 16), (17, 30), (31, 5)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [0.02, 0.5, 1])
def test_what_is_filled_in_is_between_the_known_values(size, channels, share):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, channels, *size, generator=generator)
    weight = (torch.rand(1, 1, *size, generator=generator) < share).float()
    weight[..., size[0] // 2, size[1] // 2] = 1  # one at least
    known = weight[0, 0] > 0
    full = guides.filled(x, weight)
    assert torch.equal(full[..., known], x[..., known])
    low, high = x[..., known].amin(-1), x[..., known].amax(-1)
    assert (full.amin((2, 3)) >= low - 1e-6).all()
    assert (full.amax((2, 3)) <= high + 1e-6).all()
    assert torch.equal(full, guides.filled(torch.where(known, x, 7.0), weight))  # whatever the missing ones hold


def test_weights_mix_what_was_given_with_what_is_about_it():
    weight = torch.ones(1, 1, 9, 9)
    x = torch.zeros(1, 1, 9, 9)
    x[..., 4, 4], weight[..., 4, 4] = 1.0, 0.25
    full = guides.filled(x, weight)
    assert 0.25 < full[..., 4, 4] < 0.5  # a quarter, and what it says of itself
    assert full.sum() == full[..., 4, 4]
    flat = guides.filled(torch.full((1, 2, 9, 9), 0.3), torch.rand(1, 1, 9, 9, generator=torch.manual_seed(0)))
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


@pytest.mark.parametrize("hole", [5, 20, 60])
def test_a_hole_in_a_slope_is_filled_smoothly(hole):
    """Nearer than the mean of what is known, or the nearest pixel, would be."""
    slope = torch.linspace(0, 1, 64).expand(1, 1, 64, 64).contiguous()
    weight = torch.ones_like(slope)
    start = 32 - hole // 2
    weight[..., start : start + hole, start : start + hole] = 0
    inside = weight == 0
    full = guides.filled(slope, weight)
    nearest = scipy.ndimage.distance_transform_edt(inside[0, 0], return_distances=False, return_indices=True)
    error, flat = ((full - slope)[inside].square().mean(), (slope.mean() - slope)[inside].square().mean())
    copied = torch.from_numpy(slope[0, 0].numpy()[tuple(nearest)])
    assert error < 0.7 * min(flat, (copied - slope[0, 0]).square()[inside[0, 0]].mean())
    assert full.diff(dim=2).abs().max() < 3 / hole
    assert full.diff(dim=3).abs().max() < 3 / hole


# ---------------------------------------------------------------------- results that come down to what was given


@pytest.mark.parametrize("kernel", ["lanczos2", "lanczos3", "box", "gaussian"])
@pytest.mark.parametrize("phase", [0, 0.5])
def test_the_result_comes_nearer_to_the_small_picture(kernel, phase):
    small = 0.2 + 0.6 * picture((12, 9, 3))  # so that nothing of the corrected picture is cut off
    operator = dip.operators.Downsample(3, kernel, phase=phase)
    results = []
    for consistent in (False, True):
        fit = dip.fit(dip.SuperResolve(small, 3, kernel=kernel, phase=phase), iters=30, consistent=consistent, **QUICK)
        results.append((operator(as_tensor(fit.image)) - as_tensor(small)).square().mean().sqrt())
        expected = fit.current + consistent * operator.enlarge(fit.y - operator(fit.current))
        torch.testing.assert_close(as_tensor(fit.image), expected, rtol=0, atol=1e-5)
    assert results[1] < 0.4 * results[0]
    assert results[0] > 0.02


def test_what_is_recorded_is_of_the_corrected_picture_and_the_fit_is_the_same():
    clean = picture((24, 18, 3), seed=1)
    fits = [quick_fit(enlarging(), reference=clean, consistent=consistent) for consistent in (False, True)]
    assert torch.equal(fits[0].current, fits[1].current)
    for fit in fits:
        error = (as_tensor(fit.image) - as_tensor(clean)).square().mean()
        assert fit.history["psnr"][-1] == pytest.approx(float(-10 * torch.log10(error)), abs=1e-3)
    assert fits[0].history["psnr"][-1] != fits[1].history["psnr"][-1]
    assert fits[1].image.min() >= 0
    assert fits[1].image.max() <= 1


def test_both_are_refused_where_they_mean_nothing():
    noisy, (holes, _) = dip.Denoise(picture()), with_holes()
    for task, option, words in (
        (noisy, {"code": "autoencoding"}, r"Autoencoding\(.* is for tasks that can correct a picture, all but denoise"),
        (
            holes,
            {"consistent": True},
            "consistent=True is for tasks that can correct a picture, all but inpaint$",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            dip.Fit(task, **{**QUICK, **option})
    with pytest.raises(TypeError, match="consistent"):
        dip.Fit(enlarging(), **QUICK, consistent="yes")
    with pytest.raises(ValueError, match="drawn from a first picture"):
        Autoencoding().draw(Frame.around((8, 8), (8, 8)), torch.Generator())
    with pytest.raises(ValueError, match=r"grown=9: .*never renewed"):
        Autoencoding(renewed=0, grown=9)
    for wrong in ({"scale": 0}, {"noise": -1}, {"renewed": 2.5}, {"grown": -1}):
        with pytest.raises((ValueError, TypeError), match=f"{next(iter(wrong))} must be"):
            Autoencoding(**wrong)


@pytest.mark.parametrize(("factor", "size", "iters"), [(2, 128, 150), (4, 96, 100), (8, 96, 100)])
def test_the_fast_preset_is_ahead_of_interpolation_and_of_back_projection(factor, size, iters):
    """Its picture is more than what it is shown at first."""
    clean = as_tensor(skimage.data.coffee()[100 : 100 + size, 200 : 200 + size] / np.float32(255))
    operator = dip.operators.Downsample(factor)
    y = operator(clean)
    restored = dip.super_resolve(y, factor, preset="fast", iters=iters)
    pictures = (operator.enlarge(y), operator.consistent(None, y), restored)
    errors = [float((x.clamp(0, 1) - clean).square().mean()) for x in pictures]
    assert errors[2] < 0.95 * errors[1] < errors[1] < errors[0]
    assert (operator(restored) - y).abs().mean() < 4e-3
