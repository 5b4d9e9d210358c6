"""The demo, and the pictures with labels that it makes."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch

from dip import cli, degradations, demo, files
from dip.plot import side_by_side
from dip.solver import Fit


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the demo writes is not to be found elsewhere."""
    monkeypatch.chdir(tmp_path)


def panels(path: Path, gap: int = 8) -> list[np.ndarray]:
    """The three pictures below their labels."""
    pixels = files.read(path).pixels
    assert pixels.shape[1] == 3 * 256 + 4 * gap
    bottom = pixels.shape[0] - gap
    return [pixels[bottom - 256 : bottom, left : left + 256] for left in range(gap, 3 * 256, 256 + gap)]


def test_photograph_is_cut_from_the_astronaut():
    photo = demo.photograph()
    assert (photo.shape, photo.dtype) == ((256, 256, 3), np.uint8)
    np.testing.assert_array_equal(photo, skimage.data.astronaut()[0:256, 96:352])


def test_demo_writes_noisy_restored_and_original_and_tells_their_psnr(capsys):
    assert cli.main(["demo", "--iters", "3", "--seed", "4"]) == 0
    noisy, restored, original = panels(Path("dip-demo.png"))
    clean = demo.photograph()
    np.testing.assert_array_equal(original, clean)
    np.testing.assert_array_equal(noisy, degradations.gaussian(clean, 25, seed=4))
    text = capsys.readouterr().out
    for image, name in ((noisy, "noisy"), (restored, "restored")):
        psnr = skimage.metrics.peak_signal_noise_ratio(clean, image)
        assert f"{psnr:.2f} dB" in re.search(rf"^{name}: +(.*)$", text, re.MULTILINE)[1]
    assert "dip-demo.png" in text.splitlines()[-1]


def test_demo_tells_every_tenth_part_where_no_bar_is_seen(capsys):
    assert cli.main(["demo", "--iters", "20"]) == 0
    output = capsys.readouterr()
    assert re.findall(r"iteration (\d+) of 20", output.out) == [str(i) for i in range(2, 21, 2)]
    assert output.err == ""


def test_demo_keeps_an_existing_file_and_says_so_before_the_fit(monkeypatch, capsys):
    def never(self: Fit) -> None:
        raise AssertionError("fitted")

    monkeypatch.setattr(Fit, "step", never)
    Path("dip-demo.png").write_bytes(b"mine")
    assert cli.main(["demo"]) == 2
    assert "--force" in capsys.readouterr().err
    assert Path("dip-demo.png").read_bytes() == b"mine"


def test_demo_replaces_by_force_and_is_quiet_when_asked(capsys):
    Path("demo.png").write_bytes(b"old")
    assert cli.main(["demo", "-o", "demo.png", "--iters", "2", "--force", "--quiet"]) == 0
    assert len(panels(Path("demo.png"))) == 3
    assert capsys.readouterr() == ("", "")


def test_interrupted_demo_writes_what_it_has(monkeypatch, capsys):
    iterate = Fit._iterate

    def interrupted(self: Fit) -> None:
        iterate(self)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Fit, "_iterate", interrupted)
    assert cli.main(["demo", "--iters", "50"]) == 130
    said = capsys.readouterr().out
    assert "after 1 iterations" in said
    assert said.splitlines()[-1].startswith("interrupted; dip-demo.png: ")
    assert len(panels(Path("dip-demo.png"))) == 3


# ---------------------------------------------------------------------- labelled pictures


@pytest.mark.parametrize(
    "picture",
    [
        np.full((40, 60), 51, np.uint8),
        np.full((40, 60, 3), 51 * 257, np.uint16),
        np.full((40, 60, 3), 0.2, np.float64),
        torch.full((3, 40, 60), 0.2),
        np.concatenate([np.full((40, 60, 3), 51, np.uint8), np.zeros((40, 60, 1), np.uint8)], axis=2),
    ],
    ids=["gray", "16 bits", "floats", "tensor", "alpha"],
)
def test_pictures_of_any_kind_are_shown_as_they_are(picture):
    row = side_by_side([picture, picture], ["a", "b"], gap=5)
    assert row.dtype == np.uint8
    assert row.shape[1:] == (2 * 60 + 3 * 5, 3)
    for left in (5, 70):
        assert (row[-45:-5, left : left + 60] == 51).all()
    assert (row[-5:] == 255).all()
    assert (row[:, 65:70] == 255).all()


def test_each_label_is_centred_above_its_picture():
    black = np.zeros((50, 100), np.uint8)
    row = side_by_side([black, black, black], ["before", "", "HHHHH"], gap=10)
    head = row[: -50 - 10].min(axis=(0, 2)) < 128
    ink = [np.flatnonzero(head[left : left + 100]) for left in (10, 120, 230)]
    assert ink[1].size == 0
    for columns in (ink[0], ink[2]):
        assert columns.mean() == pytest.approx(49.5, abs=4)


def test_long_labels_get_smaller_letters():
    black = np.zeros((30, 120), np.uint8)
    tall, low = (side_by_side([black], [label]).shape[0] for label in ("short", "quite a long label it is"))
    assert low < tall


def test_small_pictures_are_centred_in_their_cell():
    row = side_by_side([np.zeros((10, 20)), np.full((30, 40), 0.5)], ["", ""], gap=0)
    top = row.shape[0] - 30
    assert (row[top + 10 : top + 20, 10:30] == 0).all()
    assert (row[top:, :40] == 0).sum() == 10 * 20 * 3


def test_values_outside_the_range_are_clipped():
    row = side_by_side([np.array([[-0.5, 1.5]])], [""], gap=0)
    assert row[-1, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("pictures", "labels", "message"),
    [
        ([], [], "one label for each"),
        ([np.zeros((4, 4))], ["a", "b"], "one label for each"),
        ([torch.zeros(2, 4, 4)], ["a"], "only gray and RGB"),
    ],
)
def test_what_cannot_be_shown_is_refused(pictures, labels, message):
    with pytest.raises(ValueError, match=message):
        side_by_side(pictures, labels)
