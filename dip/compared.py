"""Recordings compared with what they are recordings of, before they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dip import optimizers
from dip.kept import tensors

if TYPE_CHECKING:
    from dip.recorder import Joined, Recorder
    from dip.replay import Replay
    from dip.solver import Fit

__all__ = ["Evaluated", "State", "compare", "together", "twice"]

_SECOND = 0.25  # factor of the learning rate in the second iteration of the comparison: a new rate has to act
# Of the loss and the output, relative: the weights are the same and so, in all likelihood, are the kernels.
_NEAR = {torch.float32: 1e-3, torch.bfloat16: 1e-2}
# Of what two steps have changed, relative to how far: the gradients of interpolation and reflection are summed in no
# fixed order on CUDA, and Adam makes a step of its usual length of a gradient that is rounding and nothing else.
_MOVED = 0.2

Evaluated = tuple[Tensor, Tensor, Tensor]  # the objective, the data loss in it, the output


class State:
    """A copy of everything that an iteration changes.

    Parameters
    ----------
    fit : Fit
        Of which it is a copy.
    device : Recorder
        What records there.
    """

    def __init__(self, fit: Fit, device: Recorder) -> None:
        self.trained = fit._trainable_state()
        self.jitter = fit._jitter.state_dict()
        self.flips = None if fit._flips.count is None else fit._flips.count.clone()
        self._noise = None if fit._jitter._noise is None else fit._jitter._noise.clone()
        self._others = [(generator, generator.get_state()) for generator in device.generators()]

    def put_back(self, fit: Fit) -> None:
        """Put it back into the fit."""
        fit._load_trainable_state(self.trained)
        fit._jitter.load_state_dict(self.jitter)
        fit._flips.go_to(fit.iteration)
        for generator, state in self._others:
            generator.set_state(state)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors with their names, the noise drawn last among them; counts are tensors of one number."""
        drawn = {**self.jitter, "flips": self.flips, "noise": self._noise}
        yield from tensors("", {**self.trained, "output": None, **drawn})


Two = tuple[list[Evaluated], State]  # what two iterations evaluated, and the state after them


class _Differs(RuntimeError):
    """The replayed iteration is not the plain one."""


def together(fits: Sequence[tuple[Fit, Replay]]) -> Joined:
    """Make the recordings of several fits one, and compare it; the fits are left, or put back, as they are.

    Raises
    ------
    Exception
        That cannot be done, or is another than they are.
    """
    device, starts = fits[0][1].device, list[State]()
    if len({fit.device for fit, _ in fits}) > 1:
        raise RuntimeError("they are on several devices")
    if any(fit._jitter.std and fit._jitter.recorded is not None and fit.device.type == "cuda" for fit, _ in fits):
        raise RuntimeError("PyTorch draws their jitter, which only their own graphs do anew")
    made = device.merged([replay.recordings for _, replay in fits])
    try:
        starts += [State(fit, device) for fit, _ in fits]
        expected = []
        for fit, replay in fits:
            expected.append(twice(fit, device, replay.evaluate, lambda *_, replay=replay: replay.advance()))
        for (fit, _), start in zip(fits, starts, strict=True):
            start.put_back(fit)
        seen: list[list[Evaluated]] = [[] for _ in fits]
        for rate in (1.0, _SECOND):
            for fit, _ in fits:
                optimizers.set_lr(fit._optimizer, rate * _rate(fit))
            made.replay()
            for one, (_, replay) in zip(seen, fits, strict=True):
                replay.counts(1)
                one.append(replay.evaluated())
        for (fit, _), start, plain, found in zip(fits, starts, expected, seen, strict=True):
            compare(start, plain, (found, State(fit, device)), fit.settings.dtype)
    except BaseException:
        made.close()
        raise
    finally:
        for (fit, replay), start in zip(fits, starts, strict=False):  # there may have been no room for all
            start.put_back(fit)
            optimizers.set_lr(fit._optimizer, _rate(fit))
            replay.notes.begin()
    return made


def _rate(fit: Fit) -> float:
    return fit.settings.lr * fit._guard.lr_factor


def twice(
    fit: Fit, device: Recorder, evaluate: Callable[[], Evaluated], advance: Callable[[Tensor, Tensor], None]
) -> Two:
    """Do two iterations, the second with another learning rate."""
    seen = []
    for rate in (1.0, _SECOND):
        seen.append(evaluate())
        optimizers.set_lr(fit._optimizer, rate * _rate(fit))
        advance(seen[-1][0], seen[-1][2])
    return seen, State(fit, device)


def compare(start: State, expected: Two, found: Two, dtype: torch.dtype) -> None:
    """Refuse what the replays have come to if it is not what the plain iterations have.

    Raises
    ------
    _Differs
        It is not; the message has what differs, and by how much.
    """
    (one, *_), (other, *_) = expected[0], found[0]
    for name, a, b in zip(("loss", "data loss", "output"), one, other, strict=True):
        _refuse_apart(f"its {name}", a.new_zeros(()).expand_as(a), a, b, _NEAR[dtype])
    before, plain, replayed = (dict(state.tensors()) for state in (start, expected[1], found[1]))
    if plain.keys() != replayed.keys():
        raise _Differs(f"it has not the same state: {', '.join(sorted(plain.keys() ^ replayed.keys()))}")
    kinds: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for name, a in plain.items():
        b = replayed[name]
        if not a.is_floating_point() or name.endswith(" step"):  # counts and generators
            if not torch.equal(a, b):
                raise _Differs(f"it leaves another {name}")
            continue
        kind = " ".join(dict.fromkeys((name.split()[0], name.split(".")[-1].split()[-1])))
        kind = "weights" if kind in ("network weight", "network bias") else kind
        kinds.setdefault(kind, []).append((before[name], a, b))
    for kind, triples in kinds.items():
        start_of, a, b = (torch.cat([triple[i].reshape(-1) for triple in triples]) for i in range(3))
        _refuse_apart(f"what it makes of {kind}", start_of, a, b, _MOVED)


def _refuse_apart(what: str, start: Tensor, one: Tensor, other: Tensor, most: float) -> None:
    # Means and not squares: a few weights whose gradient is nothing but rounding go anywhere.
    apart = float((one - other).abs().mean() / ((one - start).abs().mean() + 1e-30))
    if not apart <= most:  # so that NaN is refused
        raise _Differs(f"{what} is another than in the plain iteration, by {apart:.2g} where {most:g} is allowed")
