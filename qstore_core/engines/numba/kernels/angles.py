"""Angles from weights and inputs, and their gradients back: polynomials, then cos and sin of the halves.

Angles, cosines and sines are computed in double precision and rounded once to that of the state. What cos² + sin² then
lacks to 1 shows in every amplitude: a circuit of some hundred rotations would shrink or grow by 1e-6 and more, always
to one side where a gate comes again and again. So it is summed up as the `drift`, which outputs are corrected by. A
reverse sweep that undoes gates adds the same once more to ψ, which is taken off gradients angle by angle (`undone`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..records import (
    ANGLES,
    COEFFICIENTS,
    COS_SIN,
    D_ANGLE,
    D_SLOTS,
    DRIFT,
    EXCESS,
    MONOMIALS,
    SHARED,
    SLOTS,
    WEIGHTS,
)
from ..simd import (
    get,
    lanes,
    put,
    vfloor,
    vfma,
    vfnma,
    vlane,
    vlike,
    vload,
    vmax_abs,
    vnarrow,
    vround,
    vsplat,
    vstore,
    vsum,
    vwide,
)
from .scratch import add_to, inline, jit, offset

__all__ = ["pull_sampled", "pull_shared", "sampled_angles", "shared_angles", "taylor_terms", "undone"]


@jit
def shared_angles(ints, floats, theta, work):
    """Cos and sin of half of every angle that the batch shares, in all lanes, and their drift."""
    size, cos_sin, drift, excess = lanes(work), offset(ints, COS_SIN), 0.0, offset(ints, EXCESS)
    spans, coefficients = get(ints, MONOMIALS), get(ints, COEFFICIENTS)
    for a in range(get(ints, SHARED)):
        total = 0.0
        for m in range(get(ints, spans + a), get(ints, spans + a + 1)):
            term = get(floats, coefficients + m)
            for f in range(get(ints, m), get(ints, m + 1)):
                term *= np.float64(get(theta, get(ints, f)))
            total += term
        at = cos_sin + 2 * a * size
        vstore(work, at, vsplat(work, math.cos(0.5 * total)))
        vstore(work, at + size, vsplat(work, math.sin(0.5 * total)))
        cos, sin = np.float64(get(work, at)), np.float64(get(work, at + size))
        over = cos * cos + sin * sin - 1.0
        vstore(work, excess + a * size, vsplat(work, over))
        drift += over
    at = offset(ints, DRIFT)
    vstore(work, at, vsplat(work, drift))
    vstore(work, at + size, vsplat(work, drift))


@inline
def _slot(ints, work, theta, slot):
    weights = get(ints, WEIGHTS)
    if slot < weights:
        return vsplat(work, get(theta, slot))
    return vload(work, offset(ints, SLOTS) + (slot - weights) * lanes(work))


@jit
def sampled_angles(ints, floats, theta, work):
    """The same for angles that differ from sample to sample; `slots` holds the inputs of the chunk."""
    size, cos_sin, at, excess = lanes(work), offset(ints, COS_SIN), offset(ints, DRIFT), offset(ints, EXCESS)
    drift = vwide(vload(work, at))
    spans, coefficients = get(ints, MONOMIALS), get(ints, COEFFICIENTS)
    for a in range(get(ints, SHARED), get(ints, ANGLES)):
        total = vwide(vsplat(work, 0.0))
        for m in range(get(ints, spans + a), get(ints, spans + a + 1)):
            term = vlike(total, get(floats, coefficients + m))
            for f in range(get(ints, m), get(ints, m + 1)):
                term = term * vwide(_slot(ints, work, theta, get(ints, f)))
            total = total + term
        over = _cos_sin(work, cos_sin + 2 * a * size, total)
        vstore(work, excess + a * size, vnarrow(work, over))
        drift = drift + over
    vstore(work, at + size, vnarrow(work, drift))


@jit
def _cos_sin(work, at, angle):
    """Store cos(angle/2) and sin(angle/2); returns what the sum of their squares exceeds 1 by."""
    size = lanes(work)
    half = angle * vlike(angle, 0.5)
    if vsum(vmax_abs(vlike(angle, 0.0), half)) > 1e4:  # also true for infinity; NaN takes the fast way and stays NaN
        for i in range(size):
            x = vlane(half, i)
            put(work, at + i, math.cos(x))
            put(work, at + size + i, math.sin(x))
        return _excess(work, vload(work, at), vload(work, at + size))
    # half = k π + r with |r| <= π/2; π in three parts, so that r is exact to the last bit.
    k = vround(half * vlike(half, 1.0 / math.pi))
    r = vfnma(k, vlike(half, _PI_1), half)
    r = vfnma(k, vlike(half, _PI_2), r)
    r = vfnma(k, vlike(half, _PI_3), r)
    odd = vfnma(vlike(half, 2.0), vfloor(k * vlike(half, 0.5)), k)
    sign = vfnma(vlike(half, 2.0), odd, vlike(half, 1.0))
    x = r * r
    first = len(_SIN) - taylor_terms(work)
    sin, cos = vlike(half, _SIN[first]), vlike(half, _COS[first])
    for j in range(first + 1, len(_SIN)):
        sin = vfma(sin, x, vlike(half, _SIN[j]))
        cos = vfma(cos, x, vlike(half, _COS[j]))
    cos = vfma(cos, x, vlike(half, 1.0))
    narrow_cos, narrow_sin = vnarrow(work, cos * sign), vnarrow(work, sin * r * sign)
    vstore(work, at, narrow_cos)
    vstore(work, at + size, narrow_sin)
    return _excess(work, narrow_cos, narrow_sin)


@inline
def _excess(work, cos, sin):
    cos, sin = vwide(cos), vwide(sin)
    return vfma(sin, sin, vfma(cos, cos, vlike(cos, -1.0)))


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
def undone(ints, first, count, work, after, grown):
    """Gradients of the `count` angles numbered from `first` on, of a ψ that is longer by `after`, put right.

    Returns `grown`, longer by what undoing these gates adds.
    """
    size, d_angle, excess = lanes(work), offset(ints, D_ANGLE), offset(ints, EXCESS)
    for k in range(count):
        at = size * get(ints, first + k)
        gradient = vload(work, d_angle + at)
        vstore(work, d_angle + at, vfnma(after, gradient, gradient))
        grown = grown + vload(work, excess + at)
    return grown


@jit
def pull_shared(ints, floats, theta, sums, at):
    """From gradients of shared angles, first in `sums`, to those of the weights, from element `at` on."""
    spans, coefficients = get(ints, MONOMIALS), get(ints, COEFFICIENTS)
    for a in range(get(ints, SHARED)):
        for m in range(get(ints, spans + a), get(ints, spans + a + 1)):
            start, end = get(ints, m), get(ints, m + 1)
            for f in range(start, end):
                term = get(sums, a) * get(floats, coefficients + m)
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
