"""The sub-sampled Fourier transform of magnetic resonance imaging, with one receiver coil or several."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip.errors import shown, yes_or_no
from dip.operators.basic import uncomplex

__all__ = ["Fourier", "doubts"]

_NEAR = 1  # pixels, as far as the largest value of a k-space may be from its lowest frequency


class Fourier(torch.nn.Module):
    r"""Take the image's Fourier transform where it was measured: :math:`y_k = m \odot F (s_k \odot x)` for each coil k.

    F is orthonormal, so that the noise of y is as strong as that of an image that was measured as a whole.

    Parameters
    ----------
    mask : ndarray or Tensor, (H, W) or (W,), optional
        True or non-zero where k-space was measured, 0 elsewhere, where y is then 0 too; (W,) for whole columns. By
        default all of it was.
    sensitivities : ndarray or Tensor, (K, H, W), optional
        The complex sensitivity maps s of K coils, which y then has one k-space of each; by default there is one coil
        that sees all alike.
    centred : bool, default True
        Whether the middle of the image, pixel (H // 2, W // 2), is the origin, and the lowest frequency is in the
        middle of y, as scanners and the fastMRI data have it; with False the origin is pixel (0, 0) in both, as
        `numpy.fft.fft2` has it.

    Raises
    ------
    TypeError, ValueError
        The mask or the sensitivities are no such arrays, or do not suit one another.

    Notes
    -----
    An image of one channel is real. One of two is complex: the first is its real part, the second the imaginary one;
    their range goes beyond 0 then, as in ``dip.reconstruct(y, forward=Fourier(mask), shape=(2, H, W), data_range=(-1,
    1))``.

    References
    ----------
    Several coils: Pruessmann, Weiger, Scheidegger, Boesiger, "SENSE: sensitivity encoding for fast MRI", Magnetic
    Resonance in Medicine 1999.

    Examples
    --------
    >>> Fourier()(torch.ones(1, 1, 4, 4)).abs()[2]  # (4, 4), with the mean in the middle
    tensor([0., 0., 4., 0.])
    """

    mask: Tensor | None
    sensitivities: Tensor | None

    def __init__(self, mask: Any = None, sensitivities: Any = None, *, centred: bool = True) -> None:
        super().__init__()
        self.centred = yes_or_no(centred, "centred")
        mask = None if mask is None else _tensor(mask, "mask")
        maps = None if sensitivities is None else _tensor(sensitivities, "sensitivities")
        if mask is not None:
            if mask.is_complex() or mask.ndim not in (1, 2):
                raise ValueError(
                    f"mask has dtype {mask.dtype} and shape {tuple(mask.shape)}; a real one of shape (H, W), or (W,) "
                    "for whole columns, is needed"
                )
            mask = (mask != 0).float()
            if not mask.any():
                raise ValueError("the mask is 0 everywhere: nothing was measured")
        if maps is not None:
            if maps.ndim != 3:
                raise ValueError(f"sensitivities have shape {tuple(maps.shape)}; (coils, H, W) is needed")
            maps = maps.to(torch.complex64)
            if mask is not None and mask.shape != maps.shape[-mask.ndim :]:
                raise ValueError(
                    f"mask has shape {tuple(mask.shape)}, the sensitivities {tuple(maps.shape)}; height and width have "
                    "to agree"
                )
        self.register_buffer("mask", mask)
        self.register_buffer("sensitivities", maps)

    def forward(self, x: Tensor) -> Tensor:
        """Return the k-space of `x`, (1, C, H, W) with 1 channel or 2: complex (H, W), or (K, H, W) of K coils.

        Raises
        ------
        ValueError
            If `x` is of another shape, or its height and width are not those of the mask and the sensitivities.
        """
        if x.ndim != 4 or len(x) != 1 or x.shape[1] not in (1, 2):
            raise ValueError(
                f"an image of shape (1, C, H, W) is needed, with one channel if it is real and two (real part, "
                f"imaginary part) if it is complex, got {tuple(x.shape)}"
            )
        x = uncomplex(x)
        for name, given in (("mask", self.mask), ("sensitivities", self.sensitivities)):
            if given is not None and given.shape[-2:] != x.shape[-min(given.ndim, 2) :]:
                raise ValueError(
                    f"an image of {x.shape[2]} x {x.shape[3]} does not suit the {name}, whose shape is "
                    f"{tuple(given.shape)}"
                )
        image = torch.complex(x[0, 0], x[0, 1] if x.shape[1] == 2 else torch.zeros_like(x[0, 0]))
        if self.sensitivities is not None:
            image = image * self.sensitivities
        if self.centred:
            image = torch.fft.ifftshift(image, dim=(-2, -1))
        space = torch.fft.fft2(image, norm="ortho")
        if self.centred:
            space = torch.fft.fftshift(space, dim=(-2, -1))
        return space if self.mask is None else space * self.mask

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        share = "all" if self.mask is None else f"{float((self.mask > 0).float().mean()):.1%}"
        coils = 1 if self.sensitivities is None else len(self.sensitivities)
        return f"{share} measured, coils={coils}, centred={self.centred}"


def doubts(operator: Fourier, y: Tensor, channels: int, low: float) -> list[str]:
    """Return what makes it doubtful that a k-space is what an operator makes of an image, in words.

    Parameters
    ----------
    operator : Fourier
        The operator.
    y : Tensor, (H, W) or (K, H, W)
        The k-space.
    channels : int
        1 for a real image, 2 for a complex one.
    low : float
        The lowest value that the image may have.

    Returns
    -------
    list of str
        Empty where there is nothing to say.
    """
    found = []
    if channels == 2 and low >= 0:
        found.append(
            f"the two channels of the image are real and imaginary part, and data_range begins at {low:g}, so that "
            "neither can be negative; give data_range=(-1, 1), or what they span"
        )
    power = y.abs().square().reshape(-1, *y.shape[-2:]).sum(dim=0)
    if not power.any():
        return [*found, "y is 0 everywhere, so the image will be, too: was nothing measured?"]
    height, width = power.shape
    row, column = divmod(int(power.argmax()), width)
    corner = max(min(row, height - row), min(column, width - column))
    middle = max(abs(row - height // 2), abs(column - width // 2))
    for centred, right, wrong, place in ((True, middle, corner, "corner"), (False, corner, middle, "middle")):
        if operator.centred == centred and wrong <= _NEAR < right:
            found.append(
                f"y is largest at ({row}, {column}), so its lowest frequency seems to be in the {place}, and Fourier "
                f"has centred={centred}; give Fourier(..., centred={not centred}) and the mask in the same order, or "
                f"np.fft.{'' if centred else 'i'}fftshift of y"
            )
    return found


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, np.ndarray) and (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        values = torch.from_numpy(np.array(values, values.dtype.newbyteorder("="), order="C"))
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}={shown(values)}: give an array or a tensor")
    if not torch.isfinite(values).all():
        raise ValueError(f"{name}: there is NaN or infinity in it")
    return values.detach().clone()
