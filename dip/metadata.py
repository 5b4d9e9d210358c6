"""What a file says of its picture in words, so far as it is true of another one made of it."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["caption", "of_microscope", "ome_resolution", "resolution", "xmp"]

_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "μm": 1e-6, "um": 1e-6, "nm": 1e-9, "pm": 1e-12}
_MOST = 65_504  # bytes, as many as a JPEG's marker holds
# How the pixels lay in the old file, how many they were, and what else of them is elsewhere in it.
_STALE = (
    rb"(?:tiff:(?:Orientation|ImageWidth|ImageLength)|exif:Pixel[XY]Dimension|xmpNote:HasExtendedXMP"
    rb"|xmp:Thumbnails|xap:Thumbnails|xmpGImg:image)"
)
_ATTRIBUTES = re.compile(rb"\s" + _STALE + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_ELEMENTS = re.compile(rb"<(" + _STALE + rb")\b[^>]*(?<!/)>.*?</\1>|<" + _STALE + rb"\b[^>]*/>", re.DOTALL)
# What ImageJ says of a stack that is written anew, and what is not true of one of another size.
_COUNTED = ("ImageJ", "images", "channels", "slices", "frames", "order", "hyperstack")
_PLACED = ("ROI", "Overlays", "Plot", "xorigin", "yorigin")


def of_microscope(tiff: Any, axes: str, count: int, *, same_size: bool) -> dict[str, Any] | None:
    """Return what ImageJ or OME say of the pages of a TIFF, in the words of tifffile.imwrite; None if neither does.

    Parameters
    ----------
    tiff : tifffile.TiffFile
        The file.
    axes : str
        The field's letters for its axes.
    count : int
        How many pages there are.
    same_size : bool
        Whether it is for pages of the same size.
    """
    if tiff.is_imagej and all(axis in "TZCYXS" for axis in axes):
        gone = _COUNTED if same_size else _COUNTED + _PLACED
        kept = {name: _ascii(value) for name, value in (tiff.imagej_metadata or {}).items() if name not in gone}
        return {"imagej": True, "metadata": {**kept, "axes": axes}}
    if tiff.is_ome and same_size:
        # the pages are in order now, in this file, which is another
        own = re.sub(r"<UUID\b.*?</UUID>", "", tiff.ome_metadata, flags=re.DOTALL)
        own = re.sub(r"<TiffData\b[^>]*?(/>|>.*?</TiffData>)", "", own, flags=re.DOTALL)
        own = own.replace("</Pixels>", f'<TiffData IFD="0" PlaneCount="{count}"/></Pixels>', 1)
        return {"description": own.encode(), "metadata": None}
    return None


def _ascii(value: Any) -> Any:
    """Write a unit such as µm as ImageJ does."""
    return value.encode("ascii", "backslashreplace").decode() if isinstance(value, str) else value


def resolution(page: Any, wider: float = 1.0, taller: float = 1.0) -> dict[str, Any]:
    """Return the resolution of a TIFF's page, in a picture so much wider and taller, in tifffile.imwrite's words."""
    across, down, unit = (page.tags.valueof(code) for code in (282, 283, 296))
    if not across or not down or not across[1] or not down[1]:
        return {}
    found: dict[str, Any] = {"resolution": (wider * across[0] / across[1], taller * down[0] / down[1])}
    return found | ({"resolutionunit": unit} if unit in (1, 2, 3) else {})


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
