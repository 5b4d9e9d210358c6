"""The one loop: its result, its seed, its guard, how it is watched and how it is ended."""

from __future__ import annotations

import io
import math
import random
import re
import signal
import sys
import threading
import warnings

import numpy as np
import pytest
import skimage.data
import torch
from small import NET, QUICK, assert_equal_states, picture, quick_fit, trained_state

import dip
from dip.callbacks import Every, Progress, duration, shows_progress


def losses(fit):
    return fit.history["loss"]


# ---------------------------------------------------------------------- the result


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_returned_image_is_the_bias_corrected_average_of_the_outputs(decay):
    outputs = []
    fit = quick_fit(iters=12, average=decay, callbacks=[lambda fit: outputs.append(fit.output.clone())])
    weights = decay ** np.arange(11, -1, -1.0)
    expected = np.average(torch.stack(outputs).numpy(), axis=0, weights=weights)[0]
    np.testing.assert_allclose(fit.image, np.moveaxis(expected, 0, -1), atol=1e-6)
    assert np.abs(fit.image - np.moveaxis(outputs[-1][0].numpy(), 0, -1)).max() > 1e-4


def test_average_0_returns_the_last_output():
    outputs = []
    fit = quick_fit(iters=5, average=0, callbacks=[lambda fit: outputs.append(fit.output.clone())])
    np.testing.assert_array_equal(fit.image, np.moveaxis(outputs[-1][0].numpy(), 0, -1))
    assert torch.equal(fit.current, outputs[-1])


def test_the_first_iteration_by_hand():
    """z from the seed, jitter, network, crop, loss, one Adam step: the equation with plain torch."""
    image = picture((9, 14, 3))
    fit = dip.Fit(dip.Denoise(image), **{**QUICK, "jitter": 0.0, "lr": 0.02})
    weights = {name: p.detach().clone() for name, p in fit.network.named_parameters()}
    z = fit.code.detach().clone()
    assert z.shape == (1, 8, 12, 16)
    assert 0 <= z.min() < z.max() <= 0.1
    x = torch.func.functional_call(fit.network, weights, (z,))[..., 1:10, 1:15]
    expected = ((x - torch.from_numpy(image).permute(2, 0, 1)) ** 2).mean()
    fit.step()
    assert losses(fit)[0] == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(fit.output, x.detach())
    for name, p in fit.network.named_parameters():  # Adam's first step is lr against the gradient's sign
        moved = (p.detach() - weights[name]).abs()
        assert moved.max() <= 0.02 * 1.0001
        assert name.endswith("bias") or moved.median() > 0.9 * 0.02


def test_a_fit_that_has_not_run_has_no_image():
    fit = dip.Fit(dip.Denoise(picture()), **QUICK)
    assert fit.iteration == 0
    for name in ("output", "current", "picture", "image"):
        with pytest.raises(RuntimeError, match=r"not been run yet; call run\(\)"):
            getattr(fit, name)


def test_repr_tells_where_it_stands():
    fit = quick_fit(iters=2)
    assert re.match(r"<Fit denoise of 3 x 16 x 16: 2 iterations, \d+ s, stopped by 'iterations'>", repr(fit))
    assert fit.seconds > 0


# ---------------------------------------------------------------------- seed and global state


def test_same_seed_same_result_other_seed_other_result():
    one, same, other = (quick_fit(iters=4, seed=seed).image for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_seed_reaches_weights_code_and_jitter():
    def drawn(seed):
        fit = dip.Fit(dip.Denoise(picture()), seed=seed, **QUICK)
        fit._jitter.draw(fit.code)
        return fit.network.out.weight, fit.code, fit._jitter.add(fit.code) - fit.code

    for a, same, other in zip(drawn(0), drawn(0), drawn(1), strict=True):
        assert torch.equal(a, same)
        assert not torch.equal(a, other)


def test_weights_do_not_depend_on_the_code_nor_the_code_on_the_network():
    plain = dip.Fit(dip.Denoise(picture()), **QUICK)
    other_code = dip.Fit(dip.Denoise(picture()), **{**QUICK, "code": dip.codes.Normal(8)})
    other_net = dip.Fit(dip.Denoise(picture()), **{**QUICK, "network": {**NET, "up": [4, 4]}})
    assert torch.equal(plain.network.out.weight, other_code.network.out.weight)
    assert torch.equal(plain.code, other_net.code)


def test_large_seeds_are_fine():
    assert dip.Fit(dip.Denoise(picture()), seed=2**63 + 1, **QUICK).settings.seed == 2**63 + 1


def test_no_global_state_is_touched():
    def state():
        return (
            torch.get_rng_state().numpy().tobytes(),
            repr(np.random.get_state()),  # noqa: NPY002
            random.getstate(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            signal.getsignal(signal.SIGINT),
        )

    before = state()
    quick_fit(iters=3, reference=picture(seed=1), optimize_code=True, progress=False)
    assert state() == before


def test_global_state_has_no_influence():
    expected = quick_fit(iters=3).image
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert np.array_equal(quick_fit(iters=3).image, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode, tmp_path):
    expected = quick_fit(iters=4)
    with mode():
        fit = quick_fit(iters=2, reference=picture(seed=1), stop=dip.stopping.MovingVariance(earliest=1))
        fit.run(2)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        half = quick_fit(iters=2)
        half.save(tmp_path / "fit.st")
        resumed = quick_fit(iters=4, resume=tmp_path / "fit.st")
    assert np.array_equal(losses(fit), losses(expected))
    assert np.array_equal(resumed.image, expected.image)
    half.run(2)  # and outside it what was begun inside
    assert np.array_equal(half.image, expected.image)


def test_works_with_another_default_dtype():
    expected = quick_fit(iters=2)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        fit = quick_fit(iters=2)
    finally:
        torch.set_default_dtype(before)
    assert fit.output.dtype == torch.float32
    assert fit.image.shape == expected.image.shape


# ---------------------------------------------------------------------- running on


def test_running_on_equals_one_long_run():
    whole = quick_fit(iters=9)
    parts = quick_fit(iters=4).run(2).run(3)
    assert parts.iteration == 9
    assert np.array_equal(parts.image, whole.image)
    assert np.array_equal(losses(parts), losses(whole))
    assert_equal_states(trained_state(parts), trained_state(whole))


def test_steps_equal_a_run():
    whole = quick_fit(iters=4)
    fit = dip.Fit(dip.Denoise(picture()), **QUICK)
    for _ in range(4):
        fit.step()
    assert np.array_equal(fit.image, whole.image)


def test_iterations_come_from_the_preset_if_not_given(monkeypatch):
    monkeypatch.setattr(dip.Fit, "_iterate", lambda self: setattr(self, "iteration", self.iteration + 1))
    fit = dip.fit(dip.Denoise(picture()), **QUICK)
    assert fit.iteration == 1800
    assert fit.run().iteration == 3600


@pytest.mark.parametrize("iters", [0, -5, 2.5, 10.0, "10", True, float("nan")])
def test_iteration_counts_that_are_none(iters):
    with pytest.raises((ValueError, TypeError), match="iters must be a whole number from 1 up"):
        quick_fit(iters=iters)
    fit = dip.Fit(dip.Denoise(picture()), **QUICK)
    with pytest.raises((ValueError, TypeError), match="iters must be a whole number from 1 up"):
        fit.run(iters)
    assert fit.iteration == 0


# ---------------------------------------------------------------------- objective and optimisers


def test_total_variation_is_part_of_the_objective():
    penalty = dip.losses.TotalVariation(0.3)
    fit = quick_fit(iters=6, penalty=penalty, average=0, callbacks=[lambda f: f.record(tv=penalty(f.output))])
    history = fit.history
    np.testing.assert_allclose(history["loss"], history["data_loss"] + history["tv"], rtol=1e-5)
    plain = quick_fit(iters=60, average=0)
    smooth = quick_fit(iters=60, average=0, penalty=[penalty, dip.losses.TotalVariation(1.0)])
    assert penalty(smooth.output) < 0.7 * penalty(plain.output)
    assert "data_loss" not in plain.history


def test_losses_by_name_and_of_ones_own():
    l1 = quick_fit(iters=1, loss="l1")
    assert losses(l1)[0] == pytest.approx(np.abs(np.moveaxis(l1.output[0].numpy(), 0, -1) - picture()).mean(), rel=1e-5)
    own = quick_fit(iters=3, loss=lambda prediction, y: (prediction - y).abs().mean())
    assert np.array_equal(losses(own)[:1], losses(l1))
    module = quick_fit(iters=3, loss=torch.nn.MSELoss())
    np.testing.assert_allclose(losses(module), losses(quick_fit(iters=3)), rtol=1e-6)


def test_lbfgs_lowers_the_loss():
    fit = quick_fit(iters=25, optimizer="lbfgs", jitter=0)
    assert losses(fit)[-1] < 0.1 * losses(fit)[0]
    assert (np.diff(losses(fit)) <= 1e-6).all()  # a line search does not go up
    fit.run(2)
    assert fit.iteration == 27


def test_adam_lowers_the_loss():
    fit = quick_fit(iters=80)
    assert losses(fit)[-1] < 0.2 * losses(fit)[0]


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_the_code_is_optimised_only_where_asked(optimizer):
    options = {"optimizer": optimizer, "iters": 4, "jitter": 0}
    fixed, fitted = quick_fit(**options), quick_fit(optimize_code=True, **options)
    first = dip.Fit(dip.Denoise(picture()), **QUICK).code
    assert torch.equal(fixed.code, first)
    assert not torch.equal(fitted.code, first)
    assert torch.isfinite(fitted.code).all()
    assert losses(fitted)[0] == losses(fixed)[0]
    assert losses(fitted)[-1] != losses(fixed)[-1]


def test_jitter_makes_the_loss_scatter_and_none_makes_it_smooth():
    still, shaken = (quick_fit(iters=30, jitter=jitter, lr=1e-4) for jitter in (0, 0.1))
    assert np.abs(np.diff(losses(shaken), n=2)).mean() > 5 * np.abs(np.diff(losses(still), n=2)).mean()


def test_frozen_weights_stay_as_they_are():
    network = dip.networks.EncoderDecoder(8, 3, **NET, generator=torch.Generator())
    network.out.weight.requires_grad_(False)
    kept = network.out.weight.clone()
    fit = quick_fit(iters=3, network=network)
    assert torch.equal(fit.network.out.weight, kept)


# ---------------------------------------------------------------------- the guard


class Sick:
    """The squared error, with something else at the calls that are named (counted from 1); it looks at the fit then."""

    def __init__(self, at, make, look=lambda: None):
        self.at, self.make, self.look, self.calls = at, make, look, 0

    def __call__(self, prediction, y):
        self.calls += 1
        loss = (prediction - y).square().mean()
        self.look()
        return self.make(loss) if self.at(self.calls) else loss


def test_nan_restores_everything_says_so_and_goes_on():
    seen = {}

    def look():
        if loss.calls == 26:  # a copy is due here: after the forward pass, before the step
            seen["before"] = trained_state(fit)
        if loss.calls == 33:  # the first iteration after the bad one has run its forward pass
            seen["rate"] = fit._optimizer.param_groups[0]["lr"]

    loss = Sick(lambda call: call == 32, lambda value: value * math.nan, look)
    fit = dip.Fit(dip.Denoise(picture()), **{**QUICK, "loss": loss})
    fit.run(31)
    image = fit.image
    with pytest.warns(RuntimeWarning, match="loss became nan at iteration 32; went back to the state of iteration 26"):
        fit.run(1)
    assert_equal_states(trained_state(fit), seen["before"])
    assert fit.recoveries == [{"iteration": 32, "loss": pytest.approx(math.nan, nan_ok=True), "back_to": 26}]
    assert np.isfinite(fit.image).all()
    assert np.abs(fit.image - image).max() < 0.2
    assert np.isnan(losses(fit)[31])
    fit.run(40)
    assert fit.iteration == 72
    assert np.isfinite(np.delete(losses(fit), 31)).all()
    assert losses(fit)[-1] < losses(fit)[30]
    assert len(fit.recoveries) == 1


def test_steps_are_shorter_after_a_restoration_until_the_next_good_copy():
    rates = []
    loss = Sick(lambda call: call in (30, 31), lambda value: value * math.nan)
    task = dip.Denoise(picture())
    with pytest.warns(RuntimeWarning):
        quick_fit(task, iters=60, loss=loss, callbacks=[lambda f: rates.append(f._optimizer.param_groups[0]["lr"])])
    assert rates[28] == 0.01
    assert rates[31] == rates[54] == 0.0025  # half for each of the two
    assert rates[-1] == 0.01


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_output_and_average_never_see_a_bad_iterate(value):
    def spoil(loss):
        return loss * value

    pictures = []
    loss = Sick(lambda call: call == 2, spoil)
    with pytest.warns(RuntimeWarning, match="at iteration 2; went back to the state of iteration 1"):
        fit = quick_fit(iters=2, loss=loss, callbacks=[lambda f: pictures.append(f.picture.clone())])
    assert np.isfinite(fit.image).all()
    torch.testing.assert_close(pictures[1], pictures[0])


def test_a_network_that_makes_nan_is_recovered_from():
    """NaN in the weights, as a step that is far too long leaves them, not only in the loss."""

    def spoil(fit):
        if fit.iteration == 30:
            with torch.no_grad():
                fit.network.out.weight.fill_(math.nan)

    with pytest.warns(RuntimeWarning, match="nan at iteration 31; went back to the state of iteration 26"):
        fit = quick_fit(iters=40, callbacks=[spoil])
    assert np.isfinite(fit.image).all()
    assert all(torch.isfinite(tensor).all() for tensor in fit.network.state_dict().values())


def test_a_sudden_rise_is_a_divergence_too():
    loss = Sick(lambda call: call == 40, lambda value: value * 50)
    with pytest.warns(RuntimeWarning, match="at iteration 40; went back to the state of iteration 26"):
        fit = quick_fit(iters=60, loss=loss)
    assert [recovery["iteration"] for recovery in fit.recoveries] == [40]


def test_a_slow_rise_is_none():
    loss = Sick(lambda call: True, lambda value: value.detach() * 1.03**loss.calls / value.detach() + 0 * value)
    fit = quick_fit(iters=80, loss=loss)
    assert losses(fit)[-1] == pytest.approx(1.03**80, rel=1e-3)
    assert fit.recoveries == []


@pytest.mark.parametrize("first_bad", [1, 2, 30])
def test_permanent_nan_ends_in_a_clear_error(first_bad):
    loss = Sick(lambda call: call >= first_bad, lambda value: value * math.nan)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(dip.DivergenceError) as error:
            quick_fit(iters=100, loss=loss)
    if first_bad == 1:
        assert "at the first iteration; check that the forward operator and the loss" in str(error.value)
    else:
        assert re.search(f"at iteration {first_bad + 5}, and 5 fresh starts from iteration", str(error.value))
        assert "lr=" in str(error.value)
        assert len(caught) == 5
        kept = error.value.fit  # nothing that was reached before is lost
        assert kept.iteration == first_bad + 5
        assert np.isfinite(kept.image).all()


def test_a_rise_that_comes_back_every_time_ends_in_an_error_too():
    """Each fresh start goes well for a while: the guard must not take that for progress."""
    since = [0]

    def make(value):
        return value * 100

    def late(call):
        bad = call >= 30 and call - since[0] >= 20
        if bad:
            since[0] = call
        return bad

    with (
        pytest.warns(RuntimeWarning, match="went back"),
        pytest.raises(dip.DivergenceError, match=r"5 fresh starts from iteration 26 "),
    ):
        quick_fit(iters=400, loss=Sick(late, make))


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (2, 1)])
@pytest.mark.parametrize("value", [0, 128])
def test_the_scatter_of_a_few_pixels_is_no_divergence(shape, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        fit = quick_fit(dip.Denoise(np.full(shape, value, np.uint8)), iters=300)
    assert len(fit.recoveries) <= 3
    assert np.abs(fit.image.astype(int) - value).max() <= 16


def test_a_signed_loss_can_be_fitted():
    loss = Sick(lambda call: True, lambda value: value - 1)
    fit = quick_fit(iters=40, loss=loss)
    assert losses(fit)[-1] < losses(fit)[0] < 0
    assert fit.recoveries == []


@pytest.fixture
def as_if_on_an_accelerator(monkeypatch):
    """Make the fit believe that to look at a loss means to wait for the device."""
    monkeypatch.setattr(dip.devices, "asynchronous", lambda device: True)


@pytest.mark.usefixtures("as_if_on_an_accelerator")
class TestLossesLookedAtTogether:
    def test_result_is_the_same(self):
        fit = quick_fit(iters=60)
        assert np.isfinite(losses(fit)).all()
        assert fit.recoveries == []
        assert fit._unchecked == []

    @pytest.mark.parametrize("at", [5, 26, 49, 50, 58, 60])
    def test_nan_is_found_at_the_latest_at_the_end(self, at):
        loss = Sick(lambda call: call == at, lambda value: value * math.nan)
        with pytest.warns(RuntimeWarning, match="loss became nan"):
            fit = quick_fit(iters=60, loss=loss)
        assert len(fit.recoveries) == 1
        assert fit.recoveries[0]["back_to"] < at
        assert np.isfinite(fit.image).all()
        assert all(torch.isfinite(tensor).all() for tensor in fit.network.state_dict().values())
        assert np.isnan(losses(fit)[at - 1])

    def test_nan_at_the_start_is_an_error(self):
        with pytest.raises(dip.DivergenceError, match="first iteration"):
            quick_fit(iters=60, loss=Sick(lambda call: True, lambda value: value * math.nan))

    def test_permanent_nan_is_an_error(self):
        loss = Sick(lambda call: call > 30, lambda value: value * math.nan)
        with pytest.warns(RuntimeWarning), pytest.raises(dip.DivergenceError, match="5 fresh starts") as error:
            quick_fit(iters=400, loss=loss)
        assert np.isfinite(error.value.fit.image).all()

    def test_checkpoint_between_two_looks_keeps_what_nobody_has_seen(self, tmp_path):
        task, path = dip.Denoise(picture()), tmp_path / "fit.st"
        fit = dip.Fit(task, **QUICK)
        for _ in range(30):
            fit.step()
        fit.save(path)
        whole = quick_fit(task, iters=60)
        resumed = quick_fit(task, iters=60, resume=path)
        assert np.array_equal(resumed.image, whole.image)


# ---------------------------------------------------------------------- watching and ending


def test_callbacks_are_called_as_often_as_they_say():
    seen = {"each": [], "fourth": []}
    fit = quick_fit(
        iters=9,
        callbacks=[lambda f: seen["each"].append(f.iteration), Every(4, lambda f: seen["fourth"].append(f.iteration))],
    )
    assert seen == {"each": list(range(1, 10)), "fourth": [4, 8]}
    assert fit.stop_reason == "iterations"
    with pytest.raises(ValueError, match="every must be"):
        Every(0, print)


def test_callback_adds_to_the_history():
    fit = quick_fit(iters=4, callbacks=[Every(2, lambda f: f.record(largest=f.output.max(), half=f.iteration / 2))])
    assert fit.history.iterations("largest").tolist() == [2, 4]
    assert fit.history["half"].tolist() == [1, 2]
    assert fit.history["largest"][-1] == fit.output.max().item()


def test_callback_ends_the_run_after_its_iteration():
    fit = quick_fit(iters=50, callbacks=[lambda f: f.stop("good enough") if f.iteration == 3 else None])
    assert (fit.iteration, fit.stop_reason) == (3, "good enough")
    assert fit.run(2).stop_reason == "iterations"  # a reason is for one run


def test_another_thread_ends_the_run():
    started, image = threading.Event(), picture()

    def work():
        result.append(dip.fit(dip.Denoise(image), iters=10**6, callbacks=[watch], **QUICK))

    def watch(fit):
        holder.append(fit)
        started.set()

    result, holder = [], []
    worker = threading.Thread(target=work)
    worker.start()
    assert started.wait(60)
    holder[0].stop("from outside")
    worker.join(60)
    assert result[0].stop_reason == "from outside"
    assert result[0].iteration < 10**6
    assert result[0].image.shape == image.shape


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
class TestCtrlC:
    @staticmethod
    def press(at, times=1):
        def callback(fit):
            if fit.iteration == at:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

        return callback

    def test_returns_the_result_so_far(self):
        before = signal.getsignal(signal.SIGINT)
        fit = quick_fit(iters=50, callbacks=[self.press(4)])
        assert (fit.iteration, fit.stop_reason) == (4, "interrupted")
        assert np.array_equal(fit.image, quick_fit(iters=4).image)
        assert signal.getsignal(signal.SIGINT) is before
        fit.run(2)
        assert (fit.iteration, fit.stop_reason) == (6, "iterations")

    def test_a_function_says_so(self):
        with pytest.warns(RuntimeWarning, match="interrupted: the image returned is that of iteration 4"):
            image = dip.denoise(picture(), iters=50, callbacks=[self.press(4)], **QUICK)
        assert np.array_equal(image, quick_fit(iters=4).image)

    def test_the_second_one_ends_it_at_once(self):
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            quick_fit(iters=50, callbacks=[self.press(4, times=2)])
        assert signal.getsignal(signal.SIGINT) is before

    def test_somebody_elses_handler_is_left_alone(self):
        calls = []
        before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
        try:
            fit = quick_fit(iters=5, callbacks=[self.press(2)])
        finally:
            signal.signal(signal.SIGINT, before)
        assert calls == [signal.SIGINT]
        assert fit.iteration == 5

    def test_while_the_last_checkpoint_is_written(self, tmp_path, monkeypatch):
        save = dip.Fit.save

        def slow(self, path):
            signal.raise_signal(signal.SIGINT)
            return save(self, path)

        monkeypatch.setattr(dip.Fit, "save", slow)
        fit = quick_fit(iters=3, checkpoint=tmp_path / "fit.st")
        assert fit.iteration == 3
        assert (tmp_path / "fit.st").exists()


def test_an_exception_in_a_callback_comes_out_and_the_fit_is_saved(tmp_path):
    def fail(fit):
        if fit.iteration == 3:
            raise ZeroDivisionError("mine")

    path, task = tmp_path / "fit.st", dip.Denoise(picture())
    fit = dip.Fit(task, callbacks=[fail], checkpoint=path, **QUICK)
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit.run(10)
    assert fit.iteration == 3
    whole = quick_fit(iters=10)
    assert np.array_equal(quick_fit(task, iters=10, resume=path).image, whole.image)
    assert np.array_equal(fit.run(7).image, whole.image)


def test_reference_adds_psnr_and_nothing_else():
    noisy, clean = picture(), picture(seed=1)
    plain = quick_fit(dip.Denoise(noisy), iters=4)
    fit = quick_fit(dip.Denoise(noisy), iters=4, reference=clean)
    assert np.array_equal(fit.image, plain.image)
    assert set(fit.history) - set(plain.history) == {"psnr", "psnr_output"}
    assert fit.history["psnr"][-1] == pytest.approx(dip.metrics.psnr(fit.image, clean), abs=1e-3)
    output = np.moveaxis(fit.output[0].numpy(), 0, -1)
    assert fit.history["psnr_output"][-1] == pytest.approx(dip.metrics.psnr(output, clean), abs=1e-3)


def test_reference_looks_at_the_picture_that_is_returned():
    """Inpainting puts the known pixels back, and a rule may have kept an earlier picture."""
    clean, mask = picture(seed=1), np.random.default_rng(0).random((16, 16)) < 0.6
    rule = dip.stopping.MovingVariance(0.2, 4, earliest=3)
    fit = quick_fit(dip.Inpaint(clean * mask[..., None], mask), iters=40, lr=0.03, reference=clean, stop=rule)
    assert not torch.equal(fit.picture, fit.current)
    assert fit.history["psnr"][-1] == pytest.approx(dip.metrics.psnr(fit.image, clean), abs=1e-3)


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ((12, 10, 3), lambda c: (c * 255).round().astype(np.uint8)),
        ((12, 10, 3), lambda c: torch.from_numpy(c).permute(2, 0, 1)),
        ((12, 10, 3), lambda c: torch.from_numpy(c).permute(2, 0, 1)[None]),
    ],
)
def test_reference_may_be_of_another_kind(image, reference):
    clean = picture(image, seed=1)
    fit = quick_fit(dip.Denoise(picture(image)), iters=1, reference=reference(clean))
    assert fit.history["psnr"][0] == pytest.approx(dip.metrics.psnr(fit.image, clean), abs=0.02)
    tensor = torch.from_numpy(picture(image)).permute(2, 0, 1)[None]
    of_tensor = quick_fit(dip.Denoise(tensor), iters=1, reference=reference(clean))
    assert of_tensor.history["psnr"][0] == pytest.approx(fit.history["psnr"][0], abs=1e-3)


def test_reference_of_super_resolution_and_reconstruction():
    small, large = picture((6, 5, 3)), picture((12, 10, 3), seed=1)
    fit = quick_fit(dip.SuperResolve(small, 2), iters=1, reference=large)
    assert fit.history["psnr"][0] == pytest.approx(dip.metrics.psnr(fit.image, large), abs=1e-3)
    clean = picture((8, 9), seed=1)
    fit = quick_fit(dip.Reconstruct(clean[None, None, ::2], lambda x: x[..., ::2, :], (8, 9)), iters=1, reference=clean)
    assert fit.history["psnr"][0] == pytest.approx(dip.metrics.psnr(fit.image, clean), abs=1e-3)


# ---------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_in_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert shows_progress()
    fit = quick_fit(iters=5)
    text = screen.getvalue()
    assert "denoise" in text
    assert "5/5" in text
    assert fit.callbacks == []  # the bar is gone after the run
    fit.run(3)
    assert "3/3" in screen.getvalue()


def test_no_bar_elsewhere_or_when_not_wanted(monkeypatch, capsys):
    quick_fit(iters=2)
    assert capsys.readouterr() == ("", "")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    quick_fit(iters=2, progress=False)
    assert screen.getvalue() == ""


def test_bar_where_it_is_asked_for(capsys):
    quick_fit(iters=2, progress=True)
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    assert captured.out == ""


def test_bar_is_closed_after_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    fit = dip.Fit(dip.Denoise(picture()), callbacks=[lambda f: 1 / 0], **QUICK)
    with pytest.raises(ZeroDivisionError):
        fit.run(3)
    assert len(fit.callbacks) == 1


def test_long_fits_on_a_cpu_are_announced(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    clock = iter(range(0, 10000, 2))
    monkeypatch.setattr(dip.callbacks.time, "perf_counter", lambda: next(clock))
    bar = Progress(1800, "denoise")
    fit = dip.Fit(dip.Denoise(picture()), **QUICK)
    for fit.iteration in (1, 2, 3, 4):
        bar(fit)
    bar.close()
    # The clock goes on by 2 s each time it is read: once at the start, once an iteration.
    assert "1800 iterations at about 2 s each" in screen.getvalue()
    assert "about 60 min" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (40, "40 s"), (719, "12 min"), (7500, "2 h 05 min"), (86400, "24 h 00 min")]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


# ---------------------------------------------------------------------- warm start


def test_warm_start_goes_on_from_the_earlier_weights():
    earlier = quick_fit(iters=20, jitter=0)
    warm = dip.Fit(dip.Denoise(picture()), init=earlier, jitter=0, **QUICK)
    warm.step()
    cold = quick_fit(iters=1, jitter=0)
    going_on = earlier.run(1)
    assert losses(warm)[0] == losses(going_on)[-1]
    assert losses(warm)[0] < 0.7 * losses(cold)[0]
    assert torch.equal(warm.code, going_on.code)


def test_warm_start_copies():
    earlier = quick_fit(iters=2)
    before = trained_state(earlier)
    quick_fit(iters=3, init=earlier, optimize_code=True)
    assert_equal_states(trained_state(earlier), before)


def test_warm_start_of_a_picture_of_another_size_takes_the_weights():
    earlier = quick_fit(iters=3)
    warm = dip.Fit(dip.Denoise(picture((20, 24, 3), seed=5)), init=earlier, **QUICK)
    assert warm.code.shape != earlier.code.shape
    for name, tensor in warm.network.state_dict().items():
        assert torch.equal(tensor, earlier.network.state_dict()[name])
    assert warm.run(2).image.shape == (20, 24, 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"network": {**NET, "up": [8, 4]}}, ValueError, "init is the fit of a network of another shape"),
        ({"code": dip.codes.Uniform(5)}, ValueError, "init is the fit of a network of another shape"),
        ({"init": "fit.st"}, TypeError, "init='fit.st': give an earlier fit, as returned by dip.fit"),
        ({"init": picture()}, TypeError, "init=ndarray of shape .*give an earlier fit"),
    ],
)
def test_warm_start_refuses(options, error, message):
    earlier = quick_fit(iters=1)
    with pytest.raises(error, match=message):
        quick_fit(iters=1, **{"init": earlier, **options})


# ---------------------------------------------------------------------- the real thing


@pytest.mark.slow
def test_a_real_photograph_becomes_better_by_5_5_db():
    """128 pixels square of a photograph, sigma 25 clipped, the paper's network and settings, 1000 iterations."""
    clean = skimage.data.astronaut()[30:158, 160:288] / 255.0
    noisy = dip.degradations.gaussian(clean, 25, seed=0)
    before = dip.metrics.psnr(noisy, clean)
    assert 20 < before < 21
    restored = dip.denoise(noisy, iters=1000, seed=0)
    assert dip.metrics.psnr(restored, clean) >= before + 5.5
