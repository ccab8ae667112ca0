"""What Aer's noise models name: instructions, which must then run as they are written, and readout errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from qstore_core import CapabilityError, Circuit

__all__ = ["Channels", "Noise", "noise_of"]


class Noise:
    """A noise model, as far as translating a circuit depends on it.

    Args:
        model: A qiskit_aer.noise.NoiseModel.

    Attributes:
        names: Instructions that have an error, by Qiskit's names or by labels.
    """

    def __init__(self, model: Any) -> None:
        self.names = frozenset(model.noise_instructions)
        self._everywhere: np.ndarray | None = None
        self._at: dict[int, np.ndarray] = {}
        self._noisy_measurement = False
        for error in model.to_dict()["errors"]:
            if error["type"] != "roerror":
                self._noisy_measurement |= "measure" in error["operations"]
                continue
            matrix = np.array(error["probabilities"], float)
            qubits = [tuple(place) for place in error.get("gate_qubits", ())]
            if matrix.shape != (2, 2) or any(len(place) != 1 for place in qubits):
                raise CapabilityError(
                    "the noise model has a readout error of several qubits together, which Aer leaves out. Use one "
                    "per qubit.", backend="aer",
                )  # fmt: skip
            if not qubits:
                self._everywhere = matrix
            for (qubit,) in qubits:
                self._at[qubit] = matrix

    def confusion(self, qubit: int) -> np.ndarray | None:
        """P(read n | is m) as [m, n] for one qubit; None where it is read as it is."""
        return self._at.get(qubit, self._everywhere)

    @property
    def spoils_readout(self) -> bool:
        """Whether any qubit is read with errors."""
        return self._everywhere is not None or bool(self._at)

    def check_exact(self) -> None:
        """Refuse what exact values cannot have.

        Raises:
            CapabilityError: measuring itself is a noisy operation.
        """
        if self._noisy_measurement:
            raise CapabilityError(
                "the noise model has a quantum error on 'measure', which exact values do not pass through. Use shots=, "
                "or a readout error.", backend="aer",
            )  # fmt: skip

    def check_kept(self, written: set[str], kept: set[str]) -> None:
        """Refuse to decompose gates that the model names.

        Args:
            written: Names of the circuit's gates.
            kept: Those that run as they are.

        Raises:
            CapabilityError: one that has noise does not.
        """
        lost = sorted((written - kept) & self.names)
        if lost:
            raise CapabilityError(
                f"the noise model has errors on {', '.join(lost)}, but the target has no such gate, and decomposed it "
                "has none. Give the model as noise_model= without a device, or errors on the device's own gates.",
                backend="aer",
            )


class Channels:
    """The noise of a circuit with channels, in the place of `Noise`: its readout errors; channels are instructions.

    Args:
        circuit: A circuit with channels.
    """

    names: frozenset[str] = frozenset()

    def __init__(self, circuit: Circuit) -> None:
        self._at: dict[int, np.ndarray] = {}
        for op in circuit.operations:
            if op.channel is not None and op.channel.is_readout:
                (qubit,) = op.qubits
                self._at[qubit] = self._at.get(qubit, np.eye(2)) @ op.channel.confusion

    def confusion(self, qubit: int) -> np.ndarray | None:
        """P(read n | is m) as [m, n] for one qubit; None where it is read as it is."""
        return self._at.get(qubit)

    @property
    def spoils_readout(self) -> bool:
        """Whether any qubit is read with errors."""
        return bool(self._at)

    def model(self) -> Any:
        """The readout errors as a noise model of Aer's, for samples."""
        from qiskit_aer.noise import NoiseModel, ReadoutError

        out = NoiseModel()
        for qubit, matrix in self._at.items():
            out.add_readout_error(ReadoutError(matrix), [qubit])
        return out


def noise_of(simulator: Any) -> Noise | None:
    """The noise of an AerSimulator, or of one that a primitive runs on; None where there is none."""
    for owner in (simulator, getattr(simulator, "_backend", None), getattr(simulator, "backend", None)):
        model = getattr(getattr(owner, "options", None), "noise_model", None)
        if model is not None and not model.is_ideal():
            return Noise(model)
    return None
