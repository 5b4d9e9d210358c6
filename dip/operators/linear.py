"""Linear operators of which only A x is known: the adjoint by autograd, and least squares by conjugate gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from dip.losses import norm
from dip.operators.basic import Operator

__all__ = ["Linear"]

_NEAR = 1e-3  # of A x: up to that two ways to the same are taken for equal, in float32 and in any order of additions


class Linear:
    """An operator that is linear but for a constant, A x = L x + c, with its adjoint.

    Parameters
    ----------
    operator : callable
        A.
    shape : tuple of int
        (1, C, H, W) of x.
    device : torch.device
        Where A computes.
    weight : Tensor, optional
        Weights W of y's elements, broadcastable to y.

    Raises
    ------
    ValueError
        A is not linear: L (u + v) is not L u + L v for random images.
    """

    def __init__(
        self, operator: Operator, shape: tuple[int, ...], device: torch.device, weight: Tensor | None = None
    ) -> None:
        self._operator, self._weight = operator, weight
        self._origin = torch.zeros(shape, device=device)
        generator = torch.Generator().manual_seed(0)
        u, v = (torch.rand(shape, generator=generator).to(device) for _ in range(2))
        with torch.no_grad():
            self._constant = operator(self._origin)
            both = self._applied(u + v)
            if not norm(both - self._applied(u) - self._applied(v)) <= _NEAR * norm(both):
                raise ValueError("forward is not linear (what it makes of u + v is not the sum for two random images)")
            self._gain = self._largest(u)

    def least_squares(self, rest: Tensor, *, damping: float, steps: int) -> Tensor:
        r"""Return what has to be added to x so that A x comes nearer to y.

        It is d of the smallest :math:`\|W^{1/2} (L d - r)\|^2 + λ g \|d\|^2`, as far as so many steps of conjugate
        gradients come; what y says most of comes first.

        Parameters
        ----------
        rest : Tensor
            r = y - A x, real or complex.
        damping : float
            λ, beside the largest eigenvalue g of :math:`L^T W L`.
        steps : int
            Each is one A and one adjoint.

        References
        ----------
        Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", Journal of Research of the
        National Bureau of Standards 1952.
        """
        found = torch.zeros_like(self._origin)
        adjoint = self._adjoint()
        with torch.no_grad():
            residual = adjoint(rest)
            direction, power = residual, residual.square().sum()
            for _ in range(steps):
                made = adjoint(self._applied(direction)) + damping * self._gain * direction
                along = (direction * made).sum()
                if not (along > 0 and power > 0):
                    break
                found = found + power / along * direction
                residual = residual - power / along * made
                power, before = residual.square().sum(), power
                direction = residual + power / before * direction
        return found

    def _applied(self, x: Tensor) -> Tensor:
        return self._operator(x) - self._constant

    def _adjoint(self) -> _Adjoint:
        return _Adjoint(self._operator, self._origin, self._weight)

    def _largest(self, x: Tensor) -> float:
        """Return the largest eigenvalue, about: 10 power iterations."""
        adjoint, size = self._adjoint(), norm(x)
        for _ in range(10):
            x = adjoint(self._applied(x / max(size, 1e-30)))
            size = norm(x)
        return size


class _Adjoint:
    """LᵀW, through the graph of one A x, which it keeps."""

    def __init__(self, operator: Operator, origin: Tensor, weight: Tensor | None) -> None:
        self._weight = weight
        with torch.enable_grad():
            self._at = origin.clone().requires_grad_()
            self._made = operator(self._at * 1)  # no leaf, as a network's output is none

    def __call__(self, y: Tensor) -> Tensor:
        weighted = y if self._weight is None else y * self._weight
        return torch.autograd.grad(self._made, self._at, weighted, retain_graph=True)[0]
