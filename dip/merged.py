"""Recordings of several fits made one CUDA graph, in which a kernel of the package's own is begun once for all of them.

A small picture leaves a GPU idle for most of the time: its kernels take a few microseconds, and only one after the
other is begun. Recordings of fits that are alike have the same kernels in the same order, at other places in memory.
What they have one by one is copied to a new graph: of the package's own kernels one launch, with blockIdx.z to tell the
fits apart and a table of what each would have been given (several.cu), of everything else a copy for each, some beside
each other.
"""

from __future__ import annotations

import ctypes
import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from dip.networks import driver
from dip.networks.driver import Kernel, check, library

__all__ = ["Merged", "Unlike", "in_order"]

# How many fits' copies are beside each other between two kernels that are begun for all. More of them keep a GPU busy
# where they are small; but the next kernel for all waits for so many.
LANES = 4
_KERNEL, _MEMCPY, _MEMSET, _EMPTY = 0, 1, 2, 5  # the driver's names for kinds of nodes
_ALIGNED, _ROOM = 16, 4000  # bytes, of a row of a table, and of a table (several.cu)


class Unlike(RuntimeError):
    """Recordings that cannot be made one."""


class _Launch(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS."""

    _fields_: ClassVar = [
        ("function", ctypes.c_void_p),
        ("grid", 3 * ctypes.c_uint),
        ("block", 3 * ctypes.c_uint),
        ("shared", ctypes.c_uint),
        ("given", ctypes.POINTER(ctypes.c_void_p)),
        ("extra", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    ]


class _Memset(ctypes.Structure):
    """CUDA_MEMSET_NODE_PARAMS."""

    _fields_: ClassVar = [
        ("to", ctypes.c_uint64),
        ("pitch", ctypes.c_size_t),
        ("value", ctypes.c_uint),
        ("element", ctypes.c_uint),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
    ]


class _Side(ctypes.Structure):
    """Where a copy comes from or goes to."""

    _fields_: ClassVar = [
        ("at", 4 * ctypes.c_size_t),
        ("kind", ctypes.c_uint),
        ("where", 4 * ctypes.c_void_p),
        ("layout", 2 * ctypes.c_size_t),
    ]


class _Memcpy(ctypes.Structure):
    """CUDA_MEMCPY3D."""

    _fields_: ClassVar = [("source", _Side), ("target", _Side), ("size", 3 * ctypes.c_size_t)]


_Nodes = Sequence[int]  # the driver's numbers of them


def in_order(graph: int) -> list[int]:
    """Return the nodes of a graph, each after those that it waits for.

    Parameters
    ----------
    graph : int
        The driver's number of it (CUgraph).
    """
    nodes = _listed(lambda made, count: library().cuGraphGetNodes(_of(graph), made, count))
    place = {node: number for number, node in enumerate(nodes)}
    before, after = dict.fromkeys(nodes, 0), {node: list[int]() for node in nodes}
    for node, later in _edges(graph):
        before[later] += 1
        after[node].append(later)
    ready, found = [place[node] for node in nodes if not before[node]], []
    while ready:  # of those that might be next the first that the driver names, which is the same in all fits
        found.append(nodes[heapq.heappop(ready)])
        for later in after[found[-1]]:
            before[later] -= 1
            if not before[later]:
                heapq.heappush(ready, place[later])
    return found


def _listed(fill: Any) -> list[int]:
    count = ctypes.c_size_t()
    check(fill(None, ctypes.byref(count)))
    made = (ctypes.c_void_p * count.value)()
    check(fill(made, ctypes.byref(count)))
    return [node or 0 for node in made]


def _edges(graph: int) -> list[tuple[int, int]]:
    """Return which node another waits for, and that other one."""
    count = ctypes.c_size_t()
    fill = library().cuGraphGetEdges_v2
    check(fill(_of(graph), None, None, None, ctypes.byref(count)))
    ends, starts = (ctypes.c_void_p * count.value)(), (ctypes.c_void_p * count.value)()
    # What an edge may say besides, that a kernel may begin before the other has ended, is left out: it begins later.
    more = (ctypes.c_uint64 * count.value)()
    check(fill(_of(graph), ends, starts, more, ctypes.byref(count)))
    return [(one or 0, other or 0) for one, other in zip(ends, starts, strict=True)]


def _of(number: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(number)


class _Step:
    """A node of each fit, the same in all of them.

    Parameters
    ----------
    nodes : sequence of int
        One of each fit.
    """

    def __init__(self, nodes: _Nodes) -> None:
        self.nodes = nodes
        self.kernel: Kernel | None = None  # where it is the package's own
        if any(_kind(node) != _KERNEL for node in nodes):
            return
        launches = [_launch_of(node) for node in nodes]
        kernels = {driver.launched(launch.function) for launch in launches}
        sizes = {(*launch.grid, *launch.block, launch.shared) for launch in launches}
        kernel = kernels.pop()
        if kernels or kernel is None or len(sizes) > 1:
            return
        rows = [kernel.packed([launch.given[k] for k in range(len(kernel.layout))]) for launch in launches]
        self.size = len(rows[0]) + -len(rows[0]) % _ALIGNED
        if self.size * len(rows) <= _ROOM:
            self.kernel, self.launch = kernel, launches[0]
            self.table = b"".join(row.ljust(self.size, b"\0") for row in rows)


def _kind(node: int) -> int:
    found = ctypes.c_int()
    check(library().cuGraphNodeGetType(_of(node), ctypes.byref(found)))
    return found.value


def _launch_of(node: int) -> _Launch:
    found = _Launch()
    check(library().cuGraphKernelNodeGetParams_v2(_of(node), ctypes.byref(found)))
    return found


class Merged:
    """Recordings of several fits as one.

    Parameters
    ----------
    device : torch.device
        The GPU.
    graphs : sequence of sequences of int
        Of each fit the driver's numbers of graphs that are done one after the other. They have to be there until this
        is made, and what they work on as long as this is replayed.

    Attributes
    ----------
    shared, copied : int
        Kernels that are begun for all fits at once, and nodes that are copied for each.

    Raises
    ------
    Unlike
        They differ, or have nothing that could be done at once.
    RuntimeError
        The driver refuses something.
    """

    def __init__(self, device: torch.device, graphs: Sequence[Sequence[int]]) -> None:
        self._device, self._exec = device, ctypes.c_void_p()
        rows = [list(itertools.chain.from_iterable(map(in_order, own))) for own in graphs]
        if len({len(own) for own in rows}) > 1:
            raise Unlike("one has more kernels than another")
        steps = [_Step(nodes) for nodes in zip(*rows, strict=True)]
        kernels = [step.kernel for step in steps if step.kernel is not None]
        if not kernels:
            raise Unlike("they have no kernel of the package's own")
        self.shared, self.copied = len(kernels), len(steps) - len(kernels)
        self._program = kernels[0].program
        names: dict[driver.Loaded, set[str]] = {}
        for kernel in kernels:
            names.setdefault(kernel.program, set()).add(kernel.name)
        programs = {program: program.several(several) for program, several in names.items()}
        with self._program.entered() as context:
            graph = ctypes.c_void_p()
            check(library().cuGraphCreate(ctypes.byref(graph), 0))
            try:
                _fill(graph, context, steps, programs)
                check(library().cuGraphInstantiateWithFlags(ctypes.byref(self._exec), graph, ctypes.c_uint64(0)))
            finally:
                library().cuGraphDestroy(graph)

    def replay(self) -> None:
        """Queue all of it on the current stream."""
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        with self._program.entered():
            check(library().cuGraphLaunch(self._exec, stream))

    def close(self) -> None:
        """Give its memory back; what is queued of it ends before."""
        if self._exec:
            with self._program.entered():
                library().cuGraphExecDestroy(self._exec)
            self._exec = ctypes.c_void_p()


_Programs = Mapping[driver.Loaded, driver.Loaded]  # of those for one fit, those for several


def _fill(graph: ctypes.c_void_p, context: ctypes.c_void_p, steps: list[_Step], programs: _Programs) -> None:
    last: list[int] = []
    for is_shared, several in itertools.groupby(steps, lambda step: step.kernel is not None):
        if not is_shared:
            last = _beside_each_other(graph, context, [step.nodes for step in several], last)
            continue
        for step in several:
            last = [_for_all(graph, step, programs, last)]


def _for_all(graph: ctypes.c_void_p, step: _Step, programs: _Programs, last: list[int]) -> int:
    """Add a kernel that is begun once for all fits, after others."""
    kernel, launch = step.kernel, step.launch
    assert kernel is not None
    given = ctypes.create_string_buffer(step.table, _ROOM), ctypes.c_int(step.size)
    pointers = (ctypes.c_void_p * 2)(*map(ctypes.addressof, given))
    made = _Launch(
        function=programs[kernel.program].function(f"{kernel.name}_each", launch.shared),
        grid=(*launch.grid[:2], len(step.nodes)),
        block=launch.block,
        shared=launch.shared,
        given=pointers,
    )
    return _added(library().cuGraphAddKernelNode_v2, graph, last, made)


def _beside_each_other(
    graph: ctypes.c_void_p, context: ctypes.c_void_p, steps: list[_Nodes], last: list[int]
) -> list[int]:
    """Add copies of nodes, after others; those of a fit one after the other. Return what comes last."""
    fits = list(zip(*steps, strict=True))
    ends = [last] * min(LANES, len(fits))
    for fit, nodes in enumerate(fits):
        for node in nodes:
            ends[fit % LANES] = [_copied(graph, context, node, ends[fit % LANES])]
    return [node for end in ends for node in end]


def _copied(graph: ctypes.c_void_p, context: ctypes.c_void_p, node: int, last: list[int]) -> int:
    kind, own = _kind(node), _of(node)
    if kind == _KERNEL:
        launch = _launch_of(node)
        try:
            made = _added(library().cuGraphAddKernelNode_v2, graph, last, launch)
            check(library().cuGraphKernelNodeCopyAttributes(_of(made), own))  # such as clusters of blocks
        except RuntimeError as error:
            raise RuntimeError(f"{error}, of a copy of the kernel {driver.name_of(launch.function)}") from error
        return made
    if kind == _MEMSET:
        memset = _Memset()
        check(library().cuGraphMemsetNodeGetParams(own, ctypes.byref(memset)))
        return _added(library().cuGraphAddMemsetNode, graph, last, memset, context)
    if kind == _MEMCPY:
        memcpy = _Memcpy()
        check(library().cuGraphMemcpyNodeGetParams(own, ctypes.byref(memcpy)))
        return _added(library().cuGraphAddMemcpyNode, graph, last, memcpy, context)
    if kind == _EMPTY:
        return _added(library().cuGraphAddEmptyNode, graph, last)
    raise Unlike(f"they have a node of kind {kind}, which is not copied")


def _added(add: Any, graph: ctypes.c_void_p, last: list[int], *given: Any) -> int:
    made, after = ctypes.c_void_p(), (ctypes.c_void_p * len(last))(*last)
    more = [ctypes.byref(one) if isinstance(one, ctypes.Structure) else one for one in given]
    check(add(ctypes.byref(made), graph, after, ctypes.c_size_t(len(last)), *more))
    assert made.value
    return made.value
