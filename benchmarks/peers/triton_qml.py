"""triton_qml (arXiv:2603.02804): one Triton kernel for some qubits' rotations, one for a level's CNOTs.

It copies a list of gates to the GPU for each kernel, which a CUDA graph cannot record.
"""

from __future__ import annotations

from typing import Any

from ..problem import Problem
from . import Library, Running, _torch, only_z

_FUSED = 3  # qubits whose rotations one kernel takes; with 4, the most, the backward kernel compiles for minutes


def layer(problem: Problem) -> Running:
    """Its functional simulator. Its qubit 0 is the least significant bit: qubit q here is its qubit n - 1 - q."""
    import torch
    from triton_qml.simulator import FunctionalQuantumSimulator

    only_z(problem)
    n = problem.n_qubits
    simulator = FunctionalQuantumSimulator(n, device="cuda")
    theta = torch.from_numpy(problem.angles()).cuda().requires_grad_()
    entangler = [[n - 1 - control, n - 1 - target] for control, target in problem.pairs()]
    observables = ["".join("Z" if k == n - 1 - q else "I" for k in range(n)) for q in range(n)]

    def run(features: Any) -> Any:
        state = torch.nn.functional.normalize(features, dim=1).to(torch.complex64)
        for level in theta.unbind():
            angles = [pair.unbind() for pair in level.unbind()]
            for first in range(0, n, _FUSED):
                rotations = []
                for q in range(first, min(first + _FUSED, n)):
                    rotations += [["ry", n - 1 - q, angles[q][0]], ["rz", n - 1 - q, angles[q][1]]]
                state = simulator.apply_1q2q_pauli_rotation_gate_sequence(state, rotations)
            state = simulator.apply_fused_cnot_gate(state, entangler)
        return torch.stack([simulator.calc_exp_val(state, observable) for observable in observables], dim=1)

    return _torch.running(run, [theta], problem, "cuda")


LIBRARIES = (
    Library(
        "gpu-triton-qml",
        "triton_qml",
        layer,
        "triton-qml",
        ("torch", "triton_qml"),
        f"`FunctionalQuantumSimulator`: rotations of {_FUSED} qubits, and all CNOTs, in one kernel each",
        device="cuda",
    ),
)
