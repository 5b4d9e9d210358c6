"""Pictures on disk: PNG, JPEG and TIFF in and out, 8 bit, 16 bit and float, with alpha, ICC profile and EXIF.

A picture comes back upright with the depth that it has in the file, and is written whole or not at all. What
is wrong with a file is said in one line that names it, before any work is done.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dip.decoding import Refusal, decode, kind_of
from dip.encoding import encode, rescaled, stacked, unfit
from dip.errors import positive_int, shown, warn
from dip.storage import check_place, write_bytes

__all__ = [
    "IMAGE_SUFFIXES",
    "Picture",
    "check_target",
    "content",
    "find",
    "is_jpeg",
    "read",
    "read_mask",
    "write",
    "write_bytes",
]

_KINDS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
}
_MAX_PIXELS = 178_956_970  # where Pillow too begins to refuse
_WRITABLE = ("PNG", "JPEG", "TIFF")

IMAGE_SUFFIXES = tuple(_KINDS)
"""The extensions of pictures that can be read, in lower case; PNG, JPEG and TIFF can also be written."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it was read from a file.

    Attributes
    ----------
    pixels : numpy.ndarray
        (H, W) gray or (H, W, 3) RGB; uint8, uint16 or float32, as in the file; upright.
    alpha : numpy.ndarray or None
        (H, W) opacity of the same dtype, None if the file has none.
    icc : bytes or None
        The ICC profile.
    exif : bytes or None
        EXIF as far as it is still true: orientation, sizes and thumbnail are left out. With the resolution, wherever
        the file tells it, and XMP as its entry 700.
    path : pathlib.Path
        The file.
    told : dict or None
        What ImageJ or OME say of a TIFF.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    icc: bytes | None
    exif: bytes | None
    path: Path
    told: dict[str, Any] | None = None


def read(path: str | os.PathLike[str], *, max_pixels: int = _MAX_PIXELS, wide: bool = False) -> Picture:
    """Read a picture.

    Parameters
    ----------
    path : str or path-like
        A PNG, JPEG, TIFF, BMP or WebP file with one picture in gray or RGB, with or without alpha; a palette
        is looked up. PNG and TIFF may have 16 bits, TIFF also 32-bit floats.
    max_pixels : int, optional
        Refuse a picture with more pixels before it is decoded: a small file can claim, and fill, any memory.
    wide : bool, optional
        Accept a TIFF of 64-bit floats or 32-bit integers, too: numbers that are no picture, such as a PSF.

    Returns
    -------
    Picture
        Its pixels at their true depth, turned as EXIF says, and what is to be kept with them.

    Raises
    ------
    OSError
        If there is no such file (FileNotFoundError), it is a folder (IsADirectoryError) or cannot be read.
    ValueError
        If it is empty, cut short, damaged, no picture or one with a wrong extension, too large, animated, of
        several pages, or has CMYK or other colours.

    Examples
    --------
    >>> picture = read("photo.jpg")  # doctest: +SKIP
    >>> picture.pixels.shape, picture.pixels.dtype  # doctest: +SKIP
    ((512, 768, 3), dtype('uint8'))
    """
    return _read(Path(path), positive_int(max_pixels, "max_pixels"), wide)[0]


def is_jpeg(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file holds a JPEG, by its first bytes.

    Raises
    ------
    OSError, ValueError
        As `read`, of what is no file or empty.
    """
    with _opened(Path(path)) as file:
        return kind_of(file.read(12)) == "JPEG"


def content(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file that is to be read elsewhere.

    Raises
    ------
    OSError, ValueError
        As `read`, of what is no file or empty.
    """
    with _opened(Path(path)) as file:
        return file.read()


def read_mask(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, *, weights: bool = False
) -> np.ndarray:
    """Read the mask of the known pixels.

    Parameters
    ----------
    path : str or path-like
        A picture, best a PNG: non-zero (white) is known, zero (black) or fully transparent is missing. In
        colour, a pixel is known if any of its channels is not zero.
    size : (int, int), optional
        Height and width of the picture that the mask belongs to.
    weights : bool, optional
        Return the values of a float TIFF, in [0, 1], in colour the largest of its channels.

    Returns
    -------
    numpy.ndarray
        (H, W), bool, True = known; or float32 of 1 = known, where there are weights.

    Raises
    ------
    OSError, ValueError
        As `read`; ValueError also if the mask has another size or weights outside [0, 1], or is a JPEG with values
        between black and white, whose blurred edges make missing pixels look known.

    Examples
    --------
    >>> mask = read_mask("scratches.png", size=(512, 768))  # doctest: +SKIP
    """
    picture, kind = _read(Path(path), _MAX_PIXELS)
    pixels = picture.pixels if picture.pixels.ndim == 3 else picture.pixels[..., None]
    if size is not None and pixels.shape[:2] != tuple(size):
        given, needed = f"{pixels.shape[0]} x {pixels.shape[1]}", f"{size[0]} x {size[1]}"
        raise ValueError(
            f"{path} has {given} pixels (height x width), a mask for this picture needs {needed}; resize it"
        )
    if kind == "JPEG" and not np.isin(pixels, (0, 255)).all():
        reason = "is a JPEG with values between 0 and 255, where non-zero does not tell known from missing"
        raise ValueError(f"{path} {reason}; save the mask as a PNG in black and white only")
    if pixels.dtype.kind == "f" and np.isnan(pixels).any():
        raise ValueError(f"{path} has NaN, which is neither known nor missing; set it to 0 (missing) or 1 (known)")
    if weights and pixels.dtype.kind == "f":
        if pixels.min() < 0 or pixels.max() > 1:
            values = f"has float values from {pixels.min():g} to {pixels.max():g}"
            raise ValueError(f"{path} {values}; allowed: [0, 1] with 1 = known; divide by its white, or take 8 bits")
        return pixels.max(axis=-1) * (1 if picture.alpha is None else picture.alpha != 0)
    levels = np.unique(pixels.max(axis=-1)).size
    if levels > 2:
        warn(
            f"{path} has {levels} different values, of which all but 0 mean known; if some are half transparent or "
            "blurred edges of what is missing, save it in black and white only"
        )
    known = (pixels != 0).any(axis=-1)
    return known if picture.alpha is None else known & (picture.alpha != 0)


def check_target(path: str | os.PathLike[str], *, force: bool = False, like: Picture | None = None) -> Path:
    """Check, before any work, that a picture can be written.

    Parameters
    ----------
    path : str or path-like
        The file to be written; missing folders will be made.
    force : bool, optional
        Let an existing file be replaced.
    like : Picture, optional
        A picture of the depth, colours and alpha that are to be written.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    ValueError
        If the extension is not one that can be written, or its format cannot hold a picture like `like`.
    OSError
        If the file exists and `force` is False (FileExistsError), is a folder or a device, or its folder
        cannot be made or written.

    Examples
    --------
    >>> check_target("restored.gif")
    Traceback (most recent call last):
    ValueError: restored.gif has an extension that cannot be written; allowed: .jpeg, .jpg, .png, .tif, .tiff
    """
    path = Path(path)
    kind = _writable_kind(path)
    if like is not None:
        channels = (1 if like.pixels.ndim == 2 else 3) + (like.alpha is not None)
        reason = unfit(kind, like.pixels.dtype, channels)
        if reason:
            raise ValueError(f"{path} {reason}")
    _check_free(path, force)
    check_place(path)
    return path


def write(
    path: str | os.PathLike[str],
    pixels: np.ndarray,
    *,
    like: Picture | None = None,
    alpha: np.ndarray | None = None,
    force: bool = False,
) -> Path:
    """Write a picture, whole or not at all.

    PNG is lossless, with 8 or 16 bits; TIFF is uncompressed, with 8 or 16 bits or floats; JPEG has 8 bits,
    quality 95 and colours at full resolution.

    Parameters
    ----------
    path : str or path-like
        The file; its extension says the format. Missing folders are made.
    pixels : numpy.ndarray
        (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA; uint8, uint16 or float32.
    like : Picture, optional
        The picture whose ICC profile and EXIF are kept; where it has another size, the resolution in its EXIF is
        scaled.
    alpha : numpy.ndarray, optional
        (H, W) opacity, dtype of `pixels`; by default that of `like`.
    force : bool, optional
        Replace an existing file.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    ValueError
        If the pixels make no picture, the alpha of `like` is of another size or dtype, or the format cannot hold
        them: it is never done by losing depth or alpha.
    OSError
        If the file exists and `force` is False (FileExistsError), or cannot be written; an old file is then
        as it was.

    Examples
    --------
    >>> picture = read("photo.png")  # doctest: +SKIP
    >>> write("restored.png", picture.pixels, like=picture)  # doctest: +SKIP
    """
    path = Path(path)
    kind = _writable_kind(path)
    array = stacked(pixels, _alpha_of(like, pixels) if alpha is None else alpha)
    reason = unfit(kind, array.dtype, array.shape[2])
    if reason:
        raise ValueError(f"{path} {reason}")
    _check_free(path, force)
    if like is None:
        return write_bytes(path, encode(array, kind, None, None))
    size, exif, told = like.pixels.shape[:2], like.exif, like.told
    if exif and size != array.shape[:2]:
        exif = rescaled(exif, *(new / old for new, old in zip(array.shape, size, strict=False)))
    if (array.dtype, array.shape[:2], array.size) != (like.pixels.dtype, size, like.pixels.size):
        told = None  # of a picture of another sort it is not true
    return write_bytes(path, encode(array, kind, like.icc, exif, told))


def _alpha_of(like: Picture | None, pixels: np.ndarray) -> np.ndarray | None:
    """Return the alpha that pixels without one of their own get."""
    shape: tuple[int, ...] = getattr(pixels, "shape", ())
    if like is None or like.alpha is None or len(shape) not in (2, 3) or shape[2:] == (4,):
        return None
    if like.alpha.shape != shape[:2] or like.alpha.dtype != pixels.dtype:
        raise ValueError(
            f"like has an alpha of {_size(like.alpha)} in {like.alpha.dtype}, the pixels are {_size(pixels)} in "
            f"{pixels.dtype}; give alpha= that suits them, or like=dataclasses.replace(like, alpha=None) to go without"
        )
    return like.alpha


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def find(
    folder: str | os.PathLike[str],
    unreadable: list[OSError] | None = None,
    others: list[Path] | None = None,
) -> list[Path]:
    """The pictures in a folder and the folders below it, by their extensions.

    Parameters
    ----------
    folder : str or path-like
        Where to look. Hidden files and folders are passed over, links to folders are not followed.
    unreadable : list, optional
        Takes the errors of folders below that cannot be read; without it they are raised.
    others : list, optional
        Takes the files that have another extension.

    Returns
    -------
    list of pathlib.Path
        Sorted; each begins with `folder`.

    Raises
    ------
    OSError
        If there is no such folder, or one in it cannot be read.

    Examples
    --------
    >>> find("holiday")  # doctest: +SKIP
    [PosixPath('holiday/beach.jpg'), PosixPath('holiday/day2/boat.png')]
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist; check the name of the folder")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; name the folder that it is in")

    def fail(error: OSError) -> None:
        if unreadable is None or error.filename == os.fspath(folder):
            raise error
        unreadable.append(error)

    found = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in _KINDS:
                found.append(path)
            elif others is not None:
                others.append(path)
    return sorted(found)


def _read(path: Path, max_pixels: int, wide: bool = False) -> tuple[Picture, str]:
    """A picture and the kind of its file."""
    with _opened(path) as file:
        kind = kind_of(file.read(12))
        if kind is None:
            raise ValueError(f"{path} is not a picture that can be read; allowed: PNG, JPEG, TIFF, BMP, WebP")
        named = _KINDS.get(path.suffix.lower(), kind)
        if named != kind:
            advice = f"rename it to {path.stem}{_suffix(kind)}"
            raise ValueError(f"{path} has the extension of {named} but holds {kind}; {advice}")
        try:
            decoded = decode(file, kind, max_pixels, wide)
        except Refusal as refusal:
            raise ValueError(f"{path} {refusal}") from None
        except Exception as error:  # a damaged file can make the libraries raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{path} is damaged or cut short ({reason}); get an intact copy") from error
    array = decoded.array
    alpha = array[..., -1].copy() if array.shape[2] in (2, 4) else None
    pixels = array[..., 0].copy() if array.shape[2] < 3 else array[..., :3].copy()
    return Picture(pixels, alpha, decoded.icc, decoded.exif, path, decoded.told), kind


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A picture file open for reading; a pipe, which would hang, and other non-files are refused before."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; check the name and the folder") from None
    except ValueError as error:
        raise ValueError(f"{shown(str(path))} cannot be the name of a file: {error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a folder; name a picture in it")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is a pipe, socket or device; only files can be read: save it as one")
    if status.st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); get an intact copy")
    with path.open("rb") as file:
        yield file


def _suffix(kind: str) -> str:
    """The usual extension of a kind."""
    return {"JPEG": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")


def _writable_kind(path: Path) -> str:
    kind = _KINDS.get(path.suffix.lower())
    if kind not in _WRITABLE:
        allowed = ", ".join(suffix for suffix, known in _KINDS.items() if known in _WRITABLE)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; give the name of a file with one of {allowed}")
        if not path.suffix:
            raise ValueError(f"{path} has no extension, which says how it is to be written; allowed: {allowed}")
        raise ValueError(f"{path} has an extension that cannot be written; allowed: {allowed}")
    return kind


def _check_free(path: Path, force: bool) -> None:
    """Refuse to replace a file unless told to, and anything that is not a file in any case."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is a pipe, socket or device; name a file")
    if not force and path.exists():
        raise FileExistsError(f"{path} exists; choose another name, or replace it with force=True (--force)")
