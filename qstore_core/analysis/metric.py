"""The Fubini–Study metric tensor of a layer, and natural gradients by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..circuit.angles.angle import Angle
from ..circuit.angles.functions import flattened
from ..circuit.checks import check_choice
from ..circuit.circuit import Circuit, Operation
from ..circuit.gates.table import GATES, PAULIS, Cnot
from ..circuit.spec.encoding import unit_rows
from ..engines.arrays.angles import Polynomials
from ..engines.arrays.numpy_ops import NumpyOps
from ..engines.memory import check_bytes
from ..errors import InputError, ShapeError, SpecError
from ..interchange.files import as_array
from ..layers.definition import LayerDefinition

__all__ = ["metric_tensor", "natural_gradient"]

_GROUP = 4  # neighbouring qubits whose rotations are one matrix
_CHUNK_BYTES = 1 << 26  # of tangents


def metric_tensor(layer: Any, x: Any, *, approx: str | None = None, theta: Any = None) -> np.ndarray:
    """The Fubini–Study metric of the layer's states by its weights, averaged over the samples.

    g_ij = Re(⟨∂_i ψ|∂_j ψ⟩ - ⟨∂_i ψ|ψ⟩⟨ψ|∂_j ψ⟩), computed exactly in float64: the derivatives of the state by every
    gate angle are evolved beside it, so that it takes W + 1 states per sample.

    Args:
        layer: A layer of any framework.
        x: Features (B, F).
        approx: None for all of it; "block-diag" for pairs of gates of one block alone, "diag" for each gate with
            itself. A block ends where a gate with a weight acts behind another of its block.
        theta: Weights (W,), for a JAX layer, which holds none.

    Returns:
        float64 (W, W), in 1/radian²; symmetric and positive semi-definite.

    Example:
        RY on |0⟩ has a quarter whatever its angle, RZ behind it a quarter of sin²:

        >>> from qstore_core import QuantumFeatureExtractor
        >>> layer = QuantumFeatureExtractor(1, 1, encoding="angle", init=lambda rng, size: [0.5, 0.2])
        >>> np.diag(metric_tensor(layer, np.array([[0.3]]))).round(4)   # sin²(0.8)/4 = 0.1286
        array([0.25  , 0.1286])

    Source:
        Stokes et al., arXiv:1909.02108; the same as PennyLane's `metric_tensor`.
    """
    if not isinstance(layer, LayerDefinition) or layer.spec.measurement is None:
        raise SpecError(f"expected a quantum layer with a circuit, received {type(layer).__name__}.", argument="layer")
    if approx is not None:
        check_choice(approx, "approximation of the metric", ("block-diag", "diag"), "approx")
    spec, rows = layer.spec, np.array(x, np.float64)
    if rows.ndim != 2 or not len(rows):
        raise ShapeError(f"a metric is an average over features (samples, features), received {rows.shape}.")
    spec.check_features(rows.shape)
    spec.encoding.validate(rows, type(layer).__name__)
    if spec.circuit.noisy:
        raise SpecError("the metric is one of states, and the circuit has channels: use the circuit without them.")
    weights = np.asarray(as_array(getattr(layer, "theta", None) if theta is None else theta), np.float64)
    if weights.shape != (spec.n_weights,):
        raise ShapeError(
            f"the layer has {spec.n_weights} weights, received an array of shape {weights.shape}. A JAX layer holds "
            "none: metric_tensor(layer, x, theta=theta)."
        )
    if not np.isfinite(weights).all():
        raise InputError("theta has values that are not finite.")
    return _Tangents(spec.circuit).metric(weights, rows, approx)


def natural_gradient(metric: np.ndarray, gradient: np.ndarray, *, regularisation: float = 1e-3) -> np.ndarray:
    """(g + λ)⁻¹ dL/dθ: the direction of steepest descent where distances are those of states.

    Args:
        metric: (W, W).
        gradient: dL/dθ (W,).
        regularisation: λ; weights that do not move the state have no metric, and would be divided by zero.

    Example:
        >>> natural_gradient(np.diag([0.25, 1.0]), np.array([1.0, 1.0]), regularisation=0.0)
        array([4., 1.])
    """
    if not regularisation >= 0.0:
        raise SpecError(f"regularisation is at least 0, received {regularisation!r}.", argument="regularisation")
    try:
        given, slope = np.asarray(as_array(metric), np.float64), np.asarray(as_array(gradient), np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"a metric and a gradient are arrays of real numbers: {error}.") from error
    if slope.ndim != 1 or given.shape != 2 * slope.shape:
        raise ShapeError(f"a metric (W, W) and a gradient (W,) are expected, received {given.shape} and {slope.shape}.")
    if not np.isfinite(given).all() or not np.isfinite(slope).all():
        raise InputError("the metric or the gradient is not finite.")
    try:
        return np.asarray(np.linalg.solve(given + regularisation * np.eye(len(slope)), slope))
    except np.linalg.LinAlgError:
        raise SpecError(
            "the metric is singular: some weights do not move the state. Use regularisation above 0.",
            argument="regularisation",
        ) from None


class _Tangents:
    """States and their derivatives by every gate angle that depends on weights."""

    def __init__(self, circuit: Circuit) -> None:
        self.given = circuit
        self.circuit, self.derived = flattened(circuit)
        self.angles: list[Angle] = []
        self.number: dict[tuple[int, int], int] = {}  # (operation, parameter) → row of tangents
        self.blocks: list[int] = []
        for at, (op, flat) in enumerate(zip(circuit.operations, self.circuit.operations, strict=True)):
            for k in _in_order(op):
                if any(kind == "w" for kind, _ in op.params[k].slots):
                    self.number[at, k] = len(self.angles)
                    self.angles.append(flat.params[k])
        self._find_blocks()

    def _find_blocks(self) -> None:
        """A gate that acts behind another of the current block begins the next one."""
        behind, block = [False] * self.circuit.n_qubits, 0
        for at, op in enumerate(self.circuit.operations):
            for k in _in_order(op):
                if (at, k) not in self.number:
                    continue
                if any(behind[q] for q in op.qubits):
                    block, behind = block + 1, [False] * self.circuit.n_qubits
                for q in op.qubits:
                    behind[q] = True
                self.blocks.append(block)
            if any(behind[q] for q in op.qubits):
                for q in op.qubits:
                    behind[q] = True

    def metric(self, theta: np.ndarray, x: np.ndarray, approx: str | None) -> np.ndarray:
        """(W, W), averaged over the rows of features."""
        count, blocks = len(self.angles), np.array(self.blocks)
        mask = np.ones((count, count)) if approx is None else np.eye(count)
        if approx == "block-diag":
            mask = (blocks[:, None] == blocks[None, :]).astype(float)
        size = 16 * (count + 1) << self.circuit.n_qubits
        check_bytes(3 * size, f"{count} derivatives of a state of {self.circuit.n_qubits} qubits do not fit")
        rows, total = max(_CHUNK_BYTES // size, 1), np.zeros((len(theta), len(theta)))
        for first in range(0, len(x), rows):
            total += self._sum(theta, x[first : first + rows], mask)
        return total / len(x)

    def _sum(self, theta: np.ndarray, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        width = self.circuit.n_amplitudes
        inputs = x[:, x.shape[1] - self.given.n_inputs :]
        slopes = self._slopes(theta, inputs)
        if self.derived is not None:
            theta, inputs, _ = self._extended(theta, inputs)
        start = unit_rows(NumpyOps(), x[:, :width], width) if width else None
        all_states = self._evolve(theta, start, inputs)
        state, tangents = all_states[:, 0], all_states[:, 1:]
        along = (tangents @ state.conj()[:, :, None])[:, :, 0]
        parts = np.concatenate([tangents.real, tangents.imag], axis=-1)
        gram = parts @ parts.swapaxes(1, 2)
        gram -= (along.conj()[:, :, None] * along[:, None, :]).real
        return np.asarray(np.einsum("bkw,bkl,blv->wv", slopes, gram * mask, slopes, optimize=True))

    def _slopes(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Derivatives of the gate angles by the weights, (B, K, W)."""
        if self.derived is not None:
            return np.stack([self._slopes_of_row(theta, row[None]) for row in inputs])
        table, own = Polynomials(self.angles), np.tile(theta, (len(inputs), 1))
        out = np.empty((len(inputs), len(self.angles), len(theta)))
        for k in range(len(self.angles)):
            one = np.zeros((len(inputs), len(self.angles)))
            one[:, k] = 1.0
            out[:, k] = table.vjp(own, inputs, one)[0]
        return out

    def _slopes_of_row(self, theta: np.ndarray, row: np.ndarray) -> np.ndarray:
        """The same of one sample, through functions of angles, (K, W)."""
        all_weights, all_inputs, derived_vjp = self._extended(theta, row)
        table, out = Polynomials(self.angles), np.empty((len(self.angles), len(theta)))
        for k, one in enumerate(np.eye(len(self.angles))):
            out[k], _ = derived_vjp(*table.vjp(all_weights, all_inputs, one[None]))
        return out

    def _extended(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        """Weights and inputs with what is computed from them before the circuit, and the vjp of that."""
        assert self.derived is not None
        filled = np.concatenate([np.zeros((len(inputs), self.derived.width)), inputs], axis=1)
        with np.errstate(all="ignore"):
            theta, filled, vjp_fn = self.derived.extend(NumpyOps(), theta, filled)
        if not (np.isfinite(theta).all() and np.isfinite(filled).all()):
            self.derived.refuse(theta, filled, "metric_tensor")
        width = self.derived.width
        return theta, filled[:, width:], lambda d, e: vjp_fn(d, np.pad(e, ((0, 0), (width, 0))))

    def _evolve(self, theta: np.ndarray, start: np.ndarray | None, inputs: np.ndarray) -> np.ndarray:
        """(B, 1 + K, 2**n): the state, then its derivatives."""
        n, batch = self.circuit.n_qubits, len(inputs)
        states = np.zeros((batch, 1 + len(self.angles), 1 << n), complex)
        states[:, 0, 0] = 1.0
        if start is not None:
            states[:, 0] = start
        layer = _Layer(states, n)
        for at, op in enumerate(self.circuit.operations):
            shared = not any(angle.uses_inputs for angle in op.params)
            rows = inputs[:1] if shared else inputs
            values = Polynomials(op.params).values(theta, rows) if op.params else np.zeros((1, 0))
            for step in GATES[op.gate].steps:
                if isinstance(step, Cnot):
                    layer.cnot(op.qubits[step.control], op.qubits[step.target])
                    continue
                used = list(enumerate(step.coefficients[: len(op.params)]))
                angle = float(step.constant) + sum(c * values[:, k] for k, c in used) + np.zeros(len(values))
                tangents = [(1 + self.number[at, k], c) for k, c in used if c and (at, k) in self.number]
                layer.rotate(op.qubits[step.qubit], step.axis, angle, tangents)
        return layer.finish()


class _Layer:
    """Rotations since the last CNOT, which act on all states together, and CNOTs since the last rotation."""

    def __init__(self, states: np.ndarray, n_qubits: int) -> None:
        self.states, self.n, self.begun = states, n_qubits, 1
        self.basis = np.arange(1 << n_qubits)
        self.order = self.basis
        self.matrices: dict[int, np.ndarray] = {}  # qubit → (B or 1, 2, 2)
        self.slopes: list[tuple[int, float, int, np.ndarray]] = []  # row, coefficient, qubit, generator

    def cnot(self, control: int, target: int) -> None:
        """Permute."""
        self.flush()
        c, t = self.n - 1 - control, self.n - 1 - target
        self.order = self.order[self.basis ^ ((self.basis >> c & 1) << t)]

    def rotate(self, qubit: int, axis: tuple[float, ...], angle: np.ndarray, tangents: list[tuple[int, float]]) -> None:
        """exp(-i angle/2 axis·σ), whose derivative by the angle goes to the rows of `tangents` with a factor each."""
        pauli = np.asarray(sum(part * PAULIS[letter] for part, letter in zip(axis, "xyz", strict=True)))
        cos, sin = np.cos(angle / 2)[:, None, None], np.sin(angle / 2)[:, None, None]
        matrix = cos * np.eye(2) - 1j * sin * pauli
        back = matrix.conj().swapaxes(-1, -2)
        self.slopes = [(r, c, q, matrix @ g @ back if q == qubit else g) for r, c, q, g in self.slopes]
        self.matrices[qubit] = matrix @ self.matrices[qubit] if qubit in self.matrices else matrix
        self.slopes += [(row, factor, qubit, -0.5j * pauli[None]) for row, factor in tangents]

    def flush(self) -> None:
        """Apply the rotations, then add what is new to the derivatives."""
        if not self.matrices:
            return
        old = self.states[:, : self.begun]
        if self.order is not self.basis:
            old, self.order = old[..., self.order], self.basis
        for first in range(0, self.n, _GROUP):
            group = [self.matrices.get(q) for q in range(first, min(first + _GROUP, self.n))]
            if any(matrix is not None for matrix in group):
                old = _applied(_kronecker(group), old, first, self.n)
        self.states[:, : self.begun] = old
        for row, factor, qubit, generator in self.slopes:
            self.states[:, row] += factor * _applied(generator, self.states[:, :1], qubit, self.n)[:, 0]
            self.begun = max(self.begun, row + 1)
        self.matrices, self.slopes = {}, []

    def finish(self) -> np.ndarray:
        """The states, in the order of basis states."""
        self.flush()
        return self.states if self.order is self.basis else self.states[..., self.order]


def _in_order(op: Operation) -> Iterator[int]:
    """The parameters of a gate, in the order in which its steps use them."""
    seen: set[int] = set()
    for step in GATES[op.gate].steps:
        if isinstance(step, Cnot):
            continue
        for k, coefficient in enumerate(step.coefficients[: len(op.params)]):
            if coefficient and k not in seen:
                seen.add(k)
                yield k


def _kronecker(matrices: list[np.ndarray | None]) -> np.ndarray:
    """The product of neighbours' matrices, (B or 1, 2**k, 2**k)."""
    out = np.ones((1, 1, 1))
    for matrix in matrices:
        right = np.eye(2)[None] if matrix is None else matrix
        size = 2 * out.shape[1]
        out = (out[:, :, None, :, None] * right[:, None, :, None, :]).reshape(-1, size, size)
    return out


def _applied(matrix: np.ndarray, states: np.ndarray, qubit: int, n_qubits: int) -> np.ndarray:
    """`matrix` (B or 1, 2**k, 2**k) on neighbours from `qubit` on, of `states` (B, K, 2**n)."""
    size, count = matrix.shape[-1], states.shape[0]
    right = (1 << (n_qubits - qubit)) // size
    if right == 1:
        rows = states.reshape(count, -1, size) if len(matrix) > 1 else states.reshape(1, -1, size)
        return (rows @ matrix.swapaxes(-1, -2)).reshape(states.shape)
    return (matrix[:, None] @ states.reshape(count, -1, size, right)).reshape(states.shape)
