"""The options of the commands and how their values are read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from dip import demo, losses, networks, stopping
from dip.devices import PRECISIONS
from dip.operators.jpeg import SUBSAMPLINGS

__all__ = [
    "FIT_ONLY",
    "add_backend",
    "add_consistent",
    "add_demo",
    "add_factor",
    "add_files",
    "add_fit",
    "add_jpeg",
    "add_long",
    "add_mask",
    "add_psf",
    "add_stop",
    "channels",
    "number_range",
    "path",
    "size",
    "whole",
    "words",
]


def add_files(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add IN, OUT and the files beside them; returns their group, for more of them."""
    parser.add_argument("input", type=path, metavar="IN", help="a picture, a TIFF of several pages, or a folder")
    group = parser.add_argument_group("files")
    group.add_argument(
        "-o",
        "--output",
        type=path,
        metavar="OUT",
        required=True,
        help="the result; a TIFF if IN has several pages, a folder if it is one",
    )
    group.add_argument(
        "--reference",
        type=path,
        metavar="CLEAN",
        help="the picture as it should be (for a folder, a folder with the same tree); PSNR in dB and SSIM are then "
        "printed; the fit is not influenced",
    )
    group.add_argument(
        "--json",
        type=path,
        metavar="REPORT",
        help="write settings, seed, versions, history, figures, seconds and why the fit ended; for a folder a list "
        "with an entry for each picture",
    )
    group.add_argument("--force", action="store_true", help="replace files that exist; they are kept otherwise")
    group.add_argument(
        "--data-range",
        type=number_range,
        metavar="[LOW,]HIGH",
        help="black and white of the clean picture in the numbers of the file, as in 4095 or --data-range=-1,1; by "
        "default 0 to 255 for 8 bits, 0 to 65535 for 16 (dip denoise looks for 8 to 14 bits in it), 0 to 1 for floats",
    )
    group.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    return group


FIT_ONLY = (
    *("mask", "preset", "iters", "seed", "precision", "engine", "network", "down", "up", "skip", "channels"),
    *("code_image", "loss", "lr", "jitter", "flips", "average", "stop", "patience", "earliest", "sigma", "tile"),
    *("consistent", "save_every", "checkpoint", "checkpoint_every", "resume"),
)
"""The options that mean nothing for a trained model."""


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add the choice between a fit and a trained model."""
    group = parser.add_argument_group("backend")
    group.add_argument(
        "--backend",
        choices=("dip", "trained"),
        default="dip",
        help="dip (the default): a network is fitted to the picture, without training data; trained: a model that was "
        "trained on other pictures is applied to it, for comparison; the options of a fit mean nothing then",
    )
    group.add_argument(
        "--model",
        metavar="NAME|FILE",
        help="for --backend trained: a model that comes with the package (dip models lists them), or a file that dip "
        "train wrote",
    )


def add_mask(group: argparse._ArgumentGroup, *, noisy: bool = False) -> None:
    """Add --mask and what belongs to it, for a command whose known pixels are (noisy) to change or to stay."""
    group.add_argument(
        "--mask",
        type=path,
        metavar="M",
        required=not noisy,
        help="white (any value but 0) = known, black (0) = missing; floats are weights from 0 to 1; for a folder one "
        "mask for all or a folder with the same tree, for a TIFF of several pages one, or a folder with 0001.png, ...",
    )
    group.add_argument("--invert-mask", action="store_true", help="the mask is white where pixels are missing")
    if noisy:
        return
    group.add_argument(
        "--keep-known",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="return the known pixels as they are (the default), or what the network makes of them too",
    )


def add_factor(group: argparse._ArgumentGroup) -> None:
    """Add --factor and how the small picture came to be."""
    group.add_argument("--factor", type=whole(1, 4), metavar="F", required=True, help="how many times as high and wide")
    group.add_argument(
        "--kernel",
        default="lanczos2",
        metavar="NAME",
        help="how the small picture came from the large one: lanczos2 (the default), lanczos3, box or gaussian",
    )
    group.add_argument(
        "--kernel-sigma",
        type=float,
        metavar="X",
        help="standard deviation of --kernel gaussian, in pixels of IN; default 0.5",
    )
    group.add_argument(
        "--phase",
        type=float,
        default=0.5,
        metavar="P",
        help="where in its block of F x F pixels a pixel of IN is centred, from 0 (first) to 1 (last); default 0.5",
    )
    add_consistent(group)


def add_consistent(
    group: argparse._ArgumentGroup,
    how: str = "so that IN follows from it more exactly",
    advice: str = "for an IN with much noise or a JPEG",
) -> None:
    """Add the choice whether the result is corrected."""
    group.add_argument(
        "--consistent",
        action=argparse.BooleanOptionalAction,
        help=f"correct the result {how}; --no-consistent leaves it as the network made it, {advice}; default: the "
        "preset's",
    )


def add_psf(group: argparse._ArgumentGroup) -> None:
    """Add the point spread function."""
    one = group.add_mutually_exclusive_group(required=True)
    one.add_argument(
        "--psf",
        type=path,
        metavar="FILE",
        help="the image of a point, its middle at pixel (height // 2, width // 2) and its background black; in colour "
        "one for each channel; a picture, a TIFF of 32-bit integers or 64-bit floats too, or an array in a .npy",
    )
    one.add_argument(
        "--psf-sigma", type=float, metavar="X", help="a Gaussian blur of this standard deviation in pixels"
    )
    group.add_argument(
        "--damping",
        type=float,
        metavar="X",
        help="for --preset fast: what the blur has left less of, as a share, squared, is taken for noise, such as "
        "0.05; by default it follows from the noise that is found in IN",
    )
    group.add_argument(
        "--boundary",
        default="mirror",
        metavar="B",
        help="what lies beyond the border: mirror (the default), nearest, wrap or zero",
    )


def add_jpeg(group: argparse._ArgumentGroup) -> None:
    """Add how the picture was compressed."""
    group.add_argument(
        "--quality",
        type=whole(1, 75),
        metavar="Q",
        help="that of the JPEG, 1 to 100; by default it is read in IN, or found in its pixels",
    )
    group.add_argument(
        "--subsampling",
        choices=tuple(SUBSAMPLINGS),
        help="of its colours, beside --quality, as in 4:2:0, one value for 2 x 2 pixels; default: as the pixels tell",
    )


def add_fit(parser: argparse.ArgumentParser) -> None:
    """Add what is fitted, and how."""
    group = parser.add_argument_group("fit")
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="settings by name, see dip presets; default paper (super-resolution: paper-x8 from a factor of 6 on; "
        "dejpeg: fast)",
    )
    group.add_argument("--iters", type=whole(1), metavar="N", help="iterations at most; default: the preset's")
    group.add_argument("--seed", type=whole(0), metavar="S", help="whatever is random comes from it; default 0")
    group.add_argument("--device", default="auto", metavar="D", help="auto (the default), cpu, cuda, cuda:1 or mps")
    group.add_argument(
        "--precision",
        metavar="P",
        help=f"what the network computes in: {', '.join(PRECISIONS)}; auto is bfloat16 where the device has it",
    )
    group.add_argument(
        "--engine",
        choices=("auto", "plain"),
        help="auto (the default): on CUDA an iteration is recorded and replayed, to take less time; plain: it never is",
    )
    group.add_argument(
        "--tile",
        type=whole(1, 512),
        metavar="N",
        help="for pictures too large for the memory: fit random crops of N x N pixels, such as 512, and put the whole "
        "together at the end; --iters then counts crops (default: the preset's for each N x N pixels of the picture), "
        "and the learning rate is 0.3 times the preset's; with the preset fast for missing pixels there is one crop, "
        "and above 1024 x 512 pixels one of 512 without being asked for",
    )
    group.add_argument(
        "--network",
        metavar="NAME",
        help=f"another network than the preset's: {', '.join(networks.names())}",
    )
    for name, about in (
        ("down", "channels of the encoder, one number a scale, as in 64,64,64,64,64 or 64x5"),
        ("up", "channels of the decoder; default: as --down"),
        ("skip", "channels of the skip connections, 0 = none"),
        ("channels", "channels of the other networks, as in --network unet --channels 32x5"),
    ):
        group.add_argument(f"--{name}", type=channels, metavar="LIST", help=about)
    group.add_argument(
        "--code-image",
        type=path,
        metavar="FILE",
        help="a picture of the same size as the network's input in place of noise: with --preset paper-flash the same "
        "scene taken with a flash",
    )
    group.add_argument(
        "--loss",
        choices=losses.names(),
        help="what is made small: mse (most presets'), l1, which holds out against outliers such as impulse noise, or "
        "poisson, for few photons; for deblur back-projection, for dejpeg quantization",
    )
    group.add_argument("--lr", type=float, metavar="X", help="learning rate")
    group.add_argument(
        "--jitter", type=float, metavar="X", help="standard deviation of the noise on the network's input"
    )
    group.add_argument(
        "--flips",
        type=count_or_auto,
        metavar="N",
        help="after so many iterations mirror the network's input and output, another way at each, so that the noise "
        "is not fitted; 0 = never; auto (denoise): once the residual tells that it begins to be, which then also tells "
        "when to end",
    )
    group.add_argument(
        "--average",
        type=float,
        metavar="X",
        help="decay of the average of the outputs that is returned, in [0, 1); 0 = the last output alone",
    )


def add_stop(parser: argparse.ArgumentParser) -> None:
    """Add the stopping rules."""
    group = parser.add_argument_group("when to stop before the last iteration")
    group.add_argument(
        "--stop",
        choices=(*stopping.BY_ITSELF, "discrepancy"),
        help="the variances: at the minimum of that of the outputs; residual-fall: when the residual falls faster "
        "again, since the noise is being learnt; discrepancy: when it is down to the noise (--sigma)",
    )
    group.add_argument(
        "--patience", type=whole(1), metavar="N", help="iterations without a lower variance; default 1000"
    )
    group.add_argument(
        "--earliest",
        type=whole(1, 200),
        metavar="N",
        help="not before this iteration; default 400, with residual-fall 150, with discrepancy 200",
    )
    group.add_argument(
        "--sigma", type=float, metavar="X", help="standard deviation of the noise, on the scale of 0 to 255"
    )


def add_long(parser: argparse.ArgumentParser) -> None:
    """Add what is for fits of hours."""
    group = parser.add_argument_group("long fits")
    group.add_argument(
        "--save-every",
        type=whole(1),
        metavar="K",
        help="write the picture so far at every K-th iteration, beside OUT: restored.iter000500.png",
    )
    group.add_argument(
        "--checkpoint",
        type=path,
        metavar="FILE",
        help="keep the whole state of the fit there; not for a folder (a few times the size of the network: about "
        "50 MB with the default one)",
    )
    group.add_argument(
        "--checkpoint-every", type=whole(1), metavar="K", help="iterations between checkpoints; default 100"
    )
    group.add_argument(
        "--resume",
        type=path,
        metavar="FILE",
        help="go on from a checkpoint of the same picture and settings, and keep it up to date (unless --checkpoint "
        "names another file); --iters counts from the beginning",
    )


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add the options of the demo."""
    parser.add_argument(
        "-o",
        "--output",
        type=path,
        default=Path("dip-demo.png"),
        metavar="FILE",
        help="the picture that is written; default dip-demo.png",
    )
    parser.add_argument(
        "--iters", type=whole(1), default=demo.ITERATIONS, metavar="N", help="iterations; default %(default)s"
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="S", help="of the noise and the network; default 0")
    parser.add_argument("--device", default="auto", metavar="D", help="auto (the default), cpu, cuda or mps")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists; it is kept otherwise")
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")


# ---------------------------------------------------------------------- values


def words(text: str) -> list[str]:
    """Read names with commas between them."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} holds no name; write names with commas between, such as fast,tv")
    return found


def path(text: str) -> Path:
    """Read the name of a file or folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name of a file or folder is empty")
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is an address; nothing is fetched: save what is there as a file")
    return Path(text)


def whole(least: int, example: int = 500) -> Callable[[str], int]:
    """Return what reads a whole number from `least` up."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up, such as {example}")
        return number

    return read


def count_or_auto(text: str) -> int | str:
    """Read a whole number from 0 up, or auto."""
    try:
        return text if text == "auto" else whole(0)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor auto") from None


def channels(text: str) -> tuple[int, ...]:
    """Read 64,64,64 or 64x3."""
    try:
        number, times, count = text.partition("x")
        return (int(number),) * int(count) if times else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of channels, one number a scale, such as 64,64,64,64,64 or 64x5"
        ) from None


def size(text: str) -> tuple[int, int]:
    """Read 512x768, height first."""
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in pixels, height x width, such as 512x768")
    return height, width


def number_range(text: str) -> float | tuple[float, float]:
    """Read HIGH or LOW,HIGH."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range, such as 4095 or 16,235")
    if not (numbers[0] < numbers[1] if len(numbers) == 2 else numbers[0] > 0):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no range: give white, above 0, or black,white with black below white, such as 4095 or 16,235"
        )
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
