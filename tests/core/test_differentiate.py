"""Gradients without a statevector: the parameter-shift rule over any forward function, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from qstore_core import Circuit, Expectation, GradientError, Probabilities
from qstore_core.differentiate import SHIFT_RULES, ParameterShift, finite_difference, unshared
from qstore_core.gates import GATES
from tests.reference import difference_vjp, simulate
from tests.strategies import problems
from tests.tolerances import EXACT, FINITE_DIFFERENCE, allow


class Reference:
    """An executable on the reference simulation: no engine of ours takes part."""

    def __init__(self, circuit, measurement):
        self.circuit, self.measurement, self.calls = circuit, measurement, 0

    def forward(self, theta, inputs):
        self.calls += 1
        return simulate(self.circuit, self.measurement, theta, inputs)


def rule_for(circuit, measurement):
    plain, shifted = Reference(circuit, measurement), Reference(unshared(circuit), measurement)
    return ParameterShift(circuit, plain.forward, shifted.forward), plain, shifted


@given(problems(max_qubits=3, max_gates=5, max_rows=2))
def test_parameter_shift_equals_differences_of_the_reference(problem):
    rule, plain, _ = rule_for(problem.circuit, problem.measurement)
    wrt_inputs = not problem.circuit.n_amplitudes
    outputs, pull = rule.value_and_vjp(problem.theta, problem.inputs, wrt_inputs=wrt_inputs)
    cotangents = np.random.default_rng(0).normal(size=outputs.shape)
    d_theta, d_inputs = pull(cotangents)
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
    outputs, pull = rule.value_and_vjp(theta, inputs)
    cotangents = np.random.default_rng(1).normal(size=outputs.shape)
    (expected,) = difference_vjp(lambda t: plain.forward(t, inputs), cotangents, theta)
    np.testing.assert_allclose(pull(cotangents)[0], expected, rtol=0, atol=FINITE_DIFFERENCE)


def test_all_shifts_of_a_batch_are_one_call():
    circuit = Circuit(2)
    w, x = circuit.weights(2), circuit.inputs(1)
    circuit.ry(w[0], 0)
    circuit.crx(w[1], 0, 1)
    circuit.rz(x[0], 1)
    circuit.rx(0.3, 1)  # a constant has no derivative and costs nothing
    rule, plain, shifted = rule_for(circuit, Expectation("Z"))
    _, pull = rule.value_and_vjp(np.array([0.1, 0.2]), np.ones((5, 1)))
    assert (plain.calls, shifted.calls) == (1, 0)
    pull(np.ones((5, 2)))
    assert (plain.calls, shifted.calls) == (1, 1)


def test_products_of_slots_follow_the_chain_rule():
    """⟨Z⟩ = cos(w x²): d/dw = -x² sin, d/dx = -2 w x sin."""
    circuit = Circuit(1)
    (w,), (x,) = circuit.weights(1), circuit.inputs(1)
    circuit.ry(w * x * x, 0)
    rule, _, _ = rule_for(circuit, Expectation("Z"))
    _, pull = rule.value_and_vjp(np.array([0.7]), np.array([[1.3]]))
    d_theta, d_x = pull(np.ones((1, 1)))
    slope = -math.sin(0.7 * 1.3**2)
    assert d_theta[0] == pytest.approx(1.3**2 * slope, abs=EXACT)
    assert d_x[0, 0] == pytest.approx(2 * 0.7 * 1.3 * slope, abs=EXACT)


def test_amplitudes_have_no_rule_and_it_says_so():
    rule, _, _ = rule_for(Circuit(1, amplitudes=True), Probabilities())
    with pytest.raises(GradientError, match=r'no parameter-shift rule.*backend="statevector".*encoding="angle"'):
        rule.value_and_vjp(np.zeros(0), np.eye(2))


def test_an_empty_batch_has_gradient_zero():
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0] * circuit.inputs(1)[0], 0)
    rule, _, shifted = rule_for(circuit, Expectation("Z"))
    _, pull = rule.value_and_vjp(np.ones(1), np.zeros((0, 1)))
    d_theta, d_x = pull(np.zeros((0, 1)))
    np.testing.assert_array_equal(d_theta, [0.0])
    assert d_x.shape == (0, 1)
    assert shifted.calls == 0


def test_gradients_have_the_dtype_of_what_they_belong_to():
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0] + circuit.inputs(1)[0], 0)
    rule, _, _ = rule_for(circuit, Expectation("Z"))
    _, pull = rule.value_and_vjp(np.ones(1, np.float32), np.ones((2, 1), np.float32))
    d_theta, d_x = pull(np.ones((2, 1), np.float32))
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


def test_finite_differences_of_a_known_function():
    class Parabola:
        def forward(self, theta, inputs):
            return np.stack([theta[0] * inputs[:, 0] ** 2, theta[1] + inputs[:, 1]], axis=1)

    theta, inputs = np.array([2.0, 1.0]), np.array([[3.0, 0.0], [1.0, 5.0]])
    cotangents = np.array([[1.0, 10.0], [0.5, 0.0]])
    d_theta, d_inputs = finite_difference(Parabola(), theta, inputs, cotangents)
    np.testing.assert_allclose(d_theta, [9.5, 10.0], atol=FINITE_DIFFERENCE)
    np.testing.assert_allclose(d_inputs, [[12.0, 10.0], [2.0, 0.0]], atol=FINITE_DIFFERENCE)
