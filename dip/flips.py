"""Mirror images in turns: what keeps a fit from taking in the noise once the picture is there.

A network that halves and pads is another function of a mirrored code than of the code. What is a picture is a picture
in a mirror, too; noise has to be learnt anew in each. So where the code goes in mirrored, left to right, top to bottom
or both, another way at each iteration, and what comes out is turned back, the same few weights would have to hold the
noise four times, and a fit that has passed its best stays near it.

The network sees the mirrored code, everything else the picture as it is: x = T⁻¹ f_θ(T z).

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

AUTO = "auto"
_LEARNT = 0.4  # iterations times the standard deviation of the noise, of a picture of one coloured pixel
_NEVER = 2**40  # later than any fit ends


def check(given: Any, preset: int | str, task: str, code: codes.Code) -> int | str:
    """Return the option `flips`, the preset's where none is given (None).

    "auto" is for fits of a noisy picture whose code is made of pictures. Of one of noise nothing that a network has
    learned holds for its mirror image, so with another code than its own a preset's "auto" comes to never.

    Raises
    ------
    TypeError, ValueError
        It is neither a count nor "auto", or "auto" was given where that means nothing.
    """
    flips = preset if given is None else given
    if not isinstance(flips, str):
        return non_negative_int(flips, "flips")
    suits = task == "denoise" and isinstance(code, codes.OF_PICTURES)
    if flips == AUTO and (suits or given is None):
        return flips if suits else 0
    raise ValueError(
        f'flips={flips!r}: give a number of iterations, 0 for never, or of dip.Denoise with a code of pictures "auto", '
        f"for which the noise tells; this is {task} with {code!r}"
    )


def begin_after(flips: int | str, shape: tuple[int, int, int], level: float) -> int:
    """Return after how many iterations the mirroring begins in a fit.

    "auto" is 0.4 √(height · width · channels / 3) / σ with the level σ of the noise: of 128 x 128 pixels in colour 261
    iterations at σ = 50/255 and 522 at 25/255, in gray 151 and 301. The stronger the noise and the fewer the values,
    the sooner a fit has nothing else to learn.

    Parameters
    ----------
    flips : int or "auto"
        The option.
    shape : tuple of int
        Channels, height and width of the picture.
    level : float
        The standard deviation of the noise, where white is 1 (`dip.noise.noise_level`).
    """
    if not isinstance(flips, str):
        return min(flips, _NEVER)
    return max(1, round(_LEARNT * math.sqrt(math.prod(shape) / 3) / max(level, 1e-6)))


class Flips:
    """The way in which the code is mirrored at an iteration; it comes from a count on the device.

    So an iteration that is recorded (`dip.replay`) mirrors another way at each replay.

    Parameters
    ----------
    after : int
        After how many iterations it begins; 0 = never.
    device : torch.device
        Where the code is.

    Attributes
    ----------
    after, count
        That number, and how many iterations there were since then, below 0 before (a tensor; None = never).
    """

    def __init__(self, after: int, device: torch.device) -> None:
        self.after = after
        self.count = torch.tensor(-after, device=device) if after else None
        self._size: tuple[int, ...] = ()
        self._places: tuple[Tensor, Tensor] | None = None
        self._order: Tensor | None = None

    def go_to(self, iteration: int) -> None:
        """Count from this iteration on; nothing is mirrored until the next `draw`."""
        self._order = None
        if self.count is not None:
            self.count.fill_(iteration - self.after)

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
