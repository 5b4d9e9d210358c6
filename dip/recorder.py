"""What records work on a device, to be done again: CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from dip import devices


class Recorded(Protocol):
    """Work on a device that can be done again."""

    outputs: tuple[Tensor, ...]

    def replay(self) -> None:
        """Do it again, and put what comes of it into `outputs`."""


class Recorder(Protocol):
    """What records such work."""

    def generators(self) -> list[torch.Generator]:
        """Return the generators that the work may draw from besides the one it names."""

    def aside(self, work: Callable[[], Any]) -> Any:
        """Do work once in the surroundings of a recording, as it has to be before it is recorded."""

    def record(self, work: Callable[[], tuple[Tensor, ...]], generator: torch.Generator | None = None) -> Recorded:
        """Record work, which may draw from a generator."""

    def mend(self) -> None:
        """Put in order what a recording that failed has left."""


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

    def record(self, work: Callable[[], tuple[Tensor, ...]], generator: torch.Generator | None = None) -> Recorded:
        """Record work; other threads may use the device meanwhile."""
        stream = self._own_stream()
        # The outer stream is what puts the caller's back should the end of the recording fail.
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            graph = torch.cuda.CUDAGraph()
            if generator is not None:
                graph.register_generator_state(generator)
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outputs = work()
        return _CudaGraph(graph, outputs)

    def mend(self) -> None:
        """Record anything to the end.

        In some versions of PyTorch its own generator of the device can't be used outside of recordings after one that
        was broken off, until there was another.
        """
        self.record(lambda: (torch.zeros((), device=self._device),))


class _CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, outputs: tuple[Tensor, ...]) -> None:
        self.outputs = outputs
        self.replay = graph.replay


def recorder(device: torch.device) -> Recorder | None:
    """Return what records work on a device, None where nothing does."""
    return CudaGraphs(device) if device.type == "cuda" else None
