"""Operations on states (D, 2**n), in place, compiled by numba: the same as `arrays`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types

from ..numba.kernels.scratch import COMPILING, compiled
from . import arrays

__all__ = ["apply", "cnot", "reduced"]

_STATES, _MATRICES, _INT = types.complex128[:, ::1], types.complex128[:, :, ::1], types.int64


def _apply(states, matrices, stride):
    shared = len(matrices) == 1
    for d in range(states.shape[0]):
        k = 0 if shared else d
        m00, m01, m10, m11 = matrices[k, 0, 0], matrices[k, 0, 1], matrices[k, 1, 0], matrices[k, 1, 1]
        for begin in range(0, states.shape[1], 2 * stride):
            for p in range(begin, begin + stride):
                a, b = states[d, p], states[d, p + stride]
                states[d, p] = m00 * a + m01 * b
                states[d, p + stride] = m10 * a + m11 * b


def _cnot(states, control, target):
    low, high = min(control, target), max(control, target)
    for d in range(states.shape[0]):
        for outer in range(0, states.shape[1], 2 * high):
            for inner in range(outer, outer + high, 2 * low):
                for p in range(inner + control, inner + control + low):
                    states[d, p], states[d, p + target] = states[d, p + target], states[d, p]


def _reduced(states, stride, out):
    for d in range(states.shape[0]):
        zero = one = 0.0
        cross = 0j
        for begin in range(0, states.shape[1], 2 * stride):
            for p in range(begin, begin + stride):
                a, b = states[d, p], states[d, p + stride]
                zero += a.real * a.real + a.imag * a.imag
                one += b.real * b.real + b.imag * b.imag
                cross += a * b.conjugate()
        out[d, 0, 0], out[d, 0, 1], out[d, 1, 0], out[d, 1, 1] = zero, cross, cross.conjugate(), one


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    arguments = {
        _apply: (_STATES, _MATRICES, _INT),
        _cnot: (_STATES, _INT, _INT),
        _reduced: (_STATES, _INT, _MATRICES),
    }
    return compiled(function, types.void(*arguments[function]))


def _entry(function: Callable[..., Any]) -> Callable[..., Any]:
    with COMPILING:
        return _compiled(function)


def _stride(states: np.ndarray, qubit: int) -> int:
    return int(states.shape[1] >> (qubit + 1))


def apply(states: np.ndarray, matrices: np.ndarray, qubits: tuple[int, ...]) -> None:
    """Matrices (D or 1, d, d) on one or two qubits."""
    if len(qubits) > 1:
        arrays.apply(states, matrices, qubits)
        return
    _entry(_apply)(states, np.ascontiguousarray(matrices, complex), _stride(states, *qubits))


def cnot(states: np.ndarray, control: int, target: int) -> None:
    """A CNOT."""
    _entry(_cnot)(states, _stride(states, control), _stride(states, target))


def reduced(states: np.ndarray, qubits: tuple[int, ...]) -> np.ndarray:
    """Density matrices (D, d, d) of one or two qubits."""
    if len(qubits) > 1:
        return arrays.reduced(states, qubits)
    out = np.empty((len(states), 2, 2), complex)
    _entry(_reduced)(states, _stride(states, *qubits), out)
    return out
