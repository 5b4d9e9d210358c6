"""Devices, precision and the memory estimate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small import QUICK, picture

import dip
from dip import devices, sizes
from dip.devices import check_memory, free_memory, precision, resolve
from dip.sizes import run_on_meta

CPU = torch.device("cpu")
MIB = 2**20


def fixed_part():
    """What the estimate has on top of the tensors of a network that keeps nothing and has no weights."""
    return run_on_meta(torch.nn.Identity(), (1, 1, 1, 1), torch.float32).bytes


class Three(torch.nn.Module):
    """Two 3 x 3 convolutions with a sigmoid between them: small enough to count by hand."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(4, 16, 3, padding=1)
        self.last = torch.nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, z):
        return self.last(torch.sigmoid(self.first(z)))


def test_estimate_against_a_count_by_hand():
    side = 512
    plane = 4 * side * side  # bytes of one channel
    weights = 4 * (4 * 16 * 9 + 16 + 16 * 3 * 9 + 3)
    code = 4 * plane  # also kept: the first convolution's input
    hidden = 16 * plane  # after the sigmoid, kept once although two layers need it
    # Kept for the backward pass; three of the largest; weights, gradients, two moments, and a copy of all but the
    # gradients; the code itself, its noise and their sum.
    worked = (code + hidden) + 3 * hidden + 7 * weights + 3 * code
    needed, shape, fitted = run_on_meta(Three(), (1, 4, side, side), torch.float32)
    assert fitted == 7 * weights
    assert shape == (1, 3, side, side)
    assert worked <= needed - fixed_part() <= 2 * worked
    smaller = run_on_meta(Three(), (1, 4, side // 2, side), torch.float32)
    assert (needed - fixed_part()) / (smaller.bytes - fixed_part()) == pytest.approx(
        2, rel=0.01
    )  # proportional to the pixels


def test_memory_of_a_pass_against_a_count_by_hand():
    """The most is there in the sigmoid: the code, and what it takes and gives."""
    network = Three()
    network.first.eval()
    plane = 4 * 24 * 40
    assert sizes.in_one_pass(network, (1, 4, 24, 40), CPU, torch.float32) == (4 + 16 + 16) * plane
    # without a sigmoid in place of two tensors there is one, or the first with the last
    network.forward = lambda z: network.last(network.first(z))
    assert sizes.in_one_pass(network, (1, 4, 24, 40), CPU, torch.float32) == (4 + 16 + 3) * plane
    assert [module.training for module in network.modules()] == [True, False, True]
    assert {p.device for p in network.parameters()} == {CPU}


@pytest.mark.parametrize("name", ["encoder-decoder", "unet", "resnet"])
def test_memory_of_a_pass_is_that_of_the_tensors_that_are_made(name):
    network = dip.networks.create(name, 4, 3).eval()
    shape = (1, 4, *network.padded_size(64, 96))
    code = torch.rand(shape).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), sizes._Alive([*network.parameters(), *network.buffers()]) as alive:
        network(code)
    assert sizes.in_one_pass(network, shape, CPU, torch.float32) == alive.most + 4 * code.numel()


def test_memory_of_a_pass_is_found_once(monkeypatch):
    monkeypatch.setattr(sizes, "_found", {})
    first, ran = net(), []
    found = sizes.in_one_pass(first, (1, 4, 32, 16), CPU, torch.float32)
    again = net()
    monkeypatch.setattr(again, "forward", lambda z: ran.append(z) or z)
    assert sizes.in_one_pass(again, (1, 4, 32, 16), CPU, torch.float32) == found
    assert not ran
    assert sizes.in_one_pass(net(), (1, 4, 64, 16), CPU, torch.float32) > found
    assert sizes.in_one_pass(net(), (1, 4, 32, 16), CPU, torch.bfloat16) < found


def test_a_pass_that_needs_real_data_is_not_foretold():
    class Curious(Three):
        reach, multiple = 2, 1

        def padded_size(self, height, width):
            return height, width

        def forward(self, z):
            return super().forward(z) if self.training or z.mean() < 2 else z

    assert sizes.in_one_pass(Curious(), (1, 4, 32, 16), CPU, torch.float32) is None
    fit = dip.fit(dip.Denoise(picture((24, 20, 3))), network=Curious(), code=dip.codes.Uniform(4), tile=8, iters=2)
    assert fit.settings.memory is None
    assert fit.image.shape == (24, 20, 3)


def test_estimate_allocates_nothing_and_leaves_the_network_as_it_was():
    network = dip.networks.EncoderDecoder(8, 3, down=[64] * 3, up=[64] * 3, skip=[4] * 3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    needed, shape, _ = run_on_meta(network, (1, 8, 2**20, 2**20), torch.float32)  # a terapixel
    assert needed > 2**50
    assert shape == (1, 3, 2**20, 2**20)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert {tensor.device for tensor in network.state_dict().values()} == {CPU}
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


@pytest.fixture
def runs(monkeypatch):
    """The networks that ran dry, and none known from before."""
    ran = []
    monkeypatch.setattr(sizes, "_found", {})
    monkeypatch.setattr(
        sizes,
        "run_on_meta",
        lambda network, *args, **options: (ran.append(network), run_on_meta(network, *args, **options))[1],
    )
    return ran


def net(**options):
    return dip.networks.EncoderDecoder(4, 3, **{"down": [8, 8], "up": [8, 8], "skip": [4, 4], **options})


def foretold(network, inputs=4, size=(32, 16), device=CPU, dtype=torch.float32, optimizer="adam", **options):
    return sizes.dry_run(network, inputs, size, device, dtype, optimizer, **options)


def test_what_is_known_of_a_network_is_not_found_anew(runs):
    first, again = net(), net()
    assert foretold(first) == foretold(again) == run_on_meta(again, (1, 4, 32, 16), torch.float32)
    assert runs == [first]


def frozen():
    network = net()
    network.out.weight.requires_grad_(False)
    return network


def hooked():
    network = net()
    network.out.register_forward_hook(lambda module, seen, made: made * 2)
    return network


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: net(up=[8, 4]), {}),
        (lambda: net(padding="zero"), {}),
        (lambda: net(upsampling="nearest"), {}),
        (lambda: net().eval(), {}),
        (frozen, {}),
        (hooked, {}),
        (net, {"size": (16, 32)}),
        (net, {"dtype": torch.bfloat16}),
        (net, {"optimizer": "lbfgs"}),
        (net, {"optimize_code": True}),
    ],
)
def test_what_is_told_of_another_is_its_own(make, options, runs):
    foretold(net())
    network = make()
    found = foretold(network, **options)
    assert len(runs) == 2
    runs.clear()
    sizes._found.clear()
    assert foretold(network, **options) == found


def test_a_network_of_ones_own_runs_each_time(runs):
    """What it does is not seen in its layers."""
    for scale in (1, 2):
        network = torch.nn.Sequential(Three())
        assert foretold(network, size=(8 * scale, 8)).shape == (1, 3, 8 * scale, 8)
        assert foretold(network, size=(8 * scale, 8)).shape == (1, 3, 8 * scale, 8)
    assert len(runs) == 4
    assert sizes._found == {}


def test_few_are_kept(runs):
    for side in range(8, 88):
        foretold(torch.nn.Conv2d(4, 3, 1), size=(side, 8))
        assert 1 <= len(sizes._found) <= 64
    foretold(torch.nn.Conv2d(4, 3, 1), size=(87, 8))
    assert len(runs) == 80


def test_estimate_is_smaller_in_bfloat16():
    network = dip.networks.EncoderDecoder(8, 3, down=[64] * 3, up=[64] * 3, skip=[4] * 3)
    single, half = (
        run_on_meta(network, (1, 8, 512, 512), dtype).bytes - fixed_part() for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0.4 < half / single < 0.8


def test_estimate_of_a_network_that_needs_real_data_is_unknown():
    class Curious(torch.nn.Module):
        def forward(self, z):
            return z if z.mean() > 0 else -z

    assert run_on_meta(Curious(), (1, 3, 8, 8), torch.float32) is None
    check_memory(None, CPU, (8, 8))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("tile", [384, 128])  # in one piece, and in crops
def test_estimate_is_near_to_what_a_fit_takes(tile):
    import subprocess
    import sys

    code = """
import re, sys
import numpy as np
import dip

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024

options = {"network": {"down": [32] * 3, "up": [32] * 3, "skip": [4] * 3}, "precision": "float32"}
image = np.full((384, 384, 3), 0.5, np.float32)
dip.fit(dip.Denoise(image[:32, :32]), iters=1, **options)  # what every process takes once
before = peak()
fit = dip.fit(dip.Denoise(image), iters=2, tile=int(sys.argv[1]), **options)
print(fit.settings.memory, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tile)], capture_output=True, text=True, check=True)
    needed, taken = map(int, done.stdout.split())
    assert 0.75 * taken < needed < 1.4 * taken  # 1.2 in benchmarks/memory.py; two runs are not alike


def test_memory_error_names_the_estimate_and_the_ways_out(monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda device: 512 * MIB)
    check_memory(512 * MIB, CPU, (640, 480))
    with pytest.raises(MemoryError) as caught:
        check_memory(3 * 2**30, CPU, (640, 480))
    for words in ("640 x 480", "cpu", "3.0 GiB", "0.5 GiB", "crop", "fewer channels", "bfloat16"):
        assert words in str(caught.value)
    monkeypatch.setattr(devices, "free_memory", lambda device: None)
    check_memory(2**40, CPU, (640, 480))
    with pytest.raises(MemoryError, match="which no machine has; restore a crop"):
        check_memory(2**60, CPU, (640, 480))
    with pytest.raises(MemoryError, match=r"padded to 8192 x 8192 for the network's scales, .*take fewer scales"):
        check_memory(2**60, CPU, (640, 480), padded=(8192, 8192))


def test_an_image_too_large_is_refused_before_its_data_are_touched(monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda device: 300 * MIB)
    task = dip.Denoise(picture((2000, 1500, 3)))
    monkeypatch.setattr(task, "load", lambda: pytest.fail("a pass over the data"))
    with pytest.raises(MemoryError, match=r"fitting 2000 x 1500 pixels .* would take about .* GiB"):
        dip.fit(task, iters=1, **QUICK)
    enlarged = dip.SuperResolve(picture((500, 375, 3)), 4)
    with pytest.raises(MemoryError, match="fitting 2000 x 1500 pixels"):
        dip.fit(enlarged, iters=1, **QUICK)


def test_lbfgs_history_counts(monkeypatch):
    """LBFGS remembers a hundred steps and gradients, and the guard has a copy of them."""
    weights = 2_217_831 * 4
    monkeypatch.setattr(devices, "free_memory", lambda device: 300 * weights)
    task = dip.Denoise(picture((32, 32, 3)))
    dip.Fit(task)
    with pytest.raises(MemoryError):
        dip.Fit(task, optimizer="lbfgs")


def test_free_memory_is_that_of_the_machine_or_the_container(monkeypatch):
    monkeypatch.setattr(devices, "_machine_memory", lambda: 7000)
    for container, expected in ((None, 7000), (9000, 7000), (500, 500), (0, 0)):
        monkeypatch.setattr(devices, "_container_memory", lambda container=container: container)
        assert free_memory(CPU) == expected
    monkeypatch.setattr(devices, "_machine_memory", lambda: None)
    monkeypatch.setattr(devices, "_container_memory", lambda: None)
    assert free_memory(CPU) is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux's /proc")
def test_machine_memory_is_what_the_kernel_says():
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(lines["MemTotal"].split()[0]) * 1024
    assert 0 < devices._machine_memory() < total


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(str(text) + "\n")


def test_container_limits_version_2(tmp_path, monkeypatch):
    assert devices._container_memory(tmp_path) is None
    write(tmp_path, memory__max="max", memory__current=100, memory__stat="inactive_file 5")
    assert devices._container_memory(tmp_path) is None  # "max" is no limit
    write(tmp_path, memory__max=1000, memory__current=400, memory__stat="anon 90\ninactive_file 50\nactive_file 20")
    assert devices._container_memory(tmp_path) == 650
    write(tmp_path, memory__current=2000, memory__stat="inactive_file 0")
    assert devices._container_memory(tmp_path) == 0  # over its limit for a moment: nothing, not less


def test_container_limits_version_1(tmp_path):
    limits = {"memory__limit_in_bytes": 5000, "memory__usage_in_bytes": 1500, "memory__stat": "inactive_file 500"}
    write(tmp_path / "memory", **limits)
    assert devices._container_memory(tmp_path) == 4000


def test_the_tightest_limit_on_the_way_up_counts(tmp_path, monkeypatch):
    inner = tmp_path / "system" / "job"
    own = "0::/system/job\n"
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a, **k: own if str(self) == "/proc/self/cgroup" else read(self, *a, **k)
    )
    write(inner, memory__max=9000, memory__current=1000, memory__stat="inactive_file 0")
    assert devices._container_memory(tmp_path) == 8000
    write(inner.parent, memory__max=3000, memory__current=1000, memory__stat="inactive_file 0")
    assert devices._container_memory(tmp_path) == 2000
    write(inner.parent / "other", memory__max=1, memory__current=1, memory__stat="inactive_file 0")
    assert devices._container_memory(tmp_path) == 2000  # not ours


@pytest.mark.parametrize("name", ["cpu", CPU])
def test_named_devices(name):
    assert resolve(name) == CPU


def test_auto_takes_the_first_device_unless_the_data_are_elsewhere(monkeypatch):
    assert resolve("auto") == torch.device(devices.available()[0])
    assert resolve("auto", hint=CPU) == CPU
    monkeypatch.setattr(devices, "available", lambda: ["cuda:0", "cuda:1", "cpu"])
    assert resolve("auto") == torch.device("cuda:0")
    assert resolve("cuda") == torch.device("cuda:0")
    assert resolve("cuda:1") == torch.device("cuda:1")
    assert resolve("cpu") == CPU
    monkeypatch.setattr(devices, "available", lambda: ["mps", "cpu"])
    assert resolve("auto").type == resolve("mps").type == resolve("mps:0").type == "mps"  # a tensor's device is "mps:0"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cudda", "unknown device 'cudda'; did you mean 'cuda'"),
        ("gpu", "unknown device 'gpu'"),
        ("meta", "device='meta' is not on this machine; here: .*cpu"),
        ("cuda:99", "device='cuda:99' is not on this machine; here: .*cpu"),
    ],
)
def test_devices_that_are_not_there(name, message):
    with pytest.raises(ValueError, match=message):
        resolve(name)
    with pytest.raises(ValueError, match=message):
        dip.fit(dip.Denoise(picture()), device=name, **QUICK)


def test_precision_by_name(monkeypatch):
    assert precision("float32", CPU) == torch.float32
    assert precision("bfloat16", CPU) == torch.bfloat16
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(devices, "_native_bfloat16", lambda device, native=native: native)
        assert precision("auto", CPU) == expected
    for name in ("float16", "half", None):
        with pytest.raises(ValueError, match=r"unknown precision .*allowed: auto, float32, bfloat16"):
            precision(name, CPU)


def test_fits_in_both_precisions_come_to_nearly_the_same():
    image = picture((24, 20, 3))
    single, half = (
        dip.fit(dip.Denoise(image), iters=5, **{**QUICK, "precision": name}) for name in ("float32", "bfloat16")
    )
    assert single.output.dtype == half.output.dtype == torch.float32
    assert 0 < (single.picture - half.picture).abs().max() < 0.1
    assert half.history["loss"] == pytest.approx(single.history["loss"], rel=0.1)
    assert {p.dtype for p in half.network.parameters()} == {torch.float32}


def test_environment_can_stand_in_a_report():
    environment = json.loads(json.dumps(devices.environment()))
    assert environment["dip"] == dip.__version__
    assert environment["torch"] == torch.__version__
    assert environment["threads"] == torch.get_num_threads()
    assert environment["devices"][-1] == "cpu"
    assert environment["processor"]
