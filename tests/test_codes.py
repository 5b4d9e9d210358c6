"""Codes z and their jitter, against numpy and their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import picture, quick_fit

import dip
from dip import codes
from dip.codes import FourierFeatures, Frame, Image, Meshgrid, Normal, Uniform
from dip.jitter import Jitter

CPU = torch.device("cpu")
FRAME = Frame.around((7, 13), (16, 32))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_frame_centres_the_image_and_cuts_it_out_again():
    expected = Frame(16, 32, top=4, left=9, inner_height=7, inner_width=13)
    assert Frame.around((7, 13), (16, 32)) == expected
    x = torch.arange(16 * 32.0).reshape(1, 1, 16, 32)
    torch.testing.assert_close(FRAME.crop(x), x[..., 4:11, 9:22])
    whole = Frame.around((16, 32), (16, 32))
    assert whole.crop(x) is x


@pytest.mark.parametrize("code", [Uniform(5), Normal(5), Meshgrid(), FourierFeatures(6)])
def test_shape_type_and_seed(code):
    before = torch.get_rng_state()
    z = code.draw(FRAME, seeded(1))
    assert z.shape == (1, code.channels, 16, 32)
    assert z.dtype == torch.float32
    assert z.device == CPU
    assert torch.equal(z, code.draw(FRAME, seeded(1)))
    assert torch.equal(torch.get_rng_state(), before)
    if not isinstance(code, Meshgrid):
        assert not torch.equal(z, code.draw(FRAME, seeded(2)))


def test_uniform_and_normal_have_their_moments():
    frame = Frame.around((200, 200), (200, 200))
    uniform = Uniform(4, scale=0.1).draw(frame, seeded())
    assert 0 <= uniform.min() < 0.001
    assert 0.099 < uniform.max() <= 0.1
    assert uniform.mean().item() == pytest.approx(0.05, rel=0.01)
    assert uniform.std().item() == pytest.approx(0.1 / 12**0.5, rel=0.01)
    normal = Normal(4, scale=0.3).draw(frame, seeded())
    assert normal.mean().item() == pytest.approx(0, abs=0.003)
    assert normal.std().item() == pytest.approx(0.3, rel=0.01)


def test_meshgrid_goes_from_0_to_1_across_the_image():
    x, y = FRAME.crop(Meshgrid().draw(FRAME, seeded()))[0].double().numpy()
    expected_y, expected_x = np.meshgrid(np.linspace(0, 1, 7), np.linspace(0, 1, 13), indexing="ij")
    np.testing.assert_allclose(x, expected_x, atol=1e-6)
    np.testing.assert_allclose(y, expected_y, atol=1e-6)
    whole = Meshgrid().draw(FRAME, seeded())[0]
    assert whole[0, 0, 0].item() == pytest.approx(-9 / 12)  # and goes on beyond it
    assert whole[1, -1, 0].item() == pytest.approx(11 / 6)


def test_meshgrid_of_one_pixel():
    z = Meshgrid().draw(Frame.around((1, 1), (8, 8)), seeded())
    assert torch.isfinite(z).all()


def test_fourier_features_are_cosines_and_sines_of_the_same_angles():
    code = FourierFeatures(64, frequency=3, scale=0.2)
    z = code.draw(Frame.around((70, 90), (80, 96)), seeded())[0].double()
    squares = z[:32] ** 2 + z[32:] ** 2
    torch.testing.assert_close(squares, torch.full_like(squares, 0.04), rtol=1e-5, atol=0)
    # The angle grows linearly, so that from one pixel to the next it turns by the same amount everywhere.
    phase = torch.atan2(z[32:], z[:32])
    for axis, pixels in ((1, 70), (2, 90)):
        turn = torch.remainder(phase.diff(dim=axis) + torch.pi, 2 * torch.pi) - torch.pi
        assert (turn - turn.mean(dim=(1, 2), keepdim=True)).abs().max() < 1e-3
        frequencies = turn.mean(dim=(1, 2)) * (pixels - 1) / (2 * torch.pi)  # cycles across the image
        assert frequencies.std().item() == pytest.approx(3, rel=0.4)


@pytest.mark.parametrize("shape", [(7, 13), (7, 13, 3)])
def test_image_as_code_goes_on_beyond_its_border(shape):
    image = picture(shape, "uint8")
    code = Image(image)
    z = code.draw(FRAME, seeded())[0].numpy()
    planes = (image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)) / np.float64(255)
    assert code.channels == len(planes)
    np.testing.assert_allclose(z, np.pad(planes, ((0, 0), (4, 5), (9, 10)), mode="edge"), atol=1e-7)


def test_image_as_code_has_to_have_the_size_of_the_result():
    with pytest.raises(ValueError, match=r"8 x 13 pixels \(height x width\) and the image to restore 7 x 13; resize"):
        Image(picture((8, 13))).draw(FRAME, seeded())
    image = picture((6, 5, 3))
    quick_fit(dip.SuperResolve(image, 2), iters=1, code=Image(picture((12, 10))))
    with pytest.raises(ValueError, match=r"6 x 5 pixels \(height x width\) and the image to restore 12 x 10"):
        quick_fit(dip.SuperResolve(image, 2), iters=1, code=Image(image))
    with pytest.raises(ValueError, match=r"code image has values .* data_range=255"):
        Image(picture((6, 5, 3)) * 255)


@pytest.mark.parametrize("name", ["uniform", "normal", "meshgrid", "fourier"])
def test_codes_by_name(name):
    fit = quick_fit(code=name, iters=1)
    assert repr(codes.create(name)) == repr(fit.settings.code)
    assert fit.code.shape[1] == fit.settings.code.channels


class Ramp:
    channels = 1

    def draw(self, frame, generator):
        return torch.linspace(0, 1, frame.width).expand(1, 1, frame.height, frame.width)


def test_a_code_of_ones_own():
    fit = quick_fit(code=Ramp(), iters=2)
    torch.testing.assert_close(fit.code[0, 0, 3], torch.linspace(0, 1, 16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: codes.create("unifrom"), "unknown code 'unifrom'; did you mean 'uniform'\\? allowed: .*autoencoding"),
        (lambda: codes.create(Uniform), "give a name .* or a code such as"),
        (lambda: codes.create(torch.rand(1, 3, 8, 8)), r"for an image, dip.codes.Image\(image\)"),
        (lambda: Uniform(0), "channels must be .* not 0"),
        (lambda: Uniform(3, scale=-1), "scale must be .* not -1"),
        (lambda: Normal(2.5), "channels must be .* not 2.5"),
        (lambda: FourierFeatures(7), "channels=7: Fourier features come in pairs; take an even number"),
        (lambda: FourierFeatures(8, frequency=float("nan")), "frequency must be a finite number"),
    ],
)
def test_refusals(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_jitter_adds_fresh_noise_of_its_strength(order):
    z = torch.rand(1, 8, 40, 40, generator=seeded(1)).contiguous(memory_format=order)
    given = z.clone()
    jitter = Jitter(0.05, 3, CPU)
    noises = []
    for _ in range(3):
        jitter.draw(z)
        noises.append(jitter.add(z) - z)
        torch.testing.assert_close(jitter.add(z) - z, noises[-1])  # the same until the next one is drawn
    assert torch.equal(z, given)
    every = torch.stack(noises)
    assert every.mean().item() == pytest.approx(0, abs=0.001)
    assert every.std().item() == pytest.approx(0.05, rel=0.02)
    flat = every.reshape(3, -1).numpy()
    assert np.abs(np.corrcoef(flat) - np.eye(3)).max() < 0.05


def test_jitter_is_seeded_and_goes_on_from_its_state():
    z = torch.zeros(1, 2, 8, 8)
    one, same, other = Jitter(1.0, 3, CPU), Jitter(1.0, 3, CPU), Jitter(1.0, 4, CPU)

    def next_noise(jitter):
        jitter.draw(z)
        return jitter.add(z).clone()

    assert torch.equal(next_noise(one), next_noise(same))
    assert not torch.equal(next_noise(one), next_noise(other))
    resumed = Jitter(1.0, 99, CPU)
    resumed.load_state_dict(one.state_dict())
    assert torch.equal(next_noise(resumed), next_noise(one))


def test_without_jitter_the_code_is_used_itself():
    z = torch.rand(1, 2, 8, 8)
    jitter = Jitter(0.0, 3, CPU)
    jitter.draw(z)
    assert jitter.add(z) is z
