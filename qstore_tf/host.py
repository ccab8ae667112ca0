"""The host function: a layer's backend on NumPy arrays, differentiable by TensorFlow."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # the one place that knows of jit_compile=True

from qstore_core import GradientError
from qstore_core.runtime.program import LayerProgram

__all__ = ["in_xla", "may_call_host", "on_host", "refuse_gradient"]


def on_host(program: LayerProgram, theta: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Run a layer's host path on `theta` (W,), `x` (B, F) → (B, O); its gradient is the core's vjp.

    TensorFlow calls back from its own threads, so nothing is kept between the passes: the backward pass runs the
    circuit again. Second derivatives go through the layer's engine in TensorFlow operations, where it has one.
    """
    inputs = not program.no_input_gradient

    def forward(theta_: np.ndarray, x_: np.ndarray) -> list[np.ndarray]:
        return [program.forward(theta_, x_)]

    def backward(theta_: np.ndarray, x_: np.ndarray, cotangents: np.ndarray) -> list[np.ndarray]:
        d_theta, d_x = program.value_and_vjp(theta_, x_, wrt_inputs=inputs)[1](cotangents)
        assert d_theta is not None
        return [d_theta, np.zeros_like(x_) if d_x is None else d_x]  # zeros that `refuse_gradient` keeps from anyone

    @tf.custom_gradient
    def call(theta_: tf.Tensor, x_: tf.Tensor) -> tuple[tf.Tensor, Any]:
        (y,) = _call(forward, [theta_, x_], [(x_.shape[0], program.spec.output_dim)])
        return y, lambda upstream: pull(theta_, x_, upstream)

    @tf.custom_gradient
    def pull(theta_: tf.Tensor, x_: tf.Tensor, upstream: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
        # A function of its own, so that a second derivative is never lost: also where `upstream` is a constant.
        def gradient(*upstreams: tf.Tensor) -> list[tf.Tensor]:
            return _pull_twice(program, theta_, x_, upstream, upstreams)

        return _call(backward, [theta_, x_, upstream], [theta_.shape, x_.shape]), gradient

    return call(theta, x if inputs else refuse_gradient(x, program.no_input_gradient))


def _call(function: Any, tensors: list[tf.Tensor], shapes: list[Any]) -> list[tf.Tensor]:
    """`function` on arrays; its results have the dtype of the last tensor."""
    dtype = tensors[-1].dtype

    def call(*arrays: np.ndarray) -> list[np.ndarray]:
        return [np.ascontiguousarray(result, dtype.as_numpy_dtype) for result in function(*arrays)]

    if tf.executing_eagerly():  # errors and warnings reach the caller as they are
        return [tf.constant(array) for array in call(*(t.numpy() for t in tensors))]
    results = tf.numpy_function(call, tensors, [dtype] * len(shapes), stateful=True)
    for result, shape in zip(results, shapes, strict=True):
        result.set_shape(shape)  # tf.numpy_function forgets it
    return results


def _pull_twice(
    program: LayerProgram, theta: tf.Tensor, x: tf.Tensor, upstream: tf.Tensor, upstreams: tuple[tf.Tensor, ...]
) -> list[tf.Tensor]:
    """The vjp of the vjp."""
    where = program.route(wanted="second derivatives")
    if where.where == "refused":
        raise GradientError(where.why)
    with tf.GradientTape() as outer:
        outer.watch([theta, x, upstream])
        with tf.GradientTape() as inner:
            inner.watch([theta, x])
            y = program.on_tensors(x).apply(theta, x)
        gradients = inner.gradient(y, [theta, x], upstream, unconnected_gradients="zero")
    return outer.gradient(gradients, [theta, x, upstream], upstreams, unconnected_gradients="zero")


def may_call_host() -> bool:
    """True outside XLA, and where no GPU would have to wait for the host."""
    return not (in_xla() or _has_gpu())


def in_xla() -> bool:
    """True where a graph is being made for XLA."""
    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


@lru_cache(maxsize=1)
def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def refuse_gradient(tensor: tf.Tensor, message: str) -> tf.Tensor:
    """The identity; asking for its gradient raises `GradientError`."""
    graph = tf.compat.v1.get_default_graph()

    @tf.custom_gradient
    def identity(t: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            if not tf.executing_eagerly() and tf.compat.v1.get_default_graph() is not graph:
                raise GradientError(
                    f"{message} A tf.GradientTape outside of a tf.function differentiates all that is in the function, "
                    "wanted or not: put the tape inside."
                )
            raise GradientError(message)

        return tf.identity(t), gradient

    return identity(tensor)
