"""float32 means float32 amplitudes; sums over them are as exact as double precision makes them, at any size.

Product states: RY(x_q) on each of n qubits gives ⟨X_q⟩ = sin x_q and ⟨Z_q⟩ = cos x_q.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from qstore_core import Circuit, Expectation, Observable, Probabilities, QuantumFeatureExtractor, get_backend, lower
from qstore_core.engines.arrays.adjoint import value_and_vjp
from qstore_core.engines.arrays.numpy_ops import NumpyOps
from qstore_core.engines.arrays.planes import PlanesOps
from qstore_core.engines.arrays.program import ArrayProgram
from tests.support.tolerances import FLOAT32_SUM, SUM, SUM_GRADIENT, allow

NEEDS = {
    "numba": "numba", "statevector": "numpy", "torch": "torch", "tensorflow": "tensorflow", "planes": "numpy",
}  # fmt: skip
ENGINES = [
    pytest.param(e, marks=pytest.mark.skipif(importlib.util.find_spec(m) is None, reason=f"needs {m}"))
    for e, m in NEEDS.items()
]
ANGLES = {"random": None, "one angle": 0.7, "uniform": np.pi / 2}  # equal terms round alike: their errors add up


class Planes:
    """The engine on real numbers."""

    def __init__(self, double):
        self.ops = PlanesOps(NumpyOps(), double=double)

    def compile(self, circuit, measurement, *, dtype):
        self.program = ArrayProgram(lower(circuit, measurement))
        return self

    def value_and_vjp(self, theta, inputs):
        return value_and_vjp(self.program, self.ops, theta, inputs)


def product_state(n, inputs):
    circuit = Circuit(n)
    for q, angle in enumerate(circuit.inputs(n) if inputs else circuit.weights(n)):
        circuit.ry(angle, q)
    return circuit


def halves(z):
    return np.stack([(1 + z) / 2, (1 - z) / 2], axis=1)


def cases(n, x):
    """Measurement, values (B, O), and the gradient of the sum of the outputs times cotangents, by every x_q."""
    z, s = np.cos(x), np.sin(x)
    strings = ["I" * q + "Z" + "I" * (n - 1 - q) for q in range(n)]
    total = Expectation(observables=(Observable(tuple((string, 1.0) for string in strings)),))
    last = np.zeros_like(x)
    last[:, -1] = -s[:, -1]
    first = np.zeros_like(x)
    first[:, 0] = -s[:, 0]
    ones = np.ones((1, n))
    return [
        (Expectation("Z"), z, ones, -s),
        (Expectation("X"), s, ones, z),
        (Expectation(("Z", "X")), np.concatenate([z, s], axis=1), np.ones((1, 2 * n)), z - s),
        (Probabilities(n_classes=2), halves(z[:, -1]), np.array([[1.0, -1.0]]), last),
        (Probabilities(qubits=(0,)), halves(z[:, 0]), np.array([[1.0, -1.0]]), first),
        (total, z.sum(axis=1, keepdims=True), np.array([[1.0 / n]]), -s / n),
    ]  # fmt: skip


def check(engine, n, rows, angle, inputs, tolerances=(SUM, SUM_GRADIENT)):
    x = np.random.default_rng(n).uniform(-3, 3, (rows, n)).astype(np.float32)
    if angle is not None:
        x[:] = angle
    for measurement, values, cotangents, gradient in cases(n, x.astype(np.float64)):
        backend = engine if isinstance(engine, Planes) else Planes(True) if engine == "planes" else get_backend(engine)
        run = backend.compile(product_state(n, inputs), measurement, dtype="float32")
        theta, features = (np.zeros(0, np.float32), x) if inputs else (x[0], np.zeros((1, 0), np.float32))
        outputs, vjp_fn = run.value_and_vjp(theta, features)
        scale = max(1.0, np.abs(values).max())
        np.testing.assert_allclose(outputs, values, rtol=0, atol=tolerances[0] * scale, err_msg=str(measurement))
        pulled = np.broadcast_to(cotangents, outputs.shape).astype(np.float32)
        received = vjp_fn(np.ascontiguousarray(pulled))[1 if inputs else 0]
        expected = gradient.reshape(received.shape)
        np.testing.assert_allclose(received, expected, rtol=0, atol=tolerances[1], err_msg=str(measurement))


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("n", [2, 6, 8, 10, 12, 13, 16])
@pytest.mark.parametrize("engine", ENGINES)
def test_product_states(engine, n, angle):
    check(engine, n, 1, ANGLES[angle], inputs=True)
    check(engine, n, 1, ANGLES[angle], inputs=False)


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("n", [6, 10, 13, 16])
def test_product_states_without_double_precision(n, angle):
    for inputs in (True, False):
        check(Planes(False), n, 1, ANGLES[angle], inputs, (FLOAT32_SUM, 2 * SUM_GRADIENT))


@pytest.mark.parametrize(("n", "rows"), [(10, 9), (12, 3), (14, 8)])
@pytest.mark.parametrize("engine", ENGINES)
def test_product_states_of_a_batch(engine, n, rows):
    check(engine, n, rows, None, inputs=True)


def many_gates(seed, n_gates):
    """Four qubits; H and T again and again, angles that are a weight or an input, or many turns."""
    rng, circuit = np.random.default_rng(seed), Circuit(4)
    w, x = circuit.weights(8), circuit.inputs(2)
    slots = [*w, *x, 30 * x[0] * x[1], 20 * w[0] * w[1] - 40 * x[0], 100 + 9 * w[2] * w[3]]
    for gate in rng.choice(["rx", "ry", "rz", "rzz", "h", "t", "cnot"], n_gates):
        qubits = rng.permutation(4)[: 2 if gate in ("rzz", "cnot") else 1].tolist()
        circuit.append(str(gate), qubits, [slots[rng.integers(len(slots))]] if gate[0] == "r" else [])
    theta, features = rng.uniform(-3, 3, 8).astype(np.float32), rng.uniform(-3, 3, (3, 2)).astype(np.float32)
    return circuit, theta, features, rng.normal(size=(3, 8)).astype(np.float32) / 8


@pytest.mark.parametrize("engine", ENGINES)
def test_many_gates(engine):
    """What cos² + sin² lacks to 1 after rounding must not add up, nor angles be rounded before they are reduced."""
    for seed in range(2 if engine == "tensorflow" else 8):
        circuit, theta, x, cotangents = many_gates(seed, 120)
        exact = get_backend("statevector").compile(circuit, Expectation(("Z", "X")), dtype="float64")
        expected, exact_vjp = exact.value_and_vjp(theta.astype(float), x.astype(float))
        backend = Planes(True) if engine == "planes" else get_backend(engine)
        run = backend.compile(circuit, Expectation(("Z", "X")), dtype="float32")
        outputs, vjp_fn = run.value_and_vjp(theta, x)
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=SUM, err_msg=f"seed {seed}")
        for received, gradient in zip(vjp_fn(cotangents), exact_vjp(cotangents.astype(float)), strict=True):
            np.testing.assert_allclose(received, gradient, rtol=0, atol=allow(gradient, SUM_GRADIENT))


@pytest.mark.parametrize("angle", [0.7, 1.3])
@pytest.mark.parametrize("n_rotations", [100, 150])
@pytest.mark.parametrize("engine", ["numba", "statevector"])
def test_one_angle_again_and_again(engine, n_rotations, angle):
    """All roundings go to one side. Gates that are undone add theirs once more, which gradients must not show."""
    pytest.importorskip(NEEDS[engine])
    n, circuit, measurement = 8, Circuit(8), Expectation(("Z", "X"))
    w = circuit.weights(8)
    for k in range(n_rotations):
        circuit.ry(w[k % 8], k % n)
        if k % n == n - 1:
            for q in range(n - 1):
                circuit.cnot(q, q + 1)
        if k % 3 == 0:
            circuit.rx(w[(k + 1) % 8], k % n)
    theta, none = np.full(8, angle, np.float32), np.zeros((1, 0), np.float32)
    cotangents = np.random.default_rng(0).normal(size=(1, 2 * n)).astype(np.float32)
    exact = get_backend("statevector").compile(circuit, measurement, dtype="float64")
    expected, exact_vjp = exact.value_and_vjp(theta.astype(float), none.astype(float))
    outputs, vjp_fn = get_backend(engine).compile(circuit, measurement, dtype="float32").value_and_vjp(theta, none)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=SUM)
    gradient = exact_vjp(cotangents.astype(float))[0]
    np.testing.assert_allclose(vjp_fn(cotangents)[0], gradient, rtol=0, atol=allow(gradient, SUM_GRADIENT))


@pytest.mark.slow
@pytest.mark.parametrize("n", [18, 20])
@pytest.mark.parametrize("engine", ENGINES[:-1])
def test_product_states_of_many_qubits(engine, n):
    check(engine, n, 1, None, inputs=False)


@pytest.mark.parametrize("n", [8, 12, 14])
@pytest.mark.parametrize("backend", ["numba", "statevector"])
def test_features_and_their_gradients(backend, n):
    """Normalisation included: against the same layer in float64."""
    pytest.importorskip(NEEDS[backend])
    layer = QuantumFeatureExtractor(n, 2, measurement_bases=("Z", "X"), backend=backend, seed=0)
    x = np.random.default_rng(n).uniform(0.0, 1.0, (2, 1 << n)).astype(np.float32)
    cotangents = np.random.default_rng(1).normal(size=(2, 2 * n)).astype(np.float32)
    norm = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    values = layer(x.astype(np.float64))
    d_theta, d_x = layer.vjp(x.astype(np.float64), cotangents.astype(np.float64))
    np.testing.assert_allclose(layer(x), values, rtol=0, atol=SUM)
    received_theta, received_x = layer.vjp(x, cotangents)
    scale = max(1.0, np.abs(d_theta).max())
    np.testing.assert_allclose(received_theta, d_theta, rtol=0, atol=SUM_GRADIENT * scale)
    np.testing.assert_allclose(received_x * norm, d_x * norm, rtol=0, atol=SUM_GRADIENT)


# -- rows at the ends of the range ------------------------------------------------------------------------------------


def encoded(kind, x):
    """Outputs of a layer, or its gradient by the features, through every way of computing them."""
    layer = QuantumFeatureExtractor(2, 1, backend=kind, measurement_bases=("Z", "X"), seed=1)
    return layer(x), layer.vjp(x, np.ones((len(x), 4), x.dtype))[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numba", "statevector"])
def test_rows_without_a_normal_number_are_zero_rows(backend, dtype):
    pytest.importorskip(NEEDS[backend])
    least = np.finfo(dtype).smallest_normal
    tiny = np.array([[0.5, -0.9, 0.0, 0.7], [0.0, 0.0, 0.0, 0.9]], dtype) * least
    assert (np.abs(tiny).max(axis=1) > 0).all()
    (values, gradient), (expected, _) = encoded(backend, tiny), encoded(backend, np.zeros_like(tiny))
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(gradient, np.zeros_like(tiny))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numba", "statevector"])
def test_rows_at_the_ends_of_the_range_are_right(backend, dtype):
    pytest.importorskip(NEEDS[backend])
    row = np.array([[1.0, -0.5, 0.25, 0.75]], dtype)
    expected = encoded(backend, row)[0]
    for scale in (np.finfo(dtype).max, 0.9 * np.finfo(dtype).max, 4 * np.finfo(dtype).smallest_normal):
        values, gradient = encoded(backend, row * np.dtype(dtype).type(scale))
        np.testing.assert_allclose(values, expected, rtol=0, atol=SUM)
        assert not np.isnan(gradient).any()
