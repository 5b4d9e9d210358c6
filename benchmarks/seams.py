"""Are there seams where tiles meet? The jump of the gradient across their borders, against that everywhere else.

    python benchmarks/seams.py --data DATA --model hourglass --model cnn5

A noisy picture (sigma 25) goes through a model in tiles of 32 x 32 pixels side by side, as in the reports on CIFAR-10
models that were troubled by a grid; in the overlapping tiles of `dip.trained`; and as a whole. The jump at a line
between two pixels is the mean of abs(x[i - 1] - 3 x[i] + 3 x[i + 1] - x[i + 2]): how much the gradient there differs
from those on either side. It is compared between the lines where tiles meet (each multiple of the tiles' step) and all
others.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import records
import torch

import dip
from dip import trained
from dip.plot import side_by_side
from dip.trained import tiles

SIDE = 32
MARGIN = 8


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the report and the picture."""
    parser = records.parser(__doc__, "seams")
    parser.add_argument("--model", action="append", help="name or file; all models of the package by default")
    parser.add_argument("--picture", default="set9/f16")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--tile", type=int, default=128, help="of the overlapping tiles; more where a model needs it")
    options = records.parse(parser, arguments)
    report = records.Report(
        options.out, picture=options.picture, size=options.size, tile=options.tile, sigma=25, seed=0
    )
    source = dip.files.read(options.data / f"{options.picture}.png").pixels
    clean = source[: options.size, : options.size]
    noisy = dip.degradations.gaussian(clean / 255, 25, seed=0).astype(np.float32)
    for name in options.model or trained.models():
        one = trained.load(name, device=options.device)
        report.part(str(name), lambda one=one: measure(one, noisy, clean, options))
    print(report.parts, flush=True)


def measure(one: trained.Denoiser, noisy: np.ndarray, clean: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """Return the jumps of one model's three results, and draw them."""
    layout = dip.images.describe(noisy)
    x = dip.images.to_tensor(noisy, layout).to(one.device)
    if x.shape[1] != one.channels:
        x = x[:, :1]
    least = 2 * tiles.plan(one.model).overlap + one.model.reach.stride
    cut = tiles.plan(one.model, max(options.tile, *one.model.padded_size(least, least)))
    with torch.inference_mode():
        side = one.model.padded_size(SIDE, SIDE)[0]
        apart = torch.cat(
            [torch.cat([part(one, piece) for piece in row.split(SIDE, 3)], 3) for row in x.split(SIDE, 2)], 2
        )
        tiled, whole = one.restore(x, cut), one.restore(x, None)
    step = (cut.tile - cut.overlap) // one.model.reach.stride * one.model.reach.stride
    found: dict[str, Any] = {
        "apart": jumps(apart, SIDE, MARGIN),
        "overlapping": jumps(tiled, step, MARGIN),
        "whole, at the borders of 32 x 32": jumps(whole, SIDE, MARGIN),
        "whole, at the borders of the overlapping tiles": jumps(whole, step, MARGIN),
        "largest_difference_of_tiles_and_whole": float((tiled - whole).abs().max()),
        "tile": cut.tile,
        "overlap": cut.overlap,
        "tile_of_32_padded_to": side,
    }
    ratio = found["overlapping"]["ratio"] / found["whole, at the borders of the overlapping tiles"]["ratio"]
    found["within_1_percent"] = bool(abs(ratio - 1) <= 0.01)
    shown = [dip.images.from_tensor(result, layout_of(result)) for result in (apart, tiled)]
    crop = np.s_[: 4 * SIDE, : 4 * SIDE]
    picture = side_by_side([enlarged(each[crop]) for each in shown], ["tiles of 32 apart", "overlapping tiles"])
    options.pictures.mkdir(parents=True, exist_ok=True)
    dip.files.write(options.pictures / f"seams-{one.name}.png", picture, force=True)
    return found


def layout_of(x: torch.Tensor) -> dip.images.Layout:
    """Return the layout of a float picture with the channels of x."""
    shape = (x.shape[2], x.shape[3], 3) if x.shape[1] == 3 else (x.shape[2], x.shape[3])
    return dip.images.describe(np.zeros(shape, np.float32))


def enlarged(picture: np.ndarray) -> np.ndarray:
    """Return a picture three times as large, each pixel repeated."""
    return picture.repeat(3, axis=0).repeat(3, axis=1)


def part(one: trained.Denoiser, piece: torch.Tensor) -> torch.Tensor:
    """Return what the model makes of one tile by itself."""
    return one.restore(piece, None)


def jumps(x: torch.Tensor, step: int, margin: int = 0) -> dict[str, float]:
    """Return the mean jump of the gradient at multiples of `step`, elsewhere, and their ratio, over both axes.

    Lines nearer than `margin` to the picture's own border are left out: the padding shows there.
    """
    at, off = [], []
    for picture in (x, x.transpose(2, 3)):
        third = (picture[..., :-3] - 3 * picture[..., 1:-2] + 3 * picture[..., 2:-1] - picture[..., 3:]).abs()
        by_line = third.double().mean(dim=(0, 1, 2)).cpu()
        line = torch.arange(len(by_line)) + 2  # the line between x[i + 1] and x[i + 2]
        inside = (line >= margin) & (line <= picture.shape[-1] - margin)
        at += by_line[inside & (line % step == 0)].tolist()
        off += by_line[inside & (line % step != 0)].tolist()
    borders, elsewhere = float(np.mean(at)) if at else 0.0, float(np.mean(off))
    return {"at_borders": borders, "elsewhere": elsewhere, "ratio": borders / elsewhere if at and elsewhere else 1.0}


if __name__ == "__main__":
    main()
