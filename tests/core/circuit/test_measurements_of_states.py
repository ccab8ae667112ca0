"""Measurements that follow from expectation values: closed forms, shapes, gradients, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings

import qstore_core
from qstore_core import (
    Circuit,
    Covariance,
    DensityMatrix,
    Entropy,
    LayerSpec,
    Pauli,
    Purity,
    QuantumLayer,
    SpecError,
    Variance,
)
from qstore_core.circuit.observable import symmetrised
from tests import reference
from tests.measured import CASES, circuit_and_point, expected
from tests.strategies import observables
from tests.tolerances import EXACT, FINITE_DIFFERENCE, MATRIX, NOISY, allow

EVERY = list(CASES)


def bell():
    c = Circuit(2)
    c.h(0), c.cnot(0, 1)
    return c


def of(circuit, measurement, **arguments):
    return QuantumLayer(circuit, measurement, **arguments)(np.zeros((1, 0)))[0]


def test_half_of_a_bell_state():
    np.testing.assert_allclose(of(bell(), DensityMatrix([0])), np.eye(2) / 2, rtol=0, atol=EXACT)
    np.testing.assert_allclose(of(bell(), Purity([0])), [0.5], rtol=0, atol=EXACT)
    for order in (1, 2, 3, 16):
        np.testing.assert_allclose(of(bell(), Entropy([1], order, base=2)), [1.0], rtol=0, atol=EXACT)
    np.testing.assert_allclose(of(bell(), Purity()), [1.0], rtol=0, atol=EXACT)
    np.testing.assert_allclose(of(bell(), Entropy()), [0.0], rtol=0, atol=EXACT)


def test_the_density_matrix_of_plus_and_i():
    c = Circuit(2)
    c.h(0), c.h(1), c.s(1)
    np.testing.assert_allclose(of(c, DensityMatrix([0])), [[0.5, 0.5], [0.5, 0.5]], rtol=0, atol=EXACT)
    np.testing.assert_allclose(of(c, DensityMatrix([1])), [[0.5, -0.5j], [0.5j, 0.5]], rtol=0, atol=EXACT)


def test_qubits_of_a_density_matrix_have_the_order_given():
    c = Circuit(3)
    c.x(2)
    for qubits, index in (((0, 2), 0b01), ((2, 0), 0b10), ((2, 1, 0), 0b100)):
        assert of(c, DensityMatrix(qubits))[index, index].real == pytest.approx(1.0)


def test_variances_and_covariances_of_closed_form():
    c = Circuit(1)
    c.ry(0.3, 0)
    np.testing.assert_allclose(of(c, Variance(Pauli("Z"))), [np.sin(0.3) ** 2], rtol=0, atol=EXACT)
    np.testing.assert_allclose(of(c, Variance(2 * Pauli("Z") + 5)), [4 * np.sin(0.3) ** 2], rtol=0, atol=EXACT)
    np.testing.assert_allclose(of(c, Variance(3 * Pauli("I"))), [0.0], rtol=0, atol=EXACT)
    # XZ + ZX = 0
    np.testing.assert_allclose(of(c, Covariance(Pauli("X"), Pauli("Z"))), [-np.sin(0.6) / 2], rtol=0, atol=EXACT)
    np.testing.assert_allclose(of(bell(), Covariance(Pauli("ZI"), Pauli("IZ"))), [1.0], rtol=0, atol=EXACT)


@given(observables(3), observables(3))
@settings(max_examples=30)
def test_symmetrised_products_are_those_of_matrices(a, b):
    one, two = reference.observable_matrix(a), reference.observable_matrix(b)
    actual = reference.observable_matrix(symmetrised(a, b))
    np.testing.assert_allclose(actual, (one @ two + two @ one) / 2, rtol=0, atol=MATRIX * 100)


@pytest.mark.parametrize("backend", ["statevector", "numba", "torch", "jax", "aer", "pennylane:default.qubit"])
def test_values_are_those_of_the_state(backend):
    circuit, theta, x = circuit_and_point()
    for name in EVERY:
        measurement, wanted = CASES[name], expected(name, circuit, theta, x)
        layer = QuantumLayer(circuit, measurement, backend=backend, fallback=None)
        layer.theta = theta
        values = layer(x)
        assert values.shape == wanted.shape == layer.compute_output_shape(x.shape)
        assert values.dtype == wanted.dtype
        assert layer.output_dim == np.prod(values.shape[1:])
        np.testing.assert_allclose(values, wanted, rtol=0, atol=EXACT if backend != "aer" else NOISY, err_msg=name)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_differences(name):
    circuit, theta, x = circuit_and_point()
    layer = QuantumLayer(circuit, CASES[name])
    layer.theta = theta
    wanted = expected(name, circuit, theta, x)
    rng = np.random.default_rng(3)
    cotangents = rng.normal(size=wanted.shape)
    if wanted.dtype.kind == "c":
        cotangents = cotangents + 1j * rng.normal(size=wanted.shape)

    def real(theta, x):
        return (expected(name, circuit, theta, x) * cotangents.conj()).real

    slopes = reference.difference_vjp(real, np.ones(wanted.shape), theta, x)
    for backend in ("auto", "pennylane:default.qubit"):  # adjoint, and parameter-shift
        layer = layer.on(backend)
        for actual, slope in zip(layer.vjp(x, cotangents), slopes, strict=True):
            np.testing.assert_allclose(actual, slope, rtol=0, atol=allow(slope, FINITE_DIFFERENCE))


def test_leading_dimensions_empty_batches_and_float32():
    circuit, theta, x = circuit_and_point()
    layer = QuantumLayer(circuit, DensityMatrix((1, 2)))
    layer.theta = theta
    flat = layer(x)
    assert layer(x[:, None, None]).shape == (3, 1, 1, 4, 4)
    np.testing.assert_array_equal(layer(x[:, None, None])[:, 0, 0], flat)
    assert layer(x[:0]).shape == (0, 4, 4)
    assert layer(x.astype(np.float32)).dtype == np.complex64
    cotangents = np.ones((3, 1, 4, 4))
    np.testing.assert_array_equal(layer.vjp(x[:, None], cotangents)[1][:, 0], layer.vjp(x, cotangents[:, 0])[1])
    with pytest.raises(qstore_core.ShapeError, match=r"cotangents have the outputs' shape \(3, 4, 4\)"):
        layer.vjp(x, np.ones((3, 16)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_entropies_of_pure_states_have_finite_gradients(order, dtype):
    c = Circuit(2)
    c.ry(c.inputs(1)[0], 0), c.crx(c.weights(1)[0], 0, 1)
    layer = QuantumLayer(c, Entropy([0], order), init="zeros")
    for angle in (0.0, np.pi / 2, np.pi):
        x = np.array([[angle]], dtype)
        assert np.abs(layer(x)).max() <= 40 * np.finfo(dtype).eps  # -log eps
        assert np.isfinite(np.concatenate([d.ravel() for d in layer.vjp(x, np.ones((1, 1)))])).all()


@pytest.mark.parametrize("name", EVERY)
def test_saved_and_loaded(name):
    circuit, *_ = circuit_and_point()
    layer = QuantumLayer(circuit, CASES[name], seed=1)
    spec = layer.spec
    again = LayerSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.fingerprint == spec.fingerprint != spec.primitive.fingerprint
    assert QuantumLayer.from_config(json.loads(json.dumps(layer.config()))).spec == spec
    assert layer.draw()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Variance("Z"), "observables: expected a sequence"),
        (lambda: Variance(()), "Variance takes Pauli"),
        (lambda: Covariance(Pauli("Z"), 1), "Covariance takes Pauli"),
        (lambda: Covariance(Pauli("Z"), Pauli("ZZ")), "one size, received 1 and 2 qubits"),
        (lambda: Entropy(order=0), "order of an entropy"),
        (lambda: Entropy(order=1.5), "order of an entropy"),
        (lambda: Entropy(base=1), "the base of a logarithm"),
        (lambda: Entropy(base="2"), "the base of a logarithm"),
        (lambda: Purity("all"), "measured qubits|expected a sequence"),
    ],
)
def test_what_they_are_not(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_what_does_not_fit_the_circuit():
    for measurement, message in (
        (DensityMatrix(), "at most 5; received 6"),
        (Purity(range(6)), "at most 5; received 6"),
        (Entropy((0, 6)), "different and from 0 to 5"),
        (Variance(Pauli("ZZ")), "has 2 letters, the circuit has 6 qubits"),
    ):
        with pytest.raises(SpecError, match=message):
            QuantumLayer(Circuit(6), measurement)


def test_sampled_values_scatter_about_the_exact_ones():
    circuit, theta, x = circuit_and_point()
    for measurement in (Purity((0,)), Entropy((0,)), DensityMatrix((0,)), Variance(Pauli("ZII"))):
        exact = QuantumLayer(circuit, measurement)
        sampled = exact.on("aer", shots=4000, seed=3)
        exact.theta = sampled.theta = theta
        # Three strings at 1/sqrt(4000) = 0.016 each, five deviations; the slope of the entropy is at most 4 here.
        np.testing.assert_allclose(sampled(x), exact(x), rtol=0, atol=4 * 5 * 0.016)
        assert np.isfinite(sampled.vjp(x, np.ones(exact(x).shape))[0]).all()
