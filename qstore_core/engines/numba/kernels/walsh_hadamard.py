"""Sums over amplitudes with the signs of many parity masks at once, and their transpose: Walsh-Hadamard transforms."""

from __future__ import annotations

import numpy as np

from ..records import BUFFER, ROWS, TRANSFORM_BITS, TRANSFORM_NUMBERS, TRANSFORM_ORDER
from ..simd import get, lanes, vfma, vload, vnarrow, vsplat, vstore, vwide
from .scratch import SHORT, add_to, inline, jit, offset

__all__ = ["bucket_sums", "parity_sums", "signed_values"]

_LONG = 4 * SHORT
"""Terms of a running sum in the precision of the state, where each is already a sum, or costs little to compute."""


@inline
def _product(a, a1, a2, b, b1, b2, sign, p):
    """a1 b1 + sign a2 b2 at row p: |ψ|² of planes with themselves, or Im(conj(λ) ψ)."""
    return vfma(sign * vload(a, a2 + p), vload(b, b2 + p), vload(a, a1 + p) * vload(b, b1 + p))


@jit
def bucket_sums(a, a1, a2, b, b1, b2, sign, ints, begin, members, count, work, out):
    """Sums of the products over `count` buckets of `members` rows each, listed from `begin`."""
    size = lanes(work)
    for j in range(count):
        at = begin + j * members
        if members == 1:
            vstore(work, out + j * size, _product(a, a1, a2, b, b1, b2, sign, get(ints, at)))
            continue
        total = vwide(vsplat(work, 0.0))
        for first in range(at, at + members, _LONG):
            sums = _product(a, a1, a2, b, b1, b2, sign, get(ints, first))
            for m in range(first + 1, min(first + _LONG, at + members)):
                sums = sums + _product(a, a1, a2, b, b1, b2, sign, get(ints, m))
            total = total + vwide(sums)
        vstore(work, out + j * size, vnarrow(work, total))


@inline
def _butterfly(a, a1, a2, b, b1, b2, sign, ints, at, stride):
    """The transform of eight products by their three highest bits: three signed sums, and the plain one."""
    v0 = _product(a, a1, a2, b, b1, b2, sign, get(ints, at))
    v1 = _product(a, a1, a2, b, b1, b2, sign, get(ints, at + stride))
    v2 = _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 2 * stride))
    v3 = _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 3 * stride))
    v4 = _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 4 * stride))
    v5 = _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 5 * stride))
    v6 = _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 6 * stride))
    v7 = _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 7 * stride))
    t0 = ((v0 - v4) + (v1 - v5)) + ((v2 - v6) + (v3 - v7))
    v0, v1, v2, v3 = v0 + v4, v1 + v5, v2 + v6, v3 + v7
    t1 = (v0 - v2) + (v1 - v3)
    v0, v1 = v0 + v2, v1 + v3
    return t0, t1, v0 - v1, v0 + v1


@jit
def _first_three(a, a1, a2, b, b1, b2, sign, ints, transform, count, work, out):
    """The first three bits in registers, where every bucket is one row: `count` sums are left in the buffer."""
    size, buffer, order = lanes(work), offset(ints, BUFFER), get(ints, transform + TRANSFORM_ORDER)
    zero = vsplat(work, 0.0)
    w0, w1, w2 = vwide(zero), vwide(zero), vwide(zero)
    for begin in range(0, count, _LONG):
        t0, t1, t2 = zero, zero, zero
        for j in range(begin, min(begin + _LONG, count)):
            s0, s1, s2, plain = _butterfly(a, a1, a2, b, b1, b2, sign, ints, order + j, count)
            t0, t1, t2 = t0 + s0, t1 + s1, t2 + s2
            vstore(work, buffer + j * size, plain)
        w0, w1, w2 = w0 + vwide(t0), w1 + vwide(t1), w2 + vwide(t2)
    numbers = transform + TRANSFORM_NUMBERS
    add_to(work, out + size * get(ints, numbers), vnarrow(work, w0))
    add_to(work, out + size * get(ints, numbers + 1), vnarrow(work, w1))
    add_to(work, out + size * get(ints, numbers + 2), vnarrow(work, w2))


@jit
def parity_sums(a, a1, a2, b, b1, b2, sign, ints, transform, work, out):
    """Add Σ_p (-1)^parity(p & mask) product(p) to the vector at `out + number` of every mask of a transform.

    A table of 2**bits bucket sums is transformed one bit after the other: two additions per amplitude for all masks
    together. The plain sum is left at the start of the buffer.
    """
    size, buffer = lanes(work), offset(ints, BUFFER)
    bits, order = get(ints, transform + TRANSFORM_BITS), get(ints, transform + TRANSFORM_ORDER)
    members, half, done = get(ints, ROWS) >> bits, 1 << bits, np.int64(0)
    if members == 1 and bits >= 3:
        half, done = half >> 3, np.int64(3)
        _first_three(a, a1, a2, b, b1, b2, sign, ints, transform, half, work, out)
    else:
        bucket_sums(a, a1, a2, b, b1, b2, sign, ints, order, members, half, work, buffer)
    for k in range(done, bits):
        half >>= 1
        low, high = buffer, buffer + half * size
        total = vwide(vsplat(work, 0.0))
        for begin in range(0, half, _LONG):
            sums = vsplat(work, 0.0)
            for j in range(begin, min(begin + _LONG, half)):
                x, y = vload(work, low + j * size), vload(work, high + j * size)
                sums = sums + (x - y)
                vstore(work, low + j * size, x + y)
            total = total + vwide(sums)
        add_to(work, out + size * get(ints, transform + TRANSFORM_NUMBERS + k), vnarrow(work, total))


@jit
def signed_values(ints, transform, work, values, total, first):
    """Transpose of `parity_sums`: per bucket of the masks from `first` on, Σ_mask (-1)^parity value(mask) + total.

    Left in the buffer.
    """
    size, buffer, bits = lanes(work), offset(ints, BUFFER), get(ints, transform + TRANSFORM_BITS)
    vstore(work, buffer, total)
    for k in range(bits - 1, first - 1, -1):
        half = 1 << (bits - 1 - k)
        g = vload(work, values + size * get(ints, transform + TRANSFORM_NUMBERS + k))
        for j in range(half):
            a = vload(work, buffer + j * size)
            vstore(work, buffer + (j + half) * size, a - g)
            vstore(work, buffer + j * size, a + g)
