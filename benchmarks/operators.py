"""Where a layer's time goes: operators of the PyTorch and of the TensorFlow engine, counted and timed.

python -m benchmarks.operators --torch --tf --qubits 8 --batch 32
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from typing import Any

from .problem import Problem
from .subjects import qstore_torch

CALLS = 200


def torch_operators(problem: Problem) -> None:
    """Operators of forward and of forward + backward by their own time, per call."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    running = qstore_torch("torch")(problem)
    cotangents = running.native(problem.cotangents())
    for title, call in (
        ("forward", running.forward),
        ("forward + backward", lambda: running.step(cotangents)),
    ):
        for _ in range(20):
            call()
        with profile(activities=[ProfilerActivity.CPU]) as record:
            for _ in range(CALLS):
                call()
        events = [e for e in record.key_averages() if e.key.startswith("aten::")]
        total = sum(e.self_cpu_time_total for e in events) / CALLS
        count = sum(e.count for e in events) / CALLS
        print(f"torch {torch.__version__}, {title}: {count:.0f} aten operators, {total:.0f} µs in them (profiler on)")
        for e in sorted(events, key=lambda e: -e.self_cpu_time_total)[:14]:
            name, own = e.key.removeprefix("aten::"), e.self_cpu_time_total / CALLS
            print(f"  {e.count / CALLS:6.1f} × {name:28s} {own:8.1f} µs")
        print()


def tf_operators(problem: Problem) -> None:
    """Operations of the traced graph, and instructions of the optimised XLA program."""
    import tensorflow as tf

    from qstore_tf import QuantumFeatureExtractor

    layer = QuantumFeatureExtractor(problem.n_qubits, problem.depth, backend="tensorflow")
    x, cotangents = tf.constant(problem.features()), tf.constant(problem.cotangents())
    layer.build(x.shape)

    @tf.function(jit_compile=True)
    def forward(features: Any) -> Any:
        return layer(features)

    @tf.function(jit_compile=True)
    def step(features: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.reduce_sum(layer(features) * cotangents)
        return tape.gradient(loss, [layer.theta.value, features])

    for title, function in (("forward", forward), ("forward + backward", step)):
        graph = function.get_concrete_function(x).graph
        print(f"tensorflow {tf.__version__}, {title}: {len(graph.get_operations())} operations in the graph")
        text = function.experimental_get_compiler_ir(x)(stage="optimized_hlo")
        entry = text[text.index("ENTRY") :].splitlines()
        kinds: Counter[str] = Counter()
        for line in entry:
            _, found, right = line.strip().partition(" = ")
            if found:
                kinds[_opcode(right)] += 1
        for name in ("parameter", "constant", "get-tuple-element", "tuple", "bitcast"):
            kinds.pop(name, None)
        print(
            f"  {sum(kinds.values())} instructions of the XLA program: "
            + ", ".join(f"{c} {k}" for k, c in kinds.most_common())
        )


def _opcode(right: str) -> str:
    """`f32[2,3]{1,0} fusion(…)` → "fusion"."""
    depth = 0
    for k, character in enumerate(right):
        depth += character in "([{"
        depth -= character in ")]}"
        if character == " " and depth == 0:
            return right[k + 1 :].partition("(")[0]
    return right


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operators", description=__doc__)
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--tf", action="store_true")
    parser.add_argument("--qubits", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--depth", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    problem = Problem(arguments.qubits, arguments.batch, arguments.depth)
    if arguments.torch or not arguments.tf:
        torch_operators(problem)
    if arguments.tf or not arguments.torch:
        tf_operators(problem)


if __name__ == "__main__":
    main()
