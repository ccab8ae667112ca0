"""Gradients without a statevector: composed once over `Executable.forward`, for any backend.

`ParameterShift` is exact: shifts act on single gate angles, the chain rule takes them to weights and features.
`Differences` approximates: finite differences along every weight and feature, or along one random direction per sample
(SPSA), whose cost does not grow with the circuit.

All of them run the *unshared* circuit, in which every gate angle is an input, so that weights may differ from row to
row: all circuits of a batch are one call of forward.

Source:
    Schuld et al., arXiv:1811.11184 (two terms); Anselmetti et al., arXiv:2104.05695 (four terms); Spall, "Multivariate
    stochastic approximation using a simultaneous perturbation gradient approximation", IEEE TAC 37 (1992).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..circuit.angles.angle import Angle
from ..circuit.circuit import Circuit
from ..circuit.gates.table import GATES, SHIFT_RULES
from ..engines.arrays.angles import Polynomials
from ..errors import GradientError

__all__ = ["NO_AMPLITUDE_RULE", "Differences", "ParameterShift", "unshared"]

NO_AMPLITUDE_RULE = (
    "gradients for amplitude-encoded inputs have no parameter-shift rule. Use a backend with a statevector "
    '(backend="statevector"; "density" where there is noise), encoding="angle", an approximation '
    '(gradient="finite-difference" or "spsa")'
)


def unshared(circuit: Circuit) -> Circuit:
    """The same gates with one input per gate angle, in order, and no weights.

    Example:
        >>> c = Circuit(1)
        >>> w, = c.weights(1)
        >>> c.ry(w, 0); c.rz(2 * w, 0)
        >>> unshared(c).n_inputs, unshared(c).n_weights
        (2, 0)
    """
    out = Circuit(circuit.n_qubits, amplitudes=circuit.n_amplitudes > 0)
    slots = iter(out.inputs(sum(len(op.params) for op in circuit.operations)))
    for op in circuit.operations:
        out.append(op.channel or op.gate, op.qubits, [next(slots) for _ in op.params])
    hash(out)
    return out


class ParameterShift:
    """Exact gradients by shifted gate angles.

    Args:
        circuit: The circuit.
        forward: `(theta, inputs) → outputs` of `unshared(circuit)`; theta is empty.
    """

    def __init__(self, circuit: Circuit, forward: Callable[..., Any]) -> None:
        """Tabulate the rule of every angle."""
        self.circuit, self.forward, self._angles = circuit, forward, Polynomials(_gate_angles(circuit))
        self._rules = [
            SHIFT_RULES[rule] for rule in (GATES[op.gate].shift for op in circuit.operations for _ in op.params)
        ]

    def _shifts(self, wrt_theta: bool, wrt_inputs: bool) -> list[tuple[int, float, float]]:
        """Shifts `(angle, shift, coefficient)` of the angles that depend on what is wanted, and of no others."""
        wanted = {kind for kind, asked in (("w", wrt_theta), ("x", wrt_inputs)) if asked}
        return [
            (k, shift, coefficient)
            for k, (rule, angle) in enumerate(zip(self._rules, self._angles.angles, strict=True))
            if any(kind in wanted for kind, _ in angle.slots)
            for shift, coefficient in rule
        ]

    def vjp(
        self,
        theta: np.ndarray,
        inputs: np.ndarray,
        cotangents: np.ndarray,
        *,
        wrt_theta: bool = True,
        wrt_inputs: bool = True,
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Pull cotangents (B, O) back, by one circuit per row, shift and angle that is needed.

        Rows whose cotangents are all zero need none.

        Returns:
            `(d_theta (W,), d_inputs (B, I))`; None for what is not wanted.

        Raises:
            GradientError: amplitudes are inputs and their gradient is asked for.
        """
        width = self.circuit.n_amplitudes
        if width and wrt_inputs:
            raise GradientError(f"{NO_AMPLITUDE_RULE}, or inputs that need no gradient.")
        shifts, needed = self._shifts(wrt_theta, wrt_inputs), np.asarray(cotangents).any(axis=1)
        batch, count = int(needed.sum()), len(shifts)
        amplitudes, x = inputs[:, :width], inputs[:, width:]
        thetas = np.broadcast_to(theta, (len(inputs), len(theta)))
        values = self._angles.values(thetas, x)
        d_angles = np.zeros_like(values)
        if count and batch:
            shifted = np.repeat(values[None, needed], count, axis=0)
            for row, (k, shift, _) in enumerate(shifts):
                shifted[row, :, k] += shift
            columns = [np.broadcast_to(amplitudes[needed], (count, batch, width)), shifted]
            points = np.concatenate(columns, axis=2).reshape(count * batch, -1)
            outputs = _call(self.forward, points, inputs.dtype).reshape(count, batch, -1)
            slopes = (outputs * cotangents[needed]).sum(axis=2)
            for row, (k, _, coefficient) in enumerate(shifts):
                d_angles[needed, k] += coefficient * slopes[row]
        d_theta, d_x = self._angles.vjp(thetas, x, d_angles)
        return (
            d_theta.sum(axis=0).astype(theta.dtype) if wrt_theta else None,
            d_x.astype(inputs.dtype) if wrt_inputs else None,
        )


class Differences:
    """Approximate gradients by central differences: along every parameter, or along random directions.

    Args:
        circuit: The circuit.
        forward: `(theta, inputs) → outputs` of `unshared(circuit)`; theta is empty. In float64 where values are exact.
        step: In radians; the error is of its second order.
        rng: None for finite differences: 2 (W + I) circuits per sample. A generator for SPSA: two per sample, whatever
            the circuit; every parameter of every sample moves up or down at random, all at once. The result is right
            on average (up to the second order of the step) and scatters as widely as the sum of all other slopes.
    """

    def __init__(
        self, circuit: Circuit, forward: Callable[..., Any], *, step: float, rng: np.random.Generator | None = None
    ) -> None:
        self.circuit, self.forward, self.step, self._rng = circuit, forward, step, rng
        self._angles = Polynomials(_gate_angles(circuit))

    def vjp(
        self,
        theta: np.ndarray,
        inputs: np.ndarray,
        cotangents: np.ndarray,
        *,
        wrt_theta: bool = True,
        wrt_inputs: bool = True,
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Pull cotangents (B, O) back.

        Returns:
            `(d_theta (W,), d_inputs (B, I))`; None for what is not wanted, which costs no circuits. Amplitudes move on
            the sphere: their gradient is that of the normalised row.
        """
        weights, (batch, columns) = len(theta) if wrt_theta else 0, inputs.shape
        count = weights + (columns if wrt_inputs else 0)
        gradient = np.zeros((batch, count))
        if batch and count:
            if self._rng is None:
                moves = np.broadcast_to(np.eye(count)[:, None], (count, batch, count))
            else:
                moves = self._rng.choice((-1.0, 1.0), (1, batch, count))
            steps = np.full(count, self.step)
            if self._rng is not None:  # all amplitudes move at once, and together by one step
                steps[weights : weights + self.circuit.n_amplitudes] /= math.sqrt(max(1, self.circuit.n_amplitudes))
            signed = np.concatenate([steps * moves, -steps * moves]).reshape(-1, count)
            points = self._points(theta, inputs, signed, weights)
            outputs = _call(self.forward, points, np.dtype(np.float64)).reshape(2, len(moves), batch, -1)
            slopes = ((outputs[0] - outputs[1]) * cotangents).sum(axis=2)
            gradient = (moves * slopes[:, :, None]).sum(axis=0) / (2 * steps)
        return (
            gradient[:, :weights].sum(axis=0).astype(theta.dtype) if wrt_theta else None,
            gradient[:, weights:].astype(inputs.dtype) if wrt_inputs else None,
        )

    def _points(self, theta: np.ndarray, inputs: np.ndarray, moves: np.ndarray, weights: int) -> np.ndarray:
        """Inputs of the unshared circuit, a row for every move of a row's first `weights` and further parameters."""
        width, repeats = self.circuit.n_amplitudes, len(moves) // len(inputs)
        thetas = np.tile(np.asarray(theta, np.float64), (len(moves), 1))
        thetas[:, :weights] += moves[:, :weights]
        moved = np.tile(np.asarray(inputs, np.float64), (repeats, 1))
        if moves.shape[1] > weights:
            moved += moves[:, weights:]
        amplitudes = moved[:, :width]
        if width:
            amplitudes = amplitudes / np.linalg.norm(amplitudes, axis=1, keepdims=True)
        return np.concatenate([amplitudes, self._angles.values(thetas, moved[:, width:])], axis=1)


def _call(forward: Callable[..., Any], points: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.asarray(forward(np.zeros(0, dtype), np.ascontiguousarray(points, dtype)))


def _gate_angles(circuit: Circuit) -> list[Angle]:
    return [angle for op in circuit.operations for angle in op.params]
