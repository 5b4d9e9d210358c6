"""What a network of one's own draws from PyTorch's own generator comes from the seed of its fit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small import picture, quick_fit
from torch import nn

import dip
from dip.draws import Draws


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(8, 6, 3, padding=1), nn.Dropout(0.3), nn.ReLU(), nn.Conv2d(6, 3, 1), nn.Sigmoid()
        )


OPTIONS = {"code": dip.codes.Uniform(8), "jitter": 0.0, "device": "cpu"}


def fitted(seed: int = 0, outside: int = 0, **options: object) -> dip.Fit:
    torch.manual_seed(outside)
    return dip.Fit(dip.Denoise(picture((12, 10, 3))), **{**OPTIONS, "network": network(), "seed": seed, **options})


@pytest.fixture(autouse=True)
def _as_before():
    with torch.random.fork_rng():
        yield


def test_the_same_seed_gives_the_same_picture_whatever_was_drawn_outside():
    images = []
    for outside in (1, 2):
        fit = fitted(outside=outside)
        before = torch.get_rng_state()
        fit.run(6)
        assert torch.equal(torch.get_rng_state(), before)
        images.append(fit.image)
    np.testing.assert_array_equal(*images)


def test_dropout_is_another_in_each_iteration_and_with_each_seed():
    masks = []
    for seed in (0, 1):
        fit = fitted(seed)
        fit.network[1].register_forward_hook(lambda _, given, out: masks.append((out == 0) & (given[0] != 0)))
        fit.run(3)
    assert all(mask.any() for mask in masks)
    assert not any(torch.equal(masks[i], masks[j]) for i in range(6) for j in range(i))


def test_a_resumed_fit_goes_on_with_the_same_numbers(tmp_path):
    straight = fitted().run(9)
    fitted(outside=1).run(5).save(tmp_path / "fit.st")
    resumed = fitted(outside=2).load(tmp_path / "fit.st").run(4)
    np.testing.assert_array_equal(resumed.image, straight.image)


def test_networks_in_threads_take_turns():
    alone = [fitted(seed).run(5).image for seed in range(3)]
    fits = [fitted(seed) for seed in range(3)]
    for fit, image in zip(dip.run_all(fits, iters=5, at_once=3), alone, strict=True):
        np.testing.assert_array_equal(fit.image, image)


def test_what_is_only_looked_at_takes_no_numbers():
    draws = Draws(network(), 3, torch.device("cpu"))
    first = copy.deepcopy(draws.state)
    with draws(kept=False):
        looked = torch.rand(4)
    assert torch.equal(draws.state, first)
    with draws():
        assert torch.equal(torch.rand(4), looked)
    assert not torch.equal(draws.state, first)


def test_a_fit_that_went_on_elsewhere_draws_from_its_seed():
    here, there = (Draws(network(), 3, torch.device(name)) for name in ("cpu", "meta"))
    assert there.state is None
    seeded, drawn = here.state, torch.Generator().manual_seed(5).get_state()
    here.go_on(None)
    assert torch.equal(here.state, seeded)
    here.go_on(drawn)
    assert torch.equal(here.state, drawn)
    there.go_on(drawn)
    assert there.state is None


def test_the_packages_networks_draw_nothing():
    assert quick_fit(iters=1)._draws.state is None
