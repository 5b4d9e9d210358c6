"""What records work on a device, to be done again: CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dip import devices, merged


class Recorded(Protocol):
    """Work on a device that can be done again."""

    outputs: tuple[Tensor, ...]

    def replay(self) -> None:
        """Do it again, and put what comes of it into `outputs`."""

    def number(self) -> int:
        """Return the number that the device's driver has for it, if it was kept."""


class Joined(Protocol):
    """Recordings made one."""

    def replay(self) -> None:
        """Do all of them again."""

    def close(self) -> None:
        """Give its memory back."""


class Recorder(Protocol):
    """What records such work."""

    def generators(self) -> list[torch.Generator]:
        """Return the generators that the work may draw from besides the one it names."""

    def aside(self, work: Callable[[], Any]) -> Any:
        """Do work once in the surroundings of a recording, as it has to be before it is recorded."""

    def record(
        self, work: Callable[[], tuple[Tensor, ...]], generator: torch.Generator | None = None, kept: bool = False
    ) -> Recorded:
        """Record work, which may draw from a generator; `kept` is whether it is to be merged with other recordings."""

    def mend(self) -> None:
        """Put in order what a recording that failed has left."""

    def merged(self, recordings: Sequence[Sequence[Recorded]]) -> Joined:
        """Make one of what several fits have recorded, each some that are done one after the other."""

    def here(self) -> Any:
        """Return the place on the device where what this thread does is queued."""

    def wait_for(self, places: Sequence[Any]) -> None:
        """Let what follows at this thread's place come after what is queued at others."""

    def wait_in(self, places: Sequence[Any]) -> None:
        """Let what follows at other places come after what is queued at this thread's."""


class CudaGraphs:
    """CUDA graphs as a `Recorder`.

    Parameters
    ----------
    device : torch.device
        The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def _own_stream(self) -> torch.cuda.Stream:
        """Return the stream to record on: that of the thread, but not the default one, which can't be recorded."""
        current = torch.cuda.current_stream(self._device)
        return devices.stream(self._device, 0) if current == torch.cuda.default_stream(self._device) else current

    def generators(self) -> list[torch.Generator]:
        """Return PyTorch's own generator of the device: layers such as Dropout draw from it."""
        return [torch.cuda.default_generators[self._device.index or 0]]

    def aside(self, work: Callable[[], Any]) -> Any:
        """Do work on the stream on which it will be recorded."""
        with torch.cuda.device(self._device):
            torch.cuda.synchronize()
            with torch.cuda.stream(self._own_stream()):
                found = work()
            torch.cuda.synchronize()
        return found

    def record(
        self, work: Callable[[], tuple[Tensor, ...]], generator: torch.Generator | None = None, kept: bool = False
    ) -> Recorded:
        """Record work; other threads may use the device meanwhile."""
        stream = self._own_stream()
        # The outer stream is what puts the caller's back should the end of the recording fail.
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            graph = _new_graph(kept)
            if generator is not None:
                graph.register_generator_state(generator)
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outputs = work()
            if kept and hasattr(graph, "instantiate"):  # since PyTorch 2.8
                graph.instantiate()
        return _CudaGraph(graph, outputs)

    def mend(self) -> None:
        """Record anything to the end.

        In some versions of PyTorch its own generator of the device can't be used outside of recordings after one that
        was broken off, until there was another.
        """
        self.record(lambda: (torch.zeros((), device=self._device),))

    def merged(self, recordings: Sequence[Sequence[Recorded]]) -> Joined:
        """Make one graph of those of several fits.

        Raises
        ------
        RuntimeError
            They cannot be made one (see `dip.merged`).
        """
        return merged.Merged(self._device, [[one.number() for one in own] for own in recordings])

    def here(self) -> torch.cuda.Stream:
        """Return this thread's stream."""
        return torch.cuda.current_stream(self._device)

    def wait_for(self, places: Sequence[torch.cuda.Stream]) -> None:
        """Let this thread's stream wait for others."""
        for one in places:
            self.here().wait_stream(one)

    def wait_in(self, places: Sequence[torch.cuda.Stream]) -> None:
        """Let other streams wait for this thread's."""
        for one in places:
            one.wait_stream(self.here())


def _new_graph(kept: bool) -> torch.cuda.CUDAGraph:
    """Return an empty graph, of which PyTorch keeps what was recorded, if it can."""
    if kept:
        with contextlib.suppress(TypeError):  # before PyTorch 2.8
            return torch.cuda.CUDAGraph(keep_graph=True)
    return torch.cuda.CUDAGraph()


class _CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, outputs: tuple[Tensor, ...]) -> None:
        self.outputs = outputs
        self.replay = graph.replay
        self._graph = graph

    def number(self) -> int:
        """Return the driver's number of what was recorded.

        Raises
        ------
        RuntimeError
            PyTorch has not kept it.
        """
        return int(self._graph.raw_cuda_graph())


def recorder(device: torch.device) -> Recorder | None:
    """Return what records work on a device, None where nothing does."""
    return CudaGraphs(device) if device.type == "cuda" else None
