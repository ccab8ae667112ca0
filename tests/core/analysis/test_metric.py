"""The metric tensor: closed forms, differences of fidelities, PennyLane's; and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import (
    Circuit,
    Expectation,
    MemoryLimitError,
    QuantumEncoder,
    QuantumFeatureExtractor,
    QuantumKernel,
    QuantumLayer,
    ShapeError,
    SpecError,
)
from qstore_core.analysis import metric, metric_tensor, natural_gradient
from tests.support.strategies import circuits
from tests.support.tolerances import EXACT, FINITE_DIFFERENCE, GRADIENT, allow


def layer_of(circuit, theta):
    return QuantumLayer(circuit, Expectation("Z"), init=lambda rng, size: theta)


def test_rotations_behind_each_other_by_hand():
    """RY(a) then RZ(b): a quarter, and the variance of Z over four."""
    c = Circuit(1)
    a, b = c.weights(2)
    c.ry(a, 0), c.rz(b, 0)
    found = metric_tensor(layer_of(c, [0.7, 0.3]), np.zeros((1, 0)))
    np.testing.assert_allclose(found, np.diag([0.25, np.sin(0.7) ** 2 / 4]), rtol=0, atol=EXACT)


def test_a_shared_weight_adds_up_and_a_product_has_the_slope_of_its_feature():
    c = Circuit(2)
    (x,), (w,) = c.inputs(1), c.weights(1)
    c.ry(x * w, 0), c.ry(2 * w, 1)
    found = metric_tensor(layer_of(c, [0.4]), np.array([[1.0], [3.0]]))
    np.testing.assert_allclose(found, [[(1 + 9) / 2 / 4 + 4 / 4]], rtol=0, atol=EXACT)


@settings(max_examples=20)
@given(circuits(max_qubits=3, amplitudes=False, max_gates=8), st.integers(0, 99))
def test_any_circuit_equals_the_curvature_of_its_fidelity(circuit, seed):
    """|⟨ψ(θ)|ψ(θ + δ)⟩|² = 1 - δᵀ g δ, by states of the kernel with weights as inputs."""
    rng, h = np.random.default_rng(seed), 1e-3
    theta, x = rng.normal(size=circuit.n_weights), rng.normal(size=(1, circuit.n_inputs))
    whole = Circuit(circuit.n_qubits)
    slots = whole.inputs(circuit.n_weights + circuit.n_inputs)
    both = whole.compose(circuit, inputs=slots[circuit.n_weights :], weights=slots[: circuit.n_weights])
    along = rng.normal(size=circuit.n_weights)
    along /= max(np.linalg.norm(along), 1.0)
    points = [np.concatenate([theta + k * h * along, x[0]]) for k in (-1, 0, 1)]
    overlaps = QuantumKernel(both)(np.array(points))[1]
    g = metric_tensor(layer_of(circuit, theta), x)
    expected = (2 - overlaps[0] - overlaps[2]) / (2 * h * h)
    scale = allow(np.array([expected]), 1.0) ** 2
    assert along @ g @ along == pytest.approx(expected, abs=100 * FINITE_DIFFERENCE * scale)
    np.testing.assert_allclose(g, g.T, rtol=0, atol=EXACT)
    assert np.linalg.eigvalsh(g).min(initial=0.0) > -EXACT * scale


@pytest.mark.parametrize("ansatz", ["hardware_efficient", "strongly_entangling"])
@pytest.mark.parametrize("approx", [None, "block-diag", "diag"])
def test_it_equals_that_of_pennylane(ansatz, approx):
    qml = pytest.importorskip("pennylane")
    pnp = pytest.importorskip("pennylane.numpy")
    layer = QuantumFeatureExtractor(3, 2, encoding="angle", ansatz=ansatz, init="uniform", seed=0)
    x = np.random.default_rng(0).normal(size=(2, 3))
    names = {"ry": qml.RY, "rz": qml.RZ, "rot": qml.Rot, "cnot": qml.CNOT}

    @qml.qnode(qml.device("default.qubit", wires=4))
    def state(theta, row):
        for op in layer.circuit.operations:
            values = []
            for angle in op.params:
                ((((kind, index),), _),) = angle.terms
                values.append(theta[index] if kind == "w" else row[index])
            names[op.gate](*values, wires=op.qubits)
        return qml.expval(qml.Z(0))

    theta = pnp.array(layer.theta, requires_grad=True)
    theirs = [qml.metric_tensor(state, approx=approx)(theta, pnp.array(row, requires_grad=False)) for row in x]
    np.testing.assert_allclose(
        metric_tensor(layer, x, approx=approx), np.mean(theirs, axis=0), rtol=0, atol=GRADIENT["float64"]
    )


def test_functions_of_weights_have_their_slope():
    """RY(sin w + x): a quarter of cos² w; an arccos of features does not count."""
    c = Circuit(2)
    (x,), (w,) = c.inputs(1), c.weights(1)
    c.ry(x.arccos(), 1), c.ry(w.sin() + x, 0)
    found = metric_tensor(layer_of(c, [0.4]), np.array([[0.1], [0.9]]))
    np.testing.assert_allclose(found, [[np.cos(0.4) ** 2 / 4]], rtol=0, atol=EXACT)


def test_amplitude_encoded_layers_and_chunks(monkeypatch):
    layer = QuantumFeatureExtractor(3, 1, init="uniform", seed=1)
    x = np.random.default_rng(0).normal(size=(5, 8))
    whole = metric_tensor(layer, x)
    single = [metric_tensor(layer, row[None]) for row in 3.0 * x]  # lengths do not count
    np.testing.assert_allclose(whole, np.mean(single, axis=0), rtol=0, atol=EXACT)
    monkeypatch.setattr(metric, "_CHUNK_BYTES", 1)
    np.testing.assert_allclose(metric_tensor(layer, x), whole, rtol=0, atol=EXACT)


def test_natural_steps_go_straight_down():
    """⟨Z⟩ of RY(w) from a flat start: plain descent crawls, natural descent is as fast on any scale of the angle."""
    c = Circuit(1)
    (w,) = c.weights(1)
    c.ry(0.05 * w, 0)
    layer = layer_of(c, [10.0])
    x = np.zeros((1, 0))
    for _ in range(60):
        d_theta, _ = layer.vjp(x, np.ones((1, 1)))
        g = metric_tensor(layer, x, approx="block-diag")
        layer.theta = layer.theta - 0.1 * natural_gradient(g, d_theta, regularisation=0.0)
    assert layer(x)[0, 0] < -0.999


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: metric_tensor(QuantumEncoder(2), np.ones((1, 4))), SpecError, "with a circuit"),
        (lambda: metric_tensor(QuantumFeatureExtractor(2), np.ones((1, 4)), approx="block"), SpecError, "block-diag"),
        (lambda: metric_tensor(QuantumFeatureExtractor(2), np.ones((0, 4))), ShapeError, "samples, features"),
        (lambda: metric_tensor(QuantumFeatureExtractor(2), np.ones((1, 4)), theta=[1.0]), ShapeError, "weights"),
        (lambda: natural_gradient(np.zeros((1, 1)), np.ones(1), regularisation=0.0), SpecError, "singular"),
        (lambda: natural_gradient(np.eye(1), np.ones(1), regularisation=-1.0), SpecError, "at least 0"),
        (
            lambda: metric_tensor(
                QuantumFeatureExtractor(40, 2, encoding="angle", entanglement="linear"), np.ones((1, 40))
            ),
            MemoryLimitError,
            "derivatives of a state of 40 qubits",
        ),
    ],
)
def test_what_is_wrong_is_said(call, error, match):
    with pytest.raises(error, match=match):
        call()
