"""A Wiener filter of patches, told by a pilot what is not noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def wiener(
    picture: Tensor,
    pilot: Tensor,
    sigma: float | Tensor,
    gains: Sequence[float] = (1.0,),
    *,
    step: int = 1,
) -> list[Tensor]:
    r"""Return a noisy picture after an empirical Wiener filter: a pilot tells what in it is not noise.

    Each patch of 8 x 8 pixels, in each of the opponent colours, is weighed in the domain of its cosine transform D by
    what the pilot p has there, but for its mean, which stays:

    .. math:: \hat{x} = D^{-1} (w \odot D y), \quad w = \frac{(D p)^2}{(D p)^2 + (g σ)^2} .

    Every pixel is the mean of the patches that it is in, 64 unless there is a `step`, each weighted by
    :math:`1 / \sum w^2 σ^2`, so that those in which least noise was left count most. Beyond the border the pixels there
    go on.

    Parameters
    ----------
    picture, pilot : Tensor
        (1, C, H, W), float32, on one device.
    sigma : float or Tensor
        Standard deviation of the noise, or, (C, 64), of each coefficient in each of the opponent colours, where noise
        is not independent (`dip.noise.spectrum`). (g σ is at least 1e-6: with 0 only that is taken off of which the
        pilot has nothing.)
    gains : sequence of float
        The g: a pilot is smoother than what it stands for, and a g below 1 makes up for that. A picture is returned for
        each.
    step : int, default 1
        Patches begin at every so manyth pixel of a row and of a column, 8 at most, which takes 1 / step² of the time.

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
    if not 1 <= step <= PATCH:
        raise ValueError(f"step={step}: pixels between patches would be in none; allowed: 1 to {PATCH}")
    colours = opponent(picture.shape[1]).to(picture)
    transform = cosines().to(picture)
    rim = PATCH - 1
    pair = torch.einsum("ij,bjhw->bihw", colours, torch.cat([picture, pilot]))
    pair = F.pad(pair, (rim,) * 4, mode="replicate")
    height, width = pair.shape[2:]
    on_cpu = picture.device.type == "cpu"
    # Strips of rows that fit a CPU's cache; on another device larger ones, since each is some launches.
    rows = max(1, (2**13 if on_cpu else 2**15) * step // width)
    rows += -rows % step
    join = _joined if on_cpu and step == 1 else partial(_joined_at_once, step=step)
    sums = pair.new_zeros(len(gains), 2, *pair.shape[1:])
    for channel in range(pair.shape[1]):
        variances: list[float] | list[Tensor]
        if isinstance(sigma, Tensor):
            level = sigma[channel, :, None].to(picture).clamp(min=LEAST)
            share = level.square() / level.square().mean()
            variances = [(gain * level).clamp(min=LEAST).square() for gain in gains]
        else:
            share, variances = None, [max(gain * sigma, LEAST) ** 2 for gain in gains]
        for top in range(0, height - rim, rows):
            strip = pair[:, channel, None, top : top + rows + rim]
            coefficients = F.conv2d(strip, transform.reshape(-1, 1, PATCH, PATCH), stride=step)
            (high, wide), (noisy, power) = coefficients.shape[2:], coefficients.flatten(2)
            power = power.square()
            for variance, (total, weights) in zip(variances, sums[:, :, channel, top : top + rows + rim], strict=True):
                kept = power / (power + variance)
                kept[0] = 1
                left = kept.square()
                weight = 1 / (left if share is None else left * share).sum(0)
                join(kept.mul_(noisy).mul_(weight).reshape(-1, high, wide), transform, total)
                weight = weight.reshape(1, high, wide)
                if step == 1:
                    weights += sums_of_patches(F.pad(weight, (rim,) * 4))[0]
                else:
                    _joined_at_once(weight, torch.ones_like(transform[:1]), weights, step)
    filtered = (sums[:, 0] / sums[:, 1])[..., rim : height - rim, rim : width - rim]
    return [torch.einsum("ji,jhw->ihw", colours, one)[None] for one in filtered]


PATCH, LEAST = 8, 1e-6


def _joined(coefficients: Tensor, transform: Tensor, total: Tensor) -> None:
    """Add the patches of coefficients (64, h, w) to total (h + 7, w + 7), each where it belongs."""
    high, wide = coefficients.shape[1:]
    pixels = transform.T @ coefficients.flatten(1)
    for place, values in enumerate(pixels.reshape(-1, high, wide)):
        i, j = divmod(place, PATCH)
        total[i : i + high, j : j + wide] += values


def _joined_at_once(coefficients: Tensor, transform: Tensor, total: Tensor, step: int = 1) -> None:
    """Do what `_joined` does for any step, in few launches. (Not every device has fold().)"""
    patches = transform.reshape(-1, 1, PATCH, PATCH)
    if step == 1:
        total += F.conv2d(F.pad(coefficients[None], (PATCH - 1,) * 4), patches.transpose(0, 1).flip(2, 3))[0, 0]
        return
    joined = F.conv_transpose2d(coefficients[None], patches, stride=step)[0, 0]
    total[: joined.shape[0], : joined.shape[1]] += joined


def cosines() -> Tensor:
    """Return the matrix (64, 64) of the orthonormal cosine transform (type II): a patch's coefficients from pixels."""
    k = torch.arange(PATCH, dtype=torch.float64)
    matrix = torch.cos(math.pi * (k + 0.5) * k[:, None] / PATCH) * math.sqrt(2 / PATCH)
    matrix[0] /= math.sqrt(2)
    return torch.kron(matrix, matrix)


def opponent(channels: int) -> Tensor:
    """Return the matrix from RGB to luminance and two differences, orthonormal; of other pictures the channels stay."""
    if channels != 3:
        return torch.eye(channels)
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    return rows / rows.norm(dim=1, keepdim=True)


def sums_of_patches(x: Tensor) -> Tensor:
    """Return the sum of each patch of (..., H, W), (..., H - 7, W - 7): of pairs, of pairs of these, and so on."""
    for axis in (-2, -1):
        for step in (1, 2, 4):
            left = x.shape[axis] - step
            x = x.narrow(axis, 0, left) + x.narrow(axis, step, left)
    return x
