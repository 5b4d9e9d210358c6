"""The task of a noisy picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import guides, losses, masks, ranges, stretch
from dip.light import Light
from dip.noise import (
    Clipped,
    Noise,
    PoissonGaussian,
    Stabilising,
    as_it_is,
    at_most,
    clipping,
    independent_level,
    level_and_spectrum,
    more_than_noise,
)
from dip.noise.level import MORE
from dip.problem import Observation
from dip.stopping import Discrepancy, Rule
from dip.tasks import DataRange, ImageTask


class Denoise(ImageTask):
    """Denoising: A = identity, y = x + noise, of all pixels or those that are known.

    What is returned is nowhere darker or brighter than the darkest and brightest known value of its channel.

    Parameters
    ----------
    image : ndarray or Tensor
        The noisy image. Arrays: (H, W), (H, W, 3), or (H, W, 4) = RGBA (its alpha is kept); tensors: (H, W),
        (C, H, W) or (1, C, H, W). uint8, uint16, floats; other integers with a `data_range`.
    mask : ndarray or Tensor, optional
        (H, W). **True or non-zero = the pixel is known**; the others (dead, hot, not scanned) are restored from what is
        about them, and what they hold does not matter (NaN is fine). Floats between 0 and 1 are weights.
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
        Standard deviation of the noise in the fit's y, increased as that of `dip.noise.noise_level` is: where it grows
        with the light as follows from `noise`, else as it is found in the known pixels; None before a fit was made.
    spectrum : Tensor or None
        That of the noise by frequency (`dip.noise.spectrum`), where it is found not to be independent.
    clipped : Clipped or None
        How the noise in the fit's y was clipped at black or white (`dip.noise.clipping`), where it seems to have been;
        `consistent` undoes what becomes of its mean by that. Noise that grows with the light is looked at where it is
        the same everywhere, and at white alone.

    Raises
    ------
    TypeError, ValueError
        The image's type, dtype, shape or values are not of that kind, nor is the noise, or the mask; or, before the
        first iteration, so few known pixels are next to each other that they do not tell the level of the noise.
    """

    task = "denoise"

    def __init__(
        self,
        image: Any,
        *,
        mask: Any = None,
        noise: Noise = None,
        data_range: DataRange = None,
        channel_axis: int | None = None,
    ) -> None:
        super().__init__(image, data_range=data_range, channel_axis=channel_axis)
        self._weight: Tensor | None = None
        if mask is not None:
            masks.check(mask, self.layout)
            self._weight = masks.to_tensor(mask, self.layout.height, self.layout.width)
        self.layout = ranges.narrowed(image, self.layout, self._known)
        self._light = Light(noise)
        self.spread = self._light.spread
        self._found: tuple[float | None, Tensor | None] = (None, None)
        self._clipped: Clipped | None = None
        self._looked = False
        self._level: float | Tensor | None = None
        self._y: Tensor | None = None
        self._limits: tuple[Tensor, ...] = ()
        self._stabilising: Stabilising | None = None

    @property
    def noise(self) -> PoissonGaussian | None:
        """What is taken of the noise that grows with the light."""
        return self._light.noise

    def load(self) -> Observation:
        """Return the observation as float32, stabilised where the noise grows with the light, and its weights.

        What uses little of its range is stretched (`dip.stretch`), if the fit allows.
        """
        y, weight = self._observed(self._known), self._weight
        seen = self._seen(y)
        self._limits = tuple(one(dim=2)[..., None, None] for one in (seen.amin, seen.amax))
        model = self._light.model(self.whole(y), self.layout, self._surest)
        if model is not None:
            self._stabilising = Stabilising(model)
            y = self._stabilising.forward(y)
        self._y = y = self._stretched(y, lambda y: stretch.of(self._seen(y)))
        stable = self._stabilising
        self._found = (None if stable is None else MORE * stable.level / self._stretch.span), None
        self._looked, self._clipped, self._level = False, None, None
        return Observation(y, weight)

    def _seen(self, y: Tensor) -> Tensor:
        """Return the known values, (1, C, N)."""
        return y.flatten(2) if self._weight is None else y[..., self._weight[0, 0] > 0]

    def place(self, observation: Observation) -> None:
        """Move the limits of what is returned to the observation's device."""
        super().place(observation)
        self._limits = tuple(one.to(observation.y.device) for one in self._limits)

    @property
    def level(self) -> float | None:
        """The standard deviation of the noise in y."""
        return self._noise_of_y[0]

    @property
    def spectrum(self) -> Tensor | None:
        """The standard deviations of the noise in y by frequency, where it is not independent."""
        return self._noise_of_y[1]

    @property
    def _noise_of_y(self) -> tuple[float | None, Tensor | None]:
        """What is known of the noise, looked for when it is first needed."""
        if self._found[0] is None and self._y is not None:
            self._found = level_and_spectrum(self._y, self._surest)
        return self._found

    @property
    def _surest(self) -> Tensor | None:
        """Where it is told by the best known pixels what the noise is, (H, W), bool; None: everywhere."""
        return None if self._weight is None else masks.surest(self._weight)

    @property
    def clipped(self) -> Clipped | None:
        """How the noise in y was clipped, looked for when it is first needed."""
        if not self._looked and self._y is not None:
            self._looked, stable = True, self._stabilising
            told = None if stable is None else stable.level / self._stretch.span
            grows = self._light.grows if stable is None else stable.noise.gain > 0
            found = None
            if told is not None or not self._light.seems_to_grow:
                found = clipping(self._y, self._surest, told, at_black=not grows)
            # what is not independent was mixed after it was clipped
            self._clipped = None if found is None or self.spectrum is not None else found
        return self._clipped

    def unbiased(self, x: Tensor, y: Tensor) -> Tensor:
        """Return a fit of y with what it has left that is more than noise (`dip.noise.more_than_noise`).

        Where noise was clipped, the x is returned whose noisy values, clipped as those of y, have these means.
        """
        if self._likely is not None:
            x = x + more_than_noise(y - x, self._likely, self._surest)
        return x if self.clipped is None else self.clipped.inverse(x)

    @property
    def _likely(self) -> float | Tensor | None:
        """The noise in y as it is, looked for when it is first needed; None where it is not the same everywhere."""
        stable = self._stabilising
        if stable is not None:
            return stable.level / self._stretch.span
        if self._level is None and self._y is not None and not self._light.seems_to_grow:
            try:
                self._level = as_it_is(self._y, self._surest) if self.spectrum is None else self.spectrum
            except ValueError:  # too few known pixels to tell, of a picture of which the fit was told the level
                self._level = math.inf
        return self._level

    def at_most(self, left: Tensor, y: Tensor) -> Tensor:
        """Return how strong the noise in y can be at each frequency, where a fit has left so much of it."""
        return at_most(left, y, self._surest)

    def independent(self, left: Tensor, y: Tensor) -> float | None:
        """Return the level of the noise in y if what a fit has left of it is independent noise, else None."""
        return independent_level(left, y, self._surest)

    def whole(self, y: Tensor, x: Tensor | None = None) -> Tensor:
        """Return y with the pixels that are missing as in x; of None filled in from those about them."""
        if self._weight is None:
            return y
        weight = self._weight.to(y.device)
        return guides.filled(y, weight) if x is None else torch.lerp(x, y, weight)

    @property
    def _known(self) -> np.ndarray | None:
        """Where the image is known, (H, W), bool; None: everywhere."""
        return None if self._weight is None else (self._weight[0, 0] > 0).numpy()

    def check_options(self, loss: losses.Loss, stop: Rule | None, *, corrected: bool) -> None:
        """Refuse what looks at the noise in another way than `noise` does, or comes to another mean."""
        if corrected and not isinstance(loss, losses.MSE):
            raise ValueError(
                f"consistent=True undoes what clipping does to the mean of noise, and a fit with loss={loss!r} comes "
                'to no mean; leave out the one or the other (with "l1" black is black: the median stays)'
            )
        if isinstance(loss, losses.Poisson):
            self._light.silent = True  # it knows
        if self._light.grows and isinstance(loss, losses.Poisson):
            raise ValueError(
                f"loss={loss!r} is for y as it is, and with noise= the fit sees it on a scale on which its noise is "
                'the same everywhere; leave out the one or the other (noise="poisson" is better by far)'
            )
        if self._light.grows and isinstance(stop, Discrepancy):
            raise ValueError(
                f"stop={stop!r} compares with a noise that is the same everywhere in y, and noise= says that it grows; "
                "leave out the one or the other"
            )

    def compose(self, x: Tensor) -> Tensor:
        """Return x, brought back to the scale of the image, and no darker or brighter than that is."""
        x = super().compose(x)
        x = x if self._stabilising is None else self._stabilising.inverse(x)
        return x.clamp(*self._limits)  # noise makes what is bright brighter, and no fit's output comes to 0 or 1

    @property
    def words(self) -> str:
        """What is taken of noise that grows with the light, in words."""
        return self._light.words

    def fingerprint(self) -> dict[str, Any]:
        """Return the size, and the noise that grows with the light."""
        return {**super().fingerprint(), **self._light.fingerprint()}
