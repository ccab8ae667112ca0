"""The `tensorflow` engine: interprets the Plan in TensorFlow operations; runs in tf.function, XLA and SavedModels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from qstore_core import Capabilities, Circuit, hookimpl, lower
from qstore_core.backends.contract import check_exact, check_options
from qstore_core.circuit.measurements.measurement import Measurement
from qstore_core.engines.arrays.adjoint import value_and_vjp
from qstore_core.engines.arrays.ops import Scatter, inverse_index
from qstore_core.engines.arrays.planes import PlanesOps
from qstore_core.engines.arrays.program import ArrayProgram
from qstore_core.engines.memory import check_memory

from .situation import leaves
from .stack import exporter

__all__ = ["OPS", "TensorflowBackend", "TensorflowExecutable", "TensorflowOps"]

_COMPLEX = {tf.float32: tf.complex64, tf.float64: tf.complex128}


class TensorflowOps:
    """`qstore_core.engines.arrays.ops.Ops` for TensorFlow. In a graph constants are part of it, so none is kept."""

    def here(self) -> TensorflowOps | PlanesOps:
        """Real numbers in graphs that leave: other runtimes have no complex ones."""
        return _planes(exporter() or "") if leaves() else self

    def holds(self, x: tf.Tensor) -> tuple[bool, bool]:
        """Whether `x` is in the host's memory, where it is computed here. Of tapes nothing is known."""
        if tf.executing_eagerly():
            return "GPU" not in x.device, False
        return not leaves() and not tf.config.list_logical_devices("GPU"), False

    def const(self, value: np.ndarray, like: tf.Tensor) -> tf.Tensor:
        """`value` in the precision of `like`."""
        dtype = like.dtype
        if value.dtype.kind == "c":
            dtype = _COMPLEX.get(dtype, dtype)
        elif dtype.is_complex:
            dtype = dtype.real_dtype
        return tf.constant(value.astype(dtype.as_numpy_dtype), dtype)

    def take(self, x: tf.Tensor, index: np.ndarray, axis: int) -> tf.Tensor:
        """Take along an axis."""
        return tf.gather(x, index, axis=axis)

    def permute(self, x: tf.Tensor, index: np.ndarray) -> tf.Tensor:
        """Take along the last axis; the gradient is a take by the inverse permutation, not a scatter."""
        return _permute(x, index, inverse_index(index))

    def permute_back(self, x: tf.Tensor, index: np.ndarray) -> tf.Tensor:
        """Take by the inverse permutation."""
        return _permute(x, inverse_index(index), index)

    def scatter_last(self, x: tf.Tensor, scatter: Scatter) -> tf.Tensor:
        """Add columns of x up where `scatter` says: by a gather, since a scatter is slow under XLA."""
        if scatter.sources is not None:
            nothing = tf.zeros_like(x[..., :1])
            lead = [] if x.shape.rank == 1 else [-1]
            taken = tf.gather(tf.concat([x, nothing], -1), scatter.sources, axis=-1)
            return tf.reduce_sum(tf.reshape(taken, [*lead, scatter.width, scatter.most]), -1)
        columns = x if x.shape.rank == 1 else tf.transpose(x)
        sums = tf.math.unsorted_segment_sum(columns, scatter.index, scatter.width + 1)[: scatter.width]
        return sums if x.shape.rank == 1 else tf.transpose(sums)

    def stack(self, arrays: Sequence[tf.Tensor], axis: int) -> tf.Tensor:
        """Along a new axis."""
        return tf.stack(list(arrays), axis=axis)

    def scale(self, state: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """Complex times real."""
        return state * tf.cast(factor, state.dtype)

    def concat(self, arrays: Sequence[tf.Tensor], axis: int = -1) -> tf.Tensor:
        """Along an axis."""
        return tf.concat(list(arrays), axis=axis)

    reshape = staticmethod(tf.reshape)
    matmul = staticmethod(tf.matmul)
    cos = staticmethod(tf.cos)
    sin = staticmethod(tf.sin)
    conj = staticmethod(tf.math.conj)
    real = staticmethod(tf.math.real)
    imag = staticmethod(tf.math.imag)
    sqrt = staticmethod(tf.sqrt)
    round = staticmethod(tf.round)

    def function(self, name: str, x: tf.Tensor) -> tf.Tensor:
        """One of `FUNCTIONS`."""
        return getattr(tf.math, name.replace("arc", "a"))(x)

    log = staticmethod(tf.math.log)

    def eigvalsh(self, x: tf.Tensor) -> tf.Tensor:
        """Real eigenvalues of Hermitian matrices."""
        return tf.math.real(tf.linalg.eigvalsh(x))

    def maximum(self, x: tf.Tensor, least: float) -> tf.Tensor:
        """The larger of x and a number."""
        return tf.maximum(x, least)  # `tf.cast` of a Python number goes through float32

    def minimum(self, x: tf.Tensor, most: float) -> tf.Tensor:
        """The smaller of x and a number."""
        return tf.minimum(x, most)

    def sum(self, x: tf.Tensor, axis: int | tuple[int, ...], keepdims: bool = False) -> tf.Tensor:
        """Sum along one axis."""
        return tf.reduce_sum(x, axis=axis, keepdims=keepdims)

    def swap_last(self, x: tf.Tensor) -> tf.Tensor:
        """Exchange the last two axes."""
        return tf.linalg.matrix_transpose(x)

    def complex(self, real: tf.Tensor, imag: tf.Tensor | None) -> tf.Tensor:
        """A complex tensor."""
        return tf.complex(real, tf.zeros_like(real) if imag is None else imag)

    def zero_column(self, x: tf.Tensor) -> tf.Tensor:
        """(rows of x, 1) of zeros."""
        return tf.zeros((tf.shape(x)[0], 1), x.dtype)

    def max_abs(self, x: tf.Tensor) -> tf.Tensor:
        """Largest magnitude of each row, (rows, 1), a constant for the gradient."""
        return tf.reduce_max(tf.abs(tf.stop_gradient(x)), axis=-1, keepdims=True)

    def is_below(self, x: tf.Tensor, limit: float) -> tf.Tensor:
        """1.0 where x is below."""
        return tf.cast(tf.less(x, limit), x.dtype)

    def without_subnormals(self, x: tf.Tensor) -> tf.Tensor:
        """x, and zero where its magnitude is below the smallest normal number; the derivative is that of x."""
        small = tf.less(tf.abs(tf.stop_gradient(x)), self.smallest_normal(x))
        return x - tf.stop_gradient(tf.where(small, x, tf.zeros_like(x)))

    def smallest_normal(self, x: tf.Tensor) -> float:
        """Of the precision of x."""
        return float(np.finfo(x.dtype.as_numpy_dtype).smallest_normal)

    def wide(self, x: tf.Tensor) -> tf.Tensor:
        """In double precision."""
        return tf.cast(x, tf.float64)

    excess = None  # there is double precision

    def narrow(self, x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        """In the precision of `like`."""
        return tf.cast(x, like.dtype)

    def pad_last(self, x: tf.Tensor, width: int) -> tf.Tensor:
        """Zeros up to `width` columns."""
        missing = width - x.shape[-1]
        return tf.pad(x, ((0, 0), (0, missing))) if missing else x


def _permute(x: tf.Tensor, index: np.ndarray, inverse: np.ndarray) -> tf.Tensor:
    @tf.custom_gradient
    def take(y: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.gather(y, index, axis=-1), lambda gradient: _permute(gradient, inverse, index)

    return take(x)


OPS = TensorflowOps()


@cache
def _planes(runtime: str) -> PlanesOps:
    return PlanesOps(OPS, double=False, runtime=runtime)  # LiteRT has one precision


class TensorflowBackend:
    """Exact simulation in TensorFlow."""

    name = "tensorflow"
    capabilities = Capabilities(vjp=True, framework="tensorflow", embedded=True, amplitudes=True)

    def compile(
        self,
        circuit: Circuit,
        measurement: Measurement,
        *,
        dtype: str = "float32",
        shots: int | None = None,
    ) -> TensorflowExecutable:
        """Lower the circuit and lay it out."""
        check_exact(shots, backend=self.name)
        check_memory(circuit.n_qubits, dtype=dtype, backend=self.name)
        return TensorflowExecutable(ArrayProgram(lower(circuit, measurement)))


class TensorflowExecutable:
    """A compiled circuit on tensors (`apply`) and on NumPy arrays (`forward`, `vjp`)."""

    def __init__(self, program: ArrayProgram) -> None:
        """Keep the program."""
        self.program = program

    def apply(self, theta: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
        """`theta` (W,), `inputs` (B, I) → outputs (B, O), differentiable."""
        return self.program.forward(OPS.here(), theta, inputs)

    def apply_and_vjp(
        self, theta: tf.Tensor, inputs: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        """The same with the pull-back of the adjoint method."""
        return value_and_vjp(self.program, OPS.here(), theta, inputs)

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The same on NumPy arrays."""
        return self.apply(tf.constant(theta), tf.constant(inputs)).numpy()

    def value_and_vjp(
        self, theta: np.ndarray, inputs: np.ndarray
    ) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
        """Outputs, and the function that pulls cotangents back."""
        outputs, pull = self.apply_and_vjp(tf.constant(theta), tf.constant(inputs))

        def pull_arrays(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            d_theta, d_inputs = pull(tf.constant(cotangents))
            return d_theta.numpy(), d_inputs.numpy()

        return outputs.numpy(), pull_arrays

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, I))`."""
        return self.value_and_vjp(theta, inputs)[1](cotangents)


@hookimpl
def qstore_backend(options: dict[str, Any]) -> TensorflowBackend:
    """The `tensorflow` backend; it has no options."""
    check_options(options, backend="tensorflow")
    return TensorflowBackend()
