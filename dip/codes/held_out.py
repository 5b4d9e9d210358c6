"""A code for missing pixels by which a network learns to find them: from known ones that it is not shown."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dip.codes.frame import Frame
from dip.errors import positive_float, positive_int


@dataclass(frozen=True)
class HeldOut:
    r"""What a filter makes of the known pixels without a part of them, one part after another; which they were beside.

    The known pixels are dealt out to K parts, the folds h_k, at random. Of all but one, m_k = m - h_k, the filters
    (`dip.guides.inpainted`) make a whole picture p_k. An iteration takes a k, each once in K iterations; the network
    sees p_k and m_k, corrects the picture, and is compared with the known pixels that it was not shown:

    .. math:: θ^* = \arg\min_θ \sum_k \| h_k \odot (x_k - y) \|^2, \quad
        x_k = p_k + s f_θ(p_k, m_k),

    with s = 0.03, or what the filter gets wrong at the held-out pixels (root mean square) where that is less; of a
    network that ends in a sigmoid, 10 s (f_θ - 1/2) is the correction. So it cannot be right by
    handing on what it sees, as with a code that has all of the known pixels: it has to learn what the filter gets
    wrong, as it would from pictures of which the missing pixels are known.

    What is returned is made of all known pixels, p, which no iteration has seen, and of a part α of the correction d
    that the network makes of it (the mean of four mirrors, if the fit has flips): x = p + α d, for some of what it does
    was learnt by heart. Where less is known about a pixel than about any that it learnt at, as inside of a hole, d
    fades away. In the end a few more turns of the filters see to what is still unlike its surroundings
    (`dip.guides.refined`).

    Folds of a large picture, and of one larger than the option `tile`, are of the known pixels in one part of it
    (`dip.excerpt`).

    Parameters
    ----------
    folds : int, default 5
        K, two at least: the more, the nearer are the pictures of the fit to that of all known pixels, and the fewer
        pixels tell in an iteration. The filter takes its time K + 1 times.
    kept : float, default 0.75
        α, above 0, at most 1.
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
    self-supervised denoising from single image", CVPR 2020. Folds: Stone, "Cross-validatory choice and assessment of
    statistical predictions", Journal of the Royal Statistical Society B 1974.
    """

    folds: int = 5
    kept: float = 0.75
    image_channels: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if positive_int(self.folds, "folds") < 2:
            raise ValueError(f"folds={self.folds}: of one fold nothing is left to be shown; give 2 or more")
        if positive_float(self.kept, "kept") > 1:
            raise ValueError(f"kept={self.kept:g} is more than the whole correction; allowed: above 0, at most 1")

    @property
    def channels(self) -> int:
        """The picture's, and one that tells which pixels were shown."""
        return self.image_channels + 1

    def draw(self, frame: Frame, generator: torch.Generator, picture: Tensor | None = None) -> Tensor:
        """Return z (1, channels, H, W) of a filled-in picture and its mask (1, channels, inner_height, inner_width)."""
        if picture is None:
            raise ValueError("a HeldOut code is drawn from a filled-in picture; in a fit it is, of dip.Inpaint alone")
        return frame.extend(torch.cat([picture[:, :-1] - GRAY, _MASK * (picture[:, -1:] - 0.5)], dim=1))


GRAY = 0.5  # what of a picture is 0 in the code
_MASK = 0.2  # how far apart shown pixels and others are, of the size of what else is in the code
