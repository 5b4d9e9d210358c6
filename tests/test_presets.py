"""The presets hold the published settings, value by value."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small import NET, picture

import dip
from dip import codes, presets

FIVE = (128,) * 5
GROWING = (8, 16, 32, 64, 128)
WIDE = (16, 32, 64, 128, 128)

# (task, name): iterations, down = up, skip, code, jitter, learning rate, other options of the network
PUBLISHED = {
    ("denoise", "paper"): (1800, FIVE, (4,) * 5, codes.Uniform(32, 0.1), 1 / 30, 0.01, {}),
    ("denoise", "paper-sigma50"): (1800, FIVE, (4,) * 5, codes.Uniform(32, 0.1), 1 / 20, 0.01, {}),
    ("denoise", "paper-jpeg"): (2400, GROWING, (0, 0, 0, 4, 4), codes.Uniform(3, 0.1), 1 / 30, 0.01, {}),
    ("denoise", "paper-flash"): (601, FIVE, (4,) * 5, None, 0, 0.1,
        {"upsampling": ("nearest", "nearest", "bilinear", "bilinear", "bilinear")}),
    ("inpaint", "paper"): (6001, FIVE, FIVE, codes.Uniform(32, 0.1), 0.03, 0.01, {"upsampling": "nearest"}),
    ("inpaint", "paper-hole"): (5001, FIVE, (0,) * 5, codes.Meshgrid(), 0.03, 0.01, {"upsampling": "nearest"}),
    ("inpaint", "paper-hole-large"): (3001, (*WIDE, 128), (0,) * 6, codes.Uniform(1, 0.1), 0, 0.01,
        {"upsampling": "nearest", "kernel_down": 5, "conv1x1_up": False}),
    ("inpaint", "paper-half"): (11000, FIVE, (4,) * 5, codes.Uniform(32, 0.1), 0.03, 0.001, {}),
    ("inpaint", "paper-sparse"): (1000, WIDE, (0,) * 5, codes.Uniform(32, 0.1), 0, 0.01, {"downsampling": "average"}),
    ("super_resolve", "paper"): (2000, FIVE, (4,) * 5, codes.Uniform(32, 0.1), 0.03, 0.01, {}),
    ("super_resolve", "paper-x8"): (4000, FIVE, (4,) * 5, codes.Uniform(32, 0.1), 0.05, 0.01, {}),
    ("deblur", "paper"): (2000, FIVE, (4,) * 5, codes.Uniform(32, 0.1), 0.03, 0.01, {}),
    ("dejpeg", "paper"): (2400, GROWING, (0, 0, 0, 4, 4), codes.Uniform(3, 0.1), 1 / 30, 0.01, {}),
    ("reconstruct", "paper"): (2000, FIVE, (4,) * 5, codes.Uniform(32, 0.1), 0.03, 0.01, {}),
}  # fmt: skip


def test_every_preset_is_listed_here():
    assert set(presets.names()) >= {f"{task}/{name}" for task, name in PUBLISHED}
    papers = {name for name in presets.names() if name.partition("/")[2].startswith("paper")}
    assert papers == {f"{task}/{name}" for task, name in PUBLISHED}
    assert "paper-flash" in presets.names("denoise")
    assert "paper-flash" not in presets.names("inpaint")


@pytest.mark.parametrize(("key", "values"), PUBLISHED.items())
def test_published_values(key, values):
    iters, channels, skip, code, jitter, lr, further = values
    preset = presets.get(*key)
    assert (preset.task, preset.name) == key
    assert preset.iters == iters
    assert dict(preset.options) == {"down": channels, "up": channels, "skip": skip, **further}
    assert preset.code == code
    assert preset.jitter == pytest.approx(jitter, abs=1e-12)
    assert preset.lr == lr
    assert preset.flips == 0
    assert preset.optimizer == "adam"
    assert preset.network == "encoder-decoder"
    assert preset.loss == "mse"
    assert preset.average == 0.99


@pytest.mark.parametrize("key", PUBLISHED)
def test_published_networks_and_codes_can_be_built(key):
    preset = presets.get(*key)
    code = preset.code or codes.Image(picture((64, 64, 3)))
    network = dip.networks.create(preset.network, code.channels, 3, **preset.options)
    frame = codes.Frame.around((64, 64), network.padded_size(64, 64))
    assert code.draw(frame, torch.Generator()).shape[1] == network.in_channels
    if key in (("denoise", "paper"), ("super_resolve", "paper")):
        assert sum(p.numel() for p in network.parameters()) == 2_217_831


def test_presets_cannot_be_changed():
    preset = presets.get("denoise", "paper")
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset.lr = 1
    with pytest.raises(TypeError):
        preset.options["down"] = (8,)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (lambda: dip.Denoise(picture()), ("denoise", "paper")),
        (lambda: dip.Inpaint(picture(), np.eye(16, dtype=bool)), ("inpaint", "paper")),
        (lambda: dip.SuperResolve(picture(), 4), ("super_resolve", "paper")),
        (lambda: dip.SuperResolve(picture(), 8), ("super_resolve", "paper-x8")),
        (
            lambda: dip.Reconstruct(picture()[None], lambda x: x.permute(0, 2, 3, 1), (3, 16, 16)),
            ("reconstruct", "paper"),
        ),
    ],
)
def test_each_task_has_its_preset(task, expected):
    settings = dip.Fit(task(), network={"down": [4] * 5, "up": [4] * 5, "skip": [0] * 5}).settings
    assert (settings.preset.task, settings.preset.name) == expected


def test_preset_reaches_the_fit_and_single_values_replace_its_own():
    small = {"down": [4] * 6, "up": [4] * 6}
    task = dip.Inpaint(picture(), np.eye(16, dtype=bool))
    fit = dip.Fit(task, preset="paper-hole-large", network=small)
    assert fit.settings.code == codes.Uniform(1)
    assert fit.settings.jitter == 0
    assert fit.settings.lr == 0.01
    assert fit.network.upsampling == ["nearest"] * 6
    assert fit.network.down[0][0].kernel_size == (5, 5)
    assert fit.network.down[0][0].out_channels == 4
    changed = dip.Fit(task, preset="paper-hole-large", network=small, lr=0.5, code="meshgrid", jitter=0.1, average=0)
    assert (changed.settings.lr, changed.settings.jitter, changed.settings.average) == (0.5, 0.1, 0)
    assert changed.network.in_channels == 2


def test_flash_preset_needs_its_code():
    dark, flash = picture(seed=1), picture(seed=2)
    net = {"down": [4] * 5, "up": [4] * 5, "skip": [2] * 5}
    with pytest.raises(ValueError, match=r"'paper-flash' needs a picture as its code: .*dip\.codes\.Image"):
        dip.Fit(dip.Denoise(dark), preset="paper-flash", network=net)
    fit = dip.Fit(dip.Denoise(dark), preset="paper-flash", network=net, code=codes.Image(flash))
    assert fit.network.in_channels == 3


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        ("denoise", "papper", "unknown preset for denoise: 'papper'; did you mean 'paper'"),
        ("inpaint", "paper-sigma5", "unknown preset for inpaint: 'paper-sigma5'.*allowed: paper, paper-hole"),
        ("super_resolve", "paper-hole", "'paper-hole' is one for inpaint; for super_resolve: paper, fast, paper-x8"),
    ],
)
def test_unknown_presets(task, name, message):
    with pytest.raises(ValueError, match=message):
        presets.get(task, name)


def test_a_preset_may_be_ones_own():
    own = dataclasses.replace(presets.get("denoise", "fast"), name="mine", iters=3, lr=0.02, options=NET)
    given = {"network": NET, "lr": 0.02, "iters": 3, "preset": "fast"}
    fits = [dip.fit(dip.Denoise(picture()), **options) for options in ({"preset": own}, given)]
    assert fits[0].settings.preset is own
    assert fits[0].iteration == 3
    assert np.array_equal(*(fit.image for fit in fits))
    with pytest.raises(ValueError, match="preset 'mine' is one for denoise; for inpaint: paper, "):
        dip.inpaint(picture(), np.eye(16), preset=own)
    with pytest.raises(ValueError, match="lr must be"):
        dip.denoise(picture(), preset=dataclasses.replace(own, lr=-1))
    for wrong in (3, presets.Preset):
        with pytest.raises(TypeError, match=r"preset=.*: give a name, such as 'paper' or 'fast', or a dip.presets.Pre"):
            dip.denoise(picture(), preset=wrong)


def test_tasks_may_have_the_names_of_the_command_line():
    assert "super-resolve" in presets.task_names()
    for task in presets.task_names():
        here = task.replace("-", "_")
        assert presets.names(task) == presets.names(here)
        assert presets.get(task, "fast").task == here


def test_listing_shows_every_preset_of_a_task():
    lines = presets.listing("inpaint").splitlines()
    assert [line.split()[0] for line in lines[::3]] == presets.names("inpaint")
    assert max(map(len, lines)) <= 120
    fast = lines[presets.names("inpaint").index("fast") * 3 + 1]
    assert "jitter 0, flips 1, code HeldOut(folds=5, kept=0.75)" in fast
    assert "jitter 0.1, code Autoencoding(noise=0)" in lines[presets.names("inpaint").index("fast-sparse") * 3 + 1]
    assert "code Autoencoding(scale=0.2, grown=1000)" in presets.listing("reconstruct")
    at = presets.names("inpaint").index("paper-hole-large") * 3
    assert lines[at + 1].strip() == "3001 iterations, lr 0.01, jitter 0, code Uniform(channels=1, scale=0.1)"
    assert "down = up 16,32,64,128,128,128, skip 0x6, kernel_down 5, upsampling nearest" in lines[at + 2]


@pytest.mark.parametrize(
    "asked", [lambda: dip.presets.names("super-resolv"), lambda: dip.presets.get("denois", "fast")]
)
def test_a_task_that_is_none_is_refused(asked):
    with pytest.raises(ValueError, match=r"unknown task .*; did you mean '(super_resolve|denoise)'"):
        asked()
