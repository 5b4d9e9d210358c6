"""Blur: convolution with a point spread function, as in a picture out of focus or of a microscope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip.errors import positive_float, shown, unknown, warn
from dip.operators.basic import precise

__all__ = ["BOUNDARIES", "Blur", "gaussian_psf"]

BOUNDARIES = ("mirror", "nearest", "wrap", "zero")  # scipy's words, but for the last
_LARGEST = 2**13  # pixels that a Gaussian may reach
_WIDER = 3  # times as far as the PSF an image is continued for filters that undo it: they reach further


class Blur(torch.nn.Module):
    r"""Convolve each channel of the image with a point spread function (PSF).

    .. math:: y_{ij} = \sum_{ab} h_{ab} \, x_{i - a + c,\, j - b + d}, \qquad \sum_{ab} h_{ab} = 1,

    with the PSF's middle (c, d) at its pixel (height // 2, width // 2), as `scipy.ndimage.convolve` has it.

    Parameters
    ----------
    psf : ndarray or Tensor, (h, w) or (C, h, w)
        The image of a point, for all channels or one for each; no value below 0. It is divided by its sum, so that
        the brightness stays.
    boundary : {"mirror", "nearest", "wrap", "zero"}, default "mirror"
        What lies beyond the border of the image, in scipy's words: its mirror image about the outermost pixels'
        centres, the outermost pixels, the opposite side, or nothing (scipy's "constant").

    Raises
    ------
    TypeError, ValueError
        The PSF is no such array, or the boundary is unknown.

    Notes
    -----
    By the fast Fourier transform, in float32 (float64 for float64 input) also under autocast, so that the time hardly
    depends on the PSF's size. The filters are kept for every size, dtype and device met.

    Examples
    --------
    >>> x = torch.zeros(1, 1, 3, 3)
    >>> x[..., 1, 1] = 4
    >>> Blur(np.array([[1.0, 2.0, 1.0]]), boundary="zero")(x).round()[0, 0, 1]
    tensor([1., 2., 1.])
    """

    def __init__(self, psf: Any, *, boundary: str = "mirror") -> None:
        super().__init__()
        self.psf = _checked(psf)
        if boundary not in BOUNDARIES:
            raise unknown("boundary", boundary, BOUNDARIES)
        self.boundary = boundary
        self._filters: dict[tuple[Any, ...], Tensor] = {}

    @property
    def reach(self) -> int:
        """How many pixels about its own a pixel of y sees."""
        return max(size // 2 for size in self.psf.shape[-2:])

    def forward(self, x: Tensor) -> Tensor:
        """Blur `x`, (..., C, H, W) or, with one PSF for all, (..., H, W).

        Raises
        ------
        TypeError, ValueError
            `x` is not real, has other channels than the PSF, or is too small to be mirrored about its border.
        """
        if self.psf.ndim == 3 and (x.ndim < 3 or x.shape[-3] != len(self.psf)):
            raise ValueError(f"a PSF for {len(self.psf)} channels does not fit an image of shape {tuple(x.shape)}")
        return self._filtered(x, _as_it_is)

    def back_projected(self, y: Tensor, damping: float) -> Tensor:
        r"""Return the regularised deconvolution :math:`A^T (A A^T + λ)^{-1} y`, of y's shape.

        Parameters
        ----------
        y : Tensor
            As what `forward` returns.
        damping : float
            λ > 0, beside the squared gain of the blur, which is 1 for a constant image. (For a boundary other than
            "wrap" this holds but for some pixels near the border.)
        """
        return self._filtered(y, _inverse, damping, _WIDER)

    def whitened(self, residual: Tensor, damping: float) -> Tensor:
        r"""Return :math:`(A A^T + λ)^{-1/2} r`: what the blur has weakened comes to be as strong as the rest.

        Parameters as for `back_projected`.
        """
        return self._filtered(residual, _whitening, damping, _WIDER)

    def band_limited(self, y: Tensor, damping: float) -> Tensor:
        r"""Return y without what the blur leaves next to nothing of: its part times :math:`(1 + λ) g / (g + λ)`.

        g is the squared gain of the blur at a frequency; what is constant stays. For another boundary than "wrap" y is
        continued by its whole mirror image, which has no jump anywhere.

        Parameters
        ----------
        y : Tensor
            As what `forward` returns.
        damping : float
            λ > 0.
        """
        y, (height, width) = y.to(precise(y)), y.shape[-2:]
        if self.boundary != "wrap":
            for axis, size in ((-2, height), (-1, width)):  # one period: there and back, the ends once
                y = _continued(y, axis, size - 1, "mirror").narrow(axis, size - 1, max(2 * size - 2, 1))
        period = list(y.shape[-2:])
        made = torch.fft.irfft2(torch.fft.rfft2(y) * self._filter(_in_band, damping, period, y), s=period)
        return made[..., :height, :width]

    def _filtered(self, x: Tensor, kind: _Kind, damping: float = 0.0, wider: int = 1) -> Tensor:
        """Return x, continued beyond its border, after a filter that is made of the PSF's spectrum."""
        x = x.to(precise(x))
        rim = [0, 0]
        if self.boundary != "wrap":
            rim = [size // 2 for size in self.psf.shape[-2:]]
            if wider > 1:  # as far as there is something to mirror
                rim = [min(wider * n, size - 1) for n, size in zip(rim, x.shape[-2:], strict=True)]
            for axis, width in zip((-2, -1), rim, strict=True):
                x = _continued(x, axis, width, self.boundary)
        elif any(size < width for size, width in zip(x.shape[-2:], self.psf.shape[-2:], strict=True)):
            raise ValueError(
                f'an image of {x.shape[-2]} x {x.shape[-1]} is smaller than the PSF, and boundary="wrap" would lay it '
                'about the image more than once; crop the PSF, or take boundary="nearest" or "zero"'
            )
        size = list(x.shape[-2:])
        if self.boundary != "wrap":
            from scipy.fft import next_fast_len

            longest = zip(size, self.psf.shape[-2:], strict=True)
            size = [next_fast_len(max(n, width), real=True) for n, width in longest]
        made = torch.fft.irfft2(torch.fft.rfft2(x, s=size) * self._filter(kind, damping, size, x), s=size)
        for axis, width, length in zip((-2, -1), rim, x.shape[-2:], strict=True):
            made = made.narrow(axis, width, length - 2 * width)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_filters": {}}  # which are made anew, on whichever device there is

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{' x '.join(map(str, self.psf.shape))}, boundary={self.boundary!r}"

    def _filter(self, kind: _Kind, damping: float, size: list[int], like: Tensor) -> Tensor:
        """Return a filter for images of that size, made of the transform of the PSF with its middle at the origin."""
        key = kind, damping, *size, like.dtype, like.device
        if key not in self._filters:
            with torch.inference_mode(False):
                around = torch.zeros(*self.psf.shape[:-2], *size, dtype=torch.float64)
                height, width = self.psf.shape[-2:]
                around[..., :height, :width] = self.psf
                around = around.roll((-(height // 2), -(width // 2)), dims=(-2, -1))
                dtype = torch.complex128 if like.dtype == torch.float64 else torch.complex64
                self._filters[key] = kind(torch.fft.rfft2(around).to(dtype).to(like.device), damping)
        return self._filters[key]


_Kind = Callable[[Tensor, float], Tensor]  # a filter, of the spectrum and the damping


def _as_it_is(spectrum: Tensor, damping: float) -> Tensor:
    return spectrum


def _inverse(spectrum: Tensor, damping: float) -> Tensor:
    return spectrum.conj() / (spectrum.abs().square() + damping)


def _whitening(spectrum: Tensor, damping: float) -> Tensor:
    return (spectrum.abs().square() + damping).rsqrt()


def _in_band(spectrum: Tensor, damping: float) -> Tensor:
    power = spectrum.abs().square()
    return (1 + damping) * power / (power + damping)


def gaussian_psf(sigma: float) -> np.ndarray:
    r"""Return a Gaussian PSF, :math:`h(r) \propto \exp(-r^2 / 2 σ^2)`.

    Parameters
    ----------
    sigma : float
        Standard deviation in pixels.

    Returns
    -------
    ndarray
        float64 (2 r + 1, 2 r + 1) of sum 1, that of `scipy.ndimage.gaussian_filter`: r is 4 σ, rounded.
    """
    radius = int(4 * positive_float(sigma, "sigma") + 0.5)
    if radius > _LARGEST:
        raise ValueError(f"sigma={sigma:g}: a PSF of {2 * radius + 1} pixels is larger than any image; it is in pixels")
    line = np.exp(-np.square(np.arange(-radius, radius + 1) / sigma) / 2)
    line /= line.sum()
    return np.outer(line, line)


def _checked(psf: Any) -> Tensor:
    """Return a PSF as a float64 tensor of sum 1 in each channel."""
    if isinstance(psf, Tensor):
        psf = (psf.double() if psf.is_floating_point() else psf).detach().cpu().numpy()
    if not isinstance(psf, np.ndarray):
        number = isinstance(psf, (int, float, np.number)) and not isinstance(psf, bool)
        gaussian = f", such as dip.operators.gaussian_psf({psf:g})" if number else ""
        raise TypeError(f"psf={shown(psf)}: give an array or a tensor, (h, w), the image of a point{gaussian}")
    if not (np.issubdtype(psf.dtype, np.floating) or psf.dtype.kind in "ui"):
        raise TypeError(f"psf has dtype {psf.dtype}; real numbers are needed, the image of a point")
    if psf.ndim not in (2, 3) or 0 in psf.shape:
        raise ValueError(f"psf has shape {psf.shape}; (h, w) is needed, or (C, h, w) for an image of C channels")
    if psf.ndim == 3 and psf.shape[2] <= 4 < psf.shape[0]:
        raise ValueError(f"psf has shape {psf.shape}; its channels come first: give np.moveaxis(psf, -1, 0)")
    psf = np.asarray(psf, np.float64)
    if not np.isfinite(psf).all():
        raise ValueError(f"psf has {np.count_nonzero(~np.isfinite(psf))} values that are NaN or infinite")
    if psf.min() < 0:
        raise ValueError(f"psf has values below 0, down to {psf.min():.3g}; take off its background, and clip at 0")
    sums = psf.sum(axis=(-2, -1), keepdims=True)
    if sums.min() <= 0:
        where = "" if psf.ndim == 2 or sums.max() <= 0 else " in one of its channels"
        raise ValueError(f"psf is 0 everywhere{where}; the image of a point is needed")
    psf = psf / sums
    _warn_of_looks(psf.mean(axis=0) if psf.ndim == 3 else psf)
    return torch.from_numpy(psf)


def _warn_of_looks(psf: np.ndarray) -> None:
    """Warn of a PSF, of sum 1, that has a background, or is not in the middle."""
    rim = np.concatenate([psf[0], psf[-1], psf[:, 0], psf[:, -1]])
    share = rim.min() * psf.size
    even = rim.min() > 0.5 * rim.mean()  # as that of a PSF which is cut off early is not
    if share > 0.05 and even and rim.max() < 0.3 * psf.max():
        warn(
            f"{share:.0%} of the psf is a background that goes on to its border; take off its background, as in "
            "psf - psf.min()"
        )
        return
    middle = np.array(psf.shape) // 2
    off = np.array([(psf.sum(axis=1 - axis) * np.arange(n)).sum() for axis, n in enumerate(psf.shape)]) - middle
    if np.abs(off).max() > max(1.5, 0.1 * max(psf.shape)):
        warn(
            f"the psf's centre of mass is {off[0]:+.1f} rows and {off[1]:+.1f} columns from its middle, pixel "
            f"({middle[0]}, {middle[1]}); the restored picture will be moved by as much: crop the PSF about its centre"
        )


def _continued(x: Tensor, axis: int, width: int, boundary: str) -> Tensor:
    """Return x with so many pixels more at both ends of an axis.

    Of slices, whose gradients are sums in a fixed order on every device.
    """
    size = x.shape[axis]
    if not width:
        return x
    if boundary == "zero":
        shape = list(x.shape)
        shape[axis] = width
        rim = x.new_zeros(shape)
        return torch.cat([rim, x, rim], dim=axis)
    if boundary == "nearest":
        repeats = [1] * x.ndim
        repeats[axis] = width
        first, last = x.narrow(axis, 0, 1).repeat(repeats), x.narrow(axis, size - 1, 1).repeat(repeats)
        return torch.cat([first, x, last], dim=axis)
    if width > size - 1:
        raise ValueError(
            f"an image of {size} pixels cannot be mirrored to {width} more; crop the PSF, or take "
            'boundary="nearest" or "zero"'
        )
    before, after = x.narrow(axis, 1, width).flip(axis), x.narrow(axis, size - 1 - width, width).flip(axis)
    return torch.cat([before, x, after], dim=axis)
