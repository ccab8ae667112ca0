"""Circuits in passes over memory: which steps are in which pass, where amplitudes lie; no kernel runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import lower
from qstore_core.circuit.lowering.plan import Diagonal, Rotation, parity
from qstore_core.circuit.spec import layer_spec as specs
from qstore_torch.triton.layout import commute, span_rank
from qstore_torch.triton.passes import passes_of, steps_by_pass
from tests.support.strategies import circuits, measurements


@st.composite
def plans(draw):
    circuit = draw(circuits(max_qubits=6, max_gates=25))
    return lower(circuit, draw(measurements(circuit.n_qubits)))


def inside(vectors, space):
    return len(span_rank([*space, *vectors])) == len(space)


@given(st.data(), plans())
def test_passes_hold_every_step_once_in_an_order_that_computes_the_same(data, plan):
    held = data.draw(st.integers(1, plan.n_qubits))
    low = data.draw(st.integers(0, held - 1))
    free, places = list(plan.steps), []
    for space, steps in steps_by_pass(plan.steps, plan.n_qubits, held, low):
        assert len(span_rank(space)) == held
        assert space[:low] == tuple(1 << bit for bit in range(low))
        assert inside([step.v for step in steps if isinstance(step, Rotation)], space)
        for step in steps:  # equal steps keep their order
            places.append(free.index(step))
            free[places[-1]] = None
    assert sorted(places) == list(range(len(plan.steps)))
    for i, a in enumerate(places):
        for b in places[i + 1 :]:
            assert a < b or commute(plan.steps[a], plan.steps[b])


@given(st.data(), plans(), st.booleans())
def test_rounds_of_a_pass_are_its_steps_in_layouts_of_its_space(data, plan, from_zero):
    held = data.draw(st.integers(1, plan.n_qubits))
    low, registers = data.draw(st.integers(0, held - 1)), data.draw(st.integers(0, held))
    registers = max(1, min(registers, held - low))
    passes = passes_of(plan.steps, plan.n_qubits, held, low, registers, 4, from_zero)
    seen = []
    for number, pass_ in enumerate(passes):
        for layout in (pass_.load, pass_.store, *(r.layout for r in pass_.rounds)):
            assert len(span_rank(layout.columns)) == held
            assert inside(layout.columns, pass_.space)
        assert len(span_rank([*pass_.space, *pass_.outside])) == plan.n_qubits
        lines = [pass_.store] if from_zero and not number else [pass_.load, pass_.store]
        assert all(vector < 1 << low for layout in lines for vector in layout.threads[:low])
        for round_ in pass_.rounds:
            seen += round_.rotations or ([Diagonal(round_.terms)] if round_.terms else [])
            for bit, rotation in enumerate(round_.rotations):
                # A register's bit is the qubit's value, up to one sign of the coset.
                assert round_.layout.columns[bit] == rotation.v
                assert round_.layout.local(rotation.u) == 1 << bit
    assert sorted(map(str, seen)) == sorted(map(str, plan.steps))


@given(plans(), st.data())
def test_a_coset_reads_the_parity_of_its_first_amplitude(plan, data):
    (first, *_) = passes_of(plan.steps, plan.n_qubits, 1, 0, 1, 4, True)
    mask = data.draw(st.integers(0, (1 << plan.n_qubits) - 1))
    for number in range(1 << len(first.outside)):
        amplitude = 0
        for bit, vector in enumerate(first.outside):
            amplitude ^= vector * (number >> bit & 1)
        assert parity(number & first.coset(mask)) == parity(amplitude & mask)


@pytest.mark.parametrize(("n_qubits", "held", "most"), [(16, 11, 2), (16, 12, 2), (20, 11, 3), (24, 11, 4)])
def test_two_layers_take_few_passes(n_qubits, held, most):
    spec = specs.feature_extractor(n_qubits=n_qubits, depth=2)
    steps = lower(spec.circuit, spec.measurement).steps
    assert len(steps_by_pass(steps, n_qubits, held, 4)) == most
