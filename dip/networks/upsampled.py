r"""Upsampling, concatenation, normalisation and convolution as one, computed on the small picture.

From the decoder's upsampling to the convolution after it everything is linear, once the statistics of the normalisation
are known, so it can be done in another order. Twofold upsampling is U = H Z: zeros between the pixels, then a filter H
of each channel with the taps h = (1, 3, 3, 1) / 4 (bilinear) or (1, 1) (nearest). A filter that is the same for every
channel may as well come after the convolution K:

.. math:: K U x = K H Z x = H (K Z) x ,

and K Z is the transposed convolution of stride 2: a quarter of the products of K U, in the forward pass, for the
gradient of x and for that of the weights. The normalisation comes before U. Its mean is that of x, since U gives every
pixel the same weight in all; its variance is that of x with the neighbours weighed in, the covariance of x and
(U^T U / 4) x, where U^T U / 4 is (3, 10, 3) / 16 along rows and columns. So no upsampled, concatenated, normalised or
padded picture is ever made.

What sees the border, where padding and interpolation are no such filters, is computed in the plain order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.networks.layers import (
    MODE,
    TAPS,
    WeightGradient,
    apply,
    as_one,
    filter_of,
    gradients_of,
    norm_backward,
    strips,
    sums_of,
    trained_on_cpu,
    upsample,
)

__all__ = ["conv_upsampled"]

# Below these the border and the calls cost more than is saved: pixels of a side of the large picture, and its pixels
# times input and output channels of the convolution (measured on two cores).
_SMALLEST, _LEAST = 64, 2**24
_STRIP = 4096  # pixels of the small picture in a strip for the gradient of the weights


def conv_upsampled(x: Tensor, branch: Tensor | None, mode: str, norm: Any, conv: Any) -> Tensor:
    """Return ``conv(norm(cat([branch, upsample(x, mode)])))``.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    branch : Tensor or None
        (N, S, 2H, 2W), what joins the upsampled picture.
    mode : {"bilinear", "nearest"}
        The upsampling.
    norm : BatchNorm2d
        Of S + C channels.
    conv : Conv2d
        Of stride 1.
    """
    if not (trained_on_cpu(x) and as_one(norm, conv) and _worthwhile(x, conv)):
        x = upsample(x, mode)
        x = x if branch is None else torch.cat([branch, x], dim=1)
        return apply([norm, conv], x)
    first = 0 if branch is None else branch.shape[1]
    kept = [norm.running_mean.clone(), norm.running_var.clone()]  # autograd must not see those of the layer change
    with torch.no_grad():
        mean, variance, count = _moments(x.detach(), mode)
        for running, new in zip(kept, (mean, variance * (count / (count - 1))), strict=True):
            running[first:].lerp_(new, norm.momentum)
    if branch is not None:
        mean_there, variance_there, scale, offset = (t[:first] for t in (*kept, norm.weight, norm.bias))
        branch = F.batch_norm(branch, mean_there, variance_there, scale, offset, True, norm.momentum, norm.eps)
    norm.running_mean.copy_(kept[0])
    norm.running_var.copy_(kept[1])
    norm.num_batches_tracked.add_(1)
    fitted = norm.weight[first:], norm.bias[first:], *conv.cast(x.dtype)
    y: Tensor = _ConvUpsampled.apply(x, branch, *fitted, mean, variance, norm.eps, mode, conv.reflect)
    return y


def _worthwhile(x: Tensor, conv: Any) -> bool:
    products = 4 * x.numel() * conv.weight.shape[0]
    return products >= _LEAST and 2 * min(x.shape[2:]) >= max(_SMALLEST, 4 * conv.pad + 4)


def _moments(x: Tensor, mode: str) -> tuple[Tensor, Tensor, int]:
    """Return mean and variance of each channel of the upsampled picture, and how many pixels it has."""
    count = x.numel() // x.shape[1]
    zero = torch.zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    mean = sums_of(x, x, zero, zero + 1)[1] / count
    return mean, sums_of(_weighed(x, mode), x, mean, zero + 1)[0] / count, 4 * count


class _ConvUpsampled(torch.autograd.Function):
    """Normalisation and upsampling of x, concatenation after a (normalised) branch, and convolution."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        branch: Tensor | None,
        scale: Tensor,
        offset: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        mode: str,
        reflect: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, branch, scale, offset, weight, bias, mean, variance)
        ctx.eps, ctx.mode, ctx.reflect = eps, mode, reflect
        z = F.batch_norm(x, mean, variance, scale, offset, eps=eps)
        return _forward(z, branch, weight, bias, mode, reflect)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        x, branch, scale, offset, weight, bias, mean, variance = ctx.saved_tensors
        z = F.batch_norm(x, mean, variance, scale, offset, eps=ctx.eps)
        to_z, to_branch, to_weight, to_bias = _backward(g, z, branch, weight, bias, ctx.mode, ctx.reflect)
        to_x, to_scale, to_offset = norm_backward(
            to_z, x, scale, mean, variance, ctx.eps, weighed=_weighed(x, ctx.mode)
        )
        return to_x, to_branch, to_scale, to_offset, to_weight, to_bias, None, None, None, None, None


def _weighed(x: Tensor, mode: str) -> Tensor:
    """Return (U^T U / 4) x: what each pixel of x weighs in the sum of squares of the upsampled picture."""
    if mode == "nearest":
        return x
    kernel = filter_of((3 / 16, 10 / 16, 3 / 16), x)
    return F.conv2d(F.pad(x, (1,) * 4, mode="replicate"), kernel, groups=x.shape[1])


def _transposed(weight: Tensor, channels: int) -> Tensor:
    """Return the weights for the last channels, as those of the convolution whose transpose is K Z."""
    return weight[:, -channels:].flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _forward(z: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, mode: str, reflect: bool) -> Tensor:
    """Return the convolution of the concatenation of branch and upsampled z."""
    pad, taps = weight.shape[-1] // 2, TAPS[mode]
    spread = F.conv_transpose2d(z, _transposed(weight, z.shape[1]), stride=2)
    beyond = len(taps) // 2 - pad
    if beyond < 0:
        spread = spread[:, :, -beyond:beyond, -beyond:beyond]
    y = F.conv2d(spread, filter_of(taps, spread), bias, padding=max(beyond, 0), groups=spread.shape[1])
    del spread
    if branch is not None:
        own = weight[:, : branch.shape[1]].contiguous(memory_format=torch.channels_last)
        y += F.conv2d(branch, own, padding=pad)
    for part in _border(y, pad, mode):
        beside = None if branch is None else branch[part.large]
        y[part.outputs] = _plain(part, z[part.small], weight, beside, bias, mode, reflect)
    return y


def _backward(
    g: Tensor, z: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, mode: str, reflect: bool
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Return the gradients of z, branch, weight and bias."""
    kernel, first, taps = weight.shape[-1], weight.shape[1] - z.shape[1], TAPS[mode]
    pad = kernel // 2
    to_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    to_bias, to_branch = to_weight.new_zeros(weight.shape[0]), None
    inside = g.clone(memory_format=torch.channels_last)
    border = list(_border(g, pad, mode))
    for part in border:
        inside[part.outputs] = 0
    if branch is not None:
        own = weight[:, :first].contiguous(memory_format=torch.channels_last)
        to_branch = gradients_of(inside, branch, own, 1, (pad, pad), (True, False, False))[0]
        total = WeightGradient(own, 1, (True, bias is not None))
        for top, bottom in strips(inside[:, :, pad : g.shape[2] - pad]):  # there is nothing outside
            seen = branch[:, :, top : bottom + 2 * pad]
            rows = inside[:, :, top + pad : bottom + pad]
            total.add(rows, seen, columns=pad)
        to_weight[:, :first] += total.to_weight
        to_bias += total.to_bias
    elif bias is not None:
        to_bias += sums_of(inside, inside, to_bias, to_bias + 1)[1]
    spread = F.conv2d(inside, filter_of(taps, inside), padding=len(taps) // 2 - 1 + pad, groups=g.shape[1])
    del inside
    transposed = _transposed(weight, z.shape[1])
    to_z = F.conv2d(spread, transposed, stride=2)
    total = WeightGradient(transposed, 2, (True, False))
    for top, bottom in strips(z, _STRIP):
        seen = spread[:, :, 2 * top : 2 * (bottom - 1) + kernel]
        total.add(z[:, :, top:bottom], seen)
    to_weight[:, first:] += total.to_weight.transpose(0, 1).flip(2, 3)
    for part in border:
        given = (z[part.small], weight, None if branch is None else branch[part.large], bias)
        leaves = [None if t is None else t.detach().requires_grad_() for t in given]
        with torch.enable_grad():
            outputs = _plain(part, *leaves, mode, reflect)  # type: ignore[arg-type, call-arg]
        wanted = [t for t in leaves if t is not None]
        gradients = iter(torch.autograd.grad(outputs, wanted, g[part.outputs]))
        to_z[part.small] += next(gradients)
        to_weight += next(gradients)
        if to_branch is not None:
            to_branch[part.large] += next(gradients)
        if bias is not None:
            to_bias += next(gradients)
    return to_z, to_branch, to_weight.to(weight.dtype), None if bias is None else to_bias.to(bias.dtype)


_Place = tuple[Any, ...]  # in (N, C, H, W): ..., rows, columns


class _Part(NamedTuple):
    """A rectangle of outputs at the border, and where in the pictures, large and small, is what it sees."""

    outputs: _Place
    large: _Place
    small: _Place
    cut: _Place  # the large one's place in the upsampled small one
    padding: tuple[int, ...]


def _border(y: Tensor, pad: int, mode: str) -> Iterator[_Part]:
    """Yield the outputs that see the padding, or a pixel that is interpolated from beyond the border."""
    height, width = y.shape[2:]
    ring = pad + (mode == "bilinear")
    if not ring:
        return
    for rows in (slice(0, ring), slice(height - ring, height)):
        yield _part(rows, slice(0, width), (height, width), pad)
    for columns in (slice(0, ring), slice(width - ring, width)):
        yield _part(slice(ring, height - ring), columns, (height, width), pad)


def _part(rows: slice, columns: slice, size: tuple[int, int], pad: int) -> _Part:
    large, small, cut, padding = [], [], [], []
    for outputs, extent in ((rows, size[0]), (columns, size[1])):
        seen = slice(max(outputs.start - pad, 0), min(outputs.stop + pad, extent))
        source = slice(max(seen.start - 1, 0) // 2, min(seen.stop // 2 + 1, extent // 2))
        large.append(seen)
        small.append(source)
        cut.append(slice(seen.start - 2 * source.start, seen.stop - 2 * source.start))
        padding.append((seen.start - outputs.start + pad, outputs.stop + pad - seen.stop))
    return _Part(
        (..., rows, columns),
        (..., *large),
        (..., *small),
        (..., *cut),
        (*padding[1], *padding[0]),  # in F.pad's order, columns first
    )


def _plain(
    part: _Part,
    z: Tensor,
    weight: Tensor,
    branch: Tensor | None,
    bias: Tensor | None,
    mode: str,
    reflect: bool,
) -> Tensor:
    """Return the outputs of a part of the border, in the plain order."""
    seen = F.interpolate(z, scale_factor=2, mode=mode)[part.cut]
    seen = seen if branch is None else torch.cat([branch, seen], dim=1)
    return F.conv2d(F.pad(seen, part.padding, mode=MODE[reflect]), weight, bias)
