"""How strong the noise in a picture is, as far as the picture itself tells."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.noise import clipped
from dip.noise.clipped import Clipped
from dip.noise.colours import of_colours
from dip.wiener import PATCH

__all__ = ["as_it_is", "blocks", "by_colours", "by_mask", "by_patches", "clipping", "levels", "noise_level"]

_SIDE = 5  # of a patch
MOST = 2**15  # patches; of a larger picture some are taken, evenly
_GROUPS, _EACH = 4, 3000  # of patches equally bright: how many at most, and of how many patches at least
_ROUNDS = 6
_MEDIANS = 2**16  # values of which a median is taken where noise was clipped
_FLAT = 0.999  # share of all patches without structure that are to be taken for such
_ENOUGH = 10  # patches for each of a patch's values, at least
MORE = 1.2  # by which the second estimate and the third are increased
_PATCHES_LESS, _COLOURS_LESS = 1.05, 1.02  # by which they are where the likely one is wanted
_WHITE, _APART = -0.15, 0.35  # the most correlation along rows or columns, and between channels, of such noise
_LINE = torch.tensor([[1.0, -2.0, 1.0]])
_PAIR = torch.tensor([[1.0, -1.0]])
_MASKS = (((_LINE.T @ _LINE,), 400), ((_LINE, _LINE.T), 100), ((_PAIR, _PAIR.T), 10))
"""Masks that take off structure, and in how many places one may look: the better ones are told by more pixels."""


def noise_level(picture: Tensor, known: Tensor | None = None) -> float:
    r"""Return the standard deviation of the noise in a picture.

    The noise has to be independent from pixel to pixel: all of three estimates look at the finest detail only. Each
    takes some structure for noise, so the smallest counts; the others than the first where noise seems to be what they
    suppose.

    1. The picture is filtered with the mask m = (1, -2, 1) along rows and columns, which takes off all that is linear;
       of what is left the median is taken, which few edges do not move: median |m * y| / (6 · 0.6745). Where noise
       was clipped at black or white (`clipping`), it is compared with what of noise is left at that brightness.
    2. Structure lies in few directions of the space of patches of 5 x 5 pixels, noise in all: the smallest eigenvalues
       of the patches' covariance, as many as have their median as their mean, are the variance of the noise. It is
       found for each channel, and once more for all together in units of these, since channels have their structure
       in common, and not their noise. Then only patches are looked at whose squared differences of neighbours sum up
       to no more than noise of that variance would make, and again, until little changes. All this in groups of
       patches that are equally bright, on which noise may depend. Patches of which more than a twentieth is black or
       white (the picture's least and largest value) are left out, since noise was cut off there. What is found is
       increased by a fifth: where noise depends on the colour it can be too small, and a filter that leaves noise
       costs more than one that is a little too strong.

       Whether noise is independent is seen in the tenth of all patches that is flattest. From pixel to pixel it is not
       (a picture that was enlarged, sharpened or saved as a JPEG) where differences of neighbours have another
       correlation than about -1/2; then there is no second estimate. From channel to channel it is not (gray saved in
       colour; JPEG, which keeps little of the noise in colours) where what the mask leaves of two channels is
       correlated; then channels are not looked at together.
    3. Of three channels the differences of colours (`dip.wiener.opponent`) have hardly any fine detail. In the cosine
       domain of 8 x 8 patches the variance is that of their finest coefficients, where it is white and as strong in
       both (`dip.noise.colours.of_colours`). It is increased by a fifth, as the second.

    Parameters
    ----------
    picture : Tensor
        (1, C, H, W). Over the channels the mean is taken (of variances in the second estimate); 0 is returned for a
        picture of fewer than 3 x 3 pixels, and of one of fewer than about 20 x 20 the first estimate.
    known : Tensor, optional
        (H, W), bool: only masks and patches of which every pixel is True are looked at. Where these are few, shorter
        masks are taken in place of the first: (1, -2, 1) along rows and columns by itself, then (1, -1), of each the
        way that leaves less. The other pixels may hold anything finite.

    Raises
    ------
    ValueError
        Hardly any known pixels are next to each other.

    References
    ----------
    1: Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 1996; the median: Donoho and
    Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994. 2: Chen, Zhu, Heng, "An efficient
    statistical method for image noise level estimation", ICCV 2015; patches without structure: Liu, Tanaka, Okutomi,
    "Single-image noise level estimation for blind denoising", IEEE Transactions on Image Processing 2013.
    """
    return min(*levels(picture, known), MORE * by_colours(picture, known))


def as_it_is(picture: Tensor, known: Tensor | None = None) -> float:
    """Return the level of the noise as `noise_level` does, but not increased beyond what is likely."""
    first, second = levels(picture, known)
    return min(first, _PATCHES_LESS * second / MORE, _COLOURS_LESS * by_colours(picture, known))


def levels(picture: Tensor, known: Tensor | None = None) -> tuple[float, float]:
    """Return both estimates of `noise_level`; the second is infinite where noise is not what it supposes.

    Where noise was clipped in more than half of the patches both are the first: chance decides which are whole.
    """
    if min(picture.shape[2:]) < 3:
        return 0.0, math.inf
    picture = picture.detach().to("cpu", torch.float32)
    cut = clipping(picture, known)
    if cut is None:
        return by_mask(picture, known), MORE * by_patches(picture, known)
    few = cut_share(picture, known) > 0.5
    return cut.sigma, cut.sigma if few else MORE * by_patches(picture, known)


def clipping(
    picture: Tensor, known: Tensor | None = None, sigma: float | None = None, *, at_black: bool = True
) -> Clipped | None:
    """Return how the noise in a picture was clipped at black or white, or None where it does not seem to be.

    A channel's black and white are its least and largest value, if more than a thousandth of the pixels have it, and
    the darkest or brightest parts are as those of clipped noise are. It has to be independent from pixel to pixel, and
    the same everywhere before it was clipped.

    Parameters
    ----------
    picture, known
        As for `noise_level`.
    sigma : float, optional
        The standard deviation of the noise, if it is known. By default it is found as in the first estimate of
        `noise_level`, but what the mask leaves is compared with what of noise is left at that brightness.
    at_black : bool
        Whether it may have been clipped at black; counts of photons, which end there by themselves, were not.
    """
    picture = picture.detach().to("cpu", torch.float32)
    if min(picture.shape[2:]) < _SIDE:
        return None
    first, last, at = clipped.ends(picture, known)
    at[0] &= at_black
    places = masked(picture, known) if at.any() else []
    if len(places) != 1:
        return None
    left, norm, light = places[0]
    level = _of_mask(left, norm) if sigma is None else sigma
    if level <= 0:
        return None
    step = math.ceil(left.shape[1] / _MEDIANS)
    left, light = left[:, ::step].double(), light[:, ::step].double()
    while at.any():
        model = Clipped(level, first, last, at)
        if sigma is None:
            model = replace(model, sigma=clipped.sigma_of(model, left, light, norm))
        told = clipped.as_expected(model, picture, known)
        if bool((told == at).all()):
            return model
        at = told
    return None


def by_mask(picture: Tensor, known: Tensor | None = None) -> float:
    """Return the first estimate of `noise_level`."""
    found = [_of_mask(left, norm) for left, norm, _ in masked(picture, known)]
    if found:
        return min(found)
    raise ValueError(
        "hardly any known pixels of the image are next to each other, so the level of its noise cannot be found in it; "
        "give noise=dip.noise.PoissonGaussian(0, sigma) (in Python), in the numbers of the image"
    )


def _of_mask(left: Tensor, norm: float) -> float:
    """Return the standard deviation that the medians of what a mask leaves, (C, N), are those of."""
    return float(left.abs().median(dim=1).values.mean()) / (norm * 0.6745)


def masked(picture: Tensor, known: Tensor | None = None, least: int = 0) -> list[tuple[Tensor, float, Tensor]]:
    """Return what masks leave of a picture, how many times as strong noise is there, and the brightness about it.

    There is one, that of the first estimate of `noise_level`, unless it seldom fits between the known pixels; then two
    shorter ones, or one, or none. What they leave and the brightness are (C, N), with N at least `least`.
    """
    picture = picture.transpose(0, 1)  # as pictures of one channel each
    for masks, enough in _MASKS:
        found = []
        for mask in masks:
            size = (mask.shape[0], mask.shape[1])
            left = F.conv2d(picture, mask[None, None].to(picture)).flatten(1)
            light = F.avg_pool2d(picture, size, stride=1).flatten(1)
            if known is not None:
                there = F.avg_pool2d(known[None].float(), size, stride=1).flatten() == 1
                left, light = left[:, there], light[:, there]
            if known is None or left.shape[1] >= max(enough, least):
                found.append((left, float(mask.norm()), light))
        if found:
            return found
    return []


def by_patches(picture: Tensor, known: Tensor | None = None) -> float:
    """Return the second estimate of `noise_level`, as it is found; infinity where there are too few patches."""
    patches = patches_of(picture, known=known)
    if patches is None:
        return math.inf
    rough = roughness(patches)
    of_pixels, of_channels = independent(patches, rough)
    if not of_pixels:
        return math.inf
    groups = max(1, min(_GROUPS, patches.shape[2] // _EACH))
    found = [
        float(flat_variances(patches[:, :, group], rough[:, group], of_channels)[0].mean())
        for group in patches.mean((0, 1)).argsort().tensor_split(groups)
    ]
    return math.sqrt(sum(found) / len(found))


def by_colours(picture: Tensor, known: Tensor | None = None) -> float:
    """Return the third estimate of `noise_level`, as it is found; infinity where it tells nothing."""
    picture = picture.detach().to("cpu", torch.float32)
    if picture.shape[1] != 3 or min(picture.shape[2:]) < PATCH:
        return math.inf
    patches, values = all_patches(picture, PATCH, MOST, known)
    whole = ~_cut(patches, values)
    if whole.sum() < max(len(whole) / 2, _ENOUGH * _SIDE**2):  # of few, chance decides which are whole
        return math.inf
    return math.sqrt(of_colours(patches[:, whole].reshape(3, PATCH**2, -1), values))


def cut_share(picture: Tensor, known: Tensor | None = None) -> float:
    """Return in what share of the patches noise was cut off."""
    return float(_cut(*all_patches(picture, _SIDE, MOST, known)).float().mean())


def flat_variances(patches: Tensor, rough: Tensor, together: bool) -> tuple[Tensor, Tensor | None]:
    """Return the variance (C,) of the noise in the patches without structure, and which of them have none.

    Parameters
    ----------
    patches, rough : Tensor
        (C, 25, N), and their `roughness` (C, N).
    together : bool
        Whether to look at all channels at once, too (see `independent`).

    Returns
    -------
    variances : Tensor
        float64.
    flat : Tensor or None
        (N,), True where a patch has no structure; None where these are too few, and it is the variance of all.
    """
    channels, enough = len(patches), _ENOUGH * _SIDE**2
    inside, rough, limit = patches.double(), rough.double(), _limit(channels)
    variances, flat = _variances(inside, together), None
    for _ in range(_ROUNDS):
        found = (rough / variances[:, None]).sum(0) <= limit
        if found.sum() < (channels if together else 1) * enough:
            break
        flat, before = found, variances
        variances = _variances(inside[:, :, flat], together)
        if abs(variances.mean() / before.mean() - 1) < 2e-3:
            break
    return variances, flat


def patches_of(
    picture: Tensor, most: int = MOST, known: Tensor | None = None, side: int = _SIDE, *, bright: bool = False
) -> Tensor | None:
    """Return patches (C, side², N), without those where noise was cut off unless nearly all are such; None of too few.

    Those of which a pixel is not known are left out, too. Such as are `bright` may be kept, cut off at white or not.
    """
    if min(picture.shape[2:]) < side:
        return None
    patches, values = all_patches(picture, side, most, known)
    patches = patches[:, ~cut_off(patches, values, at_white=not bright)]
    return patches.reshape(picture.shape[1], side**2, -1) if patches.shape[1] >= _ENOUGH * _SIDE**2 else None


def all_patches(picture: Tensor, side: int, most: int, known: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return patches of known pixels alone, (values, N), and all known values."""
    patches = _evenly(picture, side, most)
    if known is None:
        return patches, picture
    return patches[:, _evenly(known[None, None].float(), side, most).amin(0) > 0], picture[..., known]


def _evenly(picture: Tensor, side: int, most: int) -> Tensor:
    """Return all patches of so many pixels a side, (values, N); of a large picture about `most`, evenly taken."""
    height, width = picture.shape[2:]
    step = math.ceil(math.sqrt(max(1, (height - side + 1) * (width - side + 1) / most)))
    return F.unfold(picture, side, stride=step)[0]


def cut_off(patches: Tensor, values: Tensor, *, at_white: bool = True) -> Tensor:
    """Return in which patches (K, N) noise was cut off at the ends of these values, (N,), bool; in none if in most."""
    cut = _cut(patches, values, at_white=at_white)
    return cut & (cut.float().mean() < 0.9)


def _cut(patches: Tensor, values: Tensor, *, at_white: bool = True) -> Tensor:
    """Return in which patches (K, N) noise was cut off at the ends of these values, (N,), bool."""
    return ((patches == values.min()) | ((patches == values.max()) & at_white)).float().mean(0) > 0.05


def roughness(patches: Tensor) -> Tensor:
    """Return the sum (C, N) of the squared differences of neighbours."""
    squares = patches.reshape(len(patches), _SIDE, _SIDE, -1)
    return squares.diff(dim=1).square().sum((1, 2)) + squares.diff(dim=2).square().sum((1, 2))


def independent(patches: Tensor, rough: Tensor) -> tuple[bool, bool]:
    """Tell whether the noise is independent from pixel to pixel, and from channel to channel, where that can be told.

    It is looked at in the flattest tenth of the patches.
    """
    total = rough.sum(0)
    flattest = patches[:, :, total <= total.quantile(0.1)]
    enough = patches.shape[2] >= len(patches) * _ENOUGH * _SIDE**2
    return _along(flattest) <= _WHITE, enough and _between(flattest) <= _APART


def _along(patches: Tensor) -> float:
    """Return the correlation of differences of neighbours that follow each other, along rows or columns, the larger."""
    found = []
    for way in (1, 2):
        first, second = (
            patches.reshape(len(patches), _SIDE, _SIDE, -1).diff(dim=way).unfold(way, _SIDE - 2, 1).unbind(way)
        )
        found.append(float((first * second).sum() / (first.square().sum() * second.square().sum()).sqrt()))
    return max(found)


def _between(patches: Tensor) -> float:
    """Return the largest correlation between two channels of what the mask leaves; 0 for one channel."""
    if len(patches) == 1:
        return 0.0
    line = patches.new_tensor([0.0, 1.0, -2.0, 1.0, 0.0])
    left = torch.outer(line, line).flatten() @ patches
    pairs = left.corrcoef() - torch.eye(len(patches), dtype=patches.dtype)
    return float(pairs.abs().max())


def _limit(channels: int) -> float:
    """Return the roughness in units of the variance, of all channels together, that so many patches of noise have.

    It is nearly gamma distributed, with the mean tr A and the variance 2 tr A² for a quadratic form A.
    """
    from scipy.special import gammaincinv

    line = torch.eye(_SIDE, dtype=torch.float64).diff(dim=0)
    along, one = line.T @ line, torch.eye(_SIDE, dtype=torch.float64)
    form = torch.kron(along, one) + torch.kron(one, along)
    mean, variance = channels * float(form.trace()), 2 * channels * float((form @ form).trace())
    return float(gammaincinv(mean**2 / variance, _FLAT)) * variance / mean


def _variances(patches: Tensor, together: bool) -> Tensor:
    """Return the variance (C,) of the noise in patches (C, 25, N)."""
    each = torch.stack([_least_variance(one) for one in patches]).clamp(min=1e-14)
    if not together or len(each) == 1:
        return each
    return each * _least_variance((patches / each.sqrt()[:, None, None]).flatten(0, 1)).clamp(max=1)


def _least_variance(patches: Tensor) -> Tensor:
    """Return the mean of the smallest eigenvalues of the covariance of patches (values, N)."""
    values = torch.linalg.eigvalsh(patches.cov(correction=0))  # in ascending order
    counts = torch.arange(1, len(values) + 1)
    means = values.cumsum(0) / counts
    medians = (values[(counts - 1) // 2] + values[counts // 2]) / 2
    return means[(means <= medians * (1 + 1e-9)).nonzero().max()].clamp(min=0)


def blocks(picture: Tensor) -> float:
    """Return how much stronger jumps are between blocks of 8 pixels than within them, as a JPEG leaves them.

    A jump is what the slopes on either side do not explain. Of the eight places that the borders between blocks may
    have (a picture may have been cropped) the one with the strongest jumps is compared with the median of the others;
    of rows and columns the less conspicuous counts. For blurred photographs it is about 1 without a JPEG, and above 1.4
    after one of a quality of 85 or less; sharp ones may have a grid of their own.

    Parameters
    ----------
    picture : Tensor
        (1, C, H, W). 1 is returned for one of fewer than 64 rows or columns, which do not tell enough.
    """
    if min(picture.shape[2:]) < 64:
        return 1.0
    found = []
    for x in (picture, picture.transpose(2, 3)):
        slope = x.diff(dim=3)
        jumps = (slope[..., 1:-1] - (slope[..., :-2] + slope[..., 2:]) / 2).abs().mean(dim=(0, 1, 2))
        at = jumps[: len(jumps) // 8 * 8].reshape(-1, 8).mean(dim=0).sort().values
        found.append(float(at[-1] / at[:-1].median().clamp(min=1e-12)))
    return min(found)
