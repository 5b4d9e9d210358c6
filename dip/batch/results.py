"""The results of jobs in a folder: one JSON line for each, shared by all runs that work there.

Two files matter. `results.jsonl` only grows; a line is appended in one piece, under a lock, and taken back if the disk
had no room for all of it. In `.runs`, each run has a list of the jobs that it is at, and a lock that the system takes
away when the process ends, however that happens: so a job is never run by two at a time, and what a killed run was at
is free again at once, without clocks or heartbeats.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from dip.storage import check_place, plain, write_bytes

__all__ = ["Results"]

_POLL = 0.002  # seconds between looks at a lock that another run holds for a moment
_SYNC = 1.0  # at most so many seconds of results are lost when the power fails; none are when a process is killed


class Results:
    """The results in a folder, as one run sees them.

    Parameters
    ----------
    folder : str or path-like
        Made if it is not there.

    Attributes
    ----------
    folder, path : Path
        The folder, and `results.jsonl` in it.
    finished : set of str
        The keys of the jobs that need not be run: done, or failed since this object was made. (What failed before is
        tried again.)

    Raises
    ------
    OSError
        The folder cannot be written.
    ValueError
        It has a `results.jsonl` of something else.

    Examples
    --------
    >>> with Results("runs/first") as results:  # doctest: +SKIP
    ...     if results.claim("a1b2") == "mine":
    ...         results.add("a1b2", {"status": "done", "psnr": 30.5})
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from filelock import FileLock

        self.folder = Path(folder)
        self.path = self.folder / "results.jsonl"
        self.finished: set[str] = set()
        self._runs = self.folder / ".runs"
        check_place(self.path)
        self._runs.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._runs / "lock", thread_local=False)
        self._read, self._synced = 0, time.monotonic()
        self._others: dict[Path, tuple[int, set[str]]] = {}
        token = secrets.token_hex(8)
        self._claims = self._runs / f"{token}.claims"
        self._alive = FileLock(self._runs / f"{token}.alive", thread_local=False)
        with self._lock.acquire(poll_interval=_POLL):
            self._alive.acquire()
            self._claims.touch()
            for path in self._runs.glob("*.claims"):
                self._bury(path)
            self._refresh(failed_too=False)

    def claim(self, key: str) -> str:
        """Take a job for this run.

        Returns
        -------
        str
            "mine"; "finished"; or "busy", if another run that is alive is at it.
        """
        if key in self.finished:
            return "finished"
        with self._lock.acquire(poll_interval=_POLL):
            self._refresh()
            if key in self.finished:
                return "finished"
            if self._busy(key):
                return "busy"
            with self._claims.open("a", encoding="utf-8") as file:
                file.write(key + "\n")
        return "mine"

    def add(self, key: str, record: Mapping[str, Any], files: Mapping[str, bytes] = MappingProxyType({})) -> bool:
        """Append the result of a job.

        Parameters
        ----------
        key : str
            The job.
        record : mapping
            In JSON types; "key" is added, and what is not finite becomes null. Its "status" is "done" or "failed".
        files : mapping
            Contents by name, relative to the folder; each is written before the record is, whole or not at all.

        Returns
        -------
        bool
            False if there is one already, which stays the only one.

        Raises
        ------
        OSError
            It could not be written, and the file is as it was.
        """
        for name, content in files.items():
            write_bytes(self.folder / name, content)
        line = (json.dumps(plain({"key": key, **record}), allow_nan=False) + "\n").encode()
        with self._lock.acquire(poll_interval=_POLL):
            self._refresh()
            if key in self.finished:
                return False
            self._append(line)
            self._read += len(line)
            self.finished.add(key)
        return True

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
        """Yield the last record of each job in a file, in its order; a failure only where nothing was ever done."""
        best: dict[str, tuple[bool, int]] = {}
        for number, record in enumerate(_lines(path)):
            done = record.get("status") == "done"
            if done or not best.get(record["key"], (False, 0))[0]:
                best[record["key"]] = (done, number)
        chosen = {number for _, number in best.values()}
        yield from (record for number, record in enumerate(_lines(path)) if number in chosen)

    def close(self) -> None:
        """Give back what was claimed and not finished; the results are on the disk."""
        if not self._alive.is_locked:
            return
        if self.path.exists():
            self._sync()
        with self._lock.acquire(poll_interval=_POLL):
            self._alive.release()
            self._bury(self._claims)

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ under the lock

    def _append(self, line: bytes) -> None:
        """Write all of a line, or nothing."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        file = os.open(self.path, flags, 0o666)
        try:
            before = os.fstat(file).st_size
            try:
                left = line
                while left:
                    left = left[os.write(file, left) :]
                if time.monotonic() - self._synced > _SYNC:
                    os.fsync(file)
                    self._synced = time.monotonic()
            except OSError as error:
                os.ftruncate(file, before)
                raise OSError(error.errno, f"a result cannot be written: {error.strerror}", str(self.path)) from error
        finally:
            os.close(file)

    def _refresh(self, *, failed_too: bool = True) -> None:
        """Read what other runs have added; cut off the piece of a line that a writer left when it was killed."""
        if not self.path.exists() or self.path.stat().st_size == self._read:
            return
        with self.path.open("r+b") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    file.truncate(self._read)
                    break
                record = _record(line, self.path)
                if failed_too or record.get("status") == "done":
                    self.finished.add(record["key"])
                self._read += len(line)

    def _busy(self, key: str) -> bool:
        """Whether another run is at a job; the lists of those that are no more are thrown away."""
        for path in self._runs.glob("*.claims"):
            if path == self._claims:
                continue
            read, keys = self._others.setdefault(path, (0, set()))
            with path.open("rb") as file:
                file.seek(read)
                new = file.read()
            new = new[: new.rfind(b"\n") + 1]
            keys.update(new.decode().split())
            self._others[path] = (read + len(new), keys)
            if key in keys and not self._bury(path):
                return True
        return False

    def _bury(self, claims: Path) -> bool:
        """Remove the list of a run that is no more; return whether it is."""
        from filelock import FileLock, Timeout

        if claims == self._claims and self._alive.is_locked:
            return False
        lock = FileLock(claims.with_suffix(".alive"), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        try:
            claims.unlink(missing_ok=True)
            self._others.pop(claims, None)
        finally:
            lock.release()
        claims.with_suffix(".alive").unlink(missing_ok=True)
        return True

    def _sync(self) -> None:
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())


def _lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; a last line that is being written is not yet one."""
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _record(line, path)


def _record(line: bytes, path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        record = json.loads(line)
        record["key"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)} holds something else than results; choose another folder") from error
    found: dict[str, Any] = record
    return found
