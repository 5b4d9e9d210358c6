"""Noise that was clipped at black and white, as files do it, and the papers: its mean is no longer the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dip.noise.stabilising import ROWS, looked_up

__all__ = ["Clipped", "as_expected", "ends", "sigma_of", "unclipped"]

_FINER = 2  # times the rows of a table are those of what it is made from
_FAR = 40.0  # standard deviations, beyond which an end is not seen
_SOME = 1e-3  # the share of pixels at an end from which it is looked at
_SIDE, _MOST = 5, 2**16  # of the parts whose brightness tells, pixels; parts that are looked at
_NEAR, _ENOUGH = 1.2, 50  # how near to an end a part tells of it, standard deviations; parts that it takes
_APART = 0.5  # how far from it one tells of the level
_LESS, _MORE = 0.7, 1.4  # times what is expected that may be found, by trials
_NOWHERE = (-math.inf, math.inf)
_STEPS = 4001  # to the farthest end
_ROUNDS, _ALIKE, _FAST = 6, 1e-3, 0.7


@dataclass(frozen=True)
class Clipped:
    r"""Normal noise that was clipped at the ends of the range.

    Where y = min(max(x + n, a), b), n ~ N(0, σ²), the mean of y is not x; near black it is brighter, near white darker,

    .. math:: E[y] = x + σ s\left(\frac{x - a}{σ}\right) - σ s\left(\frac{b - x}{σ}\right),
        \qquad s(t) = φ(t) - t \, Φ(-t),

    with the density φ and the distribution Φ of the normal one: by 0.4 σ at the ends. What is fitted by the mean
    squared error comes to that mean, and by `inverse` to x.

    Attributes
    ----------
    sigma : float
        Standard deviation of the noise before it was clipped.
    first, last : Tensor
        (C,), float64: the darkest and the brightest value of each channel, between which x is looked for.
    clipped : Tensor
        (2, C), bool: whether noise was clipped at these.

    References
    ----------
    Foi, "Clipped noisy images: heteroskedastic modeling and practical denoising", Signal Processing 2009, where the
    inverse is called declipping.
    """

    sigma: float
    first: Tensor
    last: Tensor
    clipped: Tensor

    def inverse(self, means: Tensor) -> Tensor:
        """Return the x whose noisy values have these means (1, C, H, W), none of it beyond an end that clipped it."""
        x = self._grid(_FINER * ROWS)
        found = []
        for values, expected, light, ends in zip(means.unbind(1), self.moments(x)[0], x, self.clipped.T, strict=True):
            low, high = float(expected[0]), float(expected[-1])
            rows = np.linspace(low, high, ROWS)
            table = torch.from_numpy(np.interp(rows, expected.numpy(), light.numpy()).astype(np.float32))
            least, most = (end if cut else away for end, cut, away in zip((low, high), ends, _NOWHERE, strict=True))
            beyond = values.clamp(least, most) - values.clamp(low, high)
            found.append(looked_up(table.to(values.device), (values - low) / max(high - low, 1e-12)) + beyond)
        return torch.stack(found, dim=1)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return E[y] and the standard deviation of y (C, N), P(y = first) and P(y = last) (2, C, N), of x (C, N)."""
        t = self.away(x)
        density, there = torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi), torch.special.ndtr(-t)
        above, below = density - t * there
        beyond = self.sigma * (above - below)
        # E (y - x)² / σ²: of what lies between the ends, and at them
        squares = 1 + (t.square() * there - there - t * density).sum(0)
        deviation = (self.sigma**2 * squares - beyond.square()).clamp(min=0).sqrt()
        return x + beyond, deviation, there

    def away(self, x: Tensor) -> Tensor:
        """Return how far x (C, N) is from each end at which noise was clipped, (2, C, N), in standard deviations."""
        here = torch.stack([x - self.first[:, None], self.last[:, None] - x]) / self.sigma
        return torch.where(self.clipped[..., None], here, _FAR).clamp(-_FAR, _FAR)

    def light(self, means: Tensor) -> Tensor:
        """Return the x, within first and last, (C, N), float64, whose noisy values have these means (C, N)."""
        x = self._grid(ROWS)
        expected = self.moments(x)[0]
        read = [np.interp(*(one.numpy() for one in row)) for row in zip(means, expected, x, strict=True)]
        return torch.from_numpy(np.array(read))

    def _grid(self, rows: int) -> Tensor:
        steps = torch.linspace(0, 1, rows, dtype=torch.float64)
        return self.first[:, None] + (self.last - self.first)[:, None] * steps


def ends(picture: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the least and the largest value of each channel, (C,), and at which of them some pixels are, (2, C)."""
    values = picture[0].flatten(1) if known is None or not known.any() else picture[0][:, known]
    first, last = values.amin(1), values.amax(1)
    share = torch.stack([(values == end[:, None]).float().mean(1) for end in (first, last)])
    return first.double(), last.double(), (share > _SOME) & (last > first)


def unclipped(means: Tensor, variances: Tensor, white: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the means and variances (N,) of noise that had these once it was clipped at white, and where that is told.

    How far white is from the mean, in standard deviations of what is left, tells how far it was in those of the noise;
    where it is nearer than it can be, all is white.
    """
    t = torch.linspace(0, _FAR, _STEPS, dtype=torch.float64)
    at_0 = Clipped(1.0, torch.full((1,), -_FAR), torch.zeros(1), torch.tensor([[False], [True]]))
    mean, deviation, _ = (one[0] for one in at_0.moments(-t[None]))
    left = variances.clamp(min=1e-12).sqrt()
    ratios, far = -mean / deviation, (white - means) / left
    away, kept = (torch.from_numpy(np.interp(far.numpy(), ratios.numpy(), one.numpy())) for one in (t, deviation))
    sigma = left / kept
    return torch.where(far < _FAR, white - away * sigma, means), sigma.square(), far > ratios[0]


def sigma_of(model: Clipped, left: Tensor, light: Tensor, norm: float) -> float:
    """Return the standard deviation of the noise, of what a mask leaves of a picture (C, N) and the brightness there.

    It is the median of what was left, each value in units of what of noise is left at that brightness, which depends
    on the noise again, so it is found in turns. Nothing is told by what is next to an end, where all may be the same.

    Parameters
    ----------
    model : Clipped
        With the ends, and a first standard deviation.
    left, light, norm
        As `dip.noise.level.masked` returns them.
    """

    def told(sigma: float) -> float:
        """Return what it is if it is compared with that of a noise of this standard deviation."""
        now = replace(model, sigma=sigma)
        x = now.light(light)
        deviation = now.moments(x)[1]
        part, apart = left.abs() * sigma / deviation.clamp(min=_ALIKE * sigma), now.away(x).amin(0) > _APART
        medians = [one[there].median() for one, there in zip(part, apart, strict=True) if there.sum() >= _ENOUGH]
        return float(torch.stack(medians).mean()) / (norm * 0.6745) if medians else sigma

    sigma = model.sigma
    for _ in range(_ROUNDS):
        # twice, and on by what the steps' ratio says of those to come (Aitken)
        steps = [sigma, once := told(sigma), told(once)]
        if min(steps) <= 0:
            break
        start, then, end = map(math.log, steps)
        way, bend = then - start, end - 2 * then + start
        on = -(way**2) / bend if abs(bend) > 1e-9 else way
        sigma *= math.exp(max(-_FAST, min(_FAST, on)))
        if abs(on) < _ALIKE:
            break
    return sigma


def as_expected(model: Clipped, picture: Tensor, known: Tensor | None = None) -> Tensor:
    """Return at which ends, (2, C), bool, the picture is as it is where noise was clipped.

    That is told by parts of 5 x 5 pixels within 1.2 standard deviations of an end: there are about as many pixels at
    the end as their brightness lets expect, and the others vary as much. It is so for no other noise that comes to an
    end: of few photons hardly any varies where it is dark, and where all was cut off, none does.
    """
    step = max(1, math.ceil(math.sqrt(picture.shape[2] * picture.shape[3] / _MOST)))

    def means(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, _SIDE, stride=step)[0].flatten(1)

    x = model.light(light := means(picture).double())
    _, deviation, there = model.moments(x)
    whole = torch.ones_like(light[:1]) if known is None else means(known[None, None].float())
    more = _SIDE**2 / (_SIDE**2 - 1)
    variance = more * (means(picture.square()).double() - light.square())
    told = model.clipped.clone()
    for end, (value, away) in enumerate(zip((model.first, model.last), model.away(x), strict=True)):
        at = means((picture == value[:, None, None].float()).float())
        near = (away > 0) & (away < _NEAR) & (whole == 1)
        for channel in told[end].nonzero().flatten():
            here = near[channel]
            if here.sum() < _ENOUGH:
                told[end, channel] = False
                continue
            share = at[channel, here].sum() / there[end, channel, here].sum()
            spread = (variance[channel, here] / deviation[channel, here].square()).median()
            told[end, channel] = all(_LESS < float(one) < _MORE for one in (share, spread))
    return told
