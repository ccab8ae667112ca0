"""Second and third derivatives of the layers equal PennyLane's."""

from __future__ import annotations

import numpy as np
import pytest

from qstore_core import Circuit, Pauli, QuantumLayer
from tests.support.tolerances import GRADIENT

torch, _ = pytest.importorskip("torch"), pytest.importorskip("pennylane")
RNG = np.random.default_rng(0)
THETA, X, ALONG = RNG.normal(size=3), RNG.normal(size=(2, 2)), RNG.normal(size=7)


def circuit():
    c = Circuit(2)
    x, w = c.inputs(2), c.weights(3)
    c.ry(x[0], 0)
    c.rx(x[1] * w[0], 1)
    c.cnot(0, 1)
    c.rz(w[1], 0)
    c.crx(2 * w[2], 1, 0)
    return c


ARGUMENTS = circuit(), [Pauli("ZX"), Pauli("YI") + 0.5 * Pauli("XX")]


def by_torch(values):
    """Of the sum of squares f: H v and the gradient of v H v, for all variables in one row."""
    z = torch.tensor(np.concatenate([THETA, X.ravel()]), requires_grad=True)
    v = torch.tensor(ALONG)
    loss = values(z[:3], z[3:].reshape(2, 2)).square().sum()
    (slope,) = torch.autograd.grad(loss, z, create_graph=True)
    (second,) = torch.autograd.grad(slope @ v, z, create_graph=True)
    (third,) = torch.autograd.grad(second @ v, z)
    return second.detach().numpy(), third.numpy()


@pytest.fixture(scope="module")
def expected():
    from tests.backends.test_reference_libraries import by_pennylane

    return by_torch(lambda theta, x: by_pennylane(QuantumLayer(*ARGUMENTS), theta, x))


def check(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=GRADIENT["float64"] * np.abs(b).max())


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_torch(backend, expected):
    import qstore_torch

    layer = qstore_torch.QuantumLayer(*ARGUMENTS, backend=backend)
    check(by_torch(lambda theta, x: torch.func.functional_call(layer, {"theta": theta}, (x,))), expected)


@pytest.mark.parametrize("backend", ["auto", "tensorflow"])
def test_keras(backend, expected):
    tf = pytest.importorskip("tensorflow")
    import qstore_tf

    layer = qstore_tf.QuantumLayer(*ARGUMENTS, backend=backend, dtype="float64")
    layer.build(X.shape)
    layer.theta.assign(THETA)
    x, parts = tf.constant(X), [ALONG[:3], ALONG[3:].reshape(2, 2)]
    variables = [layer.theta.value, x]

    def along(gradients):
        return tf.add_n([tf.reduce_sum(g * v) for g, v in zip(gradients, parts, strict=True)])

    with tf.GradientTape() as third:
        third.watch(x)
        with tf.GradientTape() as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                loss = tf.reduce_sum(tf.square(layer(x, training=True)))
            slope = along(first.gradient(loss, variables))
        seconds = second.gradient(slope, variables)
        curvature = along(seconds)
    flat = [np.concatenate([np.ravel(g) for g in gs]) for gs in (seconds, third.gradient(curvature, variables))]
    check(flat, expected)


def test_jax(expected):
    jax = pytest.importorskip("jax")
    import qstore_jax

    layer = qstore_jax.QuantumLayer(*ARGUMENTS)
    with jax.enable_x64(True):
        z, v = jax.numpy.asarray(np.concatenate([THETA, X.ravel()])), jax.numpy.asarray(ALONG)
        loss = lambda z: (layer.apply(z[:3], z[3:].reshape(2, 2)) ** 2).sum()  # noqa: E731
        second = lambda z: jax.jvp(jax.grad(loss), (z,), (v,))[1]  # noqa: E731
        found = jax.jit(lambda z: jax.jvp(second, (z,), (v,)))(z)
        check([np.asarray(array) for array in found], expected)
