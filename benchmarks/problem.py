"""What is measured: one circuit, its data, and the values to reproduce before a time counts.

Amplitude encoding of 2**n features per row (normalised inside what is measured), then per level RY and RZ on
each qubit and CNOTs on all pairs i < j in lexicographic order (control first), then ⟨Z⟩ of each qubit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_ALL_ROWS = 1 << 17  # amplitudes (batch included) up to which every row is checked
_DRAWN = 1 << 24  # features up to which every row is drawn; later ones are earlier ones, shifted


@dataclass(frozen=True)
class Problem:
    """A point of the grid."""

    n_qubits: int
    batch: int
    depth: int = 2
    bases: str = "Z"
    encoding: str = "amplitude"

    @property
    def key(self) -> str:
        """Name of the point in the results."""
        return f"n{self.n_qubits}-b{self.batch}-d{self.depth}-{self.bases}-{self.encoding}"

    @property
    def n_weights(self) -> int:
        return 2 * self.n_qubits * self.depth

    @property
    def n_outputs(self) -> int:
        return self.n_qubits * len(self.bases)

    @property
    def tolerance(self) -> float:
        """Largest deviation that counts as float32 rounding, relative to the largest value.

        Expectation values of a random state shrink as 2^(-n/2), what their sums round away does not.
        """
        return 5e-4 * 2.0 ** (max(0, self.n_qubits - 12) / 2)

    @property
    def state_bytes(self) -> int:
        """Bytes of the whole batch of complex64 states."""
        return 8 * self.batch << self.n_qubits

    def angles(self) -> np.ndarray:
        """Weights, float32 (depth, n_qubits, 2): RY, RZ."""
        rng = np.random.default_rng(7)
        return rng.uniform(-np.pi, np.pi, (self.depth, self.n_qubits, 2)).astype(np.float32)

    def features(self) -> np.ndarray:
        """Raw features, float32 (batch, F); row k is the same whatever the batch size."""
        width = 1 << self.n_qubits if self.encoding == "amplitude" else self.n_qubits
        out = np.empty((self.batch, width), np.float32)
        drawn = max(1, _DRAWN >> self.n_qubits)
        for k in range(self.batch):
            if k < drawn:
                np.random.default_rng((k, self.n_qubits)).standard_normal(out=out[k], dtype=np.float32)
            else:
                earlier, shift = out[k % drawn], k // drawn
                out[k, shift:], out[k, :shift] = earlier[:-shift], earlier[-shift:]
        return out

    def cotangents(self, rows: np.ndarray | None = None) -> np.ndarray:
        """dL/d(output), float32 (batch, n_outputs); zero outside `rows` where these are given."""
        rng = np.random.default_rng(11)
        out = rng.standard_normal((self.batch, self.n_outputs)).astype(np.float32)
        if rows is not None:
            out[~np.isin(np.arange(self.batch), rows)] = 0.0
        return out

    def checked_rows(self) -> np.ndarray:
        """Rows whose values are compared: all of them, or four where that would take long."""
        if self.batch << self.n_qubits <= _ALL_ROWS:
            return np.arange(self.batch)
        return np.unique(np.linspace(0, self.batch - 1, 4).astype(int))

    def layer(self) -> dict[str, Any]:
        """Arguments of qstore's layer."""
        return {
            "n_qubits": self.n_qubits,
            "depth": self.depth,
            "measurement_bases": tuple(self.bases),
            "encoding": self.encoding,
        }

    def pairs(self) -> list[tuple[int, int]]:
        """CNOTs of one level, (control, target)."""
        return [(i, j) for i in range(self.n_qubits) for j in range(i + 1, self.n_qubits)]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def reference(problem: Problem) -> dict[str, np.ndarray]:
    """Outputs and gradients of the checked rows in float64, by qstore's NumPy engine."""
    from qstore_core import QuantumFeatureExtractor

    layer = QuantumFeatureExtractor(**problem.layer(), backend="statevector")
    layer.theta = problem.angles().ravel()
    rows = problem.checked_rows()
    x, cotangents = (a[rows].astype(np.float64) for a in (problem.features(), problem.cotangents()))
    d_theta, d_inputs = layer.vjp(x, cotangents)
    return {"outputs": layer(x), "d_theta": d_theta, "d_inputs": d_inputs.astype(np.float32)}


def difference(received: np.ndarray, expected: np.ndarray) -> float:
    """Largest deviation relative to the largest expected value (which counts as 1e-3 at least)."""
    if received.shape != expected.shape:
        return float("inf")
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-3)
    worst = float(np.abs(received.astype(np.float64) - expected).max(initial=0.0))
    return worst / scale if np.isfinite(worst) else float("inf")
