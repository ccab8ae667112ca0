"""Angles: the algebra of polynomials in slots."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core.circuit.angles.angle import Angle, as_angle, input_, weight
from qstore_core.errors import SpecError
from tests.support.strategies import expressions, vectors
from tests.support.tolerances import EXACT, allow

SLOTS = (weight(0), weight(1), input_(0), input_(1))
polynomials = expressions(SLOTS).map(as_angle)
values = st.tuples(vectors(2), vectors(2))


def test_a_slot_has_the_value_of_its_parameter():
    assert weight(1).value([5.0, 7.0], [1.0, 2.0]) == 7.0
    assert input_(0).value([5.0, 7.0], [1.0, 2.0]) == 1.0


def test_quotients():
    quotient = 3 * input_(0) / (1 + weight(0)) + 1 / input_(1)
    assert quotient.value([1.0], [4.0, 2.0]) == pytest.approx(6.5)
    assert input_(0) / as_angle(2.0) == input_(0) / 2 == 0.5 * input_(0)
    with pytest.raises(SpecError, match="cannot be divided by zero"):
        1 / as_angle(0.0)


def test_a_number_is_a_constant():
    assert as_angle(0.5).value([], []) == 0.5
    assert as_angle(0.5).is_constant
    assert as_angle(np.float32(0.5)) == as_angle(0.5)
    assert as_angle(0) == Angle()


@given(polynomials, polynomials, values)
def test_sum_difference_and_product_are_those_of_the_values(a, b, point):
    va, vb = a.value(*point), b.value(*point)
    for combined, expected in ((a + b, va + vb), (a - b, va - vb), (a * b, va * vb), (-a, -va)):
        assert abs(combined.value(*point) - expected) <= allow(np.array([va, vb, expected]), EXACT)


@given(polynomials, polynomials, polynomials)
def test_equal_polynomials_are_equal_values(a, b, c):
    assert a + b == b + a
    assert hash(a + b) == hash(b + a)
    assert a * b == b * a
    assert a - a == Angle()
    assert (a + b).slots <= a.slots | b.slots
    assert c * 0 == Angle()


@given(polynomials)
def test_numbers_on_either_side(a):
    assert 2 * a == a * 2 == a + a
    assert a / 2 == 0.5 * a
    assert 1 - a == -(a - 1)
    assert 1 + a == a + 1


@given(polynomials)
def test_json_and_pickle_round_trips(a):
    assert Angle.from_list(json.loads(json.dumps(a.to_list()))) == a
    assert pickle.loads(pickle.dumps(a)) == a


def test_which_slots_appear():
    angle = 2 * weight(1) * input_(0) - 0.5
    assert angle.slots == {("w", 1), ("x", 0)}
    assert angle.uses_inputs
    assert not (weight(0) + 1).uses_inputs
    assert not angle.is_constant
    assert angle.constant == -0.5
    assert (angle - 2 * weight(1) * input_(0)).is_constant


def test_it_prints_as_it_is_written():
    assert str(2 * input_(1) + weight(0) - 0.5) == "-0.5 + w0 + 2*x1"
    assert str(-weight(0) * weight(0)) == "-w0*w0"
    assert str(Angle()) == "0"
    assert str(input_(0) - weight(0)) == "-w0 + x0"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_angle_is_finite(value):
    with pytest.raises(SpecError, match="finite"):
        as_angle(value)


@pytest.mark.parametrize("value", ["0.5", None, [0.5], 1j])
def test_an_angle_is_a_number_or_an_expression(value):
    with pytest.raises(SpecError, match=type(value).__name__):
        as_angle(value)


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        weight(0).terms = ()
