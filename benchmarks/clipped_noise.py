"""Noise that was clipped at black and white: what "fast" and BM3D come to with and without what that did undone, in dB.

    python benchmarks/clipped_noise.py --data DATA --pictures set5 astronaut coffee camera dark-astronaut dark-camera
    python benchmarks/clipped_noise.py --data DATA --photons 20 --pictures set5 astronaut coffee --out photons.json

The middle --size pixels of the pictures of a set (in DATA), or of photographs that scikit-image carries, with "dark-"
so dark that most of them are black, max(0, 2 x - 1.1), get normal noise and are clipped to [0, 1]. Each is denoised by
"fast" as it was before it knew of clipping ("before": with the level that is found by what does not know of it, and
nothing undone), by "fast", and by BM3D, told the level. Of the latter two both pictures are compared with the original:
as it was made, and with what clipping did to the mean of the noise undone (`dip.noise.Clipped`). With --photons the
noise is that of so many photons in a white pixel, cut off at white, and "fast" is told noise="poisson".
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dark import middle, noise
from paper import crop
from records import RESULTS, Report
from time_to_quality import now

import dip
from dip import datasets
from dip.benchmark.methods import find, picture, planes
from dip.benchmark.tasks import Case
from dip.noise import by_mask, by_patches, clipping, noise_level
from dip.noise.level import MORE

DARK = "dark-"
METHODS = ("before", "fast", "bm3d")


def pictures(names: list[str], size: int, data: Path | None) -> dict[str, np.ndarray]:
    """Return the middle pixels of pictures, in [0, 1], by name."""
    found = {}
    for name in names:
        if name in datasets.names():
            found |= {
                one.name: crop((one.read() / 255).astype(np.float32), size) for one in datasets.pictures(name, data)
            }
        elif name.startswith(DARK):
            found[name] = np.clip(2 * middle(name.removeprefix(DARK), size) - 1.1, 0, 1)
        else:
            found[name] = middle(name, size)
    return found


def measured(clean: np.ndarray, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return how much was clipped, the levels that are found of 255, and the PSNR of what a method makes."""
    sigma, photons = options.sigma / 255, options.photons
    if photons:
        drawn = (np.random.default_rng(options.seed).poisson(clean * photons) / photons).astype(np.float32)
    else:
        drawn = clean + noise(clean.shape, options.sigma, options.seed)
    y = np.clip(drawn, 0, 1)
    x = planes(y)
    level = min(by_mask(x), MORE * by_patches(x))

    def psnr(picture: np.ndarray) -> float:
        return round(dip.metrics.psnr(np.clip(picture, 0, 1).reshape(clean.shape), clean, data_range=1.0), 2)

    found: dict[str, Any] = {
        "clipped": [round(float(np.mean(one)), 3) for one in (y == 0, y == 1)],
        "noisy": psnr(y),
    }
    if not photons:
        found["levels"] = {"before": round(255 * level, 1), "now": round(255 * noise_level(x), 1)}
    if method == "bm3d":
        case = Case(y=y, clean=clean, problem=dip.Denoise, sigma=sigma)
        made = find("bm3d").function(case)
        model = clipping(x, sigma=sigma)
        undone = made if model is None else picture(model.inverse(planes(made))[0], case)
        return {**found, "as it was made": psnr(made), "undone": psnr(undone), **now()}
    as_before = {"code": dip.codes.Denoised(level=max(level, 1e-6)), "consistent": False}
    fit = dip.fit(
        dip.Denoise(y, noise="poisson" if photons else "gaussian"),
        preset="fast",
        iters=options.iters,
        seed=options.seed,
        progress=False,
        **(as_before if method == "before" else {}),
    )
    made = fit.task.output(fit.task.compose(fit.picture))
    if photons:
        found["noise"] = repr(fit.task.noise)
    return {**found, "as it was made": psnr(made), "undone": psnr(fit.image), "iterations": fit.iteration, **now()}


def main(arguments: list[str] | None = None) -> None:
    """Denoise all, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", nargs="+", default=["astronaut", "dark-astronaut"])
    parser.add_argument("--data", type=Path, default=os.environ.get("DIP_DATA"), help="folder with the picture sets")
    parser.add_argument("--sigma", type=float, default=25, help="on the scale of 0 to 255")
    parser.add_argument("--photons", type=int, help='in a white pixel, in place of --sigma; "fast" alone')
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--iters", type=int, default=750)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "clipped-noise.json")
    options = parser.parse_args(arguments)
    if options.photons:
        options.methods = ["fast"]
    kept = ("photons" if options.photons else "sigma", "size", "iters", "seed")
    report = Report(options.out, **{key: getattr(options, key) for key in kept})
    for name, clean in pictures(options.pictures, options.size, options.data).items():
        for method in options.methods:
            part = f"{name}, {method}"
            print(part, report.part(part, partial(measured, clean, method, options)), flush=True)


if __name__ == "__main__":
    main()
