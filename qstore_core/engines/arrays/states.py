"""The states of a circuit on NumPy arrays, and the vjp of that: for what needs states and not what is measured of them.

Amplitudes come in the order of the last frame and without global phases: overlaps of states of one circuit do not
depend on either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...circuit.angles.functions import flattened
from ...circuit.circuit import Circuit
from ...circuit.lowering.plan import Diagonal, Plan, collect_diagonals, decompose, drop_unseen, track
from ...circuit.measurements.measurement import Expectation
from ...circuit.noise.channels import refuse_channels
from .adjoint import value_and_vjp
from .numpy_ops import NumpyOps
from .program import ArrayProgram

__all__ = ["StateProgram"]

VjpFn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class StateProgram:
    """States of a circuit, (B, 2**n) complex, but for what all of them end with.

    Gates behind the last one that differs from sample to sample turn all states alike, so that overlaps do not change:
    they are left out, and their weights have gradient zero.

    Args:
        circuit: With or without amplitude inputs.
    """

    def __init__(self, circuit: Circuit) -> None:
        """Lay the circuit out for arrays."""
        refuse_channels(circuit, "overlaps are of states")
        flat, self._derived = flattened(circuit)
        n = circuit.n_qubits
        made, frames = track(decompose(flat), n)
        steps = list(collect_diagonals(made))
        while steps and not _uses_inputs(steps[-1]):
            steps.pop()
        everything = [(1 << q, 0) for q in range(n)] + [(0, 1 << q) for q in range(n)]
        steps = drop_unseen(steps, everything, from_zero=not circuit.n_amplitudes)
        measured = Expectation(("Z",)).lower(n, frames[-1], len(frames) - 1)
        plan = Plan(n, flat.n_weights, flat.n_inputs, flat.n_amplitudes, tuple(frames), tuple(steps), measured)
        self._program, self._ops = ArrayProgram(plan), NumpyOps()
        self._program.measuring = _Amplitudes()  # type: ignore[assignment]

    def states(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """`theta` (W,), `inputs` (B, I): unit amplitudes, then angles → (B, 2**n)."""
        return np.asarray(self._program.forward(self._ops, *self._extended(theta, inputs)[:2]))

    def states_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, VjpFn]:
        """The same, and the function that pulls dL/dRe + i dL/dIm of the amplitudes back to theta and inputs."""
        theta, inputs, derived_vjp = self._extended(theta, inputs)
        states, vjp_fn = value_and_vjp(self._program, self._ops, theta, inputs)
        return states, vjp_fn if derived_vjp is None else lambda cotangents: derived_vjp(*vjp_fn(cotangents))

    def _extended(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        """Weights and inputs with what is computed from them before the circuit, and the vjp of that."""
        if self._derived is None:
            return theta, inputs, None
        with np.errstate(all="ignore"):
            theta, inputs, vjp_fn = self._derived.extend(self._ops, theta, inputs)
        if not (np.isfinite(theta).all() and np.isfinite(inputs).all()):
            self._derived.refuse(theta, inputs, "states")
        return theta, inputs, vjp_fn


class _Amplitudes:
    """In the place of a measurement: the state itself."""

    def outputs(self, ops: Any, state: np.ndarray) -> np.ndarray:
        return state

    def pull(self, ops: Any, state: np.ndarray, cotangents: np.ndarray) -> np.ndarray:
        return cotangents


def _uses_inputs(step: Any) -> bool:
    if isinstance(step, Diagonal):
        return any(angle.uses_inputs for _, angle in step.terms)
    return bool(step.uses_inputs)
