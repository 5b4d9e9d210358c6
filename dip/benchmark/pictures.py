"""The clean pictures of a benchmark: which arrays are pictures, and what in them is white."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dip import images, ranges
from dip.errors import shown

__all__ = ["Scaled", "by_mask", "check_masks", "known", "scaled", "with_one_white"]

_RANGED = ("bool", "uint8", "uint16")  # whose largest value is white
_ALLOWED = "uint8, uint16, bool, or floats in [0, 1]"


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Return a picture as floats of which black is 0 and white is 1.

    Parameters
    ----------
    pixels : ndarray
        (H, W) or (H, W, 3); uint8, uint16, bool, or floats in [0, 1].

    Returns
    -------
    ndarray
        float64; of float32 that.

    Raises
    ------
    TypeError, ValueError
        It is none of these.

    Examples
    --------
    >>> scaled(np.array([[0, 51]], np.uint8))
    array([[0. , 0.2]])
    """
    images.kind_of(pixels, "the picture")
    array = images.as_numpy(pixels)
    kind = images.dtype_name(array.dtype)
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or not array.size:
        raise ValueError(f"the picture has shape {array.shape}; allowed: (H, W) or (H, W, 3)")
    if kind in _RANGED:
        return array / (1 if kind == "bool" else np.iinfo(array.dtype).max)
    if array.dtype.kind != "f":
        advice = "divide by what is white in it" if array.dtype.kind in "iu" else "convert it"
        raise TypeError(
            f"the picture has dtype {kind}, which does not say what is white; allowed: {_ALLOWED}; {advice}"
        )
    lowest, highest = float(array.min()), float(array.max())
    if not (lowest >= 0 and highest <= 1):  # NaN fails this, too
        raise ValueError(
            f"the picture has values from {lowest:g} to {highest:g}; allowed: {_ALLOWED}; divide by what is white in "
            "it, or clip it"
        )
    return array if kind in ("float32", "float64") else array.astype(np.float64)


def known(mask: np.ndarray | None, picture: np.ndarray) -> np.ndarray | None:
    """Return the mask of a picture as it is, if it is one.

    Raises
    ------
    TypeError, ValueError
        It is no array of bool, (H, W), of the picture's size.
    """
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype != bool:
        given = f"of {mask.dtype}" if isinstance(mask, np.ndarray) else shown(mask)
        raise TypeError(f"the mask must be an array of bool, True = known, not {given}; as mask > 0")
    if mask.shape != picture.shape[:2]:
        raise ValueError(f"the mask has shape {mask.shape}, and its picture {picture.shape[:2]}; give one of that size")
    return mask


def by_mask(entries: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return the pictures that have a mask, and those that have none."""
    found: tuple[list[Any], list[Any]] = ([], [])
    for entry in entries:
        found[entry.mask() is None].append(entry)
    return found


def check_masks(entries: Sequence[Any]) -> None:
    """Look whether every picture has a mask.

    Raises
    ------
    ValueError
        One has none; the message names those that have.
    """
    able, lacking = by_mask(entries)
    if not lacking:
        return
    named = f"of these pictures {', '.join(entry.name for entry in able)} have one: take these"
    advice = named if able else "nor has another of these: take a set that has masks, such as dip-paper"
    raise ValueError(f"missing='mask', but {lacking[0].name} has no mask; {advice}, or another way, as missing=0.5")


@dataclass(frozen=True)
class Scaled:
    """A picture of uint16 whose white is less than the dtype's.

    Attributes
    ----------
    entry : Entry
        The picture as it is.
    white : float
        What is white in it.
    """

    entry: Any
    white: float

    @property
    def name(self) -> str:
        """That of the picture."""
        return str(self.entry.name)

    def read(self) -> np.ndarray:
        """Return the pixels, with white at 1."""
        return np.asarray(self.entry.read() / self.white)

    def mask(self) -> np.ndarray | None:
        """Return the mask of the picture."""
        found: np.ndarray | None = self.entry.mask()
        return found


def with_one_white(entries: Sequence[Any]) -> list[Any]:
    """Return pictures of which those of uint16 have the white that the values of all of them tell, with a warning.

    Where all have room in 8, 10, 12 or 14 bits, they are taken for that, as `dip.Denoise` takes one picture: else they
    would be compared as very dark ones. It is one white for all, so that their brightness stays as it was.
    """
    entries, sixteen, highest = list(entries), [], 0.0
    for number, entry in enumerate(entries):
        pixels = entry.read()
        if isinstance(pixels, np.ndarray) and pixels.dtype.name == "uint16" and pixels.size:
            sixteen.append(number)
            highest = max(highest, float(pixels.max()))
    names = ", ".join(str(entries[number].name) for number in sixteen[:3]) + ", ..." * (len(sixteen) > 3)
    told = f"{len(sixteen)} of {len(entries)} pictures are uint16, and their values"
    white = ranges.white_of_all(highest, told, f"scale them to 65535 ({names})")
    if white is None:
        return entries
    return [Scaled(entry, white) if number in sixteen else entry for number, entry in enumerate(entries)]
