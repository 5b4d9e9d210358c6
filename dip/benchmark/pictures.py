"""The clean pictures of a benchmark: which arrays are pictures, and what in them is white."""

from __future__ import annotations

import numpy as np

from dip import images

__all__ = ["scaled"]

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
