"""Circuits and states as pictures, with matplotlib; SVG for notebooks and pages.

What comes from features is blue, what is trained is orange; long circuits are folded at a width.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from .circuit.circuit import Circuit, Operation
from .circuit.drawing import columns, labels
from .errors import SpecError

__all__ = ["plot_amplitudes", "plot_bloch", "plot_circuit", "svg"]

_INPUT, _WEIGHT, _BOTH, _FIXED = "#cfe2f7", "#fbdcb8", "#e3d4ee", "#eeeeee"
_INK = "#222222"
_LETTER, _GAP = 0.13, 0.35  # widths, in units of the distance between two qubits' lines


def plot_circuit(circuit: Any, *, width: float = 24.0, ax: Any = None) -> Any:
    """A drawing of a circuit; time runs to the right, and goes on below where it is longer than `width`.

    Args:
        circuit: A `Circuit`, or a layer.
        width: Length of a line of the drawing, in units of the distance between two qubits.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.

    Example:
        >>> c = Circuit(2)
        >>> w, = c.weights(1)
        >>> c.ry(w, 0); c.cnot(0, 1)
        >>> len(plot_circuit(c).texts) > 2
        True
    """
    circuit = circuit if isinstance(circuit, Circuit) else getattr(circuit, "circuit", circuit)
    if not isinstance(circuit, Circuit):
        raise SpecError(f"expected a Circuit or a layer, received {type(circuit).__name__}.", argument="circuit")
    n, rows = circuit.n_qubits, _folded(circuit, width)
    height = n + 0.6
    longest = max((row[-1][1] + row[-1][2] for row in rows if row), default=1.0)
    if ax is None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(0.55 * (longest + 1.4), 0.55 * height * len(rows) + 0.3), layout="constrained")
        ax = figure.subplots()
    for number, row in enumerate(rows):
        top = -number * height
        end = row[-1][1] + row[-1][2] if row else 1.0
        for q in range(n):
            ax.plot([0, end], [top - q] * 2, color=_INK, linewidth=0.8, zorder=1)
            start = f"ψ(x) q{q}" if circuit.n_amplitudes and not number else f"q{q}"
            ax.text(-0.15, top - q, start, ha="right", va="center", fontsize=8, color=_INK)
        for column, left, size in row:
            for op in column:
                _gate(ax, op, left + size / 2, top)
    ax.set_xlim(-1.4, longest + 0.1)
    ax.set_ylim(-height * len(rows) + 0.9, 0.7)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def _folded(circuit: Circuit, width: float) -> list[list[tuple[list[Operation], float, float]]]:
    """Lines of the drawing: columns with their left edge and size."""
    rows: list[list[tuple[list[Operation], float, float]]] = [[]]
    left = 0.0
    for column in columns(circuit):
        longest = max(len(text) for op in column for text in labels(op).values())
        size = max(0.8, _LETTER * longest + 0.3) + _GAP
        if rows[-1] and left + size > width:
            rows.append([])
            left = 0.0
        rows[-1].append((column, left, size))
        left += size
    return rows


def _gate(ax: Any, op: Operation, x: float, top: float) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch

    lowest, highest = min(op.qubits), max(op.qubits)
    if lowest != highest:
        ax.plot([x, x], [top - lowest, top - highest], color=_INK, linewidth=1.0, zorder=2)
    for q, text in labels(op).items():
        y = top - q
        if text == "●":
            ax.add_patch(Circle((x, y), 0.09, color=_INK, zorder=4))
        elif text == "X" and len(op.qubits) > 1:
            ax.add_patch(Circle((x, y), 0.2, facecolor="white", edgecolor=_INK, linewidth=1.0, zorder=3))
            ax.plot([x - 0.2, x + 0.2], [y, y], color=_INK, linewidth=1.0, zorder=4)
            ax.plot([x, x], [y - 0.2, y + 0.2], color=_INK, linewidth=1.0, zorder=4)
        else:
            half = max(0.4, (_LETTER * len(text) + 0.3) / 2)
            ax.add_patch(
                FancyBboxPatch(
                    (x - half, y - 0.3),
                    2 * half,
                    0.6,
                    boxstyle="round,pad=0,rounding_size=0.08",
                    facecolor=_colour(op),
                    edgecolor=_INK,
                    linewidth=0.8,
                    zorder=3,
                )
            )
            ax.text(x, y, text, ha="center", va="center", fontsize=7, color=_INK, zorder=5)


def _colour(op: Operation) -> str:
    inputs = any(angle.uses_inputs for angle in op.params)
    weights = any(kind == "w" for angle in op.params for kind, _ in angle.slots)
    return _BOTH if inputs and weights else _INPUT if inputs else _WEIGHT if weights else _FIXED


def svg(circuit: Any, *, width: float = 24.0) -> str:
    """The drawing as SVG text.

    Example:
        >>> c = Circuit(1)
        >>> c.h(0)
        >>> "<svg" in svg(c)
        True
    """
    out = io.StringIO()
    plot_circuit(circuit, width=width).figure.savefig(out, format="svg")
    return out.getvalue()


def plot_amplitudes(state: Any, ax: Any = None) -> Any:
    """Magnitudes of a state's amplitudes as bars, phases as colours. Returns the axes.

    Args:
        state: Complex amplitudes (2**n,).
        ax: Axes to draw on; new ones by default.
    """
    from matplotlib import colormaps

    amplitudes = np.asarray(state).ravel()
    n = amplitudes.size.bit_length() - 1
    if amplitudes.size != 1 << n or not n:
        raise SpecError(f"a state has 2**n amplitudes, received {amplitudes.size}.", argument="state")
    ax = _axes(ax)
    phases = (np.angle(amplitudes) + np.pi) / (2 * np.pi)
    ax.bar([format(k, f"0{n}b") for k in range(1 << n)], np.abs(amplitudes), color=colormaps["twilight"](phases))
    ax.set_ylabel("|amplitude|")
    ax.tick_params(axis="x", rotation=90)
    return ax


def plot_bloch(vector: Any, ax: Any = None) -> Any:
    """A qubit's Bloch vector (⟨X⟩, ⟨Y⟩, ⟨Z⟩) in its sphere. Returns the axes."""
    r = np.asarray(vector, dtype=np.float64)
    if r.shape != (3,) or float(r @ r) > 1.0 + 1e-6:
        raise SpecError(f"a Bloch vector has 3 components of length at most 1, received {vector!r}.", argument="vector")
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(4, 4)).add_subplot(projection="3d")
    turn, height = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    x, y, z = np.cos(turn) * np.sin(height), np.sin(turn) * np.sin(height), np.cos(height)
    ax.plot_wireframe(x, y, z, color="#bbbbbb", linewidth=0.4)
    ax.quiver(0, 0, 0, *r, color="#c0392b", linewidth=2, arrow_length_ratio=0.12)
    for text, place in (("|0⟩", (0, 0, 1.15)), ("|1⟩", (0, 0, -1.25)), ("x", (1.2, 0, 0)), ("y", (0, 1.2, 0))):
        ax.text(*place, text, ha="center", color=_INK)
    ax.set_box_aspect((1, 1, 1))
    ax.set_axis_off()
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(6, 4), layout="constrained").subplots()
