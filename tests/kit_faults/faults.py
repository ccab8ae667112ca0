"""Faulty backends: each is the qulacs backend with one thing wrong, by one method replaced.

`FAULTS` lists them; `refused_by` names a check that must refuse a fault, and `only` says that it is the only one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .backend import QulacsBackend, QulacsExecutable

__all__ = ["FAULTS", "Fault", "by_name", "fault", "faulty", "in_values"]


@dataclass(frozen=True)
class Fault:
    """A backend with one fault.

    Attributes:
        kind: Of fault: "gradients", "samples", "structure", "size and precision", "state", "jobs", "tensors".
        name: What is wrong.
        make: Builds the backend.
        refused_by: A check that refuses it.
        only: Whether no other check does.
        installed: Whether it is checked by name, as an installed plugin is.
    """

    kind: str
    name: str
    make: Callable[[], Any]
    refused_by: str
    only: bool = False
    installed: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


FAULTS: list[Fault] = []


def fault(kind: str, name: str, refused_by: str, make: Callable[[], Any], **flags: bool) -> None:
    """Add a backend to the list."""
    FAULTS.append(Fault(kind, name, make, refused_by, **flags))


def faulty(
    kind: str, name: str, refused_by: str, *, only: bool = False, backend: dict[str, Any] | None = None, **methods: Any
) -> None:
    """Add a qulacs backend some of whose methods are replaced; `backend` replaces those of the backend itself."""

    def make() -> Any:
        executable = type("FaultyExecutable", (QulacsExecutable,), dict(methods))

        def build(self, circuit, measurement, *, dtype="float32", shots=None):
            self.check(circuit)
            return executable(circuit, measurement, dtype, shots)

        return type("FaultyBackend", (QulacsBackend,), {"compile": build, **(backend or {})})()

    fault(kind, name, refused_by, make, only=only)


def in_values(**methods: Any) -> dict[str, Any]:
    """Methods that are wrong in exact values only: gradients and samples stay right."""
    other = type("OtherExecutable", (QulacsExecutable,), dict(methods))

    def value_and_report(self, theta, inputs, *, seed=None):
        one = self if self.shots is not None else other(self.circuit, self.measurement, self.dtype, None)
        return QulacsExecutable.value_and_report(one, theta, inputs, seed=seed)

    return {"value_and_report": value_and_report}


def by_name(text: str) -> Fault:
    """The fault with this kind and name."""
    return next(f for f in FAULTS if str(f) == text)
