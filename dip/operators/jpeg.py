"""JPEG: what a picture becomes in such a file, and what the file tells of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from dip.errors import shown, unknown
from dip.operators.basic import precise
from dip.operators.blocks import (
    BLACK,
    PLACE,
    YCC,
    Resized,
    decoded_planes,
    in_places,
    mean,
    mixed,
    planes_of,
    repeated,
    scaled,
    shrunk_back,
    stretched,
    transformed,
    untransformed,
)

__all__ = ["JPEG", "SUBSAMPLINGS"]

SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:4:0": (2, 1), "4:2:0": (2, 2)}
"""How many rows and columns of pixels have one value of colour, in the field's words."""

_CLIPPED_TIMES = 10  # of looking for what lies beyond the ends of the range

_LUMAS = 256  # coefficients of brightness of 16 x 16 pixels

_FOUND_IN = 4096  # blocks in which the steps are looked for
_ROUNDED = 0.45  # standard deviation that rounding to 8 bits leaves in a coefficient, in gray levels
_CAP = 8.0  # of a squared deviation, halved: what is farther off, as in a block that was clipped, counts no more
_ENOUGH = 10.0  # of the logarithm of how much likelier whole steps are than none
_TOO_FINE = 97  # from this quality on the steps are as fine as the gray levels are


class JPEG(torch.nn.Module):
    r"""What becomes of a picture in a JPEG: A x is what is read back of it.

    The picture is turned into brightness and two colours (JFIF's YCbCr), of which the colours may be averaged over
    neighbours; each block of 8 x 8 values is transformed (DCT-II, orthonormal), and a coefficient c of it is stored as
    a whole number of steps q of the file's table,

    .. math:: k = \mathrm{round}(c / q).

    Parameters
    ----------
    quality : int, optional
        1 to 100, as libjpeg's (and so Pillow's and OpenCV's) counts: the tables of the standard, scaled.
    tables : sequence of array, optional
        In place of it: the steps for brightness and for the colours, or of brightness alone (for gray pictures); each
        (8, 8) or 64 numbers, row by row (not in zigzag order), 1 to 65535.
    subsampling : {"4:2:0", "4:2:2", "4:4:0", "4:4:4"}
        Whether one value of colour is kept for 2 x 2 pixels, for 1 x 2, for 2 x 1, or for each.

    Raises
    ------
    TypeError, ValueError
        Not one of quality and tables is given, or they are not of that kind, or the subsampling is unknown.

    Notes
    -----
    Rounding has no gradient: `forward`'s is that of the rest of it, as if nothing had been rounded. In float32 (float64
    for float64 input), also under autocast. A picture whose sides are no multiples of 16 pixels goes on with
    its last row and column, as in libjpeg.

    References
    ----------
    ITU-T T.81 (the standard) and T.871 (JFIF).

    Examples
    --------
    >>> JPEG(quality=50).tables[0, 0]
    tensor([16., 11., 10., 16., 24., 40., 51., 61.])
    """

    def __init__(
        self, quality: int | None = None, *, tables: Sequence[Any] | None = None, subsampling: str = "4:2:0"
    ) -> None:
        super().__init__()
        if (quality is None) == (tables is None):
            raise ValueError("give JPEG(quality), such as JPEG(75), or the tables themselves, tables=(luma, chroma)")
        if subsampling not in SUBSAMPLINGS:
            raise unknown("subsampling", subsampling, SUBSAMPLINGS)
        self.subsampling = subsampling
        self.tables = scaled(quality) if tables is None else _checked(tables)
        self._each = SUBSAMPLINGS[subsampling]

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> Self:
        """Return how a JPEG file was made: its tables and subsampling, turned as `dip.files.read` turns the picture.

        Raises
        ------
        OSError, ValueError
            The file is missing, no JPEG, or of a kind that is not known here (its colours are no YCbCr).
        """
        from PIL import JpegImagePlugin

        path = Path(path)
        try:
            with path.open("rb") as file:
                image = JpegImagePlugin.JpegImageFile(file)
                layers, tables, turned = image.layer, image.quantization, image.getexif().get(0x0112)
                as_rgb = len(image.layer) == 3 and image.info.get("adobe_transform") == 0
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"{path} is no JPEG that can be read ({error})") from error
        if len(layers) not in (1, 3) or as_rgb:
            raise ValueError(f"{path} has {'RGB' if as_rgb else len(layers)} components; gray and YCbCr are understood")
        first, last = layers[0], layers[-1]  # each with its number, columns, rows and table
        made = [np.reshape(tables[layer[3]], (8, 8)) for layer in (first, last)][: 1 if len(layers) == 1 else 2]
        each, size = (first[2] // last[2], first[1] // last[1]), (image.height, image.width)
        if turned in (5, 6, 7, 8):  # rows and columns change places
            made, each, size = [table.T for table in made], each[::-1], size[::-1]
        words = {one: name for name, one in SUBSAMPLINGS.items()}
        if each not in words or len({layer[1:3] for layer in layers[1:]}) > 1:
            known = ", ".join(SUBSAMPLINGS)
            raise ValueError(f"{path} keeps a colour for {each[0]} x {each[1]} pixels; understood are {known}")
        mirrored = [turned in (3, 4, 7, 8), turned in (2, 3, 6, 7)]  # rows, columns
        if any(n % (8 * m) for n, m, other in zip(size, each, mirrored, strict=True) if other):
            raise ValueError(
                f"{path} is shown turned (EXIF), and as its sides are no multiples of its blocks these would not begin "
                "at the corner; turn the file itself without loss (jpegtran -rotate 90 -trim)"
            )
        return cls(tables=made, subsampling=words[each])

    @classmethod
    def found_in(cls, y: Tensor) -> Self:
        """Return how a picture was compressed, found in its pixels: their coefficients are whole numbers of steps.

        Parameters
        ----------
        y : Tensor
            (1, 1 or 3, H, W) in [0, 1], as it came out of the JPEG, with its first block at the corner.

        Raises
        ------
        ValueError
            There is no trace of a JPEG with libjpeg's tables.
        """
        _check(y)
        with torch.no_grad():
            used = _used(y, _luma)
            quality = max(range(1, 101), key=lambda one: _evidence(used, scaled(one)[0]))
            if quality >= _TOO_FINE or _evidence(used, scaled(quality)[0]) < _ENOUGH:
                raise ValueError(
                    "the image has no trace of a JPEG that begins at its corner (it may have been resized, turned or "
                    "changed since); if it is one, say of which quality: jpeg=dip.operators.JPEG(75), or --quality 75"
                )
            if y.shape[1] == 1:
                return cls(quality)
            apart = {
                name: _off(_used(y, partial(_colours, each)), scaled(quality)[1]) for name, each in SUBSAMPLINGS.items()
            }
        least = min(apart.values())
        likely = ("4:2:0", *SUBSAMPLINGS)  # where there is no colour all are alike
        return cls(quality, subsampling=next(name for name in likely if apart[name] <= least + 1e-9))

    def steps_for(self, channels: int) -> Tensor:
        """Return the steps q of what `coefficients` returns, (1, K, 1, 1), for an image of so many channels."""
        luma, chroma = self.tables[0], self.tables[-1]
        if channels == 1:
            return luma.repeat(4, 1, 1).reshape(1, -1, 1, 1) / 255
        if len(self.tables) == 1:
            raise ValueError("a table for brightness alone is for gray images; give tables=(luma, chroma)")
        blocks = [luma] * 4 + [chroma] * (8 // math.prod(self._each))
        return torch.stack(blocks).reshape(1, -1, 1, 1) / 255

    def coefficients(self, x: Tensor) -> Tensor:
        """Return the coefficients c of an image before they are rounded: a linear map, but for a constant.

        Parameters
        ----------
        x : Tensor
            (1, 1 or 3, H, W) in [0, 1].

        Returns
        -------
        Tensor
            (1, K, ceil(H / 16), ceil(W / 16)), in units of x: what belongs to 16 x 16 pixels, the 64 coefficients of
            each of four blocks of brightness, then those of the colours.
        """
        return self._coefficients(x, planes_of, mean)

    def of_decoded(self, y: Tensor) -> Tensor:
        """Return the coefficients k q that a picture was read from: those of a file, if `y` is what it holds.

        Parameters and what is returned as of `coefficients`.
        """
        with torch.no_grad():
            found, steps = self._coefficients(y, decoded_planes, shrunk_back), self.steps_for(y.shape[1]).to(y)
            for _ in range(_CLIPPED_TIMES):
                found = (found / steps).round() * steps
                # A value at the end of the range was there or beyond before it was clipped: where it is now.
                picture = self.decoded(found, y.shape[2:])
                picture = torch.where(y >= 1, picture.clamp(min=1), torch.where(y <= 0, picture.clamp(max=0), y))
                found = self._coefficients(picture, decoded_planes, shrunk_back)
            return (found / steps).round() * steps

    def decoded(self, coefficients: Tensor, size: Sequence[int]) -> Tensor:
        """Return the picture (1, 1 or 3, H, W) of coefficients, of `size` (H, W), not rounded and not clipped.

        Colours that were averaged are interpolated linearly, as libjpeg does.
        """
        return self._picture(coefficients, size, stretched) + BLACK

    def added(self, coefficients: Tensor, size: Sequence[int]) -> Tensor:
        """Return what has to be added to an image so that its `coefficients` rise by these."""
        return self._picture(coefficients, size, repeated)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is read back of `x`, (1, 1 or 3, H, W) in [0, 1], clipped to that but not rounded.

        Raises
        ------
        TypeError, ValueError
            `x` is not real, or no such image.
        """
        found = self.coefficients(x)
        steps = self.steps_for(x.shape[1]).to(found)
        stored = found + ((found / steps).round() * steps - found).detach()
        return self.decoded(stored, x.shape[2:]).clamp(0, 1)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        quality = next((q for q in range(1, 101) if self._is(scaled(q)[: len(self.tables)])), None)
        how = (
            f"quality={quality}"
            if quality is not None
            else f"{len(self.tables)} tables from {self.tables[0, 0, 0]:g} on"
        )
        return f"{how}, subsampling={self.subsampling!r}"

    def _is(self, tables: Tensor) -> bool:
        """Tell whether these are the tables, perhaps of a picture that was turned."""
        return any(torch.equal(one, self.tables) for one in (tables, tables.mT))

    def _coefficients(self, x: Tensor, planed: Callable[[Tensor], Tensor], shrunk: Resized) -> Tensor:
        _check(x)
        x = x.to(precise(x))
        with torch.autocast(x.device.type, enabled=False):
            planes = planed(in_places(x, PLACE))
            luma = transformed(planes[:, :1] - BLACK, (2, 2))
            if x.shape[1] == 1:
                return luma
            return torch.cat([luma, transformed(shrunk(planes[:, 1:], self._each), self._beside)], dim=1)

    def _picture(self, coefficients: Tensor, size: Sequence[int], enlarged: Resized) -> Tensor:
        with torch.autocast(coefficients.device.type, enabled=False):
            planes = untransformed(coefficients[:, :_LUMAS], (2, 2))
            if coefficients.shape[1] > _LUMAS:
                colours = untransformed(coefficients[:, _LUMAS:], self._beside)
                planes = mixed(torch.linalg.inv(YCC), torch.cat([planes, enlarged(colours, self._each)], dim=1))
            return planes[..., : size[0], : size[1]]

    def fits(self, y: Tensor) -> bool:
        """Tell whether a picture, as for `found_in`, looks as if it had come out of such a JPEG."""
        with torch.no_grad():
            return _evidence(_used(y, _luma), self.tables[0]) >= 0

    @property
    def _beside(self) -> tuple[int, int]:
        """Rows and columns of blocks of colour that belong to 16 x 16 pixels."""
        return 2 // self._each[0], 2 // self._each[1]


def _checked(tables: Sequence[Any]) -> Tensor:
    """Return tables as float32 (1 or 2, 8, 8)."""
    try:
        made = [np.asarray(table, dtype=np.float64).reshape(8, 8) for table in tables]
    except (TypeError, ValueError):
        made = []
    if len(made) not in (1, 2):
        raise ValueError(
            f"tables={shown(tables)}: give one or two tables of 8 x 8 steps, for brightness and for colours"
        )
    steps = np.stack(made)
    if not ((steps >= 1) & (steps <= 65535) & (steps == steps.round())).all():
        raise ValueError("tables: steps are whole numbers from 1 to 65535, in gray levels of 255")
    return torch.from_numpy(steps).float()


def _check(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[0] != 1 or x.shape[1] not in (1, 3):
        raise ValueError(f"a JPEG holds gray or RGB: (1, 1 or 3, H, W) is needed, got {tuple(x.shape)}")


def _luma(x: Tensor) -> Tensor:
    """Return the brightness about 0."""
    return decoded_planes(x)[:, :1] - BLACK


def _colours(each: tuple[int, int], x: Tensor) -> Tensor:
    """Return the colours as they were stored."""
    return shrunk_back(decoded_planes(x)[:, 1:], each)


def _used(y: Tensor, planed: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return coefficients of some planes of a picture, (64, n) in gray levels, and which were not rounded to 0.

    Of evenly chosen blocks that are whole, and of which nothing was clipped, as far as there are such.
    """
    y = y.detach().cpu().double()
    y = y[..., : y.shape[2] // PLACE * PLACE, : y.shape[3] // PLACE * PLACE]
    if not y.numel():
        return y.new_zeros(64, 0), torch.zeros(64, 0, dtype=torch.bool)
    clipped = ((y <= 0) | (y >= 1)).any(1, keepdim=True).double()
    planes = planed(y)
    size = 8 * y.shape[2] // planes.shape[2], 8 * y.shape[3] // planes.shape[3]
    good = torch.nn.functional.max_pool2d(clipped, size)[0, 0] == 0
    found = 255 * transformed(planes, (1, 1))[0].unflatten(0, (-1, 64)).transpose(0, 1)  # (64, planes, h, w)
    found = (found[..., good] if good.any() else found).flatten(1)
    found = found[:, :: max(1, found.shape[1] // _FOUND_IN)]
    counts = found.abs() > 6 * _ROUNDED
    counts[0] = False  # a block's mean is rounded the same way in each of its pixels
    return found, counts


def _deviation(used: tuple[Tensor, Tensor], table: Tensor) -> tuple[Tensor, Tensor]:
    """Return log q and half the squared deviation from the next multiple of q, of the coefficients that count."""
    found, counts = used
    steps = table.reshape(64, 1).to(found).expand_as(found)[counts]
    found = found[counts]
    apart = (found - (found / steps).round() * steps) / _ROUNDED
    return steps.log(), (apart.square() / 2).clamp(max=_CAP)


def _evidence(used: tuple[Tensor, Tensor], table: Tensor) -> float:
    """Return the log-likelihood, but for a constant, that coefficients are multiples of steps: fine ones fit always."""
    log_steps, deviation = _deviation(used, table)
    return float((log_steps - deviation).sum())


def _off(used: tuple[Tensor, Tensor], table: Tensor) -> float:
    """Return the mean of half the squared deviation, 0.5 for coefficients that are multiples of the steps."""
    deviation = _deviation(used, table)[1]
    return float(deviation.mean()) if len(deviation) else 0.0
