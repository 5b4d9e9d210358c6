"""A sweep: the same training for every combination of some options, one folder a run, and a comparison of them."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dip import storage
from dip.errors import shown
from dip.trained import curves
from dip.trained.outcome import CHECKPOINT, METRICS, SCHEMA, write_json
from dip.trained.pairs import decibels, digest
from dip.trained.recipe import Recipe
from dip.trained.training import Say, Training

__all__ = ["sweep"]

_PSNR = ("psnr_noisy", "psnr_against_clean", "highest_psnr_against_clean")
TABLE, PLOT, SUMMARY = "comparison.md", "comparison.png", "comparison.json"


def sweep(
    model: str,
    data: Any,
    grid: Mapping[str, Sequence[Any]],
    *,
    out: str | os.PathLike[str],
    device: str | torch.device = "auto",
    force: bool = False,
    tensorboard: bool = False,
    progress: bool | None = None,
    say: Say | None = None,
    about: dict[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train once for every combination of options.

    A run that is finished is not run again, and one that was cut off goes on from its checkpoint; so a sweep that was
    interrupted is repeated with the same call.

    Parameters
    ----------
    model, data
        See `dip.trained.train`.
    grid : mapping of str to sequence
        The values of each option that is swept, as in ``{"lr": [1e-2, 1e-3], "early_stopping": [True, False]}``.
    out : path
        Folder that takes a folder for each run, such as ``lr=0.01,early_stopping=on``, and the comparison as
        ``comparison.md`` (table), ``comparison.png`` (learning curves) and ``comparison.json``.
    device, tensorboard, progress, say, about
        See `dip.trained.Training`.
    force : bool
        Run again what is finished, or what is there with other settings.
    **options
        The options that all runs have; see `dip.trained.Recipe`.

    Returns
    -------
    list of dict
        The metrics of each run, in the order of the grid, with its "name"; fewer after Ctrl-C, where the last one's
        "stop_reason" is "interrupted".

    Raises
    ------
    ValueError, TypeError
        An option is swept and given, or a value is not what it should be: before the first run.
    FileExistsError
        A run of other settings or data is there.
    ImportError
        matplotlib is missing, for the curves.

    Examples
    --------
    >>> runs = sweep("cnn5", pictures, {"lr": [1e-3, 1e-4]}, out="runs", epochs=5)  # doctest: +SKIP
    """
    recipes = _recipes(model, grid, options)
    Recipe.check_use({**options, **grid})
    curves.figure_class()  # what is missing is said before the first run
    folder, known = Path(out), digest(data)
    finished = {} if force else {name: _finished(folder / name, recipe, known) for name, recipe in recipes.items()}
    reports = []
    for number, (name, recipe) in enumerate(recipes.items(), 1):
        head = f"[{number}/{len(recipes)}] {name}"
        report = finished.get(name)
        if report is not None:
            _tell(say, f"{head}: is there, and kept")
        else:
            going_on = (folder / name / CHECKPOINT).exists() and not force
            _tell(say, f"{head}: {'goes on' if going_on else 'begins'}")
            one = Training(
                recipe,
                data,
                out=folder / name,
                device=device,
                resume=going_on,
                force=force,
                tensorboard=tensorboard,
                progress=progress,
                say=say,
                about=about,
            ).run()
            report = one.report()
        reports.append({"name": name, **report})
        if report["stop_reason"] == "interrupted":
            break
        _compare(folder, model, list(grid), reports)
    histories = {report["name"]: report["history"] for report in reports}
    storage.write_bytes(folder / PLOT, curves.draw(histories, title=model))
    return reports


def _tell(say: Say | None, line: str) -> None:
    if say is not None:
        say(line)


def _recipes(model: str, grid: Mapping[str, Sequence[Any]], options: dict[str, Any]) -> dict[str, Recipe]:
    """The recipes by the names of their folders."""
    if not grid:
        raise ValueError('the grid of the sweep is empty; give an option and its values, as in {"lr": [1e-3, 1e-4]}')
    for name, values in grid.items():
        if name in options:
            raise ValueError(f"{name} is swept and given too; leave one of them out")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name} has no list of values to sweep over, but {shown(values)}")
    found: dict[str, Recipe] = {}
    for chosen in itertools.product(*grid.values()):
        given = dict(zip(grid, chosen, strict=True))
        name = ",".join(f"{key}={_word(value)}" for key, value in given.items())
        if name in found:
            raise ValueError(f"{name} is twice in the sweep; give each value once")
        found[name] = Recipe.made({"model": model, **options, **given})
    return found


def _word(value: Any) -> str:
    """A value as part of the name of a folder."""
    if isinstance(value, bool):
        return "on" if value else "off"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]", "-", text)


def _finished(folder: Path, recipe: Recipe, known: str) -> dict[str, Any] | None:
    """The metrics of a run that is finished; those of another one are refused."""
    path = folder / METRICS
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        theirs, whole = (report["recipe"], report["digest"]), report["schema"] == SCHEMA
    except (ValueError, KeyError, TypeError):
        whole, theirs = False, None
    if not whole or theirs != (json.loads(json.dumps(recipe.as_dict())), known):
        raise FileExistsError(
            f"{path} is of a training with other settings or data; choose another folder for the sweep, or replace it "
            "with force=True (--force)"
        )
    found: dict[str, Any] = report
    return found


def _compare(folder: Path, model: str, swept: list[str], reports: list[dict[str, Any]]) -> None:
    """Write the comparison of the runs so far."""
    rows = []
    for report in reports:
        figures, ended = report["figures"], report["stop_reason"]
        rows.append(
            [
                *(_word(report["recipe"][name]) for name in swept),
                _number(figures["validation_loss"], ".5g"),
                *(decibels(figures[name]) for name in _PSNR),
                f"{figures['epochs']}",
                f"{figures['kept_epoch']}",
                ended,
                f"{report['seconds']:.0f}",
            ]
        )
    values = [report["figures"]["psnr_against_clean"] for report in reports]
    finite = [value for value in values if isinstance(value, float) and value == value]
    for row, value in zip(rows, values, strict=True):
        if finite and value == max(finite):
            row[len(swept) + 2] = f"**{row[len(swept) + 2]}**"
    head = [*swept, "validation loss", "noisy (dB)", "restored (dB)", "highest (dB)", "epochs", "kept", "ended by", "s"]
    lines = [f"# {model}", "", _row(head), _row(["---"] * len(head)), *map(_row, rows), ""]
    lines.append(
        "PSNR of the noisy validation pictures against the clean ones: before, restored with the weights that are "
        "kept, and the highest of all epochs."
    )
    storage.write_bytes(folder / TABLE, ("\n".join(lines) + "\n").encode())
    kept = ("name", "recipe", "figures", "stop_reason", "seconds", "device", "date")
    write_json(folder / SUMMARY, [{key: report[key] for key in kept} for report in reports])


def _number(value: Any, form: str) -> str:
    return "" if value is None or value != value else format(value, form)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
