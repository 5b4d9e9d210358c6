"""The benchmark scripts run from start to end at a toy size, and their reports say what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
from PIL import Image
from skimage.io import imread, imsave

import dip

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def run(script: str, *words: object) -> str:
    command = [sys.executable, FOLDER / script, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of scikit-image under the names of the research pictures."""
    folder = tmp_path_factory.mktemp("data")
    photo = skimage.data.astronaut()[:400]
    large = np.concatenate([photo, photo[:, ::-1]], axis=1)
    mask = np.full(photo.shape[:2], 255, np.uint8)
    mask[190:210, 250:260] = 0
    pictures = {
        "set9/f16.png": photo,
        "dip_paper/sr/zebra_GT.png": large,
        "dip_paper/inpainting/kate.png": photo,
        "dip_paper/inpainting/kate_mask.png": mask,
        "dip_paper/restoration/barbara.png": photo[..., 1],
    }
    for name, pixels in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        imsave(folder / name, pixels, check_contrast=False)
    return folder


FIGURES = {
    "f16": {"noisy", "average", "last output"},
    "zebra": {"bicubic", "nearest", "average", "last output"},
    "kate": {"average", "last output", "average, missing pixels"},
    "barbara-half": {"average", "last output", "average, missing pixels"},
}


@pytest.fixture(scope="module")
def paper(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the experiments of the paper write, at a toy size."""
    folder = tmp_path_factory.mktemp("paper")
    words = ("--data", data, "--size", 40, "--iters", 2, "--precision", "float32", "--device", "cpu")
    run("paper.py", *FIGURES, *words, "--out", folder, "--pictures", folder)
    return folder


@pytest.mark.parametrize("name", FIGURES)
def test_experiments_of_the_paper(name, paper):
    report = json.loads((paper / f"{name}-40.json").read_text())
    assert set(report["psnr"]) == FIGURES[name]
    assert all(0 < value < 60 for value in report["psnr"].values())
    assert report["settings"]["shape"] == [1 if name == "barbara-half" else 3, 40, 40]
    assert (report["iterations"], report["seed"], report["device"]) == (2, 0, "cpu")
    assert report["environment"]["dip"] == dip.__version__
    assert imread(paper / f"{name}-40.jpg").shape[:2] == (40, 120)  # given, restored, original
    assert not list(paper.glob("*.checkpoint"))


def test_the_noisy_picture_of_the_paper(paper):
    clean = skimage.data.astronaut()[:400][180:220, 236:276] / 255
    noisy = dip.degradations.gaussian(clean, 25, clip=True, seed=0)
    expected = skimage.metrics.peak_signal_noise_ratio(clean, noisy, data_range=1)
    assert json.loads((paper / "f16-40.json").read_text())["psnr"]["noisy"] == pytest.approx(expected, abs=1e-3)


def test_the_bicubic_enlargement_of_the_paper_is_pillows(paper):
    photo = skimage.data.astronaut()[:400]
    large = np.concatenate([photo, photo[:, ::-1]], axis=1)
    top, left = (large.shape[0] - 384) // 2 + 172, (large.shape[1] - 576) // 2 + 268
    clean = large[top : top + 40, left : left + 40]
    back = Image.fromarray(clean).resize((10, 10), Image.Resampling.LANCZOS).resize((40, 40), Image.Resampling.BICUBIC)
    expected = skimage.metrics.peak_signal_noise_ratio(clean, np.asarray(back))
    assert json.loads((paper / "zebra-40.json").read_text())["psnr"]["bicubic"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read as on POSIX")
def test_speed_compares_with_the_convolutions_alone(tmp_path):
    pytest.importorskip("matplotlib")
    words = ("--sizes", 64, 96, "--channels", 4, "--iters", 2, "--rounds", 1, "--precision", "float32")
    report_path, plot = tmp_path / "speed.json", tmp_path / "speed.png"
    run("speed.py", *words, "--device", "cpu", "--out", report_path, "--plot", plot)
    report = json.loads(report_path.read_text())
    assert [(one["name"], one["size"]) for one in report["results"]] == [
        (name, size) for size in (64, 96) for name in ("dip", "convolutions")
    ]
    for one in report["results"]:
        for kind in ("seconds", "cpu_seconds"):
            assert 0 < one[kind]["least"] <= one[kind]["median"] <= one[kind]["most"]
        assert one["peak_bytes"] > 0
    assert imread(plot).shape[1] > 300


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_speed_times_the_recorded_iteration_beside_the_plain_one(tmp_path):
    words = ("--sizes", 64, "--channels", 4, "--iters", 2, "--rounds", 1, "--precision", "float32", "--device", "cuda")
    run("speed.py", *words, "--out", tmp_path / "speed.json")
    results = json.loads((tmp_path / "speed.json").read_text())["results"]
    assert [one["name"] for one in results] == ["dip", "dip-graph", "convolutions"]
    assert all(one["seconds"]["least"] > 0 for one in results)


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read as on POSIX")
def test_speed_compares_the_network_of_a_preset_with_an_earlier_checkout(tmp_path):
    words = ("--preset", "fast", "--earlier", FOLDER.parent, "--sizes", 64, "--iters", 1, "--rounds", 1)
    run("speed.py", *words, "--precision", "float32", "--device", "cpu", "--out", tmp_path / "speed.json")
    report = json.loads((tmp_path / "speed.json").read_text())
    assert report["preset"] == "fast"
    assert [one["name"] for one in report["results"]] == ["earlier", "dip", "convolutions"]


def test_what_the_demo_prints_is_kept(tmp_path):
    path = tmp_path / "examples.json"
    path.write_text('{"denoise": {"lines": ["of an earlier run"]}}')
    run("examples.py", "demo", "--iters", 2, "--out", path)
    report = json.loads(path.read_text())
    assert report["denoise"] == {"lines": ["of an earlier run"]}
    clean = skimage.data.astronaut()[:256, 96:352]
    noisy = np.clip(clean / 255 + np.random.default_rng(0).normal(0, 25 / 255, clean.shape), 0, 1)
    before = skimage.metrics.peak_signal_noise_ratio(clean / 255, noisy)
    (printed,) = (line.split()[1] for line in report["demo"]["lines"] if line.startswith("noisy: "))
    assert float(printed) == pytest.approx(before, abs=0.03)
    assert report["demo"]["environment"]["dip"] == dip.__version__


def test_time_to_quality_says_when_each_came_to_the_mark(data, tmp_path):
    net = {"down": [4, 4], "up": [4, 4], "skip": [2, 2]}
    settings = {
        "long": {"network": net, "iters": 60, "precision": "float32"},
        "short": {"network": net, "iters": 20, "precision": "float32"},
    }
    words = [word for name, one in settings.items() for word in ("--setting", f"{name}={json.dumps(one)}")]
    path = tmp_path / "time.json"
    run("time_to_quality.py", "--data", data, "--pictures", "set9/f16", "--size", 32, *words, "--out", path)
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
    run("time_to_quality.py", "--data", data, "--pictures", "set9/f16", "--size", 32, *further, "--out", path)
    later = json.loads(path.read_text())
    kept, again = later["pictures"]["set9/f16"], later["pictures"]["set9/f16"]["again"]
    assert {name: kept[name] for name in settings} == report["pictures"]["set9/f16"]
    assert again["curve"]["psnr"] == short["curve"]["psnr"]
    assert set(later["summary"]) == set(later["settings"]) == {"long", "short", "again"}


def test_many_at_a_time_are_measured_and_compared(tmp_path):
    path = tmp_path / "many.json"
    run("many.py", "--sizes", 32, "--count", 3, "--iters", 2, "--rounds", 2, "--at-once", 2, "--out", path)
    found = json.loads(path.read_text())["sizes"]["32"]
    assert found["side of the large picture"] == 64
    assert found["at once"] == 2
    rates = found["megapixels a second"]
    assert {"one after the other", "dip.run_all", "one large picture"} <= set(rates)
    assert all(len(rate) == 2 and min(rate) > 0 for rate in rates.values())
    assert set(found["furthest from single fits"]) == set(rates) - {"one after the other", "one large picture"}
    assert max(found["furthest from single fits"].values()) == 0


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("inpaint", ["fast", "32, 64, 64, 64, 64 channels, nearest, learning rate 0.003, jitter 0.01"]),
        ("super-resolve", ["fast", "64 channels everywhere, corrected", "fast, picture never renewed"]),
    ],
)
def test_search_of_other_tasks(data, tmp_path, task, names):
    path = tmp_path / "search.json"
    words = ("--pictures", "set9/f16", "--size", 64, "--iters", 50, "--missing", 0.3, "--small-sigma", 5)
    run("search.py", task, "--data", data, *words, "--variants", *names, "--out", path)
    ((name, found),) = json.loads(path.read_text()).items()
    assert name.endswith({"inpaint": "30% missing", "super-resolve": "4 times, noise of sigma 5"}[task])
    assert list(found) == names
    for one in found.values():
        assert 10 < one["average"][0] < 40


def test_corrections(data, tmp_path):
    path = tmp_path / "corrections.json"
    run("corrections.py", "--data", data, "--pictures", "set9/f16", "--size", 64, "--iters", 10, "--out", path)
    found = json.loads(path.read_text())
    for flaw in ("no flaws", "noise of sigma 2", "noise of sigma 5", "a JPEG of quality 85"):
        psnr = found[f"set9/f16, {flaw}"]
        assert list(psnr) == ["0", "1", "2", "5", "10"]
        assert psnr["0"] + 1 < psnr["1"] < 40  # so early a fit is nothing without


def test_search_follows_its_variants(data, tmp_path):
    path = tmp_path / "search.json"
    words = ("denoise", "--pictures", "set9/f16", "--size", 40, "--iters", 50, "--variants")
    names = [
        "thin, learning rate 0.02 falling to 0",
        "thin, code: its own average, from a Gaussian of 1 pixel",
        "thin, code: both and the Wiener filter",
        "fast, pictures never renewed",
    ]
    printed = run("search.py", *words[:1], "--data", data, *words[1:], *names, "--out", path)
    (found,) = json.loads(path.read_text()).values()
    assert list(found) == names
    for one in found.values():
        assert one["iteration"] == [50]
        assert 10 < one["average"][0] < 40
        assert one["environment"]["dip"] == dip.__version__
    assert len(printed.splitlines()) == 4
    assert run("search.py", *words[:1], "--data", data, *words[1:], *names, "--out", path) == ""  # nothing is run again


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read as on POSIX")
def test_memory_is_compared_with_what_was_foretold(tmp_path):
    path = tmp_path / "memory.json"
    run("memory.py", "--sizes", 64, "--cases", "fast, float32", "--rounds", 1, "--iters", 1, "--out", path)
    report = json.loads(path.read_text())
    (found,) = report["results"]
    (taken,) = found["taken"]
    assert found["foretold_by_taken"] == [pytest.approx(found["foretold"] / taken, abs=1e-3)]
    assert report["within_20_percent"] in ("0 of 1", "1 of 1")


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read as on POSIX")
def test_crops_are_compared_with_one_piece(data, tmp_path):
    words = ("--preset", "fast", "--tile", 96, "--iters", 1, "--out")
    run("crops.py", "cost", "--sizes", 192, *words, tmp_path / "cost.json")
    piece, large = json.loads((tmp_path / "cost.json").read_text())["sizes"]
    assert (piece["tiles"], large["tiles"]) == (1, 4)
    assert (piece["iterations"], large["iterations"]) == (750, 3000)
    assert piece["times_linear"] == 1
    expected = 3000 * large["seconds_an_iteration"] + large["seconds_a_pass"]
    assert large["times_linear"] == pytest.approx(expected / (750 * piece["seconds_an_iteration"] * 4), abs=2e-3)

    run("crops.py", "quality", "--data", data, "--pictures", "set9/f16", "--size", 128, *words, tmp_path / "q.json")
    (found,) = json.loads((tmp_path / "q.json").read_text())["pictures"].values()
    assert found["in one piece"]["iterations"] == 1
    assert found["in crops"]["iterations"] == 4
    assert all(0.1 < found[label]["seam"] < 10 for label in ("in one piece", "in crops"))


def test_overhead_runs_every_job_once(tmp_path):
    path = tmp_path / "overhead.json"
    run("overhead.py", "--jobs", 50, "--out", path)
    report = json.loads(path.read_text())
    assert (report["first"]["done"], report["again"]["kept"], report["lines"]) == (50, 50, 50)


def test_recipes_go_on_and_put_the_published_figures_beside(tmp_path):
    words = ("--set", "photographs", "--pictures", "cat,camera", "--size", 64, "--methods", "nlm,tv")
    words += ("--out", tmp_path / "runs", "--results", tmp_path)
    assert "set9-25: 4 done, 0 there already" in run("figures.py", "set9-25", *words)
    assert "set9-25: 0 done, 4 there already" in run("figures.py", "set9-25", *words)
    report = json.loads((tmp_path / "set9-25.json").read_text())
    assert report["published"]["DIP, the paper, averaged"] == 30.43
    (group,) = report["groups"]
    values = [group["pictures"][name]["nlm"][0] for name in ("cat", "camera")]
    assert group["means"]["nlm"]["figures"]["psnr"] == pytest.approx(np.mean(values))
    assert (tmp_path / "runs" / "set9-25" / "report.html").is_file()
    assert group["fits"] == {}
    names = [line.split()[0] for line in run("figures.py", "--list").splitlines()]
    assert len(set(names)) == len(names) == 23
    assert {"set9-25-256", "kodak24-25", "set5-x4", "set14-x8-bicubic", "set11-90"} <= set(names)


def test_recipes_keep_methods_of_another_run(tmp_path):
    words = ("set9-25", "--set", "photographs", "--pictures", "cat,camera", "--size", 64, "--results", tmp_path)
    run("figures.py", *words, "--methods", "nlm,tv", "--out", tmp_path / "here")
    (first,) = json.loads((tmp_path / "set9-25.json").read_text())["groups"]
    run("figures.py", *words, "--methods", "local-wiener", "--out", tmp_path / "there")
    (both,) = json.loads((tmp_path / "set9-25.json").read_text())["groups"]
    assert set(both["means"]) == {"nlm", "tv", "local-wiener", "degraded"}
    for name in ("nlm", "tv"):
        assert both["means"][name] == first["means"][name]
    assert set(both["pictures"]["cat"]) == {"nlm", "tv", "local-wiener"}
    assert both["means"]["local-wiener"]["devices"] == ["cpu"]


@pytest.mark.parametrize("method", ["fast+twice", "fast+paper"])
def test_recipes_tell_both_fits_of_a_mean(tmp_path, method):
    words = ("--set", "photographs", "--pictures", "cat", "--size", 64, "--iters", 4, "--methods", method)
    run("figures.py", "set9-25", *words, "--out", tmp_path / "runs", "--results", tmp_path)
    (group,) = json.loads((tmp_path / "set9-25.json").read_text())["groups"]
    name = f"{method}, 4 iterations"
    first, second = group["fits"][name]["cat"]
    both = group["pictures"]["cat"][name][0]
    assert first != second
    assert set(group["curves"][name]["cat"]) == {"psnr, fit 1", "psnr, fit 2"}
    assert min(first, second) < both  # the mean of two has less error than the worse one, and mostly than either


@pytest.mark.parametrize(
    ("task", "size", "variant", "least"),
    [("deblur", 40, "fast, not corrected", 15), ("dejpeg", 48, "fast, none of it free", 10)],
)
def test_search_compares_variants(data, tmp_path, task, size, variant, least):
    path = tmp_path / "search.json"
    words = ("--pictures", "set9/f16", "--size", size, "--iters", 50, "--variants", variant, "fast")
    run("search.py", task, "--data", data, *words, "--out", path)
    (found,) = json.loads(path.read_text()).values()
    assert found["fast"]["average"][0] != found[variant]["average"][0]
    assert found["fast"]["output"][0] > least


def test_the_error_that_a_jpeg_tells_is_near_the_true_one(data, tmp_path):
    out = tmp_path / "jpeg-error.json"
    run("jpeg_error.py", "--data", data, "--pictures", "set9/f16", "--size", 64, "--out", out)
    ratio = json.loads(out.read_text())["ratio"]
    assert 0.4 < ratio["least"] <= ratio["median"] <= ratio["most"] < 2


def test_measurements_are_reconstructed_by_presets_and_by_the_usual_inversions(data, tmp_path):
    out = tmp_path / "measurements.json"
    words = ("--pictures", "set9/f16", "--size", 32, "--presets", "fast", "--iters", 100, "--views", 20)
    run("measurements.py", "--data", data, *words, "--out", out)
    report = json.loads(out.read_text())
    for kind, usual in (("mri", "zero-filled"), ("ct", "filtered back-projection, hann")):
        found = report[f"set9/f16, {kind}"]
        assert found[usual] > 10
        assert found["fast"]["iteration"] == [100]
        assert found["fast"]["psnr"][0] > 10


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
    run("noise_level.py", pictures, "--growing", "--size", 128, "--out", out)
    noises = json.loads(out.read_text())["noises"]
    few = noises["colour, 5 photons, sigma 0"]
    assert few["bright"] == [pytest.approx(1, rel=1e-3)] * 5
    assert (few["found of"], few["said to grow"]) == ("1 of 1", "1 of 1")
    assert noises["colour, none, sigma 25"]["said to grow"] == "0 of 1"
