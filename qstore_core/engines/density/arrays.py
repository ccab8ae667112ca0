"""Steps on Pauli components as NumPy operations: what `kernels` does where numba is not installed.

A state is (4**n, rows). Matrices of a step are (4, 4), or (4, 4, rows) where they differ from sample to sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .program import CNOT_SOURCES, Pair, Program, Single

__all__ = ["ArrayKernels"]

_MOST = 1 << 18  # numbers of a state and its rows that are computed at once


class ArrayKernels:
    """A program's steps for one precision.

    Args:
        program: The program.
        dtype: Of states.
    """

    threaded = False

    def __init__(self, program: Program, dtype: np.dtype) -> None:
        self.program, self.dtype, self.n = program, dtype, program.n_qubits

    def lanes(self, rows: int) -> int:
        """How many rows are computed at once."""
        return max(1, min(rows, _MOST >> 2 * self.n))

    def pack(self, products: np.ndarray, lanes: int) -> np.ndarray:
        """Products (B, count, 4, 4) of sampled steps → (chunks, count, 4, 4, lanes)."""
        rows, count = products.shape[:2]
        chunks = -(-rows // lanes)
        out = np.zeros((chunks * lanes, count, 4, 4), self.dtype)
        out[:rows] = products
        return np.ascontiguousarray(out.reshape(chunks, lanes, count, 4, 4).transpose(0, 2, 3, 4, 1))

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
        for step in self.program.steps[first:last]:
            if isinstance(step, Single):
                if kept is not None and step.gradient >= 0:
                    kept[step.gradient - base] = state
                _apply(state, self._blocks(state, step), _matrix(step, shared, sampled))
            else:
                self._pair(state, step, back=False)

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
        for step in reversed(self.program.steps[first:last]):
            if isinstance(step, Pair):
                self._pair(lam, step, back=True)
                continue
            blocks = self._blocks(lam, step)
            if step.gradient >= 0:
                before = kept[step.gradient - base].reshape(blocks.shape)
                products = np.einsum("larz,lbrz->abz", blocks, before, dtype=np.float64)
                if step.uses_inputs:
                    d_sampled[step.number] += products
                else:
                    d_shared[step.number] += products.sum(axis=2)
            _apply(lam, blocks, _matrix(step, shared, sampled).swapaxes(0, 1))

    def _blocks(self, state: np.ndarray, step: Single) -> np.ndarray:
        """A view (left, 4, right, lanes) of the digit of the step's qubit."""
        right = 4 ** (self.n - 1 - step.qubit)
        return state.reshape(-1, 4, right, state.shape[-1])

    def _pair(self, state: np.ndarray, step: Pair, back: bool) -> None:
        a, b = step.qubits
        view = state.reshape(*(4,) * self.n, -1)
        moved = np.moveaxis(view, (a, b), (0, 1))
        flat = moved.reshape(16, -1)
        if step.matrix is not None:
            new = (step.matrix.T if back else step.matrix).astype(state.dtype) @ flat
        else:
            factors = step.factors.astype(state.dtype)[:, None]
            if not step.cnot:
                new = flat * factors
            elif back:  # the permutation is its own inverse
                new = (flat * factors)[CNOT_SOURCES]
            else:
                new = flat[CNOT_SOURCES] * factors
        moved[...] = new.reshape(moved.shape)


def _matrix(step: Single, shared: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    matrix: np.ndarray = sampled[step.number] if step.uses_inputs else shared[step.number]
    return matrix


def _apply(state: np.ndarray, blocks: np.ndarray, matrix: Any) -> None:
    """A matrix (4, 4) or (4, 4, lanes) on the second axis of `blocks`, a view of `state`."""
    old: Sequence[np.ndarray] = [blocks[:, k].copy() for k in range(4)]
    for a in range(4):
        total = matrix[a, 0] * old[0]
        for b in range(1, 4):
            total += matrix[a, b] * old[b]
        blocks[:, a] = total
