"""Keras on TensorFlow: a call of a layer against an empty `tf.function` plus the kernel; `predict` against `fit`."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def add_options(p: argparse.ArgumentParser) -> None:
    """Sizes and repetitions."""
    p.add_argument("--qubits", nargs="+", type=int, default=[4, 8])
    p.add_argument("--repeats", type=int, default=400)


def medians(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Microseconds of each call, interleaved in an order that is drawn anew: a call is slower behind some others."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    rng = random.Random(0)
    for repeat in range(repeats + 3):
        for name in rng.sample(list(calls), len(calls)):
            begin = time.perf_counter()
            calls[name]()
            if repeat >= 3:  # the first ones trace
                times[name].append(1e6 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


def main(options: argparse.Namespace) -> None:
    """Print medians and ratios."""
    import keras
    import tensorflow as tf

    import qstore_core
    import qstore_tf

    def function(layer: Any, training: bool) -> Any:
        """Of the features alone: a default argument would be one more, which TensorFlow looks at in every call."""
        return tf.function(lambda x: layer(x, training=training), autograph=False)

    def problem(n: int, rows: int) -> tuple[Any, Any]:
        x = np.random.default_rng(0).normal(size=(rows, 1 << n)).astype("float32")
        return x, tf.constant(x)

    print("QuantumFeatureExtractor, depth 2, Z, float32; medians in µs, interleaved")
    for n in options.qubits:
        x, tensor = problem(n, 32)
        layer, plain = (m.QuantumFeatureExtractor(n, seed=0) for m in (qstore_tf, qstore_core))
        nothing = tf.function(tf.identity, autograph=False)
        graph = function(layer, training=False)
        found = medians(
            {
                "nothing": lambda f=nothing, x=tensor: f(x).numpy(),
                "kernel": lambda f=plain, x=x: f(x),
                "graph": lambda f=graph, x=tensor: f(x).numpy(),
                "eager": lambda f=layer, x=tensor: f(x).numpy(),
            },
            options.repeats,
        )
        least = found["nothing"] + found["kernel"]
        shown = ", ".join(f"{name} {value:.0f}" for name, value in found.items())
        ratios = ", ".join(f"{name} {found[name] / least:.2f}" for name in ("graph", "eager"))
        print(f"{n} qubits, batch 32: {shown}; over nothing + kernel: {ratios}", flush=True)
    _, tensor = problem(8, 256)
    model = keras.Sequential([keras.Input((256,)), qstore_tf.QuantumFeatureExtractor(8, seed=0)])
    calls = {name: function(model, training) for name, training in (("predict", False), ("fit", True))}
    found = medians({name: lambda f=f: f(tensor).numpy() for name, f in calls.items()}, options.repeats)
    print(
        f"8 qubits, batch 256, forward: in predict {found['predict']:.0f}, in fit {found['fit']:.0f}; "
        f"ratio {found['predict'] / found['fit']:.2f}"
    )
