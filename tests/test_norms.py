"""Batch normalisation of pictures of few channels, with pixels beside each other as channels: PyTorch's own results."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dip.networks import layers, norms

FEW = [1, 3, 4, 16, 31]  # channels that are joined by 64, 16, 16, 4 and 2


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setattr(norms, "_PIXELS", 0)


def random(*shape, seed=0):
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return numbers.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else numbers


def trained(apply, chain, x):
    """What a chain makes of x, all gradients, and the statistics it keeps."""
    chain, x = copy.deepcopy(chain), x.clone().requires_grad_()
    y = apply(chain, x)
    leaves = [x, *(p for layer in chain for p in layer.parameters())]
    found = torch.autograd.grad(y, leaves, random(*y.shape, seed=5).to(y.dtype))
    return [y.detach(), *found, *(b for layer in chain for b in layer.buffers())]


def chain_of(channels, slope, conv=False):
    norm = nn.BatchNorm2d(channels).double()
    norm.weight.data, norm.bias.data = random(channels, seed=1), random(channels, seed=2)
    chain = [norm, nn.LeakyReLU(slope, inplace=True)]
    if conv:
        chain.append(layers.Conv2d(channels, 2, 3, stride=1, padding="reflect", bias=True).double())
        chain[-1].weight.data, chain[-1].bias.data = random(2, channels, 3, 3, seed=3), random(2, seed=4)
    return chain


def one_by_one(chain, x):
    for layer in chain:
        x = layer(x)
    return x


def differences(ours, expected):
    return [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(ours, expected, strict=True)]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("strip", [1, 10**6])
@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("channels", FEW)
def test_results_gradients_and_statistics_are_pytorchs(channels, conv, strip, frozen, monkeypatch):
    monkeypatch.setattr(norms, "STRIP", strip)
    x = 3 * random(2, channels, 5, 64, seed=9) + 2
    assert norms.joined(x) * channels > 32
    chain = chain_of(channels, 0.2, conv)
    if frozen:
        chain[0].eval()
        chain[0].running_mean += 1
    assert max(differences(trained(layers.apply, chain, x), trained(one_by_one, chain, x))) < 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_in_the_precisions_of_a_fit(dtype, tolerance):
    x = random(1, 4, 16, 32) + 1
    expected = trained(one_by_one, chain_of(4, 1.0), x)  # without a bend: rounded, what lies next to 0 may change sides
    ours = trained(layers.apply, [layer.float() for layer in chain_of(4, 1.0)], x.to(dtype))
    assert [t.dtype for t in ours[:6]] == [dtype, dtype] + [torch.float32] * 4
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    assert ours[1].is_contiguous(memory_format=torch.channels_last)
    assert max(differences(ours, expected)) < tolerance


def test_a_picture_far_from_0_keeps_its_variance():
    """The variance is not found from a mean of squares, of which little would be left in float32."""
    x = (1e-3 * random(1, 4, 16, 64) + 100).float()
    *_, deviation = norms.normalise(x, torch.ones(4), torch.zeros(4), (torch.zeros(4), torch.ones(4)), 0.1, 0.0)
    torch.testing.assert_close(1 / deviation.double() ** 2, x.double().var((0, 2, 3), correction=0), rtol=1e-2, atol=0)


@pytest.mark.parametrize("case", ["many channels", "odd width", "plain order", "few pixels"])
def test_pixels_are_not_joined_where_that_does_not_apply(case, monkeypatch):
    x = random(1, 32 if case == "many channels" else 4, 8, 9 if case == "odd width" else 16)
    if case == "plain order":
        x = x.contiguous()
    if case == "few pixels":
        monkeypatch.setattr(norms, "_PIXELS", 8 * 16 + 1)
    assert norms.joined(x) == 1
    chain = chain_of(x.shape[1], 0.2)
    assert all(
        torch.equal(a, b) for a, b in zip(trained(layers.apply, chain, x), trained(one_by_one, chain, x), strict=True)
    )
