"""Training in Keras on real digits."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from qstore_tf import QuantumFeatureExtractor, QuantumPooling, QuantumReadout


@pytest.fixture(scope="module")
def digits():
    """Zeros and ones of the 8x8 digits: images (360, 64) in [0, 1], and labels."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(n_class=2, return_X_y=True)
    return (images / 16).astype("float32"), labels


def hybrid(backend):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((64,)), keras.layers.Dense(16, "relu"),
            QuantumFeatureExtractor(4, depth=1, backend=backend), keras.layers.Dense(2),
            QuantumPooling(2, encoding="angle", backend=backend), keras.layers.Dense(2),
            QuantumReadout(2, n_classes=2, encoding="angle", backend=backend),
        ]
    )  # fmt: skip


# What `fit` may say about a model of ours: nothing. TensorFlow notes retracing in its log only.
@pytest.mark.parametrize(
    ("backend", "jit"),
    [("tensorflow", False), ("tensorflow", True), ("statevector", False), ("auto", "auto")],
)
def test_a_quantum_head_learns_digits(digits, backend, jit):
    images, labels = digits
    model = hybrid(backend)
    before = [w.numpy() for w in model.trainable_weights]
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit)
    history = model.fit(images, labels, batch_size=36, epochs=5, verbose=0).history["loss"]
    assert history[-1] < 0.6 * history[0]
    _, accuracy = model.evaluate(images, labels, verbose=0)
    assert accuracy > 0.9
    assert all(np.abs(w.numpy() - b).max() > 1e-3 for w, b in zip(model.trainable_weights, before, strict=True))
    np.testing.assert_allclose(model.predict(images[:5], verbose=0), model(images[:5]), atol=1e-5)


def test_engines_train_alike(digits):
    """With and without XLA, on the host and off it: one data order, one start, one result."""
    images, labels = digits[0][:72], digits[1][:72]
    losses = []
    for backend, jit in [("tensorflow", False), ("auto", True), ("statevector", False)]:
        model = hybrid(backend)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=jit)
        losses.append(model.fit(images, labels, batch_size=24, epochs=2, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-4)


def test_a_loop_of_ones_own_learns(digits):
    images, labels = digits
    layer = QuantumReadout(6, n_classes=2, depth=3, init="normal", seed=0)  # 64 pixels are 64 amplitudes
    optimizer = keras.optimizers.Adam(0.1)
    layer.build((None, 64))
    optimizer.build(layer.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            p = layer(x, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, p))
        optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
        return loss

    rng = np.random.default_rng(0)
    history = []
    for _ in range(60):
        rows = rng.integers(0, len(images), 32)
        history.append(float(step(images[rows], labels[rows])))
    assert sum(history[-5:]) < 0.9 * sum(history[:5])


def test_a_frozen_layer_stays(digits):
    model = hybrid("statevector")
    model.layers[1].trainable = False
    before = model.layers[1].theta.numpy()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(digits[0][:36], digits[1][:36], verbose=0)
    np.testing.assert_array_equal(model.layers[1].theta, before)
