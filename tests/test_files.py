"""Pictures on disk: dip.files, dip.decoding and dip.encoding."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import logging
import os
import socket
import stat
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from dip import encoding, files

MAKE, ORIENTATION, EXPOSURE, GPS_LATITUDE, EXIF_IFD, GPS_IFD = 0x010F, 0x0112, 0x829A, 2, 0x8769, 0x8825
HELD = {"png": ["uint8", "uint16"], "tif": ["uint8", "uint16", "float32"], "jpg": ["uint8"]}


def draw(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.random(shape, dtype=np.float32)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    """Colours that JPEG keeps well."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.stack([4 * rows, 3 * columns, 2 * (rows + columns)], axis=-1).astype(np.uint8)


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 1) -> bytes:
    given = Image.Exif()
    given[MAKE] = "Camera"
    given[ORIENTATION] = orientation
    given[EXIF_IFD] = {EXPOSURE: 0.25, 0xA002: 4000, 0xA003: 3000}
    given[GPS_IFD] = {GPS_LATITUDE: (52.0, 30.0, 0.0)}
    return given.tobytes()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_channels(path: Path, array: np.ndarray) -> Path:
    """Write (H, W, C) as gray, gray with alpha, RGB or RGBA."""
    if array.shape[2] > 2:
        return files.write(path, array)
    return files.write(path, array[..., 0], alpha=array[..., 1] if array.shape[2] == 2 else None)


def colours(array: np.ndarray) -> np.ndarray:
    """(H, W, C) as the pixels of a Picture."""
    return array[..., 0] if array.shape[2] < 3 else array[..., :3]


def hand_made_png(array: np.ndarray, filters: list[int], extra: bytes = b"") -> bytes:
    """A 16-bit PNG made by the letter of its standard, row i filtered by filters[i]."""
    height, width, channels = array.shape
    step = 2 * channels
    raw = array.astype(">u2").tobytes()
    lines, above = [], bytes(width * step)
    for row in range(height):
        line = raw[row * width * step : (row + 1) * width * step]
        kind, out = filters[row % len(filters)], bytearray()
        for i, value in enumerate(line):
            a = line[i - step] if i >= step else 0
            b, c = above[i], above[i - step] if i >= step else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out.append((value - [0, a, b, (a + b) // 2, paeth][kind]) % 256)
        lines.append(bytes([kind]) + bytes(out))
        above = line
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def hand_made_tiff(array: np.ndarray, compression: int, data: bytes, **tags: int) -> bytes:
    """A one-strip little-endian TIFF around data that are already compressed."""
    height, width, channels = array.shape
    directory = ImageFileDirectory_v2()
    values: dict[int, Any] = {
        256: width, 257: height, 258: (8 * array.itemsize,) * channels, 259: compression,
        262: 2 if channels > 2 else 1, 273: 0, 277: channels, 278: height, 279: len(data),
    }  # fmt: skip
    if channels == 4:
        values[338] = 2
    values |= {int(tag.removeprefix("t")): value for tag, value in tags.items()}
    for tag, value in values.items():
        directory[tag] = value
    out = io.BytesIO()
    directory.save(out)
    return out.getvalue() + data


def pack_bits(data: bytes) -> bytes:
    """Literal runs only."""
    parts = [data[i : i + 128] for i in range(0, len(data), 128)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


def saved(folder: Path, name: str, image: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    """A file by Pillow."""
    picture = Image.fromarray(image)
    (picture.convert(mode) if mode else picture).save(folder / name, **options)
    return folder / name


# --- there and back


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 3)])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("suffix", "dtype"), [(s, d) for s in ("png", "tif") for d in HELD[s]])
def test_what_is_written_is_read(
    tmp_path: Path, suffix: str, dtype: str, channels: int, alpha: bool, size: tuple[int, int]
) -> None:
    pixels = draw(size if channels == 1 else (*size, 3), dtype)
    opacity = draw(size, dtype, seed=1) if alpha else None
    path = files.write(tmp_path / f"a.{suffix}", pixels, alpha=opacity)
    picture = files.read(path)
    assert picture.path == path
    assert picture.pixels.dtype == dtype
    np.testing.assert_array_equal(picture.pixels, pixels)
    if opacity is None:
        assert picture.alpha is None
    else:
        assert picture.alpha is not None
        assert picture.alpha.dtype == dtype
        np.testing.assert_array_equal(picture.alpha, opacity)
    assert picture.icc is None
    assert picture.exif is None


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_our_16_bit_png_is_read_by_pypng(tmp_path: Path, channels: int) -> None:
    png = pytest.importorskip("png")
    pixels = draw((9, 14, channels), "uint16")
    path = write_channels(tmp_path / "a.png", pixels)
    width, height, rows, info = png.Reader(bytes=path.read_bytes()).read()
    assert info["bitdepth"] == 16
    np.testing.assert_array_equal(np.array([list(row) for row in rows]).reshape(height, width, -1), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", HELD["tif"])
def test_our_tiff_is_read_by_tifffile(tmp_path: Path, dtype: str, channels: int) -> None:
    pixels = draw((9, 14, channels), dtype)
    path = write_channels(tmp_path / "a.tif", pixels)
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        assert page.asarray().dtype == dtype
        np.testing.assert_array_equal(page.asarray().reshape(pixels.shape), pixels)
        assert [int(sample) for sample in page.extrasamples] == ([2] if channels in (2, 4) else [])


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_our_8_bit_files_are_read_by_pillow(tmp_path: Path, suffix: str, mode: str) -> None:
    pixels = draw((9, 14, len(mode)))
    path = write_channels(tmp_path / f"a.{suffix}", pixels)
    with Image.open(path) as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_jpeg_is_of_high_quality_with_full_colours(tmp_path: Path) -> None:
    pixels = smooth((32, 40, 3))
    path = files.write(tmp_path / "a.JPG", pixels)
    with Image.open(path) as image:
        assert isinstance(image, JpegImageFile)
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # sampling factors
    error = files.read(path).pixels.astype(float) - pixels
    assert np.sqrt((error**2).mean()) < 1.5


def test_rgba_may_be_written_as_one_array(tmp_path: Path) -> None:
    pixels = draw((5, 6, 4), "uint16")
    picture = files.read(files.write(tmp_path / "a.png", pixels))
    assert picture.alpha is not None
    np.testing.assert_array_equal(np.dstack([picture.pixels, picture.alpha]), pixels)


@pytest.mark.parametrize("dtype", [">u2", ">f4"])
def test_any_byte_order_and_stride_is_written(tmp_path: Path, dtype: str) -> None:
    pixels = draw((12, 14, 3), np.dtype(dtype).newbyteorder("=").name).astype(dtype)[::-2, ::3]
    picture = files.read(files.write(tmp_path / "a.tif", pixels))
    np.testing.assert_array_equal(picture.pixels, pixels)


# --- reading what others wrote


@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [4, 3, 2, 1, 0]])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_is_read_truly(tmp_path: Path, channels: int, filters: list[int]) -> None:
    pixels = draw((9, 5, channels), "uint16")
    path = tmp_path / "a.png"
    path.write_bytes(hand_made_png(pixels, filters))
    picture = files.read(path)
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, colours(pixels))
    if channels in (2, 4):
        np.testing.assert_array_equal(picture.alpha, pixels[..., -1])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_interlaced_16_bit_png_is_read_truly(tmp_path: Path, channels: int) -> None:
    png = pytest.importorskip("png")
    pixels = draw((11, 13, channels), "uint16")
    options = {"greyscale": channels < 3, "alpha": channels % 2 == 0, "bitdepth": 16, "interlace": True}
    with (tmp_path / "a.png").open("wb") as file:
        png.Writer(13, 11, **options).write(file, pixels.reshape(11, -1).tolist())
    picture = files.read(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, colours(pixels))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_a_16_bit_png_becomes_alpha(tmp_path: Path, channels: int) -> None:
    pixels = draw((6, 7, channels), "uint16")
    key = pixels[2, 3]
    path = tmp_path / "a.png"
    path.write_bytes(hand_made_png(pixels, [0], chunk(b"tRNS", key.astype(">u2").tobytes())))
    picture = files.read(path)
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha == 0, (pixels == key).all(-1))
    assert set(np.unique(picture.alpha)) == {0, 65535}


def test_palettes_and_bits_become_8_bits(tmp_path: Path) -> None:
    colours = draw((6, 7, 3)) // 128 * 255
    palette = Image.fromarray(colours).quantize(8)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(files.read(tmp_path / "p.png").pixels, np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "p.tif")
    np.testing.assert_array_equal(files.read(tmp_path / "p.tif").pixels, np.asarray(palette.convert("RGB")))

    palette.save(tmp_path / "t.png", transparency=2)
    picture = files.read(tmp_path / "t.png")
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha == 0, np.asarray(palette) == 2)

    bits = draw((6, 7), seed=3) > 127
    for suffix in ("png", "tif", "bmp"):
        Image.fromarray(bits).save(tmp_path / f"b.{suffix}")
        picture = files.read(tmp_path / f"b.{suffix}")
        assert picture.pixels.dtype == np.uint8
        np.testing.assert_array_equal(picture.pixels.reshape(6, 7, -1)[..., 0], bits * 255)
    tifffile.imwrite(tmp_path / "mask.tif", bits)  # which calls True black
    np.testing.assert_array_equal(files.read_mask(tmp_path / "mask.tif", size=(6, 7)), bits)
    tifffile.imwrite(tmp_path / "fax.tif", bits, software="fax")
    np.testing.assert_array_equal(files.read_mask(tmp_path / "fax.tif", size=(6, 7)), ~bits)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, mode: str) -> None:
    pixels = draw((6, 7) if mode == "L" else (6, 7, 3))
    key = pixels[1, 1]
    path = saved(tmp_path, "a.png", pixels, transparency=int(key) if mode == "L" else tuple(map(int, key)))
    picture = files.read(path)
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.pixels, pixels)
    expected = (pixels == key) if mode == "L" else (pixels == key).all(-1)
    np.testing.assert_array_equal(picture.alpha == 0, expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_bmp_and_webp_are_read(tmp_path: Path, mode: str) -> None:
    pixels = draw((6, 7, len(mode)))
    path = saved(tmp_path, "a.bmp", colours(pixels))
    np.testing.assert_array_equal(files.read(path).pixels, colours(pixels))
    if mode != "L":  # WebP has no gray
        picture = files.read(saved(tmp_path, "a.webp", pixels, lossless=True, exact=True))
        np.testing.assert_array_equal(picture.pixels, colours(pixels))
        assert (picture.alpha is not None) == (mode == "RGBA")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", HELD["tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_by_tifffile(
    tmp_path: Path, channels: int, dtype: str, byteorder: Any, planar: Any, compression: str | None
) -> None:
    pixels = draw((9, 14, channels), dtype)
    stored = np.moveaxis(pixels, -1, 0) if planar == "separate" and channels > 1 else pixels.squeeze()
    options: dict[str, Any] = {"photometric": "minisblack"}
    if channels > 1:
        options = {"planarconfig": planar, "photometric": "rgb"}
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, stored, byteorder=byteorder, compression=compression, rowsperstrip=4, **options)
    picture = files.read(path)
    assert picture.pixels.dtype == dtype
    np.testing.assert_array_equal(picture.pixels, colours(pixels))
    assert (picture.alpha is not None) == (channels == 4)
    if channels == 4:
        np.testing.assert_array_equal(picture.alpha, pixels[..., 3])


def test_tiles_predictors_big_tiff_and_inverted_gray(tmp_path: Path) -> None:
    pixels = draw((40, 50, 3), "uint16")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(16, 32), bigtiff=True, photometric="rgb")
    np.testing.assert_array_equal(files.read(path).pixels, pixels)
    tifffile.imwrite(path, pixels, compression="zlib", predictor=True, photometric="rgb")
    np.testing.assert_array_equal(files.read(path).pixels, pixels)
    for dtype in ("uint8", "uint16"):
        gray = draw((9, 8), dtype)
        tifffile.imwrite(path, gray, photometric="miniswhite")
        np.testing.assert_array_equal(files.read(path).pixels, np.iinfo(dtype).max - gray)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "jpeg"])
@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3)])
def test_compressed_8_bit_tiff(tmp_path: Path, shape: tuple[int, ...], compression: str) -> None:
    pixels = smooth((16, 24, 3))[..., 0] if len(shape) == 2 else smooth((16, 24, 3))
    path = saved(tmp_path, "a.tif", pixels, compression=compression)
    with Image.open(path) as image:
        np.testing.assert_array_equal(files.read(path).pixels, np.asarray(image))


def test_16_bit_and_float_gray_compressed_by_lzw(tmp_path: Path) -> None:
    for dtype in ("uint16", "float32"):
        pixels = draw((9, 14), dtype)
        path = saved(tmp_path, "a.tif", pixels, compression="tiff_lzw")
        picture = files.read(path)
        assert picture.pixels.dtype == dtype
        np.testing.assert_array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colours_in_a_compression_that_only_libtiff_undoes(tmp_path: Path, channels: int) -> None:
    pixels = draw((9, 14, channels), "uint16")
    path = tmp_path / "a.tif"
    path.write_bytes(hand_made_tiff(pixels, 32773, pack_bits(pixels.astype("<u2").tobytes())))
    picture = files.read(path)
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, pixels[..., :3])


# --- what belongs to the pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_orientation_is_honoured(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = saved(tmp_path, f"a.{suffix}", smooth((9, 14, 3)), exif=exif(orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    picture = files.read(path)
    assert picture.pixels.shape == ((14, 9, 3) if orientation > 4 else (9, 14, 3))
    np.testing.assert_array_equal(picture.pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_orientation_of_16_bits_is_that_of_8_bits(tmp_path: Path, suffix: str, orientation: int) -> None:
    low = draw((9, 14, 3))
    high = (low.astype(np.uint16) << 8) | draw((9, 14, 3), seed=1)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        path.write_bytes(hand_made_png(high, [0], chunk(b"eXIf", exif(orientation)[6:])))
    else:
        tifffile.imwrite(path, high, photometric="rgb", extratags=[(ORIENTATION, 3, 1, orientation, True)])
    other = saved(tmp_path, "b.png", low, exif=exif(orientation))
    pixels = files.read(path).pixels
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels >> 8, files.read(other).pixels)


@pytest.mark.parametrize("target", ["png", "tif", "jpg", "deep png", "deep tif", "float tif"])
@pytest.mark.parametrize("source", ["png", "tif", "jpg", "webp"])
def test_profile_and_exif_are_kept(tmp_path: Path, source: str, target: str) -> None:
    profile = srgb()
    given = saved(tmp_path, f"a.{source}", smooth((9, 14, 3)), exif=exif(6), icc_profile=profile)
    picture = files.read(given)
    assert picture.icc == profile
    depth, suffix = target.split() if " " in target else ("", target)
    pixels = picture.pixels.astype({"": np.uint8, "deep": np.uint16, "float": np.float32}[depth])
    path = files.write(tmp_path / f"out.{suffix}", pixels, like=picture)
    again = files.read(path)
    assert again.pixels.shape == (14, 9, 3)  # not turned a second time
    assert again.icc == profile
    assert again.exif is not None
    kept = Image.Exif()
    kept.load(again.exif)
    assert kept[MAKE] == "Camera"
    assert ORIENTATION not in kept
    assert dict(kept.get_ifd(EXIF_IFD)) == {EXPOSURE: 0.25}  # without the old width and height
    assert kept.get_ifd(GPS_IFD)[GPS_LATITUDE] == (52.0, 30.0, 0.0)
    if depth != "float":  # others find them too
        with Image.open(path) as image:
            assert image.info["icc_profile"] == profile
            assert image.getexif()[MAKE] == "Camera"
            assert image.getexif().get_ifd(EXIF_IFD)[EXPOSURE] == 0.25


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("target", ["png", "jpg", "tif"])
def test_the_resolution_of_a_scan_is_kept_and_scaled(tmp_path: Path, suffix: str, target: str) -> None:
    """It is in the file's own header, without EXIF; scikit-image's files have none."""
    path = saved(tmp_path, f"a.{suffix}", smooth((9, 14, 3)), dpi=(300, 150))
    picture = files.read(path)
    for times in (1, 2):
        pixels = np.kron(picture.pixels, np.ones((times, times, 1), np.uint8))
        written = files.write(tmp_path / f"b{times}.{target}", pixels, like=picture)
        with Image.open(written) as image:
            assert image.info["dpi"] == pytest.approx((300 * times, 150 * times), rel=1e-3)
    plain = files.read(saved(tmp_path, f"c.{suffix}", smooth((9, 14, 3))))
    assert plain.exif is None
    with Image.open(files.write(tmp_path / f"c2.{target}", plain.pixels, like=plain)) as image:
        assert image.info.get("dpi", (1, 1)) == (1, 1)  # which Pillow says of a TIFF that tells none


def test_the_resolution_of_16_bits_is_kept_and_units_are_told_apart(tmp_path: Path) -> None:
    """118.11 pixels a centimetre are 300 an inch; a unit of one's own, as ImageJ has, is no inch."""
    for unit, expected in ((2, 118.11), (3, 300.0), (1, None)):
        path, given = tmp_path / f"{unit}.tif", Image.Exif()
        given[0x011A], given[0x011B], given[0x0128] = 118.11, 118.11, unit
        path.write_bytes(encoding.encode(draw((8, 9, 3), "uint16"), "TIFF", None, given.tobytes()))
        picture = files.read(path)
        with Image.open(files.write(tmp_path / f"{unit}.png", picture.pixels, like=picture)) as image:
            image.load()
            found = image.info.get("dpi")
        assert found is None if expected is None else found == pytest.approx((expected, expected), rel=1e-3)


def test_a_profile_for_colours_does_not_go_with_gray(tmp_path: Path) -> None:
    picture = files.read(saved(tmp_path, "a.png", smooth((9, 14, 3)), icc_profile=srgb()))
    path = files.write(tmp_path / "gray.png", picture.pixels[..., 0], like=picture)
    assert files.read(path).icc is None


def test_exif_too_large_for_jpeg_is_left_out(tmp_path: Path) -> None:
    given = Image.Exif()
    given[0x010E] = "x" * 70_000
    picture = files.read(saved(tmp_path, "a.png", smooth((9, 14, 3)), exif=given.tobytes()))
    assert picture.exif is not None
    assert files.read(files.write(tmp_path / "a.jpg", picture.pixels, like=picture)).exif is None


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg", smooth((9, 14, 3)), exif=exif(6))
    data = path.read_bytes()
    start = data.index(b"Exif\0\0") + 6
    path.write_bytes(data[: start + 4] + b"\xff\xff\xff\x7f" + data[start + 8 :])
    assert files.read(path).pixels.shape == (9, 14, 3)


# --- masks


def test_masks_are_true_where_not_zero(tmp_path: Path) -> None:
    for white in (255, 1, 128):
        mask = np.array([[0, white, white], [0, white, 0]], np.uint8)
        for suffix in ("png", "tif", "bmp"):
            known = files.read_mask(saved(tmp_path, f"m{white}.{suffix}", mask), size=(2, 3))
            assert known.dtype == bool
            np.testing.assert_array_equal(known, mask > 0)


def test_masks_with_values_in_between_are_told(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 255], [0, 128, 0]], np.uint8)
    with pytest.warns(RuntimeWarning, match=r"m\.png has 4 different values, of which all but 0 mean known"):
        known = files.read_mask(saved(tmp_path, "m.png", mask))
    np.testing.assert_array_equal(known, mask > 0)
    holes = np.array([[0, 1], [np.nan, 1]], np.float32)
    with pytest.raises(ValueError, match=r"m\.tif has NaN, which is neither known nor missing"):
        files.read_mask(saved(tmp_path, "m.tif", holes))


def test_colour_masks_and_transparent_ones(tmp_path: Path) -> None:
    mask = np.zeros((2, 2, 4), np.uint8)
    mask[0, 0] = (0, 0, 255, 255)
    mask[0, 1] = (0, 0, 0, 255)
    mask[1, 0] = (255, 255, 255, 0)  # rubbed out
    transparent = files.read_mask(saved(tmp_path, "m.png", mask))
    np.testing.assert_array_equal(transparent, [[True, False], [False, False]])
    opaque = files.read_mask(saved(tmp_path, "c.png", mask[..., :3]))
    np.testing.assert_array_equal(opaque, [[True, False], [True, False]])


def test_floats_of_a_mask_are_weights_where_that_is_asked_for(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).random((20, 30), np.float32)
    path = saved(tmp_path, "m.tif", weights)
    np.testing.assert_array_equal(files.read_mask(path, weights=True), weights)
    with pytest.warns(RuntimeWarning, match="different values"):
        assert files.read_mask(path).dtype == bool
    eight = saved(tmp_path, "m.png", (weights > 0.5).astype(np.uint8))
    assert files.read_mask(eight, weights=True).dtype == bool
    for wrong in (weights - 0.5, 2 * weights):
        path = saved(tmp_path, f"{wrong.min() < 0}.tif", wrong)
        with pytest.raises(ValueError, match=r"has float values from .*; allowed: \[0, 1\] with 1 = known"):
            files.read_mask(path, weights=True)


@pytest.mark.parametrize("dtype", ["float64", "int32", "uint32"])
def test_numbers_that_no_picture_has_are_read_on_request(tmp_path: Path, dtype: str) -> None:
    numbers = (1e6 * np.random.default_rng(0).random((5, 6))).astype(dtype)
    tifffile.imwrite(tmp_path / "n.tif", numbers)
    with pytest.raises(ValueError, match=r"convert it, or pass it as an array in Python$"):
        files.read(tmp_path / "n.tif")
    read = files.read(tmp_path / "n.tif", wide=True).pixels
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, numbers)
    tifffile.imwrite(tmp_path / "n.tif", numbers.astype("int16"))
    with pytest.raises(ValueError, match="floats of 32 bits, 32-bit integers, doubles; convert it"):
        files.read(tmp_path / "n.tif", wide=True)
    tifffile.imwrite(tmp_path / "n.tif", numbers, photometric="miniswhite")
    with pytest.raises(ValueError, match="of which 0 is white"):
        files.read(tmp_path / "n.tif", wide=True)


def test_masks_that_are_refused(tmp_path: Path) -> None:
    mask = (draw((20, 30)) > 127).astype(np.uint8) * 255
    with pytest.raises(ValueError, match=r"m\.png has 20 x 30 pixels \(height x width\), a mask .* needs 30 x 20"):
        files.read_mask(saved(tmp_path, "m.png", mask), size=(30, 20))
    with pytest.raises(ValueError, match=r"m\.jpg is a JPEG .*save the mask as a PNG"):
        files.read_mask(saved(tmp_path, "m.jpg", mask))
    known = files.read_mask(saved(tmp_path, "white.jpg", np.full((16, 16), 255, np.uint8)))
    assert known.all()


def test_pixel_size_of_imagej_is_kept_and_scaled(tmp_path: Path) -> None:
    """5 pixels a micrometre; enlarged, 10 across and 20 down."""
    path, pixels = tmp_path / "cells.tif", draw((20, 24), "uint16")
    tifffile.imwrite(path, pixels, imagej=True, resolution=(5.0, 5.0), metadata={"unit": "um", "min": 3.0})
    picture = files.read(path)
    for name, shown, across, down in (("same", pixels, 5, 5), ("large", np.kron(pixels, np.ones((4, 2))), 10, 20)):
        files.write(tmp_path / f"{name}.tif", shown.astype(np.uint16), like=picture)
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as tiff:
            metadata, tags = tiff.imagej_metadata, tiff.pages[0].tags
        assert metadata is not None
        assert metadata["unit"] == "um"
        assert ("min" in metadata) == (name == "same")  # what the old pixels were shown with
        assert (tags["XResolution"].value, tags["YResolution"].value) == ((across, 1), (down, 1))
        assert tags["ResolutionUnit"].value == 1


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_what_imagej_says_of_one_page_is_kept(tmp_path: Path, byteorder: str, colours: tuple[int, ...]) -> None:
    pixels = draw((20, 24, *colours), "uint8")
    told = {"unit": "um", "min": 3.0, "max": 200.0, "Info": "mounted in glycerol", "ROI": b"Iout" + bytes(60)}
    how = {"imagej": True, "byteorder": byteorder, "photometric": "rgb" if colours else "minisblack"}
    tifffile.imwrite(tmp_path / "cells.tif", pixels, resolution=(5.0, 4.0), metadata=told, **how)
    picture = files.read(tmp_path / "cells.tif")
    files.write(tmp_path / "same.tif", pixels[::-1], like=picture)
    with tifffile.TiffFile(tmp_path / "same.tif") as tiff:
        found, tags = tiff.imagej_metadata, tiff.pages[0].tags
        np.testing.assert_array_equal(tiff.asarray(), pixels[::-1])
    assert found is not None
    assert {name: found[name] for name in told} == told
    assert (tags["XResolution"].value, tags["YResolution"].value) == ((5, 1), (4, 1))
    files.write(tmp_path / "same.png", pixels, like=picture)
    assert files.read(tmp_path / "same.png").told is None


@pytest.mark.parametrize("colours", [(), (3,)])
def test_what_ome_says_of_one_page_is_kept_where_it_is_true(tmp_path: Path, colours: tuple[int, ...]) -> None:
    pixels = draw((20, 24, *colours), "uint16")
    said = {"axes": "YXS" if colours else "YX", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm", "Name": "kept"}
    how = {"ome": True, "photometric": "rgb" if colours else "minisblack"}
    tifffile.imwrite(tmp_path / "cells.ome.tif", pixels, metadata=said, **how)
    picture = files.read(tmp_path / "cells.ome.tif")
    large = np.kron(pixels, np.ones((2, 2, 1) if colours else (2, 2), np.uint16))
    for name, shown, kept in (
        ("same", pixels, True),
        ("large", large, False),
        ("shallow", (pixels // 256).astype(np.uint8), False),
        ("other", pixels[..., :1].repeat(3, axis=-1) if colours else np.stack([pixels] * 3, axis=-1), bool(colours)),
    ):
        files.write(tmp_path / f"{name}.ome.tif", shown, like=picture)
        with tifffile.TiffFile(tmp_path / f"{name}.ome.tif") as tiff:
            xml = tiff.ome_metadata or ""
            np.testing.assert_array_equal(tiff.asarray(), shown)
            assert ('PhysicalSizeX="0.2"' in xml and 'Name="kept"' in xml) == kept, name


def test_words_that_cannot_be_written_cost_no_picture(tmp_path: Path) -> None:
    pixels = draw((20, 24), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"unit": "um"}, resolution=(5.0, 5.0))
    picture = files.read(tmp_path / "a.tif")
    assert picture.told is not None
    picture.told["resolution"] = "fine"
    with pytest.warns(RuntimeWarning, match="what ImageJ or OME say of the picture is left out, since it cannot"):
        files.write(tmp_path / "b.tif", pixels, like=picture)
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        np.testing.assert_array_equal(tiff.asarray(), pixels)
        assert tiff.pages[0].tags["XResolution"].value == (5, 1)


def test_exif_goes_before_what_imagej_says(tmp_path: Path) -> None:
    """Both would not go into one file, and the pixels' size is in either."""
    pixels, packet = draw((20, 24), "uint8"), b"<x:xmpmeta><rdf:RDF/></x:xmpmeta>"
    extra = [(700, "B", len(packet), packet, True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"unit": "um", "Info": "x"}, extratags=extra)
    picture = files.read(tmp_path / "a.tif")
    files.write(tmp_path / "b.tif", pixels, like=picture)
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        assert bytes(tiff.pages[0].tags[700].value) == packet
        assert "unit=um" in tiff.pages[0].description


# --- what is refused


def frames(path: Path, **options: Any) -> None:
    first, second = (Image.fromarray(draw((8, 8, 3), seed=seed)) for seed in (0, 1))
    first.save(path, save_all=True, append_images=[second], **options)


def refusals(folder: Path) -> dict[str, str]:
    """Files that are no single gray or RGB picture, and what is said of each."""
    rgb = draw((8, 8, 3))
    frames(folder / "animated.png")
    frames(folder / "animated.webp")
    frames(folder / "pages.tif")
    saved(folder, "cmyk.jpg", rgb, "CMYK")
    saved(folder, "cmyk.tif", rgb, "CMYK")
    saved(folder, "lab.tif", rgb, "LAB")
    saved(folder, "jpeg.png", rgb, format="JPEG")
    saved(folder, "png.JPG", rgb, format="PNG")
    saved(folder, "tiff.webp", rgb, format="TIFF")
    saved(folder, "gif.gif", rgb, format="GIF")
    (folder / "text.png").write_text("This is no picture.")
    (folder / "page.jpg").write_text("<!DOCTYPE html>")
    (folder / "short.png").write_bytes(b"\x89PN")
    (folder / "empty.tif").write_bytes(b"")
    for name, array in {
        "int16.tif": draw((8, 8), "uint16").astype(np.int16),
        "uint32.tif": draw((8, 8), "uint32"),
        "float64.tif": draw((8, 8)).astype(np.float64),
        "float16.tif": draw((8, 8)).astype(np.float16),
    }.items():
        tifffile.imwrite(folder / name, array, photometric="minisblack")
    options: dict[str, Any] = {"planarconfig": "contig", "photometric": "rgb"}
    tifffile.imwrite(folder / "extra.tif", draw((8, 8, 5), "uint16"), extrasamples=(0, 0), **options)
    deep = draw((8, 8, 4), "uint16")
    tifffile.imwrite(folder / "unknown.tif", deep, extrasamples=(0,), **options)
    tifffile.imwrite(folder / "premultiplied.tif", deep, extrasamples=(1,), **options)
    (folder / "twelve.tif").write_bytes(hand_made_tiff(deep[..., :1], 1, bytes(128), t258=12))
    packed = pack_bits(draw((8, 8, 3), "float32").tobytes())
    (folder / "packed.tif").write_bytes(hand_made_tiff(draw((8, 8, 3), "float32"), 32773, packed, t339=3))
    return {
        "animated.png": "several frames",
        "animated.webp": "several frames",
        "pages.tif": "several pages",
        "cmyk.jpg": "CMYK colours; .* convert it to RGB",
        "cmyk.tif": "4 channels of SEPARATED",
        "lab.tif": "3 channels of CIELAB",
        "jpeg.png": r"extension of PNG but holds JPEG; rename it to jpeg\.jpg",
        "png.JPG": r"extension of JPEG but holds PNG; rename it to png\.png",
        "tiff.webp": r"extension of WebP but holds TIFF; rename it to tiff\.tif",
        "gif.gif": "not a picture that can be read; allowed: PNG, JPEG, TIFF",
        "text.png": "not a picture",
        "page.jpg": "not a picture",
        "short.png": "not a picture",
        "empty.tif": r"is empty \(0 bytes\)",
        "int16.tif": "16-bit int16 pixels",
        "uint32.tif": "32-bit uint32 pixels",
        "float64.tif": "64-bit float64 pixels; allowed: .*floats of 32 bits; convert it",
        "float16.tif": "16-bit float16 pixels",
        "extra.tif": "extra channels",
        "unknown.tif": r"extra channels that are not straight \(unassociated\) alpha",
        "premultiplied.tif": r"extra channels that are not straight \(unassociated\) alpha",
        "twelve.tif": "12-bit uint16 pixels",
        "packed.tif": "float32 compressed by PACKBITS; save it as an uncompressed TIFF",
    }


def test_other_sorts_of_files_are_refused_with_advice(tmp_path: Path) -> None:
    for name, reason in refusals(tmp_path).items():
        with pytest.raises(ValueError, match=reason) as caught:
            files.read(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name)), name
        assert "\n" not in str(caught.value), name


def test_what_is_no_file_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.png does not exist"):
        files.read(tmp_path / "nothing.png")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        files.read(tmp_path)
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        files.read("a\0b.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ValueError, match="pipe, socket or device"):
            files.read(tmp_path / "pipe.png")
    if hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "s.png"))
            with pytest.raises(ValueError, match="pipe, socket or device"):
                files.read(tmp_path / "s.png")
    if Path("/dev/zero").exists():
        with pytest.raises(ValueError, match="pipe, socket or device"):
            files.read("/dev/zero")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_the_size_is_checked_before_decoding(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, f"a.{suffix}", smooth((20, 30, 3)))
    with pytest.raises(
        ValueError, match=rf"a\.{suffix} has 20 x 30 pixels \(height x width\), more than max_pixels=599; raise"
    ):
        files.read(path, max_pixels=599)
    assert files.read(path, max_pixels=600).pixels.shape == (20, 30, 3)


def test_decompression_bombs_are_refused(tmp_path: Path) -> None:
    side = 100_000
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    small = np.zeros((4, 4, 1), np.uint16)
    (tmp_path / "a.tif").write_bytes(hand_made_tiff(small, 1, bytes(32), t256=side, t257=side))
    jpeg = bytearray(saved(tmp_path, "a.jpg", smooth((16, 16, 3))).read_bytes())
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "a.jpg").write_bytes(jpeg)
    for suffix in ("png", "tif", "jpg"):
        with pytest.raises(ValueError, match=r"pixels \(height x width\), more than max_pixels=178956970"):
            files.read(tmp_path / f"a.{suffix}")
    # a small size, and far more behind it
    (tmp_path / "b.tif").write_bytes(hand_made_tiff(small, 8, zlib.compress(bytes(10_000_000))))
    with pytest.raises(ValueError, match="more data than its size allows"):
        files.read(tmp_path / "b.tif")
    tiles = {"t322": 2**24, "t323": 2**24, "t324": 8, "t325": 9}
    (tmp_path / "c.tif").write_bytes(hand_made_tiff(small, 8, bytes(32), **tiles))
    with pytest.raises(ValueError, match=r"c\.tif "):
        files.read(tmp_path / "c.tif")


CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "gray.png": ((9, 11), {"exif": exif(6), "icc_profile": srgb()}),
    "rgb.png": ((9, 11, 3), {}),
    "rgba.png": ((9, 11, 4), {"exif": exif(3)}),
    "rgb.jpg": ((9, 11, 3), {"exif": exif(6), "icc_profile": srgb()}),
    "progressive.jpg": ((9, 11, 3), {"progressive": True}),
    "rgb.tif": ((9, 11, 3), {"exif": exif(6), "icc_profile": srgb()}),
    "lzw.tif": ((9, 11, 3), {"compression": "tiff_lzw"}),
    "jpeg.tif": ((16, 16, 3), {"compression": "jpeg"}),
    "rgb.webp": ((9, 11, 3), {"lossless": True, "exif": exif(6)}),
    "rgb.bmp": ((9, 11, 3), {}),
}


def seeds(folder: Path) -> list[Path]:
    """One small file of each sort that takes its own way through the decoders."""
    paths = [saved(folder, name, draw(shape), **options) for name, (shape, options) in CASES.items()]
    palette = Image.fromarray(draw((9, 11, 3))).quantize(16)
    palette.save(folder / "palette.png", transparency=1)
    paths.append(folder / "palette.png")
    for dtype in ("uint16", "float32"):
        for channels in (1, 3, 4):
            deep = draw((9, 11, channels), dtype).squeeze()
            if dtype == "uint16":
                paths.append(files.write(folder / f"deep{channels}.png", deep))
            paths.append(files.write(folder / f"{dtype}{channels}.tif", deep))
    paths.append(files.write(folder / "deep2.png", draw((9, 11), "uint16"), alpha=draw((9, 11), "uint16")))
    wide = draw((20, 20, 3), "uint16")
    tifffile.imwrite(folder / "tile.tif", wide, photometric="rgb", tile=(16, 16))
    tifffile.imwrite(folder / "zip.tif", wide, photometric="rgb", compression="zlib")
    paths += [folder / "tile.tif", folder / "zip.tif"]
    packed = draw((9, 11, 3), "uint16")
    (folder / "packed.tif").write_bytes(hand_made_tiff(packed, 32773, pack_bits(packed.tobytes())))
    return [*paths, folder / "packed.tif"]


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    for path in seeds(tmp_path):
        whole = path.read_bytes()
        files.read(path)
        for length in (len(whole) * 3 // 10, len(whole) * 6 // 10, len(whole) * 9 // 10, len(whole) - 5):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"get an intact copy|not a picture") as caught:
                files.read(path)
            assert str(caught.value).startswith(str(path))


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.png", draw((9, 11, 3), "uint16"))
    whole = path.read_bytes()
    for place in range(16, len(whole) - 12, 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"get an intact copy|max_pixels"):
            files.read(path)


def fuzzed(data: bytes, rng: np.random.Generator) -> bytes:
    """Data with a few bytes changed, a piece cut out, or a piece put in twice; often near the start."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 400)
        place = int(rng.integers(0, end))
        what = rng.integers(0, 5)
        if what < 3:
            changed[place] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(0, 256))]))
        elif what == 3:
            changed[place : place + int(rng.integers(1, 9))] = rng.bytes(4)
        else:
            changed[place:place] = changed[place : place + int(rng.integers(1, 40))]
    return bytes(changed[: int(rng.integers(1, len(changed) + 1))] if rng.random() < 0.2 else changed)


def png_repaired(data: bytes) -> bytes:
    """The same PNG with true checksums, so that what is wrong in its chunks is reached."""
    out, place = data[:8], 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        out += struct.pack(">I", size) + name + body + struct.pack(">I", zlib.crc32(name + body))
        place += 12 + size
    return out + data[place:]


def test_hostile_files_raise_nothing_else_and_stay_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    paths = seeds(tmp_path)
    outcomes = {"read": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(16 * len(paths)):
            path = paths[i % len(paths)]
            data = fuzzed(path.read_bytes(), rng)
            if path.suffix == ".png" and i % 4:
                data = png_repaired(data)
            hostile = tmp_path / f"hostile{path.suffix}"
            hostile.write_bytes(data)
            try:
                picture = files.read(hostile, max_pixels=10_000_000)
            except (ValueError, OSError) as error:
                message = str(error)
                outcomes["refused"] += 1
                assert message.startswith(str(hostile))
                assert "\n" not in message
            else:
                outcomes["read"] += 1
                assert picture.pixels.ndim in (2, 3)
    assert min(outcomes.values()) > 50, outcomes
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err  # libtiff itself may print a line there
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_global_settings_are_left_alone(tmp_path: Path) -> None:
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    paths = seeds(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(files.read, paths))) == len(paths)
    for path in paths:
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(ValueError, match="get an intact copy"):
            files.read(path)
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    assert not logging.getLogger("tifffile").filters


# --- writing whole or not at all


@pytest.mark.parametrize(
    ("name", "dtype", "alpha", "reason"),
    [
        ("a.jpg", "uint16", False, r"uint16 pixels: JPEG has 8 bits; write \.png or \.tif"),
        ("a.jpeg", "float32", False, r"float32 pixels: JPEG has 8 bits; write \.tif"),
        ("a.jpg", "uint8", True, r"cannot hold alpha: JPEG has none; write \.png or \.tif"),
        ("a.png", "float32", False, r"float32 pixels: PNG has 8 or 16 bits; write \.tif"),
        ("a.tif", "float64", False, "float64 pixels; allowed: uint8, uint16, float32"),
        ("a.png", "int64", False, "int64 pixels"),
        ("a.png", "bool", False, "bool pixels"),
        ("a.webp", "uint8", False, r"extension that cannot be written; allowed: \.jpeg, \.jpg, \.png"),
        ("a", "uint8", False, r"a has no extension, which says how .*; allowed: \.jpeg, \.jpg, \.png"),
    ],
)
def test_depth_and_alpha_are_never_lost_in_silence(
    tmp_path: Path, name: str, dtype: str, alpha: bool, reason: str
) -> None:
    pixels = np.zeros((4, 5, 3), dtype)
    opacity = np.zeros((4, 5), dtype) if alpha else None
    like = files.Picture(pixels, opacity, None, None, Path("in"))
    with pytest.raises(ValueError, match=reason):
        files.check_target(tmp_path / name, like=like)
    with pytest.raises(ValueError, match=reason):
        files.write(tmp_path / name, pixels, alpha=opacity)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shape", "alpha", "reason"),
    [
        ((5,), None, r"shape \(5,\); allowed"),
        ((4, 5, 2), None, r"shape \(4, 5, 2\); allowed"),
        ((0, 5), None, r"shape \(0, 5\)"),
        ((1, 4, 5, 3), None, "allowed"),
        ((4, 5, 3), (5, 4), "alpha is uint8"),
        ((4, 5, 4), (4, 5), "alpha is uint8"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(
    tmp_path: Path, shape: tuple[int, ...], alpha: tuple[int, ...] | None, reason: str
) -> None:
    opacity = None if alpha is None else np.zeros(alpha, np.uint8)
    with pytest.raises(ValueError, match=reason):
        files.write(tmp_path / "a.png", np.zeros(shape, np.uint8), alpha=opacity)


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.png", draw((4, 5)))
    old = path.read_bytes()
    for check in (files.check_target, lambda path: files.write(path, draw((4, 5), seed=1))):
        with pytest.raises(FileExistsError, match=r"a\.png exists; .*--force"):
            check(path)
    assert path.read_bytes() == old
    assert files.check_target(path, force=True) == path
    files.write(path, draw((4, 5), seed=1), force=True)
    np.testing.assert_array_equal(files.read(path).pixels, draw((4, 5), seed=1))


def test_missing_folders_are_made_by_write_and_not_by_the_check(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "a.png"
    assert files.check_target(path) == path
    assert not list(tmp_path.iterdir())
    files.write(path, draw((4, 5)))
    assert path.is_file()


def test_targets_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        files.check_target(tmp_path / "file" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        files.check_target(tmp_path / "folder.png", force=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(FileExistsError, match="pipe, socket or device"):
            files.check_target(tmp_path / "pipe.png", force=True)

    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(PermissionError, match=r"cannot be written \(Permission denied\); choose another"):
        files.check_target(tmp_path / "a.png")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_folder_that_looks_writable_and_is_not() -> None:
    with pytest.raises(OSError, match=r"^/proc/a\.png cannot be written: .*choose another folder"):
        files.check_target("/proc/a.png")


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = files.write(tmp_path / "a.png", draw((4, 5)))
    old = path.read_bytes()

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match=r"cannot be written: No space left on device: '.*a\.png'"):
        files.write(path, draw((4, 5), seed=1), force=True)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_the_data_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        steps.append(f"fsync {os.fstat(descriptor).st_size}")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        steps.append(f"replace in {Path(source).parent == Path(target).parent}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    files.write_bytes(tmp_path / "a.bin", b"12345")
    assert steps == ["fsync 5", "replace in True"]


@pytest.mark.skipif(os.name != "posix", reason="mode bits")
def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = files.write(tmp_path / "a.png", draw((4, 5)))
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        files.write(path, draw((4, 5)), force=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(old)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_is_followed_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "there" / "a.png")
    files.write(link, draw((4, 5)))
    assert link.is_symlink()
    np.testing.assert_array_equal(files.read(tmp_path / "there" / "a.png").pixels, draw((4, 5)))


# --- finding


def test_find(tmp_path: Path) -> None:
    wanted = ["b.png", "a.JPG", "sub/c.tiff", "sub/deeper/d.webp", "e.Bmp"]
    for name in [*wanted, "notes.txt", ".hidden.png", ".git/f.png", "png", ".dip-0.tmp"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    if os.name == "posix":
        (tmp_path / "circle").symlink_to(tmp_path)
    others: list[Path] = []
    assert files.find(tmp_path, others=others) == sorted(tmp_path / name for name in wanted)
    assert sorted(others) == [tmp_path / "notes.txt", tmp_path / "png"]
    assert {Path(name).suffix.lower() for name in wanted} < set(files.IMAGE_SUFFIXES)


def test_find_refuses_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        files.find(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        files.find(tmp_path / "file")


def test_real_pictures(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "set9" / "f16.png"
    if not path.is_file():
        path = next(iter(sorted((data_dir / "set9").glob("*f16*"))))
    picture = files.read(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(picture.pixels, np.asarray(image))
    known = files.read_mask(data_dir / "dip_paper" / "inpainting" / "kate_mask.png")
    assert 1 - known.mean() == pytest.approx(0.043, abs=0.001)


@pytest.mark.parametrize(("unit", "per_inch"), [("µm", 50_800.0), ("nm", 50_800_000.0), (None, 50_800.0)])
def test_pixel_size_of_ome_becomes_a_resolution(tmp_path: Path, unit: str | None, per_inch: float) -> None:
    sizes = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": unit for axis in "XY" if unit}
    pixels = np.arange(60, dtype=np.uint16).reshape(6, 10)
    tifffile.imwrite(tmp_path / "in.ome.tif", pixels, metadata={"axes": "YX", **sizes})
    given = files.read(tmp_path / "in.ome.tif")
    written = files.write(tmp_path / "out.ome.tif", np.kron(given.pixels, np.ones((2, 2), np.uint16)), like=given)
    with tifffile.TiffFile(written) as tiff:
        assert not tiff.is_ome  # what it said of the size is no longer true
        assert tiff.pages[0].tags["ResolutionUnit"].value == 2
        for tag in ("XResolution", "YResolution"):
            above, below = tiff.pages[0].tags[tag].value
            assert above / below == pytest.approx(2 * per_inch, rel=1e-5)


def test_alpha_goes_with_the_picture_that_it_is_like(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    given = files.read(files.write(tmp_path / "in.png", rgba))
    assert given.alpha is not None
    written = files.read(files.write(tmp_path / "out.png", 255 - given.pixels, like=given))
    np.testing.assert_array_equal(written.alpha, rgba[..., 3])
    np.testing.assert_array_equal(written.pixels, 255 - rgba[..., :3])
    larger = np.kron(given.pixels, np.ones((2, 2, 1), np.uint8))
    with pytest.raises(ValueError, match=r"like has an alpha of 8 x 6 in uint8, the pixels are 16 x 12.*give alpha="):
        files.write(tmp_path / "larger.png", larger, like=given)
    opaque = files.read(files.write(tmp_path / "opaque.png", larger, like=dataclasses.replace(given, alpha=None)))
    assert opaque.alpha is None


# ---------------------------------------------------------------------- XMP

PACKET = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    b' xmlns:exif="http://ns.adobe.com/exif/1.0/" xmp:Rating="4" tiff:Orientation="6" tiff:Make="Maker">'
    b"<exif:PixelXDimension>640</exif:PixelXDimension><xmp:Thumbnails><rdf:Alt>old</rdf:Alt></xmp:Thumbnails>"
    b'<dc:rights xmlns:dc="http://purl.org/dc/elements/1.1/">&#169; A. Person</dc:rights>'
    b'</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def packet_of(path: Path) -> bytes | None:
    """XMP as Pillow finds it."""
    with Image.open(path) as image:
        found = image.info.get("xmp") or (image.tag_v2.get(700) if path.suffix == ".tif" else None)
        return found.encode() if isinstance(found, str) else found


def with_xmp(path: Path, pixels: np.ndarray) -> Path:
    image = Image.fromarray(pixels)
    if path.suffix == ".png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", PACKET.decode())
        image.save(path, pnginfo=info)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels, extratags=[(700, 1, len(PACKET), PACKET, True)], metadata=None)
    else:
        image.save(path, xmp=PACKET)
    return path


@pytest.mark.parametrize("given", ["in.jpg", "in.png", "in.tif"])
@pytest.mark.parametrize("written", ["out.jpg", "out.png", "deep.png", "out.tif"])
def test_xmp_is_kept_so_far_as_it_is_true(tmp_path, given, written):
    picture = files.read(with_xmp(tmp_path / given, draw((12, 10, 3))))
    pixels = picture.pixels.astype(np.uint16) * 257 if written == "deep.png" else picture.pixels
    found = packet_of(files.write(tmp_path / written, pixels, like=picture))
    for kept in (b'xmp:Rating="4"', b'tiff:Make="Maker"', b"&#169; A. Person"):
        assert kept in found
    for gone in (b"Orientation", b"PixelXDimension", b"Thumbnails", b"old"):
        assert gone not in found
    ElementTree.fromstring(found)  # it is well-formed still
    again = files.read(tmp_path / written)
    assert packet_of(files.write(tmp_path / "again.png", again.pixels, like=again)) == found
    with Image.open(tmp_path / written) as image:
        assert (700 in image.getexif()) == (written == "out.tif")


@pytest.mark.parametrize("packet", [b"", b"not XML at all", b"<rdf:RDF>" + 70_000 * b"x"])
def test_xmp_that_is_none_or_too_long_is_left_out(tmp_path, packet):
    Image.fromarray(draw((12, 10, 3))).save(tmp_path / "in.jpg")
    tifffile.imwrite(tmp_path / "in.tif", draw((12, 10, 3)), extratags=[(700, 1, len(packet), packet, True)])
    picture = files.read(tmp_path / "in.tif")
    assert packet_of(files.write(tmp_path / "out.jpg", picture.pixels, like=picture)) is None
