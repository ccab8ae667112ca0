"""How wide circuits are narrowed, as a pure function of what was declared."""

import pytest

from qstore_core import Expectation, LogProbabilities, Probabilities
from qstore_core.circuit.circuit import Circuit
from qstore_core.circuit.lowering.light_cone import LEAST_QUBITS, narrow
from qstore_core.circuit.spec.ansatz import entangling_pairs
from qstore_core.circuit.spec.layer_spec import feature_extractor


def chain(n, depth=2, pattern="linear"):
    """RY on each qubit, then CNOTs, `depth` times."""
    c = Circuit(n)
    for _ in range(depth):
        for q, w in enumerate(c.weights(n)):
            c.ry(w, q)
        for a, b in entangling_pairs(pattern, n):
            c.cnot(a, b)
    return c


BLOCKS = [(10 * block + a, 10 * block + b) for block in range(4) for a in range(10) for b in range(a + 1, 10)]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_chain_of_any_length_has_a_window_as_narrow_as_its_depth(depth):
    for n in (20, 60):
        assert narrow(chain(n, depth), Expectation("Z")).window.width == depth


def test_a_ring_needs_one_more_qubit():
    assert narrow(chain(40, 2, "circular"), Expectation("Z")).window.width == 3


def test_the_cone_of_the_end_of_a_chain_is_all_of_it():
    assert narrow(chain(40), Expectation("Z")).widest == 40


def test_last_cnots_cost_nothing():
    """All to all, but after the last rotation: Pauli strings take them in."""
    assert narrow(chain(40, 1, "full"), Expectation(("X", "Y", "Z"))).window.width == 1


def test_blocks_with_all_pairs_go_by_cones_and_equal_cones_are_one_circuit():
    found = narrow(chain(40, 3, BLOCKS), Expectation("Z"))
    assert found.window is None
    assert found.width == found.widest == 10
    assert len({cone.circuit for cone in found.cones}) == 1
    assert found.cones[1].weights[:2] == (10, 11)


@pytest.mark.parametrize(
    ("circuit", "measurement", "why"),
    [
        (chain(LEAST_QUBITS - 1), Expectation("Z"), "fewer than"),
        (chain(40, 2, "full"), Expectation("Z"), "40 qubits"),
        (chain(40), Probabilities(), "too many qubits together"),
        (chain(40), Probabilities(None, 10), "too many qubits together"),
        (Circuit(40, amplitudes=True), Expectation("Z"), "amplitudes"),
    ],
)
def test_what_is_computed_in_full_says_why(circuit, measurement, why):
    found = narrow(circuit, measurement)
    assert found.is_full
    assert why in found.why
    assert why in str(found)


def test_classes_that_are_a_power_of_two_read_the_last_bits_alone():
    assert narrow(chain(40), Probabilities(None, 4)).window.width == 2
    assert LogProbabilities(None, 4).primitive(40) == Probabilities(None, 4)


def test_encodings_of_all_pairs_are_wide():
    spec = feature_extractor(20, encoding="iqp", entanglement="linear")
    assert narrow(spec.circuit, spec.measurement).is_full
