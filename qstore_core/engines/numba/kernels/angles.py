"""Angles from weights and inputs, and their gradients back: polynomials, then cos and sin of the halves."""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..records import ANGLES, COEFFICIENTS, COS_SIN, D_ANGLE, D_SLOTS, MONOMIALS, SHARED, SLOTS, WEIGHTS
from ..simd import get, lanes, put, vfloor, vfma, vfnma, vlike, vload, vnarrow, vround, vsplat, vstore, vsum, vwide
from .scratch import add_to, inline, jit, offset

__all__ = ["pull_sampled", "pull_shared", "sampled_angles", "shared_angles", "taylor_terms"]


@jit
def shared_angles(ints, floats, theta, work):
    """Cos and sin of half of every angle that the batch shares, in all lanes."""
    size, cos_sin = lanes(work), offset(ints, COS_SIN)
    spans, coefficients = get(ints, MONOMIALS), get(ints, COEFFICIENTS)
    for a in range(get(ints, SHARED)):
        total = 0.0
        for m in range(get(ints, spans + a), get(ints, spans + a + 1)):
            term = np.float64(get(floats, coefficients + m))
            for f in range(get(ints, m), get(ints, m + 1)):
                term *= np.float64(get(theta, get(ints, f)))
            total += term
        vstore(work, cos_sin + 2 * a * size, vsplat(work, math.cos(0.5 * total)))
        vstore(work, cos_sin + (2 * a + 1) * size, vsplat(work, math.sin(0.5 * total)))


@inline
def _slot(ints, work, theta, slot):
    weights = get(ints, WEIGHTS)
    if slot < weights:
        return vsplat(work, get(theta, slot))
    return vload(work, offset(ints, SLOTS) + (slot - weights) * lanes(work))


@jit
def sampled_angles(ints, floats, theta, work):
    """The same for angles that differ from sample to sample; `slots` holds the inputs of the chunk."""
    size, cos_sin = lanes(work), offset(ints, COS_SIN)
    spans, coefficients = get(ints, MONOMIALS), get(ints, COEFFICIENTS)
    for a in range(get(ints, SHARED), get(ints, ANGLES)):
        total = vsplat(work, 0.0)
        for m in range(get(ints, spans + a), get(ints, spans + a + 1)):
            term = vsplat(work, get(floats, coefficients + m))
            for f in range(get(ints, m), get(ints, m + 1)):
                term = term * _slot(ints, work, theta, get(ints, f))
            total = total + term
        _cos_sin(work, cos_sin + 2 * a * size, total)


@jit
def _cos_sin(work, at, angle):
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
    # half = k π + r with |r| <= π/2; π in three parts, so that r is exact to the last bit. In double precision: what
    # cos² + sin² lacks to 1 would show in every amplitude, and so once per qubit in every output.
    wide = vwide(half)
    k = vround(wide * vlike(wide, 1.0 / math.pi))
    r = vfnma(k, vlike(wide, _PI_1), wide)
    r = vfnma(k, vlike(wide, _PI_2), r)
    r = vfnma(k, vlike(wide, _PI_3), r)
    odd = vfnma(vlike(wide, 2.0), vfloor(k * vlike(wide, 0.5)), k)
    sign = vfnma(vlike(wide, 2.0), odd, vlike(wide, 1.0))
    x = r * r
    first = len(_SIN) - taylor_terms(work)
    sin, cos = vlike(wide, _SIN[first]), vlike(wide, _COS[first])
    for j in range(first + 1, len(_SIN)):
        sin = vfma(sin, x, vlike(wide, _SIN[j]))
        cos = vfma(cos, x, vlike(wide, _COS[j]))
    cos = vfma(cos, x, vlike(wide, 1.0))
    vstore(work, at, vnarrow(work, cos * sign))
    vstore(work, at + size, vnarrow(work, sin * r * sign))


_PI_1 = float(np.float32(math.pi))
_PI_2 = float(np.float32(math.pi - _PI_1))
_PI_3 = math.pi - _PI_1 - _PI_2 + 1.2246467991473532e-16  # what math.pi leaves out
# Taylor coefficients, highest first: with |r| <= π/2 the next term is below 1e-17, and that after seven below 1e-9.
_SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(11, -1, -1))
_COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(12, 0, -1))


@intrinsic
def taylor_terms(typingctx, array):
    """How many terms of cos and sin the precision of an array needs."""
    count = 7 if array.dtype == types.float32 else 12

    def codegen(context, builder, sig, args):
        return context.get_constant(types.int64, count)

    return types.int64(array), codegen


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
    d_angle, d_slots = offset(ints, D_ANGLE), offset(ints, D_SLOTS)
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
