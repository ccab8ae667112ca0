"""The backend under test, what checks call on it, and the registry of checks."""

from __future__ import annotations

import itertools
import unittest
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from ..backends.contract import Backend, RunReport
from ..backends.jobs.runner import as_executable
from ..backends.registry import get_backend
from ..circuit.circuit import Circuit
from ..circuit.measurements.measurement import Expectation, Measurement, Probabilities
from ..errors import CapabilityError
from . import reference
from .compare import ConformanceError, same, shaped
from .sentences import SENTENCES

__all__ = ["SEED", "SIGMAS", "Check", "Compiled", "NotDeclared", "Subject", "arrays", "check", "each", "registered"]

SIGMAS = 5.5  # thousands of sampled values are compared: 4e-8 of correct ones lie further out
SEED = 20240229
VALUES = {"float64": 1e-9, "float32": 1e-5}
SLOPES = {"float64": 2e-8, "float32": 1e-4}

T = TypeVar("T")


class NotDeclared(unittest.SkipTest):
    """A check does not apply, by what the backend declares; pytest and unittest count it as skipped."""


@dataclass(frozen=True)
class Check:
    """One conformance check of one backend: call it.

    Attributes:
        name: Short name, for tables and test ids.
        help: What is checked, one line.
        sentences: Which sentences of the contract it checks (ids of `SENTENCES`).
        subject: The backend under test.
    """

    name: str
    help: str
    sentences: tuple[str, ...]
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
_registry: list[tuple[str, tuple[str, ...], _Function, bool]] = []


def check(name: str, *sentences: str, core: bool = False) -> Callable[[_Function], _Function]:
    """Add a function to the kit; the first line of its docstring is its help.

    Args:
        name: Of the check.
        *sentences: Ids of the sentences of the contract that it checks.
        core: A backend may not decline it with a CapabilityError.
    """
    assert sentences, name
    assert set(sentences) <= set(SENTENCES), name

    def add(function: _Function) -> _Function:
        _registry.append((name, sentences, function, core))
        return function

    return add


def registered(subject: Subject) -> list[Check]:
    """All checks, for one backend."""
    return [
        Check(name, (function.__doc__ or "").partition("\n")[0], sentences, subject, function, core)
        for name, sentences, function, core in _registry
    ]


def each(items: Iterable[tuple[str, T]], function: Callable[[str, T], None]) -> None:
    """Check all of several items; one error names all that are wrong, one skip all that the backend refuses."""
    wrong: list[tuple[str, ConformanceError]] = []
    refused: list[str] = []
    for name, item in items:
        try:
            function(name, item)
        except CapabilityError:
            refused.append(name)
        except ConformanceError as error:
            wrong.append((name, error))
    if wrong:
        others = list(dict.fromkeys(name for name, _ in wrong[1:]))
        rest = f" Wrong too: {', '.join(others[:12])}{', …' if len(others) > 12 else ''}." if others else ""
        raise ConformanceError(f"{wrong[0][1]}{rest}") from wrong[0][1]
    if refused:
        raise NotDeclared(f"all others are right; refused with a CapabilityError: {', '.join(dict.fromkeys(refused))}")


class Compiled:
    """One executable, with what the checks call on it; results are checked for their shape.

    Attributes:
        raw: The executable itself; one that runs jobs has its `forward` from the core.
        shots: Samples per circuit; None where values are exact.
    """

    def __init__(self, raw: Any, circuit: Circuit, measured: Measurement, dtype: str, shots: int | None) -> None:
        self.raw, self.circuit, self.measured, self.dtype, self.shots = raw, circuit, measured, dtype, shots
        self.width = measured.n_outputs(circuit.n_qubits)
        self._seeds = itertools.count(SEED)

    def options(self, seed: int | None = None) -> dict[str, Any]:
        """Keyword arguments of forward: a seed where values are sampled, by default another one at every call."""
        return {} if self.shots is None else {"seed": next(self._seeds) if seed is None else seed}

    def forward(self, theta: Any, inputs: Any, *, seed: int | None = None) -> np.ndarray:
        """Outputs (B, O)."""
        return shaped(self.raw.forward(theta, inputs, **self.options(seed)), len(inputs), self.width)

    def report(self, theta: Any, inputs: Any, *, seed: int | None = None) -> tuple[np.ndarray, RunReport]:
        """Outputs (B, O) and what the backend reports about them."""
        if not hasattr(self.raw, "value_and_report"):
            raise NotDeclared("executables have no value_and_report")
        answer = self.raw.value_and_report(theta, inputs, **self.options(seed))
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], RunReport)):
            raise ConformanceError(f"value_and_report returned {_kinds(answer)}, expected (outputs, RunReport).")
        return shaped(answer[0], len(inputs), self.width, "value_and_report"), answer[1]

    def vjp(self, theta: Any, inputs: Any, cotangents: Any) -> tuple[np.ndarray, np.ndarray]:
        """`(d_theta, d_inputs)` by `vjp`, or by `value_and_vjp` where there is no other."""
        if hasattr(self.raw, "vjp"):
            return self.slopes(self.raw.vjp(theta, inputs, cotangents), theta, inputs, "vjp")
        return self.value_and_vjp(theta, inputs)[1](cotangents)

    def value_and_vjp(self, theta: Any, inputs: Any) -> tuple[np.ndarray, Callable[[Any], Any]]:
        """Outputs, and the function that pulls cotangents back."""
        answer = self.raw.value_and_vjp(theta, inputs)
        if not (isinstance(answer, tuple) and len(answer) == 2 and callable(answer[1])):
            raise ConformanceError(f"value_and_vjp returned {_kinds(answer)}, expected (outputs, vjp_fn).")
        kept = np.array(theta), np.array(inputs)
        outputs = shaped(answer[0], len(inputs), self.width, "value_and_vjp")
        return outputs, lambda cotangents: self.slopes(answer[1](cotangents), *kept, "vjp_fn")

    def slopes(self, answer: Any, theta: Any, inputs: Any, method: str) -> tuple[np.ndarray, np.ndarray]:
        """What a vjp returned; amplitude columns without what they have along the row, which is of no meaning."""
        if not (isinstance(answer, tuple | list) and len(answer) == 2):
            raise ConformanceError(f"{method} returned {_kinds(answer)}, expected (d_theta, d_inputs).")
        d_theta, d_inputs = (np.asarray(part) for part in answer)
        for got, like, what in ((d_theta, theta, "theta"), (d_inputs, inputs, "inputs")):
            if got.shape != np.shape(like) or got.dtype.kind != "f":
                raise ConformanceError(
                    f"{method}: the gradient for {what} is {got.dtype} of shape {got.shape}, "
                    f"expected real floats of shape {np.shape(like)}."
                )
        width = self.circuit.n_amplitudes
        if not width:
            return d_theta, d_inputs
        d, row = d_inputs[:, :width], inputs[:, :width]
        along = (d * row).sum(axis=1, keepdims=True) * row
        return d_theta, np.concatenate([d - along, d_inputs[:, width:]], axis=1)


def _kinds(answer: Any) -> str:
    return f"({', '.join(type(a).__name__ for a in answer)})" if isinstance(answer, tuple) else type(answer).__name__


class Subject:
    """A backend under test; it is loaded when the first check runs.

    Args:
        backend: Name or object.
        options: For `get_backend`.
        shots: Samples per circuit where the backend cannot give exact values.
        qubits: Most qubits to try.
        thorough: Larger circuits and batches, more of them.
    """

    def __init__(
        self,
        backend: str | Backend,
        options: dict[str, Any] | None = None,
        shots: int = 4096,
        *,
        qubits: int = 12,
        thorough: bool = False,
    ) -> None:
        """Load nothing yet."""
        self.given, self.options = backend, dict(options or {})
        self._shots, self._qubits, self.thorough = shots, qubits, thorough

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

    def both_ways(self, shots: int = 200) -> list[int | None]:
        """Ways to compile: as everywhere, and with so many shots where it samples besides."""
        return [self.shots, shots] if self.capabilities.exact and self.capabilities.shots else [self.shots]

    def need(self, capability: str, reason: str) -> None:
        """Skip the running check where a capability is not declared."""
        if not getattr(self.capabilities, capability):
            raise NotDeclared(f"capabilities.{capability} is {getattr(self.capabilities, capability)}: {reason}")

    def sizes(self, *sizes: int) -> list[int]:
        """Those of some numbers of qubits that it takes; its own limit where that is in reach."""
        bounds = [max(sizes), self._qubits + 4 * self.thorough, self.capabilities.max_qubits or max(sizes)]
        most = min(bounds)
        return [n for n in sizes if n < most] + [most]

    def compile(self, circuit: Circuit, measured: Measurement, dtype: str = "float64", **changes: Any) -> Compiled:
        """A freshly compiled circuit, past the circuit cache."""
        most = self.capabilities.max_qubits
        if most is not None and circuit.n_qubits > most:
            raise NotDeclared(f"capabilities.max_qubits is {most}")
        options = {"dtype": dtype, "shots": self.shots} | changes
        raw = self.backend.compile(circuit, measured, **options)
        if not callable(getattr(raw, "forward", None)):
            raw = as_executable(raw, self.backend, circuit, measured, **options)
        if not callable(getattr(raw, "forward", None)):
            raise ConformanceError(
                f"compile returned {type(raw).__name__}, which has neither forward nor submit, result and cancel."
            )
        return Compiled(raw, circuit, measured, dtype, options["shots"])

    def tolerance(
        self,
        circuit: Circuit,
        measured: Measurement,
        theta: np.ndarray,
        inputs: np.ndarray,
        dtype: str = "float64",
        shots: int | None = None,
    ) -> np.ndarray | float:
        """Bound of the error of every output: rounding, or 5.5 standard deviations of the samples."""
        scale = 1.0
        if isinstance(measured, Expectation):
            terms = [o.terms for o in measured.as_observables(circuit.n_qubits)]
            scale = max(1.0, max(sum(abs(c) for _, c in term) for term in terms))
        if shots is None:
            return VALUES[dtype] * scale
        spread = reference.deviations(circuit, measured, theta, inputs) / np.sqrt(shots)
        return np.asarray(SIGMAS * spread + (SIGMAS**2 / 2 / shots + VALUES["float32"]) * scale)

    def expect(
        self,
        circuit: Circuit,
        measured: Measurement,
        point: tuple[Any, Any],
        what: str,
        *,
        want: np.ndarray | None = None,
        dtype: str = "float64",
        compiled: Compiled | None = None,
    ) -> np.ndarray:
        """Run a circuit and compare with `want`, or with the reference; return the outputs."""
        theta, inputs = arrays(*point, dtype)
        compiled = self.compile(circuit, measured, dtype) if compiled is None else compiled
        got = compiled.forward(theta, inputs)
        if want is None:
            want = reference.outputs(circuit, measured, theta, inputs)
        tolerance = self.tolerance(circuit, measured, theta, inputs, dtype, compiled.shots)
        same(got, want, tolerance, what, bits=isinstance(measured, Probabilities))
        return got


def arrays(theta: Any, inputs: Any, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    """As executables receive them: C-contiguous, (W,) and (B, I)."""
    return np.ascontiguousarray(theta, dtype), np.ascontiguousarray(inputs, dtype)
