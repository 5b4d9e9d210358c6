"""Decoding of PNG, JPEG, TIFF, BMP and WebP data into pixels, alpha, ICC profile and EXIF; for `dip.files`.

Pillow decodes what it decodes truly. It silently halves the depth of 16-bit PNG and TIFF with more than one
channel, so those are read here as two 8-bit pictures, the first and the second byte of every value; what its
TIFF reader does not know (float colours, 16-bit gray with alpha, separate planes) is tifffile's.
"""

from __future__ import annotations

import io
import logging
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dip import metadata

__all__ = [
    "EXIF_IFD",
    "GPS_IFD",
    "ORIENTATION",
    "Decoded",
    "Refusal",
    "Turn",
    "decode",
    "goes_on_outside",
    "kind_of",
    "quiet",
    "turned",
]

EXIF_IFD, GPS_IFD, ORIENTATION = 0x8769, 0x8825, 0x0112  # EXIF tags
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, XMP = 0x011A, 0x011B, 0x0128, 0x02BC
PER_INCH, PER_CENTIMETRE = 2, 3
# Kept of the first EXIF directory: caption, make, model, resolution, software, date, artist, copyright. The
# rest says how the pixels lay in the old file; an old thumbnail would show the picture before restoration.
_CAPTION = 0x010E
_KEPT = (_CAPTION, 0x010F, 0x0110, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, 0x0131, 0x0132, 0x013B, 0x8298)
# Not kept of the directories below it: the old width and height, and the place of yet another directory.
_STALE = (0xA002, 0xA003, 0xA005)

_PNG_GRAY, _PNG_GRAY_ALPHA = 0, 4  # colour types
_WHITE_IS_ZERO, _PALETTE = 0, 3  # TIFF photometrics
_TIFF_COLOURS = {_WHITE_IS_ZERO: 1, 1: 1, 2: 3, _PALETTE: 1, 6: 3}  # photometric: channels without alpha
_TIFF_DEFLATE = (8, 32946)
_PLAIN_TIFF = "save it as an uncompressed TIFF"
# How TIFFs hold numbers: sample format (1 unsigned, 2 signed, 3 float) and bits; and where they may be of any kind.
_TIFF_SAMPLES, _TIFF_WIDE = ((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 32)), ((1, 32), (2, 32), (3, 64))

_lock = threading.RLock()

_Parts = tuple[np.ndarray, Any, bytes | None, bytes | None]  # (H, W, C), orientation, ICC profile, EXIF


class Refusal(ValueError):
    """A picture that is understood but not accepted; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded picture, upright.

    Attributes
    ----------
    array : numpy.ndarray
        (H, W, C) with C = 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA); uint8, uint16 or float32.
    icc : bytes or None
        The ICC profile.
    exif : bytes or None
        EXIF as far as it is still true: no orientation, no sizes, no thumbnail.
    told : dict or None
        What ImageJ or OME say of a TIFF that has no EXIF, in the words of tifffile.imwrite (`dip.metadata`).
    """

    array: np.ndarray
    icc: bytes | None
    exif: bytes | None
    told: dict[str, Any] | None = None


def kind_of(head: bytes) -> str | None:
    """The kind of a picture from its first 12 bytes: "PNG", "JPEG", "TIFF", "BMP", "WebP", or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    return "WebP" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def decode(file: BinaryIO, kind: str, max_pixels: int, wide: bool = False) -> Decoded:
    """Decode a picture of a known kind.

    Parameters
    ----------
    file : binary file
        Open for reading, seekable.
    kind : str
        From `kind_of`.
    max_pixels : int
        The most pixels that are decoded; checked in the header.
    wide : bool
        Whether a TIFF may have 64-bit floats and 32-bit integers, too.

    Returns
    -------
    Decoded
        The picture, upright.

    Raises
    ------
    Refusal
        If the picture is too large or of a sort that is not accepted (CMYK, several frames, ...).
    Exception
        Of any type, from the libraries, where the data are damaged; the caller translates it.
    """
    file.seek(0)
    with quiet():
        if kind == "TIFF":
            (array, orientation, icc, exif), told = _decode_tiff(file, max_pixels, wide)
        else:
            (array, orientation, icc, exif), told = _decode_common(file, kind, max_pixels), None
    return Decoded(np.ascontiguousarray(_upright(array, orientation)), icc, exif, told)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what Pillow warns and tifffile logs about a file: a refusal has a message of its own.

    The filters belong to the process, so one thread at a time sets them and puts them back.
    """
    log = logging.getLogger("tifffile")
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.addFilter(_mute)
        try:
            yield
        finally:
            log.removeFilter(_mute)


def _mute(record: logging.LogRecord) -> bool:
    return False


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        advice = "raise max_pixels if you trust the file"
        raise Refusal(f"has {height} x {width} pixels (height x width), more than max_pixels={max_pixels}; {advice}")


def _opened(file: BinaryIO, kind: str) -> Any:
    """Pillow's picture of which only the header has been read.

    The plug-ins are called directly: Image.open would put Pillow's global pixel limit in place of max_pixels,
    and would take a phone's JPEG with a depth map behind it for a sequence.
    """
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    plugin: dict[str, Callable[[BinaryIO], Any]] = {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
    }
    file.seek(0)
    return plugin[kind](file)


def _decode_common(file: BinaryIO, kind: str, max_pixels: int) -> _Parts:
    """Anything but TIFF."""
    image = _opened(file, kind)
    _check_size(image.width, image.height, max_pixels)
    if getattr(image, "n_frames", 1) > 1:
        raise Refusal("has several frames (an animation); only single pictures are restored: save one frame")
    depth, colour = 8, _PNG_GRAY
    if kind == "PNG":
        image.verify()  # every checksum, and the end of the file; the object is of no use afterwards
        depth, colour = _png_header(file)
        image = _opened(file, kind)
    if depth < 16:
        array = _eight_bits(image)
    elif colour == _PNG_GRAY:
        array = np.asarray(image).astype(np.uint16)[..., None]
    elif colour == _PNG_GRAY_ALPHA:
        array = _gray_alpha_png(file)
    else:
        array = _sixteen_bits(image, _opened(file, kind))
    transparent = image.info.get("transparency")
    if depth == 16 and transparent is not None:
        opaque = (array != np.asarray(transparent)).any(-1, keepdims=True)
        array = np.concatenate([array, opaque.astype(np.uint16) * np.uint16(65535)], axis=2)
    orientation, exif = _exif(image.getexif, _resolution(image, kind), image.info.get("xmp"))
    return array, orientation, image.info.get("icc_profile"), exif


def _resolution(image: Any, kind: str) -> tuple[float, float] | None:
    """Pixels per inch along rows and columns, where the file says so outside of its EXIF."""
    told = image.info.get("dpi")
    if kind == "JPEG" and image.info.get("jfif_unit") not in (1, 2):  # what Pillow has then is EXIF's, or a guess
        told = None
    return (float(told[0]), float(told[1])) if told and min(told) > 0 else None


def _eight_bits(image: Any) -> np.ndarray:
    """The pixels of a picture of up to 8 bits: palettes looked up, a transparent colour turned into alpha."""
    image.load()
    transparent = "transparency" in image.info
    if image.mode in ("P", "RGB") and transparent:
        image = image.convert("RGBA")
    elif image.mode == "P":
        image = image.convert("RGB")
    elif image.mode in ("1", "L") and transparent:
        image = image.convert("LA")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise Refusal(f"has {image.mode} colours; only gray and RGB are restored: convert it to RGB first")
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _sixteen_bits(image: Any, again: Any) -> np.ndarray:
    """The pixels of a 16-bit RGB or RGBA picture that was opened twice.

    Pillow keeps the high byte of every value: told that the data are big-endian it takes the first, told that
    they are little-endian the second.
    """
    halves, order = [], "="
    for half, keep in ((image, ";16B"), (again, ";16L")):
        tiles = []
        for tile in half.tile:
            given, *rest = [tile.args] if isinstance(tile.args, str) else tile.args
            orders = {f"{half.mode};16B": ">", f"{half.mode};16L": "<", f"{half.mode};16N": "="}
            if half.mode not in ("RGB", "RGBA") or given not in orders:
                raise Refusal(f"has 16-bit pixels ({given}) that cannot be read truly; {_PLAIN_TIFF}")
            order = orders[given]
            tiles.append(tile._replace(args=(half.mode + keep, *rest) if rest else half.mode + keep))
        half.tile = tiles
        halves.append(np.asarray(half))
    return np.stack(halves, axis=-1).view(f"{order}u2")[..., 0].astype(np.uint16)


def _png_header(file: BinaryIO) -> tuple[int, int]:
    """Bits per value and colour type of a PNG."""
    file.seek(12)
    name, _, _, depth, colour = struct.unpack(">4sIIBB", file.read(14))
    if name != b"IHDR":
        raise Refusal("is a PNG that does not begin with its header; get an intact copy")
    return depth, colour


def _gray_alpha_png(file: BinaryIO) -> np.ndarray:
    """The pixels of a 16-bit gray PNG with alpha: its rows look like 8-bit RGBA, which Pillow keeps whole."""
    file.seek(0)
    data = bytearray(file.read())
    data[24:26] = 8, 6  # depth, colour type
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    rows = np.asarray(_opened(io.BytesIO(data), "PNG"))
    return np.ascontiguousarray(rows).view(">u2").astype(np.uint16)


def _decode_tiff(file: BinaryIO, max_pixels: int, wide: bool) -> tuple[_Parts, dict[str, Any] | None]:
    """A TIFF, described by tifffile, and what ImageJ or OME say of it."""
    import tifffile
    from PIL import Image

    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages.first
        _check_size(page.imagewidth, page.imagelength, max_pixels)
        _check_tiff(tiff, file, max_pixels, wide)
        profile, orientation = page.tags.valueof(34675), page.tags.valueof(ORIENTATION)
        resolution = metadata.ome_resolution(str(page.description)) if tiff.is_ome else None
        told = _told(tiff, resolution)
        if page.bitspersample > 8 and page.compression in (1, *_TIFF_DEFLATE) and page.predictor in (1, 2):
            array = page.asarray().astype(page.dtype.newbyteorder("="))
            if array.ndim == 3 and page.planarconfig == 2:
                array = np.moveaxis(array, 0, -1)
            array = array.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
            if page.photometric == _WHITE_IS_ZERO:
                array[..., 0] = 65535 - array[..., 0]
        else:
            array, orientation = _tiff_by_pillow(file, page), None  # Pillow turns it upright itself
    if page.photometric != _PALETTE and array.shape[2] != page.samplesperpixel:
        raise Refusal(f"has {page.samplesperpixel} channels of a sort that is not read here; {_PLAIN_TIFF}")

    def read() -> Any:
        file.seek(0)
        directory = Image.Exif()
        directory.load_from_fp(file)
        return directory

    return (array, orientation, bytes(profile) if profile else None, _exif(read, resolution)[1]), told


def _told(tiff: Any, inches: tuple[float, float] | None) -> dict[str, Any] | None:
    """What ImageJ or OME say of a plain picture without EXIF; None where they do not, or it cannot be read.

    The pixels per inch that OME's words tell become its resolution, where it has none in a unit.
    """
    page = tiff.pages.first
    plain = page.photometric in (1, 2) and page.planarconfig == 1 and page.samplesperpixel in (1, 3)
    if not plain or any(page.tags.valueof(code) is not None for code in (EXIF_IFD, GPS_IFD, XMP, ORIENTATION)):
        return None
    try:
        told = metadata.of_microscope(tiff, "YX" if page.samplesperpixel == 1 else "YXS", 1, same_size=True)
        also = {"software": page.software or None, "datetime": page.datetime, **metadata.resolution(page)}
        if inches is not None and also.get("resolutionunit", 1) == 1:
            also |= {"resolution": inches, "resolutionunit": PER_INCH}
    except Exception:  # damaged words are no reason to refuse a picture
        return None
    return None if told is None else told | {name: value for name, value in also.items() if value is not None}


def _tiff_by_pillow(file: BinaryIO, page: Any) -> np.ndarray:
    """The pixels of a TIFF of up to 8 bits, or of one compressed in a way that Pillow's libtiff undoes."""
    if page.bitspersample <= 8:
        array = _eight_bits(_opened(file, "TIFF"))
        # An array of bool, such as a mask: tifffile calls True black, and everybody who works with it means white.
        is_bool = page.bitspersample == 1 and page.photometric == _WHITE_IS_ZERO
        return 255 - array if is_bool and str(page.software).startswith("tifffile") else array
    if page.samplesperpixel == 1 and page.photometric != _WHITE_IS_ZERO:
        return np.asarray(_opened(file, "TIFF"))[..., None].astype(page.dtype)
    if page.samplesperpixel > 2 and page.planarconfig == 1 and page.dtype == np.uint16:
        return _sixteen_bits(_opened(file, "TIFF"), _opened(file, "TIFF"))
    how = getattr(page.compression, "name", page.compression)
    raise Refusal(f"has {page.samplesperpixel} channels of {page.dtype} compressed by {how}; {_PLAIN_TIFF}")


def _check_tiff(tiff: Any, file: BinaryIO, max_pixels: int, wide: bool) -> None:
    """Refuse what is not one gray or RGB picture, is cut short, or grows without bounds when inflated."""
    page = tiff.pages.first
    try:
        tiff.pages[1]
    except IndexError:
        pass
    else:
        raise Refusal(
            "has several pages, and here one picture is needed: save one page as a file (a command whose IN is the "
            "file itself restores each of them)"
        )
    if (page.sampleformat, page.bitspersample) not in _TIFF_SAMPLES + _TIFF_WIDE * wide:
        allowed = "unsigned integers of up to 8 or of 16 bits, floats of 32 bits" + ", 32-bit integers, doubles" * wide
        advice = "convert it, or pass it as an array in Python"
        raise Refusal(f"has {page.bitspersample}-bit {page.dtype} pixels; allowed: {allowed}; {advice}")
    extra = [int(sample) for sample in page.extrasamples]
    colours = page.samplesperpixel - len(extra)
    if page.imagedepth != 1 or colours != _TIFF_COLOURS.get(page.photometric):
        sort = f"{page.samplesperpixel} channels of {getattr(page.photometric, 'name', page.photometric)}"
        raise Refusal(f"has {sort}; only gray and RGB are restored: convert it to RGB first")
    if extra not in ([], [2]) and not (extra == [1] and page.bitspersample == 8):
        advice = "save it without, or pass it as an array, with channel_axis=, in Python"
        raise Refusal(f"has extra channels that are not straight (unassociated) alpha; {advice}")
    if page.bitspersample > 16 and page.photometric == _WHITE_IS_ZERO:
        raise Refusal(f"has {page.dtype} pixels of which 0 is white; save it with 0 as black")
    if goes_on_outside(tiff):
        raise Refusal("is cut short: it has had more pages, which are not in the file; get an intact copy")
    end, segment = file.seek(0, io.SEEK_END), math.prod(page.chunks)
    places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if len(places) < math.prod(page.chunked) or any(start + size > end or size < 1 for start, size in places):
        raise Refusal("is cut short: pixels named in its directory are not in the file; get an intact copy")
    if segment > 4 * max(max_pixels, 2**24):
        raise Refusal(f"has strips or tiles of {segment} values, more than max_pixels={max_pixels} allows")
    if page.compression in _TIFF_DEFLATE:
        room = segment * page.dtype.itemsize
        for start, size in places:  # tifffile would inflate whatever is there
            file.seek(start)
            if len(zlib.decompressobj().decompress(file.read(size), room + 1)) > room:
                raise Refusal("holds more data than its size allows: damaged, or made to fill the memory")


def goes_on_outside(tiff: Any) -> bool:
    """Tell whether a TIFF names a page after its last one that is not in the file, as one that was cut short does."""
    form, file = tiff.tiff, tiff.filehandle
    at = tiff.pages[-1].offset
    file.seek(at)
    count = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
    file.seek(at + form.tagnosize + count * form.tagsize)
    following = file.read(form.offsetsize)
    return len(following) < form.offsetsize or struct.unpack(form.offsetformat, following)[0] >= file.size


def _exif(
    read: Callable[[], Any], resolution: tuple[float, float] | None = None, xmp: bytes | None = None
) -> tuple[Any, bytes | None]:
    """Orientation, and what is worth keeping; damaged EXIF counts as none: the picture can still be read.

    A resolution that is told elsewhere in the file is added where EXIF has none, or one without a unit; and XMP, of
    which that is the place in a TIFF.
    """
    from PIL import Image

    orientation = None
    try:
        given, kept = read(), Image.Exif()
        orientation = given.get(ORIENTATION)
        for tag in _KEPT:
            value = given.get(tag)
            value = metadata.caption(str(value)) if tag == _CAPTION and value is not None else value
            if value is not None:
                kept[tag] = value
        if resolution is not None and (X_RESOLUTION not in kept or kept.get(RESOLUTION_UNIT) == 1):
            kept[X_RESOLUTION], kept[Y_RESOLUTION], kept[RESOLUTION_UNIT] = *resolution, PER_INCH
        packet = given.get(XMP, xmp)
        if isinstance(packet, bytes) and (told := metadata.xmp(packet)):
            kept[XMP] = told
        for directory in (EXIF_IFD, GPS_IFD):
            entries = {tag: value for tag, value in given.get_ifd(directory).items() if tag not in _STALE}
            if entries:
                kept[directory] = entries
        return orientation, kept.tobytes() if len(kept) else None
    except Exception:
        return orientation, None


def _upright(array: np.ndarray, orientation: Any) -> np.ndarray:
    """Turn and mirror pixels as the EXIF orientation, 1 to 8, says; anything else counts as 1."""
    turn = turned(orientation)
    if turn.swapped:
        array = array.swapaxes(0, 1)
    if turn.rows:
        array = array[::-1]
    return array[:, ::-1] if turn.columns else array


class Turn(NamedTuple):
    """How pixels come to be upright: rows and columns change places; then rows and columns are mirrored."""

    swapped: bool
    rows: bool
    columns: bool


def turned(orientation: Any) -> Turn:
    """Return what the EXIF orientation, 1 to 8, says; anything else counts as 1."""
    return Turn(orientation in (5, 6, 7, 8), orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7))
