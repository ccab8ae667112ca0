"""Jacobians, Hessians, per-sample gradients, vectorised maps and forward mode."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import qstore_core
import qstore_tf
from tests.support.tolerances import EXACT_GRADIENT, FINITE_DIFFERENCE

WRAP = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}

# Every layer, encoding and ansatz; group sizes of one to four qubits, and two groups.
LAYERS = {
    "1 qubit": ("QuantumFeatureExtractor", {"n_qubits": 1, "measurement_bases": ("Z", "X")}),
    "amplitude": ("QuantumFeatureExtractor", {"n_qubits": 2, "measurement_bases": ("Z", "Y")}),
    "angle": ("QuantumFeatureExtractor", {"n_qubits": 3, "encoding": "angle", "reuploading": True}),
    "iqp": ("QuantumPooling", {"n_qubits": 2, "encoding": "iqp"}),
    "zz": ("QuantumReadout", {"n_qubits": 2, "n_classes": 3, "encoding": "zz"}),
    "basis": ("QuantumReadout", {"n_qubits": 3, "encoding": "basis"}),
    "strong": ("QuantumFeatureExtractor", {"n_qubits": 4, "ansatz": "strongly_entangling", "depth": 1}),
    "pooling": ("QuantumPooling", {"n_qubits": 6, "pool_size": 3, "encoding": "angle"}),
    "8 qubits": ("QuantumFeatureExtractor", {"n_qubits": 8, "encoding": "angle", "depth": 1}),
}


def pair(kind, backend="tensorflow", **arguments):
    """A Keras layer, the same layer on NumPy arrays, features, and what the latter takes for them."""
    more = {"seed": 0, "init": "normal"}
    layer = getattr(qstore_tf, kind)(**arguments, **more, backend=backend, dtype="float64")
    bits = arguments.get("encoding") == "basis"  # RY(π) for a 1, which "angle" differentiates
    same = {**arguments, "encoding": "angle"} if bits else arguments
    reference = getattr(qstore_core, kind)(**same, **more, backend="statevector")
    rng = np.random.default_rng(1)
    shape = (2, layer.spec.n_features)
    x = rng.integers(0, 2, shape) * 1.0 if bits else rng.uniform(0.2, 1.2, shape)
    layer.build(shape)
    np.testing.assert_array_equal(layer.theta.numpy(), reference.theta)
    return layer, reference, tf.constant(x), np.pi * x if bits else x


def rows_of_the_jacobian(reference, x):
    """`(d_theta (B, O, W), d_x (B, O, F))`, one vjp per sample and output."""
    pairs = [reference.vjp(row[None], cotangent[None]) for row in x for cotangent in np.eye(reference.output_dim)]
    lead = (len(x), reference.output_dim, -1)
    return np.reshape([d_theta for d_theta, _ in pairs], lead), np.reshape([d_x for _, d_x in pairs], lead)


def jacobians(layer, x, pfor):
    differentiable = layer.spec.encoding.differentiable
    with tf.GradientTape(persistent=True) as tape:
        if differentiable:
            tape.watch(x)
        y = layer(x)
    by_theta = tape.jacobian(y, layer.theta.value, experimental_use_pfor=pfor)
    if not differentiable:
        return [by_theta]
    by_x = tape.jacobian(y, x, experimental_use_pfor=pfor)
    return [by_theta, by_x, tape.batch_jacobian(y, x, experimental_use_pfor=pfor)]


@pytest.mark.parametrize("pfor", [True, False])
@pytest.mark.parametrize(
    ("name", "backend", "how"),
    [
        *((name, "tensorflow", "eager") for name in LAYERS),
        ("iqp", "tensorflow", "graph"), ("amplitude", "tensorflow", "xla"),
        ("basis", "auto", "eager"), ("amplitude", "statevector", "eager"), ("iqp", "auto", "graph"),
    ],
)  # fmt: skip
def test_jacobians_are_rows_of_vjps(name, backend, how, pfor):
    kind, arguments = LAYERS[name]
    layer, reference, x, rows = pair(kind, backend, **arguments)
    d_theta, d_x = rows_of_the_jacobian(reference, rows)
    found = WRAP[how](lambda x: jacobians(layer, x, pfor))(x)
    np.testing.assert_allclose(found[0], d_theta, rtol=0, atol=EXACT_GRADIENT)
    if len(found) > 1:
        diagonal = np.arange(len(x))
        np.testing.assert_allclose(found[1].numpy()[diagonal, :, diagonal], d_x, rtol=0, atol=EXACT_GRADIENT)
        np.testing.assert_allclose(found[2], d_x, rtol=0, atol=EXACT_GRADIENT)


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
@pytest.mark.parametrize(
    ("name", "backend"),
    [("amplitude", "tensorflow"), ("angle", "tensorflow"), ("basis", "tensorflow"), ("angle", "statevector")],
)
def test_gradients_of_each_sample(name, backend, how):
    kind, arguments = LAYERS[name]
    layer, reference, x, rows = pair(kind, backend, **arguments)

    def of_one(row):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(layer(row[None]))
        return y, tape.gradient(y, layer.theta.value)

    values, by_theta = WRAP[how](lambda x: tf.vectorized_map(of_one, x))(x)
    d_theta, _ = rows_of_the_jacobian(reference, rows)
    np.testing.assert_allclose(values, reference(rows).sum(1), rtol=0, atol=EXACT_GRADIENT)
    np.testing.assert_allclose(by_theta, d_theta.sum(1), rtol=0, atol=EXACT_GRADIENT)


@pytest.mark.parametrize("pfor", [True, False])
@pytest.mark.parametrize(
    ("name", "backend", "how"),
    [
        ("amplitude", "tensorflow", "eager"), ("iqp", "tensorflow", "graph"), ("1 qubit", "tensorflow", "xla"),
        ("amplitude", "auto", "eager"), ("iqp", "statevector", "graph"),
    ],
)  # fmt: skip
def test_hessians_are_slopes_of_gradients(name, backend, how, pfor):
    kind, arguments = LAYERS[name]
    layer, reference, x, rows = pair(kind, backend, **arguments)

    def hessians(x):
        theta = layer.theta.value
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(x)
            with tf.GradientTape(persistent=True) as inner:
                inner.watch(x)
                y = tf.reduce_sum(layer(x) ** 2)  # its upstream gradient depends on theta and x, too
            by_theta, by_x = inner.gradient(y, [theta, x])
        return [
            outer.jacobian(by_theta, theta, experimental_use_pfor=pfor),
            outer.jacobian(by_theta, x, experimental_use_pfor=pfor),
            outer.jacobian(by_x, x, experimental_use_pfor=pfor),
        ]

    step = 1e-5

    def gradient(of):
        return reference.vjp(rows, 2 * reference(rows))[of].copy()

    def slope(values, of):
        """Central differences of gradient number `of`, by the entries of `values`, which is changed in place."""
        columns = []
        for index in np.ndindex(values.shape):
            before = values[index]
            values[index] = before + step
            up = gradient(of)
            values[index] = before - step
            columns.append((up - gradient(of)) / (2 * step))
            values[index] = before
        return np.stack(columns, -1)

    found = WRAP[how](hessians)(x)
    expected = [slope(reference.theta, 0), slope(rows, 0), slope(rows, 1)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.reshape(one, other.shape), other, rtol=0, atol=FINITE_DIFFERENCE)


def test_third_derivatives_of_a_cosine():
    """RY(x), then RY(w): ⟨Z⟩ = cos(x + w)."""
    circuit = qstore_core.Circuit(1)
    circuit.ry(circuit.inputs(1)[0], 0)
    circuit.ry(circuit.weights(1)[0], 0)
    layer = qstore_tf.QuantumLayer(circuit, qstore_core.Pauli("Z"), backend="tensorflow", dtype="float64", seed=0)
    x = tf.constant([[0.3], [1.1]], "float64")
    layer(x)
    angle = x.numpy() + layer.theta.numpy()

    def nth(x, order):
        if order == 0:
            return layer(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = nth(x, order - 1)
        return tape.gradient(y, x)

    for order, expected in enumerate([np.cos(angle), -np.sin(angle), -np.cos(angle), np.sin(angle), np.cos(angle)]):
        np.testing.assert_allclose(nth(x, order), expected, rtol=0, atol=EXACT_GRADIENT)


# -- forward mode ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eager", "graph"])
@pytest.mark.parametrize("backend", ["tensorflow", "statevector", "auto"])
@pytest.mark.parametrize("name", ["amplitude", "zz", "basis"])
def test_tangents_are_products_with_the_jacobian(name, backend, how):
    kind, arguments = LAYERS[name]
    layer, reference, x, rows = pair(kind, backend, **arguments)
    d_theta, d_x = rows_of_the_jacobian(reference, rows)
    rng = np.random.default_rng(2)
    t_theta, t_x = rng.normal(size=layer.theta.shape), rng.normal(size=x.shape)

    def tangent(primal, tangent, training):
        with tf.autodiff.ForwardAccumulator(primal, tf.constant(tangent)) as accumulator:
            y = layer(x, training=training)
        return accumulator.jvp(y)

    for layer.trainable, training in [(True, None), (True, True), (False, False)]:
        run = WRAP[how](lambda training=training: tangent(layer.theta.value, t_theta, training))
        np.testing.assert_allclose(run(), d_theta @ t_theta, rtol=0, atol=EXACT_GRADIENT)
        run = WRAP[how](lambda training=training: tangent(x, t_x, training))
        if name == "basis":
            with pytest.raises(qstore_core.GradientError, match="no gradient for its inputs"):
                run()
            continue
        expected = np.einsum("bof,bf->bo", d_x, t_x)
        np.testing.assert_allclose(run(), expected, rtol=0, atol=EXACT_GRADIENT)


def test_an_accumulator_outside_of_a_function():
    layer, reference, x, rows = pair("QuantumReadout", "auto", n_qubits=2, encoding="angle")
    d_theta, _ = rows_of_the_jacobian(reference, rows)
    t = np.linspace(-1, 1, layer.spec.n_weights)

    def tangent(run):
        with tf.autodiff.ForwardAccumulator(layer.theta.value, tf.constant(t)) as accumulator:
            y = run(x)
        return accumulator.jvp(y)

    traced_with_tangents = tf.function(layer)
    for _ in range(2):
        np.testing.assert_allclose(tangent(traced_with_tangents), d_theta @ t, rtol=0, atol=EXACT_GRADIENT)
    traced_before = tf.function(layer)
    traced_before(x)
    with pytest.raises(qstore_core.GradientError, match="Put the accumulator inside"):
        tangent(traced_before)


@pytest.mark.parametrize("how", ["eager", "graph"])
def test_tangents_of_the_upstream_gradient(how):
    """Neither theta nor x has a tangent, but what the outputs are multiplied by."""
    layer, reference, x, rows = pair("QuantumReadout", "auto", n_qubits=2, encoding="angle")

    def tangent():
        scale = tf.constant(2.0, tf.float64)
        with tf.autodiff.ForwardAccumulator(scale, tf.constant(3.0, tf.float64)) as accumulator:
            with tf.GradientTape() as tape:
                y = tf.reduce_sum(layer(x) * scale)
            gradient = tape.gradient(y, layer.theta.value)
        return accumulator.jvp(gradient)

    expected = 3 * reference.vjp(rows, np.ones((len(rows), layer.output_dim)))[0]
    np.testing.assert_allclose(WRAP[how](tangent)(), expected, rtol=0, atol=EXACT_GRADIENT)


@pytest.mark.parametrize("how", ["eager", "graph"])
def test_hessian_vector_products_forward_over_reverse(how):
    layer, reference, x, rows = pair("QuantumReadout", "auto", n_qubits=2, encoding="angle")
    theta, direction = layer.theta.value, tf.constant(np.random.default_rng(3).normal(size=layer.theta.shape))

    def product():
        with tf.autodiff.ForwardAccumulator(theta, direction) as accumulator:
            with tf.GradientTape() as tape:
                y = tf.reduce_sum(layer(x))
            gradient = tape.gradient(y, theta)
        return accumulator.jvp(gradient)

    step, ones, start = 1e-5, np.ones((len(rows), layer.output_dim)), reference.theta.copy()
    reference.theta = start + step * direction.numpy()
    up = reference.vjp(rows, ones)[0]
    reference.theta = start - step * direction.numpy()
    expected = (up - reference.vjp(rows, ones)[0]) / (2 * step)
    np.testing.assert_allclose(WRAP[how](product)(), expected, rtol=0, atol=FINITE_DIFFERENCE)


@pytest.mark.parametrize("how", ["eager", "graph"])
def test_forward_over_forward(how):
    """Twice along one direction: what the gradient's slope along it says."""
    layer, _, x, _ = pair("QuantumReadout", "auto", n_qubits=1)
    v = tf.constant([[0.3, -0.2], [0.1, 0.4]], tf.float64)

    def twice(x):
        with tf.autodiff.ForwardAccumulator(x, v) as outer:
            with tf.autodiff.ForwardAccumulator(x, v) as inner:
                y = layer(x)
            tangent = inner.jvp(y)
        return outer.jvp(tangent)

    def tangent(x):
        with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
            y = layer(x)
        return accumulator.jvp(y)

    expected = (tangent(x + 1e-5 * v) - tangent(x - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(WRAP[how](twice)(x), expected, rtol=0, atol=FINITE_DIFFERENCE)


@pytest.mark.parametrize("how", ["eager", "graph"])
@pytest.mark.parametrize("gradient", ["parameter-shift", "finite-difference", "spsa"])
def test_what_has_no_circuit_in_operations_refuses_tangents_and_maps(gradient, how):
    layer = qstore_tf.QuantumReadout(2, encoding="angle", gradient=gradient, backend="statevector", seed=0)
    x = tf.constant([[0.2, 0.4], [0.1, 0.3]])
    layer(x)
    t = tf.ones_like(layer.theta.value)

    def tangent():
        with tf.autodiff.ForwardAccumulator(layer.theta.value, t) as accumulator:
            y = layer(x)
        return accumulator.jvp(y)

    def jacobian(pfor):
        with tf.GradientTape(persistent=True) as tape:
            y = layer(x)
        return tape.jacobian(y, layer.theta.value, experimental_use_pfor=pfor)

    with pytest.raises(qstore_core.GradientError, match="tangents need a circuit in TensorFlow operations"):
        WRAP[how](tangent)()
    with pytest.raises(qstore_core.GradientError, match="experimental_use_pfor=False"):
        WRAP[how](lambda: jacobian(True))()
    with pytest.raises(qstore_core.CapabilityError, match=r"tf.vectorized_map needs a circuit"):
        WRAP[how](lambda: tf.vectorized_map(lambda row: layer(row[None]), x))()
    if gradient != "spsa":
        exact = qstore_tf.QuantumReadout(2, encoding="angle", backend="tensorflow", seed=0)
        exact(x)
        with tf.GradientTape() as tape:
            y = exact(x)
        expected = tape.jacobian(y, exact.theta.value)
        np.testing.assert_allclose(WRAP[how](lambda: jacobian(False))(), expected, rtol=0, atol=1e-5)
