"""Graphs on disk: TensorFlow operations that compute the same, or an error when they are saved."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from qstore_core import Capabilities, CapabilityError
from qstore_tf import QuantumReadout

CALLS_OF_THE_HOST = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def features():
    return tf.constant(np.random.default_rng(0).uniform(0, 1, (3, 4)), tf.float32)


def model(**arguments):
    m = keras.Sequential([keras.Input((4,)), QuantumReadout(2, n_classes=3, seed=0, **arguments)])
    m.predict(features(), verbose=0)  # traced with the host, in this process
    return m


def operations(function):
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]
    return {node.op for node in nodes}


class Sampling:
    """A device: exact engines on the framework's tensors do not compute the same."""

    name, capabilities = "device", Capabilities(exact=False, shots=True)

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        class Executable:
            def forward(self, theta, inputs, *, seed):
                return np.full((len(inputs), measurement.n_outputs(circuit.n_qubits)), 0.5, dtype)

        return Executable()


@pytest.mark.parametrize("backend", ["statevector", "auto"])
def test_an_exported_model_computes_alone(backend, tmp_path):
    m, x = model(backend=backend), features()
    m.export(tmp_path / "exported", verbose=False)
    np.savez(tmp_path / "expected.npz", x=x, y=m(x))
    program = (
        "import sys, numpy as np, tensorflow as tf\n"
        "loaded, data = tf.saved_model.load(sys.argv[1]), np.load(sys.argv[2])\n"
        "np.testing.assert_allclose(loaded.serve(tf.constant(data['x'])), data['y'], rtol=0, atol=1e-6)\n"
        "assert 'qstore_core' not in sys.modules\n"
    )
    arguments = [str(tmp_path / "exported"), str(tmp_path / "expected.npz")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, *arguments], check=True, timeout=300)


@pytest.mark.parametrize("training", [None, False, True])
def test_functions_are_saved_in_operations_also_when_they_were_called_before(training, tmp_path):
    m, x = model(), features()
    run = tf.function(lambda x: {"y": m(x, training=training)}, input_signature=[tf.TensorSpec((None, 4))])
    run(x)
    module = tf.Module()
    module.model, module.run = m, run
    tf.saved_model.save(module, tmp_path / "saved", signatures=run)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.run(x)["y"], m(x), rtol=0, atol=1e-6)
    for function in (loaded.signatures["serving_default"], loaded.run.concrete_functions[0]):
        assert not operations(function) & CALLS_OF_THE_HOST
    assert operations(run.get_concrete_function()) & CALLS_OF_THE_HOST  # and goes on with the host here


def test_a_concrete_function_that_was_asked_for_is_in_operations(tmp_path):
    m, x = model(), features()
    concrete = tf.function(m).get_concrete_function(tf.TensorSpec((None, 4)))
    assert not operations(concrete) & CALLS_OF_THE_HOST
    tf.saved_model.save(m, tmp_path / "saved", signatures=concrete)
    loaded = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    np.testing.assert_allclose(next(iter(loaded(x).values())), m(x), rtol=0, atol=1e-6)


def test_a_concrete_function_that_was_called_is_not_saved(tmp_path):
    m, x = model(), features()
    run = tf.function(m)
    run(x)
    with pytest.raises(CapabilityError, match=r"Save the tf.function itself, or the Keras model"):
        tf.saved_model.save(m, tmp_path / "saved", signatures=run.get_concrete_function(x))
    np.testing.assert_allclose(run(x), m(x))


def test_what_samples_is_refused_at_export(tmp_path):
    m = model(backend=Sampling(), shots=16, fallback=None)
    with pytest.raises(CapabilityError, match="a graph on disk cannot call the host"):
        m.export(tmp_path / "exported", verbose=False)
    assert m(features()).shape == (3, 3)
