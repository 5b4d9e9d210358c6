"""The networks beside each other: PSNR against iterations, on photographs that scikit-image carries.

    python benchmarks/networks.py
    python benchmarks/networks.py --published CHECKOUT/test_data/astronaut.png

The middle --size pixels of --pictures with noise of --sigma, clipped: the paper's setting (preset "paper") with each
network in place of its own, and the preset "deep-decoder", also with 64 channels. --published repeats what the authors
of the deep decoder show, with the picture of their repository (reinhardh/supplement_deep_decoder; it is another
astronaut than scikit-image's): 512 x 512, sigma 30, clipped, 1900 iterations, 128 channels; their notebook ended at a
mean squared error of 0.001246 in one version and 0.001325 in another (29.04 and 28.78 dB), of the
last iterate. OUT has the PSNR of the averaged and of the single output and the loss at every 50th iteration, and the
seconds of an iteration.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from paper import crop, read
from records import RESULTS, Report
from search import follow
from time_to_quality import now

import dip

VARIANTS: dict[str, dict[str, Any]] = {
    "encoder-decoder": {},
    "unet": {"network": "unet"},
    "resnet": {"network": "resnet"},
    "deep-decoder": {"preset": "deep-decoder"},
    "deep-decoder, 64 channels": {
        "preset": "deep-decoder",
        "network": {"channels": [64] * 6},
        "code": dip.codes.Uniform(64),
    },
}
PUBLISHED = {"size": 512, "sigma": 30.0, "iters": 1900}


def measured(name: str, variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the course of a fit, and how many weights it has."""
    pixels = getattr(skimage.data, name)() / 255 if options.published is None else read(options.published)
    clean = crop(pixels.astype(np.float32), options.size)
    noisy = dip.degradations.gaussian(clean, options.sigma, clip=True, seed=0)
    given = VARIANTS[variant]
    network = dip.Fit(dip.Denoise(noisy), device="cpu", **given).network
    course = follow(dip.Denoise(noisy), clean, given, options)
    return {
        "weights": sum(p.numel() for p in network.parameters()),
        "noisy": round(dip.metrics.psnr(noisy, clean), 3),
        **course,
        "seed": options.seed,
        **now(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Fit every network to every picture, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", nargs="+", default=["astronaut", "coffee"], help="names in skimage.data")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--sigma", type=float, default=25)
    parser.add_argument("--iters", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--published", type=Path, metavar="FILE", help="the deep decoder's own experiment, of this")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    name = "networks"
    if options.published is not None:
        name, options.pictures, options.variants = "deep-decoder", [options.published.stem], ["deep-decoder"]
        options.size, options.sigma, options.iters = PUBLISHED.values()
    protocol = {key: getattr(options, key) for key in ("size", "sigma", "iters", "seed")}
    report = Report(options.out or RESULTS / f"{name}.json", **protocol)
    for picture in options.pictures:
        for variant in options.variants:
            found = report.part(f"{picture}, {variant}", partial(measured, picture, variant, options))
            print(picture, variant, found["average"][-1], max(found["average"]), flush=True)


if __name__ == "__main__":
    main()
