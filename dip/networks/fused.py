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

__all__ = ["conv", "conv_enlarged", "norm_act", "norm_conv"]

Pad = tuple[int, bool]  # how many pixels, and whether by reflection or with zeros
Gradients = tuple[Tensor | None, ...]


def norm_act(x: Tensor, bias: Tensor | None, norm: Any, slope: float) -> Tensor:
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
    """
    y: Tensor = _NormAct.apply(_ordered(x), bias, norm.weight, norm.bias, norm, slope)
    return y


def norm_conv(x: Tensor, bias: Tensor | None, norm: Any, slope: float, layer: Any) -> Tensor:
    """Return the convolution, without its own bias, of what `norm_act` returns, padded as the layer says."""
    y: Tensor = _NormConv.apply(_ordered(x), bias, norm.weight, norm.bias, layer.weight, norm, slope, layer)
    return y


def conv(x: Tensor, layer: Any) -> Tensor:
    """Return the convolution of x without the layer's bias."""
    y: Tensor = _Conv.apply(_ordered(x), layer.weight, layer)
    return y


def conv_enlarged(x: Tensor, branch: Tensor | None, mode: str, norm: Any, layer: Any) -> Tensor:
    """Return the convolution, without its bias, of ``norm(cat([branch, upsample(x, mode)]))``; see `conv_upsampled`."""
    branch = None if branch is None else _ordered(branch)
    y: Tensor = _ConvEnlarged.apply(_ordered(x), branch, norm.weight, norm.bias, layer.weight, norm, layer, mode)
    return y


def _ordered(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    size = like.shape[0], channels, height, width
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class _Statistics:
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
        running_mean, running_variance = (
            t.narrow(0, first, channels) for t in (norm.running_mean, norm.running_var)
        )
        if not norm.training:
            # not the layer's own: that may be changed before the backward pass
            self.mean = running_mean.clone() if bias is None else running_mean - bias.detach()
            self.deviation = (running_variance + norm.eps).rsqrt()
            return
        self.mean, self.deviation = running_mean.new_empty(channels), running_mean.new_empty(channels)
        seen = norm.num_batches_tracked if first + channels == len(norm.running_mean) else None
        running = running_mean, running_variance, seen
        picture = cuda.Picture(x)
        if enlarged is None:
            pixels = images * height * width
            lines = -(-pixels // (4 * picture.threads[1]))
            given = (x, bias, self.mean, self.deviation, *running)
            picture.sum("moments", lines, norm, *given, last=(pixels, channels, norm.eps, norm.momentum))
        else:
            size = images, height, width, channels, enlarged == "bilinear", norm.eps, norm.momentum
            given = (x, self.mean, self.deviation, *running)
            picture.sum("moments_enlarged", images * height, norm, *given, last=size)


def _normalised(x: Tensor, line: tuple[Tensor | None, ...], slope: float, pad: Pad) -> Tensor:
    """Return x normalised by (mean, 1 / deviation, scale, offset), or as it is if these are None, and padded."""
    images, channels, height, width = x.shape
    z = _empty(x, channels, height + 2 * pad[0], width + 2 * pad[0])
    cuda.Picture(x).launch("normalise", images * z.shape[2], x, *line, z, height, width, channels, *pad, slope)
    return z


class _Shares:
    """The gradients of scale, offset and bias, and what the gradient of x needs of the same sums."""

    def __init__(self, x: Tensor) -> None:
        like = x.new_empty(0, dtype=torch.float32)
        self.to_scale, self.to_offset, self.to_bias = (like.new_empty(x.shape[1]) for _ in range(3))
        self.shares = like.new_empty(2 * x.shape[1])


def _back(
    g: Tensor,
    x: Tensor,
    line: tuple[Tensor | None, ...],
    slope: float,
    pad: Pad,
    norm: Any,
    frozen: bool,
    skipped: int = 0,
) -> tuple[Tensor, _Shares]:
    """Return the gradients of what `_normalised` does; g may have further channels, `skipped` before those of x."""
    images, channels, height, width = x.shape
    picture, found = cuda.Picture(x, skipped=skipped), _Shares(x)
    size = height, width, channels, g.shape[1], skipped, *pad, slope
    if norm is not None:
        sums = found.to_scale, found.to_offset, found.to_bias, found.shares
        picture.sum("gather", images * height, norm, g, x, *line, *sums, last=(images, *size, frozen))
    to_x = torch.empty_like(x)
    picture.launch("spread", images * height, g, x, *line, found.shares, to_x, *size)
    return to_x, found


def _gradients(g: Tensor, z: Tensor, weight: Tensor, stride: int, wanted: tuple[bool, bool]) -> tuple[Any, Any]:
    """Return PyTorch's gradients of a convolution's input and weights."""
    to_z, to_weight, _ = torch.ops.aten.convolution_backward(
        _ordered(g), z, weight, None, [stride] * 2, [0, 0], [1, 1], False, [0, 0], 1, (*wanted, False)
    )
    return (None if to_z is None else _ordered(to_z)), to_weight


_NOTHING = (None,) * 4


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, scale: Tensor, offset: Tensor, norm: Any, slope: float
    ) -> Tensor:
        found = _Statistics(x, norm, bias=bias)
        ctx.save_for_backward(x, scale, offset, found.mean, found.deviation)
        ctx.norm, ctx.slope, ctx.frozen = norm, slope, not norm.training
        return _normalised(x, (found.mean, found.deviation, scale, offset), slope, (0, False))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        x, scale, offset, mean, deviation = ctx.saved_tensors
        line = mean, deviation, scale, offset
        to_x, found = _back(_ordered(gradients[0]), x, line, ctx.slope, (0, False), ctx.norm, ctx.frozen)
        return to_x, found.to_bias if ctx.needs_input_grad[1] else None, found.to_scale, found.to_offset, None, None


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
    ) -> Tensor:
        found = _Statistics(x, norm, bias=bias)
        ctx.norm, ctx.slope, ctx.frozen = norm, slope, not norm.training
        ctx.stride, ctx.pad = layer.stride[0], (layer.pad, layer.reflect)
        z = _normalised(x, (found.mean, found.deviation, scale, offset), slope, ctx.pad)
        weight = weight.to(x.dtype)
        ctx.save_for_backward(x, scale, offset, found.mean, found.deviation, weight, z)
        return F.conv2d(z, weight, None, ctx.stride)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        x, scale, offset, mean, deviation, weight, z = ctx.saved_tensors
        to_z, to_weight = _gradients(gradients[0], z, weight, ctx.stride, (True, ctx.needs_input_grad[4]))
        line = mean, deviation, scale, offset
        to_x, found = _back(to_z, x, line, ctx.slope, ctx.pad, ctx.norm, ctx.frozen)
        to_weight = None if to_weight is None else to_weight.to(scale.dtype)
        to_bias = found.to_bias if ctx.needs_input_grad[1] else None
        return to_x, to_bias, found.to_scale, found.to_offset, to_weight, None, None, None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: Any) -> Tensor:
        ctx.stride, ctx.pad = layer.stride[0], (layer.pad, layer.reflect)
        z = _normalised(x, _NOTHING, 1.0, ctx.pad) if layer.pad else x
        own = weight.to(x.dtype)
        ctx.save_for_backward(z, own)
        ctx.shape, ctx.dtype = x.shape[1:], weight.dtype
        return F.conv2d(z, own, None, ctx.stride)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        z, weight = ctx.saved_tensors
        to_x, to_weight = _gradients(gradients[0], z, weight, ctx.stride, ctx.needs_input_grad[:2])
        if to_x is not None and ctx.pad[0]:
            like = _empty(to_x, *ctx.shape)  # of x the kernel takes no values
            to_x, _ = _back(to_x, like, _NOTHING, 1.0, ctx.pad, None, True)
        return to_x, None if to_weight is None else to_weight.to(ctx.dtype), None


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
    ) -> Tensor:
        images, channels, height, width = x.shape
        few = 0 if branch is None else branch.shape[1]
        every = -(-(few + channels) // 8) * 8  # that many suit the convolution
        pad = layer.pad, layer.reflect
        found = _Statistics(x, norm, few, enlarged=mode)
        line = found.mean, found.deviation, scale[few:], offset[few:]
        its_line: tuple[Tensor | None, ...] = _NOTHING
        if branch is not None:
            its = _Statistics(branch, norm)
            its_line = its.mean, its.deviation, scale[:few], offset[:few]
        z = _empty(x, every, 2 * (height + pad[0]), 2 * (width + pad[0]))
        size = height, width, channels, few, every, *pad, mode == "bilinear"
        cuda.Picture(x, every).launch("enlarge", images * z.shape[2], x, *line, branch, *its_line, z, *size)
        zeros = weight.new_zeros((len(weight), every - few - channels, *weight.shape[2:]))
        own = torch.cat([weight[:, few:], weight[:, :few], zeros], dim=1)
        own = own.to(x.dtype, memory_format=torch.channels_last)
        ctx.norm, ctx.frozen, ctx.pad, ctx.few, ctx.mode = norm, not norm.training, pad, few, mode
        ctx.save_for_backward(x, branch, own, z, *line, *its_line)
        return F.conv2d(z, own)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        x, branch, weight, z, *lines = ctx.saved_tensors
        line, its_line, few = lines[:4], tuple(lines[4:]), ctx.few
        mean, deviation, scale, _ = line
        images, channels, height, width = x.shape
        to_z, to_weight = _gradients(gradients[0], z, weight, 1, (True, ctx.needs_input_grad[4]))
        picture, found, to_x = cuda.Picture(x), _Shares(x), torch.empty_like(x)
        sums = found.to_scale, found.to_offset, found.shares
        bilinear = ctx.mode == "bilinear"
        size = images, height, width, channels, to_z.shape[1], *ctx.pad, bilinear, ctx.frozen
        picture.sum(
            *("gather_enlarged", images * height, ctx.norm),
            *(to_z, x, mean, deviation, scale, to_x, *sums),
            last=size,
        )
        given = to_x, x, mean, deviation, scale, found.shares
        picture.launch("spread_enlarged", images * height, *given, height, width, channels, bilinear)
        to_branch, to_scale, to_offset = None, found.to_scale, found.to_offset
        if branch is not None:
            to_branch, its = _back(to_z, branch, its_line, 1.0, ctx.pad, ctx.norm, ctx.frozen, channels)
            to_scale = torch.cat([its.to_scale, found.to_scale])
            to_offset = torch.cat([its.to_offset, found.to_offset])
        if to_weight is not None:
            parts = to_weight[:, channels : channels + few], to_weight[:, :channels]
            to_weight = torch.cat(parts, dim=1).to(scale.dtype)
        return to_x, to_branch, to_scale, to_offset, to_weight, None, None, None
