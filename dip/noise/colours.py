"""Noise in the cosine domain of patches, in the opponent colours; and what the differences of colours tell of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dip.wiener import PATCH, cosines, opponent

__all__ = ["FREQUENCY", "coefficients", "of_colours", "without_structure"]

FREQUENCY = torch.cartesian_prod(torch.arange(PATCH), torch.arange(PATCH)).float().norm(dim=1)
"""Of each coefficient, in half waves a patch."""

_LEAST, _ROUNDS, _TINY = 250, 10, 1e-10
_TIMES = 3.5  # standard deviations of the sum beyond its mean
_FINE, _FINEST = (FREQUENCY > 5.5) & (FREQUENCY <= 7), FREQUENCY > 7
_FALL, _APART = 1.3, 1.2  # of white noise: the most that fine is stronger than finest, one colour's than the other's
_IN_COMMON = 6.0  # times what is finest in the colours
_EIGHT_BITS = 1 / 255
_VALUES = 2**16  # among which the least step is looked for


def coefficients(patches: Tensor) -> Tensor:
    """Return the cosine transform of patches (C, 64, N), in the opponent colours."""
    return torch.einsum("ij,kp,jpn->ikn", opponent(len(patches)).to(patches), cosines().to(patches), patches)


def without_structure(squares: Tensor) -> Tensor:
    """Return the mean of squares (C, K, N) over the patches without structure, (C, K).

    Those are the ones whose squares, in units of that mean, have a sum that nearly all patches of noise have, in turns,
    from the variances that the least fifth of the values tells.
    """
    values = squares.shape[0] * squares.shape[1]
    limit = values + _TIMES * math.sqrt(2 * values)
    fifth = squares.kthvalue(max(1, squares.shape[2] // 5), dim=2).values
    variances = fifth / 0.2533**2  # of the square of a normal value a fifth is below that
    for _ in range(_ROUNDS):
        sums = (squares / variances.clamp(min=_TINY)[..., None]).sum((0, 1))
        flattest = sums.kthvalue(_LEAST).values  # so many at least
        before, variances = variances, squares[..., sums <= flattest.clamp(min=limit)].mean(2)
        if float((variances / before.clamp(min=_TINY) - 1).abs().mean()) < 5e-3:
            break
    return variances


def of_colours(patches: Tensor, values: Tensor) -> float:
    """Return the variance of noise that is white and as strong in both differences of colours; infinity of other noise.

    A picture's detail is in its luminance above all. In the differences of its colours there is little that is fine, so
    they tell the noise where the luminance has structure everywhere. If both have equally much of the finest noise,
    and hardly more of what is a little coarser, then the noise is independent, from pixel to pixel and from channel to
    channel: that of interpolated colours, of a JPEG or of an enlarged picture is weaker the finer it is, or differs
    from one to the other. (What rounding leaves in the colours of a JPEG is white, but too weak to count.) Where the
    luminance has six times as much of the finest, channels have most of their noise in common, and nothing is told.

    Parameters
    ----------
    patches : Tensor
        (3, 64, N), of red, green and blue.
    values : Tensor
        Of the picture in any shape, which tell how finely they are rounded.
    """
    squares = coefficients(patches)[:, 1:].square()
    found = without_structure(squares[1:])
    fine, finest = (found[:, there[1:]].mean(1) for there in (_FINE, _FINEST))
    white = bool((fine <= _FALL**2 * finest).all()) and float(finest.max()) <= _APART**2 * float(finest.min())
    variance = float(finest.mean())
    gray = float(without_structure(squares[:1])[0, _FINEST[1:]].mean())
    white &= gray <= _IN_COMMON**2 * variance
    return variance if white and variance > max(_EIGHT_BITS, _step(values)) ** 2 else math.inf


def _step(values: Tensor) -> float:
    """Return the least difference of values."""
    values = values.flatten()
    steps = values[:: math.ceil(values.numel() / _VALUES)].unique().diff()
    return float(steps.min()) if steps.numel() else math.inf
