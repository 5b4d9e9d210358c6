"""Losses and penalties, against torch's own and hand-worked numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dip.losses import L1, MSE, Huber, TotalVariation, check_weight, create

LOSSES = [MSE(), L1(), Huber(delta=0.3)]
ORACLES = [
    (MSE(), F.mse_loss),
    (L1(), F.l1_loss),
    (Huber(delta=0.3), lambda p, y, **kw: F.huber_loss(p, y, delta=0.3, **kw)),
    (Huber(delta=5.0), lambda p, y, **kw: F.huber_loss(p, y, delta=5.0, **kw)),
]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("loss", "oracle"), ORACLES)
@pytest.mark.parametrize("shape", [(1, 3, 7, 13), (5,), ()])
def test_equals_torch(loss: Callable, oracle: Callable, shape: tuple[int, ...]) -> None:
    p, y = normal(*shape, seed=1), normal(*shape, seed=2)
    torch.testing.assert_close(loss(p, y), oracle(p, y))


@pytest.mark.parametrize(("loss", "oracle"), ORACLES)
def test_mask_gives_the_mean_over_known_pixels(loss: Callable, oracle: Callable) -> None:
    p, y = normal(1, 3, 7, 13, seed=1), normal(1, 3, 7, 13, seed=2)
    known = normal(7, 13, seed=3) > 0
    expected = oracle(p[..., known], y[..., known])
    for mask in (known, known.to(torch.uint8), known.double().reshape(1, 1, 7, 13)):
        torch.testing.assert_close(loss(p, y, mask), expected)


@pytest.mark.parametrize(("loss", "oracle"), ORACLES)
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 1, 4, 5), (3, 1, 1), (5,), ()])
def test_weights_give_the_weighted_mean(loss: Callable, oracle: Callable, shape: tuple[int, ...]) -> None:
    p, y, w = normal(1, 3, 4, 5, seed=1), normal(1, 3, 4, 5, seed=2), normal(*shape, seed=3).abs()
    each = oracle(p, y, reduction="none")
    expected = np.average(each, weights=w.expand_as(each))
    assert loss(p, y, weight=w).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_weight_of_half_precision_does_not_overflow(loss: Callable) -> None:
    p = torch.ones(1, 1, 300, 300)
    weight = torch.ones(300, 300, dtype=torch.float16)  # its sum is beyond float16
    torch.testing.assert_close(loss(p, 0 * p, weight), loss(p, 0 * p))


@pytest.mark.parametrize("loss", LOSSES)
def test_complex_residuals_count_by_magnitude(loss: Callable) -> None:
    p, y = normal(4, 5, dtype=torch.complex128), normal(4, 5, seed=1, dtype=torch.complex128)
    magnitude = (p - y).abs()
    weight = normal(5, seed=2).abs()
    torch.testing.assert_close(loss(p, y, weight), loss(magnitude, torch.zeros_like(magnitude), weight))
    assert not loss(p, y).is_complex()


@pytest.mark.parametrize("loss", LOSSES)
def test_real_prediction_against_complex_observation(loss: Callable) -> None:
    y = torch.tensor([3 + 4j])
    torch.testing.assert_close(loss(torch.zeros(1), y), loss(torch.tensor([5.0]), torch.zeros(1)))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradient(loss: Callable, dtype: torch.dtype) -> None:
    p, y = normal(2, 3, dtype=dtype).requires_grad_(), normal(2, 3, seed=1, dtype=dtype)
    assert torch.autograd.gradcheck(lambda p: loss(p, y), p)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_gradient_of_a_perfect_prediction_is_zero(loss: Callable, dtype: torch.dtype) -> None:
    y = normal(4, dtype=dtype)
    p = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(p, y), p)
    assert torch.equal(gradient, torch.zeros_like(y))


@pytest.mark.parametrize("loss", LOSSES)
def test_missing_pixels_have_no_gradient(loss: Callable) -> None:
    p = normal(1, 1, 2, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(p, torch.zeros_like(p), torch.eye(2)), p)
    assert torch.equal(gradient[0, 0] != 0, torch.eye(2, dtype=torch.bool))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss: Callable, dtype: torch.dtype) -> None:
    p, y = normal(100, 100, dtype=dtype), normal(100, 100, seed=1, dtype=dtype)
    got = loss(p, y)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, loss(p.float(), y.float()))


@pytest.mark.parametrize("loss", LOSSES)
def test_unequal_shapes_are_refused_with_both(loss: Callable) -> None:
    # Without the check both would broadcast.
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\).*\(1, 1, 8, 8\)"):
        loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("shape", [(4,), (2, 1, 3, 8, 8), (2, 1, 8, 8), (1, 3, 8, 7)])
def test_weight_that_does_not_broadcast_is_refused(shape: tuple[int, ...]) -> None:
    weight, x = torch.ones(shape), torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="weight must be real and broadcast"):
        MSE()(x, x, weight)
    with pytest.raises(ValueError, match="weight must be real and broadcast"):
        check_weight(weight, (1, 3, 8, 8))


@pytest.mark.parametrize(
    ("weight", "error", "words"),
    [
        (torch.tensor([1.0, -1.0]), ValueError, "negative"),
        (torch.tensor([1.0, math.nan]), ValueError, "NaN"),
        (torch.tensor([1.0, math.inf]), ValueError, "infinite"),
        (torch.zeros(2), ValueError, "zero everywhere"),
        (torch.ones(2, dtype=torch.complex64), ValueError, "real"),
        (np.ones(2), TypeError, "torch tensor"),
    ],
)
def test_check_weight_refuses(weight: torch.Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check_weight(weight, (3, 2))


def test_check_weight_accepts_masks_and_weights() -> None:
    check_weight(torch.tensor([True, False]), (3, 2))
    check_weight(torch.tensor(0.5), (3, 2))


@pytest.mark.parametrize("delta", [0, -1.0, math.nan, math.inf])
def test_huber_refuses_delta(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        Huber(delta=delta)


@pytest.mark.parametrize(("name", "loss"), [("mse", MSE()), ("l1", L1()), ("huber", Huber())])
def test_create_by_name(name: str, loss: Callable) -> None:
    assert create(name) == loss
    assert eval(repr(loss)) == loss


def test_create_leaves_losses_and_callables_alone() -> None:
    def mine(prediction: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        return (prediction - observation).abs().max()

    loss = Huber(delta=2.0)
    assert create(loss) is loss
    assert create(mine) is mine


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("hubert", ValueError, "did you mean 'huber'"),
        (MSE, TypeError, r"pass MSE\(\)"),
        (None, TypeError, "huber, l1, mse"),
        (0.5, TypeError, "not 0.5"),
    ],
)
def test_create_refuses(given: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        create(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [*LOSSES, TotalVariation(0.1)])
def test_losses_are_frozen_values(loss: Callable) -> None:
    assert dataclasses.replace(loss) == loss  # type: ignore[type-var]
    assert len({loss, dataclasses.replace(loss)}) == 1  # type: ignore[type-var]
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.delta = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [(7, 13), (1, 3, 7, 13), (2, 1, 5, 5), (1, 1, 1, 9), (1, 1, 9, 1), (1, 1)])
@pytest.mark.parametrize("isotropic", [True, False])
def test_total_variation_equals_the_sum_over_pixels(shape: tuple[int, ...], isotropic: bool) -> None:
    x = normal(*shape)
    total = 0.0
    planes = x.reshape(-1, *shape[-2:]).numpy()
    for plane in planes:
        for (i, j), value in np.ndenumerate(plane):
            down = plane[i + 1, j] - value if i + 1 < plane.shape[0] else 0.0
            right = plane[i, j + 1] - value if j + 1 < plane.shape[1] else 0.0
            total += math.hypot(down, right) if isotropic else abs(down) + abs(right)
    penalty = TotalVariation(2.5, isotropic=isotropic, epsilon=1e-9)
    assert penalty(x).item() == pytest.approx(2.5 * total / x.numel(), abs=1e-8)


@pytest.mark.parametrize("isotropic", [True, False])
def test_total_variation_of_a_constant_is_zero_with_a_finite_gradient(isotropic: bool) -> None:
    x = torch.full((1, 3, 8, 8), 0.4, requires_grad=True)
    penalty = TotalVariation(1.0, isotropic=isotropic)(x)
    (gradient,) = torch.autograd.grad(penalty, x)
    assert penalty.item() == pytest.approx(0, abs=1e-9)
    assert torch.equal(gradient, torch.zeros_like(x))


@pytest.mark.parametrize("isotropic", [True, False])
def test_total_variation_gradient(isotropic: bool) -> None:
    x = normal(1, 2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(TotalVariation(0.7, isotropic=isotropic), x)


def test_isotropic_total_variation_measures_a_slope_the_same_in_every_direction() -> None:
    rows, columns = torch.meshgrid(*2 * [torch.arange(200, dtype=torch.float64)], indexing="ij")
    measured = {
        isotropic: [
            TotalVariation(1.0, isotropic=isotropic)(math.cos(a) * rows + math.sin(a) * columns).item()
            for a in (0, math.pi / 6, math.pi / 4)
        ]
        for isotropic in (True, False)
    }
    assert measured[True] == pytest.approx([1, 1, 1], rel=0.01)
    assert measured[False][2] == pytest.approx(math.sqrt(2), rel=0.01)


def test_total_variation_does_not_depend_on_the_number_of_pixels() -> None:
    x = normal(1, 1, 16, 16)
    penalty = TotalVariation(0.1)
    # Mirrored tiles meet without a step.
    tiled = torch.cat([x, x.flip(-1)], dim=-1)
    assert penalty(tiled).item() == pytest.approx(penalty(x).item(), rel=0.1)


def test_zero_weight_switches_total_variation_off() -> None:
    assert TotalVariation(0)(normal(1, 1, 4, 4)).item() == 0


@pytest.mark.parametrize(
    "options", [{"weight": -1}, {"weight": math.nan}, {"weight": 1, "epsilon": 0}, {"weight": math.inf}]
)
def test_total_variation_refuses(options: dict) -> None:
    with pytest.raises(ValueError, match=r"weight|epsilon"):
        TotalVariation(**options)
