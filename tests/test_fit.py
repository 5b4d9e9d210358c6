"""The one loop: its result, its seed, its objective, running on, warm start; and the real thing."""

from __future__ import annotations

import random
import re
import signal

import numpy as np
import pytest
import skimage.data
import torch
from small import NET, QUICK, assert_equal_states, picture, quick_fit, trained_state, within

import dip


def losses(fit):
    return fit.history["loss"]


# ---------------------------------------------------------------------- the result


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_returned_image_is_the_bias_corrected_average_of_the_outputs(decay):
    outputs = []
    fit = quick_fit(iters=12, average=decay, callbacks=[lambda fit: outputs.append(fit.output.clone())])
    weights = decay ** np.arange(11, -1, -1.0)
    expected = np.average(torch.stack(outputs).numpy(), axis=0, weights=weights)[0]
    np.testing.assert_allclose(fit.image, within(expected, fit), atol=1e-6)
    assert np.abs(fit.image - within(outputs[-1][0].numpy(), fit)).max() > 1e-4


def test_average_0_returns_the_last_output():
    outputs = []
    fit = quick_fit(iters=5, average=0, callbacks=[lambda fit: outputs.append(fit.output.clone())])
    np.testing.assert_array_equal(fit.image, within(outputs[-1][0].numpy(), fit))
    assert torch.equal(fit.current, outputs[-1])


@pytest.mark.parametrize(("value", "dtype"), [(0, "uint8"), (255, "uint8"), (0, "uint16"), (0.25, "float32")])
@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
@pytest.mark.filterwarnings("ignore:noise=:RuntimeWarning")  # that it cannot be told
def test_a_blank_picture_stays_blank(value, dtype, noise):
    blank = np.full((24, 20), value, dtype)
    assert (dip.denoise(blank, noise=noise, iters=2, **QUICK) == blank).all()


def test_the_first_iteration_by_hand():
    """z from the seed, jitter, network, crop, loss, one Adam step: the equation with plain torch."""
    image = picture((9, 14, 3))
    fit = dip.Fit(dip.Denoise(image), **{**QUICK, "jitter": 0.0, "lr": 0.02})
    weights = {name: p.detach().clone().requires_grad_() for name, p in fit.network.named_parameters()}
    z = fit.code.detach().clone()
    assert z.shape == (1, 8, 12, 16)
    assert 0 <= z.min() < z.max() <= 0.1
    x = torch.func.functional_call(fit.network, weights, (z,))[..., 1:10, 1:15]
    expected = ((x - torch.from_numpy(image).permute(2, 0, 1)) ** 2).mean()
    gradients = torch.autograd.grad(expected, [*weights.values()])
    fit.step()
    assert losses(fit)[0] == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(fit.output, x.detach())
    for (name, p), g in zip(fit.network.named_parameters(), gradients, strict=True):
        stepped = weights[name] - 0.02 * g / (g.abs() + 1e-8)  # Adam's first step: both moments are the gradient's
        sure = g.abs() > 1e-5  # where a gradient is zero up to rounding, so is its sign
        torch.testing.assert_close(p[sure], stepped[sure], rtol=0, atol=1e-4)


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


def test_a_loss_with_axes_but_one_number_is_taken():
    expected = quick_fit(iters=3, penalty=lambda x: 0.1 * x.mean()).history
    for axes in ((1,), (1, 1)):
        found = quick_fit(
            iters=3,
            loss=lambda x, y, axes=axes: (x - y).square().mean().reshape(axes),
            penalty=lambda x, axes=axes: 0.1 * x.mean().reshape(axes),
            stop=dip.stopping.MovingVariance(earliest=1),
        )
        assert np.array_equal(found.history["loss"], expected["loss"])
        assert np.array_equal(found.history["data_loss"], expected["data_loss"])


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
    plain = quick_fit(iters=30, average=0)
    smooth = quick_fit(iters=30, average=0, penalty=[penalty, dip.losses.TotalVariation(1.0)])
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
    fit = quick_fit(iters=25, optimizer="lbfgs")
    assert fit.settings.jitter == 0  # unless it is asked for
    assert dip.Fit(dip.Denoise(picture()), optimizer="lbfgs", jitter=0.1, **QUICK).settings.jitter == 0.1
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


# ---------------------------------------------------------------------- warm start


def test_warm_start_goes_on_from_the_earlier_weights():
    earlier = quick_fit(iters=20, jitter=0)
    warm = dip.Fit(dip.Denoise(picture()), init=earlier, jitter=0, **QUICK)
    warm.run(8)
    cold = quick_fit(iters=8, jitter=0)
    going_on = earlier.run(8)
    assert losses(warm).tolist() == losses(going_on)[-8:].tolist()  # with Adam's moments, or the second would jump
    assert losses(warm)[0] < 0.7 * losses(cold)[0]
    assert torch.equal(warm.code, going_on.code)


def test_warm_start_keeps_the_picture_that_is_its_own_code():
    earlier, later = (dip.codes.Image(picture(seed=seed)) for seed in (1, 2))
    first = quick_fit(iters=3, code=earlier)
    second = dip.Fit(dip.Denoise(picture(seed=3)), init=first, **{**QUICK, "code": later})
    assert torch.equal(second.code, dip.Fit(dip.Denoise(picture(seed=3)), **{**QUICK, "code": later}).code)
    assert torch.equal(second.network.out.weight, first.network.out.weight)


@pytest.mark.parametrize("options", [{"optimizer": "lbfgs"}, {"optimize_code": True}])
def test_warm_start_with_other_parameters_or_another_optimiser_takes_the_weights_alone(options):
    earlier = quick_fit(iters=3)
    warm = quick_fit(iters=2, init=earlier, **options)
    assert np.isfinite(losses(warm)).all()
    assert losses(warm)[0] < losses(earlier)[0]


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
        ({"resume": "fit.st"}, ValueError, "init= and resume= are two ways to begin"),
    ],
)
def test_warm_start_refuses(options, error, message):
    earlier = quick_fit(iters=1)
    with pytest.raises(error, match=message):
        quick_fit(iters=1, **{"init": earlier, **options})


# ---------------------------------------------------------------------- the real thing


@pytest.mark.slow
def test_a_real_photograph_becomes_better_by_5_5_db():
    """64 pixels square of a photograph, sigma 25 clipped, the paper's network and settings, 200 iterations."""
    clean = skimage.data.astronaut()[80:144, 192:256] / 255.0
    noisy = dip.degradations.gaussian(clean, 25, seed=0)
    before = dip.metrics.psnr(noisy, clean)
    assert 20 < before < 21
    restored = dip.denoise(noisy, iters=200, seed=0)
    assert dip.metrics.psnr(restored, clean) >= before + 5.5
