"""What was tried for the presets "fast": PSNR against iterations, on pictures that its figures are not from.

    python benchmarks/search.py denoise --data DATA --pictures set14/monarch set14/flowers
    python benchmarks/search.py inpaint --data DATA --pictures set14/monarch --missing 0.9
    python benchmarks/search.py super-resolve --data DATA --pictures set9/f16
    python benchmarks/search.py deblur --data DATA --iters 800
    python benchmarks/search.py dejpeg --data DATA --quality 10

The middle --size pixels: with noise of --sigma (25), clipped; in gray, with pixels missing at random; reduced by
--factor; in gray, blurred by a Gaussian of 1.6 pixels, with noise of --blurred-sigma (2); or as a JPEG of --quality
(10). A variant is the paper's preset with some of its values changed; the last is the preset. OUT has the PSNR of the
averaged and of the single output (as it is returned: where pixels are missing, with the known ones in their place) and
the loss at every 50th iteration, after how many iterations flips began, after how many the fit would have ended (with
its average then), and the seconds of an iteration, which compare within one run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.filters
import torch
from records import parse
from time_to_quality import add_pictures, as_tensor, cropped, gray, now, pair
from torch import Tensor

import dip

EVERY = 50


@dataclass(frozen=True)
class Pictures(dip.codes.Denoised):
    """A code of other pictures than the preset's, which stay.

    Of each kind one: "means", "variation", "wiener" (the full filter, with the mean of both as its pilot), or the
    standard deviation of a Gaussian.
    """

    kinds: tuple[Any, ...] = ("means", "variation", 1.0)
    scale: float | None = 0.3
    renewed: int = 0

    @property
    def channels(self) -> int:
        """As many for each kind as the picture has, and those of noise."""
        return len(self.kinds) * self.image_channels + self.noise

    def pictures(self, picture: Tensor) -> list[Tensor]:
        """Return what of the noisy picture goes into the code."""
        means, variation = dip.guides.denoised(picture, self.level)
        (filtered,) = dip.guides.wiener(picture, (means + variation) / 2, self.level)
        ready = {"means": means, "variation": variation, "wiener": filtered}
        pixels = picture[0].numpy()
        return [
            ready[kind] if isinstance(kind, str) else torch.from_numpy(gaussian(pixels, kind))[None]
            for kind in self.kinds
        ]


def gaussian(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Return (C, H, W) after a Gaussian filter (0 = as it is)."""
    return skimage.filters.gaussian(pixels, sigma, channel_axis=0).astype(np.float32) if sigma else pixels


def net(*channels: int, skip: tuple[int, ...] = (4,) * 5) -> dict[str, Any]:
    """Return a network with these channels down and up, and in its skip connections."""
    return {"network": {"down": channels, "up": channels, "skip": skip}}


WIDE = (16, 16, 4, 4, 4)
THIN, HALF, MIDDLE = net(16, 32, 64, 64, 64), net(*[64] * 5), net(32, 64, 128, 128, 128)

Variants = dict[str, dict[str, Any]]

DENOISE: Variants = {
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
    "thin, code: both and a Gaussian of 1 pixel": {**THIN, "code": Pictures()},
    "thin, code: both and the Wiener filter": {**THIN, "code": Pictures(kinds=("means", "variation", "wiener"))},
    "fast, skip connections of 4 channels": {"preset": "fast", **THIN},
    "fast, skip connections of 16 channels": {"preset": "fast", **net(16, 32, 64, 64, 64, skip=(16,) * 5)},
    "fast, 32, 64, 64, 64, 64 channels": {"preset": "fast", **net(32, 64, 64, 64, 64, skip=WIDE)},
    "fast, 64 channels everywhere": {"preset": "fast", **net(*[64] * 5, skip=WIDE)},
    "fast, jitter 1/60": {"preset": "fast", "jitter": 1 / 60},
    "fast, jitter 1/24": {"preset": "fast", "jitter": 1 / 24},
    "fast, without noise in the code": {"preset": "fast", "code": dip.codes.Denoised(noise=0)},
    "fast, pictures never renewed": {"preset": "fast", "code": dip.codes.Denoised(renewed=0)},
    "fast, scale 0.3": {"preset": "fast", "code": dip.codes.Denoised(scale=0.3)},
    "fast, never mirrored": {"preset": "fast", "flips": 0},
    "fast, mirrored after 300 iterations": {"preset": "fast", "flips": 300},
    "fast": {"preset": "fast"},
}

NARROW = net(32, 64, 64, 64, 64)


def missing(words: str, channels: dict[str, Any], lr: float, jitter: float, upsampling: str = "bilinear") -> Variants:
    """Return a variant of the preset for pixels missing at random, under its name."""
    given = {"preset": "paper-half", "network": {**channels["network"], "upsampling": upsampling}}
    return {f"{words}, {upsampling}, learning rate {lr}, jitter {jitter}": {**given, "lr": lr, "jitter": jitter}}


GROWING = {
    "preset": "paper-half",
    "network": {**HALF["network"], "upsampling": "nearest"},
    "code": dip.codes.Autoencoding(scale=0.2, grown=1000),
    "lr": 0.01,
    "jitter": 0.01,
}

INPAINT: Variants = {
    "paper-half": {"preset": "paper-half"},
    **missing("thin: 16, 32, 64, 64, 64 channels", THIN, 0.003, 0.01, "nearest"),
    **missing("32, 64, 64, 64, 64 channels", NARROW, 0.003, 0.01, "nearest"),
    **missing("32, 64, 64, 64, 64 channels", NARROW, 0.003, 0.03, "nearest"),
    **missing("32, 64, 64, 64, 64 channels", NARROW, 0.006, 0.01, "nearest"),
    **missing("32, 64, 64, 64, 64 channels", NARROW, 0.01, 0.01, "nearest"),
    **missing("64 channels everywhere", HALF, 0.003, 0.01, "nearest"),
    **missing("64 channels everywhere", HALF, 0.006, 0.01, "nearest"),
    **missing("64 channels everywhere", HALF, 0.01, 0.01, "nearest"),
    **missing("64 channels everywhere", HALF, 0.01, 0.01),
    **missing("64 channels everywhere", HALF, 0.01, 0.003),
    **missing("64 channels everywhere", HALF, 0.003, 0.01),
    "fast before, from noise and its own average": GROWING,
    "fast-sparse": {"preset": "fast-sparse"},
    "fast-sparse, 64 channels everywhere": {"preset": "fast-sparse", **net(*[64] * 5)},
    "fast-sparse, noise beside the picture": {"preset": "fast-sparse", "code": dip.codes.Autoencoding()},
    "fast-sparse, picture never renewed": {"preset": "fast-sparse", "code": dip.codes.Autoencoding(noise=0, renewed=0)},
    "fast, all of the correction": {"preset": "fast", "code": dip.codes.HeldOut(kept=1.0)},
    "fast, 3 folds": {"preset": "fast", "code": dip.codes.HeldOut(3)},
    "fast, 10 folds": {"preset": "fast", "code": dip.codes.HeldOut(10)},
    "fast, never mirrored": {"preset": "fast", "flips": 0},
    "fast, jitter 0.03": {"preset": "fast", "jitter": 0.03},
    "fast, learning rate 0.01": {"preset": "fast", "lr": 0.01},
    "fast, a sigmoid at the end": {"preset": "fast", "network": {"sigmoid": True}},
    "fast, upsampling nearest": {"preset": "fast", "network": {"upsampling": "nearest"}},
    "fast, 64 channels everywhere": {"preset": "fast", "network": {**HALF["network"], "skip": WIDE}},
    "fast": {"preset": "fast"},
}

NEVER_RENEWED = dip.codes.Autoencoding(renewed=0)

SUPER_RESOLVE: Variants = {
    "paper": {"preset": "paper"},
    "paper, corrected": {"preset": "paper", "consistent": True},
    "64 channels everywhere": HALF,
    "64 channels everywhere, corrected": {**HALF, "consistent": True},
    "fast, jitter 0.03": {"preset": "fast", "jitter": 0.03},
    "fast, jitter 0.1": {"preset": "fast", "jitter": 0.1},
    "fast, jitter 0.2": {"preset": "fast", "jitter": 0.2},
    "fast, jitter 0.4": {"preset": "fast", "jitter": 0.4},
    "fast, not corrected": {"preset": "fast", "consistent": False},
    "fast, picture never renewed": {"preset": "fast", "code": NEVER_RENEWED},
    "fast, without noise in the code": {"preset": "fast", "code": dip.codes.Autoencoding(noise=0)},
    "fast, 32, 64, 64, 64, 64 channels": {"preset": "fast", **net(32, 64, 64, 64, 64, skip=WIDE)},
    "fast, skip connections of 4 channels": {"preset": "fast", **THIN},
    "fast, mirrored": {"preset": "fast", "flips": 1},
    "fast": {"preset": "fast"},
}


OWN_BLURRED = dip.codes.Autoencoding(scale=1.0, renewed=0)

DEBLUR: Variants = {
    "paper": {"preset": "paper"},
    "paper, back-projection": {"preset": "paper", "loss": "back-projection"},
    "fast, mean squared error": {"preset": "fast", "loss": "mse"},
    "fast, code of noise, jitter 0.03": {"preset": "fast", "code": dip.codes.Uniform(32), "jitter": 0.03},
    "fast, picture never renewed": {"preset": "fast", "code": OWN_BLURRED},
    "fast, not corrected": {"preset": "fast", "consistent": False},
    "fast, damping 0.001": {"preset": "fast", "damping": 0.001},
    "fast, damping 0.1": {"preset": "fast", "damping": 0.1},
    "fast, jitter 0.03": {"preset": "fast", "jitter": 0.03},
    "fast, jitter 0.2": {"preset": "fast", "jitter": 0.2},
    "fast, mirrored": {"preset": "fast", "flips": 300},
    "fast, 64 channels everywhere": {"preset": "fast", **net(*[64] * 5, skip=WIDE)},
    "fast": {"preset": "fast"},
}


DEJPEG: Variants = {
    "paper": {"preset": "paper"},
    "fast, mean squared error": {"loss": "mse"},
    "fast, code of noise, jitter 0.03": {"code": dip.codes.Uniform(32), "jitter": 0.03},
    "fast, picture never renewed": {"code": NEVER_RENEWED},
    "fast, not corrected": {"consistent": False},
    "fast, all of the interval free": {"loss": dip.losses.Quantization(1.0)},
    "fast, half of it free": {"loss": dip.losses.Quantization(0.5)},
    "fast, none of it free": {"loss": dip.losses.Quantization(0.0)},
    "fast, jitter 0.05": {"jitter": 0.05},
    "fast, jitter 0.2": {"jitter": 0.2},
    "fast, 64 channels everywhere": net(*[64] * 5, skip=WIDE),
    "fast": {"preset": "fast"},
}


def denoise(name: str, options: argparse.Namespace) -> tuple[dip.Denoise, np.ndarray]:
    """Return the task, and the clean picture."""
    clean, noisy = pair(name, options, sigma=options.sigma)
    return dip.Denoise(noisy), clean


def inpaint(name: str, options: argparse.Namespace) -> tuple[dip.Inpaint, np.ndarray]:
    """Return the task, and the clean picture."""
    clean = gray(name, options)
    mask = dip.degradations.random_mask(clean.shape, 1 - options.missing, seed=0)
    return dip.Inpaint(clean * mask, mask), clean


def deblur(name: str, options: argparse.Namespace) -> tuple[dip.Deblur, np.ndarray]:
    """Return the task, and the clean picture."""
    clean = gray(name, options)
    psf = dip.operators.gaussian_psf(1.6)
    y = dip.operators.Blur(psf)(torch.from_numpy(clean)).numpy()
    return dip.Deblur(dip.degradations.gaussian(y, options.blurred_sigma, clip=False, seed=0), psf), clean


def dejpeg(name: str, options: argparse.Namespace) -> tuple[dip.Dejpeg, np.ndarray]:
    """Return the task, and the clean picture."""
    clean = cropped(name, options)
    return dip.Dejpeg(dip.degradations.jpeg(clean, options.quality)), clean


def super_resolve(name: str, options: argparse.Namespace) -> tuple[dip.SuperResolve, np.ndarray]:
    """Return the task, and the clean picture."""
    clean = cropped(name, options)
    small = dip.operators.Downsample(options.factor)(as_tensor(clean, torch.device("cpu"))[None])
    noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(0)) * options.small_sigma / 255
    return dip.SuperResolve((small + noise).clamp(0, 1), options.factor), clean


SEARCHES: dict[str, tuple[Callable[[str, argparse.Namespace], tuple[Any, np.ndarray]], Variants]] = {
    "denoise": (denoise, DENOISE),
    "inpaint": (inpaint, INPAINT),
    "super-resolve": (super_resolve, SUPER_RESOLVE),
    "deblur": (deblur, DEBLUR),
    "dejpeg": (dejpeg, DEJPEG),
}


def main(arguments: list[str] | None = None) -> None:
    """Run the variants and write the report after each; those that it has already are not run again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=SEARCHES)
    add_pictures(parser, "set14/monarch")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--sigma", type=float, default=25, help="of the noise, where white is 255")
    parser.add_argument("--missing", type=float, default=0.5, help="share of the pixels that inpainting has to find")
    parser.add_argument("--factor", type=int, default=4, help="of the super-resolution")
    parser.add_argument("--small-sigma", type=float, default=0, help="of noise in the small picture; default 0")
    parser.add_argument("--blurred-sigma", type=float, default=2, help="of noise in the blurred picture; default 2")
    parser.add_argument("--quality", type=int, default=10, help="of the JPEG; default 10")
    parser.add_argument("--iters", type=int, default=600)
    parser.add_argument("--out", type=Path, help="default: search-TASK.json in benchmarks/results")
    options = parse(parser, arguments)
    problem, variants = SEARCHES[options.task]
    wrong = [name for name in options.variants or [] if name not in variants]
    if wrong:
        parser.error(f"there is no variant {wrong[0]!r}; there are " + "; ".join(variants))
    out = options.out or Path(__file__).parent / "results" / f"search-{options.task}.json"
    report: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    noise = f", noise of sigma {options.small_sigma:g}" if options.small_sigma else ""
    degraded = {
        "denoise": f", sigma {options.sigma:g}",
        "inpaint": f", {options.missing:.0%} missing",
        "super-resolve": f", {options.factor} times{noise}",
        "deblur": f", blurred, sigma {options.blurred_sigma:g}",
        "dejpeg": f", JPEG of quality {options.quality}",
    }
    for name in options.pictures:
        for variant in options.variants or variants:
            done = report.setdefault(f"{name}, {options.size} pixels{degraded.get(options.task, '')}", {})
            if variant not in done:
                task, clean = problem(name, options)
                done[variant] = {**follow(task, clean, variants[variant], options), "seed": options.seed, **now()}
                out.write_text(json.dumps(report, indent=1) + "\n")
                print(name, variant, done[variant]["average"][-1], flush=True)


def follow(task: Any, clean: np.ndarray, variant: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Fit one variant and return its course."""
    given = {"seed": options.seed, "device": options.device, "progress": False, **variant}
    falling, own = given.pop("falling", False), given.pop("own", False)
    if "damping" in given:
        task.damping = given.pop("damping")
    fit = dip.Fit(task, **given)
    fit._goal = options.iters  # towards which some fits take smaller steps
    target = as_tensor(clean, fit.device)[None]
    found: dict[str, Any] = {"iteration": [], "average": [], "output": [], "loss": []}
    ended: dict[str, Any] = {}
    seconds = 0.0
    with dip.devices.reused_memory(fit.device), fit._replays:
        for iteration in range(1, options.iters + 1):
            started = time.perf_counter()
            if falling:
                rate = given["lr"] * (1 + math.cos(math.pi * iteration / (options.iters + 1))) / 2
                fit.settings = dataclasses.replace(fit.settings, lr=rate)
            if own and iteration > EVERY:
                with torch.no_grad():
                    # the code's scale is given: the noise's level does not count
                    fit.code[:, :3] = given["code"].scaled(fit.current, fit.settings.frame, level=0)
            fit.step()
            seconds += time.perf_counter() - started
            if fit._flips.ended_at == iteration:  # here it would have ended by itself
                psnr = round(dip.metrics.psnr(fit.compose(fit.current), target), 3)
                ended = {"over after": iteration, "average then": psnr}
            if iteration % EVERY == 0:
                found["iteration"].append(iteration)
                for kind, picture in (("average", fit.current), ("output", fit.output)):
                    found[kind].append(round(dip.metrics.psnr(fit.compose(picture), target), 3))
                found["loss"].append(round(float(fit.history["loss"][-1]), 7))
    began = {"flips began": fit._flips.began} if fit._flips.began else {}
    return {**found, **began, **ended, "seconds_an_iteration": round(seconds / options.iters, 4)}


if __name__ == "__main__":
    main()
