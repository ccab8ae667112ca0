"""The tensor function: a layer in JAX operations, which every JAX transform takes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from qstore_core import GradientError
from qstore_core.runtime.program import LayerProgram

__all__ = ["refuse_gradient", "tangents_on_tensors", "values_on_tensors", "vjp_on_tensors"]

Gradients = tuple[jax.Array, jax.Array]


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def refuse_gradient(x: jax.Array, message: str) -> jax.Array:
    """The identity; a derivative of it raises `GradientError`."""
    return x


@refuse_gradient.defjvp
def _refuse(message: str, *_: Any) -> Any:
    raise GradientError(message)


def values_on_tensors(program: LayerProgram, theta: jax.Array, x: jax.Array) -> jax.Array:
    """`theta` (W,), `x` (B, F) → (B, O)."""
    return program.on_tensors(x).apply(theta, x)


def tangents_on_tensors(
    program: LayerProgram, theta: jax.Array, x: jax.Array, d_theta: jax.Array, d_x: jax.Array
) -> jax.Array:
    """Tangents of the outputs (B, O) for tangents of theta and features."""
    return jax.jvp(lambda t, f: values_on_tensors(program, t, f), (theta, x), (d_theta, d_x))[1]


def vjp_on_tensors(program: LayerProgram, theta: jax.Array, x: jax.Array, cotangents: jax.Array) -> Gradients:
    """Cotangents (B, O) → gradients of theta (W,) and features (B, F), by the adjoint method."""
    d_theta, d_x = program.on_tensors(x).apply_and_vjp(theta, x)[1](cotangents)
    return d_theta, d_x
