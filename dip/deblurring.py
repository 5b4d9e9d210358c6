"""The task of a blurred picture whose point spread function is known."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import Tensor

from dip import guides, losses, stretch
from dip.checkpoint import digest
from dip.errors import positive_float, warn
from dip.light import Light
from dip.noise import Noise, PoissonGaussian, Stabilising, blocks, noise_level
from dip.noise.level import levels
from dip.operators import Blur
from dip.problem import Observation
from dip.stopping import Rule
from dip.tasks import DataRange, ImageTask


class Deblur(ImageTask):
    """Deconvolution: A = convolution with a known point spread function (PSF), y = A x + noise.

    Parameters
    ----------
    image : ndarray or Tensor
        The blurred image, as for `Denoise`.
    psf : ndarray or Tensor, (h, w) or (C, h, w)
        The image of a point, with its middle at pixel (h // 2, w // 2), for all channels or one for each: measured, or
        such as `dip.operators.gaussian_psf(1.6)`. Its sum does not matter.
    boundary : {"mirror", "nearest", "wrap", "zero"}, default "mirror"
        What lies beyond the border of the image (see `dip.operators.Blur`).
    damping : float, optional
        λ of the preset "fast" (of its loss, its code and the correction at the end): from where the squared gain of the
        blur is below it on, y is taken for noise. By default 40 σ², at least 1e-4, where the noise could be filtered
        off (see Notes), else 160 σ², with the level σ of the noise that is found in the image
        (`dip.noise.noise_level`), or the root mean square of that of `noise`; 0.05 where the image looks as if it had
        been a JPEG (`dip.noise.blocks`).
    noise : {"gaussian", "poisson"} or PoissonGaussian, optional
        Of the preset "fast": "poisson" where it grows with the light, as for `Denoise`.
    data_range, channel_axis
        As for `Denoise`.

    Attributes
    ----------
    noise : PoissonGaussian or None
        As of `Denoise`.

    Raises
    ------
    TypeError, ValueError
        The image, the PSF or the noise is not of that kind, or the loss is not for that noise; or, before the first
        iteration, the PSF is larger than the image.

    Notes
    -----
    A blur takes off what is fine, which noise is not. So with the loss `dip.losses.BackProjection`, which the preset
    "fast" has, and noise that is independent from pixel to pixel, y is filtered before the fit: by the empirical Wiener
    filter of `Denoise` (`dip.guides.wiener`), whose pilot is cut off where the blur leaves nothing
    (`Blur.band_limited`), on the scale of `dip.noise.Stabilising` where the noise grows with the light. What is left of
    the noise is less by an order of magnitude, and λ with it.
    """

    task = "deblur"

    def __init__(
        self,
        image: Any,
        psf: Any,
        *,
        boundary: str = "mirror",
        damping: float | None = None,
        noise: Noise = None,
        data_range: DataRange = None,
        channel_axis: int | None = None,
    ) -> None:
        super().__init__(image, data_range=data_range, channel_axis=channel_axis)
        self.damping = None if damping is None else positive_float(damping, "damping")
        self._found: float | None = None
        self._light, self._filters = Light(noise), False
        self.spread = self._light.spread
        self._operator = self._blur = Blur(psf, boundary=boundary)
        given = self._blur.psf.shape
        if len(given) == 3 and given[0] != self.layout.channels:
            raise ValueError(
                f"psf has {given[0]} channels and the image {self.layout.channels}; give (h, w), or as many"
            )

    @property
    def noise(self) -> PoissonGaussian | None:
        """What is taken of the noise that grows with the light."""
        return self._light.noise

    @property
    def support(self) -> int | None:  # type: ignore[override]
        """How far the PSF reaches, in pixels; None where it goes round the border."""
        return None if self._blur.boundary == "wrap" else self._blur.reach

    def check_options(self, loss: losses.Loss, stop: Rule | None, *, corrected: bool) -> None:
        """Learn from the loss whether y is to be filtered; refuse one for which what is said of y means nothing."""
        self._filters = isinstance(loss, losses.BackProjection)
        if self.damping is not None and not (self._filters or corrected):
            raise ValueError(
                f'damping={self.damping:g} means nothing without preset="fast" (or its loss="back-projection", or '
                "consistent=True); add it, or leave damping out"
            )
        if self._light.grows and not self._filters:
            raise ValueError(
                f'noise= that grows with the light is for preset="fast" (loss="back-projection"), and this is '
                f'loss={loss!r}; take that, or leave noise out (of counts, loss="poisson" with the preset "paper")'
            )

    def load(self) -> Observation:
        """Return the observation as float32 in [0, 1], filtered where the loss suits that.

        What uses little of its range is stretched (`dip.stretch`), if the fit allows.
        """
        size, given = self.shape[1:], self._blur.psf.shape[-2:]
        if any(ours < theirs for ours, theirs in zip(size, given, strict=True)):
            raise ValueError(
                f"psf is {given[0]} x {given[1]} and the image {size[0]} x {size[1]} (height x width); crop the PSF to "
                "where it is more than its background, and of a Gaussian take a smaller sigma"
            )
        y, rest = self._observed(), None
        if self._filters:
            y, rest = self._filtered(y)
        # (beyond the border it is black there, in every range)
        find = partial(stretch.of_sharper, nearer=self._nearer, from_black=self._blur.boundary == "zero")
        self._observation = Observation(self._stretched(y, find), None)
        self._found = None if rest is None else _damping(rest / self._stretch.span**2, _BESIDE_REST)
        return self._observation

    def _nearer(self, x: Tensor | None, y: Tensor) -> Tensor:
        """Return x after a step of a deconvolution that is little damped; of None y."""
        return y if x is None else x + self._blur.back_projected(y - self._blur(x), _SHARP)

    def _filtered(self, y: Tensor) -> tuple[Tensor, float | None]:
        """Return y without most of its noise, and the variance that it had; y itself and None where that fails."""
        model = self._light.model(y, self.layout)
        if model is None:
            both = levels(y)
            level = min(both)
            if not level or math.isinf(both[1]) or self._was_jpeg(y, level):
                return y, None
            model = PoissonGaussian(0, level)
        stabilising = Stabilising(model)
        stable, level = stabilising.forward(y), stabilising.level
        pilot = self._blur.band_limited(guides.pilot(stable, level), _BAND)
        # the variance is linear in the light, so that of the mean is the mean
        return stabilising.inverse(guides.wiener(stable, pilot, level)[0]), model.variance(float(y.mean()))

    def consistent(self, x: Tensor | None, y: Tensor, times: int = 10) -> Tensor:
        """Return x, corrected once by the regularised deconvolution of y - A x; of None that of y."""
        rest = y if x is None else y - self._blur(x)
        added = self._blur.back_projected(rest, _FIRMER * self._known_damping)
        return added if x is None else x + added

    def whitened(self, residual: Tensor) -> Tensor:
        """Return a residual as `dip.losses.BackProjection` measures it (`dip.operators.Blur.whitened`)."""
        return self._blur.whitened(residual, self._known_damping)

    @property
    def _known_damping(self) -> float:
        """The damping: that given, or what the noise says, looked for when it is first needed."""
        if self.damping is not None:
            return self.damping
        if self._found is None:
            y = self._observation.y
            level = noise_level(y)
            self._found = _damping(level**2, _BESIDE_NOISE)
            if self._was_jpeg(y, level):
                self._found = _AFTER_JPEG
                warn(
                    f"the image looks as if it had been a JPEG, whose blocks are no noise but would be sharpened, too; "
                    f"damping={_AFTER_JPEG} is taken: give another, or an image that was never a JPEG"
                )
        return self._found

    def _was_jpeg(self, y: Tensor, level: float) -> bool:
        """Whether blocks, and not the noise, tell how much is to be damped."""
        return _damping(level**2, _BESIDE_NOISE) < _AFTER_JPEG and blocks(y) > 1.3

    @property
    def words(self) -> str:
        """What is taken of noise that grows with the light, in words."""
        return self._light.words

    def fingerprint(self) -> dict[str, Any]:
        """Return the size, the blur, and the noise that grows with the light."""
        psf = digest(self._blur.psf.float())
        own = {"operator": str(self._operator), "psf_digest": psf, "damping": self.damping}
        return {**super().fingerprint(), **own, **self._light.fingerprint()}


def _damping(variance: float, times: float) -> float:
    return max(times * variance, _LEAST)


# All by trials (docs/tried.md). What goes into the code, and out, is to be less noisy than what is fitted.
_BESIDE_NOISE, _BESIDE_REST = 160, 40  # times the variance of the noise: of y as it is, and filtered
_LEAST = 1e-4
_FIRMER = 3  # times the damping of the loss
_AFTER_JPEG = 0.05
_SHARP = 1e-3  # damping of the pictures that tell how far the deconvolved one may go beyond y
_BAND = 0.05  # squared gain of the blur from which on there is something left
