"""Fits of pictures that are too large for one piece: an iteration sees a crop, and a last pass makes the whole.

One network is fitted to all of the picture, a random crop of (z, y) at a time, so that memory follows from the crop and
not from the picture. In a crop the network normalises by the crop's statistics, which differ from place to place: a
picture made of such pieces would show its seams. So after half of a run the statistics are averaged over many crops and
frozen, which makes the network one and the same function of z everywhere, and it is that function which is fitted in
the other half, in steps that get shorter towards the end. The whole is made by a last pass over tiles with a margin as
wide as the network sees: it is what the network would make of the whole code at once.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dip.codes import Frame
from dip.errors import positive_int
from dip.problem import Problem

SLOWER = 0.3  # factor of the learning rate: a crop says less of the picture than the whole does
USUAL = 512  # pixels of a side: what is advised, and what the memory is told for
_EARLIEST = 50  # before this iteration the statistics are not frozen, in a run however short
# Of the learning rate once they are, when nothing holds the scale of the weights any more:
_RISE = 100  # iterations in which it rises from 0 to its peak
_PEAK = 0.5  # its peak, as a factor
_LAST = 0.05  # its end, as a factor of the peak
_SAMPLED = 20  # crops over which the statistics are averaged, at least
_PASS = 512  # least side of a tile in such a pass, in pixels: with small ones it is all margin

Place = tuple[slice, slice]  # rows and columns


class Whole:
    """The way of a fit that sees the picture in one piece.

    Parameters
    ----------
    frame : Frame
        Where the picture lies in the code.
    """

    settled = False
    in_parts = False  # whether an iteration sees a part of the picture, or of what is known of it

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self.place: Place = slice(0, frame.inner_height), slice(0, frame.inner_width)

    def part(self, code: Tensor) -> Tensor:
        """Return what of the code the network is to see next."""
        return code

    def picture(self, made: Tensor) -> Tensor:
        """Return x in what the network has made of that."""
        return self._frame.crop(made)

    @torch.no_grad()
    def made(self, network: Any, code: Tensor, dtype: torch.dtype, iteration: int) -> Tensor:
        """Return what the network makes of a whole code."""
        made: Tensor = network(code.to(dtype))
        return made

    def compared(self, prediction: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
        """Return what of A x, y and the weight belongs together."""
        return prediction, y, weight

    def settles(self, iteration: int, goal: int | None) -> bool:
        """Tell whether before this iteration, of a run that ends at `goal`, the network becomes another function."""
        return False

    def settle(self, network: Any, code: Tensor, dtype: torch.dtype, iteration: int) -> None:
        """Make it that."""

    def pace(self, iteration: int, goal: int | None) -> float:
        """Return the factor of the learning rate."""
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {}

    def load_state_dict(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from `state`, with a network that has its own state already."""


class Crop(NamedTuple):
    """A part of the picture: where it is in the code, in what the network makes of that, in A x and in y."""

    code: Place
    x: Place
    prediction: Place
    y: Place


class Crops:
    """The way of a fit that sees a crop at a time, drawn from a seeded generator; methods as of `Whole`.

    Parameters
    ----------
    frame : Frame
        Where the picture lies in the code.
    tile : int
        Side of a crop, in pixels of the code.
    step : int
        Crops begin at multiples of it: a network that halves the picture sees every second pixel, and these have to be
        the same in the crops as in the whole.
    seed : int
        Of the generator.
    factor : int
        How many pixels of x a pixel of y has in each direction.
    support : int
        How many pixels of y around one A looks at: so near to where a crop was cut, A x cannot be compared with y.
    """

    in_parts = True

    def __init__(self, frame: Frame, tile: int, step: int, seed: int, *, factor: int = 1, support: int = 0) -> None:
        self._frame, self._tile = frame, tile
        self._rows, self._columns = axes(frame, tile, step, factor, support)
        self._generator = torch.Generator().manual_seed(seed)
        self._crop = self._draw()
        self._seed = seed
        self.frozen_at: int | None = None  # the iteration before which the statistics were

    def _draw(self) -> Crop:
        places = [axis.at(axis.draw(self._generator)) for axis in (self._rows, self._columns)]
        return Crop(*zip(*places, strict=True))

    def part(self, code: Tensor) -> Tensor:
        """Return the next crop of the code."""
        self._crop = self._draw()
        return code[..., *self._crop.code].contiguous(memory_format=torch.channels_last)

    def sample(self, count: int, seed: int) -> list[Place]:
        """Return where `count` crops are in the code that might have been drawn; the next crop stays what it is."""
        generator = torch.Generator().manual_seed(seed)
        return [
            (self._rows.at(self._rows.draw(generator))[0], self._columns.at(self._columns.draw(generator))[0])
            for _ in range(count)
        ]

    def settles(self, iteration: int, goal: int | None) -> bool:
        """Tell whether it is time to freeze the statistics."""
        return self.frozen_at is None and goal is not None and iteration >= max(goal // 2, _EARLIEST)

    @property
    def settled(self) -> bool:
        """Whether it has."""
        return self.frozen_at is not None

    def settle(self, network: Any, code: Tensor, dtype: torch.dtype, iteration: int) -> None:
        """Freeze the statistics."""
        self._measure(network, code, dtype, iteration)
        freeze(network)
        self.frozen_at = iteration

    def pace(self, iteration: int, goal: int | None) -> float:
        """Return the factor of the learning rate: 1, and when the statistics are frozen from 0 up to a half.

        From there it falls along a cosine to the end of the run: the last weights are then as good as an average.
        """
        if self.frozen_at is None:
            return 1.0
        since = iteration - self.frozen_at
        done = 0.0 if goal is None else min(1.0, since / max(goal - self.frozen_at, 1))
        return _PEAK * min(1.0, (since + 1) / _RISE) * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * done)) / 2)

    def look(self, network: Any, code: Tensor, dtype: torch.dtype, iteration: int) -> Tensor:
        """Return x of the whole, by the frozen statistics, or before that by those of crops drawn for the iteration."""
        if self.frozen_at is None:
            self._measure(network, code, dtype, iteration)
        return self._frame.crop(whole(network, code, self._tile, dtype))

    def _measure(self, network: Any, code: Tensor, dtype: torch.dtype, iteration: int) -> None:
        count = max(tiles_in(self._tile, self._frame), _SAMPLED)
        measure(network, code, dtype, self.sample(count, self._seed + iteration))

    def picture(self, made: Tensor) -> Tensor:
        """Return x in what the network has made of the crop."""
        return made[..., *self._crop.x]

    def compared(self, prediction: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
        """Return A x, y and the weight where A x does not depend on what is outside of the crop."""
        y, weight = (None if one is None else one[..., *self._crop.y] for one in (y, weight))
        return prediction[..., *self._crop.prediction], y, weight

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state, and when the statistics were frozen."""
        return {"generator": self._generator.get_state(), "frozen_at": self.frozen_at}

    def load_state_dict(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from `state`, with a network that has its own state already."""
        self._generator.set_state(state["generator"])
        self.frozen_at = state["frozen_at"]
        if self.frozen_at is not None:
            freeze(network)


class Axis(NamedTuple):
    """One direction of the picture: of `extent` pixels of the code, `inner` from `start` on are the picture's."""

    extent: int
    start: int
    inner: int
    tile: int
    step: int
    factor: int
    support: int

    def draw(self, generator: torch.Generator) -> int:
        """Return where a crop begins.

        It is drawn from half a tile before the first place to half a tile behind the last, and moved inside: corners
        would hardly ever be seen otherwise. So the border's pixels come half as often as the others, or more.
        """
        last = max(self.extent - self.tile, 0) // self.step
        beyond = self.tile // self.step // 2 if last else 0
        drawn = int(torch.randint(-beyond, last + beyond + 1, (), generator=generator))
        return self.step * min(max(drawn, 0), last)

    def at(self, begin: int) -> tuple[slice, slice, slice, slice]:
        """Return code, x, prediction and y of the crop that begins there."""
        end = min(begin + self.tile, self.extent)
        first = math.ceil(max(begin - self.start, 0) / self.factor)
        # To the end also with what is less than a pixel of y, as the last blocks of a JPEG may be.
        whole = end - self.start >= self.inner
        last = math.ceil(self.inner / self.factor) if whole else (end - self.start) // self.factor
        stop = min(last * self.factor, self.inner)
        x = slice(first * self.factor + self.start - begin, stop + self.start - begin)
        lead = self.support if first > 0 else 0
        trail = self.support if stop < self.inner else 0
        return (
            slice(begin, end),
            x,
            slice(lead, last - first - trail),
            slice(first + lead, last - trail),
        )


def axes(frame: Frame, tile: int, step: int, factor: int = 1, support: int = 0) -> tuple[Axis, Axis]:
    """Return both directions of the picture, that of the rows first; parameters as of `Crops`."""
    return (
        Axis(frame.height, frame.top, frame.inner_height, tile, step, factor, support),
        Axis(frame.width, frame.left, frame.inner_width, tile, step, factor, support),
    )


def check(options: dict[str, Any], task: Problem, network: Any, frame: Frame) -> int | None:
    """Return the side of a crop that the option `tile` asks for; None where the picture is not larger than that.

    Raises
    ------
    ValueError, TypeError
        The tile is not of a size that the network can make, or the task, the network or another option needs the
        picture in one piece.
    """
    tile = positive_int(options["tile"], "tile")
    if task.support is None:
        raise ValueError(
            f"tile={tile}: the operator of dip.Reconstruct, as a blur with boundary='wrap', may join any two pixels of "
            "the picture, so a crop cannot be compared with a part of what was measured; leave tile out"
        )
    if not joins(network):
        raise ValueError(
            f"tile={tile}: a {type(network).__name__} does not say how far it sees (`reach`, in pixels) and what its "
            "sizes are multiples of (`multiple`), so its tiles cannot be joined; take a network of dip.networks"
        )
    for name, why in (
        ("stop", "looks at the whole picture at every iteration"),
        ("optimize_code", "changes the code as a whole"),
        ("average", "is of pictures of the whole that follow each other"),
    ):
        if options.get(name):
            raise ValueError(f"the option {name} {why}, and with tile={tile} there is a crop; leave one of them out")
    if options.get("optimizer") == "lbfgs":
        raise ValueError(f'optimizer="lbfgs" is for a loss that stays the same, and with tile={tile} the crop changes')
    least = network.padded_size(1, 1)[0] + 2 * (task.support + 1) * task.factor
    if tile % network.multiple or tile < least:
        nearest = network.multiple * math.ceil(max(tile, least) / network.multiple)
        raise ValueError(
            f"tile={tile}: with this network a tile is a multiple of {network.multiple} pixels, and not below {least}; "
            f"take tile={nearest}"
        )
    return needed(tile, frame)


def joins(network: Any) -> bool:
    """Tell whether a network says what its tiles can be joined by, and makes them of tiles of its code as large."""
    told = hasattr(network, "reach") and hasattr(network, "multiple")
    return told and getattr(network, "magnification", 1) == 1


def norms_of(network: nn.Module) -> list[Any]:
    """Return the batch normalisations of a network."""
    return [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def freeze(network: nn.Module) -> None:
    """Let the network be trained on with the statistics that its normalisations have."""
    network.train()
    for norm in norms_of(network):
        norm.eval()


@torch.no_grad()
def measure(network: Any, code: Tensor, dtype: torch.dtype, sample: Iterable[Place]) -> None:
    """Take the mean of the statistics over crops of the code for those of the normalisations.

    Parameters
    ----------
    network : Module
        It comes back in training mode.
    code : Tensor
        (1, C, H, W), without jitter.
    dtype : torch.dtype
        What the network computes in.
    sample : iterable of places
        They have to come as those of the fit do, to whose statistics the weights are fitted: the mean over a grid of
        tiles, in which the border counts for more, costs some decibels.
    """
    norms = norms_of(network)
    momenta = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    try:
        for rows, columns in sample:
            network(_part(code, rows, columns, dtype))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@torch.no_grad()
def whole(network: Any, code: Tensor, tile: int, dtype: torch.dtype) -> Tensor:
    """Return f(z) of the whole code, tile by tile, by the statistics that the normalisations have.

    Parameters
    ----------
    network : Module
        With `reach`: how many pixels away a pixel of the code still counts. Its layers come back in the mode they were.
    code : Tensor
        (1, C, H, W), without jitter.
    tile : int
        Side of the crops that the network was fitted to.
    dtype : torch.dtype
        What the network computes in.

    Returns
    -------
    Tensor
        (1, out_channels, H, W), float32.
    """
    made = None
    with evaluated(network):
        for rows, columns in _tiles(code, _pass_tile(network, tile)):
            seen_rows, own_rows = around(rows, network.reach, code.shape[2])
            seen_columns, own_columns = around(columns, network.reach, code.shape[3])
            part = network(_part(code, seen_rows, seen_columns, dtype))
            if made is None:
                made = part.new_empty(1, part.shape[1], *code.shape[2:])
            made[..., rows, columns] = part[..., own_rows, own_columns]
    assert made is not None
    return made


@contextlib.contextmanager
def evaluated(network: nn.Module) -> Iterator[None]:
    """Let a network be in evaluation mode, and its layers come back in the mode they were."""
    trained = [layer for layer in network.modules() if layer.training]
    network.eval()
    try:
        yield
    finally:
        for layer in trained:
            layer.training = True


def needed(tile: int | None, frame: Frame) -> int | None:
    """Return the side of a crop, None where the picture is not larger than that."""
    return None if tile is None or tile >= max(frame.height, frame.width) else tile


def tiles_in(tile: int | None, frame: Frame) -> int:
    """Return how many tiles of that side the frame has: 1 where the network sees it in one piece."""
    return 1 if tile is None else math.ceil(frame.height / tile) * math.ceil(frame.width / tile)


def most_in_pass(network: Any, tile: int, frame: Frame) -> tuple[int, int]:
    """Return height and width of the most that the network sees at a time in a pass over the whole."""
    side = _pass_tile(network, tile)

    def most(extent: int) -> int:
        seen = (around(own, network.reach, extent)[0] for own in _cover(extent, side))
        return max(piece.stop - piece.start for piece in seen)

    return most(frame.height), most(frame.width)


def _pass_tile(network: Any, tile: int) -> int:
    """Return the side of a tile, without its margin, in a pass over the whole."""
    side: int = max(tile, network.multiple * math.ceil(_PASS / network.multiple))
    return side


def _tiles(code: Tensor, tile: int) -> Iterator[Place]:
    """Yield tiles of equal size that cover the code."""
    yield from itertools.product(*(_cover(extent, tile) for extent in code.shape[2:]))


def _cover(extent: int, tile: int) -> list[slice]:
    """Return pieces of equal size that cover a direction, the last moved inside."""
    begins = sorted({min(begin, max(extent - tile, 0)) for begin in range(0, extent, tile)})
    return [slice(begin, min(begin + tile, extent)) for begin in begins]


def around(tile: slice, margin: int, extent: int) -> Place:
    """Return the tile with its margin as far as the code goes, and where the tile is in that."""
    around = slice(max(tile.start - margin, 0), min(tile.stop + margin, extent))
    return around, slice(tile.start - around.start, tile.stop - around.start)


def _part(code: Tensor, rows: slice, columns: slice, dtype: torch.dtype) -> Tensor:
    return code[..., rows, columns].to(dtype).contiguous(memory_format=torch.channels_last)
