"""`Execution`: how a layer is computed, as opposed to what it computes; and who computes it, first to last resort."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from ..backends.contract import Backend, Capabilities
from ..backends.registry import get_backend, list_backends
from ..circuit.checks import MAX_SHOTS, check_whole, shown
from ..circuit.circuit import Circuit, whole_number
from ..circuit.measurements.measurement import Amplitudes, Measurement
from ..circuit.noise.channels import refuse_channels
from ..errors import CapabilityError, GradientError, SpecError, UnknownBackendError, nearest
from .route import FRAMEWORKS

__all__ = ["FALLBACK_VARIABLE", "Execution", "Settings", "choose_backend", "fallback_backends"]

FALLBACK_VARIABLE = "QSTORE_FALLBACK"
_GRADIENTS = ("auto", "adjoint", "parameter-shift", "finite-difference", "spsa")


@dataclass(frozen=True)
class Settings:
    """How one backend computes one layer; decided once, from an `Execution` and what the backend can do.

    Attributes:
        backend: Its name; "none" where there is no circuit.
        dtype: "float32" or "float64".
        shots: Samples per circuit; None for exact values.
        gradient: "vjp" (adjoint, or the device's own), "parameter-shift", "finite-difference" or "spsa".
    """

    backend: str
    dtype: str
    shots: int | None
    gradient: str


@dataclass(frozen=True)
class Execution:
    """How a layer is computed, as opposed to what it computes (`LayerSpec`).

    Attributes:
        backend: Name ("name:device" for a backend of devices), a `Backend`, or "auto".
        shots: Samples per circuit; None for exact values.
        gradient: "auto", "adjoint", "parameter-shift", or an approximation: "finite-difference", "spsa".
        fallback: "auto" (QSTORE_FALLBACK where it is set; else the local exact simulator for others' backends that are
            exact and noiseless), None, a name or names.
        seed: Of sampling, of the random directions of "spsa" and of the initial theta.
    """

    backend: Any = "auto"
    shots: int | None = None
    gradient: str = "auto"
    fallback: Any = "auto"
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a backend."""
        for argument, least, meaning in (("shots", 1, "exact"), ("seed", 0, "a new one each time")):
            value = getattr(self, argument)
            if value is None:
                continue
            number = whole_number(value)
            if number is None or number < least:
                raise SpecError(
                    f"{argument} is None ({meaning}) or a whole number of at least {least}, received {shown(value)}.",
                    argument=argument,
                )
            if argument == "shots":
                check_whole(number, "shots", 1, MAX_SHOTS, "shots")
            object.__setattr__(self, argument, number)
        if isinstance(self.gradient, str):
            object.__setattr__(self, "gradient", self.gradient.replace("_", "-"))
        if self.gradient not in _GRADIENTS:
            raise SpecError(
                f"no gradient method {shown(self.gradient)}. Known: {', '.join(_GRADIENTS)}."
                f"{nearest(str(self.gradient), _GRADIENTS)}",
                argument="gradient",
            )
        if self.gradient == "adjoint" and self.shots is not None:
            raise CapabilityError(
                f"adjoint differentiation needs the statevector, but the layer asks for shots={self.shots}. "
                'Use gradient="parameter-shift", or shots=None.'
            )

    def settings(self, name: str, capabilities: Capabilities, dtype: str) -> Settings:
        """What follows from it for one backend. A vjp is one of exact values: shots take the parameter-shift rule."""
        shots = self.shots if capabilities.shots else None
        gradient = self.gradient
        if gradient in ("auto", "adjoint"):
            gradient = "vjp" if capabilities.vjp and shots is None else "parameter-shift"
        return Settings(name, dtype, shots, gradient)

    def check(self, backend: Backend, circuit: Circuit, measurement: Measurement | None = None) -> None:
        """Refuse what `backend` cannot do, before anything runs.

        Raises:
            CapabilityError: it does not sample, does nothing else, has too few qubits, no channels, or no states.
            GradientError: it has no adjoint gradients, which were asked for.
        """
        capabilities, shots = backend.capabilities, self.shots
        if isinstance(measurement, Amplitudes):
            _check_state(backend, circuit, shots)
        if shots is not None and not capabilities.shots:
            raise CapabilityError(
                f"backend {backend.name!r} computes exact values, but the layer asks for shots={shots}. "
                'Use shots=None, or a backend that samples, for example "trajectories" or "aer".',
                backend=backend.name,
            )
        if shots is None and not capabilities.exact:
            raise CapabilityError(
                f"backend {backend.name!r} can only sample. Give the layer shots=, for example shots=1024.",
                backend=backend.name,
            )
        if capabilities.max_qubits is not None and circuit.n_qubits > capabilities.max_qubits:
            raise CapabilityError(
                f"backend {backend.name!r} takes at most {capabilities.max_qubits} qubits, the layer has "
                f"{circuit.n_qubits}.",
                backend=backend.name,
            )
        if not capabilities.channels:
            refuse_channels(circuit, f"backend {backend.name!r} computes no channels", backend.name)
        if self.gradient == "adjoint" and not capabilities.vjp:
            raise GradientError(
                f'backend {backend.name!r} has no adjoint gradients. Use gradient="parameter-shift" or "auto".',
                backend=backend.name,
            )

    def samples(self, measurement: Measurement | None) -> int | None:
        """How many samples are taken: of a measurement that says so, or of the layer."""
        shots: int | None = getattr(measurement, "shots", None) if measurement is not None else None
        if measurement is None or not measurement.drawn:
            return self.shots
        if self.shots not in (None, shots):
            raise SpecError(
                f"{type(measurement).__name__} takes {shots} samples, the layer asks for shots={self.shots}. Leave "
                "shots= out.",
                argument="shots",
            )
        return shots

    def draws(self, measurement: Measurement | None) -> bool:
        """Whether calls draw random numbers: samples, or directions."""
        drawn = measurement is not None and measurement.drawn
        return drawn or self.shots is not None or self.gradient == "spsa"

    def changes(self, first: Backend, other: Backend) -> str:
        """What `other` computes differently in the place of `first`, in words; "" where it computes the same."""
        parts = []
        one, two = first.capabilities, other.capabilities
        if self.shots is not None and not two.shots:
            parts.append(f"exact values instead of {self.shots:,} shots")
        if one.noisy and not two.noisy:
            parts.append(f"without the noise of {first.name!r}")
        elif two.noisy:
            parts.append(f"with the noise of {other.name!r}" + (f" instead of {first.name!r}'s" if one.noisy else ""))
        return " and ".join(parts)


def _check_state(backend: Backend, circuit: Circuit, shots: int | None) -> None:
    """Refuse to read the state where there is none."""
    if circuit.noisy or backend.capabilities.noisy:
        what = "a circuit with channels" if circuit.noisy else f"backend {backend.name!r} with its noise"
        raise CapabilityError(
            f"{what} leaves a mixture, which has no state vector. Measure DensityMatrix(qubits).",
            backend=backend.name,
        )
    if shots is not None:
        raise CapabilityError(f"a state has no shots: {shots} samples of it are Samples({shots}).")
    if not backend.capabilities.amplitudes:
        engines = ", ".join(repr(f.engine) for f in FRAMEWORKS.values())
        raise CapabilityError(
            f"backend {backend.name!r} computes expectation values and probabilities, no states. Use "
            f'backend="statevector", or an engine of a framework: {engines}.',
            backend=backend.name,
        )


def choose_backend(
    framework: str | None, shots: int | None, circuit: Circuit, measurement: Measurement | None = None
) -> tuple[str, str]:
    """The backend that "auto" stands for, and why."""
    if circuit.noisy:
        return _for_channels(shots, circuit.n_qubits)
    if shots is not None:
        raise CapabilityError(
            f"shots={shots} needs a backend that samples. Name one: {', '.join(_other_names()) or 'none is installed'}."
        )
    engine = FRAMEWORKS[framework].engine if framework is not None else "statevector"
    if isinstance(measurement, Amplitudes):
        return engine, "it returns states, which numba, the fastest engine on a CPU, does not"
    if _has_numba():
        return "numba", "the fastest engine on a CPU"
    return engine, 'numba, which is faster on a CPU, is not installed: pip install "qstore[fast]"'


def _for_channels(shots: int | None, n_qubits: int) -> tuple[str, str]:
    if shots is not None:
        return "trajectories", "the circuit has channels, and samples are asked for"
    most = get_backend("density").capabilities.max_qubits or 0
    if n_qubits > most:
        raise CapabilityError(
            f"the circuit has channels and {n_qubits} qubits: exact values of noisy circuits go to {most} qubits. Give "
            "the layer shots=, for example shots=1024, each of them one trajectory.",
            backend="density",
        )
    return "density", "the circuit has channels"


def _other_names() -> list[str]:
    ours = {"statevector", "numba", "density", *(name for f in FRAMEWORKS.values() for name in (f.engine, f.gpu))}
    return [info.name for info in list_backends() if info.name not in ours]


@lru_cache(maxsize=1)
def _has_numba() -> bool:
    return find_spec("numba") is not None and any(info.name == "numba" for info in list_backends())


def fallback_backends(
    execution: Execution, first: Backend, circuit: Circuit, measurement: Measurement | None = None
) -> tuple[Backend, ...]:
    """What computes when `first` fails, in this order.

    By default only what computes the same: nothing takes the place of samples, of noise or of a device.

    Args:
        execution: Of the layer.
        first: Its backend.
        circuit: Its circuit.
        measurement: What is read.

    Raises:
        SpecError: QSTORE_FALLBACK is neither "none", "auto" nor names with commas.
        UnknownBackendError: no backend has one of the names.
        CapabilityError: one of them can only sample, where exact values are asked for, has too few qubits, or knows no
            channels.
    """
    fallback = execution.fallback
    if fallback is None:
        return ()
    if isinstance(fallback, str) and fallback == "auto":
        asked = _from_environment()
        if first.capabilities.embedded:  # an error there is a bug, not an outage
            return ()
        if asked is None:
            same = execution.shots is None and not first.capabilities.noisy and not circuit.noisy
            return (get_backend("statevector"),) if same else ()
        found = tuple(_named_in_environment(name) for name in asked if name != first.name)
    elif isinstance(fallback, str) or not isinstance(fallback, Sequence):
        found = (get_backend(fallback),)
    else:
        found = tuple(get_backend(name) for name in fallback)
    for backend in found:
        replace(execution, shots=execution.shots if backend.capabilities.shots else None, gradient="auto").check(
            backend, circuit, measurement
        )
    return found


def _from_environment() -> tuple[str, ...] | None:
    """Names in QSTORE_FALLBACK; None where it is not set, or "auto"."""
    value = os.environ.get(FALLBACK_VARIABLE, "").strip()
    if value in ("", "auto"):
        return None
    if value == "none":
        return ()
    names = tuple(name.strip() for name in value.split(","))
    if not all(names) or "none" in names or "auto" in names:
        raise SpecError(
            f"{FALLBACK_VARIABLE} is 'none', 'auto', or names of backends with commas between, received {value!r}.",
            argument=FALLBACK_VARIABLE,
        )
    return names


def _named_in_environment(name: str) -> Backend:
    try:
        return get_backend(name)
    except UnknownBackendError as error:
        raise UnknownBackendError(f"{FALLBACK_VARIABLE}: {error}", backend=name) from None
