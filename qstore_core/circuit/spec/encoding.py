"""Encodings: how the features of a sample enter the circuit.

`Amplitude` makes the features the start state; the others make them gate angles. Each is a frozen value with a name
("amplitude", "angle", "basis", "iqp", "zz") and is accepted by name or as an object. `register_encoding` adds one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from ...errors import InputError, SpecError
from ..angles.angle import Angle
from ..checks import MAX_OPERATIONS, MAX_QUBITS, check_choice, check_items, check_whole, shown
from ..circuit import Circuit
from ..component import Component, Registry

__all__ = [
    "ENCODINGS",
    "IQP",
    "SHORT",
    "ZZ",
    "Amplitude",
    "AngleEncoding",
    "Basis",
    "Encoding",
    "as_encoding",
    "check_finite",
    "long_sum",
    "register_encoding",
    "unit_rows",
    "unit_rows_and_vjp",
    "unregister_encoding",
]


@dataclass(frozen=True)
class Encoding(Component):
    """Base of the encodings. One of a user derives from it and has `append`.

    Attributes:
        is_amplitude: The features are the start state.
        differentiable: Features have a gradient.

    Example:
        >>> import qstore_core
        >>> @qstore_core.register_encoding
        ... @dataclass(frozen=True)
        ... class Pairs(Encoding):  # two features per qubit
        ...     name = "example_pairs"
        ...     def n_features(self, n_qubits):
        ...         return 2 * n_qubits
        ...     def append(self, circuit, x):
        ...         for qubit in range(circuit.n_qubits):
        ...             circuit.ry(x[2 * qubit], qubit)
        ...             circuit.rz(x[2 * qubit + 1], qubit)
        >>> qstore_core.QuantumFeatureExtractor(2, encoding="example_pairs").spec.n_features
        4
        >>> qstore_core.unregister_encoding("example_pairs")
    """

    is_amplitude: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        """What eager calls refuse must not become numbers in graphs."""
        super().__init_subclass__(**arguments)
        if cls.validate is not Encoding.validate and cls.nan_where_invalid is Encoding.nan_where_invalid:
            raise SpecError(
                f"{cls.__name__} refuses features in validate, and graphs, which refuse nothing, would compute with "
                "them. Define nan_where_invalid(self, ops, x) too: x, with NaN in the place of what is refused."
            )

    def n_features(self, n_qubits: int) -> int:
        """Features per sample; for amplitude encoding the most it takes."""
        return n_qubits

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """Append the encoding gates, with one slot per feature in `x`."""
        raise NotImplementedError

    def n_operations(self, n_qubits: int) -> int:
        """How many gates `append` makes, or a number below: sizes are looked at before anything is built."""
        return 0

    def validate(self, rows: np.ndarray, name: str) -> None:
        """Raise `InputError` for features (B, F) of layer `name` that cannot be encoded."""
        check_finite(rows, name)

    def nan_where_invalid(self, ops: Any, x: Any) -> Any:
        """Features in a framework's array functions (`engines.arrays.ops.Ops`); NaN where `validate` refuses a number.

        A graph can refuse nothing: NaN outputs are what it gives instead.
        """
        return x

    @property
    def checks_values(self) -> bool:
        """True where it refuses more than what is not finite, so that values must be looked at."""
        return type(self).validate is not Encoding.validate

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `as_encoding` takes it back."""
        return ENCODINGS.to_dict(self)


ENCODINGS: Registry[Encoding] = Registry("encoding", Encoding, ("append",))


def register_encoding(cls: type[Encoding]) -> type[Encoding]:
    """Decorator: an encoding of yours, by its name from now on, also in saved layers. See `Encoding`."""
    return ENCODINGS.register(cls)


def unregister_encoding(name: str) -> None:
    """Remove what `register_encoding` added."""
    ENCODINGS.unregister(name)


@dataclass(frozen=True)
class Amplitude(Encoding):
    """Features, L2-normalised and zero-padded, are the amplitudes of the start state.

    A row of zeros encodes to |0…0⟩ and has zero input gradient.

    Args:
        qubits: Those that the amplitudes are of, most significant first; the others start in |0⟩. None for all.

    Example:
        >>> Amplitude((0, 2)).n_features(5)
        4

    Source:
        Schuld & Petruccione, Supervised Learning with Quantum Computers, section 5.2.
    """

    qubits: tuple[int, ...] | None = None
    name: ClassVar[str] = "amplitude"
    is_amplitude: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the qubits, as far as it goes without their number."""
        if self.qubits is None:
            return
        items = check_items(self.qubits, "qubits of amplitudes", MAX_QUBITS, "qubits")
        where = tuple(check_whole(q, "a qubit of amplitudes", 0, MAX_QUBITS - 1, "qubits") for q in items)
        if not where or len(set(where)) != len(where):
            raise SpecError(f"qubits of amplitudes are different, at least one; received {shown(items)}.")
        object.__setattr__(self, "qubits", where)

    def n_features(self, n_qubits: int) -> int:
        """At most 2 to the number of its qubits."""
        if self.qubits is None:
            return 1 << n_qubits
        check_whole(max(self.qubits), "a qubit of amplitudes", 0, n_qubits - 1, "qubits")
        return 1 << len(self.qubits)

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """Swaps, which cost nothing: features that are fewer than all amplitudes are those of the last qubits."""
        if self.qubits is None:
            return
        at = list(range(circuit.n_qubits - len(self.qubits), circuit.n_qubits))
        for k, qubit in enumerate(self.qubits):
            if at[k] != qubit:
                circuit.append("swap", (at[k], qubit))
                at = [at[k] if place == qubit else place for place in at]


@dataclass(frozen=True)
class AngleEncoding(Encoding):
    """R_axis(x_i) on qubit i; features in radians.

    Args:
        axis: "x", "y" (default) or "z".

    Source:
        Schuld & Petruccione, Supervised Learning with Quantum Computers; the same as PennyLane's `AngleEmbedding`.
    """

    axis: str = "y"
    name: ClassVar[str] = "angle"

    def __post_init__(self) -> None:
        check_choice(self.axis, "axis of angle encoding", ("x", "y", "z"), "axis")

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """One rotation per qubit."""
        for qubit, slot in enumerate(x):
            circuit.append(f"r{self.axis}", (qubit,), (slot,))


@dataclass(frozen=True)
class Basis(Encoding):
    """A bit of 1 applies X: RX(π x_i) on qubit i, with features exactly 0 or 1. RX(π) is X but for a global phase.

    Bits have no derivative: gradients for the inputs are refused.
    """

    name: ClassVar[str] = "basis"
    differentiable: ClassVar[bool] = False

    def append(self, circuit: Circuit, x: Sequence[Angle]) -> None:
        """One X, or none, per qubit."""
        for qubit, slot in enumerate(x):
            circuit.append("rx", (qubit,), (math.pi * slot,))

    def validate(self, rows: np.ndarray, name: str) -> None:
        """Refuse what is not a bit."""
        bad = (rows != 0) & (rows != 1)
        if not bad.any():
            return
        check_finite(rows, name)
        row, column = (int(k) for k in np.argwhere(bad)[0])
        raise InputError(
            f"{name}: basis encoding takes bits 0 and 1, row {row} has {rows[row, column]} in feature {column}.",
            row=row,
            column=column,
            value=float(rows[row, column]),
        )

    def nan_where_invalid(self, ops: Any, x: Any) -> Any:
        """0/0 where x is not a bit."""
        least = ops.smallest_normal(x)
        bit = sum(ops.is_below(x - k, least) * ops.is_below(k - x, least) for k in (0.0, 1.0))
        return x * (bit / bit)


@dataclass(frozen=True)
class IQP(Encoding):
    """Instantaneous quantum polynomial: H, RZ(x_i), then exp(-i x_i x_j ZZ/2) on every pair.

    Args:
        repeats: How often the block is applied.

    Source:
        Shepherd & Bremner, arXiv:0809.0847; Havlíček et al., arXiv:1804.11326; the same as PennyLane's `IQPEmbedding`.
    """

    repeats: int = 1
    name: ClassVar[str] = "iqp"

    def __post_init__(self) -> None:
        _check_repeats(self)

    def n_operations(self, n_qubits: int) -> int:
        """H and RZ per qubit, one gate per pair."""
        return self.repeats * (2 * n_qubits + n_qubits * (n_qubits - 1) // 2)

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
        _check_repeats(self)

    def n_operations(self, n_qubits: int) -> int:
        """H and P per qubit, three gates per pair."""
        return self.repeats * (2 * n_qubits + 3 * (n_qubits * (n_qubits - 1) // 2))

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


def _check_repeats(encoding: IQP | ZZ) -> None:
    repeats = check_whole(encoding.repeats, "repeats", 1, MAX_OPERATIONS, "repeats")
    object.__setattr__(encoding, "repeats", repeats)


ENCODINGS.add(Amplitude, AngleEncoding, Basis, IQP, ZZ)


def as_encoding(value: Any) -> Encoding:
    """An encoding by name, as an object or in its saved form.

    Example:
        >>> as_encoding("angle")
        AngleEncoding(axis='y')
    """
    if isinstance(value, Encoding):
        return value
    if isinstance(value, Mapping):
        return ENCODINGS.from_dict(value)
    cls = ENCODINGS.named(value)
    return ENCODINGS.from_dict({"name": cls.name})


SHORT = 1 << 6
"""Terms summed in their own precision. Sums of many are sums of such sums, in double precision: float32 terms added one
by one lose a bit for every factor of four in their number."""


def long_sum(ops: Any, x: Any) -> Any:
    """Sum over the last axis in any array namespace; its length is a power of two, or at most `SHORT`."""
    length, lead = x.shape[-1], tuple(-1 if k is None else k for k in x.shape[:-1])
    if length <= SHORT:
        return ops.sum(x, -1)
    parts = ops.sum(ops.reshape(x, (*lead, length // SHORT, SHORT)), -1)
    return ops.narrow(ops.sum(ops.wide(parts), -1), x)


def unit_rows(ops: Any, x: Any, width: int) -> Any:
    """Amplitude encoding in any array namespace: `x` (B, F ≤ width) → unit rows (B, width).

    Rows are scaled by their largest magnitude first, so that neither tiny nor huge features overflow when squared.
    A row of zeros becomes |0…0⟩ by a constant, which has no gradient. Features below the smallest normal number count
    as zeros: some processors and compilers take them for that, and others do not.
    """
    return unit_rows_and_vjp(ops, x, width)[0]


def unit_rows_and_vjp(ops: Any, x: Any, width: int) -> tuple[Any, Callable[[Any], Any]]:
    """The same, and its vjp: the projection off the unit row, over the norm."""
    x = ops.without_subnormals(x)
    largest, least = ops.max_abs(x), ops.smallest_normal(x)  # a constant for the gradient: the result does not depend
    zero = ops.is_below(largest, least)
    # Twice by the root of the scale, whose inverse is a normal number where 1 / scale may be none: by a product and a
    # division, since compilers put two products together.
    root = ops.sqrt(ops.maximum(largest, least))
    inverse = (1.0 - zero) / root
    y = ops.pad_last(x * inverse / root, width)
    norm = ops.sqrt(ops.reshape(long_sum(ops, y * y), (-1, 1)) + zero)
    y = y / norm
    features = x.shape[-1]

    def vjp_fn(d_unit: Any) -> Any:
        rest = d_unit - ops.reshape(long_sum(ops, y * d_unit), (-1, 1)) * y
        return rest[:, :features] * (inverse / norm) / root

    return y + zero * ops.const(_first(width), x), vjp_fn


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
