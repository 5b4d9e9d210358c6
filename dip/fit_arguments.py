"""What the options of a fit come to, and what is read for them."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dip import files, networks, noise_arguments, presets, stopping
from dip.codes import Image
from dip.deblurring import Deblur
from dip.decompression import Dejpeg
from dip.denoising import Denoise
from dip.inpainting import Inpaint
from dip.operators import JPEG, Blur, gaussian_psf
from dip.order import FitOrder
from dip.settings import Options
from dip.tasks import ImageTask, SuperResolve

__all__ = ["order", "psf"]


def psf(args: argparse.Namespace) -> np.ndarray:
    """Return the point spread function, (h, w), or (C, h, w) where its file has colours; warn of its looks, once.

    Raises
    ------
    ValueError, TypeError, OSError
        The file cannot be read, or is no such function.
    """
    found = gaussian_psf(args.psf_sigma) if args.psf is None else _psf_of(args.psf)
    Blur(found)  # which checks it, and warns
    return found


def _psf_of(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        try:
            found = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is no array of numbers that numpy.save has written; save the PSF anew") from error
        if not isinstance(found, np.ndarray):
            raise ValueError(f"{path} holds several arrays; save the PSF alone, with numpy.save")
        return found
    pixels = files.read(path, wide=True).pixels
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():  # gray, saved in colour
        pixels = pixels[..., 0]
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels


def _jpeg(args: argparse.Namespace, source: Path | None) -> int | JPEG | Path | None:
    """Return how a picture was compressed, as the options or its file tell; None where that is to be found."""
    if args.subsampling is not None and args.quality is not None:
        return JPEG(args.quality, subsampling=args.subsampling)
    if args.quality is not None:
        return int(args.quality)
    if args.subsampling is not None:
        raise ValueError("--subsampling means nothing without --quality: both are read in IN, or found in its pixels")
    return None if source is None or not files.is_jpeg(source) else source


def _check_lists(args: argparse.Namespace, network: dict[str, Any]) -> None:
    """Refuse lists of channels that are for another network.

    Raises
    ------
    ValueError
        They are.
    """
    of_task = args.command.replace("-", "_")
    usual = presets.get(of_task, args.preset).network if args.preset in presets.names(of_task) else "encoder-decoder"
    name = network.get("name", usual)
    has = ("down", "up", "skip") if name == "encoder-decoder" else ("channels",)
    wrong = [one for one in network if one not in ("name", *has)]
    if wrong and name in networks.names():
        given, allowed = (", ".join(f"--{one}" for one in some) for some in (wrong, has))
        raise ValueError(f"{given} means nothing for the network {name!r}; it has {allowed}")


def order(args: argparse.Namespace) -> FitOrder:
    """Return what the options come to.

    Raises
    ------
    ValueError, TypeError, OSError
        An option means nothing without another, or a file cannot be read.
    """
    command, data_range = args.command, args.data_range
    noise = noise_arguments.noise(args) if command in ("denoise", "deblur") else None

    def problem(pixels: np.ndarray, mask: np.ndarray | None, source: Path | None) -> ImageTask:
        if command == "inpaint":
            return Inpaint(pixels, mask, keep_known=args.keep_known, data_range=data_range)
        if command == "super-resolve":
            how = {"kernel": args.kernel, "kernel_sigma": args.kernel_sigma, "phase": args.phase}
            return SuperResolve(pixels, args.factor, **how, data_range=data_range)
        if command == "deblur":
            how = {"boundary": args.boundary, "damping": args.damping, "noise": noise}
            with warnings.catch_warnings():  # of the PSF's looks, which `psf` has said
                warnings.simplefilter("ignore", RuntimeWarning)
                return Deblur(pixels, args.blurred_by, **how, data_range=data_range)
        if command == "dejpeg":
            return Dejpeg(pixels, _jpeg(args, source), data_range=data_range)
        return Denoise(pixels, mask=mask, noise=noise, data_range=data_range)

    given = {"name": args.network, **{name: getattr(args, name) for name in ("down", "up", "skip", "channels")}}
    network: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _check_lists(args, network)
    if "down" in network:
        network.setdefault("up", network["down"])
    options: Options = {
        "preset": args.preset,
        "network": network or None,
        "code": None if args.code_image is None else Image(files.read(args.code_image).pixels),
        "jitter": args.jitter,
        "flips": args.flips,
        "loss": args.loss,
        "lr": args.lr,
        "average": args.average,
        "consistent": getattr(args, "consistent", None),
        "stop": _stop(args),
        "seed": args.seed or 0,
        "device": args.device,
        "precision": args.precision or "auto",
        "engine": args.engine or "auto",
        "tile": args.tile,
        "progress": False if args.quiet else None,
        "checkpoint": args.checkpoint or args.resume,
        "checkpoint_every": args.checkpoint_every,
    }
    return FitOrder(
        command=command,
        problem=problem,
        options=options,
        iters=args.iters,
        data_range=data_range,
        invert_mask=getattr(args, "invert_mask", False),
        keep_known=getattr(args, "keep_known", False),
        named={
            name: str(getattr(args, name))
            for name in ("psf", "psf_sigma", "quality", "subsampling")
            if getattr(args, name, None) is not None
        },
        save_every=args.save_every,
        resume=args.resume,
        force=args.force,
    )


def _stop(args: argparse.Namespace) -> stopping.Rule | None:
    by_variance = args.stop in ("windowed-variance", "moving-variance")
    if args.patience is not None and not by_variance:
        raise ValueError("--patience means nothing without --stop windowed-variance or moving-variance")
    if args.sigma is not None and args.stop != "discrepancy":
        raise ValueError("--sigma means nothing without --stop discrepancy")
    if args.earliest is not None and args.stop is None:
        raise ValueError("--earliest means nothing without --stop")
    given = {name: value for name in ("patience", "earliest") if (value := getattr(args, name)) is not None}
    if args.stop == "discrepancy":
        if args.sigma is None:
            raise ValueError("--stop discrepancy needs the noise level: add --sigma 25, on the scale of 0 to 255")
        if args.sigma >= 255:
            raise ValueError(f"--sigma {args.sigma:g}: noise is weaker than white, which is 255 here")
        return stopping.Discrepancy(args.sigma / 255, **given)
    return None if args.stop is None else stopping.BY_ITSELF[args.stop](**given)
