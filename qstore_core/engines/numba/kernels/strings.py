"""Pauli strings with an X part: their values, and what they add to λ.

A string with X part x pairs the rows p and q = p ^ x: its value is 2 Re or 2 Im of Σ conj(ψ_q) ψ_p, with signs. Where
the strings are X and Y of qubits of some relabelling of the index, which entanglers leave them, two or three qubits are
treated at once on four or eight rows in registers; the others, one X part at a time, in runs of pairs of equal signs.
"""

from __future__ import annotations

from ..records import (
    BLOCK_COUNT,
    BLOCK_MOVES,
    BLOCK_QUBITS,
    BLOCK_ROWS,
    BUFFER,
    DIRECTION_SIGN,
    DIRECTION_SIZE,
    DIRECTION_X,
    DIRECTION_Y,
    LAMBDA,
    N_PAIRS,
    N_SHIFTS,
    PAIR_DIRECTIONS,
    PAIR_SIZE,
    PAIRS,
    PLANE,
    SHIFT_ENDS,
    SHIFT_FACTORS,
    SHIFT_ROWS,
    SHIFT_RUNS,
    SHIFT_SIZE,
    SHIFT_STRINGS,
    SHIFT_WHICH,
    SHIFT_X,
    SHIFTS,
    VALUE,
)
from ..simd import get, lanes, vfma, vfnma, vload, vnarrow, vsplat, vstore, vwide
from .rows import add_wide, block_sums, lambda_rows, load_tuple, pair_sums, plus, read_moves, store_narrow, wide_sums
from .scratch import SHORT, add_to, jit, list_sizes, offset

__all__ = ["string_lambda", "string_values"]


@jit
def _pairs(psi, start, ints, block, work, moves):
    """Leaves Σ Re and Σ Im of conj(ψ_q) ψ_p for every qubit of a block in the buffer."""
    rows, plane = get(ints, block + BLOCK_ROWS), get(ints, PLANE)
    low, high = list_sizes(get(ints, block + BLOCK_COUNT))
    total = wide_sums(work, moves)
    for h in range(high):
        first = get(ints, rows + low + h)
        middle = block_sums(work, moves)
        for begin in range(0, low, SHORT):
            sums = block_sums(work, moves)
            for i in range(begin, min(begin + SHORT, low)):
                sums = plus(sums, pair_sums(psi, start, plane, first ^ get(ints, rows + i), moves))
            middle = plus(middle, sums)
        total = add_wide(total, middle)
    store_narrow(work, offset(ints, BUFFER), total)


@jit
def _pair_values(psi, start, ints, pair, floats, work):
    """Values of X and Y of the qubits of one block."""
    size, values, buffer = lanes(work), offset(ints, VALUE), offset(ints, BUFFER)
    qubits, listed = get(ints, pair + BLOCK_QUBITS), get(ints, pair + BLOCK_MOVES)
    if qubits == 2:
        _pairs(psi, start, ints, pair, work, read_moves(ints, listed, 2))
    else:
        _pairs(psi, start, ints, pair, work, read_moves(ints, listed, 3))
    for k in range(qubits):
        direction = pair + PAIR_DIRECTIONS + k * DIRECTION_SIZE
        x, y = get(ints, direction + DIRECTION_X), get(ints, direction + DIRECTION_Y)
        re, im = vload(work, buffer + 2 * k * size), vload(work, buffer + (2 * k + 1) * size)
        if x >= 0:
            add_to(work, values + size * x, re + re)
        if y >= 0:
            sign = vsplat(work, get(floats, get(ints, direction + DIRECTION_SIGN)))
            add_to(work, values + size * y, sign * (im + im))


@jit
def _add_lambda(psi, start, ints, block, work, moves):
    rows, plane, lam = get(ints, block + BLOCK_ROWS), get(ints, PLANE), offset(ints, LAMBDA)
    weights = load_tuple(work, offset(ints, BUFFER), moves)
    low, high = list_sizes(get(ints, block + BLOCK_COUNT))
    for h in range(high):
        first = get(ints, rows + low + h)
        for i in range(low):
            lambda_rows(psi, start, work, lam, plane, first ^ get(ints, rows + i), moves, weights)


@jit
def _pair_lambda(psi, start, ints, pair, floats, work):
    """Add Σ value P ψ of X and Y of the qubits of one block to λ."""
    size, values, buffer = lanes(work), offset(ints, VALUE), offset(ints, BUFFER)
    qubits, listed = get(ints, pair + BLOCK_QUBITS), get(ints, pair + BLOCK_MOVES)
    for k in range(qubits):
        direction = pair + PAIR_DIRECTIONS + k * DIRECTION_SIZE
        x, y = get(ints, direction + DIRECTION_X), get(ints, direction + DIRECTION_Y)
        re, im = vsplat(work, 0.0), vsplat(work, 0.0)
        if x >= 0:
            re = vload(work, values + size * x)
        if y >= 0:
            sign = vsplat(work, get(floats, get(ints, direction + DIRECTION_SIGN)))
            im = vfnma(sign, vload(work, values + size * y), im)
        vstore(work, buffer + 2 * k * size, re)
        vstore(work, buffer + (2 * k + 1) * size, im)
    if qubits == 2:
        _add_lambda(psi, start, ints, pair, work, read_moves(ints, listed, 2))
    else:
        _add_lambda(psi, start, ints, pair, work, read_moves(ints, listed, 3))


@jit
def _shift_values(psi, start, ints, shift, floats, work):
    """Strings with one X part: 2 Re or 2 Im of conj(ψ_p') ψ_p with signs."""
    size, plane, values = lanes(work), get(ints, PLANE), offset(ints, VALUE)
    x, rows, ends = get(ints, shift + SHIFT_X), get(ints, shift + SHIFT_ROWS), get(ints, shift + SHIFT_ENDS)
    count, which, factors = (
        get(ints, shift + SHIFT_STRINGS),
        get(ints, shift + SHIFT_WHICH),
        get(ints, shift + SHIFT_FACTORS),
    )
    zero = vsplat(work, 0.0)
    for run in range(get(ints, shift + SHIFT_RUNS)):
        re_total, im_total = vwide(zero), vwide(zero)
        begin, end = get(ints, ends + run), get(ints, ends + run + 1)
        for first in range(begin, end, 2 * SHORT):
            re, re_plus, im, im_minus = zero, zero, zero, zero
            for i in range(first, min(first + 2 * SHORT, end)):
                p = get(ints, rows + i)
                q = start + (p ^ x)
                p = start + p
                a, b, c, d = vload(psi, p), vload(psi, p + plane), vload(psi, q), vload(psi, q + plane)
                re = vfma(a, c, re)
                re_plus = vfma(b, d, re_plus)
                im = vfma(c, b, im)
                im_minus = vfma(d, a, im_minus)
            re_total = re_total + vwide(re + re_plus)
            im_total = im_total + vwide(im - im_minus)
        re, im = vnarrow(work, re_total), vnarrow(work, im_total)
        for k in range(count):
            factor = vsplat(work, get(floats, factors + run * count + k))
            part = im if get(ints, which + 2 * k) else re
            add_to(work, values + size * get(ints, which + 2 * k + 1), factor * part)


@jit
def _shift_lambda(psi, start, ints, shift, floats, work):
    """Add Σ value P ψ of the strings with one X part to λ."""
    size, plane, values, lam = lanes(work), get(ints, PLANE), offset(ints, VALUE), offset(ints, LAMBDA)
    x, rows, ends = get(ints, shift + SHIFT_X), get(ints, shift + SHIFT_ROWS), get(ints, shift + SHIFT_ENDS)
    count, which, factors = (
        get(ints, shift + SHIFT_STRINGS),
        get(ints, shift + SHIFT_WHICH),
        get(ints, shift + SHIFT_FACTORS),
    )
    half = vsplat(work, 0.5)
    for run in range(get(ints, shift + SHIFT_RUNS)):
        hr, hi = vsplat(work, 0.0), vsplat(work, 0.0)
        for k in range(count):
            factor = half * vsplat(work, get(floats, factors + run * count + k))
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
    for k in range(get(ints, N_PAIRS)):
        _pair_values(psi, start, ints, get(ints, PAIRS) + k * PAIR_SIZE, floats, work)
    for k in range(get(ints, N_SHIFTS)):
        _shift_values(psi, start, ints, get(ints, SHIFTS) + k * SHIFT_SIZE, floats, work)


@jit
def string_lambda(psi, start, ints, floats, work):
    """Add Σ value P ψ of all strings that have an X part to λ."""
    for k in range(get(ints, N_PAIRS)):
        _pair_lambda(psi, start, ints, get(ints, PAIRS) + k * PAIR_SIZE, floats, work)
    for k in range(get(ints, N_SHIFTS)):
        _shift_lambda(psi, start, ints, get(ints, SHIFTS) + k * SHIFT_SIZE, floats, work)
