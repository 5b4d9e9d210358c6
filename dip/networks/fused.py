"""Layers of a network computed together on an NVIDIA GPU, by the kernels of `dip.networks.cuda`.

They compute what PyTorch's do one by one. What a GPU needs for them is mostly the time to read and write pictures, so
between two convolutions there are two passes forwards, one for the statistics and one that normalises, activates and
pads (in the decoder, enlarges and concatenates too), and two backwards. A bias before a normalisation is not added: the
normalisation takes it away again, so its gradient is 0, and only the running mean has to know of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.networks import cuda
from dip.networks.following import Following
from dip.networks.normalising import (
    NOTHING,
    Shares,
    Statistics,
    empty,
    norm_gradients,
    normalised,
    ordered,
    padded,
    unpadded,
)
from dip.networks.recorded import Gradients, Prepared, deferrable, part

__all__ = [
    "Backwards",
    "conv",
    "conv_enlarged",
    "finish",
    "is_narrow",
    "norm_act",
    "norm_conv",
    "norm_first",
]

Backwards = tuple[Tensor | None, ...]


def norm_act(x: Tensor, bias: Tensor | None, norm: Any, slope: float, found: Following | None = None) -> Tensor:
    """Return the activated batch normalisation of x + bias.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W), one that `dip.networks.cuda.ready` takes.
    bias : Tensor or None
        (C,).
    norm : BatchNorm2d
        With its statistics of x, or frozen.
    slope : float
        Of the activation below 0.
    found : Following, optional
        The statistics, where what has made x has found them.
    """
    y: Tensor = _NormAct.apply(ordered(x), bias, norm.weight, norm.bias, norm, float(slope), found)
    return y


def norm_conv(
    x: Tensor,
    bias: Tensor | None,
    norm: Any,
    slope: float,
    layer: Any,
    weights: Prepared,
    found: Following | None = None,
) -> Tensor:
    """Return the convolution, without its own bias, of what `norm_act` returns, padded as the layer says."""
    narrow = is_narrow(layer, x.dtype)
    weight, function = (layer.weight, _Narrow) if narrow else (weights.get(layer, layer.weight), _NormConv)
    y: Tensor = function.apply(ordered(x), bias, norm.weight, norm.bias, weight, norm, float(slope), layer, found)
    return y


def conv(x: Tensor, layer: Any, weights: Prepared) -> Tensor:
    """Return the convolution of x without the layer's bias."""
    x = ordered(x)
    y: Tensor
    if is_narrow(layer, x.dtype):
        y = _Narrow.apply(x, None, None, None, layer.weight, None, 1.0, layer, None)
    else:
        y = _Conv.apply(x, weights.get(layer, layer.weight), layer)
    return y


def conv_enlarged(x: Tensor, branch: Tensor | None, mode: str, norm: Any, layer: Any, weights: Prepared) -> Tensor:
    """Return the convolution, without its bias, of ``cat([branch, norm(upsample(x, mode))])``; see `conv_upsampled`.

    The branch comes normalised, from `norm_first`; `norm` is the layer for both.
    """
    weight, later = layer.weight, deferrable(layer.weight, weights)
    branch = None if branch is None else ordered(branch)
    scale, offset = part(norm, len(norm.weight) - x.shape[1], weights)[1]
    y: Tensor = _ConvEnlarged.apply(ordered(x), branch, scale, offset, weight, norm, layer, mode, later)
    return y


def norm_first(x: Tensor, norm: Any, scale: Tensor, offset: Tensor) -> Tensor:
    """Return the batch normalisation of x by the first of a layer's channels, whose scale and offset these are."""
    y: Tensor = _NormAct.apply(ordered(x), None, scale, offset, norm, 1.0, None)
    return y


def finish(x: Tensor, bias: Tensor | None, sigmoid: bool, layer: Any) -> Tensor:
    """Return x + bias in float32 and the usual order, or the sigmoid of that; the layer is the one with the bias."""
    y: Tensor = _Finish.apply(ordered(x), bias, sigmoid, layer)
    return y


def is_narrow(layer: Any, dtype: torch.dtype) -> bool:
    """Tell whether a convolution is one of single pixels to a few channels, for which there are kernels."""
    across = layer.in_channels // cuda.channels_a_thread(layer.in_channels, dtype)
    few = layer.out_channels <= 4 and layer.kernel_size == (1, 1) and layer.stride == (1, 1)
    return few and across <= 32 and across & (across - 1) == 0


def _is_cast(dtype: torch.dtype) -> bool:
    """Tell whether weights that a function was given are those of `_Cast`."""
    return dtype != torch.float32


def _as(gradient: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if gradient is None else gradient.to(dtype)


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, scale: Tensor, offset: Tensor, norm: Any, slope: float, found: Any
    ) -> Tensor:
        z, mean, deviation = normalised(x, bias, norm, scale, offset, slope, (0, False), found)
        ctx.save_for_backward(x, scale, offset, mean, deviation)
        ctx.norm, ctx.slope, ctx.frozen = norm, slope, not norm.training
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Backwards:
        x, scale, offset, mean, deviation = ctx.saved_tensors
        line = mean, deviation, scale, offset
        to_x, found = norm_gradients(ordered(gradients[0]), x, line, ctx.slope, (0, False), ctx.norm, ctx.frozen)
        to_bias = found.to_bias if ctx.needs_input_grad[1] else None
        return to_x, to_bias, found.to_scale, found.to_offset, None, None, None


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
    ) -> Tensor:
        ctx.norm, ctx.slope, ctx.frozen = norm, slope, not norm.training
        ctx.stride, ctx.pad = layer.stride[0], (layer.pad, layer.reflect)
        z, mean, deviation = normalised(x, bias, norm, scale, offset, slope, ctx.pad, found)
        ctx.dtype, weight = weight.dtype, weight.to(x.dtype)
        ctx.save_for_backward(x, scale, offset, mean, deviation, weight, z)
        return F.conv2d(z, weight, None, ctx.stride)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Backwards:
        x, scale, offset, mean, deviation, weight, z = ctx.saved_tensors
        wanted = True, ctx.needs_input_grad[4]
        of_conv = Gradients(gradients[0], z, weight, ctx.stride, wanted, _is_cast(ctx.dtype))
        line = mean, deviation, scale, offset
        to_x, found = norm_gradients(of_conv.to_input, x, line, ctx.slope, ctx.pad, ctx.norm, ctx.frozen)
        to_bias = found.to_bias if ctx.needs_input_grad[1] else None
        to_weight = _as(of_conv.to_weight, ctx.dtype)
        return to_x, to_bias, found.to_scale, found.to_offset, to_weight, None, None, None, None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: Any) -> Tensor:
        ctx.stride, ctx.pad = layer.stride[0], (layer.pad, layer.reflect)
        z = padded(x, NOTHING, 1.0, ctx.pad) if layer.pad else x
        own = weight.to(x.dtype)
        ctx.save_for_backward(z, own)
        ctx.shape, ctx.dtype = x.shape[1:], weight.dtype
        return F.conv2d(z, own, None, ctx.stride)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Backwards:
        z, weight = ctx.saved_tensors
        later = _is_cast(ctx.dtype)
        of_conv = Gradients(gradients[0], z, weight, ctx.stride, ctx.needs_input_grad[:2], later)
        to_x = of_conv.to_input
        if to_x is not None and ctx.pad[0]:
            to_x = unpadded(to_x, ctx.shape, ctx.pad)
        return to_x, _as(of_conv.to_weight, ctx.dtype), None


class _ConvEnlarged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        branch: Tensor | None,
        scale: Tensor,
        offset: Tensor,
        weight: Tensor,
        norm: Any,
        layer: Any,
        mode: str,
        later: bool,
    ) -> Tensor:
        images, channels, height, width = x.shape
        few = 0 if branch is None else branch.shape[1]
        every = -(-(few + channels) // 8) * 8  # that many suit the convolution
        pad = layer.pad, layer.reflect
        found = Statistics(x, norm, few, enlarged=mode)
        line = found.mean, found.deviation, scale, offset
        z = empty(x, every, 2 * (height + pad[0]), 2 * (width + pad[0]))
        size = height, width, channels, few, every, *pad, mode == "bilinear"
        cuda.Picture(x, every).launch("enlarge", images * z.shape[2], x, *line, branch, z, *size)
        weight = ordered(weight)
        own = empty(weight.new_empty(len(weight), dtype=x.dtype), every, *weight.shape[2:])
        ctx.lines = len(weight) * weight.shape[2] * weight.shape[3]
        cuda.Picture(x).launch("arrange", ctx.lines, weight, own, few, channels, every)
        ctx.norm, ctx.frozen, ctx.pad, ctx.few, ctx.mode, ctx.later = norm, not norm.training, pad, few, mode, later
        ctx.save_for_backward(x, own, z, *line[:3])
        return F.conv2d(z, own)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Backwards:
        x, weight, z, mean, deviation, scale = ctx.saved_tensors
        images, channels, height, width = x.shape
        every, picture = z.shape[1], cuda.Picture(x)

        def finish(arranged: Tensor) -> Tensor:
            arranged = ordered(arranged)
            made = empty(weight.new_empty(len(weight), dtype=torch.float32), ctx.few + channels, *weight.shape[2:])
            picture.launch("arrange_back", ctx.lines, arranged, made, ctx.few, channels, every)
            return made

        of_conv = Gradients(gradients[0], z, weight, 1, (True, ctx.needs_input_grad[4]), ctx.later, finish)
        to_z: Any = of_conv.to_input
        to_branch = None
        if ctx.needs_input_grad[1]:
            to_branch = unpadded(to_z, (ctx.few, 2 * height, 2 * width), ctx.pad, channels)
        found, to_x, bilinear = Shares(x), torch.empty_like(x), ctx.mode == "bilinear"
        sums = found.to_scale, found.to_offset, found.shares
        picture.sum(
            *("gather_enlarged", images * height, ctx.norm),
            *(to_z, x, mean, deviation, scale, to_x, *sums),
            last=(images, height, width, channels, every, *ctx.pad, bilinear, ctx.frozen),
        )
        given, last = (to_x, x, mean, deviation, scale, found.shares), (height, width, channels, bilinear)
        picture.rows("spread_enlarged", images * height, *given, last=last)
        return to_x, to_branch, found.to_scale, found.to_offset, of_conv.to_weight, None, None, None, None


class _Narrow(torch.autograd.Function):
    """A convolution of single pixels to a few channels, after a normalisation and an activation or by itself."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        scale: Tensor | None,
        offset: Tensor | None,
        weight: Tensor,
        norm: Any,
        slope: float,
        layer: Any,
        found: Any,
    ) -> Tensor:
        ctx.norm, ctx.slope, ctx.layer, ctx.frozen = norm, slope, layer, norm is not None and not norm.training
        line = NOTHING
        if norm is not None:
            found = found or Statistics(x, norm, bias=bias)
            line = found.mean, found.deviation, scale, offset
        ctx.save_for_backward(x, weight, *line)
        images, channels, height, width = x.shape
        y, pixels = empty(x, len(weight), height, width), images * height * width
        cuda.Picture(x).pixels("narrow", pixels, x, *line, weight, y, pixels, channels, len(weight), slope)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Backwards:
        x, weight, *line = ctx.saved_tensors
        channels, pixels = x.shape[1], x.numel() // x.shape[1]
        picture = cuda.Picture(x)
        g, found, to_weight = ordered(gradients[0]), Shares(x), torch.empty_like(weight)
        size = pixels, channels, len(weight), ctx.slope
        sums = found.to_scale, found.to_offset, found.to_bias, found.shares
        lines = -(-pixels // (4 * picture.threads[1]))
        given = g, x, *line, weight, to_weight, *sums
        picture.sum("gather_narrow", lines, ctx.layer, *given, last=(*size, ctx.frozen), sums=2 * len(weight))
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = torch.empty_like(x)
            picture.pixels("spread_narrow", pixels, g, x, *line, weight, found.shares, to_x, *size)
        if ctx.norm is None:
            return to_x, None, None, None, to_weight, None, None, None, None
        to_bias = found.to_bias if ctx.needs_input_grad[1] else None
        return to_x, to_bias, found.to_scale, found.to_offset, to_weight, None, None, None, None


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, sigmoid: bool, layer: Any) -> Tensor:
        y = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        area = x.shape[2] * x.shape[3]
        ctx.size, ctx.like, ctx.layer = (len(x) * area, area, x.shape[1], sigmoid), x.new_empty(0), layer
        cuda.Picture(x).pixels("finish", ctx.size[0], x, bias, y, *ctx.size)
        ctx.save_for_backward(*[y] * sigmoid)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Backwards:
        g = gradients[0].contiguous()
        y = ctx.saved_tensors[0] if ctx.saved_tensors else None
        to_x = empty(ctx.like.new_empty(len(g)), *g.shape[1:])
        to_bias, picture = g.new_empty(g.shape[1]), cuda.Picture(to_x)
        lines = -(-ctx.size[0] // (4 * picture.threads[1]))
        picture.sum("finish_back", lines, ctx.layer, g, y, to_x, to_bias, last=ctx.size)
        return to_x, to_bias if ctx.needs_input_grad[1] else None, None, None
