"""From a clone of this repository to a report that compares four methods: how long does it take?

    python benchmarks/newcomer.py

A new virtual environment is made, the library is installed into it, and `dip benchmark` runs as it comes: six
photographs, four methods. OUT has the seconds of both, and the table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dip
from dip.benchmark import tables

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> None:
    """Install, run, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "newcomer.json")
    parser.add_argument("--report", type=Path, help="keep the page and all with it in this folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        bin_ = Path(name) / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        report = options.report or Path(name) / "report"
        made = timed(sys.executable, "-m", "venv", bin_.parent)
        installed = timed(bin_ / "pip", "install", "-q", "-c", HERE.parent / "constraints.txt", HERE.parent)
        compared = timed(bin_ / "dip", "benchmark", "-o", report.resolve())
        (group,) = tables.groups(tables.records(report))
        found = {
            "experiment": group.words,
            "seconds": {
                "environment and installation": round(made + installed, 1),
                "dip benchmark": round(compared, 1),
                "together": round(made + installed + compared, 1),
            },
            "bytes of the page": (report / "report.html").stat().st_size,
            "means": {row.method: {**row.figures, "seconds": row.seconds} for row in group.rows()},
            "pictures": group.by_picture("psnr"),
            "cores": dip.devices.cores(),
            "environment": dip.devices.environment(),
            "date": datetime.date.today().isoformat(),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(found["seconds"])


def timed(*command: str | Path) -> float:
    """Run a command, elsewhere than in the clone, and return the seconds that it took."""
    started = time.perf_counter()
    subprocess.run([str(word) for word in command], cwd=tempfile.gettempdir(), check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
