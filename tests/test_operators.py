"""Forward operators, against Pillow, scipy and hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from dip.operators import Downsample, Identity, Mask, as_operator

KERNELS = ["lanczos2", "lanczos3", "box", "gaussian"]


def picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).to(dtype)


@pytest.mark.parametrize(
    ("kernel", "resample"), [("lanczos3", Image.Resampling.LANCZOS), ("box", Image.Resampling.BOX)]
)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("small", [(1, 1), (2, 9), (7, 13)])
def test_equals_pillow(kernel: str, resample: Image.Resampling, factor: int, small: tuple[int, int]) -> None:
    x = picture(small[0] * factor, small[1] * factor, dtype=torch.float32)
    expected = np.asarray(Image.fromarray(x.numpy()).resize(small[::-1], resample))
    torch.testing.assert_close(Downsample(factor, kernel)(x), torch.tensor(expected), atol=2e-6, rtol=0)


def test_lanczos2_weights_by_hand() -> None:
    # Factor 2: the neighbours of a low-resolution pixel lie 1/4, 3/4, 5/4 and 7/4 of its width away.
    def lanczos(t: float) -> float:
        return 2 * math.sin(math.pi * t) * math.sin(math.pi * t / 2) / (math.pi * t) ** 2

    side = [lanczos(t) for t in (1.75, 1.25, 0.75, 0.25)]
    weights = np.array([*side, *side[::-1]]) / (2 * sum(side))
    x = picture(20, 2)
    expected = (weights @ x.numpy()[5:13]).mean()  # pixel 4 is centred on 8.5
    assert Downsample(2, "lanczos2")(x)[4, 0].item() == pytest.approx(expected)


@pytest.mark.parametrize("factor", [3, 5])
@pytest.mark.parametrize("sigma", [None, 0.8])
def test_gaussian_equals_scipy(factor: int, sigma: float | None) -> None:
    # An odd factor has a pixel in the middle of each block, where a filtered image can be sampled.
    x = picture(6 * factor, 4 * factor)

    def filtered(image: np.ndarray) -> np.ndarray:
        width = (sigma or 0.5) * factor
        return ndimage.gaussian_filter(image, width, mode="constant", radius=40)

    middle = np.s_[factor // 2 :: factor, factor // 2 :: factor]
    expected = (filtered(x.numpy()) / filtered(np.ones(x.shape)))[middle]
    got = Downsample(factor, "gaussian", sigma=sigma)(x)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor", [2, 3, 4, 7])
@pytest.mark.parametrize("phase", [0.0, 0.5, 1.0])
def test_samples_are_centred_where_promised(kernel: str, factor: int, phase: float) -> None:
    # A symmetric kernel reads a ramp of the coordinates at its own centre.
    ramp = torch.arange(20.0 * factor, dtype=torch.float64).expand(factor, -1)
    operator = Downsample(factor, kernel, phase=phase)
    inner = torch.arange(6.0, 14.0, dtype=torch.float64)
    torch.testing.assert_close(operator(ramp)[0, 6:14], factor * inner + phase * (factor - 1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("phase", [0.0, 0.2, 0.5])
def test_mirrored_image_needs_mirrored_phase(kernel: str, phase: float) -> None:
    x = picture(12, 18)
    mirrored = Downsample(3, kernel, phase=1 - phase)(x.flip(-2, -1)).flip(-2, -1)
    torch.testing.assert_close(Downsample(3, kernel, phase=phase)(x), mirrored)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_constant_image_stays_constant(kernel: str, phase: float, factor: int) -> None:
    x = torch.full((1, 2, 5 * factor, factor), 0.7)
    y = Downsample(factor, kernel, phase=phase)(x)
    torch.testing.assert_close(y, torch.full((1, 2, 5, 1), 0.7))


@pytest.mark.parametrize("kernel", KERNELS)
def test_factor_one_changes_nothing(kernel: str) -> None:
    x = picture(1, 3, 5, 7)
    sigma = 0.05 if kernel == "gaussian" else None
    torch.testing.assert_close(Downsample(1, kernel, sigma=sigma)(x), x)


def test_a_very_narrow_gaussian_is_the_nearest_pixel() -> None:
    x = picture(9, 9)
    torch.testing.assert_close(Downsample(3, "gaussian", sigma=1e-4)(x), x[1::3, 1::3])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("phase", [0.0, 0.5])
def test_linear_with_adjoint(kernel: str, phase: float) -> None:
    operator = Downsample(4, kernel, phase=phase)
    x, other, y = picture(2, 3, 12, 20), picture(2, 3, 12, 20, seed=1), picture(2, 3, 3, 5, seed=2)
    torch.testing.assert_close(operator(2 * x - 3 * other), 2 * operator(x) - 3 * operator(other))
    torch.testing.assert_close((operator(x) * y).sum(), (x * operator.adjoint(y)).sum())


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradient(kernel: str) -> None:
    operator = Downsample(2, kernel)
    x = picture(1, 2, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(operator, x)
    y = picture(1, 2, 2, 3, seed=1)
    (operator(x) * y).sum().backward()
    torch.testing.assert_close(x.grad, operator.adjoint(y))


def test_gradient_flows_after_use_in_inference_mode() -> None:
    operator = Downsample(2)
    with torch.inference_mode():
        operator(torch.rand(4, 4))
    x = torch.rand(4, 4, requires_grad=True)
    operator(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_precision(given: torch.dtype, computed: torch.dtype) -> None:
    x = picture(1, 1, 8, 8).to(given)
    y = Downsample(2)(x)
    assert y.dtype == computed
    torch.testing.assert_close(y, Downsample(2)(x.double()).to(computed))


def test_autocast_does_not_lower_the_precision() -> None:
    operator = Downsample(4)
    x = picture(1, 3, 16, 16, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = operator(x)
    assert torch.equal(y, operator(x))


@pytest.mark.parametrize("size", [(8, 9), (9, 8), (0, 8)])
def test_sizes_that_are_no_multiples_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"multiples of the factor 4, got {size[0]} x {size[1]}"):
        Downsample(4)(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.complex64])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="floating-point"):
        Downsample(2)(torch.zeros(4, 4, dtype=dtype))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"factor": 0}, ValueError, "factor"),
        ({"factor": 2.5}, TypeError, "factor"),
        ({"factor": True}, TypeError, "factor"),
        ({"factor": 2, "kernel": "lanczos"}, ValueError, "did you mean 'lanczos"),
        ({"factor": 2, "kernel": None}, ValueError, "allowed: lanczos2, lanczos3, box, gaussian"),
        ({"factor": 2, "phase": 1.5}, ValueError, "phase must be from 0 to 1"),
        ({"factor": 2, "phase": math.nan}, ValueError, "phase"),
        ({"factor": 2, "sigma": 0.5}, ValueError, "sigma=0.5 means nothing to the lanczos2 kernel"),
        ({"factor": 2, "kernel": "gaussian", "sigma": 0}, ValueError, "sigma"),
    ],
)
def test_bad_options_are_refused(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Downsample(**options)


def test_repr_names_the_settings() -> None:
    assert repr(Downsample(4)) == 'Downsample(factor=4, kernel="lanczos2", phase=0.5)'
    assert repr(Downsample(2, "gaussian", phase=0)) == ('Downsample(factor=2, kernel="gaussian", phase=0.0, sigma=0.5)')


# ---------------------------------------------------------------------- enlarging, and coming down to a picture


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("small", [(1, 1), (2, 9), (7, 13)])
def test_enlarging_equals_pillow(factor: int, small: tuple[int, int]) -> None:
    y = picture(*small, dtype=torch.float32)
    large = (small[1] * factor, small[0] * factor)
    expected = np.asarray(Image.fromarray(y.numpy()).resize(large, Image.Resampling.BICUBIC))
    torch.testing.assert_close(Downsample(factor).enlarge(y), torch.tensor(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize("phase", [0, 0.3, 0.5, 1])
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_parabola_is_enlarged_to_itself_at_any_phase(factor: int, phase: float) -> None:
    """Keys's kernel is exact for polynomials of the second degree, away from the border."""
    centres = factor * torch.arange(9.0, dtype=torch.float64) + phase * (factor - 1)
    large = Downsample(factor, phase=phase).enlarge((centres**2).expand(4, 9))
    inside = torch.arange(2 * factor, 7 * factor)
    torch.testing.assert_close(large[0, inside], inside.double() ** 2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("factor", "phase"), [(1, 0.5), (2, 0), (3, 0.5), (4, 1)])
def test_back_projection_step_by_step(kernel: str, factor: int, phase: float) -> None:
    operator = Downsample(factor, kernel, phase=phase)
    y, x = picture(1, 3, 6, 8), picture(1, 3, 6 * factor, 8 * factor, seed=1)
    for start in (x, None):
        expected = torch.zeros_like(x) if start is None else start
        for times in range(1, 4):
            expected = expected + operator.enlarge(y - operator(expected))
            torch.testing.assert_close(operator.consistent(start, y, times), expected)
    torch.testing.assert_close(operator.consistent(x, operator(x)), x)  # nothing to correct
    with pytest.raises(ValueError, match="times must be"):
        operator.consistent(x, y, times=0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("phase", [0, 0.5, 1])
def test_back_projection_comes_to_a_picture_that_comes_down_to_the_small_one(kernel: str, phase: float) -> None:
    operator = Downsample(4, kernel, phase=phase)
    y = picture(3, 12, 9)
    errors = [(operator(operator.consistent(None, y, times)) - y).std() for times in (1, 10, 1000)]
    assert errors[1] < 0.25 * errors[0]
    assert errors[2] < 0.1 * errors[1]
    gray = torch.full_like(y, 0.3)
    torch.testing.assert_close(operator.consistent(None, gray), torch.full((3, 48, 36), 0.3, dtype=torch.float64))


def test_identity_returns_the_image() -> None:
    x = torch.rand(1, 3, 1, 1)
    assert Identity()(x) is x


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
@pytest.mark.parametrize("axes", [2, 3, 4])
def test_mask_multiplies_every_channel(dtype: torch.dtype, axes: int) -> None:
    known = torch.rand(7, 13, generator=torch.Generator().manual_seed(0)) < 0.5
    mask = known.to(dtype).reshape((1,) * (axes - 2) + (7, 13))
    x = picture(1, 3, 7, 13, dtype=torch.float32)
    y = Mask(mask)(x)
    assert torch.equal(y[..., known], x[..., known])
    assert not y[..., ~known].any()


def test_mask_follows_the_module() -> None:
    assert Mask(torch.ones(2, 2)).to(torch.float64).mask.dtype == torch.float64


@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (8, 1), (1, 1, 8, 7), (1, 3, 8, 8)])
def test_mask_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="mask"):
        Mask(torch.ones(shape))(torch.ones(1, 1, 8, 8))


def test_mask_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="from_numpy"):
        Mask(np.ones((2, 2)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="real"):
        Mask(torch.ones(2, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        Mask(torch.ones(2))


class Physics:
    """An object with A, as a physics library has."""

    def A(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class CallablePhysics(torch.nn.Module):
    """An object with A that can be called too, but then adds noise."""

    def A(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the noisy measurement was called")


class CallableWithMatrix:
    """A callable whose attribute A is only a matrix."""

    A = np.eye(2)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.mark.parametrize("forward", [lambda x: 2 * x, Physics(), CallablePhysics(), CallableWithMatrix()])
def test_as_operator_accepts(forward: object) -> None:
    assert as_operator(forward)(torch.ones(1)).item() == 2


def test_as_operator_leaves_a_callable_alone() -> None:
    operator = Downsample(2)
    assert as_operator(operator) is operator


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (torch.eye(3), r"M @ x.flatten\(\)"),
        (np.ones(3), r"a matrix \(m, n\)"),
        ("blur", "method A"),
        (None, "callable"),
        (Physics, r"Physics\(\.\.\.\)"),
    ],
)
def test_as_operator_refuses(forward: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        as_operator(forward)
