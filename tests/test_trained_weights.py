"""The weights that come with the package: what their cards say is true, and they do what they are for."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import skimage.data
import skimage.metrics

import dip
import dip.cli
from dip.trained import noise, store

NAMES = ["autoencoder", "cnn5", "cnn5-residual", "cnn5-residual-bn", "dncnn-small", "hourglass"]
ON_CIFAR = ["cnn5", "cnn5-residual", "cnn5-residual-bn", "hourglass"]


def test_they_are_there_and_small():
    assert sorted(dip.trained.models()) == sorted(store.packaged()) == NAMES
    assert sum(path.stat().st_size for path in store.packaged().values()) < 8 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_a_card_tells_of_its_file(name):
    card, path = dip.trained.models()[name], store.packaged()[name]
    one = dip.trained.load(name, device="cpu")
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["parameters"] == one.parameters == sum(p.numel() for p in dip.trained.create(name).parameters())
    assert card["recipe"] == one.info["recipe"]
    assert (card["recipe"]["model"], card["recipe"]["width"]) == (name, None)
    assert card["command"] == f"python benchmarks/train_models.py --data DATA {name}"
    for key in ("script", "data", "seed", "device", "date", "licence", "figures", "unseen", "versions", "seconds"):
        assert key in card, key


@pytest.mark.parametrize("name", [name for name in NAMES if name != "autoencoder"])
def test_a_photograph_gets_better(name):
    """One that none of them has seen, with noise that they were trained on."""
    clean = (skimage.data.astronaut()[40:296, 100:356] / 255).astype(np.float32)
    sigma = min(noise.read(dip.trained.models()[name]["recipe"]["noise"]).high, 25)
    noisy = dip.degradations.gaussian(clean, sigma, clip=False, seed=0)
    restored = dip.denoise(noisy, backend="trained", model=name, device="cpu")
    before, after = (skimage.metrics.peak_signal_noise_ratio(clean, x, data_range=1) for x in (noisy, restored))
    assert after > before + 6


def test_dncnn_is_blind_over_its_range():
    clean = (skimage.data.astronaut()[40:168, 150:278] / 255).astype(np.float32)
    one = dip.trained.load("dncnn-small", device="cpu")
    for sigma, least in ((5, 2.0), (15, 4.0), (50, 8.0)):
        noisy = dip.degradations.gaussian(clean, sigma, clip=False, seed=0)
        gain = dip.metrics.psnr(one(noisy), clean) - dip.metrics.psnr(noisy, clean)
        assert gain > least, (sigma, gain)


@pytest.mark.parametrize("name", [*ON_CIFAR, "autoencoder"])
def test_the_figures_of_a_card_come_out_again(name, data_dir):
    """On the first of the test pictures, drawn as the card's; their mean cannot be far from that of all."""
    card, count = dip.trained.models()[name], 200
    if name == "autoencoder":
        tests, _ = dip.datasets.mnist(data_dir / "mnist", train=False, limit=count)
    else:
        tests, _ = dip.datasets.cifar10(data_dir / "cifar-10-batches-bin", train=False, limit=count)
    level = noise.read(card["recipe"]["noise"]).high
    one, found = dip.trained.load(name, device="cpu"), []
    for i, clean in enumerate(tests):
        noisy = dip.degradations.gaussian((clean / 255).astype(np.float32), level, clip=card["recipe"]["clip"], seed=i)
        found.append(-10 * np.log10(np.mean((one(noisy).astype(float) - clean / 255) ** 2)))
    (stated,) = card["unseen"].values()
    assert np.mean(found) == pytest.approx(stated["restored"], abs=4 * np.std(found) / np.sqrt(count))


def test_the_command_line_lists_them(capsys):
    assert dip.cli.main(["models"]) == 0
    printed = capsys.readouterr().out
    for name in dip.trained.names():
        there = (
            f"trained on {dip.trained.models()[name]['data']['kind']}" if name in NAMES else "to be trained (dip train)"
        )
        (line,) = [line for line in printed.splitlines() if line.split()[:1] == [name]]
        assert there in line
    assert printed.count(" -> ") == sum(len(card["unseen"]) for card in dip.trained.models().values())
