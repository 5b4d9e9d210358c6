"""Compare the memory that a fit was said to take (`dip info --size`) with what it took.

    python benchmarks/memory.py --sizes 128 256 512

Each fit runs in a process of its own, for a few iterations, as `dip.fit` does. What is measured on a CPU is how far the
most memory of the process goes beyond that before the fit. Blocks that the C library could not use again count, and
change from run to run, so --rounds of each are made. With --tight each is run in turns with another in whose process
the C library has its caches of small blocks switched off, which are in the way of large ones.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from speed import peak

import dip

TIGHT = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"  # read by glibc as a process begins
CASES: dict[str, dict[str, Any]] = {
    "paper, float32": {"preset": "paper", "precision": "float32"},
    "paper, bfloat16": {"preset": "paper", "precision": "bfloat16"},
    "fast, float32": {"preset": "fast", "precision": "float32"},
    "fast, bfloat16": {"preset": "fast", "precision": "bfloat16"},
    "64 channels, float32": {"network": {"down": [64] * 5, "up": [64] * 5}, "precision": "float32"},
    "paper in crops of 256, bfloat16": {"preset": "paper", "tile": 256, "precision": "bfloat16"},
    "paper in crops of 256, float32": {"preset": "paper", "tile": 256, "precision": "float32"},
    "fast in crops of 256, float32": {"preset": "fast", "tile": 256, "precision": "float32"},
    "fast, half missing, float32": {"preset": "fast", "precision": "float32", "missing": 0.5},
    "deep decoder, float32": {"preset": "deep-decoder", "precision": "float32"},
    "deep decoder, bfloat16": {"preset": "deep-decoder", "precision": "bfloat16"},
    "U-Net, bfloat16": {"network": "unet", "precision": "bfloat16"},
    "ResNet, bfloat16": {"network": "resnet", "precision": "bfloat16"},
}


def main(arguments: list[str] | None = None) -> None:
    """Run all cases, each in a process of its own, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512], help="sides of the square picture")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--iters", type=int, default=4)
    parser.add_argument("--tight", action="store_true", help=f"each also with GLIBC_TUNABLES={TIGHT}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory.json")
    parser.add_argument("--worker", nargs=2, metavar=("CASE", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(measure(options.worker[0], int(options.worker[1]), options)))
        return
    results = []
    for size in options.sizes:
        for case in options.cases:
            ways = [None, TIGHT] if options.tight else [None]
            rounds = [[in_process(case, size, options, way) for way in ways] for _ in range(options.rounds)]
            usual, *tight = ({name: [one[name] for one in way] for name in way[0]} for way in zip(*rounds, strict=True))
            foretold = usual.pop("foretold")[0]
            results.append({"case": case, "size": size, "foretold": foretold, **usual})
            results[-1]["foretold_by_taken"] = [round(foretold / one, 3) for one in usual["taken"]]
            for way in tight:
                results[-1].update({f"tight_{name}": way[name] for name in usual})
            print(json.dumps(results[-1]), flush=True)
    ratios = [ratio for one in results for ratio in one["foretold_by_taken"]]
    report = {
        "experiment": "bytes that a fit takes at its peak: as foretold, and as measured",
        "iterations": options.iters,
        "device": str(dip.devices.resolve(options.device)),
        "within_20_percent": f"{sum(1 / 1.2 <= ratio <= 1.2 for ratio in ratios)} of {len(ratios)}",
        "results": results,
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(report["within_20_percent"])


def in_process(case: str, size: int, options: argparse.Namespace, tunables: str | None) -> dict[str, float]:
    """Measure one case in a process of its own."""
    command = [sys.executable, __file__, "--iters", str(options.iters), "--device", options.device]
    environment = os.environ | ({"GLIBC_TUNABLES": tunables} if tunables else {})
    done = subprocess.run(
        [*command, "--worker", case, str(size)], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{case} at {size} pixels failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(case: str, size: int, options: argparse.Namespace) -> dict[str, float]:
    """Fit for some iterations; return what was foretold and what was taken, in bytes, and the time."""
    picture = np.random.default_rng(0).random((size, size, 3), dtype=np.float32)
    # what every process takes once
    dip.fit(dip.Denoise(picture[:32, :32]), iters=1, device=options.device, progress=False)
    before = peak(dip.devices.resolve(options.device))
    given = dict(CASES[case])
    missing = given.pop("missing", None)
    if missing is None:
        task: Any = dip.Denoise(picture)
    else:
        task = dip.Inpaint(picture, dip.degradations.random_mask((size, size), 1 - missing, seed=0))
    fit = dip.fit(task, iters=options.iters, device=options.device, progress=False, **given)
    return {
        "foretold": fit.settings.memory or 0,
        "taken": peak(fit.device) - before,
        "seconds_an_iteration": round(fit.seconds / options.iters, 4),
    }


if __name__ == "__main__":
    main()
