"""The code z that the network turns into the image.

A code is drawn once, before the fit; some are made anew on the way. The jitter (`dip.jitter`) is fresh noise that is
added to it at every iteration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dip.codes.drawn import FourierFeatures, Image, Meshgrid, Normal, Uniform
from dip.codes.frame import Code, Frame
from dip.codes.held_out import HeldOut
from dip.codes.renewed import Autoencoding, Denoised
from dip.errors import shown, unknown

__all__ = [
    "OBSERVED",
    "OF_PICTURES",
    "RENEWED",
    "Autoencoding",
    "Code",
    "Denoised",
    "FourierFeatures",
    "Frame",
    "HeldOut",
    "Image",
    "Meshgrid",
    "Normal",
    "Uniform",
    "create",
    "draw",
    "of_image",
]

OF_PICTURES = (Image, Denoised, Autoencoding, HeldOut)
"""Codes that show the network what is where; they belong to one picture."""

RENEWED = (Denoised, Autoencoding)
"""Codes that are made from the observation, and anew on the way."""

OBSERVED = (*RENEWED, HeldOut)
"""Codes that are made from the observation."""


def draw(code: Code, frame: Frame, seed: int, picture: Tensor | None = None) -> Tensor:
    """Draw a code with a seed of its own, from a picture where it is made of one, and check what came.

    Raises
    ------
    TypeError, ValueError
        A code of one's own returned no tensor, another shape than (1, channels, frame.height, frame.width), or NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    z = code.draw(frame, generator, picture) if isinstance(code, OBSERVED) else code.draw(frame, generator)
    expected = (1, code.channels, frame.height, frame.width)
    if not isinstance(z, Tensor):
        raise TypeError(f"code={shown(code)} drew {shown(z)}; a tensor of shape {expected} is needed")
    if tuple(z.shape) != expected or not torch.isfinite(z).all():
        raise ValueError(
            f"code={shown(code)} drew a tensor of shape {tuple(z.shape)}; {expected} is needed, without NaN"
        )
    return z.float()


def create(code: Any) -> Code:
    """Return the code meant by `code`.

    Parameters
    ----------
    code : str or Code
        A name ("uniform", "normal", "meshgrid", "fourier", "denoised", "autoencoding", "held-out"), a code of
        this module, or any object with `channels` and `draw`.

    Raises
    ------
    ValueError
        The name is unknown.
    TypeError
        It is nothing of the kind.
    """
    if isinstance(code, str):
        if code not in _CODES:
            raise unknown("code", code, _CODES)
        return _CODES[code]()
    if isinstance(code, type) or not isinstance(code, Code):
        raise TypeError(
            f"code={shown(code)}: give a name ({', '.join(_CODES)}) or a code such as dip.codes.Uniform(32); "
            "for an image, dip.codes.Image(image)"
        )
    return code


def of_image(code: Code, channels: int, factor: int = 1) -> Code:
    """Return the code for an image of so many channels, so many times larger than what was observed."""
    if isinstance(code, Autoencoding):
        return replace(code, image_channels=channels, factor=factor)
    return replace(code, image_channels=channels) if isinstance(code, Denoised | HeldOut) else code


_CODES: dict[str, type] = {
    "uniform": Uniform,
    "normal": Normal,
    "meshgrid": Meshgrid,
    "fourier": FourierFeatures,
    "denoised": Denoised,
    "autoencoding": Autoencoding,
    "held-out": HeldOut,
}


def _about_zero(pictures: Tensor, frame: Frame, scale: float) -> Tensor:
    """Return pictures without their means, scaled, and of the frame's size."""
    return frame.extend(pictures - pictures.mean((2, 3), keepdim=True)).mul_(scale)


def _beside_noise(pictures: Tensor, channels: int, frame: Frame, generator: torch.Generator) -> Tensor:
    """Return pictures with so many channels of uniform noise behind them."""
    noise = torch.rand(1, channels, frame.height, frame.width, generator=generator).mul_(0.1)
    return torch.cat([pictures, noise], dim=1)
