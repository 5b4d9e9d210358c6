"""The encoder-decoder with skip connections of the Deep Image Prior paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dip.errors import non_negative_int, positive_int, unknown, yes_or_no
from dip.networks import fused, recorded
from dip.networks.base import ACTIVATIONS, PADDING, UPSAMPLING, Network, convolved, listed, one_of
from dip.networks.layers import (
    Conv2d,
    applied,
    apply,
    biased,
    finished,
    followed,
    is_pointwise,
    trained_on_gpu,
    unwatched,
)
from dip.networks.upsampled import branched, conv_upsampled
from dip.operators import Downsample

DOWNSAMPLING = ("stride", "average", "max", "lanczos2", "lanczos3")


class EncoderDecoder(Network):
    r"""The paper's "hourglass" with skip connections, of any number of scales.

    At scale i, counted from the image inwards, the encoder has two convolutions with `down[i]` channels, the
    first of which halves the resolution; a skip connection of `skip[i]` channels (one convolution) branches
    off before them. The decoder doubles the resolution, joins the skip connection, normalises, and has a
    convolution with `up[i]` channels and, if `conv1x1_up`, a 1 x 1 convolution with as many. Each convolution
    is followed by batch normalisation and the activation; a last 1 x 1 convolution and a sigmoid make the
    image. Every list has one entry a scale; an option given as a single value holds for every scale.

    Parameters
    ----------
    in_channels : int
        Channels of the code.
    out_channels : int, default 3
        Channels of the image.
    down, up : sequence of int, default (128,) * 5
        Channels of the encoder and of the decoder, outermost scale first, at least 1 each.
    skip : sequence of int, default (4,) * 5
        Channels of the skip connections; 0 = none at that scale.
    kernel_down, kernel_up, kernel_skip : int or sequence of int, default 3, 3, 1
        Sizes of the convolution kernels, odd.
    upsampling : {"bilinear", "nearest"} or sequence
        How the decoder doubles the resolution.
    downsampling : {"stride", "average", "max", "lanczos2", "lanczos3"} or sequence
        How the encoder halves it: by the stride of its first convolution, or after it by pooling or filtering.
    padding : {"reflect", "zero"}
        Padding of every convolution.
    activation : {"leaky_relu", "relu", "elu", "silu", "gelu", "none"}
        "leaky_relu" has slope 0.2.
    conv1x1_up : bool, default True
        Whether a 1 x 1 convolution ends each stage of the decoder.
    sigmoid : bool, default True
        Whether the output passes through a sigmoid, so that it lies in [0, 1].
    bias : bool, default True
        Whether the convolutions have biases.
    norm_scale : {"uniform", "one"}
        Where the scales of the batch normalisations begin: drawn from U(0, 1), or at 1. The paper was computed with
        PyTorch 0.4, which drew them; PyTorch has begun at 1 since version 1.2, and the fit is slower then.
    generator : torch.Generator, optional
        Where the first weights are drawn from, on the CPU; PyTorch's global one by default, as in any module.

    Raises
    ------
    ValueError
        Lists of unequal length, an empty list, channels that are zero or negative, an even kernel, an unknown
        name.

    Notes
    -----
    The network computes in the dtype of the code (bfloat16 included) and returns float32, or float64 for a
    float64 code. First weights: uniform in ±1/sqrt(fan-in), PyTorch's default for convolutions; offsets of the batch
    normalisations: 0.

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky, "Deep Image Prior", IJCV 2020, figure 21.

    Examples
    --------
    >>> net = EncoderDecoder(32, 3)
    >>> sum(p.numel() for p in net.parameters())
    2217831
    """

    narrower = 'network={"down": [64] * 5, "up": [64] * 5}'

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        *,
        down: Sequence[int] = (128,) * 5,
        up: Sequence[int] = (128,) * 5,
        skip: Sequence[int] = (4,) * 5,
        kernel_down: int | Sequence[int] = 3,
        kernel_up: int | Sequence[int] = 3,
        kernel_skip: int | Sequence[int] = 1,
        upsampling: str | Sequence[str] = "bilinear",
        downsampling: str | Sequence[str] = "stride",
        padding: str = "reflect",
        activation: str = "leaky_relu",
        conv1x1_up: bool = True,
        sigmoid: bool = True,
        bias: bool = True,
        norm_scale: str = "uniform",
        generator: torch.Generator | None = None,
    ) -> None:
        down, up, skip = _channels(down=down, up=up, skip=skip)
        scales = len(down)
        super().__init__(in_channels, out_channels, scales, sigmoid=sigmoid, norm_scale=norm_scale)
        kernels_down = _kernels(kernel_down, scales, "kernel_down")
        kernels_up = _kernels(kernel_up, scales, "kernel_up")
        kernels_skip = _kernels(kernel_skip, scales, "kernel_skip")
        self.upsampling = _choices(upsampling, scales, "upsampling", UPSAMPLING)
        downsampling = _choices(downsampling, scales, "downsampling", DOWNSAMPLING)
        self.padding = one_of(padding, "padding", PADDING)
        one_of(activation, "activation", ACTIVATIONS)
        for name, choice in (("conv1x1_up", conv1x1_up), ("bias", bias)):
            yes_or_no(choice, name)

        def stage(inputs: int, outputs: int, kernel: int, downsampling: str | None = None) -> list[nn.Module]:
            stride = 2 if downsampling == "stride" else 1
            halving = None if downsampling in (None, "stride") else _halve(str(downsampling))
            return convolved(
                inputs,
                outputs,
                padding=padding,
                activation=activation,
                kernel=kernel,
                stride=stride,
                bias=bias,
                halving=halving,
            )

        self.down, self.skip, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = self.in_channels
        for i in range(scales):
            deeper = up[i + 1] if i + 1 < scales else down[i]
            self.down.append(
                nn.Sequential(
                    *stage(channels, down[i], kernels_down[i], downsampling[i]),
                    *stage(down[i], down[i], kernels_down[i]),
                )
            )
            self.skip.append(nn.Sequential(*(stage(channels, skip[i], kernels_skip[i]) if skip[i] else ())))
            self.up.append(
                nn.Sequential(
                    nn.BatchNorm2d(deeper + skip[i]),
                    *stage(deeper + skip[i], up[i], kernels_up[i]),
                    *(stage(up[i], up[i], 1) if conv1x1_up else ()),
                )
            )
            channels = down[i]
        self.out = Conv2d(up[0], self.out_channels, 1, stride=1, padding=padding, bias=bias)
        self._deepest = _deepest_size(kernels_down, kernels_up, kernels_skip, padding)
        self.reach = _reach(kernels_down, kernels_up, kernels_skip, downsampling)
        self.reset_parameters(generator)

    def forward(self, z: Tensor) -> Tensor:
        """Map a code (N, in_channels, H, W) to images (N, out_channels, H, W).

        Raises
        ------
        ValueError
            The code has other channels, or H or W is not a size that `padded_size` returns.
        """
        self.check(z)
        skips, x, weights = [], z, self._prepared(z)
        for down, skip, up, mode in zip(self.down, self.skip, self.up, self.upsampling, strict=True):
            layers, (norm, conv) = list(skip.children()), list(up.children())[:2]
            skips.append(branched(x, layers, mode, norm, conv, weights) if layers else None)
            x = apply(down.children(), x, weights=weights)
        for up, branch, mode in reversed(list(zip(self.up, skips, self.upsampling, strict=True))):
            norm, conv, *layers = up.children()
            layers += [self.out] if up is self.up[0] else []
            following = followed(layers, x, conv)
            x, bias = conv_upsampled(x, branch, mode, norm, conv, weights, following)
            x, bias = applied(layers, x, bias, weights, following)
            x, bias = (x, bias) if up is self.up[0] else (biased(x, bias), None)
        return finished(x, bias, self.sigmoid, self.out)

    def _prepared(self, z: Tensor) -> dict[Any, Any]:
        """Return what of the weights is to be prepared at once."""
        if not trained_on_gpu(z):
            return {}
        area = z.shape[2] * z.shape[3]
        # the kernels take the weights of these as they are, and those of narrow convolutions
        own = {list(up.children())[1] for up in self.up}
        for scale, up in enumerate(self.up):
            own |= {one for one in up.children() if type(one) is Conv2d and is_pointwise(one, z, area >> 2 * scale)}
        layers: list[Any] = [one for one in self.modules() if type(one) is Conv2d and unwatched(one) and one not in own]
        cast = recorded.cast([layer for layer in layers if not fused.is_narrow(layer, z.dtype)], z.dtype)
        stages: Any = zip(self.up, self.skip, strict=True)
        joint = {next(iter(up.children())): skip[0].out_channels for up, skip in stages if len(skip)}
        return {**cast, **recorded.parts(joint)}


def _halve(downsampling: str) -> nn.Module:
    if downsampling == "average":
        return nn.AvgPool2d(2)
    if downsampling == "max":
        return nn.MaxPool2d(2)
    return Downsample(2, kernel=downsampling)


def _channels(**lists: Sequence[int]) -> list[list[int]]:
    """Check the three channel lists; each error names the list."""
    found = {name: listed(values, name, "scale") for name, values in lists.items()}
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        given = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(
            f"{given} entries; down, up and skip need one entry a scale each, and at least one scale: give all three"
        )
    checked = []
    for name, values in found.items():
        row = []
        for i, value in enumerate(values):
            check = non_negative_int if name == "skip" else positive_int
            row.append(check(value, f"{name}[{i}]"))
        checked.append(row)
    return checked


def _per_scale(value: Any, scales: int, name: str) -> list[Any]:
    if isinstance(value, (list, tuple)):
        if len(value) != scales:
            raise ValueError(f"{name} has {len(value)} entries for {scales} scales; give one value, or one a scale")
        return list(value)
    return [value] * scales


def _kernels(value: int | Sequence[int], scales: int, name: str) -> list[int]:
    kernels = [positive_int(v, name) for v in _per_scale(value, scales, name)]
    for kernel in kernels:
        if kernel % 2 == 0:
            raise ValueError(f"{name}={kernel}: kernels have odd sizes, so that they have a centre; take {kernel + 1}")
    return kernels


def _choices(value: str | Sequence[str], scales: int, name: str, allowed: tuple[str, ...]) -> list[str]:
    values = _per_scale(value, scales, name)
    for choice in values:
        if not isinstance(choice, str) or choice not in allowed:
            raise unknown(name, str(choice), allowed)
    return values


def _deepest_size(down: list[int], up: list[int], skip: list[int], padding: str) -> int:
    """Return how many pixels a side has to have at the deepest scale.

    Batch statistics need more than one pixel; padding by reflection needs a side longer than the padding,
    and the encoder's second convolution at scale i runs on scale i + 1's resolution.
    """
    deepest = 2
    if padding == "reflect":
        scales = len(down)
        for i in range(scales):
            at_scale = 2 ** (scales - i)
            deepest = max(deepest, *(math.ceil((k // 2 + 1) / at_scale) for k in (up[i], skip[i])))
            deepest = max(deepest, math.ceil((down[i] // 2 + 1) / (at_scale // 2)))
    return deepest


def _reach(down: list[int], up: list[int], skip: list[int], downsampling: list[str]) -> int:
    """Return how many pixels away a pixel of the code may still change one of the output: a bound.

    A kernel of k reaches k // 2 of its own pixels, which are 2^i of the code's at scale i, and interpolation one of
    the coarser ones; the way through the deepest scale is the longest. Rounded up to a multiple of 2^scales.
    """
    widths = {"stride": 0, "average": 1, "max": 1, "lanczos2": 4, "lanczos3": 6}
    reach = 0
    for i, (first, last, beside, name) in enumerate(zip(down, up, skip, downsampling, strict=True)):
        pixel = 2**i
        reach += pixel * (first // 2 + widths[name] + 2 * (first // 2) + last // 2 + beside // 2 + 3)
    multiple = 2 ** len(down)
    return math.ceil(reach / multiple) * multiple
