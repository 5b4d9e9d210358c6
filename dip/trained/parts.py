"""What the names in a recipe stand for: optimiser, loss, precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dip import devices, losses, optimizers
from dip.trained.recipe import MOMENTUM, Recipe

__all__ = ["loss", "optimizer", "precision"]


def optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=recipe.lr, momentum=MOMENTUM)
    return optimizers.create("adam", parameters, recipe.lr)


def loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of that name: of an output and a target."""
    if name == "bce":
        return nn.functional.binary_cross_entropy
    return losses.create(name)


def precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the products: bfloat16 where the device multiplies it natively, unless told otherwise.

    Raises
    ------
    ValueError
        bfloat16 was asked for on MPS.
    """
    if device.type == "mps" and name == "bfloat16":
        raise ValueError('precision="bfloat16" is for training on a CPU or a CUDA GPU, not on mps; take "float32"')
    return devices.precision(name, device)
