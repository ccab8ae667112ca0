"""The kernels of circuits that fit one program: forward, backward, and the sum over the batch."""

from __future__ import annotations

import triton
import triton.language as tl

from .angles import ANGLES, SCRATCH, prepare, pull_inputs, slot_value
from .registers import (
    add_signed,
    contract,
    exchange,
    indices,
    max_over_sample,
    over_sample,
    parity_sign,
    phase,
    rotate,
    signed_sum,
    sum_samples,
)
from .tables import HEADER

__all__ = ["backward", "forward", "reduce_weights"]

ROUNDS = tl.constexpr(HEADER.index("rounds"))
N_ROUNDS = tl.constexpr(HEADER.index("n_rounds"))
DIAGONAL = tl.constexpr(HEADER.index("diagonal"))
N_DIAGONAL = tl.constexpr(HEADER.index("n_diagonal"))
SHIFTS = tl.constexpr(HEADER.index("shifts"))
N_SHIFTS = tl.constexpr(HEADER.index("n_shifts"))
BACK = tl.constexpr(HEADER.index("back"))
CLASSES = tl.constexpr(HEADER.index("classes"))
LABEL = tl.constexpr(HEADER.index("label"))
N_STRINGS = tl.constexpr(HEADER.index("n_strings"))
OUTPUTS = tl.constexpr(HEADER.index("outputs"))
STRINGS = tl.constexpr(HEADER.index("strings"))
WEIGHTS = tl.constexpr(HEADER.index("weights"))
UNUSED = tl.constexpr(HEADER.index("unused"))
N_UNUSED = tl.constexpr(HEADER.index("n_unused"))


@triton.jit
def _apply_phases(re, im, ints, row, term, count, t, sign, R: tl.constexpr):
    for k in range(count):
        record = ints + term + 4 * k
        a = tl.load(record + 2)
        c = tl.load(row + 2 * a)
        s = tl.load(row + 2 * a + 1) * parity_sign(t & tl.load(record)) * sign
        re, im = phase(re, im, c, s, tl.load(record + 1), R)
    return re, im


@triton.jit
def _rotations(re, im, ints, record, m, sign, K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr):
    """All rotations of a round, or with sign -1 their inverses."""
    for j in tl.static_range(R):
        at = m + tl.load(ints + record + 4 + 2 * K + j) * (4 + 3 * FACTORS)
        ar = tl.load(at)
        re, im = rotate(re, im, ar, tl.load(at + 1) * sign, tl.load(at + 2) * sign, tl.load(at + 3) * sign, j, R)
    return re, im


@triton.jit
def _features(x, row, position, live, given, K: tl.constexpr, R: tl.constexpr):
    """Amplitude features in the natural layout: register bits are the highest."""
    out = ()
    for r in tl.static_range(1 << R):
        p = position | (r << (K - R))
        out = out + (tl.load(x + row + p, mask=live & (p < given), other=0.0),)
    return out


@triton.jit
def _scales(values, TINY, S: tl.constexpr, R: tl.constexpr):
    """Of each sample: its largest magnitude (1 where subnormal), one over the norm after dividing by it, is it zero."""
    top = tl.zeros_like(values[0])
    for r in tl.static_range(1 << R):
        top = tl.maximum(top, tl.abs(values[r]))
    top = max_over_sample(top, S)
    scale = tl.where(top < TINY, 1.0, top)
    square = tl.zeros_like(scale)
    for r in tl.static_range(1 << R):
        y = values[r] / scale
        square += y * y
    square = over_sample(square, S)
    zero = (top < TINY) & (square < 1.0)  # not where a feature is NaN
    return scale, tl.where(zero, 0.0, 1.0 / tl.sqrt(tl.where(zero, 1.0, square))), zero


@triton.jit
def _start(
    x, row, t, live, given, TINY, S: tl.constexpr, K: tl.constexpr, R: tl.constexpr, START: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """The real plane of the start state: |0…0⟩ (START 0), or features to unit length (1)."""
    if START == 0:
        out = (tl.where(t == 0, 1.0, 0.0).to(DTYPE),)
        for _ in tl.static_range(1, 1 << R):
            out = out + (tl.zeros_like(out[0]),)
    else:
        out = _features(x, row, t, live, given, K, R)
        scale, inverse, zero = _scales(out, TINY, S, R)
        unit = (tl.where(zero & (t == 0), 1.0, out[0] / scale * inverse),)
        for r in tl.static_range(1, 1 << R):
            unit = unit + (out[r] / scale * inverse,)
        out = unit
    return out


@triton.jit
def _probabilities(re, im, R: tl.constexpr):
    out = ()
    for r in tl.static_range(1 << R):
        out = out + (re[r] * re[r] + im[r] * im[r],)
    return out


@triton.jit
def _neighbours(re, im, ODD: tl.constexpr, R: tl.constexpr):
    """conj(ψ_p) ψ_(p ^ x) for x along the first register bit: its real part, or its imaginary part."""
    out = ()
    for r in tl.static_range(1 << R):
        if ODD:
            out = out + (re[r] * im[r ^ 1] - im[r] * re[r ^ 1],)
        else:
            out = out + (re[r] * re[r ^ 1] + im[r] * im[r ^ 1],)
    return out


@triton.jit
def _store_sums(
    values, ints, terms, count, target, width, first, batch, t, S: tl.constexpr, R: tl.constexpr
):  # fmt: skip
    """Signed sums of `values` for `count` strings, to their columns of `target` (batch, width)."""
    sample = first + tl.arange(0, S)[:, None]
    eight = tl.arange(0, 8)[None, :]
    for begin in range(0, count, 8):
        sums = ()
        for k in tl.static_range(8):
            record = ints + terms + 4 * (begin + k)
            sign = parity_sign(t & tl.load(record))
            sums = sums + (signed_sum(values, tl.load(record + 1), R) * sign,)
        total = sum_samples(sums, S)
        record = ints + terms + 4 * (begin + eight)
        factor = tl.load(record + 3)
        wanted = (begin + eight < count) & (factor != 0) & (sample < batch)
        tl.store(target + sample.to(tl.int64) * width + tl.load(record + 2), total * factor.to(tl.float32), mask=wanted)


@triton.jit
def _store_contractions(
    re, im, lam_re, lam_im, ints, record, m, d_angles, n_angles, first, batch,
    S: tl.constexpr, K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr,
):  # fmt: skip
    """Gradients of the angles of a round's rotations."""
    sums = ()
    for j in tl.static_range(R):
        x, y, z = contract(re, im, lam_re, lam_im, j, R)
        at = m + tl.load(ints + record + 4 + 2 * K + j) * (4 + 3 * FACTORS)
        for f in tl.static_range(FACTORS):
            sums = sums + (x * tl.load(at + 4 + 3 * f) + y * tl.load(at + 5 + 3 * f) + z * tl.load(at + 6 + 3 * f),)
    for _ in tl.static_range((8 - R * FACTORS % 8) % 8):
        sums = sums + (tl.zeros_like(re[0]),)
    sample = first + tl.arange(0, S)[:, None]
    eight = tl.arange(0, 8)[None, :]
    for part in tl.static_range((R * FACTORS + 7) // 8):
        mine = ()
        for k in tl.static_range(8):
            mine = mine + (sums[8 * part + k],)
        total = sum_samples(mine, S)
        column = tl.load(ints + record + 4 + 2 * K + R + 8 * part + eight)
        tl.store(d_angles + sample.to(tl.int64) * n_angles + column, total, mask=(column >= 0) & (sample < batch))


@triton.jit
def _weights_of(
    ints, terms, count, source, row, t, zero, R: tl.constexpr
):  # fmt: skip
    """Σ weight · sign over strings, for each register; the weight of string k is at `source + row + k`."""
    out = (zero,)
    for _ in tl.static_range(1, 1 << R):
        out = out + (zero,)
    for k in range(count):
        record = ints + terms + 4 * k
        weight = tl.load(source + row + tl.load(record + 2)) * tl.load(record + 3).to(tl.float32)
        out = add_signed(out, weight * parity_sign(t & tl.load(record)), tl.load(record + 1), R)
    return out


@triton.jit
def _label(ints, words, t, r: tl.constexpr, K: tl.constexpr, R: tl.constexpr):
    label = t * 0
    for bit in tl.static_range(K - R):
        label ^= ((t >> bit) & 1) * tl.load(ints + words + R + bit)
    for bit in tl.static_range(R):
        if (r >> bit) & 1:
            label ^= tl.load(ints + words + bit)
    return label


@triton.jit
def _rows_times(
    ints, floats, table, source, target, width_in, width_out, first, batch, i,
    ROWS: tl.constexpr, LANES: tl.constexpr, ENTRIES: tl.constexpr,
):  # fmt: skip
    """Rows of `source` times a sparse matrix."""
    coefficients = tl.load(ints + table)
    for begin in range(0, ROWS * width_out, LANES):
        k = begin + i
        sample = first + k // width_out
        live = (k < ROWS * width_out) & (sample < batch)
        column = k % width_out
        total = tl.zeros_like(tl.load(floats + column * 0))
        for e in range(ENTRIES):
            entry = column * ENTRIES + e
            c = tl.load(floats + coefficients + entry, mask=live, other=0.0)
            at = tl.load(ints + table + 1 + entry, mask=live, other=0)
            value = tl.load(source + sample.to(tl.int64) * width_in + at, mask=live, other=0.0)
            total += tl.where(c == 0.0, 0.0, c * value)
        tl.store(target + sample.to(tl.int64) * width_out + column, total, mask=live)


@triton.jit(
    do_not_specialize=["batch", "stride", "given", "n_weights", "n_outputs"],
    do_not_specialize_on_alignment=["ints", "floats", "theta", "x", "scratch", "state", "values", "out"],
)
def forward(
    ints, floats, theta, x, scratch, state, values, out, batch, stride, given, n_weights, n_outputs,
    TINY: tl.constexpr, S: tl.constexpr, K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr,
    MONOMIALS: tl.constexpr, DEGREE: tl.constexpr, ROUND: tl.constexpr, START: tl.constexpr, SAMPLED: tl.constexpr,
    TERMS: tl.constexpr, STRINGS_READ: tl.constexpr, SHIFTED: tl.constexpr, PLAIN: tl.constexpr,
    ENTRIES: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Outputs (batch, n_outputs) of S samples; with KEEP, their final states to `state`."""
    LANES: tl.constexpr = S << (K - R)
    i = tl.arange(0, LANES)
    t = i & ((1 << (K - R)) - 1)
    first = tl.program_id(0) * S
    sample = first + (i >> (K - R))
    live = sample < batch
    row_x = sample.to(tl.int64) * stride
    if SAMPLED:
        prepare(ints, floats, theta, x, scratch, first, batch, stride, given, n_weights, i, S, LANES, FACTORS,
                MONOMIALS, DEGREE)  # fmt: skip
    else:
        prepare(ints, floats, theta, x, scratch, tl.program_id(0), batch, stride, given, n_weights, i, 1, LANES,
                FACTORS, MONOMIALS, DEGREE)  # fmt: skip
    if SAMPLED and S > 1:
        row = scratch + sample.to(tl.int64) * tl.load(ints + SCRATCH)
    else:
        row = scratch + tl.program_id(0).to(tl.int64) * tl.load(ints + SCRATCH)
    matrices = 2 * tl.load(ints + ANGLES)
    start = _start(x, row_x, t, live, given, TINY, S, K, R, START, out.dtype.element_ty)
    # Slots that no angle has in it: 0, or NaN where one is not finite.
    spoiled = tl.zeros_like(start[0])
    unused = tl.load(ints + UNUSED)
    for number in range(tl.load(ints + N_UNUSED)):
        spoiled += 0.0 * slot_value(tl.load(ints + unused + number) + 0 * t, theta, x, row_x + given, n_weights, live)
    re = ()
    im = ()
    for r in tl.static_range(1 << R):
        re = re + (start[r] + spoiled,)
        im = im + (spoiled,)
    record = tl.load(ints + ROUNDS)
    for _ in range(tl.load(ints + N_ROUNDS)):
        if tl.load(ints + record + 3) != 0:
            re, im = exchange(re, im, indices(ints, record + 4, i, K, R), R)
        if TERMS:
            count = tl.load(ints + record + 2)
            if count > 0:
                re, im = _apply_phases(re, im, ints, row, tl.load(ints + record + 1), count, t, 1.0, R)
            else:
                re, im = _rotations(re, im, ints, record, row + matrices, 1.0, K, R, FACTORS)
        else:
            re, im = _rotations(re, im, ints, record, row + matrices, 1.0, K, R, FACTORS)
        record += ROUND
    if KEEP:
        at = state + (sample.to(tl.int64) << (K + 1)) + t
        for r in tl.static_range(1 << R):
            tl.store(at + (2 * r << (K - R)), re[r], mask=live)
            tl.store(at + ((2 * r + 1) << (K - R)), im[r], mask=live)
    if STRINGS_READ:
        target = values
        width = tl.load(ints + N_STRINGS)
        if PLAIN:
            target = out
        probabilities = _probabilities(re, im, R)
        _store_sums(
            probabilities,
            ints,
            tl.load(ints + DIAGONAL),
            tl.load(ints + N_DIAGONAL),
            target,
            width,
            first,
            batch,
            t,
            S,
            R,
        )
        if SHIFTED:
            record = tl.load(ints + SHIFTS)
            for _ in range(tl.load(ints + N_SHIFTS)):
                re, im = exchange(re, im, indices(ints, record, i, K, R), R)
                even = _neighbours(re, im, False, R)
                _store_sums(
                    even,
                    ints,
                    tl.load(ints + record + K),
                    tl.load(ints + record + K + 1),
                    target,
                    width,
                    first,
                    batch,
                    t,
                    S,
                    R,
                )
                odd = _neighbours(re, im, True, R)
                _store_sums(
                    odd,
                    ints,
                    tl.load(ints + record + K + 2),
                    tl.load(ints + record + K + 3),
                    target,
                    width,
                    first,
                    batch,
                    t,
                    S,
                    R,
                )
                record += K + 4
        if not PLAIN:
            tl.debug_barrier()
            _rows_times(
                ints, floats, tl.load(ints + OUTPUTS), values, out, width, n_outputs, first, batch, i, S, LANES, ENTRIES
            )
    else:
        probabilities = _probabilities(re, im, R)
        words = tl.load(ints + LABEL)
        rows = first + tl.arange(0, S)[:, None]
        eight = tl.arange(0, 8)[None, :]
        for begin in range(0, n_outputs, 8):
            sums = ()
            for k in tl.static_range(8):
                total = tl.zeros_like(re[0])
                for r in tl.static_range(1 << R):
                    mine = _label(ints, words, t, r, K, R) % n_outputs == begin + k
                    total += tl.where(mine, probabilities[r], 0.0)
                sums = sums + (total,)
            total = sum_samples(sums, S)
            tl.store(
                out + rows.to(tl.int64) * n_outputs + begin + eight,
                total,
                mask=(rows < batch) & (begin + eight < n_outputs),
            )


@triton.jit(
    do_not_specialize=["batch", "stride", "given", "n_weights", "n_inputs", "n_outputs"],
    do_not_specialize_on_alignment=[
        "ints",
        "floats",
        "theta",
        "x",
        "scratch",
        "state",
        "strings",
        "cotangents",
        "d_angles",
        "d_x",
    ],
)
def backward(
    ints, floats, theta, x, scratch, state, strings, cotangents, d_angles, d_x,
    batch, stride, given, n_weights, n_inputs, n_outputs,
    TINY: tl.constexpr, S: tl.constexpr, K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr,
    DEGREE: tl.constexpr, ROUND: tl.constexpr, START: tl.constexpr, SAMPLED: tl.constexpr, TERMS: tl.constexpr,
    STRINGS_READ: tl.constexpr, SHIFTED: tl.constexpr, PLAIN: tl.constexpr, ENTRIES: tl.constexpr,
    INPUT_ENTRIES: tl.constexpr,
):  # fmt: skip
    """Gradients of the angles of S samples to `d_angles` (batch, angles), those of features to `d_x`."""
    LANES: tl.constexpr = S << (K - R)
    i = tl.arange(0, LANES)
    t = i & ((1 << (K - R)) - 1)
    first = tl.program_id(0) * S
    sample = first + (i >> (K - R))
    live = sample < batch
    row_x = sample.to(tl.int64) * stride
    n_angles = tl.load(ints + ANGLES)
    if SAMPLED and S > 1:
        row = scratch + sample.to(tl.int64) * tl.load(ints + SCRATCH)
    else:
        row = scratch + tl.program_id(0).to(tl.int64) * tl.load(ints + SCRATCH)
    at = state + (sample.to(tl.int64) << (K + 1)) + t
    re = ()
    im = ()
    for r in tl.static_range(1 << R):
        re = re + (tl.load(at + (2 * r << (K - R)), mask=live, other=0.0),)
        im = im + (tl.load(at + ((2 * r + 1) << (K - R)), mask=live, other=0.0),)
    zero = tl.zeros_like(re[0])
    lam_re = ()
    lam_im = ()
    if STRINGS_READ:
        width = tl.load(ints + N_STRINGS)
        source = cotangents
        if not PLAIN:
            source = strings
            _rows_times(
                ints,
                floats,
                tl.load(ints + STRINGS),
                cotangents,
                strings,
                n_outputs,
                width,
                first,
                batch,
                i,
                S,
                LANES,
                ENTRIES,
            )
            tl.debug_barrier()
        if S == 1:
            row_g = first.to(tl.int64) * width
        else:
            row_g = tl.minimum(sample, batch - 1).to(tl.int64) * width
        weights = _weights_of(ints, tl.load(ints + DIAGONAL), tl.load(ints + N_DIAGONAL), source, row_g, t, zero, R)
        for r in tl.static_range(1 << R):
            lam_re = lam_re + (weights[r] * re[r],)
            lam_im = lam_im + (weights[r] * im[r],)
        if SHIFTED:
            record = tl.load(ints + SHIFTS)
            for _ in range(tl.load(ints + N_SHIFTS)):
                index = indices(ints, record, i, K, R)
                re, im = exchange(re, im, index, R)
                lam_re, lam_im = exchange(lam_re, lam_im, index, R)
                even = _weights_of(
                    ints, tl.load(ints + record + K), tl.load(ints + record + K + 1), source, row_g, t, zero, R
                )
                odd = _weights_of(
                    ints, tl.load(ints + record + K + 2), tl.load(ints + record + K + 3), source, row_g, t, zero, R
                )
                sum_re = ()
                sum_im = ()
                for r in tl.static_range(1 << R):
                    sum_re = sum_re + (lam_re[r] + even[r] * re[r ^ 1] + odd[r] * im[r ^ 1],)
                    sum_im = sum_im + (lam_im[r] + even[r] * im[r ^ 1] - odd[r] * re[r ^ 1],)
                lam_re = sum_re
                lam_im = sum_im
                record += K + 4
            index = indices(ints, tl.load(ints + BACK), i, K, R)
            re, im = exchange(re, im, index, R)
            lam_re, lam_im = exchange(lam_re, lam_im, index, R)
    else:
        words = tl.load(ints + LABEL)
        for r in tl.static_range(1 << R):
            column = _label(ints, words, t, r, K, R) % n_outputs
            weight = tl.load(cotangents + sample.to(tl.int64) * n_outputs + column, mask=live, other=0.0)
            lam_re = lam_re + (weight * re[r],)
            lam_im = lam_im + (weight * im[r],)
    n_rounds = tl.load(ints + N_ROUNDS)
    record = tl.load(ints + ROUNDS) + n_rounds * ROUND
    matrices = row + 2 * n_angles
    for _ in range(n_rounds):
        record -= ROUND
        if TERMS:
            count = tl.load(ints + record + 2)
            if count > 0:
                term = tl.load(ints + record + 1)
                slopes = ()
                for r in tl.static_range(1 << R):
                    slopes = slopes + (lam_re[r] * im[r] - lam_im[r] * re[r],)
                _store_sums(slopes, ints, term, count, d_angles, n_angles, first, batch, t, S, R)
                re, im = _apply_phases(re, im, ints, row, term, count, t, -1.0, R)
                lam_re, lam_im = _apply_phases(lam_re, lam_im, ints, row, term, count, t, -1.0, R)
            else:
                _store_contractions(
                    re, im, lam_re, lam_im, ints, record, matrices, d_angles, n_angles, first, batch, S, K, R, FACTORS
                )
                re, im = _rotations(re, im, ints, record, matrices, -1.0, K, R, FACTORS)
                lam_re, lam_im = _rotations(lam_re, lam_im, ints, record, matrices, -1.0, K, R, FACTORS)
        else:
            _store_contractions(
                re, im, lam_re, lam_im, ints, record, matrices, d_angles, n_angles, first, batch, S, K, R, FACTORS
            )
            re, im = _rotations(re, im, ints, record, matrices, -1.0, K, R, FACTORS)
            lam_re, lam_im = _rotations(lam_re, lam_im, ints, record, matrices, -1.0, K, R, FACTORS)
        if tl.load(ints + record + 3) != 0:
            index = indices(ints, record + 4 + K, i, K, R)
            re, im = exchange(re, im, index, R)
            lam_re, lam_im = exchange(lam_re, lam_im, index, R)
    if START != 0:
        raw = _features(x, row_x, t, live, given, K, R)
        scale, inverse, is_zero = _scales(raw, TINY, S, R)
        inner = zero
        for r in tl.static_range(1 << R):
            inner += raw[r] / scale * inverse * lam_re[r]
        inner = over_sample(inner, S)
        for r in tl.static_range(1 << R):
            p = t | (r << (K - R))
            across = lam_re[r] - inner * (raw[r] / scale * inverse)
            gradient = tl.where(is_zero, 0.0, 2.0 * across * inverse / scale)
            tl.store(d_x + row_x + p, gradient, mask=live & (p < given))
    if n_inputs > 0:
        tl.debug_barrier()
        pull_inputs(ints, floats, theta, x, d_angles, d_x, first, batch, stride, given, n_weights, n_inputs, i, S,
                    LANES, INPUT_ENTRIES, DEGREE)  # fmt: skip


@triton.jit(
    do_not_specialize=["batch", "stride", "given", "n_weights"],
    do_not_specialize_on_alignment=["ints", "floats", "theta", "x", "d_angles", "d_theta"],
)
def reduce_weights(
    ints, floats, theta, x, d_angles, d_theta, batch, stride, given, n_weights,
    ENTRIES: tl.constexpr, DEGREE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
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
        for e in range(ENTRIES):
            entry = weight * ENTRIES + e
            at = ints + table + 1 + entry * DEGREE
            c = tl.load(floats + coefficients + entry, mask=weight < n_weights, other=0.0)
            used = live & (c != 0.0)
            a = tl.load(at, mask=used, other=0)
            term = tl.load(d_angles + sample.to(tl.int64) * n_angles + a, mask=used, other=0.0) * c
            for d in range(1, DEGREE):
                slot = tl.load(at + d, mask=used, other=-1)
                term *= slot_value(slot, theta, x, row, n_weights, used)
            total += term.to(tl.float64)
    weight = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    tl.store(d_theta + weight, tl.sum(total, axis=0), mask=weight < n_weights)
