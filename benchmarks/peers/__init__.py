"""The libraries that are measured, one module each, written as the library's documentation recommends for speed.

A module holds `LIBRARIES`: for each way of calling it a `Library`, whose `build` turns a `Problem` into a `Running`.
`forward()` gives outputs, `step(cotangents)` gives outputs and the gradients of Σ cotangents · outputs for weights and
features. Data is converted to the library's own tensors beforehand; normalising the features is part of what is
measured. No module imports its library before `build`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..problem import Problem


@dataclass
class Running:
    """A library set up for one problem.

    Args:
        forward: Gives outputs.
        step: Takes cotangents; gives (outputs, d_theta in the order (depth, qubit, RY/RZ), d_inputs or None).
        native: Makes the library's tensors of NumPy arrays.
        info: Goes into the results.
        finish: Waits until what a call returned is there; None where calls return finished values.
        peak: Gives the device's peak bytes since it was last asked; None where the process's memory counts.
    """

    forward: Callable[[], Any]
    step: Callable[[Any], tuple[Any, Any, Any]]
    native: Callable[[np.ndarray], Any]
    info: dict[str, Any] = field(default_factory=dict)
    finish: Callable[[Any], Any] | None = None
    peak: Callable[[], int] | None = None


@dataclass(frozen=True)
class Library:
    """A library and one way of calling it.

    Args:
        kind: "ours", "peer", "variant" (ours, for a section of its own), "engine" (no layer around it) or "nothing"
            (what a framework's call takes by itself).
        device: "cpu" or "cuda".
        qubits: No other sizes are tried.
    """

    name: str
    label: str
    build: Callable[[Problem], Running]
    distribution: str
    imports: tuple[str, ...]
    note: str = ""
    kind: str = "peer"
    device: str = "cpu"
    qubits: range = range(100)


def to_numpy(value: Any, rows: Any = ...) -> np.ndarray:
    """A NumPy array of (some rows of) a tensor of any framework."""
    return value.detach()[rows].cpu().numpy() if hasattr(value, "detach") else np.asarray(value)[rows]


def only_z(problem: Problem) -> None:
    """Refuse a problem with other bases than Z."""
    if problem.bases != "Z":
        raise NotImplementedError("measured in the basis Z only")


_MODULES = (
    "qstore",
    "pennylane",
    "tensorcircuit",
    "qujax",
    "deepquantum",
    "pyqtorch",
    "qiskit_ml",
    "triton_qml",
    "fastqml",
    "frameworks",
)
LIBRARIES: dict[str, Library] = {
    library.name: library for name in _MODULES for library in importlib.import_module(f".{name}", __package__).LIBRARIES
}


def names(kind: str, device: str = "cpu") -> tuple[str, ...]:
    """Names of the libraries of a kind, in order."""
    return tuple(name for name, library in LIBRARIES.items() if (library.kind, library.device) == (kind, device))
