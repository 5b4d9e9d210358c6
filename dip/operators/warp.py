"""Geometric distortion: each pixel of the observation is somewhere else in the image, as behind a lens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dip.errors import finite_float, positive_int, shown, unknown
from dip.operators.basic import precise

__all__ = ["Warp", "radial_distortion"]

BOUNDARIES = {"nearest": "border", "mirror": "reflection", "zero": "zeros"}  # scipy's words, but for the last
INTERPOLATIONS = ("bilinear", "bicubic")
_STEPS = 5  # of Newton's method, which takes two or three from so near


class Warp(torch.nn.Module):
    r"""Look up each pixel of the observation in the image, as `skimage.transform.warp` does by an array of coordinates.

    .. math:: y_{ij} = x(r_{ij}, c_{ij}),

    with x between its pixels by interpolation: a lens's distortion (`radial_distortion`), a rotation, the motion
    between two frames. With `Downsample` behind it, it is one of several small pictures of a scene:
    ``forward=lambda x: [small(warp(x)) for warp in warps]``.

    Parameters
    ----------
    coordinates : ndarray or Tensor, (2, h, w)
        Row r and column c in the image, in pixels from the centre of its first one, of each of the h x w pixels of y.
    interpolation : {"bilinear", "bicubic"}, default "bilinear"
        "bicubic" (cubic convolution, a = -3/4) keeps more of what is fine.
    boundary : {"nearest", "mirror", "zero"}, default "nearest"
        What lies beyond the border of the image, in scipy's words: the outermost pixels, its mirror image about their
        centres, or nothing. For pixels of y that tell nothing of the image give ``weight=warp.inside(height, width)``.

    Raises
    ------
    TypeError, ValueError
        The coordinates are no such array, or not finite; a name is unknown.

    Notes
    -----
    In float32 (float64 for float64 input), also under autocast. The gradient is the exact transpose. On CUDA its sums
    are made in an order that is not always the same.

    Examples
    --------
    >>> x = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    >>> Warp(np.array([[[0.5]], [[1.0]]]))(x)
    tensor([[[[2.]]]])
    """

    def __init__(self, coordinates: Any, *, interpolation: str = "bilinear", boundary: str = "nearest") -> None:
        super().__init__()
        given = coordinates.detach().cpu().double() if isinstance(coordinates, Tensor) else coordinates
        values = np.asarray(given)
        if values.dtype.kind not in "fui":
            raise TypeError(f"coordinates={shown(coordinates)}: give real numbers, in pixels of the image")
        if values.ndim != 3 or len(values) != 2 or not values.size:
            raise ValueError(
                f"coordinates has shape {values.shape}; (2, h, w) is needed, row and column in the image for each of "
                "the observation's pixels"
            )
        if not np.isfinite(values).all():
            raise ValueError(
                "coordinates has NaN or infinite values; give any place there, and a weight= that is 0 there to the fit"
            )
        if interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", interpolation, INTERPOLATIONS)
        if boundary not in BOUNDARIES:
            raise unknown("boundary", boundary, BOUNDARIES)
        self.coordinates = torch.from_numpy(values.astype(np.float64))  # no buffer: Apple's MPS has no float64
        self.interpolation, self.boundary = interpolation, boundary
        self._grids: dict[tuple[Any, ...], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Warp `x`, (N, C, H, W), to (N, C, h, w).

        Raises
        ------
        TypeError, ValueError
            `x` is not real, or of another number of axes.
        """
        if x.ndim != 4:
            raise ValueError(f"an image of shape (N, C, H, W) is needed, got {tuple(x.shape)}")
        x = x.to(precise(x))
        grid = self._grid(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.grid_sample(
                x,
                grid.expand(len(x), -1, -1, -1),
                mode=self.interpolation,
                padding_mode=BOUNDARIES[self.boundary],
                align_corners=True,
            )

    def inside(self, height: int, width: int) -> np.ndarray:
        """Return where y shows something of an image of `height` x `width`: float32 (h, w), 1 there and 0 elsewhere."""
        last = np.array([positive_int(height, "height"), positive_int(width, "width")]).reshape(2, 1, 1) - 0.5
        places = self.coordinates.numpy()
        found: np.ndarray = np.all((places >= -0.5) & (places <= last), axis=0)
        return found.astype(np.float32)

    def _grid(self, x: Tensor) -> Tensor:
        """Return the coordinates as `grid_sample` has them: (1, h, w, 2), x before y, from -1 to 1."""
        key = (*x.shape[2:], x.dtype, x.device)
        if key not in self._grids:
            lengths = [max(size - 1, 1) / 2 for size in x.shape[2:]]
            scaled = self.coordinates / torch.tensor(lengths, dtype=torch.float64).view(2, 1, 1) - 1
            self._grids[key] = scaled.flip(0).permute(1, 2, 0)[None].to(x.device, x.dtype).contiguous()
        return self._grids[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_grids": {}}  # which are made anew, on whichever device there is

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        size = " x ".join(map(str, self.coordinates.shape[1:]))
        return f"{size}, interpolation={self.interpolation!r}, boundary={self.boundary!r}"


def radial_distortion(
    size: Sequence[int],
    coefficients: float | Sequence[float],
    *,
    center: Sequence[float] | None = None,
    focal: float | Sequence[float] | None = None,
) -> np.ndarray:
    r"""Return where each pixel of a picture that a lens has distorted is in the one without distortion, for `Warp`.

    What is at the distance r from the centre without distortion is, in the same direction, at

    .. math:: r_d = r \, (1 + k_1 r^2 + k_2 r^4 + k_3 r^6 + \dots)

    in the picture, the radial part of Brown's model as OpenCV has it, distances in units of the focal length.

    Parameters
    ----------
    size : (int, int)
        Height and width of the distorted picture.
    coefficients : float or sequence of float
        k1, k2, …: below 0 for a barrel, above for a pincushion. (OpenCV's ``distCoeffs`` has them at 0, 1 and 4.)
    center : (float, float), optional
        Row and column of the centre, in pixels from the centre of the first one; the picture's middle by default.
        (OpenCV: cy, cx.)
    focal : float or (float, float), optional
        The focal length in pixels, one for rows and one for columns if they differ (OpenCV: fy, fx); by default half of
        the picture's diagonal.

    Returns
    -------
    ndarray
        (2, height, width), float64: rows and columns.

    Raises
    ------
    TypeError, ValueError
        A number is not one, or not finite; the focal length is not above 0; or r_d does not grow with r as far as the
        picture reaches, so that a place would be seen twice or not at all.

    References
    ----------
    Brown, "Close-range camera calibration", Photogrammetric Engineering 1971.

    Examples
    --------
    >>> rows, columns = radial_distortion((3, 5), [0.1])
    >>> rows[1, 2], columns[1, 2]
    (np.float64(1.0), np.float64(2.0))
    >>> bool(columns[1, 4] < 4)  # a pincushion: what is seen there was nearer to the centre
    True
    """
    height, width = _two(size, "size", positive_int)
    given: Any = coefficients if hasattr(coefficients, "__len__") else [coefficients]
    k = np.array([finite_float(value, "coefficients") for value in given])
    middle = ((height - 1) / 2, (width - 1) / 2) if center is None else _two(center, "center", finite_float)
    if focal is None:
        focal = max(np.hypot(height - 1, width - 1) / 2, 1.0)
    lengths = _two((focal, focal) if isinstance(focal, int | float) else focal, "focal", finite_float)
    if min(lengths) <= 0:
        raise ValueError(f"focal={shown(focal)}: a focal length is above 0, in pixels")
    places = np.indices((height, width), dtype=np.float64)
    offsets = np.stack([(places[axis] - middle[axis]) / lengths[axis] for axis in (0, 1)])
    distorted = np.hypot(*offsets)
    ratio = np.divide(_undistorted(distorted, k), distorted, out=np.ones_like(distorted), where=distorted > 0)
    return np.stack([offsets[axis] * ratio * lengths[axis] + middle[axis] for axis in (0, 1)])


def _undistorted(distorted: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return r of r_d by Newton's method, from r on a fine scale."""
    powers = 2 * np.arange(1, len(k) + 1)

    def series(r: np.ndarray, factors: np.ndarray) -> np.ndarray:
        return np.ones_like(r) + sum((a * r**p for a, p in zip(factors, powers, strict=True)), np.zeros_like(r))

    def seen(r: np.ndarray) -> np.ndarray:
        return r * series(r, k)

    def slope(r: np.ndarray) -> np.ndarray:
        return series(r, k * (powers + 1))

    furthest = float(distorted.max())
    scale = np.linspace(0, max(2 * furthest, 1e-12), 4097)
    while True:
        grows = slope(scale) > 0
        last = len(scale) if grows.all() else int(np.argmin(grows))  # where r_d grows no more
        if last < len(scale) or seen(scale[-1:]) >= furthest:
            break
        scale = 2 * scale  # a strong barrel
    reached = seen(scale[:last])
    if reached[-1] < furthest:
        raise ValueError(
            f"coefficients={k.tolist()}: r_d grows with r up to {reached[-1]:.4g} only, and the picture reaches to "
            f"{furthest:.4g} focal lengths from its centre; give the focal length in pixels that the coefficients are "
            "for (focal=), or a smaller picture"
        )
    r = np.interp(distorted, reached, scale[:last])
    for _ in range(_STEPS):
        r = r - (seen(r) - distorted) / np.maximum(slope(r), 1e-6)
    return r


def _two(values: Any, name: str, check: Any) -> tuple[Any, Any]:
    if not hasattr(values, "__len__") or isinstance(values, str) or len(values) != 2:
        raise ValueError(f"{name}={shown(values)}: two numbers are needed, for rows and columns")
    first, second = (check(value, name) for value in values)
    return first, second
