"""Restore the pictures of a folder; the tree is kept, and one failure does not stop the rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dip import batch, files
from dip.callbacks import duration
from dip.console import Console, one_line
from dip.errors import warn
from dip.order import EXPECTED, SCHEMA, Job, Order
from dip.parcels import Parcel, pack
from dip.storage import check_place, same, write_bytes
from dip.work import Work, summary, write_report

__all__ = ["Folder", "partner"]

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
    anew : bool, default False
        Replace the report, though no results.

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
    anew: bool = False
    jobs: list[tuple[str, Job | OSError | ValueError]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.target.resolve() == self.source.resolve():
            raise ValueError(
                f"{self.target} is the folder of the pictures themselves; give another one for the results"
            )
        if self.target.suffix.lower() in files.IMAGE_SUFFIXES and not self.target.is_dir():
            raise ValueError(
                f"{self.target} is named like a picture and {self.source} is a folder; name a folder for the results"
            )
        if self.reference is not None and not self.reference.is_dir():
            raise NotADirectoryError(
                f"{self.reference} is not a folder; give a folder of references for one of pictures"
            )
        if self.target.resolve().is_relative_to(self.source.resolve()):
            warn(
                f"{self.target} is in {self.source}: this command passes its results over, and any other one for "
                f"{self.source} will take them for pictures; choose a folder outside for them"
            )
        self._unreadable: list[OSError] = []
        pictures, self._passed_over = self._pictures()
        self.jobs += [(str(Path(error.filename).relative_to(self.source)), error) for error in self._unreadable]
        if not pictures and not self.jobs:
            known = ", ".join(files.IMAGE_SUFFIXES)
            raise ValueError(f"{self.source} holds no pictures; looked for {known}, in the folders below it too")
        # folders below it are made when there is something to put in
        check_place(self.target / "picture.png", str(self.target))
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

    def run(
        self,
        console: Console,
        place: batch.Place | None = None,
        remote: Callable[[Parcel], batch.Outcome] | None = None,
    ) -> int:
        """Restore them all.

        Parameters
        ----------
        console : Console
            Takes the messages.
        place : Place, optional
            Where to restore several at a time; by default here, one after the other.
        remote : callable, optional
            ``remote(parcel)`` does the work on one picture there. The record of its outcome has a "status", the
            "report" or an "error", and "warnings"; the names of its files are relative to the folder of the target.

        Returns
        -------
        int
            0; 1 if a picture failed, or the report could not be written; 130 after Ctrl-C: the picture at hand is
            then written under the name of its iteration, and not taken for done by the next run. (Those at hand
            elsewhere begin anew in it.)

        Raises
        ------
        OSError
            There are no workers any more. What was done before is kept.
        """
        reports: dict[int, dict[str, Any]] = {}
        count = {"done": 0, "kept": 0, "failed": 0, "interrupted": 0}
        complete = True

        def note(turn: _Turn) -> None:
            nonlocal complete
            number, outcome, reports[number], _ = turn
            count[outcome] += 1
            complete = self._write_report(reports, console)

        if self._passed_over:
            kinds = Counter(path.suffix.lower() or "without extension" for path in self._passed_over)
            listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
            console.say(f"passed over, since only {', '.join(files.IMAGE_SUFFIXES)} are read: {listed}")
        try:
            if place is None:
                interrupted = self._one_by_one(note, console)
            else:
                interrupted = False
                self._side_by_side(note, console, place, remote)
        except KeyboardInterrupt:
            interrupted = True
            complete = self._write_report(reports, console)
        parts = [f"{number} {what}" for what, number in count.items() if number]
        left = len(self.jobs) - sum(count.values())
        rest = f"{left} not {'begun' if place is None else 'finished'}"
        console.say(", ".join(parts + [rest] * (left > 0)))
        if interrupted:
            return 130
        return 1 if count["failed"] or not complete else 0

    def _one_by_one(self, note: Callable[[_Turn], None], console: Console) -> bool:
        """Restore them here; return whether there was Ctrl-C."""
        for number in range(len(self.jobs)):
            turn = self._settled(number, console) or self._here(number, console)
            note(turn)
            if turn[3]:
                return True
        return False

    def _side_by_side(
        self,
        note: Callable[[_Turn], None],
        console: Console,
        place: batch.Place,
        remote: Callable[[Parcel], batch.Outcome] | None,
    ) -> None:
        """Restore them on workers; one that dies costs no more than another try of its picture."""
        assert remote is not None
        ledger = _Ledger(self, note, console)
        jobs = [batch.Job(str(number), remote, partial(ledger.parcel, number)) for number in range(len(self.jobs))]
        batch.run(jobs, ledger, place, tell=ledger.tell)

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
        console.say(self._head(number) + _line(report))
        return number, report["status"], report, work.interrupted

    def _back(self, number: int, record: Mapping[str, Any], rest: str, console: Console) -> _Turn:
        """The turn of a picture that comes back from elsewhere."""
        for text in record.get("warnings", ()):
            console.warn(f"{self._head(number)}{text}")
        if "report" not in record:
            return self._failed(number, record["error"], console, record.get("trace", ""))
        report = record["report"]
        console.say(self._head(number) + _line(report) + rest)
        return number, report["status"], report, False

    def _failed(self, number: int, error: Exception | str, console: Console, trace: str = "") -> _Turn:
        name, job = self.jobs[number]
        expected = isinstance(error, (str, *EXPECTED))
        reason = one_line(error) if expected else f"{type(error).__name__}: {one_line(error)}"
        console.error(error if expected else reason, about=self._head(number) + name, trace=trace)
        about = job if isinstance(job, Job) else Job(self.source / name, self.target / name)
        return number, "failed", about.failed(reason), False

    def _head(self, number: int) -> str:
        return f"[{number + 1}/{len(self.jobs)}] "

    def _pictures(self) -> tuple[list[Path], list[Path]]:
        """The pictures below the source, and the other files; not those of another tree in it: results, masks,
        references."""
        source = self.source.resolve()
        trees = [tree.resolve() for tree in (self.target, self.mask, self.reference) if tree is not None]
        inside = [tree for tree in trees if tree != source and tree.is_relative_to(source)]

        def ours(paths: list[Path]) -> list[Path]:
            return [path for path in paths if not any(path.resolve().is_relative_to(tree) for tree in inside)]

        others: list[Path] = []
        pictures = ours(files.find(self.source, self._unreadable, others))
        return pictures, [path for path in ours(others) if not same(path, self.report)]

    def _result_names(self, pictures: list[Path]) -> list[Path]:
        """The names of the results below the target; no two are the same, even where case does not count."""
        names = [path.relative_to(self.source) for path in pictures]
        taken = {str(name).casefold() for name in names}
        results = []
        for name in names:
            result = name
            lossy = self.order.command == "dejpeg" and name.suffix.lower() in (".jpg", ".jpeg")
            if lossy or name.suffix.lower() not in _WRITTEN_AS_THEY_ARE:
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
        """The mask or reference of a picture."""
        if partners is None or not partners.is_dir():
            return partners
        return partner(partners, path.relative_to(self.source))

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
        if self.report is None or not self.report.exists() or self.order.force or self.anew:
            return {}
        try:
            entries = json.loads(self.report.read_text(encoding="utf-8"))
            if all(entry["schema"] == SCHEMA for entry in entries) and isinstance(entries, list):
                return {entry["output"]: entry for entry in entries if entry["status"] == "done"}
        except (ValueError, TypeError, KeyError, OSError):
            pass
        advice = "choose another name, or replace it with --force"
        raise FileExistsError(f"{self.report} exists and is no report on a folder that could be continued; {advice}")


def partner(tree: Path, name: Path) -> Path:
    """Return the mask or reference of a picture: of the same name in another tree, with any extension of a picture.

    Raises
    ------
    ValueError, FileNotFoundError
        There are several, or there is none.
    """
    path = tree / name
    if path.is_file():
        return path
    found = [other for suffix in files.IMAGE_SUFFIXES if (other := path.with_suffix(suffix)).is_file()]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(map(str, found))} both go with {name}; keep one of them")
    if not found:
        others = ", ".join(files.IMAGE_SUFFIXES)
        raise FileNotFoundError(f"{path} does not exist, nor is it there with another extension ({others})")
    return found[0]


def _line(report: dict[str, Any]) -> str:
    """What a picture comes to, with what was found in it and its mask: no line said so at its beginning."""
    missing, noise = (report["settings"].get(name) for name in ("missing", "noise"))
    told = [] if missing is None else [f"{missing:.1%} missing"]
    return ", ".join([summary(report), *told, *([noise] if noise else [])])


class _Ledger:
    """What becomes of the pictures of a folder that are restored elsewhere: what is there already is not begun, and
    what comes back is written by this process alone."""

    def __init__(self, folder: Folder, note: Callable[[_Turn], None], console: Console) -> None:
        self._folder, self._note, self._console = folder, note, console
        self._parcels: dict[int, Parcel] = {}  # packed, and not yet sent
        self._unwritten: dict[str, Exception] = {}

    def claim(self, key: str) -> str:
        """Look whether a picture has to be restored and can be; take its files then."""
        number, folder = int(key), self._folder
        turn = folder._settled(number, self._console)
        if turn is None:
            try:
                self._parcels[number] = self._packed(number)
            except Exception as error:  # whatever is wrong with one picture, the others have their turn
                turn = folder._failed(number, error, self._console)
        if turn is None:
            return "mine"
        self._note(turn)
        return "finished"

    def _packed(self, number: int) -> Parcel:
        job = self._folder.jobs[number][1]
        assert isinstance(job, Job)
        return pack(job, self._folder.order)

    def parcel(self, number: int) -> tuple[Parcel]:
        """Return what is sent: anew, where it was sent before and lost."""
        return (self._parcels.pop(number, None) or self._packed(number),)

    def add(self, key: str, record: Mapping[str, Any], contents: Mapping[str, bytes]) -> bool:
        """Write what came back."""
        job = self._folder.jobs[int(key)][1]
        assert isinstance(job, Job)
        try:
            for name, content in contents.items():
                path = job.target.parent / name
                if path == job.target:
                    files.check_target(path, force=self._folder.order.force)
                write_bytes(path, content)
        except (OSError, ValueError) as error:
            self._unwritten[key] = error
        return True

    def tell(self, progress: batch.Progress, job: batch.Job, record: Mapping[str, Any]) -> None:
        """Say how a picture went, and how long the rest will take."""
        number, error, left = int(job.key), self._unwritten.get(job.key), progress.seconds_left()
        if error is not None:
            self._note(self._folder._failed(number, error, self._console))
            return
        rest = f"; about {duration(left)} left" if left and left > 1 else ""
        self._note(self._folder._back(number, record, rest, self._console))
