"""Executables of wide circuits that are computed on few qubits at a time: by light cones, or in a window.

One seam: what `EncodedExecutable` calls is either the backend's compiled circuit, or one of these, which behaves in the
same way. See `circuit.lowering.light_cone` for when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends.contract import Backend
from ..circuit.angles.functions import flattened
from ..circuit.circuit import Circuit
from ..circuit.lowering.light_cone import LEAST_QUBITS, Narrowing, narrow
from ..circuit.measurements.measurement import Measurement
from ..engines.arrays.numpy_ops import NumpyOps
from ..engines.arrays.ops import Scatter, frozen
from ..engines.memory import STATES, check_bytes, check_memory
from ..engines.window import WindowProgram
from ..errors import InputError
from .cache import Recipe, compiled

__all__ = ["bytes_of_a_row", "check_narrow_memory", "narrow_executable", "narrowing"]

VjpFn = Callable[[Any], tuple[Any, Any]]
_KEEP_BYTES = 1 << 26
"""What a forward pass in a window keeps for the reverse sweep; of larger batches it is computed again, in parts."""
_NUMPY = NumpyOps()
_FULL = Narrowing(why="the backend computes circuits as they are")


def narrowing(circuit: Circuit, measurement: Measurement, backend: Backend, shots: int | None) -> Narrowing:
    """How a backend's circuit is computed: narrow ones are for exact, noiseless engines in this process alone."""
    capabilities = backend.capabilities
    if not capabilities.embedded or capabilities.noisy or shots is not None:
        return _FULL
    return narrow(flattened(circuit)[0], measurement)


def check_narrow_memory(circuit: Circuit, measurement: Measurement, backend: Backend, rows: int, dtype: str) -> None:
    """Raise `MemoryLimitError` where a batch does not fit what this process may have."""
    found = narrowing(circuit, measurement, backend, None)
    if found.window is not None:
        what = f"a window of {found.width} of {circuit.n_qubits} qubits"
        check_bytes(16 * found.window.entries + 8 * rows * circuit.n_qubits, f"{what} cannot be simulated here")
        return
    n_qubits = circuit.n_qubits if found.is_full else found.width
    why = f", and no narrower way: {found.why}" if n_qubits >= LEAST_QUBITS else ""
    check_memory(n_qubits, rows, dtype, at_once=backend.capabilities.rows_at_once, backend=backend.name, why=why)


def bytes_of_a_row(
    circuit: Circuit, measurement: Measurement, backend: Backend, dtype: str, gradient: bool, recorded: int
) -> int:
    """What one row takes on a framework's tensors.

    Args:
        circuit: The circuit.
        measurement: Its measurement.
        backend: The engine.
        dtype: Of the call.
        gradient: Whether a reverse sweep follows, for which a narrow way keeps what it has computed.
        recorded: Steps of which the framework itself keeps what they need for the gradient.
    """
    found, real = narrowing(circuit, measurement, backend, None), np.dtype(dtype).itemsize
    if found.window is not None:
        kept = found.window.entries if gradient else 0
        return real * ((3 << 2 * found.width) + 2 * kept)
    if found.is_full:
        return 2 * real * (STATES + 3 * recorded) << circuit.n_qubits
    kept = sum(1 << cone.circuit.n_qubits for cone in found.cones) if gradient else 0
    return 2 * real * ((STATES << found.width) + 2 * kept)


def narrow_executable(recipe: Recipe, ops: Any) -> Any:
    """The executable of a recipe whose circuit is computed on few qubits at a time; None where it is not.

    Args:
        recipe: Circuit, measurement, backend and precision.
        ops: Array functions of the framework, for `apply` and `apply_and_vjp`; None on the host.
    """
    found = narrowing(recipe.circuit, recipe.measurement, recipe.backend, recipe.shots)
    if found.window is not None:
        return _InWindow(found, recipe, ops)
    return None if found.is_full else _InCones(found, recipe, ops)


class _Narrow:
    """What both have in common: calls on arrays and on tensors."""

    def __init__(self, found: Narrowing, recipe: Recipe, ops: Any) -> None:
        self.circuit, self.found, self._ops = recipe.circuit, found, ops
        self._dtype = np.dtype(recipe.dtype)

    def _value_and_vjp(self, ops: Any, theta: Any, x: Any) -> tuple[Any, VjpFn]:
        raise NotImplementedError

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull cotangents back."""
        return self.value_and_vjp(theta, inputs)[1](cotangents)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, VjpFn]:
        """On arrays."""
        raise NotImplementedError

    def apply_and_vjp(self, theta: Any, inputs: Any) -> tuple[Any, VjpFn]:
        """On tensors."""
        outputs, vjp_fn = self._value_and_vjp(self._ops, theta, inputs)
        return outputs + self._nan(theta, inputs), vjp_fn

    def _nan(self, theta: Any, x: Any) -> Any:
        """(B, 1) of zeros, NaN in rows of features that are not finite: as a full state has it in all outputs."""
        ops = self._ops
        return ops.zero_column(x) + ops.sum(x * 0.0, -1, True) + ops.sum(theta * 0.0, -1, True)

    def _check_finite(self, theta: np.ndarray, x: np.ndarray) -> None:
        if not (np.isfinite(theta).all() and np.isfinite(x).all()):
            raise InputError("theta or features are not finite.")


class _InWindow(_Narrow):
    """On arrays in float64 whatever the precision of the layer: a chain is a long product."""

    def __init__(self, found: Narrowing, recipe: Recipe, ops: Any) -> None:
        super().__init__(found, recipe, ops)
        assert found.window is not None
        assert found.combine is not None
        self._program = WindowProgram(found.window, found.combine, recipe.circuit)
        self._rows = max(_KEEP_BYTES // (8 * max(found.window.entries, 1)), 1)

    @property
    def nbytes(self) -> int:
        """About what its tables take."""
        assert self.found.window is not None
        return 24 * self.found.window.entries + (64 << 10)

    def _value_and_vjp(self, ops: Any, theta: Any, x: Any) -> tuple[Any, VjpFn]:
        return self._program.value_and_vjp(ops, theta, x)

    def apply(self, theta: Any, inputs: Any) -> Any:
        """On tensors, differentiable by the framework."""
        return self._program.forward(self._ops, theta, inputs) + self._nan(theta, inputs)

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """On arrays."""
        self._check_finite(theta, inputs)
        wide, rows = theta.astype(np.float64), inputs.astype(np.float64)
        parts = [self._program.forward(_NUMPY, wide, part) for part in self._parts(rows)]
        return np.concatenate(parts).astype(self._dtype, copy=False)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, VjpFn]:
        """On arrays."""
        self._check_finite(theta, inputs)
        wide, rows = theta.astype(np.float64), inputs.astype(np.float64)
        fits = len(rows) <= self._rows
        if fits:
            outputs, whole = self._program.value_and_vjp(_NUMPY, wide, rows)
        else:
            outputs = np.concatenate([self._program.forward(_NUMPY, wide, part) for part in self._parts(rows)])

        def vjp_fn(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            double = cotangents.astype(np.float64)
            if fits:
                d_theta, d_x = whole(double)
            else:
                pairs = [
                    self._program.value_and_vjp(_NUMPY, wide, part)[1](own)
                    for part, own in zip(self._parts(rows), self._parts(double), strict=True)
                ]
                d_theta, d_x = sum(pair[0] for pair in pairs), np.concatenate([pair[1] for pair in pairs])
            return d_theta.astype(self._dtype, copy=False), d_x.astype(self._dtype, copy=False)

        return outputs.astype(self._dtype, copy=False), vjp_fn

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[k : k + self._rows] for k in range(0, max(len(rows), 1), self._rows)]


class _InCones(_Narrow):
    """Equal cones are one compiled circuit, run with other weights and inputs."""

    def __init__(self, found: Narrowing, recipe: Recipe, ops: Any) -> None:
        super().__init__(found, recipe, ops)
        self._engines: list[Any] = [
            compiled(Recipe(cone.circuit, cone.measurement, recipe.backend, recipe.dtype)) for cone in found.cones
        ]
        assert found.combine is not None
        combine = found.combine
        self._combine = combine
        self._plain = combine.shape[0] == combine.shape[1] and bool(np.array_equal(combine, np.eye(len(combine))))
        self._weights, self._inputs = (
            [frozen(np.array(getattr(cone, kind), np.int64)) for cone in found.cones] for kind in ("weights", "inputs")
        )
        self._to_theta = Scatter(np.concatenate(self._weights), recipe.circuit.n_weights)
        self._to_x = Scatter(np.concatenate(self._inputs), recipe.circuit.n_inputs)

    @property
    def nbytes(self) -> int:
        """Little: compiled cones count for themselves."""
        return 16 * self._combine.size

    def _value_and_vjp(self, ops: Any, theta: Any, x: Any) -> tuple[Any, VjpFn]:
        method = "value_and_vjp" if ops is _NUMPY else "apply_and_vjp"
        parts = []
        for engine, weights, inputs in zip(self._engines, self._weights, self._inputs, strict=True):
            own = self._own(ops, theta, x, weights, inputs)
            if hasattr(engine, method):
                parts.append(getattr(engine, method)(*own))
            else:
                parts.append((engine.forward(*own), lambda c, engine=engine, own=own: engine.vjp(*own, c)))

        def vjp_fn(cotangents: Any) -> tuple[Any, Any]:
            d_values = cotangents
            if not self._plain:
                d_values = ops.matmul(cotangents, ops.swap_last(ops.const(self._combine, theta)))
            at, d_weights, d_inputs = 0, [], []
            for cone, (_, pull) in zip(self.found.cones, parts, strict=True):
                end = at + len(cone.strings)
                d_w, d_i = pull(d_values[:, at:end])
                d_weights.append(d_w)
                d_inputs.append(d_i)
                at = end
            d_theta = ops.scatter_last(ops.concat(d_weights), self._to_theta)
            d_x = ops.scatter_last(ops.concat(d_inputs), self._to_x) if self.circuit.n_inputs else x
            return d_theta, d_x

        return self._combined(ops, [values for values, _ in parts], theta), vjp_fn

    def _own(self, ops: Any, theta: Any, x: Any, weights: np.ndarray, inputs: np.ndarray) -> tuple[Any, Any]:
        """Theta and inputs of one cone."""
        return ops.take(theta, weights, -1), ops.take(x, inputs, -1)

    def _combined(self, ops: Any, values: list[Any], theta: Any) -> Any:
        out = ops.concat(values) if len(values) > 1 else values[0]
        return out if self._plain else ops.matmul(out, ops.const(self._combine, theta))

    def apply(self, theta: Any, inputs: Any) -> Any:
        """On tensors, differentiable by the framework."""
        ops = self._ops
        values = [
            engine.apply(*self._own(ops, theta, inputs, w, i))
            for engine, w, i in zip(self._engines, self._weights, self._inputs, strict=True)
        ]
        return self._combined(ops, values, theta) + self._nan(theta, inputs)

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """On arrays."""
        self._check_finite(theta, inputs)
        values = [
            engine.forward(*self._own(_NUMPY, theta, inputs, w, i))
            for engine, w, i in zip(self._engines, self._weights, self._inputs, strict=True)
        ]
        return self._combined(_NUMPY, values, theta)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, VjpFn]:
        """On arrays."""
        self._check_finite(theta, inputs)
        return self._value_and_vjp(_NUMPY, theta, inputs)
