"""How much arithmetic a Plan needs, and how much this machine can do.

A multiply-add is `a·b + c` on real numbers. Per amplitude of the state, steps of a Plan need (a product
counts as a multiply-add with c = 0):

    step                                            forward     backward (one adjoint sweep)
    rotation about Y or X alone (2 of 4 entries real,     4     un-apply on ψ and λ: 8, one overlap: 2
      2 of 4 imaginary)
    any other rotation (SU(2))                            8     un-apply on ψ and λ: 16, 2x2 contraction: 8
    diagonal                                              4     un-apply on ψ and λ: 8, one overlap: 2
    reading ⟨Z⟩                                           2     λ = Σ_k cotangent_k ± ψ: 2
    reading ⟨X⟩, ⟨Y⟩, ⟨Z⟩ of a qubit                      2     2    (its reduced density matrix)

A rotation of a state that is still real (amplitude encoding) needs half of its forward count. Additions of
signs (parities), normalising the features, and building matrices from angles are not counted.

`multiply_adds` counts a Plan gate by gate. The numba engine needs fewer: it makes Y rotations and one product with
phases per layer of it (`engines/numba/lowering/schedule.py`). `scheduled_multiply_adds` counts those, by the same rules
and with the halves that stay real; its share of the peak can only be below 100 %.
"""

from __future__ import annotations

import time

import numpy as np

from qstore_core import QuantumFeatureExtractor, lower
from qstore_core.circuit.lowering.plan import Diagonal, Plan

from .problem import Problem

_REAL_AXES = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def multiply_adds(plan: Plan) -> dict[str, int]:
    """Multiply-adds per sample: {"forward": …, "step": …}; a step is forward and backward."""
    size = 1 << plan.n_qubits
    forward = backward = 0
    real = plan.n_amplitudes > 0
    for step in plan.steps:
        if isinstance(step, Diagonal):
            forward, backward, real = forward + 4, backward + 10, False
            continue
        axes = {axis for axis, _ in step.factors}
        single = len(axes) == 1 and next(iter(axes)) in _REAL_AXES
        cost = 4 if single else 8
        forward += cost // 2 if real else cost
        backward += 10 if single else 24
        real = real and axes == {_REAL_AXES[0]}
    reads = 2 if plan.measurement.is_diagonal else 2 * plan.n_qubits
    return {"forward": (forward + reads) * size, "step": (forward + backward + 2 * reads) * size}


def scheduled_multiply_adds(plan: Plan) -> dict[str, int]:
    """The same for what the numba engine does with an amplitude-encoded Plan that measures ⟨Z⟩."""
    from qstore_core.engines.numba.lowering.schedule import RotationLayer, schedule

    forward = backward = 0
    real = True
    for number, layer in enumerate(schedule(plan)):
        planes = 1 if real and isinstance(layer, RotationLayer) else 2
        if isinstance(layer, RotationLayer):
            rotations = len(layer.rotations)
            forward += 2 * planes * rotations
            # Of the first layer, λ alone counts as rotated back: ψ is not in all of its passes.
            backward += (2 if number else 1) * 2 * planes * rotations + planes * rotations
        else:
            forward += 2 if real else 4
            backward += 2 + 2 * (2 if real else 4)
            real = False
    reads = 2
    size = 1 << plan.n_qubits
    return {"forward": (forward + reads) * size, "step": (forward + backward + 2 * reads) * size}


def counts(problem: Problem, name: str, mode: str) -> dict[str, int]:
    """Multiply-adds of the whole batch: gate by gate, and what the engine of that name does."""
    spec = QuantumFeatureExtractor(**problem.layer()).spec
    assert spec.measurement is not None
    plan = lower(spec.circuit, spec.measurement)
    gate_by_gate = multiply_adds(plan)[mode] * problem.batch
    done = scheduled_multiply_adds(plan)[mode] * problem.batch if name == "engine-numba" else gate_by_gate
    return {"multiply_adds": gate_by_gate, "scheduled": done}


def peak(threads: int, seconds: float = 1.0) -> dict[str, float]:
    """Multiply-adds per second, float32, of a product of matrices."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((512, 512), dtype=np.float32) for _ in range(2))
    out, best = np.empty_like(a), np.inf
    with threadpool_limits(threads, "blas"):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            begin = time.perf_counter()
            np.matmul(a, b, out=out)
            best = min(best, time.perf_counter() - begin)
    return {"threads": threads, "peak": 512**3 / best}
