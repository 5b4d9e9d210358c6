"""What is said of the noise in a picture, and what is found of it: whether it grows with the light."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dip.errors import warn
from dip.images import Layout
from dip.noise import Noise, PoissonGaussian, found
from dip.noise.growing import counted, growth
from dip.noise.model import POISSON, check, rounded


class Light:
    """The noise in the picture of a task.

    Parameters
    ----------
    said : {"gaussian", "poisson"} or PoissonGaussian, optional
        As `dip.Denoise` takes it.

    Attributes
    ----------
    noise : PoissonGaussian or None
        The model, in the numbers of the picture: as given, or as found by `model`.
    silent : bool
        Whether nothing is to be said of noise that seems to grow.
    seems_to_grow : bool
        Whether that was said, or the picture seems to be one of counts.

    Raises
    ------
    TypeError, ValueError
        It is nothing of the kind.
    """

    def __init__(self, said: Noise) -> None:
        self._said = check(said)
        self.noise = self._said if isinstance(self._said, PoissonGaussian) else None
        self.silent = self._said is not None
        self.seems_to_grow = False

    @property
    def grows(self) -> bool:
        """Whether noise is said to grow with the light."""
        return self._said == POISSON or (isinstance(self._said, PoissonGaussian) and self._said.gain > 0)

    @property
    def spread(self) -> float:
        """How many times its range noise may well reach beyond it: of counts means, not pixels, tell (`model`)."""
        return math.inf if self.grows else 1.0

    @property
    def words(self) -> str:
        """What is taken of noise that grows with the light, in words."""
        return "" if self.noise is None else self.noise.words

    def fingerprint(self) -> dict[str, str]:
        """Return what is taken of the noise, for a checkpoint."""
        return {} if self.noise is None else {"noise": repr(self.noise)}

    def model(self, y: Tensor, layout: Layout, known: Tensor | None = None) -> PoissonGaussian | None:
        """Return the model of the noise in y, whose range is [0, 1], found if need be; None: the same everywhere.

        It is looked for in the pixels that are `known`, (H, W); the others hold what fills y.

        Raises
        ------
        ValueError
            Noise is said to grow with the light, and parts of y are far darker than black, or brighter than white.
        """
        if self.grows:
            _check(y, layout)
        if self.noise is not None:
            return self.noise.within(layout.low, layout.high)
        if self._said != POISSON:
            if not self.silent:
                self.seems_to_grow = _warn_of_growth(y, known) or counted(y, known)
            return None
        model = found(y, known)
        if model is None:
            warn(
                'noise="poisson": the noise in the image cannot be told from it (it is not independent from pixel '
                "to pixel, or the image is too small or flat), so it is taken for the same everywhere; give "
                "dip.noise.PoissonGaussian(gain, sigma) if you know it"
            )
            return None
        here = model.without(layout.low, layout.high)
        # in the image's numbers, too: 10 and not 9.99999891
        self.noise = PoissonGaussian(*map(rounded, (here.gain, here.sigma, here.offset)))
        if model.gain == 0:
            warn(
                'noise="poisson": in the image the noise does not seem to grow with the light, so it is taken for the '
                f"same everywhere, of standard deviation {self.noise.sigma:.3g}; if it does grow, give "
                "dip.noise.PoissonGaussian(gain, sigma)"
            )
        return model


def _check(y: Tensor, layout: Layout) -> None:
    """Refuse, or warn of, a picture that is brighter than its white or darker than its black, not by its noise."""
    side, low, span = min(_BLOCK, *y.shape[2:]), layout.low, layout.high - layout.low
    lowest, highest = (float(value) for value in np.quantile(F.avg_pool2d(y, side).numpy(), [0.01, 0.99]))
    white, down, up = layout.high, f"down to {low + lowest * span:.3g}", f"up to {low + highest * span:.3g}"
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


def _warn_of_growth(y: Tensor, known: Tensor | None) -> bool:
    grown = growth(y, known)
    if grown is not None:
        warn(
            f"the noise in the image seems to grow with its light, from {grown[0]:.2g} where it is dark to "
            f"{grown[1]:.2g} where it is bright (white is 1), and a fit takes it for the same everywhere: "
            'noise="poisson" is made for it, and often better by far; noise="gaussian" says that it is not so'
        )
    return grown is not None


_BLOCK = 16  # pixels a side, whose mean is
_BRIGHT, _FAR = 1.25, 8.0  # so many times as bright as white: warned of, refused
_DARK, _UNSEEN = -0.1, -0.5  # or so far below black, where there is no light
