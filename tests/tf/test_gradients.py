"""Derivatives through the Keras layers: first, second, in graphs and under XLA, and refused ones."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from qstore_core import Circuit, GradientError, Pauli
from qstore_tf import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
from tests.support.faults import FaultyBackend

BACKENDS = ("tensorflow", "statevector", "auto")


def point(layer, rows=3, seed=0):
    x = np.random.default_rng(seed).uniform(0.2, 1.2, (rows, layer.spec.n_features))
    return tf.constant(x, layer.compute_dtype)


def gradients(layer, x, training=True):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.square(layer(x, training=training)))
    return tape.gradient(loss, [*layer.trainable_variables, x])


def close(actual, expected, atol=1e-9):
    for a, e in zip(actual, expected, strict=True):
        assert isinstance(a, tf.Tensor)  # neither None nor IndexedSlices
        np.testing.assert_allclose(a, e, rtol=0, atol=atol)


def difference(function, x, step=1e-6):
    """Central differences of a scalar function of an array."""
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        bump = np.zeros(x.shape)
        bump[index] = step
        out[index] = (function(x + bump) - function(x - bump)) / (2 * step)
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "make",
    [
        lambda **more: QuantumFeatureExtractor(2, measurement_bases=("X", "Y"), **more),
        lambda **more: QuantumPooling(2, encoding="iqp", **more),
        lambda **more: QuantumReadout(2, n_classes=3, encoding="angle", reuploading=True, depth=2, **more),
    ],
)
def test_gradients_are_slopes(backend, make):
    layer = make(backend=backend, dtype="float64", init="normal", seed=0)
    x = point(layer, rows=2)
    d_theta, d_x = gradients(layer, x)
    theta = layer.theta.numpy()
    graph = tf.function(lambda x: tf.reduce_sum(tf.square(layer(x))))

    def loss(theta, x):
        layer.theta.assign(theta)
        return float(graph(tf.constant(x)))

    np.testing.assert_allclose(d_theta, difference(lambda t: loss(t, x), theta), rtol=0, atol=1e-6)
    np.testing.assert_allclose(d_x, difference(lambda v: loss(theta, v), x.numpy()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("encoding", ["amplitude", "angle", "zz"])
def test_graphs_agree_with_eager_calls(backend, encoding):
    layer = QuantumReadout(3, n_classes=5, encoding=encoding, backend=backend, dtype="float64", seed=0)
    x = point(layer)
    expected = gradients(layer, x)
    close(tf.function(lambda x: gradients(layer, x))(x), expected)
    run = tf.function(layer)
    with tf.GradientTape() as tape:  # the tape outside of the graph
        tape.watch(x)
        loss = tf.reduce_sum(tf.square(run(x)))
    close(tape.gradient(loss, [layer.theta.value, x]), expected)


@pytest.mark.parametrize(
    ("backend", "encoding"), [("tensorflow", "amplitude"), ("tensorflow", "zz"), ("auto", "angle")]
)
def test_xla_agrees_with_eager_calls(backend, encoding):
    layer = QuantumFeatureExtractor(
        3, encoding=encoding, measurement_bases=("Z", "X"), backend=backend, dtype="float64", seed=0
    )
    x = point(layer)
    expected = layer(x), gradients(layer, x)
    close([tf.function(lambda x: layer(x, training=True), jit_compile=True)(x)], [expected[0]])
    close(tf.function(lambda x: gradients(layer, x), jit_compile=True)(x), expected[1])


def gradient_penalty(layer, x, training):
    """(|dy/dx| - 1)², as in a Wasserstein GAN: the upstream gradient of y is a constant."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(layer(x, training=training))
    slope = tape.gradient(y, x)
    return tf.reduce_sum(tf.square(tf.norm(slope, axis=1) - 1))


def penalty_gradients(layer, x, training=True):
    with tf.GradientTape() as tape:
        tape.watch(x)
        penalty = gradient_penalty(layer, x, training)
    return tape.gradient(penalty, [*layer.trainable_variables, x])


WRAP = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}


@pytest.mark.parametrize(
    ("backend", "how"), [("tensorflow", "eager"), ("tensorflow", "xla"), ("auto", "eager"), ("auto", "graph")]
)
def test_a_gradient_penalty_trains(how, backend):
    layer = QuantumFeatureExtractor(2, backend=backend, dtype="float64", seed=0)
    x = point(layer)
    layer(x)
    d_theta, d_x = WRAP[how](lambda x: penalty_gradients(layer, x))(x)
    theta = layer.theta.numpy()
    graph = tf.function(lambda x: gradient_penalty(layer, x, training=False))

    def penalty(theta, x):
        layer.theta.assign(theta)
        return float(graph(tf.constant(x)))

    np.testing.assert_allclose(d_theta, difference(lambda t: penalty(t, x), theta), rtol=0, atol=1e-6)
    np.testing.assert_allclose(d_x, difference(lambda v: penalty(theta, v), x.numpy()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
@pytest.mark.parametrize("backend", ["auto", "tensorflow"])
def test_derivatives_of_constant_outputs_are_zeros(how, backend):
    circuit = Circuit(2)
    (x0,), (w0,) = circuit.inputs(1), circuit.weights(1)
    circuit.rz(w0, 0)
    circuit.ry(x0, 1)
    layer = QuantumLayer(circuit, [Pauli("ZI"), Pauli("II")], backend=backend, dtype="float64")
    x = tf.constant([[0.3], [0.4]], tf.float64)
    layer(x)
    variables = [layer.theta.value, x]

    def derivatives():
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(tf.square(layer(x, training=True)))
            slopes = inner.gradient(loss, variables)
        return slopes + [second for slope in slopes for second in outer.jacobian(slope, variables)]

    found = (derivatives if how == "eager" else tf.function(derivatives, jit_compile=how == "xla"))()
    close(found, [np.zeros(d.shape) for d in found], atol=0.0)


@pytest.mark.parametrize("how", ["eager", "graph"])
@pytest.mark.parametrize("upstream", ["constant", "variable"])
@pytest.mark.parametrize("wanted", ["theta", "inputs"])
def test_a_second_derivative_through_the_host_is_refused_not_zero(how, upstream, wanted):
    layer = QuantumFeatureExtractor(2, backend=FaultyBackend("host", None))
    x = point(layer)
    layer(x)

    def second(x):
        source = layer.theta.value if wanted == "theta" else x
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = layer(x)
                loss = tf.reduce_sum(y if upstream == "constant" else y * y)
            slope = inner.gradient(loss, x)
        return outer.gradient(slope, source)

    with pytest.raises(GradientError, match="second derivatives"):
        WRAP[how](second)(x)
    close(tf.function(lambda x: gradients(layer, x))(x), gradients(layer, x), atol=1e-6)  # still usable


@pytest.mark.parametrize("how", ["eager", "graph"])
@pytest.mark.parametrize("backend", ["tensorflow", "auto"])
def test_what_is_computed_again_has_the_same_gradients(how, backend):
    arguments = {"n_qubits": 1, "backend": backend, "seed": 0, "dtype": "float64"}
    layer = QuantumReadout(**arguments)
    with keras.RematScope(mode="full"):
        again = QuantumReadout(**arguments)
    x = point(layer)
    expected = gradients(layer, x)
    again(x)

    def run(call, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.square(call(x))
        return tape.gradient(y, [*tape.watched_variables(), x])

    for call in (tf.recompute_grad(lambda x: layer(x)), again):
        close(WRAP[how](lambda x, call=call: run(call, x))(x), expected)


@pytest.mark.parametrize("how", ["eager", "graph"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_basis_encoding_refuses_input_gradients(how, backend):
    layer = QuantumReadout(2, encoding="basis", backend=backend, seed=0)
    bits = tf.constant([[0.0, 1.0], [1.0, 1.0]])
    layer(bits)

    def by(source):
        def run(bits):
            with tf.GradientTape() as tape:
                if source == "inputs":
                    tape.watch(bits)
                y = tf.square(layer(bits, training=True))  # the outputs' own gradients cancel
            return tape.gradient(y, layer.theta.value if source == "theta" else bits)

        return WRAP[how](run)(bits)

    def tangent(bits):
        with tf.autodiff.ForwardAccumulator(bits, tf.ones_like(bits)) as accumulator:
            y = layer(bits)
        return accumulator.jvp(y)

    for refused in (lambda: by("inputs"), lambda: WRAP[how](tangent)(bits)):
        with pytest.raises(GradientError, match="no gradient for its inputs"):
            refused()
    assert np.abs(by("theta")).sum() > 0
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), layer])
    model.compile("sgd", "mse", run_eagerly=how == "eager")
    with pytest.raises(GradientError, match="bits do not vary continuously"):  # Dense makes no bits
        model.fit(bits, tf.zeros((2, 2)), verbose=0)
    alone = keras.Sequential([keras.Input((2,)), layer])
    alone.compile("sgd", "mse")
    alone.fit(bits, tf.zeros((2, 2)), verbose=0)


def test_a_tape_outside_of_a_graph_says_where_to_put_it():
    layer = QuantumReadout(2, encoding="basis", seed=0)
    bits = tf.constant([[0.0, 1.0], [1.0, 1.0]])
    layer(bits)
    run = tf.function(lambda bits: layer(tf.stop_gradient(bits)))
    with tf.GradientTape(), pytest.raises(GradientError, match="put the tape inside"):
        run(bits)

    @tf.function
    def step(bits):
        with tf.GradientTape() as tape:
            y = layer(bits)
        return tape.gradient(y, layer.theta.value)

    assert np.abs(step(bits)).sum() > 0


def test_parameter_shift_has_no_amplitude_gradient():
    layer = QuantumReadout(2, gradient="parameter-shift", backend="statevector")
    x = point(layer)
    layer(x)
    with tf.GradientTape() as tape:
        y = layer(x)
    assert np.abs(tape.gradient(y, layer.theta.value)).sum() > 0
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    with pytest.raises(GradientError, match="parameter-shift"):
        tape.gradient(y, x)


def test_parameter_shift_agrees():
    for encoding in ("angle", "zz"):
        results = []
        for gradient in ("auto", "parameter-shift"):
            layer = QuantumReadout(
                2, encoding=encoding, gradient=gradient, backend="tensorflow", seed=0, depth=2, dtype="float64"
            )
            results.append(gradients(layer, point(layer)))
        close(*results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_persistent_tapes_and_jacobians(backend):
    layer = QuantumFeatureExtractor(2, backend=backend, dtype="float64", seed=0)
    x = point(layer)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = layer(x)
        parts = [y[:, k] for k in range(2)]
    rows = [tape.gradient(part, x) for part in parts]
    jacobian = tape.batch_jacobian(y, x, experimental_use_pfor=backend != "statevector")
    np.testing.assert_allclose(jacobian, np.stack(rows, axis=1), atol=1e-12)


def test_encoder_gradients():
    layer = QuantumEncoder(2, dtype="float64")
    x = point(layer)
    (d_x,) = gradients(layer, x)
    np.testing.assert_allclose(d_x, 0, atol=1e-12)  # |unit row|² is 1 whatever x is
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)[:, 0]
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.eye(1, 4) / norm - x[:, :1] * x / norm**3
    np.testing.assert_allclose(tape.gradient(y, x), expected, atol=1e-12)
