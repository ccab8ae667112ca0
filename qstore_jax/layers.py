"""The layers for JAX. What they compute is in `qstore_core`; here are arrays and the way that `route` says."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from qstore_core import CapabilityError, InputError, LayerSpec
from qstore_core.backends import runner
from qstore_core.circuit.checks import shown
from qstore_core.circuit.spec.initial import Init, initial_theta
from qstore_core.engines.memory import check_ensemble
from qstore_core.layers import definition
from qstore_core.layers.definition import LayerDefinition
from qstore_core.layers.numpy import numbered
from qstore_core.runtime.program import Execution, LayerProgram

from .call import LayerCall
from .engine import OPS
from .host import draw_seed
from .initial import JaxInit, as_init

__all__ = [
    "JaxLayer",
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
]


class JaxLayer(LayerDefinition):
    """Base of the JAX layers: a description with pure functions. Hashable by identity; holds no arrays.

    `layer.init(key)` draws theta, `layer.apply(theta, x)` computes, under every JAX transform.

    What cannot be encoded (NaN, infinity; with basis encoding what is not a bit) raises an `InputError` in eager calls
    on the CPU. In graphs and transforms, and on a GPU, such rows give NaN, and so does a theta that is not finite.
    """

    _framework_arguments: ClassVar[dict[str, tuple[Any, str]]] = {"name": (None, "Name in messages and profiles.")}

    def _define(  # type: ignore[override]
        self, spec: LayerSpec, execution: Execution, init: Init, config: dict[str, Any], *, name: str | None = None
    ) -> None:
        self.name = name or numbered(type(self).__name__)
        self._spec, self._config, self._init, primitive = spec, config, init, spec.primitive
        self._postprocesses = spec.postprocesses
        self._program = LayerProgram(primitive, execution, name=self.name, framework="jax", draw_seed=draw_seed)
        self._layer_call = LayerCall(self._program)

    def init(self, key: Any = None) -> jax.Array:
        """Theta (W,), from the layer's seed, or from `key` where one is given; in transforms and graphs, too.

        An initialiser of `jax.nn.initializers` is called with `key` itself.

        Example:
            >>> layer = QuantumFeatureExtractor(2, depth=1, seed=0)
            >>> layer.init(jax.random.key(1)).shape
            (4,)
            >>> jax.vmap(layer.init)(jax.random.split(jax.random.key(1), 3)).shape
            (3, 4)
        """
        init, size, dtype = self._init, self.spec.n_weights, jnp.result_type(float)

        def drawn(seed: Any) -> np.ndarray:
            return initial_theta(init, size, None if seed is None else int(seed)).astype(dtype)

        if key is None:
            return jnp.asarray(drawn(self._program.execution.seed))
        try:
            seed = jax.random.randint(key, (), 0, 2**31 - 1)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.name}.init takes one key, jax.random.key(0), received {shown(key)}.") from error
        if isinstance(init, JaxInit):
            return init.function(key, (size,), dtype)
        if not isinstance(seed, jax.core.Tracer):
            return jnp.asarray(drawn(seed))
        theta: jax.Array = jax.pure_callback(
            drawn, jax.ShapeDtypeStruct((size,), dtype), seed, vmap_method="sequential"
        )
        return theta

    def apply(self, theta: Any, x: Any) -> jax.Array:
        """Features (…, F) → outputs (…, O), in the dtype of `x`.

        Args:
            theta: (W,); radians. (E, W) of an ensemble gives outputs (E, …, O).
            x: Features; float64 is computed in float64, everything else in float32.

        Example:
            >>> layer = QuantumFeatureExtractor(1, depth=1, encoding="angle", init="zeros")
            >>> slope = jax.grad(lambda x: layer.apply(layer.init(), x)[0, 0])(jnp.array([[0.3]]))
            >>> round(float(slope[0, 0]), 4)   # d cos(x) = -sin(0.3)
            -0.2955
        """
        program = self._program
        theta, x = self._array(theta, "theta"), self._array(x, "features")
        if theta.ndim == 2 and len(theta):
            check_ensemble(len(theta), x.shape, self.output_dim, theta.dtype.itemsize)
            return jnp.stack([self.apply(member, x) for member in theta])
        program.check_shapes(theta.shape, x.shape)
        work = x.dtype if x.dtype in (jnp.float32, jnp.float64) else jnp.dtype("float32")
        rows = x.reshape(-1, x.shape[-1]).astype(work)
        values = self._layer_call(theta.astype(work), rows)
        if self._postprocesses:
            values = self._postprocessed(OPS, values, float(jnp.finfo(work).eps))
        out = values.reshape(*x.shape[:-1], *self._spec.sample_shape)
        return out.astype(self._output_dtype(str(x.dtype))) if jnp.issubdtype(x.dtype, jnp.floating) else out

    def _array(self, values: Any, what: str) -> jax.Array:
        """As a JAX array of real numbers."""
        if not isinstance(values, jax.Array):
            try:
                values = jnp.asarray(values)
            except (TypeError, ValueError) as error:
                raise InputError(f"{self.name} takes arrays of numbers: {what} {shown(values)} is none.") from error
        if not (jnp.issubdtype(values.dtype, jnp.floating) or jnp.issubdtype(values.dtype, jnp.integer)):
            raise InputError(f"{self.name} takes real numbers, received {what} of dtype {values.dtype}.")
        return values

    __call__ = apply

    def as_operations(self) -> Self:
        """The same layer in JAX's own operations: for graphs that leave (`jax.export`), which cannot call the host.

        Raises:
            CapabilityError: The layer samples, or its backend computes something that operations do not.

        Example:
            >>> layer = QuantumReadout(1, encoding="angle", seed=0).as_operations()
            >>> theta, x = layer.init(), jnp.ones((4, 1))
            >>> len(jax.export.export(jax.jit(layer.apply))(theta, x).serialize()) > 0
            True
        """
        where = self._program.route(mode="file")
        if where.where == "refused":
            raise CapabilityError(f"{self.name}: {where.why}")
        other = copy.copy(self)
        other._layer_call = LayerCall(self._program, mode="file")
        return other

    async def call_async(self, theta: Any, x: Any) -> jax.Array:
        """The same without blocking the running event loop."""
        out: jax.Array = await runner.to_thread(self.apply, theta, x)
        return out

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return self.config()

    @classmethod
    def _as_init(cls, init: Any) -> Init:
        return as_init(init)

    def _framework_config(self) -> dict[str, Any]:
        return {"name": self.name}

    def _take_theta(self, other: JaxLayer) -> None:
        """Nothing: theta is the caller's."""

    def __repr__(self) -> str:
        return f"<{self.name}: {self.spec.n_qubits} qubits, {self.spec.n_weights} weights, backend {self.backend_name}>"


class QuantumEncoder(definition.QuantumEncoder, JaxLayer):
    __doc__ = definition.QuantumEncoder.__doc__


class QuantumFeatureExtractor(definition.QuantumFeatureExtractor, JaxLayer):
    __doc__ = definition.QuantumFeatureExtractor.__doc__


class QuantumPooling(definition.QuantumPooling, JaxLayer):
    __doc__ = definition.QuantumPooling.__doc__


class QuantumReadout(definition.QuantumReadout, JaxLayer):
    __doc__ = definition.QuantumReadout.__doc__


class QuantumLayer(definition.QuantumLayer, JaxLayer):
    __doc__ = definition.QuantumLayer.__doc__
