"""Circuits as text."""

from __future__ import annotations

import pytest
from hypothesis import given

from qstore_core import Circuit, QuantumEncoder, QuantumPooling
from qstore_core.circuit.drawing import columns, draw
from qstore_core.circuit.gates.table import GATES
from tests.support.strategies import circuits


def test_the_default_ansatz():
    c = Circuit(3, amplitudes=True)
    w = c.weights(3)
    for q in range(3):
        c.ry(w[q], q)
    c.cnot(0, 1)
    c.cnot(0, 2)
    c.cnot(1, 2)
    assert draw(c).splitlines() == [
        "0: ψ(x)─RY(w0)──●──●────",
        "1: ψ(x)─RY(w1)──X──│──●─",
        "2: ψ(x)─RY(w2)─────X──X─",
    ]


@given(circuits(max_qubits=5))
def test_one_line_per_qubit_all_equally_long(circuit):
    lines = draw(circuit, width=None).splitlines()
    assert len(lines) == circuit.n_qubits
    assert len({len(line) for line in lines}) == 1
    assert [line.split(":")[0].strip() for line in lines] == [str(q) for q in range(circuit.n_qubits)]


@given(circuits(max_qubits=5))
def test_columns_keep_the_order_on_every_qubit(circuit):
    drawn = [op for column in columns(circuit) for op in column]
    assert sorted(map(str, drawn)) == sorted(map(str, circuit.operations))
    for qubit in range(circuit.n_qubits):
        on_qubit = [op for op in circuit.operations if qubit in op.qubits]
        assert [op for op in drawn if qubit in op.qubits] == on_qubit
    for column in columns(circuit):
        crossed = [q for op in column for q in range(min(op.qubits), max(op.qubits) + 1)]
        assert len(crossed) == len(set(crossed))


@pytest.mark.parametrize("name", sorted(GATES))
def test_every_gate_has_its_label(name):
    entry = GATES[name]
    c = Circuit(entry.n_qubits)
    c.append(name, range(entry.n_qubits), c.weights(entry.n_params))
    text = draw(c)
    controls = len(name) - len(name.lstrip("c")) if name not in ("cnot", "cswap") else 1
    assert text.count("●") == (2 if name in ("ccx", "ccz") else controls)
    last = text.splitlines()[-1]
    if name in ("cnot", "ccx"):
        assert "─X─" in last
    elif not controls:
        assert name.upper() in last
    for k in range(entry.n_params):
        assert f"w{k}" in last


def test_layers_draw_themselves():
    text = QuantumPooling(4, depth=1).draw()
    assert len(text.splitlines()) == 4
    assert text.count("RY(") == 4 + 2
    assert "ψ(x)" in QuantumEncoder(2).draw()


def test_two_digit_qubits_are_aligned():
    lines = draw(Circuit(11)).splitlines()
    assert lines[0].startswith(" 0: ")
    assert lines[10].startswith("10: ")


def test_a_long_circuit_goes_on_below():
    layer = QuantumPooling(6, depth=3)
    whole, folded = layer.draw(width=None), layer.draw(width=80)
    blocks = folded.split("\n\n")
    assert len(blocks) > 2
    for block in blocks:
        lines = block.splitlines()
        assert len(lines) == 6
        assert max(map(len, lines)) <= 80
        assert [line[:3] for line in lines] == [f"{q}: " for q in range(6)]
    rows = ["".join(block.splitlines()[q][3:] for block in blocks) for q in range(6)]
    assert rows == [line[3:] for line in whole.splitlines()]
    assert layer.circuit.draw() == layer.draw()


def test_a_gate_wider_than_the_width_stands_alone():
    c = Circuit(1)
    x, w = c.inputs(3), c.weights(1)
    for _ in range(2):
        c.ry(x[0] * x[1] + x[2] - 2.5 * w[0], 0)
    assert len(draw(c, width=10).split("\n\n")) == 2
