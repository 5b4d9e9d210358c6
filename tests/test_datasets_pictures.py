"""Picture sets by name, folders of one's own, and random patches of them."""

from __future__ import annotations

import collections
import hashlib
import pickle
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from test_datasets import listing, mutations

import dip
from dip.datasets import known, sets


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("DIP_DATA", raising=False)
    monkeypatch.setenv("DIP_CACHE", str(tmp_path / "no cache"))


def noise(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def sha256(pixels):
    return hashlib.sha256(pixels.tobytes()).hexdigest()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The folder of a set of two pictures whose pixels are known."""
    folder = tmp_path / "small"
    table = []
    for name, pixels in (("one", noise(5, 7, 3, seed=1)), ("two", noise(6, 6, seed=2))):
        dip.files.write(folder / f"{name}.png", pixels)
        table.append(known.Known(name, pixels.shape, sha256(pixels)))
    monkeypatch.setitem(sets.SETS, "small", known.PictureSet("small", "", "https://a.b", ("small",), tuple(table)))
    return folder


# sets by name


def test_the_photographs_come_with_scikit_image():
    # in a fresh interpreter without pooch, which could download them
    code = "import sys; sys.modules['pooch'] = None; import dip; print(len(dip.datasets.pictures('photographs')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "6\n", done.stderr


def test_the_photographs():
    entries = dip.datasets.pictures("photographs")
    assert [entry.name for entry in entries] == ["astronaut", "cat", "coffee", "motorcycle", "camera", "brick"]
    for entry in entries:
        pixels = entry.read()
        assert pixels.shape == entry.shape
        assert pixels.shape[:2] == (256, 256)
        assert pixels.dtype == np.uint8
        assert sha256(pixels) == entry.sha256
        assert (entry.path, entry.mask_path, entry.mask()) == (None, None, None)
        assert entry.verified
    from dip.demo import photograph

    np.testing.assert_array_equal(entries[0].read(), photograph())
    assert pickle.loads(pickle.dumps(entries)) == entries  # they travel to other processes


def test_every_set_has_a_line_and_a_table():
    counts = {"set5": 5, "set9": 9, "set11": 11, "set12": 12, "set14": 14, "kodak24": 24, "cbsd68": 68, "mcmaster": 18}
    names = dip.datasets.names()
    assert set(names) == {*counts, "photographs", "dip-paper"}
    for name, line in names.items():
        assert line
        assert "\n" not in line
        if name in counts:
            table = known.SETS[name].known
            assert len({each.name for each in table}) == len({each.sha256 for each in table}) == counts[name]
            assert int(line.split()[0]) == counts[name]
            sides = [side for each in table for side in each.shape[:2]]
            stated = [int(word.strip(",")) for word in line.split() if word.strip(",").isdigit()]
            assert {min(sides), max(sides)} <= set(stated)
    shapes = collections.Counter(each.shape for each in known.SETS["kodak24"].known)
    assert shapes == {(512, 768, 3): 18, (768, 512, 3): 6}
    # the same photographs are in two sets
    kodak = {each.name: each.sha256 for each in known.SETS["kodak24"].known}
    assert [kodak[each.name] for each in known.SETS["set9"].known if each.name in kodak] == [
        each.sha256 for each in known.SETS["set9"].known if each.name.startswith("kodim")
    ]


def test_a_set_in_its_folder_or_the_one_above(small, monkeypatch):
    for folder in (small, small.parent, str(small)):
        entries = dip.datasets.pictures("Small", folder)
        assert [(entry.name, entry.shape, entry.verified) for entry in entries] == [
            ("one", (5, 7, 3), True),
            ("two", (6, 6), True),
        ]
        np.testing.assert_array_equal(entries[0].read(), noise(5, 7, 3, seed=1))
    monkeypatch.setenv("DIP_DATA", str(small.parent))
    assert dip.datasets.pictures("small") == entries


def test_files_with_other_names_and_formats_are_found_by_their_pixels(small):
    (small / "one.png").rename(small / "img_003_HR.png")
    dip.files.write(small / "b.tif", noise(6, 6, seed=2))
    (small / "two.png").unlink()
    dip.files.write(small / "other.png", noise(3, 3))
    (small / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    entries = dip.datasets.pictures("small", small)
    assert [entry.path.name for entry in entries] == ["img_003_HR.png", "b.tif"]
    np.testing.assert_array_equal(entries[1].read(), noise(6, 6, seed=2))
    # exchanged names
    dip.files.write(small / "one.png", noise(6, 6, seed=2))
    dip.files.write(small / "two.png", noise(5, 7, 3, seed=1))
    assert [entry.shape for entry in dip.datasets.pictures("small", small)] == [(5, 7, 3), (6, 6)]


def test_wrong_and_missing_pictures_are_named(small):
    changed = noise(5, 7, 3, seed=1)
    changed[2, 3, 1] ^= 1
    dip.files.write(small / "one.png", changed, force=True)
    (small / "two.png").unlink()
    with pytest.raises(
        ValueError, match=r"one.png has other pixels than the published picture, two is missing; get http"
    ):
        dip.datasets.pictures("small", small)
    dip.files.write(small / "one.png", noise(5, 8, 3), force=True)
    (small / "two.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(
        ValueError,
        match=r"one.png has 5 x 8 colour pixels, the published picture 5 x 7 colour pixels, two.png cannot be read",
    ):
        dip.datasets.pictures("small", small)


def test_a_missing_set_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DIP_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"kodak24 is missing: .*looked in .*r0k\.us") as caught:
        dip.datasets.pictures("kodak24")
    assert str(tmp_path) in str(caught.value)
    for name in known.SETS:
        with pytest.raises(FileNotFoundError, match=f"the picture set {name} is missing"):
            dip.datasets.pictures(name)
        with pytest.raises(ValueError, match=rf"does not hold {name}: .* is missing, .* and \d+ more; get"):
            dip.datasets.pictures(name, tmp_path)


def test_a_set_of_known_files(tmp_path, monkeypatch):
    table = []
    for name, pixels in (("in/a.png", noise(4, 4)), ("in/a_mask.png", np.eye(4, dtype=np.uint8) * 255)):
        data = dip.files.write(tmp_path / "x" / name, pixels).read_bytes()
        table.append(known.Known(name, pixels.shape, hashlib.sha256(data).hexdigest()))
    monkeypatch.setitem(sets.SETS, "x", known.PictureSet("x", "", "nowhere", ("x",), tuple(table), of_files=True))
    (entry,) = dip.datasets.pictures("x", tmp_path)
    assert (entry.name, entry.sha256) == ("in/a", sha256(noise(4, 4)))
    np.testing.assert_array_equal(entry.mask(), np.eye(4, dtype=bool))
    (tmp_path / "x/in/a_mask.png").unlink()
    dip.files.write(tmp_path / "x/in/a.png", noise(4, 4, seed=1), force=True)
    with pytest.raises(ValueError, match=r"in/a.png is not the published file .*in/a_mask.png is missing"):
        dip.datasets.pictures("x", tmp_path)


def test_what_changed_after_it_was_listed_is_refused(small):
    entry = dip.datasets.pictures("small", small)[0]
    dip.files.write(small / "one.png", noise(5, 7, 3, seed=9), force=True)
    with pytest.raises(ValueError, match=r"one.png has changed since it was listed"):
        entry.read()


def test_mutated_pictures_are_named_or_still_the_same(small):
    intact = (small / "one.png").read_bytes()
    files = listing(small)
    for data in mutations(intact, 40, seed=3):
        (small / "one.png").write_bytes(data)
        try:
            entries = dip.datasets.pictures("small", small)
        except ValueError as error:
            message = str(error)
        else:  # what follows the end of a PNG is not looked at
            message = "one.png"
            np.testing.assert_array_equal(entries[0].read(), noise(5, 7, 3, seed=1))
        assert "one.png" in message
        assert "\n" not in message
        assert listing(small) == files


# folders of one's own


def test_a_folder_of_ones_own(tmp_path):
    contents = {
        "b.png": noise(4, 5, 3),
        "a/one.tif": noise(3, 3, dtype=np.uint16),
        "a/one.png": noise(6, 2),
        "c.png": noise(4, 4, 4),
    }
    for name, pixels in contents.items():
        dip.files.write(tmp_path / name, pixels)
    entries = dip.datasets.pictures(tmp_path)
    assert [entry.name for entry in entries] == ["a/one.png", "a/one.tif", "b", "c"]  # two need their extension
    assert [entry.shape for entry in entries] == [(6, 2), (3, 3), (4, 5, 3), (4, 4, 3)]
    assert not any(entry.verified for entry in entries)
    for entry in entries:
        wanted = contents[str(entry.path.relative_to(tmp_path))]
        np.testing.assert_array_equal(entry.read(), wanted[..., :3] if entry.name == "c" else wanted)
    assert dip.datasets.pictures(str(tmp_path)) == entries
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"b.png is not a picture"):
        dip.datasets.pictures(tmp_path)


def test_sets_that_do_not_exist(tmp_path):
    with pytest.raises(ValueError, match="unknown picture set 'set15'; did you mean 'set5'"):
        dip.datasets.pictures("set15")
    with pytest.raises(ValueError, match="or a folder of pictures, which this is not"):
        dip.datasets.pictures(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no pictures"):
        dip.datasets.pictures(tmp_path)
    with pytest.raises(TypeError, match="name must be a picture set or a folder, not 9"):
        dip.datasets.pictures(9)
    with pytest.raises(ValueError, match="folder= means nothing"):
        dip.datasets.pictures("photographs", tmp_path)
    with pytest.raises(ValueError, match="download= means nothing"):
        dip.datasets.pictures(tmp_path, download=True)


@pytest.mark.parametrize("name", ["set5", "set9", "set11", "set14", "dip-paper"])
def test_the_real_sets(data_dir, monkeypatch, name):
    monkeypatch.setenv("DIP_DATA", str(data_dir))
    if not any((data_dir / folder).is_dir() for folder in known.SETS[name].folders):
        pytest.skip(f"{name} is not in DIP_DATA")
    entries = dip.datasets.pictures(name)
    assert all(entry.verified for entry in entries)
    if name == "dip-paper":
        assert len(entries) == 11
        missing = {entry.name: 100 * (1 - entry.mask().mean()) for entry in entries if entry.mask_path}
        assert missing == pytest.approx(
            {"inpainting/kate": 4.3, "inpainting/library": 18.6, "inpainting/vase": 2.7}, abs=0.1
        )


def test_a_real_set_under_the_names_of_another_distribution(data_dir, tmp_path):
    if not (data_dir / "set5").is_dir():
        pytest.skip("set5 is not in DIP_DATA")
    for number, path in enumerate(sorted((data_dir / "set5").glob("*.png"))):
        shutil.copy(path, tmp_path / f"img_{number:03}.png")
    assert [entry.name for entry in dip.datasets.pictures("set5", tmp_path)] == [
        each.name for each in known.SETS["set5"].known
    ]


# patches


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def numbered(tmp_path):
    """Pictures whose pixels say where they are: red the picture, green the row, blue the column."""
    rows, columns = np.mgrid[:11, :8].astype(np.uint8)
    for index in range(5):
        pixels = np.stack([np.full_like(rows, 50 * index), rows, columns], axis=2)
        dip.files.write(tmp_path / f"{index}.png", pixels)
    return tmp_path


def test_patches_lie_anywhere_and_hold_together(numbered):
    patches = dip.datasets.Patches(numbered, 3)
    drawn = patches.draw(4000, generator(), augment=False)
    assert drawn.shape == (4000, 3, 3, 3)
    assert drawn.dtype == torch.uint8
    red, green, blue = drawn.int().unbind(1)
    assert (red == red[:, :1, :1]).all()
    assert (green.diff(dim=1) == 1).all()
    assert (blue.diff(dim=2) == 1).all()
    assert (green.diff(dim=2) == 0).all()
    corners = collections.Counter(zip(*(part[:, 0, 0].tolist() for part in (red, green, blue)), strict=True))
    assert len(corners) == 5 * 9 * 6  # every picture, row and column, the last ones too
    assert max(corners.values()) < 40  # 15 each


def test_patches_are_turned_and_mirrored_in_all_eight_ways(numbered):
    drawn = dip.datasets.Patches(numbered, 2).draw(800, generator()).int()
    ways = collections.Counter()
    for patch in drawn:
        green, blue = patch[1] - patch[1].min(), patch[2] - patch[2].min()
        ways[tuple(green.flatten().tolist() + blue.flatten().tolist())] += 1
    square = np.array([[0, 0], [1, 1]]), np.array([[0, 1], [0, 1]])
    expected = set()
    for turn in range(4):
        for mirrored in (False, True):
            pair = [np.rot90(part, turn)[:, ::-1] if mirrored else np.rot90(part, turn) for part in square]
            expected.add(tuple(int(value) for part in pair for value in part.flatten()))
    assert len(expected) == 8
    assert set(ways) == expected
    assert min(ways.values()) > 60  # 100 each


def test_the_generator_alone_decides(numbered):
    patches = dip.datasets.Patches(numbered, 4)
    state = torch.get_rng_state()
    one = patches.draw(20, generator(1))
    assert torch.equal(one, dip.datasets.Patches(str(numbered), 4).draw(20, generator(1)))
    assert not torch.equal(one, patches.draw(20, generator(2)))
    going_on = generator(1)
    patches.draw(20, going_on)
    assert not torch.equal(one, patches.draw(20, going_on))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_patch_may_be_the_whole_picture(tmp_path):
    pixels = noise(6, 6, 3)
    dip.files.write(tmp_path / "a.png", pixels)
    (patch,) = dip.datasets.Patches(tmp_path, 6).draw(1, generator(), augment=False)
    np.testing.assert_array_equal(patch.permute(1, 2, 0), pixels)


def test_depth_gray_and_alpha(tmp_path):
    def read(pixels, channels):
        dip.files.write(tmp_path / "a.tif", pixels, force=True)
        return dip.datasets.Patches(tmp_path, 4, channels=channels).draw(1, generator(), augment=False)[0].numpy()

    gray, colour = noise(4, 4), noise(4, 4, 3)
    np.testing.assert_array_equal(read(gray, 1), gray[None])
    np.testing.assert_array_equal(read(gray, 3), np.stack([gray] * 3))
    np.testing.assert_array_equal(read(noise(4, 4, 4), 3), noise(4, 4, 4)[..., :3].transpose(2, 0, 1))
    np.testing.assert_array_equal(read(colour.astype(np.uint16) * 257, 3), colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(read((colour / 255).astype(np.float32), 3), colour.transpose(2, 0, 1))
    from PIL import Image

    luma = np.asarray(Image.fromarray(colour).convert("L")).astype(int)  # the same weights, in whole numbers
    assert np.abs(read(colour, 1)[0].astype(int) - luma).max() <= 1
    for wrong in (np.nan, 1.5, -0.5):
        with pytest.raises(ValueError, match=r"a.tif has floats out of \[0, 1\]"):
            read(np.full((4, 4), wrong, np.float32), 1)


def test_pictures_of_few_bits_in_sixteen_have_one_white_for_all(tmp_path):
    for name, pixels in (("dark", noise(4, 4).astype(np.uint16)), ("bright", noise(4, 4).astype(np.uint16) * 16)):
        pixels[0, 0] = 0
        dip.files.write(tmp_path / f"{name}.tif", pixels)
    dip.files.write(tmp_path / "eight.tif", eight := noise(4, 4))
    highest = int(pixels.max())
    with pytest.warns(RuntimeWarning, match=f"end at {highest}: their white is taken for 4095 .12 bits."):
        patches = dip.datasets.Patches(tmp_path, 4, channels=1)
    bright, dark, untouched = (picture[0] for picture in patches._pictures)
    np.testing.assert_array_equal(bright, np.rint(pixels * (255 / 4095)))
    assert dark.max() <= 16
    np.testing.assert_array_equal(untouched, eight)


def test_small_pictures_are_left_out_and_named(numbered, tmp_path):
    dip.files.write(tmp_path / "small.png", noise(11, 2))
    with pytest.warns(RuntimeWarning, match=r"1 of 6 pictures are smaller than 8 x 8 and are left out: .*small.png"):
        patches = dip.datasets.Patches(tmp_path, 8)
    assert [path.name for path in patches.paths] == [f"{index}.png" for index in range(5)]
    with pytest.raises(ValueError, match="no picture of 12 x 12 pixels or more"):
        dip.datasets.Patches(tmp_path, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(dip.datasets.Patches(tmp_path, 8, limit=3)) == 3


def test_splits_share_no_picture(numbered):
    patches = dip.datasets.Patches(numbered, 3)
    training, validation = patches.split(0.4, seed=0)
    assert (len(training), len(validation)) == (3, 2)
    assert sorted(training.paths + validation.paths) == sorted(patches.paths)
    reds = [set(part.draw(200, generator())[:, 0].flatten().tolist()) for part in (training, validation)]
    assert [len(found) for found in reds] == [3, 2]
    assert not reds[0] & reds[1]
    assert patches.split(0.4, seed=0)[1].paths == validation.paths
    assert len({patches.split(0.4, seed=seed)[1].paths for seed in range(10)}) > 1
    assert [len(part) for part in patches.split(0.01, seed=0)] == [4, 1]
    assert [len(part) for part in patches.split(0.99, seed=0)] == [1, 4]


def test_wrong_arguments(numbered, tmp_path):
    with pytest.raises(ValueError, match="channels must be 3"):
        dip.datasets.Patches(numbered, 4, channels=2)
    with pytest.raises(ValueError, match="size must be"):
        dip.datasets.Patches(numbered, 0)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        dip.datasets.Patches(tmp_path / "nowhere", 4)
    patches = dip.datasets.Patches(numbered, 4)
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator on the CPU, not 0"):
        patches.draw(1, 0)
    with pytest.raises(ValueError, match="validation must be above 0 and below 1"):
        patches.split(1.0, seed=0)
    with pytest.raises(ValueError, match="one picture cannot be divided"):
        dip.datasets.Patches(numbered, 4, limit=1).split(seed=0)
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"3.png is damaged"):
        dip.datasets.Patches(numbered, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no pictures"):
        dip.datasets.Patches(tmp_path / "empty", 4)


def test_pictures_that_do_not_fit_into_memory_are_refused(numbered, monkeypatch):
    monkeypatch.setattr(dip.devices, "free_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"take fewer of them \(limit=\)"):
        dip.datasets.Patches(numbered, 4)
    assert len(dip.datasets.Patches(numbered, 4, limit=3)) == 3
