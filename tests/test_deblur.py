"""Deconvolution: the task, its loss, its corrections, and the command."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import richardson_lucy
from small import NET, QUICK, picture

import dip
from dip import cli, files, losses
from dip.noise import noise_level
from dip.operators import Blur, gaussian_psf

PSF = gaussian_psf(1.2)
SOLVE = {"network": {"down": (8, 16, 16), "up": (8, 16, 16), "skip": (4, 4, 4)}, "precision": "float32"}


def blurred(clean, psf=PSF, sigma=0.0, seed=0):
    """A blurred float picture, (H, W) or (H, W, C), with noise whose level is on the scale of 0 to 255."""
    planes = torch.from_numpy(clean)[None] if clean.ndim == 2 else torch.from_numpy(clean).permute(2, 0, 1)
    y = Blur(psf)(planes).permute(1, 2, 0).numpy()
    y = y[..., 0] if clean.ndim == 2 else y
    return (y + np.random.default_rng(seed).normal(0, sigma / 255, y.shape)).astype(np.float32)


def detail(size=64):
    """Part of a real photograph with edges."""
    return (skimage.data.camera()[100 : 100 + size, 220 : 220 + size] / 255).astype(np.float32)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(16, 13), (15, 16, 3), (14, 14, 4)])
def test_what_goes_in_comes_out_in_kind(shape, dtype):
    image = picture(shape, dtype)
    restored = dip.deblur(image, PSF, iters=2, **QUICK)
    assert (restored.shape, restored.dtype) == (image.shape, image.dtype)
    if shape[-1] == 4:
        np.testing.assert_array_equal(restored[..., 3], image[..., 3])
    tensor = (
        dip.deblur(torch.from_numpy(np.ascontiguousarray(np.moveaxis(image[..., :3], -1, 0))), PSF, iters=2, **QUICK)
        if image.ndim == 3
        else dip.deblur(torch.from_numpy(image), torch.from_numpy(PSF), iters=2, **QUICK)
    )
    assert isinstance(tensor, torch.Tensor)


def test_fast_is_ahead_of_richardson_lucy_and_of_the_picture_as_it_was():
    clean = detail()
    y = blurred(clean, sigma=2)
    restored = dip.deblur(y, PSF, preset="fast", iters=200, precision="float32")
    classical = max(
        peak_signal_noise_ratio(clean, np.clip(richardson_lucy(y.clip(0), PSF, num_iter=n), 0, 1), data_range=1)
        for n in (5, 10, 20)
    )
    found = peak_signal_noise_ratio(clean, restored.clip(0, 1), data_range=1)
    assert found > peak_signal_noise_ratio(clean, y, data_range=1) + 2
    assert found > classical + 0.3


def test_each_channel_may_have_its_own_psf():
    clean = picture((20, 18, 3))
    psf = np.stack([np.pad(gaussian_psf(s), n) for s, n in ((0.8, 2), (1.2, 0), (1.0, 1))])
    task = dip.Deblur(clean, psf)
    x = torch.rand(1, 3, 20, 18)
    for channel in range(3):
        torch.testing.assert_close(task.forward(x)[0, channel], Blur(psf[channel])(x[0, channel]))
    assert dip.deblur(clean, psf, iters=2, **QUICK).shape == clean.shape


def test_the_loss_is_that_of_the_formula():
    """With periodic borders the matrix of the blur is known in full."""
    y, x = picture((6, 5), seed=1), picture((6, 5), seed=2)
    psf = np.random.default_rng(0).random((3, 3))
    basis = torch.eye(30).reshape(30, 1, 1, 6, 5)
    for damping in (0.02, None):
        task = dip.Deblur(y, psf, boundary="wrap", damping=damping)
        observation = task.load()
        matrix = torch.cat([task.forward(one) for one in basis]).reshape(30, 30).T.double().numpy()
        loss = losses.BackProjection().of(task)
        found = loss(task.forward(torch.from_numpy(x)[None, None]), observation.y)
        known = max(1e-4, 160 * noise_level(observation.y) ** 2) if damping is None else damping
        residual = matrix @ x.ravel() - y.ravel()
        expected = residual @ np.linalg.solve(matrix @ matrix.T + known * np.eye(30), residual) / 30
        assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_loss_finds_detail_in_fewer_iterations():
    clean = detail()
    y = blurred(clean, sigma=0.5)
    found = {}
    for loss in ("mse", "back-projection"):
        restored = dip.deblur(y, PSF, loss=loss, iters=150, jitter=0.01, **SOLVE)
        found[loss] = peak_signal_noise_ratio(clean, restored.clip(0, 1), data_range=1)
    assert found["back-projection"] > found["mse"] + 0.5


def test_the_damping_counts_for_the_code_and_the_correction_too():
    y = blurred(picture((20, 20)), sigma=2)
    fits = [
        dip.fit(dip.Deblur(y, PSF, damping=damping), iters=2, preset="fast", network=NET) for damping in (None, 0.3)
    ]
    assert not torch.equal(fits[0].code, fits[1].code)
    task = fits[1].task
    expected = task.consistent(fits[1].current, fits[1].y)
    rest = fits[1].y - task.forward(fits[1].current)
    torch.testing.assert_close(expected, fits[1].current + Blur(PSF).back_projected(rest, 3 * 0.3))


def test_what_was_a_jpeg_is_damped():
    clean = detail(128)
    eight = np.rint(blurred(clean).clip(0, 1) * 255).astype(np.uint8)
    Image.fromarray(eight).save(packed := io.BytesIO(), format="JPEG", quality=75)
    jpeg = np.asarray(Image.open(packed))
    with pytest.warns(RuntimeWarning, match="JPEG.*damping=0.05"):
        restored = dip.deblur(jpeg, PSF, preset="fast", iters=60, network=NET, precision="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # where there is no damping there is nothing to be said
        dip.deblur(jpeg, PSF, iters=1, **QUICK)
    before, after = (peak_signal_noise_ratio(clean, x / 255, data_range=1) for x in (jpeg, restored))
    assert after > before + 1


@pytest.mark.parametrize(
    ("psf", "words"),
    [
        (np.pad(PSF, 8) + 0.05 * PSF.max(), "is a background"),
        (np.pad(PSF, ((8, 0), (0, 0))), r"\+4.0 rows and \+0.0 columns"),
    ],
)
def test_a_psf_that_looks_wrong_is_warned_of(psf, words):
    with pytest.warns(RuntimeWarning, match=words):
        Blur(psf)


@pytest.mark.parametrize("psf", [np.ones((9, 9)), PSF, gaussian_psf(2)[4:-4, 4:-4], np.eye(9), np.ones((1, 7))])
def test_a_psf_that_looks_right_is_not(psf, recwarn):
    Blur(psf)
    assert not recwarn.list


def test_correcting_brings_a_picture_nearer_to_what_was_observed():
    clean = detail()
    task = dip.Deblur(blurred(clean, sigma=1), PSF)
    y = task.load().y
    smooth = torch.nn.functional.avg_pool2d(torch.from_numpy(clean)[None, None], 5, stride=1, padding=2)
    for x in (torch.full_like(smooth, 0.5), smooth):
        corrected = task.consistent(x, y)
        assert (task.forward(corrected) - y).norm() < 0.7 * (task.forward(x) - y).norm()
    exact = torch.from_numpy(clean)[None, None]
    torch.testing.assert_close(task.consistent(exact, task.forward(exact)), exact)


def test_the_correction_is_an_option():
    y = blurred(picture((20, 20)))
    fits = [dip.fit(dip.Deblur(y, PSF), iters=3, consistent=on, **QUICK) for on in (False, True)]
    assert torch.equal(fits[0].current, fits[1].current)
    corrected = fits[1].task.consistent(fits[0].current, fits[0].y).clamp(0, 1)
    np.testing.assert_array_equal(fits[1].image, corrected[0, 0].numpy())


@pytest.mark.parametrize("loss", ["mse", "back-projection"])
@pytest.mark.parametrize(("width", "tile"), [(1.2, 32), (3, 36)])
def test_in_crops(loss, width, tile):
    clean, psf = picture((70, 60)), gaussian_psf(width)
    restored = dip.deblur(blurred(clean, psf), psf, tile=tile, iters=6, loss=loss, network=NET, precision="float32")
    assert restored.shape == clean.shape
    assert np.isfinite(restored).all()
    assert dip.Deblur(clean, np.ones((3, 9))).support == 4
    with pytest.raises(ValueError, match="boundary='wrap'"):
        dip.deblur(clean, PSF, boundary="wrap", tile=32, iters=2, **QUICK)


def test_a_checkpoint_belongs_to_a_psf(tmp_path):
    y, path = blurred(picture()), tmp_path / "fit.st"
    whole = dip.fit(dip.Deblur(y, PSF), preset="fast", iters=8, **QUICK | {"code": None, "loss": "back-projection"})
    options = {"preset": "fast", **QUICK, "code": None}
    dip.fit(dip.Deblur(y, PSF), iters=4, checkpoint=path, **options)
    resumed = dip.fit(dip.Deblur(y, PSF), iters=8, resume=path, **options)
    np.testing.assert_array_equal(resumed.image, whole.image)
    with pytest.raises(dip.CheckpointError, match="psf"):
        dip.fit(dip.Deblur(y, gaussian_psf(1.1)), iters=8, resume=path, **options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dip.deblur(picture((16, 16)), np.ones((2, 3, 3)), **QUICK), "psf has 2 channels and the image 1"),
        (lambda: dip.deblur(picture((16, 8)), np.ones((3, 9)), **QUICK), "psf is 3 x 9 and the image 16 x 8"),
        (lambda: dip.deblur(picture(), PSF, boundary="reflect", **QUICK), "unknown boundary 'reflect'"),
        (lambda: dip.denoise(picture(), loss="back-projection", **QUICK), r"is for dip\.Deblur, not for denoise"),
        (lambda: dip.deblur(picture(), PSF, damping=0.0, **QUICK), "damping"),
        (
            lambda: dip.deblur(picture(), PSF, damping=0.1, **QUICK),
            "damping=0.1 means nothing without preset=.fast",
        ),
        (lambda: dip.deblur(picture(), np.ones((5, 5, 3)), **QUICK), r"np\.moveaxis"),
        (lambda: gaussian_psf(1e5), "larger than any image"),
        (lambda: dip.deblur(picture(), PSF, stop=dip.stopping.Discrepancy(0.01), preset="fast"), "cannot go with"),
    ],
)
def test_what_means_nothing_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_number_is_no_psf():
    with pytest.raises(TypeError, match=r"such as dip\.operators\.gaussian_psf\(1\.6\)"):
        dip.deblur(picture(), 1.6, **QUICK)


def test_a_loss_without_a_task_says_so():
    with pytest.raises(RuntimeError, match=r"give it to dip\.fit"):
        losses.BackProjection()(torch.zeros(1), torch.zeros(1))


# ---------------------------------------------------------------------- the command

WORDS = ("--iters", "3", "--down", "8x2", "--skip", "4x2", "--precision", "float32", "--quiet")


def dip_command(*words):
    return cli.main([str(word) for word in words])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_psf_from_a_file_or_a_gaussian(here):
    files.write("in.png", picture((20, 24, 3), "uint8"))
    tifffile.imwrite("psf.tif", PSF.astype(np.float32))
    eight = np.rint(PSF / PSF.max() * 255).astype(np.uint8)
    Image.fromarray(np.repeat(eight[..., None], 3, axis=-1)).save("psf.png")  # gray, saved in colour
    for name, how in (("a", ("--psf", "psf.tif")), ("b", ("--psf", "psf.png")), ("c", ("--psf-sigma", "1.2"))):
        assert dip_command("deblur", "in.png", *how, "-o", f"{name}.png", "--json", f"{name}.json", *WORDS) == 0
    options = {"iters": 3, "network": {"down": (8, 8), "up": (8, 8), "skip": (4, 4)}, "precision": "float32"}
    pixels = files.read("in.png").pixels
    for name, psf in (("a", PSF.astype(np.float32)), ("b", eight), ("c", PSF)):
        np.testing.assert_array_equal(files.read(f"{name}.png").pixels, dip.deblur(pixels, psf, **options))
    settings = json.loads(Path("a.json").read_text())["settings"]
    assert settings["psf"] == "psf.tif"
    assert json.loads(Path("c.json").read_text())["settings"]["psf_sigma"] == "1.2"
    assert settings["operator"] == "Blur(11 x 11, boundary='mirror')"


def test_a_psf_in_colour_is_one_for_each_channel(here):
    files.write("in.png", picture((20, 24, 3), "uint8"))
    psf = np.random.default_rng(0).integers(1, 255, (3, 5, 3)).astype(np.uint8)
    Image.fromarray(psf).save("psf.png")
    assert dip_command("deblur", "in.png", "--psf", "psf.png", "-o", "out.png", *WORDS) == 0
    options = {"iters": 3, "network": {"down": (8, 8), "up": (8, 8), "skip": (4, 4)}, "precision": "float32"}
    expected = dip.deblur(files.read("in.png").pixels, np.moveaxis(psf, -1, 0), **options)
    np.testing.assert_array_equal(files.read("out.png").pixels, expected)


def test_a_folder_here_and_in_workers_and_a_stack(here):
    pages = np.stack([picture((20, 24), "uint8", seed=n) for n in range(2)])
    for number, page in enumerate(pages):
        files.write(Path("in") / f"{number}.png", page)
    tifffile.imwrite("in.tif", pages, photometric="minisblack")
    tifffile.imwrite("psf.tif", PSF.astype(np.float32))
    how = ("--psf", "psf.tif", *WORDS)
    assert dip_command("deblur", "in", "-o", "one", *how) == 0
    assert dip_command("deblur", "in", "-o", "two", *how, "--workers", 2, "--threads", torch.get_num_threads()) == 0
    assert dip_command("deblur", "in.tif", "-o", "out.tif", *how) == 0
    stack = tifffile.imread("out.tif")
    for number in range(2):
        expected = files.read(Path("one") / f"{number}.png").pixels
        np.testing.assert_array_equal(files.read(Path("two") / f"{number}.png").pixels, expected)
        np.testing.assert_array_equal(stack[number], expected)


@pytest.mark.parametrize("option", ["-o", "--json"])
def test_the_psf_is_never_written_over(here, capsys, option):
    files.write("in.png", picture((20, 24), "uint8"))
    tifffile.imwrite("psf.tif", PSF)
    before = Path("psf.tif").read_bytes()
    words = ("-o", "psf.tif") if option == "-o" else ("-o", "out.png", "--json", "psf.tif")
    assert dip_command("deblur", "in.png", "--psf", "psf.tif", *words, "--force", *WORDS) == 2
    assert "same file as --psf" in capsys.readouterr().err
    assert Path("psf.tif").read_bytes() == before


@pytest.mark.parametrize("name", ["double.tif", "whole.tif", "psf.npy"])
def test_a_psf_of_numbers_that_no_picture_has(here, name):
    files.write("in.png", picture((20, 24), "uint8"))
    psf = np.rint(1e6 * PSF).astype(np.int32) if name == "whole.tif" else PSF
    np.save(name, psf) if name.endswith(".npy") else tifffile.imwrite(name, psf)
    assert dip_command("deblur", "in.png", "--psf", name, "-o", "out.png", *WORDS) == 0
    options = {"iters": 3, "network": {"down": (8, 8), "up": (8, 8), "skip": (4, 4)}, "precision": "float32"}
    np.testing.assert_array_equal(files.read("out.png").pixels, dip.deblur(files.read("in.png").pixels, psf, **options))


def test_an_array_of_a_psf_for_each_channel(here):
    files.write("in.png", picture((20, 24, 3), "uint8"))
    np.save("psf.npy", np.stack([PSF] * 3))
    np.save("two.npy", np.stack([PSF] * 2))
    assert dip_command("deblur", "in.png", "--psf", "psf.npy", "-o", "out.png", *WORDS) == 0
    assert dip_command("deblur", "in.png", "--psf", "two.npy", "-o", "two.png", *WORDS) == 2


@pytest.mark.parametrize("source", ["in.png", "in", "in.tif"])
def test_what_looks_wrong_with_a_psf_is_told_once(here, capsys, source):
    pages = np.stack([picture((20, 24), "uint8", seed=n) for n in range(2)])
    files.write("in.png", pages[0])
    for number, page in enumerate(pages):
        files.write(Path("in") / f"{number}.png", page)
    tifffile.imwrite("in.tif", pages, photometric="minisblack")
    tifffile.imwrite("psf.tif", PSF + 0.01)
    out = source.replace("in", "out")
    assert dip_command("deblur", source, "--psf", "psf.tif", "-o", out, *WORDS) == 0
    assert capsys.readouterr().err.count("take off its background, as in psf - psf.min()") == 1


def test_with_workers_it_is_told_once_too(here, capsys):
    for number in range(2):
        files.write(Path("in") / f"{number}.png", picture((20, 24), "uint8", seed=number))
    tifffile.imwrite("psf.tif", PSF + 0.01)
    assert dip_command("deblur", "in", "--psf", "psf.tif", "-o", "out", *WORDS, "--workers", 2) == 0
    assert capsys.readouterr().err.count("take off its background") == 1


@pytest.mark.parametrize("more", [("--preset", "fast"), ("--loss", "back-projection"), ("--consistent",)])
def test_damping_where_it_means_something(here, more):
    files.write("in.png", picture((20, 24), "uint8"))
    assert dip_command("deblur", "in.png", "--psf-sigma", 1, "--damping", 0.05, *more, "-o", "out.png", *WORDS) == 0


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ((), 2, "one of the arguments --psf --psf-sigma is required"),
        (("--psf", "psf.tif", "--psf-sigma", 1), 2, "not allowed with"),
        (("--psf", "nothing.tif"), 2, "nothing.tif does not exist"),
        (("--psf-sigma", -1), 2, "sigma must be"),
        (("--psf-sigma", 9), 2, "of a Gaussian take a smaller --psf-sigma"),
        (("--psf-sigma", 1, "--damping", 0.05), 2, "damping=0.05 means nothing without --preset fast (or its --loss"),
        (("--psf-sigma", 1, "--damping", 0.05, "--preset", "paper"), 2, "damping=0.05 means nothing"),
        (("--psf", "damaged.npy"), 2, "damaged.npy is no array of numbers that numpy.save has written"),
        (("--psf", "objects.npy"), 2, "objects.npy is no array of numbers"),
        (("--psf", "several.npy"), 2, "several.npy holds several arrays"),
        (("--psf-sigma", 1, "--boundary", "miror"), 2, "did you mean 'mirror'"),
    ],
)
def test_a_wrong_command_is_told_before_the_fit(here, capsys, words, status, told):
    files.write("in.png", picture((20, 24), "uint8"))
    tifffile.imwrite("psf.tif", PSF)
    Path("damaged.npy").write_bytes(b"\x93NUMPY")
    np.save("objects.npy", np.array([{}], object))
    np.savez("several.npz", PSF, PSF)
    Path("several.npz").rename("several.npy")
    try:
        found = dip_command("deblur", "in.png", "-o", "out.png", *words, *WORDS)
    except SystemExit as ended:
        found = ended.code
    assert found == status
    assert told in capsys.readouterr().err
    assert not Path("out.png").exists()
