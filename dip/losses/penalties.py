"""Penalties on x, which are added to the data loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch

from dip.errors import positive_float

__all__ = ["Penalty", "TotalVariation"]

Penalty = Callable[[torch.Tensor], torch.Tensor]
"""A penalty: ``penalty(x)`` of the image, returning a real scalar that is added to the data loss."""


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
