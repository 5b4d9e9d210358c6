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
from torch import Tensor, nn

from dip.networks.layers import MODE, apply, as_one, gradients_of, strips, sums_of, trained_on_cpu, upsample

__all__ = ["conv_upsampled"]

_TAPS = {"bilinear": (0.25, 0.75, 0.75, 0.25), "nearest": (1.0, 1.0)}
_SMALLEST = 48  # pixels of a side of the large picture: below, the border and the calls cost more than is saved
_STRIP = 4096  # pixels of the small picture in a strip for the gradient of the weights


def conv_upsampled(x: Tensor, branch: Tensor | None, mode: str, norm: nn.Module, conv: nn.Module) -> Tensor:
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
    large = 2 * min(x.shape[2:]) >= _SMALLEST
    if not (large and trained_on_cpu(x) and as_one(norm, conv) and conv.stride[0] == 1 and conv.pad < _SMALLEST // 8):
        x = upsample(x, mode)
        x = x if branch is None else torch.cat([branch, x], dim=1)
        return apply([norm, conv], x)
    first = 0 if branch is None else branch.shape[1]
    with torch.no_grad():
        mean, variance, count = _moments(x.detach(), mode)
        norm.num_batches_tracked.add_(1)
        norm.running_mean[first:].lerp_(mean, norm.momentum)
        norm.running_var[first:].lerp_(variance * (count / (count - 1)), norm.momentum)
    if branch is not None:
        parts = (t[:first] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
        branch = F.batch_norm(branch, *parts, True, norm.momentum, norm.eps)
    fitted = norm.weight[first:], norm.bias[first:], *conv.cast(x.dtype)
    y: Tensor = _ConvUpsampled.apply(x, branch, *fitted, mean, variance, norm.eps, mode, conv.reflect)
    return y


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
        deviation = (variance + ctx.eps).sqrt()
        to_scale, to_offset = sums_of(to_z, x, mean, 1 / deviation)
        # The gradient of a normalisation, but for the smoothed picture in the last term, through which x enters the
        # variance: scale / deviation * (g - mean of g - normalised (U^T U / 4) x * mean of (g * normalised x)).
        count, factor = x.numel() // x.shape[1], scale / deviation
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        share = -factor * to_scale / count, -factor * to_offset / count
        to_x = F.batch_norm(_weighed(x, ctx.mode), mean, variance, *share, eps=ctx.eps)
        to_x += F.batch_norm(to_z, zero, one, factor, eps=0.0)
        return to_x, to_branch, to_scale, to_offset, to_weight, to_bias, None, None, None, None, None


def _weighed(x: Tensor, mode: str) -> Tensor:
    """Return (U^T U / 4) x: what each pixel of x weighs in the sum of squares of the upsampled picture."""
    if mode == "nearest":
        return x
    taps = torch.tensor([3.0, 10.0, 3.0], dtype=x.dtype) / 16
    return F.conv2d(F.pad(x, (1,) * 4, mode="replicate"), _filter(taps, x), groups=x.shape[1])


def _filter(taps: Tensor, like: Tensor) -> Tensor:
    """Return the kernel that filters each channel with the taps along rows and columns."""
    return torch.outer(taps, taps).to(like.device).expand(like.shape[1], 1, -1, -1)


def _taps(mode: str, dtype: torch.dtype) -> Tensor:
    return torch.tensor(_TAPS[mode], dtype=dtype)


def _transposed(weight: Tensor, channels: int) -> Tensor:
    """Return the weights for the last channels, as those of the convolution whose transpose is K Z."""
    return weight[:, -channels:].flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _forward(z: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, mode: str, reflect: bool) -> Tensor:
    """Return the convolution of the concatenation of branch and upsampled z."""
    pad, taps = weight.shape[-1] // 2, _taps(mode, z.dtype)
    spread = F.conv_transpose2d(z, _transposed(weight, z.shape[1]), stride=2)
    beyond = len(taps) // 2 - pad
    if beyond < 0:
        spread = spread[:, :, -beyond:beyond, -beyond:beyond]
    y = F.conv2d(spread, _filter(taps, spread), bias, padding=max(beyond, 0), groups=spread.shape[1])
    del spread
    if branch is not None:
        own = weight[:, : branch.shape[1]].contiguous(memory_format=torch.channels_last)
        y += F.conv2d(branch, own, padding=pad)
    for part in _border(y, pad, mode):
        y[part.outputs] = _plain(part, *part.inputs(z, branch), weight, bias, mode, reflect)
    return y


def _backward(
    g: Tensor, z: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, mode: str, reflect: bool
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Return the gradients of z, branch, weight and bias."""
    pad, kernel, first, taps = (
        weight.shape[-1] // 2,
        weight.shape[-1],
        weight.shape[1] - z.shape[1],
        _taps(mode, z.dtype),
    )
    to_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    inside = g.clone(memory_format=torch.channels_last)
    border = list(_border(g, pad, mode))
    for part in border:
        inside[part.outputs] = 0
    to_branch, to_bias = None, to_weight.new_zeros(weight.shape[0])
    if branch is not None:
        own = weight[:, :first].contiguous(memory_format=torch.channels_last)
        to_branch, found, of_bias = gradients_of(inside, branch, own, 1, (pad, pad), (True, True, True))
        to_weight[:, :first] += found
        to_bias += of_bias
    else:
        to_bias += sums_of(inside, inside, to_bias, to_bias + 1)[1]
    spread = F.conv2d(inside, _filter(taps, inside), padding=len(taps) // 2 - 1 + pad, groups=g.shape[1])
    del inside
    transposed = _transposed(weight, z.shape[1])
    to_z = F.conv2d(spread, transposed, stride=2)
    turned = torch.zeros_like(transposed, dtype=to_weight.dtype)
    for top, bottom in strips(z, _STRIP):
        seen = spread[:, :, 2 * top : 2 * (bottom - 1) + kernel]
        turned += gradients_of(z[:, :, top:bottom], seen, transposed, 2, (0, 0), (False, True, False))[1]
    to_weight[:, first:] += turned.transpose(0, 1).flip(2, 3)
    for part in border:
        leaves = [None if t is None else t.detach().requires_grad_() for t in (*part.inputs(z, branch), weight, bias)]
        with torch.enable_grad():
            outputs = _plain(part, *leaves, mode, reflect)
        found = iter(torch.autograd.grad(outputs, [t for t in leaves if t is not None], g[part.outputs]))
        to_z[part.small] += next(found)
        if to_branch is not None:
            to_branch[part.large] += next(found)
        to_weight += next(found)
        if bias is not None:
            to_bias += next(found)
    return to_z, to_branch, to_weight.to(weight.dtype), None if bias is None else to_bias.to(bias.dtype)


class _Part(NamedTuple):
    """A rectangle of outputs at the border, and where in the pictures, large and small, is what it sees."""

    outputs: tuple[Any, ...]
    large: tuple[Any, ...]
    small: tuple[Any, ...]
    cut: tuple[Any, ...]  # the large one's place in the upsampled small one
    padding: tuple[int, int, int, int]

    def inputs(self, z: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what of z and of the branch it sees."""
        return z[self.small], None if branch is None else branch[self.large]


def _border(y: Tensor, pad: int, mode: str) -> Iterator[_Part]:
    """Yield the outputs that see the padding, or a pixel that is interpolated from beyond the border."""
    height, width = y.shape[2:]
    ring = pad + (mode == "bilinear")
    rows, columns = (slice(0, ring), slice(height - ring, height)), (slice(0, ring), slice(width - ring, width))

    def along(outputs: slice, size: int) -> tuple[slice, slice, slice, tuple[int, int]]:
        first, last = outputs.start - pad, outputs.stop + pad
        large = slice(max(first, 0), min(last, size))
        small = slice(max(large.start - 1, 0) // 2, min(large.stop // 2 + 1, size // 2))
        cut = slice(large.start - 2 * small.start, large.stop - 2 * small.start)
        return large, small, cut, (large.start - first, last - large.stop)

    boxes = [(one, slice(0, width)) for one in rows] + [(slice(ring, height - ring), one) for one in columns]
    for down, across in boxes if ring else ():
        both = zip(along(down, height), along(across, width), strict=True)
        large, small, cut, (above_below, left_right) = both
        yield _Part(*((..., *pair) for pair in ((down, across), large, small, cut)), (*left_right, *above_below))


def _plain(
    part: _Part,
    z: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    mode: str,
    reflect: bool,
) -> Tensor:
    """Return the outputs of a part of the border, in the plain order."""
    seen = F.interpolate(z, scale_factor=2, mode=mode)[part.cut]
    seen = seen if branch is None else torch.cat([branch, seen], dim=1)
    return F.conv2d(F.pad(seen, part.padding, mode=MODE[reflect]), weight, bias)
