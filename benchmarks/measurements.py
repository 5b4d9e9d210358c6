"""Reconstruction from few measurements, MRI and CT: PSNR against seconds of the presets, beside the usual inversions.

    python benchmarks/measurements.py --data DATA --pictures set11/Cameraman256 set11/house

The middle --size pixels in gray. MRI: a quarter of the columns of k-space, those of the lowest frequencies (6 %) and
others at random; the image is real. The noise is of --sigma, where white is 255, in real and imaginary part of the
orthonormal transform. CT: --views views of parallel rays, by scikit-image's `radon`, of the circle that fits into the
picture, with noise of --noise times the largest value. PSNR is of what is returned.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import RESULTS, Report, parse
from skimage.transform import iradon, radon
from time_to_quality import add_pictures, gray

import dip

EVERY = 100


def mri(clean: np.ndarray, options: argparse.Namespace) -> tuple[dip.Reconstruct, dict[str, np.ndarray]]:
    """Return the task, and what the zero-filled transform gives."""
    rng = np.random.default_rng(options.seed)
    size = clean.shape[1]
    near = np.abs(np.arange(size) - size // 2) < round(0.03 * size)
    known = near | (rng.random(size) < (0.25 - near.mean()) / (1 - near.mean()))
    operator = dip.operators.Fourier(known)
    space = operator(torch.from_numpy(clean)[None, None]).numpy()
    noise = rng.normal(0, options.sigma / 255, (2, *space.shape))
    space = ((space + noise[0] + 1j * noise[1]) * known).astype(np.complex64)
    filled = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(space), norm="ortho")).real
    return dip.Reconstruct(space, operator, clean.shape), {"zero-filled": filled}


def ct(clean: np.ndarray, options: argparse.Namespace) -> tuple[dip.Reconstruct, dict[str, np.ndarray]]:
    """Return the task, and the filtered back-projections; what is outside of the circle becomes 0."""
    size = clean.shape[0]
    rows, columns = np.ogrid[:size, :size]
    clean *= np.hypot(rows - size // 2, columns - size // 2) < size // 2
    angles = np.linspace(0, 180, options.views, endpoint=False)
    exact = radon(clean, angles)
    noise = np.random.default_rng(options.seed).normal(0, options.noise * exact.max(), exact.shape)
    sinogram = (exact + noise).astype(np.float32)
    found = {
        f"filtered back-projection, {name}": iradon(sinogram, angles, filter_name=name) for name in ("ramp", "hann")
    }
    return dip.Reconstruct(sinogram, dip.operators.Radon(angles), clean.shape), found


KINDS: dict[str, Callable[..., tuple[dip.Reconstruct, dict[str, np.ndarray]]]] = {"mri": mri, "ct": ct}


def follow(name: str, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the PSNR of each way; of fits on their course, with the seconds."""
    clean = gray(name, options)
    task, others = KINDS[kind](clean, options)
    found: dict[str, Any] = {
        way: round(dip.metrics.psnr(image.clip(0, 1).astype(np.float32), clean), 2) for way, image in others.items()
    }
    for preset in options.presets:
        fit = dip.Fit(task, preset=preset, seed=options.seed, device=options.device, progress=False)
        course: dict[str, list[float]] = {"iteration": [], "psnr": [], "seconds": []}
        started = time.perf_counter()
        for _ in range(options.iters // EVERY if options.iters else fit.settings.iters // EVERY):
            fit.run(EVERY)
            course["iteration"].append(fit.iteration)
            course["psnr"].append(round(dip.metrics.psnr(fit.image, clean), 2))
            course["seconds"].append(round(time.perf_counter() - started, 1))
        found[preset] = course
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run every kind on every picture, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_pictures(parser, "set11/house")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--presets", nargs="+", default=["fast", "paper"])
    parser.add_argument("--iters", type=int, help="by default the preset's")
    parser.add_argument("--sigma", type=float, default=2, help="noise of MRI, where white is 255")
    parser.add_argument("--views", type=int, default=60, help="of CT")
    parser.add_argument("--noise", type=float, default=0.005, help="of CT, as a share of the largest value")
    parser.add_argument("--out", type=Path, default=RESULTS / "measurements.json")
    options = parse(parser, arguments)
    names = ("size", "seed", "iters", "sigma", "views", "noise")
    report = Report(options.out, **{name: getattr(options, name) for name in names})
    for name in options.pictures:
        for kind in options.kinds:
            print(name, kind, report.part(f"{name}, {kind}", partial(follow, name, kind, options)), flush=True)


if __name__ == "__main__":
    main()
