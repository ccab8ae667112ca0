"""OpenQASM in and out: round trips keep values, and what cannot be said is refused by name and position."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import Circuit, Expectation, Pauli, Probabilities, QuantumLayer, QuantumReadout, SpecError
from qstore_core.circuit.gates.table import GATES
from tests.support import reference
from tests.support.strategies import circuits, points
from tests.support.tolerances import EXACT, EXACT_GRADIENT, allow

qiskit = pytest.importorskip("qiskit")
from qstore_core.interchange.openqasm import from_openqasm, to_openqasm  # noqa: E402 - after the library is there

needs_importer = pytest.mark.skipif(
    importlib.util.find_spec("qiskit_qasm3_import") is None, reason="qiskit-qasm3-import is not installed"
)
BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0], q[1]; measure q -> c;'


def same_state(one, two, theta, row):
    overlap = np.vdot(reference.state(one, theta, row), reference.state(two, theta, row))
    assert abs(abs(overlap) - 1) < EXACT


@settings(max_examples=30)
@given(circuits(amplitudes=False, max_qubits=3, max_inputs=0, max_weights=0))
def test_openqasm_2_round_trip(circuit):
    same_state(from_openqasm(to_openqasm(circuit, version=2)).circuit, circuit, [], [])


@needs_importer
@settings(max_examples=15)
@given(st.data())
def test_openqasm_3_round_trip_keeps_values_and_gradients(data):
    circuit = data.draw(circuits(amplitudes=False, max_qubits=3, max_gates=6))
    theta, x = data.draw(points(circuit))
    layer = QuantumLayer(circuit, Expectation(("Z", "X")), backend="statevector")
    text, names = layer.to_openqasm(), [f"x{k}" for k in range(circuit.n_inputs)]
    again = QuantumLayer.from_openqasm(text, layer.spec.measurement, inputs=names, backend="statevector")
    layer.theta = again.theta = theta
    np.testing.assert_allclose(again(x), layer(x), rtol=0, atol=EXACT)
    cotangents = np.random.default_rng(0).normal(size=(len(x), layer.output_dim))
    for ours, theirs in zip(layer.vjp(x, cotangents), again.vjp(x, cotangents), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=allow(ours, EXACT_GRADIENT))


@needs_importer
def test_parameters_are_inputs_or_weights():
    text = """OPENQASM 3.0; include "stdgates.inc"; // input float[64] c;
    input float[64] b; input float[64] a; input angle[32] unused; qubit[1] q;
    ry(2*a) q[0]; rz(a*b + 1) q[0]; rx(b) q[0];"""
    circuit = from_openqasm(text, inputs=["b"])  # wherever declarations stand
    assert [str(op) for op in circuit.circuit.operations] == ["ry(2*w0) 0", "rz(1 + w0*x0) 0", "rx(x0) 0"]
    assert (circuit.circuit.n_inputs, circuit.circuit.n_weights) == (1, 2)


@needs_importer
def test_the_version_is_found_behind_a_long_licence_and_without_a_version_the_words_tell():
    three, two = 'include "stdgates.inc"; qubit[2] q; h q;', 'include "qelib1.inc"; qreg q[2]; h q;'
    heads = ("//" + "y" * 2000 + "\n", "/*" + "x" * 2000 + "*/", "\ufeff", "")
    programs = [head + version + three for head in heads for version in ("", "OPENQASM 3.0;")]
    programs += [head + version + two for head in heads[::2] for version in ("", "OPENQASM 2.0;")]  # it has no /* */
    for program in programs:
        assert [str(op) for op in from_openqasm(program).circuit.operations] == ["h 0", "h 1"], program[:40]


@needs_importer
def test_loops_are_unrolled():
    text = """OPENQASM 3.0; include "stdgates.inc"; input float[64] a; qubit[2] q;
    for int i in [1:2] { rx(i*a) q[0]; for int j in {3, 5} { ry(i*j) q[1]; } cx q[0], q[1]; }"""
    assert [str(op) for op in from_openqasm(text).circuit.operations] == [
        "rx(w0) 0", "ry(3) 1", "ry(5) 1", "cnot 0 1", "rx(2*w0) 0", "ry(6) 1", "ry(10) 1", "cnot 0 1",
    ]  # fmt: skip
    with pytest.raises(SpecError, match=r"for_loop.* would have 1000000001 gates"):
        from_openqasm('OPENQASM 3.0; include "stdgates.inc"; qubit q; for int i in [0:1000000000] { h q; }')


@needs_importer
def test_slots_keep_their_order_beyond_ten():
    circuit = Circuit(1)
    for w in circuit.weights(12)[::-1]:
        circuit.ry(w, 0)
        circuit.rx(w, 0)
    assert from_openqasm(circuit.to_openqasm()).circuit == circuit


@pytest.mark.parametrize("name", sorted(GATES))
def test_every_gate_goes_there_and_back(name):
    entry = GATES[name]
    circuit = Circuit(3)
    for q in range(3):
        circuit.ry(0.3 + q, q)
    circuit.append(name, range(entry.n_qubits), [0.2 * (k + 1) for k in range(entry.n_params)])
    same_state(from_openqasm(to_openqasm(circuit, version=2)).circuit, circuit, [], [])


def test_gates_of_any_size_go_there_and_back():
    circuit = Circuit(4)
    circuit.controlled("ry", [0, 1], [2], [0.4], values=[1, 0]), circuit.pauli_rot(0.3, "XYZ", 3, 1, 0), circuit.qft()
    same_state(from_openqasm(to_openqasm(circuit, version=2)).circuit, circuit, [], [])


def test_measurements_at_the_end_are_probabilities():
    assert [str(op) for op in from_openqasm(BELL).circuit.operations] == ["h 0", "cnot 0 1"]
    layer = QuantumLayer.from_openqasm(BELL.replace("h q[0]; cx q[0], q[1]", "x q[0]"))
    np.testing.assert_array_equal(layer(np.zeros((1, 0))).argmax(), 1)  # bit 0 is the least significant one
    assert QuantumLayer.from_openqasm(BELL, [Pauli("ZZ")])(np.zeros((1, 0))) == pytest.approx(1)


@needs_importer
def test_probabilities_go_there_and_back():
    layer = QuantumReadout(3, encoding="angle", n_classes=8, seed=0)
    names = [f"x{k}" for k in range(3)]
    again = QuantumLayer.from_openqasm(layer.to_openqasm(), inputs=names, init=layer.theta)
    assert again.spec.measurement == Probabilities((0, 1, 2))
    np.testing.assert_allclose(again(np.ones((1, 3))), layer(np.ones((1, 3))), atol=EXACT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "no valid OpenQASM"), (3, "is text"), ("", "no valid|at least 1"),
        (BELL.replace("h q[0];", "h q[0]; reset q[0];"), "instruction 1 is 'reset'"),
        (BELL.replace("h q[0];", "measure q[0] -> c[0]; h q[0];"), "instruction 1 is 'h' on qubit 0, after it was mea"),
        (BELL.replace("cx q[0], q[1];", "opaque magic a; magic q[0];"), "magic"),
        (BELL.replace("qreg q[2]", "qreg q[1000000000]"), "declares 1000000000 qubits; the limit is 2048"),
        (BELL.replace("creg c[2]", "creg c[0xFFFFFFFF]"), "declares 4294967295 bits"),
        ("OPENQASM 3.0; qubit[1_000_000] q;", "declares 1000000 qubits"),
        ("OPENQASM 3.0; qubit[9*500*600] q;", "declares 2700000 qubits"),
        (BELL.replace("qreg", "qreg r[2000]; qreg s[2000]; qreg"), "declares 4002 qubits"),
        (BELL.replace("qelib1.inc", "/etc/hostname"), "includes '/etc/hostname': no files are read"),
        ('OPENQASM 3.0; include "./gates.inc"; qubit q;', "includes './gates.inc'"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_named(text, message):
    with pytest.raises(SpecError, match=message):
        from_openqasm(text)


@pytest.mark.parametrize("depth", [45, 2_999])
def test_gates_in_gates_are_unrolled_up_to_the_limit_and_named_shortly(depth, monkeypatch):
    monkeypatch.setattr("qstore_core.circuit.circuit.MAX_OPERATIONS", 1_000)
    gates = "gate a0 x { h x; h x; }\n" + "".join(
        f"gate a{k} x {{ a{k - 1} x; {f'a{k - 1} x;' if depth == 45 else ''} }}\n" for k in range(1, depth + 1)
    )
    with pytest.raises(SpecError, match=r"gates|decomposed") as refused:
        from_openqasm(f'OPENQASM 2.0;\ninclude "qelib1.inc";\n{gates}qreg q[1];\na{depth} q[0];\n')
    assert len(str(refused.value)) < 300


def test_what_cannot_be_written_is_named():
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0], 0)
    for attempt, message in (
        (lambda: to_openqasm(circuit, version=2), "no parameters"),
        (lambda: to_openqasm(circuit, version=4), "2 and 3"),
        (lambda: to_openqasm(Circuit(1, amplitudes=True)), "start state"),
        (lambda: from_openqasm(BELL, inputs=["w1"]), "no parameter 'w1'"),
    ):
        with pytest.raises(SpecError, match=message):
            attempt()


@pytest.mark.parametrize("name", ["to_openqasm", "to_qiskit", "to_pennylane"])
def test_a_circuit_is_written_in_a_process_that_has_read_none(name):
    code = f"from qstore_core import Circuit; print(Circuit(1).{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == name
