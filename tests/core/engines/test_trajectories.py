"""The trajectories engine: means of its samples are what the density engine computes, whatever the circuit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import (
    CapabilityError,
    Channel,
    Circuit,
    Expectation,
    MemoryLimitError,
    NoiseModel,
    OptionError,
    Pauli,
    Probabilities,
    QuantumLayer,
    get_backend,
)
from qstore_core.engines import trajectories
from qstore_core.engines.trajectories import arrays, states
from qstore_core.testing import conformance_checks
from tests.support.strategies import measurements, noisy_circuits, points
from tests.support.tolerances import EXACT, SIGMAS

SHOTS = 2000
NOTHING = np.zeros(0), np.zeros((1, 0))


def compiled(circuit, measurement, shots=SHOTS, **options):
    return get_backend("trajectories", **options).compile(circuit, measurement, dtype="float64", shots=shots)


def chain(n):
    """A damped GHZ state, read with errors."""
    c = Circuit(n)
    c.h(0)
    for q in range(n - 1):
        c.cnot(q, q + 1), c.amplitude_damping(0.02, q + 1), c.depolarizing(0.01, q, q + 1)
    c.readout_error(0.02, 0.05, n - 1)
    return c


def test_a_decaying_qubit_among_many():
    """P(1) after X and decay is 1 - gamma, at a size that no density matrix has."""
    c = Circuit(14)
    c.x(13), c.amplitude_damping(0.3, 13)
    values, report = compiled(c, Expectation("Z", qubits=(0, 13))).value_and_report(*NOTHING, seed=0)
    assert values[0, 0] == 1.0
    assert abs(values[0, 1] - (1 - 2 * 0.7)) < SIGMAS * report.std_error[0, 1]


@settings(max_examples=12)
@given(st.data())
def test_means_are_those_of_the_density_engine(data):
    circuit = data.draw(noisy_circuits(max_gates=6))
    measurement = data.draw(measurements(circuit.n_qubits))
    theta, inputs = data.draw(points(circuit, max_rows=2))
    exact = get_backend("density").compile(circuit, measurement, dtype="float64").forward(theta, inputs)
    values, report = compiled(circuit, measurement).value_and_report(theta, inputs, seed=1)
    scale = max(1.0, np.abs(exact).max())
    # Where an outcome was never seen, its standard error is 0: what SHOTS runs may miss has a chance of some 1 / SHOTS.
    bound = SIGMAS * np.sqrt(report.std_error**2 + (scale * SIGMAS / SHOTS) ** 2)
    assert (np.abs(values - exact) <= bound + EXACT).all()


def test_eleven_qubits_against_the_closed_form():
    """⟨Z…Z⟩ of neighbours in a GHZ state under depolarising alone: every channel that touches them costs a factor."""
    c = Circuit(11)
    c.h(0)
    for q in range(10):
        c.cnot(q, q + 1), c.depolarizing(0.02, q, q + 1)
    ends = Expectation(observables=(Pauli("Z" + "I" * 9 + "Z"),))
    values, report = compiled(c, ends).value_and_report(*NOTHING, seed=3)
    assert abs(values[0, 0] - 0.98**10) < SIGMAS * report.std_error[0, 0]


def test_samples_are_a_function_of_the_seed():
    run = compiled(chain(4), Probabilities(), shots=50)
    rows = np.zeros((3, 0))
    first, again, other = (run.forward(NOTHING[0], rows, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[0] != first[1]).any()  # rows are sampled independently


def test_parts_give_the_same_samples(monkeypatch):
    """Whether all histories are held at once, or one after the other."""
    run = compiled(chain(4), Expectation(("Z", "X")), shots=300)
    whole = run.forward(*NOTHING, seed=5)
    monkeypatch.setattr(states, "_MOST", 1)
    np.testing.assert_array_equal(run.forward(*NOTHING, seed=5), whole)


def test_with_and_without_numba_samples_are_the_same(monkeypatch):
    pytest.importorskip("numba")
    c = Circuit(4)
    c.extend(op for op in chain(4).operations if op.gate != "readout_error")
    c.kraus(Channel.depolarizing(0.2, 2).operators, 3, 1)
    with_it = compiled(c, Expectation(("Z", "Y")), shots=300).forward(*NOTHING, seed=5)
    monkeypatch.setattr(trajectories, "_has_numba", lambda: False)
    np.testing.assert_array_equal(compiled(c, Expectation(("Z", "Y")), shots=300).forward(*NOTHING, seed=5), with_it)


def test_equal_histories_are_computed_once():
    """Without channels there is one, whatever the number of shots."""
    c = Circuit(2)
    c.h(0), c.cnot(0, 1)
    program = compiled(c, Probabilities())._program
    ((found, history, numbers),) = states.final_states(
        program,
        np.eye(1, 4, dtype=complex)[0],
        np.array([np.array([[1, 1], [1, -1]]) / np.sqrt(2)]),
        np.zeros((500, 0)),
        arrays,
    )
    assert found.shape == (1, 4)
    assert (history == 0).all()
    assert len(numbers) == 500


def test_gradients_by_the_parameter_shift_rule():
    c = Circuit(2)
    w = c.weights(2)
    c.ry(w[0], 0), c.amplitude_damping(0.2, 0), c.cnot(0, 1), c.rx(w[1], 1), c.bit_flip(0.1, 1)
    exact, sampled = (
        QuantumLayer(c, Expectation(), seed=0, **options) for options in ({}, {"shots": 20_000, "fallback": None})
    )
    assert sampled.backend_name == "trajectories"
    exact.theta = sampled.theta = np.array([0.5, -0.8])
    x, cotangents = np.zeros((1, 0)), np.ones((1, 2))
    found, wanted = sampled.vjp(x, cotangents)[0], exact.vjp(x, cotangents)[0]
    # Two circuits with two outputs each, halved; a standard error of at most 1/√shots each.
    assert (np.abs(found - wanted) < SIGMAS / np.sqrt(20_000)).all()


def test_a_noise_model():
    model = NoiseModel().after("*", Channel.bit_flip(0.25)).readout_error(0.1, 0.1)
    c = Circuit(1)
    c.x(0)
    values, report = compiled(c, Expectation(), noise_model=model).value_and_report(*NOTHING, seed=0)
    assert abs(values[0, 0] + 0.5 * 0.8) < SIGMAS * report.std_error[0, 0]


def test_what_is_refused(monkeypatch):
    with pytest.raises(CapabilityError, match=r'can only sample\. Use shots=.*backend="density"'):
        get_backend("trajectories").compile(Circuit(1), Expectation())
    with pytest.raises(CapabilityError, match="can only sample"):
        QuantumLayer(chain(2), Expectation(), backend="trajectories")
    with pytest.raises(OptionError, match="noise_model"):
        get_backend("trajectories", noise_model="much")
    monkeypatch.setattr("qstore_core.engines.memory.available_memory", lambda: 1 << 20)
    with pytest.raises(MemoryLimitError, match="a state of 24 qubits"):
        compiled(Circuit(24), Expectation())


KIT = (
    "backend: parts",
    "noise: channels",
    "shots: seeds",
    "shots: standard errors",
    "shots: rows",
    "values: amplitudes",
)


@pytest.mark.parametrize("check", [c for c in conformance_checks("trajectories") if str(c) in KIT], ids=str)
def test_the_conformance_kit(check):
    check()
