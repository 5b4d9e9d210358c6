"""The tasks: each names its operator A, what was observed, and what becomes of the answer.

A task is what `dip.fit` takes; `dip.restore` has a function for each that returns the restored image alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import images, presets, ranges, stretch
from dip.errors import positive_float, positive_int, warn
from dip.operators import Downsample, Identity
from dip.problem import Observation

DataRange = float | Sequence[float] | None


class ImageTask:
    """What the tasks have in common whose observation is a picture."""

    task = ""
    default_preset = "paper"
    support: int | None = 0
    factor = 1
    spread = 1.0  # how many times its range noise may well reach beyond it
    enlarge: Callable[[Tensor], Tensor] | None = None  # of what goes with the image, its alpha, where A makes it small

    def __init__(self, image: Any, *, data_range: DataRange = None, channel_axis: int | None = None) -> None:
        self.layout = images.describe(image, channel_axis=channel_axis, data_range=data_range)
        self._image, self._channel_axis = image, channel_axis
        self._operator: torch.nn.Module = Identity()
        self.stretches, self._stretch = False, stretch.AS_IT_IS

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the restored image."""
        return self.layout.channels, self.layout.height, self.layout.width

    @property
    def device(self) -> torch.device | None:
        """The image's device, where that is an accelerator."""
        device = self.layout.device
        return None if device is None or device.type == "cpu" else device

    def load(self) -> Observation:
        """Return the observation as float32 in [0, 1]; refuse NaN, infinity and implausible ranges."""
        return Observation(self._observed(), None)

    def _observed(self, known: np.ndarray | None = None) -> Tensor:
        """Return the image as y, having made a copy of it that is our own."""
        self._image = _copied(self._image)
        y = images.to_tensor(self._image, self.layout, known=known, spread=self.spread)
        ranges.warn_of(y, self.layout, self.spread, known)
        return y

    def _stretched(self, y: Tensor, find: Callable[[Tensor], stretch.Stretch]) -> Tensor:
        """Return what the fit sees of y: in the range that is found in it, if nothing is in the unit of white."""
        self._stretch = find(y) if self.stretches else stretch.AS_IT_IS
        return self._stretch.forward(y)

    def place(self, observation: Observation) -> None:
        """Move the operator to the observation's device."""
        self._operator.to(observation.y.device)

    def forward(self, x: Tensor) -> Tensor:
        """Return A x."""
        return self._operator(x)

    def compose(self, x: Tensor) -> Tensor:
        """Return x, brought back to the image's own range where the fit saw it in another (`dip.stretch`)."""
        return self._stretch.inverse(x)

    def output(self, x: Tensor) -> Any:
        """Return x in the image's kind, dtype and range, with its alpha."""
        return images.from_tensor(x, self.layout, alpha_from=self._image, enlarge=self.enlarge)

    def clean(self, reference: Any) -> Tensor:
        """Return a reference as x: of the restored image's shape, in its type's range or in the image's."""
        ours = (self.layout.low, self.layout.high)
        if ranges.is_narrowed(self.layout) and images.dtype_name(getattr(reference, "dtype", None)) != "uint16":
            warn(
                f"the white of the image is taken for {self.layout.high:g}, and the reference is of another type: its "
                "white has to be the same light; if it is not, give data_range= (65535 for all of 16 bits)"
            )
        if _same_type(reference, self.layout):
            x = self._as_x(reference, ours)
            highest = float(x.max())
            if _holds_floats(self.layout) and 0 < highest < 0.02:
                warn(
                    f"the reference is next to black: it ends at {highest:.2g} of the image's range, {ours}; floats "
                    "are compared as they are, so bring both to one scale"
                )
            return x
        try:
            return self._as_x(reference, None)
        except ValueError:  # floats beside integers: not in [0, 1], so in the image's range, or wrong
            return self._as_x(reference, ours)

    def _as_x(self, reference: Any, data_range: DataRange) -> Tensor:
        layout = images.describe(reference, channel_axis=self._channel_axis, data_range=data_range, name="reference")
        check_size(layout, self.shape)
        return images.to_tensor(reference, layout, name="reference", fitted=False)

    def fingerprint(self) -> dict[str, Any]:
        """Return the size of the restored image."""
        return {"shape": list(self.shape), "data_range": [self.layout.low, self.layout.high]}


def _holds_floats(layout: images.Layout) -> bool:
    return "float" in images.dtype_name(layout.dtype)


def _copied(image: Any) -> Any:
    """Return an image in memory of its own, without its history of gradients."""
    return image.detach().clone() if isinstance(image, Tensor) else np.array(image)


def _same_type(reference: Any, layout: images.Layout) -> bool:
    """Whether the numbers of a reference mean what the image's do: they are of one type, or floats."""
    given, ours = (images.dtype_name(dtype) for dtype in (getattr(reference, "dtype", None), layout.dtype))
    return given == ours or ("float" in given and "float" in ours)


def check_size(layout: images.Layout, shape: tuple[int, int, int]) -> None:
    """Refuse a reference of another size than the restored image."""
    given = (layout.channels, layout.height, layout.width)
    if given != shape:
        raise ValueError(
            f"reference has {given[0]} channels of {given[1]} x {given[2]} pixels (height x width), the restored image "
            f"will have {shape[0]} of {shape[1]} x {shape[2]}; give the clean image "
            "of the same size, with as many channels"
        )


class SuperResolve(ImageTask):
    """Super-resolution: A = a downsampler, y = the small image.

    Low-resolution pixel k is centred on ``factor * k + (factor - 1) / 2`` (at the default phase).

    Parameters
    ----------
    image : ndarray or Tensor
        The small image, as for `Denoise`.
    factor : int
        How many times larger the result is, in height and width.
    kernel : {"lanczos2", "lanczos3", "box", "gaussian"}, default "lanczos2"
        How the small image came from the large one. "lanczos2" is the paper's choice.
    kernel_sigma : float, optional
        For "gaussian": its standard deviation in pixels of the small image, 0.5 by default.
    phase : float, default 0.5
        Where in its block of pixels a low-resolution pixel is centred, from 0 (first) to 1 (last).
    data_range, channel_axis
        As for `Denoise`.

    Raises
    ------
    TypeError, ValueError
        The image is not of that kind, or the factor or the kernel's name.
    """

    task = "super_resolve"
    support = 4  # of the longest kernel, lanczos3, and where a Gaussian has become nothing

    def __init__(
        self,
        image: Any,
        factor: int,
        *,
        kernel: str = "lanczos2",
        kernel_sigma: float | None = None,
        phase: float = 0.5,
        data_range: DataRange = None,
        channel_axis: int | None = None,
    ) -> None:
        super().__init__(image, data_range=data_range, channel_axis=channel_axis)
        self.factor = positive_int(factor, "factor")
        if kernel_sigma is not None and kernel != "gaussian":
            raise ValueError(f"kernel_sigma={kernel_sigma} is for the kernel gaussian, not for {kernel}; leave it out")
        if kernel_sigma is not None:
            positive_float(kernel_sigma, "kernel_sigma")
        self._operator = self._downsample = Downsample(self.factor, kernel=kernel, phase=phase, sigma=kernel_sigma)
        self.enlarge = self._downsample.enlarge

    @property
    def default_preset(self) -> str:  # type: ignore[override]
        """See `dip.presets.for_factor`."""
        return presets.for_factor(self.factor)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the restored image."""
        return self.layout.channels, self.factor * self.layout.height, self.factor * self.layout.width

    def load(self) -> Observation:
        """Return the observation as float32 in [0, 1], or, of one that uses little of that, stretched."""
        find = partial(stretch.of_sharper, nearer=partial(self._downsample.consistent, times=1), times=_BRIGHTER)
        return Observation(self._stretched(self._observed(), find), None)

    def consistent(self, x: Tensor | None, y: Tensor, times: int = 10) -> Tensor:
        """Return x, corrected so often that A x comes to y, or nearer to it (`Downsample.consistent`)."""
        return self._downsample.consistent(x, y, times)

    def fingerprint(self) -> dict[str, Any]:
        """Return the size and the downsampler."""
        return {**super().fingerprint(), "operator": str(self._operator)}


_BRIGHTER = 6  # times: of points of light a small picture tells less than a blurred one
