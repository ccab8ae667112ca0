"""The `statevector` engine: closed forms first, then agreement with the reference, then properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import (
    CapabilityError,
    Circuit,
    Expectation,
    MemoryLimitError,
    OptionError,
    Pauli,
    Probabilities,
    QuantumKernel,
    QuantumLayer,
    get_backend,
)
from qstore_core.circuit.spec import layer_spec as specs
from qstore_core.engines.arrays import adjoint
from qstore_core.engines.memory import check_memory
from qstore_core.runtime.gradients import ParameterShift, unshared
from tests.support.reference import PAULI, difference_vjp, embed, simulate, state, unit_rows
from tests.support.strategies import Problem, angles, batches, layer_specs, problems, vectors
from tests.support.tolerances import EXACT, EXACT_GRADIENT, FINITE_DIFFERENCE, FLOAT32_SUM, GRADIENT, VALUE, allow

BACKEND = get_backend("statevector")


def compiled(circuit, measurement, dtype="float64"):
    return BACKEND.compile(circuit, measurement, dtype=dtype)


def run(circuit, measurement, theta=(), inputs=None, dtype="float64"):
    inputs = np.zeros((1, 0)) if inputs is None else np.asarray(inputs)
    executable = compiled(circuit, measurement, dtype)
    return executable.forward(np.asarray(theta, dtype), np.ascontiguousarray(inputs, dtype))


# -- closed forms -----------------------------------------------------------------------------------------------------


@given(angles())
def test_ry_expectation_is_cosine(angle):
    c = Circuit(1)
    c.ry(c.weights(1)[0], 0)
    z, x, y = run(c, Expectation(("Z", "X", "Y")), [angle])[0]
    assert z == pytest.approx(math.cos(angle), abs=EXACT)
    assert x == pytest.approx(math.sin(angle), abs=EXACT)
    assert y == pytest.approx(0.0, abs=EXACT)


@given(angles())
def test_rx_turns_z_to_minus_y(angle):
    c = Circuit(1)
    c.rx(c.weights(1)[0], 0)
    z, x, y = run(c, Expectation(("Z", "X", "Y")), [angle])[0]
    assert [z, x, y] == pytest.approx([math.cos(angle), 0.0, -math.sin(angle)], abs=EXACT)


@given(angles())
def test_rz_turns_the_equator(angle):
    c = Circuit(1)
    c.h(0)
    c.rz(c.inputs(1)[0], 0)
    z, x, y = run(c, Expectation(("Z", "X", "Y")), inputs=[[angle]])[0]
    assert [z, x, y] == pytest.approx([0.0, math.cos(angle), math.sin(angle)], abs=EXACT)


def test_qubit_zero_is_most_significant():
    for qubit, index in ((0, 4), (1, 2), (2, 1)):
        c = Circuit(3)
        c.x(qubit)
        np.testing.assert_allclose(run(c, Probabilities()), np.eye(8)[[index]], atol=EXACT)


def test_amplitudes_are_indexed_alike():
    """Amplitude 0b100 is qubit 0 in |1⟩."""
    c = Circuit(3, amplitudes=True)
    np.testing.assert_allclose(run(c, Expectation("Z"), inputs=np.eye(8)[[4]]), [[-1, 1, 1]], atol=EXACT)


def test_controls_come_first():
    c = Circuit(2)
    c.x(0)
    c.cnot(0, 1)
    np.testing.assert_allclose(run(c, Probabilities()), [[0, 0, 0, 1]], atol=EXACT)
    c = Circuit(2)
    c.x(1)
    c.cnot(0, 1)
    np.testing.assert_allclose(run(c, Probabilities()), [[0, 1, 0, 0]], atol=EXACT)


def test_bell_state():
    c = Circuit(2)
    c.h(0)
    c.cnot(0, 1)
    np.testing.assert_allclose(run(c, Probabilities()), [[0.5, 0, 0, 0.5]], atol=EXACT)
    np.testing.assert_allclose(run(c, Expectation(("Z", "X", "Y"))), np.zeros((1, 6)), atol=EXACT)
    correlated = Expectation(observables=(Pauli("ZZ"), Pauli("XX"), Pauli("YY"), Pauli("XY")))
    np.testing.assert_allclose(run(c, correlated), [[1, 1, -1, 0]], atol=EXACT)


@pytest.mark.parametrize("n", [3, 6, 9])
def test_ghz_state(n):
    c = Circuit(n)
    c.h(0)
    for q in range(n - 1):
        c.cnot(q, q + 1)
    expected = np.zeros((1, 1 << n))
    expected[0, [0, -1]] = 0.5
    np.testing.assert_allclose(run(c, Probabilities()), expected, atol=EXACT)
    strings = (Pauli("X" * n), Pauli("Z" * n), Pauli("ZZ" + "I" * (n - 2)), Pauli("Z" + "I" * (n - 1)))
    np.testing.assert_allclose(run(c, Expectation(observables=strings)), [[1, n % 2 == 0, 1, 0]], atol=EXACT)


def test_outputs_are_basis_major():
    c = Circuit(2)  # qubit 0 in |+⟩, qubit 1 in |1⟩
    c.h(0)
    c.x(1)
    np.testing.assert_allclose(run(c, Expectation(("Z", "X"))), [[0, -1, 1, 0]], atol=EXACT)
    np.testing.assert_allclose(run(c, Expectation(("X", "Z"))), [[1, 0, 0, -1]], atol=EXACT)
    np.testing.assert_allclose(run(c, Expectation(("X", "Z"), qubits=(1, 0))), [[0, 1, -1, 0]], atol=EXACT)


def test_probabilities_of_some_qubits_in_the_order_given():
    c = Circuit(3)
    c.x(0)
    c.ry(2 * math.asin(math.sqrt(0.3)), 2)  # qubit 2 is |1⟩ with probability 0.3
    np.testing.assert_allclose(run(c, Probabilities(qubits=(0, 2))), [[0, 0, 0.7, 0.3]], atol=EXACT)
    np.testing.assert_allclose(run(c, Probabilities(qubits=(2, 0))), [[0, 0.7, 0, 0.3]], atol=EXACT)


def test_classes_are_the_index_modulo_their_number():
    c = Circuit(3, amplitudes=True)
    p = np.arange(1.0, 9.0) / 36
    expected = [[sum(p[k] for k in range(8) if k % 3 == label) for label in range(3)]]
    np.testing.assert_allclose(run(c, Probabilities(n_classes=3), inputs=[np.sqrt(p)]), expected, atol=EXACT)
    np.testing.assert_allclose(run(c, Probabilities(n_classes=1), inputs=[np.sqrt(p)]), [[1.0]], atol=EXACT)
    np.testing.assert_allclose(run(c, Probabilities(n_classes=8), inputs=[np.sqrt(p)]), [p], atol=EXACT)


def test_weighted_sums_of_strings():
    c = Circuit(2)
    c.ry(0.4, 0)
    c.ry(1.1, 1)
    energy = 0.5 * Pauli("ZZ") - 2 * Pauli("XI") + 3 * Pauli("II")
    expected = 0.5 * math.cos(0.4) * math.cos(1.1) - 2 * math.sin(0.4) + 3
    np.testing.assert_allclose(run(c, Expectation(observables=(energy,))), [[expected]], atol=EXACT)


# -- agreement with the reference -------------------------------------------------------------------------------------


def check_values(problem):
    expected = simulate(problem.circuit, problem.measurement, problem.theta, problem.inputs)
    values = run(problem.circuit, problem.measurement, problem.theta, problem.inputs)
    np.testing.assert_allclose(values, expected, rtol=0, atol=allow(expected, EXACT))


@given(problems())
def test_values_are_those_of_gate_by_gate_simulation(problem):
    check_values(problem)


@given(problems(min_qubits=5, max_qubits=7, max_gates=25))
def test_values_where_qubits_form_several_groups(problem):
    check_values(problem)


@given(st.data())
def test_values_of_layers(data):
    spec = data.draw(layer_specs(kinds=("QuantumFeatureExtractor", "QuantumPooling", "QuantumReadout"), max_qubits=5))
    batch = data.draw(batches(("float64",), min_rows=1))
    theta = batch.theta(spec)
    x = batch.features(spec).reshape(-1, batch.features(spec).shape[-1])[:2]
    if spec.encoding.is_amplitude:
        x = unit_rows(x, 1 << spec.n_qubits)
    expected = simulate(spec.circuit, spec.measurement, theta, x)
    values = run(spec.circuit, spec.measurement, theta, x)
    np.testing.assert_allclose(values, expected, rtol=0, atol=allow(expected, EXACT))


@given(problems(max_rows=2, max_gates=10))
def test_float32_is_as_near_as_float32_can_be(problem):
    """Rounding the angles themselves, up to some hundred radians, costs most."""
    executable = compiled(problem.circuit, problem.measurement, "float32")
    theta, inputs = problem.theta.astype(np.float32), problem.inputs.astype(np.float32)
    values = executable.forward(theta, inputs)
    assert values.dtype == np.float32
    expected = simulate(problem.circuit, problem.measurement, theta.astype(float), inputs.astype(float))
    largest = max([1.0, *(abs(a.value(theta, x[problem.circuit.n_amplitudes :])) for x in inputs
                          for op in problem.circuit.operations for a in op.params)])  # fmt: skip
    np.testing.assert_allclose(values, expected, rtol=0, atol=allow(expected, FLOAT32_SUM * largest))


def test_float32_of_the_guides_layer_keeps_the_promise():
    spec = specs.feature_extractor(8, 2, measurement_bases=("Z", "X", "Y"))
    rng = np.random.default_rng(0)
    theta, x = rng.uniform(0, 2 * np.pi, spec.n_weights), rng.normal(size=(4, 256))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    exact = run(spec.circuit, spec.measurement, theta, x)
    single = run(spec.circuit, spec.measurement, theta, x, "float32")
    np.testing.assert_allclose(single, exact, rtol=0, atol=VALUE["float32"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [None, 3])
def test_probabilities_sum_to_one(dtype, classes):
    spec = specs.readout(5, classes or 32, depth=3)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 32))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    values = run(spec.circuit, spec.measurement, rng.normal(size=spec.n_weights), x, dtype)
    assert values.dtype == dtype
    assert (values >= 0).all()
    np.testing.assert_allclose(values.sum(axis=1), 1.0, rtol=0, atol=FLOAT32_SUM if dtype == "float32" else EXACT)


def test_rows_of_a_batch_are_independent():
    spec = specs.feature_extractor(6, 2, encoding="zz")
    rng = np.random.default_rng(2)
    theta, x = rng.normal(size=spec.n_weights), rng.normal(size=(7, 6))
    together = run(spec.circuit, spec.measurement, theta, x)
    single = np.concatenate([run(spec.circuit, spec.measurement, theta, row[None]) for row in x])
    np.testing.assert_allclose(together, single, rtol=0, atol=EXACT)


def test_many_rows_of_few_qubits_and_few_rows_of_many():
    for n, rows in ((1, 500), (11, 2)):
        spec = specs.feature_extractor(n, 2, measurement_bases=("Z", "Y"))
        rng = np.random.default_rng(3)
        theta, x = rng.normal(size=spec.n_weights), rng.normal(size=(rows, 1 << n))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        values = run(spec.circuit, spec.measurement, theta, x)
        strings = spec.measurement.as_observables(n)
        for row in (0, rows - 1):
            psi = state(spec.circuit, theta, x[row])
            for k in (0, len(strings) - 1):
                ((string, _),) = strings[k].terms
                qubit = next(q for q, letter in enumerate(string) if letter != "I")
                turned = (PAULI[string[qubit]] @ psi.reshape(1 << qubit, 2, -1)).reshape(-1)
                assert values[row, k] == pytest.approx(np.vdot(psi, turned).real, abs=EXACT)


# -- pooling is the quantum operation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["measurement", "partial_trace"])
@pytest.mark.parametrize(("n", "size"), [(2, 2), (4, 2), (3, 3), (4, 4), (6, 3), (3, 1)])
def test_pooling_is_measuring_turning_and_tracing_out(n, size, mode):
    """By density matrices: measure the others, turn the kept qubit where the outcome is 1, forget the outcome."""
    spec = specs.pooling(n, size, mode=mode, measurement_bases=("Z", "X", "Y"))
    rng = np.random.default_rng(10 * n + size)
    theta, x = rng.normal(size=spec.n_weights), rng.normal(size=1 << n)
    x /= np.linalg.norm(x)
    before = specs.feature_extractor(n, 1)
    psi = state(before.circuit, theta[: before.n_weights], x)
    rho = np.outer(psi, psi.conj())
    weights = iter(theta[before.n_weights :])
    for kept in range(0, n, size):
        for measured in range(kept + 1, kept + size):
            if mode == "partial_trace":
                continue
            first, middle, last = (next(weights) for _ in range(3))
            z1, y, z2 = (
                embed(np.cos(a / 2) * np.eye(2) - 1j * np.sin(a / 2) * PAULI[axis], (kept,), n)
                for a, axis in ((first, "Z"), (middle, "Y"), (last, "Z"))
            )
            zero, one = (embed(np.diag(d), (measured,), n) for d in ((1, 0), (0, 1)))
            turned = z2 @ y @ z1 @ one
            rho = zero @ rho @ zero + turned @ rho @ turned.conj().T
    assert next(weights, None) is None
    expected = []
    for basis in ("Z", "X", "Y"):
        for kept in range(0, n, size):
            left, right = 1 << kept, 1 << (n - kept - 1)
            reduced = np.einsum("aibajb->ij", rho.reshape(left, 2, right, left, 2, right))
            expected.append(np.trace(reduced @ PAULI[basis]).real)
    np.testing.assert_allclose(run(spec.circuit, spec.measurement, theta, x[None]), [expected], rtol=0, atol=EXACT)


# -- gradients --------------------------------------------------------------------------------------------------------


def cotangents_of(problem):
    shape = (len(problem.inputs), problem.measurement.n_outputs(problem.circuit.n_qubits))
    return np.random.default_rng(5).normal(size=shape)


@given(angles())
def test_the_gradient_of_a_cosine_is_minus_the_sine(angle):
    c = Circuit(1)
    c.ry(c.weights(1)[0] + c.inputs(1)[0], 0)
    executable = compiled(c, Expectation("Z"))
    d_theta, d_x = executable.vjp(np.array([angle]), np.array([[0.3]]), np.array([[2.0]]))
    assert d_theta[0] == pytest.approx(-2 * math.sin(angle + 0.3), abs=EXACT)
    assert d_x[0, 0] == pytest.approx(-2 * math.sin(angle + 0.3), abs=EXACT)


@given(problems(max_gates=10))
def test_adjoint_equals_finite_differences(problem):
    executable = compiled(problem.circuit, problem.measurement)
    cotangents = cotangents_of(problem)
    exact = executable.vjp(problem.theta, problem.inputs, cotangents)
    approximate = difference_vjp(executable.forward, cotangents, problem.theta, problem.inputs)
    for a, b in zip(exact, approximate, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=allow(b, FINITE_DIFFERENCE))


def check_parameter_shift(problem):
    executable = compiled(problem.circuit, problem.measurement)
    shifted = compiled(unshared(problem.circuit), problem.measurement)
    rule = ParameterShift(problem.circuit, shifted.forward)
    cotangents = cotangents_of(problem)
    d_theta, d_inputs = executable.vjp(problem.theta, problem.inputs, cotangents)
    with_inputs = not problem.circuit.n_amplitudes
    by_rule = rule.vjp(problem.theta, problem.inputs, cotangents, wrt_inputs=with_inputs)
    np.testing.assert_allclose(d_theta, by_rule[0], rtol=0, atol=allow(by_rule[0], EXACT_GRADIENT))
    if with_inputs:
        np.testing.assert_allclose(d_inputs, by_rule[1], rtol=0, atol=allow(by_rule[1], EXACT_GRADIENT))


@given(problems(max_gates=8))
def test_adjoint_equals_parameter_shift(problem):
    check_parameter_shift(problem)


@given(problems(min_qubits=5, max_qubits=6, max_gates=15, max_rows=2))
def test_adjoint_equals_parameter_shift_where_qubits_form_several_groups(problem):
    check_parameter_shift(problem)


@given(problems(min_qubits=1, max_qubits=6, max_gates=15))
def test_states_kept_or_unapplied_give_one_gradient(problem):
    executable = compiled(problem.circuit, problem.measurement)
    cotangents = cotangents_of(problem)
    kept = executable.vjp(problem.theta, problem.inputs, cotangents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adjoint, "KEEP_BYTES", -1)
        unapplied = executable.vjp(problem.theta, problem.inputs, cotangents)
    for a, b in zip(kept, unapplied, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=allow(a, EXACT_GRADIENT))


@given(problems(max_gates=10))
def test_value_and_vjp_shares_one_forward_pass(problem):
    executable = compiled(problem.circuit, problem.measurement)
    outputs, pull = executable.value_and_vjp(problem.theta, problem.inputs)
    np.testing.assert_allclose(
        outputs, executable.forward(problem.theta, problem.inputs), rtol=0, atol=allow(outputs, EXACT)
    )
    cotangents = cotangents_of(problem)
    first, second = pull(cotangents), pull(-2 * cotangents)  # a pullback may be used again, and is linear
    for a, b, like in zip(first, second, (problem.theta, problem.inputs), strict=True):
        assert a.shape == like.shape
        assert a.dtype == like.dtype
        np.testing.assert_allclose(-2 * a, b, rtol=0, atol=allow(b, EXACT_GRADIENT))


@given(problems(max_gates=10))
def test_arguments_are_not_written_to(problem):
    executable = compiled(problem.circuit, problem.measurement)
    theta, inputs, cotangents = problem.theta.copy(), problem.inputs.copy(), cotangents_of(problem)
    for array in (theta, inputs, cotangents):
        array.setflags(write=False)
    executable.forward(theta, inputs)
    executable.vjp(theta, inputs, cotangents)


@pytest.mark.parametrize("encoding", ["amplitude", "angle", "iqp"])
def test_float32_gradients_keep_the_promise(encoding):
    spec = specs.feature_extractor(6, 2, encoding=encoding, measurement_bases=("Z", "X", "Y"))
    rng = np.random.default_rng(4)
    theta, x = rng.uniform(0, 2 * np.pi, spec.n_weights), rng.normal(size=(3, spec.n_features))
    if encoding == "amplitude":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    cotangents = rng.uniform(-1, 1, size=(3, 18))
    exact = compiled(spec.circuit, spec.measurement).vjp(theta, x, cotangents)
    single = compiled(spec.circuit, spec.measurement, "float32").vjp(
        *(a.astype(np.float32) for a in (theta, x, cotangents))
    )
    for a, b in zip(single, exact, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=GRADIENT["float32"])


def test_nothing_to_differentiate():
    """No weights, no inputs: gradients of those shapes."""
    c = Circuit(2)
    c.h(0)
    d_theta, d_inputs = compiled(c, Expectation("Z")).vjp(np.zeros(0), np.zeros((3, 0)), np.ones((3, 2)))
    assert d_theta.shape == (0,)
    assert d_inputs.shape == (3, 0)


def test_unused_slots_have_gradient_zero():
    c = Circuit(1)
    c.weights(2)
    c.inputs(3)
    d_theta, d_inputs = compiled(c, Expectation("Z")).vjp(np.ones(2), np.ones((4, 3)), np.ones((4, 1)))
    np.testing.assert_array_equal(d_theta, np.zeros(2))
    np.testing.assert_array_equal(d_inputs, np.zeros((4, 3)))


@given(vectors(3))
def test_a_shared_weight_collects_all_its_uses(theta):
    c = Circuit(2)
    w = c.weights(3)
    for angle in (w[0], 2 * w[0] * w[1], w[2] - w[0]):
        c.ry(angle, 0)
        c.cnot(0, 1)
        c.rx(angle, 1)
    inputs = np.zeros((1, 0))
    check_parameter_shift(Problem(c, Expectation(("Z", "X", "Y")), theta, inputs))


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_shots_are_refused():
    with pytest.raises(CapabilityError, match="shots=100 was asked for"):
        BACKEND.compile(Circuit(1), Expectation("Z"), shots=100)


def test_options_are_refused():
    with pytest.raises(OptionError, match="has no option 'device'"):
        get_backend("statevector", device="GPU")


@pytest.mark.parametrize("n", [60, 1000, 2000])
def test_memory_is_said_before_it_is_allocated(n):
    with pytest.raises(
        MemoryLimitError, match=rf"a state of {n} qubits .* would need .* GiB, .* GiB available"
    ) as caught:
        BACKEND.compile(Circuit(n), Expectation("Z"))
    assert caught.value.needed_bytes > caught.value.available_bytes > 0
    assert isinstance(caught.value, MemoryError)


def test_memory_counts_rows_and_precision():
    check_memory(10, rows=1000)
    with pytest.raises(MemoryLimitError, match="1000000000 states of 10 qubits") as single:
        check_memory(10, rows=10**9)
    with pytest.raises(MemoryLimitError) as double:
        check_memory(10, rows=10**9, dtype="float64")
    assert double.value.needed_bytes == pytest.approx(2 * single.value.needed_bytes, rel=1e-6)  # tables are the same


def test_sixty_qubits_need_exabytes():
    with pytest.raises(MemoryLimitError) as caught:
        check_memory(60)
    assert caught.value.needed_bytes >= 8 << 60


def test_ensembles_and_gram_matrices_are_promised_before_they_are_computed(monkeypatch):
    """Members and pairs are computed one after the other, for long, and then there is no room for all."""
    monkeypatch.setattr("qstore_core.engines.memory.available_memory", lambda: 1 << 30)
    circuit = Circuit(2)
    circuit.ry(circuit.inputs(1)[0] * circuit.weights(1)[0], 0)
    layer = QuantumLayer(circuit, Probabilities(), seed=0)
    layer.theta = np.zeros((100_000, 1))
    with pytest.raises(MemoryLimitError, match="4 outputs for 500 rows of features from each of 100000 members"):
        layer(np.zeros((500, 1)))
    kernels = QuantumKernel("angle", n_qubits=1), QuantumKernel("angle", n_qubits=1, backend="trajectories", shots=10)
    for kernel in kernels:
        with pytest.raises(MemoryLimitError, match="20000 by 20000 samples"):
            kernel(np.zeros((20_000, 1)))
        assert kernel(np.zeros((3, 1))).shape == (3, 3)  # it stays usable
    layer.theta = np.zeros((3, 1))
    assert layer(np.zeros((5, 1))).shape == (3, 5, 4)
