"""Denoisers that were trained on data as methods of the benchmark: those of the package by name, others by file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dip import devices
from dip.benchmark.methods import Method, picture, planes, register_family
from dip.benchmark.tasks import Case
from dip.trained import Denoiser, architectures, store, tiles

__all__ = ["Trained", "find", "names"]

_FILE = "trained="


@dataclass(frozen=True)
class Trained:
    """A trained model, to be called with a case; it carries the weights to wherever it is called.

    Attributes
    ----------
    file : str
        Where the weights are from, for messages.
    data : bytes
        The file.
    """

    file: str
    data: bytes = field(repr=False)

    def __call__(self, case: Case, *, weights: str) -> np.ndarray:
        """Denoise a picture.

        Parameters
        ----------
        case : Case
            The noisy picture, which need not be clipped.
        weights : str
            SHA-256 of the file; stands in the records, and tells jobs of other weights apart.

        Returns
        -------
        ndarray
            As the noisy picture.
        """
        found = store.parse(self.data, self.file)
        device = devices.resolve(case.device)
        denoiser = Denoiser(found.model, found.name, found.info, device)
        y = planes(case.y)
        restored = denoiser.restore(y.to(device), tiles.plan(denoiser.model))[0].cpu().numpy()
        case.log.update(
            device=str(device),
            parameters=denoiser.parameters,
            trained={
                "model": found.name,
                "weights": weights,
                "noise": _noise(found.info),
                "recipe": found.info.get("recipe"),
                "data": found.info.get("data"),
                "manner": denoiser.manner(y.shape[1]) or None,
            },
        )
        return picture(restored, case)


def find(name: str) -> Method | None:
    """Return the method of a model of the package, or of "trained=FILE"; None if a name is neither.

    Raises
    ------
    FileNotFoundError
        The package has no weights of that model, or there is no such file.
    ValueError
        The file is damaged, or none of weights.
    """
    if name.startswith(_FILE):
        path = store.resolve(name.removeprefix(_FILE) or os.curdir)
    elif name in store.packaged():
        path = store.packaged()[name]
    elif name in architectures.names():
        raise FileNotFoundError(
            f"method {name}: this version of the package has no weights of that model; train it (dip train {name} "
            f"--data ...) and name the file: {_FILE}OUT/weights.safetensors"
        )
    else:
        return None
    data = store.read_bytes(path)
    found = store.parse(data, path)
    return Method(
        name,
        Trained(str(path), data),
        ("denoise",),
        about=_about(found.name, found.info),
        options={"weights": hashlib.sha256(data).hexdigest()},
        told=f"trained on {_noise(found.info)}",
    )


def names() -> dict[str, str]:
    """Return the models whose weights come with the package, and how to name others."""
    cards = store.listing()
    return {name: _about(card["model"], card) for name, card in cards.items()} | {
        f"{_FILE}FILE": "trained model: weights that dip train wrote"
    }


def _about(model: str, info: dict[str, Any]) -> str:
    return f"trained model {model}: on {_noise(info)}"


def _noise(info: dict[str, Any]) -> str:
    """What a model was trained on, in a few words."""
    recipe = info.get("recipe") or {}
    noise, method = str(recipe.get("noise", "unknown noise")), recipe.get("method", "supervised")
    parts = ["clean pictures" if noise == "none" else noise]
    parts += ["clipped"] * bool(recipe.get("clip"))
    parts += [str(method)] * (method != "supervised")
    return ", ".join(parts)


register_family(find, names, "denoise")
