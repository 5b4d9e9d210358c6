"""The decoder's stage computed on the small picture, by the kernels for a GPU, against PyTorch's layers."""
# ruff: noqa: F401, F811 - fixtures are imported and then named as parameters

from __future__ import annotations

import copy

import pytest
import torch
from test_fused import (
    Emulated,
    Stream,
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
)
from torch import nn

from dip import networks
from dip.networks import decoder, layers, recorded
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

    def launch(self, kernel, blocks, threads, *others):
        assert not kernel.startswith("blur") or threads[0] * threads[1] <= 256
        launched(self, kernel, blocks, threads, *others)

    launched = Emulated.launch
    monkeypatch.setattr(Emulated, "launch", launch)
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


@pytest.mark.parametrize(("channels", "outputs", "branch"), [(20, 24, 4), (16, 8, 16), (64, 6, 1), (8, 136, 2)])
def test_pictures_larger_than_the_blocks_are_many(device, taken, channels, outputs, branch):
    modules = stage_of(device, branch, channels, outputs=outputs)
    inputs = [picture(1, channels, 33, 60, device=device), picture(1, branch, 66, 120, device=device)]
    near(compared(stage("bilinear"), modules, inputs), 2e-5)
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("channels", "size", "outputs", "branch"),
    [(16, (5, 8), 16, 4), (8, (9, 7), 6, 0), (12, (6, 5), 35, 3), (8, (33, 60), 24, 4), (8, (12, 9), 136, 0)],
)
def test_the_filter_finds_the_statistics_of_what_follows(device, taken, channels, size, outputs, branch, monkeypatch):
    modules = stage_of(device, branch, channels, outputs=outputs)
    layers_after = [nn.BatchNorm2d(outputs).to(device), nn.LeakyReLU(0.2)]
    x, *beside = (ordered(one.bfloat16()) for one in inputs_of(device, channels, size, branch))
    found, kernels = [], []
    launched = Emulated.launch
    monkeypatch.setattr(Emulated, "launch", lambda self, *given: (kernels.append(given[0]), launched(self, *given))[1])
    for told in (True, False):
        norm, conv, *after = copy.deepcopy([*modules, *layers_after])
        joined = branched(beside[0], [], "bilinear", norm, conv, {}) if beside else None
        following = layers.followed(after, x, conv) if told else None
        kernels.clear()
        y, bias = conv_upsampled(x, joined, "bilinear", norm, conv, {}, following)
        y, bias = layers.applied(after, y, bias, {}, following)
        if not on_cuda:
            assert ("blur_moments" in kernels, "moments" in kernels or "normalise_alone" in kernels) == (told, not told)
        found.append([y, *after[0].buffers()])
    assert after[0].num_batches_tracked == 1
    for one, other in zip(*found, strict=True):
        scale = other.double().abs().max()
        assert (one.double() - other.double()).abs().max() <= (0.01 if one.dtype == torch.bfloat16 else 1e-5) * scale


def inputs_of(device, channels, size, branch):
    sizes = [(channels, *size)] + [(branch, 2 * size[0], 2 * size[1])] * bool(branch)
    return [picture(1, *one, device=device) for one in sizes]


def test_in_float32_the_statistics_are_found_by_a_pass_of_their_own(device):
    """What is summed has no origin near its mean: that would cost some of the digits."""
    after, x = [nn.BatchNorm2d(8).to(device), nn.LeakyReLU(0.2)], picture(1, 8, 4, 4, device=device)
    conv = layers_of("conv", 8, outputs=8)[0]
    assert layers.followed(after, x, conv) is None
    assert layers.followed(after, x.bfloat16(), conv) is not None
    assert layers.followed([], x.bfloat16(), conv) is None


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_a_whole_network(device, taken, padding):
    torch.manual_seed(0)
    network = networks.EncoderDecoder(8, 3, down=[16, 24], up=[16, 24], skip=[4, 0], padding=padding)
    network = network.to(device, memory_format=torch.channels_last)
    found = compared(lambda own, z: own[0](z), [network], [picture(1, 8, 24, 20, device=device)])
    near(found, 5e-4, least=1e-3)  # the gradients of a scale before another normalisation are all but 0
    assert taken == [(1, 24, 6, 5), (1, 24, 12, 10)]


@pytest.mark.parametrize("branch", [0, 4])
def test_bfloat16_rounds_little_more_than_on_the_large_picture(device, taken, branch, monkeypatch):
    modules = stage_of(device, branch, 32, outputs=32)
    inputs = [picture(1, 32, 16, 20, device=device)]
    if branch:
        inputs.append(picture(1, branch, 32, 40, device=device))
    inputs = [one.bfloat16().float() for one in inputs]
    exact, own = compared(stage("bilinear"), modules, inputs, dtype=torch.bfloat16)
    assert len(taken) == 1
    monkeypatch.setattr(decoder, "worthwhile", lambda *_: False)
    _, large = compared(stage("bilinear"), modules, inputs, dtype=torch.bfloat16)
    for name in ("y", "to 0", "0 weight", "0 bias", "1 weight"):
        a, scale = exact[name].detach().cpu(), exact[name].detach().cpu().abs().mean()
        ours, theirs = ((t[name].detach().cpu().double() - a).abs().mean() / scale for t in (own, large))
        assert ours <= 1.5 * theirs + 1e-4, name


def test_autograd_takes_the_gradient_of_weights_as_it_is(device, monkeypatch):
    seen = []

    class Watched(recorded.Gradients):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            seen.append(self.to_weight.data_ptr())

    monkeypatch.setattr(decoder, "Gradients", Watched)
    norm, conv = (module.to(memory_format=torch.channels_last) for module in stage_of(device, 4, 16))
    inputs = picture(1, 16, 6, 8, device=device), picture(1, 4, 12, 16, device=device)
    x, beside = (ordered(one).requires_grad_() for one in inputs)
    y, _ = conv_upsampled(x, branched(beside, [], "bilinear", norm, conv, {}), "bilinear", norm, conv)
    y.sum().backward()
    assert seen == [conv.weight.grad.data_ptr()]
    assert conv.weight.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(on_cuda, reason="there it is recorded in earnest")
def test_in_a_recording_the_gradient_of_weights_is_beside_the_rest(device, taken, streams, monkeypatch):
    torch.manual_seed(0)
    network = networks.EncoderDecoder(8, 3, down=[16, 16, 16], up=[16, 16, 16], skip=[4, 0, 4])
    network = network.to(memory_format=torch.channels_last)
    z = ordered(picture(1, 8, 32, 40).bfloat16())
    beside = []

    def watched(real):
        def product(one, other):
            if Stream.now.name == "side":
                held = {t.data_ptr() for t in recorded._waiting._held}
                beside.append({one.data_ptr(), other.data_ptr()} <= held)
            return real(one, other)

        return product

    for name in ("mm", "bmm"):
        monkeypatch.setattr(torch, name, watched(getattr(torch, name)))
    backwards(network(z))
    found = [p.grad.clone() for p in network.parameters()]
    assert len(taken) == 3
    assert beside == [True] * 5  # the products for the weights of two branches, and of three times the sides
    back = streams[streams.index("begin on side") - 1 :]
    begins = [number for number, line in enumerate(back) if line == "begin on side"]
    assert len(begins) > 8
    assert all(back[number - 1] == "side waits for main" for number in begins)
    assert back[-1] == "main waits for side"
    assert not recorded._waiting._held
    for p in network.parameters():
        p.grad = None
    monkeypatch.setattr(recorded, "recorded", lambda x: False)
    backwards(network(z))
    assert all(torch.equal(one, p.grad) for one, p in zip(found, network.parameters(), strict=True))


def test_what_it_needs_can_be_foretold(device):
    """On tensors without values, as when the memory for a fit is estimated."""
    shapes = {}
    for kind in ("meta", device):
        norm, conv = (module.to(kind) for module in stage_of("cpu", 4, 16))
        x, beside = (torch.ones(size, device=kind, requires_grad=True) for size in ((1, 16, 6, 8), (1, 4, 12, 16)))
        kept = shapes[kind] = []
        keep = kept.append
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t, keep=keep: (keep(tuple(t.shape)), t)[1], lambda t: t)
        with layers.foretelling(torch.device(device)), hooks:
            y, _ = conv_upsampled(x, branched(beside, [], "bilinear", norm, conv, {}), "bilinear", norm, conv)
        y.sum().backward()
        kept += [tuple(t.grad.shape) for t in (x, beside, conv.weight, norm.weight)]
    assert shapes["meta"] == shapes[device]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"height": 63}, False),
        ({"channels": 15}, False),
        ({"outputs": 15}, False),
        ({"outputs": 2048}, True),
        ({"outputs": 2056}, False),
        ({"branch": 0}, True),
        ({"branch": 17}, False),
        ({"mode": "nearest"}, False),
        ({"kernel": 5}, False),
        ({"kernel": 1}, False),
        ({"padding": "zeros"}, True),
        ({"height": 3, "width": 8192}, False),
    ],
)
def test_where_it_is_worthwhile(change, expected, monkeypatch):
    monkeypatch.undo()
    case = {"height": 64, "width": 128, "channels": 64, "outputs": 64, "branch": 4, "mode": "bilinear", **change}
    height, width, few = case["height"], case["width"], case["branch"]
    options = {"kernel": case.get("kernel", 3), "padding": case.get("padding", "reflect"), "stride": 1, "bias": False}
    layer = layers.Conv2d(case["channels"] + few, case["outputs"], **options)
    x = torch.empty(1, case["channels"], height, width, dtype=torch.bfloat16, device="meta")
    branch = torch.empty(1, few, 2 * height, 2 * width, device="meta") if few else None
    assert decoder.worthwhile(x, branch, case["mode"], layer) == expected
