"""A noisy layer on the density engine against PennyLane's `default.mixed` with back-propagation, forward and backward.

Angle encoding, then per level RY and RZ on each qubit and CNOTs on all pairs; a channel behind every gate: depolarising
behind CNOTs, amplitude damping behind the others; ⟨Z⟩ of every qubit. Both are torch layers in float64; values and
gradients are checked equal first, and the libraries alternate. Needs pennylane and torch in this interpreter.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..problem import Problem
from ..report import duration

_CLOSE = 1e-6  # what both agree to: default.mixed normalises channels to about 1e-8
_P, _GAMMA = 0.02, 0.01


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--qubits", type=int, default=4)
    p.add_argument("--depth", type=int, default=2)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--repeats", type=int, default=20, help="calls of ours for every call of the other library")


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    import torch

    problem = Problem(options.qubits, options.batch, options.depth, encoding="angle")
    features = torch.from_numpy(problem.features().astype(np.float64))
    cotangents = torch.from_numpy(problem.cotangents().astype(np.float64))
    calls = {
        "qstore, backend density": _step(*ours(problem), features, cotangents),
        "PennyLane, default.mixed, backprop": _step(*theirs(problem), features, cotangents),
    }
    (first, *expected), *rest = ((name, *call()) for name, call in calls.items())
    for name, *received in rest:
        off = max(float((a - b).abs().max()) for a, b in zip(received, expected, strict=True))
        if not off <= _CLOSE:
            raise SystemExit(f"{name} computes something else than {first}: off by {off:.1e}")
        print(f"values and gradients of both agree to {off:.1e}")
    gates = problem.n_qubits + problem.n_weights + problem.depth * len(problem.pairs())
    print(
        f"{problem.n_qubits} qubits, depth {problem.depth}, batch {problem.batch}, {gates} gates, each with a channel;"
        f" float64, forward + backward"
    )
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            repeats = options.repeats if name == first else 1
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            times[name].append((time.perf_counter() - begin) / repeats)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"  {name:36} {duration(seconds):>9}")
    fast, slow = medians.values()
    print(f"default.mixed takes {slow / fast:.0f} times as long")


def _step(module: Any, weights: Any, features: Any, cotangents: Any) -> Callable[[], tuple[Any, Any, Any]]:
    """Outputs, gradient of the weights, gradient of the features."""

    def step() -> tuple[Any, Any, Any]:
        x = features.clone().requires_grad_()
        weights.grad = None
        outputs = module(x)
        outputs.backward(cotangents)
        return outputs.detach(), weights.grad.reshape(-1).clone(), x.grad

    return step


def ours(problem: Problem) -> tuple[Any, Any]:
    """A layer and its weights."""
    import torch

    from qstore_core import Channel, NoiseModel, get_backend
    from qstore_torch import QuantumFeatureExtractor

    cnots, others = Channel.depolarizing(_P, 2), Channel.amplitude_damping(_GAMMA)
    backend = get_backend("density", noise_model=NoiseModel().after("cnot", cnots).after("*", others))
    layer = QuantumFeatureExtractor(**problem.layer(), backend=backend).double()
    with torch.no_grad():
        layer.theta.copy_(torch.from_numpy(problem.angles().ravel()))
    return layer, layer.theta


def theirs(problem: Problem) -> tuple[Any, Any]:
    """PennyLane's layer and its weights; depolarising of two qubits as a mixture of Pauli words."""
    import pennylane as qml
    import torch

    from qstore_core import Channel

    n, kraus = problem.n_qubits, list(Channel.depolarizing(_P, 2).operators)

    @qml.qnode(qml.device("default.mixed", wires=n), interface="torch", diff_method="backprop")
    def circuit(inputs: Any, weights: Any) -> Any:
        def damped(gate: Any, angle: Any, q: int) -> None:
            gate(angle, wires=q)
            qml.AmplitudeDamping(_GAMMA, wires=q)

        for q in range(n):
            damped(qml.RY, inputs[..., q], q)
        for level in range(problem.depth):
            for q in range(n):
                damped(qml.RY, weights[level, q, 0], q)
                damped(qml.RZ, weights[level, q, 1], q)
            for pair in problem.pairs():
                qml.CNOT(wires=pair)
                qml.QubitChannel(kraus, wires=pair)
        return [qml.expval(qml.PauliZ(q)) for q in range(n)]

    layer = qml.qnn.TorchLayer(circuit, {"weights": (problem.depth, n, 2)}).double()
    with torch.no_grad():
        layer.weights.copy_(torch.from_numpy(problem.angles()))
    return layer, layer.weights
