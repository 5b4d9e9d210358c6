"""`dip benchmark`: methods against each other, in one command."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from dip import batch, benchmark, datasets, devices, place_arguments, presets
from dip.benchmark import tasks
from dip.benchmark.pictures import by_mask, check_masks
from dip.callbacks import duration
from dip.console import Console
from dip.errors import unknown

__all__ = ["compare", "tell"]

# What one gets without --methods: nothing that has to be installed besides.
_DEFAULTS = {
    "denoise": ["fast", "nlm", "tv", "local-wiener"],
    "inpaint": ["paper", "biharmonic", "interpolation"],
    "deblur": ["fast", "richardson-lucy", "wiener"],
    "dejpeg": ["fast", "shifted"],
}
_BUNDLED, _SIZE = "photographs", 128  # pixels: a first look is not to take long
_LEAST = 16


def compare(args: argparse.Namespace, console: Console) -> int:
    """Run methods over a picture set; write results, tables and a page."""
    if args.scheduler is None:
        devices.resolve(args.device)
    protocol = _protocol(args)
    named = args.methods or _defaults(protocol)
    methods = benchmark.resolved([_method(name, args) for name in named], args.task)
    entries = _masked(_entries(args), protocol, args, console)
    place = place_arguments.place(args, console.say)
    jobs = len(entries) * sum(args.seeds if method.random else 1 for method in methods)
    counts = {"picture": len(entries), "method": len(methods), "job": jobs}
    counted = ", ".join(f"{number} {what}{'s' * (number != 1)}" for what, number in counts.items())
    console.say(f"{counted}. {protocol.words()}")

    try:
        progress = benchmark.run(
            entries,
            protocol,
            methods,
            args.output,
            name=str(args.set),
            seeds=range(args.seeds),
            device=args.device,
            iters=args.iters,
            pictures=not args.no_pictures,
            inputs=args.inputs,
            place=place,
            tell=lambda progress, job, record: tell(progress, record, console),
        )
    except KeyboardInterrupt:
        console.say("interrupted; the same command goes on from here")
        return 130
    page = benchmark.report(args.output, title=args.title)
    ended = {"done": progress.done, "there already": progress.kept, "failed": progress.failed}
    console.say(", ".join(f"{number} {what}" for what, number in ended.items() if number))
    console.say(f"{page}: open it in a browser; the tables are in results.md and results.csv beside it")
    return 1 if progress.failed else 0


def _defaults(protocol: benchmark.Protocol) -> list[str]:
    """The methods where none is named; of the presets the one that the task takes by itself."""
    if protocol.task == "super-resolve":
        return [presets.for_factor(protocol.parameters["factor"]), "bicubic"]
    return _DEFAULTS.get(protocol.task, [])


def _protocol(args: argparse.Namespace) -> benchmark.Protocol:
    given = {name: getattr(args, name) for name in ("sigma", "factor", "quality")}
    given["clip"] = False if args.unclipped else None
    if args.missing is not None:
        given["missing"] = args.missing if args.missing in ("text", "mask") else _share(args.missing)
    given = {name: value for name, value in given.items() if value is not None}
    takes = tasks.get(args.task).defaults
    for name in given:
        if name not in takes:
            option = {"clip": "--unclipped"}.get(name, f"--{name}")
            raise ValueError(f"{option} means nothing with --task {args.task}; leave it out, or name another task")
    size = args.size
    if size is not None and 0 < size < _LEAST:
        raise ValueError(f"--size {size} is too small for SSIM to mean something; take {_LEAST} at least, or 0 for all")
    if size is None and args.set == _BUNDLED:
        size = _SIZE
    return benchmark.Protocol(
        args.task,
        given,
        metric=args.metric,
        border=args.border,
        noise_seed=args.noise_seed,
        size=size or None,
    )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 < share < 1:
        raise ValueError(f"--missing {text} is neither a share between 0 and 1, such as 0.5, nor text or mask")
    return share


def _method(name: str, args: argparse.Namespace) -> benchmark.Method:
    if name != "reference":
        return benchmark.find(name)
    if args.reference is None:
        raise ValueError("method reference needs --reference FOLDER, a clone of DmitryUlyanov/deep-image-prior")
    return benchmark.find(name, checkout=str(args.reference.resolve()))


def _entries(args: argparse.Namespace) -> list[datasets.Entry]:
    try:
        entries = datasets.pictures(args.set, args.data, download=args.download)
    except FileNotFoundError as error:
        if args.data is not None:
            raise
        raise FileNotFoundError(f"{error}; --data DIR says where it is") from error
    if args.pictures is None:
        return entries
    by_name = {entry.name: entry for entry in entries}
    for name in args.pictures:
        if name not in by_name:
            raise unknown(f"picture of {args.set}", name, by_name)
    return [by_name[name] for name in args.pictures]


def _masked(
    entries: list[datasets.Entry], protocol: benchmark.Protocol, args: argparse.Namespace, console: Console
) -> list[datasets.Entry]:
    """Leave out the pictures of a set without a mask, where masks are wanted and nobody named the pictures."""
    if protocol.parameters.get("missing") != "mask":
        return entries
    able, lacking = by_mask(entries)
    if args.pictures is not None or not able:
        check_masks(entries)
    if lacking:
        without = ", ".join(entry.name for entry in lacking)
        console.say(f"{len(able)} of {len(entries)} pictures of {args.set} have masks; left out: {without}")
    return able


def tell(progress: batch.Progress, record: Mapping[str, Any], console: Console) -> None:
    """Say in one line how a job went, and how long the rest will take."""
    number = progress.total - progress.left
    seed = "" if record["seed"] is None else f", seed {record['seed']}"
    head = f"[{number}/{progress.total}] {record['image']}, {record['method']}{seed}"
    if record["status"] == "failed":
        console.error(record["error"], about=head)
        return
    figures, left = record["figures"], progress.seconds_left()
    rest = f"; about {duration(left)} left" if left and left > 1 else ""
    console.say(f"{head}: {figures['psnr']:.2f} dB, SSIM {figures['ssim']:.4f}, {record['seconds']:.1f} s{rest}")
