"""The optimisers by name, and their state in a form that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from dip.errors import unknown
from dip.networks import cuda

_Name = TypeVar("_Name")
NAMES = ("adam", "lbfgs")
HISTORY = 100  # steps that LBFGS remembers
LR = {"adam": 0.01, "lbfgs": 1.0}  # where neither the call nor the preset has one for that optimiser
MOMENTS = {"adam": 2, "lbfgs": 2 * HISTORY + 2}  # copies of all weights that each keeps, for the memory estimate


def check(name: str) -> str:
    """Return the name if it is known.

    Raises
    ------
    ValueError
        It is not.
    """
    if name not in NAMES:
        raise unknown("optimizer", name, NAMES)
    return name


def create(name: str, parameters: Sequence[Tensor], lr: float) -> torch.optim.Optimizer:
    """Create an optimiser.

    Parameters
    ----------
    name : {"adam", "lbfgs"}
        LBFGS remembers 100 steps, does one iteration a step, and searches along its line with the strong Wolfe
        conditions.
    parameters : sequence of Tensor
        What to optimise, all on one device.
    lr : float
        Learning rate; for LBFGS the first step length that is tried.
    """
    if check(name) == "lbfgs":
        return torch.optim.LBFGS(
            parameters,
            lr=lr,
            max_iter=1,
            history_size=HISTORY,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )
    return torch.optim.Adam(parameters, lr=lr, fused=parameters[0].device.type in ("cpu", "cuda"))


def state_dict(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return copies of the state, by the number of the parameter it belongs to."""
    states = live_state(optimizer)
    if not isinstance(optimizer, torch.optim.Adam):
        return {name: _copy(state) for name, state in states.items()}
    there = {(name, key): value for name, state in states.items() for key, value in state.items()}
    found: dict[str, Any] = {name: {} for name in states}
    for (name, key), value in copies(there).items():
        found[name][key] = value
    return found


def live_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state itself, by the number of the parameter it belongs to."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {str(i): optimizer.state[p] for i, p in enumerate(parameters) if p in optimizer.state}


def copies(tensors: dict[_Name, Tensor]) -> dict[_Name, Tensor]:
    """Return copies of tensors, on a GPU with few calls."""
    kinds: dict[tuple[torch.device, torch.dtype], list[_Name]] = {}
    for name, tensor in tensors.items():
        kinds.setdefault((tensor.device, tensor.dtype), []).append(name)
    found: dict[_Name, Tensor] = {}
    for (device, dtype), names in kinds.items():
        together = [tensors[name].detach() for name in names]
        at_once = device.type == "cuda" and dtype in (torch.float32, torch.int64)
        made = torch._foreach_mul(together, 1) if at_once else [one.clone() for one in together]
        found.update(zip(names, made, strict=True))
    return {name: found[name] for name in tensors}


def load_state_dict(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on from `state`, which may come from another device; in the tensors that are here, where they are the same."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    here = dict(optimizer.state)
    optimizer.state.clear()
    for i, p in enumerate(parameters):
        if str(i) in state:
            optimizer.state[p] = _copied(here.get(p, {}), state[str(i)], p)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Take another learning rate from the next step on."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            if group.get("filled") != lr:
                group["lr"].fill_(lr)
                group["filled"] = lr
        else:
            group["lr"] = lr


def recordable(optimizer: torch.optim.Optimizer, on: bool) -> None:
    """Let steps of Adam be recorded in a CUDA graph, its learning rate a tensor that is read at each replay; or not."""
    for group in optimizer.param_groups:
        lr = float(group["lr"])
        group["lr"] = torch.tensor(lr, dtype=torch.float32, device=group["params"][0].device) if on else lr
        group["capturable"] = on
        group.pop("filled", None)  # what its tensor has


def carry_over(optimizer: torch.optim.Optimizer, earlier: torch.optim.Optimizer) -> None:
    """Begin with the moments of an earlier fit's Adam, where both are Adam over weights of the same shapes.

    Adam's first step without moments is as long as the learning rate for every weight, whatever its gradient: it
    undoes most of what an earlier fit had learned. (What LBFGS remembers is the curvature of the other objective.)
    """
    if not isinstance(optimizer, torch.optim.Adam) or not isinstance(earlier, torch.optim.Adam):
        return
    ours, theirs = ([p.shape for group in o.param_groups for p in group["params"]] for o in (optimizer, earlier))
    if ours == theirs:
        load_state_dict(optimizer, state_dict(earlier))


def _copied(here: dict[str, Any], state: dict[str, Any], like: Tensor) -> dict[str, Any]:
    """Copy the state of a parameter into the tensors it has, or into new ones where one is missing or another."""
    alike = here.keys() == state.keys() and all(
        isinstance(value, Tensor) and isinstance(here[name], Tensor) and here[name].shape == value.shape
        for name, value in state.items()
    )
    if not alike:
        return {name: _copy(value, like) for name, value in state.items()}
    return {name: here[name].copy_(value) for name, value in state.items()}


def _copy(value: Any, like: Tensor | None = None) -> Any:
    """Copy a nested state; tensors go to the device and, where they have its shape, the memory layout of `like`."""
    if isinstance(value, dict):
        return {key: _copy(item, like) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item, like) for item in value]
    if not isinstance(value, Tensor):
        return value
    if like is not None and value.shape == like.shape:
        return torch.empty_like(like, requires_grad=False).copy_(value)
    return value.clone() if like is None else value.to(like.device, copy=True)


def _lies_like(p: Tensor, t: Any) -> bool:
    """Tell whether a tensor is in memory as a parameter is: in float32, its values in the same order."""
    if not isinstance(t, Tensor) or t.shape != p.shape or t.dtype != torch.float32:
        return False
    return all(n == 1 or a == b for n, a, b in zip(p.shape, t.stride(), p.stride(), strict=True))


PART = 4096  # values of a parameter that a block takes


def steps(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """Return what does the next steps of an optimiser whose gradients stay where they are in memory.

    PyTorch's Adam takes several calls, for few threads each; on a GPU there is a kernel of the package's own. It does
    the same step.
    """
    if not isinstance(optimizer, torch.optim.Adam) or len(optimizer.param_groups) != 1:
        return optimizer.step
    (group,) = optimizer.param_groups
    rows, counts = [], []
    for p in group["params"]:
        state = optimizer.state[p]
        four = [p, p.grad, state.get("exp_avg"), state.get("exp_avg_sq")]
        if not all(map(partial(_lies_like, p), four)) or not (
            p.is_contiguous() or p.is_contiguous(memory_format=torch.channels_last)
        ):
            return optimizer.step
        if state["step"].dtype != torch.float32:
            return optimizer.step
        counts.append(state["step"])
        for first in range(0, p.numel(), PART):
            places = [t.data_ptr() + 4 * first for t in four]
            rows.append([*places, counts[-1].data_ptr(), min(PART, p.numel() - first)])
    like = counts[0]
    others = [group[name] for name in ("weight_decay", "amsgrad", "maximize")]
    if any(others) or not isinstance(group["lr"], Tensor) or not cuda.works(like.device):
        return optimizer.step
    table, kernels = torch.tensor(rows, device=like.device), cuda.program(like.device, torch.float32, 4)
    counted = torch.tensor([one.data_ptr() for one in counts], device=like.device)
    one, other = group["betas"]
    given = table, group["lr"], 1 - one, 1 - other, group["eps"]

    def step() -> None:
        kernels.launch("count", 1, (128, 1), 0, (counted, len(counts)))
        kernels.launch("adam", len(rows), (512, 1), 0, given)

    return step
