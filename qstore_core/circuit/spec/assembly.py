"""The circuit of a layer's spec: encoding, ansatz levels, pooling."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..circuit import Circuit

__all__ = ["assembled"]


@lru_cache(maxsize=256)
def assembled(spec: Any) -> Circuit:
    """The circuit of a `LayerSpec`."""
    n = spec.n_qubits
    circuit = Circuit(n, amplitudes=spec.encoding.is_amplitude)
    if spec.ansatz is None:
        hash(circuit)
        return circuit
    x = () if spec.encoding.is_amplitude else circuit.inputs(spec.encoding.n_features(n))
    w = circuit.weights(spec.ansatz.n_weights(n, spec.depth))
    step = spec.ansatz.weights_per_level(n)
    if not spec.reuploading or spec.depth == 0:
        spec.encoding.append(circuit, x)
    for level in range(spec.depth):
        if spec.reuploading:
            spec.encoding.append(circuit, x)
        spec.ansatz.append_level(circuit, w[level * step : (level + 1) * step], level)
    spec.ansatz.append_final(circuit, w[spec.depth * step :])
    if spec.pool_mode == "measurement":
        for kept in range(0, n, spec.pool_size):
            for measured in range(kept + 1, kept + spec.pool_size):
                first, middle, last = circuit.weights(3)
                circuit.append("crz", (measured, kept), (first,))
                circuit.append("cry", (measured, kept), (middle,))
                circuit.append("crz", (measured, kept), (last,))
    hash(circuit)
    return circuit
