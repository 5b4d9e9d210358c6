"""What a fit has left of a noisy picture that is more than noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.noise.colours import coefficients
from dip.noise.level import all_patches
from dip.wiener import PATCH, cosines, opponent

__all__ = ["more_than_noise"]

_MOST = 2**13  # patches that are looked at
_CHANCE = 512  # pixels
_TINY = 1e-14


@torch.no_grad()
def more_than_noise(rest: Tensor, sigma: float | Tensor, known: Tensor | None = None) -> Tensor:
    r"""Return what of a rest, y less a fit of it, is more than noise, as far as a filter can tell.

    The Wiener filter of the rest, one for the whole picture, in the domain of the cosine transform D of patches of
    8 x 8 pixels, in the opponent colours:

    .. math:: D^{-1} (w \odot D r), \quad w = \max\left(0, 1 - \frac{(1 + 512 / N) σ^2}{\text{mean} (D r)^2}\right) ,

    of which each pixel is the mean over the patches that it is in. Where a fit has left noise alone it is 0: the mean
    is over few patches in a picture of few pixels, N, and more than it should be by chance.

    Parameters
    ----------
    rest : Tensor
        (1, C, H, W).
    sigma : float or Tensor
        Standard deviation of the noise, or, (C, 64), of each coefficient in each of the opponent colours.
    known : Tensor, optional
        (H, W), bool: the other pixels count as if nothing had been left there.

    References
    ----------
    What is left, filtered and given back: Tukey's "twicing" (Exploratory Data Analysis, 1977); Romano and Elad,
    "Boosting of image denoising algorithms", SIAM Journal on Imaging Sciences 2015.
    """
    if min(rest.shape[2:]) < PATCH:
        return torch.zeros_like(rest)
    if known is not None:
        rest = rest * known.to(rest)
    patches, _ = all_patches(rest.detach().to("cpu", torch.float32), PATCH, _MOST, known)
    if not patches.shape[1]:
        return torch.zeros_like(rest)
    power = coefficients(patches.reshape(rest.shape[1], PATCH**2, -1)).square().mean(2)
    chance = 1 + _CHANCE / rest[0, 0].numel()
    weights = (1 - chance * torch.as_tensor(sigma, dtype=power.dtype) ** 2 / power.clamp(min=_TINY)).clamp(min=0)
    # Since the weights are the same everywhere, all of that is a convolution.
    basis = cosines().to(power).reshape(-1, 1, PATCH, PATCH)
    rim = PATCH - 1
    correlations = F.conv2d(F.pad(basis.transpose(0, 1), (rim,) * 4), basis, groups=len(basis))[0] / PATCH**2
    kernel = torch.einsum("ck,kij->cij", weights, correlations)[:, None].to(rest)
    colours = opponent(len(weights)).to(rest)
    found = torch.einsum("ij,bjhw->bihw", colours, rest)
    found = F.conv2d(F.pad(found, (rim,) * 4, mode="reflect"), kernel, groups=len(kernel))
    return torch.einsum("ji,bjhw->bihw", colours, found)
