"""A picture on its way to a worker, which may be on another machine: all files that its restoration reads go with it,
and all that it writes come back."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dip import files
from dip.order import Job, Order

__all__ = ["Parcel", "Unpacked", "pack"]

_RESULTS = "results"


@dataclass(frozen=True)
class Parcel:
    """The files of one picture, by name and by content.

    Attributes
    ----------
    job : Job
        Their names on the machine that sends them.
    contents : mapping
        The bytes of "source", "mask" and "reference", as far as there are such.
    """

    job: Job
    contents: Mapping[str, bytes] = field(repr=False)

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[Unpacked]:
        """Put the files into a folder of their own, which is removed at the end."""
        with tempfile.TemporaryDirectory(prefix="dip-") as folder:
            unpacked = Unpacked(self.job, Path(folder))
            for role, content in self.contents.items():
                unpacked.put(role, getattr(self.job, role), content)
            yield unpacked


class Unpacked:
    """The files of one picture where it is restored.

    Parameters
    ----------
    sent : Job
        Their names where they come from.
    folder : Path
        Where they are put.

    Attributes
    ----------
    job : Job
        Their names here.
    """

    def __init__(self, sent: Job, folder: Path) -> None:
        self._folder = folder
        self._there = {_RESULTS: sent.target.parent}  # by role, the folder that a file comes from
        (folder / _RESULTS).mkdir()
        self.job = Job(
            self._here("source", sent.source),
            folder / _RESULTS / sent.target.name,
            sent.mask and self._here("mask", sent.mask),
            sent.reference and self._here("reference", sent.reference),
        )

    def _here(self, role: str, path: Path) -> Path:
        self._there[role] = path.parent
        return self._folder / role / path.name

    def put(self, role: str, path: Path, content: bytes) -> Path:
        """Put a file beside the others, and return its name here."""
        here = self._here(role, path)
        here.parent.mkdir(exist_ok=True)
        here.write_bytes(content)
        return here

    def results(self) -> dict[str, bytes]:
        """Return what was written here, by names relative to the folder of the target."""
        found = (self._folder / _RESULTS).rglob("*")
        return {str(path.relative_to(self._folder / _RESULTS)): path.read_bytes() for path in found if path.is_file()}

    def named(self, value: Any) -> Any:
        """Return a text, or a report in JSON types, in which the files have their names where they come from."""
        if isinstance(value, str):
            for role, folder in self._there.items():
                value = value.replace(f"{self._folder / role}{os.sep}", str(folder / "x")[:-1])
            return value
        if isinstance(value, Mapping):
            return {name: self.named(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.named(item) for item in value]
        return value


def pack(job: Job, order: Order) -> Parcel:
    """Read the files of a picture, once it is clear that the result can be written here.

    Raises
    ------
    ValueError, OSError
        A file cannot be read, or the result not be written.
    """
    job.check(order.save_every, going_on=False, force=order.force)
    files.check_target(job.target, force=order.force)
    given = {"source": job.source, "mask": job.mask, "reference": job.reference}
    return Parcel(job, {role: files.content(path) for role, path in given.items() if path is not None})
