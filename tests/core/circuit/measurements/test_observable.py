"""The algebra of observables, against matrices."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import Circuit, Expectation, Observable, Pauli, QuantumLayer, SpecError
from tests.support import reference
from tests.support.strategies import observables
from tests.support.tolerances import EXACT

matrix = reference.observable_matrix


def test_terms_of_one_name_add_up():
    """On |00⟩ every Z is 1: 1 + 2 + 1."""
    observable = Observable((("ZI", 1.0), ("ZI", 2.0))) + Pauli("IZ")
    assert observable.terms == (("ZI", 3.0), ("IZ", 1.0))
    circuit = Circuit(2)
    circuit.rx(circuit.inputs(1)[0], 0)
    for backend in ("statevector", "numba"):
        assert QuantumLayer(circuit, observable, backend=backend)(np.zeros((1, 1))) == pytest.approx(4)
    assert Expectation(observables=(observable,)) == Expectation(observables=[Observable([["IZ", 1], ["ZI", 3]])])


@pytest.mark.parametrize("terms", [[("ZI", 1.0)], [["ZI", 1]], (("ZI", np.float32(1)),), {("ZI", 1.0)}])
def test_any_sequence_of_pairs_is_taken(terms):
    assert Observable(terms) == Pauli("ZI")
    hash(Observable(terms))


@given(observables(2), observables(2), st.sampled_from((2, -0.5, np.float32(0.25), np.int64(3))))
def test_the_algebra_is_that_of_matrices(a, b, k):
    for result, expected in [
        (a + b, matrix(a) + matrix(b)), (a - b, matrix(a) - matrix(b)), (-a, -matrix(a)), (+a, matrix(a)),
        (k * a, float(k) * matrix(a)), (a * k, float(k) * matrix(a)), (a / k, matrix(a) / float(k)),
        (a + k, matrix(a) + float(k) * np.eye(4)), (k + a, matrix(a) + float(k) * np.eye(4)),
        (a - k, matrix(a) - float(k) * np.eye(4)), (k - a, float(k) * np.eye(4) - matrix(a)),
        (sum([a, b, a]), 2 * matrix(a) + matrix(b)), (functools.reduce(operator.add, [a, b]), matrix(a) + matrix(b)),
        (a @ a, matrix(a) @ matrix(a)), (a @ b + 0 * a if commute(a, b) else a, product(a, b)),
    ]:  # fmt: skip
        assert isinstance(result, Observable)
        np.testing.assert_allclose(matrix(result), expected, rtol=0, atol=EXACT)


def commute(a, b):
    return np.allclose(matrix(a) @ matrix(b), matrix(b) @ matrix(a), rtol=0, atol=EXACT)


def product(a, b):
    return matrix(a) @ matrix(b) if commute(a, b) else matrix(a)


@given(observables(2), observables(2))
def test_products_that_are_not_hermitian_are_refused(a, b):
    if commute(a, b):
        a @ b
        return
    with pytest.raises(SpecError, match="no observable: its coefficient"):
        a @ b


@given(observables(2), observables(2))
def test_equal_are_equal_operators(a, b):
    same = np.allclose(matrix(a), matrix(b), rtol=0, atol=EXACT)
    assert (a == b) == same
    assert a + b == b + a
    assert hash(a + b) == hash(b + a)
    assert a - a == 0 * b
    assert a != "ZZ"
    assert Pauli("Z") != Pauli("ZI")


def test_products_of_strings():
    assert Pauli("ZI") @ Pauli("IZ") == Pauli("ZZ")
    assert (Pauli("X") + Pauli("Z")) @ (Pauli("X") + Pauli("Z")) == Pauli("I", 2)
    assert Pauli("XY") @ Pauli("YX") == Pauli("ZZ")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: Pauli("Z", 1j), lambda: Pauli("Z") * 1j, lambda: (1 + 0j) * Pauli("Z"), lambda: Pauli("Z") + 1j,
        lambda: Pauli("Z") / 1j, lambda: np.complex64(2) * Pauli("Z"), lambda: Observable([("Z", 1j)]),
    ],
)  # fmt: skip
def test_complex_coefficients_are_refused(attempt):
    with pytest.raises(SpecError, match="real"):
        attempt()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: Observable([]), lambda: Observable("ZZ"), lambda: Observable([("ZI", 1.0), ("Z", 1.0)]),
        lambda: Observable([("Z",)]), lambda: Observable([("Z", 1, 2)]), lambda: Observable([("Z", "1")]),
        lambda: Observable(3), lambda: Observable([3]), lambda: Observable(None), lambda: Observable([("z", 1.0)]),
        lambda: Observable([("Z", float("nan"))]), lambda: Observable([("Z", 10**400)]), lambda: Pauli("Z", None),
        lambda: Observable([("Z", 1e30), ("Z", 1e30)]), lambda: Pauli("Z") / 0, lambda: Pauli("Z") * True,
        lambda: Expectation(observables=3), lambda: Expectation(observables="Z"), lambda: Expectation(observables=[1]),
        lambda: Expectation(observables=Pauli("ZZ"), qubits=(0,)),
    ],
)  # fmt: skip
def test_what_is_no_observable_is_refused_at_once(attempt):
    with pytest.raises(SpecError):
        attempt()
