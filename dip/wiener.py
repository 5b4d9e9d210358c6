"""Wiener filters of patches, lone ones and groups of those that are alike, told by a pilot what is not noise."""

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
    sigma: float,
    gains: Sequence[float] = (1.0,),
    *,
    step: int = 1,
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
    colours = _opponent(picture.shape[1]).to(picture)
    transform = torch.kron(_cosines(), _cosines()).to(picture)  # (64, 64): a patch's coefficients from its pixels
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
        for top in range(0, height - rim, rows):
            strip = pair[:, channel, None, top : top + rows + rim]
            coefficients = F.conv2d(strip, transform.reshape(-1, 1, PATCH, PATCH), stride=step)
            (high, wide), (noisy, power) = coefficients.shape[2:], coefficients.flatten(2)
            power = power.square()
            for gain, (total, weights) in zip(gains, sums[:, :, channel, top : top + rows + rim], strict=True):
                kept = power / (power + max(gain * sigma, _LEAST) ** 2)
                kept[0] = 1
                weight = 1 / kept.square().sum(0)
                join(kept.mul_(noisy).mul_(weight).reshape(-1, high, wide), transform, total)
                weight = weight.reshape(1, high, wide)
                if step == 1:
                    weights += _sums(F.pad(weight, (rim,) * 4))[0]
                else:
                    _joined_at_once(weight, torch.ones_like(transform[:1]), weights, step)
    filtered = (sums[:, 0] / sums[:, 1])[..., rim : height - rim, rim : width - rim]
    return [torch.einsum("ji,jhw->ihw", colours, one)[None] for one in filtered]


@torch.no_grad()
def grouped(
    picture: Tensor, pilot: Tensor, sigma: float, *, offset: tuple[int, int] = (0, 0), weight: Tensor | None = None
) -> Tensor:
    r"""Return a noisy picture after an empirical Wiener filter of patches with those that are like them.

    As `wiener`, but a patch is filtered together with the 15 that are most like it in the pilot, among those that begin
    at most 12 pixels from it in each direction: the transform is also one along these, of Hadamard, and it is the
    group's mean that stays. What repeats becomes large there, so it is kept where lone patches have it taken for noise.
    How alike two are is told by their ten lowest coefficients, in colour those of luminance.

    Every eighth patch of a row and of a column has a group; a pixel is the mean of all patches that it is in, each
    weighted by its group's :math:`1 / \sum w^2`. With a `weight` a patch counts as far as it is known, only those
    have groups that have something missing in them or within 4 pixels, and what no patch comes to stays as it is.

    Parameters
    ----------
    picture, pilot : Tensor
        (1, C, H, W), float32, on the CPU: there sums come in one order, each time.
    sigma : float
        Standard deviation of the noise, at least 1e-6.
    offset : tuple of int
        Row and column, below 8, at which patches begin: another one each time where the filter is used in turns.
    weight : Tensor, optional
        (1, 1, H, W) in [0, 1]: how much is known of each pixel; all is, by default.

    References
    ----------
    Dabov, Foi, Katkovnik, Egiazarian, "Image denoising by sparse 3-D transform-domain collaborative filtering", IEEE
    Transactions on Image Processing 2007: the second step.
    """
    colours = _opponent(picture.shape[1]).to(picture)
    transform = torch.kron(_cosines(), _cosines()).to(picture)
    along = _hadamard(_GROUP).to(picture)
    rim = PATCH - 1
    pair = torch.einsum("ij,bjhw->bihw", colours, torch.cat([picture, pilot]))
    pair = F.pad(pair, (rim,) * 4, mode="replicate")
    height, width = pair.shape[2:]
    seen = pair[1, : 1 if len(colours) == 3 else None, None]
    low = transform[_lowest()].reshape(-1, 1, PATCH, PATCH)
    rows, columns = torch.arange(PATCH)[:, None] * width, torch.arange(PATCH)
    pixels = pair.flatten(2)
    runs = pixels.as_strided((*pixels.shape[:2], pixels.shape[2] - rim, PATCH), (*pixels.stride(), 1))  # of a row
    whole = torch.ones_like(picture[:, :1]) if weight is None else weight
    whole = F.pad(whole, (rim,) * 4, mode="replicate")
    share = (_sums(whole) / PATCH**2).clamp(min=_SOME)
    share = F.pad(share, (0, rim, 0, rim)).flatten()  # of the patch that begins at each pixel
    wanted = None if weight is None else _near_holes(1 - whole, offset)
    first = torch.arange(offset[1], width - rim, PATCH)
    sums = torch.zeros_like(pixels)
    last = height - PATCH  # where patches begin
    top = bottom = -1
    for number, row in enumerate(range(offset[0], last + 1, PATCH)):
        chosen = first if wanted is None else first[wanted[number]]
        if not len(chosen):
            continue
        if row > bottom:
            top, bottom = row, min(row + _BAND, last)
            table = _told(seen, low, top - _REACH, bottom + _REACH)
        places = row * width + _alike(table, row - top, chosen, width)  # (patches of a group, groups)
        starts = (places[..., None, None] + rows).flatten()
        at, known = (starts[:, None] + columns).flatten(), share[places]
        for channel, (total, weights) in enumerate(sums.unbind(1)):
            patches = (one.index_select(0, starts).reshape(-1, PATCH**2) for one in runs[:, channel])
            noisy, power = (
                (along @ (one @ transform.T).reshape(_GROUP, -1)).unflatten(1, (-1, PATCH**2)) for one in patches
            )
            power = power.square()
            kept = power / (power + max(sigma, _LEAST) ** 2)
            kept[0, :, 0] = 1
            counts = known / kept.square().sum((0, 2))
            filtered = (along @ kept.mul_(noisy).flatten(1)).reshape(-1, PATCH**2) @ transform
            total.index_add_(0, at, filtered.mul_(counts.reshape(-1, 1)).flatten())
            weights.index_add_(0, places.flatten(), counts.flatten())
    total, weights = sums.unflatten(2, (height, width))
    weights = _sums(F.pad(weights, (rim, 0, rim, 0)))  # a pixel is in patches that begin up to 7 before it
    filtered = torch.where(weights > 0, total / weights, pair[0])[..., rim : height - rim, rim : width - rim]
    return torch.einsum("ji,jhw->ihw", colours, filtered)[None]


PATCH, _LEAST = 8, 1e-6
_SOME = 1e-4  # share that counts as known of a patch of which nothing is


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


def _cosines() -> Tensor:
    """Return the matrix of the orthonormal cosine transform (type II)."""
    k = torch.arange(PATCH, dtype=torch.float64)
    matrix = torch.cos(math.pi * (k + 0.5) * k[:, None] / PATCH) * math.sqrt(2 / PATCH)
    matrix[0] /= math.sqrt(2)
    return matrix


def _opponent(channels: int) -> Tensor:
    """Return the matrix from RGB to luminance and two differences, orthonormal; of other pictures the channels stay."""
    if channels != 3:
        return torch.eye(channels)
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    return rows / rows.norm(dim=1, keepdim=True)


_GROUP, _REACH = 16, 12  # patches, and pixels to each side
_NEAR = 4  # pixels to each side of a patch in which holes count, by trials
_BAND = 120  # rows of which patches are told at a time
_FAR = 1e3  # what of a patch beyond the border is told, so that it is like none


def _told(seen: Tensor, low: Tensor, first: int, last: int) -> Tensor:
    """Return what is told of the patches that begin in these rows, or beyond the border, (rows, w + 2 _REACH, n)."""
    begin, end = max(first, 0), min(last, seen.shape[2] - PATCH)
    table = F.conv2d(seen[:, :, begin : end + PATCH], low).flatten(0, 1)
    beyond = (_REACH, _REACH, begin - first, last - end)
    return F.pad(table, beyond, value=_FAR).permute(1, 2, 0).contiguous()


def _alike(table: Tensor, row: int, columns: Tensor, width: int) -> Tensor:
    """Return where the patches like those of a row begin in a picture of that width, itself first, (_GROUP, groups).

    They are counted from the row's first pixel. What is told of a patch is in `table`, in which the row has _REACH
    others above it; those that begin in `columns` have a group.
    """
    across, told = table.shape[1:]
    side = 2 * _REACH + 1
    windows = table.as_strided((across - side + 1, side, side * told), (told, across * told, 1), row * across * told)
    about = windows.index_select(0, columns).reshape(len(columns), -1, told)
    own = about[:, None, side * side // 2]
    unlike = torch.cdist(own, about, compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
    unlike[:, side * side // 2] = -1
    nearest = unlike.topk(_GROUP, largest=False).indices.T
    down, right = nearest // side - _REACH, nearest % side - _REACH
    return down * width + columns + right


def _near_holes(missing: Tensor, offset: tuple[int, int]) -> Tensor:
    """Return which patches, every eighth of a row and of a column from `offset` on, have holes in them or nearby."""
    side = PATCH + 2 * _NEAR
    about = F.pad(missing, (_NEAR,) * 4)[..., offset[0] :, offset[1] :]
    most = F.max_pool2d(F.max_pool2d(about, (side, 1), stride=(PATCH, 1)), (1, side), stride=(1, PATCH))
    return most[0, 0] > 0


def _sums(x: Tensor) -> Tensor:
    """Return the sum of each patch of (..., H, W), (..., H - 7, W - 7): of pairs, of pairs of these, and so on."""
    for axis in (-2, -1):
        for step in (1, 2, 4):
            left = x.shape[axis] - step
            x = x.narrow(axis, 0, left) + x.narrow(axis, step, left)
    return x


def _lowest() -> Tensor:
    """Return which of the 64 coefficients of a patch are low in both directions together."""
    k = torch.arange(PATCH)
    return (k + k[:, None] < 4).flatten()


def _hadamard(size: int) -> Tensor:
    """Return the orthonormal, symmetric matrix of a size that is a power of 2."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix) / math.sqrt(2)
    return matrix
