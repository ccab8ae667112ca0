"""The kernels of circuits in passes over memory: a program of a pass holds one coset of one sample."""

from __future__ import annotations

import triton
import triton.language as tl

from .angles import ANGLES, SCRATCH, prepare, pull_inputs, unused_slots
from .evolve import axes, coset_signs, matrices, signed_axes, signed_matrices
from .kernels import kernel
from .measure import DIAGONAL, N_DIAGONAL, N_STRINGS, store_sums, string_weights
from .registers import exchange, indices, spread
from .rounds import apply_round, undo_round
from .start import load_state, norm_part, start_coset, store_state

__all__ = ["angles", "input_gradients", "norms_of", "parts_of_norms", "pass_backward", "pass_forward", "sum_programs"]

# A pass's record: where its rounds are, how many, and the number of the first; then K words each of the exchange before
# it stores, of that before it stores in reverse, and of the amplitudes where it loads and where it stores.
WORDS = tl.constexpr(3)


@triton.jit
def _amplitudes(ints, words, outside, coset, i, N: tl.constexpr, K: tl.constexpr, R: tl.constexpr):
    """Of every register: which amplitude it holds in a layout."""
    first = coset * 0
    for bit in tl.static_range(N - K):
        first ^= ((coset >> bit) & 1) * tl.load(ints + outside + bit)
    return indices(ints, words, i, 1, K, R) ^ first


@triton.jit
def _apply(
    re, im, ints, record, at, row, coset, t, round_size, R: tl.constexpr, FACTORS: tl.constexpr, TERMS: tl.constexpr
):  # fmt: skip
    """`apply_round` in a coset."""
    signs = coset_signs(ints, record + round_size - R, coset, R)
    m = signed_matrices(matrices(at, R, FACTORS), signs, R)
    return apply_round(re, im, m, ints, record, row, t, R, TERMS, False)


@triton.jit
def _undo(
    re, im, lam_re, lam_im, ints, record, at, row, d_angles, n_angles, program, coset, t, round_size,
    K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """`undo_round` in a coset."""
    signs = coset_signs(ints, record + round_size - R, coset, R)
    m = signed_matrices(matrices(at, R, FACTORS), signs, R)
    e = signed_axes(axes(at, R, FACTORS), signs, R, FACTORS)
    return undo_round(
        re, im, lam_re, lam_im, m, e, ints, record, row, d_angles, n_angles, program, tl.num_programs(0), t,
        1, K, R, FACTORS, TERMS, False,
    )  # fmt: skip


@kernel
def angles(
    ints, floats, theta, x, scratch, batch, stride, given, n_weights, monomials, degree,
    LANES: tl.constexpr, FACTORS: tl.constexpr,
):  # fmt: skip
    """One row of scratch a program."""
    i = tl.arange(0, LANES)
    prepare(
        ints, floats, theta, x, scratch, tl.program_id(0), batch, stride, given, n_weights, i, monomials, degree,
        1, LANES, FACTORS,
    )  # fmt: skip


@kernel
def parts_of_norms(x, parts, stride, given, TINY: tl.constexpr, CHUNKS: tl.constexpr, SIZE: tl.constexpr):
    """Of every chunk of every row: `norm_part`, to `parts` (batch, chunks, 2)."""
    number = tl.program_id(0)
    at = parts + 2 * number.to(tl.int64)
    row = (number // CHUNKS).to(tl.int64) * stride
    norm_part(x, at, at + 1, row, number % CHUNKS, given, TINY, SIZE)


@kernel
def norms_of(parts, norms, TINY: tl.constexpr, CHUNKS: tl.constexpr, SIZE: tl.constexpr):
    """Of every row: its largest feature (1 for zeros), and one over its length on that scale (0 for zeros)."""
    at = parts + tl.program_id(0).to(tl.int64) * (2 * CHUNKS) + 2 * tl.arange(0, SIZE)
    top = tl.zeros((SIZE,), tl.float64)
    for begin in tl.range(0, CHUNKS, SIZE):
        top = tl.maximum(top, tl.load(at + 2 * begin, mask=begin + tl.arange(0, SIZE) < CHUNKS, other=0.0))
    largest = tl.max(top, axis=0)
    scale = tl.where(largest < TINY, 1.0, largest)
    total = tl.zeros((SIZE,), tl.float64)
    for begin in tl.range(0, CHUNKS, SIZE):
        live = begin + tl.arange(0, SIZE) < CHUNKS
        part = tl.load(at + 2 * begin, mask=live, other=0.0).to(tl.float64)
        square = tl.load(at + 2 * begin + 1, mask=live, other=0.0).to(tl.float64)
        # A chunk of zeros has no square; one of NaN has no largest either, where the maximum passes over NaN.
        ratio = tl.where(part < TINY, 1.0, part / scale)
        total += square * ratio * ratio
    square = tl.sum(total, axis=0)
    zero = (largest < TINY) & (square < 1.0)  # not where a feature is NaN
    out = norms + 2 * tl.program_id(0)
    tl.store(out, scale)
    tl.store(out + 1, tl.where(zero, 0.0, 1.0 / tl.sqrt(tl.where(zero, 1.0, square))))


@kernel
def pass_forward(
    ints, floats, theta, x, norms, scratch, source, target, strings, record, stride, given, n_weights, round_size,
    TINY: tl.constexpr, N: tl.constexpr, K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr,
    AMPLITUDES: tl.constexpr,
    SAMPLED: tl.constexpr, TERMS: tl.constexpr, ENTERS: tl.constexpr, LEAVES: tl.constexpr,
    FIRST: tl.constexpr, READ: tl.constexpr, KEEP: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """One coset: from `source`, or where the circuit starts (FIRST), to `target` (KEEP).

    With READ, sums for strings go to the program's row of `strings`.
    """
    i = tl.arange(0, 1 << (K - R))
    program = tl.program_id(0)
    sample = program >> (N - K)
    coset = program & ((1 << (N - K)) - 1)
    t = i | (coset << (K - R))
    row = scratch
    if SAMPLED:
        row = scratch + sample.to(tl.int64) * tl.load(ints + SCRATCH)
    words = record + WORDS
    outside = words + 4 * K
    place = _amplitudes(ints, words + 2 * K, outside, coset, i, N, K, R)
    state = sample.to(tl.int64) << N
    if FIRST:
        row_x = sample.to(tl.int64) * stride
        im = spread(unused_slots(ints, theta, x, row_x + given, n_weights, i >= 0, i, DTYPE), R)
        re = start_coset(x, norms, row_x, sample, given, place, TINY, AMPLITUDES, DTYPE) + im
    else:
        re, im = load_state(source, state, place)
    round_ = tl.load(ints + record)
    n_rounds = tl.load(ints + record + 1)
    at = row + 2 * tl.load(ints + ANGLES) + tl.load(ints + record + 2) * (R * (4 + 3 * FACTORS))
    if not ENTERS:
        re, im = _apply(re, im, ints, round_, at, row, coset, t, round_size, R, FACTORS, TERMS)
        round_ += round_size
        at += R * (4 + 3 * FACTORS)
        n_rounds -= 1
    for _ in range(n_rounds):
        re, im = exchange(re, im, indices(ints, round_ + 2, i, 1, K, R))
        re, im = _apply(re, im, ints, round_, at, row, coset, t, round_size, R, FACTORS, TERMS)
        round_ += round_size
        at += R * (4 + 3 * FACTORS)
    if READ:
        square = re * re + im * im
        store_sums(
            square, square, ints, tl.load(ints + DIAGONAL), tl.load(ints + N_DIAGONAL), strings,
            tl.load(ints + N_STRINGS), program, tl.num_programs(0), t, False, 1, R,
        )  # fmt: skip
    if KEEP:
        if LEAVES:
            re, im = exchange(re, im, indices(ints, words, i, 1, K, R))
        store_state(re, im, target, state, _amplitudes(ints, words + 3 * K, outside, coset, i, N, K, R))


@kernel
def pass_backward(
    ints, floats, norms, scratch, source, lam_source, target, lam_target, strings, inner, d_angles, d_x, record,
    stride, given, round_size,
    N: tl.constexpr, K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr, AMPLITUDES: tl.constexpr,
    SAMPLED: tl.constexpr, TERMS: tl.constexpr, ENTERS: tl.constexpr, LEAVES: tl.constexpr, FIRST: tl.constexpr,
    READ: tl.constexpr,
):  # fmt: skip
    """One coset in reverse: ψ and λ from `source` and `lam_source` to `target` and `lam_target`.

    With READ, λ is made from ψ and the cotangents of strings, rows of `strings`. Where the circuit starts (FIRST)
    gradients of features are stored, with `inner` = Re⟨ψ|λ⟩ of each row. Gradients of the pass's angles go to the
    program's row of `d_angles`.
    """
    i = tl.arange(0, 1 << (K - R))
    program = tl.program_id(0)
    sample = program >> (N - K)
    coset = program & ((1 << (N - K)) - 1)
    t = i | (coset << (K - R))
    row = scratch
    if SAMPLED:
        row = scratch + sample.to(tl.int64) * tl.load(ints + SCRATCH)
    words = record + WORDS
    outside = words + 4 * K
    n_angles = tl.load(ints + ANGLES)
    n_rounds = tl.load(ints + record + 1)
    state = sample.to(tl.int64) << N
    place = _amplitudes(ints, words + 3 * K, outside, coset, i, N, K, R)
    re, im = load_state(source, state, place)
    round_ = tl.load(ints + record) + n_rounds * round_size
    at = row + 2 * n_angles + (tl.load(ints + record + 2) + n_rounds) * (R * (4 + 3 * FACTORS))
    if READ:
        if LEAVES:
            re, im = exchange(re, im, indices(ints, round_ - round_size + 2 + K, i, 1, K, R))
        weights = string_weights(
            ints, tl.load(ints + DIAGONAL), tl.load(ints + N_DIAGONAL), strings,
            sample.to(tl.int64) * tl.load(ints + N_STRINGS), t, tl.zeros_like(re), 3, R,
        )  # fmt: skip
        lam_re = weights * re
        lam_im = weights * im
    else:
        lam_re, lam_im = load_state(lam_source, state, place)
    if READ or not LEAVES:
        round_ -= round_size
        at -= R * (4 + 3 * FACTORS)
        n_rounds -= 1
        re, im, lam_re, lam_im = _undo(
            re, im, lam_re, lam_im, ints, round_, at, row, d_angles, n_angles, program, coset, t, round_size,
            K, R, FACTORS, TERMS,
        )  # fmt: skip
    for _ in range(n_rounds):
        round_ -= round_size
        at -= R * (4 + 3 * FACTORS)
        index = indices(ints, round_ + 2 + K, i, 1, K, R)
        re, im = exchange(re, im, index)
        lam_re, lam_im = exchange(lam_re, lam_im, index)
        re, im, lam_re, lam_im = _undo(
            re, im, lam_re, lam_im, ints, round_, at, row, d_angles, n_angles, program, coset, t, round_size,
            K, R, FACTORS, TERMS,
        )  # fmt: skip
    if ENTERS:
        index = indices(ints, words + K, i, 1, K, R)
        re, im = exchange(re, im, index)
        lam_re, lam_im = exchange(lam_re, lam_im, index)
    if FIRST:
        if AMPLITUDES:
            place = _amplitudes(ints, words + 2 * K, outside, coset, i, N, K, R)
            factor = 2.0 * tl.load(norms + 2 * sample + 1) / tl.load(norms + 2 * sample)
            gradient = (lam_re - tl.load(inner + sample) * re) * factor
            tl.store(d_x + sample.to(tl.int64) * stride + place, gradient, mask=place < given)
    else:
        place = _amplitudes(ints, words + 2 * K, outside, coset, i, N, K, R)
        store_state(re, im, target, state, place)
        store_state(lam_re, lam_im, lam_target, state, place)


@kernel
def sum_programs(parts, out, programs, n_outputs, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows (batch · programs, n_outputs) summed over each sample's programs, in a fixed order and in float64."""
    blocks = (n_outputs + COLUMNS - 1) // COLUMNS
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    column = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float64)
    for begin in range(0, programs, ROWS):
        number = begin + tl.arange(0, ROWS)[:, None]
        at = parts + (sample * programs + number) * n_outputs + column[None, :]
        total += tl.load(at, mask=(number < programs) & (column[None, :] < n_outputs), other=0.0).to(tl.float64)
    tl.store(out + sample * n_outputs + column, tl.sum(total, axis=0), mask=column < n_outputs)


@kernel
def input_gradients(
    ints, floats, theta, x, d_angles, d_x, batch, stride, given, n_weights, n_inputs, input_entries, degree,
    LANES: tl.constexpr,
):  # fmt: skip
    """Gradients of the inputs in angles, of one sample a program."""
    i = tl.arange(0, LANES)
    pull_inputs(
        ints, floats, theta, x, d_angles, d_x, tl.program_id(0), batch, stride, given, n_weights, n_inputs, i,
        input_entries, degree, 1, LANES,
    )  # fmt: skip
