"""Presets: named choices of size, depth, bases and batch, shared by layers, the command and the example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """One choice.

    Attributes:
        n_qubits: Qubits of a feature extractor.
        depth: Levels of the ansatz.
        measurement_bases: What is measured on every qubit.
        batch_size: Rows of a training batch; of the training loop, not of the layers.
        meaning: One line.
    """

    n_qubits: int
    depth: int
    measurement_bases: tuple[str, ...]
    batch_size: int
    meaning: str

    def arguments(self) -> dict[str, Any]:
        """Arguments of any layer; a feature extractor also takes `n_qubits`."""
        return {"depth": self.depth, "measurement_bases": self.measurement_bases}


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "speed": Preset(6, 1, ("Z",), 64, "the shortest step"),
        "accuracy": Preset(8, 3, ("Z",), 32, "more qubits and a deeper circuit"),
        "research": Preset(8, 3, ("Z", "X", "Y"), 16, "everything that single qubits tell"),
    }
)
