"""Repeat experiments of the Deep Image Prior paper and write what came out.

    python benchmarks/paper.py f16 --data DATA --out RESULTS

For each experiment: a JSON file with the figures, the settings, the seed, the versions, the device and the date; and a
small picture. DATA (or the environment variable DIP_DATA) is a folder with the pictures, set9/f16.png and those of
dip_paper/: see docs/results.md. A run that was interrupted goes on where it was, from its checkpoint in RESULTS.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from records import parse
from skimage.transform import resize

import dip


@dataclass
class Experiment:
    """One fit: its task, the clean picture where there is one, and what to compare the result with."""

    task: Any
    clean: np.ndarray | None
    given: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    notes: str = ""
    missing: np.ndarray | None = None  # where the PSNR of an inpainting counts


def f16(data: Path, size: int | None) -> Experiment:
    """Denoise F16, sigma 25, clipped noise."""
    clean = crop(read(data / "set9" / "f16.png"), size)
    noisy = dip.degradations.gaussian(clean, 25, clip=True, seed=0)
    return Experiment(
        dip.Denoise(noisy),
        clean,
        noisy,
        baselines={"noisy": dip.metrics.psnr(noisy, clean)},
        notes="Gaussian noise, sigma 25, clipped, float; PSNR over RGB",
    )


def zebra(data: Path, size: int | None) -> Experiment:
    """Enlarge the zebra by 4, from 144 x 96 made by Pillow's Lanczos."""
    picture = (read(data / "dip_paper" / "sr" / "zebra_GT.png") * 255).round().astype(np.uint8)
    height, width = 384, 576
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    clean = picture[top : top + height, left : left + width]
    if size is not None:
        clean = crop(clean, size)
    from PIL import Image

    large = Image.fromarray(clean)
    small = large.resize((large.width // 4, large.height // 4), Image.Resampling.LANCZOS)
    back = {
        name: np.asarray(small.resize(large.size, method))
        for name, method in (("bicubic", Image.Resampling.BICUBIC), ("nearest", Image.Resampling.NEAREST))
    }
    return Experiment(
        dip.SuperResolve(np.asarray(small), 4),
        clean,
        back["bicubic"],
        baselines={name: dip.metrics.psnr(picture, clean) for name, picture in back.items()},
        notes="x4; the small picture and the baselines are made by Pillow in 8 bits; PSNR over RGB",
    )


def inpainting(name: str, preset: str) -> Callable[[Path, int | None], Experiment]:
    """Fill the holes of one of the paper's pictures, whose mask has 0 = missing."""

    def make(data: Path, size: int | None) -> Experiment:
        folder = data / "dip_paper" / "inpainting"
        picture, mask = read(folder / f"{name}.png"), read(folder / f"{name}_mask.png") > 0.5
        if size is not None:
            picture, mask = crop(picture, size), crop(mask, size)
        damaged = picture * mask[..., None]
        # kate was drawn over: the picture at hand is the clean one. Behind the holes of the others is the object to be
        # removed, so there is nothing to compare with.
        known = name == "kate"
        return Experiment(
            dip.Inpaint(damaged, mask),
            picture if known else None,
            damaged,
            {"preset": preset},
            notes=f"{1 - mask.mean():.1%} of the pixels missing; PSNR over RGB, known pixels put back",
            missing=~mask,
        )

    return make


def pixels(name: str, keep: float, preset: str) -> Callable[[Path, int | None], Experiment]:
    """Restore a picture of the paper from a random share of its pixels."""

    def make(data: Path, size: int | None) -> Experiment:
        clean = crop(read(data / "dip_paper" / "restoration" / f"{name}.png"), size)
        mask = dip.degradations.random_mask(clean.shape[:2], keep, seed=0)
        damaged = clean * (mask if clean.ndim == 2 else mask[..., None])
        return Experiment(
            dip.Inpaint(damaged, mask),
            clean,
            damaged,
            {"preset": preset},
            notes=f"{keep:.0%} of the pixels known, Bernoulli mask; known pixels put back",
            missing=~mask,
        )

    return make


EXPERIMENTS: dict[str, Callable[[Path, int | None], Experiment]] = {
    "f16": f16,
    "zebra": zebra,
    "kate": inpainting("kate", "paper"),
    "vase": inpainting("vase", "paper-hole"),
    "library": inpainting("library", "paper-hole-large"),
    "barbara-half": pixels("barbara", 0.5, "paper-half"),
    "kate-sparse": pixels("kate", 0.02, "paper-sparse"),
}


def read(path: Path) -> np.ndarray:
    """Read a picture as float64 in [0, 1]."""
    pixels = dip.files.read(path).pixels
    return pixels / np.iinfo(pixels.dtype).max


def crop(image: np.ndarray, size: int | None) -> np.ndarray:
    """Cut `size` pixels square out of the middle."""
    if size is None:
        return image
    top, left = (max(0, n - size) // 2 for n in image.shape[:2])
    return image[top : top + size, left : left + size]


def psnr_at(image: np.ndarray, clean: np.ndarray, where: np.ndarray) -> float:
    """Return the PSNR over the pixels in `where`."""
    return float(-10 * np.log10(np.mean((image[where] - clean[where]) ** 2)))


def eight_bits(image: np.ndarray) -> np.ndarray:
    """Return a picture for the eye: uint8."""
    image = np.asarray(image)
    return image if image.dtype == np.uint8 else (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def main(arguments: list[str] | None = None) -> None:
    """Run the experiments that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", nargs="+", choices=[*EXPERIMENTS, "all"])
    parser.add_argument("--data", type=Path, default=os.environ.get("DIP_DATA"), help="folder with the pictures")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for the results")
    parser.add_argument(
        "--pictures",
        type=Path,
        default=Path(__file__).parent.parent / "docs" / "images",
        help="folder for the small pictures",
    )
    parser.add_argument("--iters", type=int, help="another count of iterations than the paper's")
    parser.add_argument("--size", type=int, help="take a square of so many pixels from the middle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--norm-scale", default="uniform", help="of the network: uniform, as in the paper; or one")
    options = parse(parser, arguments)
    for folder in (options.out, options.pictures):
        folder.mkdir(parents=True, exist_ok=True)
    chosen = list(EXPERIMENTS) if "all" in options.experiment else options.experiment
    for name in chosen:
        experiment = EXPERIMENTS[name](options.data, options.size)
        run(name if options.size is None else f"{name}-{options.size}", experiment, options)


def run(name: str, experiment: Experiment, options: argparse.Namespace) -> None:
    """Fit, and write NAME.json and NAME.jpg."""
    checkpoint = options.out / f"{name}.checkpoint"
    fit = dip.fit(
        experiment.task,
        iters=options.iters,
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        reference=experiment.clean,
        checkpoint=checkpoint,
        checkpoint_every=50,
        network={"norm_scale": options.norm_scale},
        resume=checkpoint if checkpoint.exists() else None,
        **experiment.options,
    )
    figures: dict[str, float | None] = dict(experiment.baselines)
    if experiment.clean is not None:
        figures["average"] = fit.history["psnr"][-1]
        figures["last output"] = fit.history["psnr_output"][-1]
        if experiment.missing is not None:
            image = np.asarray(fit.image, dtype=np.float64)
            figures["average, missing pixels"] = psnr_at(image, experiment.clean, experiment.missing)
    settings = {k: v for k, v in fit.fingerprint().items() if k not in ("dip", "image", "z", "network")}
    settings["preset"] = fit.settings.preset.name
    settings["network"] = {**fit.settings.preset.options, "norm_scale": options.norm_scale}
    report = {
        "experiment": name,
        "notes": experiment.notes,
        "psnr": {key: None if value is None else round(float(value), 3) for key, value in figures.items()},
        "iterations": fit.iteration,
        "stop_reason": fit.stop_reason,
        "recoveries": fit.recoveries,
        "seconds": round(fit.seconds),
        "seconds_per_iteration": round(fit.seconds / fit.iteration, 3),
        "seed": options.seed,
        "device": str(fit.device),
        "settings": settings,
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
        "history": thinned(fit),
    }
    (options.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    panels = [experiment.given, fit.image] + ([] if experiment.clean is None else [experiment.clean])
    picture = np.concatenate([eight_bits(panel) for panel in panels], axis=1)
    dip.files.write(options.pictures / f"{name}.jpg", small(picture, 768), force=True)
    if fit.stop_reason == "interrupted":
        sys.exit(130)
    checkpoint.unlink()
    print(name, report["psnr"], f"{fit.iteration} iterations, {fit.seconds:.0f} s")


def thinned(fit: dip.Fit) -> dict[str, Any]:
    """Return every 25th entry of the history."""
    series = {}
    for name in fit.history:
        at, values = fit.history.iterations(name), fit.history[name]
        keep = (at % 25 == 0) | (at == at[-1])
        series[name] = {"iteration": at[keep].tolist(), "value": [float(f"{v:.5g}") for v in values[keep]]}
    return series


def small(picture: np.ndarray, width: int) -> np.ndarray:
    """Reduce a picture to at most `width` pixels across."""
    if picture.shape[1] <= width:
        return picture
    shape = (round(picture.shape[0] * width / picture.shape[1]), width)
    return eight_bits(resize(picture / 255, shape, anti_aliasing=True))


if __name__ == "__main__":
    main()
