"""Train, predict and time in Keras. `fit_torch.py` is the same file for PyTorch."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from .data import WORKERS, Batches, DataError, ImageData
from .nets_keras import Block, build
from .train import ADAM, Monitor, Settings, median_seconds, n_outputs

VERSION = f"Keras {keras.__version__} on TensorFlow {tf.__version__}"


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
        _stream(batches, range(begin, settings.epochs), binary),
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
    x = tf.constant(images)
    times = {}
    for part in model.layers:
        inputs = x
        x = part(inputs, training=False)  # leaves the running means of the batch normalisation alone
        # A quantum layer may compute elsewhere in training (layer.explain() says where), and has no running means.
        run = _both_ways(part, inputs, training=hasattr(part, "circuit"))
        times[part.name] = median_seconds(lambda run=run: [tensor.numpy() for tensor in run()[-1:]])
    return times


def _both_ways(part: keras.layers.Layer, inputs: tf.Tensor, *, training: bool):
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


def _stream(batches: Batches, epochs: range, binary: bool) -> tf.data.Dataset:
    """Return all batches of all epochs; threads prepare the next ones while this one trains."""

    def read(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = tf.numpy_function(batches.__getitem__, [number], (tf.uint8, tf.int64), stateful=False)
        images.set_shape((batches.batch_size, *batches.data.images.shape[1:]))
        labels.set_shape((batches.batch_size,))
        return images, tf.cast(labels, tf.float32)[:, None] if binary else labels

    numbers = tf.data.Dataset.range(epochs.start * batches.steps_per_epoch, epochs.stop * batches.steps_per_epoch)
    return numbers.map(read, num_parallel_calls=WORKERS, deterministic=True).prefetch(4)
