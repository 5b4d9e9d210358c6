"""Forward operators A: from the restored image x to what the observation y should have been."""

from __future__ import annotations

from dip.operators.basic import Identity, Mask, Operator, as_operator
from dip.operators.blur import Blur, gaussian_psf
from dip.operators.downsample import Downsample
from dip.operators.fourier import Fourier
from dip.operators.jpeg import JPEG
from dip.operators.matrix import Matrix
from dip.operators.radon import Radon
from dip.operators.warp import Warp, radial_distortion

__all__ = [
    "JPEG",
    "Blur",
    "Downsample",
    "Fourier",
    "Identity",
    "Mask",
    "Matrix",
    "Operator",
    "Radon",
    "Warp",
    "as_operator",
    "gaussian_psf",
    "radial_distortion",
]
