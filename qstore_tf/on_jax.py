"""Keras on JAX: one layer's calls on its arrays, as in the layers for JAX itself."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import jax

from qstore_core import CapabilityError, SpecError
from qstore_core.runtime.program import LayerProgram
from qstore_jax import call
from qstore_jax.engine import OPS, JaxOps

from .stack import exporter

__all__ = ["FRAMEWORK", "LayerCall", "as_plain", "check_dtype", "functions", "supports_jit", "traced"]

FRAMEWORK = "jax"


class LayerCall(call.LayerCall):
    """`theta` (W,), `x` (B, F), both float32 or float64 → (B, O)."""

    def __call__(self, theta: jax.Array, x: jax.Array, **_: Any) -> jax.Array:
        """Run the layer; JAX knows whether it is differentiated."""
        if isinstance(x, jax.core.Tracer) and (runtime := exporter()):
            raise CapabilityError(f"{self.program.name}: Keras on JAX makes no {runtime} files of it. {_ELSEWHERE}")
        return super().__call__(theta, x)


class _SavedOps(JaxOps):
    """Of SavedModels, which TensorFlow runs."""

    def eigvalsh(self, x: jax.Array) -> jax.Array:
        raise CapabilityError(f"a SavedModel from JAX has no eigenvalues. {_ELSEWHERE}")


_ELSEWHERE = 'Save the model, load it with KERAS_BACKEND="tensorflow", and export it there.'


def functions() -> JaxOps:
    """Array functions for what is computed from outputs."""
    return OPS if exporter() is None else _SavedOps()


def as_plain(x: Any, name: str) -> Any:
    """A sparse array as an ordinary one."""
    return x.todense() if hasattr(x, "todense") else x


def supports_jit(program: LayerProgram) -> bool:
    """Whether `jax.jit` takes a model with this layer: its graph may call the host."""
    return True


def check_dtype(dtype: str, name: str) -> None:
    """Refuse what JAX would compute in another precision."""
    if dtype == "float64" and not jax.config.jax_enable_x64:
        raise SpecError(
            f'{name}: dtype="float64" is float32 on JAX unless 64 bits are switched on: '
            'jax.config.update("jax_enable_x64", True), before anything is computed.',
            argument="dtype",
        )


def traced(name: str) -> AbstractContextManager[Any]:
    """The name of a layer in the framework's profiler, around an eager call."""
    return jax.profiler.TraceAnnotation(name)
