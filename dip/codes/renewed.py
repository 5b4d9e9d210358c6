"""Codes that are made from what was observed, and made anew as the fit gets better."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from dip import guides
from dip.codes.frame import Frame
from dip.errors import non_negative_int, positive_float
from dip.noise import level_and_spectrum, total


@dataclass(frozen=True)
class _Renewed:
    """What codes have in common that show the network pictures of what it is to make, and are made anew on the way."""

    scale: float | None = None
    noise: int = 8
    renewed: int = 100
    image_channels: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.scale is not None:
            positive_float(self.scale, "scale")
        non_negative_int(self.noise, "noise")
        non_negative_int(self.renewed, "renewed")

    def renews(self, iteration: int, tiles: int = 1) -> bool:
        """Tell whether there are new pictures after so many iterations, of a picture of so many tiles."""
        return iteration > 0 and self.renewed > 0 and iteration % (self.renewed * tiles) == 0

    def begun(self, task: Any, y: Tensor) -> tuple[Self, Tensor]:
        """Return the code of a fit, and the picture that it is drawn from, of what was observed."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned on the way."""
        return {}

    def recalled(self, state: dict[str, Any]) -> Self:
        """Return the code as it was when it returned that `state_dict`."""
        return self

    def renew(self, z: Tensor, frame: Frame, task: Any, y: Tensor, average: Tensor, iteration: int) -> Self:
        """Make the pictures in z anew, of what was observed and the average of the outputs after so many iterations.

        What is returned is the code to go on with: another, where the fit tells what was not known before.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Denoised(_Renewed):
    """The noisy picture itself after filters, and uniform noise: a code from which a fit starts far ahead.

    As with `Image`, the network is shown what is where and has to find out the rest; but nothing besides the noisy
    picture is needed. The first picture is that of scikit-image's non-local means, the others are those of an empirical
    Wiener filter, a light and a full one (`dip.guides.wiener`), for which a pilot has to tell what is not noise. At
    first that is the mean of non-local means and total variation (Chambolle). Every `renewed` iterations both are made
    anew, with the average of the fit's own outputs as the pilot (in a fit in crops, which has none, with its output):
    the better the fit, the better its code. (One that is itself optimised is left alone.) What the filters get wrong
    does not stay: the network is fitted to the noisy picture, not to theirs.

    Pixels that are missing (the `mask` of `dip.Denoise`) are at first filled in from those about them, and ten times in
    turns as the filter then has them; later as the average has them.

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
        The standard deviation of the noise, where white is 1, if it is known; with the `noise` of `dip.Denoise`, that
        of what the fit sees. By default it is what follows from that `noise`, or what is found in the picture: by
        `dip.noise.spectrum` where it is not independent from pixel to pixel and from colour to colour, else by
        `dip.noise.noise_level`. What is told here is that of independent noise.
    spectrum : Tensor, optional
        Its standard deviations by frequency (`dip.noise.spectrum`); a fit fills them in.
    doubted : bool, optional
        Whether these were once far more than what the fit left of y, and follow that since; a fit fills it in.

    Notes
    -----
    For `dip.Denoise` alone: elsewhere what was observed is no picture of the same size.

    References
    ----------
    To let the network's outputs become its input: Alkhouri, Liang, Bell, Qu, Wang, Ravishankar, "Image reconstruction
    via autoencoding sequential deep image prior", NeurIPS 2024.
    """

    level: float | None = None
    spectrum: Tensor | None = field(default=None, repr=False, compare=False)
    doubted: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level is not None:
            positive_float(self.level, "level")

    @property
    def channels(self) -> int:
        """Three for each of the picture's, and those of noise."""
        return 3 * self.image_channels + self.noise

    def draw(self, frame: Frame, generator: torch.Generator, picture: Tensor | None = None) -> Tensor:
        """Return z of a noisy picture (1, image_channels, inner_height, inner_width) in [0, 1] (see `Code.draw`)."""
        if picture is None:
            raise ValueError("a Denoised code is drawn from the noisy picture; in a fit it is, of dip.Denoise alone")
        told = self if self.level is not None else self._told(picture)
        level, _ = told._noise
        pictures = self.scaled(torch.cat(told.pictures(picture), dim=1), frame, level)
        return _beside_noise(pictures, self.noise, frame, generator)

    def begun(self, task: Any, y: Tensor) -> tuple[Self, Tensor]:
        """Return the code with what is known of the noise, and the noisy picture itself."""
        told = self if self.level is not None else replace(self, level=task.level, spectrum=task.spectrum)
        whole = task.whole(y)
        if whole is not y:  # pixels are missing
            level, sigma = told._noise
            pilot = guides.pilot(whole, level)
            for _ in range(_FILLED):
                (pilot,) = guides.wiener(whole, pilot, sigma)
                whole = task.whole(y, pilot)
        return told, whole

    def renew(self, z: Tensor, frame: Frame, task: Any, y: Tensor, average: Tensor, iteration: int) -> Self:
        """Make the pictures of the Wiener filter in z anew, with the average of the outputs as the pilot.

        Structure that is everywhere may have been taken for noise with a `spectrum`. If what the average leaves of y is
        independent from pixel to pixel and from channel to channel, in the first 400 iterations, so is the noise. Nor
        can noise be much stronger than what is left. Where it is so in the first 200 iterations the code goes on with
        less, from there on at each renewal. Then the picture of non-local means is made anew.
        """
        told = self._sobered(task, y, average, iteration)
        level, sigma = told._noise
        whole, first = task.whole(y, average), self.image_channels
        pictures = guides.wiener(whole, average, sigma, _GAINS)
        if told is not self:
            pictures, first = [guides.non_local_means(whole.cpu(), level).to(whole), *pictures], 0
        with torch.no_grad():
            z[:, first : 3 * self.image_channels] = told.scaled(torch.cat(pictures, dim=1), frame, level)
        return told

    def _sobered(self, task: Any, y: Tensor, average: Tensor, iteration: int) -> Self:
        """Return the code with what noise there can be at most; itself where that is hardly less than is believed."""
        if self.spectrum is None:
            return self
        rest = y - average
        level = task.independent(rest, y) if iteration <= _ASKED else None
        if level is not None:
            return replace(self, level=max(min(level, self._noise[0]), 1e-6), spectrum=None)
        last, much_less = (_DOUBTED, _LESS) if self.doubted else (_FIRST_DOUBTED, _MUCH_LESS)
        if iteration > last:
            return self
        found = torch.minimum(self.spectrum, task.at_most(rest, y))
        left = total(found)
        if left >= much_less * total(self.spectrum):
            return self
        return replace(self, level=max(left, 1e-6), spectrum=found, doubted=True)

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the noise by now."""
        return {"level": self.level, "spectrum": self.spectrum, "doubted": self.doubted}

    def recalled(self, state: dict[str, Any]) -> Self:
        """Return the code as it was when it returned that `state_dict`."""
        return replace(self, **state)

    def pictures(self, picture: Tensor) -> list[Tensor]:
        """Return what goes into the code at first of a noisy picture, the level of whose noise is known by now."""
        level, sigma = self._noise
        means, variation = guides.denoised(picture, level)
        return [means, *guides.wiener(picture, (means + variation) / 2, sigma, _GAINS)]

    @property
    def _noise(self) -> tuple[float, float | Tensor]:
        """The level of the noise, and what the Wiener filter takes for it."""
        assert self.level is not None  # see `begun`
        return self.level, self.level if self.spectrum is None else self.spectrum

    def _told(self, picture: Tensor) -> Self:
        """Return the code with what the picture tells of its noise: the level and, if it takes one, the spectrum."""
        level, found = level_and_spectrum(picture)
        return replace(self, level=level, spectrum=found)

    def scaled(self, pictures: Tensor, frame: Frame, level: float) -> Tensor:
        """Return pictures as they go into the code: about 0, scaled, and of the frame's size."""
        scale = min(1.0, _LIKE_JITTER / max(level, 1e-6)) if self.scale is None else self.scale
        return _about_zero(pictures, frame, scale)


@dataclass(frozen=True)
class Autoencoding(_Renewed):
    """The average of the fit's own outputs, made consistent with what was observed, and uniform noise.

    At first it is the observation turned into a whole picture: a small one enlarged, or one with its missing pixels
    filled in by Wiener filters in turns (`dip.guides.inpainted`). Every `renewed` iterations it is the average of the
    outputs (in a fit in crops, which has none, the output), corrected so that A x comes to y: what the network has
    found of detail stays, and what it got wrong of the rest does not go round. (A code that is itself optimised is left
    alone.)

    Parameters
    ----------
    scale : float, optional
        Factor of the picture, whose mean is taken off; what the jitter adds is to be compared with it. By default it is
        (4 / factor)^0.75: the more is unknown, the more of the picture the jitter hides. (The factor is that of
        super-resolution, 1 elsewhere.) Of a JPEG and of missing pixels it is 0.067 / σ, with the error σ that the
        first picture is found to have: an error comes to two thirds of the jitter of 0.1 that the preset has.
    noise : int, default 8
        Channels of uniform noise beside it, U(0, 0.1).
    renewed : int, default 25
        After how many iterations the picture is made anew, again and again (in a fit in crops: of each tile, and not
        after its statistics are frozen); 0 = never.
    grown : int, default 0
        After how many iterations (of each tile) the picture has its scale. It begins with nothing and becomes stronger
        with each renewal: what is finer than the first picture can tell, such as thin letters half of which is missing,
        is found from the noise beside it, as from a code of noise, and the picture comes when it is worth it.
    image_channels, factor : int, optional
        Channels of the picture, and how many times larger it is than what was observed; a fit fills them in.

    Notes
    -----
    For tasks that say what is consistent with their observation: `dip.SuperResolve`, where what was observed is brought
    back by iterative back-projection, `dip.Inpaint`, by a light filter and the known pixels in turns, `dip.Deblur`, by
    a regularised deconvolution, `dip.Dejpeg`, into the intervals of the coefficients, and `dip.Reconstruct`, where A is
    linear, by least squares.

    References
    ----------
    Alkhouri, Liang, Bell, Qu, Wang, Ravishankar, "Image reconstruction via autoencoding sequential deep image prior",
    NeurIPS 2024, where the output becomes the input by and by, without the correction.
    """

    renewed: int = 25
    grown: int = 0
    factor: int = field(default=1, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        non_negative_int(self.grown, "grown")
        if self.grown and not self.renewed:
            raise ValueError(f"grown={self.grown}: a picture that is never renewed (renewed=0) cannot grow")

    @property
    def channels(self) -> int:
        """The picture's, and those of noise."""
        return self.image_channels + self.noise

    def draw(self, frame: Frame, generator: torch.Generator, picture: Tensor | None = None) -> Tensor:
        """Return z of a first picture (1, image_channels, inner_height, inner_width) (see `Code.draw`)."""
        if picture is None:
            raise ValueError("an Autoencoding code is drawn from a first picture; in a fit it is made by the task")
        return _beside_noise(self._scaled(picture, frame, 0), self.noise, frame, generator)

    def begun(self, task: Any, y: Tensor) -> tuple[Self, Tensor]:
        """Return the code, with the scale that suits it, and the picture that the task makes of what was observed."""
        first = task.consistent(None, y)
        error = getattr(task, "error", None) if self.scale is None else None
        if error is None:
            return self, first
        return replace(self, scale=_HIDDEN / max(float(error), 1 / 255)), first

    def renew(self, z: Tensor, frame: Frame, task: Any, y: Tensor, average: Tensor, iteration: int) -> Self:
        """Put the average of the outputs into z, corrected."""
        with torch.no_grad():
            z[:, : self.image_channels] = self._scaled(task.consistent(average, y), frame, iteration)
        return self

    def _scaled(self, picture: Tensor, frame: Frame, iteration: int) -> Tensor:
        scale = (4 / self.factor) ** 0.75 if self.scale is None else self.scale
        return _about_zero(picture, frame, scale * min(1.0, iteration / self.grown) if self.grown else scale)


_GAINS = (0.5, 1.0)  # of the light and of the full filter
_ASKED = 400  # iterations in which what is left tells what the noise is
_FIRST_DOUBTED, _DOUBTED = 200, 600  # iterations in which a spectrum is, or goes on being; later, noise is learnt
_MUCH_LESS, _LESS = 0.8, 0.95  # times what was believed
_FILLED = 10  # times that missing pixels are filled in as the filter has them
_LIKE_JITTER = 0.03  # what becomes of the noise's standard deviation
_HIDDEN = 0.067  # what becomes of the error of a first picture, beside a jitter of 0.1


def _about_zero(pictures: Tensor, frame: Frame, scale: float) -> Tensor:
    """Return pictures without their means, scaled, and of the frame's size."""
    return frame.extend(pictures - pictures.mean((2, 3), keepdim=True)).mul_(scale)


def _beside_noise(pictures: Tensor, channels: int, frame: Frame, generator: torch.Generator) -> Tensor:
    """Return pictures with so many channels of uniform noise behind them."""
    noise = torch.rand(1, channels, frame.height, frame.width, generator=generator).mul_(0.1)
    return torch.cat([pictures, noise], dim=1)
