"""The work of a run: jobs, each with a key made of what it depends on; claimed, sent out, collected, written down."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from dip.batch.places import Place

__all__ = ["Job", "Ledger", "Outcome", "Progress", "digest", "key", "run"]

_TRIES = 3  # workers that a job may take down with it
_PAUSE = 0.5  # seconds between looks at the jobs that another run is at


def key(**parts: Any) -> str:
    """Return a name for a job: 32 hexadecimal digits of a hash of all that its result depends on.

    Parameters
    ----------
    **parts
        In JSON types; large arrays by their `digest`.

    Examples
    --------
    >>> key(method="tv", seed=0) == key(seed=0, method="tv") != key(method="tv", seed=1)
    True
    """
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest(array: np.ndarray | None) -> str | None:
    """Return 64 hexadecimal digits of the SHA-256 of an array's dtype, shape and values; None of None.

    Examples
    --------
    >>> digest(np.zeros(2)) == digest(np.zeros(2)) != digest(np.zeros((2, 1)))
    True
    """
    if array is None:
        return None
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    head = f"{little.dtype.str} {little.shape}\n".encode()
    return hashlib.sha256(head + little.tobytes()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What a job brings back.

    Attributes
    ----------
    record : mapping
        In JSON types, for the record.
    files : mapping
        Contents by name, relative to the folder of the results; the process that asked for the job writes them, before
        the record, whole or not at all.
    """

    record: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One piece of work. It may be begun several times (where a worker dies), so it must change nothing outside.

    Attributes
    ----------
    key : str
        What `key` returned: two jobs with the same one are the same job.
    function : callable
        Runs it and returns an `Outcome`; at the top of a module, so that other processes find it.
    arguments : callable
        Returns the arguments of `function`, when its turn comes.
    about : mapping
        In JSON types: what stands in the record beside what the job brings back.
    kind : str
        Jobs of one kind take about the same time; for the estimate of the time left.
    """

    key: str
    function: Callable[..., Outcome]
    arguments: Callable[[], tuple[Any, ...]]
    about: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""


class Ledger(Protocol):
    """What a run asks before a job, and where its result goes: `Results`, or what is like it."""

    def claim(self, key: str) -> str:
        """Take a job: "mine", "finished" or "busy", as `Results.claim`."""

    def add(self, key: str, record: Mapping[str, Any], files: Mapping[str, bytes]) -> bool:
        """Write the result of a job down; False if there is one already, as `Results.add`."""


class Progress:
    """How far a run is.

    Attributes
    ----------
    total, done, failed, kept : int
        All jobs; those that this run finished; those that failed in it; those that were finished already, or by another
        run meanwhile.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.total, self.done, self.failed, self.kept = len(jobs), 0, 0, 0
        self._left = Counter(job.kind for job in jobs)
        self._seconds: dict[str, tuple[int, float]] = {}
        self._began = math.inf  # when the first job did, which is later than workers are asked for

    def count(self, job: Job, how: str, seconds: float = 0.0) -> None:
        """Count a job as "done", "failed" or "kept"."""
        setattr(self, how, getattr(self, how) + 1)
        self._left[job.kind] -= 1
        if how == "done":
            number, before = self._seconds.get(job.kind, (0, 0.0))
            self._seconds[job.kind] = number + 1, before + seconds
            self._began = min(self._began, time.monotonic() - seconds)

    @property
    def left(self) -> int:
        """Jobs still to come."""
        return self.total - self.done - self.failed - self.kept

    def seconds_left(self) -> float | None:
        """Estimate the seconds that the rest takes, None before the first job is done.

        For each kind the mean of its jobs so far (of all jobs where there was none of the kind), divided by the number
        of jobs that have been running side by side.
        """
        passed = time.monotonic() - self._began
        number, work = (
            (sum(column) for column in zip(*self._seconds.values(), strict=True)) if self._seconds else (0, 0)
        )
        if not number or not work or not passed:
            return None
        means = {kind: seconds / count for kind, (count, seconds) in self._seconds.items()}
        left = sum(count * means.get(kind, work / number) for kind, count in self._left.items())
        return float(left * passed / work)


def run(
    jobs: Sequence[Job],
    results: Ledger,
    place: Place,
    *,
    tell: Callable[[Progress, Job, Mapping[str, Any]], Any] | None = None,
) -> Progress:
    """Run the jobs that are not finished yet, and write down what each brings back.

    Parameters
    ----------
    jobs : sequence of Job
        Those with equal keys are run once.
    results : Results
        Where the results go; or another `Ledger`.
    place : Place
        Where the jobs run. It is closed at the end.
    tell : callable, optional
        Called with the progress, a job and its record, as each one ends.

    Returns
    -------
    Progress
        How it went. A job that raised an exception, or took several workers down with it, has a record with
        "status": "failed" and "error"; the others are not touched by that, and the next run tries it again.

    Raises
    ------
    OSError
        A result could not be written (the disk is full), or there are no workers any more. What was finished before
        is kept, and the same call goes on from there.
    KeyboardInterrupt
        After Ctrl-C, in the same way.
    """
    return _Run(jobs, results, place, tell).run()


class _Run:
    def __init__(self, jobs: Sequence[Job], results: Ledger, place: Place, tell: Any) -> None:
        self.results, self.place, self.tell = results, place, tell
        self.progress = Progress(jobs)
        self.waiting = deque(jobs)
        self.elsewhere: deque[Job] = deque()  # another run is at them
        self.flying: dict[Future[Any], Job] = {}
        self.landed: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self.suspects: deque[Job] = deque()  # were running when a worker died: from now on one at a time
        self.deaths: Counter[str] = Counter()

    def run(self) -> Progress:
        try:
            while self.waiting or self.elsewhere or self.flying or self.suspects:
                self._send()
                self._collect()
        finally:
            self.place.close()
        return self.progress

    def _send(self) -> None:
        """Send out as many jobs as the place can take."""
        if self.suspects:
            if not self.flying:
                self._submit(self.suspects.popleft())
            return
        while self.waiting and len(self.flying) < self.place.window():
            job = self.waiting.popleft()
            answer = self.results.claim(job.key)
            if answer == "finished":
                self.progress.count(job, "kept")
            elif answer == "busy":
                self.elsewhere.append(job)
            elif not self._submit(job):
                break
        if not self.flying and self.elsewhere:
            time.sleep(_PAUSE)
            self.waiting, self.elsewhere = self.elsewhere, deque()

    def _submit(self, job: Job) -> bool:
        try:
            arguments = job.arguments()
        except Exception as error:
            self._failed(job, _words(error))
            return True
        try:
            future = self.place.submit(job.function, arguments)
        except BrokenExecutor:
            self._again(job)
            if not self.flying:
                self.place.renew()
            return False
        self.flying[future] = job
        future.add_done_callback(self.landed.put)
        return True

    def _collect(self) -> None:
        """Write down what has come back; wait for something if there is anything under way."""
        if not self.flying:
            return
        todo = [self.landed.get()]
        while not self.landed.empty():
            todo.append(self.landed.get())
        for future in todo:
            job = self.flying.pop(future)
            try:
                outcome, facts = future.result()
            except (BrokenExecutor, CancelledError) as error:
                self._lost(job, error)
                continue
            except Exception as error:
                self._failed(job, _words(error))
                continue
            record = {"status": "done", **job.about, **outcome.record, **facts, "finished": _now()}
            self._write(job, record, outcome.files)

    def _lost(self, job: Job, error: BaseException) -> None:
        """Deal with a job whose worker is no more. When all are back that were under way, there are new workers."""
        if self.place.guilty(error):
            self.deaths[job.key] += 1
        if self.deaths[job.key] >= _TRIES:
            self._failed(job, f"its worker died {_TRIES} times, as when memory runs out")
        else:
            self._again(job)
        if not self.flying:
            self.place.renew()

    def _again(self, job: Job) -> None:
        if self.place.one_by_one:
            self.suspects.append(job)
        else:
            self.waiting.appendleft(job)

    def _failed(self, job: Job, reason: str) -> None:
        self._write(job, {"status": "failed", **job.about, "error": reason, "finished": _now()})

    def _write(self, job: Job, record: Mapping[str, Any], files: Mapping[str, bytes] = MappingProxyType({})) -> None:
        how = "done" if record["status"] == "done" else "failed"
        if not self.results.add(job.key, record, files):
            how = "kept"
        self.progress.count(job, how, float(record.get("seconds") or 0.0))
        if self.tell is not None:
            self.tell(self.progress, job, record)


def _words(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
