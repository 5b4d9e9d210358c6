"""The code made of a noisy picture, against scikit-image and known noise."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from scipy.fft import dctn, idctn
from skimage import restoration
from skimage.restoration import inpaint_biharmonic
from small import NET, QUICK, picture, quick_fit
from torch.overrides import TorchFunctionMode

import dip
from dip import groups, guides, wiener
from dip.codes import Denoised, Frame
from dip.noise import noise_level


def as_tensor(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def test_filters_leave_a_picture_without_noise_alone():
    y, x = np.mgrid[:20, :30]
    ramp = as_tensor((0.01 * x + 0.02 * y)[..., None])
    for made in guides.denoised(ramp, 0.0):  # the filters go on beyond the border in their own ways
        torch.testing.assert_close(made, ramp, rtol=0, atol=0.02)


def test_the_denoisers_are_scikit_images(photo):
    noisy = dip.degradations.gaussian(photo / np.float32(255), 25, seed=0)
    sigma = 0.1
    means = {"patch_size": 5, "patch_distance": 6, "h": 0.6 * sigma, "sigma": sigma}
    expected = (
        restoration.denoise_nl_means(noisy.astype(float), **means, fast_mode=True, channel_axis=-1),
        restoration.denoise_tv_chambolle(noisy.astype(float), weight=sigma, channel_axis=-1),
    )
    found = guides.denoised(as_tensor(noisy), sigma)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, as_tensor(theirs).float(), rtol=0, atol=1e-6)
        assert dip.metrics.psnr(theirs, photo / 255) > dip.metrics.psnr(noisy, photo / 255) + 3


def by_hand(picture, pilot, level, step=1):
    """The filter of (H, W, C), patch by patch: what may be further than a patch's side from the border."""
    luminance_and_differences = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    colours = luminance_and_differences if picture.shape[2] == 3 else np.eye(picture.shape[2])
    picture, pilot = picture @ colours.T, pilot @ colours.T
    total, weights = np.zeros(picture.shape), np.zeros(picture.shape)
    first = -7 % step  # the filter begins with what reaches a pixel of the picture
    for top in range(first, picture.shape[0] - 7, step):
        for left in range(first, picture.shape[1] - 7, step):
            for channel in range(picture.shape[2]):
                patch = np.s_[top : top + 8, left : left + 8, channel]
                power = dctn(pilot[patch], norm="ortho") ** 2
                kept = power / (power + level**2)
                kept[0, 0] = 1
                weight = 1 / (kept**2).sum()
                total[patch] += weight * idctn(kept * dctn(picture[patch], norm="ortho"), norm="ortho")
                weights[patch] += weight
    return (total / weights) @ colours


@pytest.mark.parametrize("shape", [(20, 24, 1), (17, 21, 3), (16, 16, 2), (19, 600, 1)])
def test_the_wiener_filter_is_that_of_every_patch(shape):
    generator = np.random.default_rng(0)
    pilot = picture(shape).astype(float)
    noisy = pilot + generator.normal(0, 0.1, shape)
    found = guides.wiener(as_tensor(noisy).float(), as_tensor(pilot).float(), 0.1, (0.5, 2.0))
    assert len(found) == 2
    for one, gain in zip(found, (0.5, 2.0), strict=True):
        inside = np.s_[7:-7, 7:-7]
        expected = by_hand(noisy, pilot, 0.1 * gain)[inside]
        np.testing.assert_allclose(one[0].permute(1, 2, 0).numpy()[inside], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(37, 29, 1), (33, 41, 3), (19, 3000, 1)])
@pytest.mark.parametrize("step", [2, 4, 7, 8])
def test_with_a_step_it_is_that_of_fewer_patches(shape, step):
    generator = np.random.default_rng(0)
    pilot = picture(shape).astype(float)
    noisy = pilot + generator.normal(0, 0.1, shape)
    y, guide = as_tensor(noisy).float(), as_tensor(pilot).float()
    (found,) = guides.wiener(y, guide, 0.1, step=step)
    assert found.isfinite().all()  # every pixel is in a patch
    inside = np.s_[7:-7, 7:-7]
    with np.errstate(invalid="ignore"):  # on the border, where other patches are
        expected = by_hand(noisy, pilot, 0.1, step)[inside]
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy()[inside], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 7), (300, 9)])
def test_patches_apart_leave_what_their_pilot_explains(size):
    small = torch.rand(1, 3, *size)
    torch.testing.assert_close(guides.wiener(small, small, 0.0, step=4)[0], small, rtol=0, atol=1e-5)


def test_patches_that_would_leave_pixels_out_are_refused():
    x = torch.rand(1, 1, 20, 20)
    for step in (0, 9):
        with pytest.raises(ValueError, match=f"step={step}: .*allowed: 1 to 8"):
            guides.wiener(x, x, 0.1, step=step)


def test_a_wiener_filter_takes_off_noise_and_nothing_else(photo):
    clean = photo / np.float32(255)
    noisy = dip.degradations.gaussian(clean, 25, seed=0)
    y, pilot = as_tensor(noisy), sum(guides.denoised(as_tensor(noisy), 25 / 255)) / 2
    (filtered,) = guides.wiener(y, pilot, 25 / 255)
    psnr = [dip.metrics.psnr(one, as_tensor(clean)) for one in (y, pilot, filtered)]
    assert psnr[0] + 5 < psnr[1] + 0.3 < psnr[2]  # better than its pilot
    (kept,) = guides.wiener(y, torch.zeros_like(y), 0.1)  # of nothing in the pilot the means of the patches stay
    assert kept.mean() == pytest.approx(float(y.mean()), abs=0.02)
    assert kept.std() < 0.9 * y.std()
    assert noise_level(kept) < 0.02 * noise_level(y)
    for size in ((1, 1), (3, 40), (40, 7)):
        small = torch.rand(1, 3, *size)
        torch.testing.assert_close(guides.wiener(small, small, 0.0)[0], small, rtol=0, atol=1e-5)
        assert guides.wiener(small, small, 0.1)[0].isfinite().all()


@pytest.mark.parametrize(("name", "share"), [("astronaut", 0.9), ("brick", 0.6)])
def test_missing_pixels_are_filled_in_better_than_by_smoothness(name, share):
    clean = np.atleast_3d(getattr(skimage.data, name)())[30:126, 180:276].astype(np.float32) / 255
    known = np.random.default_rng(0).random(clean.shape[:2]) < 0.5
    y = torch.from_numpy(np.where(known[..., None], clean, np.float32(0))).permute(2, 0, 1)[None]
    weight = torch.from_numpy(known)[None, None].float()
    found = guides.inpainted(y, weight)
    assert torch.equal(found * weight, y)  # known pixels stay
    smooth = inpaint_biharmonic(y[0].permute(1, 2, 0).numpy().astype(np.float64), ~known, channel_axis=-1)
    errors = [np.mean((x - clean)[~known] ** 2) for x in (found[0].permute(1, 2, 0).numpy(), smooth)]
    assert errors[0] < share * errors[1]


def test_what_is_inpainted_follows_its_weights():
    y, nothing = torch.full((1, 1, 12, 9), 0.4), torch.zeros(1, 1, 12, 9)
    nothing[..., 3, 4] = 1
    torch.testing.assert_close(guides.inpainted(y, nothing, times=3), y)  # of one pixel
    y = torch.from_numpy(picture((15, 20)))[None, None]
    half = torch.full((1, 1, 15, 20), 0.5)
    x = guides.filled(y, half)
    filters, pilot, last = groups.Groups(half, 1), torch.empty_like(x), torch.empty_like(x)
    filters.filter(x, x, 0.07, (0, 0), out=pilot)
    torch.testing.assert_close(guides.inpainted(y, half, times=1), (y + pilot) / 2)
    further = (y + x + 1.9 * (pilot - x)) / 2
    filters.filter(further, pilot, 0.005, (0, 7), out=last)
    torch.testing.assert_close(guides.inpainted(y, half, times=2), (y + last) / 2)
    assert torch.equal(guides.inpainted(y, torch.ones_like(half), times=2), y)


@pytest.mark.parametrize(("slope", "gap"), [(0, 24), (1, 8)])
def test_what_is_missing_is_found_in_the_picture_of_half_the_size_first(slope, gap, monkeypatch):
    """Where a gap is wide, its patches are known on both sides of it there."""
    rows, columns = np.mgrid[:64, :64]
    bars = torch.from_numpy(0.5 + 0.4 * np.sign(np.sin((rows + slope * columns) / 3))).float()[None, None]
    weight = torch.ones_like(bars)
    weight[..., 32 - gap // 2 : 32 + gap // 2] = 0

    def wrong():
        return float((guides.inpainted(bars, weight) - bars)[weight == 0].square().mean())

    found = wrong()
    monkeypatch.setattr(guides, "_SMALL", 1000)
    assert found < 0.1 * wrong()


def test_patches_are_joined_on_other_devices_as_on_a_cpu():
    generator = torch.Generator().manual_seed(0)
    coefficients, transform = torch.randn(64, 5, 9, generator=generator), torch.randn(64, 64, generator=generator)
    one = torch.rand(12, 16, generator=generator)
    found, expected = one.clone(), one.clone()
    wiener._joined(coefficients, transform, expected)
    wiener._joined_at_once(coefficients, transform, found, 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(found, one, atol=1)


class Convolutions(TorchFunctionMode):
    """The devices of what convolutions are given."""

    def __init__(self):
        super().__init__()
        self.devices = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.conv2d:
            self.devices.append({one.device.type for one in args if isinstance(one, torch.Tensor)})
        return function(*args, **(kwargs or {}))


def test_all_is_done_on_the_pictures_device():
    there = torch.empty(1, 3, 20, 300, device="meta")
    with Convolutions() as seen:
        (filtered,) = guides.wiener(there, there, 0.1)
        assert filtered.shape == there.shape
        with pytest.raises((RuntimeError, NotImplementedError)):  # such a picture has no numbers
            noise_level(there)
    assert filtered.device.type == "meta"
    assert len(seen.devices) > 3
    assert all(devices == {"meta"} for devices in seen.devices)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_code_has_its_pictures_about_zero_and_noise_beside_them(channels):
    frame, code = Frame.around((20, 29), (32, 32)), Denoised(scale=0.5, noise=4, image_channels=channels)
    noisy = as_tensor(picture((20, 29, channels)))
    z = code.draw(frame, torch.Generator().manual_seed(0), noisy)
    assert z.shape == (1, code.channels, 32, 32) == (1, 3 * channels + 4, 32, 32)
    means, variation = guides.denoised(noisy, noise_level(noisy))
    filtered = guides.wiener(noisy, (means + variation) / 2, noise_level(noisy), (0.5, 1))
    expected = 0.5 * torch.cat([means, *filtered], dim=1)
    inside = frame.crop(z)[:, :-4]
    torch.testing.assert_close(inside.mean((2, 3)), torch.zeros(1, 3 * channels), rtol=0, atol=1e-6)
    torch.testing.assert_close(inside, expected - expected.mean((2, 3), keepdim=True))
    assert torch.equal(z[:, :-4, 0, frame.left], inside[:, :, 0, 0])  # beyond the border its pixels go on
    assert 0 <= z[:, -4:].min() < 0.01
    assert 0.09 < z[:, -4:].max() <= 0.1


def test_a_fit_draws_it_from_its_own_picture():
    noisy = picture((24, 24, 3))
    fit = dip.Fit(dip.Denoise(noisy), network=NET, code="denoised", seed=3)
    assert fit.network.in_channels == 17
    expected = guides.denoised(as_tensor(noisy), fit._code.level)[0]
    scale = 0.03 / noise_level(as_tensor(noisy))
    assert 0.1 < scale < 1
    torch.testing.assert_close(fit.code[:, :3].cpu(), scale * (expected - expected.mean((2, 3), keepdim=True)))
    blank = dip.Fit(dip.Denoise(np.linspace(0, 1, 576, dtype=np.float32).reshape(24, 24)), network=NET, code="denoised")
    assert 0.9 < float(blank.code[:, 0].max() - blank.code[:, 0].min()) <= 1.01  # at most as the picture is
    other = dip.Fit(dip.Denoise(noisy), network=NET, code="denoised", seed=4)
    assert torch.equal(fit.code[:, :9], other.code[:, :9])
    assert not torch.equal(fit.code[:, 9:], other.code[:, 9:])


def test_the_average_becomes_the_pilot_again_and_again():
    noisy = as_tensor(picture())
    fit = dip.Fit(dip.Denoise(picture()), **{**QUICK, "code": Denoised(noise=2, renewed=3)})
    code, level = fit.code.clone(), noise_level(noisy)
    fit.run(3)
    for _ in range(2):
        assert torch.equal(fit.code, code)
        filtered = torch.cat(guides.wiener(noisy, fit.current, level, (0.5, 1)), dim=1)
        code[:, 3:9] = fit.settings.frame.extend(0.03 / level * (filtered - filtered.mean((2, 3), keepdim=True)))
        fit.run(1)
        torch.testing.assert_close(fit.code, code)
        code = fit.code.clone()
        fit.run(2)
    kept = quick_fit(code=Denoised(noise=2, renewed=0), iters=4)
    assert torch.equal(kept.code, dip.Fit(dip.Denoise(picture()), **{**QUICK, "code": Denoised(noise=2)}).code)


def test_a_code_that_is_optimised_or_not_ones_own_picture_is_left_alone():
    options = {**QUICK, "code": Denoised(noise=2, renewed=2), "lr": 1e-4}
    fit = dip.fit(dip.Denoise(picture()), iters=5, optimize_code=True, **options)
    assert (fit.code - dip.Fit(dip.Denoise(picture()), **options).code).abs().max() < 1e-3
    first = dip.fit(dip.Denoise(picture()), iters=5, **options)
    second = dip.Fit(dip.Denoise(picture(seed=1)), init=first, **options)
    assert torch.equal(second.code, dip.Fit(dip.Denoise(picture(seed=1)), **options).code)
    assert torch.equal(next(iter(second.network.parameters())), next(iter(first.network.parameters())))


@pytest.mark.parametrize("renewed", [2, 3, 4])  # before the checkpoint, just after it, later
def test_a_resumed_fit_goes_on_bit_for_bit(renewed, tmp_path):
    options = {**QUICK, "code": Denoised(noise=2, renewed=renewed), "seed": 1}
    whole = dip.fit(dip.Denoise(picture()), iters=6, **options)
    dip.fit(dip.Denoise(picture()), iters=3, checkpoint=tmp_path / "a.ckpt", **options)
    resumed = dip.fit(dip.Denoise(picture()), iters=6, resume=tmp_path / "a.ckpt", **options)
    assert torch.equal(whole.picture, resumed.picture)


def test_it_is_refused_where_there_is_no_noisy_picture():
    small = {"network": NET, "code": "denoised"}
    with pytest.raises(ValueError, match=r"Denoised\(.*made from a noisy picture.*not for super_resolve"):
        dip.Fit(dip.SuperResolve(picture(), 2), **small)
    with pytest.raises(ValueError, match="not for inpaint"):
        dip.Fit(dip.Inpaint(picture(), np.eye(16, dtype=bool)), **small)
    with pytest.raises(ValueError, match="drawn from the noisy picture"):
        Denoised().draw(Frame.around((8, 8), (8, 8)), torch.Generator())
    with pytest.raises(ValueError, match="noise must be"):
        Denoised(noise=-1)


@pytest.mark.parametrize("shape", [(40, 36), (33, 47, 3), (5, 7)])
def test_the_fast_preset_takes_gray_and_colour_of_any_size(shape):
    noisy = picture(shape, "uint8")
    restored = dip.denoise(noisy, preset="fast", iters=2)
    assert (restored.shape, restored.dtype) == (noisy.shape, noisy.dtype)


def test_the_fast_preset_is_far_ahead_of_the_papers_after_as_many_iterations(photo):
    noisy = dip.degradations.gaussian(photo / np.float32(255), 25, seed=0)
    # the paper's code with the fast network: what differs is the code alone, and nothing is given back
    options = {"preset": "fast", "iters": 100, "average": 0.9, "precision": "float32", "consistent": False}
    fast = dip.denoise(noisy, **options)
    from_noise = dip.denoise(noisy, code="uniform", **options)
    clean = photo / 255
    assert dip.metrics.psnr(fast, clean) > dip.metrics.psnr(from_noise, clean) + 2
