"""A program of Qiskit, instruction by instruction, as a circuit; what it measures, as a measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..circuit.angles.angle import FUNCTIONS, Angle, as_angle
from ..circuit.checks import check_operations, shown
from ..circuit.circuit import Circuit
from ..circuit.gates.families import MOST_QUBITS
from ..circuit.gates.synthesis import MOST_QUBITS as MOST_OF_UNITARY
from ..circuit.gates.table import GATES
from ..circuit.measurements.measurement import Expectation, Measurement, Observable, Probabilities
from ..errors import QstoreError, SpecError
from .common import diagonal, on_qubits, step_of

__all__ = ["KNOWN", "THEIRS", "Reader"]

# Names that differ: Qiskit's → ours.
_OURS = {"cx": "cnot", "u": "u3"}
THEIRS = {"cnot": "cx", "u3": "u"}
_SAME = (
    "id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "rx", "ry", "rz", "p", "cy", "cz", "ch", "swap", "iswap",
    "cp", "crx", "cry", "crz", "rxx", "ryy", "rzz", "ccx", "ccz", "cswap",
)  # fmt: skip
KNOWN = frozenset((*_SAME, *THEIRS))
_IGNORED = ("barrier", "delay")


class Reader:
    """One program, instruction by instruction."""

    def __init__(self, program: Any, inputs: list[Any], weights: list[Any]) -> None:
        self.program, n = program, program.num_qubits
        first = program.data[0].operation if program.data else None
        features = list(first.params) if first is not None and first.name == "ParameterizedInitialize" else []
        if features and (features != inputs[: len(features)] or len(features) != 1 << n):
            raise SpecError(
                f"instruction 0 is 'ParameterizedInitialize': its {len(features)} amplitudes must be the first inputs, "
                f"in their order, on all {n} qubits."
            )
        # Amplitudes count from the least significant qubit: the register is turned round with them.
        self.place = {qubit: n - 1 - k if features else k for k, qubit in enumerate(program.qubits)}
        self.circuit = circuit = Circuit(n, amplitudes=bool(features))
        self.slots: dict[Any, Angle] = dict(
            zip(inputs[len(features) :], circuit.inputs(len(inputs) - len(features)), strict=True)
        ) | dict(zip(weights, circuit.weights(len(weights)), strict=True))
        self.remembered: dict[Any, Angle] = {}
        self.measured: dict[int, int] = {}  # classical bit → qubit
        check_operations(len(program.data), "the program")
        self._append(program.data[1:] if features else program.data, self.place, "instruction", len(features) > 0)

    def _append(self, data: Any, place: Mapping[Any, int], where: str, first: int = 0) -> None:
        for number, item in enumerate(data):
            operation, at = item.operation, f"{where} {number + first}"
            if operation.name == "annotated":
                operation = _plain(operation, at)
            qubits = [place[q] for q in item.qubits]
            name = operation.name
            if name in _IGNORED or (name == "reset" and not self._touched(qubits[0])):
                continue
            if name == "measure" and where == "instruction":
                self.measured[self.program.find_bit(item.clbits[0]).index] = qubits[0]
                continue
            if late := [q for q in qubits if q in self.measured.values()]:
                raise SpecError(f"{at} is {name!r} on qubit {late[0]}, after it was measured: {_NO_MIDDLE}")
            if getattr(operation, "condition", None) is not None or item.clbits or name in ("reset", "if_else"):
                raise SpecError(f"{at} is {name!r}: {_NO_MIDDLE}")
            if name == "for_loop":
                self._unroll(operation, qubits, at)
                continue
            try:
                if self._write(operation, qubits):
                    continue
            except QstoreError as error:
                raise SpecError(f"{at} ({name}): {error}") from error
            try:
                definition = operation.definition
            except Exception as error:
                raise SpecError(f"{at} is {name!r}, which cannot be decomposed: {error}") from error
            if definition is None:
                if name == "permutation":
                    self._permute(list(operation.params[0]), qubits)
                    continue
                raise SpecError(f"{at} is {name!r}, which has no decomposition into gates of the table.")
            inner = {qubit: qubits[k] for k, qubit in enumerate(definition.qubits)}
            self._append(definition.data, inner, step_of(at, f" ({name})"))

    def _unroll(self, loop: Any, qubits: list[int], at: str) -> None:
        """The body of a loop over numbers, once for each of them."""
        values, variable, body = loop.params
        place = dict(zip(body.qubits, qubits, strict=True))
        check_operations(len(values) * max(len(body.data), 1), f"{at} (for_loop)")
        for value in values:
            once = body if variable not in body.parameters else body.assign_parameters({variable: value})
            self._append(once.data, place, step_of(at, f" (for_loop, {value})"))

    def _touched(self, qubit: int) -> bool:
        return self.circuit.n_amplitudes > 0 or any(qubit in op.qubits for op in self.circuit.operations)

    def _write(self, operation: Any, qubits: list[int]) -> bool:
        """Append an instruction that the table has; False for others."""
        params, base = operation.params, getattr(operation, "base_gate", None)
        if base is not None:
            values = [operation.ctrl_state >> k & 1 for k in range(operation.num_ctrl_qubits)]
            plain = operation.num_qubits == len(values) + base.num_qubits and len(params) == len(base.params)
            ours = _OURS.get(operation.name, operation.name)
            if all(values) and ours in KNOWN:
                self.circuit.append(ours, qubits, [self._angle(p) for p in params])
                return True
            ours = _OURS.get(base.name, base.name)
            if not plain or ours not in KNOWN or len(params) != GATES[ours].n_params or len(qubits) > MOST_QUBITS:
                return False  # cu has an angle more than its base
            k = len(values)
            self.circuit.controlled(ours, qubits[:k], qubits[k:], [self._angle(p) for p in params], values)
            return True
        name = _OURS.get(operation.name, operation.name)
        if name in KNOWN and len(params) == GATES[name].n_params:
            self.circuit.append(name, qubits, [self._angle(p) for p in params])
            return True
        if name == "unitary" and not qubits:
            return True  # a global phase
        if name == "unitary" and len(qubits) <= MOST_OF_UNITARY:
            self.circuit.unitary(np.asarray(params[0]), *reversed(qubits))
            return True
        return False

    def _permute(self, pattern: list[int], qubits: list[int]) -> None:
        """Qubit pattern[k] goes to place k, by exchanges."""
        held = list(range(len(qubits)))
        for k, wanted in enumerate(pattern):
            if (at := held.index(int(wanted))) != k:
                self.circuit.append("swap", [qubits[k], qubits[at]])
                held[k], held[at] = held[at], held[k]

    def _angle(self, param: Any) -> Angle:
        """A number, or an expression of parameters."""
        if param in self.slots:
            return self.slots[param]
        if not getattr(param, "parameters", ()):
            return as_angle(float(param))
        if param not in self.remembered:
            by_name = {p.name: p for p in param.parameters}
            for p in by_name.values():
                if p not in self.slots:
                    raise SpecError(f"angle {param} takes {p.name}, which is an amplitude.")
            slots = {name: self.slots[p] for name, p in by_name.items()}
            self.remembered[param] = _of_expression(param.sympify(), slots, str(param))
        return self.remembered[param]

    # -- what is measured -------------------------------------------------------------------------------------------

    def expectation(self, observables: Any) -> Expectation:
        """One output per observable."""
        several = isinstance(observables, Iterable) and not hasattr(observables, "num_qubits")
        given = list(observables) if several and not isinstance(observables, str) else [observables]
        return Expectation(observables=tuple(self._observable(o, k) for k, o in enumerate(given)))

    def _observable(self, observable: Any, number: int) -> Observable:
        from qiskit import quantum_info

        n, at = self.circuit.n_qubits, f"observable {number}"
        if isinstance(observable, Observable):
            return observable
        try:
            if isinstance(observable, quantum_info.SparseObservable):
                observable = quantum_info.SparsePauliOp.from_sparse_observable(observable)
            elif isinstance(observable, quantum_info.Operator):
                observable = quantum_info.SparsePauliOp.from_operator(observable)
            elif not isinstance(observable, quantum_info.SparsePauliOp):
                observable = quantum_info.SparsePauliOp(observable)
        except Exception as error:
            raise SpecError(f"{at}: {shown(observable)} is no observable: {error}", argument="observables") from error
        if observable.num_qubits != n:
            raise SpecError(
                f"{at} is on {observable.num_qubits} qubits, the circuit has {n}: pad its labels with I, or use "
                "observable.apply_layout(circuit.layout).",
                argument="observables",
            )
        terms, places = [], list(self.place.values())
        for label, coefficient in observable.to_list():
            try:
                value = complex(coefficient)
            except TypeError as error:
                raise SpecError(f"{at}: coefficient {coefficient} is no number.", argument="observables") from error
            if abs(value.imag) > 1e-12 * max(1.0, abs(value)):
                raise SpecError(f"{at}: coefficient {value:g} of {label} is not real.", argument="observables")
            letters = {places[q]: letter for q, letter in enumerate(reversed(label))}
            terms.append((on_qubits(letters, n), value.real))
        return Observable(tuple(terms))

    def probabilities(
        self, interpret: Callable[[int], Any] | None, output_shape: int | tuple[int, ...] | None
    ) -> Measurement | None:
        """Of the measured bits, most significant first, or of what `interpret` makes of them."""
        bits = len(self.program.clbits)
        if not self.measured:
            return None
        if sorted(self.measured) != list(range(bits)):
            missing = [k for k in range(bits) if k not in self.measured]
            raise SpecError(f"classical bits {missing} are not measured.")
        qubits = tuple(self.measured[k] for k in reversed(range(bits)))
        if interpret is None and output_shape is None:
            return Probabilities(qubits)
        shape = (
            output_shape if isinstance(output_shape, tuple) else (1 << bits if output_shape is None else output_shape,)
        )
        outputs, states = math.prod(shape), range(1 << bits)
        if bits > 16:
            raise SpecError(f"{bits} measured bits have too many states to interpret: at most 16.")
        try:
            index = [_flat((interpret or int)(k), shape) for k in states]
        except Exception as error:
            raise SpecError(f"interpret cannot be used with output_shape={shape}: {error}") from error
        if outputs <= len(index) and index == [k % outputs for k in states]:
            return Probabilities(qubits, None if outputs == len(index) else outputs)
        table, n = np.array(index), self.circuit.n_qubits
        return Expectation(observables=tuple(diagonal(table == k, qubits, n) for k in range(outputs)))


_NO_MIDDLE = (
    "measurements before the end, resets and what depends on their results cannot be said in a circuit with parameter "
    "slots."
)


def _flat(key: Any, shape: tuple[int, ...]) -> int:
    return int(np.ravel_multi_index(tuple(key) if isinstance(key, Iterable) else (int(key),), shape))


def _plain(operation: Any, at: str) -> Any:
    """An annotated operation as an ordinary one."""
    made = operation.base_op
    try:
        for modifier in operation.modifiers:
            kind = type(modifier).__name__
            if kind == "InverseModifier":
                made = made.inverse(annotated=False)
            elif kind == "ControlModifier":
                made = made.control(modifier.num_ctrl_qubits, ctrl_state=modifier.ctrl_state, annotated=False)
            else:
                made = made.power(modifier.power, annotated=False)
    except Exception as error:
        raise SpecError(
            f"{at} is {operation.base_op.name!r} with modifiers that cannot be written out: {error}"
        ) from error
    return made


def _of_expression(node: Any, slots: Mapping[str, Angle], text: str) -> Angle:
    """A SymPy expression as an angle."""
    if node.is_Symbol:
        return slots[str(node)]
    if node.is_number:
        return as_angle(float(node))
    if node.is_Add or node.is_Mul:
        parts = [_of_expression(part, slots, text) for part in node.args]
        total = parts[0]
        for part in parts[1:]:
            total = total + part if node.is_Add else total * part
        return total
    if node.is_Pow and node.exp.is_Integer:
        base = _of_expression(node.base, slots, text)
        return (base if node.exp > 0 else base.of("reciprocal")) ** abs(int(node.exp))
    if node.is_Pow and node.exp == 0.5:
        return _of_expression(node.base, slots, text).of("sqrt")
    name = {"acos": "arccos", "asin": "arcsin", "atan": "arctan"}.get(node.func.__name__, node.func.__name__)
    if name in FUNCTIONS:
        return _of_expression(node.args[0], slots, text).of(name)
    raise SpecError(f"angle {text} is neither a polynomial in the parameters nor one of {', '.join(FUNCTIONS)}.")
