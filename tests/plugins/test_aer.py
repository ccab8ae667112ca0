"""`aer`: simulators, noise, hardware objects and primitives, against the independent reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from qstore_core import (
    BackendError,
    CapabilityError,
    Circuit,
    Expectation,
    GradientError,
    OptionError,
    Pauli,
    Probabilities,
    QuantumFeatureExtractor,
    QuantumReadout,
    get_backend,
)
from qstore_core.testing import conformance_checks, run_checks
from tests.support.reference import difference_vjp, layer_outputs, simulate
from tests.support.strategies import problems
from tests.support.tolerances import EXACT, EXACT_GRADIENT, FINITE_DIFFERENCE, VALUE, allow

qiskit = pytest.importorskip("qiskit")
qiskit_aer = pytest.importorskip("qiskit_aer")

from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator, StatevectorSampler  # noqa: E402
from qiskit.providers.fake_provider import GenericBackendV2  # noqa: E402
from qiskit_aer import AerSimulator  # noqa: E402
from qiskit_aer.noise import NoiseModel, depolarizing_error  # noqa: E402

SIGMAS = 5


def flipped_cosine():
    """RY(x) on qubit 1 of 3, an idle qubit 2, an X on qubit 0."""
    circuit = Circuit(3)
    circuit.x(0)
    circuit.ry(circuit.inputs(1)[0], 1)
    return circuit


@pytest.mark.parametrize("check", conformance_checks("aer"), ids=str)
def test_conformance(check):
    check()


# What depends on our reading of samples, not on who draws them, is checked once.
SAMPLING = [str(check) for check in conformance_checks("aer") if str(check).startswith("shots: ")]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["density_matrix", "matrix_product_state", "automatic"])
def test_conformance_of_methods(method):
    report = run_checks("aer", method=method, qubits=7, skip=[c for c in SAMPLING if c != "shots: all circuits"])
    assert report.ok, str(report)


# -- exact ------------------------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(problems(max_gates=8))
def test_every_method_is_exact(problem):
    expected = simulate(problem.circuit, problem.measurement, problem.theta, problem.inputs)
    for method in ("statevector", "density_matrix", "matrix_product_state"):
        executable = get_backend("aer", method=method).compile(problem.circuit, problem.measurement, dtype="float64")
        found = executable.forward(problem.theta, problem.inputs)
        np.testing.assert_allclose(found, expected, rtol=0, atol=allow(expected, EXACT), err_msg=method)


@settings(max_examples=20)
@given(problems(max_gates=6, max_rows=2))
def test_adjoint_gradients_equal_differences(problem):
    executable = get_backend("aer").compile(problem.circuit, problem.measurement, dtype="float64")
    outputs, pull = executable.value_and_vjp(problem.theta, problem.inputs)
    cotangents = np.random.default_rng(0).normal(size=outputs.shape)
    wanted = difference_vjp(
        lambda t, x: simulate(problem.circuit, problem.measurement, t, x), cotangents, problem.theta, problem.inputs
    )
    for found, expected in zip(pull(cotangents), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=allow(expected, FINITE_DIFFERENCE))


def test_a_batch_in_several_circuits_is_the_same(monkeypatch):
    from qstore_plugins.aer import _register as _aer_register

    circuit = Circuit(2, amplitudes=True)
    w, x = circuit.weights(2), circuit.inputs(1)
    circuit.ry(w[0] * x[0], 0)
    circuit.crz(w[1], 0, 1)
    rng = np.random.default_rng(0)
    theta, inputs, cotangents = rng.normal(size=2), rng.normal(size=(7, 5)), rng.normal(size=(7, 4))
    inputs[:, :4] /= np.linalg.norm(inputs[:, :4], axis=1, keepdims=True)
    executable = get_backend("aer").compile(circuit, Expectation(("X", "Y")), dtype="float64")
    whole, together = executable.forward(theta, inputs), executable.vjp(theta, inputs, cotangents)
    monkeypatch.setattr(_aer_register, "_STATE", 8)  # two samples of four amplitudes
    np.testing.assert_allclose(executable.forward(theta, inputs), whole, rtol=0, atol=EXACT)
    for found, expected in zip(executable.vjp(theta, inputs, cotangents), together, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT_GRADIENT)


@pytest.mark.parametrize("method", ["density_matrix", "matrix_product_state"])
def test_idle_qubits_do_not_move_the_others(method):
    """Aer cuts idle qubits away, and observables on a part of the qubits with them (qiskit-aer issue 2442)."""
    executable = get_backend("aer", method=method).compile(flipped_cosine(), Expectation(), dtype="float64")
    values = executable.forward(np.zeros(0), np.array([[0.4]]))
    np.testing.assert_allclose(values, [[-1, np.cos(0.4), 1]], rtol=0, atol=EXACT)


def test_a_layer_trains_through_amplitudes():
    layer = QuantumFeatureExtractor(3, depth=1, backend="aer", fallback=None, seed=1)
    own = QuantumFeatureExtractor(3, depth=1, backend="statevector", seed=1)
    x = np.random.default_rng(0).normal(size=(4, 8))
    for found, expected in zip(layer.vjp(x, np.ones((4, 3))), own.vjp(x, np.ones((4, 3))), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT_GRADIENT)


# -- one submission ---------------------------------------------------------------------------------------------------


@pytest.fixture
def submissions(monkeypatch):
    """`AerSimulator.run` as it is, with a list of the numbers of circuits that it received."""
    calls = []
    run = AerSimulator.run

    def counted(self, circuits, *args, **kwargs):
        calls.append(len(circuits) if isinstance(circuits, list) else 1)
        return run(self, circuits, *args, **kwargs)

    monkeypatch.setattr(AerSimulator, "run", counted)
    return calls


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
@pytest.mark.parametrize(
    ("options", "shots", "circuits"),
    [({}, None, 1), ({"method": "density_matrix"}, None, 1), ({}, 100, 3)],
    ids=["statevector", "density_matrix", "shots"],
)
def test_a_batch_is_one_submission(submissions, encoding, options, shots, circuits):
    layer = QuantumFeatureExtractor(
        3, encoding=encoding, measurement_bases=("Z", "X", "Y"), backend=get_backend("aer", **options), shots=shots,
        fallback=None,
    )  # fmt: skip
    layer(np.random.default_rng(0).normal(size=(32, layer.spec.n_features)))
    assert submissions == [circuits]


def test_a_gradient_is_two_submissions(submissions):
    for gradient in ("auto", "parameter-shift"):
        layer = QuantumFeatureExtractor(3, encoding="angle", backend="aer", gradient=gradient, fallback=None)
        layer.vjp(np.random.default_rng(0).normal(size=(32, 3)), np.ones((32, 3)))
        assert submissions == [1, 1]
        submissions.clear()


def test_circuits_are_transpiled_once(monkeypatch):
    from qstore_plugins.aer import _circuits as _aer_circuits

    calls, transpile = [], _aer_circuits.transpile
    monkeypatch.setattr(_aer_circuits, "transpile", lambda *a, **k: calls.append(1) or transpile(*a, **k))
    layer = QuantumReadout(3, encoding="angle", backend=get_backend("aer"), shots=10, seed=2, fallback=None)
    for _ in range(3):
        layer(np.zeros((4, 3)))
    assert calls == [1]


# -- noise ------------------------------------------------------------------------------------------------------------


def depolarising(probability):
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(probability, 1), ["ry"])
    return model


def test_depolarising_noise_shrinks_the_cosine():
    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0], 0)
    x = np.array([[0.3], [1.2], [2.9]])
    backend = get_backend("aer", noise_model=depolarising(0.1))
    assert backend.capabilities.exact
    assert not backend.capabilities.vjp
    exact = backend.compile(circuit, Expectation(), dtype="float64").forward(np.zeros(0), x)
    np.testing.assert_allclose(exact, 0.9 * np.cos(x), rtol=0, atol=VALUE["float64"])
    sampled = backend.compile(circuit, Expectation(), dtype="float64", shots=4000)
    values, report = sampled.value_and_report(np.zeros(0), x, seed=1)
    assert (np.abs(values - exact) < SIGMAS * report.std_error).all()


def test_the_gradient_under_noise_is_that_of_the_noisy_circuit():
    layer = QuantumFeatureExtractor(
        1, depth=0, encoding="angle", backend=get_backend("aer", noise_model=depolarising(0.2)), fallback=None
    )
    x = np.array([[0.7]])
    np.testing.assert_allclose(layer.vjp(x, np.ones((1, 1)))[1], -0.8 * np.sin(x), rtol=0, atol=EXACT_GRADIENT)


def test_noise_on_a_statevector_has_no_exact_values():
    backend = get_backend("aer", method="statevector", noise_model=depolarising(0.1))
    with pytest.raises(CapabilityError, match="can only sample"):
        QuantumReadout(2, backend=backend)
    with pytest.raises(CapabilityError, match="density_matrix"):
        backend.compile(flipped_cosine(), Expectation())


# -- hardware and primitives ------------------------------------------------------------------------------------------


NO_RELAXATION = "ignore:Qiskit backend .* has no QubitProperties"  # Aer, of a device without noise


@pytest.mark.filterwarnings(NO_RELAXATION)
@settings(max_examples=10)
@given(problems(max_gates=6, max_qubits=3))
def test_a_device_with_a_layout_samples_the_circuit(problem):
    device = GenericBackendV2(5, coupling_map=[[0, 1], [1, 2], [2, 3], [3, 4]], noise_info=False, seed=3)
    backend = get_backend("aer", backend=device)
    assert backend.capabilities.max_qubits == 5
    executable = backend.compile(problem.circuit, problem.measurement, dtype="float64", shots=500)
    values, report = executable.value_and_report(problem.theta, problem.inputs, seed=5)
    expected = simulate(problem.circuit, problem.measurement, problem.theta, problem.inputs)
    bound = SIGMAS * np.sqrt(report.std_error**2 + allow(expected, 2.0) / 500**2)
    assert (np.abs(values - expected) <= np.maximum(bound, allow(expected, 10.0) / 500)).all()


def fake_manila():
    return pytest.importorskip("qiskit_ibm_runtime.fake_provider").FakeManilaV2()


def test_fake_hardware_in_one_job(monkeypatch):
    device, jobs = fake_manila(), []
    run = type(device).run
    monkeypatch.setattr(type(device), "run", lambda self, *a, **k: jobs.append(1) or run(self, *a, **k))
    backend = get_backend("aer", backend=device)
    executable = backend.compile(flipped_cosine(), Expectation(("Z", "X")), dtype="float64", shots=2000)
    values = executable.forward(np.zeros(0), np.array([[0.0], [np.pi]]), seed=3)
    assert len(jobs) == 1
    # Readout errors of this device are below 0.1 per outcome, so that ⟨Z⟩ of a basis state is above 0.8.
    np.testing.assert_allclose(values[:, :3], [[-1, 1, 1], [-1, -1, 1]], rtol=0, atol=0.2)
    np.testing.assert_array_equal(executable.forward(np.zeros(0), np.array([[0.0], [np.pi]]), seed=3), values)


def test_a_layer_on_fake_hardware():
    backend = get_backend("aer", backend=fake_manila())
    with pytest.raises(CapabilityError, match="shots="):
        QuantumReadout(3, backend=backend)
    with pytest.raises(CapabilityError, match="at most 5 qubits"):
        QuantumReadout(6, backend=backend, shots=100)
    layer = QuantumReadout(2, n_classes=2, encoding="angle", backend=backend, shots=500, seed=1, fallback=None)
    x = np.random.default_rng(0).normal(size=(3, 2))
    np.testing.assert_allclose(layer(x).sum(axis=1), 1.0, rtol=0, atol=EXACT)
    d_theta, d_x = layer.vjp(x, np.ones((3, 2)))  # of probabilities that sum to 1: any slope of their sum is noise
    assert np.abs(d_theta).max() < EXACT
    assert np.abs(d_x).max() < EXACT


def test_noise_of_a_device_with_its_layout():
    """Exact values of the device's noise model, on the qubits that the transpiler chose."""
    simulator = AerSimulator.from_backend(fake_manila())
    executable = get_backend("aer", backend=simulator).compile(flipped_cosine(), Expectation(), dtype="float64")
    values = executable.forward(np.zeros(0), np.array([[0.0], [np.pi]]))
    # Readout errors of this device are below 0.1 per outcome, so that ⟨Z⟩ of a basis state is above 0.8.
    np.testing.assert_allclose(values, [[-1, 1, 1], [-1, -1, 1]], rtol=0, atol=0.2)
    assert np.abs(values[:, 0] + 1).min() > 1e-2  # it is the noisy one


def primitives():
    from qiskit_aer.primitives import EstimatorV2, SamplerV2

    return {
        "StatevectorEstimator": {"estimator": StatevectorEstimator(seed=np.random.default_rng(1))},
        "Aer EstimatorV2": {"estimator": EstimatorV2()},
        "BackendEstimatorV2": {"estimator": BackendEstimatorV2(backend=GenericBackendV2(3, noise_info=False, seed=1))},
        "StatevectorSampler": {"sampler": StatevectorSampler(seed=np.random.default_rng(1))},
        "Aer SamplerV2": {"sampler": SamplerV2(seed=4)},
    }


@pytest.mark.parametrize("name", ["StatevectorEstimator", "Aer EstimatorV2"])
def test_exact_estimators(name):
    backend = get_backend("aer", **primitives()[name])
    assert backend.capabilities.exact
    layer = QuantumFeatureExtractor(3, encoding="angle", measurement_bases=("Z", "Y"), backend=backend, fallback=None)
    x = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(layer(x), layer_outputs(layer.spec, layer.theta, x), rtol=0, atol=VALUE["float64"])


@pytest.mark.filterwarnings(NO_RELAXATION)
@pytest.mark.parametrize("name", primitives())
def test_primitives_sample(name):
    circuit = flipped_cosine()
    circuit.ch(1, 2)
    circuit.rot(circuit.weights(1)[0], 0.3, 0.1, 0)
    sums = Expectation(observables=(Pauli("ZZI") + 0.5 * Pauli("IXX"), Pauli("IIZ"), Pauli("III") - Pauli("XII")))
    theta, x = np.array([0.4]), np.linspace(0.2, 2.5, 6)[:, None]
    executable = get_backend("aer", **primitives()[name]).compile(circuit, sums, dtype="float64", shots=1000)
    values, report = executable.value_and_report(theta, x, seed=2)
    assert report.std_error.shape == values.shape
    spread = np.maximum(report.std_error, 1e-3)
    assert (np.abs(values - simulate(circuit, sums, theta, x)) < SIGMAS * spread).all()


def test_an_estimator_has_no_probabilities_and_a_sampler_beside_it_has():
    objects = primitives()["StatevectorEstimator"]
    with pytest.raises(CapabilityError, match="sampler= as well"):
        get_backend("aer", **objects).compile(flipped_cosine(), Probabilities())
    both = get_backend("aer", **objects, **primitives()["StatevectorSampler"])
    executable = both.compile(flipped_cosine(), Probabilities((0,)), shots=10)
    values = executable.forward(np.zeros(0), np.array([[0.3]]), seed=1)
    np.testing.assert_array_equal(values, [[0.0, 1.0]])
    with pytest.raises(CapabilityError, match="shots="):
        both.compile(flipped_cosine(), Probabilities())


# -- options and errors -----------------------------------------------------------------------------------------------


def test_options():
    assert get_backend("aer:CPU") is get_backend("aer", device="CPU")
    with pytest.raises(OptionError, match="no method 'statevectors'"):
        get_backend("aer", method="statevectors")
    with pytest.raises(OptionError, match=r"no option 'nois_model'.*Did you mean 'noise_model'"):
        get_backend("aer", nois_model=1)
    with pytest.raises(OptionError, match="BackendV2"):
        get_backend("aer", backend="ibm_sherbrooke")
    with pytest.raises(OptionError, match="no option 'method'"):
        get_backend("aer", backend=AerSimulator(), method="statevector")


def test_a_simulation_that_fails_is_a_backend_error():
    backend = get_backend("aer", max_memory_mb=1)
    with pytest.raises(BackendError, match="memory"):
        backend.compile(Circuit(20), Expectation()).forward(np.zeros(0), np.zeros((1, 0)))


def test_no_input_gradient_of_amplitudes_under_shots():
    layer = QuantumFeatureExtractor(2, backend="aer", shots=10)
    with pytest.raises(GradientError, match="amplitude-encoded inputs"):
        layer.vjp(np.ones((1, 4)), np.ones((1, 2)))
