"""How often the picture that super-resolution returns is corrected, where the small picture has flaws: PSNR.

    python benchmarks/corrections.py --data DATA --pictures set9/f16 set5/woman

The middle --size pixels are reduced by --factor, the flaw is put in, and one fit of the preset "fast" is followed by 0,
1, 2, 5 and 10 steps of iterative back-projection (`dip.operators.Downsample.consistent`). Noise is clipped; the JPEG
has 8 bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from records import RESULTS, Report, parse
from time_to_quality import add_pictures, as_tensor, cropped
from torch import Tensor

import dip

STEPS = (0, 1, 2, 5, 10)


def noisy(small: Tensor, sigma: float) -> Tensor:
    """Return a small picture with noise of a standard deviation on the scale of 0 to 255."""
    noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(0))
    return (small + noise * sigma / 255).clamp(0, 1)


FLAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "no flaws": lambda small: small.clamp(0, 1),
    "noise of sigma 2": partial(noisy, sigma=2),
    "noise of sigma 5": partial(noisy, sigma=5),
    "a JPEG of quality 85": partial(dip.degradations.jpeg, quality=85),
}


def main(arguments: list[str] | None = None) -> None:
    """Fit, correct, and write the report after each fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_pictures(parser, "set9/f16")
    parser.add_argument("--factor", type=int, default=4)
    parser.add_argument("--iters", type=int, help="by default the preset's")
    parser.add_argument("--out", type=Path, default=RESULTS / "corrections.json")
    options = parse(parser, arguments)
    protocol = {"size": options.size, "factor": options.factor, "iters": options.iters, "seed": options.seed}
    report = Report(options.out, **protocol)
    for name in options.pictures:
        for flaw in FLAWS:
            print(name, flaw, report.part(f"{name}, {flaw}", partial(steps, name, flaw, options)), flush=True)


def steps(name: str, flaw: str, options: argparse.Namespace) -> dict[str, float]:
    """Return the PSNR in dB after so many steps."""
    clean = as_tensor(cropped(name, options), torch.device("cpu"))[None]
    small = FLAWS[flaw](dip.operators.Downsample(options.factor)(clean))
    given = {"preset": "fast", "consistent": False, "seed": options.seed, "device": options.device, "progress": False}
    fit = dip.fit(dip.SuperResolve(small, options.factor), iters=options.iters, **given)
    found = {}
    for times in STEPS:
        picture = fit.picture if times == 0 else fit.task.consistent(fit.picture, fit.y, times=times)
        found[str(times)] = round(dip.metrics.psnr(picture.clamp(0, 1).cpu(), clean), 2)
    return found


if __name__ == "__main__":
    main()
