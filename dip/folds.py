"""Fits to known pixels that the network is not shown, a part of them at a time (`dip.codes.HeldOut`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dip.codes import HeldOut
from dip.codes.held_out import GRAY
from dip.crops import Crops, Whole
from dip.problem import Holding, Problem

if TYPE_CHECKING:
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
    settings : Settings
        Those of the fit: the code, its frame, whether there are mirrors, and the seed by which folds follow each other.
    task : Holding
        What the corrected picture is refined by at the end.
    first : Tensor
        (K + 1, C + 1, H, W): what the code was drawn from.
    weight : Tensor
        (1, 1, H, W): of all known pixels.
    bounded : bool
        Whether the network's output is in [0, 1], and a half stands for no correction.
    """

    in_parts = True

    def __init__(
        self,
        inner: Whole | Crops,
        settings: Settings,
        task: Holding,
        first: Tensor,
        weight: Tensor,
        *,
        bounded: bool,
    ) -> None:
        code = settings.code
        assert isinstance(code, HeldOut)
        self._inner, self._frame, self._task, self._bounded = inner, settings.frame, task, bounded
        # what is returned is the mean of what the network makes in all mirrors that it was fitted in
        self._mirrors: list[list[int]] = [[], [3], [2], [2, 3]] if settings.flips else [[]]
        shown = first[:-1, -1:].to(weight)
        self._held = weight - shown
        # a correction is as large as what the filter gets wrong where pixels are held out
        wrong = (first[:-1, :-1] - first[-1:, :-1]).to(weight).square().mean(1, keepdim=True)
        self._step = min(_STEP, float(((self._held * wrong).sum() / self._held.sum()).sqrt()))
        # A correction fades where less is known nearby than was shown about any pixel that it was learnt at;
        # nowhere, if nothing was shown about one of them (n / 0).
        near = _near(torch.cat([shown, weight]))
        self._kept = code.kept * (near[-1:] / near[:-1][self._held > 0].min()).nan_to_num(1).clamp(max=1)
        self._generator = torch.Generator().manual_seed(settings.crop_seed + 1)
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
        made = [self._inner.made(network, whole.flip(m), dtype, iteration).flip(m) for m in self._mirrors]
        picture, correction = map(self._frame.crop, self._parts(whole, torch.stack(made).mean(0)))
        return self._task.refined(picture + self._kept * correction).clamp(0, 1)

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
    return Folds(inner, s, task, first, weight, bounded=getattr(network, "sigmoid", False))


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
