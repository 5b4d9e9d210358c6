"""The sizes of a fit, told before it begins: what the network makes, what it sees, and the memory that takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dip import codes, crops, devices, optimizers, replay
from dip.errors import positive_int
from dip.networks.layers import foretelling

_MOST = 64  # dry runs that are kept
_found: dict[Any, devices.Foretold] = {}


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
    found: devices.Foretold, network: Any, inputs: int, channels: int, frame: codes.Frame, tile: int | None
) -> int:
    """Return the bytes that a fit takes; in crops with the codes and images of the whole, and the pass over it.

    Parameters
    ----------
    found : Foretold
        What `dry_run` tells of an iteration.
    network : Module
        What is fitted.
    inputs, channels : int
        Channels of the code and of the image.
    frame : Frame
        The whole.
    tile : int or None
        The side of a crop; None = the network sees the whole.
    """
    if tile is None:
        return found.bytes
    height, width = seen(frame, tile)
    side = crops.pass_tile(network, tile) + 2 * network.reach
    larger = min(side, frame.height) * min(side, frame.width) / (height * width)
    in_pass = round(5 * found.largest * larger)  # what a layer takes and gives, joined, normalised and padded
    # Of the memory that the iterations have had a pass finds about half in pieces that suit it (benchmarks/memory.py).
    most, least = max(found.bytes, in_pass), min(found.bytes, in_pass)
    return most + least // 2 + 4 * frame.height * frame.width * (2 * inputs + 6 * channels)


def dry_run(
    network: nn.Module,
    inputs: int,
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    optimizer: str,
    *,
    optimize_code: bool = False,
) -> devices.Foretold | None:
    """Return what an iteration with a code of these channels and (height, width) will need (`dip.devices.dry_run`).

    It takes as long as some iterations of a small picture. Of a network like one before it is known.
    """
    options: dict[str, Any] = {
        "device": device,
        "moments": optimizers.MOMENTS[optimizer],
        "optimize_code": optimize_code,
    }
    like = (*_told(network), inputs, *size, dtype, *options.values()) if _tells_all(network) else None
    found = _found.get(like)  # fits may be made in threads
    if found is not None:
        return found
    with foretelling(device):
        found = devices.dry_run(network, (1, inputs, *size), dtype, **options)
    if like is not None and found is not None:
        if len(_found) >= _MOST:
            _found.clear()
        _found[like] = found
    return found


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
