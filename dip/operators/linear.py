"""Linear operators of which only A x is known: the adjoint by autograd, and least squares by conjugate gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from dip.losses import norm
from dip.operators.basic import Operator

__all__ = ["Linear"]

_APART = 1e-2  # of the norms, as far as two inner products may be apart: a projector's transpose is rarely exact
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
        A is not linear: L (u + v) is not L u + L v for random images; or its gradient is not its transpose.
    """

    def __init__(
        self, operator: Operator, shape: tuple[int, ...], device: torch.device, weight: Tensor | None = None
    ) -> None:
        self._operator = operator
        self._weight = None if weight is None else weight / weight.max()  # in any unit
        self._origin = torch.zeros(shape, device=device)
        generator = torch.Generator().manual_seed(0)
        u, v = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
        adjoint = _Adjoint(operator, self._origin)
        self._constant = adjoint.of_origin
        with torch.no_grad():
            both, one, other = self._applied(u + v), self._applied(u), self._applied(v)
            if not norm(both - one - other) <= _NEAR * norm(both):
                raise ValueError("forward is not linear (what it makes of u + v is not the sum for two random images)")
            self._gain = self._largest(u, adjoint)
            # <L u, L v> = <u, L^T L v>: a gradient of the user's own may be another than the transpose
            there, here = _inner(one, other), _inner(u, adjoint(other))
            if not self._gain > 0 or not abs(there - here) <= _APART * norm(one) * norm(other):
                raise ValueError("forward has a gradient that is not the transpose of what it does")

    def least_squares(self, rest: Tensor, *, damping: float, steps: int) -> Tensor:
        r"""Return what has to be added to x so that A x comes nearer to y.

        It is d of the smallest :math:`\|W^{1/2} (L d - r)\|^2 / g + λ \|d\|^2`, as far as so many steps of conjugate
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
        adjoint = _Adjoint(self._operator, self._origin)
        with torch.no_grad():
            residual = adjoint(self._weighted(rest)) / self._gain
            direction, power = residual, residual.square().sum()
            for _ in range(steps):
                made = adjoint(self._weighted(self._applied(direction))) / self._gain + damping * direction
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

    def _weighted(self, y: Tensor) -> Tensor:
        return y if self._weight is None else y * self._weight

    def _largest(self, x: Tensor, adjoint: _Adjoint) -> float:
        """Return the largest eigenvalue, about: 10 power iterations."""
        size = norm(x)
        for _ in range(10):
            x = adjoint(self._weighted(self._applied(x / max(size, 1e-30))))
            size = norm(x)
        return size


class _Adjoint:
    """Lᵀ, through the graph of A 0, which it keeps."""

    def __init__(self, operator: Operator, origin: Tensor) -> None:
        with torch.enable_grad():
            self._at = origin.clone().requires_grad_()
            self._made = operator(self._at * 1)  # no leaf, as a network's output is none

    @property
    def of_origin(self) -> Tensor:
        """A 0."""
        return self._made.detach()

    def __call__(self, y: Tensor) -> Tensor:
        return torch.autograd.grad(self._made, self._at, y, retain_graph=True)[0]


def _inner(one: Tensor, other: Tensor) -> float:
    """Return the real part of the inner product, added up in float64."""
    pairs = [torch.view_as_real(x) if x.is_complex() else x for x in (one, other)]
    flat, second = (x.flatten().cpu().double() for x in pairs)
    return float(flat @ second)
