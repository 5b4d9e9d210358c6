"""Noise as a camera's pictures have it, which is not independent from pixel to pixel: what "fast" comes to, in dB.

    python benchmarks/camera_noise.py --pictures astronaut coffee

The middle --size pixels of photographs that scikit-image carries get normal noise and are kept as 8 bits: saved as a
JPEG of quality 98 with its colours at half the size ("jpeg"), interpolated from one colour a pixel in Bayer's order
("bayer"), and both, with quality 95 ("bayer, jpeg"); of these two the picture to compare with is the same without
noise, before it was saved. Each is denoised by a fit that takes the noise for independent, of the level
that `dip.noise.noise_level` finds; by one that finds its spectrum (`dip.noise.spectrum`), as fits do; and by BM3D,
which is told its true standard deviation.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dark import middle
from paper import eight_bits
from records import RESULTS, Report
from scipy.ndimage import convolve
from time_to_quality import as_tensor

import dip
from dip.degradations import jpeg
from dip.noise import noise_level

KINDS = ("jpeg", "bayer", "bayer, jpeg")


def as_x(picture: np.ndarray) -> torch.Tensor:
    """Return a picture of 8 bits as (1, 3, H, W), in [0, 1]."""
    return as_tensor(picture / 255, torch.device("cpu"))[None]


def interpolated(picture: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) of which each pixel kept one colour, in Bayer's order, interpolated linearly."""
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    red, blue = (rows % 2 == 0) & (columns % 2 == 0), (rows % 2 == 1) & (columns % 2 == 1)
    line, cross = np.array([0.5, 1, 0.5]), np.array([[0, 0.25, 0], [0.25, 1, 0.25], [0, 0.25, 0]])
    kernels = ((red, np.outer(line, line)), (~(red | blue), cross), (blue, np.outer(line, line)))
    colours = [convolve(picture[..., k] * there, kernel, mode="mirror") for k, (there, kernel) in enumerate(kernels)]
    return np.stack(colours, axis=-1)


def saved(picture: np.ndarray, quality: int) -> np.ndarray:
    """Return a picture of 8 bits as a JPEG has it."""
    return eight_bits(jpeg(as_x(picture), quality)[0].numpy().transpose(1, 2, 0))


def observed(clean: np.ndarray, kind: str, sigma: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy picture, and the clean one to compare it with, both of 8 bits."""
    noisy = clean + np.random.default_rng(seed).normal(0, sigma / 255, clean.shape)
    if kind.startswith("bayer"):
        clean, noisy = interpolated(clean), interpolated(noisy)
    noisy, clean = eight_bits(noisy), eight_bits(clean)
    quality = {"jpeg": 98, "bayer, jpeg": 95}.get(kind)
    return (noisy if quality is None else saved(noisy, quality)), clean


def measured(clean: np.ndarray, kind: str, sigma: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return the levels of the noise, on the scale of 0 to 255, and the PSNR of each method."""
    y, clean = observed(clean, kind, sigma, options.seed)
    true, level = float((y.astype(float) - clean).std()), max(noise_level(as_x(y)), 1e-6)
    given = {"preset": "fast", "iters": options.iters, "seed": options.seed, "progress": False}
    fits = {
        "independent": dip.fit(dip.Denoise(y, noise="gaussian"), code=dip.codes.Denoised(level=level), **given),
        "spectrum": dip.fit(dip.Denoise(y, noise="gaussian"), **given),
    }
    pictures = {name: fit.image for name, fit in fits.items()}
    if options.rivals:
        from bm3d import bm3d_rgb

        pictures["bm3d"] = eight_bits(bm3d_rgb(y / 255, true / 255))
    return {
        "sigma": round(true, 1),
        "found": {name: round(255 * fit._code.level, 1) for name, fit in fits.items()},
        "psnr": {name: round(dip.metrics.psnr(one, clean), 2) for name, one in {"y": y, **pictures}.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    """Denoise all, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", nargs="+", default=["astronaut", "coffee"])
    parser.add_argument("--sigmas", nargs="+", type=float, default=[10, 25], help="on the scale of 0 to 255")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rivals", nargs="*", default=["bm3d"], choices=["bm3d"])
    parser.add_argument("--iters", type=int, help="by default the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "camera-noise.json")
    options = parser.parse_args(arguments)
    report = Report(options.out, size=options.size, iters=options.iters, seed=options.seed)
    for name in options.pictures:
        clean = middle(name, options.size)
        for sigma in options.sigmas:
            for kind in KINDS:
                part = f"{name}, {kind}, sigma {sigma:g}"
                print(part, report.part(part, partial(measured, clean, kind, sigma, options)), flush=True)


if __name__ == "__main__":
    main()
