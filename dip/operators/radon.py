"""The Radon transform of computed tomography: sums along parallel rays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dip.errors import shown, warn, yes_or_no
from dip.operators.basic import uncomplex

__all__ = ["Radon"]

_MANY = 8  # views, from which on angles that are all small look like radians
_POINTS = 2**21  # that are interpolated at a time: some tens of megabytes


class Radon(torch.nn.Module):
    r"""Sum the image along parallel rays, from each angle: a sinogram, as `skimage.transform.radon` makes it.

    .. math:: y_{tv} = \sum_{s} x\big(R_v (s, t)\big),

    with :math:`R_v` the rotation about the pixel (N // 2, N // 2) by the angle of view v, and x between the pixels by
    bilinear interpolation.

    Parameters
    ----------
    angles : sequence of float, ndarray or Tensor
        The angles of the views in degrees, counterclockwise.
    circle : bool, default True
        Whether the image is 0 outside of the circle that fits into it, so that N pixels of a detector see it all. With
        False it is looked at with a margin, and a view has ⌈√2 N⌉ pixels.

    Raises
    ------
    TypeError, ValueError
        The angles are no numbers, or there is none.

    Notes
    -----
    In float32, also under autocast; the time is proportional to the number of views times that of pixels. The gradient
    is the exact transpose. On CUDA its sums are made in an order that is not always the same.

    Attenuation coefficients are per length: of a scan in 1 / cm multiply A by the size of a pixel in cm, as in
    ``forward=lambda x: 0.05 * radon(x)``, and give their range, ``data_range=0.5``.

    Examples
    --------
    >>> x = torch.zeros(1, 1, 3, 3)
    >>> x[..., 1, 1] = 1
    >>> Radon([0, 90])(x)
    tensor([[0., 0.],
            [1., 1.],
            [0., 0.]])
    """

    angles: Tensor

    def __init__(self, angles: Any, *, circle: bool = True) -> None:
        super().__init__()
        given = angles.detach().cpu().double() if isinstance(angles, Tensor) else angles
        values = np.asarray(given)
        if not (np.issubdtype(values.dtype, np.floating) or values.dtype.kind in "ui"):
            raise TypeError(f"angles={shown(angles)}: give real numbers, in degrees")
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError(f"angles={shown(angles)}: give one finite number for each view, in degrees")
        if len(values) >= _MANY and np.abs(values).max() <= 2 * math.pi:
            warn(f"all {len(values)} angles are within 2 pi degrees; if they are radians, give np.rad2deg(angles)")
        turned = np.remainder(values.astype(np.float64), 360)  # before float32 has no digits left
        self.register_buffer("angles", torch.from_numpy(turned).float())
        self.circle = yes_or_no(circle, "circle")

    def forward(self, x: Tensor) -> Tensor:
        """Return the sinogram of `x`, (1, C, N, N): (N, views), or (C, N, views) of several channels.

        Raises
        ------
        TypeError, ValueError
            If `x` is complex, or of another shape.
        """
        if x.ndim != 4 or len(x) != 1 or x.shape[2] != x.shape[3]:
            raise ValueError(
                f"a square image of shape (1, C, N, N) is needed, got {tuple(x.shape)}; pad it with 0 to a square"
            )
        x = uncomplex(x)
        if not self.circle:
            size = x.shape[2]
            wide = math.ceil(math.sqrt(2) * size)
            before = wide // 2 - size // 2  # the middle stays in the middle
            x = F.pad(x, (before, wide - size - before) * 2)
        views: Tensor = _Sums.apply(x, self.angles)
        return views[0] if len(views) == 1 else views

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{len(self.angles)} views, circle={self.circle}"


class _Sums(torch.autograd.Function):
    """(1, C, N, N) -> (C, N, views), a few views at a time, of which nothing is kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, angles: Tensor) -> Tensor:
        ctx.shape = x.shape
        ctx.save_for_backward(angles)
        views = x.new_empty(x.shape[1], x.shape[2], len(angles))
        for some in _in_parts(len(angles), x.shape):
            turned = _turned(x, angles[some])
            views[..., some] = turned.sum(dim=2).permute(1, 2, 0)
        return views

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (angles,) = ctx.saved_tensors
        total = gradient.new_zeros(ctx.shape)
        for some in _in_parts(len(angles), ctx.shape):
            with torch.enable_grad():
                x = torch.zeros_like(total, requires_grad=True)
                turned = _turned(x, angles[some])
            along = gradient[..., some].permute(2, 0, 1).unsqueeze(2)
            total += torch.autograd.grad(turned, x, along.expand_as(turned))[0]
        return total, None


def _in_parts(count: int, shape: torch.Size) -> list[slice]:
    """Return slices of the views that are made at a time."""
    step = max(1, _POINTS // shape[1:].numel())
    return [slice(first, first + step) for first in range(0, count, step)]


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Return an image (1, C, N, N) turned by each of the angles, (views, C, N, N)."""
    size, radians = x.shape[2], torch.deg2rad(angles)
    cos, sin = radians.cos(), radians.sin()
    middle = (1 - size % 2) / size  # where the middle pixel is, from -1 to 1
    rows = [torch.stack([cos, sin, middle * (1 - cos - sin)], 1), torch.stack([-sin, cos, middle * (1 + sin - cos)], 1)]
    with torch.autocast(x.device.type, enabled=False):
        grid = F.affine_grid(torch.stack(rows, 1), [len(angles), 1, size, size], align_corners=False)
        return F.grid_sample(x.expand(len(angles), -1, -1, -1), grid, align_corners=False)
