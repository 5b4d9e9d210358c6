"""The code z that the network turns into the image, and its jitter.

A code is drawn once, before the fit; the jitter is fresh noise that is added to it at every iteration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from dip import guides, images
from dip.errors import non_negative_int, positive_float, positive_int, shown, unknown
from dip.noise import noise_level


@dataclass(frozen=True)
class Frame:
    """Where the image lies in what the network makes: the network's size, and the image's window in it."""

    height: int
    width: int
    top: int
    left: int
    inner_height: int
    inner_width: int

    @classmethod
    def around(cls, size: tuple[int, int], padded: tuple[int, int]) -> Frame:
        """Centre an image of `size` (H, W) in `padded` (H, W)."""
        return cls(*padded, (padded[0] - size[0]) // 2, (padded[1] - size[1]) // 2, *size)

    def crop(self, x: Tensor) -> Tensor:
        """Cut the image's window out of (..., height, width)."""
        if (self.height, self.width) == (self.inner_height, self.inner_width):
            return x
        return x[..., self.top : self.top + self.inner_height, self.left : self.left + self.inner_width]

    def extend(self, x: Tensor) -> Tensor:
        """Let the edge pixels of (1, C, inner_height, inner_width) go on to the frame's size."""
        right = self.width - self.left - self.inner_width
        bottom = self.height - self.top - self.inner_height
        return F.pad(x, (self.left, right, self.top, bottom), mode="replicate")


@runtime_checkable
class Code(Protocol):
    """What can be a code: it has a number of channels and can be drawn at a size."""

    @property
    def channels(self) -> int:
        """Number of channels of the code."""

    def draw(self, frame: Frame, generator: torch.Generator) -> Tensor:
        """Return z, float32 of shape (1, channels, frame.height, frame.width), on the CPU."""


@dataclass(frozen=True)
class Uniform:
    """Independent uniform noise, z ~ U(0, scale): the code of most of the paper's experiments.

    Parameters
    ----------
    channels : int, default 32
        Channels of the code.
    scale : float, default 0.1
        Upper end of the range.
    """

    channels: int = 32
    scale: float = 0.1

    def __post_init__(self) -> None:
        positive_int(self.channels, "channels")
        positive_float(self.scale, "scale")

    def draw(self, frame: Frame, generator: torch.Generator) -> Tensor:
        """Return z (see `Code.draw`)."""
        return torch.rand(1, self.channels, frame.height, frame.width, generator=generator).mul_(self.scale)


@dataclass(frozen=True)
class Normal:
    """Independent normal noise, z ~ N(0, scale²).

    Parameters
    ----------
    channels : int, default 32
        Channels of the code.
    scale : float, default 0.1
        Standard deviation.
    """

    channels: int = 32
    scale: float = 0.1

    def __post_init__(self) -> None:
        positive_int(self.channels, "channels")
        positive_float(self.scale, "scale")

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


@dataclass(frozen=True)
class Denoised:
    """The noisy picture itself after filters, and uniform noise: a code from which a fit starts far ahead.

    As with `Image`, the network is shown what is where and has to find out the rest; but nothing besides the noisy
    picture is needed. The first picture is that of scikit-image's non-local means, the others are those of an empirical
    Wiener filter, a light and a full one (`dip.guides.wiener`), for which a pilot has to tell what is not noise. At
    first that is the mean of non-local means and total variation (Chambolle). Every `renewed` iterations both are made
    anew, with the average of the fit's own outputs as the pilot (in a fit in crops, which has none, with its output):
    the better the fit, the better its code. (One that is itself optimised is left alone.) What the filters get wrong
    does not stay: the network is fitted to the noisy picture, not to theirs.

    Parameters
    ----------
    scale : float, optional
        Factor of the pictures, whose mean is taken off; what the jitter adds is to be compared with it. By default it
        is 0.03 / σ, at most 1, with the level σ of the noise that was found: the stronger the noise, the more of a
        picture the jitter hides.
    noise : int, default 8
        Channels of uniform noise beside them, U(0, 0.1).
    renewed : int, default 100
        After how many iterations the pictures of the Wiener filter are made anew, again and again (in a fit in crops:
        of each tile, and not after its statistics are frozen); 0 = never.
    image_channels : int, optional
        Channels of the noisy picture; a fit fills them in.
    level : float, optional
        The standard deviation of the noise, where white is 1, if it is known. By default it is what is found in the
        picture (`dip.noise.noise_level`), which supposes that it is independent from pixel to pixel.

    Notes
    -----
    For `dip.Denoise` alone: elsewhere what was observed is no picture of the same size.

    References
    ----------
    To let the network's outputs become its input: Alkhouri, Liang, Bell, Qu, Wang, Ravishankar, "Image reconstruction
    via autoencoding sequential deep image prior", NeurIPS 2024.
    """

    scale: float | None = None
    noise: int = 8
    renewed: int = 100
    image_channels: int = 0
    level: float | None = None

    def __post_init__(self) -> None:
        for name in ("scale", "level"):
            if getattr(self, name) is not None:
                positive_float(getattr(self, name), name)
        non_negative_int(self.noise, "noise")
        non_negative_int(self.renewed, "renewed")

    @property
    def channels(self) -> int:
        """Three for each of the picture's, and those of noise."""
        return 3 * self.image_channels + self.noise

    def draw(self, frame: Frame, generator: torch.Generator, picture: Tensor | None = None) -> Tensor:
        """Return z of a noisy picture (1, image_channels, inner_height, inner_width) in [0, 1] (see `Code.draw`)."""
        if picture is None:
            raise ValueError("a Denoised code is drawn from the noisy picture; in a fit it is, of dip.Denoise alone")
        level = noise_level(picture) if self.level is None else self.level
        pictures = self.scaled(torch.cat(self.pictures(picture, level), dim=1), frame, level)
        beside = torch.rand(1, self.noise, frame.height, frame.width, generator=generator).mul_(0.1)
        return torch.cat([pictures, beside], dim=1)

    def renews(self, iteration: int, tiles: int = 1) -> bool:
        """Tell whether there are new pictures after so many iterations, of a picture of so many tiles."""
        return iteration > 0 and self.renewed > 0 and iteration % (self.renewed * tiles) == 0

    def renew(self, z: Tensor, frame: Frame, average: Tensor, picture: Tensor, level: float) -> None:
        """Make the pictures of the Wiener filter in z anew, with the average of the outputs as the pilot."""
        filtered = torch.cat(guides.wiener(picture, average, level, _GAINS), dim=1)
        with torch.no_grad():
            z[:, self.image_channels : 3 * self.image_channels] = self.scaled(filtered, frame, level)

    def pictures(self, picture: Tensor, level: float) -> list[Tensor]:
        """Return what goes into the code of a noisy picture whose noise has this standard deviation."""
        means, variation = guides.denoised(picture, level)
        return [means, *guides.wiener(picture, (means + variation) / 2, level, _GAINS)]

    def scaled(self, pictures: Tensor, frame: Frame, level: float) -> Tensor:
        """Return pictures as they go into the code: about 0, scaled, and of the frame's size."""
        scale = min(1.0, _LIKE_JITTER / max(level, 1e-6)) if self.scale is None else self.scale
        return frame.extend(pictures - pictures.mean((2, 3), keepdim=True)).mul_(scale)


OF_PICTURES = (Image, Denoised)
"""Codes that show the network what is where; they belong to one picture."""

_GAINS = (0.5, 1.0)  # of the light and of the full filter
_LIKE_JITTER = 0.03  # what becomes of the noise's standard deviation


def draw(code: Code, frame: Frame, seed: int, picture: Tensor | None = None) -> Tensor:
    """Draw a code with a seed of its own, from the observed picture where it is made of that, and check what came.

    Raises
    ------
    ValueError
        A code of one's own returned another shape than (1, channels, frame.height, frame.width), or NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    z = code.draw(frame, generator, picture) if isinstance(code, Denoised) else code.draw(frame, generator)
    expected = (1, code.channels, frame.height, frame.width)
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
        A name ("uniform", "normal", "meshgrid", "fourier", "denoised"), a code of this module, or any object with
        `channels` and `draw`.

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


_CODES: dict[str, type] = {
    "uniform": Uniform,
    "normal": Normal,
    "meshgrid": Meshgrid,
    "fourier": FourierFeatures,
    "denoised": Denoised,
}


def _coordinates(frame: Frame) -> tuple[Tensor, Tensor]:
    """Return y (height,) and x (width,), 0 at the image's first pixel and 1 at its last."""
    y = (torch.arange(frame.height) - frame.top) / max(frame.inner_height - 1, 1)
    x = (torch.arange(frame.width) - frame.left) / max(frame.inner_width - 1, 1)
    return y, x
