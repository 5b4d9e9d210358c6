"""What is known of the noise, on the command line."""

from __future__ import annotations

import argparse

from dip.errors import finite_float, positive_float
from dip.noise import Noise, PoissonGaussian
from dip.noise.model import GAUSSIAN, POISSON

__all__ = ["NOISE", "add", "noise"]

NOISE = ("noise", "gain", "read_noise", "offset")
"""The options that `add` adds."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add what the noise is."""
    group = parser.add_argument_group("noise")
    group.add_argument(
        "--noise",
        choices=(GAUSSIAN, POISSON),
        help="gaussian (the default): the same everywhere; poisson: it grows with the light, as that of few photons or "
        "of a camera; how much is found in IN, unless --gain says it",
    )
    group.add_argument(
        "--gain",
        type=float,
        metavar="X",
        help="for --noise poisson: what one photon (in a camera, one electron) adds, in the numbers of IN; 1 if they "
        "are counts",
    )
    group.add_argument(
        "--read-noise",
        type=float,
        metavar="X",
        help="beside --gain: standard deviation of the noise where it is dark, in the numbers of IN; default 0",
    )
    group.add_argument(
        "--offset", type=float, metavar="X", help="beside --gain: the number where it is dark; default 0"
    )


def noise(args: argparse.Namespace) -> Noise:
    """Return what is said of the noise.

    Raises
    ------
    ValueError
        A number is given that means nothing without another option, or is not what it should be.
    """
    if args.gain is not None and args.noise != POISSON:
        raise ValueError("--gain means nothing without --noise poisson")
    for name in NOISE[2:]:
        if getattr(args, name) is not None and args.gain is None:
            raise ValueError(f"--{name.replace('_', '-')} means nothing without --gain")
    if args.gain is None:
        return str(args.noise) if args.noise else None
    gain = positive_float(args.gain, "--gain")
    read_noise = positive_float(args.read_noise or 0.0, "--read-noise", zero_ok=True)
    return PoissonGaussian(gain, read_noise, finite_float(args.offset or 0.0, "--offset"))
