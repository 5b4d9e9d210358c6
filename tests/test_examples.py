"""The examples run from start to end at a toy size, and what they write is a figure."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from skimage.io import imread, imsave
from skimage.transform import radon

import dip

FOLDER = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))

pytest.importorskip("matplotlib", reason="the examples draw; install deep-image-prior[plot]")


@pytest.fixture(autouse=True)
def _drawing_needs_no_screen(monkeypatch):
    import matplotlib as mpl
    from matplotlib import pyplot

    before = mpl.get_backend()
    pyplot.switch_backend("agg")
    yield
    # What other tests may not see: a figure in memory, and pyplot's choice of backend.
    pyplot.close("all")
    pyplot.switch_backend(before)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run an example in this process; return its variables, what it printed and where its figure is."""

    def run(name: str, *arguments: str) -> tuple[dict, str, Path]:
        figure = tmp_path / "figures" / "figure.png"  # a folder that is made
        monkeypatch.setattr(sys, "argv", [name, "--out", str(figure), *arguments])
        variables = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return variables, capsys.readouterr().out, figure

    return run


def figures_in(printed: str) -> dict[str, float]:
    """The lines "title: 12.34 dB" as numbers."""
    return {title: float(value) for title, value in re.findall(r"^(.+?): (-?[\d.]+) dB", printed, re.MULTILINE)}


def assert_is_a_drawing(path: Path) -> None:
    pixels = imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 10
    # not one panel only: there is ink in each half, left and right
    assert all(half.std() > 10 for half in np.array_split(pixels, 2, axis=1))


@pytest.fixture
def own_picture(tmp_path):
    """Somebody's photograph: gray, 16 bits, no side a multiple of anything."""
    path = tmp_path / "own.png"
    imsave(path, skimage.data.camera()[100:171, 150:253].astype(np.uint16) * 257, check_contrast=False)
    return path


FEW = pytest.mark.filterwarnings("ignore:WindowedVariance looks at nothing before")  # in so few iterations


@FEW
@pytest.mark.parametrize(
    ("name", "printed_figures"),
    [
        ("denoise", ["given (noisy)", "last output, iteration 3", "returned"]),
        ("inpaint", ["given", "biharmonic", "Deep Image Prior"]),
        ("super_resolve", ["given (nearest)", "bicubic", "Deep Image Prior"]),
        ("deblur", ["blurred", "Richardson-Lucy, best count", "Deep Image Prior"]),
        ("few_photons", ["counted", "noise the same everywhere", "noise of photons"]),
        ("dejpeg", ["JPEG", "total variation, best strength", "Deep Image Prior"]),
        ("own_operator", ["filtered back-projection", "Deep Image Prior"]),
    ],
)
@pytest.mark.usefixtures("few_turns")
def test_example_draws_and_prints(run, name, printed_figures):
    _, printed, figure = run(name, "--iters", "3")
    assert_is_a_drawing(figure)
    figures = figures_in(printed)
    assert list(figures) == printed_figures
    assert all(0 < value < 60 for value in figures.values())


@FEW
@pytest.mark.usefixtures("few_turns")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_takes_a_picture_of_ones_own(run, own_picture, script):
    extra = ["--size", "40"] if script.stem == "noise_impedance" else []
    run_it = run(script.stem, "--iters", "2", "--image", str(own_picture), *extra)
    assert_is_a_drawing(run_it[2])


def test_trained_compares_under_each_noise(run):
    _, printed, figure = run("trained", "--iters", "2", "--models", "cnn5-residual-bn")
    assert_is_a_drawing(figure)
    figures = figures_in(printed)
    noises, methods = (
        ("Gaussian, sigma 25", "Gaussian, sigma 50", "impulse, 10 %"),
        ("noisy", "Deep Image Prior", "cnn5-residual-bn"),
    )
    assert list(figures) == [f"{noise}, {method}" for noise in noises for method in methods]
    gains = [figures[f"{noise}, cnn5-residual-bn"] - figures[f"{noise}, noisy"] for noise in noises]
    assert gains[0] > 6  # what it was trained on
    assert gains[2] < gains[0]


def test_noise_impedance_writes_its_curves(run, tmp_path):
    report = tmp_path / "curves.json"
    arguments = ("--iters", "25", "--size", "48", "--json", str(report))
    _, printed, figure = run("noise_impedance", *arguments)
    assert_is_a_drawing(figure)
    found = json.loads(report.read_text())
    names = ["photograph", "photograph + noise", "pixels shuffled", "uniform noise"]
    assert list(found["loss"]) == list(figures_in(printed)) == names
    assert found["iteration"][0] == 1
    assert found["iteration"][-1] == found["iterations"] == 25
    curves = np.array([found["loss"][name] for name in names])
    assert curves.shape == (4, len(found["iteration"]))
    assert all(not np.allclose(a, b, rtol=0.02) for i, a in enumerate(curves) for b in curves[:i])
    # what is left unexplained: the photograph is ahead even after so few iterations, and the last two are nowhere yet
    left = [found["final_loss"][name] / found["variance"][name] for name in names]
    assert left[0] < left[1] < min(left[2:])
    assert found["settings"]["jitter"] == 0
    assert {"seed", "environment", "date", "reached"} <= set(found)


def test_noise_impedance_goes_on_from_its_checkpoints(run, tmp_path):
    arguments = ("--iters", "4", "--size", "32", "--checkpoints", str(tmp_path / "kept"))
    first, printed, _ = run("noise_impedance", *arguments)
    second, again, _ = run("noise_impedance", *arguments)
    assert printed == again
    for name, fit in second["fits"].items():
        assert np.array_equal(fit.history["loss"], first["fits"][name].history["loss"])
        assert fit.seconds == first["fits"][name].seconds  # nothing was computed anew


def test_the_radon_operator_is_that_of_scikit_image(run):
    variables, _, _ = run("own_operator", "--iters", "1", "--views", "7")
    image = np.zeros((127, 127), np.float32)
    image[30:50, 40:45] = 1  # without symmetry, so that a wrong sense of rotation shows
    own = variables["project"](variables["torch"].from_numpy(image)[None, None]).numpy()
    np.testing.assert_allclose(own, radon(image, variables["angles"]), atol=2e-3)


@pytest.mark.parametrize("script", [path.stem for path in SCRIPTS])
def test_a_figure_that_cannot_be_written_is_refused_before_the_fit(script, monkeypatch, tmp_path):
    monkeypatch.setattr(dip.Fit, "step", lambda self: pytest.fail("an iteration was done"))
    monkeypatch.setattr(sys, "argv", [script, "--out", str(tmp_path / "figure.gif")])
    with pytest.raises(ValueError, match="has an extension that cannot be written"):
        runpy.run_path(str(FOLDER / f"{script}.py"), run_name="__main__")
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setattr(sys, "argv", [script, "--out", str(blocked / "figure.png")])
    with pytest.raises(OSError, match="figure"):
        runpy.run_path(str(FOLDER / f"{script}.py"), run_name="__main__")


def test_an_example_runs_as_a_script_of_its_own(tmp_path):
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(FOLDER.parent)}
    done = subprocess.run(
        [sys.executable, str(FOLDER / "denoise.py"), "--iters", "2"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert_is_a_drawing(tmp_path / "denoise.png")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_examples_are_cells_with_text(script):
    text = script.read_text(encoding="utf-8")
    assert text.count("# %% [markdown]") >= 3
    assert "# ## What to see" in text
    # the public face only
    assert not re.findall(r"\bdip\.[\w.]*\._\w+|from dip", text)
