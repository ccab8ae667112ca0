"""Gradients for qiskit-machine-learning's networks, exact, by the adjoint method of qstore's engines.

One reverse sweep of a whole batch for each output, in place of two circuits for each parameter and sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qiskit.providers import Options
from qiskit_machine_learning.gradients import (
    BaseEstimatorGradient,
    BaseSamplerGradient,
    EstimatorGradientResult,
    SamplerGradientResult,
)

from qstore_core import SpecError

from ._engines import OnEngine
from ._qiskit_programs import bits_measured, pauli_terms, program_of, run, strings_measured, weights

__all__ = ["EstimatorGradient", "SamplerGradient"]


class EstimatorGradient(OnEngine, BaseEstimatorGradient):
    """For `EstimatorQNN(gradient=…)`.

    Args:
        backend: As for `qstore_plugins.qiskit_primitives.Estimator`.

    Example:
        >>> from qiskit.circuit import Parameter, QuantumCircuit
        >>> from qiskit.quantum_info import SparsePauliOp
        >>> circuit = QuantumCircuit(1)
        >>> _ = circuit.ry(Parameter("x"), 0)
        >>> job = EstimatorGradient().run([circuit], [SparsePauliOp("Z")], [[0.5]])
        >>> job.result().gradients[0].round(4)   # -sin 0.5
        array([-0.4794])
    """

    def __init__(self, backend: str = "auto") -> None:
        super().__init__(None)  # no estimator: derivatives come from the engine
        self._choose(backend)

    def _run(
        self, circuits: Sequence[Any], observables: Sequence[Any], parameter_values: Any, parameters: Any,
        **options: Any,
    ) -> EstimatorGradientResult:  # fmt: skip
        gradients: list[np.ndarray] = [np.empty(0)] * len(circuits)
        for circuit, numbers in _by_circuit(circuits):
            program = program_of(circuit)
            if program.measured.qubits:
                raise SpecError("an estimator measures observables, the circuit has measurements of its own.")
            rows, row_of = _unique_rows([parameter_values[number] for number in numbers])
            wanted = {id(observables[number]): observables[number] for number in numbers}
            terms = {key: pauli_terms(dict(one.to_list()), program.circuit) for key, one in wanted.items()}
            strings = tuple(dict.fromkeys(string for one in terms.values() for string in one))
            slopes = dict.fromkeys(terms, np.zeros((len(rows), circuit.num_parameters)))
            if strings:
                outputs, vjp_fn = run(program, strings_measured(strings), rows, self._backend, vjp=True)
                for key, column in zip(terms, weights(strings, list(terms.values())).T, strict=True):
                    slopes[key] = vjp_fn(np.tile(column, (len(outputs), 1)))[1]
            places = {parameter: k for k, parameter in enumerate(circuit.parameters)}
            for number, row in zip(numbers, row_of, strict=True):
                gradient = slopes[id(observables[number])][row]
                gradients[number] = gradient[[places[parameter] for parameter in parameters[number]]]
        metadata = [{"parameters": list(some)} for some in parameters]
        return EstimatorGradientResult(gradients=gradients, metadata=metadata, options=Options(**options))


class SamplerGradient(OnEngine, BaseSamplerGradient):
    """For `SamplerQNN(gradient=…)`: gradients of the exact probabilities, at most 10 measured bits.

    Args:
        backend: As for `qstore_plugins.qiskit_primitives.Sampler`.
    """

    def __init__(self, backend: str = "auto") -> None:
        super().__init__(None)  # no sampler: derivatives come from the engine
        self._choose(backend)

    def _run(
        self, circuits: Sequence[Any], parameter_values: Any, parameters: Any, **options: Any
    ) -> SamplerGradientResult:
        gradients: list[list[dict[int, float]]] = [[] for _ in circuits]
        for circuit, numbers in _by_circuit(circuits):
            program = program_of(circuit)
            qubits = program.measured.qubits
            if not 1 <= len(qubits) <= _MOST_BITS:
                raise SpecError(f"gradients of 1 to {_MOST_BITS} measured qubits, received {len(qubits)}.")
            rows, row_of = _unique_rows([parameter_values[number] for number in numbers])
            outputs, vjp_fn = run(program, bits_measured(program.measured), rows, self._backend, vjp=True)
            slopes = np.zeros((*outputs.shape, circuit.num_parameters))
            for k in range(outputs.shape[1]):
                cotangents = np.zeros(outputs.shape)
                cotangents[:, k] = 1.0
                slopes[:, k] = vjp_fn(cotangents)[1]
            keys = _integers(circuit, program.measured, outputs.shape[1])
            places = {parameter: k for k, parameter in enumerate(circuit.parameters)}
            for number, row in zip(numbers, row_of, strict=True):
                for parameter in parameters[number]:
                    column = slopes[row, :, places[parameter]]
                    gradients[number].append(dict(zip(keys, map(float, column), strict=True)))
        metadata = [{"parameters": list(some)} for some in parameters]
        return SamplerGradientResult(gradients=gradients, metadata=metadata, options=Options(**options))


_MOST_BITS = 10  # a sweep for each outcome


def _by_circuit(circuits: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """The different circuits, each with its numbers."""
    groups: dict[int, tuple[Any, list[int]]] = {}
    for number, circuit in enumerate(circuits):
        groups.setdefault(id(circuit), (circuit, []))[1].append(number)
    return list(groups.values())


def _unique_rows(values: Sequence[Any]) -> tuple[np.ndarray, list[int]]:
    """Different rows of parameter values, and which of them each is."""
    rows = np.asarray(values, float)
    found: dict[bytes, int] = {}
    row_of = [found.setdefault(row.tobytes(), len(found)) for row in rows]
    first = {place: number for number, place in reversed(list(enumerate(row_of)))}
    return rows[[first[k] for k in range(len(found))]], row_of


def _integers(circuit: Any, measured: Any, outcomes: int) -> list[int]:
    """The integer of the classical bits, the first one least significant, for each outcome of the measured qubits."""
    place: dict[Any, Any] = {}
    for register, (_, places) in zip(circuit.cregs, measured.registers, strict=True):
        place |= dict(zip(register, places, strict=True))
    k = len(measured.qubits)
    return [
        sum(((outcome >> (k - 1 - place[bit])) & 1) << j for j, bit in enumerate(circuit.clbits) if place[bit] >= 0)
        for outcome in range(outcomes)
    ]
