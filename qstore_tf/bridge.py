"""From TensorFlow to backends on the host: one differentiable host call."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # the one place that knows of jit_compile=True

from qstore_core import GradientError
from qstore_core.program import LayerProgram

__all__ = ["host_call", "may_call_host", "refuse_gradient"]


def host_call(program: LayerProgram, theta: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Run a layer's host path on `theta` (W,), `x` (B, F) → (B, O); its gradient is the core's vjp.

    TensorFlow calls back from its own threads, so nothing is kept between the passes: the backward pass runs the
    circuit again.
    """
    width = program.spec.output_dim

    def forward(theta_: np.ndarray, x_: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(program.forward(theta_, x_))

    def backward(theta_: np.ndarray, x_: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_theta, d_x = program.value_and_vjp(theta_, x_, wrt_inputs=True)[1](cotangents)
        return d_theta.astype(x_.dtype, copy=False), np.ascontiguousarray(d_x)

    def backward_theta(theta_: np.ndarray, x_: np.ndarray, cotangents: np.ndarray) -> np.ndarray:
        pullback = program.value_and_vjp(theta_, x_, wrt_inputs=False)[1]
        return pullback(cotangents)[0].astype(x_.dtype, copy=False)

    @tf.custom_gradient
    def call(theta_: tf.Tensor, x_: tf.Tensor) -> tuple[tf.Tensor, Any]:
        y = tf.numpy_function(forward, [theta_, x_], x_.dtype, stateful=True)
        y.set_shape((x_.shape[0], width))  # tf.numpy_function forgets it

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            arguments = [theta_, x_, upstream]
            if not program.has_input_gradient:
                d_theta = tf.numpy_function(backward_theta, arguments, x_.dtype)
                d_x = refuse_gradient(tf.zeros_like(x_), program.no_input_gradient)
            else:
                d_theta, d_x = tf.numpy_function(backward, arguments, [x_.dtype, x_.dtype])
            d_theta.set_shape(theta_.shape)
            d_x.set_shape(x_.shape)
            return _once(d_theta), _once(d_x)

        return y, gradient

    return call(theta, x)


def may_call_host() -> bool:
    """True outside XLA, and where no GPU would have to wait for the host."""
    return not (control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()) or _has_gpu())


@lru_cache(maxsize=1)
def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def _once(tensor: tf.Tensor) -> tf.Tensor:
    return refuse_gradient(
        tensor,
        "second derivatives need a circuit in TensorFlow operations, and this backend is on the host. Use "
        'backend="tensorflow".',
    )


def refuse_gradient(tensor: tf.Tensor, message: str) -> tf.Tensor:
    """The identity; asking for its gradient raises `GradientError`."""

    @tf.custom_gradient
    def identity(t: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            raise GradientError(message)

        return tf.identity(t), gradient

    return identity(tensor)
