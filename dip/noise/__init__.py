"""The noise in a picture: its level where that is the same everywhere, and a model where it grows with the light."""

from dip.noise.growing import few_counts, found
from dip.noise.level import MORE, blocks, by_mask, by_patches, noise_level
from dip.noise.model import GAUSSIAN, POISSON, Noise, PoissonGaussian, check
from dip.noise.stabilising import Stabilising

__all__ = [
    "GAUSSIAN",
    "MORE",
    "POISSON",
    "Noise",
    "PoissonGaussian",
    "Stabilising",
    "blocks",
    "by_mask",
    "by_patches",
    "check",
    "few_counts",
    "found",
    "noise_level",
]
