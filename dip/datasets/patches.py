"""Random patches of a folder of pictures: what a denoiser is trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dip import devices, files, ranges
from dip.errors import non_negative_int, positive_int, shown, warn

__all__ = ["Patches"]

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, full range


class Patches:
    """Random patches of the pictures in a folder, drawn on the fly.

    The pictures are decoded once and kept with 8 bits a channel. Each patch comes from a picture drawn at random
    (each is as likely as any other, whatever its size), from a place drawn at random, turned by a multiple of 90
    degrees and mirrored at random.

    Parameters
    ----------
    folder : str or path-like
        Searched for pictures with the folders below it (see `dip.files.find`). 16-bit pictures are rounded to 8
        bits; where the values of all of them have room in 14 bits or fewer, these are taken for 8, 10, 12 or 14 bits,
        with a warning. Alpha is left out.
    size : int
        Height and width of a patch. Pictures that are smaller are left out with a warning that names them.
    channels : {3, 1}
        RGB, where gray pictures have three equal channels; or gray, where of RGB the luma is taken (ITU-R BT.601).
    limit : int, optional
        The most pictures, the first by name.

    Attributes
    ----------
    paths : tuple of pathlib.Path
        The files of the pictures, in the order of their names.
    size, channels : int
        As given.

    Raises
    ------
    OSError
        If there is no such folder.
    ValueError
        If it has no picture that is large enough, or one that cannot be read, which is named.
    MemoryError
        If the decoded pictures do not find room.

    Examples
    --------
    >>> patches = Patches("data/bsds400", 40)  # doctest: +SKIP
    >>> training, validation = patches.split(0.1, seed=0)  # doctest: +SKIP
    >>> training.draw(128, torch.Generator().manual_seed(0)).shape  # doctest: +SKIP
    torch.Size([128, 3, 40, 40])
    """

    def __init__(
        self, folder: str | os.PathLike[str], size: int, *, channels: int = 3, limit: int | None = None
    ) -> None:
        self.size = positive_int(size, "size")
        self.channels = positive_int(channels, "channels")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 3 (RGB) or 1 (gray), not {channels}")
        found = files.find(folder)
        if not found:
            raise ValueError(f"{folder} has no pictures; allowed: {', '.join(files.IMAGE_SUFFIXES)}")
        found = found if limit is None else found[: positive_int(limit, "limit")]
        pictures: dict[Path, np.ndarray | None] = {}
        small, used, highest = [], 0, 0.0
        room = devices.free_memory(torch.device("cpu"))
        for path in found:
            pixels = files.read(path).pixels
            sixteen = pixels.dtype == np.uint16
            if sixteen:
                highest = max(highest, float(pixels.max()))
            if min(pixels.shape[:2]) < self.size:
                small.append(path)
                continue
            used += pixels.shape[0] * pixels.shape[1] * self.channels
            if room is not None and used > room:
                raise MemoryError(f"the pictures of {folder} do not find room in memory; take fewer of them (limit=)")
            # those of 16 bits wait for the white of all, and are read once more: together they take twice the memory
            pictures[path] = None if sixteen else _planes(pixels, self.channels, path)
        if not pictures:
            raise ValueError(f"{folder} has no picture of {size} x {size} pixels or more; take a smaller size")
        if small:
            names = ", ".join(str(path) for path in small[:3]) + (", ..." if len(small) > 3 else "")
            warn(f"{len(small)} of {len(found)} pictures are smaller than {size} x {size} and are left out: {names}")
        told = f"pictures of {folder} are uint16, and their values"
        white = ranges.white_of_all(highest, told, "scale them to 65535")
        self._set(
            [
                (path, _planes(files.read(path).pixels, self.channels, path, white or 65535) if one is None else one)
                for path, one in pictures.items()
            ]
        )

    def _set(self, pictures: Sequence[tuple[Path, np.ndarray]]) -> None:
        self.paths = tuple(path for path, _ in pictures)
        self._pictures = [picture for _, picture in pictures]

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self._pictures)

    def draw(self, count: int, generator: torch.Generator, *, augment: bool = True) -> torch.Tensor:
        """Draw patches.

        Parameters
        ----------
        count : int
            How many.
        generator : torch.Generator
            On the CPU; the same state draws the same patches.
        augment : bool, default True
            Turn and mirror the patches at random.

        Returns
        -------
        Tensor
            (count, channels, size, size), uint8.

        Raises
        ------
        TypeError
            If `generator` is none, or not on the CPU.
        """
        count = positive_int(count, "count")
        if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
            raise TypeError(f"generator must be a torch.Generator on the CPU, not {shown(generator)}")
        which = torch.randint(len(self), (count,), generator=generator).tolist()
        # The place as a fraction, so that the number of values drawn does not depend on the pictures.
        places = torch.rand((count, 2), generator=generator, dtype=torch.float64).tolist()
        turns = torch.randint(8, (count,), generator=generator).tolist()
        drawn = np.empty((count, self.channels, self.size, self.size), np.uint8)
        for patch, index, (down, right), turn in zip(drawn, which, places, turns, strict=True):
            picture = self._pictures[index]
            top = int(down * (picture.shape[1] - self.size + 1))
            left = int(right * (picture.shape[2] - self.size + 1))
            cut = picture[:, top : top + self.size, left : left + self.size]
            patch[:] = _turned(cut, turn) if augment else cut
        return torch.from_numpy(drawn)

    def split(self, validation: float = 0.1, *, seed: int) -> tuple[Patches, Patches]:
        """Divide the pictures in two, so that no picture is on both sides.

        Parameters
        ----------
        validation : float, default 0.1
            The share of the second part, above 0 and below 1; it is rounded, but each part has a picture.
        seed : int
            Of the order in which pictures are dealt.

        Returns
        -------
        training, validation : Patches
            They share the memory of the pictures.

        Raises
        ------
        ValueError
            If there is only one picture, or `validation` is out of range.
        """
        if not 0 < validation < 1:
            raise ValueError(f"validation must be above 0 and below 1, not {shown(validation)}; pass 0.1 for a tenth")
        if len(self) < 2:
            raise ValueError("one picture cannot be divided into training and validation; give a folder with more")
        generator = torch.Generator().manual_seed(non_negative_int(seed, "seed"))
        order = torch.randperm(len(self), generator=generator).tolist()
        held = min(max(1, round(validation * len(self))), len(self) - 1)
        return self._part(order[held:]), self._part(order[:held])

    def _part(self, indices: Sequence[int]) -> Patches:
        part = object.__new__(type(self))
        part.size, part.channels = self.size, self.channels
        part._set([(self.paths[index], self._pictures[index]) for index in sorted(indices)])
        return part


def _turned(cut: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight ways to turn and mirror (C, H, W): a transposition and two reflections make them all."""
    cut = cut.swapaxes(1, 2) if turn & 1 else cut
    cut = cut[:, ::-1] if turn & 2 else cut
    return cut[:, :, ::-1] if turn & 4 else cut


def _planes(pixels: np.ndarray, channels: int, path: Path, white: float = 65535) -> np.ndarray:
    """A picture as (channels, H, W), uint8; `white` is that of 16 bits."""
    return np.ascontiguousarray(_eight_bits(pixels, channels, path, white).transpose(2, 0, 1))


def _eight_bits(pixels: np.ndarray, channels: int, path: Path, white: float) -> np.ndarray:
    """A picture as (H, W, channels), uint8."""
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / np.float32(white / 255)).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        # NaN fails this test too
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(f"{path} has floats out of [0, 1]; scale it, or save it with 8 or 16 bits")
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if channels == pixels.shape[2]:
        return pixels
    return np.repeat(pixels, 3, axis=2) if channels == 3 else np.rint(pixels @ _LUMA)[..., None].astype(np.uint8)
