"""One page that shows everything: tables, pictures before and after, curves, the spread over seeds; no other file."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dip._version import __version__
from dip.benchmark.tables import Group, as_csv, as_markdown, groups, records
from dip.storage import plain, write_bytes

__all__ = ["as_html", "report"]

LIMIT = 20 * 2**20
"""Bytes that the pictures of a page may take."""

_SIDES = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 32)  # pixels: the largest that is within the limit
_QUALITY = 90
_SEEDS = 10  # curves that are drawn of each method and picture


def report(folder: str | os.PathLike[str], *, title: str = "Benchmark", limit: int = LIMIT) -> Path:
    """Make tables and a page of all results in a folder.

    Parameters
    ----------
    folder : path
        With the `results.jsonl` of one or more benchmarks; `results.csv`, `results.md` and `report.html` are written
        there anew.
    title : str
        Of the page.
    limit : int
        Bytes that its pictures may take; they are reduced until they do.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    OSError
        There are no results, or a file cannot be written.
    ValueError
        They are not those of a benchmark.
    """
    folder = Path(folder)
    found = records(folder)
    sorted_ = groups(found)
    write_bytes(folder / "results.csv", as_csv(found).encode())
    write_bytes(folder / "results.md", f"# {title}\n\n{as_markdown(sorted_)}".encode())
    return write_bytes(folder / "report.html", as_html(sorted_, folder, title=title, limit=limit).encode())


def as_html(found: Sequence[Group], folder: Path, *, title: str, limit: int = LIMIT) -> str:
    """Return the page.

    Parameters
    ----------
    found : sequence of Group
        What is shown.
    folder : Path
        Where the pictures are; those that are missing are left out.
    title, limit
        As for `report`.
    """
    shelf = _Shelf(folder)
    shown = [_group(group, shelf) for group in found]
    pictures, side = shelf.encoded(limit)
    data = {"made": _made(found), "groups": shown, "pictures": pictures, "side": side}
    text = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    # "<" ends a script, wherever it stands
    encoded = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return text.replace("__TITLE__", html.escape(title)).replace("__DATA__", encoded)


class _Shelf:
    """The pictures of a page, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[Path, int] = {}

    def place(self, name: str | None) -> int | None:
        """Return the number of a picture, None where there is none."""
        path = self._folder / name if name else None
        if path is None or not path.is_file():
            return None
        return self._places.setdefault(path, len(self._places))

    def encoded(self, limit: int) -> tuple[list[str], int]:
        """Return the pictures as data URIs that take no more than `limit` bytes, and the longest side that they have.

        Without loss where the files fit in as they are; where nothing else helps, the last ones are left out.
        """
        paths = list(self._places)
        if 4 / 3 * sum(path.stat().st_size for path in paths) <= limit:
            return [_uri("png", path.read_bytes()) for path in paths], 2**31
        for side in _SIDES:
            uris, size = [], 0
            for path in paths:
                uri = _uri("jpeg", _jpeg(path, side))
                size += len(uri)
                if size > limit:
                    break
                uris.append(uri)
            else:
                break
        return uris, side


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _jpeg(path: Path, side: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(path) as picture:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        picture.save(stream, "jpeg", quality=_QUALITY, subsampling=0)
    return stream.getvalue()


def _made(found: Sequence[Group]) -> str:
    """Versions, machines and date, in a line."""
    all_records = [record for group in found for record in group.records]
    done = [record for record in all_records if record["status"] == "done"]

    def listed(values: list[Any]) -> str:
        return ", ".join(sorted({str(value) for value in values if value}))

    parts = [
        f"dip {listed([r['environment']['dip'] for r in done]) or __version__}",
        f"torch {listed([r['environment']['torch'] for r in done])}",
        listed([r["environment"]["processor"] for r in done]),
        f"devices: {listed([r['device'] for r in done])}",
        f"threads a job: {listed([r['threads'] for r in done])}",
        f"commit {listed([str(r['commit'])[:12] for r in done if r['commit']]) or 'unknown'}",
        f"finished {max((r['finished'] for r in all_records), default='')}",
    ]
    return "; ".join(part for part in parts if part)


def _group(group: Group, shelf: _Shelf) -> dict[str, Any]:
    title = ", ".join(
        f"{value}" if name in ("set", "task") else f"{name} {value}"
        for name, value in group.protocol.items()
        if value not in (None, "", 0)
    )
    failed = [f"{r['method']} on {r['image']}: {r['error']}" for r in group.records if r["status"] == "failed"]
    return {
        "title": title,
        "words": group.words,
        "methods": group.methods,
        "rows": [vars(row) | {"figures": plain(row.figures)} for row in group.rows()],
        "left_out": list(group.left_out),
        "note": group.note(),
        "images": [_image(group, name, shelf) for name in group.images],
        "failed": failed,
    }


def _image(group: Group, name: str, shelf: _Shelf) -> dict[str, Any]:
    found = [record for record in group.records if record["image"] == name]
    first = found[0]
    runs: dict[str, list[dict[str, Any]]] = {}
    for record in found:
        if record["status"] != "done":
            continue
        several = runs.setdefault(record["method"], [])
        several.append(
            {
                "seed": record["seed"],
                "psnr": record["figures"].get("psnr"),
                "ssim": record["figures"].get("ssim"),
                "picture": shelf.place(record.get("picture")),
                "curves": record.get("curves", {}) if len(several) < _SEEDS else {},
            }
        )
    stem = f"pictures/{first['input'][:32]}"
    return {
        "name": name,
        "height": first["height"],
        "width": first["width"],
        "input": first["input"],
        "before": first["before"],
        "clean": shelf.place(f"{stem}-clean.png"),
        "degraded": shelf.place(f"{stem}-degraded.png"),
        "runs": runs,
    }
