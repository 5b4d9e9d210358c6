"""Deep Image Prior as a method of the benchmark: every preset, the stopping rules, and the means of two fits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from dip import presets, stopping
from dip.benchmark.methods import Method, find, picture, planes, register, register_suffix
from dip.benchmark.tasks import Case
from dip.callbacks import Every
from dip.settings import Options
from dip.solver import Fit

__all__ = ["deep"]

_TASKS = {name.replace("-", "_"): name for name in ("denoise", "inpaint", "super-resolve", "deblur", "dejpeg")}
# since these a method of that name is another
_ENDS, _FILTERED = ", which may end the fit", ", of what is filtered"
_POINTS = 100  # of a curve
_LONGEST = 5000  # iterations that the variance rules were published with


def deep(
    case: Case,
    *,
    preset: str,
    stop: str | None = None,
    runs: int = 1,
    beside: str | None = None,
    iters: int | None = None,
) -> np.ndarray:
    """Fit a network to the degraded picture.

    Parameters
    ----------
    case : Case
        What was observed.
    preset : str
        The settings.
    stop : {"windowed-variance", "moving-variance", "residual-fall", "discrepancy"}, optional
        When to stop before the last iteration.
    runs : int
        The mean of so many fits with different seeds is returned.
    beside : str, optional
        The settings of one more fit, of which the mean is, too.
    iters : int, optional
        Iterations; by default those of each preset. The case's own count goes first.

    Returns
    -------
    ndarray
        The average of the outputs, as `dip.fit` returns it.
    """
    problem = case.problem(case)
    settings = [*[preset] * runs, *([] if beside is None else [beside])]
    pictures, curves, ends = [], {}, []
    for run, one in enumerate(settings):
        total = case.iters or iters or presets.get(problem.task, one).iters
        options: Options = {
            "preset": one,
            "stop": _rule(stop, case),
            "seed": case.seed * len(settings) + run,
            "device": case.device,
            "progress": False,
            "callbacks": [Every(max(1, total // _POINTS), _Curve(case.clean))],
        }
        fit = Fit(problem, **options)
        fit.run(total)
        if fit.stop_reason == "interrupted":
            raise KeyboardInterrupt
        pictures.append(picture(fit.image, case))
        for name in ("psnr", "psnr_output"):
            values = [round(float(value), 3) for value in fit.history[name]]
            series = {"iteration": fit.history.iterations(name).tolist(), "value": values}
            curves[name + f", fit {run + 1}" * (len(settings) > 1)] = series
        ends.append({"iterations": fit.iteration, "stop_reason": fit.stop_reason, "recoveries": len(fit.recoveries)})
    case.log.update(curves=curves, fits=ends, precision=fit.settings.precision, device=str(fit.device))
    return np.mean(pictures, axis=0)


class _Curve:
    """Record the PSNR of the average and of the output, over all channels."""

    def __init__(self, clean: np.ndarray) -> None:
        self._clean = planes(clean)

    def __call__(self, fit: Fit) -> None:
        clean = self._clean = self._clean.to(fit.device)
        for name, x in (("psnr", fit.picture), ("psnr_output", fit.output)):
            fit.record(**{name: -10 * torch.log10(torch.mean((fit.compose(x) - clean) ** 2))})


def _rule(name: str | None, case: Case) -> stopping.Rule | None:
    if name == "discrepancy":
        if not case.sigma:
            raise ValueError("the discrepancy principle needs the level of the noise, and this task has none")
        return stopping.Discrepancy(case.sigma)
    return None if name is None else stopping.BY_ITSELF[name]()


def _stopped(rule: str, method: Method) -> Method:
    """A method with a stopping rule."""
    if method.function is not deep:
        raise ValueError(f"{rule} is a stopping rule for fits, and {method.name} is none")
    options: dict[str, Any] = {**method.options, "stop": rule}
    told = method.told
    if rule == "discrepancy":
        told = "sigma"
    else:
        options["iters"] = _LONGEST
    return method.varied(f"stopped by {rule}", options=options, told=told)


def _twice(method: Method) -> Method:
    if method.function is not deep:
        raise ValueError(f"+twice is the mean of two fits, and {method.name} is none")
    return method.varied("mean of two fits", options={**method.options, "runs": 2})


def _beside(other: Method, method: Method) -> Method:
    """A method whose result is the mean with a fit of other settings, whose errors are less like its own."""
    if method.function is not deep:
        raise ValueError(f"+{other.name} is the mean with a fit of these settings, and {method.name} is none")
    able = tuple(task for task in method.tasks if task in other.tasks)
    return method.varied(
        f"mean with a fit of {other.name}",
        tasks=able,
        options={**method.options, "beside": other.name},
        identity={task: f"{method.identity_for(task)}; {other.identity_for(task)}" for task in able},
    )


def _words(one: presets.Preset) -> str:
    """Return what a preset does, as it stands in the identity of a method."""
    filtered = one.loss == "back-projection"
    return repr(replace(one, about="")) + _ENDS * (one.flips == "auto") + _FILTERED * filtered


def _enter() -> None:
    by_name: dict[str, list[presets.Preset]] = {}
    for full in presets.names():
        one = presets.get(*full.split("/"))
        if one.task in _TASKS and one.code is not None:  # else it needs a second picture
            by_name.setdefault(one.name, []).append(one)
    for name, found in by_name.items():
        register(
            name,
            *(_TASKS[one.task] for one in found),
            about={_TASKS[one.task]: f"Deep Image Prior: {one.about}" for one in found},
            options={"preset": name},
            random=True,
            identity={_TASKS[one.task]: _words(one) for one in found},
        )(deep)
    for rule in (*stopping.BY_ITSELF, "discrepancy"):
        register_suffix(rule, lambda method, rule=rule: _stopped(rule, method))  # type: ignore[misc]
    register_suffix("twice", _twice)
    for name in ("paper", "fast"):
        register_suffix(name, partial(_beside, find(name)))


_enter()
