"""Batch normalisation on a CPU: its statistics, what it makes of a picture, and its gradients.

PyTorch's own, but for pictures of few channels, which it takes channel by channel where it should take many values at a
time: there the pixels that lie next to each other in a row are taken as further channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gradients", "joined", "norm_backward", "normalise", "normalised", "strips", "sums_of"]

STRIP = 2**22  # values of a picture in a strip: few enough for the cache, many enough for the calls not to count
_CHANNELS = 64  # as many as the processor is to have at a time; with less than half of that, pixels join them
_PIXELS = 2**14  # of pictures for which that pays: below, the further calls cost more


def strips(g: Tensor, size: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the rows of strips of a picture, from, to, of so many values."""
    rows = max(1, (STRIP if size is None else size) // (g.shape[1] * g.shape[3]))
    for top in range(0, g.shape[2], rows):
        yield top, min(top + rows, g.shape[2])


def joined(x: Tensor) -> int:
    """Return how many neighbouring pixels of a row are taken as channels."""
    channels, width = x.shape[1], x.shape[3]
    if 2 * channels >= _CHANNELS or x.shape[2] * width < _PIXELS or x.is_meta:
        return 1
    times = 2 ** int(math.log2(_CHANNELS // channels))
    return times if width % times == 0 and x.is_contiguous(memory_format=torch.channels_last) else 1


def _wide(x: Tensor, times: int) -> Tensor:
    number, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).view(number, height, width // times, channels * times).permute(0, 3, 1, 2)


def _narrow(x: Tensor, times: int) -> Tensor:
    number, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).view(number, height, width * times, channels // times).permute(0, 3, 1, 2)


def normalise(
    x: Tensor, scale: Tensor, offset: Tensor, running: tuple[Tensor, Tensor], momentum: float | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the batch normalisation of x, its mean and its 1 / deviation; `running` takes its share of them.

    Without a momentum the statistics are frozen: `running` is what x is normalised by, and stays.
    """
    if momentum is None:
        mean, variance = running
        return normalised(x, mean, variance, scale, offset, eps), mean, (variance + eps).rsqrt()
    times = joined(x)
    if times == 1:
        return torch.native_batch_norm(x, scale, offset, *running, True, momentum, eps)
    wide, count = _wide(x, times), x.numel() // x.shape[1]
    unused = torch.zeros(wide.shape[1], dtype=scale.dtype)  # gives the results their precision
    means, variances = (t.view(times, -1) for t in torch.batch_norm_update_stats(wide, unused, unused.clone(), 0.0))
    mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
    for kept, new in zip(running, (mean, variance * (count / (count - 1))), strict=True):
        kept.lerp_(new, momentum)
    return normalised(x, mean, variance, scale, offset, eps), mean, (variance + eps).rsqrt()


def normalised(
    x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor | None, offset: Tensor | None, eps: float
) -> Tensor:
    """Return (x - mean) / sqrt(variance + eps) * scale + offset."""
    times = joined(x)
    if times == 1:
        return F.batch_norm(x, mean, variance, scale, offset, eps=eps)
    factor, shift = (None if t is None else t.repeat(times) for t in (scale, offset))
    wide = F.batch_norm(_wide(x, times), mean.repeat(times), variance.repeat(times), factor, shift, eps=eps)
    return _narrow(wide, times)


def sums_of(g: Tensor, x: Tensor, mean: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of g * (x - mean) * factor and of g over each channel, in the precision of `mean`."""
    times = min(joined(g), joined(x))
    if times > 1:
        g, x, there = _wide(g, times), _wide(x, times), mean.repeat(times)
    else:
        there = mean
    variance = torch.ones_like(there)
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        g, x, variance, there, variance, None, None, False, 0.0, (False, True, True)
    )
    weighed, plain = (t.view(times, -1).sum(0) if times > 1 else t for t in found[1:])
    return weighed * factor, plain


def gradients(
    g: Tensor, x: Tensor, scale: Tensor, mean: Tensor, deviation: Tensor, eps: float, frozen: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a batch normalisation; that of x in place of g, or beside it.

    `deviation` is what PyTorch calls so: 1 / deviation. Frozen statistics do not depend on x.
    """
    if x[0].numel() <= STRIP and joined(x) < 8:
        running, own = ((mean, deviation**-2 - eps), (None, None)) if frozen else ((None, None), (mean, deviation))
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
            g, x, scale, *running, *own, not frozen, eps, (True, True, True)
        )
        return found
    return norm_backward(g, x, scale, mean, deviation**-2 - eps, eps, frozen=frozen)


def norm_backward(
    g: Tensor,
    x: Tensor,
    scale: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    weighed: Tensor | None = None,
    *,
    frozen: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a batch normalisation, that of x in place of g.

    It is scale / deviation * (g - mean of g - normalised x * mean of (g * normalised x)). Both products are what a
    normalisation computes, which is quicker than to multiply, and rounds once.

    The x of the last term is there because x enters the variance; where it enters weighed, that is `weighed`. If the
    statistics are frozen, only the first term is left.
    """
    to_scale, to_offset = sums_of(g, x, mean, (variance + eps).rsqrt())
    factor, count = scale * (variance + eps).rsqrt(), g.numel() // g.shape[1]
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    share = -factor * to_scale / count, -factor * to_offset / count
    entering = x if weighed is None else weighed
    for top, bottom in strips(g):
        part = g[:, :, top:bottom]
        own = normalised(part, zero, one, factor, None, 0.0)
        if frozen:
            part.copy_(own)
            continue
        torch.add(own, normalised(entering[:, :, top:bottom], mean, variance, *share, eps), out=part)
    return g, to_scale, to_offset
