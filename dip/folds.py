"""Fits to known pixels that the network is not shown, a part of them at a time (`dip.codes.HeldOut`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dip import codes, crops
from dip.codes import Frame, HeldOut
from dip.codes.held_out import GRAY
from dip.crops import Crops, Whole
from dip.errors import warn
from dip.excerpt import Excerpt, near
from dip.problem import Holding, Problem

if TYPE_CHECKING:
    from dip.settings import Settings

_STEP = 0.03  # at most, of what a correction is a network's output, where white is 1: a fit begins near to the filter
_BOUNDED = 10  # times that is it of a network that ends in a sigmoid
_FALLS = 0.5  # from this share of a run on the learning rate falls, in a line
_LAST = 0.02  # its end, as a factor
_FEW = 4000  # known pixels (docs/fast.md, "Few known pixels")
_LARGE = 2 * crops.USUAL**2  # pixels: of a picture with more a part is learnt from


class Folds(Whole):
    """The way of a fit that sees the picture without one fold of the known pixels at a time; methods as of `Whole`.

    Parameters
    ----------
    inner : Whole or Excerpt
        What of the picture it sees.
    settings : Settings
        Those of the fit: the code, its frame, whether there are mirrors, and the seed by which folds follow each other.
    task : Holding
        What the corrected picture is refined by at the end.
    first : Tensor
        (1, C + 1, H, W): what the code is drawn from, the picture of all known pixels and their weights.
    pictures, shown : Tensor
        (K, C, h, w) and (K, 1, h, w): pictures and weights of the part that is seen, without one fold each.
    bounded : bool
        Whether the network's output is in [0, 1], and a half stands for no correction.
    """

    in_parts = True

    def __init__(
        self,
        inner: Whole | Excerpt,
        settings: Settings,
        task: Holding,
        first: Tensor,
        pictures: Tensor,
        shown: Tensor,
        *,
        bounded: bool,
    ) -> None:
        code = settings.code
        assert isinstance(code, HeldOut)
        super().__init__(settings.frame)
        self._inner, self._task, self._bounded = inner, task, bounded
        # what is returned is the mean of what the network makes in all mirrors that it was fitted in
        self._mirrors: list[list[int]] = [[], [3], [2], [2, 3]] if settings.flips else [[]]
        codes = []
        for one in torch.cat([pictures, shown], dim=1).to(first.device):
            without = first.clone()
            without[..., *inner.place] = one
            codes.append(inner.part(code.draw(settings.frame, torch.Generator(), without)))
        self._codes = torch.cat(codes).to(settings.device).contiguous(memory_format=torch.channels_last)
        whole, weight = first[:, :-1].to(pictures), first[:, -1:].to(pictures)
        self._held = weight[..., *inner.place] - shown
        # a correction is as large as what the filter gets wrong where pixels are held out
        wrong = (pictures - whole[..., *inner.place]).square().mean(1, keepdim=True)
        self._step = min(_STEP, float(((self._held * wrong).sum() / self._held.sum()).sqrt()))
        # A correction fades where less is known nearby than was shown about any pixel that it was learnt at;
        # nowhere, if nothing was shown about one of them (n / 0).
        least = near(shown)[self._held > 0].min()
        self._kept = code.kept * (near(weight) / least).nan_to_num(1).clamp(max=1)
        self._generator = torch.Generator().manual_seed(settings.crop_seed + 1)
        self._fold, self._coming = 0, list[int]()

    def part(self, code: Tensor) -> Tensor:
        """Return the code of the next fold: each comes once in as many iterations, in another order each time."""
        # Were they drawn one by one, the worst, not seen for long, would look like a fit that diverges.
        self._coming = self._coming or torch.randperm(len(self._held), generator=self._generator).tolist()
        self._fold = self._coming.pop()
        return self._codes[self._fold, None]

    def picture(self, made: Tensor) -> Tensor:
        """Return the corrected picture."""
        picture, correction = self._parts(self._codes[self._fold, None], made)
        return self._inner.picture(picture + correction)

    def compared(self, prediction: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
        """Return A x, y, and the weight of the known pixels that were not shown."""
        return prediction, y[..., *self._inner.place], self._held[self._fold, None]

    def pace(self, iteration: int, goal: int | None) -> float:
        """Return the factor of the learning rate: 1, and in the second half of a run down to 0.02."""
        left = 1.0 if goal is None else (goal - iteration) / (goal * (1 - _FALLS))
        return max(_LAST, min(1.0, left))

    @torch.no_grad()
    def look(self, network: Any, code: Tensor, dtype: torch.dtype, iteration: int) -> Tensor:
        """Return x of all known pixels, (1, C, inner_height, inner_width) in [0, 1]."""
        made = torch.zeros_like(code[:, :-1])
        for m in self._mirrors:
            made += self._inner.made(network, code.flip(m), dtype, iteration).flip(m) / len(self._mirrors)
        picture, correction = map(self._frame.crop, self._parts(code, made))
        return self._task.refined(picture + self._kept * correction).clamp(0, 1)

    def _parts(self, code: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """Return the picture that is in a code, and the correction that was made of it."""
        correction = self._step * (_BOUNDED * (made - 0.5) if self._bounded else made)
        return code[:, : made.shape[1]] + GRAY, correction

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state, the folds that are still to come, and the codes of all."""
        coming = torch.tensor(self._coming, dtype=torch.long)
        return {"folds": self._generator.get_state(), "coming": coming, "codes": self._codes}

    def load_state_dict(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from `state`, with a network that has its own state already."""
        self._generator.set_state(state["folds"])
        self._coming = state["coming"].tolist()
        self._codes.copy_(state["codes"])


def way(settings: Settings, task: Problem, y: Tensor, weight: Tensor | None) -> tuple[Whole | Crops, Tensor]:
    """Return the way of a fit to what was observed, and the pictures that its code is drawn from, as far as known."""
    s, network = settings, settings.network
    step: Any = getattr(network, "multiple", 1)
    if not isinstance(s.code, HeldOut):
        if s.tile is None:
            return Whole(s.frame), y
        return Crops(s.frame, s.tile, step, s.crop_seed, factor=task.factor, support=task.support or 0), y
    assert weight is not None  # of missing pixels
    assert isinstance(task, Holding)  # see `check`
    known = int((weight > 0).sum())
    if known < _FEW and s.code == codes.of_image(s.preset.code, task.shape[0]):
        warn(
            f'{known} known pixels are few to learn from; below some {_FEW} of them preset="fast-sparse" is better, '
            "though it takes longer"
        )
    inner = Whole(s.frame) if s.tile is None else Excerpt(s.frame, s.tile, step, weight)
    whole, *held = task.held_out(s.code.folds, inner.place, s.progress)
    first = torch.cat([whole, weight], dim=1).to(y.device)
    return Folds(inner, s, task, first, *held, bounded=getattr(network, "sigmoid", False)), first


def usual_tile(code: Any, network: Any, frame: Frame) -> int | None:
    """Return the side of what is seen of the picture where none is asked for: None, or 512 of a large one with folds.

    A part tells nearly as much, and the filters, which take longer than the network, go over the whole only once.
    """
    if not (isinstance(code, HeldOut) and frame.height * frame.width > _LARGE and crops.joins(network)):
        return None
    return crops.needed(network.multiple * math.ceil(crops.USUAL / network.multiple), frame)


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
        ("average", bool(options.get("average")), "is of pictures that follow each other by the same code"),
        ("optimizer", options.get("optimizer") == "lbfgs", "with lbfgs is for a loss that stays the same"),
        ("engine", options.get("engine") == "graph", 'with "graph" repeats an iteration as it is'),
    ):
        if refused:
            raise ValueError(
                f'the option {name} {why}, and with the code {code!r}, which the preset "fast" has, each iteration is '
                'shown other known pixels; leave it out, or take preset="fast-sparse" or another code'
            )
