"""The recorded iteration: on a CPU with a recorder that plays by calling again, on a GPU with CUDA graphs."""

from __future__ import annotations

import inspect
import math
import types
import warnings
from contextlib import contextmanager, nullcontext
from functools import cache

import numpy as np
import pytest
import torch
from small import NET, QUICK, assert_equal_states, picture, trained_state
from torch.utils._python_dispatch import TorchDispatchMode

import dip
from dip import devices, recorder, replay, solver
from dip.draws import Draws
from dip.networks import cuda, layers

LR = 2.0**-7  # a learning rate that float32 holds exactly: in a graph it is a tensor
ENOUGH, FEW = 20, 40  # iterations that are worth a recording in these tests, and of most fits


class Taped:
    """Work that is done again by calling it; what comes of it is always in the same tensors, as in a CUDA graph."""

    def __init__(self, tape, work):
        self.tape, self.work, self.outputs = tape, work, work()

    def replay(self):
        self.tape.replays += 1
        for kept, new in zip(self.outputs, self.tape.play(self.work), strict=True):
            kept.copy_(new)


class Tape:
    """A recorder for the CPU. `play` does the work at a replay: a test may spoil it."""

    def __init__(self, play=lambda work: work(), context=nullcontext):
        self.play, self.context = play, context
        self.recorded = self.replays = self.mended = 0

    def generators(self):
        return [torch.default_generator]

    def aside(self, work):
        return work()

    def record(self, work, generator=None, kept=False):
        self.recorded += 1

        def watched():
            with self.context():
                return work()

        return Taped(self, watched)

    def mend(self):
        self.mended += 1


@pytest.fixture
def tape(monkeypatch):
    """Let fits on the CPU be recorded, and be as loath to look at a number as a GPU is."""
    tape = Tape()
    monkeypatch.setattr(replay, "recorder", lambda device: tape)
    monkeypatch.setattr(replay, "WORTHWHILE", ENOUGH)
    monkeypatch.setattr(dip.devices, "asynchronous", lambda device: True)
    return tape


def new_fit(task=None, **options):
    return dip.Fit(dip.Denoise(picture()) if task is None else task, **{**QUICK, "lr": LR, "device": "cpu", **options})


def plain_fit(iters=FEW, **options):
    """The same without a recording; where there are no options but the seed, that of an earlier test, which is read."""
    if options.keys() <= {"seed"}:
        return _plain_fit(iters, **options)
    return new_fit(engine="plain", **options).run(iters)


@cache
def _plain_fit(iters, **options):
    return new_fit(engine="plain", **options).run(iters)


def assert_same_fit(one, other):
    assert one.iteration == other.iteration
    assert one.history.keys() == other.history.keys()
    for name in one.history:
        np.testing.assert_array_equal(one.history[name], other.history[name])
        np.testing.assert_array_equal(one.history.iterations(name), other.history.iterations(name))
    np.testing.assert_array_equal(one.image, other.image)
    assert torch.equal(one.output, other.output)
    assert_equal_states(trained_state(one), trained_state(other))
    assert torch.equal(one._jitter.state_dict()["generator"], other._jitter.state_dict()["generator"])
    assert repr(one.recoveries) == repr(other.recoveries)  # NaN is not equal to itself
    assert one.stop_reason == other.stop_reason


def both(tape, iters=FEW, **options):
    """The same fit plainly and replayed; `options` are made anew for each."""
    made = {name: make if callable(make) else (lambda make=make: make) for name, make in options.items()}
    plain = new_fit(engine="plain", **{name: make() for name, make in made.items()}).run(iters)
    assert tape.recorded == 0
    replayed = new_fit(**{name: make() for name, make in made.items()}).run(iters)
    assert tape.recorded
    return plain, replayed


# ---------------------------------------------------------------------- the same fit


def mask():
    return np.arange(256).reshape(16, 16) % 3 > 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"jitter": 0.0},
        {"average": 0.0},
        {"optimize_code": True},
        {"flips": 5},
        {"flips": 5, "optimize_code": True, "precision": "bfloat16"},
        {"penalty": dip.losses.TotalVariation(0.01)},
        {"precision": "bfloat16"},
        {"reference": picture(seed=1)},
        {"loss": "huber", "task": lambda: dip.Inpaint(picture(), mask())},
        {"task": lambda: dip.SuperResolve(picture(), 2)},
        {"task": lambda: dip.Denoise(picture((9, 14, 3)))},
        {"stop": lambda: dip.stopping.WindowedVariance(10, 20, earliest=20)},
        {"stop": lambda: dip.stopping.MovingVariance(patience=20, earliest=20)},
        {"stop": lambda: dip.stopping.ResidualFall(8, 1.3, earliest=1)},
    ],
    ids=lambda options: ", ".join(options) or "plain denoising",
)
def test_is_the_plain_fit_bit_for_bit(tape, options):
    options = {k: v if k in ("task", "stop") else (lambda v=v: v) for k, v in options.items()}
    plain, replayed = both(tape, **options)
    assert_same_fit(plain, replayed)
    # two of the comparison, and two an iteration but the first
    assert tape.replays == 4 + 2 * (plain.iteration - 1)
    assert tape.recorded == 2


@pytest.fixture
def own_draws(monkeypatch):
    """Let something stand in for the kernel that draws the jitter on a GPU."""

    def draw(z, drawn, count, seed, std):
        noise = torch.randn(z.numel(), generator=torch.Generator().manual_seed(seed + int(count)))
        drawn.copy_(z.as_strided((z.numel(),), (1,)) + std * noise)

    monkeypatch.setattr(cuda, "draws", lambda device, dtype: True)
    monkeypatch.setattr(cuda, "draw", draw)


@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16"}, {"optimize_code": True}])
def test_jitter_that_a_kernel_draws_is_the_plain_fits_too(tape, own_draws, options):
    plain, replayed = both(tape, **options)
    assert_same_fit(plain, replayed)
    if not options.get("optimize_code"):
        assert plain._jitter._count == replayed._jitter._count == FEW


def test_jitter_that_a_kernel_draws_goes_on_from_a_checkpoint(tape, own_draws, tmp_path):
    whole = new_fit().run(FEW)
    new_fit(checkpoint=tmp_path / "half.dip").run(FEW // 2)
    resumed = new_fit().load(tmp_path / "half.dip").run(FEW // 2)
    assert_same_fit(whole, resumed)


@pytest.fixture
def looks_often(monkeypatch):
    """Look at a recording's tensors in iterations 13 and 38, too."""
    monkeypatch.setattr(replay, "_LOOK", 25)
    monkeypatch.setattr(replay, "_FIRST", 12)


@pytest.mark.usefixtures("looks_often")
def test_iterations_that_nobody_looks_at_are_done_in_a_row(tape, monkeypatch):
    steps, seen, saved = [], [], []
    step = dip.Fit.step
    monkeypatch.setattr(dip.Fit, "step", lambda fit: (steps.append(fit.iteration + 1), step(fit)))
    monkeypatch.setattr(dip.Fit, "_save_checkpoint", lambda fit: saved.append(fit.iteration))
    look = dip.callbacks.Every(7, lambda fit: seen.append((fit.iteration, len(fit.history["loss"]))))
    fit = new_fit(callbacks=[look], checkpoint="never written.dip", checkpoint_every=33).run(60)
    assert seen == [(number, number) for number in range(7, 60, 7)]
    assert saved == [33, 60]  # and at the end of the run
    # those that are to be recorded, that a callback or the guard looks at, after a callback, before a look at tensors
    apart = {1, 2, 25, 50, 13, 38, 33, 60, *range(7, 60, 7), *range(8, 60, 7)}
    assert steps == sorted(apart)
    assert fit.iteration == fit._average.count == 60


@pytest.mark.usefixtures("looks_often")
def test_new_pictures_and_flips_begin_in_an_iteration_of_their_own(tape, monkeypatch):
    steps, step = [], dip.Fit.step
    monkeypatch.setattr(dip.Fit, "step", lambda fit: (steps.append(fit.iteration + 1), step(fit)))
    new_fit(code=dip.codes.Denoised(noise=2, renewed=29), flips=44).run(60)
    # those that are to be recorded, that the guard looks at, before a look at tensors, after 29, 44 and 58
    assert steps == [1, 2, 13, 25, 30, 38, 45, 50, 59, 60]


def test_flips_that_begin_when_the_residual_tells(tape, monkeypatch):
    """They begin in the midst of a run, in an iteration of its own; the residual is looked at, and may end the fit."""
    steps, looks, step, look = [], [], dip.Fit.step, dip.flips.Flips.look

    def looked(flips, iteration, difference, weight=None):
        looks.append(iteration)
        return look(flips, iteration, difference, weight)

    monkeypatch.setattr(dip.flips, "_EVERY", 15)
    monkeypatch.setattr(dip.flips.Moment, "has_come", lambda moment, residual: len(looks) == 3)
    monkeypatch.setattr(dip.flips.Moment, "is_over", lambda moment, residual: len(looks) == 5)
    monkeypatch.setattr(dip.flips.Flips, "look", looked)
    options = {"code": dip.codes.Denoised(noise=2, renewed=0)}
    plain = new_fit(engine="plain", flips="auto", **options).run(90)
    given = new_fit(engine="plain", flips=45, **options).run(75)
    assert looks == [15, 30, 45, 60, 75]
    looks.clear()
    monkeypatch.setattr(dip.Fit, "step", lambda fit: (steps.append(fit.iteration + 1), step(fit)))
    replayed = new_fit(flips="auto", **options).run(90)
    assert looks == [15, 30, 45, 60, 75]
    assert {15, 30, 45, 46, 60, 75} < set(steps)
    assert not {14, 16, 44, 47, 61, 74} & set(steps)
    assert plain._flips.began == replayed._flips.began == 45
    assert plain._flips.ended_at == replayed._flips.ended_at == 75
    assert_same_fit(plain, replayed)
    np.testing.assert_array_equal(plain.history["loss"], given.history["loss"])
    np.testing.assert_array_equal(plain.image, given.image)


def test_every_iteration_of_it_is_seen_by_callbacks(tape):
    """What they keep without a copy of their own stays what it was."""
    seen = {"plain": [], "replayed": []}
    plain = new_fit(engine="plain", callbacks=[lambda fit: seen["plain"].append((fit.output, fit.picture))]).run(FEW)
    replayed = new_fit(callbacks=[lambda fit: seen["replayed"].append((fit.output, fit.picture))]).run(FEW)
    assert_same_fit(plain, replayed)
    assert tape.replays > FEW
    for expected, found in zip(seen["plain"], seen["replayed"], strict=True):
        assert all(map(torch.equal, expected, found))


def test_the_renewed_code_is_seen(tape):
    code = dip.codes.Denoised(noise=2, renewed=7)
    plain, replayed = both(tape, code=lambda: code)
    assert_same_fit(plain, replayed)
    assert torch.equal(plain.code, replayed.code)
    never = new_fit(code=dip.codes.Denoised(noise=2, renewed=0)).run(FEW)
    assert not np.array_equal(never.image, replayed.image)


def test_resumed_is_the_same_and_either_way_goes_on_from_the_other(tape, tmp_path):
    whole = new_fit(engine="plain").run(2 * FEW)
    for first, second in (("auto", "auto"), ("auto", "plain"), ("plain", "auto")):
        path = tmp_path / f"{first}-{second}.st"
        before, replays = new_fit(engine=first, checkpoint=path, checkpoint_every=30), tape.replays
        before.run(FEW)
        assert (tape.replays > replays) == (first == "auto")
        resumed, replays = new_fit(engine=second).load(path), tape.replays
        assert resumed.iteration == FEW
        resumed.run(FEW)
        assert (tape.replays > replays) == (second == "auto")
        resumed.stop_reason = whole.stop_reason
        assert_same_fit(whole, resumed)


def test_another_run_of_the_same_fit_is_recorded_anew(tape):
    plain = new_fit(engine="plain").run(FEW).run(FEW).run(10)
    replayed = new_fit().run(FEW).run(FEW)
    assert tape.recorded == 4
    replays = tape.replays
    replayed.run(10)  # too few to record anything
    assert tape.replays == replays
    assert_same_fit(plain, replayed)


def spoiling(at):
    """A callback that makes the weights of the last layer NaN after some iterations."""
    at = set(at)

    def spoil(fit):
        if fit.iteration in at:
            at.remove(fit.iteration)
            with torch.no_grad():
                fit.network.out.weight.fill_(math.nan)

    return spoil


def test_goes_back_after_a_divergence_and_on_with_smaller_steps(tape):
    rates = []
    options = {"callbacks": lambda: [spoiling([60, 110]), lambda fit: rates.append(_lr(fit))]}
    with pytest.warns(RuntimeWarning, match="went back to the state of iteration 50 "):
        plain, replayed = both(tape, iters=160, **options)
    # each is found when the copy after the next is made
    assert [(one["iteration"], one["back_to"]) for one in plain.recoveries] == [(100, 50), (150, 50)]
    assert_same_fit(plain, replayed)
    assert rates[:160] == rates[160:]
    assert {LR, LR / 2} <= set(rates)
    assert tape.recorded == 2  # everything was put back into the tensors that the recording knows


def _lr(fit):
    return float(fit._optimizer.param_groups[0]["lr"])


def test_goes_back_to_before_the_first_step(tape):
    """No moments, no average yet: the tensors that were recorded are gone, so it is recorded again."""
    with pytest.warns(RuntimeWarning, match="went back to the state of iteration 1 "):
        plain, replayed = both(tape, iters=60, callbacks=lambda: [spoiling([7])])
    assert_same_fit(plain, replayed)
    assert tape.recorded == 4


def test_a_state_that_was_put_back_into_other_tensors_is_noticed(tape, monkeypatch):
    """Also where only the package's code runs, and iterations are done in a row."""
    several, calls = replay.Replay.several, [0]

    def checked(made, count):
        assert made.addresses == replay._addresses(fit)
        return several(made, count)

    def play(work):
        calls[0] += 1
        made = work()
        if calls[0] == 15:
            made[0].fill_(math.nan)
        return made

    monkeypatch.setattr(replay.Replay, "several", checked)
    tape.play = play
    fit = new_fit()
    with pytest.warns(RuntimeWarning, match="went back to the state of iteration 1 "):
        fit.run(80)
    assert tape.recorded == 4


def test_a_tensor_that_was_replaced_is_noticed(tape):
    def replace(fit):
        if fit.iteration == 10:
            fit.network.out.weight.data = 2 * fit.network.out.weight.data
        if fit.iteration == 20:
            fit.network.up[0][0].eval()

    plain, replayed = both(tape, iters=60, callbacks=lambda: [replace])
    assert_same_fit(plain, replayed)
    assert tape.recorded == 6


# ---------------------------------------------------------------------- when it is not the same


def wrong(number, what):
    """A way to play that spoils what comes of the first or the second half of each iteration."""
    calls = [0]

    def play(work):
        calls[0] += 1
        made = work()
        if (calls[0] - 1) % 2 == number:
            what(made)
        return made

    return play


def stays(tape, what, **options):
    """The fit whose replays are spoilt is the plain one, and says what is wrong."""
    plain = plain_fit(**options)
    before = torch.get_rng_state()
    with pytest.warns(
        RuntimeWarning, match=f"could not be recorded as a CUDA graph: .*{what}.*the fit goes on"
    ) as seen:
        spoilt = new_fit(**options).run(FEW)
    assert len(seen) == 1
    assert_same_fit(plain, spoilt)
    assert tape.recorded
    assert tape.mended == 1
    assert _lr(spoilt) == LR
    assert not spoilt._optimizer.param_groups[0]["capturable"]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("number", "spoil", "what"),
    [
        (0, lambda made: made[0].mul_(1.01), "its loss"),
        (0, lambda made: made[2].add_(0.01), "its output"),
        (0, lambda made: made[2].fill_(math.nan), "its output"),
    ],
)
def test_wrong_results_are_noticed(tape, number, spoil, what):
    tape.play = wrong(number, spoil)
    stays(tape, what)
    assert tape.replays == 4


def forgetful(monkeypatch, owner, name):
    """Let a method do nothing while something is replayed."""
    real, state = getattr(owner, name), types.SimpleNamespace(playing=False)

    def play(work):
        state.playing = True
        try:
            return work()
        finally:
            state.playing = False

    def method(*arguments, **options):
        return None if state.playing else real(*arguments, **options)

    monkeypatch.setattr(owner, name, method)
    return play


@pytest.mark.parametrize(
    ("owner", "name", "what"),
    [
        (dip.jitter.Jitter, "draw", "(loss|output|noise|generator)"),
        (dip.flips.Flips, "draw", "(loss|flips count)"),
        (torch.optim.Adam, "step", "optimizer 0 step"),
        (torch.optim.Adam, "zero_grad", "exp_avg"),
        (dip.averaging.ExponentialAverage, "mix", "average sum"),
    ],
)
def test_what_is_left_out_is_noticed(tape, monkeypatch, owner, name, what):
    options = {"flips": 1} if owner is dip.flips.Flips else {}
    plain = plain_fit(**options)
    tape.play = forgetful(monkeypatch, owner, name)
    with pytest.warns(RuntimeWarning, match=f"CUDA graph: .*{what}"):
        spoilt = new_fit(**options).run(FEW)
    assert_same_fit(plain, spoilt)


def test_noise_that_is_always_the_same_is_noticed(tape, monkeypatch):
    """Although the generator goes on, and the loss of so small a picture hardly shows it."""
    real, kept, playing = dip.jitter.Jitter.draw, [], [False]

    def draw(jitter, z):
        real(jitter, z)
        if playing[0]:
            kept.append(jitter._noise.clone())
            jitter._noise.copy_(kept[0])

    def play(work):
        playing[0] = True
        made = work()
        playing[0] = False
        return made

    monkeypatch.setattr(dip.jitter.Jitter, "draw", draw)
    tape.play = play
    stays(tape, "is another than in the plain iteration")


def test_a_learning_rate_that_does_not_change_is_noticed(tape, monkeypatch):
    real = dip.optimizers.set_lr

    def stuck(optimizer, lr):
        if not isinstance(optimizer.param_groups[0]["lr"], torch.Tensor):
            real(optimizer, lr)

    monkeypatch.setattr(dip.optimizers, "set_lr", stuck)
    stays(tape, "weights")


def test_statistics_that_do_not_follow_are_noticed(tape):
    def play(work):
        kept = {k: v.clone() for k, v in fit[0].network.named_buffers()}
        made = work()
        for name, buffer in fit[0].network.named_buffers():
            buffer.copy_(kept[name])
        return made

    fit = []
    tape.play = play
    plain = plain_fit()
    fit.append(new_fit())
    with pytest.warns(RuntimeWarning, match=r"num_batches_tracked|running"):
        fit[0].run(FEW)
    assert_same_fit(plain, fit[0])


@pytest.mark.parametrize("at", range(6))
def test_whatever_raises_leaves_the_plain_fit(tape, monkeypatch, at):
    """While it is recorded (the halves), and at the replays of the comparison."""
    calls = [0]

    def fail():
        calls[0] += 1
        if calls[0] == at + 1:
            raise RuntimeError("operation not permitted when stream is capturing")

    def play(work):
        fail()
        return work()

    def record(work, generator=None, kept=False):
        fail()
        return type(tape).record(tape, work, generator, kept)

    tape.play = play
    monkeypatch.setattr(tape, "record", record)
    if at == 0:
        tape.recorded = 1  # nothing comes of it at all
    stays(tape, "not permitted when stream is capturing")


def test_a_broken_recorder_cannot_hurt(tape, monkeypatch):
    def broken(*_):
        raise RuntimeError("no graphs here")

    plain = plain_fit()
    monkeypatch.setattr(tape, "record", broken)
    monkeypatch.setattr(tape, "mend", broken)
    with pytest.warns(RuntimeWarning, match="no graphs here"):
        assert_same_fit(plain, new_fit().run(FEW))


def test_ctrl_c_while_it_is_recorded_leaves_the_state(tape, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tape, "record", interrupt)
    plain, fit = new_fit(engine="plain").run(1), new_fit()
    with pytest.raises(KeyboardInterrupt):
        fit.run(FEW)
    fit.stop_reason = plain.stop_reason
    assert_same_fit(plain, fit)


# ---------------------------------------------------------------------- when it is taken


def not_recorded(tape, iters=FEW, **options):
    fit = new_fit(**options).run(iters)
    assert tape.recorded == tape.replays == 0
    return fit


def test_few_iterations_are_not_worth_it(tape):
    not_recorded(tape, iters=ENOUGH)


def test_single_steps_are_plain(tape):
    fit = new_fit()
    for _ in range(3):
        fit.step()
    assert not tape.recorded


class Annealed:
    """A loss that changes with its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, prediction, y):
        self.calls += 1
        return (prediction - y).square().mean() * (1 + 1 / self.calls)


def hooked():
    network = dip.networks.EncoderDecoder(8, 3, **NET, generator=torch.Generator().manual_seed(0))
    network.out.register_forward_hook(lambda *_: None)
    return network


class Own(torch.nn.Sequential):
    """A network of somebody's own, which does nothing special."""


def own_network():
    return Own(torch.nn.Conv2d(8, 3, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "plain"},
        {"loss": Annealed()},
        {"penalty": lambda x: x.mean()},
        {"network": hooked()},
        {"network": own_network()},
        {"task": dip.Reconstruct(np.zeros((16, 16), "float32"), lambda x: x[0, 0], (1, 16, 16))},
        {"optimizer": "lbfgs", "jitter": 0.0},
        {"tile": 16, "task": dip.Denoise(picture((32, 32, 3)))},
        {"code": dip.codes.HeldOut(2), "task": dip.Inpaint(picture((16, 16, 3)), np.eye(16) < 0.5)},
    ],
    ids=["asked for", "loss", "penalty", "hook", "network", "operator", "lbfgs", "crops", "held out"],
)
def test_what_may_change_or_cannot_be_recorded_is_plain(tape, options):
    not_recorded(tape, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": lambda prediction, y: (prediction - y).abs().mean()},
        {"penalty": lambda x: x.mean()},
        {"network": own_network},
        {"task": lambda: dip.Reconstruct(picture((16, 16)), lambda x: x[0, 0], (1, 16, 16))},
    ],
    ids=["loss", "penalty", "network", "operator"],
)
def test_code_of_ones_own_is_recorded_if_asked_for(tape, options):
    made = {k: v if k in ("task", "network") else (lambda v=v: v) for k, v in options.items()}
    torch.manual_seed(0)
    plain_options = {k: v() for k, v in made.items()}
    torch.manual_seed(0)
    replayed_options = {k: v() for k, v in made.items()}
    plain = new_fit(engine="plain", **plain_options).run(FEW)
    replayed = new_fit(engine="graph", **replayed_options).run(FEW)
    assert tape.replays > FEW
    assert_same_fit(plain, replayed)


def test_what_changes_from_call_to_call_is_noticed_where_it_shows(tape):
    """The tape calls again, so the loss goes on changing: but not as it does where each call is an iteration."""
    with pytest.warns(RuntimeWarning, match="its loss is another"):
        new_fit(engine="graph", loss=Annealed()).run(FEW)


def test_a_layer_that_draws_from_pytorchs_generator(tape, monkeypatch):
    # as on a GPU, for which the tape stands: there it is left to the recording
    monkeypatch.setattr(solver, "Draws", lambda network, seed, device: Draws(network, seed, torch.device("cuda")))

    def network():
        made = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1), torch.nn.Dropout(0.5), torch.nn.Conv2d(8, 3, 1))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.uniform_(-0.5, 0.5, generator=generator)
        return made

    fits = []
    for engine in ("plain", "auto"):
        torch.manual_seed(3)
        fits.append(new_fit(engine=engine, network=network()).run(FEW))
    assert tape.replays > FEW
    assert_same_fit(*fits)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"engine": "cuda"}, "unknown engine 'cuda'"),
        ({"engine": True}, "unknown engine True"),
        ({"engine": "graph"}, 'engine="graph" records an iteration on CUDA, and the device is cpu; leave engine out'),
    ],
)
def test_an_engine_that_is_not_to_be_had_is_refused(options, error):
    with pytest.raises(ValueError, match=error):
        new_fit(device="cpu", **options)


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(("options", "error"), [({"optimizer": "lbfgs"}, "Adam"), ({"tile": 16}, "another crop")])
def test_a_graph_of_what_cannot_be_recorded_is_refused(options, error):
    with pytest.raises(ValueError, match=error):
        new_fit(dip.Denoise(picture((32, 32, 3))), engine="graph", **options)


@pytest.mark.usefixtures("tape")
def test_a_graph_of_other_known_pixels_each_time_is_refused():
    with pytest.raises(ValueError, match=r"the option engine with .graph. repeats an iteration.*other known pixels"):
        new_fit(dip.Inpaint(picture(), np.eye(16) < 0.5), engine="graph", code=dip.codes.HeldOut(2))


def test_on_a_cpu_nothing_is_recorded():
    assert recorder.recorder(torch.device("cpu")) is None
    assert isinstance(recorder.recorder(torch.device("cuda:0")), recorder.CudaGraphs)
    fit = new_fit(device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.run(FEW)
    assert fit._replays._made is None


# ---------------------------------------------------------------------- nothing waits for the device


class Unwaiting(TorchDispatchMode):
    """Refuse what makes the host wait for a device or copies from the host: neither can be recorded."""

    REFUSED = (
        *("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "_unique2"),
        *("lift_fresh", "lift_fresh_copy", "allclose", "is_pinned", "pin_memory", "bincount", "repeat_interleave"),
        *("_assert_async", "set_", "resize_"),
    )

    def __torch_dispatch__(self, function, kinds, arguments=(), options=None):
        name = function.overloadpacket.__name__
        boolean = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype == torch.bool for i in arguments[1]
        )
        if name in self.REFUSED or boolean:
            raise AssertionError(f"{name} waits for the device")
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x * torch.tensor([1.0]),
    ],
)
def test_the_guard_of_these_tests_sees_what_waits(look):
    with pytest.raises(AssertionError, match="waits for the device"), Unwaiting():
        look(torch.ones(3))


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Let layers on a CPU take the ways of a GPU."""
    monkeypatch.setattr(layers, "_on_cpu", lambda x: False)


def preset_task(name):
    task, preset = name.split("/")
    image = picture((16, 16, 3))
    if task == "inpaint":
        return dip.Inpaint(image, mask()), preset
    if task == "super_resolve":
        return dip.SuperResolve(picture((4, 4, 3)), 4), preset
    if task == "reconstruct":
        blur = dip.operators.Downsample(2)
        return dip.Reconstruct(torch.full((1, 3, 8, 8), 0.5), blur, (3, 16, 16)), preset
    return dip.Denoise(image), preset


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize(
    ("name", "precision"),
    # that for missing pixels shows other ones at each iteration
    [(name, "float32") for name in dip.presets.names() if name != "inpaint/fast"]
    + [("denoise/paper", "bfloat16"), ("denoise/fast", "bfloat16")],
)
def test_no_iteration_of_a_preset_waits(tape, name, precision):
    task, preset = preset_task(name)
    chosen = dip.presets.get(task.task, preset)
    lists = chosen.options.keys() & {"down", "up", "skip", "channels"}
    few = {key: tuple(min(n, 2) for n in chosen.options[key]) for key in lists}
    code = dip.codes.Image(picture((16, 16, 3))) if chosen.code is None else None
    fit = dip.Fit(task, preset=preset, network=few, code=code, precision=precision, lr=LR, engine="graph", device="cpu")
    tape.context = Unwaiting
    fit._goal = ENOUGH + 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            fit.step()
    assert fit._replays._made is not None
    assert tape.replays == 8


@pytest.mark.usefixtures("as_on_cuda")
def test_an_operator_that_waits_is_noticed(tape):
    tape.context = Unwaiting

    def operator(x):
        return x[0, 0] * float(x.detach().mean() > -1)

    task = dip.Reconstruct(picture((16, 16)), operator, (1, 16, 16))
    with pytest.warns(RuntimeWarning, match="waits for the device"):
        new_fit(task, engine="graph").run(FEW)
    assert tape.replays == 0


# ---------------------------------------------------------------------- CUDA graphs, as far as a CPU can tell


class StandIn:
    """What `dip.recorder.CudaGraphs` asks of torch.cuda; it notes the calls, and knows the current stream."""

    def __init__(self, fail=""):
        self.calls, self.current, self.fail = [], ["default"], fail

    def note(self, call):
        self.calls.append(call)

    def install(self, monkeypatch):
        stand_in = self

        @contextmanager
        def on(stream):
            before = list(stand_in.current)
            stand_in.current.append(stream)
            try:
                yield
            finally:
                stand_in.current[:] = before

        class Graph:
            def register_generator_state(self, generator):
                stand_in.note(f"register {type(generator).__name__}")

            def replay(self):
                stand_in.note(f"replay on {stand_in.current[-1]}")

        class Capture:
            def __init__(self, *arguments, **options):
                bound = signature.bind(None, *arguments, **options).arguments
                assert bound["capture_error_mode"] == "thread_local"
                self.stream = bound["stream"]

            def __enter__(self):
                stand_in.note(f"begin on {self.stream}")
                stand_in.current.append(self.stream)

            def __exit__(self, *_):
                if stand_in.fail:
                    raise RuntimeError(stand_in.fail)  # and the stream is left as it is, as PyTorch leaves it
                stand_in.note("end")
                stand_in.current.pop()

        signature = inspect.signature(torch.cuda.graph.__init__)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(self.note(str(device))))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: self.note("wait"))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"side of {device}")
        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stand_in.current[-1])
        monkeypatch.setattr(torch.cuda, "default_stream", lambda device: "default")
        monkeypatch.setattr(devices, "_streams", {})
        monkeypatch.setattr(devices, "_for_threads", {})
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", Capture)
        return recorder.CudaGraphs(torch.device("cuda:1"))


def test_cuda_graphs_are_recorded_on_a_stream_and_replayed_on_the_callers(monkeypatch):
    stand_in = StandIn()
    device = stand_in.install(monkeypatch)
    one = torch.ones(1)
    assert device.aside(lambda: stand_in.current[-1]) == "side of cuda:1"
    recorded = device.record(lambda: stand_in.note(f"work on {stand_in.current[-1]}") or (one,), torch.Generator())
    assert recorded.outputs == (one,)
    recorded.replay()
    assert stand_in.current == ["default"]
    assert stand_in.calls == [
        *("cuda:1", "wait", "wait"),
        *("cuda:1", "register Generator", "begin on side of cuda:1", "work on side of cuda:1", "end"),
        "replay on default",
    ]


def test_what_runs_on_a_stream_of_its_own_is_recorded_on_that(monkeypatch):
    stand_in = StandIn()
    device = stand_in.install(monkeypatch)
    made = []
    # PyTorch has 32 and begins anew then
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or f"stream {max(1, len(made) - 1)}")
    number_3 = devices.stream(torch.device("cuda:1"), 3)
    with torch.cuda.stream(number_3):
        assert device.aside(lambda: stand_in.current[-1]) == number_3
        device.record(lambda: ()).replay()
    assert stand_in.calls[-3:] == [f"begin on {number_3}", "end", f"replay on {number_3}"]
    for _ in range(3):  # there are few of them, and none is made twice
        assert device.aside(lambda: stand_in.current[-1]) == "stream 2"
        assert devices.stream(torch.device("cuda:1"), 3) == number_3
    assert len(made) == 3


def test_a_recording_that_fails_leaves_the_callers_stream(monkeypatch):
    stand_in = StandIn(fail="operation failed due to a previous error during capture")
    device = stand_in.install(monkeypatch)

    def work():
        raise RuntimeError("operation not permitted")

    with pytest.raises(RuntimeError, match="previous error") as error:
        device.record(work, torch.Generator())
    assert str(error.value.__context__) == "operation not permitted"  # which is what the warning says
    assert stand_in.current == ["default"]


def test_the_warning_has_the_first_error_and_one_line(tape, monkeypatch):
    def record(work, generator=None, kept=False):
        try:
            raise RuntimeError("CUDA error: operation not permitted\nCompile with TORCH_USE_CUDA_DSA")
        finally:
            raise RuntimeError("operation failed due to a previous error")

    monkeypatch.setattr(tape, "record", record)
    with pytest.warns(RuntimeWarning, match="graph: CUDA error: operation not permitted; the fit goes on without"):
        new_fit().run(FEW)


# ---------------------------------------------------------------------- on a GPU

LONG = replay.WORTHWHILE + 20
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def cuda_fit(iters=LONG, **options):
    return new_fit(**{"device": "cuda", "task": dip.Denoise(picture((32, 32, 3))), **options}).run(iters)


def count_replays(monkeypatch):
    calls = [0]
    evaluate, several = replay.Replay.evaluate, replay.Replay.several

    def counted(self):
        calls[0] += 1
        return evaluate(self)

    def counted_too(self, count):
        calls[0] += count
        return several(self, count)

    monkeypatch.setattr(replay.Replay, "evaluate", counted)
    monkeypatch.setattr(replay.Replay, "several", counted_too)
    return calls


@on_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"jitter": 0.0},
        {"optimize_code": True},
        {"task": dip.Inpaint(picture(), mask())},
        {"task": dip.SuperResolve(picture(), 2)},
        {"code": dip.codes.Denoised(noise=2, renewed=60)},
        {"code": dip.codes.Denoised(noise=2, renewed=60), "flips": 50},
    ],
    ids=["denoise", "no jitter", "code", "inpaint", "super-resolve", "renewed code", "flips"],
)
def test_a_graph_is_the_plain_fit_on_a_gpu(monkeypatch, options, precision):
    """Not bit for bit: CUDA sums gradients in no fixed order. In the beginning the fits are near each other."""
    calls = count_replays(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the comparison within the fit has to succeed
        plain = cuda_fit(precision=precision, engine="plain", **options)
        assert calls == [0]
        replayed = cuda_fit(precision=precision, **options)
    assert calls == [LONG + 1]
    a, b = plain.history["loss"], replayed.history["loss"]
    np.testing.assert_allclose(a[:5], b[:5], rtol=0.02)
    np.testing.assert_allclose(a[-20:].mean(), b[-20:].mean(), rtol=0.2)
    assert torch.equal(plain._jitter.state_dict()["generator"], replayed._jitter.state_dict()["generator"])
    assert np.abs(plain.image - replayed.image).mean() < 0.03


@on_cuda
def test_divergence_and_resume_on_a_gpu(tmp_path):
    path = tmp_path / "fit.st"
    with pytest.warns(RuntimeWarning, match="went back to the state of iteration 50 "):
        fit = cuda_fit(callbacks=[spoiling([60])], checkpoint=path)
    assert len(fit.recoveries) == 1
    assert np.isfinite(fit.image).all()
    resumed = new_fit(dip.Denoise(picture((32, 32, 3))), device="cuda").load(path)
    resumed.run(LONG)
    assert resumed.history["loss"][-1] < fit.history["loss"][0]


@on_cuda
def test_an_operator_that_waits_leaves_everything_in_order_on_a_gpu():
    def operator(x):
        return x[0, 0] * float(x.detach().mean() > -1)

    task = dip.Reconstruct(torch.from_numpy(picture((32, 32))).cuda(), operator, (1, 32, 32))
    with pytest.warns(RuntimeWarning, match="could not be recorded as a CUDA graph"):
        fit = new_fit(task, device="cuda", engine="graph").run(LONG)
    assert fit.iteration == LONG
    torch.rand(3, device="cuda")  # PyTorch's own generator still serves
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    again = cuda_fit()
    assert again.iteration == LONG
