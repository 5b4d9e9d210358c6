"""Checkpoints: a resumed fit is the same fit, bit for bit, also after SIGKILL; what does not belong is refused."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small import NET, QUICK, assert_equal_states, picture, quick_fit, trained_state

import dip
from dip import CheckpointError, checkpoint, likeness

ROOT = Path(__file__).resolve().parent.parent


def temporary_files(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


MASK = np.random.default_rng(0).random((9, 14)) < 0.7
TASKS = {
    "denoise": (lambda: dip.Denoise(picture((9, 14, 3), "uint8")), {}),
    "inpaint": (lambda: dip.Inpaint(picture((9, 14)), MASK), {}),
    "inpaint, filtered": (
        lambda: dip.Inpaint(picture((9, 14)), MASK),
        {"code": dip.codes.Autoencoding(noise=0, renewed=4)},
    ),
    "super-resolve": (lambda: dip.SuperResolve(picture((5, 6, 3)), 2), {}),
    "deblur": (
        lambda: dip.Deblur(picture((9, 14, 3)), dip.operators.gaussian_psf(0.8)),
        {"code": dip.codes.Autoencoding(scale=1.0, renewed=4), "loss": "back-projection", "consistent": True},
    ),
    "dejpeg": (
        lambda: dip.Dejpeg(dip.degradations.jpeg(picture((9, 14, 3)), 50), dip.operators.JPEG(50)),
        {"code": dip.codes.Autoencoding(scale=1.0, renewed=4), "loss": "quantization", "consistent": True},
    ),
    "reconstruct": (lambda: dip.Reconstruct(picture((9, 14))[None, None, ::2], lambda x: x[..., ::2, :], (9, 14)), {}),
    "optimised code": (lambda: dip.Denoise(picture()), {"optimize_code": True}),
    "no jitter": (lambda: dip.Denoise(picture()), {"jitter": 0}),
    "flips": (lambda: dip.Denoise(picture((9, 14, 3))), {"flips": 2}),
    "no average": (lambda: dip.Denoise(picture()), {"average": 0}),
    "window": (lambda: dip.Denoise(picture()), {"stop": dip.stopping.WindowedVariance(3, 50, earliest=1)}),
    "moving variance": (lambda: dip.Denoise(picture((9, 14, 3))), {"stop": dip.stopping.MovingVariance(earliest=1)}),
    "penalty": (lambda: dip.Denoise(picture()), {"penalty": dip.losses.TotalVariation(0.1), "loss": "huber"}),
    "lbfgs": (lambda: dip.Denoise(picture()), {"optimizer": "lbfgs", "jitter": 0}),
    "lbfgs and code": (lambda: dip.Denoise(picture()), {"optimizer": "lbfgs", "jitter": 0, "optimize_code": True}),
    "one pixel": (lambda: dip.Denoise(picture((1, 1))), {}),
    "bfloat16": (lambda: dip.Denoise(picture()), {"precision": "bfloat16"}),
}  # fmt: skip


@pytest.mark.parametrize("case", TASKS)
def test_resumed_equals_uninterrupted(case, tmp_path):
    task, options = TASKS[case]
    path = tmp_path / "fit.st"
    whole = quick_fit(task(), iters=11, reference=None, **options)
    quick_fit(task(), iters=6, checkpoint=path, **options)
    resumed = quick_fit(task(), iters=11, resume=path, **options)
    assert resumed.iteration == 11
    assert np.array_equal(resumed.image, whole.image)
    for name, series in whole.history.items():
        assert np.array_equal(resumed.history[name], series), name
    assert_equal_states(trained_state(resumed), trained_state(whole))
    if whole.settings.stop is not None:
        assert resumed.settings.stop.value == whole.settings.stop.value
        assert torch.equal(resumed.picture, whole.picture)


def test_resumed_before_and_after_a_divergence(tmp_path):
    """The last good state and the shortened steps are part of the checkpoint."""

    def sick(calls):
        def loss(prediction, y):
            calls[0] += 1
            value = (prediction - y).square().mean()
            return value * float("nan") if calls[0] == 33 else value

        return loss

    task, path = dip.Denoise(picture()), tmp_path / "fit.st"
    with pytest.warns(RuntimeWarning):
        whole = quick_fit(task, iters=40, loss=sick([0]))
    quick_fit(task, iters=31, loss=sick([0]), checkpoint=path)
    with pytest.warns(RuntimeWarning, match="went back to the state of iteration 26"):
        resumed = quick_fit(task, iters=40, loss=sick([31]), resume=path)
    assert np.array_equal(resumed.image, whole.image)
    path.unlink()
    with pytest.warns(RuntimeWarning):
        quick_fit(task, iters=34, loss=sick([0]), checkpoint=path)
    resumed = quick_fit(task, iters=40, loss=sick([34]), resume=path)
    assert np.array_equal(resumed.image, whole.image)
    assert [recovery["iteration"] for recovery in resumed.recoveries] == [33]


def test_written_every_k_iterations_and_at_the_end(tmp_path):
    path, seen = tmp_path / "fit.st", []

    def look(fit):
        seen.append(path.stat().st_mtime_ns if path.exists() else None)

    quick_fit(iters=8, checkpoint=path, checkpoint_every=3, callbacks=[look])
    # Callbacks run before the iteration's checkpoint is written.
    assert seen[:3] == [None] * 3
    assert seen[3] is not None
    assert seen[3] == seen[5] != seen[6] == seen[7] != path.stat().st_mtime_ns
    assert temporary_files(tmp_path) == []
    assert dip.Fit(dip.Denoise(picture()), **QUICK).load(path).iteration == 8


def test_save_and_load_by_hand(tmp_path):
    fit = dip.Fit(dip.Denoise(picture()), **QUICK)
    assert fit.save(tmp_path / "before.st") == tmp_path / "before.st"
    fit.run(3)
    image = fit.image
    fit.save(tmp_path / "after.st")
    fit.run(2)
    assert fit.load(tmp_path / "after.st") is fit
    assert np.array_equal(fit.image, image)
    assert fit.history.iterations("loss").tolist() == [1, 2, 3]
    fit.load(tmp_path / "before.st")
    assert fit.iteration == 0
    with pytest.raises(RuntimeError, match="not been run"):
        _ = fit.image
    assert np.array_equal(fit.run(3).image, image)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_fit_is_no_pickle(way):
    with pytest.raises(TypeError, match=r"a Fit cannot be copied or pickled; write its state with fit\.save\(path\)"):
        way(quick_fit(iters=1))


def test_count_of_a_resumed_fit_is_the_whole_one(tmp_path):
    path = tmp_path / "fit.st"
    done = quick_fit(iters=5, checkpoint=path)
    again = quick_fit(iters=5, resume=path)
    assert (again.iteration, again.stop_reason) == (5, "iterations")
    assert np.array_equal(again.image, done.image)
    with pytest.warns(RuntimeWarning, match="has 5 iterations already, more than iters=3"):
        assert quick_fit(iters=3, resume=path).iteration == 5
    assert again.seconds == done.seconds > 0


def test_an_interrupted_fit_goes_on_when_resumed(tmp_path):
    path = tmp_path / "fit.st"

    def press(fit):
        if fit.iteration == 3:
            signal.raise_signal(signal.SIGINT)

    fit = quick_fit(iters=7, checkpoint=path, callbacks=[press])
    assert fit.stop_reason == "interrupted"
    resumed = quick_fit(iters=7, checkpoint=path, resume=path)
    assert np.array_equal(resumed.image, quick_fit(iters=7).image)


def test_callbacks_history_is_kept(tmp_path):
    path = tmp_path / "fit.st"
    callbacks = [dip.callbacks.Every(2, lambda fit: fit.record(twice=2.0 * fit.iteration))]
    quick_fit(iters=4, checkpoint=path, callbacks=callbacks)
    resumed = quick_fit(iters=8, resume=path, callbacks=callbacks)
    assert resumed.history["twice"].tolist() == [4, 8, 12, 16]
    assert resumed.history.iterations("twice").tolist() == [2, 4, 6, 8]


def test_contains_nothing_that_could_be_executed(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "fit.st"
    quick_fit(iters=1, checkpoint=path)
    with safe_open(str(path), framework="numpy") as file:
        assert json.loads(file.metadata()["dip"])["format"] == checkpoint.FORMAT
    assert b"pickle" not in path.read_bytes()


# ---------------------------------------------------------------------- what does not belong


def wide(**changes):
    return {**QUICK, **changes}


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (lambda: dip.Denoise(picture(seed=1)), {}, ["another image"]),
        (lambda: dip.Denoise(picture((15, 16, 3))), {}, ["shape: [3, 16, 16] in the file, [3, 15, 16] here"]),
        (lambda: dip.Inpaint(picture(), np.eye(16, dtype=bool)), {}, ['task: "denoise" in the file, "inpaint" here']),
        (lambda: dip.SuperResolve(picture((8, 8, 3)), 2), {}, ["task: ", "operator: null in the file"]),
        (lambda: dip.Denoise(picture() * 255, data_range=255), {}, ["data_range: [0.0, 1.0] in the file, [0.0, 255.0"]),
        (None, {"network": {**NET, "up": [8, 4]}}, ["parameters: 4515 in the file, ", "network: "]),
        (None, {"network": {**NET, "upsampling": "nearest"}}, ["network: ", "bilinear", "nearest"]),
        (None, {"network": {**NET, "activation": "relu"}}, ["network: ", "LeakyReLU(", "(2): ReLU("]),
        (None, {"seed": 1}, ["seed: 0 in the file, 1 here"]),
        (None, {"code": dip.codes.Normal(8)}, ["code: ", "Uniform(channels=8", "Normal(channels=8, scale=0.1)"]),
        (None, {"optimize_code": True}, ["optimize_code: false in the file, true here"]),
        (None, {"loss": "l1"}, ['loss: "MSE()" in the file, "L1()" here']),
        (None, {"penalty": dip.losses.TotalVariation(0.1)}, ["penalty: [] in the file, [", "TotalVariation"]),
        (None, {"optimizer": "lbfgs"}, ["optimizer: ", "lr: "]),
        (None, {"lr": 0.02}, ["lr: 0.01 in the file, 0.02 here"]),
        (None, {"jitter": 0.5}, ["jitter: "]),
        (None, {"average": 0}, ["average: 0.99 in the file, 0.0 here"]),
        (None, {"stop": dip.stopping.MovingVariance()}, ["stop: ", "MovingVariance(0.1, 1000, earliest=400)"]),
        (None, {"precision": "bfloat16"}, ['precision: "float32" in the file, "bfloat16" here']),
    ],
)  # fmt: skip
def test_refused_for_another_fit(tmp_path, task, options, words):
    path = tmp_path / "fit.st"
    quick_fit(iters=1, checkpoint=path)
    other = dip.Denoise(picture()) if task is None else task()
    with pytest.raises(CheckpointError) as caught:
        quick_fit(other, iters=2, resume=path, **options)
    message = str(caught.value)
    assert "belongs to another fit" in message
    for part in (*words, str(path), "Resume with the same image and settings, or start anew without resume="):
        assert part in message


def test_another_preset_is_named_and_not_all_that_follows_from_it(tmp_path):
    path, code = tmp_path / "fit.st", dip.codes.Uniform(8)
    settings = {"code": code, "jitter": 0.03, "flips": 0}
    quick_fit(iters=1, checkpoint=path, preset="paper", **settings)
    with pytest.raises(CheckpointError, match=r'fit; preset: "paper" in the file, "fast" here\. Resume'):
        quick_fit(iters=2, resume=path, preset="fast")
    fit = quick_fit(iters=2, resume=path, preset="fast", **settings)  # the same settings, given one by one
    assert fit.iteration == 2


def test_another_size_is_named_and_not_all_that_follows_from_it(tmp_path):
    path = tmp_path / "fit.st"
    quick_fit(iters=1, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"fit; shape: \[3, 16, 16\] in the file, \[1, 12, 9\] here\. Resume"):
        quick_fit(dip.Denoise(picture((12, 9))), iters=2, resume=path)


def test_refused_for_another_image_as_code(tmp_path):
    path, flash = tmp_path / "fit.st", dip.codes.Image(picture(seed=1))
    quick_fit(iters=1, checkpoint=path, code=flash)
    quick_fit(iters=2, resume=path, code=dip.codes.Image(picture(seed=1)))
    with pytest.raises(CheckpointError, match="belongs to another fit; another code"):
        quick_fit(iters=2, resume=path, code=dip.codes.Image(picture(seed=2)))


def test_refused_for_another_mask_and_another_measurement(tmp_path):
    path = tmp_path / "fit.st"
    quick_fit(dip.Inpaint(picture((9, 14)), MASK), iters=1, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"belongs to another fit; another image \(or mask"):
        quick_fit(dip.Inpaint(picture((9, 14)), ~MASK), iters=2, resume=path)


def test_refused_for_another_version(tmp_path, monkeypatch):
    path = tmp_path / "fit.st"
    quick_fit(iters=1, checkpoint=path)
    monkeypatch.setattr(dip.solver, "__version__", "99.0")
    with pytest.raises(CheckpointError, match=f'dip: "{dip.__version__}" in the file, "99.0" here'):
        quick_fit(iters=2, resume=path)


def test_refused_for_another_format(tmp_path, monkeypatch):
    path = tmp_path / "fit.st"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 99)
        quick_fit(iters=1, checkpoint=path)
    message = rf"has checkpoint format 99, this version of dip reads {checkpoint.FORMAT}.*\(dip {dip.__version__}\)"
    with pytest.raises(CheckpointError, match=message):
        quick_fit(iters=2, resume=path)


def own_loss(prediction, y):
    return (prediction - y).abs().mean()


def test_functions_of_ones_own_can_be_resumed_in_another_process(tmp_path):
    """Their repr has an address, which differs from process to process."""
    task, path = dip.Denoise(picture()), tmp_path / "fit.st"

    def options():
        def loss(prediction, y):  # a new function each time, as in a new process
            return own_loss(prediction, y)

        class Rule(dip.stopping.Rule):
            def measure(self, output, loss):
                return float(loss)

        return {"loss": loss, "penalty": [lambda x: x.mean()], "stop": Rule(patience=99, earliest=1)}

    quick_fit(task, iters=2, checkpoint=path, **options())
    assert quick_fit(task, iters=4, resume=path, **options()).iteration == 4


def weighted(gamma):
    return lambda p, y: gamma * (p - y).square().mean()


class Kth(dip.stopping.Rule):
    def __init__(self, k):
        super().__init__(patience=99, earliest=1)
        self.k, self.seen = k, 0

    def measure(self, output, loss):
        self.seen += 1
        return float(loss) if self.seen % self.k == 0 else None


class Lp:
    scale = 1.0

    def __init__(self, p, weights=(1.0,)):
        self.p, self.weights, self.calls = p, torch.tensor(weights), 0

    def __call__(self, prediction, y):
        self.calls += 1
        return ((prediction - y).abs() ** self.p).mean() * self.weights.mean() * self.scale


class Doubled(Lp):
    scale = 2.0


Doubled.__qualname__ = "Lp"


def plus(gamma, x):
    return gamma * x.mean()


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"loss": lambda p, y: (p - y).abs().mean()}, {"loss": lambda p, y: (p - y).square().mean()}, "other code"),
        ({"loss": lambda p, y: 2 * (p - y).norm()}, {"loss": lambda p, y: 3 * (p - y).norm()}, "other code"),
        ({"loss": weighted(1.0)}, {"loss": weighted(2.0)}, 'gamma of the loss: "1.0" in the file, "2.0" here'),
        ({"loss": Lp(1.5)}, {"loss": Lp(2)}, "p of the loss: "),
        ({"loss": Lp(2)}, {"loss": Doubled(2)}, 'Lp.scale of the loss: "1.0" in the file, "2.0" here'),
        ({"loss": Lp(1.5).__call__}, {"loss": Lp(2).__call__}, "p of the loss: "),
        ({"loss": Lp(2, (0.5, 1))}, {"loss": Lp(2, (1, 0.5))}, "other weights of the loss"),
        ({"loss": torch.nn.SmoothL1Loss(beta=0.3)}, {"loss": torch.nn.SmoothL1Loss(beta=0.5)}, "beta of the loss: "),
        ({"penalty": partial(plus, 1e-3)}, {"penalty": partial(plus, 1e-2)}, "argument 1 of penalty 1: "),
        ({"penalty": [torch.mean, lambda x: x.mean()]}, {"penalty": [torch.mean, lambda x: x.amax()]}, "of penalty 2"),
        ({"stop": Kth(7)}, {"stop": Kth(9)}, 'k of the stopping rule: "7" in the file, "9" here'),
    ],
)  # fmt: skip
def test_refused_for_another_function_or_object_of_the_same_name(tmp_path, one, other, words):
    path = tmp_path / "fit.st"
    quick_fit(iters=2, checkpoint=path, **one)
    assert quick_fit(iters=3, resume=path, **one).iteration == 3  # though it counts its calls
    with pytest.raises(CheckpointError) as caught:
        quick_fit(iters=3, resume=path, **other)
    assert words in str(caught.value)


class Tree:
    """Far too many objects to look at."""

    def __init__(self, depth, values):
        self.kinds = [Tree(depth - 1, values) for _ in range(9 * bool(depth))]
        self.values = values

    def __call__(self, prediction, y):
        return (prediction - y).square().mean()


def test_large_objects_are_compared_in_part(tmp_path):
    path, values = tmp_path / "fit.st", np.zeros(2**23)
    fit = quick_fit(iters=1, checkpoint=path, loss=Tree(5, values))
    found = fit.settings.own.lasting()
    assert [key.partition(" (")[0] for key in found][:2] == ["kinds of the loss", "values of the loss"]
    assert quick_fit(iters=2, resume=path, loss=Tree(5, values + 1)).iteration == 2
    with pytest.raises(CheckpointError, match=r"values of the loss: .*8388608.* in the file"):
        quick_fit(iters=2, resume=path, loss=Tree(5, values[1:]))


def test_code_of_another_python_is_not_compared(tmp_path, monkeypatch):
    path = tmp_path / "fit.st"
    with monkeypatch.context() as patch:
        patch.setattr(likeness, "_PYTHON", "cpython-399")
        quick_fit(iters=1, checkpoint=path, loss=partial(lambda p, y, q: (p - y).abs().mean() ** q, q=2))
    other = partial(lambda p, y, q: (p - y).square().mean() ** q, q=2)
    assert quick_fit(iters=2, resume=path, loss=other).iteration == 2
    with pytest.raises(CheckpointError, match='; q of the loss: "2" in the file, "1" here'):
        quick_fit(iters=2, resume=path, loss=partial(other.func, q=1))


def test_a_file_without_what_is_compared_of_functions_is_accepted(tmp_path, monkeypatch):
    path = tmp_path / "fit.st"
    with monkeypatch.context() as patch:
        fingerprint = dip.Fit.fingerprint
        patch.setattr(dip.Fit, "fingerprint", lambda fit: {k: v for k, v in fingerprint(fit).items() if k != "own"})
        quick_fit(iters=1, checkpoint=path, loss=weighted(1.0))
    assert quick_fit(iters=2, resume=path, loss=weighted(1.0)).iteration == 2


OWN = """
import sys, numpy as np, torch, dip
sys.path.insert(0, "tests")
from small import quick_fit
class Blurred(torch.nn.Module):
    kinds = {"b", "a"}
    def __init__(self):
        super().__init__()
        self.register_buffer("kernel", torch.ones(1, 1, 3, 3) / 9)
        self.generator, self.device, self.log = torch.Generator(), torch.device("cpu"), open(sys.argv[3], "w")
        self.names, self.inner = {"x", "y", "z", "long enough"}, torch.nn.L1Loss()
    def forward(self, p, y):
        assert "mean" in {"mean", "sum", "none"}
        return self.inner(p, y) + sum(float(len(n)) for n in ()) + (lambda q: 0 * q.mean())(p)
class Last(dip.stopping.Rule):
    def measure(self, output, loss):
        return -float(loss)
gamma = np.float64(0.5)
rule, path, iters = Last(patience=9, earliest=1), sys.argv[1], int(sys.argv[2])
options = {"resume": path} if iters > 2 else {"checkpoint": path}
penalty = [lambda x, *, g=gamma: g * x.mean(), torch.nn.functional.relu_ and (lambda x: x.std())]
assert quick_fit(iters=iters, loss=Blurred(), penalty=penalty, stop=rule, **options).iteration == iters
"""


def test_the_same_source_is_accepted_in_another_process(tmp_path):
    """With sets in another order, other addresses, another log."""
    for iters in (2, 4):
        argv = [sys.executable, "-c", OWN, str(tmp_path / "fit.st"), str(iters), str(tmp_path / f"{iters}.log")]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, -1])
def test_truncated_files_are_refused(tmp_path, kept):
    path = tmp_path / "fit.st"
    quick_fit(iters=1, checkpoint=path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"is not a readable checkpoint \(.+\); give the file that checkpoint="):
        quick_fit(iters=2, resume=path)


@pytest.mark.parametrize("where", [3, 60, 0.3, 0.6, 0.9, -1])
def test_damaged_files_are_refused(tmp_path, where):
    path = tmp_path / "fit.st"
    quick_fit(iters=1, checkpoint=path)
    whole = bytearray(path.read_bytes())
    whole[int(where * len(whole)) if isinstance(where, float) else where] ^= 0x10
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"is not a readable checkpoint|is damaged|belongs to another fit"):
        quick_fit(iters=2, resume=path)


@pytest.mark.parametrize(
    "content",
    [
        b"not a checkpoint at all, but a text that goes on for a while",
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"\x80\x04\x95" + bytes(100),  # a pickle
        b"PK\x03\x04" + bytes(100),  # a zip, as torch.save writes
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "fit.st"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        quick_fit(iters=2, resume=path)


@pytest.mark.parametrize("metadata", [None, {"dip": "{"}, {"dip": "{}"}, {"dip": "[]"}, {"dip": '{"format": 1}'}])
def test_other_safetensors_files_are_refused(tmp_path, metadata):
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(3)}, str(path), metadata=metadata)
    expected = "a safetensors file, but not a checkpoint of dip" if metadata is None else "not a readable checkpoint"
    with pytest.raises(CheckpointError, match=expected):
        quick_fit(iters=2, resume=path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*nothing\.st.*without resume= a fit starts anew"):
        quick_fit(iters=1, resume=tmp_path / "nothing.st")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        quick_fit(iters=1, resume=tmp_path)


def test_an_existing_checkpoint_is_not_overwritten(tmp_path):
    path = tmp_path / "fit.st"
    quick_fit(iters=2, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists and may be hours of work; give resume="):
        quick_fit(iters=2, checkpoint=path)
    with pytest.raises(FileExistsError):
        quick_fit(iters=2, checkpoint=path, resume=tmp_path / "other.st")
    assert path.read_bytes() == before
    quick_fit(iters=3, checkpoint=str(path), resume=tmp_path / "." / "fit.st")  # the same file in other words
    assert path.read_bytes() != before


def test_a_fit_made_directly_keeps_the_checkpoint_of_another(tmp_path):
    path = tmp_path / "fit.st"
    quick_fit(iters=2, checkpoint=path)
    before = path.read_bytes()
    fit = dip.Fit(dip.Denoise(picture(seed=1)), checkpoint=path, checkpoint_every=1, **QUICK)
    with pytest.raises(FileExistsError, match="give resume="):
        fit.run(1)
    with pytest.warns(RuntimeWarning, match="no checkpoint could be written .* exists and may be hours of work"):
        fit.step()
    assert path.read_bytes() == before
    resumed = dip.Fit(dip.Denoise(picture()), checkpoint=path, **QUICK).load(path)
    resumed.run(1)
    resumed.run(1)
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("forward", "other"),
    [
        (lambda x: x * 1, lambda x: x.flip(-1)),
        (lambda x: x * 1, lambda x: x * 1.1),
        (lambda x: torch.fft.fft2(x, norm="ortho"), lambda x: torch.fft.ifft2(x, norm="ortho")),
    ],
)
def test_refused_for_another_operator_of_the_same_name(tmp_path, forward, other):
    path = tmp_path / "fit.st"
    y = forward(torch.from_numpy(picture((9, 14)))[None, None])

    def fit(operator, iters, **options):
        return quick_fit(dip.Reconstruct(y, operator, (9, 14)), iters=iters, **options)

    fit(forward, 1, checkpoint=path)
    with pytest.raises(CheckpointError, match="belongs to another fit; another forward operator"):
        fit(other, 2, resume=path)
    assert fit(lambda x: forward(x) * (1 + 1e-6), 2, resume=path).iteration == 2  # another order of additions, say


def test_operator_that_is_random_can_be_resumed(tmp_path):
    path = tmp_path / "fit.st"
    y = torch.from_numpy(picture((9, 14)))[None, None]

    def task():
        return dip.Reconstruct(y, lambda x: x + 0.01 * torch.randn_like(x), (9, 14))

    quick_fit(task(), iters=1, checkpoint=path)
    assert quick_fit(task(), iters=2, resume=path).iteration == 2


def test_a_damaged_header_is_refused(tmp_path):
    path = tmp_path / "fit.st"
    quick_fit(iters=6, checkpoint=path)
    whole = path.read_bytes()
    part = b'\\"iteration\\", {\\"value\\": 6'
    assert whole.count(part) == 1
    path.write_bytes(whole.replace(part, part[:-1] + b"9"))
    with pytest.raises(CheckpointError, match="is damaged"):
        quick_fit(iters=12, resume=path)


# ---------------------------------------------------------------------- writing that fails


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_save_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch, function):
    path = tmp_path / "fit.st"
    fit = quick_fit(iters=2, checkpoint=path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, function, full_disk)
        with pytest.raises(OSError, match="cannot be written: No space left on device"):
            fit.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["fit.st"]


def test_what_a_killed_writer_left_is_removed_by_the_fit_that_goes_on(tmp_path, monkeypatch):
    path, other = tmp_path / "fit.st", tmp_path / "other.st"
    with monkeypatch.context() as killed:  # nothing is cleared away, as after SIGKILL
        killed.setattr(os, "replace", lambda *names: None)
        killed.setattr(Path, "unlink", lambda self, missing_ok: None)
        quick_fit(iters=1, checkpoint=path)
        quick_fit(iters=1, checkpoint=other)
    assert len(temporary_files(tmp_path)) == 2
    quick_fit(iters=1, checkpoint=path)
    quick_fit(iters=2, checkpoint=tmp_path / "new.st", resume=path)  # may be at work still for all that one knows
    assert len(temporary_files(tmp_path)) == 2
    quick_fit(iters=2, checkpoint=path, resume=path)
    assert len(temporary_files(tmp_path)) == 1
    assert not other.exists()


def test_a_fit_whose_checkpoint_cannot_be_written_says_so_and_goes_on(tmp_path, monkeypatch):
    path, expected = tmp_path / "fit.st", quick_fit(iters=6)

    def break_disk(fit):
        if fit.iteration == 3:
            monkeypatch.setattr(os, "replace", full_disk)

    with pytest.warns(RuntimeWarning, match="no checkpoint could be written at iteration [46]: .*No space") as caught:
        fit = quick_fit(iters=6, checkpoint=path, checkpoint_every=2, callbacks=[break_disk])
    assert len(caught) == 3  # at 4 and 6, and at the end
    assert (fit.iteration, fit.stop_reason) == (6, "iterations")
    assert np.array_equal(fit.image, expected.image)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["fit.st"]  # that of iteration 2
    assert np.array_equal(quick_fit(iters=6, resume=path).image, expected.image)


def test_a_folder_that_vanishes_is_no_end_either(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()

    def remove(fit):
        if fit.iteration == 3:
            (folder / "fit.st").unlink()
            folder.rmdir()
            folder.write_text("a file where the folder was")

    with pytest.warns(RuntimeWarning, match="no checkpoint could be written at iteration [45]"):
        fit = quick_fit(iters=5, checkpoint=folder / "fit.st", checkpoint_every=2, callbacks=[remove])
    assert np.array_equal(fit.image, quick_fit(iters=5).image)


class Forgetful(dip.stopping.Rule):
    """A rule whose state cannot be written."""

    def measure(self, output, loss):
        return float(loss)

    def state_dict(self):
        return {**super().state_dict(), "thing": object()}


def test_a_state_that_cannot_be_written_is_no_end_either(tmp_path):
    rule = Forgetful(patience=99, earliest=1)
    with pytest.warns(RuntimeWarning, match="a checkpoint cannot hold object"):
        fit = quick_fit(iters=3, checkpoint=tmp_path / "fit.st", stop=rule)
    assert fit.iteration == 3
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written_are_refused_before_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(dip.Fit, "step", lambda self: pytest.fail("an iteration was done"))
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing; create it first"):
        quick_fit(checkpoint=tmp_path / "missing" / "fit.st")
    with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file"):
        quick_fit(checkpoint=tmp_path, resume=tmp_path)
    with pytest.raises(ValueError, match="checkpoint_every= means nothing without checkpoint=FILE"):
        quick_fit(checkpoint_every=5)
    with pytest.raises(ValueError, match="checkpoint_every must be a whole number"):
        quick_fit(checkpoint=tmp_path / "fit.st", checkpoint_every=0)
    import tempfile

    def read_only(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(OSError, match=r"fit\.st' cannot be written: .*Read-only file system.*choose another"):
        quick_fit(checkpoint=tmp_path / "fit.st")


@pytest.mark.parametrize("value", [object(), {1, 2}, np.int64(3), b"bytes"])
def test_only_plain_values_go_into_a_checkpoint(tmp_path, value):
    with pytest.raises(TypeError, match=rf"cannot hold {type(value).__name__} \(at /a/1\)"):
        checkpoint.save(tmp_path / "x.st", {"a": [1, value]}, {})
    assert os.listdir(tmp_path) == []


def test_nested_states_come_back_as_they_were(tmp_path):
    state = {
        "numbers": [1, 2.5, True, None, "text", float("inf")],
        "nested": {"a": {"b": [torch.arange(3), {"c": torch.tensor(1.5)}]}},
        "kinds": [torch.tensor([1 + 2j]), torch.tensor(3).bfloat16(), torch.zeros(0, 2), torch.tensor([True])],
        "strided": torch.arange(6.0).reshape(2, 3).T,
        "empty": {},
    }  # fmt: skip
    checkpoint.save(tmp_path / "x.st", state, {"who": ["me", 1, None]})
    back = checkpoint.load(tmp_path / "x.st", {"who": ["me", 1, None]})
    assert back["numbers"] == state["numbers"]
    assert list(back) == list(state)
    assert torch.equal(back["nested"]["a"]["b"][0], torch.arange(3))
    assert back["nested"]["a"]["b"][1]["c"].item() == 1.5
    for one, two in zip(back["kinds"], state["kinds"], strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)
    assert torch.equal(back["strided"], state["strided"])
    assert back["empty"] == {}


# ---------------------------------------------------------------------- SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="fork and SIGKILL are POSIX's")
def test_killed_at_random_moments_and_resumed_is_identical(tmp_path):
    """One run of the experiment of benchmarks/kill_resume.py, in another process."""
    report = tmp_path / "report.json"
    command = [sys.executable, ROOT / "benchmarks" / "kill_resume.py", "--runs", "1", "--kills", "2", "--iters", "40"]
    command += ["--size", "29", "--precision", "float32", "--out", report]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment["OMP_NUM_THREADS"] = "1"
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=500)
    result = json.loads(report.read_text())
    assert result["identical"] == result["runs"] == 1
    assert result["kills"] >= 2
