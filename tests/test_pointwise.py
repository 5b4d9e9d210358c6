"""The convolution of single pixels on the tensor cores, by the kernels for a GPU, against PyTorch's layers."""
# ruff: noqa: F401, F811 - fixtures are imported and then named as parameters

from __future__ import annotations

import copy

import pytest
import torch
from test_fused import (
    Emulated,
    backwards,
    compared,
    compiled,
    device,
    layers_of,
    near,
    on_cuda,
    ordered,
    picture,
    streams,
)
from torch import nn

from dip import networks
from dip.networks import cuda, decoder, driver, fused, layers, pointwise, recorded


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    """Take small pictures; return which kernels were launched."""
    monkeypatch.setattr(pointwise, "_PIXELS", 0)
    names = []

    def watched(real):
        def launch(self, kernel, blocks, threads, *others):
            assert not kernel.startswith("pointwise") or threads == (32, 8)
            names.append(kernel)
            real(self, kernel, blocks, threads, *others)

        return launch

    for kind in (Emulated, driver.Loaded):
        monkeypatch.setattr(kind, "launch", watched(kind.launch))
    return names


def stage_of(device, channels, following=True):
    """Return a normalisation, an activation, a convolution, and a normalisation that follows.

    Not an activation after it: it is by chance how many values change sides.
    """
    torch.manual_seed(0)
    conv = layers_of("conv", channels, channels, kernel=1)[0]
    nn.init.normal_(conv.weight, std=channels**-0.5)
    norms = []
    for _ in range(2):
        norms.append(nn.BatchNorm2d(channels))
        nn.init.uniform_(norms[-1].weight, 0.2, 1)
        nn.init.normal_(norms[-1].bias, std=0.3)
        nn.init.normal_(norms[-1].running_mean)
    return nn.Sequential(norms[0], nn.LeakyReLU(0.2), conv, *[norms[1], nn.Identity()] * following).to(device)


def applied(own, x):
    return layers.apply(own[0], x)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize(
    ("channels", "images", "size"), [(64, 1, (8, 16)), (64, 2, (9, 31)), (128, 1, (3, 5)), (128, 2, (13, 33))]
)
def test_it_rounds_no_more_than_pytorchs_layers(device, launched, channels, images, size, following, frozen):
    module = stage_of(device, channels, following)
    x = picture(images, channels, *size, device=device).bfloat16().float()
    exact, own = compared(applied, [module], [x], frozen, dtype=torch.bfloat16)
    assert launched.count(f"pointwise_{channels}") == launched.count(f"pointwise_back_{channels}") == 1
    assert launched.count("moments") == (not frozen)
    stock = copy.deepcopy(module).train(not frozen)
    given = ordered(x.detach().bfloat16()).requires_grad_()
    with torch.autocast(device, enabled=False):
        z = stock[1](stock[0](given))
        y = nn.functional.conv2d(z, stock[2].weight.bfloat16(), stock[2].bias.bfloat16())
        y = stock[3:](y)
    backwards(y)
    theirs = {"y": y, "to 0": given.grad}
    theirs |= {f"0 {name}": p.grad for name, p in stock.named_parameters()}
    theirs |= {f"0 {name}": t for name, t in stock.named_buffers() if t.is_floating_point()}
    for name, b in theirs.items():
        if name == "0 2.bias" and following and not frozen:
            assert (own[name] == 0).all()  # as it is but for rounding
            continue
        a, scale = exact[name].detach().cpu().double(), exact[name].detach().double().abs().mean().item()
        ours, other = ((t.detach().cpu().double() - a).abs().mean() / scale for t in (own[name], b))
        assert ours <= 1.5 * other + 1e-4, name
        assert ours < 0.02, name


@pytest.mark.parametrize("slope", [0.5, 1.0, 0.0])
@pytest.mark.parametrize(("channels", "pixels"), [(64, 1), (64, 130), (128, 63), (128, 400), (128, 513)])
def test_what_can_be_computed_exactly_is(device, launched, channels, pixels, slope):
    """Of small whole numbers, no product or sum is rounded."""
    generator = torch.Generator().manual_seed(0)

    def numbers(most, *shape):
        return torch.randint(-most, most + 1, shape, generator=generator).float()

    norm, conv = (
        nn.BatchNorm2d(channels, eps=1e-30).eval(),
        layers_of("conv", channels, channels, kernel=1, bias=False)[0],
    )
    with torch.no_grad():
        norm.weight.copy_(2.0 ** numbers(1, channels))
        norm.bias.copy_(numbers(2, channels) + 0.5)  # nothing is 0, where slopes may differ
        norm.running_mean.copy_(2 * numbers(1, channels))
        conv.weight.copy_(numbers(1, channels, channels, 1, 1) * (numbers(4, channels, channels, 1, 1) > 2))
    x, g = 2 * numbers(3, 1, channels, 1, pixels), numbers(1, 1, channels, 1, pixels)
    module, found = nn.Sequential(norm, nn.LeakyReLU(slope), conv).to(device), []
    for dtype in (torch.float64, torch.bfloat16):
        own = copy.deepcopy(module).to(torch.float64) if dtype == torch.float64 else module
        given = ordered(x.to(device, dtype)).requires_grad_()
        y = layers.apply(own, given)
        assert y.dtype == dtype
        y.backward(g.to(y))
        found.append([y, given.grad, *(p.grad for p in own.parameters())])
    assert f"pointwise_back_{channels}" in launched
    exact = [t.detach() for t in found[0]]
    exact[:2] = (t.bfloat16() for t in exact[:2])  # the pictures are stored so
    for one, other in zip(exact, found[1], strict=True):
        assert torch.equal(one.double(), other.detach().double())


def test_statistics_are_those_that_a_pass_over_the_picture_finds(device, launched, monkeypatch):
    module = stage_of(device, 64)
    x = ordered(picture(2, 64, 21, 33, device=device).bfloat16())
    found = []
    for told in (True, False):
        if not told:
            monkeypatch.setattr(layers, "followed", lambda *_: None)
        own = copy.deepcopy(module)
        y = layers.apply(own, x)
        found.append([y, *(t for _, t in own.named_buffers())])
    assert launched.count("moments") == 1 + 2
    assert torch.equal(found[0][-1], torch.ones_like(found[0][-1]))
    for one, other in zip(*found, strict=True):
        scale = other.double().abs().max()
        assert (one.double() - other.double()).abs().max() <= (0.01 if one.dtype == torch.bfloat16 else 1e-5) * scale


@pytest.mark.parametrize("watched", ["norm", "frozen", "no running ones", "nothing"])
def test_statistics_are_left_to_layers_that_find_them_themselves(device, launched, watched):
    module = stage_of(device, 64)
    x = ordered(picture(1, 64, 8, 20, device=device).bfloat16())
    expected = 2
    if watched == "norm":
        module[3].register_forward_hook(lambda *_: None)
    elif watched == "frozen":
        module[3].eval()
    elif watched == "no running ones":
        module[3] = nn.BatchNorm2d(64, track_running_stats=False).to(device)
    expected = 1
    backwards(layers.apply(module, x))
    assert launched.count("moments") == expected
    assert launched.count("pointwise_64") == 1
    if module[3].num_batches_tracked is not None:
        assert module[3].num_batches_tracked == (watched != "frozen")


def test_the_pixels_of_all_fits_that_a_kernel_is_begun_for_count(monkeypatch):
    monkeypatch.setattr(pointwise, "_PIXELS", 2**14)
    layer, taken = layers.Conv2d(64, 64, kernel=1, stride=1, padding="zeros", bias=False), []
    for fits in (1, 15, 16):
        monkeypatch.setattr(cuda.devices, "begun_at_once", lambda device, fits=fits: fits)
        taken.append(pointwise.worthwhile(layer, torch.bfloat16, 32 * 32, torch.device("cpu")))
    assert taken == [False, False, True]


def network_of(device, channels=64, **options):
    torch.manual_seed(0)
    network = networks.EncoderDecoder(8, 3, down=[channels] * 2, up=[channels] * 2, skip=[4, 4], **options)
    return network.to(device, memory_format=torch.channels_last)


@pytest.mark.parametrize("small", [False, True])
def test_a_whole_network(device, launched, small, monkeypatch):
    if small:  # that the decoder's stages are computed on
        monkeypatch.setattr(decoder, "_PIXELS", 0)
    network, z = network_of(device), ordered(picture(1, 8, 24, 20, device=device).bfloat16())
    found = []
    for kind in ("exact", "ours", "without"):
        if kind == "without":
            monkeypatch.setattr(pointwise, "worthwhile", lambda *_: False)
        own = copy.deepcopy(network).double() if kind == "exact" else copy.deepcopy(network)
        y = own(z.double() if kind == "exact" else z)
        backwards(y)
        left = {"y": y} | {name: p.grad for name, p in own.named_parameters()}
        found.append(left | {name: t for name, t in own.named_buffers() if t.is_floating_point()})
        if kind == "ours":
            assert launched.count("pointwise_64") == launched.count("pointwise_back_64") == 2
            assert launched.count("blur_moments") == 2 * small
            assert all(t == 1 for name, t in own.named_buffers() if name.endswith("tracked"))
    assert launched.count("pointwise_64") == 2
    total, nearly = [0.0, 0.0], []
    for name, exact in found[0].items():
        scale = exact.detach().abs().mean()
        errors = [((t[name].detach().double() - exact.detach()).abs().mean() / scale).item() for t in found[1:]]
        if scale < 1e-3:  # a gradient that has cancelled, and is rounding
            continue
        if errors[1] > 0.5:  # nearly so
            nearly.append(name)
            continue
        assert errors[0] <= 2 * errors[1] + 0.01, name
        total = [one + error for one, error in zip(total, errors, strict=True)]
    assert total[0] <= 1.2 * total[1]
    assert nearly in ([], ["skip.0.1.weight"])


def test_autograd_takes_the_gradient_of_weights_as_it_is(device, monkeypatch):
    """A copy would be one kernel more in each iteration; and a cast is not needed."""
    made, cast = [], []
    real = torch.empty_like

    def watched(x, *given, **named):
        found = real(x, *given, **named)
        made.append(found.data_ptr())
        return found

    network = network_of(device)
    monkeypatch.setattr(
        recorded, "cast", lambda layers, dtype, real=recorded.cast: (cast.extend(layers), real(layers, dtype))[1]
    )
    y = network(ordered(picture(1, 8, 24, 20, device=device).bfloat16()))
    monkeypatch.setattr(pointwise.torch, "empty_like", watched)
    y.sum().backward()
    ours = [one for up in network.up for one in up if isinstance(one, layers.Conv2d) and one.kernel_size == (1, 1)]
    assert len(ours) == 2
    assert all(one.weight.grad.data_ptr() in made for one in ours)
    assert not set(ours) & set(cast)
    assert all(one.weight.grad.dtype == torch.float32 for one in ours)


@pytest.mark.skipif(on_cuda, reason="there it is recorded in earnest")
def test_in_a_recording_it_is_computed_in_its_turn(device, streams, monkeypatch):
    network, z = network_of(device), ordered(picture(1, 8, 32, 40).bfloat16())
    backwards(network(z))
    found = [p.grad.clone() for p in network.parameters()]
    back = streams[streams.index("begin on side") - 1 :]
    begins = [number for number, line in enumerate(back) if line == "begin on side"]
    assert all(back[number - 1] == "side waits for main" for number in begins)
    assert back[-1] == "main waits for side"
    assert not recorded._waiting._held
    for p in network.parameters():
        p.grad = None
    monkeypatch.setattr(recorded, "recorded", lambda x: False)
    backwards(network(z))
    assert all(torch.equal(one, p.grad) for one, p in zip(found, network.parameters(), strict=True))


def test_weights_that_are_not_trained_get_no_gradient(device, launched):
    module = stage_of(device, 64)
    module[2].requires_grad_(False)
    x = ordered(picture(1, 64, 8, 20, device=device).bfloat16()).requires_grad_()
    backwards(layers.apply(module, x))
    assert module[2].weight.grad is None
    assert x.grad.abs().sum() > 0
    assert "pointwise_sum" not in launched


def test_what_it_needs_can_be_foretold(device):
    """On tensors without values, as when the memory for a fit is estimated."""
    shapes = {}
    for kind in ("meta", device):
        module = stage_of(kind, 64)
        x = ordered(torch.ones(1, 64, 12, 16, device=kind, dtype=torch.bfloat16)).requires_grad_()
        kept = shapes[kind] = []
        keep = kept.append
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t, keep=keep: (keep(tuple(t.shape)), t)[1], lambda t: t)
        with layers.foretelling(torch.device(device)), hooks:
            y = layers.apply(module, x)
        y.sum().backward()
        kept += [tuple(t.grad.shape) for t in (x, *module.parameters()) if t.grad is not None]
    assert shapes["meta"] == shapes[device]
    assert len(shapes["meta"]) > 10


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"pixels": 2**14 - 1}, False),
        ({"dtype": torch.float32}, False),
        ({"channels": 64, "outputs": 64}, True),
        ({"channels": 64}, False),
        ({"channels": 96, "outputs": 96}, False),
        ({"kernel": 3}, False),
        ({"stride": 2}, False),
        ({"capability": (7, 5)}, False),
        ({"capability": (12, 0)}, True),
        ({"offset": 4}, True),
        ({"offset": 2}, False),
    ],
)
def test_where_it_is_worthwhile(change, expected, monkeypatch):
    monkeypatch.undo()
    case = {"channels": 128, "outputs": 128, "kernel": 1, "stride": 1, "pixels": 2**14, "dtype": torch.bfloat16}
    case |= {"capability": (8, 0), **change}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: case["capability"])
    options = {"kernel": case["kernel"], "padding": "reflect", "stride": case["stride"], "bias": False}
    layer = layers.Conv2d(case["channels"], case["outputs"], **options)
    if "offset" in case:  # as when the weights of all layers are in one vector
        room = torch.zeros(layer.weight.numel() + 4)
        layer.weight.data = room[case["offset"] :][: layer.weight.numel()].view_as(layer.weight)
    assert pointwise.worthwhile(layer, case["dtype"], case["pixels"], torch.device("cuda")) == expected
