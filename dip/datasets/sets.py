"""Picture sets for benchmarks, by name, and any folder of pictures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dip import files
from dip.datasets import places
from dip.datasets.fetch import fetch
from dip.datasets.known import PHOTOGRAPHS, SETS, Known, PictureSet, photograph
from dip.errors import shown, unknown

__all__ = ["Entry", "names", "pictures"]

_BUNDLED = "photographs"
_MASK = "_mask"  # the end of a mask's name
_MAX_DOWNLOAD = 4 * 2**20  # bytes of a picture
_SEARCHED = 500  # pictures of a folder that are looked through for those that have other names
_NAMED = 3  # wrong pictures that a message names


@dataclass(frozen=True)
class Entry:
    """A picture of a set, which is read when it is asked for.

    Attributes
    ----------
    name : str
        Unlike any other in its set; of a folder of one's own the path in it, with "/" and without the extension.
    shape : tuple of int
        (H, W) of a gray picture, (H, W, 3) of a colour picture.
    sha256 : str
        Of the decoded pixels, ``hashlib.sha256(entry.read().tobytes())``: the same in whatever format they are stored.
    path : pathlib.Path or None
        The file; None for the photographs that come with scikit-image.
    mask_path : pathlib.Path or None
        The file with the mask of the known pixels, where the set has one for this picture.
    verified : bool
        These are the pixels of the published set: the hash is the one that is known.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str
    path: Path | None
    mask_path: Path | None = None
    verified: bool = False

    def read(self) -> np.ndarray:
        """Read the pixels.

        Returns
        -------
        ndarray
            (H, W) or (H, W, 3); uint8, or of a picture of one's own uint16 or float32; without alpha.

        Raises
        ------
        OSError
            If the file is gone.
        ValueError
            If it cannot be read, or has other pixels than when it was listed.
        """
        pixels = photograph(self.name) if self.path is None else files.read(self.path).pixels
        if _hash(pixels) != self.sha256:
            raise ValueError(f"{self.path or self.name} has changed since it was listed; list the pictures again")
        return pixels

    def mask(self) -> np.ndarray | None:
        """Read the mask: (H, W), bool, True = known; None where the set has none for this picture.

        Raises
        ------
        OSError, ValueError
            If the file is gone or cannot be read.
        """
        return None if self.mask_path is None else files.read_mask(self.mask_path, (self.shape[0], self.shape[1]))


def names() -> dict[str, str]:
    """The sets that `pictures` knows, each with a line that says what it is.

    Examples
    --------
    >>> list(names())
    ['photographs', 'set5', 'set9', 'set11', 'set12', 'set14', 'kodak24', 'cbsd68', 'mcmaster', 'dip-paper']
    """
    bundled = "6 photographs, 256 x 256, cut from scikit-image's: 4 in colour, 2 gray; needs no files"
    return {_BUNDLED: bundled, **{name: known.about for name, known in SETS.items()}}


def pictures(
    name: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None, *, download: bool = False
) -> list[Entry]:
    """List the pictures of a set, after a check of each.

    Parameters
    ----------
    name : str or path-like
        One of `names`, in any case; or a folder of pictures of one's own (as a path: ``./holiday``).
    folder : str or path-like, optional
        Where the files of a named set lie, or the folder above it. By default the folder that the environment variable
        DIP_DATA names, then the cache of downloads. The files may have other names and formats than those of the
        published set, as long as their pixels are the same.
    download : bool, default False
        Fetch what is missing, where the set has an address for that: ``kodak24`` and ``dip-paper`` (needs the extra
        ``data``).

    Returns
    -------
    list of Entry
        In the order of the set.

    Raises
    ------
    OSError
        If the set is missing (FileNotFoundError), which says how to get it, or cannot be fetched.
    ValueError
        If there is no such set; or pictures of it are missing, of another size or have other pixels than the
        published ones, which are named; or a picture cannot be read.
    ImportError
        If pooch is needed for a download and missing.

    Examples
    --------
    >>> entry = pictures("photographs")[0]
    >>> entry.name, entry.shape, entry.verified
    ('astronaut', (256, 256, 3), True)
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name must be a picture set or a folder, not {shown(name)}; allowed: {', '.join(names())}")
    key = name.lower().replace("_", "-") if isinstance(name, str) else ""
    if key in SETS:
        return _known(SETS[key], folder, download)
    if folder is not None or download:
        given = "folder=" if folder is not None else "download="
        if key == _BUNDLED or Path(name).is_dir():
            raise ValueError(f"{given} means nothing for {shown(str(name))}, whose files are at hand; leave it out")
    if key == _BUNDLED:
        return [_bundled(known) for known in PHOTOGRAPHS.values()]
    if not Path(name).is_dir():
        error = unknown("picture set", name, names())
        raise ValueError(f"{error}; or a folder of pictures, which this is not") from None
    return _own(Path(name))


def _hash(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def _bundled(known: Known) -> Entry:
    sha256 = _hash(photograph(known.name))  # another version of scikit-image might have other pixels
    return Entry(known.name, known.shape, sha256, None, verified=sha256 == known.sha256)


def _own(folder: Path) -> list[Entry]:
    found = files.find(folder)
    if not found:
        raise ValueError(f"{folder} has no pictures; allowed: {', '.join(files.IMAGE_SUFFIXES)}")
    short = [path.relative_to(folder).with_suffix("").as_posix() for path in found]
    entries = []
    for path, name in zip(found, short, strict=True):
        pixels = files.read(path).pixels
        if short.count(name) > 1:
            name = path.relative_to(folder).as_posix()
        entries.append(Entry(name, pixels.shape, _hash(pixels), path))
    return entries


def _known(known: PictureSet, folder: str | os.PathLike[str] | None, download: bool) -> list[Entry]:
    """The pictures of a published set."""
    if download and known.address is None:
        raise ValueError(f"{known.name} has no address to fetch it from; get {known.source}, and name its folder")
    looked = places.roots(folder)
    base = places.first(looked, known.folders)
    if base is None and folder is not None:
        base = looked[0]
    if download:
        base = base or places.target(folder, known.folders[0])
        for each in known.known:
            if known.of_files or _by_name(base, each.name) is None:
                _fetch(known, each, base)
    if base is None:
        how = "fetch it with download=True, or " if known.address else ""
        wanted = f"a folder {' or '.join(known.folders)}"
        raise places.missing(f"the picture set {known.name}", wanted, looked, f"{how}get {known.source}")
    if not base.is_dir():
        raise NotADirectoryError(f"{base} is not a folder; name the folder of the pictures of {known.name}")
    return _from_files(known, base) if known.of_files else _from_pixels(known, base)


def _fetch(known: PictureSet, each: Known, base: Path) -> None:
    if known.of_files:
        fetch([f"{known.address}{each.name}"], base / each.name, checksum=f"sha256:{each.sha256}", most=_MAX_DOWNLOAD)
        return
    path = base / f"{each.name}.png"
    fetch([f"{known.address}{path.name}"], path, checksum=None, most=_MAX_DOWNLOAD)
    wrong = _reason(path, each)
    if wrong:
        path.unlink()
        raise OSError(f"{known.address}{path.name} gives another picture: it {wrong}; it was not kept")


def _from_files(known: PictureSet, base: Path) -> list[Entry]:
    """Entries of a set whose files are known byte by byte, by their names."""
    wrong: list[str] = []
    entries, masks = [], {}
    for each in known.known:
        path, name = base / each.name, Path(each.name).with_suffix("").as_posix()
        if not path.is_file():
            wrong.append(f"{each.name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != each.sha256:
            wrong.append(f"{each.name} is not the published file (its SHA-256 is another)")
        elif name.endswith(_MASK):
            masks[name.removesuffix(_MASK)] = path
        else:
            entries.append(Entry(name, each.shape, _hash(files.read(path).pixels), path, verified=True))
    _refuse(known, base, wrong)
    return [replace(entry, mask_path=masks.get(entry.name)) for entry in entries]


def _from_pixels(known: PictureSet, base: Path) -> list[Entry]:
    """Entries of a set by the pixels: in the files with the right names, else in any other."""
    paths, wrong = {}, {}
    for each in known.known:
        path = _by_name(base, each.name)
        reason = "is missing" if path is None else _reason(path, each)
        if path is None or reason:
            wrong[each.sha256] = f"{each.name if path is None else path.name} {reason}"
        else:
            paths[each.sha256] = path
    others = [path for path in _direct(base) if path not in set(paths.values())] if wrong else []
    for path in others if len(others) <= _SEARCHED else []:
        try:
            sha256 = _hash(files.read(path).pixels)
        except (OSError, ValueError):
            continue
        if wrong.pop(sha256, None):
            paths[sha256] = path
    _refuse(known, base, list(wrong.values()))
    return [Entry(each.name, each.shape, each.sha256, paths[each.sha256], verified=True) for each in known.known]


def _by_name(base: Path, name: str) -> Path | None:
    return next((path for path in (base / f"{name}{end}" for end in files.IMAGE_SUFFIXES) if path.is_file()), None)


def _direct(base: Path) -> list[Path]:
    return sorted(path for path in base.iterdir() if path.suffix.lower() in files.IMAGE_SUFFIXES)


def _reason(path: Path, each: Known) -> str:
    """What is wrong with the picture in a file; "" if it is the known one."""
    try:
        pixels = files.read(path).pixels
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    if pixels.shape != each.shape:
        return f"has {_size(pixels.shape)}, the published picture {_size(each.shape)}"
    return "" if _hash(pixels) == each.sha256 else "has other pixels than the published picture"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} {'gray' if len(shape) == 2 else 'colour'} pixels"


def _refuse(known: PictureSet, base: Path, wrong: Sequence[str]) -> None:
    if not wrong:
        return
    listed = ", ".join(wrong[:_NAMED]) + (f", and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else "")
    how = " (download=True fetches what is missing)" if known.address else ""
    raise ValueError(f"{base} does not hold {known.name}: {listed}; get {known.source}{how}")
