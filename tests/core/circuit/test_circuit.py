"""Circuits as values: built, refused, frozen, compared, written and read."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given

from qstore_core import Circuit, SpecError
from qstore_core.circuit.angles.angle import input_, weight
from tests.support.strategies import circuits


def example():
    circuit = Circuit(2)
    x, w = circuit.inputs(1), circuit.weights(2)
    circuit.ry(x[0], 0)
    circuit.rz(2 * w[0] + 0.5, 1)
    circuit.cnot(0, 1)
    circuit.rx(w[1], 0)
    return circuit


def test_slots_are_numbered_from_zero_over_all_calls():
    circuit = Circuit(1)
    assert circuit.inputs(2) == (input_(0), input_(1))
    assert circuit.weights(1) == (weight(0),)
    assert circuit.inputs(1) == (input_(2),)
    assert circuit.weights(0) == ()
    assert (circuit.n_inputs, circuit.n_weights) == (3, 1)


def test_amplitudes_are_inputs_where_asked_for():
    assert Circuit(3).n_amplitudes == 0
    assert Circuit(3, amplitudes=True).n_amplitudes == 8


def test_operations_in_order():
    assert [str(op) for op in example().operations] == ["ry(x0) 0", "rz(0.5 + 2*w0) 1", "cnot 0 1", "rx(w1) 0"]
    assert str(example()).splitlines()[0] == "Circuit on 2 qubits, 1 input, 2 weights"


def test_numpy_integers_are_qubits():
    circuit = Circuit(np.int64(2))
    circuit.cnot(np.int32(0), np.uint8(1))
    assert circuit.operations[0].qubits == (0, 1)
    assert all(type(q) is int for q in circuit.operations[0].qubits)
    json.dumps(circuit.to_dict())


BAD = {
    "unknown gate": (lambda c: c.append("cnto", (0, 1)), "no gate named 'cnto'.*'cnot'"),
    "unknown method": (lambda c: c.cnto(0, 1), "no gate or attribute 'cnto'.*'cnot'"),
    "too few qubits": (lambda c: c.cnot(0), r"takes 0 angle\(s\), then 2 qubit\(s\)"),
    "too many qubits": (lambda c: c.h(0, 1), r"received 0 angle\(s\) and 2 qubit\(s\)"),
    "angle missing": (lambda c: c.ry(0), r"received 1 angle\(s\) and 0 qubit\(s\)"),
    "angle after qubit": (lambda c: c.ry(0, weight(0)), "qubit .* does not exist"),
    "no such qubit": (lambda c: c.h(2), "qubit 2 does not exist; qubits are 0 to 1"),
    "negative qubit": (lambda c: c.h(-1), "qubit -1 does not exist"),
    "qubit is a bool": (lambda c: c.h(True), "qubit True does not exist"),
    "qubit is a float": (lambda c: c.h(1.0), "qubit 1.0 does not exist"),
    "equal qubits": (lambda c: c.cnot(1, 1), "qubits must differ"),
    "slot of another circuit": (
        lambda c: c.ry(weight(7), 0),
        r"slot w7 does not exist.*circuit\.weights",
    ),
    "input of another circuit": (lambda c: c.ry(input_(7), 0), r"slot x7 does not exist.*circuit\.inputs"),
    "angle is text": (lambda c: c.ry("x", 0), "gate angle"),
    "angle is NaN": (lambda c: c.ry(float("nan"), 0), "finite"),
    "negative count": (lambda c: c.weights(-1), "number of slots"),
    "count is a float": (lambda c: c.inputs(1.5), "number of slots"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_refused_operation_leaves_the_circuit_usable(case):
    attempt, message = BAD[case]
    circuit, untouched = example(), example()
    with pytest.raises((SpecError, AttributeError), match=message):
        attempt(circuit)
    assert circuit == untouched
    circuit.h(0)
    assert circuit.operations[-1].gate == "h"


@pytest.mark.parametrize("n_qubits", [0, -1, 1.0, "2", None, True])
def test_n_qubits_is_a_whole_number_of_at_least_one(n_qubits):
    with pytest.raises(SpecError, match="n_qubits"):
        Circuit(n_qubits)


def test_frozen_after_hash():
    circuit = example()
    hash(circuit)
    for attempt in (lambda: circuit.h(0), lambda: circuit.weights(1), lambda: circuit.inputs(1)):
        with pytest.raises(SpecError, match=r"frozen.*circuit\.copy\(\)"):
            attempt()
    assert circuit == example()


def test_a_copy_of_a_frozen_circuit_is_open():
    circuit = example()
    hash(circuit)
    other = circuit.copy()
    other.h(0)
    assert len(other.operations) == len(circuit.operations) + 1
    assert other != circuit


def test_comparing_and_printing_do_not_freeze():
    circuit = example()
    assert circuit == example()
    assert circuit != Circuit(2)
    assert circuit != "circuit"
    str(circuit), repr(circuit), circuit.to_dict(), circuit.copy()
    circuit.h(0)


@given(circuits())
def test_equal_circuits_hash_alike(circuit):
    other = circuit.copy()
    assert other == circuit
    assert hash(other) == hash(circuit)
    assert {circuit: 1}[other] == 1


@given(circuits())
def test_json_round_trip(circuit):
    data = json.loads(json.dumps(circuit.to_dict()))
    assert Circuit.from_dict(data) == circuit
    assert Circuit.from_dict(data).to_dict() == circuit.to_dict()


@given(circuits())
def test_pickle_and_deepcopy_round_trips(circuit):
    assert pickle.loads(pickle.dumps(circuit)) == circuit
    assert copy.deepcopy(circuit) == circuit


def test_pickles_stay_frozen_or_open():
    circuit = example()
    pickle.loads(pickle.dumps(circuit)).h(0)
    hash(circuit)
    for frozen in (pickle.loads(pickle.dumps(circuit)), copy.deepcopy(circuit)):
        with pytest.raises(SpecError, match="frozen"):
            frozen.h(0)


def test_a_shallow_copy_does_not_share_its_gates():
    circuit = example()
    copy.copy(circuit).h(0)
    assert circuit == example()


def test_a_pickle_hashes_alike_in_another_process():
    """The hash of text differs from process to process, so a pickled circuit must not bring its own along."""
    circuit = example()
    hash(circuit)
    script = (
        "import pickle, sys\n"
        "circuit = pickle.loads(bytes.fromhex(sys.stdin.read()))\n"
        "print(hash(circuit) == hash(circuit.copy()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(circuit).hex(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"


def test_extend_appends_operations_of_another_circuit():
    source, target = example(), Circuit(2)
    target.inputs(1)
    target.weights(2)
    target.extend(source.operations)
    assert target == source
