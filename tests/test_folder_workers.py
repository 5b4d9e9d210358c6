"""The pictures of a folder in several processes at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trivial
from skimage.io import imread, imsave

from dip import cli
from dip.batch import Processes
from dip.console import Console
from dip.folder import Folder
from dip.order import Order

QUICK = ("--iters", "2", "--down", "8,8", "--skip", "4x2", "--precision", "float32")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12 + number, 17, 3), np.uint8)
        Path("in/below").mkdir(parents=True, exist_ok=True)
        imsave(f"in/below/{number}.png", pixels, check_contrast=False)
    Path("in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")


def test_results_and_reports_are_those_of_one_after_the_other(capsys):
    assert cli.main(["denoise", "in", "-o", "one", "--json", "one.json", *QUICK]) == 1
    capsys.readouterr()
    words = ["denoise", "in", "-o", "two", "--json", "two.json", *QUICK]
    assert cli.main([*words, "--workers", "2"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "3 done, 1 failed"
    assert "broken.png" in said.err
    for number in range(3):
        # A worker has its share of the threads, and sums in another order round otherwise.
        one, two = (imread(f"{folder}/below/{number}.png").astype(int) for folder in ("one", "two"))
        np.testing.assert_allclose(two, one, atol=1)
    one, two = (json.loads(Path(name).read_text()) for name in ("one.json", "two.json"))
    assert [report["input"] for report in two] == [report["input"] for report in one]
    assert [report["status"] for report in two] == ["done", "done", "done", "failed"]
    for first, second in zip(one[:3], two[:3], strict=True):
        losses = [report["history"]["loss"]["value"] for report in (first, second)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)

    assert cli.main([*words, "--workers", "2"]) == 1  # what is there is kept
    assert capsys.readouterr().out.splitlines()[-1] == "3 kept, 1 failed"
    assert [report["status"] for report in json.loads(Path("two.json").read_text())][:3] == ["done"] * 3


def test_a_picture_that_takes_its_process_down_leaves_the_others_alone(capsys):
    shutil.move("in/broken.png", "in/deadly.png")
    folder = Folder(Path("in"), Path("out"), Order(command="denoise"), trivial.never)
    assert folder.run(Console(), Processes(2), trivial.copied_unless_deadly) == 1
    said = capsys.readouterr()
    assert sorted(path.name for path in Path("out").rglob("*.png")) == ["0.png", "1.png", "2.png"]
    assert said.out.splitlines()[-1] == "3 done, 1 failed"
    assert "deadly.png: its worker died 3 times" in said.err


def test_one_picture_needs_no_workers(capsys):
    assert cli.main(["denoise", "in/below/0.png", "-o", "out.png", "--workers", "2", *QUICK]) == 2
    assert "--workers is for a folder" in capsys.readouterr().err


def test_what_is_wrong_with_the_options_is_told_once(capsys):
    words = ["denoise", "in/below", "-o", "out", *QUICK, "--stop", "windowed-variance", "--workers", "2"]
    assert cli.main(words) == 0
    assert capsys.readouterr().err.count("warning") == 1
