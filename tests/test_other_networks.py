"""U-Net, ResNet and deep decoder: published sizes, equations restated, fits, crops, what does not go together."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import assert_equal_states, picture, trained_state

import dip
from dip import crops, networks, presets, settings
from dip.networks import DeepDecoder, ResNet, UNet


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def count(network):
    return sum(p.numel() for p in network.parameters())


def unlike(network):
    """Scales and offsets of the normalisations that are neither 1 nor 0, in float64."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=seeded(1))
            torch.nn.init.uniform_(module.bias, -0.5, 0.5, generator=seeded(2))
    return network.double()


# ---------------------------------------------------------------- published sizes


@pytest.mark.parametrize(
    ("channels", "outputs", "published"),
    [
        (64, 3, 25_536),
        (128, 3, 100_224),
        (256, 4, 397_312),
    ],  # the last that of the authors' inpainting, of an RGBA poster
)
def test_deep_decoders_have_their_published_numbers_of_parameters(channels, outputs, published):
    assert count(DeepDecoder(channels, outputs, channels=[channels] * 6)) == published


def test_the_code_of_the_published_deep_decoder_is_of_16_x_16_pixels():
    fit = dip.Fit(dip.Denoise(np.full((512, 512, 3), 0.5, np.float32)), preset="deep-decoder")
    assert fit.code.shape == (1, 128, 16, 16)
    assert 0 <= fit.code.min() < 0.001
    assert 0.099 < fit.code.max() <= 0.1


def test_parameters_of_a_u_net():
    """3 x 3 kernels (1 x 1 at the end) with a bias each, and two numbers a normalised channel."""
    levels, inputs, outputs = (64, 128, 256, 512, 1024), 1, 2
    twice = [(inputs, 64), *itertools.pairwise(levels)]
    weights = sum(9 * a * b + 9 * b * b + 2 * 3 * b for a, b in twice)
    for outer, inner in itertools.pairwise(levels):
        weights += 9 * inner * outer + outer + 9 * 2 * outer * outer + 9 * outer * outer + 2 * 3 * outer
    assert count(UNet(inputs, outputs, channels=levels)) == weights + 64 * outputs + outputs


def test_parameters_of_a_resnet():
    same = 2 * 9 * 8 * 8 + 2 * 2 * 8
    wider = 9 * 8 * 12 + 9 * 12 * 12 + 2 * 2 * 12 + 8 * 12 + 2 * 12  # with a shortcut of its own
    ends = 9 * 5 * 8 + 8 + 9 * 12 * 12 + 12 + 2 * 12 + 9 * 12 * 3 + 3
    assert count(ResNet(5, 3, channels=[8, 8, 12])) == 2 * same + wider + ends


# ---------------------------------------------------------------- their equations, from the weights alone

ACTIVATION = {
    "relu": lambda x: x.clamp(min=0),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.2 * x),
    "silu": lambda x: x * torch.sigmoid(x),
}


class Restated:
    """What the networks compute, written with plain operations; `weights` are used up in the order of the network."""

    def __init__(self, network, padding="reflect", activation="relu", upsampling="bilinear"):
        self.weights = dict(network.state_dict())
        self.padding, self.upsampling = padding, upsampling
        self.act = ACTIVATION[activation]

    def conv(self, x, name):
        weight = self.weights[f"{name}.weight"]
        pad = weight.shape[-1] // 2
        if pad:
            x = F.pad(x, (pad,) * 4, mode="reflect" if self.padding == "reflect" else "constant")
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"))

    def norm(self, x, name):
        x = (x - x.mean((0, 2, 3), keepdim=True)) / torch.sqrt(x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5)
        scale, offset = (self.weights[f"{name}.{part}"].reshape(1, -1, 1, 1) for part in ("weight", "bias"))
        return scale * x + offset

    def doubled(self, x):
        if self.upsampling == "nearest":
            return x.repeat_interleave(2, -2).repeat_interleave(2, -1)
        return F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="bilinear", align_corners=False)

    def deep_decoder(self, z, layers):
        place = 0
        for i in range(layers):
            z = torch.einsum("kc,nchw->nkhw", self.weights[f"layers.{place}.weight"][:, :, 0, 0], z)
            place += 1
            if i < layers - 1:
                z, place = self.doubled(z), place + 1
            z = self.norm(self.act(z), f"layers.{place + 1}")
            place += 2
        return torch.sigmoid(self.conv(z, "out"))

    def twice(self, x, name, first=0):
        for place in (first, first + 3):
            x = self.act(self.norm(self.conv(x, f"{name}.{place}"), f"{name}.{place + 1}"))
        return x

    def unet(self, z, levels):
        skips = [z := self.twice(z, "down.0")]
        for i in range(1, levels):
            height, width = z.shape[2] // 2, z.shape[3] // 2
            z = z.reshape(*z.shape[:2], height, 2, width, 2).amax((3, 5))
            skips.append(z := self.twice(z, f"down.{i}", 1))
        for i in reversed(range(levels - 1)):
            z = self.conv(self.doubled(z), f"narrow.{i}")
            z = self.twice(torch.cat([z, skips[i]], 1), f"up.{i}")
        return torch.sigmoid(self.conv(z, "out"))

    def resnet(self, z, blocks):
        z = self.act(self.conv(z, "first.0"))
        for i in range(blocks):
            name = f"blocks.{i}"
            made = self.norm(
                self.conv(self.act(self.norm(self.conv(z, f"{name}.0"), f"{name}.1")), f"{name}.3"), f"{name}.4"
            )
            if f"shortcuts.{i}.0.weight" in self.weights:
                z = self.norm(self.conv(z, f"shortcuts.{i}.0"), f"shortcuts.{i}.1")
            z = z + made
        return torch.sigmoid(self.conv(self.norm(self.conv(z, "last.0"), "last.1"), "out"))


CASES = {
    "deep decoder": (DeepDecoder, [6, 5, 4, 7], {}),
    "deep decoder, nearest": (DeepDecoder, [6, 5], {"upsampling": "nearest", "activation": "silu"}),
    "deep decoder of one layer": (DeepDecoder, [6], {}),
    "unet": (UNet, [4, 6, 8], {}),
    "unet, nearest, zeros": (UNet, [4, 6], {"upsampling": "nearest", "padding": "zero", "activation": "leaky_relu"}),
    "unet of one level": (UNet, [4], {}),
    "resnet": (ResNet, [4, 4, 6], {"activation": "leaky_relu"}),
    "resnet, zeros": (ResNet, [5], {"padding": "zero", "activation": "silu"}),
}


@pytest.mark.parametrize(("kind", "channels", "options"), CASES.values(), ids=CASES)
def test_equals_its_equation_and_so_does_its_gradient(kind, channels, options):
    network = unlike(kind(3, 2, channels=channels, generator=seeded(), **options))
    times = network.magnification
    height, width = (side // times for side in network.padded_size(24, 40))
    z = torch.rand(1, 3, height, width, generator=seeded(3), dtype=torch.float64)
    restated = Restated(network, **options)
    restated.weights = {
        name: value.clone().requires_grad_(value.is_floating_point()) for name, value in restated.weights.items()
    }
    equation = {DeepDecoder: restated.deep_decoder, UNet: restated.unet, ResNet: restated.resnet}[kind]
    x, expected = network(z), equation(z, len(channels))
    assert x.shape == (1, 2, times * height, times * width)
    torch.testing.assert_close(x, expected)
    weight = torch.rand(x.shape, generator=seeded(4), dtype=torch.float64)
    (x * weight).sum().backward()
    (expected * weight).sum().backward()
    for name, p in network.named_parameters():
        # biases before a normalisation have no influence; the rounding of their gradients is compared with 0
        torch.testing.assert_close(p.grad, restated.weights[name].grad, atol=1e-9, rtol=1e-7, msg=name)


# ---------------------------------------------------------------- sizes, precision, weights

SMALL = {"deep-decoder": [8] * 4, "unet": [4, 6, 8], "resnet": [6, 8]}


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (65, 129), (3, 200), (64, 64)])
@pytest.mark.parametrize("name", SMALL)
def test_every_size_has_a_padded_one_that_works(name, size):
    network = networks.create(name, 2, 1, channels=SMALL[name], generator=seeded())
    padded = network.padded_size(*size)
    assert all(p >= s and p % network.multiple == 0 for p, s in zip(padded, size, strict=True))
    assert network.padded_size(*padded) == padded
    code = [side // network.magnification for side in padded]
    x = network(torch.rand(1, 2, *code, generator=seeded()))
    assert x.shape == (1, 1, *padded)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("name", SMALL)
def test_weights_and_precision_are_as_those_of_the_paper_s_network(name):
    before = torch.get_rng_state()
    one, same, other = (networks.create(name, 4, 3, channels=SMALL[name], generator=seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.out.weight, other.out.weight)
    for module in one.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.weight.abs().max() <= 1 / math.sqrt(module.weight[0].numel())
    code = [side // one.magnification for side in one.padded_size(32, 32)]
    z = torch.rand(1, 4, *code, generator=seeded(1))
    half, single = one(z.bfloat16()), one(z)
    assert half.dtype == single.dtype == torch.float32
    assert 0 < (half - single).abs().max() < 0.1


def test_codes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\); \(N, 4, H, W\) is needed"):
        UNet(4)(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"2 scales cannot make 18 x 32 pixels; pad the code to \(20, 32\)"):
        UNet(4, channels=[4] * 3)(torch.rand(1, 4, 18, 32))
    with pytest.raises(ValueError, match=r"3 scales cannot make 8 x 40 pixels; pad the code to \(2, 5\)"):
        DeepDecoder(4, channels=[4] * 4)(torch.rand(1, 4, 1, 5))


@pytest.mark.parametrize("kind", [DeepDecoder, UNet, ResNet])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": []}, "at least one (layer|level|block) is needed"),
        ({"channels": 8}, "channels=8: a list of channels is needed, one entry a (layer|level|block)"),
        ({"channels": [8, 0]}, r"channels\[1\] must be a whole number from 1 up, not 0"),
        ({"channels": [8, 8.0]}, r"channels\[1\] must be .* pass 8"),
        ({"activation": "ReLU"}, "unknown activation 'ReLU'; did you mean 'relu'"),
        ({"norm_scale": "ones"}, "unknown norm_scale 'ones'; did you mean 'one'"),
        ({"sigmoid": 1}, "sigmoid must be True or False, not 1"),
        ({"in_channels": 0}, "in_channels must be .* not 0"),
    ],
)
def test_refused_by_name(kind, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        kind(**{"in_channels": 4, **options})


# ---------------------------------------------------------------- fits


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("task", ["denoise", "inpaint", "enlarge"])
def test_fits_of_any_size_by_name(name, task):
    image = picture((21, 33, 3))
    tasks = {
        "denoise": dip.Denoise(image),
        "inpaint": dip.Inpaint(image, np.random.default_rng(0).random((21, 33)) < 0.5),
        "enlarge": dip.SuperResolve(image, 2),
    }
    fit = dip.fit(tasks[task], network={"name": name, "channels": SMALL[name]}, iters=30, progress=False)
    assert fit.image.shape == ((42, 66, 3) if task == "enlarge" else image.shape)
    assert fit.history["loss"][-1] < 0.5 * fit.history["loss"][0]
    assert fit.network.magnification * fit.code.shape[2] == fit.settings.frame.height


@pytest.mark.parametrize("name", SMALL)
def test_a_resumed_fit_is_the_same(name, tmp_path):
    options = {"network": {"name": name, "channels": SMALL[name]}, "device": "cpu", "progress": False}
    task = dip.Denoise(picture((21, 33, 3)))
    straight = dip.fit(task, iters=12, **options)
    dip.fit(task, iters=5, **options).save(tmp_path / "fit.safetensors")
    resumed = dip.fit(task, iters=12, resume=tmp_path / "fit.safetensors", **options)
    assert_equal_states(trained_state(resumed), trained_state(straight))
    with pytest.raises(dip.CheckpointError, match="network"):
        dip.fit(task, iters=12, resume=tmp_path / "fit.safetensors", progress=False, code=dip.codes.Uniform(32))


def test_a_name_alone_takes_the_defaults_and_a_dict_without_one_the_preset_s_network():
    task = dip.Denoise(picture())
    assert count(dip.Fit(task, network="unet").network) == count(UNet(32))
    assert count(dip.Fit(task, network={"name": "unet"}).network) == count(UNet(32))
    fit = dip.Fit(task, preset="deep-decoder", network={"channels": [64] * 6}, code=dip.codes.Uniform(64))
    assert count(fit.network) == 25_536
    kept = dip.Fit(task, preset="deep-decoder", network={"name": "deep-decoder", "upsampling": "nearest"})
    assert count(kept.network) == 100_224
    with pytest.raises(ValueError, match="unknown option of network 'unet': 'down'"):
        dip.Fit(task, network={"name": "unet", "down": [8, 8]})
    with pytest.raises(ValueError, match="unknown network 'u-net'; did you mean 'unet'"):
        dip.Fit(task, network={"name": "u-net"})
    with pytest.raises(ValueError, match="unknown network 5"):
        dip.Fit(task, network={"name": 5})


def test_a_deep_decoder_fits_a_picture_and_hardly_noise():
    """What it is for: with fewer weights than pixels it comes near a smooth picture, and not near noise."""
    y, x = np.mgrid[:64, :64] / 64
    smooth = (0.5 + 0.2 * np.sin(4 * x + 3 * y) + 0.2 * (x > y)).astype(np.float32)
    noise = np.random.default_rng(0).normal(0.5, smooth.std(), (64, 64)).clip(0, 1).astype(np.float32)
    options = {"network": {"name": "deep-decoder", "channels": [16] * 5}, "code": "uniform", "jitter": 0.0}
    left = {}
    for name, image in (("smooth", smooth), ("noise", noise)):
        fit = dip.fit(dip.Denoise(image), iters=300, progress=False, **options)
        left[name] = fit.history["loss"][-1] / image.var()
    assert count(fit.network) < smooth.size / 2
    assert left["smooth"] < 0.05
    assert left["noise"] > 0.6


def decoder(**attributes):
    """A decoder as somebody outside of the package would write it, for codes of 5 channels."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(5, 3, 3, padding=1), torch.nn.Upsample(scale_factor=4), torch.nn.Sigmoid()
    )
    for name, value in attributes.items():
        setattr(network, name, value)
    return network


def test_a_decoder_of_one_s_own_has_a_small_code():
    task, options = dip.Denoise(picture((21, 33, 3))), {"code": dip.codes.Uniform(5), "progress": False}
    fit = dip.fit(task, network=decoder(magnification=4), iters=2, **options)
    assert fit.code.shape == (1, 5, 6, 9)
    assert fit.output.shape == (1, 3, 21, 33)
    with pytest.raises(ValueError, match=r"of a code of shape \(1, 5, 21, 33\).* an attribute magnification"):
        dip.Fit(task, network=decoder(), **options)
    for wrong, kind in ((0, ValueError), (1.5, TypeError), (None, TypeError)):
        with pytest.raises(kind, match="the network's magnification must be a whole number from 1 up"):
            dip.Fit(task, network=decoder(magnification=wrong), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"preset": "fast"},
            "preset 'fast' has a code that has the image's size, and a DeepDecoder .* take preset=\"paper\", or",
        ),
        (
            {"code": dip.codes.Image(picture((16, 16)))},
            "^code=Image.* the image's size.*give code=dip.codes.Uniform",
        ),
        ({"flips": 5}, "flips=5 mirrors code and image alike.*leave it out"),
        ({"tile": 64}, "tile=64 takes crops of code and image alike.*leave it out, or take another network"),
    ],
)
def test_what_needs_a_code_of_the_image_s_size_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dip.Fit(dip.Denoise(picture()), network="deep-decoder", **options)


@pytest.mark.parametrize("name", ["unet", "resnet"])
def test_fits_in_crops(name, monkeypatch):
    network = networks.create(name, 4, 2, channels=SMALL[name], generator=seeded()).eval()
    size = network.padded_size(2 * network.reach + 40, 1)
    code = torch.rand(1, 4, *size, generator=seeded(1), requires_grad=True)
    row = size[0] // 2 + 1
    network(code)[0, :, row].sum().backward()
    seen = code.grad.abs().sum((0, 1, 3)).nonzero()
    furthest = max(row - int(seen.min()), int(seen.max()) - row)
    assert furthest <= network.reach < 2.5 * furthest + 2 * network.multiple

    monkeypatch.setattr(crops, "_PASS", 8)  # several tiles in the last pass
    noisy = picture((100, 130, 3))
    fit = dip.fit(
        dip.Denoise(noisy),
        network={"name": name, "channels": SMALL[name]},
        tile=64,
        iters=12,
        device="cpu",
        precision="float32",
        progress=False,
    )
    joined = fit.output
    monkeypatch.setattr(fit.network, "reach", 0)  # without the margin there would be seams
    seams = crops.whole(fit.network, fit.code, 64, torch.float32)
    with torch.no_grad():
        at_once = fit.network.eval()(fit.code)
    torch.testing.assert_close(joined, fit.settings.frame.crop(at_once), atol=2e-5, rtol=0)
    assert (seams - at_once).abs().max() > 1e-3


def test_the_memory_is_foretold_and_crops_are_not_advised_where_they_do_not_help(monkeypatch):
    preset = presets.get("denoise", "deep-decoder")
    cpu = torch.device("cpu")
    small, large = (settings.memory(preset, (3, side, side), cpu) for side in (512, 1024))
    assert 3 < large / small < 4.2
    assert settings.memory(preset, (3, 1024, 1024), cpu, tile=512) is None
    monkeypatch.setattr(dip.devices, "free_memory", lambda device: 2**29)
    with pytest.raises(MemoryError) as refused:
        dip.Fit(dip.Denoise(np.broadcast_to(np.float32(0.5), (1024, 1024, 3))), preset="deep-decoder")
    assert "tile" not in str(refused.value)
    assert 'network={"name": "deep-decoder", "channels": [64] * 6}' in str(refused.value)
    with pytest.raises(MemoryError, match="tile=512"):
        dip.Fit(dip.Denoise(np.broadcast_to(np.float32(0.5), (1024, 1024, 3))), network="unet")
