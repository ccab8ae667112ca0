"""pyqtorch: a `QuantumCircuit`, one observable per qubit, mode AD."""

from __future__ import annotations

from typing import Any

from ..problem import Problem
from . import Library, Running, _torch, only_z


def layer(problem: Problem) -> Running:
    """The state by `pyq.run`, then `Observable.expectation`."""
    import pyqtorch as pyq
    import torch

    only_z(problem)
    n = problem.n_qubits
    operations: list[Any] = []
    for level in range(problem.depth):
        for q in range(n):
            operations += [pyq.RY(q, f"y{level}_{q}"), pyq.RZ(q, f"z{level}_{q}")]
        operations += [pyq.CNOT(*pair) for pair in problem.pairs()]
    circuit = pyq.QuantumCircuit(n, operations).to(dtype=torch.complex64)
    observables = [pyq.Observable(pyq.Z(q)).to(dtype=torch.complex64) for q in range(n)]
    theta = torch.from_numpy(problem.angles()).requires_grad_()
    slots = [(level, q) for level in range(problem.depth) for q in range(n)]

    def run(features: Any) -> Any:
        unit = torch.nn.functional.normalize(features, dim=1).to(torch.complex64)
        values = {}
        for (level, q), pair in zip(slots, theta.reshape(-1, 2).unbind(), strict=True):
            values[f"y{level}_{q}"], values[f"z{level}_{q}"] = pair.reshape(2, 1).unbind()
        state = pyq.run(circuit, unit.T.reshape([2] * n + [len(features)]), values)
        return torch.stack([o.expectation(state) for o in observables], dim=1)

    return _torch.running(run, [theta], problem)


LIBRARIES = (
    Library(
        "pyqtorch",
        "pyqtorch",
        layer,
        "pyqtorch",
        ("torch", "pyqtorch"),
        "`QuantumCircuit` and `Observable`, mode AD, complex64",
    ),
)
