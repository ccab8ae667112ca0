"""Tapes of equal structure in one call: their results, and derivatives pulled and pushed through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pennylane as qml
from pennylane.exceptions import QuantumFunctionError
from pennylane.measurements import ClassicalShadowMP, ShadowExpvalMP
from pennylane.tape import QuantumScript
from pennylane.tape.tape import rotations_and_diagonal_measurements

from ._operations import expanded, pieces
from ._programs import Batch, Reading, run
from ._readings import TapeRuns, followed, gates_and_numbers, states_of, wires_of

__all__ = ["Gradients", "Group", "Sampled", "grouped", "sample"]


def grouped(tapes: Sequence[QuantumScript], numbers: Iterable[int], backend: Any) -> Iterator[tuple[list[int], Group]]:
    """Groups of tapes of equal structure, with the numbers of these tapes."""
    groups: dict[Any, tuple[list[int], list[TapeRuns]]] = {}
    for number in numbers:
        runs = TapeRuns(tapes[number])
        where, members = groups.setdefault(runs.key, ([], []))
        where.append(number)
        members.append(runs)
    for where, members in groups.values():
        yield where, Group(members, backend)


class Gradients(tuple[Any, ...]):
    """Gradients of the trainable parameters of a tape, of different shapes where some are batches.

    PennyLane's PyTorch interface asks for the shape of `numpy.squeeze` of it, which wants an array.
    """

    __slots__ = ()

    def squeeze(self, axis: Any = None) -> np.ndarray:
        """An array with as many numbers."""
        return np.zeros(len(self))


class Group:
    """Tapes that share their circuits."""

    def __init__(self, tapes: Sequence[TapeRuns], backend: Any) -> None:
        self._tapes, self._backend = tapes, backend
        self.is_trainable = any(one.tape.trainable_params for one in tapes)
        self._batches: list[Batch] = []
        self._outputs: list[np.ndarray] = []
        self._vjps: list[Any] = []

    @property
    def can_pull(self) -> bool:
        """Whether it ran with derivatives."""
        return bool(self._vjps) and all(vjp is not None for vjp in self._vjps)

    def run(self, *, vjp: bool = False, separate: bool = False, kept: Sequence[Group] = ()) -> None:
        """Call the engine once for every run.

        Args:
            vjp: Derivatives will be asked for.
            separate: Row by row.
            kept: Groups that ran already; one with the same numbers gives what it knows.
        """
        first = self._tapes[0]
        apart = separate or (vjp and len(self._tapes) > 1)
        self._batches = [
            Batch([one.numbers[k] for one in self._tapes], separate=apart) for k in range(len(first.gates))
        ]
        for group in kept if vjp else ():
            if group.holds(self._tapes[0].key, self._batches):
                self._outputs, self._vjps = group._outputs, group._vjps
                return
        self._outputs, self._vjps = [], []
        for gates, reading, batch in zip(first.gates, first.readings, self._batches, strict=True):
            outputs, vjp_fn = run(gates, reading, batch, self._backend, vjp=vjp)
            self._outputs.append(outputs)
            self._vjps.append(vjp_fn)

    def holds(self, key: Any, batches: Sequence[Batch]) -> bool:
        """Whether it ran these circuits with these numbers."""
        return self._tapes[0].key == key and all(
            mine.same_as(other) for mine, other in zip(self._batches, batches, strict=True)
        )

    def _slices(self) -> Iterator[tuple[TapeRuns, slice, list[np.ndarray]]]:
        """Each tape, its rows, and its outputs of every run."""
        for k, one in enumerate(self._tapes):
            edges = self._batches[0].edges if self._batches else (0, 1)
            rows = slice(edges[k], edges[k + 1])
            yield one, rows, [outputs[rows] for outputs in self._outputs]

    def results(self) -> list[Any]:
        """As PennyLane has them: no axis for a tape that is no batch, a tuple where there are several measurements."""
        return [_packed(one, _values(one, outputs)) for one, _, outputs in self._slices()]

    # -- derivatives --------------------------------------------------------------------------------------------

    def vjp(self, cotangents: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Cotangents of each tape's results → gradients of its trainable parameters.

        Cotangents with one axis more, in front, are several at once, as for a Jacobian; so are the gradients then.
        """
        given = [
            _unpacked(one, cotangent, _values(one, outputs))
            for (one, _, outputs), cotangent in zip(self._slices(), cotangents, strict=True)
        ]
        counts = {count for count, _ in given if count is not None}
        if not counts:
            return self._vjp([parts for _, parts in given])
        gradients = [self._vjp([parts if n is None else [p[k] for p in parts] for n, parts in given])
                  for k in range(counts.pop())]  # fmt: skip
        return [
            gradients[0][number] if count is None else Gradients(map(np.stack, zip(*of_all, strict=True)))
            for number, ((count, _), of_all) in enumerate(zip(given, zip(*gradients, strict=True), strict=True))
        ]

    def _vjp(self, cotangents: Sequence[list[np.ndarray]]) -> list[tuple[Any, ...]]:
        for one in self._tapes:
            one.check_phases()
        into = [np.zeros(outputs.shape) for outputs in self._outputs]
        for (one, rows, outputs), of_each in zip(self._slices(), cotangents, strict=True):
            mine = [array[rows] for array in into]
            for answer, cotangent in zip(one.answers, of_each, strict=True):
                answer.vjp(outputs, cotangent, mine)
        by_run = self._by_slot(into)
        return [
            self._gradients(number, one, outputs, cotangents[number], by_run)
            for number, (one, _, outputs) in enumerate(self._slices())
        ]

    def _by_slot(self, into: Sequence[np.ndarray]) -> list[tuple[list[np.ndarray], np.ndarray]]:
        return [
            batch.by_slot(*vjp_fn(np.ascontiguousarray(cotangents)))
            for batch, vjp_fn, cotangents in zip(self._batches, self._vjps, into, strict=True)
        ]

    def _gradients(
        self, number: int, one: TapeRuns, outputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray],
        by_run: Sequence[tuple[list[np.ndarray], np.ndarray]],
    ) -> tuple[Any, ...]:  # fmt: skip
        gradients, total = [], self._per_param(number, one, by_run)
        for param in one.tape.trainable_params:
            slope = one.d_observable(param, outputs)
            if slope is not None:
                measurement, d_values = slope
                gradients.append((d_values * cotangents[measurement]).sum())
                continue
            shape = np.shape(one.tape.par_info[param]["op"].data[one.tape.par_info[param]["p_idx"]])
            gradient = np.asarray(total.get(param, np.zeros(shape)))
            gradients.append(gradient if gradient.ndim == len(shape) else gradient.sum(axis=0))
        return Gradients(gradients)

    def _per_param(
        self, number: int, one: TapeRuns, by_run: Sequence[tuple[list[np.ndarray], np.ndarray]]
    ) -> dict[int, Any]:
        """Sums over the slots that each parameter of a tape fills: a number where rows share it, else (rows, …)."""
        total: dict[int, Any] = {}
        for numbers, batch, (slots, start) in zip(one.numbers, self._batches, by_run, strict=True):
            rows = slice(batch.edges[number], batch.edges[number + 1])
            for param, slot in zip(numbers.params, slots, strict=True):
                if param >= 0:
                    total[param] = total.get(param, 0.0) + (slot[rows] if slot.ndim else slot)
            if numbers.start_param >= 0:
                total[numbers.start_param] = total.get(numbers.start_param, 0.0) + one.d_start(start[rows])
        return total

    def jacobian(self) -> list[list[np.ndarray]]:
        """Of a group of one tape that ran row by row: for each measurement and trainable parameter (rows, …)."""
        ((one, _, outputs),) = self._slices()
        table = []
        for measurement, (answer, values) in enumerate(zip(one.answers, _values(one, outputs), strict=True)):
            if np.iscomplexobj(values):
                raise QuantumFunctionError(
                    "qstore.qubit pulls cotangents of states back, and has no Jacobian of them: use reverse mode (in "
                    "JAX with jax.jit), or measure real numbers."
                )
            columns = []
            for element in np.ndindex(values.shape[1:]):
                cotangents = np.zeros(values.shape)
                cotangents[(slice(None), *element)] = 1.0
                into = [np.zeros(array.shape) for array in self._outputs]
                answer.vjp(outputs, cotangents, into)
                columns.append(self._row_gradients(one, outputs, measurement, self._by_slot(into), len(values)))
            table.append([_along(values.shape, parts) for parts in zip(*columns, strict=True)])
        return table

    def _row_gradients(
        self, one: TapeRuns, outputs: Sequence[np.ndarray], measurement: int, by_run: Any, n_rows: int
    ) -> list[np.ndarray]:
        """Gradients of one output of each row, (rows, …) for each trainable parameter."""
        total, out = self._per_param(0, one, by_run), []
        for param in one.tape.trainable_params:
            slope = one.d_observable(param, outputs)
            if slope is not None:
                out.append(slope[1] if slope[0] == measurement else np.zeros(n_rows))
                continue
            gradient = np.asarray(total.get(param, 0.0))
            out.append(gradient if gradient.ndim else np.full(n_rows, gradient))
        return out

    def derivatives(self) -> Any:
        """The Jacobian as PennyLane has it; by a parameter that is a batch, each row's by its own number."""
        ((one, _, _),) = self._slices()
        rows = slice(None) if one.numbers_batch is not None else 0
        parts: list[Any] = [tuple(array[rows] for array in of_one) for of_one in self.jacobian()]
        parts = [of_one[0] if len(of_one) == 1 else of_one for of_one in parts]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def push(self, tangents: Sequence[Any]) -> Any:
        """Tangents of the trainable parameters → tangents of the results."""
        ((one, _, outputs),) = self._slices()
        pushed = []
        for of_one, values in zip(self.jacobian(), _values(one, outputs), strict=True):
            total = np.zeros(values.shape)
            for jacobian, tangent in zip(of_one, tangents, strict=True):
                t = np.asarray(qml.math.toarray(tangent), float)
                extra = jacobian.ndim - values.ndim
                if extra:  # by a start state
                    t = t.reshape(-1, *(1,) * (values.ndim - 1), t.shape[-1])
                    total += (jacobian * t).sum(axis=-1)
                else:
                    total += jacobian * t.reshape(-1, *(1,) * (values.ndim - 1))
            pushed.append(total)
        return _packed(one, pushed)


def _along(shape: tuple[int, ...], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Gradients (rows, …) of every element of an output → (rows, output, …)."""
    if len(shape) == 1:
        return parts[0]
    return np.stack(parts, axis=1)


def _values(one: TapeRuns, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [answer.value(outputs) for answer in one.answers]


def _packed(one: TapeRuns, values: Sequence[np.ndarray]) -> Any:
    results = tuple(values) if one.numbers_batch is not None else tuple(array[0] for array in values)
    return results[0] if len(results) == 1 else results


def _unpacked(
    one: TapeRuns, cotangent: Any, values: Sequence[np.ndarray]
) -> tuple[int | None, list[np.ndarray]]:  # fmt: skip
    """Cotangents as PennyLane has them → (rows, …) for each measurement; with how many there are at once."""
    given = cotangent if isinstance(cotangent, tuple | list) else (cotangent,)
    parts = [
        np.asarray(qml.math.toarray(part)) if np.iscomplexobj(array) else np.real(qml.math.toarray(part)).astype(float)
        for part, array in zip(given, values, strict=True)
    ]
    drop = 0 if one.numbers_batch is not None else 1
    more = [part.ndim > array.ndim - drop for part, array in zip(parts, values, strict=True)]
    if not any(more):
        return None, [part.reshape(array.shape) for part, array in zip(parts, values, strict=True)]
    count = next(len(part) for part, several in zip(parts, more, strict=True) if several)
    return count, [
        (part if several else np.broadcast_to(part, (count, *part.shape))).reshape(count, *array.shape)
        for part, array, several in zip(parts, values, more, strict=True)
    ]


# -- samples ----------------------------------------------------------------------------------------------------------


class Sampled:
    """A tape with shots whose measurements are read from the same samples.

    Args:
        tape: Preprocessed.
        backend: The engine.
    """

    def __init__(self, tape: QuantumScript, backend: Any) -> None:
        self.tape, self._backend = tape, backend
        turning, measurements = _one_basis(tape)
        place = {wire: q for q, wire in enumerate(wires_of(tape))}
        self._measurements = [_mapped(mp, place) for mp in measurements]
        self._is_shadow = any(isinstance(mp, ClassicalShadowMP | ShadowExpvalMP) for mp in measurements)
        changes = [piece for op in expanded(turning) for piece in pieces(op)]
        self.gates, self.numbers = followed(*gates_and_numbers(tape), changes, place)
        asked = [mp.wires for mp in self._measurements]
        self._wires = qml.wires.Wires(range(len(place)) if not all(asked) else qml.wires.Wires.all_wires(asked))
        self.reading = Reading(qubits=tuple(self._wires))

    def result(self, probabilities: np.ndarray, rng: np.random.Generator) -> Any:
        """Results from samples of `probabilities` (rows, 2**k)."""
        if self._is_shadow:
            return self._shadow(rng)
        shots, k = self.tape.shots, len(self._wires)
        cumulative = np.cumsum(np.maximum(probabilities, 0.0), axis=1)
        drawn = [np.searchsorted(row, rng.random(shots.total_shots) * row[-1], side="right") for row in cumulative]
        index = np.minimum(np.array(drawn), (1 << k) - 1)
        bits = (index[..., None] >> np.arange(k - 1, -1, -1)) & 1
        samples = bits if self.numbers.batch is not None else bits[0]
        results = [self._read(samples[..., low:high, :]) for low, high in shots.bins()]
        return tuple(results) if shots.has_partitioned_shots else results[0]

    def _shadow(self, rng: np.random.Generator) -> Any:
        """Of a classical shadow every shot has a basis of its own: PennyLane draws them from the state."""
        parts, _ = run(self.gates, Reading(), Batch([self.numbers]), self._backend)
        state = states_of(parts)[0].reshape((2,) * self.gates.n_qubits)
        wires = qml.wires.Wires(range(self.gates.n_qubits))
        results = [
            tuple(mp.process_state_with_shots(state, wires, high - low, rng=rng) for mp in self._measurements)
            for low, high in self.tape.shots.bins()
        ]
        results = [read[0] if len(read) == 1 else read for read in results]
        return tuple(results) if self.tape.shots.has_partitioned_shots else results[0]

    def _read(self, samples: np.ndarray) -> Any:
        read = tuple(mp.process_samples(samples, self._wires) for mp in self._measurements)
        return read[0] if len(read) == 1 else read


def _mapped(measured: Any, place: dict[Any, int]) -> Any:
    """A measurement on qubits; PennyLane leaves the observables of a shadow on the wires where they are."""
    if isinstance(measured, ShadowExpvalMP):
        one, several = isinstance(measured.H, qml.operation.Operator), measured.H
        mapped = several.map_wires(place) if one else [h.map_wires(place) for h in several]
        return ShadowExpvalMP(mapped, seed=measured.seed, k=measured.k)
    return measured.map_wires(place)


def _one_basis(tape: QuantumScript) -> tuple[list[Any], list[Any]]:
    """Operations that change all measured bases, and the measurements after them."""
    turning, measurements = rotations_and_diagonal_measurements(tape)
    if tape.obs_sharing_wires:
        shared = set(tape.obs_sharing_wires_id)
        rest = [mp for k, mp in enumerate(measurements) if k not in shared]
    else:
        rest = measurements
    return [*turning, *(op for mp in rest for op in mp.diagonalizing_gates())], measurements


def sample(tapes: Sequence[QuantumScript], backend: Any, rngs: Sequence[np.random.Generator]) -> list[Any]:
    """Results of tapes with shots; probabilities of those of equal structure come from one call of the engine."""
    groups: dict[Any, list[int]] = {}
    sampled = [Sampled(tape, backend) for tape in tapes]
    for number, one in enumerate(sampled):
        groups.setdefault((one.gates, one.reading, one.numbers.params), []).append(number)
    results: list[Any] = [None] * len(tapes)
    for members in groups.values():
        batch = Batch([sampled[number].numbers for number in members])
        outputs, _ = run(sampled[members[0]].gates, sampled[members[0]].reading, batch, backend)
        for k, number in enumerate(members):
            rows = outputs[batch.edges[k] : batch.edges[k + 1]]
            results[number] = sampled[number].result(rows, rngs[number])
    return results
