"""The iteration recorded once, as a CUDA graph, and replayed: what a GPU waits for in a fit is Python.

A replay is two graphs: from the jitter to the gradients, and the optimiser's step with the average. Between the two the
guard may look at the loss, as it does in an iteration that is computed plainly, and the step may not be taken.

A graph repeats what was done when it was recorded, at the same places in memory, whatever has become of them since. So

- it is compared with the plain iteration before it is used: two iterations each way from one state, which is put
  back afterwards. Where they differ, or the recording fails, the fit goes on plainly and says so;
- it is made sure that the fit's tensors are those of the recording, and its layers in the same mode: before each replay
  where code of the user's own has run since the last one, from time to time where none has;
- what leaves it is a copy;
- code of the user's own, which may do another thing each time that it is called, is recorded only if that is asked
  for (``engine="graph"``): no comparison could tell what it will do later.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from dip import optimizers
from dip.callbacks import Every
from dip.compared import Evaluated, State, compare, twice
from dip.errors import shown, unknown, warn
from dip.kept import Notes, Room
from dip.networks import recorded
from dip.recorder import Recorder, recorder

if TYPE_CHECKING:
    from dip.company import Company
    from dip.solver import Fit

ENGINES = ("auto", "graph", "plain")
WORTHWHILE = 100  # iterations of the run that have to be left: to record and compare takes the time of about ten
# Iterations between two looks at a recording's tensors where only the package's own code has run, and the first: not
# those in which the guard has its look.
_LOOK, _FIRST = 100, 62

# Of several fits in threads: a recording registers the device's generator, which takes one at a time.
_ONE_AT_A_TIME = threading.Lock()


def check(engine: Any, device: torch.device, optimizer: str, tile: int | None) -> str:
    """Return the engine's name, if there is such a one, and it can be had here.

    Raises
    ------
    ValueError
        It is unknown, or is "graph" where nothing can be recorded.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if engine == "graph":
        for wrong, why in (
            (recorder(device) is None, f"records an iteration on CUDA, and the device is {device}"),
            (optimizer != "adam", f"records steps of Adam, and optimizer={shown(optimizer)} looks at numbers in each"),
            (tile is not None, f"repeats an iteration as it is, and with tile={tile} each sees another crop"),
        ):
            if wrong:
                raise ValueError(f'engine="graph" {why}; leave engine out')
    return str(engine)


class Replays:
    """The recorded iteration of a fit, for the time of a run: a context, at whose end its memory is given back."""

    def __init__(self) -> None:
        self._made: Replay | None = None
        self._failed = self._doubted = False
        self._plain = 0  # iterations of the run that were not recorded
        self.company: Company | None = None  # with which the fit goes on

    def __enter__(self) -> Self:
        self._plain = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    @property
    def made(self) -> Replay | None:
        """The recording, if there is one."""
        return self._made

    @staticmethod
    def next_look(iteration: int) -> int:
        """Return the next iteration before which the recording's tensors are looked at."""
        return iteration + 1 + (_FIRST - iteration) % _LOOK

    def doubt(self) -> None:
        """Let the tensors be looked at before the next replay: a state was put back, maybe into other ones."""
        self._doubted = True

    def is_due(self, fit: Fit) -> bool:
        """Tell whether the recording's tensors are to be looked at before the next replay."""
        return self._doubted or (self._made is not None and self._made.is_due(fit))

    def _drop(self) -> None:
        if self._made is not None:
            if self.company is not None:
                self.company.part(self)
            with _ONE_AT_A_TIME:
                self._made.close()
                self._made = None

    def of(self, fit: Fit, left: int) -> Replay | None:
        """Return what does the next iteration of a fit, None where that is to be computed plainly.

        Parameters
        ----------
        fit : Fit
            The fit, between two iterations.
        left : int
            Iterations that are left of the run.
        """
        if self._made is not None and self.is_due(fit) and self._made.addresses != _addresses(fit):
            self._drop()
        if self._made is None and not self._failed and left >= WORTHWHILE:
            device = recorder(fit.device)
            if device is not None and _suits(fit):
                try:
                    with _ONE_AT_A_TIME:
                        self._made = _compared(fit, device)
                except Exception as error:
                    self._failed = True
                    first = error.__context__ or error  # the end of a recording that has failed fails too
                    why = str(first).partition("\n")[0] or type(first).__name__
                    for one in (error, first):  # their frames hold what was computed on the stream of the recording
                        traceback.clear_frames(one.__traceback__)
                    warn(
                        f"the iteration could not be recorded as a CUDA graph: {why}; the fit goes on without, as with "
                        'engine="plain", and takes longer'
                    )
        self._doubted = False
        self._plain += self._made is None
        if self._plain > 1 and self._made is None and self.company is not None:  # the first of them makes the tensors
            self.company.is_alone(fit)
        return self._made


class Replay:
    """An iteration that was recorded.

    Parameters
    ----------
    fit : Fit
        What it is an iteration of. Its optimiser's learning rate is a tensor already.
    device : Recorder
        What records it.
    """

    def __init__(self, fit: Fit, device: Recorder) -> None:
        self._optimizer, self._average = optimizer, average = fit._optimizer, fit._average
        self.device, kept = device, fit._replays.company is not None
        self._first = first = device.record(fit._evaluate_anew, fit._jitter.recorded, kept)

        self._step = step = optimizers.steps(optimizer)  # has memory that the graph reads
        loss, data_loss, _ = first.outputs
        self.notes = notes = Notes(loss, None if data_loss.data_ptr() == loss.data_ptr() else data_loss)

        def advance() -> tuple[Tensor, ...]:
            notes.take()
            step()
            average.mix(first.outputs[2])
            return ()

        self._second = device.record(advance, None, kept)
        self.recordings = first, self._second
        notes.begin()
        self._rooms: list[Room] = []
        self.addresses, self._others = _addresses(fit), not all(map(known, _code(fit)))

    def is_due(self, fit: Fit) -> bool:
        """Tell whether somebody may have changed something, or nobody has looked for long: it takes a millisecond."""
        if self._others or fit.iteration % _LOOK == _FIRST:
            return True
        ran = [callback for callback in fit.callbacks if fit.iteration % getattr(callback, "every", 1) == 0]
        return not all(one is None or known(one) for one in (*map(_called, ran), fit.settings.stop))

    def evaluate(self) -> Evaluated:
        """Draw the jitter and return the objective (its gradients in place), the data loss in it, and the output."""
        self._first.replay()
        return self.evaluated()

    def evaluated(self) -> Evaluated:
        """Return a copy of what was evaluated last."""
        loss, data_loss, output = self._first.outputs
        own = loss.clone()
        return own, own if data_loss.data_ptr() == loss.data_ptr() else data_loss.clone(), output.clone()

    def advance(self) -> None:
        """Take the optimiser's step, and the output into the average."""
        self._second.replay()
        self.counts(1)

    def several(self, count: int) -> None:
        """Do so many iterations, `kept.MOST` at most."""
        for _ in range(count):
            self._first.replay()
            self._second.replay()
        self.counts(count)

    def counts(self, count: int) -> None:
        """Take note that so many iterations were done."""
        self.notes.taken += count
        self._average.count += count

    def last(self, count: int) -> Evaluated:
        """Return what `evaluate` does of the last so many iterations: the losses of all, (count,), and the output."""
        losses = self.notes.last(count)
        return losses[0], losses[-1], self._first.outputs[2].clone()

    def kept(self, fit: Fit) -> dict[str, Any]:
        """Return a copy of what an optimiser's step changes, for the guard: in the room that it does not need."""
        free = [room for room in self._rooms if room.state is not fit._guard.good]
        if free:
            return free[0].filled(fit)
        self._rooms.append(Room(fit))
        return self._rooms[-1].state

    def close(self) -> None:
        """Leave an optimiser for plain steps; the gradients lie in memory that belongs to the graphs."""
        optimizers.recordable(self._optimizer, False)
        self._optimizer.zero_grad(set_to_none=True)


def _called(callback: Any) -> Any:
    """Return what a callback calls."""
    return _called(callback.function) if isinstance(callback, Every) else callback


def _suits(fit: Fit) -> bool:
    """Tell whether a fit's iteration can be recorded, and may be."""
    s = fit.settings
    if s.engine == "plain" or s.optimizer != "adam" or fit._view.in_parts or torch.is_autocast_enabled():
        return False
    if not (fit._average.count and fit._optimizer.state and (fit._jitter._noise is not None or not s.jitter)):
        return False  # they have no tensors yet
    return s.engine == "graph" or all(map(known, _code(fit)))


def _code(fit: Fit) -> Iterator[object]:
    """Yield everything whose code runs in an iteration."""
    yield from (fit.task, fit.settings.loss, *fit.settings.penalties, *fit.network.modules())
    if fit.task.support is None:  # the operator is the user's
        yield None


def known(thing: object) -> bool:
    """Tell whether a thing does the same each time: it is PyTorch's or of this package, and nobody hangs on it."""
    hooked = isinstance(thing, nn.Module) and any(_hooks(thing))
    return type(thing).__module__.split(".")[0] in ("dip", "torch") and not hooked


def _hooks(module: nn.Module) -> tuple[int, ...]:
    return (
        len(module._forward_hooks),
        len(module._forward_pre_hooks),
        len(module._backward_hooks),
        len(module._backward_pre_hooks),
    )


def worked_on(fit: Fit) -> Iterator[Tensor]:
    """Yield the tensors on a fit's device that an iteration works on, and the output that it has left."""
    for tensor in (*_places(fit), *fit._flips.tensors(), fit._output):
        if isinstance(tensor, Tensor) and tensor.device == fit.device:
            yield tensor


def _places(fit: Fit) -> Iterator[Tensor | None]:
    yield from (fit.y, fit.weight, fit.code, fit._average._sum)
    yield from (fit._jitter._noise, fit._jitter._count, fit._flips.count)
    for module in fit.network.modules():
        yield from module._parameters.values()
        yield from module._buffers.values()
    for group in fit._optimizer.param_groups:
        for parameter in group["params"]:
            yield from fit._optimizer.state.get(parameter, {}).values()


def _addresses(fit: Fit) -> list[Any]:
    """Return where in memory all that an iteration works on is, and the mode and the hooks of each layer."""
    found: list[Any] = [fit._average, fit._jitter.recorded]
    found += [(module.training, *_hooks(module)) for module in fit.network.modules()]
    found += [id(group["lr"]) for group in fit._optimizer.param_groups]
    return found + [None if tensor is None else tensor.data_ptr() for tensor in _places(fit)]


def _compared(fit: Fit, device: Recorder) -> Replay:
    """Record the iteration of a fit and compare it; the fit is left, or put back, as it is.

    Raises
    ------
    Exception
        It cannot be recorded, or is another than the plain one.
    """
    start, optimizer = State(fit, device), fit._optimizer

    def once() -> None:
        loss, _, output = fit._evaluate_anew()
        fit._advance(loss, output)

    try:
        # The plain iterations come first, so that their memory is free again for the recording; and they are two of
        # the three that have to be done before it.
        expected = device.aside(lambda: twice(fit, device, fit._evaluate_anew, fit._advance))
        optimizers.recordable(optimizer, True)
        start.put_back(fit)
        device.aside(once)
        start.put_back(fit)
        replay = Replay(fit, device)
        start.put_back(fit)
        found = twice(fit, device, replay.evaluate, lambda *_: replay.advance())
        compare(start, expected, found, fit.settings.dtype)
    except BaseException:
        optimizers.recordable(optimizer, False)
        optimizer.zero_grad(set_to_none=True)
        recorded.forget()
        with contextlib.suppress(Exception):
            device.mend()
        fit._jitter.replace_generator()
        raise
    finally:
        start.put_back(fit)
    return replay
