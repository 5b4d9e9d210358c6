"""The task of missing pixels: what they were, from those that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import guides, masks, stretch
from dip.callbacks import counted
from dip.crops import Place, around
from dip.errors import warn
from dip.problem import Observation
from dip.tasks import DataRange, ImageTask


class Inpaint(ImageTask):
    """Inpainting: the loss looks at the known pixels only.

    For pictures without noise: of one that is noisy where it is known, see the `mask` of `dip.Denoise`.

    Parameters
    ----------
    image : ndarray or Tensor
        The image with missing pixels, as for `Denoise`; what the missing pixels hold does not matter (NaN is fine).
    mask : ndarray or Tensor
        (H, W). **True or non-zero = the pixel is known.** Floats between 0 and 1 are weights.
    keep_known : bool, default True
        Return the known pixels as given, mixed by weight; False returns the network's picture everywhere.
    data_range, channel_axis
        As for `Denoise`.

    Raises
    ------
    TypeError, ValueError
        The image is not of that kind, or the mask has another shape or no known pixel.
    """

    task = "inpaint"

    def __init__(
        self,
        image: Any,
        mask: Any,
        *,
        keep_known: bool = True,
        data_range: DataRange = None,
        channel_axis: int | None = None,
    ) -> None:
        super().__init__(image, data_range=data_range, channel_axis=channel_axis)
        masks.check(mask, self.layout)
        self._mask = mask
        self.keep_known = bool(keep_known)

    def load(self) -> Observation:
        """Return the observation and its weights, with the missing pixels at 0.

        What uses little of its range is stretched (`dip.stretch`), if the fit allows.
        """
        weight = masks.to_tensor(self._mask, self.layout.height, self.layout.width)
        there = weight[0, 0] > 0
        y = self._observed(known=there.numpy())
        if weight.min() == 1:
            warn(
                "the mask marks every pixel as known, so nothing is missing and the image comes back as it is; True, "
                "non-zero and white mean known: is it the other way round, or of another colour?",
            )
        y = self._stretched(y, lambda y: stretch.of(y[..., there], _BEYOND))
        self._observation = Observation(y * there, weight)
        return self._observation

    def place(self, observation: Observation) -> None:
        """Remember the observation, for `compose` and `consistent`."""
        self._observation = observation

    def compose(self, x: Tensor) -> Tensor:
        """Return m y + (1 - m) x, or x itself without `keep_known`."""
        x = torch.lerp(x, self._observation.y, self._weight) if self.keep_known else x
        return super().compose(x)

    def consistent(self, x: Tensor | None, y: Tensor, times: int = 10) -> Tensor:
        """Return x after a light Wiener filter, with the known pixels put back; of None y filled in.

        See `guides.wiener` and `guides.inpainted`.
        """
        known, weight = self._observation.y, self._weight
        if x is None:
            return guides.inpainted(known, weight).to(y.device)
        return torch.lerp(guides.wiener(x, x, _LIGHT, step=_APART)[0], known, weight)

    def held_out(self, folds: int, place: Place, progress: bool | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `guides.inpainted` makes of all known pixels, and of a place without one fold of them each.

        Parameters
        ----------
        folds : int
            How many there are, of known pixels of the place drawn at random, and as large as each other.
        place : tuple of slice
            Rows and columns, with a beginning and an end.
        progress : bool, optional
            The option of the fit.

        Returns
        -------
        tuple of Tensor
            The picture (1, C, H, W); of the place those of the folds (folds, C, h, w), and the weights of the pixels
            that they were made of (folds, 1, h, w).

        Raises
        ------
        ValueError
            There are fewer known pixels than folds.
        """
        known, weight = self._observation.y, self._weight
        inside = weight[..., *place]
        pixels = inside.flatten().nonzero()[:, 0]
        if len(pixels) < folds:
            raise ValueError(
                f"{len(pixels)} known pixels cannot be dealt out to {folds} folds, one of which is held out at a time; "
                'take preset="fast-sparse", or code=dip.codes.HeldOut(folds) with fewer'
            )
        drawn = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0)).to(pixels.device)
        dealt = torch.zeros(inside.shape, dtype=torch.long, device=weight.device)
        dealt.view(-1)[pixels[drawn]] = torch.arange(len(pixels), device=pixels.device) % folds
        shown = torch.cat([inside * (dealt != k) for k in range(folds)])
        # of what is beyond its margin a place shows nothing
        seen, own = zip(*(around(one, _MARGIN, n) for one, n in zip(place, weight.shape[2:], strict=True)), strict=True)
        about = torch.cat([weight[..., *seen]] * folds)
        about[..., *own] = shown
        parts = [(known[..., *seen], one[None]) for one in about] + [(known, weight)]
        sizes = [there.numel() for _, there in parts]
        *made, whole = (guides.inpainted(*one) for one in counted(parts, sizes, "filling in", progress))
        return whole, torch.cat(made)[..., *own], shown

    def refined(self, x: Tensor) -> Tensor:
        """Return x after `guides.refined`."""
        return guides.refined(x, self._observation.y, self._weight)

    @property
    def error(self) -> float:
        """The error that y has once it is filled in (root mean square of all pixels), found by holding out known ones.

        A tenth of them, drawn at random, are missing, too; that of these is taken for that of all that are missing.
        (In a hole it is larger.) Of a large picture the middle 512 x 512 pixels tell, which saves time.
        """
        y, weight = self._observation.y, self._weight
        share = 1 - weight.mean()
        top, left = (max(0, n - _ENOUGH) // 2 for n in weight.shape[2:])
        middle = np.s_[..., top : top + _ENOUGH, left : left + _ENOUGH]
        if weight[middle].any():
            y, weight = y[middle], weight[middle]
        drawn = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight.device) < _HELD
        held, rest = weight * drawn, weight * ~drawn
        if not (held.any() and rest.any()):
            return _NO_IDEA
        squares = (guides.inpainted(y, rest) - y).square().mean(1, keepdim=True)
        return float(((squares * held).sum() / held.sum() * share).sqrt())

    @property
    def _weight(self) -> Tensor:
        weight = self._observation.weight
        assert weight is not None  # see `load`
        return weight

    def output(self, x: Tensor) -> Any:
        """Return x in the image's kind, dtype and range; known pixels bit by bit, which float32 cannot always hold."""
        restored = super().output(x)
        if not self.keep_known:
            return restored
        known = masks.over((self._weight[0, 0] == 1).numpy(force=True), self.layout)
        if isinstance(restored, Tensor):
            return torch.where(torch.from_numpy(known).to(restored.device), self._image, restored)
        np.copyto(restored, self._image, where=known)
        return restored


_LIGHT = 0.005  # standard deviation, by trials (docs/tried.md)
_APART = 4  # pixels from patch to patch where that filter is used again and again: five times as fast, and no worse
_MARGIN = 32  # pixels around a place by which it is filled in, too
_HELD, _ENOUGH = 0.1, 512  # share of the known pixels that is held out, and the side of what tells the error, in pixels
_BEYOND = 0.1  # of the range of the known pixels: so much darker or brighter may the missing ones be
_NO_IDEA = 0.1  # an error where no known pixel can be spared
