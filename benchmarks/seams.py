"""Are there seams where tiles meet? The jump of the gradient across their borders, against that everywhere else.

    python benchmarks/seams.py --data DATA --model hourglass --model cnn5

A noisy picture (sigma 25) goes through a model in tiles of 32 x 32 pixels side by side, as in the reports on CIFAR-10
models that were troubled by a grid; in the overlapping tiles of `dip.trained`; and as a whole. The jump at a line
between two pixels is the mean of abs(x[i - 1] - 3 x[i] + 3 x[i + 1] - x[i + 2]): how much the gradient there differs
from those on either side. It is compared between the lines where tiles meet and all others.

A tile's border is a few lines, where the picture's content may have more or fewer edges than elsewhere. So the picture
is cut off at the top and left by 0, 1, 2, ... pixels, as many as the tiles' step, so that each line of its middle is a
border once: then borders and other lines have the same content. And a model that reduces and enlarges has a grid of its
own, with or without tiles; so lines are compared that are at the same place in it, those at multiples of its stride.
"""

from __future__ import annotations

import argparse
from pathlib import Path
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
    """Return the jumps of one model's three results, and draw two of them."""
    layout = dip.images.describe(noisy)
    x = dip.images.to_tensor(noisy, layout).to(one.device)
    if x.shape[1] != one.channels:
        x = x[:, :1]
    least = 2 * tiles.plan(one.model).overlap + one.model.reach.stride
    cut = tiles.plan(one.model, max(options.tile, *one.model.padded_size(least, least)))
    step = (cut.tile - cut.overlap) // one.model.reach.stride * one.model.reach.stride
    first = step + MARGIN  # of the lines that are compared; the borders of the picture itself are no seams
    apart, tiled, whole, whole_apart = (Lines(first) for _ in range(4))
    furthest, shown, stride = 0.0, [], one.model.reach.stride
    with torch.inference_mode():
        for offset in range(step):
            part = x[..., offset:, offset:]
            as_whole, in_tiles = one.restore(part, None), one.restore(part, cut)
            furthest = max(furthest, float((in_tiles - as_whole).abs().max()))
            tiled.add(in_tiles, step, offset, stride)
            whole.add(as_whole, step, offset, stride)
            if offset < SIDE:
                alone = pieces(one, part)
                apart.add(alone, SIDE, offset, stride)
                whole_apart.add(as_whole, SIDE, offset, stride)
                shown = shown or [alone, in_tiles]
    draw(shown, one.name, options.pictures)
    return {
        "tiles of 32 apart": apart.jumps(),
        "the whole at the borders of 32 x 32": whole_apart.jumps(),
        "overlapping tiles": tiled.jumps(),
        "the whole at the borders of the overlapping tiles": whole.jumps(),
        "largest_difference_of_tiles_and_whole": furthest,
        "within_1_percent": bool(abs(tiled.jumps()["ratio"] - 1) <= 0.01),
        "tile": cut.tile,
        "overlap": cut.overlap,
        "placements": step,
        "tile_of_32_padded_to": one.model.padded_size(SIDE, SIDE)[0],
    }


def pieces(one: trained.Denoiser, x: torch.Tensor) -> torch.Tensor:
    """Return what a model makes of tiles of 32 x 32 by themselves, put together."""
    rows = [torch.cat([one.restore(piece, None) for piece in row.split(SIDE, 3)], 3) for row in x.split(SIDE, 2)]
    return torch.cat(rows, 2)


class Lines:
    """The jumps at the lines of a picture between pixels, from `first` on, summed over placements of the tiles."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.at: list[float] = []
        self.off: list[float] = []

    def add(self, x: torch.Tensor, step: int, offset: int = 0, stride: int = 1) -> None:
        """Add a result (N, C, H, W) whose tiles begin `offset` pixels into the picture and meet at each `step`.

        Of the lines, those at multiples of `stride` count, as tiles begin.
        """
        for picture in (x, x.transpose(2, 3)):
            third = (picture[..., :-3] - 3 * picture[..., 1:-2] + 3 * picture[..., 2:-1] - picture[..., 3:]).abs()
            line = torch.arange(third.shape[-1]) + 2 + offset  # the line between x[i + 1] and x[i + 2]
            there = (line >= self.first) & (line <= picture.shape[-1] + offset - MARGIN)
            there &= (line - offset) % stride == 0
            across = slice(max(0, self.first - offset), picture.shape[-2] - MARGIN)
            by_line = third[..., across, :].double().mean(dim=(0, 1, 2)).cpu()
            border = (line - offset) % step == 0
            self.at += by_line[there & border].tolist()
            self.off += by_line[there & ~border].tolist()

    def jumps(self) -> dict[str, float]:
        """Return the mean jump where tiles meet, elsewhere, and their ratio."""
        at, off = float(np.mean(self.at)), float(np.mean(self.off))
        return {"at_borders": at, "elsewhere": off, "ratio": at / off}


def draw(results: list[torch.Tensor], name: str, folder: Path) -> None:
    """Draw tiles apart beside overlapping ones: the top left of them, three times as large."""
    crop = np.s_[: 4 * SIDE, : 4 * SIDE]
    shown = [dip.images.from_tensor(x, layout_of(x))[crop].repeat(3, axis=0).repeat(3, axis=1) for x in results]
    folder.mkdir(parents=True, exist_ok=True)
    picture = side_by_side(shown, ["tiles of 32 apart", "overlapping tiles"])
    dip.files.write(folder / f"seams-{name}.png", picture, force=True)


def layout_of(x: torch.Tensor) -> dip.images.Layout:
    """Return the layout of a float picture with the channels of x."""
    shape = (x.shape[2], x.shape[3], 3) if x.shape[1] == 3 else (x.shape[2], x.shape[3])
    return dip.images.describe(np.zeros(shape, np.float32))


if __name__ == "__main__":
    main()
