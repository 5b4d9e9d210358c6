"""What a file says of its picture in words, so far as it is true of another one made of it; for `dip.decoding`."""

from __future__ import annotations

import re

__all__ = ["caption", "ome_resolution", "xmp"]

_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "μm": 1e-6, "um": 1e-6, "nm": 1e-9, "pm": 1e-12}
_MOST = 65_504  # bytes, as many as a JPEG's marker holds
# How the pixels lay in the old file, how many they were, and what else of them is elsewhere in it.
_STALE = (
    rb"(?:tiff:(?:Orientation|ImageWidth|ImageLength)|exif:Pixel[XY]Dimension|xmpNote:HasExtendedXMP"
    rb"|xmp:Thumbnails|xap:Thumbnails|xmpGImg:image)"
)
_ATTRIBUTES = re.compile(rb"\s" + _STALE + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_ELEMENTS = re.compile(rb"<(" + _STALE + rb")\b[^>]*(?<!/)>.*?</\1>|<" + _STALE + rb"\b[^>]*/>", re.DOTALL)


def ome_resolution(xml: str) -> tuple[float, float] | None:
    """Return the pixels per inch that OME's words tell: a pixel has a size, in micrometres if nothing else is said."""
    found = []
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="([^"]+)"', xml)
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', xml)
        metres = _METRES.get(unit[1] if unit else "µm")
        try:
            found.append(0.0254 / (float(size[1]) * metres) if size and metres else 0.0)
        except (ValueError, ZeroDivisionError):
            return None
    return (found[0], found[1]) if all(0 < one < 2**31 for one in found) else None


def caption(text: str) -> str | None:
    """Return what is still true of a caption: of what ImageJ, OME and tifffile say of the old pixels, ImageJ's unit."""
    if text.startswith("ImageJ="):
        lines = [line for line in text.splitlines() if line.startswith(("ImageJ=", "unit="))]
        return "\n".join(lines) if len(lines) > 1 else None
    return None if text.startswith("{") or "<OME " in text else text


def xmp(packet: bytes) -> bytes | None:
    """Return an XMP packet (ratings, captions, rights) without what it says of the old pixels; None if it is none.

    Left out are orientation, size, thumbnails, and that there is more of it elsewhere in the file. One that would not
    go into a JPEG is none, either.
    """
    if b"<rdf:RDF" not in packet or len(packet) > _MOST:
        return None
    return _ATTRIBUTES.sub(b"", _ELEMENTS.sub(b"", packet)).strip(b"\0")
