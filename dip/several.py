"""Several fits at a time on one device, which one small picture alone would leave idle."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch

from dip import devices, replay
from dip.callbacks import bar_class, interrupts, shows_progress
from dip.company import Company
from dip.errors import positive_int, shown, yes_or_no
from dip.solver import Fit
from dip.stopping import warn_if_blind

__all__ = ["run_all"]

_PIXELS = 1024 * 1024  # under way at a time keep a device busy
_MOST = {"cuda": devices.STREAMS, "cpu": 8, "mps": 1}  # beyond it they wait for Python, which runs one thread at a time
_LOOK = 0.2  # seconds between looks at whether there was Ctrl-C
_END = object()


def run_all(
    fits: Iterable[Fit], iters: int | None = None, *, at_once: int | None = None, merged: bool = False
) -> Generator[Fit, None, None]:
    """Run fits, several at a time, and yield them in their order, each as soon as it and those before it are done.

    A fit of a small picture leaves most of a GPU, and most cores of a CPU, idle. On CUDA each of several runs on a
    stream of its own; on a CPU each has its share of the threads. They may be of any tasks, sizes and settings; each
    comes to what it would have come to alone: on a CPU bit for bit the same as with that number of threads, on CUDA
    within what two runs of one fit differ by.

    Parameters
    ----------
    fits : iterable of Fit
        Each with a network of its own. Best a generator, which makes each when its turn comes: those that wait then
        take no memory.
    iters : int, optional
        Iterations of each, as in `Fit.run`; by default its preset's.
    at_once : int, optional
        How many run at a time, 16 at most on CUDA. By default as many as have 1024 x 1024 pixels together, as far as
        memory goes: on CUDA up to 16; on a CPU one for each core, up to 8; on MPS 1. The first fit decides. On a CPU
        each has ``max(1, min(torch.get_num_threads(), cores // at_once))`` threads.
    merged : bool, default False
        On CUDA (elsewhere it means nothing), let fits that are alike (of one size, network and task) go on together:
        one CUDA graph for all, in which the package's own kernels are begun once. They wait for each other, and the
        next `at_once` begin when all of them have ended, so they should be of one length (rules and flips may end one
        before; the graph is then made anew for the others). The graph is compared with the fits' own before it is used;
        where it cannot be had, a warning says why, and each goes on by itself. Not yet tried on a GPU.

    Yields
    ------
    Fit
        After its run.

    Raises
    ------
    TypeError, ValueError
        `fits` holds something else, a fit twice, or two that train one network or have one checkpoint; a
        number is not a count.
    KeyboardInterrupt
        After Ctrl-C while the next fit is waited for: first those that were running are yielded, stopped after the
        iteration at hand, with "interrupted" as their `stop_reason`; the others are not begun.
    Exception
        Whatever ended a fit, in its turn, with a note that says which. Those beside it are stopped, with "stopped" as
        their `stop_reason`: keep them in a list where they matter.

    Notes
    -----
    A fit shows no progress bar here; one bar counts the fits, in a terminal and in a notebook. Callbacks are called in
    the thread of their fit. To leave the loop early and go on with something else, close the generator
    (`contextlib.closing`): that stops what runs. On CUDA only one call of this may run at a time, and layers that draw
    from PyTorch's own generator, such as Dropout, are for one fit after the other; on a CPU their networks take turns.

    On a CPU processes gain more, since Python lets one thread at a time go on: ``dip denoise FOLDER --workers N``
    (docs/performance.md has figures).

    Examples
    --------
    >>> import dip
    >>> fits = (dip.Fit(dip.Denoise(image), preset="fast") for image in images)  # doctest: +SKIP
    >>> restored = [fit.image for fit in dip.run_all(fits)]  # doctest: +SKIP
    """
    if isinstance(fits, (Fit, str)) or not isinstance(fits, Iterable):
        raise TypeError(f"fits={shown(fits)}: give a list or a generator of fits, such as [dip.Fit(...), ...]")
    if iters is not None:
        positive_int(iters, "iters")
    if at_once is not None:
        positive_int(at_once, "at_once")
    return _run_all(fits, iters, at_once, yes_or_no(merged, "merged"))


def _run_all(fits: Iterable[Fit], iters: int | None, at_once: int | None, merged: bool) -> Generator[Fit, None, None]:
    total = len(fits) if isinstance(fits, Sized) else None
    coming: Iterator[Any] = iter(fits)
    first: Any = next(coming, _END)
    if first is _END:
        return
    merged = merged and replay.recorder(_checked(first).device) is not None
    group = _Group(iters, how_many(_checked(first), at_once, total), merged)
    bar = bar_class()(total=total, unit="fit") if shows_progress(first.settings.progress) else None
    coming = itertools.chain([first], coming)
    del first, fits  # a fit that was yielded is the caller's alone
    try:
        while group.go_on(coming):
            while group.ready():
                if bar is not None:
                    bar.update()
                yield group.give()
        if group.interrupted:
            raise KeyboardInterrupt
    finally:
        group.close()
        if bar is not None:
            bar.close()


def how_many(first: Fit, at_once: int | None, total: int | None) -> int:
    """Return how many fits run at a time, of `total` that are like the first (None = nobody knows how many)."""
    found = suitable(first) if at_once is None else at_once
    if first.device.type == "cuda":
        found = min(found, devices.STREAMS)
    return found if total is None else max(1, min(found, total))


def suitable(fit: Fit) -> int:
    """Return how many fits like this one its device is to run at a time."""
    kind, (_, height, width) = fit.device.type, fit.task.shape
    wanted = min(_PIXELS // (height * width), _MOST.get(kind, 1))
    if kind == "cpu":
        wanted = min(wanted, devices.cores())
    free, needed = devices.free_memory(fit.device), fit.settings.memory
    if free is not None and needed:
        # while some run, what one that is done has left may not be free again when the next one is made
        wanted = min(wanted, int(0.8 * free) // needed - 1)
    return max(1, wanted)


def threads(at_once: int) -> int:
    """Return the threads of each of so many fits: its share of the cores, but no more than the caller has."""
    return max(1, min(torch.get_num_threads(), devices.cores() // at_once))


def _checked(fit: Any) -> Fit:
    if not isinstance(fit, Fit):
        raise TypeError(f"fits holds {shown(fit)}: give fits, such as dip.Fit(dip.Denoise(image), preset='fast')")
    return fit


class _Group:
    """The fits that are under way, and those that are done and wait for their turn."""

    def __init__(self, iters: int | None, at_once: int, merged: bool) -> None:
        self._iters, self._at_once = iters, at_once
        self._company = Company(at_once) if merged else None
        self._threads, self._share = torch.get_num_threads(), threads(at_once)
        self._begun: deque[tuple[Fit, Future[None]]] = deque()
        self._seen: WeakSet[Fit] = WeakSet()
        self._checkpoints: set[Path] = set()
        self._more, self.interrupted = True, False
        self._own, self._numbers = threading.local(), itertools.count()
        self._pool = ThreadPoolExecutor(at_once, "dip", self._begin)

    def go_on(self, coming: Iterator[Any]) -> bool:
        """Begin as many as there is room for, and wait until one is done; return False if there are none any more."""
        with contextlib.nullcontext() if self.interrupted else interrupts(self._interrupt):
            while self._more and not self.interrupted and len(self._running()) < self._at_once:
                if len(self._begun) >= 2 * self._at_once:  # the first takes long: do not pile up the others
                    break
                self._take(next(coming, _END))
            while (running := self._running()) and not self.ready():
                if self.interrupted:
                    self._stop("interrupted")  # once more: one of them may only just have begun
                if wait(running, _LOOK, FIRST_COMPLETED).done and not self.interrupted:
                    break
        if self.interrupted:  # one that has done nothing has no picture
            while self.ready() and not self._begun[0][0].iteration and self._begun[0][1].exception() is None:
                self._begun.popleft()
        return bool(self._begun)

    def ready(self) -> bool:
        """Tell whether the first of them is done."""
        return bool(self._begun) and self._begun[0][1].done()

    def give(self) -> Fit:
        """Return the first of them, which is done."""
        fit, future = self._begun[0]
        future.result()
        self._begun.popleft()
        return fit

    def close(self) -> None:
        """Stop what runs, and wait for it; not in a thread of the pool, where garbage may be collected, too."""
        inside, over = hasattr(self._own, "number"), False
        try:
            while (running := self._running()) and not inside:
                self._stop("stopped")
                wait(running, _LOOK)
            over = not inside
        finally:
            self._stop("stopped")
            self._pool.shutdown(wait=over)
            if not inside:  # threads begin with what was set last in any of them
                torch.set_num_threads(self._threads)  # noqa: TID251

    def _take(self, fit: Any) -> None:
        if fit is _END:
            self._more = False
            if self._company is not None:
                self._company.no_more()
        elif not self.interrupted:  # while it was made
            if _checked(fit) in self._seen:
                raise ValueError(f"fits holds one fit twice: {fit!r}; make one for each run")
            if any(fit.network is one.network for one, _ in self._begun):
                raise ValueError(f"fits holds two fits that train one network, the second {fit!r}; give each its own")
            if fit.settings.checkpoint is not None:
                place = fit.settings.checkpoint.resolve()
                if place in self._checkpoints:
                    said = f"fits holds two fits with checkpoint={str(place)!r}, the second {fit!r}; give each its own"
                    raise ValueError(said)
                self._checkpoints.add(place)
            warn_if_blind(fit.settings.stop, fit.iteration + (self._iters or fit.settings.iters))
            self._seen.add(fit)
            theirs = torch.cuda.current_stream(fit.device) if fit.device.type == "cuda" else None
            self._begun.append((fit, self._pool.submit(self._run, fit, theirs)))

    def _running(self) -> list[Future[None]]:
        return [future for _, future in self._begun if not future.done()]

    def _interrupt(self, reason: str) -> None:
        self.interrupted = True
        self._stop(reason)

    def _stop(self, reason: str) -> None:
        if self._company is not None:
            self._company.no_more()
        for fit, future in self._begun:
            if not future.done():
                fit.stop(reason)

    # ------------------------------------------------------------------ in a thread of the pool

    def _begin(self) -> None:
        self._own.number = next(self._numbers)
        torch.set_num_threads(self._share)  # noqa: TID251  (of this thread, which is ours)

    def _run(self, fit: Fit, theirs: torch.cuda.Stream | None) -> None:
        progress = fit.settings.progress
        fit.settings = replace(fit.settings, progress=False)
        company = contextlib.nullcontext() if self._company is None else self._company.joined(fit)
        try:
            with company:
                if theirs is None:
                    fit.run(self._iters)
                else:
                    self._run_on_a_stream(fit, theirs)
        except Exception as error:
            error.add_note(f"in {fit!r}, one of several at a time")
            raise
        finally:
            fit.settings = replace(fit.settings, progress=progress)

    def _run_on_a_stream(self, fit: Fit, theirs: torch.cuda.Stream) -> None:
        ours = devices.stream(fit.device, 1 + self._own.number)
        devices.begin_at_once(ours, 1 if self._company is None else self._at_once)
        ours.wait_stream(theirs)
        with torch.cuda.stream(ours):
            try:
                fit.run(self._iters)
            finally:
                ours.synchronize()
                for tensor in replay.worked_on(fit):  # what is queued on them there comes before their memory is free
                    tensor.record_stream(theirs)
