"""The kernels of circuits that fit one program: forward, backward, and the sum over the batch."""

from __future__ import annotations

import triton
import triton.language as tl

from ..tables import HEADER
from .angles import ANGLES, SCRATCH, prepare, pull_inputs, slot_value, unused_slots
from .evolve import axes, matrices
from .measure import probabilities, read_strings, start_lambda, start_lambda_of_strings
from .registers import exchange, indices, spread
from .rounds import apply_round, undo_round
from .start import load_state, pull_features, start_state, store_state

__all__ = ["backward", "forward", "kernel", "reduce_weights"]

ROUNDS = tl.constexpr(HEADER.index("rounds"))
N_ROUNDS = tl.constexpr(HEADER.index("n_rounds"))
WEIGHTS = tl.constexpr(HEADER.index("weights"))
_NUMBERS = (
    "batch", "stride", "given", "n_weights", "n_inputs", "n_outputs", "round_size", "monomials", "degree", "entries",
    "input_entries", "record", "programs",
)  # fmt: skip
_POINTERS = (
    "ints", "floats", "theta", "x", "scratch", "state", "values", "out", "strings", "cotangents", "d_angles", "d_x",
    "d_theta", "norms", "parts", "source", "target", "lam", "lam_source", "lam_target", "inner",
)  # fmt: skip


def kernel(function):
    """A kernel that is compiled once, whatever its numbers are and however its tensors are aligned."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return triton.jit(
        function,
        do_not_specialize=[name for name in names if name in _NUMBERS],
        do_not_specialize_on_alignment=[name for name in names if name in _POINTERS],
    )


@kernel
def forward(
    ints, floats, theta, x, scratch, state, values, out, batch, stride, given, n_weights, n_outputs,
    round_size, monomials, degree, entries,
    TINY: tl.constexpr, S: tl.constexpr, K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr,
    AMPLITUDES: tl.constexpr, SAMPLED: tl.constexpr, TERMS: tl.constexpr, STRINGS: tl.constexpr,
    SHIFTED: tl.constexpr, PLAIN: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Outputs (batch, n_outputs) of S samples; with KEEP, their final states to `state`."""
    LANES: tl.constexpr = S << (K - R)
    LANE_WISE: tl.constexpr = SAMPLED and S > 1
    i = tl.arange(0, LANES)
    t = i // S
    first = tl.program_id(0) * S
    sample = first + (i & (S - 1))
    live = sample < batch
    row_x = sample.to(tl.int64) * stride
    size = tl.load(ints + SCRATCH)
    if SAMPLED:
        prepare(
            ints, floats, theta, x, scratch, first, batch, stride, given, n_weights, i, monomials,
            degree, S, LANES, FACTORS,
        )  # fmt: skip
    else:
        prepare(
            ints, floats, theta, x, scratch, tl.program_id(0), batch, stride, given, n_weights, i,
            monomials, degree, 1, LANES, FACTORS,
        )  # fmt: skip
    if LANE_WISE:
        row = scratch + sample.to(tl.int64) * size
    else:
        row = scratch + tl.program_id(0).to(tl.int64) * size
    start = start_state(x, stride, first, batch, given, TINY, S, K, R, AMPLITUDES, out.dtype.element_ty)
    im = spread(unused_slots(ints, theta, x, row_x + given, n_weights, live, t, start.dtype), R)
    re = start + im
    record = tl.load(ints + ROUNDS)
    at = row + 2 * tl.load(ints + ANGLES)
    index = indices(ints, record + 2, i, S, K, R)
    for _ in range(tl.load(ints + N_ROUNDS)):
        m = matrices(at, R, FACTORS)  # before the barriers of the exchange
        re, im = exchange(re, im, index)
        index = indices(ints, record + round_size + 2, i, S, K, R)  # of the next round
        re, im = apply_round(re, im, m, ints, record, row, t, R, TERMS, LANE_WISE)
        record += round_size
        at += R * (4 + 3 * FACTORS)
    if KEEP:
        store_state(re, im, state, tl.program_id(0).to(tl.int64) * (LANES << R), tl.arange(0, LANES << R))
    if STRINGS:
        read_strings(
            re, im, ints, floats, values, out, n_outputs, first, batch, i, t, entries, S, K, R, SHIFTED, PLAIN
        )  # fmt: skip
    else:
        probabilities(re, im, ints, out, n_outputs, first, batch, t, S, K, R)


@kernel
def backward(
    ints, floats, theta, x, scratch, state, strings, cotangents, d_angles, d_x, batch, stride, given, n_weights,
    n_inputs, n_outputs, round_size, degree, entries, input_entries,
    TINY: tl.constexpr, S: tl.constexpr, K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr,
    AMPLITUDES: tl.constexpr, SAMPLED: tl.constexpr, TERMS: tl.constexpr, STRINGS: tl.constexpr,
    SHIFTED: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """Gradients of the angles of S samples to `d_angles` (batch, angles), those of features to `d_x`."""
    LANES: tl.constexpr = S << (K - R)
    LANE_WISE: tl.constexpr = SAMPLED and S > 1
    i = tl.arange(0, LANES)
    t = i // S
    first = tl.program_id(0) * S
    sample = first + (i & (S - 1))
    live = sample < batch
    n_angles = tl.load(ints + ANGLES)
    size = tl.load(ints + SCRATCH)
    if LANE_WISE:
        row = scratch + sample.to(tl.int64) * size
    else:
        row = scratch + tl.program_id(0).to(tl.int64) * size
    re, im = load_state(state, tl.program_id(0).to(tl.int64) * (LANES << R), tl.arange(0, LANES << R))
    if STRINGS:
        re, im, lam_re, lam_im = start_lambda_of_strings(
            re, im, ints, floats, strings, cotangents, n_outputs, first, batch, i, t, entries, S, K, R, SHIFTED, PLAIN
        )  # fmt: skip
    else:
        lam_re, lam_im = start_lambda(re, im, ints, cotangents, n_outputs, sample, live, t, K, R)
    n_rounds = tl.load(ints + N_ROUNDS)
    record = tl.load(ints + ROUNDS) + n_rounds * round_size
    at = row + 2 * n_angles + n_rounds * (R * (4 + 3 * FACTORS))
    for _ in range(n_rounds):
        record -= round_size
        at -= R * (4 + 3 * FACTORS)
        m = matrices(at, R, FACTORS)
        e = axes(at, R, FACTORS)
        index = indices(ints, record + 2 + K, i, S, K, R)
        re, im, lam_re, lam_im = undo_round(
            re, im, lam_re, lam_im, m, e, ints, record, row, d_angles, n_angles, first, batch, t,
            S, K, R, FACTORS, TERMS, LANE_WISE,
        )  # fmt: skip
        re, im = exchange(re, im, index)
        lam_re, lam_im = exchange(lam_re, lam_im, index)
    if AMPLITUDES:
        pull_features(lam_re, x, d_x, stride, first, batch, given, TINY, S, K, R)
    if n_inputs > 0:
        tl.debug_barrier()
        pull_inputs(
            ints, floats, theta, x, d_angles, d_x, first, batch, stride, given, n_weights, n_inputs, i,
            input_entries, degree, S, LANES,
        )  # fmt: skip


@kernel
def reduce_weights(
    ints, floats, theta, x, d_angles, d_theta, batch, stride, given, n_weights, entries, degree,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of weights: those of the angles summed over the batch, in a fixed order and in float64."""
    n_angles = tl.load(ints + ANGLES)
    table = tl.load(ints + WEIGHTS)
    coefficients = tl.load(ints + table)
    weight = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float64)
    for begin in range(0, batch, ROWS):
        sample = begin + tl.arange(0, ROWS)[:, None]
        live = (sample < batch) & (weight < n_weights)
        row = sample.to(tl.int64) * stride + given
        for e in range(entries):
            entry = weight * entries + e
            at = ints + table + 1 + entry * degree
            c = tl.load(floats + coefficients + entry, mask=weight < n_weights, other=0.0)
            used = live & (c != 0.0)
            a = tl.load(at, mask=used, other=0)
            term = tl.load(d_angles + sample.to(tl.int64) * n_angles + a, mask=used, other=0.0) * c
            for d in range(1, degree):
                slot = tl.load(at + d, mask=used, other=-1)
                term *= slot_value(slot, theta, x, row, n_weights, used)
            total += term.to(tl.float64)
    weight = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    tl.store(d_theta + weight, tl.sum(total, axis=0), mask=weight < n_weights)
