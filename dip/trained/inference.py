"""A trained denoiser, applied to pictures of any size, type and layout."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dip import devices, images, ranges
from dip.noise import noise_level
from dip.trained import store, tiles
from dip.trained.architectures import Autoencoder, Model

__all__ = ["Denoiser", "load", "models"]

Array = TypeVar("Array", np.ndarray, Tensor)


class Denoiser:
    """A trained model; call it with a picture. Made by `load`, or by the training.

    Parameters
    ----------
    model : Model
        With its weights.
    name : str
        Of the model.
    info : dict
        How it was trained.
    device : torch.device
        Where it computes.
    path : Path, optional
        The file that it comes from.

    Attributes
    ----------
    name, info, path
        As given.
    model : Model
        The network itself, in evaluation mode.
    channels : int
        Of the pictures that it was trained on: 1 (gray) or 3 (colour).
    parameters : int
        How many numbers were trained.
    """

    def __init__(
        self, model: Model, name: str, info: dict[str, Any], device: torch.device, path: Path | None = None
    ) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.name, self.info, self.path, self.device = name, info, path, device

    @property
    def channels(self) -> int:
        """Of the pictures that it was trained on."""
        return self.model.channels

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return sum(p.numel() for p in self.model.parameters())

    def __call__(
        self,
        image: Array,
        *,
        data_range: float | Sequence[float] | None = None,
        channel_axis: int | None = None,
        tile: int = tiles.TILE,
        overlap: int | None = None,
    ) -> Array:
        """Restore a picture.

        Parameters
        ----------
        image : ndarray or Tensor
            Of any size from 1 x 1 on; types, layouts and alpha as `dip.images.describe` says. A tensor (N, C, H, W) is
            N pictures.
        data_range : float or (float, float), optional
            Range of the clean picture; by default the integer type's (of uint16 that of 8 to 14 bits where all values
            have room in them, with a warning), and [0, 1] for floats.
        channel_axis : int, optional
            Where the channels are, if they are not in the usual place.
        tile, overlap : int
            See `dip.trained.tiles.plan`; by default tiles of 512 pixels a side that give the same numbers as the
            picture as a whole.

        Returns
        -------
        array
            Of the same kind, shape, dtype and range; its values lie in that range.

        Raises
        ------
        ValueError, TypeError
            The picture is none, or the tile is too small.
        """
        if images.is_batch(image, channel_axis):
            data_range = ranges.of_batch(image, data_range)  # type: ignore[arg-type]
            several: Any = [self(one, data_range=data_range, tile=tile, overlap=overlap) for one in image]
            return torch.stack(several)  # type: ignore[return-value]
        cut = tiles.plan(self.model, tile, overlap)
        layout = ranges.narrowed(image, images.describe(image, data_range=data_range, channel_axis=channel_axis))
        x = images.to_tensor(image, layout, fitted=False)
        ranges.warn_of(x, layout, math.inf)
        x = self.restore(x.to(self.device), cut)
        found: Any = images.from_tensor(x, layout, alpha_from=image)
        return found

    def restore(self, x: Tensor, cut: tiles.Plan | None) -> Tensor:
        """Restore x, (1, C, H, W) in [0, 1] on the model's device; as a whole where `cut` is None
        (`dip.trained.tiles`)."""
        model, channels = self.model, self.model.channels
        with torch.inference_mode():
            if x.shape[1] == channels:
                return tiles.apply(model, x, cut).clamp(0, 1)
            planes = []
            for plane in x.split(1, dim=1):  # one by one, so that a picture of many channels takes no more room
                found = tiles.apply(model, _in_colour(plane, channels), cut)
                planes.append(found.mean(dim=1, keepdim=True))
            return torch.cat(planes, dim=1).clamp(0, 1)

    def manner(self, channels: int) -> str:
        """Say in a few words how a picture of so many channels goes through the model; empty where it simply does."""
        if channels == self.channels:
            return ""
        kind = {1: "gray", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        how = "" if self.channels == 1 else f", as {self.channels} channels with noise in their colours, averaged"
        if channels == 1:
            return f"the {kind} model is applied to the gray picture{how}"
        return f"the {kind} model is applied to each of the {channels} channels by itself{how}"

    def encode(self, image: Array) -> Array:
        """Return the codes of a gray picture of 28 x 28 pixels (or 36, 44, ...); the autoencoder has them.

        Parameters
        ----------
        image : ndarray or Tensor
            One picture, (H, W).

        Returns
        -------
        array
            (8, h, w), float32; 8 x 4 x 4 for 28 x 28. An array where `image` is one.

        Raises
        ------
        ValueError
            The model has no encoder, or does not take the size.
        """
        if not isinstance(self.model, Autoencoder):
            raise ValueError(f"model {self.name!r} has no encoder; the autoencoder has one")
        layout = images.describe(image)
        if layout.channels != self.channels:
            raise ValueError(f"the picture has {layout.channels} channels, and the model takes {self.channels}")
        with torch.inference_mode():
            code = self.model.encode(images.to_tensor(image, layout, fitted=False).to(self.device))[0]
        found: Any = code.cpu().numpy() if isinstance(image, np.ndarray) else code
        return found


def _in_colour(plane: Tensor, channels: int) -> Tensor:
    """Return a gray plane, (1, 1, H, W), as a picture of so many channels, whose colours are as noisy as its gray.

    In equal channels all the noise is gray. A model that was trained on noise of each channel's own looks for it in the
    colours, finds none, and takes gray noise for structure: with sigma 25 it left nearly all (docs/trained.md).
    """
    if channels == 1:
        return plane
    drawn = torch.randn((1, channels, *plane.shape[2:]), generator=torch.Generator().manual_seed(0))
    # noise whose mean over C channels has the deviation σ has √C σ in each
    of_each = math.sqrt(channels) * noise_level(plane.cpu())
    return plane + (of_each * (drawn - drawn.mean(1, keepdim=True))).to(plane.device)


def load(model: str | os.PathLike[str], *, device: str | torch.device = "auto") -> Denoiser:
    """Load a trained denoiser.

    Parameters
    ----------
    model : str or path
        The name of a model whose weights come with the package (`dip.trained.models`), or a file that `dip train`
        wrote.
    device : str or torch.device
        Where it computes: "auto" takes CUDA, else Apple's MPS, else the CPU.

    Returns
    -------
    Denoiser
        Call it with a picture.

    Raises
    ------
    FileNotFoundError
        There is no such file, or the package has no weights of that model.
    ValueError
        The name is unknown; the file is damaged, cut short, a pickle, or of another kind or architecture.

    Examples
    --------
    >>> restored = load("cnn5-residual-bn")(noisy)  # doctest: +SKIP
    """
    place = devices.resolve(device)
    path = store.resolve(model)
    weights = store.read(path)
    return Denoiser(weights.model, weights.name, weights.info, place, path)


def models() -> dict[str, dict[str, Any]]:
    """List the trained models that come with the package, with their figures.

    Returns
    -------
    dict
        By name, the model card: "model", "parameters", "figures" (of the training), "unseen" (PSNR of pictures that
        were not seen, noisy and restored), "data", "recipe", "script", "seed", "device", "date", "licence", "sha256".

    Examples
    --------
    >>> for name, card in models().items():
    ...     print(name, card["unseen"])  # doctest: +SKIP
    """
    return store.listing()
