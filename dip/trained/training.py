"""The training of a denoiser: one loop for every model, method and loss."""

from __future__ import annotations

import contextlib
import copy
import datetime
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dip import checkpoint, devices, optimizers, storage
from dip._version import __version__
from dip.callbacks import bar_class, duration, interrupts, shows_progress
from dip.trained import architectures, curves, parts, store
from dip.trained.inference import Denoiser
from dip.trained.outcome import (
    CHECKPOINT,
    CURVES,
    METRICS,
    SCHEMA,
    WEIGHTS,
    check_folder,
    remove_earlier,
    tensorboard_writer,
    write_json,
)
from dip.trained.pairs import Pairs, ahead, decibels, prepare
from dip.trained.recipe import Recipe

__all__ = ["Training", "train"]

Say = Callable[[str], Any]


class Training:
    """A training: made, everything that can be wrong has been checked; `run` does the work.

    Parameters
    ----------
    recipe : Recipe
        What is trained, and how.
    data : ndarray, Tensor or Patches
        Clean pictures; see `dip.trained.pairs.prepare`.
    out : path, optional
        Folder for weights, metrics, learning curves and checkpoint.
    device : str or torch.device
        "auto" takes CUDA, else Apple's MPS, else the CPU.
    resume : bool
        Go on from the checkpoint in `out`.
    force : bool
        Replace what `out` has of an earlier training.
    tensorboard : bool
        Write the curves for TensorBoard too, into ``out/tensorboard``.
    progress : bool, optional
        Show a progress bar; by default in a terminal and in a notebook.
    say : callable, optional
        Takes a line about each epoch, where there is no bar.
    about : dict, optional
        What else is to be kept with weights and metrics, such as what the data are; of JSON types.

    Attributes
    ----------
    history : dict of list of float
        By epoch: "train_loss", "validation_loss", "psnr_against_clean" (of the noisy validation pictures, restored; it
        decides nothing), "lr", "seconds".
    epoch : int
        Epochs done.
    best_epoch : int
        That with the lowest validation loss, from 1 on; 0 before the first.
    stop_reason : str or None
        "epochs", "early stopping", "interrupted" or "diverged".
    seconds : float
        In the loop, those before a resume included.

    Raises
    ------
    ValueError, TypeError
        The data do not suit the model, or an option does not suit the device.
    FileExistsError
        `out` has a training already.
    ImportError
        A package is missing that was asked for.
    """

    @torch.inference_mode(False)  # what is made under it could not be trained
    def __init__(
        self,
        recipe: Recipe,
        data: Any,
        *,
        out: str | os.PathLike[str] | None = None,
        device: str | torch.device = "auto",
        resume: bool = False,
        force: bool = False,
        tensorboard: bool = False,
        progress: bool | None = None,
        say: Say | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.recipe, self.out = recipe, None if out is None else Path(out)
        self.device = devices.resolve(device)
        self.dtype = parts.precision(recipe.precision, self.device)
        self._progress = shows_progress(progress)
        self._say, self._about = say, about or {}
        check_folder(self.out, resume=resume, force=force, tensorboard=tensorboard)
        self._writer_class = tensorboard_writer() if tensorboard else None
        pairs, self._judge = prepare(recipe, data)
        self._pairs: Pairs = pairs
        generator = torch.Generator().manual_seed(recipe.seed)
        self.model = architectures.create(recipe.model, pairs.channels, generator=generator, **recipe.options)
        if self.model.padded_size(*pairs.size) != pairs.size:
            nearest = self.model.padded_size(*pairs.size)
            raise ValueError(
                f"the pictures have {pairs.size[0]} x {pairs.size[1]} pixels, and {recipe.model} is trained on sizes "
                f"such as {nearest[0]} x {nearest[1]}; cut or pad them"
            )
        # channels-last: the order in which convolutions are quickest
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = parts.optimizer(recipe, list(self.model.parameters()))
        self._loss = parts.loss(recipe.loss)
        self.epoch, self.step = 0, 0
        exact = torch.float32 if self.device.type == "mps" else torch.float64  # which MPS lacks
        self._sum = torch.zeros((), dtype=exact, device=self.device)
        self.history: dict[str, list[float]] = {
            name: [] for name in ("train_loss", "validation_loss", "psnr_against_clean", "lr", "seconds")
        }
        self.best_epoch = 0
        self._best: dict[str, Tensor] = {}
        self.stop_reason: str | None = None
        self.seconds, self._interrupted = 0.0, False
        self._resumed = resume
        if resume:
            self._restore()

    # ---------------------------------------------------------------- the loop

    @torch.inference_mode(False)
    @torch.enable_grad()
    def run(self) -> Training:
        """Train to the end, or until Ctrl-C, after which the checkpoint has the state of that step.

        Returns
        -------
        Training
            Itself. With an `out`, the weights, the metrics and the curves are written, and the checkpoint is removed,
            unless it was interrupted.
        """
        if self.out is not None and not self._resumed:
            remove_earlier(self.out)
        with self._bar() as bar, self._writer() as writer, interrupts(self._interrupt):
            started = time.perf_counter()
            while self.stop_reason is None:
                with devices.reused_memory(self.device):
                    self._train_epoch(bar)
                if self._interrupted:
                    self.stop_reason = "interrupted"
                    break
                before, now = self.seconds, time.perf_counter()
                self.seconds, started = before + now - started, now
                self._finish_epoch(bar, writer)
                if self.stop_reason is None:
                    self._save()
            self.seconds += time.perf_counter() - started
        if self.stop_reason == "interrupted":
            self._save()
        else:
            self._finish()
        return self

    def _interrupt(self, reason: str) -> None:
        self._interrupted = True

    def _train_epoch(self, bar: Any) -> None:
        """Do the steps of an epoch that are left; Ctrl-C ends it between two of them."""
        self.model.train()
        for step, (given, wanted) in ahead(self._pairs, self.epoch, self.step, self.device):
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate(step)
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._forward(given), wanted)
            loss.backward()
            self._optimizer.step()
            self._sum += loss.detach().to(self._sum.dtype) * len(given)
            self.step = step + 1
            bar.update(len(given))
            if self._interrupted:
                return

    def _rate(self, step: int) -> float:
        steps = self._pairs.steps
        return self.recipe.rate((self.epoch * steps + step) / (self.recipe.epochs * steps))

    def _finish_epoch(self, bar: Any, writer: Any) -> None:
        """Validate, and decide whether to go on."""
        mean = float(self._sum) / self._pairs.count
        loss, psnr = self._validate()
        rate = self._rate(self._pairs.steps - 1)
        self.epoch, self.step = self.epoch + 1, 0
        self._sum.zero_()
        for name, value in zip(self.history, (mean, loss, psnr, rate, self.seconds), strict=True):
            self.history[name].append(value)
        if math.isfinite(loss) and (not self._best or loss < self.history["validation_loss"][self.best_epoch - 1]):
            self.best_epoch, self._best = self.epoch, _copies(self.model)
        if not (math.isfinite(mean) and math.isfinite(loss)):
            self.stop_reason = "diverged"
        elif self.recipe.early_stopping and self.epoch - self.best_epoch >= self.recipe.patience:
            self.stop_reason = "early stopping"
        elif self.epoch == self.recipe.epochs:
            self.stop_reason = "epochs"
        words = {"loss": f"{mean:.4g}", "validation": f"{loss:.4g}", "PSNR": f"{decibels(psnr)} dB"}
        bar.set_postfix(words, refresh=False)
        if writer is not None:
            for name in ("train_loss", "validation_loss", "psnr_against_clean", "lr"):
                writer.add_scalar(name, self.history[name][-1], self.epoch)
        if self._say is not None and not self._progress:
            pace = f"{self._pairs.count * self.epoch / self.seconds:.0f} pictures a second, {duration(self.seconds)}"
            told = ", ".join(f"{name} {value}" for name, value in words.items())
            self._say(f"epoch {self.epoch} of {self.recipe.epochs}: {told}; {pace}")

    def _validate(self) -> tuple[float, float]:
        """The validation loss, by the pairs alone; and the PSNR, by the judge alone."""
        self.model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for step in range(self._pairs.validation_steps):
                given, wanted = (part.to(self.device) for part in self._pairs.validation(step))
                total += float(self._loss(self._forward(given), wanted)) * len(given)
                count += len(given)
            psnr = self._judge.psnr(self._restored)
        return total / count, psnr

    def _restored(self, noisy: Tensor) -> Tensor:
        return self._forward(noisy.to(self.device)).clamp(0, 1)

    def _forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        if self.dtype == torch.float32:
            found: Tensor = self.model(x)
            return found
        with torch.autocast(self.device.type, self.dtype):
            return self.model(x).float()

    # ---------------------------------------------------------------- what comes of it

    @property
    def denoiser(self) -> Denoiser:
        """The model with the weights that the recipe asks for: those of the best epoch, or the last.

        Raises
        ------
        RuntimeError
            The training diverged in its first epoch, or none has ended yet.
        """
        if not self._best:
            raise RuntimeError("there are no weights yet: no epoch has ended with a finite loss; take a lower lr")
        model = copy.deepcopy(self.model)
        if self.kept_epoch != self.epoch:
            model.load_state_dict(self._best)
        return Denoiser(model, self.recipe.model, {"options": self.recipe.options, **self._info()}, self.device)

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights are returned."""
        return self.best_epoch if self.recipe.restores_best or self.stop_reason == "diverged" else self.epoch

    @property
    def figures(self) -> dict[str, Any]:
        """What came of it, in a few numbers; of the epoch whose weights are returned."""
        last = self.kept_epoch - 1
        chosen = {name: self.history[name][last] if last >= 0 else None for name in list(self.history)[:3]}
        best = max(self.history["psnr_against_clean"], default=None)
        return {
            **chosen,
            "psnr_noisy": self._judge.psnr(lambda noisy: noisy),
            "highest_psnr_against_clean": best,
            "epochs": self.epoch,
            "kept_epoch": self.kept_epoch,
        }

    def report(self) -> dict[str, Any]:
        """Return the metrics, as they are written."""
        return {"schema": SCHEMA, "stop_reason": self.stop_reason, **self._info(), "history": self.history}

    def _info(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.as_dict(),
            **self._about,
            "channels": self.model.channels,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "figures": self.figures,
            "pictures": self._pairs.count,
            "digest": self._pairs.digest,
            "seed": self.recipe.seed,
            "seconds": round(self.seconds, 2),
            "device": str(self.device),
            "precision": str(self.dtype).removeprefix("torch."),
            "environment": devices.environment(),
            "date": datetime.date.today().isoformat(),
        }

    def _finish(self) -> None:
        if self.out is None:
            return
        if self._best:
            one = self.denoiser
            store.write(self.out / WEIGHTS, one.model, one.name, self.recipe.options, self._info())
        with contextlib.suppress(ImportError):
            storage.write_bytes(self.out / CURVES, curves.draw({"": self.history}))
        # last: it says that the training is done
        write_json(self.out / METRICS, self.report())
        (self.out / CHECKPOINT).unlink(missing_ok=True)

    # ---------------------------------------------------------------- going on later

    def _fingerprint(self) -> dict[str, Any]:
        return {
            "dip": __version__,
            "recipe": self.recipe.as_dict(),
            "channels": self._pairs.channels,
            "digest": self._pairs.digest,
        }

    def _save(self) -> None:
        if self.out is None:
            return
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "sum": self._sum,
            "model": self.model.state_dict(),
            "optimizer": optimizers.state_dict(self._optimizer),
            "best": self._best,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "seconds": self.seconds,
        }
        checkpoint.save(self.out / CHECKPOINT, state, self._fingerprint())

    def _restore(self) -> None:
        if self.out is None:
            raise ValueError("resume=True goes on from the checkpoint in out=, which is not given")
        storage.remove_leftovers(self.out / CHECKPOINT)
        state = checkpoint.load(self.out / CHECKPOINT, self._fingerprint(), of="training", same="data")
        self.epoch, self.step = state["epoch"], state["step"]
        self._sum.copy_(state["sum"])
        self.model.load_state_dict(state["model"])
        optimizers.load_state_dict(self._optimizer, state["optimizer"])
        self._best, self.best_epoch = state["best"], state["best_epoch"]
        self.history, self.seconds = state["history"], state["seconds"]

    # ---------------------------------------------------------------- watching

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Any]:
        steps = self._pairs.count * self.recipe.epochs
        bar = bar_class()(
            total=steps,
            initial=self.epoch * self._pairs.count + self.step * self.recipe.batch,
            desc=self.recipe.model,
            unit=" pictures",
            disable=not self._progress,
            dynamic_ncols=True,
        )
        try:
            yield bar
        finally:
            bar.close()

    @contextlib.contextmanager
    def _writer(self) -> Iterator[Any]:
        if self._writer_class is None or self.out is None:
            yield None
            return
        writer = self._writer_class(str(self.out / "tensorboard"), purge_step=self.epoch + 1)
        try:
            yield writer
        finally:
            writer.close()


def train(
    model: str,
    data: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    resume: bool = False,
    force: bool = False,
    tensorboard: bool = False,
    progress: bool | None = None,
    say: Say | None = None,
    about: dict[str, Any] | None = None,
    **options: Any,
) -> Training:
    """Train a denoiser on pictures.

    Parameters
    ----------
    model : str
        One of `dip.trained.names`.
    data : ndarray, Tensor or Patches
        Clean pictures: (N, H, W) or (N, H, W, C), uint8 or floats in [0, 1], such as `dip.datasets.cifar10` returns; or
        `dip.datasets.Patches`.
    out, device, resume, force, tensorboard, progress, say, about
        See `Training`.
    **options
        What is chosen of the training; see `Recipe`: noise, method, loss, optimizer, lr, schedule, batch, epochs,
        validation, early_stopping, patience, seed, ...

    Returns
    -------
    Training
        With `denoiser`, `history`, `figures`, `stop_reason`.

    Raises
    ------
    ValueError, TypeError, FileExistsError, ImportError
        An option or the data are not what they should be; see `Training`.

    Examples
    --------
    >>> pictures, _ = dip.datasets.cifar10("cifar-10-batches-bin")  # doctest: +SKIP
    >>> done = train("cnn5-residual-bn", pictures, noise="gaussian:25", epochs=5)  # doctest: +SKIP
    >>> restored = done.denoiser(noisy)  # doctest: +SKIP
    """
    Recipe.check_use(options)
    return Training(
        Recipe.made({"model": model, **options}),
        data,
        out=out,
        device=device,
        resume=resume,
        force=force,
        tensorboard=tensorboard,
        progress=progress,
        say=say,
        about=about,
    ).run()


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
