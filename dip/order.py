"""What is to be done with a picture on disk, and with which files."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dip.console import one_line
from dip.settings import Options, Settings, resolve
from dip.storage import same
from dip.tasks import ImageTask

__all__ = ["EXPECTED", "SCHEMA", "Failure", "FitOrder", "Job", "Order", "failing", "memory_errors", "numbered"]

SCHEMA = "dip-report-1"
"""What a report says it is."""


class Failure(Exception):
    """One picture could not be restored; the message says why, in one line."""


EXPECTED = (Failure, OSError, ValueError, TypeError, MemoryError)
"""Errors whose messages are for the user; others say their type too."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be done with every picture of a command, whichever backend does it.

    Attributes
    ----------
    command : str
        Its name, for the report.
    data_range : float, (float, float) or None
        Range of the clean picture, in the file's numbers.
    save_every : int or None
        Write the picture so far at every so many iterations, under the name of the iteration.
    force : bool
        Replace files that exist.
    """

    command: str
    data_range: float | tuple[float, float] | None = None
    save_every: int | None = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class FitOrder(Order):
    """What is to be fitted to every picture of a command.

    Attributes
    ----------
    problem : callable
        ``problem(pixels, mask, path)`` makes the task of a picture; the mask is None where the command has none, and
        the path, of the file that the picture is from, where there is no picture yet.
    options : Options
        Of the fit; not `reference` and `callbacks`, which belong to one picture.
    iters : int or None
        Iterations in all, the preset's by default.
    invert_mask : bool
        Whether the masks show the missing pixels instead of the known ones.
    keep_known : bool
        Whether known pixels are returned as they are.
    resume : Path or None
        Checkpoint to go on from.
    named : mapping
        Further options that the settings in a report are to name, as they were given.
    """

    problem: Callable[[np.ndarray, np.ndarray | None, Path | None], ImageTask]
    options: Options
    iters: int | None = None
    invert_mask: bool = False
    keep_known: bool = True
    resume: Path | None = None
    named: Mapping[str, str] = field(default_factory=dict)

    def check(self, size: tuple[int, int] = (1, 1)) -> Settings:
        """Check the options, and the memory for a picture of (height, width), without one.

        Returns
        -------
        Settings
            What the options come to for a picture of that size.

        Raises
        ------
        ValueError, TypeError, OSError
            An option is not what it should be.
        MemoryError
            The fit of such a picture would not find room.
        """
        pixels = np.broadcast_to(np.float32(0), (*size, 3))  # takes no memory
        with memory_errors():
            return resolve(self.problem(pixels, np.broadcast_to(np.True_, size), None), self.options)

    def total(self, settings: Settings) -> int:
        """Return the iterations in all: those asked for, or the preset's."""
        return settings.iters if self.iters is None else self.iters


@dataclass(frozen=True)
class Job:
    """The files of one picture."""

    source: Path
    target: Path
    mask: Path | None = None
    reference: Path | None = None

    def check(self, save_every: int | None, *, going_on: bool, force: bool) -> None:
        """Check that no other picture would be written over.

        Parameters
        ----------
        save_every : int or None
            As in `Order`.
        going_on : bool
            Whether a fit is resumed, whose earlier pictures are its own.
        force : bool
            Whether pictures of an earlier run may be replaced.

        Raises
        ------
        ValueError
            The result would replace the mask or the reference.
        FileExistsError
            Pictures under the names of iterations are there.
        """
        for name, path in (("mask", self.mask), ("reference", self.reference)):
            if same(self.target, path):
                raise ValueError(f"{self.target} is the {name}, which the result would replace; choose another name")
        if save_every is None or going_on or force:
            return
        pattern = glob.escape(numbered(self.target, 0).name).replace(".iter000000", ".iter[0-9]*")
        found = sorted(self.target.absolute().parent.glob(pattern))
        if found:
            raise FileExistsError(
                f"{found[0]} exists, from an earlier run with --save-every; move it away, or replace it with --force"
            )

    def failed(self, reason: str) -> dict[str, Any]:
        """Return the report on a picture that could not be restored."""
        return {"schema": SCHEMA, "status": "failed", **self.names(), "error": reason}

    def names(self) -> dict[str, str | None]:
        """Return the names for a report."""
        named = {"input": self.source, "output": self.target, "mask": self.mask, "reference": self.reference}
        return {key: None if path is None else str(path) for key, path in named.items()}


def numbered(target: Path, iteration: int) -> Path:
    """Return the name of the picture of an iteration: out.png becomes out.iter000500.png."""
    return target.with_name(f"{target.stem}.iter{iteration:06d}{target.suffix}")


@contextlib.contextmanager
def failing() -> Iterator[None]:
    """Turn what can go wrong with one picture into a `Failure`."""
    try:
        with memory_errors():
            yield
    except (ValueError, TypeError, OSError, MemoryError, ImportError) as error:
        raise Failure(one_line(error)) from error


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Give PyTorch's errors about used-up memory their proper type, and advice."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.cuda.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise MemoryError(
            "the memory was used up; restore a crop or a reduced picture, take fewer channels (--down 64x5), or "
            "--precision bfloat16"
        ) from error
