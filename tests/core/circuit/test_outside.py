"""What is read from outside is validated whole: a named error, or something that works; never anything else."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import (
    Channel,
    Circuit,
    Fidelity,
    LayerSpec,
    NoiseModel,
    Pauli,
    QstoreError,
    QuantumKernel,
    QuantumLayer,
    QuantumReadout,
    SpecError,
)
from qstore_core.circuit import checks
from qstore_core.circuit.angles.angle import Angle
from qstore_core.circuit.measurements.measurement import as_measurement
from tests.support.strategies import circuits, layer_arguments, layer_specs, measurements

STRANGE = (
    -1, -5000, 0, 1, 2, 3, 7, 10**9, 2**63, 10**30, 10**400, 0.0, -0.5, 1.5, 1e308, math.nan, math.inf, -math.inf,
    True, False, None, "", "w", "x", "cnot", "I", "ZZ", "Z", "linear", "amplitude", "QuantumLayer", "π" * 50, b"w", 1j,
    [], {}, [[]], [[], []], [["w", -1]], [["w", 0]], {"name": "angle"}, {"name": "iqp", "repeats": 10**9}, ["w", -5000],
    [0, 0], [0.5, 1], [["ry", [0], [[[[["x", -1]], 1.0]]]]], [[[["w", 10**6]], 1.0]], {"name": []}, {1: 2}, object(),
)  # fmt: skip


def paths(value, here=()):
    """Every place in a nested form."""
    yield here
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*here, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from paths(value[index], (*here, index))


@st.composite
def mutated(draw, forms):
    """A valid form with one to three places replaced, removed, added or doubled."""
    data = json.loads(json.dumps(draw(forms)))
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(sorted(paths(data), key=repr)))
        if not where:
            data = copy.deepcopy(draw(st.sampled_from((data, data, *STRANGE))))
            if not isinstance(data, dict):
                return data
            continue
        holder = data
        for key in where[:-1]:
            holder = holder[key]
        how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "add", "double")))
        if how == "replace":
            holder[where[-1]] = copy.deepcopy(draw(st.sampled_from(STRANGE)))
        elif how == "remove":
            del holder[where[-1]]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[where[-1]] if how == "double" else draw(st.sampled_from(STRANGE))))
        else:
            added = draw(st.sampled_from(("more", "n_qubit", 3, "name", "module")))
            holder[added] = copy.deepcopy(draw(st.sampled_from(STRANGE)))
    return data


def runs(spec):
    """A spec that was read computes what it promises, with slots where they belong."""
    circuit = spec.circuit
    for op in circuit.operations:
        for angle in op.params:
            for kind, index in angle.slots:
                assert 0 <= index < (circuit.n_inputs if kind == "x" else circuit.n_weights)
    if spec.n_qubits <= 5 and circuit.n_inputs + circuit.n_weights < 1000:
        layer = QuantumLayer(circuit, spec.measurement or Pauli("I" * spec.n_qubits), backend="statevector")
        outputs = layer(np.ones((1, circuit.n_amplitudes + circuit.n_inputs)))
        assert outputs.shape == (1, layer.output_dim)


@settings(max_examples=200)
@given(mutated(layer_specs().map(LayerSpec.to_dict)))
def test_a_spec_is_read_or_refused(data):
    try:
        spec = LayerSpec.from_dict(data)
        runs(spec)
    except QstoreError:
        return
    assert LayerSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@settings(max_examples=200)
@given(mutated(circuits().map(Circuit.to_dict)))
def test_a_circuit_is_read_or_refused(data):
    try:
        circuit = Circuit.from_dict(data)
    except SpecError:
        return
    assert Circuit.from_dict(json.loads(json.dumps(circuit.to_dict()))) == circuit
    if circuit.n_qubits <= 5 and circuit.n_inputs + circuit.n_weights < 1000:
        layer = QuantumLayer(circuit, Pauli("Z" * circuit.n_qubits), backend="statevector")
        assert layer(np.ones((2, circuit.n_amplitudes + circuit.n_inputs))).shape == (2, 1)


@settings(max_examples=200)
@given(mutated(measurements(3).map(lambda m: m.to_dict())))
def test_a_measurement_is_read_or_refused(data):
    try:
        measurement = as_measurement(data)
        measurement.check(3)
    except SpecError:
        return
    assert measurement.n_outputs(3) >= 1
    assert as_measurement(json.loads(json.dumps(measurement.to_dict()))) == measurement


@pytest.mark.parametrize("part", ["", "1j", [0.5], [0.5, 0.5, 0.5], ["0.7", "j"], [float("nan"), 0], [True, 0], None])
def test_amplitudes_in_a_file_are_pairs_of_numbers(part):
    data = Fidelity(np.array([1, 1j]) / np.sqrt(2)).to_dict()
    data["state"][0] = part
    with pytest.raises(SpecError, match="amplitude"):
        as_measurement(data)


@pytest.mark.parametrize("value", [np.array([1, 2]), list(range(100_000)), "a" * 10_000], ids=["array", "list", "text"])
def test_whatever_is_given_is_refused_and_shown_shortly(value):
    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0], 0)
    config = QuantumLayer(circuit, Pauli("Z")).get_config()
    saved = circuit.to_dict()
    saved["operations"][0][2][0][0][0][0][0] = value
    spec = QuantumLayer(circuit, Pauli("Z")).spec.to_dict() | {"pool_mode": value}
    for attempt in (
        lambda: QuantumLayer.from_config(config | {"gradient": value}),
        lambda: QuantumLayer.from_config(config | {"shots": value}),
        lambda: Circuit.from_dict(saved),
        lambda: LayerSpec.from_dict(spec),
    ):
        with pytest.raises(SpecError) as refused:
            attempt()
        assert len(str(refused.value)) < 500


@settings(max_examples=60)
@given(st.data())
def test_a_configuration_is_read_or_refused(data):
    import qstore_core

    kind, arguments = data.draw(layer_arguments())
    cls = getattr(qstore_core, kind)
    config = data.draw(mutated(st.just(cls(**arguments).get_config())))
    try:
        layer = cls.from_config(config)
    except QstoreError:
        return
    assert cls.from_config(json.loads(json.dumps(layer.get_config()))).spec == layer.spec


@pytest.mark.parametrize("engine", ["numba", "statevector"])
@pytest.mark.parametrize("index", [-1, -5000, 1, 10**6, 2**63, "0", 0.0, True, None])
@pytest.mark.parametrize("kind", ["w", "x"])
def test_a_slot_outside_the_arrays_reaches_no_engine(kind, index, engine):
    data = {
        "n_qubits": 1, "amplitudes": False, "n_inputs": 1, "n_weights": 1,
        "operations": [["ry", [0], [[[[[kind, index]], 1.0]]]]],
    }  # fmt: skip
    with pytest.raises(SpecError, match="slot"):
        Circuit.from_dict(data)
    circuit = Circuit(1)
    circuit.inputs(1), circuit.weights(1)
    with pytest.raises(SpecError, match="slot"):
        circuit.ry(Angle(((((kind, index),), 1.0),)), 0)
    data["operations"][0][2][0][0][0][0][1] = 0
    assert QuantumLayer(Circuit.from_dict(data), Pauli("Z"), backend=engine)(np.ones((1, 1))).shape == (1, 1)


SIZES = {
    "n_qubits": lambda: Circuit(10**9),
    "n_inputs": lambda: Circuit(1).inputs(10**9),
    "n_weights": lambda: Circuit(1).weights(10**9),
    "n_inputs in a file": lambda: Circuit.from_dict(
        {"n_qubits": 1, "amplitudes": False, "n_inputs": 10**9, "n_weights": 0, "operations": []}
    ),
    "n_weights in a file": lambda: Circuit.from_dict(
        {"n_qubits": 1, "amplitudes": False, "n_inputs": 0, "n_weights": 10**9, "operations": []}
    ),
    "layer's n_qubits": lambda: QuantumReadout(10**9),
    "layer's depth": lambda: QuantumReadout(2, depth=10**9),
    "depth of many gates": lambda: QuantumReadout(20, depth=1_999),
    "pairs": lambda: QuantumReadout(2_000),
    "repeats": lambda: QuantumReadout(4, encoding={"name": "iqp", "repeats": 10**9}),
    "repeats of many gates": lambda: QuantumReadout(40, encoding={"name": "zz", "repeats": 1_000}),
    "n_classes": lambda: QuantumReadout(4, n_classes=10**9),
    "n_features": lambda: QuantumReadout(4, n_features=10**9),
    "measured qubits": lambda: as_measurement({"name": "probabilities", "qubits": range(10**9), "n_classes": None}),
    "bases": lambda: QuantumReadout(2, measurement_bases=("Z" for _ in range(10**9))),
    "channels of a noise model": lambda: NoiseModel.from_dict(
        {"rules": [["h", None, [["nope"]] * 60_000], ["x", None, [["nope"]] * 60_000]], "readout": []}
    ),
    "rules of a noise model": lambda: NoiseModel.from_dict({"rules": [["h"]] * 100_001, "readout": []}),
    "readout errors": lambda: NoiseModel.from_dict({"rules": [], "readout": [[0]] * 3_000}),
    "gates of a kernel": lambda: QuantumKernel("zz", n_qubits=2_000),
    "a long number": lambda: QuantumReadout(10**5000),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_are_refused_before_anything_is_built(case, monkeypatch):
    """No gate is appended and no slot made: what a size costs is not paid before it is looked at."""

    def never(*arguments, **keywords):
        raise AssertionError("built")

    if not case.startswith("n_"):
        monkeypatch.setattr(Circuit, "append", never)
    monkeypatch.setattr("qstore_core.circuit.circuit.weight", never)
    monkeypatch.setattr("qstore_core.circuit.circuit.input_", never)
    with pytest.raises(SpecError, match=r"at most|too few|takes"):
        SIZES[case]()


def test_large_models_are_read_in_one_pass():
    """Quadratic, 2,048 readout errors took 8 s and 20,000 rules 1 s; counted here: channels that are made."""
    with mock.patch.object(Channel, "__post_init__", autospec=True, side_effect=Channel.__post_init__) as made:
        model = NoiseModel.from_dict(
            {
                "rules": [["x", [q], [["bit_flip", [0.1], 1]]] for q in range(2_048)],
                "readout": [[q, 0.1, 0.2] for q in range(2_048)],
            }
        )
    assert len(model.rules) == len(model.readout) == 2_048
    assert made.call_count <= 3 * 2_048


def test_gates_of_any_size_take_no_memory_until_they_are_looked_at():
    """A matrix of each takes 16 MB: a file of 40 kB with 400 different gates took 6 GB."""
    names = ["pauli_rot_" + "".join(letters) for letters in itertools.islice(itertools.product("xyz", repeat=10), 64)]
    operations = [[name, list(range(10)), [Angle().to_list()]] for name in names]
    data = {"n_qubits": 10, "amplitudes": False, "n_inputs": 0, "n_weights": 0, "operations": operations}
    tracemalloc.start()
    Circuit.from_dict(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_gates_count_by_what_they_are_made_of():
    """100,000 gates under nine controls would be 500 million rotations and CNOTs, which take hours to lower."""
    operations = [["controlled_000000000_ry", list(range(10)), [Angle().to_list()]]] * 300
    data = {"n_qubits": 10, "amplitudes": False, "n_inputs": 0, "n_weights": 0, "operations": operations}
    with pytest.raises(SpecError, match="at most 1000000 rotations and CNOTs"):
        Circuit.from_dict(data)
    circuit = Circuit.from_dict(data | {"operations": operations[:190]})
    for whole in (circuit.copy(), pickle.loads(pickle.dumps(circuit)), copy.deepcopy(circuit)):
        with pytest.raises(SpecError, match="rotations and CNOTs"):
            whole.extend(circuit.operations[:10])


def test_a_circuit_stops_at_its_limit(monkeypatch):
    monkeypatch.setattr("qstore_core.circuit.circuit.MAX_OPERATIONS", 3)
    circuit = Circuit(1)
    for _ in range(3):
        circuit.h(0)
    with pytest.raises(SpecError, match="gates, which this one has already"):
        circuit.h(0)
    assert len(circuit.operations) == 3


LONG = [10**5000, [10**5000], "x" * 10**6, [1] * 10**6, {"a": [10**5000]}, object(), float("nan")]


@pytest.mark.parametrize("value", LONG, ids=[str(k) for k in range(len(LONG))])
def test_values_in_messages_are_short(value):
    assert len(checks.shown(value)) < 200


def test_a_stranger_whose_repr_fails_is_named():
    class Bad:
        def __repr__(self):
            raise RuntimeError

    assert checks.shown(Bad()).endswith("type Bad") or "Bad" in checks.shown(Bad())
