"""What filters make of a noisy picture, and of one with missing pixels: what a code is made of (`dip.codes`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dip.groups import in_turns
from dip.wiener import wiener

__all__ = ["denoised", "filled", "inpainted", "non_local_means", "pilot", "refined", "wiener"]


def denoised(picture: Tensor, sigma: float) -> list[Tensor]:
    """Return a picture after non-local means and after total variation, in that order.

    The first finds what repeats, the second what is flat between edges.

    Parameters
    ----------
    picture : Tensor
        (1, C, H, W) in [0, 1], on the CPU.
    sigma : float
        Standard deviation of the noise.
    """
    from skimage import restoration

    variation = partial(restoration.denoise_tv_chambolle, weight=max(sigma, _NOISE))
    return [non_local_means(picture, sigma), _filtered(picture, variation)]


def non_local_means(picture: Tensor, sigma: float) -> Tensor:
    """Return the first of what `denoised` returns, parameters as there."""
    from skimage import restoration

    sigma = max(sigma, _NOISE)
    means = partial(restoration.denoise_nl_means, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma)
    return _filtered(picture, partial(means, fast_mode=True))


_NOISE = 1e-3  # of a picture without noise there is nothing to take off, and the filters divide by the level


def _filtered(picture: Tensor, by: Callable[..., np.ndarray]) -> Tensor:
    """Return what a filter of scikit-image makes of a picture."""
    pixels = np.ascontiguousarray(picture[0].permute(1, 2, 0).double().numpy())
    made = by(pixels, channel_axis=-1)
    # a single channel's axis is lost on the way
    return torch.from_numpy(made.reshape(pixels.shape)).permute(2, 0, 1)[None].to(picture)


def pilot(picture: Tensor, sigma: float) -> Tensor:
    """Return the mean of what `denoised` returns, parameters as there: a first pilot for `wiener`."""
    means, variation = denoised(picture, sigma)
    return (means + variation) / 2


@torch.no_grad()
def filled(picture: Tensor, weight: Tensor) -> Tensor:
    """Return a picture whose missing pixels are filled in from the known ones about them, near or far (pull-push).

    The weighted means of what is known are taken down a pyramid of halves until nothing is missing, and from there up
    again each level is laid over the next coarser one, enlarged, as far as its pixels are known. Every pixel is a
    weighted mean of known ones. It takes time in proportion to the pixels, however large the holes are.

    Parameters
    ----------
    picture : Tensor
        (1, C, H, W), float32.
    weight : Tensor
        (1, 1, H, W) in [0, 1]: 1 = the pixel stays, 0 = it is missing, and counts for nothing. One at least is above 0.

    References
    ----------
    Gortler, Grzeszczuk, Szeliski, Cohen, "The lumigraph", SIGGRAPH 1996.
    """
    levels = [(picture * weight, weight)]
    while max(weight.shape[2:]) > 1 and float(weight.min()) < 1:
        mean, weight = _coarser(*levels[-1])
        levels.append((mean * weight, weight))
    weighted, weight = levels.pop()
    filled = weighted / weight
    for weighted, weight in reversed(levels):
        filled = weighted + (1 - weight) * _enlarged(filled, weight)
    return filled


@torch.no_grad()
def inpainted(picture: Tensor, weight: Tensor, times: int = 100) -> Tensor:
    r"""Return a picture without noise whose missing pixels are filled in by Wiener filters, in many turns.

    What is missing is taken for noise, which a filter takes off, at first as strong, then as ever weaker; after each
    turn the known pixels of the picture y are put back:

    .. math:: p_{k+1} = W_{σ_k}(x_k; p_k), \quad x_{k+1} = m \odot y + (1 - m) \odot (x_k + 1.9 (p_{k+1} - x_k)),

    where W with the pilot p is `groups.Groups`, of other patches in each turn, and σ_k goes from 0.07 to 0.005 in
    equal ratios. To go nearly twice as far as the filter says spares half of the turns (over-relaxation); the last one
    goes as far as it says. The missing pixels of x_0 = p_0 are those of the picture of half the size, enlarged, which
    is filled in the same way, in half of the turns; the smallest one begins with what `filled` makes of it.

    Parameters
    ----------
    picture, weight : Tensor
        As for `filled`.
    times : int, default 100
        Turns.

    References
    ----------
    Guleryuz, "Nonlinear approximation based image recovery using adaptive sparse reconstructions and iterated
    denoising", IEEE Transactions on Image Processing 2006, where the threshold falls. From coarse to fine: Wexler,
    Shechtman, Irani, "Space-time completion of video", IEEE Transactions on Pattern Analysis and Machine Intelligence
    2007.
    """
    return _from_half(picture.cpu(), weight.cpu(), times).to(picture.device)


def _from_half(y: Tensor, m: Tensor, times: int) -> Tensor:
    """Do what `inpainted` does, on the CPU."""
    if float(m.min()) == 1:
        return y
    if min(m.shape[2:]) < _SMALL:
        first = filled(y, m)
    else:
        first = torch.lerp(_enlarged(_from_half(*_coarser(y * m, m), max(times // 2, 1)), m), y, m)
    return in_turns(first, y, m, _levels(_STRONG, times))


def refined(x: Tensor, picture: Tensor, weight: Tensor) -> Tensor:
    """Return a picture x whose missing pixels are nearly right after ten last turns, of σ from 0.01 to 0.005.

    They are as those of `inpainted`, which has `picture` and `weight`, too.
    """
    return in_turns(x.cpu(), picture.cpu(), weight.cpu(), _levels(_LAST, 10)).to(x.device)


def _levels(strongest: float, times: int) -> list[float]:
    """Return so many standard deviations, from one to the weakest in equal ratios."""
    return [strongest * (_WEAK / strongest) ** (turn / max(times - 1, 1)) for turn in range(times)]


_STRONG, _LAST, _WEAK = 0.07, 0.01, 0.005  # standard deviations, by trials
_SMALL = 16  # pixels of a side below which a picture is not halved
_SURE = 8  # times the share of a mean's weights that is known: from an eighth on it counts as known


def _coarser(weighted: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of what is known at half the size, and how far they are; of a picture times its weight."""
    sums = _halved(torch.cat([weighted, weight], dim=1))
    share = sums[:, -1:]
    # what is far from all that is known stays 0, of weight 0, until a coarser level
    return sums[:, :-1] / torch.where(share > 0, share, 1), (_SURE * share).clamp(max=1)


def _enlarged(x: Tensor, weight: Tensor) -> Tensor:
    """Return a picture of half the size as large as these weights."""
    height, width = weight.shape[2:]
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]


def _halved(x: Tensor) -> Tensor:
    """Return (1, C, H, W) at half the size, rounded up, after a binomial filter; beyond the border all is 0."""
    taps = x.new_tensor([1, 3, 3, 1]) / 8
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    height, width = x.shape[2:]
    return F.conv2d(F.pad(x, (1, 1 + width % 2, 1, 1 + height % 2)), kernel, stride=2, groups=x.shape[1])
