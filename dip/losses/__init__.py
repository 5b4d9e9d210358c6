r"""Data losses E(A x; y) and penalties on x.

A loss compares a prediction with an observation, element by element, and averages:

.. math:: E = \frac{\sum_j w_j \, \rho(|r_j|)}{\sum_j w_j}, \qquad r = prediction - observation,

with w = 1 everywhere unless weights are given. Residuals may be complex (k-space). Every loss is a small
frozen dataclass, so two of them can be compared and ``repr`` tells exactly which one was used.
"""

from __future__ import annotations

from dip.losses.of_tasks import OF_TASKS, BackProjection, Quantization
from dip.losses.penalties import Penalty, TotalVariation
from dip.losses.residuals import L1, MSE, Huber, Loss, Poisson, check_weight
from dip.losses.use import checked, create, gain, names, norm, of_picture

__all__ = [
    "L1",
    "MSE",
    "OF_TASKS",
    "BackProjection",
    "Huber",
    "Loss",
    "Penalty",
    "Poisson",
    "Quantization",
    "TotalVariation",
    "check_weight",
    "checked",
    "create",
    "gain",
    "names",
    "norm",
    "of_picture",
]
