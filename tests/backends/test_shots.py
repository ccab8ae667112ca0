"""Shots on Aer: sampled outputs and gradients are unbiased, and scatter as theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qstore_core import Circuit, Expectation, Probabilities, QuantumLayer, SpecError, cache_clear
from tests.support.tolerances import SIGMAS

pytest.importorskip("qiskit_aer")

SHOTS, ROWS = 400, 300


def cosine(measurement, seed=1):
    """⟨Z⟩ = cos(w + x), and the probability of 0 is (1 + ⟨Z⟩) / 2."""
    cache_clear()  # a compiled circuit goes on with its random numbers
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0] + circuit.inputs(1)[0], 0)
    layer = QuantumLayer(circuit, measurement, backend="aer", shots=SHOTS, seed=seed, fallback=None)
    layer.theta = np.array([0.4])
    return layer


ANGLE = 0.9
X = np.full((ROWS, 1), ANGLE - 0.4)
VARIANCE = math.sin(ANGLE) ** 2 / SHOTS  # of ⟨Z⟩ from shots


@pytest.mark.parametrize(
    ("measurement", "mean", "scale"), [(Expectation("Z"), math.cos(ANGLE), 1.0), (Probabilities(), 0.0, 0.5)]
)
def test_outputs(measurement, mean, scale):
    layer = cosine(measurement)
    outputs = layer(X)[:, 0]
    mean = mean if scale == 1.0 else (1 + math.cos(ANGLE)) / 2
    spread = scale * math.sqrt(VARIANCE)
    assert outputs.mean() == pytest.approx(mean, abs=SIGMAS * spread / math.sqrt(ROWS))
    assert outputs.var() == pytest.approx(spread**2, rel=SIGMAS * math.sqrt(2 / ROWS))
    errors = layer.last_run.std_error
    assert errors.shape == layer(X).shape
    assert errors[:, 0].mean() == pytest.approx(spread, rel=SIGMAS / math.sqrt(SHOTS))
    np.testing.assert_array_equal(outputs, cosine(measurement)(X)[:, 0])  # from the seed
    assert not np.array_equal(outputs, cosine(measurement, seed=2)(X)[:, 0])


def test_gradients():
    """Half the difference of two expectations at a ± π/2, each with variance cos² a / shots."""
    layer = cosine(Expectation("Z"))
    _, slopes = layer.vjp(X, np.ones((ROWS, 1)))
    spread = math.sqrt(math.cos(ANGLE) ** 2 / (2 * SHOTS))
    assert slopes.mean() == pytest.approx(-math.sin(ANGLE), abs=SIGMAS * spread / math.sqrt(ROWS))
    assert slopes.var() == pytest.approx(spread**2, rel=SIGMAS * math.sqrt(2 / ROWS))
    assert layer.last_run.backward.gradient == "parameter-shift"
    assert layer.last_run.shots == layer.last_run.backward.shots == SHOTS


def test_shots_have_a_limit():
    with pytest.raises(SpecError, match="shots is at most 100000000"):
        QuantumLayer(Circuit(1), Probabilities(), backend="aer", shots=10**12)


@pytest.mark.parametrize("backend", ["aer", "pennylane:default.qubit", "pennylane:lightning.qubit"])
@pytest.mark.parametrize("measurement", [Expectation(("Z", "X")), Probabilities()])
def test_the_standard_error_of_one_shot_is_unknown(backend, measurement):
    if backend != "aer":
        pytest.importorskip("pennylane")
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0], 0)
    for shots, known in ((1, False), (2, True)):
        layer = QuantumLayer(circuit, measurement, backend=backend, shots=shots, seed=0, fallback=None)
        assert set(np.abs(layer(np.zeros((3, 0)))).ravel()) <= {0.0, 0.5, 1.0}
        assert np.isnan(layer.last_run.std_error).all() == (not known)
