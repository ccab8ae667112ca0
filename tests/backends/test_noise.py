"""Noisy layers in every framework: the values and gradients of the NumPy layer, saved, explained, or refused."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import qstore_core
from qstore_core import CapabilityError, Channel, Circuit, Expectation, LayerSpec, NoiseModel, get_backend
from tests.support.tolerances import EXACT, GRADIENT, VALUE

FRAMEWORKS = [name for name in ("torch", "tensorflow", "jax") if importlib.util.find_spec(name)]


def noisy_circuit():
    c = Circuit(2)
    x, w = c.inputs(2), c.weights(3)
    c.ry(x[0], 0), c.ry(x[1], 1), c.rz(w[0], 0), c.amplitude_damping(0.1, 0)
    c.cnot(0, 1), c.depolarizing(0.05, 0, 1), c.ry(w[1] * x[0], 1), c.rx(w[2], 0)
    c.readout_error(0.02, 0.04, 1)
    return c


X = np.random.default_rng(0).normal(size=(5, 2))
COTANGENTS = np.random.default_rng(1).normal(size=(5, 4))
MEASURED = Expectation(("Z", "X"))
MODEL = NoiseModel().after("cnot", Channel.depolarizing(0.05, 2)).after("*", Channel.phase_damping(0.02))


def by_torch(layer_of, theta):
    import torch

    import qstore_torch

    layer = layer_of(qstore_torch).double()
    with torch.no_grad():
        layer.theta.copy_(torch.from_numpy(theta))
    x = torch.from_numpy(X).requires_grad_()
    outputs = layer(x)
    outputs.backward(torch.from_numpy(COTANGENTS))
    return layer, (outputs.detach().numpy(), layer.theta.grad.numpy(), x.grad.numpy())


def by_tensorflow(layer_of, theta):
    import tensorflow as tf

    import qstore_tf

    layer = layer_of(qstore_tf, dtype="float64")
    layer.build(X.shape)
    layer.theta.assign(theta)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
    gradients = tape.gradient(outputs, [layer.theta.value, x], COTANGENTS)
    if isinstance(layer, qstore_tf.QuantumLayer):  # the other one's backend is an object, which no file can name
        assert type(layer).from_config(layer.get_config()).spec == layer.spec
    return layer, (outputs.numpy(), *(g.numpy() for g in gradients))


def by_jax(layer_of, theta):
    import jax
    import jax.numpy as jnp

    import qstore_jax

    layer = layer_of(qstore_jax)
    with jax.enable_x64(True):
        outputs, vjp_fn = jax.vjp(layer.apply, jnp.asarray(theta), jnp.asarray(X))
        return layer, (np.asarray(outputs), *(np.asarray(g) for g in vjp_fn(jnp.asarray(COTANGENTS))))


BY = {"torch": by_torch, "tensorflow": by_tensorflow, "jax": by_jax}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_values_and_gradients_are_those_of_numpy(framework):
    """Channels in the circuit, by "auto"; and by the model of a backend."""
    backend = get_backend("density", noise_model=MODEL)

    def of_circuit(module, **options):
        return module.QuantumLayer(noisy_circuit(), MEASURED, seed=0, **options)

    def of_model(module, **options):
        arguments = {"encoding": "angle", "measurement_bases": ("Z", "X"), "seed": 0, "backend": backend}
        return module.QuantumFeatureExtractor(2, 1, **arguments, **options)

    for layer_of in (of_circuit, of_model):
        numpy_layer = layer_of(qstore_core)
        numpy_layer.theta = theta = np.linspace(-1.0, 1.0, numpy_layer.spec.n_weights)
        layer, received = BY[framework](layer_of, theta)
        assert layer.backend_name == "density"
        expected = numpy_layer(X), *numpy_layer.vjp(X, COTANGENTS)
        for found, wanted, tolerance in zip(received, expected, (VALUE, GRADIENT, GRADIENT), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance["float64"])
        text = layer.explain()
        assert "noise is computed on the host alone" in text
        assert 'Use backend="' not in text  # of an engine that has no noise


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, when it first loads forward mode
@pytest.mark.skipif("torch" not in FRAMEWORKS, reason="torch is not installed")
def test_gradcheck_of_torch_and_what_is_refused():
    import torch

    import qstore_torch

    layer = qstore_torch.QuantumLayer(noisy_circuit(), MEASURED, seed=0).double()
    x = torch.from_numpy(X).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,), nondet_tol=EXACT)
    with pytest.raises(CapabilityError, match="noise is computed on the host alone"):
        torch.func.jvp(layer, (x,), (x,))


def test_noisy_layers_are_saved(tmp_path):
    layer = qstore_core.QuantumLayer(noisy_circuit(), MEASURED, seed=0)
    assert LayerSpec.from_dict(layer.spec.to_dict()) == layer.spec
    qstore_core.save(tmp_path / "layer.safetensors", layer)
    again = qstore_core.load(tmp_path / "layer.safetensors")
    np.testing.assert_array_equal(again(X), layer(X))
    assert "depolarizing(0.05)" in layer.draw()


def test_parameter_shift_gives_the_same():
    exact, shifted = (
        qstore_core.QuantumLayer(noisy_circuit(), MEASURED, gradient=method, seed=0)
        for method in ("adjoint", "parameter-shift")
    )
    for found, wanted in zip(shifted.vjp(X, COTANGENTS), exact.vjp(X, COTANGENTS), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=GRADIENT["float64"])


def test_other_measurements_of_mixed_states():
    """A qubit that is depolarised whole: purity 1/2, entropy ln 2 (or one bit), whatever comes before."""
    c = Circuit(1)
    c.ry(0.7, 0), c.depolarizing(1.0, 0)
    half = qstore_core.QuantumLayer(c, qstore_core.Purity())(np.zeros((1, 0)))
    np.testing.assert_allclose(half, [[0.5]], rtol=0, atol=EXACT)
    matrix = qstore_core.QuantumLayer(c, qstore_core.DensityMatrix())(np.zeros((1, 0)))
    np.testing.assert_allclose(matrix, [np.eye(2) / 2], rtol=0, atol=EXACT)


def test_costs_of_a_noisy_layer():
    from qstore_core.cli.costs import costs

    layer = qstore_core.QuantumLayer(noisy_circuit(), MEASURED)
    rows = {row["what"]: row["value"] for row in costs(layer.spec, batch=2, rows=4, shots=10)}
    assert rows["gates"] == "6 as declared, 3 channels"
    assert rows["runs on"].startswith("density (the circuit has channels")
