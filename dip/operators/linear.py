"""Linear operators of which only A x is known: the adjoint by autograd, and least squares by conjugate gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from dip.losses import norm
from dip.operators.basic import Operator

__all__ = ["Linear", "fault"]

_APART = 1e-2  # of the norms, as far as two inner products may be apart: a projector's transpose is rarely exact
_OTHER = 5e-2  # of |L u|^2, which is not near 0: those of projectors reach 1e-2, wrong ones are several times this
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
        A is not linear: L (u + v) is not L u + L v for random images; or its gradient is not its transpose (`fault`).
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
        self._constant = adjoint.of_image
        with torch.no_grad():
            linear, wrong = _tried(operator, adjoint, self._origin, u, v)
            if not linear:
                raise ValueError("forward is not linear (what it makes of u + v is not the sum for two random images)")
            self._gain = self._largest(u, adjoint)
            if wrong or not self._gain > 0:
                why = f" ({wrong})" if wrong else ""
                raise ValueError(f"forward has a gradient that is not the transpose of what it does{why}")

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


def fault(operator: Operator, shape: tuple[int, ...], device: torch.device) -> str | None:
    """Return in what the gradient of a linear operator is not its transpose, in words.

    It is tried on images in [0, 1] only, around gray.

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
    str or None
        None where it is the transpose, or A is not linear.
    """
    generator = torch.Generator().manual_seed(0)
    u, v = ((torch.rand(shape, generator=generator).to(device) - 0.5) / 2 for _ in range(2))
    gray = torch.full(shape, 0.5, device=device)
    adjoint = _Adjoint(operator, gray)
    with torch.no_grad():
        linear, wrong = _tried(operator, adjoint, gray, u, v)
    return wrong if linear else None


def _tried(operator: Operator, adjoint: _Adjoint, at: Tensor, u: Tensor, v: Tensor) -> tuple[bool, str | None]:
    """Tell whether A is linear, and what is wrong with its gradient: by what it makes of steps u, v and u + v."""
    both, one, other = (operator(at + step) - adjoint.of_image for step in (u + v, u, v))
    if not norm(both - one - other) <= _NEAR * norm(both):
        return False, None
    # <L u, L v> = <u, L^T L v>, which is near 0 for two random images and tells neither sign nor scale; u = v does.
    power, found = _inner(one, one), _inner(u, adjoint(one))
    if not abs(found - power) <= _OTHER * power:
        times = found / power if power else float("inf")
        hint = "another sign or scale, an inverse, or a kernel or matrix that is not transposed"
        if abs(times + 1) <= _OTHER:
            hint = "its sign is wrong"
        return True, f"<u, A^T A u> is {times:.2g} times <A u, A u> for a random image u: {hint}"
    there, here = _inner(one, other), _inner(u, adjoint(other))
    if not abs(there - here) <= _APART * norm(one) * norm(other):
        return True, "<A u, A v> is not <u, A^T A v> for random images u and v: something in it is not transposed"
    return True, None


class _Adjoint:
    """Lᵀ, through the graph of A for one image, which it keeps."""

    def __init__(self, operator: Operator, at: Tensor) -> None:
        with torch.enable_grad():
            self._at = at.clone().requires_grad_()
            self._made = operator(self._at * 1)  # no leaf, as a network's output is none

    @property
    def of_image(self) -> Tensor:
        """What A makes of that image."""
        return self._made.detach()

    def __call__(self, y: Tensor) -> Tensor:
        return torch.autograd.grad(self._made, self._at, y, retain_graph=True)[0]


def _inner(one: Tensor, other: Tensor) -> float:
    """Return the real part of the inner product, added up in float64."""
    pairs = [torch.view_as_real(x) if x.is_complex() else x for x in (one, other)]
    flat, second = (x.flatten().cpu().double() for x in pairs)
    return float(flat @ second)
