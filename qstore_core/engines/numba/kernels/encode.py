"""Amplitude encoding of a chunk: rows to unit length, and gradients back to the features."""

from __future__ import annotations

import math

import numpy as np

from ..records import LAMBDA, NORM, ROWS
from ..simd import get, lanes, put, vfma, vfnma, vload, vmax_abs, vnarrow, vnormal, vsplat, vstore, vwide
from .scratch import jit, offset

__all__ = ["normalise", "pull_features"]

_LOW, _HIGH = 1e-20, 1e30  # sums of squares between these lost nothing to underflow or overflow, also in float32
_TOGETHER = 64  # rows summed in the precision of the state before their sum joins one in double precision


@jit
def _inner(a, at_a, b, at_b, rows):
    """Σ a b over rows."""
    size = lanes(a)
    total = vwide(vsplat(a, 0.0))
    for begin in range(0, rows, _TOGETHER):
        even, odd = vsplat(a, 0.0), vsplat(a, 0.0)
        for r in range(begin, min(begin + _TOGETHER, rows), 2):
            p, q = at_a + r * size, at_b + r * size
            even = vfma(vload(a, p), vload(b, q), even)
            odd = vfma(vload(a, p + size), vload(b, q + size), odd)
        total = total + vwide(even + odd)
    return vnarrow(a, total)


@jit
def normalise(psi, start, ints, work, count):
    """Scale `count` lanes to unit length; returns False where they had to be scaled by their largest magnitude first.

    Subnormal features count as zeros; a lane of zeros becomes |0…0⟩; NaN and infinity become NaN. Left in the scratch:
    one over the length (0 for such a lane), and that scale.
    """
    size, rows, norm = lanes(work), get(ints, ROWS), offset(ints, NORM)
    vstore(work, norm, _inner(psi, start, psi, start, rows))
    vstore(work, norm + size, vsplat(work, 1.0))
    plain = True
    for i in range(count):
        square = get(work, norm + i)
        plain = plain and square > _LOW and square < _HIGH
    if not plain:
        top = vsplat(work, 0.0)
        for r in range(rows):
            features = vnormal(vload(psi, start + r * size))
            vstore(psi, start + r * size, features)
            top = vmax_abs(top, features)
        vstore(work, norm + size, top)
        for i in range(size):
            if get(work, norm + size + i) == 0.0:
                put(work, norm + size + i, 1.0)
        top = vload(work, norm + size)
        for r in range(rows):
            vstore(psi, start + r * size, vload(psi, start + r * size) / top)
        vstore(work, norm, _inner(psi, start, psi, start, rows))
    for i in range(size):
        square = np.float64(get(work, norm + i))
        put(work, norm + i, 0.0 if square == 0.0 else 1.0 / math.sqrt(square))
    factor = vload(work, norm)
    for r in range(rows):
        vstore(psi, start + r * size, factor * vload(psi, start + r * size))
    for i in range(count):
        if get(work, norm + i) == 0.0:
            put(psi, start + i, 1.0)
    return plain


@jit
def pull_features(psi, start, ints, work, plain):
    """λ → gradients of the features whose unit rows `normalise` has just left at `psi`.

    dL/dx = (g - (g·y) y) / |x| with g = 2 λ, the gradient of the unit row y: 0 for a row of zeros.
    """
    size, rows, norm, lam = lanes(work), get(ints, ROWS), offset(ints, NORM), offset(ints, LAMBDA)
    inner = _inner(psi, start, work, lam, rows)
    factor, top = vload(work, norm) * vsplat(work, 2.0), vload(work, norm + size)
    for r in range(rows):
        at = lam + r * size
        value = factor * vfnma(inner, vload(psi, start + r * size), vload(work, at))
        vstore(work, at, value if plain else value / top)
