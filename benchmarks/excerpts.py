"""Missing pixels of large pictures: what it costs to learn from a part of the picture, as "fast" does above 1024 x 512.

    python benchmarks/excerpts.py --data ../data --pictures set9/kodim01 set9/kodim03 --size 512

The middle --size pixels of photographs, in gray, of which half are missing at random, by the preset "fast" with each
`tile` of --tiles: the side of the part; the last one is to be the whole. OUT has the PSNR of the missing pixels, that
of the filter which is corrected, and the seconds of the filters and of the iterations.
"""

from __future__ import annotations

import argparse
import itertools
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from paper import psnr_at
from records import RESULTS, Report
from time_to_quality import add_pictures, gray, now

import dip


def restored(name: str, tile: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a fit comes to."""
    clean = gray(name, options)
    there = dip.degradations.random_mask(clean.shape, 0.5, seed=options.seed)
    started = time.perf_counter()
    task = dip.Inpaint(np.where(there, clean, 0).astype(np.float32), there)
    fit = dip.Fit(task, preset="fast", tile=tile, seed=options.seed, device=options.device, progress=False)
    filters = time.perf_counter() - started
    first = (fit.settings.frame.crop(fit.code[-1, :-1]) + 0.5)[0].numpy(force=True)  # of all known pixels
    return {
        "filter": round(psnr_at(first, clean, ~there), 3),
        "psnr_missing": round(psnr_at(fit.run().image, clean, ~there), 3),
        "seconds_filters": round(filters, 1),
        "seconds_iterations": round(fit.seconds, 1),
        **now(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Restore every picture with every tile, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_pictures(parser, "set9/kodim01")
    parser.add_argument("--tiles", nargs="+", type=int, default=[256, 384, 512])
    parser.add_argument("--out", type=Path, default=RESULTS / "excerpts.json")
    options = parser.parse_args(arguments)
    report = Report(options.out, size=options.size, seed=options.seed)
    for picture, tile in itertools.product(options.pictures, options.tiles):
        found = report.part(f"{picture}, {tile}", partial(restored, picture, tile, options))
        print(picture, tile, found["filter"], found["psnr_missing"], flush=True)


if __name__ == "__main__":
    main()
