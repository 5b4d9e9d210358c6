"""The rivals of the benchmark as others wrote them, where they are installed."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from dip import benchmark, datasets

PHOTOGRAPHS = {entry.name: entry for entry in datasets.pictures("photographs")}
ASTRONAUT, CAMERA = PHOTOGRAPHS["astronaut"], PHOTOGRAPHS["camera"]
ENTRIES = pytest.mark.parametrize("entry", [ASTRONAUT, CAMERA], ids=["colour", "gray"])
DENOISE = benchmark.Protocol("denoise", size=64)


def able(name: str) -> benchmark.Method:
    """The method, or the test is skipped: its package is not there, or not in order."""
    method = benchmark.find(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a package says of its own parts when it is imported
        try:
            method.check("denoise")
        except ImportError as error:
            pytest.skip(str(error))
    return method


def restored(method: benchmark.Method, entry: datasets.Entry, iters: int | None = None, seed: int = 0, size: int = 64):
    protocol = replace(DENOISE, size=size)
    case = replace(protocol.case(entry.read()), device="cpu", iters=iters, seed=seed)
    picture = method.function(case, **method.options)
    assert picture.shape == case.clean.shape
    return picture, protocol.figures(picture, case)["psnr"], case


@ENTRIES
@pytest.mark.parametrize(("name", "gain"), [("bm3d", 6), ("wavelet", 4)])
def test_packages_denoise_pictures_that_are_not_clipped_too(name, gain, entry):
    method = able(name)
    _, clipped, case = restored(method, entry)
    assert clipped > DENOISE.figures_before(case)["psnr_before"] + gain
    protocol = benchmark.Protocol("denoise", {"clip": False}, size=64)
    case = protocol.case(entry.read())
    whole = protocol.figures(method.function(case, **method.options), case)["psnr"]
    assert whole == pytest.approx(clipped, abs=0.5)


def test_a_package_that_is_not_in_order_is_said_before_work_begins(tmp_path, monkeypatch):
    """As torchvision is where it was built for another PyTorch."""
    (tmp_path / "surely_broken.py").write_text("raise RuntimeError('operator nms\\ndoes not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    method = replace(benchmark.find("tv"), needs=("surely_broken",))
    with pytest.raises(ImportError, match=r"cannot be imported .RuntimeError: operator nms does not exist.; install"):
        method.check("denoise")


@ENTRIES
def test_deepinvs_prior_learns_and_keeps_to_its_seed(entry):
    method, before = able("deepinv-dip"), torch.get_rng_state()
    first, few, case = restored(method, entry, iters=2, size=32)
    assert case.log["fits"] == [{"iterations": 2}]
    _, many, _ = restored(method, entry, iters=30, size=32)
    assert many > few + 1
    again, _, _ = restored(method, entry, iters=2, size=32)
    other, _, _ = restored(method, entry, iters=2, seed=1, size=32)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@ENTRIES
def test_the_papers_own_code_learns_and_returns_its_average(entry):
    checkout = os.environ.get("DIP_REFERENCE")
    if not checkout:
        pytest.skip("DIP_REFERENCE names no clone of DmitryUlyanov/deep-image-prior")
    for loaded in [one for one in sys.modules if one.startswith("dip_reference_models")]:
        del sys.modules[loaded]  # a stand-in of another test
    method = benchmark.find("reference", checkout=checkout)
    picture, psnr, case = restored(method, entry, iters=40)
    curves = case.log["curves"]
    assert case.log["fits"] == [{"iterations": 40}]
    channels = 1 if case.y.ndim == 2 else 3
    assert case.log["parameters"] == 2_217_444 + 129 * channels  # 2,217,831 in colour
    assert curves["psnr"]["iteration"] == list(range(1, 41))
    assert curves["psnr"]["value"][-1] == pytest.approx(psnr, abs=0.01)
    assert curves["psnr_output"]["value"][-1] > curves["psnr_output"]["value"][0] + 2
    assert psnr > curves["psnr"]["value"][0] + 1
    assert 0 <= picture.min() < picture.max() <= 1  # it ends in a sigmoid
