"""Kill fits with SIGKILL at random moments, resume them, and compare with a fit that was never stopped.

    python benchmarks/kill_resume.py

Each run is a small fit with everything that has a state: jitter, average, stopping rule, history, a checkpoint at every
few iterations. It is killed several times, at a random moment or in the middle of writing a checkpoint, goes on each
time from the checkpoint that is there, and has to end with the very same bytes as the fit that ran through: the
picture, the history and the rule's moment. The result goes to benchmarks/results/kill_resume.json. POSIX systems only.

The parent never computes anything with PyTorch: it forks a process for each fit, so that a kill costs no start of
Python.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import dip

EVERY = 7  # iterations between checkpoints


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=4, help="how often each run is killed, at most")
    parser.add_argument("--iters", type=int, default=100)
    parser.add_argument("--size", type=int, default=45, help="height of the picture; it is 7 pixels wider")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kill_resume.json")
    options = parser.parse_args(arguments)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "expected"
        started = time.perf_counter()
        wait(start(expected, options))
        seconds = time.perf_counter() - started
        each = []
        for number in range(options.runs):
            each.append(
                run(Path(folder) / f"run{number}", options, moments, seconds, (expected / "result").read_bytes())
            )
            print(f"run {number + 1} of {options.runs}: {each[-1]}", flush=True)
    identical = sum(one["identical"] for one in each)
    kills = [kill for one in each for kill in one["kills"]]
    report = {
        "experiment": "fits killed with SIGKILL and resumed, compared with one never stopped: picture, history, rule",
        "runs": options.runs,
        "identical": identical,
        "kills": len(kills),
        "kills_during_a_write": sum(kill["in_write"] for kill in kills),
        "kills_before_the_first_checkpoint": sum(kill["checkpoint_of"] is None for kill in kills),
        "iterations": options.iters,
        "checkpoint_every": EVERY,
        "size": [options.size, options.size + 7, 3],
        "precision": options.precision,
        "seed": options.seed,
        "seconds_of_one_run": round(seconds, 2),
        "each": each,
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{identical} of {options.runs} identical, {len(kills)} kills: {options.out}")
    sys.exit(identical != options.runs)


def run(
    folder: Path, options: argparse.Namespace, moments: random.Random, seconds: float, expected: bytes
) -> dict[str, Any]:
    """Kill and resume one fit until it has been killed often enough, or ends before that; compare its result."""
    kills: list[dict[str, Any]] = []
    ended = False
    while len(kills) < options.kills and not ended:
        child = start(folder, options)
        if moments.random() < 0.5:
            ended = kill_in_write(child, folder, moments)
        else:
            ended = kill_after(child, moments.uniform(0, 0.5 * seconds))
        if ended and not kills:  # it was too fast for us: once more from the start
            for path in folder.iterdir():
                path.unlink()
            ended = False
        elif not ended:
            left = list(folder.glob(".*"))  # what a write in progress leaves behind
            kills.append({"in_write": bool(left), "checkpoint_of": checkpoint_iteration(folder / "checkpoint")})
            for path in left:
                path.unlink()
    if not ended:
        wait(start(folder, options))
    return {"identical": (folder / "result").read_bytes() == expected, "kills": kills}


def start(folder: Path, options: argparse.Namespace) -> int:
    """Fork a process that fits, from the checkpoint in the folder if there is one."""
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        fit(folder, options)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def fit(folder: Path, options: argparse.Namespace) -> None:
    """Fit, with checkpoints, and write all that has to be equal to the file "result"."""
    y, x = np.mgrid[: options.size, : options.size + 7] / options.size
    clean = 0.5 + 0.4 * np.sin(9 * x * (1 + y))[..., None] * np.array([1.0, 0.8, 0.6])
    checkpoint = folder / "checkpoint"
    done = dip.fit(
        dip.Denoise(dip.degradations.gaussian(clean, 25, seed=1)),
        iters=options.iters,
        network={"down": [16] * 3, "up": [16] * 3, "skip": [4] * 3},
        stop=dip.stopping.WindowedVariance(10, options.iters, earliest=5),
        penalty=dip.losses.TotalVariation(0.01),
        reference=clean,
        seed=options.seed,
        device="cpu",
        precision=options.precision,
        progress=False,
        checkpoint=checkpoint,
        checkpoint_every=EVERY,
        resume=checkpoint if checkpoint.exists() else None,
    )
    rule = done.settings.stop
    series = [done.history[name].tobytes() for name in sorted(done.history)]
    result = b"".join([done.image.tobytes(), done.current.numpy().tobytes(), *series])
    result += f"{done.iteration} {done.stop_reason} {rule.iteration} {rule.value!r}".encode()
    dip.files.write_bytes(folder / "result", result)


def wait(child: int) -> None:
    """Wait for a fit to end by itself."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise RuntimeError(f"a fit ended with status {status}")


def finished(child: int) -> bool:
    """Tell whether a fit has ended by itself."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid and os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"a fit ended with status {os.waitstatus_to_exitcode(status)}")
    return bool(pid)


def kill(child: int) -> bool:
    """Kill a fit and bury it; return whether it had ended by itself before."""
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL


def kill_after(child: int, seconds: float) -> bool:
    """Kill a fit after some time; return whether it has ended by itself before."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if finished(child):
            return True
        time.sleep(0.001)
    return kill(child)


def kill_in_write(child: int, folder: Path, moments: random.Random) -> bool:
    """Kill a fit while it writes one of its next checkpoints; return whether it has ended by itself before."""
    for _ in range(moments.randint(1, 5)):  # writes that are let pass, but for the last
        for writing in (True, False):
            while any(folder.glob(".*")) == writing:
                if finished(child):
                    return True
                time.sleep(1e-4)
    time.sleep(moments.uniform(0, 1e-3))
    return kill(child)


def checkpoint_iteration(path: Path) -> int | None:
    """Return the iteration of a checkpoint, from its header."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    state = dict(json.loads(header["__metadata__"]["dip"])["state"]["dict"])
    return int(state["iteration"]["value"])


if __name__ == "__main__":
    main()
