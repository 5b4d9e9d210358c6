"""Messages and number checks of dip.errors."""

from __future__ import annotations

import fractions
import math
from typing import Any

import numpy as np
import pytest
import torch

from dip import errors

PRESETS = ["fast", "paper", "paper-x8"]


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("papper", "paper"), ("PAPER", "paper"), ("fst", "fast"), ("paper_x8", "paper-x8")],
)
def test_unknown_names_the_nearest(given: str, nearest: str) -> None:
    message = str(errors.unknown("preset", given, PRESETS))
    assert message == f"unknown preset {given!r}; did you mean {nearest!r}? allowed: fast, paper, paper-x8"


@pytest.mark.parametrize("given", ["zzzz", "", 3, None, np.zeros((9, 9))])
def test_unknown_offers_nothing_where_nothing_is_near(given: Any) -> None:
    error = errors.unknown("preset", given, iter(PRESETS))
    assert isinstance(error, ValueError)
    assert "did you mean" not in str(error)
    assert str(error).endswith("; allowed: fast, paper, paper-x8")


def test_unknown_keeps_the_spelling_of_the_allowed_name() -> None:
    assert "did you mean 'LBFGS'?" in str(errors.unknown("optimizer", "lbfg", ["Adam", "LBFGS"]))


@pytest.mark.parametrize("value", [1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), 10**30])
def test_positive_int_gives_an_int(value: Any) -> None:
    number = errors.positive_int(value, "iters")
    assert type(number) is int
    assert number == int(value)


@pytest.mark.parametrize(
    "value",
    [True, np.True_, torch.tensor(True), 1.0, 2.5, np.float32(3), math.nan, math.inf, "3", None, [3], 1j,
     np.array([1, 2]), torch.tensor([1, 2])],
)  # fmt: skip
def test_positive_int_refuses_other_types(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^iters must be a whole number from 1 up, not ") as caught:
        errors.positive_int(value, "iters")
    assert "pass " in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, np.int8(-128), -(10**30)])
def test_positive_int_refuses_zero_and_negatives(value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^iters must be a whole number from 1 up, not {int(value)}; "):
        errors.positive_int(value, "iters")


def test_positive_int_tells_what_a_whole_float_should_be() -> None:
    with pytest.raises(TypeError, match=r"not 1000.0 \(float\); pass 1000$"):
        errors.positive_int(1e3, "iters")


@pytest.mark.parametrize(
    "value", [0.5, 3, np.float16(0.5), np.int32(7), torch.tensor(0.25), fractions.Fraction(1, 4), 5e-324]
)
def test_positive_float_gives_a_float(value: Any) -> None:
    number = errors.positive_float(value, "lr")
    assert type(number) is float
    assert number == float(value)


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, math.inf, -math.inf, np.float32("nan"), 10**400])
@pytest.mark.parametrize("zero_ok", [False, True])
def test_positive_float_refuses_values(value: Any, zero_ok: bool) -> None:
    with pytest.raises(ValueError, match=r"^lr must be a finite number "):
        errors.positive_float(value, "lr", zero_ok=zero_ok)


def test_positive_float_takes_zero_only_where_allowed() -> None:
    assert errors.positive_float(0, "jitter", zero_ok=True) == 0
    assert errors.positive_float(-0.0, "jitter", zero_ok=True) == 0
    with pytest.raises(ValueError, match=r"^jitter must be a finite number above 0, not 0; "):
        errors.positive_float(0, "jitter")


@pytest.mark.parametrize("value", [True, np.False_, "0.1", b"0.1", None, [0.1], 1j, torch.ones(2)])
def test_positive_float_refuses_other_types(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^lr must be a finite number above 0, not "):
        errors.positive_float(value, "lr")


@pytest.mark.parametrize(
    "value", [np.zeros((300, 300)), torch.zeros(300, 300), "x" * 10_000, list(range(10_000)), "a\nb"]
)
def test_shown_is_one_short_line(value: Any) -> None:
    text = errors.shown(value)
    assert len(text) < 80
    assert "\n" not in text
