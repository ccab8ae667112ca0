"""The tensor function: a layer in TensorFlow operations, differentiable by TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from qstore_core import GradientError
from qstore_core.runtime.program import LayerProgram

from .situation import is_saved

__all__ = ["on_tensors", "refuse_gradient"]


def on_tensors(program: LayerProgram, theta: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """`theta` (W,), `x` (B, F) → (B, O)."""
    executable, eager = program.on_tensors(x), tf.executing_eagerly()
    if eager:  # what is refused on arrays is refused on tensors; in a graph it gives NaN
        executable.check_values(theta.numpy(), x.numpy())
    if executable.no_input_gradient:
        x = refuse_gradient(x, executable.no_input_gradient)
    if eager:
        return program.record("forward", lambda: executable.apply(theta, x), executable.settings)[0]
    return executable.apply(theta, x)


def refuse_gradient(tensor: tf.Tensor, message: str) -> tf.Tensor:
    """The identity; asking for its gradient raises `GradientError`, or gives NaN in a model loaded from a file.

    Gradient functions are saved with a model whether anyone asks for them or not.
    """
    graph = tf.compat.v1.get_default_graph()

    @tf.custom_gradient
    def identity(t: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            if is_saved():
                return upstream * np.nan
            if not tf.executing_eagerly() and tf.compat.v1.get_default_graph() is not graph:
                raise GradientError(
                    f"{message} A tf.GradientTape outside of a tf.function differentiates all that is in the function, "
                    "wanted or not: put the tape inside."
                )
            raise GradientError(message)

        return tf.identity(t), gradient

    return identity(tensor)
