"""Jacobians, Hessians, per-sample gradients and vectorised maps of the engine in TensorFlow operations."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import qstore_core
import qstore_tf
from tests.tolerances import EXACT_GRADIENT, FINITE_DIFFERENCE

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


def pair(kind, **arguments):
    """A Keras layer on the engine, the same layer on NumPy arrays, features, and what the latter takes for them."""
    more = {"seed": 0, "init": "normal"}
    layer = getattr(qstore_tf, kind)(**arguments, **more, backend="tensorflow", dtype="float64")
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
    ("name", "how"),
    [(name, "eager") for name in LAYERS] + [("iqp", "graph"), ("amplitude", "xla"), ("angle", "xla")],
)
def test_jacobians_are_rows_of_vjps(name, how, pfor):
    kind, arguments = LAYERS[name]
    layer, reference, x, rows = pair(kind, **arguments)
    d_theta, d_x = rows_of_the_jacobian(reference, rows)
    found = WRAP[how](lambda x: jacobians(layer, x, pfor))(x)
    np.testing.assert_allclose(found[0], d_theta, rtol=0, atol=EXACT_GRADIENT)
    if len(found) > 1:
        diagonal = np.arange(len(x))
        np.testing.assert_allclose(found[1].numpy()[diagonal, :, diagonal], d_x, rtol=0, atol=EXACT_GRADIENT)
        np.testing.assert_allclose(found[2], d_x, rtol=0, atol=EXACT_GRADIENT)


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
@pytest.mark.parametrize("name", ["amplitude", "angle", "basis"])
def test_gradients_of_each_sample(name, how):
    kind, arguments = LAYERS[name]
    layer, reference, x, rows = pair(kind, **arguments)

    def of_one(row):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(layer(row[None]))
        return y, tape.gradient(y, layer.theta.value)

    values, by_theta = WRAP[how](lambda x: tf.vectorized_map(of_one, x))(x)
    d_theta, _ = rows_of_the_jacobian(reference, rows)
    np.testing.assert_allclose(values, reference(rows).sum(1), rtol=0, atol=EXACT_GRADIENT)
    np.testing.assert_allclose(by_theta, d_theta.sum(1), rtol=0, atol=EXACT_GRADIENT)


@pytest.mark.parametrize("pfor", [True, False])
@pytest.mark.parametrize(("name", "how"), [("amplitude", "eager"), ("zz", "graph"), ("angle", "xla")])
def test_hessians_are_slopes_of_gradients(name, how, pfor):
    kind, arguments = LAYERS[name]
    layer, reference, x, rows = pair(kind, **arguments)

    def hessians(x):
        theta = layer.theta.value
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(x)
            with tf.GradientTape(persistent=True) as inner:
                inner.watch(x)
                y = tf.reduce_sum(layer(x))
            by_theta, by_x = inner.gradient(y, [theta, x])
        return [
            outer.jacobian(by_theta, theta, experimental_use_pfor=pfor),
            outer.jacobian(by_theta, x, experimental_use_pfor=pfor),
            outer.jacobian(by_x, x, experimental_use_pfor=pfor),
        ]

    step, ones = 1e-5, np.ones((len(x), layer.output_dim))

    def slope(values, of):
        """Central differences of gradient number `of`, by the entries of `values`, which is changed in place."""
        columns = []
        for index in np.ndindex(values.shape):
            before = values[index]
            values[index] = before + step
            up = reference.vjp(rows, ones)[of].copy()
            values[index] = before - step
            columns.append((up - reference.vjp(rows, ones)[of]) / (2 * step))
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
