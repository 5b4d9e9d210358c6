"""The questions in users' words, each answered by the restored image alone.

Each function makes the task of the same name (`dip.tasks`) and fits it; `dip.fit` returns the whole result instead.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack

import numpy as np
import torch
from torch import Tensor

from dip.problem import Problem
from dip.settings import Options
from dip.solver import fit
from dip.tasks import DataRange, Denoise, Inpaint, Reconstruct, SuperResolve

Array = TypeVar("Array", np.ndarray, Tensor)


def denoise(
    image: Array,
    *,
    iters: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    data_range: DataRange = None,
    channel_axis: int | None = None,
    **options: Unpack[Options],
) -> Array:
    """Remove noise from one image, without training data.

    Parameters
    ----------
    image, data_range, channel_axis
        See `Denoise`.
    iters : int, optional
        Iterations; 1800 by default (preset "paper"). On a CPU that takes a while: see the README.
    resume : path, optional
        Checkpoint to go on from.
    **options
        See `dip.settings.Options`: preset, seed, device, network, stop, checkpoint, ...

    Returns
    -------
    array
        The restored image: same kind, shape, dtype and range.

    Examples
    --------
    >>> restored = dip.denoise(noisy, iters=1800)  # doctest: +SKIP
    """

    def task(one: Any) -> Problem:
        return Denoise(one, data_range=data_range, channel_axis=channel_axis)

    return _restore(image, task, channel_axis, iters, resume, options)


def inpaint(
    image: Array,
    mask: Any,
    *,
    iters: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    keep_known: bool = True,
    data_range: DataRange = None,
    channel_axis: int | None = None,
    **options: Unpack[Options],
) -> Array:
    """Fill in the missing pixels of one image, without training data.

    Parameters
    ----------
    image, mask, keep_known, data_range, channel_axis
        See `Inpaint`. In `mask`, True or non-zero = the pixel is known.
    iters, resume, **options
        See `denoise`; 6001 iterations by default.

    Returns
    -------
    array
        The restored image: same kind, shape, dtype and range.

    Examples
    --------
    >>> restored = dip.inpaint(photo, mask=scratches == 0, iters=3000)  # doctest: +SKIP
    """

    def task(one: Any) -> Problem:
        return Inpaint(one, mask, keep_known=keep_known, data_range=data_range, channel_axis=channel_axis)

    return _restore(image, task, channel_axis, iters, resume, options)


def super_resolve(
    image: Array,
    factor: int,
    *,
    iters: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    kernel: str = "lanczos2",
    phase: float = 0.5,
    data_range: DataRange = None,
    channel_axis: int | None = None,
    **options: Unpack[Options],
) -> Array:
    """Enlarge one image, without training data.

    Parameters
    ----------
    image, factor, kernel, phase, data_range, channel_axis
        See `SuperResolve`.
    iters, resume, **options
        See `denoise`; 2000 iterations by default, 4000 from a factor of 6 on.

    Returns
    -------
    array
        `factor` times as high and wide; same kind, dtype and range.

    Examples
    --------
    >>> large = dip.super_resolve(small, factor=4)  # doctest: +SKIP
    """

    def task(one: Any) -> Problem:
        return SuperResolve(one, factor, kernel=kernel, phase=phase, data_range=data_range, channel_axis=channel_axis)

    return _restore(image, task, channel_axis, iters, resume, options)


def reconstruct(
    y: Array,
    *,
    forward: Callable[[Tensor], Tensor] | Any,
    shape: Sequence[int],
    iters: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    weight: Any = None,
    data_range: DataRange = 1.0,
    **options: Unpack[Options],
) -> Array:
    """Reconstruct an image from what a forward operator made of it, without training data.

    Parameters
    ----------
    y, forward, shape, weight, data_range
        See `Reconstruct`.
    iters, resume, **options
        See `denoise`; 2000 iterations by default.

    Returns
    -------
    array
        The image, float32 of `shape`: an array if y is one, else a tensor on y's device.

    Examples
    --------
    >>> image = dip.reconstruct(sinogram, forward=radon, shape=(1, 256, 256))  # doctest: +SKIP
    """
    return _image(Reconstruct(y, forward, shape, weight=weight, data_range=data_range), iters, resume, options)


def _restore(
    image: Any,
    task: Callable[[Any], Problem],
    channel_axis: int | None,
    iters: int | None,
    resume: Any,
    options: Options,
) -> Any:
    """Restore one image, or each of a batch (N, C, H, W) by a fit of its own."""
    if not (isinstance(image, Tensor) and image.ndim == 4 and len(image) > 1 and channel_axis is None):
        return _image(task(image), iters, resume, options)
    single = sorted({"checkpoint", "reference", "init"} & {k for k, v in options.items() if v is not None})
    if isinstance(options.get("network"), torch.nn.Module):  # its weights would go on from image to image
        single.append("network")
    if single or resume is not None:
        raise ValueError(
            f"image is a batch of {len(image)}, and {', '.join(single) or 'resume'} belongs to one image; call the "
            "function for each image"
        )
    return torch.stack([_image(task(one), iters, None, options) for one in image])


def _image(task: Problem, iters: int | None, resume: Any, options: Options) -> Any:
    done = fit(task, iters=iters, resume=resume, **options)
    if done.stop_reason == "interrupted":
        warnings.warn(
            f"interrupted: the image returned is that of iteration {done.iteration}",
            RuntimeWarning,
            stacklevel=3,
        )
    return done.image
