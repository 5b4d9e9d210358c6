"""Fits in crops: time and memory of large pictures next to a fit in one piece, quality, and whether seams are seen.

    python benchmarks/crops.py cost --sizes 1024 2048 4096
    python benchmarks/crops.py quality --data ../data --pictures set9/f16

"cost": seconds of an iteration and of a pass over the whole, and the peak memory, for pictures of several sizes in
crops of --tile pixels; each runs in a process of its own. A picture of the crop's size is fitted in one piece, and what
a whole fit takes with the preset's iterations is compared with what is proportional to the pixels.

"quality": PSNR of a fit in one piece and of one in crops, with as many iterations for each tile; and the mean step
between neighbouring pixels across the borders of the last pass's tiles, divided by that everywhere else, in both: what
is more in crops than in one piece, where the same lines are no borders, is a seam.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from paper import eight_bits
from speed import peak, wait
from time_to_quality import add_pictures, pair

import dip
from dip import crops


def main(arguments: list[str] | None = None) -> None:
    """Run one of the two, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["cost", "quality"])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--iters", type=int, help="iterations timed (5), or for each tile (the preset's)")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1024, 2048], help="of cost: sides of the square picture"
    )
    add_pictures(parser, "set9/f16")
    parser.add_argument("--sigma", type=float, default=25)
    parser.add_argument("--write", type=Path, help="of quality: folder for the restored pictures")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", type=int, metavar="SIZE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(cost(options.worker, options)))
        return
    report: dict[str, Any] = {
        "preset": options.preset,
        "tile": options.tile,
        "device": str(dip.devices.resolve(options.device)),
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
    }
    if options.what == "cost":
        given = sys.argv[1:] if arguments is None else arguments
        report["sizes"] = costs([in_process(size, given) for size in (options.tile, *options.sizes)])
    else:
        if options.data is None:
            parser.error("give --data FOLDER, or set DIP_DATA")
        report |= {"sigma": options.sigma, "size": options.size, "seed": options.seed}
        report["pictures"] = {name: quality(name, options) for name in options.pictures}
    out = options.out or Path(__file__).parent / "results" / f"crops-{options.what}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


def in_process(size: int, arguments: list[str]) -> dict[str, Any]:
    """Measure one size in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--worker", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{size} pixels failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found), flush=True)
    return found


def cost(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds and bytes of a fit of a picture of noise: what is in it does not matter to them."""
    picture = np.random.default_rng(0).random((size, size, 3), dtype=np.float32)
    device = dip.devices.resolve(options.device)
    before, seconds = peak(device), []
    given = {"preset": options.preset, "tile": options.tile, "device": options.device, "progress": False}
    fit = dip.Fit(dip.Denoise(picture), **given)
    with dip.devices.reused_memory(device):
        for number in range((options.iters or 5) + 2):
            started = time.perf_counter()
            fit.step()
            wait(device)
            if number >= 2:
                seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        if fit.settings.tile is not None:
            _ = fit.output
            wait(device)
        look = time.perf_counter() - started
    return {
        "size": size,
        "tiles": fit.settings.tiles,
        "iterations": fit.settings.iters,
        "seconds_an_iteration": round(statistics.median(seconds), 4),
        "seconds_a_pass": round(look, 2) if fit.settings.tile else None,
        "foretold_bytes": fit.settings.memory,
        "peak_bytes": peak(device) - before,
    }


def costs(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add what a whole fit comes to, divided by that of the first one and by how many times more pixels it has."""
    for one in found:
        fit = one["iterations"] * one["seconds_an_iteration"] + (one["seconds_a_pass"] or 0)
        one["hours"] = round(fit / 3600, 2)
        first = found[0]["iterations"] * found[0]["seconds_an_iteration"]
        one["times_linear"] = round(fit / first / (one["size"] / found[0]["size"]) ** 2, 3)
    return found


def quality(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return PSNR and seconds of fits in one piece and in crops, and how much of a seam there is."""
    clean, noisy = pair(name, options, options.sigma)
    crops._PASS = options.tile  # as many borders as there can be; a fit takes larger tiles for its last pass
    found: dict[str, Any] = {"noisy": round(dip.metrics.psnr(noisy, clean), 3)}
    for label, tile in (("in one piece", None), ("in crops", options.tile)):
        fit = dip.Fit(
            dip.Denoise(noisy),
            preset=options.preset,
            tile=tile,
            seed=options.seed,
            device=options.device,
            progress=False,
        )
        goal = (options.iters or fit.settings.preset.iters) * fit.settings.tiles
        while fit.iteration < goal:  # flips end a run once
            fit.run(goal - fit.iteration)
        found[label] = {
            "psnr": round(dip.metrics.psnr(fit.image, clean), 3),
            "iterations": fit.iteration,
            "seconds": round(fit.seconds, 1),
        }
        found[label]["seam"] = seam(fit, options.tile)
        if options.write:
            options.write.mkdir(parents=True, exist_ok=True)
            dip.files.write(options.write / f"{Path(name).name} {label}.png", eight_bits(fit.image), force=True)
        print(name, label, found[label], flush=True)
    return found


def seam(fit: dip.Fit, tile: int) -> float | None:
    """Return the mean step across the borders of tiles divided by that elsewhere; None if there is one tile."""
    picture, frame = fit.picture[0].mean(0), fit.settings.frame
    across, elsewhere = [], []
    for axis, start in ((0, frame.top), (1, frame.left)):
        steps = picture.diff(dim=axis).abs().mean(dim=1 - axis)
        borders = [border - start - 1 for border in range(tile, (frame.height, frame.width)[axis], tile)]
        there = np.isin(np.arange(len(steps)), borders)
        across += steps[there].tolist()
        elsewhere += steps[~there].tolist()
    return round(statistics.fmean(across) / statistics.fmean(elsewhere), 3) if across else None


if __name__ == "__main__":
    main()
