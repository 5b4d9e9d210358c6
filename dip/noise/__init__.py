"""The noise in a picture: its level, or its spectrum, where it is the same everywhere, and how it grows with light."""

from dip.noise.clipped import Clipped
from dip.noise.coloured import at_most, independent_level, level_and_spectrum, spectrum, total
from dip.noise.growing import found
from dip.noise.level import as_it_is, blocks, by_colours, by_mask, by_patches, clipping, noise_level
from dip.noise.model import Noise, PoissonGaussian
from dip.noise.rest import more_than_noise
from dip.noise.stabilising import Stabilising

__all__ = [
    "Clipped",
    "Noise",
    "PoissonGaussian",
    "Stabilising",
    "as_it_is",
    "at_most",
    "blocks",
    "by_colours",
    "by_mask",
    "by_patches",
    "clipping",
    "found",
    "independent_level",
    "level_and_spectrum",
    "more_than_noise",
    "noise_level",
    "spectrum",
    "total",
]
