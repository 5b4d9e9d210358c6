"""A scan with scratches and dust, restored by the preset "fast": how long it takes, in which memory, how near it comes.

    python benchmarks/scans.py --size 3000 4000

Four photographs that scikit-image carries, enlarged to the quarters of one picture of --size (height and width), with
grain of standard deviation 2 of 255. Missing are straight scratches, as many as --scratches, one to four pixels wide,
and spots of dust of two to eight pixels' radius, five for each million pixels. The numbers of both come from --seed.
OUT has, for each size, the PSNR of the missing pixels against the picture without grain, by the filters alone and by
the fit, the seconds of the filters and of all, and the peak memory above that before (on Linux), beside what was
foretold. --pictures is a folder for the scan and for what was made of it. Run it once for each size: a process
has one peak.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from overhead import resident
from paper import psnr_at
from records import RESULTS, Report
from speed import peak
from time_to_quality import now

import dip

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


def scanned(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a large photograph and the same with grain, (height, width, 3) of 8 bits."""
    half = (height + 1) // 2, (width + 1) // 2
    quarters = [
        skimage.transform.resize(getattr(skimage.data, name)(), half, order=3).astype(np.float32)
        for name in PHOTOGRAPHS
    ]
    clean = np.concatenate([np.concatenate(quarters[:2], 1), np.concatenate(quarters[2:], 1)])[:height, :width]
    grain = np.random.default_rng(seed).standard_normal(clean.shape, dtype=np.float32) * 2 / 255
    return tuple(np.rint(np.clip(one, 0, 1) * 255).astype(np.uint8) for one in (clean, clean + grain))


def known(height: int, width: int, scratches: int, seed: int) -> np.ndarray:
    """Return which pixels are neither scratched nor dusty, (height, width), bool."""
    draw, there = np.random.default_rng(seed + 1), np.ones((height, width), bool)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    for _ in range(scratches):
        angle, row, column = draw.uniform(0, np.pi), draw.uniform(0, height), draw.uniform(0, width)
        away = (rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
        there &= np.abs(away) > draw.integers(1, 5) / 2
    for _ in range(round(5e-6 * height * width)):
        spot = skimage.draw.disk(draw.uniform(0, [height, width]), draw.integers(2, 9), shape=there.shape)
        there[spot] = False
    return there


def restored(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a fit comes to, and what it takes."""
    clean, scan = scanned(*options.size, options.seed)
    there = known(*options.size, options.scratches, options.seed)
    device = dip.devices.resolve(options.device)
    before, started = resident(), time.perf_counter()
    task = dip.Inpaint(scan, there)
    fit = dip.Fit(task, preset="fast", seed=options.seed, device=options.device, progress=False)
    filters = time.perf_counter() - started
    first = fit.settings.frame.crop(fit.code[..., :-1, :, :])[0].permute(1, 2, 0).numpy(force=True)
    made = fit.run(options.iters).image
    seconds = time.perf_counter() - started
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for name, one in (("scan", np.where(there[..., None], scan, 255)), ("restored", made)):
            dip.files.write(options.pictures / f"{name}.png", one.astype(np.uint8), force=True)
    by_filter, by_fit = (psnr_at(one, clean / 255, ~there) for one in (first + 0.5, made / 255))
    return {
        "missing": round(float((~there).mean()), 5),
        "filter": round(by_filter, 3),
        "psnr_missing": round(by_fit, 3),
        "iterations": fit.iteration,
        "precision": str(fit.settings.dtype),
        "seconds_filters": round(filters, 1),
        "seconds": round(seconds, 1),
        "foretold": fit.settings.memory,
        "taken": None if before is None else peak(device) - before,
        **now(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Restore the scan, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 1024], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--scratches", type=int, default=12)
    parser.add_argument("--iters", type=int, help="default: the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=Path, help="folder of the pictures; default: none are written")
    parser.add_argument("--out", type=Path, default=RESULTS / "scans.json")
    options = parser.parse_args(arguments)
    report = Report(options.out, scratches=options.scratches, seed=options.seed)
    name = "{} x {}".format(*options.size)
    print(name, report.part(name, partial(restored, options)), flush=True)


if __name__ == "__main__":
    main()
