"""TIFF files of several pages: what is one, what of it is kept, and how its pages are restored."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys

import numpy as np
import pytest
import tifffile

from dip import cli, files, stacks
from dip.stacks import Stack, is_stack

SHAPE = (3, 2, 20, 24)  # of pages that differ


def pixels(shape=SHAPE, dtype=np.uint16):
    values = np.random.default_rng(0).random(shape)
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * np.iinfo(dtype).max).astype(dtype)


def written(path, array=None, **options):
    tifffile.imwrite(path, pixels() if array is None else array, **{"photometric": "minisblack", **options})
    return path


IMAGEJ = {
    "imagej": True,
    "resolution": (2.5, 5.0),
    "metadata": {"axes": "ZCYX", "unit": "um", "spacing": 0.7, "Labels": list("abcdef")},
}
KINDS = [
    {},
    IMAGEJ,
    {"ome": True, "metadata": {"axes": "TCYX", "PhysicalSizeX": 0.2}},
    {"metadata": {"axes": "TZYX"}},
    {"metadata": None, "bigtiff": True, "byteorder": ">"},
    {"compression": "zlib"},
]


def told(path):
    """What a file says of its pages."""
    with tifffile.TiffFile(path) as tiff:
        tags = [tiff.pages.first.tags.valueof(code) for code in (282, 283, 296)]
        imagej = {name: value for name, value in (tiff.imagej_metadata or {}).items() if name != "ImageJ"}
        return tiff.series[0].axes, tiff.series[0].shape, tiff.is_imagej, tiff.ome_metadata, tags, imagej


def copied(given, done, change=lambda page: page):
    """Stand in for what restores a folder."""
    for path in files.find(given):
        if not (done / path.name).exists():
            files.write(done / path.name, change(files.read(path).pixels))
    return 0


@pytest.mark.parametrize("options", KINDS)
def test_what_a_file_says_of_its_axes_stays(tmp_path, options):
    source, target, said = written(tmp_path / "in.tif", **options), tmp_path / "out.tif", []
    assert is_stack(source)
    assert stacks.restored(Stack(source), target, {}, copied, said.append) == 0
    assert told(target) == told(source)
    np.testing.assert_array_equal(tifffile.imread(target), tifffile.imread(source))
    assert len(said) == 2
    assert "6 pages" in said[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif", "out.tif"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_pages_of_every_kind(tmp_path, dtype, colours):
    array = pixels((4, 6, 7, *colours), dtype)
    source = written(tmp_path / "in.tif", array, photometric="rgb" if colours else "minisblack")
    stack = Stack(source)
    assert (stack.count, stack.page, stack.colour) == (4, (6, 7, *colours), bool(colours))
    stack.split(tmp_path / "pages")
    found = [files.read(tmp_path / "pages" / name).pixels for name in stack.names()]
    assert all(page.dtype == dtype for page in found)
    np.testing.assert_array_equal(found, array)
    stack.join(tmp_path / "pages", tmp_path / "out.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), array)


def test_what_ome_says_is_of_this_file(tmp_path):
    written(tmp_path / "in.tif", ome=True, metadata={"axes": "TCYX", "PhysicalSizeX": 0.2})
    with tifffile.TiffFile(tmp_path / "in.tif") as tiff:
        found = tiff.ome_metadata
    named = re.sub(r"(<TiffData[^>]*)/>", r'\1><UUID FileName="in.tif">urn:uuid:1</UUID></TiffData>', found)
    assert named != found
    written(tmp_path / "in.tif", pixels().reshape(6, 20, 24), description=named.encode(), metadata=None)
    stacks.restored(Stack(tmp_path / "in.tif"), tmp_path / "out.tif", {}, copied, print)
    (tmp_path / "in.tif").unlink()
    axes, shape, _, told_by_ome, *_ = told(tmp_path / "out.tif")
    assert (axes, shape) == ("TCYX", (3, 2, 20, 24))
    assert told_by_ome == found


def test_pages_that_ome_has_in_another_order_stay_what_they_are(tmp_path):
    written(tmp_path / "in.tif", ome=True, metadata={"axes": "TCYX"})
    with tifffile.TiffFile(tmp_path / "in.tif") as tiff:
        one = re.search(r"<TiffData[^>]*/>", tiff.ome_metadata)[0]
        each = "".join(f'<TiffData IFD="{k}" FirstC="{k // 3}" FirstT="{k % 3}" PlaneCount="1"/>' for k in range(6))
        described = tiff.ome_metadata.replace(one, each).encode()
    written(tmp_path / "in.tif", pixels().reshape(6, 20, 24), description=described, metadata=None)
    expected = tifffile.imread(tmp_path / "in.tif")
    assert not np.array_equal(expected, pixels())
    stacks.restored(Stack(tmp_path / "in.tif"), tmp_path / "out.tif", {}, copied, print)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), expected)
    assert told(tmp_path / "out.tif")[:2] == ("TCYX", (3, 2, 20, 24))


def test_pages_that_were_written_one_by_one(tmp_path):
    with tifffile.TiffWriter(tmp_path / "in.tif") as tiff:
        for page in pixels().reshape(6, 20, 24):
            tiff.write(page, photometric="minisblack")
    assert str(Stack(tmp_path / "in.tif")).endswith("6 pages of 20 x 24 pixels (height x width)")
    stacks.restored(Stack(tmp_path / "in.tif"), tmp_path / "out.tif", {}, copied, print)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pixels().reshape(6, 20, 24))


@pytest.mark.parametrize(
    "said",
    [
        "ImageJ=1.53t\nimages=6\nslices=6\nunit=\u00b5m\nspacing=0.5\nmin=3.0\nmax=4000.0\n",
        "ImageJ=1.53t\nimages=6\nc0=-32768.0\nc1=1.0\n",
    ],
)
def test_what_imagej_itself_writes(tmp_path, said):
    written(tmp_path / "in.tif", pixels().reshape(6, 20, 24), description=said.encode("latin-1"), metadata=None)
    stacks.restored(Stack(tmp_path / "in.tif"), tmp_path / "out.tif", {}, copied, print)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pixels().reshape(6, 20, 24))
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        found = tiff.imagej_metadata or {}
    if "slices" in said:
        assert (found["spacing"], found["min"], found["max"]) == (0.5, 3, 4000)
        assert found["unit"].replace("\\xb5", "\u00b5") == "\u00b5m"


def test_of_a_larger_picture_the_resolution_is_finer(tmp_path):
    source = written(tmp_path / "in.tif", **IMAGEJ)
    twice = lambda given, done: copied(given, done, lambda page: page.repeat(2, 0).repeat(2, 1))  # noqa: E731
    stacks.restored(Stack(source), tmp_path / "out.tif", {}, twice, print)
    axes, shape, _, _, (across, down, _), imagej = told(tmp_path / "out.tif")
    assert (axes, shape) == ("ZCYX", (3, 2, 40, 48))
    assert (across[0] / across[1], down[0] / down[1]) == (5, 10)
    assert (imagej["unit"], imagej["spacing"]) == ("um", 0.7)


def test_what_is_no_stack(tmp_path):
    one, three = written(tmp_path / "one.tif", pixels((8, 9))), tmp_path / "rgb.tif"
    written(three, pixels((8, 9, 3)), photometric="rgb")
    written(tmp_path / "colour.tif", pixels((8, 9, 3), np.uint8), photometric="rgb", imagej=True)
    (tmp_path / "cut.tif").write_bytes(one.read_bytes()[:10])
    (tmp_path / "text.tif").write_text("no picture")
    assert not any(map(is_stack, [one, three, *tmp_path.glob("[ct]*.tif"), tmp_path / "none.tif", tmp_path]))


def mixed(path):
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels((8, 9)))
        tiff.write(pixels((8, 8)))


def cut(path, truncated):
    written(path, metadata=None if not truncated else {}, truncate=truncated)
    path.write_bytes(path.read_bytes()[: -SHAPE[-1]])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: cut(path, True), "(cut short|damaged)"),
        (
            lambda path: written(
                path, colormap=np.zeros((3, 256), np.uint16), array=pixels(dtype=np.uint8), photometric="palette"
            ),
            "PALETTE pixels; pages are restored that are gray",
        ),
        (
            lambda path: written(path, photometric="miniswhite"),
            "MINISWHITE pixels; pages .* gray, of which 0 is black",
        ),
        (mixed, "pages of different sizes or kinds; save those that belong together"),
        (lambda path: written(path, pixels((4, 8, 9), np.float64)), r"float64 pixels; allowed: uint8, uint16, float32"),
        (
            lambda path: written(path, pixels((2, 8, 9, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"]),
            r"axes QYXS \(2 x 8 x 9 x 4\) and RGB pixels; pages are restored that are gray.* or RGB without alpha",
        ),
    ],
)
def test_what_cannot_be_restored_is_refused(tmp_path, make, why):
    make(tmp_path / "in.tif")
    assert is_stack(tmp_path / "in.tif")
    with pytest.raises(ValueError, match=why):
        Stack(tmp_path / "in.tif")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
def test_a_stack_of_which_the_end_is_missing_is_none_of_its_first_page(tmp_path, kind, share):
    path = written(tmp_path / "in.tif", **kind)
    path.write_bytes(path.read_bytes()[: round(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="cut short"):
        _ = Stack(path) if is_stack(path) else files.read(path)


def test_what_was_broken_off_goes_on(tmp_path):
    source, target, seen, said = written(tmp_path / "in.tif"), tmp_path / "out.tif", [], []

    def until(count):
        def restore(given, done):
            for path in files.find(given)[:count]:
                if not (done / path.name).exists():
                    seen.append(path.name)
                    files.write(done / path.name, files.read(path).pixels)
            return 0 if count == 6 else 130

        return restore

    assert stacks.restored(Stack(source), target, {"iters": 3}, until(2), said.append) == 130
    assert not target.exists()
    assert said[-1].endswith("repeat the command to go on")
    with pytest.raises(ValueError, match=r"out.tif.pages holds pages of another stack, or restored with other options"):
        stacks.restored(Stack(source), target, {"iters": 4}, until(6), said.append)
    other = written(tmp_path / "other.tif", pixels()[::-1])
    with pytest.raises(ValueError, match=r"out.tif.pages holds pages of another stack"):
        stacks.restored(Stack(other), target, {"iters": 3}, until(6), said.append)
    assert stacks.restored(Stack(source), target, {"iters": 3}, until(6), said.append) == 0
    assert "2 of which are in" in said[-2]
    assert seen == [f"{number:04}.tif" for number in range(1, 7)]
    np.testing.assert_array_equal(tifffile.imread(target), pixels())
    assert not (tmp_path / "out.tif.pages").exists()


@pytest.mark.parametrize("ends", [lambda: 1, lambda: 1 / 0])
def test_where_no_page_was_done_nothing_is_left(tmp_path, ends):
    source = written(tmp_path / "in.tif")
    with contextlib.suppress(ZeroDivisionError):
        assert stacks.restored(Stack(source), tmp_path / "out.tif", {}, lambda *_: ends(), print) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_what_is_wrong_with_a_page_is_told_before_the_first_is_restored(tmp_path):
    array = pixels(dtype=np.float32)
    array[1, 0, 3, 4] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinite pixels in page 3; give a --mask .*, or set them"):
        stacks.restored(Stack(written(tmp_path / "in.tif", array)), tmp_path / "out.tif", {}, None, print)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_what_cannot_be_kept_is_told_before_the_first_is_restored(tmp_path, monkeypatch):
    source = Stack(written(tmp_path / "in.tif"))
    monkeypatch.setattr(stacks, "_told", lambda *_, **__: {"imagej": True, "metadata": {"axes": "QQYX"}})
    with pytest.raises(
        ValueError, match=r"in.tif says of itself what cannot be kept \(.*axes.*\); save it with another"
    ):
        stacks.restored(source, tmp_path / "out.tif", {}, None, print)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    assert not is_stack(tmp_path / "pipe.tif")


def test_a_folder_of_that_name_is_left_alone(tmp_path):
    source = written(tmp_path / "in.tif")
    (tmp_path / "out.tif.pages").mkdir()
    (tmp_path / "out.tif.pages" / "mine").touch()
    with pytest.raises(
        FileExistsError, match=r"out.tif.pages, where the pages are to be, exists and holds something else"
    ):
        stacks.restored(Stack(source), tmp_path / "out.tif", {}, copied, print)
    assert (tmp_path / "out.tif.pages" / "mine").exists()


QUICK = ["--iters", "2", "--down", "8,8", "--skip", "4,4", "--quiet", "--device", "cpu"]


def test_commands_restore_every_page(tmp_path, capsys):
    source = str(written(tmp_path / "in.tif", **IMAGEJ))
    files.write(tmp_path / "mask.png", np.uint8(255) * (pixels((20, 24)) > 20000))
    report = tmp_path / "report.json"
    given = ["inpaint", source, "--mask", str(tmp_path / "mask.png"), "-o", str(tmp_path / "out.tif")]
    loud = [word for word in QUICK if word != "--quiet"]
    assert cli.main([*given, *loud, "--json", str(report)]) == 0
    assert told(tmp_path / "out.tif") == told(source)
    known = files.read_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif")[..., known], pixels()[..., known])
    entries = json.loads(report.read_text())
    assert {one["settings"]["missing"] for one in entries} == {(~known).mean()}
    assert capsys.readouterr().out.count(f", {(~known).mean():.1%} missing") == 6
    assert [one["page"] for one in entries] == [1, 2, 3, 4, 5, 6]
    assert {(one["status"], one["input"], one["output"]) for one in entries} == {
        ("done", source, str(tmp_path / "out.tif"))
    }
    assert cli.main(["super-resolve", source, "--factor", "2", "-o", str(tmp_path / "sr.tif"), *QUICK]) == 0
    assert tifffile.imread(tmp_path / "sr.tif").shape == (3, 2, 40, 48)
    capsys.readouterr()


def test_a_report_of_something_else_is_replaced_by_force(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.tif")
    (tmp_path / "r.json").write_text("{}")
    given = ["denoise", "in.tif", "-o", "out.tif", "--json", "r.json", *QUICK]
    assert cli.main(given) == 2
    assert "no report on a folder that could be continued; choose another name" in capsys.readouterr().err
    assert (tmp_path / "r.json").read_text() == "{}"
    assert cli.main([*given, "--force"]) == 0
    assert [one["page"] for one in json.loads((tmp_path / "r.json").read_text())] == [1, 2, 3, 4, 5, 6]


def test_the_noise_of_each_page_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    counts = np.random.default_rng(0).poisson(np.linspace(5, 60, 64), (2, 64, 64)).astype(np.uint8)
    written(tmp_path / "in.tif", counts)
    loud = [word for word in QUICK if word != "--quiet"]
    assert cli.main(["denoise", "in.tif", "-o", "out.tif", "--noise", "poisson", *loud]) == 0
    assert capsys.readouterr().out.count("PoissonGaussian(gain=1.0") == 2


@pytest.mark.parametrize(("divisor", "white"), [(16, 4095), (1, 65535)])
def test_all_pages_have_one_white(tmp_path, monkeypatch, capsys, divisor, white):
    monkeypatch.chdir(tmp_path)
    pages = pixels((2, 20, 24)) // np.array([64, divisor], np.uint16)[:, None, None]  # 10 bits, and 12 or 16
    written(tmp_path / "in.tif", pages)
    assert cli.main(["denoise", "in.tif", "-o", "out.tif", "--json", "r.json", *QUICK]) == 0
    assert capsys.readouterr().err.count("white is taken for 4095; if it is another, give --data-range") == (
        white == 4095
    )
    ranges = [one["settings"]["data_range"] for one in json.loads((tmp_path / "r.json").read_text())]
    assert ranges == [[0, white], [0, white]]


def test_a_mask_counts_by_what_is_in_it_and_is_not_written_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.tif")
    mask = files.write(tmp_path / "mask.tif", np.uint8(255) * (pixels((20, 24)) > 20000))
    given = ["inpaint", "in.tif", "--mask", "mask.tif", *QUICK]
    before = mask.read_bytes()
    assert cli.main([*given, "-o", "mask.tif", "--force"]) == 2
    assert "OUT is the same file as --mask" in capsys.readouterr().err
    assert mask.read_bytes() == before
    monkeypatch.setattr(stacks.Stack, "join", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    assert cli.main([*given, "-o", "out.tif"]) != 0
    files.write(mask, np.uint8(255) * (pixels((20, 24)) > 30000), force=True)
    assert cli.main([*given, "-o", "out.tif"]) == 2
    assert "or restored with other options" in capsys.readouterr().err


def test_a_mask_for_each_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.tif", pixels((2, 20, 24)))
    masks = [np.uint8(255) * (pixels((20, 24)) > white) for white in (20000, 30000)]
    given = ["inpaint", "in.tif", "--mask", "masks", "-o", "out.tif", *QUICK]
    files.write("masks/0001.png", masks[0])
    assert cli.main(given) == 2
    assert "0002.tif does not exist, nor is it there with another extension (.bmp, " in capsys.readouterr().err
    files.write("masks/0002.png", masks[1][:5])
    assert cli.main(given) == 2
    assert (
        "0002.png has 5 x 24 pixels (height x width), a mask for this picture needs 20 x 24" in capsys.readouterr().err
    )
    files.write("masks/0002.png", masks[1], force=True)
    assert not (tmp_path / "out.tif.pages").exists()
    with monkeypatch.context() as broken:
        broken.setattr(stacks.Stack, "join", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
        assert cli.main(given) != 0
    files.write("masks/0002.png", 255 - masks[1], force=True)
    assert cli.main(given) == 2  # the pages that are there are not of these masks
    assert "or restored with other options" in capsys.readouterr().err
    files.write("masks/0002.png", masks[1], force=True)
    assert cli.main(given) == 0
    out = tifffile.imread("out.tif")
    for page, mask in enumerate(masks):
        np.testing.assert_array_equal(out[page][mask > 0], pixels((2, 20, 24))[page][mask > 0])
        assert (out[page][mask == 0] != pixels((2, 20, 24))[page][mask == 0]).any()


@pytest.mark.parametrize("name", ["small.png", "pages.tif", "white.png", "black.png"])
def test_a_mask_that_suits_no_page_is_told_before_the_first(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.tif")
    files.write("small.png", np.uint8(255) * (pixels((10, 24)) > 20000))
    tifffile.imwrite("pages.tif", np.zeros((6, 20, 24), np.uint8), photometric="minisblack")
    files.write("white.png", np.full((20, 24), 255, np.uint8))
    files.write("black.png", np.zeros((20, 24), np.uint8))
    assert cli.main(["inpaint", "in.tif", "--mask", name, "-o", "out.tif", *QUICK]) == 2
    told = capsys.readouterr().err
    assert told.count("dip: error") == 1
    assert {"s": "needs 20 x 24", "p": "a mask has one, for all pages", "w": "every", "b": "no pixel as known"}[
        name[0]
    ] in told
    assert not (tmp_path / "out.tif.pages").exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["-o", "out.png"], "has several pages, and .*out.png cannot hold them; name a .tif"),
        (["-o", "out.tif", "--checkpoint", "a.dip"], "--checkpoint is for one picture and .*in.tif has several pages"),
        (["-o", "out.tif", "--reference", "in.tif"], "--reference is for one picture"),
        (["-o", "in.tif"], "in.tif exists; choose another name, or replace it with --force"),
        (["-o", "out.tif", "--preset", "unknown"], "unknown"),
    ],
)
def test_wrong_options_are_told_and_leave_nothing(tmp_path, monkeypatch, capsys, more, why):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.tif")
    assert cli.main(["denoise", "in.tif", *more]) != 0
    assert re.match(f"dip: error: .*{why}", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize("command", ["denoise", "inpaint"])
def test_nan_does_not_matter_where_the_mask_says_that_nothing_is_known(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    array, mask = pixels((2, 20, 24), np.float32), np.full((20, 24), 255, np.uint8)
    array[1, 3:6, 4:8], mask[3:6, 4:8] = np.nan, 0
    written(tmp_path / "in.tif", array)
    files.write("mask.png", mask)
    assert cli.main([command, "in.tif", "--mask", "mask.png", "-o", "out.tif", *QUICK]) == 0
    assert np.isfinite(tifffile.imread("out.tif")).all()
    files.write("all.png", np.full((20, 24), 255, np.uint8))
    assert cli.main(["denoise", "in.tif", "--mask", "all.png", "-o", "other.tif", *QUICK]) == 1
    assert "page 2: image has 12 NaN or infinite values" in capsys.readouterr().err


def test_pages_have_numbers_and_are_warned_of_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.tif", pixels((3, 20, 24)) // 64)
    words = [word for word in QUICK if word != "--quiet"]
    assert cli.main(["super-resolve", "in.tif", "--factor", "2", "-o", "out.tif", *words]) == 0
    said = capsys.readouterr()
    warned = [line for line in said.err.splitlines() if "warning" in line]
    assert ["very dark picture" in line for line in warned] == [True, False]
    assert warned[1] == "dip: warning: 2 more like these, of other pages, not shown"
    assert all(f"[{n}/3] in.tif, page {n} ..." in said.out for n in (1, 2, 3))
    assert ".pages" not in said.out + said.err
