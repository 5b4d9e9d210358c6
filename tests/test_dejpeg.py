"""JPEGs: the operator against Pillow and SciPy, how a picture was compressed, the task, its loss, and the command."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.special
import skimage.data
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from small import QUICK, picture

import dip
from dip import cli, losses
from dip.operators import JPEG
from dip.operators.blocks import not_upsampled, ycc

SOLVE = {"network": {"down": (8, 16, 16), "up": (8, 16, 16), "skip": (4, 4, 4)}, "precision": "float32"}
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


def detail(size=64, width=None):
    """Part of a real photograph in colour, uint8, with little that is black or white."""
    return skimage.data.astronaut()[100 : 100 + size, 200 : 200 + (width or size)]


def packed(pixels, quality, **options):
    """The bytes of a JPEG file."""
    Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=quality, **options)
    return file.getvalue()


def unpacked(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def planes(pixels, dtype=torch.float64):
    """(1, C, H, W) in [0, 1]."""
    return torch.from_numpy(np.atleast_3d(pixels) / 255).permute(2, 0, 1)[None].to(dtype)


# ---------------------------------------------------------------------- the operator


def test_coefficients_are_those_of_scipy():
    gray = detail()[:32, :48, 1]
    found = JPEG(50).coefficients(planes(gray))
    assert found.shape == (1, 256, 2, 3)
    for row, column in ((0, 0), (3, 5), (2, 1)):  # blocks of 8 x 8
        block = gray[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] / 255 - 128 / 255
        ours = found[0].unflatten(0, (2, 2, 8, 8))[row % 2, column % 2, :, :, row // 2, column // 2]
        np.testing.assert_allclose(ours, scipy.fft.dctn(block, norm="ortho"), atol=1e-12)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 95, 100])
def test_tables_are_libjpegs(quality):
    file = Image.open(io.BytesIO(packed(detail(16), quality)))
    tables = JPEG(quality).tables
    for ours, number in zip(tables, (0, 1), strict=True):
        np.testing.assert_array_equal(ours.flatten(), file.quantization[number])


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [10, 60, 90])
def test_forward_is_what_pillow_makes(quality, subsampling):
    clean = detail(64, 96)
    theirs = unpacked(packed(clean, quality, subsampling=subsampling))
    ours = JPEG(quality, subsampling=subsampling)(planes(clean))
    off = 255 * (ours - planes(theirs)).abs()
    # libjpeg rounds brightness and colours to whole levels on the way, which moves a coefficient by a step now and then
    assert off.mean() < 1.1
    assert off.mean() < 0.5 * 255 * (planes(clean) - planes(theirs)).abs().mean()


@pytest.mark.parametrize("shape", [(17, 30), (64, 48, 3), (1, 1, 3), (9, 50, 3)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:4:0", "4:2:0"])
def test_decoded_undoes_coefficients(shape, subsampling):
    """Where no colour was averaged, or where colours are even."""
    pixels = picture(shape, "uint8")
    jpeg = JPEG(50, subsampling=subsampling)
    x = planes(pixels)
    found = jpeg.coefficients(x)
    assert found.shape[1:] == (jpeg.steps_for(x.shape[1]).shape[1], -(-shape[0] // 16), -(-shape[1] // 16))
    if subsampling == "4:4:4" or x.shape[1] == 1:
        torch.testing.assert_close(jpeg.decoded(found, x.shape[2:]), x, atol=1e-6, rtol=0)
    gray = x[:, :1].expand(-1, 3, -1, -1) + torch.tensor([0.1, 0, -0.05], dtype=x.dtype).reshape(1, 3, 1, 1)
    torch.testing.assert_close(jpeg.decoded(jpeg.coefficients(gray), x.shape[2:]), gray, atol=1e-6, rtol=0)


def test_colours_are_interpolated_as_pillow_does():
    """Of a picture that is even but for its colours, at a quality that loses nothing else."""
    clean = np.full((32, 48, 3), 128, np.uint8)
    clean[:, 24:, 0] += 40
    theirs = unpacked(packed(clean, 100, subsampling="4:2:0"))
    jpeg = JPEG(100, subsampling="4:2:0")
    ours = jpeg.decoded(jpeg.coefficients(planes(clean)), (32, 48))
    assert 255 * (ours - planes(theirs)).abs().max() < 2.5
    assert len(np.unique(theirs[16, 20:28, 0])) > 2  # it is a ramp by now


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_gradients(subsampling):
    x = planes(detail(9, 10)).requires_grad_()
    jpeg = JPEG(50, subsampling=subsampling)
    assert torch.autograd.gradcheck(jpeg.coefficients, x, atol=1e-6)
    # as if nothing were rounded: of 4:4:4 the identity, where nothing is clipped
    if subsampling == "4:4:4":
        y = jpeg(x)
        y.sum().backward()
        inside = ((y > 0) & (y < 1)).all(1, keepdim=True).expand_as(y)
        assert inside[..., :8, :8].float().mean() > 0.9
        torch.testing.assert_close(x.grad[..., :8, :8][inside[..., :8, :8]].mean().item(), 1.0, atol=0.05, rtol=0)


def test_float32_also_under_autocast():
    x = planes(detail(16), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = JPEG(50).coefficients(x)
    torch.testing.assert_close(inside, JPEG(50).coefficients(x))
    torch.testing.assert_close(inside.double(), JPEG(50).coefficients(x.double()), atol=1e-5, rtol=0)


# ---------------------------------------------------------------------- how a picture was compressed


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [5, 30, 75, 92])
def test_quality_and_subsampling_are_found_in_the_pixels(quality, subsampling):
    y = unpacked(packed(detail(160), quality, subsampling=subsampling))
    found = JPEG.found_in(planes(y, torch.float32))
    assert torch.equal(found.tables, JPEG(quality).tables)
    assert found.subsampling == subsampling
    gray = unpacked(packed(detail(160, 155)[..., 0], quality))
    assert torch.equal(JPEG.found_in(planes(gray, torch.float32)).tables, JPEG(quality).tables[:1])


def test_clipped_pixels_do_not_mislead():
    """Of white letters on black every second pixel lies beyond the range before it is clipped."""
    clean = np.where(dip.degradations.text_mask((96, 96), size=16), 0, 255).astype(np.uint8)
    clean[:48] = skimage.data.camera()[100:148, 200:296]
    for quality in (15, 75):
        y = unpacked(packed(clean, quality))
        jpeg = JPEG.found_in(planes(y))
        assert torch.equal(jpeg.tables, JPEG(quality).tables[:1])
        steps = jpeg.steps_for(1)
        stored = (jpeg.coefficients(planes(clean)) / steps).round()
        off = ((jpeg.stored(planes(y)) / steps - stored).abs() > 0.5).float().mean()
        plainly = ((jpeg.coefficients(planes(y)) / steps).round() != stored).float().mean()
        assert off < 0.03
        assert off < 0.5 * plainly


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_coefficients_of_a_decoded_picture_are_those_of_its_file(subsampling):
    clean = detail(96)
    y = unpacked(packed(clean, 30, subsampling=subsampling))
    jpeg = JPEG(30, subsampling=subsampling)
    stored = jpeg.stored(planes(y))
    # decoding them again gives the same picture
    off = 255 * (jpeg.decoded(stored, y.shape[:2]).clamp(0, 1) - planes(y)).abs()
    assert off.mean() < 0.7
    # and the clean picture is within half a step of them
    steps = jpeg.steps_for(3)
    assert ((jpeg.coefficients(planes(clean)) - stored).abs() > 0.55 * steps).float().mean() < 1e-3


@pytest.mark.parametrize("shape", [(75, 77, 3), (67, 67, 3), (67, 50)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_blocks_that_are_cut_off_say_nothing_of_the_file(shape, subsampling):
    """The clean picture is within the bounds of all that are whole, and a correction moves it next to nothing."""
    clean = detail(*shape[:2])
    clean = clean if len(shape) == 3 else clean[..., 0]
    options = {"subsampling": subsampling} if clean.ndim == 3 else {}
    fit = dip.Fit(dip.Dejpeg(unpacked(packed(clean, 40, **options)), JPEG(40, subsampling=subsampling)), **QUICK)
    x, task = planes(clean, torch.float32), fit.task
    whole = task.jpeg.bounded(x.shape[1], shape[:2])
    assert whole.shape == fit.y.shape
    # by hand: of gray and of brightness as many blocks as there is room for
    assert int(whole[:, :256].sum()) == 64 * (shape[0] // 8) * (shape[1] // 8)
    if clean.ndim == 3:
        unit = 16 if subsampling == "4:2:0" else 8
        assert int(whole[:, 256:].sum()) == 2 * 64 * (shape[0] // unit) * (shape[1] // unit)
    off = (task.forward(x) - fit.y).abs() / task.steps
    assert (off[whole.expand_as(off)] > 0.55).float().mean() < 0.002
    changed = 255 * (ycc(task.consistent(x, fit.y)) - ycc(x)).abs()
    assert changed[:, :1].mean() < 0.5  # colours are interpolated
    # behind the last whole block, where the file knows nothing that could be seen, nothing is changed at all
    unit = 16 if subsampling == "4:2:0" and clean.ndim == 3 else 8
    beyond = [n // unit * unit for n in shape[:2]]
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    moved = (task.consistent(noise, fit.y) - noise).abs()
    if unit == 8:
        assert moved[..., beyond[0] :, :].max() < 1e-5
        assert moved[..., beyond[1] :].max() < 1e-5
    assert moved[..., : beyond[0], : beyond[1]].mean() > 0.05


def test_what_was_a_jpeg_twice(tmp_path):
    """Read from a file, a picture is decompressed by the coarser of the two."""
    clean = detail(96)
    first = unpacked(packed(clean, 10))
    for second, expected in ((92, "quality=10"), (5, "quality=5")):
        path = tmp_path / "twice.jpg"
        path.write_bytes(packed(first, second))
        y = dip.files.read(path).pixels
        if second == 92:
            with pytest.warns(RuntimeWarning, match="was a JPEG before, of quality=10"):
                fit = dip.Fit(dip.Dejpeg(y, path), **QUICK)
        else:
            fit = dip.Fit(dip.Dejpeg(y, path), **QUICK)
        assert expected in fit.task.words
    # one that is told is taken
    path.write_bytes(packed(first, 92))
    with pytest.warns(RuntimeWarning, match="a good one"):
        fit = dip.Fit(dip.Dejpeg(dip.files.read(path).pixels, JPEG.of_file(path)), **QUICK)
    assert "quality=92" in fit.task.words


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_of_a_quality_that_is_told_the_subsampling_is_found(subsampling):
    y = unpacked(packed(detail(), 30, subsampling=subsampling))
    for quality in (30, np.int64(30)):
        assert dip.Fit(dip.Dejpeg(y, quality), **QUICK).task.jpeg.subsampling == subsampling
    other = "4:4:4" if subsampling != "4:4:4" else "4:2:0"
    with pytest.warns(RuntimeWarning, match="does not look as if"):
        dip.Fit(dip.Dejpeg(y, JPEG(30, subsampling=other)), **QUICK)


def test_the_finest_steps_are_believed():
    for quality in (97, 99, 100):
        y = unpacked(packed(detail(), quality))
        with pytest.warns(RuntimeWarning) as caught:
            dip.Fit(dip.Dejpeg(y, JPEG(quality)), **QUICK)
        (only,) = caught
        assert re.search(r"a good one, about \d\d dB from the original", str(only.message))


def test_a_table_for_each_colour(tmp_path):
    tables = [[step] * 64 for step in (8, 16, 40)]
    path = tmp_path / "three.jpg"
    Image.fromarray(detail()).save(path, "JPEG", qtables=tables, subsampling="4:4:4")
    jpeg, y = JPEG.of_file(path), planes(dip.files.read(path).pixels)
    np.testing.assert_array_equal(jpeg.tables[:, 0, 0], (8, 16, 40))
    off = 255 * (jpeg.decoded(jpeg.stored(y), y.shape[2:]).clamp(0, 1) - y).abs()
    assert off.mean() < 0.7
    steps = jpeg.steps_for(3).flatten() * 255
    np.testing.assert_allclose(steps[[0, 255, 256, 511, 512, 767]], (8, 8, 16, 16, 40, 40), rtol=1e-6)


def test_before_a_fit_it_is_not_known_how_it_was_compressed():
    y = unpacked(packed(detail(), 20))
    task = dip.Dejpeg(y)
    with pytest.raises(RuntimeError, match="load"):
        task.forward(planes(y, torch.float32))
    assert dip.Dejpeg(y, JPEG(20)).forward(planes(y)).shape == (1, 384, 4, 4)
    code = dip.Fit(dip.Dejpeg(y), code=dip.codes.Autoencoding(), network=QUICK["network"]).settings.code
    assert code.factor == 1  # of super-resolution alone


def test_no_trace_of_a_jpeg():
    with pytest.raises(ValueError, match=r"no trace of a JPEG.*jpeg=75"):
        dip.dejpeg(detail())
    y = unpacked(packed(detail(), 20))
    with pytest.raises(ValueError, match="no trace of a JPEG"):  # its blocks do not begin at the corner
        dip.dejpeg(np.ascontiguousarray(y[3:, 5:]))
    with pytest.warns(RuntimeWarning, match=r"does not look as if.*quality=33"):
        dip.dejpeg(y, JPEG(33), iters=1, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dip.dejpeg(y, JPEG(20), iters=1, **QUICK)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("subsampling", ["4:2:2", "4:2:0"])
def test_of_file_turns_with_the_picture(tmp_path, orientation, subsampling):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    path.write_bytes(packed(detail(64, 96), 20, subsampling=subsampling, exif=exif))
    jpeg = JPEG.of_file(path)
    y = planes(dip.files.read(path).pixels)
    assert jpeg.fits(y)
    off = 255 * (jpeg.decoded(jpeg.stored(y), y.shape[2:]).clamp(0, 1) - y).abs()
    assert off.mean() < 0.6
    assert "quality=20" in repr(jpeg)
    found = JPEG.found_in(y)  # in the pixels alone
    assert torch.equal(found.tables, jpeg.tables)
    assert found.subsampling == jpeg.subsampling
    # sides of 64 and 92 pixels: where the short last block would come first, the blocks do not begin at the corner
    path.write_bytes(packed(detail(64, 92), 20, subsampling=subsampling, exif=exif))
    if orientation in (2, 3, 7, 8):
        with pytest.raises(ValueError, match="jpegtran"):
            JPEG.of_file(path)
    else:
        assert JPEG.of_file(path).fits(planes(dip.files.read(path).pixels))


def test_of_file_knows_gray_and_refuses_what_it_does_not_know(tmp_path):
    gray = tmp_path / "gray.jpg"
    gray.write_bytes(packed(detail(32)[..., 0], 33))
    assert JPEG.of_file(gray).tables.shape == (1, 8, 8)
    assert torch.equal(JPEG.of_file(gray).tables[0], JPEG(33).tables[0])
    png = tmp_path / "a.png"
    Image.fromarray(detail(16)).save(png)
    with pytest.raises(ValueError, match=r"a\.png is no JPEG"):
        JPEG.of_file(png)
    cmyk = tmp_path / "cmyk.jpg"
    Image.fromarray(detail(16)).convert("CMYK").save(cmyk)
    with pytest.raises(ValueError, match="4 components"):
        JPEG.of_file(cmyk)
    with pytest.raises(FileNotFoundError):
        JPEG.of_file(tmp_path / "none.jpg")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(gray.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cut\.jpg is no JPEG"):
        JPEG.of_file(cut)
    rgb = tmp_path / "rgb.jpg"
    Image.fromarray(detail(16)).save(rgb, "JPEG", keep_rgb=True)
    data = rgb.read_bytes()
    for told in (data, data.replace(b"\xff\xee", b"\xff\xed", 1)):  # with a word of Adobe's, and without
        rgb.write_bytes(told)
        with pytest.raises(ValueError, match="RGB components"):
            JPEG.of_file(rgb)


REFUSED = {
    "neither": (lambda: JPEG(), "give JPEG"),
    "both": (lambda: JPEG(3, tables=[np.ones((8, 8))]), "give JPEG"),
    "quality": (lambda: JPEG(101), "quality=101"),
    "subsampling": (lambda: JPEG(50, subsampling="4:1:1"), "4:2:0"),
    "tables": (lambda: JPEG(tables=[np.ones((4, 4))]), "8 x 8"),
    "steps": (lambda: JPEG(tables=[np.zeros((8, 8))]), "1 to 65535"),
    "channels": (lambda: JPEG(50).coefficients(torch.zeros(1, 2, 8, 8)), "gray or RGB"),
    "integers": (lambda: JPEG(50).coefficients(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)), "uint8"),
    "gray table": (lambda: dip.Dejpeg(detail(), JPEG(tables=[np.ones((8, 8))])), "brightness alone"),
    "a number": (lambda: dip.Dejpeg(detail(), 7.5), r"jpeg=7.5.*75"),
    "a truth": (lambda: dip.Dejpeg(detail(), True), "quality"),
    "a quality": (lambda: dip.Dejpeg(detail(), 750), "quality=750"),
    "photons": (lambda: dip.dejpeg(detail(), 75, loss="poisson"), "photons"),
    "two channels": (lambda: dip.Dejpeg(detail()[..., :2], channel_axis=-1), "2 channels"),
    "loss elsewhere": (lambda: dip.denoise(detail(), loss="quantization"), "for dip.Dejpeg, not for denoise"),
    "back-projection": (lambda: dip.dejpeg(detail(), JPEG(5), loss="back-projection"), "dip.Deblur"),
    "free": (lambda: losses.Quantization(1.5), "free=1.5"),
    "degradation": (lambda: dip.degradations.jpeg(detail(), 101), "at most 100"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


# ---------------------------------------------------------------------- losses


def test_quantization_loss_by_hand():
    class Task:
        steps = torch.tensor([2.0, 4.0])
        error = 0.048

    loss = losses.Quantization(0.5).of(Task())
    prediction, y = torch.tensor([1.5, -4.0]), torch.tensor([0.0, 0.0])
    # beyond a half of the half-steps: 1.5 - 0.5 and 4 - 1; weights 3 / 2 and 3 / 4
    assert float(loss(prediction, y)) == pytest.approx((1.5 * 1.0**2 + 0.75 * 3.0**2) / 2)
    assert float(loss(torch.tensor([0.5, -1.0]), y)) == 0
    usual = losses.create("quantization").of(Task())  # (0.048 - 0.03) / 0.06 = 0.3 of an interval are free
    assert float(usual(prediction, y)) == pytest.approx((1.5 * 1.2**2 + 0.75 * 3.4**2) / 2)
    with pytest.raises(RuntimeError, match="belongs to no task"):
        losses.Quantization()(prediction, y)
    with pytest.raises(ValueError, match="no weights"):
        loss(prediction, y, weight=torch.ones(2))


def test_poisson_loss_is_scipys_divergence():
    rng = np.random.default_rng(0)
    p, y = rng.random(50), rng.poisson(3, 50) / 5.0
    expected = scipy.special.kl_div(y + 1e-3, p + 1e-3)
    loss = losses.create("poisson")
    found = loss(torch.from_numpy(p), torch.from_numpy(y))
    assert float(found) == pytest.approx(expected.mean())
    weight = torch.from_numpy(rng.random(50))
    weighted = loss(torch.from_numpy(p), torch.from_numpy(y), weight=weight)
    assert float(weighted) == pytest.approx(np.average(expected, weights=weight.numpy()))
    assert float(loss(torch.tensor([0.25]), torch.tensor([-1.0]))) == pytest.approx(
        scipy.special.kl_div(1e-3, 0.251), rel=1e-5
    )
    with pytest.raises(TypeError, match="complex"):
        loss(torch.ones(2, dtype=torch.complex64), torch.ones(2, dtype=torch.complex64))


def test_poisson_loss_is_least_at_the_mean_of_counts():
    """The best constant for counts is their mean, which is the maximum of the likelihood."""
    y = torch.from_numpy(np.random.default_rng(1).poisson(2.0, 400) / 10).double()
    values = torch.linspace(0.1, 0.3, 201, dtype=torch.float64)
    loss = losses.Poisson(1e-9)
    best = min(values, key=lambda value: float(loss(value.expand_as(y), y)))
    assert float(best) == pytest.approx(float(y.mean()), abs=1e-3)


# ---------------------------------------------------------------------- the task


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", [(64, 50), (64, 64, 3), (64, 70, 4)])
def test_what_goes_in_comes_out_in_kind(shape, dtype):
    clean = detail(*shape[:2])
    y = unpacked(packed(clean if len(shape) == 3 else clean[..., 0], 25))
    if shape[-1] == 4:
        y = np.dstack([y, np.arange(y[..., 0].size).reshape(y.shape[:2]).astype(np.uint8)])
    y = y if dtype == "uint8" else (y / 255).astype(np.float32)
    restored = dip.dejpeg(y, iters=2, **QUICK)
    assert (restored.shape, restored.dtype) == (y.shape, y.dtype)
    if shape[-1] == 4:
        np.testing.assert_array_equal(restored[..., 3], y[..., 3])


def test_a_jpeg_is_restored():
    coffee = skimage.data.coffee()
    clean = np.ascontiguousarray(coffee[152:216, 252:316])
    y = unpacked(packed(clean, 10))
    fit = dip.fit(dip.Dejpeg(y), iters=200, precision="float32", seed=0)
    before, after = (peak_signal_noise_ratio(clean, x) for x in (y, fit.image))
    assert after > before + 1.2
    blind = dip.denoise(y, preset="fast", iters=150, precision="float32")
    assert after > peak_signal_noise_ratio(clean, blind) + 0.6


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_the_result_would_give_the_same_jpeg(subsampling):
    """Each coefficient that a decoder makes the result of is in the interval that is rounded to the file's."""
    y = (unpacked(packed(detail(48, 64), 20, subsampling=subsampling)) / 255).astype(np.float32)
    fit = dip.fit(dip.Dejpeg(y), iters=3, seed=0, **SOLVE)
    task, jpeg = fit.task, fit.task.jpeg
    x, steps = task.consistent(fit.picture, fit.y), jpeg.steps_for(3)
    ours = jpeg._coefficients(x, ycc, not_upsampled)
    assert float(((ours - fit.y).abs() / steps).max()) < 0.51
    assert float(((jpeg.coefficients(fit.picture) - fit.y).abs() / steps).max()) > 1
    first = task.consistent(None, fit.y)[0].permute(1, 2, 0).numpy()
    assert np.abs(first - y).mean() < 0.7 / 255


@pytest.mark.parametrize("times", [1, 2, 10])
def test_the_better_of_two_counts_for_more(times):
    """Of squared distances of so many times q^2 / 12 the rounding explains one, so the fit keeps 1 / times of them."""
    task = dip.Dejpeg(np.full((32, 32), 128, np.uint8), JPEG(tables=[np.full((8, 8), 16)]))
    fit, rng = dip.Fit(task, **QUICK), torch.Generator().manual_seed(0)
    y = fit.y + task.steps * torch.randint(1, 4, fit.y.shape, generator=rng)  # nothing is rounded to 0
    off = math.sqrt(times / 12) * task.steps * (torch.randint(0, 2, fit.y.shape, generator=rng) * 2 - 1)
    x = task.jpeg.decoded(y + off, (32, 32))
    kept = (task.jpeg.coefficients(task.consistent(x, y)) - y) / off
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / times), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(130, 200), (128, 192)])
def test_in_crops(size):
    """A crop is compared with whole blocks, and with those that the border cuts."""
    y = unpacked(packed(detail(*size), 30))
    options = {**SOLVE, "code": dip.codes.Uniform(8)}
    fit = dip.fit(dip.Dejpeg(y), iters=60, tile=64, seed=0, **options)
    assert fit.image.shape == y.shape
    seen = torch.zeros(fit.y.shape[2:])
    for _ in range(200):
        fit._view.part(fit.code)
        rows, columns = fit._view._crop.y
        seen[rows, columns] += 1
    assert (seen > 0).all()


def test_crops_agree_with_the_whole():
    """Of a crop A x is what A x of the whole is there."""
    y = unpacked(packed(detail(130, 200), 30))
    fit = dip.Fit(dip.Dejpeg(y), tile=64, seed=0, **{**SOLVE, "code": dip.codes.Uniform(8)})
    x = torch.rand(1, 3, fit.settings.frame.height, fit.settings.frame.width)
    whole = fit.task.forward(fit.settings.frame.crop(x))
    for _ in range(30):
        fit._view.part(fit.code)
        crop = fit._view._crop
        part = x[..., *crop.code][..., *crop.x]
        prediction, there, _ = fit._view.compared(fit.task.forward(part), fit.y, None)
        torch.testing.assert_close(prediction, whole[..., *crop.y])
        assert there.shape == prediction.shape


def test_several_at_once():
    ys = [unpacked(packed(detail(32), q)) for q in (20, 40)]
    tasks = [dip.Dejpeg(y, JPEG(q)) for y, q in zip(ys, (20, 40), strict=True)]
    alone = [dip.fit(task, iters=4, seed=0, **QUICK).image for task in tasks]
    together = dip.run_all([dip.Fit(task, seed=0, **QUICK) for task in tasks], 4)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other.image)


# ---------------------------------------------------------------------- the degradation and the command


def test_degradation_is_pillows():
    clean = detail(40, 33)
    np.testing.assert_array_equal(
        dip.degradations.jpeg(clean, 30, subsampling="4:4:4"), unpacked(packed(clean, 30, subsampling="4:4:4"))
    )
    floats = dip.degradations.jpeg((clean[..., 0] / 255).astype(np.float32), 30)
    np.testing.assert_allclose(floats, unpacked(packed(clean[..., 0], 30)) / 255, atol=1e-6)
    tensor = dip.degradations.jpeg(torch.from_numpy(clean).permute(2, 0, 1), 30)
    np.testing.assert_array_equal(tensor.permute(1, 2, 0), unpacked(packed(clean, 30)))


FAST = ["--iters", "2", "--down", "4,4", "--skip", "2,2", "--quiet"]


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.jpg").write_bytes(packed(detail(), 12, subsampling="4:4:4"))
    Image.fromarray(detail()).save(tmp_path / "clean.png")
    words = ["--reference", tmp_path / "clean.png", "--json", tmp_path / "r.json"]
    assert run("dejpeg", tmp_path / "a.jpg", "-o", tmp_path / "a.png", *words, *FAST[:-1]) == 0
    assert "a JPEG of quality=12, subsampling='4:4:4'" in capsys.readouterr().out
    settings = json.loads((tmp_path / "r.json").read_text())["settings"]
    assert settings["operator"] == "quality=12, subsampling='4:4:4'"
    assert settings["preset"] == "fast"
    # what is no JPEG any more: found, or told
    again = tmp_path / "again.png"
    Image.open(tmp_path / "a.jpg").save(again)
    assert run("dejpeg", again, "-o", tmp_path / "b.png", *FAST) == 0
    np.testing.assert_array_equal(*(dip.files.read(tmp_path / name).pixels for name in ("a.png", "b.png")))
    with pytest.warns(RuntimeWarning, match="quality=30"):
        dip.dejpeg(dip.files.read(again).pixels, JPEG(30), iters=1, **QUICK)
    assert run("dejpeg", tmp_path / "clean.png", "-o", tmp_path / "c.png", *FAST) == 2
    assert "no trace of a JPEG" in capsys.readouterr().err
    assert run("dejpeg", again, "-o", tmp_path / "c.png", "--subsampling", "4:4:4", *FAST) == 2
    assert "--quality" in capsys.readouterr().err
    assert not (tmp_path / "c.png").exists()
    # a result that is a JPEG again is written, with a word
    assert run("dejpeg", again, "-o", tmp_path / "d.jpg", *FAST) == 0
    assert "is a JPEG again" in capsys.readouterr().err
    assert (tmp_path / "d.jpg").exists()


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_folder_of_jpegs_of_different_qualities(tmp_path, workers):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, quality in (("a.jpg", 10), ("b.jpeg", 40)):
        (folder / name).write_bytes(packed(detail(48), quality))
    assert run("dejpeg", folder, "-o", tmp_path / "out", "--json", tmp_path / "r.json", *workers, *FAST) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]  # nothing is lost again
    entries = json.loads((tmp_path / "r.json").read_text())
    assert [one["settings"]["operator"].partition(",")[0] for one in entries] == ["quality=10", "quality=40"]
    one = dip.dejpeg(unpacked(packed(detail(48), 40)), iters=2, network={"down": (4, 4), "up": (4, 4), "skip": (2, 2)})
    np.testing.assert_array_equal(dip.files.read(tmp_path / "out/b.png").pixels, one)
