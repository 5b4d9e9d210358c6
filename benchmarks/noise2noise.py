"""The noise-to-noise hourglass on CIFAR-10, against classical denoisers on the same pixels, and the report's
comparisons.

    python benchmarks/noise2noise.py --data DATA
    python benchmarks/noise2noise.py --data DATA --only lr loss

The hourglass is that of the package (train_models.py; another one with --model), trained on pairs of noisy pictures of
sigma 26.6, unclipped: 19.6 dB. It is applied to the test pictures at hand with noise of their own. Total variation
(Chambolle) and non-local means (which is told sigma) restore the same pixels; the strength of either is the best of a
list on some training pictures. Then the report's five comparisons, each a sweep with everything else as in the recipe:
learning rate, criterion (with clipped noise, which cross-entropy needs), optimiser, number of pictures and
augmentation, and the architectures A to E. They have --epochs each, fewer than the model itself. What OUT or RUNS has
already is not run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import records
from train_models import RECIPES, pictures

from dip import trained

SIGMA = 26.6
TV = (0.04, 0.06, 0.08, 0.1, 0.12, 0.15)
MEANS = (0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
VARIANTS = ("hourglass-a", "hourglass-b", "hourglass-c", "hourglass-d", "hourglass-e")
GRIDS: dict[str, dict[str, list[Any]]] = {
    "lr": {"lr": [2e-2, 2e-3, 2e-4, 2e-5]},
    "loss": {"loss": ["mse", "l1", "bce"]},
    "optimizer": {"optimizer": ["adam", "sgd"], "lr": [2e-3, 2e-1]},
    "pictures": {"augment": [False, True]},
    "architecture": {},
}


def main(arguments: list[str] | None = None) -> None:
    """Run all parts, and write the report and the plots."""
    parser = records.parser(__doc__, "noise2noise")
    parser.add_argument("--only", nargs="+", choices=["model", *GRIDS], default=["model", *GRIDS])
    parser.add_argument("--model", default="hourglass", help="name or file")
    parser.add_argument("--epochs", type=int, default=3, help="of the comparisons")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000, 20000], help="pictures, compared")
    parser.add_argument("--limit", type=int, help="training pictures")
    parser.add_argument("--batch", type=int, default=RECIPES["hourglass"][1]["batch"])
    parser.add_argument("--tests", type=int, help="test pictures")
    parser.add_argument("--tuned-on", type=int, default=200, help="training pictures for the classical denoisers")
    parser.add_argument("--width", type=int, help="channels inside, for trying it out")
    options = records.parse(parser, arguments)
    choices = ("model", "epochs", "limit", "counts", "batch", "tests", "tuned_on", "width")
    report = records.Report(
        options.out, sigma=SIGMA, clipped=False, seed=0, **{name: getattr(options, name) for name in choices}
    )
    recipe = {**RECIPES["hourglass"][1], "batch": options.batch, "width": options.width}
    data = pictures("cifar10", options)
    if "model" in options.only:
        report.part("classical", lambda: classical(data, options))
        report.part("hourglass", lambda: hourglass(options))
        found = {**report.parts["classical"], "hourglass": report.parts["hourglass"]}
        best = max(found[name]["psnr"] for name in ("total variation", "non-local means"))
        report.set(
            bar={
                "at_least_24.2": found["hourglass"]["psnr"] >= 24.2,
                "above_the_better_classical_one": round(found["hourglass"]["psnr"] - best, 3),
                "training_seconds": found["hourglass"]["seconds"],
            }
        )
        bars = {name: one["psnr"] for name, one in found.items()}
        title = f"CIFAR-10 test pictures, Gaussian noise of sigma {SIGMA} (unclipped)"
        records.chart(options.pictures / "noise2noise.png", title, {"restored by": bars}, "PSNR (dB)")
    for name in [name for name in GRIDS if name in options.only]:
        report.part(name, lambda name=name: compare(name, data, recipe, options))
        records.chart(
            options.pictures / f"noise2noise-{name}.png",
            f"hourglass, Noise2Noise, {options.epochs} epochs: {name}",
            {name: {run: one["psnr_against_clean"] for run, one in report.parts[name].items()}},
            "PSNR of the validation pictures (dB)",
        )


def tests(options: argparse.Namespace) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the test pictures, and with noise."""
    clean = pictures("cifar10", options, train=False)[: options.tests]
    return clean, records.noisy(clean, SIGMA, seed=1_000_000)


def classical(data: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """Return the PSNR of the noisy pictures, of total variation and of non-local means."""
    from skimage import restoration

    def variation(picture: np.ndarray, weight: float) -> np.ndarray:
        found: np.ndarray = restoration.denoise_tv_chambolle(picture, weight=weight, channel_axis=-1)
        return found

    def means(picture: np.ndarray, strength: float) -> np.ndarray:
        sigma = SIGMA / 255
        found: np.ndarray = restoration.denoise_nl_means(
            picture, patch_size=5, patch_distance=6, h=strength * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
        )
        return found

    methods: dict[str, tuple[Callable[..., np.ndarray], tuple[float, ...]]] = {
        "total variation": (variation, TV),
        "non-local means": (means, MEANS),
    }
    clean, given = tests(options)
    tried = data[: options.tuned_on]
    tried_noisy = records.noisy(tried, SIGMA, seed=2_000_000)
    found: dict[str, Any] = {"noisy": {"psnr": records.mean_psnr(given, clean), "pictures": len(clean)}}
    for name, (method, strengths) in methods.items():
        chosen = {s: records.mean_psnr([method(one, s).clip(0, 1) for one in tried_noisy], tried) for s in strengths}
        best = max(chosen, key=lambda strength: chosen[strength])
        restored = [method(one, best).clip(0, 1) for one in given]
        tuned = {str(strength): value for strength, value in chosen.items()}
        found[name] = {"psnr": records.mean_psnr(restored, clean), "strength": best, "on_training_pictures": tuned}
    return found


def hourglass(options: argparse.Namespace) -> dict[str, Any]:
    """Return the PSNR of the hourglass on the same pixels, and how it was trained."""
    one = trained.load(options.model, device=options.device)
    clean, given = tests(options)
    about = {name: one.info[name] for name in ("recipe", "pictures", "seconds", "device", "precision", "date")}
    return {"psnr": records.mean_psnr([one(each) for each in given], clean), **about}


def compare(name: str, data: np.ndarray, recipe: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Run one comparison, and return the figures of each of its runs."""
    fixed = {**recipe, "epochs": options.epochs, "clip": name == "loss"}
    grid = GRIDS[name]
    found = {}
    if name == "architecture":
        sweeps = {variant: (variant, data, {"seed": [0]}) for variant in VARIANTS}
    elif name == "pictures":
        sweeps = {f"{count} pictures": ("hourglass", data[:count], grid) for count in options.counts}
        # equally many steps for all: each goes through as many pictures
        fixed["per_epoch"] = None
    else:
        sweeps = {"": ("hourglass", data, grid)}
    for title, (model, chosen, values) in sweeps.items():
        given = {key: value for key, value in fixed.items() if key not in values}
        given["batch"] = min(given["batch"], len(chosen) // 2)
        if name == "pictures":
            given["epochs"] = max(1, options.epochs * len(data) // len(chosen))
        folder = options.runs / name / (title or "all").replace(" ", "-")
        runs = trained.sweep(model, chosen, values, out=folder, device=options.device, say=print, **given)
        if runs[-1]["stop_reason"] == "interrupted":
            raise SystemExit("interrupted; repeat the command to go on")
        for one in runs:
            label = title if name == "architecture" else ", ".join(filter(None, (title, one["name"])))
            kept = ("psnr_noisy", "psnr_against_clean", "validation_loss", "epochs")
            found[label] = {key: one["figures"][key] for key in kept} | {
                "stop_reason": one["stop_reason"],
                "seconds": one["seconds"],
                "psnr_by_epoch": [value and round(value, 3) for value in one["history"]["psnr_against_clean"]],
            }
    return finite(found)


def finite(value: Any) -> Any:
    """Return nested values with None for what is not finite."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


if __name__ == "__main__":
    main()
