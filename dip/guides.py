"""What filters make of a noisy picture, and of one with missing pixels: what a code is made of (`dip.codes`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


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
def wiener(
    picture: Tensor,
    pilot: Tensor,
    sigma: float,
    gains: Sequence[float] = (1.0,),
    *,
    step: int = 1,
    offset: tuple[int, int] = (0, 0),
) -> list[Tensor]:
    r"""Return a noisy picture after an empirical Wiener filter: a pilot tells what in it is not noise.

    Each patch of 8 x 8 pixels, in each of the opponent colours, is weighed in the domain of its cosine transform D by
    what the pilot p has there, but for its mean, which stays:

    .. math:: \hat{x} = D^{-1} (w \odot D y), \quad w = \frac{(D p)^2}{(D p)^2 + (g σ)^2} .

    Every pixel is the mean of the patches that it is in, 64 unless there is a `step`, each weighted by
    :math:`1 / \sum w^2`, so that those in which least noise was left count most. Beyond the border the pixels there go
    on.

    Parameters
    ----------
    picture, pilot : Tensor
        (1, C, H, W), float32, on one device.
    sigma : float
        Standard deviation of the noise. (g σ is at least 1e-6: with 0 only that is taken off of which the pilot has
        nothing.)
    gains : sequence of float
        The g: a pilot is smoother than what it stands for, and a g below 1 makes up for that. A picture is returned for
        each.
    step : int, default 1
        Patches begin at every so manyth pixel of a row and of a column, 8 at most, which takes 1 / step² of the time.
    offset : tuple of int
        Row and column, below `step`, at which they do: another one each time where the filter is used in turns.

    Raises
    ------
    ValueError
        `step` is not from 1 to 8.

    References
    ----------
    Ghael, Sayeed, Baraniuk, "Improved wavelet denoising via empirical Wiener filtering", SPIE 1997; the weights, and a
    second step of that kind: Dabov, Foi, Katkovnik, Egiazarian, "Image denoising by sparse 3-D transform-domain
    collaborative filtering", IEEE Transactions on Image Processing 2007.
    """
    if not 1 <= step <= _PATCH:
        raise ValueError(f"step={step}: pixels between patches would be in none; allowed: 1 to {_PATCH}")
    colours = _opponent(picture.shape[1]).to(picture)
    transform = torch.kron(_cosines(), _cosines()).to(picture)  # (64, 64): a patch's coefficients from its pixels
    rim = _PATCH - 1
    pair = torch.einsum("ij,bjhw->bihw", colours, torch.cat([picture, pilot]))
    pair = F.pad(pair, (rim,) * 4, mode="replicate")
    height, width = pair.shape[2:]
    on_cpu = picture.device.type == "cpu"
    # Strips of rows that fit a CPU's cache; on another device larger ones, since each is some launches.
    rows = max(1, (2**13 if on_cpu else 2**15) * step // width)
    rows += -rows % step
    (down, right), join = offset, _joined if on_cpu and step == 1 else partial(_joined_at_once, step=step)
    sums = pair.new_zeros(len(gains), 2, *pair.shape[1:])
    for channel in range(pair.shape[1]):
        for top in range(down, height - rim, rows):
            strip = pair[:, channel, None, top : top + rows + rim, right:]
            coefficients = F.conv2d(strip, transform.reshape(-1, 1, _PATCH, _PATCH), stride=step)
            (high, wide), (noisy, power) = coefficients.shape[2:], coefficients.flatten(2)
            power = power.square()
            for gain, (total, weights) in zip(gains, sums[:, :, channel, top : top + rows + rim, right:], strict=True):
                kept = power / (power + max(gain * sigma, _LEAST) ** 2)
                kept[0] = 1
                weight = 1 / kept.square().sum(0)
                join(kept.mul_(noisy).mul_(weight).reshape(-1, high, wide), transform, total)
                weight = weight.reshape(1, high, wide)
                if step == 1:
                    weights += _PATCH**2 * F.avg_pool2d(F.pad(weight, (rim,) * 4), _PATCH, stride=1)[0]
                else:
                    _joined_at_once(weight, torch.ones_like(transform[:1]), weights, step)
    filtered = (sums[:, 0] / sums[:, 1])[..., rim : height - rim, rim : width - rim]
    return [torch.einsum("ji,jhw->ihw", colours, one)[None] for one in filtered]


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
    r"""Return a picture without noise whose missing pixels are filled in by the Wiener filter, in many turns.

    What is missing is taken for noise, which the filter takes off, at first as strong, then as ever weaker; after each
    turn the known pixels are put back. From x_0 = p_0, what `filled` makes of the picture y,

    .. math:: p_{k+1} = W_{σ_k}(x_k; p_k), \quad x_{k+1} = m \odot y + (1 - m) \odot p_{k+1},

    where W is `wiener` with the pilot p, patches four pixels apart, others in each turn, and σ_k goes from 0.2 to 0.005
    in equal ratios.

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
    sigmas = [_STRONG * (_WEAK / _STRONG) ** (turn / max(times - 1, 1)) for turn in range(times)]
    return in_turns(first, first, sigmas, lambda x: torch.lerp(x, picture, weight), step=APART)


def in_turns(
    picture: Tensor, pilot: Tensor, sigmas: Sequence[float], known: Callable[[Tensor], Tensor], *, step: int = 1
) -> Tensor:
    """Return a picture after `wiener` at each of these levels, with what came before as the pilot.

    After each `known` puts back what is known. With a `step` the patches begin elsewhere in each turn.
    """
    for turn, sigma in enumerate(sigmas):
        offset = divmod(_STRIDE * turn % step**2, step)
        pilot = wiener(picture, pilot, sigma, step=step, offset=offset)[0]
        picture = known(pilot)
    return picture


_STRONG, _WEAK = 0.2, 0.005  # standard deviations, by trials
_STRIDE = 7  # how offsets follow each other: of 4 x 4 (0, 0), (1, 3), (3, 2), ...
_SURE = 8  # times the share of a mean's weights that is known: from an eighth on it counts as known


def _halved(x: Tensor) -> Tensor:
    """Return (1, C, H, W) at half the size, rounded up, after a binomial filter; beyond the border all is 0."""
    taps = x.new_tensor([1, 3, 3, 1]) / 8
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    height, width = x.shape[2:]
    return F.conv2d(F.pad(x, (1, 1 + width % 2, 1, 1 + height % 2)), kernel, stride=2, groups=x.shape[1])


_PATCH, _LEAST = 8, 1e-6


def _joined(coefficients: Tensor, transform: Tensor, total: Tensor) -> None:
    """Add the patches of coefficients (64, h, w) to total (h + 7, w + 7), each where it belongs."""
    high, wide = coefficients.shape[1:]
    pixels = transform.T @ coefficients.flatten(1)
    for place, values in enumerate(pixels.reshape(-1, high, wide)):
        i, j = divmod(place, _PATCH)
        total[i : i + high, j : j + wide] += values


def _joined_at_once(coefficients: Tensor, transform: Tensor, total: Tensor, step: int = 1) -> None:
    """Do what `_joined` does for any step, in few launches. (Not every device has fold().)"""
    patches = transform.reshape(-1, 1, _PATCH, _PATCH)
    if step == 1:
        total += F.conv2d(F.pad(coefficients[None], (_PATCH - 1,) * 4), patches.transpose(0, 1).flip(2, 3))[0, 0]
        return
    joined = F.conv_transpose2d(coefficients[None], patches, stride=step)[0, 0]
    total[: joined.shape[0], : joined.shape[1]] += joined


def _cosines() -> Tensor:
    """Return the matrix of the orthonormal cosine transform (type II)."""
    k = torch.arange(_PATCH, dtype=torch.float64)
    matrix = torch.cos(math.pi * (k + 0.5) * k[:, None] / _PATCH) * math.sqrt(2 / _PATCH)
    matrix[0] /= math.sqrt(2)
    return matrix


def _opponent(channels: int) -> Tensor:
    """Return the matrix from RGB to luminance and two differences, orthonormal; of other pictures the channels stay."""
    if channels != 3:
        return torch.eye(channels)
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    return rows / rows.norm(dim=1, keepdim=True)
