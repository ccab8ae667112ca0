"""Where TensorFlow's own operations beat two host calls, without XLA.

A training step of a Keras layer with backend="numba" and with backend="tensorflow", in turns, each as a `tf.function`
with gradients for weights and features. Needs tensorflow and numba in this interpreter's environment.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

_BACKENDS = ("numba", "tensorflow")
_ROUNDS, _CALLS, _WARM = 5, 40, 10


def step(backend: str, n_qubits: int, depth: int, batch: int, encoding: str) -> Callable[[], Any]:
    """The compiled training step of one layer."""
    import tensorflow as tf

    from qstore_tf import QuantumFeatureExtractor

    layer = QuantumFeatureExtractor(n_qubits, depth, backend=backend, encoding=encoding, seed=0)
    features = tf.random.stateless_normal((batch, 1 << n_qubits if encoding == "amplitude" else n_qubits), (1, 2))
    cotangents = tf.random.stateless_normal((batch, n_qubits), (3, 4))
    layer.build(features.shape)

    @tf.function
    def run(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            loss = tf.reduce_sum(outputs * cotangents)
        return outputs, *tape.gradient(loss, [layer.theta.value, x])

    return lambda: run(features)


def milliseconds(steps: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Medians of turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for run in steps.values():
        for _ in range(_WARM):
            run()
    for _ in range(_ROUNDS):
        for name, run in steps.items():
            for _ in range(_CALLS):
                begin = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begin)
    return {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--qubits", default="1,2,3,4,6,8,10")
    p.add_argument("--depth", type=int, default=2)
    p.add_argument("--batches", default="1,32,256")


def main(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(f"{'encoding':>9} {'qubits':>6} {'batch':>5} {'numba':>10} {'TF ops':>10} {'TF ops / numba':>14}")
    for encoding in ("amplitude", "angle"):
        for n_qubits in map(int, arguments.qubits.split(",")):
            for batch in map(int, arguments.batches.split(",")):
                steps = {name: step(name, n_qubits, arguments.depth, batch, encoding) for name in _BACKENDS}
                ours, theirs = milliseconds(steps).values()
                print(
                    f"{encoding:>9} {n_qubits:6} {batch:5} {ours:7.3f} ms {theirs:7.3f} ms {theirs / ours:14.2f}",
                    flush=True,
                )
