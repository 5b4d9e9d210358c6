"""Forward operators A: from the restored image x to what the observation y should have been."""

from __future__ import annotations

from dip.operators.basic import Identity, Mask, Operator, as_operator
from dip.operators.downsample import Downsample

__all__ = ["Downsample", "Identity", "Mask", "Operator", "as_operator"]
