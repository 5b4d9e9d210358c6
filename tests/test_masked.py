"""Noisy pictures of which pixels are missing: `dip.Denoise` with a mask."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import inpaint_biharmonic
from small import NET, QUICK, picture

import dip
from dip import cli, files, noise
from dip.flips import Flips
from dip.noise import PoissonGaussian, noise_level

FAST = {"preset": "fast", "network": NET, "precision": "float32"}


def photo(size=96):
    return skimage.data.astronaut()[30 : 30 + size, 180 : 180 + size, 0].astype(np.float32) / 255


def noisy(clean, sigma=0.1, seed=0):
    return (clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)).astype(np.float32)


def known(shape, share=0.5, seed=1):
    return np.random.default_rng(seed).random(shape[:2]) >= share


def as_tensor(image):
    return torch.from_numpy(np.asarray(image, np.float32))[None, None]


# ---------------------------------------------------------------------- what is fitted


@pytest.mark.parametrize("there", [np.nan, 0.0, 7.0])
def test_what_the_missing_pixels_hold_does_not_matter(there):
    y, mask = noisy(picture((24, 20, 3))), known((24, 20))
    images = [np.where(mask[..., None], y, np.float32(value)) for value in (0.5, there)]
    one, other = (dip.denoise(image, mask=mask, iters=4, **FAST) for image in images)
    assert np.array_equal(one, other)
    assert one.shape == y.shape
    assert not np.array_equal(one[mask], y[mask])  # nothing is kept as it is


@pytest.mark.parametrize("mask", [lambda m: m, lambda m: np.uint8(255) * m, lambda m: m.astype(np.float32)])
def test_masks_of_any_type(mask):
    y, m = noisy(picture((16, 20))), known((16, 20), 0.2)
    expected = dip.denoise(y, mask=m, iters=2, **QUICK)
    assert np.array_equal(dip.denoise(y, mask=mask(m), iters=2, **QUICK), expected)
    assert np.array_equal(dip.denoise(y, mask=torch.from_numpy(mask(m)), iters=2, **QUICK), expected)


def test_layouts_of_images():
    y, mask = noisy(picture((16, 20, 3))), known((16, 20), 0.2)
    expected = dip.denoise(y, mask=mask, iters=2, **FAST)
    first = dip.denoise(np.moveaxis(y, 2, 0), mask=mask, channel_axis=0, iters=2, **FAST)
    assert np.array_equal(np.moveaxis(first, 0, 2), expected)
    tensor = dip.denoise(torch.from_numpy(y).permute(2, 0, 1), mask=mask, iters=2, **FAST)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), expected)
    rgba = np.dstack([y, np.full(mask.shape, 0.5, np.float32)])
    with_alpha = dip.denoise(rgba, mask=mask, iters=2, **FAST)
    assert np.array_equal(with_alpha[..., :3], expected)
    assert np.array_equal(with_alpha[..., 3], rgba[..., 3])


def test_the_loss_looks_at_the_known_pixels_with_their_weights():
    y = picture((16, 20))
    weights = np.random.default_rng(0).choice(np.float32([0, 0.25, 1]), y.shape)
    fit = dip.fit(dip.Denoise(y, mask=weights), iters=1, average=0, jitter=0, **QUICK)
    assert torch.equal(fit.weight[0, 0], torch.from_numpy(weights))
    # the first loss is that of the output before the first step, which is the last one of a single iteration
    expected = np.average((fit.output[0, 0].numpy() - y) ** 2, weights=weights)
    assert fit.history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_a_mask_beats_filling_in_before():
    clean = photo()
    y, mask = noisy(clean), known(clean.shape)
    options = {"preset": "fast", "iters": 75}
    filled = inpaint_biharmonic(np.where(mask, y, 0), ~mask).astype(np.float32)
    told, before = dip.denoise(y, mask=mask, **options), dip.denoise(filled, **options)
    as_if = dip.codes.Denoised(level=dip.noise.noise_level(torch.from_numpy(filled)[None, None]))
    independent = dip.denoise(filled, code=as_if, **options)
    made = {"told": told, "before": before, "independent": independent}
    psnr = {name: peak_signal_noise_ratio(clean, x, data_range=1) for name, x in made.items()}
    assert psnr["told"] > psnr["independent"] + 2  # the noise of what was filled in is not
    assert psnr["told"] > psnr["before"] + 0.3  # which finds its spectrum
    missing = {name: np.mean((x - clean)[~mask] ** 2) for name, x in (("told", told), ("filled", filled))}
    assert missing["told"] < 0.5 * missing["filled"]


def test_the_code_shows_no_missing_pixel():
    clean = photo(64)
    mask = known(clean.shape)
    task = dip.Denoise(np.where(mask, noisy(clean), 0).astype(np.float32), mask=mask)
    fit = dip.Fit(task, **{**FAST, "code": dip.codes.Denoised(scale=1.0)})
    for channel in range(3):  # non-local means, the light and the full filter
        shown = fit.code[0, channel].numpy() + clean.mean()
        assert np.sqrt(np.mean((shown - clean)[~mask] ** 2)) < 0.1
    before = fit.code.clone()
    for _ in range(100):
        fit.step()
    average = fit.current.clone()
    fit.step()  # which renews them
    whole = torch.where(torch.from_numpy(mask), fit.y, average)
    filtered = torch.cat(dip.guides.wiener(whole, average, task.level, (0.5, 1.0)), dim=1)
    assert not torch.equal(fit.code, before)
    expected = filtered - filtered.mean((2, 3), keepdim=True)
    torch.testing.assert_close(fit.code[:, 1:3], expected, atol=1e-6, rtol=0)


def test_in_crops_and_resumed(tmp_path):
    y, mask = noisy(photo()), known((96, 96), 0.2)
    options = {**FAST, "tile": 48, "progress": False}
    whole = dip.fit(dip.Denoise(y, mask=mask), iters=6, **options)
    dip.fit(dip.Denoise(y, mask=mask), iters=3, checkpoint=tmp_path / "a.ckpt", **FAST)
    resumed = dip.fit(dip.Denoise(y, mask=mask), iters=6, resume=tmp_path / "a.ckpt", **FAST)
    assert whole.image.shape == y.shape
    assert np.array_equal(resumed.image, dip.fit(dip.Denoise(y, mask=mask), iters=6, **FAST).image)
    for other in (known((96, 96), 0.3), None):
        with pytest.raises(dip.CheckpointError, match="image"):
            dip.fit(dip.Denoise(y, mask=other), iters=6, resume=tmp_path / "a.ckpt", **FAST)


def test_the_residual_that_flips_look_at_is_that_of_the_known_pixels():
    flips, seen = Flips(None, torch.device("cpu"), level=1.0), []
    flips._moment.has_come = lambda residual: seen.append(residual) or False
    difference, weight = torch.tensor([[[[1.0, 2.0], [3.0, 100.0]]]]), torch.tensor([[[[1.0, 0.5], [0.5, 0.0]]]])
    flips.look(25, difference.expand(1, 3, 2, 2), weight)
    flips.look(50, difference)
    assert seen == [pytest.approx((1 + 2 + 4.5) / 2), pytest.approx((1 + 4 + 9 + 10000) / 4)]


# ---------------------------------------------------------------------- the noise


@pytest.mark.parametrize("share", [0.03, 0.5, 0.8, 0.9])
@pytest.mark.parametrize("colours", [1, 3])
def test_the_level_is_that_of_the_known_pixels(share, colours):
    clean = skimage.data.coffee()[100:300, 200:400, :colours].astype(np.float32) / 255
    mask = known(clean.shape, share)
    y = torch.from_numpy(np.where(mask[..., None], noisy(clean), -50).astype(np.float32)).permute(2, 0, 1)[None]
    there = torch.from_numpy(mask)
    found = noise_level(y, there)
    assert 0.09 < found < 0.125
    assert noise_level(torch.where(there, y, 3.0), there) == found


def test_all_known_is_the_same_as_nothing_said():
    y = as_tensor(noisy(photo()))
    everywhere = torch.ones(y.shape[2:], dtype=torch.bool)
    assert noise_level(y, everywhere) == noise_level(y)
    assert noise.found(y, everywhere) == noise.found(y)


def test_every_second_row_is_enough():
    mask = np.zeros((96, 96), bool)
    mask[::2] = True
    y = as_tensor(np.where(mask, noisy(np.full((96, 96), 0.4)), 0))
    assert noise_level(y, torch.from_numpy(mask)) == pytest.approx(0.1, rel=0.1)


def test_pixels_that_are_all_alone_do_not_tell():
    y, alone = noisy(photo(64)), np.indices((64, 64)).sum(0) % 2 == 0
    with pytest.raises(ValueError, match=r"next to each other.*PoissonGaussian"):
        dip.Fit(dip.Denoise(y, mask=alone), **FAST)
    told = dip.Fit(dip.Denoise(y, mask=alone, noise=PoissonGaussian(0, 0.1)), **FAST)
    assert told.task.level == pytest.approx(1.2 * 0.1)
    assert dip.denoise(y, mask=alone, iters=2, **QUICK).shape == y.shape  # by a code of noise, which need not know


@pytest.mark.parametrize("share", [0.03, 0.5, 0.8])
@pytest.mark.parametrize("read", [0.0, 0.05])
def test_noise_that_grows_is_found_between_missing_pixels(share, read):
    clean = skimage.data.camera()[::2, ::2].astype(np.float64) / 255
    draw, mask = np.random.default_rng(1), known(clean.shape, share)
    y = draw.poisson(20 * clean) / 20 + read * draw.standard_normal(clean.shape)
    task = dip.Denoise(np.where(mask, y, np.nan).astype(np.float32), mask=mask, noise="poisson")
    fit = dip.Fit(task, **FAST)
    assert task.noise.gain == pytest.approx(1 / 20, rel=0.15)
    assert task.noise.sigma == pytest.approx(read, abs=0.015)
    stable = fit.y[0, 0].numpy()[mask] - noise.Stabilising(task.noise).forward(as_tensor(clean))[0, 0].numpy()[mask]
    assert np.std(stable) == pytest.approx(task.level / 1.2, rel=0.15)


@pytest.mark.parametrize("name", ["camera", "coins", "brick"])
def test_counts_are_found_where_few_patches_are_known_as_a_whole(name):
    clean = getattr(skimage.data, name)()[100:196, 150:246].astype(np.float64) / 255
    mask = known(clean.shape, 0.03)
    mask[::24] = False
    y = np.where(mask, np.random.default_rng(0).poisson(20 * clean) / 20, 0).astype(np.float32)
    filled = dip.guides.filled(as_tensor(y), as_tensor(mask))
    assert noise.found(filled, torch.from_numpy(mask)) == PoissonGaussian(0.05)


def test_growing_noise_is_told_of():
    clean = skimage.data.camera()[::2, ::2].astype(np.float64) / 255
    y, mask = np.random.default_rng(1).poisson(20 * clean) / 20, known(clean.shape)
    with pytest.warns(RuntimeWarning, match="seems to grow with its light"):
        dip.Fit(dip.Denoise(y.astype(np.float32), mask=mask), **FAST)


def test_of_weights_the_surer_half_tells_of_the_noise():
    weights = np.where(np.arange(96) < 40, 0.25, 1.0).astype(np.float32) * np.ones((96, 1), np.float32)
    y = 0.5 + 0.05 / np.sqrt(weights) * np.random.default_rng(0).standard_normal((96, 96))
    task = dip.Denoise(y.astype(np.float32), mask=weights)
    dip.Fit(task, **FAST)
    assert task.level == pytest.approx(0.05, rel=0.1)


def test_the_white_is_that_of_the_known_pixels():
    image, mask = picture((20, 24), "uint16", white=4095), known((20, 24), 0.1)
    image[~mask] = 65535  # dead
    assert dip.Denoise(image).layout.high == 65535
    with pytest.warns(RuntimeWarning, match="white is taken for 4095"):
        fit = dip.Fit(dip.Denoise(image, mask=mask), **QUICK)
    assert fit.task.layout.high == 4095


# ---------------------------------------------------------------------- wrong masks


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (np.ones((5, 5), bool), ValueError, r"\(5, 5\)"),
        (np.zeros((16, 20), bool), ValueError, "no pixel as known"),
        (np.full((16, 20), 2.0), ValueError, "from 2 to 2"),
        (np.ones((16, 20, 3), bool), ValueError, r"mask.all\(axis=-1\)"),
        (np.ma.masked_array(np.ones((16, 20))), TypeError, "masked array"),
        ("mask.png", ValueError, "is a str"),
    ],
)
def test_wrong_masks_are_refused(mask, error, words):
    with pytest.raises(error, match=words):
        dip.Denoise(picture((16, 20)), mask=mask)


def test_a_trained_model_takes_none():
    with pytest.raises(ValueError, match="mask means nothing with backend"):
        dip.denoise(picture((16, 20)), mask=np.ones((16, 20)), backend="trained", model="cnn5")


def test_missing_pixels_without_a_mask_are_told_the_way():
    image = picture((16, 20))
    image[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"1 NaN .* mask of dip\.denoise or dip\.inpaint"):
        dip.denoise(image, iters=1, **QUICK)


# ---------------------------------------------------------------------- the command line

WORDS = ["--iters", "3", "--down", "8,8", "--skip", "4,4", "--precision", "float32", "--quiet"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dip_command(*words):
    return cli.main([str(word) for word in words])


def test_one_picture(here, capsys):
    clean, mask = picture((20, 24, 3), "uint8"), known((20, 24), 0.3)
    files.write("clean.png", clean)
    files.write("in.png", np.where(mask[..., None], clean, 0).astype(np.uint8))
    files.write("known.png", np.uint8(255) * mask)
    files.write("dead.png", np.uint8(255) * ~mask)
    given = ("denoise", "in.png", "--preset", "fast", "--reference", "clean.png", "--json", "r.json", "--force", *WORDS)
    assert dip_command(*given, "--mask", "known.png", "-o", "a.png") == 0
    assert dip_command(*given, "--mask", "dead.png", "--invert-mask", "-o", "b.png") == 0
    expected = dip.denoise(files.read("in.png").pixels, mask=mask, iters=3, **FAST)
    assert np.array_equal(files.read("a.png").pixels, expected)
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    report = json.loads(Path("r.json").read_text())
    assert (report["mask"], report["settings"]["invert_mask"]) == ("dead.png", True)
    assert report["settings"]["missing"] == pytest.approx((~mask).mean())
    wrong = (expected.astype(float) - clean)[~mask]
    assert report["figures"]["psnr_missing"] == pytest.approx(10 * np.log10(255**2 / np.mean(wrong**2)), abs=1e-3)
    assert dip_command("denoise", "in.png", "--mask", "known.png", "-o", "c.png", *WORDS[:-1]) == 0
    assert f"{(~mask).mean():.1%} missing" in capsys.readouterr().out


def test_a_folder_and_a_stack(here):
    images, mask = [picture((20, 24), "uint8", seed=seed) for seed in (0, 1)], known((20, 24), 0.2)
    files.write("mask.png", np.uint8(255) * mask)
    for name, image in zip("ab", images, strict=True):
        files.write(f"in/{name}.png", image)
    tifffile.imwrite("in.tif", np.stack(images), photometric="minisblack")
    assert dip_command("denoise", "in", "--mask", "mask.png", "-o", "out", *WORDS) == 0
    assert dip_command("denoise", "in.tif", "--mask", "mask.png", "-o", "out.tif", *WORDS) == 0
    expected = [dip.denoise(image, mask=mask, iters=3, network=NET, precision="float32") for image in images]
    assert np.array_equal(files.read("out/b.png").pixels, expected[1])
    assert np.array_equal(tifffile.imread("out.tif"), expected)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--invert-mask"], "--invert-mask means nothing without --mask"),
        (["--mask", "none.png"], "none.png does not exist"),
        (["--mask", "black.png"], "no pixel as known"),
        (["--mask", "small.png"], "needs 20 x 24"),
        (["--mask", "known.png", "--backend", "trained", "--model", "cnn5"], "--mask means nothing with --backend"),
    ],
)
def test_wrong_words(words, told, here, capsys):
    files.write("in.png", picture((20, 24), "uint8"))
    files.write("known.png", np.uint8(255) * known((20, 24)))
    files.write("black.png", np.zeros((20, 24), np.uint8))
    files.write("small.png", np.full((5, 5), 255, np.uint8))
    assert dip_command("denoise", "in.png", "-o", "out.png", *words, *WORDS) == 2
    assert told in capsys.readouterr().err
    assert not Path("out.png").exists()


def test_nan_in_a_file_is_told_the_way(here, capsys):
    image = io.BytesIO()
    pixels = picture((20, 24))
    pixels[3, 4] = np.nan
    Image.fromarray(pixels).save(image, "tiff")
    Path("in.tif").write_bytes(image.getvalue())
    assert dip_command("denoise", "in.tif", "-o", "out.tif", *WORDS) == 1
    assert "(black) in the --mask" in capsys.readouterr().err
