"""The density engine: closed forms, Kraus operators by hand, gradients by two other methods, without noise as pure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import (
    CapabilityError,
    Channel,
    Circuit,
    Expectation,
    MemoryLimitError,
    NoiseModel,
    OptionError,
    Pauli,
    Probabilities,
    QuantumFeatureExtractor,
    QuantumLayer,
    ShapeError,
    get_backend,
    register_backend,
    unregister_backend,
)
from qstore_core.engines import density
from qstore_core.runtime.gradients import ParameterShift, unshared
from qstore_core.testing import reference
from tests.support.strategies import circuits, measurements, noisy_circuits, points
from tests.support.tolerances import EXACT, EXACT_GRADIENT, FINITE_DIFFERENCE, FLOAT32_SUM, GRADIENT, allow

NOTHING = np.zeros(0), np.zeros((1, 0))
KERNELS = ["arrays", "numba"]


@pytest.fixture(params=KERNELS, autouse=True)
def kernels(request, monkeypatch):
    """Every test with and without numba."""
    if request.param == "arrays":
        monkeypatch.setattr(density, "_has_numba", lambda: False)
    else:
        pytest.importorskip("numba")
    return request.param


def compiled(circuit, measurement, dtype="float64", **options):
    return get_backend("density", **options).compile(circuit, measurement, dtype=dtype)


def test_a_depolarised_qubit():
    """⟨Z⟩ = (1 - p) cos w, ⟨X⟩ = (1 - p) sin w."""
    c = Circuit(1)
    c.ry(c.weights(1)[0], 0)
    c.depolarizing(0.1, 0)
    theta, inputs = np.array([0.4]), np.zeros((2, 0))
    outputs, vjp_fn = compiled(c, Expectation(("Z", "X"))).value_and_vjp(theta, inputs)
    expected = 0.9 * np.array([[np.cos(0.4), np.sin(0.4)]] * 2)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=EXACT)
    d_theta, _ = vjp_fn(np.array([[1.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_allclose(d_theta, [0.9 * (2 * np.cos(0.4) - np.sin(0.4))], rtol=0, atol=EXACT)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_gates_that_cancel_keep_their_noise(count):
    c = Circuit(2)
    c.h(0)
    for _ in range(count):
        c.cnot(0, 1)
    model = NoiseModel().after("cnot", Channel.depolarizing(0.05, 2))
    run = compiled(c, Expectation(observables=(Pauli("ZZ"),)), noise_model=model)
    expected = 0.95**count if count % 2 else 0.0
    np.testing.assert_allclose(run.forward(*NOTHING), [[expected]], rtol=0, atol=EXACT)


def test_a_decaying_qubit_and_its_readout():
    """P(1) after X and decay is 1 - gamma; 1 is read as 1 with probability 1 - p_10, and 0 with p_01."""
    c = Circuit(1)
    c.x(0)
    c.amplitude_damping(0.3, 0)
    c.readout_error(0.05, 0.2, 0)
    one = 0.7 * 0.8 + 0.3 * 0.05
    np.testing.assert_allclose(compiled(c, Probabilities()).forward(*NOTHING), [[1 - one, one]], rtol=0, atol=EXACT)
    np.testing.assert_allclose(compiled(c, Expectation()).forward(*NOTHING), [[1 - 2 * one]], rtol=0, atol=EXACT)


@settings(max_examples=30)
@given(st.data())
def test_values_are_those_of_kraus_operators_by_hand(data):
    circuit = data.draw(noisy_circuits())
    measurement = data.draw(measurements(circuit.n_qubits))
    theta, inputs = data.draw(points(circuit))
    expected = reference.outputs(circuit, measurement, theta, inputs)
    found = compiled(circuit, measurement).forward(theta, inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=allow(expected, EXACT))


@settings(max_examples=15)
@given(st.data())
def test_gradients_are_those_of_the_parameter_shift_rule(data):
    circuit = data.draw(noisy_circuits(amplitudes=False))
    measurement = data.draw(measurements(circuit.n_qubits))
    theta, inputs = data.draw(points(circuit))
    run = compiled(circuit, measurement)
    cotangents = np.random.default_rng(0).normal(size=(len(inputs), measurement.n_outputs(circuit.n_qubits)))
    shift = ParameterShift(circuit, compiled(unshared(circuit), measurement).forward)
    for found, expected in zip(run.vjp(theta, inputs, cotangents), shift.vjp(theta, inputs, cotangents), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=allow(expected, EXACT_GRADIENT))


@settings(max_examples=10)
@given(st.data())
def test_gradients_of_amplitudes_are_those_of_differences(data):
    circuit = data.draw(noisy_circuits(amplitudes=True, max_gates=5))
    measurement = data.draw(measurements(circuit.n_qubits))
    theta, inputs = data.draw(points(circuit))
    width = circuit.n_amplitudes
    cotangents = np.random.default_rng(0).normal(size=(len(inputs), measurement.n_outputs(circuit.n_qubits)))
    d_theta, d_inputs = compiled(circuit, measurement).vjp(theta, inputs, cotangents)
    rows = inputs[:, :width]
    d_inputs[:, :width] -= (d_inputs[:, :width] * rows).sum(axis=1, keepdims=True) * rows
    expected = reference.slopes(circuit, measurement, theta, inputs, cotangents)
    for found, wanted in zip((d_theta, d_inputs), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=allow(wanted, FINITE_DIFFERENCE))


@settings(max_examples=12)
@given(st.data())
def test_without_noise_it_computes_what_the_statevector_does(data):
    circuit = data.draw(circuits())
    measurement = data.draw(measurements(circuit.n_qubits))
    theta, inputs = data.draw(points(circuit))
    exact = get_backend("statevector").compile(circuit, measurement, dtype="float64")
    cotangents = np.random.default_rng(0).normal(size=(len(inputs), measurement.n_outputs(circuit.n_qubits)))
    run = compiled(circuit, measurement)
    for found, expected in zip(
        (run.forward(theta, inputs), run.vjp(theta, inputs, cotangents)[0]),
        (exact.forward(theta, inputs), exact.vjp(theta, inputs, cotangents)[0]),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=allow(expected, EXACT_GRADIENT))


@settings(max_examples=10)
@given(st.data())
def test_float32(data):
    circuit = data.draw(noisy_circuits())
    measurement = data.draw(measurements(circuit.n_qubits))
    theta, inputs = (array.astype(np.float32) for array in data.draw(points(circuit)))
    found = compiled(circuit, measurement, "float32").forward(theta, inputs)
    expected = compiled(circuit, measurement).forward(theta.astype(float), inputs.astype(float))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=allow(expected, FLOAT32_SUM))


def layered(n, depth=2, noise=True):
    """Angles as inputs, RY and RZ as weights, CNOTs; a channel behind every gate."""
    c = Circuit(n)
    x, w = c.inputs(n), iter(c.weights(2 * n * depth))
    for q in range(n):
        c.ry(x[q], q)
    for _ in range(depth):
        for q in range(n):
            c.ry(next(w), q), c.rz(next(w), q)
        for q in range(n - 1):
            c.cnot(q, q + 1)
    model = NoiseModel().after("cnot", Channel.depolarizing(0.02, 2)).after("*", Channel.amplitude_damping(0.03))
    return model.readout_error(0.01, 0.02).applied(c) if noise else c


@pytest.mark.parametrize(("n", "rows"), [(2, 1), (3, 17), (4, 70), (7, 3), (8, 2)])
def test_batches_and_sizes(n, rows):
    c, rng = layered(n), np.random.default_rng(n)
    theta, inputs = rng.normal(size=c.n_weights), rng.normal(size=(rows, n))
    run = compiled(c, Expectation(("Z", "X")))
    outputs, vjp_fn = run.value_and_vjp(theta, inputs)
    cotangents = rng.normal(size=outputs.shape)
    d_theta, d_inputs = vjp_fn(cotangents)
    if n <= 4:
        np.testing.assert_allclose(outputs, reference.outputs(c, Expectation(("Z", "X")), theta, inputs), atol=EXACT)
    single = [run.value_and_vjp(theta, row[None]) for row in inputs[:3]]
    for k, (alone, pull) in enumerate(single):
        np.testing.assert_allclose(alone[0], outputs[k], rtol=0, atol=EXACT)
        np.testing.assert_allclose(pull(cotangents[k : k + 1])[1][0], d_inputs[k], rtol=0, atol=EXACT)
    step = 1e-5
    moved = [run.forward(theta + s * step * np.eye(1, len(theta), 1)[0], inputs) for s in (1, -1)]
    slope = ((moved[0] - moved[1]) * cotangents).sum() / (2 * step)
    assert d_theta[1] == pytest.approx(slope, abs=allow(slope, FINITE_DIFFERENCE))


def test_checkpoints_give_the_same_gradients(monkeypatch):
    c, rng = layered(3, depth=4), np.random.default_rng(1)
    theta, inputs, cotangents = rng.normal(size=c.n_weights), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    whole = compiled(c, Expectation()).vjp(theta, inputs, cotangents)
    monkeypatch.setattr(density, "KEEP_BYTES", 1)
    run = compiled(c, Expectation())
    assert len(run._parts_for(1)) > 2
    for found, expected in zip(run.vjp(theta, inputs, cotangents), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


def test_ten_qubits_and_no_more():
    c = Circuit(10)
    c.h(0)
    for q in range(9):
        c.cnot(q, q + 1), c.depolarizing(0.01, q, q + 1)
    ends = Pauli("Z" + "I" * 8 + "Z")
    values = compiled(c, Expectation(observables=(ends,)), "float32").forward(*(a.astype("f") for a in NOTHING))
    # Every channel meets a factor of the operator that it does not leave alone.
    np.testing.assert_allclose(values, [[0.99**9]], rtol=0, atol=FLOAT32_SUM)
    with pytest.raises(CapabilityError, match="at most 10 qubits, received 11"):
        compiled(Circuit(11), Expectation())


def test_memory_is_asked_for_first(monkeypatch):
    monkeypatch.setattr("qstore_core.engines.memory.available_memory", lambda: 1 << 20)
    c = layered(10)
    with pytest.raises(MemoryLimitError, match="density matrices of 10 qubits"):
        compiled(c, Expectation()).forward(np.zeros(c.n_weights), np.zeros((200, 10)))


def test_options_and_arguments_that_are_wrong():
    with pytest.raises(OptionError, match=r"noise_model is a qstore_core\.NoiseModel"):
        get_backend("density", noise_model=0.1)
    with pytest.raises(OptionError, match="Did you mean 'noise_model'"):
        get_backend("density", noise_modle=None)
    with pytest.raises(OptionError, match="threads"):
        get_backend("density", threads=0)
    with pytest.raises(CapabilityError, match="shots=10"):
        get_backend("density").compile(Circuit(1), Expectation(), shots=10)
    run = compiled(layered(2), Expectation())
    with pytest.raises(ShapeError, match=r"theta of shape \(8,\)"):
        run.forward(np.zeros(3), np.zeros((1, 2)))
    for inputs in (np.float64(1.0), np.zeros(2), np.zeros((1, 3)), [[0.0]]):
        with pytest.raises(ShapeError, match="inputs of shape"):
            run.forward(np.zeros(8), inputs)
    with pytest.raises(ShapeError, match="cotangents"):
        run.vjp(np.zeros(8), np.zeros((1, 2)), np.zeros((1, 5)))
    assert run.forward(np.zeros(8), np.zeros((0, 2))).shape == (0, 2)


def test_a_layer_with_a_noise_model():
    """By an object, by its saved form, and by a registered name, which files can hold."""
    model = NoiseModel().after("*", Channel.phase_damping(0.1)).readout_error(0.02, 0.05)
    backend = get_backend("density", noise_model=model)
    assert backend.capabilities.noisy
    x = np.random.default_rng(0).normal(size=(4, 8))
    layer = QuantumFeatureExtractor(3, backend=backend, seed=0)
    pure = QuantumFeatureExtractor(3, backend="density", seed=0)
    spelled = QuantumLayer(model.applied(layer.spec.circuit), layer.spec.measurement, seed=0)
    spelled.theta = pure.theta = layer.theta
    np.testing.assert_allclose(layer(x), spelled(x), rtol=0, atol=EXACT)
    assert np.abs(layer(x) - pure(x)).max() > 1e-3
    assert layer.backend_name == spelled.backend_name == "density"
    register_backend("damped", lambda: get_backend("density", noise_model=model.to_dict()))
    try:
        named = QuantumFeatureExtractor(3, backend="damped", seed=0)
        named.theta = layer.theta
        np.testing.assert_array_equal(named(x), layer(x))
    finally:
        unregister_backend("damped")


def test_nothing_takes_the_place_of_noise(monkeypatch):
    model = NoiseModel().after("*", Channel.phase_damping(0.1))
    layer = QuantumFeatureExtractor(2, backend=get_backend("density", noise_model=model))
    assert [b.name for b in layer._program.backends] == ["density"]
    other = QuantumFeatureExtractor(2, backend=get_backend("density", noise_model=model), fallback="statevector")
    assert "without the noise of 'density'" in other._program.chain.changes[1]


def test_gradients_of_float32_are_close_to_those_of_float64():
    c, rng = layered(4, depth=3), np.random.default_rng(2)
    arrays = rng.normal(size=c.n_weights), rng.normal(size=(20, 4)), rng.normal(size=(20, 4))
    single = [a.astype(np.float32) for a in arrays]
    exact = compiled(c, Expectation()).vjp(*(a.astype(float) for a in single))
    for found, wanted in zip(compiled(c, Expectation(), "float32").vjp(*single), exact, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=allow(wanted, GRADIENT["float32"]))
