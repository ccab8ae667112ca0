"""QNodes on qstore.qubit against the same QNodes on default.qubit and lightning.qubit, in one run.

Angle embedding, StronglyEntanglingLayers, ⟨Z⟩ of every qubit; forward and backward for weights and features through
PyTorch, a broadcast batch and one circuit. Values and gradients are checked equal first, and the devices alternate.
default.qubit differentiates by back-propagation, its fastest way; the others by the adjoint method.
Needs PennyLane with lightning, and PyTorch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from ..report import duration

_CLOSE = 1e-6  # two float64 simulations differ by 1e-13, lightning from both by 1e-7
_DEVICES = {"qstore.qubit": "adjoint", "default.qubit": "backprop", "lightning.qubit": "adjoint"}


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--qubits", type=int, default=8)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    import torch

    torch.manual_seed(0)
    weights = torch.rand(options.layers, options.qubits, 3, dtype=torch.float64)
    for batch in (options.batch, None):
        features = torch.rand(*(() if batch is None else (batch,)), options.qubits, dtype=torch.float64)
        steps = {name: step(qnode(name, options.qubits), features, weights) for name in _DEVICES}
        expected = steps["qstore.qubit"]()
        for name, run in steps.items():
            off = max(float((a - b).abs().max()) for a, b in zip(run(), expected, strict=True))
            if off > _CLOSE:
                raise SystemExit(f"{name} computes something else: off by {off:.1e}")
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(options.rounds):
            for name, run in steps.items():
                begin = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begin)
        medians = {name: statistics.median(values) for name, values in times.items()}
        what = "one circuit" if batch is None else f"batch {batch}"
        print(f"{options.qubits} qubits, {options.layers} layers, {what}, forward and backward:")
        ours = medians["qstore.qubit"]
        for name, seconds in medians.items():
            print(f"  {name:16} {_DEVICES[name]:9} {duration(seconds):>9}  {seconds / ours:6.1f}")


def qnode(name: str, n: int) -> Any:
    """The circuit on one device."""
    import pennylane as qml

    @qml.qnode(qml.device(name, wires=n), interface="torch", diff_method=_DEVICES[name])
    def circuit(x: Any, w: Any) -> Any:
        qml.AngleEmbedding(x, wires=range(n), rotation="Y")
        qml.StronglyEntanglingLayers(w, wires=range(n))
        return [qml.expval(qml.Z(k)) for k in range(n)]

    return circuit


def step(circuit: Any, features: Any, weights: Any) -> Any:
    """One training step: values, and gradients of their sine for features and weights."""
    import torch

    def run() -> tuple[Any, Any, Any]:
        x, w = features.clone().requires_grad_(), weights.clone().requires_grad_()
        values = torch.stack(list(circuit(x, w)))
        values.sin().sum().backward()
        return values.detach(), x.grad, w.grad

    return run
