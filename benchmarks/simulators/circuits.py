"""Ten circuits of PennyLane's and Qiskit's tutorials, where they came from and as layers.

Each is written for its library, comes in with `from_pennylane` or `from_qiskit`, is compared in float64 (outputs, and
gradients of weights and inputs), and then timed, forward and backward: PennyLane's as a `qml.qnn.TorchLayer` on
default.qubit with backprop, its batch by broadcasting, interleaved with ours; Qiskit's as an `EstimatorQNN` on its
exact estimator, once. Needs the extras `torch`, `fast`, `pennylane`, `aer`, and qiskit-machine-learning.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCE = 1e-10
Results = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass
class Origin:
    """A circuit in the library that it comes from.

    Attributes:
        layer: A class `QuantumLayer` → the layer.
        results: theta (W,), x (B, F) → outputs (B, O), and the gradients of their sum, all in float64.
        step: theta, x → a call forward and backward as a user of the library would have it.
    """

    library: str
    layer: Callable[..., Any]
    results: Callable[[np.ndarray, np.ndarray], Results]
    step: Callable[[np.ndarray, np.ndarray], Callable[[], Any]]


# -- PennyLane --------------------------------------------------------------------------------------------------------


def _pennylane(function: Callable[..., Any], shapes: dict[str, Any], n: int) -> Origin:
    import pennylane as qml
    import torch

    node = qml.QNode(function, qml.device("default.qubit", wires=n), interface="torch", diff_method="backprop")

    def module(theta: np.ndarray, dtype: torch.dtype) -> Any:
        made = qml.qnn.TorchLayer(node, shapes).to(dtype)
        start = 0
        with torch.no_grad():
            for weight in made.qnode_weights.values():
                part = theta[start : start + weight.numel()].reshape(tuple(weight.shape))
                weight.copy_(torch.from_numpy(part))
                start += weight.numel()
        return made

    def results(theta: np.ndarray, x: np.ndarray) -> Results:
        made, leaf = module(theta, torch.float64), torch.tensor(x, requires_grad=True)
        outputs = made(leaf)
        outputs.sum().backward()
        d_theta = np.concatenate([weight.grad.numpy().ravel() for weight in made.qnode_weights.values()])
        return outputs.detach().numpy(), d_theta, leaf.grad.numpy()

    def step(theta: np.ndarray, x: np.ndarray) -> Callable[[], Any]:
        return torch_step(module(theta, torch.float32), x)

    return Origin("PennyLane", lambda kind, **more: kind.from_pennylane(node, shapes, **more), results, step)


def torch_step(module: Any, x: np.ndarray) -> Callable[[], Any]:
    """Forward and backward of a module, for weights and inputs, in float32."""
    import torch

    leaf = torch.tensor(x, dtype=torch.float32, requires_grad=True)

    def call() -> None:
        module(leaf).sum().backward()

    return call


def _of_templates(n: int) -> dict[str, Callable[[], Origin]]:
    import pennylane as qml

    wires = range(n)

    def each() -> list[Any]:
        return [qml.expval(qml.Z(q)) for q in wires]

    def strongly(inputs: Any, weights: Any) -> list[Any]:
        qml.AngleEmbedding(inputs, wires=wires)
        qml.StronglyEntanglingLayers(weights, wires=wires)
        return each()

    def basic(inputs: Any, weights: Any) -> list[Any]:
        qml.AngleEmbedding(inputs, wires=wires)
        qml.BasicEntanglerLayers(weights, wires=wires)
        return each()

    def two_design(inputs: Any, initial: Any, weights: Any) -> list[Any]:
        qml.AngleEmbedding(inputs, wires=wires)
        qml.SimplifiedTwoDesign(initial, weights, wires=wires)
        return each()

    def iqp(inputs: Any, weights: Any) -> list[Any]:
        qml.IQPEmbedding(inputs, wires=wires)
        qml.BasicEntanglerLayers(weights, wires=wires)
        return each()

    def qaoa(inputs: Any, weights: Any) -> list[Any]:
        qml.QAOAEmbedding(inputs, weights, wires=wires)
        return each()

    def convolutional(inputs: Any, weights: Any, last: Any) -> Any:
        """As in the tutorial on generalisation from few data: convolutions, pooling by measuring, a dense end."""
        qml.AngleEmbedding(inputs, wires=wires)
        left = list(wires)
        for level in range(weights.shape[0]):
            w = weights[level]
            for parity in (0, 1):
                for k in range(parity, len(left) - 1, 2):
                    one, two = left[k], left[k + 1]
                    qml.U3(w[0], w[1], w[2], wires=one)
                    qml.U3(w[3], w[4], w[5], wires=two)
                    qml.IsingZZ(w[6], wires=[one, two])
                    qml.IsingYY(w[7], wires=[one, two])
                    qml.IsingXX(w[8], wires=[one, two])
                    qml.U3(w[9], w[10], w[11], wires=one)
                    qml.U3(w[12], w[13], w[14], wires=two)
            for kept, measured in zip(left[::2], left[1::2], strict=False):
                qml.cond(qml.measure(measured), qml.U3)(w[15], w[16], w[17], wires=kept)
            left = left[::2]
        qml.ArbitraryUnitary(last, left[:2])
        return qml.probs(wires=left[0])

    levels = 2 if n > 4 else 1
    return {
        "StronglyEntanglingLayers": lambda: _pennylane(strongly, {"weights": (2, n, 3)}, n),
        "BasicEntanglerLayers": lambda: _pennylane(basic, {"weights": (2, n)}, n),
        "SimplifiedTwoDesign": lambda: _pennylane(two_design, {"initial": (n,), "weights": (2, n - 1, 2)}, n),
        "IQPEmbedding": lambda: _pennylane(iqp, {"weights": (1, n)}, n),
        "QAOAEmbedding": lambda: _pennylane(qaoa, {"weights": (2, 2 * n)}, n),
        "QCNN": lambda: _pennylane(convolutional, {"weights": (levels, 18), "last": (15,)}, n),
    }


# -- Qiskit -----------------------------------------------------------------------------------------------------------


def _qiskit(features: Any, ansatz: Any) -> Origin:
    from qiskit.primitives import StatevectorEstimator
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    network = EstimatorQNN(
        circuit=features.compose(ansatz),
        estimator=StatevectorEstimator(),
        input_params=list(features.parameters),
        weight_params=list(ansatz.parameters),
        input_gradients=True,
        default_precision=0.0,
    )

    def results(theta: np.ndarray, x: np.ndarray) -> Results:
        outputs = network.forward(x, theta)
        by_inputs, by_weights = network.backward(x, theta)
        return outputs, by_weights.sum((0, 1)), by_inputs.sum(1)

    return Origin(
        "Qiskit", lambda kind, **more: kind.from_qiskit(network, **more), results,
        lambda theta, x: lambda: results(theta, x),
    )  # fmt: skip


def _of_library(n: int) -> dict[str, Callable[[], Origin]]:
    from qiskit.circuit import ParameterVector, QuantumCircuit
    from qiskit.circuit.library import efficient_su2, n_local, real_amplitudes, zz_feature_map

    def angles() -> Any:
        x, circuit = ParameterVector("x", n), QuantumCircuit(n)
        for q in range(n):
            circuit.ry(x[q], q)
        return circuit

    return {
        "RealAmplitudes": lambda: _qiskit(angles(), real_amplitudes(n, reps=1)),
        "EfficientSU2": lambda: _qiskit(angles(), efficient_su2(n, reps=1)),
        "ZZFeatureMap": lambda: _qiskit(zz_feature_map(n, reps=1), real_amplitudes(n, reps=1)),
        "TwoLocal": lambda: _qiskit(angles(), n_local(n, ["ry", "rz"], "cz", reps=1, entanglement="linear")),
    }


def origins(n: int) -> dict[str, Callable[[], Origin]]:
    """All ten, on `n` qubits, by name."""
    return _of_templates(n) | _of_library(n)


# -- what is printed --------------------------------------------------------------------------------------------------


def point(weights: int, features: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """`(theta (W,), x (B, F))`, the same in every run."""
    rng = np.random.default_rng(0)
    return rng.uniform(-np.pi, np.pi, weights), rng.uniform(-1, 1, (rows, features))


def deviation(origin: Origin, rows: int) -> tuple[float, float]:
    """The largest deviation of outputs, and of gradients, in float64."""
    from qstore_core import QuantumLayer

    layer = origin.layer(QuantumLayer)
    layer.theta, x = point(layer.spec.n_weights, layer.spec.n_features, rows)
    outputs, d_theta, d_x = origin.results(layer.theta, x)
    ours = layer(x)
    differences = [np.abs(ours - outputs).max()]
    for mine, theirs in zip(layer.vjp(x, np.ones_like(ours)), (d_theta, d_x), strict=True):
        differences.append(np.abs(mine - theirs).max())
    return float(differences[0]), float(max(differences[1:]))


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--qubits", type=int, default=8)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--repeats", type=int, default=5, help="timed calls of PennyLane's; ours are timed between them")
    p.add_argument("--only", nargs="+", help="names of circuits")


def main(options: argparse.Namespace) -> None:
    """Compare, time and print."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # ours takes no more than PyTorch either
    load = f"; load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{options.qubits} qubits, batch {options.batch}, forward + backward for weights and inputs, one thread")
    print(f"medians in ms{load}\n")
    print("| circuit | from | gates | weights | values differ by | gradients by | there | here | times |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, make in origins(options.qubits).items():
        if not options.only or name in options.only:
            _line(name, make(), options)


def _line(name: str, origin: Origin, options: argparse.Namespace) -> None:
    from qstore_torch import QuantumLayer

    values, gradients = deviation(origin, 2)
    if max(values, gradients) > TOLERANCE:
        raise SystemExit(f"{name}: values differ by {values:.1e}, gradients by {gradients:.1e}.")
    layer = origin.layer(QuantumLayer)
    theta, x = point(layer.spec.n_weights, layer.spec.n_features, options.batch)
    there, here = origin.step(theta, x), torch_step(layer, x)
    here()
    repeats = 1 if origin.library == "Qiskit" else options.repeats
    if repeats > 1:
        there()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        times[0].append(_seconds(there))
        times[1].extend(_seconds(here) for _ in range(20))
    a, b = (1e3 * statistics.median(t) for t in times)
    gates = len(layer.circuit.operations)
    print(
        f"| {name} | {origin.library} | {gates} | {len(theta)} | {values:.0e} | {gradients:.0e} | {a:.4g} | {b:.3g} | "
        f"{a / b:.0f} |",
        flush=True,
    )


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
