"""What PennyLane's measurements are computed from, and the vjp of that.

Expectation values and variances of observables that are sums of Pauli words come from one run, which reads each word
once. Probabilities, and observables that have eigenvalues only, come from a run that rotates their basis first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pennylane as qml
from autograd import make_vjp
from pennylane.exceptions import DeviceError, QuantumFunctionError
from pennylane.measurements import (
    DensityMatrixMP,
    ExpectationMP,
    MeasurementProcess,
    MutualInfoMP,
    ProbabilityMP,
    PurityMP,
    StateMeasurement,
    StateMP,
    VarianceMP,
    VnEntropyMP,
)
from pennylane.ops.functions import bind_new_parameters
from pennylane.tape import QuantumScript

from ._operations import Piece, expanded, phase_of, pieces, start_state
from ._programs import Gates, Numbers, Reading

__all__ = [
    "Answer", "StateAnswer", "TapeRuns", "followed", "gates_and_numbers", "is_differentiable", "is_exact", "states_of",
    "wires_of",
]  # fmt: skip

_FROM_STATES = (StateMP, DensityMatrixMP, PurityMP, VnEntropyMP, MutualInfoMP)  # which autograd goes through
_MOST_PAULIS = 3  # qubits of a matrix that is written as Pauli words; above, its eigenvalues are fewer numbers


def is_exact(measurement: MeasurementProcess) -> bool:
    """Whether a measurement is computed without shots; what engines do not compute, from states."""
    return is_differentiable(measurement) or (isinstance(measurement, StateMeasurement) and measurement.obs is None)


def is_differentiable(measurement: MeasurementProcess) -> bool:
    """Whether a measurement without shots has derivatives."""
    if isinstance(measurement, _FROM_STATES):
        return True
    if not isinstance(measurement, ExpectationMP | VarianceMP | ProbabilityMP):
        return False
    return measurement.obs is None or _sentence(measurement.obs) is not None or measurement.obs.has_diagonalizing_gates


def _sentence(obs: Any) -> Any:
    """The sum of Pauli words that an observable is; None where it is not written as one."""
    sentence = obs.pauli_rep
    if sentence is None and obs.has_matrix and len(obs.wires) <= _MOST_PAULIS:
        sentence = qml.pauli_decompose(qml.math.toarray(obs.matrix()), wire_order=obs.wires, pauli=True)
    elif sentence is None and isinstance(obs, qml.SparseHamiltonian):
        sentence = qml.pauli_decompose(obs.sparse_matrix().toarray(), wire_order=obs.wires, pauli=True)
    return sentence


# -- from outputs of runs to results ----------------------------------------------------------------------------------


@dataclass
class Answer:
    """One measurement from the outputs of one run.

    Attributes:
        run: Number of the run.
        weights: (O, results): what the outputs are multiplied with; None for the outputs themselves.
        squares: For a variance: the same for the square of the observable.
        scalar: One number per row, not an array.
        strings: For sums of Pauli words, the columns of the words.
    """

    run: int
    weights: np.ndarray | None
    squares: np.ndarray | None = None
    strings: Mapping[str, int] = field(default_factory=dict)

    def value(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """Outputs (rows, O) of all runs → (rows,) or (rows, results)."""
        out = outputs[self.run]
        if self.weights is None:
            return out
        mean = out @ self.weights
        return mean if self.squares is None else out @ self.squares - mean**2

    def vjp(self, outputs: Sequence[np.ndarray], cotangents: np.ndarray, into: Sequence[np.ndarray]) -> None:
        """Add the cotangents of the outputs to `into`."""
        if self.weights is None:
            into[self.run][...] += cotangents
            return
        if self.squares is None:
            into[self.run][...] += cotangents[:, None] * self.weights
            return
        mean = outputs[self.run] @ self.weights
        into[self.run][...] += cotangents[:, None] * self.squares - (2 * mean * cotangents)[:, None] * self.weights


@dataclass
class StateAnswer:
    """One measurement that PennyLane computes from the state.

    Attributes:
        run: Number of the run that reads states.
        measurement: It.
        wires: Of the state.
        phase: The angle that the gates leave out, a float or (B,).
        is_batch: Whether there is an axis of rows.
    """

    run: int
    measurement: Any
    wires: Any
    phase: Any
    is_batch: bool

    def value(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """Real and imaginary parts of states (rows, 2 · 2**n) → (rows, …)."""
        return np.asarray(self._processed(states_of(outputs[self.run])))

    def _processed(self, states: Any) -> Any:
        states = states * np.exp(1j * np.asarray(self.phase))[..., None]
        if self.is_batch:
            return self.measurement.process_state(states, self.wires)
        return qml.math.expand_dims(self.measurement.process_state(states[0], self.wires), 0)

    def vjp(self, outputs: Sequence[np.ndarray], cotangents: np.ndarray, into: Sequence[np.ndarray]) -> None:
        """Add the cotangents of the real and imaginary parts to `into`: PennyLane's functions, by autograd."""
        gradients = make_vjp(self._processed)(states_of(outputs[self.run]))[0](cotangents)  # dL/dRe - i dL/dIm
        into[self.run][...] += np.concatenate([gradients.real, -gradients.imag], axis=1)


def states_of(parts: np.ndarray) -> np.ndarray:
    """Real parts, then imaginary parts (rows, 2 · 2**n) → states (rows, 2**n)."""
    size = parts.shape[1] // 2
    return parts[:, :size] + 1j * parts[:, size:]


class TapeRuns:
    """The runs of one tape and the answers from them.

    Args:
        tape: Preprocessed, without shots.
    """

    def __init__(self, tape: QuantumScript) -> None:
        self.tape = tape
        base, numbers = gates_and_numbers(tape)
        self.numbers_batch = numbers.batch
        self._place = {wire: q for q, wire in enumerate(wires_of(tape))}
        self.gates: list[Gates] = []
        self.readings: list[Reading] = []
        self.numbers: list[Numbers] = []
        self.answers: list[Answer | StateAnswer] = []
        place = self._place
        words: dict[str, int] = {}
        sums: list[tuple[Answer, Any, Any]] = []
        for measurement in tape.measurements:
            obs = measurement.obs
            sentence = None if obs is None or isinstance(measurement, ProbabilityMP) else _sentence(obs)
            if isinstance(measurement, _FROM_STATES) or not is_differentiable(measurement):
                self.answers.append(self._from_state(measurement, base, numbers))
                continue
            if sentence is None:
                self.answers.append(self._distribution(measurement, base, numbers, place))
                continue
            answer = Answer(-1, None, None, words)
            square = sentence @ sentence if isinstance(measurement, VarianceMP) else None
            of_one, of_square = (None if one is None else _words(one, place, words) for one in (sentence, square))
            sums.append((answer, of_one, of_square))
            self.answers.append(answer)
        if words:
            for answer, terms, squares in sums:
                answer.run = len(self.gates)
                answer.weights = _column(terms, len(words))
                answer.squares = None if squares is None else _column(squares, len(words))
            self._add(base, Reading(strings=tuple(words)), numbers)
        self.key = (*zip(self.gates, self.readings, strict=True), numbers.params)

    def _add(self, gates: Gates, reading: Reading, numbers: Numbers) -> None:
        self.gates.append(gates)
        self.readings.append(reading)
        self.numbers.append(numbers)

    def _from_state(self, measurement: MeasurementProcess, base: Gates, numbers: Numbers) -> StateAnswer:
        known = [k for k, reading in enumerate(self.readings) if reading.is_state]
        if not known:
            self._add(base, Reading(), numbers)
        # Some measurements take their wires for positions in the state.
        mapped, wires = measurement.map_wires(self._place), qml.wires.Wires(range(base.n_qubits))
        run = known[0] if known else len(self.gates) - 1
        return StateAnswer(run, mapped, wires, _phase(self.tape), numbers.batch is not None)

    def _distribution(
        self, measurement: MeasurementProcess, base: Gates, numbers: Numbers, place: Mapping[Any, int]
    ) -> Answer:
        changes = [piece for op in expanded(measurement.diagonalizing_gates()) for piece in pieces(op)]
        wires = measurement.wires or tuple(place)
        reading = Reading(qubits=tuple(place[wire] for wire in wires))
        gates, numbers = followed(base, numbers, changes, place)
        known = list(zip(self.gates, self.readings, strict=True))
        run = known.index((gates, reading)) if not changes and (gates, reading) in known else len(known)
        if run == len(known):
            self._add(gates, reading, numbers)
        if isinstance(measurement, ProbabilityMP):
            return Answer(run, None)
        values = np.real(qml.math.toarray(measurement.eigvals())).astype(float)
        return Answer(run, values, values**2 if isinstance(measurement, VarianceMP) else None)

    # -- derivatives that do not come from the engine -------------------------------------------------------------

    def check_phases(self) -> None:
        """Refuse a derivative of the state by a parameter that is nothing but its phase."""
        if not any(isinstance(mp, StateMP) and not isinstance(mp, DensityMatrixMP) for mp in self.tape.measurements):
            return
        for param in self.tape.trainable_params:
            op = self.tape.par_info[param]["op"]
            if op.name == "GlobalPhase" or (op.name == "PauliRot" and not any(pieces(op))):
                raise QuantumFunctionError(
                    f"qstore.qubit has no derivative of the state by the parameter of {op.name}, a global phase: mark "
                    "it as not trainable, or measure what does not depend on it."
                )

    def d_start(self, d_state: np.ndarray) -> np.ndarray:
        """Gradients (rows, 2**n) of the start state → (rows, 2**k) of the amplitudes on the wires of its operation."""
        op = self.tape.operations[0]
        n, k = len(self._place), len(op.wires)
        bits = [1 << (n - 1 - self._place[wire]) for wire in op.wires]
        index = np.arange(1 << k)
        full = sum(((index >> (k - 1 - j)) & 1) * bit for j, bit in enumerate(bits))
        return d_state[:, full]

    def d_observable(self, param: int, outputs: Sequence[np.ndarray]) -> tuple[int, np.ndarray] | None:
        """Number and slope (rows,) of the measurement of which `param` is a coefficient; None where it is of a gate.

        Coefficients of a sum of Pauli words are factors: the sum is affine in each of them, so that its values for 1
        and for 0 differ by the slope.
        """
        info = self.tape.par_info[param]
        number = info["op_idx"] - len(self.tape.operations)
        if number < 0:
            return None
        measurement, obs = self.tape.measurements[number], info["op"]
        if not isinstance(measurement, ExpectationMP) or obs.pauli_rep is None or np.ndim(obs.data[info["p_idx"]]):
            raise QuantumFunctionError(
                f"qstore.qubit has no derivative of {type(measurement).__name__} by a parameter of the observable "
                f"{obs.name}: it differentiates expectation values by the coefficients of Pauli words. Mark the "
                "parameter as not trainable."
            )
        answer, slope = self.answers[number], np.zeros(len(self.answers[number].strings))
        for value in (1.0, 0.0):
            data = list(obs.data)
            data[info["p_idx"]] = value
            sentence = bind_new_parameters(obs, data).pauli_rep
            terms = _words(sentence, self._place, dict(answer.strings))
            slope += (1 if value else -1) * _column(terms, len(slope))
        return number, outputs[answer.run] @ slope


def wires_of(tape: QuantumScript) -> list[Any]:
    """The wires of a tape, which are qubits 0, 1, …; at least one."""
    return list(tape.wires) or [0]


def gates_and_numbers(tape: QuantumScript) -> tuple[Gates, Numbers]:
    """The gates of a tape on its own wires, in their order there, and its numbers."""
    wires = wires_of(tape)
    place = {wire: q for q, wire in enumerate(wires)}
    gates: list[tuple[str, tuple[int, ...]]] = []
    made: list[Piece] = []
    params: list[int] = []
    first, start, start_param = 0, None, -1
    size = None  # PennyLane finds the size of a batch by looking at every operation again, which takes longer
    for number, op in enumerate(tape.operations):
        if not number and isinstance(op, qml.operation.StatePrepBase):
            if isinstance(op, qml.BasisState):
                for bit, wire in zip(qml.math.toarray(op.data[0]), op.wires, strict=True):
                    made.append(Piece("ry", (wire,), (float(bit) * np.pi,), (-1,)))
                    gates.append(("ry", (place[wire],)))
                    params.append(-1)
            else:
                start, start_param = start_state(op, wires).real.astype(float), 0
                size = len(start) if start.ndim > 1 else None
            first += len(op.data)
            continue
        for piece in pieces(op):
            made.append(piece)
            gates.append((piece.gate, tuple([place[wire] for wire in piece.wires])))
            for value in piece.numbers:
                if getattr(value, "ndim", 0):
                    size = len(value)
            if piece.params:
                params += [first + k if k >= 0 else -1 for k in piece.params]
        if op.name == "GlobalPhase" and np.ndim(op.data[0]):
            size = len(op.data[0])
        first += len(op.data)
    numbers = Numbers(made, tuple(params), size)
    numbers.start, numbers.start_param = start, start_param
    return Gates(len(wires), start is not None, tuple(gates)), numbers


def _phase(tape: QuantumScript) -> Any:
    return sum((phase_of(op) for op in tape.operations if not isinstance(op, qml.operation.StatePrepBase)), 0.0)


def followed(
    gates: Gates, numbers: Numbers, changes: Sequence[Piece], place: Mapping[Any, int]
) -> tuple[Gates, Numbers]:
    """Gates and numbers with more gates behind them, whose numbers are constants."""
    if not changes:
        return gates, numbers
    more = tuple((piece.gate, tuple(place[wire] for wire in piece.wires)) for piece in changes)
    out = Numbers(changes, (), numbers.batch)
    out.params = (*numbers.params, *(-1 for _ in out.values))
    out.values = [*numbers.values, *out.values]
    out.start, out.start_param = numbers.start, numbers.start_param
    return Gates(gates.n_qubits, gates.starts, (*gates.gates, *more)), out


def _words(sentence: Any, place: Mapping[Any, int], words: dict[str, int]) -> list[tuple[int, float]]:
    """`(column, coefficient)` of each Pauli word; new words get a column."""
    out = []
    for word, coefficient in sentence.items():
        letters = ["I"] * len(place)
        for wire, letter in word.items():
            letters[place[wire]] = letter
        value = complex(coefficient)
        if abs(value.imag) > 1e-12 * max(1.0, abs(value)):
            raise DeviceError(f"an observable with the complex coefficient {value:g} is not Hermitian.")
        out.append((words.setdefault("".join(letters), len(words)), value.real))
    return out


def _column(terms: Sequence[tuple[int, float]], length: int) -> np.ndarray:
    out = np.zeros(length)
    for column, coefficient in terms:
        out[column] += coefficient
    return out
