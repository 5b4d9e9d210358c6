"""The task of a JPEG: what the picture was before it was rounded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dip.checkpoint import digest
from dip.errors import shown, warn
from dip.operators import JPEG
from dip.operators.blocks import PLACE
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
    jpeg : JPEG, optional
        How it was compressed: ``dip.operators.JPEG.of_file(path)``, which reads it in the file, or
        ``dip.operators.JPEG(75)`` for a quality. By default it is found in the pixels, where the tables are libjpeg's
        and the first block is at the corner (`dip.operators.JPEG.found_in`).
    data_range, channel_axis
        As for `Denoise`.

    Raises
    ------
    TypeError, ValueError
        The image is not of that kind; or, before the first iteration, there is no trace of a JPEG in it.
    """

    task = "dejpeg"
    default_preset = "fast"
    factor = PLACE  # what is compared with y are whole blocks

    def __init__(
        self, image: Any, jpeg: JPEG | None = None, *, data_range: DataRange = None, channel_axis: int | None = None
    ) -> None:
        super().__init__(image, data_range=data_range, channel_axis=channel_axis)
        if jpeg is not None and not isinstance(jpeg, JPEG):
            raise TypeError(
                f"jpeg={shown(jpeg)}: give dip.operators.JPEG(75), a quality, or dip.operators.JPEG.of_file(path)"
            )
        if self.layout.channels not in (1, 3):
            raise ValueError(f"a JPEG is gray or RGB, and the image has {self.layout.channels} channels")
        if jpeg is not None:
            jpeg.steps_for(self.layout.channels)  # which refuses a table for gray
        self._given, self.jpeg = jpeg, jpeg
        self.steps = torch.ones(1, 1, 1, 1)

    def load(self) -> Observation:
        """Return the coefficients of the file, as `dip.operators.JPEG.of_decoded` has them."""
        picture = self._observed()
        if self._given is None:
            self.jpeg = JPEG.found_in(picture)
        elif not self._given.fits(picture):
            warn(
                f"the image does not look as if it had come out of such a JPEG ({self._given.extra_repr()}): give it "
                "as it was read, not resized, turned or changed since"
            )
        return Observation(self._known.of_decoded(picture.double()).float(), None)

    def place(self, observation: Observation) -> None:
        """Put the steps of the coefficients onto the observation's device."""
        self.steps = self._known.steps_for(self.layout.channels).to(observation.y.device)

    def forward(self, x: Tensor) -> Tensor:
        """Return the coefficients of x, not rounded."""
        return self._known.coefficients(x)

    def consistent(self, x: Tensor | None, y: Tensor, times: int = 10) -> Tensor:
        """Return x with each coefficient in its interval, moved no farther than that; of None the JPEG itself."""
        jpeg, size = self._known, self.shape[1:]
        if x is None:
            return jpeg.decoded(y, size).clamp(0, 1)
        off, half = jpeg.coefficients(x) - y, self.steps.to(y.device) / 2
        return x + jpeg.added(torch.maximum(torch.minimum(off, half), -half) - off, size)

    @property
    def words(self) -> str:
        """How the image was compressed, in words."""
        return f"a JPEG of {self._known.extra_repr()}"

    @property
    def _known(self) -> JPEG:
        assert self.jpeg is not None, "load() finds it"
        return self.jpeg

    def fingerprint(self) -> dict[str, Any]:
        """Return the size and how the image was compressed."""
        tables = digest(self._known.tables)
        return {**super().fingerprint(), "operator": self._known.extra_repr(), "tables_digest": tables}
