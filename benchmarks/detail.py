"""Weak noise in small pictures that are full of detail, which may be taken for noise of its own kind: PSNR in dB.

    python benchmarks/detail.py --data DATA --pictures set14 --factor 4 --size 60
    python benchmarks/detail.py --pictures immunohistochemistry --size 128 --sigma 3 --out detail-stained.json
    python benchmarks/detail.py --data DATA --pictures set14 --factor 4 --size 60 --gray --out detail-gray.json

The middle pixels of the pictures of a set (in DATA), or of photographs that scikit-image carries, are reduced by a
factor, get independent normal noise, and are kept as 8 bits. Each is denoised by a fit that goes on to believe a
spectrum that it finds (`dip.noise.spectrum`) and does not ask the differences of colours (`dip.noise.by_colours`), as
it was ("before"); by one that does not ask them, but asks what it leaves ("doubts alone"); by "fast"; and by BM3D,
told the level.
"levels" are those at first and in the end, of 255.
"""

from __future__ import annotations

import argparse
import math
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from clipped_noise import pictures
from dark import applied, noise
from paper import eight_bits
from records import RESULTS, Report
from time_to_quality import now

import dip
from dip.benchmark.methods import find
from dip.benchmark.tasks import Case

METHODS = ("before", "doubts alone", "fast", "bm3d")


def reduced(picture: np.ndarray, factor: int) -> np.ndarray:
    """Return a picture in [0, 1], (H, W) or (H, W, 3), so many times smaller, of 8 bits."""
    if factor > 1:
        height, width, *channels = picture.shape
        small = applied(dip.operators.Downsample(factor), picture)
        picture = small.reshape(height // factor, width // factor, *channels)
    return eight_bits(picture)


def measured(clean: np.ndarray, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the PSNR of what a method makes, and what a fit took for the level of the noise."""
    y = eight_bits(clean / 255 + noise(clean.shape, options.sigma, options.seed))
    found: dict[str, Any] = {"noisy": round(dip.metrics.psnr(y, clean), 2)}
    if method == "bm3d":
        case = Case(y=(y / 255).astype(np.float32), clean=clean / 255, problem=dip.Denoise, sigma=options.sigma / 255)
        return {**found, "psnr": round(dip.metrics.psnr(eight_bits(find("bm3d").function(case)), clean), 2), **now()}
    task = dip.Denoise(y, noise="gaussian")
    if method == "before":
        task.at_most = lambda left, y: task.spectrum  # type: ignore[assignment,method-assign]
        task.independent = lambda left, y: None  # type: ignore[method-assign]
    with nullcontext() if method == "fast" else patch.object(dip.noise.level, "of_colours", lambda *_: math.inf):
        fit = dip.Fit(task, preset="fast", seed=options.seed, progress=False)
    first = fit._code
    fit.run(options.iters)
    levels = [round(255 * code.level, 1) for code in (first, fit._code)]
    found["psnr"] = round(dip.metrics.psnr(fit.image, clean), 2)
    return {**found, "levels": levels, **now()}


def main(arguments: list[str] | None = None) -> None:
    """Denoise all, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", nargs="+", default=["immunohistochemistry"])
    parser.add_argument("--only", nargs="+", help="these of them; by default all")
    parser.add_argument("--data", type=Path, default=os.environ.get("DIP_DATA"), help="folder with the picture sets")
    parser.add_argument("--gray", action="store_true", help="their mean of colours alone")
    parser.add_argument("--sigma", type=float, default=5, help="on the scale of 0 to 255")
    parser.add_argument("--factor", type=int, default=1, help="how many times smaller the pictures are made")
    parser.add_argument("--size", type=int, default=64, help="of what is denoised")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--iters", type=int, default=750)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "detail.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report = Report(
        options.out, **{key: getattr(options, key) for key in ("sigma", "factor", "size", "gray", "iters", "seed")}
    )
    there = pictures(options.pictures, options.size * options.factor, options.data)
    for name, picture in ((name, there[name]) for name in options.only or there):
        clean = reduced(picture.mean(2) if options.gray and picture.ndim == 3 else picture, options.factor)
        for method in options.methods:
            part = f"{name}, {method}"
            print(part, report.part(part, partial(measured, clean, method, options)), flush=True)


if __name__ == "__main__":
    main()
