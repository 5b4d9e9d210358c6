"""The U-Net: an encoder-decoder whose skip connections carry everything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dip.networks import base
from dip.networks.base import ACTIVATIONS, PADDING, UPSAMPLING, Network, one_of
from dip.networks.layers import Conv2d, applied, apply, finished, upsample


class UNet(Network):
    """The U-Net of Ronneberger et al., with batch normalisation and outputs of the code's size.

    At level i, counted from the image inwards, there are two 3 x 3 convolutions with `channels[i]` channels, each with
    batch normalisation and activation; from one level to the next the largest of 2 x 2 pixels is kept. On the way back
    the resolution is doubled, a 3 x 3 convolution takes the channels to those of the level, what the level had on the
    way in is joined, and two more follow. A last 1 x 1 convolution and a sigmoid make the image. (Published are 2 x 2
    transposed convolutions and no normalisation; the original code of Deep Image Prior has none on the way back.)

    Parameters
    ----------
    in_channels : int
        Channels of the code.
    out_channels : int, default 3
        Channels of the image.
    channels : sequence of int, default (16, 32, 64, 128, 256)
        Channels of each level, outermost first; the default is a quarter of the published ones, as in the original
        code.
    upsampling : {"bilinear", "nearest"}
        How the resolution is doubled.
    padding : {"reflect", "zero"}
        Padding of every convolution.
    activation : {"relu", "leaky_relu", "elu", "silu", "gelu", "none"}
        "leaky_relu" has slope 0.2.
    sigmoid : bool, default True
        Whether the output passes through a sigmoid, so that it lies in [0, 1].
    norm_scale : {"uniform", "one"}
        Where the scales of the batch normalisations begin: drawn from U(0, 1), as PyTorch 0.4 did, or at 1.
    generator : torch.Generator, optional
        Where the first weights are drawn from, on the CPU; PyTorch's global one by default.

    Raises
    ------
    ValueError, TypeError
        `channels` is no list of whole numbers above 0, or a name is unknown.

    References
    ----------
    Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015. As a
    prior: Ulyanov, Vedaldi, Lempitsky, "Deep Image Prior", IJCV 2020.

    Examples
    --------
    >>> net = UNet(32, 3)
    >>> net(torch.rand(1, 32, 64, 96)).shape
    torch.Size([1, 3, 64, 96])
    """

    narrower = 'network={"name": "unet", "channels": [16] * 5}'

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        *,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        upsampling: str = "bilinear",
        padding: str = "reflect",
        activation: str = "relu",
        sigmoid: bool = True,
        norm_scale: str = "uniform",
        generator: torch.Generator | None = None,
    ) -> None:
        levels = base.channels(channels, "level")
        super().__init__(in_channels, out_channels, len(levels) - 1, sigmoid=sigmoid, norm_scale=norm_scale)
        self.upsampling = one_of(upsampling, "upsampling", UPSAMPLING)
        self.padding = one_of(padding, "padding", PADDING)
        one_of(activation, "activation", ACTIVATIONS)

        def twice(inputs: int, outputs: int) -> list[nn.Module]:
            first = base.convolved(inputs, outputs, padding=padding, activation=activation)
            return first + base.convolved(outputs, outputs, padding=padding, activation=activation)

        self.down, self.narrow, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = self.in_channels
        for i, outputs in enumerate(levels):
            halved = [nn.MaxPool2d(2)] if i else []
            self.down.append(nn.Sequential(*halved, *twice(inputs, outputs)))
            inputs = outputs
        for outer, inner in itertools.pairwise(levels):
            self.narrow.append(Conv2d(inner, outer, 3, stride=1, padding=padding, bias=True))
            self.up.append(nn.Sequential(*twice(2 * outer, outer)))
        self.out = Conv2d(levels[0], self.out_channels, 1, stride=1, padding=padding, bias=True)
        self.reach = _reach(self.scales)
        self.reset_parameters(generator)

    def forward(self, z: Tensor) -> Tensor:
        """Map a code (N, in_channels, H, W) to images (N, out_channels, H, W).

        Raises
        ------
        ValueError
            The code has other channels, or H or W is not a size that `padded_size` returns.
        """
        self.check(z)
        skips, x = [], z
        for down in self.down:
            x = apply(down.children(), x)
            skips.append(x)
        for i in reversed(range(self.scales)):
            x = self.narrow[i](upsample(x, self.upsampling))
            x = apply(self.up[i].children(), torch.cat([x, skips[i]], 1))
        x, bias = applied([self.out], x)
        return finished(x, bias, self.sigmoid, self.out)


def _reach(scales: int) -> int:
    """Return how many pixels away a pixel of the code may still change one of the output: a bound.

    At level i, whose pixels are 2^i of the code's, four convolutions, one after the upsampling, the upsampling itself
    (a pixel of the next level) and what is kept of 2 x 2 add up. Rounded up to a multiple of 2^scales.
    """
    around = sum(2**i * (5 + 2 + 1) for i in range(scales)) + 2**scales * 2
    return math.ceil(around / 2**scales) * 2**scales
