"""Jobs that take no time, for the tests of dip.batch; a module of its own so that other processes find them.

    python trivial.py FOLDER COUNT [SECONDS]

runs so many of them in FOLDER, each of so many seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from small import picture, quick_fit

import dip
from dip import batch


def noted(folder, number, seconds=0.0):
    """Take its time, and leave a line in FOLDER/begun and one in FOLDER/ended."""
    note(folder, "begun", number)
    time.sleep(seconds)
    note(folder, "ended", number)
    return batch.Outcome({"number": number})


def note(folder, name, number):
    with (Path(folder) / name).open("a") as file:
        file.write(f"{number}\n")


def failing(number):
    raise ValueError(f"job {number} cannot be done")


def interrupted(number):
    raise KeyboardInterrupt


def deadly(folder, number, times):
    """Kill the process that runs it, the first `times` times."""
    note(folder, "deaths", number)
    if len((Path(folder) / "deaths").read_text().split()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch.Outcome({"number": number})


def fitted(seed):
    """Return the bytes of a small fit's picture."""
    fit = quick_fit(dip.Denoise(picture()), iters=3, seed=seed, device="cpu", progress=False)
    image = np.asarray(fit.image)
    return batch.Outcome({"threads used": torch.get_num_threads()}, {f"picture-{seed}": image.tobytes()})


def copied_unless_deadly(parcel):
    """Stand for the restoration of a picture of a folder; one of them kills the process that works on it."""
    if parcel.job.source.name == "deadly.png":
        os.kill(os.getpid(), signal.SIGKILL)
    report = {"output": str(parcel.job.target), "status": "done", "iterations": 0, "seconds": 0.0, "figures": {}}
    report["settings"] = {"stop": None}
    return batch.Outcome({"status": "done", "report": report}, {parcel.job.target.name: parcel.contents["source"]})


def copied_at_the_second_try(folder, parcel):
    """The same, but the process dies the first time that it has the picture named "deadly.png"."""
    if parcel.job.source.name == "deadly.png" and not (Path(folder) / "deaths").exists():
        note(folder, "deaths", 1)
        os.kill(os.getpid(), signal.SIGKILL)
    return copied_unless_deadly(replace(parcel, job=replace(parcel.job, source=Path("any.png"))))


def slow(parcel):
    time.sleep(600)


def never(job):
    raise AssertionError("nothing is to be done here")


def jobs(function, numbers, *first, last=()):
    """Jobs that differ in their number."""
    return [
        batch.Job(batch.key(name=function.__name__, number=n), function, lambda n=n: (*first, n, *last), {"job": n})
        for n in numbers
    ]


if __name__ == "__main__":
    folder, count, *seconds = sys.argv[1:]
    with batch.Results(Path(folder) / "out") as results:
        work = jobs(noted, range(int(count)), folder, last=tuple(map(float, seconds)))
        progress = batch.run(work, results, batch.InProcess())
    print(progress.done, progress.kept)
