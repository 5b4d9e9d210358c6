"""Time an iteration of the fit, and its memory, next to the original code, deepinv, and the convolutions alone.

    python benchmarks/speed.py --reference CHECKOUT --sizes 128 256 512

CHECKOUT is a clone of DmitryUlyanov/deep-image-prior; without it, or without the package deepinv, those are left out.
Every contender has the paper's denoising network (with --channels in place of 128), the same noisy picture, Adam, and
jitter and averaging where it has them; each runs in a process of its own, the contenders take turns for --rounds
rounds, and what counts is the median of all its iterations. Machines are noisy and differ: the figures to read are the
ratios within one run.

On CUDA "dip" is the plain iteration and "dip-graph" the recorded one, which a run takes there; the latter is timed over
--iters times ten iterations of a run. It fails where the iteration cannot be recorded.

"convolutions" is the floor: the forward and backward passes of the network's convolutions as PyTorch does them, at the
same shapes and precision, and nothing else. --preset takes another network and code than the paper's, and --earlier an
older checkout of this repository as a contender. On a machine that others use, time on the clock says little: beside it
stands the time that the processor spent on the process.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dip

SCALES = 5
SKIP = 4
CODE = 32


def main(arguments: list[str] | None = None) -> None:
    """Run all contenders, each in a process of its own, and write the report and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512], help="sides of the square picture")
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--preset", choices=dip.presets.names("denoise"), help="its network in place of the paper's")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"], help="of dip and the convolutions")
    parser.add_argument("--reference", type=Path, help="checkout of DmitryUlyanov/deep-image-prior")
    parser.add_argument("--deepinv", action="store_true", help="deepinv's DeepImagePrior as well")
    parser.add_argument("--earlier", type=Path, help="an older checkout of this repository")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iters", type=int, default=5, help="iterations timed in each round, after two that are not")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "speed.json")
    parser.add_argument("--plot", type=Path, help="draw the times too (needs matplotlib)")
    parser.add_argument("--worker", nargs=3, metavar=("NAME", "PRECISION", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        name, precision, size = options.worker
        print(json.dumps(CONTENDERS[name](precision, int(size), options)))
        return
    if options.preset and (options.reference or options.deepinv):
        parser.error("--reference and --deepinv have the paper's network only; leave --preset out")
    names = [*(["earlier"] if options.earlier else []), "dip", "convolutions"]
    if dip.devices.resolve(options.device).type == "cuda":
        names.insert(names.index("dip") + 1, "dip-graph")
    contenders = [(name, precision) for name in names for precision in options.precision]
    if options.deepinv:
        contenders.insert(0, ("deepinv", "float32"))
    if options.reference:
        contenders.insert(0, ("reference", "float32"))
    results = []
    for size in options.sizes:
        rounds: dict[tuple[str, str], list[dict[str, Any]]] = {contender: [] for contender in contenders}
        for _ in range(options.rounds):
            for contender, found in rounds.items():
                found.append(measure(*contender, size, sys.argv[1:] if arguments is None else arguments))
        results += [result(*contender, size, found) for contender, found in rounds.items()]
        first = results[-len(rounds)]
        for one in results[-len(rounds) :]:
            one["times_faster_than_" + first["name"]] = round(first["seconds"]["median"] / one["seconds"]["median"], 2)
            print(json.dumps(one), flush=True)
    report = {
        "experiment": "seconds an iteration and peak memory above that before the fit; the paper's denoising network",
        "channels": options.channels,
        "preset": options.preset,
        "rounds": options.rounds,
        "iterations_a_round": options.iters,
        "device": str(dip.devices.resolve(options.device)),
        "results": results,
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        plot(report, options.plot)


def measure(name: str, precision: str, size: int, arguments: list[str]) -> dict[str, Any]:
    """Run one contender in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--worker", name, precision, str(size)]
    path = [str(arguments[arguments.index("--earlier") + 1])] if name == "earlier" else []
    path += [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    environment = {**os.environ, **({"PYTHONPATH": os.pathsep.join(path)} if path else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{name} at {size} pixels failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def result(name: str, precision: str, size: int, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the rounds of one contender come to."""
    return {
        "name": name,
        "precision": precision,
        "size": size,
        **{kind: spread([one for each in rounds for one in each[kind]]) for kind in ("seconds", "cpu_seconds")},
        "peak_bytes": max(one["peak_bytes"] for one in rounds),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and most."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 5) for name, value in found.items()}


# ---------------------------------------------------------------------- the contenders


def timed(step: Callable[[], Any], options: argparse.Namespace) -> dict[str, Any]:
    """Time a step, after two that are not timed; and the memory that all of them took at most."""
    device = dip.devices.resolve(options.device)
    before = peak(device)
    taken = []
    for _ in range(options.iters + 2):
        wait(device)
        started, busy = time.perf_counter(), time.process_time()
        step()
        wait(device)
        taken.append((time.perf_counter() - started, time.process_time() - busy))
    seconds, cpu_seconds = zip(*taken[2:], strict=True)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak(device) - before}


def wait(device: torch.device) -> None:
    """Let the device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak(device: torch.device) -> int:
    """Return the most memory that this process has had, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def noisy(size: int) -> np.ndarray:
    """Return a picture of noise: what is in it does not change the time."""
    return np.random.default_rng(0).random((size, size, 3), dtype=np.float32)


def layers(options: argparse.Namespace) -> dict[str, Any]:
    """Return the network's options."""
    if options.preset:
        return dict(dip.presets.get("denoise", options.preset).options)
    return {"down": [options.channels] * SCALES, "up": [options.channels] * SCALES, "skip": [SKIP] * SCALES}


def code(options: argparse.Namespace) -> int:
    """Return the channels of the code."""
    if not options.preset:
        return CODE
    taken = dip.presets.get("denoise", options.preset).code
    return (replace(taken, image_channels=3) if isinstance(taken, dip.codes.Denoised) else taken).channels


def new_fit(precision: str, size: int, options: argparse.Namespace, **further: Any) -> dip.Fit:
    """Return the fit that is timed."""
    return dip.Fit(
        dip.Denoise(noisy(size)),
        **({"preset": options.preset} if options.preset else {"network": layers(options)}),
        precision=precision,
        device=options.device,
        progress=False,
        **further,
    )


def ours(precision: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """`dip.Fit`, one step after the other, which is never recorded."""
    fit = new_fit(precision, size, options)
    with dip.devices.reused_memory(fit.device):  # as `Fit.run` does
        return timed(fit.step, options)


def recorded(precision: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """`dip.Fit` in a run, ten iterations at a time, when the first twenty are over, in which they are recorded."""
    device = dip.devices.resolve(options.device)
    before, times = peak(device), []

    def look(fit: dip.Fit) -> None:
        wait(device)
        times.append((time.perf_counter(), time.process_time()))

    fit = new_fit(precision, size, options, engine="graph", callbacks=[dip.callbacks.Every(10, look)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit.run(max(130, 10 * (options.iters + 2)))
    taken = [[(end - start) / 10 for start, end in itertools.pairwise(clock)] for clock in zip(*times[1:], strict=True)]
    return {"seconds": taken[0], "cpu_seconds": taken[1], "peak_bytes": peak(device) - before}


def reference(precision: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """The original network in the original loop."""
    step = original_step(options.reference, size, options.channels, dip.devices.resolve(options.device))
    return timed(step, options)


def original_step(checkout: Path, size: int, channels: int, device: torch.device) -> Callable[[], None]:
    """Return the original loop's step: closure with jitter, running average, Adam."""
    network = original(checkout, channels).to(device)
    y = torch.from_numpy(noisy(size)).permute(2, 0, 1)[None].to(device)
    code = torch.rand(1, CODE, size, size, device=device) * 0.1
    jitter = code.clone()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    average: list[Tensor] = []

    def step() -> None:
        optimizer.zero_grad()
        output = network(code + jitter.normal_() / 30)
        average[:] = [average[0] * 0.99 + output.detach() * 0.01] if average else [output.detach()]
        torch.nn.functional.mse_loss(output, y).backward()
        optimizer.step()

    return step


def original(checkout: Path, channels: int) -> torch.nn.Module:
    """Return the paper's denoising network as its authors wrote it, from a checkout of their repository."""
    sys.path.insert(0, str(checkout.resolve()))
    from models.skip import skip

    wide, thin = [channels] * SCALES, [SKIP] * SCALES
    network: torch.nn.Module = skip(CODE, 3, wide, wide, thin, upsample_mode="bilinear", pad="reflection")
    return network


def deepinv(precision: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """deepinv's DeepImagePrior around our network; one step = its whole run divided by its iterations."""
    from deepinv.models import DeepImagePrior
    from deepinv.physics import Denoising

    device = dip.devices.resolve(options.device)
    network = dip.networks.EncoderDecoder(CODE, 3, **layers(options)).to(device)
    y = torch.from_numpy(noisy(size)).permute(2, 0, 1)[None].to(device)
    prior = DeepImagePrior(network, (CODE, size, size), iterations=1, learning_rate=0.01, re_init=False).to(device)
    physics = Denoising()
    return timed(lambda: prior(y, physics), options)


def convolutions(precision: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """The network's convolutions alone, forwards and backwards, padding left out."""
    device = dip.devices.resolve(options.device)
    dtype = dip.devices.precision(precision, device)
    network = dip.networks.EncoderDecoder(code(options), 3, **layers(options))
    passes = [
        (x.to(device, dtype), weight.to(device, dtype), bias.to(device, dtype), stride)
        for x, weight, bias, stride in operands(network, size)
    ]

    def step() -> None:
        for x, weight, bias, stride in passes:
            y = torch.nn.functional.conv2d(x, weight, bias, stride)
            wanted = [x.shape[1] != network.in_channels, True, True]  # nobody wants the gradient of the code
            geometry = ([stride] * 2, [0, 0], [1, 1], False, [0, 0], 1)
            torch.ops.aten.convolution_backward(y, x, weight, [len(bias)], *geometry, wanted)

    with dip.devices.reused_memory(device):
        return timed(step, options)


def operands(network: dip.networks.EncoderDecoder, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Return inputs (padded), weights, biases and strides of all convolutions of a network."""
    found: list[tuple[tuple[int, ...], torch.nn.Conv2d]] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, given: found.append((tuple(given[0].shape), module)))
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.zeros(1, network.in_channels, size, size))
    for hook in hooks:
        hook.remove()
    for (number, channels, height, width), module in found:
        pad = 2 * (module.kernel_size[0] // 2)
        x = torch.randn(number, channels, height + pad, width + pad).contiguous(memory_format=torch.channels_last)
        bias = module.bias if module.bias is not None else torch.zeros(module.out_channels)
        weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
        yield x, weight, bias.detach(), module.stride[0]


CONTENDERS = {
    "dip": ours,
    "dip-graph": recorded,
    "earlier": ours,
    "reference": reference,
    "deepinv": deepinv,
    "convolutions": convolutions,
}


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw seconds an iteration against the size, one line for each contender."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    fig, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    lines: dict[str, list[dict[str, Any]]] = {}
    for one in report["results"]:
        lines.setdefault(f"{one['name']}, {one['precision']}", []).append(one)
    for label, points in lines.items():
        sizes = [point["size"] for point in points]
        style = "k:" if label.startswith("convolutions, b") else "k--" if label.startswith("convolutions") else "o-"
        axis.loglog(sizes, [point["seconds"]["median"] for point in points], style, label=label)
    axis.set(xlabel="side of the picture, pixels", ylabel="seconds an iteration")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.legend()
    axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=100)
    pyplot.close(fig)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads of one process must not spin beside the next one's
    main()
