"""The task of any forward operator: y = A x + noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import images
from dip.errors import positive_int, shown, warn
from dip.losses import check_weight, norm
from dip.operators import Fourier, Matrix, as_operator
from dip.operators.fourier import doubts
from dip.operators.linear import Linear, fault
from dip.operators.stacked import Stacked, end_to_end, parts
from dip.operators.trial import response, try_out
from dip.problem import Observation
from dip.stopping import Discrepancy
from dip.tasks import DataRange, check_size


class Reconstruct:
    """Reconstruction through any forward operator: y = A x + noise.

    Parameters
    ----------
    y : Tensor or ndarray, or a sequence of one of them
        What was measured, in any unit, of any shape, real or complex: a sinogram, k-space, a blurred picture. It is
        passed to the loss unchanged (but for its precision: float32 or complex64). Several measurements of one image,
        whose A returns as many tensors, are laid end to end, so that each element counts alike.
    forward : callable or object
        A: takes x, a float32 tensor (1, C, H, W) on the fit's device, and returns a prediction of y's shape, by
        operations that PyTorch can differentiate. An object with a method ``A`` will do (such as deepinv's physics);
        so will a matrix (m, n) of NumPy or SciPy, or a LinearOperator, where n = C H W, and y has m elements in any
        shape (`dip.operators.Matrix`).
    shape : tuple of int
        (C, H, W) or (H, W) of the image.
    weight : Tensor or ndarray (for a sequence y, a sequence of them), optional
        Weights of y's elements in the loss, broadcastable to its shape: 0 for what was not measured (y may hold NaN
        there), inverse variances for unequal noise.
    data_range : float or (float, float), default 1
        Range of the image x that A expects: white, or (black, white).

    Raises
    ------
    TypeError, ValueError
        `y`, `forward`, `weight` or `shape` is not of that kind; or, before the first iteration, A x has not y's
        shape, is not finite or cannot be differentiated, or its gradient is 0 everywhere.
    """

    task = "reconstruct"
    default_preset = "paper"
    support: int | None = None  # an operator of the user's may look anywhere
    factor = 1

    def __init__(
        self,
        y: Any,
        forward: Any,
        shape: Sequence[int],
        *,
        weight: Any = None,
        data_range: DataRange = 1.0,
    ) -> None:
        operator, several = as_operator(forward), parts(y)
        if several is not None:
            shapes = [tuple(getattr(one, "shape", ())) for one in several]
            y = end_to_end(several, shapes, "y")
            operator = operator if isinstance(operator, Matrix) else Stacked(operator, shapes)
            weights = parts(weight)
            weight = weight if weights is None else end_to_end(weights, shapes, "weight")
        if not isinstance(y, (np.ndarray, Tensor)):
            raise TypeError(f"y={shown(y)}: give an array or a tensor, or a list of them")
        if not (np.issubdtype(y.dtype, np.number) if isinstance(y, np.ndarray) else y.dtype != torch.bool):
            raise TypeError(f"y has dtype {y.dtype}; numbers are needed, real or complex")
        if not hasattr(shape, "__iter__"):
            raise TypeError(f"shape={shown(shape)}: give (C, H, W) or (H, W) of the image")
        sizes = tuple(positive_int(n, "shape") for n in shape)
        if len(sizes) not in (2, 3):
            raise ValueError(f"shape={tuple(shape)}: give (C, H, W) or (H, W) of the image")
        if 0 in y.shape:
            raise ValueError(f"y is empty: its shape is {tuple(y.shape)}")
        if weight is not None and not isinstance(weight, (np.ndarray, Tensor)):
            raise TypeError(f"weight={shown(weight)}: give an array or a tensor")
        if isinstance(operator, Matrix) and len(operator.shape) == 1:
            operator = Matrix(operator.matrix, tuple(y.shape))
        self._y, self._weight = y, weight
        self._forward = forward
        self._response: list[float] = []
        self._linear: Linear | None = None
        self._operator = operator
        # Looked at for its layout only: it has the shape and takes no memory.
        one = np.ones((), np.float32)
        template = np.broadcast_to(one, sizes) if isinstance(y, np.ndarray) else torch.ones(()).expand(sizes)
        self.layout = images.describe(
            template,
            channel_axis=None if len(sizes) == 2 else 0,
            data_range=1.0 if data_range is None else data_range,
            name="shape",
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the image."""
        return self.layout.channels, self.layout.height, self.layout.width

    @property
    def device(self) -> torch.device | None:
        """The device of y, where that is a tensor: the operator is taken to live there too."""
        return self._y.device if isinstance(self._y, Tensor) else None

    def load(self) -> Observation:
        """Return y as float32 or complex64, and its weights; refuse NaN and infinity where the weight is not 0."""
        y = _on_cpu(self._y)
        weight = None
        if self._weight is not None:
            weight = _on_cpu(self._weight)
            check_weight(weight, tuple(y.shape))
            y = torch.where(weight > 0, y, torch.zeros_like(y))
        if not torch.isfinite(y).all():
            raise ValueError(
                "y has NaN or infinite values; give weight=, an array that is 0 where they are and 1 elsewhere, so "
                "that they do not count"
            )
        return Observation(y, weight)

    def place(self, observation: Observation) -> None:
        """Try the operator, on a gray image and on noise."""
        if isinstance(self._forward, torch.nn.Module):
            self._forward.to(observation.y.device)
        shape = (1, *self.shape)
        self._observation, self._linear = observation, None
        try_out(self.forward, shape, observation.y)
        self._response = response(self.forward, shape, observation.y.device)
        if self._response:
            self._warn_of_scale(norm(observation.y), self._response[0], observation.y.device)
            self._warn_of_gradient(shape, observation.y.device)
        if isinstance(self._forward, Fourier):
            for text in doubts(self._forward, observation.y, self.layout.channels, self.layout.low):
                warn(text)

    def check_options(self, loss: Any, stop: Any, *, corrected: bool) -> None:
        """Warn of a rule that would take what was not measured for residuals of 0."""
        if not isinstance(stop, Discrepancy) or self._weight is not None:
            return
        y = self._y
        zeros = 1 - int(y.count_nonzero() if isinstance(y, Tensor) else np.count_nonzero(y)) / math.prod(y.shape)
        if zeros > _UNMEASURED:
            warn(
                f"{zeros:.0%} of y is exactly 0, and stop=Discrepancy takes the mean over all of it; if that was not "
                "measured, the fit ends too early: give weight=, 1 where y was measured and 0 elsewhere (the mask of "
                "dip.operators.Fourier), so that it does not count"
            )

    def _warn_of_gradient(self, shape: tuple[int, ...], device: torch.device) -> None:
        """Warn where A is linear, and its gradient is not its transpose."""
        wrong = fault(self.forward, shape, device)
        if wrong is not None:
            warn(
                f"forward has a gradient that is not the transpose of what it does ({wrong}), so that the fit may "
                "go another way than its loss falls; let backward be the transpose: <A x, y> = <x, A^T y> for all x, y"
            )

    def _warn_of_scale(self, ours: float, made: float, device: torch.device) -> None:
        """Warn where y is of another size than what A makes of values that fill the range of x.

        Values on either side of 0 may cancel: where y is larger it is compared with what A makes of an even x, too.
        """
        if ours > 10 * made:
            with torch.no_grad():
                even = [self.forward(torch.full((1, *self.shape), end, device=device)) for end in (0.0, 1.0)]
            made = max(made, *map(norm, even))
        times = ours / made if made else 1.0
        if not 1e-3 < times < 10 and times:
            low, high = self.layout.low, self.layout.high
            warn(
                f"y is {times:.2g} times as large as what forward makes of values in [{low:g}, {high:g}], in "
                "which the image will lie; give data_range=, the image's range, or bring y and forward to one scale"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return A x, with x in the operator's range."""
        low, high = self.layout.low, self.layout.high
        return self._operator(x if (low, high) == (0.0, 1.0) else low + (high - low) * x)

    def consistent(self, x: Tensor | None, y: Tensor, times: int = 10) -> Tensor:
        """Return x, corrected by so many steps of least squares (`Linear.least_squares`); None is an image of 0.

        Raises
        ------
        ValueError
            A is not linear.
        """
        ours = self._observation
        if self._linear is None:
            try:
                self._linear = Linear(self.forward, (1, *self.shape), ours.y.device, ours.weight)
            except ValueError as error:
                raise ValueError(
                    f"{error}: neither code=dip.codes.Autoencoding, which the preset fast has, nor consistent=True "
                    "suits it; give code=dip.codes.Uniform(32), or leave consistent out"
                ) from None
        there = ours.y.new_zeros(1, *self.shape, dtype=torch.float32) if x is None else x.to(ours.y.device)
        with torch.no_grad():
            rest = y.to(ours.y.device) - self.forward(there)
            made = there + self._linear.least_squares(rest, damping=_DAMPING, steps=times)
        return made.to(y.device)

    def compose(self, x: Tensor) -> Tensor:
        """Return x itself."""
        return x

    def output(self, x: Tensor) -> Any:
        """Return the image as float32 of `shape`: an array where y is one, a tensor on y's device otherwise."""
        image = images.from_tensor(x, self.layout)
        return image.to(self._y.device) if isinstance(image, Tensor) else image

    def clean(self, reference: Any) -> Tensor:
        """Return a reference of `shape` as x: in the image's range, or of 8 or 16 bits beside floats in [0, 1]."""
        ours, dtype = (self.layout.low, self.layout.high), images.dtype_name(getattr(reference, "dtype", None))
        by_type = ours == (0.0, 1.0) and dtype in ("uint8", "uint16")
        if "int" in dtype and not by_type:
            reference = reference * 1.0  # in the range of the image, which the type need not hold
        layout = images.describe(
            reference,
            channel_axis=self.layout.channel_axis,
            data_range=None if by_type else ours,
            name="reference",
        )
        check_size(layout, self.shape)
        try:
            return images.to_tensor(reference, layout, name="reference")
        except ValueError as error:  # whose advice is for an image that is restored
            given = str(error).partition(";")[0]
            raise ValueError(
                f"{given}; bring the reference to the image's range, {ours}, which data_range= tells"
            ) from None

    def fingerprint(self) -> dict[str, Any]:
        """Return shape and operator: what it makes of noise, or its name if it is random itself."""
        name = getattr(self._forward, "__qualname__", type(self._forward).__qualname__)
        return {
            "shape": list(self.shape),
            "data_range": [self.layout.low, self.layout.high],
            **({"response": self._response} if self._response else {"operator": name}),
        }


_DAMPING = 0.01  # beside the largest eigenvalue
_UNMEASURED = 0.1  # of y: more zeros than a measurement with noise has by itself


def _on_cpu(values: Any) -> Tensor:
    """Return an array or tensor of any byte order as a float32 or complex64 tensor in memory of its own."""
    if isinstance(values, Tensor):
        return values.detach().to("cpu", torch.complex64 if values.is_complex() else torch.float32, copy=True)
    return torch.from_numpy(np.array(values, np.complex64 if np.iscomplexobj(values) else np.float32, order="C"))
