"""Without `jax_enable_x64` there is no double precision: what rounded matrices add to the norm is taken off outputs."""

from __future__ import annotations

import numpy as np
import pytest

from qstore_core import Circuit, Expectation, get_backend
from tests.support.tolerances import SUM, SUM_GRADIENT, allow

jax = pytest.importorskip("jax")


def again_and_again(n_qubits, n_rotations):
    """Few angles, many times: their roundings go to one side. Diagonal gates and per-sample angles among them."""
    circuit = Circuit(n_qubits)
    w, x = circuit.weights(4), circuit.inputs(1)
    for k in range(n_rotations):
        circuit.ry(w[k % 4], k % n_qubits)
        if k % n_qubits == n_qubits - 1:
            circuit.cnot(0, 1)
        if k % 5 == 0:
            circuit.rx(w[(k + 1) % 4] if k % 2 else x[0], k % n_qubits)
        if k % 7 == 0:
            circuit.rz(w[2], (k + 1) % n_qubits)
    return circuit


@pytest.mark.parametrize("how", ["adjoint", "autodiff"])
def test_norms_do_not_drift(how):
    circuit, measurement = again_and_again(2, 160), Expectation(("Z", "X"))
    theta, x = np.array([0.7, 0.7, -1.9, 0.3], "float32"), np.array([[0.4], [2.5]], "float32")
    cotangents = np.random.default_rng(0).normal(size=(2, 4)).astype("float32") / 8
    exact = get_backend("statevector").compile(circuit, measurement, dtype="float64")
    expected, exact_vjp = exact.value_and_vjp(theta.astype(float), x.astype(float))
    run = get_backend("jax").compile(circuit, measurement, dtype="float32")

    @jax.jit
    def both(theta, x):
        outputs, vjp_fn = jax.vjp(run.apply, theta, x) if how == "autodiff" else run.apply_and_vjp(theta, x)
        return outputs, vjp_fn(jax.numpy.asarray(cotangents))

    outputs, gradients = both(theta, x)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=SUM)
    for received, gradient in zip(gradients, exact_vjp(cotangents.astype(float)), strict=True):
        np.testing.assert_allclose(received, gradient, rtol=0, atol=allow(gradient, SUM_GRADIENT))
