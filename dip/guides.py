"""What filters make of a noisy picture, and of one with missing pixels: what a code is made of (`dip.codes`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dip.wiener import PATCH, grouped, wiener


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

    pixels = np.ascontiguousarray(picture[0].permute(1, 2, 0).double().numpy())
    # Of a picture without noise there is nothing to take off, and the filters divide by the level.
    sigma = max(sigma, 1e-3)
    made = (
        restoration.denoise_nl_means(
            pixels, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
        ),
        restoration.denoise_tv_chambolle(pixels, weight=sigma, channel_axis=-1),
    )
    # a single channel's axis is lost on the way
    return [torch.from_numpy(one.reshape(pixels.shape)).permute(2, 0, 1)[None].to(picture) for one in made]


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
        sums = _halved(torch.cat(levels[-1], dim=1))
        share = sums[:, -1:]
        weight = (_SURE * share).clamp(max=1)
        # what is far from all that is known stays 0, of weight 0, until a coarser level
        levels.append((sums[:, :-1] / torch.where(share > 0, share, 1) * weight, weight))
    weighted, weight = levels.pop()
    filled = weighted / weight
    for weighted, weight in reversed(levels):
        height, width = weight.shape[2:]
        above = F.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
        filled = weighted + (1 - weight) * above
    return filled


APART = 4  # pixels from patch to patch where the filter is used in many turns: five times as fast, and no worse


@torch.no_grad()
def inpainted(picture: Tensor, weight: Tensor, times: int = 160) -> Tensor:
    r"""Return a picture without noise whose missing pixels are filled in by Wiener filters, in many turns.

    What is missing is taken for noise, which a filter takes off, at first as strong, then as ever weaker; after each
    turn the known pixels are put back. From x_0 = p_0, what `filled` makes of the picture y,

    .. math:: p_{k+1} = W_{σ_k}(x_k; p_k), \quad x_{k+1} = m \odot y + (1 - m) \odot p_{k+1},

    where W with the pilot p is in the first half of the turns `wiener`, patches four pixels apart, and σ_k goes from
    0.2 to 0.005 in equal ratios; in the second half it is `grouped`, and σ_k goes from 0.1 to 0.005. In each turn other
    patches are filtered.

    Parameters
    ----------
    picture, weight : Tensor
        As for `filled`.
    times : int, default 160
        Turns.

    References
    ----------
    Guleryuz, "Nonlinear approximation based image recovery using adaptive sparse reconstructions and iterated
    denoising", IEEE Transactions on Image Processing 2006, where the threshold falls.
    """
    first = filled(picture, weight)
    x = in_turns(first, first, _levels(_STRONG, times - times // 2), partial(_put_back, picture, weight), step=APART)
    return _in_groups(x, picture, weight, _levels(_AGAIN, times // 2))


def refined(x: Tensor, picture: Tensor, weight: Tensor) -> Tensor:
    """Return a picture x whose missing pixels are nearly right after ten last turns, of σ from 0.01 to 0.005.

    They are those of the second half of `inpainted`, which has `picture` and `weight`, too.
    """
    return _in_groups(x, picture, weight, _levels(_LAST, 10))


def _in_groups(x: Tensor, picture: Tensor, weight: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Return x after turns of `grouped`, which is for the CPU."""
    known = partial(_put_back, picture.cpu(), weight.cpu())
    return in_turns(x.cpu(), x.cpu(), sigmas, known, step=None).to(x.device)


def in_turns(
    picture: Tensor,
    pilot: Tensor,
    sigmas: Sequence[float],
    known: Callable[[Tensor], Tensor],
    *,
    step: int | None = 1,
) -> Tensor:
    """Return a picture after `wiener` at each of these levels, with what came before as the pilot.

    After each `known` puts back what is known. With a `step` the patches begin elsewhere in each turn; with None it is
    `grouped`.
    """
    for turn, sigma in enumerate(sigmas):
        apart = step or PATCH
        offset = divmod(_STRIDE * turn % apart**2, apart)
        if step is None:
            pilot = grouped(picture, pilot, sigma, offset=offset)
        else:
            pilot = wiener(picture, pilot, sigma, step=step, offset=offset)[0]
        picture = known(pilot)
    return picture


def _put_back(y: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """Return a picture with its known pixels."""
    return torch.lerp(x, y, weight)


def _levels(strongest: float, times: int) -> list[float]:
    """Return so many standard deviations, from one to the weakest in equal ratios."""
    return [strongest * (_WEAK / strongest) ** (turn / max(times - 1, 1)) for turn in range(times)]


_STRONG, _AGAIN, _LAST, _WEAK = 0.2, 0.1, 0.01, 0.005  # standard deviations, by trials
_STRIDE = 7  # how offsets follow each other: of 4 x 4 (0, 0), (1, 3), (3, 2), ...
_SURE = 8  # times the share of a mean's weights that is known: from an eighth on it counts as known


def _halved(x: Tensor) -> Tensor:
    """Return (1, C, H, W) at half the size, rounded up, after a binomial filter; beyond the border all is 0."""
    taps = x.new_tensor([1, 3, 3, 1]) / 8
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    height, width = x.shape[2:]
    return F.conv2d(F.pad(x, (1, 1 + width % 2, 1, 1 + height % 2)), kernel, stride=2, groups=x.shape[1])
