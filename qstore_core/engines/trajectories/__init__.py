"""The `trajectories` engine: samples of circuits with channels, of as many qubits as a state vector has room for.

Each shot is one trajectory: at every channel one Kraus operator is drawn by the Born rule, at the end the qubits are
measured, once. So values are what a device with this noise gives with as many shots: they have standard errors, and
gradients come from the parameter-shift rule.

Source:
    Dalibard, Castin & Mølmer, Physical Review Letters 68, 580 (1992).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from ...backends.contract import Capabilities, RunReport, check_options, hookimpl
from ...circuit.checks import check_arrays
from ...circuit.circuit import Circuit
from ...circuit.gates.table import GATES
from ...circuit.measurements.measurement import Measurement
from ...circuit.noise.model import NoiseModel, check_noise_model
from ...errors import CapabilityError
from ..density.matrices import Matrices
from ..memory import check_bytes
from ..readout import Group, Readout, Samples
from . import arrays
from .program import Program, half_turn_terms
from .states import drawn, final_states

__all__ = ["TrajectoriesBackend", "TrajectoriesExecutable"]

_TO_Z = {"X": GATES["h"].matrix(), "Y": GATES["h"].matrix() @ GATES["sdg"].matrix()}
_STATES = 6  # of one trajectory, and what a step takes
_SHOT = 48  # bytes: a basis state as it is drawn, read and sorted
_DRAWS = 1 << 22  # random numbers that are held at once


class TrajectoriesBackend:
    """Samples of noisy circuits.

    Args:
        noise_model: Channels behind gates by their names, and readout errors: a `NoiseModel` or its `to_dict()`. Those
            in the circuit itself come as well.

    Example:
        >>> from qstore_core import Circuit, QuantumLayer, Expectation
        >>> c = Circuit(12)
        >>> c.x(11); c.amplitude_damping(0.5, 11)
        >>> layer = QuantumLayer(c, Expectation("Z", qubits=(11,)), backend="trajectories", shots=1000, seed=0)
        >>> bool(abs(layer(np.zeros((1, 0)))[0, 0]) < 0.2)
        True
    """

    name = "trajectories"

    def __init__(self, noise_model: NoiseModel | Mapping[str, Any] | None = None) -> None:
        self.noise_model = check_noise_model(noise_model, self.name)
        self.capabilities = Capabilities(exact=False, shots=True, channels=True, noisy=self.noise_model is not None)

    def explain(self, n_qubits: int) -> str:
        """How a circuit of this size is computed."""
        return f"one trajectory of 2**{n_qubits} amplitudes a shot; equal histories are computed once"

    def compile(
        self,
        circuit: Circuit,
        measurement: Measurement,
        *,
        dtype: str = "float32",
        shots: int | None = None,
    ) -> TrajectoriesExecutable:
        """Lower the circuit, with the noise behind its gates."""
        if shots is None:
            raise CapabilityError(
                "backend 'trajectories' can only sample. Use shots=, for example shots=1024; exact values of up to 10 "
                'qubits are those of backend="density".',
                backend=self.name,
            )
        if self.noise_model is not None:
            circuit = self.noise_model.applied(circuit)
        check_bytes(
            (_STATES * 16 << circuit.n_qubits) + _SHOT * shots,
            f"{shots} samples of a state of {circuit.n_qubits} qubits cannot be simulated here",
        )
        return TrajectoriesExecutable(circuit, measurement, dtype, shots)


class TrajectoriesExecutable:
    """A compiled circuit; stateless after construction, so threads share it."""

    def __init__(self, circuit: Circuit, measurement: Measurement, dtype: str, shots: int) -> None:
        """Lower the circuit."""
        self._program, self._dtype, self._shots = Program(circuit), np.dtype(dtype), shots
        self._matrices = Matrices(self._program.singles, half_turn_terms, 0.5)
        self._readout = Readout(measurement, circuit.n_qubits)
        self._ops = _operations()
        self._width, self._n = circuit.n_amplitudes, circuit.n_qubits

    def forward(self, theta: np.ndarray, inputs: np.ndarray, *, seed: int) -> np.ndarray:
        """`theta` (W,), `inputs` (B, I) → sampled outputs (B, O)."""
        return self.value_and_report(theta, inputs, seed=seed)[0]

    def value_and_report(self, theta: np.ndarray, inputs: np.ndarray, *, seed: int) -> tuple[np.ndarray, RunReport]:
        """The same with standard errors."""
        theta, inputs = np.asarray(theta), np.asarray(inputs)
        circuit = self._program.circuit
        check_arrays(theta, inputs, circuit.n_weights, circuit.n_amplitudes + circuit.n_inputs)
        rows = len(inputs)
        if not rows:
            return np.zeros((0, self._readout.n_outputs), self._dtype), RunReport()
        outcomes = sum(
            min(self._shots, 1 << len(group.qubits)) * (len(group.qubits) + 64) for group in self._readout.groups
        )
        check_bytes(
            self._matrices.nbytes(rows) + rows * outcomes,
            f"{rows} rows of {self._shots} samples of {self._n} qubits cannot be simulated here",
        )
        matrices, _ = self._matrices.values(theta, inputs[:, self._width :])
        samples: list[Samples] = []
        for number, group in enumerate(self._readout.groups):
            parts = [
                self._measured(group, inputs[row], matrices[row], np.random.default_rng([seed, number, row]))
                for row in range(rows)
            ]
            bits = np.concatenate([bits for bits, _ in parts])
            counts = np.concatenate([counts for _, counts in parts])
            samples.append((bits, np.repeat(np.arange(rows), [len(part[1]) for part in parts]), counts))
        outputs, error = self._readout.from_samples(samples, rows)
        return outputs.astype(self._dtype), RunReport(std_error=error)

    def _measured(
        self, group: Group, inputs: np.ndarray, matrices: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """`(bits (K, qubits of the group), how often each came (K,))` of one sample."""
        program, n = self._program, self._n
        start = np.zeros(1 << n, complex)
        start[: max(1, self._width)] = inputs[: self._width] if self._width else 1.0
        index = np.empty(self._shots, np.int64)
        part = max(1, _DRAWS // (program.n_choices + 1))
        for begin in range(0, self._shots, part):
            count = min(part, self._shots - begin)
            draws, u = rng.random((count, program.n_choices)), rng.random(count)
            for states, history, numbers in final_states(program, start, matrices, draws, self._ops):
                for qubit, letter in zip(group.qubits, group.letters, strict=True):
                    if letter in _TO_Z:
                        self._ops.apply(states, _TO_Z[letter][None], (qubit,))
                index[begin + numbers] = drawn(states, history, u[numbers])
        read = np.zeros_like(index)  # the group's bits, its first qubit most significant
        for qubit in group.qubits:
            bit = index >> (n - 1 - qubit) & 1
            if qubit in program.confusion:
                bit = rng.random(self._shots) < program.confusion[qubit][bit, 1]  # of reading 1
            read = 2 * read + bit
        found, counts = np.unique(read, return_counts=True)
        return (found[:, None] >> np.arange(len(group.qubits))[::-1] & 1).astype(np.uint8), counts


def _has_numba() -> bool:
    return find_spec("numba") is not None


def _operations() -> Any:
    """Compiled where numba is there."""
    if not _has_numba():
        return arrays
    from . import kernels

    return kernels


@hookimpl
def qstore_backend(options: dict[str, Any]) -> TrajectoriesBackend:
    """The `trajectories` backend; see `TrajectoriesBackend`."""
    check_options(options, ("noise_model",), backend="trajectories")
    return TrajectoriesBackend(**options)
