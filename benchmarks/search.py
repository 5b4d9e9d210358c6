"""What was tried for the preset "fast": PSNR against iterations, on pictures that no figure is taken from.

    python benchmarks/search.py --data DATA --pictures set14/monarch set14/flowers

Denoising, sigma 25 clipped, the middle --size pixels. A variant is the paper's preset with some of its values changed;
the last is the preset. OUT has the averaged and the single outputs' PSNR and the loss at every 50th iteration, and the
seconds of an iteration, which compare within one run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.filters
import torch
from time_to_quality import add_pictures, as_tensor, now, pair
from torch import Tensor

import dip

EVERY = 50


@dataclass(frozen=True)
class Pictures(dip.codes.Denoised):
    """The code of the preset, from other pictures: "means", "variation", or the standard deviation of a Gaussian."""

    kinds: tuple[Any, ...] = ("means", "variation", 1.0)
    renewed: int = 0

    @property
    def channels(self) -> int:
        """As many for each kind as the picture has, and those of noise."""
        return len(self.kinds) * self.image_channels + self.noise

    def pictures(self, picture: Tensor) -> list[Tensor]:
        """Return what of the noisy picture goes into the code."""
        means, variation, _ = dip.guides.denoised(picture)
        ready = {"means": means, "variation": variation}
        pixels = picture[0].numpy()
        return [
            ready[kind] if isinstance(kind, str) else torch.from_numpy(gaussian(pixels, kind))[None]
            for kind in self.kinds
        ]


def gaussian(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Return (C, H, W) after a Gaussian filter (0 = as it is)."""
    return skimage.filters.gaussian(pixels, sigma, channel_axis=0).astype(np.float32) if sigma else pixels


def net(*channels: int) -> dict[str, Any]:
    """Return a network with these channels down and up."""
    return {"network": {"down": channels, "up": channels, "skip": [4] * len(channels)}}


THIN, HALF, MIDDLE = net(16, 32, 64, 64, 64), net(*[64] * 5), net(32, 64, 128, 128, 128)

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "64 channels everywhere": HALF,
    "32, 64, 128, 128, 128 channels": MIDDLE,
    "thin: 16, 32, 64, 64, 64 channels": THIN,
    "thin, learning rate 0.02": {**THIN, "lr": 0.02},
    "thin, learning rate 0.02 falling to 0": {**THIN, "lr": 0.02, "falling": True},
    "thin, jitter 1/60": {**THIN, "jitter": 1 / 60},
    "thin, code: the noisy picture and Gaussians of 1 and 2 pixels": {**THIN, "code": Pictures(kinds=(0, 1.0, 2.0))},
    "thin, code: Gaussians of 0.7, 1.4 and 2.8 pixels": {**THIN, "code": Pictures(kinds=(0.7, 1.4, 2.8))},
    "thin, code: Gaussians of 1, 2 and 4 pixels": {**THIN, "code": Pictures(kinds=(1.0, 2.0, 4.0))},
    "thin, code: its own average, from a Gaussian of 1 pixel": {**THIN, "code": Pictures(kinds=(1.0,)), "own": True},
    "thin, code: total variation": {**THIN, "code": Pictures(kinds=("variation",))},
    "thin, code: non-local means": {**THIN, "code": Pictures(kinds=("means",))},
    "thin, code: both": {**THIN, "code": Pictures(kinds=("means", "variation"))},
    "fast, jitter 1/60": {"preset": "fast", "jitter": 1 / 60},
    "fast, jitter 1/24": {"preset": "fast", "jitter": 1 / 24},
    "fast, scale 0.6": {"preset": "fast", "code": dip.codes.Denoised(scale=0.6)},
    "fast, without noise in the code": {"preset": "fast", "code": dip.codes.Denoised(noise=0)},
    "fast, 32, 64, 128, 128, 128 channels": {"preset": "fast", **MIDDLE},
    "fast, Gaussian picture kept": {"preset": "fast", "code": dip.codes.Denoised(renewed=0)},
    "fast": {"preset": "fast"},
}


def main(arguments: list[str] | None = None) -> None:
    """Run the variants and write the report after each; those that it has already are not run again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_pictures(parser, "set14/monarch")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--iters", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search.json")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("give --data FOLDER, or set DIP_DATA")
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.pictures:
        clean, noisy = pair(name, options, sigma=25)
        for variant in options.variants:
            done = report.setdefault(f"{name}, {options.size} pixels", {})
            if variant not in done:
                done[variant] = {**follow(noisy, clean, VARIANTS[variant], options), "seed": options.seed, **now()}
                options.out.write_text(json.dumps(report, indent=1) + "\n")
                print(name, variant, done[variant]["average"][-1], flush=True)


def follow(
    noisy: np.ndarray, clean: np.ndarray, variant: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Fit one variant and return its course."""
    given = {"seed": options.seed, "device": options.device, "progress": False, **variant}
    falling, own = given.pop("falling", False), given.pop("own", False)
    fit = dip.Fit(dip.Denoise(noisy), **given)
    target = as_tensor(clean, fit.device)[None]
    found: dict[str, Any] = {"iteration": [], "average": [], "output": [], "loss": []}
    seconds = 0.0
    with dip.devices.reused_memory(fit.device):
        for iteration in range(1, options.iters + 1):
            started = time.perf_counter()
            if falling:
                rate = given["lr"] * (1 + math.cos(math.pi * iteration / (options.iters + 1))) / 2
                fit.settings = dataclasses.replace(fit.settings, lr=rate)
            if own and iteration > EVERY:
                with torch.no_grad():
                    fit.code[:, :3] = given["code"].scaled(fit.current, fit.settings.frame)
            fit.step()
            seconds += time.perf_counter() - started
            if iteration % EVERY == 0:
                found["iteration"].append(iteration)
                found["average"].append(round(dip.metrics.psnr(fit.current, target), 3))
                found["output"].append(round(dip.metrics.psnr(fit.output, target), 3))
                found["loss"].append(round(float(fit.history["loss"][-1]), 7))
    return {**found, "seconds_an_iteration": round(seconds / options.iters, 4)}


if __name__ == "__main__":
    main()
