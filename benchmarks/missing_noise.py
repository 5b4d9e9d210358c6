"""Noisy pictures of which pixels are missing: dead ones and lines, spots, or half of them.

    python benchmarks/missing_noise.py

The middle --size pixels of photographs that scikit-image carries, in gray, with normal noise of a standard deviation
(sigma-25: where white is 255), or as counts of photons, of which a white pixel has so many in the mean (photons-20),
not clipped, of which are missing: "lines", 3 % of the pixels and seven lines; "spots", twelve discs of radii from 3 to
6 pixels; "half", every other pixel at random. By the preset "fast", told of the mask and of what the noise is, but not
how strong; by "fast" after what is missing was filled in by the biharmonic equation, or by weighted means of what is
near (pull-push), which average out the noise; by BM3D after the same, told how strong the noise is, too; and by the
biharmonic equation alone. The numbers of the noise, of the mask and of a fit come from --seed. OUT has the PSNR of all
pixels, of those that were known, and of those that were missing; of fits that of the averaged and of the single output
of all pixels at every 50th iteration, too.
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
from time_to_quality import now

import dip
from dip.benchmark.methods import find
from dip.benchmark.tasks import Case

FITS = ("fast", "filled in, then fast", "means filled in, then fast")
CLASSICAL = ("filled in, then BM3D", "means filled in, then BM3D", "filled in")
EVERY, COURSE = 50, {"average": "psnr", "output": "psnr_output"}


def known(kind: str, options: argparse.Namespace) -> np.ndarray:
    """Return which pixels are known, (size, size), bool."""
    draw, size = np.random.default_rng(options.seed + 1), options.size
    if kind == "half":
        return draw.random((size, size)) >= 0.5
    there = np.ones((size, size), bool)
    if kind == "lines":
        there = draw.random((size, size)) >= 0.03
        there[draw.choice(size, 4, replace=False)] = False
        there[:, draw.choice(size, 3, replace=False)] = False
        return there
    rows, columns = np.mgrid[:size, :size]
    for _ in range(12):
        (row, column), radius = draw.integers(0, size, 2), draw.integers(3, 7)
        there &= (rows - row) ** 2 + (columns - column) ** 2 > radius**2
    return there


def observed(name: str, noise: str, kind: str, options: argparse.Namespace) -> tuple[np.ndarray, ...]:
    """Return the middle of a picture, gray in [0, 1], what became of it, and which pixels are known."""
    clean, there = noises.photograph(name, options.size), known(kind, options)
    y = noises.observed(clean, noise, options.seed)
    return clean, np.where(there, y, 0).astype(np.float32), there


def restored(name: str, noise: str, kind: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a method comes to."""
    clean, y, there = observed(name, noise, kind, options)
    told = "poisson" if noise.startswith("photons") else "gaussian"
    more: dict[str, Any] = {}
    if method == "fast":
        made, more = fitted(dip.Denoise(y, mask=there, noise=told), clean, options)
    elif method.startswith("means"):
        given, weight = (torch.from_numpy(one.astype(np.float32))[None, None] for one in (y, there))
        made = dip.guides.filled(given, weight)[0, 0].numpy()
    else:
        made = find("biharmonic").function(Case(y=y, clean=clean, problem=lambda case: case, mask=there))
        made = made.astype(np.float32)
    if method.endswith("then fast"):
        made, more = fitted(dip.Denoise(made, noise=told), clean, options)
    if method.endswith("BM3D"):
        made = noises.filtered(made, clean, noises.model(noise), "bm3d").astype(np.float32)
    parts = {"psnr": np.ones_like(there), "psnr_known": there, "psnr_missing": ~there}
    figures = {part: round(dip.metrics.psnr(made[where][None], clean[where][None]), 3) for part, where in parts.items()}
    return {**figures, **more, "missing": round(float((~there).mean()), 4), **now()}


def fitted(task: dip.Denoise, clean: np.ndarray, options: argparse.Namespace) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the picture of a fit where it ends, and its course."""
    given = {"preset": "fast", "seed": options.seed, "device": options.device, "progress": False}
    fit = dip.fit(task, iters=options.iters, reference=clean, **given)
    course = {key: [round(float(x), 3) for x in fit.history[kind]][EVERY - 1 :: EVERY] for key, kind in COURSE.items()}
    return fit.image, {**course, "iterations": fit.iteration, "flips began": fit._flips.began}


def main(arguments: list[str] | None = None) -> None:
    """Restore every picture by every method, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = ["camera", "coins", "retina", "coffee", "brick"]
    parser.add_argument("--pictures", nargs="+", default=usual, help="names in skimage.data")
    parser.add_argument("--noises", nargs="+", default=["sigma-25", "photons-20"], help="sigma-NUMBER, photons-NUMBER")
    parser.add_argument("--missing", nargs="+", choices=("lines", "spots", "half"), default=["lines", "spots", "half"])
    parser.add_argument("--methods", nargs="+", choices=[*FITS, *CLASSICAL], default=[*FITS, *CLASSICAL])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iters", type=int, default=750)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS / "missing-noise.json")
    options = parser.parse_args(arguments)
    report = Report(options.out, **{key: getattr(options, key) for key in ("size", "iters", "seed")})
    for kind, noise, picture, method in itertools.product(
        options.missing, options.noises, options.pictures, options.methods
    ):
        name = f"{picture}, {noise}, {kind} missing, {method}"
        found = report.part(name, partial(restored, picture, noise, kind, method, options))
        print(name, *(found[part] for part in ("psnr", "psnr_known", "psnr_missing")), flush=True)


if __name__ == "__main__":
    main()
