"""Phases: one complex factor per amplitude, shared by the batch (a table) or per sample (tables of up to four bits)."""

from __future__ import annotations

import numpy as np

from ..records import (
    COS_SIN,
    DRIFT,
    EXCESS,
    KEPT_TABLES,
    N_STEPS,
    PHASE,
    PHASES,
    PLANE,
    ROWS,
    SHARED,
    STEP_KIND,
    STEP_N_SAMPLED,
    STEP_N_TRANSFORMS,
    STEP_SAMPLED,
    STEP_SIZE,
    STEP_TABLE,
    STEP_TRANSFORMS,
    STEPS,
    TABLE,
    TRANSFORM_BITS,
    TRANSFORM_NUMBERS,
    TRANSFORM_ORDER,
    TRANSFORM_SIZE,
)
from ..simd import get, lanes, put, vfma, vfnma, vload, vsplat, vstore, vsum, vwide
from .scratch import add_to, clear, jit, offset

__all__ = ["apply_phases", "phase_table", "phase_tables"]


@jit
def phase_table(ints, step, work):
    """Phases of all amplitudes in one step, from the shared angles, where the step keeps it."""
    size, rows, cos_sin, n_shared = lanes(work), get(ints, ROWS), offset(ints, COS_SIN), get(ints, SHARED)
    re, shift = offset(ints, TABLE), rows
    out = offset(ints, PHASES) + 2 * rows * get(ints, step + STEP_TABLE)
    for g in range(get(ints, step + STEP_N_TRANSFORMS)):
        transform = get(ints, step + STEP_TRANSFORMS) + g * TRANSFORM_SIZE
        bits, order = get(ints, transform + TRANSFORM_BITS), get(ints, transform + TRANSFORM_ORDER)
        put(work, re, 1.0)
        put(work, re + shift, 0.0)
        # First mask is the most significant bit of a bucket, so the table doubles from the last mask on.
        for k in range(bits):
            angle = get(ints, transform + TRANSFORM_NUMBERS + bits - 1 - k)
            c, t = 1.0, 0.0
            if angle < n_shared:
                c, t = get(work, cos_sin + 2 * angle * size), get(work, cos_sin + (2 * angle + 1) * size)
            half = 1 << k
            for j in range(half):
                x, y = get(work, re + j), get(work, re + shift + j)
                put(work, re + half + j, c * x - t * y)  # parity 1: exp(+i angle/2)
                put(work, re + shift + half + j, c * y + t * x)
                put(work, re + j, c * x + t * y)
                put(work, re + shift + j, c * y - t * x)
        members = rows >> bits
        for j in range(1 << bits):
            x, y = get(work, re + j), get(work, re + shift + j)
            for m in range(members):
                p = get(ints, order + j * members + m) // size
                if g == 0:
                    put(work, out + p, x)
                    put(work, out + rows + p, y)
                else:
                    a, b = get(work, out + p), get(work, out + rows + p)
                    put(work, out + p, a * x - b * y)
                    put(work, out + rows + p, a * y + b * x)


@jit
def phase_tables(ints, work):
    """The tables of all steps that have one of their own; the others share one place, one after the other."""
    for s in range(get(ints, N_STEPS)):
        step = get(ints, STEPS) + s * STEP_SIZE
        if get(ints, step + STEP_KIND) == PHASE and 0 <= get(ints, step + STEP_TABLE) < get(ints, KEPT_TABLES):
            phase_table(ints, step, work)
            _add_rounding(ints, step, work)


@jit
def _add_rounding(ints, step, work):
    """What a table's squares exceed 1 by beside the excess of its angles: added to that of one, and to the drift."""
    size, rows, excess, drift = lanes(work), get(ints, ROWS), offset(ints, EXCESS), offset(ints, DRIFT)
    table = offset(ints, PHASES) + 2 * rows * get(ints, step + STEP_TABLE)
    total, last = 0.0, np.int64(0)
    whole = 2 * rows - 2 * rows % (4 * size)
    none = vwide(vsplat(work, 0.0))
    a, b, c, d = none, none, none, none
    for at in range(table, table + whole, 4 * size):
        x, y = vwide(vload(work, at)), vwide(vload(work, at + size))
        z, w = vwide(vload(work, at + 2 * size)), vwide(vload(work, at + 3 * size))
        a, b, c, d = vfma(x, x, a), vfma(y, y, b), vfma(z, z, c), vfma(w, w, d)
    for at in range(table + whole, table + 2 * rows):
        total += np.float64(get(work, at)) * np.float64(get(work, at))
    more = (total + vsum((a + b) + (c + d))) / rows - 1.0
    for g in range(get(ints, step + STEP_N_TRANSFORMS)):
        transform = get(ints, step + STEP_TRANSFORMS) + g * TRANSFORM_SIZE
        for k in range(get(ints, transform + TRANSFORM_BITS)):
            angle = get(ints, transform + TRANSFORM_NUMBERS + k)
            if angle < get(ints, SHARED):
                more, last = more - np.float64(get(work, excess + angle * size)), angle
    add_to(work, excess + last * size, vsplat(work, more))
    add_to(work, drift, vsplat(work, more))
    add_to(work, drift + size, vsplat(work, more))


@jit
def _shared_phases(x, start, ints, table, work, real, back):
    """Multiply by the phases of a table, or by their conjugates.

    `real`: the state is real before, or, with `back`, was before the phases that are taken off.
    """
    size, rows, plane = lanes(work), get(ints, ROWS), get(ints, PLANE)
    re = offset(ints, PHASES) + 2 * rows * table
    im = re + rows
    sign = vsplat(work, -1.0 if back else 1.0)
    for r in range(rows):
        c, s = vsplat(work, get(work, re + r)), vsplat(work, get(work, im + r)) * sign
        p = start + r * size
        a = vload(x, p)
        if not real:
            b = vload(x, p + plane)
            vstore(x, p, vfnma(s, b, c * a))
            vstore(x, p + plane, vfma(s, a, c * b))
        elif back:
            vstore(x, p, vfnma(s, vload(x, p + plane), c * a))
        else:
            vstore(x, p, c * a)
            vstore(x, p + plane, s * a)


@jit
def _sampled_phases(x, start, ints, transform, work, back):
    """Multiply by the per-sample phases of up to four masks, or by their conjugates."""
    size, rows, plane, cos_sin = lanes(work), get(ints, ROWS), get(ints, PLANE), offset(ints, COS_SIN)
    bits, order = get(ints, transform + TRANSFORM_BITS), get(ints, transform + TRANSFORM_ORDER)
    re = offset(ints, TABLE)
    im = re + (size << bits)
    sign = vsplat(work, -1.0 if back else 1.0)
    vstore(work, re, vsplat(work, 1.0))
    vstore(work, im, vsplat(work, 0.0))
    for k in range(bits):
        at = cos_sin + 2 * size * get(ints, transform + TRANSFORM_NUMBERS + bits - 1 - k)
        c, t = vload(work, at), vload(work, at + size) * sign
        half = 1 << k
        for j in range(half):
            a, b = vload(work, re + j * size), vload(work, im + j * size)
            vstore(work, re + (half + j) * size, vfnma(t, b, c * a))
            vstore(work, im + (half + j) * size, vfma(t, a, c * b))
            vstore(work, re + j * size, vfma(t, b, c * a))
            vstore(work, im + j * size, vfnma(t, a, c * b))
    members = rows >> bits
    for j in range(1 << bits):
        c, s = vload(work, re + j * size), vload(work, im + j * size)
        for m in range(members):
            p = start + get(ints, order + j * members + m)
            a, b = vload(x, p), vload(x, p + plane)
            vstore(x, p, vfnma(s, b, c * a))
            vstore(x, p + plane, vfma(s, a, c * b))


@jit
def apply_phases(x, start, ints, step, work, real, back):
    """One step of phases: the shared table, then the per-sample groups."""
    table, transforms, count = (
        get(ints, step + STEP_TABLE),
        get(ints, step + STEP_SAMPLED),
        get(ints, step + STEP_N_SAMPLED),
    )
    if table >= 0 and (not back or count == 0):
        _shared_phases(x, start, ints, table, work, real, back)
    elif real and not back:
        clear(x, start + get(ints, PLANE), get(ints, ROWS))
    for g in range(count):
        _sampled_phases(x, start, ints, transforms + g * TRANSFORM_SIZE, work, back)
    if back and table >= 0 and count:
        _shared_phases(x, start, ints, table, work, real, back)
