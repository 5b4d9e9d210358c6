"""What a training sees: pairs of an input and a target, and no more.

`prepare` divides the pictures and returns two things. `Pairs` hands out the pairs of each step; with Noise2Noise both
of a pair are noisy, and there is nothing clean in it or behind its names: the pictures are held by the functions that
add the noise, and leave them only with it. `Judge` holds the clean pictures of the validation and returns numbers only,
which are reported and decide nothing.

All that is random is drawn from (seed, purpose, epoch, step), so that any step can be made again, in any order.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dip import devices
from dip.errors import shown
from dip.trained.recipe import Recipe

__all__ = ["Judge", "Pairs", "PatchSource", "ahead", "decibels", "digest", "prepare"]

_ORDER, _CUTS, _NOISE, _OTHER_NOISE, _SPLIT, _HELD_CUTS, _HELD_NOISE, _OTHER_HELD_NOISE = range(8)
_PATCHES = 12_800  # an epoch of random patches
_HELD_PATCHES = 640
_THREADS = 4
_MOST = 120.0  # decibels: what equal pictures have, since JSON knows no infinity

Pair = tuple[Tensor, Tensor]


class PatchSource(Protocol):
    """Random patches, as `dip.datasets.Patches` draws them."""

    size: int
    channels: int

    def draw(self, count: int, generator: torch.Generator, *, augment: bool = True) -> Tensor:
        """Return (count, channels, size, size), uint8."""

    def split(self, validation: float, *, seed: int) -> tuple[Any, Any]:
        """Return two sources without a picture in common."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of a training.

    Attributes
    ----------
    channels : int
        Of the pictures.
    size : (int, int)
        Their height and width.
    count : int
        Pictures an epoch.
    steps, validation_steps : int
        How many steps an epoch and a validation have.
    training : callable
        ``training(epoch, step)`` returns input and target, (N, C, H, W), float32, for each step from 0 on.
    validation : callable
        ``validation(step)`` returns input and target, the same at each call.
    digest : str
        Of the pictures.
    """

    channels: int
    size: tuple[int, int]
    count: int
    steps: int
    validation_steps: int
    training: Callable[[int, int], Pair]
    validation: Callable[[int], Pair]
    digest: str


class Judge:
    """The PSNR against clean pictures; it gives out numbers, and noisy pictures to be restored.

    Parameters
    ----------
    steps : int
        Of a validation.
    noisy : callable
        ``noisy(step)`` returns noisy pictures.
    score : callable
        ``score(step, pictures)`` returns the PSNR of each picture in decibel.
    """

    def __init__(
        self, steps: int, noisy: Callable[[int], Tensor], score: Callable[[int, Tensor], Sequence[float]]
    ) -> None:
        self.steps, self.noisy, self._score = steps, noisy, score

    def psnr(self, restore: Callable[[Tensor], Tensor]) -> float:
        """Return the mean over the validation's pictures of the PSNR of what `restore` makes of them when noisy."""
        values: list[float] = []
        for step in range(self.steps):
            values += self._score(step, restore(self.noisy(step)))
        return math.fsum(values) / len(values)


def prepare(recipe: Recipe, data: np.ndarray | Tensor | PatchSource) -> tuple[Pairs, Judge]:
    """Divide pictures into training and validation, and make the pairs that a recipe asks for.

    Parameters
    ----------
    recipe : Recipe
        Noise, method, batch, shares, seed.
    data : ndarray, Tensor, or Patches
        Clean pictures, (N, H, W) or (N, H, W, C), uint8 or floats in [0, 1]; or a `dip.datasets.Patches`.

    Returns
    -------
    Pairs, Judge

    Raises
    ------
    ValueError, TypeError
        The data are no such pictures, or too few.
    """
    if hasattr(data, "draw") and hasattr(data, "split"):
        training, held = _patches(recipe, data)
    else:
        training, held = _pictures(recipe, data)
    noisy = _noisy(recipe, held)
    return _pairs(recipe, training, held, noisy, digest(data)), _judge(held, noisy)


def digest(data: np.ndarray | Tensor | PatchSource) -> str:
    """Return a short hash of pictures: of all, or of some patches from a folder of them."""
    if hasattr(data, "draw"):
        seen = data.draw(64, torch.Generator().manual_seed(0), augment=False)
        return hashlib.sha256(seen.numpy().tobytes()).hexdigest()[:16]
    pictures = _stack(data)
    return hashlib.sha256(f"{pictures.shape}".encode() + pictures.tobytes()).hexdigest()[:16]


def decibels(psnr: float | None) -> str:
    """Return a PSNR in words: "inf" where nothing differs, and nothing where there is none."""
    if psnr is None or math.isnan(psnr):
        return ""
    return "inf" if psnr >= _MOST - 1e-9 else f"{psnr:.2f}"


def ahead(pairs: Pairs, epoch: int, first: int, device: torch.device) -> Iterator[tuple[int, Pair]]:
    """Return the pairs of an epoch from a step on; beside a GPU they are made by threads, some steps ahead.

    Parameters
    ----------
    pairs : Pairs
        Where they come from.
    epoch, first : int
        The epoch, and the first step.
    device : torch.device
        Where they are needed.

    Yields
    ------
    (int, (Tensor, Tensor))
        The step, and its input and target on the device.
    """
    if not devices.asynchronous(device):
        yield from ((step, pairs.training(epoch, step)) for step in range(first, pairs.steps))
        return
    with ThreadPoolExecutor(_THREADS) as workers:
        waiting: deque[tuple[int, Future[Pair]]] = deque()
        try:
            for step in range(first, pairs.steps):
                waiting.append((step, workers.submit(pairs.training, epoch, step)))
                if len(waiting) > 2 * _THREADS:
                    yield _made(*waiting.popleft(), device)
            while waiting:
                yield _made(*waiting.popleft(), device)
        finally:
            for _, future in waiting:
                future.cancel()


def _made(step: int, future: Future[Pair], device: torch.device) -> tuple[int, Pair]:
    given, wanted = future.result()
    return step, (given.to(device), wanted.to(device))


@dataclass(frozen=True)
class _Source:
    """Clean pictures by epoch and step, in [0, 1]."""

    channels: int
    size: tuple[int, int]
    count: int
    take: Callable[[int, int], np.ndarray]
    batch: int

    @property
    def steps(self) -> int:
        return -(-self.count // self.batch)


def _noisy(recipe: Recipe, held: _Source) -> Callable[[int], Tensor]:
    """The noisy pictures of the validation, which are made once."""
    noise = recipe.noisy

    @functools.cache
    def noisy(step: int) -> Tensor:
        return torch.from_numpy(noise(held.take(0, step), _rng(recipe.seed, _HELD_NOISE, 0, step)))

    return noisy


def _pairs(recipe: Recipe, training: _Source, held: _Source, noisy: Callable[[int], Tensor], digest: str) -> Pairs:
    """The pairs. The clean pictures are in the functions below, and with Noise2Noise leave none of them."""
    noise, seed = recipe.noisy, recipe.seed
    both = recipe.method == "noise2noise"

    def of_training(epoch: int, step: int) -> Pair:
        clean = training.take(epoch, step)
        given = noise(clean, _rng(seed, _NOISE, epoch, step))
        wanted = noise(clean, _rng(seed, _OTHER_NOISE, epoch, step)) if both else clean
        return torch.from_numpy(given), torch.from_numpy(wanted)

    def of_validation(step: int) -> Pair:
        if both:
            return noisy(step), other(step)
        clean = torch.from_numpy(held.take(0, step))
        return clean if recipe.validate == "clean" else noisy(step), clean

    @functools.cache
    def other(step: int) -> Tensor:
        return torch.from_numpy(noise(held.take(0, step), _rng(seed, _OTHER_HELD_NOISE, 0, step)))

    return Pairs(
        training.channels,
        training.size,
        training.count,
        training.steps,
        held.steps,
        of_training,
        of_validation,
        digest,
    )


def _judge(held: _Source, noisy: Callable[[int], Tensor]) -> Judge:
    def score(step: int, restored: Tensor) -> list[float]:
        clean = held.take(0, step).astype(np.float64)
        found = restored.detach().cpu().numpy().astype(np.float64)
        error = ((found - clean) ** 2).mean(axis=(1, 2, 3))
        return [-10 * math.log10(max(value, 10 ** (-_MOST / 10))) for value in error.tolist()]

    return Judge(held.steps, noisy, score)


def _pictures(recipe: Recipe, data: Any) -> tuple[_Source, _Source]:
    """Training and validation from small whole pictures."""
    pictures = _stack(data)
    count = len(pictures)
    held_out = max(1, round(recipe.validation * count))
    if count - held_out < 1:
        raise ValueError(f"{count} pictures are too few to train on and to validate with; give two or more")
    order = _rng(recipe.seed, _SPLIT, 0, 0).permutation(count)
    held, rest = np.sort(order[:held_out]), np.sort(order[held_out:])
    channels, size = pictures.shape[1], (pictures.shape[2], pictures.shape[3])
    per_epoch = min(len(rest), recipe.per_epoch or len(rest))

    @functools.lru_cache(maxsize=2)
    def shuffled(epoch: int) -> np.ndarray:
        return _rng(recipe.seed, _ORDER, epoch, 0).permutation(rest)[:per_epoch]

    def take(epoch: int, step: int) -> np.ndarray:
        chosen = pictures[shuffled(epoch)[step * recipe.batch : (step + 1) * recipe.batch]]
        if recipe.augment:
            chosen = _turned(chosen, _rng(recipe.seed, _CUTS, epoch, step))
        return _as_floats(chosen)

    def take_held(epoch: int, step: int) -> np.ndarray:
        return _as_floats(pictures[held[step * recipe.batch : (step + 1) * recipe.batch]])

    return (
        _Source(channels, size, per_epoch, take, recipe.batch),
        _Source(channels, size, held_out, take_held, recipe.batch),
    )


def _patches(recipe: Recipe, data: Any) -> tuple[_Source, _Source]:
    """Training and validation from random patches; no picture is on both sides."""
    inner, outer = data.split(recipe.validation, seed=recipe.seed)
    size, count = (data.size, data.size), recipe.per_epoch or _PATCHES

    def source(patches: Any, count: int, purpose: int, augment: bool) -> _Source:
        def take(epoch: int, step: int) -> np.ndarray:
            number = min(recipe.batch, count - step * recipe.batch)
            seed = int(_rng(recipe.seed, purpose, epoch, step).integers(2**62))
            drawn = patches.draw(number, torch.Generator().manual_seed(seed), augment=augment)
            return _as_floats(drawn.numpy())

        return _Source(data.channels, size, count, take, recipe.batch)

    return source(inner, count, _CUTS, recipe.augment), source(outer, min(count, _HELD_PATCHES), _HELD_CUTS, False)


def _stack(data: Any) -> np.ndarray:
    """Pictures as (N, C, H, W), uint8 or float32."""
    array = data.numpy(force=True) if isinstance(data, Tensor) else data
    if not isinstance(array, np.ndarray):
        raise TypeError(f"data must be an array of pictures or dip.datasets.Patches, not {shown(data)}")
    if array.ndim not in (3, 4) or 0 in array.shape or (array.ndim == 4 and array.shape[3] > 4):
        raise ValueError(f"data has shape {array.shape}; allowed: (N, H, W) or (N, H, W, C) with up to 4 channels")
    if array.ndim == 3 and array.shape[2] <= 4:
        height, width, channels = array.shape
        raise ValueError(
            f"data has shape {array.shape}, which looks like one picture (H, W, C); give several, as (N, H, W, C), or "
            f"dip.datasets.Patches of a folder. If these are {height} gray pictures of {width} x {channels} pixels, "
            "give data[..., None]"
        )
    if array.dtype != np.uint8:
        if array.dtype.kind != "f":
            raise TypeError(f"data has dtype {array.dtype}; allowed: uint8, or floats in [0, 1]")
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError("data are floats that are not in [0, 1] (or NaN); divide them by their white")
        array = array.astype(np.float32)
    planes = array[:, None] if array.ndim == 3 else np.moveaxis(array, -1, 1)
    return np.ascontiguousarray(planes)


def _as_floats(pictures: np.ndarray) -> np.ndarray:
    if pictures.dtype == np.uint8:
        return pictures.astype(np.float32) / np.float32(255)
    return pictures.copy()


def _turned(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each picture turned and mirrored at random; one that is not square is turned by half turns only."""
    square = pictures.shape[2] == pictures.shape[3]
    turns, mirrored = rng.integers(0, 4, len(pictures)), rng.random(len(pictures)) < 0.5
    found = np.empty_like(pictures)
    for i, picture in enumerate(pictures):
        turned = np.rot90(picture, turns[i] if square else 2 * (turns[i] % 2), (1, 2))
        found[i] = turned[:, :, ::-1] if mirrored[i] else turned
    return found


def _rng(seed: int, purpose: int, epoch: int, step: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, epoch, step])
