"""Several fits at a time: each comes to what it comes to alone; order, errors, Ctrl-C, and what is left behind."""

from __future__ import annotations

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
    (fit,) = dip.run_all([dip.Fit(dip.Denoise(picture()), **{**QUICK, "preset": "fast"})])
    assert fit.iteration == dip.presets.get("denoise", "fast").iters


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
    slow = threading.Event()
    first, *others = fits(6)
    first.callbacks.append(lambda fit: slow.wait(60))

    def make():
        yield first
        for fit in others:
            if fit is others[-1]:
                slow.set()  # asked for only when there is room: the others do not wait for the first
            yield fit

    found = list(dip.run_all(make(), 2, at_once=3))
    assert found == [first, *others]


def no_thread_is_left():
    return not [thread for thread in threading.enumerate() if thread.name.startswith("dip")]


def test_an_error_comes_in_its_turn_and_the_rest_is_stopped():
    def fail(fit):
        raise ZeroDivisionError("of a callback")

    given, found = fits(4), []
    given[0].callbacks.append(lambda fit: fit.stop("enough") if fit.iteration == 3 else None)
    given[1].callbacks.append(fail)
    with pytest.raises(ZeroDivisionError, match="of a callback"):
        found.extend(dip.run_all(given, 10**6, at_once=3))
    assert found == given[:1]
    assert (given[1].iteration, given[2].stop_reason) == (1, "stopped")
    assert no_thread_is_left()


@pytest.mark.parametrize("wrong", ["no fit", "an error"])
def test_what_is_wrong_with_the_generator_stops_all(wrong):
    given = fits(2)

    def make():
        yield from given
        if wrong == "an error":
            raise ZeroDivisionError("of the generator")
        yield "no fit"

    expected = (ZeroDivisionError, "of the generator") if wrong == "an error" else (TypeError, "fits holds 'no fit'")
    with pytest.raises(expected[0], match=expected[1]):
        list(dip.run_all(make(), 10**6, at_once=3))
    assert [fit.stop_reason for fit in given] == ["stopped"] * 2
    assert no_thread_is_left()


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


def test_threads_and_settings_are_as_before(monkeypatch):
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


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"fits": None}, TypeError, "give a list or a generator of fits"),
        ({"fits": "fit"}, TypeError, "give a list or a generator of fits"),
        ({"fits": [], "iters": 0}, ValueError, "iters must be"),
        ({"fits": [], "at_once": 0}, ValueError, "at_once must be"),
    ],
)
def test_what_is_wrong_is_said_at_once(given, error, words):
    with pytest.raises(error, match=words):
        dip.run_all(**given)
    (fit,) = fits(1)
    with pytest.raises(TypeError, match="give a list or a generator of fits"):
        dip.run_all(fit)


def test_one_fit_twice_is_refused():
    one, other = fits(2)
    with pytest.raises(ValueError, match="holds one fit twice: <Fit denoise of 3"):
        list(dip.run_all([one, other, one], 2, at_once=3))
    assert list(dip.run_all([])) == []
    list(dip.run_all([other], 2))
    assert list(dip.run_all([other], 2)) == [other]  # in another call it goes on


@pytest.mark.parametrize(
    ("kind", "size", "cores", "free", "expected"),
    [
        ("cuda", 256, 1, 2**40, 16),
        ("cuda", 32, 1, 2**40, 16),
        ("cuda", 512, 1, 2**40, 4),
        ("cuda", 2048, 1, 2**40, 1),
        ("cpu", 256, 4, 2**40, 4),
        ("cpu", 256, 64, 2**40, 8),
        ("cpu", 256, 4, None, 4),
        ("cpu", 256, 4, 30, 2),  # three would take all but a tenth
        ("cpu", 256, 4, 1, 1),
        ("mps", 64, 4, 2**40, 1),
    ],
)
def test_how_many_are_suitable(monkeypatch, kind, size, cores, free, expected):
    class Like:
        device = torch.device(kind)
        task = dip.Denoise(np.zeros((size, size), np.float32))
        settings = type("Settings", (), {"memory": 9})

    monkeypatch.setattr(devices, "cores", lambda: cores)
    monkeypatch.setattr(devices, "free_memory", lambda device: free)
    assert several.suitable(Like()) == expected


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


on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@on_cuda
@pytest.mark.parametrize("engine", ["plain", "graph"])
def test_on_a_gpu_each_comes_to_what_it_comes_to_alone(engine):
    options = {"device": "cuda", "engine": engine, "precision": "float32"}
    made = list(dip.run_all(fits(4, **options), 150, at_once=4))
    for fit, alone in zip(made, fits(4, **options), strict=True):
        alone.run(150)
        # interpolation's gradients are summed in no fixed order there: as far apart as two runs of one fit are
        assert abs(float(fit.history["loss"][-1]) / float(alone.history["loss"][-1]) - 1) < 0.2
        assert np.abs(fit.image - alone.image).mean() < 0.02


@on_cuda
def test_on_a_gpu_each_thread_has_its_own_stream():
    seen = set()
    list(
        dip.run_all(
            fits(3, device="cuda", callbacks=[lambda fit: seen.add(torch.cuda.current_stream().cuda_stream)]),
            3,
            at_once=3,
        )
    )
    assert len(seen) >= 2
    assert torch.cuda.default_stream().cuda_stream not in seen
