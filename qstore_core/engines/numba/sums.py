"""Sums over amplitudes with the signs of many parity masks at once, and their transpose."""

from __future__ import annotations

from .common import BUFFER, ROWS, add_to, inline, jit, place
from .simd import get, lanes, vfma, vload, vsplat, vstore

__all__ = ["bucket_sums", "fold_sums", "unfold"]


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
        total = _product(a, a1, a2, b, b1, b2, sign, get(ints, at))
        for m in range(at + 1, at + members):
            total = total + _product(a, a1, a2, b, b1, b2, sign, get(ints, m))
        vstore(work, out + j * size, total)


@inline
def _eight_products(a, a1, a2, b, b1, b2, sign, ints, at, stride):
    return (
        _product(a, a1, a2, b, b1, b2, sign, get(ints, at)),
        _product(a, a1, a2, b, b1, b2, sign, get(ints, at + stride)),
        _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 2 * stride)),
        _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 3 * stride)),
        _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 4 * stride)),
        _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 5 * stride)),
        _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 6 * stride)),
        _product(a, a1, a2, b, b1, b2, sign, get(ints, at + 7 * stride)),
    )


@jit
def _fold_eight(a, a1, a2, b, b1, b2, sign, ints, fold, count, work, out):
    """The first three halvings in registers, where every bucket is one row: `count` sums are left in the buffer."""
    size, buffer, order = lanes(work), place(ints, BUFFER), get(ints, fold + 1)
    t0, t1, t2 = vsplat(work, 0.0), vsplat(work, 0.0), vsplat(work, 0.0)
    for j in range(count):
        v0, v1, v2, v3, v4, v5, v6, v7 = _eight_products(a, a1, a2, b, b1, b2, sign, ints, order + j, count)
        t0 = t0 + (((v0 - v4) + (v1 - v5)) + ((v2 - v6) + (v3 - v7)))
        v0, v1, v2, v3 = v0 + v4, v1 + v5, v2 + v6, v3 + v7
        t1 = t1 + ((v0 - v2) + (v1 - v3))
        v0, v1 = v0 + v2, v1 + v3
        t2 = t2 + (v0 - v1)
        vstore(work, buffer + j * size, v0 + v1)
    add_to(work, out + size * get(ints, fold + 2), t0)
    add_to(work, out + size * get(ints, fold + 3), t1)
    add_to(work, out + size * get(ints, fold + 4), t2)


@jit
def fold_sums(a, a1, a2, b, b1, b2, sign, ints, fold, work, out):
    """Add Σ_p (-1)^parity(p & mask) product(p) to the vector at `out + number` of every mask of a fold record.

    A table of 2**bits bucket sums is halved bit by bit: two additions per amplitude for all masks together. The plain
    sum is left at the start of the buffer.
    """
    size, buffer = lanes(work), place(ints, BUFFER)
    bits, order = get(ints, fold), get(ints, fold + 1)
    members, half, done = get(ints, ROWS) >> bits, 1 << bits, 0
    if members == 1 and bits >= 3:
        half, done = half >> 3, 3
        _fold_eight(a, a1, a2, b, b1, b2, sign, ints, fold, half, work, out)
    else:
        bucket_sums(a, a1, a2, b, b1, b2, sign, ints, order, members, half, work, buffer)
    for k in range(done, bits):
        half >>= 1
        low, high = buffer, buffer + half * size
        total = vsplat(work, 0.0)
        for j in range(half):
            x, y = vload(work, low + j * size), vload(work, high + j * size)
            total = total + (x - y)
            vstore(work, low + j * size, x + y)
        add_to(work, out + size * get(ints, fold + 2 + k), total)


@jit
def unfold(ints, fold, work, values, total, first):
    """Transpose of `fold_sums`: per bucket of the masks from `first` on, Σ_mask (-1)^parity value(mask) + total.

    Left in the buffer.
    """
    size, buffer, bits = lanes(work), place(ints, BUFFER), get(ints, fold)
    vstore(work, buffer, total)
    for k in range(bits - 1, first - 1, -1):
        half = 1 << (bits - 1 - k)
        g = vload(work, values + size * get(ints, fold + 2 + k))
        for j in range(half):
            a = vload(work, buffer + j * size)
            vstore(work, buffer + (j + half) * size, a - g)
            vstore(work, buffer + j * size, a + g)
