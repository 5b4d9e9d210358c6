"""What the networks of the package have in common: checks of their options, first weights, sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dip.errors import positive_int, shown, unknown, yes_or_no
from dip.networks.layers import Conv2d, upsample

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.2, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "none": nn.Identity,
}
UPSAMPLING = ("bilinear", "nearest")
PADDING = ("reflect", "zero")
NORM_SCALE = ("uniform", "one")


class Network(nn.Module):
    """A network f_θ: its sizes, and its weights from a generator.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the code and of the image.
    scales : int
        How often the resolution is doubled on the way to the image.
    sigmoid : bool
        Whether the output passes through a sigmoid.
    norm_scale : {"uniform", "one"}
        Where the scales of the batch normalisations begin: drawn from U(0, 1), or at 1.

    Attributes
    ----------
    follows_dtype : bool
        That it computes in the dtype of its code.
    magnification : int
        How many times as high and wide as its code the image is.
    multiple : int
        What the height and width of an image are multiples of.
    alive : int
        How many tensors as large as the largest are alive at a time on the way back, for the estimate of the memory.
    narrower : str
        How to ask for fewer channels, for that one's message.
    """

    follows_dtype = True
    magnification = 1
    alive = 3
    narrower: str

    def __init__(self, in_channels: int, out_channels: int, scales: int, *, sigmoid: bool, norm_scale: str) -> None:
        super().__init__()
        self.in_channels = positive_int(in_channels, "in_channels")
        self.out_channels = positive_int(out_channels, "out_channels")
        self.sigmoid = yes_or_no(sigmoid, "sigmoid")
        self.norm_scale = one_of(norm_scale, "norm_scale", NORM_SCALE)
        self.scales, self.multiple = scales, 2**scales
        self._deepest = 2  # pixels a side: statistics need more than one, and so does padding by reflection

    def extra_repr(self) -> str:
        """Return what the layers do not say of themselves; checkpoints compare it."""
        said = [f"{name}={getattr(self, name)!r}" for name in ("upsampling", "padding") if hasattr(self, name)]
        return ", ".join([*said, f"sigmoid={self.sigmoid}"])

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew."""
        for module in self.modules():
            if isinstance(module, Conv2d):
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        for module in self.modules():  # after the convolutions, which are the same for either choice
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                if self.norm_scale == "uniform":
                    nn.init.uniform_(module.weight, generator=generator)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the smallest size the network can make that holds an image of `height` x `width`.

        Both sides are multiples of 2^scales, and large enough for the padding and for the batch statistics
        at the deepest scale.
        """
        smallest = self.multiple * self._deepest
        return (
            max(smallest, math.ceil(height / self.multiple) * self.multiple),
            max(smallest, math.ceil(width / self.multiple) * self.multiple),
        )

    def check(self, z: Tensor) -> None:
        """Refuse a code that the network cannot take.

        Raises
        ------
        ValueError
            The code has other channels, or H or W is not a size that `padded_size` returns.
        """
        if z.ndim != 4 or z.shape[1] != self.in_channels:
            raise ValueError(f"the code has shape {tuple(z.shape)}; (N, {self.in_channels}, H, W) is needed")
        size = (z.shape[2] * self.magnification, z.shape[3] * self.magnification)
        padded = self.padded_size(*size)
        if size != padded:
            needed = tuple(side // self.magnification for side in padded)
            fewer = " or take fewer scales" if self.scales else ""
            raise ValueError(
                f"a network of {self.scales} scales cannot make {size[0]} x {size[1]} pixels; "
                f"pad the code to {needed} (see padded_size){fewer}"
            )


class Upsample(nn.Module):
    """Twofold upsampling, "bilinear" or "nearest", as a layer."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def extra_repr(self) -> str:
        """Return the mode; checkpoints compare it."""
        return self.mode

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 2H, 2W)."""
        return upsample(x, self.mode)


def one_of(value: Any, name: str, allowed: Collection[str]) -> str:
    """Check a choice between names.

    Raises
    ------
    ValueError
        It is none of them.
    """
    if not isinstance(value, str) or value not in allowed:
        raise unknown(name, value, allowed)
    return value


def listed(values: Sequence[int], name: str, each: str) -> list[int]:
    """Return a list of numbers of channels as a list; `each` is what there is one entry for.

    Raises
    ------
    ValueError
        It is no list, but one number, say.
    """
    try:
        ordered = [] if isinstance(values, str | bytes | dict | set) else list(values)
    except TypeError:
        ordered = []
    if not ordered and not isinstance(values, list | tuple):
        raise ValueError(f"{name}={shown(values)}: a list of channels is needed, one entry a {each}, such as [128] * 5")
    return ordered


def channels(values: Sequence[int], each: str) -> list[int]:
    """Check the list `channels`, with one entry for each of something.

    Raises
    ------
    ValueError, TypeError
        It is no list, is empty, or an entry is not a whole number from 1 up.
    """
    found = listed(values, "channels", each)
    if not found:
        raise ValueError(f"channels={values!r}: at least one {each} is needed")
    return [positive_int(value, f"channels[{i}]") for i, value in enumerate(found)]


def convolved(
    inputs: int,
    outputs: int,
    *,
    padding: str,
    activation: str | None,
    kernel: int = 3,
    stride: int = 1,
    bias: bool = True,
    halving: nn.Module | None = None,
) -> list[nn.Module]:
    """Return a convolution, what halves the resolution after it, its batch normalisation and the activation.

    The second and the last only where they are given.
    """
    conv = Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias)
    layers: list[nn.Module] = [conv] if halving is None else [conv, halving]
    layers.append(nn.BatchNorm2d(outputs))
    return layers if activation is None else [*layers, ACTIVATIONS[activation]()]
