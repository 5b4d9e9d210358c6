"""What NVIDIA's compiler and driver do for the package's own kernels: compile them, load them, launch them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Kernel", "Loaded", "argument", "check", "compiled", "launched", "library", "name_of"]

_SHARED = 48 * 1024  # bytes of shared memory that a block has unasked; and the driver's name for how many are asked for
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8


def compiled(text: str, options: list[str]) -> bytes:
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
def library() -> ctypes.CDLL:
    """Return the driver."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def check(code: int) -> None:
    """Raise what the driver says of an error.

    Raises
    ------
    RuntimeError
        It was one.
    """
    if code:
        words = ctypes.c_char_p()
        library().cuGetErrorString(code, ctypes.byref(words))
        raise RuntimeError(f"CUDA: {(words.value or b'unknown error').decode()}")


class Loaded:
    """A program on a device.

    Parameters
    ----------
    device : torch.device
        The device.
    code : bytes
        Machine code.
    several : callable, optional
        What loads a program of kernels that do the same for several fits at a time, of which it is given the names.
    """

    def __init__(
        self, device: torch.device, code: bytes, several: Callable[[Iterable[str]], Loaded] | None = None
    ) -> None:
        self._device, self._code, self._functions = device, code, dict[str, ctypes.c_void_p]()
        self._load_several, self._several = several, dict[frozenset[str], Loaded]()
        self.processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._context, self._module = ctypes.c_void_p(), ctypes.c_void_p()
        check(library().cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device.index or 0))  # PyTorch's
        with self.entered():
            check(library().cuModuleLoadData(ctypes.byref(self._module), code))

    @contextlib.contextmanager
    def entered(self) -> Iterator[ctypes.c_void_p]:
        """Be on the device, whatever this thread is on otherwise: a thread of autograd may be on none yet."""
        check(library().cuCtxPushCurrent_v2(self._context))
        try:
            yield self._context
        finally:
            check(library().cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())))

    def launch(
        self, kernel: str, blocks: int, threads: tuple[int, int], shared: int, arguments: tuple[Any, ...]
    ) -> None:
        """Queue a kernel on the current stream."""
        values = [argument(one) for one in arguments]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        with self.entered():
            function = self.function(kernel, shared)
            if function.value not in _launched:
                layout = tuple((ctypes.sizeof(value), ctypes.alignment(value)) for value in values)
                _launched[function.value] = Kernel(self, kernel, layout)
            size = blocks, 1, 1, *threads, 1, shared
            check(library().cuLaunchKernel(function, *size, stream, pointers, None))

    @property
    def module(self) -> int | None:
        """The driver's number of it."""
        return self._module.value

    def function(self, kernel: str, shared: int) -> ctypes.c_void_p:
        """Return what launches a kernel with so much shared memory. To be called where the device is entered."""
        if kernel not in self._functions:
            function = ctypes.c_void_p()
            check(library().cuModuleGetFunction(ctypes.byref(function), self._module, kernel.encode()))
            self._functions[kernel] = function
        if shared > _SHARED:
            check(library().cuFuncSetAttribute(self._functions[kernel], _MAX_DYNAMIC_SHARED_SIZE_BYTES, shared))
        return self._functions[kernel]

    def several(self, names: Iterable[str]) -> Loaded:
        """Return a program whose kernels do what these do, for several fits at a time; each has "_each" behind."""
        wanted = frozenset(names)
        for there, program in self._several.items():
            if wanted <= there:
                return program
        assert self._load_several is not None
        self._several[wanted] = self._load_several(wanted)
        return self._several[wanted]


class Kernel(NamedTuple):
    """A kernel that was launched.

    Attributes
    ----------
    program : Loaded
        What has it.
    name : str
        Its name there.
    layout : tuple
        Size and alignment of each argument, in bytes.
    """

    program: Loaded
    name: str
    layout: tuple[tuple[int, int], ...]

    def packed(self, given: Sequence[int | None]) -> bytes:
        """Return the arguments that lie at these places one after the other, as a struct of C has them."""
        made = bytearray()
        for (size, alignment), at in zip(self.layout, given, strict=True):
            assert at
            made += bytes(-len(made) % alignment) + ctypes.string_at(at, size)
        return bytes(made)


_launched: dict[int | None, Kernel] = {}


def launched(function: int | None) -> Kernel | None:
    """Return the package's own kernel that the driver has under a number, if it was launched."""
    found = _launched.get(function)
    if found is None and function is not None:  # should the driver call it by another number than when it was loaded
        module = ctypes.c_void_p()
        if hasattr(library(), "cuFuncGetModule"):
            library().cuFuncGetModule(ctypes.byref(module), ctypes.c_void_p(function))
        ours = [one for one in _launched.values() if module.value and one.program.module == module.value]
        return next((one for one in ours if one.name == name_of(function)), None)
    return found


def name_of(function: int | None) -> str:
    """Return the name of any kernel that the driver has under a number, as far as it tells."""
    name = ctypes.c_char_p()
    if function is not None and hasattr(library(), "cuFuncGetName"):  # since CUDA 12.3
        library().cuFuncGetName(ctypes.byref(name), ctypes.c_void_p(function))
    return (name.value or b"unnamed").decode(errors="replace")


def argument(value: Any) -> Any:
    """Return a kernel's argument as C has it."""
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, ctypes.Structure):
        return value
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int(value)
