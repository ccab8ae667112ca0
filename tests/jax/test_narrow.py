"""A chain of 14 qubits in JAX operations: as on arrays, compiled, with exact gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qstore_core
import qstore_jax
from tests.support.tolerances import EXACT, EXACT_GRADIENT


def test_a_chain_equals_that_on_arrays():
    arguments = {"depth": 2, "encoding": "angle", "entanglement": "linear"}
    plain = qstore_core.QuantumFeatureExtractor(14, **arguments, init="uniform", seed=0)
    x, cotangents = np.random.default_rng(0).normal(size=(2, 3, 14))
    d_theta, d_x = plain.vjp(x, cotangents)
    with jax.enable_x64(True):
        layer = qstore_jax.QuantumFeatureExtractor(14, **arguments, backend="jax")
        theta, rows = jnp.asarray(plain.theta), jnp.asarray(x)
        out, vjp_fn = jax.vjp(jax.jit(layer.apply), theta, rows)
        got = vjp_fn(jnp.asarray(cotangents))
    np.testing.assert_allclose(out, plain(x), rtol=0, atol=EXACT)
    np.testing.assert_allclose(got[0], d_theta, rtol=0, atol=EXACT_GRADIENT)
    np.testing.assert_allclose(got[1], d_x, rtol=0, atol=EXACT_GRADIENT)


@pytest.mark.parametrize("compiled", [False, True])
def test_memory_is_asked_for_first(compiled, monkeypatch):
    monkeypatch.setattr("qstore_core.engines.memory.available_memory", lambda: 1 << 20)
    layer = qstore_jax.QuantumFeatureExtractor(10, depth=1, encoding="angle", backend="jax", init="zeros")
    theta = jnp.zeros(layer.spec.n_weights)
    apply = jax.jit(layer.apply) if compiled else layer.apply
    with pytest.raises(qstore_core.MemoryLimitError, match="20000 rows of 10 qubits"):
        apply(theta, jnp.zeros((20_000, 10)))
    assert apply(theta, jnp.zeros((2, 10))).shape == (2, 10)
