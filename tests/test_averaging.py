"""The average of the outputs and the history, against numpy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from dip.averaging import ExponentialAverage
from dip.history import History


def outputs(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 4, 5, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("decay", [0, 0.5, 0.99])
@pytest.mark.parametrize("count", [1, 2, 200])
def test_average_is_the_weighted_mean(decay, count):
    average = ExponentialAverage(decay)
    assert average.value is None
    series = outputs(count)
    for x in series:
        average.update(x)
    weights = np.array([float(decay) ** (count - k) for k in range(1, count + 1)])
    expected = np.average(torch.stack(series).numpy(), axis=0, weights=weights)
    np.testing.assert_allclose(average.value.numpy(), expected, rtol=2e-5)


def test_average_of_a_constant_is_the_constant_from_the_first_on():
    average = ExponentialAverage(0.99)
    x = torch.full((1, 1, 2, 2), 0.7)
    for _ in range(50):
        average.update(x)
        torch.testing.assert_close(average.value, x, rtol=1e-5, atol=0)


def test_first_output_counts_no_more_than_its_weight():
    average = ExponentialAverage(0.99)
    average.update(torch.ones(1))
    for _ in range(199):
        average.update(torch.zeros(1))
    # Seeded with the first output, 0.99 ** 199 = 13 % of it would be left.
    assert average.value.item() == pytest.approx(0.01 * 0.99**199 / (1 - 0.99**200), rel=1e-4)


def test_average_keeps_no_hold_on_what_it_was_given_or_gave():
    average, series = ExponentialAverage(0.5), outputs(2)
    average.update(series[0])
    early, kept = average.value, average.value.clone()
    series[0].zero_()
    average.update(series[1])
    assert torch.equal(early, kept)
    assert not torch.equal(average.value, kept)


def test_average_goes_on_from_its_state():
    one, two = ExponentialAverage(0.9), ExponentialAverage(0.9)
    series = outputs(6)
    for x in series[:3]:
        one.update(x)
    state = one.state_dict()
    for x in series[3:]:
        one.update(x)
    two.load_state_dict(state)
    for x in series[3:]:
        two.update(x)
    assert torch.equal(one.value, two.value)
    fresh = ExponentialAverage(0.9)
    fresh.load_state_dict(ExponentialAverage(0.9).state_dict())
    assert fresh.value is None


@pytest.mark.parametrize(("decay", "message"), [(1, r"in \[0, 1\)"), (1.5, "turns averaging off"), (-0.1, "not -0.1")])
def test_average_refuses_other_decays(decay, message):
    with pytest.raises(ValueError, match=message):
        ExponentialAverage(decay)


def test_history_keeps_series_with_their_iterations():
    history = History()
    for i in range(1, 6):
        history.record(i, loss=torch.tensor(1 / i))
        if i % 2 == 0:
            history.record(i, psnr=10 * i, seen=np.float32(i))
    assert set(history) == {"loss", "psnr", "seen"}
    assert len(history) == 3
    np.testing.assert_allclose(history["loss"], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert history["loss"].dtype == np.float64
    np.testing.assert_array_equal(history.iterations("loss"), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(history.iterations("psnr"), [2, 4])
    np.testing.assert_array_equal(history["psnr"], [20, 40])
    assert history.last("seen") == 4
    assert history.last("nothing") is None
    with pytest.raises(KeyError):
        history["nothing"]


def test_history_reads_tensors_as_they_were_when_recorded():
    history = History()
    value = torch.tensor(1.0, requires_grad=True)
    history.record(1, a=value)
    with torch.no_grad():
        value += 1
    history.record(2, a=value)
    history.record(3, a=5.0)
    np.testing.assert_array_equal(history["a"], [1, 2, 5])
    history.record(4, a=torch.tensor(6))
    np.testing.assert_array_equal(history["a"], [1, 2, 5, 6])  # also after it was read once


def test_history_keeps_no_tensor_of_a_cpu():  # between the blocks that a fit frees and takes again
    history = History()
    history.record(1, a=torch.tensor(0.5), b=torch.tensor(0.1, requires_grad=True))
    assert [type(one) for name in "ab" for one in history._values[name]] == [float, float]
    assert history["b"].tolist() == [float(np.float32(0.1))]


def test_history_takes_one_number_at_a_time():
    history = History()
    history.record(1, a=torch.tensor([2.5]))
    history.record(2, a=torch.tensor(3.5, dtype=torch.float64))
    np.testing.assert_array_equal(history["a"], [2.5, 3.5])
    with pytest.raises(ValueError, match=r"a .*\(2,\)"):
        history.record(3, a=torch.tensor([1.0, 2.0]))


def test_history_as_json_has_null_for_what_is_not_finite():
    history = History()
    for i, value in enumerate([1.0, math.nan, math.inf], 1):
        history.record(i, loss=value)
    assert json.loads(json.dumps(history.as_dict(), allow_nan=False)) == {
        "loss": {"iteration": [1, 2, 3], "value": [1.0, None, None]}
    }


def test_history_goes_on_from_its_state():
    history, again = History(), History()
    history.record(1, loss=0.1, psnr=torch.tensor(20.0))
    history.record(2, loss=1 / 3)
    again.load_state_dict(history.state_dict())
    again.record(3, loss=0.5)
    np.testing.assert_array_equal(again["loss"], [0.1, 1 / 3, 0.5])
    np.testing.assert_array_equal(again.iterations("loss"), [1, 2, 3])
    assert again.last("psnr") == 20
    assert history.as_dict() != again.as_dict()
