"""A code for missing pixels by which a network learns to find them: from known ones that it is not shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from dip.codes.frame import Frame
from dip.errors import non_negative_int, positive_int


@dataclass(frozen=True)
class HeldOut:
    r"""What a filter makes of the known pixels without a part of them, one part after another; which they were beside.

    The known pixels are dealt out to K parts, the folds h_k, at random. Of all but one, m_k = m - h_k, the filter
    (`dip.guides.inpainted`) makes a whole picture p_k. An iteration draws a k; the network sees p_k and m_k, corrects
    the picture, and is compared with the known pixels that it was not shown:

    .. math:: θ^* = \arg\min_θ \sum_k \| h_k \odot (x_k - y) \|^2, \quad
        x_k = p_k + s f_θ(p_k, m_k),

    with s = 0.03 (of a network that ends in a sigmoid, 0.3 (f_θ - 1/2) is the correction). So it cannot be right by
    handing on what it sees, as with a code that has all of the known pixels: it has to learn what the filter gets
    wrong, as it would from pictures of which the missing pixels are known.

    What is returned is made of all known pixels, p, which no iteration has seen, and keeps as much of the correction d
    as known pixels v advise with which no iteration was compared. Of the picture p_v without them, corrected by d_v,

    .. math:: x = p + α d, \quad α = \frac{\langle y - p_v, d_v \rangle_v}{\| d_v \|_v^2}, 0 \le α \le 1,

    with d the mean of what the network makes in four mirrors, if the fit has flips. The fewer pixels there are to learn
    from, the more of a correction is learnt by heart, and the less of it is kept.

    Parameters
    ----------
    folds : int, default 5
        K, two at least: the more, the nearer are the pictures of the fit to that of all known pixels, and the fewer
        pixels tell in an iteration. The filter takes its time K + 2 times.
    validation : int, default 1000
        How many pixels v has, at most; nor are they more than a tenth of those that are known. 0 = none, α = 1.
    image_channels : int, optional
        Channels of the picture; a fit fills them in.

    Notes
    -----
    For `dip.Inpaint`, and pictures with a few thousand known pixels or more. Stopping rules, averages of the outputs
    (what is returned takes a pass of its own) and LBFGS do not go with it.

    References
    ----------
    To fit a network to pixels that were taken out of what it sees: Krull, Buchholz, Jug, "Noise2Void: learning
    denoising from single noisy images", CVPR 2019; Quan, Chen, Pang, Ji, "Self2Self with dropout: learning
    self-supervised denoising from single image", CVPR 2020. Folds, and
    how much of a prediction to keep: Stone, "Cross-validatory choice and assessment of statistical predictions",
    Journal of the Royal Statistical Society B 1974.
    """

    folds: int = 5
    validation: int = 1000
    image_channels: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if positive_int(self.folds, "folds") < 2:
            raise ValueError(f"folds={self.folds}: of one fold nothing is left to be shown; give 2 or more")
        non_negative_int(self.validation, "validation")

    @property
    def channels(self) -> int:
        """The picture's, and one that tells which pixels were shown."""
        return self.image_channels + 1

    @property
    def versions(self) -> int:
        """How many codes there are: one for each fold, that without the pixels v, and that of all known pixels."""
        return self.folds + bool(self.validation) + 1

    def draw(self, frame: Frame, generator: torch.Generator, picture: Tensor | None = None) -> Tensor:
        """Return z (versions, channels, H, W) of pictures and masks (versions, channels, inner_height, inner_width)."""
        if picture is None:
            raise ValueError("a HeldOut code is drawn from filled-in pictures; in a fit it is, of dip.Inpaint alone")
        return frame.extend(torch.cat([picture[:, :-1] - GRAY, _MASK * (picture[:, -1:] - 0.5)], dim=1))

    def begun(self, task: Any, y: Tensor, progress: bool | None = None) -> tuple[Self, Tensor]:
        """Return the code itself, and the pictures that the task makes of the folds, with their masks behind them."""
        return self, torch.cat(task.held_out(self.folds, self.validation, progress), dim=1).to(y.device)


GRAY = 0.5  # what of a picture is 0 in the code
_MASK = 0.2  # how far apart shown pixels and others are, of the size of what else is in the code
