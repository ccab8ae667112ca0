"""Measurements that follow from expectation values: closed forms, shapes, gradients, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings

import qstore_core
from qstore_core import (
    CapabilityError,
    Circuit,
    Counts,
    Covariance,
    DensityMatrix,
    Entropy,
    Fidelity,
    GradientError,
    LayerSpec,
    Pauli,
    Probabilities,
    Purity,
    QuantumLayer,
    Samples,
    SpecError,
    State,
    Variance,
)
from qstore_core.circuit.gates.synthesis import prepare
from qstore_core.circuit.gates.table import GATES
from qstore_core.circuit.measurements.measurement import Amplitudes
from qstore_core.circuit.measurements.observable import symmetrised
from tests.support import reference
from tests.support.measured import CASES, circuit_and_point, expected, reduced
from tests.support.strategies import observables
from tests.support.tolerances import EXACT, FINITE_DIFFERENCE, MATRIX, NOISY, SIGMAS, allow

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
        if name == "state" and not qstore_core.get_backend(backend).capabilities.amplitudes:
            with pytest.raises(CapabilityError, match="no states"):
                QuantumLayer(circuit, measurement, backend=backend)
            continue
        layer = QuantumLayer(circuit, measurement, backend=backend, fallback=None)
        layer.theta = theta
        values = layer(x)
        assert values.shape == wanted.shape == layer.compute_output_shape(x.shape)
        assert values.dtype == wanted.dtype
        assert layer.output_dim == np.prod(values.shape[1:])
        np.testing.assert_allclose(values, wanted, rtol=0, atol=EXACT if backend != "aer" else NOISY, err_msg=name)


@pytest.mark.parametrize("backend", ["density", "trajectories", "numba", "aer", "pennylane:default.qubit"])
def test_who_holds_no_state_names_who_does(backend):
    found = qstore_core.get_backend(backend)
    with pytest.raises(CapabilityError, match="statevector"):
        found.compile(qstore_core.Circuit(2), Amplitudes(), shots=None if found.capabilities.exact else 10)


def test_noise_of_a_backend_leaves_no_state():
    noise = qstore_core.NoiseModel().after("h", qstore_core.Channel.bit_flip(0.1))
    for name in ("density", "aer"):
        noisy = qstore_core.get_backend(
            name, noise_model=noise, **({"method": "density_matrix"} if name == "aer" else {})
        )
        with pytest.raises(CapabilityError, match="leaves a mixture"):
            QuantumLayer(qstore_core.Circuit(2), State(), backend=noisy)


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
    for backend in ("auto", "pennylane:default.qubit")[: 1 if name == "state" else 2]:  # adjoint, parameter-shift
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
    for measured in (DensityMatrix((1, 2)), Entropy((1,)), Entropy((1,), order=3)):
        layer = QuantumLayer(circuit, measured)
        d_theta, d_x = layer.vjp(x[:0], np.zeros_like(layer(x[:0])))
        assert d_x.shape == (0, 3)
        np.testing.assert_array_equal(d_theta, np.zeros(5))


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
        (lambda: Fidelity([1.0, 1.0]), "a state has norm 1, received one of norm 1.41421"),
        (lambda: Fidelity([1.0, 0.0, 0.0]), r"received shape \(3,\)"),
        (lambda: Fidelity("bell"), "Fidelity takes a circuit or amplitudes"),
        (lambda: Fidelity(Circuit(1, amplitudes=True)), "amplitudes as inputs"),
        (lambda: Samples(0), "shots"),
        (lambda: Counts(1.5), "shots"),
        (lambda: Purity("all"), "measured qubits|expected a sequence"),
    ],
)
def test_what_they_are_not(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def _slots():
    c = Circuit(6)
    c.ry(c.weights(1)[0], 0)
    return c


def test_what_does_not_fit_the_circuit():
    for measurement, message in (
        (DensityMatrix(), "at most 5; received 6"),
        (Purity(range(6)), "at most 5; received 6"),
        (Entropy((0, 6)), "different and from 0 to 5"),
        (Variance(Pauli("ZZ")), "has 2 letters, the circuit has 6 qubits"),
        (Fidelity([1.0, 0.0]), "a state of 1 qubit\\(s\\), the circuit has 6"),
        (Fidelity(_slots()), "uses 0 inputs and 1 weights of the layer's, which has 0 and 0"),
        (Samples(3, (6,)), "different and from 0 to 5"),
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


# -- the state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GATES)
def test_states_have_the_phase_of_the_gates_matrices(name):
    """Also of rotations by a whole turn, which are minus the identity, and of Z turns of |0⟩."""
    entry = GATES[name]
    c = Circuit(max(2, entry.n_qubits))
    x = c.inputs(max(1, entry.n_params))
    c.rz(0.4, 1), c.h(0), c.ry(0.7, 1)
    c.append(name, range(entry.n_qubits)[::-1], [2.5 * x[k] for k in range(entry.n_params)])
    c.rx(2 * np.pi, 0), c.rz(-2 * np.pi, 0), c.ry(2 * np.pi, 1)
    points = np.random.default_rng(0).uniform(-9, 9, (3, c.n_inputs))
    wanted = np.array([reference.state(c, [], row) for row in points])
    np.testing.assert_allclose(QuantumLayer(c, State())(points), wanted, rtol=0, atol=EXACT)


def test_states_of_gates_of_any_size_and_of_amplitudes():
    c = Circuit(4, amplitudes=True)
    w = c.weights(3)
    c.controlled("ry", [0, 1], [2], [w[0]], values=[1, 0]), c.pauli_rot(w[1], "XYZ", 0, 2, 3), c.mcx([0, 1, 2], 3)
    c.controlled("iswap", [0], [1, 2]), c.controlled("u3", [3], [1], w), c.controlled("h", [2], [0]), c.qft()
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(2, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    layer = QuantumLayer(c, State(), init=[0.3, -2.0, 1.1])
    wanted = np.array([reference.state(c, layer.theta, row) for row in rows])
    np.testing.assert_allclose(layer(rows), wanted, rtol=0, atol=EXACT)
    cotangents = rng.normal(size=(2, 16)) + 1j * rng.normal(size=(2, 16))

    def real(theta, x):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return (np.array([reference.state(c, theta, row) for row in unit]) * cotangents.conj()).real

    slopes = reference.difference_vjp(real, np.ones((2, 16)), layer.theta, rows)
    for actual, slope in zip(layer.vjp(rows, cotangents), slopes, strict=True):
        np.testing.assert_allclose(actual, slope, rtol=0, atol=allow(slope, FINITE_DIFFERENCE))


def test_a_user_gates_phase_must_be_linear():
    from qstore_core.circuit.gates.table import AxisRotation, Gate, phase_of

    steps = (AxisRotation(0, (0.0, 0.0, 1.0), (1.0,)),)
    turned = Gate(
        "turned", 1, 1, lambda a: np.exp(1j * (3 * a + 0.5)) * np.diag([1, np.exp(1j * a)]), steps, "two-term", ""
    )
    assert phase_of(turned) == (pytest.approx((3.5,)), pytest.approx(0.5))
    bent = Gate("bent", 1, 1, lambda a: np.exp(1j * a * a) * np.diag([1, np.exp(1j * a)]), steps, "two-term", "")
    with pytest.raises(SpecError, match="'bent' is not linear"):
        phase_of(bent)


def test_states_say_who_computes_them():
    circuit, theta, x = circuit_and_point()
    layer = QuantumLayer(circuit, State())
    assert layer.backend_name == "statevector"
    assert "returns states, which numba" in layer.explain()
    for backend in ("numba", "aer"):
        with pytest.raises(CapabilityError, match=f"'{backend}' computes expectation values"):
            layer.on(backend)
    with pytest.raises(CapabilityError, match="computes expectation values"):
        qstore_core.get_backend("numba").compile(circuit, State().primitive(3))
    with pytest.raises(GradientError, match="not of amplitudes"):
        layer.on("statevector", gradient="parameter-shift").vjp(x, np.ones((3, 8)))
    by_differences = layer.on("statevector", gradient="finite-difference")
    by_differences.theta = layer.theta = theta
    for actual, wanted in zip(by_differences.vjp(x, np.ones((3, 8))), layer.vjp(x, np.ones((3, 8))), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-8)  # of the step, see DIFFERENCE_STEP


@pytest.mark.parametrize("backend", ["statevector", "numba"])
def test_the_largest_density_matrix(backend):
    """Five of seven qubits: 1024 strings, read together."""
    spec = qstore_core.QuantumFeatureExtractor(7, 2, encoding="angle", seed=1).spec
    layer = QuantumLayer(spec.circuit, DensityMatrix((6, 0, 3, 2, 5)), backend=backend, seed=1, init="uniform")
    x = np.random.default_rng(0).normal(size=(1, 7))
    psi = reference.state(spec.circuit, layer.theta, x[0])
    np.testing.assert_allclose(layer(x)[0], reduced(psi, (6, 0, 3, 2, 5)), rtol=0, atol=EXACT)
    cotangents = np.random.default_rng(1).normal(size=(1, 32, 32)) * (1 + 2j)
    other = layer.on("statevector" if backend == "numba" else "numba")
    for actual, wanted in zip(layer.vjp(x, cotangents), other.vjp(x, cotangents), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=allow(wanted, EXACT))


def test_mixtures():
    """Half depolarised: RY(x)|0⟩ keeps half of its Bloch vector."""
    c = Circuit(1)
    c.ry(0.7, 0), c.depolarizing(0.5, 0)
    rho = np.eye(2) / 2 + 0.25 * np.array([[np.cos(0.7), np.sin(0.7)], [np.sin(0.7), -np.cos(0.7)]])
    np.testing.assert_allclose(of(c, DensityMatrix()), rho, rtol=0, atol=EXACT)
    np.testing.assert_allclose(of(c, Purity()), [0.625], rtol=0, atol=EXACT)
    p = np.array([0.25, 0.75])
    np.testing.assert_allclose(of(c, Entropy()), [-(p * np.log(p)).sum()], rtol=0, atol=EXACT)
    np.testing.assert_allclose(of(c, Fidelity([1.0, 0.0])), [rho[0, 0]], rtol=0, atol=EXACT)
    assert of(c, Counts(10)).sum() == 10
    for backend in ("auto", "trajectories"):
        with pytest.raises(CapabilityError, match=r"a mixture, which has no state vector. Measure DensityMatrix"):
            QuantumLayer(c, State(), backend=backend)
    assert of(c, Counts(10), backend="trajectories").sum() == 10
    with pytest.raises(CapabilityError, match=r"a state has no shots: 10 samples of it are Samples\(10\)"):
        QuantumLayer(bell(), State(), backend="statevector", shots=10)
    c = c.copy()
    c.readout_error(0.1, 0.2, 0)  # of what is read at the end, after the inverse of the other state's circuit
    one = Circuit(1)
    one.x(0)
    wanted = 0.9 * rho[1, 1] + 0.2 * rho[0, 0]
    np.testing.assert_allclose(of(c, Fidelity(one)), [wanted], rtol=0, atol=EXACT)


def test_wide_circuits_are_read_by_their_cones():
    c = Circuit(40)
    for q in range(40):
        c.ry(0.1 * q, q)
    for q in range(39):
        c.cnot(q, q + 1)
    narrow = Circuit(2)
    narrow.ry(0.0, 0), narrow.ry(0.1, 1), narrow.cnot(0, 1)
    np.testing.assert_allclose(of(c, Purity((0,))), of(narrow, Purity((0,))), rtol=0, atol=EXACT)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_state_is_prepared(n):
    rng = np.random.default_rng(n)
    vectors = [rng.normal(size=1 << n) + 1j * rng.normal(size=1 << n), np.eye(1 << n)[-1], np.eye(1 << n)[0]]
    for vector in vectors:
        vector = vector / np.linalg.norm(vector)
        c = Circuit(n)
        for name, qubits, angles in prepare(vector, range(n)):
            c.append(name, qubits, angles)
        assert abs(np.vdot(vector, reference.state(c, [], []))) == pytest.approx(1.0, abs=MATRIX)


# -- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "statevector", "aer"])
def test_counts_and_samples(backend):
    circuit, theta, x = circuit_and_point()
    shots, qubits = 4000, (2, 0)
    exact = QuantumLayer(circuit, Probabilities(qubits))
    layers = [
        QuantumLayer(circuit, m, backend=backend, seed=4) for m in (Counts(shots, qubits), Samples(shots, qubits))
    ]
    for layer in (exact, *layers):
        layer.theta = theta
    counts, samples = layers[0](x), layers[1](x)
    assert counts.shape == (3, 4) == layers[0].compute_output_shape(x.shape)
    assert samples.shape == (3, shots, 2) == layers[1].compute_output_shape(x.shape)
    assert set(np.unique(samples)) == {0.0, 1.0}
    np.testing.assert_array_equal(counts.sum(axis=1), shots)
    p = exact(x)
    spread = np.sqrt(p * (1 - p) * shots)
    assert (np.abs(counts - shots * p) <= SIGMAS * spread).all()
    index = 2 * samples[..., 0] + samples[..., 1]
    found = np.stack([(index == k).sum(axis=1) for k in range(4)], axis=1)
    assert (np.abs(found - shots * p) <= SIGMAS * spread).all()
    # In random order: the halves agree, and neighbours are independent.
    first = np.stack([(index[:, : shots // 2] == k).sum(axis=1) for k in range(4)], axis=1)
    assert (np.abs(first - shots / 2 * p) <= SIGMAS * spread).all()
    product = (samples[:, 1:, 0] * samples[:, :-1, 0]).mean(axis=1)
    assert (np.abs(product - samples[..., 0].mean(axis=1) ** 2) <= SIGMAS / np.sqrt(shots)).all()
    # By the layer's seed, call by call.
    again = layers[1].on(backend)
    np.testing.assert_array_equal(again(x), samples)
    assert (again(x) != samples).any()
    single = layers[0](x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single.sum(axis=1), shots)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_seed_gives_the_same_counts_on_every_engine(dtype):
    """Probabilities of ½, ¼, 2⁻²⁰ and 0, each with an engine's own last digit."""
    bell = Circuit(2)
    bell.h(0)
    bell.cnot(0, 1)
    found = [
        QuantumLayer(bell, Counts(1000), seed=1, backend=b)(np.zeros((1, 0), dtype)) for b in ("numba", "statevector")
    ]
    np.testing.assert_array_equal(*found)
    values = np.array([[0.5, 0.25, 0.25 - 2.0**-20, 2.0**-20, 0.0]], dtype)
    near = np.nextafter(values, dtype(1))
    draws = [Counts(10**6).draw(v, None, np.random.default_rng(0)) for v in (values, near)]
    np.testing.assert_array_equal(draws[0][:, :4], draws[1][:, :4])


def test_samples_have_no_gradient():
    circuit, _, x = circuit_and_point()
    for measurement, size in ((Samples(3), (3, 3, 3)), (Counts(3), (3, 8))):
        with pytest.raises(GradientError, match="drawn at random and have no gradient"):
            QuantumLayer(circuit, measurement).vjp(x, np.ones(size))


def test_samples_say_how_many():
    circuit, _, x = circuit_and_point()
    assert QuantumLayer(circuit, Counts(10), shots=10)(x).sum() == 30
    sampled = QuantumLayer(circuit, Counts(10), backend="aer")
    assert sampled(x).sum() == 30
    assert sampled.last_run.shots == 10
    assert QuantumLayer(circuit, Counts(10)).last_run is None
    with pytest.raises(SpecError, match="takes 10 samples, the layer asks for shots=20"):
        QuantumLayer(circuit, Counts(10), shots=20)


def test_what_are_no_frequencies():
    measurement = Counts(10)
    for values in ([[0.55, 0.45]], [[0.5, 0.6]], [[1.2, -0.2]]):
        with pytest.raises(qstore_core.BackendError, match="no frequencies of 10 samples"):
            measurement.draw(np.array(values), 10, np.random.default_rng(0))
