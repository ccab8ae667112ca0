"""Blocks of rows in registers: the 2**k rows that k qubits connect, written once for every k as generators of code.

A row is a vector of samples; `moves`, a tuple of 2**k integers, leads from the first row of a block to all of them.
Row j of a block has qubit b in |1⟩ where bit b of j is set. Tuples of vectors are values: they live in registers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..simd import Vec, fma, fnma, get_item, load, store, wide_type

__all__ = [
    "add_wide",
    "block_sums",
    "cross_sums",
    "differences",
    "lambda_rows",
    "load_tuple",
    "pair_sums",
    "plus",
    "read_moves",
    "rotate_rows",
    "rotations",
    "store_narrow",
    "wide_sums",
]


def _qubits(moves: types.UniTuple) -> int:
    return moves.count.bit_length() - 1


def _items(builder: Any, value: Any) -> list[Any]:
    return [builder.extract_value(value, k) for k in range(value.type.count)]


class _Rows:
    """Element numbers of a block's rows in an array."""

    def __init__(
        self, context: Any, builder: Any, array_type: Any, array: Any, base: Any, row: Any, moves: Any
    ) -> None:
        builder.function.attributes.add("nounwind")  # llvmlite prints the other attribute only beside one of these
        builder.function.attributes.alignstack = 64  # what does not fit into registers must not cross cache lines
        self._code = context, builder, array_type, array
        self._at = [builder.add(base, builder.xor(row, move)) for move in _items(builder, moves)]

    def __len__(self) -> int:
        return len(self._at)

    def load(self, j: int) -> Any:
        return load(*self._code, self._at[j])

    def store(self, j: int, value: Any) -> None:
        store(*self._code, self._at[j], value)


@intrinsic(prefer_literal=True)
def read_moves(typingctx, ints, at, qubits):
    """The 2**qubits moves listed from `at`; `qubits` is a literal."""
    count = 1 << qubits.literal_value

    def codegen(context, builder, sig, args):
        listed = [builder.add(args[1], ir.Constant(ir.IntType(64), j)) for j in range(count)]
        moves = [get_item(context, builder, sig.args[0], args[0], index) for index in listed]
        return context.make_tuple(builder, sig.return_type, moves)

    return types.UniTuple(types.int64, count)(ints, types.int64, qubits), codegen


@intrinsic
def rotations(typingctx, work, cos_sin, ints, angles, sign, moves):
    """`(cos 0, sin 0, cos 1, …)` of half the angles numbered from `angles` on; sines times `sign`."""
    count, vec = _qubits(moves), sign

    def codegen(context, builder, sig, args):
        i64, values = ir.IntType(64), []
        lanes = ir.Constant(i64, vec.lanes)
        for k in range(count):
            number = get_item(context, builder, sig.args[2], args[2], builder.add(args[3], ir.Constant(i64, k)))
            at = builder.add(args[1], builder.mul(builder.shl(number, ir.Constant(i64, 1)), lanes))
            cos = load(context, builder, sig.args[0], args[0], at)
            sin = load(context, builder, sig.args[0], args[0], builder.add(at, lanes))
            values += [cos, builder.fmul(sin, args[4])]
        return context.make_tuple(builder, sig.return_type, values)

    result = types.UniTuple(vec, 2 * count)
    return result(work, types.int64, ints, types.int64, sign, moves), codegen


@intrinsic
def rotate_rows(typingctx, x, base, row, moves, cos_sin):
    """One Y rotation for each qubit of the block: `a, b → cos a - sin b, cos b + sin a`."""

    def codegen(context, builder, sig, args):
        rows, factors = _Rows(context, builder, sig.args[0], *args[:4]), _items(builder, args[4])
        values = [rows.load(j) for j in range(len(rows))]
        for b in range(_qubits(sig.args[3])):
            cos, sin = factors[2 * b : 2 * b + 2]
            for j in range(len(rows)):
                if not j >> b & 1:
                    zero, one = values[j], values[j | 1 << b]
                    values[j] = fnma(builder, sin, one, builder.fmul(cos, zero))
                    values[j | 1 << b] = fma(builder, sin, zero, builder.fmul(cos, one))
        for j, value in enumerate(values):
            rows.store(j, value)
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, moves, cos_sin), codegen


@intrinsic
def block_sums(typingctx, array, moves):
    """Zeros: two vectors for each qubit of a block."""
    array_vec = Vec.of(array)
    result = types.UniTuple(array_vec, 2 * _qubits(moves))

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(result), None)

    return result(array, moves), codegen


@intrinsic
def wide_sums(typingctx, array, moves):
    """The same in double precision."""
    result = types.UniTuple(wide_type(Vec.of(array)), 2 * _qubits(moves))

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(result), None)

    return result(array, moves), codegen


@intrinsic
def plus(typingctx, a, b):
    """Sum of two tuples of vectors."""

    def codegen(context, builder, sig, args):
        pairs = zip(*(_items(builder, arg) for arg in args), strict=True)
        return context.make_tuple(builder, sig.return_type, [builder.fadd(x, y) for x, y in pairs])

    return a(a, a), codegen


@intrinsic
def differences(typingctx, sums):
    """What stands at every even place minus what follows."""

    def codegen(context, builder, sig, args):
        values = _items(builder, args[0])
        pairs = zip(values[::2], values[1::2], strict=True)
        return context.make_tuple(builder, sig.return_type, [builder.fsub(x, y) for x, y in pairs])

    return types.UniTuple(sums.dtype, sums.count // 2)(sums), codegen


@intrinsic
def add_wide(typingctx, total, sums):
    """`sums` added to `total` in double precision."""

    def codegen(context, builder, sig, args):
        llty = context.get_value_type(sig.return_type.dtype)
        pairs = zip(*(_items(builder, arg) for arg in args), strict=True)
        widened = [(x, y if y.type == llty else builder.fpext(y, llty)) for x, y in pairs]
        return context.make_tuple(builder, sig.return_type, [builder.fadd(x, y) for x, y in widened])

    return total(total, sums), codegen


@intrinsic
def cross_sums(typingctx, psi, at_psi, lam, at_lam, row, moves, sums):
    """Adds λ1 ψ0 (even places) and λ0 ψ1 (odd places) of every qubit's pairs to `sums`."""

    def codegen(context, builder, sig, args):
        psi_rows = _Rows(context, builder, sig.args[0], args[0], args[1], args[4], args[5])
        lam_rows = _Rows(context, builder, sig.args[2], args[2], args[3], args[4], args[5])
        totals = _items(builder, args[6])
        values = [lam_rows.load(j) for j in range(len(lam_rows))]  # they stay in registers, rows of ψ pass by
        for j in range(len(psi_rows)):
            a = psi_rows.load(j)
            for b in range(_qubits(sig.args[5])):
                k = 2 * b + (j >> b & 1)
                totals[k] = fma(builder, values[j ^ 1 << b], a, totals[k])
        return context.make_tuple(builder, sig.return_type, totals)

    return sums(psi, types.int64, lam, types.int64, types.int64, moves, sums), codegen


@intrinsic
def pair_sums(typingctx, psi, start, plane, row, moves):
    """Σ Re and Σ Im of conj(ψ1) ψ0 over the pairs of every qubit of one block."""
    result = types.UniTuple(Vec.of(psi), 2 * _qubits(moves))

    def codegen(context, builder, sig, args):
        real = _Rows(context, builder, sig.args[0], args[0], args[1], args[3], args[4])
        imag = _Rows(context, builder, sig.args[0], args[0], builder.add(args[1], args[2]), args[3], args[4])
        values: list[tuple[Any, Any]] = []
        totals: list[Any] = [None] * result.count
        for j in range(len(real)):
            values.append((real.load(j), imag.load(j)))
            c, d = values[j]
            for b in range(_qubits(sig.args[4])):
                if j >> b & 1:
                    a, e = values[j ^ 1 << b]
                    for k, (p, q, r, s) in ((2 * b, (a, c, e, d)), (2 * b + 1, (c, e, builder.fneg(d), a))):
                        first = builder.fmul(p, q) if totals[k] is None else fma(builder, p, q, totals[k])
                        totals[k] = fma(builder, r, s, first)
        return context.make_tuple(builder, sig.return_type, totals)

    return result(psi, types.int64, types.int64, types.int64, moves), codegen


@intrinsic
def lambda_rows(typingctx, psi, start, work, lam, plane, row, moves, weights):
    """λ1 += h ψ0 and λ0 += conj(h) ψ1 for every qubit, with h = weights[2b] + i weights[2b + 1]."""

    def codegen(context, builder, sig, args):
        psi, start, work, lam, plane, row, moves, weights = args
        planes = [
            [_Rows(context, builder, array_type, array, at, row, moves) for at in (first, builder.add(first, plane))]
            for array_type, array, first in ((sig.args[0], psi, start), (sig.args[2], work, lam))
        ]
        (psi_re, psi_im), (lam_re, lam_im) = planes
        values, factors = [(psi_re.load(j), psi_im.load(j)) for j in range(len(psi_re))], _items(builder, weights)
        for j in range(len(values)):
            x, y = lam_re.load(j), lam_im.load(j)
            for b in range(_qubits(sig.args[6])):
                hr, hi = factors[2 * b : 2 * b + 2]
                a, e = values[j ^ 1 << b]
                one = j >> b & 1
                x, y = fma(builder, hr, a, x), fma(builder, hr, e, y)
                x = fnma(builder, hi, e, x) if one else fma(builder, hi, e, x)
                y = fma(builder, hi, a, y) if one else fnma(builder, hi, a, y)
            lam_re.store(j, x)
            lam_im.store(j, y)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(psi, i64, work, i64, i64, i64, moves, weights), codegen


@intrinsic
def load_tuple(typingctx, array, at, moves):
    """The vectors from element `at` on, two for each qubit of a block."""
    vec = Vec.of(array)
    result = types.UniTuple(vec, 2 * _qubits(moves))

    def codegen(context, builder, sig, args):
        places = [builder.add(args[1], ir.Constant(ir.IntType(64), k * vec.lanes)) for k in range(result.count)]
        values = [load(context, builder, sig.args[0], args[0], place) for place in places]
        return context.make_tuple(builder, sig.return_type, values)

    return result(array, types.int64, moves), codegen


@intrinsic
def store_narrow(typingctx, array, at, values):
    """Store a tuple of wide vectors from element `at` on, rounded once to the precision of `array`."""
    vec = Vec.of(array)

    def codegen(context, builder, sig, args):
        llty = context.get_value_type(vec)
        for k, value in enumerate(_items(builder, args[2])):
            narrow = value if value.type == llty else builder.fptrunc(value, llty)
            place = builder.add(args[1], ir.Constant(ir.IntType(64), k * vec.lanes))
            store(context, builder, sig.args[0], args[0], place, narrow)
        return context.get_dummy_value()

    return types.void(array, types.int64, values), codegen
