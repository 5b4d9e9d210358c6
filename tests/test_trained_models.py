"""The trained denoisers: parameters counted by hand, receptive fields by gradients, tiles against the whole."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from skimage.metrics import peak_signal_noise_ratio

import dip
from dip.trained import architectures, tiles

TINY = {"width": 4}


def tiny(name: str, channels: int | None = None, seed: int = 0) -> architectures.Model:
    """A thin model with statistics as if it had been trained, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    options = {} if name in ("autoencoder", "dncnn-small") else TINY
    model = architectures.create(name, channels, generator=generator, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval().requires_grad_(False)


def conv(inputs: int, outputs: int, kernel: int, bias: int = 1) -> int:
    return inputs * outputs * kernel * kernel + bias * outputs


# Worked out by hand: a normalisation has two numbers a channel.
COUNTS = {
    "cnn5": 114_307,  # 1,792 + 3 x 36,928 + 1,731
    "cnn5-residual": 114_307,
    "cnn5-residual-bn": 114_819,  # and 4 x 128
    "hourglass": 118_323,  # 1,344 + 2 x 57,648 + 1,299 + 4 x 96
    "hourglass-a": 44_595,  # 1,344 + 2 x 20,784 + 1,299 + 4 x 96
    "hourglass-b": 44_595,
    "hourglass-c": 118_323,
    "hourglass-d": 1_344 + 4 * 57_648 + 1_299 + 6 * 96,
    "hourglass-e": 118_323 + 48 * 48 + 48,
    "autoencoder": 160 + 1_160 + 584 + 584 + 584 + 1_168 + 145,  # 4,385
    "dncnn": conv(3, 64, 3) + 15 * (conv(64, 64, 3, bias=0) + 128) + conv(64, 3, 3),
    "dncnn-small": conv(3, 48, 3) + 6 * (conv(48, 48, 3, bias=0) + 96) + conv(48, 3, 3),
}


def test_every_model_is_counted():
    assert set(COUNTS) == set(dip.trained.names())


@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name):
    assert sum(p.numel() for p in architectures.create(name).parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_shape_and_seed(name):
    model = tiny(name)
    height, width = model.padded_size(30, 41)
    x = torch.rand(2, model.channels, height, width, generator=torch.Generator().manual_seed(1))
    assert model(x).shape == x.shape
    again = tiny(name)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(model(x), tiny(name, seed=1)(x))
    if model.bounded:
        assert model(x).min() >= 0
        assert model(x).max() <= 1


def test_first_weights_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    architectures.create("hourglass", generator=torch.Generator().manual_seed(3), **TINY)
    architectures.create("autoencoder", generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_cnn5_is_the_reported_list_of_layers():
    model = tiny("cnn5-residual-bn")
    x = torch.rand(1, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    state, y = model.state_dict(), x
    for i in (0, 3, 6, 9):  # convolution, normalisation, ReLU
        y = torch.nn.functional.conv2d(y, state[f"body.{i}.weight"], state[f"body.{i}.bias"], padding=1)
        of = f"body.{i + 1}."
        mean, variance = state[of + "running_mean"], state[of + "running_var"]
        y = (y - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        y = (y * state[of + "weight"][:, None, None] + state[of + "bias"][:, None, None]).clamp(min=0)
    y = x + torch.nn.functional.conv2d(y, state["body.12.weight"], state["body.12.bias"], padding=1)
    torch.testing.assert_close(model(x), y, atol=1e-5, rtol=1e-5)


def test_hourglass_is_the_reported_list_of_layers():
    model = tiny("hourglass")
    x = torch.rand(1, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    F, (first, down, up) = torch.nn.functional, (model.first, model.down[0], model.up[0])
    skip = first[1](F.conv2d(x, first[0].weight, first[0].bias, padding=1)).relu()
    inner = down[1](F.conv2d(skip, down[0].weight, down[0].bias, stride=2, padding=2)).relu()
    inner = inner + model.inner(inner)
    back = F.conv_transpose2d(inner, up[0].weight, up[0].bias, stride=2, padding=2, output_padding=1)
    back = up[1](back).relu() + skip
    expected = F.conv_transpose2d(back, model.last.weight, model.last.bias, padding=1).sigmoid()
    torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=1e-6)


def test_sizes_inside_the_autoencoder():
    model, sizes = tiny("autoencoder"), []
    for layer in model.path:
        layer.register_forward_hook(lambda layer, given, found: sizes.append(found.shape[-1]))
    assert model(torch.rand(1, 1, 28, 28)).shape == (1, 1, 28, 28)
    assert list(dict.fromkeys(sizes)) == [28, 14, 7, 4, 8, 16]
    assert sizes[-4:] == [14, 28, 28, 28]
    assert model.encode(torch.rand(3, 1, 28, 28)).shape == (3, 8, 4, 4)
    with pytest.raises(ValueError, match="30 x 28 pixels; the autoencoder takes 28, 36"):
        model.encode(torch.rand(1, 1, 30, 28))


@pytest.mark.parametrize("name", COUNTS)
def test_receptive_field_and_stride_against_gradients(name):
    """With positive weights every way from input to output counts, so the gradient shows the receptive field."""
    model = tiny(name, channels=1).double()
    reach = model.reach
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            normalises = key.endswith("running_var") or (key.endswith("weight") and tensor.ndim == 1)
            tensor.fill_(1 if normalises else 0.02 if key.endswith("weight") else 0)
    for child in model.children():
        for i, layer in enumerate(child.children()):
            if isinstance(layer, torch.nn.MaxPool2d):  # which shows one of its pixels at a time
                child[i] = torch.nn.AvgPool2d(2, ceil_mode=True)
    size = model.padded_size(4 * reach.field, 1)[0]
    middle = size // 2 // reach.stride * reach.stride
    fields = []
    for position in range(middle, middle + 2 * reach.stride):
        x = torch.ones(1, 1, size, model.padded_size(8, 8)[1], dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(x)[0, 0, position].sum(), x)
        seen = torch.nonzero(gradient[0, 0].sum(dim=1)).flatten()
        fields.append((position - int(seen.min()), int(seen.max()) - position))
    assert tuple(map(max, zip(*fields, strict=True))) == (reach.before, reach.after)
    assert fields[: reach.stride] == fields[reach.stride :]  # what a pixel sees repeats with the total stride
    half = reach.stride // 2
    assert half == 0 or fields[:half] != fields[half : reach.stride]  # and not before


@pytest.mark.parametrize("name", ["cnn5", "cnn5-residual-bn", "hourglass", "hourglass-d", "autoencoder"])
def test_tiles_and_the_whole_are_the_same_for_every_size(name):
    model = tiny(name, channels=1)
    least = 2 * tiles.plan(model).overlap + model.reach.stride
    cut = tiles.plan(model, max(model.padded_size(least, 1)[0], 28))
    tile, generator = cut.tile, torch.Generator().manual_seed(0)
    sizes = [*((n, n) for n in range(1, 10)), (1, tile + 1), (tile, tile), (tile + 1, tile + 7), (2 * tile + 5, 3)]
    sizes += [(tile + step, 2 * tile - step) for step in range(1, 9)]
    for height, width in sizes:
        x = torch.rand(1, 1, height, width, generator=generator)
        whole, tiled = tiles.apply(model, x, None), tiles.apply(model, x, cut)
        assert whole.shape == tiled.shape == x.shape
        assert (whole - tiled).abs().max() < 1e-5, (height, width)


def test_tiles_that_overlap_too_little_differ():
    """The test above can fail: with half of the overlap that is needed the numbers are others."""
    model, x = tiny("cnn5", channels=1), torch.rand(1, 1, 90, 90, generator=torch.Generator().manual_seed(0))
    whole = tiles.apply(model, x, None)
    assert (tiles.apply(model, x, tiles.plan(model, 40, overlap=4)) - whole).abs().max() > 1e-3
    assert (tiles.apply(model, x, tiles.plan(model, 40, overlap=0)) - whole).abs().max() > 1e-3


def test_no_more_than_a_tile_goes_through_the_model():
    model, shapes = tiny("cnn5"), []
    model.register_forward_pre_hook(lambda model, given: shapes.append(given[0].shape))
    tiles.apply(model, torch.rand(1, 3, 200, 130), tiles.plan(model, 64))
    assert len(shapes) > 4
    assert all(shape[0] == 1 and max(shape[2:]) <= 64 for shape in shapes)


def test_a_tile_too_small_is_refused():
    with pytest.raises(ValueError, match=r"tile=40 is too small for this model with an overlap of 26; pass tile=53"):
        tiles.plan(tiny("cnn5"), 40)
    tiles.plan(tiny("cnn5"), 53)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "cnn6"}, "unknown model 'cnn6'; did you mean 'cnn5'"),
        ({"name": "cnn5", "depth": 3}, "unknown option of model 'cnn5': 'depth'"),
        ({"name": "autoencoder", "width": 3}, "width is not for model 'autoencoder', whose width is fixed"),
        ({"name": "cnn5", "width": 0}, "width must be a whole number from 1 up"),
        ({"name": "cnn5", "width": 10**9}, "width must be from 1 to 1024"),
        ({"name": "hourglass", "channels": 0}, "channels must be"),
    ],
)
def test_refused_options(given, message):
    with pytest.raises(ValueError, match=message):
        dip.trained.create(**given)


def denoiser(name: str, channels: int | None = None) -> dip.trained.Denoiser:
    return dip.trained.Denoiser(tiny(name, channels), name, {}, torch.device("cpu"))


def test_bits_to_spare_are_taken_for_the_range():
    model = denoiser("cnn5")
    image = (np.random.default_rng(0).random((24, 31)) * 4000).astype(np.uint16)
    with pytest.warns(RuntimeWarning, match="its white is taken for 4095"):
        found = model(image)
    np.testing.assert_array_equal(found, model(image, data_range=4095))


def test_pictures_of_a_batch_have_one_white():
    model, rng = denoiser("cnn5", 1), np.random.default_rng(0)
    batch = torch.from_numpy(np.stack([(rng.random((1, 12, 9)) * end).astype(np.uint16) for end in (250, 4000)]))
    with pytest.warns(RuntimeWarning, match="their white is taken for 4095") as caught:
        found = model(batch)
    assert len(caught) == 1
    assert torch.equal(found, model(batch, data_range=4095))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(13, 7), (13, 7, 3), (13, 7, 4), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_picture_comes_back_as_it_went_in(dtype, shape, channels):
    white = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    image = (np.random.default_rng(0).random(shape) * white).astype(dtype)
    restored = denoiser("cnn5-residual", channels)(image)
    assert (restored.shape, restored.dtype) == (image.shape, image.dtype)
    assert restored.min() >= 0
    assert restored.max() <= white
    if len(shape) == 3 and shape[2] == 4:
        np.testing.assert_array_equal(restored[..., 3], image[..., 3])


def test_a_gray_model_takes_the_channels_one_by_one():
    one = denoiser("cnn5-residual-bn", 1)
    image = np.random.default_rng(0).random((12, 9, 3)).astype("float32")
    expected = np.stack([one(image[..., i]) for i in range(3)], axis=-1)
    np.testing.assert_array_equal(one(image), expected)
    assert one.manner(3) == "the gray model is applied to each of the 3 channels by itself"
    assert one.manner(1) == ""


def test_a_colour_model_takes_a_gray_picture_without_noise_as_three_equal_channels():
    one = denoiser("cnn5-residual-bn", 3)
    image = (np.mgrid[:12, :9].sum(0) / 20).astype("float32")
    with torch.no_grad():
        x = torch.from_numpy(image).expand(1, 3, -1, -1)
        expected = one.model(x).mean(dim=1)[0].clamp(0, 1)
    np.testing.assert_allclose(one(image), expected.numpy(), atol=1e-6)
    assert "as 3 channels with noise in their colours, averaged" in one.manner(1)


@pytest.mark.parametrize("sigma", [15, 25])
def test_a_colour_model_takes_noise_off_a_gray_picture(sigma):
    """All of it is the same in all channels, as that of no picture in colour: it would be left."""
    clean = skimage.data.camera()[192:288, 192:288] / 255
    noisy = clean + np.random.default_rng(0).normal(0, sigma / 255, clean.shape)
    one = dip.trained.load("dncnn-small", device="cpu")
    restored = one(noisy)
    before, after = (peak_signal_noise_ratio(clean, x, data_range=1) for x in (noisy, restored))
    assert after > before + 6
    np.testing.assert_array_equal(one(noisy), restored)  # what is drawn is the same each time


def test_layouts_of_one_picture_give_one_result():
    one = denoiser("cnn5", 3)
    image = np.random.default_rng(0).random((10, 11, 3)).astype("float32")
    expected = one(image)
    first = one(np.moveaxis(image, -1, 0), channel_axis=0)
    np.testing.assert_array_equal(np.moveaxis(first, 0, -1), expected)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    np.testing.assert_array_equal(one(tensor).permute(1, 2, 0).numpy(), expected)
    batch = one(torch.stack([tensor, tensor.flip(1)]))
    assert batch.shape == (2, 3, 10, 11)
    np.testing.assert_array_equal(batch[0].permute(1, 2, 0).numpy(), expected)
    wide = one(image * 4095, data_range=4095)
    np.testing.assert_allclose(wide / 4095, expected, atol=1e-6)


def test_the_encoder_alone():
    one = denoiser("autoencoder")
    digit = np.random.default_rng(0).random((28, 28)).astype("float32")
    assert one.encode(digit).shape == (8, 4, 4)
    with torch.no_grad():
        decoded = one.model.decode(torch.from_numpy(one.encode(digit))[None])
    np.testing.assert_allclose(one(digit), decoded[0, 0].numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="model 'cnn5' has no encoder"):
        denoiser("cnn5").encode(digit)
