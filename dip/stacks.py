"""Stacks: TIFF files of several pages, such as the slices, time points and channels of a microscope.

Each page is restored as a picture of its own, in a folder beside the result: there the pages that are done stay until
all of them are, and a command that was interrupted goes on when it is repeated.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dip import files
from dip.decoding import kind_of, quiet
from dip.storage import write_bytes

__all__ = ["Stack", "is_stack"]

_DTYPES = ("uint8", "uint16", "float32")
_LARGE = 2**32 - 2**25  # bytes, beyond which a TIFF needs wider offsets
# What ImageJ says of a stack that is as true of the restored one.
_IMAGEJ = ("Info", "LUTs", "Labels", "Ranges", "finterval", "fps", "loop", "mode", "spacing", "unit")
_MANIFEST = "stack.json"


def is_stack(path: Path) -> bool:
    """Tell whether a file is a TIFF of several pages; what cannot be read is none."""
    import tifffile

    try:
        with path.open("rb") as file:
            if kind_of(file.read(12)) != "TIFF":
                return False
            file.seek(0)
            with quiet(), tifffile.TiffFile(file) as tiff:
                return len(tiff.pages) > 1 or (tiff.is_imagej and math.prod(tiff.series[0].shape[:-2]) > 3)
    except Exception:  # whatever is wrong with it, who reads it says so
        return False


class Stack:
    """A TIFF file of several pages: made, it has been looked at.

    Parameters
    ----------
    path : Path
        The file. Its pages are of one size, gray or RGB, of 8 or 16 bits or 32-bit floats.

    Attributes
    ----------
    axes : str
        The field's letters for its axes, as in "TZCYX".
    shape : tuple of int
        Their lengths.
    count : int
        How many pages there are.

    Raises
    ------
    ValueError
        Its pages differ, or are no such pictures.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with quiet(), _opened(path) as tiff:
            series = tiff.series[0]
            self.axes, self.shape, self.dtype = str(series.axes), tuple(map(int, series.shape)), series.dtype
            others = len(tiff.series) - 1
        self.colour = self.axes.endswith("YXS")
        if others:
            raise ValueError(f"{path} has pages of different sizes or kinds; save those that belong together as a file")
        if not self.axes.endswith(("YX", "YXS")) or (self.colour and self.shape[-1] != 3):
            sort = " x ".join(map(str, self.shape))
            raise ValueError(f"{path} has axes {self.axes} ({sort}); pages are restored that are gray or RGB")
        if self.dtype.name not in _DTYPES:
            raise ValueError(f"{path} has {self.dtype.name} pixels; allowed: {', '.join(_DTYPES)}; convert it")
        self.page = self.shape[-3 if self.colour else -2 :]
        self.count = math.prod(self.shape) // math.prod(self.page)

    def __str__(self) -> str:
        leading = self.shape[: len(self.shape) - len(self.page)]
        axes = [f"{axis} {size}" for axis, size in zip(self.axes, leading, strict=False) if axis in "TZC"]
        about = f" ({', '.join(axes)})" if axes else ""
        return f"{self.path}: {self.count} pages{about} of {self.page[0]} x {self.page[1]} pixels (height x width)"

    def names(self) -> list[str]:
        """Return a name for each page, in order."""
        digits = max(4, len(str(self.count)))
        return [f"{number:0{digits}}.tif" for number in range(1, self.count + 1)]

    def split(self, folder: Path) -> None:
        """Write each page as a file of that name, where it is not there yet.

        Raises
        ------
        ValueError
            The file is damaged.
        OSError
            They cannot be written.
        """
        missing = [(number, folder / name) for number, name in enumerate(self.names()) if not (folder / name).exists()]
        if not missing:
            return
        try:
            with quiet(), _opened(self.path) as tiff:
                pages = tiff.series[0].asarray().reshape(self.count, *self.page)
        except Exception as error:  # a damaged file can make the library raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{self.path} cannot be read ({reason}); save it without compression") from error
        for number, path in missing:
            files.write(path, pages[number])

    def join(self, folder: Path, target: Path) -> None:
        """Write the restored pages in a folder as one file, with the axes and what is said of them.

        Raises
        ------
        ValueError, OSError
            A page cannot be read, or the file cannot be written.
        """
        import tifffile

        pages = np.stack([files.read(folder / name).pixels for name in self.names()])
        leading, size = self.shape[: len(self.shape) - len(self.page)], pages.shape[1:]
        with quiet(), _opened(self.path) as tiff:
            whole = size == self.page and len(tiff.pages) == self.count
            given = _told(tiff, self.axes, still_true=whole)
            given |= _resolution(tiff.pages.first, size[1] / self.page[1], size[0] / self.page[0])
        out = io.BytesIO()
        kind = "rgb" if self.colour else "minisblack"
        wide = pages.nbytes > _LARGE and not given.get("imagej")
        tifffile.imwrite(out, pages.reshape(*leading, *size), photometric=kind, bigtiff=wide, **given)
        write_bytes(target, out.getvalue())


def _opened(path: Path) -> Any:
    import tifffile

    return tifffile.TiffFile(path)


def _told(tiff: Any, axes: str, *, still_true: bool) -> dict[str, Any]:
    """Return what a file tells of its axes, in the way in which it tells it.

    What OME says names each page, so it is kept as it is where there are as many, as large ones.
    """
    if tiff.is_imagej:
        kept = {name: value for name, value in (tiff.imagej_metadata or {}).items() if name in _IMAGEJ}
        return {"imagej": True, "metadata": {**kept, "axes": axes}}
    if tiff.is_ome and still_true:
        own = re.sub(
            r"<UUID\b.*?</UUID>", "", tiff.ome_metadata, flags=re.DOTALL
        )  # the name of the file, which is another
        return {"description": own.encode(), "metadata": None}
    if tiff.is_shaped or tiff.is_ome:
        return {"metadata": {"axes": axes}}
    return {"metadata": None}


def _resolution(page: Any, wider: float, taller: float) -> dict[str, Any]:
    """Return the resolution of a page, in a picture that is so much wider and taller."""
    across, down, unit = (page.tags.valueof(code) for code in (282, 283, 296))
    if not across or not down or not across[1] or not down[1]:
        return {}
    found: dict[str, Any] = {"resolution": (wider * across[0] / across[1], taller * down[0] / down[1])}
    return found | ({} if unit is None else {"resolutionunit": unit})


def restored(
    stack: Stack,
    target: Path,
    options: Mapping[str, Any],
    restore: Callable[[Path, Path], int],
    say: Callable[[str], None],
) -> int:
    """Restore the pages of a stack.

    Parameters
    ----------
    stack : Stack
        The stack.
    target : Path
        The file that takes them.
    options : mapping
        What is done with them, in JSON types: only with the same is a command gone on with.
    restore : callable
        ``restore(given, done)`` restores the pictures of a folder into another, but those that are there, and returns
        an exit status.
    say : callable
        Takes lines for the user.

    Returns
    -------
    int
        The exit status; unless it is 0 there is no result, and the pages that are done stay where they are.

    Raises
    ------
    ValueError
        The folder beside the result holds something else.
    OSError
        Something cannot be written.
    """
    folder = target.with_name(f"{target.stem}.pages")
    given, done = folder / "given", folder / "done"
    manifest = {"source": hashlib.sha256(stack.path.read_bytes()).hexdigest(), "options": dict(options)}
    _claim(folder, manifest)
    stack.split(given)
    there = sum((done / name).exists() for name in stack.names())
    say(f"{stack}; each by itself{f', {there} of which are in {done}' if there else ''}")
    status = 1
    try:
        status = restore(given, done)
    finally:
        if status and not any((done / name).exists() for name in stack.names()):
            shutil.rmtree(folder, ignore_errors=True)
    if status:
        if folder.exists():
            say(f"the pages that are done stay in {done}; repeat the command to go on")
        return status
    stack.join(done, target)
    shutil.rmtree(folder, ignore_errors=True)
    say(f"{target}: {stack.count} pages")
    return 0


def _claim(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make a folder for these pages, unless it is there."""
    path = folder / _MANIFEST
    if path.exists():
        try:
            is_ours = json.loads(path.read_text(encoding="utf-8")) == manifest
        except ValueError:
            is_ours = False
        if not is_ours:
            raise ValueError(
                f"{folder} holds pages of another stack, or restored with other options; delete it, or choose another "
                "name for the result"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder}, where the pages are to be, exists and holds something else; choose another OUT"
        )
    write_bytes(path, json.dumps(manifest, indent=1).encode())
