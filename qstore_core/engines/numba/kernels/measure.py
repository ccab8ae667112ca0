"""Outputs from a final state, and λ = Σ cotangent O ψ, where the reverse sweep starts."""

from __future__ import annotations

import numpy as np

from ..records import (
    BUFFER,
    CLASSES,
    DRIFT,
    LAMBDA,
    N_CLASSES,
    N_TRANSFORMS,
    OUT_COEFFICIENTS,
    OUT_PTR,
    OUTPUT,
    OUTPUTS,
    PLANE,
    REAL_END,
    ROWS,
    TOTAL,
    TRANSFORM_BITS,
    TRANSFORM_NUMBERS,
    TRANSFORM_ORDER,
    TRANSFORM_SIZE,
    TRANSFORMS,
    VALUE,
    VALUES,
)
from ..simd import get, lanes, put, vfma, vfnma, vload, vsplat, vstore
from .scratch import clear, inline, jit, offset
from .strings import string_lambda, string_values
from .walsh_hadamard import bucket_sums, parity_sums, signed_values

__all__ = ["measure", "start_lambda"]


@jit
def measure(psi, start, ints, floats, work, outputs, first, count):
    """Outputs of `count` samples from `first`; returns a vector of zeros, or of NaN where an output is not finite."""
    size, n_outputs, values = lanes(work), get(ints, OUTPUTS), offset(ints, VALUE)
    real, lanes_out = get(ints, REAL_END), offset(ints, OUTPUT)
    one, imag = vsplat(work, 1.0), start + get(ints, PLANE)
    if real:
        clear(psi, imag, get(ints, ROWS))
    clear(work, values, get(ints, VALUES))
    for g in range(get(ints, N_TRANSFORMS)):
        transform = get(ints, TRANSFORMS) + g * TRANSFORM_SIZE
        parity_sums(psi, start, imag, psi, start, imag, one, ints, transform, work, values)
        if g == 0 and get(ints, TOTAL) >= 0:
            vstore(work, values + size * get(ints, TOTAL), vload(work, offset(ints, BUFFER)))
    classes = get(ints, CLASSES)
    for k in range(get(ints, N_CLASSES)):
        begin, end = get(ints, classes + k), get(ints, classes + k + 1)
        bucket_sums(
            psi, start, imag, psi, start, imag, one, ints, begin, end - begin, np.int64(1), work, values + k * size
        )
    string_values(psi, start, ints, floats, work)
    ptr, coefficients = get(ints, OUT_PTR), get(ints, OUT_COEFFICIENTS)
    zero, drift = vsplat(work, 0.0), vload(work, offset(ints, DRIFT) + size)
    non_finite = zero
    for o in range(n_outputs):
        total = zero
        for e in range(get(ints, ptr + o), get(ints, ptr + o + 1)):
            total = vfma(vsplat(work, get(floats, coefficients + e)), vload(work, values + size * get(ints, e)), total)
        total = vfnma(drift, total, total)
        vstore(work, lanes_out + o * size, total)
        non_finite = vfma(total, zero, non_finite)
    for i in range(count):
        for o in range(n_outputs):
            put(outputs, (first + i) * n_outputs + o, get(work, lanes_out + o * size + i))
    return non_finite


@inline
def _weigh_row(psi, start, work, lam, plane, p, weight, more):
    x, y = weight * vload(psi, start + p), weight * vload(psi, start + plane + p)
    if more:
        x, y = x + vload(work, lam + p), y + vload(work, lam + plane + p)
    vstore(work, lam + p, x)
    vstore(work, lam + plane + p, y)


@jit
def _weigh(psi, start, ints, work, begin, members, count, weights, more):
    """λ = weight ψ on buckets of rows, each with its weight; added where `more`."""
    size, plane, lam = lanes(work), get(ints, PLANE), offset(ints, LAMBDA)
    for j in range(count):
        weight = vload(work, weights + j * size)
        for m in range(begin + j * members, begin + (j + 1) * members):
            _weigh_row(psi, start, work, lam, plane, get(ints, m), weight, more)


@jit
def _weigh_eight(psi, start, ints, work, transform, values, more):
    """λ = weight ψ where every bucket is one row: three masks are added here, the others are in the buffer."""
    size, plane, lam, buffer = lanes(work), get(ints, PLANE), offset(ints, LAMBDA), offset(ints, BUFFER)
    order, count = get(ints, transform + TRANSFORM_ORDER), (1 << get(ints, transform + TRANSFORM_BITS)) >> 3
    numbers = transform + TRANSFORM_NUMBERS
    g0 = vload(work, values + size * get(ints, numbers))
    g1 = vload(work, values + size * get(ints, numbers + 1))
    g2 = vload(work, values + size * get(ints, numbers + 2))
    for j in range(count):
        w, at = vload(work, buffer + j * size), order + j
        w0, w1 = w + g0, w - g0
        w00, w01, w10, w11 = w0 + g1, w0 - g1, w1 + g1, w1 - g1
        _weigh_row(psi, start, work, lam, plane, get(ints, at), w00 + g2, more)
        _weigh_row(psi, start, work, lam, plane, get(ints, at + count), w00 - g2, more)
        _weigh_row(psi, start, work, lam, plane, get(ints, at + 2 * count), w01 + g2, more)
        _weigh_row(psi, start, work, lam, plane, get(ints, at + 3 * count), w01 - g2, more)
        _weigh_row(psi, start, work, lam, plane, get(ints, at + 4 * count), w10 + g2, more)
        _weigh_row(psi, start, work, lam, plane, get(ints, at + 5 * count), w10 - g2, more)
        _weigh_row(psi, start, work, lam, plane, get(ints, at + 6 * count), w11 + g2, more)
        _weigh_row(psi, start, work, lam, plane, get(ints, at + 7 * count), w11 - g2, more)


@jit
def start_lambda(psi, start, ints, floats, work, cotangents, first, count):
    """λ = Σ_k cotangent_k O_k ψ."""
    size, n_outputs, values, out = lanes(work), get(ints, OUTPUTS), offset(ints, VALUE), offset(ints, OUTPUT)
    real, rows = get(ints, REAL_END), get(ints, ROWS)
    lam, plane = offset(ints, LAMBDA), get(ints, PLANE)
    if count < size:
        clear(work, out, n_outputs)
    for i in range(count):
        for o in range(n_outputs):
            put(work, out + o * size + i, get(cotangents, (first + i) * n_outputs + o))
    clear(work, values, get(ints, VALUES))
    ptr, coefficients = get(ints, OUT_PTR), get(ints, OUT_COEFFICIENTS)
    drift = vload(work, offset(ints, DRIFT) + size)
    for o in range(n_outputs):
        g = vload(work, out + o * size)
        g = vfnma(drift, g, g)
        for e in range(get(ints, ptr + o), get(ints, ptr + o + 1)):
            at = values + size * get(ints, e)
            vstore(work, at, vfma(vsplat(work, get(floats, coefficients + e)), g, vload(work, at)))
    n_transforms, n_classes = get(ints, N_TRANSFORMS), get(ints, N_CLASSES)
    if n_transforms + n_classes == 0:
        clear(work, lam, 2 * rows)
    if real:
        clear(psi, start + plane, rows)
    for g in range(n_transforms):
        transform = get(ints, TRANSFORMS) + g * TRANSFORM_SIZE
        total = vsplat(work, 0.0)
        if g == 0 and get(ints, TOTAL) >= 0:
            total = vload(work, values + size * get(ints, TOTAL))
        bits = get(ints, transform + TRANSFORM_BITS)
        if rows >> bits == 1 and bits >= 3:
            signed_values(ints, transform, work, values, total, 3)
            _weigh_eight(psi, start, ints, work, transform, values, g)
        else:
            signed_values(ints, transform, work, values, total, 0)
            _weigh(
                psi,
                start,
                ints,
                work,
                get(ints, transform + TRANSFORM_ORDER),
                rows >> bits,
                1 << bits,
                offset(ints, BUFFER),
                g,
            )
    classes = get(ints, CLASSES)
    for k in range(n_classes):
        begin, end = get(ints, classes + k), get(ints, classes + k + 1)
        _weigh(psi, start, ints, work, begin, end - begin, np.int64(1), values + k * size, n_transforms)
    string_lambda(psi, start, ints, floats, work)
