"""Measurements: what is read from the final state.

Expectation values are weighted sums of Pauli strings; probabilities are sums over basis states. Each measurement is
a frozen value that knows its number of outputs before anything runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

from ..errors import SpecError
from .circuit import whole_number

__all__ = ["Expectation", "Measurement", "Observable", "Pauli", "Probabilities", "as_measurement"]


@dataclass(frozen=True)
class Observable:
    """A real weighted sum of Pauli strings: `Pauli("ZZI") + 0.5 * Pauli("IXX")`.

    Attributes:
        terms: `(string, coefficient)` pairs; letter q of a string acts on qubit q.
    """

    terms: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        """Check strings and coefficients."""
        sizes = set()
        for string, coefficient in self.terms:
            if not isinstance(string, str) or not string or set(string) - set("IXYZ"):
                raise SpecError(
                    f'a Pauli string has letters I, X, Y, Z, one per qubit, as in "ZZI"; received {string!r}.'
                )
            if not math.isfinite(coefficient):
                raise SpecError(f"the coefficient of a Pauli string must be finite, received {coefficient!r}.")
            sizes.add(len(string))
        if len(sizes) != 1:
            raise SpecError(f"an observable has Pauli strings of one length, at least one; received {self.terms!r}.")

    @property
    def n_qubits(self) -> int:
        """Length of the strings."""
        return len(self.terms[0][0])

    def __add__(self, other: Observable) -> Observable:
        if not isinstance(other, Observable):
            return NotImplemented
        if other.n_qubits != self.n_qubits:
            raise SpecError(
                f"observables on {self.n_qubits} and {other.n_qubits} qubits do not add. Pad the shorter string with I."
            )
        total: dict[str, float] = dict(self.terms)
        for string, coefficient in other.terms:
            total[string] = total.get(string, 0.0) + coefficient
        return Observable(tuple(total.items()))

    def __mul__(self, factor: float) -> Observable:
        if not isinstance(factor, Real):
            return NotImplemented
        return Observable(tuple((s, c * float(factor)) for s, c in self.terms))

    def __neg__(self) -> Observable:
        return self * -1.0

    def __sub__(self, other: Observable) -> Observable:
        return self + (-other)

    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join(s if c == 1 else f"{c:.6g}*{s}" for s, c in self.terms).replace("+ -", "- ")


def Pauli(string: str, coefficient: float = 1.0) -> Observable:  # noqa: N802 - reads as the value it makes
    """One Pauli string, letter q on qubit q.

    Example:
        >>> print(0.5 * Pauli("ZZI") - Pauli("IXX"))
        0.5*ZZI - 1*IXX
    """
    return Observable(((string.upper() if isinstance(string, str) else string, float(coefficient)),))


@dataclass(frozen=True)
class Expectation:
    """Expectation values of Pauli operators.

    Attributes:
        bases: Single-qubit bases, measured on every qubit in `qubits`; outputs are basis-major. Empty where
            `observables` is given.
        qubits: Qubits measured; None for all.
        observables: One output per observable instead of `bases`.
    """

    bases: tuple[str, ...] = ("Z",)
    qubits: tuple[int, ...] | None = None
    observables: tuple[Observable, ...] = ()

    def __post_init__(self) -> None:
        """Normalise and check the bases."""
        if self.observables:
            given = (self.observables,) if isinstance(self.observables, Observable) else tuple(self.observables)
            if not all(isinstance(o, Observable) for o in given):
                raise SpecError(f"observables are Pauli(...) and sums of them, received {self.observables!r}.")
            object.__setattr__(self, "bases", ())
            object.__setattr__(self, "observables", given)
            return
        bases = (self.bases,) if isinstance(self.bases, str) else self.bases
        try:
            bases = tuple(str(b).upper() for b in bases)
        except TypeError:
            bases = ()
        if not bases or set(bases) - set("XYZ") or len(set(bases)) != len(bases):
            raise SpecError(
                f'measurement_bases is "Z" or a sequence of different bases such as ("Z", "X", "Y"), '
                f"received {self.bases!r}.",
                argument="measurement_bases",
            )
        object.__setattr__(self, "bases", bases)
        if self.qubits is not None:
            object.__setattr__(self, "qubits", tuple(int(q) for q in self.qubits))

    def n_outputs(self, n_qubits: int) -> int:
        """Outputs per sample."""
        if self.observables:
            return len(self.observables)
        return len(self.bases) * (n_qubits if self.qubits is None else len(self.qubits))

    def as_observables(self, n_qubits: int) -> tuple[Observable, ...]:
        """One observable per output, in order."""
        if self.observables:
            return self.observables
        qubits = range(n_qubits) if self.qubits is None else self.qubits
        return tuple(Pauli("I" * q + basis + "I" * (n_qubits - q - 1)) for basis in self.bases for q in qubits)

    def check(self, n_qubits: int) -> None:
        """Raise where it does not fit `n_qubits`."""
        for observable in self.observables:
            for string, _ in observable.terms:
                if len(string) != n_qubits:
                    raise SpecError(
                        f"Pauli string {string!r} has {len(string)} letters, the circuit has {n_qubits} qubits. "
                        "Write one letter per qubit, I where nothing is measured."
                    )
        _check_qubits(self.qubits, n_qubits)


@dataclass(frozen=True)
class Probabilities:
    """Probabilities of basis states (Born rule); they sum to 1.

    Attributes:
        qubits: Qubits measured, most significant first; None for all. The others are traced out.
        n_classes: Sum the probabilities of all bitstrings with equal index modulo `n_classes`; None for one output
            per bitstring.
    """

    qubits: tuple[int, ...] | None = None
    n_classes: int | None = None

    def __post_init__(self) -> None:
        """Normalise and check."""
        if self.qubits is not None:
            object.__setattr__(self, "qubits", tuple(int(q) for q in self.qubits))
        if self.n_classes is not None:
            k = whole_number(self.n_classes)
            if k is None or k < 1:
                raise SpecError(
                    f"n_classes is a whole number of at least 1, received {self.n_classes!r}.", argument="n_classes"
                )
            object.__setattr__(self, "n_classes", k)

    def n_outputs(self, n_qubits: int) -> int:
        """Outputs per sample."""
        return self.n_classes or 1 << (n_qubits if self.qubits is None else len(self.qubits))

    def check(self, n_qubits: int) -> None:
        """Raise where it does not fit `n_qubits`."""
        _check_qubits(self.qubits, n_qubits)
        measured = n_qubits if self.qubits is None else len(self.qubits)
        if self.n_classes is not None and self.n_classes > 1 << measured:
            need = max(1, (self.n_classes - 1).bit_length())
            raise SpecError(
                f"{measured} qubit(s) have {1 << measured} basis states, too few for n_classes={self.n_classes}. "
                f"Use at least {need} qubits.",
                argument="n_classes",
            )


Measurement: TypeAlias = Expectation | Probabilities


def _check_qubits(qubits: tuple[int, ...] | None, n_qubits: int) -> None:
    if qubits is not None and (
        not qubits or len(set(qubits)) != len(qubits) or not all(0 <= q < n_qubits for q in qubits)
    ):
        raise SpecError(f"measured qubits must be different and from 0 to {n_qubits - 1}, received {qubits}.")


def as_measurement(value: Any) -> Measurement:
    """A measurement as an object, or observables as an `Expectation` of them."""
    if isinstance(value, Expectation | Probabilities):
        return value
    if isinstance(value, Observable):
        return Expectation(observables=(value,))
    if isinstance(value, Iterable) and not isinstance(value, str):
        items = tuple(value)
        if items and all(isinstance(item, Observable) for item in items):
            return Expectation(observables=items)
    raise SpecError(
        f"a measurement is Expectation(...), Probabilities(...), or Pauli observables; received {value!r}.",
        argument="measurement",
    )
