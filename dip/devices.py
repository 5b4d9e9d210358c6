"""The machine: devices, precision, and whether a fit will find room in memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip._version import __version__
from dip.errors import shown, unknown

PRECISIONS = ("auto", "float32", "bfloat16")
_ENORMOUS = 2**48  # bytes: refused even where nobody knows how much memory there is


def available() -> list[str]:
    """Return the devices of this machine, the one that "auto" takes first."""
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def environment() -> dict[str, Any]:
    """Return versions, processor, threads and devices: what has to stand beside any figure that was measured."""
    return {
        "dip": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "devices": [_named(device) for device in available()],
        "bfloat16": [device for device in available() if _native_bfloat16(torch.device(device))],
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _named(device: str) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device


def resolve(device: str | torch.device = "auto", *, hint: torch.device | None = None) -> torch.device:
    """Return the device meant by `device`.

    Parameters
    ----------
    device : str or torch.device, default "auto"
        "auto" (the `hint`, else CUDA, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:1", "mps".
    hint : torch.device, optional
        What "auto" is to take, such as the accelerator on which the observation lies.

    Raises
    ------
    ValueError
        There is no such device, or none here.
    """
    if isinstance(device, str) and device == "auto":
        return hint if hint is not None else torch.device(available()[0])
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise unknown("device", device, ["auto", "cpu", "cuda", "cuda:0", "mps"]) from error
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda:0")
    elif found.type == "mps":  # there is one; a tensor on it says "mps:0"
        found = torch.device("mps")
    elif found.type == "cpu" and found.index == 0:
        found = torch.device("cpu")
    if str(found) not in available():
        raise ValueError(
            f"device={shown(str(device))} is not on this machine; here: {', '.join(available())}. "
            'Take one of these, or device="auto"'
        )
    return found


def precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype in which the network computes.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16"}
        "auto" takes bfloat16 where the device multiplies it natively (AVX-512 BF16 or AMX on a CPU, CUDA from
        Ampere on), float32 elsewhere. Weights, statistics, loss and optimiser are float32 in any case.
    device : torch.device
        Where the network will be.

    Raises
    ------
    ValueError
        The name is unknown.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "auto":
        return torch.bfloat16 if _native_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(check and check())
    return False


def cores() -> int:
    """Return the number of cores that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def asynchronous(device: torch.device) -> bool:
    """Tell whether a device only queues what it is given, so that to look at a number means to wait for it."""
    return device.type != "cpu"


class Fetched:
    """Numbers on their way from a device.

    To ask for them is to wait for what was queued before them on the device, and for nothing after.

    Parameters
    ----------
    numbers : Tensor
        What is fetched.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._numbers, self._there = numbers, None
        if numbers.is_cuda:
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._there = torch.cuda.Event(blocking=True)
            self._there.record(torch.cuda.current_stream(numbers.device))

    def values(self) -> list[float]:
        """Return them."""
        if self._there is not None:
            self._there.synchronize()
        return list(self._numbers.tolist())


def free_memory(device: torch.device) -> int | None:
    """Return how many bytes can still be had on a device, or None where nobody can say.

    On Linux a container's limit (cgroup 1 or 2) counts as well as the machine's memory.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for the next
        return torch.cuda.mem_get_info(device)[0] + kept
    limits = [_machine_memory(), _container_memory()]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _machine_memory() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # macOS has no count of available pages here: three quarters of the whole is what a fit may hope for.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4
    return None


def _container_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the room left under the tightest limit of this process's control groups."""
    left = []
    for folder in _cgroup_folders(root):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with contextlib.suppress(OSError, ValueError):
                limit = int((folder / limit_name).read_text())  # "max" is no number: no limit
                used = int((folder / used_name).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines() if line)
                # Pages of files that were read count as used, but go when the room is needed.
                left.append(limit - used + int(stat.get("inactive_file", 0)))
    return max(0, min(left)) if left else None


def _cgroup_folders(root: Path) -> Iterator[Path]:
    groups = [""]
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in ("", "memory"):
                groups.append(group.strip("/"))
    for base in (root, root / "memory"):
        for group in groups:
            folder = base / group
            while folder != base.parent:
                yield folder
                if folder == base:
                    break
                folder = folder.parent


def check_memory(
    needed: int | None,
    device: torch.device,
    size: tuple[int, int],
    *,
    padded: tuple[int, int] | None = None,
    tile: int | None = None,
    narrower: str | None = None,
) -> None:
    """Refuse a fit that would not find room.

    Parameters
    ----------
    needed : int or None
        What was foretold (`dip.sizes`), or less; None = not known, nothing is checked.
    device : torch.device
        Where the fit will run.
    size : tuple of int
        Height and width of the image, for the message.
    padded : tuple of int, optional
        Height and width that the network works on.
    tile : int, optional
        Side of crops in which the fit could be done.
    narrower : str, optional
        How to ask for a network of fewer channels.

    Raises
    ------
    MemoryError
        It needs more than there is; the message has the estimate and the ways out.
    """
    free = free_memory(device)
    if needed is None or needed <= (_ENORMOUS if free is None else free):
        return
    room = "which no machine has" if free is None else f"and {_gib(free)} are free"
    fewer = f"fit it in crops (tile={tile})" if tile else "restore a crop or a reduced picture"
    inside = ""
    if padded is not None and padded[0] * padded[1] > 2 * (size[0] + 64) * (size[1] + 64):
        inside = f", padded to {padded[0]} x {padded[1]} for the network's scales,"
        fewer = "take fewer scales (shorter channel lists)"
    raise MemoryError(
        f"fitting {size[0]} x {size[1]} pixels (height x width){inside} on {device} would take about {_gib(needed)} "
        f"{room}; {fewer}, take fewer channels{f' ({narrower})' if narrower else ''}, "
        'precision="bfloat16", or a machine with more memory'
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.0f} MiB"


STREAMS = 16
"""How many streams `stream` has on a GPU for fits in threads."""
BESIDE, BRANCH = STREAMS + 1, STREAMS + 2
"""The numbers of two for work beside the stream that is recorded."""

_streams: dict[tuple[torch.device, int], torch.cuda.Stream] = {}
_for_threads: dict[torch.cuda.Stream, int] = {}  # with how many fits' kernels those on it are begun at once
_streams_lock = threading.Lock()


def stream(device: torch.device, number: int) -> torch.cuda.Stream:
    """Return a CUDA stream of the package's own by its number.

    Number 0 is to record on, 1 to `STREAMS` are for fits in threads, `BESIDE` and `BRANCH` for work beside a recording.

    PyTorch has 32 streams a device and hands them out in turn. One that is made for each fit would sooner or later be
    one on which another fit runs, or is recorded; these are made once.
    """
    assert 0 <= number <= BRANCH
    with _streams_lock:
        taken = [one for (there, _), one in _streams.items() if there == device]
        while (device, number) not in _streams:
            made = torch.cuda.Stream(device)
            if made not in taken:  # others may have drawn so many that it is one of ours again
                _streams[device, number] = made
                if 1 <= number <= STREAMS:
                    _for_threads[made] = 1
        return _streams[device, number]


def is_shared(device: torch.device) -> bool:
    """Tell whether what this thread does on a GPU now waits for its turn among what other fits in threads do there."""
    return _on_stream_for_threads(device) == 1


def begun_at_once(device: torch.device) -> int:
    """Return for how many fits a kernel is to be begun at once that this thread records now, 1 if for its own alone."""
    return max(1, _on_stream_for_threads(device))


def begin_at_once(stream: torch.cuda.Stream, fits: int) -> None:
    """Let kernels that are recorded on a stream for fits in threads be such as are begun for so many at once."""
    _for_threads[stream] = fits


def _on_stream_for_threads(device: torch.device) -> int:
    # it is asked at every kernel: where there are no such streams, it has to cost nothing
    return _for_threads.get(torch.cuda.current_stream(device), 0) if _for_threads and device.type == "cuda" else 0


_memory_is_reused = 0  # by so many fits at this time
_memory_lock = threading.Lock()


@contextlib.contextmanager
def reused_memory(device: torch.device) -> Iterator[None]:
    """Let glibc keep freed blocks for the time of a fit on the CPU.

    By default it returns every large block to the system, which hands it back with all pages zeroed: at each
    iteration, for each of dozens of tensors, the same. Keeping them saves that time. No-op elsewhere; undone at the
    end, of several fits in threads at that of the last one. Nothing that is computed changes.
    """
    global _memory_is_reused
    mallopt = _glibc("mallopt") if device.type == "cpu" else None
    if mallopt is None:
        yield
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX in malloc.h
    with _memory_lock:
        _memory_is_reused += 1
        if _memory_is_reused == 1:
            mallopt(mmap_max, 0)
            mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        with _memory_lock:
            _memory_is_reused -= 1
            if not _memory_is_reused:
                mallopt(mmap_max, 65536)
                mallopt(trim_threshold, 128 * 1024)
                trim = _glibc("malloc_trim")
                if trim is not None:
                    trim(0)


def _glibc(function: str) -> Callable[..., Any] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (absent in musl)
        return getattr(library, function)
    except (OSError, AttributeError):
        return None
