"""The deep decoder: a picture from a small code by sums of channels and upsampling, with few weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dip.networks import base
from dip.networks.base import ACTIVATIONS, UPSAMPLING, Network, Upsample, one_of
from dip.networks.layers import Conv2d, applied, finished


class DeepDecoder(Network):
    r"""The deep decoder of Heckel and Hand: a decoder alone, without an encoder and without filters to learn.

    Of the layers i = 1 … d each takes sums of the channels of each pixel by itself (a 1 x 1 convolution without bias,
    C_i), doubles the resolution (U; the last layer does not), and has an activation and a batch normalisation:

        B_i = bn(act(U (C_i B_{i-1}))),    x = sigmoid(C B_d),    B_0 = z.

    The code z is smaller than the image by 2^(d-1) a side. With fewer weights than there are pixels the network can
    hardly fit noise, so it is stopped late or never; what it cannot fit, fine texture, is lost.

    Parameters
    ----------
    in_channels : int
        Channels of the code; published: as many as the first layer has.
    out_channels : int, default 3
        Channels of the image.
    channels : sequence of int, default (128,) * 6
        Channels of each layer, that at the code first. 128 are published for weak noise, 64 for strong.
    upsampling : {"bilinear", "nearest"}
        How the resolution is doubled.
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

    Notes
    -----
    A picture as the code (`dip.codes.OF_PICTURES`), flips and fits in crops (``tile=``) need a code of the image's
    size, and do not go with it.

    References
    ----------
    Heckel, Hand, "Deep Decoder: concise image representations from untrained non-convolutional networks", ICLR 2019.

    Examples
    --------
    >>> net = DeepDecoder(128, 3, channels=[128] * 6)
    >>> sum(p.numel() for p in net.parameters())
    100224
    >>> net(torch.rand(1, 128, 16, 16)).shape
    torch.Size([1, 3, 512, 512])
    """

    alive = 4
    narrower = 'network={"name": "deep-decoder", "channels": [64] * 6}'

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        *,
        channels: Sequence[int] = (128,) * 6,
        upsampling: str = "bilinear",
        activation: str = "relu",
        sigmoid: bool = True,
        norm_scale: str = "uniform",
        generator: torch.Generator | None = None,
    ) -> None:
        of_layers = base.channels(channels, "layer")
        super().__init__(in_channels, out_channels, len(of_layers) - 1, sigmoid=sigmoid, norm_scale=norm_scale)
        self.magnification = self.multiple
        one_of(upsampling, "upsampling", UPSAMPLING)
        one_of(activation, "activation", ACTIVATIONS)
        layers: list[nn.Module] = []
        inputs = self.in_channels
        for i, outputs in enumerate(of_layers):
            layers.append(_sums(inputs, outputs))
            if i < self.scales:
                layers.append(Upsample(upsampling))
            layers += [ACTIVATIONS[activation](), nn.BatchNorm2d(outputs)]
            inputs = outputs
        self.layers, self.out = nn.Sequential(*layers), _sums(inputs, self.out_channels)
        self.reset_parameters(generator)

    def forward(self, z: Tensor) -> Tensor:
        """Map a code (N, in_channels, H, W) to images (N, out_channels, 2^scales H, 2^scales W).

        Raises
        ------
        ValueError
            The code has other channels, or H or W is 1.
        """
        self.check(z)
        x, bias = applied([*self.layers.children(), self.out], z)
        return finished(x, bias, self.sigmoid, self.out)


def _sums(inputs: int, outputs: int) -> Conv2d:
    return Conv2d(inputs, outputs, 1, stride=1, padding="zero", bias=False)
