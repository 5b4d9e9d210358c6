"""What a fit loses of a picture that is darker than its white, or flatter, and what its contrast stretched gives back.

    python benchmarks/dark.py --pictures camera astronaut

The middle --size pixels of photographs that scikit-image carries, as they are, and with a quarter and a sixteenth of
their contrast, from black and from the middle of the range. Each is denoised (sigma 25 of 255), filled in (half
missing), deblurred (a Gaussian of 1.6 pixels, then sigma 2) and enlarged (4 times, without noise), its noise as much
weaker as it is, by --preset: as it is, and, where it has less contrast, stretched, as a fit sees it (`dip.stretch`).
PSNR in dB of the result with its contrast brought back.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from paper import crop
from records import RESULTS, Report
from time_to_quality import as_tensor

import dip
from dip.operators import Blur, Downsample, gaussian_psf

PSF = gaussian_psf(1.6)
PLACES = ((1, 0.0), (4, 0.0), (16, 0.0), (16, 0.4))  # the contrast is divided by the one, and the other is added


def middle(name: str, size: int) -> np.ndarray:
    """Return the middle pixels of a photograph, gray or RGB, in [0, 1]."""
    return crop((getattr(skimage.data, name)() / 255).astype(np.float32), size)


def applied(operator: torch.nn.Module, picture: np.ndarray) -> np.ndarray:
    """Return A of a picture."""
    x = as_tensor(np.atleast_3d(picture), torch.device("cpu"))[None]
    return operator(x)[0].numpy().transpose(1, 2, 0).reshape(-1, *picture.shape[2:])


def noise(shape: tuple[int, ...], sigma: float, seed: int) -> np.ndarray:
    """Return normal noise of a standard deviation on the scale of 0 to 255."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(sigma / 255)


def observed(clean: np.ndarray, seed: int) -> dict[str, tuple[np.ndarray, Callable[[np.ndarray], Any]]]:
    """Return what is observed for each task, and the task of it."""
    shape, channels = clean.shape[:2], clean.shape[2:]
    known = dip.degradations.random_mask(shape, 0.5, seed=seed)
    blurred = applied(Blur(PSF), clean).reshape(clean.shape)
    small = applied(Downsample(4), clean).reshape(shape[0] // 4, shape[1] // 4, *channels)
    return {
        "denoise": (clean + noise(clean.shape, 25, seed), partial(dip.Denoise, data_range=1.0)),
        "inpaint": (clean, lambda y: dip.Inpaint(y, known, data_range=1.0)),
        "deblur": (blurred + noise(clean.shape, 2, seed), lambda y: dip.Deblur(y, PSF, data_range=1.0)),
        "super_resolve": (small, lambda y: dip.SuperResolve(y, 4, data_range=1.0)),
    }


def as_it_is(task: Any) -> Any:
    """Return a task of which no fit sees more than there is."""
    kind = type(task)
    task.__class__ = type(kind.__name__, (kind,), {"stretches": property(lambda _: False, lambda _, value: None)})
    return task


def measured(clean: np.ndarray, times: int, above: float, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the PSNR of each task, as it is and stretched."""
    found: dict[str, dict[str, float]] = {}
    given = {"preset": options.preset, "iters": options.iters, "seed": options.seed, "progress": False}
    for name, (y, task) in observed(clean, options.seed).items():
        dark, found[name] = y / np.float32(times) + np.float32(above), {}
        for how, changed in (("as it is", as_it_is), ("stretched", lambda task: task))[: min(times, 2)]:
            made = dip.fit(changed(task(dark)), **given).image
            brought_back = (made.astype(np.float64) - above) * times
            found[name][how] = round(dip.metrics.psnr(brought_back, clean.astype(np.float64)), 2)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Restore all, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", nargs="+", default=["camera", "astronaut"])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--iters", type=int, help="by default the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "dark.json")
    options = parser.parse_args(arguments)
    protocol = {"size": options.size, "preset": options.preset, "iters": options.iters, "seed": options.seed}
    report = Report(options.out, **protocol)
    for name in options.pictures:
        clean = middle(name, options.size)
        for times, above in PLACES:
            part = f"{name}, 1/{times}, from {above:g}"
            print(part, report.part(part, partial(measured, clean, times, above, options)), flush=True)


if __name__ == "__main__":
    main()
