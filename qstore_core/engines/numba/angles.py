"""Angles from weights and inputs, and their gradients back: polynomials, then cos and sin of the halves."""

from __future__ import annotations

import math

import numpy as np

from .common import (
    ANGLES,
    COEF,
    COEFFICIENTS,
    D_ANGLE,
    D_SLOTS,
    MONOMIALS,
    SHARED,
    SLOTS,
    WEIGHTS,
    add_to,
    inline,
    jit,
    place,
)
from .simd import get, lanes, put, vfloor, vfma, vfnma, vload, vround, vsplat, vstore, vsum

__all__ = ["pull_sampled", "pull_shared", "sampled_angles", "shared_angles"]


@jit
def shared_angles(ints, floats, theta, work):
    """Cos and sin of half of every angle that the batch shares, in all lanes."""
    size, coef = lanes(work), place(ints, COEF)
    spans, coefficients = get(ints, MONOMIALS), get(ints, COEFFICIENTS)
    for a in range(get(ints, SHARED)):
        total = 0.0
        for m in range(get(ints, spans + a), get(ints, spans + a + 1)):
            term = np.float64(get(floats, coefficients + m))
            for f in range(get(ints, m), get(ints, m + 1)):
                term *= np.float64(get(theta, get(ints, f)))
            total += term
        vstore(work, coef + 2 * a * size, vsplat(work, math.cos(0.5 * total)))
        vstore(work, coef + (2 * a + 1) * size, vsplat(work, math.sin(0.5 * total)))


@inline
def _slot(ints, work, theta, slot):
    weights = get(ints, WEIGHTS)
    if slot < weights:
        return vsplat(work, get(theta, slot))
    return vload(work, place(ints, SLOTS) + (slot - weights) * lanes(work))


@jit
def sampled_angles(ints, floats, theta, work):
    """The same for angles that differ from sample to sample; `slots` holds the inputs of the chunk."""
    size, coef = lanes(work), place(ints, COEF)
    spans, coefficients = get(ints, MONOMIALS), get(ints, COEFFICIENTS)
    for a in range(get(ints, SHARED), get(ints, ANGLES)):
        total = vsplat(work, 0.0)
        for m in range(get(ints, spans + a), get(ints, spans + a + 1)):
            term = vsplat(work, get(floats, coefficients + m))
            for f in range(get(ints, m), get(ints, m + 1)):
                term = term * _slot(ints, work, theta, get(ints, f))
            total = total + term
        _half_turn(work, coef + 2 * a * size, total)


@jit
def _half_turn(work, at, angle):
    """Store cos(angle/2) and sin(angle/2)."""
    size = lanes(work)
    half = angle * vsplat(work, 0.5)
    vstore(work, at, half)
    small = True
    for i in range(size):
        if abs(get(work, at + i)) > 1e4:  # also true for infinity; NaN takes the fast way and stays NaN
            small = False
    if not small:
        for i in range(size):
            x = np.float64(get(work, at + i))
            put(work, at + i, math.cos(x))
            put(work, at + size + i, math.sin(x))
        return
    # half = k π + r with |r| <= π/2; π in three parts, so that r is exact to the last bit.
    k = vround(half * vsplat(work, 1.0 / math.pi))
    r = vfnma(k, vsplat(work, _PI_1), half)
    r = vfnma(k, vsplat(work, _PI_2), r)
    r = vfnma(k, vsplat(work, _PI_3), r)
    odd = vfnma(vsplat(work, 2.0), vfloor(k * vsplat(work, 0.5)), k)
    sign = vfnma(vsplat(work, 2.0), odd, vsplat(work, 1.0))
    x = r * r
    sin, cos = vsplat(work, _SIN[0]), vsplat(work, _COS[0])
    for j in range(1, len(_SIN)):
        sin = vfma(sin, x, vsplat(work, _SIN[j]))
        cos = vfma(cos, x, vsplat(work, _COS[j]))
    cos = vfma(cos, x, vsplat(work, 1.0))
    vstore(work, at, cos * sign)
    vstore(work, at + size, sin * r * sign)


_PI_1 = float(np.float32(math.pi))
_PI_2 = float(np.float32(math.pi - _PI_1))
_PI_3 = math.pi - _PI_1 - _PI_2 + 1.2246467991473532e-16  # what math.pi leaves out
# Taylor coefficients, highest first: with |r| <= π/2 the next term is below 1e-17.
_SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(11, -1, -1))
_COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(12, 0, -1))


@jit
def pull_shared(ints, floats, theta, sums, at):
    """From gradients of shared angles, first in `sums`, to those of the weights, from element `at` on."""
    spans, coefficients = get(ints, MONOMIALS), get(ints, COEFFICIENTS)
    for a in range(get(ints, SHARED)):
        for m in range(get(ints, spans + a), get(ints, spans + a + 1)):
            start, end = get(ints, m), get(ints, m + 1)
            for f in range(start, end):
                term = get(sums, a) * np.float64(get(floats, coefficients + m))
                for other in range(start, end):
                    if other != f:
                        term *= np.float64(get(theta, get(ints, other)))
                slot = at + get(ints, f)
                put(sums, slot, get(sums, slot) + term)


@jit
def pull_sampled(ints, floats, theta, work, d_theta, at):
    """From gradients of per-sample angles to those of weights and of the inputs of the chunk."""
    size, weights = lanes(work), get(ints, WEIGHTS)
    d_angle, d_slots = place(ints, D_ANGLE), place(ints, D_SLOTS)
    spans, coefficients = get(ints, MONOMIALS), get(ints, COEFFICIENTS)
    for a in range(get(ints, SHARED), get(ints, ANGLES)):
        for m in range(get(ints, spans + a), get(ints, spans + a + 1)):
            start, end = get(ints, m), get(ints, m + 1)
            for f in range(start, end):
                term = vload(work, d_angle + a * size) * vsplat(work, get(floats, coefficients + m))
                for other in range(start, end):
                    if other != f:
                        term = term * _slot(ints, work, theta, get(ints, other))
                slot = get(ints, f)
                if slot < weights:
                    put(d_theta, at + slot, get(d_theta, at + slot) + np.float64(vsum(term)))
                else:
                    here = d_slots + (slot - weights) * size
                    add_to(work, here, term)
