"""The task of a JPEG: what the picture was before it was rounded."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import losses
from dip.checkpoint import digest
from dip.errors import shown, warn
from dip.operators import JPEG
from dip.operators.blocks import MCU
from dip.problem import Observation
from dip.tasks import DataRange, ImageTask


class Dejpeg(ImageTask):
    """Decompression: A = the coefficients of a JPEG, y = those of the file, each of which was rounded to a whole step.

    So y tells an interval for each coefficient, in which that of the picture was: a fit looks for a picture that has
    its own there (`dip.losses.Quantization`).

    Parameters
    ----------
    image : ndarray or Tensor
        The picture as it was read from the JPEG, as for `Denoise`, gray or RGB: not resized, turned or changed since.
    jpeg : int, JPEG or path, optional
        How it was compressed: a quality, 1 to 100, of libjpeg's; a `dip.operators.JPEG`; or the file that it was read
        from (where its pixels tell of an earlier JPEG in coarser steps, those are taken). By default it is found in the
        pixels, where the tables are libjpeg's and the first block is at the corner (`dip.operators.JPEG.found_in`).
    data_range, channel_axis
        As for `Denoise`.

    Raises
    ------
    TypeError, ValueError
        The image is not of that kind; or, before the first iteration, there is no trace of a JPEG in it.
    """

    task = "dejpeg"
    default_preset = "fast"
    factor = MCU  # an element of y is of so many pixels

    def __init__(
        self,
        image: Any,
        jpeg: int | JPEG | str | os.PathLike[str] | None = None,
        *,
        data_range: DataRange = None,
        channel_axis: int | None = None,
    ) -> None:
        super().__init__(image, data_range=data_range, channel_axis=channel_axis)
        if self.layout.channels not in (1, 3):
            raise ValueError(f"a JPEG is gray or RGB, and the image has {self.layout.channels} channels")
        self._read = isinstance(jpeg, (str, os.PathLike))
        if isinstance(jpeg, (str, os.PathLike)):
            jpeg = JPEG.of_file(jpeg)
        elif isinstance(jpeg, (int, np.integer)):
            JPEG(jpeg)  # which checks it
            jpeg = int(jpeg)
        elif jpeg is not None and not isinstance(jpeg, JPEG):
            raise TypeError(
                f"jpeg={shown(jpeg)}: give a quality such as 75, a dip.operators.JPEG, or the path of the file"
            )
        if isinstance(jpeg, JPEG):
            jpeg.steps_for(self.layout.channels)  # which refuses a table for gray
        self._given = jpeg
        self._found: JPEG | None = None
        self.steps = torch.ones(1, 1, 1, 1)
        self.error = 0.0  # of the JPEG, as far as it can be told; once it is loaded

    def check_options(self, loss: losses.Loss, stop: Any, *, corrected: bool) -> None:
        """Refuse a loss that is not for coefficients."""
        if isinstance(loss, losses.Poisson):
            raise ValueError(
                f"loss={loss!r} is for counts of photons, and of a JPEG coefficients are compared; leave it out"
            )

    def load(self) -> Observation:
        """Return the coefficients of the file, as `dip.operators.JPEG.stored` has them."""
        picture, given = self._observed(), self._given
        self._found = given if isinstance(given, JPEG) else JPEG.found_in(picture, given)
        earlier = self._found.coarser(picture) if self._read else None
        if earlier is not None:
            self._found = earlier
            warn(
                f"the image was a JPEG before, of {earlier.extra_repr()}, which lost more than the one that it is now: "
                "that is what is undone (jpeg=, --quality and --subsampling say otherwise)"
            )
        elif given is not None and not self._found.fits(picture):
            warn(
                f"the image does not look as if it had come out of such a JPEG ({self._found.extra_repr()}): give it "
                "as it was read, not resized, turned or changed since"
            )
        stored = self._found.stored(picture)
        self.error = self._found.error(stored, self.layout.channels)
        if 0 < self.error < _GOOD:
            warn(
                f"the JPEG is a good one, about {-20 * math.log10(self.error):.0f} dB from the original: a fit may "
                "well be further from it, if the picture is smooth (docs/results.md)"
            )
        return Observation(stored, None)

    def place(self, observation: Observation) -> None:
        """Put what belongs to the coefficients onto the observation's device."""
        self.steps = self.jpeg.steps_for(self.layout.channels).to(observation.y.device)

    def forward(self, x: Tensor) -> Tensor:
        """Return the coefficients of x, not rounded."""
        return self.jpeg.coefficients(x)

    def consistent(self, x: Tensor | None, y: Tensor, times: int = 10) -> Tensor:
        """Return x, brought together with what the file says of it, once; of None the JPEG itself.

        A coefficient that was not rounded to 0 is known twice: from the file, with an error of q^2 / 12, and from x,
        with that part of their mean squared distance which rounding does not explain. The better one of them counts for
        more. Then each is moved into its interval, if it is not there. Colours that were averaged over neighbours are
        interpolated, as a decoder does: what a fit has of them between is made up.
        """
        size = self.shape[1:]
        if x is None:
            return self.jpeg.decoded(y, size).clamp(0, 1)
        steps, found = self.steps.to(y.device), self.jpeg.coefficients(x)
        whole = self.jpeg.bounded(self.layout.channels, size).to(y.device)
        told = whole & (y.abs() > steps / 2)
        off, rounding, half, made = found - y, steps.square() / 12, steps / 2, []
        for part in self.jpeg.planes(self.layout.channels):
            apart, known, theirs = off[:, part], told[:, part], rounding[:, part]
            ours = ((apart.square() - theirs) * known).sum() / known.sum().clamp(min=1)
            nearer = apart * theirs / (theirs + ours.clamp(min=0))
            made.append(torch.where(known, nearer, apart))
        inside = torch.maximum(torch.minimum(torch.cat(made, dim=1), half), -half)
        return self.jpeg.decoded(torch.where(whole, y + inside, found), size)

    @property
    def jpeg(self) -> JPEG:
        """How the image was compressed; found in its pixels only when it is loaded."""
        if self._found is None:
            if not isinstance(self._given, JPEG):
                raise RuntimeError("how the image was compressed is found by load(), which a fit calls")
            return self._given
        return self._found

    @property
    def words(self) -> str:
        """How the image was compressed, in words."""
        return f"a JPEG of {self.jpeg.extra_repr()}"

    def fingerprint(self) -> dict[str, Any]:
        """Return the size and how the image was compressed."""
        tables = digest(self.jpeg.tables)
        return {**super().fingerprint(), "operator": self.jpeg.extra_repr(), "tables_digest": tables}


_GOOD = 0.01  # an error, by trials
