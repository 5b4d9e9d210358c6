"""What the benchmarks of noise share: photographs of scikit-image, what noise makes of them, and filters told of it."""

from __future__ import annotations

import numpy as np
import skimage.color
import skimage.data
import torch
from paper import crop

from dip.benchmark.methods import find
from dip.benchmark.tasks import Case
from dip.noise import PoissonGaussian, Stabilising


def photograph(name: str, size: int) -> np.ndarray:
    """Return the middle of a picture of skimage.data, gray, float32 in [0, 1]."""
    clean = getattr(skimage.data, name)() / 255
    if clean.ndim == 3:
        clean = skimage.color.rgb2gray(clean)
    return crop(clean.astype(np.float32), size)


def model(noise: str) -> PoissonGaussian:
    """Return the noise of "sigma-5" (where white is 255) or "photons-20" (in a white pixel)."""
    kind, strength = noise.split("-")
    return PoissonGaussian(1 / float(strength)) if kind == "photons" else PoissonGaussian(0, float(strength) / 255)


def observed(clean: np.ndarray, noise: str, seed: int) -> np.ndarray:
    """Return a picture with noise of that name, float64, not clipped."""
    draw, (kind, strength) = np.random.default_rng(seed), noise.split("-")
    if kind == "photons":
        return draw.poisson(clean.astype(np.float64).clip(0) * float(strength)) / float(strength)
    return clean + float(strength) / 255 * draw.standard_normal(clean.shape)


def filtered(noisy: np.ndarray, clean: np.ndarray, noise: PoissonGaussian, method: str) -> np.ndarray:
    """Return a picture after a method of the benchmark, on the scale on which its noise is the same everywhere."""
    stabilising = Stabilising(noise)
    stable = stabilising.forward(torch.from_numpy(noisy)).double().numpy()
    case = Case(y=stable, clean=clean, problem=lambda case: case, sigma=stabilising.level)
    return stabilising.inverse(torch.from_numpy(find(method).function(case))).numpy()
