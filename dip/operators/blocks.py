"""What a JPEG is made of: tables, planes of brightness and colours, and blocks of 8 x 8 that are transformed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dip.errors import positive_int

__all__ = [
    "BLACK",
    "MCU",
    "Resized",
    "decoded_ycc",
    "mean",
    "not_upsampled",
    "rgb",
    "scaled",
    "transformed",
    "untransformed",
    "upsampled",
    "whole_mcus",
    "ycc",
]

# The tables of the standard's annex K, which libjpeg scales by its quality.
_LUMA = """
16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55   14 13 16 24  40  57  69  56   14 17 22 29  51  87  80  62
18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92   49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99"""
_CHROMA = """
17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99"""
_BASE = [np.array(words.split(), dtype=np.int64).reshape(8, 8) for words in (_LUMA, _CHROMA)]

# JFIF: Y, Cb and Cr (about 0) of RGB, from BT.601
_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=torch.float64
)
_DCT = torch.tensor(  # orthonormal; rows are frequencies
    [
        [math.cos((2 * n + 1) * k * math.pi / 16) * (math.sqrt(1 / 8) if k == 0 else 0.5) for n in range(8)]
        for k in range(8)
    ],
    dtype=torch.float64,
)
BLACK = 128 / 255  # what is taken off the brightness

MCU = 16
"""Pixels of a side of a minimum coded unit, the largest whatever the subsampling."""


Resized = Callable[[Tensor, tuple[int, int]], Tensor]
"""What changes the size of planes, by so many rows and columns."""


def scaled(quality: int | None) -> Tensor:
    """Return libjpeg's tables of a quality, float32 (2, 8, 8)."""
    quality = positive_int(quality, "quality")
    if quality > 100:
        raise ValueError(f"quality={quality}: give 1 to 100")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.from_numpy(np.stack([((base * percent + 50) // 100).clip(1, 255) for base in _BASE])).float()


@functools.cache  # a copy to a GPU cannot be part of a recorded iteration
def _matrix(name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return {"ycc": _YCC, "rgb": torch.linalg.inv(_YCC), "dct": _DCT}[name].to(dtype).to(device)


def _mixed(name: str, x: Tensor) -> Tensor:
    """Return a matrix times the channels of (1, 3, H, W)."""
    return (_matrix(name, x.dtype, x.device) @ x.flatten(2)).unflatten(2, x.shape[2:])


def rgb(planes: Tensor) -> Tensor:
    """Return RGB of brightness and two colours."""
    return _mixed("rgb", planes)


def ycc(x: Tensor) -> Tensor:
    """Return brightness, and of RGB the two colours."""
    return x if x.shape[1] == 1 else _mixed("ycc", x)


def decoded_ycc(x: Tensor) -> Tensor:
    """Return the planes of a picture that was decoded: in whole gray levels, before they became RGB."""
    return (255 * ycc(x)).round() / 255


def whole_mcus(x: Tensor) -> Tensor:
    """Return x with its last row and column repeated up to whole units; of slices, whose gradients are sums."""
    for axis in (2, 3):
        lacking = -x.shape[axis] % MCU
        if lacking:
            x = torch.cat([x, *[x.narrow(axis, x.shape[axis] - 1, 1)] * lacking], dim=axis)
    return x


def transformed(planes: Tensor, each: tuple[int, int]) -> Tensor:
    """Transform blocks of 8 x 8: (1, C, H, W) -> (1, 64 C rows columns, h, w), with so many blocks in one unit."""
    rows, columns = each
    dct = _matrix("dct", planes.dtype, planes.device)
    cut = planes[0].unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)) @ dct.T  # (C, blocks, 8, blocks, 8)
    cut = (cut.transpose(-3, -1) @ dct.T).unflatten(1, (-1, rows)).unflatten(-2, (-1, columns))
    # (C, h, rows, j, w, columns, i), of frequencies i downwards and j to the right
    return cut.permute(0, 2, 5, 6, 3, 1, 4).flatten(0, 4)[None]


def untransformed(coefficients: Tensor, each: tuple[int, int]) -> Tensor:
    """Undo `transformed`."""
    rows, columns = each
    dct = _matrix("dct", coefficients.dtype, coefficients.device)
    cut = coefficients[0].unflatten(0, (-1, rows, columns, 8, 8)).permute(0, 5, 1, 4, 6, 2, 3)
    cut = (cut.flatten(1, 2).flatten(-3, -2) @ dct).transpose(-3, -1) @ dct  # (C, blocks, 8, blocks, 8)
    return cut.flatten(-2).flatten(1, 2)[None]


def mean(planes: Tensor, each: tuple[int, int]) -> Tensor:
    """Average over so many rows and columns."""
    for axis, count in zip((2, 3), each, strict=True):
        planes = planes.unflatten(axis, (-1, count)).mean(axis + 1)
    return planes


def upsampled(planes: Tensor, each: tuple[int, int]) -> Tensor:
    """Interpolate linearly to twice as many rows, columns or both, as libjpeg does ("fancy upsampling")."""
    for axis, count in zip((2, 3), each, strict=True):
        if count == 2:
            first, last = planes.narrow(axis, 0, 1), planes.narrow(axis, planes.shape[axis] - 1, 1)
            before = torch.cat([first, planes.narrow(axis, 0, planes.shape[axis] - 1)], axis)
            after = torch.cat([planes.narrow(axis, 1, planes.shape[axis] - 1), last], axis)
            pairs = [0.75 * planes + 0.25 * beside for beside in (before, after)]
            planes = torch.stack(pairs, axis + 1).flatten(axis, axis + 1)
    return planes


def not_upsampled(planes: Tensor, each: tuple[int, int]) -> Tensor:
    """Undo `upsampled`: means of pairs are (1, 6, 1) / 8 of neighbours, a matrix with eigenvalues from 1/2 to 1."""
    if each == (1, 1):
        return planes
    wanted = found = mean(planes, each)
    for _ in range(16):  # each leaves at most 1/3 of the error in a direction, 5/9 in two: of 50 gray levels 0.004
        found = found + 4 / 3 * (wanted - mean(upsampled(found, each), each))
    return found
