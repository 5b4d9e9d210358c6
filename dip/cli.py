"""The command line: `dip denoise`, `inpaint`, `super-resolve`, `presets`, `info` and `demo`."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from dip import commands, demo
from dip._version import __version__
from dip.console import Console
from dip.devices import PRECISIONS
from dip.errors import unknown
from dip.guard import DivergenceError
from dip.job import Failure

__all__ = ["main"]

_ABOUT = """\
Deep Image Prior: restore a picture by fitting an untrained network to it. No training data: the only
picture it looks at is the one to be restored.

examples:
  dip demo                                              see what it does, in a minute or two
  dip denoise photo.png -o restored.png
  dip inpaint photo.png --mask known.png -o restored.png
  dip super-resolve small.png --factor 4 -o large.png"""

_STATUS = """\
exit status: 0; 1 if a picture failed; 2 if the command was wrong; 130 after Ctrl-C (the picture so far is
written, and the checkpoint)"""

_FILES = """\
PNG, JPEG, TIFF, BMP and WebP are read; PNG, JPEG and TIFF are written. Depth (16 bits too), alpha, ICC profile
and EXIF of IN are kept. If IN is a folder, all pictures in it and below it are restored one after the other, and
OUT is a folder that gets the same tree; results that exist are kept, so a run that was interrupted can be
repeated."""

_DENOISE = f"""\
Remove noise, or what JPEG left, from a picture or from every picture in a folder.

{_FILES}"""

_DENOISE_EXAMPLES = """\
examples:
  dip denoise photo.png -o restored.png
  dip denoise photo.png -o restored.png --preset fast                  in a small part of the time
  dip denoise noisy/ -o restored/ --reference clean/ --json report.json
  dip denoise photo.png -o restored.png --checkpoint photo.ckpt        may be killed and resumed:
  dip denoise photo.png -o restored.png --resume photo.ckpt"""

_INPAINT = f"""\
Fill in the missing pixels of a picture, or of every picture in a folder.

The mask is a picture of the same size: WHITE (any value but 0) = the pixel is KNOWN, BLACK (0) = it is missing
and is filled in; --invert-mask turns this round.

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
  dip super-resolve small.png --factor 2 --kernel box -o large.png"""


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
    args = _parse(sys.argv[1:] if argv is None else list(argv))
    console = Console(quiet=getattr(args, "quiet", False), traceback=args.traceback)
    with console.warnings():
        try:
            status = args.run(args, console)
            sys.stdout.flush()
            return int(status)
        except KeyboardInterrupt:
            console.error("interrupted; there was no picture yet")
            return 130
        except BrokenPipeError:  # whoever read the output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
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
        self.exit(2, f"dip: error: {message}; see {self.prog} --help\n")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser, commands_by_name = _build()
    args, left = parser.parse_known_args(argv)
    if args.command is None:
        parser.error("which command? one of " + ", ".join(commands_by_name))
    command = commands_by_name[args.command]
    for word in left:
        if word.startswith("-") and len(word) > 1:
            options = [name for name in command._option_string_actions if name.startswith("--")]
            message = str(unknown("option", word.partition("=")[0], options))
            command.error(message.partition(" allowed:")[0].rstrip(";"))
        command.error(f"{word!r} is one name too many; quote names with spaces")
    return args


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
    for one in (denoise, inpaint, enlarge):
        group = _add_files(one)
        if one is inpaint:
            _add_mask(group)
        if one is enlarge:
            _add_factor(group)
        _add_fit(one)
        _add_stop(one)
        _add_long(one)

    text = "List the settings by task and name: the experiments of the paper."
    one = command("presets", commands.show_presets, "list the settings by name", "[TASK]", text)
    one.add_argument("task", nargs="?", metavar="TASK", help="denoise, inpaint, super-resolve or reconstruct")
    text = "Print versions, devices with their precision and free memory, and the number of threads."
    one = command("info", commands.info, "versions, devices, threads, memory", "[--size HxW]", text)
    one.add_argument("--size", type=_size, metavar="HxW", help="also the memory that each preset takes, in colour")
    one = command("demo", commands.try_out, "see what it does", "[options]", demo.ABOUT, demo.EXAMPLES, _STATUS)
    _add_demo(one)
    for one in found.choices.values():
        one.add_argument("--traceback", action="store_true", help="show where in the program an error arose")
    return parser, dict(found.choices)


def _add_files(parser: _Parser) -> argparse._ArgumentGroup:
    parser.add_argument("input", type=_path, metavar="IN", help="a picture, or a folder of pictures")
    group = parser.add_argument_group("files")
    group.add_argument(
        "-o", "--output", type=_path, metavar="OUT", required=True, help="the result; a folder if IN is one"
    )
    group.add_argument(
        "--reference",
        type=_path,
        metavar="CLEAN",
        help="the picture as it should be (for a folder, a folder with the same tree); PSNR in dB and SSIM are then "
        "printed; the fit is not influenced",
    )
    group.add_argument(
        "--json",
        type=_path,
        metavar="REPORT",
        help="write settings, seed, versions, history, figures, seconds and why the fit ended; for a folder a list "
        "with an entry for each picture",
    )
    group.add_argument("--force", action="store_true", help="replace files that exist; they are kept otherwise")
    group.add_argument(
        "--data-range",
        type=_range,
        metavar="[LOW,]HIGH",
        help="black and white of the clean picture in the numbers of the file, as in 4095 or --data-range=-1,1; by "
        "default 0 to 255 for 8 bits, 0 to 65535 for 16, 0 to 1 for floats",
    )
    group.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    return group


def _add_mask(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--mask",
        type=_path,
        metavar="M",
        required=True,
        help="white (any value but 0) = known, black (0) = missing; for a folder one mask for all or a folder with the "
        "same tree",
    )
    group.add_argument("--invert-mask", action="store_true", help="the mask is white where pixels are missing")
    group.add_argument(
        "--keep-known",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="return the known pixels as they are (the default), or what the network makes of them too",
    )


def _add_factor(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--factor", type=_whole(1, 4), metavar="F", required=True, help="how many times as high and wide"
    )
    group.add_argument(
        "--kernel",
        default="lanczos2",
        metavar="NAME",
        help="how the small picture came from the large one: lanczos2 (the default), lanczos3, box or gaussian",
    )
    group.add_argument(
        "--phase",
        type=float,
        default=0.5,
        metavar="P",
        help="where in its block of F x F pixels a pixel of IN is centred, from 0 (first) to 1 (last); default 0.5",
    )


def _add_fit(parser: _Parser) -> None:
    group = parser.add_argument_group("fit")
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="settings by name, see dip presets; default paper (paper-x8 from a factor of 6 on)",
    )
    group.add_argument("--iters", type=_whole(1), metavar="N", help="iterations; default: the preset's")
    group.add_argument(
        "--seed", type=_whole(0), default=0, metavar="S", help="whatever is random comes from it; default 0"
    )
    group.add_argument("--device", default="auto", metavar="D", help="auto (the default), cpu, cuda, cuda:1 or mps")
    group.add_argument(
        "--precision",
        default="auto",
        metavar="P",
        help=f"what the network computes in: {', '.join(PRECISIONS)}; auto is bfloat16 where the device has it",
    )
    for name, about in (("down", "encoder"), ("up", "decoder"), ("skip", "skip connections, 0 = none")):
        group.add_argument(
            f"--{name}",
            type=_channels,
            metavar="LIST",
            help=f"channels of the {about}, one number a scale, as in 64,64,64,64,64 or 64x5"
            + ("; default: as --down" if name == "up" else ""),
        )
    group.add_argument(
        "--code-image",
        type=_path,
        metavar="FILE",
        help="a picture of the same size as the network's input in place of noise: with --preset paper-flash the same "
        "scene taken with a flash",
    )
    group.add_argument("--lr", type=float, metavar="X", help="learning rate")
    group.add_argument(
        "--jitter", type=float, metavar="X", help="standard deviation of the noise on the network's input"
    )
    group.add_argument(
        "--average",
        type=float,
        metavar="X",
        help="decay of the average of the outputs that is returned, in [0, 1); 0 = the last output alone",
    )


def _add_stop(parser: _Parser) -> None:
    group = parser.add_argument_group("when to stop before the last iteration")
    group.add_argument(
        "--stop",
        choices=("windowed-variance", "moving-variance", "discrepancy"),
        help="at the minimum of the outputs' variance, or when the residual is down to the noise (--sigma)",
    )
    group.add_argument(
        "--patience", type=_whole(1), metavar="N", help="iterations without a lower variance; default 1000"
    )
    group.add_argument(
        "--sigma", type=float, metavar="X", help="standard deviation of the noise, on the scale of 0 to 255"
    )


def _add_long(parser: _Parser) -> None:
    group = parser.add_argument_group("long fits")
    group.add_argument(
        "--save-every",
        type=_whole(1),
        metavar="K",
        help="write the picture so far at every K-th iteration, beside OUT: restored.iter000500.png",
    )
    group.add_argument(
        "--checkpoint",
        type=_path,
        metavar="FILE",
        help="keep the whole state of the fit there; not for a folder (a few times the size of the network: about "
        "50 MB with the default one)",
    )
    group.add_argument(
        "--checkpoint-every", type=_whole(1), metavar="K", help="iterations between checkpoints; default 100"
    )
    group.add_argument(
        "--resume",
        type=_path,
        metavar="FILE",
        help="go on from a checkpoint of the same picture and settings, and keep it up to date (unless --checkpoint "
        "names another file); --iters counts from the beginning",
    )


def _add_demo(parser: _Parser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=_path,
        default=Path("dip-demo.png"),
        metavar="FILE",
        help="the picture that is written; default dip-demo.png",
    )
    parser.add_argument(
        "--iters", type=_whole(1), default=demo.ITERATIONS, metavar="N", help="iterations; default %(default)s"
    )
    parser.add_argument(
        "--seed", type=_whole(0), default=0, metavar="S", help="of the noise and the network; default 0"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto (the default), cpu, cuda or mps")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists; it is kept otherwise")
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")


# ---------------------------------------------------------------------- values


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name of a file or folder is empty")
    return Path(text)


def _whole(least: int, example: int = 500) -> Callable[[str], int]:
    def whole(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up, such as {example}")
        return number

    return whole


def _channels(text: str) -> tuple[int, ...]:
    """64,64,64 or 64x3."""
    try:
        number, times, count = text.partition("x")
        return (int(number),) * int(count) if times else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of channels, one number a scale, such as 64,64,64,64,64 or 64x5"
        ) from None


def _size(text: str) -> tuple[int, int]:
    """512x768, height first."""
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in pixels, height x width, such as 512x768")
    return height, width


def _range(text: str) -> float | tuple[float, float]:
    """HIGH or LOW,HIGH."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range, such as 4095 or 16,235")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
