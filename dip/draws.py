"""What a network of one's own draws from PyTorch's own generator on a CPU, as Dropout does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_turn = threading.RLock()  # PyTorch has one generator for all threads


class Draws:
    """Random numbers for a network that draws them from PyTorch's own generator, so that they come from the fit's seed.

    The package's own networks draw none, and on other devices PyTorch's generator is left as it is.

    Parameters
    ----------
    network : Module
        The network.
    seed : int
        What they come from.
    device : torch.device
        Where the network computes.

    Attributes
    ----------
    state : Tensor or None
        The generator's state by which they go on; None where there is nothing to draw.
    """

    def __init__(self, network: nn.Module, seed: int, device: torch.device) -> None:
        ours = type(network).__module__.split(".")[0] == "dip"
        self.state: Tensor | None = None
        if device.type == "cpu" and not ours:
            self.state = torch.Generator().manual_seed(seed).get_state()

    def go_on(self, state: Tensor | None) -> None:
        """Go on from a state that was kept; without one, as that of a fit on another device is, from the seed."""
        if self.state is not None and state is not None:
            self.state = state

    @contextmanager
    def __call__(self, *, kept: bool = True) -> Iterator[None]:
        """Let PyTorch's own generator be the network's; with kept=False the next one begins where this one did."""
        if self.state is None:
            yield
            return
        with _turn:
            outside = torch.get_rng_state()
            torch.set_rng_state(self.state)  # noqa: TID251  (put back below)
            try:
                yield
                if kept:
                    self.state = torch.get_rng_state()
            finally:
                torch.set_rng_state(outside)  # noqa: TID251
