"""How near the noise level comes that is found in a picture, and what that is worth to a fit.

    python benchmarks/noise_level.py PICTURES --fits 12
    python benchmarks/noise_level.py PICTURES --growing --size 160 --every 16

Of every picture in the folder PICTURES (the middle --size pixels), in colour and in gray, with normal noise of several
strengths, clipped and rounded to 8 bits: by what factor the three estimates of `dip.noise`, and what is made of them,
are off the root of the mean square of the noise; quantiles over the pictures (of the others than the first where there
is one), and the share of the pictures that have the second, or in colour the third. And of so
many pictures, spread evenly over the folder, the PSNR of a "fast" fit in colour that is told the first estimate alone
(as all fits were before there was the second), what is found now, and the true level.

With --growing noise of photons and of a camera, neither clipped nor rounded, and normal noise, clipped and rounded: by
what factor the standard deviation of the noise is off that follows from what `dip.noise.found` tells, at the brightness
below which a tenth, half and nine tenths of the picture are; and the share of the pictures of which `dip.Denoise` says
that their noise grows.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dip
from dip import noise
from dip.noise.growing import growth

OUT = Path(__file__).parent / "results" / "noise_level.json"
GROWING = ((0, 5), (0, 15), (0, 25), (0, 50), (2, 0), (5, 0), (20, 0), (100, 0), (500, 0), (30, 10), (100, 5))
SIGMAS = (3, 5, 10, 15, 25, 50)
FITTED = (3, 5, 10)
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def main(arguments: list[str] | None = None) -> None:
    """Estimate, fit, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, help="folder of pictures in colour")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--every", type=int, default=1, help="every which picture is looked at")
    parser.add_argument(
        "--fits", type=int, default=0, help="pictures that are fitted, too; 0 keeps the fits of an earlier report"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--growing", action="store_true", help="noise that grows with the light")
    options = parser.parse_args(arguments)
    paths = sorted(path for path in options.pictures.iterdir() if path.is_file())
    looked_at = paths[:: options.every]
    if options.growing:
        report = growing(looked_at, options.size)
        options.out = options.out.with_stem("noise_growing") if options.out == OUT else options.out
        write(report, options.out)
        return
    before = json.loads(options.out.read_text()) if options.out.exists() else {}
    report = {
        "experiment": "the level of the noise found, divided by the true one; quantiles over the pictures",
        "pictures": len(looked_at),
        "size": options.size,
        "quantiles": QUANTILES,
        "levels": {
            kind: {sigma: quantiles(looked_at, sigma, options.size, kind == "gray") for sigma in SIGMAS}
            for kind in ("colour", "gray")
        },
        "fits, PSNR": [
            fitted(path, sigma, options.size)
            for path, sigma in itertools.product(paths[:: -(-len(paths) // options.fits)], FITTED)
        ]
        if options.fits
        else before.get("fits, PSNR", []),
    }
    write(report, options.out)


def write(report: dict[str, Any], path: Path) -> None:
    """Write a report, with the machine and the date."""
    report |= {"environment": dip.devices.environment(), "date": datetime.date.today().isoformat()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def growing(paths: list[Path], size: int) -> dict[str, Any]:
    """Return how far what is found is off for each noise, in colour and in gray, and where it is said to grow."""
    found: dict[str, Any] = {}
    for kind, (peak, sigma) in itertools.product(("colour", "gray"), GROWING):
        off, said = [], 0
        for path in paths:
            clean = cases(path, 0, size, kind == "gray")[0] / 255
            draw = np.random.default_rng(0)
            noisy = (draw.poisson(clean * peak) / peak if peak else clean) + draw.normal(0, sigma / 255, clean.shape)
            y = tensor(noisy * 255 if peak else np.rint(noisy.clip(0, 1) * 255)).float()
            said += growth(y) is not None
            model = noise.found(y)
            if model is not None:
                gain = 1 / peak if peak else 0.0
                at = np.quantile(clean, (0.1, 0.5, 0.9)).tolist()
                off.append([np.sqrt(model.variance(x) / (gain * x + (sigma / 255) ** 2 + 1e-12)) for x in at])
        name = f"{kind}, {f'{peak} photons' if peak else 'none'}, sigma {sigma}"
        where = dict(zip(("dark", "middle", "bright"), np.array(off).T, strict=True)) if off else {}
        found[name] = {
            **{key: [round(float(one), 3) for one in np.quantile(each, QUANTILES)] for key, each in where.items()},
            "found of": f"{len(off)} of {len(paths)}",
            "said to grow": f"{said} of {len(paths)}",
        }
        print(name, found[name], flush=True)
    what = "standard deviation of the noise found, divided by the true one; quantiles over the pictures"
    return {"experiment": what, "pictures": len(paths), "size": size, "quantiles": QUANTILES, "noises": found}


def cases(path: Path, sigma: float, size: int, gray: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of a picture, (height, width) or (height, width, 3), and the same with noise."""
    clean = dip.files.read(path).pixels
    if gray and clean.ndim == 3:
        clean = clean.mean(2).round().astype(np.uint8)
    top, left = (max(0, (side - size) // 2) for side in clean.shape[:2])
    clean = clean[top : top + size, left : left + size]
    return clean, dip.degradations.gaussian(clean, sigma, seed=0)


def tensor(pixels: np.ndarray) -> Tensor:
    """Return a picture as the estimates take it."""
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1)))[None] / 255


def true_level(sigma: float) -> float:
    """Return the standard deviation of the noise before it was clipped, with that of rounding."""
    return float(np.sqrt(sigma**2 + 1 / 12) / 255)


def quantiles(paths: list[Path], sigma: float, size: int, gray: bool) -> dict[str, list[float]]:
    """Return quantiles of the factors by which the estimates are off."""
    found: dict[str, list[float]] = {"mask": [], "patches": [], "colours": [], "taken": []}
    for path in paths:
        _, noisy = cases(path, sigma, size, gray)
        true, y = true_level(sigma), tensor(noisy)
        for name, estimate in (
            ("mask", noise.by_mask),
            ("patches", noise.by_patches),
            ("colours", noise.by_colours),
            ("taken", noise.noise_level),
        ):
            found[name].append(estimate(y) / true)
    finite = {name: [one for one in off if np.isfinite(one)] for name, off in found.items()}
    given = {name: [round(float(one), 3) for one in np.quantile(off, QUANTILES)] for name, off in finite.items() if off}
    shares = {"second": len(finite["patches"]), "third": len(finite["colours"])}
    return {**given, **{f"share with a {which} estimate": [round(n / len(paths), 3)] for which, n in shares.items()}}


def fitted(path: Path, sigma: float, size: int) -> dict[str, Any]:
    """Return what three fits come to that are told different levels."""
    clean, noisy = cases(path, sigma, size, gray=False)
    true, y = true_level(sigma), tensor(noisy)
    row: dict[str, Any] = {"picture": path.name, "sigma": sigma, "noisy": round(dip.metrics.psnr(noisy, clean), 2)}
    for name, level in (("mask", noise.by_mask(y)), ("taken", noise.noise_level(y)), ("true", true)):
        code = dip.codes.Denoised(level=level)
        fit = dip.fit(dip.Denoise(noisy), preset="fast", code=code, flips="auto", seed=0, progress=False)
        row |= {f"{name}, level": round(level / true, 3), f"{name}, PSNR": round(dip.metrics.psnr(fit.image, clean), 2)}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
