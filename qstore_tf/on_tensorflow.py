"""Keras on TensorFlow: one layer's calls on its tensors, by the way that `route` says."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from qstore_core import CapabilityError, GradientError, InputError, SpecError
from qstore_core.runtime.program import LayerProgram

from .engine import OPS
from .host import HostFunction
from .situation import has_tangents, place
from .tensor import on_tensors

__all__ = [
    "FRAMEWORK",
    "LayerCall",
    "as_plain",
    "call_host",
    "check_dtype",
    "functions",
    "in_checkpoints",
    "supports_jit",
    "traced",
]

FRAMEWORK = "tensorflow"


class LayerCall:
    """`theta` (W,), `x` (B, F), both float32 or float64 → (B, O).

    Args:
        program: The layer.
    """

    def __init__(self, program: LayerProgram) -> None:
        self.program, self._on_host = program, HostFunction(program)

    def __call__(self, theta: tf.Tensor, x: tf.Tensor, *, training: bool | None, frozen: bool) -> tf.Tensor:
        """Run the layer; `frozen`: theta is not trained."""
        where = place(self.program, theta, x)
        if where.where == "refused":
            raise GradientError(where.why) if has_tangents(theta, x) else CapabilityError(where.why)
        if where.where == "host":
            return self._on_host(theta, x, keep=training is not False, frozen=frozen)
        if not tf.executing_eagerly():
            return on_tensors(self.program, theta, x)
        return self.program.with_fallback(
            lambda: on_tensors(self.program, theta, x), lambda other: HostFunction(other)(theta, x, frozen=frozen)
        )


class _Checked(tf.train.experimental.PythonState):
    """Bytes in a checkpoint, which are looked at when it is restored."""

    def __init__(self, content: bytes, check: Callable[[bytes], None]) -> None:
        self._content, self._check = content, weakref.WeakMethod(check)

    def serialize(self) -> bytes:
        return self._content

    def deserialize(self, value: bytes) -> None:
        if (check := self._check()) is not None:
            check(value)


_checked: weakref.WeakKeyDictionary[Any, _Checked] = weakref.WeakKeyDictionary()


def in_checkpoints(layer: Any, content: bytes, check: Callable[[bytes], None]) -> Any:
    """What keeps `content` beside the weights of a layer in a `tf.train.Checkpoint`; one without it restores."""
    if layer not in _checked:
        _checked[layer] = _Checked(content, check)
    return _checked[layer]


def functions() -> Any:
    """Array functions for what is computed from outputs."""
    return OPS.here()


def as_plain(x: Any, name: str) -> Any:
    """An unusual tensor as an ordinary one, or a refusal in the name of a layer."""
    if isinstance(x, tf.RaggedTensor):
        raise InputError(f"{name} takes rows of one length, received a ragged tensor. Pad it: x.to_tensor().")
    return tf.sparse.to_dense(x) if isinstance(x, tf.SparseTensor) else x


def supports_jit(program: LayerProgram) -> bool:
    """Whether XLA can compile a model with this layer: not what calls the host."""
    return program.route(mode="xla").where == "tensor"


def check_dtype(dtype: str, name: str) -> None:
    """Nothing: it computes in every precision of Keras's."""


def call_host(function: Callable[..., np.ndarray], *tensors: tf.Tensor) -> tf.Tensor:
    """A function of arrays, eagerly or in a graph of this process; its result is like the last tensor."""
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise SpecError("natural gradients are of one replica: train without a distribution strategy.")
    out = tf.numpy_function(function, list(map(tf.convert_to_tensor, tensors)), tensors[-1].dtype)
    out.set_shape(tensors[-1].shape)
    return out


def traced(name: str) -> Any:
    """The name of a layer in the framework's profiler, around an eager call."""
    return tf.profiler.experimental.Trace(name)
