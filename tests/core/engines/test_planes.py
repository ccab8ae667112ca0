"""Complex numbers as pairs of real arrays: the engine on them equals the engine on complex arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from qstore_core import Circuit, Expectation, lower
from qstore_core.engines.arrays.adjoint import value_and_vjp
from qstore_core.engines.arrays.numpy_ops import NumpyOps
from qstore_core.engines.arrays.planes import Planes, PlanesOps
from qstore_core.engines.arrays.program import ArrayProgram
from tests.support.strategies import problems
from tests.support.tolerances import EXACT, EXACT_GRADIENT, allow


class RealOps(NumpyOps):
    """Refuses complex arrays, and notes what shapes matrix products have."""

    def __init__(self):
        super().__init__()
        self.products = []

    def const(self, value, like):
        assert value.dtype.kind != "c"
        return super().const(value, like)

    def _refuse(self, *arguments):
        raise AssertionError("a complex array")

    complex = conj = real = imag = _refuse

    def matmul(self, a, b):
        assert a.dtype == b.dtype == np.float64
        self.products.append((a.shape, b.shape))
        return np.matmul(a, b)


def program(circuit, measurement):
    return ArrayProgram(lower(circuit, measurement))


def both(rng, *shape):
    real, imag = rng.normal(size=(2, *shape))
    return real + 1j * imag, Planes(real, imag)


def test_arithmetic_is_that_of_complex_numbers():
    rng = np.random.default_rng(0)
    (a, plane_a), (b, plane_b) = (both(rng, *shape) for shape in ((3, 4), (1, 4)))
    real = Planes(b.real)
    for value, planes in (
        (a * b, plane_a * plane_b), (a + b, plane_a + plane_b), (a - b, plane_a - plane_b), (-a, -plane_a),
        (2.0 * a, 2.0 * plane_a), (a * b.real, plane_a * real), (b.real * a, real * plane_a),
        (a + b.real, plane_a + real), (b.real + a, real + plane_a), (a[..., 1:], plane_a[..., 1:]),
        (a.conj(), PlanesOps(NumpyOps(), double=False).conj(plane_a)),
    ):  # fmt: skip
        assert planes.shape == planes.imag.shape == value.shape
        np.testing.assert_allclose(planes.real + 1j * planes.imag, value, rtol=0, atol=EXACT)
    assert (real * real + real).imag is None
    assert not PlanesOps(NumpyOps(), double=False).imag(real).any()


@pytest.mark.parametrize(
    "shapes", [((5, 4), (4, 4)), ((4, 4), (3, 4, 2)), ((3, 2, 5), (3, 5, 2)), ((2, 1, 4, 4), (2, 3, 4, 2))]
)
@pytest.mark.parametrize("left_real", [False, True])
@pytest.mark.parametrize("right_real", [False, True])
def test_matrix_products_are_those_of_complex_numbers(shapes, left_real, right_real):
    rng = np.random.default_rng(0)
    (a, plane_a), (b, plane_b) = (both(rng, *shape) for shape in shapes)
    a, plane_a = (a.real, Planes(a.real)) if left_real else (a, plane_a)
    b, plane_b = (b.real, Planes(b.real)) if right_real else (b, plane_b)
    ops = RealOps()
    product = PlanesOps(ops, double=True).matmul(plane_a, plane_b)
    imag = 0 if product.imag is None else product.imag
    np.testing.assert_allclose(product.real + 1j * imag, a @ b, rtol=0, atol=EXACT)
    assert len(ops.products) == 1


@given(problems(max_rows=3))
def test_circuits_give_what_they_give_on_complex_arrays(problem):
    laid_out = program(problem.circuit, problem.measurement)
    theta, inputs = problem.theta.astype(float), problem.inputs.astype(float)
    outputs, pull = value_and_vjp(laid_out, NumpyOps(), theta, inputs)
    ops = PlanesOps(RealOps(), double=True)
    found, pull_found = value_and_vjp(laid_out, ops, theta, inputs)
    np.testing.assert_allclose(found, outputs, rtol=0, atol=allow(outputs, EXACT))
    np.testing.assert_allclose(laid_out.forward(ops, theta, inputs), outputs, rtol=0, atol=allow(outputs, EXACT))
    cotangents = np.cos(np.arange(outputs.size)).reshape(outputs.shape)
    for one, other in zip(pull_found(cotangents), pull(cotangents), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=allow(other, EXACT_GRADIENT))


def test_real_circuits_are_computed_once():
    c = Circuit(2)
    w = c.weights(2)
    c.ry(w[0], 0)
    c.cnot(0, 1)
    c.ry(w[1], 1)
    ops = RealOps()
    z = program(c, Expectation("Z")).forward(PlanesOps(ops, double=True), np.array([0.3, 0.4]), np.zeros((1, 0)))
    np.testing.assert_allclose(z, [[math.cos(0.3), math.cos(0.3) * math.cos(0.4)]], rtol=0, atol=EXACT)
    assert all(max(*a[-2:], *b[-2:]) <= 4 for a, b in ops.products)
