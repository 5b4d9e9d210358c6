"""How many pixels a second do many small pictures get when several are fitted at a time, and one after the other?

    python benchmarks/many.py --sizes 64 128 256 --count 8

--count pictures of each size, with the preset "fast" and --iters iterations each: one after the other with all threads;
several at a time (`dip.run_all`); on a CPU also in as many processes as it has cores (what --workers does); and beside
them one picture of about as many pixels, which keeps the device busy by itself. They take turns for --rounds rounds,
after one of a few iterations that is not counted. What is counted is pixels times iterations, over the seconds from the
first fit's making to the last one's end; the processes are there already. The report has how far the pictures are from
those of single fits: on a CPU, with as many threads, they are the same.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import wait

import dip
from dip import batch, datasets, several


def pictures(size: int, count: int) -> list[np.ndarray]:
    """Return so many noisy pieces of the bundled photographs."""
    photographs = [entry.read() for entry in datasets.pictures("photographs")]
    coloured = [photo for photo in photographs if photo.ndim == 3 and min(photo.shape[:2]) >= size]
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        photo = coloured[number % len(coloured)]
        top, left = (rng.integers(0, side - size + 1) for side in photo.shape[:2])
        piece = photo[top : top + size, left : left + size]
        found.append(dip.degradations.gaussian(piece, 25, clip=True, seed=number))
    return found


def made(noisy: np.ndarray, device: str) -> dip.Fit:
    """Return the fit of one of them."""
    return dip.Fit(dip.Denoise(noisy), preset="fast", device=device, progress=False)


def in_turn(noisy: list[np.ndarray], options: argparse.Namespace) -> list[np.ndarray]:
    """Fit one after the other."""
    return [alone(one, options.iters, options.device) for one in noisy]


def alone(noisy: np.ndarray, iters: int, device: str) -> np.ndarray:
    """Fit one; also in a worker process."""
    return np.asarray(made(noisy, device).run(iters).image)


def at_once(noisy: list[np.ndarray], options: argparse.Namespace) -> list[np.ndarray]:
    """Fit several at a time."""
    fits = (made(one, options.device) for one in noisy)
    return [np.asarray(fit.image) for fit in dip.run_all(fits, options.iters, at_once=options.at_once)]


class Workers:
    """Processes that wait for pictures."""

    def __init__(self, count: int) -> None:
        self._place = batch.Processes(count)
        self.name, self.threads = f"{count} processes", self._place.threads
        # one quick fit for each: they import PyTorch, and make their kernels
        self._all([(np.zeros((32, 32), np.float32), 3, "cpu")] * (2 * count))

    def __call__(self, noisy: list[np.ndarray], options: argparse.Namespace) -> list[np.ndarray]:
        return self._all([(one, options.iters, "cpu") for one in noisy])

    def _all(self, given: list[tuple[Any, ...]]) -> list[np.ndarray]:
        futures: list[Future[Any]] = [self._place.submit(alone, arguments) for arguments in given]
        return [future.result()[0] for future in futures]

    def close(self) -> None:
        """End them."""
        self._place.close()


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--at-once", type=int, help="default: as dip.run_all takes it")
    parser.add_argument("--iters", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "many.json")
    options = parser.parse_args(arguments)
    device = dip.devices.resolve(options.device)
    options.device = str(device)
    ways: dict[str, Callable[[list[np.ndarray], argparse.Namespace], list[np.ndarray]]]
    ways = {"one after the other": in_turn, "dip.run_all": at_once}
    cores = dip.devices.cores()
    workers = Workers(cores) if device.type == "cpu" and cores > 1 else None
    if workers is not None:
        ways[workers.name] = workers
    report: dict[str, Any] = {
        "experiment": f"{options.count} pictures with the preset fast, {options.iters} iterations: pixels a second",
        "device": str(device),
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
        "sizes": {},
    }
    try:
        for size in options.sizes:
            report["sizes"][size] = found = measured(size, ways, options)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=1) + "\n")
            print(size, json.dumps(found), flush=True)
    finally:
        if workers is not None:
            workers.close()


def measured(size: int, ways: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the pixels a second of each way, and what they are against one after the other and one large picture."""
    noisy = pictures(size, options.count)
    # of as many pixels, in whole steps of the network
    side = max(32, round(size * math.sqrt(options.count) / 32) * 32)
    times = -(-side // size)
    large = np.tile(noisy[0], (times, times, 1))[:side, :side]
    pixels = {**dict.fromkeys(ways, options.count * size**2), "one large picture": side**2}
    every: dict[str, Any] = {**ways, "one large picture": lambda _, given: in_turn([large], given)}
    seconds: dict[str, list[float]] = {name: [] for name in every}
    restored = {}
    few = argparse.Namespace(**{**vars(options), "iters": 3})
    for number in range(options.rounds + 1):
        for name in list(every)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            restored[name] = every[name](noisy, options if number else few)
            wait(torch.device(options.device))
            if number:
                seconds[name].append(time.perf_counter() - started)
    rates = {name: [pixels[name] * options.iters / one for one in taken] for name, taken in seconds.items()}
    middle = {name: statistics.median(rate) for name, rate in rates.items()}
    running = several.how_many(made(noisy[0], options.device), options.at_once, options.count)
    threads = {name: getattr(way, "threads", several.threads(running)) for name, way in list(ways.items())[1:]}
    single = {count: _single(noisy, options, count) for count in set(threads.values())}
    return {
        "side of the large picture": side,
        "at once": running,
        "megapixels a second": {name: [round(one / 1e6, 4) for one in rate] for name, rate in rates.items()},
        "against one after the other": {name: round(middle[name] / middle["one after the other"], 3) for name in every},
        "against one large picture": {name: round(middle[name] / middle["one large picture"], 3) for name in every},
        "furthest from single fits": {name: _apart(restored[name], single[count]) for name, count in threads.items()},
    }


def _single(noisy: list[np.ndarray], options: argparse.Namespace, threads: int) -> list[np.ndarray]:
    """Fit one after the other, with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found = in_turn(noisy, options)
    torch.set_num_threads(before)
    return found


def _apart(found: list[np.ndarray], single: list[np.ndarray]) -> float:
    """Return by how much a value differs at most."""
    return max(float(np.abs(a.astype(float) - b).max()) for a, b in zip(found, single, strict=True))


if __name__ == "__main__":
    main()
