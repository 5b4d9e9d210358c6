"""The pictures of a folder on the workers of a Dask cluster, which see none of its files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import trivial
from skimage.io import imread, imsave

from dip import cli
from dip.batch import Dask, InProcess, Processes
from dip.console import Console
from dip.folder import Folder
from dip.order import Order
from dip.trained import architectures, store

QUICK = ("--iters", "2", "--down", "8,8", "--skip", "4x2", "--precision", "float32")


@pytest.fixture(scope="module")
def scheduler():
    """Two worker processes that are begun in another folder than the pictures' and replaced when they die."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**options, resources={"GPU": 1}) as cluster:
        cluster.wait_for_workers(2)
        yield cluster.scheduler_address


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12 + number, 17, 3), np.uint8)
        for folder in ("in/below", "clean/below"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            imsave(f"{folder}/{number}.png", pixels, check_contrast=False)
    Path("in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")


def same(one: str, other: str) -> None:
    """The results of two runs; to the last bit where the workers have as many threads as this process."""
    assert sorted(p.relative_to(one) for p in Path(one).rglob("*")) == sorted(
        p.relative_to(other) for p in Path(other).rglob("*")
    )
    for path in Path(one).rglob("*.png"):
        first, second = (imread(name).astype(int) for name in (path, other / path.relative_to(one)))
        np.testing.assert_allclose(first, second, atol=0 if torch.get_num_threads() == 1 else 1)


def test_results_and_reports_are_those_of_this_process(scheduler, capsys):
    words = ["denoise", "in", *QUICK, "--reference", "clean", "--save-every", "1", "--traceback"]
    shutil.copy("in/broken.png", "clean/broken.png")
    assert cli.main([*words, "-o", "one", "--json", "one.json"]) == 1
    here = capsys.readouterr()
    words += ["-o", "two", "--json", "two.json", "--scheduler", scheduler, "--threads", "1", "--resource", "GPU=1"]
    assert cli.main(words) == 1
    there = capsys.readouterr()
    assert there.out.splitlines()[-1] == "3 done, 1 failed"
    assert "in/broken.png" in there.err
    assert "Traceback" in there.err
    assert "dip-" not in there.err.replace("dip-report", "")  # the names are those of here
    assert here.err.splitlines()[-1] == there.err.splitlines()[-1]
    same("one", "two")
    assert len(list(Path("two").rglob("*.iter000001.png"))) == 3
    one, two = (json.loads(Path(name).read_text()) for name in ("one.json", "two.json"))
    for first, second in zip(one, two, strict=True):
        assert second["output"] == first["output"].replace("one", "two")
        for name in ("input", "status", "reference", "error", "iterations"):
            assert second.get(name) == first.get(name)
    for first, second in zip(one[:3], two[:3], strict=True):
        assert second["figures"] == pytest.approx(first["figures"], abs=0.2)
    assert cli.main(words) == 1  # what is there is kept
    assert capsys.readouterr().out.splitlines()[-1] == "3 kept, 1 failed"


def test_masks_and_pictures_of_another_size_travel_too(scheduler):
    mask = np.full((12, 17), 255, np.uint8)
    mask[3:6, 4:9] = 0
    imsave("mask.png", mask, check_contrast=False)
    Path("in/broken.png").unlink()
    for number in (1, 2):
        Path(f"in/below/{number}.png").unlink()
    for command in (("inpaint", "in", "--mask", "mask.png"), ("super-resolve", "in/below", "--factor", "2")):
        assert cli.main([*command, "-o", f"{command[0]}-here", *QUICK]) == 0
        there = f"{command[0]}-there"
        assert cli.main([*command, "-o", there, *QUICK, "--scheduler", scheduler, "--threads", "1"]) == 0
        same(f"{command[0]}-here", there)


def test_a_trained_model_travels_with_the_picture(scheduler, monkeypatch):
    model = architectures.create("cnn5", 3, width=3, generator=torch.Generator().manual_seed(0))
    store.write("mine.safetensors", model, "cnn5", {"width": 3}, {"recipe": {}})
    Path("in/broken.png").unlink()
    words = ["denoise", "in", "--backend", "trained", "--model", "mine.safetensors", "--device", "cpu"]
    assert cli.main([*words, "-o", "one"]) == 0
    assert cli.main([*words, "-o", "two", "--json", "two.json", "--scheduler", scheduler]) == 0
    same("one", "two")
    assert json.loads(Path("two.json").read_text())[0]["settings"]["file"] == "mine.safetensors"


def test_the_device_is_the_workers(scheduler, capsys):
    """What this machine lacks, they may have; here they lack it too, and that is said of each picture."""
    words = ["denoise", "in/below", "-o", "out", *QUICK, "--device", "cuda:7"]
    assert cli.main(words) == 2
    assert cli.main([*words, "--scheduler", scheduler]) == 1
    assert capsys.readouterr().err.count("is not on this machine") == 4


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL")
@pytest.mark.parametrize("where", ["Dask", "processes"])
def test_a_killed_worker_costs_a_repeat_of_its_job(scheduler, where, tmp_path, capsys):
    shutil.move("in/broken.png", "in/deadly.png")
    folder = Folder(Path("in"), Path("out"), Order(command="denoise"), trivial.never)
    place = Dask(scheduler) if where == "Dask" else Processes(2)
    assert folder.run(Console(), place, partial(trivial.copied_at_the_second_try, tmp_path)) == 0
    assert (tmp_path / "deaths").exists()
    assert sorted(path.name for path in Path("out").rglob("*.png")) == ["0.png", "1.png", "2.png", "deadly.png"]
    assert Path("out/deadly.png").read_bytes() == Path("in/deadly.png").read_bytes()
    assert capsys.readouterr().out.splitlines()[-1] == "4 done"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="os.kill")
def test_ctrl_c_ends_it_and_what_is_done_is_kept(scheduler, capsys):
    Path("in/broken.png").unlink()
    folder = Folder(Path("in"), Path("out"), Order(command="denoise"), trivial.never)
    place = Dask(scheduler)
    timer = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    assert folder.run(Console(), place, trivial.slow) == 130
    timer.join()
    assert capsys.readouterr().out.splitlines()[-1] == "3 not finished"


def test_a_result_that_another_wrote_meanwhile_is_not_replaced(capsys):
    Path("in/broken.png").unlink()
    folder = Folder(Path("in"), Path("out"), Order(command="denoise"), trivial.never)

    def meanwhile(parcel):
        parcel.job.target.parent.mkdir(parents=True, exist_ok=True)
        parcel.job.target.write_bytes(b"another's")
        return trivial.copied_unless_deadly(parcel)

    assert folder.run(Console(), InProcess(), meanwhile) == 1
    assert Path("out/below/0.png").read_bytes() == b"another's"
    assert capsys.readouterr().err.count("0.png exists") == 1


REFUSALS = [
    (["in", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "--workers means nothing with --scheduler"),
    (["in", "--scheduler", "tcp://127.0.0.1:1", "--gpus", "0"], "--gpus means nothing with --scheduler"),
    (["in", "--scheduler", "tcp://127.0.0.1:1", "--checkpoint", "x"], "--checkpoint is for one picture"),
    (["in", "--scheduler", "tcp://127.0.0.1:1", "--checkpoint-every", "5"], "--checkpoint-every is for one picture"),
    (["in", "--workers", "2", "--resume", "mask.png"], "--resume is for one picture"),
    (["in", "--resource", "GPU=1"], "--resource means nothing without --scheduler"),
    (["in", "--threads", "2"], "--threads means nothing without --workers"),
    (["in/below/0.png", "--scheduler", "tcp://127.0.0.1:1"], "--scheduler is for a folder"),
    (["in/below/0.png", "--gpus", "all"], "--gpus is for a folder"),
    (["in/below/0.png", "--threads", "2"], "--threads is for a folder"),
]


@pytest.mark.parametrize(("words", "message"), REFUSALS, ids=[" ".join(one[0]) for one in REFUSALS])
def test_what_does_not_go_together_is_refused(words, message, capsys):
    Path("mask.png").touch()
    assert cli.main(["denoise", *words, "-o", "out", *QUICK]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()
