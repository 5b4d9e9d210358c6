"""What a recorded fit keeps on its device, in memory that is taken once: the last losses, and copies of its state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dip import optimizers
from dip.networks import cuda

if TYPE_CHECKING:
    from dip.solver import Fit

__all__ = ["MOST", "Notes", "Room", "tensors"]

MOST = 128  # iterations in a row whose losses are kept


class Notes:
    """The losses of the last iterations, on the device.

    Parameters
    ----------
    loss, data_loss : Tensor
        Where each iteration leaves its loss, and the data loss in it if that is another.
    """

    def __init__(self, loss: Tensor, data_loss: Tensor | None) -> None:
        self._kinds = [loss] if data_loss is None else [loss, data_loss]
        self._ring = loss.new_zeros(len(self._kinds), MOST)
        self._place = torch.zeros(1, dtype=torch.int64, device=loss.device)
        self._has_kernel = loss.dtype == torch.float32 and cuda.works(loss.device)
        self.taken = 0  # by iterations that were done

    def begin(self) -> None:
        """Begin anew."""
        self._place.zero_()
        self.taken = 0

    def take(self) -> None:
        """Note the loss of an iteration; who does so counts it, too. This can be recorded."""
        if self._has_kernel:
            cuda.note(self._kinds[0], self._kinds[1] if len(self._kinds) > 1 else None, self._ring, self._place)
            return
        self._ring.index_copy_(1, self._place, torch.stack(self._kinds)[:, None])
        self._place.add_(1).remainder_(MOST)

    def last(self, count: int) -> Tensor:
        """Return the last so many, (kinds, count)."""
        return self._ring.roll(-(self.taken % MOST), 1)[:, MOST - count :].clone()


class Room:
    """Room for a copy of what an optimiser's step changes; to copy it takes a few calls, and nothing is looked for."""

    def __init__(self, fit: Fit) -> None:
        self.state = fit._trainable_state()
        optimizer = optimizers.live_state(fit._optimizer)
        live = {"network": fit.network.state_dict(), "code": fit.code, "optimizer": optimizer}
        there = dict(tensors("", live))
        self._kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for name, copy in tensors("", {name: self.state[name] for name in live}):
            copies, originals = self._kinds.setdefault(copy.dtype, ([], []))
            copies.append(copy)
            originals.append(there[name])

    @torch.no_grad()
    def filled(self, fit: Fit) -> dict[str, Any]:
        """Copy it there, and return what has come of it: what `Fit._trainable_state` returns."""
        for copies, originals in self._kinds.values():
            torch._foreach_copy_(copies, originals)
        self.state = {**self.state, **fit._looks()}
        return self.state


def tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a nested state with their names; numbers become tensors of one."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(f"{name} {key}".strip(), item)
    elif value is not None:
        yield name, torch.as_tensor(value)
