"""The noise in a picture: its level where that is the same everywhere, and a model where it grows with the light."""

from dip.noise.growing import found
from dip.noise.level import blocks, by_mask, by_patches, noise_level
from dip.noise.model import Noise, PoissonGaussian
from dip.noise.stabilising import Stabilising

__all__ = ["Noise", "PoissonGaussian", "Stabilising", "blocks", "by_mask", "by_patches", "found", "noise_level"]
