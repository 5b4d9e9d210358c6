"""Where data sets lie on this machine, and how their files are opened and doubted."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["as_published", "cache", "first", "missing", "opened", "roots", "target", "unpacked"]

NO_POOCH = "fetching a data set needs the package pooch; pip install 'deep-image-prior[data]'"
_GZIP = b"\x1f\x8b"


def cache() -> Path | None:
    """Return the folder where downloads are kept.

    Returns
    -------
    pathlib.Path or None
        What the environment variable DIP_CACHE names; else the user's cache folder, as pooch knows it; None where
        neither can be had.
    """
    named = os.environ.get("DIP_CACHE")
    if named:
        return Path(named)
    with suppress(ImportError):
        import pooch

        return Path(pooch.os_cache("dip"))
    return None


def roots(folder: str | os.PathLike[str] | None) -> list[Path]:
    """The folders that are searched for a data set.

    Parameters
    ----------
    folder : str or path-like, optional
        Searched alone where it is given.

    Returns
    -------
    list of pathlib.Path
        `folder`; or what the environment variable DIP_DATA names, and the cache of downloads.

    Raises
    ------
    FileNotFoundError
        If `folder`, or the folder that DIP_DATA names, does not exist.
    """
    if folder is not None:
        path = Path(folder)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; check the name of the folder")
        return [path]
    found, named, kept = [], os.environ.get("DIP_DATA"), cache()
    if named:
        if not Path(named).is_dir():
            raise FileNotFoundError(f"DIP_DATA names {named}, which is not a folder; set it to one, or unset it")
        found.append(Path(named))
    return found + ([kept] if kept is not None else [])


def target(folder: str | os.PathLike[str] | None, below: str = "") -> Path:
    """The folder that a download goes to: the one given, else `below` in the cache.

    Raises
    ------
    ImportError
        If no folder was given and only pooch could tell where the cache is.
    """
    if folder is not None:
        return Path(folder)
    kept = cache()
    if kept is None:
        raise ImportError(NO_POOCH)
    return kept / below


def first(places: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first path that exists: every name in the first place, then in the next; "" is the place itself."""
    return next((path for place in places for name in names if (path := place / name).exists()), None)


def missing(what: str, files: str, looked: Sequence[Path], how: str) -> FileNotFoundError:
    """The error for a data set that is not there.

    Parameters
    ----------
    what, files : str
        The data set, and the files that are looked for.
    looked : sequence of pathlib.Path
        Where they were looked for.
    how : str
        How to get them.

    Returns
    -------
    FileNotFoundError
        To be raised by the caller.
    """
    where = ", ".join(map(str, looked)) or "no folder: neither folder= nor DIP_DATA names one"
    return FileNotFoundError(f"{what} is missing: {files} not found; looked in {where}; {how}")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file open for reading; a pipe, which would hang, and other non-files are refused before.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ValueError
        If it is no regular file, or empty.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; check the name and the folder") from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a folder where a file is expected")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is a pipe, socket or device; only files can be read")
    if status.st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); get an intact copy")
    with path.open("rb") as file:
        yield file


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The content of a file that may be gzipped (its first bytes say so, whatever its name), open for reading.

    Only as much is unpacked as is asked for. The checksum of gzip is compared when the end is reached.

    Raises
    ------
    OSError, ValueError
        As `opened`; ValueError also, while the content is read, where the compressed data are damaged.
    """
    with opened(path) as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        try:
            with gzip.GzipFile(fileobj=file) as content:
                yield content  # type: ignore[misc]
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path} is damaged or cut short ({reason}); get an intact copy") from error


def as_published(content: bytes | memoryview, known: Mapping[int, str], name: str, packing: str) -> None:
    """Refuse a content that has the size of the published file and is not that file, to the byte.

    For formats without a checksum, where nothing else tells damaged values from whole ones. What gzip packed has one.

    Parameters
    ----------
    content : bytes or memoryview
        Of the whole file.
    known : mapping of int to str
        SHA-256 of the published file, by its size in bytes; files of other sizes cannot be checked.
    name, packing : str
        For the message: the file, and how another data set of the same size can be had read.

    Raises
    ------
    ValueError
        If the hash is another one.
    """
    wanted = known.get(len(content))
    if wanted is None:
        return
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise ValueError(
            f"{name} is damaged, or of another data set: it has the size of the published file, but SHA-256 "
            f"{found[:12]}... instead of {wanted[:12]}...; get an intact copy, or {packing}"
        )
