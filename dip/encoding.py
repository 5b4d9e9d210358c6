"""Encoding of pixels, alpha, ICC profile and EXIF as PNG, JPEG and TIFF data; for `dip.files`.

Pillow encodes JPEG and 8-bit PNG. It has no 16-bit PNG but gray, and no TIFF of 16-bit or float colours:
those are put together here.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any

import numpy as np

from dip.decoding import (
    EXIF_IFD,
    GPS_IFD,
    PER_CENTIMETRE,
    PER_INCH,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    XMP,
    Y_RESOLUTION,
    quiet,
)
from dip.errors import warn

__all__ = ["encode", "rescaled", "stacked", "unfit"]

_JPEG_EXIF_LIMIT = 65_533  # bytes in a marker
_XMP_IN_PNG = "XML:com.adobe.xmp"
_SIDE_LIMIT = {"JPEG": 65_500, "PNG": 2**31 - 1, "TIFF": 2**31 - 1}  # pixels
_TIFF_LIMIT = 2**32 - 2**26  # bytes: offsets have 32 bits, and the directory needs room


def unfit(kind: str, dtype: np.dtype, channels: int) -> str | None:
    """Why pixels cannot be written as a kind, with advice; None if they can.

    Parameters
    ----------
    kind : str
        "PNG", "JPEG" or "TIFF".
    dtype : numpy.dtype
        Of the pixels.
    channels : int
        1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA).

    Returns
    -------
    str or None
        The reason and the advice, to follow the name of the file in a message.
    """
    if dtype not in (np.uint8, np.uint16, np.float32):
        return f"cannot hold {dtype} pixels; allowed: uint8, uint16, float32; convert them"
    if kind == "JPEG" and channels in (2, 4):
        return "cannot hold alpha: JPEG has none; write .png or .tif"
    if kind == "JPEG" and dtype != np.uint8:
        other = ".png or .tif" if dtype == np.uint16 else ".tif"
        return f"cannot hold {dtype} pixels: JPEG has 8 bits; write {other}"
    if kind == "PNG" and dtype == np.float32:
        return "cannot hold float32 pixels: PNG has 8 or 16 bits; write .tif"
    return None


def stacked(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Return pixels and alpha as one (H, W, C) array; ValueError of what makes no picture."""
    pixels = np.asarray(pixels)
    if 0 in pixels.shape or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ValueError(f"pixels have shape {pixels.shape}; allowed: (H, W), (H, W, 3) or (H, W, 4)")
    array = pixels[..., None] if pixels.ndim == 2 else pixels
    if alpha is not None:
        alpha = np.asarray(alpha)
        if array.shape[2] == 4 or alpha.shape != array.shape[:2] or alpha.dtype != array.dtype:
            given = f"{alpha.dtype} {alpha.shape} with pixels {pixels.dtype} {pixels.shape}"
            raise ValueError(f"alpha is {given}; give it the dtype and size of pixels that have none yet")
        array = np.concatenate([array, alpha[..., None]], axis=2)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def encode(
    array: np.ndarray, kind: str, icc: bytes | None, exif: bytes | None, told: dict[str, Any] | None = None
) -> bytes:
    """Encode pixels that `unfit` has nothing against.

    Parameters
    ----------
    array : numpy.ndarray
        (H, W, C) with C = 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA).
    kind : str
        "PNG" (lossless), "JPEG" (quality 95, colours at full resolution) or "TIFF" (uncompressed).
    icc, exif : bytes or None
        ICC profile, left out if it is for gray and the picture is in colour or the other way round; and EXIF, with XMP
        in it as in a TIFF.
    told : dict, optional
        What ImageJ or OME say of a TIFF, in place of EXIF, in the words of tifffile.imwrite.

    Returns
    -------
    bytes
        The content of the file.

    Raises
    ------
    ValueError
        If the picture is larger than the format allows.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if max(array.shape[:2]) > _SIDE_LIMIT[kind] or (kind == "TIFF" and array.nbytes > _TIFF_LIMIT):
        size = f"{array.shape[1]} x {array.shape[0]}"
        raise ValueError(f"{size} pixels of {array.dtype} are too many for {kind}; choose another format")
    icc = icc if icc and icc[16:20] == (b"GRAY" if array.shape[2] < 3 else b"RGB ") else None
    out = io.BytesIO()
    described = _encode_told(array, icc, told) if told and kind == "TIFF" else None
    with quiet():
        if kind == "TIFF":
            return described or _encode_tiff(array, icc, exif)
        exif, xmp = _apart(exif)
        if kind == "PNG" and array.dtype == np.uint16:
            return _encode_png16(array, icc, exif, xmp)
        options: dict[str, Any] = {"icc_profile": icc} if icc else {}
        if exif and (kind == "PNG" or len(exif) <= _JPEG_EXIF_LIMIT):
            options["exif"] = exif
        dots = _dots_per_inch(exif)
        if dots is not None:
            options["dpi"] = dots
        if kind == "JPEG":
            options |= {"quality": 95, "subsampling": 0}
            options |= {"xmp": xmp} if xmp else {}
        elif xmp:
            options["pnginfo"] = info = PngInfo()
            info.add_itxt(_XMP_IN_PNG, xmp.decode("utf-8", "replace"))
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(out, kind, **options)
    return out.getvalue()


def rescaled(exif: bytes, height: float, width: float) -> bytes:
    """Return EXIF for a picture that is so many times as high and wide, and shows the same.

    Its resolution, in pixels per inch, centimetre or whatever unit ImageJ says, grows by the same factors.
    """
    from PIL import Image
    from PIL.TiffImagePlugin import IFDRational

    given = Image.Exif()
    given.load(exif)
    for tag, times in ((X_RESOLUTION, width), (Y_RESOLUTION, height)):
        if tag in given:
            given[tag] = IFDRational(float(given[tag]) * times)
    return given.tobytes()


def _apart(exif: bytes | None) -> tuple[bytes | None, bytes | None]:
    """Return EXIF without XMP, and XMP, for formats in which that has a place of its own."""
    from PIL import Image

    given = Image.Exif()
    given.load(exif or b"")
    xmp = given.pop(XMP, None)
    return (exif, None) if xmp is None else (given.tobytes() if len(given) else None, xmp)


def _dots_per_inch(exif: bytes | None) -> tuple[float, float] | None:
    """The resolution that EXIF tells, None where it tells none or one in a unit of its own."""
    from PIL import Image

    given = Image.Exif()
    given.load(exif or b"")
    inches = {PER_INCH: 1.0, PER_CENTIMETRE: 2.54}.get(given.get(RESOLUTION_UNIT, PER_INCH))
    try:
        dots = float(given[X_RESOLUTION]), float(given[Y_RESOLUTION])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if inches is None or not (math.isfinite(sum(dots)) and min(dots) > 0):
        return None
    return dots[0] * inches, dots[1] * inches


def _encode_png16(array: np.ndarray, icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> bytes:
    """A 16-bit PNG whose rows are filtered by the mean of the left and the upper value."""
    height, width, channels = array.shape
    rows = np.ascontiguousarray(array, ">u2").view(np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((1, 0), (2 * channels, 0)))
    mean = (padded[1:, : -2 * channels].astype(np.uint16) + padded[:-1, 2 * channels :]) // 2
    filtered = np.pad(rows - mean.astype(np.uint8), ((0, 0), (1, 0)), constant_values=3)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    if icc:
        header += chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
    dots = _dots_per_inch(exif)
    if dots is not None:
        header += chunk(b"pHYs", struct.pack(">IIB", *(round(number / 0.0254) for number in dots), 1))  # per metre
    if exif:
        header += chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        header += chunk(b"iTXt", _XMP_IN_PNG.encode() + b"\0\0\0\0\0" + xmp)
    data = chunk(b"IDAT", zlib.compress(filtered.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def _encode_told(array: np.ndarray, icc: bytes | None, told: dict[str, Any]) -> bytes | None:
    """A TIFF with the words of ImageJ or OME; None of words that cannot be written, which cost nobody his picture."""
    import tifffile

    out, gray = io.BytesIO(), array.shape[2] == 1
    pixels, kind = (array[..., 0], "minisblack") if gray else (array, "rgb")
    try:
        with quiet():
            tifffile.imwrite(out, pixels, photometric=kind, iccprofile=icc, **told)
    except Exception as error:
        warn(f"what ImageJ or OME say of the picture is left out, since it cannot be written: {error}")
        return None
    return out.getvalue()


def _encode_tiff(array: np.ndarray, icc: bytes | None, exif: bytes | None) -> bytes:
    """An uncompressed TIFF of one strip; Pillow packs its directory, EXIF included."""
    from PIL import Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    height, width, channels = array.shape
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    tags: dict[int, Any] = {}
    if exif:
        given = Image.Exif()
        given.load(exif)
        for tag, value in given.items():
            tags[tag] = given.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else value
    tags |= {
        256: width,
        257: height,
        258: (8 * array.itemsize,) * channels,  # bits
        259: 1,  # no compression
        262: 2 if channels > 2 else 1,  # RGB, or gray with 0 as black
        273: 0,  # start of the strip behind the directory
        277: channels,
        278: height,  # rows in the strip
        279: len(data),
        284: 1,  # the channels of a pixel are neighbours
        339: (3 if array.dtype.kind == "f" else 1,) * channels,  # floats or unsigned integers
    }
    if channels in (2, 4):
        tags[338] = 2  # straight alpha
    if icc:
        tags[34675] = icc
    directory = ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    out = io.BytesIO()
    directory.save(out)
    return out.getvalue() + data
