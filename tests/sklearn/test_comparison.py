"""Hybrid against classical networks: equal budgets, honest intervals."""

from __future__ import annotations

import numpy as np
import pytest

from qstore_core import SpecError
from qstore_sklearn.comparison import Result, _Hidden, compare, hidden_manifold, two_curves
from qstore_sklearn.network import softmax_loss
from tests.support.tolerances import FINITE_DIFFERENCE


def result(quantum, classical, linear=(0.0, 0.0, 0.0)):
    return Result("some data", (100, 98), 1.0, quantum, classical, classical, linear)


def test_budgets_are_equal():
    [found] = compare(["wine"], seeds=2, epochs=2).results
    quantum, classical = found.parameters
    assert abs(quantum - classical) <= (13 + 1 + 3) / 2  # half a hidden unit
    assert len(found.quantum) == len(found.classical) == len(found.timed) == len(found.linear) == 2
    assert all(0 <= accuracy <= 1 for accuracy in found.quantum)


def test_a_seed_repeats():
    first, again = (compare(["two curves"], seeds=1, epochs=2).results[0] for _ in range(2))
    assert (first.quantum, first.classical, first.linear) == (again.quantum, again.classical, again.linear)


def test_the_interval_is_students():
    """Differences 1, 2 and 3 points: mean 2, deviation 1, t(2 degrees of freedom) = 4.3027."""
    mean, low, high = result((0.81, 0.82, 0.83), (0.80, 0.80, 0.80)).difference()
    assert (mean, low, high) == pytest.approx((0.02, 0.02 - 0.043027 / 3**0.5, 0.02 + 0.043027 / 3**0.5), abs=1e-6)


@pytest.mark.parametrize(
    ("quantum", "classical", "said"),
    [
        ((0.9, 0.91, 0.92), (0.8, 0.81, 0.82), "the quantum layer did better"),
        ((0.8, 0.81, 0.82), (0.9, 0.91, 0.92), "the classical layer did better"),
        ((0.8, 0.9, 1.0), (1.0, 0.9, 0.8), "no difference was found"),
        ((0.9,), (0.8,), "no difference was found"),  # one seed says nothing
    ],
)
def test_a_sentence_says_what_was_found(quantum, classical, said):
    assert said in result(quantum, classical).finding()


def test_what_a_line_does_as_well_is_said():
    assert "logistic regression does as well" in result((0.9, 0.9), (0.8, 0.8), (0.9, 0.9)).finding()


def test_the_classical_gradients():
    """Central differences along a random direction."""
    rng = np.random.default_rng(0)
    network, x, y = _Hidden(3, 4, 2, 0), rng.normal(size=(5, 4)), np.array([0, 1, 1, 0, 1])
    _, gradients = network.gradients(x, y, softmax_loss)
    step = 1e-6
    for name, values in network.parameters.items():
        direction, losses = rng.normal(size=values.shape), []
        for sign in (1, -1):
            network.parameters[name] = values + sign * step * direction
            losses.append(network.gradients(x, y, softmax_loss)[0])
        network.parameters[name] = values
        slope = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose((gradients[name] * direction).sum(), slope, atol=FINITE_DIFFERENCE)


@pytest.mark.parametrize("make", [two_curves, hidden_manifold])
def test_synthetic_data_have_two_classes_and_a_seed(make):
    x, y = make(200, seed=3)
    assert x.shape[0] == len(y) == 200
    assert set(y) == {0, 1}
    assert 0.3 < y.mean() < 0.7
    assert (make(200, seed=3)[0] == x).all()
    assert (make(200, seed=4)[0] != x).any()


def test_wrong_arguments():
    with pytest.raises(SpecError, match="wine"):
        compare(["vine"])
    with pytest.raises(SpecError, match="seeds"):
        compare(["wine"], seeds=0)
