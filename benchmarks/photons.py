"""Few photons: what it is worth to know that noise grows with the light.

    python benchmarks/photons.py
    python benchmarks/photons.py --pictures cell hubble_deep_field moon immunohistochemistry --out tuned.json
    python benchmarks/photons.py --read 0.05 --peaks 20 --out read.json

The middle --size pixels of photographs that scikit-image carries, as counts of photons, of which a white pixel has so
many (--peaks) in the mean, not clipped, with a camera's read noise (--read, where white is 1): the preset "fast" as it
is for noise that is the same everywhere, that with the loss for counts, and with the noise found in the picture. With
the noise known comes to the same, since of counts alone it is found to the last digit: --methods has it for the others,
and one in which the network sees mirrored codes from iteration 300 on. Beside these non-local means and BM3D of what is
stabilised with the noise known (`dip.noise.Stabilising`, which takes the result back, too), which is how they are used
on counts. OUT has the PSNR of the averaged and of the single output at every 50th iteration, and the seconds of an
iteration; of the classical ones the PSNR. What was found of the noise is there, too.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import noises
import numpy as np
import skimage.data
from paper import crop
from records import RESULTS, Report
from search import follow
from time_to_quality import now

import dip
from dip.noise import PoissonGaussian

FITS = ("fast", "fast, loss poisson", "fast, noise found", "fast, noise known", "fast, noise found, flips 300")
CLASSICAL = {"non-local means": "nlm", "BM3D": "bm3d"}  # as the benchmark has them


def observed(name: str, peak: float, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of a picture, float32 in [0, 1], and the counts of it, where white is 1."""
    clean = crop(getattr(skimage.data, name)().astype(np.float32) / 255, options.size)
    draw = np.random.default_rng(options.seed)
    counted = draw.poisson(clean.astype(np.float64) * peak) / peak
    return clean, (counted + options.read * draw.standard_normal(clean.shape)).astype(np.float32)


def fitted(name: str, peak: float, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the course of a fit."""
    clean, noisy = observed(name, peak, options)
    known = PoissonGaussian(1 / peak, options.read)
    noise = known if "known" in method else "poisson" if "found" in method else "gaussian"
    task = dip.Denoise(noisy, noise=noise)
    given: dict[str, Any] = {"preset": "fast"}
    if method.endswith("loss poisson"):
        given["loss"] = "poisson"
    if method.endswith("flips 300"):
        given["flips"] = 300
    course = follow(task, clean, given, options)
    return {**course, "noise": None if task.noise is None else repr(task.noise), **before(noisy, clean)}


def filtered(name: str, peak: float, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a classical method comes to, told the noise."""
    clean, noisy = observed(name, peak, options)
    restored = noises.filtered(noisy, clean, PoissonGaussian(1 / peak, options.read), CLASSICAL[method])
    return {"psnr": round(dip.metrics.psnr(restored, clean), 3), **before(noisy, clean)}


def comes_to(found: dict[str, Any]) -> float:
    """Return the PSNR of the result: of a fit, where it ends."""
    return float(found["psnr"] if "psnr" in found else found.get("average then", found["average"][-1]))


def before(noisy: np.ndarray, clean: np.ndarray) -> dict[str, Any]:
    """Return the PSNR of the counts themselves, and the machine."""
    return {"noisy": round(dip.metrics.psnr(noisy, clean), 3), **now()}


def main(arguments: list[str] | None = None) -> None:
    """Restore every picture by every method, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = ["camera", "coins", "retina", "coffee", "astronaut", "chelsea"]
    parser.add_argument("--pictures", nargs="+", default=usual, help="names in skimage.data")
    parser.add_argument("--methods", nargs="+", choices=[*FITS, *CLASSICAL], default=[*FITS[:3], *CLASSICAL])
    parser.add_argument("--peaks", nargs="+", type=float, default=[5.0, 20.0, 80.0])
    parser.add_argument("--read", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--iters", type=int, default=750)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS / "photons.json")
    options = parser.parse_args(arguments)
    protocol = {key: getattr(options, key) for key in ("read", "size", "iters", "seed")}
    report = Report(options.out, **protocol)
    for peak, picture, method in itertools.product(options.peaks, options.pictures, options.methods):
        make = fitted if method in FITS else filtered
        found = report.part(f"{picture}, {peak:g} photons, {method}", partial(make, picture, peak, method, options))
        print(picture, peak, method, comes_to(found), flush=True)


if __name__ == "__main__":
    main()
