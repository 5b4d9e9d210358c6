"""Data sets: what denoisers are trained on, and the picture sets of benchmarks."""

from __future__ import annotations

from dip.datasets.cifar import cifar10
from dip.datasets.idx import mnist
from dip.datasets.patches import Patches
from dip.datasets.sets import Entry, names, pictures

__all__ = ["Entry", "Patches", "cifar10", "mnist", "names", "pictures"]
