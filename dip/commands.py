"""What each command does, once its line has been understood; each returns an exit status."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dip import (
    arguments,
    batch,
    crops,
    demo,
    devices,
    files,
    fit_arguments,
    noise_arguments,
    place_arguments,
    presets,
    settings,
    stacks,
    stopping,
    trained,
)
from dip.checkpoint import check_free
from dip.console import Console, one_line
from dip.errors import unknown, warn
from dip.folder import Folder, partner
from dip.job import Restoration, known_pixels
from dip.order import EXPECTED, Failure, FitOrder, Job, Order, failing
from dip.parcels import Parcel
from dip.storage import check_place, same
from dip.trained_job import Application, TrainedOrder
from dip.work import Work, summary, write_report

__all__ = ["info", "restore", "restore_one", "show_models", "show_presets", "try_out"]

_PACKAGES = ("scikit-image", "pillow", "imageio", "tifffile", "scipy", "safetensors", "tqdm", "matplotlib")


def restore(args: argparse.Namespace, console: Console) -> int:
    """Denoise, inpaint, super-resolve, deblur or decompress a picture or a folder of them."""
    mask, psf = getattr(args, "mask", None), getattr(args, "psf", None)
    for path in (args.input, mask, psf, args.reference, args.resume, args.code_image):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{path} does not exist; check the name and the folder")
    if mask is None and getattr(args, "invert_mask", False):
        raise ValueError("--invert-mask means nothing without --mask")
    if mask is not None and stacks.is_stack(mask):
        raise ValueError(f"{mask} has several pages; a mask has one, for all pages of IN: save that one as a file")
    whole_folder = args.input.is_dir()
    if not whole_folder and stacks.is_stack(args.input):
        return _restore_stack(args, console)
    if whole_folder:
        if args.code_image is not None:
            raise ValueError(f"--code-image is for one picture and {args.input} is a folder; restore them one by one")
        for name in ("checkpoint", "checkpoint_every", "resume"):
            if getattr(args, name) is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')} is for one picture and {args.input} is a folder; leave it out: "
                    "repeated, the command goes on with the first picture whose result is not there"
                )
    else:
        for name in place_arguments.PLACES:
            if getattr(args, name):
                raise ValueError(f"--{name} is for a folder and {args.input} is one picture; leave it out")
        _check_single(args, mask)
        _warn_of_jpeg(args, args.output)
    if args.command == "deblur":
        args.blurred_by = fit_arguments.psf(args)  # the pixels, as workers need not see the file
    order, begin = _backend(_checked_here(args))
    if isinstance(order, FitOrder):
        settings = order.check()
        stopping.warn_if_blind(settings.stop, order.total(settings))
    if args.json is not None:
        # a folder's report is continued
        _check_report(args.json, force=args.force or whole_folder)
    if whole_folder:
        folder = Folder(
            args.input, args.output, order, begin, mask, args.reference, args.json, getattr(args, "anew", False)
        )
        lossy = [job.target for _, job in folder.jobs if isinstance(job, Job) and _is_jpeg(job.target)]
        if lossy:
            _warn_of_jpeg(args, lossy[0])
        place = place_arguments.place(args, console.say)
        if isinstance(place, batch.InProcess):
            return folder.run(console)
        return folder.run(console, place, partial(restore_one, args, _weights(order)))
    job = Job(args.input, args.output, mask, args.reference)
    try:
        work = begin(job)
        console.say(work.beginning)
        report = work.run(console.say)
    except Failure as failure:
        if args.json is not None:
            with failing():
                write_report(args.json, job.failed(one_line(failure)))
        raise
    console.say(summary(report))
    if work.interrupted and work.going_on is not None:
        console.say(work.going_on)
    if args.json is not None:
        with failing():
            write_report(args.json, report)
    return 130 if work.interrupted else 0


# Options that do not change what becomes of a page.
_ASIDE = {"input", "output", "reference", "json", "force", "quiet", "run", "traceback", *place_arguments.PLACES}
_FILES = ("psf", "model")  # further options that may name a file, of which the content counts


def _restore_stack(args: argparse.Namespace, console: Console) -> int:
    """Restore a TIFF of several pages, as a folder of them."""
    for name in ("checkpoint", "checkpoint_every", "resume", "save_every", "code_image", "reference"):
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is for one picture and {args.input} has several pages; leave it out")
    stack = stacks.Stack(args.input)
    if args.output.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"{args.input} has several pages, and {args.output} cannot hold them; name a .tif")
    mask = getattr(args, "mask", None)
    _check_single(args, None if mask is None or mask.is_dir() else mask)
    masks: list[Path] = []
    if mask is not None:
        masks = [partner(mask, Path(name)) for name in stack.names()] if mask.is_dir() else [mask]
    with warnings.catch_warnings():  # which its pages give
        warnings.simplefilter("ignore", RuntimeWarning)
        for one in masks:
            known_pixels(one, stack.page[:2], invert=args.invert_mask, keep_known=getattr(args, "keep_known", False))

    def pages(given: Path, done: Path) -> int:
        own = {"input": given, "output": done, "force": False, "anew": args.force and not done.exists()}
        if args.command == "denoise" and args.data_range is None and (white := stack.white(given)) is not None:
            if white < 65535:
                warn(f"the pages are uint16: their white is taken for {white:g}; if it is another, give data_range=")
            own["data_range"] = white
        return restore(argparse.Namespace(**{**vars(args), **own}), console)

    options = {name: str(value) for name, value in sorted(vars(args).items()) if name not in _ASIDE}
    for path in (*masks, *(Path(getattr(args, name, None) or "") for name in _FILES)):
        if path.is_file():
            options[str(path)] = stacks.digest(path)
    with console.alike(partial(stacks.numbered, stack, args.output)):
        status = stacks.restored(stack, args.output, options, pages, console.say, masked=mask is not None)
    if args.json is not None and not status:
        with failing():
            _name_pages(args.json, stack, args)
    return status


def _name_pages(path: Path, stack: stacks.Stack, args: argparse.Namespace) -> None:
    """Let a report of pages, whose own files are gone, name the stack and their numbers in it."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    fresh = [one for one in entries if one["input"] != str(args.input)]  # not of a run before
    of_pages = {Path(one["input"]).name: one for one in fresh}
    named = {"input": str(args.input), "output": str(args.output)}
    numbered = [(number, of_pages[name]) for number, name in enumerate(stack.names(), 1) if name in of_pages]
    write_report(path, [{**one, **named, "page": number} for number, one in numbered])


def restore_one(args: argparse.Namespace, weights: tuple[Path, bytes] | None, parcel: Parcel) -> batch.Outcome:
    """Restore one picture of a folder in a worker.

    Parameters
    ----------
    args : Namespace
        The command.
    weights : (Path, bytes) or None
        The file of the trained model, where there is one.
    parcel : Parcel
        The picture, and what belongs to it.

    Returns
    -------
    Outcome
        As `dip.folder.Folder.run` takes it.
    """
    record: dict[str, Any] = {}
    with parcel.unpacked() as here, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        args = argparse.Namespace(**{**vars(args), "quiet": True})  # several bars would write over each other
        if weights is not None:
            args.model = str(here.put("model", *weights))
        try:
            _, begin = _backend(args)
            report = begin(here.job).run(aside=True)
            record.update(status=report["status"], report=here.named(report))
        except EXPECTED as error:  # with what was written before it: the picture of a fit that diverged
            trace = here.named(traceback.format_exc())
            record.update(status="failed", error=here.named(one_line(error)), trace=trace)
        results = here.results()
        told = [str(one.message) for one in caught if issubclass(one.category, RuntimeWarning)]
        record["warnings"] = [here.named(text) for text in told]
    return batch.Outcome(record, results)


def _weights(order: Order) -> tuple[Path, bytes] | None:
    if not isinstance(order, TrainedOrder) or order.model.path is None:
        return None
    return order.model.path, order.model.path.read_bytes()


def _checked_here(args: argparse.Namespace) -> argparse.Namespace:
    """The command as it can be checked on this machine, which need not have the devices of Dask's workers."""
    if args.scheduler is None:
        return args
    return argparse.Namespace(**{**vars(args), "device": "auto", "precision": None})


def _backend(args: argparse.Namespace) -> tuple[Order, Callable[[Job], Work]]:
    """What is to be done, and what makes the work on one picture."""
    backend, model = getattr(args, "backend", "dip"), getattr(args, "model", None)
    if backend == "trained":
        for name in (*arguments.FIT_ONLY, *noise_arguments.NOISE):
            if getattr(args, name) is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')} means nothing with --backend trained, which fits nothing; leave it out"
                )
        if model is None:
            raise ValueError("--backend trained needs --model, a name or a file; dip models lists the names")
        applied = TrainedOrder(
            command=args.command,
            data_range=args.data_range,
            force=args.force,
            model=trained.load(model, device=args.device),
        )
        return applied, partial(Application, order=applied)
    if model is not None:
        raise ValueError("--model means nothing without --backend trained; --preset chooses the settings of a fit")
    fitted = fit_arguments.order(args)
    return fitted, partial(Restoration, order=fitted)


def show_presets(args: argparse.Namespace, console: Console) -> int:
    """Print the presets as a table."""
    task, tasks = args.task and args.task.replace("_", "-"), presets.task_names()
    if task is not None and task not in tasks:
        raise unknown("task", args.task, tasks)
    for one in tasks if task is None else [task]:
        command = f"dip {one}" if one != "reconstruct" else "dip.reconstruct (Python only)"
        console.say(f"{command}\n{presets.listing(one.replace('-', '_'))}")
    return 0


def info(args: argparse.Namespace, console: Console) -> int:
    """Print versions, devices, threads, precision and memory; with --size, what each preset takes of it."""
    here = devices.environment()
    lines = {name: here[name] for name in ("dip", "python", "torch", "numpy")}
    for package in _PACKAGES:
        try:
            lines[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            lines[package] = "not installed"
    lines |= {name: here[name] for name in ("platform", "processor")}
    lines["threads"] = f"{here['threads']} of {os.cpu_count()} (OMP_NUM_THREADS sets them)"
    for name, named in zip(devices.available(), here["devices"], strict=True):
        device = torch.device(name)
        free = devices.free_memory(device)
        memory = "unknown" if free is None else f"{free / 2**30:.1f} GiB"
        precision = str(devices.precision("auto", device)).removeprefix("torch.")
        default = ", taken by default" if name == devices.available()[0] else ""
        lines[f"device {named}"] = f"precision {precision}, free memory {memory}{default}"
    if args.size is not None:
        height, width = args.size
        device = devices.resolve()
        for name in presets.names():
            preset = presets.get(*name.split("/"))
            usual = _gib(preset, height, width, device)
            told = f"takes about {usual} on {device}"
            in_crops = max(args.size) > crops.USUAL and preset.task != "reconstruct"
            with_tiles = _gib(preset, height, width, device, crops.USUAL) if in_crops else None
            told += f", {with_tiles} with --tile {crops.USUAL}" if with_tiles not in (None, usual) else ""
            lines[f"{name}, {height} x {width}"] = told
    width = max(map(len, lines))
    console.say("\n".join(f"{name.ljust(width)}  {value}" for name, value in lines.items()))
    return 0


def _gib(preset: presets.Preset, height: int, width: int, device: torch.device, tile: int | None = None) -> str | None:
    needed = settings.memory(preset, (3, height, width), device, tile)
    return None if needed is None else f"{needed / 2**30:.2f} GiB"


def show_models(args: argparse.Namespace, console: Console) -> int:
    """Print the models that can be trained; of those in the package what they were trained on, and what they do."""
    cards, lines = trained.models(), []
    width = max(map(len, trained.names()))
    for name in trained.names():
        model = trained.create(name, generator=torch.Generator())
        count = sum(p.numel() for p in model.parameters())
        kind = "gray" if model.channels == 1 else "colour"
        card = cards.get(name)
        there = f"trained on {card['data']['kind']}, {card['recipe']['noise']}" if card else "to be trained (dip train)"
        lines.append(f"{name.ljust(width)}  {count:7,d} parameters, {kind}, sees {model.reach.field} pixels; {there}")
        for pictures, psnr in card["unseen"].items() if card else ():
            lines.append(f"{'':{width}}  {pictures}: {psnr['noisy']:.2f} -> {psnr['restored']:.2f} dB")
    console.say("\n".join(lines))
    return 0


def try_out(args: argparse.Namespace, console: Console) -> int:
    """Run the demo."""
    finished = demo.run(
        args.output,
        say=console.say,
        iters=args.iters,
        seed=args.seed,
        device=args.device,
        force=args.force,
        progress=not args.quiet,
    )
    return 0 if finished else 130


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg")


def _warn_of_jpeg(args: argparse.Namespace, target: Path) -> None:
    """Warn of a result that loses in its file what the command was to restore, or to keep."""
    if args.command == "dejpeg" and _is_jpeg(target):
        warn(f"{target} is a JPEG again, which loses anew; a .png keeps all of the result")
    elif getattr(args, "keep_known", False) and _is_jpeg(target):
        warn(f"{target} is a JPEG, which changes the known pixels, too; a .png keeps them as they are")


def _check_single(args: argparse.Namespace, mask: Path | None) -> None:
    """Look at the names of the files before any of them is read."""
    for option, path in (("--mask", mask), ("--reference", args.reference)):
        if path is not None and path.is_dir():
            raise IsADirectoryError(f"{option} {path} is a folder and {args.input} is not; name a picture")
    files.check_target(args.output, force=args.force)
    checkpoint = args.checkpoint
    check_free(checkpoint, args.resume)
    written = {"OUT": args.output, "--json": args.json, "the checkpoint": checkpoint or args.resume}
    given = {
        "IN": args.input,
        "--mask": mask,
        "--psf": getattr(args, "psf", None),
        "--reference": args.reference,
        "--code-image": args.code_image,
    }
    paths = [path.resolve() for path in written.values() if path is not None]
    if len(set(paths)) < len(paths):
        raise ValueError("OUT, --json and the checkpoint are different files; give each a name of its own")
    for name, path in written.items():
        for other, source in given.items():
            if same(path, source) and (name, other) != ("OUT", "IN"):
                raise ValueError(
                    f"{name} is the same file as {other} ({source}), which would be lost; choose another name"
                )


def _check_report(path: Path, *, force: bool) -> None:
    """Check that a report can be written."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; choose another name, or replace it with --force")
    check_place(path)
