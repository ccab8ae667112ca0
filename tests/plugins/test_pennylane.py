"""`pennylane`: devices by name and as objects, their gradients, shots and noise, against the independent reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from qstore_core import (
    CapabilityError,
    Circuit,
    Expectation,
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
from tests.support.tolerances import EXACT, FINITE_DIFFERENCE, VALUE, allow

qml = pytest.importorskip("pennylane")

SIGMAS = 5
DIFFERENTIABLE = ["default.qubit", "lightning.qubit"]


def device(name):
    if name not in qml.plugin_devices:
        pytest.skip(f"{name} is not installed")
    return f"pennylane:{name}"


@pytest.mark.parametrize("check", conformance_checks("pennylane"), ids=str)
def test_conformance(check):
    check()


# What depends on our reading of samples, not on who draws them, is checked once.
SAMPLING = [str(check) for check in conformance_checks("pennylane") if str(check).startswith("shots: ")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightning.qubit", "default.mixed", "reference.qubit"])
def test_conformance_of_devices(name):
    report = run_checks(device(name), qubits=7, skip=[c for c in SAMPLING if c != "shots: all circuits"])
    assert report.ok, str(report)


# -- exact ------------------------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(problems(max_gates=8))
@pytest.mark.parametrize("name", [*DIFFERENTIABLE, "default.mixed"])
def test_values_are_exact(name, problem):
    expected = simulate(problem.circuit, problem.measurement, problem.theta, problem.inputs)
    executable = get_backend(device(name)).compile(problem.circuit, problem.measurement, dtype="float64")
    found = executable.forward(problem.theta, problem.inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=allow(expected, EXACT))


@settings(max_examples=15)
@given(problems(max_gates=6, max_rows=2))
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_equal_differences(name, problem):
    executable = get_backend(device(name)).compile(problem.circuit, problem.measurement, dtype="float64")
    cotangents = np.random.default_rng(0).normal(
        size=(len(problem.inputs), problem.measurement.n_outputs(problem.circuit.n_qubits))
    )
    wanted = difference_vjp(
        lambda t, x: simulate(problem.circuit, problem.measurement, t, x), cotangents, problem.theta, problem.inputs
    )
    for found, expected in zip(executable.vjp(problem.theta, problem.inputs, cotangents), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=allow(expected, FINITE_DIFFERENCE))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_cotangent_of_zero(name):
    layer = QuantumFeatureExtractor(2, backend=device(name), fallback=None)
    for gradient in layer.vjp(np.ones((3, 4)), np.zeros((3, 2))):
        np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("name", [*DIFFERENTIABLE, "default.mixed"])
def test_what_is_constant(name):
    """No gate, no angle that varies, an observable that is a number: still one output per row."""
    backend = get_backend(device(name))
    circuit = Circuit(2)
    circuit.x(1)
    unused = circuit.inputs(1)
    assert len(unused) == 1
    for measurement, row in (
        (Expectation(), [1.0, -1.0]),
        (Probabilities(), [0.0, 1.0, 0.0, 0.0]),
        (Expectation(observables=(2.0 * Pauli("II"),)), [2.0]),
    ):
        values = backend.compile(circuit, measurement, dtype="float64").forward(np.zeros(0), np.zeros((3, 1)))
        np.testing.assert_allclose(values, [row] * 3, rtol=0, atol=EXACT)


# -- one call of the device -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
@pytest.mark.parametrize(
    ("name", "shots", "tapes"),
    [("default.qubit", None, 1), ("lightning.qubit", None, 32), ("default.qubit", 50, 3), ("lightning.qubit", 50, 96)],
)
def test_a_batch_is_one_call(monkeypatch, name, encoding, shots, tapes):
    """One tape of the whole batch where the device broadcasts; shots: a tape per basis."""
    cls, calls = type(qml.device(device(name).partition(":")[2], wires=1)), []
    execute = cls.execute
    monkeypatch.setattr(cls, "execute", lambda self, t, *a, **k: calls.append(len(t)) or execute(self, t, *a, **k))
    layer = QuantumFeatureExtractor(
        3, encoding=encoding, measurement_bases=("Z", "X", "Y"), backend=device(name), shots=shots, fallback=None
    )
    x = np.random.default_rng(0).normal(size=(32, layer.spec.n_features))
    layer(x)
    calls.clear()  # a device is asked once whether it has states
    layer(x)
    assert calls == [tapes]


# -- shots and noise --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*DIFFERENTIABLE, "default.mixed"])
def test_samples_lie_within_their_standard_errors(name):
    circuit = Circuit(3)
    circuit.x(0)
    circuit.ry(circuit.inputs(1)[0], 1)
    circuit.ch(1, 2)
    circuit.rot(circuit.weights(1)[0], 0.3, 0.1, 0)
    sums = Expectation(observables=(Pauli("ZZI") + 0.5 * Pauli("IXX"), Pauli("IIY"), Pauli("III") - Pauli("XII")))
    theta, x = np.array([0.4]), np.linspace(0.2, 2.5, 6)[:, None]
    for measurement in (sums, Probabilities((2, 0))):
        executable = get_backend(device(name)).compile(circuit, measurement, dtype="float64", shots=1000)
        values, report = executable.value_and_report(theta, x, seed=2)
        assert report.std_error.shape == values.shape
        spread = np.maximum(report.std_error, 1e-3)
        assert (np.abs(values - simulate(circuit, measurement, theta, x)) < SIGMAS * spread).all()


def test_one_shot_is_one_outcome():
    layer = QuantumReadout(2, n_classes=4, encoding="angle", backend="pennylane", shots=1, seed=0, fallback=None)
    values = layer(np.random.default_rng(0).normal(size=(5, 2)))
    assert set(values.ravel()) == {0.0, 1.0}
    np.testing.assert_array_equal(values.sum(axis=1), 1.0)


def test_a_layer_tells_standard_errors():
    layer = QuantumReadout(2, encoding="angle", backend="pennylane", shots=100, seed=0, fallback=None)
    layer(np.ones((4, 2)))
    assert layer.last_run.backend == "pennylane:default.qubit"
    assert layer.last_run.std_error.shape == (4, 2)


def test_a_noise_model_on_a_device_object():
    noise = qml.NoiseModel({qml.noise.op_eq(qml.RY): qml.noise.partial_wires(qml.DepolarizingChannel, 0.15)})
    noisy = qml.add_noise(qml.device("default.mixed", wires=1), noise)
    backend = get_backend("pennylane", device=noisy)
    layer = QuantumFeatureExtractor(1, depth=0, encoding="angle", backend=backend, fallback=None)
    x = np.array([[0.3], [1.2]])
    np.testing.assert_allclose(layer(x), (1 - 4 * 0.15 / 3) * np.cos(x), rtol=0, atol=VALUE["float64"])


# -- names, options, errors -------------------------------------------------------------------------------------------


def test_a_device_by_name():
    assert get_backend("pennylane:default.mixed") is get_backend("pennylane", device="default.mixed")
    assert get_backend("pennylane").name == "pennylane:default.qubit"
    layer = QuantumReadout(2, encoding="angle", backend="pennylane:default.qubit", seed=1, fallback=None)
    x = np.random.default_rng(0).normal(size=(3, 2))
    assert layer.backend_name == "pennylane:default.qubit"
    np.testing.assert_allclose(layer(x), layer_outputs(layer.spec, layer.theta, x), rtol=0, atol=VALUE["float64"])
    again = QuantumReadout.from_config(layer.get_config()) if hasattr(layer, "from_config") else layer
    assert again.backend_name == "pennylane:default.qubit"


def test_a_device_in_a_fallback_chain():
    from qstore_core import FallbackWarning, register_backend, unregister_backend
    from tests.support.faults import Fault, FaultyBackend

    register_backend("faulty", FaultyBackend("faulty", Fault("raises", "forward")))
    try:
        layer = QuantumReadout(2, encoding="angle", backend="faulty", fallback=("pennylane:default.qubit",), seed=1)
        x = np.random.default_rng(0).normal(size=(3, 2))
        with pytest.warns(FallbackWarning, match=r"'pennylane:default\.qubit' computes the same circuit"):
            values = layer(x)
        assert layer.last_run.backend == "pennylane:default.qubit"
        np.testing.assert_allclose(values, layer_outputs(layer.spec, layer.theta, x), rtol=0, atol=VALUE["float64"])
    finally:
        unregister_backend("faulty")


def test_options():
    with pytest.raises(OptionError, match=r"no device 'lightning\.qbit'.*Did you mean 'lightning\.qubit'"):
        get_backend("pennylane:lightning.qbit")
    with pytest.raises(OptionError, match=r"no option 'readout_probe'.*Did you mean 'readout_prob'"):
        get_backend("pennylane:default.mixed", readout_probe=0.1)
    with pytest.raises(OptionError, match="no option 'shots'"):
        get_backend("pennylane", shots=10)
    with pytest.raises(OptionError, match="exists already"):
        get_backend("pennylane", device=qml.device("default.qubit", wires=2), max_workers=2)
    with pytest.raises(OptionError, match="or a device"):
        get_backend("pennylane", device=3)


def test_a_device_has_as_many_qubits_as_wires():
    backend = get_backend("pennylane", device=qml.device("default.qubit", wires=2))
    with pytest.raises(CapabilityError, match="at most 2 qubits"):
        QuantumReadout(3, backend=backend)
    assert get_backend("pennylane", device="lightning.qubit", wires=3).capabilities.max_qubits == 3
