"""Channels as operations of circuits: values that are checked, saved, drawn, composed, and never passed over."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import CapabilityError, Channel, Circuit, Expectation, QuantumLayer, SpecError, get_backend, lower
from qstore_core.circuit.drawing import draw
from qstore_core.circuit.gates.table import GATES, PAULIS
from qstore_core.circuit.noise.channels import CHANNELS, transfer_matrix
from qstore_core.testing import reference
from tests.support.strategies import channels, noisy_circuits
from tests.support.tolerances import EXACT, MATRIX

POINT = np.zeros(0), np.zeros((1, 0))


def rho(channel, start):
    return sum(k @ start @ k.conj().T for k in channel.operators)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_closed_forms(p):
    """Of a qubit in any state."""
    start = np.array([[0.7, 0.2 - 0.3j], [0.2 + 0.3j, 0.3]])
    x, y, z = (pauli for pauli in PAULIS.values())
    forms = {
        Channel.depolarizing(p): (1 - p) * start + p * np.eye(2) / 2,
        Channel.bit_flip(p): (1 - p) * start + p * x @ start @ x,
        Channel.phase_flip(p): (1 - p) * start + p * z @ start @ z,
        Channel.phase_damping(p): np.where(np.eye(2), start, np.sqrt(1 - p) * start),
        Channel.amplitude_damping(p): [
            [start[0, 0] + p * start[1, 1], np.sqrt(1 - p) * start[0, 1]],
            [np.sqrt(1 - p) * start[1, 0], (1 - p) * start[1, 1]],
        ],
        Channel.pauli_channel(p / 2, p / 4, p / 4): (1 - p) * start
        + p / 2 * x @ start @ x
        + p / 4 * y @ start @ y
        + p / 4 * z @ start @ z,
    }
    assert {channel.name for channel in forms} | {"kraus", "readout_error"} == set(CHANNELS)
    for channel, expected in forms.items():
        np.testing.assert_allclose(rho(channel, start), expected, rtol=0, atol=MATRIX, err_msg=str(channel))


def test_two_qubits_are_depolarised_together():
    start = np.diag([0.5, 0.25, 0.25, 0.0])
    for p in (0.1, 16 / 15):
        expected = (1 - p) * start + p * np.eye(4) / 4
        np.testing.assert_allclose(rho(Channel.depolarizing(p, 2), start), expected, rtol=0, atol=MATRIX)


@given(st.integers(1, 2).flatmap(channels))
def test_channels_keep_the_trace(channel):
    total = sum(k.conj().T @ k for k in channel.operators)
    np.testing.assert_allclose(total, np.eye(len(total)), rtol=0, atol=MATRIX)
    np.testing.assert_array_equal(transfer_matrix(channel.operators)[0], np.eye(1, len(total) ** 2)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: c.depolarizing(-0.1, 0), "p is a probability from 0 to 1.333; received -0.1"),
        (lambda c: c.depolarizing(1.1, 0, 1), "from 0 to 1.067"),
        (lambda c: c.depolarizing(0.1, 0, 1, 2), "at most 2"),
        (lambda c: c.depolarizing(0.1), "1 qubit"),
        (lambda c: c.bit_flip(1.5, 0), "p is a probability from 0 to 1"),
        (lambda c: c.bit_flip(float("nan"), 0), "finite"),
        (lambda c: c.bit_flip("much", 0), "real number"),
        (lambda c: c.bit_flip(0.1, 0, 1), "most 1"),
        (lambda c: c.bit_flip(0.1, 3), "qubit 3 does not exist"),
        (lambda c: c.depolarizing(0.1, 1, 1), "qubits must differ"),
        (lambda c: c.pauli_channel(0.5, 0.4, 0.3, 0), "as is the sum"),
        (lambda c: c.amplitude_damping(c.weights(1)[0], 0), "constants, and cannot be trained"),
        (lambda c: c.kraus([np.eye(2), np.eye(2)], 0), "Σ K†K = 1; here it is off by 1"),
        (lambda c: c.kraus([np.eye(3)], 0), "2 x 2 or 4 x 4"),
        (lambda c: c.kraus([np.eye(2)], 0, 1), "is on 1 qubit"),
        (lambda c: c.kraus([], 0), "2 x 2 or 4 x 4"),
        (lambda c: c.kraus([[[1, "a"], [0, 1]]], 0), "matrices of numbers"),
        (lambda c: c.readout_error(0.1, 1.2, 0), "p_10 is a probability"),
        (lambda c: c.depolarising(0.1, 0), "Did you mean 'depolarizing'"),
        (lambda c: (c.readout_error(0.1, 0.1, 0), c.h(0)), "comes after all gates"),
        (lambda c: (c.readout_error(0.1, 0.1, 1), c.bit_flip(0.1, 1)), "comes after all gates"),
    ],
)
def test_what_is_no_channel_is_refused_and_the_circuit_stays_usable(make, message):
    circuit = Circuit(3)
    with pytest.raises((SpecError, AttributeError), match=message):
        make(circuit)
    assert all(op.gate == "readout_error" for op in circuit.operations)
    circuit.h(2)


@given(noisy_circuits())
def test_circuits_with_channels_are_values(circuit):
    saved = json.loads(json.dumps(circuit.to_dict()))
    again = Circuit.from_dict(saved)
    assert again == circuit
    assert hash(again) == hash(circuit)
    assert pickle.loads(pickle.dumps(circuit)) == circuit
    assert circuit.noisy
    assert str(circuit.operations[-1].channel) in draw(circuit)


@pytest.mark.parametrize(
    "entry",
    [
        ["depolarizing", [0], [2.0]],
        ["depolarizing", [0], []],
        ["depolarizing", [0], [[]]],
        ["kraus", [0], [1.0, 0.0]],
        ["kraus", [0, 1], [1.0] * 8],
        ["kraus", [], [1.0] * 8],
        ["readout_error", [5], [0.1, 0.1]],
        ["bit_flip", [0], "0.1"],
    ],
)
def test_damaged_files_are_refused(entry):
    saved = Circuit(2).to_dict() | {"operations": [entry]}
    with pytest.raises(SpecError):
        Circuit.from_dict(saved)


def noisy():
    c = Circuit(2)
    w = c.weights(1)
    c.ry(w[0], 0), c.depolarizing(0.1, 0), c.cnot(0, 1)
    return c


def test_composing_takes_channels_along():
    c = noisy()
    twice, mapped = c.power(2), c.map_inputs(lambda x: x, 0)
    assert [op.gate for op in twice.operations] == ["ry", "depolarizing", "cnot"] * 2
    assert mapped == c
    moved = Circuit(3).compose(c, [2, 0]).operations
    assert [str(op) for op in moved] == ["ry(w0) 2", "depolarizing(0.1) 2", "cnot 2 0"]
    with pytest.raises(SpecError, match="no inverse: depolarizing"):
        c.inverse()
    read = c.copy()
    read.readout_error(0.1, 0.1, 0)
    with pytest.raises(SpecError, match="comes after all gates"):
        read.compose(c)
    c.h(0)  # the copy had a readout error, this one has none


def test_a_channel_is_no_gate():
    """Whoever looks one up as a gate gets an error with a name."""
    for name in CHANNELS:
        assert name not in GATES
        with pytest.raises(CapabilityError, match='backend="density"'):
            GATES[name]


def test_engines_of_pure_states_refuse_channels():
    for backend in ("statevector", "numba"):
        with pytest.raises(CapabilityError, match=r"depolarizing\(0.1\) 0. Use backend=\"density\""):
            get_backend(backend).compile(noisy(), Expectation())
        with pytest.raises(CapabilityError, match=f'{backend}.*operation 1 .* Use backend="density"'):
            QuantumLayer(noisy(), Expectation(), backend=backend)
        with pytest.raises(CapabilityError, match="computes no channels"):
            QuantumLayer(noisy(), Expectation(), fallback=backend)
    with pytest.raises(CapabilityError, match="pure states"):
        lower(noisy(), Expectation())


def test_auto_goes_to_the_density_engine_and_says_so():
    layer = QuantumLayer(noisy(), Expectation())
    assert layer.backend_name == "density"
    assert "the circuit has channels" in layer.explain()
    wide = Circuit(11)
    wide.bit_flip(0.1, 0)
    with pytest.raises(CapabilityError, match=r"11 qubits: .* go to 10 qubits\. Give the layer shots="):
        QuantumLayer(wide, Expectation())
    sampled = QuantumLayer(wide, Expectation(), shots=10, seed=0)
    assert sampled.backend_name == "trajectories"
    assert "samples are asked for" in sampled.explain()


def test_the_same_gates_with_another_channel_are_another_layer():
    prints = set()
    for p in (0.1, 0.2):
        c = Circuit(1)
        c.bit_flip(p, 0)
        prints.add(QuantumLayer(c, Expectation()).spec.fingerprint)
    assert len(prints) == 2


def test_the_reference_of_the_kit_against_a_closed_form():
    c = Circuit(1)
    c.x(0), c.depolarizing(0.2, 0), c.readout_error(0.1, 0.3, 0)
    # ⟨Z⟩ is -0.8, so P(1) = 0.9; read as 1: 0.9 · 0.7 + 0.1 · 0.1
    found = reference.outputs(c, Expectation(), *POINT)
    np.testing.assert_allclose(found, [[1 - 2 * 0.64]], rtol=0, atol=EXACT)
