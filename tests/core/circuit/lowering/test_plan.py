"""The Plan: interpreted as plainly as can be it is the circuit, and each pass does what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from qstore_core import Circuit, Expectation, Pauli, Probabilities, lower
from qstore_core.circuit.angles.angle import Angle
from qstore_core.circuit.gates.table import GATES, Cnot
from qstore_core.circuit.lowering.plan import (
    Diagonal,
    Frame,
    Rotation,
    collect_diagonals,
    decompose,
    drop_unseen,
    parity,
    track,
)
from qstore_core.circuit.spec import layer_spec as specs
from tests.support.reference import PAULI, simulate, state
from tests.support.strategies import circuits, problems
from tests.support.tolerances import EXACT, allow

LINEAR_GATES = ("cnot", "swap", "ry", "rz", "rx", "h")


# -- the plainest interpreter: one amplitude, or one pair of them, at a time ------------------------------------------


def run_rotation(step, psi, theta, x):
    matrix = np.eye(2)
    for axis, angle in step.factors:
        half = angle.value(theta, x) / 2
        sigma = sum(a * PAULI[letter] for a, letter in zip(axis, "XYZ", strict=True))
        matrix = (math.cos(half) * np.eye(2) - 1j * math.sin(half) * sigma) @ matrix
    out = psi.copy()
    for p in range(len(psi)):
        if parity(p & step.u) == 0:  # p is the pair's |0⟩, p ^ v its |1⟩
            pair = [p, p ^ step.v]
            out[pair] = matrix @ psi[pair]
    return out


def run_diagonal(step, psi, theta, x):
    out = psi.copy()
    for p in range(len(psi)):
        total = sum(angle.value(theta, x) * (-1) ** parity(p & mask) for mask, angle in step.terms)
        out[p] *= np.exp(-0.5j * total)
    return out


def run_steps(steps, psi, theta, x):
    for step in steps:
        psi = (run_rotation if isinstance(step, Rotation) else run_diagonal)(step, psi, theta, x)
    return psi


def read_plan(measurement, psi):
    if not measurement.strings:
        out = np.zeros(measurement.n_outputs)
        for p, amplitude in enumerate(psi):
            index = 0
            for mask in measurement.masks:
                index = 2 * index + parity(p & mask)
            out[index % (measurement.n_classes or len(out))] += abs(amplitude) ** 2
        return out
    values = []
    for x, z, n_y in measurement.strings:
        # ⟨i^n_y X^x Z^z⟩ with X^x |p⟩ = |p ^ x⟩ and Z^z |p⟩ = (-1)^parity(p & z) |p⟩
        total = sum(np.conj(psi[p ^ x]) * (-1) ** parity(p & z) * psi[p] for p in range(len(psi)))
        value = 1j**n_y * total
        assert abs(value.imag) < EXACT
        values.append(value.real)
    return np.array([sum(values[k] * c for k, c in terms) for terms in measurement.outputs])


def run_plan(plan, theta, inputs):
    rows = []
    for row in inputs:
        psi = np.zeros(1 << plan.n_qubits, complex)
        psi[0] = 1.0
        if plan.n_amplitudes:
            psi = row[: plan.n_amplitudes].astype(complex)
        rows.append(read_plan(plan.measurement, run_steps(plan.steps, psi, theta, row[plan.n_amplitudes :])))
    return np.array(rows)


@given(problems())
def test_the_plan_is_the_circuit(problem):
    plan = lower(problem.circuit, problem.measurement)
    expected = simulate(problem.circuit, problem.measurement, problem.theta, problem.inputs)
    np.testing.assert_allclose(
        run_plan(plan, problem.theta, problem.inputs), expected, rtol=0, atol=allow(expected, EXACT)
    )


@given(problems(gates=LINEAR_GATES, max_gates=25))
def test_the_plan_is_the_circuit_where_entanglers_are_many(problem):
    plan = lower(problem.circuit, problem.measurement)
    expected = simulate(problem.circuit, problem.measurement, problem.theta, problem.inputs)
    np.testing.assert_allclose(
        run_plan(plan, problem.theta, problem.inputs), expected, rtol=0, atol=allow(expected, EXACT)
    )


@given(problems())
def test_plans_are_values(problem):
    plan = lower(problem.circuit, problem.measurement)
    again = lower(problem.circuit.copy(), problem.measurement)
    assert plan == again
    assert hash(plan) == hash(again)
    assert str(plan) == str(again)
    assert len(str(plan).splitlines()) == len(plan.steps) + 2
    assert (plan.n_weights, plan.n_inputs) == (problem.circuit.n_weights, problem.circuit.n_inputs)
    assert plan.n_outputs == problem.measurement.n_outputs(plan.n_qubits)
    for step in plan.steps:
        if isinstance(step, Rotation):
            assert parity(step.u & step.v) == 1
            frame = plan.frames[step.frame]
            assert (frame.v[step.qubit], frame.u[step.qubit]) == (step.v, step.u)


# -- frames -----------------------------------------------------------------------------------------------------------


def test_qubit_zero_is_the_most_significant_bit():
    frame = Frame.identity(3)
    assert frame.v == frame.u == (0b100, 0b010, 0b001)


@given(circuits(gates=("cnot", "swap"), min_qubits=2, max_qubits=5, max_gates=30, amplitudes=True))
def test_frames_are_linear_maps_and_their_inverses(circuit):
    frame = Frame.identity(circuit.n_qubits)
    for item in decompose(circuit):
        frame = frame.after_cnot(item.control, item.target)
    for a in range(circuit.n_qubits):
        for b in range(circuit.n_qubits):
            assert parity(frame.u[a] & frame.v[b]) == (a == b)


@given(circuits(gates=("cnot", "swap"), min_qubits=2, max_qubits=4, max_gates=30, amplitudes=True))
def test_a_frame_says_where_every_amplitude_went(circuit):
    """The qubits' values after the CNOTs are the parities of the index before them."""
    n = circuit.n_qubits
    steps, frames = track(decompose(circuit), n)
    assert steps == []
    for p in range(1 << n):
        start = np.zeros(1 << n)
        start[p] = 1.0
        (after,) = np.nonzero(state(circuit, [], np.concatenate([start, np.zeros(circuit.n_inputs)])))[0]
        values = [(after >> (n - 1 - q)) & 1 for q in range(n)]
        assert [parity(p & u) for u in frames[-1].u] == values


# -- each pass by itself ----------------------------------------------------------------------------------------------


def circuit_of(n_qubits, *gates, amplitudes=True):
    """A circuit of `(name, qubits)` gates, every angle a weight of its own."""
    circuit = Circuit(n_qubits, amplitudes=amplitudes)
    for name, *qubits in gates:
        circuit.append(name, qubits, circuit.weights(GATES[name].n_params))
    return circuit


def passes(circuit):
    """Steps after `track` and after `collect_diagonals`."""
    steps, _ = track(decompose(circuit), circuit.n_qubits)
    return steps, collect_diagonals(steps)


@given(circuits(max_qubits=3))
def test_decompose_leaves_rotations_and_cnots(circuit):
    for item in decompose(circuit):
        if isinstance(item, Cnot):
            assert item.control != item.target
        else:
            qubit, (axis, angle) = item
            assert 0 <= qubit < circuit.n_qubits
            assert math.isclose(np.linalg.norm(axis), 1.0)
            assert isinstance(angle, Angle)


@given(problems(max_qubits=3, max_rows=1))
def test_every_pass_keeps_the_state(problem):
    """After each pass the steps make the circuit's state, up to its phase and the final relabelling."""
    circuit = problem.circuit
    n = circuit.n_qubits
    row = problem.inputs[0]
    x = row[circuit.n_amplitudes :]
    start = row[: circuit.n_amplitudes].astype(complex) if circuit.n_amplitudes else np.eye(1, 1 << n, dtype=complex)[0]
    expected = state(circuit, problem.theta, row)
    steps, frames = track(decompose(circuit), n)
    where = [sum(parity(p & u) << (n - 1 - q) for q, u in enumerate(frames[-1].u)) for p in range(1 << n)]
    for stage in (steps, collect_diagonals(steps)):
        psi = run_steps(stage, start, problem.theta, x)
        assert abs(abs(np.vdot(psi, expected[where])) - 1) < EXACT


def test_entanglers_cost_no_step():
    gates = [("ry", 0), ("ry", 1), ("ry", 2)]
    entanglers = [("cnot", 0, 1), ("swap", 1, 2), ("cnot", 2, 0), ("cnot", 1, 0)]
    steps, _ = passes(circuit_of(3, *gates, *entanglers))
    assert len(steps) == 3


def test_entanglers_alone_leave_nothing_to_do():
    plan = lower(circuit_of(3, ("cnot", 0, 1), ("swap", 1, 2), ("cnot", 2, 0)), Expectation(("Z", "X", "Y")))
    assert plan.steps == ()


@pytest.mark.parametrize("entanglement", ["linear", "circular", "full", "none"])
def test_a_level_of_the_default_ansatz_is_one_rotation_per_qubit(entanglement):
    """RY·RZ fuse, CNOTs are free: depth · n steps, whatever the pattern."""
    for depth in (1, 2, 3):
        spec = specs.feature_extractor(4, depth, entanglement=entanglement, measurement_bases=("Z", "X", "Y"))
        plan = lower(spec.circuit, spec.measurement)
        assert len(plan.steps) <= 4 * depth
        assert all(isinstance(step, Rotation) and len(step.factors) <= 2 * depth for step in plan.steps)


def test_ry_and_rz_fuse():
    steps, _ = passes(circuit_of(1, ("ry", 0), ("rz", 0)))
    (step,) = steps
    assert [str(angle) for _, angle in step.factors] == ["w0", "w1"]


def test_fusing_reaches_past_gates_on_other_qubits_only():
    steps, _ = passes(circuit_of(2, ("ry", 0), ("ry", 1), ("rx", 0)))
    assert [len(step.factors) for step in steps] == [2, 1]
    steps, _ = passes(circuit_of(2, ("ry", 0), ("cnot", 0, 1), ("ry", 0)))  # RY does not commute with the control
    assert [len(step.factors) for step in steps] == [1, 1]


def test_turns_about_one_axis_add_up():
    steps, _ = passes(circuit_of(1, ("ry", 0), ("ry", 0)))
    (step,) = steps
    assert [str(angle) for _, angle in step.factors] == ["w0 + w1"]


@pytest.mark.parametrize(
    "names",
    [("h", "h"), ("s", "sdg"), ("x", "x"), ("y", "y"), ("z", "z"), ("t", "tdg"), ("swap", "swap")],
)
def test_gates_that_cancel_vanish(names):
    n = 2 if names[0] == "swap" else 1
    assert lower(circuit_of(n, *[(name, *range(n)) for name in names]), Expectation(("Z", "X"))).steps == ()


def test_a_constant_whole_turn_vanishes():
    circuit = Circuit(1, amplitudes=True)
    circuit.ry(4 * math.pi, 0)
    circuit.ry(-2 * math.pi, 0)
    circuit.rx(0.0, 0)
    assert passes(circuit)[0] == []


def test_diagonal_gates_are_collected():
    """RZ, CZ, CP and RZZ between two layers of rotations are one Diagonal."""
    gates = [("rz", 0), ("cz", 0, 1), ("cp", 1, 2), ("rzz", 0, 2), ("t", 1)]
    _, steps = passes(circuit_of(3, ("rx", 0), ("rx", 1), ("rx", 2), *gates, ("rx", 0), ("rx", 1), ("rx", 2)))
    assert sum(isinstance(step, Diagonal) for step in steps) == 1
    assert sum(isinstance(step, Rotation) for step in steps) == 6


def test_trailing_diagonals_are_dropped():
    gates = [("ry", 0), ("ry", 1), ("rz", 0), ("cz", 0, 1), ("cp", 0, 1), ("rzz", 0, 1), ("t", 1)]
    circuit = circuit_of(2, *gates)
    for measurement in (Expectation("Z"), Probabilities(), Expectation(observables=(Pauli("ZZ"),))):
        plan = lower(circuit, measurement)
        assert [str(f[1]) for step in plan.steps for f in step.factors] == ["w0", "w1"]
    assert any(isinstance(step, Diagonal) for step in lower(circuit, Expectation("X")).steps)


def test_only_diagonals_that_the_measurement_sees_stay():
    """⟨X_0⟩ sees the phases on qubit 0, and not those on qubits 1 and 2 alone."""
    circuit = circuit_of(3, ("rzz", 0, 1), ("rzz", 1, 2), ("rz", 2))
    (step,) = lower(circuit, Expectation("X", qubits=(0,))).steps
    assert "w0" in str(step)
    assert "w1" not in str(step)
    assert "w2" not in str(step)


def test_what_is_outside_the_light_cone_is_dropped():
    circuit = circuit_of(4, ("ry", 0), ("ry", 1), ("ry", 2), ("ry", 3), ("cnot", 0, 1), ("cnot", 2, 3), ("rx", 2))
    # ⟨Z_1⟩ sees qubits 0 and 1; ⟨Z_0⟩ sees qubit 0 alone, since a control's Z commutes with its CNOT
    assert len(lower(circuit, Expectation("Z", qubits=(1,))).steps) == 2
    assert len(lower(circuit, Expectation("Z", qubits=(0,))).steps) == 1
    assert lower(circuit, Expectation(observables=(Pauli("IIII"),))).steps == ()


def test_leading_z_turns_are_dropped_where_the_start_is_zero():
    gates = [("rz", 0), ("cz", 0, 1), ("ry", 0), ("rz", 1), ("ry", 1)]
    plan = lower(circuit_of(2, *gates, amplitudes=False), Expectation("Z"))
    assert [[str(a) for _, a in step.factors] for step in plan.steps] == [["w1"], ["w3"]]
    kept = lower(circuit_of(2, *gates, amplitudes=True), Expectation("Z"))
    assert "w0" in str(kept)
    assert "w2" in str(kept)


def test_dropping_is_optional_for_the_result():
    """`drop_unseen` with nothing unseen keeps all."""
    circuit = circuit_of(2, ("rx", 0), ("rzz", 0, 1), ("rx", 1), ("rx", 0))
    _, steps = passes(circuit)
    everything = [(0b01, 0), (0b10, 0), (0, 0b01), (0, 0b10)]
    assert drop_unseen(steps, everything, from_zero=False) == steps


def test_the_last_permutation_folds_into_the_measurement():
    """After CNOT(0, 1), ⟨Z_1⟩ is the parity of both bits."""
    plan = lower(circuit_of(2, ("cnot", 0, 1)), Expectation("Z"))
    assert [z for _, z, _ in plan.measurement.strings] == [0b10, 0b11]
    assert plan.measurement.is_diagonal
    assert lower(circuit_of(2, ("cnot", 0, 1)), Probabilities()).measurement.masks == (0b10, 0b11)


def test_all_bases_are_read_from_one_state():
    circuit = specs.feature_extractor(4).circuit
    one, three = lower(circuit, Expectation("X")), lower(circuit, Expectation(("Z", "X", "Y")))
    assert len(three.steps) == len(one.steps)
    assert three.n_outputs == 3 * one.n_outputs


def test_equal_strings_are_read_once():
    z = Pauli("ZI")
    plan = lower(circuit_of(2, ("ry", 0)), Expectation(observables=(z, 2 * z, z + Pauli("IZ"))))
    assert len(plan.measurement.strings) == 2
    assert plan.n_outputs == 3


def test_a_plan_prints():
    plan = lower(circuit_of(2, ("ry", 0), ("rz", 0), ("cnot", 0, 1), amplitudes=False), Expectation("Z"))
    assert str(plan).splitlines() == [
        "Plan: 2 qubits, 1 steps, 2 outputs",
        "  rotation v=10 u=10: RY(w0)",
        "  measure X0 Z10, X0 Z11",
    ]
    probabilities = lower(circuit_of(2, ("rx", 0), ("cp", 0, 1), ("rx", 0), amplitudes=False), Probabilities())
    assert "diagonal" in str(probabilities)
    assert str(probabilities).splitlines()[-1] == "  measure probabilities of parities 10, 1"
