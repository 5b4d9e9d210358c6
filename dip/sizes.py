"""The sizes of a fit, told before it begins: what the network makes, what it sees, and the memory that takes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dip import codes, crops, excerpt, optimizers, replay
from dip.errors import positive_int, shown
from dip.networks.layers import foretelling

_MOST = 64  # dry runs that are kept


class Foretold(NamedTuple):
    """What a dry run tells.

    Attributes
    ----------
    bytes : int
        Of memory that an iteration takes at its peak.
    shape : tuple of int
        Of what the network makes.
    fitted : int
        Bytes of what is fitted, with all that goes with it.
    """

    bytes: int
    shape: tuple[int, ...]
    fitted: int


_found: dict[Any, Any] = {}


def magnification(network: nn.Module) -> int:
    """Return how many times as high and wide as its code the image is that a network makes.

    Raises
    ------
    TypeError, ValueError
        What the network says of it is no whole number from 1 up.
    """
    return positive_int(getattr(network, "magnification", 1), "the network's magnification")


def framed(network: nn.Module, height: int, width: int) -> codes.Frame:
    """Return the image's place in what the network makes.

    That is as large as the network's `padded_size` says, where it has one, and otherwise what its code comes to.
    """
    times = magnification(network)
    of_its_own: Any = getattr(network, "padded_size", None)
    padded = of_its_own(height, width) if of_its_own else (-(-height // times) * times, -(-width // times) * times)
    return codes.Frame.around((height, width), padded)


def needed(
    found: Foretold,
    network: Any,
    code: codes.Code,
    channels: int,
    frame: codes.Frame,
    tile: int | None,
    device: torch.device,
    dtype: torch.dtype,
) -> int | None:
    """Return the bytes that a fit takes; in crops with the codes and images of the whole, and the pass over it.

    It is None where that pass cannot be foretold.

    Parameters
    ----------
    found : Foretold
        What `dry_run` tells of an iteration.
    network : Module
        What is fitted.
    code : Code
        The code.
    channels : int
        Channels of the image.
    frame : Frame
        The whole.
    tile : int or None
        The side of a crop; None = the network sees the whole.
    device, dtype
        Where and in what the network computes.
    """
    height, width = seen(frame, tile)
    folds = code.folds if isinstance(code, codes.HeldOut) else 0
    of_folds = 4 * height * width * code.channels * folds
    if tile is None:
        return found.bytes + of_folds
    most = crops.most_in_pass(network, excerpt.pass_tile(tile, frame) if folds else tile, frame)
    alive = in_one_pass(network, (1, code.channels, *most), device, dtype)
    if alive is None:
        return None
    in_pass = found.fitted + _taken(alive, device, 11)
    # Pictures and codes of the whole beside that: how many is measured (benchmarks/memory.py).
    of_the_whole = 4 * frame.height * frame.width * (6 * channels + (2 if folds else 1) * code.channels)
    return of_folds + of_the_whole + max(found.bytes, in_pass)


class _Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is on, and the most that were alive at a time."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            weakref.finalize(storage, self._gone, key, size)
            self._now += size
            self.most = max(self.most, self._now)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def in_one_pass(
    network: nn.Module, code_shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> int | None:
    """Return the most bytes of tensors that a network has at a time that makes a picture and is not fitted.

    As by `dry_run`, of a network like one before it is known, and it is None where the network cannot run so.
    """

    def run() -> int | None:
        weights = _on_meta(network)
        alive = _Alive(weights.values())
        try:
            with torch.no_grad(), crops.evaluated(network), alive:
                z = torch.empty(code_shape, dtype=dtype, device="meta", memory_format=torch.channels_last)
                torch.func.functional_call(network, weights, (z,))
        except (RuntimeError, NotImplementedError, TypeError):
            return None
        return alive.most

    found: int | None = _found_once(network, device, ("pass", *code_shape, dtype, device), run)
    return found


def dry_run(
    network: nn.Module,
    inputs: int,
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    optimizer: str,
    *,
    optimize_code: bool = False,
) -> Foretold | None:
    """Return what an iteration with a code of these channels and (height, width) will need, and what the network makes.

    It takes as long as some iterations of a small picture. Of a network like one before it is known; None where the
    network cannot run on PyTorch's meta device.

    Raises
    ------
    ValueError, TypeError
        The network does not take such a code, or returns anything but a tensor.
    """
    options: dict[str, Any] = {
        "device": device,
        "moments": optimizers.MOMENTS[optimizer],
        "optimize_code": optimize_code,
    }
    given = (inputs, *size, dtype, *options.values())
    return _found_once(network, device, given, lambda: run_on_meta(network, (1, inputs, *size), dtype, **options))


def _found_once(network: nn.Module, device: torch.device, given: tuple[Any, ...], run: Callable[[], Any]) -> Any:
    """Return what a dry run on this device tells; of a network like one before, with the same given, what that told."""
    like = (*_told(network), *given) if _tells_all(network) else None
    found = _found.get(like)  # fits may be made in threads
    if found is not None:
        return found
    with foretelling(device):
        found = run()
    if like is not None and found is not None:
        if len(_found) >= _MOST:
            _found.clear()
        _found[like] = found
    return found


def run_on_meta(
    network: nn.Module,
    code_shape: tuple[int, ...],
    dtype: torch.dtype,
    *,
    device: torch.device | None = None,
    moments: int = 2,
    optimize_code: bool = False,
) -> Foretold | None:
    """Return the bytes that one iteration will need at its peak, and what the network makes, from shapes alone.

    The network runs once on PyTorch's meta device, which computes shapes and allocates nothing. The tensors that the
    backward pass would need are added up, and to them the largest gradients alive at one time, the weights with their
    gradients, the optimiser's `moments` (how often it keeps something of the weights' size) and the guard's copy of all
    that, and the code with its jitter.

    It is None where the network cannot run on the meta device; one that does not take a code of that shape, or
    returns no tensor, is refused.
    """
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    try:
        on_meta = _on_meta(network)
        z = torch.empty(code_shape, dtype=dtype, device="meta")
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = torch.func.functional_call(network, on_meta, (z,))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        text = str(error).lower()
        shapes = any(word in text for word in ("size", "shape", "channel", "dimension"))
        if shapes and "meta" not in text and "device" not in text:
            raise ValueError(
                f"the network fails on a code of shape {code_shape}: {error}; give it as many input channels as the "
                "code has (code=dip.codes.Uniform(32) has 32), or a code of as many as it takes; and where not every "
                "size suits it, a method padded_size(height, width), which returns the next size up that does"
            ) from error
        return None
    if not isinstance(output, Tensor):
        raise TypeError(
            f"the network returns {shown(output)}; a fit needs the image alone, one tensor (1, C, H, W): wrap it in a "
            "module whose forward returns that"
        )
    weights = {tensor.untyped_storage()._cdata for tensor in on_meta.values()}
    sizes = [t.untyped_storage().nbytes() for key, t in saved.items() if key not in weights]
    once = sum(p.numel() * p.element_size() for p in network.parameters()) + 4 * z.numel() * optimize_code
    fitted = (3 + 2 * moments) * once
    total = sum(sizes) + getattr(network, "alive", 3) * max(sizes, default=0) + fitted + 3 * 4 * z.numel()
    return Foretold(_taken(total, device, 13), tuple(output.shape), fitted)


def _taken(alive: int, device: torch.device | None, tenths: int) -> int:
    """Return what tensors of so many bytes take.

    Beyond what is alive: the kernels' own code and scratch, and room lost between blocks (benchmarks/memory.py), of
    which PyTorch's own allocator for CUDA has less (benchmarks/gpu.py).
    """
    on_cuda = device is not None and device.type == "cuda"
    return 8 * 2**20 + 11 * alive // 10 if on_cuda else 25 * 2**20 + tenths * alive // 10


def _on_meta(network: nn.Module) -> dict[str, Tensor]:
    """Return weights and buffers without their values."""
    return {
        name: tensor.detach().to("meta").requires_grad_(tensor.requires_grad)
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }


def _tells_all(network: nn.Module) -> bool:
    """Tell whether networks of which `_told` says the same are the same: of layers that are PyTorch's or dip's."""
    return all(map(replay.known, network.modules()))


def _told(network: nn.Module) -> tuple[Any, ...]:
    """Return what there is to tell of a network but for the numbers in it."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    kinds = [(name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors]
    return repr(network), *kinds, *(module.training for module in network.modules())


def seen(frame: codes.Frame, tile: int | None) -> tuple[int, int]:
    """Return height and width of what the network sees in an iteration."""
    if tile is None:
        return frame.height, frame.width
    return min(tile, frame.height), min(tile, frame.width)


def check_shape(made: tuple[int, ...], needed: tuple[int, ...], code: tuple[int, ...]) -> None:
    """Refuse a network whose output has another shape than the task needs."""
    if made != needed:
        raise ValueError(
            f"the network makes {made} of a code of shape {code}; the task needs {needed}: "
            "give it as many output channels as the image has, and the size of its code (one that halves its size "
            "needs a method padded_size(height, width), which returns the next size up that suits it; one that makes "
            "the image of a smaller code, an attribute magnification, how many times as high and wide it is)"
        )
