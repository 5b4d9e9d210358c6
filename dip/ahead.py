"""Several iterations of a recorded fit in a row: as many as nobody looks at.

What is left of Python in them is to have two graphs replayed and to keep the loss. That counts where a GPU has many
small fits at a time, in threads: Python lets one thread at a time go on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from dip import codes, devices, kept, optimizers

if TYPE_CHECKING:
    from dip.solver import Fit


def iterate(fit: Fit, goal: int) -> bool:
    """Do the iterations of a fit that come before one that somebody looks at; tell whether there were any."""
    made = fit._replays.made
    if made is None or not devices.asynchronous(fit.device) or fit.settings.stop is not None:
        return False
    if fit._replays.is_due(fit):
        return False
    count = min(_next_look(fit, goal) - 1 - fit.iteration, kept.MOST)
    if count < 1:
        return False
    started = time.perf_counter()
    with torch.inference_mode(False):
        optimizers.set_lr(fit._optimizer, fit.settings.lr * fit._guard.lr_factor)
        company = fit._replays.company
        together = 0 if company is None else company.go_on(fit, made, count)
        if together:
            count = together
        else:
            made.several(count)
        losses, data_losses, fit._output = made.last(count)
    fit.history.extend(fit.iteration + 1, loss=losses)
    if fit.settings.penalties:
        fit.history.extend(fit.iteration + 1, data_loss=data_losses)
    fit._watch.unchecked += losses.unbind()
    fit.iteration += count
    fit.seconds += time.perf_counter() - started
    return True


def _next_look(fit: Fit, goal: int) -> int:
    """Return the next iteration that is to be done by itself."""
    now, code = fit.iteration, fit.settings.code
    every = [fit._guard.every, *(getattr(callback, "every", 1) for callback in fit.callbacks)]
    if fit.settings.checkpoint is not None:
        every.append(fit.settings.checkpoint_every)
    if fit._flips.every is not None:
        every.append(fit._flips.every)
    looks = [goal, *(now - now % one + one for one in every), fit._replays.next_look(now)]
    if isinstance(code, codes.RENEWED) and code.renewed:
        looks.append(-(-now // code.renewed) * code.renewed + 1)
    if now <= fit._flips.after:
        looks.append(fit._flips.after + 1)
    return min(looks)
