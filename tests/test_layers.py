"""Convolution and upsampling: PyTorch's own results and gradients, by other ways."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dip.networks import layers, norms


def gradients(function, inputs, seed=0):
    """The result of a function and the gradients of its inputs, for a random gradient of the result."""
    leaves = [None if t is None else t.detach().clone(memory_format=torch.preserve_format) for t in inputs]
    given = [leaf.requires_grad_() for leaf in leaves if leaf is not None]
    y = function(*leaves)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, given, g)]


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_close(ours, expected, tolerance):
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype
        scale = float(other.abs().max())
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("strip", [1, 150, 10**6])  # values: one row, a few, all at once
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 0), (3, 2, 0), (5, 2, 2), (3, 1, 1), (1, 1, 0)])
@pytest.mark.parametrize("size", [(11, 14), (8, 23)])
def test_convolution_is_pytorchs(size, kernel, stride, padding, bias, strip, monkeypatch):
    monkeypatch.setattr(norms, "STRIP", strip)
    inputs = random(2, 3, *size), random(4, 3, kernel, kernel, seed=1), random(4, seed=2) if bias else None
    ours = gradients(lambda x, w, b: layers.conv2d(x, w, b, stride, padding), inputs)
    assert_close(ours, gradients(lambda x, w, b: F.conv2d(x, w, b, stride, padding), inputs), 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_convolution_in_the_precisions_of_a_fit(dtype, tolerance, monkeypatch):
    monkeypatch.setattr(norms, "STRIP", 4000)
    inputs = [random(1, 20, 42, 36), random(16, 20, 3, 3, seed=1), random(16, seed=2)]
    expected = gradients(F.conv2d, inputs)
    given = [t.to(dtype).contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t.to(dtype) for t in inputs]
    ours = gradients(layers.conv2d, given)
    assert [t.dtype for t in ours] == [dtype] * 4
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    assert ours[1].is_contiguous(memory_format=torch.channels_last)
    assert_close([t.double() for t in ours], expected, tolerance)


def test_strips_of_bfloat16_are_added_in_float32(monkeypatch):
    """Added in bfloat16, a gradient of 400 equal parts would stay at 256 of them."""
    monkeypatch.setattr(norms, "STRIP", 1)
    inputs = [torch.ones(1, 1, 402, 3).bfloat16(), torch.zeros(1, 1, 3, 3).bfloat16(), None]
    weight = inputs[1].requires_grad_()
    y = layers.conv2d(inputs[0], weight, None)
    (gradient,) = torch.autograd.grad(y, weight, torch.ones_like(y))
    assert torch.equal(gradient, torch.full_like(gradient, 400))


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, True, True)])
def test_gradients_that_nobody_wants_are_left_out(wanted):
    tensors = [random(1, 2, 7, 6), random(3, 2, 3, 3, seed=1), random(3, seed=2)]
    for tensor, needed in zip(tensors, wanted, strict=True):
        tensor.requires_grad_(needed)
    results = []
    for function in (layers.conv2d, F.conv2d):
        for tensor in tensors:
            tensor.grad = None
        function(*tensors).square().sum().backward()
        assert [tensor.grad is not None for tensor in tensors] == list(wanted)
        results.append([tensor.grad for tensor in tensors if tensor.grad is not None])
    assert_close(*results, 1e-12)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 1), (3, 4), (8, 7)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_upsampling_is_pytorchs(size, mode, order):
    x = random(2, 3, *size).contiguous(memory_format=order)
    ours = gradients(lambda x: layers.upsample(x, mode), [x])
    assert_close(ours, gradients(lambda x: F.interpolate(x, scale_factor=2, mode=mode), [x]), 1e-12)


def test_upsampling_takes_a_gradient_in_the_middle_of_a_concatenation():
    def joined(upsample):
        return lambda x, skip: torch.cat([skip, upsample(x), skip], dim=1) ** 2

    inputs = [random(1, 3, 4, 5), random(1, 2, 8, 10, seed=1)]
    expected = gradients(joined(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")), inputs)
    assert_close(gradients(joined(lambda x: layers.upsample(x, "bilinear")), inputs), expected, 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_upsampling_in_the_precisions_of_a_fit(dtype, tolerance):
    x = random(1, 8, 9, 6)
    expected = gradients(lambda x: layers.upsample(x, "bilinear"), [x])
    ours = gradients(
        lambda x: layers.upsample(x, "bilinear"), [x.to(dtype).contiguous(memory_format=torch.channels_last)]
    )
    assert all(t.dtype == dtype and t.is_contiguous(memory_format=torch.channels_last) for t in ours)
    assert_close([t.double() for t in ours], expected, tolerance)


def norm_and_conv(activation="leaky_relu", kernel=3, stride=1, padding="reflect", channels=(3, 4)):
    """Normalisation, activation, convolution, with weights drawn at random."""
    norm = nn.BatchNorm2d(channels[0])
    conv = layers.Conv2d(*channels, kernel, stride=stride, padding=padding, bias=True)
    for number, parameter in enumerate([*norm.parameters(), *conv.parameters()]):
        parameter.data = random(*parameter.shape, seed=number)
    return [norm.double(), *ACTIVATIONS[activation](), conv.double()]


ACTIVATIONS = {
    "leaky_relu": lambda: [nn.LeakyReLU(0.2, inplace=True)],
    "relu": lambda: [nn.ReLU(inplace=True)],
    "identity": lambda: [nn.Identity()],
    "none": list,
}


def trained(apply, chain, x, seed=0):
    """What a chain makes of x, the gradients of x and of the weights, and the statistics it keeps."""
    chain = copy.deepcopy(chain)
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = apply(chain, x)
    weights = [p for layer in chain for p in layer.parameters()]
    found = torch.autograd.grad(y, [x, *weights], random(*y.shape, dtype=y.dtype, seed=seed))
    return [y.detach(), *found], [buffer for layer in chain for buffer in layer.buffers()]


def one_by_one(chain, x):
    for layer in chain:
        x = layer(x)
    return x


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("strip", [1, 120, 10**6])
@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 3), (1, 1), (1, 2)])
@pytest.mark.parametrize("size", [(8, 12), (9, 7), (4, 16), (4, 4)])
def test_norm_and_convolution_as_one_are_the_layers_one_by_one(
    size, kernel, stride, padding, strip, frozen, monkeypatch
):
    monkeypatch.setattr(norms, "STRIP", strip)
    chain, x = norm_and_conv(kernel=kernel, stride=stride, padding=padding), random(2, 3, *size, seed=9)
    if frozen:
        chain[0].eval()
        chain[0].running_var *= 3
    ours, kept = trained(layers.apply, chain, x)
    expected, kept_one_by_one = trained(one_by_one, chain, x)
    assert torch.equal(ours[0], expected[0])
    assert_close(ours[1:], expected[1:], 1e-12)
    assert int(kept[-1]) == (not frozen)  # batches tracked
    assert all(torch.equal(a, b) for a, b in zip(kept, kept_one_by_one, strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_any_activation_and_order_as_one(activation, order):
    chain, x = norm_and_conv(activation), random(1, 3, 9, 8).contiguous(memory_format=order)
    ours, _ = trained(layers.apply, chain, x)
    assert_close(ours, trained(one_by_one, chain, x)[0], 1e-12)
    assert ours[0].is_contiguous(memory_format=order)
    assert ours[1].is_contiguous(memory_format=order)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_norm_and_convolution_in_the_precisions_of_a_fit(dtype, tolerance, monkeypatch):
    monkeypatch.setattr(norms, "STRIP", 4000)
    # without an activation: rounded to bfloat16, what lies next to 0 may change its sign, and its slope
    chain, x = norm_and_conv("none", channels=(20, 16)), random(1, 20, 42, 36)
    expected, _ = trained(one_by_one, chain, x)
    chain = [layer.float() for layer in chain]
    ours, _ = trained(layers.apply, chain, x.to(dtype).contiguous(memory_format=torch.channels_last))
    assert [t.dtype for t in ours] == [dtype] * 2 + [torch.float32] * 4
    assert_close([t.double() for t in ours], expected, tolerance)


@pytest.mark.parametrize(("strip", "expected"), [(1, 1), (10**6, 2)])  # a large picture, a small one
def test_as_one_they_keep_fewer_pictures(strip, expected, monkeypatch):
    monkeypatch.setattr(norms, "STRIP", strip)
    kept = []

    def pictures(apply):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            apply(norm_and_conv(), random(1, 3, 8, 8).requires_grad_())
        return len({t.data_ptr() for t in kept if t.ndim == 4 and t.shape[-1] >= 8})

    assert pictures(layers.apply) == expected
    assert pictures(one_by_one) == 3


def test_what_another_device_would_keep_can_be_foretold(monkeypatch):
    monkeypatch.setattr(norms, "STRIP", 1)

    def pictures():
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            chain = [layer.to("meta") for layer in norm_and_conv()]
            layers.apply(chain, random(1, 3, 8, 8).to("meta").requires_grad_())
        return len({t.untyped_storage()._cdata for t in kept if t.ndim == 4 and t.shape[-1] >= 8})

    with layers.foretelling(torch.device("cuda")):
        assert pictures() == 3
    assert pictures() == 1


def test_frozen_weights_have_no_gradient_as_one():
    chain = norm_and_conv()
    for parameter in chain[-1].parameters():
        parameter.requires_grad_(False)
    x = random(1, 3, 8, 8).requires_grad_()
    layers.apply(chain, x).square().sum().backward()
    ours = [x.grad, chain[0].weight.grad, chain[0].bias.grad]
    assert chain[-1].weight.grad is chain[-1].bias.grad is None
    x.grad = chain[0].weight.grad = chain[0].bias.grad = None
    one_by_one(chain, x).square().sum().backward()
    assert_close(ours, [x.grad, chain[0].weight.grad, chain[0].bias.grad], 1e-12)


def test_layers_with_hooks_are_called():
    chain, seen = norm_and_conv(), []
    chain[1].register_forward_hook(lambda layer, given, made: seen.append(made.shape))
    layers.apply(chain, random(1, 3, 8, 8).requires_grad_())
    assert seen == [(1, 3, 8, 8)]


def test_evaluation_takes_the_statistics_that_were_kept():
    chain, x = norm_and_conv(), random(1, 3, 8, 8)
    layers.apply(chain, x)
    for layer in chain:
        layer.eval()
    ours = layers.apply(chain, 2 * x)
    assert torch.equal(ours, one_by_one(chain, 2 * x))


def test_gradcheck():
    x, w, b = random(1, 2, 6, 5).requires_grad_(), random(3, 2, 3, 3).requires_grad_(), random(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w, b: layers.conv2d(x, w, b, 2), (x, w, b))
    assert torch.autograd.gradcheck(lambda x: layers.upsample(x, "bilinear"), (x,))
    chain = norm_and_conv(channels=(2, 3))
    weights = [p for layer in chain for p in layer.parameters()]
    assert torch.autograd.gradcheck(lambda x, *_: layers.apply(chain, x), (x, *weights))
