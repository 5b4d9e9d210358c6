"""What does a job cost beside its own work? Ten thousand jobs that do nothing, and then the finished run once more.

    python benchmarks/overhead.py --jobs 10000
    python benchmarks/overhead.py --jobs 10000 --workers 2

Writes milliseconds a job, the growth of the memory while they run, and the seconds that the same run takes again,
when all of it is done.
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

import dip
from dip import batch


def nothing(number: int) -> batch.Outcome:
    """The trivial job; its record is as long as one of a benchmark."""
    return batch.Outcome({"psnr": 20 + number % 10, "settings": {f"option {i}": i for i in range(40)}})


def jobs(count: int) -> list[batch.Job]:
    """Return so many different jobs."""
    return [batch.Job(batch.key(number=i), nothing, lambda i=i: (i,), {"number": i}) for i in range(count)]


def resident() -> int | None:
    """Return the bytes of memory that this process has now (Linux), else None."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return None


def once(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """Run them all, or what is left of them."""
    started = time.perf_counter()
    work = jobs(count)
    memory: list[int | None] = []

    def look(progress: batch.Progress, job: batch.Job, record: object) -> None:
        if (progress.done + progress.failed) % max(1, count // 10) == 0:
            memory.append(resident())

    place = batch.Processes(workers) if workers else batch.InProcess()
    with batch.Results(folder) as results:
        progress = batch.run(work, results, place, tell=look)
    known = [one for one in memory if one is not None]
    return {
        "seconds": round(time.perf_counter() - started, 3),
        "done": progress.done,
        "kept": progress.kept,
        "megabytes": [round(one / 2**20, 1) for one in known],
    }


def main(arguments: list[str] | None = None) -> None:
    """Run them twice and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=0, help="worker processes; 0 = in this process")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "overhead.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        first = once(Path(folder), options.jobs, options.workers)
        again = once(Path(folder), options.jobs, options.workers)
        lines = (Path(folder) / "results.jsonl").read_bytes().count(b"\n")
    report = {
        "experiment": "jobs that do nothing: what each costs beside its own work, and the finished run once more",
        "jobs": options.jobs,
        "workers": options.workers,
        "milliseconds_per_job": round(1000 * first["seconds"] / options.jobs, 3),
        "first": first,
        "again": again,
        "lines": lines,
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(
        f"{report['milliseconds_per_job']} ms a job, memory {first['megabytes'][:1]} to {first['megabytes'][-1:]} MB, "
        f"again in {again['seconds']} s"
    )
    sys.exit(0 if lines == options.jobs == first["done"] == again["kept"] else 1)


if __name__ == "__main__":
    main()
