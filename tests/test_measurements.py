"""The operators of measurements (blur, Fourier, Radon), against scipy, numpy, scikit-image and hand-worked numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, sparse
from scipy.sparse.linalg import aslinearoperator
from skimage.transform import iradon, radon

import dip
from dip.operators import Blur, Fourier, Matrix, Radon, gaussian_psf
from dip.operators.linear import Linear

SCIPY = {"mirror": "mirror", "nearest": "nearest", "wrap": "wrap", "zero": "constant"}


def picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).to(dtype)


def transposed(operator: Any, shape: tuple[int, ...], y: torch.Tensor) -> torch.Tensor:
    """What the gradient says is the transpose of an operator, applied to y."""
    x = torch.zeros(shape, dtype=torch.float64 if y.dtype == torch.float64 else torch.float32, requires_grad=True)
    (gradient,) = torch.autograd.grad(operator(x), x, y)
    return gradient


# ---------------------------------------------------------------------- blur


@pytest.mark.parametrize("boundary", SCIPY)
@pytest.mark.parametrize("psf", [(1, 1), (5, 9), (4, 6), (1, 2), (7, 4)])
@pytest.mark.parametrize("size", [(37, 24), (9, 10)])
def test_blur_equals_scipy(boundary: str, psf: tuple[int, int], size: tuple[int, int]) -> None:
    x, weights = picture(1, 3, *size), picture(*psf, seed=1).numpy()
    expected = [ndimage.convolve(c, weights / weights.sum(), mode=SCIPY[boundary]) for c in x[0].numpy()]
    found = Blur(weights, boundary=boundary)(x)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_a_gaussian_psf_is_that_of_scipy(sigma: float) -> None:
    x = picture(40, 31)
    found = Blur(gaussian_psf(sigma))(x)
    np.testing.assert_allclose(found.numpy(), ndimage.gaussian_filter(x.numpy(), sigma, mode="mirror"), atol=1e-12)


def test_each_channel_has_its_own_psf() -> None:
    x, psf = picture(1, 3, 12, 13), picture(3, 3, 3, seed=1)
    found = Blur(psf)(x)
    for channel in range(3):
        torch.testing.assert_close(found[:, channel], Blur(psf[channel])(x)[:, channel])
    with pytest.raises(ValueError, match="PSF for 3 channels"):
        Blur(psf)(x[:, :2])


@pytest.mark.parametrize("boundary", SCIPY)
def test_the_gradient_of_a_blur_is_its_transpose(boundary: str) -> None:
    operator = Blur(picture(5, 4, seed=1), boundary=boundary)
    x, y = picture(1, 2, 11, 9), picture(1, 2, 11, 9, seed=2)
    torch.testing.assert_close((operator(x) * y).sum(), (x * transposed(operator, x.shape, y)).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precision_of_a_blur(dtype: torch.dtype) -> None:
    operator, x = Blur(gaussian_psf(1.0)), picture(1, 1, 16, 20).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        y = operator(x)
    assert y.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(y, operator(x.double()).to(y.dtype), atol=1e-6, rtol=0)


def test_undoing_a_blur_that_wraps_is_exact() -> None:
    """With periodic borders A is diagonal in Fourier space: the filters are compared with the matrix itself."""
    operator = Blur(picture(3, 3, seed=1), boundary="wrap")
    size, damping = (5, 6), 0.03
    basis = torch.eye(30, dtype=torch.float64).reshape(30, 1, *size)
    matrix = operator(basis).reshape(30, 30).T
    gram = matrix @ matrix.T + damping * torch.eye(30, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gram)
    y = picture(1, 1, *size, seed=2)
    whitened = vectors @ (values.rsqrt() * (vectors.T @ y.flatten()))
    torch.testing.assert_close(operator.whitened(y, damping).flatten(), whitened)
    undone = matrix.T @ torch.linalg.solve(gram, y.flatten())
    torch.testing.assert_close(operator.back_projected(y, damping).flatten(), undone)


@pytest.mark.parametrize("width", [1.0, 2.5])
def test_undoing_a_blur_leaves_no_rim(width: float) -> None:
    """A smooth picture comes back, at its border too; a constant one but for the damping."""
    operator = Blur(gaussian_psf(width))
    smooth = torch.from_numpy(ndimage.gaussian_filter(picture(48, 40).numpy(), 4, mode="mirror"))
    back = operator.back_projected(operator(smooth), 1e-4)
    assert (back - smooth).abs().max() < 0.02 * (smooth.max() - smooth.min())
    gray = torch.full((30, 30), 0.4, dtype=torch.float64)
    torch.testing.assert_close(operator.back_projected(gray, 0.01), gray / 1.01, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("psf", "options", "error", "words"),
    [
        ("gauss", {}, TypeError, "psf='gauss'"),
        (np.ones((3, 3), complex), {}, TypeError, "complex128; real numbers"),
        (np.ones(3), {}, ValueError, r"shape \(3,\)"),
        (np.zeros((3, 3)), {}, ValueError, "0 everywhere"),
        (np.array([[1.0, -0.1]]), {}, ValueError, "below 0, down to -0.1"),
        (np.array([[1.0, np.nan]]), {}, ValueError, "NaN"),
        (np.ones((3, 3)), {"boundary": "miror"}, ValueError, "did you mean 'mirror'"),
    ],
)
def test_bad_psfs_are_refused(psf: Any, options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Blur(psf, **options)


def test_images_that_a_psf_does_not_suit_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be mirrored"):
        Blur(np.ones((9, 9)))(torch.zeros(4, 20))
    with pytest.raises(ValueError, match="smaller than the PSF"):
        Blur(np.ones((9, 9)), boundary="wrap")(torch.zeros(8, 20))
    assert Blur(np.ones((9, 9)), boundary="zero")(torch.ones(4, 20)).shape == (4, 20)
    part = torch.ones(4, 20)  # of a residual in a fit in crops
    torch.testing.assert_close(Blur(np.ones((9, 9))).whitened(part, 0.25), part / 1.25**0.5, atol=0.01, rtol=0)
    with pytest.raises(TypeError, match="floating-point"):
        Blur(np.ones((3, 3)))(torch.zeros(8, 8, dtype=torch.uint8))


# ---------------------------------------------------------------------- Fourier


@pytest.mark.parametrize("size", [(6, 7), (8, 5)])
@pytest.mark.parametrize("complex_image", [False, True])
def test_fourier_equals_numpy(size: tuple[int, int], complex_image: bool) -> None:
    x = picture(1, 1 + complex_image, *size, dtype=torch.float32)
    image = x[0, 0].numpy() + (1j * x[0, 1].numpy() if complex_image else 0)
    np.testing.assert_allclose(Fourier(centred=False)(x), np.fft.fft2(image, norm="ortho"), atol=1e-5)
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho"))
    np.testing.assert_allclose(Fourier()(x), expected, atol=1e-5)


def test_fourier_of_several_coils_where_it_was_measured() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 6, 8)) + 1j * rng.normal(size=(3, 6, 8))
    columns = np.arange(8) % 3 == 0
    x = picture(1, 1, 6, 8, dtype=torch.float32)
    for mask in (columns, np.broadcast_to(columns, (6, 8))):
        found = Fourier(mask, maps, centred=False)(x).numpy()
        expected = np.fft.fft2(maps * x[0, 0].numpy(), norm="ortho") * columns
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64, ">f4"])
def test_a_mask_of_any_kind_says_where(dtype: Any) -> None:
    known = np.arange(8) % 3 == 0
    x = picture(1, 1, 6, 8, dtype=torch.float32)
    mask = known if dtype is bool else (known * 255).astype(dtype)
    operator = Fourier(mask)
    torch.testing.assert_close(operator(x), Fourier(known)(x))
    given = torch.from_numpy(known.astype(np.float32))
    kept = Fourier(given)
    given.fill_(1)
    torch.testing.assert_close(kept(x), operator(x))


def test_the_gradient_of_fourier_is_its_adjoint() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 6, 8)) + 1j * rng.normal(size=(2, 6, 8))
    operator = Fourier(np.arange(8) % 2 == 0, maps)
    x = picture(1, 2, 6, 8, dtype=torch.float32)
    y = torch.complex(picture(2, 6, 8, dtype=torch.float32), picture(2, 6, 8, seed=1, dtype=torch.float32))
    there = (operator(x).conj() * y).sum().real
    torch.testing.assert_close(there, (x * transposed(operator, x.shape, y)).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("mask",), TypeError, "mask='mask'"),
        ((np.zeros((4, 4)),), ValueError, "nothing was measured"),
        ((np.ones((1, 4, 4)),), ValueError, r"shape \(1, 4, 4\)"),
        ((np.full((4, 4), np.nan),), ValueError, "NaN"),
        ((None, np.ones((4, 4))), ValueError, r"\(coils, H, W\)"),
        ((np.ones(5), np.ones((2, 4, 4))), ValueError, "have to agree"),
    ],
)
def test_bad_masks_and_sensitivities_are_refused(arguments: tuple, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Fourier(*arguments)


@pytest.mark.parametrize("shape", [(4, 4), (1, 3, 4, 4), (2, 1, 4, 4)])
def test_images_that_fourier_does_not_take(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(1, C, H, W\)"):
        Fourier()(torch.zeros(shape))
    with pytest.raises(TypeError, match="two channels"):
        Fourier()(torch.zeros(1, 1, 4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match="does not suit the mask"):
        Fourier(np.ones((5, 4)))(torch.zeros(1, 1, 4, 4))


# ---------------------------------------------------------------------- Radon


@pytest.mark.parametrize("size", [2, 31, 32, 65])
@pytest.mark.parametrize("circle", [True, False])
def test_radon_equals_scikit_image(size: int, circle: bool) -> None:
    rows, columns = np.ogrid[:size, :size]
    x = picture(size, size).numpy()
    if circle:
        x = x * (np.hypot(rows - size // 2, columns - size // 2) <= size // 2)
    angles = np.linspace(-10, 200, 19)
    found = Radon(angles, circle=circle)(torch.from_numpy(x)[None, None])
    np.testing.assert_allclose(found, radon(x, angles, circle=circle), atol=2e-6 * size)


def test_radon_in_parts_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, x = Radon(np.arange(0, 180, 20)), picture(1, 2, 12, 12, dtype=torch.float32)
    y = picture(2, 12, 9, seed=1, dtype=torch.float32)
    whole, back = operator(x), transposed(operator, x.shape, y)
    monkeypatch.setattr("dip.operators.radon._POINTS", 2 * 12 * 12 * 4)
    torch.testing.assert_close(operator(x), whole)
    torch.testing.assert_close(transposed(operator, x.shape, y), back)
    torch.testing.assert_close(operator(x)[1], operator(x[:, 1:]))  # each channel by itself


def test_the_gradient_of_radon_is_its_transpose() -> None:
    operator = Radon([0.0, 33.0, 90.0, 170.0], circle=False)
    x = picture(1, 1, 10, 10, dtype=torch.float32)
    y = picture(*operator(x).shape, seed=1, dtype=torch.float32)
    torch.testing.assert_close((operator(x) * y).sum(), (x * transposed(operator, x.shape, y)).sum())


def test_many_turns_are_as_exact_as_one() -> None:
    x, angles = picture(1, 1, 16, 16, dtype=torch.float32), 111.246117975 * np.arange(9990, 10000)
    torch.testing.assert_close(Radon(angles)(x), Radon(angles % 360)(x))
    torch.testing.assert_close(Radon(torch.from_numpy(angles).requires_grad_())(x), Radon(angles)(x))


def test_radians_are_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.warns(RuntimeWarning, match="np.rad2deg"):
        Radon(np.deg2rad(np.arange(0, 180, 10)))
    recwarn.clear()
    Radon([0.0, 3.0])
    assert not recwarn.list


@pytest.mark.parametrize("angles", ["all", [], [[0.0, 1.0]], [np.nan], 3, [1j]])
def test_bad_angles_are_refused(angles: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="in degrees"):
        Radon(angles)
    with pytest.raises(ValueError, match="square"):
        Radon([0.0])(torch.zeros(1, 1, 4, 5))


# ---------------------------------------------------------------------- matrices

KINDS = {
    "array": lambda m: m,
    "float32": lambda m: m.astype(np.complex64 if np.iscomplexobj(m) else np.float32),
    "sparse matrix": sparse.csr_matrix,
    "sparse array": sparse.coo_array,
    "LinearOperator": aslinearoperator,
    "transposed LinearOperator": lambda m: aslinearoperator(m.T.copy()).T,  # which has an A of its own
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("complex_values", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_equals_numpy(kind: str, complex_values: bool, dtype: torch.dtype) -> None:
    matrix, _ = system(complex_values)
    operator = dip.operators.as_operator(KINDS[kind](matrix))
    assert isinstance(operator, Matrix)
    x = picture(1, 1, 3, 4, dtype=dtype).requires_grad_()
    made = operator(x)
    assert made.dtype == torch.promote_types(dtype, torch.complex64 if complex_values else torch.float32)
    np.testing.assert_allclose(made.detach(), matrix @ x.detach().numpy().ravel(), rtol=1e-5, atol=1e-5)
    y = np.random.default_rng(1).normal(size=20) * ((1 + 2j) if complex_values else 1)
    (gradient,) = torch.autograd.grad(made, x, torch.from_numpy(y).to(made.dtype))
    assert gradient.dtype == dtype
    np.testing.assert_allclose(gradient.flatten(), (matrix.conj().T @ y).real, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("complex_values", [False, True])
def test_the_gradient_of_a_matrix(complex_values: bool) -> None:
    operator = Matrix(system(complex_values)[0], (4, 5))
    assert torch.autograd.gradcheck(operator, picture(1, 1, 3, 4).requires_grad_())
    assert operator(picture(1, 1, 3, 4)).shape == (4, 5)


def rays(angles: np.ndarray, size: int) -> sparse.csr_matrix:
    """The Radon transform as a sparse matrix, a pixel at a time by scikit-image; rows are those of the sinogram."""
    basis = np.eye(size * size).reshape(-1, size, size)
    return sparse.csr_matrix(np.stack([radon(one, angles, circle=False).ravel() for one in basis], axis=1))


def test_a_sparse_matrix_of_tomography_is_fitted() -> None:
    angles = np.arange(0, 180, 30.0)
    matrix, x = rays(angles, 8), np.zeros((8, 8), np.float32)
    x[2:6, 3:7] = 0.8
    sinogram = radon(x.astype(float), angles, circle=False).astype(np.float32)
    assert sinogram.ndim == 2
    fit = dip.fit(dip.Reconstruct(sinogram, matrix, (8, 8)), iters=60, **SMALL)
    assert fit.history["loss"][-1] < 0.2 * fit.history["loss"][0]
    assert fit.image.shape == (8, 8)
    weight = (sinogram > 0).astype(np.float32)
    found = dip.reconstruct(sinogram, forward=matrix, shape=(8, 8), weight=weight, preset="fast", iters=2, **SMALL)
    assert found.shape == (8, 8)
    halves = [sinogram[:5].copy(), sinogram[5:].copy()]  # laid end to end, as the rows of the matrix are
    found = dip.reconstruct(halves, forward=aslinearoperator(matrix), shape=(8, 8), iters=2, **SMALL)
    assert np.array_equal(found, dip.reconstruct(sinogram, forward=matrix, shape=(8, 8), iters=2, **SMALL))


def test_a_module_that_looks_like_a_linear_operator_is_called() -> None:
    module = torch.nn.Linear(2, 2)
    module.shape, module.matvec, module.rmatvec = (2, 2), abs, abs
    assert dip.operators.as_operator(module) is module


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.ones(3),), TypeError, r"of shape \(m, n\)"),
        ((np.full((3, 3), "a"),), TypeError, "an array or a sparse matrix"),
        (("matrix",), TypeError, "matrix='matrix'"),
        ((np.ones((3, 4)), (2, 2)), ValueError, r"makes 3 values, but y has shape \(2, 2\), that is 4"),
    ],
)
def test_bad_matrices_are_refused(arguments: tuple, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Matrix(*arguments)


# ---------------------------------------------------------------------- least squares


def system(complex_values: bool, constant: float = 0.0) -> tuple[np.ndarray, Any]:
    """A matrix, and the operator that applies it to an image of 3 x 4 pixels."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20, 12)) + (1j * rng.normal(size=(20, 12)) if complex_values else 0)
    tensor = torch.from_numpy(matrix).to(torch.complex64 if complex_values else torch.float32)
    return matrix, lambda x: tensor @ x.flatten().to(tensor.dtype) + constant


@pytest.mark.parametrize("complex_values", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_least_squares_is_the_solution_after_enough_steps(complex_values: bool, weighted: bool) -> None:
    matrix, operator = system(complex_values, constant=0.7)
    weights = np.random.default_rng(1).uniform(0.1, 2, 20) if weighted else np.ones(20)
    weight = torch.from_numpy(weights).float() if weighted else None
    linear = Linear(operator, (1, 1, 3, 4), torch.device("cpu"), weight)
    rest = np.random.default_rng(2).normal(size=20) * ((1 + 1j) if complex_values else 1)
    gram = (matrix.conj().T @ (weights[:, None] * matrix)).real  # of a real x
    found = linear.least_squares(torch.from_numpy(rest).to(operator(torch.zeros(12)).dtype), damping=0.03, steps=60)
    largest = np.linalg.eigvalsh(gram)[-1]
    right = (matrix.conj().T @ (weights * rest)).real
    exact = np.linalg.solve(gram + 0.03 * largest * np.eye(12), right)
    np.testing.assert_allclose(found.flatten(), exact, atol=0.02 * np.abs(exact).max())  # the eigenvalue is estimated
    steepest = right * (right @ right) / (right @ (gram + 0.03 * largest * np.eye(12)) @ right)
    once = linear.least_squares(torch.from_numpy(rest).to(operator(torch.zeros(12)).dtype), damping=0.03, steps=1)
    np.testing.assert_allclose(once.flatten(), steepest, rtol=0.02, atol=1e-4)


def test_least_squares_of_nothing_left_is_nothing() -> None:
    _, operator = system(complex_values=False)
    found = Linear(operator, (1, 1, 3, 4), torch.device("cpu")).least_squares(torch.zeros(20), damping=0.1, steps=5)
    assert torch.equal(found, torch.zeros(1, 1, 3, 4))


@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1.0, 1e6])
def test_least_squares_in_any_unit(unit: float) -> None:
    _, operator = system(complex_values=False)
    rest = np.random.default_rng(2).normal(size=20)
    found = []
    for times, weight in ((1.0, None), (unit, None), (1.0, torch.full((20,), unit))):
        linear = Linear(lambda x, times=times: times * operator(x), (1, 1, 3, 4), torch.device("cpu"), weight)
        found.append(linear.least_squares(times * torch.from_numpy(rest).float(), damping=0.01, steps=30))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[2], found[0], rtol=1e-3, atol=1e-4)


class Untrue(torch.autograd.Function):
    """A x = 3 x whose gradient says otherwise."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 3 * x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.flip(-1)


def with_gradient(ahead: Any, back: Any) -> Any:
    """An operator whose backward is a function of one's own."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(ahead(x.detach())).float()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(back(gradient)).float()

    return Own.apply


SQUARE = torch.from_numpy(np.random.default_rng(0).normal(size=(25, 25))).float()


def by_matrix(back: torch.Tensor) -> Any:
    """SQUARE, of an image of 5 x 5 pixels, with another matrix for its gradient."""
    return with_gradient(lambda x: SQUARE @ x.flatten(), lambda y: (back @ y).reshape(1, 1, 5, 5))


WRONG = {
    "sign": (by_matrix(-SQUARE.T), "-1 times <A u, A u> for a random image u: its sign is wrong"),
    "scale": (by_matrix(3 * SQUARE.T), "3 times <A u, A u>.* another sign or scale"),
    "inverse": (by_matrix(torch.linalg.pinv(SQUARE)), "times <A u, A u>.*an inverse"),
    "not transposed": (by_matrix(SQUARE), "not transposed"),
    "flipped": (Untrue.apply, "not transposed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_gradient_that_is_not_the_transpose_is_told(case: str) -> None:
    operator, words = WRONG[case]
    with pytest.raises(ValueError, match=f"not the transpose of what it does .*{words}"):
        Linear(operator, (1, 1, 5, 5), torch.device("cpu"))
    y = operator(torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0)))
    with pytest.warns(RuntimeWarning, match=f"not the transpose of what it does .*{words}"):
        dip.fit(dip.Reconstruct(y, operator, (5, 5)), iters=1, **SMALL)


def test_a_kernel_that_is_not_flipped_is_told() -> None:
    kernel = torch.triu(torch.ones(5, 5))[None, None] / 15

    def blurred(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, kernel, padding=2)

    y = blurred(picture(1, 1, 16, 16, dtype=torch.float32))
    for data_range in (1.0, (-3.0, 5.0)):
        task = dip.Reconstruct(y, with_gradient(blurred, blurred), (16, 16), data_range=data_range)
        with pytest.warns(RuntimeWarning, match="not the transpose"):
            task.place(task.load())
    flipped = with_gradient(blurred, lambda g: torch.nn.functional.conv_transpose2d(g, kernel, padding=2))
    true = dip.Reconstruct(y, flipped, (16, 16))
    true.place(true.load())  # a warning is an error


def test_the_gradient_of_what_is_not_linear_or_nearly_right_is_not_told() -> None:  # a warning is an error
    angles, (rows, columns) = np.arange(0, 180, 6.0), np.ogrid[:32, :32]
    disc = torch.from_numpy(np.hypot(rows - 16, columns - 16) <= 16).float()

    def back(y: torch.Tensor) -> np.ndarray:
        found = iradon(y.numpy().astype(float), angles, filter_name=None) * 2 * len(angles) / np.pi
        return found[None, None]

    projector = with_gradient(lambda x: radon(x[0, 0].numpy().astype(float), angles), back)
    draws = torch.Generator().manual_seed(0)
    operators = [
        lambda x: x.square(),
        lambda x: x + 0.1 * torch.rand(x.shape, generator=draws),
        with_gradient(lambda x: torch.round(4 * x) / 4, lambda y: y),  # straight through
        lambda x: projector(x * disc),
        lambda x: x.clamp(0, 1),
        lambda x: 2 * x + 3,
        lambda x: torch.fft.rfft2(x),
        lambda x: x[..., 1:] - x[..., :-1],  # 0 of a gray image
        lambda x: (x - 0.5).abs(),
        lambda x: (x - 0.7).clamp(min=0),
    ]
    for operator in operators:
        task = dip.Reconstruct(operator(torch.rand(1, 1, 32, 32)), operator, (32, 32))
        task.place(task.load())


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (lambda x: x.square(), "not linear"),
        (torch.abs, "not linear"),
        (lambda x: x.clamp(min=0), "not linear"),
        (lambda x: torch.exp(-x), "not linear"),
        (Untrue.apply, "not the transpose"),
        (lambda x: 0 * x, "not the transpose"),
    ],
)
def test_what_is_not_linear_is_refused(operator: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Linear(operator, (1, 1, 5, 5), torch.device("cpu"))


# ---------------------------------------------------------------------- doubtful k-spaces


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
@pytest.mark.parametrize("coils", [0, 3])
def test_a_k_space_in_another_order_is_told(size: tuple[int, int], coils: int) -> None:
    x, known = picture(1, 1, *size, dtype=torch.float32), np.random.default_rng(1).random(size) < 0.5
    known[size[0] // 2, size[1] // 2] = True
    maps = np.ones((coils, *size)) if coils else None
    space = np.fft.fft2(x[0, 0].numpy(), norm="ortho") * np.fft.ifftshift(known)
    space = np.stack([space] * coils) if coils else space
    shifted, order = np.fft.fftshift(space, axes=(-2, -1)), np.fft.ifftshift(known)

    def placed(y: np.ndarray, operator: Fourier) -> None:
        task = dip.Reconstruct(y, operator, size)
        task.place(task.load())

    with pytest.warns(RuntimeWarning, match=r"largest at \(0, 0\).* the corner, .*centred=False"):
        placed(space, Fourier(known, maps))
    with pytest.warns(RuntimeWarning, match=r"the middle, .*centred=True.*np.fft.ifftshift"):
        placed(shifted, Fourier(order, maps, centred=False))
    placed(space, Fourier(order, maps, centred=False))  # a warning is an error
    placed(shifted, Fourier(known, maps))
    with pytest.warns(RuntimeWarning, match="y is 0 everywhere") as told:  # as an empty slice has it
        placed(0 * space, Fourier(known, maps))
    assert len(told) == 1


def test_a_complex_image_that_cannot_be_negative_is_told() -> None:
    operator = Fourier()
    y = operator(picture(1, 2, 8, 8, dtype=torch.float32) * 2 - 1)
    task = dip.Reconstruct(y, operator, (2, 8, 8))
    with pytest.warns(RuntimeWarning, match=r"begins at 0, .*give data_range=\(-1, 1\)"):
        task.place(task.load())
    task = dip.Reconstruct(y, operator, (2, 8, 8), data_range=(-1, 1))
    task.place(task.load())


# ---------------------------------------------------------------------- in a fit

SMALL = {"network": {"down": [8] * 2, "up": [8] * 2, "skip": [2] * 2}, "seed": 0, "device": "cpu", "progress": False}


@pytest.mark.parametrize(
    "operator",
    [
        Blur(gaussian_psf(1.0)),
        Fourier(np.arange(16) % 2 == 0),
        Radon(np.arange(0, 180, 12)),
    ],
    ids=["blur", "fourier", "radon"],
)
def test_reconstruction_through_each(operator: torch.nn.Module) -> None:
    rows, columns = np.ogrid[:16, :16]
    x = (np.hypot(rows - 8, columns - 8) < 5).astype(np.float32) * 0.8
    y = operator(torch.from_numpy(x)[None, None])
    fit = dip.fit(dip.Reconstruct(y, operator, (1, 16, 16)), iters=60, **SMALL)
    assert fit.history["loss"][-1] < 0.2 * fit.history["loss"][0]
    assert fit.image.shape == (1, 16, 16)


def fourfold() -> tuple[np.ndarray, torch.nn.Module, torch.Tensor]:
    """A picture, a Fourier transform that was measured in part, and what it made of the picture."""
    rows, columns = np.ogrid[:32, :32]
    x = np.where(np.hypot(rows - 14, columns - 17) < 9, 0.8, 0.1 + 0.004 * (rows + columns)).astype(np.float32)
    known = np.random.default_rng(0).random(32) < 0.4
    known[14:19] = True
    operator = Fourier(known)
    return x, operator, operator(torch.from_numpy(x)[None, None])


@pytest.mark.parametrize("data_range", [1.0, (-1.0, 3.0)])
def test_correcting_brings_an_image_to_its_measurement(data_range: Any) -> None:
    x, operator, _ = fourfold()
    low, high = (0.0, 1.0) if data_range == 1.0 else data_range
    y = operator(torch.from_numpy(low + (high - low) * x)[None, None])
    task = dip.Reconstruct(y, operator, (32, 32), data_range=data_range)
    task.place(task.load())
    for start in (None, torch.full((1, 1, 32, 32), 0.5)):
        corrected = task.consistent(start, y)
        before = torch.zeros_like(corrected) if start is None else start
        assert (task.forward(corrected) - y).norm() < 0.05 * (task.forward(before) - y).norm()
    exact = torch.from_numpy(x)[None, None]
    torch.testing.assert_close(task.consistent(exact, y), exact, atol=1e-5, rtol=0)


def test_fast_is_ahead_of_the_zero_filled_transform() -> None:
    x, operator, y = fourfold()
    network = {"down": [16] * 3, "up": [16] * 3, "skip": [4] * 3}
    options = {"preset": "fast", "network": network, "precision": "float32", "iters": 250}
    found = dip.reconstruct(y, forward=operator, shape=(32, 32), **options).numpy()
    filled = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(y.numpy()), norm="ortho")).real
    assert dip.metrics.psnr(found, x) > dip.metrics.psnr(filled.clip(0, 1).astype(np.float32), x) + 6


def test_weights_and_lists_go_into_the_correction() -> None:
    x = np.random.default_rng(0).random((6, 6)).astype(np.float32)

    def halves(image: torch.Tensor) -> list[torch.Tensor]:
        return [image[..., :3, :], 2 * image[..., 3:, :]]

    y = halves(torch.from_numpy(x)[None, None])
    y[0][..., 0, 0] = 5  # wrong, and of weight 0
    weight = [torch.ones_like(one) for one in y]
    weight[0][..., 0, 0] = 0
    task = dip.Reconstruct(y, halves, (6, 6), weight=weight)
    observation = task.load()
    task.place(observation)
    corrected = task.consistent(None, observation.y, times=30)[0, 0].numpy()
    assert corrected[0, 0] == pytest.approx(0, abs=1e-6)
    known = np.arange(36).reshape(6, 6) > 0
    np.testing.assert_allclose(corrected[known], x[known], atol=0.05)


def test_an_operator_that_is_not_linear_takes_another_code() -> None:
    y = torch.full((1, 1, 16, 16), 0.25)
    task = dip.Reconstruct(y, lambda x: x.square(), (16, 16))
    for options in ({"preset": "fast"}, {"code": dip.codes.Autoencoding()}):
        with pytest.raises(ValueError, match=r"not linear.*code=dip.codes.Uniform\(32\)"):
            dip.fit(task, iters=2, **{**SMALL, **options})
    fit = dip.fit(task, iters=2, preset="fast", code=dip.codes.Uniform(32), **SMALL)
    assert fit.iteration == 2


def test_a_correction_that_cannot_be_is_told_before_the_fit() -> None:
    seen: list[int] = []
    task = dip.Reconstruct(torch.full((1, 1, 16, 16), 0.25), lambda x: x.square(), (16, 16))
    with pytest.raises(ValueError, match="not linear"):
        dip.fit(task, iters=2, consistent=True, callbacks=[lambda fit: seen.append(fit.iteration)], **SMALL)
    assert not seen


def test_the_correction_at_the_end_is_an_option() -> None:
    _, operator, y = fourfold()
    plain, corrected = (
        dip.fit(dip.Reconstruct(y, operator, (32, 32)), iters=20, consistent=on, **SMALL) for on in (False, True)
    )
    assert torch.equal(plain.current, corrected.current)
    found = torch.as_tensor(corrected.image)
    assert torch.equal(found, corrected.task.consistent(plain.current, y, times=1).clamp(0, 1)[0, 0])
    rest = [(operator(torch.as_tensor(fit.image)[None, None]) - y).norm() for fit in (plain, corrected)]
    assert rest[1] < rest[0]
