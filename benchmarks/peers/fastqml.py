"""fastQML: a level of rotations as one product with a Kronecker product, its CNOTs as another, in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..problem import Problem
from . import Library, Running, _torch, only_z


def layer(graph: bool, device: str = "cuda") -> Callable[[Problem], Running]:
    """Its `gate_fusion`; the CNOTs, which do not change, are composed once (`compose_dense`, `apply_dense`)."""

    def build(problem: Problem) -> Running:
        import torch
        from fastqml import gate_fusion, register_ops

        only_z(problem)
        n, size = problem.n_qubits, 1 << problem.n_qubits
        theta = torch.from_numpy(problem.angles()).to(device).requires_grad_()
        # The rows of the result are the images of the basis states: the transpose of the matrix.
        real = torch.eye(size, device=device).reshape(size, *[2] * n)
        imaginary = torch.zeros_like(real)
        for plan in gate_fusion.compute_two_qubit_plans(problem.pairs(), n, device, torch.float32):
            gates = gate_fusion.build_cnot_4x4(plan["n_pairs"], device, torch.float32)
            real, imaginary = gate_fusion.apply_disjoint_two_qubit_layer(real, imaginary, plan, *gates)
        entangler = [part.reshape(size, size).T.contiguous() for part in (real, imaginary)]
        bits = torch.arange(size, device=device)[:, None] >> torch.arange(n - 1, -1, -1, device=device)
        signs = 1.0 - 2.0 * (bits & 1)

        def run(features: Any) -> Any:
            re = torch.nn.functional.normalize(features, dim=1).reshape(-1, *[2] * n)
            im = torch.zeros_like(re)
            for level in theta.unbind():
                re, im = gate_fusion.apply_su2_layer(re, im, *gate_fusion.build_ry_rz_gates(level[:, 0], level[:, 1]))
                re, im = register_ops.apply_dense(re.reshape(-1, size), im.reshape(-1, size), *entangler)
            return (re * re + im * im) @ signs

        return _torch.running(run, [theta], problem, device, graph)

    return build


LIBRARIES = tuple(
    Library(
        f"gpu-fastqml{suffix}",
        label,
        layer(graph),
        "fastqml",
        ("torch", "fastqml"),
        note,
        device="cuda",
        qubits=range(13),  # a level is a matrix of 4**n numbers, twice
    )
    for suffix, label, graph, note in (
        ("", "fastQML", False, "`gate_fusion` and `register_ops.apply_dense`, up to 12 qubits"),
        (
            "-graph",
            "fastQML, graph",
            True,
            "`gate_fusion` and `register_ops.apply_dense` in a CUDA graph, as it recommends, up to 12 qubits",
        ),
    )
)
