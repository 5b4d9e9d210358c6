"""The task of a noisy picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dip import losses, ranges
from dip.errors import warn
from dip.noise import Noise, PoissonGaussian, Stabilising, found
from dip.noise.growing import growth
from dip.noise.level import MORE
from dip.noise.model import POISSON, check
from dip.problem import Observation
from dip.stopping import Discrepancy, Rule
from dip.tasks import DataRange, ImageTask


class Denoise(ImageTask):
    """Denoising: A = identity, y = x + noise.

    Parameters
    ----------
    image : ndarray or Tensor
        The noisy image. Arrays: (H, W), (H, W, 3), or (H, W, 4) = RGBA (its alpha is kept); tensors: (H, W),
        (C, H, W) or (1, C, H, W). uint8, uint16, floats; other integers with a `data_range`.
    noise : {"gaussian", "poisson"} or PoissonGaussian, optional
        "gaussian" (the default): the same everywhere. "poisson": it grows with the light, as that of few photons or of
        a camera without processing; its gain, read noise and offset are found in the image (`dip.noise.found`). Where
        they are known, give a `dip.noise.PoissonGaussian`. Then y and x are on a scale on which the noise is the same
        everywhere (`dip.noise.Stabilising`), and what is returned is brought back.
    data_range : float or (float, float), optional
        Range of the *clean* image: white, or (black, white). By default the integer type's range, and [0, 1] for
        floats; of a uint16 image whose values have room in 8, 10, 12 or 14 bits the range of these, with a warning.
        Noise may overshoot it.
    channel_axis : int, optional
        Position of the channels in any other layout, with any number of them.

    Attributes
    ----------
    noise : PoissonGaussian or None
        What is taken of the noise that grows with the light, in the numbers of the image: as given, or as found once
        a fit was made; None where it is the same everywhere.
    level : float or None
        Standard deviation of the noise in the fit's y, increased as that of `dip.noise.noise_level` is; None where that
        is to be found.

    Raises
    ------
    TypeError, ValueError
        The image's type, dtype, shape or values are not of that kind, nor is the noise.
    """

    task = "denoise"

    def __init__(
        self, image: Any, *, noise: Noise = None, data_range: DataRange = None, channel_axis: int | None = None
    ) -> None:
        super().__init__(image, data_range=data_range, channel_axis=channel_axis)
        self.layout = ranges.narrowed(image, self.layout)
        self._given = check(noise)
        self.noise = self._given if isinstance(self._given, PoissonGaussian) else None
        self.level: float | None = None
        self._stabilising: Stabilising | None = None
        self._silent = self._given is not None
        if self._grows:
            self.spread = math.inf  # of means, not of pixels, it is told here what is plausible

    @property
    def _grows(self) -> bool:
        """Whether noise is said to grow with the light."""
        return self._given == POISSON or (isinstance(self._given, PoissonGaussian) and self._given.gain > 0)

    def load(self) -> Observation:
        """Return the observation as float32, stabilised where the noise grows with the light."""
        y = self._observed()
        if self._grows:
            self._check_light(y)
        model = None if self.noise is None else self.noise.within(self.layout.low, self.layout.high)
        if self._given == POISSON and model is None:
            model = found(y)
            if model is None:
                warn(
                    'noise="poisson": the noise in the image cannot be told from it (it is not independent from pixel '
                    "to pixel, or the image is too small or flat), so it is taken for the same everywhere; give "
                    "dip.noise.PoissonGaussian(gain, sigma) if you know it"
                )
            else:
                self.noise = model.without(self.layout.low, self.layout.high)
        elif not self._silent:
            self._warn_of_growth(y)
        if model is None:
            return Observation(y, None)
        self._stabilising = Stabilising(model)
        self.level = MORE * self._stabilising.level
        return Observation(self._stabilising.forward(y), None)

    def _check_light(self, y: Tensor) -> None:
        """Refuse, or warn of, an image that is brighter than its white or darker than its black, not by its noise."""
        side, low, span = min(_BLOCK, *y.shape[2:]), self.layout.low, self.layout.high - self.layout.low
        lowest, highest = (float(value) for value in np.quantile(F.avg_pool2d(y, side).numpy(), [0.01, 0.99]))
        white, down, up = self.layout.high, f"down to {low + lowest * span:.3g}", f"up to {low + highest * span:.3g}"
        for wrong, far, than, mean, beyond in (
            (lowest < _DARK, lowest < _UNSEEN, f"darker than its black, {low:g}", down, "below black"),
            (highest > _BRIGHT, highest > _FAR, f"brighter than its white, {white:g}", up, "above white"),
        ):
            text = (
                f"the image is {than}: parts of {side} x {side} pixels have means {mean}, and nothing {beyond} is "
                "returned; give data_range=(black, white) of the clean image"
            )
            if far:
                raise ValueError(text)
            if wrong:
                warn(text)

    def _warn_of_growth(self, y: Tensor) -> None:
        grown = growth(y)
        if grown is not None:
            warn(
                f"the noise in the image seems to grow with its light, from {grown[0]:.2g} where it is dark to "
                f"{grown[1]:.2g} where it is bright (white is 1), and a fit takes it for the same everywhere: "
                'noise="poisson" is made for it, and often better by far; "gaussian" says that it is not so'
            )

    def check_options(self, loss: losses.Loss, stop: Rule | None) -> None:
        """Refuse what looks at the noise in another way than `noise` does."""
        if isinstance(loss, losses.Poisson):
            self._silent = True  # it knows
        if self._grows and isinstance(loss, losses.Poisson):
            raise ValueError(
                f"loss={loss!r} is for y as it is, and with noise= the fit sees it on a scale on which its noise is "
                'the same everywhere; leave out the one or the other (noise="poisson" is better by far)'
            )
        if self._grows and isinstance(stop, Discrepancy):
            raise ValueError(
                f"stop={stop!r} compares with a noise that is the same everywhere in y, and noise= says that it grows; "
                "leave out the one or the other"
            )

    def compose(self, x: Tensor) -> Tensor:
        """Return x, brought back to the scale of the image."""
        return x if self._stabilising is None else self._stabilising.inverse(x)

    @property
    def words(self) -> str:
        """What is taken of noise that grows with the light, in words."""
        return "" if self.noise is None else self.noise.words

    def fingerprint(self) -> dict[str, Any]:
        """Return the size, and the noise that grows with the light."""
        return {**super().fingerprint(), **({} if self.noise is None else {"noise": repr(self.noise)})}


_BLOCK = 16  # pixels a side, whose mean is
_BRIGHT, _FAR = 1.25, 8.0  # so many times as bright as white: warned of, refused
_DARK, _UNSEEN = -0.1, -0.5  # or so far below black, where there is no light
