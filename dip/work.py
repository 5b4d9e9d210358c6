"""One picture on disk, whichever backend restores it: read and checked, then written with a report."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import files, images, metrics
from dip.callbacks import duration
from dip.devices import environment
from dip.order import SCHEMA, Job, Order, failing
from dip.storage import plain

__all__ = ["Work", "interrupts_held_back", "summary", "write_report"]


class Work(ABC):
    """One picture: made, its file has been read and its target checked; a subclass does the work.

    Parameters
    ----------
    job : Job
        Its files.
    order : Order
        What is to be done.

    Attributes
    ----------
    picture : Picture
        As it was read.
    interrupted : bool
        Whether Ctrl-C was pressed in `run`, be it while a finished picture was written.

    Raises
    ------
    Failure
        The picture cannot be read, or there is no room for the work.
    ValueError, OSError
        The result could not be written.
    """

    going_on: str | None = None
    """What to do after Ctrl-C, to go on; None where there is nothing."""
    _range: tuple[float, float]  # black and white of the picture; a subclass sets it
    _enlarge: Callable[[Tensor], Tensor] | None = None  # the same for its alpha, where the result is larger

    def __init__(self, job: Job, order: Order) -> None:
        self.job, self.interrupted = job, False
        self._common = order
        self._mask: np.ndarray | None = None
        self._clean: Tensor | None = None
        with failing():
            size = _size(job.source)
            if size is not None:
                with _only_memory():
                    self._check_room(size)
            self.picture = files.read(job.source)
        files.check_target(job.target, force=order.force, like=self.picture)

    @property
    def _given(self) -> str:
        """The picture's file, size and colours."""
        (height, width), kind = self.picture.pixels.shape[:2], "gray" if self.picture.pixels.ndim == 2 else "RGB"
        return f"{self.job.source}: {height} x {width} {kind} pixels (height x width)"

    def _check_room(self, size: tuple[int, int]) -> None:  # noqa: B027  (most need not)
        """Raise MemoryError if there is no room for a picture of (height, width)."""

    @property
    @abstractmethod
    def beginning(self) -> str:
        """What is going to be done, in one line."""

    @abstractmethod
    def run(self, say: Callable[[str], None] | None = None, *, aside: bool = False) -> dict[str, Any]:
        """Restore the picture and write it.

        Parameters
        ----------
        say : callable, optional
            Takes the line that tells how long it is going to take, where no progress bar does.
        aside : bool, default False
            Write the picture of work that was interrupted under another name than the target's.

        Returns
        -------
        dict
            The report, in JSON types; its "status" is "done" or "interrupted".
        """

    def _report(self, target: Path, restored: np.ndarray, *, status: str, **more: Any) -> dict[str, Any]:
        """What every report has, with what this one has more."""
        return {
            "schema": SCHEMA,
            "command": self._common.command,
            "status": status,
            **self.job.names(),
            "output": str(target),
            "figures": self._figures(restored),
            **more,
            "environment": environment(),
        }

    def _write(self, path: Path, pixels: np.ndarray, *, force: bool) -> None:
        alpha, size = self.picture.alpha, (pixels.shape[0], pixels.shape[1])
        alpha = None if alpha is None else images.resized(alpha, size, self._enlarge)
        files.write(path, pixels, like=self.picture, alpha=alpha, force=force)

    def _figures(self, restored: np.ndarray) -> dict[str, float]:
        """PSNR (dB) and SSIM of the picture as written, and of what there was before."""
        if self._clean is None:
            return {}
        x, y = self._as_x(restored), self._as_x(self.picture.pixels)
        figures = {"psnr": metrics.psnr(x, self._clean), "ssim": metrics.ssim(x, self._clean)}
        if self._mask is not None:
            missing = torch.from_numpy(self._mask == 0)
            if missing.any():
                there, wanted = x[:, missing][:, None], self._clean[:, missing][:, None]
                figures["psnr_missing"] = metrics.psnr(there, wanted)
            return figures
        if y.shape != x.shape:
            # Pillow's bicubic interpolation, the usual measure
            size = (x.shape[1], x.shape[2])
            y = torch.nn.functional.interpolate(y[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
        figures["psnr_before"] = metrics.psnr(y, self._clean, data_range=1)
        figures["ssim_before"] = metrics.ssim(y, self._clean, data_range=1)
        return figures

    def _as_x(self, pixels: np.ndarray) -> Tensor:
        layout = images.describe(pixels, data_range=self._range)
        return images.to_tensor(pixels, layout, spread=math.inf)[0]  # what is far outside was refused, or is photons


def summary(report: dict[str, Any]) -> str:
    """Return what a report comes to, in one line."""
    figures, reason = report["figures"], report.get("stop_reason")
    how = f"{report['iterations']} iterations" if "iterations" in report else f"model {report['settings']['model']}"
    parts = [f"{how} in {duration(report['seconds'])}"]
    if reason not in (None, "iterations"):
        parts.append(f"stopped: {reason}")
    elif report["settings"].get("stop") is not None:
        parts.append("the stopping rule did not come to an end")
    if "psnr" in figures:
        before = f"{figures['psnr_before']:.2f} -> " if "psnr_before" in figures else ""
        parts.append(f"PSNR {before}{figures['psnr']:.2f} dB")
        if "psnr_missing" in figures:
            parts[-1] += f" ({figures['psnr_missing']:.2f} dB on the missing pixels)"
        before = f"{figures['ssim_before']:.4f} -> " if "ssim_before" in figures else ""
        parts.append(f"SSIM {before}{figures['ssim']:.4f}")
    return f"{report['output']}: {', '.join(parts)}"


def write_report(path: Path, report: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Write a report, or a list of them, as JSON, whole or not at all; what is not finite becomes null."""
    if isinstance(report, list):
        text = "[\n" + ",\n".join(_json(one) for one in report) + "\n]\n"
    else:
        text = _json(report) + "\n"
    files.write_bytes(path, text.encode())


@contextlib.contextmanager
def _only_memory() -> Iterator[None]:
    """Let through nothing but a lack of memory: the rest is said better of the picture itself."""
    try:
        yield
    except (ValueError, TypeError, OSError):
        return


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[list[int]]:
    """Keep Ctrl-C out of the writing of the result; yields a list that is not empty afterwards if there was one."""
    late: list[int] = []
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield late
        return
    signal.signal(signal.SIGINT, lambda number, frame: late.append(number))
    try:
        yield late
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _size(path: Path) -> tuple[int, int] | None:
    """Height and width of a picture from the head of its file; None where `files.read` has to find out."""
    from PIL import Image

    from dip.decoding import quiet

    if not os.path.isfile(path):
        return None
    with contextlib.suppress(Exception), quiet(), Image.open(path) as header:
        return header.height, header.width
    return None


def _json(report: dict[str, Any]) -> str:
    """A report as JSON with one line for each of its entries, long lists included."""
    lines = [f"  {json.dumps(key)}: {json.dumps(plain(value))}" for key, value in report.items()]
    return "{\n" + ",\n".join(lines) + "\n}"
