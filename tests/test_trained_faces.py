"""Trained models from Python and from the command line: applied, trained, swept."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.io import imread, imsave

import dip
from dip import arguments, cli, files, noise_arguments, place_arguments
from dip.console import one_line
from dip.trained import architectures, store, training

CIFAR = 3073  # bytes a record


def dip_command(*words: object) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(shape=(20, 24, 3), seed=0) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape[:2])
    plane = 0.5 + 0.3 * np.sin(5 * columns + 3 * rows)
    plane = plane if len(shape) == 2 else plane[..., None] * np.linspace(0.7, 1, shape[2])
    return (
        np.rint(255 * (plane + 0.05 * np.random.default_rng(seed).standard_normal(shape))).clip(0, 255).astype("uint8")
    )


def model_file(name: str = "mine.safetensors", channels: int = 3) -> Path:
    model = architectures.create("cnn5-residual-bn", channels, width=3, generator=torch.Generator().manual_seed(0))
    info = {"recipe": {"lr": 0.1}, "figures": {"psnr_against_clean": 30.0}}
    return store.write(name, model, "cnn5-residual-bn", {"width": 3}, info)


@pytest.fixture
def cifar(here: Path) -> str:
    """A tiny CIFAR-10 in the official binary format."""
    folder = here / "cifar"
    folder.mkdir()
    for number in range(1, 6):
        records = np.zeros((6, CIFAR), np.uint8)
        for i, record in enumerate(records):
            record[1:] = picture((32, 32, 3), seed=10 * number + i).transpose(2, 0, 1).reshape(-1)
        (folder / f"data_batch_{number}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n")
    return f"cifar10:{folder}"


# ---------------------------------------------------------------------- applied


def test_the_function_applies_the_model():
    image, path = picture(), model_file()
    expected = dip.trained.load(path, device="cpu")(image)
    np.testing.assert_array_equal(dip.denoise(image, backend="trained", model=path, device="cpu"), expected)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    batch = dip.denoise(torch.stack([tensor, tensor]), backend="trained", model=str(path), device="cpu")
    np.testing.assert_array_equal(batch[1].permute(1, 2, 0).numpy(), expected)
    gray = dip.denoise(image[None, ..., 0], backend="trained", model=path, device="cpu", channel_axis=0)
    assert gray.shape == (1, 20, 24)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"iters": 3}, ValueError, "iters means nothing"),
        ({"resume": "x"}, ValueError, "resume means nothing"),
        ({"seed": 0}, ValueError, "seed means nothing"),
        ({"preset": "fast", "stop": dip.stopping.Discrepancy(0.1)}, ValueError, "preset, stop means nothing"),
        ({"sede": 0}, TypeError, "sede"),
        ({"model": None}, ValueError, "needs model="),
        ({"backend": "train"}, ValueError, "unknown backend 'train'; did you mean 'trained'"),
        ({"backend": "dip"}, ValueError, "model= means nothing without backend"),
        ({"device": "tpu"}, ValueError, "unknown device"),
    ],
)
def test_the_function_refuses_what_means_nothing(options, error, message):
    given = {"backend": "trained", "model": model_file(), **options}
    with pytest.raises(error, match=message):
        dip.denoise(picture(), **given)


def test_one_picture_from_the_command_line(capsys):
    path, image = model_file(), picture()
    alpha = np.linspace(0, 255, 480).reshape(20, 24).astype("uint8")
    files.write("in.png", image, alpha=alpha)
    imsave("clean.png", picture(seed=1), check_contrast=False)
    words = ("--backend", "trained", "--model", path, "--device", "cpu")
    assert (
        dip_command("denoise", "in.png", "-o", "out.png", *words, "--reference", "clean.png", "--json", "r.json") == 0
    )
    written = files.read("out.png")
    expected = dip.denoise(image, backend="trained", model=path, device="cpu")
    np.testing.assert_array_equal(written.pixels, expected)
    np.testing.assert_array_equal(written.alpha, alpha)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "in.png: 20 x 24 RGB pixels (height x width); model cnn5-residual-bn, trained, cpu"
    assert said[1].startswith("out.png: model cnn5-residual-bn in ")
    report = json.loads(Path("r.json").read_text())
    assert report["settings"]["training"]["recipe"] == {"lr": 0.1}
    assert (report["status"], report["backend"], report["settings"]["channels"]) == ("done", "trained", 3)
    assert report["figures"]["psnr"] == pytest.approx(dip.metrics.psnr(expected, picture(seed=1)), abs=1e-6)
    assert dip_command("denoise", "in.png", "-o", "out.png", *words) == 2
    assert "out.png exists" in capsys.readouterr().err
    assert dip_command("denoise", "in.png", "-o", "out.png", *words, "--force", "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_a_gray_model_on_a_colour_picture_is_said_in_one_line(capsys):
    files.write("in.png", picture())
    path = model_file("gray.safetensors", channels=1)
    words = ("--backend", "trained", "--model", path, "--device", "cpu", "--json", "r.json")
    assert dip_command("denoise", "in.png", "-o", "out.png", *words) == 0
    manner = "the gray model is applied to each of the 3 channels by itself"
    said = capsys.readouterr()
    assert said.out.splitlines()[0].endswith(manner)
    assert said.err == ""
    assert json.loads(Path("r.json").read_text())["settings"]["manner"] == manner


def test_a_folder_from_the_command_line(capsys):
    path = model_file()
    for name in ("a.png", "b/c.png"):
        files.write(Path("in") / name, picture(seed=len(name)))
    Path("in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    words = ("--backend", "trained", "--model", path, "--device", "cpu", "--json", "r.json")
    assert dip_command("denoise", "in", "-o", "out", *words) == 1
    said = capsys.readouterr()
    assert "2 done, 1 failed" in said.out
    assert said.err.count("\n") == 1
    expected = dip.denoise(picture(seed=5), backend="trained", model=path, device="cpu")
    np.testing.assert_array_equal(files.read("out/a.png").pixels, expected)
    assert [entry["status"] for entry in json.loads(Path("r.json").read_text())] == ["done", "done", "failed"]
    assert dip_command("denoise", "in", "-o", "out", *words) == 1
    assert "2 kept, 1 failed" in capsys.readouterr().out
    assert [entry["status"] for entry in json.loads(Path("r.json").read_text())] == ["done", "done", "failed"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--iters", "5"], "--iters means nothing with --backend trained"),
        (["--seed", "0"], "--seed means nothing with --backend trained"),
        (["--preset", "fast"], "--preset means nothing"),
        (["--stop", "discrepancy", "--sigma", "25"], "--stop means nothing"),
        (["--down", "8x5"], "--down means nothing"),
        (["--checkpoint-every", "5"], "--checkpoint-every means nothing"),
        (["--precision", "float32"], "--precision means nothing"),
        (["--engine", "plain"], "--engine means nothing"),
    ],
)
def test_the_command_refuses_what_means_nothing(words, message, capsys):
    files.write("in.png", picture())
    assert (
        dip_command("denoise", "in.png", "-o", "out.png", "--backend", "trained", "--model", model_file(), *words) == 2
    )
    assert message in capsys.readouterr().err
    assert not Path("out.png").exists()


def test_every_option_is_a_fits_or_means_something_for_a_model():
    """A new option of dip denoise has to be put on one side."""
    parser, commands = cli._build()
    known = {action.dest for action in commands["denoise"]._actions}
    both = {
        "help",
        "input",
        "output",
        "reference",
        "json",
        "force",
        "data_range",
        "quiet",
        *place_arguments.PLACES,
        "backend",
        "model",
        "device",
    }
    assert known == both | {"traceback", "invert_mask"} | {*arguments.FIT_ONLY, *noise_arguments.NOISE}
    assert isinstance(parser, argparse.ArgumentParser)


def test_the_command_refuses_other_models(capsys):
    files.write("in.png", picture())
    start = ("denoise", "in.png", "-o", "out.png")
    assert dip_command(*start, "--backend", "trained") == 2
    assert "--backend trained needs --model" in capsys.readouterr().err
    assert dip_command(*start, "--model", "cnn5") == 2
    assert "--model means nothing without --backend trained" in capsys.readouterr().err
    torch.save({}, "weights.pt")
    for name, message in (("weights.pt", "is a pickle"), ("cnn9", "unknown trained model"), ("a/b", "is no file")):
        assert dip_command(*start, "--backend", "trained", "--model", name) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert not Path("out.png").exists()


# ---------------------------------------------------------------------- trained


def test_train_and_apply_from_the_command_line(cifar, capsys):
    words = ("--data", cifar, "--epochs", 2, "--batch", 8, "--width", 3, "--noise", "gaussian:5-30", "--device", "cpu")
    assert dip_command("train", "cnn5-residual", *words, "-o", "run", "--early-stopping", "--lr", "1e-2") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("epoch 1 of 2: loss ")
    assert said[-1].startswith("run/weights.safetensors: epoch ")
    report = json.loads(Path("run/metrics.json").read_text())
    assert report["recipe"]["noise"] == "gaussian:5-30"
    assert report["recipe"]["early_stopping"] is True
    assert report["data"] == {"kind": "cifar10", "pictures": 30, "size": [32, 32, 3]}
    files.write("in.png", picture())
    assert (
        dip_command("denoise", "in.png", "-o", "out.png", "--backend", "trained", "--model", "run/weights.safetensors")
        == 0
    )
    assert imread("out.png").shape == (20, 24, 3)
    assert dip_command("train", "cnn5-residual", *words, "-o", "run") == 2
    assert "metrics.json exists; choose another folder, or replace it with --force" in capsys.readouterr().err


def test_train_on_a_folder_of_pictures(capsys):
    for i in range(4):
        files.write(f"pictures/{i}.png", picture((30, 40, 3), seed=i))
    words = ("--data", "pictures", "--patch", 28, "--per-epoch", 8, "--batch", 4, "--epochs", 1, "--loss", "bce")
    assert dip_command("train", "autoencoder", *words, "--noise", "none", "--augment", "-o", "run", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    report = json.loads(Path("run/metrics.json").read_text())
    assert (report["channels"], report["data"]["patch"], report["pictures"]) == (1, 28, 8)


def test_the_usual_patches_suit_the_model(capsys):
    for i in range(3):
        files.write(f"pictures/{i}.png", picture((50, 48, 3), seed=i))
    words = ("--data", "pictures", "--per-epoch", 4, "--batch", 4, "--epochs", 1, "-o", "run", "--noise", "none")
    assert dip_command("train", "autoencoder", *words) == 0
    assert "PSNR inf -> " in capsys.readouterr().out
    assert json.loads(Path("run/metrics.json").read_text())["data"]["patch"] == 44
    assert dip_command("train", "autoencoder", *words, "--resume") == 2
    assert "the training in run is finished, and has no more to do" in capsys.readouterr().err


def test_ctrl_c_and_resume_from_the_command_line(cifar, capsys, monkeypatch):
    words = ("train", "cnn5", "--data", cifar, "--epochs", 2, "--batch", 8, "--width", 3, "--device", "cpu")
    assert dip_command(*words, "-o", "whole") == 0
    forward, count = training.Training._forward, []

    def pressed(self, x):
        count.append(1)
        if len(count) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, x)

    monkeypatch.setattr(training.Training, "_forward", pressed)
    assert dip_command(*words, "-o", "cut") == 130
    assert capsys.readouterr().out.splitlines()[-1].startswith("interrupted; cut/checkpoint.safetensors: to go on")
    assert dip_command(*words, "-o", "cut") == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert dip_command(*words, "-o", "cut", "--resume") == 0
    one, two = (dip.trained.load(f"{name}/weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


def test_a_sweep_from_the_command_line(cifar, capsys, monkeypatch):
    words = [
        "train",
        "cnn5",
        "--data",
        cifar,
        "--epochs",
        3,
        "--batch",
        8,
        "--width",
        3,
        "--device",
        "cpu",
        "-o",
        "runs",
    ]
    words += ["--patience", 1, "--sweep", "lr=1e-2,1e-3", "--sweep", "early-stopping=on,off"]
    names = [f"lr={lr},early_stopping={stop}" for lr in ("0.01", "0.001") for stop in ("on", "off")]
    validate, count = training.Training._validate, []

    def killed(self):
        count.append(1)
        if len(count) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return validate(self)

    monkeypatch.setattr(training.Training, "_validate", killed)
    assert dip_command(*words) == 130
    assert capsys.readouterr().out.splitlines()[-1] == "interrupted; to go on, repeat the command"
    monkeypatch.undo()
    os.chdir(Path(cifar.partition(":")[2]).parent)
    done = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.json")}
    cut = [path.parent.name for path in Path("runs").rglob("checkpoint.safetensors")]
    assert done
    assert len(cut) == 1
    assert dip_command(*words) == 0
    said = capsys.readouterr().out
    assert said.count("is there, and kept") == len(done)
    assert f"{cut[0]}: goes on" in said
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert sorted(path.name for path in Path("runs").iterdir() if path.is_dir()) == sorted(names)
    table = Path("runs/comparison.md").read_text().splitlines()
    assert table[2].startswith("| lr | early_stopping | validation loss |")
    assert len([line for line in table if line.startswith("| 0.0")]) == 4
    assert sum("**" in line for line in table) == 1
    assert imread("runs/comparison.png").shape[1] > 600
    summary = json.loads(Path("runs/comparison.json").read_text())
    assert [run["name"] for run in summary] == names
    assert [run["recipe"]["lr"] for run in summary] == [0.01, 0.01, 0.001, 0.001]
    for name in names:
        assert {path.name for path in Path("runs", name).iterdir()} == {
            "weights.safetensors",
            "metrics.json",
            "curves.png",
        }
    assert dip_command(*words, "--batch", 4) == 2
    assert "is of a training with other settings or data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet", "--data", "x"], "unknown model 'resnet'"),
        (["cnn5", "--data", "nowhere"], "nowhere does not exist"),
        (["cnn5", "--data", "cifar10:nowhere"], "nowhere"),
        (["cnn5", "--data", "."], "has no pictures"),
        (["cnn5", "--data", "x", "--loss", "bce"], "--loss bce needs a model that ends in a sigmoid"),
        (["cnn5", "--data", "x", "--method", "noise2noise", "--noise", "none"], "leaves pictures clean"),
        (["cnn5", "--data", "x", "--download"], "--download is for cifar10 and mnist"),
        (["cnn5", "--data", "mnist:x", "--patch", "9"], "--patch is for a folder of pictures"),
        (["cnn5", "--data", "x", "--sweep", "lr=1", "--sweep", "lr=2"], "--sweep lr is given twice"),
        (["cnn5", "--data", "x", "--sweep", "lr=1", "--resume"], "--resume is for one training"),
        (["cnn5", "--data", "x", "--patience", 3], "--patience 3 means nothing without early stopping; give --early-"),
        (["cnn5", "--data", "x", "--sweep", "patience=3,4"], "--patience [3, 4] means nothing without early stopping"),
        (["dncnn-small", "--data", "x", "--width", 3], "width is not for model 'dncnn-small', whose width is fixed"),
        (
            ["autoencoder", "--data", "x", "--patch", 40],
            "--patch 40 is no size that autoencoder is trained on; give --patch 44",
        ),
        (["cnn5", "--data", "mnist:~/none"], str(Path("~/none").expanduser())),
    ],
)
def test_refused_trainings(words, message, capsys):
    assert dip_command("train", *words, "-o", "run") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep", "lr"], "is not an option with its values"),
        (["--sweep", "rate=1,2"], "unknown option 'rate'"),
        (["--sweep", "lr=1,x"], "lr=x is not a number"),
        (["--sweep", "clip=maybe"], "clip=maybe is neither on nor off"),
        (["--data", "mnist:"], "has no folder after the colon"),
    ],
)
def test_words_that_are_not_understood(words, message, capsys):
    with pytest.raises(SystemExit):
        dip_command("train", "cnn5", "--data", "x", "-o", "run", *words)
    assert message in capsys.readouterr().err


def test_a_sweep_refuses_a_grid_that_is_none():
    pictures = np.zeros((4, 8, 8, 3), np.uint8)
    for grid, message in (
        ({}, "the grid of the sweep is empty"),
        ({"lr": []}, "lr has no list of values"),
        ({"loss": "mse"}, "loss has no list of values"),
        ({"lr": [0.1, 0.1]}, "lr=0.1 is twice in the sweep"),
        ({"epochs": [1, 2]}, "epochs is swept and given too"),
        ({"lr": [0.1, -1.0]}, "lr must be"),
    ):
        with pytest.raises(ValueError, match=message):
            dip.trained.sweep("cnn5", pictures, grid, out="runs", epochs=1)
    assert not Path("runs").exists()


def test_models_are_listed(capsys):
    assert dip_command("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == dip.trained.names()
    assert any(line.startswith("hourglass ") and "118,323 parameters, colour, sees 13 pixels" in line for line in lines)


def test_help_names_what_there_is(capsys):
    with pytest.raises(SystemExit):
        dip_command("train", "--help")
    text = capsys.readouterr().out
    for word in ("cifar10:FOLDER", "noise2noise", "--sweep", "--early-stopping", "gaussian:25", "exit status"):
        assert word in text
    assert "default: its own. autoencoder and dncnn-small have no other" in " ".join(text.split())
    assert one_line(ValueError('loss="bce" needs clip=True')) == "--loss bce needs --clip"
