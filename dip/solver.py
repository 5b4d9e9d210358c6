"""The one loop: θ* = argmin_θ E(A f_θ(z); y), for every task."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from dip import ahead, codes, devices, folds, losses, optimizers, renewal, storage
from dip import checkpoint as checkpoints
from dip._version import __version__
from dip.averaging import ExponentialAverage
from dip.callbacks import Reference, interrupts, progress_bar
from dip.crops import Crops
from dip.draws import Draws
from dip.errors import positive_int, shown, warn
from dip.flips import planned
from dip.guard import Guard, Watch
from dip.history import History
from dip.jitter import Jitter
from dip.problem import Correcting, Observation, Problem, corrected
from dip.replay import Replays
from dip.settings import Options, resolve


class Fit(checkpoints.Saved):
    r"""The fit of one network to one observation: its whole state, and its result.

    `dip.fit` makes one and runs it; made directly, it has done nothing yet.

    Parameters
    ----------
    task : Problem
        `dip.Denoise`, `dip.Inpaint`, `dip.SuperResolve`, `dip.Deblur`, `dip.Dejpeg` or `dip.Reconstruct`.
    **options
        See `dip.settings.Options`.

    Attributes
    ----------
    image : array
        The restored image, in the kind, shape, dtype and range of the one given.
    picture, current, output : Tensor
        In [0, 1], (1, C, H, W), on the device: what `image` shows; what it would show without a stopping rule (the
        average); f_θ(z) of the last iteration alone. With `noise`, or stretched (`dip.stretch`), as the fit sees them.
    iteration : int
        Iterations done.
    history : History
        "loss" of each iteration, and what callbacks recorded.
    stop_reason : str or None
        Why the last run ended: "iterations", "interrupted", or the words of a rule, flips or a callback.
    seconds : float
        Time spent in iterations.
    recoveries : list of dict
        Divergences: {"iteration", "loss", "back_to"}.
    settings : Settings
        What the options came to.
    network, code : Module, Tensor
        f_θ and z.

    Raises
    ------
    ValueError, TypeError
        An option, name or value is not what it should be.
    MemoryError
        The fit would not find room (estimated before the data are touched).

    Notes
    -----
    The same seed gives the same picture, bit for bit, on the CPU with the same number of threads and versions.
    """

    @torch.inference_mode(False)  # what is made under it could not be trained
    def __init__(self, task: Problem, **options: Unpack[Options]) -> None:
        self.task = task
        self.settings = s = resolve(task, options)
        observation = task.load()
        reference, init = options.get("reference"), options.get("init")
        clean = None if reference is None else task.clean(reference)
        self.device = s.device
        self.y = observation.y.to(self.device)
        self.weight = None if observation.weight is None else observation.weight.to(self.device)
        task.place(Observation(self.y, self.weight))
        self._view, first = folds.way(s, task, observation.y, self.weight)
        self._code = s.code
        if isinstance(self._code, codes.RENEWED):
            self._code, first = self._code.begun(task, observation.y)
        elif s.consistent and isinstance(task, Correcting):
            task.consistent(None, self.y, times=1)  # whether it can is told now, as it is by such a code
        z = codes.draw(self._code, s.code_frame, s.code_seed, first)

        # Channels-last suits convolutions; LBFGS flattens the weights and needs them in the plain order.
        order = torch.contiguous_format if s.optimizer == "lbfgs" else torch.channels_last
        self.network = s.network.to(self.device, memory_format=order).train()  # type: ignore[call-overload]
        self.code = z.to(self.device).contiguous(memory_format=order)
        if init is not None:
            self._warm_start(init)
        self.code.requires_grad_(s.optimize_code)
        self._jitter = Jitter(s.jitter, s.jitter_seed, self.device, s.dtype)
        self._draws = Draws(self.network, s.jitter_seed + 1, self.device)
        self._flips = planned(s.flips, task, self._code, s.tiles, self.device, ends=s.stop is None)
        self._part = self.code
        self._gain = losses.gain(self.y)
        self._fitted = [p for p in self.network.parameters() if p.requires_grad] + [self.code] * s.optimize_code
        self._optimizer = optimizers.create(s.optimizer, self._fitted, s.lr)
        if init is not None:
            optimizers.carry_over(self._optimizer, init._optimizer)
        self._average = ExponentialAverage(s.average)
        self._rule = s.stop
        if self._rule is not None:
            self._rule.place(partial(losses.of_picture, s.loss, task.forward, self.y, self.weight))
        self._guard, self._watch, self._replays = Guard(), Watch(), Replays()
        self._digests = {"image": checkpoints.digest(observation.y, observation.weight), "z": checkpoints.digest(z)}

        self.callbacks = list(s.callbacks)
        if clean is not None:
            every = 10 * s.tiles if self._view.in_parts else 1  # a look takes a pass of its own
            self.callbacks.insert(0, Reference(clean.to(self.device), every=every))
        self.history = History(() if clean is None else Reference.SERIES)
        self.iteration, self.seconds = 0, 0.0
        self._goal: int | None = None
        self.recoveries: list[dict[str, Any]] = []
        self.stop_reason: str | None = None
        self._stop: str | None = None
        self._output: Tensor | None = None
        self._owns_checkpoint = False

    def __repr__(self) -> str:
        return (
            f"<Fit {self.task.task} of {' x '.join(map(str, self.task.shape))}: {self.iteration} iterations, "
            f"{self.seconds:.0f} s, stopped by {self.stop_reason!r}>"
        )

    # ------------------------------------------------------------------ the loop

    def step(self) -> None:
        """Do one iteration: fresh jitter, forward, loss, backward, optimiser, average, rule, callbacks, checkpoint."""
        started = time.perf_counter()
        with torch.inference_mode(False), torch.enable_grad():
            self._iterate()
        self.seconds += time.perf_counter() - started
        try:
            for callback in self.callbacks:
                if self.iteration % getattr(callback, "every", 1) == 0:
                    callback(self)
        except Exception:
            self._save_checkpoint()  # the fit itself is whole
            raise
        if self.iteration % self.settings.checkpoint_every == 0:
            self._save_checkpoint()

    def _iterate(self) -> None:
        renewal.renew(self)
        if self._view.settles(self.iteration, self._goal):
            self._watch.settle(self)
            self._view.settle(self.network, self.code, self.settings.dtype, self.iteration)
            # the optimiser's moments, and what the guard has kept, are of another function
            self._optimizer = optimizers.create(self.settings.optimizer, self._fitted, self.settings.lr)
            self._guard = Guard()
            self._guard.keep(self.iteration, self._trainable_state())
        if self._flips.after == self.iteration > 0:
            self._watch.settle(self)
            self._guard.forget_losses()  # of a code that was never mirrored the loss may be many times as large
        self._part = self._view.part(self.code)
        replay = self._replays.of(self, 0 if self._goal is None else self._goal - self.iteration)
        loss, data_loss, output = self._evaluate_anew() if replay is None else replay.evaluate()
        self.iteration += 1
        self.history.record(self.iteration, loss=loss)
        if self.settings.penalties:
            self.history.record(self.iteration, data_loss=data_loss)
        self._output = None if self._view.in_parts else output
        if not self._watch.check(self, loss):
            return
        pace = self._view.pace(self.iteration - 1, self._goal)
        optimizers.set_lr(self._optimizer, self.settings.lr * self._guard.lr_factor * pace)
        if replay is None:
            self._advance(loss, output)
        else:
            replay.advance()
        if self._rule is not None and self._rule.update(self.iteration, output, self.current, data_loss):
            self.stop(self._rule.reason)
        due = self._flips.is_due(self.iteration)
        if due and self._flips.look(self.iteration, self.y - self.current, self.weight):
            self.stop(self._flips.reason)

    def _advance(self, loss: Tensor, output: Tensor) -> None:
        """Take the optimiser's step, and the output into the average."""
        known = [loss]

        def again() -> Any:
            """Evaluate the loss as often as LBFGS likes; the first time it is the one at hand."""
            value = known.pop() if known else self._evaluate()[0]
            return value if self._gain is None else value * self._gain

        self._optimizer.step(again)
        if not self._view.in_parts:
            self._average.update(output)

    def _evaluate_anew(self) -> tuple[Tensor, Tensor, Tensor]:
        """Do what `_evaluate` does with fresh jitter, mirrored another way."""
        self._jitter.draw(self._part)
        self._flips.draw(self._part.shape[2:])
        return self._evaluate()

    def _evaluate(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the objective (its gradients in place), the data loss in it, and the output."""
        self._optimizer.zero_grad(set_to_none=True)
        seen = self._flips.turn(self._jitter.add(self._part).to(self.settings.dtype))
        with self._draws():
            made = self.network(seen)
        x = self._view.picture(self._flips.turn(made))
        prediction, y, weights = self._view.compared(self.task.forward(x), self.y, self.weight)
        weight = {} if weights is None else {"weight": weights}
        data_loss = losses.checked("the loss", self.settings.loss, prediction, y, **weight)
        loss = data_loss
        for penalty in self.settings.penalties:
            loss = loss + losses.checked("the penalty", penalty, x)
        loss.backward(self._gain, inputs=self._fitted)  # and of nothing else: an operator may have weights of its own
        return loss.detach(), data_loss.detach(), x.detach()

    def _look(self) -> None:
        """Look at the last losses, make the whole of a fit in parts, and count the time: a GPU is waited for here."""
        started = time.perf_counter()
        self._watch.settle(self)
        if self._view.in_parts:
            with torch.inference_mode(False):
                _ = self.output
        self.seconds += time.perf_counter() - started

    def run(self, iters: int | None = None) -> Fit:
        """Do `iters` iterations, or until a rule, flips, a callback or Ctrl-C end the run.

        Parameters
        ----------
        iters : int, optional
            How many *more* iterations; the preset's count (for each tile) by default.

        Returns
        -------
        Fit
            Itself.

        Raises
        ------
        TypeError, ValueError
            `iters` is not a whole number above 0.
        FileExistsError
            The checkpoint's file exists, and is not this fit's.
        DivergenceError
            The fit diverged again and again.
        """
        goal = self.iteration + positive_int(self.settings.iters if iters is None else iters, "iters")
        self._claim_checkpoint()
        self._stop, self._goal = None, goal
        self._flips.go_to(self.iteration)  # in case that the last iteration was broken off
        bar = progress_bar(self, goal - self.iteration)
        try:
            with self._replays, interrupts(self.stop), bar:
                with devices.reused_memory(self.device):
                    while self.iteration < goal and self._stop is None:
                        if not ahead.iterate(self, goal):
                            self.step()
                self._look()  # what is kept from iterations does not suit a pass over the whole
                self._save_checkpoint()
        finally:
            self._goal = None
            self._flips.go_to(self.iteration)
        self.stop_reason = self._stop or "iterations"
        return self

    def stop(self, reason: str = "stopped") -> None:
        """End the run after the current iteration; may be called from a callback or another thread."""
        self._stop = reason

    def record(self, **values: float | Tensor) -> None:
        """Add values to the history at the current iteration, in series of names that the fit itself has not."""
        self.history.note(self.iteration, **values)

    # ------------------------------------------------------------------ the result

    @property
    def output(self) -> Tensor:
        """f_θ(z) of the last iteration, (1, C, H, W) in [0, 1]; in a fit in parts it takes a pass over the whole."""
        if self._output is None:
            if not (isinstance(self._view, Crops | folds.Folds) and self.iteration):
                raise RuntimeError("the fit has not been run yet; call run()")
            with self._draws(kept=False):
                self._output = self._view.look(self.network, self.code, self.settings.dtype, self.iteration)
        return self._output

    @property
    def current(self) -> Tensor:
        """The average of the outputs so far (the last output if averaging is off), (1, C, H, W) in [0, 1].

        A fit in crops, or to known pixels held out, sees no whole outputs on its way: of it this is `output`.
        """
        return self.output if self._average.value is None else self._average.value

    @property
    def picture(self) -> Tensor:
        """What `image` shows: `current`, or what it was at the moment that the stopping rule found best."""
        best = None if self._rule is None else self._rule.image
        return self.current if best is None else best

    @property
    def image(self) -> Any:
        """The restored image, in the kind, dtype and range of the one given."""
        return self.task.output(self.compose(self.picture))

    def compose(self, x: Tensor) -> Tensor:
        """Return what the task makes of an x: inpainting puts the known pixels back, `consistent` corrects it."""
        if self.settings.consistent:
            x = corrected(self.task, x, self.y)
        return self.task.compose(x)

    # ------------------------------------------------------------------ the state

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the whole state to a file, whole or not at all (see `dip.checkpoint`).

        Raises
        ------
        OSError
            The file cannot be written.
        """
        state = {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "trained": self._trainable_state(),
            "code": self.code,
            "told": renewal.state_dict(self),
            "jitter": self._jitter.state_dict(),
            "draws": self._draws.state,
            "view": self._view.state_dict(),
            "guard": self._guard.state_dict(),
            "unchecked": list(self._watch.unchecked),
            "recoveries": self.recoveries,
            "rule": None if self._rule is None else self._rule.state_dict(),
            "flips": self._flips.state_dict(),
            "history": self.history.state_dict(),
        }
        return checkpoints.save(path, state, self.fingerprint())

    def _save_checkpoint(self) -> None:
        """Save, if that is wanted; where it fails say so and go on: the fit is worth more than its file."""
        if self.settings.checkpoint is None:
            return
        try:
            self._claim_checkpoint()
            self.save(self.settings.checkpoint)
        except Exception as error:
            warn(
                f"no checkpoint could be written at iteration {self.iteration}: {error}; the fit goes on without",
            )

    def _claim_checkpoint(self) -> None:
        """Make the checkpoint's file this fit's own; it stays so. One that another fit has written is refused."""
        if not self._owns_checkpoint:
            checkpoints.check_free(self.settings.checkpoint)
            self._owns_checkpoint = True

    @torch.inference_mode(False)
    def load(self, path: str | os.PathLike[str]) -> Fit:
        """Go on from a file that `save` wrote for the same image, task, network and settings.

        Raises
        ------
        CheckpointError
            The file is damaged, or belongs to another fit.
        FileNotFoundError
            There is no such file.
        """
        state = checkpoints.load(path, self.fingerprint())
        if storage.same(path, self.settings.checkpoint):
            self._owns_checkpoint = True
            storage.remove_leftovers(path)
        with torch.no_grad():
            self.code.copy_(state["code"])
        self._load_trainable_state(state["trained"])
        self._jitter.load_state_dict(state["jitter"])
        self._draws.go_on(state.get("draws"))
        self._view.load_state_dict(state["view"], self.network)
        self._guard.load_state_dict(state["guard"])
        self._watch = Watch([loss.to(self.device) for loss in state["unchecked"]])
        if self._rule is not None:
            self._rule.load_state_dict(state["rule"], self.device)
        self.history.load_state_dict(state["history"])
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self._flips.load_state_dict(state["flips"], self.iteration)
        renewal.load_state_dict(self, state.get("told"))
        self.recoveries = state["recoveries"]
        enders = (one for one in (self._rule, self._flips) if one is not None and 0 < one.ended_at == self.iteration)
        self.stop_reason = next((one.reason for one in enders), None)
        return self

    def fingerprint(self) -> dict[str, Any]:
        """Return what has to agree between a checkpoint and the fit that resumes it."""
        task = {"task": self.task.task, **self.task.fingerprint()}
        preset = self.settings.preset.name
        return {"dip": __version__, "preset": preset, **task, **self.settings.fingerprint(), **self._digests}

    def _kept_state(self) -> dict[str, Any]:
        """Return what `_trainable_state` does; a recording has room for two, that of the guard and the next."""
        made = self._replays.made
        return self._trainable_state() if made is None else made.kept(self)

    def _trainable_state(self) -> dict[str, Any]:
        """Return copies of all that an optimiser's step changes, and the average."""
        return {
            "network": optimizers.copies(self.network.state_dict()),
            "code": self.code.detach().clone() if self.code.requires_grad else None,
            "optimizer": optimizers.state_dict(self._optimizer),
            **self._looks(),
        }

    def _looks(self) -> dict[str, Any]:
        """Return the part of that which is no training's: the average, copied, and the output."""
        return {"average": self._average.state_dict(), "output": self._output}

    @torch.inference_mode(False)
    def _load_trainable_state(self, state: dict[str, Any]) -> None:
        self._replays.doubt()
        self.network.load_state_dict(state["network"])
        if state["code"] is not None:
            with torch.no_grad():
                self.code.copy_(state["code"])
        optimizers.load_state_dict(self._optimizer, state["optimizer"])
        self._average.load_state_dict(state["average"], self.device)
        self._output = None if state["output"] is None else state["output"].to(self.device)

    def _warm_start(self, init: Fit) -> None:
        if not isinstance(init, Fit):
            raise TypeError(f"init={shown(init)}: give an earlier fit, as returned by dip.fit")
        ours, theirs = self.network.state_dict(), init.network.state_dict()
        if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
            raise ValueError("init is the fit of a network of another shape; take the same network and channels here")
        self.network.load_state_dict(theirs)
        if init.code.shape == self.code.shape and not isinstance(self.settings.code, codes.OF_PICTURES):
            self.code.copy_(init.code.detach())
