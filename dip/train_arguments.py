"""The options of `dip train`, and what its --data and --sweep mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dip.arguments import path, whole
from dip.trained import Recipe
from dip.trained.architectures import fixed
from dip.trained.noise import KINDS

__all__ = ["add_data", "add_run", "add_training", "recipe_options", "source", "sweep"]

SETS = ("cifar10", "mnist")
"""The data sets by name; anything else is a folder of pictures."""

_OF_RECIPE = (
    *("width", "noise", "clip", "method", "loss", "optimizer", "lr", "schedule", "warmup", "batch", "epochs"),
    *("per_epoch", "validation", "validate", "early_stopping", "patience", "restore_best", "augment", "seed"),
    "precision",
)
_DEFAULT = Recipe(model="cnn5")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, the pictures, and where the results go."""
    parser.add_argument("model", metavar="MODEL", help="one of those that dip models lists")
    group = parser.add_argument_group("data and files")
    group.add_argument(
        "--data",
        type=source,
        metavar="DATA",
        required=True,
        help="cifar10:FOLDER or mnist:FOLDER (the official files, or the archive); cifar10 or mnist alone (looked for "
        "in the folder DIP_DATA and in the cache); or a folder of pictures, from which patches are cut at random",
    )
    group.add_argument(
        "-o",
        "--output",
        type=path,
        metavar="OUT",
        required=True,
        help="folder for weights, metrics and curves",
    )
    group.add_argument("--download", action="store_true", help="fetch a data set that is not here, with its checksum")
    group.add_argument("--limit", type=whole(1), metavar="N", help="take the first N pictures only")
    group.add_argument(
        "--patch",
        type=whole(8),
        metavar="P",
        help="side of the patches from a folder, in pixels; default 40, or the next size that suits the model",
    )
    group.add_argument(
        "--gray", action="store_true", default=None, help="train on gray pictures; default for the autoencoder"
    )
    group.add_argument("--force", action="store_true", help="replace what OUT has of an earlier training")
    group.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT")
    group.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add what is chosen of the training; what is not given has the default of `Recipe`."""
    group = parser.add_argument_group("noise and loss")
    levels = "; ".join(f"{kind}: {about}" for kind, about in KINDS.items())
    group.add_argument(
        "--noise",
        metavar="KIND:LEVEL",
        help="drawn anew at each step; a level, or a range from which each picture's is drawn, as in gaussian:25 "
        f"(the default) or gaussian:5-55. {levels}",
    )
    _switch(group, "clip", "clip noisy values to [0, 1]", _DEFAULT.clip)
    group.add_argument(
        "--method",
        metavar="M",
        help="supervised (the default): from noisy to clean; noise2noise: from one noisy copy to another, no clean "
        "picture is seen, not by early stopping either (the PSNR that is shown is measured apart)",
    )
    group.add_argument(
        "--loss", metavar="L", help="mse (the default), l1, or bce (cross-entropy; hourglass and autoencoder)"
    )
    group = parser.add_argument_group("training")
    group.add_argument("--optimizer", metavar="O", help="adam (the default), or sgd (momentum 0.9)")
    group.add_argument("--lr", type=float, metavar="X", help=f"learning rate; default {_DEFAULT.lr:g}")
    group.add_argument(
        "--schedule",
        metavar="S",
        help="of the learning rate: constant (the default), cosine (to 0), or step (a tenth after half of the epochs, "
        "a hundredth after three quarters)",
    )
    group.add_argument("--warmup", type=float, metavar="X", help="share of the steps over which the rate rises from 0")
    group.add_argument("--batch", type=whole(1), metavar="N", help=f"pictures a step; default {_DEFAULT.batch}")
    group.add_argument("--epochs", type=whole(1), metavar="N", help=f"at most; default {_DEFAULT.epochs}")
    group.add_argument(
        "--per-epoch", type=whole(1), metavar="N", help="pictures an epoch; default all, of random patches 12800"
    )
    _switch(group, "augment", "turn and mirror the pictures at random", _DEFAULT.augment)
    group.add_argument(
        "--width",
        type=whole(1),
        metavar="N",
        help=f"channels inside the model; default: its own. {' and '.join(fixed('width'))} have no other",
    )
    group = parser.add_argument_group("validation and early stopping")
    group.add_argument(
        "--validation", type=float, metavar="SHARE", help=f"held out of training; default {_DEFAULT.validation:g}"
    )
    group.add_argument(
        "--validate",
        metavar="ON",
        help="noisy (the default): the validation loss is of noisy pictures; clean: of clean ones, as in a training "
        "whose noise layer is off outside of it",
    )
    _switch(group, "early-stopping", "end when the validation loss no longer falls", _DEFAULT.early_stopping)
    group.add_argument(
        "--patience", type=whole(1), metavar="N", help=f"epochs without a lower one; default {_DEFAULT.patience}"
    )
    _switch(group, "restore-best", "keep the weights of the lowest validation loss; default with early stopping", None)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add where it runs, and the sweep."""
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=whole(0), metavar="S", help="whatever is random comes from it; default 0")
    group.add_argument("--device", default="auto", metavar="D", help="auto (the default), cpu, cuda, cuda:1 or mps")
    group.add_argument(
        "--precision", metavar="P", help="auto (the default: bfloat16 where the device has it), float32 or bfloat16"
    )
    group.add_argument("--tensorboard", action="store_true", help="write the curves into OUT/tensorboard too")
    group.add_argument(
        "--sweep",
        action="append",
        type=sweep,
        metavar="NAME=V1,V2",
        help="train once for each value, and with several --sweep for each combination; any option of the training, "
        "as in --sweep lr=1e-2,1e-3 --sweep early_stopping=on,off. OUT gets a folder for each and a comparison; "
        "repeated, the command goes on with what is not finished",
    )


def recipe_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the training that were given, for `dip.trained.Recipe`."""
    return {name: getattr(args, name) for name in _OF_RECIPE if getattr(args, name) is not None}


def source(text: str) -> tuple[str, Path | None]:
    """Read --data: the name of a data set and its folder, or "folder" and a folder of pictures."""
    name, separator, folder = text.partition(":")
    if name in SETS:
        if separator and not folder:
            raise argparse.ArgumentTypeError(f"{text!r} has no folder after the colon; write {name}:FOLDER, or {name}")
        return name, Path(folder).expanduser() if folder else None  # behind a colon no shell does it
    return "folder", path(text)


def sweep(text: str) -> tuple[str, list[Any]]:
    """Read NAME=V1,V2."""
    name, separator, values = text.partition("=")
    name = name.replace("-", "_")
    if not separator or not values:
        raise argparse.ArgumentTypeError(f"{text!r} is not an option with its values, such as lr=1e-2,1e-3")
    try:
        return name, [Recipe.value(name, one) for one in values.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _switch(group: argparse._ArgumentGroup, name: str, about: str, default: bool | None) -> None:
    """An option with its opposite, None where it is not given."""
    known = "" if default is None else f"; default {'on' if default else 'off'}"
    group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=None, help=about + known)
