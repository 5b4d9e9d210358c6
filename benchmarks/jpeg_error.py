"""How far a JPEG is from the picture that was compressed, as `dip.operators.JPEG.error` tells it and as it is.

    python benchmarks/jpeg_error.py --data DATA

The middle --size pixels of each picture, at several qualities. OUT has both errors (root mean square, white = 1).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from records import parse
from time_to_quality import add_pictures, as_tensor, cropped, now

import dip

PICTURES = [f"set14/{name}" for name in ("baboon", "comic", "foreman", "monarch", "pepper", "zebra")]
QUALITIES = (5, 10, 20, 30, 50, 75, 90)


def main(arguments: list[str] | None = None) -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_pictures(parser, PICTURES[0])
    parser.set_defaults(pictures=PICTURES)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "jpeg-error.json")
    options = parse(parser, arguments)
    found: dict[str, dict[str, list[float]]] = {}
    for name in options.pictures:
        clean = cropped(name, options)
        for quality in QUALITIES:
            y = as_tensor(dip.degradations.jpeg(clean, quality), torch.device("cpu"))[None]
            jpeg = dip.operators.JPEG(quality)
            told = jpeg.error(jpeg.stored(y.double()), y.shape[1])
            true = float((y - as_tensor(clean, y.device)).square().mean().sqrt())
            found.setdefault(name, {})[str(quality)] = [round(told, 5), round(true, 5)]
    ratios = np.array([[told / true for told, true in one.values()] for one in found.values()])
    spread = {"median": np.median(ratios), "least": ratios.min(), "most": ratios.max()}
    report = {
        "told and true": found,
        "ratio": {name: round(float(value), 3) for name, value in spread.items()},
        **now(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(report["ratio"])


if __name__ == "__main__":
    main()
