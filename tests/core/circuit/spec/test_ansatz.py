"""Ansätze: the exact gate sequence and the layout of theta, which saved weights depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import (
    Circuit,
    HardwareEfficient,
    IdentityBlocks,
    QuantumFeatureExtractor,
    QuantumReadout,
    RealAmplitudes,
    SpecError,
    StronglyEntangling,
)
from qstore_core.circuit.spec import layer_spec as specs
from qstore_core.circuit.spec.ansatz import as_ansatz, as_entanglement, entangling_pairs
from tests.support.tolerances import EXACT

PAIRS = {
    "linear": [(0, 1), (1, 2), (2, 3)],
    "circular": [(0, 1), (1, 2), (2, 3), (3, 0)],
    "full": [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)],
    "none": [],
}


def gates(ansatz, n_qubits, depth):
    circuit = specs.feature_extractor(n_qubits, depth, encoding="amplitude", ansatz=ansatz).circuit
    return [str(op) for op in circuit.operations]


@pytest.mark.parametrize("pattern", PAIRS)
def test_entangling_pairs(pattern):
    assert list(entangling_pairs(pattern, 4)) == PAIRS[pattern]


def test_circular_closes_the_ring_from_three_qubits_on():
    assert entangling_pairs("circular", 1) == ()
    assert entangling_pairs("circular", 2) == ((0, 1),)
    assert entangling_pairs("circular", 3) == ((0, 1), (1, 2), (2, 0))


def test_pairs_may_be_given():
    assert as_entanglement([[2, 0], (0, 1)]) == ((2, 0), (0, 1))
    assert entangling_pairs(((2, 0), (0, 1)), 3) == ((2, 0), (0, 1))


@pytest.mark.parametrize("pairs", [((0, 3),), ((1, 1),), ((-1, 0),)])
def test_pairs_must_fit(pairs):
    with pytest.raises(SpecError, match="does not fit 3 qubits") as caught:
        entangling_pairs(pairs, 3)
    assert caught.value.argument == "entanglement"
    with pytest.raises(SpecError, match="does not fit 3 qubits"):
        specs.feature_extractor(3, entanglement=pairs)


@pytest.mark.parametrize("value", [7, [1, 2], [(0, 1, 2)], [("a", "b")], None, [(0.5, 1)]])
def test_what_is_no_entanglement(value):
    with pytest.raises(SpecError, match="entanglement is one of linear, circular, full, none"):
        as_entanglement(value)


def test_unknown_pattern_names_the_nearest():
    with pytest.raises(SpecError, match=r"no entanglement 'liner'.*Did you mean 'linear'\?"):
        as_entanglement("liner")


@pytest.mark.parametrize("pattern", PAIRS)
def test_hardware_efficient_is_ry_then_rz_then_cnots(pattern):
    expected = []
    for level in range(2):
        w = 8 * level
        expected += [f"ry(w{w + 2 * q}) {q}" for q in range(4)]
        expected += [f"rz(w{w + 2 * q + 1}) {q}" for q in range(4)]
        expected += [f"cnot {c} {t}" for c, t in PAIRS[pattern]]
    assert gates(HardwareEfficient(pattern), 4, 2) == expected


def test_hardware_efficient_theta_is_depth_qubits_axis():
    """theta.reshape(depth, n_qubits, 2), last axis RY, RZ."""
    circuit = specs.feature_extractor(3, 2, encoding="amplitude").circuit
    layout = np.arange(2 * 3 * 2).reshape(2, 3, 2)
    found = [(op.gate, op.qubits[0], next(iter(op.params[0].slots))[1]) for op in circuit.operations if op.params]
    assert found == [
        (gate, q, layout[level, q, axis])
        for level in range(2)
        for axis, gate in enumerate(("ry", "rz"))
        for q in range(3)
    ]


def test_strongly_entangling_is_rot_then_a_ring_of_growing_range():
    assert gates(StronglyEntangling(), 3, 3) == [
        "rot(w0, w1, w2) 0", "rot(w3, w4, w5) 1", "rot(w6, w7, w8) 2", "cnot 0 1", "cnot 1 2", "cnot 2 0",
        "rot(w9, w10, w11) 0", "rot(w12, w13, w14) 1", "rot(w15, w16, w17) 2", "cnot 0 2", "cnot 1 0", "cnot 2 1",
        "rot(w18, w19, w20) 0", "rot(w21, w22, w23) 1", "rot(w24, w25, w26) 2", "cnot 0 1", "cnot 1 2", "cnot 2 0",
    ]  # fmt: skip
    assert gates(StronglyEntangling(), 1, 1) == ["rot(w0, w1, w2) 0"]


def test_real_amplitudes_ends_with_a_rotation():
    assert gates(RealAmplitudes("linear"), 2, 2) == [
        "ry(w0) 0", "ry(w1) 1", "cnot 0 1", "ry(w2) 0", "ry(w3) 1", "cnot 0 1", "ry(w4) 0", "ry(w5) 1",
    ]  # fmt: skip


@given(
    st.sampled_from((HardwareEfficient(), StronglyEntangling(), RealAmplitudes("circular"))),
    st.integers(1, 5),
    st.integers(0, 4),
)
def test_every_weight_is_used_once_and_in_order(ansatz, n_qubits, depth):
    circuit = specs.feature_extractor(n_qubits, depth, ansatz=ansatz).circuit
    used = [next(iter(p.slots)) for op in circuit.operations for p in op.params]
    assert sorted(used) == [("w", j) for j in range(circuit.n_weights)]
    assert circuit.n_weights == ansatz.n_weights(n_qubits, depth)


@pytest.mark.parametrize("name", ["hardware_efficient", "strongly_entangling", "real_amplitudes", "identity_blocks"])
def test_names_and_objects(name):
    ansatz = as_ansatz(name)
    assert ansatz.name == name
    assert getattr(ansatz, "entanglement", "full") == "full"
    assert as_ansatz(ansatz) is ansatz


def test_an_entanglement_that_means_nothing_is_refused():
    assert as_ansatz("real_amplitudes", "linear") == as_ansatz(RealAmplitudes("linear"), "linear")
    for value, message in (("strongly_entangling", "of its own"), (HardwareEfficient("full"), "given as an object")):
        with pytest.raises(SpecError, match=message) as caught:
            as_ansatz(value, "linear")
        assert caught.value.argument == "entanglement"


def test_unknown_ansatz_names_the_nearest():
    with pytest.raises(SpecError, match=r"no ansatz 'hardware-eficient'.*Did you mean 'hardware_efficient'\?"):
        as_ansatz("hardware-eficient")


def test_levels_append_to_any_circuit():
    circuit = Circuit(2)
    circuit.h(0)
    HardwareEfficient("linear").append_level(circuit, circuit.weights(4), 0)
    assert [op.gate for op in circuit.operations] == ["h", "ry", "ry", "rz", "rz", "cnot"]


@pytest.mark.parametrize("entanglement", ["full", "linear", "circular", "none", ((0, 2), (2, 1))])
def test_identity_blocks_begin_as_the_identity(entanglement):
    arguments = {"encoding": "angle", "ansatz": "identity_blocks", "entanglement": entanglement}
    layer = QuantumFeatureExtractor(
        3, 4, init="identity_blocks", seed=0, measurement_bases=("Z", "X", "Y"), **arguments
    )
    none = QuantumFeatureExtractor(3, 0, encoding="angle", measurement_bases=("Z", "X", "Y"))
    x = np.random.default_rng(1).uniform(-2, 2, (5, 3))
    assert np.abs(layer.theta).max() > 1
    np.testing.assert_allclose(layer(x), none(x), atol=EXACT)
    layer.theta = layer.theta + np.random.default_rng(2).normal(size=layer.theta.shape)
    assert np.abs(layer(x) - none(x)).max() > 0.1


def test_identity_blocks_are_hardware_efficient_and_their_inverses():
    block, level = Circuit(3), Circuit(3)
    IdentityBlocks("linear").append_level(block, block.weights(12), 0)
    HardwareEfficient("linear").append_level(level, level.weights(6), 0)
    back = level.inverse()
    assert [(op.gate, op.qubits) for op in block.operations[:8]] == [(op.gate, op.qubits) for op in level.operations]
    undone = sorted((op.gate, op.qubits) for op in block.operations[8:])
    assert undone == sorted((op.gate, op.qubits) for op in back.operations)


@pytest.mark.parametrize("kind", [QuantumFeatureExtractor, QuantumReadout])
def test_identity_blocks_as_an_init_of_another_ansatz_are_refused(kind):
    with pytest.raises(SpecError, match="ansatz"):
        kind(3, init="identity_blocks")
