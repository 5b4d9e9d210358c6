"""Restore one picture on disk by a fit: read it, fit, write the result, and report what was done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dip import files, images
from dip.callbacks import Estimate, Every, shows_progress
from dip.console import one_line
from dip.errors import warn
from dip.guard import DivergenceError
from dip.order import Failure, FitOrder, Job, failing, memory_errors, numbered
from dip.settings import Options, network_options
from dip.solver import Fit
from dip.stopping import warn_if_past
from dip.work import Work, interrupts_held_back

__all__ = ["Restoration", "known_pixels"]


class Restoration(Work):
    """One picture and its fit: made, everything that can be wrong has been checked; `run` does the work.

    Parameters
    ----------
    job : Job
        Its files.
    order : FitOrder
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

    def __init__(self, job: Job, order: FitOrder) -> None:
        self.order = order
        super().__init__(job, order)
        job.check(order.save_every, going_on=order.resume is not None, force=order.force)
        pixels = self.picture.pixels
        if job.mask is not None:
            size = pixels.shape[0], pixels.shape[1]
            self._mask = known_pixels(job.mask, size, invert=order.invert_mask, keep_known=order.keep_known)
        self._task = order.problem(pixels, self._mask, job.source)
        layout, self._enlarge = self._task.layout, self._task.enlarge
        self._range = layout.low, layout.high
        options: Options = {**order.options}
        if job.reference is not None:
            reference = files.read(job.reference).pixels
            options["reference"] = reference
            self._clean = self._task.clean(reference)[0]
        if order.save_every is not None:
            options["callbacks"] = [Every(order.save_every, self._save_numbered)]
        with failing():  # what is wrong with the picture itself, rather than with what was said of it
            images.to_tensor(pixels, layout, known=self._mask, spread=self._task.spread)
        try:
            with memory_errors():
                self.fit = Fit(self._task, **options)
                if order.resume is not None:
                    self.fit.load(order.resume)
        except MemoryError as error:
            raise Failure(one_line(error)) from error
        self.goal = order.total(self.fit.settings)
        warn_if_past(order.resume, self.fit.iteration, self.goal)

        checkpoint = order.options["checkpoint"]
        if checkpoint is not None:
            self.going_on = f"to go on, repeat the command with --resume {checkpoint} --force"

    def _check_room(self, size: tuple[int, int]) -> None:
        self.order.check(size)

    @property
    def beginning(self) -> str:
        """What is going to be done, in one line."""
        s = self.fit.settings
        missing = "" if self._missing is None else f", {self._missing:.1%} missing"
        begun = f", {self.fit.iteration} of which are done" if self.fit.iteration else ""
        words = getattr(self._task, "words", "")
        if s.consistent and getattr(self._task, "clipped", None) is not None:
            words += f"{words and ', '}noise that was clipped"
        crops = "" if s.tile is None else f" of {'crops' if s.tiles > 1 else 'one crop'} of {s.tile} x {s.tile}"
        return (
            f"{self._given}{missing}{words and ', ' + words}; "
            f"preset {s.preset.name}, {self.goal} iterations{crops}{begun}, {s.device}, {s.precision}"
        )

    @property
    def _missing(self) -> float | None:
        """The share of the pixels that are missing."""
        return None if self._mask is None else float((self._mask == 0).mean())

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
            with interrupts_held_back() as late:
                restored = self._restored()
                if cut_short and aside:
                    target = numbered(target, fit.iteration)
                self._write(target, restored, force=self.order.force or target != self.job.target)
                report = self._report(
                    target,
                    restored,
                    status="interrupted" if cut_short else "done",
                    seed=fit.settings.seed,
                    iterations=fit.iteration,
                    seconds=round(fit.seconds, 3),
                    stop_reason=fit.stop_reason or "iterations",
                    settings=self._settings(goal),
                    recoveries=fit.recoveries,
                    history=fit.history.as_dict(),
                )
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

    def _settings(self, iters: int) -> dict[str, Any]:
        s = self.fit.settings
        return {
            "preset": s.preset.name,
            "iters": iters,
            "network": network_options(self.order.options.get("network"), s.preset),
            "parameters": sum(p.numel() for p in self.fit.network.parameters()),
            "code": repr(s.code),
            "jitter": s.jitter,
            "flips": s.flips,
            "flips_began": self.fit._flips.began,
            "loss": repr(s.loss),
            "optimizer": s.optimizer,
            "lr": s.lr,
            "average": s.average,
            "consistent": s.consistent,
            "stop": None if s.stop is None else repr(s.stop),
            "device": str(s.device),
            "precision": s.precision,
            "invert_mask": self.order.invert_mask if self._mask is not None else None,
            "missing": self._missing,
            **self._task.fingerprint(),
            **self.order.named,
        }


def known_pixels(path: Path, size: tuple[int, ...], *, invert: bool, keep_known: bool) -> np.ndarray:
    """Read the mask of a picture, before anything is fitted.

    Parameters
    ----------
    path : Path
        The file.
    size : (int, int)
        Height and width of the picture.
    invert : bool
        Whether it shows the missing pixels instead of the known ones.
    keep_known : bool
        Whether known pixels are returned as they are, so that there have to be others.

    Returns
    -------
    ndarray
        (H, W), bool, True = known; or float32, weights in [0, 1].

    Raises
    ------
    ValueError, OSError
        The mask cannot be read, is of another size, or leaves nothing to do it with or for.
    """
    mask = files.read_mask(path, size=(size[0], size[1]), weights=True)
    if invert:
        mask = ~mask if mask.dtype == bool else 1 - mask
    if not mask.any():
        why = "it is white everywhere, and --invert-mask makes that missing" if invert else "it is black everywhere"
        raise ValueError(f"{path} marks no pixel as known: {why}; give one in which some pixels are known")
    if keep_known and mask.min() == 1:
        missing = "white, with --invert-mask" if invert else "black (0)"
        raise ValueError(
            f"{path} marks every pixel as known, so that there is nothing to do; make those that are missing {missing} "
            "in it, or fit a picture to all of them, with --no-keep-known"
        )
    return mask
