"""Linear maps over GF(2), and the order of steps in rounds: no kernel runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import lower
from qstore_core.circuit.lowering.plan import Diagonal, Rotation, parity
from qstore_torch.triton.layout import Layout, arrange, commute, coordinates, natural, rounds_of, span_rank
from tests.support.strategies import circuits, measurements


@st.composite
def bases(draw, n=6):
    """An invertible matrix: unit vectors after some additions."""
    vectors = [1 << k for k in draw(st.permutations(range(n)))]
    for a, b in draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=20)):
        if a != b:
            vectors[a] ^= vectors[b]
    return vectors


def index(layout):
    """Amplitude at every position."""
    position = np.arange(1 << len(layout.columns))
    amplitude = np.zeros_like(position)
    for bit, column in enumerate(layout.columns):
        amplitude ^= (position >> bit & 1) * column
    return amplitude


@given(bases(), bases())
def test_coordinates_are_those_in_the_basis(basis, vectors):
    for vector, combination in zip(vectors, coordinates(basis, vectors), strict=True):
        total = 0
        for bit, column in enumerate(basis):
            total ^= column * (combination >> bit & 1)
        assert total == vector


@given(bases(), bases())
def test_an_exchange_finds_every_amplitude_where_it_was(old, new):
    old, new = (Layout(tuple(v[:2]), tuple(v[2:])) for v in (old, new))
    words, places = new.exchange(old), np.arange(64)
    there = np.zeros_like(places)
    for bit, word in enumerate(words):
        there ^= (places >> bit & 1) * word
    np.testing.assert_array_equal(index(old)[there], index(new))


@given(bases(), st.integers(0, 63))
def test_a_local_mask_reads_the_same_parity(columns, mask):
    layout = Layout(tuple(columns[:2]), tuple(columns[2:]))
    local = layout.local(mask)
    for position, amplitude in enumerate(index(layout)):
        assert parity(position & local) == parity(int(amplitude) & mask)


def test_a_basis_of_dependent_vectors():
    assert span_rank([3, 1, 2, 0, 4]) == [3, 1, 4]


def test_neighbouring_threads_hold_neighbouring_amplitudes():
    layout = natural([1, 2, 4, 8], 1)
    assert index(layout)[0::2].tolist() == list(range(8))


def split(vectors, count):
    return vectors[:count], vectors[count:]


@given(bases(), st.integers(1, 3), bases(), st.integers(0, 3))
def test_arranged_vectors_are_a_basis(vectors, count, ahead, low):
    nat = natural([1 << k for k in range(6)], 3)
    directions, rest = split(vectors, count)
    layout = arrange(directions, rest, 3, nat, 3, split(ahead, count), nat, low)
    assert layout.columns[:count] == tuple(directions)
    assert span_rank([*layout.columns[count:], *rest]) == list(layout.columns[count:])  # they span the same
    assert sorted(index(layout)) == list(range(64))


@given(bases(), bases(), bases())
def test_an_exchange_is_not_slower_than_without_a_choice(old, new, ahead):
    """As many threads at most want one bank at once as with the vectors in the order that they came in."""
    old, (directions, rest) = Layout(tuple(old[:3]), tuple(old[3:])), split(new, 2)

    def conflicts(layout):
        total = 0
        for reads, wrote in ((layout, old), (old, layout)):
            place = np.array(reads.exchange(wrote)[3:]) >> 3  # of the threads' bits, and there a thread's number
            threads = np.arange(8)
            banks = np.zeros(8, int)
            for bit in range(3):
                banks ^= (threads >> bit & 1) * (place[bit] & 3)
            total += np.unique(banks[:4], return_counts=True)[1].max()
        return total

    plain = Layout((*directions, rest[-1]), tuple(rest[:-1]))
    assert conflicts(arrange(directions, rest, 3, old, 2)) <= conflicts(plain)


@given(st.data(), circuits(max_qubits=6, max_gates=20), st.integers(1, 3))
def test_rounds_hold_every_step_once_in_an_order_that_computes_the_same(data, circuit, registers):
    plan = lower(circuit, data.draw(measurements(circuit.n_qubits)))
    registers = min(registers, circuit.n_qubits)
    space = [1 << k for k in range(circuit.n_qubits)]
    rounds = rounds_of(plan.steps, space, registers, None, 4)
    flat = [s for r in rounds for s in (r.rotations or [Diagonal(r.terms)])]
    assert sorted(map(str, flat)) == sorted(map(str, plan.steps))
    free, places = list(plan.steps), []
    for step in flat:  # equal steps keep their order
        places.append(free.index(step))
        free[places[-1]] = None
    for i, a in enumerate(places):
        for b in places[i + 1 :]:
            assert a < b or commute(plan.steps[a], plan.steps[b])


@given(st.data(), circuits(max_qubits=6, max_gates=20))
def test_pairs_of_a_round_are_neighbouring_registers_and_zero_comes_first(data, circuit):
    plan = lower(circuit, data.draw(measurements(circuit.n_qubits)))
    registers = min(3, circuit.n_qubits)
    for round_ in rounds_of(plan.steps, [1 << k for k in range(circuit.n_qubits)], registers, None, 4):
        amplitudes = index(round_.layout)
        assert sorted(amplitudes) == list(range(1 << circuit.n_qubits))
        for bit, rotation in enumerate(round_.rotations):
            assert isinstance(rotation, Rotation)
            for position, amplitude in enumerate(amplitudes):
                assert amplitudes[position ^ 1 << bit] == amplitude ^ rotation.v
                assert parity(int(amplitude) & rotation.u) == position >> bit & 1


@pytest.mark.parametrize("registers", [1, 2, 3])
def test_a_layer_of_independent_rotations_fills_its_rounds(registers):
    from qstore_core.circuit.spec import layer_spec as specs

    spec = specs.feature_extractor(n_qubits=6, depth=1)
    plan = lower(spec.circuit, spec.measurement)
    rounds = rounds_of(plan.steps, [1 << k for k in range(6)], registers, None, 4)
    assert [len(r.rotations) for r in rounds] == [registers] * (6 // registers)
