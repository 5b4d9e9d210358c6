"""The spectrum of noise that is not independent from pixel to pixel, as that of a camera's JPEG is not."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.noise.colours import FREQUENCY, coefficients, without_structure
from dip.noise.level import (
    MORE,
    MOST,
    all_patches,
    by_colours,
    cut_off,
    cut_share,
    independent,
    noise_level,
    patches_of,
    roughness,
)
from dip.wiener import PATCH, opponent

__all__ = ["at_most", "independent_level", "level_and_spectrum", "spectrum", "total"]


def level_and_spectrum(picture: Tensor, known: Tensor | None = None) -> tuple[float, Tensor | None]:
    """Return what a picture tells of its noise: the standard deviation of all of it, and the `spectrum`, if it has one.

    The former is at least 1e-6. Parameters and errors are those of `dip.noise.noise_level`, which is asked where there
    is no spectrum.
    """
    found = spectrum(picture, known)
    return max(noise_level(picture, known) if found is None else total(found), 1e-6), found


def spectrum(picture: Tensor, known: Tensor | None = None) -> Tensor | None:
    r"""Return how strong noise that is not independent is at each frequency; None of noise that is, or of few pixels.

    What a camera saves was interpolated from one colour a pixel, and a JPEG has its colours at half the size: fine
    noise is weak then, coarse noise is not, and what looks at the finest detail only (`dip.noise.noise_level`) finds
    next to none. So patches of 8 x 8 pixels are looked at, in the opponent colours and in the domain of their cosine
    transform D, as `dip.guides.wiener` weighs them. The variance of the noise is :math:`s_k^2 = \text{mean} (D y)_k^2`
    over the patches without structure: those with :math:`\sum_k (D y)_k^2 / s_k^2` no larger than nearly all patches
    of noise have (3.5 standard deviations beyond the mean), in turns, from the variances that the least fifth of the
    values tells. The coarsest noise, which is most like structure, is taken for no stronger than 2.5 times that of
    waves of 4 pixels. Where noise is independent from pixel to pixel, and from colour to colour it does not seem to be,
    that of the first of the opponent colours, the gray one, is what `dip.noise.noise_level` finds there; if the finest
    noise of the others is half as strong or more, it is independent after all. It is, too, where the differences of
    colours say so (`dip.noise.colours.of_colours`): then it is the gray one's detail that looks like noise.

    Parameters
    ----------
    picture : Tensor
        (1, C, H, W).
    known : Tensor, optional
        (H, W), bool: only patches of which every pixel is True are looked at. The others may hold anything finite.

    Returns
    -------
    Tensor or None
        (C, 64), standard deviations in each of the opponent colours (`dip.wiener.opponent`) and of each coefficient
        (`dip.wiener.cosines`), increased by a fifth: a filter that leaves noise costs more than one that is a little
        too strong.
    """
    picture = picture.detach().to("cpu", torch.float32)
    small = patches_of(picture, known=known)
    if small is None or small.shape[2] < _ENOUGH * len(small):
        return None
    of_pixels, of_channels = independent(small, roughness(small))
    if (of_pixels and of_channels) or by_colours(picture, known) < math.inf:
        return None
    patches = patches_of(picture, known=known, side=PATCH)
    if patches is None:
        return None
    variances = F.pad(without_structure(coefficients(patches)[:, 1:].square()), (1, 0))
    ring, coarse, finest = ((low <= FREQUENCY) & (high > FREQUENCY) for low, high in (_RING, _COARSE, _FINEST))
    most = _MOST**2 * variances[:, ring].mean(1, keepdim=True)
    variances = torch.where(coarse, torch.minimum(variances, most), variances)
    if of_pixels:
        gray = torch.einsum("j,bjhw->bhw", opponent(len(patches))[0].to(picture), picture)[None]
        variances[0] = noise_level(gray, known) ** 2
        if float(variances[1:, finest].mean()) > _WEAKER**2 * float(variances[0, 0]):
            return None
    variances[:, 0] = variances[:, [1, PATCH]].amax(1)
    return MORE * variances.sqrt()


def at_most(left: Tensor, picture: Tensor, known: Tensor | None = None) -> Tensor:
    """Return how strong the noise in a picture can be at each frequency, (C, 64), of which a fit has left so much.

    As long as it learns structure, a fit leaves most of the noise, and what it has not found yet: the root mean square
    of the coefficients of `spectrum`, over the patches that this looks at, increased by half, since some of the noise
    is learnt by then. All but `known`, (H, W), are (1, C, H, W).
    """
    left, picture = (one.detach().to("cpu", torch.float32) for one in (left, picture))
    patches, _ = all_patches(left, PATCH, MOST, known)
    patches = patches[:, ~cut_off(*all_patches(picture, PATCH, MOST, known))]
    found = coefficients(patches.reshape(left.shape[1], PATCH**2, -1)).square().mean(2).sqrt()
    found[:, 0] = found[:, [1, PATCH]].amax(1)
    return _LEFT * found


def independent_level(left: Tensor, picture: Tensor, known: Tensor | None = None) -> float | None:
    """Return the level of the noise in a picture if what a fit has left of it is independent noise, else None.

    It is that of `dip.noise.noise_level`, of the picture or of what is left, the smaller one; where noise was cut off
    in more than a twentieth of the picture, which what is left does not show, that of the picture. All but `known`,
    (H, W), are (1, C, H, W).
    """
    left, picture = (one.detach().to("cpu", torch.float32) for one in (left, picture))
    patches = patches_of(left, known=known)
    if patches is None or not all(independent(patches, roughness(patches))):
        return None
    level = noise_level(picture, known)
    return level if cut_share(picture, known) > _SOME else min(level, noise_level(left, known))


def total(found: Tensor) -> float:
    """Return the standard deviation, over all pixels and channels, of noise of a `spectrum`."""
    return float(found.square().mean().sqrt())


_ENOUGH = 500  # patches for each channel: of fewer, structure is hard to tell from coarse noise
_LEFT = 1.5  # times what a fit has left
_SOME = 0.05  # of the patches
_COARSE, _RING, _FINEST, _MOST, _WEAKER = (0.5, 3.3), (3.3, 4.7), (7.0, math.inf), 2.5, 0.5
