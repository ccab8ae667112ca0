"""`qml.device("qstore.qubit", wires=8)`: qstore's engines under PennyLane.

Tapes of equal structure are one compiled circuit and one call: a broadcast tape, the shifted tapes of a gradient
transform. Derivatives are those of the engine, by the adjoint method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pennylane as qml
from pennylane.devices import Device, ExecutionConfig
from pennylane.devices.modifiers import simulator_tracking, single_tape_support
from pennylane.devices.preprocess import (
    decompose,
    device_resolve_dynamic_wires,
    validate_device_wires,
    validate_measurements,
)
from pennylane.exceptions import DeviceError, QuantumFunctionError
from pennylane.measurements import ClassicalShadowMP, MeasurementProcess, SampleMeasurement, ShadowExpvalMP
from pennylane.tape import QuantumScript
from pennylane.transforms import broadcast_expand, defer_measurements, split_non_commuting
from pennylane.transforms.core import CompilePipeline

from qstore_core.backends.forking import new_lock

from .._engines import OnEngine
from ._calls import Group, grouped, sample
from ._operations import NAMES, is_known, start_state
from ._readings import TapeRuns, is_differentiable, is_exact

__all__ = ["QstoreQubit"]

_SHADOWS = (ClassicalShadowMP, ShadowExpvalMP)
_ADJOINT = ("best", "adjoint", "device")


@simulator_tracking
@single_tape_support
class QstoreQubit(OnEngine, Device):
    """A PennyLane device on qstore's engines: exact values, adjoint derivatives, and samples.

    Args:
        wires: Number of wires, or their labels; without them every circuit has its own.
        shots: Default number of samples; None for exact values.
        seed: Of the samples: equal seeds give equal samples, call by call.
        backend: Which engine of qstore computes: "numba", "statevector", or "auto" for the fastest installed.

    Example:
        >>> import pennylane as qml
        >>> device = qml.device("qstore.qubit", wires=2)
        >>> @qml.qnode(device)
        ... def circuit(x):
        ...     qml.RY(x, wires=0)
        ...     qml.CNOT(wires=[0, 1])
        ...     return qml.expval(qml.Z(1))
        >>> circuit(0.5).round(6)   # cos 0.5
        np.float64(0.877583)
    """

    name = "qstore.qubit"

    def __init__(self, wires: Any = None, shots: Any = None, *, seed: Any = None, backend: str = "auto") -> None:
        super().__init__(wires=wires, shots=shots)
        self._choose(backend)
        self._rng, self._lock = np.random.default_rng(seed), new_lock(self, "_lock")
        self._kept: list[Group] = []

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to this process: so models are copied, saved and sent to workers."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._kept = new_lock(self, "_lock"), []

    # -- what PennyLane asks ------------------------------------------------------------------------------------

    def preprocess_transforms(self, execution_config: ExecutionConfig | None = None) -> CompilePipeline:
        """What is done to circuits before they come here: deferral, decomposition, checks, and bases of samples."""
        config = execution_config or ExecutionConfig()
        differentiated = config.gradient_method in _ADJOINT
        program = CompilePipeline()
        program.add_transform(validate_device_wires, self.wires, name=self.name)
        program.add_transform(defer_measurements, allow_postselect=False)
        program.add_transform(_synthesise_start, differentiated=differentiated)
        program.add_transform(
            decompose,
            stopping_condition=lambda op: is_known(op, differentiated=differentiated),
            device_wires=self.wires,
            target_gates=set(NAMES),
            name=self.name,
        )
        program.add_transform(device_resolve_dynamic_wires, wires=self.wires, allow_resets=False)
        program.add_transform(
            validate_measurements, analytic_measurements=is_exact, sample_measurements=_is_sampled, name=self.name
        )
        program.add_transform(_one_basis_per_tape)
        return program

    def setup_execution_config(
        self, config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> ExecutionConfig:
        """Adjoint derivatives as vector-Jacobian products, and deferred measurements."""
        config = config or ExecutionConfig()
        if config.device_options:
            raise DeviceError(f"{self.name} has no device options, received {', '.join(config.device_options)}.")
        if config.mcm_config.mcm_method not in (None, "deferred", "device"):
            raise DeviceError(
                f"mcm_method={str(config.mcm_config.mcm_method)!r} is not supported on {self.name}. "
                'Use mcm_method="deferred".'
            )
        changes: dict[str, Any] = {"mcm_config": replace(config.mcm_config, mcm_method="deferred")}
        if config.gradient_method in _ADJOINT:
            changes |= {
                "gradient_method": "adjoint",
                "use_device_gradient": True,
                "use_device_jacobian_product": True,
                "grad_on_execution": False,
            }
        return replace(config, **changes)

    def supports_derivatives(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """Whether the adjoint method gives first derivatives: without shots, of what is computed exactly."""
        if execution_config is None:
            return True
        if execution_config.gradient_method not in _ADJOINT or execution_config.derivative_order > 1:
            return False
        return circuit is None or (not circuit.shots and all(map(is_differentiable, circuit.measurements)))

    def supports_vjp(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """As `supports_derivatives`."""
        return self.supports_derivatives(execution_config, circuit)

    def supports_jvp(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """As `supports_derivatives`."""
        return self.supports_derivatives(execution_config, circuit)

    # -- running ------------------------------------------------------------------------------------------------

    def execute(self, circuits: Sequence[QuantumScript], execution_config: ExecutionConfig | None = None) -> Any:
        """Results of each circuit; those of equal structure are one call of the engine."""
        wants_vjp = execution_config is not None and execution_config.gradient_method == "adjoint"
        results: list[Any] = [None] * len(circuits)
        exact = [number for number, tape in enumerate(circuits) if not tape.shots]
        kept = []
        for numbers, group in grouped(circuits, exact, self._backend):
            group.run(vjp=wants_vjp and group.is_trainable)
            kept += [group] if group.can_pull else []
            for number, result in zip(numbers, group.results(), strict=True):
                results[number] = result
        self._kept = kept
        sampled = [number for number, tape in enumerate(circuits) if tape.shots]
        with self._lock:
            rngs = self._rng.spawn(len(sampled))
        for number, result in zip(sampled, sample([circuits[k] for k in sampled], self._backend, rngs), strict=True):
            results[number] = result
        return tuple(results)

    def compute_vjp(
        self, circuits: Sequence[QuantumScript], cotangents: Sequence[Any],
        execution_config: ExecutionConfig | None = None,
    ) -> Any:  # fmt: skip
        """Cotangents of the results of each circuit → gradients of its trainable parameters.

        The states of the last `execute` are taken where the numbers are the same.
        """
        return self._pulled(circuits, cotangents)[1]

    def execute_and_compute_vjp(
        self, circuits: Sequence[QuantumScript], cotangents: Sequence[Any],
        execution_config: ExecutionConfig | None = None,
    ) -> Any:  # fmt: skip
        """Results, and the same."""
        return self._pulled(circuits, cotangents)

    def _pulled(self, circuits: Sequence[QuantumScript], cotangents: Sequence[Any]) -> tuple[Any, Any]:
        _check_exact(circuits)
        results: list[Any] = [None] * len(circuits)
        gradients: list[Any] = [None] * len(circuits)
        for numbers, group in grouped(circuits, range(len(circuits)), self._backend):
            group.run(vjp=True, kept=self._kept)
            gradients = group.vjp([cotangents[number] for number in numbers])
            for number, result, gradient in zip(numbers, group.results(), gradients, strict=True):
                results[number], gradients[number] = result, gradient
        return tuple(results), tuple(gradients)

    def compute_derivatives(
        self, circuits: Sequence[QuantumScript], execution_config: ExecutionConfig | None = None
    ) -> Any:
        """Jacobians of each circuit by its trainable parameters."""
        return self.execute_and_compute_derivatives(circuits, execution_config)[1]

    def execute_and_compute_derivatives(
        self, circuits: Sequence[QuantumScript], execution_config: ExecutionConfig | None = None
    ) -> Any:
        """Results, and the same."""
        groups = self._row_by_row(circuits)
        return tuple(group.results()[0] for group in groups), tuple(group.derivatives() for group in groups)

    def compute_jvp(
        self, circuits: Sequence[QuantumScript], tangents: Sequence[Any],
        execution_config: ExecutionConfig | None = None,
    ) -> Any:  # fmt: skip
        """Tangents of the trainable parameters of each circuit → tangents of its results."""
        return self.execute_and_compute_jvp(circuits, tangents, execution_config)[1]

    def execute_and_compute_jvp(
        self, circuits: Sequence[QuantumScript], tangents: Sequence[Any],
        execution_config: ExecutionConfig | None = None,
    ) -> Any:  # fmt: skip
        """Results, and the same."""
        groups = self._row_by_row(circuits)
        moved = tuple(group.push(tangent) for group, tangent in zip(groups, tangents, strict=True))
        return tuple(group.results()[0] for group in groups), moved

    def _row_by_row(self, circuits: Sequence[QuantumScript]) -> list[Group]:
        """A group for each circuit, which has run with derivatives of every row."""
        _check_exact(circuits)
        groups = [Group([TapeRuns(tape)], self._backend) for tape in circuits]
        for group in groups:
            group.run(vjp=True, separate=True)
        return groups


def _check_exact(circuits: Sequence[QuantumScript]) -> None:
    if any(tape.shots for tape in circuits):
        raise QuantumFunctionError(
            'derivatives on qstore.qubit are exact: with shots use diff_method="parameter-shift", or shots=None.'
        )


def _is_sampled(measurement: MeasurementProcess) -> bool:
    return isinstance(measurement, _SHADOWS) or (
        isinstance(measurement, SampleMeasurement)
        and (
            measurement.obs is None or measurement.obs.has_diagonalizing_gates or measurement.obs.pauli_rep is not None
        )
    )


@qml.transform
def _synthesise_start(
    tape: QuantumScript, differentiated: bool = False
) -> tuple[Sequence[QuantumScript], Callable[[Any], Any]]:
    """Write a start state that is not real as gates."""
    if not tape.num_preps or isinstance(tape[0], qml.BasisState):
        return (tape,), _only
    state = start_state(tape[0], tape[0].wires)
    trainable = differentiated and any(qml.math.requires_grad(d) for d in tape[0].data)
    if np.isrealobj(state) or not np.any(state.imag):
        if trainable and qml.math.get_dtype_name(tape[0].data[0]).startswith("complex"):
            raise QuantumFunctionError(_COMPLEX)
        return (tape,), _only
    if trainable:
        raise QuantumFunctionError(_COMPLEX)
    return (tape.copy(operations=[*tape[0].decomposition(), *tape.operations[1:]]),), _only


_COMPLEX = (
    "qstore.qubit differentiates by the amplitudes of a real start state, the circuit has a complex one: use "
    "real amplitudes, mark them as not trainable, or prepare the state by gates."
)


@qml.transform
def _one_basis_per_tape(tape: QuantumScript) -> tuple[Sequence[QuantumScript], Callable[[Any], Any]]:
    """Split what is sampled into tapes whose measurements are read from the same samples; shadows stand alone."""
    if not tape.shots:
        return (tape,), _only
    shadows = [isinstance(mp, _SHADOWS) for mp in tape.measurements]
    if not any(shadows):
        return split_non_commuting(tape)
    if len(shadows) > 1:
        raise DeviceError("qstore.qubit measures a classical shadow alone: ask for the other results separately.")
    return broadcast_expand(tape)


def _only(results: Any) -> Any:
    return results[0]
