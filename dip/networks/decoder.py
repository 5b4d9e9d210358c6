"""The stage of the decoder on an NVIDIA GPU, computed on the small picture.

It is what `dip.networks.upsampled` does on a CPU, where the formulas are: the convolution of the enlarged picture is a
transposed convolution of the small one, a quarter of the products, and a filter after it. The branch that joins the
enlarged picture has too few channels for a convolution of PyTorch's to be fast: the pixels that its part of the weights
sees are written next to each other, and multiplied as a matrix. The lines along the border, where the convolution's
padding is not what the filter makes there, are products of matrices too.

What is kept for the backward pass is the small picture, before and after the normalisation, and the branch's patches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.networks import cuda
from dip.networks.following import Following
from dip.networks.fused import Backwards
from dip.networks.normalising import Shares, Statistics, empty, ordered
from dip.networks.recorded import Gradients, Prepared, deferrable, matrix, on_branch, part, read_later

__all__ = ["Ready", "conv_enlarged", "ready", "worthwhile"]

# The least pixels of an enlarged picture, and channels before and after the convolution, for which it is worthwhile.
_PIXELS, _CHANNELS = 2**15, 16
_FEW = 16  # channels of a branch at most
_REPEAT = 2  # a padding of the kernels: the border pixels again
# Of the filter: threads of its blocks at most, how many blocks find room on a processor, rows that are read before the
# first one is made, and how often a processor may be given blocks anew.
_FILTER, _ROOM, _BEFORE, _TURNS = 256, {"blur": 3, "blur_moments": 2, "blur_back": 3}, 3, 8
_TILE = 32  # weights along the sides of those that a block turns


def worthwhile(x: Tensor, branch: Tensor | None, mode: str, layer: Any) -> bool:
    """Tell whether `conv_enlarged` takes what `fused.conv_enlarged` would, and is likely to be the faster one."""
    if mode != "bilinear" or layer.kernel_size != (3, 3) or layer.stride != (1, 1) or min(x.shape[2:]) < 4:
        return False
    if branch is not None and branch.shape[1] > _FEW:
        return False
    outputs = layer.out_channels
    if outputs // cuda.channels_a_thread(outputs, x.dtype) > _FILTER:
        return False
    return 4 * x.shape[2] * x.shape[3] >= _PIXELS and min(x.shape[1], outputs) >= _CHANNELS


class Ready(NamedTuple):
    """What of `conv_enlarged` needs the branch and the weights alone, in the dtype of the pictures.

    Attributes
    ----------
    turned : Tensor
        (C, K, 3, 3), weights of the transposed convolution of the small picture.
    of_branch : Tensor
        (P, K), those of the branch's patches.
    of_sides : Tensor
        (4, 3 C, K), those of what lies beyond each side.
    seen : Tensor or None
        (N, P, 2H, 2W), the branch's patches.
    from_branch : Tensor or None
        (N * 2H * 2W, K), their product.
    """

    turned: Tensor
    of_branch: Tensor
    of_sides: Tensor
    seen: Tensor | None
    from_branch: Tensor | None


@torch.no_grad()
def ready(x: Tensor, branch: Tensor | None, layer: Any) -> Ready:
    """Return what can be done before the small picture x is there: of x itself, shape and dtype count."""
    weight, channels, few = layer.weight, x.shape[1], 0 if branch is None else branch.shape[1]
    like = weight.new_empty(0, dtype=x.dtype) if branch is None else branch.new_empty(0)
    outputs = len(weight)
    turned = empty(like.new_empty(channels), outputs, 3, 3)
    of_branch = like.new_empty(-(-9 * few // 8) * 8, outputs)  # that many rows suit the product
    of_sides = like.new_empty(4, 3 * channels, outputs)
    size = outputs, few, channels
    given = ordered(weight), turned, of_branch, of_sides, *size, len(of_branch)
    cuda.Picture(turned).launch("turn", _tiles(*size), *given)
    if branch is None:
        return Ready(turned, of_branch, of_sides, None, None)
    branch, large = ordered(branch), branch.shape[2:]
    seen = empty(branch, len(of_branch), *large)
    given_there = *large, few, len(of_branch), layer.reflect
    cuda.Picture(seen).launch("patches", len(branch) * large[0], branch, seen, *given_there)
    read_later(seen)
    return Ready(turned, of_branch, of_sides, seen, torch.mm(matrix(seen), of_branch))


def conv_enlarged(
    x: Tensor,
    branch: Tensor | None,
    norm: Any,
    layer: Any,
    weights: Prepared,
    following: Following | None = None,
    there: Ready | None = None,
) -> Tensor:
    """Return what `fused.conv_enlarged` does, of bilinear upsampling and a kernel of size 3.

    What normalises it next is told the statistics. `there` is what `ready` has returned, if that was asked.
    """
    weight, later = layer.weight, deferrable(layer.weight, weights)
    branch = None if branch is None else ordered(branch)
    scale, offset = part(norm, len(norm.weight) - x.shape[1], weights)[1]
    y: Tensor = _ConvSmall.apply(ordered(x), branch, scale, offset, weight, norm, layer, later, following, there)
    return y


def _turned_back(turned: Tensor, of_branch: Tensor | None, of_sides: Tensor, few: int) -> Tensor:
    """Return the gradient of weights, in float32, from those of the first three of `Ready`."""
    channels, outputs = turned.shape[:2]
    to_weight = empty(turned.new_empty(outputs, dtype=torch.float32), few + channels, 3, 3)
    size = outputs, few, channels
    given = ordered(turned), of_branch, of_sides, to_weight, *size
    cuda.Picture(turned).launch("turn_back", _tiles(*size), *given)
    return to_weight


def _tiles(outputs: int, few: int, channels: int) -> int:
    return 9 * -(-outputs // _TILE) * -(-(few + channels) // _TILE)


def _filtering(kernel: str, y: Tensor) -> tuple[cuda.Picture, int, int]:
    """Return what a kernel that filters is launched for, the strips of y that its blocks have, and the rows of a strip.

    The blocks have fewer threads than others, for each needs more registers. There are as many strips as keep all
    processors busy to the end: the fewer, the fewer rows are read twice.
    """
    picture, (images, _, height, width) = cuda.Picture(y), y.shape
    across = picture.threads[0]
    picture.threads = across, _FILTER // across
    columns, at_once = images * -(-width // picture.threads[1]), picture.processors * _ROOM[kernel]
    choices = []
    for turns in range(1, _TURNS + 1):
        rows = -(-height // max(1, min(turns * at_once // columns, height)))
        strips = columns * -(-height // rows)
        choices.append((-(-strips // at_once) * (rows + _BEFORE), strips, rows))
    _, strips, rows = min(choices)
    return picture, strips, rows


class _ConvSmall(torch.autograd.Function):
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
        later: bool,
        following: Following | None,
        there: Ready | None,
    ) -> Tensor:
        images, channels, height, width = x.shape
        few, outputs, large = 0 if branch is None else branch.shape[1], len(weight), (2 * height, 2 * width)
        length, picture = max(large), cuda.Picture(x)
        found = Statistics(x, norm, few, enlarged="bilinear")
        line = found.mean, found.deviation, scale, offset
        turned, of_branch, of_sides, seen, from_branch = there or ready(x, branch, layer)
        padded = empty(x, channels, height + 2, width + 2)
        given = height, width, channels, 1, _REPEAT, 1.0
        picture.rows("normalise", images * (height + 2), x, *line, padded, last=given)
        beyond = x.new_empty(4, images * length, 3 * channels)
        size = images, height, width, channels, length, layer.reflect
        picture.pixels("sides", 12 * images * length, x, *line, beyond, *size)
        spread = ordered(F.conv_transpose2d(padded, turned, stride=2, padding=1))
        y, from_sides = empty(x, outputs, *large), torch.bmm(beyond, of_sides)
        kernel = "blur" if following is None else "blur_moments"
        filtering, strips, rows = _filtering(kernel, y)
        made_of, extent = (spread, from_branch, from_sides, y), (images, *large, outputs, rows, length)
        if following is None:
            filtering.launch(kernel, strips, *made_of, *extent)
        else:
            sought, last = following.sought()
            filtering.sum(kernel, strips, norm, *made_of, *sought, last=(*extent, strips, *last))
        ctx.norm, ctx.frozen, ctx.few, ctx.reflect, ctx.later = norm, not norm.training, few, layer.reflect, later
        ctx.save_for_backward(x, padded, beyond, seen, turned, of_branch, of_sides, *line[:3])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Backwards:
        x, padded, beyond, seen, turned, of_branch, of_sides, mean, deviation, scale = ctx.saved_tensors
        g, (images, channels, height, width) = ordered(gradients[0]), x.shape
        outputs, large, few = g.shape[1], (2 * height, 2 * width), ctx.few
        length, picture, by_pixels = max(large), cuda.Picture(x), matrix(g)
        to_branch = None
        if ctx.needs_input_grad[1]:
            with on_branch(g):  # for which the rest does not wait
                to_seen, to_branch = torch.mm(by_pixels, of_branch.T), empty(g, few, *large)
                size_there = *large, few, len(of_branch), ctx.reflect
                cuda.Picture(to_branch).launch("patches_back", images * large[0], to_seen, to_branch, *size_there)
        spread = empty(g, outputs, large[0] + 3, large[1] + 3)
        filtering, strips, rows = _filtering("blur_back", spread)
        filtering.launch("blur_back", strips, g, spread, *spread.shape[2:], outputs, rows)
        ends = g.new_empty(4, images * length, outputs)
        cuda.Picture(g).pixels("ends", len(ends) * ends.shape[1], g, ends, images, *large, outputs, length)

        def finish(to_turned: Tensor) -> Tensor:
            to_matrix = None if seen is None else torch.mm(matrix(seen).T, by_pixels)
            return _turned_back(to_turned, to_matrix, torch.bmm(beyond.transpose(1, 2), ends), few)

        also = (g, ends, beyond) if seen is None else (g, ends, beyond, seen)
        wanted = True, ctx.needs_input_grad[4]
        of_conv = Gradients(spread, padded, turned, 2, wanted, ctx.later, finish, transposed=True, also=also)
        size = images, height, width, channels, length, ctx.reflect
        to_beyond = torch.bmm(ends, of_sides.transpose(1, 2))
        to_lines = x.new_empty(4, images * length // 2, channels)
        picture.pixels("sides_back", 2 * images * length, to_beyond, to_lines, *size)
        found, to_x = Shares(x), torch.empty_like(x)
        sums = found.to_scale, found.to_offset, found.shares
        picture.sum(
            *("gather_small", images * height, ctx.norm),
            *(of_conv.to_input, to_lines, x, mean, deviation, scale, to_x, *sums),
            last=(*size, ctx.frozen),
        )
        given, last = (to_x, x, mean, deviation, scale, found.shares), (height, width, channels, True)
        picture.rows("spread_enlarged", images * height, *given, last=last)
        return to_x, to_branch, found.to_scale, found.to_offset, of_conv.to_weight, *(None,) * 5
