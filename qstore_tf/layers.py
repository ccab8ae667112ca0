"""The layers as `keras.Layer`s. What they compute is in `qstore_core`; here are weights and tensors."""

from __future__ import annotations

import random
from typing import Any

import keras
import tensorflow as tf

from qstore_core import InputError, LayerSpec, ShapeError, SpecError, definition, runner
from qstore_core.definition import LayerDefinition
from qstore_core.initial import Init, initial_theta
from qstore_core.layers import numbered
from qstore_core.program import Execution, LayerProgram

from .bridge import host_call, may_call_host, refuse_gradient
from .engine import TensorflowOps

__all__ = [
    "KerasLayer",
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
]

_OPS = TensorflowOps()


class KerasLayer(LayerDefinition, keras.Layer):
    """Base of the Keras layers. `theta` is a weight; inputs (…, F)."""

    def _define(
        self, spec: LayerSpec, execution: Execution, init: Init, config: dict[str, Any], **framework: Any
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise SpecError(
                f"qstore_tf needs Keras on TensorFlow, this process runs Keras on {keras.backend.backend()!r}. "
                "Set KERAS_BACKEND=tensorflow before importing keras."
            )
        keras.Layer.__init__(self, **framework)
        name = framework.get("name") or numbered(type(self).__name__)
        self._program = LayerProgram(spec, execution, name=name, framework="tensorflow")
        self._config, self._init = config, init
        self.supports_jit = self._program.on_tensors or self._program.twin is not None

    def build(self, input_shape: Any) -> None:
        """Create theta; it exists even for unknown batch sizes, since shapes are known from the spec."""
        self.spec.check_features(tuple(input_shape))
        seed = self._program.execution.seed
        if seed is None:  # keras.utils.set_random_seed decides
            seed = random.randrange(2**31)

        def values(shape: Any, dtype: Any = None) -> tf.Tensor:
            return tf.constant(initial_theta(self._init, int(shape[0]), seed), dtype)

        # Not cast to half precision with the activations: angles keep the variable's dtype.
        self.theta = self.add_weight(
            shape=(self.spec.n_weights,), initializer=values, name="theta", trainable=True, autocast=False
        )
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Features (…, F) → outputs (…, O), in the layer's compute dtype."""
        program, spec = self._program, self.spec
        x = tf.convert_to_tensor(x)
        if x.dtype.is_complex:
            raise InputError(f"{program.name} takes real numbers, received dtype {x.dtype.name}.")
        spec.check_features(tuple(x.shape))
        if x.shape.rank == 1:
            raise ShapeError(
                f"{program.name} takes inputs of shape (batch, features), received {tuple(x.shape)}. "
                "Use x[None, :] for one sample."
            )
        if program.twin is not None and not (training is True and may_call_host()):
            program = program.twin  # inference may be exported, and a graph on disk cannot call the host
        work = tf.float64 if x.dtype == tf.float64 else tf.float32
        rows, theta = tf.cast(x, work), tf.cast(self.theta, work)
        if x.shape.rank != 2:
            rows = tf.reshape(rows, (-1, x.shape[-1]))
        if program.on_tensors:
            if tf.executing_eagerly() and (
                not spec.encoding.differentiable or not bool(tf.reduce_all(tf.math.is_finite(rows)))
            ):
                program.check_values(rows.numpy())  # what NumPy layers refuse is refused here
            if not program.has_input_gradient:
                rows = refuse_gradient(rows, program.no_input_gradient)
            out = program.apply(_OPS, theta, rows, work.name)
        else:
            out = host_call(program, theta, rows)
        if x.shape.rank != 2:
            out = tf.reshape(out, tf.concat([tf.shape(x)[:-1], [spec.output_dim]], 0))
            out.set_shape((*x.shape[:-1], spec.output_dim))
        return tf.cast(out, self.compute_dtype if x.dtype.is_floating else work)

    async def call_async(self, x: Any) -> Any:
        """The same without blocking the running event loop."""
        return await runner.to_thread(self, x)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, for `keras.saving`."""
        return {**super().get_config(), **self.config()}


@keras.saving.register_keras_serializable(package="qstore")
class QuantumEncoder(definition.QuantumEncoder, KerasLayer):
    __doc__ = definition.QuantumEncoder.__doc__


@keras.saving.register_keras_serializable(package="qstore")
class QuantumFeatureExtractor(definition.QuantumFeatureExtractor, KerasLayer):
    __doc__ = definition.QuantumFeatureExtractor.__doc__


@keras.saving.register_keras_serializable(package="qstore")
class QuantumPooling(definition.QuantumPooling, KerasLayer):
    __doc__ = definition.QuantumPooling.__doc__


@keras.saving.register_keras_serializable(package="qstore")
class QuantumReadout(definition.QuantumReadout, KerasLayer):
    __doc__ = definition.QuantumReadout.__doc__


@keras.saving.register_keras_serializable(package="qstore")
class QuantumLayer(definition.QuantumLayer, KerasLayer):
    __doc__ = definition.QuantumLayer.__doc__
