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

At the border interpolation takes the border pixel for those beyond: that is the filter again, of the small picture with
its border pixels repeated. The convolution's padding is not: it differs from what the filter makes there, and what the
difference changes of the few outputs that see it, along one side at a time, is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.networks import decoder, fused, recorded
from dip.networks.following import Following
from dip.networks.gradients import MODE, TAPS, WeightGradient, filter_of
from dip.networks.layers import apply, as_one, in_float32, norm_conv, trained_on_cpu, trained_on_gpu, upsample
from dip.networks.norms import norm_backward, normalised, strips, sums_of

__all__ = ["Branch", "branched", "conv_upsampled"]

# Below these the border and the calls cost more than is saved: pixels of a side of the large picture, and its pixels
# times input and output channels of the convolution (measured on two cores).
_SMALLEST, _LEAST = 64, 2**25
_STRIP = 2**19  # values of the small picture in a strip for the gradient of the weights


class Branch(NamedTuple):
    """What joins the upsampled picture.

    Attributes
    ----------
    picture : Tensor
        It.
    normalised : bool
        Whether it is so already.
    beside : bool
        Whether it was computed beside the rest.
    ready : Ready or None
        What follows from it in `dip.networks.decoder`.
    """

    picture: Tensor
    normalised: bool = False
    beside: bool = False
    ready: decoder.Ready | None = None


def branched(x: Tensor, layers: Sequence[Any], mode: str, norm: Any, conv: Any, weights: recorded.Prepared) -> Branch:
    """Return what layers make of x, to join an upsampled picture; on a GPU normalised by that picture's `norm`."""
    if not (as_one(norm, conv) and in_float32([norm, conv]) and trained_on_gpu(x)):
        return Branch(apply(layers, x, weights=weights))
    few = layers[0].out_channels if layers else x.shape[1]
    scale, offset = recorded.part(norm, few, weights)[0]
    normalised, ready = False, None

    def work(x: Tensor) -> Tensor:
        nonlocal normalised, ready
        x = apply(layers, x, weights=weights)
        normalised = trained_on_gpu(x, norm.num_features - few)
        if not normalised:
            return x
        x = fused.norm_first(x, norm, scale, offset)
        halved = len(x), norm.num_features - few, x.shape[2] // 2, x.shape[3] // 2
        small = x.new_empty(halved, device="meta")  # what it will join
        ready = decoder.ready(small, x, conv) if decoder.worthwhile(small, x, mode, conv) else None
        return x

    made = recorded.beside(work, x)  # which tells the rest, too
    return Branch(made, normalised, True, ready)


def conv_upsampled(
    x: Tensor,
    joined: Branch | None,
    mode: str,
    norm: Any,
    conv: Any,
    weights: recorded.Prepared | None = None,
    following: Following | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return ``conv(norm(cat([branch, upsample(x, mode)])))``, and the bias (K,) that is still to be added to it.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    joined : Branch or None
        (N, S, 2H, 2W), what joins the upsampled picture.
    mode : {"bilinear", "nearest"}
        The upsampling.
    norm : BatchNorm2d
        Of S + C channels.
    conv : Conv2d
        Of stride 1.
    weights : mapping, optional
        What `dip.networks.recorded` has prepared.
    following : Following, optional
        What `dip.networks.layers.followed` has returned; it is told the statistics, if that saves time.
    """
    branch = None if joined is None else joined.picture
    if joined is None:
        on_gpu = as_one(norm, conv) and in_float32([norm, conv]) and trained_on_gpu(x)
    else:
        on_gpu = joined.normalised
        if joined.beside:
            recorded.wait_for_branches(x)
    if on_gpu:
        if decoder.worthwhile(x, branch, mode, conv):
            ready = None if joined is None else joined.ready
            return decoder.conv_enlarged(x, branch, norm, conv, weights or {}, following, ready), conv.bias
        return fused.conv_enlarged(x, branch, mode, norm, conv, weights or {}), conv.bias
    if not (trained_on_cpu(x) and as_one(norm, conv) and _worthwhile(x, conv)):
        x = upsample(x, mode)
        x = x if branch is None else torch.cat([branch, x], dim=1)
        return apply([norm, conv], x), None
    first = 0 if branch is None else branch.shape[1]
    if norm.training:
        norm.num_batches_tracked.add_(1)
        mean, variance, count = _moments(x.detach(), mode)
        for kept, new in ((norm.running_mean, mean), (norm.running_var, variance * (count / (count - 1)))):
            kept[first:].lerp_(new, norm.momentum)
    else:
        mean, variance = norm.running_mean[first:], norm.running_var[first:]
    own, behind = conv.weight.split([first, x.shape[1]], dim=1)
    (scale_there, scale), (offset_there, offset) = (t.split([first, x.shape[1]]) for t in (norm.weight, norm.bias))
    given = norm.eps, not norm.training, mode, conv.reflect
    y: Tensor = _ConvUpsampled.apply(x, scale, offset, behind, conv.bias, mean, variance, *given)
    if branch is not None:
        running = norm.running_mean[:first], norm.running_var[:first]
        y += norm_conv(branch, scale_there, offset_there, own, None, running, norm, 1.0, conv)
    return y, None


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
    """Normalisation, upsampling and convolution of x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        offset: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        frozen: bool,
        mode: str,
        reflect: bool,
    ) -> Tensor:
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        ctx.save_for_backward(x, scale, offset, weight, mean, variance)
        ctx.eps, ctx.frozen, ctx.mode, ctx.reflect = eps, frozen, mode, reflect
        z = normalised(x, mean, variance, scale, offset, eps)
        return _forward(z, weight, bias, mode, reflect)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        x, scale, offset, weight, mean, variance = ctx.saved_tensors
        z = normalised(x, mean, variance, scale, offset, ctx.eps)
        to_z, to_weight = _backward(g, z, weight, ctx.mode, ctx.reflect)
        to_bias = None
        if ctx.needs_input_grad[4]:
            zero = torch.zeros_like(mean[:1]).expand(g.shape[1])
            to_bias = sums_of(g, g, zero, zero)[1]
        weighed = None if ctx.frozen else _weighed(x, ctx.mode)
        to_x, to_scale, to_offset = norm_backward(to_z, x, scale, mean, variance, ctx.eps, weighed, frozen=ctx.frozen)
        return to_x, to_scale, to_offset, to_weight, to_bias, *(None,) * 6


def _weighed(x: Tensor, mode: str) -> Tensor:
    """Return (U^T U / 4) x: what each pixel of x weighs in the sum of squares of the upsampled picture."""
    if mode == "nearest":
        return x
    kernel = filter_of((3 / 16, 10 / 16, 3 / 16), x)
    return F.conv2d(F.pad(x, (1,) * 4, mode="replicate"), kernel, groups=x.shape[1])


def _transposed(weight: Tensor) -> Tensor:
    """Return the weights as those of the convolution whose transpose is K Z."""
    return weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _geometry(pad: int, mode: str) -> tuple[Sequence[float], int, int]:
    """Return the taps, how often border pixels are repeated, and what is cut off K Z of that (or missing, below 0)."""
    taps = TAPS[mode]
    more = pad // 2 + 1 if mode == "bilinear" else (pad + 1) // 2
    return taps, more, 2 * more + pad - len(taps) // 2


def _forward(z: Tensor, weight: Tensor, bias: Tensor | None, mode: str, reflect: bool) -> Tensor:
    """Return the convolution of upsampled z."""
    pad = weight.shape[-1] // 2
    taps, more, cut = _geometry(pad, mode)
    wide = F.pad(z, (more,) * 4, mode="replicate") if more else z
    spread = F.conv_transpose2d(wide, _transposed(weight), stride=2, padding=max(cut, 0))
    del wide
    y = F.conv2d(spread, filter_of(taps, spread), bias, padding=max(-cut, 0), groups=spread.shape[1])
    beyond = _beyond(pad, mode, reflect)
    for across in (False, True) if beyond else ():
        added = _sides((*_ends(z, len(beyond[0]), across), *_outer(weight, across)), beyond, mode, reflect, across)
        for part, there in zip(_ends(y, pad, across), added, strict=True):
            part += there
    return y


def _backward(g: Tensor, z: Tensor, weight: Tensor, mode: str, reflect: bool) -> tuple[Tensor, Tensor]:
    """Return the gradients of z and of the weights, the latter in float32 at least."""
    kernel, pad = weight.shape[-1], weight.shape[-1] // 2
    taps, more, cut = _geometry(pad, mode)
    wide = F.pad(z, (more,) * 4, mode="replicate") if more else z
    spread = F.conv2d(g, filter_of(taps, g), padding=len(taps) - 1 + cut, groups=g.shape[1])
    transposed = _transposed(weight)
    to_z = F.conv2d(spread, transposed, stride=2)
    if more:
        to_z = torch.ops.aten.replication_pad2d_backward(to_z, z, [more] * 4)
    total = WeightGradient(transposed, 2, (True, False))
    for top, bottom in strips(wide, _STRIP):
        total.add(wide[:, :, top:bottom], spread[:, :, 2 * top : 2 * (bottom - 1) + kernel])
    to_weight = total.gradients()[0].transpose(0, 1).flip(2, 3)  # type: ignore[union-attr]
    beyond = _beyond(pad, mode, reflect)
    for across in (False, True) if beyond else ():
        seen = [*_ends(z, len(beyond[0]), across), *_outer(weight, across)]
        leaves = [t.detach().requires_grad_() for t in seen]
        with torch.enable_grad():
            added = _sides(leaves, beyond, mode, reflect, across)
        found = torch.autograd.grad(added, leaves, _ends(g, pad, across))
        for part, there in zip((*_ends(to_z, len(beyond[0]), across), *_outer(to_weight, across)), found, strict=True):
            part += there
    return to_z, to_weight


def _beyond(pad: int, mode: str, reflect: bool) -> list[list[float]]:
    """Return the difference at the near border, line by line, by what of the small picture's first lines it is made.

    It is what the convolution's padding has there, less what the filter makes of the border pixels repeated, which is
    the border pixel. Empty where there is no difference.
    """
    rows = []
    for distance in range(pad, 0, -1):
        row = [-1.0] + [0.0] * ((pad + 1) // 2)
        if reflect and mode == "nearest":
            row[distance // 2] += 1
        elif reflect:
            row[distance // 2] += 0.75
            row[distance // 2 + (1 if distance % 2 else -1)] += 0.25
        rows.append(row)
    return rows if any(map(any, rows)) else []


def _ends(t: Tensor, count: int, across: bool) -> tuple[Tensor, Tensor]:
    """Return the first and the last lines of a picture: rows, or columns as rows."""
    t = t.transpose(2, 3) if across else t
    return t[:, :, :count], t[:, :, -count:]


def _outer(weight: Tensor, across: bool) -> tuple[Tensor, Tensor]:
    """Return the lines of kernels that see lines beyond the near and the far border."""
    weight = weight.transpose(2, 3) if across else weight
    pad = weight.shape[2] // 2
    return weight[:, :, :pad], weight[:, :, pad + 1 :]


def _sides(
    seen: Sequence[Tensor], beyond: list[list[float]], mode: str, reflect: bool, across: bool
) -> tuple[Tensor, Tensor]:
    """Return what the padding's difference adds to the first and the last lines of the outputs.

    Parameters
    ----------
    seen : four tensors
        The small picture's first and last lines (`_ends`), and the kernels' (`_outer`).
    beyond : list
        What `_beyond` returned.
    mode, reflect
        Of the upsampling and of the padding.
    across : bool
        Whether the lines are columns. Beyond rows there is the padding's own in the direction of the columns; beyond
        columns, what the filter makes: the corners are to be counted once.
    """
    pad = len(beyond)
    near, far, upper, lower = seen
    made = near.new_tensor([beyond, [row[::-1] for row in beyond[::-1]]])[:, None, ..., None]
    lines = (made * torch.stack([near, far], dim=1).unsqueeze(3)).sum(4).flatten(1, 3)  # all as channels of a line
    lines = F.interpolate(lines, scale_factor=2, mode="linear" if mode == "bilinear" else mode)
    lines = F.pad(lines, (pad, pad), mode="replicate" if across else MODE[reflect])
    patches = lines.unflatten(1, (2, -1)).unfold(3, 2 * pad + 1, 1).transpose(2, 3).flatten(3)
    if pad == 1:
        kernel = torch.stack([upper, lower])
    else:  # the further in an output, the fewer lines beyond the border it sees
        above = [F.pad(upper[:, :, : pad - row], (0, 0, row, 0)) for row in range(pad)]
        below = [F.pad(lower[:, :, pad - 1 - row :], (0, 0, 0, pad - 1 - row)) for row in range(pad)]
        kernel = torch.stack([torch.cat(above), torch.cat(below)])
    added = patches @ kernel.flatten(2).transpose(1, 2)
    first, last = added.unflatten(3, (pad, -1)).permute(0, 1, 4, 3, 2).unbind(1)
    return first, last
