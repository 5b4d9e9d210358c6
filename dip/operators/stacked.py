"""Several measurements of one image, laid end to end: y and A x become vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip.errors import shown
from dip.operators.basic import Operator

__all__ = ["Stacked", "end_to_end", "parts"]


def parts(values: Any) -> list[Any] | None:
    """Return the members of a list, a tuple or the like (deepinv's TensorList); None for anything else."""
    if isinstance(values, (np.ndarray, Tensor, str, bytes, dict)) or not hasattr(values, "__getitem__"):
        return None
    return [values[i] for i in range(len(values))]


def end_to_end(members: Sequence[Any], shapes: Sequence[tuple[int, ...]], name: str) -> Any:
    """Return all values of several arrays, or of several tensors, as one vector.

    Parameters
    ----------
    members : sequence of ndarray, or of Tensor
        Each broadcasts to its shape.
    shapes : sequence of tuple of int
        As many.
    name : str
        What the messages call them.

    Raises
    ------
    TypeError, ValueError
        They are neither all arrays nor all tensors, not as many as the shapes, or of others.
    """
    if len(members) != len(shapes):
        raise ValueError(f"{name} has {len(members)} members; {len(shapes)} are needed, as many as y has")
    arrays = all(isinstance(one, np.ndarray) for one in members)
    if not members or not (arrays or all(isinstance(one, Tensor) for one in members)):
        raise TypeError(f"{name}={shown(members)}: give an array or a tensor, or a list of arrays, or of tensors")
    broadcast: Any = np.broadcast_to if arrays else torch.broadcast_to
    try:
        flat = [broadcast(one, shape).reshape(-1) for one, shape in zip(members, shapes, strict=True)]
    except (RuntimeError, ValueError):
        given = [tuple(one.shape) for one in members]
        raise ValueError(f"{name} has members of shapes {given}, but those of y are {list(shapes)}") from None
    return np.concatenate(flat) if arrays else torch.cat(flat)


class Stacked:
    """A forward operator that returns several tensors, as one that returns all their values in one vector.

    Parameters
    ----------
    operator : callable
        Returns a sequence of tensors.
    shapes : sequence of tuple of int
        Their shapes.

    Examples
    --------
    >>> both = Stacked(lambda x: [x, x.mean(dim=(2, 3))], [(1, 1, 2, 2), (1, 1)])
    >>> both(torch.ones(1, 1, 2, 2)).shape
    torch.Size([5])
    """

    def __init__(self, operator: Operator, shapes: Sequence[tuple[int, ...]]) -> None:
        self.operator, self.shapes = operator, [tuple(shape) for shape in shapes]

    def __call__(self, x: Tensor) -> Tensor:
        """Return A x, (N,).

        Raises
        ------
        TypeError, ValueError
            The operator returned no sequence of tensors, or tensors of other shapes.
        """
        found = self.operator(x)
        members = parts(found)
        if members is None:
            raise TypeError(f"forward returned {shown(found)}; y is a list, so a list of {len(self.shapes)} is needed")
        shapes = [tuple(one.shape) for one in members if isinstance(one, Tensor)]
        if shapes != self.shapes:
            raise ValueError(
                f"forward returned tensors of shapes {shapes}, but y has {self.shapes}; change shape= or the operator "
                "until they agree"
            )
        return torch.cat([one.flatten() for one in members])
