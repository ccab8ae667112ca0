"""Measurements from statevectors and from samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..circuit.measurements.measurement import Measurement, Probabilities
from .memory import check_table

__all__ = ["Group", "Readout", "Samples"]

Samples = tuple[np.ndarray, np.ndarray, np.ndarray]  # bits (K, qubits of the group), sample row (K,), counts (K,)


@dataclass(frozen=True)
class Group:
    """What one circuit run measures: qubits, each in one basis, and the Pauli strings that can be read from them."""

    qubits: tuple[int, ...]
    letters: tuple[str, ...]
    strings: tuple[int, ...]  # numbers of `Readout.strings`


class Readout:
    """One measurement, ready to be evaluated.

    Args:
        measurement: What is read.
        n_qubits: Qubits of the circuit.

    Example:
        >>> from qstore_core import Expectation
        >>> readout = Readout(Expectation(("Z", "X")), 1)
        >>> readout.from_states(np.array([[1, 0], [0.6, 0.8]]) + 0j).round(2)
        array([[ 1.  ,  0.  ],
               [-0.28,  0.96]])
    """

    def __init__(self, measurement: Measurement, n_qubits: int) -> None:
        self.n_qubits = n_qubits
        self.n_outputs = measurement.n_outputs(n_qubits)
        self.is_probabilities = isinstance(measurement, Probabilities)
        self.strings: list[str] = []
        self.constant = np.zeros(self.n_outputs)
        if isinstance(measurement, Probabilities):
            self.qubits = tuple(range(n_qubits)) if measurement.qubits is None else measurement.qubits
            self.weights = np.zeros((0, self.n_outputs))
            self.groups: tuple[Group, ...] = (Group(self.qubits, ("Z",) * len(self.qubits), ()),)
            return
        entries: dict[tuple[int, int], float] = {}
        numbers: dict[str, int] = {}
        for output, observable in enumerate(measurement.as_observables(n_qubits)):
            for string, coefficient in observable.terms:
                if set(string) == {"I"}:
                    self.constant[output] += coefficient
                    continue
                key = numbers.setdefault(string, len(numbers)), output
                entries[key] = entries.get(key, 0.0) + coefficient
        self.strings = [*numbers]
        check_table(len(numbers), self.n_outputs)
        self.weights = np.zeros((len(numbers), self.n_outputs))
        for (string_number, output), coefficient in entries.items():
            self.weights[string_number, output] = coefficient
        self.groups = self._group()

    def _group(self) -> tuple[Group, ...]:
        """Strings that agree on every qubit they share are read from the same runs."""
        bases = np.zeros((16, self.n_qubits), np.uint8)  # letters of each group, 0 where none is fixed
        members: list[list[int]] = []
        for number, string in enumerate(self.strings):
            letters = np.frombuffer(string.encode(), np.uint8)
            where = np.flatnonzero(letters != ord("I"))
            fixed = bases[: len(members), where]
            fits = ((fixed == 0) | (fixed == letters[where])).all(axis=1)
            first = int(fits.argmax()) if fits.any() else len(members)
            if first == len(members):
                members.append([])
                if first == len(bases):
                    bases = np.concatenate([bases, np.zeros_like(bases)])
            bases[first, where] = letters[where]
            members[first].append(number)
        groups = []
        for basis, group in zip(bases, members, strict=False):
            qubits = np.flatnonzero(basis).tolist()
            groups.append(Group(tuple(qubits), tuple(chr(basis[q]) for q in qubits), tuple(group)))
        return tuple(groups)

    # -- from statevectors ----------------------------------------------------------------------------------------

    def from_states(self, states: np.ndarray) -> np.ndarray:
        """Unit rows (B, 2**n), qubit 0 most significant → outputs (B, O)."""
        if self.is_probabilities:
            return self.fold(np.abs(states) ** 2)
        values = np.empty((len(states), len(self.strings)))
        for number, string in enumerate(self.strings):
            values[:, number] = np.einsum("bi,bi->b", states.conj(), _applied(string, states)).real
        return values @ self.weights + self.constant

    def pull_states(self, states: np.ndarray, cotangents: np.ndarray) -> np.ndarray:
        """`O|ψ⟩` of each row, for O the sum of the measured operators weighted by `cotangents` (B, O)."""
        if self.is_probabilities:
            return self.spread(cotangents) * states
        out = np.zeros_like(states)
        for string, weight in zip(self.strings, (cotangents @ self.weights.T).T, strict=True):
            out += weight[:, None] * _applied(string, states)
        return out + (cotangents @ self.constant)[:, None] * states

    def spread(self, cotangents: np.ndarray) -> np.ndarray:
        """Cotangents of probabilities (B, O) → of the probabilities of all basis states (B, 2**n)."""
        return cotangents[:, self._outputs(np.arange(1 << self.n_qubits), self.n_qubits)]

    def fold(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities of all basis states (B, 2**n) → outputs (B, O)."""
        outputs = self._outputs(np.arange(probabilities.shape[1]), self.n_qubits)
        order = np.argsort(outputs, kind="stable")
        starts = np.searchsorted(outputs[order], np.arange(self.n_outputs))
        return np.add.reduceat(probabilities[:, order], starts, axis=1)

    def _outputs(self, index: np.ndarray, n_qubits: int) -> np.ndarray:
        """Number of the output to which each basis state counts."""
        measured = np.zeros_like(index)
        for qubit in self.qubits:
            measured = 2 * measured + (index >> (n_qubits - 1 - qubit) & 1)
        return measured % self.n_outputs

    # -- from distributions ---------------------------------------------------------------------------------------

    def from_distributions(self, distributions: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities (B, 2**k) of a group's k bits, its first qubit most significant, per group → outputs (B, O)."""
        if self.is_probabilities:
            return distributions[0] @ np.eye(self.n_outputs)[np.arange(distributions[0].shape[1]) % self.n_outputs]
        outputs = np.broadcast_to(self.constant, (len(distributions[0]), self.n_outputs)).copy()
        for group, probabilities in zip(self.groups, distributions, strict=True):
            outputs += probabilities @ self._signs(group, _all_bits(len(group.qubits))) @ self.weights[[*group.strings]]
        return outputs

    def _signs(self, group: Group, bits: np.ndarray) -> np.ndarray:
        """Outcome ±1 (K, strings of the group) of each string for bits (K, qubits of the group)."""
        place = {qubit: column for column, qubit in enumerate(group.qubits)}
        signs = np.empty((len(bits), len(group.strings)))
        for column, number in enumerate(group.strings):
            where = [place[q] for q, letter in enumerate(self.strings[number]) if letter != "I"]
            signs[:, column] = 1 - 2 * (bits[:, where].sum(axis=1, dtype=np.int64) & 1)
        return signs

    # -- from samples ---------------------------------------------------------------------------------------------

    def from_samples(self, samples: Sequence[Samples], batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample means and their standard errors.

        Args:
            samples: Per group the outcomes of its runs.
            batch: Rows.

        Returns:
            `(outputs (B, O), standard errors (B, O))`. Groups are independent runs, so their variances add. One shot
            tells nothing about its spread: NaN.
        """
        if self.is_probabilities:
            return self._frequencies(*samples[0], batch)
        mean = np.broadcast_to(self.constant, (batch, self.n_outputs)).copy()
        variance = np.zeros((batch, self.n_outputs))
        for group, (bits, rows, counts) in zip(self.groups, samples, strict=True):
            shots = np.bincount(rows, counts, batch)
            signs = self._signs(group, bits)
            weights = self.weights[list(group.strings)]
            for output in np.flatnonzero(np.any(weights, axis=0)):
                values = signs @ weights[:, output]
                average = np.bincount(rows, counts * values, batch) / shots
                mean[:, output] += average
                spread = np.bincount(rows, counts * (values - average[rows]) ** 2, batch)
                variance[:, output] += _over(spread, shots - 1) / shots
        return mean, np.sqrt(variance)

    def _frequencies(
        self, bits: np.ndarray, rows: np.ndarray, counts: np.ndarray, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        index = np.zeros(len(bits), np.int64)
        for column in range(bits.shape[1]):
            index = (2 * index + bits[:, column]) % self.n_outputs
        totals = np.bincount(rows * self.n_outputs + index, counts, batch * self.n_outputs)
        shots = np.bincount(rows, counts, batch)[:, None]
        mean = totals.reshape(batch, self.n_outputs) / shots
        return mean, np.sqrt(_over(mean * (1 - mean), shots - 1))


def _over(spread: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    return np.divide(spread, degrees, out=np.full(spread.shape, np.nan), where=degrees > 0)


def _all_bits(count: int) -> np.ndarray:
    """All outcomes (2**count, count), the first bit most significant."""
    return np.arange(1 << count)[:, None] >> np.arange(count)[::-1] & 1


def _applied(string: str, states: np.ndarray) -> np.ndarray:
    """A Pauli string on each row: P = i**n_y X^x Z^z."""
    n = len(string)
    x = sum(1 << (n - 1 - q) for q, letter in enumerate(string) if letter in "XY")
    z = sum(1 << (n - 1 - q) for q, letter in enumerate(string) if letter in "YZ")
    source = np.arange(states.shape[1]) ^ x
    signs = 1.0 - 2.0 * (np.bitwise_count(source & z) & 1)
    phase = (1, 1j, -1, -1j)[string.count("Y") % 4]
    return (phase * signs) * (states[:, source] if x else states)
