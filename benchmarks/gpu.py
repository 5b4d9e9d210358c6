"""What a minute on an NVIDIA GPU tells of the engine: times of an iteration, memory, and the kernels one by one.

    python benchmarks/gpu.py --reference CHECKOUT --profile profile.txt

All in one process, so that little of the time goes into starting others: the original code's iteration (CHECKOUT is a
clone of DmitryUlyanov/deep-image-prior; as `speed.py` has it), then runs of --iters iterations, recorded as in any
fit. Each time is that of --every iterations in a row, without waiting for the GPU in between; the report has the
median, and the most memory that PyTorch had in use, and had taken, beside what was foretold. A run that could not be
recorded is an error. Then 16 fits of 256 x 256 pixels at a time (`dip.run_all`), each by itself and merged, and one of
1024 x 1024, which has as many: the time of an iteration of all of them, from the moment at which all are recorded.
(--many measures nothing else; --lanes tries other numbers for `dip.merged.LANES`.) Then whole fits of a photograph,
with all that a preset does in its course (codes made anew, mirroring): seconds and PSNR.
At last the kernels of one iteration, by name.
--profile writes the kernels of one iteration of the paper's network at 512 x 512, with their beginnings and lengths in
microseconds: it is the map for whoever wants to make it faster.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import statistics
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from speed import noisy, original_step

import dip

RUNS: tuple[tuple[int, str, str], ...] = (
    (512, "bfloat16", "paper"),
    (512, "float32", "paper"),
    (256, "bfloat16", "paper"),
    (1024, "bfloat16", "paper"),
    (256, "bfloat16", "fast"),
    (512, "bfloat16", "fast"),
    (1024, "bfloat16", "fast"),
)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="checkout of DmitryUlyanov/deep-image-prior")
    parser.add_argument("--iters", type=int, default=200)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--many", action="store_true", help="measure several fits at a time only")
    parser.add_argument("--lanes", type=int, nargs="+", default=[dip.merged.LANES], help="of merged fits")
    parser.add_argument("--profile", type=Path, help="file for the kernels of an iteration")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("there is no NVIDIA GPU here; benchmarks/speed.py measures on a CPU")
    results = []
    if options.many:
        print(json.dumps([together(preset, options) for preset in ("fast", "paper")], indent=1))
        return
    if options.reference:
        for size in (256, 512):
            results.append(reference(size, options))
            print(json.dumps(results[-1]), flush=True)
    for size, precision, preset in RUNS:
        results.append(recorded(size, precision, preset, options))
        print(json.dumps(results[-1]), flush=True)
    many = [together(preset, options) for preset in ("fast", "paper")]
    print(json.dumps(many), flush=True)
    fits = [whole(preset, sigma) for preset, sigma in (("fast", 25), ("fast", 50), ("paper", 25))]
    fits += [whole("fast", 25, 300, engine) for engine in ("graph", "plain")]
    fits.append(enlarged())
    print(json.dumps(fits), flush=True)
    one, small = kernels(512), kernels(SMALL)
    report = {
        "experiment": "milliseconds an iteration and peak memory on a GPU, of runs recorded as CUDA graphs",
        "iterations": options.iters,
        "results": results,
        "many": many,
        "fits": fits,
        "kernels, 512 x 512, paper, bfloat16": by_name(one),
        f"kernels, {SMALL} x {SMALL}, paper, bfloat16": by_name(small),
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    if options.profile:
        lines = [f"{begun:9.1f} {long:8.1f}  {name}" for begun, long, name in one]
        options.profile.write_text("\n".join(lines) + "\n")


def reference(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time the original network in the original loop."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step = original_step(options.reference, size, 128, torch.device("cuda"))
    times = []
    for number in range(4):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(options.every):
            step()
        torch.cuda.synchronize()
        if number:
            times.append(1e3 * (time.perf_counter() - started) / options.every)
    peak = torch.cuda.max_memory_allocated() - before
    return {"name": "reference", "precision": "float32", "size": size, **spread(times), "peak_bytes": peak}


def recorded(size: int, precision: str, preset: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time a run."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, times = torch.cuda.memory_allocated(), []

    def look(fit: dip.Fit) -> None:
        torch.cuda.synchronize()
        times.append(time.perf_counter())

    fit = new_fit(size, precision, preset, dip.callbacks.Every(options.every, look))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit.run(options.iters)
    taken = [1e3 * (end - start) / options.every for start, end in itertools.pairwise(times[1:])]
    return {
        "name": preset,
        "precision": precision,
        "size": size,
        **spread(taken),
        "peak_bytes": torch.cuda.max_memory_allocated() - before,
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "foretold_bytes": fit.settings.memory,
    }


COUNT, SMALL = 16, 256  # fits at a time, and the pixels of a side


def together(preset: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time several fits at a time, and one of as many pixels."""
    one = at_once(preset, 1, 4 * SMALL, False, options)
    several = {"each by itself": at_once(preset, COUNT, SMALL, False, options)}
    for lanes in options.lanes:
        dip.merged.LANES = lanes
        try:
            several[f"merged, {lanes} lanes"] = at_once(preset, COUNT, SMALL, True, options)
        except RuntimeWarning as error:  # the rest is measured all the same
            print(error, flush=True)
    return {
        "name": preset,
        f"one of {4 * SMALL} x {4 * SMALL}, milliseconds": round(one, 3),
        f"{COUNT} of {SMALL} x {SMALL}, milliseconds": {name: round(time, 3) for name, time in several.items()},
        "pixels a second, against the large one": {name: round(one / time, 3) for name, time in several.items()},
    }


def at_once(preset: str, count: int, size: int, merged: bool, options: argparse.Namespace) -> float:
    """Return the milliseconds of an iteration of all of so many fits."""
    every, gate, times = max(120, options.iters), threading.Barrier(count, timeout=60), []

    def look(fit: dip.Fit) -> None:
        if fit.iteration // every in (2, 4):  # a merged graph is made before
            torch.cuda.current_stream().synchronize()
            if not gate.wait():  # all are there
                times.append(time.perf_counter())

    code = {"code": dip.codes.Uniform(8)} if preset == "fast" else {}  # its own is made on the CPU, and takes longer
    given = {"preset": preset, "precision": "bfloat16", "device": "cuda", "progress": False, **code}
    fits = [
        dip.Fit(dip.Denoise(noisy(size)), callbacks=[dip.callbacks.Every(every, look)], **given) for _ in range(count)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for _ in dip.run_all(fits, 4 * every + 1, at_once=count, merged=merged):
            pass
    return 1e3 * (times[1] - times[0]) / (2 * every)


def whole(preset: str, sigma: float, iters: int | None = None, engine: str = "graph") -> dict[str, Any]:
    """Fit a noisy photograph."""
    clean = photograph()
    given = dip.degradations.gaussian(clean, sigma, seed=0)
    return {"sigma": sigma, **fitted(dip.Denoise(given), clean, preset, iters, engine)}


def enlarged() -> dict[str, Any]:
    """Super-resolve a photograph."""
    clean = photograph()
    shrink = dip.operators.Downsample(4).double()
    given = shrink(torch.from_numpy(clean / 255.0).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    return {"factor": 4, **fitted(dip.SuperResolve(given, 4), clean, "fast")}


def photograph() -> np.ndarray:
    """Return a picture of 256 x 256 pixels."""
    return skimage.data.astronaut()[:256, 100:356]


def fitted(
    task: dip.problem.Problem, clean: np.ndarray, preset: str, iters: int | None = None, engine: str = "graph"
) -> dict[str, Any]:
    """Return seconds and PSNR of a whole fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit = dip.fit(task, iters=iters, preset=preset, device="cuda", engine=engine, seed=0, progress=False)
    return {
        "name": preset,
        "size": len(clean),
        "engine": engine,
        "iterations": fit.iteration,
        "seconds": round(fit.seconds, 2),
        "PSNR": round(dip.metrics.psnr(fit.image, clean), 2),
    }


def new_fit(size: int, precision: str, preset: str, callback: Callable[[dip.Fit], Any]) -> dip.Fit:
    """Return the fit that is timed."""
    return dip.Fit(
        dip.Denoise(noisy(size)),
        preset=preset,
        precision=precision,
        device="cuda",
        engine="graph",
        progress=False,
        callbacks=[callback],
    )


def spread(times: list[float]) -> dict[str, float]:
    """Return median, least and most, in milliseconds."""
    found = {"milliseconds": statistics.median(times), "least": min(times), "most": max(times)}
    return {name: round(value, 3) for name, value in found.items()}


def kernels(size: int) -> list[tuple[float, float, str]]:
    """Return the kernels of an iteration in order: beginning and length in microseconds, and name."""
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])

    def look(fit: dip.Fit) -> None:
        torch.cuda.synchronize()
        if fit.iteration == 60:
            profiler.start()
        elif fit.iteration == 63:
            profiler.stop()

    new_fit(size, "bfloat16", "paper", look).run(130)
    events = sorted(profiler.events(), key=lambda event: event.time_range.start)
    events = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    one = events[len(events) // 3 : 2 * len(events) // 3]
    start = one[0].time_range.start
    return [(event.time_range.start - start, event.time_range.elapsed_us(), event.name[:120]) for event in one]


def by_name(one: list[tuple[float, float, str]]) -> dict[str, dict[str, float]]:
    """Return how often each kernel runs, for how many microseconds together, and the longest time."""
    found: dict[str, list[float]] = {}
    for _, long, name in one:
        found.setdefault(name, []).append(long)
    order = sorted(found, key=lambda name: -sum(found[name]))
    return {
        name: {"times": len(found[name]), "together": round(sum(found[name]), 1), "longest": round(max(found[name]), 1)}
        for name in order
    }


if __name__ == "__main__":
    main()
