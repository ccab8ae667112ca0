"""Qiskit circuits with one parameter per gate angle, and their executables: simulators, samplers, estimators.

A circuit is built and transpiled once. A batch is then a table of parameter values, sent in one submission: one PUB
per measured basis, or one Aer run. Amplitudes come in as the angles of a fixed preparation (see `_lowering`), so
that this works on hardware too.

Under a noise model a circuit runs as it is written: one instruction per gate, with the gate's own name as its label,
and nothing is transpiled. What is no gate of the circuit (the preparation of amplitudes, changes of the measured basis)
has labels that no model names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.circuit.library import CXGate, HGate, RYGate, SdgGate, UGate, UnitaryGate
from qiskit.quantum_info import Kraus, Pauli, SparsePauliOp

from qstore_core import BackendError, Circuit, RunReport
from qstore_core.circuit.gates.table import GATES, Cnot
from qstore_core.circuit.measurements.measurement import Measurement, Probabilities
from qstore_core.engines.arrays.angles import gate_angles
from qstore_core.engines.readout import Readout, Samples

from .._lowering import amplitude_angles, amplitude_gates
from ._noise import Channels, Noise
from ._register import add_turn

__all__ = ["AerExact", "AerSampled", "Estimated", "Sampled", "instruction_names", "kept_names"]

# Not here: cp, crx, cry, crz. Aer 0.18 takes them with a parameter and leaves the parameter unbound, in silence.
_SAME = ("id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "rx", "ry", "rz", "p", "cy", "cz", "ch", "swap",
         "iswap", "rxx", "ryy", "rzz", "ccx", "ccz", "cswap")  # fmt: skip
_AER_BINDS = {"rx", "ry", "rz", "p", "u", "u1", "u2", "u3", "r", "rxx", "ryy", "rzz", "rzx"}
_METHODS = {**{name: name for name in _SAME}, "cnot": "cx", "u3": "u"}
_WRITTEN = {name: method for name, method in _METHODS.items() if name not in ("ch", "iswap", "ccz", "cswap", "u3")}
_PREPARE, _BASIS = "qstore.prepare", "qstore.basis"


def kept_names(target: Any) -> set[str]:
    """Gates that run on a target without being decomposed, here or by the transpiler."""
    names = None if target is None else set(target.target.operation_names)
    return {name for name in _METHODS.values() if names is None or name in names}


def instruction_names(circuit: Circuit) -> set[str]:
    """Qiskit's names of a circuit's gates."""
    return {_METHODS.get(op.gate, op.gate) for op in circuit.operations}


class ParametrisedCircuit:
    """A qstore circuit as a Qiskit circuit; qubit q stays qubit q.

    Args:
        circuit: What to translate.
        noise: Where it is given, the circuit is to run as it is written.

    Attributes:
        circuit: The Qiskit circuit, without measurement.
        columns: Number of the column of `values` for each of its parameters, by name.
        late: `(position, gate, parameters)` of gates that no simulator takes with a parameter; see `with_row`.
    """

    def __init__(self, circuit: Circuit, noise: Noise | Channels | None = None) -> None:
        self._width = circuit.n_amplitudes
        self._table = gate_angles(circuit)
        self.circuit = QuantumCircuit(circuit.n_qubits)
        self.columns: dict[str, int] = {}
        self.late: list[tuple[int, str, list[Any]]] = []
        label = None if noise is None else _PREPARE
        if self._width:
            for name, qubits in amplitude_gates(circuit.n_qubits):
                gate = RYGate(self._parameter(), label=label) if name == "ry" else CXGate(label=label)
                self.circuit.append(gate, qubits)
        for op in circuit.operations:
            if op.channel is not None:
                if not op.channel.is_readout:
                    self.circuit.append(_kraus(op.channel.operators), op.qubits)
                continue
            angles = [a.constant if a.is_constant else self._parameter() for a in op.params]
            if noise is None:
                self._append(op.gate, op.qubits, angles)
            else:
                self._write(op.gate, op.qubits, angles, noise)

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

    def _write(self, name: str, qubits: Sequence[int], angles: list[Any], noise: Noise | Channels) -> None:
        """One instruction, whose name or label is the gate's."""
        circuit = self.circuit
        if name in _WRITTEN:
            getattr(circuit, _WRITTEN[name])(*angles, *qubits)
        elif name == "u3":
            circuit.append(UGate(*angles, label="u3" if "u3" in noise.names else None), qubits)
        elif name == "rot":  # equal up to a global phase
            circuit.append(UGate(angles[1], angles[2], angles[0], label="rot"), qubits)
        else:
            if any(isinstance(angle, Parameter) for angle in angles):
                self.late.append((len(circuit.data), name, angles))
                angles = [0.0] * len(angles)
            circuit.append(_unitary(name, angles), qubits)

    def with_row(self, circuit: QuantumCircuit, row: np.ndarray) -> QuantumCircuit:
        """`circuit`, which begins with this one, with the matrices of its `late` gates for one row of values."""
        circuit = circuit.copy()
        for position, name, angles in self.late:
            values = [row[self.columns[a.name]] if isinstance(a, Parameter) else a for a in angles]
            circuit.data[position] = circuit.data[position].replace(operation=_unitary(name, values))
        return circuit

    def values(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Parameter values (B, columns) of a batch."""
        angles = self._table.values(theta, inputs[:, self._width :])
        if not self._width:
            return angles
        return np.concatenate([amplitude_angles(inputs[:, : self._width]), angles], axis=1)


def _little_endian(matrix: np.ndarray) -> np.ndarray:
    """The first qubit is the least significant, as Qiskit has it; a copy, since Aer transposes read-only matrices."""
    k = len(matrix).bit_length() - 1
    order = [*reversed(range(k)), *reversed(range(k, 2 * k))]
    return np.array(matrix.reshape((2,) * 2 * k).transpose(order).reshape(matrix.shape))


def _unitary(name: str, angles: Sequence[float]) -> UnitaryGate:
    """A gate as a matrix, labelled by its name."""
    return UnitaryGate(_little_endian(GATES[name].matrix(*angles)), label=name)


def _kraus(operators: Sequence[np.ndarray]) -> Any:
    return Kraus([_little_endian(operator) for operator in operators]).to_instruction()


class _Base:
    """What the executables here share."""

    def __init__(
        self, circuit: Circuit, measurement: Measurement, dtype: str, noise: Noise | Channels | None = None
    ) -> None:
        self._source = ParametrisedCircuit(circuit, noise)
        self._label = None if noise is None else _BASIS
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

    def _turned(self) -> list[QuantumCircuit]:
        """One circuit per group of Pauli strings that are read together, rotated so that bits can be read."""
        circuits = []
        for group in self._readout.groups:
            circuit = self._source.circuit.copy()
            for qubit, letter in zip(group.qubits, group.letters, strict=True):
                if letter == "Y":
                    circuit.append(SdgGate(label=self._label), [qubit])
                if letter in "XY":
                    circuit.append(HGate(label=self._label), [qubit])
            circuits.append(circuit)
        return circuits

    def _measured(self) -> list[QuantumCircuit]:
        """The same with measurements; qubit k of the group goes to bit k."""
        circuits = self._turned()
        for circuit, group in zip(circuits, self._readout.groups, strict=True):
            bits = ClassicalRegister(len(group.qubits), "c")
            circuit.add_register(bits)
            circuit.measure(group.qubits, bits)
        return circuits

    def _bound(self, circuits: list[QuantumCircuit], values: np.ndarray) -> tuple[list[QuantumCircuit], Any]:
        """Circuits and parameter values for an Aer run: results are first all rows of the first circuit, and so on."""
        out: list[QuantumCircuit] = []
        binds: list[dict[Any, list[float]]] = []
        for circuit in circuits:
            table = self._table(circuit, values)
            if self._source.late:
                out += [self._source.with_row(circuit, row) for row in values]
                binds += [{p: [v] for p, v in zip(circuit.parameters, row, strict=True)} for row in table.tolist()]
            elif table.shape[1]:
                out.append(circuit)
                binds.append(dict(zip(circuit.parameters, table.T.tolist(), strict=True)))
            else:  # every row has runs of its own, whether its circuit differs or not
                out += [circuit] * len(values)
                binds += [{}] * len(values)
        return out, binds if any(binds) else None


class AerExact(_Base):
    """Exact values from a simulator that saves expectation values, or distributions where qubits are misread.

    Args:
        circuit: What is run.
        measurement: What is read.
        simulator: An AerSimulator.
        submit: `(circuits, number of results, **run options) → Result`.
        dtype: Of the outputs.
        level: Optimisation level of the transpiler; None for circuits that run as they are written.
        noise: Of the simulator.
    """

    def __init__(
        self, circuit: Circuit, measurement: Measurement, simulator: Any, submit: Callable[..., Any], dtype: str,
        level: int | None, noise: Noise | Channels | None,
    ) -> None:  # fmt: skip
        super().__init__(circuit, measurement, dtype, noise if level is None else None)
        self._submit = submit
        # On a device changes of basis are gates with noise of their own, as they are for samples.
        self._distributions = noise is not None and (noise.spoils_readout or level is not None)
        circuits = self._turned() if self._distributions else [self._source.circuit]
        self._circuits = circuits if level is None else self._for_aer(circuits, simulator, level)
        self._confusion: list[list[np.ndarray | None]] = []
        if self._distributions:
            assert noise is not None
            for one, group in zip(self._circuits, self._readout.groups, strict=True):
                where = _places(one, circuit.n_qubits)
                one.save_probabilities([where[q] for q in reversed(group.qubits)], "p")
                self._confusion.append([noise.confusion(where[q]) for q in group.qubits])
        elif self._readout.is_probabilities:
            where = _places(self._circuits[0], circuit.n_qubits)
            self._circuits[0].save_probabilities([where[q] for q in reversed(range(circuit.n_qubits))], "p")
        else:
            self._save_strings(self._circuits[0], _places(self._circuits[0], circuit.n_qubits))

    def _save_strings(self, circuit: QuantumCircuit, where: Sequence[int]) -> None:
        for number, string in enumerate(self._readout.strings):
            # On all qubits: Aer truncates idle ones and then misreads strings on a part (qiskit-aer issue 2442).
            letters = ["I"] * circuit.num_qubits
            for q, letter in enumerate(string):
                letters[where[q]] = letter
            pauli = Pauli("".join(reversed(letters)))
            circuit.save_expectation_value(pauli, range(len(letters)), f"e{number}")

    def _evaluate(self, values: np.ndarray, seed: int | None) -> tuple[np.ndarray, None]:
        if not self._readout.strings and not self._readout.is_probabilities:
            return np.broadcast_to(self._readout.constant, (len(values), self._readout.n_outputs)), None
        rows = values if values.shape[1] else values[:1]
        circuits, binds = self._bound(self._circuits, rows)
        count = len(rows) * len(self._circuits)
        result = self._submit(circuits, count, parameter_binds=binds, shots=1)
        saved = [result.data(number) for number in range(count)]
        if self._distributions:
            outputs = self._readout.from_distributions([
                _read(np.array([one["p"] for one in saved[k * len(rows) : (k + 1) * len(rows)]]), confusion)
                for k, confusion in enumerate(self._confusion)
            ])  # fmt: skip
        elif self._readout.is_probabilities:
            outputs = self._readout.fold(np.array([one["p"] for one in saved]))
        else:
            strings = range(len(self._readout.strings))
            expectations = np.array([[one[f"e{number}"] for number in strings] for one in saved])
            outputs = expectations @ self._readout.weights + self._readout.constant
        return np.broadcast_to(outputs, (len(values), outputs.shape[1])), None


def _places(circuit: QuantumCircuit, n_qubits: int) -> Sequence[int]:
    """Where the transpiler left each qubit."""
    if circuit.layout is None:
        return range(n_qubits)
    places: Sequence[int] = circuit.layout.final_index_layout(filter_ancillas=True)
    return places


def _read(distributions: np.ndarray, confusion: Sequence[np.ndarray | None]) -> np.ndarray:
    """Distributions (B, 2**k) of bits, first qubit most significant → of what is read."""
    tensor = distributions.reshape(-1, *(2,) * len(confusion))
    for axis, matrix in enumerate(confusion, 1):
        if matrix is not None:
            tensor = np.moveaxis(np.tensordot(tensor, matrix, (axis, 0)), -1, axis)
    return tensor.reshape(distributions.shape)


class AerSampled(_Base):
    """Samples from an AerSimulator: one run for all samples and all bases, outcomes counted by the simulator."""

    def __init__(
        self, circuit: Circuit, measurement: Measurement, simulator: Any, submit: Callable[..., Any], dtype: str,
        level: int | None, noise: Noise | Channels | None, shots: int,
    ) -> None:  # fmt: skip
        super().__init__(circuit, measurement, dtype, noise if level is None else None)
        self._submit, self._shots = submit, shots
        circuits = self._measured()
        self._circuits = circuits if level is None else self._for_aer(circuits, simulator, level)

    def _evaluate(self, values: np.ndarray, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
        batch = len(values)
        circuits, binds = self._bound(self._circuits, values)
        if not circuits:  # identities alone
            return self._readout.from_samples([], batch)
        count = batch * len(self._circuits)
        result = self._submit(circuits, count, parameter_binds=binds, shots=self._shots, seed_simulator=seed)
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
        if self._precision == 1.0:  # one shot tells nothing about its spread
            stds = np.full_like(stds, np.nan, shape=shape[::-1])
        return np.asarray(data.evs).T, np.where(stds <= 0, self._precision, stds)


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
