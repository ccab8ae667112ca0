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


@jit
def fold_sums(a, a1, a2, b, b1, b2, sign, ints, fold, work, out):
    """Add Σ_p (-1)^parity(p & mask) product(p) to the vector at `out + number` of every mask of a fold record.

    A table of 2**bits bucket sums is halved bit by bit: two additions per amplitude for all masks together. The plain
    sum is left at the start of the buffer.
    """
    size, buffer = lanes(work), place(ints, BUFFER)
    bits, order = get(ints, fold), get(ints, fold + 1)
    half = 1 << bits
    bucket_sums(a, a1, a2, b, b1, b2, sign, ints, order, get(ints, ROWS) >> bits, half, work, buffer)
    for k in range(bits):
        half >>= 1
        low, high = buffer, buffer + half * size
        total = vsplat(work, 0.0)
        for j in range(half):
            x, y = vload(work, low + j * size), vload(work, high + j * size)
            total = total + (x - y)
            vstore(work, low + j * size, x + y)
        add_to(work, out + size * get(ints, fold + 2 + k), total)


@jit
def unfold(ints, fold, work, values, total):
    """Transpose of `_fold`: per bucket, Σ_mask (-1)^parity value(mask) + total; left in the buffer."""
    size, buffer, bits = lanes(work), place(ints, BUFFER), get(ints, fold)
    vstore(work, buffer, total)
    for k in range(bits - 1, -1, -1):
        half = 1 << (bits - 1 - k)
        g = vload(work, values + size * get(ints, fold + 2 + k))
        for j in range(half):
            a = vload(work, buffer + j * size)
            vstore(work, buffer + (j + half) * size, a - g)
            vstore(work, buffer + j * size, a + g)
