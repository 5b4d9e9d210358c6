"""Fits to known pixels that the network is not shown, a part of them at a time (`dip.codes.HeldOut`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dip.codes import Frame, HeldOut
from dip.codes.held_out import GRAY
from dip.crops import Crops, Whole
from dip.problem import Holding, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from dip.settings import Settings

_STEP = 0.03  # at most, of what a correction is a network's output, where white is 1: a fit begins near to the filter
_BOUNDED = 10  # times that is it of a network that ends in a sigmoid
_FALLS = 0.5  # from this share of a run on the learning rate falls, in a line
_LAST = 0.02  # its end, as a factor
_NEAR = 3  # pixels to each side that count as near


class Folds:
    """The way of a fit that sees the picture without one fold of the known pixels at a time; methods as of `Whole`.

    Parameters
    ----------
    inner : Whole or Crops
        What of the picture it sees.
    frame : Frame
        Where the picture lies in the code.
    shown : Tensor
        (K, 1, inner_height, inner_width): weights of the pixels that are shown in each fold.
    weight : Tensor
        (1, 1, inner_height, inner_width): of all known pixels.
    seed : int
        Of the generator that draws the folds.
    error : float
        Root mean square of what the filter gets wrong where pixels are held out: a correction is of that size.
    kept : float
        Share of a correction that what is returned has.
    bounded : bool
        Whether the network's output is in [0, 1], and a half stands for no correction.
    mirrored : bool
        Whether the network is fitted in mirrors, too: what is returned is then the mean of what it makes in all four.
    refined : callable
        What the corrected picture goes through at the end.
    """

    in_parts = True

    def __init__(
        self,
        inner: Whole | Crops,
        frame: Frame,
        shown: Tensor,
        weight: Tensor,
        seed: int,
        *,
        error: float,
        kept: float,
        bounded: bool,
        mirrored: bool,
        refined: Callable[[Tensor], Tensor],
    ) -> None:
        self._inner, self._frame, self._bounded, self._mirrored = inner, frame, bounded, mirrored
        self._refined = refined
        self._held, self._step = weight - shown, min(_STEP, error)
        # A correction fades where less is known nearby than was shown about any pixel that it was learnt at;
        # nowhere, if nothing was shown about one of them (n / 0).
        near = _near(torch.cat([shown, weight]))
        self._kept = kept * (near[-1:] / near[:-1][self._held > 0].min()).nan_to_num(1).clamp(max=1)
        self._generator = torch.Generator().manual_seed(seed)
        self._fold, self._coming = 0, list[int]()
        self._seen: Tensor | None = None

    def part(self, code: Tensor) -> Tensor:
        """Return the code of the next fold: each comes once in as many iterations, in another order each time."""
        # Were they drawn one by one, the worst, not seen for long, would look like a fit that diverges.
        self._coming = self._coming or torch.randperm(len(self._held), generator=self._generator).tolist()
        self._fold = self._coming.pop()
        self._seen = self._inner.part(code[self._fold, None])
        return self._seen

    def picture(self, made: Tensor) -> Tensor:
        """Return the corrected picture."""
        assert self._seen is not None
        picture, correction = self._parts(self._seen, made)
        return self._inner.picture(picture + correction)

    def compared(self, prediction: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
        """Return A x, y, and the weight of the known pixels that were not shown."""
        return self._inner.compared(prediction, y, self._held[self._fold, None])

    @property
    def settled(self) -> bool:
        """Whether the network has become another function."""
        return self._inner.settled

    def settles(self, iteration: int, goal: int | None) -> bool:
        """Tell whether it is to become one."""
        return self._inner.settles(iteration, goal)

    def settle(self, network: Any, code: Tensor, dtype: torch.dtype, iteration: int) -> None:
        """Make it that."""
        self._inner.settle(network, code[-1:], dtype, iteration)

    def pace(self, iteration: int, goal: int | None) -> float:
        """Return the factor of the learning rate: 1, and in the second half of a run down to 0.02."""
        if self._inner.in_parts:
            return self._inner.pace(iteration, goal)
        left = 1.0 if goal is None else (goal - iteration) / (goal * (1 - _FALLS))
        return max(_LAST, min(1.0, left))

    @torch.no_grad()
    def look(self, network: Any, code: Tensor, dtype: torch.dtype, iteration: int) -> Tensor:
        """Return x of all known pixels, (1, C, inner_height, inner_width) in [0, 1]."""
        whole = code[-1:]
        mirrors: list[list[int]] = [[], [3], [2], [2, 3]] if self._mirrored else [[]]
        made = [self._inner.made(network, whole.flip(m), dtype, iteration).flip(m) for m in mirrors]
        picture, correction = map(self._frame.crop, self._parts(whole, torch.stack(made).mean(0)))
        return self._refined(picture + self._kept * correction).clamp(0, 1)

    def _parts(self, code: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """Return the picture that is in a code, and the correction that was made of it."""
        correction = self._step * (_BOUNDED * (made - 0.5) if self._bounded else made)
        return code[:, : made.shape[1]] + GRAY, correction

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generator and of what is seen, and the folds that are still to come."""
        coming = torch.tensor(self._coming, dtype=torch.long)
        return {"folds": self._generator.get_state(), "coming": coming, "inner": self._inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from `state`, with a network that has its own state already."""
        self._generator.set_state(state["folds"])
        self._coming = state["coming"].tolist()
        self._inner.load_state_dict(state["inner"], network)


def _near(shown: Tensor) -> Tensor:
    """Return how much is shown of the pixels about each, (n, 1, H, W)."""
    return F.avg_pool2d(F.pad(shown, (_NEAR,) * 4, mode="replicate"), 2 * _NEAR + 1, stride=1)


def way(settings: Settings, task: Problem, network: Any, first: Tensor, weight: Tensor | None) -> Whole | Crops | Folds:
    """Return the way of a fit to a picture whose code was drawn from `first`."""
    s = settings
    inner: Whole | Crops = Whole(s.frame)
    if s.tile is not None:
        step, support = int(network.multiple), task.support or 0
        inner = Crops(s.frame, s.tile, step, s.crop_seed, factor=task.factor, support=support)
    if not isinstance(s.code, HeldOut):
        return inner
    assert weight is not None  # of missing pixels
    assert isinstance(task, Holding)  # see `check`
    shown, bounded = first[:-1, -1:].to(weight), getattr(network, "sigmoid", False)
    held, wrong = weight - shown, (first[:-1, :-1] - first[-1:, :-1]).to(weight)
    error = float(((held * wrong.square().mean(1, keepdim=True)).sum() / held.sum()).sqrt())
    kept, seed, mirrored = s.code.kept, s.crop_seed + 1, bool(s.flips)
    return Folds(
        inner,
        s.frame,
        shown,
        weight,
        seed,
        error=error,
        kept=kept,
        bounded=bounded,
        mirrored=mirrored,
        refined=task.refined,
    )


def check(options: dict[str, Any], task: Any, code: Any) -> None:
    """Refuse what does not go with a code of folds.

    Raises
    ------
    ValueError
        The task, or an option, is one of that kind.
    """
    if not isinstance(code, HeldOut):
        return
    if not isinstance(task, Holding):
        raise ValueError(f"code={code!r} is made of known pixels: it is for dip.Inpaint, not for {task.task}")
    for name, refused, why in (
        ("stop", options.get("stop") is not None, "looks at the picture of each iteration"),
        ("optimize_code", bool(options.get("optimize_code")), "changes the one code that there is"),
        ("optimizer", options.get("optimizer") == "lbfgs", "with lbfgs is for a loss that stays the same"),
        ("engine", options.get("engine") == "graph", 'with "graph" repeats an iteration as it is'),
    ):
        if refused:
            raise ValueError(
                f'the option {name} {why}, and with the code {code!r}, which the preset "fast" has, each iteration is '
                'shown other known pixels; leave it out, or take preset="fast-sparse" or another code'
            )
