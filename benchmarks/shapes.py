"""Scratches, letters and holes: pixels that are not missing at random, by the preset "fast" and what it begins with.

    python benchmarks/shapes.py

The middle --size pixels of photographs that scikit-image carries, in gray, of which are missing: "lines-2", twelve
straight lines of two pixels, "lines-4" and "lines-8", eight and five of four and eight; "letters", as of
examples/inpaint.py; "hole", a square of a quarter of the side in the middle. By the biharmonic equation; by the Wiener
filters in turns (`dip.guides.inpainted`); by the preset, which corrects that filter; and by the preset with all of the
correction, of which it keeps three quarters. The numbers of the lines and of a fit come from --seed. OUT has the PSNR
of the missing pixels.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import noises
import numpy as np
from records import RESULTS, Report
from time_to_quality import now

import dip
from dip.benchmark.methods import find
from dip.benchmark.tasks import Case

SHAPES = {"lines-2": 12, "lines-4": 8, "lines-8": 5, "letters": None, "hole": None}
CODES = {"fast": dip.codes.HeldOut(), "fast, all of the correction": dip.codes.HeldOut(kept=1.0)}
CLASSICAL = {"biharmonic": "biharmonic", "filter": "iterated-wiener"}  # as the benchmark of the library names them
METHODS = (*CLASSICAL, *CODES)


def known(shape: str, size: int, seed: int) -> np.ndarray:
    """Return which pixels are known, (size, size), bool."""
    if shape == "letters":
        return dip.degradations.text_mask((size, size), size=24)
    there = np.ones((size, size), bool)
    if shape == "hole":
        there[size * 3 // 8 : size * 5 // 8, size * 3 // 8 : size * 5 // 8] = False
        return there
    draw, width = np.random.default_rng(seed), int(shape.removeprefix("lines-"))
    rows, columns = np.mgrid[:size, :size] - size / 2
    for _ in range(SHAPES[shape]):
        angle, away = draw.uniform(0, np.pi), draw.uniform(-0.3, 0.3) * size
        there &= np.abs(rows * np.cos(angle) + columns * np.sin(angle) - away) > width / 2
    return there


def restored(name: str, shape: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a method comes to."""
    clean, there = noises.photograph(name, options.size), known(shape, options.size, options.seed)
    y = np.where(there, clean, 0).astype(np.float32)
    if method in CLASSICAL:
        made = find(CLASSICAL[method]).function(Case(y=y, clean=clean, problem=lambda case: case, mask=there))
    else:
        given = {"preset": "fast", "seed": options.seed, "device": options.device, "progress": False}
        made = dip.fit(dip.Inpaint(y, there), code=CODES[method], **given).image
    psnr = round(dip.metrics.psnr(made[~there][None].astype(np.float32), clean[~there][None]), 3)
    return {"psnr_missing": psnr, "missing": round(float((~there).mean()), 4), **now()}


def main(arguments: list[str] | None = None) -> None:
    """Restore every picture by every method, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--pictures", nargs="+", default=["camera", "coins", "chelsea", "brick"], help="in skimage.data"
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS / "shapes.json")
    options = parser.parse_args(arguments)
    report = Report(options.out, size=options.size, seed=options.seed)
    for shape, picture, method in itertools.product(options.shapes, options.pictures, options.methods):
        name = f"{picture}, {shape}, {method}"
        found = report.part(name, partial(restored, picture, shape, method, options))
        print(name, found["psnr_missing"], flush=True)


if __name__ == "__main__":
    main()
