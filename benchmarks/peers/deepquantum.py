"""DeepQuantum: a `QubitCircuit` on a batch of states, its gates' own parameters trained."""

from __future__ import annotations

from typing import Any

from ..problem import Problem
from . import Library, Running, _torch, only_z


def layer(problem: Problem) -> Running:
    """The circuit, its angles set one by one."""
    import deepquantum as dq
    import torch

    only_z(problem)
    n = problem.n_qubits
    circuit = dq.QubitCircuit(n)
    for _ in range(problem.depth):
        for q in range(n):
            circuit.ry(q)
            circuit.rz(q)
        for pair in problem.pairs():
            circuit.cnot(*pair)
    for q in range(n):
        circuit.observable(q)
    parameters = list(circuit.parameters())
    with torch.no_grad():
        for parameter, angle in zip(parameters, problem.angles().ravel(), strict=True):
            parameter.fill_(float(angle))

    def run(features: Any) -> Any:
        circuit(state=dq.amplitude_encoding(features, n))
        return circuit.expectation().reshape(problem.batch, n)

    return _torch.running(run, parameters, problem)


LIBRARIES = (
    Library(
        "deepquantum",
        "DeepQuantum",
        layer,
        "deepquantum",
        ("torch", "deepquantum"),
        "`QubitCircuit` on a batch of states, PyTorch autograd",
    ),
)
