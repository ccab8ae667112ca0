"""Circuits from and to OpenQASM 2 and 3, through Qiskit's importer and exporter.

Needs Qiskit: `pip install "qstore[aer]"`; for reading OpenQASM 3 also `qiskit-qasm3-import`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..circuit.angle import Angle, as_angle
from ..circuit.checks import MAX_OPERATIONS, check_choice, check_items, check_operations, shown
from ..circuit.circuit import Circuit
from ..circuit.gates import GATES, Cnot
from ..errors import BackendUnavailableError, SpecError

__all__ = ["from_openqasm", "from_qiskit_circuit", "to_openqasm", "to_qiskit_circuit"]

_LONGEST = 20_000_000  # characters of a program

# Names that differ: Qiskit's → ours.
_OURS = {"cx": "cnot", "u": "u3", "ccz": "ccz"}
_THEIRS = {"cnot": "cx", "u3": "u"}
_SAME = (
    "id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "rx", "ry", "rz", "p", "cy", "cz", "ch", "swap", "iswap",
    "cp", "crx", "cry", "crz", "rxx", "ryy", "rzz", "ccx", "ccz", "cswap",
)  # fmt: skip
_IGNORED = ("barrier", "delay")


def from_openqasm(text: str, *, inputs: Iterable[str] = ()) -> Circuit:
    """A circuit from an OpenQASM 2 or 3 program.

    Args:
        text: The program. Measurements at its end are left out: layers say by themselves what they measure.
        inputs: Names of the parameters (`input float[64] name;`) that are inputs, in this order; the others are
            weights, in the order of the program.

    Raises:
        SpecError: the program is not valid, or has something that a circuit with parameter slots cannot say.

    Example:
        >>> circuit = from_openqasm('OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; h q[0]; cx q[0], q[1];')
        >>> [str(op) for op in circuit.operations]
        ['h 0', 'cnot 0 1']
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise SpecError(f"an OpenQASM program is text of at most {_LONGEST} characters, received {shown(text)}.")
    qiskit = _qiskit()
    try:
        if "OPENQASM 3" in text[:1000]:
            program = qiskit.qasm3.loads(text)
        else:
            program = qiskit.qasm2.loads(text, custom_instructions=qiskit.qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
    except ImportError as error:
        raise BackendUnavailableError(
            f"reading OpenQASM 3 needs one more package: {error}. Install it with: pip install qiskit-qasm3-import",
            name="qiskit_qasm3_import",
        ) from error
    except Exception as error:
        raise SpecError(f"no valid OpenQASM program: {error}") from error
    return from_qiskit_circuit(program, inputs=inputs)


def to_openqasm(circuit: Circuit, version: int = 3) -> str:
    """The OpenQASM program of a circuit; slots become parameters `x0`, `w0`, …, which version 2 does not have.

    Example:
        >>> c = Circuit(1)
        >>> c.ry(c.weights(1)[0], 0)
        >>> [line for line in to_openqasm(c).splitlines() if "w0" in line]
        ['input float[64] w0;', 'ry(w0) q[0];']
    """
    qiskit, program = _qiskit(), to_qiskit_circuit(circuit)
    if version == 3:
        return str(qiskit.qasm3.dumps(program))
    if version != 2:
        raise SpecError(f"versions of OpenQASM are 2 and 3, received {shown(version)}.", argument="version")
    if program.parameters:
        raise SpecError("OpenQASM 2 has no parameters: use version=3, or a circuit without slots.", argument="version")
    return str(qiskit.qasm2.dumps(program))


def from_qiskit_circuit(program: Any, *, inputs: Iterable[str] = ()) -> Circuit:
    """A circuit from a `qiskit.QuantumCircuit`; arguments as in `from_openqasm`."""
    _qiskit()
    given = {parameter.name: parameter for parameter in program.parameters}
    names = check_items(inputs, "inputs", MAX_OPERATIONS, "inputs")
    for name in names:
        check_choice(name, "parameter", given, "inputs")
    circuit = Circuit(program.num_qubits)
    slots: dict[Any, Angle] = {}
    rest = [name for name in given if name not in names]
    for found, made in ((names, circuit.inputs(len(names))), (rest, circuit.weights(len(rest)))):
        slots |= {given[name]: slot for name, slot in zip(found, made, strict=True)}
    trimmed = program.remove_final_measurements(inplace=False) or program
    check_operations(len(trimmed.data), "the program")
    place = {qubit: number for number, qubit in enumerate(trimmed.qubits)}
    _append(circuit, trimmed.data, place, slots, "instruction")
    return circuit


def _append(circuit: Circuit, data: Any, place: Mapping[Any, int], slots: Mapping[Any, Angle], where: str) -> None:
    for number, item in enumerate(data):
        operation, at = item.operation, f"{where} {number}"
        name = _OURS.get(operation.name, operation.name)
        qubits = [place[q] for q in item.qubits]
        if name in _IGNORED:
            continue
        if getattr(operation, "condition", None) is not None or item.clbits or operation.name in ("reset", "if_else"):
            raise SpecError(
                f"{at} is {operation.name!r}: measurements before the end, resets and what depends on their results "
                "cannot be said in a circuit with parameter slots."
            )
        open_controls = getattr(operation, "ctrl_state", None)
        closed = open_controls is None or open_controls == (1 << operation.num_ctrl_qubits) - 1
        if closed and name in (*_SAME, "cnot", "u3") and len(operation.params) == GATES[name].n_params:
            circuit.append(name, qubits, [_angle(param, slots, at) for param in operation.params])
            continue
        definition = operation.definition
        if definition is None:
            raise SpecError(f"{at} is {operation.name!r}, which has no decomposition into gates of the table.")
        inner = {qubit: qubits[k] for k, qubit in enumerate(definition.qubits)}
        _append(circuit, definition.data, inner, slots, f"{at} ({operation.name}), step")


def _angle(param: Any, slots: Mapping[Any, Angle], at: str) -> Angle:
    """A number, or a polynomial in parameters."""
    parameters = getattr(param, "parameters", ())
    if not parameters:
        return as_angle(float(param))
    import sympy  # type: ignore[import-untyped]

    expression = sympy.sympify(param.sympify())
    by_name = {p.name: slots[p] for p in parameters}
    symbols = sorted(expression.free_symbols, key=str)
    try:
        polynomial = sympy.Poly(expression, *symbols)
        terms = [(powers, float(coefficient)) for powers, coefficient in polynomial.terms()]
    except (sympy.PolynomialError, TypeError, ValueError) as error:
        raise SpecError(f"{at}: angle {param} is no polynomial in the parameters.") from error
    total = Angle()
    for powers, coefficient in terms:
        term = as_angle(coefficient)
        for symbol, power in zip(symbols, powers, strict=True):
            for _ in range(power):
                term = term * by_name[str(symbol)]
        total = total + term
    return total


def to_qiskit_circuit(circuit: Circuit) -> Any:
    """The `qiskit.QuantumCircuit` of a circuit, qubit for qubit; slots become parameters `x0`, `w0` and so on."""
    qiskit = _qiskit()
    if circuit.n_amplitudes:
        raise SpecError("a circuit whose start state is an input cannot be written as gates alone.")
    from qiskit.circuit import Parameter

    slots = {(kind, k): Parameter(f"{kind}{k}") for kind, count in (("x", circuit.n_inputs), ("w", circuit.n_weights))
             for k in range(count)}  # fmt: skip
    out = qiskit.QuantumCircuit(circuit.n_qubits)

    def value(angle: Angle) -> Any:
        return sum((c * math.prod((slots[slot] for slot in m), start=1) for m, c in angle.terms), 0.0)

    def write(name: str, qubits: Sequence[int], angles: Sequence[Any]) -> None:
        if name in _SAME or name in _THEIRS:
            getattr(out, _THEIRS.get(name, name))(*angles, *qubits)
            return
        for step in GATES[name].steps:  # rot, families, gates of users: equal up to a global phase
            if isinstance(step, Cnot):
                out.cx(qubits[step.control], qubits[step.target])
                continue
            angle = step.constant + sum(c * a for c, a in zip(step.coefficients, angles, strict=False) if c)
            x, y, z = step.axis
            tilt, turn = math.acos(max(-1.0, min(1.0, z))), math.atan2(y, x)
            here = qubits[step.qubit]
            if step.axis == (1.0, 0.0, 0.0):
                out.rx(angle, here)
            elif step.axis == (0.0, 1.0, 0.0):
                out.ry(angle, here)
            else:
                if tilt:
                    out.rz(-turn, here), out.ry(-tilt, here)
                out.rz(angle, here)
                if tilt:
                    out.ry(tilt, here), out.rz(turn, here)

    for op in circuit.operations:
        write(op.gate, op.qubits, [value(angle) for angle in op.params])
    return out


def _qiskit() -> Any:
    try:
        import qiskit
        import qiskit.qasm2
        import qiskit.qasm3
    except ImportError as error:
        raise BackendUnavailableError(
            f"OpenQASM goes through Qiskit, which cannot be imported: {error}. "
            'Install it with: pip install "qstore[aer]"',
            name="qiskit",
        ) from error
    return qiskit
