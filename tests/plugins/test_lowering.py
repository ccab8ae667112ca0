"""What the plugins share: angle tables, turns, prepared amplitudes, readout of states and of samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qstore_plugins._lowering import amplitude_angles, amplitude_gates, as_rotations

from qstore_core import Circuit, Expectation, Pauli, Probabilities
from qstore_core.circuit.gates.table import GATES
from qstore_core.engines.arrays.angles import Polynomials, gate_angles
from qstore_core.engines.readout import Readout
from tests.support.reference import apply, difference_vjp, simulate, state
from tests.support.strategies import problems
from tests.support.tolerances import EXACT, EXACT_GRADIENT, FINITE_DIFFERENCE, allow


@given(st.integers(1, 6), st.integers(0, 10**6), st.sampled_from((1.0, 0.3, 0.05)))
def test_the_tree_of_rotations_prepares_any_real_state(n, seed, density):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3, 1 << n)) * (rng.uniform(size=(3, 1 << n)) < density)
    rows[~rows.any(axis=1), -1] = -1.0
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    angles = amplitude_angles(rows)
    assert angles.shape == (3, (1 << n) - 1)
    for row, values in zip(rows, angles, strict=True):
        psi, column = np.eye(1, 1 << n, dtype=complex)[0], iter(values)
        for name, qubits in amplitude_gates(n):
            psi = apply(GATES[name].matrix(*([next(column)] if name == "ry" else [])), psi, qubits)
        np.testing.assert_allclose(psi, row, rtol=0, atol=EXACT)


def test_the_tree_has_the_gates_that_theory_says():
    names = [name for name, _ in amplitude_gates(8)]
    assert (names.count("ry"), names.count("cnot")) == (255, 254)


@given(problems(max_gates=8))
def test_angle_tables_have_the_values_and_slopes_of_the_angles(problem):
    x = problem.inputs[:, problem.circuit.n_amplitudes :]
    table = gate_angles(problem.circuit)
    values = table.values(problem.theta, x)
    expected = [[angle.value(problem.theta, row) for angle in table.angles] for row in x]
    np.testing.assert_allclose(values, np.reshape(expected, values.shape), rtol=0, atol=allow(values, EXACT))
    cotangents = np.random.default_rng(0).normal(size=values.shape)
    found = table.vjp(problem.theta, x, cotangents)
    wanted = difference_vjp(lambda t, y: table.values(t, y), cotangents, problem.theta, x)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=allow(b, FINITE_DIFFERENCE))


@given(problems(max_gates=8))
def test_weights_may_differ_from_row_to_row(problem):
    """As one table of as many rows, and as one table per row."""
    x = problem.inputs[:, problem.circuit.n_amplitudes :]
    table = gate_angles(problem.circuit)
    thetas = np.array([problem.theta + k for k in range(len(x))])
    slopes = np.random.default_rng(0).normal(size=(len(x), len(table)))
    d_thetas, d_x = table.vjp(thetas, x, slopes)
    values = table.values(thetas, x)
    assert (d_thetas.shape, d_x.shape) == (thetas.shape, x.shape)
    for k, theta in enumerate(thetas):
        rows = slice(k, k + 1)
        one = table.values(theta, x[rows]), *table.vjp(theta, x[rows], slopes[rows])
        for a, b in zip(one, (values[rows], d_thetas[k], d_x[rows]), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=allow(a, EXACT))


def test_an_empty_table():
    table = Polynomials([])
    assert table.values(np.zeros(2), np.zeros((3, 1))).shape == (3, 0)
    assert [g.shape for g in table.vjp(np.zeros(2), np.zeros((3, 1)), np.zeros((3, 0)))] == [(2,), (3, 1)]


@pytest.mark.parametrize("name", sorted(GATES))
def test_turns_equal_the_gate(name):
    entry = GATES[name]
    whole = Circuit(entry.n_qubits)
    for q in range(entry.n_qubits):
        whole.u3(0.3 + q, 0.7, -0.4, q)
    start = state(whole, [], [])
    one = Circuit(entry.n_qubits)
    one.append(name, range(entry.n_qubits), [0.4, -1.3, 2.2][: entry.n_params])
    psi = start
    for step in as_rotations(one):
        if step.axis is None:
            psi = apply(GATES["cnot"].matrix(), psi, step.qubits)
        else:
            x, y, z = step.axis
            sigma = np.array([[z, x - 1j * y], [x + 1j * y, -z]])
            angle = step.angle.constant
            psi = apply(np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * sigma, psi, step.qubits)
    whole.extend(one.operations)
    assert abs(np.vdot(psi, state(whole, [], []))) == pytest.approx(1.0, abs=EXACT)


@given(problems())
def test_readout_of_states(problem):
    readout = Readout(problem.measurement, problem.circuit.n_qubits)
    states = np.array([state(problem.circuit, problem.theta, row) for row in problem.inputs])
    expected = simulate(problem.circuit, problem.measurement, problem.theta, problem.inputs)
    np.testing.assert_allclose(readout.from_states(states), expected, rtol=0, atol=allow(expected, EXACT))
    cotangents = np.random.default_rng(0).normal(size=expected.shape)
    pulled = np.einsum("bi,bi->b", states.conj(), readout.pull_states(states, cotangents))
    wanted = (expected * cotangents).sum(axis=1)
    np.testing.assert_allclose(pulled, wanted, rtol=0, atol=allow(wanted, EXACT_GRADIENT))


def test_strings_that_fit_together_are_read_together():
    groups = Readout(Expectation(("Z", "X", "Y")), 4).groups
    assert [group.letters for group in groups] == [("Z",) * 4, ("X",) * 4, ("Y",) * 4]
    together = Readout(Expectation(observables=(Pauli("ZZI"), Pauli("IZX"), Pauli("XII"))), 3).groups
    assert [group.letters for group in together] == [("Z", "Z", "X"), ("X",)]
    assert Readout(Expectation(observables=(Pauli("II"),)), 2).groups == ()


def test_means_and_errors_of_samples():
    """Outcomes 00, 01, 11 with counts 2, 1, 1: ⟨ZI⟩ = 1/2, ⟨IZ⟩ = 0, ⟨ZZ⟩ = 1/2, of 4 runs each."""
    bits = np.array([[0, 0], [0, 1], [1, 1]], np.uint8)
    samples = [(bits, np.zeros(3, int), np.array([2.0, 1.0, 1.0]))]
    observables = (Pauli("ZI"), Pauli("IZ"), Pauli("ZZ") + Pauli("ZI") + 3 * Pauli("II"))
    mean, error = Readout(Expectation(observables=observables), 2).from_samples(samples, 1)
    np.testing.assert_allclose(mean, [[0.5, 0.0, 4.0]])
    # Sample variances over 4, of the sum as of one quantity (values 2, 2, 0, 0): the strings are correlated.
    np.testing.assert_allclose(error**2, [[1 / 4, 4 / 3 / 4, 4 / 3 / 4]])
    probabilities = Readout(Probabilities((1, 0)), 2)
    assert probabilities.groups[0].qubits == (1, 0)
    mean, error = probabilities.from_samples(samples, 1)
    np.testing.assert_allclose(mean, [[0.5, 0.25, 0.0, 0.25]])
    np.testing.assert_allclose(error**2, [[1 / 4 / 3, 3 / 16 / 3, 0.0, 3 / 16 / 3]])
