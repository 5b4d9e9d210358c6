"""Recordings of several fits made one: the kernels for all of them, the graph, and how fits in threads meet."""

from __future__ import annotations

import copy
import ctypes
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from small import picture
from test_fused import COMPILER, Emulated, compiled, driver, made, ordered
from test_replay import Tape, assert_same_fit, new_fit, plain_fit
from test_several import no_thread_is_left, one_thread
from torch import nn

import dip
from dip import company, losses, merged, networks, replay
from dip.networks import cuda, encoder_decoder, layers, normalising, upsampled
from dip.networks import driver as machine

__all__ = ["compiled", "driver", "one_thread"]  # fixtures

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here")

# ---------------------------------------------------------------------- the kernels for all of them


def test_there_is_one_for_each_kernel():
    given = re.findall(r"^(?:KERNEL|FILTER|PRODUCTS)\((?:\d, )?(\w+)\)\(", cuda.source(), re.MULTILINE)
    products = re.findall(r"^ +PRODUCTS\((\w+)##C\)\(", cuda.source(), re.MULTILINE)
    given += [f"{name}{channels}" for name in products for channels in (64, 128)]
    several = Path(cuda.__file__).with_name("several.cu").read_text()
    assert sorted([*re.findall(r"DO\((\w+)\)", several), "cast"]) == sorted(given)
    assert len(given) > 40


class OfEach(Emulated):
    """Kernels of one fit computed by those for several, of which there is one."""

    def __init__(self, folder, dtype, width, seen):
        self._library, self._seen = made(folder, dtype, width), seen

    def launch(self, kernel, blocks, threads, shared, arguments):
        values = [machine.argument(one) for one in arguments]
        layout = tuple((ctypes.sizeof(value), ctypes.alignment(value)) for value in values)
        table = machine.Kernel(None, kernel, layout).packed([ctypes.addressof(value) for value in values])
        if kernel == "cast":
            super().launch(kernel, blocks, threads, shared, arguments)
            return
        given = ctypes.create_string_buffer(table, 4000), ctypes.c_int(len(table))
        pointers = (ctypes.c_void_p * 2)(*map(ctypes.addressof, given))
        assert self._library.emulate(f"{kernel}_each".encode(), blocks, *threads, shared, pointers) == 0
        self._seen.add(kernel)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_do_what_those_for_one_do(monkeypatch, compiled, dtype):
    for module in (layers, upsampled, encoder_decoder):
        monkeypatch.setattr(module, "trained_on_gpu", lambda x, beside=0: torch.is_grad_enabled())
    monkeypatch.setattr(layers, "_on_cpu", lambda x: False)
    torch.manual_seed(0)
    seen, options = set(), {"down": [8, 16], "up": [8, 16], "skip": [4, 0]}
    z, y = ordered(torch.randn(1, 8, 8, 12)).to(dtype), torch.rand(1, 3, 8, 12)
    for upsampling, most in (("bilinear", 0), ("nearest", 2)):
        monkeypatch.setattr(normalising, "_FORWARDS", most)
        monkeypatch.setattr(normalising, "_BACKWARDS", most)
        network, found = networks.create("encoder-decoder", 8, 3, **options, upsampling=upsampling), []
        for kind in (Emulated, lambda *given: OfEach(*given, seen)):
            monkeypatch.setattr(cuda, "program", lambda device, dtype, width, kind=kind: kind(compiled, dtype, width))
            own = copy.deepcopy(network)
            x = own(z)
            losses.MSE()(x, y).backward()
            found.append([x, *own.state_dict().values(), *(p.grad for p in own.parameters())])
        assert all(map(torch.equal, *found))
    used = (
        "moments normalise normalise_alone gather spread back_alone narrow gather_narrow spread_narrow enlarge finish"
    )
    assert set(used.split()) <= seen


# ---------------------------------------------------------------------- the graph


class Work:
    """What is done with the tensors of a fit, as the driver has recorded it."""

    def __init__(self, library, loaded, seed, foreign=2, other=None, height=5):
        generator = torch.Generator().manual_seed(seed)
        self.x = ordered(torch.randn(1, 8, height, 6, generator=generator))
        self.y, self.noted = torch.zeros_like(self.x), torch.zeros_like(self.x)
        self.z = ordered(torch.zeros(1, 8, height + 2, 8))
        self.start, self.foreign = self.x.clone(), foreign
        library.record_begin.restype = ctypes.c_void_p
        self.graph = library.record_begin()
        library.record_foreign(at(self.x), self.x.numel(), seed)
        size, none = (height, 6, 8), (None,) * 4
        loaded.launch("normalise", height, (2, 32), 0, (self.x, *none, self.y, height, *size, 0, 0, 0.5))
        for _ in range(foreign):
            library.record_foreign(at(self.y), self.y.numel(), seed)
        library.record_memcpy(at(self.y), at(self.noted), self.y.numel())
        loaded.launch("normalise", height + 2, (2, 32), 0, (self.y, *none, self.z, height + 2, *size, 1, 1, 1.0))
        library.record_memset(at(self.y), self.y.numel())
        if other is not None:
            library.record_other(other)
        library.record_end()

    def check(self):
        """Look at what it leaves."""
        x = 2 * self.start + 1
        y = nn.functional.leaky_relu(x, 0.5)
        for _ in range(self.foreign):
            y = 2 * y + 1
        torch.testing.assert_close(self.x, x)
        torch.testing.assert_close(self.noted, y)
        torch.testing.assert_close(self.z, nn.functional.pad(y, (1,) * 4, mode="reflect"))
        assert not self.y.any()


def at(x):
    return ctypes.c_void_p(x.data_ptr())


@pytest.fixture
def graphs(monkeypatch, compiled, driver):
    """A driver that records emulated kernels, a program, and its device."""
    library, device = made(compiled, torch.float32, 4), torch.device("cuda:1")
    for module in (machine, merged):
        monkeypatch.setattr(module, "library", lambda: library)
    loaded = machine.Loaded(device, b"code", lambda names: machine.Loaded(device, b"several"))
    alive = library.alive()
    yield library, loaded, device
    assert library.alive() == alive


@pytest.mark.parametrize(("count", "lanes"), [(1, 4), (2, 4), (5, 4), (5, 1), (5, 16)])
def test_each_fit_has_done_what_it_would_have_done(monkeypatch, graphs, count, lanes):
    monkeypatch.setattr(merged, "LANES", lanes)
    library, loaded, device = graphs
    works = [Work(library, loaded, seed) for seed in range(1, count + 1)]
    made = merged.Merged(device, [[work.graph] for work in works])
    assert (made.shared, made.copied) == (2, 5)
    # of others' kernels those of a lane come one after the other
    assert library.length(made._exec) == 2 + 5 * -(-count // lanes)
    for seed in range(1, count + 1):
        assert library.attributed(made._exec, seed) == 3
    before = library.launched()
    made.replay()
    assert library.launched() - before == 2 + 3 * count
    for work in works:
        work.check()
    made.close()
    made.close()


def test_graphs_of_a_fit_are_done_one_after_the_other(graphs):
    library, loaded, device = graphs
    pairs = [[Work(library, loaded, 10 * k + n) for n in range(2)] for k in range(3)]
    made = merged.Merged(device, [[one.graph, other.graph] for one, other in pairs])
    assert (made.shared, made.copied) == (4, 10)
    made.replay()
    for work in (work for pair in pairs for work in pair):
        work.check()
    made.close()


def test_kernels_of_another_size_are_copied(graphs):
    library, loaded, device = graphs
    works = [Work(library, loaded, height, height=height) for height in (5, 6)]
    with pytest.raises(merged.Unlike, match="no kernel of the package's own"):
        merged.Merged(device, [[work.graph] for work in works])
    alike = [Work(library, loaded, 7), Work(library, loaded, 8)]
    made = merged.Merged(device, [[one.graph, other.graph] for one, other in zip(works, alike, strict=True)])
    assert (made.shared, made.copied) == (2, 12)
    made.replay()
    for work in works + alike:
        work.check()
    made.close()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"foreign": 3}, "one has more kernels than another"),
        ({"other": 3}, "a node of kind 3, which is not copied"),
    ],
)
def test_what_is_not_the_same_is_refused(graphs, options, why):
    library, loaded, device = graphs
    works = [Work(library, loaded, 1, other=options.get("other")), Work(library, loaded, 2, **options)]
    with pytest.raises(merged.Unlike, match=why):
        merged.Merged(device, [[work.graph] for work in works])


def test_what_forks_is_put_in_a_row(graphs):
    library, loaded, device = graphs
    works = [Work(library, loaded, seed, other=5) for seed in range(1, 4)]
    for work in works:
        library.record_fork(ctypes.c_void_p(work.graph))  # its last node, which is empty, waits for the first alone
    made = merged.Merged(device, [[work.graph] for work in works])
    assert (made.shared, made.copied) == (2, 6)
    made.replay()
    for work in works:
        work.check()
    made.close()


def test_too_many_for_a_table_are_copied(monkeypatch, graphs):
    library, loaded, device = graphs
    works = [Work(library, loaded, seed) for seed in range(1, 4)]
    monkeypatch.setattr(merged, "_ROOM", 3 * 80 - 1)
    with pytest.raises(merged.Unlike, match="no kernel of the package's own"):
        merged.Merged(device, [[work.graph] for work in works])
    made = merged.Merged(device, [[work.graph] for work in works[:2]])
    assert made.shared == 2
    made.close()


def test_only_kernels_that_are_launched_are_compiled_for_several(graphs):
    library, loaded, device = graphs
    asked = []
    loaded._load_several = lambda names: asked.append(names) or machine.Loaded(device, b"several")
    for count in (2, 3):
        works = [Work(library, loaded, seed) for seed in range(count)]
        merged.Merged(device, [[work.graph] for work in works]).close()
    assert asked == [{"normalise"}]


def test_a_kernel_that_the_driver_calls_by_another_number_is_known(graphs):
    library, loaded, device = graphs
    works = [Work(library, loaded, seed) for seed in range(2)]
    machine._launched = {function + 1: kernel for function, kernel in machine._launched.items()}
    made = merged.Merged(device, [[work.graph] for work in works])
    assert (made.shared, made.copied) == (2, 5)
    made.close()


def test_what_the_driver_refuses_to_copy_is_named(monkeypatch, graphs):
    library, loaded, device = graphs
    works = [Work(library, loaded, seed) for seed in range(2)]
    monkeypatch.setattr(library, "cuGraphKernelNodeCopyAttributes", lambda to, start: 1)
    with pytest.raises(RuntimeError, match="CUDA: something else, of a copy of the kernel foreign"):
        merged.Merged(device, [[work.graph] for work in works])


# ---------------------------------------------------------------------- fits in threads


class Joined:
    """What stands in for one graph of several fits."""

    def __init__(self, tape, recordings):
        self.tape, self.recordings, self.closed = tape, recordings, False

    def replay(self):
        assert not self.closed
        self.tape.joint_replays += 1
        for own in self.recordings:
            for one in own:
                one.replay()
        self.tape.spoil(self.recordings)

    def close(self):
        self.closed = True


class JoiningTape(Tape):
    """A recorder that can make recordings one; `spoil` is given them after each replay."""

    def __init__(self):
        super().__init__()
        self.joined, self.joint_replays, self.kept = [], 0, []
        self.places = []

    def record(self, work, generator=None, kept=False):
        self.kept.append(kept)
        return super().record(work, generator, kept)

    def merged(self, recordings):
        self.joined.append(Joined(self, recordings))
        return self.joined[-1]

    def spoil(self, recordings):
        pass

    def here(self):
        return threading.current_thread().name

    def wait_for(self, places):
        self.places.append(("before", len(set(places))))

    def wait_in(self, places):
        self.places.append(("after", len(set(places))))


@pytest.fixture
def tape(monkeypatch, one_thread):
    """Let fits on the CPU be recorded, and together."""
    tape = JoiningTape()
    monkeypatch.setattr(replay, "recorder", lambda device: tape)
    monkeypatch.setattr(replay, "WORTHWHILE", 20)
    monkeypatch.setattr(dip.devices, "asynchronous", lambda device: True)
    return tape


LONG = 75


def several(count=3, **options):
    return [new_fit(seed=seed, **options) for seed in range(count)]


def together(fits, iters=LONG, at_once=3):
    return list(dip.run_all(fits, iters, at_once=at_once, merged=True))


def assert_as_alone(fits, iters=LONG, **options):
    for seed, fit in enumerate(fits):
        assert_same_fit(fit, plain_fit(iters, seed=seed, **options))


@pytest.mark.parametrize(
    "options", [{}, {"precision": "bfloat16", "flips": 40}, {"penalty": dip.losses.TotalVariation(0.01)}]
)
def test_each_comes_to_what_it_comes_to_alone(tape, options):
    fits = together(several(**options))
    assert_as_alone(fits, **options)
    assert tape.joint_replays > 0.8 * LONG
    assert len(tape.joined) == 1
    assert all(tape.kept)
    assert all(joined.closed for joined in tape.joined)
    assert {"before", "after"} == {kind for kind, _ in tape.places}
    assert {count for _, count in tape.places} == {2}  # the others'


def test_by_default_each_goes_on_by_itself(tape):
    fits = list(dip.run_all(several(), LONG, at_once=3))
    assert_as_alone(fits)
    assert tape.joint_replays == 0
    assert not any(tape.kept)


def test_those_that_come_later_go_on_together_too(tape):
    fits = together(iter(several(5)))
    assert_as_alone(fits)
    assert [len(joined.recordings) for joined in tape.joined] == [3, 2]
    assert tape.joint_replays > 1.6 * LONG


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda made: made[1][0].outputs[0].mul_(1.1), "its loss"),
        (lambda made: made[2][0].outputs[2].add_(0.1), "its output"),
        (lambda made: made[0][1].replay(), "optimizer 0 step"),
    ],
)
def test_what_is_not_the_same_is_noticed(tape, spoil, what):
    tape.spoil = spoil
    with pytest.warns(RuntimeWarning, match=f"could not be made one CUDA graph: .*{what}.*each goes on with its own"):
        fits = together(several())
    assert tape.joint_replays == 2
    assert tape.joined[0].closed
    assert_as_alone(fits)


def test_one_that_cannot_be_had_is_told_once(tape, monkeypatch):
    def refuse(recordings):
        raise merged.Unlike("one has more kernels than another")

    monkeypatch.setattr(tape, "merged", refuse)
    with pytest.warns(RuntimeWarning, match="one CUDA graph: one has more kernels than another; each") as seen:
        fits = together(several())
    assert len(seen) == 1
    assert_as_alone(fits)


def test_who_looks_at_other_times_goes_on_alone(tape, monkeypatch):
    monkeypatch.setattr(company, "_PATIENCE", 60)
    look = dip.callbacks.Every(5, lambda fit: None)
    fits = several()
    fits[1].callbacks.append(look)
    fits = together(fits)
    assert_as_alone(fits)
    assert tape.joint_replays < LONG // 2  # until that is seen, and once one has ended


def test_to_stop_does_not_wait_for_those_that_never_come(tape, monkeypatch):
    monkeypatch.setattr(company, "_BEGINNING", 600)
    fits, made = several(2), threading.Event()

    def make():
        yield fits[0]
        made.wait(60)
        signal.raise_signal(signal.SIGINT)
        yield fits[1]

    fits[0].callbacks.append(lambda fit: made.set() if fit.iteration == 2 else None)
    with pytest.raises(KeyboardInterrupt):
        together(make())
    assert no_thread_is_left()


def test_where_nothing_is_recorded_it_means_nothing(one_thread):
    fits = together(several(2), 5, at_once=2)
    assert [fit.iteration for fit in fits] == [5, 5]


def test_nobody_waits_for_one_that_is_not_recorded(tape, monkeypatch):
    monkeypatch.setattr(company, "_PATIENCE", 600)
    monkeypatch.setattr(company, "_BEGINNING", 600)
    fits = [*several(2), new_fit(seed=2, engine="plain")]
    with pytest.warns(
        RuntimeWarning, match="1 iterations, 0 s, stopped by None> is not recorded as a CUDA graph, so that"
    ) as seen:
        fits = together(fits)
    assert len(seen) == 1
    assert_as_alone(fits)
    assert tape.joint_replays < LONG // 2  # when it had ended


def test_one_that_waits_for_the_others_is_not_waited_for_long(tape, monkeypatch):
    """A callback that waits for what another fit does only later."""
    monkeypatch.setattr(company, "_PATIENCE", 0.05)
    later, waited = threading.Event(), []

    def wait(fit):
        if fit.iteration == 30:
            waited.append(later.wait(60))

    fits = several()
    fits[0].callbacks.append(dip.callbacks.Every(30, wait))
    fits[1].callbacks.append(dip.callbacks.Every(30, lambda fit: later.set() if fit.iteration == 60 else None))
    fits = together(fits)
    assert waited == [True]
    assert_as_alone(fits)


def test_a_recording_that_is_given_up_is_not_replayed_with_others(tape):
    def replace(fit):
        if fit.iteration == 30:
            fit.network.out.weight.data = fit.network.out.weight.data.clone()

    options = {"callbacks": [dip.callbacks.Every(30, replace)]}
    iters = LONG + 30
    fits = together(several(**options), iters)
    assert_as_alone(fits, iters, **options)
    assert len(tape.joined) >= 2
    assert tape.recorded == 12


def test_what_fails_in_one_stops_all(tape, monkeypatch):
    calls = []

    def fail(recordings):
        calls.append(1)
        if len(calls) == 10:
            raise RuntimeError("CUDA error: an illegal memory access")

    tape.spoil = fail
    with pytest.raises(RuntimeError, match="illegal memory access"):
        together(several())
    assert no_thread_is_left()


def test_one_that_ends_lets_the_others_go_on(tape):
    fits = several()
    fits[0].callbacks.append(dip.callbacks.Every(60, lambda fit: fit.stop("enough")))
    one, *others = together(fits)
    assert (one.iteration, one.stop_reason) == (60, "enough")
    for seed, fit in enumerate(others, 1):
        assert_same_fit(fit, plain_fit(LONG, seed=seed))


on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@on_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("count", [2, 5, 16])
def test_on_a_gpu_they_come_to_what_they_come_to_alone(monkeypatch, precision, count):
    made, real = [], merged.Merged.__init__

    def watched(self, *given):
        real(self, *given)
        made.append((self.shared, self.copied))

    monkeypatch.setattr(merged.Merged, "__init__", watched)
    pictures = [np.roll(picture((32, 32, 3), seed=seed), 3 * seed, axis=1) for seed in range(count)]
    options = {"device": "cuda", "precision": precision, "preset": "fast", "code": dip.codes.Uniform(8), "flips": 0}
    options |= {"progress": False, "engine": "graph"}
    companies, company_of = [], dip.several.Company
    monkeypatch.setattr(dip.several, "Company", lambda size: companies.append(company_of(size)) or companies[-1])
    found = []
    for is_merged in (False, True):
        fits = [dip.Fit(dip.Denoise(one), **options) for one in pictures]
        found.append([fit.image for fit in dip.run_all(fits, 300, at_once=count, merged=is_merged)])
    assert companies[0].together > 250
    assert len(made) == 1
    assert made[0][0] > 50
    apart = np.array([[np.abs(one - other).mean() for other in found[0]] for one in found[1]])
    assert (apart.argmin(axis=1) == np.arange(count)).all()
    assert apart.diagonal().max() < 0.3 * np.median(apart)
