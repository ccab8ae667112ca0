"""The `jax` engine: interprets the Plan in JAX operations; under jit, grad, jvp, vmap, on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qstore_core import Capabilities, Circuit, hookimpl, lower
from qstore_core.backends.contract import check_exact, check_options
from qstore_core.circuit.measurements.measurement import Measurement
from qstore_core.engines.arrays.adjoint import value_and_vjp
from qstore_core.engines.arrays.ops import Scatter, inverse_index
from qstore_core.engines.arrays.program import ArrayProgram
from qstore_core.engines.memory import check_memory

__all__ = ["OPS", "JaxBackend", "JaxExecutable", "JaxOps"]

_COMPLEX = {np.dtype("float32"): np.complex64, np.dtype("float64"): np.complex128}


class JaxOps:
    """`qstore_core.engines.arrays.ops.Ops` for JAX. Constants are part of a traced graph, so none is kept."""

    def here(self) -> JaxOps:
        """Itself: JAX's graphs have complex numbers everywhere."""
        return self

    def holds(self, x: jax.Array) -> tuple[bool, bool]:
        """Whether arrays are in the host's memory. What is traced for derivatives is not known here."""
        return jax.default_backend() == "cpu", False

    def const(self, value: np.ndarray, like: jax.Array) -> jax.Array:
        """`value` in the precision of `like`."""
        dtype = np.dtype(like.dtype)
        if value.dtype.kind == "c":
            dtype = np.dtype(_COMPLEX.get(dtype, dtype))
        elif dtype.kind == "c":
            dtype = np.dtype(f"float{4 * dtype.itemsize}")
        return jnp.asarray(value.astype(dtype))

    def take(self, x: jax.Array, index: np.ndarray, axis: int) -> jax.Array:
        """Take along an axis."""
        return jnp.take(x, _int32(index), axis=axis)

    def permute(self, x: jax.Array, index: np.ndarray) -> jax.Array:
        """Take along the last axis."""
        return jnp.take(x, _int32(index), axis=-1, unique_indices=True)

    def permute_back(self, x: jax.Array, index: np.ndarray) -> jax.Array:
        """Take by the inverse permutation."""
        return jnp.take(x, _int32(inverse_index(index)), axis=-1, unique_indices=True)

    def scatter_last(self, x: jax.Array, scatter: Scatter) -> jax.Array:
        """Add columns of x up where `scatter` says."""
        return jnp.zeros((*x.shape[:-1], scatter.width), x.dtype).at[..., scatter.index].add(x, mode="drop")

    def stack(self, arrays: Sequence[jax.Array], axis: int) -> jax.Array:
        """Along a new axis."""
        return jnp.stack(list(arrays), axis=axis)

    def scale(self, state: jax.Array, factor: jax.Array) -> jax.Array:
        """Complex times real."""
        return state * factor

    def concat(self, arrays: Sequence[jax.Array], axis: int = -1) -> jax.Array:
        """Along an axis."""
        return jnp.concatenate(list(arrays), axis=axis)

    reshape = staticmethod(jnp.reshape)
    cos = staticmethod(jnp.cos)
    sin = staticmethod(jnp.sin)
    conj = staticmethod(jnp.conj)
    real = staticmethod(jnp.real)
    imag = staticmethod(jnp.imag)
    sqrt = staticmethod(jnp.sqrt)
    round = staticmethod(jnp.round)

    def function(self, name: str, x: jax.Array) -> jax.Array:
        """One of `FUNCTIONS`."""
        out: jax.Array = getattr(jnp, name)(x)
        return out

    log = staticmethod(jnp.log)
    eigvalsh = staticmethod(jnp.linalg.eigvalsh)
    maximum = staticmethod(jnp.maximum)
    minimum = staticmethod(jnp.minimum)

    def matmul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Matrix product in the precision of its operands, on accelerators too."""
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)

    def sum(self, x: jax.Array, axis: int | tuple[int, ...], keepdims: bool = False) -> jax.Array:
        """Sum along one axis."""
        return jnp.sum(x, axis=axis, keepdims=keepdims)

    def swap_last(self, x: jax.Array) -> jax.Array:
        """Exchange the last two axes."""
        return jnp.swapaxes(x, -1, -2)

    def complex(self, real: jax.Array, imag: jax.Array | None) -> jax.Array:
        """A complex array."""
        return jax.lax.complex(real, jnp.zeros_like(real) if imag is None else imag)

    def zero_column(self, x: jax.Array) -> jax.Array:
        """(rows of x, 1) of zeros."""
        return jnp.zeros((x.shape[0], 1), x.dtype)

    def max_abs(self, x: jax.Array) -> jax.Array:
        """Largest magnitude of each row, (rows, 1), a constant for the gradient."""
        return jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axis=-1, keepdims=True)

    def is_below(self, x: jax.Array, limit: float) -> jax.Array:
        """1.0 where x is below."""
        return (x < limit).astype(x.dtype)

    def without_subnormals(self, x: jax.Array) -> jax.Array:
        """x, and zero where its magnitude is below the smallest normal number; the derivative is that of x."""
        return x - jax.lax.stop_gradient(jnp.where(jnp.abs(x) < jnp.finfo(x.dtype).smallest_normal, x, 0.0))

    def smallest_normal(self, x: jax.Array) -> float:
        """Of the precision of x."""
        return float(jnp.finfo(x.dtype).smallest_normal)

    def wide(self, x: jax.Array) -> jax.Array:
        """In double precision, where JAX has it switched on."""
        return x.astype(jnp.float64) if jax.config.jax_enable_x64 else x

    @property
    def excess(self) -> Callable[[jax.Array, int], jax.Array] | None:
        """What Σ|x|² over the last axis exceeds a number by; None where there is double precision."""
        return None if jax.config.jax_enable_x64 else _excess

    def narrow(self, x: jax.Array, like: jax.Array) -> jax.Array:
        """In the precision of `like`."""
        return x.astype(like.dtype)

    def pad_last(self, x: jax.Array, width: int) -> jax.Array:
        """Zeros up to `width` columns."""
        missing = width - x.shape[-1]
        return jnp.pad(x, ((0, 0), (0, missing))) if missing else x


def _excess(x: jax.Array, count: int) -> jax.Array:
    """High parts are multiples of 2**-11, whose squares are summed as integers; in sums of the rest little is lost."""
    parts = max(1, x.shape[-1] >> 8)  # so that no integer is too long
    x = jax.lax.stop_gradient(x).reshape(*x.shape[:-1], parts, -1)
    high: Any = 0
    low: Any = 0.0
    for plane in (x.real, x.imag):
        steps = jnp.round(plane * 2048)
        whole = steps.astype(jnp.int32)
        high, low = high + whole * whole, low + (plane + steps / 2048) * (plane - steps / 2048)
    excess = jnp.sum(high, -1) - (count << 22) // parts
    return jnp.sum(excess.astype(low.dtype) * 2.0**-22 + jnp.sum(low, -1), -1)


def _int32(index: np.ndarray) -> np.ndarray:
    """One dtype with and without `jax_enable_x64`: JAX keeps compiled gathers for both."""
    return np.asarray(index, dtype=np.int32)


OPS = JaxOps()


class JaxBackend:
    """Exact simulation in JAX."""

    name = "jax"
    capabilities = Capabilities(vjp=True, framework="jax", embedded=True, amplitudes=True)

    def compile(
        self, circuit: Circuit, measurement: Measurement, *, dtype: str = "float32", shots: int | None = None
    ) -> JaxExecutable:
        """Lower the circuit and lay it out."""
        check_exact(shots, backend=self.name)
        check_memory(circuit.n_qubits, dtype=dtype, backend=self.name)
        return JaxExecutable(ArrayProgram(lower(circuit, measurement)), dtype)


class JaxExecutable:
    """A compiled circuit on JAX arrays (`apply`) and on NumPy arrays (`forward`, `vjp`)."""

    def __init__(self, program: ArrayProgram, dtype: str) -> None:
        """Keep the program."""
        self.program, self.dtype = program, dtype
        self._jitted = jax.jit(self.apply)
        self._jitted_vjp = jax.jit(lambda theta, inputs, cotangents: self.apply_and_vjp(theta, inputs)[1](cotangents))

    def apply(self, theta: jax.Array, inputs: jax.Array) -> jax.Array:
        """`theta` (W,), `inputs` (B, I) → outputs (B, O), differentiable."""
        return self.program.forward(OPS, theta, inputs)

    def apply_and_vjp(
        self, theta: jax.Array, inputs: jax.Array
    ) -> tuple[jax.Array, Callable[[jax.Array], tuple[jax.Array, jax.Array]]]:
        """The same with the vjp of the adjoint method."""
        return value_and_vjp(self.program, OPS, theta, inputs)

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The same on NumPy arrays."""
        with jax.enable_x64(self.dtype == "float64"):
            return np.array(self._jitted(theta, inputs))

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, I))`."""
        with jax.enable_x64(self.dtype == "float64"):
            d_theta, d_inputs = self._jitted_vjp(theta, inputs, cotangents)
            return np.array(d_theta), np.array(d_inputs)


@hookimpl
def qstore_backend(options: dict[str, Any]) -> JaxBackend:
    """The `jax` backend; it has no options."""
    check_options(options, backend="jax")
    return JaxBackend()
