"""Operations on states (D, 2**n), in place, in NumPy: what `kernels` does where numba is not installed."""

from __future__ import annotations

import numpy as np

__all__ = ["apply", "cnot", "reduced"]


def _axes(states: np.ndarray, qubits: tuple[int, ...]) -> np.ndarray:
    """A view (D, 2, …, rest) with the axes of some qubits first, and the others as they were."""
    n = states.shape[1].bit_length() - 1
    view = states.reshape(len(states), *(2,) * n)
    return np.moveaxis(view, [1 + q for q in qubits], range(1, 1 + len(qubits)))


def apply(states: np.ndarray, matrices: np.ndarray, qubits: tuple[int, ...]) -> None:
    """Matrices (D or 1, d, d) on one or two qubits."""
    moved = _axes(states, qubits)
    moved[...] = (matrices @ moved.reshape(len(states), 1 << len(qubits), -1)).reshape(moved.shape)


def cnot(states: np.ndarray, control: int, target: int) -> None:
    """A CNOT."""
    moved = _axes(states, (control, target))
    moved[:, 1] = moved[:, 1, ::-1].copy()


def reduced(states: np.ndarray, qubits: tuple[int, ...]) -> np.ndarray:
    """Density matrices (D, d, d) of one or two qubits."""
    rows = _axes(states, qubits).reshape(len(states), 1 << len(qubits), -1)
    out: np.ndarray = rows @ rows.conj().swapaxes(1, 2)
    return out
