"""The command line, from the words to the files and the exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.metrics
import skimage.transform
import tifffile
from PIL import Image, ImageCms

import dip
from dip import cli, devices, files, settings
from dip.console import one_line
from dip.guard import DivergenceError
from dip.solver import Fit

NET = {"down": (8, 8), "up": (8, 8), "skip": (4, 4)}
SMALL = ("--down", "8,8", "--skip", "4x2", "--precision", "float32")
QUICK = (*SMALL, "--iters", "3")
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def draw(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """A smooth picture with noise that reaches neither black nor white."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape[:2])
    plane = 0.5 + 0.25 * np.sin(5 * columns + 3 * rows)
    image = plane if len(shape) == 2 else plane[..., None] * np.linspace(0.7, 1, shape[2])
    image = image + 0.03 * np.random.default_rng(seed).standard_normal(shape)
    return image.astype(dtype) if dtype == "float32" else np.rint(image * np.iinfo(dtype).max).astype(dtype)


def make(name: str, shape: tuple[int, ...] = (20, 24, 3), dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    pixels = draw(shape, dtype, seed)
    files.write(name, pixels)
    return pixels


def dip_command(*words: object) -> int:
    return cli.main([str(word) for word in words])


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------------- one picture


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("in.png", (20, 24), "uint8"),
        ("in.png", (20, 24, 3), "uint8"),
        ("in.png", (13, 7, 3), "uint16"),
        ("in.tif", (13, 7, 3), "float32"),
        ("in.jpg", (20, 24, 3), "uint8"),
    ],
)
def test_result_is_that_of_the_function(name, shape, dtype, capsys):
    make(name, shape, dtype)
    out = name.replace("in", "out")
    assert dip_command("denoise", name, "-o", out, *QUICK, "--seed", 7) == 0
    given = files.read(name).pixels
    expected = dip.denoise(given, iters=3, network=NET, precision="float32", seed=7)
    written = files.read(out).pixels
    assert (written.shape, written.dtype) == (shape, dtype)
    if name.endswith(".jpg"):
        Image.fromarray(expected).save("expected.jpg", quality=95, subsampling=0)
        expected = np.asarray(Image.open("expected.jpg"))
    np.testing.assert_array_equal(written, expected)
    said = capsys.readouterr().out.splitlines()
    height, width = shape[:2]
    size = f"{height} x {width} {'RGB' if len(shape) == 3 else 'gray'} pixels (height x width)"
    assert said[0] == f"{name}: {size}; preset paper, 3 iterations, cpu, float32"
    assert said[1].startswith(f"{out}: 3 iterations in ")
    assert len(said) == 2


@pytest.mark.parametrize(("colours", "dtype"), [(1, "uint8"), (3, "uint8"), (3, "uint16")])
def test_alpha_and_profile_are_kept(colours, dtype):
    pixels = draw((16, 12, 3)[: 2 if colours == 1 else 3], dtype)
    alpha = np.linspace(0, np.iinfo(dtype).max, 16 * 12).reshape(16, 12).astype(dtype)
    like = files.Picture(pixels, alpha, ICC, None, Path("none"))
    files.write("in.png", pixels, alpha=alpha, like=like)
    assert dip_command("denoise", "in.png", "-o", "out.png", *QUICK) == 0
    assert dip_command("super-resolve", "in.png", "-o", "large.png", "--factor", 2, *QUICK) == 0
    out, large = files.read("out.png"), files.read("large.png")
    np.testing.assert_array_equal(out.alpha, alpha)
    assert out.pixels.shape == pixels.shape
    assert out.icc == large.icc == (ICC if colours == 3 else None)  # an RGB profile has no place in a gray PNG
    assert large.pixels.shape[:2] == large.alpha.shape == (32, 24)
    expected = skimage.transform.resize(alpha.astype(float), (32, 24), order=1)
    assert abs(large.alpha - expected).max() < 0.05 * np.iinfo(dtype).max


def test_alpha_is_enlarged_as_in_python():
    rgba = np.dstack([make("in.png"), draw((20, 24))]).astype(np.uint8)
    Image.fromarray(rgba).save("rgba.png")
    given = ("--factor", 2, "--phase", 0, *QUICK)
    assert dip_command("super-resolve", "rgba.png", "-o", "large.png", *given) == 0
    expected = dip.super_resolve(rgba, 2, phase=0, iters=3, network=NET, precision="float32")
    np.testing.assert_array_equal(np.asarray(Image.open("large.png"))[..., 3], expected[..., 3])


def test_inpainting_keeps_what_is_white_in_the_mask():
    pixels = make("in.png")
    known = np.full((20, 24), 255, np.uint8)
    known[5:12, 8:15] = 0
    Image.fromarray(known).save("known.png")
    Image.fromarray(255 - known).save("missing.png")
    assert dip_command("inpaint", "in.png", "--mask", "known.png", "-o", "a.png", *QUICK) == 0
    assert dip_command("inpaint", "in.png", "--mask", "missing.png", "--invert-mask", "-o", "b.png", *QUICK) == 0
    assert dip_command("inpaint", "in.png", "--mask", "known.png", "--no-keep-known", "-o", "c.png", *QUICK) == 0
    restored = files.read("a.png").pixels
    np.testing.assert_array_equal(restored[known > 0], pixels[known > 0])
    assert (restored[known == 0] != pixels[known == 0]).mean() > 0.5
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert (files.read("c.png").pixels[known > 0] != pixels[known > 0]).mean() > 0.5


def test_floats_of_a_mask_are_weights():
    pixels = make("in.png")
    weights = np.random.default_rng(0).choice(np.float32([0, 0.3, 1]), (20, 24))
    files.write("weights.tif", weights)
    files.write("turned.tif", 1 - weights)
    assert dip_command("inpaint", "in.png", "--mask", "weights.tif", "-o", "a.png", "--json", "a.json", *QUICK) == 0
    assert dip_command("inpaint", "in.png", "--mask", "turned.tif", "--invert-mask", "-o", "b.png", *QUICK) == 0
    expected = dip.inpaint(pixels, weights, iters=3, network=NET, precision="float32")
    np.testing.assert_array_equal(files.read("a.png").pixels, expected)
    np.testing.assert_allclose(files.read("b.png").pixels.astype(int), expected, atol=1)  # 1 - (1 - 0.3) is not 0.3
    settings = json.loads(Path("a.json").read_text())["settings"]
    assert settings["missing"] == pytest.approx((weights == 0).mean())


def test_a_mask_without_missing_pixels_may_be_asked_for():
    make("in.png")
    files.write("white.png", np.full((20, 24), 255, np.uint8))
    given = ("inpaint", "in.png", "--mask", "white.png", "-o", "out.png", *QUICK)
    assert dip_command(*given, "--no-keep-known") == 0
    assert Path("out.png").exists()


@pytest.mark.parametrize("source", ["in.jpg", "in"])
def test_known_pixels_that_a_jpeg_changes_are_told_of(source, capsys):
    make("in.jpg")
    make("in/a.png")
    make("in/b.jpg")
    files.write("known.png", np.uint8(255) * (draw((20, 24)) > 100))
    given = ("inpaint", source, "--mask", "known.png", *QUICK)
    assert dip_command(*given, "-o", source.replace("in", "out")) == 0
    assert capsys.readouterr().err.count("is a JPEG, which changes the known pixels, too; a .png keeps them") == 1
    assert dip_command(*given, "-o", source.replace("in", "other"), "--no-keep-known") == 0
    assert "is a JPEG" not in capsys.readouterr().err


@pytest.mark.parametrize("factor", [2, 3])
def test_super_resolution_is_exactly_factor_times_as_large(factor):
    make("in.png", (7, 10, 3))
    words = ("--factor", factor, "--kernel", "box", "--phase", 0.5)
    assert dip_command("super-resolve", "in.png", "-o", "out.tif", *words, *QUICK) == 0
    assert files.read("out.tif").pixels.shape == (7 * factor, 10 * factor, 3)


@pytest.mark.parametrize("word", ["--consistent", "--no-consistent"])
def test_super_resolution_is_corrected_or_not(word):
    make("in.png")
    words = ("super-resolve", "in.png", "--factor", 2, word, "-o", "out.png", "--json", "r.json", *QUICK)
    assert dip_command(*words) == 0
    assert json.loads(Path("r.json").read_text())["settings"]["consistent"] is (word == "--consistent")
    task = dip.SuperResolve(files.read("in.png").pixels, 2)
    fit = dip.fit(task, iters=3, network=NET, precision="float32", consistent=word == "--consistent")
    np.testing.assert_array_equal(files.read("out.png").pixels, fit.image)


def test_reference_gives_psnr_and_ssim_of_what_was_written(capsys):
    noisy, clean = make("in.png"), make("clean.png", seed=1)
    assert (
        dip_command("denoise", "in.png", "-o", "out.png", "--reference", "clean.png", "--json", "r.json", *QUICK) == 0
    )
    out = files.read("out.png").pixels
    figures = json.loads(Path("r.json").read_text())["figures"]
    for image, suffix in ((out, ""), (noisy, "_before")):
        psnr = skimage.metrics.peak_signal_noise_ratio(clean, image)
        ssim = skimage.metrics.structural_similarity(clean, image, channel_axis=-1)
        assert figures[f"psnr{suffix}"] == pytest.approx(psnr, abs=1e-3)
        assert figures[f"ssim{suffix}"] == pytest.approx(ssim, abs=1e-3)
    line = capsys.readouterr().out
    assert f"PSNR {figures['psnr_before']:.2f} -> {figures['psnr']:.2f} dB" in line
    assert f"SSIM {figures['ssim_before']:.4f} -> {figures['ssim']:.4f}" in line


def test_super_resolution_is_compared_with_bicubic_interpolation():
    clean = make("clean.png", (24, 32, 3))
    small = np.asarray(Image.fromarray(clean).resize((16, 12), Image.Resampling.LANCZOS))
    files.write("in.png", small)
    words = ("--factor", 2, "--reference", "clean.png", "--json", "r.json")
    assert dip_command("super-resolve", "in.png", "-o", "out.png", *words, *QUICK) == 0
    bicubic = np.asarray(Image.fromarray(small).resize((32, 24), Image.Resampling.BICUBIC))
    expected = skimage.metrics.peak_signal_noise_ratio(clean, bicubic)
    assert json.loads(Path("r.json").read_text())["figures"]["psnr_before"] == pytest.approx(expected, abs=0.05)


def test_inpainting_is_judged_on_the_missing_pixels(capsys):
    clean = make("clean.png")
    known = np.random.default_rng(0).random((20, 24)) < 0.6
    files.write("mask.png", np.where(known, 255, 0).astype(np.uint8))
    files.write("in.png", np.where(known[..., None], clean, 0).astype(np.uint8))
    words = ("--mask", "mask.png", "--reference", "clean.png", "--json", "r.json")
    assert dip_command("inpaint", "in.png", "-o", "out.png", *words, *QUICK) == 0
    difference = (files.read("out.png").pixels.astype(float) - clean)[~known]
    expected = 10 * np.log10(255**2 / np.mean(difference**2))
    assert json.loads(Path("r.json").read_text())["figures"]["psnr_missing"] == pytest.approx(expected, abs=1e-3)
    assert f"({expected:.2f} dB on the missing pixels)" in capsys.readouterr().out


def test_report_says_how_the_picture_was_made():
    make("in.png")
    words = ("--json", "new/r.json", "--seed", 3, "--lr", 0.02, "--jitter", 0, "--average", 0.9, "--loss", "l1")
    assert dip_command("denoise", "in.png", "-o", "out.png", "--flips", 2, *words, *QUICK) == 0
    report = json.loads(Path("new/r.json").read_text())
    assert report["command"] == "denoise"
    assert report["status"] == "done"
    assert (report["input"], report["output"], report["mask"], report["reference"]) == ("in.png", "out.png", None, None)
    assert (report["seed"], report["iterations"], report["stop_reason"]) == (3, 3, "iterations")
    assert report["seconds"] > 0
    assert report["environment"] == devices.environment()
    assert report["history"]["loss"]["iteration"] == [1, 2, 3]
    assert len(report["history"]["loss"]["value"]) == 3
    settings = report["settings"]
    assert (settings["lr"], settings["jitter"], settings["flips"], settings["average"]) == (0.02, 0, 2, 0.9)
    assert settings["flips_began"] == 2
    assert settings["loss"] == repr(dip.losses.L1())
    assert (settings["preset"], settings["iters"], settings["precision"]) == ("paper", 3, "float32")
    assert settings["network"] == {"name": "encoder-decoder", "down": [8, 8], "up": [8, 8], "skip": [4, 4]}


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("windowed-variance", "--patience", 50), "WindowedVariance(100, 50, "),
        (("moving-variance",), "MovingVariance(0.1, 1000, "),
        (("residual-fall",), "ResidualFall(100, 1.15, earliest=150)"),
        (("residual-fall", "--earliest", 60), "ResidualFall(100, 1.15, earliest=60)"),
        (("discrepancy", "--sigma", 51), "Discrepancy(0.2, "),
        (("moving-variance", "--earliest", 60), "MovingVariance(0.1, 1000, earliest=60"),
        (("discrepancy", "--sigma", 51, "--earliest", 60), "Discrepancy(0.2, tau=1.0, earliest=60"),
    ],
)
def test_rules_by_name(words, rule):
    make("in.png")
    assert dip_command("denoise", "in.png", "-o", "out.png", "--json", "r.json", "--stop", *words, *QUICK) == 0
    assert json.loads(Path("r.json").read_text())["settings"]["stop"].startswith(rule)


def test_the_line_says_why_a_fit_ended_early(capsys):
    make("in.png")
    words = ("--stop", "discrepancy", "--sigma", 200)
    assert dip_command("denoise", "in.png", "-o", "out.png", *words, *QUICK, "--iters", 300) == 0
    assert "200 iterations in " in (said := capsys.readouterr().out)
    assert "stopped: Discrepancy: " in said


def test_a_rule_that_does_not_come_to_its_end_is_told(capsys):
    make("in.png")
    assert dip_command("denoise", "in.png", "-o", "out.png", "--stop", "discrepancy", "--sigma", 1, *QUICK) == 0
    assert "the stopping rule did not come to an end" in capsys.readouterr().out


def test_a_rule_that_would_look_at_nothing_is_told(capsys):
    make("in.png")
    assert dip_command("denoise", "in.png", "-o", "out.png", "--stop", "moving-variance", *QUICK) == 0
    said = "dip: warning: MovingVariance looks at nothing before iteration 400, so with --iters 3 it does nothing; "
    assert said in capsys.readouterr().err


def test_12_bits_in_16_are_told(capsys):
    files.write("in.png", (draw((20, 24), "uint16") // 16).astype(np.uint16))
    assert dip_command("denoise", "in.png", "-o", "a.png", *QUICK) == 0
    assert "its white is taken for 4095 (12 bits); if it is another, give --data-range\n" in capsys.readouterr().err
    assert dip_command("denoise", "in.png", "-o", "b.png", "--data-range", 4095, *QUICK) == 0
    assert capsys.readouterr().err == ""


def test_a_report_tells_auto_from_never():
    make("in.png")
    words = ("denoise", "in.png", "--preset", "fast", "--precision", "float32", *SMALL, "--iters", 2)
    assert dip_command(*words, "-o", "auto.png", "--json", "auto.json") == 0
    assert dip_command(*words, "-o", "never.png", "--json", "never.json", "--flips", 0) == 0
    settings = [json.loads(Path(f"{name}.json").read_text())["settings"] for name in ("auto", "never")]
    assert [(one["flips"], one["flips_began"]) for one in settings] == [("auto", None), (0, None)]


def test_figures_of_12_bits_in_16_are_on_their_scale(capsys):
    clean = (draw((20, 24), "uint16") // 16).astype(np.uint16)
    files.write("clean.png", clean)
    noisy = clean + np.random.default_rng(0).integers(0, 300, clean.shape) * (clean < 3700)
    files.write("in.png", noisy.astype(np.uint16))
    assert dip_command("denoise", "in.png", "-o", "o.png", "--reference", "clean.png", "--json", "r.json", *QUICK) == 0
    figures = json.loads(Path("r.json").read_text())["figures"]
    expected = skimage.metrics.peak_signal_noise_ratio(clean, files.read("in.png").pixels, data_range=4095)
    assert figures["psnr_before"] == pytest.approx(expected, abs=1e-3)
    expected = skimage.metrics.peak_signal_noise_ratio(clean, files.read("o.png").pixels, data_range=4095)
    assert figures["psnr"] == pytest.approx(expected, abs=1e-3)


def test_an_image_as_the_code(capsys):
    dark, flash = make("dark.png", (40, 48, 3)), make("flash.png", (40, 48, 3), seed=1)
    words = ("denoise", "dark.png", "-o", "out.png", "--preset", "paper-flash", "--iters", 3)
    words += ("--down", "4x5", "--skip", "2x5", "--precision", "float32")
    assert dip_command(*words) == 2
    assert "needs a picture as its code" in capsys.readouterr().err
    assert dip_command(*words, "--code-image", "flash.png") == 0
    options = {"network": {"down": [4] * 5, "up": [4] * 5, "skip": [2] * 5}, "precision": "float32"}
    expected = dip.denoise(dark, preset="paper-flash", iters=3, code=dip.codes.Image(flash), **options)
    np.testing.assert_array_equal(files.read("out.png").pixels, expected)


@pytest.mark.parametrize(
    ("name", "channels", "words"),
    [("unet", [4, 4, 4], "4x3"), ("resnet", [4, 6], "4,6"), ("deep-decoder", [4, 4, 4], "4x3")],
)
def test_another_network(name, channels, words):
    pixels = make("in.png")
    common = ("denoise", "in.png", "-o", "out.png", "--iters", 3, "--precision", "float32", "--json", "out.json")
    assert dip_command(*common, "--network", name, "--channels", words) == 0
    network = {"name": name, "channels": channels}
    np.testing.assert_array_equal(
        files.read("out.png").pixels, dip.denoise(pixels, iters=3, network=network, precision="float32")
    )
    report = json.loads(Path("out.json").read_text())
    assert report["settings"]["network"] == network


def test_picture_so_far_at_every_kth_iteration():
    make("in.png")
    words = ("denoise", "in.png", "-o", "out.png", "--save-every", 2, *SMALL, "--iters", 5)
    assert dip_command(*words) == 0
    assert sorted(path.name for path in Path().glob("out*")) == ["out.iter000002.png", "out.iter000004.png", "out.png"]
    two = dip.denoise(files.read("in.png").pixels, iters=2, network=NET, precision="float32")
    np.testing.assert_array_equal(files.read("out.iter000002.png").pixels, two)
    Path("out.png").unlink()
    assert dip_command(*words) == 2  # the pictures of the earlier run are kept, too
    assert dip_command(*words, "--force") == 0


def test_resumed_fit_gives_the_same_picture(capsys):
    make("in.png")
    assert dip_command("denoise", "in.png", "-o", "whole.png", *SMALL, "--iters", 5) == 0
    save = ("--checkpoint", "fit.ckpt", "--checkpoint-every", 2)
    assert dip_command("denoise", "in.png", "-o", "part.png", *SMALL, "--iters", 3, *save) == 0
    resume = (*save, "--resume", "fit.ckpt", "--json", "r.json")
    capsys.readouterr()
    assert dip_command("denoise", "in.png", "-o", "rest.png", *SMALL, "--iters", 5, *resume) == 0
    assert "preset paper, 5 iterations, 3 of which are done, " in capsys.readouterr().out
    assert Path("rest.png").read_bytes() == Path("whole.png").read_bytes() != Path("part.png").read_bytes()
    report = json.loads(Path("r.json").read_text())
    assert report["history"]["loss"]["iteration"] == [1, 2, 3, 4, 5]
    # nothing is left to do: the picture is written all the same
    assert dip_command("denoise", "in.png", "-o", "again.png", *SMALL, "--iters", 5, "--resume", "fit.ckpt") == 0
    assert Path("again.png").read_bytes() == Path("whole.png").read_bytes()


def test_data_range_is_that_of_the_file():
    pixels = (draw((20, 24), "uint16") // 16).astype(np.uint16)  # 12 bits
    files.write("in.png", pixels)
    assert dip_command("denoise", "in.png", "-o", "out.png", "--data-range", 4095, *QUICK) == 0
    expected = dip.denoise(pixels, iters=3, network=NET, precision="float32", data_range=4095)
    np.testing.assert_array_equal(files.read("out.png").pixels, expected)


# ---------------------------------------------------------------------- mistakes


MISTAKES = [
    ("no command", [], "which command?"),
    ("command", ["denois"], "unknown command 'denois'; did you mean 'denoise'?"),
    ("command in Python's words", ["super_resolve", "in.png", "-o", "o.png"], "did you mean 'super-resolve'?"),
    ("command in one word", ["superresolve", "in.png", "-o", "o.png"], "did you mean 'super-resolve'?"),
    ("option", ["denoise", "in.png", "-o", "o.png", "--iter", "3"], "did you mean '--iters'?"),
    ("option beside a missing one", ["super-resolve", "in.png", "-o", "o.png", "--factr", "2"], "mean '--factor'?"),
    ("word too many", ["denoise", "in.png", "in.png", "-o", "o.png"], "quote names with spaces"),
    ("no output", ["denoise", "in.png"], "-o/--output"),
    ("no mask", ["inpaint", "in.png", "-o", "o.png"], "--mask"),
    ("no factor", ["super-resolve", "in.png", "-o", "o.png"], "--factor"),
    ("no iterations", ["denoise", "in.png", "-o", "o.png", "--iters", "0"], "whole number from 1 up"),
    (
        "noise",
        ["super-resolve", "in.png", "-o", "o", "--factor", "2", "--noise", "poisson"],
        "of dip denoise and dip deblur and dip tr",
    ),
    ("half an iteration", ["denoise", "in.png", "-o", "o.png", "--iters", "2.5"], "whole number from 1 up"),
    ("seed", ["denoise", "in.png", "-o", "o.png", "--seed", "-1"], "whole number from 0 up"),
    ("flips", ["denoise", "in.png", "-o", "o.png", "--flips", "half"], "nor auto"),
    ("preset", ["denoise", "in.png", "-o", "o.png", "--preset", "papper"], "did you mean 'paper'?"),
    ("device", ["denoise", "in.png", "-o", "o.png", "--device", "gpu"], "allowed: auto, cpu, cuda"),
    ("precision", ["denoise", "in.png", "-o", "o.png", "--precision", "float16"], "allowed: auto, float32"),
    ("engine", ["denoise", "in.png", "-o", "o.png", "--engine", "graph"], "choose from"),
    ("lists", ["denoise", "in.png", "-o", "o.png", "--down", "8,8,8"], "one entry a scale"),
    ("no list", ["denoise", "in.png", "-o", "o.png", "--down", "8;8"], "not a list of channels"),
    ("channels", ["denoise", "in.png", "-o", "o.png", "--down", "0x5"], "down"),
    ("network", ["denoise", "in.png", "-o", "o.png", "--network", "u-net"], "did you mean 'unet'?"),
    (
        "code of a picture",
        ["denoise", "in.png", "-o", "o.png", "--preset", "fast", "--network", "deep-decoder"],
        "a DeepDecoder makes the image of a smaller code; take --preset paper, or",
    ),
    ("lr", ["denoise", "in.png", "-o", "o.png", "--lr", "nan"], "lr must be a finite number"),
    ("average", ["denoise", "in.png", "-o", "o.png", "--average", "1"], "--average 1"),
    ("range", ["denoise", "in.png", "-o", "o.png", "--data-range", "9,3"], "black below white"),
    ("range without width", ["denoise", "in.png", "-o", "o.png", "--data-range", "0"], "white, above 0"),
    ("no range", ["denoise", "in.png", "-o", "o.png", "--data-range", "white"], "not a range"),
    ("range with a minus", ["denoise", "in.png", "-o", "o.png", "--data-range", "-1,1"], "as in --data-range=-1,1"),
    ("range of 8 bits", ["denoise", "in.png", "-o", "o.png", "--data-range", "4095"], "does not fit"),
    ("kernel", ["super-resolve", "in.png", "-o", "o.png", "--factor", "2", "--kernel", "lanczos4"], "lanczos3"),
    ("patience", ["denoise", "in.png", "-o", "o.png", "--patience", "9"], "--patience means nothing"),
    ("sigma", ["denoise", "in.png", "-o", "o.png", "--sigma", "25"], "--sigma means nothing"),
    ("earliest", ["denoise", "in.png", "-o", "o.png", "--earliest", "25"], "--earliest means nothing"),
    (
        "of another network",
        ["denoise", "in.png", "-o", "o.png", "--channels", "32x5"],
        "--channels means nothing for the network 'encoder-decoder'; it has --down, --up, --skip",
    ),
    (
        "not of a U-Net",
        ["denoise", "in.png", "-o", "o.png", "--network", "unet", "--down", "32x5", "--skip", "4x5"],
        "--down, --skip means nothing for the network 'unet'; it has --channels",
    ),
    (
        "unknown network with a list",
        ["denoise", "in.png", "-o", "o.png", "--network", "u-net", "--down", "8x5"],
        "unknown network 'u-net'",
    ),
    (
        "skip of a preset",
        ["denoise", "in.png", "-o", "o.png", "--preset", "deep-decoder", "--skip", "4x5"],
        "network 'deep-decoder'; it has --channels",
    ),
    ("no sigma", ["denoise", "in.png", "-o", "o.png", "--stop", "discrepancy"], "add --sigma 25"),
    ("no input", ["denoise", "none.png", "-o", "o.png"], "none.png does not exist"),
    ("output exists", ["denoise", "in.png", "-o", "old.png"], "old.png exists"),
    ("extension", ["denoise", "in.png", "-o", "o.gif"], "allowed: .jpeg, .jpg, .png"),
    ("an address", ["denoise", "https://example.com/a.png", "-o", "o.png"], "is an address; nothing is fetched"),
    ("no folder", ["denoise", "in.png", "-o", "old.png/o.png"], "is not a folder"),
    ("depth", ["denoise", "deep.png", "-o", "o.jpg"], "JPEG has 8 bits"),
    ("mask", ["inpaint", "in.png", "--mask", "none.png", "-o", "o.png"], "none.png does not exist"),
    ("size of the mask", ["inpaint", "in.png", "--mask", "old.png", "-o", "o.png"], "needs 20 x 24"),
    ("black mask", ["inpaint", "in.png", "--mask", "black.png", "-o", "o.png"], "black.png marks no pixel as known"),
    (
        "white mask turned round",
        ["denoise", "in.png", "--mask", "white.png", "--invert-mask", "-o", "o.png"],
        "white.png marks no pixel as known: it is white everywhere, and --invert-mask makes that missing",
    ),
    ("no JPEG", ["dejpeg", "in.png", "-o", "o.png"], "give the JPEG itself as IN, or say of which quality it was"),
    ("white mask", ["inpaint", "in.png", "--mask", "white.png", "-o", "o.png"], "make those that are missing black"),
    (
        "black mask turned round",
        ["inpaint", "in.png", "--mask", "black.png", "--invert-mask", "-o", "o.png"],
        "marks every pixel as known, so that there is nothing to do; make those that are missing white",
    ),
    ("mask with values below 0", ["inpaint", "in.png", "--mask", "below.tif", "-o", "o.png"], "from -0.5 to 0.5"),
    ("mask with values above 1", ["inpaint", "in.png", "--mask", "above.tif", "-o", "o.png"], "allowed: [0, 1]"),
    ("mask of several pages", ["inpaint", "in.png", "--mask", "pages.tif", "-o", "o.png"], "a mask has one, for all"),
    ("size of the reference", ["denoise", "in.png", "-o", "o.png", "--reference", "old.png"], "same size"),
    ("report exists", ["denoise", "in.png", "-o", "o.png", "--json", "old.png"], "old.png exists"),
    ("report is the picture", ["denoise", "in.png", "-o", "o.png", "--json", "o.png"], "a name of its own"),
    ("checkpoint exists", ["denoise", "in.png", "-o", "o.png", "--checkpoint", "old.png"], "--resume old.png"),
    ("folder of the checkpoint", ["denoise", "in.png", "-o", "o.png", "--checkpoint", "n/c"], "create it first"),
    ("no checkpoint", ["denoise", "in.png", "-o", "o.png", "--checkpoint-every", "9"], "means nothing without"),
    ("nothing to resume", ["denoise", "in.png", "-o", "o.png", "--resume", "none"], "none does not exist"),
    ("no checkpoint to resume", ["denoise", "in.png", "-o", "o.png", "--resume", "old.png"], "not a readable"),
    ("checkpoint of a folder", ["denoise", "tree", "-o", "o", "--checkpoint", "c"], "--checkpoint is for one"),
    ("resumed folder", ["denoise", "tree", "-o", "o", "--resume", "in.png"], "--resume is for one"),
    ("folder without pictures", ["denoise", "empty", "-o", "o"], "holds no pictures"),
    ("folder onto itself", ["denoise", "tree", "-o", "tree/../tree"], "folder of the pictures themselves"),
    ("folder onto a file", ["denoise", "tree", "-o", "old.png"], "name a folder for the results"),
    ("folder onto a picture to come", ["denoise", "tree", "-o", "o.tif"], "name a folder for the results"),
    ("folder into a file", ["denoise", "tree", "-o", "old.png/o"], "is not a folder"),
    ("one reference for all", ["denoise", "tree", "-o", "o", "--reference", "in.png"], "a folder of references"),
    ("report is the input", ["denoise", "in.png", "-o", "o.png", "--json", "in.png", "--force"], "would be lost"),
    (
        "report is the mask",
        ["inpaint", "in.png", "--mask", "in.png", "-o", "o.png", "--json", "in.png", "--force"],
        "--json is the same file as IN (in.png), which would be lost",
    ),
    (
        "output is the reference",
        ["denoise", "in.png", "-o", "old.png", "--reference", "old.png", "--force"],
        "OUT is the same file as --reference (old.png), which would be lost",
    ),
    (
        "report in a folder is a picture",
        ["denoise", "tree", "-o", "o", "--json", "tree/a.png", "--force"],
        "is one of the pictures",
    ),
    ("no code", ["denoise", "in.png", "-o", "o.png", "--preset", "paper-flash"], "give --code-image FILE"),
    ("factor", ["super-resolve", "in.png", "-o", "o.png", "--factor", "0"], "whole number from 1 up"),
    ("folder of references for one", ["denoise", "in.png", "-o", "o.png", "--reference", "tree"], "is a folder"),
    ("foreign report", ["denoise", "tree", "-o", "o", "--json", "old.png"], "no report on a folder"),
    ("task", ["presets", "denoize"], "did you mean 'denoise'?"),
]


@pytest.mark.parametrize(("words", "message"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistake_is_one_line_and_status_2(words, message, here, capsys):
    make("in.png")
    make("old.png", (10, 10))
    make("deep.png", (10, 10), "uint16")
    files.write("black.png", np.zeros((20, 24), np.uint8))
    files.write("white.png", np.full((20, 24), 255, np.uint8))
    files.write("below.tif", np.linspace(-0.5, 0.5, 480, dtype=np.float32).reshape(20, 24))
    files.write("above.tif", np.linspace(0, 255, 480, dtype=np.float32).reshape(20, 24))
    tifffile.imwrite("pages.tif", np.zeros((2, 20, 24), np.uint8), photometric="minisblack")
    make("tree/a.png", (10, 10))
    Path("empty").mkdir()
    before = everything(here)
    try:
        status = dip_command(*words)
    except SystemExit as left:
        status = left.code
    output = capsys.readouterr()
    assert status == 2
    assert output.err.startswith("dip: error: ")
    assert output.err.count("\n") == 1
    assert message in output.err
    assert not output.out
    assert everything(here) == before


def test_existing_file_is_replaced_only_by_force():
    make("in.png")
    Path("out.png").write_bytes(b"precious")
    assert dip_command("denoise", "in.png", "-o", "out.png", *QUICK) == 2
    assert Path("out.png").read_bytes() == b"precious"
    assert dip_command("denoise", "in.png", "-o", "out.png", "--force", *QUICK) == 0
    assert files.read("out.png").pixels.shape == (20, 24, 3)


def test_damaged_picture_is_status_1(here, capsys):
    make("in.png")
    Path("broken.png").write_bytes(Path("in.png").read_bytes()[:300])
    assert dip_command("denoise", "broken.png", "-o", "out.png", *QUICK) == 1
    assert capsys.readouterr().err.startswith("dip: error: broken.png is damaged or cut short")
    assert not Path("out.png").exists()


def test_picture_that_cannot_be_fitted_is_status_1_and_in_the_report(capsys):
    pixels = draw((20, 24), "float32")
    pixels[3, 4] = np.nan
    files.write("in.tif", pixels)
    assert dip_command("denoise", "in.tif", "-o", "out.tif", "--json", "r.json", *QUICK) == 1
    assert "1 NaN or infinite values" in capsys.readouterr().err
    report = json.loads(Path("r.json").read_text())
    assert (report["status"], report["input"]) == ("failed", "in.tif")
    assert "1 NaN or infinite values" in report["error"]


@pytest.mark.parametrize("factor", [10**8, 10**20])
def test_factor_beyond_any_memory_is_one_line(factor, capsys):
    make("in.png")
    assert dip_command("super-resolve", "in.png", "-o", "out.png", "--factor", factor) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "GiB" in lines[0]


def test_picture_too_large_for_the_memory_is_not_even_decoded(monkeypatch, capsys):
    make("in.png")
    monkeypatch.setattr(devices, "free_memory", lambda device: 50_000_000)  # the paper's network alone takes more

    def read(path: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(files, "read", read)
    assert dip_command("denoise", "in.png", "-o", "out.png") == 1
    error = capsys.readouterr().err
    assert "are free" in error
    assert "--down 64x5" in error


def test_disk_that_is_full_leaves_the_old_file(monkeypatch, here, capsys):
    make("in.png")
    make("out.png", seed=5)
    before = everything(here)

    def write_bytes(path: object, data: bytes) -> None:
        raise OSError(28, "cannot be written: No space left on device", str(path))

    monkeypatch.setattr(files, "write_bytes", write_bytes)
    assert dip_command("denoise", "in.png", "-o", "out.png", "--force", *QUICK) == 1
    assert capsys.readouterr().err == "dip: error: out.png: cannot be written: No space left on device\n"
    assert everything(here) == before


def test_failed_picture_so_far_is_said_and_does_not_end_the_fit(monkeypatch, capsys):
    make("in.png")
    write = files.write

    def fail_beside(path: Path, *args: object, **options: object) -> Path:
        if ".iter" in str(path):
            raise OSError(28, "No space left on device", str(path))
        return write(path, *args, **options)

    monkeypatch.setattr(files, "write", fail_beside)
    assert dip_command("denoise", "in.png", "-o", "out.png", "--save-every", 2, *QUICK) == 0
    error = capsys.readouterr().err
    assert error.startswith("dip: warning: the picture of iteration 2 was not written")
    assert error.count("\n") == 1


def test_divergence_is_status_1_and_the_picture_so_far_is_saved_aside(monkeypatch, capsys):
    make("in.png")

    def run(self: Fit, iters: int) -> None:
        self.step()
        self.step()
        warnings.warn("the loss became nan;\nwent back", RuntimeWarning, stacklevel=2)
        raise DivergenceError("the loss became nan; take a lower learning rate (lr=...)")

    monkeypatch.setattr(Fit, "run", run)
    assert dip_command("denoise", "in.png", "-o", "out.png", *QUICK) == 1
    warning, error = capsys.readouterr().err.splitlines()
    assert warning == "dip: warning: the loss became nan; went back"
    expected = "take a lower learning rate (--lr ...); the picture so far is out.iter000002.png"
    assert error == f"dip: error: the loss became nan; {expected}"
    assert not Path("out.png").exists()
    assert files.read("out.iter000002.png").pixels.shape == (20, 24, 3)


def test_missing_package_is_named(monkeypatch, capsys):
    make("in.png")
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    assert dip_command("denoise", "in.png", "-o", "out.png", "--reference", "in.png", *QUICK) == 1
    assert capsys.readouterr().err == "dip: error: the package skimage is missing; pip install scikit-image\n"


def test_traceback_is_shown_on_request_only(capsys):
    assert dip_command("denoise", "none.png", "-o", "out.png", "--traceback") == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.splitlines()[-1].startswith("dip: error: none.png does not exist")


def test_quiet_is_quiet(capsys):
    make("in.png")
    make("tree/a.png")
    assert dip_command("denoise", "in.png", "-o", "out.png", "--quiet", *QUICK) == 0
    assert dip_command("denoise", "tree", "-o", "out", "--quiet", *QUICK) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ('precision="float32", or another seed', "--precision float32, or another seed"),
        ("checkpoint_every= means nothing", "--checkpoint-every means nothing"),
        ("(data_range=255, or divide)", "(--data-range 255, or divide)"),
        ('network={"down": [64] * 5, "up": [64] * 5}', "--down 64x5"),
        ('(network={"name": "unet", "channels": [16] * 5}),', "(--network unet --channels 16x5),"),
        ("out/seed=3/a.png exists", "out/seed=3/a.png exists"),
        ("runs/lr=0.01,width=4/metrics.json exists", "runs/lr=0.01,width=4/metrics.json exists"),
        ("lr=0.01,width=4/metrics.json exists", "lr=0.01,width=4/metrics.json exists"),
        ("seed=3.png exists, and 'seed=4.png' too", "seed=3.png exists, and 'seed=4.png' too"),
        ("go on with resume=True (--resume), or force=True (--force)", "go on with --resume, or --force"),
        ("checkpoint='fit.safetensors' exists", "--checkpoint fit.safetensors exists"),
        ("(lr=1e-3), lr=0.5.", "(--lr 1e-3), --lr 0.5."),
        ('code: "Uniform(channels=8, seed=2)" (seed=1)', 'code: "Uniform(channels=8, seed=2)" (--seed 1)'),
        (OSError(28, "No space left", "a.png"), "a.png: No space left"),
        (KeyError(), "KeyError"),
    ],
)
def test_messages_are_in_the_words_of_the_command_line(message, line):
    assert one_line(message) == line


# ---------------------------------------------------------------------- a folder


def make_tree() -> None:
    make("in/b/c/deep.png", (9, 11), "uint16")
    make("in/b/photo.jpg", (16, 12, 3))
    make("in/a.tif", (10, 8), "float32")
    Image.fromarray(draw((12, 12, 3))).save("in/b/old.bmp")
    Path("in/b/broken.png").write_bytes(Path("in/b/photo.jpg").read_bytes()[:200])
    Path("in/.hidden.png").write_bytes(b"")
    Path("in/notes.txt").write_text("no picture")


def test_folder_keeps_its_tree_and_goes_on_after_a_failure(capsys):
    make_tree()
    assert dip_command("denoise", "in", "-o", "out", "--json", "r.json", *QUICK) == 1
    output = capsys.readouterr()
    assert sorted(everything(Path("out"))) == ["a.tif", "b/c/deep.png", "b/old.png", "b/photo.jpg"]
    assert files.read("out/b/c/deep.png").pixels.dtype == np.uint16
    expected = dip.denoise(files.read("in/a.tif").pixels, iters=3, network=NET, precision="float32")
    np.testing.assert_array_equal(files.read("out/a.tif").pixels, expected)
    assert output.out.splitlines()[-1] == "4 done, 1 failed"
    assert output.out.splitlines()[0].endswith("are read: 1 .txt")
    assert output.err.startswith("dip: error: [2/5] b/broken.png: in/b/broken.png has the extension of PNG")
    assert output.err.count("\n") == 1
    reports = json.loads(Path("r.json").read_text())
    assert [report["status"] for report in reports] == ["done", "failed", "done", "done", "done"]
    assert "extension of PNG" in reports[1]["error"]
    assert [report["input"] for report in reports][3:] == ["in/b/old.bmp", "in/b/photo.jpg"]


def test_pictures_so_far_of_a_folder_replace_nothing(capsys):
    make("in/a.png")
    make("in/a.iter000002.png", seed=1)
    make("in/b.png")
    Path("out").mkdir()
    Path("out/b.iter000001.png").write_bytes(b"kept")
    words = ("denoise", "in", "-o", "out", *SMALL, "--iters", 2, "--save-every", 1)
    assert dip_command(*words) == 1
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "a.iter000001.png", "a.iter000002.png", "a.png", "b.iter000001.png",
    ]  # fmt: skip
    assert Path("out/b.iter000001.png").read_bytes() == b"kept"
    errors = capsys.readouterr().err
    assert "a.iter000002.png would be replaced by a picture that --save-every writes of a.png" in errors
    assert "b.iter000001.png exists" in errors
    assert dip_command("denoise", "in", "-o", "all", *QUICK) == 0
    assert sorted(path.name for path in Path("all").iterdir()) == ["a.iter000002.png", "a.png", "b.png"]


def test_folder_that_cannot_be_read_does_not_stop_the_rest(monkeypatch, capsys):
    make("in/a.png")
    make("in/secret/b.png")
    scandir = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert dip_command("denoise", "in", "-o", "out", *QUICK) == 1
    assert Path("out/a.png").exists()
    assert "secret: Permission denied" in capsys.readouterr().err


def test_folder_goes_on_where_it_ended(capsys):
    make_tree()
    Path("in/b/broken.png").unlink()
    words = ("denoise", "in", "-o", "out", "--json", "r.json", *QUICK)
    assert dip_command(*words) == 0
    first, reports = everything(Path("out")), json.loads(Path("r.json").read_text())
    Path("out/b/photo.jpg").unlink()
    Path("out/a.tif").write_bytes(b"kept")
    capsys.readouterr()
    assert dip_command(*words) == 0
    assert everything(Path("out")) == {**first, "a.tif": b"kept"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "[1/4] out/a.tif exists and is kept; --force replaces it"
    assert lines[-1] == "1 done, 3 kept"
    again = json.loads(Path("r.json").read_text())
    assert [report["status"] for report in again] == ["done"] * 4  # what was kept has its report from the first time
    assert again[:3] == reports[:3]
    assert dip_command(*words, "--force") == 0
    assert everything(Path("out")) == first


def test_report_on_a_folder_keeps_what_it_knew_when_it_is_interrupted(pressed):
    make("in/a.png")
    make("in/b.png")
    words = ("denoise", "in", "-o", "out", "--json", "r.json", *QUICK)
    assert dip_command(*words) == 0
    last = json.loads(Path("r.json").read_text())[1]
    Path("out/a.png").unlink()
    pressed(2)
    assert dip_command(*words) == 130
    first, second = json.loads(Path("r.json").read_text())
    assert first["status"] == "interrupted"
    assert second == last


def test_report_that_cannot_be_written_is_status_1_and_the_pictures_are(monkeypatch, capsys):
    make("in/a.png")
    make("in/b.png")
    write_bytes = files.write_bytes

    def fail_for_reports(path: Path, data: bytes) -> Path:
        if path.suffix == ".json":
            raise OSError(28, "cannot be written: No space left on device", str(path))
        return write_bytes(path, data)

    monkeypatch.setattr(files, "write_bytes", fail_for_reports)
    assert dip_command("denoise", "in", "-o", "out", "--json", "r.json", *QUICK) == 1
    assert dip_command("denoise", "in/a.png", "-o", "a.png", "--json", "r.json", *QUICK) == 1
    assert capsys.readouterr().err == "dip: error: r.json: cannot be written: No space left on device\n" * 3
    assert sorted(everything(Path("out"))) == ["a.png", "b.png"]
    assert Path("a.png").exists()


def test_other_trees_inside_a_folder_are_not_its_pictures(capsys):
    make("in/a.png")
    make("in/clean/a.png", seed=1)
    words = ("denoise", "in", "-o", "in/out", "--reference", "in/clean", "--json", "in/r.json", *QUICK)
    assert dip_command(*words) == 0
    Path("in/out/notes.txt").write_text("of another tree")
    assert dip_command(*words) == 0
    assert sorted(everything(Path("in/out"))) == ["a.png", "notes.txt"]
    (report,) = json.loads(Path("in/r.json").read_text())
    assert report["figures"]["psnr"] > 0
    said = capsys.readouterr()
    assert "passed over" not in said.out
    assert said.err.count(f"{Path('in/out')} is in in: this command passes its results over") == 2


def test_result_may_go_to_the_folder_above():
    make("pictures/raw/a.png")
    assert dip_command("denoise", "pictures/raw", "-o", "pictures", *QUICK) == 0
    assert sorted(everything(Path("pictures"))) == ["a.png", "raw/a.png"]


def test_pictures_that_differ_in_format_only_do_not_overwrite_each_other():
    make("in/a.png")
    Image.fromarray(draw((12, 12, 3))).save("in/a.bmp")
    Image.fromarray(draw((14, 14, 3))).save("in/a.webp", lossless=True)
    assert dip_command("denoise", "in", "-o", "out", *QUICK) == 0
    sizes = {path.name: files.read(path).pixels.shape[:2] for path in Path("out").iterdir()}
    assert sizes == {"a.png": (20, 24), "a.bmp.png": (12, 12), "a.webp.png": (14, 14)}


def test_masks_of_a_folder(capsys):
    for name in ("a.png", "b/c.jpg", "b/d.png"):
        make(f"in/{name}", (10, 12, 3))
    known = np.full((10, 12), 255, np.uint8)
    known[3:6, 3:6] = 0
    files.write("mask.png", known)
    assert dip_command("inpaint", "in", "--mask", "mask.png", "-o", "one", "--json", "r.json", *QUICK) == 0
    assert len(everything(Path("one"))) == 3
    assert capsys.readouterr().out.count(", 7.5% missing") == 3
    assert [one["settings"]["missing"] for one in json.loads(Path("r.json").read_text())] == [9 / 120] * 3
    files.write("masks/a.png", known)
    files.write("masks/b/c.png", known)  # the mask of c.jpg is lossless
    files.write("masks/b/d.png", known[:5])
    capsys.readouterr()
    assert dip_command("inpaint", "in", "--mask", "masks", "-o", "many", *QUICK) == 1
    assert sorted(everything(Path("many"))) == ["a.png", "b/c.jpg"]
    assert "b/d.png: masks/b/d.png has 5 x 12 pixels" in capsys.readouterr().err
    assert Path("many/a.png").read_bytes() == Path("one/a.png").read_bytes()
    Path("masks/a.png").unlink()
    assert dip_command("inpaint", "in", "--mask", "masks", "-o", "other", *QUICK) == 1
    assert "[1/3] a.png: masks/a.png does not exist" in capsys.readouterr().err
    assert sorted(everything(Path("other"))) == ["b/c.jpg"]


def test_unforeseen_error_is_named_and_does_not_stop_the_rest(monkeypatch, capsys):
    make("in/a.png", (10, 12, 3))
    make("in/b.png")
    run = Fit.run

    def fail_once(self: Fit, iters: int) -> Fit:
        if self.task.shape[1] == 10:
            raise ZeroDivisionError("by zero")
        return run(self, iters)

    monkeypatch.setattr(Fit, "run", fail_once)
    assert dip_command("denoise", "in", "-o", "out", *QUICK) == 1
    assert capsys.readouterr().err == "dip: error: [1/2] a.png: ZeroDivisionError: by zero\n"
    assert list(everything(Path("out"))) == ["b.png"]


# ---------------------------------------------------------------------- Ctrl-C


@pytest.fixture
def pressed(monkeypatch: pytest.MonkeyPatch):
    """A function that lets Ctrl-C be pressed, once or more, in an iteration of every fit."""

    def press(iteration: int, times: int = 1) -> None:
        iterate = Fit._iterate

        def interrupted(self: Fit) -> None:
            iterate(self)
            if self.iteration == iteration:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(Fit, "_iterate", interrupted)

    return press


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_fit_writes_the_picture_so_far(times, pressed, capsys):
    make("in.png")
    pressed(2, times)
    assert dip_command("denoise", "in.png", "-o", "out.png", "--json", "r.json", *QUICK) == 130
    report = json.loads(Path("r.json").read_text())
    assert (report["status"], report["stop_reason"], report["iterations"]) == ("interrupted", "interrupted", 2)
    assert files.read("out.png").pixels.shape == (20, 24, 3)
    assert "2 iterations in 0 s, stopped: interrupted" in capsys.readouterr().out


def test_interrupted_fit_with_a_checkpoint_says_how_to_go_on(pressed, monkeypatch, here, capsys):
    make("in.png")
    pressed(2)
    words = ("denoise", "in.png", "-o", "out.png", *QUICK)
    assert dip_command(*words, "--checkpoint", "c.ckpt") == 130
    assert capsys.readouterr().out.splitlines()[-1] == "to go on, repeat the command with --resume c.ckpt --force"
    monkeypatch.undo()
    monkeypatch.chdir(here)
    before = Path("c.ckpt").read_bytes()
    with pytest.MonkeyPatch.context() as killed:  # nothing is cleared away, as after SIGKILL
        killed.setattr(os, "replace", lambda *names: None)
        killed.setattr(Path, "unlink", lambda self, missing_ok: None)
        files.write_bytes("c.ckpt", b"half a checkpoint")
    assert [name for name in everything(here) if name.startswith(".dip-")]
    assert dip_command(*words, "--resume", "c.ckpt", "--force") == 0
    assert not [name for name in everything(here) if name.startswith(".dip-")]
    assert Path("c.ckpt").read_bytes() != before  # the file that is resumed is kept up to date
    assert dip_command(*words[:-2], "--iters", 2, "--resume", "c.ckpt", "--force") == 0
    assert "c.ckpt has 3 iterations already, more than --iters 2" in capsys.readouterr().err
    expected = dip.denoise(files.read("in.png").pixels, iters=3, network=NET, precision="float32")
    np.testing.assert_array_equal(files.read("out.png").pixels, expected)


def test_interrupted_folder_does_not_take_the_picture_for_done(pressed, monkeypatch, here, capsys):
    make("in/a.png")
    make("in/b.png")
    words = ("denoise", "in", "-o", "out", "--json", "r.json", *QUICK)
    pressed(2)
    assert dip_command(*words) == 130
    assert list(everything(Path("out"))) == ["a.iter000002.png"]
    assert capsys.readouterr().out.splitlines()[-1] == "1 interrupted, 1 not begun"
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert dip_command(*words) == 0
    assert sorted(everything(Path("out"))) == ["a.iter000002.png", "a.png", "b.png"]
    assert [report["status"] for report in json.loads(Path("r.json").read_text())] == ["done", "done"]


def test_interrupt_before_there_is_a_picture(monkeypatch, here, capsys):
    make("in.png")
    before = everything(here)

    def draw_code(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dip.codes.Uniform, "draw", draw_code)
    assert dip_command("denoise", "in.png", "-o", "out.png", *QUICK) == 130
    assert capsys.readouterr().err == "dip: error: interrupted; there was no picture yet\n"
    assert everything(here) == before


def test_interrupt_while_the_result_is_written_comes_too_late(monkeypatch):
    make("in.png")
    write = files.write

    def interrupted(*args: object, **options: object) -> Path:
        signal.raise_signal(signal.SIGINT)
        return write(*args, **options)

    monkeypatch.setattr(files, "write", interrupted)
    assert dip_command("denoise", "in.png", "-o", "out.png", "--json", "r.json", *QUICK) == 130
    assert json.loads(Path("r.json").read_text())["status"] == "done"
    assert files.read("out.png").pixels.shape == (20, 24, 3)


# ---------------------------------------------------------------------- the rest, and processes of their own


def test_presets_are_listed(capsys):
    assert dip_command("presets") == 0
    found = capsys.readouterr().out
    for task in ("denoise", "inpaint", "super_resolve", "deblur", "dejpeg", "reconstruct"):
        assert dip.presets.listing(task) in found
    assert dip_command("presets", "super-resolve") == 0
    assert capsys.readouterr().out == f"dip super-resolve\n{dip.presets.listing('super_resolve')}\n"


def test_info_tells_versions_devices_and_threads(capsys):
    assert dip_command("info") == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    here = devices.environment()
    assert (lines["dip"], lines["torch"]) == (dip.__version__, here["torch"])
    assert lines["threads"].startswith(str(here["threads"]))
    assert "cpu" in lines["device"]
    assert "GiB" in lines["device"]


def test_info_tells_the_memory_by_which_a_fit_is_refused(capsys, monkeypatch):
    assert dip_command("info", "--size", "24x40") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "24 x 40" in line]
    assert [line.partition(",")[0] for line in lines] == dip.presets.names()
    device = devices.resolve()
    for name in ("paper", "fast"):
        needed = settings.memory(dip.presets.get("denoise", name), (3, 24, 40), device)
        (line,) = (line for line in lines if line.startswith(f"denoise/{name},"))
        assert f" {needed / 2**30:.2f} GiB" in line
        noisy = np.full((24, 40, 3), 0.5)
        monkeypatch.setattr(devices, "free_memory", lambda device, room=needed: room)
        dip.Fit(dip.Denoise(noisy), preset=name)
        monkeypatch.setattr(devices, "free_memory", lambda device, room=needed: room - 1)
        with pytest.raises(MemoryError, match="24 x 40"):
            dip.Fit(dip.Denoise(noisy), preset=name)


def test_info_tells_of_tiles_where_they_change_something(capsys):
    assert dip_command("info", "--size", "1024x544") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "1024 x 544" in line]
    with_tiles = {
        name: any(line.startswith(f"{name},") and "--tile 512" in line for line in lines)
        for name in dip.presets.names()
    }
    assert with_tiles["denoise/fast"]
    assert with_tiles["inpaint/paper"]
    assert not with_tiles["inpaint/fast"]  # has one of 512 anyway
    assert not with_tiles["reconstruct/paper"]


@pytest.mark.parametrize("size", ["512", "512x", "0x3", "axb", "3x4x5"])
def test_info_says_what_a_size_is(size, capsys):
    with pytest.raises(SystemExit) as left:
        dip_command("info", "--size", size)
    assert left.value.code == 2
    assert f"'{size}' is not a size in pixels, height x width, such as 512x768" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["denoise", "inpaint", "super-resolve", "presets", "info", "demo"])
def test_help_of_every_command(command, capsys):
    with pytest.raises(SystemExit) as left:
        dip_command(command, "--help")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: dip {command}")
    if command not in ("presets", "info"):
        assert f"  dip {command}" in text  # an example
    if command == "inpaint":
        assert "WHITE (any value but 0) = the pixel is KNOWN" in text


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        dip_command("--version")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"dip {dip.__version__}\n"


def command_line(*words: object) -> list[str]:
    return [sys.executable, "-m", "dip", *map(str, words)]


@pytest.fixture
def environment() -> dict[str, str]:
    root = str(Path(cli.__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def test_process_restores_a_picture(environment):
    make("in.png")
    words = command_line("denoise", "in.png", "-o", "out.png", *QUICK)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    expected = dip.denoise(files.read("in.png").pixels, iters=3, network=NET, precision="float32")
    np.testing.assert_array_equal(files.read("out.png").pixels, expected)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_interrupted_process_writes_picture_report_and_checkpoint(environment):
    make("in.png")
    files_wanted = ("--save-every", 2, "--json", "r.json", "--checkpoint", "fit.ckpt")
    words = command_line("denoise", "in.png", "-o", "out.png", *SMALL, "--iters", 1_000_000, *files_wanted)
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not Path("out.iter000004.png").exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "")
    assert "stopped: interrupted" in out
    report = json.loads(Path("r.json").read_text())
    assert report["status"] == "interrupted"
    assert files.read("out.png").pixels.shape == (20, 24, 3)
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]
    resume = ("--resume", "fit.ckpt", "--iters", report["iterations"])
    assert dip_command("denoise", "in.png", "-o", "same.png", *SMALL, *resume) == 0
    assert Path("same.png").read_bytes() == Path("out.png").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes differ there")
def test_reader_that_has_seen_enough_is_no_error(environment):
    process = subprocess.Popen(
        command_line("presets"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert error == ""


@pytest.mark.parametrize("words", [("benchmark", "--list"), ("--help",)])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    command = [sys.executable, "-m", "dip", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.close()
        assert running.stderr.read() == ""
