"""Training: what the pairs show, what is learned, and that an interruption changes nothing."""

from __future__ import annotations

import builtins
import json
import math
import os
import signal

import numpy as np
import pytest
import torch

import dip
from dip.trained import Recipe, noise, store
from dip.trained.pairs import decibels, prepare
from dip.trained.training import Training


def pictures(count: int = 24, size: int = 12, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth pictures, (N, H, W, C), uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    waves = rng.uniform(1, 5, (count, 2, 1, 1))
    values = 0.5 + 0.4 * np.sin(waves[:, 0] * x + waves[:, 1] * y + rng.uniform(0, 6, (count, 1, 1)))
    stack = np.stack([np.roll(values, i, axis=0) for i in range(channels)], axis=-1)
    return np.rint(255 * stack).astype(np.uint8)


QUICK = {"model": "cnn5", "width": 4, "epochs": 2, "batch": 8, "lr": 1e-2}


def training(data=None, *, out=None, resume=False, **options) -> Training:
    recipe = Recipe(**{**QUICK, **options})
    chosen = pictures() if data is None else data
    return Training(recipe, chosen, out=out, resume=resume, device="cpu", progress=False)


def weights(one: Training) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in one.model.state_dict().values()]


def equal(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# ---------------------------------------------------------------------- noise


@pytest.mark.parametrize(
    ("text", "variance"),
    [("gaussian:25", (25 / 255) ** 2), ("poisson:30", 0.5 / 30), ("impulse:0.2", 0.2 * 0.25)],
)
def test_noise_has_the_variance_that_it_should(text, variance):
    grey = np.full((200, 1, 16, 16), 0.5, np.float32)
    noisy = noise.read(text)(grey, np.random.default_rng(0))
    assert noisy.dtype == np.float32
    assert float((noisy - grey).var()) == pytest.approx(variance, rel=0.03)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=0.003)


def test_noise_of_training_is_that_of_the_degradations():
    """Drawn in float64, the same numbers as `dip.degradations` on the same picture."""
    x = np.random.default_rng(1).random((1, 3, 8, 9))
    ours = noise.Noise("gaussian", 25.0, 25.0)
    rng = np.random.default_rng(0)
    rng.uniform(0, 1, (1, 1, 1, 1))  # the level
    expected = x + 25 / 255 * rng.standard_normal(x.shape)
    np.testing.assert_allclose(ours(x, np.random.default_rng(0)), expected)
    again = dip.degradations.gaussian(x[0].transpose(1, 2, 0), 25, clip=False, seed=0)
    drawn = dip.degradations.add_gaussian(x[0].astype(np.float32).astype(float), 25 / 255, np.random.default_rng(0))
    np.testing.assert_allclose(again, drawn.transpose(1, 2, 0), atol=1e-12)


def test_each_picture_has_a_level_of_its_own():
    grey = np.full((300, 1, 16, 16), 0.5, np.float32)
    spread = noise.read("gaussian:5-55")(grey, np.random.default_rng(0)).std(axis=(1, 2, 3)) * 255
    assert spread.min() < 10
    assert spread.max() > 50
    assert spread.mean() == pytest.approx(30, abs=2)
    clipped = noise.read("gaussian:55", clip=True)(grey, np.random.default_rng(0))
    assert clipped.min() == 0
    assert clipped.max() == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gausian:25", "unknown noise 'gausian'; did you mean 'gaussian'"),
        ("gaussian", "has no level that makes sense"),
        ("gaussian:0", "has no level"),
        ("gaussian:50-10", "has no level"),
        ("gaussian:nan", "has no level"),
        ("impulse:1.5", "has no level"),
        ("poisson:0-3", "has no level"),
        ("poisson:inf", "has no level"),
        (25, "unknown noise 25"),
    ],
)
def test_refused_noise(text, message):
    with pytest.raises(ValueError, match=message):
        noise.read(text)


# ---------------------------------------------------------------------- pairs


def all_pairs(pairs):
    for step in range(pairs.steps):
        yield pairs.training(0, step)
    for step in range(pairs.validation_steps):
        yield pairs.validation(step)


@pytest.mark.parametrize("validate", ["noisy", "clean"])
def test_supervised_pairs_are_noisy_and_clean(validate):
    data = pictures(30)
    pairs, _ = prepare(Recipe(**QUICK, validate=validate), data)
    known = {picture.tobytes() for picture in data}
    shown = []
    for step in range(pairs.steps):
        given, wanted = pairs.training(0, step)
        clean = np.rint(255 * wanted.permute(0, 2, 3, 1).numpy()).astype(np.uint8)
        shown += [picture.tobytes() for picture in clean]
        assert float((given - wanted).std()) == pytest.approx(25 / 255, rel=0.1)
    held = []
    for step in range(pairs.validation_steps):
        given, wanted = pairs.validation(step)
        held += [p.tobytes() for p in np.rint(255 * wanted.permute(0, 2, 3, 1).numpy()).astype(np.uint8)]
        assert torch.equal(given, wanted) == (validate == "clean")
        assert torch.equal(given, pairs.validation(step)[0])
    assert (len(shown), len(held)) == (27, 3)
    assert set(shown) | set(held) == known  # each picture once, on one side


def test_noise2noise_pairs_never_show_a_clean_picture():
    data = pictures(40, channels=1)
    pairs, _ = prepare(Recipe(**QUICK, method="noise2noise"), data)
    clean = torch.from_numpy(data.transpose(0, 3, 1, 2)).float() / 255
    errors = []
    for given, wanted in all_pairs(pairs):
        for pair in zip(given, wanted, strict=True):
            distances = [((part - clean) ** 2).mean(dim=(1, 2, 3)).sqrt() for part in pair]
            both = [float(distance.min()) for distance in distances]
            assert min(both) > 0.8 * 25 / 255  # neither copy is nearer to any clean picture than the noise is strong
            which = int((distances[0] + distances[1]).argmin())
            errors.append([(part - clean[which]).flatten() for part in pair])
    first, second = (torch.cat(part) for part in zip(*errors, strict=True))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.05  # two noises, not one
    assert abs(float(first.mean())) < 0.01


def test_nothing_clean_can_be_reached_from_noise2noise_pairs():
    """Whatever arrays and tensors `Pairs` has are none, and what it returns is noisy (the test above)."""
    pairs, judge = prepare(Recipe(**QUICK, method="noise2noise"), pictures())
    for thing in (pairs, judge):
        assert not [v for v in vars(thing).values() if isinstance(v, np.ndarray | torch.Tensor)]
    assert {name for name in vars(judge) if not name.startswith("_")} == {"steps", "noisy"}


def test_noise2noise_learns_the_same_without_the_judge(monkeypatch):
    """The PSNR against clean pictures decides nothing: neither the weights nor when to stop."""
    options = {"method": "noise2noise", "early_stopping": True, "patience": 1, "epochs": 6, "lr": 0.05}
    one = training(**options).run()
    other = training(**options)
    monkeypatch.setattr(other._judge, "psnr", lambda restore: -1.0)
    other.run()
    assert other.history["psnr_against_clean"] == [-1.0] * other.epoch
    assert one.epoch == other.epoch
    assert one.best_epoch == other.best_epoch
    assert equal(weights(one), weights(other))
    assert one.history["validation_loss"] == other.history["validation_loss"]


def test_noise_is_drawn_anew_and_comes_from_the_seed():
    pairs, _ = prepare(Recipe(**QUICK), pictures())
    again, _ = prepare(Recipe(**QUICK), pictures())
    other, _ = prepare(Recipe(**QUICK, seed=1), pictures())
    first = pairs.training(0, 1)[0]
    assert torch.equal(first, again.training(0, 1)[0])
    assert not torch.equal(first, pairs.training(1, 1)[0])
    assert not torch.equal(first, other.training(0, 1)[0])
    noises = [given - wanted for given, wanted in (pairs.training(epoch, 0) for epoch in (0, 1))]
    assert not torch.equal(*noises)


def test_augmentation_turns_pictures_and_keeps_their_values():
    data = pictures(20)
    pairs, _ = prepare(Recipe(**QUICK, augment=True, noise="none"), data)
    shown = torch.cat([pairs.training(0, step)[1] for step in range(pairs.steps)])
    shown = np.rint(255 * shown.permute(0, 2, 3, 1).numpy()).astype(np.uint8)
    plain = {picture.tobytes() for picture in data}
    ordered = {np.sort(picture, axis=None).tobytes() for picture in data}
    assert sum(picture.tobytes() not in plain for picture in shown) > 8
    assert all(np.sort(picture, axis=None).tobytes() in ordered for picture in shown)


def test_the_judge_measures_psnr():
    data = pictures(20)
    recipe = Recipe(**QUICK)
    pairs, judge = prepare(recipe, data)
    given, wanted = pairs.validation(0)
    expected = [dip.metrics.psnr(a.numpy(), b.numpy(), channel_axis=0) for a, b in zip(given, wanted, strict=True)]
    assert judge.psnr(lambda noisy: noisy) == pytest.approx(np.mean(expected), abs=1e-4)


def test_equal_pictures_have_a_psnr_of_inf_in_words():
    _, judge = prepare(Recipe(model="cnn5", noise="none"), pictures())
    assert judge.psnr(lambda noisy: noisy) == 120  # in JSON, which has no infinity
    assert [decibels(value) for value in (120.0, 34.567, None, math.nan)] == ["inf", "34.57", "", ""]


def test_random_patches(tmp_path):
    from skimage.io import imsave

    rng = np.random.default_rng(0)
    for i in range(4):
        imsave(tmp_path / f"{i}.png", rng.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8), check_contrast=False)
    patches = dip.datasets.Patches(tmp_path, 10)
    pairs, _ = prepare(Recipe(**QUICK, per_epoch=20, augment=True), patches)
    assert (pairs.size, pairs.channels, pairs.count, pairs.steps) == ((10, 10), 3, 20, 3)
    assert [len(pairs.training(0, step)[0]) for step in range(3)] == [8, 8, 4]
    assert torch.equal(pairs.training(3, 1)[0], pairs.training(3, 1)[0])
    assert not torch.equal(pairs.training(3, 1)[1], pairs.training(4, 1)[1])
    one = training(patches, per_epoch=16).run()
    assert one.epoch == 2


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (np.zeros((5, 8, 8, 3), np.int64), TypeError, "dtype int64"),
        (np.full((5, 8, 8), 255.0), ValueError, r"not in \[0, 1\]"),
        (np.full((5, 8, 8), np.nan), ValueError, r"not in \[0, 1\]"),
        (np.zeros((1, 8, 8), np.uint8), ValueError, "1 pictures are too few"),
        (np.zeros((8, 8), np.uint8), ValueError, "allowed: .N, H, W"),
        (np.zeros((64, 48, 3), np.uint8), ValueError, r"looks like one picture \(H, W, C\); give several"),
        (
            np.zeros((64, 48, 1)),
            ValueError,
            r"If these are 64 gray pictures of 48 x 1 pixels, give data\[\.\.\., None\]",
        ),
        ([1, 2], TypeError, "data must be an array of pictures"),
    ],
)
def test_refused_data(data, error, message):
    with pytest.raises(error, match=message):
        training(data)


# ---------------------------------------------------------------------- what is learned


@pytest.mark.parametrize(
    "options",
    [
        {"model": "cnn5-residual-bn"},
        {"model": "cnn5-residual-bn", "method": "noise2noise"},
        {"model": "hourglass", "method": "noise2noise", "clip": True, "loss": "bce"},
        {"model": "hourglass", "loss": "l1", "optimizer": "sgd", "lr": 0.3, "schedule": "cosine"},
    ],
    ids=["supervised", "noise2noise", "bce", "sgd"],
)
def test_noise_gets_less(options):
    given = {"width": 8, "epochs": 9, "batch": 4, "noise": "gaussian:40", **options}
    one = training(pictures(100, size=16), **given).run()
    assert one.stop_reason == "epochs"
    assert one.figures["psnr_against_clean"] > one.figures["psnr_noisy"] + 2
    assert one.history["train_loss"][-1] < one.history["train_loss"][0]
    assert len(one.history["psnr_against_clean"]) == one.epoch == 9
    fresh = pictures(3, size=16, seed=5)[0]
    noisy = dip.degradations.gaussian(fresh, 40, seed=9)
    assert dip.metrics.psnr(one.denoiser(noisy), fresh) > dip.metrics.psnr(noisy, fresh) + 2


def test_losses_are_pytorchs():
    one = training(epochs=1, loss="l1", batch=100, noise="none", lr=1e-12, precision="float32")
    given, wanted = one._pairs.training(0, 0)
    with torch.no_grad():
        expected = (one.model(given) - wanted).abs().mean()
    one.run()
    assert one.history["train_loss"][0] == pytest.approx(float(expected), rel=1e-6)


def test_learning_rates():
    rates = Recipe(**{**QUICK, "lr": 0.1}, schedule="cosine")
    assert [round(rates.rate(done), 6) for done in (0, 0.5, 1)] == [0.1, 0.05, 0]
    steps = Recipe(**{**QUICK, "lr": 0.1}, schedule="step")
    assert [round(steps.rate(done), 6) for done in (0, 0.49, 0.5, 0.74, 0.75)] == [0.1, 0.1, 0.01, 0.01, 0.001]
    assert Recipe(**QUICK).rate(0.9) == 1e-2
    rising = Recipe(**{**QUICK, "lr": 0.1}, warmup=0.2)
    assert [round(rising.rate(done), 6) for done in (0, 0.05, 0.1, 0.2, 0.9)] == [0, 0.025, 0.05, 0.1, 0.1]
    both = Recipe(**{**QUICK, "lr": 0.1}, warmup=0.2, schedule="cosine")
    assert both.rate(0.1) == pytest.approx(rates.rate(0.1) / 2)
    assert both.rate(0.6) == rates.rate(0.6)
    one = training(schedule="step", epochs=4, lr=0.1).run()
    assert one.history["lr"] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_early_stopping_returns_the_best_weights(monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 5.0, 4.0])
    one = training(epochs=9, early_stopping=True, patience=2)
    states = []

    def validate():
        states.append(weights(one))
        return next(losses), 20.0

    monkeypatch.setattr(one, "_validate", validate)
    one.run()
    assert (one.stop_reason, one.epoch, one.best_epoch, one.kept_epoch) == ("early stopping", 4, 2, 2)
    assert equal([t.clone() for t in one.denoiser.model.state_dict().values()], states[1])
    assert not equal(states[1], states[3])


def test_without_early_stopping_the_last_weights_are_returned(monkeypatch):
    for best, kept in ((None, 3), (True, 1)):
        one = training(epochs=3, restore_best=best)
        losses = iter([1.0, 2.0, 3.0])
        monkeypatch.setattr(one, "_validate", lambda losses=losses: (next(losses), 20.0))
        one.run()
        assert (one.stop_reason, one.kept_epoch) == ("epochs", kept)


def test_a_training_that_diverges_says_so(tmp_path):
    one = training(optimizer="sgd", lr=1e30, epochs=5, out=tmp_path / "run").run()
    assert one.stop_reason == "diverged"
    assert one.epoch < 5
    report = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert report["stop_reason"] == "diverged"
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    with pytest.raises(RuntimeError, match="no epoch has ended with a finite loss; take a lower lr"):
        _ = one.denoiser


def test_threads_that_make_pairs_ahead_change_nothing(monkeypatch):
    """As beside a GPU."""
    whole = training(batch=3).run()
    ahead = training(batch=3)
    monkeypatch.setattr(dip.devices, "asynchronous", lambda device: True)
    assert equal(weights(ahead.run()), weights(whole))
    assert ahead.history["train_loss"] == whole.history["train_loss"]


def test_mixed_precision_learns_and_keeps_float32_weights():
    """The loss is taken in float32."""
    options = {"model": "hourglass", "width": 8, "epochs": 5, "batch": 4, "noise": "gaussian:40"}
    one = training(pictures(60, size=16), precision="bfloat16", **options)
    seen, loss = [], one._loss
    one._loss = lambda found, wanted: seen.append(found.dtype) or loss(found, wanted)
    one.run()
    assert set(seen) == {torch.float32}
    assert {p.dtype for p in one.model.parameters()} == {torch.float32}
    assert one.history["train_loss"][-1] < 0.7 * one.history["train_loss"][0]


def test_bfloat16_is_taken_where_the_device_multiplies_it(monkeypatch):
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(dip.devices, "_native_bfloat16", lambda device, native=native: native)
        assert training().dtype is dtype
    with pytest.raises(ValueError, match="on a CPU or a CUDA GPU, not on mps"):
        dip.trained.parts.precision("bfloat16", torch.device("mps"))


def test_a_sigmoid_at_the_end_keeps_apart_what_is_nearly_white():
    """In bfloat16 0.999 would be 1, and cross-entropy infinite (PyTorch: 100)."""
    for name in ("hourglass", "autoencoder"):
        model = dip.trained.create(name, generator=torch.Generator().manual_seed(0))
        last = model.last if name == "hourglass" else model.decoder[-2]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, 8.0)
        with torch.autocast("cpu", torch.bfloat16):
            white = model(torch.rand(1, model.channels, 28, 28))
        assert white.dtype is torch.float32
        torch.testing.assert_close(white, torch.full_like(white, 1 / (1 + math.exp(-8))))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode, tmp_path):
    whole = training().run()
    with mode():
        one = training().run()
        stop_after(training(out=tmp_path), 2).run()
        again = training(out=tmp_path, resume=True).run()
        restored = one.denoiser(pictures(2)[0])
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert one.history["train_loss"] == again.history["train_loss"] == whole.history["train_loss"]
    assert equal(weights(one), weights(whole))
    assert equal(weights(again), weights(whole))
    np.testing.assert_array_equal(restored, whole.denoiser(pictures(2)[0]))


@pytest.mark.parametrize("name", ["cnn5-residual-bn", "hourglass", "autoencoder", "dncnn-small"])
def test_works_with_another_default_dtype(name, tmp_path):
    given = pictures(6, size=28, channels=1)
    options = {"epochs": 1, "batch": 3, **({} if name in ("autoencoder", "dncnn-small") else {"width": 4})}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        one = Training(Recipe(model=name, **options), given, out=tmp_path, device="cpu", progress=False).run()
        restored = dip.trained.load(tmp_path / "weights.safetensors", device="cpu")(given[0, ..., 0])
    finally:
        torch.set_default_dtype(before)
    assert {tensor.dtype for tensor in one.model.parameters()} == {torch.float32}
    np.testing.assert_array_equal(restored, one.denoiser(given[0, ..., 0]))


def test_training_leaves_global_state_alone():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    training(epochs=1).run()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


# ---------------------------------------------------------------------- files


def test_what_a_training_leaves(tmp_path):
    out = tmp_path / "deep" / "run"
    one = training(out=out, model="cnn5-residual-bn").run()
    assert sorted(path.name for path in out.iterdir()) == ["curves.png", "metrics.json", "weights.safetensors"]
    report = json.loads((out / "metrics.json").read_text())
    assert report["recipe"] == one.recipe.as_dict()
    assert report["history"] == one.history
    assert report["stop_reason"] == "epochs"
    loaded = dip.trained.load(out / "weights.safetensors", device="cpu")
    assert loaded.info["recipe"] == one.recipe.as_dict()
    assert Recipe(**loaded.info["recipe"]) == one.recipe
    noisy = dip.degradations.gaussian(pictures(1)[0], 25, seed=0)
    np.testing.assert_array_equal(loaded(noisy), one.denoiser(noisy))
    with pytest.raises(FileExistsError, match=r"metrics.json exists; choose another folder, or replace it"):
        training(out=out)
    other = Training(Recipe(**QUICK), pictures(), out=out, force=True, device="cpu", progress=False)
    assert (out / "weights.safetensors").exists()  # made, not begun
    stop_after(other, 2).run()
    assert [path.name for path in out.iterdir()] == ["checkpoint.safetensors"]  # nothing of the earlier one


def stop_after(one: Training, steps: int) -> Training:
    """Let Ctrl-C come in the middle of a step."""
    count, loss = 0, one._loss

    def pressed(*operands):
        nonlocal count
        count += 1
        if count == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*operands)

    one._loss = pressed
    return one


@pytest.mark.parametrize(
    "options",
    [
        {"model": "cnn5-residual-bn", "schedule": "cosine"},
        {"model": "hourglass", "optimizer": "sgd", "augment": True, "method": "noise2noise"},
    ],
    ids=["adam", "sgd"],
)
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_ctrl_c_and_resume_give_the_same_bits(tmp_path, options, steps):
    options = {"epochs": 3, "early_stopping": True, **options}
    whole = training(**options).run()
    out = tmp_path / "run"
    cut = stop_after(training(out=out, **options), steps).run()
    assert cut.stop_reason == "interrupted"
    assert [path.name for path in out.iterdir()] == ["checkpoint.safetensors"]
    again = training(out=out, resume=True, **options)
    assert (again.epoch, again.step) == (cut.epoch, cut.step)
    again.run()
    assert again.stop_reason == whole.stop_reason
    assert equal(weights(again), weights(whole))
    for name in ("train_loss", "validation_loss", "psnr_against_clean", "lr"):
        assert again.history[name] == whole.history[name]
    assert not (out / "checkpoint.safetensors").exists()


def test_a_kill_goes_on_from_the_last_epoch(tmp_path, monkeypatch):
    whole = training(epochs=3).run()
    cut = training(out=tmp_path, epochs=3)
    validate, calls = cut._validate, []

    def killed():
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit
        return validate()

    monkeypatch.setattr(cut, "_validate", killed)
    with pytest.raises(SystemExit):
        cut.run()
    again = training(out=tmp_path, epochs=3, resume=True)
    assert (again.epoch, again.step) == (1, 0)
    assert equal(weights(again.run()), weights(whole))


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    stop_after(training(out=tmp_path), 2).run()
    with pytest.raises(
        dip.CheckpointError, match=r"another training; lr: 0\.01 in the file, 0\.5 here\. Resume.*same data"
    ):
        training(out=tmp_path, resume=True, lr=0.5)
    with pytest.raises(
        dip.CheckpointError, match=r"training; epochs: 2 in the file, 3 here; seed: 0 in the file, 1 here"
    ):
        training(out=tmp_path, resume=True, epochs=3, seed=1)
    with pytest.raises(dip.CheckpointError, match="other pictures"):
        training(pictures(seed=4), out=tmp_path, resume=True)
    with pytest.raises(FileExistsError, match=r"go on with resume=True \(--resume\)"):
        training(out=tmp_path)
    with pytest.raises(FileNotFoundError, match="without resume= a training starts anew"):
        training(out=tmp_path / "none", resume=True)


def test_curves_are_left_out_without_matplotlib(tmp_path, monkeypatch):
    load = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return load(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    training(out=tmp_path, epochs=1).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "weights.safetensors"]


def test_tensorboard_gets_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    one = Training(
        Recipe(**QUICK), pictures(), out=tmp_path / "run", tensorboard=True, device="cpu", progress=False
    ).run()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name in ("train_loss", "validation_loss", "psnr_against_clean", "lr"):
        assert [e.value for e in events.Scalars(name)] == pytest.approx(one.history[name], rel=1e-6)


def test_tensorboard_that_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "deep-image-prior\[tensorboard\]"'):
        Training(Recipe(**QUICK), pictures(), out=tmp_path, tensorboard=True, device="cpu")


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "noise2noise", "noise": "none"}, "leaves pictures clean, which noise2noise must not see"),
        ({"method": "noise2noise", "noise": "gaussian:0-55"}, "leaves pictures clean"),
        ({"method": "noise2noise", "validate": "clean"}, "needs clean pictures, which noise2noise must not see"),
        ({"loss": "bce"}, "needs a model that ends in a sigmoid, and cnn5 does not"),
        ({"loss": "bce", "model": "hourglass-a"}, "needs a model that ends in a sigmoid"),
        ({"loss": "bce", "model": "hourglass", "method": "noise2noise"}, r"pass clip=True"),
        ({"loss": "l3"}, "unknown loss 'l3'"),
        ({"optimizer": "lbfgs"}, "unknown optimizer"),
        ({"validation": 1.0}, "validation must be a share below 1"),
        ({"warmup": 1.0}, "warmup must be a share below 1"),
        ({"batch": 0}, "batch must be a whole number from 1 up"),
        ({"lr": -1.0}, "lr must be a finite number above 0"),
        ({"epoch": 3}, "unknown option 'epoch'; did you mean 'epochs'"),
        ({"model": "resnet"}, "unknown model 'resnet'"),
    ],
)
def test_refused_options(options, message):
    given = {**QUICK, **options}
    with pytest.raises(ValueError, match=message):
        dip.trained.train(given.pop("model"), pictures(), device="cpu", **given)


def test_sizes_that_a_model_does_not_take_are_refused():
    with pytest.raises(ValueError, match="have 13 x 13 pixels, and hourglass is trained on sizes such as 14 x 14"):
        training(pictures(size=13), model="hourglass")


def test_the_public_function_trains():
    lines: list[str] = []
    done = dip.trained.train(
        "autoencoder",
        pictures(12, size=28, channels=1),
        noise="none",
        loss="bce",
        epochs=2,
        batch=4,
        device="cpu",
        progress=False,
        say=lines.append,
    )
    assert done.model.channels == 1
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1 of 2: loss ")
    assert "pictures a second" in lines[0]
    assert math.isfinite(done.figures["train_loss"])
    assert set(dip.trained.models()) == set(store.packaged())
