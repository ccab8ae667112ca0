"""Qiskit's circuits as compiled ones: read once, run in batches, measured as PUBs ask."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from qiskit import QuantumCircuit
from qiskit.exceptions import QiskitError

from qstore_core import Circuit, Expectation, InputError, Pauli, Probabilities, SpecError
from qstore_core.backends.forking import new_lock
from qstore_core.circuit.angles.functions import Derived, flattened
from qstore_core.circuit.measurements.measurement import Measurement
from qstore_core.circuit.spec.encoding import unit_rows_and_vjp
from qstore_core.engines.arrays.numpy_ops import NumpyOps
from qstore_core.interchange.qiskit import from_qiskit
from qstore_core.runtime.cache import Recipe, compiled

__all__ = [
    "Measured",
    "Program",
    "bits_measured",
    "expectations",
    "pauli_terms",
    "program_of",
    "run",
    "strings_measured",
    "weights",
]

_MOST = 128  # circuits that are remembered


class Measured(NamedTuple):
    """Where the bits of the classical registers come from.

    Attributes:
        qubits: The measured ones, each once.
        registers: For each register its name, and for each of its bits the place in `qubits`; -1 where none is
            measured into it, so that it stays 0.
    """

    qubits: tuple[int, ...]
    registers: tuple[tuple[str, tuple[int, ...]], ...]


class Program(NamedTuple):
    """A circuit whose inputs are all its parameters, in Qiskit's order, and what it measures.

    Attributes:
        circuit: Its inputs are the parameters, and what `derived` computes from them.
        measured: Where classical bits come from.
        derived: Functions of parameters; None where all angles are polynomials.
    """

    circuit: Circuit
    measured: Measured
    derived: Derived | None


class _Kept(NamedTuple):
    copy: QuantumCircuit
    numbers: list[float]
    program: Program


_kept: OrderedDict[int, _Kept] = OrderedDict()
_lock = new_lock(__name__, "_lock")


def program_of(circuit: QuantumCircuit) -> Program:
    """A circuit, read; one that has not changed since is remembered.

    Raises:
        SpecError: it measures, resets or branches before the end, or has what no gate of the table says.
    """
    numbers = [p for item in circuit.data for p in item.operation.params if isinstance(p, float)]
    with _lock:
        kept = _kept.get(id(circuit))
    if kept is not None and kept.numbers == numbers and _is_equal(kept.copy, circuit):
        return kept.program
    bare, measured = _without_measurements(circuit)
    flat, derived = flattened(from_qiskit(bare, input_params=list(bare.parameters)).circuit)
    if flat.n_amplitudes:  # which count from the least significant qubit: the register is reversed with them
        flipped = tuple(flat.n_qubits - 1 - q for q in measured.qubits)
        measured = measured._replace(qubits=flipped)
    program = Program(flat, measured, derived)
    with _lock:
        _kept[id(circuit)] = _Kept(circuit.copy(), numbers, program)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    return program


def _is_equal(kept: QuantumCircuit, circuit: QuantumCircuit) -> bool:
    try:
        return bool(kept == circuit)
    except QiskitError:  # an instruction that cannot be written out does not compare
        return False


def _without_measurements(circuit: QuantumCircuit) -> tuple[QuantumCircuit, Measured]:
    """The gates, and the measurements at the end."""
    bare = QuantumCircuit(circuit.qubits)
    place = {qubit: k for k, qubit in enumerate(circuit.qubits)}
    source: dict[Any, int] = {}  # classical bit → qubit
    for number, item in enumerate(circuit.data):
        name = item.operation.name
        if name in ("barrier", "delay"):
            continue
        if name == "measure":
            source[item.clbits[0]] = place[item.qubits[0]]
            continue
        if late := [place[q] for q in item.qubits if place[q] in source.values()]:
            raise SpecError(
                f"instruction {number} is {name!r} on qubit {late[0]}, after it was measured: qstore's primitives "
                "measure at the end. Write the measurement on another qubit with a CNOT, and measure that at the end."
            )
        if item.clbits:
            raise SpecError(
                f"instruction {number} is {name!r}: what depends on results cannot be said in a circuit with "
                "parameter slots. Write it with controlled gates."
            )
        bare.append(item.operation, item.qubits)
    qubits = tuple(sorted(set(source.values())))
    registers = tuple(
        (register.name, tuple(qubits.index(source[bit]) if bit in source else -1 for bit in register))
        for register in circuit.cregs
    )
    return bare, Measured(qubits, registers)


# Observables in PUBs may have projectors: letter → Pauli letters with coefficients.
_LETTERS: dict[str, tuple[tuple[str, float], ...]] = {
    **{letter: ((letter, 1.0),) for letter in "IXYZ"},
    "0": (("I", 0.5), ("Z", 0.5)), "1": (("I", 0.5), ("Z", -0.5)),
    "+": (("I", 0.5), ("X", 0.5)), "-": (("I", 0.5), ("X", -0.5)),
    "r": (("I", 0.5), ("Y", 0.5)), "l": (("I", 0.5), ("Y", -0.5)),
}  # fmt: skip


def pauli_terms(observable: Mapping[str, Any], circuit: Circuit) -> dict[str, float]:
    """An observable of a PUB as Pauli strings for the qubits of a circuit, with real coefficients."""
    step = -1 if not circuit.n_amplitudes else 1
    terms: dict[str, float] = {}
    for label, coefficient in observable.items():
        value = complex(coefficient)
        if abs(value.imag) > 1e-12 * max(1.0, abs(value)):
            raise SpecError(f"coefficient {value:g} of {label} is not real: an observable is Hermitian.")
        for letters in itertools.product(*(_LETTERS[letter] for letter in label[::step])):
            string = "".join(letter for letter, _ in letters)
            factor = float(np.prod([part for _, part in letters]))
            terms[string] = terms.get(string, 0.0) + factor * value.real
    return terms


def run(program: Program, measurement: Measurement, rows: np.ndarray, backend: Any, *, vjp: bool = False) -> Any:
    """Outputs (B, O) of one call of the engine for parameters (B, P); with `vjp` also the function for cotangents."""
    executable = compiled(Recipe(program.circuit, measurement, backend, "float64"))
    rows = np.ascontiguousarray(rows, float)
    if not np.isfinite(rows).all():
        raise InputError("parameter values are NaN or infinite in places; gates take finite angles.")
    theta, inputs, derived_vjp = np.empty(0), rows, None
    if program.derived is not None:
        with np.errstate(all="ignore"):
            theta, inputs, derived_vjp = program.derived.extend(NumpyOps(), theta, rows)
        program.derived.refuse(theta, inputs, "a circuit")
        inputs = np.ascontiguousarray(inputs)
    inputs, unit_vjp = _unit(program.circuit, inputs, backend)
    if not vjp:
        return executable.forward(theta, inputs)
    outputs, engine_vjp = executable.value_and_vjp(theta, inputs)  # type: ignore[attr-defined]

    def vjp_fn(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_theta, d_inputs = engine_vjp(cotangents)
        d_inputs = d_inputs if unit_vjp is None else unit_vjp(d_inputs)
        return (d_theta, d_inputs) if derived_vjp is None else derived_vjp(d_theta, d_inputs)

    return outputs, vjp_fn


def _unit(circuit: Circuit, inputs: np.ndarray, backend: Any) -> tuple[np.ndarray, Any]:
    """Amplitudes of norm 1 for engines that do not normalise, and the vjp of that."""
    width = circuit.n_amplitudes
    if not width or backend.capabilities.features:
        return inputs, None
    unit, unit_vjp = unit_rows_and_vjp(NumpyOps(), inputs[:, :width], width)
    made = np.ascontiguousarray(np.concatenate([unit, inputs[:, width:]], axis=1))
    return made, lambda d: np.concatenate([unit_vjp(d[:, :width]), d[:, width:]], axis=1)


def strings_measured(strings: tuple[str, ...]) -> Expectation:
    """Each Pauli string as an output."""
    return Expectation(observables=tuple(Pauli(string) for string in strings))


def bits_measured(measured: Measured) -> Probabilities:
    """Probabilities of the measured qubits."""
    return Probabilities(measured.qubits)


def expectations(
    asked: Sequence[tuple[Program, np.ndarray, Sequence[dict[str, float]]]], backend: Any
) -> list[np.ndarray]:
    """For each `(program, rows, observables)` the values (rows, observables).

    Those of one circuit and equal rows read their strings together; those of one circuit and equal strings are rows of
    one batch.
    """
    by_rows: dict[Any, list[int]] = {}
    for number, (program, rows, _) in enumerate(asked):
        by_rows.setdefault((program, rows.tobytes()), []).append(number)
    by_strings: dict[Any, list[list[int]]] = {}
    for (program, _), numbers in by_rows.items():
        strings = dict.fromkeys(string for number in numbers for terms in asked[number][2] for string in terms)
        by_strings.setdefault((program, tuple(strings)), []).append(numbers)
    tables: list[np.ndarray] = [np.empty(0)] * len(asked)
    for (program, strings), groups in by_strings.items():
        rows = np.concatenate([asked[numbers[0]][1] for numbers in groups])
        outputs = run(program, strings_measured(strings), rows, backend) if strings else np.zeros((len(rows), 0))
        first = 0
        for numbers in groups:
            last = first + len(asked[numbers[0]][1])
            for number in numbers:
                tables[number] = outputs[first:last] @ weights(strings, asked[number][2])
            first = last
    return tables


def weights(strings: Sequence[str], observables: Sequence[dict[str, float]]) -> np.ndarray:
    """Coefficients (strings, observables)."""
    place, out = {string: k for k, string in enumerate(strings)}, np.zeros((len(strings), len(observables)))
    for column, terms in enumerate(observables):
        for string, coefficient in terms.items():
            out[place[string], column] = coefficient
    return out
