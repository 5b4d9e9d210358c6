"""What a JPEG leaves in the pixels that are read back of it: their coefficients are whole numbers of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from dip.operators.blocks import BLACK, MCU, decoded_ycc, not_upsampled, scaled, transformed

__all__ = ["fit", "quality", "subsampling"]

_FOUND_IN = 1024  # pixels of a side of the middle of a picture, in which the steps are looked for
_ROUNDED = 0.45  # standard deviation that rounding to 8 bits leaves in a coefficient, in gray levels
_CAP = 8.0  # of a squared deviation, halved: what is farther off, as in a block that was clipped, counts no more
_ENOUGH = 10.0  # of the logarithm of how much likelier whole steps are than none
_FINE_COLOURS = 20  # levels in the mean: below that the colours tell no subsampling from another for certain
_TOO_FINE = 97  # from this quality on the steps are as fine as the gray levels are


@torch.no_grad()
def quality(y: Tensor) -> tuple[int, bool] | None:
    """Return the quality by which libjpeg compressed a picture (1, 1 or 3, H, W) in [0, 1], None without a trace.

    And whether it has changed rows for columns since, as a picture that EXIF says to turn: then its tables have, too.
    """
    used = _used(y, _luma)
    evidence = {
        (one, turned): _evidence(used, scaled(one)[0].T if turned else scaled(one)[0])
        for one in range(1, 101)
        for turned in (False, True)
    }
    found = max(evidence, key=lambda one: evidence[one])
    return None if found[0] >= _TOO_FINE or evidence[found] < _ENOUGH else found


@torch.no_grad()
def subsampling(y: Tensor, table: Tensor, known: Mapping[str, tuple[int, int]]) -> str:
    """Return how the colours were subsampled, by the table of their steps; "4:2:0" where there is no colour."""
    off = {name: _off(_used(y, partial(_colours, each)), table) for name, each in known.items()}
    return min(("4:2:0", *known), key=lambda name: round(off[name], 9))


@torch.no_grad()
def fit(y: Tensor, tables: Tensor, each: tuple[int, int]) -> bool:
    """Tell whether a picture may have been compressed by tables, with so many rows and columns for a colour."""
    if tables[0].mean() < scaled(_TOO_FINE)[0].mean() * 1.01:
        return True  # nothing would tell
    if _evidence(_used(y, _luma), tables[0]) < 0:
        return False
    if y.shape[1] == 1 or len(tables) != 2 or tables[1].mean() < _FINE_COLOURS:
        return True
    return _evidence(_used(y, partial(_colours, each)), tables[1]) >= 0


def _luma(x: Tensor) -> Tensor:
    """Return the brightness about 0."""
    return decoded_ycc(x)[:, :1] - BLACK


def _colours(each: tuple[int, int], x: Tensor) -> Tensor:
    """Return the colours as they were stored."""
    return not_upsampled(decoded_ycc(x)[:, 1:], each)


def _used(y: Tensor, planed: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return coefficients of some planes that were not rounded to 0, (n,) in gray levels, and their frequencies, (n,).

    Of whole blocks in the middle of the picture, of which nothing was clipped, as far as there are such.
    """
    unit = 8 if y.shape[1] == 1 else MCU
    for axis in (2, 3):
        begin = max(0, y.shape[axis] - _FOUND_IN) // 2 // unit * unit
        y = y.narrow(axis, begin, min(_FOUND_IN, y.shape[axis]) // unit * unit)
    y = y.detach().cpu().double()
    if not y.numel():
        return y.new_zeros(0), torch.zeros(0, dtype=torch.long)
    clipped = ((y <= 0) | (y >= 1)).any(1, keepdim=True).double()
    planes = planed(y)
    size = 8 * y.shape[2] // planes.shape[2], 8 * y.shape[3] // planes.shape[3]
    good = torch.nn.functional.max_pool2d(clipped, size)[0, 0] == 0
    found = 255 * transformed(planes, (1, 1))[0].unflatten(0, (-1, 64)).transpose(0, 1)  # (64, planes, h, w)
    found = (found[..., good] if good.any() else found).flatten(1)
    counts = found.abs() > 6 * _ROUNDED
    counts[0] = False  # a block's mean is rounded the same way in each of its pixels
    return found[counts], counts.nonzero()[:, 0]


def _deviation(used: tuple[Tensor, Tensor], table: Tensor) -> tuple[Tensor, Tensor]:
    """Return log q and half the squared deviation from the next multiple of q, of the coefficients that count."""
    found, frequency = used
    steps = table.flatten().to(found)[frequency]
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
