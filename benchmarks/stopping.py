"""Stopping rules: what each comes to without a clean picture, beside the best that there was, and no rule.

    python benchmarks/stopping.py
    python benchmarks/stopping.py --pictures retina brick --sigmas 50 --out more.json

The middle --size pixels of photographs that scikit-image carries, with Gaussian noise, clipped; one long fit of each
with the preset, which every rule watches, as it comes, and none ends; and of "fast" one that its flips may end. OUT
has, of each rule, the iteration whose picture it returns, that at which it would have ended the fit (0: not by then),
and the PSNR of that picture; beside these the best PSNR that the average had and that at the preset's own count, and
the curves of the PSNR and of the residual (the mean square of y less the average), at every 25th iteration.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from paper import crop
from records import RESULTS, Report
from time_to_quality import as_tensor, now

import dip
from dip import stopping

EVERY = 25


class Watcher:
    """Every iteration for the rules, and every 25th for the curves."""

    every = 1

    def __init__(self, rules: dict[str, stopping.Rule], clean: torch.Tensor) -> None:
        self.rules, self.clean = rules, clean
        self.curves: dict[str, list[float]] = {"psnr": [], "psnr of one output": [], "residual": []}

    def __call__(self, fit: dip.Fit) -> None:
        """See an iteration."""
        loss = torch.tensor(fit.history.last("loss"))
        for rule in self.rules.values():
            if not rule.ended_at:
                rule.update(fit.iteration, fit.output, fit.current, loss)
        if fit.iteration % EVERY == 0:
            for name, x in (("psnr", fit.current), ("psnr of one output", fit.output)):
                self.curves[name].append(psnr(x, self.clean))
            self.curves["residual"].append(float(f"{float((fit.y - fit.current).square().mean()):.6g}"))


def psnr(x: torch.Tensor, clean: torch.Tensor) -> float:
    """Return the PSNR of a picture (1, C, H, W)."""
    return round(dip.metrics.psnr(x, clean), 3)


def watched(name: str, sigma: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the rules come to in one fit."""
    clean = crop(getattr(skimage.data, name)().astype(np.float32) / 255, options.size)
    noisy = dip.degradations.gaussian(clean, sigma, seed=options.seed)
    rules = {
        "windowed variance": stopping.WindowedVariance(),
        "moving variance": stopping.MovingVariance(),
        "residual fall": stopping.ResidualFall(),
        "discrepancy, told sigma": stopping.Discrepancy(sigma / 255),
    }
    device = dip.devices.resolve(options.device)
    watcher = Watcher(rules, as_tensor(clean, device).reshape(1, -1, *clean.shape[:2]))
    given = {"preset": options.preset, "seed": options.seed, "device": device, "progress": False}
    never = stopping.MovingVariance(patience=10**9)  # a rule in the place of flips that end the fit
    fit = dip.Fit(dip.Denoise(noisy, noise="gaussian"), callbacks=[watcher], stop=never, **given)
    for rule in rules.values():
        rule.place(lambda x: (fit.y - x).square().mean())
    fit.run(options.iters)
    found = {
        name: {"iteration": rule.iteration, "ended": rule.ended_at, "psnr": psnr(rule.image, watcher.clean)}
        for name, rule in rules.items()
        if rule.image is not None
    }
    if fit.settings.flips == "auto":
        own = dip.fit(dip.Denoise(noisy, noise="gaussian"), iters=options.iters, **given)
        found["flips"] = {
            "iteration": own.iteration,
            "ended": own._flips.ended_at,
            "psnr": psnr(own.picture, watcher.clean),
        }
    curve, count = watcher.curves["psnr"], min(options.iters, dip.presets.get("denoise", options.preset).iters)
    return {
        "rules": found,
        "best": {"iteration": EVERY * (1 + int(np.argmax(curve))), "psnr": max(curve)},
        "preset's count": {"iteration": count, "psnr": curve[count // EVERY - 1]},
        "curves": watcher.curves,
        **now(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Fit every picture, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = ["camera", "coins", "astronaut", "coffee", "chelsea", "retina"]
    parser.add_argument("--pictures", nargs="+", default=usual, help="names in skimage.data")
    parser.add_argument("--sigmas", nargs="+", type=float, default=[25.0, 50.0])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iters", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS / "stopping.json")
    options = parser.parse_args(arguments)
    protocol = {key: getattr(options, key) for key in ("preset", "size", "iters", "seed")}
    report = Report(options.out, **protocol)
    for sigma, picture in itertools.product(options.sigmas, options.pictures):
        found = report.part(f"{picture}, sigma {sigma:g}", partial(watched, picture, sigma, options))
        print(picture, sigma, found["rules"], found["best"], found["preset's count"], flush=True)


if __name__ == "__main__":
    main()
