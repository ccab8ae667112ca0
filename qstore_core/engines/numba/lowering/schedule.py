"""From a Plan to layers of real rotations and phases: what the compiled kernels are good at.

Every SU(2) factor is written as Z, Y, Z rotations of its pair. A Y rotation is a real 2x2 matrix, so it costs half the
arithmetic of a general one, and acts on the real and the imaginary plane apart from each other. Z rotations commute
with most neighbours: they are collected, and a whole layer of them costs one complex product per amplitude.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ....circuit.angles.angle import Angle, as_angle
from ....circuit.lowering.plan import Diagonal, Factor, Plan, parity

__all__ = ["PhaseLayer", "RotationLayer", "YRotation", "blocks_of", "duals", "independent_groups", "rank", "schedule"]


@dataclass(frozen=True, slots=True)
class YRotation:
    """`exp(-i angle/2 Y)` on the pairs `(p, p ^ v)`; the member with `parity(p & u) == 0` is |0⟩."""

    v: int
    u: int
    angle: Angle

    def commutes(self, other: YRotation) -> bool:
        """True where the two may change places."""
        return parity(self.v & other.u) == parity(self.u & other.v)

    def independent(self, others: Sequence[YRotation]) -> bool:
        """True where it and `others` act on different qubits of some common relabelling."""
        if any(parity(self.v & t.u) or parity(self.u & t.v) for t in others):
            return False
        return rank([self.v, *(t.v for t in others)]) == len(others) + 1


@dataclass(slots=True)
class RotationLayer:
    """Rotations in order of time."""

    rotations: list[YRotation] = field(default_factory=list)


@dataclass(slots=True)
class PhaseLayer:
    """`exp(-i/2 Σ angle (-1)^parity(p & mask))`."""

    terms: dict[int, Angle] = field(default_factory=dict)


Layer = RotationLayer | PhaseLayer


def rank(vectors: Iterable[int]) -> int:
    """Rank over GF(2)."""
    pivots: list[int] = []
    for v in vectors:
        for p in pivots:
            v = min(v, v ^ p)
        if v:
            pivots.append(v)
    return len(pivots)


def duals(vectors: Sequence[int]) -> list[int]:
    """Masks u with parity(u_i & v_j) == (i == j), by Gauss-Jordan; zeros where the vectors depend on each other."""
    rows = [(v, 1 << i) for i, v in enumerate(vectors)]
    pivots = []
    for i in range(len(rows)):
        v, combination = rows[i]
        pivot = v & -v
        if not pivot:
            return [0] * len(vectors)
        pivots.append(pivot)
        for j, (w, other) in enumerate(rows):
            if j != i and w & pivot:
                rows[j] = w ^ v, other ^ combination
    return [sum(p for p, (_, c) in zip(pivots, rows, strict=True) if c >> i & 1) for i in range(len(rows))]


def independent_groups(masks: Sequence[int], size: int) -> list[list[int]]:
    """Split `masks` into groups of at most `size` that are linearly independent over GF(2)."""
    groups: list[list[int]] = []
    for mask in masks:
        for group in groups:
            if len(group) < size and rank([*group, mask]) == len(group) + 1:
                group.append(mask)
                break
        else:
            groups.append([mask])
    return groups


def schedule(plan: Plan) -> list[Layer]:
    """The layers of a plan, first to last in time."""
    layers: list[Layer] = []
    for step in plan.steps:
        if isinstance(step, Diagonal):
            for mask, angle in step.terms:
                _add_phase(layers, mask, angle)
            continue
        for axis, angle in _zyz(step.factors):
            if axis == "z":
                _add_phase(layers, step.u, angle)
            else:
                _add_rotation(layers, YRotation(step.v, step.u, angle))
    if not plan.n_amplitudes:
        _drop_leading_phases(layers)
    _drop_trailing_phases(layers, [x for x, _, _ in plan.measurement.strings if x])
    return [layer for layer in layers if (layer.rotations if isinstance(layer, RotationLayer) else layer.terms)]


def blocks_of(rotations: Sequence[YRotation], most: int) -> list[list[YRotation]]:
    """Group rotations, at most `most` a block: those of a block act on different bits of one relabelled index."""
    left, blocks = _mixed(rotations), []
    while left:
        block: list[YRotation] = [left[0]]
        skipped: list[YRotation] = []
        for rotation in left[1:]:
            fits = len(block) < most and rotation.independent(block) and all(rotation.commutes(s) for s in skipped)
            (block if fits else skipped).append(rotation)
        blocks.append(block)
        left = skipped
    return blocks


def _mixed(rotations: Sequence[YRotation]) -> list[YRotation]:
    """Rotations that all commute, alternately from the first and the second half.

    Rows that are powers of two apart share a set of the nearest cache, which holds a dozen of them: a block of nothing
    but distant rows would throw out what it has just loaded.
    """
    if not all(a.commutes(b) for i, a in enumerate(rotations) for b in rotations[:i]):
        return list(rotations)
    half = (len(rotations) + 1) // 2
    mixed = [t for pair in zip(rotations[:half], rotations[half:], strict=False) for t in pair]
    return mixed + list(rotations[half - 1 : half]) if len(rotations) % 2 else mixed


def _add_phase(layers: list[Layer], mask: int, angle: Angle) -> None:
    for layer in reversed(layers):
        if isinstance(layer, PhaseLayer):
            layer.terms[mask] = layer.terms.get(mask, Angle()) + angle
            return
        if any(parity(mask & t.v) for t in layer.rotations):
            break
    layers.append(PhaseLayer({mask: angle}))


def _add_rotation(layers: list[Layer], rotation: YRotation) -> None:
    for layer in reversed(layers):
        if isinstance(layer, RotationLayer):
            for k in range(len(layer.rotations) - 1, -1, -1):
                old = layer.rotations[k]
                if (old.v, old.u) == (rotation.v, rotation.u):
                    layer.rotations[k] = YRotation(old.v, old.u, old.angle + rotation.angle)
                    return
                if not old.commutes(rotation):
                    break
            layer.rotations.append(rotation)
            return
        if any(parity(mask & rotation.v) for mask in layer.terms):
            break
    layers.append(RotationLayer([rotation]))


def _drop_leading_phases(layers: list[Layer]) -> None:
    """|0…0⟩ sees them as a global phase; so does what no rotation before has moved."""
    before: list[YRotation] = []
    for layer in layers:
        if isinstance(layer, RotationLayer):
            before += layer.rotations
        else:
            layer.terms = {m: a for m, a in layer.terms.items() if any(parity(m & t.v) for t in before)}


def _drop_trailing_phases(layers: list[Layer], directions: Sequence[int]) -> None:
    """PhaseLayer that commute with all that follows and with the measured operators cannot be seen."""
    after = list(directions)
    for layer in reversed(layers):
        if isinstance(layer, RotationLayer):
            after += [t.v for t in layer.rotations]
        else:
            layer.terms = {m: a for m, a in layer.terms.items() if any(parity(m & v) for v in after)}


# -- SU(2) factors as Z and Y rotations -------------------------------------------------------------------------------


def _zyz(factors: Sequence[Factor]) -> Iterator[tuple[str, Angle]]:
    """Factors as Z and Y rotations in order of time; runs of constants become one Z Y Z."""
    constants: list[tuple[tuple[float, float, float], float]] = []
    for axis, angle in factors:
        if angle.is_constant:
            constants.append((axis, angle.constant))
            continue
        yield from _constant_zyz(constants)
        constants = []
        nx, ny, nz = axis
        if abs(nz) == 1.0:
            yield "z", nz * angle
        elif abs(ny) == 1.0:
            yield "y", ny * angle
        elif nz == 0.0:  # RZ(φ) RY(angle) RZ(-φ)
            phi = math.atan2(-nx, ny)
            yield from (("z", as_angle(-phi)), ("y", angle), ("z", as_angle(phi)))
        else:  # RZ(φ) RY(ϑ) RZ(angle) RY(-ϑ) RZ(-φ)
            phi, polar = math.atan2(ny, nx), math.acos(max(-1.0, min(1.0, nz)))
            yield from (("z", as_angle(-phi)), ("y", as_angle(-polar)), ("z", angle), ("y", as_angle(polar)))
            yield "z", as_angle(phi)
    yield from _constant_zyz(constants)


def _constant_zyz(rotations: Sequence[tuple[tuple[float, float, float], float]]) -> Iterator[tuple[str, Angle]]:
    matrix = np.eye(2, dtype=complex)
    for (nx, ny, nz), angle in rotations:
        c, s = math.cos(angle / 2), math.sin(angle / 2)
        matrix = np.array([[c - 1j * s * nz, -s * (ny + 1j * nx)], [s * (ny - 1j * nx), c + 1j * s * nz]]) @ matrix
    # RZ(a) RY(t) RZ(b) = [[e^{-i(a+b)/2} cos(t/2), …], [e^{i(a-b)/2} sin(t/2), …]]
    tilt = 2 * math.atan2(abs(matrix[1, 0]), abs(matrix[0, 0]))
    total = -2 * cmath.phase(matrix[0, 0]) if abs(matrix[0, 0]) > 1e-12 else 0.0
    difference = 2 * cmath.phase(matrix[1, 0]) if abs(matrix[1, 0]) > 1e-12 else 0.0
    if abs(matrix[0, 0]) <= 1e-12:  # only the difference counts: RZ(a) RY(π) = RY(π) RZ(-a)
        total = difference
    if abs(matrix[1, 0]) <= 1e-12:
        difference = total
    angles = (("z", (total - difference) / 2), ("y", tilt), ("z", (total + difference) / 2))
    for axis, angle in angles:
        if abs(math.remainder(angle, 2 * math.pi)) > 1e-12:
            yield axis, as_angle(angle)
