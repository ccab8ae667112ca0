"""Logarithms of probabilities: right, and with finite gradients where probabilities are exactly 0, everywhere."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import qstore_core
import qstore_tf
import qstore_torch
from qstore_core import Circuit, LogProbabilities, Probabilities, SpecError
from tests.support.reference import difference_vjp
from tests.support.tolerances import EXACT, FINITE_DIFFERENCE, GRADIENT, VALUE, allow

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
X = np.random.default_rng(0).normal(size=(5, 8))
COTANGENTS = np.random.default_rng(1).normal(size=(5, 3))


def make(module, log=True, **arguments):
    return module.QuantumReadout(3, 3, log=log, seed=4, init="uniform", **arguments)


def test_values_are_logarithms():
    plain, logs = make(qstore_core, log=False), make(qstore_core)
    np.testing.assert_allclose(logs(X), np.log(plain(X)), rtol=0, atol=EXACT)
    assert logs.spec.measurement == LogProbabilities(n_classes=3)
    assert logs.spec.primitive == plain.spec
    assert logs.spec.fingerprint != plain.spec.fingerprint


@pytest.mark.parametrize("backend", ["statevector", "numba", "aer", "pennylane:default.qubit"])
def test_gradients_are_those_of_differences(backend):
    layer = make(qstore_core, backend=backend, fallback=None)
    reference = make(qstore_core, backend="statevector")

    def outputs(theta, x):
        reference.theta = theta
        return reference(x)

    expected = difference_vjp(outputs, COTANGENTS, layer.theta, X)
    for actual, wanted in zip(layer.vjp(X, COTANGENTS), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=allow(wanted, FINITE_DIFFERENCE))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_frameworks_agree(dtype):
    numpy_layer = make(qstore_core)
    x, cotangents = X.astype(dtype), COTANGENTS.astype(dtype)
    values, (d_theta, d_x) = numpy_layer(x), numpy_layer.vjp(x, cotangents)
    for backend in ("auto", "torch", "statevector"):
        layer = make(qstore_torch, backend=backend, dtype=getattr(torch, dtype))
        xt = torch.from_numpy(x.copy()).requires_grad_()
        out = layer(xt)
        out.backward(torch.from_numpy(cotangents))
        for actual, wanted in ((out.detach(), values), (layer.theta.grad, d_theta), (xt.grad, d_x)):
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=allow(wanted, GRADIENT[dtype]))
    for backend in ("auto", "tensorflow", "statevector"):
        layer = make(qstore_tf, backend=backend, dtype=dtype)
        layer.build(x.shape)
        for run in (lambda call: call, tf.function):
            xk = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(xk)
                out = run(layer)(xk, training=True)
            grads = tape.gradient(out, [layer.theta.value, xk], tf.constant(cotangents))
            for actual, wanted in zip((out, *grads), (values, d_theta, d_x), strict=True):
                np.testing.assert_allclose(actual, wanted, rtol=0, atol=allow(wanted, GRADIENT[dtype]))


def zero_layer(module, **arguments):
    """RY(x) RY(w) on one qubit, at x = w = 0: the probability of |1⟩ is exactly 0, and so is its slope."""
    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0], 0)
    circuit.ry(circuit.weights(1)[0], 0)
    return module.QuantumLayer(circuit, LogProbabilities(), init="zeros", **arguments)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["auto", "torch", "statevector"])
def test_a_probability_of_zero_has_a_finite_logarithm_in_pytorch(backend, dtype):
    layer = zero_layer(qstore_torch, backend=backend, dtype=getattr(torch, dtype))
    x = torch.zeros(1, 1, dtype=getattr(torch, dtype), requires_grad=True)
    out = layer(x)
    np.testing.assert_allclose(out.detach(), [[0, np.log(EPS[dtype]) - 1]], rtol=VALUE[dtype], atol=VALUE[dtype])
    torch.nn.functional.nll_loss(out, torch.tensor([1])).backward()
    assert torch.isfinite(layer.theta.grad).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("backend", ["auto", "tensorflow", "statevector"])
@pytest.mark.parametrize("compiled", [False, "tf.function", "xla"])
def test_a_probability_of_zero_has_a_finite_logarithm_in_keras(backend, compiled):
    if compiled == "xla" and backend == "statevector":
        pytest.skip("XLA does not call the host")
    layer = zero_layer(qstore_tf, backend=backend)
    layer.build((None, 1))
    x = tf.zeros((1, 1))

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = layer(x)
        return out, tape.gradient(out, [layer.theta.value, x], tf.constant([[0.0, -1.0]]))

    out, grads = (tf.function(step, jit_compile=compiled == "xla") if compiled else step)(x)
    np.testing.assert_allclose(out, [[0, np.log(EPS["float32"]) - 1]], rtol=VALUE["float32"], atol=VALUE["float32"])
    assert all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("backend", ["aer", "pennylane:default.qubit"])
def test_sampled_zeros_are_half_a_sample_away(backend):
    """A class that no sample hit: 1 / shots is what the samples resolve, for the slope too."""
    layer = zero_layer(qstore_core, backend=backend, shots=100, seed=1)
    np.testing.assert_allclose(layer(np.zeros((1, 1))), [[0, np.log(1 / 100) - 1]], rtol=0, atol=VALUE["float32"])
    d_theta, d_x = layer.vjp(np.zeros((1, 1)), np.array([[0.0, 1.0]]))
    assert np.abs([d_theta[0], d_x[0, 0]]).max() <= 100


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own call
def test_second_derivatives_forward_mode_and_vmap():
    layer = make(qstore_torch, backend="torch", dtype=torch.float64)
    x = torch.from_numpy(X)
    theta = layer.theta.detach()

    def loss(theta, x):
        return torch.func.functional_call(layer, {"theta": theta}, x[None])[0, 1]

    torch.testing.assert_close(torch.func.vmap(loss, (None, 0))(theta, x), layer(x)[:, 1].detach())
    hessian = torch.func.hessian(loss)(theta, x[0])
    torch.testing.assert_close(hessian, torch.func.jacrev(torch.func.jacrev(loss))(theta, x[0]))
    _, tangent = torch.func.jvp(lambda t: loss(t, x[0]), (theta,), (torch.ones_like(theta),))
    torch.testing.assert_close(tangent, torch.func.grad(loss)(theta, x[0]).sum())


def test_half_precision_is_taken_after_the_logarithm():
    layer = zero_layer(qstore_torch)
    out = layer(torch.zeros(1, 1, dtype=torch.float16)).detach()
    assert out.dtype == torch.float16
    assert out[0, 1] == pytest.approx(np.log(EPS["float32"]) - 1, rel=1e-3)


def negative_log_likelihood(y, log_p):
    return -tf.reduce_sum(y * log_p, axis=-1)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")  # Keras
def test_a_classifier_trains_with_it(tmp_path):
    model = keras.Sequential([keras.Input((8,)), make(qstore_tf)])
    model.compile("adam", negative_log_likelihood)
    y = np.eye(3)[np.argmax(X[:, :3], axis=1)]
    losses = model.fit(X, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.parametrize("arguments", [{"log": True}, {"log": 1, "n_classes": 2}, {"log": "yes", "n_classes": 2}])
def test_what_log_is_not(arguments):
    with pytest.raises(SpecError, match="log"):
        qstore_core.QuantumReadout(3, **arguments)


def test_backends_are_asked_for_probabilities_only():
    circuit = Circuit(1)
    circuit.h(0)
    with pytest.raises(SpecError, match="computed from Probabilities"):
        qstore_core.lower(circuit, LogProbabilities())
    assert LogProbabilities((0,), 2).primitive(1) == Probabilities((0,), 2)
