"""Initial values of theta: reproducible, of the stated spread, and checked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qstore_core import QuantumFeatureExtractor, SpecError
from qstore_core.circuit.spec.initial import initial_theta

MANY = 20_000


@pytest.mark.parametrize(("init", "mean", "std"), [
    ("small_normal", 0.0, 0.1),
    ("normal", 0.0, 1.0),
    ("uniform", np.pi, 2 * np.pi / np.sqrt(12)),
])  # fmt: skip
def test_spread(init, mean, std):
    theta = initial_theta(init, MANY, seed=0)
    bound = 5 * std / np.sqrt(MANY)  # 5σ of a mean, and more than 5σ of these standard deviations
    assert abs(theta.mean() - mean) < bound
    assert abs(theta.std() - std) < bound


def test_uniform_covers_one_turn():
    theta = initial_theta("uniform", MANY, seed=0)
    assert theta.min() >= 0
    assert theta.max() < 2 * np.pi


def test_zeros():
    np.testing.assert_array_equal(initial_theta("zeros", 3), np.zeros(3))


def test_seeds():
    np.testing.assert_array_equal(initial_theta("normal", 9, seed=3), initial_theta("normal", 9, seed=3))
    assert (initial_theta("normal", 9, seed=3) != initial_theta("normal", 9, seed=4)).all()
    assert (initial_theta("normal", 9) != initial_theta("normal", 9)).all()


def test_a_function_of_generator_and_size():
    theta = initial_theta(lambda rng, size: rng.integers(0, 2, size), 4, seed=1)
    assert theta.dtype == np.float64
    np.testing.assert_array_equal(theta, np.random.default_rng(1).integers(0, 2, 4))


def test_layers_start_there():
    layer = QuantumFeatureExtractor(2, init="uniform", seed=5)
    np.testing.assert_array_equal(layer.theta, initial_theta("uniform", 8, 5))


@pytest.mark.parametrize("init", ["small-norml", 3, None, ["zeros"]])
def test_unknown(init):
    with pytest.raises(SpecError, match="no init") as caught:
        initial_theta(init, 3)
    assert caught.value.argument == "init"


def test_nearest_name():
    with pytest.raises(SpecError, match=r"Did you mean 'small_normal'\?"):
        initial_theta("small-norml", 3)


@pytest.mark.parametrize("values", [[0.0], [0.0, np.nan], [[0.0, 0.0]], [0.0, np.inf]])
def test_functions_must_return_finite_values_of_the_size(values):
    with pytest.raises(SpecError, match="must return 2 finite values"):
        initial_theta(lambda rng, size: values, 2)


def test_angles_are_an_init_too():
    layer = QuantumFeatureExtractor(1, depth=1, init=np.array([0.5, -1]))
    np.testing.assert_array_equal(layer.theta, [0.5, -1])
    again = QuantumFeatureExtractor.from_config(json.loads(json.dumps(layer.config())))
    np.testing.assert_array_equal(again.theta, [0.5, -1])
    with pytest.raises(SpecError, match=r"must return 2 finite values, received shape \(3,\)"):
        QuantumFeatureExtractor(1, depth=1, init=[0, 1, 2])
    with pytest.raises(SpecError, match="must be finite"):
        initial_theta([0.0, np.nan], 2)
