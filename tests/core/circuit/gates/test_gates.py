"""The gate table: every entry's matrix, decomposition and shift rule agree with each other and with the textbook."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from qstore_core.circuit.circuit import Circuit
from qstore_core.circuit.gates.table import GATES, SHIFT_RULES, Cnot, gate
from qstore_core.errors import SpecError
from tests.support.reference import PAULI, embed
from tests.support.strategies import vectors
from tests.support.tolerances import EXACT, MATRIX

by_name = pytest.mark.parametrize("name", sorted(GATES))
parameterised = pytest.mark.parametrize("name", sorted(name for name, entry in GATES.items() if entry.n_params))
CNOT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])


def turn(axis, angle):
    """exp(-i angle/2 axis·σ)."""
    sigma = sum(a * PAULI[letter] for a, letter in zip(axis, "XYZ", strict=True))
    return math.cos(angle / 2) * np.eye(2) - 1j * math.sin(angle / 2) * sigma


def multiplied_out(entry, params):
    out = np.eye(1 << entry.n_qubits, dtype=complex)
    for step in entry.steps:
        if isinstance(step, Cnot):
            out = embed(CNOT, (step.control, step.target), entry.n_qubits) @ out
        else:
            angle = step.constant + sum(c * p for c, p in zip(step.coefficients, params, strict=False))
            out = embed(turn(step.axis, angle), (step.qubit,), entry.n_qubits) @ out
    return out


@by_name
@given(params=vectors(3))
def test_the_decomposition_is_the_matrix_up_to_a_global_phase(name, params):
    entry = GATES[name]
    params = params[: entry.n_params]
    matrix, product = entry.matrix(*params), multiplied_out(entry, params)
    phase = np.vdot(product, matrix) / len(matrix)
    assert abs(abs(phase) - 1) < MATRIX
    np.testing.assert_allclose(phase * product, matrix, rtol=0, atol=MATRIX)


@by_name
@given(params=vectors(3))
def test_matrices_are_unitary_and_of_the_stated_size(name, params):
    entry = GATES[name]
    matrix = entry.matrix(*params[: entry.n_params])
    assert matrix.shape == (1 << entry.n_qubits,) * 2
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(len(matrix)), rtol=0, atol=MATRIX)


@by_name
def test_entries_are_complete(name):
    entry = GATES[name]
    assert entry.name == name
    assert entry.help.endswith(".")
    assert (entry.shift in SHIFT_RULES) == (entry.n_params > 0)
    for step in entry.steps:
        qubits = (step.control, step.target) if isinstance(step, Cnot) else (step.qubit,)
        assert all(0 <= q < entry.n_qubits for q in qubits)
        if not isinstance(step, Cnot):
            assert math.isclose(np.linalg.norm(step.axis), 1.0)
            assert len(step.coefficients) <= entry.n_params


@parameterised
@given(params=vectors(3))
def test_the_shift_rule_is_the_derivative(name, params):
    """For a random observable O and state ψ, against the derivative of the matrix itself (a complex step apart)."""
    entry = GATES[name]
    params = params[: entry.n_params]
    rng = np.random.default_rng(7)
    size = 1 << entry.n_qubits
    psi = rng.normal(size=size) + 1j * rng.normal(size=size)
    psi /= np.linalg.norm(psi)
    half = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
    observable = half + half.conj().T

    def expectation(values):
        out = entry.matrix(*values) @ psi
        return np.vdot(out, observable @ out).real

    for k in range(entry.n_params):
        unit = np.eye(entry.n_params)[k]
        shifted = sum(c * expectation(params + shift * unit) for shift, c in SHIFT_RULES[entry.shift])
        # Expectation values are trigonometric polynomials of frequencies 1/2 and 1, so this difference is exact to h^6.
        h = 1e-2
        stencil = ((1, 45), (-1, -45), (2, -9), (-2, 9), (3, 1), (-3, -1))
        difference = sum(c * expectation(params + j * h * unit) for j, c in stencil) / (60 * h)
        assert abs(shifted - difference) < 1e-10


def test_the_textbook_matrices():
    s = math.sqrt(0.5)
    np.testing.assert_allclose(GATES["h"].matrix(), [[s, s], [s, -s]], atol=MATRIX)
    np.testing.assert_allclose(GATES["s"].matrix(), np.diag([1, 1j]), atol=MATRIX)
    np.testing.assert_allclose(GATES["t"].matrix() @ GATES["t"].matrix(), GATES["s"].matrix(), atol=MATRIX)
    np.testing.assert_allclose(GATES["sdg"].matrix() @ GATES["s"].matrix(), np.eye(2), atol=MATRIX)
    np.testing.assert_allclose(GATES["tdg"].matrix() @ GATES["t"].matrix(), np.eye(2), atol=MATRIX)
    np.testing.assert_allclose(GATES["sx"].matrix() @ GATES["sx"].matrix(), PAULI["X"], atol=MATRIX)
    np.testing.assert_array_equal(GATES["cnot"].matrix(), CNOT)
    np.testing.assert_array_equal(GATES["swap"].matrix() @ [0, 1, 2, 3], [0, 2, 1, 3])
    np.testing.assert_array_equal(GATES["ccx"].matrix() @ np.arange(8), [0, 1, 2, 3, 4, 5, 7, 6])
    np.testing.assert_array_equal(GATES["cswap"].matrix() @ np.arange(8), [0, 1, 2, 3, 4, 6, 5, 7])


@pytest.mark.parametrize(("name", "axis"), [("rx", (1, 0, 0)), ("ry", (0, 1, 0)), ("rz", (0, 0, 1))])
def test_rotations_are_half_angle_exponentials(name, axis):
    """R_P(θ) = exp(-iθP/2), by its power series."""
    generator = -0.5j * 0.7 * sum(a * PAULI[letter] for a, letter in zip(axis, "XYZ", strict=True))
    series, term = np.zeros((2, 2), complex), np.eye(2, dtype=complex)
    for k in range(1, 30):
        series += term
        term = term @ generator / k
    np.testing.assert_allclose(GATES[name].matrix(0.7), series, rtol=0, atol=MATRIX)


@given(params=vectors(3))
def test_rot_is_rz_then_ry_then_rz(params):
    phi, theta, omega = params
    product = GATES["rz"].matrix(omega) @ GATES["ry"].matrix(theta) @ GATES["rz"].matrix(phi)
    np.testing.assert_allclose(GATES["rot"].matrix(phi, theta, omega), product, rtol=0, atol=EXACT)


@by_name
def test_every_gate_is_a_method_of_circuit(name):
    entry = GATES[name]
    circuit = Circuit(3)
    getattr(circuit, name)(*[0.1 * (k + 1) for k in range(entry.n_params)], *range(entry.n_qubits))
    (operation,) = circuit.operations
    assert operation.gate == name
    assert operation.qubits == tuple(range(entry.n_qubits))
    assert [a.constant for a in operation.params] == pytest.approx([0.1 * (k + 1) for k in range(entry.n_params)])


@pytest.mark.parametrize(
    ("alias", "name"),
    [("cx", "cnot"), ("toffoli", "ccx"), ("phase", "p"), ("I", "id"), ("Hadamard", "h")],
)
def test_aliases_and_capitals(alias, name):
    assert gate(alias).name == name


def test_unknown_gates_name_the_nearest():
    with pytest.raises(SpecError, match=r"no gate named 'cnto'.*Did you mean 'cnot'\?"):
        gate("cnto")
    with pytest.raises(SpecError, match="no gate named 3"):
        gate(3)
