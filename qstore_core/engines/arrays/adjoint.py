"""Adjoint gradients in any array namespace: one forward pass, then one reverse sweep over the layers.

The sweep carries lambda = dL/dψ back through the circuit and contracts it with ψ to the gradient of each layer's small
matrices; the chain rule takes these to weights and inputs. Complex gradients are dL/dRe + i dL/dIm.

ψ before each step is kept from the forward pass where that is cheap, and un-applied from the end state where it is
not: then memory does not grow with depth.

Source:
    Jones & Gacon, arXiv:2009.02823.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .angles import Polynomials, plus
from .ops import Array, Ops, frozen
from .program import (
    ArrayProgram,
    DiagonalLayer,
    Group,
    KronLayer,
    Stack,
    kronecker_index,
)
from .rotations import Factors, FusedRotations

__all__ = ["KEEP_BYTES", "pull_kronecker", "value_and_vjp"]

KEEP_BYTES = 1 << 25
"""States of the forward pass are kept up to this size."""

Pull = Callable[[Array], tuple[Array, Array]]


@dataclass
class _Kept:
    """ψ before a group or after a diagonal layer; `single` where one row stands for all samples."""

    state: Array
    single: bool
    phases: Array = None


def value_and_vjp(program: ArrayProgram, ops: Ops, theta: Array, inputs: Array) -> tuple[Array, Pull]:
    """Outputs (B, O), and `pull(cotangents (B, O)) → (d_theta (W,), d_inputs (B, I))`."""
    sweep = _Sweep(program, ops, theta, inputs)
    return sweep.outputs, sweep.pull


class _Sweep:
    def __init__(self, program: ArrayProgram, ops: Ops, theta: Array, inputs: Array) -> None:
        self.program, self.ops, self.theta, self.inputs = program, ops, theta, inputs
        state, self.x = program.start(ops, theta, inputs)
        self.factors = program.factors(ops, theta, self.x)
        self.stacks = program.kronecker(ops, self.factors, state)
        self.drift = program.drift(ops, self.stacks)
        rows, itemsize = inputs.shape[0], 16 if "64" in str(theta.dtype) else 8
        steps = sum(len(getattr(layer, "groups", (0,))) for layer in program.layers)
        size = rows * steps * itemsize << program.plan.n_qubits if isinstance(rows, int) else None  # or a symbol
        self.kept: dict[tuple[int, int], _Kept] | None = {} if size is None or size <= KEEP_BYTES else None
        self.single = program.from_zero
        self.state = self._forward(state)
        outputs = program.corrected(program.measuring.outputs(ops, self.state), self.drift)
        self.outputs = outputs + ops.zero_column(inputs) if program.from_zero else outputs

    def _forward(self, state: Array) -> Array:
        program, ops = self.program, self.ops
        for number, layer in enumerate(program.layers):
            if isinstance(layer, DiagonalLayer):
                phases = program.phases(ops, layer, self.theta, self.x)
                state, self.drift = state * phases, plus(self.drift, program.phase_drift(ops, phases))
                self.single = self.single and not layer.per_sample
                if self.kept is not None:
                    self.kept[number, 0] = _Kept(state, self.single, phases)
                continue
            if program.is_product(number):
                state = program.product_state(ops, layer, self.stacks)
                self.single = not any(group.per_sample for group in layer.groups)
                continue
            if layer.gather is not None:
                state = ops.permute(state, layer.gather)
            for k, group in enumerate(layer.groups):
                if self.kept is not None:
                    self.kept[number, k] = _Kept(state, self.single)
                state = program.apply_group(ops, state, group, self.stacks[group.key].matrix(group.number))
                self.single = self.single and not group.per_sample
        return state

    def pull(self, cotangents: Array) -> tuple[Array, Array]:
        """Pull cotangents back through everything."""
        program, ops = self.program, self.ops
        psi, gradients = self.state, _Gradients(self)
        cotangents = program.corrected(cotangents, self.drift)
        if self.single:  # nothing differed between samples
            cotangents = ops.sum(cotangents, 0, True)
        lam = program.measuring.pull(ops, psi, cotangents)
        one_row = self.single
        for number in range(len(program.layers) - 1, -1, -1):
            layer = program.layers[number]
            if isinstance(layer, DiagonalLayer):
                kept = self.kept[number, 0] if self.kept is not None else None
                if kept is not None:
                    psi, phases = kept.state, kept.phases
                    lam, one_row = self._collapse(lam, one_row, kept.single)
                else:
                    phases = program.phases(ops, layer, self.theta, self.x)
                back = ops.conj(phases)
                gradients.add_phases(layer, psi, lam)
                psi, lam = psi if kept else psi * back, lam * back
                continue
            if program.is_product(number):
                gradients.add_product(layer, lam)
                return gradients.finish(lam)
            for k in range(len(layer.groups) - 1, -1, -1):
                group = layer.groups[k]
                matrix = ops.swap_last(ops.conj(self.stacks[group.key].matrix(group.number)))
                if self.kept is not None:
                    kept = self.kept[number, k]
                    psi = kept.state
                    if not group.per_sample:
                        lam, one_row = self._collapse(lam, one_row, kept.single)
                else:
                    psi = program.apply_group(ops, psi, group, matrix)
                gradients.stacks[group.key][group.number] = self._contract(lam, psi, group)
                lam = program.apply_group(ops, lam, group, matrix)
            if layer.gather is not None:
                lam = ops.permute_back(lam, layer.gather)
                if self.kept is None:
                    psi = ops.permute_back(psi, layer.gather)
        return gradients.finish(lam)

    def _collapse(self, lam: Array, one_row: bool, single: bool) -> tuple[Array, bool]:
        """Where ψ had one row for all samples, the sum of lambda is all that matters from here on."""
        return (self.ops.sum(lam, 0, True), True) if single and not one_row else (lam, one_row)

    def _contract(self, lam: Array, psi: Array, group: Group) -> Array:
        """Σ λ ψ† over all but the group's axis: the gradient of the group's matrix."""
        ops = self.ops
        g, right = 1 << group.size, 1 << (self.program.plan.n_qubits - group.first - group.size)
        if group.per_sample:
            shape = (-1, 1 << group.first, g, right)
            product = ops.matmul(ops.reshape(lam, shape), ops.swap_last(ops.conj(ops.reshape(psi, shape))))
            return ops.sum(product, 1)
        if right == 1:
            return ops.matmul(ops.swap_last(ops.reshape(lam, (-1, g))), ops.conj(ops.reshape(psi, (-1, g))))
        shape3 = (-1, g, right)
        return ops.sum(ops.matmul(ops.reshape(lam, shape3), ops.swap_last(ops.conj(ops.reshape(psi, shape3)))), 0)


class _Gradients:
    """Collects gradients of Kronecker products and of phases, then takes them to weights and inputs."""

    def __init__(self, sweep: _Sweep) -> None:
        self.sweep, self.program, self.ops = sweep, sweep.program, sweep.ops
        self.stacks: dict[tuple[bool, int], list[Array]] = {
            key: [None] * len(stack) for key, stack in self.program.stacks.items()
        }
        self.d_theta: Array = None
        self.d_x: Array = None

    def add_phases(self, layer: DiagonalLayer, psi: Array, lam: Array) -> None:
        """dL/dphase(p) = -Im(conj(λ) ψ), then to the angles through the sign table."""
        ops = self.ops
        d_phase = -ops.imag(ops.conj(lam) * psi)
        for signs, angles in layer.parts:
            d_angles = signs.sums(ops, d_phase if angles.uses_inputs else ops.sum(d_phase, 0, True))
            self._add_angles(angles, d_angles if angles.uses_inputs else ops.reshape(d_angles, (signs.count,)))

    def add_product(self, layer: KronLayer, lam: Array) -> None:
        """Gradient of a product state's group columns; the other columns of the matrices did nothing."""
        ops, n = self.ops, self.program.plan.n_qubits
        columns = []
        for group in layer.groups:
            column = self.sweep.stacks[group.key].column(group.number)
            columns.append(ops.conj(ops.reshape(column, (-1, 1 << group.size))))
        for k, group in enumerate(layer.groups):
            rest, width = lam, 1 << n
            for other in range(len(columns) - 1, k, -1):
                size = 1 << layer.groups[other].size
                width //= size
                rest = ops.reshape(rest, (-1, width, size))
                rest = ops.matmul(rest, ops.reshape(columns[other], (-1, size, 1)))
                rest = ops.reshape(rest, (-1, width))
            for other in range(k):
                size = 1 << layer.groups[other].size
                width //= size
                rest = ops.reshape(rest, (-1, size, width))
                rest = ops.matmul(ops.reshape(columns[other], (-1, 1, size)), rest)
                rest = ops.reshape(rest, (-1, width))
            size = 1 << group.size
            if not group.per_sample:
                rest = ops.sum(rest, 0, True)
            first = ops.const(_first_column(size), rest)
            full = ops.reshape(rest, (-1, size, 1)) * first
            self.stacks[group.key][group.number] = full if group.per_sample else ops.reshape(full, (size, size))

    def finish(self, lam: Array) -> tuple[Array, Array]:
        """`(d_theta, d_inputs)`."""
        sweep, program, ops = self.sweep, self.program, self.ops
        self._add_matrices()
        plan = program.plan
        d_theta = ops.const(_zeros(plan.n_weights), sweep.theta) if self.d_theta is None else self.d_theta
        zero = ops.zero_column(sweep.inputs)
        d_x = self.d_x
        if d_x is None and plan.n_inputs:
            d_x = zero + ops.const(_zeros(1, plan.n_inputs), sweep.theta)
        if not plan.n_amplitudes:
            return d_theta, sweep.inputs if d_x is None else d_x
        d_amplitudes = ops.real(lam)
        return d_theta, d_amplitudes if d_x is None else ops.concat([d_amplitudes, d_x])

    def _add_matrices(self) -> None:
        """From gradients of Kronecker products to those of the rotations."""
        program, ops = self.program, self.ops
        shared_pool, sampled_pool = [], []
        wide = next((own.matrices for own in self.sweep.factors if own is not None), None)
        for key, parts in self.stacks.items():
            stack = self.sweep.stacks[key]
            d_rows = pull_kronecker(ops, stack, ops.narrow(ops.stack(parts, -3), stack.singles[0]))
            if key[0]:
                sampled_pool.append(d_rows)
                d_rows = ops.sum(d_rows, 0)
            shared_pool.append(ops.narrow(d_rows, wide))
        for pool, rotations, factors, index in (
            (shared_pool, program.shared_rotations, self.sweep.factors[0], program.shared_places),
            (sampled_pool, program.sampled_rotations, self.sweep.factors[1], program.sampled_places),
        ):
            if factors is not None:
                flat = pool[0] if len(pool) == 1 else ops.concat(pool)
                lead = (-1,) if rotations.halves.uses_inputs else ()
                flat = ops.narrow(ops.take(flat, index, -1), wide)
                gradient = ops.reshape(flat, (*lead, rotations.count, 2, 2))
                self._add_rotations(rotations, factors, gradient)

    def _add_rotations(self, rotations: FusedRotations, factors: Factors, gradient: Array) -> None:
        """From gradients of fused matrices (…, R, 2, 2) to those of their angles."""
        ops, sweep = self.ops, self.sweep
        at = [factors.matrices[..., k, :, :, :] for k in range(rotations.length)]
        before: list[Array] = [None] * rotations.length  # product of the factors applied before factor k
        for k in range(1, rotations.length):
            before[k] = at[k - 1] if before[k - 1] is None else ops.matmul(at[k - 1], before[k - 1])
        owns: list[Array] = [None] * rotations.length
        for k in range(rotations.length - 1, -1, -1):
            owns[k] = gradient if before[k] is None else ops.matmul(gradient, ops.swap_last(ops.conj(before[k])))
            if k:
                gradient = ops.matmul(ops.swap_last(ops.conj(at[k])), gradient)
        own = ops.stack(owns, -4)
        lead = (-1,) if rotations.halves.uses_inputs else ()
        product = ops.real(ops.conj(own) * rotations.slopes(ops, factors))
        product = ops.reshape(product, (*lead, rotations.length * rotations.count, 4))
        self._add_angles(rotations.halves, ops.narrow(ops.sum(product, -1), sweep.theta))

    def _add_angles(self, angles: Polynomials, d_angles: Array) -> None:
        """From gradients of angles (A,) or (B, A) to those of weights and inputs."""
        sweep = self.sweep
        d_theta, d_x = angles.pull(self.ops, sweep.theta, sweep.x, d_angles)
        self.d_theta, self.d_x = plus(self.d_theta, d_theta), plus(self.d_x, d_x)


@functools.cache
def _first_column(size: int) -> np.ndarray:
    return frozen(np.eye(1, size, dtype=complex)[None])


@functools.cache
def _zeros(*shape: int) -> np.ndarray:
    return frozen(np.zeros(shape))


def pull_kronecker(ops: Ops, stack: Stack, gradient: Array) -> Array:
    """Gradient of the single matrices of Kronecker products (…, G, 2**k, 2**k), as (…, G · k · 4)."""
    lead, size = (-1,) if stack.per_sample else (), len(stack.singles)
    count = gradient.shape[-3]
    flat = ops.reshape(gradient, (*lead, count, 1 << 2 * size))
    if size > 1:
        flat = ops.permute_back(flat, kronecker_index(size))
    singles: list[Array] = []
    for k in range(size - 1, 0, -1):
        block = ops.reshape(flat, (*lead, count, 1 << 2 * k, 4))
        left = ops.reshape(ops.conj(stack.partial[k - 1]), (*lead, count, 1 << 2 * k, 1))
        right = ops.reshape(ops.conj(stack.singles[k]), (*lead, count, 1, 4))
        singles.append(ops.sum(block * left, -2))
        flat = ops.sum(block * right, -1)
    singles.append(flat)
    return ops.reshape(ops.stack(singles[::-1], -2), (*lead, count * size * 4))
