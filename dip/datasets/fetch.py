"""Downloads that go on where they broke off, and are only kept when the checksum is right.

pooch compares checksums and puts a file in its place whole or not at all; what it lacks is resuming. The bytes so
far lie in a file beside the target, with ``.part`` after its name, and the server is asked for the rest (HTTP
Range).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dip._version import __version__
from dip.datasets.places import NO_POOCH
from dip.storage import check_place

__all__ = ["fetch"]

_ATTEMPTS = 3  # for each address; each goes on where the one before broke off
_TIMEOUT = (15, 60)  # seconds to connect, and between two pieces
_PIECE = 2**18  # bytes


class _BrokenError(OSError):
    """A connection that broke off; the next attempt goes on there."""


class _UselessError(OSError):
    """An address that does not give the file."""


def fetch(
    urls: Sequence[str],
    path: str | os.PathLike[str],
    *,
    checksum: str | None,
    most: int,
    progress: bool = True,
) -> Path:
    """Fetch a file, unless it is there.

    Parameters
    ----------
    urls : sequence of str
        Addresses (http or https) of the same file; the next one is asked where one does not give it.
    path : str or path-like
        Where it goes; missing folders are made. An existing file is returned as it is.
    checksum : str or None
        ``"md5:..."`` or ``"sha256:..."``. Without one nothing could tell whether two halves belong together, so
        each call begins anew.
    most : int
        Bytes at which a download is given up: what is longer is another file.
    progress : bool, default True
        Show a bar in a terminal.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    OSError
        If no address gives the file, its checksum is another, or the place cannot be written. What came before
        a connection broke is kept for the next call.
    ImportError
        If pooch is missing.

    Examples
    --------
    >>> url = "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz"
    >>> fetch([url], "labels.gz", checksum="md5:ec29112dd5afa0611ce80d1b7f02629c", most=10_000)  # doctest: +SKIP
    """
    path = Path(path)
    if path.exists():
        return path
    try:
        import pooch  # noqa: F401
        from filelock import FileLock
    except ImportError:
        raise ImportError(NO_POOCH) from None
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, part, reasons = Path(f"{path}.lock"), Path(f"{path}.part"), []
    with FileLock(lock):  # two processes must not write one part; the lock of one that is killed is free again
        if checksum is None:
            part.unlink(missing_ok=True)
        for url in urls:
            if path.exists():  # from the address before, or fetched by another process in the meantime
                break
            try:
                _retrieve(url, path, part, checksum, most, progress)
            except (_BrokenError, _UselessError) as error:
                reasons.append(f"{url} {error}")
    if not path.exists():
        raise OSError(f"{path} could not be fetched: {'; '.join(reasons)}")
    with suppress(OSError):
        lock.unlink()
    return path


def _retrieve(url: str, path: Path, part: Path, checksum: str | None, most: int, progress: bool) -> None:
    """Fetch from one address; a wrong checksum after going on with an older part is a reason to begin anew."""
    import pooch

    begun = False

    def download(url: str, output: str | os.PathLike[str], _: Any) -> None:
        nonlocal begun
        begun = part.exists() and part.stat().st_size > 0
        for attempt in range(_ATTEMPTS):
            try:
                _receive(url, part, most, progress)
                break
            except _BrokenError:
                if attempt == _ATTEMPTS - 1:
                    raise
        os.replace(part, output)

    log = pooch.get_logger()
    log.addFilter(_no_advice)
    try:
        for _ in range(2):
            try:
                pooch.retrieve(url, checksum, fname=path.name, path=path.parent, downloader=download)
                return
            except ValueError:  # the checksum; pooch has removed the file
                if not begun:
                    raise _UselessError(f"gives a file with another checksum than {checksum}") from None
    finally:
        log.removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    """Hold back what pooch says to programmers about files without a checksum."""
    return "known_hash" not in record.getMessage()


def _receive(url: str, part: Path, most: int, progress: bool) -> None:
    """Append to a part what is missing of the file at an address."""
    import requests
    from tqdm import tqdm
    from urllib3.exceptions import HTTPError

    have = part.stat().st_size if part.exists() else 0
    # As it is stored: a server that packs or unpacks on the way would break Range and checksum.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"deep-image-prior/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            start = _start(answer, have, part)
            if start is None:
                return
            length = answer.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else None
            if total is not None and total > most:
                raise _UselessError(f"gives {total} bytes, more than this file has")
            silent = None if progress else True  # None: only in a terminal
            bar = tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=silent)
            with part.open("ab" if start else "wb") as file, bar:
                for piece in answer.raw.stream(_PIECE, decode_content=False):
                    file.write(piece)
                    bar.update(len(piece))
                    if file.tell() > most:
                        file.truncate(0)
                        raise _UselessError(f"gives more than the {most} bytes that this file can have")
                if total is not None and file.tell() < total:
                    raise _BrokenError(f"broke off after {file.tell()} of {total} bytes")
    except (requests.RequestException, HTTPError) as error:
        so_far = part.stat().st_size if part.exists() else 0
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _BrokenError(f"broke off after {so_far} bytes ({reason}); call again to go on there") from error


def _start(answer: Any, have: int, part: Path) -> int | None:
    """The byte at which an answer begins; None if nothing is missing."""
    status, given = answer.status_code, answer.headers.get("Content-Range", "")
    if status == 200:  # also of servers that know no Range: from the beginning
        return 0
    if status == 206 and re.match(rf"bytes {have}-", given):
        return have
    if status == 416 and given == f"bytes */{have}":
        return None
    if status in (206, 416):
        part.unlink(missing_ok=True)
        raise _BrokenError("does not go on where the part ends; it was removed")
    kind = _BrokenError if status == 429 or status >= 500 else _UselessError
    raise kind(f"answers {status} {answer.reason}")
