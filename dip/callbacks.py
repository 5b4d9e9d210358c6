"""Callbacks: what watches a fit.

A callback is any callable that takes the fit. It is called after an iteration and may read `fit.iteration`,
`fit.history`, `fit.output` or `fit.image`, add to the history with ``fit.record(name=value)``, and end the fit with
``fit.stop("reason")``. It is called at every iteration, or as often as its attribute `every` says: between calls
nothing waits for the device.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dip.errors import positive_int

if TYPE_CHECKING:
    from dip.solver import Fit

Callback = Callable[["Fit"], Any]


class Every:
    """Call a function at every k-th iteration.

    Parameters
    ----------
    every : int
        k.
    function : callable
        Takes the fit.

    Examples
    --------
    >>> import dip
    >>> snapshots = []
    >>> keep = dip.callbacks.Every(100, lambda fit: snapshots.append(fit.image))
    >>> fit = dip.fit(dip.Denoise(noisy), callbacks=[keep])  # doctest: +SKIP
    """

    def __init__(self, every: int, function: Callback) -> None:
        self.every = positive_int(every, "every")
        self.function = function

    def __call__(self, fit: Fit) -> None:
        self.function(fit)


class Reference:
    """Record the PSNR against the clean image: "psnr" of what the fit would return, "psnr_output" of f_θ(z) alone.

    It is in decibels, over all channels, with the data range as the peak: 10 log10(1 / mean((x - clean)²)) for images
    in [0, 1], before any rounding.

    Parameters
    ----------
    clean : Tensor
        The clean image, (1, C, H, W) in [0, 1].
    every : int, default 1
        Iterations between two looks.
    """

    SERIES = ("psnr", "psnr_output")

    def __init__(self, clean: Tensor, every: int = 1) -> None:
        self.clean, self.every = clean, every

    def __call__(self, fit: Fit) -> None:
        values = (self._psnr(fit.compose(x)) for x in (fit.picture, fit.output))
        fit.history.record(fit.iteration, **dict(zip(self.SERIES, values, strict=True)))

    def _psnr(self, x: Tensor) -> Tensor:
        return -10 * torch.log10(torch.mean((x - self.clean) ** 2))


class Estimate:
    """Tell the time that a run on a CPU is expected to take, if more than a minute, as soon as that is known.

    Parameters
    ----------
    total : int
        Iterations to come.
    say : callable
        Takes the line.
    """

    every = 1

    def __init__(self, total: int, say: Callable[[str], Any]) -> None:
        self._total, self._say = total, say
        self._started, self._first, self._told = 0.0, -1, False

    def __call__(self, fit: Fit) -> None:
        if self._told or fit.device.type != "cpu":
            return
        if self._first < 0:  # the first iteration takes longer than the rest
            self._started, self._first = time.perf_counter(), fit.iteration
        done = fit.iteration - self._first
        if done < 3:
            return
        self._told = True
        pace, threads = (time.perf_counter() - self._started) / done, torch.get_num_threads()
        if pace * self._total > 60:
            self._say(
                f"{self._total} iterations at about {pace:.2g} s each on {threads} CPU thread{'s' * (threads > 1)}: "
                f"about {duration(pace * self._total)}"
            )


class Progress:
    """A progress bar in a terminal or a notebook, and the time that the run is expected to take (`Estimate`).

    Parameters
    ----------
    total : int
        Iterations to come.
    description : str
        Text before the bar.
    """

    def __init__(self, total: int, description: str, *, done: int = 0, every: int = 1) -> None:
        self.every = every
        self._bar = bar_class()(total=total, initial=0, desc=description, unit="it", leave=True, dynamic_ncols=True)
        self._done = done
        self._estimate = Estimate(total, lambda line: self._bar.write(line, file=sys.stderr))
        self._shown = 0.0

    def __call__(self, fit: Fit) -> None:
        self._bar.update(fit.iteration - self._done)
        self._done = fit.iteration
        self._estimate(fit)
        now = time.perf_counter()
        if now - self._shown > 0.5:
            self._shown = now
            values = {name: fit.history.last(name) for name in ("loss", "psnr")}
            text = {name: f"{value:.4g}" for name, value in values.items() if value is not None}
            self._bar.set_postfix(text, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


@contextlib.contextmanager
def progress_bar(fit: Fit, count: int) -> Iterator[None]:
    """Show the progress of a run of `count` iterations, if it was asked for or somebody is watching."""
    if not shows_progress(fit.settings.progress):
        yield
        return
    bar = Progress(count, fit.task.task, done=fit.iteration, every=1 if fit.device.type == "cpu" else 20)
    fit.callbacks.append(bar)
    try:
        yield
        bar(fit)
    finally:
        fit.callbacks.remove(bar)
        bar.close()


@contextlib.contextmanager
def interrupts(stop: Callable[[str], None]) -> Iterator[None]:
    """Turn the first Ctrl-C into ``stop("interrupted")``, so that it never falls into the middle of an update.

    The second one raises KeyboardInterrupt as usual. Where Ctrl-C is somebody else's already, or outside the main
    thread, nothing is changed.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def first(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop("interrupted")

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def shows_progress(wanted: bool | None = None) -> bool:
    """Tell whether to show progress: as wanted; None = if somebody is watching.

    That is in a terminal or a notebook, rather than in a pipe, a log or a test.
    """
    return wanted if wanted is not None else _in_notebook() or bool(getattr(sys.stderr, "isatty", lambda: False)())


def counted(
    things: Sequence[Any], pixels: Sequence[int], description: str, wanted: bool | None = None
) -> Iterator[Any]:
    """Yield things behind a progress bar of the pixels that they have, where there is one (see `shows_progress`)."""
    if not shows_progress(wanted):
        yield from things
        return
    with bar_class()(total=sum(pixels), desc=description, unit="pixel", unit_scale=True, dynamic_ncols=True) as bar:
        for thing, count in zip(things, pixels, strict=True):
            yield thing
            bar.update(count)


def duration(seconds: float) -> str:
    """Return a time in words that suit its length, such as "40 s", "12 min" or "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell is not None else None
    return instance is not None and "IPKernelApp" in instance.config


def bar_class() -> Any:
    """Return tqdm's progress bar: the one of notebooks in a notebook that has ipywidgets."""
    if _in_notebook():
        try:
            import ipywidgets  # noqa: F401  (tqdm's notebook bar is made of its widgets)
            from tqdm.notebook import tqdm

            return tqdm
        except ImportError:
            pass
    from tqdm import tqdm

    return tqdm
