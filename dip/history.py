"""What was recorded during a fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip.errors import shown


class History(Mapping[str, np.ndarray]):
    """Series of numbers by name, each value with the iteration it belongs to.

    ``history["loss"]`` is a float64 array with one loss an iteration; ``history.iterations("psnr")`` tells at
    which iterations (counted from 1) a sparser series was recorded. Values on an accelerator stay there until
    somebody reads them.

    Parameters
    ----------
    own : iterable of str
        Series that the fit records beside "loss" and "data_loss", and others may not (`note`).
    """

    def __init__(self, own: Iterable[str] = ()) -> None:
        self._own = {"loss", "data_loss", *own}
        self._iterations: dict[str, list[int]] = {}
        self._values: dict[str, list[float | Tensor]] = {}

    def record(self, iteration: int, **values: float | Tensor) -> None:
        """Add one value to each named series.

        Raises
        ------
        ValueError
            A tensor has more than one element.
        TypeError
            A value is no real number.
        """
        for name, value in values.items():
            if isinstance(value, Tensor):
                if value.numel() != 1:
                    raise ValueError(f"{name} has shape {tuple(value.shape)}; a series takes one number at a time")
                if value.is_complex():
                    raise TypeError(f"{name} is {value.dtype}; a series takes real numbers: record its abs(), say")
                # On a CPU it is there. Kept as tensors, such numbers lie between the large blocks that a fit frees and
                # takes again, and these come to fit no more: some megabytes an iteration.
                value = value.detach().reshape(())
                number: float | Tensor = value.item() if value.device.type == "cpu" else value.clone()
            else:
                number = _real(name, value)
            self._iterations.setdefault(name, []).append(iteration)
            self._values.setdefault(name, []).append(number)

    def note(self, iteration: int, **values: float | Tensor) -> None:
        """Add values to series that are not the fit's own (otherwise as `record`).

        Raises
        ------
        ValueError
            The fit records a series of that name itself.
        """
        taken = sorted(self._own & values.keys())
        if taken:
            raise ValueError(
                f"the fit records {' and '.join(taken)} itself, and the two would mix; give the series another name, "
                f"such as my_{taken[0]}"
            )
        self.record(iteration, **values)

    def extend(self, first: int, **values: Tensor) -> None:
        """Add to each named series the values (n,) of n iterations, of which this is the first."""
        for name, several in values.items():
            self._iterations.setdefault(name, []).extend(range(first, first + len(several)))
            self._values.setdefault(name, []).extend(several.detach().unbind())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._values:
            if not name.startswith("psnr"):
                advice = ""
            elif name in self._own:
                advice = "; in crops (tile=) the reference is looked at in every tenth pass over the tiles only"
            else:
                advice = "; give reference=, the clean image"
            raise KeyError(f"nothing was recorded as {name!r}, only {', '.join(self._values) or 'nothing yet'}{advice}")
        values = self._values[name]
        waiting = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
        if waiting:
            # One transfer for all that has gathered, not one each.
            gathered = torch.stack([values[i] for i in waiting])  # type: ignore[misc]
            fetched = gathered.cpu().double().tolist()
            for i, value in zip(waiting, fetched, strict=True):
                values[i] = value
        return np.array(values, dtype=np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def iterations(self, name: str) -> np.ndarray:
        """Return the iterations at which a series was recorded."""
        return np.array(self._iterations[name], dtype=np.int64)

    def last(self, name: str) -> float | None:
        """Return the latest value of a series, None where there is none."""
        return float(self._values[name][-1]) if self._values.get(name) else None

    def as_dict(self) -> dict[str, dict[str, list[Any]]]:
        """Return plain lists for JSON: {name: {"iteration": [...], "value": [...]}}, null for what is not finite."""
        return {
            name: {
                "iteration": list(self._iterations[name]),
                "value": [value if math.isfinite(value) else None for value in self[name].tolist()],
            }
            for name in self
        }

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the series as tensors."""
        return {
            name: {
                "iterations": torch.tensor(self._iterations[name], dtype=torch.int64),
                "values": torch.from_numpy(self[name]),
            }
            for name in self
        }

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Put back what `state_dict` returned."""
        self._iterations = {name: series["iterations"].tolist() for name, series in state.items()}
        self._values = {name: series["values"].tolist() for name, series in state.items()}


def _real(name: str, value: Any) -> float:
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name}={shown(value)}: a series takes one real number at a time")
