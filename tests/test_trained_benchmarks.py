"""The benchmarks of trained models run from start to end at a toy size, and their reports say what was measured."""

from __future__ import annotations

import gzip
import importlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from scripts import BENCHMARKS, run
from skimage.io import imread, imsave

import dip
from dip.trained import curves, store

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cuts of a photograph in the formats and under the names of the data sets."""
    folder = tmp_path_factory.mktemp("data")
    photo, rng = skimage.data.astronaut(), np.random.default_rng(0)

    def cuts(count: int, size: int) -> np.ndarray:
        places = rng.integers(0, 512 - size, (count, 2))
        return np.stack([photo[top : top + size, left : left + size] for top, left in places])

    cifar = folder / "cifar-10-batches-bin"
    cifar.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        records = np.zeros((8, 3073), np.uint8)
        records[:, 1:] = cuts(8, 32).transpose(0, 3, 1, 2).reshape(8, -1)
        (cifar / f"{name}.bin").write_bytes(records.tobytes())
    (cifar / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n")
    mnist = folder / "mnist"
    mnist.mkdir()
    for prefix, count in (("train", 30), ("t10k", 12)):
        head, pixels = struct.pack(">iiii", 2051, count, 28, 28), cuts(count, 28)[..., 0]
        (mnist / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.tobytes()))
        labels = struct.pack(">ii", 2049, count) + bytes(count)
        (mnist / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    for name, size in (("bsds400", 60), ("set9", 96)):
        (folder / name).mkdir()
        for i, cut in enumerate(cuts(3, size)):
            imsave(folder / name / f"{i}.png", cut, check_contrast=False)
    return folder


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning curves as an empty picture: a real one takes a second, and test_trained_faces.py has some."""
    monkeypatch.setattr(curves, "draw", lambda histories, title="": f"{title}: {', '.join(histories)}".encode())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = dip.trained.create("cnn5-residual", width=3, generator=torch.Generator().manual_seed(0))
    info = {"recipe": {"noise": "gaussian:25"}}
    return store.write(tmp_path / "model.safetensors", net, "cnn5-residual", {"width": 3}, info)


def common(data: Path, folder: Path) -> list[object]:
    words = ["--data", data, "--runs", folder / "runs", "--device", "cpu"]
    return [*words, "--out", folder / "report.json", "--pictures", folder / "pictures"]


def report(folder: Path) -> dict:
    found = json.loads((folder / "report.json").read_text())
    assert found["environment"]["dip"] == dip.__version__
    return found


def test_models_of_the_package_are_trained_with_their_cards(data, tmp_path, monkeypatch, no_curves):
    names = ("cnn5", "dncnn")
    words = [*names, *common(data, tmp_path)[:6], "--weights", tmp_path / "weights"]
    words += ["--epochs", 1, "--per-epoch", 16, "--width", 3]
    run("train_models.py", *words)
    with monkeypatch.context() as patch:
        patch.setattr(store, "FOLDER", tmp_path / "weights")
        cards = dip.trained.models()
        models = {name: dip.trained.load(name, device="cpu") for name in names}
    assert set(cards) == set(names)
    for name, card in cards.items():
        one = models[name]
        assert card["parameters"] == one.parameters
        assert card["command"].endswith(name)
        assert "trained on" in card["licence"]
        assert all(np.isfinite(value) for value in card["figures"].values())
    assert [*cards["cnn5"]["unseen"]] == ["8 pictures of cifar10 test, gaussian:25.5"]
    assert [*cards["dncnn"]["unseen"]] == [f"3 pictures of set9, gaussian:{s}, clipped" for s in (15, 25, 50)]
    for figures in (figures for card in cards.values() for figures in card["unseen"].values()):
        assert 0 < figures["noisy"] < 30
        assert 0 < figures["restored"] < 60
    assert run("train_models.py", *words).count("is there, and kept") == 2


def test_toy_models_do_not_go_into_the_package(data, capsys):
    with pytest.raises(SystemExit):
        run("train_models.py", "cnn5", "--data", data, "--epochs", 1)
    assert "give another folder for the --weights" in capsys.readouterr().err


def test_noise2noise_and_its_comparisons(data, tmp_path, monkeypatch, no_curves):
    images, _ = dip.datasets.cifar10(data / "cifar-10-batches-bin")
    recipe = {"method": "noise2noise", "width": 3, "epochs": 1, "batch": 8}
    dip.trained.train("hourglass", images, out=tmp_path / "model", device="cpu", progress=False, **recipe)
    words = [*common(data, tmp_path), "--model", tmp_path / "model" / "weights.safetensors"]
    words += ["--epochs", 1, "--limit", 24, "--batch", 8, "--tests", 2]
    words += ["--counts", 8, "--width", 3, "--tuned-on", 4]
    compared = {"pictures": 2, "architecture": 5}
    words += ["--only", "model", *compared]
    run("noise2noise.py", *words)
    found = report(tmp_path)
    assert set(found["classical"]) == {"noisy", "total variation", "non-local means"}
    assert found["classical"]["noisy"]["psnr"] == pytest.approx(19.63, abs=0.3)
    assert found["classical"]["total variation"]["psnr"] > found["classical"]["noisy"]["psnr"] + 1
    best = max(found["classical"][name]["psnr"] for name in ("total variation", "non-local means"))
    assert found["bar"]["above_the_better_classical_one"] == pytest.approx(found["hourglass"]["psnr"] - best, abs=2e-3)
    assert found["bar"]["at_least_24.2"] == (found["hourglass"]["psnr"] >= 24.2)
    assert {name: len(found[name]) for name in compared} == compared
    assert found["hourglass"]["recipe"]["method"] == "noise2noise"
    for name in ("noise2noise", "noise2noise-pictures", "noise2noise-architecture"):
        assert imread(tmp_path / "pictures" / f"{name}.png").shape[1] > 300
    before = (tmp_path / "report.json").read_text()
    monkeypatch.setattr(dip.trained, "train", None)
    monkeypatch.setattr(dip.trained, "sweep", None)
    run("noise2noise.py", *words)  # nothing is run again
    assert json.loads(before)["pictures"] == report(tmp_path)["pictures"]


def test_early_stopping_answers_the_claims(data, tmp_path, no_curves):
    words = [*common(data, tmp_path), "--epochs", 2, "--limit", 24, "--width", 3, "--rates", 1e-2, 1e-3]
    words += ["--models", "cnn5-residual-bn"]
    run("early_stopping.py", *words)
    found = report(tmp_path)
    for name in ("cnn5-residual-bn",):
        runs = found[name]
        assert len(runs) == 4
        assert all(one["recipe"]["validate"] == "clean" for one in runs.values())
        off = {one["recipe"]["lr"]: one for one in runs.values() if not one["recipe"]["early_stopping"]}
        best = max(off, key=lambda lr: off[lr]["figures"]["psnr_against_clean"])
        assert found["claims"][name]["best_lr_without_early_stopping"] == best
        assert set(found["claims"][name]["dB_lost_by_early_stopping"]) == {"0.01", "0.001"}
        drawn = (tmp_path / "pictures" / f"report-{name}.png").read_text()
        assert drawn == f"{name}, validated on clean pictures: {', '.join(runs)}"


def test_autoencoder(data, tmp_path):
    run("autoencoder.py", *common(data, tmp_path), "--epochs", 2, "--digits", 3)
    found = report(tmp_path)
    loss = found["clean to clean"]["history"]["train_loss"][-1]
    assert found["bar"] == {"clean_training_loss": loss, "at_most": 0.0875, "reached": loss <= 0.0875}
    for name in ("curves", "clean-to-clean", "noisy-to-clean"):
        assert imread(tmp_path / "pictures" / f"autoencoder-{name}.png").shape[1] > 200


def test_seams(data, tmp_path, model):
    words = ("--model", model, "--picture", "set9/0", "--size", 96, "--tile", 60)
    run("seams.py", *common(data, tmp_path), *words)
    found = report(tmp_path)[str(model)]
    assert found["largest_difference_of_tiles_and_whole"] < 1e-5
    assert found["within_1_percent"]
    assert imread(tmp_path / "pictures" / "seams-cnn5-residual.png").shape[0] > 200


def test_jumps_are_seen(monkeypatch):
    """A picture with a step at each border of a tile, by hand; and one without."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    seams = importlib.import_module("seams")
    x = torch.zeros(1, 1, 16, 16)
    x[..., 4:8] = 1  # steps at columns 4 and 8 of 4, 8, 12; none along the rows
    monkeypatch.setattr(seams, "MARGIN", 0)
    lines = seams.Lines(0)
    lines.add(x, 4)
    # a step of 1 gives 2 in the line itself and 1 in each of its neighbours; 3 lines along each axis are borders
    assert lines.jumps()["at_borders"] == pytest.approx((2 + 2) / 6)
    assert lines.jumps()["elsewhere"] == pytest.approx(4 / 20)
    ramp = seams.Lines(0)
    ramp.add(torch.arange(16.0).expand(1, 1, 16, 16), 4)
    assert ramp.at == [0] * 6


def test_the_content_of_a_picture_counts_the_same_at_borders_and_elsewhere(monkeypatch):
    """Over all placements each line is a border once: a picture without seams has a ratio of 1, whatever is in it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    seams = importlib.import_module("seams")
    monkeypatch.setattr(seams, "MARGIN", 2)
    x = torch.from_numpy(np.random.default_rng(0).random((1, 1, 40, 40)) * np.linspace(0, 1, 40) ** 2)
    whole, seamed = seams.Lines(8), seams.Lines(8)
    for offset in range(6):
        part = x[..., offset:, offset:]
        whole.add(part, 6, offset)
        tiles = torch.arange(part.shape[-1]) // 6 % 2  # 0.1 brighter, every other tile
        seamed.add(part + 0.1 * (tiles[:, None] ^ tiles), 6, offset)
    assert whole.jumps()["ratio"] == pytest.approx(1, abs=1e-12)
    assert seamed.jumps()["ratio"] > 1.05


def test_backends_stand_in_one_table(data, tmp_path, model):
    words = [*common(data, tmp_path), "--model", model, "--iters", 2, "--size", 32, "--table", tmp_path / "table.md"]
    run("backends.py", *words, "--noises", "gaussian 25", "impulse 0.1")
    found = report(tmp_path)
    assert set(found["mean"]) == {"gaussian 25", "impulse 0.1"}
    assert set(found["mean"]["gaussian 25"]) == {"noisy", "dip", str(model)}
    assert set(found["mean"]["impulse 0.1"]) == {"noisy", "dip", "dip, L1", str(model)}
    values = [found[f"gaussian 25/{i}/dip"]["psnr"] for i in range(3)]
    assert found["mean"]["gaussian 25"]["dip"]["psnr"] == pytest.approx(np.mean(values), abs=1e-3)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[4] == "| | trained on | gaussian 25 | impulse 0.1 |"
    assert sum(line.startswith(("| dip | nothing |", "| model | gaussian:25 |", "| noisy |")) for line in lines) == 3
    assert (tmp_path / "pictures" / "backends-gaussian-25.png").exists()


def test_robustness_counts_what_came_of_damaged_files(data_dir, tmp_path):
    if not (data_dir / "cifar-10-batches-bin").is_dir() or not (data_dir / "mnist").is_dir():
        pytest.skip("CIFAR-10 or MNIST is not in DIP_DATA")
    run("robustness.py", "--data", data_dir, "--count", 16, "--out", tmp_path / "report.json")
    found = report(tmp_path)
    for kind in ("weights", "MNIST, unpacked", "CIFAR-10, extracted"):
        assert found[kind] == {"refused in one line": 16, "files_written": 0}
    for kind in ("MNIST, gzipped", "CIFAR-10, archive"):  # bytes of gzip's header mean nothing
        assert set(found[kind]) <= {"refused in one line", "read, and the content is whole", "files_written"}
        assert found[kind]["refused in one line"] > 8
