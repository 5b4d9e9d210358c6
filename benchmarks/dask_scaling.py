"""How much faster are two Dask workers on this machine than one, and are their pictures the same?

    python benchmarks/dask_scaling.py --size 96 --iters 100

Eight fits of the preset "fast" (one picture, eight seeds), each with one thread: in this process, on one worker, on
two. The cluster is made here and ended at the end. The pictures have to be the same, bit by bit.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dip
from dip import batch, benchmark, datasets


def fitted(case: benchmark.Case, **options: Any) -> np.ndarray:
    """The preset, with a hash of what it made in the record."""
    restored = benchmark.find("fast").function(case, **options)
    case.log["hash"] = batch.digest(np.asarray(restored))
    return restored


def once(folder: Path, options: argparse.Namespace, place: batch.Place) -> tuple[float, dict[int, str]]:
    """Return the seconds of all jobs, and the hash of each picture."""
    method = benchmark.Method("fast", fitted, ("denoise",), options={"preset": "fast"}, random=True)
    entries = datasets.pictures("photographs")[:1]
    started = time.perf_counter()
    benchmark.run(
        entries,
        benchmark.Protocol("denoise", size=options.size),
        [method],
        folder,
        seeds=range(options.jobs),
        iters=options.iters,
        device="cpu",
        place=place,
        pictures=False,
    )
    seconds = time.perf_counter() - started
    records = list(batch.Results.read(folder / "results.jsonl"))
    assert [record["status"] for record in records] == ["done"] * options.jobs, records
    return seconds, {record["seed"]: record["hash"] for record in records}


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the report."""
    from distributed import LocalCluster

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--iters", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dask_scaling.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds, hashes = {}, {}
        seconds["in process"], hashes["in process"] = once(folder / "0", options, batch.InProcess())
        for workers in (1, 2):
            with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster:
                cluster.wait_for_workers(workers)
                name, place = (
                    f"{workers} worker" + "s" * (workers > 1),
                    batch.Dask(cluster.scheduler_address, threads=1),
                )
                seconds[name], hashes[name] = once(folder / str(workers), options, place)
    same = hashes["in process"] == hashes["1 worker"] == hashes["2 workers"]
    report = {
        "experiment": f"{options.jobs} fits of the preset fast, {options.size} pixels, {options.iters} iterations",
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "ratio": round(seconds["1 worker"] / seconds["2 workers"], 3),
        "pictures are the same": same,
        "cores": dip.devices.cores(),
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{report['seconds']}, ratio {report['ratio']}, the same: {same}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
