"""Codes that are drawn once: noise, coordinates, a picture of the user's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dip import images
from dip.codes.frame import Frame
from dip.errors import positive_float, positive_int


@dataclass(frozen=True)
class _Noise:
    channels: int = 32
    scale: float = 0.1

    def __post_init__(self) -> None:
        positive_int(self.channels, "channels")
        positive_float(self.scale, "scale")


class Uniform(_Noise):
    """Independent uniform noise, z ~ U(0, scale): the code of most of the paper's experiments.

    Parameters
    ----------
    channels : int, default 32
        Channels of the code.
    scale : float, default 0.1
        Upper end of the range.
    """

    def draw(self, frame: Frame, generator: torch.Generator) -> Tensor:
        """Return z (see `Code.draw`)."""
        return torch.rand(1, self.channels, frame.height, frame.width, generator=generator).mul_(self.scale)


class Normal(_Noise):
    """Independent normal noise, z ~ N(0, scale²).

    Parameters
    ----------
    channels : int, default 32
        Channels of the code.
    scale : float, default 0.1
        Standard deviation.
    """

    def draw(self, frame: Frame, generator: torch.Generator) -> Tensor:
        """Return z (see `Code.draw`)."""
        return torch.randn(1, self.channels, frame.height, frame.width, generator=generator).mul_(self.scale)


@dataclass(frozen=True)
class Meshgrid:
    """The coordinates (x, y) of each pixel, from 0 to 1 over the image: the paper's code for large holes."""

    @property
    def channels(self) -> int:
        """Always 2: x and y."""
        return 2

    def draw(self, frame: Frame, generator: torch.Generator) -> Tensor:
        """Return z (see `Code.draw`)."""
        y, x = _coordinates(frame)
        return torch.stack([x.expand(frame.height, -1), y[:, None].expand(-1, frame.width)])[None].contiguous()


@dataclass(frozen=True)
class FourierFeatures:
    r"""Random Fourier features of the coordinates: cos(2π B v), sin(2π B v) with rows of B from N(0, frequency²).

    Parameters
    ----------
    channels : int, default 32
        Channels of the code, an even number: half are cosines, half sines.
    frequency : float, default 10
        Standard deviation of the frequencies, in cycles across the image.
    scale : float, default 0.1
        Amplitude.

    References
    ----------
    Tancik et al., "Fourier features let networks learn high frequency functions in low dimensional domains",
    NeurIPS 2020.
    """

    channels: int = 32
    frequency: float = 10.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        if positive_int(self.channels, "channels") % 2:
            raise ValueError(f"channels={self.channels}: Fourier features come in pairs; take an even number")
        positive_float(self.frequency, "frequency")
        positive_float(self.scale, "scale")

    def draw(self, frame: Frame, generator: torch.Generator) -> Tensor:
        """Return z (see `Code.draw`)."""
        y, x = _coordinates(frame)
        b = torch.randn(self.channels // 2, 2, generator=generator) * self.frequency
        angle = 2 * math.pi * (b[:, 0, None, None] * x + b[:, 1, None, None] * y[:, None])
        return torch.cat([angle.cos(), angle.sin()])[None].mul_(self.scale)


class Image:
    """An image as the code, such as the flash photograph for the picture taken without flash.

    Parameters
    ----------
    image : ndarray or Tensor
        A picture of the same height and width as the one to restore, in any layout that `dip.denoise` takes.
    data_range, channel_axis
        As in `dip.denoise`.

    Raises
    ------
    ValueError
        The picture has not the size of the image to restore, or its values are not what they should be.
    """

    def __init__(
        self,
        image: Any,
        *,
        data_range: float | tuple[float, float] | None = None,
        channel_axis: int | None = None,
    ) -> None:
        layout = images.describe(image, channel_axis=channel_axis, data_range=data_range, name="code image")
        self._pixels = images.to_tensor(image, layout, name="code image")

    @property
    def channels(self) -> int:
        """Channels of the picture."""
        return self._pixels.shape[1]

    def __repr__(self) -> str:
        return f"Image(shape={tuple(self._pixels.shape[1:])})"

    def draw(self, frame: Frame, generator: torch.Generator) -> Tensor:
        """Return z (see `Code.draw`); beyond the image's border its edge pixels go on."""
        given, needed = tuple(self._pixels.shape[2:]), (frame.inner_height, frame.inner_width)
        if given != needed:
            raise ValueError(
                f"the code image has {given[0]} x {given[1]} pixels (height x width) and the image to restore "
                f"{needed[0]} x {needed[1]}; resize the code image"
            )
        return frame.extend(self._pixels)


def _coordinates(frame: Frame) -> tuple[Tensor, Tensor]:
    """Return y (height,) and x (width,), 0 at the image's first pixel and 1 at its last."""
    y = (torch.arange(frame.height) - frame.top) / max(frame.inner_height - 1, 1)
    x = (torch.arange(frame.width) - frame.left) / max(frame.inner_width - 1, 1)
    return y, x
