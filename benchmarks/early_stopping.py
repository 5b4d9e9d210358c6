"""The report on five-layer networks: does early stopping hurt, and is a learning rate of 1e-4 the best?

    python benchmarks/early_stopping.py --data DATA              as the report: 100 epochs of all pictures
    python benchmarks/early_stopping.py --data DATA --reduced    learning rates 1e-3 and 1e-4, 5 epochs of 5,000
    pictures

Three models (cnn5, with residual, with batch normalisation), Gaussian noise of sigma 0.1 (25.5), MSE, Adam, batch 32,
learning rates 1e-2 to 1e-5, early stopping on and off (patience 5, best weights). As in the report the noise is off
outside training, so that early stopping watches clean pictures (--validate clean); what is compared is the PSNR of
noisy ones. The last question of the table, whether it would have been otherwise on noisy pictures, is answered by
--validate noisy, which goes into a report of its own.
"""

from __future__ import annotations

import argparse
from typing import Any

import records
from noise2noise import finite
from train_models import pictures

from dip import trained
from dip.trained import curves

MODELS = ("cnn5", "cnn5-residual", "cnn5-residual-bn")
RATES = (1e-2, 1e-3, 1e-4, 1e-5)


def main(arguments: list[str] | None = None) -> None:
    """Run the sweeps, and write the report and the plots."""
    parser = records.parser(__doc__, "early_stopping")
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--validate", choices=["clean", "noisy"], default="clean")
    parser.add_argument("--rates", type=float, nargs="+")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--limit", type=int, help="pictures")
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--width", type=int, help="channels inside, for trying it out")
    options = records.parse(parser, arguments)
    epochs = options.epochs or (5 if options.reduced else 100)
    options.limit = options.limit or (5000 if options.reduced else None)
    patience = min(options.patience, 2) if options.reduced else options.patience
    rates = options.rates or ((1e-3, 1e-4) if options.reduced else RATES)
    out = options.out if options.validate == "clean" else options.out.with_stem(f"{options.out.stem}-noisy")
    protocol = {"epochs": epochs, "limit": options.limit, "patience": patience, "rates": list(rates), "seed": 0}
    report = records.Report(out, **protocol, validate=options.validate, sigma=25.5, batch=32, width=options.width)
    for model in options.models:
        report.part(model, lambda model=model: follow(model, report.parts["protocol"], options))
        histories = {name: one["history"] for name, one in report.parts[model].items()}
        path = options.pictures / f"{out.stem}-{model}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(curves.draw(histories, title=f"{model}, validated on {options.validate} pictures"))
    report.set(claims=claims({model: report.parts[model] for model in options.models}, rates))
    print(report.parts["claims"], flush=True)


def follow(model: str, protocol: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Sweep over one model."""
    runs = trained.sweep(
        model,
        pictures("cifar10", options),
        {"lr": protocol["rates"], "early_stopping": [True, False]},
        out=options.runs / options.validate / model,
        device=options.device,
        say=print,
        noise="gaussian:25.5",
        batch=32,
        epochs=protocol["epochs"],
        patience=protocol["patience"],
        validate=options.validate,
        width=options.width,
    )
    if runs[-1]["stop_reason"] == "interrupted":
        raise SystemExit("interrupted; repeat the command to go on")
    kept = ("recipe", "figures", "stop_reason", "seconds", "device", "history")
    return finite({one["name"]: {key: one[key] for key in kept} for one in runs})


def claims(found: dict[str, dict[str, Any]], rates: Any) -> dict[str, Any]:
    """Return what is true of the report's claims, by the PSNR of the weights that are kept."""

    def psnr(model: str, rate: float, stopping: bool) -> float | None:
        for one in found[model].values():
            if one["recipe"]["lr"] == rate and one["recipe"]["early_stopping"] is stopping:
                value: float | None = one["figures"]["psnr_against_clean"]
                return value
        return None

    answers: dict[str, Any] = {}
    for model in found:
        off = {rate: value for rate in rates if (value := psnr(model, rate, False)) is not None}
        pairs = {rate: (psnr(model, rate, True), psnr(model, rate, False)) for rate in rates}
        losses = {f"{rate:g}": round(b - a, 3) for rate, (a, b) in pairs.items() if a is not None and b is not None}
        answers[model] = {
            "best_lr_without_early_stopping": max(off, key=lambda rate: off[rate]) if off else None,
            "dB_lost_by_early_stopping": losses,
            "early_stopping_hurts": bool(losses) and max(losses.values()) > 0.05,
        }
    return answers


if __name__ == "__main__":
    main()
