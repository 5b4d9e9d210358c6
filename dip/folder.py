"""Restore the pictures of a folder; the tree is kept, and one failure does not stop the rest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator
from concurrent.futures import BrokenExecutor, Future, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dip import files
from dip.batch import Place
from dip.console import Console, one_line
from dip.order import SCHEMA, Failure, Job, Order
from dip.storage import same
from dip.work import Work, summary, write_report

__all__ = ["Folder"]

_WRITTEN_AS_THEY_ARE = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


_Turn = tuple[int, str, dict[str, Any], bool]  # which picture, how it went, its report, whether there was Ctrl-C


@dataclass
class Folder:
    """A folder of pictures and where the results go: made, it has looked at names only.

    Parameters
    ----------
    source : Path
        The folder; all pictures in it and below are restored.
    target : Path
        The folder that takes the results, under the same names. A picture in a format that is not written (BMP, WebP)
        becomes a PNG. Results that exist are kept unless the order says otherwise, so that a run that was interrupted
        can be repeated.
    order : Order
        What is to be done.
    begin : callable
        ``begin(job)`` makes the work on one picture.
    mask : Path or None
        One mask for all, or a folder with the same tree.
    reference : Path or None
        A folder of clean pictures with the same tree.
    report : Path or None
        JSON file that takes a list of reports. One that exists is continued, unless the order says otherwise.
    place : Place or None
        Where to restore several at a time; None = here, one after the other.
    remote : callable or None
        ``remote(job)`` does the work on one picture there, and returns the report and the warnings.

    Raises
    ------
    ValueError
        There is no picture, or source and target are the same.
    OSError
        A folder does not exist, cannot be read or written.
    """

    source: Path
    target: Path
    order: Order
    begin: Callable[[Job], Work]
    mask: Path | None = None
    reference: Path | None = None
    report: Path | None = None
    place: Place | None = None
    remote: Callable[[Job], tuple[dict[str, Any], list[str]]] | None = None
    jobs: list[tuple[str, Job | OSError | ValueError]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.target.resolve() == self.source.resolve():
            raise ValueError(
                f"{self.target} is the folder of the pictures themselves; give another one for the results"
            )
        if self.reference is not None and not self.reference.is_dir():
            raise NotADirectoryError(
                f"{self.reference} is not a folder; give a folder of references for one of pictures"
            )
        self._unreadable: list[OSError] = []
        pictures = self._pictures()
        self.jobs += [(str(Path(error.filename).relative_to(self.source)), error) for error in self._unreadable]
        if not pictures and not self.jobs:
            known = ", ".join(files.IMAGE_SUFFIXES)
            raise ValueError(f"{self.source} holds no pictures; looked for {known}, in the folders below it too")
        # folders below it are made when there is something to put in
        files.check_target(self.target / "picture.png", force=True)
        if any(same(self.report, path) for path in pictures):
            raise ValueError(
                f"{self.report} is one of the pictures, and would be lost; choose another name for the report"
            )
        self._earlier = self._read_report()
        results = self._result_names(pictures)
        for path, name in zip(pictures, results, strict=True):
            try:
                self._check_numbers(name, results)
                job: Job | OSError | ValueError = Job(
                    path, self.target / name, self._partner(self.mask, path), self._partner(self.reference, path)
                )
            except (OSError, ValueError) as error:
                job = error
            self.jobs.append((str(path.relative_to(self.source)), job))

    def run(self, console: Console) -> int:
        """Restore them all.

        Returns
        -------
        int
            0; 1 if a picture failed, or the report could not be written; 130 after Ctrl-C: the picture at hand is
            then written under the name of its iteration, and not taken for done by the next run.
        """
        reports: dict[int, dict[str, Any]] = {}
        count = {"done": 0, "kept": 0, "failed": 0, "interrupted": 0}
        interrupted, complete = False, True
        turns = self._one_by_one(console) if self.place is None else self._side_by_side(console, self.place)
        with contextlib.closing(turns):
            while not interrupted:
                try:
                    number, outcome, reports[number], interrupted = next(turns)
                    count[outcome] += 1
                except StopIteration:
                    break
                except KeyboardInterrupt:
                    interrupted = True
                complete = self._write_report(reports, console)
        parts = [f"{number} {what}" for what, number in count.items() if number]
        left = len(self.jobs) - sum(count.values())
        console.say(", ".join(parts + [f"{left} not begun"] * (left > 0)))
        if interrupted:
            return 130
        return 1 if count["failed"] or not complete else 0

    def _one_by_one(self, console: Console) -> Generator[_Turn]:
        for number in range(len(self.jobs)):
            yield self._settled(number, console) or self._here(number, console)

    def _side_by_side(self, console: Console, place: Place) -> Generator[_Turn]:
        """Send all of them to the workers, and yield them as they come back.

        When a worker dies, nobody can tell which picture it was that took it down: those that were under way have
        another turn, one at a time.
        """
        try:
            flying: dict[Future[Any], int] = {}
            for number in range(len(self.jobs)):
                settled = self._settled(number, console)
                if settled is None:
                    flying[place.submit(self.remote, (self.jobs[number][1],))] = number  # type: ignore[arg-type]
                else:
                    yield settled
            lost = []
            for future in as_completed(flying):
                if isinstance(future.exception(), BrokenExecutor):
                    lost.append(flying[future])
                else:
                    yield self._back(flying[future], future, console)
            for number in lost:
                place.renew()
                future = place.submit(self.remote, (self.jobs[number][1],))  # type: ignore[arg-type]
                yield self._back(number, future, console)
        finally:
            place.close()

    def _settled(self, number: int, console: Console) -> _Turn | None:
        """The turn of a picture that needs no work: its result is there, or something is wrong with its files."""
        job = self.jobs[number][1]
        if not isinstance(job, Job):
            return self._failed(number, job, console)
        if not job.target.is_file() or self.order.force:
            return None
        console.say(f"{self._head(number)}{job.target} exists and is kept; --force replaces it")
        earlier = self._earlier.get(str(job.target))
        return number, "kept", earlier or {"schema": SCHEMA, "status": "kept", **job.names()}, False

    def _here(self, number: int, console: Console) -> _Turn:
        job = self.jobs[number][1]
        assert isinstance(job, Job)
        try:
            console.say(f"{self._head(number)}{job.source} ...")
            work = self.begin(job)
            report = work.run(console.say, aside=True)
        except Exception as error:  # whatever is wrong with one picture, the others have their turn
            return self._failed(number, error, console)
        console.say(self._head(number) + summary(report))
        return number, report["status"], report, work.interrupted

    def _back(self, number: int, future: Future[Any], console: Console) -> _Turn:
        try:
            (report, warnings), _ = future.result()
        except BrokenExecutor:
            return self._failed(number, MemoryError("its process died, as when the memory runs out"), console)
        except Exception as error:
            return self._failed(number, error, console)
        for text in warnings:
            console.warn(f"{self._head(number)}{text}")
        console.say(self._head(number) + summary(report))
        return number, report["status"], report, False

    def _failed(self, number: int, error: Exception, console: Console) -> _Turn:
        name, job = self.jobs[number]
        expected = isinstance(error, (Failure, OSError, ValueError, TypeError, MemoryError))
        reason = one_line(error) if expected else f"{type(error).__name__}: {one_line(error)}"
        console.error(error if expected else reason, about=self._head(number) + name)
        about = job if isinstance(job, Job) else Job(self.source / name, self.target / name)
        return number, "failed", about.failed(reason), False

    def _head(self, number: int) -> str:
        return f"[{number + 1}/{len(self.jobs)}] "

    def _pictures(self) -> list[Path]:
        """The pictures below the source that are not those of another tree in it: results, masks, references."""
        source = self.source.resolve()
        others = [tree.resolve() for tree in (self.target, self.mask, self.reference) if tree is not None]
        inside = [tree for tree in others if tree != source and tree.is_relative_to(source)]
        found = files.find(self.source, self._unreadable)
        return [path for path in found if not any(path.resolve().is_relative_to(tree) for tree in inside)]

    def _result_names(self, pictures: list[Path]) -> list[Path]:
        """The names of the results below the target; no two are the same, even where case does not count."""
        names = [path.relative_to(self.source) for path in pictures]
        taken = {str(name).casefold() for name in names}
        results = []
        for name in names:
            result = name
            if name.suffix.lower() not in _WRITTEN_AS_THEY_ARE:
                result = name.with_suffix(".png")
                if str(result).casefold() in taken:
                    result = name.with_name(name.name + ".png")
                taken.add(str(result).casefold())
            results.append(result)
        return results

    def _check_numbers(self, name: Path, results: list[Path]) -> None:
        """Refuse a result that the picture of an iteration of another would replace."""
        stem, point, number = name.stem.rpartition(".iter")
        other = name.with_name(stem + name.suffix)
        if self.order.save_every is not None and point and number.isdigit() and other in results:
            raise ValueError(f"{name} would be replaced by a picture that --save-every writes of {other}; rename it")

    def _partner(self, partners: Path | None, path: Path) -> Path | None:
        """The mask or reference of a picture: the same name in the other tree, with any extension of a picture."""
        if partners is None or not partners.is_dir():
            return partners
        name = partners / path.relative_to(self.source)
        if name.is_file():
            return name
        found = [other for suffix in files.IMAGE_SUFFIXES if (other := name.with_suffix(suffix)).is_file()]
        if len(found) > 1:
            raise ValueError(f"{' and '.join(map(str, found))} both go with {path}; keep one of them")
        if not found:
            raise FileNotFoundError(f"{name} does not exist, and no picture of another format beside it either")
        return found[0]

    def _write_report(self, reports: dict[int, dict[str, Any]], console: Console) -> bool:
        """Write the reports so far, and those from before on the pictures whose turn is still to come."""
        if self.report is None:
            return True
        earlier = {
            number: self._earlier.get(str(job.target))
            for number, (_, job) in enumerate(self.jobs)
            if isinstance(job, Job)
        }
        known = {number: report for number, report in (earlier | reports).items() if report is not None}
        try:
            write_report(self.report, [known[number] for number in sorted(known)])
        except OSError as error:
            console.error(error)
            return False
        return True

    def _read_report(self) -> dict[str, dict[str, Any]]:
        """The reports of an earlier run by the names of the results."""
        if self.report is None or not self.report.exists() or self.order.force:
            return {}
        try:
            entries = json.loads(self.report.read_text(encoding="utf-8"))
            if all(entry["schema"] == SCHEMA for entry in entries) and isinstance(entries, list):
                return {entry["output"]: entry for entry in entries if entry["status"] == "done"}
        except (ValueError, TypeError, KeyError, OSError):
            pass
        advice = "choose another name, or replace it with --force"
        raise FileExistsError(f"{self.report} exists and is no report on a folder that could be continued; {advice}")
