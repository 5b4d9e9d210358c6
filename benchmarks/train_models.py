"""Train the models that come with the package, and write their weights and model cards.

    python benchmarks/train_models.py --data DATA cnn5 cnn5-residual cnn5-residual-bn hourglass autoencoder
    python benchmarks/train_models.py --data DATA dncnn dncnn-small

One command a model is enough, and each can be repeated: a model that is there is not trained again, one that was cut
off goes on. The weights go to dip/trained/weights, with a card (JSON) that has the script, the recipe, the data, seed,
device, date, licence and figures: those of the validation, and of pictures that were seen neither in training nor in
validation (CIFAR-10's and MNIST's test files; for bsds400 the nine pictures of Set9). Everything else is in RUNS.

The options --epochs, --limit, --per-epoch and --width are for trying it out; what they give is no model of the package,
so --weights must name another folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import records

import dip
from dip import trained

CNN5 = {"noise": "gaussian:25.5", "batch": 32, "epochs": 20, "lr": 1e-3, "schedule": "cosine", "augment": True}
DNCNN = {"noise": "gaussian:0-55", "lr": 1e-3, "schedule": "cosine", "augment": True, "validation": 0.05}
NOISE2NOISE = {"method": "noise2noise", "noise": "gaussian:26.6", "batch": 128, "lr": 2e-3}
# Of some seeds and rates the one that was ahead after 7 epochs: so narrow a net depends on what it begins with.
AUTOENCODER = {"loss": "bce", "batch": 128, "epochs": 100, "lr": 5e-3, "schedule": "cosine", "seed": 2}
AUTOENCODER |= {"validation": 0.02}

# By model: the data, and the recipe beside what is the default of `dip.trained.Recipe`.
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn5": ("cifar10", CNN5),
    "cnn5-residual": ("cifar10", CNN5),
    "cnn5-residual-bn": ("cifar10", CNN5),
    "hourglass": ("cifar10", {**NOISE2NOISE, "epochs": 40, "schedule": "cosine", "augment": True}),
    "autoencoder": ("mnist", {"noise": "gaussian:127.5", "clip": True, **AUTOENCODER}),
    "dncnn": ("bsds400", {**DNCNN, "batch": 128, "epochs": 40, "per_epoch": 128_000}),
    "dncnn-small": ("bsds400", {**DNCNN, "batch": 64, "epochs": 16, "per_epoch": 38_400}),
}
LICENCES = {
    "cifar10": "trained on CIFAR-10 (A. Krizhevsky, 2009), whose pictures were collected from the web for research",
    "mnist": "trained on MNIST (Y. LeCun, C. Cortes, C. Burges), distributed under CC BY-SA 3.0",
    "bsds400": "trained on 400 pictures of BSDS500 (Berkeley), for non-commercial research and education only",
}
FOLDERS = {"cifar10": "cifar-10-batches-bin", "mnist": "mnist", "bsds400": "bsds400"}
PATCH = 40


def main(arguments: list[str] | None = None) -> None:
    """Train what is named, and write weights and cards."""
    parser = records.parser(__doc__, "train_models", report=False)
    parser.add_argument(
        "model", nargs="+", choices=list(RECIPES), metavar="MODEL", help=f"some of {', '.join(RECIPES)}"
    )
    parser.add_argument("--weights", type=Path, default=trained.store.FOLDER, help="where weights and cards go")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--limit", type=int, help="pictures")
    parser.add_argument("--per-epoch", type=int)
    parser.add_argument("--width", type=int)
    options = records.parse(parser, arguments)
    changed = {name: getattr(options, name) for name in ("epochs", "per_epoch", "width") if getattr(options, name)}
    if (changed or options.limit) and options.weights == trained.store.FOLDER:
        parser.error("with --epochs, --limit, --per-epoch or --width give another folder for the --weights")
    for name in options.model:
        kind, recipe = RECIPES[name]
        given = {key: value for key, value in changed.items() if key != "width" or name in WIDE}
        card = options.weights / f"{name}.json"
        if card.exists():
            print(f"{card} is there, and kept", flush=True)
            continue
        learn(name, kind, {**recipe, **given}, options)
        print(f"{card}: {json.loads(card.read_text())['figures']}", flush=True)


WIDE = [name for name in RECIPES if name.startswith(("cnn5", "hourglass")) or name == "dncnn"]


def learn(name: str, kind: str, recipe: dict[str, Any], options: Any) -> None:
    """Train one model, unless its run is finished, and write its weights and card."""
    folder = options.runs / name
    about = {"data": {"kind": kind, "limit": options.limit, **({"patch": PATCH} if kind == "bsds400" else {})}}
    report = records.train_once(name, pictures(kind, options), folder, options.device, about=about, **recipe)
    one = trained.load(folder / "weights.safetensors", device=options.device)
    data = (folder / "weights.safetensors").read_bytes()
    card = {
        "model": name,
        "parameters": one.parameters,
        "figures": seen(report),
        "unseen": unseen(one, kind, recipe, options),
        "data": report["data"],
        "pictures": report["pictures"],
        "recipe": report["recipe"],
        "script": "benchmarks/train_models.py",
        "command": f"python benchmarks/train_models.py --data DATA {name}",
        "seed": report["seed"],
        "device": next(one for one in report["environment"]["devices"] if one.startswith(report["device"])),
        "precision": report["precision"],
        "seconds": report["seconds"],
        "date": report["date"],
        "versions": {key: report["environment"][key] for key in ("dip", "python", "torch", "numpy")},
        "licence": f"The weights are {LICENCES[kind]}. They carry no pictures.",
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    options.weights.mkdir(parents=True, exist_ok=True)
    (options.weights / f"{name}.safetensors").write_bytes(data)
    (options.weights / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n")


def pictures(kind: str, options: Any, *, train: bool = True) -> Any:
    """Return the pictures of a data set, or patches of them."""
    folder = options.data / FOLDERS[kind]
    if kind == "bsds400":
        return dip.datasets.Patches(folder, PATCH, limit=options.limit)
    read = dip.datasets.cifar10 if kind == "cifar10" else dip.datasets.mnist
    return read(folder, train=train, limit=options.limit)[0]


def seen(report: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the training itself."""
    names = ("train_loss", "validation_loss", "psnr_noisy", "psnr_against_clean")
    return {name: float(f"{report['figures'][name]:.4g}") for name in names}


def unseen(one: trained.Denoiser, kind: str, recipe: dict[str, Any], options: Any) -> dict[str, dict[str, float]]:
    """Return the mean PSNR on pictures that were not seen, by what they are: noisy, and restored."""
    if kind == "bsds400":
        tests = [dip.files.read(path).pixels for path in dip.files.find(options.data / "set9")][: options.limit]
        noises, clip, name = [f"gaussian:{sigma}" for sigma in (15, 25, 50)], True, "set9"
    else:
        tests = list(pictures(kind, options, train=False))
        noises, clip, name = [recipe["noise"]], recipe.get("clip", False), f"{kind} test"
    found = {}
    for noise in noises:
        sigma = trained.noise.read(noise).high
        given = [records.noisy_one(clean, sigma, seed=i, clip=clip) for i, clean in enumerate(tests)]
        restored = [one(each) for each in given]
        label = f"{len(tests)} pictures of {name}, {noise}{', clipped' if clip else ''}"
        found[label] = {"noisy": records.mean_psnr(given, tests), "restored": records.mean_psnr(restored, tests)}
    return found


if __name__ == "__main__":
    main()
