"""What `dip train` does, once its line has been understood."""

from __future__ import annotations

import argparse
from typing import Any

from dip import datasets, trained
from dip.console import Console
from dip.train_arguments import recipe_options
from dip.trained.architectures import default_channels
from dip.trained.outcome import CHECKPOINT, WEIGHTS
from dip.trained.pairs import decibels

__all__ = ["train"]

_PATCH = 40


def train(args: argparse.Namespace, console: Console) -> int:
    """Train a model, or sweep over options of its training; returns an exit status."""
    options = recipe_options(args)
    grid = _grid(args)
    trained.Recipe.made({"model": args.model, **options})  # what is wrong is said before the pictures are read
    trained.Recipe.check_use({**options, **grid})
    if grid and args.resume:
        raise ValueError("--resume is for one training; a sweep goes on by itself when the command is repeated")
    data, about = _pictures(args)
    given: dict[str, Any] = {
        "out": args.output,
        "device": args.device,
        "force": args.force,
        "tensorboard": args.tensorboard,
        "progress": False if args.quiet else None,
        "say": console.say,
        "about": {"data": about},
        **options,
    }
    if grid:
        runs = trained.sweep(args.model, data, grid, **given)
        if runs[-1]["stop_reason"] == "interrupted":
            console.say("interrupted; to go on, repeat the command")
            return 130
        console.say(f"{args.output / 'comparison.md'}: {len(runs)} trainings")
        return 0
    done = trained.train(args.model, data, resume=args.resume, **given)
    if done.stop_reason == "interrupted":
        console.say(f"interrupted; {args.output / CHECKPOINT}: to go on, repeat the command with --resume")
        return 130
    figures = done.figures
    if done.stop_reason == "diverged" and not done.best_epoch:
        console.error("the training diverged in its first epoch; take a lower --lr")
        return 1
    ended = {"diverged": "diverged, ", "early stopping": "stopped early, "}.get(str(done.stop_reason), "")
    console.say(
        f"{args.output / WEIGHTS}: {ended}epoch {figures['kept_epoch']} of {figures['epochs']}, PSNR "
        f"{decibels(figures['psnr_noisy'])} -> {decibels(figures['psnr_against_clean'])} dB on the validation pictures"
    )
    return 0


def _grid(args: argparse.Namespace) -> dict[str, list[Any]]:
    grid: dict[str, list[Any]] = {}
    for name, values in args.sweep or ():
        if name in grid:
            raise ValueError(f"--sweep {name} is given twice; list all its values in one")
        grid[name] = values
    return grid


def _patch(model: str, given: int | None) -> int:
    """The side of the patches: as given, or the usual one, or the next up that suits the model."""
    side = _PATCH if given is None else given
    suits = trained.create(model).padded_size(side, side)[0]
    if given is not None and suits != given:
        raise ValueError(f"--patch {given} is no size that {model} is trained on; give --patch {suits}, say")
    return suits


def _pictures(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The pictures, and what a report says of them."""
    kind, folder = args.data
    for name in ("patch", "gray"):
        if kind != "folder" and getattr(args, name) is not None:
            raise ValueError(
                f"--{name} is for a folder of pictures, and {kind} has pictures of its own kind; leave it out"
            )
    if kind == "folder":
        if args.download:
            raise ValueError(f"--download is for cifar10 and mnist, and {folder} is a folder of pictures; leave it out")
        gray = default_channels(args.model) == 1 if args.gray is None else args.gray
        patch, channels = _patch(args.model, args.patch), 1 if gray else 3
        patches = datasets.Patches(folder, patch, channels=channels, limit=args.limit)
        about = {
            "kind": "patches",
            "folder": folder.name,
            "pictures": len(patches),
            "patch": patch,
            "channels": channels,
        }
        return patches, about
    read = datasets.cifar10 if kind == "cifar10" else datasets.mnist
    pictures, _ = read(folder, train=True, limit=args.limit, download=args.download)
    return pictures, {"kind": kind, "pictures": len(pictures), "size": list(pictures.shape[1:])}
