"""The layers as `keras.Layer`s. What they compute is in `qstore_core`; here are weights and tensors."""

from __future__ import annotations

import importlib
import random
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from qstore_core import InputError, LayerSpec, QstoreError, ShapeError, SpecError
from qstore_core.backends import runner
from qstore_core.circuit.spec.initial import Init, initial_theta
from qstore_core.layers import definition
from qstore_core.layers.definition import LayerDefinition
from qstore_core.runtime.program import Execution, LayerProgram

from .initial import as_init
from .stack import in_a_loop_of_keras

__all__ = [
    "KerasLayer",
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
    "keras_backend",
]

# AutoGraph and Keras replace the exceptions that pass them by new ones, with neither our types nor our attributes
# (`error.row`). They let pass what has these marks.
QstoreError.ag_pass_through = True  # type: ignore[attr-defined]
QstoreError._keras_call_info_injected = True  # type: ignore[attr-defined]


_FINGERPRINT = "fingerprint"
_OF_THETA = {"initializer": keras.initializers, "regularizer": keras.regularizers, "constraint": keras.constraints}


def _keras_object(kind: str, value: Any) -> Any:
    """A Keras initialiser, regulariser or constraint of theta from a name, a configuration or an object."""
    try:
        return _OF_THETA[kind].get(value)
    except (ValueError, TypeError) as error:
        raise SpecError(
            f"theta_{kind} is a Keras {kind} or the name of one, received {value!r}. {error}", argument=f"theta_{kind}"
        ) from error


def _serialized(kind: str, value: Any) -> Any:
    return None if value is None else _OF_THETA[kind].serialize(value)


class KerasLayer(LayerDefinition, keras.Layer):
    """Base of the Keras layers. `theta` is a weight; inputs (…, F), their last axis of known size.

    What cannot be encoded (NaN, infinity; with basis encoding what is not a bit) raises an `InputError` in eager mode.
    In graphs, those of `fit` and `predict` too, such rows give NaN, on every backend, and so does a theta that is not
    finite: callbacks such as `keras.callbacks.TerminateOnNaN` see it.

    Rows are independent of each other: masks pass through.
    """

    _theta: Any

    _framework_arguments: ClassVar[dict[str, tuple[Any, str]]] = {
        "name": (None, "Name in messages, profiles and files."),
        "dtype": (None, "Keras's dtype policy of the layer; theta has its variable dtype."),
        "trainable": (True, "Whether theta is trained."),
        "theta_initializer": (None, "A Keras initialiser, by name or as an object, in place of `init`."),
        "theta_regularizer": (None, "A Keras regulariser of theta, by name or as an object."),
        "theta_constraint": (None, "A Keras constraint of theta, by name or as an object."),
        "activity_regularizer": (None, "As for every Keras layer."),
        "autocast": (True, "As for every Keras layer."),
    }

    def _define(
        self, spec: LayerSpec, execution: Execution, init: Init, config: dict[str, Any], **framework: Any
    ) -> None:
        of_theta = {name: _keras_object(name, framework.pop(f"theta_{name}", None)) for name in _OF_THETA}
        if of_theta["initializer"] is not None:
            if config.get("init", "small_normal") != "small_normal":
                raise SpecError("init and theta_initializer both say how theta begins. Give one.", argument="init")
            init = as_init(of_theta["initializer"])
        if not spec.n_weights and any(of_theta.values()):
            given = next(name for name, value in of_theta.items() if value is not None)
            raise SpecError(
                f"this layer has no weights, so that theta_{given} means nothing.", argument=f"theta_{given}"
            )
        backend = keras_backend()
        keras.Layer.__init__(self, **framework)
        for dtype in (self.compute_dtype, self.variable_dtype):
            if "float" not in dtype:
                raise SpecError(f"dtype is a policy of floating-point numbers, received {dtype!r}.", argument="dtype")
            backend.check_dtype(dtype, self.name)
        self.theta_initializer, self.theta_regularizer = of_theta["initializer"], of_theta["regularizer"]
        self.theta_constraint = of_theta["constraint"]
        primitive = spec.primitive
        self._program = LayerProgram(
            primitive, execution, name=self.name, framework=backend.FRAMEWORK, draw_seed=_draw_seed
        )
        self._layer_call = backend.LayerCall(self._program)
        self._config, self._init, self._theta = config, init, None
        self.supports_jit = backend.supports_jit(self._program)
        self._spec, self._postprocesses = spec, spec.postprocesses
        self.supports_masking = True

    @property
    def theta(self) -> Any:
        """The trainable angles, a `keras.Variable` (W,), radians; there once the layer is built."""
        if self._theta is None:
            raise AttributeError(f"{self.name!r} has no theta yet: call the layer, or build((None, features)), first.")
        return self._theta

    def build(self, input_shape: Any) -> None:
        """Create theta; the batch size may be unknown, since shapes are known from the spec."""
        self._check_shape(input_shape)
        # Amplitudes may be fewer in another call.
        fixed = not self.spec.encoding.is_amplitude
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: input_shape[-1]} if fixed else None)
        seed = self._program.execution.seed
        if seed is None:
            seed = _draw_seed()

        def values(shape: Any, dtype: Any = None) -> Any:
            return ops.convert_to_tensor(initial_theta(self._init, int(shape[0]), seed), dtype)

        # Not cast to half precision with the activations: angles keep the variable's dtype. Where there are none, it is
        # not trained: a variable that no gradient ever reaches would make fit() warn.
        size = self.spec.n_weights
        self._theta = self.add_weight(
            shape=(size,),
            initializer=values,
            regularizer=self.theta_regularizer,
            constraint=self.theta_constraint,
            name="theta",
            trainable=size > 0,
            autocast=False,
        )

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The layer on features (…, F)."""
        x = self._one_tensor(x)
        self._check_shape(x.shape)
        with keras_backend().traced(self.name):
            return super().__call__(x, *args, **kwargs)

    def compute_output_spec(self, x: Any, training: bool | None = None) -> keras.KerasTensor:
        """Shape and dtype of the outputs; nothing is traced."""
        return keras.KerasTensor(self.compute_output_shape(x.shape), dtype=self._output_dtype(self.compute_dtype))

    def _one_tensor(self, x: Any) -> Any:
        """What the layer was called with, as one tensor or array."""
        if isinstance(x, np.ma.MaskedArray):
            raise InputError(
                f"{self.name} takes plain arrays, received one with a mask, which it would ignore. Fill what is "
                "masked: x.filled(0)."
            )
        x = keras_backend().as_plain(x, self.name)
        if isinstance(x, dict) or (isinstance(x, list | tuple) and any(hasattr(part, "shape") for part in x)):
            raise InputError(
                f"{self.name} takes one tensor, received a {type(x).__name__} of {len(x)}. Join them first: "
                "keras.layers.Concatenate()."
            )
        if isinstance(x, np.ndarray) and x.dtype.kind not in "fiub":
            raise InputError(f"{self.name} takes real numbers, received dtype {x.dtype}.")
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            return x
        try:
            return np.asarray(x, self.compute_dtype if self.compute_dtype == "float64" else "float32")
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.name} takes an array of numbers: {error}") from error

    def _check_shape(self, shape: Any) -> None:
        if getattr(shape, "rank", 0) is None:
            raise ShapeError(
                f"{self.name} takes inputs whose last axis is known, received a tensor of unknown rank. Set its shape: "
                f"x.set_shape((None, {self.spec.n_features}))."
            )
        if isinstance(shape, Mapping) or any(isinstance(n, tuple | list) for n in shape):
            raise ShapeError(f"{self.name} takes one tensor, received inputs of shapes {shape}.")
        shape = tuple(shape)
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
        x = ops.convert_to_tensor(self._one_tensor(x))
        dtype = keras.backend.standardize_dtype(x.dtype)
        if not dtype.startswith(("float", "bfloat", "int", "uint", "bool")):
            raise InputError(f"{self.name} takes real numbers, received dtype {dtype}.")
        self._check_shape(x.shape)
        shape = tuple(x.shape)
        work = "float64" if "float64" in (dtype, self.compute_dtype if "float" not in dtype else "") else "float32"
        rows, theta = ops.cast(x, work), ops.cast(self.theta, work)
        if len(shape) != 2:
            rows = ops.reshape(rows, (-1, shape[-1]))
        try:
            out = self._layer_call(theta, rows, training=training, frozen=not self.trainable)
        except InputError:
            if not in_a_loop_of_keras():
                raise
            out = self._call_or_nan(theta, rows, training)
        if self._postprocesses:
            out = self._postprocessed(keras_backend().functions(), out, float(np.finfo(work).eps))
        if len(shape) != 2:
            out = ops.reshape(out, (*ops.shape(x)[:-1], *self.spec.sample_shape))
        return ops.cast(out, self._output_dtype(self.compute_dtype))

    def _call_or_nan(self, theta: Any, x: Any, training: bool | None) -> Any:
        """The layer on what it refuses, as in a graph: NaN outputs of these rows, and NaN in what they reach."""
        angles, rows = ops.convert_to_numpy(theta), ops.convert_to_numpy(x)
        good = self._program.valid_rows(angles, rows)
        if good.all():
            raise InputError(f"{self.name} refuses this batch, but none of its rows.")
        spread = (ops.sum(theta) + ops.sum(x, 1)) * ops.convert_to_tensor(np.where(good, 0, np.nan), theta.dtype)
        # In their places a row that is not refused, so that the layer still says which gradients there are.
        instead = ops.stop_gradient(x[int(good.argmax())]) if good.any() else ops.zeros_like(x[0])
        if not good.any() and not self._program.valid_rows(angles, np.zeros_like(rows[:1])).all():
            return ops.zeros((len(rows), self._program.spec.output_dim), theta.dtype) + spread[:, None]
        known = ops.where(good[:, None], x, instead)
        return self._layer_call(theta, known, training=training, frozen=not self.trainable) + spread[:, None]

    async def call_async(self, x: Any) -> Any:
        """The same without blocking the running event loop.

        Values only, on TensorFlow: a `tf.GradientTape` records the thread that it was made in.
        """
        return await runner.to_thread(self, x)

    def save_own_variables(self, store: Any) -> None:
        """Theta, and the spec's fingerprint, so that weights of another circuit do not load."""
        super().save_own_variables(store)
        store[_FINGERPRINT] = np.frombuffer(bytes.fromhex(self.spec.fingerprint), np.uint8)

    def load_own_variables(self, store: Any) -> None:
        """Inverse of `save_own_variables`; a file without a fingerprint loads."""
        own = {key: store[key] for key in store.keys()}  # noqa: SIM118 - a store is no mapping
        saved = own.pop(_FINGERPRINT, None)
        if saved is not None:
            self._check_fingerprint(np.asarray(saved).tobytes())
        super().load_own_variables(own)

    def _check_fingerprint(self, saved: bytes) -> None:
        if saved.hex() != self.spec.fingerprint:
            raise SpecError(
                f"{self.name}: the file holds the weights of another circuit. Make the layer with the arguments that "
                "it was saved with, or copy theta itself where that is meant: layer.theta.assign(…).",
                argument="weights",
            )

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """What `tf.train.Checkpoint` holds; that of a layer tells its circuit, too."""
        children: dict[str, Any] = super()._trackable_children(save_type, **kwargs)
        if save_type == "checkpoint":
            content = bytes.fromhex(self.spec.fingerprint)
            children[_FINGERPRINT] = keras_backend().in_checkpoints(self, content, self._check_fingerprint)
        return children

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, for `keras.saving`."""
        own = {f"theta_{name}": _serialized(name, getattr(self, f"theta_{name}")) for name in _OF_THETA}
        return {**super().get_config(), **self.config(), **own}

    @classmethod
    def _restored(cls, entries: dict[str, Any]) -> dict[str, Any]:
        dtype = entries.get("dtype")
        return entries | {"dtype": keras.dtype_policies.deserialize(dtype)} if isinstance(dtype, dict) else entries

    @classmethod
    def _as_init(cls, init: Any) -> Init:
        return as_init(init)

    def _framework_config(self) -> dict[str, Any]:
        own = {f"theta_{name}": getattr(self, f"theta_{name}") for name in _OF_THETA}
        return {"dtype": self.dtype_policy, "trainable": self.trainable, **own}

    def _put_theta(self, theta: np.ndarray) -> None:
        if not self.built:
            self.build((None, self.spec.n_features))
        self.theta.assign(theta)

    def _take_theta(self, other: Self) -> None:
        if other.built:
            self.build(other.get_build_config()["input_shape"])
            self.theta.assign(other.theta)


_KERAS_BACKENDS = ("tensorflow", "jax", "torch")


@cache
def keras_backend() -> Any:
    """`on_tensorflow`, `on_jax` or `on_torch`: what Keras computes with in this process."""
    name = keras.config.backend()
    if name not in _KERAS_BACKENDS:
        raise SpecError(
            f"qstore_tf computes with Keras on {', '.join(_KERAS_BACKENDS)}, this process runs Keras on {name!r}. "
            "Set KERAS_BACKEND before importing keras, or use the layers of qstore_core on NumPy arrays."
        )
    return importlib.import_module(f".on_{name}", __package__)


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
