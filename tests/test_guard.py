"""The divergence guard: what it restores, what it lets be, and when it gives up."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import QUICK, assert_equal_states, picture, quick_fit, trained_state

import dip
from dip import guard


def losses(fit):
    return fit.history["loss"]


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


def test_a_rise_in_a_few_steps_is_one():
    """Each step is less than 5 dB, so none of them is sudden; all together lead away within one interval of copies."""
    loss = Sick(lambda call: call in range(260, 264), lambda value: value * 2.0 ** (loss.calls - 259))
    with pytest.warns(RuntimeWarning, match="went back to the state of iteration 251"):
        fit = quick_fit(dip.Denoise(picture()), iters=270, loss=loss)
    found = losses(fit)
    assert max(found[i + 1] / found[i] for i in range(250, 262)) < 10**0.5
    assert [one["back_to"] for one in fit.recoveries] == [251] * len(fit.recoveries)


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


@pytest.mark.parametrize("shape", [(1, 1), (2, 1, 3)])
@pytest.mark.parametrize("value", [0, 128])
def test_the_scatter_of_a_few_pixels_is_no_divergence(shape, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        fit = quick_fit(dip.Denoise(np.full(shape, value, np.uint8)), iters=200)
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
        assert fit._watch.unchecked == []

    def test_those_up_to_the_last_copy_are_looked_at_when_the_next_is_made(self):
        fit, left = dip.Fit(dip.Denoise(picture()), **QUICK), {}
        for _ in range(101):
            fit.step()
            left[fit.iteration] = len(fit._watch.unchecked), fit._guard.good_iteration
        # the first copy is of the first iteration, and the next one due after 25 more
        assert [left[number] for number in (1, 2, 24, 25)] == [(0, 1), (1, 1), (23, 1), (0, 1)]
        assert [left[number] for number in (26, 50, 51, 74)] == [(1, 1), (25, 1), (26, 1), (49, 1)]
        assert [left[number] for number in (75, 99, 100, 101)] == [(25, 50), (49, 50), (25, 75), (26, 75)]

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

    def test_a_loaded_fit_looks_at_its_own_losses(self, tmp_path):
        """Those of the run that it was taken back from are of no interest any more."""

        def break_off(fit):
            raise RuntimeError("enough")

        fit = dip.Fit(dip.Denoise(picture()), **QUICK, callbacks=[dip.callbacks.Every(130, break_off)]).run(100)
        path = fit.save(tmp_path / "fit.dip")
        with pytest.raises(RuntimeError, match="enough"):
            fit.run()
        assert fit._watch._copied is not None
        fit.load(path)
        assert fit._watch._copied is None
        fit.settings = replace(fit.settings, loss=Sick(lambda call: call == 20, lambda value: value * math.nan))
        with pytest.warns(RuntimeWarning, match="loss became nan"):
            fit.run(29)
        assert [one["back_to"] for one in fit.recoveries] == [100]
        assert np.isfinite(fit.image).all()

    def test_the_time_that_the_last_losses_take_is_counted(self, monkeypatch):
        now, settle = [0.0], guard.Watch.settle
        monkeypatch.setattr(dip.solver.time, "perf_counter", lambda: now[0])

        def late(watch, fit):
            now[0] += 7
            return settle(watch, fit)

        fit = dip.Fit(dip.Denoise(picture()), **QUICK)
        monkeypatch.setattr(guard.Watch, "settle", late)
        assert fit.run(10).seconds == now[0] > 7

    def test_nan_does_not_get_into_a_code_that_is_made_of_the_average(self):
        loss = Sick(lambda call: call == 38, lambda value: value * math.nan)
        with pytest.warns(RuntimeWarning, match="at iteration 40; went back"):
            fit = quick_fit(iters=60, loss=loss, code=dip.codes.Denoised(noise=2, renewed=40))
        assert torch.isfinite(fit.code).all()
        assert len(fit.recoveries) == 1
        assert np.isfinite(losses(fit)[40:]).all()

    def test_nan_found_at_the_end_under_inference_mode(self):
        loss = Sick(lambda call: call == 58, lambda value: value * math.nan)
        with torch.inference_mode(), pytest.warns(RuntimeWarning, match="went back to the state of iteration 50"):
            fit = quick_fit(iters=60, loss=loss)
        assert np.isfinite(fit.run(3).image).all()

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
