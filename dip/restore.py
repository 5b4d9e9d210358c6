"""The questions in users' words.

`fit` fits a task and returns the whole result; each of the other functions makes the task of the same name, fits it,
and returns the restored image alone.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack

import numpy as np
import torch
from torch import Tensor

from dip import images, ranges, trained
from dip.checkpoint import check_free
from dip.deblurring import Deblur
from dip.decompression import Dejpeg
from dip.denoising import Denoise
from dip.errors import positive_int, unknown, warn
from dip.inpainting import Inpaint
from dip.noise import Noise
from dip.operators import JPEG
from dip.problem import Problem
from dip.reconstruction import Reconstruct
from dip.settings import Options, check_names
from dip.solver import Fit
from dip.stopping import warn_if_blind, warn_if_past
from dip.tasks import DataRange, SuperResolve

Array = TypeVar("Array", np.ndarray, Tensor)


def fit(
    task: Problem,
    *,
    iters: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    **options: Unpack[Options],
) -> Fit:
    """Fit a network to one observation.

    Parameters
    ----------
    task : Problem
        `dip.Denoise`, `dip.Inpaint`, `dip.SuperResolve`, `dip.Deblur`, `dip.Dejpeg` or `dip.Reconstruct`.
    iters : int, optional
        Iterations in all, those before a resumed checkpoint included; the preset's by default. Rules and flips="auto"
        ("fast") may end it before.
    resume : path, optional
        A checkpoint of the same fit to go on from.
    **options
        As for `dip.Fit`: preset, network, code, jitter, flips, optimize_code, loss, penalty, optimizer, lr, average,
        stop, tile, seed, device, precision, engine, init, reference, callbacks, progress, checkpoint, checkpoint_every.

    Returns
    -------
    Fit
        With `image`, `history`, `iteration`, `stop_reason`, `seconds`; ``fit.run(500)`` goes on.

    Raises
    ------
    ValueError, TypeError
        An option or value is not what it should be.
    FileExistsError
        The checkpoint file exists and is not resumed from.
    CheckpointError
        `resume` is damaged or belongs to another fit.
    MemoryError
        The fit would not find room.
    DivergenceError
        The fit diverged again and again.

    Examples
    --------
    >>> import dip
    >>> fit = dip.fit(dip.Denoise(noisy), iters=1800, seed=0)  # doctest: +SKIP
    >>> restored = fit.image  # doctest: +SKIP
    """
    for name in set(options) - set(Options.__annotations__):
        if name in _own(task.__init__):  # type: ignore[misc]
            raise TypeError(f"{name} belongs to the task: {type(task).__name__}(..., {name}=...)")
    check_names(dict(options), also=("iters", "resume"))
    if resume is not None and options.get("init") is not None:
        raise ValueError("init= and resume= are two ways to begin: with the weights of another fit, or where one was")
    total = None if iters is None else positive_int(iters, "iters")
    check_free(options.get("checkpoint"), resume)
    prepared = Fit(task, **options)
    if resume is not None:
        prepared.load(resume)
    total = prepared.settings.iters if total is None else total
    warn_if_blind(prepared.settings.stop, total)
    left = total - prepared.iteration
    warn_if_past(resume, prepared.iteration, total)
    if left <= 0 or prepared.stop_reason is not None:
        prepared.stop_reason = prepared.stop_reason or "iterations"
        return prepared
    return prepared.run(left)


def denoise(
    image: Array,
    *,
    iters: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    mask: Any = None,
    noise: Noise = None,
    data_range: DataRange = None,
    channel_axis: int | None = None,
    backend: str = "dip",
    model: str | os.PathLike[str] | None = None,
    **options: Unpack[Options],
) -> Array:
    """Remove noise from one image, without training data.

    Parameters
    ----------
    image, mask, noise, data_range, channel_axis
        See `Denoise`. For few photons, and for a camera's own noise: ``noise="poisson"``. Of dead pixels and the like:
        ``mask=known``, in which True or non-zero = the pixel is known.
    backend : {"dip", "trained"}
        "trained" applies a model that was trained on other pictures, for comparison (`dip.trained`); of the options
        below only `device` means something then, and the others are refused.
    model : str or path, optional
        For "trained": the name of a model (`dip.trained.models`), or a file that `dip train` wrote.
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
    check_names(dict(options), also=_own(denoise))
    if backend == "trained":
        one = _trained(model, {"iters": iters, "resume": resume, "mask": mask, "noise": noise, **options})
        return one(image, data_range=data_range, channel_axis=channel_axis)
    if backend != "dip":
        raise unknown("backend", backend, ("dip", "trained"))
    if model is not None:
        raise ValueError('model= means nothing without backend="trained"; preset= and network= are for a fit')

    if images.is_batch(image, channel_axis):
        data_range = ranges.of_batch(image, data_range, mask)  # type: ignore[arg-type]

    def task(one: Any) -> Problem:
        return Denoise(one, mask=mask, noise=noise, data_range=data_range, channel_axis=channel_axis)

    return _restore(image, task, channel_axis, iters, resume, options, mask)


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
    """Fill in the missing pixels of one image that has no noise, without training data.

    Of one that is noisy where it is known: ``dip.denoise(image, mask=mask, preset="fast")``.

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
    check_names(dict(options), also=_own(inpaint))

    def task(one: Any) -> Problem:
        return Inpaint(one, mask, keep_known=keep_known, data_range=data_range, channel_axis=channel_axis)

    return _restore(image, task, channel_axis, iters, resume, options, mask)


def super_resolve(
    image: Array,
    factor: int,
    *,
    iters: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    kernel: str = "lanczos2",
    kernel_sigma: float | None = None,
    phase: float = 0.5,
    data_range: DataRange = None,
    channel_axis: int | None = None,
    **options: Unpack[Options],
) -> Array:
    """Enlarge one image, without training data.

    Parameters
    ----------
    image, factor, kernel, kernel_sigma, phase, data_range, channel_axis
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
    check_names(dict(options), also=_own(super_resolve))

    def task(one: Any) -> Problem:
        return SuperResolve(
            one,
            factor,
            kernel=kernel,
            kernel_sigma=kernel_sigma,
            phase=phase,
            data_range=data_range,
            channel_axis=channel_axis,
        )

    return _restore(image, task, channel_axis, iters, resume, options)


def deblur(
    image: Array,
    psf: Any,
    *,
    iters: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    boundary: str = "mirror",
    damping: float | None = None,
    noise: Noise = None,
    data_range: DataRange = None,
    channel_axis: int | None = None,
    **options: Unpack[Options],
) -> Array:
    """Deconvolve one image whose point spread function is known, without training data.

    Parameters
    ----------
    image, psf, boundary, damping, noise, data_range, channel_axis
        See `Deblur`. For few photons: ``preset="fast", noise="poisson"``.
    iters, resume, **options
        See `denoise`; 2000 iterations by default.

    Returns
    -------
    array
        The restored image: same kind, shape, dtype and range.

    Examples
    --------
    >>> sharp = dip.deblur(image, psf, preset="fast")  # doctest: +SKIP
    """
    check_names(dict(options), also=_own(deblur))

    def task(one: Any) -> Problem:
        return Deblur(
            one, psf, boundary=boundary, damping=damping, noise=noise, data_range=data_range, channel_axis=channel_axis
        )

    return _restore(image, task, channel_axis, iters, resume, options)


def dejpeg(
    image: Array,
    jpeg: int | JPEG | str | os.PathLike[str] | None = None,
    *,
    iters: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    data_range: DataRange = None,
    channel_axis: int | None = None,
    **options: Unpack[Options],
) -> Array:
    """Restore what a JPEG has lost of one image, without training data.

    Parameters
    ----------
    image, jpeg, data_range, channel_axis
        See `Dejpeg`.
    iters, resume, **options
        See `denoise`; preset "fast" with its 600 iterations by default.

    Returns
    -------
    array
        The restored image: same kind, shape, dtype and range.

    Examples
    --------
    >>> restored = dip.dejpeg(photo)  # doctest: +SKIP
    """
    check_names(dict(options), also=_own(dejpeg))

    def task(one: Any) -> Problem:
        return Dejpeg(one, jpeg, data_range=data_range, channel_axis=channel_axis)

    return _restore(image, task, channel_axis, iters, resume, options)


def reconstruct(
    y: Array | Sequence[Array],
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
    check_names(dict(options), also=_own(reconstruct))
    return _image(Reconstruct(y, forward, shape, weight=weight, data_range=data_range), iters, resume, options)


def _own(function: Callable[..., Any]) -> set[str]:
    """Return the names of a function's own arguments."""
    return {p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD}


def _trained(model: str | os.PathLike[str] | None, options: dict[str, Any]) -> trained.Denoiser:
    """The trained model, after a look at the options, all but one of which are those of a fit."""
    device = options.pop("device", "auto")
    given = sorted(name for name, value in options.items() if value is not None)
    if given:
        raise ValueError(f'{", ".join(given)} means nothing with backend="trained", which fits nothing; leave it out')
    if model is None:
        raise ValueError(
            'backend="trained" needs model=, a name or a file; dip.trained.models() lists the names: '
            + (", ".join(trained.models()) or "none are in this version")
        )
    return trained.load(model, device=device)


def _restore(
    image: Any,
    task: Callable[[Any], Problem],
    channel_axis: int | None,
    iters: int | None,
    resume: Any,
    options: Options,
    mask: Any = None,
) -> Any:
    """Restore one image, or each of a batch (N, C, H, W) by a fit of its own; Ctrl-C ends the batch."""
    if not images.is_batch(image, channel_axis):
        return _image(task(image), iters, resume, options)
    single = sorted({"checkpoint", "reference", "init"} & {k for k, v in options.items() if v is not None})
    if isinstance(options.get("network"), torch.nn.Module):  # its weights would go on from image to image
        single.append("network")
    if set(tuple(getattr(mask, "shape", ()))[:-2]) - {1}:
        single.append("mask")
    if single or resume is not None:
        raise ValueError(
            f"image is a batch of {len(image)}, and {', '.join(single) or 'resume'} belongs to one image; call the "
            "function for each image"
        )
    restored = []
    for one in image:
        done = fit(task(one), iters=iters, **options)
        restored.append(done.image)
        if done.stop_reason == "interrupted":
            count = f"{len(restored)} of {len(image)} images"
            warn(f"interrupted: returned are the first {count}, the last of them as at iteration {done.iteration}")
            break
    return torch.stack(restored)


def _image(task: Problem, iters: int | None, resume: Any, options: Options) -> Any:
    done = fit(task, iters=iters, resume=resume, **options)
    if done.stop_reason == "interrupted":
        warn(f"interrupted: the image returned is that of iteration {done.iteration}")
    return done.image
