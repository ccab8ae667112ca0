"""State vectors of many trajectories; those whose choices were the same so far are one.

Where noise is weak most trajectories share long histories: only what differs is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...circuit.gates import Cnot
from ..density.program import Single
from .program import Choice, Program

__all__ = ["applied", "drawn", "final_states"]

_MOST = 1 << 21  # amplitudes of different trajectories that are held at once


@dataclass
class _Bundle:
    """Trajectories that are computed together.

    Attributes:
        step: The next step.
        states: (D, 2**n), of different histories.
        history: Number of its state for each trajectory.
        numbers: Of the trajectories.
    """

    step: int
    states: np.ndarray
    history: np.ndarray
    numbers: np.ndarray


def final_states(
    program: Program, start: np.ndarray, matrices: np.ndarray, draws: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`(states (D, 2**n), which of them each trajectory ends in (T,), the trajectories' numbers (T,))`, in parts.

    Args:
        program: The circuit.
        start: (2**n,), complex.
        matrices: (singles, 2, 2), of one sample.
        draws: (trajectories, channels), uniform in [0, 1).
    """
    count = len(draws)
    todo = [_Bundle(0, start[None], np.zeros(count, np.int64), np.arange(count))]
    while todo:
        bundle = todo.pop()
        while bundle.step < len(program.steps):
            step = program.steps[bundle.step]
            if isinstance(step, Single):
                bundle.states = applied(bundle.states, matrices[step.number][None], (step.qubit,))
            elif isinstance(step, Cnot):
                bundle.states = _cnot(bundle.states, step.control, step.target)
            else:
                _choose(bundle, step, draws)
            bundle.step += 1
            if bundle.states.size > _MOST and len(bundle.states) > 1:
                bundle, rest = _halves(bundle)
                todo.append(rest)
        yield bundle.states, bundle.history, bundle.numbers


def _halves(bundle: _Bundle) -> tuple[_Bundle, _Bundle]:
    middle = len(bundle.states) // 2
    early = bundle.history < middle
    return (
        _Bundle(bundle.step, bundle.states[:middle], bundle.history[early], bundle.numbers[early]),
        _Bundle(bundle.step, bundle.states[middle:], bundle.history[~early] - middle, bundle.numbers[~early]),
    )


def _choose(bundle: _Bundle, step: Choice, draws: np.ndarray) -> None:
    """One Kraus operator for every trajectory; a state for every history that there is now."""
    states, u = bundle.states, draws[bundle.numbers, step.number]
    if step.probabilities is not None:
        chances = np.broadcast_to(step.probabilities, (len(states), len(step.probabilities)))
    else:
        reduced = _reduced(states, step.qubits)
        chances = np.clip(np.einsum("kab,dba->dk", step.squares, reduced).real, 0.0, None)
    edges = np.cumsum(chances / chances.sum(axis=1, keepdims=True), axis=1)
    choice = (u[:, None] >= edges[bundle.history, :-1]).sum(axis=1)
    histories, bundle.history = np.unique(bundle.history * len(step.operators) + choice, return_inverse=True)
    old, which = np.divmod(histories, len(step.operators))
    new = states[old]
    moved = np.flatnonzero(~step.idle[which])
    if len(moved):
        scale = 1 / np.sqrt(chances[old[moved], which[moved]])
        new[moved] = applied(new[moved], step.operators[which[moved]] * scale[:, None, None], step.qubits)
    bundle.states = new


def _axes(states: np.ndarray, qubits: tuple[int, ...]) -> np.ndarray:
    """A view (D, 2, …, rest) with the axes of some qubits first, and the others as they were."""
    n = states.shape[1].bit_length() - 1
    view = states.reshape(len(states), *(2,) * n)
    return np.moveaxis(view, [1 + q for q in qubits], range(1, 1 + len(qubits)))


def _reduced(states: np.ndarray, qubits: tuple[int, ...]) -> np.ndarray:
    """Density matrices (D, d, d) of some qubits."""
    rows = _axes(states, qubits).reshape(len(states), 1 << len(qubits), -1)
    out: np.ndarray = rows @ rows.conj().swapaxes(1, 2)
    return out


def applied(states: np.ndarray, matrices: np.ndarray, qubits: tuple[int, ...]) -> np.ndarray:
    """Matrices (D or 1, d, d) on some qubits of states (D, 2**n)."""
    if len(qubits) == 1:
        view = states.reshape(len(states), 1 << qubits[0], 2, -1)
        a, b, m = view[:, :, 0], view[:, :, 1], matrices[:, :, :, None, None].astype(states.dtype)
        out = np.empty_like(view)
        out[:, :, 0] = m[:, 0, 0] * a + m[:, 0, 1] * b
        out[:, :, 1] = m[:, 1, 0] * a + m[:, 1, 1] * b
        return out.reshape(states.shape)
    moved = _axes(states, qubits)
    new = matrices.astype(states.dtype) @ moved.reshape(len(states), 1 << len(qubits), -1)
    out = np.empty_like(states)
    _axes(out, qubits)[...] = new.reshape(moved.shape)
    return out


def _cnot(states: np.ndarray, control: int, target: int) -> np.ndarray:
    out = states.copy()
    moved, old = _axes(out, (control, target)), _axes(states, (control, target))
    moved[:, 1, 0], moved[:, 1, 1] = old[:, 1, 1], old[:, 1, 0]
    return out


def drawn(states: np.ndarray, history: np.ndarray, u: np.ndarray) -> np.ndarray:
    """A basis state for each trajectory, by the Born rule and a number in [0, 1)."""
    edges = np.cumsum(np.abs(states) ** 2, axis=1, dtype=np.float64)
    size = states.shape[1]
    order = np.argsort(history, kind="stable")
    begins = np.searchsorted(history[order], np.arange(len(states) + 1))
    out = np.empty(len(history), np.int64)
    for k, row in enumerate(edges):
        mine = order[begins[k] : begins[k + 1]]
        out[mine] = np.minimum(np.searchsorted(row, u[mine] * row[-1], side="right"), size - 1)
    return out
