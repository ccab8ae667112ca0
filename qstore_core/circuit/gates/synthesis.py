"""Any unitary matrix, and any state, as rotations and CNOTs: the quantum Shannon decomposition.

Source:
    Shende, Bullock & Markov, arXiv:quant-ph/0406176; multiplexed rotations by Gray codes, Möttönen et al.,
    arXiv:quant-ph/0404089.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import SpecError
from ..checks import shown

__all__ = ["MOST_QUBITS", "check_unitary", "prepare", "synthesise"]

MOST_QUBITS = 7  # 4**n rotations

Written = list[tuple[str, tuple[int, ...], tuple[float, ...]]]
_UNITARY = 1e-8  # how far from unitary a matrix may be: what single precision leaves
_PHASES = (0.7390851, 1.9345632, 2.6180340)


def check_unitary(matrix: Any, n_qubits: int) -> np.ndarray:
    """`matrix` as a complex128 unitary on `n_qubits`."""
    try:
        array = np.array(matrix, dtype=np.complex128)
    except (TypeError, ValueError, OverflowError) as error:
        raise SpecError(f"a unitary is a matrix of numbers, received {shown(matrix)}.") from error
    size = 1 << n_qubits
    if array.shape != (size, size):
        raise SpecError(f"a unitary on {n_qubits} qubit(s) has shape {(size, size)}, received {array.shape}.")
    if not np.isfinite(array).all() or np.abs(array @ array.conj().T - np.eye(size)).max() > _UNITARY:
        raise SpecError("the matrix is not unitary: its product with its adjoint is not the identity.")
    return array


def synthesise(matrix: np.ndarray, qubits: Sequence[int]) -> Written:
    """Gates `(name, qubits, angles)`, first to last in time, that make a unitary up to a global phase.

    Example:
        >>> [name for name, qubits, angles in synthesise(np.array([[0, 1], [1, 0]], complex), [0])]
        ['rz', 'ry', 'rz']
    """
    if len(qubits) == 1:
        return _one_qubit(matrix, qubits[0])
    u1, u2, v1, v2, cosine, sine = _cosine_sine(matrix)
    rotations = _multiplexed("ry", 2 * np.arctan2(sine, cosine), qubits)
    return [*_block_diagonal(v1, v2, qubits), *rotations, *_block_diagonal(u1, u2, qubits)]


def prepare(amplitudes: np.ndarray, qubits: Sequence[int]) -> Written:
    """Rotations and CNOTs that take |0…0⟩ to a state, up to a global phase; the first qubit most significant."""
    levels: list[Written] = []
    for k in range(len(qubits) - 1, -1, -1):
        pairs = amplitudes.reshape(-1, 2)
        size, phase = np.abs(pairs), np.angle(pairs)
        order = [qubits[k], *qubits[:k]]
        level = _multiplexed("ry", 2 * np.arctan2(size[:, 1], size[:, 0]), order)
        angles = phase[:, 1] - phase[:, 0]
        levels.append(level + (_multiplexed("rz", angles, order) if angles.any() else []))
        amplitudes = np.hypot(size[:, 0], size[:, 1]) * np.exp(0.5j * phase.sum(axis=1))
    return [step for level in reversed(levels) for step in level]


def _cosine_sine(matrix: np.ndarray) -> tuple[np.ndarray, ...]:
    """`matrix = (U1 ⊕ U2) [[C, -S], [S, C]] (V1 ⊕ V2)`, as U1, U2, V1, V2, C, S.

    Directions come from the upper block where the cosine is small and from the lower one where the sine is, since the
    singular vectors of values near 1 are lost in rounding.
    """
    half = len(matrix) // 2
    upper, lower = matrix[:half, :half], matrix[half:, :half]
    u1, cosine, v1 = np.linalg.svd(upper)
    few = int((cosine > 0.75).sum())  # with a small sine: they come first
    images = lower @ v1.conj().T
    q, r = np.linalg.qr(images[:, few:], mode="complete")
    others, sine_of_others = _phased(q[:, : half - few], np.diagonal(r))
    inside, sines, right = np.linalg.svd(q[:, half - few :].conj().T @ images[:, :few])
    u2 = np.concatenate([q[:, half - few :] @ inside, others], axis=1)
    v1[:few] = right @ v1[:few]
    first, cosine[:few] = _phased(*_qr((u1[:, :few] * cosine[:few]) @ right.conj().T))
    u1[:, :few] = first
    sine = np.concatenate([sines, sine_of_others])
    v2 = cosine[:, None] * (u2.conj().T @ matrix[half:, half:]) - sine[:, None] * (u1.conj().T @ matrix[:half, half:])
    return u1, u2, v1, v2, cosine, sine


def _qr(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q, r = np.linalg.qr(columns)
    return q, np.diagonal(r)


def _phased(q: np.ndarray, diagonal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns with the phases of a diagonal, and its magnitudes."""
    size = np.abs(diagonal)
    return q * np.where(size > 0, diagonal / np.where(size > 0, size, 1), 1), size


def _one_qubit(u: np.ndarray, qubit: int) -> Written:
    u = u / cmath.sqrt(np.linalg.det(u))
    both, difference = 2 * cmath.phase(u[1, 1]), 2 * cmath.phase(u[1, 0])
    if abs(u[1, 1]) < 1e-15:
        both = 0.0
    if abs(u[1, 0]) < 1e-15:
        difference = 0.0
    theta = 2 * math.atan2(abs(u[1, 0]), abs(u[0, 0]))
    angles = (both - difference) / 2, theta, (both + difference) / 2
    return [(name, (qubit,), (angle,)) for name, angle in zip(("rz", "ry", "rz"), angles, strict=True)]


def _block_diagonal(u1: np.ndarray, u2: np.ndarray, qubits: Sequence[int]) -> Written:
    """U1 where the first qubit is |0⟩, U2 where it is |1⟩: (V ⊕ V) (D ⊕ D†) (W ⊕ W)."""
    v, squares = _eigenvectors(u1 @ u2.conj().T)
    half_phases = np.angle(squares) / 2
    w = np.exp(1j * half_phases)[:, None] * (v.conj().T @ u2)
    return [
        *synthesise(w, qubits[1:]),
        *_multiplexed("rz", -2 * half_phases, qubits),
        *synthesise(v, qubits[1:]),
    ]


def _eigenvectors(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal eigenvectors and eigenvalues of a unitary, equal eigenvalues too.

    Its Hermitian and its skew part commute: eigenvectors of a generic combination are its own. Of three combinations
    the best is taken, since any one may make different eigenvalues equal.
    """
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for phase in _PHASES:
        combination = cmath.exp(-1j * phase) * m
        _, v = np.linalg.eigh((combination + combination.conj().T) / 2)
        product = v.conj().T @ m @ v
        left = float(np.abs(product - np.diag(np.diagonal(product))).max())
        if best is None or left < best[0]:
            best = left, v, np.diagonal(product)
    assert best is not None
    return best[1], best[2]


def _multiplexed(name: str, angles: np.ndarray, qubits: Sequence[int]) -> Written:
    """A rotation of the first qubit whose angle depends on the others, by a Gray code."""
    target, controls = qubits[0], qubits[1:]
    if not controls:
        return [(name, (target,), (float(angles[0]),))]
    index = np.arange(len(angles))
    gray = index ^ (index >> 1)
    signs = 1 - 2.0 * (np.bitwise_count(gray[:, None] & index[None, :]) & 1)
    written: Written = []
    for i, angle in enumerate(signs @ angles / len(angles)):
        changed = min((~i & (i + 1)).bit_length() - 1, len(controls) - 1)
        written += [(name, (target,), (float(angle),)), ("cnot", (controls[-1 - changed], target), ())]
    return written
