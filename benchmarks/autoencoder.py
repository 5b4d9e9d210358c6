"""The convolutional autoencoder on MNIST with binary cross-entropy: its loss on clean pictures, and from noisy to
clean.

    python benchmarks/autoencoder.py --data DATA

Batch 128, Adam, 100 epochs. The report has the loss on clean pictures (reported: around 0.087), the curves of clean to
clean and of noisy to clean (sigma 127.5, clipped), and a picture with digits, their codes (8 planes of 4 x 4), and what
the decoder makes of them.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import records
from noise2noise import finite
from train_models import AUTOENCODER, pictures

import dip
from dip import trained
from dip.trained import curves

NOISES = {
    "clean to clean": {"noise": "none", "lr": 2e-2, "warmup": 0.02, "seed": 0},
    "noisy to clean": {"noise": "gaussian:127.5", "clip": True},
}
BAR = 0.0875


def main(arguments: list[str] | None = None) -> None:
    """Train both, and write the report and the pictures."""
    parser = records.parser(__doc__, "autoencoder")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--limit", type=int, help="pictures")
    parser.add_argument("--digits", type=int, default=10, help="shown with their codes")
    options = records.parse(parser, arguments)
    report = records.Report(options.out, limit=options.limit, epochs=options.epochs, recipes={**AUTOENCODER, **NOISES})
    for name in NOISES:
        report.part(name, lambda name=name: follow(name, options))
    losses = report.parts["clean to clean"]["history"]["train_loss"]
    report.set(bar={"clean_training_loss": losses[-1], "at_most": BAR, "reached": losses[-1] <= BAR})
    options.pictures.mkdir(parents=True, exist_ok=True)
    histories = {name: report.parts[name]["history"] for name in NOISES}
    title = "autoencoder on MNIST, binary cross-entropy"
    (options.pictures / "autoencoder-curves.png").write_bytes(curves.draw(histories, title=title))
    digits = pictures("mnist", options, train=False)[: options.digits]
    for name in NOISES:
        one = trained.load(folder(name, options) / "weights.safetensors", device=options.device)
        draw(one, digits, name, options)


def folder(name: str, options: argparse.Namespace) -> Any:
    """Return the folder of a run."""
    return options.runs / name.replace(" ", "-")


def follow(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one, unless it is there, and return its metrics."""
    about = {"data": {"kind": "mnist", "limit": options.limit}}
    recipe = {**AUTOENCODER, "epochs": options.epochs, **NOISES[name]}
    data = pictures("mnist", options)
    metrics = records.train_once("autoencoder", data, folder(name, options), options.device, about=about, **recipe)
    found: dict[str, Any] = finite({key: metrics[key] for key in ("recipe", "figures", "history", "seconds", "device")})
    return found


def draw(one: trained.Denoiser, digits: np.ndarray, name: str, options: argparse.Namespace) -> None:
    """Draw digits, what the model is given, its codes, and its output, one column a digit."""
    from matplotlib.figure import Figure

    noise = NOISES[name]
    given = [
        digit if noise["noise"] == "none" else dip.degradations.gaussian(digit, 127.5, seed=i)
        for i, digit in enumerate(digits)
    ]
    rows = {
        "digit": list(digits),
        "given": given,
        "code": [np.vstack(one.encode(each)) for each in given],  # eight planes, one below the other
        "output": [one(each) for each in given],
    }
    figure = Figure(figsize=(len(digits), 7), layout="constrained")
    axes = figure.subplots(len(rows), len(digits), height_ratios=[1, 1, 4, 1], squeeze=False)
    for line, (label, shown) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label)
        for axis, picture in zip(line, shown, strict=True):
            axis.imshow(picture, cmap="gray", aspect="equal")
            axis.set_xticks([])
            axis.set_yticks([])
    figure.suptitle(f"autoencoder, {name}")
    records.save(figure, options.pictures / f"autoencoder-{name.replace(' ', '-')}.png")


if __name__ == "__main__":
    main()
