"""When to stop, without a clean image: rules that watch the outputs.

A rule sees each iteration and says when it is over; if the right moment lies in the past, it keeps the picture of that
moment. Rules have a `state_dict`, so that a fit which is resumed stops where it would have.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dip.errors import positive_float, positive_int, warn
from dip.falling import APART, FASTER, falls_of, faster
from dip.losses import MSE


class Rule:
    """Base of the stopping rules: the best moment so far, and patience.

    Subclasses return from `measure` the number that is to be minimal at the right moment.

    Parameters
    ----------
    patience : int
        Stop after so many iterations without a lower value.
    earliest : int
        Iterations before this one are not compared; the first outputs of a fit can be deceptively quiet.

    Attributes
    ----------
    image : Tensor or None
        The picture (1, C, H, W) at the best moment so far, as the fit would have returned it then.
    iteration : int
        The iteration of that moment, 0 before the first.
    value : float
        What `measure` returned then.
    ended_at : int
        The iteration at which the rule said that it is over, 0 before. It says so once for each minimum: a fit that is
        run on after it does what was asked.
    """

    def __init__(self, *, patience: int, earliest: int) -> None:
        self.patience = positive_int(patience, "patience")
        self.earliest = positive_int(earliest, "earliest")
        self.image: Tensor | None = None
        self.iteration = 0
        self.value = float("inf")
        self.ended_at = 0

    def measure(self, output: Tensor, loss: Tensor) -> float | None:
        """Return the value at this iteration, None where there is none yet."""
        raise NotImplementedError

    def place(self, loss_of: Callable[[Tensor], Tensor]) -> None:
        """Take the data loss of a picture (1, C, H, W), as the fit has it, for rules that look at another's."""

    def update(self, iteration: int, output: Tensor, image: Tensor, loss: Tensor) -> bool:
        """See one iteration.

        Parameters
        ----------
        iteration : int
            Counted from 1.
        output : Tensor
            f_θ(z) at this iteration, (1, C, H, W).
        image : Tensor
            What the fit would return now (the average where it keeps one).
        loss : Tensor
            The data loss, a scalar.

        Returns
        -------
        bool
            Whether it is time to stop.
        """
        value = self.measure(output, loss)
        if value is None or iteration < self.earliest:
            return False
        if value < self.value:
            self.value, self.iteration, self.image, self.ended_at = value, iteration, image.clone(), 0
        if self.ended_at or not self.iteration or iteration - self.iteration < self.patience:
            return False
        self.ended_at = iteration
        return True

    @property
    def first(self) -> int:
        """The first iteration that it looks at."""
        return self.earliest

    @property
    def reason(self) -> str:
        """Why the fit was stopped, in words."""
        first = ", the first that it looked at (it may have been lower before: give a smaller earliest)"
        at = f"{self.iteration}{first if self.iteration == self.earliest else ''}"
        return f"{type(self).__name__}: lowest at iteration {at}, no lower in {self.patience} more"

    def check(self, loss: Any, average: float, task: str) -> None:
        """Refuse a fit that it cannot look at.

        Parameters
        ----------
        loss : Loss
            The data loss of the fit.
        average : float
            The decay of its average; 0 where it keeps none.
        task : str
            The name of the task.

        Raises
        ------
        ValueError
            It needs another.
        """

    def forget(self) -> None:
        """Compare with nothing before this iteration: the fit went back to an earlier state."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on; tensors are copies."""
        return {
            "value": self.value,
            "iteration": self.iteration,
            "ended_at": self.ended_at,
            "image": _copy(self.image),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device | None = None) -> None:
        """Go on from `state`."""
        self.value, self.iteration, self.ended_at = state["value"], state["iteration"], state["ended_at"]
        self.image = _copy(state["image"], device)


def warn_if_past(path: str | os.PathLike[str] | None, done: int, iters: int) -> None:
    """Warn where a fit that was resumed has more iterations already than are asked for."""
    if done > iters:
        warn(f"{path} has {done} iterations already, more than iters={iters}; the result is that of all of them")


def warn_if_blind(rule: Rule | None, iters: int) -> None:
    """Warn where a rule would look at nothing in so many iterations."""
    if rule is not None and iters < rule.first:
        cause = "smaller earliest=" if rule.first == rule.earliest else "shorter window"
        warn(
            f"{type(rule).__name__} looks at nothing before iteration {rule.first}, so with iters={iters} it does "
            f"nothing; give more iterations, or a rule with a {cause}",
        )


class WindowedVariance(Rule):
    r"""Stop at the minimum of the outputs' variance over a window (ES-WMV).

    .. math:: V_t = \frac{1}{W} \sum_{k=t-W+1}^{t} \frac{1}{n} \| x_k - \bar x_t \|^2

    falls while the image is being fitted and rises again when the noise is: the picture at its minimum is returned.

    Parameters
    ----------
    window : int, default 100
        W, the number of outputs.
    patience : int, default 1000
        Stop after so many iterations without a lower variance.
    earliest : int, default 400
        Iterations before this one are not compared: false minima during the warm-up are known up to there.
    pixels : int, default 65536
        The variance is taken over at most so many values of the output, on a regular grid, which bounds the
        window's memory; the paper takes all.

    References
    ----------
    Wang, Li, Zhuang, Chen, Liang, Sun, "Early Stopping for Deep Image Prior", TMLR 2023.
    """

    def __init__(self, window: int = 100, patience: int = 1000, *, earliest: int = 400, pixels: int = 65536) -> None:
        super().__init__(patience=patience, earliest=earliest)
        self.window = positive_int(window, "window")
        if self.window < 2:
            raise ValueError("window=1: a variance needs at least 2 outputs; the paper has 100")
        self.pixels = positive_int(pixels, "pixels")
        self._frames: Tensor | None = None
        self._count = 0

    @property
    def first(self) -> int:
        """The first iteration that it looks at: the window has to be full."""
        return max(self.earliest, self.window)

    def __repr__(self) -> str:
        return f"WindowedVariance({self.window}, {self.patience}, earliest={self.earliest}, pixels={self.pixels})"

    def measure(self, output: Tensor, loss: Tensor) -> float | None:
        """Return the variance over the window, None until it is full."""
        sample = _sample(output, self.pixels)
        if self._frames is None:
            self._frames = torch.zeros(self.window, sample.numel(), device=sample.device)
        self._frames[self._count % self.window] = sample
        self._count += 1
        if self._count < self.window:
            return None
        return float(self._frames.var(dim=0, correction=0).mean())

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on; tensors are copies."""
        return {**super().state_dict(), "frames": _copy(self._frames), "count": self._count}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | None = None) -> None:
        """Go on from `state`."""
        super().load_state_dict(state, device)
        self._frames, self._count = _copy(state["frames"], device), state["count"]


class MovingVariance(Rule):
    r"""The same with an exponential moving variance, which needs no window (ES-EMV).

    With :math:`d = x_t - m`: :math:`m ← m + α d`, :math:`V ← (1 - α)(V + α \|d\|^2 / n)`.

    Parameters
    ----------
    alpha : float, default 0.1
        α in (0, 1), the weight of the newest output.
    patience : int, default 1000
        Stop after so many iterations without a lower variance.
    earliest : int, default 400
        Iterations before this one are not compared.

    References
    ----------
    Wang et al., "Early Stopping for Deep Image Prior", TMLR 2023.
    """

    def __init__(self, alpha: float = 0.1, patience: int = 1000, *, earliest: int = 400) -> None:
        super().__init__(patience=patience, earliest=earliest)
        self.alpha = positive_float(alpha, "alpha")
        if self.alpha >= 1:
            raise ValueError(f"alpha={alpha}: the weight of the newest output has to be below 1, such as 0.1")
        self._mean: Tensor | None = None
        self._variance: Tensor | None = None

    def __repr__(self) -> str:
        return f"MovingVariance({self.alpha}, {self.patience}, earliest={self.earliest})"

    def measure(self, output: Tensor, loss: Tensor) -> float | None:
        """Return the moving variance."""
        if self._mean is None or self._variance is None:
            # In plain order, as a checkpoint brings it back: the order decides how the last bits are rounded.
            self._mean = output.clone(memory_format=torch.contiguous_format)
            self._variance = torch.zeros((), device=output.device)
            return None
        difference = output.contiguous() - self._mean
        self._mean += self.alpha * difference
        self._variance = (1 - self.alpha) * (self._variance + self.alpha * difference.square().mean())
        return float(self._variance)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on; tensors are copies."""
        return {**super().state_dict(), "mean": _copy(self._mean), "variance": _copy(self._variance)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | None = None) -> None:
        """Go on from `state`."""
        super().load_state_dict(state, device)
        self._mean, self._variance = _copy(state["mean"], device), _copy(state["variance"], device)


class ResidualFall(Rule):
    r"""Stop when the residual falls faster again: from then on it is the noise that is learnt.

    With :math:`r_t`, the data loss of what the fit would return (the average of its outputs), and the window :math:`w`,

    .. math:: d_t = \frac{r_{t-w} - r_t}{r_t}

    falls while the picture is learnt, since what is easy to learn comes first, and rises once the noise is. The picture
    at its minimum is returned, and the fit ends when :math:`d_t` is more than `ratio` times as large as there (or than
    0.001 w / 100, where it is below that). Neither the level
    of the noise has to be known, nor is there a number of iterations to wait. The preset "fast" begins its flips in
    this way (`dip.flips.Moment`). It needs a fit that keeps an average: a single output's loss moves too much.

    Parameters
    ----------
    window : int, default 100
        w, in iterations, from 4 up; r is looked at four times in as many, at every (w // 4)-th.
    ratio : float, default 1.15
        How many times the least d is to be exceeded, above 1.
    earliest : int, default 150
        Iterations before this one are not compared.
    """

    def __init__(self, window: int = 100, ratio: float = FASTER, *, earliest: int = 150) -> None:
        super().__init__(patience=1, earliest=earliest)
        self.window = positive_int(window, "window")
        if self.window < APART:
            raise ValueError(f"window={window}: it is looked at {APART} times, so it has to have {APART} iterations")
        self.ratio = positive_float(ratio, "ratio")
        if self.ratio <= 1:
            raise ValueError(f"ratio={ratio}: it has to be above 1, such as {FASTER}")
        self._every = self.window // APART
        self._loss_of: Callable[[Tensor], Tensor] | None = None
        self._residuals: list[float] = []

    @property
    def first(self) -> int:
        """The first iteration that it looks at: a window after the first look."""
        return max(self.earliest, (APART + 1) * self._every)

    def __repr__(self) -> str:
        return f"ResidualFall({self.window}, {self.ratio}, earliest={self.earliest})"

    def check(self, loss: Any, average: float, task: str) -> None:
        """Refuse a fit that keeps no average (see `Rule.check`)."""
        if not average:
            raise ValueError(
                "stop=ResidualFall looks at the average of the outputs, since the residual of one moves too much; it "
                "cannot go with average=0"
            )

    def forget(self) -> None:
        """Compare with nothing before this iteration: the fit went back to an earlier state."""
        self._residuals, self.value = [], float("inf")

    def place(self, loss_of: Callable[[Tensor], Tensor]) -> None:
        """Take the data loss of a picture (1, C, H, W), as the fit has it."""
        self._loss_of = loss_of

    def update(self, iteration: int, output: Tensor, image: Tensor, loss: Tensor) -> bool:
        """See one iteration (see `Rule.update`)."""
        if self._loss_of is None:
            raise RuntimeError("ResidualFall compares pictures with the measurement: call place() first, as a fit does")
        if iteration % self._every:
            return False
        self._residuals = [*self._residuals[-APART:], float(self._loss_of(image))]
        fall = next(iter(falls_of(self._residuals)), None)
        if fall is None or iteration < self.earliest:
            return False
        if fall < self.value:
            self.value, self.iteration, self.image, self.ended_at = fall, iteration, image.clone(), 0
            return False
        if self.ended_at or not faster(fall, self.value, ratio=self.ratio, window=self.window):
            return False
        self.ended_at = iteration
        return True

    @property
    def reason(self) -> str:
        """Why the fit was stopped, in words."""
        return (
            f"ResidualFall: the residual fell slowest up to iteration {self.iteration}, and faster again up to "
            f"{self.ended_at}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on; tensors are copies."""
        return {**super().state_dict(), "residuals": list(self._residuals)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | None = None) -> None:
        """Go on from `state`."""
        super().load_state_dict(state, device)
        self._residuals = list(state["residuals"])


class Discrepancy(Rule):
    r"""Stop when the residual is as large as the noise (Morozov's discrepancy principle).

    The fit ends at the first iteration with :math:`\|A f_θ(z) - y\|^2 / n ≤ τ σ^2`. It needs the noise level, and a
    fit with the mean squared error as its loss. What is returned is the average of the outputs then, which lags behind:
    a fit that comes to the noise within some iterations goes on until the average has little of its first outputs.

    Parameters
    ----------
    sigma : float
        Standard deviation of the noise, below 1, with the image in [0, 1]: 25 / 255 for the usual "sigma 25". For
        `dip.Reconstruct` it is that of the noise in y, in y's own unit (of complex noise: the root of its mean squared
        magnitude).
    tau : float, default 1
        Safety factor τ.
    earliest : int, default 200
        Not before this iteration.
    """

    def __init__(self, sigma: float, *, tau: float = 1.0, earliest: int = 200) -> None:
        super().__init__(patience=1, earliest=earliest)
        self.sigma = positive_float(sigma, "sigma")
        self.tau = positive_float(tau, "tau")

    def check(self, loss: Any, average: float, task: str) -> None:
        """Refuse another loss, and noise that is larger than white (see `Rule.check`)."""
        if not isinstance(loss, MSE):
            raise ValueError(
                f"stop=Discrepancy compares squared residuals with the noise; it cannot go with loss={loss!r}"
            )
        if self.sigma >= 1 and task != "reconstruct":
            raise ValueError(
                f"stop=Discrepancy({self.sigma:g}): white is 1 here, and noise has a standard deviation below that; of "
                f"values from 0 to 255 it is {self.sigma:g} / 255"
            )

    def __repr__(self) -> str:
        return f"Discrepancy({self.sigma}, tau={self.tau}, earliest={self.earliest})"

    def update(self, iteration: int, output: Tensor, image: Tensor, loss: Tensor) -> bool:
        """See one iteration (see `Rule.update`)."""
        value = float(loss)
        if self.ended_at or iteration < self.earliest or value > self.tau * self.sigma**2:
            return False
        self.value, self.iteration, self.image = value, iteration, image.clone()
        self.ended_at = iteration
        return True

    @property
    def reason(self) -> str:
        """Why the fit was stopped, in words."""
        return f"Discrepancy: the residual reached the noise level {self.sigma:g} at iteration {self.iteration}"


# Those that need to be told nothing.
BY_ITSELF: dict[str, Callable[..., Rule]] = {
    "windowed-variance": WindowedVariance,
    "moving-variance": MovingVariance,
    "residual-fall": ResidualFall,
}


def _sample(output: Tensor, pixels: int) -> Tensor:
    """Return at most `pixels` values of the output, on a regular grid."""
    step = 1
    while output[..., ::step, ::step].numel() > pixels and step < max(output.shape[-2:]):
        step += 1
    return output[..., ::step, ::step].reshape(-1)


def _copy(tensor: Tensor | None, device: torch.device | None = None) -> Tensor | None:
    return None if tensor is None else tensor.to(device).clone()
