"""Protocols, methods, jobs, tables, the page and the command `dip benchmark`."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import skimage.color
import skimage.metrics
import torch
from PIL import Image

import dip
from dip import batch, benchmark, cli, comparison, datasets, place_arguments
from dip.benchmark import deep, others, tables
from dip.benchmark.runs import png
from dip.benchmark.tasks import bicubic
from dip.benchmark.zsn2n import pair

if sys.platform != "win32":
    from browser import Page, chromium

NO_BROWSER = sys.platform == "win32" or chromium() is None
PHOTOGRAPHS = {entry.name: entry for entry in datasets.pictures("photographs")}
ASTRONAUT, CAMERA = PHOTOGRAPHS["astronaut"], PHOTOGRAPHS["camera"]


def psnr(one, other):
    return skimage.metrics.peak_signal_noise_ratio(np.float64(other), np.float64(one), data_range=1)


# ---------------------------------------------------------------------- protocols


@pytest.mark.parametrize("entry", [ASTRONAUT, CAMERA], ids=["colour", "gray"])
@pytest.mark.parametrize("clip", [True, False])
def test_noise_is_numpys_and_figures_are_scikit_images(entry, clip):
    protocol = benchmark.Protocol("denoise", {"sigma": 50, "clip": clip}, noise_seed=3, size=40)
    case = protocol.case(entry.read())
    clean = entry.read()[108:148, 108:148] / 255
    planes = clean[None] if clean.ndim == 2 else clean.transpose(2, 0, 1)
    noisy = planes + 50 / 255 * np.random.default_rng(3).standard_normal(planes.shape)
    noisy = np.clip(noisy, 0, 1) if clip else noisy
    np.testing.assert_allclose(case.y, noisy[0] if clean.ndim == 2 else noisy.transpose(1, 2, 0), atol=1e-6)
    assert (case.y.dtype, case.sigma) == (np.float32, 50 / 255)
    assert protocol.figures_before(case)["psnr_before"] == pytest.approx(psnr(case.y, clean), abs=1e-3)
    restored = clean + 0.1
    expected = psnr(np.clip(restored, 0, 1), clean)
    assert protocol.figures(restored, case)["psnr"] == pytest.approx(expected, abs=1e-3)


def test_the_hash_is_of_the_pixels_that_a_method_gets():
    pixels = ASTRONAUT.read()

    def hashed(**options):
        return benchmark.Protocol("denoise", **{"size": 32, **options}).case(pixels).hash

    same = hashed()
    assert (
        same == hashed() == hashed(metric="luma") == batch.digest(benchmark.Protocol("denoise", size=32).case(pixels).y)
    )
    others = [{"noise_seed": 1}, {"size": 33}, {"parameters": {"clip": False}}, {"parameters": {"sigma": 25.1}}]
    assert len({same, *(hashed(**one) for one in others)}) == 5


def test_inpainting_counts_the_missing_pixels_too():
    protocol = benchmark.Protocol("inpaint", {"missing": 0.9}, size=64)
    case = protocol.case(ASTRONAUT.read())
    assert case.mask.mean() == pytest.approx(0.1, abs=0.02)
    assert not case.y[~case.mask].any()
    np.testing.assert_array_equal(case.y[case.mask], case.clean[case.mask])
    restored = np.where(case.mask[..., None], case.clean, case.clean + 0.1).clip(0, 1)
    figures = protocol.figures(restored, case)
    wrong = restored[~case.mask] - case.clean[~case.mask]
    assert figures["psnr_missing"] == pytest.approx(-10 * np.log10(np.mean(wrong**2)), abs=1e-4)
    assert figures["psnr"] == pytest.approx(psnr(restored, case.clean), abs=1e-4)
    assert protocol.figures_before(case) == {}


def test_masks_of_the_set_and_text():
    own = np.ones((64, 64), bool)
    own[10:20] = False
    pixels = ASTRONAUT.read()[:64, :64]
    np.testing.assert_array_equal(benchmark.Protocol("inpaint", {"missing": "mask"}).case(pixels, own).mask, own)
    text = benchmark.Protocol("inpaint", {"missing": "text"}).case(pixels).mask
    np.testing.assert_array_equal(text, dip.degradations.text_mask((64, 64)))
    with pytest.raises(ValueError, match="needs a picture set that has masks"):
        benchmark.Protocol("inpaint", {"missing": "mask"}).case(pixels)


def test_super_resolution_is_the_papers():
    protocol = benchmark.Protocol("super-resolve")
    pixels = np.concatenate([ASTRONAUT.read()] * 2)[:, 3:]  # 512 x 253
    case = protocol.case(pixels)
    clean = pixels[:, 14 : 14 + 224]  # the middle multiple of 32
    np.testing.assert_allclose(case.clean * 255, clean, atol=1e-3)
    small = Image.fromarray(np.ascontiguousarray(clean)).resize((56, 128), Image.Resampling.LANCZOS)
    np.testing.assert_allclose(case.y * 255, np.asarray(small), atol=1e-3)
    restored = bicubic(case.y, 4)
    rounded = np.asarray(small.resize((224, 512), Image.Resampling.BICUBIC))  # and clipped between rows and columns
    assert np.mean(np.abs(255 * restored - rounded) < 1.5) > 0.99
    y, wanted = (skimage.color.rgb2ycbcr(one)[4:-4, 4:-4, 0] for one in (restored.clip(0, 1), clean / 255))
    expected = -10 * np.log10(np.mean((y - wanted) ** 2) / 255**2)
    figures = protocol.figures(restored, case)
    assert figures["psnr"] == pytest.approx(expected, abs=1e-3)
    expected = skimage.metrics.structural_similarity(y / 255, wanted / 255, data_range=1)
    assert figures["ssim"] == pytest.approx(expected, abs=1e-4)
    other = benchmark.Protocol("super-resolve", {"kernel": "Pillow's bicubic in 8 bits"}).case(pixels)
    small = Image.fromarray(np.ascontiguousarray(clean)).resize((56, 128), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(other.y * 255, np.asarray(small), atol=1e-3)
    kernel = benchmark.Protocol("super-resolve", {"kernel": "box", "factor": 2}).case(pixels)
    blocks = (clean / 255).reshape(256, 2, 112, 2, 3).mean((1, 3))
    np.testing.assert_allclose(kernel.y, blocks, atol=1e-5)


def test_blur_is_scipys():
    case = benchmark.Protocol("deblur", {"sigma": 0.0, "blur": 2.0}, size=48).case(CAMERA.read())
    expected = scipy.ndimage.gaussian_filter(np.float64(case.clean), 2.0, mode="mirror", truncate=4)
    np.testing.assert_allclose(case.y, expected, atol=1e-5)
    assert case.psf.sum() == pytest.approx(1)


def test_jpeg_is_pillows():
    case = benchmark.Protocol("dejpeg", {"quality": 20, "subsampling": "4:4:4"}, size=48).case(ASTRONAUT.read())
    pixels = np.rint(255 * case.clean).astype(np.uint8)
    Image.fromarray(pixels).save(packed := io.BytesIO(), "JPEG", quality=20, subsampling="4:4:4")
    np.testing.assert_allclose(case.y, np.asarray(Image.open(packed)) / 255, atol=1e-6)
    assert "quality=20, subsampling='4:4:4'" in repr(case.problem(case).jpeg)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("denoising", {}, "did you mean 'denoise'"),
        ("denoise", {"parameters": {"sigmaa": 5}}, "did you mean 'sigma'"),
        ("denoise", {"metric": "lab"}, "allowed: rgb, luma"),
        ("denoise", {"size": 0}, "size"),
    ],
)
def test_protocols_that_make_no_sense_are_refused(task, options, message):
    with pytest.raises(ValueError, match=message):
        benchmark.Protocol(task, **options)


@pytest.mark.parametrize(
    ("task", "parameters", "message"),
    [
        ("inpaint", {"missing": "words"}, "allowed: text, mask"),
        ("inpaint", {"missing": 1.0}, "missing=1 leaves no pixel"),
        ("inpaint", {"missing": -0.5}, "missing must be"),
        ("super-resolve", {"multiple": 30}, "multiple"),
        ("super-resolve", {"multiple": 512}, "smaller multiple"),
        ("deblur", {"blur": 20.0}, "reaches over 80"),
    ],
)
def test_degradations_that_cannot_be_are_refused(task, parameters, message):
    with pytest.raises(ValueError, match=message):
        benchmark.Protocol(task, parameters, size=64).case(CAMERA.read())


# ---------------------------------------------------------------------- methods

GAINS = [
    ("denoise", "nlm", 5),
    ("denoise", "tv", 4.5),
    ("denoise", "local-wiener", 3),
    ("denoise", "wavelet", 4),
    ("denoise", "bm3d", 6),
    ("inpaint", "biharmonic", 15),
    ("inpaint", "interpolation", 15),
    ("inpaint", "iterated-wiener", 15),
    ("super-resolve", "bicubic", 0),
    ("super-resolve", "back-projection", 0.3),
    ("deblur", "richardson-lucy", 1),
    ("deblur", "wiener", 0.5),
    ("dejpeg", "shifted", 0.3),
]


@pytest.mark.parametrize(("task", "name", "gain"), GAINS, ids=[one[1] for one in GAINS])
def test_classical_methods_are_better_than_what_they_are_given(task, name, gain):
    method = benchmark.find(name)
    for package in method.needs:
        pytest.importorskip(package)
    protocol = benchmark.Protocol(task, size=64)
    for entry in (ASTRONAUT, CAMERA):
        case = protocol.case(entry.read())
        before = case.y if case.before is None else case.before
        restored = method.function(case, **method.options)
        assert restored.shape == case.clean.shape
        assert protocol.figures(restored, case)["psnr"] >= protocol.figures(before, case)["psnr"] + gain - 1e-6


def test_without_a_level_of_noise_it_is_estimated():
    case = benchmark.Protocol("denoise", size=64).case(ASTRONAUT.read())
    blind = replace(case, sigma=None)
    told, found = (psnr(benchmark.find("nlm").function(one), case.clean) for one in (case, blind))
    assert found == pytest.approx(told, abs=0.7)


def test_pair_is_the_papers():
    y = torch.rand(1, 3, 7, 10, generator=torch.Generator().manual_seed(0))
    for made, kernel in zip(pair(y), ([[0, 0.5], [0.5, 0]], [[0.5, 0], [0, 0.5]]), strict=True):
        weight = torch.tensor(kernel)[None, None].repeat(3, 1, 1, 1)
        torch.testing.assert_close(made, torch.nn.functional.conv2d(y, weight, stride=2, groups=3))


@pytest.mark.parametrize("entry", [ASTRONAUT, CAMERA], ids=["colour", "gray"])
def test_zero_shot_noise2noise_denoises_and_keeps_to_its_seed(entry):
    case = replace(benchmark.Protocol("denoise", size=32).case(entry.read()), iters=100)
    method, before = benchmark.find("zsn2n"), torch.get_rng_state()
    once, again, other = (method.function(replace(case, seed=n), **method.options) for n in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert psnr(once, case.clean) > psnr(case.y, case.clean) + 2
    curve = case.log["curves"]["psnr"]
    assert curve["iteration"][-1] == 100
    channels = 1 if case.y.ndim == 2 else 3
    assert case.log["parameters"] == 48 * (9 * channels + 1) + 48 * (9 * 48 + 1) + channels * (48 + 1)


def small(case, **options):
    return deep.deep(replace(case, iters=3, device="cpu"), **options)


def test_deep_image_prior_is_dips_own():
    case = benchmark.Protocol("denoise", size=32).case(ASTRONAUT.read())
    expected = dip.denoise(case.y, preset="fast", iters=3, seed=0, device="cpu", progress=False)
    np.testing.assert_array_equal(small(case, preset="fast"), expected)
    second = dip.denoise(case.y, preset="fast", iters=3, seed=1, device="cpu", progress=False)
    np.testing.assert_allclose(small(case, preset="fast", runs=2), (expected + second) / 2, atol=1e-6)
    curve = case.log["curves"]["psnr, fit 1"]
    assert curve["iteration"] == [1, 2, 3]
    assert curve["value"][-1] == pytest.approx(psnr(expected, case.clean), abs=2e-3)
    assert [one["iterations"] for one in case.log["fits"]] == [3, 3]


@pytest.mark.parametrize("entry", [ASTRONAUT, CAMERA], ids=["colour", "gray"])
@pytest.mark.parametrize("task", ["inpaint", "super-resolve", "deblur", "dejpeg"])
def test_deep_image_prior_answers_every_task(task, entry):
    protocol = benchmark.Protocol(task, size=32)
    case = protocol.case(entry.read())
    assert protocol.figures(small(case, preset="paper"), case)["psnr"] > 3


def test_an_interrupted_fit_is_no_result(monkeypatch):
    def interrupted(self, iters):
        self.stop_reason = "interrupted"

    monkeypatch.setattr("dip.benchmark.deep.Fit.run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small(benchmark.Protocol("denoise", size=32).case(CAMERA.read()), preset="fast")


def test_every_preset_and_rule_can_be_named():
    assert {"fast", "paper", "paper-sigma50", "paper-half", "paper-x8"} <= set(benchmark.names())
    assert "paper-flash" not in benchmark.names()  # it needs a second picture
    for rule in ("windowed-variance", "moving-variance", "residual-fall", "discrepancy"):
        method = benchmark.find(f"paper+{rule}")
        assert (method.name, method.options["stop"]) == (f"paper+{rule}", rule)
        assert (method.told == "sigma") == (rule == "discrepancy")
    assert benchmark.find("fast+discrepancy+twice").options == {"preset": "fast", "stop": "discrepancy", "runs": 2}
    both = benchmark.find("paper-half+fast")
    assert (both.tasks, both.options) == (("inpaint",), {"preset": "paper-half", "beside": "fast"})
    for name in ("paper-half", "fast"):  # it is another method if either preset is changed
        assert benchmark.find(name).identity_for("inpaint") in both.identity_for("inpaint")
    rule = deep._rule("discrepancy", benchmark.Protocol("denoise", size=32).case(CAMERA.read()))
    assert rule.sigma == pytest.approx(25 / 255)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("papper", "did you mean 'paper'"),
        ("paper+twise", "did you mean 'twice'"),
        ("tv+twice", "tv is none"),
        ("tv+discrepancy", "tv is none"),
        ("tv+paper", "tv is none"),
        ("json:nothing", "no function 'nothing'"),
    ],
)
def test_methods_that_are_not_there_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        benchmark.find(name)


def test_a_missing_module_or_package_is_said(monkeypatch):
    with pytest.raises(ImportError, match="no module nowhere"):
        benchmark.find("nowhere:function")
    method = replace(benchmark.find("tv"), needs=("surely_not_there",))
    with pytest.raises(ImportError, match=re.escape("pip install 'deep-image-prior[compare]'")):
        method.check("denoise")
    with pytest.raises(ValueError, match="for super-resolve, not for denoise"):
        benchmark.find("bicubic").check("denoise")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A stand-in for the research code, with its calling convention."""
    models = tmp_path / "deep-image-prior" / "models"
    models.mkdir(parents=True)
    (models / "__init__.py").write_text("from .skip import *\n")
    (models / "skip.py").write_text(
        "import torch\n"
        "def skip(inputs, outputs, down, up, skips, upsample_mode, pad):\n"
        "    assert (inputs, down, up, skips) == (32, [128] * 5, [128] * 5, [4] * 5)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(inputs, outputs, 1), torch.nn.Sigmoid())\n"
    )
    sys.modules.pop("dip_reference_models", None)
    sys.modules.pop("dip_reference_models.skip", None)
    return models.parent


def test_the_original_code_is_run_from_its_checkout(checkout, tmp_path):
    case = replace(benchmark.Protocol("denoise", size=32).case(ASTRONAUT.read()), iters=2, device="cpu")
    method = benchmark.find("reference", checkout=str(checkout))
    before = torch.get_rng_state()
    once, again = (method.function(case, **method.options) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert torch.equal(torch.get_rng_state(), before)
    assert once.shape == case.clean.shape
    assert "models" not in sys.modules
    with pytest.raises(FileNotFoundError, match="give --reference FOLDER"):
        others.original_network(tmp_path, 3)


# ---------------------------------------------------------------------- jobs


def keys(*methods, entries=(ASTRONAUT,), seeds=(0,), iters=None, **options):
    protocol = benchmark.Protocol("denoise", **{"size": 32, **options})
    found = [benchmark.find(one) if isinstance(one, str) else one for one in methods]
    return [job.key for job in benchmark.plan(entries, protocol, found, seeds=seeds, iters=iters)]


def test_a_job_is_known_by_what_it_depends_on():
    (tv,) = keys("tv")
    assert keys("tv", seeds=[0, 1, 2]) == [tv]  # it draws no numbers
    assert keys("tv", iters=5) == [tv]
    assert keys("tv", entries=[Drawn("one")]) == keys("tv", entries=[Drawn("two")])  # the same pixels
    fast = keys("fast", seeds=[0, 1])
    assert len({tv, *fast}) == 3
    assert keys("fast") == fast[:1]
    changed = [
        keys("fast", iters=5),
        keys("fast", noise_seed=1),
        keys("fast", metric="luma"),
        keys("fast", border=2),
        keys("fast", entries=[CAMERA]),
        keys(benchmark.find("fast", runs=2)),
        keys(replace(benchmark.find("fast"), identity="other settings")),
    ]
    assert len({fast[0], *(one for (one,) in changed)}) == 8
    settings = repr(replace(dip.presets.get("denoise", "fast"), about=""))  # words are no settings
    assert keys(replace(benchmark.find("fast"), identity={"denoise": settings})) != fast[:1]  # before flips ended fits
    settings += ", which may end the fit"
    for further in ({}, {"super-resolve": "settings of another task"}):
        assert keys(replace(benchmark.find("fast"), identity={"denoise": settings, **further})) == fast[:1]


MODULE = """
import functools
import numpy as np
RATE = 0.9
OTHER = 1

def helped(x):
    return x * RATE

def m(case):
    return np.clip(helped(case.y), 0, 1)  # to white

part = functools.partial(m)
made = [lambda case: case.y][0]
"""
CHANGES = [
    ("a comment", "# to white", "# to 1", False),
    ("another thing in the module", "OTHER = 1", "OTHER = 2", False),
    ("the function", "0, 1)", "0, 0.99)", True),
    ("its helper", "x * RATE", "x + RATE", True),
    ("a constant of its helper", "RATE = 0.9", "RATE = 0.8", True),
]


@pytest.mark.parametrize(("old", "new", "changes"), [one[1:] for one in CHANGES], ids=[one[0] for one in CHANGES])
@pytest.mark.parametrize("name", ["m", "part"])
def test_a_changed_function_of_ones_own_is_another_job(name, old, new, changes, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for module, text in (("own_before", MODULE), ("own_after", MODULE.replace(old, new))):
        (tmp_path / f"{module}.py").write_text(text)
        sys.modules.pop(module, None)
        found.append(benchmark.find(f"{module}:{name}").code)
    assert (found[0] != found[1]) == changes
    assert len(found[0]) == 32


def test_what_has_no_statement_of_its_own_is_known_by_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_lambda.py").write_text(MODULE)
    one = benchmark.find("own_lambda:made").code
    (tmp_path / "own_lambda.py").write_text(MODULE.replace("OTHER = 1", "OTHER = 2"))
    assert len(one) == 32
    assert one != benchmark.find("own_lambda:made").code


def test_methods_of_the_package_are_known_without_their_source():
    assert not any(benchmark.find(name).code for name in ("tv", "fast", "reference", "zsn2n", "cnn5"))
    assert benchmark.Method("own", brighter, ("denoise",)).code
    assert benchmark.Method("own", brighter, ("denoise",), identity="1").identity_for("denoise") == "1"


def test_a_changed_function_has_a_row_of_its_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    expected = {}
    for text in (MODULE, MODULE.replace("RATE = 0.9", "RATE = 0.5")):
        (tmp_path / "own_changed.py").write_text(text)
        sys.modules.pop("own_changed", None)
        importlib.invalidate_caches()
        method = benchmark.find("own_changed:m")
        progress = benchmark.run([Drawn("one")], benchmark.Protocol("denoise"), [method], tmp_path / "out")
        assert (progress.done, progress.kept) == (1, 0)
        case = benchmark.Protocol("denoise").case(Drawn("one").read())
        expected[method.code] = psnr(method.function(case), case.clean)
    before, now = expected
    rows = {row.method: row.figures["psnr"] for row in tables.groups(tables.records(tmp_path / "out"))[0].rows()}
    assert rows["own_changed:m"] == pytest.approx(expected[now], abs=1e-3)
    assert rows[f"own_changed:m, code {before[:8]}"] == pytest.approx(expected[before], abs=1e-3)


def test_methods_with_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="tv is named twice"):
        benchmark.run([CAMERA], benchmark.Protocol("denoise", size=32), ["tv", "tv"], tmp_path)
    with pytest.raises(ValueError, match="no method is named"):
        benchmark.run([CAMERA], benchmark.Protocol("denoise", size=32), [], tmp_path)


@dataclass(frozen=True)
class Drawn:
    """A picture of a set of one's own."""

    name: str

    def read(self):
        return np.random.default_rng(len(self.name)).random((24, 20, 3)).astype(np.float32)

    def mask(self):
        return None


def brighter(case, *, by=0.1):
    return case.clean + by * (1 + case.seed)


def nothing(case):
    return case.clean


def broken(case):
    return np.full_like(case.clean, np.nan)


def turned(case):
    return case.clean[::2]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Two protocols, two pictures, four methods; one of them exact, and one failing."""
    folder = tmp_path_factory.mktemp("results")
    own = [
        benchmark.Method("brighter", brighter, ("denoise",), random=True),
        benchmark.Method("exact", nothing, ("denoise",), told="sigma"),
        benchmark.Method("a <b>|c</script>", broken, ("denoise",)),
        benchmark.Method("turned", turned, ("denoise",)),
    ]
    entries = [Drawn("one"), Drawn("three")]
    for sigma in (25.0, 50.0):
        protocol = benchmark.Protocol("denoise", {"sigma": sigma})
        benchmark.run(entries, protocol, own, folder, name="drawn", seeds=[0, 1], inputs=True)
    case = protocol.case(ASTRONAUT.read())
    fit = {"psnr": {"iteration": [1, 50, 100], "value": [12.0, 22.5, 28.0]}}
    fit["psnr_output"] = {"iteration": [1, 50, 100], "value": [12.0, 23.5, 27.0]}

    def curved(case):
        case.log.update(curves=fit)
        return case.clean * 0.9

    method = benchmark.Method("curved", curved, ("denoise",))
    benchmark.run([ASTRONAUT], replace(protocol, size=64), [method, "nlm", "tv"], folder, name="photographs")
    assert case.y.shape == (256, 256, 3)
    return folder


def test_records_say_what_they_are_figures_of(results):
    found = tables.records(results)
    assert len(found) == 2 * 2 * 5 + 3
    done = next(one for one in found if one["method"] == "brighter" and one["seed"] == 1)
    assert done["schema"] == "dip-benchmark-1"
    assert done["protocol"]["sigma"] == 25.0
    assert done["figures"]["psnr"] == pytest.approx(
        psnr(np.clip(Drawn("one").read() + 0.2, 0, 1), Drawn("one").read()), abs=1e-3
    )
    assert done["environment"]["torch"] == torch.__version__
    assert (done["status"], done["device"], done["set"], done["options"]) == ("done", "cpu", "drawn", {})
    exact = next(one for one in found if one["method"] == "exact")
    assert exact["figures"]["psnr"] is None  # infinite
    failed = {one["method"]: one["error"] for one in found if one["status"] == "failed"}
    assert failed["a <b>|c</script>"] == "ValueError: the method returned values that are not finite"
    assert failed["turned"].endswith("an array of shape (12, 20, 3), not (24, 20, 3)")


def test_inputs_are_written_to_the_last_bit(results):
    protocol = benchmark.Protocol("denoise")
    case = protocol.case(Drawn("one").read())
    np.testing.assert_array_equal(np.load(results / "inputs" / f"{case.hash[:32]}-y.npy"), case.y)
    assert case.hash in {one["input"] for one in tables.records(results)}


def test_pictures_are_what_the_method_made(results):
    record = next(one for one in tables.records(results) if one["method"] == "nlm")
    made = np.asarray(Image.open(results / record["picture"]))
    case = benchmark.Protocol("denoise", {"sigma": 50.0}, size=64).case(ASTRONAUT.read())
    expected = np.rint(255 * np.clip(benchmark.find("nlm").function(case), 0, 1))
    np.testing.assert_array_equal(made, expected)
    assert png(np.zeros((2, 3))).startswith(b"\x89PNG")


def test_means_are_over_pictures_of_means_over_seeds(results):
    group = tables.groups(tables.records(results))[0]
    row = next(one for one in group.rows() if one.method == "brighter")
    clean = [Drawn(name).read() for name in ("one", "three")]
    values = np.array([[psnr(np.clip(x + by, 0, 1), x) for by in (0.1, 0.2)] for x in clean])
    assert row.figures["psnr"] == pytest.approx(values.mean(), abs=1e-3)
    assert row.spread == pytest.approx(values.mean(axis=0).std(ddof=1), abs=1e-3)
    assert (row.pictures, row.failed) == (2, 0)
    assert next(one for one in group.rows() if one.method == "turned").failed == 2


@dataclass(frozen=True)
class Flat:
    """A picture of which nothing can be restored wrongly."""

    name: str = "flat"

    def read(self):
        return np.full((24, 20), 0.25)

    def mask(self):
        return None


def halves(case):
    """Exact where the picture is flat."""
    known = case.mask if case.clean.ndim == 2 else case.mask[..., None]
    return np.where(known, case.clean, case.clean.mean())


def dimmed(case):
    return case.clean * 0.9


def compared(folder, *functions, **options):
    methods = [benchmark.Method(one.__name__, one, ("inpaint",)) for one in functions]
    benchmark.run([Drawn("one"), Drawn("three"), Flat()], benchmark.Protocol("inpaint"), methods, folder, **options)
    (group,) = tables.groups(tables.records(folder))
    return group, {row.method: row for row in group.rows()}


def test_a_picture_that_one_method_restores_exactly_is_in_no_mean(tmp_path):
    group, rows = compared(tmp_path, halves, dimmed)
    assert group.left_out == {"flat": ["halves"]}
    clean = [np.float32(Drawn(name).read()) for name in ("one", "three")]
    assert rows["dimmed"].figures["psnr"] == pytest.approx(np.mean([psnr(0.9 * x, x) for x in clean]), abs=1e-3)
    assert math.isfinite(rows["halves"].figures["psnr"])
    assert [rows[name].pictures for name in ("halves", "dimmed")] == [2, 2]
    page = benchmark.report(tmp_path).read_text()
    text, lines = (tmp_path / "results.md").read_text(), (tmp_path / "results.csv").read_text().splitlines()
    assert "| 2 of 3 |" in text
    note = "Left out of the means of all methods, for a PSNR that is infinite: flat (restored exactly by halves)."
    assert note in text
    assert note in page
    assert "| flat | 32.04 | inf |" in text
    assert ",done,inf,1.0,inf," in next(line for line in lines if ",flat,24,20,halves," in line)


def test_a_method_that_restores_every_picture_exactly_leaves_none_out(tmp_path):
    group, rows = compared(tmp_path, dimmed, nothing)
    assert group.methods == ["nothing", "dimmed"]  # the best first
    assert (group.left_out, group.note()) == ({}, "")
    assert [row.pictures for row in rows.values()] == [3, 3]
    assert rows["nothing"].figures["psnr"] == math.inf
    assert benchmark.report(tmp_path).is_file()
    assert "| nothing |  | inf |" in (tmp_path / "results.md").read_text()


def test_runs_of_one_method_that_differ_are_not_averaged(tmp_path):
    protocol = benchmark.Protocol("denoise")
    method = benchmark.Method("brighter", brighter, ("denoise",), random=True)
    for iters, options in ((None, {}), (3, {}), (None, {"by": 0.2}), (None, {"by": 0.2})):
        one = replace(method, options=options)
        benchmark.run([Drawn("one")], protocol, [one], tmp_path, seeds=[0, 1], iters=iters)
    found = {row.method: row for row in tables.groups(tables.records(tmp_path))[0].rows()}
    assert set(found) == {"brighter", "brighter, 3 iterations", "brighter, by 0.2", "degraded"}
    clean = Drawn("one").read()
    mean = np.mean([psnr(np.clip(clean + by, 0, 1), clean) for by in (0.2, 0.4)])
    assert found["brighter, by 0.2"].figures["psnr"] == pytest.approx(mean, abs=1e-3)
    page = benchmark.report(tmp_path).read_text()
    assert '"brighter, 3 iterations"' in page


def test_tables_hold_every_job(results):
    page = benchmark.report(results, title="A & B <x>")
    with (results / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 23
    best = next(row for row in rows if row["method"] == "tv")
    record = next(one for one in tables.records(results) if one["method"] == "tv")
    assert float(best["psnr"]) == record["figures"]["psnr"]
    assert json.loads(best["protocol"]) == record["protocol"]
    text = (results / "results.md").read_text()
    assert f"| tv | sigma | {record['figures']['psnr']:.2f} |" in text
    assert "- turned on one: ValueError" in text
    assert r"a <b>\|c</script>" in text
    html = page.read_text()
    assert "<title>A &amp; B &lt;x&gt;</title>" in html
    assert html.count("</script>") == 2  # a name cannot end it
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", html)


def test_pictures_of_a_page_keep_to_their_limit(results, tmp_path):
    found = tables.groups(tables.records(results))
    sizes = {}
    for limit in (10**7, 20_000, 3000):
        data = re.search(r'id="data">(.*?)</script>', tables_page(found, results, limit))[1]
        parsed = json.loads(data)
        assert sum(map(len, parsed["pictures"])) <= limit
        sizes[limit] = parsed["side"]
        kinds = {uri[:15] for uri in parsed["pictures"]}
        assert kinds <= ({"data:image/png;"} if limit == 10**7 else {"data:image/jpeg"})
    assert sizes[20_000] == 64 or sizes[20_000] < 64
    assert sizes[3000] == 32


def tables_page(found, folder, limit):
    return importlib.import_module("dip.benchmark.report").as_html(found, folder, title="x", limit=limit)


@pytest.mark.parametrize("line", ['{"key": "a", "status": "done", "schema": "other"}', "hello", '{"a": 1}', "[1]"])
def test_results_of_something_else_are_not_added_to(line, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match="choose another"):
        benchmark.run([CAMERA], benchmark.Protocol("denoise", size=32), ["tv"], tmp_path)
    assert path.read_text() == line + "\n"
    with pytest.raises(ValueError, match="choose another"):
        benchmark.report(tmp_path)


def test_results_of_something_else_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="run a benchmark"):
        benchmark.report(tmp_path)
    with batch.Results(tmp_path) as other:
        other.add("a", {"status": "done", "schema": "other"})
    with pytest.raises(ValueError, match="'other'"):
        benchmark.report(tmp_path)


# ---------------------------------------------------------------------- the page


@pytest.mark.skipif(NO_BROWSER, reason="there is no Chromium")
def test_page_in_a_browser(results, tmp_path):
    page = Page(benchmark.report(results, title="Try"), tmp_path / "profile")
    try:
        options = "[...document.querySelectorAll('#group option')].map(o => o.textContent)"
        assert len(page.value(options)) == 3
        page.value("$('group').value = 2; $('group').dispatchEvent(new Event('change'))")
        assert "standard deviation 50" in page.value("$('words').textContent")

        # a heading sorts, and sorts the other way round when it is clicked again
        names = "[...document.querySelectorAll('#summary tbody tr')].map(r => r.cells[0].textContent)"
        first = page.value(names)
        page.click("#summary th:nth-child(1) button")
        assert page.value(names) == sorted(first)
        page.click("#summary th:nth-child(1) button")
        assert page.value(names) == sorted(first, reverse=True)
        assert page.value("document.querySelector('#summary th').getAttribute('aria-sort')") == "descending"
        page.click("#summary th:nth-child(3) button")
        column = [float(v) for v in page.value(names.replace("cells[0]", "cells[2]")) if v]
        assert column == sorted(column, reverse=True)

        # the bar is dragged, and what is seen left of it changes
        left, top, width, height = page.box("#viewer")
        page.drag((left + width / 2, top + height / 2), (left + width * 0.9, top + height / 2))
        assert page.value("Number($('cut').value)") == pytest.approx(90, abs=1)
        before = pixels(page, tmp_path)
        page.drag((left + width * 0.9, top + height / 2), (left + width * 0.1, top + height / 2))
        after = pixels(page, tmp_path)
        middle = np.s_[int(top + 40) : int(top + height), int(left + width * 0.2) : int(left + width * 0.8)]
        assert before[middle].std() > after[middle].std()  # noisy on the left, restored on the right
        page.click("#zoom button:nth-child(3)")
        assert page.value("getComputedStyle($('viewer')).getPropertyValue('--zoom')") == "4"
        assert page.value("document.querySelectorAll('#curves polyline').length") == 2
        assert page.value("document.querySelectorAll('#seeds circle').length") == 3
        assert page.errors == []
        page.value("$('group').value = 0; $('group').dispatchEvent(new Event('change'))")
        failed = page.value("[...document.querySelectorAll('#failed li')].map(e => e.textContent)")
        assert len(failed) == 4
        assert failed[0].startswith("a <b>|c</script> on one: ")
        assert page.value("$('curves-section').hidden")
        assert page.errors == []
    finally:
        page.close()


@pytest.mark.skipif(NO_BROWSER, reason="there is no Chromium")
def test_page_on_a_phone(results, tmp_path):
    page = Page(benchmark.report(results), tmp_path / "profile", width=360, height=740, phone=True)
    try:
        assert page.value("document.documentElement.scrollWidth") == 360  # nothing sticks out
        left, _, width, _ = page.box("#viewer")
        assert 0 < left < left + width < 360
        small = page.value("[...document.querySelectorAll('select, .controls button')].filter("
                           "e => e.offsetParent && e.getBoundingClientRect().height < 36).length")  # fmt: skip
        assert small == 0
        assert page.errors == []
        page.screenshot(tmp_path / "phone.png")
        with Image.open(tmp_path / "phone.png") as seen:
            assert seen.size == (1080, 2220)
    finally:
        page.close()


def pixels(page, folder: Path) -> np.ndarray:
    page.screenshot(folder / "seen.png")
    with Image.open(folder / "seen.png") as seen:
        return np.asarray(seen.convert("L"), dtype=float)


# ---------------------------------------------------------------------- the command

QUICK = ["benchmark", "--pictures", "camera,cat", "--size", "32", "--methods", "tv,nlm"]


def test_command_compares_and_goes_on(tmp_path, capsys):
    folder = tmp_path / "report"
    assert cli.main([*QUICK, "-o", str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("2 pictures, 2 methods, 4 jobs. Gaussian noise of standard deviation 25")
    assert said[1].startswith("[1/4] camera, tv: ")
    assert said[-2] == "4 done"
    assert {path.name for path in folder.iterdir()} >= {"report.html", "results.csv", "results.jsonl", "results.md"}
    assert cli.main([*QUICK, "-o", str(folder), "--sigma", "50", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main([*QUICK, "-o", str(folder)]) == 0
    assert "4 there already" in capsys.readouterr().out
    assert len((folder / "results.jsonl").read_text().splitlines()) == 8


def test_whole_pictures_are_taken_where_that_is_asked_for(tmp_path, capsys):
    assert cli.main([*QUICK[:-1], "tv", "--size", "0", "-o", str(tmp_path)]) == 0
    assert "2 pictures, 1 method, 2 jobs." in capsys.readouterr().out
    assert tables.records(tmp_path)[0]["height"] == 256


def test_command_says_where_a_set_is_looked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DIP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main(["benchmark", "--set", "set9", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith("; --data DIR says where it is\n")


def test_command_reports_what_failed(tmp_path, capsys):
    words = [*QUICK[:-1], "tv,test_comparison:turned", "-o", str(tmp_path), "--no-pictures"]
    assert cli.main(words) == 1
    seen = capsys.readouterr()
    assert "1 pictures" not in seen.out
    assert "2 done, 2 failed" in seen.out
    assert seen.err.count("dip: error: ") == 2
    assert not (tmp_path / "pictures").exists()


def test_command_is_interrupted(tmp_path, capsys, monkeypatch):
    def interrupted(case):
        raise KeyboardInterrupt

    monkeypatch.setitem(globals(), "turned", interrupted)
    assert cli.main([*QUICK[:-1], "tv,test_comparison:turned", "-o", str(tmp_path)]) == 130
    assert "goes on from here" in capsys.readouterr().out
    assert cli.main([*QUICK, "-o", str(tmp_path)]) == 0
    assert "3 done, 1 there already" in capsys.readouterr().out


def test_command_lists_what_can_be_named(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["benchmark", "--list"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for name in ("photographs", "set9", "super-resolve", "zsn2n", "windowed-variance"):
        assert name in said
    abouts = {
        task: dip.presets.get(task.replace("-", "_"), "fast").about for task in ("denoise", "deblur", "super-resolve")
    }
    assert len(set(abouts.values())) == 3
    for task, about in abouts.items():
        part = said.partition(f"methods for {task} (--methods):\n")[2].partition("\nmethods for ")[0]
        (line,) = (line for line in part.splitlines() if line.split()[0] == "fast")
        assert line.split(maxsplit=1)[1] == f"Deep Image Prior: {about}"  # and nothing of the other tasks
    varied = benchmark.find("paper-half+fast+twice").about_for("inpaint")
    assert varied.endswith("; mean with a fit of fast; mean of two fits")


@pytest.mark.parametrize(("factor", "preset"), [(4, "paper"), (5, "paper"), (6, "paper-x8"), (8, "paper-x8")])
def test_the_command_takes_the_preset_that_the_task_takes(factor, preset):
    protocol = benchmark.Protocol("super-resolve", {"factor": factor, "multiple": 4 * factor})
    assert comparison._defaults(protocol) == [preset, "bicubic"]
    assert dip.SuperResolve(np.zeros((8, 8)), factor).default_preset == preset


REFUSALS = [
    (["--set", "set99"], "unknown picture set"),
    (["--pictures", "dog"], "unknown picture of photographs 'dog'"),
    (["--task", "denoyse"], "did you mean 'denoise'"),
    (["--task", "inpaint", "--sigma", "5"], "--sigma means nothing with --task inpaint"),
    (["--unclipped", "--task", "super-resolve"], "--unclipped means nothing with --task super-resolve"),
    (["--task", "inpaint", "--missing", "2"], "a share between 0 and 1"),
    (["--task", "inpaint", "--missing", "half", "--methods", "biharmonic"], "neither a share"),
    (["--methods", "bicubic"], "for super-resolve, not for denoise"),
    (["--methods", "reference"], "needs --reference FOLDER"),
    (["--methods", "tv,tv"], "tv is named twice"),
    (["--size", "8"], "take 16 at least, or 0 for all"),
    (["--border", "13"], "border=13 leaves 6 of 32 pixels"),
    (["--device", "cuda:99"], "--device cuda:99 is not on this machine"),
    (["--device", "cuda:99", "--workers", "2"], "--device cuda:99 is not on this machine"),
    (["--threads", "2"], "--threads means nothing without --workers"),
    (["--resource", "GPU=1"], "means nothing without --scheduler"),
    (["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "means nothing with --scheduler"),
    (["--gpus", "0,1", "--workers", "3"], "one worker for each GPU"),
]


@pytest.mark.parametrize(("words", "message"), REFUSALS, ids=[" ".join(one[0]) for one in REFUSALS])
def test_command_refuses_before_work_begins(words, message, tmp_path, capsys):
    words = ["--pictures", "cat", *words] if words[0] not in ("--set", "--pictures") else words
    assert cli.main(["benchmark", "-o", str(tmp_path / "out"), "--size", "32", *words]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "--scheduler" in words or said.out == ""
    assert not (tmp_path / "out").exists()


def test_places_of_the_command(monkeypatch):
    parsed = cli._parse

    def place(*words):
        return place_arguments.place(parsed(["benchmark", "-o", "x", *words]))

    assert isinstance(place(), batch.InProcess)
    four = place("--workers", "4", "--threads", "3")
    assert (four.workers, four.threads) == (4, 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    both = place("--gpus", "all")
    assert (both.workers, both._gpus) == (2, ["0", "1"])
    shared, on_cpu = place("--workers", "3"), place("--workers", "3", "--device", "cpu")
    assert (shared._gpus, on_cpu._gpus) == (["0", "1", "0"], None)
    for one in (four, both, shared, on_cpu):
        one.close()


# ---------------------------------------------------------------------- the page in docs/


@pytest.fixture
def documented(tmp_path, monkeypatch) -> list[str]:
    """The examples of docs/benchmark.md that are files, written; their names."""
    text = (Path(__file__).parent.parent / "docs" / "benchmark.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL)
    for name, code in found:
        assert len([line for line in code.splitlines() if line.strip()]) <= 20
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    return [name for name, _ in found]


def test_documented_method_data_set_and_task_work(documented, tmp_path, monkeypatch, capsys):
    assert documented == ["median", "stripes", "jpeg"]
    monkeypatch.setattr("dip.benchmark.methods._METHODS", dict(benchmark.methods._METHODS))
    monkeypatch.setattr("dip.benchmark.tasks._TASKS", dict(benchmark.tasks._TASKS))
    assert cli.main([*QUICK[:-1], "median:median,tv", "-o", str(tmp_path / "a")]) == 0
    assert "cat, median:median: " in capsys.readouterr().out

    stripes = importlib.import_module("stripes").Stripes
    protocol = benchmark.Protocol("denoise")
    progress = benchmark.run([stripes(2), stripes(5)], protocol, ["median", "tv"], tmp_path / "b")
    assert (progress.done, progress.failed) == (4, 0)

    importlib.import_module("jpeg")
    protocol = benchmark.Protocol("jpeg", {"quality": 5}, size=32)
    progress = benchmark.run([ASTRONAUT, CAMERA], protocol, ["paper-jpeg", "tv", "median"], tmp_path / "c", iters=2)
    assert (progress.done, progress.failed) == (6, 0)
    assert "Stored as JPEG of quality 5." in benchmark.report(tmp_path / "c").read_text()
