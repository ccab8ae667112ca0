"""The Plan: a circuit lowered to the few steps that cost arithmetic.

`lower` turns `(Circuit, Measurement)` into a `Plan` by pure functions, in this order:

1. `decompose`: every gate becomes rotations and CNOTs (the gate table).
2. `track`: CNOTs are linear maps of basis-state indices over GF(2). They are not applied; their product is tracked
   and every later rotation is expressed on the index as it stands (`Frame`). Neighbouring rotations of a qubit fuse.
3. `collect_diagonals`: rotations about Z alone become `Diagonal` steps, which cost one phase per amplitude.
4. `drop_unseen`: what no measured operator can see (trailing diagonals, gates outside the light cone) and what
   |0…0⟩ cannot see (leading diagonals) is removed.
5. The measurement is expressed on the final index: the last permutation costs nothing.

Where the state itself is read nothing is unseen: step 4 adds the global phase of the gates instead.

Notation: an index `p` is a bit vector. A one-qubit gate on a logical qubit acts on the pairs `(p, p ^ v)`, and
`parity(p & u)` is the logical qubit's value. Initially `v = u = 1 << (n - 1 - q)`.

Source:
    Aaronson & Gottesman, arXiv:quant-ph/0406196 (section on CNOT circuits); Patel, Markov & Hayes,
    arXiv:quant-ph/0302002 (linear reversible circuits as matrices over GF(2)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import SpecError
from ..angles.angle import Angle
from ..angles.functions import refuse_functions
from ..checks import shown
from ..circuit import Circuit, Operation
from ..gates.table import GATES, Axis, Cnot, Z, phase_of
from ..measurements.measurement import Amplitudes, Measurement, PlanMeasurement
from ..noise.channels import refuse_channels
from .frame import Frame, parity

__all__ = [
    "Diagonal",
    "Factor",
    "Frame",
    "Plan",
    "PlanMeasurement",
    "Rotation",
    "collect_diagonals",
    "decompose",
    "drop_unseen",
    "global_phase",
    "lower",
    "parity",
    "steps_of",
    "track",
]

Factor = tuple[Axis, Angle]
_FULL_TURN = 2 * math.pi  # minus the identity: a global phase


@dataclass(frozen=True, slots=True)
class Rotation:
    """SU(2) on the pairs `(p, p ^ v)`; the member with `parity(p & u) == 0` is |0⟩.

    Attributes:
        v: Pair direction.
        u: Parity mask; `parity(u & v) == 1`.
        factors: `(axis, angle)` from first to last in time, each `exp(-i angle/2 axis·σ)`.
        qubit: Logical qubit, and `frame` the frame (number in `Plan.frames`) in which it is this pair.
        frame: See `qubit`.
    """

    v: int
    u: int
    factors: tuple[Factor, ...]
    qubit: int
    frame: int

    @property
    def z_only(self) -> bool:
        """True where it is diagonal."""
        return all(axis == Z for axis, _ in self.factors)

    @property
    def uses_inputs(self) -> bool:
        """True where the matrix differs from sample to sample."""
        return any(angle.uses_inputs for _, angle in self.factors)

    def __str__(self) -> str:
        names = {(1.0, 0.0, 0.0): "X", (0.0, 1.0, 0.0): "Y", (0.0, 0.0, 1.0): "Z"}
        rotations = " ".join(f"R{names.get(axis, str(axis))}({angle})" for axis, angle in self.factors)
        return f"rotation v={self.v:b} u={self.u:b}: {rotations}"


@dataclass(frozen=True, slots=True)
class Diagonal:
    """Multiplies amplitude p by `exp(-i/2 Σ_k angle_k (-1)^parity(p & mask_k))`, over `(mask_k, angle_k)`."""

    terms: tuple[tuple[int, Angle], ...]

    def __str__(self) -> str:
        return "diagonal " + ", ".join(f"{mask:b}: {angle}" for mask, angle in self.terms)


Step = Rotation | Diagonal


@dataclass(frozen=True)
class Plan:
    """The steps of a circuit, and what is measured at the end. Frozen, hashable, printable."""

    n_qubits: int
    n_weights: int
    n_inputs: int
    n_amplitudes: int
    frames: tuple[Frame, ...]
    steps: tuple[Step, ...]
    measurement: PlanMeasurement

    @property
    def n_outputs(self) -> int:
        """Outputs per sample."""
        return self.measurement.n_outputs

    def __str__(self) -> str:
        head = f"Plan: {self.n_qubits} qubits, {len(self.steps)} steps, {self.n_outputs} outputs"
        m = self.measurement
        if m.amplitudes:
            tail = "read amplitudes"
        elif m.strings:
            tail = "measure " + ", ".join(f"X{x:b} Z{z:b}" for x, z, _ in m.strings)
        else:
            tail = "measure probabilities of parities " + ", ".join(f"{u:b}" for u in m.masks)
        return "\n".join([head, *(f"  {step}" for step in self.steps), f"  {tail}"])


# -- passes ---------------------------------------------------------------------------------------------------------


def decompose(circuit: Circuit) -> list[tuple[int, Factor] | Cnot]:
    """Every gate as `(qubit, (axis, angle))` and `Cnot`, in order."""
    return [step for op in circuit.operations for step in steps_of(op)]


def steps_of(op: Operation) -> list[tuple[int, Factor] | Cnot]:
    """The same for one gate."""
    out: list[tuple[int, Factor] | Cnot] = []
    for step in GATES[op.gate].steps:
        if isinstance(step, Cnot):
            out.append(Cnot(op.qubits[step.control], op.qubits[step.target]))
        else:
            terms: list[tuple[Any, float]] = [((), step.constant)]
            for coefficient, param in zip(step.coefficients, op.params, strict=False):
                terms += (coefficient * param).terms
            out.append((op.qubits[step.qubit], (step.axis, Angle.from_terms(terms))))
    return out


def track(
    instructions: Iterable[tuple[int, Factor] | Cnot], n_qubits: int, period: float = _FULL_TURN
) -> tuple[list[Step], list[Frame]]:
    """Track CNOTs as a frame, express rotations in it, and fuse those that act on the same pairs.

    Rotations by multiples of `period` vanish.
    """
    frame = Frame.identity(n_qubits)
    frames: list[Frame] = [frame]
    steps: list[Step] = []
    for item in instructions:
        if isinstance(item, Cnot):
            frame = frame.after_cnot(item.control, item.target)
            continue
        qubit, factor = item
        if frames[-1] != frame:
            frames.append(frame)
        rotation = Rotation(frame.v[qubit], frame.u[qubit], (factor,), qubit, len(frames) - 1)
        _fuse(steps, rotation, period)
    if frames[-1] != frame:
        frames.append(frame)
    return steps, frames


def _generators(step: Step) -> list[tuple[int, int]]:
    """Paulis (x, z) whose algebra holds the step."""
    if isinstance(step, Diagonal):
        return [(0, mask) for mask, _ in step.terms]
    return [(0, step.u)] if step.z_only else [(0, step.u), (step.v, 0)]


def _paulis_commute(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return parity(a[0] & b[1]) == parity(a[1] & b[0])


def _commute(a: Iterable[tuple[int, int]], b: Sequence[tuple[int, int]]) -> bool:
    return all(_paulis_commute(p, q) for p in a for q in b)


def _fuse(steps: list[Step], new: Rotation, period: float) -> None:
    """Append `new`, or merge it into an earlier rotation of the same pairs that it can be moved back to."""
    mine = _generators(new)
    for index in range(len(steps) - 1, -1, -1):
        old = steps[index]
        if isinstance(old, Rotation) and old.u == new.u and (old.v == new.v or new.z_only or old.z_only):
            pairs = new if old.z_only else old  # Z rotations do not care which pairs they act on
            factors = _join(old.factors, new.factors, period)
            steps[index : index + 1] = [replace(pairs, factors=factors)] if factors else []
            return
        if not _commute(mine, _generators(old)):
            break
    factors = _join((), new.factors, period)
    if factors:
        steps.append(replace(new, factors=factors))


def _join(first: tuple[Factor, ...], second: tuple[Factor, ...], period: float) -> tuple[Factor, ...]:
    """Concatenate factors; turns about one axis add up, and whole ones vanish."""
    out = list(first)
    for axis, angle in second:
        if out and out[-1][0] == axis:
            angle = out.pop()[1] + angle
        if angle.is_constant and math.remainder(angle.constant, period) == 0.0:
            continue
        out.append((axis, angle))
    return tuple(out)


def collect_diagonals(steps: Iterable[Step]) -> list[Step]:
    """Turn rotations about Z alone into terms of as few `Diagonal` steps as possible."""
    out: list[Step] = []
    for step in steps:
        if not (isinstance(step, Rotation) and step.z_only):
            out.append(step)
            continue
        angle = sum((a for _, a in step.factors), Angle())
        mine = [(0, step.u)]
        for index in range(len(out) - 1, -1, -1):
            old = out[index]
            if isinstance(old, Diagonal):
                terms = dict(old.terms)
                terms[step.u] = terms.get(step.u, Angle()) + angle
                out[index] = Diagonal(tuple(terms.items()))
                break
            if not _commute(mine, _generators(old)):
                out.append(Diagonal(((step.u, angle),)))
                break
        else:
            out.append(Diagonal(((step.u, angle),)))
    return out


def drop_unseen(steps: Sequence[Step], seen: Sequence[tuple[int, int]], from_zero: bool) -> list[Step]:
    """Remove what commutes to the end and past every measured Pauli, and Z turns that |0…0⟩ only sees as a phase."""
    steps = _drop(list(reversed(steps)), list(seen), last=True)[::-1]
    if from_zero:
        # |0…0⟩ is an eigenstate of every Z string: only Z turns drop, so start from no blockers but X-type steps.
        steps = _drop(steps, [], last=False)
    return steps


def _drop(steps: Sequence[Step], blockers: list[tuple[int, int]], last: bool) -> list[Step]:
    kept: list[Step] = []
    for step in steps:
        if isinstance(step, Diagonal):
            terms = tuple(t for t in step.terms if not _commute([(0, t[0])], blockers))
            if not terms:
                continue
            step = Diagonal(terms)
        else:
            if last and _commute(_generators(step), blockers):
                continue
            if _commute([(0, step.u)], blockers):
                factors = list(step.factors)
                while factors and factors[-1 if last else 0][0] == Z:
                    factors.pop(-1 if last else 0)
                if not factors:
                    continue
                step = replace(step, factors=tuple(factors))
        kept.append(step)
        blockers += _generators(step)
    return kept


def global_phase(circuit: Circuit) -> Angle:
    """The phase of a circuit's gates beside their decompositions, radians."""
    terms: list[tuple[Any, float]] = []
    for op in circuit.operations:
        coefficients, constant = phase_of(GATES[op.gate])
        terms.append(((), constant))
        for coefficient, param in zip(coefficients, op.params, strict=True):
            terms += (coefficient * param).terms
    return Angle.from_terms(terms)


def _with_phase(steps: list[Step], phase: Angle) -> list[Step]:
    """Steps that multiply the state by exp(i phase) besides: a term with an empty mask."""
    if not phase.terms:
        return steps
    term = (0, -2 * phase)
    for number, step in enumerate(steps):
        if isinstance(step, Diagonal):
            return [*steps[:number], Diagonal((*step.terms, term)), *steps[number + 1 :]]
    return [*steps, Diagonal((term,))]


def lower(circuit: Circuit, measurement: Measurement) -> Plan:
    """Lower a circuit and its measurement to a Plan.

    Example:
        RZ before a Z measurement cannot be seen, and a CNOT costs nothing:

        >>> from qstore_core.circuit.measurements.measurement import Expectation
        >>> c = Circuit(2)
        >>> w = c.weights(2)
        >>> c.ry(w[0], 0); c.rz(w[1], 0); c.cnot(0, 1)
        >>> print(lower(c, Expectation("Z")))
        Plan: 2 qubits, 1 steps, 2 outputs
          rotation v=10 u=10: RY(w0)
          measure X0 Z10, X0 Z11
    """
    if not isinstance(circuit, Circuit) or not isinstance(measurement, Measurement):
        raise SpecError(f"a Circuit and a Measurement are lowered, received {shown(circuit)} and {shown(measurement)}.")
    n = circuit.n_qubits
    measurement.check(n)
    refuse_channels(circuit, "a Plan is of pure states")
    refuse_functions(circuit)
    whole = isinstance(measurement, Amplitudes)  # the phase is seen: minus the identity is something
    steps, frames = track(decompose(circuit), n, 2 * _FULL_TURN if whole else _FULL_TURN)
    measured = measurement.lower(n, frames[-1], len(frames) - 1)
    if whole:
        kept = _with_phase(collect_diagonals(steps), global_phase(circuit))
    else:
        seen = [(x, z) for x, z, _ in measured.strings] or [(0, mask) for mask in measured.masks]
        kept = drop_unseen(collect_diagonals(steps), seen, from_zero=not circuit.n_amplitudes)
    return Plan(n, circuit.n_weights, circuit.n_inputs, circuit.n_amplitudes, tuple(frames), tuple(kept), measured)
