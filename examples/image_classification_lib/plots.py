"""Pictures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # writes files, needs no screen

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .data import ImageData
from .report import Result

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, ORANGE, RED, VIOLET = "#2b6cb0", "#dd6b20", "#c53030", "#6b46c1"
STYLE = {
    "figure.facecolor": "white",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
}


def write_all(
    result: Result, validation: ImageData, chances: np.ndarray, circuits: dict[str, Any], folder: Path
) -> list[Path]:
    """Write the pictures into `folder` and return their paths."""
    with plt.rc_context(STYLE):
        figures = {
            "curves": curves(result),
            "predictions": predictions(validation, chances, seed=result.settings.seed),
            "layer_times": layer_times(result),
        }
        if circuits:
            figures["circuits"] = draw_circuits(circuits)
        paths = []
        for name, figure in figures.items():
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1])
            plt.close(figure)
    return paths


def curves(result: Result) -> plt.Figure:
    """Loss, accuracy and learning rate, epoch by epoch."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", width_ratios=(1, 1, 0.7))
    epochs = [epoch.number for epoch in result.history]
    panels = (
        ("Loss (cross entropy)", "loss", 1, ""),
        ("Accuracy", "accuracy", 100, " %"),
    )
    for ax, (title, key, factor, unit) in zip(axes, panels, strict=False):
        for prefix, label, colour in (("", "training, augmented", BLUE), ("validation_", "validation", ORANGE)):
            values = [factor * getattr(epoch, prefix + key) for epoch in result.history]
            ax.plot(epochs, values, "o-", color=colour, markersize=3.5, label=label)
        best = factor * getattr(result.best, f"validation_{key}")
        ax.plot(result.best.number, best, "o", markersize=10, markerfacecolor="none", color=ORANGE, label="kept epoch")
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.yaxis.set_major_formatter(lambda value, _, unit=unit: f"{value:g}{unit}")
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(top=100.5)
    axes[1].set_title(f"Accuracy: {result.best.validation_accuracy:.1%} in epoch {result.best.number}")
    axes[0].legend()
    axes[2].plot(epochs, [epoch.learning_rate for epoch in result.history], "o-", color=MUTED, markersize=3.5)
    axes[2].set(title="Learning rate", xlabel="epoch")
    axes[2].set_ylim(bottom=0)
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(_headline(result), x=0.01, ha="left", color=MUTED, fontsize=9)
    return figure


def predictions(data: ImageData, chances: np.ndarray, *, seed: int, columns: int = 8) -> plt.Figure:
    """Two rows of random validation images, and two rows of the worst mistakes (or the least certain ones)."""
    guesses, sure = chances.argmax(axis=1), chances.max(axis=1)
    right = chances[np.arange(len(data.labels)), data.labels]
    hardest = np.argsort(right)[: 2 * columns]
    rest = np.setdiff1d(np.arange(len(data.labels)), hardest)
    some = np.random.default_rng(seed).permutation(rest)[: 2 * columns]
    # A band of its own above each half holds the heading, so that it cannot run into an image.
    figure = plt.figure(figsize=(1.45 * columns, 8.2))
    bands = figure.subfigures(2, 1)
    wrong = int((guesses != data.labels).sum())
    headings = (
        "Some validation images",
        f"The hardest validation images: {wrong} of {len(data.labels)} are taken for something else (red)",
    )
    for band, heading, chosen in zip(bands, headings, (some, hardest), strict=True):
        band.suptitle(heading, x=0.02, ha="left", fontweight="bold", fontsize=11)
        axes = band.subplots(2, columns, gridspec_kw={"top": 0.83, "bottom": 0.02, "left": 0.02, "right": 0.98})
        for ax in axes.flat:
            ax.axis("off")
        for ax, i in zip(axes.flat, chosen, strict=False):
            image = data.images[i]
            ax.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray_r", interpolation="nearest")
            ok = guesses[i] == data.labels[i]
            text = f"{data.class_names[guesses[i]]}  {sure[i]:.0%}"
            text += "" if ok else f"\nis {data.class_names[data.labels[i]]}"
            ax.set_title(text, fontsize=9, loc="center", fontweight="normal", color=INK if ok else RED, pad=3)
    return figure


def layer_times(result: Result) -> plt.Figure:
    """Milliseconds of each part of the network, quantum layers in their own colour."""
    names = [name for name in result.part_seconds if not name.endswith("_norm") and name != "pixels"]
    times = [1e3 * result.part_seconds[name] for name in names]
    step = 1e3 * result.step_seconds
    colours = [VIOLET if name in result.quantum_layers else BLUE for name in names]
    figure, ax = plt.subplots(figsize=(9, 0.36 * len(names) + 1.6), layout="constrained")
    bars = ax.barh(names, times, color=colours, height=0.66)
    shares = [f"{time:.2f} ms   {time / step:.1%}" for time in times]
    ax.bar_label(bars, shares, padding=5, fontsize=9, color=INK)
    ax.invert_yaxis()
    ax.set_xlim(0, max(times) * 1.25)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(f"ms forward + backward, alone, batch of {result.settings.batch_size}; % of a {step:.0f} ms step")
    title = "Where a training step goes"
    if result.quantum_layers:
        title += f": quantum layers (violet) take {result.quantum_share:.1%}"
    ax.set_title(title)
    figure.suptitle(_headline(result), x=0.01, ha="left", color=MUTED, fontsize=9)
    return figure


def draw_circuits(circuits: dict[str, Any]) -> plt.Figure:
    """The circuits under each other, drawn from their operations."""
    heights = [0.42 * circuit.n_qubits + 0.7 for circuit in circuits.values()]
    columns = max(len(_columns(circuit)) for circuit in circuits.values())
    size = (min(22, 0.34 * columns + 2.2), sum(heights))
    figure, axes = plt.subplots(
        len(circuits), 1, figsize=size, height_ratios=heights, layout="constrained", squeeze=False
    )
    for ax, (name, circuit) in zip(axes[:, 0], circuits.items(), strict=True):
        ax.set_title(f"{name}: {circuit.n_qubits} qubits, {circuit.n_weights} angles, {len(circuit.operations)} gates")
        _draw_circuit(ax, circuit)
        ax.set_xlim(-1.6, columns)
    return figure


def _draw_circuit(ax: Axes, circuit: Any) -> None:
    columns = _columns(circuit)
    ax.axis("off")
    ax.set_ylim(circuit.n_qubits - 0.4, -0.6)
    for qubit in range(circuit.n_qubits):
        ax.plot((-0.5, len(columns) - 0.4), (qubit, qubit), color=MUTED, linewidth=0.8, zorder=1)
        start = "ψ(x)" if circuit.n_amplitudes else "|0⟩"
        ax.text(-0.7, qubit, start, ha="right", va="center", color=MUTED, fontsize=8)
    for column, operations in enumerate(columns):
        for operation in operations:
            _draw_gate(ax, column, operation)


def _draw_gate(ax: Axes, column: int, operation: Any) -> None:
    *controls, target = operation.qubits
    if controls:
        ax.plot((column, column), (min(operation.qubits), max(operation.qubits)), color=INK, linewidth=1, zorder=2)
        ax.plot([column] * len(controls), controls, "o", color=INK, markersize=4, zorder=3)
    if operation.gate in ("cnot", "ccx"):
        ax.plot(column, target, "o", markersize=9, markerfacecolor="white", color=INK, zorder=3)
        ax.plot(column, target, "+", markersize=9, color=INK, zorder=4)
        return
    trained = any("w" in str(angle) for angle in operation.params)
    box = {"boxstyle": "round,pad=0.22", "edgecolor": VIOLET if trained else INK, "facecolor": "#f3effc"}
    label = operation.gate.removeprefix("c" if controls else "").upper()
    ax.text(column, target, label, ha="center", va="center", fontsize=7, zorder=5, bbox=box)


def _columns(circuit: Any) -> list[list[Any]]:
    """Operations in columns: each as far left as the wires that it crosses allow."""
    free = [0] * circuit.n_qubits
    columns: list[list[Any]] = []
    for operation in circuit.operations:
        span = range(min(operation.qubits), max(operation.qubits) + 1)
        place = max(free[qubit] for qubit in span)
        columns.extend([] for _ in range(place + 1 - len(columns)))
        columns[place].append(operation)
        for qubit in span:
            free[qubit] = place + 1
    return columns


def _headline(result: Result) -> str:
    return f"{result.version} · {result.settings.head} head · {result.source} · seed {result.settings.seed}"
