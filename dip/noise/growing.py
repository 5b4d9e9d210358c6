"""How strong noise is that grows with the light, as far as the picture itself tells."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dip.noise.clipped import ends, unclipped
from dip.noise.level import by_mask, flat_variances, independent, masked, patches_of, roughness
from dip.noise.model import PoissonGaussian, rounded

_GROUPS, _EACH = 8, 600  # of patches equally bright: how many at most, and of how many patches at least
_ENOUGH = 6000  # patches that are known as a whole, where there are other ways
_MOST = 2**14  # patches
_FEW = 100  # places of a mask whose median may be taken
_SIDE = 5  # of the parts whose brightness counts, pixels
_ROUNDS, _STEPS = 4, 20
_UNSURE = 0.3  # the weight of a group in which no patch is without structure
_SIMPLER = 0.02  # by how much more a model with one number less may be off
_LEAST = 1e-12
_PART, _SURE = 2**18, 96 * 96  # pixels that are looked at for a hint, and how many it takes to be sure of it
_CUT, _GROWN = 0.02, 1.5  # a share of pixels; how many times as strong noise is where it is bright, by trials
_COUNTED, _LOOK = 100, 10_000  # different values at most, from which counts are told; pixels that are looked at first
_DARK, _NEAR = 5, 0.25  # counts of a pixel in the mean, and the part of them by which the line may be off


def found(picture: Tensor, known: Tensor | None = None) -> PoissonGaussian | None:
    r"""Return the model of the noise in a picture; None where its noise cannot be told from the picture.

    The noise has to be independent from pixel to pixel. As in the second estimate of `dip.noise.noise_level`, the
    variance of the noise is found in groups of patches of 5 x 5 pixels that are equally bright, from those that have no
    structure: so there are points (mean, variance), through which goes the straight line v = g x + b. It is fitted by
    iterated weighting to the relative distances, so that a group with structure moves it little; it is nowhere
    negative, nor does it fall. Then the picture is stabilised with it (`Stabilising`), which makes the noise in each
    group more alike, and all is done again. A base b above 0 is read noise, one below it an offset; where a line
    without b, or else one without g, lies as near to the points, it is that.

    Where pixels are white (the largest value of a channel), bright points are taken to where they were before noise was
    clipped there, as far as that can be told.

    A picture of few different values that are all multiples of one is taken for counts, where the line does not
    contradict: then g is that one.

    Parameters
    ----------
    picture : Tensor
        (1, C, H, W), in any range. All channels are taken to have the same noise.
    known : Tensor, optional
        (H, W), bool: where the picture tells of noise. The other pixels hold what fills it (`dip.guides.filled`).

    References
    ----------
    Foi, Trimeche, Katkovnik, Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for single-image
    raw-data", IEEE Transactions on Image Processing 2008. To look at what is stabilised: Mäkitalo, Foi, "Noise
    parameter mismatch in variance stabilization, with an application to Poisson-Gaussian noise estimation", IEEE
    Transactions on Image Processing 2014.
    """
    if min(picture.shape[2:]) < 3:
        return None
    picture = picture.detach().to("cpu", torch.float32)
    line, one = _line_of(picture, known, grows=True), few_counts(picture, known)
    if one is not None and _counts(picture, known, one, line):
        return PoissonGaussian(rounded(one))
    if line is None:
        return None
    slope, base = map(rounded, line)
    return PoissonGaussian(slope, math.sqrt(max(base, 0)), -base / slope if base < 0 else 0.0)


def growth(picture: Tensor, known: Tensor | None = None) -> tuple[float, float] | None:
    """Return the standard deviations of the noise where a picture is dark and where it is bright, if it clearly grows.

    It is a hint, and costs little: a part of a large picture is looked at, and one round is done of what `found` does.
    Where black was cut off from noise it only seems to grow, so of many pixels at the least value nothing is said.
    Parameters as for `found`.
    """
    rows = _PART // picture.shape[3] + 1
    picture, known = picture[..., :rows, :], None if known is None else known[:rows]
    if min(picture.shape[2:]) < 3 or picture.shape[2] * picture.shape[3] < _SURE:
        return None
    one = few_counts(picture, known)
    if one is None and float((picture == picture.min()).float().mean()) > _CUT:
        return None
    line = _line_of(picture, known, rounds=1)
    if one is not None and _counts(picture, known, one, line):
        line = one, 0.0
    if line is None:
        return None
    dark, bright = (math.sqrt(max(line[0] * x + line[1], 0)) for x in _brightness(picture))
    return (dark, bright) if bright > _GROWN * dark else None


def _line_of(
    picture: Tensor, known: Tensor | None, rounds: int = _ROUNDS, *, grows: bool = False
) -> tuple[float, float] | None:
    """Return slope and base of the noise's variance over the brightness; None where it cannot be told.

    Of lines that are as near, it is that of noise which `grows` from nothing, or else of noise that does not grow.
    """
    _, white, at = ends(picture, known)
    saturated = bool(at[1].any())
    patches = patches_of(picture, _MOST, known, bright=saturated)
    if patches is None:
        return None if known is None else _line_by_masks(picture, known, grows)
    of_pixels, of_channels = independent(patches, roughness(patches))
    level = by_mask(picture, known)
    if not of_pixels or not level:
        return None
    if known is not None and patches.shape[2] < _ENOUGH:
        return _line_by_masks(picture, known, grows)
    groups = max(1, min(_GROUPS, patches.shape[2] // _EACH))
    slope, base = 0.0, level**2
    order = patches.mean((0, 1)).argsort()
    for _ in range(rounds):
        stable = _stabilised(patches, slope, base)
        rough, points = roughness(stable), []
        for group in order.tensor_split(groups):
            variances, flat = flat_variances(stable[:, :, group], rough[:, group], of_channels)
            inside = patches[:, :, group if flat is None else group[flat]].mean((1, 2)).double()
            weight = torch.full_like(inside, _UNSURE if flat is None else 1.0)
            variances = variances * (slope * inside + base).clamp(min=_LEAST)
            if saturated:
                inside, variances, told = unclipped(inside, variances, float(white.max()))
                weight *= told
            points.append(torch.stack([inside, variances, weight]))
        means, variances, weights = torch.cat(points, dim=1).numpy()
        if not weights.any():  # all is white
            return None
        slope, base = _line(means, variances, weights, grows=grows)
    return slope, base


def _line_by_masks(picture: Tensor, known: Tensor, grows: bool) -> tuple[float, float] | None:
    """Return the same where few patches are known as a whole: from what short masks leave, edges included."""
    found = [(left.flatten() / norm, light.flatten()) for left, norm, light in masked(picture, known, _GROUPS * _FEW)]
    if not found:
        return None
    left, light = (torch.cat(values) for values in zip(*found, strict=True))
    points = [
        (float(light[group].mean()), (float(left[group].abs().median()) / 0.6745) ** 2, 1.0)
        for group in light.argsort().tensor_split(_GROUPS)
    ]
    return _line(*np.array(points).T, grows=grows)


def _stabilised(patches: Tensor, slope: float, base: float) -> Tensor:
    """Return patches whose noise has about the variance 1, if it is slope · x + base where the picture is x."""
    if not slope:
        return patches / math.sqrt(base)
    return 2 * (patches / slope + 3 / 8 + base / slope**2).clamp(min=0).sqrt()


def _line(x: np.ndarray, v: np.ndarray, weights: np.ndarray, *, grows: bool) -> tuple[float, float]:
    """Return slope and base of the line through points, of which some are too high; the simplest that will do."""
    from scipy.optimize import nnls

    v = v.clip(min=_LEAST)
    first = x.min()
    # at least 0 at the darkest point, and from there on no less
    rows = np.stack([np.ones_like(x), x - first], axis=1)
    w = weights / v
    for _ in range(_STEPS):
        there, rise = nnls(rows * w[:, None], v * w)[0]
        line = (rows @ (there, rise)).clip(min=_LEAST)
        w = weights / line / np.sqrt(np.abs(v / line - 1).clip(min=0.05))
    full = (float(rise), float(there - rise * first))
    simpler = [(0.0, _middle(v, weights))]
    if first > 0:
        simpler.insert(0 if grows else 1, (_middle(v / x, weights), 0.0))
    most = _off(x, v, weights, *full) + _SIMPLER
    return next((line for line in simpler if _off(x, v, weights, *line) <= most), full)


def _off(x: np.ndarray, v: np.ndarray, weights: np.ndarray, slope: float, base: float) -> float:
    """Return how far points are from a line, in the mean, in parts of it."""
    line = (slope * x + base).clip(min=_LEAST)
    return float(np.average(np.abs(v / line - 1).clip(max=1), weights=weights))


def _middle(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted median."""
    order = values.argsort()
    summed = weights[order].cumsum()
    return float(values[order][np.searchsorted(summed, summed[-1] / 2)])


def _brightness(picture: Tensor) -> list[float]:
    """Return below what a tenth and nine tenths of a picture are; single pixels would tell of its noise, too."""
    means = F.avg_pool2d(picture, [min(_SIDE, size) for size in picture.shape[2:]], stride=1)
    return [float(x) for x in np.quantile(means.numpy(), (0.1, 0.9))]


def few_counts(picture: Tensor, known: Tensor | None = None) -> float | None:
    """Return what all values of a picture are multiples of, if there are few of them; else None."""
    values = (picture if known is None else picture[..., known]).flatten()
    if len(values[:: max(1, len(values) // _LOOK)].unique()) > _COUNTED:  # spares sorting all
        return None
    values = values.unique()
    if not 2 < len(values) <= _COUNTED or values[-1] <= 0:
        return None
    one, highest = float(values.diff().min()), float(values[-1])
    one = highest / max(1, round(highest / one))  # numbers may have been rounded
    counts = values / one
    return one if float((counts - counts.round()).abs().max()) < 0.05 else None


def counted(picture: Tensor, known: Tensor | None = None) -> bool:
    """Whether a picture, however small, seems to be one of counts; parameters as for `found`."""
    one = few_counts(picture, known) if min(picture.shape[2:]) > 2 else None
    return one is not None and _counts(picture, known, one, _line_of(picture, known, rounds=1))


def _counts(picture: Tensor, known: Tensor | None, one: float, line: tuple[float, float] | None) -> bool:
    """Whether the variance in a picture is that of counts of which each is `one`, dark and bright."""
    mean = float(picture.mean())
    if line is not None and mean >= _DARK * one:
        return all(abs(line[0] * x + line[1] - one * x) <= _NEAR * one * max(x, mean) for x in _brightness(picture))
    # Patches tell nothing of so little light; but there is little structure beside such noise.
    if not (left := masked(picture, known)):
        return False
    rest, norm, light = left[0]
    rest, light = rest.flatten(), light.flatten()
    halves = light.argsort().tensor_split(2)
    pairs = [(float(rest[half].square().mean()) / norm**2, one * float(light[half].mean())) for half in halves]
    return all(0.5 * expected <= variance <= 1.5 * expected for variance, expected in pairs)
