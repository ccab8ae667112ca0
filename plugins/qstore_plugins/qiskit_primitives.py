"""qstore's engines as Qiskit's primitives: `Estimator` and `Sampler`, version 2.

PUBs that share a circuit are one call of the engine, whatever their parameter values and observables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from qiskit.primitives import (
    BaseEstimatorV2,
    BaseSamplerV2,
    BitArray,
    DataBin,
    PrimitiveJob,
    PrimitiveResult,
    PubResult,
    SamplerPubResult,
)
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qstore_core import SpecError

from ._engines import OnEngine
from ._qiskit_programs import Program, bits_measured, expectations, pauli_terms, program_of, run

__all__ = ["Estimator", "Sampler"]


class Estimator(OnEngine, BaseEstimatorV2):
    """Expectation values, exact, or with the noise that a precision allows.

    Args:
        default_precision: Standard deviation of the normal noise on every value; 0 for exact ones.
        seed: Of that noise, as in `StatevectorEstimator`.
        backend: Which engine of qstore computes: "numba", "statevector", or "auto" for the fastest installed.

    Example:
        >>> from qiskit.circuit import Parameter, QuantumCircuit
        >>> circuit = QuantumCircuit(2)
        >>> _ = circuit.ry(Parameter("x"), 0), circuit.cx(0, 1)
        >>> job = Estimator().run([(circuit, ["ZI", "IZ", "XX"], [[0.5]])])
        >>> job.result()[0].data.evs.round(4)   # cos 0.5, cos 0.5, sin 0.5
        array([0.8776, 0.8776, 0.4794])
    """

    def __init__(
        self, *, default_precision: float = 0.0, seed: np.random.Generator | int | None = None, backend: str = "auto"
    ) -> None:
        self.default_precision, self.seed = default_precision, seed
        self._choose(backend)

    def run(self, pubs: Iterable[Any], *, precision: float | None = None) -> PrimitiveJob:
        """A job whose result has `data.evs` and `data.stds` for each PUB.

        Args:
            pubs: `(circuit, observables)`, `(circuit, observables, parameter values)`, with or without a precision.
            precision: For PUBs without one.
        """
        precision = self.default_precision if precision is None else precision
        job = PrimitiveJob(self._run, [EstimatorPub.coerce(pub, precision) for pub in pubs])
        job._submit()
        return job

    def _run(self, pubs: Sequence[EstimatorPub]) -> PrimitiveResult:
        programs = _programs(pubs)
        asked = [_Asked(pub, programs[id(pub.circuit)]) for pub in pubs]
        values = expectations([(one.program, one.rows, one.terms) for one in asked], self._backend)
        results = []
        for one, table in zip(asked, values, strict=True):
            evs = np.asarray(table[one.row_of, one.term_of])  # of one number too
            precision = one.pub.precision
            if precision:
                evs = np.asarray(np.random.default_rng(self.seed).normal(evs, precision))
            data = DataBin(evs=evs, stds=np.full(evs.shape, float(precision)), shape=evs.shape)
            metadata = {"target_precision": precision, "circuit_metadata": one.pub.circuit.metadata}
            results.append(PubResult(data, metadata=metadata))
        return PrimitiveResult(results, metadata={"version": 2})


class _Asked:
    """A PUB as rows of parameter values, observables, and which of them each entry of its result is."""

    def __init__(self, pub: EstimatorPub, program: Program) -> None:
        self.pub, self.program = pub, program
        if self.program.measured.qubits:
            raise SpecError(
                "an estimator measures observables, the circuit has measurements of its own: use "
                "circuit.remove_final_measurements(inplace=False)."
            )
        self.rows = _rows(pub)
        shape = pub.parameter_values.shape
        observables = np.asarray(pub.observables.ravel().tolist(), dtype=object)
        self.terms = [pauli_terms(observable, program.circuit) for observable in observables]
        row, term = np.arange(len(self.rows)).reshape(shape), np.arange(len(self.terms)).reshape(pub.observables.shape)
        self.row_of, self.term_of = np.broadcast_arrays(row, term)


def _programs(pubs: Sequence[Any]) -> dict[int, Program]:
    """The different circuits of PUBs, read, by identity."""
    return {number: program_of(circuit) for number, circuit in {id(pub.circuit): pub.circuit for pub in pubs}.items()}


def _rows(pub: Any) -> np.ndarray:
    """Parameter values (rows, parameters) in the order of `circuit.parameters`."""
    names = list(pub.circuit.parameters)
    values = np.asarray(pub.parameter_values.as_array(names), float)
    return values.reshape(int(np.prod(pub.parameter_values.shape, dtype=int)), len(names))


class Sampler(OnEngine, BaseSamplerV2):
    """Samples of circuits that measure at their end, one `BitArray` for each classical register.

    Args:
        default_shots: Where neither `run` nor a PUB says how many.
        seed: Equal seeds give equal samples; of a whole number every run begins anew.
        backend: As for `Estimator`.

    Example:
        >>> from qiskit.circuit import QuantumCircuit
        >>> bell = QuantumCircuit(2)
        >>> _ = bell.h(0), bell.cx(0, 1), bell.measure_all()
        >>> counts = Sampler(seed=7).run([bell], shots=1000).result()[0].data.meas.get_counts()
        >>> sorted(counts), sum(counts.values())
        (['00', '11'], 1000)
    """

    def __init__(
        self, *, default_shots: int = 1024, seed: np.random.Generator | int | None = None, backend: str = "auto"
    ) -> None:
        self.default_shots, self.seed = default_shots, seed
        self._choose(backend)

    def run(self, pubs: Iterable[Any], *, shots: int | None = None) -> PrimitiveJob:
        """A job whose result has a `BitArray` for each register of each PUB.

        Args:
            pubs: Circuits, or `(circuit, parameter values)`, with or without a number of shots.
            shots: For PUBs without one.
        """
        coerced = [SamplerPub.coerce(pub, self.default_shots if shots is None else shots) for pub in pubs]
        for number, pub in enumerate(coerced):
            if not pub.circuit.cregs:
                raise SpecError(
                    f"circuit {number} has no classical register, so there is nothing to sample: add measurements, "
                    "for example circuit.measure_all()."
                )
        job = PrimitiveJob(self._run, coerced)
        job._submit()
        return job

    def _run(self, pubs: Sequence[SamplerPub]) -> PrimitiveResult:
        read = _programs(pubs)
        programs, rows = [read[id(pub.circuit)] for pub in pubs], [_rows(pub) for pub in pubs]
        probabilities = _probabilities(programs, rows, self._backend)
        rng = np.random.default_rng(self.seed)
        results = []
        for pub, program, table in zip(pubs, programs, probabilities, strict=True):
            bits = _drawn(table, pub.shots, len(program.measured.qubits), rng)
            arrays = {}
            for name, places in program.measured.registers:
                columns = np.take(bits, [k if k >= 0 else bits.shape[-1] - 1 for k in places], axis=-1)
                made = BitArray.from_bool_array(columns, order="little")
                arrays[name] = made.reshape((*pub.shape, pub.shots))
            metadata = {"shots": pub.shots, "circuit_metadata": pub.circuit.metadata}
            results.append(SamplerPubResult(DataBin(**arrays, shape=pub.shape), metadata=metadata))
        return PrimitiveResult(results, metadata={"version": 2})


def _probabilities(programs: Sequence[Program], rows: Sequence[np.ndarray], backend: Any) -> list[np.ndarray]:
    """Probabilities (rows, 2**k) of the measured qubits; equal circuits are one batch."""
    groups: dict[Program, list[int]] = {}
    for number, program in enumerate(programs):
        groups.setdefault(program, []).append(number)
    tables: list[np.ndarray] = [np.empty(0)] * len(programs)
    for program, numbers in groups.items():
        together = np.concatenate([rows[number] for number in numbers])
        outputs = np.ones((len(together), 1))
        if program.measured.qubits:
            outputs = run(program, bits_measured(program.measured), together, backend)
        edges = np.cumsum([0, *(len(rows[number]) for number in numbers)])
        for k, number in enumerate(numbers):
            tables[number] = outputs[edges[k] : edges[k + 1]]
    return tables


def _drawn(probabilities: np.ndarray, shots: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Measured bits (rows, shots, k + 1), first qubit first, and a 0 at the end for bits that nothing is written to."""
    cumulative = np.cumsum(np.maximum(probabilities, 0.0), axis=1)
    draws = rng.random((len(probabilities), shots)) * cumulative[:, -1:]
    index = np.array([np.searchsorted(row, draw, side="right") for row, draw in zip(cumulative, draws, strict=True)])
    index = np.minimum(index.reshape(draws.shape), (1 << k) - 1)
    bits = (index[..., None] >> np.arange(k - 1, -1, -1)) & 1
    return np.concatenate([bits, np.zeros((*index.shape, 1), bits.dtype)], axis=-1).astype(bool)
