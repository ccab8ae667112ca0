"""State vectors of many trajectories; those whose choices were the same so far are one.

Where noise is weak most trajectories share long histories: only what differs is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...circuit.gates.table import Cnot
from ..density.program import Single
from .program import Choice, Program

__all__ = ["drawn", "final_states"]

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
    program: Program, start: np.ndarray, matrices: np.ndarray, draws: np.ndarray, ops: Any
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`(states (D, 2**n), which of them each trajectory ends in (T,), the trajectories' numbers (T,))`, in parts.

    Args:
        program: The circuit.
        start: (2**n,), complex.
        matrices: (singles, 2, 2), of one sample.
        draws: (trajectories, channels), uniform in [0, 1).
        ops: `arrays` or `kernels`.
    """
    count = len(draws)
    todo = [_Bundle(0, start[None].copy(), np.zeros(count, np.int64), np.arange(count))]
    while todo:
        bundle = todo.pop()
        while bundle.step < len(program.steps):
            step = program.steps[bundle.step]
            if isinstance(step, Single):
                ops.apply(bundle.states, matrices[step.number][None], (step.qubit,))
            elif isinstance(step, Cnot):
                ops.cnot(bundle.states, step.control, step.target)
            else:
                _choose(bundle, step, draws, ops)
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


def _choose(bundle: _Bundle, step: Choice, draws: np.ndarray, ops: Any) -> None:
    """One Kraus operator for every trajectory; a state for every history that there is now."""
    states, u = bundle.states, draws[bundle.numbers, step.number]
    if step.probabilities is not None:
        chances = np.broadcast_to(step.probabilities, (len(states), len(step.probabilities)))
    else:
        reduced = ops.reduced(states, step.qubits)
        chances = np.clip(np.einsum("kab,dba->dk", step.squares, reduced).real, 0.0, None)
    edges = np.cumsum(chances / chances.sum(axis=1, keepdims=True), axis=1)
    choice = (u[:, None] >= edges[bundle.history, :-1]).sum(axis=1)
    histories, bundle.history = np.unique(bundle.history * len(step.operators) + choice, return_inverse=True)
    old, which = np.divmod(histories, len(step.operators))
    new = states[old]
    moved = np.flatnonzero(~step.idle[which])
    if len(moved):
        scale = 1 / np.sqrt(chances[old[moved], which[moved]])
        turned = new[moved]
        ops.apply(turned, step.operators[which[moved]] * scale[:, None, None], step.qubits)
        new[moved] = turned
    bundle.states = new


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
