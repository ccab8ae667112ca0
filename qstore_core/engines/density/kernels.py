"""Steps on Pauli components, compiled by numba: the same as `arrays`, samples innermost.

A state is 4**n vectors of samples, one after the other. The steps are a table of whole numbers, so that no circuit is
compiled: two functions per precision are, once per machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import types

from ..numba.kernels.scratch import COMPILING, compiled, jit, source_digest
from ..numba.simd import get, lane_count, lanes, put, vfma, vload, vsplat, vstore, vsum
from .arrays import ArrayKernels
from .program import CNOT_SOURCES, Pair, Program, Single

__all__ = ["NumbaKernels"]

KIND, STRIDE, SECOND, NUMBER, SAMPLED, GRADIENT, RECORD = range(7)
"""Where each number of a step stands, and how many there are.

STRIDE is that of the (first) qubit's digit, SECOND of the second one's. NUMBER is that of a matrix, or where constants
begin: forward ones, then those of the reverse sweep.
"""
SINGLE, CNOT, FACTORS, MATRIX = range(4)
_SWAPS = tuple((k, int(j)) for k, j in enumerate(CNOT_SOURCES) if k < j)
_STAYS = tuple(k for k, j in enumerate(CNOT_SOURCES) if k == j and k)
_MOST_WIDE = 7  # qubits up to which samples fill vectors: above, a state of one alone fills the cache
_BLOCK = 64  # terms that are summed in the precision of the state


@jit
def _spread(g, stride):
    """Number of group `g` with a digit 0 put in at `stride`."""
    low = g & (stride - 1)
    return 4 * (g - low) + low


@jit
def _load(table, step, shared, sampled, scratch):
    """The last three rows of a matrix as 12 vectors."""
    size = lanes(scratch)
    number = get(table, step + NUMBER)
    if get(table, step + SAMPLED):
        for k in range(12):
            vstore(scratch, k * size, vload(sampled, (16 * number + 4 + k) * size))
    else:
        for k in range(12):
            vstore(scratch, k * size, vsplat(scratch, get(shared, 16 * number + 4 + k)))


@jit
def _single(state, stride, groups, m):
    size = lanes(state)
    step = stride * size
    a0, a1, a2, a3 = vload(m, 0), vload(m, size), vload(m, 2 * size), vload(m, 3 * size)
    b0, b1, b2, b3 = vload(m, 4 * size), vload(m, 5 * size), vload(m, 6 * size), vload(m, 7 * size)
    c0, c1, c2, c3 = vload(m, 8 * size), vload(m, 9 * size), vload(m, 10 * size), vload(m, 11 * size)
    for g in range(groups):
        at = _spread(g, stride) * size
        i, x, y, z = vload(state, at), vload(state, at + step), vload(state, at + 2 * step), vload(state, at + 3 * step)
        vstore(state, at + step, vfma(a3, z, vfma(a2, y, vfma(a1, x, a0 * i))))
        vstore(state, at + 2 * step, vfma(b3, z, vfma(b2, y, vfma(b1, x, b0 * i))))
        vstore(state, at + 3 * step, vfma(c3, z, vfma(c2, y, vfma(c1, x, c0 * i))))


@jit
def _single_back(lam, stride, groups, m):
    size = lanes(lam)
    step = stride * size
    a0, a1, a2, a3 = vload(m, 0), vload(m, size), vload(m, 2 * size), vload(m, 3 * size)
    b0, b1, b2, b3 = vload(m, 4 * size), vload(m, 5 * size), vload(m, 6 * size), vload(m, 7 * size)
    c0, c1, c2, c3 = vload(m, 8 * size), vload(m, 9 * size), vload(m, 10 * size), vload(m, 11 * size)
    for g in range(groups):
        at = _spread(g, stride) * size
        i, x, y, z = vload(lam, at), vload(lam, at + step), vload(lam, at + 2 * step), vload(lam, at + 3 * step)
        vstore(lam, at, vfma(c0, z, vfma(b0, y, vfma(a0, x, i))))
        vstore(lam, at + step, vfma(c1, z, vfma(b1, y, a1 * x)))
        vstore(lam, at + 2 * step, vfma(c2, z, vfma(b2, y, a2 * x)))
        vstore(lam, at + 3 * step, vfma(c3, z, vfma(b3, y, a3 * x)))


@jit
def _products(lam, kept, start, stride, groups, sums):
    """Σ lam(a) kept(b) of a range of groups, for a in X, Y, Z and b in I, X, Y, Z: 12 vectors in `sums`."""
    size = lanes(lam)
    step = stride * size
    none = vsplat(lam, 0.0)
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3 = (
        none, none, none, none, none, none, none, none, none, none, none, none,
    )  # fmt: skip
    first, last = groups
    for g in range(first, last):
        at = _spread(g, stride) * size
        x, y, z = vload(lam, at + step), vload(lam, at + 2 * step), vload(lam, at + 3 * step)
        r = vload(kept, start + at)
        a0, b0, c0 = vfma(x, r, a0), vfma(y, r, b0), vfma(z, r, c0)
        r = vload(kept, start + at + step)
        a1, b1, c1 = vfma(x, r, a1), vfma(y, r, b1), vfma(z, r, c1)
        r = vload(kept, start + at + 2 * step)
        a2, b2, c2 = vfma(x, r, a2), vfma(y, r, b2), vfma(z, r, c2)
        r = vload(kept, start + at + 3 * step)
        a3, b3, c3 = vfma(x, r, a3), vfma(y, r, b3), vfma(z, r, c3)
    vstore(sums, 0, a0), vstore(sums, size, a1), vstore(sums, 2 * size, a2), vstore(sums, 3 * size, a3)
    vstore(sums, 4 * size, b0), vstore(sums, 5 * size, b1), vstore(sums, 6 * size, b2), vstore(sums, 7 * size, b3)
    vstore(sums, 8 * size, c0), vstore(sums, 9 * size, c1), vstore(sums, 10 * size, c2), vstore(sums, 11 * size, c3)


@jit
def _gradient(table, step, lam, kept, start, groups, sums, d_shared, d_sampled):
    """Add the gradient of a matrix: short sums in the precision of the state, sums of those in double precision."""
    size, stride, number = lanes(lam), get(table, step + STRIDE), get(table, step + NUMBER)
    for first in range(0, groups, _BLOCK):
        _products(lam, kept, start, stride, (first, min(first + _BLOCK, groups)), sums)
        if get(table, step + SAMPLED):
            at = (16 * number + 4) * size
            for k in range(12 * size):
                put(d_sampled, at + k, get(d_sampled, at + k) + np.float64(get(sums, k)))
        else:
            at = 16 * number + 4
            for k in range(12):
                put(d_shared, at + k, get(d_shared, at + k) + np.float64(vsum(vload(sums, k * size))))


@jit
def _exchange(state, low, high, groups, p, q, f, h):
    """Component `p` of every group becomes f times component `q`, and that h times the old `p`."""
    size = lanes(state)
    f, h = vsplat(state, f), vsplat(state, h)
    for g in range(groups):
        at = _spread(_spread(g, low), high) * size
        one, two = vload(state, at + p), vload(state, at + q)
        vstore(state, at + p, f * two)
        vstore(state, at + q, h * one)


@jit
def _scale(state, low, high, groups, p, f):
    size = lanes(state)
    f = vsplat(state, f)
    for g in range(groups):
        at = _spread(_spread(g, low), high) * size + p
        vstore(state, at, f * vload(state, at))


@jit
def _multiply(state, low, high, groups, first, second, constants, begin, scratch):
    """A 16 x 16 matrix on two digits."""
    size = lanes(state)
    for g in range(groups):
        at = _spread(_spread(g, low), high) * size
        for k in range(16):
            vstore(scratch, k * size, vload(state, at + ((k >> 2) * first + (k & 3) * second) * size))
        for a in range(16):
            total = vsplat(state, 0.0)
            for b in range(16):
                total = vfma(vsplat(state, get(constants, begin + 16 * a + b)), vload(scratch, b * size), total)
            vstore(state, at + ((a >> 2) * first + (a & 3) * second) * size, total)


@jit
def _pair(table, step, state, total, constants, back, scratch):
    size, kind = lanes(state), get(table, step + KIND)
    first, second, begin = get(table, step + STRIDE), get(table, step + SECOND), get(table, step + NUMBER)
    low, high, groups = min(first, second), max(first, second), total >> 4
    if kind == MATRIX:
        _multiply(state, low, high, groups, first, second, constants, begin + 256 * back, scratch)
        return
    begin += 16 * back
    if kind == CNOT:
        for p, q in _SWAPS:
            at, to = ((p >> 2) * first + (p & 3) * second) * size, ((q >> 2) * first + (q & 3) * second) * size
            _exchange(state, low, high, groups, at, to, get(constants, begin + p), get(constants, begin + q))
        for p in _STAYS:
            if get(constants, begin + p) != 1.0:
                at = ((p >> 2) * first + (p & 3) * second) * size
                _scale(state, low, high, groups, at, get(constants, begin + p))
        return
    for p in range(1, 16):
        if get(constants, begin + p) != 1.0:
            at = ((p >> 2) * first + (p & 3) * second) * size
            _scale(state, low, high, groups, at, get(constants, begin + p))


@jit
def _copy(source, target, at, count):
    size = lanes(source)
    for k in range(count):
        vstore(target, at + k * size, vload(source, k * size))


def _python_run(digest: int) -> Callable[..., Any]:
    """The entry as a closure over `digest`, which thereby is part of the cache's key."""

    def run(
        table, constants, shared, sampled, state, kept, scratch, d_shared, d_sampled, total, first, last, base, todo
    ):
        """Steps [first, last) on `state`: forward where `todo` is 0 or 1 (which keeps states), else in reverse."""
        size = lanes(state)
        if todo == digest:
            return
        if todo < 2:
            for s in range(first, last):
                step = s * RECORD
                if get(table, step + KIND) != SINGLE:
                    _pair(table, step, state, total, constants, 0, scratch)
                    continue
                gradient = get(table, step + GRADIENT)
                if todo and gradient >= 0:
                    _copy(state, kept, (gradient - base) * total * size, total)
                _load(table, step, shared, sampled, scratch)
                _single(state, get(table, step + STRIDE), total >> 2, scratch)
            return
        for s in range(last - 1, first - 1, -1):
            step = s * RECORD
            if get(table, step + KIND) != SINGLE:
                _pair(table, step, state, total, constants, 1, scratch)
                continue
            gradient = get(table, step + GRADIENT)
            if gradient >= 0:
                at = (gradient - base) * total * size
                _gradient(table, step, state, kept, at, total >> 2, scratch, d_shared, d_sampled)
            _load(table, step, shared, sampled, scratch)
            _single_back(state, get(table, step + STRIDE), total >> 2, scratch)

    return run


@cache
def _entry(dtype: str, single: bool) -> Callable[..., None]:
    number = types.float32 if dtype == "float32" else types.float64
    vectors = types.Array(number, 2 if single else 1, "C")
    plain, wide = types.Array(number, 1, "C"), types.Array(types.float64, 1, "C")
    signature = types.void(
        types.Array(types.int64, 1, "C"), plain, plain, vectors, vectors, vectors, vectors, wide, wide,
        *(types.int64,) * 5,
    )  # fmt: skip
    digest = source_digest(Path(__file__).parent, Path(__file__).parents[1] / "numba")
    return compiled(_python_run(digest), signature)


class NumbaKernels(ArrayKernels):
    """A program's steps for one precision, compiled."""

    threaded = True

    def __init__(self, program: Program, dtype: np.dtype) -> None:
        super().__init__(program, dtype)
        table = np.zeros((len(program.steps), RECORD), np.int64)
        constants: list[np.ndarray] = [np.zeros(1)]
        for row, step in zip(table, program.steps, strict=True):
            if isinstance(step, Single):
                row[:] = SINGLE, self._stride(step.qubit), 0, step.number, step.uses_inputs, step.gradient
                continue
            row[STRIDE], row[SECOND] = map(self._stride, step.qubits)
            row[NUMBER] = sum(len(part) for part in constants)
            row[KIND] = self._constants(step, constants)
        self._table, self._constants_of = table.reshape(-1), np.concatenate(constants).astype(dtype)
        self._total = 4**self.n
        self._none, self._name = np.zeros(1), dtype.name

    def _stride(self, qubit: int) -> int:
        return int(4 ** (self.n - 1 - qubit))

    def _constants(self, step: Pair, out: list[np.ndarray]) -> int:
        """Add a pair's constants; returns its kind."""
        if step.matrix is not None:
            out += [step.matrix.reshape(-1), step.matrix.T.reshape(-1)]
            return MATRIX
        out += [step.factors, step.factors[CNOT_SOURCES] if step.cnot else step.factors]
        return CNOT if step.cnot else FACTORS

    def lanes(self, rows: int) -> int:
        """A vector of samples, or one sample where the state is large or there is only one."""
        return 1 if self.n > _MOST_WIDE or rows == 1 else lane_count(8 * self.dtype.itemsize)

    def evolve(
        self,
        state: np.ndarray,
        shared: np.ndarray,
        sampled: np.ndarray,
        first: int,
        last: int,
        kept: np.ndarray | None = None,
        base: int = 0,
    ) -> None:
        """Apply steps [first, last) to `state` (4**n, lanes); `kept[gradient - base]` is what came before one."""
        held = state[:0] if kept is None else kept
        todo = 0 if kept is None else 1
        self._run(state, shared, sampled, held, self._none, self._none, first, last, base, todo)

    def pull(
        self,
        lam: np.ndarray,
        shared: np.ndarray,
        sampled: np.ndarray,
        first: int,
        last: int,
        kept: np.ndarray,
        base: int,
        d_shared: np.ndarray,
        d_sampled: np.ndarray,
    ) -> None:
        """Take cotangents `lam` back over the same steps, and add to the gradients of their matrices, float64."""
        sums = d_shared.reshape(-1), d_sampled.reshape(-1)
        self._run(lam, shared, sampled, kept, *sums, first, last, base, 2)

    def _run(
        self,
        state: np.ndarray,
        shared: np.ndarray,
        sampled: np.ndarray,
        kept: np.ndarray,
        d_shared: np.ndarray,
        d_sampled: np.ndarray,
        *numbers: int,
    ) -> None:
        lanes = state.shape[1]
        scratch = np.empty(16 * lanes, self.dtype)
        shape = (1, -1) if lanes == 1 else (-1,)
        vectors = (array.reshape(shape) if array.size else np.empty((1,) * len(shape), self.dtype)
                   for array in (sampled, state, kept, scratch))  # fmt: skip
        with COMPILING:
            run = _entry(self._name, lanes == 1)
        run(self._table, self._constants_of, shared.reshape(-1), *vectors, d_shared, d_sampled, self._total, *numbers)
