"""Upsampling, concatenation, normalisation and convolution in another order: what they are in the plain one."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dip.networks import EncoderDecoder, upsampled
from dip.networks.layers import Conv2d, biased


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setattr(upsampled, "_SMALLEST", 8)
    monkeypatch.setattr(upsampled, "_LEAST", 0)


def conv_upsampled(x, branch, *given):
    branch = None if branch is None else upsampled.Branch(branch)
    return biased(*upsampled.conv_upsampled(x, branch, *given))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layers_of(channels, kernel=3, padding="reflect", bias=True):
    """A normalisation and a convolution with weights drawn at random."""
    norm, conv = nn.BatchNorm2d(channels), Conv2d(channels, 4, kernel, stride=1, padding=padding, bias=bias)
    for number, parameter in enumerate([*norm.parameters(), *conv.parameters()]):
        parameter.data = random(*parameter.shape, seed=number)
    return norm.double(), conv.double()


def plainly(x, branch, mode, norm, conv):
    x = F.interpolate(x, scale_factor=2, mode=mode)
    return conv(norm(x if branch is None else torch.cat([branch, x], dim=1)))


def trained(function, x, branch, mode, norm, conv):
    """The result, the gradients of pictures and weights, and the statistics that are kept."""
    norm, conv = copy.deepcopy(norm), copy.deepcopy(conv)
    pictures = [None if t is None else t.clone().requires_grad_() for t in (x, branch)]
    y = function(*pictures, mode, norm, conv)
    leaves = [*(t for t in pictures if t is not None), *norm.parameters(), *conv.parameters()]
    found = torch.autograd.grad(y, leaves, random(*y.shape, seed=7).to(y.dtype))
    return [y.detach(), *found, norm.running_mean, norm.running_var], int(norm.num_batches_tracked)


def differences(ours, expected):
    return [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(ours, expected, strict=True)]


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("joined", [0, 2])
@pytest.mark.parametrize("size", [(9, 12), (20, 11)])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_result_and_all_gradients_are_those_of_the_plain_order(
    frozen, size, joined, padding, kernel, mode, monkeypatch
):
    monkeypatch.setattr(upsampled, "_SMALLEST", 16)
    monkeypatch.setattr(upsampled, "_STRIP", 150)
    monkeypatch.setattr(upsampled, "apply", None)  # the plain order must not be compared with itself
    x = random(2, 3, *size, seed=1) + 0.5
    branch = random(2, joined, 2 * size[0], 2 * size[1], seed=2) - 0.5 if joined else None
    norm, conv = layers_of(3 + joined, kernel, padding)
    if frozen:
        norm.eval()
        norm.running_mean.data, norm.running_var.data = random(3 + joined, seed=5), random(3 + joined, seed=6).exp()
    ours, batches = trained(conv_upsampled, x, branch, mode, norm, conv)
    expected, _ = trained(plainly, x, branch, mode, norm, conv)
    assert batches == (not frozen)
    assert [t.shape for t in ours] == [t.shape for t in expected]
    assert max(differences(ours, expected)) < 1e-12


def test_a_convolution_without_bias():
    x, (norm, conv) = random(1, 3, 8, 8), layers_of(3, bias=False)
    ours, _ = trained(conv_upsampled, x, None, "bilinear", norm, conv)
    assert max(differences(ours, trained(plainly, x, None, "bilinear", norm, conv)[0])) < 1e-12


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_bfloat16_is_as_near_as_in_the_plain_order(mode):
    """Both orders round; neither may be much farther from float64 than the other."""
    x = F.leaky_relu(random(1, 24, 40, 32, seed=1), 0.2) + random(1, 24, 1, 1, seed=3)
    branch = random(1, 4, 80, 64, seed=2)
    norm, conv = layers_of(28)
    exact, _ = trained(plainly, x, branch, mode, norm, conv)
    norm, conv = norm.float(), conv.float()
    x, branch = (t.bfloat16().contiguous(memory_format=torch.channels_last) for t in (x, branch))
    ours, _ = trained(conv_upsampled, x, branch, mode, norm, conv)
    plain, _ = trained(plainly, x, branch, mode, norm, conv)
    assert [t.dtype for t in ours] == [t.dtype for t in plain]
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    for ours_is_off, plain_is_off in zip(differences(ours, exact), differences(plain, exact), strict=True):
        assert ours_is_off < max(2 * plain_is_off, 4e-3)


def test_a_constant_picture_has_the_variance_zero():
    x = torch.full((1, 3, 8, 8), 0.7, dtype=torch.float64)
    mean, variance, count = upsampled._moments(x, "bilinear")
    torch.testing.assert_close(mean, x[0, :, 0, 0])
    assert float(variance.abs().max()) < 1e-15
    assert count == 256


def test_frozen_weights_have_no_gradient():
    x, (norm, conv) = random(1, 3, 8, 8).requires_grad_(), layers_of(3)
    for parameter in conv.parameters():
        parameter.requires_grad_(False)
    conv_upsampled(x, None, "bilinear", norm, conv).square().sum().backward()
    assert conv.weight.grad is conv.bias.grad is None
    ours, x.grad = x.grad, None
    plainly(x, None, "bilinear", norm, conv).square().sum().backward()
    torch.testing.assert_close(ours, x.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", ["small", "few channels", "no gradient", "hook", "another layer"])
def test_the_plain_order_where_the_other_does_not_apply(case, monkeypatch):
    monkeypatch.setattr(upsampled, "_ConvUpsampled", None)
    monkeypatch.setattr(upsampled, "_SMALLEST", 64 if case == "small" else 8)
    x, branch, (norm, conv) = random(1, 3, 8, 8), random(1, 2, 16, 16), layers_of(5)
    monkeypatch.setattr(upsampled, "_LEAST", 16 * 16 * 3 * 4 + (case == "few channels"))
    seen = []
    if case == "hook":
        norm.register_forward_hook(lambda *_: seen.append(1))
    elif case == "another layer":
        norm = nn.GroupNorm(1, 5).double()
    with torch.set_grad_enabled(case != "no gradient"):
        ours = conv_upsampled(x, branch, "nearest", norm, conv)
    torch.testing.assert_close(ours, plainly(x, branch, "nearest", norm, conv))
    assert len(seen) == 2 * (case == "hook")


def test_gradcheck():
    x, branch, (norm, conv) = random(1, 1, 4, 5), random(1, 1, 8, 10), layers_of(2)
    inputs = [t.requires_grad_() for t in (x, branch)]
    assert torch.autograd.gradcheck(lambda x, b: conv_upsampled(x, b, "bilinear", norm, conv), inputs)


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
def test_a_network_is_the_same_in_either_order(upsampling, monkeypatch):
    def step(smallest):
        monkeypatch.setattr(upsampled, "_SMALLEST", smallest)
        generator = torch.Generator().manual_seed(0)
        options = {"down": [8] * 3, "up": [6] * 3, "skip": [2, 0, 3], "upsampling": upsampling, "generator": generator}
        network = EncoderDecoder(4, 3, **options).double()
        y = network(random(1, 4, 64, 48))
        (y - 0.5).square().sum().backward()
        return [y.detach(), *(p.grad for p in network.parameters()), *network.buffers()]

    for ours, plain in zip(step(8), step(10**6), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-10)
