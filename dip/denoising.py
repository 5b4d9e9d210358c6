"""The task of a noisy picture."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dip import losses, ranges
from dip.light import Light
from dip.noise import Noise, PoissonGaussian, Stabilising
from dip.noise.level import MORE
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
        self._light = Light(noise)
        self.spread = self._light.spread
        self.level: float | None = None
        self._stabilising: Stabilising | None = None

    @property
    def noise(self) -> PoissonGaussian | None:
        """What is taken of the noise that grows with the light."""
        return self._light.noise

    def load(self) -> Observation:
        """Return the observation as float32, stabilised where the noise grows with the light."""
        y = self._observed()
        model = self._light.model(y, self.layout)
        if model is None:
            return Observation(y, None)
        self._stabilising = Stabilising(model)
        self.level = MORE * self._stabilising.level
        return Observation(self._stabilising.forward(y), None)

    def check_options(self, loss: losses.Loss, stop: Rule | None, *, corrected: bool) -> None:
        """Refuse what looks at the noise in another way than `noise` does."""
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
        """Return x, brought back to the scale of the image."""
        return x if self._stabilising is None else self._stabilising.inverse(x)

    @property
    def words(self) -> str:
        """What is taken of noise that grows with the light, in words."""
        return self._light.words

    def fingerprint(self) -> dict[str, Any]:
        """Return the size, and the noise that grows with the light."""
        return {**super().fingerprint(), **self._light.fingerprint()}
