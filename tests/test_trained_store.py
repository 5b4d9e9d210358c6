"""Weights on disk: what was written comes back, and nothing else is taken."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

import dip
from dip.trained import architectures, store


def write(path: Path, name: str = "cnn5-residual-bn", **info: object) -> Path:
    options = {} if name == "autoencoder" else {"width": 3}
    model = architectures.create(name, 1, generator=torch.Generator().manual_seed(0), **options)
    return store.write(path, model, name, options, {"figures": {"psnr": 30.0}, **info})


def resealed(path: Path, target: Path, change) -> Path:
    """The file with another content, and the hash that belongs to it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    info = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["dip-model"])
    tensors = load_file(path)
    change(info, tensors)
    data = save(tensors, metadata={"dip-model": json.dumps(info), "sha256": "0" * 64})
    target.write_bytes(data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1))
    return target


def test_what_was_written_comes_back(tmp_path):
    path = write(tmp_path / "mine.safetensors", recipe={"lr": 0.1})
    one = dip.trained.load(path, device="cpu")
    assert (one.name, one.channels, one.path) == ("cnn5-residual-bn", 1, path)
    assert one.info["recipe"] == {"lr": 0.1}
    assert one.info["figures"] == {"psnr": 30.0}
    wanted = architectures.create("cnn5-residual-bn", 1, width=3, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), wanted.parameters(), strict=True))
    assert not one.model.training
    assert dip.trained.load(str(path), device="cpu").parameters == one.parameters
    image = np.random.default_rng(0).random((9, 14)).astype("float32")
    with torch.no_grad():
        expected = wanted.eval()(torch.from_numpy(image)[None, None])[0, 0].clamp(0, 1).numpy()
    np.testing.assert_allclose(one(image), expected, atol=1e-6)


def test_the_same_model_is_the_same_file(tmp_path):
    one, two = write(tmp_path / "one.safetensors"), write(tmp_path / "two.safetensors")
    assert load_file(one).keys() == load_file(two).keys()
    first, second = (dip.trained.load(path, device="cpu") for path in (one, two))
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


def test_200_mutated_files_are_refused_in_one_line(tmp_path):
    whole = write(tmp_path / "whole.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "mutated.safetensors"
    for number in range(200):
        data = bytearray(whole)
        if number < 8:
            data[number] ^= 1 << number  # the length of the head
        elif number % 4 == 0:
            del data[int(rng.integers(len(data))) :]
        elif number % 4 == 1:
            place = int(rng.integers(len(data)))
            data[place:place] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
        elif number % 4 == 2:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        else:
            start, count = int(rng.integers(len(data) - 40)), int(rng.integers(1, 40))
            data[start : start + count] = bytes(255 - byte for byte in data[start : start + count])
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"mutated\.safetensors") as caught:
            dip.trained.load(path, device="cpu")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mutated.safetensors", "whole.safetensors"]


def test_every_single_byte_counts(tmp_path):
    whole = write(tmp_path / "whole.safetensors").read_bytes()
    for place in range(0, len(whole), 7):
        with pytest.raises(store._Refusal):
            store._parse(whole[:place] + bytes([whole[place] ^ 9]) + whole[place + 1 :])  # 9 makes a tab of a space
    store._parse(whole)


def test_a_pickle_is_refused(tmp_path):
    state = architectures.create("cnn5", 1, width=3).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    torch.save(state, tmp_path / "disguised.safetensors")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "old.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    assert zipfile.is_zipfile(tmp_path / "weights.pt")
    for name in ("weights.pt", "disguised.safetensors", "old.pth", "old.safetensors"):
        with pytest.raises(ValueError, match=f"{name}.*is a pickle.*can execute code"):
            dip.trained.load(tmp_path / name)


def test_other_files_are_refused(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "plain.safetensors")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("[1, 2, 3] and so on")
    for name in ("plain", "empty", "text"):
        with pytest.raises(ValueError, match=f"{name}.safetensors.*not a file of weights that dip train wrote"):
            dip.trained.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(FileNotFoundError, match="is no file with weights"):
        dip.trained.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no file with weights"):
        dip.trained.load("nowhere/x.safetensors")


def test_a_checkpoint_of_a_fit_is_refused(tmp_path):
    dip.checkpoint.save(tmp_path / "fit.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(ValueError, match="not a file of weights that dip train wrote"):
        dip.trained.load(tmp_path / "fit.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info, tensors: info.update(model="cnn5"), "another architecture than 'cnn5', which it names"),
        (lambda info, tensors: info.update(model="hourglass"), "another architecture than 'hourglass'.*it lacks"),
        (lambda info, tensors: info["options"].update(width=4), r"body.0.weight is torch.float32 \(3, 1, 3, 3\), not"),
        (lambda info, tensors: info.update(model="resnet"), "unknown model 'resnet'"),
        (lambda info, tensors: info["options"].update(width=10**8), "width must be from 1 to 1024"),
        (lambda info, tensors: info["options"].update(depth=3), "unknown option of model"),
        (lambda info, tensors: info["options"].update(generator=3), "does not describe a model"),
        (lambda info, tensors: info.update(channels="many"), "channels must be a whole number"),
        (lambda info, tensors: info.update(options=[1]), "does not describe a model"),
        (lambda info, tensors: info.update(format=99), "has format 99, this version of dip reads 1"),
        (lambda info, tensors: info.pop("model"), "does not describe a model"),
        (lambda info, tensors: tensors.pop("body.12.bias"), "it lacks body.12.bias"),
        (lambda info, tensors: tensors["body.0.bias"].fill_(float("nan")), "has NaN or infinite weights"),
        (lambda info, tensors: tensors.update({"body.0.bias": torch.zeros(3, dtype=torch.float64)}), "float64"),
    ],
)
def test_a_file_that_was_made_up_is_refused(tmp_path, change, message):
    path = resealed(write(tmp_path / "one.safetensors"), tmp_path / "two.safetensors", change)
    with pytest.raises(ValueError, match=message) as caught:
        dip.trained.load(path)
    assert "\n" not in str(caught.value)


def test_a_file_resealed_without_change_is_taken(tmp_path):
    """So the refusals above are for what was changed."""
    path = resealed(write(tmp_path / "one.safetensors"), tmp_path / "two.safetensors", lambda info, tensors: None)
    assert dip.trained.load(path, device="cpu").name == "cnn5-residual-bn"


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    model = architectures.create("cnn5", 1, width=3, generator=torch.Generator())
    model.path[0].weight.data[0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        store.write(tmp_path / "x.safetensors", model, "cnn5", {"width": 3}, {})
    assert not list(tmp_path.iterdir())


def test_names_without_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no weights of model 'hourglass-d'; train it \(dip train hourglass-d"):
        dip.trained.load("hourglass-d")
    with pytest.raises(ValueError, match=r"unknown trained model 'cnn'; allowed: a \.safetensors file"):
        dip.trained.load("cnn")
    with pytest.raises(TypeError, match="model must be a name or a file, not 5"):
        dip.trained.load(5)
    assert dip.trained.models() == {}


def test_the_models_of_the_package_are_listed_with_their_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    write(tmp_path / "autoencoder.safetensors", "autoencoder")
    (tmp_path / "autoencoder.json").write_text(json.dumps({"figures": {"psnr": 21.5}}))
    assert dip.trained.models() == {"autoencoder": {"figures": {"psnr": 21.5}}}
    assert dip.trained.load("autoencoder", device="cpu").parameters == 4385
    with pytest.raises(FileNotFoundError, match="no weights of model 'cnn5'; weights are here of autoencoder"):
        dip.trained.load("cnn5")


def test_each_file_of_the_package_belongs_to_its_card():
    """For the weights that are there: small together, whole, and as their cards say."""
    total = 0
    for name, card in dip.trained.models().items():
        path = store.packaged()[name]
        total += path.stat().st_size
        one = dip.trained.load(name, device="cpu")
        assert one.name == name == card["model"]
        assert one.parameters == card["parameters"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == card["sha256"]
        assert {"figures", "script", "data", "seed", "device", "date", "licence"} <= set(card)
    assert total < 8 * 2**20
