"""DIP beside every trained model, on the nine pictures of Set9: other noise levels, other kinds of noise.

    python benchmarks/backends.py --data DATA
    python benchmarks/backends.py --data DATA --dip paper --device cuda

Gaussian noise of sigma 15, 25 and 50 (clipped), and what hardly any of the models was trained on: Poisson noise (20
photons at white) and impulse noise (10 % of the values). PSNR, SSIM and seconds of each, with the noise that the model
was trained on, so that the table tells what is in its domain. For DIP the preset is given (--dip). The preset "fast" is
made for Gaussian noise: its code is the noisy picture after denoisers that take all noise for such, and points come
through. So for impulse noise there is another fit, "dip, L1": the paper's preset with half the channels, a jitter of
0.01, the L1 loss, which is the usual one there, and 600 iterations. With few photons "dip, noise poisson" is told what
kind of noise it is. What OUT has already is not run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import records

import dip
from dip import trained

NOISES: dict[str, Any] = {
    "gaussian 15": lambda clean, seed: dip.degradations.gaussian(clean, 15, seed=seed),
    "gaussian 25": lambda clean, seed: dip.degradations.gaussian(clean, 25, seed=seed),
    "gaussian 50": lambda clean, seed: dip.degradations.gaussian(clean, 50, seed=seed),
    "poisson 20": lambda clean, seed: dip.degradations.poisson(clean, 20, seed=seed),
    "impulse 0.1": lambda clean, seed: dip.degradations.impulse(clean, 0.1, seed=seed),
}


HALF = {"down": [64] * 5, "up": [64] * 5}
FOR_POINTS: dict[str, Any] = {"preset": "paper", "network": HALF, "jitter": 0.01, "loss": "l1", "iters": 600}
POINTS, COUNTED = "dip, L1", "dip, noise poisson"
OWN = {"impulse": [POINTS], "poisson": [COUNTED]}


def main(arguments: list[str] | None = None) -> None:
    """Restore every picture by everything, and write the report, the table and the plots."""
    parser = records.parser(__doc__, "backends")
    parser.add_argument("--model", action="append", help="name or file; all models of the package by default")
    parser.add_argument("--dip", default="fast", help="preset of the fit; none leaves it out")
    parser.add_argument("--iters", type=int, help="of the fit")
    parser.add_argument("--flips", type=int, help="of the fit (dip.flips)")
    parser.add_argument("--noises", nargs="+", choices=list(NOISES), default=list(NOISES))
    parser.add_argument("--size", type=int, help="crop the middle, in pixels")
    parser.add_argument("--set", default="set9", help="folder of the pictures")
    parser.add_argument("--table", type=Path, default=records.HERE.parent / "docs" / "backends.md")
    options = records.parse(parser, arguments)
    protocol = {"set": options.set, "size": options.size, "seed": 0, "dip": options.dip, "iters": options.iters}
    protocol["flips"] = options.flips
    report = records.Report(options.out, **protocol)
    models = {str(name): trained.load(name, device=options.device) for name in options.model or trained.models()}
    domains = {
        name: {"trained on": str(one.info["recipe"]["noise"]), "data": one.info.get("data")}
        for name, one in models.items()
    }
    report.set(models=domains, device=str(dip.devices.resolve(options.device)))
    for noise in options.noises:
        for path in dip.files.find(options.data / options.set):
            clean = middle(dip.files.read(path).pixels, options.size)
            noisy = NOISES[noise]((clean / 255).astype(np.float32), 0)
            fits = [] if options.dip == "none" else ["dip", *OWN.get(noise.partition(" ")[0], [])]
            for name in ["noisy", *models, *fits]:
                report.part(
                    f"{noise}/{path.stem}/{name}",
                    lambda name=name, noisy=noisy, clean=clean: one_figure(name, noisy, clean, models, options),
                )
    table = summary(report.parts)
    report.set(mean=table)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    options.table.write_text(markdown(table, domains, options))
    for noise, rows in table.items():
        path = options.pictures / f"backends-{noise.replace(' ', '-').replace('.', '')}.png"
        records.chart(path, f"{options.set}, {noise}", {noise: {k: v["psnr"] for k, v in rows.items()}}, "PSNR (dB)")


def middle(pixels: np.ndarray, size: int | None) -> np.ndarray:
    """Cut `size` pixels square out of the middle."""
    if size is None:
        return pixels
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


def one_figure(
    name: str,
    noisy: np.ndarray,
    clean: np.ndarray,
    models: dict[str, trained.Denoiser],
    options: argparse.Namespace,
) -> dict[str, float]:
    """Restore one picture by one of them."""
    started = time.perf_counter()
    if name == "noisy":
        restored = noisy
    elif name in ("dip", POINTS, COUNTED):
        given = FOR_POINTS if name == POINTS else {"preset": options.dip, "flips": options.flips}
        given = {**given, "noise": "poisson" if name == COUNTED else "gaussian"}
        if options.iters:
            given = {**given, "iters": options.iters}
        restored = dip.denoise(noisy, device=options.device, progress=False, **given)
    else:
        restored = models[name](noisy)
    seconds = time.perf_counter() - started
    return {
        "psnr": round(dip.metrics.psnr(restored, clean), 3),
        "ssim": round(dip.metrics.ssim(restored, clean), 4),
        "seconds": round(seconds, 3),
    }


def summary(parts: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the mean over the pictures, by noise and by what restored them."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for key, value in parts.items():
        if key.count("/") >= 2 and isinstance(value, dict) and "psnr" in value:
            noise, _, name = key.split("/", 2)
            found.setdefault(noise, {}).setdefault(name, []).append(value)
    return {
        noise: {
            name: {key: round(float(np.mean([one[key] for one in each])), 4) for key in ("psnr", "ssim", "seconds")}
            for name, each in rows.items()
        }
        for noise, rows in ((noise, found[noise]) for noise in NOISES if noise in found)
    }


def markdown(table: dict[str, Any], domains: dict[str, Any], options: argparse.Namespace) -> str:
    """Return the table as a page."""
    where = f", the middle {options.size} x {options.size} pixels" if options.size else ""
    names = list(dict.fromkeys(name for rows in table.values() for name in rows))
    lines = [
        "# DIP and the trained models",
        "",
        f"Mean over the pictures of {options.set}{where}: PSNR (dB), SSIM, seconds. Written by "
        "`benchmarks/backends.py`, which says how; the best of each noise is bold.",
        "",
        f"| | trained on | {' | '.join(table)} |",
        f"|{' --- |' * (len(table) + 2)}",
    ]
    for name in names:
        cells = []
        for rows in table.values():
            one = rows.get(name)
            if one is None:
                cells.append("")
                continue
            psnr = f"{one['psnr']:.2f}"
            best = one["psnr"] == max(row["psnr"] for row in rows.values())
            cells.append(f"{f'**{psnr}**' if best else psnr}, {one['ssim']:.3f}, {one['seconds']:.2f} s")
        of = domains[name]["trained on"] if name in domains else ("nothing" if name.startswith("dip") else "")
        lines.append(f"| {Path(name).stem if '/' in name else name} | {of} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
