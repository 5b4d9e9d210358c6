"""What is done between two convolutions on an NVIDIA GPU, by the kernels of `dip.networks.cuda`.

Statistics, normalisation, activation and padding, and their gradients; what autograd is told of them is in
`dip.networks.fused`. A small picture is done by one block in one kernel, which takes less time than to begin two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dip.networks import cuda

__all__ = [
    "NOTHING",
    "Line",
    "Pad",
    "Shares",
    "Statistics",
    "empty",
    "norm_gradients",
    "normalised",
    "ordered",
    "padded",
    "unpadded",
]

Pad = tuple[int, bool]  # how many pixels, and whether by reflection or with zeros
Line = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]  # mean, 1 / deviation, scale, offset
NOTHING: Line = (None, None, None, None)
_FORWARDS, _BACKWARDS = 4, 2  # pixels that a thread has of a picture that one block has all of, at most


def ordered(x: Tensor) -> Tensor:
    """Return x in channels-last order."""
    return x.contiguous(memory_format=torch.channels_last)


def empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Return room for as many pictures in that order, of this size and of the dtype and device of `like`."""
    size = like.shape[0], channels, height, width
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _running(norm: Any, first: int, channels: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the running statistics of some of a layer's channels, and its count if they are the last of them."""
    mean, variance = (t.narrow(0, first, channels) for t in (norm.running_mean, norm.running_var))
    return mean, variance, norm.num_batches_tracked if first + channels == len(norm.running_mean) else None


class Statistics:
    """What a batch normalisation, or the part of it that is for some channels, normalises a picture by.

    Parameters
    ----------
    x : Tensor
        The picture.
    norm : BatchNorm2d
        The layer.
    first : int
        Which of the layer's channels is the picture's first.
    bias : Tensor, optional
        Added to x, though it is not there.
    enlarged : str, optional
        The mode by which x is to be upsampled.
    """

    def __init__(
        self, x: Tensor, norm: Any, first: int = 0, *, bias: Tensor | None = None, enlarged: str | None = None
    ) -> None:
        images, channels, height, width = x.shape
        running = running_mean, running_variance, _ = _running(norm, first, channels)
        if not norm.training:
            # not the layer's own: that may be changed before the backward pass
            self.mean = running_mean.clone() if bias is None else running_mean - bias.detach()
            self.deviation = (running_variance + norm.eps).rsqrt()
            return
        self.mean, self.deviation = running_mean.new_empty(channels), running_mean.new_empty(channels)
        picture = cuda.Picture(x)
        if enlarged is None:
            pixels = images * height * width
            lines = -(-pixels // (4 * picture.threads[1]))
            last: tuple[Any, ...] = pixels, channels, float(norm.eps), float(norm.momentum)
            picture.sum("moments", lines, norm, x, bias, self.mean, self.deviation, *running, last=last)
        else:
            last = images, height, width, channels, enlarged == "bilinear", float(norm.eps), float(norm.momentum)
            picture.sum("moments_enlarged", images * height, norm, x, self.mean, self.deviation, *running, last=last)


def padded(x: Tensor, line: Line, slope: float, pad: Pad) -> Tensor:
    """Return x normalised by (mean, 1 / deviation, scale, offset), or as it is if these are None, and padded."""
    images, channels, height, width = x.shape
    z = empty(x, channels, height + 2 * pad[0], width + 2 * pad[0])
    last = height, width, channels, *pad, slope
    cuda.Picture(x).rows("normalise", images * z.shape[2], x, *line, z, last=last)
    return z


def normalised(
    x: Tensor, bias: Tensor | None, norm: Any, scale: Tensor, offset: Tensor, slope: float, pad: Pad, found: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x + bias normalised, activated and padded, and the mean of x and its 1 / deviation."""
    images, channels, height, width = x.shape
    picture = cuda.Picture(x)
    if found or not norm.training or not picture.is_small(images * height * width, _FORWARDS):
        found = found or Statistics(x, norm, bias=bias)
        return padded(x, (found.mean, found.deviation, scale, offset), slope, pad), found.mean, found.deviation
    running = _running(norm, 0, channels)
    mean, deviation = running[0].new_empty(channels), running[0].new_empty(channels)
    z = empty(x, channels, height + 2 * pad[0], width + 2 * pad[0])
    last = images, height, width, channels, *pad, slope, float(norm.eps), float(norm.momentum)
    picture.alone("normalise_alone", x, bias, mean, deviation, *running, scale, offset, z, *last)
    return z, mean, deviation


class Shares:
    """The gradients of scale, offset and bias, and what the gradient of x needs of the same sums."""

    def __init__(self, x: Tensor) -> None:
        like = x.new_empty(0, dtype=torch.float32)
        self.to_scale, self.to_offset, self.to_bias = (like.new_empty(x.shape[1]) for _ in range(3))
        self.shares = like.new_empty(2 * x.shape[1])


def unpadded(g: Tensor, size: tuple[int, int, int], pad: Pad, skipped: int = 0) -> Tensor:
    """Return the gradient of a picture of a size (C, H, W) that was padded; g may have further channels."""
    to_x = empty(g, *size)
    channels, height, width = size
    last = height, width, channels, g.shape[1], skipped, *pad, 1.0
    given = g, None, *NOTHING, None, to_x
    cuda.Picture(to_x, skipped=skipped).rows("spread", len(g) * height, *given, last=last)
    return to_x


def norm_gradients(
    g: Any,
    x: Tensor,
    line: Line,
    slope: float,
    pad: Pad,
    norm: Any,
    frozen: bool,
) -> tuple[Tensor, Shares]:
    """Return the gradients of what `padded` does with a normalisation."""
    images, channels, height, width = x.shape
    picture, found = cuda.Picture(x), Shares(x)
    size, bent = (height, width, channels), (*pad, slope)
    sums, to_x = (found.to_scale, found.to_offset, found.to_bias, found.shares), torch.empty_like(x)
    if picture.is_small(images * height * width, _BACKWARDS):
        picture.alone("back_alone", g, x, *line, *sums, to_x, images, *size, *bent, frozen)
        return to_x, found
    picture.sum("gather", images * height, norm, g, x, *line, *sums, last=(images, *size, *bent, frozen))
    last = *size, channels, 0, *bent
    picture.rows("spread", images * height, g, x, *line, found.shares, to_x, last=last)
    return to_x, found
