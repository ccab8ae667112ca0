"""Outputs from a final state, and λ = Σ cotangent O ψ, where the reverse sweep starts."""

from __future__ import annotations

import numpy as np

from .common import (
    BUFFER,
    CLASSES,
    FOLDS,
    LAMBDA,
    N_CLASSES,
    N_FOLDS,
    N_SHIFTS,
    OUT_COEFFICIENTS,
    OUT_PTR,
    OUTPUT,
    OUTPUTS,
    PLANE,
    REAL_END,
    ROWS,
    SHIFTS,
    TOTAL,
    VALUE,
    VALUES,
    add_to,
    clear,
    jit,
    place,
)
from .simd import get, lanes, put, vfma, vfnma, vload, vsplat, vstore
from .sums import bucket_sums, fold_sums, unfold
from .tables import FOLD_SIZE, SHIFT_SIZE

__all__ = ["measure", "start_lambda"]


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
def measure(psi, start, ints, floats, work, outputs, first, count):
    """Outputs of `count` samples from `first`."""
    size, n_outputs, values = lanes(work), get(ints, OUTPUTS), place(ints, VALUE)
    real, lanes_out = get(ints, REAL_END), place(ints, OUTPUT)
    one, imag = vsplat(work, 1.0), start + get(ints, PLANE)
    if real:
        clear(psi, imag, get(ints, ROWS))
    clear(work, values, get(ints, VALUES))
    for g in range(get(ints, N_FOLDS)):
        fold = get(ints, FOLDS) + g * FOLD_SIZE
        fold_sums(psi, start, imag, psi, start, imag, one, ints, fold, work, values)
        if g == 0 and get(ints, TOTAL) >= 0:
            vstore(work, values + size * get(ints, TOTAL), vload(work, place(ints, BUFFER)))
    classes = get(ints, CLASSES)
    for k in range(get(ints, N_CLASSES)):
        begin, end = get(ints, classes + k), get(ints, classes + k + 1)
        bucket_sums(
            psi, start, imag, psi, start, imag, one, ints, begin, end - begin, np.int64(1), work, values + k * size
        )
    for k in range(get(ints, N_SHIFTS)):
        _shift_values(psi, start, ints, get(ints, SHIFTS) + k * SHIFT_SIZE, floats, work)
    ptr, coefficients = get(ints, OUT_PTR), get(ints, OUT_COEFFICIENTS)
    for o in range(n_outputs):
        total = vsplat(work, 0.0)
        for e in range(get(ints, ptr + o), get(ints, ptr + o + 1)):
            total = vfma(vsplat(work, get(floats, coefficients + e)), vload(work, values + size * get(ints, e)), total)
        vstore(work, lanes_out + o * size, total)
    for i in range(count):
        for o in range(n_outputs):
            put(outputs, (first + i) * n_outputs + o, get(work, lanes_out + o * size + i))


@jit
def _weigh(psi, start, ints, work, begin, members, count, weights, more):
    """λ = weight ψ on buckets of rows, each with its weight; added where `more`."""
    size, plane, lam = lanes(work), get(ints, PLANE), place(ints, LAMBDA)
    for j in range(count):
        weight = vload(work, weights + j * size)
        for m in range(begin + j * members, begin + (j + 1) * members):
            p = get(ints, m)
            x, y = weight * vload(psi, start + p), weight * vload(psi, start + plane + p)
            if more:
                x, y = x + vload(work, lam + p), y + vload(work, lam + plane + p)
            vstore(work, lam + p, x)
            vstore(work, lam + plane + p, y)


@jit
def start_lambda(psi, start, ints, floats, work, cotangents, first, count):
    """λ = Σ_k cotangent_k O_k ψ."""
    size, n_outputs, values, out = lanes(work), get(ints, OUTPUTS), place(ints, VALUE), place(ints, OUTPUT)
    real, rows = get(ints, REAL_END), get(ints, ROWS)
    lam, plane = place(ints, LAMBDA), get(ints, PLANE)
    if count < size:
        clear(work, out, n_outputs)
    for i in range(count):
        for o in range(n_outputs):
            put(work, out + o * size + i, get(cotangents, (first + i) * n_outputs + o))
    clear(work, values, get(ints, VALUES))
    ptr, coefficients = get(ints, OUT_PTR), get(ints, OUT_COEFFICIENTS)
    for o in range(n_outputs):
        g = vload(work, out + o * size)
        for e in range(get(ints, ptr + o), get(ints, ptr + o + 1)):
            at = values + size * get(ints, e)
            vstore(work, at, vfma(vsplat(work, get(floats, coefficients + e)), g, vload(work, at)))
    n_folds, n_classes, n_shifts = get(ints, N_FOLDS), get(ints, N_CLASSES), get(ints, N_SHIFTS)
    if n_folds + n_classes == 0:
        clear(work, lam, 2 * rows)
    if real:
        clear(psi, start + plane, rows)
    for g in range(n_folds):
        fold = get(ints, FOLDS) + g * FOLD_SIZE
        total = vsplat(work, 0.0)
        if g == 0 and get(ints, TOTAL) >= 0:
            total = vload(work, values + size * get(ints, TOTAL))
        unfold(ints, fold, work, values, total)
        bits, buffer = get(ints, fold), place(ints, BUFFER)
        _weigh(psi, start, ints, work, get(ints, fold + 1), rows >> bits, 1 << bits, buffer, g)
    classes = get(ints, CLASSES)
    for k in range(n_classes):
        begin, end = get(ints, classes + k), get(ints, classes + k + 1)
        _weigh(psi, start, ints, work, begin, end - begin, np.int64(1), values + k * size, n_folds)
    for k in range(n_shifts):
        _shift_lambda(psi, start, ints, get(ints, SHIFTS) + k * SHIFT_SIZE, floats, work)
