"""LayerSpec: shapes before anything runs, circuits of the layers, JSON."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given

from qstore_core import IQP, Circuit, Expectation, LayerSpec, Pauli, Probabilities, ShapeError, SpecError
from qstore_core.circuit.spec import layer_spec as specs
from tests.support.strategies import batches, layer_specs


@given(layer_specs())
def test_json_round_trip(spec):
    again = LayerSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.circuit == spec.circuit
    assert again.to_dict() == spec.to_dict()


@given(layer_specs())
def test_pickle_round_trip(spec):
    assert pickle.loads(pickle.dumps(spec)) == spec


@given(layer_specs(), batches())
def test_shapes_agree_with_the_circuit(spec, batch):
    features = batch.features(spec)
    spec.check_features(features.shape)
    assert spec.output_shape(features.shape) == (*batch.lead, spec.output_dim)
    if spec.measurement is not None:
        assert spec.n_weights == spec.circuit.n_weights
        assert spec.output_dim == spec.measurement.n_outputs(spec.n_qubits)
        width = spec.circuit.n_amplitudes + spec.circuit.n_inputs
        assert width == spec.n_features


@given(layer_specs())
def test_unknown_sizes_pass_through(spec):
    assert spec.output_shape((None, spec.n_features)) == (None, spec.output_dim)
    assert spec.output_shape((None, 7, None)) == (None, 7, spec.output_dim)


@pytest.mark.parametrize(
    ("spec", "n_features", "n_weights", "output_dim"),
    [
        # the guide's pipeline
        (specs.feature_extractor(8, 2), 256, 32, 8),
        (specs.pooling(6), 64, 12 + 9, 3),
        (specs.readout(4), 16, 8, 4),
        (specs.feature_extractor(8, 3, measurement_bases=("Z", "X", "Y")), 256, 48, 24),
        # the rest
        (specs.encoder(3), 8, 0, 8),
        (specs.readout(4, 10, encoding="angle"), 4, 8, 10),
        (specs.pooling(6, 3, mode="partial_trace", measurement_bases=("Z", "X")), 64, 12, 4),
        (specs.pooling(6, 3), 64, 12 + 12, 2),
        (specs.pooling(4, 1), 16, 8, 4),
        (specs.pooling(4, 4), 16, 8 + 9, 1),
        (specs.feature_extractor(3, 2, ansatz="real_amplitudes"), 8, 9, 3),
        (specs.feature_extractor(3, 2, ansatz="strongly_entangling"), 8, 18, 3),
        (specs.feature_extractor(1, 0, encoding="angle"), 1, 0, 1),
    ],
)
def test_sizes(spec, n_features, n_weights, output_dim):
    assert (spec.n_features, spec.n_weights, spec.output_dim) == (n_features, n_weights, output_dim)


def test_reuploading_encodes_before_every_level():
    spec = specs.feature_extractor(2, 2, encoding="angle", entanglement="linear", reuploading=True)
    encoded = ["ry(x0) 0", "ry(x1) 1"]
    assert [str(op) for op in spec.circuit.operations] == [
        *encoded, "ry(w0) 0", "ry(w2) 1", "rz(w1) 0", "rz(w3) 1", "cnot 0 1",
        *encoded, "ry(w4) 0", "ry(w6) 1", "rz(w5) 0", "rz(w7) 1", "cnot 0 1",
    ]  # fmt: skip


def test_no_levels_still_encode():
    for again in (False, True):
        spec = specs.feature_extractor(2, 0, encoding="angle", reuploading=again)
        assert [str(op) for op in spec.circuit.operations] == ["ry(x0) 0", "ry(x1) 1"]


def test_pooling_turns_the_first_of_each_group():
    spec = specs.pooling(6, 3, depth=0, encoding="angle")
    turns = [str(op) for op in spec.circuit.operations[6:]]
    assert turns == [
        "crz(w0) 1 0", "cry(w1) 1 0", "crz(w2) 1 0", "crz(w3) 2 0", "cry(w4) 2 0", "crz(w5) 2 0",
        "crz(w6) 4 3", "cry(w7) 4 3", "crz(w8) 4 3", "crz(w9) 5 3", "cry(w10) 5 3", "crz(w11) 5 3",
    ]  # fmt: skip
    assert spec.measurement == Expectation("Z", qubits=(0, 3))
    assert len(specs.pooling(6, 3, mode="partial_trace", depth=0, encoding="angle").circuit.operations) == 6


def test_a_user_circuit_is_frozen_by_its_spec():
    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0], 0)
    spec = specs.custom(circuit, Pauli("Z"))
    assert spec.circuit is circuit
    with pytest.raises(SpecError, match="frozen"):
        circuit.h(0)


def test_circuits_of_equal_specs_are_built_once():
    assert specs.readout(3, 4).circuit is specs.readout(3, 4).circuit


# -- features that do not fit -----------------------------------------------------------------------------------------


def test_too_many_amplitudes_say_what_to_add():
    with pytest.raises(
        ShapeError, match=r"8 qubits takes at most 256 features.*\(32, 300\).*to 256.*n_qubits=9"
    ) as caught:
        specs.feature_extractor(8).check_features((32, 300))
    assert (caught.value.expected, caught.value.received) == (256, 300)


def test_fewer_amplitudes_are_padded():
    for width in (1, 3, 8):
        specs.feature_extractor(3).check_features((5, width))
    with pytest.raises(ShapeError, match="at least one feature"):
        specs.feature_extractor(3).check_features((5, 0))


@pytest.mark.parametrize("width", [0, 2, 4])
def test_angle_encoding_takes_one_feature_per_qubit(width):
    with pytest.raises(ShapeError, match=rf"takes 3 features, received inputs of shape \(5, {width}\).*Dense/Linear"):
        specs.feature_extractor(3, encoding="angle").check_features((5, width))


def test_scalars_are_no_batch():
    with pytest.raises(ShapeError, match="received a scalar"):
        specs.feature_extractor(3).check_features(())


# -- descriptions that are wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "argument", "message"),
    [
        (lambda: specs.feature_extractor(3, -1), "depth", "depth is a whole number"),
        (lambda: specs.feature_extractor(3, 1.5), "depth", "depth is a whole number"),
        (lambda: specs.feature_extractor(3, True), "depth", "depth is a whole number"),
        (lambda: specs.feature_extractor(3, reuploading=True), "reuploading", 'Use encoding="angle"'),
        (lambda: specs.feature_extractor(3, encoding="angel"), "encoding", "Did you mean 'angle'"),
        (lambda: specs.feature_extractor(3, ansatz="real"), "ansatz", "Did you mean 'real_amplitudes'"),
        (lambda: specs.feature_extractor(3, entanglement="ful"), "entanglement", "Did you mean 'full'"),
        (lambda: specs.feature_extractor(3, measurement_bases="Q"), "measurement_bases", "received 'Q'"),
        (lambda: specs.pooling(6, 4), "pool_size", r"must divide n_qubits=6; received 4. Possible: 1, 2, 3, 6"),
        (lambda: specs.pooling(6, 0), "pool_size", "received 0"),
        (lambda: specs.pooling(6, mode="measure"), "mode", "Did you mean 'measurement'"),
        (lambda: specs.readout(3, 9), "n_classes", "Use at least 4 qubits"),
        (lambda: specs.readout(3, 0), "n_classes", "at least 1"),
        (lambda: specs.readout(3, 1), "n_classes", "nothing to train"),
        (lambda: specs.custom("circuit", Pauli("Z")), "circuit", "received str"),
        (lambda: specs.custom(Circuit(1), "Z"), "measurement", "a measurement is"),
    ],
)
def test_a_wrong_argument_is_named(make, argument, message):
    with pytest.raises(SpecError, match=message) as caught:
        make()
    assert caught.value.argument == argument


def test_a_measurement_must_fit_the_circuit():
    with pytest.raises(SpecError, match="the circuit has 1 qubit"):
        specs.custom(Circuit(1), Pauli("ZZ"))
    with pytest.raises(SpecError, match="measured qubits"):
        specs.custom(Circuit(1), Probabilities(qubits=(1,)))


def test_numpy_integers_are_whole_numbers():
    k = np.int64
    assert specs.feature_extractor(k(3), k(2), encoding=IQP(k(2))) == specs.feature_extractor(3, 2, encoding=IQP(2))
    assert specs.pooling(k(4), k(2)) == specs.pooling(4, 2)
    assert specs.readout(3, k(5)) == specs.readout(3, 5)
    for spec in (specs.pooling(k(4), k(2), encoding=IQP(k(2))), specs.readout(k(3), k(5), entanglement=[(k(0), k(1))])):
        assert LayerSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_spec_of_very_many_qubits_is_described_without_its_pairs():
    """Only running it is refused, by its memory; a pattern of n²/2 pairs must not be written out before."""
    assert specs.feature_extractor(200).output_dim == 200
    with pytest.raises(SpecError, match="a circuit has at most 100000"):
        specs.feature_extractor(2000)
