"""The compiled entry: runs a `lowering.Program` forward and in reverse on chunks of samples.

State of a chunk: the real plane, then the imaginary plane; in a plane, one row of `lanes` samples per amplitude. So
every gate is straight vector arithmetic, whatever its qubit, and both planes of 8 qubits fit the nearest cache.
The state is real until the first phases are applied, and its imaginary plane is not touched until then.

Reverse sweep: with λ = O ψ, a Y rotation by a has dL/da = Σ_pairs λ1 ψ0 - λ0 ψ1, and a phase of sign s has
dL/da = Σ s Im(conj(λ) ψ). Rotations of one block commute, so all their sums are read in one pass.

Source:
    Jones & Gacon, arXiv:2009.02823.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import types

from ..records import (
    AMPLITUDES,
    ANGLES,
    BACKWARD,
    BLOCK_QUBITS,
    COS_SIN,
    D_ANGLE,
    D_SLOTS,
    FINISH,
    FORWARD,
    GRADIENT_ONLY,
    INPUTS,
    KEPT,
    KEPT_TABLES,
    LAMBDA,
    N_PRODUCT,
    N_STEPS,
    PHASE,
    PLANE,
    PRODUCT_ANGLES,
    PRODUCT_ROWS,
    READY,
    ROWS,
    SHARED,
    SLOTS,
    STEP_ANGLES,
    STEP_BLOCK,
    STEP_KIND,
    STEP_N_TRANSFORMS,
    STEP_REAL,
    STEP_SIZE,
    STEP_TABLE,
    STEP_TRANSFORMS,
    STEP_WANTED,
    STEPS,
    TRANSFORM_BITS,
    TRANSFORM_NUMBERS,
    TRANSFORM_SIZE,
    WEIGHTS,
)
from ..simd import get, lanes, put, vfma, vload, vsplat, vstore, vsum
from .angles import pull_sampled, pull_shared, sampled_angles, shared_angles, undone
from .encode import normalise, pull_features
from .measure import measure, start_lambda
from .phases import apply_phases, phase_table, phase_tables
from .rotations import apply_rotations, rotation_gradients
from .scratch import COMPILING, clear, compiled, jit, load_rows, offset, source_digest, store_rows
from .walsh_hadamard import parity_sums

__all__ = ["entry"]


def entry(dtype: str, single: bool = False) -> Callable[..., bool]:
    """The compiled kernel for "float32" or "float64"; with `single`, for vectors of one lane, one sample a chunk.

    It is compiled at the first call, or read from the disk cache of an earlier process. Where the package's folder
    cannot be written to, numba keeps the cache in the user's cache folder; where neither can, there is none.
    """
    with COMPILING:
        return _entry(dtype, single)


@cache
def _entry(dtype: str, single: bool) -> Callable[..., bool]:
    number = types.float32 if dtype == "float32" else types.float64
    plain = {array: types.Array(array, 1, "C") for array in (number, types.float64, types.int32)}
    fixed = {array: types.Array(array, 1, "C", readonly=True) for array in (number, types.float64, types.int32)}
    scratch = types.Array(number, 2 if single else 1, "C")
    i64 = types.int64
    signature = types.boolean(
        fixed[types.int32], fixed[types.float64], fixed[number], fixed[number], i64, i64, scratch, scratch, i64, i64,
        plain[number], fixed[number], plain[types.float64], plain[number], plain[number], i64, i64, i64,
    )  # fmt: skip
    return compiled(_python_entry(source_digest(Path(__file__).parents[1])), signature)


@jit
def _product_state(ints, work, state, start):
    """|0…0⟩ after one rotation of each of some qubits."""
    size, cos_sin = lanes(work), offset(ints, COS_SIN)
    rows, n = get(ints, PRODUCT_ROWS), get(ints, N_PRODUCT)
    if 1 << n < get(ints, ROWS):
        clear(state, start, get(ints, ROWS))
    vstore(state, start, vsplat(work, 1.0))
    for k in range(n):
        at = cos_sin + 2 * size * get(ints, get(ints, PRODUCT_ANGLES) + k)
        c, s = vload(work, at), vload(work, at + size)
        half = 1 << k
        for j in range(half):
            p, q = start + get(ints, rows + j), start + get(ints, rows + half + j)
            a = vload(state, p)
            vstore(state, q, s * a)
            vstore(state, p, c * a)


@jit
def _load_state(inputs, width, raw, first, count, states, start, ints, work):
    """Start states from amplitudes, or from features; returns what `normalise` does."""
    zero, rows = np.int64(0), get(ints, ROWS)
    if not raw:
        load_rows(inputs, zero, width, rows, first, count, states, start)
        return True
    load_rows(inputs, zero, width, raw, first, count, states, start)
    clear(states, start + raw * lanes(work), rows - raw)
    return normalise(states, start, ints, work, count)


@jit
def _finish(ints, floats, theta, partial, n_chunks, d_theta):
    """Sum the rows of `partial` in order, and pull angles back to weights."""
    n_shared, n_weights = get(ints, SHARED), get(ints, WEIGHTS)
    row = n_shared + n_weights
    for chunk in range(1, n_chunks):
        for k in range(row):
            put(partial, k, get(partial, k) + get(partial, chunk * row + k))
    pull_shared(ints, floats, theta, partial, n_shared)
    for j in range(n_weights):
        put(d_theta, j, get(partial, n_shared + j))


def _python_entry(digest: int) -> Callable[..., Any]:
    """The entry as a closure over `digest`, which thereby is part of the cache's key."""

    def run(
        ints, floats, theta, inputs, batch, raw, work, states, stride, todo, outputs, cotangents, partial, d_inputs,
        d_theta, begin, end, n_chunks,
    ):  # fmt: skip
        """Run chunks [begin, end), by the flags in `todo`.

        Rows of `inputs` start with `raw` features to be normalised and padded, or, where that is 0, with amplitudes.

        FORWARD writes `outputs`. BACKWARD writes gradients of inputs to `d_inputs`, and sums over the samples of chunk
        k to row k of `partial`, (chunks, shared angles + weights) float64. FINISH sums the rows of `partial` in order
        and pulls them back to `d_theta`: so gradients do not depend on who computed which chunk.
        Chunk k's final state is at `states[k * stride]`; with KEPT it is there from an earlier call. With READY, `work`
        is as that call left it, shared angles and phase tables included.

        Returns False where theta, an angle or, with FORWARD, an output of these chunks is not finite.
        """
        size, amplitudes, n_inputs, n_shared = lanes(work), get(ints, AMPLITUDES), get(ints, INPUTS), get(ints, SHARED)
        given = raw if raw else amplitudes
        width = given + n_inputs
        n_angles, n_weights = get(ints, ANGLES), get(ints, WEIGHTS)
        steps, n_steps = get(ints, STEPS), get(ints, N_STEPS)
        d_angle, d_slots, lam = offset(ints, D_ANGLE), offset(ints, D_SLOTS), offset(ints, LAMBDA)
        row = n_shared + n_weights
        plane, zero, minus, nothing = get(ints, PLANE), np.int64(0), vsplat(work, -1.0), vsplat(work, 0.0)
        non_finite, non_finite_theta = nothing, 0.0  # x * 0 is NaN where x is not finite
        if todo == digest:
            return True
        if begin < end:
            for j in range(n_weights):
                non_finite_theta += np.float64(get(theta, j)) * 0.0
            if not todo & READY:
                shared_angles(ints, floats, theta, work)
                phase_tables(ints, work)
        for chunk in range(begin, end):
            first, start = chunk * size, chunk * stride
            count = min(size, batch - first)
            if n_inputs:
                load_rows(inputs, given, width, n_inputs, first, count, work, offset(ints, SLOTS))
                for j in range(n_inputs):
                    non_finite = vfma(vload(work, offset(ints, SLOTS) + j * size), nothing, non_finite)
                sampled_angles(ints, floats, theta, work)
            if not todo & KEPT:
                if amplitudes:
                    _load_state(inputs, width, raw, first, count, states, start, ints, work)
                else:
                    _product_state(ints, work, states, start)
            if todo & BACKWARD:
                clear(work, d_angle, n_angles)
                clear(work, d_slots, n_inputs)
            after = nothing
            # Forward over the steps, then in reverse: one loop, so that the kernels are compiled into it once.
            for passed in range(n_steps if todo & KEPT else 0, (2 * n_steps if todo & BACKWARD else n_steps) + 1):
                if passed == n_steps:
                    if todo & FORWARD:
                        non_finite = non_finite + measure(states, start, ints, floats, work, outputs, first, count)
                    if todo & BACKWARD:
                        start_lambda(states, start, ints, floats, work, cotangents, first, count)
                    continue
                back = np.int64(passed > n_steps)
                s = 2 * n_steps - passed if back else passed
                step = steps + s * STEP_SIZE
                kind, real = get(ints, step + STEP_KIND), get(ints, step + STEP_REAL)
                if back and get(ints, step + STEP_WANTED):
                    if kind == PHASE:
                        re, im = start, start + plane
                        for g in range(get(ints, step + STEP_N_TRANSFORMS)):
                            at = get(ints, step + STEP_TRANSFORMS) + g * TRANSFORM_SIZE
                            parity_sums(work, lam, lam + plane, states, im, re, minus, ints, at, work, d_angle)
                    else:
                        rotation_gradients(states, start, ints, step, work, real)
                if back:
                    grown = after
                    if kind == PHASE:
                        for g in range(get(ints, step + STEP_N_TRANSFORMS)):
                            at = get(ints, step + STEP_TRANSFORMS) + g * TRANSFORM_SIZE
                            listed, count_of = at + TRANSFORM_NUMBERS, get(ints, at + TRANSFORM_BITS)
                            grown = undone(ints, listed, count_of, work, after, grown)
                    else:
                        count_of = get(ints, step + STEP_BLOCK + BLOCK_QUBITS)
                        grown = undone(ints, step + STEP_ANGLES, count_of, work, after, grown)
                    if kind != GRADIENT_ONLY:
                        after = grown
                if kind == GRADIENT_ONLY:
                    continue
                if kind == PHASE and get(ints, step + STEP_TABLE) == get(ints, KEPT_TABLES):
                    phase_table(ints, step, work)
                for which in range(1 + back):
                    if back and not (s or (which and amplitudes)):
                        continue
                    x, at = states, start
                    if which:
                        x, at = work, lam
                    if kind == PHASE:
                        apply_phases(x, at, ints, step, work, real, back)
                    else:
                        apply_rotations(x, at, ints, step, work, real, back)
            if todo & BACKWARD:
                for a in range(n_shared):
                    put(partial, chunk * row + a, np.float64(vsum(vload(work, d_angle + a * size))))
                for j in range(n_weights):
                    put(partial, chunk * row + n_shared + j, 0.0)
                if n_inputs:
                    pull_sampled(ints, floats, theta, work, partial, chunk * row + n_shared)
                    store_rows(work, d_slots, d_inputs, given, width, n_inputs, first, count)
                if raw:
                    plain = _load_state(inputs, width, raw, first, count, states, start, ints, work)
                    pull_features(states, start, ints, work, plain)
                elif amplitudes:
                    two = vsplat(work, 2.0)
                    for r in range(amplitudes):
                        at = lam + r * size
                        vstore(work, at, two * vload(work, at))
                if amplitudes:
                    store_rows(work, lam, d_inputs, zero, width, given, first, count)
        if todo & FINISH:
            _finish(ints, floats, theta, partial, n_chunks, d_theta)
        return np.float64(vsum(non_finite)) + non_finite_theta == 0.0

    return run
