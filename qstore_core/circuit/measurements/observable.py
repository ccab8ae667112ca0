"""Observables: real weighted sums of Pauli strings, with the algebra that people write."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Complex, Real
from typing import Any

from ...errors import SpecError
from ..checks import MAX_OPERATIONS, MAX_QUBITS, check_finite_number, check_items, shown

__all__ = ["Observable", "Pauli", "symmetrised"]

# Products of different letters: (letter, power of i).
_CYCLE = {"XY": ("Z", 1), "YZ": ("X", 1), "ZX": ("Y", 1), "YX": ("Z", 3), "ZY": ("X", 3), "XZ": ("Y", 3)}
_MOST_PAIRS = 1_000_000  # of strings that one product multiplies
_ROUNDING = 1e-12  # of what cancels in a product, relative to the terms


@dataclass(frozen=True, eq=False)
class Observable:
    """A real weighted sum of Pauli strings.

    `+`, `-`, `*` and `/` by numbers, `@` for the product of operators, and `sum([...])`. A number is that multiple of
    the identity. Equal are observables that are the same operator.

    Attributes:
        terms: `(string, coefficient)` pairs, each string once; letter q of a string acts on qubit q.

    Example:
        >>> print(0.5 * Pauli("ZZI") - Pauli("IXX") / 4 + 1)
        0.5*ZZI - 0.25*IXX + III
        >>> print(Pauli("ZI") @ Pauli("IZ"))
        ZZ
        >>> sum([Pauli("Z"), Pauli("X")]) == Pauli("X") + Pauli("Z")
        True
    """

    terms: tuple[tuple[str, float], ...]

    __array_ufunc__ = None  # `np.float64(2) * observable` is the observable's to compute

    def __post_init__(self) -> None:
        """Check strings and coefficients; terms of one string add up."""
        total: dict[str, float] = {}
        for term in check_items(self.terms, "the terms of an observable", MAX_OPERATIONS):
            pair = check_items(term, 'a term of an observable, as in ("ZZI", 0.5)', 2)
            if len(pair) != 2:
                raise SpecError(f'a term of an observable is a pair, as in ("ZZI", 0.5); received {shown(term)}.')
            string, coefficient = pair
            if not isinstance(string, str) or not 1 <= len(string) <= MAX_QUBITS or set(string) - set("IXYZ"):
                raise SpecError(
                    f'a Pauli string has letters I, X, Y, Z, one per qubit, as in "ZZI"; received {shown(string)}.'
                )
            number = _coefficient(coefficient)
            total[string] = total[string] + number if string in total else number
        if len({len(string) for string in total}) != 1:
            raise SpecError(
                f"an observable has Pauli strings of one length, at least one; received {shown(self.terms)}."
            )
        for number in total.values():
            _coefficient(number)
        object.__setattr__(self, "terms", tuple(total.items()))

    @property
    def n_qubits(self) -> int:
        """Length of the strings."""
        return len(self.terms[0][0])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Observable):
            return NotImplemented
        return self.n_qubits == other.n_qubits and self._nonzero() == other._nonzero()

    def __hash__(self) -> int:
        return hash((self.n_qubits, self._nonzero()))

    def _nonzero(self) -> frozenset[tuple[str, float]]:
        return frozenset(term for term in self.terms if term[1] != 0.0)

    def __add__(self, other: Any) -> Observable:
        if isinstance(other, Observable):
            self._check_size(other)
            return Observable(self.terms + other.terms)
        if not isinstance(other, Complex):
            return NotImplemented
        number = _coefficient(other)
        return Observable((*self.terms, ("I" * self.n_qubits, number))) if number else self

    def __mul__(self, factor: Any) -> Observable:
        if isinstance(factor, Observable):
            raise SpecError("* takes a number; the product of two observables is written a @ b.")
        if not isinstance(factor, Complex):
            return NotImplemented
        number = _coefficient(factor)
        return Observable(tuple((s, c * number) for s, c in self.terms))

    def __truediv__(self, divisor: Any) -> Observable:
        if not isinstance(divisor, Complex):
            return NotImplemented
        number = _coefficient(divisor)
        if number == 0.0:
            raise SpecError(f"an observable cannot be divided by zero: ({self}) / {divisor!r}.")
        return Observable(tuple((s, c / number) for s, c in self.terms))

    def __matmul__(self, other: Any) -> Observable:
        if not isinstance(other, Observable):
            return NotImplemented
        for string, (factor, scale) in (products := self._products(other)).items():
            if abs(factor.imag) > _ROUNDING * scale:
                raise SpecError(
                    f"({self}) @ ({other}) is no observable: its coefficient of {string} would be {factor:g}. Only "
                    "products that are Hermitian can be measured."
                )
        return Observable(tuple((string, factor.real) for string, (factor, _) in products.items()))

    def _products(self, other: Observable) -> dict[str, tuple[complex, float]]:
        """The product of operators: per string its coefficient, and what rounding of it is relative to."""
        self._check_size(other)
        if (pairs := len(self.terms) * len(other.terms)) > _MOST_PAIRS:
            raise SpecError(
                f"a product of {len(self.terms)} and {len(other.terms)} Pauli strings has {pairs} terms to add up; at "
                f"most {_MOST_PAIRS} are."
            )
        total: dict[str, tuple[complex, float]] = {}
        for a, c in self.terms:
            for b, d in other.terms:
                letters = [_product(*pair) for pair in zip(a, b, strict=True)]
                string = "".join(letter for letter, _ in letters)
                factor, scale = total.get(string, (0j, 0.0))
                factor += (1, 1j, -1, -1j)[sum(power for _, power in letters) % 4] * c * d
                total[string] = factor, scale + abs(c * d)
        return total

    def __neg__(self) -> Observable:
        return self * -1.0

    def __pos__(self) -> Observable:
        return self

    def __sub__(self, other: Any) -> Observable:
        return self + (-other) if isinstance(other, Observable | Complex) else NotImplemented

    def __rsub__(self, other: Any) -> Observable:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__

    def _check_size(self, other: Observable) -> None:
        if other.n_qubits != self.n_qubits:
            raise SpecError(
                f"observables on {self.n_qubits} and {other.n_qubits} qubits do not combine. Pad the shorter string "
                "with I."
            )

    def __str__(self) -> str:
        return " + ".join(s if c == 1 else f"{c:.6g}*{s}" for s, c in self.terms).replace("+ -", "- ")


def Pauli(string: str, coefficient: float = 1.0) -> Observable:  # noqa: N802 - reads as the value it makes
    """One Pauli string, letter q on qubit q.

    Example:
        >>> print(0.5 * Pauli("ZZI") - Pauli("IXX"))
        0.5*ZZI - 1*IXX
    """
    return Observable(((string.upper() if isinstance(string, str) else string, coefficient),))


def symmetrised(a: Observable, b: Observable) -> Observable:
    """(AB + BA) / 2, which is an observable where AB is not.

    Example:
        >>> print(symmetrised(Pauli("X") + Pauli("Z"), Pauli("X") + Pauli("Z")))
        2*I
    """
    terms = [(s, f.real) for s, (f, scale) in a._products(b).items() if abs(f.real) > _ROUNDING * scale]
    return Observable(tuple(terms or [("I" * a.n_qubits, 0.0)]))


def _product(a: str, b: str) -> tuple[str, int]:
    """Letter and power of i of a product of two letters."""
    if "I" in (a, b):
        return (b if a == "I" else a), 0
    return ("I", 0) if a == b else _CYCLE[a + b]


def _coefficient(value: Any) -> float:
    if isinstance(value, Complex) and not isinstance(value, Real):
        raise SpecError(
            f"the coefficient of a Pauli string is real, received {shown(value)}: complex ones are not Hermitian, and "
            "cannot be measured."
        )
    return check_finite_number(value, "the coefficient of a Pauli string")
