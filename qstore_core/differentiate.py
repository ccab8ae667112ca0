"""Gradients without a statevector: composed once over `Executable.forward`, for any backend.

`with_gradient` gives every executable the method `value_and_vjp`: its own where the backend has one, the
parameter-shift rule where not. Shifts act on single gate angles (the *unshared* circuit, in which every gate angle is
an input); the chain rule takes them to weights and features. All shifted circuits of a batch are one call of forward.

Source:
    Schuld et al., arXiv:1811.11184 (two terms); Anselmetti et al., arXiv:2104.05695 (four terms).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .backend import Executable
from .circuit import Circuit
from .errors import GradientError
from .gates import GATES

__all__ = ["ParameterShift", "finite_difference", "unshared"]

# (shift, coefficient): dL/da = Σ coefficient · L(a + shift)
_R2 = math.sqrt(2.0)
SHIFT_RULES: dict[str, tuple[tuple[float, float], ...]] = {
    "two-term": ((math.pi / 2, 0.5), (-math.pi / 2, -0.5)),
    "four-term": (
        (math.pi / 2, (_R2 + 1) / (4 * _R2)),
        (-math.pi / 2, -(_R2 + 1) / (4 * _R2)),
        (3 * math.pi / 2, -(_R2 - 1) / (4 * _R2)),
        (-3 * math.pi / 2, (_R2 - 1) / (4 * _R2)),
    ),
}


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
        out.append(op.gate, op.qubits, [next(slots) for _ in op.params])
    hash(out)
    return out


class ParameterShift:
    """Exact gradients by shifted gate angles.

    Args:
        circuit: The circuit.
        forward: `(theta, inputs) → outputs` of the circuit.
        forward_unshared: The same of `unshared(circuit)`; its theta is empty.
    """

    def __init__(self, circuit: Circuit, forward: Callable[..., Any], forward_unshared: Callable[..., Any]) -> None:
        """Tabulate the rule of every angle."""
        self.circuit, self.forward, self._unshared = circuit, forward, forward_unshared
        params = [(GATES[op.gate].shift, angle) for op in circuit.operations for angle in op.params]
        self._angles = [angle for _, angle in params]
        # An angle without slots needs no derivative.
        self._shifts = [
            (k, shift, coefficient)
            for k, (rule, angle) in enumerate(params)
            if not angle.is_constant
            for shift, coefficient in SHIFT_RULES[rule]
        ]

    def value_and_vjp(
        self, theta: np.ndarray, inputs: np.ndarray, *, wrt_inputs: bool = True
    ) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]]:
        """Outputs, and the function that pulls cotangents back.

        Raises:
            GradientError: amplitudes are inputs and their gradient is asked for.
        """
        width = self.circuit.n_amplitudes
        if width and wrt_inputs:
            raise GradientError(
                "gradients for amplitude-encoded inputs have no parameter-shift rule. Use a backend with a statevector "
                '(backend="statevector"), encoding="angle", or inputs that need no gradient.'
            )
        return self.forward(theta, inputs), lambda cotangents: self._pull_back(theta, inputs, cotangents)

    def _pull_back(
        self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        width, batch = self.circuit.n_amplitudes, len(inputs)
        amplitudes, x = inputs[:, :width], inputs[:, width:]
        values, jacobian = self._evaluate(theta, x)
        count = len(self._shifts)
        d_angles = np.zeros_like(values)
        if count and batch:
            shifted = np.repeat(values[None], count, axis=0)
            for row, (k, shift, _) in enumerate(self._shifts):
                shifted[row, :, k] += shift
            columns = [np.broadcast_to(amplitudes, (count, *amplitudes.shape)), shifted]
            points = np.ascontiguousarray(np.concatenate(columns, axis=2).reshape(count * batch, -1), inputs.dtype)
            outputs = np.asarray(self._unshared(np.zeros(0, inputs.dtype), points)).reshape(count, batch, -1)
            slopes = (outputs * cotangents).sum(axis=2)
            for row, (k, _, coefficient) in enumerate(self._shifts):
                d_angles[:, k] += coefficient * slopes[row]
        d_theta, d_x = jacobian(d_angles)
        return d_theta.astype(theta.dtype), None if width else d_x.astype(inputs.dtype)

    def _evaluate(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, Callable[..., Any]]:
        """Gate angles (B, A) in float64, and the pull-back through their polynomials."""
        ext = {
            "w": np.broadcast_to(np.asarray(theta, np.float64), (len(x), len(theta))),
            "x": np.asarray(x, np.float64),
        }
        values = np.zeros((len(x), len(self._angles)))
        for k, angle in enumerate(self._angles):
            for monomial, coefficient in angle.terms:
                term = np.full(len(x), coefficient)
                for kind, index in monomial:
                    term = term * ext[kind][:, index]
                values[:, k] += term

        def pull(d_angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            out = {"w": np.zeros((len(x), len(theta))), "x": np.zeros(x.shape)}
            for k, angle in enumerate(self._angles):
                for monomial, coefficient in angle.terms:
                    for place, (kind, index) in enumerate(monomial):
                        term = coefficient * d_angles[:, k]
                        for other, (kind2, index2) in enumerate(monomial):
                            if other != place:
                                term = term * ext[kind2][:, index2]
                        out[kind][:, index] += term
            return out["w"].sum(axis=0), out["x"]

        return values, pull


def finite_difference(
    executable: Executable,
    theta: np.ndarray,
    inputs: np.ndarray,
    cotangents: np.ndarray,
    step: float = 1e-6,
) -> tuple[np.ndarray, np.ndarray]:
    """Central differences of `(cotangents · forward)`; an approximation, for checks in float64.

    Returns:
        `(d_theta (W,), d_inputs (B, I))`.
    """

    def loss(t: np.ndarray, x: np.ndarray) -> np.ndarray:
        return (np.asarray(executable.forward(t, x)) * cotangents).sum(axis=1)

    d_theta = np.zeros(len(theta))
    for j in range(len(theta)):
        bump = np.zeros_like(theta)
        bump[j] = step
        d_theta[j] = (loss(theta + bump, inputs) - loss(theta - bump, inputs)).sum() / (2 * step)
    d_inputs = np.zeros(inputs.shape)
    for i in range(inputs.shape[1]):  # samples are independent: one column of all at once
        bump = np.zeros_like(inputs)
        bump[:, i] = step
        d_inputs[:, i] = (loss(theta, inputs + bump) - loss(theta, inputs - bump)) / (2 * step)
    return d_theta, d_inputs
