"""A chain of 40 qubits in Keras: on the host, in TensorFlow operations and in a graph."""

import numpy as np
import pytest
import tensorflow as tf

import qstore_core
from qstore_tf import QuantumFeatureExtractor
from tests.support.tolerances import EXACT, EXACT_GRADIENT


@pytest.mark.parametrize(("backend", "compiled"), [("auto", False), ("auto", True), ("tensorflow", False)])
def test_a_chain_equals_that_on_arrays(backend, compiled):
    arguments = {"depth": 2, "encoding": "angle", "entanglement": "linear", "seed": 0, "init": "uniform"}
    plain = qstore_core.QuantumFeatureExtractor(40, **arguments)
    x, cotangents = np.random.default_rng(0).normal(size=(2, 3, 40))
    layer = QuantumFeatureExtractor(40, **arguments, backend=backend, dtype="float64")
    layer.build((None, 40))
    layer.theta.assign(plain.theta)

    def both(rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            out = layer(rows)
        return out, *tape.gradient(out, [layer.theta, rows], tf.constant(cotangents))

    got = (tf.function(both, autograph=False) if compiled else both)(tf.constant(x))
    wanted, tolerances = (plain(x), *plain.vjp(x, cotangents)), (EXACT, EXACT_GRADIENT, EXACT_GRADIENT)
    for own, expected, atol in zip(got, wanted, tolerances, strict=True):
        np.testing.assert_allclose(own, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("compiled", [False, True])
def test_memory_is_asked_for_first(compiled, monkeypatch):
    monkeypatch.setattr("qstore_core.engines.memory.available_memory", lambda: 1 << 20)
    layer = QuantumFeatureExtractor(10, depth=1, encoding="angle", backend="tensorflow")
    layer.build((None, 10))  # a variable that is made in a tf.function that fails is left without a value, as of Dense
    call = tf.function(layer, jit_compile=True) if compiled else layer
    with pytest.raises(qstore_core.MemoryLimitError, match="20000 rows of 10 qubits"):
        call(tf.zeros((20_000, 10)))
    assert layer(tf.zeros((2, 10))).shape == (2, 10)
