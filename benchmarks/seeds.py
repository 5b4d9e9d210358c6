"""How far do seeds, first scales, precision and implementation move the PSNR? One picture, fitted again and again.

    python benchmarks/seeds.py --data DATA --reference CHECKOUT --size 128 --seeds 3

A fit's quality at a given iteration depends on its first weights and on its jitter, so that one run against one run
says little. This fits a crop of F16 (sigma 25, clipped) with the paper's network for several seeds, by dip in float32
and in bfloat16 and, with --reference (a clone of DmitryUlyanov/deep-image-prior), by the original network and loop,
and reports mean and spread: of single outputs (each the mean of the PSNR over 50 iterations) and of their average.
The average is bias-corrected for all of them, so that it compares networks and not averages.

Each runs with the scales of its batch normalisations drawn from U(0, 1), as PyTorch 0.4 did, with which the paper was
computed ("uniform"); and beginning at 1, as PyTorch does since version 1.2 ("one").
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paper import crop, read
from records import parse
from speed import CODE, original
from torch import Tensor

import dip

WINDOW = 50


def main(arguments: list[str] | None = None) -> None:
    """Run all fits and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("DIP_DATA"), help="folder with the pictures")
    parser.add_argument("--reference", type=Path, help="checkout of DmitryUlyanov/deep-image-prior")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iters", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--norm-scale", nargs="+", default=["one", "uniform"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "seeds.json")
    options = parse(parser, arguments)
    clean = crop(read(options.data / "set9" / "f16.png"), options.size)
    noisy = dip.degradations.gaussian(clean, 25, clip=True, seed=0)
    contenders: dict[str, Callable[[int], Iterator[Tensor]]] = {}
    for scale in options.norm_scale:
        for precision in options.precision:
            contenders[f"dip, {precision}, {scale}"] = partial(ours, noisy, options, precision, scale)
        if options.reference:
            contenders[f"reference, float32, {scale}"] = partial(reference, noisy, options, scale)
    device = dip.devices.resolve(options.device)
    target = torch.from_numpy(clean).permute(2, 0, 1)[None].to(device, torch.float32)
    marks = list(range(100, options.iters + 1, 100)) or [options.iters]
    runs: dict[str, list[dict[str, list[float]]]] = {name: [] for name in contenders}
    for seed in range(options.seeds):
        for name, outputs in contenders.items():
            runs[name].append(follow(outputs(seed), target, marks))
            last = {series: values[-1] for series, values in runs[name][-1].items()}
            print(f"{name}, seed {seed}: {last}", flush=True)
    report = {
        "experiment": "F16, sigma 25 clipped, the paper's network: PSNR over seeds, precisions and implementations",
        "notes": f"output: mean of the last {WINDOW} single outputs; average: bias-corrected, decay 0.99; dB over RGB",
        "size": options.size,
        "noisy": round(dip.metrics.psnr(noisy, clean), 3),
        "iteration": marks,
        "summary": {name: summary(found) for name, found in runs.items()},
        "runs": runs,
        "device": str(device),
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


def follow(outputs: Iterator[Tensor], target: Tensor, marks: list[int]) -> dict[str, list[float]]:
    """Return the PSNR of single outputs and of their average at some iterations."""
    average = dip.averaging.ExponentialAverage(0.99)
    single: list[float] = []
    found: dict[str, list[float]] = {"output": [], "average": []}
    for iteration, output in enumerate(outputs, 1):
        average.update(output)
        single.append(dip.metrics.psnr(output, target))
        if iteration in marks:
            found["output"].append(round(statistics.fmean(single[-WINDOW:]), 3))
            found["average"].append(round(dip.metrics.psnr(average.value, target), 3))
    return found


def summary(runs: list[dict[str, list[float]]]) -> dict[str, dict[str, Any]]:
    """Return mean and standard deviation over the seeds, at each mark and of the best."""
    found = {}
    for series in ("output", "average"):
        values = np.array([one[series] for one in runs])
        spread = values.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(values.shape[1])
        found[series] = {
            "mean": values.mean(axis=0).round(3).tolist(),
            "standard_deviation": spread.round(3).tolist(),
            "mean_of_the_best": round(float(values.max(axis=1).mean()), 3),
        }
    return found


def ours(
    noisy: np.ndarray, options: argparse.Namespace, precision: str, norm_scale: str, seed: int
) -> Iterator[Tensor]:
    """The outputs of `dip.Fit`."""
    fit = dip.Fit(
        dip.Denoise(noisy),
        network={"norm_scale": norm_scale},
        seed=seed,
        precision=precision,
        device=options.device,
        progress=False,
    )
    with dip.devices.reused_memory(fit.device):
        for _ in range(options.iters):
            fit.step()
            yield fit.output


def reference(noisy: np.ndarray, options: argparse.Namespace, norm_scale: str, seed: int) -> Iterator[Tensor]:
    """The outputs of the original network in the original loop."""
    device = dip.devices.resolve(options.device)
    torch.manual_seed(seed)
    network = original(options.reference, 128)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and norm_scale == "uniform":
            torch.nn.init.uniform_(module.weight)
    network.to(device)
    code = (torch.rand(1, CODE, *noisy.shape[:2]) * 0.1).to(device)
    y = torch.from_numpy(noisy).permute(2, 0, 1)[None].to(device, torch.float32)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    jitter = code.clone()
    for _ in range(options.iters):
        optimizer.zero_grad()
        output = network(code + jitter.normal_() / 30)
        torch.nn.functional.mse_loss(output, y).backward()
        optimizer.step()
        yield output.detach()


if __name__ == "__main__":
    main()
