"""JPEG: what a picture becomes in such a file, and what the file tells of it."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from dip.decoding import ORIENTATION, quiet, turned
from dip.errors import shown, unknown
from dip.operators import traces
from dip.operators.basic import precise
from dip.operators.blocks import (
    BLACK,
    MCU,
    Resized,
    decoded_ycc,
    mean,
    not_upsampled,
    rgb,
    scaled,
    transformed,
    untransformed,
    upsampled,
    whole_mcus,
    ycc,
)

__all__ = ["JPEG", "SUBSAMPLINGS"]

SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:4:0": (2, 1), "4:2:0": (2, 2)}
"""How many rows and columns of pixels have one value of colour, in the field's words."""

_CLIPPED_TIMES = 4  # of looking for what lies beyond the ends of the range, at most
# By EXIF orientation, what turns a file without loss.
_TURN: dict[Any, str] = {2: "-flip horizontal", 3: "-rotate 180", 4: "-flip vertical", 6: "-rotate 90"}
_TURN |= {7: "-transverse", 8: "-rotate 270"}

_LUMAS = 256  # coefficients of brightness of 16 x 16 pixels


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
        In place of it: the steps q for brightness, and for the colours (one table for both, or two), or for brightness
        alone (gray pictures); each (8, 8) or 64 numbers, row by row (not in zigzag order), 1 to 65535.
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
            with path.open("rb") as file, quiet():
                image = JpegImagePlugin.JpegImageFile(file)
                layers, tables, orientation = image.layer, image.quantization, image.getexif().get(ORIENTATION)
                # without a word of Adobe's libjpeg goes by the names of the components
                told, names = image.info.get("adobe_transform"), [layer[0] for layer in layers]
        except FileNotFoundError:
            raise
        except (SyntaxError, ValueError, OSError) as error:
            raise ValueError(f"{path} is no JPEG that can be read ({error})") from error
        as_rgb = len(layers) == 3 and (told == 0 or (told is None and names == [*b"RGB"]))
        if len(layers) not in (1, 3) or as_rgb:
            raise ValueError(f"{path} has {'RGB' if as_rgb else len(layers)} components; gray and YCbCr are understood")
        first, last = layers[0], layers[-1]  # each with its name, columns, rows and table
        each, size = (first[2] // last[2], first[1] // last[1]), (image.height, image.width)
        made = [np.reshape(tables[layer[3]], (8, 8)) for layer in layers]
        turn = turned(orientation)
        if turn.swapped:
            made, each, size = [table.T for table in made], each[::-1], size[::-1]
        words = {one: name for name, one in SUBSAMPLINGS.items()}
        if each not in words or len({layer[1:3] for layer in layers[1:]}) > 1:
            known = ", ".join(SUBSAMPLINGS)
            raise ValueError(f"{path} keeps a colour for {each[0]} x {each[1]} pixels; understood are {known}")
        if any(n % (8 * m) for n, m, mirrored in zip(size, each, turn[1:], strict=True) if mirrored):
            raise ValueError(
                f"{path} is shown turned (EXIF), and as its sides are no multiples of its blocks, these would not "
                f"begin at the corner; turn the file itself: jpegtran {_TURN[orientation]} -trim, which cuts them"
            )
        return cls(tables=made, subsampling=words[each])

    @classmethod
    def found_in(cls, y: Tensor, quality: int | None = None) -> Self:
        """Return how a picture was compressed, found in its pixels: their coefficients are whole numbers of steps.

        Of one that was compressed several times it is mostly the coarsest that is found.

        Parameters
        ----------
        y : Tensor
            (1, 1 or 3, H, W) in [0, 1], as it came out of the JPEG, with its first block at the corner.
        quality : int, optional
            1 to 100, where it is known, and only the subsampling is to be found.

        Raises
        ------
        ValueError
            There is no trace of a JPEG with libjpeg's tables, or of one that is coarser than the gray levels are.
        """
        _check(y)
        found = traces.quality(y) if quality is None else (quality, False)
        if found is None:
            raise ValueError(
                "the image has no trace of a JPEG that begins at its corner: it may have been resized, turned or "
                "changed since, or of a quality from 97 on, whose steps are as fine as gray levels; if it is one, give "
                'the file that it was read from (jpeg="in.jpg", which EXIF may say to turn), or say of which quality '
                "(jpeg=75)"
            )
        return cls._made(y, *found)

    @classmethod
    def _made(cls, y: Tensor, quality: int, turned: bool) -> Self:
        """Return how a picture of that quality was compressed; `turned`: rows have become columns since."""
        tables = [one.T if turned else one for one in scaled(quality)]
        if y.shape[1] == 1:
            return cls(tables=tables[:1])
        subsampling = traces.subsampling(y, tables[1], SUBSAMPLINGS)
        return cls(tables=tables, subsampling=subsampling) if turned else cls(quality, subsampling=subsampling)

    def fits(self, y: Tensor) -> bool:
        """Tell whether a picture, as for `found_in`, looks as if it had come out of such a JPEG."""
        return traces.fit(y, self.tables, self._each)

    def coarser(self, y: Tensor) -> Self | None:
        """Return how a picture was compressed before, in coarser steps than these, as far as that is found in it."""
        found = traces.quality(y)
        if found is None or scaled(found[0])[0].mean() <= 1.2 * self.tables[0].mean():
            return None
        return self._made(y, *found)

    def steps_for(self, channels: int) -> Tensor:
        """Return the steps q of what `coefficients` returns, (1, K, 1, 1), for an image of so many channels."""
        luma = [self.tables[0]] * 4
        if channels > 1 and len(self.tables) == 1:
            raise ValueError("a table for brightness alone is for gray images; give tables=(luma, chroma)")
        colours = [self.tables[number] for number in (1, -1) if channels > 1 for _ in range(math.prod(self._beside))]
        return torch.stack(luma + colours).reshape(1, -1, 1, 1) / 255

    def planes(self, channels: int) -> list[slice]:
        """Return where in the `coefficients` those of brightness are, and of each colour."""
        each = 64 * math.prod(self._beside)
        ends = [0, _LUMAS] + [_LUMAS + each * n for n in range(1, channels)]
        return [slice(begin, end) for begin, end in itertools.pairwise(ends)]

    def bounded(self, channels: int, size: Sequence[int]) -> Tensor:
        """Return which of the `coefficients` are of blocks that an image of `size` (H, W) has as a whole.

        Of the others (at the lower and right border) nobody knows what the file says: what was cut off is not seen.

        Returns
        -------
        Tensor
            bool, of the coefficients' shape.
        """
        masks = []
        for each, count in (((2, 2), 1), (self._beside, channels - 1)):
            rows, columns = (
                (torch.arange(-(-n // MCU) * m) + 1) * (MCU // m) <= n for n, m in zip(size, each, strict=True)
            )
            whole = (rows[:, None] & columns).unflatten(1, (-1, each[1])).unflatten(0, (-1, each[0]))  # (h, r, w, c)
            masks.append(whole.permute(1, 3, 0, 2).flatten(0, 1).repeat_interleave(64, 0).repeat(count, 1, 1))
        return torch.cat(masks)[None]

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
        return self._coefficients(x, ycc, mean)

    def stored(self, y: Tensor) -> Tensor:
        """Return the coefficients k q that a picture was read from: those of a file, if `y` is what it holds.

        Of blocks that are not whole (see `bounded`) they are those of the picture, with its last row and column
        repeated. Parameters and what is returned as of `coefficients`.
        """
        with torch.no_grad():
            steps, whole = self.steps_for(y.shape[1]).to(y), self.bounded(y.shape[1], y.shape[2:]).to(y.device)

            def rounded(found: Tensor) -> Tensor:
                return torch.where(whole, (found / steps).round() * steps, found)

            found = rounded(self._coefficients(y, decoded_ycc, not_upsampled))
            clipped = (y <= 0) | (y >= 1)
            for _ in range(_CLIPPED_TIMES * bool(clipped.any())):
                # A value at the end of the range was there or beyond before it was clipped: where it is now.
                picture = self.decoded(found, y.shape[2:])
                picture = torch.where(clipped, torch.where(y >= 1, picture.clamp(min=1), picture.clamp(max=0)), y)
                found, before = rounded(self._coefficients(picture, decoded_ycc, not_upsampled)), found
                if torch.equal(found, before):
                    break
            return found

    def error(self, stored: Tensor, channels: int) -> float:
        r"""Return about how far a picture is from the one that was compressed: the root of the mean squared error.

        It is :math:`2 \sqrt{\sum_{k \ne 0} q^2 / 12 n}`, over the coefficients that were not rounded to 0: what the
        rounding of those costs is about half of the error, at all qualities (benchmarks/jpeg_error.py).

        Parameters
        ----------
        stored : Tensor
            What the method of that name returns.
        channels : int
            1 or 3.
        """
        steps, stored = self.steps_for(channels).double(), stored.cpu().double()
        squares = torch.where(stored.abs() > steps / 2, steps.square() / 12, 0).sum((0, 2, 3))
        squares[_LUMAS:] *= math.prod(self._each)
        return 2 * math.sqrt(float(squares.sum()) / (_LUMAS * stored[0, 0].numel()))

    def decoded(self, coefficients: Tensor, size: Sequence[int]) -> Tensor:
        """Return the picture (1, 1 or 3, H, W) of coefficients, of `size` (H, W), not rounded and not clipped.

        Colours that were averaged are interpolated linearly, as libjpeg does.
        """
        with torch.autocast(coefficients.device.type, enabled=False):
            planes = untransformed(coefficients[:, :_LUMAS], (2, 2)) + BLACK
            if coefficients.shape[1] > _LUMAS:
                colours = untransformed(coefficients[:, _LUMAS:], self._beside)
                planes = rgb(torch.cat([planes, upsampled(colours, self._each)], dim=1))
            return planes[..., : size[0], : size[1]]

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
        quality = next((q for q in range(1, 101) if self._is(q)), None)
        how = f"{len(self.tables)} tables from {self.tables[0, 0, 0]:g} on" if quality is None else f"quality={quality}"
        return how if len(self.tables) == 1 else f"{how}, subsampling={self.subsampling!r}"

    def _is(self, quality: int) -> bool:
        """Tell whether the tables are libjpeg's of that quality, perhaps of a picture that was turned."""
        theirs = scaled(quality)[: len(self.tables)]
        return torch.equal(theirs, self.tables) or torch.equal(theirs.mT, self.tables)

    def _coefficients(self, x: Tensor, planed: Callable[[Tensor], Tensor], shrunk: Resized) -> Tensor:
        _check(x)
        x = x.to(precise(x))
        with torch.autocast(x.device.type, enabled=False):
            planes = planed(whole_mcus(x))
            luma = transformed(planes[:, :1] - BLACK, (2, 2))
            if x.shape[1] == 1:
                return luma
            return torch.cat([luma, transformed(shrunk(planes[:, 1:], self._each), self._beside)], dim=1)

    @property
    def _beside(self) -> tuple[int, int]:
        """Rows and columns of blocks of colour that belong to 16 x 16 pixels."""
        return 2 // self._each[0], 2 // self._each[1]


def _checked(tables: Sequence[Any]) -> Tensor:
    """Return tables as float32 (1 to 3, 8, 8)."""
    try:
        made = [np.asarray(table, dtype=np.float64).reshape(8, 8) for table in tables]
    except (TypeError, ValueError):
        made = []
    if len(made) not in (1, 2, 3):
        raise ValueError(
            f"tables={shown(tables)}: give one to three tables of 8 x 8 steps, for brightness and for the colours"
        )
    steps = np.stack(made)
    if not ((steps >= 1) & (steps <= 65535) & (steps == steps.round())).all():
        raise ValueError("tables: steps are whole numbers from 1 to 65535, in gray levels of 255")
    if len(steps) == 3 and (steps[1] == steps[2]).all():
        steps = steps[:2]
    return torch.from_numpy(steps).float()


def _check(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[0] != 1 or x.shape[1] not in (1, 3):
        raise ValueError(f"a JPEG holds gray or RGB: (1, 1 or 3, H, W) is needed, got {tuple(x.shape)}")
