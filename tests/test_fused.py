"""The kernels for a GPU, against PyTorch's layers: on a CPU, where a C++ compiler makes them, and on a GPU."""

from __future__ import annotations

import copy
import ctypes
import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from dip import devices, jitter, kept, losses, networks, optimizers
from dip.networks import cuda, encoder_decoder, fused, layers, normalising, recorded, squares, upsampled
from dip.networks import driver as machine
from dip.networks.upsampled import branched, conv_upsampled

HERE = Path(__file__).parent
COMPILER = shutil.which("c++") or shutil.which("g++")
on_cuda = torch.cuda.is_available()


def made(folder, dtype, width):
    """Return the kernels compiled for this processor, and what the driver does with them."""
    library = folder / f"{width}-{dtype}.so"
    with filelock.FileLock(f"{library}.lock"):  # tests in another process want it, too
        if not library.exists():
            given = [f"-DV={width}", f"-DBFLOAT16={int(dtype == torch.bfloat16)}", f"-I{Path(cuda.__file__).parent}"]
            command = [
                COMPILER,
                "-std=c++17",
                "-O1",  # where -O2 takes longer to compile than it spares
                "-fno-strict-aliasing",
                "-w",
                "-shared",
                "-fPIC",
                *given,
                str(HERE / "emulated.cpp"),
            ]
            subprocess.run([*command, "-o", str(library)], check=True, capture_output=True)
    return ctypes.CDLL(str(library))


class Emulated:
    """The kernels as a `dip.networks.cuda.Program`."""

    processors = 3

    def __init__(self, folder, dtype, width):
        self._library = made(folder, dtype, width)

    def launch(self, kernel, blocks, threads, shared, arguments):
        assert threads[0] * threads[1] <= 512
        assert shared <= (96 if kernel.startswith("pointwise") else 48) * 1024
        assert not any(isinstance(one, torch.Tensor) and one.is_meta for one in arguments)
        values = [machine.argument(one) for one in arguments]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        assert self._library.emulate(kernel.encode(), blocks, *threads, shared, pointers) == 0


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    root = tmp_path_factory.getbasetemp()
    # which other modules' tests find again, those in pytest-xdist's other processes, too
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "kernels"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def device(monkeypatch, compiled):
    """Return where the kernels are computed; on a CPU they are emulated. Small pictures are done as others are."""
    monkeypatch.setattr(normalising, "_FORWARDS", 0)
    monkeypatch.setattr(normalising, "_BACKWARDS", 0)
    if on_cuda:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # for the comparison with float64
        return "cuda"
    if COMPILER is None:
        pytest.skip("there is no C++ compiler here")
    monkeypatch.setattr(cuda, "program", lambda device, dtype, width: Emulated(compiled, dtype, width))
    for module in (layers, upsampled, encoder_decoder):
        monkeypatch.setattr(module, "trained_on_gpu", lambda x, beside=0: torch.is_grad_enabled() and fits(x))
    monkeypatch.setattr(layers, "_on_cpu", lambda x: False)
    return "cpu"


def fits(x):
    return x.dtype in (torch.float32, torch.bfloat16)


def layers_of(kind, channels, outputs=6, **options):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, -1, 1)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    conv = layers.Conv2d(channels, outputs, **{"kernel": 3, "stride": 1, "padding": "reflect", "bias": True, **options})
    nn.init.normal_(conv.weight, std=0.2)
    if conv.bias is not None:
        nn.init.normal_(conv.bias)
    return {"norm": [norm, nn.LeakyReLU(0.2)], "conv": [conv], "both": [norm, nn.LeakyReLU(0.2), conv]}[kind]


def compared(run, modules, inputs, frozen=False, dtype=torch.float32):
    """Return what a computation leaves, in float64 with PyTorch's layers, and with the kernels."""
    found = []
    for kind in (torch.float64, dtype):
        own = [copy.deepcopy(module).train(not frozen) for module in modules]
        own = [module.double() if kind == torch.float64 else module for module in own]
        given = [ordered(x.detach().to(kind, copy=True)).requires_grad_() for x in inputs]
        y = run(own, *given)
        backwards(y)
        left = {"y": y, **{f"to {number}": x.grad for number, x in enumerate(given)}}
        for number, module in enumerate(own):
            left |= {f"{number} {name}": t for name, t in module.named_buffers()}
            left |= {f"{number} {name}": t.grad for name, t in module.named_parameters()}
        found.append(left)
    return found


def backwards(y):
    """Take a gradient drawn at random back."""
    y.backward(torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y))


def ordered(x):
    return x.contiguous(memory_format=torch.channels_last)


def near(found, tolerance, least=1e-9):
    one, other = found
    assert one.keys() == other.keys()
    for name, a in one.items():
        a, b = a.detach().cpu(), other[name].detach().cpu().double()
        scale = a.abs().max() if a.abs().max() > least else 1.0
        assert (a - b).abs().max() <= tolerance * scale, name


def picture(*shape, device="cpu"):
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(device) * 2 + 3


@pytest.fixture
def launched(monkeypatch, device):
    """Return the kernels that are launched, with how many blocks."""
    found, program = {}, cuda.program

    class Watched:
        def __init__(self, kernels):
            self.processors, self._kernels = kernels.processors, kernels

        def launch(self, kernel, blocks, *given):
            found[kernel] = blocks
            self._kernels.launch(kernel, blocks, *given)

    monkeypatch.setattr(cuda, "program", lambda *given: Watched(program(*given)))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 16, 8, 8), {}),
        ((2, 16, 7, 5), {"stride": 2}),
        ((1, 64, 16, 16), {"padding": "zeros"}),
        ((3, 7, 4, 6), {"kernel": 5, "bias": False}),
        ((1, 136, 3, 11), {"kernel": 1}),
        ((1, 8, 40, 33), {}),
        ((1, 2, 1, 1), {"kernel": 1}),
    ],
)
def test_a_small_picture_is_done_by_one_block(device, launched, monkeypatch, shape, options, frozen, dtype):
    if shape[2:] == (1, 1) and not frozen:
        shape = (2, *shape[1:])  # of one value there is no variance
    modules = [module.to(device) for module in layers_of("both", shape[1], **options)]
    bias = torch.randn(shape[1], generator=torch.Generator().manual_seed(3)).to(device)

    def both():
        x = picture(*shape, device=device)
        return compared(lambda own, x: layers.apply(own, x, bias), modules, [x], frozen, dtype)

    exact, usual = both()
    launched.clear()
    monkeypatch.setattr(normalising, "_FORWARDS", 8)
    monkeypatch.setattr(normalising, "_BACKWARDS", 8)
    _, alone = both()
    if dtype == torch.float32:
        near([exact, alone], 2e-5, 1e-3)
    else:  # rounded as the usual kernels do
        near([usual, alone], 0.01)
    assert ("normalise_alone" in launched, "moments" in launched) == (not frozen, False)
    assert ("back_alone" in launched, "gather" in launched) == (True, False)


def test_of_several_fits_each_has_fewer_blocks(device, launched, monkeypatch):
    modules = [module.to(device) for module in layers_of("both", 16)]
    x = picture(1, 16, 4, 300, device=device)
    blocks = []
    for shared in (False, True):
        launched.clear()
        monkeypatch.setattr(cuda.devices, "is_shared", lambda device, shared=shared: shared)
        near(compared(lambda own, x: layers.apply(own, x), modules, [x]), 2e-5)
        blocks.append(dict(launched))
    alone, beside = blocks
    most = cuda.program(x.device, torch.float32, 4).processors
    rows = {"gather": (1, 4), "spread": (1, 4), "normalise": (2, 6)}
    assert {name: alone[name] for name in rows} == {name: min(most * k, n) for name, (k, n) in rows.items()}
    assert {name: beside[name] for name in rows} == {name: min(most * k, n // 2) for name, (k, n) in rows.items()}
    with monkeypatch.context() as patch:  # for six of which a kernel is begun at once
        launched.clear()
        patch.setattr(cuda.devices, "is_shared", lambda device: False)
        patch.setattr(cuda.devices, "begun_at_once", lambda device: 6)
        near(compared(lambda own, x: layers.apply(own, x), modules, [x]), 2e-5)
        share = -(-2 * most // 6)
        assert {name: launched[name] for name in rows} == {name: min(share * k, n) for name, (k, n) in rows.items()}
    # of as many pixels as a block has threads for, and 4 times as many
    monkeypatch.setattr(normalising, "_FORWARDS", 1)
    monkeypatch.setattr(normalising, "_BACKWARDS", 1)
    for shared in (False, True):
        launched.clear()
        monkeypatch.setattr(cuda.devices, "is_shared", lambda device, shared=shared: shared)
        compared(lambda own, x: layers.apply(own, x), modules, [picture(1, 16, 8, 60, device=device)])
        assert ("normalise_alone" in launched, "back_alone" in launched) == (shared, shared)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", ["norm", "both", "conv"])
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (16, {}),
        (12, {"padding": "zeros", "stride": 2}),
        (7, {"kernel": 5, "bias": False}),
        (8, {"kernel": 1}),
        (4, {"stride": 2}),
        (2, {"kernel": 7, "padding": "zeros"}),
        (32, {"kernel": 1, "outputs": 3}),
        (16, {"kernel": 1, "outputs": 1, "bias": False}),
        (8, {"kernel": 1, "outputs": 4}),
        (4, {"kernel": 1, "outputs": 2}),
        (64, {"kernel": 1, "outputs": 3}),
    ],
)
def test_norm_act_and_conv(device, kind, channels, options, frozen):
    modules = [module.to(device) for module in layers_of(kind, channels, **options)]
    x = picture(2, channels, 9, 14, device=device)
    bias = torch.randn(channels, generator=torch.Generator().manual_seed(3)).to(device)
    near(compared(lambda own, x: layers.apply(own, x, bias), modules, [x], frozen), 2e-5)


def stage(mode):
    def run(own, x, branch=None):
        branch = None if branch is None else branched(branch, [], mode, *own, {})
        return layers.biased(*conv_upsampled(x, branch, mode, *own))

    return run


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("branch", [0, 3, 4])
@pytest.mark.parametrize(
    ("channels", "options"),
    [(16, {}), (12, {"padding": "zeros"}), (5, {"kernel": 5}), (8, {"kernel": 1, "bias": False})],
)
def test_the_decoders_stage(device, channels, options, branch, mode, frozen):
    norm, _, conv = (module.to(device) for module in layers_of("both", branch + channels, **options))
    inputs = [picture(2, channels, 5, 8, device=device)] + [picture(2, branch, 10, 16, device=device)] * bool(branch)

    near(compared(stage(mode), [norm, conv], inputs, frozen), 2e-5)


def test_a_picture_larger_than_the_blocks_are_many(device):
    modules = [module.to(device) for module in layers_of("both", 24)]
    near(compared(lambda own, x: layers.apply(own, x), modules, [picture(1, 24, 67, 81, device=device)]), 2e-5)
    norm, _, conv = modules
    inputs = [picture(1, 20, 33, 40, device=device), picture(1, 4, 66, 80, device=device)]
    near(compared(stage("bilinear"), [norm, conv], inputs), 2e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 3},
        {"kernel": 5, "padding": "zeros"},
        {"kernel": 3, "stride": 2},
        {"kernel": 1},
        {"kernel": 1, "outputs": 3},
        {"kernel": 1, "outputs": 4},
    ],
)
@pytest.mark.parametrize("width", [71, 64, 15])
def test_a_picture_of_which_a_thread_has_many_pixels(device, options, width):
    """A thread reads some of them at a time, and a block has 16 next to each other: here the last may be missing."""
    modules = [module.to(device) for module in layers_of("both", 128, **options)]
    # cuDNN's gradient of weights 5 x 5 is no nearer in float32
    tolerance = 5e-3 if device == "cuda" and options["kernel"] == 5 else 2e-5
    found = compared(lambda own, x: layers.apply(own, x), modules, [picture(1, 128, 11, width, device=device)])
    near(found, tolerance)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("channels", [8, 16])
def test_the_gradient_of_weights_as_a_product_of_matrices(device, channels, kernel, monkeypatch):
    for name in ("_OUTPUTS", "_PIXELS"):
        monkeypatch.setattr(recorded, name, 1)
    monkeypatch.setattr(recorded, "_DTYPES", (torch.float32,))
    launched = []
    launch = cuda.Picture.launch
    monkeypatch.setattr(cuda.Picture, "launch", lambda *given: (launched.append(given[1]), launch(*given))[1])
    for kind in ("both", "conv"):
        modules = [module.to(device) for module in layers_of(kind, channels, stride=2, kernel=kernel)]
        x = picture(2, channels, 9, 14, device=device)
        near(compared(lambda own, x: layers.apply(own, x), modules, [x]), 2e-5)
    assert launched.count("unfold") == 2


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
def test_a_whole_network(device, upsampling):
    torch.manual_seed(0)
    network = networks.EncoderDecoder(
        8, 3, down=[16, 24], up=[16, 24], skip=[4, 0], upsampling=upsampling, kernel_down=[3, 5], padding="reflect"
    )
    network = network.to(device, memory_format=torch.channels_last)
    found = compared(lambda own, z: own[0](z), [network], [picture(1, 8, 24, 20, device=device)])
    near(found, 5e-4, least=1e-3)  # the gradients of a scale before another normalisation are all but 0


@pytest.mark.parametrize(
    ("name", "channels"), [("unet", [16, 24, 32]), ("resnet", [16, 16, 24]), ("deep-decoder", [16, 24, 16])]
)
def test_the_other_networks(device, name, channels):
    torch.manual_seed(0)
    network = networks.create(name, 8, 3, channels=channels).to(device, memory_format=torch.channels_last)
    found = compared(lambda own, z: own[0](z), [network], [picture(1, 8, 24, 20, device=device)])
    # gradients of biases before a normalisation, and of scales before another, are all but 0
    near(found, 5e-4, least=1e-3)
    exact, rough = compared(
        lambda own, z: own[0](z), [network], [picture(1, 8, 24, 20, device=device)], dtype=torch.bfloat16
    )
    assert (exact["y"].cpu() - rough["y"].double().cpu()).abs().max() < 0.1


def test_bfloat16_rounds_no_more_than_pytorchs_layers(device):
    modules = [module.to(device) for module in layers_of("both", 16)]
    x = picture(1, 16, 20, 24, device=device).bfloat16().float()
    exact, own = compared(lambda own, x: layers.apply(own, x), modules, [x], dtype=torch.bfloat16)
    stock = [copy.deepcopy(module) for module in modules]
    given = ordered(x.detach().bfloat16()).requires_grad_()
    y = nn.Sequential(*stock)(given)
    backwards(y)
    theirs = {"y": y, "to 0": given.grad, "0 weight": stock[0].weight.grad, "2 weight": stock[2].weight.grad}
    for name, b in theirs.items():
        a, scale = exact[name].detach(), exact[name].detach().abs().mean()
        ours, other = ((t.detach().cpu().double() - a.cpu()).abs().mean() / scale for t in (own[name], b))
        assert ours <= 1.5 * other + 1e-4, name
        assert ours < 0.02


def new_jitter(device, monkeypatch, std=0.05, seed=3, dtype=torch.float32):
    monkeypatch.setattr(cuda, "draws", lambda device, dtype: True)
    return jitter.Jitter(std, seed, torch.device(device), dtype)


def test_the_jitter_is_drawn_by_the_generator_philox(device):
    """Against the words that its authors published for a counter and a key of 0."""
    words = "6627e8d5 e169c58d bc57ac4c 9b00dbd8"
    a, b, c, d = (((int(word, 16) >> 8) + 0.5) * 2.0**-24 for word in words.split())
    lengths, turns = (np.sqrt(-2 * np.log([a, c])), 2 * np.pi * (np.array([b, d]) - 0.5))
    expected = np.stack([lengths * np.cos(turns), lengths * np.sin(turns)], axis=1).ravel()
    z, count = torch.zeros(4, device=device), torch.tensor(0, device=device)
    drawn = torch.empty(4, device=device)
    cuda.draw(z, drawn, count, 0, 1.0)
    np.testing.assert_allclose(drawn.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_jitter_is_normal_and_fresh(device, dtype, monkeypatch):
    z = ordered(torch.rand(1, 5, 41, 37, generator=torch.Generator().manual_seed(1))).to(device)
    given, jitter, noises = z.clone(), new_jitter(device, monkeypatch, dtype=dtype), []
    for _ in range(3):
        jitter.draw(z)
        assert jitter.add(z).dtype == dtype
        assert jitter.recorded is None
        noises.append((jitter.add(z).float() - z).cpu().numpy().ravel())
    assert torch.equal(z, given)
    every = np.concatenate(noises) / 0.05
    assert abs(every.mean()) < 0.03
    assert every.std() == pytest.approx(1, rel=0.02)
    if dtype == torch.float32:
        assert scipy.stats.kstest(every, "norm").pvalue > 0.001
    assert np.abs(np.corrcoef(noises) - np.eye(3)).max() < 0.05
    assert abs(np.corrcoef(every[:-1], every[1:])[0, 1]) < 0.03


def test_the_jitter_goes_on_from_its_state(device, monkeypatch):
    z = torch.zeros(1, 3, 7, 6, device=device)

    def next_noise(jitter):
        jitter.draw(z)
        return jitter.add(z).clone()

    one, same, other = (new_jitter(device, monkeypatch, seed=seed) for seed in (3, 3, 2**40 + 3))
    one.generator = SimpleNamespace(get_state=one.generator.get_state)  # its seed cannot be asked in a recording
    first = next_noise(one)
    assert torch.equal(first, next_noise(same))
    assert not torch.equal(first, next_noise(other))
    state = one.state_dict()
    second = next_noise(one)
    assert not torch.equal(first, second)
    resumed = new_jitter(device, monkeypatch)
    for _ in range(2):  # before it has drawn, and after
        resumed.load_state_dict(state)
        assert torch.equal(next_noise(resumed), second)


@pytest.mark.parametrize("kind", ["trained", "off the grid"])
def test_other_codes_get_pytorchs_jitter(device, kind, monkeypatch):
    jitter, z = new_jitter(device, monkeypatch), torch.zeros(49, device=device)
    z = z[:48].view(1, 4, 3, 4).requires_grad_() if kind == "trained" else z[1:].view(1, 4, 3, 4)
    jitter.draw(z)
    assert jitter.recorded is jitter.generator


@pytest.mark.parametrize("kinds", [1, 2])
@pytest.mark.parametrize("kernel", [True, False])
def test_the_last_losses_are_kept(device, monkeypatch, kinds, kernel):
    monkeypatch.setattr(cuda, "works", lambda device: kernel)
    losses = [torch.zeros((), device=device) for _ in range(kinds)]
    notes, seen = kept.Notes(losses[0], losses[1] if kinds > 1 else None), []
    notes.take()  # as a recording does
    notes.begin()
    for number in range(kept.MOST + 50):
        for kind, loss in enumerate(losses):
            loss.fill_(number + 0.5 * kind)
        notes.take()
        notes.taken += 1
        seen.append(number)
        for count in {1, 7, min(number + 1, kept.MOST)}:
            if count <= number + 1:
                expected = torch.tensor(seen[-count:])[None] + 0.5 * torch.arange(kinds)[:, None]
                assert torch.equal(notes.last(count).cpu(), expected)


def dense(*shape, order=torch.contiguous_format, device="cpu", **options):
    return picture(*shape, device=device).to(**options).contiguous(memory_format=order)


@pytest.mark.parametrize("count", [1, 7, 150])
@pytest.mark.parametrize("to", [torch.bfloat16, torch.float32])
def test_tensors_are_cast_all_at_once(device, monkeypatch, count, to):
    monkeypatch.setattr(cuda, "works", lambda device: True)
    back = torch.float32 if to == torch.bfloat16 else torch.bfloat16
    shapes = [(5, 4, 3, 3), (1, 1, 1, 1), (33, 41, 3, 3), (2, 4096, 1, 1), (3, 7, 1, 2)]
    orders = [torch.contiguous_format, torch.channels_last]
    given = [dense(*shapes[k % 5], order=orders[k % 2], device=device, dtype=back) for k in range(count)]
    made = [torch.full_like(one, torch.nan, dtype=to) for one in given]
    monkeypatch.setattr(torch, "_foreach_copy_", None)  # it is not needed
    cuda.cast(made, given)
    assert all(torch.equal(one, other.to(to)) for one, other in zip(made, given, strict=True))


@pytest.mark.parametrize("why", ["order", "dtype", "gaps", "place"])
def test_other_tensors_are_cast_by_pytorch(device, monkeypatch, why):
    monkeypatch.setattr(cuda, "works", lambda device: True)
    given = [dense(4, 4, 3, 3, device=device), dense(4, 4, 3, 3, device=device)]
    made = [torch.empty_like(one, dtype=torch.float64 if why == "dtype" else torch.bfloat16) for one in given]
    if why == "order":
        given[1] = given[1].contiguous(memory_format=torch.channels_last)
    elif why == "gaps":
        given[1], made[1] = given[1][:, ::2], made[1][:, ::2]
    elif why == "place":
        given[1], made[1] = given[1].view(-1)[1:], made[1].view(-1)[1:]
    cuda.cast(made, given)
    assert all(torch.equal(one, other.to(one.dtype)) for one, other in zip(made, given, strict=True))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 16, 16), (2, 3, 91, 77)])
def test_the_mean_squared_error_is_pytorchs(device, monkeypatch, shape):
    monkeypatch.setattr(cuda, "works", lambda device: True)
    x, y = picture(*shape, device=device).requires_grad_(), picture(*shape[::-1]).reshape(shape).to(device)
    other = x.detach().double().requires_grad_()
    assert squares.worthwhile(x, y)
    loss, expected = losses.MSE()(x, y), torch.nn.functional.mse_loss(other, y.double())
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(x.grad.double(), other.grad, rtol=1e-6, atol=1e-9)


def test_the_gradient_of_that_has_one(device, monkeypatch):
    monkeypatch.setattr(cuda, "works", lambda device: True)
    x, y = picture(1, 1, 4, 4, device=device).requires_grad_(), torch.ones(1, 1, 4, 4, device=device)
    (first,) = torch.autograd.grad(squares.mean_square(x, y), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    torch.testing.assert_close(first, (x - y).detach() / 8)
    torch.testing.assert_close(second, (x - y).detach() / 32)


def test_what_stands_for_another_tensor_gets_pytorchs(device, monkeypatch):
    monkeypatch.setattr(cuda, "works", lambda device: True)
    x, y = picture(1, 1, 4, 4, device=device), torch.ones(1, 1, 4, 4, device=device)
    torch.testing.assert_close(torch.func.grad(lambda x: losses.MSE()(x, y))(x), (x - y) / 8)


@pytest.mark.parametrize("why", ["order", "dtype", "no gradient", "gradient of y"])
def test_other_squares_are_pytorchs(device, monkeypatch, why):
    monkeypatch.setattr(cuda, "works", lambda device: True)
    x, y = picture(1, 3, 8, 8, device=device), torch.ones(1, 3, 8, 8, device=device)
    x = x.double() if why == "dtype" else ordered(x) if why == "order" else x
    x.requires_grad_(why != "no gradient")
    y.requires_grad_(why == "gradient of y")
    assert not squares.worthwhile(x, y)
    torch.testing.assert_close(losses.MSE()(x, y), ((x - y) ** 2).mean())


def test_steps_of_adam_are_pytorchs(device, monkeypatch):
    monkeypatch.setattr(cuda, "works", lambda device: True)
    shapes = [(5,), (128, 33, 3, 3), (4, 8, 1, 1), (3, 3000)]
    found = []
    for ours in (False, True):
        generator = torch.Generator().manual_seed(0)
        parameters = [torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in shapes]
        optimizer = optimizers.create("adam", parameters, 0.02)
        gradients = [[torch.randn(shape, generator=generator).to(device) for shape in shapes] for _ in range(5)]
        for p in parameters:
            p.grad = torch.zeros_like(p)
        step = optimizer.step
        for number, new in enumerate(gradients):
            for p, g in zip(parameters, new, strict=True):
                p.grad.copy_(g)
            if number == 1:  # as a recording does
                optimizers.recordable(optimizer, True)
                step = optimizers.steps(optimizer) if ours else optimizer.step
                assert (step == optimizer.step) != ours
            optimizers.set_lr(optimizer, 0.02 / (1 + number))
            step()
        found.append([[p.detach(), *optimizer.state[p].values()] for p in parameters])
    for theirs, own in zip(*found, strict=True):
        for a, b in zip(theirs, own, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("change", ["order", "two groups", "sgd", "decay"])
def test_other_optimisers_make_their_own_steps(device, change, monkeypatch):
    monkeypatch.setattr(cuda, "works", lambda device: True)
    p = torch.ones(2, 3, 2, 2, device=device, requires_grad=True)
    q = torch.ones(3, device=device, requires_grad=True)
    optimizer = optimizers.create("adam", [p, q], 0.1)
    if change == "two groups":
        optimizer = torch.optim.Adam([{"params": [p]}, {"params": [q]}])
    elif change == "sgd":
        optimizer = torch.optim.SGD([p, q], lr=0.1)
    elif change == "decay":
        optimizer = torch.optim.Adam([p, q], weight_decay=0.1)
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    optimizer.step()
    if change == "order":
        p.grad = p.grad.contiguous(memory_format=torch.channels_last)
    if change != "sgd":
        optimizers.recordable(optimizer, True)
    assert optimizers.steps(optimizer) == optimizer.step


def test_autograd_takes_the_gradients_of_weights_as_they_are(device, monkeypatch):
    """A copy would be made before those that are computed beside the rest are there."""
    seen = []

    class Watched(recorded.Gradients):
        def __init__(self, *given):
            super().__init__(*given)
            seen.append(self.to_weight.data_ptr())

    monkeypatch.setattr(fused, "Gradients", Watched)
    norm, _, conv = (module.to(device, memory_format=torch.channels_last) for module in layers_of("both", 20))
    inputs = picture(1, 16, 6, 8, device=device), picture(1, 4, 12, 16, device=device)
    x, beside = (ordered(one).requires_grad_() for one in inputs)
    y, _ = conv_upsampled(x, branched(beside, [], "bilinear", norm, conv, {}), "bilinear", norm, conv)
    y.sum().backward()
    assert seen == [conv.weight.grad.data_ptr()]
    network = networks.EncoderDecoder(8, 3, down=[16, 16], up=[16, 16], skip=[4, 4])
    network = network.to(device, memory_format=torch.channels_last)
    taken = []
    monkeypatch.setattr(torch, "_foreach_copy_", watched(torch._foreach_copy_, taken))
    z = ordered(picture(1, 8, 24, 32, device=device).bfloat16())
    seen.clear()
    network(z).sum().backward()
    grads = {p.grad.data_ptr() for p in network.parameters()}
    assert len(seen) == 8
    assert set(seen) <= grads | {one.data_ptr() for one in taken}


def watched(real, taken):
    def copy(to, given):
        taken.extend(given)
        real(to, given)

    return copy


# ---------------------------------------------------------------------- in a recording


class Stream:
    """A stream that notes what waits for it, and what is begun on it."""

    now = None

    def __init__(self, name, log):
        self.name, self._log = name, log

    def wait_stream(self, other):
        self._log.append(f"{self.name} waits for {other.name}")

    def __enter__(self):
        self._log.append(f"begin on {self.name}")
        self._before, Stream.now = Stream.now, self

    def __exit__(self, *_):
        Stream.now = self._before


@pytest.fixture
def streams(monkeypatch):
    """Take what is computed for a recording; return the log of the streams."""
    log = []
    main, branch, side = (Stream(name, log) for name in ("main", "branch", "side"))
    numbered = {0: main, devices.BRANCH: branch, devices.BESIDE: side}
    monkeypatch.setattr(Stream, "now", main)
    monkeypatch.setattr(recorded, "recorded", lambda x: True)
    monkeypatch.setattr(devices, "stream", lambda device, number: numbered[number])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream.now)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, stream: log.append(f"kept for {stream.name}"))
    return log


@pytest.mark.skipif(on_cuda, reason="there it is recorded in earnest")
def test_in_a_recording_branches_and_gradients_of_weights_are_beside_the_rest(device, streams, monkeypatch):
    torch.manual_seed(0)
    network = networks.EncoderDecoder(8, 3, down=[16, 16, 16], up=[16, 16, 16], skip=[4, 0, 4])
    network = network.to(memory_format=torch.channels_last)
    z = ordered(picture(1, 8, 32, 40).bfloat16())
    real = torch._foreach_copy_
    monkeypatch.setattr(torch, "_foreach_copy_", lambda *given: (streams.append("cast"), real(*given)))
    backwards(network(z))
    found = [p.grad.clone() for p in network.parameters()]
    forward, back = streams[: streams.index("begin on side")], streams[streams.index("begin on side") - 1 :]
    # two skip branches, each waited for before it is used; what crosses is kept
    assert forward.count("branch waits for main") == forward.count("begin on branch") == 2
    assert forward.count("kept for branch") == forward.count("kept for main") == 2
    assert forward.count("main waits for branch") == 2
    # a gradient of weights begins when what is there already is done, and is waited for before it is cast
    begins = [number for number, line in enumerate(back) if line == "begin on side"]
    assert len(begins) > 8
    assert all(back[number - 1] == "side waits for main" for number in begins)
    assert back[-2:] == ["main waits for side", "cast"]
    assert not recorded._waiting._held
    # large ones are not left waiting together
    assert back.count("main waits for side") > 1
    for p in network.parameters():
        p.grad = None
    monkeypatch.setattr(recorded, "recorded", lambda x: False)
    backwards(network(z))
    assert all(torch.equal(one, p.grad) for one, p in zip(found, network.parameters(), strict=True))


@pytest.mark.skipif(on_cuda, reason="there it is recorded in earnest")
def test_in_a_recording_in_float32_only_branches_are(device, streams):
    network = networks.EncoderDecoder(8, 3, down=[16, 16], up=[16, 16], skip=[4, 4]).to(
        memory_format=torch.channels_last
    )
    backwards(network(ordered(picture(1, 8, 16, 16))))
    assert "begin on branch" in streams
    assert "begin on side" not in streams


@pytest.mark.skipif(on_cuda, reason="there it is recorded in earnest")
def test_in_a_recording_on_another_stream_everything_is_done_in_its_turn(device, streams, monkeypatch):
    """As of several fits at a time, which would have the streams beside it in common."""
    monkeypatch.setattr(Stream, "now", Stream("of a thread", streams))
    network = networks.EncoderDecoder(8, 3, down=[16, 16], up=[16, 16], skip=[4, 4])
    backwards(network.to(memory_format=torch.channels_last)(ordered(picture(1, 8, 16, 16).bfloat16())))
    assert streams == []


@pytest.mark.skipif(on_cuda, reason="there it is recorded in earnest")
def test_a_branch_that_the_kernels_leave_as_it_is_is_waited_for_too(device, streams, monkeypatch):
    monkeypatch.setattr(upsampled, "trained_on_gpu", lambda x, beside=0: not beside and fits(x))
    network = networks.EncoderDecoder(8, 3, down=[16], up=[16], skip=[4]).to(memory_format=torch.channels_last)
    backwards(network(ordered(picture(1, 8, 16, 16))))
    assert streams.count("begin on branch") == streams.count("main waits for branch") == 1


def test_a_hook_sees_a_gradient_that_is_there():
    weight = nn.Parameter(ordered(torch.ones(2, 3, 3, 3)))
    assert recorded.unseen(weight)
    handle = weight.register_hook(lambda gradient: gradient * 2)
    assert not recorded.unseen(weight)
    handle.remove()
    weight.register_post_accumulate_grad_hook(lambda parameter: None)
    assert not recorded.unseen(weight)
    assert not recorded.unseen(nn.Parameter(torch.ones(2, 3, 3, 3)))  # autograd would copy it into this order


def test_weights_that_are_not_trained_are_cast_apart():
    first, second = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    first.weight.requires_grad_(False)
    found = recorded.cast([first, second], torch.bfloat16)
    assert [found[layer].requires_grad for layer in (first, second)] == [False, True]
    assert all(torch.equal(found[layer], layer.weight.bfloat16()) for layer in (first, second))
    assert recorded.cast([first], torch.float32) == {}


@pytest.mark.parametrize("part", ["all", "norm"])
def test_weights_in_bfloat16_take_pytorchs_layers(device, part, monkeypatch):
    torch.manual_seed(0)
    network = networks.EncoderDecoder(8, 3, down=[16, 16], up=[16, 16], skip=[4, 4]).to(device)
    if part == "all":
        network.bfloat16()
    else:
        network.up[0][0].bfloat16()
    z = picture(1, 8, 24, 32, device=device).bfloat16()
    found = []
    for plainly in (True, False):
        own = copy.deepcopy(network)
        with monkeypatch.context() as patch:
            for module in (layers, upsampled, encoder_decoder) if plainly else ():
                patch.setattr(module, "trained_on_gpu", lambda x, beside=0: False)
            y = own(z)
            backwards(y)
        found.append([y, *(p.grad for p in own.parameters())])
    assert all(torch.isfinite(one).all() for one in found[1])
    assert (found[0][0] - found[1][0]).abs().mean() < 0.01


def test_what_pytorch_casts_or_compiles_is_left_to_its_layers(monkeypatch):
    x = torch.empty(1, 8, 4, 4, device="meta")
    monkeypatch.setattr(cuda, "ready", lambda x, device, beside: device == torch.device("cuda:1") and beside == 3)
    assert not layers.trained_on_gpu(x, 3)
    with layers.foretelling(torch.device("cuda:1")):
        assert layers.trained_on_gpu(x, 3)
        with torch.no_grad():
            assert not layers.trained_on_gpu(x, 3)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
            assert not layers.trained_on_gpu(x, 3)
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            assert not layers.trained_on_gpu(x, 3)


# ---------------------------------------------------------------------- the driver


@pytest.fixture
def driver(monkeypatch, compiled):
    """A driver with a GPU number 1, which runs emulated kernels."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler here")
    library = made(compiled, torch.float32, 4)
    monkeypatch.setattr(machine, "library", lambda: library)
    monkeypatch.setattr(machine, "_launched", {})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=7))
    stream = SimpleNamespace(cuda_stream=0x123456789A)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    return library


def test_kernels_are_launched_on_their_device_and_the_thread_is_left_where_it_was(driver):
    loaded = machine.Loaded(torch.device("cuda:1"), b"code")
    assert loaded.processors == 7
    x, z = ordered(picture(1, 8, 5, 6)), ordered(torch.empty(1, 8, 7, 8))
    for _ in range(2):
        loaded.launch("normalise", 7, (2, 32), 0, (x, None, None, None, None, z, 7, 5, 6, 8, 1, True, 1.0))
        torch.testing.assert_close(z, nn.functional.pad(x, (1,) * 4, mode="reflect"), rtol=0, atol=0)
        z.fill_(-1)
        assert driver.entered() == 0


def test_more_shared_memory_than_blocks_have_is_asked_for(driver):
    loaded = machine.Loaded(torch.device("cuda:1"), b"code")
    x, z = ordered(picture(1, 8, 5, 6)), ordered(torch.empty(1, 8, 5, 6))
    given = x, None, None, None, None, z, 5, 5, 6, 8, 0, False, 1.0
    with pytest.raises(RuntimeError, match="CUDA: something else"):
        loaded.launch("normalise", 5, (2, 32), 100 * 1024, given)
    loaded.launch("normalise", 5, (2, 32), 80 * 1024, given)
    assert torch.equal(x, z)
    assert driver.entered() == 0


def test_what_the_driver_refuses_is_told(driver):
    with pytest.raises(RuntimeError, match="CUDA: something else"):
        machine.Loaded(torch.device("cuda:0"), b"code")
    with pytest.raises(RuntimeError, match="CUDA: something else"):
        machine.Loaded(torch.device("cuda:1"), b"other code")
    loaded = machine.Loaded(torch.device("cuda:1"), b"code")
    with pytest.raises(RuntimeError, match="CUDA: named symbol not found"):
        loaded.launch("nothing", 1, (1, 1), 0, ())
    assert driver.entered() == 0


def test_without_kernels_pytorchs_layers_serve_and_that_is_told(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "arange", lambda *_, **__: torch.ones(64))
    monkeypatch.setattr(
        cuda, "Picture", raising(OSError("PyTorch's compiler of kernels, libnvrtc.so.12, was not found"))
    )
    cuda.works.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=r"libnvrtc.so.12, was not found; the fit goes on with PyTorch's"):
            assert not cuda.ready(torch.empty(1, 4, 4, 4, device="meta"), torch.device("cuda:1"))
        assert not cuda.ready(torch.empty(1, 4, 4, 4, device="meta"), torch.device("cuda:1"))  # told once
    finally:
        cuda.works.cache_clear()


def raising(error):
    def function(*_, **__):
        raise error

    return function


@pytest.mark.parametrize(
    ("platform", "version", "there", "expected"),
    [
        ("linux", "12.4", [], ["libnvrtc.so.12", "libnvrtc.so"]),
        (
            "linux",
            "11.8",
            [
                "torch/lib/libnvrtc-672ee683.so.11.2",
                "torch/lib/libnvrtc-builtins-1.so.11.8",
                "torch/lib/libnvrtc.so.12",
            ],
            ["libnvrtc.so.11", "torch/lib/libnvrtc-672ee683.so.11.2", "libnvrtc.so"],
        ),
        (
            "linux",
            "13.0",
            ["nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cu13/lib/libnvrtc.alt.so.13"],
            ["libnvrtc.so.13", "nvidia/cu13/lib/libnvrtc.so.13", "libnvrtc.so"],
        ),
        ("win32", "12.6", ["torch/lib/nvrtc64_120_0.dll"], ["nvrtc64_120_0.dll", "torch/lib/nvrtc64_120_0.dll"]),
        ("win32", "11.8", ["torch/lib/nvrtc64_112_0.dll"], ["nvrtc64_110_0.dll", "torch/lib/nvrtc64_112_0.dll"]),
    ],
)
def test_where_the_compiler_of_kernels_is_looked_for(monkeypatch, tmp_path, platform, version, there, expected):
    asked = []

    def library(name):
        asked.append(name.removeprefix(f"{tmp_path}/"))
        raise OSError

    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", library)
    with pytest.raises(OSError, match=f"{expected[0]}, was not found"):
        machine._nvrtc()
    assert asked == expected


@pytest.mark.parametrize(
    ("dtype", "shape", "beside", "takes"),
    [
        (torch.float32, (1, 128, 8, 8), 4, True),
        (torch.bfloat16, (1, 3, 8, 8), 0, True),
        (torch.float64, (1, 128, 8, 8), 0, False),
        (torch.float16, (1, 128, 8, 8), 0, False),
        (torch.float32, (1, 500, 8, 8), 4, True),
        (torch.float32, (1, 500, 8, 8), 5, False),
        (torch.float32, (128, 8, 8), 0, False),
    ],
)
def test_what_the_kernels_take(monkeypatch, dtype, shape, beside, takes):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "works", lambda device: True)
    assert cuda.ready(torch.empty(shape, dtype=dtype, device="meta"), torch.device("cuda"), beside) == takes


def nvrtc_here():
    """Return NVIDIA's compiler, where the package nvidia-cuda-nvrtc is installed; it needs no GPU."""
    try:
        folder = Path(importlib.metadata.distribution("nvidia-cuda-nvrtc").locate_file("nvidia"))
        for part in folder.glob("*/lib/libnvrtc-builtins.so.[0-9]*"):  # the other looks for it where it may not be
            ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(next(iter(sorted(folder.glob("*/lib/libnvrtc.so.[0-9]*"))))))
    except (importlib.metadata.PackageNotFoundError, StopIteration, OSError):
        return None


@pytest.mark.parametrize("architecture", [75, 90])  # without and with the instructions for bfloat16
@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 8), (torch.bfloat16, 1), (torch.float32, 4)])
def test_nvidias_compiler_takes_the_kernels(monkeypatch, architecture, dtype, width):
    compiler = nvrtc_here()
    if compiler is None:
        pytest.skip("nvidia-cuda-nvrtc is not installed")
    monkeypatch.setattr(machine, "_nvrtc", lambda: compiler)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: divmod(architecture, 10))
    made = []
    monkeypatch.setattr(machine, "Loaded", lambda device, code, several: made.append(code) or several)
    several = cuda._program.__wrapped__(torch.device("cuda"), dtype, width)
    several(["normalise", "blur_moments", "gather_narrow"] + ["pointwise_128"] * (architecture >= 80 and width == 8))
    for code, ending in zip(made, (b"\0", b"_each\0"), strict=True):
        for kernel in (b"normalise", b"blur_moments", b"gather_narrow"):
            assert b".text." + kernel + ending in code
        assert (b".text.pointwise_128" + ending in code) == (architecture >= 80 and width == 8)
