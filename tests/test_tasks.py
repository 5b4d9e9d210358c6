"""The tasks: every type, layout and size in comes out the same; each operator and each border case."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from small import QUICK, picture, quick_fit

import dip

SIZES = [(1, 1), (7, 13), (65, 129), (3, 200)]
TYPES = ["uint8", "uint16", "float32", "float64"]


def rgba(size, dtype):
    image = picture((*size, 4), dtype)
    image[..., 3] = picture(size, dtype, seed=9)
    return image


def tensor(image):
    return torch.from_numpy(image)


LAYOUTS = {
    "gray": lambda size, dtype: (picture(size, dtype), None),
    "rgb": lambda size, dtype: (picture((*size, 3), dtype), None),
    "rgba": lambda size, dtype: (rgba(size, dtype), None),
    "channels first": lambda size, dtype: (np.moveaxis(picture((*size, 5), dtype), -1, 0), 0),
    "channels in the middle": lambda size, dtype: (np.moveaxis(picture((*size, 2), dtype), -1, 1), 1),
    "torch gray": lambda size, dtype: (tensor(picture(size, dtype)), None),
    "torch": lambda size, dtype: (tensor(np.moveaxis(picture((*size, 3), dtype), -1, 0).copy()), None),
    "torch, a batch of one": lambda size, dtype: (tensor(picture((*size, 2), dtype)).permute(2, 0, 1)[None], None),
    "torch, channels last": lambda size, dtype: (tensor(picture((*size, 2), dtype)), -1),
}


def as_array(image):
    return image.numpy() if isinstance(image, torch.Tensor) else image


def same_kind(restored, image):
    assert type(restored) is type(image)
    assert restored.dtype == image.dtype
    assert restored.shape == image.shape
    assert np.isfinite(as_array(restored).astype(np.float64)).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_goes_in_comes_out_in_kind(layout, dtype):
    for size in SIZES if layout in ("rgb", "torch gray") else [(1, 1), (7, 13)]:
        image, axis = LAYOUTS[layout](size, dtype)
        given = image.copy() if isinstance(image, np.ndarray) else image.clone()
        restored = dip.denoise(image, channel_axis=axis, iters=1, **QUICK)
        same_kind(restored, image)
        assert np.array_equal(as_array(image), as_array(given))  # the input is left alone
        if layout == "rgba":
            assert np.array_equal(restored[..., 3], image[..., 3])


@pytest.mark.parametrize(("size", "dtype"), [((1, 1), "uint8"), ((7, 13), "float64"), ((31, 17), "uint8")])
def test_a_fit_that_goes_on_reaches_the_image_up_to_its_border(size, dtype):
    image = picture(size, dtype)
    restored = dip.denoise(image, iters=200, lr=0.03, jitter=0, average=0.9, **QUICK).astype(np.float64)
    white = 255 if dtype == "uint8" else 1
    error = np.abs(restored - image) / white
    assert error.mean() < 0.05
    border = np.ones(size, bool)
    border[1:-1, 1:-1] = False
    assert error[border].mean() < 0.06


@pytest.mark.parametrize("data_range", [4095, (-1000, 3000)])
def test_data_range_of_ones_own(data_range):
    low, high = (0, data_range) if isinstance(data_range, int) else data_range
    image = (low + picture((9, 8), "float64") * (high - low)).astype("int16")
    restored = dip.denoise(image, data_range=data_range, iters=1, **QUICK)
    same_kind(restored, image)
    scaled = (image - float(low)) / (high - low)
    fit = quick_fit(dip.Denoise(scaled), iters=1)
    np.testing.assert_allclose(restored, low + (high - low) * fit.image, atol=0.51)


def test_torch_and_numpy_give_the_same():
    image = picture((9, 14, 3), "uint8")
    from_numpy = dip.denoise(image, iters=3, **QUICK)
    from_torch = dip.denoise(torch.from_numpy(image).permute(2, 0, 1), iters=3, **QUICK)
    assert np.array_equal(from_numpy, from_torch.permute(1, 2, 0).numpy())


def test_a_batch_is_fitted_image_by_image():
    batch = torch.stack([torch.from_numpy(picture((3, 9, 8), seed=seed)) for seed in (1, 2)]).contiguous()
    restored = dip.denoise(batch, iters=3, **QUICK)
    assert restored.shape == batch.shape
    for one, alone in zip(restored, batch, strict=True):
        assert torch.equal(one, dip.denoise(alone, iters=3, **QUICK))
    with pytest.raises(ValueError, match="batch of 2; one image a fit"):
        dip.Denoise(batch)


@pytest.mark.parametrize(("ends", "white"), [((900, 3900), 4095), ((900, 60000), 65535)])
def test_pictures_of_a_batch_have_one_white(ends, white):
    """The dark one too, though it alone would have room in fewer bits."""
    batch = torch.stack([torch.from_numpy(picture((1, 9, 8), "uint16", white=end)) for end in ends])
    batch[:, 0, 0, 0] = torch.tensor(ends, dtype=torch.uint16)
    known = np.ones((9, 8), bool)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        found = dip.denoise(batch, iters=2, mask=known, **QUICK)
    assert len(caught) == (white == 4095)
    assert torch.equal(found, dip.denoise(batch, iters=2, data_range=white, mask=known, **QUICK))


def test_what_is_missing_says_nothing_of_the_white_of_a_batch():
    batch = torch.stack([torch.from_numpy(picture((1, 9, 8), "uint16", white=end)) for end in (900, 3900)])
    batch[:, 0, 4, 4] = 65535
    known = np.ones((9, 8), bool)
    known[4, 4] = False
    with pytest.warns(RuntimeWarning, match=r"their white is taken for 4095 \(12 bits\)"):
        found = dip.denoise(batch, iters=2, mask=known, **QUICK)
    assert torch.equal(found, dip.denoise(batch, iters=2, mask=known, data_range=4095, **QUICK))


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoint": "fit.st"},
        {"resume": "fit.st"},
        {"reference": picture((9, 8, 3))},
        {"network": torch.nn.Conv2d(8, 3, 1)},  # its weights would go on from image to image
        {"mask": np.ones((2, 9, 8), bool)},
        {"mask": torch.ones(2, 1, 9, 8)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_belongs_to_one_image_is_refused_for_a_batch(options):
    batch = torch.rand(2, 3, 9, 8)
    (name,) = options
    with pytest.raises(ValueError, match=f"batch of 2, and {name} belongs to one image; call .* for each image"):
        dip.denoise(batch, iters=1, **{**QUICK, **options})
    if name == "mask":
        with pytest.raises(ValueError, match="batch of 2, and mask belongs to one image"):
            dip.inpaint(batch, iters=1, **{**QUICK, **options})


# ---------------------------------------------------------------------- inpainting


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [*TYPES, "float16"])
def test_known_pixels_come_back_bit_by_bit(layout, dtype):
    size = (7, 13)
    image, axis = LAYOUTS[layout](size, dtype)
    mask = np.random.default_rng(0).random(size) < 0.6
    task = dip.Inpaint(image, mask, channel_axis=axis)
    restored = quick_fit(task, iters=2).image
    same_kind(restored, image)
    shape = [1] * image.ndim
    for at, length in zip(task.layout.row_and_column_axes, size, strict=True):
        shape[at] = length
    known = np.broadcast_to(mask.reshape(shape), image.shape)
    assert np.array_equal(as_array(restored)[known], as_array(image)[known])
    assert not np.array_equal(as_array(restored), as_array(image))


@pytest.mark.parametrize(
    ("dtype", "data_range"), [("float64", (-3.0, 1e3)), ("float32", 255), ("int32", 2**31 - 1), ("uint16", 4095)]
)
def test_known_pixels_come_back_bit_by_bit_in_any_range(dtype, data_range):
    low, high = (0, data_range) if np.isscalar(data_range) else data_range
    image = (low + picture((8, 9), "float64") * (high - low)).astype(dtype)
    mask = np.random.default_rng(0).random((8, 9)) < 0.6
    restored = dip.inpaint(image, mask, data_range=data_range, iters=1, **QUICK)
    assert np.array_equal(restored[mask], image[mask])


@pytest.mark.parametrize(
    "mask",
    [
        lambda m: m,
        lambda m: m.astype(np.uint8),
        lambda m: m.astype(np.uint8) * 255,
        lambda m: m.astype(np.float32),
        lambda m: torch.from_numpy(m),
        lambda m: torch.from_numpy(m)[None],
    ],
)
def test_masks_of_any_kind_mean_the_same(mask):
    image, known = picture((7, 13, 3), "uint8"), np.random.default_rng(0).random((7, 13)) < 0.6
    expected = dip.inpaint(image, known, iters=2, **QUICK)
    assert np.array_equal(dip.inpaint(image, mask(known), iters=2, **QUICK), expected)


@pytest.mark.parametrize("rubbish", [0.0, 1.0, np.nan, np.inf])
def test_missing_pixels_do_not_matter(rubbish):
    image, known = picture((7, 13, 3)), np.random.default_rng(0).random((7, 13)) < 0.6
    expected = dip.inpaint(image, known, iters=3, **QUICK)
    other = image.copy()
    other[~known] = rubbish
    assert np.array_equal(dip.inpaint(other, known, iters=3, **QUICK), expected)


def test_polarity_true_is_known():
    """The hole in a gray picture is filled with gray although it is black: the loss does not see it."""
    image, known = np.full((16, 16), 0.8, np.float32), np.ones((16, 16), bool)
    known[5:11, 5:11] = False
    image[~known] = 0
    restored = dip.inpaint(image, known, iters=60, lr=0.03, **QUICK)
    assert np.array_equal(restored[known], image[known])
    assert restored[~known].mean() == pytest.approx(0.8, abs=0.1)
    wrong_way = dip.inpaint(image, ~known, iters=60, lr=0.03, **QUICK)
    assert np.array_equal(wrong_way[~known], image[~known])
    assert wrong_way[known].mean() < 0.4


def test_without_keep_known_the_networks_picture_is_returned():
    image, known = picture((7, 13, 3)), np.random.default_rng(0).random((7, 13)) < 0.6
    fit = quick_fit(dip.Inpaint(image, known, keep_known=False), iters=2)
    assert torch.equal(torch.from_numpy(fit.image).permute(2, 0, 1)[None], fit.picture)
    kept = quick_fit(dip.Inpaint(image, known), iters=2)
    assert torch.equal(kept.picture, fit.picture)
    assert np.array_equal(kept.image[~known], fit.image[~known])


def test_a_soft_mask_is_a_weight():
    image, weight = picture((7, 13)), np.random.default_rng(0).random((7, 13)).astype(np.float32)
    fit = quick_fit(dip.Inpaint(image, weight), iters=2)
    output = fit.picture[0, 0].numpy()
    np.testing.assert_allclose(fit.image, weight * image + (1 - weight) * output, atol=1e-6)
    first = dip.Fit(dip.Inpaint(image, weight), **QUICK)
    first.step()
    squares = (first.output[0, 0].numpy() - image) ** 2
    assert first.history["loss"][0] == pytest.approx(np.average(squares, weights=weight), rel=1e-5)


# ---------------------------------------------------------------------- super-resolution


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (3, 50)])
def test_output_is_exactly_factor_times_the_input(factor, size):
    image = picture((*size, 3), "uint8")
    restored = dip.super_resolve(image, factor, iters=1, **QUICK)
    assert restored.shape == (factor * size[0], factor * size[1], 3)
    assert restored.dtype == np.uint8


@pytest.mark.parametrize("layout", LAYOUTS)
def test_super_resolution_of_every_layout(layout):
    image, axis = LAYOUTS[layout]((5, 6), "uint16")
    task = dip.SuperResolve(image, 3, channel_axis=axis)
    restored = quick_fit(task, iters=1).image
    expected = list(image.shape)
    for at in task.layout.row_and_column_axes:
        expected[at] *= 3
    assert type(restored) is type(image)
    assert restored.dtype == image.dtype
    assert list(restored.shape) == expected


def test_alpha_is_enlarged_with_the_picture():
    image = rgba((6, 5), "uint8")
    image[..., 3] = 255
    image[:3, :, 3] = 0
    alpha = dip.super_resolve(image, 4, iters=1, **QUICK)[..., 3]
    assert alpha.shape == (24, 20)
    assert (alpha[:8] == 0).all()
    assert (alpha[-8:] == 255).all()


@pytest.mark.parametrize("phase", [0, 0.5, 1])
def test_alpha_lies_where_the_picture_does(phase):
    """A pixel of the small picture is about the pixel factor * k + phase * (factor - 1) of the large one."""
    image, factor = rgba((8, 12), "uint16"), 3
    at = factor * np.arange(12) + phase * (factor - 1)
    image[..., 3] = 1000 + 500 * at
    alpha = dip.super_resolve(image, factor, phase=phase, iters=1, **QUICK)[..., 3]
    inside = np.arange(6, 30)  # where the interpolation does not see the border
    np.testing.assert_allclose(alpha[:, inside], np.tile(1000 + 500 * inside, (24, 1)), atol=1)


@pytest.mark.parametrize(("kernel", "method"), [("lanczos3", "LANCZOS"), ("box", "BOX")])
def test_the_result_reduced_is_the_picture_given(kernel, method):
    small = picture((12, 10))
    large = dip.super_resolve(small, 2, kernel=kernel, iters=150, lr=0.03, jitter=0, average=0.9, **QUICK)
    reduced = PILImage.fromarray(large).resize((10, 12), PILImage.Resampling[method])
    assert np.abs(np.asarray(reduced) - small).mean() < 0.03
    assert np.asarray(reduced).std() > 0.1


def test_the_width_of_a_gaussian_reaches_the_operator():
    small = picture((6, 8))
    task = dip.SuperResolve(small, 2, kernel="gaussian", kernel_sigma=0.8)
    x = torch.rand(1, 1, 12, 16)
    assert torch.equal(task.forward(x), dip.operators.Downsample(2, "gaussian", sigma=0.8)(x))
    assert dip.super_resolve(small, 2, kernel="gaussian", kernel_sigma=0.8, iters=1, **QUICK).shape == (12, 16)
    with pytest.raises(ValueError, match=r"kernel_sigma=0\.8 is for the kernel gaussian, not for box"):
        dip.SuperResolve(small, 2, kernel="box", kernel_sigma=0.8)
    with pytest.raises(ValueError, match="kernel_sigma must be a finite number above 0, not -1"):
        dip.SuperResolve(small, 2, kernel="gaussian", kernel_sigma=-1)


def test_downsampler_options_reach_the_operator():
    x = torch.rand(1, 3, 12, 12)
    for kernel in ("lanczos2", "lanczos3", "box", "gaussian"):
        for phase in (0, 0.5, 1):
            task = dip.SuperResolve(picture((4, 4, 3)), 3, kernel=kernel, phase=phase)
            torch.testing.assert_close(task.forward(x), dip.operators.Downsample(3, kernel, phase=phase)(x))


# ---------------------------------------------------------------------- reconstruction


class Physics:
    """An object with a method A, as deepinv's are."""

    def __init__(self, matrix):
        self.matrix = matrix

    def A(self, x):
        return x.flatten(1) @ self.matrix.T

    def A_adjoint(self, y):
        return y @ self.matrix


def measured(size=(1, 8, 8), count=48):
    matrix = torch.randn(count, int(np.prod(size)), generator=torch.Generator().manual_seed(1)) / 8
    image = torch.from_numpy(picture(size[1:]))[None].expand(size)
    return Physics(matrix), image, Physics(matrix).A(image[None])


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: p.A, lambda p: lambda x: p.A(x)])
def test_reconstruct_with_a_callable_or_an_object(wrap):
    physics, image, y = measured()
    restored = dip.reconstruct(y, forward=wrap(physics), shape=image.shape, iters=3, **QUICK)
    assert restored.shape == image.shape
    assert restored.dtype == torch.float32
    assert torch.equal(restored, dip.reconstruct(y, forward=physics, shape=image.shape, iters=3, **QUICK))


def test_reconstruct_fits_the_measurement():
    physics, image, y = measured()
    options = {**QUICK, "lr": 0.03, "jitter": 0, "average": 0.9}
    fit = quick_fit(dip.Reconstruct(y, physics, image.shape), iters=150, **options)
    assert fit.history["loss"][-1] < 0.02 * fit.history["loss"][0]
    residual = (physics.A(fit.image[None]) - y).square().mean()
    assert residual < 0.02 * y.square().mean()


@pytest.mark.parametrize("shape", [(8, 9), (3, 8, 9), (1, 8, 9)])
@pytest.mark.parametrize("convert", [lambda y: y.numpy(), lambda y: y])
def test_reconstruct_returns_the_shape_and_kind_asked_for(shape, convert):
    size = (1, *shape) if len(shape) == 3 else (1, 1, *shape)
    y = convert(torch.rand(size)[..., ::2])
    restored = dip.reconstruct(y, forward=lambda x: x[..., ::2], shape=shape, iters=1, **QUICK)
    assert restored.shape == shape
    assert type(restored) is type(y)
    assert str(restored.dtype).endswith("float32")


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_reconstruct_from_complex_measurements(dtype, library):
    image = picture((16, 12))
    mask = torch.from_numpy(np.random.default_rng(0).random((16, 12)) < 0.7)
    y = np.fft.fft2(image, norm="ortho")[None, None].astype(dtype) * mask.numpy()
    y = torch.from_numpy(y) if library == "torch" else y

    def forward(x):
        return torch.fft.fft2(x, norm="ortho") * mask

    fit = quick_fit(dip.Reconstruct(y, forward, (16, 12)), iters=80, lr=0.03, jitter=0, average=0.9)
    assert fit.history["loss"][-1] < 0.01
    assert np.abs(as_array(fit.image) - image).mean() < 0.1


@pytest.mark.parametrize(
    "variant",
    [
        lambda y: y.astype(">f4"),
        lambda y: y.astype(np.float64),
        lambda y: y[..., ::-1].copy()[..., ::-1],
        lambda y: np.asfortranarray(y),
        lambda y: np.broadcast_to(y, y.shape),  # read-only
    ],
)
def test_measurements_of_any_byte_order_and_stride(variant):
    y = np.moveaxis(picture((8, 9, 3)), -1, 0)[None]
    expected = dip.reconstruct(y, forward=lambda x: x, shape=(3, 8, 9), iters=2, **QUICK)
    restored = dip.reconstruct(variant(y), forward=lambda x: x, shape=(3, 8, 9), iters=2, **QUICK)
    assert np.array_equal(restored, expected)


@pytest.mark.parametrize("kind", ["list of tensors", "tuple of arrays", "an object with indices"])
def test_several_measurements_of_one_image(kind):
    x = torch.from_numpy(picture((16, 12)))[None, None]

    class Several:
        """As deepinv's TensorList: no sequence, but it has members."""

        def __init__(self, members):
            self.members = members

        def __len__(self):
            return len(self.members)

        def __getitem__(self, index):
            return self.members[index]

    def blur_and_rows(x):
        return Several([torch.nn.functional.avg_pool2d(x, 2), x[..., ::3, :]])

    blurred, rows = blur_and_rows(x)
    rows_weight = torch.tensor([1.0, 0, 1, 1, 1, 1])[:, None]
    y = [blurred, torch.where(rows_weight > 0, rows, torch.nan)]
    weight = [torch.ones(1), rows_weight]
    if kind == "tuple of arrays":
        y, weight = tuple(one.numpy() for one in y), [one.numpy() for one in weight]
    elif kind == "an object with indices":
        y = Several(y)
    fit = quick_fit(dip.Reconstruct(y, blur_and_rows, (16, 12), weight=weight), iters=20)
    assert isinstance(fit.image, np.ndarray if kind == "tuple of arrays" else torch.Tensor)
    assert tuple(fit.image.shape) == (16, 12)
    # the loss by hand: the mean of the squared residuals of all elements that count
    first = quick_fit(dip.Reconstruct(y, blur_and_rows, (16, 12), weight=weight), iters=1)
    predicted = blur_and_rows(first.output)
    residuals = [predicted[0] - blurred, (predicted[1] - rows)[..., rows_weight[:, 0] > 0, :]]
    expected = torch.cat([one.flatten() for one in residuals]).square().mean()
    assert first.history["loss"][0] == pytest.approx(expected.item(), rel=1e-5)
    assert fit.history["loss"][-1] < 0.5 * fit.history["loss"][0]


def test_integer_measurements_are_numbers():
    counts = np.arange(64).reshape(1, 1, 8, 8)
    fit = quick_fit(dip.Reconstruct(counts, lambda x: 64 * x, (8, 8)), iters=1)
    squares = (64 * fit.output.numpy() - counts) ** 2
    assert fit.history["loss"][0] == pytest.approx(squares.mean(), rel=1e-5)


def test_the_measurement_is_copied():
    y = torch.rand(1, 1, 8, 8)
    fit = dip.Fit(dip.Reconstruct(y, lambda x: x, (8, 8)), **QUICK)
    kept = fit.y.clone()
    y.zero_()
    assert torch.equal(fit.y, kept)


def test_range_of_the_image_that_the_operator_expects():
    seen = []

    def forward(x):
        seen.append((x.min().item(), x.max().item()))
        return x / 100

    y = np.full((1, 1, 8, 8), 3.0)
    fit = quick_fit(dip.Reconstruct(y, forward, (8, 8), data_range=(200, 600)), iters=2)
    assert seen[0] == (400, 400)  # the probe: middle gray
    assert all(200 <= low <= high <= 600 for low, high in seen[1:])
    assert 200 <= fit.image.min() <= fit.image.max() <= 600


class BlurModule(torch.nn.Module):
    """A module with a method A and weights of its own, as deepinv's physics are."""

    def __init__(self):
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.full((1, 1, 3, 3), 1 / 9))

    def A(self, x):
        return torch.nn.functional.conv2d(x, self.kernel, padding=1)


def test_an_operators_own_weights_are_not_fitted():
    physics = BlurModule()
    quick_fit(dip.Reconstruct(torch.rand(1, 1, 8, 8), physics, (8, 8)), iters=2)
    assert torch.equal(physics.kernel, torch.full((1, 1, 3, 3), 1 / 9))


def test_a_module_with_a_method_goes_to_the_fits_device(monkeypatch):
    physics, moved = BlurModule(), []
    monkeypatch.setattr(physics, "to", lambda *args: moved.append(args) or physics)
    dip.Fit(dip.Reconstruct(torch.rand(1, 1, 8, 8), physics, (8, 8)), **QUICK)
    assert moved == [(torch.device("cpu"),)]


# ---------------------------------------------------------------------- what is told


@pytest.mark.parametrize(("white", "bits"), [(200, 8), (1000, 10), (4000, 12), (16000, 14)])
@pytest.mark.parametrize("alpha", [False, True])
def test_bits_to_spare_are_taken_for_the_range_of_a_noisy_picture(white, bits, alpha):
    image = picture((9, 8, 4) if alpha else (9, 8), "uint16", white=white)
    if alpha:
        image[..., 3] = 65535
    said = (
        rf"values end at \d+: its white is taken for {2**bits - 1} \({bits} bits\); if it is another, give data_range="
    )
    with pytest.warns(RuntimeWarning, match=said):
        found = quick_fit(dip.Denoise(image), iters=2)
    given = quick_fit(dip.Denoise(image, data_range=2**bits - 1), iters=2)  # a warning is an error here
    np.testing.assert_array_equal(found.image, given.image)
    assert found.task.layout.high == 2**bits - 1
    if not alpha:
        assert dip.Denoise(torch.from_numpy(image)).layout.high == 2**bits - 1


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint16), np.full((8, 8), 20000, np.uint16)])
def test_black_and_16_bits_are_left_alone(image):
    task = dip.Denoise(image)
    task.load()
    assert task.layout.high == 65535


@pytest.mark.parametrize(("white", "bits"), [(1000, 10), (4000, 12), (16000, 14)])
def test_bits_to_spare_are_told(white, bits):
    """Where what is restored may be brighter than what was seen."""
    image = picture((9, 8), "uint16", white=white)
    assert image.max() >= 2 ** (bits - 2)
    task = dip.Inpaint(image, np.eye(9, 8))
    with pytest.warns(RuntimeWarning, match=rf"values end at \d+ of 65535; .*give data_range={2**bits - 1}: "):
        task.load()
    assert task.layout.high == 65535


def test_hot_pixels_hide_no_bits():
    image = picture((40, 60), "uint16", white=1000)
    image[3, 4] = 65535
    said = r"end at \d{3} but for a few, up to 65535; .*\(hot pixels\), .* give data_range=1023 \(10 bits\)"
    for task in (dip.Denoise(image), dip.SuperResolve(image, 2)):
        with pytest.warns(RuntimeWarning, match=said):
            task.load()
        assert task.layout.high == 65535


def test_what_is_missing_says_nothing_of_the_bits():
    image = picture((40, 60), "uint16", white=1000)
    known = np.random.default_rng(0).random((40, 60)) < 0.05
    bright, hidden = image.copy(), image.copy()
    bright[:4] = 60000  # a tenth of what is known
    hidden[~known] = 60000
    dip.Inpaint(bright, known).load()  # a warning is an error here
    with pytest.warns(RuntimeWarning, match=r"values end at \d{3} of 65535; .*give data_range=1023: "):
        dip.Inpaint(hidden, known).load()


def test_a_reference_of_another_type_beside_bits_that_were_found_is_told():
    image = picture((9, 8), "uint16", white=1000)
    with pytest.warns(
        RuntimeWarning, match="white of the image is taken for 1023, and the reference is of another type"
    ):
        dip.Denoise(image).clean(picture((9, 8)))
    dip.Denoise(image).clean(picture((9, 8), "uint16", white=1000))
    dip.Denoise(image, data_range=1023).clean(picture((9, 8)))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_range_that_is_given_is_compared_with_the_values(dtype):
    image = (80 + 440 * picture((40, 40))).astype(dtype)
    with pytest.warns(RuntimeWarning, match=r"\d\d% of .* outside its clean range \[300, 520\], .* from \d+ to 4\d+: "):
        dip.Denoise(image, data_range=(300, 520)).load()
    dip.Denoise(image, data_range=(80, 520)).load()


def test_dark_floats_are_told():
    dark = picture() / 20
    with pytest.warns(RuntimeWarning, match="end at 0.0[45].*, and the white of floats is 1.*give data_range="):
        quick_fit(dip.Denoise(dark), iters=1)
    quick_fit(dip.Denoise(dark, data_range=1.0), iters=1)  # a warning is an error here


def test_a_reference_of_another_scale_is_told():
    clean = 255 * picture()
    with pytest.warns(RuntimeWarning, match=r"reference is next to black.*bring both to one scale"):
        quick_fit(dip.Denoise(clean, data_range=255), reference=clean / 255, iters=1)
    quick_fit(dip.Denoise(clean, data_range=255), reference=clean, iters=1)  # a warning is an error here


def test_nothing_is_told_of_full_ranges_and_ranges_that_are_given():  # a warning is an error here
    dip.Denoise(picture((9, 8), "uint16")).load()
    dip.Denoise(picture((9, 8), "uint16", white=4000), data_range=65535).load()
    dip.Denoise(np.zeros((9, 8), np.uint16)).load()
    dip.Denoise(picture((9, 8), "uint8", white=10)).load()


def test_a_mask_without_missing_pixels_is_told():
    with pytest.warns(RuntimeWarning, match="marks every pixel as known"):
        dip.Inpaint(picture((9, 8)), np.ones((9, 8))).load()


@pytest.mark.parametrize("scale", [1000.0, 1e-4])
def test_measurements_of_another_scale_than_the_operators_are_told(scale):
    y = torch.from_numpy(picture((9, 14)))[None, None]
    with pytest.warns(RuntimeWarning, match=r"y is .* times as large as what forward makes .*give data_range="):
        quick_fit(dip.Reconstruct(scale * y, lambda x: x, (9, 14)), iters=1)
    quick_fit(dip.Reconstruct(scale * y, lambda x: x, (9, 14), data_range=scale), iters=1)  # a warning is an error


def test_values_that_cancel_are_not_of_another_scale():
    """Along a ray those on either side of 0 do, where they are drawn at random; those of a body in air do not."""
    clean, radon = np.full((32, 32), -1000, np.float32), dip.operators.Radon(np.arange(0, 180, 20))
    clean[12:20, 10:24] = 40
    y = radon(torch.from_numpy(clean)[None, None])
    quick_fit(dip.Reconstruct(y, radon, (32, 32), data_range=(-1000, 1000)), iters=1)  # a warning is an error
    with pytest.warns(RuntimeWarning, match=r"y is .* times as large"):
        quick_fit(dip.Reconstruct(20 * y, radon, (32, 32), data_range=(-1000, 1000)), iters=1)


def test_a_fit_is_the_same_in_any_unit_of_a_small_measurement():
    y, restored = torch.from_numpy(picture((9, 14)))[None, None], []
    for scale in (2.0**-10, 2.0**-20, 2.0**-28):  # powers of two: nothing is rounded another way
        task = dip.Reconstruct(scale * y, lambda x, scale=scale: scale * x, (9, 14))
        restored.append(quick_fit(task, iters=20).image)
    assert torch.equal(restored[0], restored[1])
    assert torch.equal(restored[0], restored[2])
    usual = quick_fit(dip.Reconstruct(y, lambda x: x, (9, 14)), iters=20).image
    torch.testing.assert_close(restored[0], usual, atol=2e-3, rtol=0)


def test_forward_operators_in_numpy_are_refused_with_advice():
    def forward(x):
        return torch.from_numpy(np.fft.rfft2(x.numpy()).real)

    with pytest.raises(TypeError, match=r"hands x to NumPy or SciPy.*write it with torch"):
        dip.fit(dip.Reconstruct(np.ones((1, 1, 8, 5), np.float32), forward, (8, 8)), iters=1)


@pytest.mark.parametrize("values", [lambda c: 2 * c - 1, lambda c: 2 * c])
def test_floats_in_another_range_are_told_at_the_users_line(values):
    with pytest.warns(RuntimeWarning, match=r"far outside its clean range \[0, 1\].*give data_range=") as told:
        quick_fit(dip.Denoise(values(picture())), iters=1)
    assert {Path(one.filename).name for one in told} == {"small.py"}  # which calls dip.fit


def test_noise_beyond_the_range_is_not_told():  # a warning is an error here
    noisy = dip.degradations.gaussian(picture((32, 32, 3)), 50, clip=False, seed=0)
    assert noisy.min() < 0
    quick_fit(dip.Denoise(noisy), iters=1)


def test_an_operators_own_weights_get_no_gradient():
    class Gain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.gain * x

    operator = Gain()
    quick_fit(dip.Reconstruct(torch.from_numpy(picture((9, 14)))[None, None], operator, (9, 14)), iters=2)
    assert operator.gain.grad is None
    assert operator.gain.item() == 1


def test_the_image_is_copied():
    image, known = picture((9, 14, 3)), picture((9, 14)) > 0.5
    before = image.copy()
    fit = quick_fit(dip.Inpaint(image, known), iters=1)
    image[:] = 0
    assert np.array_equal(fit.image[known], before[known])
    alpha = rgba((9, 14), "uint8")
    fit, before = quick_fit(dip.Denoise(alpha), iters=1), alpha.copy()
    alpha[:] = 0
    assert np.array_equal(fit.image[..., 3], before[..., 3])


@pytest.mark.parametrize("task", [dip.Denoise, lambda x: dip.Inpaint(x, x[0] > 0.5)])
def test_a_result_has_no_gradient(task):
    image = torch.from_numpy(picture()).permute(2, 0, 1).requires_grad_()
    assert not quick_fit(task(image), iters=1).image.requires_grad
