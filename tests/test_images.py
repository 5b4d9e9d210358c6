"""The border between the user's arrays and x: dip.images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dip import images, masks

NUMPY_DTYPES = ["uint8", "uint16", "float16", "float32", "float64", ">u2", ">f4", ">f8"]
TORCH_DTYPES = [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZES = [(1, 1), (1, 7), (7, 13), (65, 129), (3, 200)]


def draw(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Random values over the whole clean range of a dtype, its ends included."""
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    if kind.kind == "u":
        values = rng.integers(0, np.iinfo(kind).max, shape, endpoint=True).astype(kind)
    else:
        values = rng.random(shape).astype(kind)
    values.flat[0] = np.iinfo(kind).max if kind.kind == "u" else 1
    values.flat[-1] = 0
    return values


def draw_torch(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point:
        return torch.from_numpy(draw(shape, "float64")).to(dtype)
    return torch.from_numpy(draw(shape, str(dtype).removeprefix("torch.")))


def round_trip(image: Any, **options: Any) -> Any:
    layout = images.describe(image, **options)
    return images.from_tensor(images.to_tensor(image, layout), layout, alpha_from=image)


# --- there


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [None, 3, 4])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_x_is_the_image_scaled_to_0_and_1(dtype: str, channels: int | None, size: tuple[int, int]) -> None:
    image = draw(size if channels is None else (*size, channels), dtype)
    layout = images.describe(image)
    x = images.to_tensor(image, layout)
    white = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    colours = image[..., None] if channels is None else image[..., :3]
    expected = np.moveaxis(colours, -1, 0)[None].astype(np.float64) / white
    assert x.dtype == torch.float32
    assert x.device.type == "cpu"
    assert (layout.channels, layout.height, layout.width) == (x.shape[1], *size)
    assert layout.alpha == (channels == 4)
    np.testing.assert_array_equal(x.numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (3, 5, 7), (4, 5, 7), (1, 3, 5, 7), (1, 1, 1, 1)])
def test_tensors_are_read_channels_first(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    image = draw_torch(shape, dtype)
    layout = images.describe(image)
    white = 1 if dtype.is_floating_point else torch.iinfo(dtype).max
    channels = shape[-3] if len(shape) > 2 else 1
    expected = (image.double() / white).float().reshape(1, channels, *shape[-2:])
    assert not layout.alpha
    torch.testing.assert_close(images.to_tensor(image, layout), expected, rtol=0, atol=0)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_channel_axis(library: str, channels: int, axis: int) -> None:
    plain = draw((5, 9, channels), "float32")
    image: Any = np.moveaxis(plain, -1, axis)
    image = torch.from_numpy(image.copy()) if library == "torch" else image
    layout = images.describe(image, channel_axis=axis)
    x = images.to_tensor(image, layout)
    assert layout.channel_axis == axis % 3
    assert not layout.alpha
    np.testing.assert_array_equal(x[0].numpy(), np.moveaxis(plain, -1, 0))
    back = images.from_tensor(x, layout)
    np.testing.assert_array_equal(np.asarray(back), np.asarray(image))


def test_channel_axis_of_a_batch_of_one() -> None:
    image = torch.rand(1, 5, 9, 3)
    layout = images.describe(image, channel_axis=-1)
    assert (layout.channels, layout.height, layout.width) == (3, 5, 9)
    torch.testing.assert_close(images.to_tensor(image, layout), image.permute(0, 3, 1, 2), rtol=0, atol=0)
    torch.testing.assert_close(round_trip(image, channel_axis=-1), image, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("dtype", "data_range", "low", "high"),
    [
        ("uint16", 4095, 0, 4095),
        ("uint8", (16, 235), 16, 235),
        ("int16", (-1024, 3071), -1024, 3071),
        ("int64", np.array([0, 255]), 0, 255),
        ("float32", 255, 0, 255),
        ("float64", (-1.0, 1.0), -1, 1),
        ("float32", np.float32(2), 0, 2),
    ],
)
def test_data_range(dtype: str, data_range: Any, low: float, high: float) -> None:
    image = np.array([[low, high, (low + high) / 2]]).astype(dtype)
    layout = images.describe(image, data_range=data_range)
    expected = (image.astype(np.float64) - low) / (high - low)
    assert (layout.low, layout.high) == (low, high)
    np.testing.assert_allclose(images.to_tensor(image, layout).numpy()[0, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(round_trip(image, data_range=data_range), image)


def test_odd_memory_is_read_and_never_written() -> None:
    image = draw((14, 18, 3), ">u2")
    views = {
        "negative strides": image[::-1, ::-1],
        "every second pixel": image[::2, ::3],
        "transposed": image.swapaxes(0, 1),
        "Fortran order": np.asfortranarray(image),
    }
    for name, view in views.items():
        before = view.copy()
        view.setflags(write=False)
        layout = images.describe(view)
        x = images.to_tensor(view, layout)
        back = images.from_tensor(x, layout)
        x.zero_()  # its own memory
        np.testing.assert_array_equal(view, before, err_msg=name)
        np.testing.assert_array_equal(back, before, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_neither_direction_shares_memory(dtype: str) -> None:
    image = draw((4, 4), dtype)
    layout, before = images.describe(image), image.copy()
    x = images.to_tensor(image, layout)
    back = np.asarray(images.from_tensor(x, layout))
    x[...] = 0.5
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(back, before)


def test_array_subclasses_are_read_as_plain_arrays() -> None:
    class Tagged(np.ndarray):
        """As imageio and others return."""

    image = draw((4, 5, 3), "uint8")
    back = round_trip(image.view(Tagged))
    assert type(back) is np.ndarray
    np.testing.assert_array_equal(back, image)


def test_a_tensor_with_a_gradient_is_read() -> None:
    image = torch.rand(3, 4, 5, requires_grad=True)
    x = images.to_tensor(image, images.describe(image))
    assert not x.requires_grad


# --- and back


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [None, 3, 4])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_numpy_comes_back_as_it_was(dtype: str, channels: int | None, size: tuple[int, int]) -> None:
    image = draw(size if channels is None else (*size, channels), dtype)
    back = round_trip(image)
    assert isinstance(back, np.ndarray)
    assert back.dtype == image.dtype
    assert back.dtype.byteorder == image.dtype.byteorder
    # x is float32: nothing of 16 bits or float32 is lost, and of float64 what float32 cannot hold
    np.testing.assert_allclose(back, image, rtol=1e-7 if image.dtype.itemsize == 8 else 0, atol=0)


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (1, 3, 5, 7)])
def test_tensors_come_back_as_they_were(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    image = draw_torch(shape, dtype)
    back = round_trip(image)
    assert isinstance(back, torch.Tensor)
    assert (back.dtype, back.device, back.shape) == (dtype, image.device, image.shape)
    torch.testing.assert_close(back.double(), image.double(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_are_clipped_to_the_type_and_never_wrap(dtype: str) -> None:
    info = np.iinfo(dtype)
    layout = images.describe(np.zeros((1, 4), dtype), data_range=(info.min, info.max))
    values = torch.tensor([-1.0, 0.0, 1.0, 2.0]).reshape(1, 1, 1, 4)
    back = np.asarray(images.from_tensor(values, layout))[0]
    assert back.dtype == dtype
    assert back[0] == back[1] == info.min
    # the nearest float64 below the end of a 64-bit type is 1024 from it
    assert back[2] == back[3]
    assert int(info.max) - int(back[2]) <= (2047 if info.bits == 64 else 0)


def test_integers_are_rounded_to_the_nearest() -> None:
    layout = images.describe(np.zeros((1, 4), np.uint8))
    values = torch.tensor([0.49, 0.51, 100.4, 100.6]).reshape(1, 1, 1, 4) / 255
    np.testing.assert_array_equal(images.from_tensor(values, layout), [[0, 1, 100, 101]])


def test_overshoot_is_kept_by_what_can_hold_it() -> None:
    floats = np.array([[-0.3, 1.4]], np.float32)
    np.testing.assert_array_equal(round_trip(floats), floats)
    twelve_bits = np.array([[0, 4095, 4500]], np.uint16)
    np.testing.assert_array_equal(round_trip(twelve_bits, data_range=4095), twelve_bits)


def test_gradients_and_half_precision_are_no_obstacle() -> None:
    layout = images.describe(np.zeros((2, 2), np.float32))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        x = torch.full((1, 1, 2, 2), 0.5, dtype=dtype, requires_grad=True)
        np.testing.assert_array_equal(images.from_tensor(x, layout), np.full((2, 2), 0.5, np.float32))


@pytest.mark.parametrize(("shape", "axis"), [((4, 6, 3), None), ((2, 4, 6), 0), ((4, 2, 6), 1)])
def test_another_size(shape: tuple[int, ...], axis: int | None) -> None:
    image = draw(shape, "float32")
    layout = images.describe(image, channel_axis=axis)
    x = images.to_tensor(image, layout)
    back = images.from_tensor(x.repeat_interleave(3, 2).repeat_interleave(2, 3), layout)
    rows, columns = (a for a in range(len(shape)) if a != layout.channel_axis)
    expected = image.repeat(3, rows).repeat(2, columns)
    np.testing.assert_array_equal(np.asarray(back), expected)


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (2, 3, 4, 4), (3, 4, 4), (1, 3, 0, 4)])
def test_an_x_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    layout = images.describe(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"the layout needs \(1, 3, H, W\)"):
        images.from_tensor(torch.zeros(shape), layout)


def test_nan_cannot_become_an_integer() -> None:
    x = torch.full((1, 1, 2, 2), float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite, which uint8 cannot hold"):
        images.from_tensor(x, images.describe(np.zeros((2, 2), np.uint8)))
    assert np.isnan(images.from_tensor(x, images.describe(np.zeros((2, 2), np.float32)))).all()


# --- alpha


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_alpha_is_kept_bit_for_bit(dtype: str) -> None:
    image = draw((9, 5, 4), dtype)
    layout = images.describe(image)
    back = np.asarray(images.from_tensor(torch.zeros(1, 3, 9, 5), layout, alpha_from=image))
    np.testing.assert_array_equal(back[..., 3], image[..., 3])
    assert not back[..., :3].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_resized_alpha_stays_within_its_values(dtype: str) -> None:
    image = draw((6, 6, 4), dtype)
    image[..., 3] = np.where(np.arange(6) < 3, image[..., 3].max() // 2, image[..., 3].max())
    layout = images.describe(image)
    alpha = np.asarray(images.from_tensor(torch.zeros(1, 3, 24, 24), layout, alpha_from=image))[..., 3]
    assert alpha.shape == (24, 24)
    assert alpha.min() == image[..., 3].min()
    assert alpha.max() == image[..., 3].max()
    np.testing.assert_array_equal(alpha, np.repeat(alpha[:1], 24, axis=0))  # rows were equal and stay so


def test_resized_alpha_lies_where_its_pixels_were() -> None:
    factor, slope = 3, 0.05
    image = np.zeros((8, 8, 4))
    image[..., 3] = slope * np.arange(8)
    layout = images.describe(image)
    alpha = np.asarray(images.from_tensor(torch.zeros(1, 3, 24, 24), layout, alpha_from=image))[..., 3]
    # pixel k is centred on factor k + (factor - 1) / 2, so a ramp goes on as a ramp
    place = (np.arange(24) - (factor - 1) / 2) / factor
    np.testing.assert_allclose(alpha[0, 6:-6], slope * place[6:-6], atol=0.004)


def test_missing_alpha_is_refused() -> None:
    layout = images.describe(np.zeros((4, 4, 4), np.uint8))
    for other in (None, np.zeros((4, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"alpha_from must be the image of shape \(4, 4, 4\)"):
            images.from_tensor(torch.zeros(1, 3, 4, 4), layout, alpha_from=other)


# --- what is refused


@pytest.mark.parametrize(
    ("image", "advice"),
    [
        ([[1.0]], r"list; pass a numpy array or a torch tensor, as in np.asarray\(image\)"),
        (None, "NoneType; pass a numpy array"),
        (np.float32(3), "float32; pass a numpy array"),
        (np.ma.masked_equal(np.zeros((3, 3)), 0), r"masked array; pass image.filled\(0\)"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.empty(3, 3, device="meta"), "meta"),
        (np.zeros((3, 3), bool), "dtype bool; .*convert it to uint8"),
        (torch.zeros(3, 3, dtype=torch.bool), "dtype bool"),
        (np.zeros((3, 3), complex), "dtype complex128; .*two channels"),
        (torch.zeros(3, 3, dtype=torch.complex64), "dtype complex64; .*two channels"),
        (np.zeros((3, 3), object), "dtype object; .*convert it to float32"),
        (np.zeros((3, 3), "U3"), "dtype str96"),
        (np.zeros((3, 3), "M8[s]"), "dtype datetime64"),
        (np.zeros((3, 3), np.int64), "int64.*pass data_range"),
        (torch.zeros(3, 3, dtype=torch.int16), "int16.*pass data_range"),
    ],
)
def test_types_that_are_refused(image: Any, advice: str) -> None:
    with pytest.raises(TypeError, match=advice):
        images.describe(image)


@pytest.mark.parametrize(
    ("image", "options", "advice"),
    [
        (np.zeros(()), {}, r"shape \(\); allowed: \(H, W\)"),
        (np.zeros(5), {}, r"shape \(5,\); allowed"),
        (np.zeros((1, 5, 5, 3)), {}, r"shape \(1, 5, 5, 3\); allowed"),
        (np.zeros((5, 5, 1)), {}, "pass channel_axis=-1"),
        (np.zeros((5, 6, 7)), {}, "pass channel_axis=-1"),
        (np.zeros((3, 64, 64)), {}, "pass channel_axis=0"),
        (np.zeros((0, 5)), {}, "is empty"),
        (np.zeros((5, 0, 3)), {}, "is empty"),
        (np.zeros((5, 5, 0)), {"channel_axis": -1}, "is empty"),
        (torch.zeros(2, 3, 5, 5), {}, r"batch of 2; one image a fit: pass image\[0\]"),
        (torch.zeros(0, 3, 5, 5), {}, "batch of 0"),
        (torch.zeros(1, 1, 3, 5, 5), {}, r"allowed: \(H, W\), \(C, H, W\) or \(1, C, H, W\)"),
        (torch.zeros(1, 3, 5, 5), {"channel_axis": 0}, "channel_axis 0 .* allowed: 1 to 3"),
        (np.zeros((5, 5, 3)), {"channel_axis": 3}, "channel_axis 3 .* allowed: 0 to 2"),
        (np.zeros((5, 5, 3)), {"channel_axis": -4}, "channel_axis -4"),
        (np.zeros((5, 5, 3)), {"channel_axis": True}, "channel_axis True"),
        (np.zeros((5, 5, 3)), {"channel_axis": 1.0}, r"channel_axis 1\.0"),
        (np.zeros((5, 5)), {"channel_axis": -1}, "is gray and has no channel axis"),
        (np.zeros((5, 5)), {"data_range": 0}, "data_range must be a positive number"),
        (np.zeros((5, 5)), {"data_range": -1}, "not -1"),
        (np.zeros((5, 5)), {"data_range": float("nan")}, "not nan"),
        (np.zeros((5, 5)), {"data_range": (1, 0)}, r"not \(1, 0\)"),
        (np.zeros((5, 5)), {"data_range": (0, float("inf"))}, "not "),
        (np.zeros((5, 5)), {"data_range": (0, 1, 2)}, "not "),
        (np.zeros((5, 5)), {"data_range": "255"}, "not '255'"),
        (np.zeros((5, 5)), {"data_range": True}, "not True"),
        (np.zeros((5, 5), np.uint8), {"data_range": 65535}, "does not fit image's dtype uint8"),
        (np.zeros((5, 5), np.uint8), {"data_range": (-1, 1)}, "does not fit image's dtype uint8"),
        (np.zeros((5, 5), np.float16), {"data_range": 1e6}, "does not fit image's dtype float16"),
    ],
)
def test_values_that_are_refused(image: Any, options: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        images.describe(image, **options)


def test_describe_makes_no_pass_over_the_data() -> None:
    row = np.zeros(1, np.uint8)
    huge = np.broadcast_to(row, (10**6, 10**6, 3))  # 3 TB if anything touched it
    assert images.describe(huge).height == 10**6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 2, 3])
@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8"])
def test_nan_and_infinity_are_refused_with_the_way_out(dtype: str, channel: int, bad: float) -> None:
    image = draw((4, 5, 4), dtype)
    image[1, 2, channel] = bad
    with pytest.raises(ValueError, match=r"photo has 1 NaN or infinite values; .*mask of dip\.denoise or dip\.inpaint"):
        images.to_tensor(image, images.describe(image), name="photo")


@pytest.mark.parametrize(
    ("image", "advice"),
    [
        (draw((9, 9), "uint8").astype(np.float32), "pass data_range=255 .* divide by 255"),
        (draw((9, 9), "uint8") + np.linspace(-60, 60, 9), "pass data_range=255"),
        (draw((9, 9), "uint16").astype(np.float64), "pass data_range=65535"),
        (np.linspace(0, 4095, 81).reshape(9, 9), "pass data_range=4095"),
        (np.linspace(-1024, 3071, 81).reshape(9, 9), r"pass data_range=\(low, high\)"),
        (np.linspace(-7, 1, 81).reshape(9, 9), r"pass data_range=\(low, high\)"),
        (np.full((9, 9), 1e300), r"pass data_range=\(low, high\)"),
    ],
)
def test_implausible_ranges_are_refused_with_advice(image: np.ndarray, advice: str) -> None:
    with pytest.raises(ValueError, match=r"far outside the clean range \[0, 1\]; " + advice):
        images.to_tensor(image, images.describe(image))


@pytest.mark.parametrize(
    ("worst", "count", "accepted"),
    [(5.0, 1, True), (5.1, 1, False), (-4.0, 1, True), (-4.1, 1, False), (2.5, 100, True), (2.5, 101, False),
     (-1.5, 100, True), (-1.5, 101, False), (2.0, 10_000, True)],
)  # fmt: skip
def test_noise_may_overshoot_and_a_wrong_range_may_not(worst: float, count: int, accepted: bool) -> None:
    image = np.full((100, 100), 0.5)
    image.flat[:count] = worst
    layout = images.describe(image)
    if accepted:
        assert images.to_tensor(image, layout).numpy().ravel()[0] == np.float32(worst)
    else:
        with pytest.raises(ValueError, match="far outside the clean range"):
            images.to_tensor(image, layout)


def test_the_wrong_data_range_of_integers_is_noticed() -> None:
    image = draw((9, 9), "uint16")
    with pytest.raises(ValueError, match="pass data_range=65535"):
        images.to_tensor(image, images.describe(image, data_range=4095))


def test_an_image_that_is_not_the_described_one_is_refused() -> None:
    layout = images.describe(np.zeros((4, 5), np.uint8))
    for other in (np.zeros((5, 4), np.uint8), np.zeros((4, 5), np.float32)):
        with pytest.raises(ValueError, match="describe the image again"):
            images.to_tensor(other, layout)


# --- masks


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", ">u2", "int8", "int64", "float16", ">f8"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_masks_of_ones_and_zeros(library: str, dtype: str) -> None:
    if library == "torch" and dtype.startswith(">"):
        pytest.skip("torch has native byte order only")
    known = np.random.default_rng(0).random((7, 13)) < 0.5
    mask: Any = known.astype(dtype)
    mask = torch.from_numpy(mask) if library == "torch" else mask
    weights = masks.to_tensor(mask, 7, 13)
    assert weights.dtype == torch.float32
    assert weights.shape == (1, 1, 7, 13)
    np.testing.assert_array_equal(weights[0, 0].numpy(), known)


def test_any_integer_but_zero_is_known() -> None:
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    np.testing.assert_array_equal(masks.to_tensor(mask, 1, 4)[0, 0], [[0, 1, 1, 1]])


def test_floats_are_weights() -> None:
    mask = np.array([[0, 0.25, 1]])
    weights = masks.to_tensor(mask, 1, 3)
    np.testing.assert_array_equal(weights[0, 0], mask)
    weights.zero_()
    assert mask[0, 2] == 1


@pytest.mark.parametrize("shape", [(1, 4, 6), (1, 1, 4, 6)])
def test_mask_tensors_may_have_leading_ones(shape: tuple[int, ...]) -> None:
    assert masks.to_tensor(torch.ones(shape), 4, 6).shape == (1, 1, 4, 6)


@pytest.mark.parametrize(
    ("mask", "error", "advice"),
    [
        (np.zeros((4, 6), np.uint8), ValueError, "no pixel as known.*non-zero means known"),
        (np.zeros((4, 6), bool), ValueError, "no pixel as known"),
        (np.zeros((4, 6)), ValueError, "no pixel as known"),
        (np.ones((6, 4), bool), ValueError, r"shape \(6, 4\); the image needs \(4, 6\)"),
        (np.ones((4, 6, 1), bool), ValueError, "one value a pixel and no channels"),
        (np.ones((1, 4, 6), bool), ValueError, "one value a pixel and no channels"),
        (torch.ones(2, 4, 6), ValueError, "one value a pixel and no channels"),
        (np.full((4, 6), np.nan), ValueError, "no NaN"),
        (np.full((4, 6), 255.0), ValueError, "from 255 to 255; allowed: .*mask > 0"),
        (np.full((4, 6), -0.1), ValueError, "float values from -0.1"),
        (np.full((4, 6), -1), ValueError, "negative values"),
        (np.ones((4, 6), complex), TypeError, "dtype complex128"),
        (np.ones((4, 6), object), TypeError, "dtype object"),
        ([[1]], TypeError, "is a list"),
        (np.ma.masked_equal(np.ones((4, 6)), 1), TypeError, "masked array"),
    ],
)
def test_masks_that_are_refused(mask: Any, error: type[Exception], advice: str) -> None:
    with pytest.raises(error, match=advice):
        masks.to_tensor(mask, 4, 6)
