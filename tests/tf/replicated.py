"""Data-parallel training in a process of its own: `python -m tests.tf.replicated one|two|worker`; prints the losses.

"two" are two logical CPUs under `MirroredStrategy`; a worker is one of those that TF_CONFIG names.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def main(how):
    import keras
    import tensorflow as tf

    from qstore_tf import QuantumFeatureExtractor, QuantumReadout

    if how == "two":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = {
        "one": tf.distribute.get_strategy,
        "two": lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
        "worker": tf.distribute.MultiWorkerMirroredStrategy,
    }[how]()
    assert strategy.num_replicas_in_sync == (1 if how == "one" else 2)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 8)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")
    with strategy.scope():
        keras.utils.set_random_seed(0)
        layers = [QuantumFeatureExtractor(3, 1, seed=0), keras.layers.Dense(4), QuantumReadout(2, seed=1)]
        model = keras.Sequential([keras.Input((8,)), *layers])
        model.compile(keras.optimizers.SGD(0.2), "mse")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    if how == "worker":  # `fit` of Keras takes no data of several processes
        losses = loop(tf, strategy, model, data)
    else:
        losses = model.fit(data, epochs=4, verbose=0).history["loss"]
    angles = [layer.theta.numpy().tolist() for layer in (layers[0], layers[2])]
    print("found:", json.dumps([losses, *angles]))


def loop(tf, strategy, model, data):
    """Four steps, each on all workers; the optimizer adds gradients up."""

    def on_replica(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((model(x, training=True) - y) ** 2) / 16
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    @tf.function
    def step(x, y):
        return strategy.reduce("sum", strategy.run(on_replica, (x, y)), axis=None)

    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    return [float(step(x, y)) for x, y in strategy.experimental_distribute_dataset(data.repeat(4))]


if __name__ == "__main__":
    main(sys.argv[1])
