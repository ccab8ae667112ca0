"""One layer's calls on JAX arrays, by the way that `route` says: of JAX's layers and of Keras's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qstore_core import GradientError
from qstore_core.runtime.program import LayerProgram

from .host import content_of, on_host
from .tensor import refuse_gradient, values_on_tensors

__all__ = ["LayerCall"]


class LayerCall:
    """`theta` (W,), `x` (B, F), both float32 or float64 → (B, O).

    Args:
        program: The layer.
        mode: As of `route`; that of the call where it is "".
    """

    def __init__(self, program: LayerProgram, mode: str = "") -> None:
        self.program, self.content, self.mode = program, content_of(program), mode

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy draws from seeds of its own."""
        self.__init__(state["program"], state["mode"])  # type: ignore[misc]

    def __call__(self, theta: jax.Array, x: jax.Array) -> jax.Array:
        """Run the layer."""
        program, traced = self.program, isinstance(theta, jax.core.Tracer) or isinstance(x, jax.core.Tracer)
        device = jax.default_backend() if traced else next(iter(x.devices())).platform
        where = program.route(device=device, mode=self.mode or ("graph" if traced else "eager"))
        if where.where == "refused":
            raise GradientError(f"{program.name}: {where.why}")
        if where.where == "host":
            if traced:
                return on_host(self.content, theta, x)
            return _forward(program, theta, x)
        executable = program.on_tensors(x)
        if not traced and device == "cpu":  # refused as on arrays
            executable.check_values(np.asarray(theta), np.asarray(x))
        if (message := executable.no_input_gradient) and traced:
            x = refuse_gradient(x, message)

        def compute() -> jax.Array:
            if traced:
                return values_on_tensors(program, theta, x)
            out: jax.Array = program.record("forward", lambda: executable.apply(theta, x), executable.settings)[0]
            return out

        def elsewhere(other: LayerProgram) -> jax.Array:
            return on_host(content_of(other), theta, x) if traced else _forward(other, theta, x)

        return compute() if self.mode else program.with_fallback(compute, elsewhere, recorded=not traced)


def _forward(program: LayerProgram, theta: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.asarray(program.forward(np.asarray(theta), np.asarray(x)))
