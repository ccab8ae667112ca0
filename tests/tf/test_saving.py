"""Keras layers as files, configurations and copies."""

from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

import qstore_tf
from qstore_core import IQP, AngleEncoding, Circuit, HardwareEfficient, Pauli, Probabilities, RealAmplitudes, SpecError
from qstore_tf import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
from qstore_tf.layers import KerasLayer
from tests.support.faults import FaultyBackend
from tests.support.strategies import batches, layer_arguments

# Keras reads its variables for h5 files with a call that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def circuit():
    c = Circuit(2)
    x, w = c.inputs(2), c.weights(3)
    c.ry(2 * x[0] + w[0], 0)
    c.rx(x[1] * w[1] - 0.5, 1)
    c.cnot(0, 1)
    c.rz(w[2], 1)
    c.h(1)
    return c


def model():
    """Every layer; names, tuples, pairs and objects as arguments."""
    inputs = keras.Input((5,))
    features = keras.layers.Dense(8)(inputs)
    first = QuantumFeatureExtractor(
        3, 2, entanglement=[(0, 2), (2, 1)], measurement_bases=("Z", "X"), fallback=("statevector",), seed=1
    )(features)
    second = QuantumPooling(6, 3, mode="measurement", encoding=AngleEncoding("x"), ansatz=HardwareEfficient("linear"))(
        first
    )
    third = QuantumLayer(circuit(), [Pauli("ZI"), 0.5 * Pauli("XX") - Pauli("IY")])(second)
    fourth = QuantumReadout(2, 3, encoding=IQP(2), ansatz=RealAmplitudes(), reuploading=True, depth=2, name="head")(
        third
    )
    fifth = QuantumLayer(circuit(), Probabilities(qubits=(1,)))(third)
    return keras.Model(inputs, keras.layers.Concatenate()([fourth, fifth, QuantumEncoder(2)(third)]))


def x():
    return np.random.default_rng(0).normal(size=(4, 5)).astype("float32")


def layers(m):
    return [layer for layer in m.layers if hasattr(layer, "spec")]


def same(one, two):
    np.testing.assert_allclose(two(x()), one(x()), rtol=0, atol=1e-7)
    for a, b in zip(layers(one), layers(two), strict=True):
        assert type(a) is type(b)
        assert (a.spec, a.name, a.get_config()) == (b.spec, b.name, b.get_config())
        np.testing.assert_array_equal(np.asarray(a.theta), np.asarray(b.theta))


def test_a_keras_file_holds_everything(tmp_path):
    one = model()
    one.compile("adam", "mse")
    one.fit(x(), np.zeros((4, 9)), verbose=0)
    one.save(tmp_path / "model.keras")
    two = keras.saving.load_model(tmp_path / "model.keras")
    same(one, two)
    two.fit(x(), np.zeros((4, 9)), verbose=0)  # with the optimiser's state
    one.save_weights(tmp_path / "model.weights.h5")
    two.load_weights(tmp_path / "model.weights.h5")
    same(one, two)


def test_a_configuration_is_plain_json():
    one = model()
    two = keras.Model.from_config(json.loads(json.dumps(one.get_config())))
    two.set_weights(one.get_weights())
    same(one, two)


def test_clone_model_draws_anew():
    one = model()
    two = keras.models.clone_model(one)
    first, *rest = layers(one)
    first2, *rest2 = layers(two)
    np.testing.assert_array_equal(first.theta, first2.theta)  # it has a seed
    assert any((np.asarray(a.theta) != np.asarray(b.theta)).any() for a, b in zip(rest, rest2, strict=True))
    two.set_weights(one.get_weights())
    same(one, two)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_compute_the_same_and_live_alone(how):
    one = model()
    one(x())
    two = how(one)
    same(one, two)
    before = np.asarray(one(x()))
    layers(two)[0].theta.assign_add(np.full(12, 0.5, "float32"))
    np.testing.assert_array_equal(one(x()), before)
    assert np.abs(two(x()) - before).max() > 1e-3


@settings(max_examples=30)
@given(drawn=layer_arguments(), batch=batches(min_rows=1))
def test_config_round_trip(drawn, batch):
    kind, arguments = drawn
    make = getattr(qstore_tf, kind)
    more = {} if kind == "QuantumEncoder" else {"backend": "statevector", "seed": 3}
    layer = make(**arguments, **more, name="mine", dtype="mixed_bfloat16", trainable=False)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(layer)
    assert again.spec == layer.spec
    assert again.get_config() == layer.get_config()
    assert (again.name, again.trainable, again.dtype_policy.name) == ("mine", False, "mixed_bfloat16")
    features = batch.features(layer.spec)
    np.testing.assert_array_equal(tf.cast(again(features), "float32"), tf.cast(layer(features), "float32"))


def test_objects_without_a_name_cannot_be_saved():
    for arguments, message in [
        ({"backend": FaultyBackend("mine", None)}, "backend="),
        ({"init": lambda rng, size: rng.normal(size=size)}, "init="),
    ]:
        layer = QuantumReadout(2, **arguments)
        with pytest.raises(SpecError, match=f"{message}.*is an object"):
            layer.get_config()
        assert layer(np.ones((1, 4))).shape == (1, 2)  # it works all the same


def test_weights_of_the_wrong_size_are_refused(tmp_path):
    one, two = (keras.Sequential([keras.Input((8,)), QuantumReadout(n)]) for n in (3, 4))
    one.save_weights(tmp_path / "one.weights.h5")
    with pytest.raises(ValueError, match="weights of another circuit"):
        two.load_weights(tmp_path / "one.weights.h5")
    with pytest.raises(ValueError, match="shape"):
        one.layers[0].theta.assign(np.zeros(3))


def test_weights_of_another_circuit_do_not_load(tmp_path):
    """As many of them; where they are meant, and from files of before fingerprints, they load."""
    one, two = (
        keras.Sequential([keras.Input((8,)), QuantumReadout(3, 2, entanglement=e), keras.layers.Dense(1)])
        for e in ("full", "none")
    )
    one.save_weights(tmp_path / "one.weights.h5")
    before = two.layers[0].theta.numpy()
    with pytest.raises(ValueError, match="weights of another circuit"):  # Keras gathers what layers raise
        two.load_weights(tmp_path / "one.weights.h5")
    np.testing.assert_array_equal(two.layers[0].theta, before)
    with pytest.raises(SpecError, match=r"theta\.assign"):
        two.layers[0].load_own_variables({"0": before, "fingerprint": np.zeros(32, np.uint8)})
    two.layers[0].load_own_variables({"0": one.layers[0].theta.numpy()})
    np.testing.assert_array_equal(two.layers[0].theta, one.layers[0].theta)


def tampered(path, change):
    """The file of a model, with something changed in its configuration."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    config = json.loads(parts["config.json"])
    change(next(layer for layer in config["config"]["layers"] if "Quantum" in layer["class_name"])["config"])
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)


def first_slot(config):
    return config["circuit"]["operations"][0][2][0][0][0][0]


CHANGES = {
    "slot -1": (lambda c: first_slot(c).__setitem__(1, -1), "slot"),
    "slot -5000": (lambda c: first_slot(c).__setitem__(1, -5000), "slot"),
    "slot past the end": (lambda c: first_slot(c).__setitem__(1, 3), "slot w3 does not exist"),
    "slot as text": (lambda c: first_slot(c).__setitem__(1, "0"), "slot"),
    "many weights": (lambda c: c["circuit"].update(n_weights=10**9), "at most"),
    "many qubits": (lambda c: c["circuit"].update(n_qubits=10**9), "at most"),
    "no operations": (lambda c: c["circuit"].pop("operations"), "'operations', which is missing"),
    "more": (lambda c: c.update(more=1), "no entry 'more'"),
    "an unknown measurement": (lambda c: c["measurement"].update(name="nobody"), "no measurement 'nobody'"),
    "another's backend": (lambda c: c.update(backend="aer"), r"allow_backends\('aer'\)"),
}


def test_a_checkpoint_of_tensorflow_tells_its_circuit(tmp_path, monkeypatch):
    def checkpoint(encoding):
        layer = QuantumReadout(2, encoding=encoding, init="normal")
        return layer, tf.train.Checkpoint(model=keras.Sequential([keras.Input((2,)), layer]))

    (saved, of_saved), (same, of_same), (other, of_other) = map(checkpoint, ("angle", "angle", "iqp"))
    before, path = np.array(other.theta), of_saved.save(tmp_path / "new")
    status = of_same.restore(path)
    status.assert_consumed()
    status.assert_existing_objects_matched()
    np.testing.assert_array_equal(same.theta, saved.theta)
    with pytest.raises(SpecError, match="weights of another circuit"):
        of_other.restore(path)
    np.testing.assert_array_equal(other.theta, before)
    with monkeypatch.context() as without:  # one that tells nothing restores
        without.delattr(KerasLayer, "_trackable_children")
        path = of_saved.save(tmp_path / "old")
    again, of_again = checkpoint("angle")
    of_again.restore(path)
    np.testing.assert_array_equal(again.theta, saved.theta)


def test_files_that_were_tampered_with_are_refused(tmp_path):
    """In a process of its own, safe mode on: named errors, no plugin imported, no crash."""
    model_ = keras.Sequential([keras.Input((2,)), QuantumLayer(circuit(), Pauli("ZI"))])
    files = []
    for change, _ in CHANGES.values():
        files.append(str(tmp_path / f"{len(files)}.keras"))
        model_.save(files[-1])
        tampered(files[-1], change)
    code = """
import sys, keras, qstore_tf
from qstore_core import SpecError
for path in sys.argv[1:]:
    try:
        keras.saving.load_model(path)
        print("said: nothing")
    except SpecError as error:
        print("said:", error)
print("said:", "qiskit_aer" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    said = [line for line in done.stdout.splitlines() if line.startswith("said:")]
    assert said.pop() == "said: False"
    for line, (_, message) in zip(said, CHANGES.values(), strict=True):
        assert re.search(message, line), line
