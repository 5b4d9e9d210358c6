"""Restore one picture on disk by a trained model: read it, apply the model, write the result, and report what was
done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dip import files
from dip.denoising import Denoise
from dip.order import Job, Order, failing
from dip.trained import Denoiser, tiles
from dip.work import Work, interrupts_held_back

__all__ = ["Application", "TrainedOrder"]


@dataclass(frozen=True, kw_only=True)
class TrainedOrder(Order):
    """What is to be done with every picture of a command by a trained model.

    Attributes
    ----------
    model : Denoiser
        The model.
    """

    model: Denoiser


class Application(Work):
    """One picture and the model for it: made, everything that can be wrong has been checked; `run` does the work.

    Parameters
    ----------
    job : Job
        Its files.
    order : TrainedOrder
        What is to be done.

    Raises
    ------
    Failure
        The picture cannot be read.
    ValueError, TypeError, OSError
        The data range or the reference does not suit it, or the result could not be written.
    """

    def __init__(self, job: Job, order: TrainedOrder) -> None:
        self.order = order
        super().__init__(job, order)
        job.check(None, going_on=False, force=order.force)
        task = Denoise(self.picture.pixels, noise="gaussian", data_range=order.data_range)
        self._range = task.layout.low, task.layout.high
        if job.reference is not None:
            self._clean = task.clean(files.read(job.reference).pixels)[0]
        with failing():
            task.load()
        self._manner = order.model.manner(task.shape[0])

    @property
    def beginning(self) -> str:
        """What is going to be done, in one line."""
        model = self.order.model
        manner = f"; {self._manner}" if self._manner else ""
        return f"{self._given}; model {model.name}, trained, {model.device}{manner}"

    def run(self, say: Callable[[str], None] | None = None, *, aside: bool = False) -> dict[str, Any]:
        """Apply the model, and write the result.

        Returns
        -------
        dict
            The report, in JSON types.

        Raises
        ------
        Failure
            It found no room, or the result could not be written.
        KeyboardInterrupt
            Ctrl-C before there was a picture.
        """
        target, model = self.job.target, self.order.model
        started = time.perf_counter()
        with failing():
            restored = model(self.picture.pixels, data_range=self._range)
            seconds = time.perf_counter() - started
            with interrupts_held_back() as late:
                self._write(target, restored, force=self.order.force)
                report = self._report(
                    target,
                    restored,
                    status="done",
                    backend="trained",
                    seconds=round(seconds, 3),
                    settings=self._settings(),
                )
        self.interrupted = bool(late)
        return report

    def _settings(self) -> dict[str, Any]:
        model = self.order.model
        cut = tiles.plan(model.model)
        known = ("recipe", "data", "figures", "seed", "date")
        return {
            "model": model.name,
            "file": str(model.path),
            "channels": model.channels,
            "parameters": model.parameters,
            "device": str(model.device),
            "tile": cut.tile,
            "overlap": cut.overlap,
            "manner": self._manner or None,
            "data_range": list(self._range),
            "training": {key: model.info[key] for key in known if key in model.info},
        }
