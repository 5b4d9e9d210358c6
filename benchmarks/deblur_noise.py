"""Deconvolution beside noise, from hardly any to that of a few photons.

    python benchmarks/deblur_noise.py

The middle --size pixels of photographs that scikit-image carries, in gray, blurred by a Gaussian of 1.6 pixels, with
normal noise of a standard deviation (sigma-5: where white is 255), or as counts of photons, of which a white pixel has
so many in the mean (photons-20), not clipped: the preset "fast", told of counts with noise="poisson" or not; the same
without the filter before it, with a damping of 160 times the variance of the noise that is no more than 1, as it once
was; Richardson-Lucy of as many iterations as come nearest to the clean picture, which nobody knows (the best case of
what microscopists use on counts); and the unsupervised Wiener-Hunt filter. OUT has the PSNR of the averaged and of the
single output at every 50th iteration, with the correction at the end, and the damping; of the classical ones the PSNR.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import noises
import numpy as np
import torch
from records import RESULTS, Report
from search import follow
from time_to_quality import now

import dip
from dip.benchmark.methods import find
from dip.benchmark.tasks import Case

PSF = dip.operators.gaussian_psf(1.6)
FITS = ("fast", "fast, told", "fast, not filtered")
CLASSICAL = ("Richardson-Lucy, the best", "Wiener-Hunt")
NUMBERS = (1, 2, 5, 10, 20, 50, 100, 200)  # of iterations


class Unfiltered(dip.Deblur):
    """The task without the filter before the fit, and with the damping that there was then."""

    def check_options(self, loss: Any, stop: Any, *, corrected: bool) -> None:
        """Have nothing filtered."""

    def load(self) -> Any:
        """Return the observation as it is, with its damping."""
        observation = super().load()
        self._found = min(self._known_damping, 1.0)
        return observation


def observed(name: str, noise: str, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of a picture, gray in [0, 1], and what became of it."""
    clean = noises.photograph(name, options.size)
    y = dip.operators.Blur(PSF)(torch.from_numpy(clean)).double().numpy()
    return clean, noises.observed(y, noise, options.seed).astype(np.float32)


def restored(name: str, noise: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a method comes to."""
    clean, y = observed(name, noise, options)
    before = {"blurred": round(dip.metrics.psnr(y, clean), 3), **now()}
    if method in CLASSICAL:
        return {**classical(Case(y=y, clean=clean, problem=lambda case: case, psf=PSF), method), **before}
    told = "poisson" if method == "fast, told" else "gaussian"
    task = Unfiltered(y, PSF) if "not" in method else dip.Deblur(y, PSF, noise=told)
    course = follow(task, clean, {"preset": "fast"}, options)
    return {**course, "damping": round(task._known_damping, 6), **before}


def classical(case: Case, method: str) -> dict[str, Any]:
    """Return the PSNR of a classical method."""
    if method == "Wiener-Hunt":
        return {"psnr": round(dip.metrics.psnr(find("wiener").function(case), case.clean), 3)}
    from skimage.restoration import richardson_lucy

    half = len(PSF) // 2
    around = np.pad(case.y.astype(np.float64).clip(0), half, mode="reflect")
    made = {
        number: dip.metrics.psnr(richardson_lucy(around, PSF, num_iter=number)[half:-half, half:-half], case.clean)
        for number in NUMBERS
    }
    best = max(made, key=lambda number: made[number])
    return {"psnr": round(made[best], 3), "iterations": best}


def main(arguments: list[str] | None = None) -> None:
    """Restore every picture by every method, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = ["camera", "coins", "retina", "coffee", "brick"]
    parser.add_argument("--pictures", nargs="+", default=usual, help="names in skimage.data")
    noises = ["sigma-2", "sigma-20", "photons-100", "photons-20"]
    parser.add_argument("--noises", nargs="+", default=noises, help="sigma-NUMBER, photons-NUMBER")
    parser.add_argument("--methods", nargs="+", choices=[*FITS, *CLASSICAL], default=[*FITS, *CLASSICAL])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iters", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS / "deblur-noise.json")
    options = parser.parse_args(arguments)
    report = Report(options.out, **{key: getattr(options, key) for key in ("size", "iters", "seed")})
    for noise, picture, method in itertools.product(options.noises, options.pictures, options.methods):
        if "told" in method and noise.startswith("sigma"):
            continue  # there is nothing to tell
        name = f"{picture}, {noise}, {method}"
        found = report.part(name, partial(restored, picture, noise, method, options))
        print(name, found["psnr"] if "psnr" in found else found["average"][-1], flush=True)


if __name__ == "__main__":
    main()
