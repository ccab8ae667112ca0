"""`qstore explain`: what a layer costs on our engines, and on hardware."""

from __future__ import annotations

import math
from typing import Any

from ..circuit.angles.functions import flattened
from ..circuit.gates.table import GATES, SHIFT_RULES
from ..circuit.lowering.plan import Diagonal, Plan, Rotation, lower
from ..circuit.measurements.measurement import Expectation
from ..circuit.spec.layer_spec import LayerSpec
from ..runtime.execution import Execution
from ..runtime.program import LayerProgram

__all__ = ["costs", "multiply_adds"]


def multiply_adds(plan: Plan) -> tuple[int, int]:
    """Real multiply-adds per sample of the forward pass, and of forward and backward together.

    A rotation about X or Y takes 4 per amplitude, any other 8, a diagonal 4; the backward sweep un-applies each on two
    states and contracts them.

    Example:
        >>> from qstore_core.circuit.spec.layer_spec import feature_extractor
        >>> spec = feature_extractor(2, 1, encoding="angle")
        >>> multiply_adds(lower(spec.circuit, spec.measurement))[0] > 0
        True
    """
    forward = backward = 0
    for step in plan.steps:
        if isinstance(step, Diagonal):
            forward, backward = forward + 4, backward + 10
            continue
        axes = {axis for axis, _ in step.factors}
        single = len(axes) == 1 and next(iter(axes)) in ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
        forward, backward = forward + (4 if single else 8), backward + (10 if single else 24)
    reads = 2 if plan.measurement.is_diagonal else 2 * plan.n_qubits
    size = 1 << plan.n_qubits
    return (forward + reads) * size, (forward + backward + 2 * reads) * size


def costs(spec: LayerSpec, *, batch: int, rows: int, shots: int, backend: str = "auto") -> list[dict[str, Any]]:
    """Rows `{"what", "value"}` about one layer.

    Args:
        spec: The layer.
        batch: Rows of a batch.
        rows: Rows of a training epoch.
        shots: Samples per circuit on hardware.
        backend: Who computes.
    """
    n = spec.n_qubits
    out = [
        ("layer", f"{spec.kind}: {spec.n_features} features → {spec.output_dim} outputs, {spec.n_weights} weights"),
        ("qubits", f"{n}, so {1 << n} amplitudes"),
    ]
    if spec.measurement is None:
        return [{"what": what, "value": value} for what, value in out]
    program = LayerProgram(spec, Execution(backend), name=spec.kind)
    circuit = flattened(spec.circuit)[0]
    noise = sum(op.channel is not None for op in spec.circuit.operations)
    channels = f", {noise} channels" if noise else ""
    out += [
        ("runs on", program.explain().partition(": ")[2]),
        ("gates", f"{len(spec.circuit.operations) - noise} as declared{channels}"),
    ]
    if not noise:
        plan = lower(circuit, spec.measurement)
        rotations = sum(isinstance(step, Rotation) for step in plan.steps)
        forward, step = multiply_adds(plan)
        out += [
            ("plan", f"{rotations} rotations, {len(plan.steps) - rotations} diagonal steps; entanglers cost nothing"),
            ("multiply-adds", f"{forward:,} a sample forward, {step:,} with gradients"),
            ("memory", f"{_size(3 * batch * (1 << n) * 8)} for a batch of {batch} in float32, at any depth"),
        ]
    angles = [angle for op in circuit.operations for angle in op.params]
    rules = [GATES[op.gate].shift for op in spec.circuit.operations for _ in op.params]
    shifted = sum(len(SHIFT_RULES[rule]) for rule, angle in zip(rules, angles, strict=True) if not angle.is_constant)
    bases = _settings(spec)
    total, steps = rows * (1 + shifted) * bases, math.ceil(rows / batch)
    settings = f" × {bases} measurement bases" if bases > 1 else ""
    out += [
        ("hardware, a step", f"{batch} rows × (1 + {shifted} shifted) circuits{settings}"),
        ("hardware, an epoch", f"{rows} rows in {steps} steps: {total:,} circuits, {total * shots:,} shots"),
    ]
    return [{"what": what, "value": value} for what, value in out]


def _settings(spec: LayerSpec) -> int:
    """In how many bases a device must measure: groups of Pauli strings that agree on every qubit."""
    if not isinstance(spec.measurement, Expectation):
        return 1
    groups: list[list[str]] = []
    for observable in spec.measurement.as_observables(spec.n_qubits):
        for string, _ in observable.terms:
            for k, group in enumerate(groups):
                if all(a == b or "I" in (a, b) for a, b in zip(group, string, strict=True)):
                    groups[k] = [b if a == "I" else a for a, b in zip(group, string, strict=True)]
                    break
            else:
                groups.append(list(string))
    return len(groups)


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
