"""A recipe: everything that is chosen of a training, as data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from dip import devices
from dip.errors import non_negative_int, positive_float, positive_int, shown, unknown, yes_or_no
from dip.trained import architectures
from dip.trained.noise import Noise, read

__all__ = ["Recipe"]

METHODS = ("supervised", "noise2noise")
LOSSES = ("mse", "l1", "bce")
OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine", "step")
VALIDATE = ("noisy", "clean")
_SWITCHES = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
MOMENTUM = 0.9
"""Of SGD."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, and how; the same recipe, data, and number of threads give the same weights on a CPU.

    Attributes
    ----------
    model : str
        One of `dip.trained.names`.
    width : int or None
        Channels inside the model; its own by default.
    noise : str
        What the pictures are given anew at each step: "gaussian:25" (sigma on the scale of 0 to 255), "gaussian:0-55"
        (a range, from which each picture's level is drawn), "poisson:30" (photons at white), "impulse:0.1" (share of
        the values), "none".
    clip : bool
        Clip noisy values to [0, 1].
    method : {"supervised", "noise2noise"}
        From noisy to clean; or from one noisy copy to another one with noise of its own, no clean picture seen.
    loss : {"mse", "l1", "bce"}
        Mean squared error, mean absolute error, binary cross-entropy (for models that end in a sigmoid).
    optimizer : {"adam", "sgd"}
        SGD has a momentum of 0.9.
    lr : float
        Learning rate.
    schedule : {"constant", "cosine", "step"}
        Of the learning rate: "cosine" falls to 0 with the last step; "step" is a tenth after half of the epochs and a
        hundredth after three quarters.
    warmup : float
        Share of all steps, below 1, over which the learning rate rises from 0 to the schedule's.
    batch : int
        Pictures a step.
    epochs : int
        How often the pictures are gone through, at most.
    per_epoch : int or None
        Pictures an epoch; by default all there are, and for random patches 12,800.
    validation : float
        Share of the pictures that is held out, above 0 and below 1.
    validate : {"noisy", "clean"}
        What the model is given for the validation loss: noisy pictures, or clean ones, as the report on five-layer
        models did, whose noise layer was off outside training.
    early_stopping : bool
        End when the validation loss has not fallen for `patience` epochs.
    patience : int
        Epochs.
    restore_best : bool or None
        Return the weights of the epoch with the lowest validation loss rather than the last; by default with early
        stopping.
    augment : bool
        Turn and mirror the pictures at random.
    seed : int
        Everything random is drawn from it.
    precision : {"auto", "float32", "bfloat16"}
        Of the products; by default bfloat16 where the device multiplies it natively.
    """

    model: str
    width: int | None = None
    noise: str = "gaussian:25"
    clip: bool = False
    method: str = "supervised"
    loss: str = "mse"
    optimizer: str = "adam"
    lr: float = 1e-3
    schedule: str = "constant"
    warmup: float = 0.0
    batch: int = 32
    epochs: int = 10
    per_epoch: int | None = None
    validation: float = 0.1
    validate: str = "noisy"
    early_stopping: bool = False
    patience: int = 5
    restore_best: bool | None = None
    augment: bool = False
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self) -> None:
        architectures.create(self.model, **self.options, generator=torch.Generator())
        for name, allowed in (
            ("method", METHODS),
            ("loss", LOSSES),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("validate", VALIDATE),
            ("precision", devices.PRECISIONS),
        ):
            if getattr(self, name) not in allowed:
                raise unknown(name, getattr(self, name), allowed)
        for name in ("batch", "epochs", "patience"):
            positive_int(getattr(self, name), name)
        if self.per_epoch is not None:
            positive_int(self.per_epoch, "per_epoch")
        non_negative_int(self.seed, "seed")
        positive_float(self.lr, "lr")
        if positive_float(self.validation, "validation") >= 1:
            raise ValueError(f"validation must be a share below 1, not {self.validation:g}; pass one such as 0.1")
        if positive_float(self.warmup, "warmup", zero_ok=True) >= 1:
            raise ValueError(f"warmup must be a share below 1, not {self.warmup:g}; pass one such as 0.02")
        for name in ("clip", "early_stopping", "augment", *(["restore_best"] * (self.restore_best is not None))):
            yes_or_no(getattr(self, name), name)
        self._check_noise()

    def _check_noise(self) -> None:
        given = read(self.noise, clip=self.clip)
        if self.method == "noise2noise":
            if not given.always:
                raise ValueError(
                    f"noise={self.noise!r} leaves pictures clean, which noise2noise must not see; pass a level above "
                    '0, such as "gaussian:25" or "gaussian:5-55"'
                )
            if self.validate == "clean":
                raise ValueError('validate="clean" needs clean pictures, which noise2noise must not see; leave it out')
        if self.loss == "bce":
            if not architectures.create(self.model, **self.options, generator=torch.Generator()).bounded:
                raise ValueError(
                    f'loss="bce" needs a model that ends in a sigmoid, and {self.model} does not; take loss="mse", or '
                    "the hourglass or the autoencoder"
                )
            if self.method == "noise2noise" and not self.clip and given.kind != "impulse":
                raise ValueError(
                    'loss="bce" needs targets in [0, 1], which noise without clipping leaves; pass clip=True (--clip)'
                )

    @property
    def options(self) -> dict[str, Any]:
        """The options of the model."""
        return {} if self.width is None else {"width": self.width}

    @property
    def restores_best(self) -> bool:
        """Whether the best weights are returned rather than the last."""
        return self.early_stopping if self.restore_best is None else self.restore_best

    @property
    def noisy(self) -> Noise:
        """The noise itself."""
        return read(self.noise, clip=self.clip)

    def rate(self, done: float) -> float:
        """Return the learning rate when a share `done` of all steps, from 0 to 1, is behind."""
        share = 1.0 if done >= self.warmup else done / self.warmup
        if self.schedule == "cosine":
            share *= (1 + math.cos(math.pi * done)) / 2
        elif self.schedule == "step":
            share *= 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
        return self.lr * share

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON types, with which ``Recipe(**...)`` makes it again."""
        return asdict(self)

    @classmethod
    def value(cls, name: str, text: str) -> Any:
        """Read the value of an option from text, as the command line has it: "1e-3", "on", "none".

        Raises
        ------
        ValueError
            There is no such option, or the text is no value of it.
        """
        types = {field.name: str(field.type) for field in fields(cls) if field.name != "model"}
        if name not in types:
            raise unknown("option", name, types)
        kinds = types[name].split(" | ")
        if text.lower() == "none" and "None" in kinds:
            return None
        if "bool" in kinds:
            if text.lower() not in _SWITCHES:
                raise ValueError(f"{name}={text} is neither on nor off")
            return _SWITCHES[text.lower()]
        try:
            return int(text) if "int" in kinds else float(text) if "float" in kinds else text
        except ValueError:
            raise ValueError(f"{name}={text} is not a number") from None

    @staticmethod
    def check_use(options: dict[str, Any]) -> None:
        """Refuse options that would do nothing beside the others; those that are swept are among them.

        Raises
        ------
        ValueError
            There is a patience without early stopping.
        """
        if options.get("patience") is not None and not options.get("early_stopping"):
            raise ValueError(
                f"patience={shown(options['patience'])} means nothing without early stopping; give "
                "early_stopping=True (--early-stopping) too, or leave it out"
            )

    @classmethod
    def made(cls, options: dict[str, Any]) -> Recipe:
        """Make a recipe; an option that does not exist is refused with the nearest that does.

        Raises
        ------
        ValueError, TypeError
            An option is unknown or not what it should be.
        """
        allowed = [field.name for field in fields(cls)]
        for name in options:
            if name not in allowed:
                raise unknown("option", name, allowed)
        return cls(**options)
