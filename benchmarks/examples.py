"""Run the demo and the examples as they stand, and keep what they print.

    python benchmarks/examples.py
    python benchmarks/examples.py demo denoise --iters 5

Each runs in a process of its own, in a folder that is thrown away; the report has the lines that it wrote (the PSNR
figures that the README and examples/README.md quote), its seconds from start to end with the imports, the versions, the
device and the date. What is reported already and not run anew stays in the report.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dip

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
_NAMES = ("denoise", "inpaint", "super_resolve", "deblur", "dejpeg", "few_photons", "own_operator", "trained")
COMMANDS = {
    "demo": ["-m", "dip", "demo"],
    **{name: [str(EXAMPLES / f"{name}.py")] for name in _NAMES},
}


def main(arguments: list[str] | None = None) -> None:
    """Run what is named, or all, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help=f"some of {', '.join(COMMANDS)}; all by default")
    parser.add_argument("--iters", type=int, help="another count of iterations than their own")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "examples.json")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.name) - set(COMMANDS))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(COMMANDS)}")
    report = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.name or COMMANDS:
        report[name] = run(COMMANDS[name], options.iters)
        print(name, *report[name]["lines"], f"{report[name]['seconds']} s", sep="\n  ", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def run(command: list[str], iters: int | None) -> dict[str, object]:
    """Run one, and return what it wrote and how long it took."""
    words = [sys.executable, *command, *([] if iters is None else ["--iters", str(iters)])]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "agg"}, check=False
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with status {done.returncode}:\n{done.stderr}")
    return {
        "iterations": iters or "its own",
        "lines": done.stdout.splitlines(),
        "seconds": round(seconds, 1),
        "device": str(dip.devices.resolve("auto")),
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    main()
