"""Several fits at a time on one device, which one small picture alone would leave idle."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import torch

from dip import devices
from dip.callbacks import bar_class, interrupts, shows_progress
from dip.errors import positive_int, shown
from dip.solver import Fit

__all__ = ["run_all"]

_PIXELS = 1024 * 1024  # under way at a time keep a GPU busy
_MOST = {"cuda": 16, "cpu": 8, "mps": 1}  # beyond it they wait for Python, which runs one thread at a time
_LOOK = 0.2  # seconds between looks at whether there was Ctrl-C


def run_all(fits: Iterable[Fit], iters: int | None = None, *, at_once: int | None = None) -> Iterator[Fit]:
    """Run fits, several at a time, and return them in their order, each as soon as it and those before it are done.

    A fit of a small picture leaves most of a GPU, and most cores of a CPU, idle. On CUDA each of several runs on a
    stream of its own; on a CPU each has its share of the cores. They may be of any tasks, sizes and settings; each has
    its own network, and comes to what it would have come to alone: on a CPU bit for bit the same as with that number of
    threads, on CUDA within what two runs of one fit differ by.

    Parameters
    ----------
    fits : iterable of Fit
        Best a generator, which makes each of them when its turn comes: those that wait then take no memory.
    iters : int, optional
        Iterations of each, as in `Fit.run`; by default its preset's.
    at_once : int, optional
        How many run at a time. By default, and as far as memory goes: on CUDA so many that they have 1024 x 1024 pixels
        together, 16 at most; on a CPU one for each core, 8 at most; on MPS 1. (The first fit decides.)

    Yields
    ------
    Fit
        After its run.

    Raises
    ------
    TypeError, ValueError
        `fits` holds something else, or a fit twice; a number is not a count.
    KeyboardInterrupt
        After Ctrl-C: first those that were running are returned, stopped after the iteration at hand, with
        "interrupted" as their `stop_reason`; the rest is not begun.
    Exception
        Whatever ended a fit, in its turn. Those that run beside it are stopped as above, and are as they are then.

    Notes
    -----
    A fit shows no progress bar here; one bar counts the fits, in a terminal and in a notebook. Callbacks are called in
    the thread of their fit.

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
    return _run_all(fits, iters, at_once)


def _run_all(fits: Iterable[Fit], iters: int | None, at_once: int | None) -> Iterator[Fit]:
    coming = iter(fits)
    first = next(coming, None)
    if first is None:
        return
    group = _Group(iters, at_once or suitable(_checked(first)))
    bar = bar_class()(total=len(fits) if isinstance(fits, Sized) else None, unit="fit") if shows_progress() else None
    try:
        coming = itertools.chain([first], coming)
        while group.go_on(coming):
            for fit in group.done():
                yield fit
                if bar is not None:
                    bar.update()
        if group.interrupted:
            raise KeyboardInterrupt
    finally:
        group.close()
        if bar is not None:
            bar.close()


def suitable(fit: Fit) -> int:
    """Return how many fits like this one its device is to run at a time."""
    kind, (_, height, width) = fit.device.type, fit.task.shape
    wanted = devices.cores() if kind == "cpu" else _PIXELS // (height * width)
    free, needed = devices.free_memory(fit.device), fit.settings.memory
    if free is not None and needed:
        wanted = min(wanted, int(0.8 * free) // needed)
    return max(1, min(wanted, _MOST.get(kind, 1)))


def _checked(fit: Any) -> Fit:
    if not isinstance(fit, Fit):
        raise TypeError(f"fits holds {shown(fit)}: give fits, such as dip.Fit(dip.Denoise(image), preset='fast')")
    return fit


class _Group:
    """The fits that are under way, and those that are done and wait for their turn."""

    def __init__(self, iters: int | None, at_once: int) -> None:
        self._iters, self._at_once = iters, at_once
        self._threads = torch.get_num_threads()
        self._share = max(1, min(self._threads, devices.cores() // at_once))
        self._begun: deque[tuple[Fit, Future[None]]] = deque()
        self._more, self.interrupted = True, False
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(at_once, "dip", self._begin)

    def go_on(self, coming: Iterator[Fit]) -> bool:
        """Begin as many as there is room for, and wait until one is done; return False if there are none any more."""
        with interrupts(self._interrupt):
            while self._more and not self.interrupted and len(self._running()) < self._at_once:
                if len(self._begun) >= 2 * self._at_once:  # the first takes long: do not pile up the others
                    break
                self._take(next(coming, None))
            while (running := self._running()) and not self._begun[0][1].done():
                if self.interrupted:
                    self._stop("interrupted")  # once more: one of them may only just have begun
                if wait(running, _LOOK, FIRST_COMPLETED).done and not self.interrupted:
                    break
        return bool(self._begun)

    def done(self) -> Iterator[Fit]:
        """Yield those that are done and have no other before them."""
        while self._begun and self._begun[0][1].done():
            fit, future = self._begun[0]
            future.result()
            self._begun.popleft()
            yield fit

    def close(self) -> None:
        """Stop what runs, and wait for it."""
        while running := self._running():
            self._stop("stopped")
            wait(running, _LOOK)
        self._pool.shutdown()
        torch.set_num_threads(self._threads)  # noqa: TID251  (threads begin with what was set last in any of them)

    def _take(self, fit: Fit | None) -> None:
        if fit is None:
            self._more = False
            return
        if any(_checked(fit) is one for one, _ in self._begun):
            raise ValueError(f"fits holds one fit twice: {fit!r}; make one for each run")
        self._begun.append((fit, self._pool.submit(self._run, fit)))

    def _running(self) -> list[Future[None]]:
        return [future for _, future in self._begun if not future.done()]

    def _interrupt(self, reason: str) -> None:
        self.interrupted = True
        self._stop(reason)

    def _stop(self, reason: str) -> None:
        for fit, future in self._begun:
            if not future.done():
                fit.stop(reason)

    # ------------------------------------------------------------------ in a thread of the pool

    def _begin(self) -> None:
        self._own.streams = devices.Streams()
        torch.set_num_threads(self._share)  # noqa: TID251  (of this thread, which is ours)

    def _run(self, fit: Fit) -> None:
        settings = fit.settings
        fit.settings = replace(settings, progress=False)
        try:
            with self._own.streams.of(fit.device):
                fit.run(self._iters)
        finally:
            fit.settings = settings
