"""Device functions on final states: outputs, and λ = Σ cotangent O ψ, where the reverse sweep starts."""

from __future__ import annotations

import triton
import triton.language as tl

from ..tables import HEADER
from .evolve import FIELDS
from .registers import (
    exchange,
    fold,
    fold_signed,
    from_registers,
    indices,
    join_bit,
    parity_sign,
    split_bit,
    spread_bits,
    spread_signed,
    sum_samples,
    to_registers,
)

__all__ = [
    "DIAGONAL",
    "N_DIAGONAL",
    "N_STRINGS",
    "probabilities",
    "read_strings",
    "start_lambda",
    "start_lambda_of_strings",
    "store_sums",
    "string_weights",
]

DIAGONAL = tl.constexpr(HEADER.index("diagonal"))
N_DIAGONAL = tl.constexpr(HEADER.index("n_diagonal"))
SHIFTS = tl.constexpr(HEADER.index("shifts"))
N_SHIFTS = tl.constexpr(HEADER.index("n_shifts"))
BACK = tl.constexpr(HEADER.index("back"))
LABEL = tl.constexpr(HEADER.index("label"))
N_STRINGS = tl.constexpr(HEADER.index("n_strings"))
OUTPUTS = tl.constexpr(HEADER.index("outputs"))
STRINGS = tl.constexpr(HEADER.index("strings"))


@triton.jit
def _neighbours(re, im, R: tl.constexpr):
    """A state as it stands on the other side of the first register bit."""
    x0, x1 = split_bit(re, 0, R)
    y0, y1 = split_bit(im, 0, R)
    return join_bit(x1, x0, 0, R), join_bit(y1, y0, 0, R)


@triton.jit
def store_sums(
    real, imaginary, ints, terms, count, target, width, first, batch, t, BOTH: tl.constexpr, S: tl.constexpr,
    R: tl.constexpr,
):  # fmt: skip
    """Signed sums for `count` records of terms, to their columns of `target` (batch, width)."""
    sample = first + tl.arange(0, S)[:, None]
    eight = tl.arange(0, 8)[None, :]
    for begin in range(0, count, 8):
        sums = ()
        for k in tl.static_range(8):
            record = ints + terms + FIELDS * (begin + k)
            mask = tl.load(record + 1)
            total = fold_signed(real, mask, R) * tl.load(record + 3).to(tl.float32)
            if BOTH:
                total += fold_signed(imaginary, mask, R) * tl.load(record + 4).to(tl.float32)
            sums = sums + (total * parity_sign(t & tl.load(record)),)
        total = sum_samples(sums, S)
        record = ints + terms + FIELDS * (begin + eight)
        wanted = (tl.load(record + 3) != 0) | (tl.load(record + 4) != 0)
        at = target + sample.to(tl.int64) * width + tl.load(record + 2)
        tl.store(at, total, mask=wanted & (sample < batch))


@triton.jit
def _rows_times(
    ints, floats, table, source, target, width_in, width_out, first, batch, i,
    entries, S: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Rows of `source` times a sparse matrix."""
    coefficients = tl.load(ints + table)
    for begin in range(0, S * width_out, LANES):
        k = begin + i
        sample = first + k // width_out
        live = (k < S * width_out) & (sample < batch)
        column = k % width_out
        total = tl.zeros_like(tl.load(floats + column * 0))
        for e in range(entries):
            entry = column * entries + e
            c = tl.load(floats + coefficients + entry, mask=live, other=0.0)
            at = tl.load(ints + table + 1 + entry, mask=live, other=0)
            value = tl.load(source + sample.to(tl.int64) * width_in + at, mask=live, other=0.0)
            total += tl.where(c == 0.0, 0.0, c * value)
        tl.store(target + sample.to(tl.int64) * width_out + column, total, mask=live)


@triton.jit
def read_strings(
    re, im, ints, floats, values, out, n_outputs, first, batch, i, t, entries, S: tl.constexpr,
    K: tl.constexpr, R: tl.constexpr, SHIFTED: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """Expectation values of Pauli strings, to `out`; by way of `values` unless outputs are strings (PLAIN)."""
    width = tl.load(ints + N_STRINGS)
    target = values
    if PLAIN:
        target = out
    square = re * re + im * im
    store_sums(
        square, square, ints, tl.load(ints + DIAGONAL), tl.load(ints + N_DIAGONAL), target, width, first, batch, t,
        False, S, R,
    )  # fmt: skip
    if SHIFTED:
        record = tl.load(ints + SHIFTS)
        for _ in range(tl.load(ints + N_SHIFTS)):
            re, im = exchange(re, im, indices(ints, record + 2, i, S, K, R))
            there_re, there_im = _neighbours(re, im, R)
            real = re * there_re + im * there_im
            imaginary = re * there_im - im * there_re
            store_sums(
                real, imaginary, ints, tl.load(ints + record), tl.load(ints + record + 1), target, width, first,
                batch, t, True, S, R,
            )  # fmt: skip
            record += K + 2
    if not PLAIN:
        tl.debug_barrier()
        table = tl.load(ints + OUTPUTS)
        _rows_times(
            ints, floats, table, values, out, width, n_outputs, first, batch, i, entries, S, S << (K - R)
        )  # fmt: skip


@triton.jit
def _labels(ints, t, n_outputs, K: tl.constexpr, R: tl.constexpr):
    """Of every amplitude: the number of the output to which it belongs."""
    words = tl.load(ints + LABEL)
    label = t * 0
    for bit in tl.static_range(K - R):
        label ^= ((t >> bit) & 1) * tl.load(ints + words + R + bit)
    return spread_bits(label, ints, words, R) % n_outputs


@triton.jit
def probabilities(re, im, ints, out, n_outputs, first, batch, t, S: tl.constexpr, K: tl.constexpr, R: tl.constexpr):
    """Probabilities of the measured qubits' values, modulo the number of classes, to `out`."""
    labels = _labels(ints, t, n_outputs, K, R)
    square = re * re + im * im
    sample = first + tl.arange(0, S)[:, None]
    eight = tl.arange(0, 8)[None, :]
    for begin in range(0, n_outputs, 8):
        sums = ()
        for k in tl.static_range(8):
            sums = sums + (fold(tl.where(labels == begin + k, square, 0.0), R),)
        total = sum_samples(sums, S)
        at = out + sample.to(tl.int64) * n_outputs + begin + eight
        tl.store(at, total, mask=(sample < batch) & (begin + eight < n_outputs))


@triton.jit
def string_weights(ints, terms, count, source, row, t, zero, FIELD: tl.constexpr, R: tl.constexpr):
    """Σ weight · factor · sign over records of terms, for each register; string k's weight is at `source + row + k`."""
    out = zero
    for k in range(count):
        record = ints + terms + FIELDS * k
        weight = tl.load(source + row + tl.load(record + 2)) * tl.load(record + FIELD).to(tl.float32)
        out += spread_signed(weight * parity_sign(t & tl.load(record)), tl.load(record + 1), R)
    return out


@triton.jit
def start_lambda_of_strings(
    re, im, ints, floats, strings, cotangents, n_outputs, first, batch, i, t, entries, S: tl.constexpr,
    K: tl.constexpr, R: tl.constexpr, SHIFTED: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """λ for Pauli strings; their cotangents go by way of `strings` unless outputs are strings."""
    zero = tl.zeros_like(re)
    width = tl.load(ints + N_STRINGS)
    source = cotangents
    if not PLAIN:
        source = strings
        table = tl.load(ints + STRINGS)
        _rows_times(
            ints, floats, table, cotangents, strings, n_outputs, width, first, batch, i, entries, S, S << (K - R)
        )  # fmt: skip
        tl.debug_barrier()
    if S == 1:
        row = first.to(tl.int64) * width
    else:
        row = tl.minimum(first + (i & (S - 1)), batch - 1).to(tl.int64) * width
    weights = string_weights(ints, tl.load(ints + DIAGONAL), tl.load(ints + N_DIAGONAL), source, row, t, zero, 3, R)
    lam_re = weights * re
    lam_im = weights * im
    if SHIFTED:
        record = tl.load(ints + SHIFTS)
        for _ in range(tl.load(ints + N_SHIFTS)):
            index = indices(ints, record + 2, i, S, K, R)
            re, im = exchange(re, im, index)
            lam_re, lam_im = exchange(lam_re, lam_im, index)
            terms = tl.load(ints + record)
            count = tl.load(ints + record + 1)
            even = string_weights(ints, terms, count, source, row, t, zero, 3, R)
            odd = string_weights(ints, terms, count, source, row, t, zero, 4, R)
            there_re, there_im = _neighbours(re, im, R)
            lam_re += even * there_re + odd * there_im
            lam_im += even * there_im - odd * there_re
            record += K + 2
        index = indices(ints, tl.load(ints + BACK), i, S, K, R)
        re, im = exchange(re, im, index)
        lam_re, lam_im = exchange(lam_re, lam_im, index)
    return re, im, lam_re, lam_im


@triton.jit
def start_lambda(re, im, ints, cotangents, n_outputs, sample, live, t, K: tl.constexpr, R: tl.constexpr):
    """λ for probabilities."""
    columns = to_registers(_labels(ints, t, n_outputs, K, R), R)
    weights = ()
    for r in tl.static_range(1 << R):
        at = cotangents + sample.to(tl.int64) * n_outputs + columns[r]
        weights = weights + (tl.load(at, mask=live, other=0.0),)
    weight = from_registers(weights, R)
    return weight * re, weight * im
