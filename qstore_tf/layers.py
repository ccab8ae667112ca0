"""The layers as `keras.Layer`s. What they compute is in `qstore_core`; here are weights and tensors."""

from __future__ import annotations

import random
from typing import Any, ClassVar, Self

import keras
import numpy as np
import tensorflow as tf

from qstore_core import InputError, LayerSpec, QstoreError, ShapeError, SpecError
from qstore_core.backends import runner
from qstore_core.circuit.initial import Init, initial_theta
from qstore_core.layers import definition
from qstore_core.layers.definition import LayerDefinition
from qstore_core.runtime.program import Execution, LayerProgram

from .engine import OPS
from .host import in_xla, may_call_host, on_host, refuse_gradient
from .initial import as_init
from .tensor import on_tensors

__all__ = [
    "KerasLayer",
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
]

# AutoGraph and Keras replace the exceptions that pass them by new ones, with neither our types nor our attributes
# (`error.row`). They let pass what has these marks.
QstoreError.ag_pass_through = True  # type: ignore[attr-defined]
QstoreError._keras_call_info_injected = True  # type: ignore[attr-defined]


class KerasLayer(LayerDefinition, keras.Layer):
    """Base of the Keras layers. `theta` is a weight; inputs (…, F), their last axis of known size.

    NaN and infinity raise an `InputError` in eager mode, and an error of TensorFlow's with the same text where a graph
    calls a host backend. In graphs of TensorFlow operations they propagate: NaN features give NaN outputs.
    """

    _theta: Any

    _framework_arguments: ClassVar[dict[str, tuple[Any, str]]] = {
        "name": (None, "Name in messages, profiles and files."),
        "dtype": (None, "Keras's dtype policy of the layer; theta has its variable dtype."),
        "trainable": (True, "Whether theta is trained."),
        "activity_regularizer": (None, "As for every Keras layer."),
        "autocast": (True, "As for every Keras layer."),
    }

    def _define(
        self, spec: LayerSpec, execution: Execution, init: Init, config: dict[str, Any], **framework: Any
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise SpecError(
                f"qstore_tf needs Keras on TensorFlow, this process runs Keras on {keras.backend.backend()!r}. "
                "Set KERAS_BACKEND=tensorflow before importing keras."
            )
        keras.Layer.__init__(self, **framework)
        primitive = spec.primitive
        self._program = LayerProgram(primitive, execution, name=self.name, framework="tensorflow", draw_seed=_draw_seed)
        self._config, self._init, self._theta = config, init, None
        self.supports_jit = self._program.route(mode="xla").where == "tensor"
        self._spec, self._postprocesses = spec, primitive is not spec

    @property
    def theta(self) -> Any:
        """The trainable angles, a `keras.Variable` (W,), radians; there once the layer is built."""
        if self._theta is None:
            raise AttributeError(f"{self.name!r} has no theta yet: call the layer, or build((None, features)), first.")
        return self._theta

    def build(self, input_shape: Any) -> None:
        """Create theta; the batch size may be unknown, since shapes are known from the spec."""
        self._check_shape(tuple(input_shape))
        seed = self._program.execution.seed
        if seed is None:
            seed = _draw_seed()

        def values(shape: Any, dtype: Any = None) -> tf.Tensor:
            return tf.constant(initial_theta(self._init, int(shape[0]), seed), dtype)

        # Not cast to half precision with the activations: angles keep the variable's dtype. Where there are none, it is
        # not trained: a variable that no gradient ever reaches would make fit() warn.
        size = self.spec.n_weights
        self._theta = self.add_weight(
            shape=(size,), initializer=values, name="theta", trainable=size > 0, autocast=False
        )

    def _check_shape(self, shape: tuple[int | None, ...]) -> None:
        self.spec.check_features(shape)
        if len(shape) == 1:
            raise ShapeError(
                f"{self.name} takes inputs of shape (batch, features), received {shape}. Use x[None, :] for one sample."
            )
        if shape[-1] is None:
            raise ShapeError(
                f"{self.name} takes inputs whose last axis is known, received shape {shape}. Give the size, as in "
                f"keras.Input(({self.spec.n_features},)), or set it: x.set_shape((None, {self.spec.n_features}))."
            )

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Features (…, F) → outputs (…, O), in the layer's compute dtype."""
        program, spec = self._program, self._program.spec
        x = tf.convert_to_tensor(x)
        if not (x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool):
            raise InputError(f"{self.name} takes real numbers, received dtype {x.dtype.name}.")
        self._check_shape(tuple(x.shape))
        places = program.places
        # Inference may be exported, and a graph on disk cannot call the host.
        asked = (places.chosen and not in_xla()) or (training is True and may_call_host())
        host = places.host is not None and (asked or places.tensor is None)
        wide = (x.dtype if x.dtype.is_floating else tf.as_dtype(self.compute_dtype)) == tf.float64
        work = tf.float64 if wide else tf.float32
        rows, theta = tf.cast(x, work), tf.cast(self.theta, work)
        if x.shape.rank != 2:
            rows = tf.reshape(rows, (-1, x.shape[-1]))
        if host:
            out = on_host(program, theta, rows)
        else:
            if tf.executing_eagerly() and (
                spec.encoding.checks_values or not bool(tf.reduce_all(tf.math.is_finite(rows)))
            ):
                # what NumPy layers refuse is refused here
                program.on_tensors(rows).check_values(theta.numpy(), rows.numpy())
            if program.no_input_gradient:
                rows = refuse_gradient(rows, program.no_input_gradient)
            out = on_tensors(program, theta, rows)
        if x.shape.rank != 2:
            out = tf.reshape(out, tf.concat([tf.shape(x)[:-1], [spec.output_dim]], 0))
            out.set_shape((*x.shape[:-1], spec.output_dim))
        if self._postprocesses:
            out = self._postprocessed(OPS, out, np.finfo(out.dtype.as_numpy_dtype).eps)
        return tf.cast(out, self.compute_dtype)

    async def call_async(self, x: Any) -> Any:
        """The same without blocking the running event loop.

        Values only: a `tf.GradientTape` records the thread that it was made in.
        """
        return await runner.to_thread(self, x)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, for `keras.saving`."""
        return {**super().get_config(), **self.config()}

    @classmethod
    def _restored(cls, entries: dict[str, Any]) -> dict[str, Any]:
        dtype = entries.get("dtype")
        return entries | {"dtype": keras.dtype_policies.deserialize(dtype)} if isinstance(dtype, dict) else entries

    @classmethod
    def _as_init(cls, init: Any) -> Init:
        return as_init(init)

    def _framework_config(self) -> dict[str, Any]:
        return {"dtype": self.dtype_policy, "trainable": self.trainable}

    def _put_theta(self, theta: np.ndarray) -> None:
        if not self.built:
            self.build((None, self.spec.n_features))
        self.theta.assign(theta)

    def _take_theta(self, other: Self) -> None:
        if other.built:
            self.build(other.get_build_config()["input_shape"])
            self.theta.assign(other.theta)


def _draw_seed() -> int:
    """A seed from the generator that `keras.utils.set_random_seed` sets, for layers without one of their own."""
    return random.randrange(2**31)


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
