"""Gates of any size and circuits from circuits, against matrices, PennyLane and Qiskit, on every engine."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import Circuit, Expectation, Pauli, QuantumLayer, SpecError
from qstore_core.circuit.gates.table import GATES, gate
from qstore_core.circuit.gates.user import check_numbers
from tests.support import reference
from tests.support.strategies import circuits, points
from tests.support.tolerances import EXACT, EXACT_GRADIENT, FINITE_DIFFERENCE, allow

qml = pytest.importorskip("pennylane")
library = pytest.importorskip("qiskit.circuit.library")

FAMILIES = [
    *(f"controlled_1_{name}" for name in sorted(GATES)),
    "controlled_111_x", "controlled_010_ry", "controlled_00_rot", "controlled_1011_p", "controlled_1_controlled_0_u3",
    "controlled_01_pauli_rot_xy", "pauli_rot_x", "pauli_rot_zxy", "pauli_rot_yyxz",
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_matrix_steps_and_shift_rule_agree(name):
    check_numbers(gate(name))


@pytest.mark.parametrize(
    "name",
    [
        "controlled_2_x", "controlled__x", "controlled_1_nobody", "controlled_1", "pauli_rot_", "pauli_rot_iz",
        "controlled_1111111111_x", "pauli_rot_zzzzzzzzzzz",
    ],
)  # fmt: skip
def test_other_names_are_unknown(name):
    with pytest.raises(SpecError, match="no gate named"):
        gate(name)


def matrix_of(circuit, theta=(), x=()):
    """The unitary of a circuit, column by column."""
    columns = []
    for index in range(1 << circuit.n_qubits):
        psi = np.eye(1 << circuit.n_qubits, dtype=complex)[index]
        for op in circuit.operations:
            psi = reference.apply(GATES[op.gate].matrix(*[a.value(theta, x) for a in op.params]), psi, op.qubits)
        columns.append(psi)
    return np.stack(columns, axis=1)


def same_up_to_phase(one, two):
    phase = np.vdot(two, one) / len(one)
    np.testing.assert_allclose(one, phase * two, rtol=0, atol=EXACT)
    assert abs(abs(phase) - 1) < EXACT


@pytest.mark.parametrize("values", [(1, 1), (0, 1), (0, 0)])
def test_controlled_gates_are_pennylanes(values):
    circuit = Circuit(4)
    circuit.controlled("ry", [3, 0], [1], [0.7], values=values)
    circuit.controlled("u3", [2, 0], [3], [0.3, -0.4, 1.1], values=values)
    circuit.controlled("swap", [2, 1], [3, 0], values=values)

    def theirs():
        qml.ctrl(qml.RY(0.7, 1), [3, 0], values)
        qml.ctrl(qml.U3(0.3, -0.4, 1.1, 3), [2, 0], values)
        qml.ctrl(qml.SWAP([3, 0]), [2, 1], values)

    np.testing.assert_allclose(matrix_of(circuit), qml.matrix(theirs, wire_order=range(4))(), rtol=0, atol=EXACT)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_multi_controlled_gates_are_qiskits(k):
    ours = Circuit(k + 1)
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import Operator

    theirs = QuantumCircuit(k + 1)
    ours.mcx(range(k), k), ours.mcz(range(k), k), ours.mcp(0.7, range(k), k)
    theirs.mcx(list(range(k)), k)
    theirs.append(library.ZGate().control(k, annotated=False), range(k + 1))
    theirs.mcp(0.7, list(range(k)), k)
    np.testing.assert_allclose(matrix_of(ours), Operator(theirs).reverse_qargs().data, rtol=0, atol=EXACT)


@pytest.mark.parametrize("word", ["Z", "XY", "ZIX", "YYX", "IIZ"])
def test_pauli_rotations_are_pennylanes(word):
    circuit = Circuit(3)
    circuit.pauli_rot(0.7, word, *range(len(word))[::-1])
    expected = qml.matrix(qml.PauliRot(0.7, word, wires=range(len(word))[::-1]), wire_order=range(3))
    np.testing.assert_allclose(matrix_of(circuit), expected, rtol=0, atol=EXACT)
    nothing = Circuit(2)
    nothing.pauli_rot(0.3, "II")
    assert nothing.operations == ()


@pytest.mark.parametrize("wires", [(0,), (0, 1), (0, 1, 2, 3), (2, 0, 3)])
def test_qft_is_pennylanes(wires):
    circuit = Circuit(4)
    circuit.qft(*wires)
    expected = qml.matrix(qml.QFT(wires), wire_order=range(4))
    np.testing.assert_allclose(matrix_of(circuit), expected, rtol=0, atol=EXACT)


def haar(size, seed):
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size)))[0]


def nearly(size, step):
    return haar(size, 4) @ np.diag(np.exp(1j * step * np.arange(size))) @ haar(size, 4).conj().T


UNITARIES = {
    "random": lambda size: haar(size, size),
    "real": lambda size: np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0],
    "identity": np.eye,
    "phase": lambda size: 1j * np.eye(size),
    "permutation": lambda size: np.eye(size)[np.random.default_rng(1).permutation(size)],
    "diagonal": lambda size: np.diag(np.exp(1j * np.arange(size) ** 2)),
    "reflection": lambda size: np.eye(size) - 2 / size,
    "fourier": lambda size: np.exp(2j * np.pi * np.outer(range(size), range(size)) / size) / np.sqrt(size),
    "controlled": lambda size: np.block([[np.eye(size // 2), np.zeros((size // 2,) * 2)],
                                         [np.zeros((size // 2,) * 2), haar(size // 2, 3)]]),
    "nearly the identity": lambda size: nearly(size, 1e-9),
    "near the identity": lambda size: nearly(size, 1e-4),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "n"), [*((kind, n) for kind in UNITARIES for n in (1, 2, 3)), ("random", 4)])
def test_any_unitary(kind, n):
    matrix = UNITARIES[kind](1 << n)
    circuit = Circuit(n)
    circuit.unitary(matrix, *range(n))
    same_up_to_phase(matrix_of(circuit), matrix)
    assert len(circuit.operations) <= 3 * 4**n


def test_a_unitary_on_some_qubits():
    matrix = haar(4, 5)
    circuit = Circuit(3)
    circuit.unitary(matrix, 2, 0)
    same_up_to_phase(matrix_of(circuit), reference.embed(matrix, (2, 0), 3))


@pytest.mark.parametrize(
    "matrix", [np.ones((2, 2)), np.eye(4), [[1, 2], [3]], "ab", [[np.nan, 0], [0, 1]], 3, np.eye(2) * 2]
)
def test_what_is_no_unitary(matrix):
    circuit = Circuit(1)
    with pytest.raises(SpecError, match="unitary"):
        circuit.unitary(matrix, 0)
    assert circuit.operations == ()


def large():
    circuit = Circuit(4)
    x, w = circuit.inputs(4), circuit.weights(4)
    for q in range(4):
        circuit.ry(x[q], q)
    circuit.controlled("ry", [0, 3], [1], [w[0] + x[1]], values=[0, 1])
    circuit.pauli_rot(w[1], "XZY", 3, 0, 2)
    circuit.mcp(w[2], [0, 1, 2], 3)
    circuit.controlled("rot", [2], [0], [w[3], x[0], 0.4])
    circuit.mcx([1, 2, 3], 0)
    return circuit


@pytest.mark.parametrize("backend", ["numba", "statevector", "aer", "pennylane:default.qubit"])
@pytest.mark.parametrize("gradient", ["auto", "parameter-shift"])
def test_on_every_backend(backend, gradient):
    layer = QuantumLayer(large(), Expectation(("Z", "X")), backend=backend, gradient=gradient, fallback=None, seed=0,
                         init="uniform")  # fmt: skip
    x = np.random.default_rng(0).uniform(-2, 2, (2, 4))
    simulated = functools.partial(reference.simulate, layer.circuit, layer.spec.measurement)
    np.testing.assert_allclose(layer(x), simulated(layer.theta, x), rtol=0, atol=EXACT_GRADIENT)
    cotangents = np.random.default_rng(1).normal(size=(2, 8))
    wanted = reference.difference_vjp(simulated, cotangents, layer.theta, x)
    for actual, expected in zip(layer.vjp(x, cotangents), wanted, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=allow(expected, FINITE_DIFFERENCE))


def test_drawn_and_saved():
    circuit = large()
    assert Circuit.from_dict(json.loads(json.dumps(circuit.to_dict()))) == circuit
    drawn = QuantumLayer(circuit, Expectation()).draw()
    assert "○" in drawn
    assert "ROT_XZY(w1)" in drawn


@settings(max_examples=60)
@given(st.data())
def test_an_inverse_undoes(data):
    circuit = data.draw(circuits(max_qubits=3, amplitudes=False))
    theta, x = data.draw(points(circuit, max_rows=1))
    both = circuit.compose(circuit.inverse(), inputs=circuit_slots("x", circuit.n_inputs),
                           weights=circuit_slots("w", circuit.n_weights))  # fmt: skip
    assert (both.n_inputs, both.n_weights) == (circuit.n_inputs, circuit.n_weights)
    same_up_to_phase(matrix_of(both, theta, x[0]), np.eye(1 << circuit.n_qubits))


def circuit_slots(kind, count):
    blank = Circuit(1)
    return blank.inputs(count) if kind == "x" else blank.weights(count)


@pytest.mark.parametrize("name", [n for n in FAMILIES if gate(n).n_qubits <= 4])
def test_the_inverse_of_a_gate(name):
    entry = gate(name)
    circuit = Circuit(entry.n_qubits)
    circuit.append(name, range(entry.n_qubits), [0.3 + k for k in range(entry.n_params)])
    same_up_to_phase(matrix_of(circuit.inverse()) @ matrix_of(circuit), np.eye(1 << entry.n_qubits))


@settings(max_examples=40)
@given(st.data())
def test_powers_repeat(data):
    circuit = data.draw(circuits(max_qubits=2, amplitudes=False, max_gates=6))
    theta, x = data.draw(points(circuit, max_rows=1))
    once = matrix_of(circuit, theta, x[0])
    for k in (-2, -1, 0, 1, 3):
        powered = circuit.power(k)
        assert powered.n_weights == circuit.n_weights
        same_up_to_phase(matrix_of(powered, theta, x[0]), np.linalg.matrix_power(once, k))


def test_composition_places_qubits_and_slots():
    first, second = Circuit(3), Circuit(2)
    first.ry(first.weights(1)[0], 0)
    second.cnot(0, 1)
    second.rx(second.inputs(1)[0] * second.weights(1)[0], 1)
    both = first.compose(second, [2, 0])
    assert [str(op) for op in both.operations] == ["ry(w0) 0", "cnot 2 0", "rx(w1*x0) 0"]
    assert (both.n_inputs, both.n_weights) == (1, 2)
    shared = first.compose(second, [2, 0], inputs=[0.5], weights=circuit_slots("w", 1))
    assert [str(op) for op in shared.operations][-1] == "rx(0.5*w0) 0"
    assert (shared.n_inputs, shared.n_weights) == (0, 1)
    assert len(first.operations) == 1


def test_inputs_may_be_functions_of_others():
    circuit = Circuit(2)
    x, w = circuit.inputs(2), circuit.weights(1)
    circuit.ry(2 * x[0] + w[0], 0)
    circuit.rx(x[0] * x[1], 1)
    mapped = circuit.map_inputs(lambda x: [x[0] + 1, x[1] * x[2]], 3)
    assert (mapped.n_inputs, mapped.n_weights) == (3, 1)
    point, theta = np.array([0.3, -0.2, 0.9]), [0.4]
    np.testing.assert_allclose(
        matrix_of(mapped, theta, point), matrix_of(circuit, theta, [1.3, -0.2 * 0.9]), rtol=0, atol=EXACT
    )


@pytest.mark.parametrize(
    "attempt",
    [
        lambda c: c.compose(Circuit(4)), lambda c: c.compose(Circuit(2), [0]), lambda c: c.compose(Circuit(2), [0, 3]),
        lambda c: c.compose(Circuit(2, amplitudes=True)), lambda c: c.compose(Circuit(2), inputs=[1]),
        lambda c: Circuit(1, amplitudes=True).inverse(), lambda c: c.power(10**9), lambda c: c.power(0.5),
        lambda c: c.map_inputs(lambda x: []), lambda c: c.map_inputs(lambda x: ["a"]), lambda c: c.mcx([], 0),
        lambda c: c.mcx([0, 0], 1), lambda c: c.mcx(range(12), 1), lambda c: c.controlled("nobody", [0], [1]),
        lambda c: c.controlled("x", [0], [1], values=[2]), lambda c: c.controlled("x", [0], [1], values=[1, 0]),
        lambda c: c.pauli_rot(0.1, "ZQ", 0, 1), lambda c: c.pauli_rot(0.1, "ZZ", 0), lambda c: c.qft(0, 0),
        lambda c: c.qft(7),
    ],
)  # fmt: skip
def test_what_is_refused_leaves_the_circuit_usable(attempt):
    circuit = Circuit(3)
    circuit.ry(circuit.inputs(1)[0], 0)
    with pytest.raises(SpecError):
        attempt(circuit)
    assert len(circuit.operations) == 1
    circuit.h(0)


def evolution(observable, time):
    """exp(-i H t)."""
    from scipy.linalg import expm

    words = {"I": np.eye(2), "X": [[0, 1], [1, 0]], "Y": [[0, -1j], [1j, 0]], "Z": [[1, 0], [0, -1]]}
    matrix = sum(c * functools.reduce(np.kron, [np.array(words[x]) for x in word]) for word, c in observable.terms)
    return expm(-1j * time * matrix)


ISING = 0.5 * Pauli("ZZI") + 0.7 * Pauli("IZZ") - 0.3 * Pauli("XII") + 0.2 * Pauli("IYX") + 2.0


def trotter_state(**arguments):
    circuit = Circuit(3)
    for q in range(3):
        circuit.ry(0.3 + q, q)
    start = reference.state(circuit, [], [])
    circuit.trotter(**arguments)
    return start, circuit


def test_terms_that_commute_evolve_exactly():
    energy = 0.5 * Pauli("ZZI") + 0.7 * Pauli("IZZ") + Pauli("ZII") + 3
    start, circuit = trotter_state(observable=energy, time=0.8, steps=1)
    exact = evolution(energy, 0.8) @ start
    assert abs(np.vdot(exact, reference.state(circuit, [], []))) == pytest.approx(1, abs=EXACT)


@pytest.mark.parametrize(("order", "power"), [(1, 1), (2, 2)])
def test_the_error_vanishes_with_the_power_of_the_order(order, power):
    errors = []
    for steps in (8, 16):
        start, circuit = trotter_state(observable=ISING, time=1.0, steps=steps, order=order)
        exact, psi = evolution(ISING, 1.0) @ start, reference.state(circuit, [], [])
        phase = np.vdot(psi, exact) / abs(np.vdot(psi, exact))
        errors.append(np.linalg.norm(psi * phase - exact))
    assert errors[1] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2**power, rel=0.1)  # the next order is a tenth at most


def test_a_step_is_pennylane_s():
    start, circuit = trotter_state(observable=ISING - 2.0, time=0.4, steps=2, order=2)
    terms = [
        c * qml.pauli.PauliWord({q: x for q, x in enumerate(w) if x != "I"}).operation() for w, c in ISING.terms[:-1]
    ]
    theirs = qml.matrix(qml.TrotterProduct(qml.sum(*terms), -0.4, n=2, order=2), wire_order=range(3)) @ start
    ours = [abs(np.vdot(theirs, reference.state(circuit, [], [])))]
    circuit = Circuit(3)
    assert ours[0] == pytest.approx(1, abs=EXACT)


def test_time_may_be_a_slot_and_what_does_not_fit_is_named():
    circuit = Circuit(2)
    (w,) = circuit.weights(1)
    circuit.trotter(Pauli("XX") + Pauli("ZI"), w * w, 2, order=2)
    assert [str(op) for op in circuit.operations][:3] == [
        "pauli_rot_xx(0.5*w0*w0) 0 1", "pauli_rot_z(0.5*w0*w0) 0", "pauli_rot_z(0.5*w0*w0) 0",
    ]  # fmt: skip
    before = circuit.to_tuple()
    for arguments, message in (
        ({"observable": Pauli("X")}, "the circuit has 2 qubits, H is on 1"),
        ({"observable": "XX"}, "H is a sum of Pauli"),
        ({"steps": 0}, "steps"),
        ({"order": 3}, "order"),
        ({"steps": 10**5}, "at most"),
        ({"time": "now"}, "a gate angle is a number"),
    ):
        with pytest.raises(SpecError, match=message):
            circuit.trotter(**({"observable": Pauli("XX"), "time": 1.0, "steps": 1} | arguments))
    assert circuit.to_tuple() == before
