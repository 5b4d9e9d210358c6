"""PSNR against seconds: which setting reaches the original code's quality first?

    python benchmarks/time_to_quality.py --data DATA --reference CHECKOUT --pictures set14/baboon set14/barbara

The original network and loop (CHECKOUT: a clone of DmitryUlyanov/deep-image-prior) denoise each picture (sigma 25,
clipped, the middle --size pixels) in its own 1800 iterations; what it ends with, the bias-corrected average of its
outputs, is the mark. The scales of its batch normalisations begin as they did for the paper (see seeds.py), or with
--reference-norm-scale one as they would today. Each setting of dip then runs for as long as it is set to, and the
report has its PSNR, its seconds, and the second at which it first came to the mark.

Without --reference, the first setting is the mark. The original code needs an hour a picture on two cores; so with
--reference-seconds, the preset "paper", which is the same network and loop, may stand for it: the original code is then
only timed, over a few iterations, and what it would have taken is what the others are compared with.

Settings are presets, or options of `dip.fit` as JSON:

    --setting paper --setting thin='{"network": {"down": [64,64,64,64,64], ...}, "jitter": 0, "iters": 800}'

With --keep, what OUT has already is not run again. Seconds are those of the fit alone, with its code: the PSNR is taken
between them. They compare on one machine, with equally many threads.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import seeds
import skimage.color
import torch
from paper import crop, read
from records import parse
from speed import wait
from torch import Tensor

import dip

EVERY = 20  # iterations between two looks at the PSNR


def main(arguments: list[str] | None = None) -> None:
    """Run all settings on all pictures and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_pictures(parser, "set9/peppers")
    parser.add_argument("--reference", type=Path, help="checkout of DmitryUlyanov/deep-image-prior")
    parser.add_argument("--reference-iters", type=int, default=1800)
    parser.add_argument("--reference-norm-scale", choices=["one", "uniform"], default="uniform")
    parser.add_argument("--reference-seconds", action="store_true", help="only time the original code")
    parser.add_argument("--keep", action="store_true", help="go on from what OUT has")
    parser.add_argument("--setting", action="append", help="a preset, or NAME=JSON; may be given again")
    parser.add_argument("--sigma", type=float, default=25)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "time_to_quality.json")
    options = parse(parser, arguments)
    if options.reference_seconds and not options.reference:
        parser.error("--reference-seconds needs --reference CHECKOUT")
    settings = dict(setting(text) for text in options.setting or ["paper"])
    protocol = {
        "experiment": f"denoising, sigma {options.sigma:g} clipped: PSNR of the averaged output against seconds",
        "size": options.size,
        "seed": options.seed,
        "device": str(dip.devices.resolve(options.device)),
    }
    report: dict[str, Any] = {**protocol, "settings": {}, "pictures": {}}
    if options.keep and options.out.exists():
        report = json.loads(options.out.read_text())
        if any(report[key] != value for key, value in protocol.items()):
            parser.error(f"{options.out} was measured otherwise: give another --out, or do without --keep")
    changed = [name for name, given in settings.items() if report["settings"].get(name, given) != given]
    if changed:
        parser.error(f"{options.out} has other settings under the name {changed[0]}: give another name")
    report["settings"] |= settings
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.pictures:
        clean, noisy = pair(name, options, options.sigma)
        curves = {label: one["curve"] for label, one in report["pictures"].get(name, {}).items()}
        if options.reference and not options.reference_seconds and "reference" not in curves:
            curves["reference"] = follow(reference(noisy, options), clean, options)
        elif options.reference_seconds and "reference" not in report:
            report["reference"] = {"seconds": timed(reference(noisy, options), options), **now()}
        for label, given in settings.items():
            if label not in curves:
                curves[label] = follow(ours(noisy, given, options), clean, options)
        report["pictures"][name] = compare(curves, report.get("reference"))
        for label, found in report["pictures"][name].items():
            print(name, label, {key: value for key, value in found.items() if key != "curve"}, flush=True)
        report["summary"] = summary(report["pictures"])
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["summary"], indent=1))


def now() -> dict[str, Any]:
    """Where and when something is measured."""
    return {"environment": dip.devices.environment(), "date": datetime.date.today().isoformat()}


def timed(outputs: Iterator[Tensor], options: argparse.Namespace, iterations: int = 5) -> float:
    """Return the seconds that all of the original code's iterations would take, from a few of them."""
    device = dip.devices.resolve(options.device)
    seconds = []
    for _ in range(iterations + 2):
        started = time.perf_counter()
        next(outputs)
        wait(device)
        seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds[2:]) * options.reference_iters, 1)


def add_pictures(parser: argparse.ArgumentParser, first: str) -> None:
    """Add the options that say which pictures are restored, where, and from which seed."""
    parser.add_argument("--data", type=Path, default=os.environ.get("DIP_DATA"), help="folder with the pictures")
    parser.add_argument("--pictures", nargs="+", default=[first], help="paths in DATA, without .png")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")


def pair(name: str, options: argparse.Namespace, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of a picture, and the same with noise."""
    clean = cropped(name, options)
    return clean, dip.degradations.gaussian(clean, sigma, clip=True, seed=0)


def cropped(name: str, options: argparse.Namespace) -> np.ndarray:
    """Return the middle of a picture."""
    return crop(read((options.data / name).with_suffix(".png")), options.size)


def gray(name: str, options: argparse.Namespace) -> np.ndarray:
    """Return the middle of a picture in gray, float32."""
    clean = cropped(name, options)
    return (clean if clean.ndim == 2 else skimage.color.rgb2gray(clean)).astype(np.float32)


def as_tensor(clean: np.ndarray, device: torch.device) -> Tensor:
    """Return a picture as (C, H, W), or (H, W) if it is gray."""
    colours = (2, 0, 1) if clean.ndim == 3 else (0, 1)
    return torch.from_numpy(np.ascontiguousarray(clean.transpose(colours))).to(device, torch.float32)


def setting(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of a setting."""
    name, equals, options = text.partition("=")
    return name, json.loads(options) if equals else {"preset": name}


def follow(outputs: Iterator[Tensor], clean: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """Return iterations, seconds, and the PSNR of the averaged output along a fit."""
    device = dip.devices.resolve(options.device)
    target = as_tensor(clean, device)
    found: dict[str, Any] = {**now(), "iteration": [], "seconds": [], "psnr": []}
    seconds = 0.0
    started = time.perf_counter()  # what comes before the first iteration counts: the code may take a while
    for iteration, picture in enumerate(outputs, 1):
        if iteration % EVERY:
            continue
        wait(device)
        seconds += time.perf_counter() - started
        found["iteration"].append(iteration)
        found["seconds"].append(round(seconds, 2))
        found["psnr"].append(round(dip.metrics.psnr(picture.reshape(target.shape), target), 3))
        started = time.perf_counter()
    return found


def ours(noisy: np.ndarray, given: dict[str, Any], options: argparse.Namespace) -> Iterator[Tensor]:
    """The pictures that `dip.Fit` would return, iteration by iteration."""
    given = dict(given)
    iters = given.pop("iters", None)
    fit = dip.Fit(dip.Denoise(noisy), seed=options.seed, device=options.device, progress=False, **given)
    with dip.devices.reused_memory(fit.device):
        for _ in range(iters or fit.settings.preset.iters):
            fit.step()
            yield fit.picture


def reference(noisy: np.ndarray, options: argparse.Namespace) -> Iterator[Tensor]:
    """The average of the outputs of the original network in the original loop."""
    average = dip.averaging.ExponentialAverage(0.99)
    given = argparse.Namespace(reference=options.reference, iters=options.reference_iters, device=options.device)
    for output in seeds.reference(noisy, given, options.reference_norm_scale, options.seed):
        average.update(output)
        yield average.value


def compare(curves: dict[str, dict[str, Any]], reference: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return, for each contender, its last PSNR and when it came to the mark: the first one's last PSNR.

    How many times faster that is than the original code, or than the first contender where that was not timed: None
    for a contender that never came there, or was measured with another number of threads.
    """
    first = next(iter(curves.values()))
    mark, base = first["psnr"][-1], reference or {**first, "seconds": first["seconds"][-1]}
    found = {}
    for label, curve in curves.items():
        reached = next((s for s, psnr in zip(curve["seconds"], curve["psnr"], strict=True) if psnr >= mark), None)
        alike = curve["environment"]["threads"] == base["environment"]["threads"]
        found[label] = {
            "psnr": curve["psnr"][-1],
            "best": max(curve["psnr"]),
            "seconds": curve["seconds"][-1],
            "seconds_to_the_mark": reached,
            "times_faster_to_the_mark": round(base["seconds"] / reached, 2) if reached and alike else None,
            "curve": curve,
        }
    return found


def summary(pictures: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the means over the pictures."""
    found = {}
    for label in dict.fromkeys(label for picture in pictures.values() for label in picture):
        rows = [picture[label] for picture in pictures.values() if "psnr" in picture.get(label, {})]
        if not rows:
            continue  # kept from an earlier run, and not yet compared
        faster = [row["times_faster_to_the_mark"] for row in rows]
        found[label] = {
            "pictures": len(rows),
            "psnr": round(statistics.fmean(row["psnr"] for row in rows), 3),
            "seconds": round(statistics.fmean(row["seconds"] for row in rows), 1),
            "reached": f"{sum(row['seconds_to_the_mark'] is not None for row in rows)} of {len(rows)}",
            "times_faster_to_the_mark": None
            if None in faster
            else round(statistics.geometric_mean(one for one in faster if one is not None), 2),
        }
    return found


if __name__ == "__main__":
    main()
