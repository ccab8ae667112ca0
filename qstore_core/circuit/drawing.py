"""Circuits as text, one line per qubit, folded at a width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .checks import MAX_OPERATIONS, check_whole
from .gates.table import GATES

__all__ = ["WIDTH", "Drawable", "columns", "draw", "labels"]

WIDTH = 120  # characters of a line, by default


class Drawable(Protocol):
    """What is drawn: a `Circuit`."""

    @property
    def n_qubits(self) -> int:
        """Number of qubits."""

    @property
    def n_amplitudes(self) -> int:
        """Number of amplitude inputs."""

    @property
    def operations(self) -> Sequence[Any]:
        """Gates, first to last in time."""


def columns(circuit: Drawable) -> list[list[Any]]:
    """Operations in columns, each as far left as its qubits (and those that its line crosses) allow."""
    free = [0] * circuit.n_qubits
    out: list[list[Any]] = []
    for op in circuit.operations:
        span = range(min(op.qubits), max(op.qubits) + 1)
        column = max(free[q] for q in span)
        if column == len(out):
            out.append([])
        out[column].append(op)
        for q in span:
            free[q] = column + 1
    return out


def labels(op: Any) -> dict[int, str]:
    """What stands on each of a gate's lines; "●" on controls."""
    if op.channel is not None:
        return dict.fromkeys(op.qubits, str(op.channel))
    entry = GATES[op.gate]
    controls = entry.controls
    name = (entry.symbol or op.gate.removeprefix("c" * controls)).upper()
    arguments = f"({', '.join(map(str, op.params))})" if op.params else ""
    dots = ["○" if value == "0" else "●" for value in entry.values.ljust(controls, "1")]
    return {q: dots[k] if k < controls else name + arguments for k, q in enumerate(op.qubits)}


def draw(circuit: Drawable, width: int | None = WIDTH) -> str:
    """A text drawing; time runs to the right, and goes on below where a line would be longer than `width`.

    Args:
        circuit: What is drawn.
        width: Characters of a line; None for lines of any length.

    Example:
        >>> from qstore_core import Circuit
        >>> c = Circuit(2)
        >>> w, = c.weights(1)
        >>> c.ry(w, 0); c.cnot(0, 1)
        >>> print(draw(c))
        0: ─RY(w0)──●─
        1: ─────────X─
    """
    digits = len(str(circuit.n_qubits - 1))
    if width is not None:
        check_whole(width, "width", 1, MAX_OPERATIONS, "width")
    start = "ψ(x)" if circuit.n_amplitudes else ""
    heads = [f"{q:>{digits}}: " for q in range(circuit.n_qubits)]
    blocks = [[head + start for head in heads]]
    for column in columns(circuit):
        cells = ["─"] * circuit.n_qubits
        for op in column:
            for q in range(min(op.qubits), max(op.qubits) + 1):
                cells[q] = "│"
            for q, label in labels(op).items():
                cells[q] = label
        size = max(map(len, cells))
        lines = blocks[-1]
        if width is not None and len(lines[0]) + size + 2 > width and len(lines[0]) > len(heads[0] + start):
            start = ""
            lines = list(heads)
            blocks.append(lines)
        for q, cell in enumerate(cells):
            lines[q] += f"─{cell.center(size, '─')}─"
    return "\n\n".join("\n".join(lines) for lines in blocks)
