"""Geometric distortion, against scipy and scikit-image, Brown's formula by hand, and in fits."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import transform

import dip
from dip.operators import Downsample, Warp, radial_distortion
from dip.operators.linear import Linear


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def anywhere(height: int, width: int, size: tuple[int, int], seed: int = 1) -> np.ndarray:
    """Places in a picture of that size and some pixels beyond its border."""
    places = np.random.default_rng(seed).random((2, height, width))
    return places * (np.array(size).reshape(2, 1, 1) + 5) - 3


SCIPY = {"nearest": "nearest", "mirror": "mirror", "zero": "grid-constant"}


@pytest.mark.parametrize("boundary", SCIPY)
@pytest.mark.parametrize("size", [(17, 23), (8, 2)])
def test_equals_scipy(boundary: str, size: tuple[int, int]) -> None:
    x, places = picture(2, 3, *size), anywhere(9, 11, size)
    found = Warp(places, boundary=boundary)(x)
    assert found.shape == (2, 3, 9, 11)
    for n in range(2):
        for c in range(3):
            expected = ndimage.map_coordinates(x[n, c].numpy(), places, order=1, mode=SCIPY[boundary])
            np.testing.assert_allclose(found[n, c].numpy(), expected, atol=1e-10)


def test_equals_scikit_image_s_warp() -> None:
    x, places = picture(1, 1, 40, 30), anywhere(21, 33, (40, 30))
    expected = transform.warp(x[0, 0].numpy(), places, order=1, mode="edge")
    np.testing.assert_allclose(Warp(places)(x)[0, 0].numpy(), expected, atol=1e-10)


def test_bicubic_interpolation_has_the_weights_of_cubic_convolution() -> None:
    """Four pixels in each direction, with Keys' polynomials for a = -3/4."""

    def weight(distance: float) -> float:
        a, d = -0.75, abs(distance)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    x, (r, c) = picture(1, 1, 9, 8), (3.3, 4.8)
    expected = sum(weight(r - i) * weight(c - j) * float(x[0, 0, i, j]) for i in range(2, 6) for j in range(3, 7))
    found = Warp(np.array([[[r]], [[c]]]), interpolation="bicubic")(x)
    assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("boundary", SCIPY)
def test_its_gradient_is_its_transpose(interpolation: str, boundary: str) -> None:
    warp = Warp(anywhere(9, 11, (12, 10)), interpolation=interpolation, boundary=boundary)
    x = picture(1, 2, 12, 10).requires_grad_()
    y = picture(1, 2, 9, 11, seed=2)
    (back,) = torch.autograd.grad(warp(x), x, y)
    assert torch.sum(warp(x) * y).item() == pytest.approx(torch.sum(x * back).item(), rel=1e-12)
    Linear(warp, (1, 2, 12, 10), torch.device("cpu"))  # which refuses what is not linear


def test_of_a_large_picture_float32_is_exact_to_a_thousandth_of_a_pixel() -> None:
    ramp = torch.arange(4000, dtype=torch.float32).expand(1, 1, 2, 4000).contiguous()
    places = np.stack([np.zeros((1, 500)), np.linspace(0, 3999, 500)[None]])
    np.testing.assert_allclose(Warp(places)(ramp)[0, 0].numpy(), places[1], atol=2e-3)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_allclose(Warp(places)(ramp)[0, 0].numpy(), places[1], atol=2e-3)
    assert Warp(places)(ramp.half()).dtype == torch.float32


def test_a_copy_and_a_pickle_are_the_same() -> None:
    warp, x = Warp(anywhere(4, 5, (6, 7)), boundary="mirror"), picture(1, 1, 6, 7)
    y = warp(x)
    for other in (copy.deepcopy(warp), pickle.loads(pickle.dumps(warp))):
        assert torch.equal(other(x), y)
    assert repr(warp) == "Warp(4 x 5, interpolation='bilinear', boundary='mirror')"


def test_what_lies_inside() -> None:
    places = np.array([[[-0.6, -0.5, 2.0, 3.5, 3.6]], [[0.0, 0.0, 4.5, 4.5, 0.0]]])
    np.testing.assert_array_equal(Warp(places).inside(4, 5), [[0, 1, 1, 1, 0]])
    assert Warp(places).inside(4, 4).tolist() == [[0, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"coordinates": np.zeros((3, 4, 5))}, ValueError, r"shape \(3, 4, 5\); \(2, h, w\) is needed"),
        ({"coordinates": np.zeros((2, 0, 5))}, ValueError, "is needed"),
        ({"coordinates": np.zeros((2, 4, 5), complex)}, TypeError, "real numbers"),
        ({"coordinates": np.full((2, 1, 1), np.nan)}, ValueError, "NaN or infinite.*weight="),
        ({"interpolation": "cubic"}, ValueError, "unknown interpolation 'cubic'; did you mean 'bicubic'"),
        ({"boundary": "edge"}, ValueError, "unknown boundary 'edge'.*nearest"),
    ],
)
def test_what_is_no_warp_is_refused(given: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Warp(**{"coordinates": np.zeros((2, 3, 4)), **given})


def test_images_of_another_kind_are_refused() -> None:
    warp = Warp(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"\(N, C, H, W\) is needed, got \(3, 4\)"):
        warp(torch.zeros(3, 4))
    with pytest.raises(TypeError, match="real floating-point"):
        warp(torch.zeros(1, 1, 3, 4, dtype=torch.complex64))


# ---------------------------------------------------------------------- lenses


@pytest.mark.parametrize("k", [[-0.12], [0.3, -0.05], [-0.25, 0.08, -0.01], [], [0.0]])
@pytest.mark.parametrize("place", [{}, {"center": (20.5, 31.0), "focal": (40.0, 55.0)}, {"focal": 60}])
def test_places_of_a_lens_come_back_by_browns_formula(k: list[float], place: dict) -> None:
    height, width = 37, 52
    rows, columns = radial_distortion((height, width), k, **place)
    cy, cx = place.get("center", (18.0, 25.5))
    focal = place.get("focal", np.hypot(36, 51) / 2)
    fy, fx = focal if isinstance(focal, tuple) else (focal, focal)
    v, u = (rows - cy) / fy, (columns - cx) / fx
    r2 = u**2 + v**2
    factor = 1 + sum(value * r2 ** (n + 1) for n, value in enumerate(k))
    i, j = np.mgrid[:height, :width]
    np.testing.assert_allclose(cy + fy * v * factor, i, atol=1e-8)
    np.testing.assert_allclose(cx + fx * u * factor, j, atol=1e-8)


def test_a_number_is_one_coefficient_and_the_middle_stays() -> None:
    np.testing.assert_array_equal(radial_distortion((5, 9), -0.1), radial_distortion((5, 9), [-0.1]))
    barrel = radial_distortion((5, 9), -0.1)
    assert barrel[:, 2, 4].tolist() == [2, 4]
    assert barrel[1, 2, 8] > 8  # a barrel shows more than fits
    assert radial_distortion((1, 1), [0.1]).ravel().tolist() == [0, 0]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"coefficients": [-0.5]}, ValueError, "r_d grows with r up to 0.5443 only.*reaches to 1 focal"),
        ({"coefficients": [np.inf]}, ValueError, "coefficients must be a finite number, not inf"),
        ({"coefficients": ["a"]}, TypeError, "coefficients must be a finite number, not 'a'"),
        ({"size": 5}, ValueError, "size=5: two numbers"),
        ({"size": (5, 0)}, ValueError, "size must be a whole number from 1 up"),
        ({"center": (1, 2, 3)}, ValueError, "center=.*two numbers"),
        ({"focal": 0}, ValueError, "focal=0: a focal length is above 0"),
        ({"focal": "long"}, ValueError, "focal='long': two numbers"),
    ],
)
def test_what_is_no_lens_is_refused(given: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        radial_distortion(**{"size": (20, 30), "coefficients": [0.1], **given})


def test_a_distorted_picture_is_restored_straight() -> None:
    """A fit through the lens comes nearer to the straight picture than the distorted one is."""
    y, x = np.mgrid[:40, :48]
    straight = (0.5 + 0.3 * np.sin(x / 3) * np.cos(y / 4)).astype(np.float32)
    lens = Warp(radial_distortion((40, 48), [0.6]), interpolation="bicubic")  # a pincushion: all of y is inside
    assert lens.inside(40, 48).all()
    distorted = lens(torch.from_numpy(straight)[None, None]).numpy()
    options = {"network": {"down": [16] * 3, "up": [16] * 3, "skip": [4] * 3}, "progress": False}
    fit = dip.reconstruct(distorted, forward=lens, shape=(40, 48), iters=300, **options)
    seen = slice(6, -6)
    before, after = (dip.metrics.psnr(image[seen, seen], straight[seen, seen]) for image in (distorted[0, 0], fit))
    assert before < 25
    assert after > before + 5


def test_several_frames_are_one_measurement() -> None:
    clean = picture(1, 1, 16, 16).float()
    i, j = np.mgrid[:16, :16].astype(float)
    warps = [Warp(np.stack([i + shift, j - shift]), boundary="mirror") for shift in (0.0, 0.5)]
    small = Downsample(2)
    frames = [small(warp(clean)).numpy() for warp in warps]
    task = dip.Reconstruct(frames, lambda x: [small(warp(x)) for warp in warps], (16, 16))
    fit = dip.fit(task, iters=2, network={"down": [4], "up": [4], "skip": [0]}, progress=False)
    assert fit.image.shape == (16, 16)
