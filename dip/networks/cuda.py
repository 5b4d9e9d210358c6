"""The package's own kernels on an NVIDIA GPU: compiled on the spot, and launched.

What compiles them is NVRTC, which PyTorch needs too and brings along: the user has no compiler to install. It takes
about a second for each dtype, once in a process. Where that fails, a warning says so and PyTorch's kernels are used.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.resources
import threading
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dip import devices
from dip.errors import warn
from dip.networks import driver

__all__ = ["Picture", "cast", "draw", "draws", "note", "program", "ready", "works"]

_DTYPES = {torch.float32: 4, torch.bfloat16: 8}  # and how many values are 16 bytes, which a thread reads at once
_THREADS, _CHANNELS = 512, 504  # of a block, and of a picture, at most: some are added to those of the decoder
_FILES = "kernels.cu", "decoder.cu", "pointwise.cu", "several.cu"
# How many blocks a processor is given, of a kernel whose blocks go on from line to line, where it is not one.
_BLOCKS = {"normalise": 2, "moments": 2, "blur_moments": 2, "sides": 4, "sides_back": 4, "ends": 4, "finish": 4}
# Kernels that have half of their blocks where other fits have theirs on the device too.
_SHARING = {"gather", "spread", "moments", "normalise", "gather_enlarged", "spread_enlarged", "moments_enlarged"}
_TURNS = 2  # of blocks on each processor, of a kernel that is begun for several fits at once: they do not end together
_lock = threading.RLock()


class Program(Protocol):
    """The kernels, compiled for a device, a dtype and so many channels a thread."""

    processors: int

    def launch(
        self, kernel: str, blocks: int, threads: tuple[int, int], shared: int, arguments: tuple[Any, ...]
    ) -> None:
        """Queue a kernel; tensors are given to it as pointers, None as a null pointer."""


def source() -> str:
    """Return the kernels' source."""
    folder = importlib.resources.files("dip.networks")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in _FILES)


def ready(x: Tensor, device: torch.device, beside: int = 0) -> bool:
    """Tell whether the kernels can take a picture (N, C, H, W) on a device, with so many channels beside its own."""
    if x.dtype not in _DTYPES or x.ndim != 4 or x.shape[1] + beside > _CHANNELS:
        return False
    return torch.cuda.is_available() and works(torch.device("cuda", device.index or 0))


def multiplies(device: torch.device) -> bool:
    """Tell whether a device on which the kernels are computed has the tensor cores that `pointwise.cu` needs."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


def channels_a_thread(channels: int, dtype: torch.dtype) -> int:
    """Return how many neighbouring channels a thread has: a power of 2 that divides them, 16 bytes at most."""
    return min(channels & -channels, _DTYPES[dtype])


class Picture:
    """What kernels are launched for: a picture's device and dtype, and how its channels are shared out.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W) in channels-last order.
    channels : int, optional
        By which to share out, if not C.
    skipped : int, default 0
        Channels before those of x in another picture that the kernels read.
    """

    def __init__(self, x: Tensor, channels: int | None = None, skipped: int = 0) -> None:
        width = channels_a_thread(x.shape[1] | skipped, x.dtype)
        across = (channels or x.shape[1]) // width
        self.channels, self.threads = x.shape[1], (across, max(1, _THREADS // across))
        self._program = None if x.is_meta else program(x.device, x.dtype, width)
        self._like = x

    @property
    def processors(self) -> int:
        """How many a kernel is made for, 1 where there are none."""
        return 1 if self._program is None else room(self._program, self._like.device)

    def launch(self, kernel: str, lines: int, *arguments: Any) -> None:
        """Queue a kernel of a block for each of so many lines, a row or `threads[1]` pixels."""
        if self._program is not None:
            self._program.launch(kernel, lines, self.threads, 0, arguments)

    def rows(self, kernel: str, count: int, *arguments: Any, last: tuple[Any, ...]) -> None:
        """Queue a kernel whose blocks go on from row to row; how many there are comes between the arguments."""
        if self._program is not None:
            given = (*arguments, count, *last)
            self._program.launch(kernel, self._blocks(kernel, count), self.threads, 0, given)

    def sum(
        self,
        kernel: str,
        lines: int,
        key: nn.Module,
        *arguments: Any,
        last: tuple[Any, ...],
        sums: int = 2,
        shared: int | None = None,
    ) -> tuple[int, Tensor | None]:
        """Queue a kernel that sums over so many lines; its scratch comes between the arguments.

        `sums` is how many it has of each channel, `key` the layer whose they are, and `shared` the bytes of shared
        memory, where it is not what sums need. Returns how many blocks there are, and the scratch with what they leave.
        """
        if self._program is None:
            return 0, None
        blocks = self._blocks(kernel, lines)
        partial = self._like.new_empty(blocks * sums * self.channels, dtype=torch.float32)
        shared = 4 * self.channels * max(2 * self.threads[1], sums) if shared is None else shared
        given = (*arguments, partial, _ticket(key, self._like.device), *last)
        self._program.launch(kernel, blocks, self.threads, shared, given)
        return blocks, partial

    def is_small(self, count: int, most: int) -> bool:
        """Tell whether of so many pixels a thread of one block has so many at most; 4 times as many of several fits.

        Those wait for each other's kernels to be begun, so that fewer of them are worth more than shorter ones.
        """
        return count <= most * self.threads[1] * (4 if devices.is_shared(self._like.device) else 1)

    def alone(self, kernel: str, *arguments: Any) -> None:
        """Queue a kernel of one block, which sums over the whole picture."""
        if self._program is not None:
            self._program.launch(kernel, 1, self.threads, 8 * self.channels * self.threads[1], arguments)

    def pixels(self, kernel: str, count: int, *arguments: Any) -> None:
        """Queue a kernel that goes over so many pixels."""
        if self._program is not None:
            blocks = self._blocks(kernel, -(-count // self.threads[1]))
            self._program.launch(kernel, blocks, self.threads, 0, arguments)

    def _blocks(self, kernel: str, lines: int) -> int:
        assert self._program is not None
        if kernel in _SHARING and devices.is_shared(self._like.device):
            lines = -(-lines // 2)
        return min(self.processors * _BLOCKS.get(kernel, 1), lines)


def room(kernels: Program, device: torch.device) -> int:
    """Return for how many processors a kernel is made: where it is begun for several fits at once, for a share."""
    fits = devices.begun_at_once(device)
    return kernels.processors if fits == 1 else -(-_TURNS * kernels.processors // fits)


_tickets: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()


def _ticket(key: nn.Module, device: torch.device) -> Tensor:
    """Return the counter by which blocks of a layer's kernels find out which is the last; it goes back to 0 itself."""
    found = _tickets.get(key)
    if found is None or found.device != device:
        with _lock:
            found = _tickets[key] = torch.zeros(1, dtype=torch.int32, device=device)
    return found


@functools.cache
def works(device: torch.device) -> bool:
    """Tell whether the kernels can be compiled and give what they should; say so where they should and do not."""
    if device.type != "cuda" or torch.version.cuda is None:  # AMD's devices are called cuda too
        return False
    try:
        with _lock:
            x = torch.arange(64, dtype=torch.float32, device=device).view(1, 4, 4, 4)
            x = x.contiguous(memory_format=torch.channels_last)
            z = torch.empty_like(x)
            Picture(x).rows("normalise", 4, x, None, None, None, None, z, last=(4, 4, 4, 0, 0, 1.0))
            if not torch.equal(x, z):
                raise RuntimeError("they return something else than they should")
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        warn(f"the kernels for {device} could not be compiled: {why}; the fit goes on with PyTorch's and takes longer")
        return False
    return True


def draws(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether `draw` is to be had on a device."""
    return device.type == "cuda" and dtype in _DTYPES and works(torch.device("cuda", device.index or 0))


def draw(z: Tensor, drawn: Tensor, count: Tensor, seed: int, std: float) -> None:
    """Write z plus normal noise to `drawn`.

    Parameters
    ----------
    z : Tensor
        In float32, its values next to each other in memory.
    drawn : Tensor
        As many values, in whatever dtype.
    count : Tensor
        One number, int64: with another count the noise is another.
    seed : int
        The same.
    std : float
        Standard deviation of the noise.
    """
    kernels, fours = program(z.device, drawn.dtype, 4), -(-z.numel() // 4)
    blocks = min(8 * room(kernels, z.device), -(-fours // _THREADS))
    given = z, drawn, count, seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, float(std), z.numel()
    kernels.launch("jitter", blocks, (_THREADS, 1), 0, given)


_TENSORS, _PART = 64, 4096  # that a kernel casts at a time, and of how many values of one a block does


class _Tensors(ctypes.Structure):
    _fields_: ClassVar = [
        ("start", _TENSORS * ctypes.c_void_p),
        ("to", _TENSORS * ctypes.c_void_p),
        ("begin", (_TENSORS + 1) * ctypes.c_int),
        ("values", _TENSORS * ctypes.c_int),
    ]


def cast(made: Sequence[Tensor], given: Sequence[Tensor]) -> None:
    """Copy tensors to others of another dtype, all at once: `torch._foreach_copy_`, which a GPU has few threads for.

    Parameters
    ----------
    made : sequence of Tensor
        What is written, each of one dtype.
    given : sequence of Tensor
        What is read, of equal shapes, each of one dtype.
    """
    if not works(made[0].device) or not all(map(_castable, made, given)):
        torch._foreach_copy_(list(made), list(given))
        return
    for first in range(0, len(made), _TENSORS):
        some, tensors = range(first, min(first + _TENSORS, len(made))), _Tensors()
        for k, number in enumerate(some):
            tensors.start[k], tensors.to[k] = given[number].data_ptr(), made[number].data_ptr()
            tensors.values[k] = made[number].numel()
            tensors.begin[k + 1] = tensors.begin[k] - (-tensors.values[k] // _PART)
        blocks, widens = tensors.begin[len(some)], given[0].dtype == torch.bfloat16
        if blocks:
            arguments = tensors, len(some), _PART, widens
            program(made[0].device, torch.bfloat16, 8).launch("cast", blocks, (_THREADS, 1), 0, arguments)


def _castable(made: Tensor, given: Tensor) -> bool:
    """Tell whether the kernel takes two tensors: in memory their values are in one order, next to each other."""
    dtypes = {made.dtype, given.dtype} == {torch.float32, torch.bfloat16}
    dense = any(given.is_contiguous(memory_format=order) for order in (torch.contiguous_format, torch.channels_last))
    alike = all(n == 1 or a == b for n, a, b in zip(given.shape, given.stride(), made.stride(), strict=True))
    placed = made.device == given.device and not (made.data_ptr() | given.data_ptr()) % 16
    return dtypes and dense and alike and placed


def note(loss: Tensor, data_loss: Tensor | None, ring: Tensor, place: Tensor) -> None:
    """Write a loss, and the data loss in it if it is another, to a place of a ring, and let the place be the next.

    Parameters
    ----------
    loss, data_loss : Tensor
        One number each, float32.
    ring : Tensor
        (1, n) or (2, n).
    place : Tensor
        One number, int64, in [0, n).
    """
    given = loss, data_loss, ring, place, ring.shape[1]
    program(loss.device, torch.float32, 4).launch("note", 1, (32, 1), 0, given)


def program(device: torch.device, dtype: torch.dtype, width: int) -> Program:
    """Return the kernels for a device, a dtype and so many channels a thread, compiled at the first call."""
    with _lock:  # so that others wait for it
        return _program(device, dtype, width)


@functools.cache
def _program(device: torch.device, dtype: torch.dtype, width: int) -> Program:
    major, minor = torch.cuda.get_device_capability(device)
    given = [f"--gpu-architecture=sm_{major}{minor}", "-std=c++17", f"-DV={width}"]
    given += [f"-DBFLOAT16={int(dtype == torch.bfloat16)}", "-DSHARED=extern __shared__ __align__(16) float shared[];"]

    def loaded(*options: str) -> driver.Loaded:
        return driver.Loaded(device, driver.compiled(source(), [*given, *options]), several)

    def several(names: Iterable[str]) -> driver.Loaded:
        wanted = " ".join(f"EACH_OF({name})" for name in sorted(names))
        return loaded("-DSEVERAL=1", f"-DWANTED={wanted}")

    return loaded()
