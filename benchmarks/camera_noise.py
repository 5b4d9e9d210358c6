"""Noise as a camera's pictures have it, which is not independent from pixel to pixel: what "fast" comes to, in dB.

    python benchmarks/camera_noise.py --pictures astronaut coffee
    python benchmarks/camera_noise.py --missing lines --sigmas 25 --methods independent spectrum --out missing.json

The middle --size pixels of photographs that scikit-image carries get normal noise and are kept as 8 bits: saved as a
JPEG of quality 98 with its colours at half the size ("jpeg"), interpolated from one colour a pixel in Bayer's order
("bayer"), and both, with quality 95 ("bayer, jpeg"); of these two the picture to compare with is the same without
noise, before it was saved. Each is denoised by a fit that takes the noise for independent, of the level
that `dip.noise.noise_level` finds ("independent"); by one that finds its spectrum (`dip.noise.spectrum`), as fits do
("spectrum"); by BM3D, which is told its true standard deviation ("bm3d"); and by BM3D, told the true power of the noise
at each frequency in each of the opponent colours, the mean of 40 draws ("bm3d-spectrum"). With --missing, pixels as in
missing_noise.py are not known.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from dark import middle
from missing_noise import known
from paper import eight_bits
from records import RESULTS, Report
from scipy.ndimage import convolve
from time_to_quality import as_tensor, now

import dip
from dip.degradations import jpeg
from dip.noise import noise_level
from dip.wiener import opponent

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


def fitted(y: np.ndarray, there: np.ndarray | None, method: str, options: argparse.Namespace) -> dip.Fit:
    """Return a fit that finds the spectrum of the noise, or takes the noise for independent."""
    given: dict[str, Any] = {"preset": "fast", "iters": options.iters, "seed": options.seed, "progress": False}
    if method == "independent":
        level = noise_level(as_x(y), None if there is None else torch.from_numpy(there))
        given["code"] = dip.codes.Denoised(level=max(level, 1e-6))
    return dip.fit(dip.Denoise(y, mask=there, noise="gaussian"), **given)


def told(y: np.ndarray, clean: np.ndarray, draw: Callable[[int], tuple[np.ndarray, np.ndarray]] | None) -> np.ndarray:
    """Return what BM3D makes of y: told the standard deviation of its noise, or the power at each frequency.

    The latter is the mean over what `draw` returns for 40 seeds, noisy and clean.
    """
    from bm3d import bm3d, bm3d_rgb

    if draw is None:
        return eight_bits(bm3d_rgb(y / 255, float((y.astype(float) - clean).std()) / 255))
    colours = opponent(3).double().numpy()
    colours /= np.abs(colours).sum(axis=1, keepdims=True)  # each as large as white
    powers = np.zeros(clean.shape)
    for seed in range(1000, 1040):
        noise = draw(seed)[0] / 255 - clean / 255
        powers += np.abs(np.fft.fft2(noise @ colours.T, axes=(0, 1))) ** 2 / 40
    with patch.object(np, "trapz", np.trapezoid, create=True):  # as bm3d 4.0 calls it, by the name before NumPy 2
        made = bm3d(y / 255 @ colours.T, powers)
    return eight_bits(made @ np.linalg.inv(colours).T)


def measured(given: np.ndarray, kind: str, sigma: float, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the true standard deviation and the one that was found, of 255, and the PSNR before and after."""
    draw = partial(observed, given, kind, sigma)
    y, clean = draw(options.seed)
    there = known(options.missing, options) if options.missing else None
    if there is not None:
        y[~there] = 0
    wrong = (y.astype(float) - clean)[... if there is None else there]
    if method.startswith("bm3d"):
        level, made = None, told(y, clean, draw if method == "bm3d-spectrum" else None)
    else:
        fit = fitted(y, there, method, options)
        level, made = round(255 * fit._code.level, 1), fit.image
    return {
        "true": round(float(wrong.std()), 1),
        "found": level,
        "noisy": round(float(-10 * np.log10(np.mean((wrong / 255) ** 2))), 2),
        "psnr": round(dip.metrics.psnr(made, clean), 2),
        **now(),
    }


METHODS = ("independent", "spectrum", "bm3d", "bm3d-spectrum")


def main(arguments: list[str] | None = None) -> None:
    """Denoise all, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", nargs="+", default=["astronaut", "coffee"])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="by default all")
    parser.add_argument("--sigmas", nargs="+", type=float, default=[10, 25], help="on the scale of 0 to 255")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--missing", choices=("lines", "spots", "half"), help="by default no pixels are")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--iters", type=int, help="by default the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "camera-noise.json")
    options = parser.parse_args(arguments)
    if options.missing and any(one.startswith("bm3d") for one in options.methods):
        parser.error("BM3D knows of no missing pixels; give --methods")
    report = Report(options.out, **{key: getattr(options, key) for key in ("size", "missing", "iters", "seed")})
    for name, sigma, kind, method in itertools.product(
        options.pictures, options.sigmas, options.kinds, options.methods
    ):
        part = f"{name}, {kind}, sigma {sigma:g}, {method}"
        make = partial(measured, middle(name, options.size), kind, sigma, method, options)
        print(part, report.part(part, make), flush=True)


if __name__ == "__main__":
    main()
