"""The operators that need no arithmetic of their own, and the door for everybody else's."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dip.errors import shown
from dip.operators.matrix import Matrix, is_matrix

__all__ = ["Identity", "Mask", "Operator", "as_operator"]

Operator = Callable[[torch.Tensor], torch.Tensor]
"""A forward operator: a differentiable function of the image x, (1, C, H, W), that returns the prediction."""


class Identity(torch.nn.Module):
    """A x = x: the observation is the image itself plus noise (denoising).

    Examples
    --------
    >>> x = torch.rand(1, 3, 4, 5)
    >>> Identity()(x) is x
    True
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` itself."""
        return x


class Mask(torch.nn.Module):
    """A x = m x: only some pixels were seen (inpainting).

    Parameters
    ----------
    mask : Tensor, (H, W) or (..., H, W) that broadcasts to the image
        1 (or True) where a pixel is known, 0 where it is missing; values in between are weights.
        Kept as a buffer of the module, so that ``.to(device)`` moves it.

    Notes
    -----
    With the squared error, ``MSE()(m * x, m * y)`` averages over all pixels, whereas
    ``MSE()(x, y, weight=m)`` averages over the known ones; their gradients differ by a factor only.

    Examples
    --------
    >>> mask = torch.tensor([[1.0, 0.0]])
    >>> Mask(mask)(torch.full((1, 1, 1, 2), 0.5))
    tensor([[[[0.5000, 0.0000]]]])
    """

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        if not isinstance(mask, torch.Tensor):
            raise TypeError(f"mask must be a torch tensor, not {shown(mask)}; pass torch.from_numpy(mask)")
        if mask.ndim < 2 or mask.is_complex():
            raise ValueError(
                f"mask must be real and of shape (H, W) or (..., H, W), got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        self.register_buffer("mask", mask if mask.is_floating_point() else mask.to(torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply `x`, (..., H, W), by the mask.

        Raises
        ------
        ValueError
            If height and width differ from the mask's, or the mask has channels that the image lacks.
        """
        # Sizes are compared because a mask one pixel wide would broadcast without a word.
        if x.shape[-2:] != self.mask.shape[-2:]:
            raise ValueError(
                f"the mask is {_size(self.mask)} and the image {_size(x)} (height x width); make them equal"
            )
        masked = x * self.mask
        if masked.shape != x.shape:
            raise ValueError(
                f"a mask of shape {tuple(self.mask.shape)} does not fit an image of shape {tuple(x.shape)}; "
                f"give it one channel, or as many as the image has"
            )
        return masked

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return _size(self.mask)


def as_operator(forward: object) -> Operator:
    """Make a forward operator of what a user passed.

    Parameters
    ----------
    forward : callable, object with a method ``A``, or matrix
        A function of the image tensor (1, C, H, W), built of differentiable torch operations; or an object
        whose method ``A`` is one (deepinv's physics). An object that is both is used through ``A``. Or an array (m, n),
        a sparse matrix or LinearOperator of SciPy (see `Matrix`).

    Returns
    -------
    callable
        ``forward.A``, `forward` itself, or the `Matrix` of it.

    Raises
    ------
    TypeError
        If it is neither, or a class where an object of it was meant.

    Examples
    --------
    >>> operator = as_operator(lambda x: x.mean(dim=1, keepdim=True))
    >>> operator(torch.ones(1, 3, 2, 2)).shape
    torch.Size([1, 1, 2, 2])
    """
    if isinstance(forward, type):
        raise TypeError(
            f"forward is the class {forward.__name__} itself; pass {forward.__name__}(...), an object of it"
        )
    if is_matrix(forward):  # first: SciPy's can be called, and have an A of their own
        return Matrix(forward)
    method = getattr(forward, "A", None)
    if callable(method):
        return method
    if callable(forward):
        return forward
    raise TypeError(
        f"forward must be a callable (a function, a torch.nn.Module), an object with a method A, or a matrix (m, n) of "
        f"NumPy or SciPy, not {shown(forward)}; for a tensor M, write forward=lambda x: M @ x.flatten()"
    )


def precise(x: torch.Tensor) -> torch.dtype:
    """Return the dtype that an operator computes in for an image: float32, or float64 for float64.

    Raises
    ------
    TypeError
        It is not of real floating-point numbers.
    """
    if not x.is_floating_point():
        raise TypeError(f"a real floating-point tensor is needed, got {x.dtype}; use x.float()")
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def uncomplex(x: torch.Tensor) -> torch.Tensor:
    """Return an image as float32.

    Raises
    ------
    TypeError
        It is complex.
    """
    if x.is_complex():
        raise TypeError("a complex image is given as two channels, real and imaginary part: torch.view_as_real")
    return x.float()


def _size(tensor: torch.Tensor) -> str:
    return " x ".join(str(n) for n in tensor.shape[-2:])
