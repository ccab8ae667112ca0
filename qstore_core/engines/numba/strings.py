"""Pauli strings with an X part: their values, and what they add to λ.

A string with X part x pairs the rows p and q = p ^ x: its value is 2 Re or 2 Im of Σ conj(ψ_q) ψ_p, with signs. Where
the strings are X and Y of qubits of some relabelling of the index, which entanglers leave them, two or three qubits are
treated at once on four or eight rows in registers; the others, one X part at a time, in runs of pairs of equal signs.
"""

from __future__ import annotations

from .common import LAMBDA, N_PAIRED, N_SHIFTS, PAIRED, PLANE, SHIFTS, VALUE, add_to, inline, jit, place, table_sizes
from .simd import get, lanes, vfma, vfnma, vload, vsplat, vstore
from .tables import PAIRED_SIZE, SHIFT_SIZE

__all__ = ["string_lambda", "string_values"]


@inline
def _pair(x, y, a, b, c, d):
    """Adds the real and the imaginary part of conj(ψ_q) ψ_p; ψ_p = a + ib, ψ_q = c + id."""
    return vfma(b, d, vfma(a, c, x)), vfnma(d, a, vfma(c, b, y))


@inline
def _add_values(work, values, ints, floats, direction, x, y):
    """Add what a direction's X and Y strings read: fields `X's value or -1, Y's value or -1, Y's sign`."""
    size = lanes(work)
    if get(ints, direction) >= 0:
        add_to(work, values + size * get(ints, direction), x + x)
    if get(ints, direction + 1) >= 0:
        sign = vsplat(work, get(floats, get(ints, direction + 2)))
        add_to(work, values + size * get(ints, direction + 1), sign * (y + y))


@jit
def _values_2(psi, start, ints, record, floats, work):
    n, reps, move, plane = get(ints, record + 2), get(ints, record + 1), get(ints, record + 3), get(ints, PLANE)
    k1, k2, k3 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3)
    zero = vsplat(work, 0.0)
    x0, y0, x1, y1 = zero, zero, zero, zero
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            p0, p1, p2, p3 = start + p, start + (p ^ k1), start + (p ^ k2), start + (p ^ k3)
            a0, a1, a2, a3 = vload(psi, p0), vload(psi, p1), vload(psi, p2), vload(psi, p3)
            b0, b1 = vload(psi, p0 + plane), vload(psi, p1 + plane)
            b2, b3 = vload(psi, p2 + plane), vload(psi, p3 + plane)
            x0, y0 = _pair(x0, y0, a0, b0, a1, b1)
            x1, y1 = _pair(x1, y1, a0, b0, a2, b2)
            x0, y0 = _pair(x0, y0, a2, b2, a3, b3)
            x1, y1 = _pair(x1, y1, a1, b1, a3, b3)
    values = place(ints, VALUE)
    _add_values(work, values, ints, floats, record + 4, x0, y0)
    _add_values(work, values, ints, floats, record + 7, x1, y1)


@jit
def _values_3(psi, start, ints, record, floats, work):
    n, reps, move, plane = get(ints, record + 2), get(ints, record + 1), get(ints, record + 3), get(ints, PLANE)
    k1, k2, k3, k4 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3), get(ints, move + 4)
    k5, k6, k7 = get(ints, move + 5), get(ints, move + 6), get(ints, move + 7)
    zero = vsplat(work, 0.0)
    x0, y0, x1, y1, x2, y2 = zero, zero, zero, zero, zero, zero
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            p0, p1, p2, p3 = start + p, start + (p ^ k1), start + (p ^ k2), start + (p ^ k3)
            p4, p5, p6, p7 = start + (p ^ k4), start + (p ^ k5), start + (p ^ k6), start + (p ^ k7)
            a0, a1, a2, a3 = vload(psi, p0), vload(psi, p1), vload(psi, p2), vload(psi, p3)
            b0, b1 = vload(psi, p0 + plane), vload(psi, p1 + plane)
            b2, b3 = vload(psi, p2 + plane), vload(psi, p3 + plane)
            x0, y0 = _pair(x0, y0, a0, b0, a1, b1)
            x1, y1 = _pair(x1, y1, a0, b0, a2, b2)
            x0, y0 = _pair(x0, y0, a2, b2, a3, b3)
            x1, y1 = _pair(x1, y1, a1, b1, a3, b3)
            a4, a5, a6, a7 = vload(psi, p4), vload(psi, p5), vload(psi, p6), vload(psi, p7)
            b4, b5 = vload(psi, p4 + plane), vload(psi, p5 + plane)
            b6, b7 = vload(psi, p6 + plane), vload(psi, p7 + plane)
            x2, y2 = _pair(x2, y2, a0, b0, a4, b4)
            x0, y0 = _pair(x0, y0, a4, b4, a5, b5)
            x1, y1 = _pair(x1, y1, a4, b4, a6, b6)
            x2, y2 = _pair(x2, y2, a1, b1, a5, b5)
            x0, y0 = _pair(x0, y0, a6, b6, a7, b7)
            x1, y1 = _pair(x1, y1, a5, b5, a7, b7)
            x2, y2 = _pair(x2, y2, a2, b2, a6, b6)
            x2, y2 = _pair(x2, y2, a3, b3, a7, b7)
    values = place(ints, VALUE)
    _add_values(work, values, ints, floats, record + 4, x0, y0)
    _add_values(work, values, ints, floats, record + 7, x1, y1)
    _add_values(work, values, ints, floats, record + 10, x2, y2)


@inline
def _weights(work, values, ints, floats, direction):
    """A direction's cotangents h = hr + i hi: λ_q += h ψ_p and λ_p += conj(h) ψ_q."""
    size = lanes(work)
    hr, hi = vsplat(work, 0.0), vsplat(work, 0.0)
    if get(ints, direction) >= 0:
        hr = vload(work, values + size * get(ints, direction))
    if get(ints, direction + 1) >= 0:
        sign = vsplat(work, get(floats, get(ints, direction + 2)))
        hi = vfnma(sign, vload(work, values + size * get(ints, direction + 1)), hi)
    return hr, hi


@inline
def _up(x, y, hr, hi, a, b):
    """(x + iy) + (hr + i hi)(a + ib)."""
    return vfnma(hi, b, vfma(hr, a, x)), vfma(hi, a, vfma(hr, b, y))


@inline
def _down(x, y, hr, hi, a, b):
    """(x + iy) + (hr - i hi)(a + ib)."""
    return vfma(hi, b, vfma(hr, a, x)), vfnma(hi, a, vfma(hr, b, y))


@inline
def _load(array, at, plane):
    return vload(array, at), vload(array, at + plane)


@inline
def _store(array, at, plane, x, y):
    vstore(array, at, x)
    vstore(array, at + plane, y)


@jit
def _lambda_2(psi, start, ints, record, floats, work):
    n, reps, move, plane = get(ints, record + 2), get(ints, record + 1), get(ints, record + 3), get(ints, PLANE)
    k1, k2, k3 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3)
    values, lam = place(ints, VALUE), place(ints, LAMBDA)
    r0, i0 = _weights(work, values, ints, floats, record + 4)
    r1, i1 = _weights(work, values, ints, floats, record + 7)
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            p1, p2, p3 = p ^ k1, p ^ k2, p ^ k3
            a0, b0 = _load(psi, start + p, plane)
            a1, b1 = _load(psi, start + p1, plane)
            a2, b2 = _load(psi, start + p2, plane)
            a3, b3 = _load(psi, start + p3, plane)
            x, y = _load(work, lam + p, plane)
            x, y = _down(x, y, r0, i0, a1, b1)
            x, y = _down(x, y, r1, i1, a2, b2)
            _store(work, lam + p, plane, x, y)
            x, y = _load(work, lam + p1, plane)
            x, y = _up(x, y, r0, i0, a0, b0)
            x, y = _down(x, y, r1, i1, a3, b3)
            _store(work, lam + p1, plane, x, y)
            x, y = _load(work, lam + p2, plane)
            x, y = _down(x, y, r0, i0, a3, b3)
            x, y = _up(x, y, r1, i1, a0, b0)
            _store(work, lam + p2, plane, x, y)
            x, y = _load(work, lam + p3, plane)
            x, y = _up(x, y, r0, i0, a2, b2)
            x, y = _up(x, y, r1, i1, a1, b1)
            _store(work, lam + p3, plane, x, y)


@jit
def _lambda_3(psi, start, ints, record, floats, work):
    n, reps, move, plane = get(ints, record + 2), get(ints, record + 1), get(ints, record + 3), get(ints, PLANE)
    k1, k2, k3, k4 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3), get(ints, move + 4)
    k5, k6, k7 = get(ints, move + 5), get(ints, move + 6), get(ints, move + 7)
    values, lam = place(ints, VALUE), place(ints, LAMBDA)
    r0, i0 = _weights(work, values, ints, floats, record + 4)
    r1, i1 = _weights(work, values, ints, floats, record + 7)
    r2, i2 = _weights(work, values, ints, floats, record + 10)
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            p1, p2, p3, p4, p5, p6, p7 = p ^ k1, p ^ k2, p ^ k3, p ^ k4, p ^ k5, p ^ k6, p ^ k7
            a0, b0 = _load(psi, start + p, plane)
            a1, b1 = _load(psi, start + p1, plane)
            a2, b2 = _load(psi, start + p2, plane)
            a3, b3 = _load(psi, start + p3, plane)
            a4, b4 = _load(psi, start + p4, plane)
            a5, b5 = _load(psi, start + p5, plane)
            a6, b6 = _load(psi, start + p6, plane)
            a7, b7 = _load(psi, start + p7, plane)
            x, y = _load(work, lam + p, plane)
            x, y = _down(x, y, r0, i0, a1, b1)
            x, y = _down(x, y, r1, i1, a2, b2)
            x, y = _down(x, y, r2, i2, a4, b4)
            _store(work, lam + p, plane, x, y)
            x, y = _load(work, lam + p1, plane)
            x, y = _up(x, y, r0, i0, a0, b0)
            x, y = _down(x, y, r1, i1, a3, b3)
            x, y = _down(x, y, r2, i2, a5, b5)
            _store(work, lam + p1, plane, x, y)
            x, y = _load(work, lam + p2, plane)
            x, y = _down(x, y, r0, i0, a3, b3)
            x, y = _up(x, y, r1, i1, a0, b0)
            x, y = _down(x, y, r2, i2, a6, b6)
            _store(work, lam + p2, plane, x, y)
            x, y = _load(work, lam + p3, plane)
            x, y = _up(x, y, r0, i0, a2, b2)
            x, y = _up(x, y, r1, i1, a1, b1)
            x, y = _down(x, y, r2, i2, a7, b7)
            _store(work, lam + p3, plane, x, y)
            x, y = _load(work, lam + p4, plane)
            x, y = _down(x, y, r0, i0, a5, b5)
            x, y = _down(x, y, r1, i1, a6, b6)
            x, y = _up(x, y, r2, i2, a0, b0)
            _store(work, lam + p4, plane, x, y)
            x, y = _load(work, lam + p5, plane)
            x, y = _up(x, y, r0, i0, a4, b4)
            x, y = _down(x, y, r1, i1, a7, b7)
            x, y = _up(x, y, r2, i2, a1, b1)
            _store(work, lam + p5, plane, x, y)
            x, y = _load(work, lam + p6, plane)
            x, y = _down(x, y, r0, i0, a7, b7)
            x, y = _up(x, y, r1, i1, a4, b4)
            x, y = _up(x, y, r2, i2, a2, b2)
            _store(work, lam + p6, plane, x, y)
            x, y = _load(work, lam + p7, plane)
            x, y = _up(x, y, r0, i0, a6, b6)
            x, y = _up(x, y, r1, i1, a5, b5)
            x, y = _up(x, y, r2, i2, a3, b3)
            _store(work, lam + p7, plane, x, y)


@jit
def _shift_values(psi, start, ints, shift, floats, work):
    """Strings with one X part: 2 Re or 2 Im of conj(ψ_p') ψ_p with signs."""
    size, plane, values = lanes(work), get(ints, PLANE), place(ints, VALUE)
    x, rows, ends, n_runs = get(ints, shift), get(ints, shift + 1), get(ints, shift + 2), get(ints, shift + 3)
    count, which, signs = get(ints, shift + 4), get(ints, shift + 5), get(ints, shift + 6)
    for run in range(n_runs):
        re, re_plus, im, im_minus = vsplat(work, 0.0), vsplat(work, 0.0), vsplat(work, 0.0), vsplat(work, 0.0)
        for i in range(get(ints, ends + run), get(ints, ends + run + 1)):
            p = get(ints, rows + i)
            q = start + (p ^ x)
            p = start + p
            a, b, c, d = vload(psi, p), vload(psi, p + plane), vload(psi, q), vload(psi, q + plane)
            re = vfma(a, c, re)
            re_plus = vfma(b, d, re_plus)
            im = vfma(c, b, im)
            im_minus = vfma(d, a, im_minus)
        re, im = re + re_plus, im - im_minus
        for k in range(count):
            factor = vsplat(work, get(floats, signs + run * count + k))
            part = im if get(ints, which + 2 * k) else re
            add_to(work, values + size * get(ints, which + 2 * k + 1), factor * part)


@jit
def _shift_lambda(psi, start, ints, shift, floats, work):
    """Add Σ value P ψ of the strings with one X part to λ."""
    size, plane, values, lam = lanes(work), get(ints, PLANE), place(ints, VALUE), place(ints, LAMBDA)
    x, rows, ends, n_runs = get(ints, shift), get(ints, shift + 1), get(ints, shift + 2), get(ints, shift + 3)
    count, which, signs = get(ints, shift + 4), get(ints, shift + 5), get(ints, shift + 6)
    half = vsplat(work, 0.5)
    for run in range(n_runs):
        hr, hi = vsplat(work, 0.0), vsplat(work, 0.0)
        for k in range(count):
            factor = half * vsplat(work, get(floats, signs + run * count + k))
            value = vload(work, values + size * get(ints, which + 2 * k + 1))
            if get(ints, which + 2 * k):
                hi = vfnma(factor, value, hi)
            else:
                hr = vfma(factor, value, hr)
        for i in range(get(ints, ends + run), get(ints, ends + run + 1)):
            p = get(ints, rows + i)
            q = p ^ x
            a, b = vload(psi, start + p), vload(psi, start + p + plane)
            c, d = vload(psi, start + q), vload(psi, start + q + plane)
            lq, lp = lam + q, lam + p
            vstore(work, lq, vfnma(hi, b, vfma(hr, a, vload(work, lq))))
            vstore(work, lq + plane, vfma(hi, a, vfma(hr, b, vload(work, lq + plane))))
            vstore(work, lp, vfma(hi, d, vfma(hr, c, vload(work, lp))))
            vstore(work, lp + plane, vfnma(hi, c, vfma(hr, d, vload(work, lp + plane))))


@jit
def string_values(psi, start, ints, floats, work):
    """Add the values of all strings that have an X part."""
    for k in range(get(ints, N_PAIRED)):
        record = get(ints, PAIRED) + k * PAIRED_SIZE
        if get(ints, record) == 2:
            _values_2(psi, start, ints, record, floats, work)
        else:
            _values_3(psi, start, ints, record, floats, work)
    for k in range(get(ints, N_SHIFTS)):
        _shift_values(psi, start, ints, get(ints, SHIFTS) + k * SHIFT_SIZE, floats, work)


@jit
def string_lambda(psi, start, ints, floats, work):
    """Add Σ value P ψ of all strings that have an X part to λ."""
    for k in range(get(ints, N_PAIRED)):
        record = get(ints, PAIRED) + k * PAIRED_SIZE
        if get(ints, record) == 2:
            _lambda_2(psi, start, ints, record, floats, work)
        else:
            _lambda_3(psi, start, ints, record, floats, work)
    for k in range(get(ints, N_SHIFTS)):
        _shift_lambda(psi, start, ints, get(ints, SHIFTS) + k * SHIFT_SIZE, floats, work)
