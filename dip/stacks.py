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

from dip import files, metadata, ranges
from dip.decoding import goes_on_outside, kind_of, quiet
from dip.storage import write_bytes

__all__ = ["Stack", "digest", "is_stack", "numbered", "restored"]

_DTYPES = ("uint8", "uint16", "float32")
_LARGE = 2**32 - 2**25  # bytes, beyond which a TIFF needs wider offsets
_MANIFEST = "stack.json"


def is_stack(path: Path) -> bool:
    """Tell whether a file is a TIFF of several pages; what cannot be read is none."""
    try:
        if not path.is_file():  # a pipe would hang
            return False
        with path.open("rb") as file:
            if kind_of(file.read(12)) != "TIFF":
                return False
        with quiet(), _opened(path) as tiff:
            # software that writes planes one after the other may describe the first only
            return max(len(tiff.pages), _told_pages(tiff) or 1) > 1 or tiff.series[0].size > tiff.pages.first.size
    except Exception:  # whatever is wrong with it, who reads it says so
        return False


def digest(path: Path) -> str:
    """Return what tells a file from another with other content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        try:
            with quiet(), _opened(path) as tiff:
                first, page = tiff.series[0], tiff.pages.first
                self.axes, self.shape, self.dtype = str(first.axes), tuple(map(int, first.shape)), first.dtype
                self._apart = len(tiff.series)
                alike = all((one.shape, one.dtype) == (first.shape, first.dtype) for one in tiff.series)
                whole, here = _is_whole(tiff, path.stat().st_size), not any(one.is_multifile for one in tiff.series)
                plain = page.photometric in _PHOTOMETRIC and page.tags.valueof(274) in (None, 1)
                plain = plain and (page.samplesperpixel == 1 or page.planarconfig == 1)
                kind = getattr(page.photometric, "name", page.photometric)
        except Exception as error:  # a damaged file can make the library raise anything
            raise ValueError(f"{path} is damaged or cut short ({_reason(error)}); get an intact copy") from error
        if not alike or (self._apart > 1 and len(self.shape) > 2 + self.axes.endswith("YXS")):
            raise ValueError(f"{path} has pages of different sizes or kinds; save those that belong together as a file")
        if self._apart > 1:  # written one by one
            self.axes, self.shape = f"Q{self.axes}", (self._apart, *self.shape)
        self.colour = self.axes.endswith("YXS")
        sort = " x ".join(map(str, self.shape))
        if not plain or not self.axes.endswith(("YX", "YXS")) or (self.colour and self.shape[-1] != 3):
            raise ValueError(
                f"{path} has axes {self.axes} ({sort}) and {kind} pixels; pages are restored that are gray, of which 0 "
                "is black, or RGB without alpha, upright, and not one plane for each colour; save it so"
            )
        if self.dtype.name not in _DTYPES:
            raise ValueError(f"{path} has {self.dtype.name} pixels; allowed: {', '.join(_DTYPES)}; convert it")
        if not here:
            raise ValueError(f"{path} names pages that are in other files; save all of them as one file")
        if not whole:
            raise ValueError(
                f"{path} is cut short: it tells of pages that are not in it; get an intact copy (a page that was taken "
                "out of a stack: save it again without what ImageJ says of the stack)"
            )
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

    def split(self, folder: Path, *, masked: bool = False) -> None:
        """Write each page as a file of that name, where it is not there yet.

        Parameters
        ----------
        folder : Path
            It takes them.
        masked : bool, default False
            Leave it to those who know what is missing to look for NaN.

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
                pages = np.stack([one.asarray() for one in tiff.series]).reshape(self.count, *self.page)
        except Exception as error:  # a damaged file can make the library raise anything
            raise ValueError(
                f"{self.path} cannot be read ({_reason(error)}); save it without compression, or get an intact copy"
            ) from error
        wrong = [] if masked else [number + 1 for number, page in enumerate(pages) if not np.isfinite(page).all()]
        if wrong:
            listed = ", ".join(map(str, wrong[:10])) + " and more" * (len(wrong) > 10)
            raise ValueError(
                f"{self.path} has NaN or infinite pixels in page {listed}; give a --mask in which they are missing, "
                "or set them to numbers"
            )
        for number, path in missing:
            files.write(path, pages[number])

    def white(self, folder: Path) -> float | None:
        """Return the white of all pages in a folder, if they are uint16: that of the 8 to 16 bits that they need."""
        if self.dtype.name != "uint16":
            return None
        return ranges.white_of(max(float(files.read(folder / name).pixels.max()) for name in self.names())) or 65535.0

    def join(self, folder: Path, target: Path) -> None:
        """Write the restored pages in a folder as one file, with the axes and what is said of them.

        Raises
        ------
        ValueError, OSError
            A page cannot be read, or the file cannot be written.
        """
        pages = np.stack([files.read(folder / name).pixels for name in self.names()])
        write_bytes(target, self._packed(pages, pages.shape[1:]))

    def check(self) -> None:
        """Look whether pages like these can be put together again.

        Raises
        ------
        ValueError
            They cannot.
        """
        try:
            self._packed(np.zeros((self.count, 1, 1, *self.page[2:]), self.dtype), self.page)  # what is told is tried
        except Exception as error:
            advice = "save it with another program, or its pages as files"
            raise ValueError(f"{self.path} says of itself what cannot be kept ({_reason(error)}); {advice}") from error

    def _packed(self, pages: np.ndarray, size: tuple[int, ...]) -> bytes:
        """Return a TIFF of pages (count, H, W) or (count, H, W, 3), with what is told of pages of a size."""
        import tifffile

        leading = self.shape[: len(self.shape) - len(self.page)]
        with quiet(), _opened(self.path) as tiff:
            given = _told(tiff, self.axes, self.count, same_size=size == self.page)
            given |= metadata.resolution(tiff.pages.first, size[1] / self.page[1], size[0] / self.page[0])
        out = io.BytesIO()
        kind = "rgb" if self.colour else "minisblack"
        wide = pages.nbytes > _LARGE and not given.get("imagej")
        tifffile.imwrite(out, pages.reshape(*leading, *pages.shape[1:]), photometric=kind, bigtiff=wide, **given)
        return out.getvalue()


_PHOTOMETRIC = (1, 2)  # gray of which 0 is black, and RGB


def _opened(path: Path) -> Any:
    import tifffile

    return tifffile.TiffFile(path)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _is_whole(tiff: Any, size: int) -> bool:
    """Tell whether all that a file of so many bytes tells of is in it."""
    for one in tiff.series:
        if one.dataoffset is not None:  # in one piece
            if one.dataoffset + one.nbytes > size:
                return False
            continue
        for page in one.pages:
            if page is None or not page.databytecounts or min(page.databytecounts) < 1:
                return False
            if any(at + count > size for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)):
                return False
    told = _told_pages(tiff)
    here = math.prod(tiff.series[0].shape) // math.prod(tiff.pages.first.shape)
    return told in (None, here) and not goes_on_outside(tiff)


def _told_pages(tiff: Any) -> int | None:
    """Return how many pages ImageJ says that there are."""
    return (tiff.imagej_metadata or {}).get("images") if tiff.is_imagej else None


def _told(tiff: Any, axes: str, count: int, *, same_size: bool) -> dict[str, Any]:
    """Return what a file tells of its axes and pages, in the way in which it tells it."""
    page = tiff.pages.first
    known = metadata.of_microscope(tiff, axes, count, same_size=same_size)
    if known is not None:
        return known
    if tiff.is_shaped or tiff.is_ome:
        return {"metadata": {"axes": axes}}
    found = {"software": page.software or None, "datetime": page.datetime, "iccprofile": page.iccprofile}
    described = None if tiff.is_imagej else page.description.encode(errors="replace") or None
    return {"metadata": None, "description": described} | {k: v for k, v in found.items() if v is not None}


def numbered(stack: Stack, target: Path, text: str) -> str:
    """Return a text in which the files of single pages, which are gone once all are done, are pages of the stack."""
    files_of_pages = rf"{re.escape(str(_folder(target)))}[/\\](?:given|done)[/\\](\d+)\.tif\b"
    text = re.sub(files_of_pages, lambda file: f"{stack.path}, page {int(file[1])}", text)
    return re.sub(r"(?<![\w/\\.-])(\d{4,})\.tif(?=: )", lambda file: f"page {int(file[1])}", text)


def _folder(target: Path) -> Path:
    """Return where the pages are until the target is written."""
    return target.with_name(f"{target.name}.pages")


def restored(
    stack: Stack,
    target: Path,
    options: Mapping[str, Any],
    restore: Callable[[Path, Path], int],
    say: Callable[[str], None],
    *,
    masked: bool = False,
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
    masked : bool, default False
        Whether it is known of some pixels that they are missing.

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
    stack.check()
    folder = _folder(target)
    given, done = folder / "given", folder / "done"
    manifest = {"source": digest(stack.path), "options": dict(options)}
    _claim(folder, manifest)
    status = 1
    try:
        stack.split(given, masked=masked)
        there = sum((done / name).exists() for name in stack.names())
        say(f"{stack}; each by itself{f', {there} of which are in {done}' if there else ''}")
        status = restore(given, done)
    finally:
        if status and not (done.exists() and any(done.iterdir())):
            shutil.rmtree(folder, ignore_errors=True)
    if status:
        if folder.exists():
            then = "repeat the command to go on" if status == 130 else "repeated, the command tries the others again"
            say(f"the pages that are done stay in {done}; {then}")
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
