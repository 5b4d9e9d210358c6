"""A benchmark: pictures, a protocol and methods, cut into jobs; and what each job brings back."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dip import batch, devices
from dip.benchmark.methods import Method, resolved
from dip.benchmark.pictures import Scaled, check_masks, with_one_white
from dip.benchmark.protocols import Protocol
from dip.benchmark.tasks import Case, seeded
from dip.datasets import Entry
from dip.errors import non_negative_int, positive_int, shown
from dip.storage import write_bytes

__all__ = ["SCHEMA", "plan", "run"]

SCHEMA = "dip-benchmark-1"
"""What a record says it is."""

REPORTS = ("report.html", "results.csv", "results.md")
"""What is made anew of the results, beside them."""

_Tell = Callable[[batch.Progress, batch.Job, Mapping[str, Any]], Any]


def run(
    entries: Sequence[Entry],
    protocol: Protocol,
    methods: Sequence[str | Method],
    folder: str | os.PathLike[str],
    *,
    name: str = "",
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    iters: int | None = None,
    pictures: bool = True,
    inputs: bool = False,
    place: batch.Place | None = None,
    tell: _Tell | None = None,
) -> batch.Progress:
    """Run methods over pictures, and add what is new to the results in a folder.

    Parameters
    ----------
    entries : sequence of Entry
        The pictures: ``dip.datasets.pictures("set9")``.
    protocol : Protocol
        What is done to them and how the results are judged.
    methods : sequence of str or Method
        Names as in `dip.benchmark.find`, or what it returns.
    folder : path
        Takes `results.jsonl`, to which several runs may add at the same time, and the pictures. `dip.benchmark.report`
        makes tables and a page of it.
    name : str, optional
        Of the picture set, for the records.
    seeds : sequence of int
        Of the methods that draw numbers; noise and masks have the protocol's.
    device : str
        As for `dip.fit`.
    iters : int, optional
        Iterations of all methods that iterate, in place of their own.
    pictures : bool
        Write what each method made of each picture (8-bit PNG), for the first seed.
    inputs : bool
        Write the degraded pictures exactly as the methods get them (float32, npy); their hashes are in each record.
    place : Place, optional
        Where the jobs run; by default in this process.
    tell : callable, optional
        As for `dip.batch.run`.

    Returns
    -------
    Progress
        How it went; what was finished before is not run again.

    Raises
    ------
    ValueError, TypeError, ImportError
        A method is not known, cannot do the task, or lacks its package. There is no such device where the jobs run.
        Or the folder has results of something else.
    OSError
        A result or picture cannot be written; or the folder has a report.html of something else (FileExistsError).

    Examples
    --------
    >>> from dip import benchmark, datasets
    >>> photographs = datasets.pictures("photographs")
    >>> run(photographs, Protocol("denoise"), ["nlm", "tv"], "report")  # doctest: +SKIP
    """
    place = batch.InProcess() if place is None else place
    if not isinstance(place, batch.Place):
        advice = "pass batch.Processes(2), or of an executor batch.Given(executor, 2)"
        raise TypeError(f"place must be one of dip.batch, not {shown(place)}; {advice}")
    try:
        seeds = _check(entries, protocol, seeds, iters)
        if place.here:
            devices.resolve(device)
        found = resolved(methods, protocol.task)
        _check_folder(Path(folder))
        entries = with_one_white(entries)
        jobs = _plan(entries, protocol, found, name, seeds, device, iters, pictures=pictures)
        with batch.Results(folder) as results:
            _write_inputs(entries, protocol, results.folder, pictures=pictures, exact=inputs)
            return batch.run(jobs, results, place, tell=tell)
    finally:
        place.close()


def _check(entries: Any, protocol: Any, seeds: Any, iters: int | None) -> list[int]:
    """Refuse what is none of these, the cheapest first; return the seeds, each once."""
    if not isinstance(protocol, Protocol):
        raise TypeError(
            f"protocol must be a benchmark.Protocol, not {shown(protocol)}; as benchmark.Protocol('denoise')"
        )
    if isinstance(entries, str) or not isinstance(entries, Iterable):
        raise TypeError(f"entries must be a list of pictures, not {shown(entries)}; as dip.datasets.pictures('set9')")
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise TypeError(f"seeds must be a list of whole numbers, not {shown(seeds)}; pass [0], or range(3) for three")
    each = list(dict.fromkeys(non_negative_int(seed, "seed") for seed in seeds))
    if not each:
        raise ValueError("seeds is empty; pass [0], or range(3) for three")
    if iters is not None:
        positive_int(iters, "iters")
    return each


def _check_folder(folder: Path) -> None:
    """Refuse a folder with results of something else before hours of work, and not at the end of them."""
    path = folder / "results.jsonl"
    if not path.is_file():
        for name in REPORTS:
            if os.path.lexists(folder / name):
                raise FileExistsError(
                    f"{folder / name} is there, without a results.jsonl of a benchmark, and would be replaced; choose "
                    "another folder, or move it away"
                )
        return
    with path.open("rb") as file:
        line = file.readline()
    found = None
    with contextlib.suppress(ValueError, AttributeError):
        found = json.loads(line).get("schema")
    if found != SCHEMA and line.endswith(b"\n"):
        raise ValueError(f"{path} has records of {found or 'something else'}, not of {SCHEMA}; choose another folder")


def plan(
    entries: Sequence[Entry],
    protocol: Protocol,
    methods: Sequence[Method],
    *,
    name: str = "",
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    iters: int | None = None,
    pictures: bool = True,
) -> list[batch.Job]:
    """Cut a benchmark into jobs: one for each picture, method and seed (one, for a method that draws no numbers).

    A job is known by the pixels that the method is given and those it is compared with, the method with its options
    (and its source, if it is a function of the user's own), the seed, and how the result is judged: not by names of
    pictures or sets, nor by the device.
    """
    seeds = _check(entries, protocol, seeds, iters)
    return _plan(with_one_white(entries), protocol, methods, name, seeds, device, iters, pictures=pictures)


def _plan(
    entries: Sequence[Any],
    protocol: Protocol,
    methods: Sequence[Method],
    name: str,
    seeds: Sequence[int],
    device: str,
    iters: int | None,
    *,
    pictures: bool,
) -> list[batch.Job]:
    if protocol.parameters.get("missing") == "mask":
        check_masks(entries)
    commit = _commit()
    own = {method.name: {"code": method.code} if method.code else {} for method in methods}
    identities = {method.name: method.identity_for(protocol.task) for method in methods}
    jobs = []
    for entry in entries:
        case = _case(entry, protocol)
        hashes = {"input": case.hash, "clean": batch.digest(case.clean)}
        before = protocol.figures_before(case)
        white = {"white": entry.white} if isinstance(entry, Scaled) else {}
        for method in methods:
            for seed in seeds if method.random else seeds[:1]:
                depends = {
                    "method": method.name,
                    "options": dict(method.options),
                    "iters": iters if method.random else None,
                    "seed": seed if method.random else None,
                }
                key = batch.key(
                    schema=SCHEMA,
                    **hashes,
                    **depends,
                    identity=identities[method.name],
                    judged=[protocol.metric, protocol.border],
                )
                about = {
                    "schema": SCHEMA,
                    "set": name,
                    "image": entry.name,
                    "height": case.clean.shape[0],
                    "width": case.clean.shape[1],
                    **white,
                    **depends,
                    **own[method.name],
                    "told": method.told,
                    "protocol": protocol.as_dict(),
                    "words": protocol.words(),
                    **hashes,
                    "before": before,
                    "commit": commit,
                }
                file = f"pictures/{key}.png" if pictures and seed == seeds[0] else None
                arguments = functools.partial(_arguments, entry, protocol, method, seed, device, iters, file)
                jobs.append(batch.Job(key, measure, arguments, about, kind=method.name))
    return jobs


def measure(
    function: Callable[..., np.ndarray],
    options: Mapping[str, Any],
    case: Case,
    protocol: Protocol,
    file: str | None,
) -> batch.Outcome:
    """Run one method on one case, time and judge it; in a worker."""
    started = time.perf_counter()
    picture = np.asarray(function(case, **options))
    seconds = time.perf_counter() - started
    figures = protocol.figures(picture, case)
    record = {
        "figures": {name: round(value, 5) for name, value in figures.items()},
        "seconds": round(seconds, 4),
        "device": case.log.pop("device", "cpu"),
        **case.log,
        "environment": _environment(),
    }
    if file is None:
        return batch.Outcome(record)
    return batch.Outcome({**record, "picture": file}, {file: png(picture)})


def png(picture: np.ndarray) -> bytes:
    """Return a picture in [0, 1], (H, W) or (H, W, 3), as an 8-bit PNG; what lies outside is clipped."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)).save(stream, "png")
    return stream.getvalue()


def _arguments(
    entry: Entry, protocol: Protocol, method: Method, seed: int, device: str, iters: int | None, file: str | None
) -> tuple[Any, ...]:
    case = seeded(_case(entry, protocol), seed, device, iters)
    return method.function, dict(method.options), case, protocol, file


@functools.lru_cache(maxsize=2)  # the jobs of one picture follow each other
def _case(entry: Entry, protocol: Protocol) -> Case:
    try:
        return protocol.case(entry.read(), entry.mask())
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{entry.name}: {error}") from error


@functools.cache
def _environment() -> dict[str, Any]:
    return {name: value for name, value in devices.environment().items() if name != "threads"}


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that this package is in, with "+" where files were changed; None if it is in none."""
    git = ["git", "-C", str(Path(__file__).parent)]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=10, check=True)
        if run([*git, "ls-files", "--error-unmatch", __file__]).returncode == 0:
            commit = run([*git, "rev-parse", "HEAD"]).stdout.strip()
            return commit + "+" * bool(run([*git, "status", "--porcelain", "-uno"]).stdout.strip())
    return None


def _write_inputs(entries: Sequence[Entry], protocol: Protocol, folder: Path, *, pictures: bool, exact: bool) -> None:
    """Write what the page shows beside the results; and the degraded pictures to the last bit, if wanted."""
    for entry in entries if pictures or exact else ():
        case = _case(entry, protocol)
        shown = case.y if case.before is None else case.before
        if pictures:
            for kind, picture in (("clean", case.clean), ("degraded", shown)):
                _write_once(folder / "pictures" / f"{case.hash[:32]}-{kind}.png", functools.partial(png, picture))
        if exact:
            for kind, array in (("y", case.y), ("mask", case.mask), ("psf", case.psf)):
                if array is not None:
                    _write_once(folder / "inputs" / f"{case.hash[:32]}-{kind}.npy", functools.partial(_npy, array))


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _write_once(path: Path, content: Callable[[], bytes]) -> None:
    if not path.exists():
        write_bytes(path, content())
