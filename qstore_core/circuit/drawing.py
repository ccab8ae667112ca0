"""Circuits as text, one line per qubit."""

from __future__ import annotations

from .circuit import Circuit, Operation
from .gates import GATES

__all__ = ["columns", "draw", "labels"]


def columns(circuit: Circuit) -> list[list[Operation]]:
    """Operations in columns, each as far left as its qubits (and those that its line crosses) allow."""
    free = [0] * circuit.n_qubits
    out: list[list[Operation]] = []
    for op in circuit.operations:
        span = range(min(op.qubits), max(op.qubits) + 1)
        column = max(free[q] for q in span)
        if column == len(out):
            out.append([])
        out[column].append(op)
        for q in span:
            free[q] = column + 1
    return out


def labels(op: Operation) -> dict[int, str]:
    """What stands on each of a gate's lines; "●" on controls."""
    entry = GATES[op.gate]
    controls = entry.controls
    name = (entry.symbol or op.gate.removeprefix("c" * controls)).upper()
    arguments = f"({', '.join(map(str, op.params))})" if op.params else ""
    dots = ["○" if value == "0" else "●" for value in entry.values.ljust(controls, "1")]
    return {q: dots[k] if k < controls else name + arguments for k, q in enumerate(op.qubits)}


def draw(circuit: Circuit) -> str:
    """A text drawing; time runs to the right.

    Example:
        >>> c = Circuit(2)
        >>> w, = c.weights(1)
        >>> c.ry(w, 0); c.cnot(0, 1)
        >>> print(draw(c))
        0: ─RY(w0)──●─
        1: ─────────X─
    """
    width = len(str(circuit.n_qubits - 1))
    start = "ψ(x)" if circuit.n_amplitudes else ""
    lines = [[f"{q:>{width}}: {start}"] for q in range(circuit.n_qubits)]
    for column in columns(circuit):
        cells = ["─"] * circuit.n_qubits
        for op in column:
            for q in range(min(op.qubits), max(op.qubits) + 1):
                cells[q] = "│"
            for q, label in labels(op).items():
                cells[q] = label
        size = max(map(len, cells))
        for line, cell in zip(lines, cells, strict=True):
            line.append(f"─{cell.center(size, '─')}─")
    return "\n".join(map("".join, lines))
