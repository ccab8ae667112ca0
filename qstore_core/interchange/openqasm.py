"""Circuits from and to OpenQASM 2 and 3, through Qiskit's importer and exporter.

Needs Qiskit: `pip install "qstore[aer]"`; for reading OpenQASM 3 also `qiskit-qasm3-import`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from ..circuit.checks import MAX_OPERATIONS, MAX_QUBITS, check_choice, check_items, shown
from ..circuit.circuit import Circuit
from ..circuit.measurements.measurement import Measurement, Probabilities
from ..errors import BackendUnavailableError, SpecError
from .common import Imported
from .qiskit import from_qiskit, library, measure, written

__all__ = ["from_openqasm", "to_openqasm"]

_LONGEST = 20_000_000  # characters of a program
_DECLARED = re.compile(r"\binput\s+(?:float|angle|int|uint)\b\s*(?:\[\s*\d+\s*\])?\s*(\w+)\s*;")
_INCLUDED = re.compile(r"\binclude\s*[\"']([^\"']*)[\"']")
_LIBRARIES = ("qelib1.inc", "stdgates.inc")
_REGISTERS = re.compile(r"\b(qubit|bit)\s*\[([^\]]*)\]|\b([qc]reg)\s+\w+\s*\[([^\]]*)\]")


def from_openqasm(text: str, *, inputs: Iterable[str] = ()) -> Imported:
    """A circuit from an OpenQASM 2 or 3 program, with the probabilities of what it measures at its end.

    Args:
        text: The program.
        inputs: Names of the parameters (`input float[64] name;`) that are inputs, in this order; the others are
            weights, in the order of their declarations.

    Raises:
        SpecError: the program is not valid, or has something that a circuit with parameter slots cannot say.

    Example:
        >>> found = from_openqasm('OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; h q[0]; cx q[0], q[1];')
        >>> [str(op) for op in found.circuit.operations]
        ['h 0', 'cnot 0 1']
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise SpecError(f"an OpenQASM program is text of at most {_LONGEST} characters, received {shown(text)}.")
    statements = _without_comments(text)
    _check(statements)
    program = _parsed(text.removeprefix("\ufeff"), statements)
    declared = list(dict.fromkeys(_DECLARED.findall(statements)))
    names = check_items(inputs, "inputs", MAX_OPERATIONS, "inputs")
    for name in names:
        check_choice(name, "parameter", declared, "inputs")
    from qiskit.circuit import Parameter

    used = {parameter.name: parameter for parameter in program.parameters}
    parameters = {name: used.get(name) or Parameter(name) for name in (*declared, *used)}
    weights = [parameter for name, parameter in parameters.items() if name not in names]
    return from_qiskit(program, None, [parameters[name] for name in names], weights)


def _check(statements: str) -> None:
    """What the importers would take without a word: files of this machine, registers of any size."""
    for name in _INCLUDED.findall(statements):
        if name not in _LIBRARIES:
            raise SpecError(
                f"the program includes {shown(name)}: no files are read because a program names them. Put its gates "
                f"into the program; {' and '.join(_LIBRARIES)} are known."
            )
    sizes = {"q": 0, "b": 0}
    for kind, size, old_kind, old_size in _REGISTERS.findall(statements):
        numbers = re.findall(r"[0-9][0-9a-fA-FxXob_]*", size or old_size)
        try:
            sizes["q" if "q" in kind + old_kind else "b"] += math.prod(int(n[:40], 0) for n in numbers)
        except ValueError:
            continue  # the importer says what it is
    for what, count in (("qubits", sizes["q"]), ("bits", sizes["b"])):
        if count > MAX_QUBITS:
            raise SpecError(f"the program declares {shown(count)} {what}; the limit is {MAX_QUBITS}.")


def _parsed(text: str, statements: str) -> Any:
    qiskit = library()
    version = re.search(r"\bOPENQASM\s+(\d+)", statements)
    try:
        if version[1] == "3" if version else re.search(r"\bqubit\b|stdgates", statements):
            return qiskit.qasm3.loads(text)
        return qiskit.qasm2.loads(text, include_path=(), custom_instructions=qiskit.qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
    except ImportError as error:
        raise BackendUnavailableError(
            f"reading OpenQASM 3 needs one more package: {error}. Install it with: pip install qiskit-qasm3-import",
            name="qiskit_qasm3_import",
        ) from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of Qiskit's Rust code are no Exceptions
        raise SpecError(f"no valid OpenQASM program, or one that Qiskit's importer does not read: {error}") from error


def _without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def to_openqasm(circuit: Circuit, version: int = 3, measurement: Measurement | None = None) -> str:
    """The OpenQASM program of a circuit; slots become parameters `x0`, `w0`, …, which version 2 does not have.

    Every slot is declared, inputs first, so that `from_openqasm` finds them all, in order.

    Args:
        circuit: What is written.
        version: 2 or 3.
        measurement: Probabilities become measurements at the end; other outputs are not said in OpenQASM.

    Example:
        >>> c = Circuit(1)
        >>> c.ry(c.weights(1)[0], 0)
        >>> [line for line in to_openqasm(c).splitlines() if "w0" in line]
        ['input float[64] w0;', 'ry(w0) q[0];']
    """
    if version not in (2, 3):
        raise SpecError(f"versions of OpenQASM are 2 and 3, received {shown(version)}.", argument="version")
    if version == 2 and circuit.n_inputs + circuit.n_weights:
        raise SpecError("OpenQASM 2 has no parameters: use version=3, or a circuit without slots.", argument="version")
    if circuit.n_amplitudes:
        raise SpecError("a circuit whose start state is an input cannot be written in OpenQASM.")
    qiskit = library()
    names = [
        [f"{kind}{k}" for k in range(count)] for kind, count in (("x", circuit.n_inputs), ("w", circuit.n_weights))
    ]
    x, w = ([qiskit.circuit.Parameter(name) for name in of_kind] for of_kind in names)
    program = written(circuit, x, w)
    if isinstance(measurement, Probabilities):
        measure(program, measurement.qubits)
    if version == 2:
        return str(qiskit.qasm2.dumps(program))
    text = re.sub(r"\ba(cos|sin|tan)\(", r"arc\1(", str(qiskit.qasm3.dumps(program)))  # Qiskit writes SymPy's names
    lines = _DECLARED.sub("", text).splitlines()
    head = next((k + 1 for k, line in enumerate(lines) if line.startswith("include")), 1)
    declared = [f"input float[64] {name};" for of_kind in names for name in of_kind]
    return "\n".join([*lines[:head], *declared, *(line for line in lines[head:] if line)]) + "\n"


Circuit.to_openqasm = to_openqasm  # type: ignore[attr-defined]
