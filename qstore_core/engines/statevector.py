"""The `statevector` engine: NumPy only, always there.

Forward as in `engines.array`; gradients by the adjoint method, whose memory does not grow with depth.

Source:
    Jones & Gacon, arXiv:2009.02823.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import Capabilities, hookimpl
from ..circuit import Circuit
from ..errors import CapabilityError, OptionError
from ..measurement import Measurement
from ..plan import Plan, lower
from .array import ArrayProgram, DiagonalLayer, Group, KronLayer, Measuring, Polynomials, Turns
from .memory import check_memory

__all__ = ["NumpyOps", "StatevectorBackend", "StatevectorExecutable"]

Pullback = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class NumpyOps:
    """`Ops` for NumPy."""

    def __init__(self) -> None:
        """Start without kept constants."""
        self._kept: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}

    def const(self, value: np.ndarray, like: np.ndarray) -> np.ndarray:
        """`value` in the precision of `like`; read-only values are converted once."""
        double = like.dtype in (np.float64, np.complex128)
        kind = ("D" if double else "F") if value.dtype.kind == "c" else ("d" if double else "f")
        if value.flags.writeable:
            return value.astype(kind, copy=False)
        key = (id(value), kind)
        if key not in self._kept:
            self._kept[key] = (
                value,
                value.astype(kind, copy=False),
            )  # `value` too, so that its id stays its own
        return self._kept[key][1]

    take: Any = staticmethod(np.take)
    reshape: Any = staticmethod(np.reshape)
    matmul: Any = staticmethod(np.matmul)
    cos: Any = staticmethod(np.cos)
    sin: Any = staticmethod(np.sin)
    conj: Any = staticmethod(np.conj)

    def sum(self, x: np.ndarray, axis: int, keepdims: bool = False) -> np.ndarray:
        """Sum along one axis."""
        return np.sum(x, axis=axis, keepdims=keepdims)

    def permute(self, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Take along the last axis."""
        return np.take(x, index, -1)

    def concat(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Along the last axis."""
        return np.concatenate(arrays, axis=-1)

    def swap_last(self, x: np.ndarray) -> np.ndarray:
        """Exchange the last two axes."""
        return np.swapaxes(x, -1, -2)

    def complex(self, real: np.ndarray, imag: np.ndarray | None) -> np.ndarray:
        """A complex array."""
        out = np.empty(real.shape, dtype=np.result_type(real, np.complex64))
        out.real = real
        out.imag = 0.0 if imag is None else imag
        return out

    def real(self, x: np.ndarray) -> np.ndarray:
        """Real part."""
        return x.real

    def imag(self, x: np.ndarray) -> np.ndarray:
        """Imaginary part."""
        return x.imag

    def zero_column(self, x: np.ndarray) -> np.ndarray:
        """(rows of x, 1) of zeros."""
        return np.zeros((x.shape[0], 1), dtype=x.dtype)

    # Amplitude encoding in any namespace; the host path has a NumPy form of its own, with its pull-back.
    sqrt: Any = staticmethod(np.sqrt)

    def max_abs(self, x: np.ndarray) -> np.ndarray:
        """Largest magnitude of each row, (rows, 1)."""
        return np.abs(x).max(axis=-1, keepdims=True)

    def is_zero(self, x: np.ndarray) -> np.ndarray:
        """1.0 where x is 0."""
        return (x == 0).astype(x.dtype)

    def pad_last(self, x: np.ndarray, width: int) -> np.ndarray:
        """Zeros up to `width` columns."""
        return np.pad(x, ((0, 0), (0, width - x.shape[-1])))


class StatevectorBackend:
    """The embedded exact simulator."""

    name = "statevector"
    capabilities = Capabilities(exact=True, shots=False, vjp=True)

    def compile(
        self,
        circuit: Circuit,
        measurement: Measurement,
        *,
        dtype: str = "float32",
        shots: int | None = None,
        seed: int | None = None,
    ) -> StatevectorExecutable:
        """Lower the circuit and lay it out for NumPy."""
        if shots is not None:
            raise CapabilityError(
                f"backend 'statevector' computes exact expectation values, but shots={shots} was asked for. "
                "Use shots=None, or a backend that samples.",
                backend=self.name,
            )
        check_memory(circuit.n_qubits, dtype=dtype, backend=self.name)
        return StatevectorExecutable(lower(circuit, measurement), dtype)


class StatevectorExecutable:
    """A compiled circuit; stateless after construction, so threads share it."""

    def __init__(self, plan: Plan, dtype: str) -> None:
        """Lay the plan out."""
        self.plan, self.dtype = plan, np.dtype(dtype)
        self.program = ArrayProgram(plan)
        self._ops = NumpyOps()

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """`theta` (W,), `inputs` (B, I) → outputs (B, O)."""
        check_memory(self.plan.n_qubits, len(inputs), self.dtype.name, backend="statevector")
        return self.program.forward(self._ops, theta, inputs)

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, I))`."""
        return self.value_and_vjp(theta, inputs)[1](cotangents)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """Outputs, and the function that pulls cotangents back."""
        check_memory(self.plan.n_qubits, 2 * len(inputs), self.dtype.name, backend="statevector")
        sweep = _Adjoint(self.program, self._ops, theta, inputs)
        return sweep.outputs, sweep.pull_back


class _Adjoint:
    """One forward pass, whose end state is kept, and the reverse sweep."""

    def __init__(self, program: ArrayProgram, ops: NumpyOps, theta: np.ndarray, inputs: np.ndarray) -> None:
        self.program, self.ops, self.theta, self.inputs = program, ops, theta, inputs
        state, self.x = program.start(ops, theta, inputs)
        shared, sampled = program.turn_matrices(ops, theta, self.x)
        self.stacks = program.kronecker(ops, shared, sampled)
        self.state = program.run(ops, state, self.stacks, theta, self.x)
        outputs = program.measuring.outputs(ops, self.state)
        self.outputs = np.broadcast_to(outputs, (len(inputs), outputs.shape[-1])).copy()

    def pull_back(self, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The reverse sweep: un-apply each layer on psi and lambda, contract them to matrix gradients on the way."""
        program, ops = self.program, self.ops
        d_theta = np.zeros(program.plan.n_weights, dtype=self.theta.dtype)
        d_x = np.zeros((len(self.inputs), program.plan.n_inputs), dtype=self.theta.dtype)
        psi = self.state
        if len(psi) < len(cotangents):  # nothing differed between samples: one row stands for all
            cotangents = cotangents.sum(axis=0, keepdims=True)
        lam = pull_measurement(program.measuring, ops, psi, cotangents)
        d_stacks = {key: np.zeros_like(partial[-1]) for key, partial in self.stacks.items()}
        for number in range(len(program.layers) - 1, -1, -1):
            layer = program.layers[number]
            if isinstance(layer, DiagonalLayer):
                _pull_phases(program, ops, layer, psi, lam, (self.theta, self.x), (d_theta, d_x))
                back = np.conj(program.phases(ops, layer, self.theta, self.x))
                psi, lam = psi * back, lam * back
                continue
            if program.is_product(number):
                _pull_product(program, layer, self.stacks, lam, d_stacks)
                break
            for group in reversed(layer.groups):
                matrix = np.conj(np.swapaxes(self.stacks[group.key][-1][..., group.number, :, :], -1, -2))
                psi = program.apply_group(ops, psi, group, matrix)
                d_stacks[group.key][..., group.number, :, :] += _contract(lam, psi, group, program.plan.n_qubits)
                lam = program.apply_group(ops, lam, group, matrix)
            if layer.gather is not None:
                psi, lam = _scatter(psi, layer.gather), _scatter(lam, layer.gather)
        self._pull_matrices(d_stacks, d_theta, d_x)
        width = program.plan.n_amplitudes
        d_inputs = np.concatenate([lam.real[:, :width], d_x], axis=1) if width else d_x
        return d_theta, d_inputs

    def _pull_matrices(self, d_stacks: dict, d_theta: np.ndarray, d_x: np.ndarray) -> None:
        """From gradients of Kronecker products to those of weights and inputs."""
        program, ops = self.program, self.ops
        turns = [(program.shared_turns, 0), (program.sampled_turns, program.n_shared)]
        shared, sampled = program.turn_matrices(ops, self.theta, self.x)
        d_shared = None if shared is None else np.zeros_like(shared)
        d_sampled = None if sampled is None else np.zeros_like(sampled)
        for key, partial in self.stacks.items():
            rows = program.matrix_rows(ops, shared, sampled, key[0])
            d_rows = pull_kronecker(rows, program.stack_columns[key], partial, d_stacks[key])
            if d_shared is not None:
                part = d_rows[..., : program.n_shared, :, :]
                d_shared += part.sum(axis=0) if key[0] else part
            if key[0]:
                d_sampled += d_rows[:, program.n_shared : -1]
        for (table, _), gradient in zip(turns, (d_shared, d_sampled), strict=True):
            if gradient is not None:
                pull_turns(table, ops, (self.theta, self.x), gradient, (d_theta, d_x))


def _scatter(state: np.ndarray, gather: np.ndarray) -> np.ndarray:
    """Inverse of `np.take(state, gather, -1)`."""
    out = np.empty_like(state)
    out[:, gather] = state
    return out


def _contract(lam: np.ndarray, psi: np.ndarray, group: Group, n_qubits: int) -> np.ndarray:
    """Σ λ ψ† over all but the group's axis: the gradient of the group's matrix."""
    g, right = 1 << group.size, 1 << (n_qubits - group.first - group.size)
    if group.per_sample:
        shape = (len(lam), 1 << group.first, g, right)
        return (lam.reshape(shape) @ np.conj(np.swapaxes(psi.reshape(shape), -1, -2))).sum(axis=1)
    if right == 1:
        return lam.reshape(-1, g).T @ np.conj(psi.reshape(-1, g))
    return np.tensordot(lam.reshape(-1, g, right), np.conj(psi.reshape(-1, g, right)), ((0, 2), (0, 2)))


def _pull_product(program: ArrayProgram, layer: KronLayer, stacks: dict, lam: np.ndarray, d_stacks: dict) -> None:
    """Gradient of a product state's group columns."""
    columns = [stacks[group.key][-1][..., group.number, :, 0] for group in layer.groups]
    columns = [np.conj(c if c.ndim == 2 else c[None]) for c in columns]
    for k, group in enumerate(layer.groups):
        rest = lam
        for other in range(len(columns) - 1, k, -1):
            c = columns[other]
            rest = (rest.reshape(len(lam), -1, c.shape[1]) @ c[:, :, None])[..., 0]
        for other in range(k):
            c = columns[other]
            rest = (c[:, None, :] @ rest.reshape(len(lam), c.shape[1], -1))[:, 0]
        target = d_stacks[group.key]
        target[..., group.number, :, 0] += rest if group.per_sample else rest.sum(axis=0)


def _pull_phases(
    program: ArrayProgram,
    ops: NumpyOps,
    layer: DiagonalLayer,
    psi: np.ndarray,
    lam: np.ndarray,
    values: tuple[np.ndarray, np.ndarray],
    gradients: tuple[np.ndarray, np.ndarray],
) -> None:
    """dL/dphase(p) = -Im(conj(λ) ψ), then to the angles through the sign table."""
    d_phase = -(np.conj(lam) * psi).imag
    for masks, angles in layer.parts():
        rows = d_phase if angles.uses_inputs else d_phase.sum(axis=0, keepdims=True)
        parts = [rows @ ops.const(t, rows).T for _, _, t in layer.slices(masks, program.plan.n_qubits)]
        d_angles = np.concatenate(parts, axis=1)
        pull_angles(angles, ops, values, d_angles if angles.uses_inputs else d_angles[0], gradients)


def pull_measurement(measuring: Measuring, ops: NumpyOps, psi: np.ndarray, cotangents: np.ndarray) -> np.ndarray:
    """λ = 2 H ψ with H = Σ_k cotangent_k O_k."""
    if measuring.kind != "general":
        if measuring.weights is not None:
            d_probabilities = cotangents @ ops.const(measuring.weights, cotangents).T
        else:
            d_probabilities = cotangents[:, measuring.classes]
        return 2.0 * d_probabilities * psi
    if measuring.gather is not None:
        psi = np.take(psi, measuring.gather, -1)
    lam = np.zeros_like(psi)
    n = measuring.n_qubits
    for g, left, size in measuring.groups():
        table = cotangents @ ops.const(measuring.rdm[g], cotangents).T
        operator = ops.complex(table[:, : size * size], table[:, size * size :]).reshape(-1, 1, size, size)
        block = psi.reshape(-1, left, size, (1 << n) // (left * size))
        lam += 2.0 * (operator @ block).reshape(psi.shape)
    for shifted, weights in measuring.crossing:
        table = cotangents @ ops.const(weights, cotangents).T
        size = psi.shape[1]
        e = ops.complex(table[:, :size], table[:, size:])
        lam += (np.conj(e) + e[:, shifted]) * psi[:, shifted]
    return lam if measuring.gather is None else _scatter(lam, measuring.gather)


def pull_kronecker(
    rows: np.ndarray, columns: Sequence[np.ndarray], partial: Sequence[np.ndarray], gradient: np.ndarray
) -> np.ndarray:
    """Gradient of the single matrices `rows` (…, R, 2, 2) of Kronecker products (…, G, 2**k, 2**k)."""
    d_rows = np.zeros_like(rows)
    for k in range(len(columns) - 1, 0, -1):
        edge = partial[k - 1].shape[-1]
        block = gradient.reshape(*gradient.shape[:-2], edge, 2, edge, 2)
        right = np.conj(rows[..., columns[k], :, :])
        d_right = np.einsum("...abcd,...ac->...bd", block, np.conj(partial[k - 1]))
        _add_rows(d_rows, columns[k], d_right)
        gradient = np.einsum("...abcd,...bd->...ac", block, right)
    _add_rows(d_rows, columns[0], gradient)
    return d_rows


def _add_rows(target: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    np.add.at(np.moveaxis(target, -3, 0), index, np.moveaxis(values, -3, 0))


def pull_turns(
    turns: Turns,
    ops: NumpyOps,
    values: tuple[np.ndarray, np.ndarray],
    gradient: np.ndarray,
    gradients: tuple[np.ndarray, np.ndarray],
) -> None:
    """From gradients of fused matrices (…, R, 2, 2) to those of weights and inputs."""
    factors, slopes = turns.factor_matrices(ops, *values)
    before: list[Any] = [None] * turns.length  # product of the factors applied before factor k
    for k in range(1, turns.length):
        step = factors[..., k - 1, :, :, :]
        before[k] = step if before[k - 1] is None else step @ before[k - 1]
    d_half = np.empty(factors.shape[:-2], dtype=values[0].dtype)
    for k in range(turns.length - 1, -1, -1):
        own = gradient if before[k] is None else gradient @ _dagger(before[k])
        d_half[..., k, :] = (np.conj(own) * slopes[..., k, :, :, :]).real.sum(axis=(-1, -2))
        gradient = _dagger(factors[..., k, :, :, :]) @ gradient
    lead = d_half.shape[:-2]
    pull_angles(turns.polynomials, ops, values, 0.5 * d_half.reshape(*lead, -1), gradients)


def _dagger(matrix: np.ndarray) -> np.ndarray:
    return np.conj(np.swapaxes(matrix, -1, -2))


def pull_angles(
    angles: Polynomials,
    ops: NumpyOps,
    values: tuple[np.ndarray, np.ndarray],
    d_angles: np.ndarray,
    gradients: tuple[np.ndarray, np.ndarray],
) -> None:
    """Add the gradient of angles (A,) or (B, A) to those of weights (W,) and inputs (B, F)."""
    if not angles.factors:
        return
    variables = angles.variables(ops, *values)
    d_values = d_angles * angles.scale if angles.gather is not None else d_angles @ angles.matrix.T
    d_variables = np.zeros(variables.shape, dtype=d_values.dtype)
    taken = [variables[..., f] for f in angles.factors]
    for k, factor in enumerate(angles.factors):
        others = d_values
        for j, other in enumerate(taken):
            if j != k:
                others = others * other
        np.add.at(d_variables.T, factor, others.T)
    d_theta, d_x = gradients
    n_weights = len(angles.weights)
    d_weights = d_variables[..., :n_weights]
    d_theta[angles.weights] += (d_weights.sum(axis=0) if angles.uses_inputs else d_weights).astype(d_theta.dtype)
    if angles.uses_inputs:
        d_x[:, angles.inputs] += d_variables[:, n_weights : n_weights + len(angles.inputs)].astype(d_x.dtype)


@hookimpl
def qstore_backend(options: dict[str, Any]) -> StatevectorBackend:
    """The `statevector` backend; it has no options."""
    if options:
        raise OptionError(
            f"backend 'statevector' has no options, received {', '.join(sorted(options))}.",
            backend="statevector",
        )
    return StatevectorBackend()
