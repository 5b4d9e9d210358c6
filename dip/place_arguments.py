"""Where the jobs of a command run: the options, and the place that they name."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from dip import batch
from dip.arguments import whole, words

__all__ = ["PLACES", "add", "place"]

PLACES = ("workers", "threads", "gpus", "scheduler", "resource")
"""The options that `add` adds."""


def add(parser: argparse.ArgumentParser, what: str = "jobs", more: str = "") -> None:
    """Add where jobs run.

    Parameters
    ----------
    parser : ArgumentParser
        Of the command; or of a script.
    what : str
        What a job is to the user of the command.
    more : str
        What else is to be known before one of the options is taken.
    """
    group = parser.add_argument_group("where it runs", more or None)
    group.add_argument(
        "--workers",
        type=whole(1, 2),
        metavar="N",
        help=f"so many {what} at a time, in processes of this machine that share its cores, or its GPUs where there "
        "are several; default: one after the other, in this process",
    )
    group.add_argument(
        "--threads", type=whole(1, 2), metavar="N", help="of each worker; default: its share of the cores"
    )
    group.add_argument("--gpus", type=words, metavar="LIST", help="one worker for each: all, or numbers as in 0,1")
    group.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of Dask, as in tcp://10.0.0.1:8786: on its workers, on any number of machines, which need not see the "
        "files of this one",
    )
    group.add_argument(
        "--resource", action="append", default=[], metavar="NAME=N", help="on Dask workers that have it, as GPU=1"
    )


def place(args: argparse.Namespace, say: Callable[[str], object] | None = None) -> batch.Place:
    """Return where the jobs run, from the options that `add` adds.

    Parameters
    ----------
    args : Namespace
        With a "device" too.
    say : callable, optional
        Takes a line when something is waited for.

    Returns
    -------
    Place
        `InProcess` where none of the options is given.

    Raises
    ------
    ValueError
        Options that do not go together.
    ImportError, OSError
        Dask is not installed, or its scheduler is not there.
    """
    if args.scheduler is not None:
        for name in ("workers", "gpus"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name} means nothing with --scheduler, whose workers were started elsewhere")
        resources = dict(map(_resource, args.resource))
        return batch.Dask(args.scheduler, threads=args.threads, resources=resources or None, say=say)
    if args.resource:
        raise ValueError("--resource means nothing without --scheduler")
    gpus, workers = args.gpus, args.workers
    if gpus == ["all"]:
        gpus = batch.gpus()
        if not gpus:
            raise ValueError("--gpus all: PyTorch sees no GPU here; leave it out")
    if gpus is not None and workers not in (None, len(gpus)):
        raise ValueError(f"--workers {workers} and {len(gpus)} GPUs; there is one worker for each GPU")
    if gpus is None and workers is None:
        if args.threads is not None:
            raise ValueError("--threads means nothing without --workers; in this process, OMP_NUM_THREADS sets them")
        return batch.InProcess()
    if gpus is None and args.device in ("auto", "cuda"):
        here = batch.gpus()  # in turn, where there are more workers than GPUs
        gpus = [here[number % len(here)] for number in range(workers)] if len(here) > 1 else None
    return batch.Processes(workers or len(gpus), threads=args.threads, gpus=gpus)


def _resource(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise ValueError(f"--resource {text} is not a name and a number, such as GPU=1") from None
