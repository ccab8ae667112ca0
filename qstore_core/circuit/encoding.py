"""Encodings: how the features of a sample enter the circuit.

`Amplitude` makes the features the start state; the others make them gate angles. Each is a frozen value with a name
("amplitude", "angle", "basis", "iqp", "zz") and is accepted by name or as an object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError, SpecError, nearest
from .angle import Angle
from .circuit import Circuit, whole_number

__all__ = [
    "IQP",
    "ZZ",
    "Amplitude",
    "AngleEncoding",
    "Basis",
    "Encoding",
    "as_encoding",
    "check_finite",
    "unit_rows",
    "unit_rows_and_vjp",
    "unit_rows_of_array",
]


@dataclass(frozen=True)
class Encoding:
    """Base of the encodings."""

    name: ClassVar[str] = ""
    is_amplitude: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True  # with respect to the features

    def n_features(self, n_qubits: int) -> int:
        """Features per sample; for amplitude encoding the most it takes."""
        return n_qubits

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """Append the encoding gates, with one slot per feature in `x`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Amplitude(Encoding):
    """Features, L2-normalised and zero-padded, are the amplitudes of the start state.

    A row of zeros encodes to |0…0⟩ and has zero input gradient.

    Source:
        Schuld & Petruccione, Supervised Learning with Quantum Computers, section 5.2.
    """

    name: ClassVar[str] = "amplitude"
    is_amplitude: ClassVar[bool] = True

    def n_features(self, n_qubits: int) -> int:
        """At most 2**n_qubits."""
        return 1 << n_qubits

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """Nothing: the start state holds the features."""


@dataclass(frozen=True)
class AngleEncoding(Encoding):
    """R_axis(x_i) on qubit i; features in radians.

    Args:
        axis: "x", "y" (default) or "z".
    """

    axis: str = "y"
    name: ClassVar[str] = "angle"

    def __post_init__(self) -> None:
        """Check the axis."""
        if self.axis not in ("x", "y", "z"):
            raise SpecError(f'axis of angle encoding is "x", "y" or "z", received {self.axis!r}.', argument="axis")

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """One rotation per qubit."""
        for qubit, slot in enumerate(x):
            circuit.append(f"r{self.axis}", (qubit,), (slot,))


@dataclass(frozen=True)
class Basis(Encoding):
    """Bits select the start state: RY(π x_i) on qubit i, with features exactly 0 or 1.

    Bits have no derivative: gradients for the inputs are refused.
    """

    name: ClassVar[str] = "basis"
    differentiable: ClassVar[bool] = False

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """RY(π) takes |0⟩ to |1⟩ without a phase."""
        for qubit, slot in enumerate(x):
            circuit.append("ry", (qubit,), (math.pi * slot,))


@dataclass(frozen=True)
class IQP(Encoding):
    """Instantaneous quantum polynomial: H, RZ(x_i), then exp(-i x_i x_j ZZ/2) on every pair.

    Args:
        repeats: How often the block is applied.

    Source:
        Shepherd & Bremner, arXiv:0809.0847; Havlíček et al., arXiv:1804.11326.
    """

    repeats: int = 1
    name: ClassVar[str] = "iqp"

    def __post_init__(self) -> None:
        """Check the number of repeats."""
        _check_repeats(self.repeats)

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """`repeats` blocks."""
        for _ in range(self.repeats):
            for qubit, slot in enumerate(x):
                circuit.append("h", (qubit,))
                circuit.append("rz", (qubit,), (slot,))
            for i in range(len(x)):
                for j in range(i + 1, len(x)):
                    circuit.append("rzz", (i, j), (x[i] * x[j],))


@dataclass(frozen=True)
class ZZ(Encoding):
    """ZZ feature map: H, P(2 x_i), then CNOT · P(2 (π - x_i)(π - x_j)) · CNOT on every pair.

    Args:
        repeats: How often the block is applied.

    Source:
        Havlíček et al., arXiv:1804.11326, as in Qiskit's `ZZFeatureMap`.
    """

    repeats: int = 2
    name: ClassVar[str] = "zz"

    def __post_init__(self) -> None:
        """Check the number of repeats."""
        _check_repeats(self.repeats)

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """`repeats` blocks."""
        for _ in range(self.repeats):
            for qubit, slot in enumerate(x):
                circuit.append("h", (qubit,))
                circuit.append("p", (qubit,), (2 * slot,))
            for i in range(len(x)):
                for j in range(i + 1, len(x)):
                    circuit.append("cnot", (i, j))
                    circuit.append("p", (j,), (2 * (math.pi - x[i]) * (math.pi - x[j]),))
                    circuit.append("cnot", (i, j))


def _check_repeats(repeats: Any) -> None:
    if (whole_number(repeats) or 0) < 1:
        raise SpecError(f"repeats is a whole number of at least 1, received {repeats!r}.", argument="repeats")


_BY_NAME: dict[str, type[Encoding]] = {c.name: c for c in (Amplitude, AngleEncoding, Basis, IQP, ZZ)}


def as_encoding(value: Any) -> Encoding:
    """An encoding by name or as an object.

    Example:
        >>> as_encoding("angle")
        AngleEncoding(axis='y')
    """
    if isinstance(value, Encoding):
        return value
    if isinstance(value, str) and value in _BY_NAME:
        return _BY_NAME[value]()
    if isinstance(value, Mapping) and value.get("name") in _BY_NAME:  # the form in a saved configuration
        return _BY_NAME[value["name"]](**{k: v for k, v in value.items() if k != "name"})
    raise SpecError(
        f"no encoding {value!r}. Known: {', '.join(_BY_NAME)}.{nearest(str(value), _BY_NAME)}",
        argument="encoding",
    )


def unit_rows(ops: Any, x: Any, width: int) -> Any:
    """Amplitude encoding in any array namespace: `x` (B, F ≤ width) → unit rows (B, width).

    Rows are scaled by their largest magnitude first, so that neither tiny nor huge features overflow when squared.
    A zero row becomes |0…0⟩ by a constant, which has no gradient.
    """
    return unit_rows_and_vjp(ops, x, width)[0]


def unit_rows_and_vjp(ops: Any, x: Any, width: int) -> tuple[Any, Callable[[Any], Any]]:
    """The same, and its vjp: the projection off the unit row, over the norm."""
    scale = ops.max_abs(x)  # a constant for the gradient: the result does not depend on it
    zero = ops.is_zero(scale)
    y = ops.pad_last(x / (scale + zero), width)
    norm = ops.sqrt(ops.sum(y * y, -1, True) + zero)
    live = 1.0 - zero
    y = y / norm * live
    features = x.shape[-1]

    def pull(d_unit: Any) -> Any:
        inner = ops.sum(y * d_unit, -1, True)
        rest = d_unit - inner * y
        return rest[:, :features] * (live / (norm * (scale + zero)))

    return y + zero * ops.const(_first(width), x), pull


@lru_cache(maxsize=32)
def _first(width: int) -> np.ndarray:
    first = np.zeros((1, width))
    first[0, 0] = 1.0
    first.setflags(write=False)
    return first


def check_finite(rows: np.ndarray, name: str) -> None:
    """Raise `InputError` for features of layer `name` that are not finite."""
    if not np.isfinite(rows).all():
        row, column = (int(k) for k in np.argwhere(~np.isfinite(rows))[0])
        raise InputError(
            f"{name}: row {row} has {rows[row, column]} in feature {column}; finite numbers are expected. "
            "Check the layers and the data before it.",
            row=row,
            column=column,
            value=float(rows[row, column]),
        )


def unit_rows_of_array(x: np.ndarray, width: int, name: str) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """NumPy form of `unit_rows_and_vjp` for layer `name`; refuses NaN and infinity."""
    count, features = x.shape
    scale = np.abs(x).max(axis=1, keepdims=True, initial=0.0)
    if not np.isfinite(scale).all():
        check_finite(x, name)
    zero = scale == 0.0
    unit = np.zeros((count, width), x.dtype)
    head = unit[:, :features]
    np.divide(x, np.where(zero, 1.0, scale).astype(x.dtype), out=head)
    norm = np.sqrt(np.einsum("ij,ij->i", head, head)[:, None])
    norm[zero] = 1.0
    head /= norm
    unit[zero[:, 0], 0] = 1.0
    length = np.where(zero, np.inf, scale.astype(np.float64) * norm)  # ∞: a zero row has no gradient

    def pull(d_unit: np.ndarray) -> np.ndarray:
        inner = np.einsum("ij,ij->i", unit, d_unit)[:, None]
        return ((d_unit[:, :features] - inner * unit[:, :features]) / length).astype(x.dtype, copy=False)

    return unit, pull
