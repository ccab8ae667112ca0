"""PennyLane: `qml.qnn.TorchLayer`, the batch by parameter broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..problem import Problem
from . import Library, Running, _torch


def layer(name: str, diff_method: str, device: str = "cpu") -> Callable[[Problem], Running]:
    """A `TorchLayer` on the PennyLane device `name`, its tensors on `device`."""

    def build(problem: Problem) -> Running:
        import pennylane as qml
        import torch

        n = problem.n_qubits
        options = {} if name == "default.qubit" else {"c_dtype": np.complex64}
        basis = {"Z": qml.PauliZ, "X": qml.PauliX, "Y": qml.PauliY}

        @qml.qnode(qml.device(name, wires=n, **options), interface="torch", diff_method=diff_method)
        def circuit(inputs: Any, weights: Any) -> Any:
            qml.AmplitudeEmbedding(inputs, wires=range(n), normalize=True)
            for level in range(problem.depth):
                for q in range(n):
                    qml.RY(weights[level, q, 0], wires=q)
                    qml.RZ(weights[level, q, 1], wires=q)
                for pair in problem.pairs():
                    qml.CNOT(wires=pair)
            return [qml.expval(basis[letter](q)) for letter in problem.bases for q in range(n)]

        module = qml.qnn.TorchLayer(circuit, {"weights": (problem.depth, n, 2)}).to(device)
        with torch.no_grad():
            module.weights.copy_(torch.from_numpy(problem.angles()))
        return _torch.running(module, [module.weights], problem, device)

    return build


LIBRARIES = (
    Library(
        "pennylane",
        "PennyLane",
        layer("default.qubit", "backprop"),
        "pennylane",
        ("torch", "pennylane"),
        "`qml.qnn.TorchLayer`, default.qubit, backprop, parameter broadcasting",
    ),
    Library(
        "pennylane-lightning",
        "PL lightning",
        layer("lightning.qubit", "adjoint"),
        "pennylane-lightning",
        ("torch", "pennylane"),
        "`qml.qnn.TorchLayer`, lightning.qubit (complex64), adjoint",
    ),
    Library(
        "gpu-pennylane",
        "PennyLane",
        layer("default.qubit", "backprop", "cuda"),
        "pennylane",
        ("torch", "pennylane"),
        "`qml.qnn.TorchLayer`, default.qubit, backprop, parameter broadcasting, tensors on the GPU",
        device="cuda",
    ),
    Library(
        "gpu-lightning",
        "PL lightning.gpu",
        layer("lightning.gpu", "adjoint", "cuda"),
        "pennylane-lightning-gpu",
        ("torch", "pennylane", "pennylane_lightning.lightning_gpu"),
        "`qml.qnn.TorchLayer`, lightning.gpu (complex64), adjoint",
        device="cuda",
    ),
)
