"""Convolution and upsampling: PyTorch's own results and gradients, by other ways."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dip.networks import layers


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


@pytest.mark.parametrize("strip", [1, 50, 10**6])  # pixels: one row, a few, all at once
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 0), (3, 2, 0), (5, 2, 2), (3, 1, 1), (1, 1, 0)])
@pytest.mark.parametrize("size", [(11, 14), (8, 23)])
def test_convolution_is_pytorchs(size, kernel, stride, padding, bias, strip, monkeypatch):
    monkeypatch.setattr(layers, "_STRIP", strip)
    inputs = random(2, 3, *size), random(4, 3, kernel, kernel, seed=1), random(4, seed=2) if bias else None
    ours = gradients(lambda x, w, b: layers.conv2d(x, w, b, stride, padding), inputs)
    assert_close(ours, gradients(lambda x, w, b: F.conv2d(x, w, b, stride, padding), inputs), 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_convolution_in_the_precisions_of_a_fit(dtype, tolerance, monkeypatch):
    monkeypatch.setattr(layers, "_STRIP", 200)
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
    monkeypatch.setattr(layers, "_STRIP", 1)
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


def test_gradcheck():
    x, w, b = random(1, 2, 6, 5).requires_grad_(), random(3, 2, 3, 3).requires_grad_(), random(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w, b: layers.conv2d(x, w, b, 2), (x, w, b))
    assert torch.autograd.gradcheck(lambda x: layers.upsample(x, "bilinear"), (x,))
