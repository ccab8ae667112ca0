"""Train, predict and time in Keras, on any of its backends. `fit_torch.py` is the same file for PyTorch."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from .data import WORKERS, Batches, DataError, ImageData
from .nets_keras import Block, build
from .train import ADAM, Monitor, Settings, median_seconds, n_outputs

_BACKEND = keras.config.backend()
VERSION = f"Keras {keras.__version__} on {_BACKEND} {importlib.import_module(_BACKEND).__version__}"


def make(settings: Settings, data: ImageData) -> keras.Sequential:
    """Return the network for these images."""
    if settings.checkpoint_gradients:
        raise DataError(
            "--checkpoint-gradients: in Keras a second forward pass would move the running means of the batch "
            "normalisation a second time. Use --framework torch."
        )
    keras.utils.set_random_seed(settings.seed)
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if settings.mixed_precision else "float32")
    try:
        return build(settings, data.images.shape[1:], n_outputs(len(data.class_names)))
    finally:
        keras.mixed_precision.set_global_policy(before)


def fit(model: keras.Sequential, batches: Batches, validation: ImageData, settings: Settings, monitor: Monitor) -> None:
    """Train; the model ends up with the weights of its best epoch."""
    binary = model.output_shape[-1] == 1
    model.compile(
        optimizer=keras.optimizers.Adam(epsilon=ADAM["eps"]),
        loss=keras.losses.BinaryCrossentropy(from_logits=True)
        if binary
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0) if binary else "accuracy"],
    )
    begin = len(monitor.history)
    if begin:
        _restore(model, monitor)
    model.fit(
        Stream(batches, begin, binary),
        initial_epoch=begin,
        epochs=settings.epochs,
        steps_per_epoch=batches.steps_per_epoch,
        callbacks=[Watch(monitor, validation)],
        shuffle=False,  # the batches are shuffled already
        verbose=0,
    )
    model.set_weights(monitor.best_weights)


class Watch(keras.callbacks.Callback):
    """Tells the monitor what happens, and sets the learning rate that it wants."""

    def __init__(self, monitor: Monitor, validation: ImageData) -> None:
        super().__init__()
        self.monitor, self.validation = monitor, validation

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if _BACKEND == "jax":  # the loop holds the optimizer's state, unless it is asked for
            self.model.jax_state_sync()
        self.model.optimizer.learning_rate = self.monitor.learning_rate

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        self.monitor.step_done(float(logs["loss"]), float(logs["accuracy"]))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logits = predict(self.model, self.validation.images)
        if not self.monitor.epoch_done(logits, self.validation.labels, self.model.get_weights, self._keep):
            self.model.stop_training = True

    def _keep(self) -> None:
        folder = self.monitor.progress.folder
        self.model.save(folder / "training.keras")
        np.savez(folder / "best.npz", *self.monitor.best_weights)


def _restore(model: keras.Sequential, monitor: Monitor) -> None:
    """Weights, the optimizer's moments and the best weights, as `Watch` kept them."""
    folder = monitor.progress.folder
    saved = keras.models.load_model(folder / "training.keras", custom_objects={"Block": Block})
    model.set_weights(saved.get_weights())
    model.optimizer.build(model.trainable_variables)
    for variable, value in zip(model.optimizer.variables, saved.optimizer.variables, strict=True):
        variable.assign(value)
    with np.load(folder / "best.npz") as best:
        monitor.best_weights = [best[name] for name in best.files]


def predict(model: keras.Sequential, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
    """Return logits (N, n_outputs)."""
    return model.predict(images, batch_size=batch_size, verbose=0)


def export(model: keras.Sequential, images: np.ndarray, folder: Path) -> list[Path]:
    """Write the model for other runtimes; return the files."""
    if _BACKEND != "tensorflow":
        raise DataError(f"--export: Keras on {_BACKEND} writes no LiteRT. Use KERAS_BACKEND=tensorflow.")
    files = [folder / "keras.onnx", folder / "keras.tflite"]
    for file, format_ in zip(files, ("onnx", "litert"), strict=True):
        model.export(file, format=format_, verbose=False)
    return files


def parameter_count(model: keras.Sequential) -> int:
    """Return the number of trained numbers."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def quantum_layers(model: keras.Sequential) -> dict[str, keras.layers.Layer]:
    """Return the quantum layers by name."""
    return {part.name: part for part in model.layers if hasattr(part, "circuit")}


def time_parts(model: keras.Sequential, images: np.ndarray) -> dict[str, float]:
    """Return the seconds that each part takes alone, forward and backward, on the batch that reaches it."""
    x = keras.ops.convert_to_tensor(images)
    times = {}
    for part in model.layers:
        inputs = x
        x = part(inputs, training=False)  # leaves the running means of the batch normalisation alone
        # A quantum layer may compute elsewhere in training (layer.explain() says where), and has no running means.
        run = _BOTH_WAYS[_BACKEND](part, inputs, hasattr(part, "circuit"))
        times[part.name] = median_seconds(lambda run=run: [keras.ops.convert_to_numpy(tensor) for tensor in run()[-1:]])
    return times


def _on_tensorflow(part: keras.layers.Layer, inputs: Any, training: bool) -> Callable[[], list]:
    import tensorflow as tf

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            if inputs.dtype.is_floating:
                tape.watch(inputs)
            outputs = part(inputs, training=training)
        wanted = [weight.value for weight in part.trainable_weights]
        if inputs.dtype.is_floating:
            wanted.append(inputs)
        return tape.gradient(outputs, wanted) if wanted else [outputs]

    return run


def _on_torch(part: keras.layers.Layer, inputs: Any, training: bool) -> Callable[[], list]:
    import torch

    leaf = inputs.detach().requires_grad_() if inputs.is_floating_point() else inputs

    def run():
        outputs = part(leaf, training=training)
        wanted = [weight.value for weight in part.trainable_weights] + ([leaf] if leaf.requires_grad else [])
        return torch.autograd.grad(outputs, wanted, torch.ones_like(outputs)) if wanted else [outputs]

    return run


def _on_jax(part: keras.layers.Layer, inputs: Any, training: bool) -> Callable[[], list]:
    import jax

    more = {"training": training} if "training" in inspect.signature(part.call).parameters else {}
    weights, other = ([v.value for v in kind] for kind in (part.trainable_variables, part.non_trainable_variables))

    def call(weights, x):
        return part.stateless_call(weights, other, x, **more)[0]

    @jax.jit
    def both(weights, x):
        if not keras.backend.is_float_dtype(x.dtype):
            return [call(weights, x)]
        outputs, vjp_fn = jax.vjp(call, weights, x)
        return vjp_fn(keras.ops.ones_like(outputs))

    return lambda: both(weights, inputs)


_BOTH_WAYS = {"tensorflow": _on_tensorflow, "torch": _on_torch, "jax": _on_jax}


class Stream(keras.utils.PyDataset):
    """All batches of an epoch; threads prepare the next ones while this one trains."""

    def __init__(self, batches: Batches, epoch: int, binary: bool) -> None:
        super().__init__(workers=WORKERS)
        self.batches, self.epoch, self.binary = batches, epoch, binary

    def __len__(self) -> int:
        return self.batches.steps_per_epoch

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = self.batches[self.epoch * len(self) + step]
        return images, labels.astype(np.float32)[:, None] if self.binary else labels

    def on_epoch_end(self) -> None:
        self.epoch += 1
