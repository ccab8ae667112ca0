"""Computes a `circuit.lowering.window.Window` in any array namespace.

What is held per sample is ⟨P⟩ for every Pauli string P on the qubits of the window: 4**w real numbers, which CNOTs
permute, and of which a rotation turns the letters X, Y and Z of its qubit. The gradient is a reverse sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..circuit.angles.angle import Angle
from ..circuit.circuit import Circuit
from ..circuit.lowering.plan import Factor
from ..circuit.lowering.window import Enter, Gather, Rotate, Window
from .arrays.angles import Polynomials, plus
from .arrays.ops import Array, Ops, frozen

__all__ = ["WindowProgram"]

_START = frozen(np.ones((1, 1)))
_ZERO = frozen(np.array([[1.0, 0.0, 0.0, 1.0]]))  # ⟨I⟩, ⟨X⟩, ⟨Y⟩, ⟨Z⟩ of |0⟩
_PADDING: Factor = ((0.0, 0.0, 1.0), Angle())
VjpFn = Callable[[Array], tuple[Array, Array]]


class _Rotations:
    """What many fused rotations do to ⟨I⟩, ⟨X⟩, ⟨Y⟩, ⟨Z⟩: (R, 4, 4), or (B, R, 4, 4) where samples differ.

    About axis n, by angle a: nnᵀ + cos a (1 - nnᵀ) + sin a [n]×, on the last three.
    """

    def __init__(self, rotations: Sequence[tuple[Factor, ...]], circuit: Circuit) -> None:
        """Pad the factor lists to one length with rotations by zero."""
        self.count = len(rotations)
        self.length = max((len(factors) for factors in rotations), default=0)
        table = [[f[k] if k < len(f) else _PADDING for f in rotations] for k in range(self.length)]
        self.angles = Polynomials([angle for row in table for _, angle in row], circuit)
        parts = np.zeros((3, self.length, self.count, 4, 4))
        parts[0, :, :, 0, 0] = 1.0
        for k, row in enumerate(table):
            for r, (axis, _) in enumerate(row):
                along = np.outer(axis, axis)
                x, y, z = axis
                parts[:, k, r, 1:, 1:] = along, np.eye(3) - along, [[0, -z, y], [z, 0, -x], [-y, x, 0]]
        self._fixed, self._cos, self._sin = (frozen(np.ascontiguousarray(part)) for part in parts)

    def factors(self, ops: Ops, theta: Array, x: Array) -> tuple[Array, Array]:
        """(…, K, R, 4, 4) of all factors, and their derivatives by the angle."""
        angles = self.angles.evaluate(ops, theta, x)
        angles = ops.reshape(angles, (*self._lead, self.length, self.count, 1, 1))
        wide = ops.wide(angles)
        cos, sin = (ops.narrow(f(wide), angles) for f in (ops.cos, ops.sin))
        of_cos, of_sin = ops.const(self._cos, theta), ops.const(self._sin, theta)
        return ops.const(self._fixed, theta) + cos * of_cos + sin * of_sin, cos * of_sin - sin * of_cos

    def matrices(self, ops: Ops, theta: Array, x: Array) -> Array:
        """The products of the factors."""
        factors, _ = self.factors(ops, theta, x)
        out = factors[..., 0, :, :, :]
        for k in range(1, self.length):
            out = ops.matmul(factors[..., k, :, :, :], out)
        return out

    def pull(self, ops: Ops, theta: Array, x: Array, gradient: Array) -> tuple[Array | None, Array | None]:
        """Gradients of the matrices as those of theta and x."""
        factors, slopes = self.factors(ops, theta, x)
        at = [factors[..., k, :, :, :] for k in range(self.length)]
        before: list[Array] = [None] * self.length  # product of the factors applied before factor k
        for k in range(1, self.length):
            before[k] = at[k - 1] if before[k - 1] is None else ops.matmul(at[k - 1], before[k - 1])
        owns: list[Array] = [None] * self.length
        for k in range(self.length - 1, -1, -1):
            owns[k] = gradient if before[k] is None else ops.matmul(gradient, ops.swap_last(before[k]))
            if k:
                gradient = ops.matmul(ops.swap_last(at[k]), gradient)
        product = ops.reshape(ops.stack(owns, -4) * slopes, (*self._lead, self.length * self.count, 16))
        return self.angles.pull(ops, theta, x, ops.sum(product, -1))

    @property
    def _lead(self) -> tuple[int, ...]:
        return (-1,) if self.angles.uses_inputs else ()


class WindowProgram:
    """A window's steps, laid out for arrays. Immutable after construction; shared by threads.

    Args:
        window: The steps.
        combine: (strings, outputs), strings in the order in which they are read.
        circuit: Whose weights and inputs the angles are made of.
    """

    def __init__(self, window: Window, combine: np.ndarray, circuit: Circuit) -> None:
        """Sort rotations into those that samples share and those in which they differ."""
        self.window, self._combine, self._circuit = window, combine, circuit
        self._plain = combine.shape[0] == combine.shape[1] and np.array_equal(combine, np.eye(len(combine)))
        own = [any(angle.uses_inputs for _, angle in factors) for factors in window.rotations]
        self._kinds = tuple(
            _Rotations([f for f, mine in zip(window.rotations, own, strict=True) if mine == sampled], circuit)
            for sampled in (False, True)
        )
        counts = [0, 0]
        self._which: list[tuple[bool, int]] = []
        for sampled in own:
            self._which.append((sampled, counts[sampled]))
            counts[sampled] += 1
        self._transposes = {id(step): _Transpose(step) for step in window.steps if isinstance(step, Gather)}

    def forward(self, ops: Ops, theta: Array, x: Array) -> Array:
        """`theta` (W,), `x` (B, I) → outputs (B, O)."""
        return self._run(ops, theta, x, None)

    def value_and_vjp(self, ops: Ops, theta: Array, x: Array) -> tuple[Array, VjpFn]:
        """The same, and the function that pulls cotangents (B, O) back to theta (W,) and x (B, I)."""
        kept: list[Any] = []
        outputs = self._run(ops, theta, x, kept)
        return outputs, lambda cotangents: self._pull(ops, theta, x, kept, cotangents)

    def _run(self, ops: Ops, theta: Array, x: Array, kept: list[Any] | None) -> Array:
        matrices = [kind.matrices(ops, theta, x) if kind.count else None for kind in self._kinds]
        values, zero = [], ops.zero_column(x)
        state, size, single = ops.const(_START, theta), 1, True
        for step in self.window.steps:
            if kept is not None:
                kept.append([state, None, single])
            if isinstance(step, Gather):
                state = ops.take(state, step.index, -1)
                if step.sign is not None:
                    state = state * ops.const(step.sign, theta)
                size = len(step.index) - step.reads
                if step.reads:
                    values.append(state[:, : step.reads] + zero if single else state[:, : step.reads])
                    state = state[:, step.reads :]
                continue
            sampled, matrix = self._matrix(step, matrices)
            if isinstance(step, Enter):
                entering = self._entering(ops, theta, matrix)
                state = ops.reshape(state, (-1, size, 1)) * ops.reshape(entering, (-1, 1, 4))
                size *= 4
                matrix = entering
            elif sampled:
                state = ops.matmul(ops.reshape(state, (-1, size // 4, 4)), ops.swap_last(matrix))
            else:
                state = ops.matmul(ops.reshape(state, (-1, 4)), ops.swap_last(matrix))
            state = ops.reshape(state, (-1, size))
            single = single and not sampled
            if kept is not None:
                kept[-1][1] = matrix
        out = values[0] if len(values) == 1 else ops.concat(values)
        return out if self._plain else ops.matmul(out, ops.const(self._combine, theta))

    def _matrix(self, step: Enter | Rotate, matrices: Sequence[Array]) -> tuple[bool, Array | None]:
        if step.rotation is None:
            return False, None
        sampled, number = self._which[step.rotation]
        return sampled, matrices[sampled][..., number, :, :]

    def _entering(self, ops: Ops, theta: Array, matrix: Array | None) -> Array:
        """(1, 4) or (B, 4): the matrix on |0⟩."""
        if matrix is None:
            return ops.const(_ZERO, theta)
        return ops.reshape(matrix[..., 0] + matrix[..., 3], (-1, 4))

    def _pull(self, ops: Ops, theta: Array, x: Array, kept: list[Any], cotangents: Array) -> tuple[Array, Array]:
        d_values = cotangents
        if not self._plain:
            d_values = ops.matmul(cotangents, ops.swap_last(ops.const(self._combine, theta)))
        last, lam = self._combine.shape[0], None
        gradients: list[list[Array]] = [[None] * kind.count for kind in self._kinds]
        for step, (state, matrix, single) in zip(reversed(self.window.steps), reversed(kept), strict=True):
            if isinstance(step, Gather):
                if step.reads:
                    read = d_values[:, last - step.reads : last]
                    last -= step.reads
                    if single:
                        read = ops.sum(read, 0, True)
                    lam = read if lam is None else ops.concat([read, lam])
                if step.sign is not None:
                    lam = lam * ops.const(step.sign, theta)
                lam = self._transposes[id(step)].pull(ops, lam)
                continue
            size = state.shape[-1]
            sampled, number = (False, 0) if step.rotation is None else self._which[step.rotation]
            if isinstance(step, Enter):
                lam = ops.reshape(lam, (-1, size, 4))
                if step.rotation is not None:
                    own = ops.sum(lam * ops.reshape(state, (-1, size, 1)), 1)  # (B, 4), or (1, 4)
                    own = own if sampled else ops.sum(own, 0, True)
                    own = ops.reshape(own, (-1, 4, 1)) * ops.const(_ZERO, theta)
                    gradients[sampled][number] = own if sampled else ops.reshape(own, (4, 4))
                lam = ops.sum(lam * ops.reshape(matrix, (-1, 1, 4)), -1)
            elif sampled:
                lam = ops.reshape(lam, (-1, size // 4, 4))
                gradients[1][number] = ops.matmul(ops.swap_last(lam), ops.reshape(state, (-1, size // 4, 4)))
                lam = ops.reshape(ops.matmul(lam, matrix), (-1, size))
            else:
                lam = ops.reshape(lam, (-1, 4))
                gradients[0][number] = ops.matmul(ops.swap_last(lam), ops.reshape(state, (-1, 4)))
                lam = ops.reshape(ops.matmul(lam, matrix), (-1, size))
            if single and sampled:
                lam = ops.sum(lam, 0, True)
        d_theta = d_x = None
        for kind, own in zip(self._kinds, gradients, strict=True):
            if kind.count:
                more_theta, more_x = kind.pull(ops, theta, x, ops.stack(own, -3))
                d_theta, d_x = plus(d_theta, more_theta), plus(d_x, more_x)
        zero = ops.zero_column(x)
        if d_theta is None:
            d_theta = ops.const(frozen(np.zeros(self._circuit.n_weights)), theta)
        if d_x is None:
            d_x = x if not self._circuit.n_inputs else zero + ops.const(np.zeros((1, self._circuit.n_inputs)), theta)
        return d_theta, d_x


class _Transpose:
    """The transpose of a gather: every old entry takes from where it went, from one past the last where nowhere."""

    def __init__(self, step: Gather) -> None:
        count, size = len(step.index), step.size
        order = np.argsort(step.index, kind="stable")
        times = np.bincount(step.index, minlength=size)
        self._size, self._most = size, max(int(times.max(initial=0)), 1)
        rank = np.arange(count) - np.repeat(np.cumsum(times) - times, times)
        sources = np.full((size, self._most), count)
        sources[step.index[order], rank] = order
        self._sources, self._pads = frozen(sources.ravel()), bool((times < self._most).any())

    def pull(self, ops: Ops, gradient: Array) -> Array:
        """Gradient (B, new) → (B, old)."""
        if self._pads:
            gradient = ops.concat([gradient, ops.zero_column(gradient)])
        out = ops.take(gradient, self._sources, -1)
        return out if self._most == 1 else ops.sum(ops.reshape(out, (-1, self._size, self._most)), -1)
