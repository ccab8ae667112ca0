"""Plots of what the analysis finds; with matplotlib, which is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .trainability import GradientVariance

__all__ = ["plot_fourier_spectrum", "plot_gradient_variance"]


def plot_gradient_variance(found: Sequence[GradientVariance], ax: Any = None) -> Any:
    """Variance of gradients against qubits, a line per depth, on a logarithmic scale. Returns the axes."""
    ax = _axes(ax)
    for depth in sorted({entry.depth for entry in found}):
        line = sorted((entry for entry in found if entry.depth == depth), key=lambda entry: entry.n_qubits)
        ax.plot([e.n_qubits for e in line], [e.mean for e in line], "o-", label=f"depth {depth}")
    ax.set_yscale("log")
    ax.set_xlabel("qubits")
    ax.set_ylabel("mean variance of dL/dθ")
    ax.legend()
    return ax


def plot_fourier_spectrum(coefficients: np.ndarray, ax: Any = None) -> Any:
    """|c_k| of each output against the frequency k. Returns the axes."""
    ax = _axes(ax)
    highest = len(coefficients) // 2
    outputs = coefficients.shape[1]
    for number, column in enumerate(np.abs(coefficients).T):
        offset = 0.8 * (number - (outputs - 1) / 2) / outputs
        ax.bar(np.arange(-highest, highest + 1) + offset, column, width=0.8 / outputs, label=f"output {number}")
    ax.set_xlabel("frequency k")
    ax.set_ylabel("|c_k|")
    ax.legend()
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(6, 4), layout="constrained").subplots()
