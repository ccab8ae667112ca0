"""OpenQASM in and out: round trips keep the unitary, and what cannot be said is refused by name and position."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import Circuit, SpecError
from qstore_core.circuit.gates import GATES
from tests import reference
from tests.strategies import circuits, points
from tests.tolerances import EXACT

qiskit = pytest.importorskip("qiskit")
from qstore_core.interchange.openqasm import (  # noqa: E402 - after the library is known to be there
    from_openqasm,
    from_qiskit_circuit,
    to_openqasm,
    to_qiskit_circuit,
)

needs_importer = pytest.mark.skipif(
    importlib.util.find_spec("qiskit_qasm3_import") is None, reason="qiskit-qasm3-import is not installed"
)
BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0], q[1]; measure q -> c;'


def same_state(one, two, theta, row):
    overlap = np.vdot(reference.state(one, theta, row), reference.state(two, theta, row))
    assert abs(abs(overlap) - 1) < EXACT


@settings(max_examples=40)
@given(st.data())
def test_qiskit_round_trip(data):
    circuit = data.draw(circuits(amplitudes=False, max_qubits=3))
    theta, x = data.draw(points(circuit, max_rows=1))
    program = to_qiskit_circuit(circuit)
    used = {f"{kind}{k}" for op in circuit.operations for a in op.params for kind, k in a.slots}
    names = sorted((n for n in used if n[0] == "x"), key=lambda n: int(n[1:]))
    again = from_qiskit_circuit(program, inputs=names)
    weights = [p.name for p in program.parameters if p.name[0] == "w"]
    row = np.array([x[0][int(n[1:])] for n in names])
    angles = np.array([theta[int(n[1:])] for n in weights])
    overlap = np.vdot(reference.state(circuit, theta, x[0]), reference.state(again, angles, row))
    assert abs(abs(overlap) - 1) < EXACT


@settings(max_examples=30)
@given(circuits(amplitudes=False, max_qubits=3, max_inputs=0, max_weights=0))
def test_openqasm_2_round_trip(circuit):
    same_state(from_openqasm(to_openqasm(circuit, version=2)), circuit, [], [])


@needs_importer
@settings(max_examples=20)
@given(st.data())
def test_openqasm_3_round_trip(data):
    circuit = data.draw(circuits(amplitudes=False, max_qubits=3, max_inputs=0, max_weights=0))
    same_state(from_openqasm(to_openqasm(circuit)), circuit, [], [])


@needs_importer
def test_parameters_are_inputs_or_weights():
    text = """OPENQASM 3.0; include "stdgates.inc"; input float[64] a; input float[64] b; qubit[1] q;
    ry(2*a) q[0]; rz(a*b + 1) q[0]; rx(b) q[0];"""
    circuit = from_openqasm(text, inputs=["b"])
    assert [str(op) for op in circuit.operations] == ["ry(2*w0) 0", "rz(1 + w0*x0) 0", "rx(x0) 0"]


@pytest.mark.parametrize("name", sorted(GATES))
def test_every_gate_goes_there_and_back(name):
    entry = GATES[name]
    circuit = Circuit(3)
    for q in range(3):
        circuit.ry(0.3 + q, q)
    circuit.append(name, range(entry.n_qubits), [0.2 * (k + 1) for k in range(entry.n_params)])
    same_state(from_openqasm(to_openqasm(circuit, version=2)), circuit, [], [])


def test_gates_of_any_size_go_there_and_back():
    circuit = Circuit(4)
    circuit.controlled("ry", [0, 1], [2], [0.4], values=[1, 0]), circuit.pauli_rot(0.3, "XYZ", 3, 1, 0), circuit.qft()
    same_state(from_openqasm(to_openqasm(circuit, version=2)), circuit, [], [])


def test_final_measurements_are_left_out():
    assert [str(op) for op in from_openqasm(BELL).operations] == ["h 0", "cnot 0 1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "no valid OpenQASM"), (3, "is text"), ("", "no valid|at least 1"),
        (BELL.replace("h q[0];", "reset q[0];"), "instruction 0 is 'reset'"),
        (BELL.replace("h q[0];", "measure q[0] -> c[0]; h q[0];"), "instruction 0 is 'measure'"),
        (BELL.replace("cx q[0], q[1];", "opaque magic a; magic q[0];"), "magic"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_named(text, message):
    with pytest.raises(SpecError, match=message):
        from_openqasm(text)


def test_what_cannot_be_written_is_named():
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0], 0)
    for attempt, message in (
        (lambda: to_openqasm(circuit, version=2), "no parameters"),
        (lambda: to_openqasm(circuit, version=4), "2 and 3"),
        (lambda: to_openqasm(Circuit(1, amplitudes=True)), "start state"),
        (lambda: from_qiskit_circuit(to_qiskit_circuit(circuit), inputs=["w1"]), "no parameter 'w1'. Known: w0"),
    ):
        with pytest.raises(SpecError, match=message):
            attempt()


def test_an_angle_that_is_no_polynomial_is_named():
    from qiskit.circuit import Parameter, QuantumCircuit

    program = QuantumCircuit(1)
    program.ry(Parameter("a").sin(), 0)
    with pytest.raises(SpecError, match=r"instruction 0: angle sin\(a\) is no polynomial"):
        from_qiskit_circuit(program)
