"""A convolution of single pixels on an NVIDIA GPU, with the normalisation and activation before it.

There is little to compute for each pixel, so what it takes is the time to read and write pictures. The kernels read one
and write one: what the convolution sees is made of x where it is needed, forwards and backwards, and never stored. They
multiply on the tensor cores, in bfloat16, and take the weights as they are, in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dip import devices
from dip.networks import cuda
from dip.networks.following import Following
from dip.networks.fused import Backwards
from dip.networks.normalising import Shares, Statistics, empty, ordered

__all__ = ["norm_conv", "worthwhile"]

# The least pixels for which it is worthwhile (blocks begin with all the weights), of all fits that a kernel is begun
# for; and the channels there are kernels for.
_PIXELS, _CHANNELS = 2**14, (64, 128)
_FORWARDS, _BACKWARDS = 128, 64  # pixels that a block has at a time
_SUMMED = 128  # weights whose gradient a block adds up


def worthwhile(layer: Any, dtype: torch.dtype, pixels: int, device: torch.device) -> bool:
    """Tell whether `norm_conv` takes a layer and a picture of so many pixels, and is likely to be the faster one."""
    if layer.kernel_size != (1, 1) or layer.stride != (1, 1) or layer.in_channels != layer.out_channels:
        return False
    known = layer.in_channels in _CHANNELS and dtype == torch.bfloat16
    aligned = layer.weight.data_ptr() % 16 == 0  # so many bytes are read at once
    return known and aligned and pixels * devices.begun_at_once(device) >= _PIXELS and cuda.multiplies(device)


def norm_conv(
    x: Tensor,
    bias: Tensor | None,
    norm: Any,
    slope: float,
    layer: Any,
    found: Following | None = None,
    following: Following | None = None,
) -> Tensor:
    """Return what `fused.norm_conv` does; what normalises it next is told the statistics."""
    given = norm.weight, norm.bias, ordered(layer.weight), norm, float(slope), layer
    y: Tensor = _NormConv.apply(ordered(x), bias, *given, found, following)
    return y


def _picture(x: Tensor) -> cuda.Picture:
    picture = cuda.Picture(x)
    picture.threads = 32, 8  # whatever the channels
    return picture


def _shared(channels: int, rows: int, more: int) -> int:
    """Return the bytes of so many rows of channels, each some longer, and of three values of each channel."""
    return 2 * rows * (channels + more) + 4 * 3 * channels


class _NormConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        scale: Tensor,
        offset: Tensor,
        weight: Tensor,
        norm: Any,
        slope: float,
        layer: Any,
        found: Any,
        following: Following | None,
    ) -> Tensor:
        ctx.norm, ctx.slope, ctx.layer, ctx.frozen = norm, slope, layer, not norm.training
        found = found or Statistics(x, norm, bias=bias)
        line = found.mean, found.deviation, scale, offset
        ctx.save_for_backward(x, weight, *line)
        channels, pixels = x.shape[1], x.numel() // x.shape[1]
        y, shared = empty(x, *x.shape[1:]), _shared(channels, channels, 32)
        sought, shares = following.sought() if following is not None else Following.NOTHING
        _picture(x).sum(
            *(f"pointwise_{channels}", -(-pixels // _FORWARDS), layer),
            *(x, *line, weight, y, *sought),
            last=(pixels, slope, *shares),
            shared=shared,
        )
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Backwards:
        x, weight, *line = ctx.saved_tensors
        g, back, found = ordered(gradients[0]), torch.empty_like(x), Shares(x)
        images, channels, height, width = x.shape
        pixels, picture = images * height * width, _picture(x)
        sums = found.to_scale, found.to_offset, found.to_bias, found.shares
        blocks, left = picture.sum(
            *(f"pointwise_back_{channels}", -(-pixels // _BACKWARDS), ctx.layer),
            *(g, x, *line, weight, back, *sums),
            last=(pixels, ctx.slope, ctx.frozen),
            sums=2 + channels,
            shared=_shared(channels, channels + 2 * _BACKWARDS, 8),
        )
        to_weight = torch.empty_like(weight) if ctx.needs_input_grad[4] else None
        if to_weight is not None and left is not None:
            of_weight = left[2 * blocks * channels :]
            picture.launch("pointwise_sum", channels**2 // _SUMMED, of_weight, to_weight, blocks)
        # in place of what is there: each value of the gradient takes its own only
        last = height, width, channels, channels, 0, 0, False, 1.0
        cuda.Picture(x).rows("spread", images * height, back, x, *line, found.shares, back, last=last)
        to_bias = found.to_bias if ctx.needs_input_grad[1] else None
        return back, to_bias, found.to_scale, found.to_offset, to_weight, None, None, None, None, None
