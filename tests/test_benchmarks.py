"""The benchmark scripts of quality run from start to end at a toy size, and their reports say what was measured."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.metrics
from PIL import Image
from scripts import run
from skimage.io import imread

import dip
from dip import guides

FIGURES = {
    "f16": {"noisy", "average", "last output"},
    "zebra": {"bicubic", "nearest", "average", "last output"},
    "kate": {"average", "last output", "average, missing pixels"},
    "barbara-half": {"average", "last output", "average, missing pixels"},
}


@pytest.fixture(scope="module")
def paper(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the experiments of the paper write, at a toy size."""
    folder = tmp_path_factory.mktemp("paper")
    words = ("--data", photos, "--size", 40, "--iters", 2, "--precision", "float32", "--device", "cpu")
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


@pytest.mark.usefixtures("few_turns")
@pytest.mark.filterwarnings("ignore:[0-9]+ known pixels are few:RuntimeWarning")
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("inpaint", ["fast", "32, 64, 64, 64, 64 channels, nearest, learning rate 0.003, jitter 0.01"]),
        ("super-resolve", ["fast", "64 channels everywhere, corrected", "fast, picture never renewed"]),
    ],
)
def test_search_of_other_tasks(photos, tmp_path, task, names):
    path = tmp_path / "search.json"
    words = ("--pictures", "set9/f16", "--size", 64, "--iters", 50, "--missing", 0.3, "--small-sigma", 5)
    run("search.py", task, "--data", photos, *words, "--variants", *names, "--out", path)
    ((name, found),) = json.loads(path.read_text()).items()
    assert name.endswith({"inpaint": "30% missing", "super-resolve": "4 times, noise of sigma 5"}[task])
    assert list(found) == names
    for one in found.values():
        assert 10 < one["average"][0] < 45


def test_corrections(photos, tmp_path):
    path = tmp_path / "corrections.json"
    run("corrections.py", "--data", photos, "--pictures", "set9/f16", "--size", 64, "--iters", 10, "--out", path)
    found = json.loads(path.read_text())
    for flaw in ("no flaws", "noise of sigma 2", "noise of sigma 5", "a JPEG of quality 85"):
        psnr = found[f"set9/f16, {flaw}"]
        assert list(psnr) == ["0", "1", "2", "5", "10"]
        assert psnr["0"] + 1 < psnr["1"] < 40  # so early a fit is nothing without


def test_search_follows_its_variants(photos, tmp_path):
    path = tmp_path / "search.json"
    words = ("denoise", "--pictures", "set9/f16", "--size", 40, "--iters", 50, "--variants")
    names = [
        "thin, learning rate 0.02 falling to 0",
        "thin, code: its own average, from a Gaussian of 1 pixel",
        "thin, code: both and the Wiener filter",
        "fast, pictures never renewed",
    ]
    printed = run("search.py", *words[:1], "--data", photos, *words[1:], *names, "--out", path)
    (found,) = json.loads(path.read_text()).values()
    assert list(found) == names
    for one in found.values():
        assert one["iteration"] == [50]
        assert 10 < one["average"][0] < 40
        assert one["environment"]["dip"] == dip.__version__
    assert len(printed.splitlines()) == 4
    assert (
        run("search.py", *words[:1], "--data", photos, *words[1:], *names, "--out", path) == ""
    )  # nothing is run again


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
def test_search_compares_variants(photos, tmp_path, task, size, variant, least):
    path = tmp_path / "search.json"
    words = ("--pictures", "set9/f16", "--size", size, "--iters", 50, "--variants", variant, "fast")
    run("search.py", task, "--data", photos, *words, "--out", path)
    (found,) = json.loads(path.read_text()).values()
    assert found["fast"]["average"][0] != found[variant]["average"][0]
    assert found["fast"]["output"][0] > least


def test_the_error_that_a_jpeg_tells_is_near_the_true_one(photos, tmp_path):
    out = tmp_path / "jpeg-error.json"
    run("jpeg_error.py", "--data", photos, "--pictures", "set9/f16", "--size", 64, "--out", out)
    ratio = json.loads(out.read_text())["ratio"]
    assert 0.4 < ratio["least"] <= ratio["median"] <= ratio["most"] < 2


def test_measurements_are_reconstructed_by_presets_and_by_the_usual_inversions(photos, tmp_path):
    out = tmp_path / "measurements.json"
    words = ("--pictures", "set9/f16", "--size", 32, "--presets", "fast", "--iters", 100, "--views", 20)
    run("measurements.py", "--data", photos, *words, "--out", out)
    report = json.loads(out.read_text())
    for kind, usual in (("mri", "zero-filled"), ("ct", "filtered back-projection, hann")):
        found = report[f"set9/f16, {kind}"]
        assert found[usual] > 10
        assert found["fast"]["iteration"] == [100]
        assert found["fast"]["psnr"][0] > 10


def test_a_scan_with_scratches_is_restored(tmp_path):
    words = ("--size", 41, 48, "--scratches", 2, "--iters", 1, "--device", "cpu", "--pictures", tmp_path)
    with pytest.warns(RuntimeWarning, match="known pixels are few"):
        run("scans.py", *words, "--out", tmp_path / "scans.json")
    found = json.loads((tmp_path / "scans.json").read_text())["41 x 48"]
    scan, restored = (imread(tmp_path / f"{name}.png") for name in ("scan", "restored"))
    assert scan.shape == restored.shape == (41, 48, 3)
    changed = (scan != restored).any(2)
    assert 0.5 * found["missing"] < changed.mean() <= found["missing"]
    assert (scan[changed] == 255).all()
    assert found["psnr_missing"] > 15
    assert found["iterations"] == 1
    assert 0 < found["seconds_filters"] <= found["seconds"]


def test_dark_pictures_are_restored_as_they_are_and_stretched(tmp_path, monkeypatch):
    monkeypatch.setattr(guides, "inpainted", partial(guides.inpainted, times=40))  # of 100: it is done well enough
    with pytest.warns(RuntimeWarning, match="known pixels are few"):
        run("dark.py", "--pictures", "camera", "--size", 32, "--iters", 2, "--out", tmp_path / "dark.json")
    report = json.loads((tmp_path / "dark.json").read_text())
    whole, quarter, sixteenth = (report[f"camera, 1/{times}, from 0"] for times in (1, 4, 16))
    for task in ("denoise", "inpaint", "deblur", "super_resolve"):
        assert list(whole[task]) == ["as it is"]
        assert sixteenth[task]["as it is"] < whole[task]["as it is"] - 2
        assert sixteenth[task]["stretched"] > sixteenth[task]["as it is"] + 2
    for task in ("denoise", "inpaint"):
        assert quarter[task]["stretched"] == pytest.approx(sixteenth[task]["stretched"], abs=0.02)
    flat = report["camera, 1/16, from 0.4"]["inpaint"]
    assert flat["stretched"] == pytest.approx(whole["inpaint"]["as it is"], abs=2)


def test_noise_of_a_camera_is_made_and_found(tmp_path):
    words = ("--pictures", "astronaut", "--size", 128, "--sigmas", 25, "--iters", 2, "--methods")
    methods = ("independent", "spectrum")
    run("camera_noise.py", *words, *methods, "--out", tmp_path / "noise.json")
    report = json.loads((tmp_path / "noise.json").read_text())
    for kind, least, most in (("jpeg", 1, 1.5), ("bayer", 3, 30), ("bayer, jpeg", 2, 30)):
        independent, spectrum = (report[f"astronaut, {kind}, sigma 25, {method}"] for method in methods)
        assert 10 < spectrum["true"] < 22  # interpolation and JPEG take off some
        assert least < spectrum["found"] / independent["found"] < most
        assert spectrum["found"] > 0.9 * spectrum["true"]
        assert 20 < spectrum["noisy"] < 20 * np.log10(255 / spectrum["true"]) + 0.1  # which has no offset in it
    run("camera_noise.py", *words, "spectrum", "--missing", "lines", "--out", tmp_path / "missing.json")
    missing = json.loads((tmp_path / "missing.json").read_text())["astronaut, bayer, sigma 25, spectrum"]
    assert missing["true"] == pytest.approx(report["astronaut, bayer, sigma 25, spectrum"]["true"], rel=0.05)
    assert missing["found"] > 0.9 * missing["true"]


def test_what_clipping_did_is_measured_with_and_without_being_undone(tmp_path):
    out, words = tmp_path / "clipped.json", ("--pictures", "dark-camera", "--size", 96, "--iters", 2)
    run("clipped_noise.py", *words, "--methods", "before", "fast", "--out", out)
    before, fast = (json.loads(out.read_text())[f"dark-camera, {method}"] for method in ("before", "fast"))
    assert before["clipped"][0] > 0.3
    assert before["levels"] == fast["levels"]
    assert fast["levels"]["before"] < 18 < 23 < fast["levels"]["now"] < 28
    assert before["as it was made"] == before["undone"]
    assert fast["noisy"] == pytest.approx(22.5, abs=1)
    run("clipped_noise.py", "--pictures", "coffee", "--photons", 20, *words[2:], "--out", tmp_path / "photons.json")
    report = json.loads((tmp_path / "photons.json").read_text())
    assert report["coffee, fast"]["noise"].startswith("PoissonGaussian(gain=0.0")


def test_detail_that_is_taken_for_noise_is_measured(tmp_path):
    out, methods = tmp_path / "detail.json", ("before", "doubts alone", "fast")
    run("detail.py", "--size", 64, "--sigma", 3, "--iters", 101, "--methods", *methods, "--out", out)
    report = json.loads(out.read_text())
    before, doubting, fast = (report[f"immunohistochemistry, {method}"] for method in methods)
    assert before["levels"][0] == before["levels"][1] == doubting["levels"][0] > 12
    assert 3 < doubting["levels"][1] < 0.8 * doubting["levels"][0]  # what is left is independent
    assert fast["levels"][0] == fast["levels"][1] == pytest.approx(1.2 * 3, rel=0.15)
    assert before["noisy"] == fast["noisy"] == pytest.approx(38.6, abs=0.3)
    out = tmp_path / "gray.json"
    run("detail.py", "--size", 32, "--factor", 6, "--gray", "--iters", 1, "--methods", "fast", "--out", out)
    assert json.loads(out.read_text())["immunohistochemistry, fast"]["noisy"] == pytest.approx(34.2, abs=0.3)


def test_rivals_of_clipped_noise_are_told_its_level(tmp_path):
    pytest.importorskip("bm3d")
    out = tmp_path / "clipped.json"
    run("clipped_noise.py", "--pictures", "dark-camera", "--size", 64, "--methods", "bm3d", "--out", out)
    found = json.loads(out.read_text())["dark-camera, bm3d"]
    assert found["noisy"] + 2 < found["as it was made"] < found["undone"] - 2


def test_bm3d_is_told_the_noise_of_a_camera(tmp_path):
    pytest.importorskip("bm3d")
    out, methods = tmp_path / "noise.json", ("bm3d", "bm3d-spectrum")
    words = ("--pictures", "astronaut", "--size", 48, "--sigmas", 25, "--methods", *methods)
    run("camera_noise.py", *words, "--out", out)
    report = json.loads(out.read_text())
    for kind in ("jpeg", "bayer", "bayer, jpeg"):
        deviation, spectrum = (report[f"astronaut, {kind}, sigma 25, {method}"] for method in methods)
        assert 20 < deviation["noisy"] == spectrum["noisy"] < deviation["psnr"] < spectrum["psnr"]
