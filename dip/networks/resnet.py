"""The ResNet: residual blocks at the resolution of the picture, none coarser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dip.networks import base
from dip.networks.base import ACTIVATIONS, PADDING, Network, one_of
from dip.networks.layers import Conv2d, applied, apply, finished


class ResNet(Network):
    """Residual blocks between two convolutions, all of them at the image's resolution.

    A 3 x 3 convolution and an activation begin. Each block adds to its input what two 3 x 3 convolutions, each with
    batch normalisation and an activation between them, make of it; where a block has another number of channels than
    the one before, its input passes through a 1 x 1 convolution with batch normalisation. A convolution with batch
    normalisation, one more convolution, and a sigmoid make the image.

    What it makes of a pixel depends on those nearer than `reach` alone, so that it knows little of what is coarse: the
    paper has it for comparison.

    Parameters
    ----------
    in_channels : int
        Channels of the code.
    out_channels : int, default 3
        Channels of the image.
    channels : sequence of int, default (32,) * 8
        Channels of each block.
    padding : {"reflect", "zero"}
        Padding of every convolution.
    activation : {"leaky_relu", "relu", "elu", "silu", "gelu", "none"}
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
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016. As a prior: Ulyanov, Vedaldi,
    Lempitsky, "Deep Image Prior", IJCV 2020.

    Examples
    --------
    >>> net = ResNet(32, 3, channels=[16] * 4)
    >>> net(torch.rand(1, 32, 61, 97)).shape
    torch.Size([1, 3, 61, 97])
    """

    narrower = 'network={"name": "resnet", "channels": [16] * 8}'

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        *,
        channels: Sequence[int] = (32,) * 8,
        padding: str = "reflect",
        activation: str = "leaky_relu",
        sigmoid: bool = True,
        norm_scale: str = "uniform",
        generator: torch.Generator | None = None,
    ) -> None:
        of_blocks = base.channels(channels, "block")
        super().__init__(in_channels, out_channels, 0, sigmoid=sigmoid, norm_scale=norm_scale)
        self.padding = one_of(padding, "padding", PADDING)
        one_of(activation, "activation", ACTIVATIONS)

        def convolved(inputs: int, outputs: int, kernel: int, activation: str | None = None) -> list[nn.Module]:
            return base.convolved(inputs, outputs, kernel=kernel, padding=padding, activation=activation, bias=False)

        def conv(inputs: int, outputs: int) -> Conv2d:
            return Conv2d(inputs, outputs, 3, stride=1, padding=padding, bias=True)

        self.first = nn.Sequential(conv(self.in_channels, of_blocks[0]), ACTIVATIONS[activation]())
        self.blocks, self.shortcuts = nn.ModuleList(), nn.ModuleList()
        inputs = of_blocks[0]
        for outputs in of_blocks:
            self.blocks.append(
                nn.Sequential(*convolved(inputs, outputs, 3, activation), *convolved(outputs, outputs, 3))
            )
            self.shortcuts.append(nn.Sequential(*(convolved(inputs, outputs, 1) if inputs != outputs else ())))
            inputs = outputs
        self.last = nn.Sequential(*base.convolved(inputs, inputs, padding=padding, activation=None))
        self.out = conv(inputs, self.out_channels)
        self.reach = 2 * len(of_blocks) + 3
        self.reset_parameters(generator)

    def forward(self, z: Tensor) -> Tensor:
        """Map a code (N, in_channels, H, W) to images (N, out_channels, H, W).

        Raises
        ------
        ValueError
            The code has other channels, or H or W is 1.
        """
        self.check(z)
        x = apply(self.first.children(), z)
        for block, shortcut in zip(self.blocks, self.shortcuts, strict=True):
            x = apply(shortcut.children(), x) + apply(block.children(), x)
        x, bias = applied([*self.last.children(), self.out], x)
        return finished(x, bias, self.sigmoid, self.out)
