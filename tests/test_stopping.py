"""Stopping rules, against numpy and by hand; and inside a fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small import picture, quick_fit, within

import dip
from dip.stopping import Discrepancy, MovingVariance, ResidualFall, Rule, WindowedVariance

LOSS = torch.tensor(0.1)


def restless(count=120, quietest=60, shape=(1, 3, 6, 5), seed=0):
    """Outputs that move less and less up to `quietest` and more and more after it."""
    rng = np.random.default_rng(seed)
    still = rng.random(shape)
    strength = 0.01 + 0.3 * (np.abs(np.arange(count) - quietest) / count) ** 1.5
    moving = still + strength[:, None, None, None, None] * rng.standard_normal((count, *shape))
    return [torch.from_numpy(x.astype(np.float32)) for x in moving]


def watch(rule, outputs, first=1):
    """Feed a rule; return the iteration at which it stops, None if it does not."""
    for i, x in enumerate(outputs, first):
        if rule.update(i, x, x + 1, LOSS):  # the picture is another tensor than the output
            return i
    return None


def windowed_variances(outputs, window):
    """ES-WMV by its formula: {iteration: variance}."""
    frames = torch.stack(outputs).numpy().astype(np.float64)
    return {t: np.var(frames[t - window : t], axis=0).mean() for t in range(window, len(frames) + 1)}


def moving_variances(outputs, alpha):
    """ES-EMV by its formula."""
    mean, variance, values = outputs[0].numpy().astype(np.float64), 0.0, {}
    for t, x in enumerate(outputs[1:], 2):
        d = x.numpy() - mean
        mean = mean + alpha * d
        variance = (1 - alpha) * (variance + alpha * np.mean(d**2))
        values[t] = variance
    return values


def worked_stop(values, patience, earliest):
    """The iteration of the minimum and that of the stop, from a series of variances."""
    best = math.inf, 0
    for t, value in values.items():
        if t < earliest:
            continue
        if value < best[0]:
            best = value, t
        if t - best[1] >= patience:
            return best[1], t
    return best[1], None


RULES = [
    (WindowedVariance(10, 20, earliest=15), lambda o: windowed_variances(o, 10), 20, 15),
    (WindowedVariance(2, 7, earliest=1), lambda o: windowed_variances(o, 2), 7, 1),
    (WindowedVariance(30, 1000, earliest=1), lambda o: windowed_variances(o, 30), 1000, 1),
    (MovingVariance(0.1, 20, earliest=15), lambda o: moving_variances(o, 0.1), 20, 15),
    (MovingVariance(0.5, 9, earliest=70), lambda o: moving_variances(o, 0.5), 9, 70),
]


@pytest.mark.parametrize(("rule", "formula", "patience", "earliest"), RULES)
def test_stops_and_remembers_as_worked_by_hand(rule, formula, patience, earliest):
    import copy

    rule, outputs = copy.deepcopy(rule), restless()
    values = formula(outputs)
    best, stop = worked_stop(values, patience, earliest)
    assert watch(rule, outputs) == stop
    assert rule.iteration == best
    assert rule.value == pytest.approx(values[best], rel=1e-4)
    assert torch.equal(rule.image, outputs[best - 1] + 1)
    assert str(best) in rule.reason
    assert ("a smaller earliest" in rule.reason) == (best == earliest)
    assert type(rule).__name__ in rule.reason


@pytest.mark.parametrize(("rule", "formula", "patience", "earliest"), RULES)
@pytest.mark.parametrize("split", [1, 5, 40, 75])
def test_goes_on_from_its_state(rule, formula, patience, earliest, split):
    import copy

    whole, first, second = (copy.deepcopy(rule) for _ in range(3))
    outputs = restless()
    expected = watch(whole, outputs)
    early = watch(first, outputs[:split])
    state = first.state_dict()
    if early is None:
        watch(first, outputs[split:], split + 1)  # what happens to the first must not change the state it gave
        second.load_state_dict(state)
        assert watch(second, outputs[split:], split + 1) == expected
        assert (second.iteration, second.value) == (whole.iteration, whole.value)
        assert torch.equal(second.image, whole.image)


# ---------------------------------------------------------------------- the fall of the residual


def learnt(count=120):
    """Residuals of a fit: what is left of the picture falls ever more slowly, the noise faster and faster."""
    t = np.arange(1, count + 1)
    return 1 + 5 * np.exp(-t / 12) - 0.4 * np.exp((t - count) / 25)


def told(rule, residuals, first=1):
    """Feed a rule with pictures that have these residuals; return the iteration at which it stops."""
    rule.place(lambda x: x.mean())
    return watch(rule, [torch.full((1, 1, 2, 2), float(r) - 1, dtype=torch.float64) for r in residuals], first)


def worked_fall(residuals, window, ratio, earliest):
    """The iteration of the slowest fall, that fall, and the iteration of the end, by the formula."""
    every, least = window // 4, (math.inf, 0)
    for t in range(5 * every, len(residuals) + 1, every):
        now = residuals[t - 1]
        fall = (residuals[t - 4 * every - 1] - now) / abs(now)
        if t < earliest:
            continue
        if fall < least[0]:
            least = fall, t
        elif fall > ratio * max(least[0], 1e-3 * window / 100):
            return least[1], least[0], t
    return least[1], least[0], None


FALLS = [(20, 1.15, 1), (8, 1.15, 1), (4, 1.5, 40), (20, 3.0, 1), (23, 1.01, 1), (20, 1.15, 90), (8, 1000.0, 1)]


@pytest.mark.parametrize(("window", "ratio", "earliest"), FALLS)
def test_the_fall_as_worked_by_hand(window, ratio, earliest):
    rule = ResidualFall(window, ratio, earliest=earliest)
    best, least, end = worked_fall(learnt(), window, ratio, earliest)
    assert best > 10
    assert (end is None) == (ratio > 100)
    assert told(rule, learnt()) == end
    assert (rule.iteration, rule.ended_at) == (best, end or 0)
    assert rule.value == pytest.approx(least, rel=1e-6)
    assert rule.image.mean() == pytest.approx(learnt()[best - 1])
    assert str(best) in rule.reason
    assert str(end or "") in rule.reason


def test_the_fall_forgets_what_was_before_a_divergence():
    rule, alone = (ResidualFall(8, 1.15, earliest=1) for _ in range(2))
    told(rule, learnt()[:60])
    assert rule.iteration
    rule.forget()
    end = told(rule, learnt(), 61)
    assert end == told(alone, learnt()) + 60
    assert (rule.iteration, rule.value) == (alone.iteration + 60, alone.value)


def test_a_rule_is_told_of_a_divergence(monkeypatch):
    calls, forgotten = [], []
    monkeypatch.setattr(ResidualFall, "forget", lambda self: forgotten.append(len(calls)))

    def loss(prediction, y):
        calls.append(1)
        return (prediction - y).square().mean() * (math.nan if len(calls) == 4 else 1)

    with pytest.warns(RuntimeWarning, match="the loss became nan"):
        quick_fit(stop=ResidualFall(8, 1.15, earliest=1), loss=loss, iters=20)
    assert forgotten == [4]


@pytest.mark.parametrize("split", [1, 5, 40, 75])
def test_the_fall_goes_on_from_its_state(split):
    whole, first, second = (ResidualFall(8, 1.15, earliest=1) for _ in range(3))
    end = told(whole, learnt())
    assert split < end
    told(first, learnt()[:split])
    state = first.state_dict()
    told(first, learnt()[split:], split + 1)  # what happens to the first must not change the state it gave
    second.load_state_dict(state)
    assert told(second, learnt()[split:], split + 1) == end
    assert (second.iteration, second.value) == (whole.iteration, whole.value)
    assert torch.equal(second.image, whole.image)


def test_a_picture_alone_does_not_end_it():
    picture_alone = 1 + 5 * np.exp(-np.arange(1, 200) / 30)
    assert told(ResidualFall(8, 1.15, earliest=1), picture_alone) is None
    assert told(ResidualFall(8, 1.15, earliest=1), 1 - 1e-9 * np.arange(200.0) ** 2) is None  # too little to compare


def test_without_a_fit_it_is_said_what_is_missing():
    with pytest.raises(RuntimeError, match=r"place\(\)"):
        ResidualFall().update(1, torch.zeros(1), torch.zeros(1), LOSS)


def mask():
    return np.random.default_rng(0).random((16, 16)) < 0.7


@pytest.mark.parametrize(
    ("make", "seen_where"),
    [
        (lambda: dip.Denoise(picture()), ...),
        (lambda: dip.Denoise(picture(), noise=dip.noise.PoissonGaussian(0.01)), ...),
        (lambda: dip.Inpaint(picture(), mask()), (..., torch.from_numpy(mask()))),
        (lambda: dip.SuperResolve(picture((8, 8, 3)), 2), ...),
    ],
    ids=["denoise", "poisson", "inpaint", "super-resolve"],
)
def test_in_a_fit_it_looks_at_the_loss_of_what_would_be_returned(make, seen_where):
    losses = []

    def keep(fit):
        losses.append(float((fit.task.forward(fit.current) - fit.y)[seen_where].square().mean()))

    keep.every = 3
    fit = quick_fit(make(), stop=ResidualFall(12, 1e9, earliest=1), iters=24, callbacks=[keep])
    np.testing.assert_allclose(fit.settings.stop._residuals, losses[-5:], rtol=1e-4)


def test_a_fit_ends_when_its_residual_falls_faster():
    """Of noise alone, whose loss is taken for that of the picture."""
    pictures = []
    fit = quick_fit(
        stop=ResidualFall(8, 1.15, earliest=1), iters=300, callbacks=[lambda fit: pictures.append(fit.current.clone())]
    )
    assert fit.stop_reason == fit.settings.stop.reason
    assert fit.iteration < 300
    assert torch.equal(fit.picture, pictures[fit.settings.stop.iteration - 1])


def test_picture_of_the_minimum_is_a_copy():
    rule = MovingVariance(0.5, 5, earliest=1)
    x = torch.rand(1, 1, 3, 3)
    rule.update(1, x, x, LOSS)
    picture = x.clone()
    rule.update(2, x, picture, LOSS)
    kept = rule.image.clone()
    picture.zero_()
    assert torch.equal(rule.image, kept)


def test_window_looks_at_a_regular_grid_of_a_large_picture():
    outputs = [torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    rule = WindowedVariance(3, 10, earliest=1, pixels=400)
    watch(rule, outputs[:3])
    steps = [step for step in range(1, 40) if 3 * len(range(0, 40, step)) * len(range(0, 30, step)) <= 400]
    sub = torch.stack(outputs[:3]).numpy()[..., :: steps[0], :: steps[0]]
    assert rule.value == pytest.approx(np.var(sub, axis=0).mean(), rel=1e-5)


def test_discrepancy_stops_when_the_residual_is_the_noise():
    rule = Discrepancy(0.1, tau=1.5, earliest=3)
    images = restless(6)
    losses = [0.2, 0.01, 0.02, 0.0151, 0.0149, 0.001]
    stops = [rule.update(i, x, x, torch.tensor(v)) for i, (x, v) in enumerate(zip(images, losses, strict=True), 1)]
    assert stops == [False, False, False, False, True, False]  # once
    assert torch.equal(rule.image, images[4])
    assert "noise level 0.1 at iteration 5" in rule.reason


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WindowedVariance(1), "window=1: a variance needs at least 2"),
        (lambda: WindowedVariance(0), "window must be .* not 0"),
        (lambda: WindowedVariance(patience=-1), "patience must be .* not -1"),
        (lambda: WindowedVariance(pixels=0), "pixels must be"),
        (lambda: WindowedVariance(earliest=0.5), "earliest must be"),
        (lambda: ResidualFall(3), "window=3: it is looked at 4 times"),
        (lambda: ResidualFall(window=-8), "window must be .* not -8"),
        (lambda: ResidualFall(ratio=1.0), "ratio=1.0: it has to be above 1, such as 1.15"),
        (lambda: ResidualFall(ratio="much"), "ratio must be"),
        (lambda: ResidualFall(earliest=0), "earliest must be"),
        (lambda: MovingVariance(1.0), "alpha=1.0: .* below 1"),
        (lambda: MovingVariance(0), "alpha must be .* above 0"),
        (lambda: MovingVariance(patience=True), "patience must be"),
        (lambda: Discrepancy(0), "sigma must be .* above 0"),
        (lambda: quick_fit(stop=Discrepancy(25)), r"Discrepancy\(25\): white is 1 here.* it is 25 / 255"),
        (lambda: Discrepancy(0.1, tau=-1), "tau must be"),
        (lambda: quick_fit(stop="wmv"), "stop='wmv': give a rule such as"),
        (lambda: quick_fit(stop=ResidualFall(), average=0), "ResidualFall .*; it cannot go with average=0"),
        (lambda: quick_fit(stop=Discrepancy(0.1), loss="l1"), "Discrepancy compares squared residuals.*L1"),
    ],
)
def test_refusals(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# ---------------------------------------------------------------------- in a fit


@pytest.mark.parametrize("average", [0, 0.9])
@pytest.mark.parametrize(
    ("rule", "formula"),
    [
        (WindowedVariance(4, 6, earliest=5), lambda o: windowed_variances(o, 4)),
        (MovingVariance(0.2, 6, earliest=5), lambda o: moving_variances(o, 0.2)),
    ],
)
def test_fit_returns_the_picture_at_the_minimum(rule, formula, average):
    outputs, pictures = [], []

    def keep(fit):
        outputs.append(fit.output.clone())
        pictures.append(fit.current.clone())

    fit = quick_fit(stop=rule, iters=200, average=average, callbacks=[keep], lr=0.03)
    best, stop = worked_stop(formula(outputs), 6, 5)
    assert stop is not None
    assert fit.iteration == stop
    assert fit.stop_reason == fit.settings.stop.reason
    assert f"lowest at iteration {best}" in fit.stop_reason
    assert torch.equal(fit.picture, pictures[best - 1])
    np.testing.assert_allclose(fit.image, within(pictures[best - 1][0].numpy(), fit), rtol=1e-6)
    assert not torch.equal(fit.picture, fit.current)


@pytest.mark.filterwarnings("ignore:WindowedVariance looks at nothing before")
def test_a_rule_that_found_nothing_leaves_the_last_average():
    fit = quick_fit(stop=WindowedVariance(), iters=5)
    assert fit.stop_reason == "iterations"
    assert torch.equal(fit.picture, fit.current)


def test_the_rule_that_was_given_stays_fresh():
    rule = MovingVariance(0.2, 3, earliest=2)
    one, two = (quick_fit(stop=rule, iters=60, lr=0.03) for _ in range(2))
    assert rule.iteration == 0
    assert rule.image is None
    assert one.iteration == two.iteration < 60
    assert torch.equal(one.picture, two.picture)


@pytest.mark.filterwarnings("ignore:ResidualFall looks at nothing before")
@pytest.mark.parametrize(
    "rule", [WindowedVariance(4, 8, earliest=5), MovingVariance(0.2, 8, earliest=5), ResidualFall(8, 1.3, earliest=1)]
)
def test_rule_survives_a_checkpoint(tmp_path, rule):
    task = dip.Denoise(picture((9, 14, 3)))
    whole = quick_fit(task, stop=rule, iters=100, lr=0.03)
    assert whole.stop_reason != "iterations"
    first = quick_fit(task, stop=rule, iters=whole.iteration - 5, lr=0.03)
    first.save(tmp_path / "fit.st")
    second = quick_fit(task, stop=rule, iters=100, lr=0.03, resume=tmp_path / "fit.st")
    assert (second.iteration, second.stop_reason) == (whole.iteration, whole.stop_reason)
    assert torch.equal(second.picture, whole.picture)


@pytest.mark.parametrize(
    "rule", [MovingVariance(0.2, 4, earliest=3), Discrepancy(0.2, earliest=1), ResidualFall(8, earliest=1)]
)
def test_a_fit_that_its_rule_has_ended_is_not_reopened_by_resuming_it(tmp_path, rule):
    task, path = dip.Denoise(picture()), tmp_path / "fit.st"
    ended = quick_fit(task, stop=rule, iters=100, lr=0.03, checkpoint=path)
    assert ended.stop_reason != "iterations"
    again = quick_fit(task, stop=rule, iters=100, lr=0.03, checkpoint=path, resume=path)
    assert (again.iteration, again.stop_reason) == (ended.iteration, ended.stop_reason)
    assert torch.equal(again.picture, ended.picture)


@pytest.mark.parametrize(
    "rule", [MovingVariance(0.2, 4, earliest=3), Discrepancy(0.2, earliest=1), ResidualFall(8, earliest=1)]
)
def test_running_on_after_the_rule_does_what_was_asked(rule):
    fit = quick_fit(stop=rule, iters=100, lr=0.03)
    ended = fit.iteration
    assert ended < 100
    fit.run(3)
    assert fit.iteration == ended + 3


def test_discrepancy_in_a_fit():
    fit = quick_fit(stop=Discrepancy(0.2, earliest=1), iters=300)
    losses = fit.history["loss"]
    assert losses[-1] <= 0.04 < losses[:-1].min()
    assert torch.equal(fit.picture, fit.current)


class Counting(Rule):
    """A rule of one's own: the lowest loss."""

    def __init__(self):
        super().__init__(patience=1000, earliest=1)
        self.seen = []

    def measure(self, output, loss):
        self.seen.append(float(loss))
        return float(loss)


def test_a_rule_of_ones_own_sees_the_data_loss_of_good_iterations_only():
    def loss(prediction, y, weight=None):
        calls.append(1)
        value = (prediction - y).square().mean()
        return value * math.nan if len(calls) == 4 else value

    calls = []
    with pytest.warns(RuntimeWarning, match="nan at iteration 4"):
        fit = quick_fit(stop=Counting(), loss=loss, iters=6, penalty=dip.losses.TotalVariation(0.5))
    seen = fit.settings.stop.seen
    assert len(seen) == 5
    assert np.isfinite(seen).all()
    np.testing.assert_allclose(seen, np.delete(fit.history["data_loss"], 3))


def test_a_fit_too_short_for_its_rule_is_told():
    said = "WindowedVariance looks at nothing before iteration"
    with pytest.warns(RuntimeWarning, match=f"{said} 400, so with iters=2 .* smaller earliest="):
        quick_fit(iters=2, stop=WindowedVariance())
    with pytest.warns(RuntimeWarning, match=f"{said} 9, .* shorter window"):
        quick_fit(iters=8, stop=WindowedVariance(9, earliest=2))
    with pytest.warns(RuntimeWarning, match="ResidualFall looks at nothing before iteration 150, .* smaller earliest="):
        quick_fit(iters=8, stop=ResidualFall())
    with pytest.warns(RuntimeWarning, match="ResidualFall looks at nothing before iteration 10, .* shorter window"):
        quick_fit(iters=8, stop=ResidualFall(8, earliest=2))
    quick_fit(iters=2, stop=WindowedVariance(2, earliest=2))  # a warning is an error here
    quick_fit(iters=1, stop=Discrepancy(0.1, earliest=1))


def test_discrepancy_of_a_measurement_is_in_its_own_unit():
    clean = 255 * torch.from_numpy(picture((16, 18)))[None, None]
    y = clean + 40 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    task = dip.Reconstruct(y, lambda x: x, (16, 18), data_range=255)
    fit = quick_fit(task, stop=Discrepancy(60.0, earliest=2), iters=300)
    assert fit.stop_reason.startswith("Discrepancy: the residual reached the noise level 60")
    assert fit.history["loss"][-1] <= 60**2 < fit.history["loss"][0]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_discrepancy_tells_of_what_was_not_measured(library):
    mask = np.random.default_rng(0).random((16, 18)) < 0.25
    operator = dip.operators.Fourier(mask, centred=False)
    noise = np.random.default_rng(1).normal(size=(16, 18, 2)) @ [0.1, 0.1j]
    y = (np.fft.fft2(picture((16, 18)), norm="ortho") + noise) * mask
    y = torch.from_numpy(y) if library == "torch" else y
    rule = Discrepancy(0.1, earliest=2)
    with pytest.warns(RuntimeWarning, match=r"\d\d% of y is exactly 0, .*give weight=.*the mask"):
        quick_fit(dip.Reconstruct(y, operator, (16, 18)), stop=rule, iters=2)
    weight = torch.from_numpy(mask) if library == "torch" else mask
    weighted = dip.Reconstruct(y, operator, (16, 18), weight=weight)
    quick_fit(dip.Reconstruct(y, operator, (16, 18)), iters=2)  # a warning is an error
    fit = quick_fit(weighted, stop=rule, iters=2)
    residual = (operator(fit.output).numpy() - np.asarray(y))[mask]
    assert fit.history["loss"][-1] == pytest.approx((np.abs(residual) ** 2).mean(), rel=1e-4)  # of those alone
