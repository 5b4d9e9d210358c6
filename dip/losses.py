r"""Data losses E(A x; y) and penalties on x.

A loss compares a prediction with an observation, element by element, and averages:

.. math:: E = \frac{\sum_j w_j \, \rho(|r_j|)}{\sum_j w_j}, \qquad r = prediction - observation,

with w = 1 everywhere unless weights are given. Residuals may be complex (k-space). Every loss is a small
frozen dataclass, so two of them can be compared and ``repr`` tells exactly which one was used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F

from dip.errors import positive_float, shown, unknown
from dip.networks import squares

__all__ = [
    "L1",
    "MSE",
    "BackProjection",
    "Huber",
    "Loss",
    "Penalty",
    "TotalVariation",
    "check_weight",
    "checked",
    "create",
    "gain",
    "norm",
]

Loss = Callable[..., torch.Tensor]
"""A data loss: ``loss(prediction, observation, weight=None)``, or without weight, returning a real scalar."""

Penalty = Callable[[torch.Tensor], torch.Tensor]
"""A penalty: ``penalty(x)`` of the image, returning a real scalar that is added to the data loss."""


@dataclass(frozen=True)
class MSE:
    """Mean squared error, rho(r) = abs(r)^2: the choice for Gaussian noise, and the paper's for every task.

    Examples
    --------
    >>> MSE()(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]))
    tensor(5.)
    >>> MSE()(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]), weight=torch.tensor([1.0, 0.0]))
    tensor(1.)
    """

    def __call__(
        self, prediction: torch.Tensor, observation: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss.

        Parameters
        ----------
        prediction, observation : Tensor
            Of equal shape, real or complex, on one device; computed in float32 at least.
        weight : Tensor, optional
            Real, broadcastable to the observation's shape; not negative and not zero everywhere. See
            `check_weight`.

        Returns
        -------
        Tensor
            Real scalar.

        Raises
        ------
        ValueError
            If the shapes differ, or the weight does not broadcast.
        """
        prediction, observation = _comparable(prediction, observation)
        if prediction.is_complex():
            residual = torch.view_as_real(prediction - observation)
            return _mean(residual.square().sum(dim=-1), weight)
        if weight is None and squares.worthwhile(prediction, observation):
            return squares.mean_square(prediction, observation)
        if weight is None:
            return F.mse_loss(prediction, observation)  # fewer calls than the same in steps
        return _mean((prediction - observation).square(), weight)


@dataclass(frozen=True)
class L1:
    """Mean absolute error, rho(r) = abs(r): for outliers (impulse noise) and heavy tails.

    Examples
    --------
    >>> L1()(torch.tensor([1.0, -3.0]), torch.tensor([0.0, 0.0]))
    tensor(2.)
    """

    def __call__(
        self, prediction: torch.Tensor, observation: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss; parameters as for `MSE`."""
        return _mean(_residual(prediction, observation).abs(), weight)


@dataclass(frozen=True)
class Huber:
    """Huber's loss: rho(r) = r^2 / 2 for abs(r) <= delta, and delta (abs(r) - delta / 2) beyond.

    Parameters
    ----------
    delta : float
        Where the parabola ends and the straight line begins, in units of the observation (for images, of the
        range [0, 1]). The default, 0.1, is about 25 of 255 gray levels.

    References
    ----------
    P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35(1), 1964.

    Examples
    --------
    >>> Huber(delta=1.0)(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]))
    tensor(1.5000)
    """

    delta: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", positive_float(self.delta, "delta"))

    def __call__(
        self, prediction: torch.Tensor, observation: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss; parameters as for `MSE`."""
        magnitude = _residual(prediction, observation).abs()
        inner = magnitude.clamp(max=self.delta)
        return _mean(inner * (magnitude - inner / 2), weight)


@dataclass(frozen=True)
class BackProjection:
    r"""Mean squared error after the operator has been undone, as far as it can be.

    .. math:: E = \frac{1}{n} \left\| (A A^T + λ I)^{-1/2} (A x - y) \right\|^2

    What A weakens, the fine of a blurred image, weighs as much as the rest, down to where the damping λ of the task
    says that y is noise: a fit finds it in far fewer iterations than by the squared error of A x.

    Parameters
    ----------
    task : object, optional
        Where A is; a fit fills it in. It has a method ``whitened(residual)``, as `dip.Deblur` has.

    References
    ----------
    Tirer and Giryes, "Back-projection based fidelity term for ill-posed linear inverse problems", IEEE Transactions on
    Image Processing 2020; in a deep image prior: Zukerman, Tirer, Giryes, "BP-DIP: a backprojection based deep image
    prior", EUSIPCO 2020.
    """

    _: KW_ONLY
    task: Any = field(default=None, repr=False, compare=False)

    def of(self, task: Any) -> BackProjection:
        """Return the loss of a task.

        Raises
        ------
        ValueError
            The task cannot undo its operator.
        """
        if not hasattr(task, "whitened"):
            raise ValueError(f"loss={self!r} undoes a blur: it is for dip.Deblur, not for {task.task}")
        return replace(self, task=task)

    def __call__(
        self, prediction: torch.Tensor, observation: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss, parameters as for `MSE`, but without weights."""
        if self.task is None:
            raise RuntimeError(f"{self!r} belongs to no task; give it to dip.fit as loss=")
        if weight is not None:
            raise ValueError("the back-projection loss takes no weights; take another loss")
        residual = _residual(prediction, observation)
        whitened: torch.Tensor = self.task.whitened(residual)
        return whitened.square().mean()


@dataclass(frozen=True)
class TotalVariation:
    r"""Total variation as a penalty: weight times the mean length of the image's gradient.

    With forward differences d_v (downwards) and d_h (to the right), zero across the last row and column, it
    is the mean over all pixels and channels of

    - isotropic: :math:`\sqrt{d_v^2 + d_h^2 + \epsilon^2} - \epsilon`;
    - anisotropic: :math:`|d_v| + |d_h|`.

    Parameters
    ----------
    weight : float
        At least 0; what the mean is multiplied by. The mean does not depend on the image's size, so neither
        does a good weight; beside MSE in [0, 1] a useful one is about 0.001 to 0.1.
    isotropic : bool
        The first formula (the default) or the second.
    epsilon : float
        Rounds off the tip of the square root, whose slope has no limit at 0. In units of the range [0, 1];
        the default, 0.001, is a quarter of an 8-bit gray level. Isotropic only.

    References
    ----------
    L. I. Rudin, S. Osher, E. Fatemi, "Nonlinear total variation based noise removal algorithms",
    Physica D 60, 1992. With a deep image prior: J. Liu, Y. Sun, X. Xu, U. S. Kamilov, "Image restoration
    using total variation regularized deep image prior", ICASSP 2019.

    Examples
    --------
    >>> step = torch.tensor([0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 1, 4)
    >>> TotalVariation(2.0, isotropic=False)(step)
    tensor(0.5000)
    """

    weight: float
    _: KW_ONLY
    isotropic: bool = True
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", positive_float(self.weight, "weight", zero_ok=True))
        object.__setattr__(self, "epsilon", positive_float(self.epsilon, "epsilon"))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the penalty of `x`, a real Tensor (..., H, W) of any size, as a scalar."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        # Appending the last row (or column) again makes the difference across it zero, even if it is alone.
        down = torch.diff(x, dim=-2, append=x[..., -1:, :])
        right = torch.diff(x, dim=-1, append=x[..., :, -1:])
        if self.isotropic:
            length = (down.square() + right.square() + self.epsilon**2).sqrt() - self.epsilon
        else:
            length = down.abs() + right.abs()
        return self.weight * length.mean()


_LOSSES: dict[str, Callable[[], Loss]] = {
    "mse": MSE,
    "l1": L1,
    "huber": Huber,
    "back-projection": BackProjection,
}


def create(loss: str | Loss) -> Loss:
    """Return the loss of a name; a loss, or any other callable, is returned as it is.

    Parameters
    ----------
    loss : {"mse", "l1", "huber", "back-projection"} or callable
        A callable must accept ``(prediction, observation)``, and ``weight=`` where the task has weights
        (inpainting).

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If it is neither a name nor callable.

    Examples
    --------
    >>> create("huber")
    Huber(delta=0.1)
    """
    if isinstance(loss, str):
        if loss not in _LOSSES:
            raise unknown("loss", loss, _LOSSES)
        return _LOSSES[loss]()
    if isinstance(loss, type):
        raise TypeError(f"loss is the class {loss.__name__} itself; pass {loss.__name__}(), an object of it")
    if not callable(loss):
        raise TypeError(
            f"loss must be one of {', '.join(sorted(_LOSSES))} or a callable loss(prediction, observation), "
            f"not {shown(loss)}"
        )
    return loss


def gain(observation: torch.Tensor) -> torch.Tensor | None:
    """Return by what the gradient is multiplied where the observation is small in its own units, or None.

    The gradient of a squared error is as small as the observation squared; below Adam's epsilon (1e-8) it would say
    nothing any more. Adam asks for its direction only, so a factor, here about 1 / mean(abs(y)^2), changes nothing
    else.

    Parameters
    ----------
    observation : Tensor
        y, real or complex; zeros in it do not count (they may stand for what was not measured).

    Returns
    -------
    Tensor or None
        A power of two (so that nothing is rounded), float32, on y's device; None from a root mean square of 0.01 on.
    """
    power = norm(observation) ** 2 / max(1, int(observation.count_nonzero()))
    if not 0 < power < 1e-4:
        return None
    return torch.tensor(2.0 ** min(round(-math.log2(power)), 60), device=observation.device)


def norm(values: torch.Tensor) -> float:
    """Return the Euclidean norm of real or complex values, added up in float64."""
    values = values.detach().cpu()  # not every device has float64
    return float(torch.linalg.vector_norm(values, dtype=torch.promote_types(values.dtype, torch.float64)))


def check_weight(weight: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Check weights once, before a fit: the losses themselves look at shapes only.

    They are called in every iteration, and looking at values would make the device wait each time.

    Parameters
    ----------
    weight : Tensor
        The weights.
    shape : tuple of int
        The observation's shape, to which they must broadcast.

    Raises
    ------
    TypeError, ValueError
        If the weights are not a tensor, are complex, do not broadcast, or have negative or non-finite values
        or no positive one.

    Examples
    --------
    >>> check_weight(torch.tensor([[1.0, 0.0]]), (1, 3, 8, 2))
    """
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"weight must be a torch tensor, got {type(weight).__name__}")
    _check_broadcast(weight, tuple(shape))
    if not bool(torch.isfinite(weight).all()) or bool((weight < 0).any()):
        raise ValueError("weight has NaN, infinite or negative values; set what shall not count to 0")
    if not bool((weight > 0).any()):
        raise ValueError("weight is zero everywhere, so nothing of the observation would count")


def _residual(prediction: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
    prediction, observation = _comparable(prediction, observation)
    return prediction - observation


def _comparable(prediction: torch.Tensor, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Never broadcast: (1, 1, H, W) against (1, 3, H, W) would fit the wrong thing without a word.
    if prediction.shape != observation.shape:
        raise ValueError(
            f"the prediction has shape {tuple(prediction.shape)} and the observation "
            f"{tuple(observation.shape)}; they must be equal: check the forward operator, or the image shape "
            f"that it is applied to"
        )
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, observation.dtype), torch.float32)
    return prediction.to(dtype), observation.to(dtype)


def _mean(rho: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    if weight is None:
        return rho.mean()
    _check_broadcast(weight, tuple(rho.shape))
    weight = weight.to(rho.dtype)
    # Each weight is used rho.numel() / weight.numel() times.
    return (weight * rho).sum() / (weight.sum() * (rho.numel() / weight.numel()))


def _check_broadcast(weight: torch.Tensor, shape: tuple[int, ...]) -> None:
    trailing = shape[len(shape) - weight.ndim :]
    fits = weight.ndim <= len(shape) and all(n in (1, m) for n, m in zip(weight.shape, trailing, strict=True))
    if weight.is_complex() or not fits:
        raise ValueError(
            f"the weight must be real and broadcast to the observation's shape {shape}, "
            f"got {weight.dtype} of shape {tuple(weight.shape)}"
        )


def checked(name: str, function: Callable[..., Any], *operands: torch.Tensor, **weight: torch.Tensor) -> torch.Tensor:
    """Return what a loss or a penalty, perhaps of the user's own, makes of its operands.

    Parameters
    ----------
    name : str
        What the messages call it.
    function : callable
        The loss or penalty.
    *operands : Tensor
        What it is given; one of them has a gradient.
    **weight : Tensor
        ``weight=``, where the task has one.

    Raises
    ------
    TypeError, ValueError
        It does not take weights where there are some, or returns anything but one real number with a gradient.
    """
    try:
        value = function(*operands, **weight)
    except TypeError as error:
        if not weight or "weight" not in str(error):
            raise
        raise TypeError(
            f"{name} does not take weight=, and this task has weights (the mask); define it as "
            "def loss(prediction, y, weight=None), and multiply the residuals by weight"
        ) from error
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} returned {shown(value)}; a tensor with one number is needed, such as residual.mean()")
    if value.numel() != 1 or value.is_complex():
        raise ValueError(
            f"{name} returned {value.dtype} of shape {tuple(value.shape)}; one real number is needed: take its mean()"
        )
    if not value.requires_grad:
        raise ValueError(f"{name} returned a number without a gradient; compute it with torch operations, undetached")
    return value
