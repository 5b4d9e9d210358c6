"""Watching a fit and ending it: callbacks, threads, Ctrl-C, the reference, the progress bar."""

from __future__ import annotations

import io
import signal
import sys
import threading

import numpy as np
import pytest
import torch
from small import QUICK, picture, quick_fit, within

import dip
from dip.callbacks import Estimate, Every, Progress, duration, shows_progress


def losses(fit):
    return fit.history["loss"]


# ---------------------------------------------------------------------- watching and ending


def test_callbacks_are_called_as_often_as_they_say():
    seen = {"each": [], "fourth": []}
    fit = quick_fit(
        iters=9,
        callbacks=[lambda f: seen["each"].append(f.iteration), Every(4, lambda f: seen["fourth"].append(f.iteration))],
    )
    assert seen == {"each": list(range(1, 10)), "fourth": [4, 8]}
    assert fit.stop_reason == "iterations"
    with pytest.raises(ValueError, match="every must be"):
        Every(0, print)


def test_callback_adds_to_the_history():
    fit = quick_fit(iters=4, callbacks=[Every(2, lambda f: f.record(largest=f.output.max(), half=f.iteration / 2))])
    assert fit.history.iterations("largest").tolist() == [2, 4]
    assert fit.history["half"].tolist() == [1, 2]
    assert fit.history["largest"][-1] == fit.output.max().item()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"loss": 1.0}, ValueError, "the fit records loss itself, .* another name, such as my_loss"),
        ({"data_loss": 1.0, "mine": 2.0}, ValueError, "records data_loss itself"),
        ({"psnr": 1.0, "psnr_output": 2.0}, ValueError, "records psnr and psnr_output itself"),
        ({"phase": torch.tensor(1j)}, TypeError, r"phase is torch\.complex64; a series takes real numbers"),
        ({"phase": 1j}, TypeError, "phase=1j: a series takes one real number"),
        ({"state": "good"}, TypeError, "state='good': a series takes one real number"),
        ({"rows": np.zeros(3)}, TypeError, r"rows=ndarray of shape \(3,\): a series takes one"),
    ],
)
def test_callback_may_not_mix_series_or_record_what_is_no_number(values, error, message):
    fit = dip.Fit(dip.Denoise(picture()), reference=picture(), callbacks=[lambda f: f.record(**values)], **QUICK)
    with pytest.raises(error, match=message):
        fit.run(2)
    assert len(fit.history["loss"]) == len(fit.history["psnr"]) == 1


def test_callback_may_record_a_psnr_of_its_own_where_the_fit_has_none():
    fit = quick_fit(iters=2, callbacks=[lambda f: f.record(psnr=20.0 + f.iteration)])
    assert fit.history["psnr"].tolist() == [21, 22]


def test_callback_ends_the_run_after_its_iteration():
    fit = quick_fit(iters=50, callbacks=[lambda f: f.stop("good enough") if f.iteration == 3 else None])
    assert (fit.iteration, fit.stop_reason) == (3, "good enough")
    assert fit.run(2).stop_reason == "iterations"  # a reason is for one run


def test_another_thread_ends_the_run():
    started, image = threading.Event(), picture()

    def work():
        result.append(dip.fit(dip.Denoise(image), iters=10**6, callbacks=[watch], **QUICK))

    def watch(fit):
        holder.append(fit)
        started.set()

    result, holder = [], []
    worker = threading.Thread(target=work)
    worker.start()
    assert started.wait(60)
    holder[0].stop("from outside")
    worker.join(60)
    assert result[0].stop_reason == "from outside"
    assert result[0].iteration < 10**6
    assert result[0].image.shape == image.shape


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
class TestCtrlC:
    @staticmethod
    def press(at, times=1):
        def callback(fit):
            if fit.iteration == at:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

        return callback

    def test_returns_the_result_so_far(self):
        before = signal.getsignal(signal.SIGINT)
        fit = quick_fit(iters=50, callbacks=[self.press(4)])
        assert (fit.iteration, fit.stop_reason) == (4, "interrupted")
        assert np.array_equal(fit.image, quick_fit(iters=4).image)
        assert signal.getsignal(signal.SIGINT) is before
        fit.run(2)
        assert (fit.iteration, fit.stop_reason) == (6, "iterations")

    def test_a_function_says_so(self):
        with pytest.warns(RuntimeWarning, match="interrupted: the image returned is that of iteration 4"):
            image = dip.denoise(picture(), iters=50, callbacks=[self.press(4)], **QUICK)
        assert np.array_equal(image, quick_fit(iters=4).image)

    def test_a_batch_ends_with_the_image_at_hand(self):
        images = torch.stack([torch.from_numpy(picture(seed=seed)).permute(2, 0, 1) for seed in range(3)])
        begun = []

        def press_in_the_second(fit):
            begun.extend([fit] if fit.iteration == 1 else [])
            if (len(begun), fit.iteration) == (2, 4):
                signal.raise_signal(signal.SIGINT)

        with pytest.warns(RuntimeWarning, match="the first 2 of 3 images, the last of them as at iteration 4"):
            restored = dip.denoise(images, iters=6, callbacks=[press_in_the_second], **QUICK)
        assert len(begun) == 2
        assert torch.equal(restored[0], dip.denoise(images[0], iters=6, **QUICK))
        assert torch.equal(restored[1], dip.denoise(images[1], iters=4, **QUICK))

    def test_the_second_one_ends_it_at_once(self):
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            quick_fit(iters=50, callbacks=[self.press(4, times=2)])
        assert signal.getsignal(signal.SIGINT) is before

    def test_somebody_elses_handler_is_left_alone(self):
        calls = []
        before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
        try:
            fit = quick_fit(iters=5, callbacks=[self.press(2)])
        finally:
            signal.signal(signal.SIGINT, before)
        assert calls == [signal.SIGINT]
        assert fit.iteration == 5

    def test_while_the_last_checkpoint_is_written(self, tmp_path, monkeypatch):
        save = dip.Fit.save

        def slow(self, path):
            signal.raise_signal(signal.SIGINT)
            return save(self, path)

        monkeypatch.setattr(dip.Fit, "save", slow)
        fit = quick_fit(iters=3, checkpoint=tmp_path / "fit.st")
        assert fit.iteration == 3
        assert (tmp_path / "fit.st").exists()


def test_an_exception_in_a_callback_comes_out_and_the_fit_is_saved(tmp_path):
    def fail(fit):
        if fit.iteration == 3:
            raise ZeroDivisionError("mine")

    path, task = tmp_path / "fit.st", dip.Denoise(picture())
    fit = dip.Fit(task, callbacks=[fail], checkpoint=path, **QUICK)
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit.run(10)
    assert fit.iteration == 3
    whole = quick_fit(iters=10)
    assert np.array_equal(quick_fit(task, iters=10, resume=path).image, whole.image)
    assert np.array_equal(fit.run(7).image, whole.image)


def test_reference_adds_psnr_and_nothing_else():
    noisy, clean = picture(), picture(seed=1)
    plain = quick_fit(dip.Denoise(noisy), iters=4)
    fit = quick_fit(dip.Denoise(noisy), iters=4, reference=clean)
    assert np.array_equal(fit.image, plain.image)
    assert set(fit.history) - set(plain.history) == {"psnr", "psnr_output"}
    assert fit.history["psnr"][-1] == pytest.approx(dip.metrics.psnr(fit.image, clean), abs=1e-3)
    output = within(fit.output[0].numpy(), fit)
    assert fit.history["psnr_output"][-1] == pytest.approx(dip.metrics.psnr(output, clean), abs=1e-3)


def test_reference_looks_at_the_picture_that_is_returned():
    """Inpainting puts the known pixels back, and a rule may have kept an earlier picture."""
    clean, mask = picture(seed=1), np.random.default_rng(0).random((16, 16)) < 0.6
    rule = dip.stopping.MovingVariance(0.2, 4, earliest=3)
    fit = quick_fit(dip.Inpaint(clean * mask[..., None], mask), iters=40, lr=0.03, reference=clean, stop=rule)
    assert not torch.equal(fit.picture, fit.current)
    assert fit.history["psnr"][-1] == pytest.approx(dip.metrics.psnr(fit.image, clean), abs=1e-3)


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ((12, 10, 3), lambda c: (c * 255).round().astype(np.uint8)),
        ((12, 10, 3), lambda c: torch.from_numpy(c).permute(2, 0, 1)),
        ((12, 10, 3), lambda c: torch.from_numpy(c).permute(2, 0, 1)[None]),
    ],
)
def test_reference_may_be_of_another_kind(image, reference):
    clean = picture(image, seed=1)
    fit = quick_fit(dip.Denoise(picture(image)), iters=1, reference=reference(clean))
    assert fit.history["psnr"][0] == pytest.approx(dip.metrics.psnr(fit.image, clean), abs=0.02)
    tensor = torch.from_numpy(picture(image)).permute(2, 0, 1)[None]
    of_tensor = quick_fit(dip.Denoise(tensor), iters=1, reference=reference(clean))
    assert of_tensor.history["psnr"][0] == pytest.approx(fit.history["psnr"][0], abs=1e-3)


@pytest.mark.parametrize(
    ("image", "white", "reference"),
    [
        (picture() * 255, 255, lambda c: (c * 255).astype(np.float64)),
        (picture() * 255, 255, lambda c: torch.from_numpy(c * 255).permute(2, 0, 1)),
        (picture(dtype="uint16", white=4095), 4095, lambda c: c * 4095),
        (picture(dtype="uint16", white=4095), 4095, lambda c: c.astype(np.float64)),
    ],
)
def test_reference_in_the_range_of_the_image(image, white, reference):
    clean = picture(seed=1)
    fit = quick_fit(dip.Denoise(image, data_range=white), iters=1, reference=reference(clean))
    expected = dip.metrics.psnr(fit.image / white, clean)
    assert fit.history["psnr"][0] == pytest.approx(expected, abs=0.02)


def test_reference_of_super_resolution_and_reconstruction():
    small, large = picture((6, 5, 3)), picture((12, 10, 3), seed=1)
    fit = quick_fit(dip.SuperResolve(small, 2), iters=1, reference=large)
    assert fit.history["psnr"][0] == pytest.approx(dip.metrics.psnr(fit.image, large), abs=1e-3)
    clean = picture((8, 9), seed=1)
    fit = quick_fit(dip.Reconstruct(clean[None, None, ::2], lambda x: x[..., ::2, :], (8, 9)), iters=1, reference=clean)
    assert fit.history["psnr"][0] == pytest.approx(dip.metrics.psnr(fit.image, clean), abs=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integer_reference_of_a_reconstruction(dtype):
    clean = picture((8, 9), dtype, seed=1)
    white = np.iinfo(dtype).max
    y = (clean / white)[None, None].astype(np.float32)
    fit = quick_fit(dip.Reconstruct(y, lambda x: x, (8, 9)), iters=1, reference=clean)
    assert fit.history["psnr"][0] == pytest.approx(dip.metrics.psnr(fit.image, y[0, 0]), abs=1e-3)
    scaled = dip.Reconstruct(y * white, lambda x: x, (8, 9), data_range=white)
    fit = quick_fit(scaled, iters=1, reference=clean)
    assert fit.history["psnr"][0] == pytest.approx(dip.metrics.psnr(fit.image / white, y[0, 0]), abs=1e-3)
    other = dip.Reconstruct(y, lambda x: x, (8, 9), data_range=(-1, 1))
    with pytest.raises(ValueError, match=r"reference has values .*\[-1, 1\]; bring the reference .*\(-1.0, 1.0\)"):
        quick_fit(other, iters=1, reference=clean)


# ---------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_in_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert shows_progress()
    fit = quick_fit(iters=5)
    text = screen.getvalue()
    assert "denoise" in text
    assert "5/5" in text
    assert fit.callbacks == []  # the bar is gone after the run
    fit.run(3)
    assert "3/3" in screen.getvalue()


def test_no_bar_elsewhere_or_when_not_wanted(monkeypatch, capsys):
    quick_fit(iters=2)
    assert capsys.readouterr() == ("", "")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    quick_fit(iters=2, progress=False)
    assert screen.getvalue() == ""


def test_bar_where_it_is_asked_for(capsys):
    quick_fit(iters=2, progress=True)
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    assert captured.out == ""


def test_bar_is_closed_after_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    fit = dip.Fit(dip.Denoise(picture()), callbacks=[lambda f: 1 / 0], **QUICK)
    with pytest.raises(ZeroDivisionError):
        fit.run(3)
    assert len(fit.callbacks) == 1


def test_long_fits_on_a_cpu_are_announced(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    fit = dip.Fit(dip.Denoise(picture()), **QUICK)
    monkeypatch.setattr(dip.callbacks.time, "perf_counter", lambda: 2.0 * fit.iteration)
    bar = Progress(1800, "denoise")
    lines = []
    line = Estimate(1800, lines.append)
    for fit.iteration in (1, 2, 3, 4, 5, 6):
        bar(fit)
        line(fit)
    bar.close()
    assert "1800 iterations at about 2 s each" in screen.getvalue()
    assert "about 60 min" in screen.getvalue()
    assert len(lines) == 1
    assert lines[0] in screen.getvalue()
    short = Estimate(20, lines.append)
    for fit.iteration in (1, 2, 3, 4, 5, 6):
        short(fit)
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (40, "40 s"), (719, "12 min"), (7500, "2 h 05 min"), (86400, "24 h 00 min")]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words
