"""The package's own kernels on an NVIDIA GPU: compiled on the spot, and launched.

What compiles them is NVRTC, which PyTorch needs too and brings along: the user has no compiler to install. It takes
about a second for each dtype, once in a process. Where that fails, a warning says so and PyTorch's kernels are used.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.resources
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dip import devices
from dip.errors import warn

__all__ = ["Picture", "cast", "draw", "draws", "note", "program", "ready", "works"]

_DTYPES = {torch.float32: 4, torch.bfloat16: 8}  # and how many values are 16 bytes, which a thread reads at once
_THREADS, _CHANNELS = 512, 504  # of a block, and of a picture, at most: some are added to those of the decoder
_FILES = "kernels.cu", "decoder.cu", "pointwise.cu"
_SHARED = 48 * 1024  # bytes of shared memory that a block has unasked; and the driver's name for how many are asked for
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
# How many blocks a processor is given, of a kernel whose blocks go on from line to line, where it is not one.
_BLOCKS = {"normalise": 2, "moments": 2, "blur_moments": 2, "sides": 4, "sides_back": 4, "ends": 4, "finish": 4}
# Kernels that have half of their blocks where other fits have theirs on the device too.
_SHARING = {"gather", "spread", "moments", "normalise", "gather_enlarged", "spread_enlarged", "moments_enlarged"}
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
        """How many the device has, 1 where there is none."""
        return 1 if self._program is None else self._program.processors

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
        return min(self._program.processors * _BLOCKS.get(kernel, 1), lines)


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
    blocks = min(8 * kernels.processors, -(-fours // _THREADS))
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
    defined = [f"-DV={width}", f"-DBFLOAT16={int(dtype == torch.bfloat16)}"]
    defined.append("-DSHARED=extern __shared__ __align__(16) float shared[];")
    return _Loaded(device, _compiled(source(), [f"--gpu-architecture=sm_{major}{minor}", "-std=c++17", *defined]))


# ---------------------------------------------------------------------- NVRTC and the driver


def _compiled(text: str, options: list[str]) -> bytes:
    """Return the machine code.

    Raises
    ------
    RuntimeError
        It does not compile; the message begins with the compiler's.
    OSError
        There is no NVRTC.
    """
    nvrtc = _nvrtc()
    made = ctypes.c_void_p()
    _check_nvrtc(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(made), text.encode(), b"kernels.cu", 0, None, None))
    try:
        given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        if nvrtc.nvrtcCompileProgram(made, len(options), given):
            raise RuntimeError(_text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, made).decode())
        return _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, made)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(made))


def _text(size: Any, fill: Any, made: ctypes.c_void_p) -> bytes:
    length = ctypes.c_size_t()
    size(made, ctypes.byref(length))
    buffer = ctypes.create_string_buffer(length.value)
    fill(made, buffer)
    return buffer.raw


def _nvrtc() -> ctypes.CDLL:
    """Return the library that PyTorch has loaded or would load: by its name, else from where packages bring it.

    Its version has to be PyTorch's: another's machine code the driver may not know.
    """
    major = str(torch.version.cuda).split(".")[0]
    windows = sys.platform == "win32"
    names = [f"nvrtc64_{major}0_0.dll"] if windows else [f"libnvrtc.so.{major}"]
    pattern = re.compile(rf"nvrtc64_{major}\d_0\.dll" if windows else rf"libnvrtc(-[0-9a-f]+)?\.so\.{major}(\.\d+)*")
    packages = Path(torch.__file__).parent.parent
    for folder in (
        packages / "torch" / "lib",
        *sorted(packages.glob("nvidia/*/lib")),
        *sorted(packages.glob("nvidia/*/bin")),
    ):
        names += [str(path) for path in sorted(folder.glob("*nvrtc*")) if pattern.fullmatch(path.name)]
    for name in (*names, *([] if windows else ["libnvrtc.so"])):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    raise OSError(f"PyTorch's compiler of kernels, {names[0]}, was not found")


def _check_nvrtc(nvrtc: ctypes.CDLL, code: int) -> None:
    if code:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(nvrtc.nvrtcGetErrorString(code).decode())


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _check(code: int) -> None:
    if code:
        words = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(words))
        raise RuntimeError(f"CUDA: {(words.value or b'unknown error').decode()}")


class _Loaded:
    """A program on a device."""

    def __init__(self, device: torch.device, code: bytes) -> None:
        self._device, self._code, self._functions = device, code, dict[str, ctypes.c_void_p]()
        self.processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._context, self._module = ctypes.c_void_p(), ctypes.c_void_p()
        _check(_driver().cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device.index or 0))  # PyTorch's
        with self._entered():
            _check(_driver().cuModuleLoadData(ctypes.byref(self._module), code))

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """Be on the device, whatever this thread is on otherwise: a thread of autograd may be on none yet."""
        _check(_driver().cuCtxPushCurrent_v2(self._context))
        try:
            yield
        finally:
            _check(_driver().cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())))

    def launch(
        self, kernel: str, blocks: int, threads: tuple[int, int], shared: int, arguments: tuple[Any, ...]
    ) -> None:
        """Queue a kernel on the current stream."""
        values = [argument(one) for one in arguments]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        with self._entered():
            if kernel not in self._functions:
                function = ctypes.c_void_p()
                _check(_driver().cuModuleGetFunction(ctypes.byref(function), self._module, kernel.encode()))
                self._functions[kernel] = function
            if shared > _SHARED:
                asked = self._functions[kernel], _MAX_DYNAMIC_SHARED_SIZE_BYTES, shared
                _check(_driver().cuFuncSetAttribute(*asked))
            size = blocks, 1, 1, *threads, 1, shared
            _check(_driver().cuLaunchKernel(self._functions[kernel], *size, stream, pointers, None))


def argument(value: Any) -> Any:
    """Return a kernel's argument as C has it."""
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, ctypes.Structure):
        return value
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int(value)
