"""The backend under test, and what several checks need of it."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..backends.contract import Backend
from ..backends.registry import get_backend
from ..backends.seeds import SeedStream
from ..circuit.circuit import Circuit
from ..circuit.measurement import Measurement, Probabilities
from ..errors import CapabilityError
from ..runtime.cache import Recipe, compile_recipe
from . import reference

__all__ = [
    "SEED",
    "SIGMAS",
    "Check",
    "ConformanceError",
    "NotDeclared",
    "Sampling",
    "Subject",
    "arrays",
    "check",
    "registered",
    "same",
    "shaped",
]

SIGMAS = 5.0
SEED = 20240229


class ConformanceError(AssertionError):
    """A backend does not do what the contract says; the message tells what it did instead."""


class NotDeclared(unittest.SkipTest):
    """A check does not apply, by what the backend declares; pytest and unittest count it as skipped."""


@dataclass(frozen=True)
class Check:
    """One conformance check of one backend: call it.

    Attributes:
        name: Short name, for tables and test ids.
        help: What is checked, one line.
        subject: The backend under test.
    """

    name: str
    help: str
    subject: Subject
    _function: Callable[[Subject], None] = field(repr=False)
    _core: bool = field(default=False, repr=False)

    def __call__(self) -> None:
        """Run the check.

        Raises:
            ConformanceError: the backend fails it.
            unittest.SkipTest: it does not apply.
        """
        try:
            self._function(self.subject)
        except CapabilityError as error:  # a limit that the backend states itself is no failure, but the table shows it
            if self._core:
                raise ConformanceError(f"every backend must do this, and it says: {error}") from error
            raise NotDeclared(f"the backend says: {error}") from None

    def __str__(self) -> str:
        return self.name


_Function = Callable[["Subject"], None]
_registry: list[tuple[str, _Function, bool]] = []


def check(name: str, *, core: bool = False) -> Callable[[_Function], _Function]:
    """Add a function to the kit; the first line of its docstring is its help.

    Args:
        name: Of the check.
        core: A backend may not decline it with a CapabilityError.
    """

    def add(function: _Function) -> _Function:
        _registry.append((name, function, core))
        return function

    return add


def registered(subject: Subject) -> list[Check]:
    """All checks, for one backend."""
    return [
        Check(name, (function.__doc__ or "").partition("\n")[0], subject, function, core)
        for name, function, core in _registry
    ]


class Sampling:
    """An executable of samples, with another seed for every call that gives none."""

    def __init__(self, executable: Any) -> None:
        """Begin with the first seed."""
        self._executable, self._seeds = executable, SeedStream(SEED)

    def forward(self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None) -> Any:
        """`forward` of the executable."""
        return self._executable.forward(theta, inputs, seed=self._seeds.call().next() if seed is None else seed)


class Subject:
    """A backend under test; it is loaded when the first check runs.

    Args:
        backend: Name or object.
        options: For `get_backend`.
        shots: Samples per circuit where the backend cannot give exact values.
    """

    def __init__(self, backend: str | Backend, options: dict[str, Any], shots: int) -> None:
        """Load nothing yet."""
        self.given, self.options = backend, dict(options)
        self._shots = shots

    @cached_property
    def backend(self) -> Backend:
        """The backend itself."""
        return get_backend(self.given, **self.options)

    @property
    def capabilities(self) -> Any:
        """What it declares."""
        return self.backend.capabilities

    @property
    def shots(self) -> int | None:
        """None where values are exact; otherwise samples per circuit in all checks but those of sampling itself."""
        return None if self.capabilities.exact else self._shots

    def need(self, capability: str, reason: str) -> None:
        """Skip the running check where a capability is not declared."""
        if not getattr(self.capabilities, capability):
            raise NotDeclared(f"capabilities.{capability} is {getattr(self.capabilities, capability)}: {reason}")

    def compile(self, circuit: Circuit, measurement: Measurement, dtype: str = "float64", **changes: Any) -> Any:
        """A freshly compiled circuit, past the circuit cache."""
        if self.capabilities.max_qubits is not None and circuit.n_qubits > self.capabilities.max_qubits:
            raise NotDeclared(f"capabilities.max_qubits is {self.capabilities.max_qubits}")
        options = {"dtype": dtype, "shots": self.shots} | changes
        executable = compile_recipe(Recipe(circuit, measurement, self.backend, **options))
        return executable if options["shots"] is None else Sampling(executable)

    def forward(
        self,
        circuit: Circuit,
        measurement: Measurement,
        theta: Any,
        inputs: Any,
        dtype: str = "float64",
        seed: int | None = None,
        **changes: Any,
    ) -> np.ndarray:
        """Compile, run once, check the shape."""
        executable = self.compile(circuit, measurement, dtype, **changes)
        theta, inputs = arrays(theta, inputs, dtype)
        outputs = executable.forward(theta, inputs) if seed is None else executable.forward(theta, inputs, seed=seed)
        return shaped(outputs, len(inputs), measurement.n_outputs(circuit.n_qubits))

    def tolerance(self, circuit: Circuit, measurement: Measurement, dtype: str = "float64") -> np.ndarray:
        """Bound of the error of every output, (O,): 1e-6 (float32: 2e-5) or 5 standard deviations of the samples."""
        scale = reference.scales(circuit, measurement)
        if self.shots is not None:
            return SIGMAS * scale / np.sqrt(self.shots) + 1e-6
        return (1e-6 if dtype == "float64" else 2e-5) * np.maximum(scale, 1.0)

    def expect(
        self,
        circuit: Circuit,
        measurement: Measurement,
        theta: Any,
        inputs: Any,
        what: str,
        *,
        want: np.ndarray | None = None,
        dtype: str = "float64",
    ) -> np.ndarray:
        """Run a circuit and compare with `want`, or with the reference; return the outputs."""
        theta, inputs = arrays(theta, inputs, dtype)
        got = self.forward(circuit, measurement, theta, inputs, dtype)
        if want is None:
            want = reference.outputs(circuit, measurement, theta, inputs)
        same(
            got,
            want,
            self.tolerance(circuit, measurement, dtype),
            what,
            bits=isinstance(measurement, Probabilities),
        )
        return got


def arrays(theta: Any, inputs: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """As executables receive them: C-contiguous, (W,) and (B, I)."""
    return np.ascontiguousarray(theta, dtype), np.ascontiguousarray(inputs, dtype)


def shaped(outputs: Any, rows: int, width: int) -> np.ndarray:
    """Outputs as an array, which must have the promised shape."""
    array = np.asarray(outputs)
    if array.shape != (rows, width):
        hint = " It is transposed: samples come first." if array.shape == (width, rows) else ""
        raise ConformanceError(
            f"wrong shape: forward returned {array.shape}, expected (batch, outputs) = {(rows, width)}.{hint}"
        )
    if array.dtype.kind != "f":
        raise ConformanceError(f"wrong dtype: forward returned {array.dtype}, expected real floats.")
    return array


def same(got: Any, want: Any, tolerance: Any, what: str, *, bits: bool = False) -> None:
    """Raise `ConformanceError`, with a guess at the cause, where `got` differs from `want`.

    Args:
        got: Received, (…, O) or (W,).
        want: Expected, of the same shape.
        tolerance: Scalar, or one per output.
        what: What was computed, for the message.
        bits: Outputs are probabilities of bitstrings.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        raise ConformanceError(f"{what}: wrong shape {got.shape}, expected {want.shape}.")
    if not got.size:
        return
    limit = np.broadcast_to(tolerance, got.shape)
    error = np.abs(got - want)
    if not np.isfinite(got).all():
        place = tuple(int(k) for k in np.argwhere(~np.isfinite(got))[0])
        raise ConformanceError(f"{what}: value {got[place]} at {_place(place)}, expected {want[place]:.6g}.")
    if (error <= limit).all():
        return
    place = tuple(int(k) for k in np.unravel_index(np.argmax(error - limit), error.shape))
    raise ConformanceError(
        f"{what}: received {got[place]:.6g}, expected {want[place]:.6g} at {_place(place)} "
        f"(tolerance {limit[place]:.2g}).{_guess(got, want, limit, bits)}"
    )


def _place(place: Sequence[int]) -> str:
    return f"row {place[0]}, output {place[1]}" if len(place) == 2 else f"index {', '.join(map(str, place))}"


def _guess(got: np.ndarray, want: np.ndarray, limit: np.ndarray, bits: bool) -> str:
    """Which usual mistake would explain all values at once."""

    def explains(candidate: np.ndarray) -> bool:
        return candidate.shape == want.shape and bool((np.abs(candidate - want) <= limit).all())

    if not got.any():
        return " All values are zero."
    width = got.shape[-1]
    if bits and width & (width - 1) == 0 and width > 2:
        n = width.bit_length() - 1
        reverse = [int(format(k, f"0{n}b")[::-1], 2) for k in range(width)]
        if explains(got[..., reverse]):
            return " The qubit order is reversed: qubit 0 must be the most significant bit of the index."
    if explains(-got):
        return " The sign is wrong."
    if width > 1 and explains(got[..., ::-1]):
        return " The order is reversed: is qubit 0 the least significant bit there?"
    if got.ndim == 2 and len(got) > 1:
        nearest = [int(np.abs(want - row).max(axis=1).argmin()) for row in got]
        if sorted(nearest) != list(range(len(got))) or nearest == list(range(len(got))):
            return ""
        if explains(got[np.argsort(nearest)]):
            return f" The rows of the batch are mixed up: they came in the order {nearest}."
    return ""
