"""Mirror images in turns: what keeps a fit from taking in the noise once the picture is there.

A network that halves and pads is another function of a mirrored code than of the code. What is a picture is a picture
in a mirror, too; noise has to be learnt anew in each. So where the code goes in mirrored, left to right, top to bottom
or both, another way at each iteration, and what comes out is turned back, the same few weights would have to hold the
noise four times, and a fit that has passed its best stays near it.

The network sees the mirrored code, everything else the picture as it is: x = T⁻¹ f_θ(T z).

When a fit has passed its best is seen in its residual (`Moment`), and so is when nothing but noise is left to learn in
mirrors, too: there the fit ends.

References
----------
Mirrored copies of one noisy picture in the training of a network: Quan, Chen, Pang, Ji, "Self2Self with dropout:
learning self-supervised denoising from single image", CVPR 2020.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dip import codes, devices
from dip.errors import non_negative_int
from dip.falling import falls_of, faster

AUTO = "auto"
_LEARNT = 0.4  # iterations times the standard deviation of the noise, of a picture of one coloured pixel
_NEVER = 2**40  # later than any fit ends
_EVERY = 25  # iterations from one look at the residual to the next
_FIRST = 1  # looks that are not compared: the fit is still on its way from nothing
_AGAIN = 3e-3  # of itself the residual falls in 100 iterations where noise is learnt in spite of the mirrors
_FAR_LOWER = 0.8  # times the level so far
_MOST, _LEAST = 1.2, 0.3  # times the variance of the noise: above there is structure, below noise was learnt


def check(given: Any, preset: int | str, task: str, code: codes.Code) -> int | str:
    """Return the option `flips`, the preset's where none is given (None).

    "auto" is for fits of a noisy picture whose code is made of pictures. Of one of noise nothing that a network has
    learned holds for its mirror image, so with such a code a preset's flips come to never.

    Raises
    ------
    TypeError, ValueError
        It is neither a count nor "auto", or "auto" was given where that means nothing.
    """
    if given is None and not isinstance(code, codes.OF_PICTURES):
        return 0
    flips = preset if given is None else given
    if not isinstance(flips, str):
        return non_negative_int(flips, "flips")
    suits = task == "denoise" and isinstance(code, codes.OF_PICTURES)
    if flips == AUTO and (suits or given is None):
        return flips if suits else 0
    raise ValueError(
        f'flips={flips!r}: give a number of iterations, 0 for never, or of dip.Denoise with a code of pictures "auto", '
        f"for which the residual tells; this is {task} with {code!r}"
    )


def begin_after(flips: int | str, shape: tuple[int, int, int], level: float, tiles: int) -> int | None:
    """Return after how many iterations the mirroring begins in a fit, None if its residual is to tell.

    A fit in crops keeps no average, whose residual could tell. There "auto" is, of each tile, 0.4 √(height · width ·
    channels / 3) / σ with the level σ of the noise: of 256 x 256 pixels in colour 522 iterations at σ = 50/255. The
    stronger the noise and the fewer the values, the sooner a fit has nothing else to learn.

    Parameters
    ----------
    flips : int or "auto"
        The option.
    shape : tuple of int
        Channels, height and width of the picture.
    level : float
        The standard deviation of the noise, where white is 1 (`dip.noise.noise_level`).
    tiles : int
        How many crops make a pass over the picture.
    """
    if not isinstance(flips, str):
        return min(flips, _NEVER) * tiles
    if tiles == 1:
        return None
    return max(1, round(_LEARNT * math.sqrt(math.prod(shape) / 3) / max(level, 1e-6))) * tiles


def planned(flips: int | str, task: Any, code: codes.Code, tiles: int, device: torch.device, *, ends: bool) -> Flips:
    """Return the flips of a fit; where the level of the noise counts, it is that of the code, or else of the task.

    Parameters
    ----------
    flips : int or "auto"
        The option.
    task, code
        Of the fit.
    tiles : int
        How many crops make a pass over the picture.
    device : torch.device
        Where the code is.
    ends : bool
        Whether they may end the fit.
    """
    level = 0.0
    if flips == AUTO:
        level = float(getattr(code, "level", None) or task.level)  # only a dip.Denoise has such flips
    return Flips(begin_after(flips, task.shape, level, tiles), device, level, ends=ends)


class Moment:
    """The moment from which on a fit learns the noise, told by the residual of what it would return.

    With r_t = |y - x̄_t|² / n, which is looked at every 25 iterations, and d_t = (r_{t-100} - r_t) / r_t, from t = 150
    on, it is the first at which d_t > 1.15 max(min_{s<t} d_s, 0.001) (`dip.falling`) and r_t ≤ 1.2 σ²; or
    r_t < 0.3 σ², in a picture so small that picture and noise are learnt at a time. It does not have to know σ well:
    that only tells it from a fit that stood still on its way. The pictures in the code of "fast" are made anew every
    100 iterations, after which r falls a little faster, so falls over another number would go up and down.

    Once the flips have begun r rises, as what was learnt of the noise is forgotten, and the picture gets better. Where
    there was d_t ≤ 0 since then, and d_t > 0.003 again, noise is being learnt anew: there the fit is over.

    Parameters
    ----------
    level : float
        σ, the standard deviation of the noise.
    """

    def __init__(self, level: float) -> None:
        self.level = level
        self.residuals: list[float] = []

    def has_come(self, residual: float) -> bool:
        """Take the residual (mean square) after the next 25 iterations, and tell whether this is the moment."""
        self.residuals.append(residual)
        falls = falls_of(self.residuals[_FIRST:])
        if residual > _MOST * self.level**2:
            return False
        if residual < _LEAST * self.level**2:
            return True
        return len(falls) > 1 and faster(falls[-1], min(falls[:-1]))

    def begins(self) -> None:
        """Compare the next residuals with that of this moment, at which the flips begin."""
        del self.residuals[:-1]

    def is_over(self, residual: float) -> bool:
        """Take the residual after the next 25 iterations with flips, and tell whether the fit is over."""
        self.residuals.append(residual)
        falls = falls_of(self.residuals)
        return bool(falls) and min(falls) <= 0 and falls[-1] > _AGAIN


class Flips:
    """The way in which the code is mirrored at an iteration; it comes from a count on the device.

    So an iteration that is recorded (`dip.replay`) mirrors another way at each replay.

    Parameters
    ----------
    after : int or None
        After how many iterations it begins; 0 = never, None = as soon as the residual tells.
    device : torch.device
        Where the code is.
    level : float
        The standard deviation of the noise, for a look at the residual.
    ends : bool, default True
        Whether the residual, where it tells when they begin, also tells when the fit is over.

    Attributes
    ----------
    after, count
        That number, far beyond any iteration where it is not known yet, and how many iterations there were since then,
        below 0 before (a tensor; None = never).
    ended_at : int
        The iteration at which the fit was over, 0 before. That is said once: a fit that is run on does what was asked.
    """

    def __init__(self, after: int | None, device: torch.device, level: float = 0.0, *, ends: bool = True) -> None:
        self._moment = Moment(level) if after is None else None
        self._ends, self.ended_at = ends, 0
        self.after = _NEVER if after is None else after
        self.count = torch.tensor(-self.after, device=device) if self.after else None
        self._size: tuple[int, ...] = ()
        self._places: tuple[Tensor, Tensor] | None = None
        self._order: Tensor | None = None

    def go_to(self, iteration: int) -> None:
        """Count from this iteration on; nothing is mirrored until the next `draw`."""
        self._order = None
        if self.count is not None:
            self.count.fill_(iteration - self.after)

    @property
    def every(self) -> int | None:
        """Every how many iterations the residual is looked at; None if that is not, or no more."""
        told = self.after < _NEVER and (self.ended_at or not self._ends)
        return None if self._moment is None or told else _EVERY

    def is_due(self, iteration: int) -> bool:
        """Tell whether the residual after this iteration is to be looked at."""
        return self.every is not None and iteration % self.every == 0

    def look(self, iteration: int, difference: Tensor, weight: Tensor | None = None) -> bool:
        """Look at the residual after an iteration: the mirroring may begin with the next. Return if the fit is over.

        Parameters
        ----------
        iteration : int
            After which.
        difference : Tensor
            y - x̄, (1, C, H, W).
        weight : Tensor, optional
            How far each counts in the mean.
        """
        if self._moment is None:
            return False
        squares = difference.square()
        residual = float(squares.mean() if weight is None else (squares * weight).mean() / weight.mean())
        if self.after < _NEVER:
            self.ended_at = iteration if self._moment.is_over(residual) else 0
            return self.ended_at > 0
        if self._moment.has_come(residual):
            self.after = iteration
            self._moment.begins()
            self.go_to(iteration)
        return False

    def follow(self, code: codes.Code, iteration: int | None = None) -> None:
        """Take the level of the noise from a code; where it fell far, flips that began begin anew from here on."""
        if self._moment is None:
            return
        before = self._moment.level
        self._moment.level = getattr(code, "level", None) or before
        if iteration is not None and self.began and self._moment.level < _FAR_LOWER * before:
            self.forget()
            self.after, self.ended_at = _NEVER, 0
            self.go_to(iteration)

    @property
    def reason(self) -> str:
        """Why the fit was ended, in words."""
        return f"flips: since iteration {self.after} code and output were mirrored, and noise alone was left to learn"

    @property
    def began(self) -> int | None:
        """After how many iterations it begins, None if never, or not told yet."""
        return self.after if 0 < self.after < _NEVER else None

    def forget(self) -> None:
        """Compare the next residuals with none before them: the fit went back to an earlier state."""
        if self._moment is not None:
            self._moment.residuals.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen so far."""
        residuals = [] if self._moment is None else list(self._moment.residuals)
        return {"after": self.after, "ended_at": self.ended_at, "residuals": residuals}

    def load_state_dict(self, state: dict[str, Any], iteration: int) -> None:
        """Go on from `state` at an iteration."""
        self.after, self.ended_at = state["after"], state["ended_at"]
        if self._moment is not None:
            self._moment.residuals = list(state["residuals"])
        self.go_to(iteration)

    def draw(self, size: tuple[int, ...]) -> None:
        """Take the next way, for pictures of this size (height, width)."""
        if self.count is None:
            return
        way = self.count.add_(1).clamp(min=0)
        if not devices.asynchronous(way.device) and not way:  # where a look at a number costs nothing
            self._order = None
            return
        if self._places is None or self._size != tuple(size):
            self._size = tuple(size)
            self._places = _places(*self._size, device=way.device)
        rows, columns = (places.index_select(0, way.bitwise_and(3).view(1)) for places in self._places)
        self._order = (rows.T + columns).flatten()

    def turn(self, x: Tensor) -> Tensor:
        """Return a picture (1, C, height, width) mirrored, and one that is mirrored as it was.

        One of another size is left alone.
        """
        if self._order is None or tuple(x.shape[2:]) != self._size:
            return x
        return _Mirrored.apply(x, self._order)

    def tensors(self) -> list[Tensor]:
        """Return what it has on the device."""
        there = (self.count, *(self._places or ()), self._order)
        return [tensor for tensor in there if tensor is not None]


def _places(height: int, width: int, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return for each of the four ways where a row begins that takes the place of a row, and likewise of columns."""
    rows = torch.arange(0, height * width, width, dtype=torch.int32, device=device)
    columns = torch.arange(width, dtype=torch.int32, device=device)
    down, right = rows.flip(0), columns.flip(0)
    return torch.stack([rows, down, rows, down]), torch.stack([columns, columns, right, right])


class _Mirrored(torch.autograd.Function):
    """Pixels in another order, in which each has taken the place of the one that has taken its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.order = order
        return _ordered(x, order)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _ordered(gradient, ctx.order), None


def _ordered(x: Tensor, order: Tensor) -> Tensor:
    """Return the pixels in that order, channels last where they were."""
    if x.is_contiguous():
        made, shape = torch.empty_like(x), (x.shape[1], -1)
        torch.index_select(x.view(shape), 1, order, out=made.view(shape))
        return made
    x = x.contiguous(memory_format=torch.channels_last)
    made, shape = torch.empty_like(x), (-1, x.shape[1])
    pixels, places = (tensor.permute(0, 2, 3, 1).view(shape) for tensor in (x, made))
    torch.index_select(pixels, 0, order, out=places)
    return made
