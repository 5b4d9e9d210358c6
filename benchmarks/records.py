"""What the benchmarks of trained models share: reports that are continued, pictures with noise, and the pictures of
docs."""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import dip
from dip import trained

HERE = Path(__file__).resolve().parent
RESULTS, IMAGES, RUNS = HERE / "results", HERE.parent / "docs" / "images", HERE.parent / "runs"


def parser(about: str, name: str, *, report: bool = True) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark of trained models takes."""
    found = argparse.ArgumentParser(description=about.splitlines()[0])
    found.add_argument("--data", type=Path, default=os.environ.get("DIP_DATA"), help="folder with the data sets")
    found.add_argument("--runs", type=Path, default=RUNS / name, help="folder of the trainings")
    found.add_argument("--device", default="auto")
    if report:
        found.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
        found.add_argument("--pictures", type=Path, default=IMAGES, help="folder of the plots")
    return found


def parse(found: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Return the options; the data must be there."""
    options = found.parse_args(arguments)
    if options.data is None:
        found.error("give --data FOLDER, or set DIP_DATA")
    return options


class Report:
    """A report that is written after each part; parts that it has already are not made again."""

    def __init__(self, path: Path, **protocol: Any) -> None:
        self.path = path
        self.parts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        wanted = json.loads(json.dumps(protocol))
        if self.parts.setdefault("protocol", wanted) != wanted:
            raise SystemExit(f"{path} was measured otherwise; give another --out, or move it away")

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a part, made now if the report does not have it."""
        if name not in self.parts:
            self.parts[name] = make()
            self.write()
        return self.parts[name]

    def set(self, **parts: Any) -> None:
        """Put parts in, in place of what there was."""
        self.parts |= parts
        self.write()

    def write(self) -> None:
        """Write the report with the machine and the date."""
        self.parts |= {"environment": dip.devices.environment(), "date": datetime.date.today().isoformat()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.parts, indent=1, allow_nan=False) + "\n")


def train_once(name: str, data: Any, folder: Path, device: str, **recipe: Any) -> dict[str, Any]:
    """Train a model unless its run is finished, going on where it was cut off; return its metrics."""
    metrics = folder / trained.outcome.METRICS
    if not metrics.exists():
        going_on = (folder / trained.outcome.CHECKPOINT).exists()
        done = trained.train(name, data, out=folder, resume=going_on, device=device, say=print, **recipe)
        if done.stop_reason == "interrupted":
            raise SystemExit("interrupted; repeat the command to go on")
    found: dict[str, Any] = json.loads(metrics.read_text())
    return found


def noisy_one(picture: np.ndarray, sigma: float, *, seed: int, clip: bool = False) -> np.ndarray:
    """Return a picture of 8 bits as float32 in [0, 1] with Gaussian noise."""
    return dip.degradations.gaussian((picture / 255).astype(np.float32), sigma, clip=clip, seed=seed)


def noisy(pictures: np.ndarray, sigma: float, seed: int) -> list[np.ndarray]:
    """Return pictures with Gaussian noise, unclipped; each has a seed of its own."""
    return [noisy_one(one, sigma, seed=seed + i) for i, one in enumerate(pictures)]


def mean_psnr(found: Sequence[np.ndarray], pictures: np.ndarray) -> float:
    """Return the mean of the PSNR of each picture against its original, in decibel."""
    values = [dip.metrics.psnr(one, clean) for one, clean in zip(found, pictures, strict=True)]
    return round(float(np.mean(values)), 3)


def save(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def _short(label: str) -> str:
    """Return a label that leaves room for the bars, such as that of a method which has a path in its name."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST // 2]}…{label[-_LONGEST // 2 :]}"


_LONGEST = 60


def chart(path: Path, title: str, groups: dict[str, dict[str, float | None]], label: str) -> None:
    """Draw horizontal bars: of each group its entries, with their values beside them."""
    from matplotlib.figure import Figure

    entries = [(_short(f"{group}: {name}"), value) for group, each in groups.items() for name, value in each.items()]
    figure = Figure(figsize=(8, 1.2 + 0.3 * len(entries)), layout="constrained")
    axis = figure.subplots()
    values = [value or 0.0 for _, value in entries]
    axis.barh([name for name, _ in entries], values)
    axis.invert_yaxis()
    for i, (_, value) in enumerate(entries):
        axis.text(values[i], i, f" {value:.2f}" if value is not None else " diverged", va="center", fontsize="small")
    low = min((value for value in values if value > 0), default=0.0)
    axis.set_xlim(max(0.0, low - 2), max(values, default=1.0) + 1.5)
    axis.set_xlabel(label)
    axis.set_title(title, fontsize="medium")
    save(figure, path)
