"""The jitter: fresh noise that is added to the code at each iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from dip.networks import cuda

__all__ = ["Jitter"]


class Jitter:
    """Fresh normal noise added to the code at each iteration, from a seeded generator on the code's device.

    Parameters
    ----------
    std : float
        Standard deviation; 0 = no jitter.
    seed : int
        Seed of the generator.
    device : torch.device
        Where the code is.
    dtype : torch.dtype, default float32
        What the network wants. (What is drawn may have it, or be in float32.)

    Attributes
    ----------
    generator : torch.Generator
        Where the noise is drawn from; where a kernel of the package's own draws it, only the seed is this one's.
    """

    def __init__(self, std: float, seed: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.std = std
        self.generator = torch.Generator(device).manual_seed(seed)
        self._noise: Tensor | None = None
        self._count: Tensor | None = None
        self._dtype, self._drew = dtype, False
        self._has_kernel = bool(std) and cuda.draws(device, dtype)
        self._seed = self.generator.initial_seed()  # cannot be asked for in a recording

    @property
    def recorded(self) -> torch.Generator | None:
        """The generator that what was drawn last came from, None if a kernel of the package's own has drawn it."""
        return None if self._drew else self.generator

    def draw(self, z: Tensor) -> None:
        """Draw the noise for the next iteration."""
        if not self.std:
            return
        dense = z.is_contiguous() or z.is_contiguous(memory_format=torch.channels_last)
        self._drew = self._has_kernel and dense and not z.requires_grad and not z.data_ptr() % 16
        if self._drew:  # on an NVIDIA GPU, where PyTorch goes over it three times: to draw, to add and to cast
            if self._count is None:
                self._count = torch.zeros((), dtype=torch.int64, device=z.device)
            if self._noise is None:
                self._noise = torch.empty(z.numel(), dtype=self._dtype, device=z.device)
            self._count.add_(1)
            cuda.draw(z, self._noise, self._count, self._seed, self.std)
            return
        if self._noise is None:
            # PyTorch draws eight times as fast into a flat buffer as into one in channels-last order; the
            # order does not matter to noise.
            self._noise = torch.empty(z.numel(), dtype=z.dtype, device=z.device)
        self._noise.normal_(std=self.std, generator=self.generator)
        if not z.requires_grad:  # else it may change before the next draw
            self._in_order_of(z).add_(z)

    def add(self, z: Tensor) -> Tensor:
        """Return z plus the noise drawn last (z itself where there is no jitter)."""
        if not self.std or self._noise is None:
            return z
        drawn = self._in_order_of(z)
        return z + drawn if z.requires_grad else drawn

    def _in_order_of(self, z: Tensor) -> Tensor:
        assert self._noise is not None
        return self._noise.as_strided(z.shape, z.stride())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the generator's state, and how often the package's own kernel has drawn."""
        count = {} if self._count is None else {"count": self._count.clone()}
        return {"generator": self.generator.get_state(), **count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; the state of another kind of device cannot be continued and is left aside."""
        if state["generator"].shape == self.generator.get_state().shape:
            self.generator.set_state(state["generator"])
            self._seed = self.generator.initial_seed()
        if "count" in state and self._has_kernel:
            if self._count is None:
                self._count = state["count"].to(self.generator.device, copy=True)
            else:
                self._count.copy_(state["count"])

    def replace_generator(self) -> None:
        """Draw on from a new generator: a recording that was broken off may leave the old one unusable."""
        state = self.generator.get_state()
        self.generator = torch.Generator(self.generator.device)
        self.generator.set_state(state)
