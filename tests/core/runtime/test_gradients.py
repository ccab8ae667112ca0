"""Gradients without a statevector, over any forward function: parameter-shift, finite differences, SPSA."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from qstore_core import Circuit, Expectation, GradientError, Probabilities, QuantumLayer
from qstore_core.circuit.gates.table import GATES, SHIFT_RULES
from qstore_core.runtime.gradients import Differences, ParameterShift, unshared
from tests.support.reference import difference_vjp, simulate
from tests.support.strategies import problems
from tests.support.tolerances import EXACT, FINITE_DIFFERENCE, GRADIENT, SIGMAS, allow


class Reference:
    """An executable on the reference simulation: no engine of ours takes part."""

    def __init__(self, circuit, measurement):
        self.circuit, self.measurement, self.calls, self.rows = circuit, measurement, 0, 0

    def forward(self, theta, inputs):
        self.calls += 1
        self.rows = len(inputs)
        return simulate(self.circuit, self.measurement, theta, inputs)


def rule_for(circuit, measurement):
    plain, shifted = Reference(circuit, measurement), Reference(unshared(circuit), measurement)
    return ParameterShift(circuit, shifted.forward), plain, shifted


def normal(problem):
    width = problem.measurement.n_outputs(problem.circuit.n_qubits)
    return np.random.default_rng(0).normal(size=(len(problem.inputs), width))


@given(problems(max_qubits=3, max_gates=5, max_rows=2))
def test_parameter_shift_equals_differences_of_the_reference(problem):
    rule, plain, _ = rule_for(problem.circuit, problem.measurement)
    wrt_inputs = not problem.circuit.n_amplitudes
    cotangents = normal(problem)
    d_theta, d_inputs = rule.vjp(problem.theta, problem.inputs, cotangents, wrt_inputs=wrt_inputs)
    expected = difference_vjp(plain.forward, cotangents, problem.theta, problem.inputs)
    np.testing.assert_allclose(d_theta, expected[0], rtol=0, atol=allow(expected[0], FINITE_DIFFERENCE))
    if wrt_inputs:
        np.testing.assert_allclose(d_inputs, expected[1], rtol=0, atol=allow(expected[1], FINITE_DIFFERENCE))
    else:
        assert d_inputs is None


@given(problems(max_gates=8, max_rows=2))
def test_unshared_circuits_have_one_input_per_angle(problem):
    circuit = problem.circuit
    free = unshared(circuit)
    angles = [p for op in circuit.operations for p in op.params]
    assert (free.n_inputs, free.n_weights) == (len(angles), 0)
    assert [(op.gate, op.qubits) for op in free.operations] == [(op.gate, op.qubits) for op in circuit.operations]
    rows = [
        np.concatenate([row[: circuit.n_amplitudes],
                        [a.value(problem.theta, row[circuit.n_amplitudes :]) for a in angles]])
        for row in problem.inputs
    ]  # fmt: skip
    expected = simulate(circuit, problem.measurement, problem.theta, problem.inputs)
    values = simulate(free, problem.measurement, [], np.array(rows))
    np.testing.assert_allclose(values, expected, rtol=0, atol=allow(expected, EXACT))


@pytest.mark.parametrize("name", sorted(name for name, entry in GATES.items() if entry.n_params))
def test_every_gate_by_its_rule(name):
    entry = GATES[name]
    circuit = Circuit(entry.n_qubits)
    for q in range(entry.n_qubits):
        circuit.u3(0.3 + q, 0.7, -0.4, q)
    circuit.append(name, range(entry.n_qubits), circuit.weights(entry.n_params))
    rule, plain, _ = rule_for(circuit, Expectation(("Z", "X", "Y")))
    theta, inputs = np.array([0.4, -1.3, 2.2])[: entry.n_params], np.zeros((1, 0))
    cotangents = np.random.default_rng(1).normal(size=plain.forward(theta, inputs).shape)
    (expected,) = difference_vjp(lambda t: plain.forward(t, inputs), cotangents, theta)
    np.testing.assert_allclose(rule.vjp(theta, inputs, cotangents)[0], expected, rtol=0, atol=FINITE_DIFFERENCE)


def test_all_shifts_of_a_batch_are_one_call():
    circuit = Circuit(2)
    w, x = circuit.weights(2), circuit.inputs(1)
    circuit.ry(w[0], 0)
    circuit.crx(w[1], 0, 1)
    circuit.rz(x[0], 1)
    circuit.rx(0.3, 1)  # a constant has no derivative and costs nothing
    rule, plain, shifted = rule_for(circuit, Expectation("Z"))
    rule.vjp(np.array([0.1, 0.2]), np.ones((5, 1)), np.ones((5, 2)))
    assert (plain.calls, shifted.calls) == (0, 1)


def test_products_of_slots_follow_the_chain_rule():
    """⟨Z⟩ = cos(w x²): d/dw = -x² sin, d/dx = -2 w x sin."""
    circuit = Circuit(1)
    (w,), (x,) = circuit.weights(1), circuit.inputs(1)
    circuit.ry(w * x * x, 0)
    rule, _, _ = rule_for(circuit, Expectation("Z"))
    d_theta, d_x = rule.vjp(np.array([0.7]), np.array([[1.3]]), np.ones((1, 1)))
    slope = -math.sin(0.7 * 1.3**2)
    assert d_theta[0] == pytest.approx(1.3**2 * slope, abs=EXACT)
    assert d_x[0, 0] == pytest.approx(2 * 0.7 * 1.3 * slope, abs=EXACT)


def test_amplitudes_have_no_rule_and_it_says_so():
    rule, _, _ = rule_for(Circuit(1, amplitudes=True), Probabilities())
    with pytest.raises(GradientError, match=r'no parameter-shift rule.*backend="statevector".*encoding="angle"'):
        rule.vjp(np.zeros(0), np.eye(2), np.ones((2, 2)))


def test_an_empty_batch_has_gradient_zero():
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0] * circuit.inputs(1)[0], 0)
    rule, _, shifted = rule_for(circuit, Expectation("Z"))
    d_theta, d_x = rule.vjp(np.ones(1), np.zeros((0, 1)), np.zeros((0, 1)))
    np.testing.assert_array_equal(d_theta, [0.0])
    assert d_x.shape == (0, 1)
    assert shifted.calls == 0


def test_gradients_have_the_dtype_of_what_they_belong_to():
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0] + circuit.inputs(1)[0], 0)
    rule, _, _ = rule_for(circuit, Expectation("Z"))
    point = np.ones(1, np.float32), np.ones((2, 1), np.float32)
    d_theta, d_x = rule.vjp(*point, np.ones((2, 1), np.float32))
    assert d_theta.dtype == d_x.dtype == np.float32


@pytest.mark.parametrize("rule", SHIFT_RULES)
def test_rules_have_no_bias(rule):
    """Coefficients are odd in the shift, so a constant has derivative zero and a slope comes out whole."""
    table = dict(SHIFT_RULES[rule])
    for shift, coefficient in table.items():
        assert table[-shift] == -coefficient
    frequencies = (1.0,) if rule == "two-term" else (0.5, 1.0)
    for f in frequencies:
        assert sum(c * math.sin(f * s) for s, c in table.items()) == pytest.approx(f)


# ---- approximations

STEP = 1e-3
TRUNCATION = STEP**2 / 6  # of a central difference, times the third derivative


def differences_of(circuit, measurement, seed=None, step=STEP):
    rng = None if seed is None else np.random.default_rng(seed)
    free = Reference(unshared(circuit), measurement)
    return Differences(circuit, free.forward, step=step, rng=rng), free


def cosine():
    """⟨Z⟩ = cos(w + x)."""
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0] + circuit.inputs(1)[0], 0)
    return circuit, Expectation("Z")


@pytest.mark.parametrize("seed", [None, 3])
def test_one_parameter_at_a_time_is_a_central_difference(seed):
    """(cos(a + h) - cos(a - h)) / 2h = -sin(a) sin(h)/h, also along a random sign."""
    rule, _ = differences_of(*cosine(), seed)
    d_theta, d_x = rule.vjp(np.array([0.4]), np.array([[0.5]]), np.ones((1, 1)), wrt_inputs=False)
    assert d_theta[0] == pytest.approx(-math.sin(0.9) * math.sin(STEP) / STEP, abs=EXACT)
    assert d_x is None


@given(problems(max_qubits=3, max_gates=5, max_rows=2))
def test_finite_differences_equal_parameter_shift(problem):
    rule, _, _ = rule_for(problem.circuit, problem.measurement)
    approximate, _ = differences_of(problem.circuit, problem.measurement, step=1e-6)
    wrt_inputs = not problem.circuit.n_amplitudes
    cotangents = normal(problem)
    expected = rule.vjp(problem.theta, problem.inputs, cotangents, wrt_inputs=wrt_inputs)
    got = approximate.vjp(problem.theta, problem.inputs, cotangents, wrt_inputs=wrt_inputs)
    for a, b in zip(got, expected, strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=0, atol=allow(b, FINITE_DIFFERENCE))


@pytest.mark.parametrize("seed", [None, 5])
def test_all_moves_of_a_batch_are_one_call(seed):
    circuit = Circuit(2)
    w, x = circuit.weights(3), circuit.inputs(1)
    for slot in (*w, *x):
        circuit.ry(slot, 0)
    rule, free = differences_of(circuit, Expectation("Z"), seed)
    rule.vjp(np.zeros(3), np.ones((5, 1)), np.ones((5, 2)))
    assert free.calls == 1
    assert free.rows == (2 * 5 if seed is not None else 2 * 4 * 5)


def test_spsa_is_right_on_average_and_scatters_as_the_other_slopes():
    """Estimates of one slope have the mean g and the variance of all other slopes squared, summed (Spall, 1992)."""
    circuit = Circuit(2)
    w, x = circuit.weights(2), circuit.inputs(2)
    for q in range(2):
        circuit.ry(w[q] + x[q], q)
    theta, row, rows = np.array([0.3, 1.1]), np.array([0.5, -0.2]), 4000
    slopes = -np.sin(theta + row)  # of the sum of ⟨Z⟩; the same for weights and inputs
    rule, _ = differences_of(circuit, Expectation("Z"), seed=7)
    inputs = np.tile(row, (rows, 1))
    d_theta, d_inputs = rule.vjp(theta, inputs, np.ones((rows, 2)))
    total = 2 * (slopes**2).sum()
    for k in range(2):
        variance = total - slopes[k] ** 2
        bound = SIGMAS * math.sqrt(variance / rows) + total * TRUNCATION
        assert d_theta[k] / rows == pytest.approx(slopes[k], abs=bound)
        assert d_inputs[:, k].mean() == pytest.approx(slopes[k], abs=bound)
        # A variance of a few slopes times signs is bounded: its own spread is that of a chi-square, or less.
        assert d_inputs[:, k].var() == pytest.approx(variance, rel=SIGMAS * math.sqrt(2 / rows))


def test_spsa_draws_new_directions_from_its_generator():
    circuit = Circuit(1)
    w = circuit.weights(2)
    circuit.ry(w[0], 0)
    circuit.rx(w[1], 0)
    measured = Expectation("Z")
    first, again = (differences_of(circuit, measured, seed=1)[0] for _ in range(2))
    point = np.array([0.3, 0.4]), np.zeros((8, 0)), np.ones((8, 1))
    one = first.vjp(*point)[0]
    np.testing.assert_array_equal(one, again.vjp(*point)[0])
    assert not np.array_equal(one, first.vjp(*point)[0])


def test_amplitudes_move_on_the_sphere():
    """⟨Z⟩ of a normalised row (a, b) is a² - b² over a² + b²: at (cos t, sin t) the slopes are 4 a b (b, -a)."""
    a, b = math.cos(0.3), math.sin(0.3)
    rule, _ = differences_of(Circuit(1, amplitudes=True), Expectation("Z"))
    _, d_inputs = rule.vjp(np.zeros(0), np.array([[a, b]]), np.ones((1, 1)))
    np.testing.assert_allclose(d_inputs, 4 * a * b * np.array([[b, -a]]), rtol=0, atol=48 * TRUNCATION)


@pytest.mark.parametrize("seed", [None, 1])
def test_approximations_of_nothing(seed):
    circuit, measured = cosine()
    rule, free = differences_of(circuit, measured, seed)
    d_theta, d_inputs = rule.vjp(np.ones(1, np.float32), np.zeros((0, 1), np.float32), np.zeros((0, 1)))
    np.testing.assert_array_equal(d_theta, [0.0])
    assert (d_inputs.shape, d_inputs.dtype, d_theta.dtype, free.calls) == ((0, 1), np.float32, np.float32, 0)


@pytest.mark.parametrize(("dtype", "limit"), [("float32", GRADIENT["float32"]), ("float64", FINITE_DIFFERENCE)])
def test_the_step_of_finite_differences_follows_the_dtype(dtype, limit):
    """Steep slopes: a step of 1e-3 costs 5e-5 of these gradients."""
    circuit = Circuit(2)
    x, w = circuit.inputs(2), circuit.weights(2)
    for q in range(2):
        circuit.ry(3 * x[q] + 2 * w[q], q)
    circuit.cnot(0, 1)
    theta, features = np.array([0.3, -0.2], dtype), np.array([[0.4, 0.9], [-1.0, 0.1]], dtype)
    gradients = []
    for gradient in ("auto", "finite-difference"):
        layer = QuantumLayer(circuit, Expectation(("Z", "X")), backend="statevector", gradient=gradient)
        layer.theta = theta
        gradients.append(layer.vjp(features, np.ones((2, 4), dtype)))
    for received, expected in zip(*reversed(gradients), strict=True):
        np.testing.assert_allclose(received, expected, rtol=0, atol=limit)
