"""What the JAX libraries share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..problem import Problem
from . import Running


def running(batched: Callable[[Any, Any], Any], problem: Problem) -> Running:
    """jit of `batched(theta, x)`, and of the same with its pull-back, on JAX's default device."""
    import jax

    jax.config.update("jax_default_matmul_precision", "float32")  # not in TF32

    def value_and_gradients(theta: Any, x: Any, cotangents: Any) -> tuple[Any, Any, Any]:
        outputs, vjp_fn = jax.vjp(batched, theta, x)
        return outputs, *vjp_fn(cotangents)

    theta, x = jax.numpy.asarray(problem.angles()), jax.numpy.asarray(problem.features())
    forward, step = jax.jit(batched), jax.jit(value_and_gradients)
    return Running(
        lambda: forward(theta, x),
        lambda cotangents: step(theta, x, cotangents),
        jax.numpy.asarray,
        {"platform": jax.default_backend()},
        finish=jax.block_until_ready,
    )
