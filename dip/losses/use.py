"""How a fit uses a loss: by name, with a gradient that is not too small, and checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from dip.errors import shown, unknown
from dip.losses.of_tasks import BackProjection, Quantization
from dip.losses.residuals import L1, MSE, Huber, Loss, Poisson

__all__ = ["checked", "create", "gain", "names", "norm"]

_LOSSES: dict[str, Callable[[], Loss]] = {
    "mse": MSE,
    "l1": L1,
    "huber": Huber,
    "poisson": Poisson,
    "back-projection": BackProjection,
    "quantization": Quantization,
}


def names() -> list[str]:
    """Return the names of the losses."""
    return list(_LOSSES)


def create(loss: str | Loss) -> Loss:
    """Return the loss of a name; a loss, or any other callable, is returned as it is.

    Parameters
    ----------
    loss : {"mse", "l1", "huber", "poisson", "back-projection", "quantization"} or callable
        A callable must accept ``(prediction, observation)``, and ``weight=`` where the task has weights
        (inpainting).

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If it is neither a name nor callable.

    Examples
    --------
    >>> create("huber")
    Huber(delta=0.1)
    """
    if isinstance(loss, str):
        if loss not in _LOSSES:
            raise unknown("loss", loss, _LOSSES)
        return _LOSSES[loss]()
    if isinstance(loss, type):
        raise TypeError(f"loss is the class {loss.__name__} itself; pass {loss.__name__}(), an object of it")
    if not callable(loss):
        raise TypeError(
            f"loss must be one of {', '.join(sorted(_LOSSES))} or a callable loss(prediction, observation), "
            f"not {shown(loss)}"
        )
    return loss


def gain(observation: torch.Tensor) -> torch.Tensor | None:
    """Return by what the gradient is multiplied where the observation is small in its own units, or None.

    The gradient of a squared error is as small as the observation squared; below Adam's epsilon (1e-8) it would say
    nothing any more. Adam asks for its direction only, so a factor, here about 1 / mean(abs(y)^2), changes nothing
    else.

    Parameters
    ----------
    observation : Tensor
        y, real or complex; zeros in it do not count (they may stand for what was not measured).

    Returns
    -------
    Tensor or None
        A power of two (so that nothing is rounded), float32, on y's device; None from a root mean square of 0.01 on.
    """
    power = norm(observation) ** 2 / max(1, int(observation.count_nonzero()))
    if not 0 < power < 1e-4:
        return None
    return torch.tensor(2.0 ** min(round(-math.log2(power)), 60), device=observation.device)


def norm(values: torch.Tensor) -> float:
    """Return the Euclidean norm of real or complex values, added up in float64."""
    values = values.detach().cpu()  # not every device has float64
    return float(torch.linalg.vector_norm(values, dtype=torch.promote_types(values.dtype, torch.float64)))


@torch.no_grad()
def of_picture(
    loss: Callable[..., Any],
    forward: Callable[[torch.Tensor], torch.Tensor],
    y: torch.Tensor,
    weight: torch.Tensor | None,
    x: torch.Tensor,
) -> torch.Tensor:
    """Return the data loss of a picture x (1, C, H, W)."""
    value: torch.Tensor = loss(forward(x), y, **({} if weight is None else {"weight": weight}))
    return value.reshape(())


def checked(name: str, function: Callable[..., Any], *operands: torch.Tensor, **weight: torch.Tensor) -> torch.Tensor:
    """Return what a loss or a penalty, perhaps of the user's own, makes of its operands, as a tensor without axes.

    Parameters
    ----------
    name : str
        What the messages call it.
    function : callable
        The loss or penalty.
    *operands : Tensor
        What it is given; one of them has a gradient.
    **weight : Tensor
        ``weight=``, where the task has one.

    Raises
    ------
    TypeError, ValueError
        It does not take weights where there are some, or returns anything but one real number with a gradient.
    """
    try:
        value = function(*operands, **weight)
    except TypeError as error:
        if not weight or "weight" not in str(error):
            raise
        raise TypeError(
            f"{name} does not take weight=, and this task has weights (the mask); define it as "
            "def loss(prediction, y, weight=None), and multiply the residuals by weight"
        ) from error
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} returned {shown(value)}; a tensor with one number is needed, such as residual.mean()")
    if value.numel() != 1 or value.is_complex():
        raise ValueError(
            f"{name} returned {value.dtype} of shape {tuple(value.shape)}; one real number is needed: take its mean()"
        )
    if not value.requires_grad:
        raise ValueError(f"{name} returned a number without a gradient; compute it with torch operations, undetached")
    return value.reshape(())
