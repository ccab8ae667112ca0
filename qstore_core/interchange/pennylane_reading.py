"""A tape of PennyLane, operation by operation, as a circuit; what it measures, as a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..circuit.angles.angle import Angle, input_
from ..circuit.checks import check_operations
from ..circuit.circuit import Circuit
from ..circuit.gates.synthesis import MOST_QUBITS
from ..circuit.gates.table import GATES
from ..circuit.measurements.measurement import Expectation, Measurement, Observable, Probabilities
from ..circuit.measurements.states import DensityMatrix, Entropy, Purity, State
from ..circuit.measurements.statistics import Variance
from ..circuit.noise.channels import Channel
from ..errors import QstoreError, SpecError
from .common import Imported, as_observables, matrix_observable, on_qubits, step_of
from .symbols import is_symbolic, single

__all__ = ["OURS", "Reader"]

OURS = {
    "Hadamard": "h", "PauliX": "x", "PauliY": "y", "PauliZ": "z", "S": "s", "T": "t", "SX": "sx", "Adjoint(S)": "sdg",
    "Adjoint(T)": "tdg", "RX": "rx", "RY": "ry", "RZ": "rz", "PhaseShift": "p", "U1": "p", "Rot": "rot", "U3": "u3",
    "CNOT": "cnot", "CY": "cy", "CZ": "cz", "CH": "ch", "SWAP": "swap", "ISWAP": "iswap",
    "ControlledPhaseShift": "cp", "CRX": "crx", "CRY": "cry", "CRZ": "crz", "IsingXX": "rxx", "IsingYY": "ryy",
    "IsingZZ": "rzz", "Toffoli": "ccx", "CCZ": "ccz", "CSWAP": "cswap",
}  # fmt: skip
_CHANNELS = {  # ours, and what their number is multiplied by
    "DepolarizingChannel": ("depolarizing", 4 / 3), "AmplitudeDamping": ("amplitude_damping", 1.0),
    "PhaseDamping": ("phase_damping", 1.0), "BitFlip": ("bit_flip", 1.0), "PhaseFlip": ("phase_flip", 1.0),
}  # fmt: skip
_SIGNS = {"DoubleExcitationPlus": 1.0, "DoubleExcitationMinus": -1.0}
_NOTHING = ("Identity", "Barrier", "WireCut", "Snapshot")
_MOST_MATRIX = 6  # qubits of an observable that is a matrix


class Reader:
    """Reads one tape.

    Args:
        qml: PennyLane.
        wires: Labels of the device, in order; of the tape where it has none.
        n_weights: Weight slots of the circuit.
        n_features: Input slots, those that become amplitudes among them.
        readout: Probability with which the device reads a bit wrongly.
    """

    def __init__(
        self, qml: Any, wires: Sequence[Any], n_weights: int, n_features: int, readout: float | None = None
    ) -> None:
        self.qml, self.wires, self.n_weights, self.n_features = qml, list(wires), n_weights, n_features
        self.number, self.readout = -1, readout  # the operation that is read
        self.exact = True  # the phase of the state as well

    def read(self, tape: Any) -> Imported:
        """The circuit and the measurement of a tape."""
        qml, labels = self.qml, list(tape.wires)
        order = self.wires or (sorted(labels) if all(isinstance(w, int) for w in labels) else labels)
        everything = list(order) if self.wires else labels
        if missing := [w for w in labels if w not in order]:
            raise SpecError(f"wires {missing} are not on the device, which has {order}.")
        if not order:
            raise SpecError("the function has neither gates nor measurements.")
        tape = self._deferred(tape)
        order = [*order, *(w for w in tape.wires if w not in order)]
        prepared = [k for k, op in enumerate(tape.operations) if self._prepares(op)]
        self.shift = 0
        if prepared:
            order = self._amplitudes_last(tape, prepared, order)
        self.place = {wire: k for k, wire in enumerate(order)}
        self.circuit = circuit = Circuit(len(order), amplitudes=bool(prepared))
        circuit.inputs(0 if prepared and self.n_features <= circuit.n_amplitudes else self.n_features - self.shift)
        circuit.weights(self.n_weights)
        for self.number, op in enumerate(tape.operations):
            if self.number in prepared:
                continue
            at = f"operation {self.number}, {_called(op)}"
            with qml.QueuingManager.stop_recording():
                self._write(op, at)
        measurement = self._measurement(tape.measurements, everything)
        short = prepared and self.n_features < circuit.n_amplitudes
        return Imported(circuit, measurement, n_features=self.n_features if short else None)

    def _deferred(self, tape: Any) -> Any:
        """Measurements in the middle as controls."""
        if not any(isinstance(op, self.qml.ops.MidMeasure) for op in tape.operations):
            return tape
        try:
            (tape,), _ = self.qml.defer_measurements(tape)
        except Exception as error:
            raise SpecError(f"a measurement in the middle of the circuit cannot be deferred: {error}.") from error
        return tape

    # -- start states -------------------------------------------------------------------------------------------

    def _prepares(self, op: Any) -> bool:
        return isinstance(op, self.qml.StatePrep) and is_symbolic(op.data[0])

    def _amplitudes_last(self, tape: Any, prepared: list[int], order: list[Any]) -> list[Any]:
        """Qubits so that the amplitudes are those of the whole register: the embedded ones least significant."""
        number = prepared[0]
        op = tape.operations[number]
        at = f"operation {number}, {_called(op)}"
        earlier = {w for before in tape.operations[:number] for w in before.wires}
        if len(prepared) > 1 or earlier & set(op.wires):
            raise SpecError(f"{at}: amplitudes that are features are the start state: one, before any gate.")
        slots = [single(item) for item in op.data[0].reshape(-1)]
        if slots != [input_(k) for k in range(len(slots))]:
            raise SpecError(
                f"{at}: amplitudes are the features themselves, the first ones, in their order; received "
                f"{slots[0]}, … Weights and functions of features cannot be amplitudes."
            )
        first = list(op.wires)
        rest = [w for w in order if w not in first]
        whole = order if list(op.wires) == order[len(order) - len(first) :] else [*rest, *first]
        self.shift = len(slots)
        if self.n_features > len(slots) < 1 << len(whole):
            raise SpecError(
                f"{at}: {len(slots)} features are amplitudes of {len(whole)} qubits and the others are angles: give "
                f"all {1 << len(whole)} amplitudes, so that it is clear which is which."
            )
        return whole

    # -- gates --------------------------------------------------------------------------------------------------

    def _write(self, op: Any, at: str, controls: tuple[int, ...] = (), values: tuple[int, ...] = ()) -> None:
        """Append one operation, where the controls have their values."""
        qml, name = self.qml, op.name
        check_operations(len(self.circuit.operations), "the circuit")
        if name in _NOTHING:
            return
        try:
            if isinstance(op, qml.GlobalPhase):
                self._phase(-single(op.data[0]), controls, values)
                return
            qubits = tuple(self.place[w] for w in op.wires)
            if name in OURS:
                self._gate(OURS[name], qubits, op.data, controls, values)
                return
            if name in ("Adjoint(U3)", "Adjoint(U2)"):  # PennyLane's own takes angles modulo a turn
                turn, phi, delta = op.base.data if name == "Adjoint(U3)" else (np.pi / 2, *op.base.data)
                self._gate("u3", qubits, (turn * -1, delta * -1, phi * -1), controls, values)
                return
            if name in _SIGNS:  # the phase of the other fourteen states; PennyLane has no decomposition
                self._write(qml.DoubleExcitation(op.data[0], wires=op.wires), at, controls, values)
                angle = single(op.data[0]) * (0.5 * _SIGNS[name])
                self._phase(angle, controls, values)
                for state in ((0, 0, 1, 1), (1, 1, 0, 0)):
                    self._phase(-angle, (*controls, *qubits), (*values, *state))
                return
            if name in ("PauliRot", "MultiRZ"):
                word = op.hyperparameters["pauli_word"] if name == "PauliRot" else "Z" * len(qubits)
                where = [q for letter, q in zip(word, qubits, strict=True) if letter != "I"]
                letters = word.replace("I", "").lower()
                if letters:
                    self._gate(f"pauli_rot_{letters}", where, op.data, controls, values)
                else:
                    self._phase(single(op.data[0]) * -0.5, controls, values)
                return
            if name in ("BasisState", "BasisEmbedding") and is_symbolic(op.data[0]):
                self.exact = False
                for qubit, bit in zip(qubits, op.data[0].reshape(-1), strict=True):
                    self._gate("rx", (qubit,), (single(bit) * np.pi,), controls, values)
                return
        except QstoreError as error:
            raise SpecError(f"{at}: {error}") from error
        if isinstance(op, qml.ops.Controlled):
            on = tuple(self.place[w] for w in op.control_wires)
            bits = tuple(int(bool(v)) for v in op.control_values)
            self._write(op.base, f"{at}, its base {op.base.name}", (*controls, *on), (*values, *bits))
            return
        if isinstance(op, qml.operation.Channel):
            self._channel(op, qubits, at, controls)
            return
        numeric = not any(is_symbolic(p) for p in op.data)
        fits = len(controls) + len(qubits) <= MOST_QUBITS and op.batch_size is None
        if numeric and op.has_matrix and fits and (name == "QubitUnitary" or not op.has_decomposition):
            self._matrix(np.asarray(qml.matrix(op, wire_order=op.wires)), qubits, at, controls, values)
            return
        if not op.has_decomposition:
            raise SpecError(f"{at} cannot be said in gates of the table, and has no decomposition.")
        try:
            steps = op.decomposition()
        except Exception as error:
            raise SpecError(f"{at} cannot be decomposed with symbols as its parameters: {error}") from error
        for number, step in enumerate(steps):
            self._write(step, f"{step_of(at)} {number} ({step.name})", controls, values)

    def _channel(self, op: Any, qubits: tuple[int, ...], at: str, controls: tuple[int, ...]) -> None:
        if controls or any(is_symbolic(p) for p in op.data):
            raise SpecError(f"{at} is a channel: its probabilities are numbers, and nothing controls it.")
        ours, factor = _CHANNELS.get(op.name, ("", 1.0))
        try:
            if ours:
                self.circuit.append(Channel(ours, (factor * float(op.data[0]),)), qubits)
            else:
                self.circuit.append(Channel.kraus([np.asarray(k) for k in op.kraus_matrices()]), qubits)
        except QstoreError as error:
            raise SpecError(f"{at}: {error}") from error

    def _gate(
        self, name: str, qubits: Sequence[int], data: Sequence[Any], controls: tuple[int, ...], values: tuple[int, ...]
    ) -> None:
        params = [self._angle(single(p)) for p in data]
        if not controls:
            self.circuit.append(name, qubits, params)
        elif values == (1,) and f"c{name}" in dict.keys(GATES):
            self.circuit.append(f"c{name}", (*controls, *qubits), params)
        else:
            self.circuit.controlled(name, controls, qubits, params, values)

    def _angle(self, angle: Angle) -> Angle:
        """With inputs counted after the amplitudes."""
        if not self.shift or not angle.uses_inputs:
            return angle
        terms = []
        for monomial, coefficient in angle.terms:
            slots = tuple((kind, k - self.shift if kind == "x" else k) for kind, k in monomial)
            if any(k < 0 for _, k in slots):
                raise SpecError(f"angle {angle} takes a feature that is an amplitude.")
            terms.append((slots, coefficient))
        return Angle.from_terms(terms)

    def _phase(self, angle: Angle, controls: tuple[int, ...], values: tuple[int, ...]) -> None:
        """exp(i angle) where the controls have their values; without controls it is seen in states alone."""
        if not controls:
            self.exact = False
            return
        last = controls[-1:]
        for _ in (0, 1):
            if not values[-1]:
                self.circuit.append("x", last)
            if _ == 0:
                self._gate("p", last, (angle,), controls[:-1], values[:-1])

    def _matrix(
        self, matrix: np.ndarray, qubits: tuple[int, ...], at: str, controls: tuple[int, ...], values: tuple[int, ...]
    ) -> None:
        self.exact = False
        whole = np.eye(len(matrix) << len(controls), dtype=complex)
        start = int("".join(map(str, values)) or "0", 2) * len(matrix)
        whole[start : start + len(matrix), start : start + len(matrix)] = matrix
        try:
            self.circuit.unitary(whole, *controls, *qubits)
        except QstoreError as error:
            raise SpecError(f"{at}: {error}") from error

    # -- measurements -------------------------------------------------------------------------------------------

    def _measurement(self, measured: Sequence[Any], everything: list[Any]) -> Measurement | None:
        if self.readout:
            for wire in dict.fromkeys(w for mp in measured for w in (mp.wires or everything)):
                self.circuit.append(Channel.readout_error(self.readout, self.readout), [self.place[wire]])
        parts = [self._part(mp, f"measurement {k}, {mp}", everything) for k, mp in enumerate(measured)]
        if len(parts) < 2:
            return parts[0] if parts else None
        if all(isinstance(part, Variance) for part in parts):
            return Variance(tuple(o for part in parts for o in part.observables))  # type: ignore[attr-defined]
        for k, part in enumerate(parts):
            if not isinstance(part, Expectation | Probabilities):
                raise SpecError(
                    f"measurement {k}, {measured[k]}: beside others, layers give expectation values and probabilities."
                )
        observables = [o for part in parts for o in as_observables(part, self.circuit.n_qubits)]
        return Expectation(observables=tuple(observables))

    def _part(self, mp: Any, at: str, everything: list[Any]) -> Measurement:
        kind = type(mp).__name__
        if mp.mv is not None:
            raise SpecError(f"{at}: results of measurements in the middle are not outputs of a layer.")
        qubits = tuple(self.place[w] for w in (mp.wires or everything))
        if kind == "ExpectationMP":
            return Expectation(observables=(self._observable(mp.obs, at),))
        if kind == "ProbabilityMP" and mp.obs is None:
            return Probabilities(None if qubits == tuple(range(self.circuit.n_qubits)) else qubits)
        if kind == "VarianceMP":
            return Variance((self._observable(mp.obs, at),))
        if kind == "DensityMatrixMP":
            return DensityMatrix(qubits)
        if kind == "PurityMP":
            return Purity(qubits)
        if kind == "VnEntropyMP":
            return Entropy(qubits, base=mp.log_base)
        if kind == "StateMP" and qubits == tuple(range(self.circuit.n_qubits)) and self.exact:
            return State()
        if kind == "StateMP":
            raise SpecError(
                f"{at}: the circuit gives this state but for a phase, or with its qubits in another order; measure "
                "qml.density_matrix."
            )
        raise SpecError(f"{at} is nothing that layers measure.")

    def _observable(self, obs: Any, at: str) -> Observable:
        n, sentence = self.circuit.n_qubits, obs.pauli_rep
        if any(is_symbolic(p) for p in obs.data):
            raise SpecError(f"{at}: the coefficients of an observable are numbers, not parameters.")
        if sentence is None:
            if len(obs.wires) > _MOST_MATRIX:
                raise SpecError(f"{at}: an observable that is no sum of Pauli words has at most {_MOST_MATRIX} wires.")
            matrix = np.asarray(self.qml.matrix(obs, wire_order=obs.wires))
            return matrix_observable(matrix, [self.place[w] for w in obs.wires], n)
        terms = []
        for word, coefficient in sentence.items():
            number = complex(np.asarray(coefficient).item())
            if abs(number.imag) > 1e-12 * max(1.0, abs(number)):
                raise SpecError(f"{at}: coefficient {number:g} is not real, so that it cannot be measured.")
            terms.append((on_qubits({self.place[w]: letter for w, letter in word.items()}, n), number.real))
        return Observable(tuple(terms or [("I" * n, 0.0)]))


def _called(op: Any) -> str:
    return f"{op.name} on wires {list(op.wires)}"
