"""Measurements as values: what they are, how many outputs they have, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import Expectation, Observable, Pauli, Probabilities, SpecError
from qstore_core.circuit.measurements.measurement import as_measurement
from tests.support import reference
from tests.support.strategies import measurements, observables
from tests.support.tolerances import MATRIX


def strings(measurement, n_qubits):
    return [o.terms for o in measurement.as_observables(n_qubits)]


def test_outputs_are_basis_major():
    assert strings(Expectation(("Z", "X")), 2) == [
        (("ZI", 1.0),), (("IZ", 1.0),), (("XI", 1.0),), (("IX", 1.0),),
    ]  # fmt: skip


def test_some_qubits_in_the_order_given():
    assert strings(Expectation("Y", qubits=(2, 0)), 3) == [(("IIY", 1.0),), (("YII", 1.0),)]


def test_bases_by_letter_in_either_case():
    assert Expectation("z") == Expectation(("Z",)) == Expectation(["Z"])


@given(st.integers(1, 4).flatmap(lambda n: st.tuples(st.just(n), measurements(n))))
def test_number_of_outputs(drawn):
    n, measurement = drawn
    measurement.check(n)
    psi = np.full(1 << n, 2.0 ** (-n / 2), complex)
    assert measurement.n_outputs(n) == len(reference.read(measurement, psi))
    assert hash(measurement) == hash(as_measurement(measurement))


@given(st.integers(1, 3).flatmap(lambda n: st.tuples(observables(n), observables(n))))
def test_the_algebra_of_observables_is_that_of_matrices(drawn):
    a, b = drawn
    matrix = reference.observable_matrix
    for combined, expected in (
        (a + b, matrix(a) + matrix(b)),
        (a - b, matrix(a) - matrix(b)),
        (0.5 * a, 0.5 * matrix(a)),
        (a * 2, 2 * matrix(a)),
        (-a, -matrix(a)),
    ):
        np.testing.assert_allclose(matrix(combined), expected, rtol=0, atol=MATRIX)


def test_equal_strings_are_collected():
    assert (Pauli("ZZ") + 0.5 * Pauli("ZZ")).terms == (("ZZ", 1.5),)
    assert Pauli("zi") == Pauli("ZI")


def test_observables_print():
    assert str(0.5 * Pauli("ZZI") - Pauli("IXX")) == "0.5*ZZI - 1*IXX"


def test_observables_of_different_size_do_not_add():
    with pytest.raises(SpecError, match="2 and 3 qubits"):
        Pauli("ZZ") + Pauli("ZZZ")


def test_products_are_written_with_at():
    with pytest.raises(SpecError, match="a @ b"):
        Pauli("Z") * Pauli("Z")
    for attempt in (lambda: Pauli("Z") + "Z", lambda: Pauli("Z") @ 2, lambda: 1 / Pauli("Z"), lambda: Pauli("Z") / "2"):
        with pytest.raises(TypeError):
            attempt()


@pytest.mark.parametrize("string", ["", "ZQ", 3, None, "Z Z"])
def test_what_is_no_pauli_string(string):
    with pytest.raises(SpecError, match="letters I, X, Y, Z"):
        Pauli(string)


@pytest.mark.parametrize("coefficient", [math.nan, math.inf])
def test_coefficients_are_finite(coefficient):
    with pytest.raises(SpecError, match="finite"):
        Pauli("Z", coefficient)


@pytest.mark.parametrize("terms", [(), (("Q", 1.0),), (("Z", 1.0), ("ZZ", 1.0)), (("Z", math.nan),)])
def test_observables_are_checked_however_they_are_made(terms):
    with pytest.raises(SpecError):
        Observable(terms)


@pytest.mark.parametrize("bases", [(), "W", "ZX", ("Z", "Z"), None, 3, ("Z", 1)])
def test_what_is_no_basis(bases):
    with pytest.raises(SpecError, match="measurement_bases") as caught:
        Expectation(bases)
    assert caught.value.argument == "measurement_bases"


@pytest.mark.parametrize("qubits", [(), (0, 0), (0, 3), (-1,)])
def test_measured_qubits_must_exist_and_differ(qubits):
    for measurement in (Expectation("Z", qubits=qubits), Probabilities(qubits=qubits)):
        with pytest.raises(SpecError, match="measured qubits"):
            measurement.check(3)


def test_pauli_strings_have_one_letter_per_qubit():
    with pytest.raises(SpecError, match=r"'ZZ' has 2 letters, the circuit has 3 qubits"):
        Expectation(observables=(Pauli("ZZ"),)).check(3)


@pytest.mark.parametrize("n_classes", [0, -1, 2.0, True, "2"])
def test_n_classes_is_a_whole_number(n_classes):
    with pytest.raises(SpecError, match="n_classes"):
        Probabilities(n_classes=n_classes)


def test_too_many_classes_say_how_many_qubits_they_need():
    Probabilities(n_classes=8).check(3)
    with pytest.raises(SpecError, match=r"8 basis states, too few for n_classes=9. Use at least 4 qubits"):
        Probabilities(n_classes=9).check(3)
    with pytest.raises(SpecError, match="Use at least 2 qubits"):
        Probabilities(qubits=(0,), n_classes=3).check(3)


def test_observables_by_themselves_are_a_measurement():
    z = Pauli("Z")
    assert as_measurement(z) == Expectation(observables=(z,))
    assert as_measurement([z, z]) == Expectation(observables=(z, z))
    assert Expectation(observables=z) == Expectation(observables=(z,))


@pytest.mark.parametrize("value", ["Z", 3, None, [], ["Z"]])
def test_what_is_no_measurement(value):
    with pytest.raises(SpecError, match="a measurement is"):
        as_measurement(value)
