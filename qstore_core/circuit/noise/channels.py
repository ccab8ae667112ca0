"""Channels: noise as an operation of a circuit, as a frozen value that is checked when it is made.

Example:
    A qubit that is depolarised: ⟨Z⟩ of |0⟩ is 1 - p.

    >>> from qstore_core import Circuit
    >>> c = Circuit(1)
    >>> c.depolarizing(0.1, 0)
    >>> print(c.operations[0])
    depolarizing(0.1) 0

Source:
    Nielsen & Chuang, Quantum Computation and Quantum Information, chapter 8.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import CapabilityError, SpecError, nearest
from ..checks import check_finite_number, check_items, check_whole, shown
from ..gates.table import GATES, PAULIS, Gate

__all__ = ["CHANNELS", "Channel", "ChannelKind", "refuse_channels", "transfer_matrix"]

COMPLETE = 1e-8  # how far Σ K†K may be from the identity
_MOST_OPERATORS = 64
_LETTERS = (np.eye(2, dtype=complex), *PAULIS.values())


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """One entry of the table of channels.

    Attributes:
        name: Also the name of the `Circuit` method.
        numbers: Names of its numbers.
        most_qubits: On how many qubits one may be.
        limit: `(qubits) → largest value of each number, and of their sum`.
        kraus: `(numbers, qubits) → Kraus operators`.
        help: One line.
    """

    name: str
    numbers: tuple[str, ...]
    most_qubits: int
    limit: Callable[[int], float]
    kraus: Callable[[Sequence[float], int], list[np.ndarray]]
    help: str


def _words(n_qubits: int) -> list[np.ndarray]:
    """All Pauli words, the identity first."""
    out = []
    for letters in itertools.product(_LETTERS, repeat=n_qubits):
        word = np.eye(1, dtype=complex)
        for letter in letters:
            word = np.kron(word, letter)
        out.append(word)
    return out


def _mixture(words: Sequence[np.ndarray], probabilities: Sequence[float]) -> list[np.ndarray]:
    """Each word with its probability; what is left to 1 is the identity's."""
    rest = max(0.0, 1.0 - sum(probabilities))
    pairs = zip([words[0], *words[1:]], [rest, *probabilities], strict=True)
    return [math.sqrt(p) * word for word, p in pairs if p]


def _depolarizing(numbers: Sequence[float], n_qubits: int) -> list[np.ndarray]:
    size = 4**n_qubits
    return _mixture(_words(n_qubits), [numbers[0] / size] * (size - 1))


def _damping(numbers: Sequence[float], _: int) -> list[np.ndarray]:
    gamma = numbers[0]
    return [np.diag([1.0, math.sqrt(1 - gamma)]) + 0j, np.array([[0, math.sqrt(gamma)], [0, 0]], complex)]


def _dephasing(numbers: Sequence[float], _: int) -> list[np.ndarray]:
    lam = numbers[0]
    return [np.diag([1.0, math.sqrt(1 - lam)]) + 0j, np.diag([0.0, math.sqrt(lam)]) + 0j]


def _flip(letter: int) -> Callable[[Sequence[float], int], list[np.ndarray]]:
    return lambda numbers, _: _mixture([_LETTERS[0], _LETTERS[letter]], numbers)


def _given(numbers: Sequence[float], n_qubits: int) -> list[np.ndarray]:
    pairs = np.array(numbers).reshape(-1, 1 << n_qubits, 1 << n_qubits, 2)
    return list(pairs[..., 0] + 1j * pairs[..., 1])


def _one(_: int) -> float:
    return 1.0


def _four_thirds(n_qubits: int) -> float:
    return 4**n_qubits / (4**n_qubits - 1)


CHANNELS = {
    kind.name: kind
    for kind in (
        ChannelKind(
            "depolarizing", ("p",), 2, _four_thirds, _depolarizing,
            "ρ → (1 - p) ρ + p 1/2**n, for the qubits together.",
        ),
        ChannelKind("amplitude_damping", ("gamma",), 1, _one, _damping, "|1⟩ decays to |0⟩ with probability gamma."),
        ChannelKind(
            "phase_damping", ("lam",), 1, _one, _dephasing, "Coherences shrink by √(1 - lam); populations stay."
        ),
        ChannelKind("bit_flip", ("p",), 1, _one, _flip(1), "X with probability p."),
        ChannelKind("phase_flip", ("p",), 1, _one, _flip(3), "Z with probability p."),
        ChannelKind(
            "pauli_channel", ("p_x", "p_y", "p_z"), 1, _one,
            lambda numbers, _: _mixture(_LETTERS, numbers), "X, Y, Z with a probability each.",
        ),
        ChannelKind("kraus", (), 2, _one, _given, "ρ → Σ K ρ K†, by Kraus operators."),
        ChannelKind(
            "readout_error", ("p_01", "p_10"), 1, _one, lambda *_: [],
            "0 is read as 1 with probability p_01, 1 as 0 with p_10, in whatever basis; no gate may follow.",
        ),
    )
}  # fmt: skip
"""Channels by name: each is a method of circuits, numbers first, then qubits."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel, apart from the qubits that it acts on.

    Made by name (`Channel.depolarizing(0.1)`, …); for what each does see `CHANNELS`.

    Attributes:
        name: Of an entry of `CHANNELS`.
        numbers: Probabilities; for "kraus" the operators row by row, real and imaginary parts in turn.
        n_qubits: On how many qubits, 1 or 2; the first is most significant.

    Raises:
        SpecError: a number is out of its range, or Kraus operators do not keep the trace.

    Example:
        >>> Channel.kraus([[[1, 0], [0, 1]], [[0, 1], [0, 0]]])
        Traceback (most recent call last):
        ...
        qstore_core.errors.SpecError: Kraus operators must satisfy Σ K†K = 1; here it is off by 1.
    """

    name: str
    numbers: tuple[float, ...]
    n_qubits: int = 1

    def __post_init__(self) -> None:
        kind = CHANNELS.get(self.name) if isinstance(self.name, str) else None
        if kind is None:
            near = nearest(self.name, CHANNELS) if isinstance(self.name, str) and len(self.name) <= 80 else ""
            raise SpecError(f"no channel named {shown(self.name)}. Known: {', '.join(CHANNELS)}.{near}")
        n = check_whole(self.n_qubits, f"{kind.name}: a number of qubits", 1, kind.most_qubits)
        most = _MOST_OPERATORS * 2 * 4**n if kind.name == "kraus" else len(kind.numbers) + 1
        items = check_items(self.numbers, f"{kind.name}: numbers", most)
        numbers = tuple(check_finite_number(number, f"{kind.name}: a number") for number in items)
        object.__setattr__(self, "n_qubits", n)
        object.__setattr__(self, "numbers", numbers)
        if kind.name == "kraus":
            if not numbers or len(numbers) % (2 * 4**n):
                raise SpecError(f"Kraus operators on {n} qubit(s) have {4**n} entries each, received {shown(numbers)}.")
            operators = np.array(_given(numbers, n))
            off = np.abs(np.einsum("kji,kjl->il", operators.conj(), operators) - np.eye(1 << n)).max()
            if not off <= COMPLETE:
                raise SpecError(f"Kraus operators must satisfy Σ K†K = 1; here it is off by {off:.3g}.")
            return
        if len(numbers) != len(kind.numbers):
            raise SpecError(f"{kind.name} takes {', '.join(kind.numbers)}; received {len(numbers)} number(s).")
        limit = kind.limit(n)
        together = kind.name == "pauli_channel" and sum(numbers) > limit + 1e-12
        for what, number in zip(kind.numbers, numbers, strict=True):
            if not 0.0 <= number <= limit or together:
                raise SpecError(
                    f"{kind.name}: {what} is a probability from 0 to {limit:.4g}{', as is the sum' * together}; "
                    f"received {shown(number if not together else numbers)}."
                )

    # -- by name --------------------------------------------------------------------------------------------------

    @classmethod
    def depolarizing(cls, p: float, n_qubits: int = 1) -> Channel:
        """ρ → (1 - p) ρ + p 1/2**n; p up to 4**n / (4**n - 1)."""
        return cls("depolarizing", (p,), n_qubits)

    @classmethod
    def amplitude_damping(cls, gamma: float) -> Channel:
        """|1⟩ decays to |0⟩ with probability gamma."""
        return cls("amplitude_damping", (gamma,))

    @classmethod
    def phase_damping(cls, lam: float) -> Channel:
        """Coherences shrink by √(1 - lam)."""
        return cls("phase_damping", (lam,))

    @classmethod
    def bit_flip(cls, p: float) -> Channel:
        """X with probability p."""
        return cls("bit_flip", (p,))

    @classmethod
    def phase_flip(cls, p: float) -> Channel:
        """Z with probability p."""
        return cls("phase_flip", (p,))

    @classmethod
    def pauli_channel(cls, p_x: float, p_y: float, p_z: float) -> Channel:
        """X, Y, Z with a probability each."""
        return cls("pauli_channel", (p_x, p_y, p_z))

    @classmethod
    def kraus(cls, operators: Iterable[Any]) -> Channel:
        """ρ → Σ K ρ K†, for matrices of one or two qubits."""
        items = check_items(operators, "Kraus operators", _MOST_OPERATORS)
        try:
            matrices = np.array(items, complex)
        except (TypeError, ValueError) as error:
            raise SpecError(f"Kraus operators are square matrices of numbers, received {shown(items)}.") from error
        size = matrices.shape[-1] if matrices.ndim == 3 else 0
        if size not in (2, 4) or matrices.shape[1] != size:
            raise SpecError(
                f"Kraus operators are matrices of one or two qubits, 2 x 2 or 4 x 4; received shape {matrices.shape}."
            )
        flat = np.stack([matrices.real, matrices.imag], axis=-1).reshape(-1)
        return cls("kraus", tuple(flat.tolist()), size.bit_length() - 1)

    @classmethod
    def readout_error(cls, p_01: float, p_10: float) -> Channel:
        """0 is read as 1 with probability p_01, 1 as 0 with probability p_10."""
        return cls("readout_error", (p_01, p_10))

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def is_readout(self) -> bool:
        """True for what happens when a qubit is read, which no Kraus operators describe."""
        return self.name == "readout_error"

    @property
    def operators(self) -> tuple[np.ndarray, ...]:
        """Kraus operators, complex128, read-only; none for a readout error."""
        return _operators(self)

    @property
    def confusion(self) -> np.ndarray:
        """Of a readout error: P(read n | is m) as [m, n]."""
        if not self.is_readout:
            raise SpecError(f"{self} is no readout error.")
        a, b = self.numbers
        return np.array([[1 - a, a], [b, 1 - b]])

    def __str__(self) -> str:
        if self.name == "kraus":
            return f"kraus({len(self.operators)} operators)"
        return f"{self.name}({', '.join(f'{number:.6g}' for number in self.numbers)})"


@lru_cache(maxsize=4096)
def _operators(channel: Channel) -> tuple[np.ndarray, ...]:
    out = CHANNELS[channel.name].kraus(channel.numbers, channel.n_qubits)
    for operator in out:
        operator.flags.writeable = False
    return tuple(out)


def transfer_matrix(operators: Sequence[np.ndarray]) -> np.ndarray:
    """Real (4**n, 4**n): what Kraus operators make of tr(P ρ) for the Pauli words P, I X Y Z on each qubit.

    Example:
        >>> transfer_matrix(Channel.bit_flip(0.25).operators).round(6).diagonal()
        array([1. , 1. , 0.5, 0.5])
    """
    n = int(operators[0].shape[0]).bit_length() - 1
    words = np.array(_words(n))
    kraus = np.array(operators)
    images = np.einsum("kij,bjl,kml->bim", kraus, words, kraus.conj())
    out = np.einsum("aij,bji->ab", words, images).real / (1 << n)
    out[0] = np.eye(1, 4**n)[0]  # the trace is kept
    return np.where(np.abs(out) < 1e-16, 0.0, out)


def refuse_channels(circuit: Any, who: str, backend: str = "") -> None:
    """For what computes gates alone.

    Raises:
        CapabilityError: a channel stands in the circuit; it names what computes it.
    """
    for number, op in enumerate(circuit.operations):
        if op.channel is not None:
            raise CapabilityError(
                f'{who}, and operation {number} of the circuit is a channel: {op}. Use backend="density", '
                'or backend="trajectories" with shots= above 10 qubits.',
                backend=backend,
            )


def _no_gate(name: str) -> Gate | None:
    """Looked up as a gate, a channel is an error with a name: whoever does not know channels cannot pass them over."""
    if name in CHANNELS:
        raise CapabilityError(
            f"{name!r} is a channel, not a gate: what takes gates alone cannot take this circuit. "
            'Use backend="density", or backend="trajectories" with shots= above 10 qubits.'
        )
    return None


GATES.families.append(_no_gate)
