"""The benchmark scripts of speed, memory and rules run at a toy size, and their reports say what was measured."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
from scripts import BENCHMARKS, run, run_apart
from skimage.io import imread

import dip


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read as on POSIX")
def test_speed_compares_with_the_convolutions_alone(tmp_path):
    pytest.importorskip("matplotlib")
    words = ("--sizes", 64, "--channels", 4, "--iters", 2, "--rounds", 1, "--precision", "float32")
    report_path, plot = tmp_path / "speed.json", tmp_path / "speed.png"
    run_apart("speed.py", *words, "--device", "cpu", "--out", report_path, "--plot", plot)
    report = json.loads(report_path.read_text())
    assert [(one["name"], one["size"]) for one in report["results"]] == [("dip", 64), ("convolutions", 64)]
    for one in report["results"]:
        for kind in ("seconds", "cpu_seconds"):
            assert 0 < one[kind]["least"] <= one[kind]["median"] <= one[kind]["most"]
        assert one["peak_bytes"] > 0
    assert imread(plot).shape[1] > 300


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_speed_times_the_recorded_iteration_beside_the_plain_one(tmp_path):
    words = ("--sizes", 64, "--channels", 4, "--iters", 2, "--rounds", 1, "--precision", "float32", "--device", "cuda")
    run_apart("speed.py", *words, "--out", tmp_path / "speed.json")
    results = json.loads((tmp_path / "speed.json").read_text())["results"]
    assert [one["name"] for one in results] == ["dip", "dip-graph", "convolutions"]
    assert all(one["seconds"]["least"] > 0 for one in results)


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read as on POSIX")
def test_speed_compares_the_network_of_a_preset_with_an_earlier_checkout(tmp_path):
    words = ("--preset", "fast", "--earlier", BENCHMARKS.parent, "--sizes", 64, "--iters", 1, "--rounds", 1)
    run_apart("speed.py", *words, "--precision", "float32", "--device", "cpu", "--out", tmp_path / "speed.json")
    report = json.loads((tmp_path / "speed.json").read_text())
    assert report["preset"] == "fast"
    assert [one["name"] for one in report["results"]] == ["earlier", "dip", "convolutions"]


def test_time_to_quality_says_when_each_came_to_the_mark(photos, tmp_path):
    net = {"down": [4, 4], "up": [4, 4], "skip": [2, 2]}
    settings = {
        "long": {"network": net, "iters": 60, "precision": "float32"},
        "short": {"network": net, "iters": 20, "precision": "float32"},
    }
    words = [word for name, one in settings.items() for word in ("--setting", f"{name}={json.dumps(one)}")]
    path = tmp_path / "time.json"
    run("time_to_quality.py", "--data", photos, "--pictures", "set9/f16", "--size", 32, *words, "--out", path)
    report = json.loads(path.read_text())
    long, short = (report["pictures"]["set9/f16"][name] for name in settings)
    assert long["curve"]["iteration"] == [20, 40, 60]
    assert long["psnr"] == long["curve"]["psnr"][-1]
    assert long["seconds_to_the_mark"] <= long["seconds"]
    assert long["times_faster_to_the_mark"] >= 1
    # the same fit as the long one, until it ends
    assert short["curve"]["psnr"] == long["curve"]["psnr"][:1]
    assert (short["seconds_to_the_mark"] is None) == (short["psnr"] < long["psnr"])
    assert report["summary"]["long"]["reached"] == "1 of 1"

    further = ("--setting", f"again={json.dumps(settings['short'])}", "--keep")
    run("time_to_quality.py", "--data", photos, "--pictures", "set9/f16", "--size", 32, *further, "--out", path)
    later = json.loads(path.read_text())
    kept, again = later["pictures"]["set9/f16"], later["pictures"]["set9/f16"]["again"]
    assert {name: kept[name] for name in settings} == report["pictures"]["set9/f16"]
    assert again["curve"]["psnr"] == short["curve"]["psnr"]
    assert set(later["summary"]) == set(later["settings"]) == {"long", "short", "again"}


def test_many_at_a_time_are_measured_and_compared(tmp_path):
    path = tmp_path / "many.json"
    run("many.py", "--sizes", 32, "--count", 3, "--iters", 2, "--rounds", 1, "--at-once", 2, "--out", path)
    found = json.loads(path.read_text())["sizes"]["32"]
    assert found["side of the large picture"] == 64
    assert found["at once"] == 2
    rates = found["megapixels a second"]
    assert {"one after the other", "dip.run_all", "one large picture"} <= set(rates)
    assert all(len(rate) == 1 and min(rate) > 0 for rate in rates.values())
    assert set(found["furthest from single fits"]) == set(rates) - {"one after the other", "one large picture"}
    assert max(found["furthest from single fits"].values()) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read as on POSIX")
def test_memory_is_compared_with_what_was_foretold(tmp_path):
    path = tmp_path / "memory.json"
    run_apart("memory.py", "--sizes", 64, "--cases", "fast, float32", "--rounds", 1, "--iters", 1, "--out", path)
    report = json.loads(path.read_text())
    (found,) = report["results"]
    (taken,) = found["taken"]
    assert found["foretold_by_taken"] == [pytest.approx(found["foretold"] / taken, abs=1e-3)]
    assert report["within_20_percent"] in ("0 of 1", "1 of 1")


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read as on POSIX")
def test_crops_are_compared_with_one_piece(photos, tmp_path):
    words = ("--preset", "fast", "--tile", 96, "--iters", 1, "--out")
    run_apart("crops.py", "cost", "--sizes", 192, *words, tmp_path / "cost.json")
    piece, large = json.loads((tmp_path / "cost.json").read_text())["sizes"]
    assert (piece["tiles"], large["tiles"]) == (1, 4)
    assert (piece["iterations"], large["iterations"]) == (750, 3000)
    assert piece["times_linear"] == 1
    expected = 3000 * large["seconds_an_iteration"] + large["seconds_a_pass"]
    assert large["times_linear"] == pytest.approx(expected / (750 * piece["seconds_an_iteration"] * 4), abs=2e-3)

    run(
        "crops.py",
        "quality",
        "--data",
        photos,
        "--pictures",
        "set9/f16",
        "--size",
        128,
        *words,
        tmp_path / "q.json",
    )
    (found,) = json.loads((tmp_path / "q.json").read_text())["pictures"].values()
    assert found["in one piece"]["iterations"] == 1
    assert found["in crops"]["iterations"] == 4
    assert all(0.1 < found[label]["seam"] < 10 for label in ("in one piece", "in crops"))


def test_overhead_runs_every_job_once(tmp_path):
    path = tmp_path / "overhead.json"
    run_apart("overhead.py", "--jobs", 50, "--out", path)
    report = json.loads(path.read_text())
    assert (report["first"]["done"], report["again"]["kept"], report["lines"]) == (50, 50, 50)


def test_networks_are_fitted_beside_each_other(tmp_path):
    out = tmp_path / "networks.json"
    run("networks.py", "--pictures", "coffee", "--size", 32, "--iters", 50, "--out", out)
    report = json.loads(out.read_text())
    weights = {name: part["weights"] for name, part in report.items() if name.startswith("coffee")}
    assert weights == {
        "coffee, encoder-decoder": 2_217_831,
        "coffee, unet": 2_165_859,
        "coffee, resnet": 167_907,
        "coffee, deep-decoder": 100_224,
        "coffee, deep-decoder, 64 channels": 25_536,
    }
    clean = skimage.data.coffee()[184:216, 284:316] / 255
    noisy = dip.degradations.gaussian(clean, 25, clip=True, seed=0)
    for name in weights:
        assert report[name]["noisy"] == pytest.approx(dip.metrics.psnr(noisy, clean), abs=0.01)
        assert report[name]["iteration"] == [50]
        assert 10 < report[name]["output"][0] < 40


def test_photons_are_counted_for_every_method(tmp_path):
    out = tmp_path / "photons.json"
    methods = ("fast", "fast, noise found", "fast, noise known", "non-local means")
    words = ("--pictures", "camera", "--peaks", 10, "--size", 64, "--iters", 50, "--out", out)
    run("photons.py", "--methods", *methods, *words)
    report = json.loads(out.read_text())
    found = {name: report[f"camera, 10 photons, {name}"] for name in methods}
    assert [found[name].get("noise") for name in methods[:3:2]] == [
        None,
        "PoissonGaussian(gain=0.1, sigma=0.0, offset=0.0)",
    ]
    assert found["fast, noise found"]["noise"].startswith("PoissonGaussian(gain=0.1")
    assert found["fast, noise known"]["average"][0] > found["fast"]["noisy"] + 3
    assert found["non-local means"]["psnr"] > found["fast"]["noisy"] + 3
    assert run("photons.py", "--methods", *methods[3:], *words).startswith("camera 10.0 non-local means")


def test_missing_pixels_are_told_or_filled_in(tmp_path):
    out = tmp_path / "missing.json"
    methods = ("fast", "means filled in, then fast", "filled in")
    words = ("--pictures", "brick", "--noises", "sigma-25", "--missing", "half", "--size", 64, "--iters", 50)
    run("missing_noise.py", "--methods", *methods, *words, "--out", out)
    report = json.loads(out.read_text())
    found = {name: report[f"brick, sigma-25, half missing, {name}"] for name in methods}
    assert found["fast"]["psnr"] > found["filled in"]["psnr"] + 3
    for one in found.values():
        missing, errors = one["missing"], [10 ** (-one[part] / 10) for part in ("psnr", "psnr_known", "psnr_missing")]
        assert 0.4 < missing < 0.6
        assert errors[0] == pytest.approx((1 - missing) * errors[1] + missing * errors[2], rel=1e-3)
    assert found["fast"]["average"] == [found["fast"]["psnr"]]
    assert found["fast"]["iterations"] == 50


def test_every_stopping_rule_watches_one_fit(tmp_path):
    out = tmp_path / "stopping.json"
    words = ["--pictures", "camera", "--sigmas", "50", "--size", "16", "--iters", "225", "--preset", "deep-decoder"]
    run("stopping.py", *words, "--out", out)
    found = json.loads(out.read_text())["camera, sigma 50"]
    curve, rules = found["curves"]["psnr"], found["rules"]
    assert len(curve) == len(found["curves"]["residual"]) == 9
    assert found["best"] == {"iteration": 25 * (1 + int(np.argmax(curve))), "psnr": max(curve)}
    assert found["preset's count"] == {"iteration": 225, "psnr": curve[-1]}
    fall = rules["residual fall"]
    assert fall["psnr"] == pytest.approx(curve[fall["iteration"] // 25 - 1], abs=0.002)
    assert 200 <= rules["discrepancy, told sigma"]["ended"] <= 225
    assert "windowed variance" not in rules  # it looks at nothing before iteration 400


def test_noise_that_grows_is_looked_for(tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "growing.json"
    dip.files.write(pictures / "coffee.png", skimage.data.coffee()[60:220, 200:360])
    run("noise_level.py", pictures, "--growing", "--size", 96, "--out", out)
    noises = json.loads(out.read_text())["noises"]
    few = noises["colour, 5 photons, sigma 0"]
    assert few["bright"] == [pytest.approx(1, rel=1e-3)] * 5
    assert (few["found of"], few["said to grow"]) == ("1 of 1", "1 of 1")
    assert noises["colour, none, sigma 25"]["said to grow"] == "0 of 1"
