"""Qiskit circuits with one parameter per gate angle, and their executables: simulators, samplers, estimators.

A circuit is built and transpiled once. A batch is then a table of parameter values, sent in one submission: one PUB
per measured basis, or one Aer run. Amplitudes come in as the angles of a fixed preparation (see `_lowering`), so
that this works on hardware too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.quantum_info import Pauli, SparsePauliOp

from qstore_core import BackendError, Circuit, RunReport
from qstore_core.circuit.gates import GATES, Cnot
from qstore_core.circuit.measurement import Measurement, Probabilities

from ._aer_register import add_turn
from ._lowering import amplitude_angles, amplitude_gates, gate_angles
from ._readout import Readout, Samples

__all__ = ["AerExact", "AerSampled", "Estimated", "Sampled"]

# Not here: cp, crx, cry, crz. Aer 0.18 takes them with a parameter and leaves the parameter unbound, in silence.
_SAME = ("id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "rx", "ry", "rz", "p", "cy", "cz", "ch", "swap",
         "iswap", "rxx", "ryy", "rzz", "ccx", "ccz", "cswap")  # fmt: skip
_AER_BINDS = {"rx", "ry", "rz", "p", "u", "u1", "u2", "u3", "r", "rxx", "ryy", "rzz", "rzx"}
_METHODS = {**{name: name for name in _SAME}, "cnot": "cx", "u3": "u"}


class ParametrisedCircuit:
    """A qstore circuit as a Qiskit circuit; qubit q stays qubit q.

    Args:
        circuit: What to translate.

    Attributes:
        circuit: The Qiskit circuit, without measurement.
        columns: Number of the column of `values` for each of its parameters, by name.
    """

    def __init__(self, circuit: Circuit) -> None:
        self._width = circuit.n_amplitudes
        self._table = gate_angles(circuit)
        self.circuit = QuantumCircuit(circuit.n_qubits)
        self.columns: dict[str, int] = {}
        if self._width:
            for name, qubits in amplitude_gates(circuit.n_qubits):
                if name == "ry":
                    self.circuit.ry(self._parameter(), *qubits)
                else:
                    self.circuit.cx(*qubits)
        for op in circuit.operations:
            angles = [a.constant if a.is_constant else self._parameter() for a in op.params]
            self._append(op.gate, op.qubits, angles)

    def _parameter(self) -> Parameter:
        name = f"a{len(self.columns):06d}"
        self.columns[name] = len(self.columns)
        return Parameter(name)

    def _append(self, name: str, qubits: Sequence[int], angles: Sequence[Any]) -> None:
        circuit = self.circuit
        if name in _METHODS:
            getattr(circuit, _METHODS[name])(*angles, *qubits)
        elif name == "rot":
            circuit.rz(angles[0], *qubits)
            circuit.ry(angles[1], *qubits)
            circuit.rz(angles[2], *qubits)
        else:
            for step in GATES[name].steps:
                if isinstance(step, Cnot):
                    circuit.cx(qubits[step.control], qubits[step.target])
                else:
                    angle = step.constant
                    for coefficient, value in zip(step.coefficients, angles, strict=False):
                        angle = angle + coefficient * value
                    add_turn(circuit, step.axis, qubits[step.qubit], angle)

    def values(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Parameter values (B, columns) of a batch."""
        angles = self._table.values(theta, inputs[:, self._width :])
        if not self._width:
            return angles
        return np.concatenate([amplitude_angles(inputs[:, : self._width]), angles], axis=1)


class _Base:
    """What the executables here share."""

    def __init__(self, circuit: Circuit, measurement: Measurement, dtype: str) -> None:
        self._source = ParametrisedCircuit(circuit)
        self._readout = Readout(measurement, circuit.n_qubits)
        self._dtype = dtype

    def forward(self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None) -> np.ndarray:
        """Outputs (B, O)."""
        return self.value_and_report(theta, inputs, seed=seed)[0]

    def value_and_report(
        self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None
    ) -> tuple[np.ndarray, RunReport]:
        """The same with standard errors, where outputs are sampled."""
        if not len(inputs):
            return np.zeros((0, self._readout.n_outputs), self._dtype), RunReport()
        outputs, error = self._evaluate(self._source.values(theta, inputs), seed)
        return outputs.astype(self._dtype), RunReport(std_error=error)

    def _evaluate(self, values: np.ndarray, seed: int | None) -> tuple[np.ndarray, np.ndarray | None]:
        raise NotImplementedError

    def _table(self, circuit: QuantumCircuit, values: np.ndarray) -> np.ndarray:
        """The columns that `circuit` still has after transpilation, in the order of its parameters."""
        return values[:, [self._source.columns[p.name] for p in circuit.parameters]]

    def _for_aer(self, circuits: list[QuantumCircuit], simulator: Any, level: int) -> list[QuantumCircuit]:
        """Transpiled, with parameters only where Aer binds them."""
        out = _transpiled(circuits, simulator, level)
        names = {i.operation.name for c in out for i in c.data if c.parameters and _is_parametrised(i.operation)}
        if names - _AER_BINDS:
            raise BackendError(
                f"Aer does not bind parameters of {', '.join(sorted(names - _AER_BINDS))}. "
                "Use optimization_level=0, or basis_gates of rotations.",
                backend="aer",
            )
        return out

    def _measured(self) -> list[QuantumCircuit]:
        """One circuit per group of Pauli strings that are read together; qubit k of the group goes to bit k."""
        circuits = []
        for group in self._readout.groups:
            circuit = self._source.circuit.copy()
            bits = ClassicalRegister(len(group.qubits), "c")
            circuit.add_register(bits)
            for qubit, letter in zip(group.qubits, group.letters, strict=True):
                if letter == "Y":
                    circuit.sdg(qubit)
                if letter in "XY":
                    circuit.h(qubit)
            circuit.measure(group.qubits, bits)
            circuits.append(circuit)
        return circuits


class AerExact(_Base):
    """Exact values from a simulator that saves expectation values and probabilities.

    Args:
        circuit: What is run.
        measurement: What is read.
        simulator: An AerSimulator.
        submit: `(circuits, number of results, **run options) → Result`.
        dtype: Of the outputs.
        level: Optimisation level of the transpiler.
    """

    def __init__(
        self,
        circuit: Circuit,
        measurement: Measurement,
        simulator: Any,
        submit: Callable[..., Any],
        dtype: str,
        level: int,
    ) -> None:
        super().__init__(circuit, measurement, dtype)
        self._submit = submit
        (self._circuit,) = self._for_aer([self._source.circuit], simulator, level)
        layout = self._circuit.layout
        where = range(circuit.n_qubits) if layout is None else layout.final_index_layout(filter_ancillas=True)
        if self._readout.is_probabilities:
            self._circuit.save_probabilities([where[q] for q in reversed(range(circuit.n_qubits))], "p")
        for number, string in enumerate(self._readout.strings):
            # On all qubits: Aer truncates idle ones and then misreads strings on a part (qiskit-aer issue 2442).
            letters = ["I"] * self._circuit.num_qubits
            for q, letter in enumerate(string):
                letters[where[q]] = letter
            pauli = Pauli("".join(reversed(letters)))
            self._circuit.save_expectation_value(pauli, range(len(letters)), f"e{number}")

    def _evaluate(self, values: np.ndarray, seed: int | None) -> tuple[np.ndarray, None]:
        if not self._readout.strings and not self._readout.is_probabilities:
            return np.broadcast_to(self._readout.constant, (len(values), self._readout.n_outputs)), None
        table = self._table(self._circuit, values)
        binds = [dict(zip(self._circuit.parameters, table.T.tolist(), strict=True))] if table.shape[1] else None
        result = self._submit([self._circuit], len(values) if binds else 1, parameter_binds=binds, shots=1)
        rows = [result.data(row) for row in range(len(values) if binds else 1)]
        if self._readout.is_probabilities:
            outputs = self._readout.fold(np.array([row["p"] for row in rows]))
        else:
            strings = range(len(self._readout.strings))
            expectations = np.array([[row[f"e{number}"] for number in strings] for row in rows])
            outputs = expectations @ self._readout.weights + self._readout.constant
        return np.broadcast_to(outputs, (len(values), outputs.shape[1])), None


class AerSampled(_Base):
    """Samples from an AerSimulator: one run for all samples and all bases, outcomes counted by the simulator."""

    def __init__(
        self, circuit: Circuit, measurement: Measurement, simulator: Any, submit: Callable[..., Any], dtype: str,
        level: int, shots: int,
    ) -> None:  # fmt: skip
        super().__init__(circuit, measurement, dtype)
        self._submit, self._shots = submit, shots
        self._circuits = self._for_aer(self._measured(), simulator, level)

    def _evaluate(self, values: np.ndarray, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
        batch = len(values)
        circuits, binds = [], []
        for circuit in self._circuits:
            table = self._table(circuit, values)
            if table.shape[1]:
                circuits.append(circuit)
                binds.append(dict(zip(circuit.parameters, table.T.tolist(), strict=True)))
            else:  # every sample has runs of its own, whether its circuit differs or not
                circuits += [circuit] * batch
                binds += [{}] * batch
        count = batch * len(self._circuits)
        result = self._submit(circuits, count, parameter_binds=binds if any(binds) else None, shots=self._shots,
                              seed_simulator=seed)  # fmt: skip
        samples: list[Samples] = []
        for number, group in enumerate(self._readout.groups):
            counts = [result.data(number * batch + row)["counts"] for row in range(batch)]
            rows = np.repeat(np.arange(batch), [len(c) for c in counts])
            width = len(group.qubits)
            text = b"".join(int(k, 16).to_bytes((width + 7) // 8, "little") for c in counts for k in c)
            packed = np.frombuffer(text, np.uint8).reshape(len(rows), -1)
            bits = np.unpackbits(packed, axis=1, count=width, bitorder="little")
            samples.append((bits, rows, np.concatenate([np.fromiter(c.values(), float, len(c)) for c in counts])))
        return self._readout.from_samples(samples, batch)


class Sampled(_Base):
    """Samples from any SamplerV2: one job of one PUB per basis.

    Args:
        circuit: What is run.
        measurement: What is read.
        sampler: `(seed) → SamplerV2`.
        target: Backend to transpile for; None for a sampler that takes any circuit.
        dtype: Of the outputs.
        level: Optimisation level of the transpiler.
        shots: Per sample and basis.
    """

    def __init__(
        self, circuit: Circuit, measurement: Measurement, sampler: Callable[[int | None], Any], target: Any, dtype: str,
        level: int, shots: int,
    ) -> None:  # fmt: skip
        super().__init__(circuit, measurement, dtype)
        self._sampler, self._shots = sampler, shots
        circuits = self._measured()
        self._circuits = circuits if target is None else _transpiled(circuits, target, level)

    def _evaluate(self, values: np.ndarray, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
        batch = len(values)
        pubs = [(circuit, _bindings(self._table(circuit, values), circuit)) for circuit in self._circuits]
        results = self._sampler(seed).run(pubs, shots=self._shots).result() if pubs else []
        samples: list[Samples] = []
        for group, result in zip(self._readout.groups, results, strict=True):
            packed = np.asarray(result.data.c.array)  # (B, shots, bytes), the last bit is bit 0
            width = len(group.qubits)
            bits = np.unpackbits(packed.reshape(-1, packed.shape[-1]), axis=1)[:, ::-1][:, :width]
            runs = len(bits) // batch
            samples.append((bits, np.repeat(np.arange(batch), runs), np.ones(len(bits))))
        return self._readout.from_samples(samples, batch)


class Estimated(_Base):
    """Expectation values from any EstimatorV2: one PUB, observables broadcast against parameters."""

    def __init__(
        self, circuit: Circuit, measurement: Measurement, estimator: Any, target: Any, dtype: str, level: int,
        shots: int | None,
    ) -> None:  # fmt: skip
        super().__init__(circuit, measurement, dtype)
        assert not isinstance(measurement, Probabilities)
        self._estimator, self._precision = estimator, None if shots is None else shots**-0.5
        self._circuit = self._source.circuit
        if target is not None:
            (self._circuit,) = _transpiled([self._circuit], target, level)
        self._observables = []
        for observable in measurement.as_observables(circuit.n_qubits):
            operator = SparsePauliOp.from_list([(string[::-1], c) for string, c in observable.terms])
            self._observables.append([operator.apply_layout(self._circuit.layout)])

    def _evaluate(self, values: np.ndarray, seed: int | None) -> tuple[np.ndarray, np.ndarray | None]:
        bindings = _bindings(self._table(self._circuit, values), self._circuit)
        pub = (self._circuit, self._observables, bindings)
        data = self._estimator.run([pub], precision=self._precision).result()[0].data
        shape = (self._readout.n_outputs, len(values))
        if np.shape(data.evs) != shape:
            raise BackendError(f"the estimator returned shape {np.shape(data.evs)}, expected {shape}.", backend="aer")
        if self._precision is None:
            return np.asarray(data.evs).T, None
        stds = np.asarray(getattr(data, "stds", 0.0)).T  # 0 of a simulator that adds noise of the precision asked for
        return np.asarray(data.evs).T, np.where(stds > 0, stds, self._precision)


def _transpiled(circuits: list[QuantumCircuit], target: Any, level: int) -> list[QuantumCircuit]:
    out: list[QuantumCircuit] = transpile(circuits, target, optimization_level=level, seed_transpiler=0)
    return out


def _is_parametrised(operation: Any) -> bool:
    return any(isinstance(p, ParameterExpression) and p.parameters for p in operation.params)


def _bindings(table: np.ndarray, circuit: QuantumCircuit) -> Any:
    """Parameter values of one PUB; of shape (B,) also where nothing is left to bind."""
    from qiskit.primitives.containers.bindings_array import BindingsArray

    if table.shape[1]:
        return BindingsArray({tuple(circuit.parameters): table})
    return BindingsArray({}, shape=(len(table),))
