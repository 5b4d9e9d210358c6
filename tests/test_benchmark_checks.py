"""What `dip.benchmark` refuses, in Python and on the command line, before it works for hours; and what it does not."""

from __future__ import annotations

import functools
import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from dip import batch, benchmark, cli, datasets
from dip.benchmark import tables
from dip.benchmark.pictures import with_one_white

CAMERA = next(entry for entry in datasets.pictures("photographs") if entry.name == "camera").read()[100:164, 100:164]
DENOISE = benchmark.Protocol("denoise")


@dataclass(frozen=True, eq=False)
class Pixels:
    """A picture of a set of one's own."""

    name: str
    pixels: np.ndarray
    known: np.ndarray | None = None

    def read(self):
        return self.pixels

    def mask(self):
        return self.known


# ---------------------------------------------------------------------- pictures


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">u2", ">f4"])
def test_pictures_of_any_usual_dtype_are_the_same_picture(dtype):
    if np.dtype(dtype).kind == "f":
        given, error = (CAMERA / 255).astype(dtype), 2**-11 if dtype == np.float16 else 1e-7
    else:
        given, error = CAMERA.astype(dtype) * (1 if dtype == np.uint8 else 257), 1e-7
    np.testing.assert_allclose(DENOISE.case(given).clean, CAMERA / 255, atol=error)


def test_a_picture_of_true_and_false_is_black_and_white():
    np.testing.assert_array_equal(DENOISE.case(CAMERA > 99).clean, np.where(CAMERA > 99, 1, 0))


WRONG = [
    (CAMERA.astype(np.int64), TypeError, "has dtype int64, which does not say what is white; allowed: uint8, uint16"),
    (CAMERA.astype(np.int16), TypeError, "has dtype int16"),
    (CAMERA.astype(np.float32), ValueError, r"has values from 5 to 255; .* divide by what is white"),
    (CAMERA / 255 - 0.5, ValueError, "values from -0.4"),
    (np.full((9, 9), np.nan), ValueError, "values from nan"),
    (CAMERA / 255 + 0j, TypeError, "complex128"),
    (CAMERA[..., None], ValueError, r"shape \(64, 64, 1\); allowed"),
    (CAMERA[:0], ValueError, "shape"),
    (CAMERA.tolist(), TypeError, "is a list"),
]


@pytest.mark.parametrize(("pixels", "error", "message"), WRONG, ids=[one[2][:20] for one in WRONG])
def test_other_pictures_are_refused_by_name_before_any_job(pixels, error, message, tmp_path):
    entries = [Pixels("first", CAMERA), Pixels("second", pixels)]
    with pytest.raises(error, match=f"second: .*{message}"):
        benchmark.run(entries, DENOISE, ["tv"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def of_twelve_bits(name, scale=16):
    return Pixels(name, CAMERA.astype(np.uint16) * scale)


def test_pictures_of_few_bits_in_uint16_have_one_white_for_all(tmp_path):
    entries = [of_twelve_bits("bright"), Pixels("dark", CAMERA.astype(np.uint16)), Pixels("eight", CAMERA)]
    text = "2 of 3 pictures are uint16, and their values end at 4080: their white is taken for 4095 .12 bits."
    with pytest.warns(RuntimeWarning, match=text):
        benchmark.run(entries, DENOISE, ["tv"], tmp_path / "out", inputs=True)
    found = {record["image"]: record for record in tables.records(tmp_path / "out")}
    clean = CAMERA / 255
    bright = DENOISE.case(clean * 4080 / 4095)
    assert found["bright"]["input"] == bright.hash
    assert found["dark"]["input"] == DENOISE.case(clean * 255 / 4095).hash  # as dark beside the other as it was
    assert found["eight"]["input"] == DENOISE.case(CAMERA).hash
    assert [found[name].get("white") for name in ("bright", "dark", "eight")] == [4095, 4095, None]
    assert found["bright"]["figures"]["psnr"] > found["bright"]["before"]["psnr_before"] + 4
    assert f"{bright.hash[:32]}-y.npy" in [path.name for path in (tmp_path / "out" / "inputs").iterdir()]


def test_pictures_of_sixteen_bits_are_as_they_are():
    entries = [of_twelve_bits("dark"), of_twelve_bits("bright", 257)]
    assert with_one_white(entries) == entries
    (job, _) = benchmark.plan(entries, DENOISE, [benchmark.find("tv")])
    assert job.about["input"] == DENOISE.case(CAMERA / 255 * 4080 / 65535).hash


# ---------------------------------------------------------------------- what methods return

ANSWERS = {
    "of uint8": (
        lambda x: np.rint(255 * x).astype(np.uint8),
        "TypeError: the method returned values of uint8; return f",
    ),
    "of integers": (lambda x: np.rint(x).astype(int), "TypeError: the method returned values of int64; return floats"),
    "of bool": (lambda x: x > 0.5, "TypeError: the method returned values of bool; return floats"),
    "of another range": (lambda x: 255 * x, "ValueError: the method returned values from 5 to 255; return floats"),
    "nothing": (lambda x: None, "TypeError: the method returned None; return floats"),
    "infinite": (lambda x: np.where(x > 0.9, np.inf, x), "ValueError: the method returned values that are not finite"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_are_no_picture_are_failures(name, tmp_path):
    made, message = ANSWERS[name]
    method = benchmark.Method("own", lambda case: made(np.float64(case.clean)), ("denoise",))
    progress = benchmark.run([Pixels("camera", CAMERA)], DENOISE, [method], tmp_path)
    assert (progress.done, progress.failed) == (0, 1)
    (record,) = tables.records(tmp_path)
    assert record["error"].startswith(message)


def test_answers_that_overshoot_are_clipped():
    case = DENOISE.case(CAMERA)
    spread = np.clip(case.clean, 0.3, 0.7) * 10 - 4.5  # from -1.5 to 2.5: a few beyond the width of the range
    x = np.where(np.arange(64) < 1, case.clean, np.clip(spread, -0.9, 1.9))
    x[0, :3] = (-7, 9, -3)
    assert DENOISE.figures(x, case) == DENOISE.figures(np.clip(x, 0, 1), case)
    for dtype in (np.float16, np.float32):
        assert DENOISE.figures(case.clean.astype(dtype), case)["psnr"] > 60


# ---------------------------------------------------------------------- super-resolution by any factor


@pytest.mark.parametrize(
    ("factor", "multiple"), [(1, 32), (2, 32), (3, 33), (4, 32), (5, 35), (6, 36), (7, 35), (8, 32), (16, 32)]
)
def test_sides_are_the_next_multiple_of_the_factor(factor, multiple):
    protocol = benchmark.Protocol("super-resolve", {"factor": factor})
    assert protocol.as_dict()["multiple"] == multiple
    case = protocol.case(CAMERA)
    side = 64 // multiple * multiple
    assert case.clean.shape == (side, side)
    assert case.y.shape == (side // factor, side // factor)
    assert benchmark.Protocol("super-resolve", {"factor": factor, "multiple": multiple}) == protocol
    assert pickle.loads(pickle.dumps(protocol)) == protocol


def test_a_side_that_is_shorter_is_a_multiple_of_the_factor():
    case = benchmark.Protocol("super-resolve").case(CAMERA[:30, :63])
    assert (case.clean.shape, case.y.shape) == ((28, 32), (7, 8))
    np.testing.assert_array_equal(case.clean, np.float32(CAMERA / 255)[1:29, 15:47])
    with pytest.raises(ValueError, match="64 x 3 pixels are less than 4; give a smaller factor"):
        benchmark.Protocol("super-resolve").case(CAMERA[:, :3])
    with pytest.raises(ValueError, match="30 x 63 pixels are less than 64; give a smaller multiple"):
        benchmark.Protocol("super-resolve", {"multiple": 64}).case(CAMERA[:30, :63])


def test_the_command_enlarges_by_three(tmp_path, capsys):
    words = ["--task", "super-resolve", "--factor", "3", "--pictures", "cat", "--methods", "bicubic"]
    assert cli.main(["benchmark", *words, "-o", str(tmp_path)]) == 0
    assert "sides are multiples of 33 pixels" in capsys.readouterr().out
    (record,) = tables.records(tmp_path)
    assert (record["height"], record["width"], record["protocol"]["border"]) == (99, 99, 3)


# ---------------------------------------------------------------------- masks of the set

HOLE = np.ones((64, 64), bool)
HOLE[20:30, 20:30] = False
OWN_MASKS = benchmark.Protocol("inpaint", {"missing": "mask"})


def test_a_picture_without_a_mask_is_named_and_those_that_have_one(tmp_path):
    entries = [Pixels("cat", CAMERA, HOLE), Pixels("dog", CAMERA), Pixels("cow", CAMERA, HOLE)]
    with pytest.raises(ValueError, match="dog has no mask; of these pictures cat, cow have one: take these, or"):
        benchmark.run(entries, OWN_MASKS, ["biharmonic"], tmp_path / "out")
    with pytest.raises(ValueError, match="dog has no mask; nor has another of these: take a set that has masks"):
        benchmark.run(entries[1:2], OWN_MASKS, ["biharmonic"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert benchmark.run(entries[::2], OWN_MASKS, ["biharmonic"], tmp_path / "out").done == 1  # the same pixels


def test_the_command_leaves_out_pictures_without_a_mask(tmp_path, capsys, monkeypatch):
    entries = [Pixels("cat", CAMERA, HOLE), Pixels("dog", CAMERA)]
    monkeypatch.setattr(datasets, "pictures", lambda *args, **options: entries)
    words = ["benchmark", "--task", "inpaint", "--missing", "mask", "--methods", "biharmonic", "-o", str(tmp_path)]
    assert cli.main(words) == 0
    assert "1 of 2 pictures of photographs have masks; left out: dog" in capsys.readouterr().out
    assert [record["image"] for record in tables.records(tmp_path)] == ["cat"]
    for named in ("cat,dog", "dog"):
        assert cli.main([*words, "--pictures", named]) == 2
        assert "dog has no mask" in capsys.readouterr().err


# ---------------------------------------------------------------------- arguments


def own(case):
    return case.y


ARGUMENTS = [
    ({"methods": "nlm"}, TypeError, r"methods must be a list, not 'nlm'; pass it as \['nlm'\]"),
    ({"methods": own}, TypeError, "methods must be a list, not <function own"),
    ({"methods": [own]}, TypeError, r"not <function own.*; pass benchmark.Method\('own', own, \('denoise',\)\)"),
    ({"methods": [3]}, TypeError, "not 3; pass a name, as 'nlm'"),
    ({"protocol": "denoise"}, TypeError, r"must be a benchmark.Protocol, not 'denoise'; as benchmark.Protocol\('de"),
    ({"entries": "set9"}, TypeError, r"not 'set9'; as dip.datasets.pictures\('set9'\)"),
    ({"seeds": 3}, TypeError, r"seeds must be a list of whole numbers, not 3; pass \[0\], or range\(3\)"),
    ({"seeds": []}, ValueError, "seeds is empty"),
    ({"seeds": [0.5]}, TypeError, "seed must be a whole number"),
    ({"place": 3}, TypeError, "place must be one of dip.batch, not 3"),
    ({"iters": 0}, ValueError, "iters must be a whole number from 1 up, not 0"),
    ({"iters": 2.5}, TypeError, "iters must be a whole number"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), ARGUMENTS, ids=[one[2][:30] for one in ARGUMENTS])
def test_arguments_that_are_none_are_refused(wrong, error, message, tmp_path):
    given = {"entries": [Pixels("camera", CAMERA)], "protocol": DENOISE, "methods": ["tv"], **wrong}
    with pytest.raises(error, match=message):
        benchmark.run(**given, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


PARAMETERS = [
    ("denoise", {"sigma": "25"}, TypeError, "sigma must be a finite number, not '25'"),
    ("denoise", {"sigma": None}, TypeError, "sigma must be a finite number, not None"),
    ("denoise", {"clip": "no"}, TypeError, "clip must be True or False, not 'no'"),
    ("denoise", "sigma=25", TypeError, "parameters of denoise are a dict"),
    ("super-resolve", {"factor": 2.0}, TypeError, "factor must be a whole number, not 2.0 .float.; pass 2"),
    ("super-resolve", {"kernel": 3}, TypeError, "kernel must be a text, not 3"),
    ("inpaint", {"missing": [0.5]}, TypeError, "missing must be a finite number"),
]


@pytest.mark.parametrize(("task", "parameters", "error", "message"), PARAMETERS)
def test_parameters_of_another_type_are_refused(task, parameters, error, message):
    with pytest.raises(error, match=message):
        benchmark.Protocol(task, parameters)


def test_what_can_be_gone_through_only_once_will_do(tmp_path):
    entries, seeds = (Pixels(name, CAMERA) for name in ("one", "two")), (seed for seed in (0, 1, 0))
    method = benchmark.Method("own", own, ("denoise",), random=True)
    progress = benchmark.run(entries, DENOISE, (one for one in [method]), tmp_path, seeds=seeds)
    assert progress.total == 4


def test_parameters_are_plain_numbers_in_the_records(tmp_path):
    given = benchmark.Protocol("denoise", {"sigma": np.int64(50)}, border=np.int64(1), size=np.int32(32))
    assert json.dumps(given.as_dict()) == json.dumps(
        benchmark.Protocol("denoise", {"sigma": 50.0}, border=1, size=32).as_dict()
    )
    benchmark.run([Pixels("camera", CAMERA)], given, ["tv"], tmp_path)
    (record,) = tables.records(tmp_path)
    earlier = {**record, "protocol": {**record["protocol"], "sigma": 50}, "image": "cat"}  # as it was written once
    (group,) = tables.groups([record, earlier])
    assert group.images == ["camera", "cat"]


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (HOLE[:10, :10], ValueError, r"shape \(10, 10\), and its picture \(64, 64\)"),
        (HOLE.astype(np.uint8), TypeError, "array of bool, True = known, not of uint8; as mask > 0"),
        (HOLE.tolist(), TypeError, "array of bool"),
    ],
)
def test_masks_that_are_none_of_the_picture_are_refused(mask, error, message):
    with pytest.raises(error, match=message):
        OWN_MASKS.case(CAMERA, mask)


# ---------------------------------------------------------------------- sys.exit


def leaves(case, code=3):
    sys.exit(code)


@pytest.mark.parametrize("place", [batch.InProcess, lambda: batch.Processes(1)], ids=["here", "in a worker"])
def test_a_method_that_calls_exit_is_a_failure_and_the_others_go_on(place, tmp_path):
    methods = [benchmark.Method("leaves", leaves, ("denoise",)), "tv"]
    progress = benchmark.run([Pixels("camera", CAMERA)], DENOISE, methods, tmp_path, place=place())
    assert (progress.done, progress.failed) == (1, 1)
    errors = [record["error"] for record in tables.records(tmp_path) if record["status"] == "failed"]
    assert errors == ["RuntimeError: the job called sys.exit(3)"]


def test_a_module_that_calls_exit_is_said(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_script.py").write_text("import sys\nsys.exit()\n")
    with pytest.raises(ImportError, match=r"own_script:m: the module calls sys\.exit when it is imported; put"):
        benchmark.find("own_script:m")


# ---------------------------------------------------------------------- border, device, what is there already


def test_a_border_that_leaves_no_window_of_ssim_is_refused(tmp_path):
    with pytest.raises(ValueError, match="border=13 leaves 6 of 32 pixels, and SSIM needs 7; give 12 or less"):
        benchmark.Protocol("denoise", border=13, size=32)
    assert benchmark.Protocol("denoise", border=12, size=32).case(CAMERA).clean.shape == (32, 32)
    entries = [Pixels("large", CAMERA), Pixels("small", CAMERA[:20])]
    with pytest.raises(ValueError, match="small: border=8 leaves 4 of 20 pixels"):
        benchmark.run(entries, benchmark.Protocol("denoise", border=8), ["tv"], tmp_path / "out")
    with pytest.raises(ValueError, match="border=8 leaves 0 of 16 pixels"):  # that of the factor
        benchmark.Protocol("super-resolve", {"factor": 8}).case(CAMERA[:23])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", [batch.InProcess, lambda: batch.Processes(2)], ids=["here", "in workers"])
def test_a_device_that_is_not_here_is_refused(place, tmp_path):
    with pytest.raises(ValueError, match=r"device='cuda:99' is not on this machine; here: "):
        benchmark.run([Pixels("camera", CAMERA)], DENOISE, ["tv"], tmp_path / "out", device="cuda:99", place=place())
    assert not (tmp_path / "out").exists()


def test_the_device_of_workers_elsewhere_is_theirs(tmp_path):
    with ThreadPoolExecutor(1) as elsewhere:
        place = batch.Given(elsewhere, 1)
        run = functools.partial(benchmark.run, [Pixels("camera", CAMERA)], DENOISE, ["tv"], tmp_path)
        assert run(device="cuda:99", place=place).done == 1  # which looks at no device


# ---------------------------------------------------------------------- the protocol in words


def test_words_of_a_size_that_is_more_than_a_picture_has():
    protocol = benchmark.Protocol("denoise", size=50)
    assert protocol.case(CAMERA[:, :40]).clean.shape == (50, 40)
    assert "the middle 50 x 50 pixels of each picture (of a side that is shorter, all)" in protocol.words()


def test_luma_of_gray_pictures_is_gray_itself():
    luma, channels = (benchmark.Protocol("denoise", {"clip": False}, metric=metric) for metric in ("luma", "rgb"))
    gray, colour = CAMERA, np.stack([CAMERA] * 3, axis=-1)
    case = luma.case(gray)
    restored = np.clip(case.y, 0, 1)
    assert luma.figures(restored, case) == pytest.approx(channels.figures(restored, case))  # 0 to 255
    three = np.stack([restored] * 3, axis=-1)
    narrower = 20 * np.log10(255 / 219)  # 16 to 235: the same picture in colour
    expected = luma.figures(restored, case)["psnr"] + narrower
    assert luma.figures(three, luma.case(colour))["psnr"] == pytest.approx(expected, abs=1e-3)
    assert "Y of BT.601 (16 to 235, of gray pictures gray itself, 0 to 255; not rounded; peak 255)" in luma.words()


@pytest.mark.parametrize("name", ["report.html", "results.csv", "results.md"])
def test_a_report_of_something_else_is_not_replaced(name, tmp_path, capsys):
    (tmp_path / name).write_text("mine")
    words = ["benchmark", "--pictures", "cat", "--size", "32", "--methods", "tv", "-o", str(tmp_path)]
    assert cli.main(words) == 2
    assert f"{tmp_path / name} is there, without a results.jsonl of a benchmark" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    for _ in range(2):  # that of a benchmark is made anew
        assert cli.main(words) == 0
