"""The command line: `dip denoise`, `inpaint`, `super-resolve`, `deblur`, `dejpeg`, `train`, `benchmark`, ..."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from dip import (
    arguments,
    benchmark_arguments,
    commands,
    comparison,
    demo,
    noise_arguments,
    place_arguments,
    presets,
    train_arguments,
    train_command,
)
from dip._version import __version__
from dip.console import Console
from dip.errors import unknown
from dip.guard import DivergenceError
from dip.job import Failure

__all__ = ["main"]

_ABOUT = """\
Deep Image Prior: restore a picture by fitting an untrained network to it. No training data: the only
picture it looks at is the one to be restored.

examples:
  dip demo                                              see what it does, in about a minute
  dip denoise photo.png -o restored.png
  dip inpaint photo.png --mask known.png -o restored.png
  dip super-resolve small.png --factor 4 -o large.png
  dip deblur cells.tif --psf psf.tif -o sharp.tif --preset fast"""

_STATUS = """\
exit status: 0; 1 if a picture failed; 2 if the command was wrong; 130 after Ctrl-C (the picture so far is
written, and the checkpoint; pictures at hand in workers are begun anew by the same command)"""

_FILES = """\
PNG, JPEG, TIFF, BMP and WebP are read, of 8 or 16 bits, and TIFFs of 32-bit floats; PNG, JPEG (of quality 95) and
TIFF are written. Depth, alpha, ICC profile, resolution, EXIF and XMP of IN are kept, and from TIFF to TIFF of one size
what ImageJ or OME say; texts of a PNG and comments of a JPEG are not. If IN is a folder, all pictures in it and below
it, but for TIFFs of several pages, are restored one after the other, and OUT is a folder that gets the same tree;
results that exist are kept, so a run that was interrupted can be repeated. If IN is a TIFF of several pages, each is
restored as a picture of its own, and OUT is a TIFF with the same axes; the pages that are done are kept in a folder
beside it until all are."""

_PLACES = """\
The pictures of a folder, or the pages of a TIFF, may be restored several at a time: small ones, and thin networks,
leave cores idle. Only this process reads and writes files. A worker that dies costs no more than another try of its
picture. What --save-every writes comes with the result."""

_DENOISE = f"""\
Remove noise from a picture or from every picture in a folder. (For what JPEG left of one: dip dejpeg.)

Pixels that are no picture, dead ones or lines that were not scanned, are BLACK (0) in the --mask, and are filled in
with the rest; see dip inpaint.

{_FILES}"""

_DENOISE_EXAMPLES = """\
examples:
  dip denoise photo.png -o restored.png
  dip denoise photo.png -o restored.png --preset fast                  in a small part of the time
  dip denoise cells.tif -o restored.tif --preset fast --noise poisson  few photons, or a camera's own noise
  dip denoise cells.tif -o restored.tif --preset fast --mask dead.png --invert-mask       dead pixels are white in it
  dip denoise noisy/ -o restored/ --reference clean/ --json report.json
  dip denoise noisy/ -o restored/ --scheduler tcp://10.0.0.1:8786      on the workers of a Dask cluster
  dip denoise photo.png -o other.png --backend trained --model cnn5    by a trained model, for comparison
  dip denoise photo.png -o restored.png --checkpoint photo.ckpt        may be killed and resumed:
  dip denoise photo.png -o restored.png --resume photo.ckpt"""

_INPAINT = f"""\
Fill in the missing pixels of a picture, or of every picture in a folder. Those that are known have no noise, or keep
it: of a noisy picture, dip denoise --mask takes it off all.

The mask is a picture of the same size: WHITE (any value but 0) = the pixel is KNOWN, BLACK (0) = it is missing
and is filled in; --invert-mask turns this round. The values of a float TIFF are weights of the known pixels, up to 1.

{_FILES}"""

_INPAINT_EXAMPLES = """\
examples:
  dip inpaint photo.png --mask known.png -o restored.png
  dip inpaint photo.png --mask scratches.png --invert-mask -o restored.png
  dip inpaint photo.png --mask hole.png -o restored.png --preset paper-hole"""

_SUPER_RESOLVE = f"""\
Enlarge a picture, or every picture in a folder, by a whole factor.

{_FILES}"""

_SUPER_RESOLVE_EXAMPLES = """\
examples:
  dip super-resolve small.png --factor 4 -o large.png
  dip super-resolve small.png --factor 4 -o large.png --preset fast    better, and in a small part of the time
  dip super-resolve small.png --factor 2 --kernel box -o large.png"""

_DEBLUR = f"""\
Deconvolve a picture, or every picture in a folder, whose point spread function (PSF) is known: the image of a point,
measured or a Gaussian.

{_FILES}"""

_DEBLUR_EXAMPLES = """\
examples:
  dip deblur cells.tif --psf psf.tif -o sharp.tif
  dip deblur cells.tif --psf psf.tif -o sharp.tif --preset fast        better, and in a small part of the time
  dip deblur photo.png --psf-sigma 1.6 -o sharp.png --preset fast
  dip deblur counts.tif --psf psf.tif -o sharp.tif --preset fast --noise poisson        of few photons"""

_DEJPEG = f"""\
Restore what JPEG has lost of a picture, or of every picture in a folder: its blocks, and the rings about its edges.

How IN was compressed is read in it. Of one that is no JPEG any more (saved as a PNG since) it is found in the pixels,
which must not have been resized, turned or changed. The results of a folder are PNGs, as those of any IN should be.

{_FILES}"""

_DEJPEG_EXAMPLES = """\
examples:
  dip dejpeg photo.jpg -o restored.png
  dip dejpeg photos/ -o restored/ --workers 2
  dip dejpeg screenshot.png --quality 30 -o restored.png               a JPEG of that quality once, and no longer"""

_TRAIN = """\
Train a denoiser on pictures, for comparison with a fit (dip denoise --backend trained). OUT is a folder that gets the
weights (weights.safetensors, with everything that was chosen), the metrics (metrics.json) and the learning curves
(curves.png, with matplotlib). A training that was interrupted goes on with --resume; on a CPU to the same bits."""

_TRAIN_EXAMPLES = """\
examples:
  dip train cnn5-residual-bn --data cifar10:cifar-10-batches-bin --noise gaussian:25 --epochs 5 -o runs/cnn5
  dip train hourglass --data cifar10 --download --method noise2noise --batch 1000 --lr 0.002 -o runs/hourglass
  dip train dncnn --data pictures/ --patch 40 --noise gaussian:0-55 --augment --epochs 50 -o runs/dncnn
  dip train cnn5 --data cifar10 --sweep lr=1e-2,1e-3 --sweep early_stopping=on,off -o runs/sweep
  dip denoise photo.png -o restored.png --backend trained --model runs/cnn5/weights.safetensors"""

_TRAIN_STATUS = """\
exit status: 0; 1 if the training diverged; 2 if the command was wrong; 130 after Ctrl-C (the checkpoint is
written)"""

_BENCHMARK = """\
Compare methods on the same degraded pictures: PSNR, SSIM, seconds and memory, as JSON lines, CSV, Markdown and one
page for a browser, with the pictures before and after.

A run that was interrupted goes on where it was when the command is repeated, and several runs may work in one FOLDER
at the same time: what is finished is never run again."""

_BENCHMARK_EXAMPLES = """\
examples:
  dip benchmark -o report/ --workers 2            the bundled photographs, 4 methods, in some minutes
  dip benchmark --list                            picture sets, tasks and methods
  dip benchmark --set set9 --data DIR --methods paper,paper+twice,bm3d --seeds 3 --workers 2 -o set9/
  dip benchmark --methods fast,trained=runs/mine/weights.safetensors -o mine/
  dip benchmark --task super-resolve --factor 8 --set set5 --scheduler tcp://10.0.0.1:8786 -o x8/"""


_BENCHMARK_STATUS = """\
exit status: 0; 1 if a job failed; 2 if the command was wrong; 130 after Ctrl-C (what is finished is kept: repeat the
command)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        What follows `dip` on the command line; by default that of the process.

    Returns
    -------
    int
        The exit status: 0; 1 if a picture failed; 2 if the command was wrong; 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        After --help and --version, and where the command line cannot be understood.

    Examples
    --------
    >>> main(["denoise", "photo.png", "-o", "restored.png"])  # doctest: +SKIP
    0
    """
    try:
        try:
            args = _parse(sys.argv[1:] if argv is None else list(argv))
        finally:
            sys.stdout.flush()  # of what --help and --list print
    except BrokenPipeError:
        return _unread()
    console = Console(quiet=getattr(args, "quiet", False), traceback=args.traceback)
    with console.warnings():
        try:
            status = args.run(args, console)
            sys.stdout.flush()
            return int(status)
        except KeyboardInterrupt:
            console.error("interrupted; there was no picture yet")
            return 130
        except BrokenPipeError:
            return _unread()
        except (Failure, DivergenceError, MemoryError) as failure:
            console.error(failure)
            return 1
        except (ValueError, TypeError, OSError, ImportError) as error:
            console.error(error)
            return 2


# ---------------------------------------------------------------------- the words of the command line


class _Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and says in one line what is wrong."""

    def __init__(self, **options: object) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,  # type: ignore[arg-type]
        )

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            option = message.removeprefix("argument ").partition(":")[0].rpartition("/")[2]
            message += f" (one that begins with a minus is written as in {option}=-1,1)"
        self.exit(2, f"dip: error: {message}; see {self.prog} --help\n")


def _unread() -> int:
    """Print nothing more: whoever read the output has seen enough. Return the exit status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser, commands_by_name = _build()
    first = next((word for word in argv if not word.startswith("-")), None)
    if first is not None and first not in commands_by_name:
        parser.error(str(unknown("command", first, commands_by_name)))
    if first is not None:  # before argparse, which tells first of what is missing
        after = argv[argv.index(first) + 1 :]
        _check_options([word for word in after if word.startswith("--") and " " not in word], first, commands_by_name)
    args, left = parser.parse_known_args(argv)
    if args.command is None:
        parser.error("which command? one of " + ", ".join(commands_by_name))
    _check_options([word for word in left if word.startswith("-")], args.command, commands_by_name)
    for word in left:
        commands_by_name[args.command].error(f"{word!r} is one name too many; quote names with spaces")
    return args


def _check_options(words: list[str], name: str, commands_by_name: dict[str, _Parser]) -> None:
    """Refuse the first word that is no option of a command; what is behind a lone -- is none."""
    command = commands_by_name[name]
    for word in words:
        given = word.partition("=")[0]
        if given == "--":
            return
        if given == "-" or given in command._option_string_actions:
            continue
        owners = [name for name, one in commands_by_name.items() if given in one._option_string_actions]
        if owners:
            has_loss = "--loss" in command._option_string_actions
            counts = "; of counts, take --loss poisson" if given == "--noise" and has_loss else ""
            command.error(f"{given} is an option of dip {' and dip '.join(owners)}, not of this command{counts}")
        options = [name for name in command._option_string_actions if name.startswith("--")]
        message = str(unknown("option", given, options))
        command.error(message.partition(" allowed:")[0].rstrip(";"))


def _build() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(prog="dip", description=_ABOUT, epilog=_STATUS)
    parser.add_argument("--version", action="version", version=f"dip {__version__}")
    found = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def command(name: str, run: Callable[..., int], about: str, usage: str, text: str, *tail: str) -> _Parser:
        one: _Parser = found.add_parser(
            name, help=about, usage=f"dip {name} {usage}", description=text, epilog="\n\n".join(tail)
        )
        one.set_defaults(run=run)
        return one

    denoise = command(
        "denoise",
        commands.restore,
        "remove noise",
        "IN -o OUT [options]",
        _DENOISE,
        _DENOISE_EXAMPLES,
        _STATUS,
    )
    inpaint = command(
        "inpaint",
        commands.restore,
        "fill in missing pixels",
        "IN --mask M -o OUT [options]",
        _INPAINT,
        _INPAINT_EXAMPLES,
        _STATUS,
    )
    enlarge = command(
        "super-resolve",
        commands.restore,
        "enlarge by a whole factor",
        "IN --factor F -o OUT [options]",
        _SUPER_RESOLVE,
        _SUPER_RESOLVE_EXAMPLES,
        _STATUS,
    )
    sharpen = command(
        "deblur",
        commands.restore,
        "deconvolve, with a known blur",
        "IN (--psf FILE | --psf-sigma X) -o OUT [options]",
        _DEBLUR,
        _DEBLUR_EXAMPLES,
        _STATUS,
    )
    unpack = command(
        "dejpeg",
        commands.restore,
        "restore what JPEG has lost",
        "IN -o OUT [options]",
        _DEJPEG,
        _DEJPEG_EXAMPLES,
        _STATUS,
    )
    for one in (denoise, inpaint, enlarge, sharpen, unpack):
        group = arguments.add_files(one)
        if one in (denoise, sharpen):
            noise_arguments.add(one)
        if one is denoise:
            arguments.add_backend(one)
            arguments.add_consistent(
                group,
                "by what the fit has left of IN that is more than noise, and where noise was clipped at black or white",
                "without detail that it has not found, and too bright or dark near black or white",
            )
        if one in (denoise, inpaint):
            arguments.add_mask(group, noisy=one is denoise)
        if one is enlarge:
            arguments.add_factor(group)
        if one is sharpen:
            arguments.add_psf(group)
            arguments.add_consistent(group)
        if one is unpack:
            arguments.add_jpeg(group)
            arguments.add_consistent(group, advice="which need not be a picture that IN could have been")
        arguments.add_fit(one)
        arguments.add_stop(one)
        arguments.add_long(one)
        place_arguments.add(one, "pictures of a folder", _PLACES)

    train = command(
        "train",
        train_command.train,
        "train a denoiser on pictures, for comparison",
        "MODEL --data DATA -o OUT [options]",
        _TRAIN,
        _TRAIN_EXAMPLES,
        _TRAIN_STATUS,
    )
    train_arguments.add_data(train)
    train_arguments.add_training(train)
    train_arguments.add_run(train)
    text = "List the models that can be trained, and of those that come with the package the figures."
    command("models", commands.show_models, "list the trained models", "", text)
    text = "List the settings by task and name: the experiments of the paper."
    one = command("presets", commands.show_presets, "list the settings by name", "[TASK]", text)
    one.add_argument("task", nargs="?", metavar="TASK", help="one of " + ", ".join(presets.task_names()))
    text = "Print versions, devices with their precision and free memory, and the number of threads."
    one = command("info", commands.info, "versions, devices, threads, memory", "[--size HxW]", text)
    one.add_argument(
        "--size", type=arguments.size, metavar="HxW", help="also the memory that each preset takes, in colour"
    )
    one = command("demo", commands.try_out, "see what it does", "[options]", demo.ABOUT, demo.EXAMPLES, _STATUS)
    arguments.add_demo(one)
    one = command(
        "benchmark",
        comparison.compare,
        "compare methods on a picture set",
        "-o FOLDER [options]",
        _BENCHMARK,
        _BENCHMARK_EXAMPLES,
        _BENCHMARK_STATUS,
    )
    benchmark_arguments.add(one)
    place_arguments.add(one)
    for one in found.choices.values():
        one.add_argument("--traceback", action="store_true", help="show where in the program an error arose")
    return parser, dict(found.choices)
