"""Networks by name, for presets and options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from dip.errors import unknown
from dip.networks.deep_decoder import DeepDecoder
from dip.networks.encoder_decoder import EncoderDecoder
from dip.networks.resnet import ResNet
from dip.networks.unet import UNet

_NETWORKS: dict[str, Callable[..., torch.nn.Module]] = {
    "encoder-decoder": EncoderDecoder,
    "unet": UNet,
    "resnet": ResNet,
    "deep-decoder": DeepDecoder,
}


def names() -> list[str]:
    """Return the names of the networks that can be created, sorted."""
    return sorted(_NETWORKS)


def register(name: str, network: Callable[..., torch.nn.Module]) -> None:
    """Make a network available by name.

    Parameters
    ----------
    name : str
        The name that presets and `dip.fit(network=...)` will use.
    network : callable
        ``network(in_channels, out_channels, *, generator, **options)`` returns a `torch.nn.Module` that maps
        a code (1, in_channels, H, W) to an image (1, out_channels, H, W). All its weights have to be drawn
        from `generator` (a `torch.Generator` on the CPU, or None for PyTorch's own). If not every H and W
        suit it, it has a method ``padded_size(height, width)`` that returns the next size up that does. If it casts
        its weights to the dtype of its code, it has an attribute ``follows_dtype = True``. If it makes the image of a
        smaller code, it has an attribute ``magnification``, how many times as high and wide the image is. To be fitted
        in crops (``tile=``) it has ``reach``, as how many pixels away a pixel of the code may still change one of the
        image, and ``multiple``, what its sizes are multiples of.

    Raises
    ------
    ValueError
        The name is taken.
    """
    if name in _NETWORKS:
        raise ValueError(f"a network named {name!r} is registered already; choose another name")
    _NETWORKS[name] = network


def create(
    name: str,
    in_channels: int,
    out_channels: int,
    *,
    generator: torch.Generator | None = None,
    **options: Any,
) -> torch.nn.Module:
    """Create a network by name.

    Parameters
    ----------
    name : str
        One of `names()`.
    in_channels, out_channels : int
        Channels of the code and of the image.
    generator : torch.Generator, optional
        Where the first weights are drawn from, on the CPU.
    **options
        The network's own options.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        The name or an option is unknown, or the options do not fit together.
    """
    if not isinstance(name, str) or name not in _NETWORKS:
        raise unknown("network", name, _NETWORKS)
    network = _NETWORKS[name]
    parameters = inspect.signature(network).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        allowed = [option for option in parameters if option not in ("in_channels", "out_channels", "generator")]
        for option in options:
            if option not in allowed:
                raise unknown(f"option of network {name!r}:", option, allowed)
    return network(in_channels, out_channels, generator=generator, **options)
