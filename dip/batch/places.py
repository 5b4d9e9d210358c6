"""Where jobs run: in this process, in worker processes of this machine, on Dask's workers, or on any executor."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from dip.devices import cores
from dip.errors import positive_int, shown

__all__ = ["Dask", "Given", "InProcess", "Place", "Processes", "gpus"]

_RECONNECT = 600.0  # seconds that a scheduler may be away
_PATIENCE = 30.0  # seconds for the first answer of a scheduler


class Place:
    """Where jobs run: an executor, how many jobs it should have at a time, and what to do when it breaks.

    Attributes
    ----------
    one_by_one : bool
        Whether the jobs that were running when a worker died are to be tried one at a time, because nobody can tell
        which of them took it down.
    here : bool
        Whether they run on this machine, with its devices, as far as can be known.
    """

    one_by_one = True
    here = False

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        """Start ``function(*arguments)``; the future has its outcome, and seconds, memory, host and threads."""
        raise NotImplementedError

    def window(self) -> int:
        """Return how many jobs should be under way."""
        return 1

    def guilty(self, error: BaseException) -> bool:
        """Whether an error of a future may be the fault of its job, which took its worker down."""
        return isinstance(error, BrokenExecutor)

    def renew(self) -> None:
        """Bring workers back after some of them died.

        Raises
        ------
        OSError
            That is not possible.
        """
        raise ChildProcessError("a worker died, and the executor with it; give a new one and run it again")

    def close(self) -> None:
        """End the workers; jobs that have not begun are dropped."""


class InProcess(Place):
    """One job after the other in the process that asks for them, with its threads."""

    here = True

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        """Run a job and return its finished future; Ctrl-C goes through."""
        future: Future[Any] = Future()
        try:
            future.set_result(_measured(function, arguments, None, False))
        except Exception as error:
            future.set_exception(error)
        return future


class Given(Place):
    """Any `concurrent.futures.Executor`.

    Parameters
    ----------
    executor : Executor
        Not shut down at the end: it is the caller's.
    window : int
        Jobs to have under way: the number of its workers, or a few more where a job takes less time than its way.
    """

    def __init__(self, executor: Executor, window: int) -> None:
        self._executor, self._window = executor, positive_int(window, "window")

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        """Start a job."""
        return self._executor.submit(_measured, function, arguments, None, False)

    def window(self) -> int:
        """Return `window`."""
        return self._window


class Processes(Place):
    """Worker processes of this machine, which share its cores, or its GPUs.

    Parameters
    ----------
    workers : int
        How many.
    threads : int, optional
        Threads of each for PyTorch; by default its share of the cores that this process may use.
    gpus : sequence of str, optional
        As many as workers: each sees only its own, as the first CUDA device. Names or numbers as in
        CUDA_VISIBLE_DEVICES. By default all see all that this process sees.

    Raises
    ------
    ValueError, TypeError
        A number is not a count, or there is not one GPU for each worker.
    """

    here = True

    def __init__(self, workers: int, *, threads: int | None = None, gpus: Sequence[str] | None = None) -> None:
        self.workers = positive_int(workers, "workers")
        self.threads = max(1, cores() // self.workers) if threads is None else positive_int(threads, "threads")
        if gpus is not None and len(gpus) != self.workers:
            raise ValueError(f"{len(gpus)} GPUs for {self.workers} workers; give one for each")
        self._gpus = gpus
        self._executor = self._begin()

    def _begin(self) -> ProcessPoolExecutor:
        import multiprocessing

        context = multiprocessing.get_context("spawn")  # a fork of a process with threads, or with CUDA, may hang
        gpus = None
        if self._gpus is not None:
            gpus = context.Queue()
            for gpu in self._gpus:
                gpus.put(gpu)
        return ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin_worker, initargs=(gpus,))

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        """Start a job."""
        return self._executor.submit(_measured, function, arguments, self.threads, True)

    def window(self) -> int:
        """Return one job for each worker and one that waits for it."""
        return 2 * self.workers

    def renew(self) -> None:
        """Replace the workers."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._begin()

    def close(self) -> None:
        """End the workers, those in the middle of a job too."""
        running = list((getattr(self._executor, "_processes", None) or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()


class Dask(Place):
    """The workers of a Dask cluster, on any number of machines.

    Parameters
    ----------
    scheduler : str
        Its address, as in "tcp://10.0.0.1:8786", or a scheduler file.
    threads : int, optional
        Threads of each job for PyTorch; by default what the workers have (Dask starts them with OMP_NUM_THREADS=1).
    resources : dict, optional
        What a job needs of what workers say that they have, as in ``{"GPU": 1}``.
    say : callable, optional
        Takes a line when the scheduler is gone and is waited for.

    Raises
    ------
    ImportError
        The package distributed is missing.
    OSError
        There is no scheduler at that address.

    Notes
    -----
    Workers that join late get jobs as soon as they are there. The jobs of a worker that dies run on another one, and a
    job that takes down several is failed. If the scheduler goes away, a new one at its address is waited for, and gets
    what was under way once more.
    """

    one_by_one = False  # the scheduler knows which job was where

    def __init__(
        self,
        scheduler: str,
        *,
        threads: int | None = None,
        resources: dict[str, float] | None = None,
        say: Callable[[str], Any] | None = None,
    ) -> None:
        self.scheduler, self._resources, self._say = scheduler, resources, say
        self.threads = None if threads is None else positive_int(threads, "threads")
        self._slots, self._asked = 1, -1e9
        self._client: Any = None
        self._connect(_PATIENCE)

    def _connect(self, patience: float) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise ImportError(
                "--scheduler needs the package distributed: pip install 'deep-image-prior[distributed]'"
            ) from error
        given = {"scheduler_file": self.scheduler} if Path(self.scheduler).is_file() else {"address": self.scheduler}
        try:
            self._client = Client(**given, timeout=patience, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"no Dask scheduler answers at {self.scheduler} ({' '.join(str(error).split()) or 'time-out'}); start "
                "one with `dask scheduler`, and give the address that it prints"
            ) from error
        self._executor = self._client.get_executor(pure=False, resources=self._resources)

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        """Start a job."""
        try:
            return self._executor.submit(_measured, function, arguments, self.threads, None)
        except RuntimeError as error:  # the client was closed under our hands
            raise BrokenExecutor(str(error)) from error

    def window(self) -> int:
        """Return two jobs for each thread of the workers there are now, two at least."""
        now = time.monotonic()
        if now - self._asked > 2:
            with contextlib.suppress(OSError, TimeoutError, ValueError, RuntimeError):
                self._slots = sum(self._client.nthreads().values())
            self._asked = now
        return max(2, 2 * self._slots)

    def guilty(self, error: BaseException) -> bool:
        """Return False: jobs that take workers down come back with an error of their own."""
        return False

    def renew(self) -> None:
        """Wait for a scheduler at the address, and connect to it."""
        if self._say is not None:
            self._say(f"the scheduler at {self.scheduler} is gone; waiting for it to come back")
        self._leave()
        self._connect(_RECONNECT)

    def close(self) -> None:
        """Leave the cluster as it is, without the jobs that were under way."""
        self._leave()

    def _leave(self) -> None:
        with contextlib.suppress(Exception):
            self._client.close(timeout=2)


def gpus() -> list[str]:
    """Return the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


# ---------------------------------------------------------------------- in the worker


def _begin_worker(gpus: Any) -> None:
    """Make a worker process that leaves Ctrl-C to its parent, ends with it, and sees one GPU only where it is told."""
    import multiprocessing

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()
    parent = multiprocessing.parent_process()

    def follow() -> None:
        # the pipes do not tell: each worker has both ends of them
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _measured(
    function: Callable[..., Any], arguments: tuple[Any, ...], threads: int | None, alone: bool | None
) -> tuple[Any, dict[str, Any]]:
    """Run a job; return its outcome, and seconds, peak memory, threads, and the machine.

    `alone` says whether no other job runs in the process at the same time; None = in a Dask worker with one thread.
    """
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)  # noqa: TID251  (a worker is a process of our own)
    if alone is None:
        alone = _alone_in_dask()
    memory = _Memory(alone)
    started = time.perf_counter()
    try:
        outcome = function(*arguments)
    except SystemExit as error:  # would end the worker, or the whole run, without a word
        raise RuntimeError(f"the job called sys.exit({'' if error.code is None else shown(error.code)})") from error
    facts = {
        "seconds": round(time.perf_counter() - started, 4),
        "peak_bytes": memory.peak(),
        "threads": torch.get_num_threads(),
        "host": platform.node(),
    }
    return outcome, facts


def _alone_in_dask() -> bool:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    with contextlib.suppress(ValueError):  # no worker
        return bool(distributed.get_worker().state.nthreads == 1)
    return False


class _Memory:
    """The memory at a job's peak: on GPUs if it used any, else of the process if nothing else runs there."""

    def __init__(self, alone: bool) -> None:
        self._cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)
        for device in self._cuda:
            torch.cuda.reset_peak_memory_stats(device)
        self._alone = False
        if alone:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # Linux: sets the peak back to what is taken now
                self._alone = True

    def peak(self) -> int | None:
        """Return bytes, None where nobody can say."""
        if torch.cuda.is_initialized():
            gpu = max(
                (torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())), default=0
            )
            if gpu:
                return gpu
        if not self._alone:
            return None
        with contextlib.suppress(OSError, IndexError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None
