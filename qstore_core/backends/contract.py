"""The contract that backends implement. A backend compiles circuits; an executable runs one.

Contract version 2. A plugin module has one hook implementation and one entry point in group `qstore.backends`:

    from qstore_core import hookimpl

    QSTORE_CONTRACT = 2     # the contract version it was written for

    @hookimpl
    def qstore_backend(options: dict) -> Backend:
        check_options(options, ("device",), backend="mine")
        return MyBackend(**options)

The hook is called once per set of options as long as these are plain values (numbers, strings, tuples of them): the
backend is then shared by all layers that ask for it, in all threads. It may import heavy libraries: an ImportError
from the module or the hook becomes a `BackendUnavailableError` with the install command.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pluggy

from ..circuit.circuit import Circuit
from ..circuit.measurements.measurement import Measurement
from ..errors import CapabilityError, OptionError, nearest

__all__ = [
    "CONTRACT_VERSION",
    "Backend",
    "Capabilities",
    "Executable",
    "RunReport",
    "check_exact",
    "check_options",
    "contract_problems",
    "hookimpl",
]

CONTRACT_VERSION = 2

hookimpl = pluggy.HookimplMarker("qstore")


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do.

    Attributes:
        exact: shots=None gives expectation values and probabilities as the circuit has them.
        shots: shots=N is accepted and samples. Where running is not remote, samples are a function of the seed.
        vjp: Executables have `vjp`: exact gradients for theta and all inputs, amplitudes included.
        features: Executables take features as they are: amplitudes that still have to be normalised and padded. A row
            of zeros is |0…0⟩, with zero gradient. Theta or features that are not finite raise an `InputError`, also
            where no output depends on them; on tensors they make the outputs of their rows NaN.
        framework: Name of a framework, for example "torch": executables have `apply` on its tensors.
        remote: Running is I/O; it may be slow and it may fail.
        embedded: It computes in this process and exactly: an error is a bug, not an outage, so that nothing takes its
            place by default; memory for the state is checked first; and, unless it is noisy, another engine that is
            exact computes the same.
        noisy: Outputs are not those of the ideal circuit: there is a noise model, or a device. No exact simulator
            takes its place, unless the user names one.
        channels: Executables compute the channels of a circuit, readout errors among them. Elsewhere a circuit with
            channels is a CapabilityError.
        max_qubits: Most qubits it takes; None where only memory limits.
        amplitudes: It computes `Amplitudes`: the state, with the phase that the gates' matrices give it.
        rows_at_once: Most rows of a batch whose states it holds at a time, for the check of memory; None: all rows.
    """

    exact: bool = True
    shots: bool = False
    vjp: bool = False
    features: bool = False
    framework: str | None = None
    remote: bool = False
    embedded: bool = False
    noisy: bool = False
    channels: bool = False
    max_qubits: int | None = None
    amplitudes: bool = False
    rows_at_once: int | None = None


@dataclass(frozen=True, eq=False)
class RunReport:
    """What a backend knows about one call, besides the outputs.

    Attributes:
        jobs: Ids of the jobs whose outputs were used, in the order of the rows.
        retries: How often something was tried again.
        resumed: Jobs that were submitted earlier, and fetched now.
        std_error: Standard errors (B, O) of sampled outputs.
        seconds: What the time went into, for `profile()`: for example "submit", added up over jobs.
    """

    jobs: tuple[str, ...] = ()
    retries: int = 0
    resumed: int = 0
    std_error: np.ndarray | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Executable(Protocol):
    """A compiled circuit. `inputs` columns are first the circuit's amplitudes (unit rows), then its angles.

    One that was compiled with shots takes the seed of its samples with every call, `forward(theta, inputs, *, seed)`,
    a whole number from 0 to 2**63 - 1: outputs are a function of these three. It keeps no random numbers of its own, so
    that all layers can share it. Hardware ignores the seed.

    Optional: `value_and_report(theta, inputs) → outputs, RunReport` in place of forward, with shots also `seed=`;
    `nbytes`, its size for the bound of the circuit cache;
    `vjp(theta, inputs, cotangents (B, O)) → (d_theta (W,), d_inputs (B, I))` and
    `value_and_vjp(theta, inputs) → outputs, vjp_fn(cotangents)` where capabilities.vjp; on tensors, where
    capabilities.framework, `apply(theta, inputs) → outputs`, which the framework can differentiate, and
    `apply_and_vjp(theta, inputs) → outputs, vjp_fn(cotangents)`.
    """

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """`theta` (W,) and `inputs` (B, I), C-contiguous and of the executable's dtype → outputs (B, O)."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Compiles circuits. Must be safe to use from several threads.

    Optional method: `explain(n_qubits) → str`, how a circuit of this size is computed, for `layer.explain()`.
    """

    name: str
    capabilities: Capabilities

    def compile(
        self,
        circuit: Circuit,
        measurement: Measurement,
        *,
        dtype: str = "float32",
        shots: int | None = None,
    ) -> Any:
        """An `Executable` for a circuit and its measurement."""
        ...


def check_options(options: Mapping[str, object], known: Iterable[str] = (), *, backend: str) -> None:
    """Refuse options that a backend does not have; for the first line of a hook.

    Args:
        options: As the hook received them.
        known: Names of the options there are.
        backend: Name of the backend, for the message.

    Raises:
        OptionError: with the nearest name that exists.

    Example:
        >>> check_options({"device": "GPU"}, ("device", "method"), backend="aer")
        >>> check_options({"devise": "GPU"}, ("device", "method"), backend="aer")
        Traceback (most recent call last):
        ...
        qstore_core.errors.OptionError: backend 'aer' has no option 'devise'. Options: device, method. Did you ...
    """
    names = sorted(known)
    for option in options:
        if option not in names:
            have = f"Options: {', '.join(names)}." if names else "It has none."
            raise OptionError(
                f"backend {backend!r} has no option {option!r}. {have}{nearest(option, names)}",
                argument=option,
                backend=backend,
            )


def check_exact(shots: int | None, *, backend: str) -> None:
    """Refuse shots, where a backend computes exact values alone; for the first line of its `compile`.

    Raises:
        CapabilityError: shots were asked for.

    Example:
        >>> check_exact(None, backend="mine")
        >>> check_exact(100, backend="mine")
        Traceback (most recent call last):
        ...
        qstore_core.errors.CapabilityError: backend 'mine' computes exact expectation values, but shots=100 was ...
    """
    if shots is not None:
        raise CapabilityError(
            f"backend {backend!r} computes exact expectation values, but shots={shots} was asked for. "
            "Use shots=None, or a backend that samples.",
            backend=backend,
        )


def contract_problems(backend: object) -> list[str]:
    """What keeps an object from being a `Backend`, in words; an empty list where nothing does.

    Example:
        >>> contract_problems(object())
        ['no name', 'no capabilities', 'no method compile']
    """
    problems = []
    name = getattr(backend, "name", None)
    if name is None:
        problems.append("no name")
    elif not isinstance(name, str) or not name:
        problems.append(f"name is {name!r}, not a string")
    capabilities = getattr(backend, "capabilities", None)
    if capabilities is None:
        problems.append("no capabilities")
    elif not isinstance(capabilities, Capabilities):
        problems.append(f"capabilities is {type(capabilities).__name__}, not qstore_core.Capabilities")
    if not callable(getattr(backend, "compile", None)):
        problems.append("no method compile")
    if isinstance(backend, type) and not problems:
        problems.append("it is a class, not an instance")
    return problems
