"""Measured on the way, reset, diagonal gates, amplitudes of some qubits: by hand, against matrices, PennyLane."""

import numpy as np
import pytest

from qstore_core import (
    Amplitude,
    Circuit,
    Expectation,
    LayerSpec,
    Pauli,
    Probabilities,
    QuantumFeatureExtractor,
    QuantumKernel,
    QuantumLayer,
    ShapeError,
    SpecError,
)
from tests.support.tolerances import EXACT, EXACT_GRADIENT, FINITE_DIFFERENCE, VALUE


def values(circuit, measurement, x=None):
    return QuantumLayer(circuit, measurement)(np.zeros((1, 0)) if x is None else x)


def test_a_measured_qubit_has_no_coherence_left():
    """H, measured, H: ⟨Z⟩ = 0 instead of 1."""
    c = Circuit(2)
    c.h(0), c.measure(0, 1), c.h(0)
    np.testing.assert_allclose(values(c, Expectation("Z", qubits=[0])), [[0.0]], rtol=0, atol=EXACT)


def test_gates_depend_on_outcomes_as_in_pennylane():
    qml = pytest.importorskip("pennylane")
    c = Circuit(3)
    (x,) = c.inputs(1)
    c.ry(x, 0), c.cnot(0, 1), c.ry(0.3, 0), c.measure(0, 2)
    c.controlled("rx", [2], [1], [0.7])
    c.ry(0.2, 0)

    @qml.qnode(qml.device("default.qubit"))
    def theirs(value):
        qml.RY(value, 0), qml.CNOT([0, 1]), qml.RY(0.3, 0)
        outcome = qml.measure(0)
        qml.cond(outcome, qml.RX)(0.7, wires=1)
        qml.RY(0.2, 0)
        return [qml.expval(qml.Z(0)), qml.expval(qml.Y(1))]

    got = values(c, Expectation(observables=(Pauli("ZII"), Pauli("IYI"))), np.array([[0.9]]))
    np.testing.assert_allclose(got, [theirs(0.9)], rtol=0, atol=VALUE["float64"])


def test_a_reset_qubit_is_used_again_while_its_partner_stays_mixed():
    c = Circuit(3)
    c.ry(0.8, 0), c.cnot(0, 1), c.reset(0, 2), c.ry(0.5, 0)
    got = values(c, Expectation(observables=(Pauli("ZII"), Pauli("IZI"), Pauli("IXI"))))
    np.testing.assert_allclose(got, [[np.cos(0.5), np.cos(0.8), 0.0]], rtol=0, atol=EXACT)


def test_only_a_fresh_qubit_takes_an_outcome():
    c = Circuit(2)
    c.h(1)
    for call in (c.measure, c.reset):
        with pytest.raises(SpecError, match="h 1 has acted on it"):
            call(0, 1)
        with pytest.raises(SpecError, match="differ"):
            call(0, 0)
    with pytest.raises(SpecError, match="start state is an input"):
        Circuit(2, amplitudes=True).measure(0, 1)
    assert len(c.operations) == 1


@pytest.mark.parametrize("qubits", [(0,), (1, 0), (2, 0, 1)])
def test_a_diagonal_gate_multiplies_basis_states(qubits):
    phases = np.random.default_rng(0).normal(size=1 << len(qubits))
    c = Circuit(3)
    for q in range(3):
        c.ry(0.4 + q, q)
    before = QuantumLayer(c.copy(), Probabilities())(np.zeros((1, 0)))[0]
    c.diagonal(list(phases), *qubits)
    index = np.arange(8)
    of_qubits = sum((index >> (2 - q) & 1) << (len(qubits) - 1 - k) for k, q in enumerate(qubits))
    state = np.sqrt(before) * np.exp(1j * phases[of_qubits])
    for word in ("XII", "IYI", "XYX"):
        matrix = np.eye(1)
        for letter in word:
            pauli = {"I": np.eye(2), "X": [[0, 1], [1, 0]], "Y": [[0, -1j], [1j, 0]]}[letter]
            matrix = np.kron(matrix, pauli)
        expected = (state.conj() @ matrix @ state).real
        np.testing.assert_allclose(values(c, Pauli(word)), [[expected]], rtol=0, atol=EXACT)


def test_a_diagonal_gate_is_checked():
    c = Circuit(9)
    for angles, qubits, match in (
        ([0.1], (0,), "2 angles"),
        ([0.0] * 512, (), "1 to 8"),
        ([0.1] * 4, (0, 0), "differ"),
    ):
        with pytest.raises(SpecError, match=match):
            c.diagonal(angles, *qubits)
    assert not c.operations


def test_complex_amplitudes_are_magnitudes_and_phases_with_gradients():
    rng, h = np.random.default_rng(0), 1e-6
    c = Circuit(2, amplitudes=True)
    c.diagonal(c.inputs(4))
    c.h(0), c.rx(0.3, 1), c.cnot(0, 1)
    layer = QuantumLayer(c, Expectation(("X", "Z")))
    amplitudes = rng.normal(size=4) + 1j * rng.normal(size=4)
    x = np.concatenate([np.abs(amplitudes), np.angle(amplitudes)])[None]
    state = amplitudes / np.linalg.norm(amplitudes)
    hadamard = np.kron([[1, 1], [1, -1]], np.eye(2)) / np.sqrt(2)
    rx = np.kron(np.eye(2), [[np.cos(0.15), -1j * np.sin(0.15)], [-1j * np.sin(0.15), np.cos(0.15)]])
    state = (rx @ hadamard @ state)[[0, 1, 3, 2]]
    z = np.abs(state) ** 2 @ np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    flips = [(state.conj() @ state[[2, 3, 0, 1]]).real, (state.conj() @ state[[1, 0, 3, 2]]).real]
    np.testing.assert_allclose(layer(x), [[*flips, *z]], rtol=0, atol=EXACT)
    along, cotangents = rng.normal(size=x.shape), rng.normal(size=(1, 4))
    slope = ((layer(x + h * along) - layer(x - h * along)) * cotangents).sum() / (2 * h)
    assert (layer.vjp(x, cotangents)[1] * along).sum() == pytest.approx(slope, abs=FINITE_DIFFERENCE)


@pytest.mark.parametrize("backend", ["statevector", "numba"])
@pytest.mark.parametrize("qubits", [(0,), (2, 0), (3, 1), (0, 1, 2, 3), (2, 3)])
def test_amplitudes_of_some_qubits_are_a_product_with_zeros(qubits, backend):
    rng, k = np.random.default_rng(0), len(qubits)
    arguments = {"depth": 1, "measurement_bases": ("Z", "X"), "init": "uniform", "seed": 0, "backend": backend}
    some = QuantumFeatureExtractor(4, encoding=Amplitude(qubits), **arguments)
    every = QuantumFeatureExtractor(4, **arguments)
    x, cotangents = rng.normal(size=(3, 1 << k)), rng.normal(size=(3, 8))
    index = np.array([sum((p >> (k - 1 - j) & 1) << (3 - q) for j, q in enumerate(qubits)) for p in range(1 << k)])
    padded = np.zeros((3, 16))
    padded[:, index] = x
    np.testing.assert_allclose(some(x), every(padded), rtol=0, atol=EXACT)
    (theta, d_x), (own_theta, own_x) = every.vjp(padded, cotangents), some.vjp(x, cotangents)
    np.testing.assert_allclose(own_theta, theta, rtol=0, atol=EXACT_GRADIENT)
    np.testing.assert_allclose(own_x, d_x[:, index], rtol=0, atol=EXACT_GRADIENT)
    with pytest.raises(ShapeError, match=f"at most {1 << k} features"):
        some(np.ones((1, 17)))


def test_amplitudes_of_some_qubits_are_saved_checked_and_make_kernels():
    spec = QuantumFeatureExtractor(3, encoding=Amplitude([2, 0])).spec
    assert LayerSpec.from_dict(spec.to_dict()) == spec
    assert spec.n_features == 4
    for qubits in ((), (0, 0), (-1,), ("a",)):
        with pytest.raises(SpecError, match="amplitudes"):
            Amplitude(qubits)
    with pytest.raises(SpecError, match="at most 1"):
        QuantumFeatureExtractor(2, encoding=Amplitude((0, 3)))
    kernel, x = QuantumKernel(Amplitude((1,)), n_qubits=2), np.array([[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(kernel(x), [[1, 0.5], [0.5, 1]], rtol=0, atol=EXACT)
    with pytest.raises(ShapeError, match="at most 2"):
        kernel(np.ones((1, 3)))
