"""Many jobs: each is run once, wherever there is room, and its result is one line in a file."""

from dip.batch.jobs import Job, Ledger, Outcome, Progress, digest, key, run
from dip.batch.places import Dask, Given, InProcess, Place, Processes, gpus
from dip.batch.results import Results

__all__ = [
    "Dask",
    "Given",
    "InProcess",
    "Job",
    "Ledger",
    "Outcome",
    "Place",
    "Processes",
    "Progress",
    "Results",
    "digest",
    "gpus",
    "key",
    "run",
]
