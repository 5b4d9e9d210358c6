"""What classical denoisers make of a noisy picture: the start of a code (`dip.codes.Denoised`)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def noise_level(picture: Tensor) -> float:
    r"""Return the standard deviation of the noise in a picture, as far as the picture itself tells.

    The picture is filtered with the mask (1, -2, 1) along rows and columns, which takes off all that is linear in it;
    of what is left the median is taken, which few edges do not move:

    .. math:: σ = \frac{\operatorname{median} |m * y|}{6 \cdot 0.6745} .

    Parameters
    ----------
    picture : Tensor
        (1, C, H, W); the mean over the channels is returned, and 0 for a picture of fewer than 3 x 3 pixels.

    References
    ----------
    The mask: Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 1996. The median:
    Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994.
    """
    if min(picture.shape[2:]) < 3:
        return 0.0
    line = torch.tensor([1.0, -2.0, 1.0], dtype=picture.dtype)
    channels = picture.transpose(0, 1)  # as pictures of one channel each
    rest = F.conv2d(channels, torch.outer(line, line)[None, None])
    return float(rest.abs().flatten(1).median(dim=1).values.mean()) / (6 * 0.6745)


def denoised(picture: Tensor) -> list[Tensor]:
    """Return a picture after non-local means, after total variation and after a Gaussian filter, in that order.

    The first finds what repeats, the second what is flat between edges; the third leaves, of fine texture, what both
    take for noise.

    Parameters
    ----------
    picture : Tensor
        (1, C, H, W) in [0, 1], on the CPU.
    """
    from skimage import filters, restoration

    pixels = np.ascontiguousarray(picture[0].permute(1, 2, 0).double().numpy())
    # Of a picture without noise there is nothing to take off, and the filters divide by the level.
    sigma = max(noise_level(picture), 1e-3)
    made = (
        restoration.denoise_nl_means(
            pixels, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
        ),
        restoration.denoise_tv_chambolle(pixels, weight=sigma, channel_axis=-1),
        filters.gaussian(pixels, 1.0, channel_axis=-1),
    )
    # a single channel's axis is lost on the way
    return [torch.from_numpy(one.reshape(pixels.shape)).permute(2, 0, 1)[None].to(picture) for one in made]
