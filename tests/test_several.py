"""Several fits at a time: each comes to what it comes to alone; order, errors, Ctrl-C, and what is left behind."""

from __future__ import annotations

import dataclasses
import io
import signal
import sys
import threading

import numpy as np
import pytest
import torch
from small import QUICK, assert_equal_states, picture, trained_state

import dip
from dip import devices, several


def fits(count, task=None, **options):
    """So many fits of the small network, with seeds 0, 1, ..."""
    return [dip.Fit(task or dip.Denoise(picture()), seed=seed, **{**QUICK, **options}) for seed in range(count)]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("at_once", [1, 2, 5, None])
def test_each_comes_to_what_it_comes_to_alone(one_thread, at_once):
    several = list(dip.run_all(fits(5), 7, at_once=at_once))
    for fit, alone in zip(several, fits(5), strict=True):
        alone.run(7)
        assert fit.stop_reason == "iterations"
        assert np.array_equal(fit.image, alone.image)
        assert list(fit.history["loss"]) == list(alone.history["loss"])
        assert_equal_states(trained_state(fit), trained_state(alone))


def test_tasks_sizes_and_settings_may_differ(one_thread):
    def make():
        small, mask = picture((20, 33)), np.indices((16, 16)).sum(0) % 2 == 0
        yield dip.Fit(dip.Denoise(small), **QUICK, stop=dip.stopping.Discrepancy(0.5, earliest=3))
        yield dip.Fit(dip.Inpaint(picture(), mask), **QUICK, optimizer="lbfgs")
        yield dip.Fit(dip.SuperResolve(small, 2), **QUICK, average=0)
        yield dip.Fit(dip.Denoise(picture((48, 48, 3))), **QUICK, tile=32)

    for fit, alone in zip(dip.run_all(make(), 6, at_once=3), make(), strict=True):
        assert np.array_equal(fit.image, alone.run(6).image)
        assert (fit.iteration, fit.stop_reason) == (alone.iteration, alone.stop_reason)


def test_the_presets_iterations_are_the_default(one_thread):
    own = dataclasses.replace(dip.presets.get("denoise", "fast"), iters=7)
    (fit,) = dip.run_all([dip.Fit(dip.Denoise(picture()), **{**QUICK, "preset": own})])
    assert fit.iteration == 7


def test_so_many_run_at_a_time_and_in_threads_of_their_own():
    together, seen = threading.Barrier(3, timeout=60), set()

    def meet(fit):
        seen.add(threading.current_thread().name)
        together.wait()  # breaks, and the fit with it, unless three are here at the same time

    made = list(dip.run_all(fits(3, callbacks=[meet]), 4, at_once=3))
    assert [fit.iteration for fit in made] == [4, 4, 4]
    assert len(seen) == 3
    assert threading.current_thread().name not in seen


def test_a_generator_is_asked_when_there_is_room():
    made = []

    def make():
        for fit in fits(12):
            made.append(fit)
            yield fit

    for count, fit in enumerate(dip.run_all(make(), 2, at_once=2), 1):
        assert fit is made[count - 1]
        assert len(made) <= count + 2 * 2


def test_they_come_in_order_though_the_first_is_the_slowest():
    slow, waited = threading.Event(), []
    first, *others = fits(6)
    first.callbacks.append(lambda fit: waited.append(slow.wait(60)))

    def make():
        yield first
        for fit in others:
            if fit is others[-1]:
                slow.set()  # asked for only when there is room: the others do not wait for the first
            yield fit

    found = list(dip.run_all(make(), 2, at_once=3))
    assert found == [first, *others]
    assert waited == [True, True]


def no_thread_is_left():
    return not [thread for thread in threading.enumerate() if thread.name.startswith("dip")]


def test_an_error_comes_in_its_turn_and_the_rest_is_stopped():
    def fail(fit):
        raise ZeroDivisionError("of a callback")

    given, found = fits(4), []
    given[0].callbacks.append(lambda fit: fit.stop("enough") if fit.iteration == 3 else None)
    given[1].callbacks.append(fail)
    with pytest.raises(ZeroDivisionError, match="of a callback") as caught:
        found.extend(dip.run_all(given, 10**6, at_once=3))
    assert caught.value.__notes__ == [f"in {given[1]!r}, one of several at a time"]
    assert found == given[:1]
    assert (given[1].iteration, given[2].stop_reason) == (1, "stopped")
    assert no_thread_is_left()


@pytest.mark.parametrize("wrong", ["no fit", None, "an error"])
def test_what_is_wrong_with_the_generator_stops_all(wrong):
    given = fits(2)

    def make():
        yield from given
        if wrong == "an error":
            raise ZeroDivisionError("of the generator")
        yield wrong

    expected = (ZeroDivisionError, "of the generator") if wrong == "an error" else (TypeError, f"fits holds {wrong!r}")
    with pytest.raises(expected[0], match=expected[1]):
        list(dip.run_all(make(), 10**6, at_once=3))
    assert [fit.stop_reason for fit in given] == ["stopped"] * 2
    assert no_thread_is_left()
    with pytest.raises(TypeError, match="fits holds None"):
        list(dip.run_all([None]))


def test_ctrl_c_returns_those_that_run_and_begins_no_other():
    given = fits(5)
    given[1].callbacks.append(lambda fit: signal.raise_signal(signal.SIGINT) if fit.iteration == 5 else None)
    found = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(dip.run_all(given, 10**6, at_once=2))
    assert found == given[:2]
    assert [fit.stop_reason for fit in found] == ["interrupted", "interrupted"]
    assert min(fit.iteration for fit in found) > 0
    assert all(np.isfinite(fit.image).all() for fit in found)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_the_next_is_made():
    given = fits(2)

    def make():
        yield given[0]
        signal.raise_signal(signal.SIGINT)
        yield given[1]

    found = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(dip.run_all(make(), 10**6, at_once=2))
    assert found in ([given[0]], [])  # it may not have begun yet: then it has no picture
    assert [fit.iteration > 0 for fit in found] == [True] * len(found)
    assert given[1].iteration == 0
    assert no_thread_is_left()


def test_to_leave_the_loop_stops_what_runs():
    given = fits(4)
    running = dip.run_all(given, 10**6, at_once=2)
    given[0].callbacks.append(lambda fit: fit.stop("enough") if fit.iteration == 3 else None)
    assert next(running).stop_reason == "enough"
    running.close()
    assert given[1].stop_reason == "stopped"
    assert given[3].iteration == 0
    assert no_thread_is_left()
    with pytest.raises(StopIteration):
        next(running)


def test_threads_and_settings_are_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        inside = []
        given = fits(2, progress=True, callbacks=[lambda fit: inside.append(torch.get_num_threads())])
        list(dip.run_all(given, 1, at_once=2))
        assert inside == [max(1, min(2, devices.cores() // 2))] * 2
        new = []
        thread = threading.Thread(target=lambda: new.append(torch.zeros(1).sum() + torch.get_num_threads()))
        thread.start()
        thread.join()
        assert torch.get_num_threads() == new[0] == 2
        assert all(fit.settings.progress for fit in given)

        def slower(fit):
            fit.settings = dataclasses.replace(fit.settings, lr=1e-6)

        (fit,) = dip.run_all(fits(1, callbacks=[slower]), 2)
        assert (fit.settings.lr, fit.settings.progress) == (1e-6, None)
    finally:
        torch.set_num_threads(before)


def test_one_bar_counts_them(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    list(dip.run_all(fits(3, progress=True), 2, at_once=2))
    shown = sys.stderr.getvalue()
    assert "3/3" in shown
    assert "fit/s" in shown
    assert "denoise" not in shown  # the bars of the fits
    list(dip.run_all(fits(2, progress=False), 2, at_once=2))
    assert sys.stderr.getvalue() == shown


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"fits": None}, TypeError, "give a list or a generator of fits"),
        ({"fits": "fit"}, TypeError, "give a list or a generator of fits"),
        ({"fits": [], "iters": 0}, ValueError, "iters must be"),
        ({"fits": [], "at_once": 0}, ValueError, "at_once must be"),
        ({"fits": [], "merged": "no"}, TypeError, "merged"),
    ],
)
def test_what_is_wrong_is_said_at_once(given, error, words):
    with pytest.raises(error, match=words):
        dip.run_all(**given)
    (fit,) = fits(1)
    with pytest.raises(TypeError, match="give a list or a generator of fits"):
        dip.run_all(fit)


@pytest.mark.parametrize("at_once", [1, 3])
def test_one_fit_twice_is_refused(at_once):
    one, other = fits(2)
    with pytest.raises(ValueError, match="holds one fit twice: <Fit denoise of 3"):
        list(dip.run_all([one, other, one], 2, at_once=at_once))
    assert list(dip.run_all([])) == []
    list(dip.run_all([other], 2))
    assert list(dip.run_all([other], 2)) == [other]  # in another call it goes on


def test_two_that_train_one_network_are_refused():
    network = dip.networks.create("encoder-decoder", 8, 3, down=[8, 8], up=[8, 8], skip=[4, 4])
    with pytest.raises(ValueError, match="two fits that train one network"):
        list(dip.run_all(fits(2, network=network), 2, at_once=2))


def test_two_with_one_checkpoint_are_refused(tmp_path):
    place = tmp_path / "fit.ckpt"
    with pytest.raises(ValueError, match=r"two fits with checkpoint='.*fit.ckpt'.*give each its own"):
        list(dip.run_all(fits(2, checkpoint=place, checkpoint_every=1), 2, at_once=2))


def test_a_rule_that_looks_at_nothing_is_told():
    with pytest.warns(RuntimeWarning, match="WindowedVariance looks at nothing before iteration 400"):
        list(dip.run_all(fits(1, stop=dip.stopping.WindowedVariance()), 2))


def test_a_short_list_gets_all_cores(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 8)
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(8)
    try:
        list(dip.run_all(fits(2, callbacks=[lambda fit: seen.append(torch.get_num_threads())]), 1))
        assert seen == [4, 4]
    finally:
        torch.set_num_threads(before)


class Like:
    """What is asked of a fit before it runs."""

    def __init__(self, kind, size, memory):
        self.device = torch.device(kind)
        self.task = dip.Denoise(np.zeros((size, size), np.float32))
        self.settings = type("Settings", (), {"memory": memory})


@pytest.mark.parametrize(
    ("kind", "size", "cores", "free", "expected"),
    [
        ("cuda", 256, 1, 2**40, 16),
        ("cuda", 32, 1, 2**40, 16),
        ("cuda", 512, 1, 2**40, 4),
        ("cuda", 2048, 1, 2**40, 1),
        ("cuda", 256, 1, 30, 1),
        ("cuda", 256, 1, 60, 4),  # five at a time, and the one that is made meanwhile
        ("cpu", 256, 4, 2**40, 4),
        ("cpu", 256, 64, 2**40, 8),
        ("cpu", 256, 4, None, 4),
        ("cpu", 512, 8, None, 4),
        ("cpu", 1024, 8, None, 1),
        ("cpu", 256, 4, 40, 2),
        ("cpu", 256, 4, 1, 1),
        ("mps", 64, 4, 2**40, 1),
    ],
)
def test_how_many_are_suitable(monkeypatch, kind, size, cores, free, expected):
    monkeypatch.setattr(devices, "cores", lambda: cores)
    monkeypatch.setattr(devices, "free_memory", lambda device: free)
    assert several.suitable(Like(kind, size, 9)) == expected


def test_memory_is_kept_until_the_last_fit_ends(monkeypatch):
    calls = []
    monkeypatch.setattr(devices, "_glibc", lambda name: lambda *given: calls.append(name))
    cpu = torch.device("cpu")
    with devices.reused_memory(cpu):
        assert calls == ["mallopt"] * 2
        with devices.reused_memory(cpu):
            pass
        assert calls == ["mallopt"] * 2
    assert calls == ["mallopt"] * 4 + ["malloc_trim"]


def test_no_more_than_there_are_streams(monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda device: None)
    like = Like("cuda", 16, 1)
    assert several.how_many(like, 100, None) == devices.STREAMS == 16
    assert several.how_many(Like("cpu", 16, 1), 100, None) == 100
    assert several.how_many(like, None, 3) == 3


on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@on_cuda
@pytest.mark.parametrize("engine", ["plain", "graph"])
def test_on_a_gpu_each_comes_to_what_it_comes_to_alone(engine):
    # more than run at a time: none may be recorded on a stream that another fit uses
    count, iters = (20, 150) if engine == "graph" else (5, 30)
    pictures = [np.roll(picture((32, 32, 3), seed=seed), 3 * seed, axis=1) for seed in range(count)]
    options = {**QUICK, "device": "cuda", "engine": engine}
    given = (dip.Fit(dip.Denoise(one), **options) for one in pictures)
    made = list(dip.run_all(given, iters, at_once=16))
    alone = [dip.Fit(dip.Denoise(one), **options).run(iters) for one in pictures]
    apart = np.array([[np.abs(fit.image - other.image).mean() for other in alone] for fit in made])
    # interpolation's gradients are summed in no fixed order there: two runs of one fit differ a little
    assert (apart.argmin(axis=1) == np.arange(count)).all()
    assert apart.diagonal().max() < 0.3 * np.median(apart)


@on_cuda
def test_on_a_gpu_each_thread_has_its_own_stream():
    seen, together = set(), threading.Barrier(3, timeout=60)

    def look(fit):
        together.wait()
        seen.add(torch.cuda.current_stream().cuda_stream)

    list(dip.run_all(fits(3, device="cuda", callbacks=[look]), 3, at_once=3))
    assert len(seen) == 3
    assert torch.cuda.default_stream().cuda_stream not in seen
