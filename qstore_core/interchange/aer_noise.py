"""Noise models of Qiskit Aer as noise models of the core."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..circuit.checks import shown
from ..circuit.gates.table import ALIASES, GATES
from ..circuit.noise.channels import Channel
from ..circuit.noise.model import NoiseModel
from ..errors import BackendUnavailableError, SpecError

__all__ = ["noise_model_from_aer"]

_NAMES = {"cx": "cnot", "u": "u3"}
_ZERO = 1e-12  # a Kraus operator that is smaller does nothing


def noise_model_from_aer(model: Any) -> NoiseModel:
    """A `qiskit_aer.noise.NoiseModel` as one of the core: the same channels behind the same gates.

    Args:
        model: Errors on gates of one or two qubits that the gate table has, and readout errors of single qubits.

    Raises:
        SpecError: it says what the core does not: an error on an instruction that is no gate of the table, on more
            qubits, on `measure` or `reset`, or a readout error of several qubits. Nothing is left out.
        BackendUnavailableError: qiskit-aer is not installed.

    Example:
        >>> from qiskit_aer.noise import NoiseModel as Theirs, depolarizing_error
        >>> theirs = Theirs()
        >>> theirs.add_all_qubit_quantum_error(depolarizing_error(0.02, 2), ["cx"])
        >>> print(noise_model_from_aer(theirs))
        NoiseModel
          cnot: kraus(16 operators)
    """
    try:
        from qiskit.quantum_info import Kraus
        from qiskit_aer.noise import NoiseModel as Theirs
        from qiskit_aer.noise import QuantumError
    except ImportError as error:
        raise BackendUnavailableError(
            f'Aer\'s noise models need Qiskit Aer: {error}. Install it with: pip install "qstore[aer]"', backend="aer"
        ) from error
    if not isinstance(model, Theirs):
        raise SpecError(f"expected a qiskit_aer.noise.NoiseModel, received {shown(model)}.", argument="model")
    out = NoiseModel()
    for entry in model.to_dict()["errors"]:
        places: list[tuple[int, ...] | None] = [tuple(place) for place in entry.get("gate_qubits", ())] or [None]
        if entry["type"] == "roerror":
            out = _with_readout(out, np.array(entry["probabilities"], float), places)
            continue
        channel = _channel(Kraus(QuantumError.from_dict(entry)).data)
        for theirs in entry["operations"]:
            name = _NAMES.get(theirs, ALIASES.get(theirs, theirs))
            if name not in GATES:
                raise SpecError(f"the noise model has an error on {theirs!r}, which is no gate of qstore's table.")
            if GATES[name].n_qubits != channel.n_qubits:
                raise SpecError(
                    f"the noise model has an error of {channel.n_qubits} qubit(s) on {theirs!r}, which is on "
                    f"{GATES[name].n_qubits}."
                )
            for place in places:
                out = out.after(name, channel, qubits=place)
    return out


def _channel(data: Any) -> Channel:
    left, right = data if isinstance(data, tuple) else (data, None)
    if right is not None:
        raise SpecError("the noise model has an error that is not completely positive.")
    size = int(left[0].shape[0])
    if size not in (2, 4):
        raise SpecError(f"channels are on one or two qubits; the noise model has one of dimension {size}.")
    kraus = np.array(left)
    if size == 4:  # Qiskit's first qubit is the least significant
        kraus = kraus.reshape(-1, 2, 2, 2, 2).transpose(0, 2, 1, 4, 3).reshape(-1, 4, 4)
    return Channel.kraus(kraus[np.abs(kraus).max(axis=(1, 2)) > _ZERO])


def _with_readout(out: NoiseModel, matrix: np.ndarray, places: list[tuple[int, ...] | None]) -> NoiseModel:
    if matrix.shape != (2, 2) or any(place is not None and len(place) != 1 for place in places):
        raise SpecError("the noise model has a readout error of several qubits together. Use one per qubit.")
    for place in places:
        out = out.readout_error(float(matrix[0, 1]), float(matrix[1, 0]), place)
    return out
