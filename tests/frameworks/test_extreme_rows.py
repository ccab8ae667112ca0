"""Amplitude encoding of rows at the ends of float32 gives one answer in every framework, eager and in graphs.

Features below the smallest normal number count as zeros: processors and compilers (XLA among them) take them for that.
"""

from __future__ import annotations

import numpy as np
import pytest

from qstore_core import QuantumFeatureExtractor
from tests.support.tolerances import SUM, SUM_GRADIENT

LEAST, MOST = np.finfo("float32").smallest_normal, np.finfo("float32").max
SCALES = (1.0, LEAST / 16, LEAST / 2, LEAST, 2 * LEAST, 64 * LEAST, 1e-30, 1e30, MOST / 2, MOST)
ROWS = (np.array([1.0, -0.5, 0.3, 0.75]) * np.array([*SCALES, 0.0])[:, None]).astype("float32")
COTANGENTS = np.random.default_rng(0).normal(size=(len(ROWS), 4)).astype("float32")
LAYER = {"n_qubits": 2, "depth": 1, "measurement_bases": ("Z", "X"), "seed": 1}


def expected():
    """By the NumPy engine in float64, of the rows with zeros in place of subnormal features."""
    layer, rows = QuantumFeatureExtractor(**LAYER, backend="statevector"), ROWS.astype(float)
    rows[np.abs(rows) < LEAST] = 0.0
    return layer.theta, layer(rows), layer.vjp(rows, COTANGENTS.astype(float))[1]


def check(values, gradient):
    _, right, right_gradient = expected()
    np.testing.assert_allclose(values, right, rtol=0, atol=SUM)
    norm = np.linalg.norm(ROWS.astype(float), axis=1, keepdims=True)
    finite = np.abs(right_gradient) < MOST  # beyond, it is infinite in float32
    assert not np.isnan(gradient).any()
    received = np.where(finite, np.asarray(gradient, float) * norm, 0.0)
    flushed = LEAST * norm  # gradients of huge features are subnormal themselves
    error = np.abs(received - np.where(finite, right_gradient * norm, 0.0))
    assert (error <= SUM_GRADIENT + flushed).all(), error


@pytest.mark.parametrize("backend", ["statevector", "numba"])
def test_numpy(backend):
    if backend == "numba":
        pytest.importorskip("numba")
    layer = QuantumFeatureExtractor(**LAYER, backend=backend)
    layer.theta = expected()[0]
    check(layer(ROWS), layer.vjp(ROWS, COTANGENTS)[1])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_torch(backend, compiled):
    torch = pytest.importorskip("torch")
    import qstore_torch

    layer = qstore_torch.QuantumFeatureExtractor(**LAYER, backend=backend)
    layer._put_theta(expected()[0])
    call = torch.compile(layer, backend="aot_eager", fullgraph=True) if compiled else layer
    x = torch.from_numpy(ROWS.copy()).requires_grad_()
    y = call(x)
    y.backward(torch.from_numpy(COTANGENTS))
    check(y.detach().numpy(), x.grad.numpy())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, when it first loads forward mode
def test_torch_forward_mode():
    torch = pytest.importorskip("torch")
    import qstore_torch

    layer = qstore_torch.QuantumFeatureExtractor(**LAYER)
    layer._put_theta(expected()[0])
    rows = torch.from_numpy(ROWS)
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda row: layer(row[None])[0]))(rows).detach().numpy()
    check(layer(rows).detach().numpy(), np.einsum("bo,bof->bf", COTANGENTS.astype(float), jacobian.astype(float)))


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("backend", ["auto", "tensorflow"])
def test_keras(backend, mode):
    tf = pytest.importorskip("tensorflow")
    import qstore_tf

    layer = qstore_tf.QuantumFeatureExtractor(**LAYER, backend=backend)
    layer.build(ROWS.shape)
    layer.theta.assign(expected()[0])

    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x, COTANGENTS)

    call = both if mode == "eager" else tf.function(both, jit_compile=mode == "xla")
    check(*(tensor.numpy() for tensor in call(tf.constant(ROWS))))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("backend", ["auto", "jax"])
def test_jax(backend, compiled):
    jax = pytest.importorskip("jax")
    import qstore_jax

    layer = qstore_jax.QuantumFeatureExtractor(**LAYER, backend=backend)
    theta = jax.numpy.asarray(expected()[0], "float32")

    def both(x):
        y, vjp_fn = jax.vjp(lambda rows: layer.apply(theta, rows), x)
        return y, vjp_fn(jax.numpy.asarray(COTANGENTS))[0]

    check(*(np.asarray(array) for array in (jax.jit(both) if compiled else both)(jax.numpy.asarray(ROWS))))
