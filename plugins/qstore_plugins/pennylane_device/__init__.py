"""PennyLane: any of its devices by name, simulators and the hardware of its plugins alike.

    get_backend("pennylane")                             default.qubit, exact, differentiated by back-propagation
    get_backend("pennylane:lightning.qubit")             a device by name; differentiated by its own adjoint method
    get_backend("pennylane", device="lightning.qubit", batch_obs=True)      with the device's own options
    get_backend("pennylane", device=qml.add_noise(qml.device("default.mixed", wires=4), noise))   a device itself

A batch is one call of the device.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import numpy as np

from qstore_core import Capabilities, CapabilityError, Circuit, OptionError, hookimpl
from qstore_core.backends.contract import check_options
from qstore_core.backends.forking import off_forked_thread
from qstore_core.circuit.measurements.measurement import Measurement
from qstore_core.errors import nearest

__all__ = ["PennyLaneBackend", "qstore_backend"]

QSTORE_CONTRACT = 2

_LOCAL = ("pennylane.", "pennylane_lightning.", "catalyst.")


@hookimpl
def qstore_backend(options: dict[str, Any]) -> PennyLaneBackend:
    """The backend for `options`; see `PennyLaneBackend`."""
    import pennylane  # noqa: F401 - an ImportError from here names the missing library

    return PennyLaneBackend(**options)


class PennyLaneBackend:
    """Circuits on a PennyLane device.

    Args:
        device: Name of a device, or a device.
        **options: Of the device, as `qml.device` takes them. `wires`, where it is given, is the most qubits there are.

    Example:
        >>> from qstore_core import QuantumReadout
        >>> layer = QuantumReadout(4, backend="pennylane:lightning.qubit", shots=1024, seed=0)  # doctest: +SKIP
    """

    def __init__(self, device: Any = "default.qubit", **options: Any) -> None:
        self._given, self._options = device, options
        self._seeded = False
        if isinstance(device, str):
            self._check(device, options)
        elif options:
            raise OptionError(
                "options cannot be given to a device that exists already. Give them where it is made.",
                argument=next(iter(options)),
                backend="pennylane",
            )
        probe = self._make(1)
        if not callable(getattr(probe, "preprocess", None)) or not callable(getattr(probe, "execute", None)):
            raise OptionError(
                f"device= takes the name of a PennyLane device, or a device, received {device!r}.",
                argument="device",
                backend="pennylane",
            )
        self.name = f"pennylane:{probe.name}"
        self._gradient = _gradient_of(probe)
        wires = None if isinstance(device, str) and "wires" not in options else probe.wires
        kind = type(getattr(probe, "target_device", probe))
        remote = not f"{kind.__module__}.".startswith(_LOCAL)
        self.capabilities = Capabilities(
            exact=_is_exact(probe),
            shots=True,
            vjp=self._gradient is not None,
            remote=remote,
            noisy=remote or _is_noisy(probe),
            max_qubits=None if wires is None else len(wires),
        )

    def compile(
        self, circuit: Circuit, measurement: Measurement, *, dtype: str = "float32", shots: int | None = None
    ) -> Any:
        """An executable, with a device of its own where the device was named.

        Raises:
            CapabilityError: exact values of a device that samples.
        """
        from ._tapes import queuing

        with queuing():
            return self._compile(circuit, measurement, dtype, shots)

    def _compile(self, circuit: Circuit, measurement: Measurement, dtype: str, shots: int | None) -> Any:
        from ._tapes import Adjoint, BackPropagation, Device, Exact, Sampled

        device, remote = self._make(circuit.n_qubits), self.capabilities.remote
        if shots is not None:
            seeded = partial(self._make, circuit.n_qubits) if self._seeded else None
            return Sampled(circuit, measurement, Device(device, seeded=seeded, remote=remote), dtype, shots)
        if not self.capabilities.exact:
            raise CapabilityError(f"backend {self.name!r} can only sample. Use shots=, for example shots=1024.",
                                  backend=self.name)  # fmt: skip
        if self._gradient == "backprop":
            return BackPropagation(circuit, measurement, Device(device, "backprop", remote=remote), dtype)
        if self._gradient == "adjoint":
            adjoint = Device(device, "adjoint", remote=remote)
            return Adjoint(circuit, measurement, Device(device, remote=remote), adjoint, dtype)
        return Exact(circuit, measurement, Device(device, remote=remote), dtype)

    def _check(self, name: str, options: dict[str, Any]) -> None:
        import pennylane as qml

        if name not in qml.plugin_devices:
            known = sorted(qml.plugin_devices)
            raise OptionError(
                f"PennyLane has no device {name!r}. Installed: {', '.join(known)}.{nearest(name, known)}",
                argument="device",
                backend="pennylane",
            )
        parameters = inspect.signature(qml.plugin_devices[name].load()).parameters
        self._seeded = "seed" in parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            check_options(options, {"device", *parameters} - {"self", "shots", "seed"}, backend=f"pennylane:{name}")

    def _make(self, wires: int, seed: int | None = None) -> Any:
        import pennylane as qml

        if not isinstance(self._given, str):
            return self._given
        seeds = {} if seed is None else {"seed": seed}
        return qml.device(self._given, **{"wires": wires, **self._options, **seeds})

    def __repr__(self) -> str:
        return f"<PennyLaneBackend: {self._given!r}>"


@off_forked_thread
def _gradient_of(device: Any) -> str | None:
    """How a device differentiates by angles, if it has the states by which amplitudes are differentiated."""
    import pennylane as qml
    from pennylane.devices import ExecutionConfig

    from ._tapes import queuing, unwrapped

    if unwrapped(device)[1]:  # of what its transforms make of a circuit it knows nothing
        return None

    def supports(method: str) -> bool:
        return bool(device.supports_derivatives(ExecutionConfig(gradient_method=method)))

    method = next((name for name in ("backprop", "adjoint") if supports(name)), None)
    if method is not None and not isinstance(device, qml.devices.LegacyDevice):
        wires = device.wires or qml.wires.Wires([0])
        try:  # a device of density matrices, or without states, does not differentiate by amplitudes
            with queuing():
                (state,) = device.execute([qml.tape.QuantumScript([qml.PauliX(wires[0])], [qml.state()])])
        except Exception:  # noqa: BLE001 - devices have no common error for it
            return None
        return method if np.shape(state) == (1 << len(wires),) else None
    return None


def _is_noisy(device: Any) -> bool:
    """Whether a simulator has noise around it, or misreads qubits."""
    from ._tapes import unwrapped

    bare, transforms = unwrapped(device)
    return bool(transforms) or getattr(bare, "readout_err", None) is not None


def _is_exact(device: Any) -> bool:
    """Whether a device takes tapes without shots; nothing runs."""
    import pennylane as qml

    try:
        program, _ = device.preprocess()
        program([qml.tape.QuantumScript([], [qml.expval(qml.PauliZ(device.wires[0] if device.wires else 0))])])
    except Exception:  # noqa: BLE001 - devices have no common error for it
        return False
    return True
