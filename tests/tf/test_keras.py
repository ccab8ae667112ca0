"""What Keras users expect of every layer: initialisers and their kind, masks, odd inputs, Keras's own layer test."""

from __future__ import annotations

import json
from importlib import import_module

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.testing import TestCase

import qstore_tf
from qstore_core import Circuit, InputError, Pauli, ShapeError, SpecError
from qstore_tf import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
from tests.support.outcomes import KERAS

# Keras reads its variables for h5 files with a call that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

BACKENDS = ("tensorflow", "statevector", "auto")


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, shape).astype("float32")


def circuit():
    c = Circuit(2)
    x, w = c.inputs(2), c.weights(2)
    c.ry(x[0] + w[0], 0)
    c.rx(x[1] * w[1], 1)
    c.cnot(0, 1)
    return c


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed", "ignore:The model does not have any trainable weights")
@pytest.mark.parametrize(
    ("name", "arguments", "features"),
    [
        ("QuantumEncoder", {"n_qubits": 2}, 4),
        ("QuantumFeatureExtractor", {"n_qubits": 2, "seed": 1}, 4),
        ("QuantumPooling", {"n_qubits": 2, "encoding": "angle", "theta_regularizer": "l2"}, 2),
        ("QuantumReadout", {"n_qubits": 2, "n_classes": 3, "backend": "tensorflow"}, 4),
        ("QuantumLayer", {"circuit": circuit(), "measurement": Pauli("ZI"), "theta_initializer": "ones"}, 2),
    ],
)
def test_kerass_own_layer_test(name, arguments, features):
    layer = getattr(qstore_tf, name)
    TestCase().run_layer_test(
        layer,
        arguments,
        input_shape=(3, features),
        expected_output_shape=(3, layer(**arguments).output_dim),
        expected_num_trainable_weights=0 if name == "QuantumEncoder" else 1,
        expected_num_losses=1 if "theta_regularizer" in arguments else 0,
        supports_masking=True,
    )


# -- theta ---------------------------------------------------------------------------------------------------------


def test_initialiser_regulariser_and_constraint_by_name_and_as_objects(tmp_path):
    for arguments in (
        {"theta_initializer": "ones", "theta_regularizer": "l2", "theta_constraint": "unit_norm"},
        {
            "theta_initializer": keras.initializers.Ones(),
            "theta_regularizer": keras.regularizers.L2(0.01),
            "theta_constraint": keras.constraints.UnitNorm(),
        },
    ):
        layer = QuantumReadout(2, **arguments, name="head")
        layer.build((None, 4))
        np.testing.assert_array_equal(layer.theta, np.ones(4))
        assert isinstance(layer.theta.regularizer, keras.regularizers.L2)
        assert float(layer.losses[0]) == pytest.approx(0.04)
        config = json.loads(json.dumps(layer.get_config()))
        assert QuantumReadout.from_config(config).get_config() == layer.get_config()
        model = keras.Sequential([keras.Input((4,)), layer])
        model.compile("sgd", "mse")
        model.fit(uniform(4, 4), uniform(4, 2), verbose=0)
        assert np.linalg.norm(layer.theta) == pytest.approx(1, abs=1e-6)  # the constraint holds
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
        assert again.get_config() == layer.get_config()
        np.testing.assert_array_equal(again.theta, layer.theta)


def test_what_is_no_initialiser_is_refused():
    with pytest.raises(SpecError, match="theta_regularizer is a Keras regularizer or the name of one, received 'l7'"):
        QuantumReadout(2, theta_regularizer="l7")
    with pytest.raises(SpecError, match="both say how theta begins"):
        QuantumReadout(2, theta_initializer="ones", init="zeros")
    with pytest.raises(SpecError, match="no weights"):
        QuantumEncoder(2, theta_constraint="unit_norm")
    with pytest.raises(SpecError, match="Did you mean 'theta_regularizer'"):
        QuantumReadout(2, theta_regulariser="l2")


# -- masks and odd inputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_lstm_after_masking_does_not_see_the_padding(backend):
    keras.utils.set_random_seed(1)
    layers = [
        QuantumFeatureExtractor(2, encoding="angle", backend=backend, seed=0),
        keras.layers.LSTM(3),
    ]
    masked = keras.Sequential([keras.Input((None, 2)), keras.layers.Masking(), *layers])
    plain = keras.Sequential([keras.Input((None, 2)), *layers])
    x = uniform(4, 5, 2)
    padded = np.concatenate([x, np.zeros((4, 3, 2), "float32")], axis=1)
    for call in (lambda model, x: model(x), lambda model, x: model.predict(x, verbose=0)):
        np.testing.assert_allclose(call(masked, padded), call(plain, x), atol=1e-6)
    assert np.abs(plain(padded) - plain(x)).max() > 1e-3


def test_what_is_not_one_tensor_is_computed_or_refused_by_name():
    layer, x = QuantumReadout(2, seed=0), uniform(2, 4)
    for same in (x.tolist(), tf.sparse.from_dense(x), tf.constant(x)[:, ::-1][:, ::-1], tf.transpose(tf.transpose(x))):
        np.testing.assert_allclose(layer(same), layer(x), atol=1e-6)
    for bad, message in [
        ([tf.constant(x), tf.constant(x)], "received a list of 2. Join them first"),
        ({"a": tf.constant(x)}, "received a dict of 1"),
        (tf.ragged.constant([[1.0], [1.0, 2.0]]), r"ragged tensor. Pad it: x.to_tensor\(\)"),
        (np.ma.masked_array(x, x > 0.5), r"with a mask, which it would ignore"),
        ([[1.0, 2.0], [1.0]], "takes an array of numbers"),
        (np.array([[None] * 4]), "takes real numbers, received dtype object"),
        (np.array([["a"] * 4]), "takes real numbers, received dtype <U1"),
        (x + 0j, "takes real numbers, received dtype complex"),
    ]:
        with pytest.raises(InputError, match=message):
            layer(bad)
    with pytest.raises(InputError, match="received a list of 2"):
        layer([keras.Input((4,)), keras.Input((4,))])
    with pytest.raises(ShapeError, match="takes one tensor"):
        QuantumReadout(2).build([(None, 4), (None, 4)])
    with pytest.raises(ShapeError, match=r"of unknown rank. Set its shape"):
        tf.function(layer, input_signature=[tf.TensorSpec(None)])(x)
    assert layer(x).shape == (2, 2)


@pytest.mark.parametrize("how", ["eager", "graph"])
def test_the_profiler_shows_the_layer_by_name(how, tmp_path):
    layer, x = QuantumReadout(2, name="head_of_the_model"), tf.constant(uniform(2, 4))
    call = layer if how == "eager" else tf.function(layer)
    call(x)
    tf.profiler.experimental.start(str(tmp_path))
    call(x)
    tf.profiler.experimental.stop()
    (trace,) = tmp_path.rglob("*.xplane.pb")
    assert b"head_of_the_model" in trace.read_bytes()


def test_input_spec_is_what_the_layer_takes():
    angles = QuantumReadout(3, encoding="angle")
    angles.build((None, 3))
    assert (angles.input_spec.min_ndim, angles.input_spec.axes) == (2, {-1: 3})
    amplitudes = QuantumLayer(circuit(), Pauli("ZI"))
    amplitudes(uniform(2, 2))
    assert amplitudes.input_spec.min_ndim == 2
    pooling = QuantumPooling(2)
    for features in (4, 3):  # fewer amplitudes are padded
        assert pooling(uniform(2, features)).shape == (2, 1)


@pytest.mark.parametrize("test", [row[3] for row in KERAS])
def test_every_row_of_the_table_has_its_test(test):
    module, function = test.split(".")
    assert callable(getattr(import_module(f"tests.tf.{module}"), function))
