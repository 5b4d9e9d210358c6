"""Data losses E(A x; y) that look at each residual alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dip.errors import positive_float
from dip.networks import squares

__all__ = ["L1", "MSE", "Huber", "Loss", "Poisson", "check_weight", "residual_of"]

Loss = Callable[..., torch.Tensor]
"""A data loss: ``loss(prediction, observation, weight=None)``, or without weight, returning a real scalar."""


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
        return _mean(residual_of(prediction, observation).abs(), weight)


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
        magnitude = residual_of(prediction, observation).abs()
        inner = magnitude.clamp(max=self.delta)
        return _mean(inner * (magnitude - inner / 2), weight)


@dataclass(frozen=True)
class Poisson:
    r"""Deviance of photon counts: rho = p - y + y log(y / p), for noise that grows with the light.

    It is, but for a constant and the scale, the negative log-likelihood of counts in any unit, as y = k / peak of
    `dip.degradations.poisson`; where p is near y it is (p - y)^2 / 2 y.

    Parameters
    ----------
    background : float, default 0.001
        Added to p and to y, of which negative values count as 0: the logarithm has no limit at 0. (For negative p the
        loss goes on in a straight line.) In units of the observation (for images, of the range [0, 1]).

    References
    ----------
    McCullagh and Nelder, "Generalized linear models", 1989; in deconvolution as Csiszar's I-divergence.

    Examples
    --------
    >>> Poisson()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])).round(decimals=3)
    tensor(0.1530)
    """

    background: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "background", positive_float(self.background, "background"))

    def __call__(
        self, prediction: torch.Tensor, observation: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss; parameters as for `MSE`, but real."""
        prediction, observation = _comparable(prediction, observation)
        if prediction.is_complex():
            raise TypeError("counts of photons are real, and this observation is complex; take another loss")
        y, inside = (values.clamp(min=0) + self.background for values in (observation, prediction))
        below = prediction - (inside - self.background)  # of negative predictions: there it goes on in a straight line
        rho = inside - y + y * (y / inside).log() + below * (1 - y / self.background)
        return _mean(rho, weight)


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


def residual_of(prediction: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
    """Return prediction - observation, of equal shape, in float32 at least."""
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
    # Each weight is used rho.numel() / weight.numel() times. (A crop may have none above 0: there is nothing to learn.)
    total = weight.sum() * (rho.numel() / weight.numel())
    return (weight * rho).sum() / torch.where(total > 0, total, 1)


def _check_broadcast(weight: torch.Tensor, shape: tuple[int, ...]) -> None:
    trailing = shape[len(shape) - weight.ndim :]
    fits = weight.ndim <= len(shape) and all(n in (1, m) for n, m in zip(weight.shape, trailing, strict=True))
    if weight.is_complex() or not fits:
        raise ValueError(
            f"the weight must be real and broadcast to the observation's shape {shape}, "
            f"got {weight.dtype} of shape {tuple(weight.shape)}"
        )
