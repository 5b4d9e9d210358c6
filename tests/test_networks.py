"""Networks: published size, the equation of the encoder-decoder restated, sizes, precision, refusals, registry."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import NET, quick_fit

import dip
from dip.networks import EncoderDecoder, create, names, register
from dip.operators import Downsample


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def count(network):
    return sum(p.numel() for p in network.parameters())


def worked_count(inputs, outputs, down, up, skip, *, k_down=3, k_up=3, k_skip=1, one=True, bias=True):
    """The number of parameters from the published diagram: convolutions and two numbers a normalised channel."""

    def stage(a, b, k):
        return a * b * k * k + (b if bias else 0) + 2 * b

    total, channels = 0, inputs
    for i in range(len(down)):
        deeper = up[i + 1] if i + 1 < len(down) else down[i]
        total += stage(channels, down[i], k_down) + stage(down[i], down[i], k_down)
        total += stage(channels, skip[i], k_skip) if skip[i] else 0
        total += 2 * (deeper + skip[i]) + stage(deeper + skip[i], up[i], k_up)
        total += stage(up[i], up[i], 1) if one else 0
        channels = down[i]
    return total + up[0] * outputs + (outputs if bias else 0)


def test_the_papers_network_has_its_published_number_of_parameters():
    assert count(EncoderDecoder(32, 3, down=[128] * 5, up=[128] * 5, skip=[4] * 5)) == 2_217_831


@pytest.mark.parametrize(
    ("lists", "options", "worked"),
    [
        (([8, 16, 32], [4, 6, 8], [0, 2, 4]), {}, {}),
        (([8], [8], [0]), {}, {}),
        (([8, 16], [16, 8], [4, 4]), {"kernel_down": 5, "kernel_up": 1}, {"k_down": 5, "k_up": 1}),
        (([8, 16], [16, 8], [4, 4]), {"kernel_skip": 3}, {"k_skip": 3}),
        (([8, 16], [16, 8], [4, 0]), {"conv1x1_up": False}, {"one": False}),
        (([8, 16], [16, 8], [4, 4]), {"bias": False}, {"bias": False}),
        (([16, 32, 64], [16, 32, 64], [0, 0, 0]), {"kernel_down": 5, "conv1x1_up": False}, {"k_down": 5, "one": False}),
    ],
)
def test_parameter_counts(lists, options, worked):
    down, up, skip = lists
    network = EncoderDecoder(5, 2, down=down, up=up, skip=skip, **options)
    assert count(network) == worked_count(5, 2, down, up, skip, **worked)


ACTIVATION = {
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.2 * x),
    "relu": lambda x: x.clamp(min=0),
    "elu": lambda x: torch.where(x > 0, x, torch.expm1(x)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "none": lambda x: x,
}


def restated(weights, z, *, scales, upsampling, downsampling, padding, activation, sigmoid):
    """The network's equation once more, from its weights alone."""

    def layers(prefix):
        """The tensors of one stage in order, as a list of dicts: convolutions (4 axes) and normalisations."""
        found = {}
        for name, tensor in weights.items():
            if name.startswith(prefix + "."):
                layer, _, kind = name.removeprefix(prefix + ".").partition(".")
                found.setdefault(int(layer), {})[kind] = tensor
        return [found[i] for i in sorted(found) if "weight" in found[i]]

    def conv(x, layer, stride=1):
        pad = layer["weight"].shape[-1] // 2
        if pad:
            x = F.pad(x, (pad,) * 4, mode="reflect" if padding == "reflect" else "constant")
        return F.conv2d(x, layer["weight"], layer.get("bias"), stride=stride)

    def normalised(x, layer):
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-5)
        return x * layer["weight"].reshape(1, -1, 1, 1) + layer["bias"].reshape(1, -1, 1, 1)

    def halved(x, how):
        if how == "average":
            return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        if how == "max":
            return F.max_pool2d(x, 2)
        return Downsample(2, how)(x)

    def stage(x, pair, how=None):
        x = conv(x, pair[0], 2 if how == "stride" else 1)
        if how not in (None, "stride"):
            x = halved(x, how)
        return ACTIVATION[activation](normalised(x, pair[1]))

    def doubled(x, how):
        if how == "nearest":
            return x.repeat_interleave(2, -2).repeat_interleave(2, -1)
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    skips, x = [], z
    for i in range(scales):
        branch = layers(f"skip.{i}")
        skips.append(stage(x, branch) if branch else None)
        encoder = layers(f"down.{i}")
        x = stage(stage(x, encoder[:2], downsampling[i]), encoder[2:])
    for i in reversed(range(scales)):
        first, *decoder = layers(f"up.{i}")
        x = doubled(x, upsampling[i])
        x = x if skips[i] is None else torch.cat([skips[i], x], 1)
        x = stage(normalised(x, first), decoder[:2])
        x = stage(x, decoder[2:]) if len(decoder) > 2 else x
    x = conv(x, {"weight": weights["out.weight"], "bias": weights.get("out.bias")})
    return 1 / (1 + torch.exp(-x)) if sigmoid else x


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upsampling": ["nearest", "bilinear"], "downsampling": ["average", "max"]},
        {"downsampling": ["lanczos2", "lanczos3"], "upsampling": "nearest"},
        {"kernel_down": [5, 3], "kernel_up": [1, 5], "kernel_skip": [3, 1], "padding": "zero"},
        {"kernel_down": 7, "kernel_skip": 5, "conv1x1_up": False, "sigmoid": False, "bias": False},
        *({"activation": name} for name in ACTIVATION),
    ],
)
def test_equals_its_equation(options):
    network = EncoderDecoder(3, 2, down=[4, 6], up=[5, 3], skip=[2, 0], generator=seeded(), **options).double()
    for module in network.modules():  # scales and offsets that are not 1 and 0
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=seeded(1))
            torch.nn.init.uniform_(module.bias, -0.5, 0.5, generator=seeded(2))
    z = torch.randn(1, 3, *network.padded_size(12, 20), generator=seeded(3), dtype=torch.float64)

    def a_scale(name, default):
        value = options.get(name, default)
        return value if isinstance(value, list) else [value] * 2

    expected = restated(
        dict(network.state_dict()),
        z,
        scales=2,
        upsampling=a_scale("upsampling", "bilinear"),
        downsampling=a_scale("downsampling", "stride"),
        padding=options.get("padding", "reflect"),
        activation=options.get("activation", "leaky_relu"),
        sigmoid=options.get("sigmoid", True),
    )
    torch.testing.assert_close(network(z), expected)


def test_first_scales_of_the_normalisations():
    def scales(**options):
        network = EncoderDecoder(3, 3, down=[64] * 2, up=[64] * 2, skip=[4] * 2, generator=seeded(), **options)
        found = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all((m.bias == 0).all() for m in found)
        return network, torch.cat([m.weight.detach() for m in found])

    as_in_the_paper, drawn = scales()
    _, same = scales(norm_scale="uniform")
    assert torch.equal(drawn, same)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert abs(drawn.mean() - 0.5) < 0.05  # U(0, 1) of several hundred: mean 1/2, variance 1/12
    assert abs(drawn.var() - 1 / 12) < 0.01
    as_today, ones = scales(norm_scale="one")
    assert (ones == 1).all()
    for ours, theirs in zip(as_in_the_paper.modules(), as_today.modules(), strict=True):
        if isinstance(ours, torch.nn.Conv2d):
            assert torch.equal(ours.weight, theirs.weight)


def test_gradient_is_that_of_finite_differences():
    network = EncoderDecoder(1, 1, down=[2], up=[2], skip=[1], activation="silu", generator=seeded()).double()
    weights = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    z = torch.randn(1, 1, 4, 4, generator=seeded(1), dtype=torch.float64, requires_grad=True)

    def output(z, *values):
        return torch.func.functional_call(network, dict(zip(weights, values, strict=True)), (z,))

    # Biases before a normalisation have no influence at all; their gradient is zero up to rounding.
    assert torch.autograd.gradcheck(output, (z, *weights.values()), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"sigmoid": False}])
def test_sigmoid_keeps_the_output_in_range(options):
    network = EncoderDecoder(2, 1, down=[4], up=[4], skip=[0], generator=seeded(), **options)
    torch.nn.init.normal_(network.out.weight, 0, 100, generator=seeded())
    x = network(torch.rand(1, 2, 8, 8, generator=seeded(1)))
    inside = bool(((x >= 0) & (x <= 1)).all())
    assert inside is options.get("sigmoid", True)


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (65, 129), (3, 200), (64, 64)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"down": [4] * 5, "up": [4] * 5, "skip": [1] * 5},
        {"down": [4] * 6, "up": [4] * 6, "skip": [0] * 6, "kernel_down": 5},
        {"kernel_down": 9, "kernel_up": 7, "kernel_skip": 11},
        {"kernel_down": 9, "padding": "zero"},
        {"kernel_down": [3, 15], "downsampling": "max"},
        {"down": [4], "up": [4], "skip": [2], "kernel_down": 5, "downsampling": "lanczos3"},
    ],
)
def test_every_size_has_a_padded_one_that_works(size, options):
    lists = {"down": [4, 4], "up": [4, 4], "skip": [2, 0]}
    network = EncoderDecoder(2, 1, **{**lists, **options}, generator=seeded())
    padded = network.padded_size(*size)
    assert all(p >= s and p % 2**network.scales == 0 for p, s in zip(padded, size, strict=True))
    assert network.padded_size(*padded) == padded
    x = network(torch.rand(1, 2, *padded, generator=seeded()))
    assert x.shape == (1, 1, *padded)
    assert torch.isfinite(x).all()
    smaller = padded[0] - 2**network.scales
    if smaller > 0 and size[0] <= smaller:  # it was enlarged for the deepest scale: one step less would be too small
        with pytest.raises(ValueError, match="padded_size"):
            network(torch.rand(1, 2, smaller, padded[1]))


def test_size_and_channels_of_the_code_are_checked():
    network = EncoderDecoder(2, 1, down=[4] * 3, up=[4] * 3, skip=[0] * 3)
    with pytest.raises(ValueError, match=re.escape("3 scales cannot make 20 x 32 pixels; pad the code to (24, 32)")):
        network(torch.rand(1, 2, 20, 32))
    for shape in ((1, 3, 32, 32), (2, 32, 32)):
        with pytest.raises(ValueError, match=re.escape(f"{shape}; (N, 2, H, W) is needed")):
            network(torch.rand(*shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"down": [8] * 3}, "down has 3, up has 2, skip has 2 entries"),
        ({"skip": [4]}, "skip has 1 entries"),
        ({"down": [], "up": [], "skip": []}, "at least one scale"),
        ({"down": [8, 0]}, r"down\[1\] must be a whole number from 1 up, not 0"),
        ({"up": [8, -8]}, r"up\[1\] must be .* not -8"),
        ({"skip": [-1, 4]}, r"skip\[0\] must be .* not -1"),
        ({"down": [8, 8.5]}, r"down\[1\] must be .* not 8.5"),
        ({"skip": [4, False]}, r"skip\[1\] must be .* not False"),
        ({"down": 8}, "down=8: a list of channels"),
        ({"up": "88"}, "up='88': a list of channels"),
        ({"kernel_down": 4}, "kernel_down=4: kernels have odd sizes.* take 5"),
        ({"kernel_up": [3, 3, 3]}, "kernel_up has 3 entries for 2 scales"),
        ({"kernel_skip": 0}, "kernel_skip must be .* not 0"),
        ({"upsampling": "linear"}, "unknown upsampling 'linear'; did you mean 'bilinear'"),
        ({"upsampling": ["nearest"]}, "upsampling has 1 entries for 2 scales"),
        ({"downsampling": ["stride", "avg"]}, "unknown downsampling 'avg'; .*allowed: stride, average"),
        ({"padding": "reflection"}, "unknown padding 'reflection'; did you mean 'reflect'"),
        ({"activation": "LeakyReLU"}, "unknown activation 'LeakyReLU'; did you mean 'leaky_relu'"),
        ({"in_channels": 0}, "in_channels must be .* not 0"),
        ({"out_channels": 2.0}, "out_channels must be .* pass 2"),
    ],
)
def test_refused_by_name(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        EncoderDecoder(**{"in_channels": 4, **NET, **options})


def test_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (EncoderDecoder(4, 3, **NET, generator=seeded(seed)).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["out.weight"], other["out.weight"])


def test_first_weights_are_uniform_within_one_over_the_root_of_the_fan_in():
    network = EncoderDecoder(32, 3, down=[64] * 2, up=[64] * 2, skip=[4] * 2, generator=seeded())
    weight = network.down[1][3].weight.detach()  # 64 x 64 x 3 x 3
    bound = (64 * 9) ** -0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=bound / 50)


def test_drawn_again_by_reset_parameters():
    network = EncoderDecoder(4, 3, **NET, generator=seeded(1))
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(torch.rand(1, 4, 16, 16))
    network.reset_parameters(seeded(1))
    assert all(torch.equal(first[name], tensor) for name, tensor in network.state_dict().items())


def test_computes_in_the_precision_of_the_code():
    network = EncoderDecoder(4, 3, **NET, generator=seeded())
    z = torch.rand(1, 4, 32, 32, generator=seeded(1))
    single = network(z)
    half = network(z.bfloat16())
    assert half.dtype == single.dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    error = (half - single).abs().max().item()
    assert 0 < error < 0.1
    half.mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


@pytest.fixture
def own_registry(monkeypatch):
    from dip.networks import registry

    monkeypatch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))


class Plain(torch.nn.Sequential):
    """A network as somebody outside the package would write it: plain layers, sizes as they come."""

    def __init__(self, in_channels, out_channels, *, generator=None, width=6):
        super().__init__(
            torch.nn.Conv2d(in_channels, width, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(width, out_channels, 1),
            torch.nn.Sigmoid(),
        )
        for p in self.parameters():
            torch.nn.init.uniform_(p, -0.3, 0.3, generator=generator)


@pytest.mark.usefixtures("own_registry")
def test_a_registered_network_can_be_fitted_by_its_name():
    register("plain", Plain)
    assert names() == ["deep-decoder", "encoder-decoder", "plain", "resnet", "unet"]
    assert create("plain", 4, 3, width=9)[0].out_channels == 9
    image = np.full((7, 13, 3), 0.5, np.float32)
    fit = dip.fit(dip.Denoise(image), network="plain", iters=2)
    assert isinstance(fit.network, Plain)
    assert fit.image.shape == image.shape
    with pytest.raises(ValueError, match="'plain' is registered already"):
        register("plain", Plain)


def test_registry_refuses_unknown_names_and_options():
    with pytest.raises(ValueError, match="unknown network 'encoder_decoder'; did you mean 'encoder-decoder'"):
        create("encoder_decoder", 4, 3)
    with pytest.raises(ValueError, match="unknown option of network 'encoder-decoder': 'upsample'; did you mean 'ups"):
        create("encoder-decoder", 4, 3, **NET, upsample="nearest")


def test_a_users_module_is_fitted_as_it_is():
    module = Plain(8, 3, generator=seeded())
    first = module[0].weight.detach().clone()
    fit = quick_fit(network=module, precision="auto", iters=3)
    assert fit.network is module
    assert not torch.equal(module[0].weight, first)
    assert fit.history["loss"][-1] < fit.history["loss"][0]
