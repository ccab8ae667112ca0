"""The tensor function: a layer in TensorFlow operations, differentiable by TensorFlow."""

from __future__ import annotations

import tensorflow as tf

from qstore_core.runtime.program import LayerProgram

__all__ = ["on_tensors"]


def on_tensors(program: LayerProgram, theta: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """`theta` (W,), `x` (B, F) → (B, O)."""
    executable = program.on_tensors(x)
    if tf.executing_eagerly():
        return program.record("forward", lambda: executable.apply(theta, x), x)[0]
    return executable.apply(theta, x)
