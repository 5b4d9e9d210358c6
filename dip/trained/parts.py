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
    """Return the dtype of the products: bfloat16 on a GPU only.

    Raises
    ------
    ValueError
        It was asked for elsewhere.
    """
    if device.type != "cuda":
        if name == "bfloat16":
            raise ValueError(f'precision="bfloat16" is for training on a GPU, not on {device}; take "float32"')
        return torch.float32
    return devices.precision(name, device)
