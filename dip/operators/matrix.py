"""A matrix, dense or sparse, or a LinearOperator of SciPy, as a forward operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip.errors import positive_int, shown

__all__ = ["Matrix", "is_matrix"]


class Matrix(torch.nn.Module):
    r"""Multiply the image, as a vector, by a matrix: :math:`y = M x`, with the gradient :math:`M^H y`.

    Parameters
    ----------
    matrix : ndarray, sparse matrix or array of SciPy, or LinearOperator, of shape (m, n)
        M, real or complex: a matrix, or any object with ``shape``, ``matvec`` (M x) and ``rmatvec`` (:math:`M^H y`).
        n is C H W, and x is read channel by channel, row by row. It is used, not copied.
    shape : sequence of int, optional
        The shape of y, of m elements; (m,) by default. `dip.reconstruct` takes it from y.

    Raises
    ------
    TypeError, ValueError
        `matrix` is none of these, or `shape` has not m elements.

    Notes
    -----
    It is computed on the CPU, by NumPy or SciPy, in the precision that these take for the matrix and float32.

    Examples
    --------
    >>> sums = Matrix(np.array([[1, 1, 0, 0], [0, 0, 1, 1]]))
    >>> sums(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([3., 7.])
    """

    def __init__(self, matrix: Any, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        if not is_matrix(matrix):
            raise TypeError(
                f"matrix={shown(matrix)}: give an array or a sparse matrix of shape (m, n), or an object with matvec "
                "and rmatvec"
            )
        self.matrix = matrix
        rows, self.columns = (int(n) for n in matrix.shape)
        self.shape = (rows,) if shape is None else tuple(positive_int(n, "shape") for n in shape)
        if math.prod(self.shape) != rows:
            raise ValueError(
                f"a matrix of shape {(rows, self.columns)} makes {rows} values, but y has shape {self.shape}, that is "
                f"{math.prod(self.shape)}; give a matrix with one row for each value of y"
            )
        if hasattr(matrix, "rmatvec"):
            self._linear = matrix
        else:
            from scipy.sparse.linalg import aslinearoperator

            self._linear = aslinearoperator(matrix)

    def forward(self, x: Tensor) -> Tensor:
        """Return M x, of y's shape, for `x` of n elements, (1, C, H, W).

        Raises
        ------
        ValueError
            If `x` has another number of elements.
        """
        if x.numel() != self.columns:
            raise ValueError(
                f"a matrix of shape {tuple(self.matrix.shape)} takes an image of {self.columns} values, C times H "
                f"times W, but this one has shape {tuple(x.shape)}, that is {x.numel()}; change shape= or the matrix"
            )
        made: Tensor = _Product.apply(x.reshape(-1), self._linear)
        return made.reshape(self.shape)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{type(self.matrix).__name__} of shape {tuple(self.matrix.shape)}"


def is_matrix(given: Any) -> bool:
    """Tell whether something is an array or a sparse matrix of two axes, or has what a LinearOperator has."""
    shape = getattr(given, "shape", None)
    if isinstance(given, (Tensor, torch.nn.Module)) or not isinstance(shape, tuple) or len(shape) != 2:
        return False  # PyTorch differentiates these itself
    if isinstance(given, np.ndarray):
        return np.issubdtype(given.dtype, np.number) or given.dtype == bool
    return hasattr(given, "tocsr") or (hasattr(given, "matvec") and hasattr(given, "rmatvec"))


class _Product(torch.autograd.Function):
    """(n,) -> (m,), by M, and back by its conjugate transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: Any) -> Tensor:
        ctx.linear, ctx.like = linear, x.new_empty(0)
        return _as_tensor(linear.matvec(_as_array(x)), x, real=False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        try:
            found = ctx.linear.rmatvec(_as_array(gradient))
        except NotImplementedError as error:
            raise TypeError(
                "this LinearOperator has no rmatvec, its conjugate transpose, which the gradient needs; define it, as "
                "scipy.sparse.linalg.LinearOperator(shape, matvec=..., rmatvec=...)"
            ) from error
        return _as_tensor(found, ctx.like, real=not ctx.like.is_complex()), None


def _as_array(values: Tensor) -> np.ndarray:
    values = values.detach().cpu()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return values.resolve_conj().resolve_neg().numpy()


def _as_tensor(values: Any, like: Tensor, *, real: bool) -> Tensor:
    """Return what a product made on the device of `like` and in its precision, but complex where it is."""
    array = np.array(values).reshape(-1)
    made = torch.from_numpy(array.real.copy() if real else array).to(like.device)
    double = like.dtype in (torch.float64, torch.complex128)
    if made.is_complex():
        return made.to(torch.complex128 if double else torch.complex64)
    return made.to(like.dtype if real else torch.float64 if double else torch.float32)
