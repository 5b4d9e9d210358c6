"""The results in a folder as tables: CSV with a line for each job, Markdown with means and pictures."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dip.batch import Results
from dip.benchmark.runs import SCHEMA

__all__ = ["Group", "Row", "as_csv", "as_markdown", "groups", "records"]

_COLUMNS = ("set", "image", "height", "width", "method", "told", "seed", "iters", "status")
_FIGURES = ("psnr", "ssim", "psnr_missing")
_INFINITE = ("psnr", "psnr_missing")  # of a picture that is restored exactly; null in a record
_AFTER = ("seconds", "peak_bytes", "threads", "device", "host", "input", "commit", "finished", "error")


@dataclass(frozen=True)
class Row:
    """What a method came to under one protocol.

    Attributes
    ----------
    method, told : str
        Its name, and what it was told besides the picture.
    pictures, failed : int
        Pictures of which the means are; jobs that failed.
    figures : mapping
        Means over the pictures of the means over seeds: psnr (dB), ssim, psnr_missing. That of PSNR is infinite where
        all pictures are restored exactly.
    spread : float or None
        Standard deviation in dB of a seed's mean PSNR, over the seeds that have all pictures; None for fewer than two.
    seconds : float or None
        Of a picture, mean.
    peak_bytes : int or None
        The largest.
    """

    method: str
    told: str
    pictures: int
    failed: int
    figures: Mapping[str, float]
    spread: float | None
    seconds: float | None
    peak_bytes: int | None


@dataclass
class Group:
    """The records of one protocol.

    Attributes
    ----------
    protocol : dict
        See `dip.benchmark.Protocol.as_dict`.
    words : str
        The same for people.
    records : list of dict
        Those of all its jobs.
    """

    protocol: dict[str, Any]
    words: str
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def images(self) -> list[str]:
        """The names of the pictures."""
        return list(dict.fromkeys(record["image"] for record in self.records))

    @property
    def methods(self) -> list[str]:
        """The names of the methods, best mean PSNR first."""
        return [row.method for row in self.rows() if row.method != "degraded"]

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The pictures that no mean has, each with the methods that restored it exactly.

        One infinite PSNR makes a mean infinite, so that it says nothing of the other pictures; and means of different
        pictures cannot be compared. So such a picture is left out for all methods. A method that restores all of its
        pictures exactly leaves none out: its mean is infinite.
        """
        found: dict[str, list[str]] = {}
        for name, records in self._by_method().items():
            done = [record for record in records if record["status"] == "done"]
            exact = [record["image"] for record in done if _exact(record)]
            if len(exact) < len(done):
                for image in dict.fromkeys(exact):
                    found.setdefault(image, []).append(name)
        return found

    def note(self) -> str:
        """Return what is to be known of the means, in a sentence; empty where all pictures are in them."""
        left_out = self.left_out
        if not left_out:
            return ""
        named = "; ".join(f"{image} (restored exactly by {', '.join(methods)})" for image, methods in left_out.items())
        return f"Left out of the means of all methods, for a PSNR that is infinite: {named}."

    def rows(self) -> list[Row]:
        """Return a row for each method, the best mean PSNR first, and one for the degraded pictures."""
        left_out = self.left_out
        rows = [self._row(name, found, left_out) for name, found in self._by_method().items()]
        rows.sort(key=lambda row: -row.figures.get("psnr", -1))
        return [*rows, *self._degraded(left_out)]

    def values(self, method: str, image: str, figure: str) -> list[float]:
        """Return a figure of a method on a picture, one for each seed; a PSNR is infinite where nothing is wrong."""
        found = [r for r in self.records if (r["method"], r["image"], r["status"]) == (method, image, "done")]
        numbers = [_figure(record["figures"], figure) for record in found]
        return [number for number in numbers if number is not None]

    def by_picture(self, figure: str) -> dict[str, dict[str, list[float]]]:
        """Return a figure of each method on each picture, one for each seed."""
        methods = self.methods
        return {image: {method: self.values(method, image, figure) for method in methods} for image in self.images}

    def _by_method(self) -> dict[str, list[dict[str, Any]]]:
        by_method: dict[str, list[dict[str, Any]]] = {}
        for record in self.records:
            by_method.setdefault(record["method"], []).append(record)
        return by_method

    def _row(self, method: str, found: Sequence[dict[str, Any]], left_out: Collection[str]) -> Row:
        done = [record for record in found if record["status"] == "done"]
        by_image: dict[str, list[dict[str, Any]]] = {}
        by_seed: dict[Any, list[float]] = {}
        for record in done:
            if record["image"] in left_out:
                continue
            by_image.setdefault(record["image"], []).append(record)
            psnr = _figure(record["figures"], "psnr")
            if psnr is not None:
                by_seed.setdefault(record["seed"], []).append(psnr)
        figures = {}
        for name in _FIGURES:
            means = [_mean(_figure(r["figures"], name) for r in several) for several in by_image.values()]
            mean = _mean(means)
            if mean is not None:
                figures[name] = mean
        whole = [statistics.fmean(each) for each in by_seed.values() if len(each) == len(by_image)]
        peaks = [record["peak_bytes"] for record in done if record.get("peak_bytes")]
        return Row(
            method=method,
            told=found[0]["told"],
            pictures=len(by_image),
            failed=len(found) - len(done),
            figures=figures,
            spread=statistics.stdev(whole) if len(whole) > 1 and math.isfinite(sum(whole)) else None,
            seconds=_mean(record["seconds"] for record in done),
            peak_bytes=max(peaks, default=None),
        )

    def _degraded(self, left_out: Collection[str]) -> list[Row]:
        before = {record["image"]: record["before"] for record in self.records if record["before"]}
        counted = [one for image, one in before.items() if image not in left_out]
        if not before:
            return []
        names = ("psnr", "ssim")
        means = {name: _mean(_figure(one, f"{name}_before") for one in counted) for name in names}
        figures = {name: mean for name, mean in means.items() if mean is not None}
        return [Row("degraded", "", len(counted), 0, figures, None, None, None)]


def _figure(figures: Mapping[str, float | None], name: str) -> float | None:
    """A figure of a record, where null stands for what is not finite; None where there is none."""
    if name.removesuffix("_before") in _INFINITE and name in figures and figures[name] is None:
        return math.inf
    return figures.get(name)


def _exact(record: dict[str, Any]) -> bool:
    return any(_figure(record["figures"], name) == math.inf for name in _INFINITE)


def records(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the last record of each job in a folder.

    Raises
    ------
    FileNotFoundError
        There is no `results.jsonl` in it.
    ValueError
        It is not that of a benchmark.
    """
    path = Path(folder) / "results.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run a benchmark into that folder first")
    found = list(Results.read(path))
    strange = next((record for record in found if record.get("schema") != SCHEMA), None)
    if strange is not None:
        raise ValueError(
            f"{path} has a record that is not of {SCHEMA} but of {strange.get('schema')!r}; choose another"
        )
    return found


def groups(found: Iterable[dict[str, Any]]) -> list[Group]:
    """Sort records by protocol and picture set, and by picture.

    A method that was run in several ways under its name (a try of a few iterations; other weights) appears as several.
    Of a function of the user's own that was changed, what it says now has the name, and what it said before a hash.
    """
    by_protocol: dict[str, Group] = {}
    for record in _told_apart(list(found)):
        # 25 of an earlier version is 25.0 of now
        numbers = {key: float(one) if type(one) is int else one for key, one in record["protocol"].items()}
        name = json.dumps([record["set"], numbers], sort_keys=True)
        group = by_protocol.setdefault(name, Group({"set": record["set"], **record["protocol"]}, record["words"]))
        group.records.append(record)
    return list(by_protocol.values())


def _told_apart(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records whose methods have names of their own for each count of iterations and each choice of options."""
    ways: dict[str, list[str]] = {}
    for record in found:
        several = ways.setdefault(_counted(record), [])
        options = json.dumps(record["options"], sort_keys=True)
        if options not in several:
            several.append(options)
    # the order of jobs that were tried again is not that of their ends
    newest = {one["method"]: one.get("code") for one in sorted(found, key=lambda one: one["finished"])}
    named = []
    for record in found:
        name = _counted(record)
        if len(ways[name]) > 1:
            everywhere = set.intersection(*(set(map(str, json.loads(way).items())) for way in ways[name]))
            own = {key: value for key, value in record["options"].items() if str((key, value)) not in everywhere}
            name += "".join(f", {key} {_short(str(value))}" for key, value in own.items())
        if record.get("code") != newest[record["method"]]:
            name += f", code {record['code'][:8]}" if record.get("code") else ", earlier code"
        named.append({**record, "method": name})
    return named


def _short(text: str) -> str:
    """The beginning of a hash; else all of it."""
    return text[:12] if len(text) == 64 and text.isalnum() else text


def _counted(record: dict[str, Any]) -> str:
    return record["method"] + (f", {record['iters']} iterations" if record["iters"] is not None else "")


def as_csv(found: Iterable[dict[str, Any]]) -> str:
    """Return records as CSV: a line for each job, with the protocol's parameters in one column as JSON."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_COLUMNS, *_FIGURES, "psnr_before", "ssim_before", *_AFTER, "options", "protocol"])
    for record in found:
        figures, before = record.get("figures", {}), record["before"]
        row = [record.get(name) for name in _COLUMNS] + [_figure(figures, name) for name in _FIGURES]
        row += [_figure(before, name) for name in ("psnr_before", "ssim_before")]
        row += [record.get(name) for name in _AFTER]
        writer.writerow([*row, json.dumps(record["options"]), json.dumps(record["protocol"])])
    return stream.getvalue()


def as_markdown(found: Sequence[Group]) -> str:
    """Return the means of each method, and its PSNR on each picture, as Markdown."""
    parts = []
    for group in found:
        total = len(group.images)
        title = f"{group.protocol['set'] or 'pictures'}, {group.protocol['task']}"
        lines = [f"## {title}\n", f"{group.words}\n"]
        lines += _table(
            ["method", "told", "PSNR (dB)", "± seeds", "SSIM", "seconds", "peak MiB", "pictures"],
            [
                [
                    row.method,
                    row.told,
                    _number(row.figures.get("psnr"), 2),
                    _number(row.spread, 2),
                    _number(row.figures.get("ssim"), 4),
                    _number(row.seconds, 1),
                    _number(None if row.peak_bytes is None else row.peak_bytes / 2**20, 0),
                    f"{row.pictures} of {total}" + f", {row.failed} failed" * (row.failed > 0),
                ]
                for row in group.rows()
            ],
        )
        lines += ["", group.note()] if group.left_out else []
        lines += ["", "PSNR (dB) of each picture, mean over seeds:\n"]
        lines += _table(
            ["picture", *group.methods],
            [
                [image, *(_number(_mean(group.values(m, image, "psnr")), 2) for m in group.methods)]
                for image in group.images
            ],
        )
        errors = [r for r in group.records if r["status"] == "failed"]
        if errors:
            lines += ["", "Failed:\n", *(f"- {r['method']} on {r['image']}: {r['error']}" for r in errors)]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
