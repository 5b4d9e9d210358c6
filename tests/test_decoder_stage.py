"""The decoder's stage computed on the small picture, by the kernels for a GPU, against PyTorch's layers."""
# ruff: noqa: F401, F811 - fixtures are imported and then named as parameters

from __future__ import annotations

import copy

import pytest
import torch
from test_fused import (
    backwards,
    compared,
    compiled,
    device,
    layers_of,
    near,
    on_cuda,
    ordered,
    picture,
    stage,
    streams,
    watched,
)

from dip import networks
from dip.networks import decoder, fused, recorded
from dip.networks.upsampled import branched, conv_upsampled


@pytest.fixture(autouse=True)
def taken(monkeypatch):
    """Take small pictures and few channels; return which stages were computed so."""
    monkeypatch.setattr(decoder, "_PIXELS", 0)
    monkeypatch.setattr(decoder, "_CHANNELS", 0)
    real, found = decoder.conv_enlarged, []

    def watched(x, *others):
        found.append(tuple(x.shape))
        return real(x, *others)

    monkeypatch.setattr(decoder, "conv_enlarged", watched)
    return found


def stage_of(device, branch, channels, **options):
    norm, _, conv = (module.to(device) for module in layers_of("both", branch + channels, **options))
    return [norm, conv]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("branch", [0, 3, 4])
@pytest.mark.parametrize(
    ("channels", "size", "options"),
    [(16, (5, 8), {}), (12, (4, 4), {"outputs": 16}), (5, (9, 4), {"bias": False}), (40, (6, 7), {"outputs": 35})],
)
def test_it_is_that_of_pytorchs_layers(device, taken, channels, size, options, branch, padding, frozen):
    modules = stage_of(device, branch, channels, padding=padding, **options)
    inputs = [picture(2, channels, *size, device=device)]
    if branch:
        inputs.append(picture(2, branch, 2 * size[0], 2 * size[1], device=device))
    near(compared(stage("bilinear"), modules, inputs, frozen), 2e-5)
    assert taken == [(2, channels, *size)]
