"""The compiled entry: runs a `tables.Program` forward and in reverse on chunks of samples.

State of a chunk: the real plane, then the imaginary plane; in a plane, one row of `lanes` samples per amplitude. So
every gate is straight vector arithmetic, whatever its qubit, and both planes of 8 qubits fit the nearest cache.
The state is real until the first phases are applied, and its imaginary plane is not touched until then.

Reverse sweep: with λ = O ψ, a Y turn by a has dL/da = Σ_pairs λ1 ψ0 - λ0 ψ1, and a phase of sign s has
dL/da = Σ s Im(conj(λ) ψ). Turns of one block commute, so all their sums are read in one pass.

Source:
    Jones & Gacon, arXiv:2009.02823.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, types

from .angles import pull_sampled, pull_shared, sampled_angles, shared_angles
from .common import (
    AMPLITUDES,
    ANGLES,
    COEF,
    D_ANGLE,
    D_SLOTS,
    INPUTS,
    LAMBDA,
    N_PRODUCT,
    N_STEPS,
    PLANE,
    PRODUCT_ANGLES,
    PRODUCT_ROWS,
    ROWS,
    SHARED,
    SLOTS,
    SPARE,
    STEPS,
    WEIGHTS,
    clear,
    jit,
    load_rows,
    place,
    store_rows,
)
from .encode import normalise, pull_features
from .measure import measure, start_lambda
from .phases import apply_phases, phase_table, phase_tables
from .simd import get, lanes, put, vfma, vload, vsplat, vstore, vsum
from .sums import fold_sums
from .tables import FOLD_SIZE, GRADIENT_ONLY, PHASE, STEP_SIZE
from .turns import apply_turns, turn_gradients

__all__ = ["entry"]

FORWARD, KEPT, BACKWARD, FINISH, READY = 1, 2, 4, 8, 16
"""What a call is to do; flags."""

_lock = threading.Lock()


def entry(dtype: str, single: bool = False) -> Callable[..., bool]:
    """The compiled kernel for "float32" or "float64"; with `single`, for vectors of one lane, one sample a chunk.

    It is compiled at the first call, or read from the disk cache of an earlier process. Where the package's folder
    cannot be written to, numba keeps the cache in the user's cache folder; where neither can, there is none.
    """
    with _lock:
        return _entry(dtype, single)


@cache
def _entry(dtype: str, single: bool) -> Callable[..., bool]:
    number = types.float32 if dtype == "float32" else types.float64
    plain = {array: types.Array(array, 1, "C") for array in (number, types.float64, types.int32)}
    fixed = {array: types.Array(array, 1, "C", readonly=True) for array in (number, types.int32)}
    scratch = types.Array(number, 2 if single else 1, "C")
    i64 = types.int64
    signature = types.boolean(
        fixed[types.int32], fixed[number], fixed[number], fixed[number], i64, i64, scratch, scratch, i64, i64,
        plain[number], fixed[number], plain[types.float64], plain[number], plain[number], i64, i64, i64,
    )  # fmt: skip
    settings = {"nogil": True, "error_model": "numpy"}
    function = _python_entry(_digest())
    try:
        return njit(signature, cache=True, **settings)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return njit(signature, **settings)(function)


def _digest() -> int:
    """A number that changes with the source of any kernel: numba's cache looks at the entry's file alone."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(path.read_bytes())
    return int.from_bytes(sha.digest()[:7], "big")


@jit
def _product_state(ints, work, state, start):
    """|0…0⟩ after one turn on each of some qubits."""
    size, coef = lanes(work), place(ints, COEF)
    rows, n = get(ints, PRODUCT_ROWS), get(ints, N_PRODUCT)
    if 1 << n < get(ints, ROWS):
        clear(state, start, get(ints, ROWS))
    vstore(state, start, vsplat(work, 1.0))
    for k in range(n):
        at = coef + 2 * size * get(ints, get(ints, PRODUCT_ANGLES) + k)
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
        d_angle, d_slots, lam = place(ints, D_ANGLE), place(ints, D_SLOTS), place(ints, LAMBDA)
        row = n_shared + n_weights
        plane, zero, minus, nothing = get(ints, PLANE), np.int64(0), vsplat(work, -1.0), vsplat(work, 0.0)
        spoiled, spoiled_theta = nothing, 0.0  # x * 0 is NaN where x is not finite
        if todo == digest:
            return True
        if begin < end:
            for j in range(n_weights):
                spoiled_theta += np.float64(get(theta, j)) * 0.0
            if not todo & READY:
                shared_angles(ints, floats, theta, work)
                phase_tables(ints, work)
        for chunk in range(begin, end):
            first, start = chunk * size, chunk * stride
            count = min(size, batch - first)
            if n_inputs:
                load_rows(inputs, given, width, n_inputs, first, count, work, place(ints, SLOTS))
                for j in range(n_inputs):
                    spoiled = vfma(vload(work, place(ints, SLOTS) + j * size), nothing, spoiled)
                sampled_angles(ints, floats, theta, work)
            if not todo & KEPT:
                if amplitudes:
                    _load_state(inputs, width, raw, first, count, states, start, ints, work)
                else:
                    _product_state(ints, work, states, start)
            if todo & BACKWARD:
                clear(work, d_angle, n_angles)
                clear(work, d_slots, n_inputs)
            # Forward over the steps, then in reverse: one loop, so that the kernels are compiled into it once.
            for turn in range(n_steps if todo & KEPT else 0, (2 * n_steps if todo & BACKWARD else n_steps) + 1):
                if turn == n_steps:
                    if todo & FORWARD:
                        spoiled = spoiled + measure(states, start, ints, floats, work, outputs, first, count)
                    if todo & BACKWARD:
                        start_lambda(states, start, ints, floats, work, cotangents, first, count)
                    continue
                back = np.int64(turn > n_steps)
                s = 2 * n_steps - turn if back else turn
                step = steps + s * STEP_SIZE
                kind, real, wanted = get(ints, step), get(ints, step + 1), get(ints, step + 2)
                if back and wanted:
                    if kind == PHASE:
                        for g in range(get(ints, step + 5)):
                            fold = get(ints, step + 4) + g * FOLD_SIZE
                            fold_sums(
                                work, lam, lam + plane, states, start + plane, start, minus, ints, fold, work, d_angle
                            )
                    else:
                        turn_gradients(states, start, ints, step, work, real)
                if kind == GRADIENT_ONLY:
                    continue
                if kind == PHASE and get(ints, step + 3) == get(ints, SPARE):
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
                        apply_turns(x, at, ints, step, work, real, back)
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
        return np.float64(vsum(spoiled)) + spoiled_theta == 0.0

    return run
