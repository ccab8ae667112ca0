"""Gates of users: what is checked before one joins the gate table."""

from __future__ import annotations

import math
import re
from functools import partial

import numpy as np

from ...errors import SpecError
from ..checks import shown, whole_number
from .table import ALIASES, GATES, SHIFT_RULES, AxisRotation, Cnot, Gate, multiplied_out

__all__ = ["add_gate", "check_numbers", "module_of", "remove_gate"]

_modules: dict[str, str] = {}  # gates of users → where they come from


def module_of(name: str) -> str:
    """The module that a user's gate comes from; "" for ours."""
    return _modules.get(name, "")


def add_gate(entry: Gate) -> None:
    """Check an entry and add it to the table.

    Raises:
        SpecError: the name is taken, or matrix, decomposition and shift rule do not agree.
    """
    if not isinstance(entry, Gate):
        raise SpecError(f"register_gate takes a Gate(...), received {shown(entry)}.")
    name, n, k = entry.name, whole_number(entry.n_qubits), whole_number(entry.n_params)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SpecError(f"a gate's name has small letters, digits and '_', received {shown(name)}.")
    if name in GATES or name in ALIASES:
        raise SpecError(f"a gate named {name!r} exists already. Choose another name.")
    if n is None or k is None or not 1 <= n <= 8 or not 0 <= k <= 16 or not 0 <= entry.controls < n:
        raise SpecError(f"gate {name!r}: 1 to 8 qubits, fewer of them controls, and 0 to 16 angles are expected.")
    for step in entry.steps:
        qubits = (step.control, step.target) if isinstance(step, Cnot) else (step.qubit,)
        if len(set(qubits)) != len(qubits) or not all(whole_number(q) is not None and 0 <= q < n for q in qubits):
            raise SpecError(f"gate {name!r}: {step} is on qubits that a gate of {n} does not have.")
        if isinstance(step, AxisRotation):
            if not math.isclose(math.hypot(*step.axis), 1.0):
                raise SpecError(f"gate {name!r}: the axis of {step} is no unit vector.")
            if len(step.coefficients) > k:
                raise SpecError(f"gate {name!r}: {step} has more coefficients than the gate has angles, {k}.")
    if k and entry.shift not in SHIFT_RULES:
        raise SpecError(f"gate {name!r}: shift is one of {', '.join(SHIFT_RULES)}, received {shown(entry.shift)}.")
    check_numbers(entry)
    GATES[name] = entry
    _modules[name] = getattr(entry.matrix, "__module__", "") or "__main__"


def remove_gate(name: str) -> None:
    """Remove what `add_gate` added."""
    if name not in _modules:
        raise SpecError(f"no gate {shown(name)} was registered in this process.")
    del GATES[name], _modules[name]


_AGREEMENT = 1e-9  # of matrices at random angles, and of slopes


def check_numbers(entry: Gate) -> None:
    """Matrix, decomposition and shift rule against each other, at random angles."""
    rng = np.random.default_rng(0)
    size, what = 1 << entry.n_qubits, f"gate {entry.name!r}"
    for _ in range(3):
        angles = rng.uniform(-3, 3, entry.n_params)
        matrix = np.asarray(entry.matrix(*angles), complex)
        if matrix.shape != (size, size) or np.abs(matrix @ matrix.conj().T - np.eye(size)).max() > _AGREEMENT:
            raise SpecError(f"{what}: its matrix at angles {angles.tolist()} is not unitary of shape {(size, size)}.")
        product = multiplied_out(entry, angles)
        phase = np.vdot(product, matrix) / size
        if np.abs(phase * product - matrix).max() > _AGREEMENT:
            raise SpecError(f"{what}: its steps are not its matrix, at angles {angles.tolist()}.")
        half = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
        psi = rng.normal(size=size) + 1j * rng.normal(size=size)
        psi /= np.linalg.norm(psi)

        value = partial(_expectation, entry, psi, half + half.conj().T)
        for k in range(entry.n_params):
            unit = np.eye(entry.n_params)[k]
            slope = sum(c * value(angles + shift * unit) for shift, c in SHIFT_RULES[entry.shift])
            stencil = ((1, 45), (-1, -45), (2, -9), (-2, 9), (3, 1), (-3, -1))
            difference = sum(c * value(angles + 1e-2 * j * unit) for j, c in stencil) / 0.6
            if abs(slope - difference) > 1e-6 * size:  # the stencil is exact to the sixth power of its step
                raise SpecError(
                    f"{what}: the {entry.shift} rule gives another slope by its angle number {k} than its matrix. "
                    "Rotations exp(-i angle P/2) of a Pauli string P have the two-term rule, controlled ones the "
                    "four-term rule."
                )


def _expectation(entry: Gate, psi: np.ndarray, observable: np.ndarray, angles: np.ndarray) -> float:
    out = np.asarray(entry.matrix(*angles), complex) @ psi
    return float(np.vdot(out, observable @ out).real)
