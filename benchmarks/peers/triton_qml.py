"""triton_qml (arXiv:2603.02804): one Triton kernel for some qubits' rotations, one for a level's CNOTs.

It copies a list of gates to the GPU for each kernel, which a CUDA graph cannot record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..problem import Problem
from . import Library, Running, _torch, only_z


def layer(fused: int) -> Callable[[Problem], Running]:
    """Its functional simulator, rotations of `fused` qubits in a kernel: 4 at the most, which compile for minutes.

    Its qubit 0 is the least significant bit: qubit q here is its qubit n - 1 - q.
    """

    def build(problem: Problem) -> Running:
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
                for first in range(0, n, fused):
                    rotations = []
                    for q in range(first, min(first + fused, n)):
                        rotations += [["ry", n - 1 - q, angles[q][0]], ["rz", n - 1 - q, angles[q][1]]]
                    state = simulator.apply_1q2q_pauli_rotation_gate_sequence(state, rotations)
                state = simulator.apply_fused_cnot_gate(state, entangler)
            return torch.stack([simulator.calc_exp_val(state, observable) for observable in observables], dim=1)

        return _torch.running(run, [theta], problem, "cuda")

    return build


LIBRARIES = tuple(
    Library(
        name,
        label,
        layer(fused),
        "triton-qml",
        ("torch", "triton_qml"),
        f"`FunctionalQuantumSimulator`: rotations of {fused} qubits, and all CNOTs, in one kernel",
        device="cuda",
        qubits=qubits,
    )
    for name, label, fused, qubits in (
        ("gpu-triton-qml", "triton_qml", 3, range(100)),
        ("gpu-triton-qml-4", "triton_qml, 4", 4, range(16, 100)),
    )
)
