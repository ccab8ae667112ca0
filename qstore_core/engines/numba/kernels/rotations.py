"""Y rotations: real 2x2 matrices on pairs of rows, a block of up to four qubits at once, and their gradients.

Three rotations of different qubits mix eight rows, which stay in registers: one pass over memory for three gates.
Machines with 32 vector registers hold the sixteen rows of four rotations.
"""

from __future__ import annotations

from ..records import (
    BLOCK_COUNT,
    BLOCK_MOVES,
    BLOCK_QUBITS,
    BLOCK_ROWS,
    BUFFER,
    COS_SIN,
    D_ANGLE,
    LAMBDA,
    PLANE,
    STEP_ANGLES,
    STEP_BLOCK,
)
from ..simd import get, lanes, vload, vsplat
from .rows import (
    add_wide,
    block_sums,
    cross_sums,
    differences,
    plus,
    read_moves,
    rotate_rows,
    rotations,
    store_narrow,
    wide_sums,
)
from .scratch import SHORT, add_to, jit, list_sizes, offset

__all__ = ["apply_rotations", "rotation_gradients"]


@jit
def _rotate(x, start, ints, block, moves, cos_sin):
    rows = get(ints, block + BLOCK_ROWS)
    low, high = list_sizes(get(ints, block + BLOCK_COUNT))
    for h in range(high):
        first = get(ints, rows + low + h)
        for i in range(low):
            rotate_rows(x, start, first ^ get(ints, rows + i), moves, cos_sin)


@jit
def apply_rotations(x, start, ints, step, work, real, back):
    """Apply a block of rotations, or its inverse, to both planes."""
    cos_sin, plane, angles, block = offset(ints, COS_SIN), get(ints, PLANE), step + STEP_ANGLES, step + STEP_BLOCK
    qubits, listed = get(ints, block + BLOCK_QUBITS), get(ints, block + BLOCK_MOVES)
    sign = vsplat(work, -1.0 if back else 1.0)
    for part in range(1 if real else 2):
        at = start + part * plane
        if qubits == 1:
            moves = read_moves(ints, listed, 1)
            _rotate(x, at, ints, block, moves, rotations(work, cos_sin, ints, angles, sign, moves))
        elif qubits == 2:
            moves2 = read_moves(ints, listed, 2)
            _rotate(x, at, ints, block, moves2, rotations(work, cos_sin, ints, angles, sign, moves2))
        elif qubits == 3:
            moves3 = read_moves(ints, listed, 3)
            _rotate(x, at, ints, block, moves3, rotations(work, cos_sin, ints, angles, sign, moves3))
        else:
            moves4 = read_moves(ints, listed, 4)
            _rotate(x, at, ints, block, moves4, rotations(work, cos_sin, ints, angles, sign, moves4))


@jit
def _cross(psi, at_psi, work, at_lam, ints, block, moves):
    """Leaves Σ λ1 ψ0 - λ0 ψ1 of every rotation in the buffer."""
    rows = get(ints, block + BLOCK_ROWS)
    low, high = list_sizes(get(ints, block + BLOCK_COUNT))
    short = min(low, SHORT)
    total = wide_sums(work, moves)
    for h in range(high):
        first = get(ints, rows + low + h)
        middle = block_sums(work, moves)
        for begin in range(0, low, short):
            sums = block_sums(work, moves)
            for i in range(begin, begin + short):
                sums = cross_sums(psi, at_psi, work, at_lam, first ^ get(ints, rows + i), moves, sums)
            middle = plus(middle, sums)
        total = add_wide(total, middle)
    store_narrow(work, offset(ints, BUFFER), differences(total))


@jit
def rotation_gradients(psi, start, ints, step, work, real):
    """Add dL/dangle of a block of rotations."""
    size, plane, lam, block = lanes(work), get(ints, PLANE), offset(ints, LAMBDA), step + STEP_BLOCK
    qubits, listed = get(ints, block + BLOCK_QUBITS), get(ints, block + BLOCK_MOVES)
    d_angle, buffer = offset(ints, D_ANGLE), offset(ints, BUFFER)
    for part in range(1 if real else 2):
        at_psi, at_lam = start + part * plane, lam + part * plane
        if qubits == 1:
            _cross(psi, at_psi, work, at_lam, ints, block, read_moves(ints, listed, 1))
        elif qubits == 2:
            _cross(psi, at_psi, work, at_lam, ints, block, read_moves(ints, listed, 2))
        elif qubits == 3:
            _cross(psi, at_psi, work, at_lam, ints, block, read_moves(ints, listed, 3))
        else:
            _cross(psi, at_psi, work, at_lam, ints, block, read_moves(ints, listed, 4))
        for k in range(qubits):
            add_to(work, d_angle + size * get(ints, step + STEP_ANGLES + k), vload(work, buffer + k * size))
