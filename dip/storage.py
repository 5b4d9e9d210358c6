"""Files that are written whole or not at all, and what is asked of a place before something is written there."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["check_place", "plain", "remove_leftovers", "same", "write_bytes"]


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file whole or not at all: under another name in its folder, flushed to the disk, then renamed.

    Parameters
    ----------
    path : str or path-like
        The file; an existing one is replaced and its permissions kept, a link is followed. Missing folders
        are made.
    data : bytes
        The content.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    OSError
        If it cannot be written; an old file is then as it was and nothing new is left behind.

    Examples
    --------
    >>> write_bytes("report.json", b"{}")  # doctest: +SKIP
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{_temporary_prefix(target)}{secrets.token_hex(8)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # not by tempfile, whose files nobody else may read
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what was left beside a file by writers of it that were killed; call it where nobody else writes it."""
    target = Path(os.path.realpath(path))
    for leftover in target.parent.glob(f"{_temporary_prefix(target)}*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def same(one: str | os.PathLike[str] | None, other: str | os.PathLike[str] | None) -> bool:
    """Whether two paths lead to one file that exists; None leads nowhere."""
    if one is None or other is None:
        return False
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def check_place(path: str | os.PathLike[str], name: str | None = None) -> None:
    """Check that a file could be made under a path, whose folders may have to be made first.

    Parameters
    ----------
    path : str or path-like
        The file.
    name : str, optional
        What the message calls it; the path itself by default.

    Raises
    ------
    OSError
        Its folder, or the nearest that exists above it, is none or cannot be written.
    """
    name, folder = name or str(path), Path(path).parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{name} cannot be written: {folder} is not a folder; choose another place")
    try:
        tempfile.TemporaryFile(dir=folder).close()  # mode bits do not tell of full or read-only file systems
    except OSError as error:
        reason = f"{folder} cannot be written ({error.strerror})"
        raise type(error)(f"{name} cannot be written: {reason}; choose another folder") from None


def _temporary_prefix(target: Path) -> str:
    return f".dip-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"


def plain(value: Any) -> Any:
    """Return a value of JSON types in which floats that are not finite, which JSON has no word for, are null.

    Examples
    --------
    >>> plain({"psnr": float("inf"), "losses": (0.5, float("nan"))})
    {'psnr': None, 'losses': [0.5, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
