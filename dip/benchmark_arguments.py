"""The options of `dip benchmark`."""

from __future__ import annotations

import argparse
from typing import Any

from dip.arguments import path, whole, words

__all__ = ["add"]


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument(
        "-o",
        "--output",
        type=path,
        required=True,
        metavar="FOLDER",
        help="takes the results; one with results of a benchmark is added to",
    )
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--set",
        default="photographs",
        metavar="NAME",
        help="a picture set, or a folder; default photographs; see --list",
    )
    group.add_argument("--data", type=path, metavar="DIR", help="where the sets are; default: what DIP_DATA names")
    group.add_argument("--download", action="store_true", help="fetch pictures that are missing, where that is allowed")
    group.add_argument("--pictures", type=words, metavar="LIST", help="only these of the set, by name")
    group.add_argument(
        "--size",
        type=whole(0, 256),
        metavar="N",
        help="only the middle N x N pixels, 16 at least; 0 = all; default: 128 of the photographs, all of other sets",
    )
    group = parser.add_argument_group("what is done to them")
    group.add_argument("--task", default="denoise", metavar="T", help="default denoise; see --list")
    group.add_argument("--sigma", type=float, metavar="X", help="standard deviation of noise, 0 to 255; default 25")
    group.add_argument("--unclipped", action="store_true", help="leave noisy values outside of the range as they are")
    group.add_argument("--missing", metavar="X", help="share of missing pixels, or text, or mask; default 0.5")
    group.add_argument("--factor", type=whole(1, 4), metavar="F", help="of super-resolution; default 4")
    group.add_argument("--quality", type=whole(1, 10), metavar="Q", help="of a JPEG; default 10")
    group.add_argument("--metric", choices=("rgb", "luma"), help="what PSNR is of; default: the custom of the task")
    group.add_argument("--border", type=whole(0, 4), metavar="B", help="pixels that are not counted at the border")
    group.add_argument("--noise-seed", type=whole(0), default=0, metavar="S", help="of noise and masks; default 0")
    group = parser.add_argument_group("methods")
    group.add_argument(
        "--methods",
        type=words,
        metavar="LIST",
        help="names with commas between, as in fast,paper+twice,bm3d,trained=FILE; default: some that need no other "
        "package; see --list",
    )
    group.add_argument(
        "--seeds", type=whole(1, 3), default=1, metavar="N", help="run what is random with seeds 0 to N - 1; default 1"
    )
    group.add_argument("--iters", type=whole(1), metavar="N", help="iterations, in place of each method's own")
    group.add_argument("--device", default="auto", metavar="D", help="auto (the default), cpu, cuda or mps")
    group.add_argument("--reference", type=path, metavar="FOLDER", help="a clone of DmitryUlyanov/deep-image-prior")
    group.add_argument("--list", action=Lists, help="print sets, tasks and methods, and end")
    group = parser.add_argument_group("output")
    group.add_argument("--title", metavar="WORDS", default="Benchmark", help="of the page")
    group.add_argument("--inputs", action="store_true", help="write the degraded pictures, exact to the last bit")
    group.add_argument("--no-pictures", action="store_true", help="write no pictures, and show none on the page")
    group.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")


class Lists(argparse.Action):
    """Print what can be named, and end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "nargs": 0})

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it."""
        from dip import benchmark, datasets

        tasks = benchmark.task_names()
        parts = {"picture sets (--set)": datasets.names(), "tasks (--task)": tasks}
        parts |= {f"methods for {task} (--methods)": benchmark.names(task) for task in tasks}
        for title, found in parts.items():
            width = max(map(len, found))
            print(f"{title}:", *(f"  {name.ljust(width)}  {about}" for name, about in found.items()), sep="\n")
        print(f"variants of fits, as in paper+twice: {', '.join(benchmark.suffixes())}")
        print("a function of your own: module:function")
        parser.exit()
