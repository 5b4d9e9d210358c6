"""The folder of a training: what is in it, and whether it may be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dip import storage

__all__ = [
    "CHECKPOINT",
    "CURVES",
    "METRICS",
    "SCHEMA",
    "WEIGHTS",
    "check_folder",
    "remove_earlier",
    "tensorboard_writer",
    "write_json",
]

WEIGHTS, METRICS, CHECKPOINT, CURVES = "weights.safetensors", "metrics.json", "checkpoint.safetensors", "curves.png"
SCHEMA = "dip-training-1"
"""What the metrics say they are."""


def check_folder(out: Path | None, *, resume: bool, force: bool, tensorboard: bool) -> None:
    """Refuse to replace an earlier training unless told to.

    Raises
    ------
    FileExistsError
        The folder has one.
    OSError
        It is no folder, or cannot be made or written.
    ValueError
        There is none, and it is needed.
    """
    if out is None:
        if tensorboard or resume:
            raise ValueError(f"{'tensorboard' if tensorboard else 'resume'}=True needs a folder: pass out=")
        return
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is not a folder; name one for the weights and metrics")
    if resume and not force and (out / METRICS).exists():
        raise FileExistsError(
            f"the training in {out} is finished, and has no more to do; for another one choose another folder, or "
            "replace it with force=True (--force) in place of resume"
        )
    found = [name for name in (METRICS, WEIGHTS, CHECKPOINT) if (out / name).exists()]
    if found and not force and not (resume and found == [CHECKPOINT]):
        go_on = ", go on with resume=True (--resume)" if found == [CHECKPOINT] else ""
        raise FileExistsError(
            f"{out / found[0]} exists; choose another folder{go_on}, or replace it with force=True (--force)"
        )
    storage.check_place(out / METRICS)


def remove_earlier(out: Path) -> None:
    """Remove an earlier training, so that nothing of it is taken for the new one's."""
    for name in (METRICS, WEIGHTS, CURVES, CHECKPOINT):
        (out / name).unlink(missing_ok=True)


def tensorboard_writer() -> Any:
    """Return TensorBoard's writer.

    Raises
    ------
    ImportError
        TensorBoard is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            'TensorBoard is missing; pip install "deep-image-prior[tensorboard]", or leave tensorboard out'
        ) from error
    return SummaryWriter


def write_json(path: Path, report: Any) -> None:
    """Write a report, whole or not at all; what is not finite, which JSON has no word for, becomes null."""
    storage.write_bytes(path, (json.dumps(storage.plain(report), indent=1) + "\n").encode())
