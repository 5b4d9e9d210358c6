"""A forward operator is tried before the first iteration: what is wrong with it is said in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dip.errors import shown
from dip.operators.basic import Operator

__all__ = ["response", "try_out"]

_TORCH_ONLY = (
    "write it with torch operations (a matrix A as torch.from_numpy(A).float() @ x.reshape(-1)), and do not detach x: "
    "that hides the gradient that the fit needs"
)


def try_out(operator: Operator, shape: tuple[int, ...], y: Tensor) -> None:
    """Apply an operator to a gray image, and check that what comes out can be compared with y.

    Parameters
    ----------
    operator : callable
        A.
    shape : tuple of int
        (1, C, H, W) of x.
    y : Tensor
        The observation, on the device of the fit.

    Raises
    ------
    TypeError, ValueError
        A fails on x, leaves PyTorch's gradient behind, or returns no tensor, another shape than y's, complex values
        for real ones or the other way round, NaN or infinity.
    """
    start = torch.zeros(shape, device=y.device, requires_grad=True)
    with torch.enable_grad():
        x = torch.sigmoid(start)  # gray, and like a network's output no leaf
        prediction = _translated(lambda: operator(x), x)
    if not isinstance(prediction, Tensor):
        raise TypeError(f"forward returned {shown(prediction)}; a tensor is needed")
    if prediction.shape != y.shape:
        made, given = tuple(prediction.shape), tuple(y.shape)
        advice = "change shape= or the operator until they agree"
        if [n for n in made if n > 1] == [n for n in given if n > 1]:
            advice = f"give y.reshape({', '.join(map(str, made))}), or let forward end with .reshape({list(given)})"
        raise ValueError(f"forward turned an image of shape {shape} into {made}, but y has shape {given}; {advice}")
    if prediction.is_complex() != y.is_complex():
        raise ValueError(f"forward returned {prediction.dtype}, but y is {y.dtype}; let both be complex or both real")
    if not prediction.requires_grad:
        raise ValueError(
            "forward returned a tensor without a gradient: between x and its result there is a step that PyTorch "
            f"cannot differentiate (NumPy, .detach(), .item(), no_grad); {_TORCH_ONLY}"
        )
    if not torch.isfinite(prediction).all():
        raise ValueError("forward returned NaN or infinity for a gray image; check the operator")
    _translated(lambda: torch.autograd.grad(prediction.abs().sum(), start, allow_unused=True), x)


def _translated(action: Callable[[], Any], x: Tensor) -> Any:
    """Do it, and say PyTorch's errors in words that name the operator."""
    try:
        return action()
    except TypeError as error:
        if "Tensor" not in str(error):
            raise
        raise TypeError(f"forward fails on x, a torch tensor: {error}; {_TORCH_ONLY}") from error
    except RuntimeError as error:
        if "numpy() on Tensor" in str(error):
            raise TypeError(
                f"forward hands x to NumPy or SciPy, whose steps PyTorch cannot differentiate; {_TORCH_ONLY}"
            ) from error
        if "in-place" in str(error) or "inplace" in str(error):
            raise ValueError(
                "forward changes x, or what PyTorch needs to differentiate it, in place; write x * 2 for x.mul_(2)"
            ) from error
        if "memory" in str(error):
            raise
        raise ValueError(
            f"forward fails on an image of shape {tuple(x.shape)}, {x.dtype}, on {x.device}: {error}; its own arrays "
            "have to suit that shape, dtype and device"
        ) from error


def response(operator: Operator, shape: tuple[int, ...], device: torch.device) -> list[float]:
    """Return a few numbers that tell an operator from another: what it makes of a certain noise image.

    They are sums over A x, weighted at random and divided by the size of A x, and that size. They agree to about three
    digits where the same operator is computed in another order of additions.

    Parameters
    ----------
    operator : callable
        A.
    shape : tuple of int
        (1, C, H, W) of x.
    device : torch.device
        Where A computes.

    Returns
    -------
    list of float
        Empty for an operator that is itself random, which does not do the same twice.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator).to(device)
    with torch.no_grad():
        first, again = operator(x.clone()), operator(x.clone())
    if not torch.equal(first, again):
        return []
    values = (torch.view_as_real(first) if first.is_complex() else first).flatten().cpu().double()
    size = float(values.norm())
    weights = torch.randn(2, values.numel(), generator=generator, dtype=torch.float64)
    return [size, *(weights @ values / max(size, 1e-30)).tolist()]
