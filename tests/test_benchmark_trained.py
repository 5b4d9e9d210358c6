"""Trained models as methods of the benchmark."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

import dip
from dip import batch, benchmark, cli, datasets
from dip.benchmark import tables
from dip.noise import noise_level
from dip.trained import architectures, store

PHOTOGRAPHS = {entry.name: entry for entry in datasets.pictures("photographs")}
ASTRONAUT, CAMERA = PHOTOGRAPHS["astronaut"], PHOTOGRAPHS["camera"]
QUICK = ["benchmark", "--pictures", "camera", "--size", "32"]


def write(path: Path, name: str = "cnn5-residual", channels: int = 3, seed: int = 0, **recipe: object) -> Path:
    options = {} if name == "autoencoder" else {"width": 3}
    model = architectures.create(name, channels, generator=torch.Generator().manual_seed(seed), **options)
    return store.write(path, model, name, options, {"recipe": {"noise": "gaussian:5-55", **recipe}, "figures": {}})


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the package's weights, with those of one model and its card."""
    folder = tmp_path / "weights"
    path = write(folder / "cnn5-residual.safetensors")
    card = {"model": "cnn5-residual", "recipe": {"noise": "gaussian:5-55"}, "figures": {"psnr": 30.0}}
    path.with_suffix(".json").write_text(json.dumps(card))
    monkeypatch.setattr(store, "FOLDER", folder)
    return folder


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("entry", [ASTRONAUT, CAMERA], ids=["colour", "gray"])
def test_a_model_denoises_as_it_does_elsewhere(tmp_path, entry, channels, clip):
    path = write(tmp_path / "mine.safetensors", channels=channels)
    case = replace(benchmark.Protocol("denoise", {"clip": clip}, size=40).case(entry.read()), device="cpu")
    method = benchmark.find(f"trained={path}")
    restored = method.function(case, **method.options)
    assert restored.shape == case.clean.shape
    with torch.no_grad():
        model = store.read(path).model
        planes = torch.from_numpy(case.y[None] if case.y.ndim == 2 else case.y.transpose(2, 0, 1))[:, None]
        if channels == 3 and len(planes) == 1:
            drawn = torch.randn((1, 3, *planes.shape[2:]), generator=torch.Generator().manual_seed(0))
            colours = 3**0.5 * noise_level(planes) * (drawn - drawn.mean(dim=1, keepdim=True))
            found = model(planes + colours).mean(dim=1)
        else:
            found = model(planes.transpose(0, 1) if channels == 3 else planes)
        found = found.reshape(planes[:, 0].shape).clamp(0, 1).numpy()
    np.testing.assert_allclose(restored, found[0] if case.y.ndim == 2 else found.transpose(1, 2, 0), atol=1e-5)
    assert case.log["trained"]["noise"] == "gaussian:5-55"
    assert bool(case.log["trained"]["manner"]) == (channels != (1 if case.y.ndim == 2 else 3))
    if clip:
        expected = dip.denoise(case.y, backend="trained", model=path, device="cpu")
        np.testing.assert_allclose(restored, expected, atol=1e-6)


def test_the_models_of_the_package_are_methods_for_denoising(weights, capsys):
    assert benchmark.names("denoise")["cnn5-residual"] == "trained model cnn5-residual: on gaussian:5-55"
    assert "cnn5-residual" not in benchmark.names("inpaint")
    assert "trained=FILE" in benchmark.names()
    method = benchmark.find("cnn5-residual")
    assert (method.name, method.random, method.told) == ("cnn5-residual", False, "trained on gaussian:5-55")
    with pytest.raises(ValueError, match="for denoise, not for inpaint"):
        method.check("inpaint")
    with pytest.raises(ValueError, match="cnn5-residual is none"):
        benchmark.find("cnn5-residual+twice")
    with pytest.raises(ValueError, match="did you mean 'cnn5-residual'"):
        benchmark.find("cnn5-residal")
    with pytest.raises(SystemExit):
        cli.main(["benchmark", "--list"])
    assert "trained model cnn5-residual: on gaussian:5-55" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"clip": True}, "trained on gaussian:5-55, clipped"),
        ({"method": "noise2noise"}, "trained on gaussian:5-55, noise2noise"),
        ({"method": "supervised", "noise": "poisson:30"}, "trained on poisson:30"),
        ({"noise": "none"}, "trained on clean pictures"),
    ],
)
def test_it_is_said_what_a_model_was_trained_on(tmp_path, recipe, told):
    assert benchmark.find(f"trained={write(tmp_path / 'mine.safetensors', **recipe)}").told == told


def test_the_record_has_the_hash_of_the_weights(weights, tmp_path):
    protocol, folder = benchmark.Protocol("denoise", size=32), tmp_path / "out"

    def run():
        return benchmark.run([CAMERA], protocol, ["cnn5-residual"], folder, device="cpu", seeds=[0, 1])

    assert run().done == 1  # it draws no numbers: once, and not for each seed
    assert run().kept == 1
    write(weights / "cnn5-residual.safetensors", seed=1)
    assert run().done == 1  # other weights under the same name are another job
    records = tables.records(folder)
    assert len({one["options"]["weights"] for one in records}) == 2
    path = weights / "cnn5-residual.safetensors"
    assert records[1]["options"]["weights"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert records[1]["trained"]["weights"] == records[1]["options"]["weights"]
    assert records[1]["trained"]["recipe"] == {"noise": "gaussian:5-55"}
    assert records[1]["parameters"] == dip.trained.load(path, device="cpu").parameters
    benchmark.report(folder)
    for one in records:  # they are not averaged either
        named = f"cnn5-residual, weights {one['options']['weights'][:12]}"
        assert f"| {named} | trained on gaussian:5-55 |" in (folder / "results.md").read_text()


def test_the_weights_travel_with_the_job(tmp_path):
    """To where there is no such file, and give the same bits there."""
    path = write(tmp_path / "mine.safetensors")
    protocol = benchmark.Protocol("denoise", size=32)
    methods = [f"trained={path}"]
    benchmark.run([CAMERA], protocol, methods, tmp_path / "here", device="cpu")
    found = [benchmark.find(methods[0])]
    path.unlink()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        place = batch.Given(executor, 1)
        assert benchmark.run([CAMERA], protocol, found, tmp_path / "there", device="cpu", place=place).done == 1
    here, there = (tables.records(tmp_path / name)[0] for name in ("here", "there"))
    assert here["figures"]["psnr"] == pytest.approx(there["figures"]["psnr"], abs=1e-4)
    assert here["key"] == there["key"]


def test_a_file_is_named_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("runs/a+b:c/weights.safetensors"))
    methods = "tv,trained=runs/a+b:c/weights.safetensors"
    assert cli.main([*QUICK, "--methods", methods, "-o", "report"]) == 0
    said = capsys.readouterr().out
    assert "camera, trained=runs/a+b:c/weights.safetensors: " in said
    assert "2 done" in said


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("dncnn", "this version of the package has no weights of that model; train it (dip train dncnn"),
        ("trained=nowhere.safetensors", "is no file with weights"),
        ("trained=", "is no file with weights"),
        ("trained=dncnn", "no weights of model 'dncnn'"),
        ("trained=broken.safetensors", "is damaged"),
        ("trained=model.pth", "is a pickle"),
    ],
)
def test_weights_that_are_not_there_or_none_are_refused(weights, tmp_path, monkeypatch, capsys, method, message):
    monkeypatch.chdir(tmp_path)
    Path("broken.safetensors").write_bytes(b"x" * 100)
    Path("model.pth").write_bytes(b"PK\x03\x04")
    assert cli.main([*QUICK, "--methods", method, "-o", "report"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not Path("report").exists()
