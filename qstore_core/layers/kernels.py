"""Quantum kernels: |⟨φ(y)|φ(x)⟩|² of the states into which a circuit takes features.

`QuantumKernel` gives Gram matrices for whatever takes them, trains the circuit's weights by kernel-target alignment,
and runs on simulators and hardware of others by compute–uncompute.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends.registry import get_backend
from ..circuit.checks import check_finite_number, check_n_qubits, check_operations, check_whole, shown
from ..circuit.circuit import Circuit
from ..circuit.measurements.measurement import Expectation, Probabilities
from ..circuit.spec.encoding import Encoding, as_encoding, unit_rows
from ..circuit.spec.initial import Init, initial_theta
from ..circuit.spec.layer_spec import LayerSpec, custom
from ..engines.arrays.numpy_ops import NumpyOps
from ..engines.arrays.states import StateProgram
from ..engines.memory import check_bytes
from ..errors import CapabilityError, InputError, ShapeError, SpecError
from ..interchange.files import as_array
from .definition import LayerDefinition
from .numpy import QuantumLayer

__all__ = ["QuantumKernel"]

_BLOCK_BYTES = 1 << 25  # of overlaps, and of states while they are computed
_MOST_PAIRS = 1 << 12  # circuits of one call of a backend
_SMALLEST = float(np.finfo(np.float64).tiny)


class QuantumKernel:
    """The kernel |⟨φ(y)|φ(x)⟩|² of a circuit's states; `kernel(x, y)` is its Gram matrix.

    With an engine of ours, n + m states are computed and then one matrix product, in blocks. Any other backend, and
    `shots=`, run one circuit per pair: U(x), then U(y) undone; its probability of |0…0⟩ is the entry.

    Args:
        circuit: A `Circuit` with inputs, an encoding by name or as an object (then with `n_qubits`), or a layer, whose
            circuit and weights are taken.
        n_qubits: Of an encoding.
        backend: "auto" or the name of an engine of ours: by states. Any other: by compute–uncompute.
        shots: Samples per pair; None for exact values.
        init: Of the weights that the circuit has, as in the layers.
        seed: Of the weights and of samples.

    Example:
        One qubit, RY(x): the overlap of two states is cos((x - y)/2):

        >>> kernel = QuantumKernel("angle", n_qubits=1)
        >>> kernel([[0.0], [1.0]]).round(4)
        array([[1.    , 0.7702],
               [0.7702, 1.    ]])

    Source:
        Havlíček et al., arXiv:1804.11326; Schuld & Killoran, arXiv:1803.07128.
    """

    def __init__(
        self,
        circuit: Any,
        *,
        n_qubits: int | None = None,
        backend: Any = "auto",
        shots: int | None = None,
        init: Init = "small_normal",
        seed: int | None = None,
    ) -> None:
        self._circuit, self._encoding = _as_circuit(circuit, n_qubits)
        amplitudes = self._encoding.is_amplitude and not self._circuit.n_inputs
        self._most = self._encoding.n_features(self._circuit.n_qubits) if amplitudes else 0
        self._spec: LayerSpec = custom(self._circuit, Expectation(("Z",)))
        self.backend, self.shots, self.seed = backend, shots, seed
        theta = getattr(circuit, "theta", None) if isinstance(circuit, LayerDefinition) else None  # none in JAX
        found = initial_theta(init, self._circuit.n_weights, seed) if theta is None else as_array(theta)
        self._theta = _theta_of(found, self._circuit.n_weights)
        can = None if backend == "auto" else get_backend(backend).capabilities
        self._by_states = shots is None and (can is None or (can.embedded and not can.noisy))
        self._program: StateProgram | None = None
        self._pairs: QuantumLayer | None = None if self._by_states else self._compute_uncompute()

    @property
    def circuit(self) -> Circuit:
        """The circuit that takes features to states."""
        return self._circuit

    @property
    def theta(self) -> np.ndarray:
        """The weights, float64 (W,), radians."""
        return self._theta

    @theta.setter
    def theta(self, value: Any) -> None:
        self._theta = _theta_of(value, self._circuit.n_weights)

    # -- Gram matrices --------------------------------------------------------------------------------------------

    def __call__(self, x: Any, y: Any = None) -> np.ndarray:
        """Gram matrix (n, m) of features `x` (n, F) and `y` (m, F), in [0, 1]; of `x` with itself for None.

        float64 features are computed in float64, others in float32, as in the layers.
        """
        same = y is None or y is x
        a = self._features(x)
        b = a if same else self._features(y)
        if b.dtype != a.dtype:
            a, b = a.astype(np.float64), b.astype(np.float64)
        each = a.itemsize if self._by_states else 5 * a.itemsize + 16  # by pairs: their numbers, and features of a few
        check_bytes(len(a) * len(b) * each, f"a Gram matrix of {len(a)} by {len(b)} samples does not fit")
        if not self._by_states:
            return self._by_pairs(a, b, same)
        phi = self._states(a)
        return _squared_overlaps(phi, phi if same else self._states(b), same)

    def _features(self, x: Any) -> np.ndarray:
        """Features as they enter the circuit, in the precision of the call."""
        try:
            array = np.asarray(x)
        except ValueError as error:
            raise InputError(f"a kernel takes an array of numbers: {error}") from error
        if array.dtype.kind not in "fiub" or isinstance(array, np.ma.MaskedArray):
            raise InputError(f"a kernel takes plain real numbers, received {type(x).__name__} of dtype {array.dtype}.")
        if array.ndim != 2:
            raise ShapeError(f"a kernel takes features (samples, features), received {array.shape}.")
        self._spec.check_features(array.shape)
        if self._most and array.shape[1] > self._most:
            raise ShapeError(
                f"this kernel's encoding takes at most {self._most} features, received {array.shape}.",
                expected=self._most,
                received=array.shape,
            )
        double = array.dtype.kind == "f" and array.dtype.itemsize >= 8
        array = np.ascontiguousarray(array, np.float64 if double else np.float32)
        self._encoding.validate(array, "QuantumKernel")
        return array

    def _inputs(self, features: np.ndarray) -> np.ndarray:
        """Unit amplitudes, where the circuit has any, then angles."""
        width = self._circuit.n_amplitudes
        if not width:
            return features
        unit = unit_rows(NumpyOps(), features[:, :width], width)
        return np.concatenate([unit, features[:, width:]], axis=1)

    def _states(self, features: np.ndarray) -> np.ndarray:
        """(n, 2**n_qubits), complex, in blocks of rows."""
        size = 2 * features.itemsize << self._circuit.n_qubits
        check_bytes(
            6 * size + size * len(features), f"{len(features)} states of {self._circuit.n_qubits} qubits do not fit"
        )
        program, theta = self._states_program(), self._theta.astype(features.dtype)
        rows = max(_BLOCK_BYTES // size, 1)
        kind = np.complex128 if features.dtype == np.float64 else np.complex64
        out = np.empty((len(features), 1 << self._circuit.n_qubits), kind)
        for first in range(0, len(features), rows):
            own = slice(first, first + rows)
            out[own] = program.states(theta, self._inputs(features[own]))
        return out

    def _states_program(self) -> StateProgram:
        if self._program is None:
            self._program = StateProgram(self._circuit)
        return self._program

    # -- by compute-uncompute -------------------------------------------------------------------------------------

    def _compute_uncompute(self) -> QuantumLayer:
        """U(x), then U(y) undone, as a layer with the features of both."""
        if self._circuit.n_amplitudes:
            raise CapabilityError(
                f"backend {shown(self.backend)} computes one circuit per pair, and amplitudes cannot be undone. Use an "
                'encoding by gates, or backend="auto" without shots.'
            )
        weights = Circuit(self._circuit.n_qubits)
        weights.inputs(self._circuit.n_inputs)
        slots = weights.weights(self._circuit.n_weights)
        both = self._circuit.copy().compose(self._circuit.inverse(), weights=slots)
        return QuantumLayer(both, Probabilities(), backend=self.backend, shots=self.shots, seed=self.seed)

    def _by_pairs(self, a: np.ndarray, b: np.ndarray, same: bool) -> np.ndarray:
        """One circuit per pair; of a Gram matrix of `a` with itself those on and above the diagonal."""
        layer = self._pairs
        assert layer is not None
        layer.theta = self._theta
        out = np.empty((len(a), len(b)), a.dtype)
        rows, columns = np.triu_indices(len(a)) if same else np.indices(out.shape).reshape(2, -1)
        for first in range(0, len(rows), _MOST_PAIRS):
            i, j = rows[first : first + _MOST_PAIRS], columns[first : first + _MOST_PAIRS]
            out[i, j] = layer(np.concatenate([a[i], b[j]], axis=1))[:, 0]
        if same:
            out[columns, rows] = out[rows, columns]
        return out

    # -- training -------------------------------------------------------------------------------------------------

    def alignment(self, x: Any, labels: Any) -> float:
        """Kernel-target alignment ⟨K, T⟩ / (‖K‖ ‖T‖), from -1 to 1.

        T is what K should be: 1 for two samples of one class, and for two of different classes -1 with two classes and
        -1/(C - 1) with C. With two classes, samples count by one over the size of their class.

        Source:
            Cristianini et al., NeurIPS 2001; Hubregtsen et al., arXiv:2105.02276.
        """
        target, gram = _target(labels, len(np.asarray(x))), np.asarray(self(x), np.float64)
        return float((gram * target).sum() / max(float(np.linalg.norm(gram) * np.linalg.norm(target)), _SMALLEST))

    def alignment_and_gradient(self, x: Any, labels: Any) -> tuple[float, np.ndarray]:
        """The alignment and its exact gradient (W,), from one sweep through the circuit for all samples.

        Raises:
            CapabilityError: the kernel is computed by pairs.
        """
        if not self._by_states:
            raise CapabilityError(
                f"backend {shown(self.backend)} computes one circuit per pair, which has no gradient here. Train with "
                'backend="auto" and without shots, then set theta of this kernel.'
            )
        features = self._features(x).astype(np.float64)
        target = _target(labels, len(features))
        size = 32 << self._circuit.n_qubits
        check_bytes(
            6 * size * len(features) + 64 * len(features) ** 2,  # overlaps, their squares and slopes
            f"{len(features)} states of {self._circuit.n_qubits} qubits, their overlaps and their gradient do not fit",
        )
        phi, vjp_fn = self._states_program().states_and_vjp(self._theta, self._inputs(features))
        phi = np.broadcast_to(phi, (len(features), phi.shape[1]))
        overlaps = phi @ phi.conj().T
        gram = np.square(overlaps.real) + np.square(overlaps.imag)
        norm, scale = float(np.linalg.norm(gram)), max(float(np.linalg.norm(target)), _SMALLEST)
        value = float((gram * target).sum() / (norm * scale))
        slope = target / (norm * scale) - value * gram / norm**2
        # K = |S|² and S = Φ Φ†: with G = dL/dK symmetric, dL/dΦ = 4 (G ∘ S) Φ.
        d_theta, _ = vjp_fn(4.0 * (slope * overlaps) @ phi)
        return value, d_theta

    def train(
        self,
        x: Any,
        labels: Any,
        *,
        steps: int = 50,
        learning_rate: float = 0.1,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> list[float]:
        """Ascend the alignment with Adam; returns its value before every step.

        Args:
            x: Features (n, F).
            labels: Classes (n,).
            steps: How many.
            learning_rate: Of Adam, in radians.
            batch_size: Samples drawn for a step, 2 or more, anew where they are of one class; None for all.
            seed: Of the draws.

        Example:
            Two classes that one weight has to pull apart (entries are not negative: 0.71 is the most):

            >>> c = Circuit(1)
            >>> (x,), (w,) = c.inputs(1), c.weights(1)
            >>> c.ry(w * x, 0)
            >>> kernel = QuantumKernel(c, init=lambda rng, size: [0.2])
            >>> points, classes = [[0.0], [0.2], [1.5], [1.7]], [0, 0, 1, 1]
            >>> before = kernel.alignment(points, classes)
            >>> values = kernel.train(points, classes, steps=40)
            >>> kernel.alignment(points, classes) > 0.6 > before
            True
        """
        if not self._circuit.n_weights:
            raise SpecError("this kernel's circuit has no weights to train.", argument="circuit")
        rate = check_finite_number(learning_rate, "learning_rate")
        features, classes, rng = self._features(x), np.asarray(labels), np.random.default_rng(seed)
        _target(classes, len(features))  # two classes at least
        size = None if batch_size is None else check_whole(batch_size, "batch_size", 2, 1 << 62, "batch_size")
        first, second = np.zeros_like(self._theta), np.zeros_like(self._theta)
        values = []
        for step in range(1, check_whole(steps, "steps", 0, 1 << 31, "steps") + 1):
            rows = np.arange(len(features)) if size is None else rng.permutation(len(features))[:size]
            while len(np.unique(classes[rows])) < 2:
                rows = rng.permutation(len(features))[:size]
            value, gradient = self.alignment_and_gradient(features[rows], classes[rows])
            values.append(value)
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            self._theta = self._theta + rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        return values

    def __getstate__(self) -> dict[str, Any]:
        """Without what was laid out for arrays."""
        return self.__dict__ | {"_program": None}

    def __repr__(self) -> str:
        way = "states" if self._by_states else f"pairs on {self.backend!r}"
        return f"<QuantumKernel: {self._circuit.n_qubits} qubits, {len(self._theta)} weights, by {way}>"


def _as_circuit(value: Any, n_qubits: int | None) -> tuple[Circuit, Encoding]:
    if isinstance(value, Circuit | LayerDefinition):
        if n_qubits is not None:
            raise SpecError("a circuit has its number of qubits: n_qubits= is for an encoding.", argument="n_qubits")
        circuit = value if isinstance(value, Circuit) else value.spec.circuit
        if circuit.noisy:
            raise SpecError(
                "a kernel's circuit has gates alone, received one with channels. Noise belongs to the backend: "
                'backend=get_backend("density", noise_model=…).',
                argument="circuit",
            )
        if isinstance(value, Circuit):
            return value, as_encoding("amplitude" if value.n_amplitudes else "angle")
        return value.spec.circuit, value.spec.encoding
    encoding = as_encoding(value)
    if n_qubits is None:
        raise SpecError(f"a kernel of encoding {encoding.name!r} needs n_qubits=.", argument="n_qubits")
    n = check_n_qubits(n_qubits)
    check_operations(encoding.n_operations(n), f"encoding {encoding.name!r} of {n} qubits")
    circuit = Circuit(n, amplitudes=encoding.is_amplitude)
    slots = () if encoding.is_amplitude else circuit.inputs(encoding.n_features(circuit.n_qubits))
    encoding.append(circuit, slots)
    return circuit, encoding


def _theta_of(value: Any, size: int) -> np.ndarray:
    """Weights of a kernel, a float64 array of their own (W,)."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"theta of a kernel is an array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"theta of a kernel is an array of real numbers, received dtype {array.dtype}.")
    if array.shape != (size,):
        raise ShapeError(
            f"this kernel's circuit has {size} weights, received an array of shape {array.shape}.",
            expected=(size,),
            received=array.shape,
        )
    if not np.isfinite(array).all():
        raise InputError(f"theta of a kernel is finite, received {shown(array)}.")
    return array.astype(np.float64)


def _squared_overlaps(a: np.ndarray, b: np.ndarray, same: bool) -> np.ndarray:
    """|⟨b|a⟩|² in blocks of rows; where both are the same, only those above the diagonal are computed."""
    if not (a.imag.any() or b.imag.any()):  # a quarter of the arithmetic
        a, b = np.ascontiguousarray(a.real), np.ascontiguousarray(b.real)
    out = np.empty((len(a), len(b)), a.real.dtype)
    rows = max(min(_BLOCK_BYTES // max(a.itemsize * len(b), 1), 1024), 64)
    right = b.conj()
    for first in range(0, len(a), rows):
        block = slice(first, first + rows)
        start = first if same else 0
        overlaps = a[block] @ right[start:].T
        values = out[block, start:]
        np.square(overlaps.real, out=values)
        if overlaps.dtype.kind == "c":
            values += np.square(overlaps.imag)
        if same:
            own = values[:, : len(values)]
            own[:] = np.maximum(own, own.T)  # equal but for rounding
            out[first + len(values) :, block] = values[:, len(values) :].T
    return np.minimum(out, 1.0, out=out)


def _target(labels: Any, count: int) -> np.ndarray:
    """What the Gram matrix should be."""
    classes = np.asarray(labels)
    if classes.shape != (count,):
        raise ShapeError(f"{count} samples need as many labels, received an array of shape {classes.shape}.")
    if classes.dtype.kind == "f" and not np.isfinite(classes).all():
        raise InputError("labels are names of classes, received some that are not finite.")
    names, numbers, counts = np.unique(classes, return_inverse=True, return_counts=True)
    check_bytes(24 * count**2, f"what a Gram matrix of {count} samples should be does not fit")
    if len(names) < 2:
        raise SpecError("an alignment needs samples of at least two classes.", argument="labels")
    if len(names) == 2:
        signs = np.where(numbers == 1, 1.0 / counts[1], -1.0 / counts[0])
        return np.outer(signs, signs)
    return np.where(numbers[:, None] == numbers[None, :], 1.0, -1.0 / (len(names) - 1))
