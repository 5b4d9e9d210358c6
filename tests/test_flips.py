"""Mirror images in turns, against numpy's."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from small import QUICK, picture, quick_fit

import dip
from dip.falling import falls_of
from dip.flips import Flips, Moment, begin_after

CPU = torch.device("cpu")
WAYS = [(slice(None), slice(None)), (slice(None, None, -1), slice(None))]
WAYS += [(slice(None), slice(None, None, -1)), (slice(None, None, -1), slice(None, None, -1))]


def mirrored(x, way):
    """A picture (..., height, width) in one of the four ways."""
    return torch.from_numpy(x.float().numpy()[..., *WAYS[way]].copy()).to(x.dtype)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 3, 4, 6), (1, 1, 5, 7), (1, 17, 1, 8), (1, 2, 1, 1)])
def test_the_four_ways_come_in_turns(shape, dtype, order, asynchronous, monkeypatch):
    monkeypatch.setattr(dip.devices, "asynchronous", lambda device: asynchronous)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).contiguous(memory_format=order)
    flips = Flips(2, CPU)
    assert flips.turn(x) is x  # nothing was drawn yet
    for iteration in range(1, 12):
        flips.draw(shape[2:])
        made = flips.turn(x)
        assert made.dtype == dtype
        assert made.stride() == x.stride()
        assert torch.equal(made, mirrored(x, max(0, iteration - 2) % 4))
        assert torch.equal(flips.turn(made), x)


def test_without_it_a_picture_is_itself():
    x, flips = torch.ones(1, 1, 2, 2), Flips(0, CPU)
    flips.draw((2, 2))
    assert flips.turn(x) is x
    assert flips.tensors() == []


def test_gradients_come_back_the_other_way():
    flips = Flips(1, CPU)
    for _ in range(4):
        flips.draw((3, 4))
        x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(flips.turn, x)


def test_it_works_on_a_device_of_its_own():
    """What is made on another device than that of the code would fail on a GPU."""
    meta = torch.device("meta")
    flips = Flips(1, meta)
    flips.draw((3, 4))
    assert [tensor.device for tensor in flips.tensors()] == [meta] * 4


def test_only_the_network_sees_the_mirrored_code():
    """x = T⁻¹ f(T z) by hand; the operator and the loss see the picture as it is."""
    mask = np.random.default_rng(0).random((9, 14)) < 0.7
    fit = dip.Fit(dip.Inpaint(picture((9, 14, 3)), mask), **{**QUICK, "jitter": 0.0, "average": 0.0, "flips": 2})
    y, known = torch.from_numpy(picture((9, 14, 3))).permute(2, 0, 1), torch.from_numpy(mask)
    for iteration in range(1, 8):
        way = max(0, iteration - 2) % 4
        with torch.no_grad():
            made = mirrored(copy.deepcopy(fit.network)(mirrored(fit.code, way)), way)
        x = made[..., 1:10, 1:15]  # in the middle of 12 x 16
        fit.step()
        torch.testing.assert_close(fit.output, x, rtol=1e-4, atol=1e-5)
        expected = ((x - y)[..., known] ** 2).mean()
        assert fit.history["loss"][-1] == pytest.approx(expected.item(), rel=1e-4)


def test_what_is_of_another_size_is_left_alone():
    """A network of one's own may make it; the loss has the words for that."""
    flips, x = Flips(1, CPU), torch.ones(1, 1, 3, 5)
    for _ in range(3):
        flips.draw((4, 4))
    assert flips.turn(x) is x


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5])
def test_a_fit_that_has_gone_on_goes_back(asynchronous, kept, monkeypatch, tmp_path):
    """To before the mirroring, to when it begins and to after that."""
    monkeypatch.setattr(dip.devices, "asynchronous", lambda device: asynchronous)
    whole = quick_fit(iters=10, flips=3)
    fit = dip.Fit(dip.Denoise(picture()), flips=3, **QUICK).run(kept)
    fit.save(tmp_path / "fit.st")
    fit.run(2).load(tmp_path / "fit.st").run(10 - kept)
    assert np.array_equal(fit.history["loss"], whole.history["loss"])
    assert np.array_equal(fit.image, whole.image)


def test_an_iteration_that_was_broken_off_does_not_count():
    task = dip.Denoise(picture())
    broken = [5]

    def loss(prediction, y):
        if broken and fit.iteration == broken[0]:
            broken.pop()
            raise KeyboardInterrupt
        return ((prediction - y) ** 2).mean()

    fit = dip.Fit(task, flips=8, loss=loss, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        fit.run(20)
    assert fit.iteration == 5
    fit.run(1)
    assert fit._flips.count == 6 - 8


def test_until_then_the_fit_is_one_without_it_bit_for_bit():
    never, late = quick_fit(iters=20, flips=0), quick_fit(iters=20, flips=8)
    one, other = never.history["loss"], late.history["loss"]
    assert np.array_equal(one[:8], other[:8])
    assert abs(other[8] / one[8] - 1) > 1e-3
    assert never.settings.flips == 0
    assert late.settings.flips == 8


def residuals(fall, noise=0.0, count=30):
    """Mean squares every 25 iterations: what is left of a picture, and the part of noise (variance 1) that is there."""
    t = 25.0 * np.arange(1, count + 1)
    return [float(r) for r in 1 + 9 * np.exp(-t / 60) + fall * (1 - t / 750) - noise * np.exp((t - 750) / 150)]


def moment(seen, level=1.0, every=25):
    """The first iteration that it tells, None if none."""
    told = Moment(level)
    return next((every * i for i, residual in enumerate(seen, 1) if told.has_come(residual)), None)


LONG = 120


@pytest.fixture
def soon(monkeypatch):
    """A look at every fifth iteration, at which a small fit of strong noise takes that in soon."""
    monkeypatch.setattr(dip.flips, "_EVERY", 5)


def end(seen, every=25):
    """The first iteration after the first residual at which it falls again by more than 0.3 %, None if none."""
    rose = False
    for i in range(4, len(seen)):
        fall = (seen[i - 4] - seen[i]) / seen[i]
        rose = rose or fall <= 0
        if rose and fall > 0.003:
            return every * i
    return None


def test_falls_by_hand():
    assert falls_of([8.0, 6.0, 5.0, 3.0]) == []
    assert falls_of([8.0, 6.0, 5.0, 3.0, 2.0, 8.0, -4.0]) == [3.0, -0.25, 2.25]  # 8 to 2, 6 to 8, 5 to -4


def test_what_falls_ever_more_slowly_is_a_picture():
    assert moment(residuals(fall=0.0)) is None
    assert moment(residuals(fall=0.1)) is None  # as fast to the end
    assert moment([1.0] * 30) is None


def test_what_falls_faster_again_is_noise():
    told = moment(residuals(fall=0.03, noise=0.4))
    assert 325 < told < 600
    assert moment(residuals(fall=0.03, noise=0.4)[: told // 25 - 1]) is None
    straight = [(2000 - 25 * i) / 1000 for i in range(1, 80)]
    assert moment(straight, level=1.35) == 400  # 100 / (2000 - t) > 1.15 * 100 / 1850, the first fall, for t > 391


def test_far_above_the_noise_it_is_a_halt_on_the_way():
    seen = residuals(fall=0.03, noise=0.4)
    assert moment(seen, level=0.5) is None
    assert moment([7 * r for r in seen], level=7**0.5) == moment(seen)  # by themselves, whatever their unit


def test_far_below_the_noise_it_has_been_learnt():
    """As of a few pixels, where it is learnt with the picture."""
    fading = [2.0 * 0.8**i for i in range(30)]  # falls as fast, of itself, from beginning to end
    assert moment(fading) == 25 * 10  # 0.27, after 0.34
    assert moment(fading, level=1e-4) is None


def test_a_fit_is_over_when_the_residual_falls_again():
    moment = Moment(1.0)
    for residual in (9.0, 8.0, 7.0, 6.0, 1.0):
        moment.has_come(residual)
    moment.begins()
    rising = [1.001, 1.004, 1.006, 1.005, 1.0045]
    assert not any(map(moment.is_over, rising))
    assert not moment.is_over(1.0031)  # 1.006 before: 0.0029 / 1.0031
    assert moment.is_over(1.0019)  # 1.005 before: 0.0031 / 1.0019
    assert end([1.0, *rising, 1.0031, 1.0019]) == 175


def test_what_never_rose_is_learnt_still():
    moment = Moment(1.0)
    moment.has_come(1.0)
    moment.begins()
    assert not any(moment.is_over(0.99**i) for i in range(1, 30))


def test_tiny_falls_are_not_compared():
    assert moment([1 - 1e-7 * i**2 for i in range(30)]) is None


def smooth_fit(iters=None, side=16, **options):
    """A fit of a smooth picture with strong noise, which is soon there."""
    y, x = np.mgrid[:side, :side] / side
    noisy = (0.5 + 0.2 * x * y + np.random.default_rng(0).normal(0, 0.2, (side, side))).astype(np.float32)
    given = {**QUICK, "code": dip.codes.Denoised(noise=2), "jitter": 0.0, "flips": "auto", **options}
    fit = dip.Fit(dip.Denoise(noisy), **given)
    return fit if iters is None else fit.run(iters)


@pytest.mark.usefixtures("soon")
def test_auto_begins_when_the_residual_tells():
    """As it does by a callback's eyes; until then the fit is one without."""
    seen = []

    def look(fit):
        seen.append(float((fit.y - fit.current).square().mean()))

    look.every = 5
    fit = smooth_fit(LONG, callbacks=[look])
    told = moment(seen, fit._code.level, every=5)
    assert fit.settings.flips == "auto"
    assert 25 <= told < LONG - 2
    assert fit._flips.began == fit._flips.after == told
    assert fit._flips.count == fit.iteration - told
    given, never = smooth_fit(fit.iteration, flips=told), smooth_fit(LONG, flips=0)
    assert np.array_equal(fit.history["loss"], given.history["loss"])
    assert np.array_equal(fit.history["loss"][:told], never.history["loss"][:told])
    assert abs(fit.history["loss"][told] / never.history["loss"][told] - 1) > 1e-3


ENDING = {"side": 24, "average": 0.9, "jitter": 0.05}  # in which what was learnt of the noise is forgotten


@pytest.mark.usefixtures("soon")
def test_a_fit_ends_where_noise_alone_is_left(tmp_path):
    seen = []

    def look(fit):
        seen.append(float((fit.y - fit.current).square().mean()))

    look.every = 5
    fit = smooth_fit(9 * LONG, callbacks=[look], **ENDING)
    began = fit._flips.began
    expected = began + end(seen[began // 5 - 1 :], every=5)
    assert fit.iteration == fit._flips.ended_at == expected < 9 * LONG
    assert fit.stop_reason == fit._flips.reason
    assert f"flips: since iteration {began} " in fit.stop_reason
    assert torch.equal(fit.picture, fit.current)
    fit.save(tmp_path / "fit.st")

    fit.run(7)  # which is asked for, and is said once
    assert (fit.iteration, fit.stop_reason) == (expected + 7, "iterations")
    loaded = smooth_fit(**ENDING).load(tmp_path / "fit.st")
    assert (loaded.iteration, loaded.stop_reason) == (expected, loaded._flips.reason)
    loaded.run(7)
    assert np.array_equal(loaded.history["loss"], fit.history["loss"])

    earlier = smooth_fit(expected - 8, **ENDING)
    assert earlier.stop_reason == "iterations"
    earlier.save(tmp_path / "earlier.st")
    resumed = smooth_fit(**ENDING).load(tmp_path / "earlier.st").run(LONG)
    assert (resumed.iteration, resumed.stop_reason) == (expected, resumed._flips.reason)


@pytest.mark.usefixtures("soon")
def test_who_says_when_to_stop_or_to_flip_says_when_to_end():
    rule = dip.stopping.MovingVariance(earliest=1)
    ruled, told = smooth_fit(2 * LONG, stop=rule, **ENDING), smooth_fit(2 * LONG, **ENDING)
    assert ruled._flips.began == told._flips.began
    assert (ruled.iteration, ruled.stop_reason, ruled._flips.ended_at) == (2 * LONG, "iterations", 0)
    given = smooth_fit(2 * LONG, flips=told._flips.began, **ENDING)
    assert (given.iteration, given.stop_reason, given._flips.ended_at) == (2 * LONG, "iterations", 0)
    assert told.iteration < 2 * LONG
    assert np.array_equal(told.history["loss"], given.history["loss"][: told.iteration])


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("after", [-12, -1, 0, 1])
def test_a_fit_that_is_resumed_begins_when_it_would_have(after, tmp_path):
    whole = smooth_fit(LONG)
    kept = whole._flips.began + after
    smooth_fit(kept).save(tmp_path / "fit.st")
    fit = smooth_fit().load(tmp_path / "fit.st")
    assert fit._flips.began == (whole._flips.began if after >= 0 else None)
    fit.run(LONG - kept)
    assert fit._flips.began == whole._flips.began
    assert np.array_equal(fit.history["loss"], whole.history["loss"])


@pytest.mark.usefixtures("soon")
def test_after_a_divergence_residuals_are_compared_anew():
    """What fell back at it would look like noise that is learnt, and the look at that iteration is left out."""
    calls, seen = [], []

    def loss(prediction, y):
        calls.append(1)
        return (prediction - y).square().mean() * (math.nan if len(calls) == 40 else 1)

    def look(fit):
        seen.append(float((fit.y - fit.current).square().mean()))

    look.every = 5
    with pytest.warns(RuntimeWarning, match="nan at iteration 40; went back to the state of iteration 26"):
        fit = smooth_fit(LONG, loss=loss, callbacks=[look])
    after = len([at for at in range(5, fit.iteration + 1, 5) if at > 40])
    told = moment(seen[-after:], fit._code.level, every=5)
    assert fit._flips.state_dict()["residuals"] == seen[-after:][0 if told is None else told // 5 - 1 :]
    assert fit._flips.began == (None if told is None else 40 + told)


def test_auto_of_a_fit_in_crops_follows_from_size_and_noise():
    """It keeps no average, whose residual could tell."""
    for sigma, expected in ((50, 75), (25, 151), (10, 377)):
        noise = np.random.default_rng(0).normal(0.5, sigma / 255, (64, 64)).astype(np.float32)
        noise[0, :2] = 0, 1  # or it would be stretched
        fit = dip.Fit(dip.Denoise(noise), **QUICK | {"code": dip.codes.Denoised(noise=2)}, flips="auto", tile=32)
        assert fit._flips.after == pytest.approx(4 * expected, rel=0.05)
        assert fit._flips.every is None
    assert begin_after("auto", (3, 128, 128), 50 / 255, 4) == 4 * 261
    assert begin_after("auto", (1, 128, 128), 50 / 255, 4) == 4 * 151  # by the root of three
    assert begin_after("auto", (1, 1, 1), 0.99, 2) == 2
    assert begin_after("auto", (3, 128, 128), 50 / 255, 1) is None
    assert begin_after(7, (3, 128, 128), 50 / 255, 3) == 21


@pytest.mark.usefixtures("soon")
def test_auto_of_a_picture_without_noise_is_never():
    options = {**QUICK, "code": dip.codes.Denoised(noise=2), "flips": "auto"}
    flat = quick_fit(dip.Denoise(np.full((16, 16), 0.5, np.float32)), iters=60, **options)
    assert flat._flips.began is None
    assert len(flat._flips.state_dict()["residuals"]) == 12
    assert Flips(begin_after(10**30, (3, 2, 2), 0.1, 1), CPU).after > 10**6


def test_the_presets_auto_is_for_codes_of_pictures():
    fits = {code: dip.Fit(dip.Denoise(picture()), preset="fast", code=code) for code in (None, "uniform")}
    assert [fit.settings.flips for fit in fits.values()] == ["auto", 0]
    given = dip.Fit(dip.Denoise(picture()), preset="fast", code="uniform", flips=7)
    assert given._flips.after == 7


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_loss_that_leaps_when_it_begins_is_no_divergence(asynchronous, monkeypatch):
    """A code of noise says nothing of the picture: mirrored it is another one, of which the network knows nothing."""
    monkeypatch.setattr(dip.devices, "asynchronous", lambda device: asynchronous)
    fit = quick_fit(iters=230, flips=200, jitter=0.0, lr=0.03)
    loss = fit.history["loss"]
    assert loss[200] > 4 * loss[150:200].max()
    assert loss[-1] < loss[200]
    assert fit.recoveries == []


def test_it_goes_back_to_a_state_whose_loss_is_known(monkeypatch):
    """Also where the weights are spoilt just before it begins."""

    def spoil(fit):
        if fit.iteration == 30:
            with torch.no_grad():
                fit.network.out.weight.fill_(np.nan)

    with pytest.warns(RuntimeWarning, match="at iteration 31; went back to the state of iteration 26 "):
        fit = quick_fit(iters=60, flips=30, callbacks=[spoil])
    assert np.isfinite(fit.history["loss"][31:]).all()
    assert len(fit.recoveries) == 1


def test_in_crops_it_begins_after_as_many_iterations_of_each_tile():
    options = {**QUICK, "network": {"down": [4, 4], "up": [4, 4], "skip": [0, 0]}, "tile": 16}
    task = dip.Denoise(picture((32, 32)))
    never, late = (dip.Fit(task, flips=flips, **options).run(20) for flips in (0, 3))
    one, other = never.history["loss"], late.history["loss"]
    assert never.settings.tiles == 4
    assert np.array_equal(one[:12], other[:12])
    assert abs(other[12] / one[12] - 1) > 1e-3


def test_a_fit_takes_in_less_noise():
    """Of noise alone, which is no picture, a fit with flips has less after as many iterations."""
    noise = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    left = [quick_fit(dip.Denoise(noise), iters=200, flips=flips).history["loss"][-50:].mean() for flips in (0, 1)]
    assert left[1] > 1.5 * left[0]


def test_the_fast_preset_does_not_pass_its_best():
    """A part of a photograph, with strong noise: without flips it is lost again."""
    clean = data.camera()[116:148, 216:248].astype(np.float32) / 255
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 50 / 255, clean.shape), 0, 1).astype(np.float32)
    after = {}
    for flips in (None, 0):
        image = dip.denoise(noisy, preset="fast", iters=275, flips=flips, precision="float32")
        after[flips] = peak_signal_noise_ratio(clean, image, data_range=1)
    assert after[None] > after[0] + 1, after
