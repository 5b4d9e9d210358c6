"""Restore one picture on disk: read it, fit, write the result, and report what was done."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import files, images, metrics
from dip.callbacks import Estimate, Every, duration, shows_progress
from dip.console import one_line
from dip.devices import environment
from dip.errors import warn
from dip.guard import DivergenceError
from dip.order import SCHEMA, Failure, Job, Order, failing, memory_errors, numbered
from dip.settings import Options
from dip.solver import Fit
from dip.stopping import warn_if_past

__all__ = ["Restoration", "summary", "write_report"]


class Restoration:
    """One picture: made, everything that can be wrong has been checked; `run` does the work.

    Parameters
    ----------
    job : Job
        Its files.
    order : Order
        What is to be done.

    Attributes
    ----------
    interrupted : bool
        Whether Ctrl-C was pressed in `run`, be it while a finished picture was written.

    Raises
    ------
    Failure
        The picture cannot be read, or its fit would not find room.
    ValueError, TypeError, OSError
        An option, the mask, the reference or the checkpoint does not suit it, or the result could not be written.
    """

    def __init__(self, job: Job, order: Order) -> None:
        self.job, self.order = job, order
        self.interrupted = False
        with failing():
            size = _size(job.source)
            if size is not None:
                with _only_memory():
                    order.check(size)
            self.picture = files.read(job.source)
        files.check_target(job.target, force=order.force, like=self.picture)
        job.check(order.save_every, going_on=order.resume is not None, force=order.force)
        pixels = self.picture.pixels
        self._mask = None
        if job.mask is not None:
            mask = files.read_mask(job.mask, size=(pixels.shape[0], pixels.shape[1]))
            self._mask = ~mask if order.invert_mask else mask
        self._task = order.problem(pixels, self._mask)
        options: Options = {**order.options}
        self._clean: Tensor | None = None
        if job.reference is not None:
            reference = files.read(job.reference).pixels
            options["reference"] = reference
            self._clean = self._task.clean(reference)[0]
        if order.save_every is not None:
            options["callbacks"] = [Every(order.save_every, self._save_numbered)]
        with failing():  # what is wrong with the picture itself, rather than with what was said of it
            images.to_tensor(pixels, images.describe(pixels, data_range=order.data_range), known=self._mask)
        try:
            with memory_errors():
                self.fit = Fit(self._task, **options)
                if order.resume is not None:
                    self.fit.load(order.resume)
        except MemoryError as error:
            raise Failure(one_line(error)) from error
        self.goal = order.total(self.fit.settings)
        warn_if_past(order.resume, self.fit.iteration, self.goal)

    @property
    def beginning(self) -> str:
        """What is going to be done, in one line."""
        s, height, width = self.fit.settings, *self.picture.pixels.shape[:2]
        missing = "" if self._mask is None else f", {1 - self._mask.mean():.1%} missing"
        begun = f" from iteration {self.fit.iteration} on" if self.fit.iteration else ""
        return (
            f"{self.job.source}: {height} x {width} pixels (height x width){missing}; "
            f"preset {s.preset.name}, {self.goal} iterations{begun}, {s.device}, {s.precision}"
        )

    def run(self, say: Callable[[str], None] | None = None, *, aside: bool = False) -> dict[str, Any]:
        """Fit, and write the result.

        Parameters
        ----------
        say : callable, optional
            Takes the line that tells how long it is going to take, where no progress bar does.
        aside : bool, default False
            Write the picture of a fit that was interrupted under the name of its iteration, so that the target does
            not look as if it were done.

        Returns
        -------
        dict
            The report, in JSON types; its "status" is "done" or "interrupted".

        Raises
        ------
        Failure
            The fit diverged, found no room, or the result could not be written.
        KeyboardInterrupt
            Ctrl-C before there was a picture.
        """
        fit, target, goal = self.fit, self.job.target, self.goal
        if say is not None and not shows_progress():
            fit.callbacks.append(Estimate(goal - fit.iteration, say))
        with failing():
            try:
                if goal > fit.iteration and fit.stop_reason is None:  # else it is resumed, and was at its end
                    fit.run(goal - fit.iteration)
            except DivergenceError as error:
                raise Failure(one_line(error) + self._saved_aside()) from error
            except KeyboardInterrupt:  # a second Ctrl-C, which did not wait for the end of the iteration
                fit.stop_reason = "interrupted"
            cut_short = fit.stop_reason == "interrupted"
            with _interrupts_held_back() as late:
                restored = self._restored()
                if cut_short and aside:
                    target = numbered(target, fit.iteration)
                self._write(target, restored, force=self.order.force or target != self.job.target)
                report = {
                    "schema": SCHEMA,
                    "command": self.order.command,
                    "status": "interrupted" if cut_short else "done",
                    **self.job.names(),
                    "output": str(target),
                    "seed": fit.settings.seed,
                    "iterations": fit.iteration,
                    "seconds": round(fit.seconds, 3),
                    "stop_reason": fit.stop_reason or "iterations",
                    "figures": self._figures(restored),
                    "settings": self._settings(goal),
                    "recoveries": fit.recoveries,
                    "environment": environment(),
                    "history": fit.history.as_dict(),
                }
        self.interrupted = cut_short or bool(late)
        return report

    def _restored(self) -> np.ndarray:
        try:
            return self.fit.image
        except RuntimeError:  # not one iteration was done
            raise KeyboardInterrupt from None

    def _saved_aside(self) -> str:
        """Write what there was before a fit diverged, and say so."""
        path = numbered(self.job.target, self.fit.iteration)
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            image = self.fit.image
            if np.isfinite(image).all():
                self._write(path, image, force=True)
                return f"; the picture so far is {path}"
        return ""

    def _save_numbered(self, fit: Fit) -> None:
        """Write the picture so far. A full disk must not end a fit of hours: it is said and forgotten."""
        try:
            self._write(numbered(self.job.target, fit.iteration), fit.image, force=True)
        except OSError as error:
            warn(f"the picture of iteration {fit.iteration} was not written: {error}")

    def _write(self, path: Path, pixels: np.ndarray, *, force: bool) -> None:
        alpha = None if self.picture.alpha is None else _resized(self.picture.alpha, pixels.shape[:2])
        files.write(path, pixels, like=self.picture, alpha=alpha, force=force)

    def _figures(self, restored: np.ndarray) -> dict[str, float]:
        """PSNR (dB) and SSIM of the picture as written, and of what there was before."""
        if self._clean is None:
            return {}
        x, y = self._as_x(restored), self._as_x(self.picture.pixels)
        figures = {"psnr": metrics.psnr(x, self._clean), "ssim": metrics.ssim(x, self._clean)}
        if self._mask is not None:
            missing = torch.from_numpy(~self._mask)
            if missing.any():
                there, wanted = x[:, missing][:, None], self._clean[:, missing][:, None]
                figures["psnr_missing"] = metrics.psnr(there, wanted)
            return figures
        if y.shape != x.shape:
            # Pillow's bicubic interpolation, the usual measure
            size = (x.shape[1], x.shape[2])
            y = torch.nn.functional.interpolate(y[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
        figures["psnr_before"] = metrics.psnr(y, self._clean)
        figures["ssim_before"] = metrics.ssim(y, self._clean)
        return figures

    def _as_x(self, pixels: np.ndarray) -> Tensor:
        return images.to_tensor(pixels, images.describe(pixels, data_range=self.order.data_range))[0]

    def _settings(self, iters: int) -> dict[str, Any]:
        s = self.fit.settings
        return {
            "preset": s.preset.name,
            "iters": iters,
            "network": {"name": s.preset.network, **s.preset.options, **self._network_options()},
            "parameters": sum(p.numel() for p in self.fit.network.parameters()),
            "code": repr(s.code),
            "jitter": s.jitter,
            "loss": repr(s.loss),
            "optimizer": s.optimizer,
            "lr": s.lr,
            "average": s.average,
            "stop": None if s.stop is None else repr(s.stop),
            "device": str(s.device),
            "precision": s.precision,
            "invert_mask": self.order.invert_mask if self._mask is not None else None,
            **self._task.fingerprint(),
        }

    def _network_options(self) -> dict[str, Any]:
        given = self.order.options.get("network")
        return given if isinstance(given, dict) else {}


def summary(report: dict[str, Any]) -> str:
    """Return what a report comes to, in one line."""
    figures, reason = report["figures"], report["stop_reason"]
    parts = [f"{report['iterations']} iterations in {duration(report['seconds'])}"]
    if reason != "iterations":
        parts.append(f"stopped: {reason}")
    elif report["settings"]["stop"] is not None:
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
def _interrupts_held_back() -> Iterator[list[int]]:
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


def _resized(alpha: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Alpha at another size, as `dip.images` does it for RGBA arrays."""
    rgba = np.repeat(alpha[..., None], 4, axis=2)
    layout = images.describe(rgba)
    return np.asarray(images.from_tensor(torch.zeros(1, 3, *size), layout, alpha_from=rgba))[..., 3]


def _json(report: dict[str, Any]) -> str:
    """A report as JSON with one line for each of its entries, long lists included."""
    lines = [f"  {json.dumps(key)}: {json.dumps(_plain(value))}" for key, value in report.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
