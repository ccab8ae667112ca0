"""Runs the kit on faulty backends, and says which sentence, check and fault belong together."""

from __future__ import annotations

import unittest
from typing import Any

import numpy as np

from qstore_core import register_backend, unregister_backend
from qstore_core.testing import SENTENCES, Check, ConformanceError, conformance_checks, reference

from .faults import FAULTS, Fault

NAME = "kit_fault"


def remember_references() -> None:
    """Compute what the kit compares with once for all faults: its circuits and points are always the same."""
    for name in ("outputs", "slopes", "deviations"):
        setattr(reference, name, _remembering(getattr(reference, name)))


def _remembering(function: Any) -> Any:
    known: dict[Any, Any] = {}

    def remembered(circuit: Any, measured: Any, *arrays: Any) -> Any:
        key = circuit, measured, *((np.shape(a), np.asarray(a, float).tobytes()) for a in arrays)
        if key not in known:
            known[key] = function(circuit, measured, *arrays)
        return known[key]

    return remembered


def refusals(fault: Fault, *, first: bool = False, only: str | None = None) -> list[tuple[str, str]]:
    """`(check, reason)` of the checks that refuse a fault.

    Args:
        fault: The fault.
        first: Stop at the first one.
        only: Run this check alone.
    """
    backend = fault.make()
    given = backend
    if fault.installed:
        register_backend(NAME, type(backend))
        given = NAME
    try:
        found = []
        for check in conformance_checks(given):
            if only is not None and str(check) != only:
                continue
            reason = _refusal(check)
            if reason:
                found.append((str(check), reason))
                if first:
                    break
        return found
    finally:
        if fault.installed:
            unregister_backend(NAME)


def _refusal(check: Check) -> str:
    try:
        check()
    except unittest.SkipTest:
        return ""
    except ConformanceError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - as the kit does it
        return f"raised {type(error).__name__}: {error}"
    return ""


def sentence_table() -> str:
    """Markdown: every sentence of the contract, its checks, and for each check a fault that only it refuses."""
    lines = ["| | the contract says | check | a fault that only this check refuses |", "|---|---|---|---|"]
    for key, sentence in SENTENCES.items():
        checks = [check for check in conformance_checks("statevector") if key in check.sentences]
        for check in checks:
            faults = [fault.name for fault in FAULTS if fault.only and fault.refused_by == check.name]
            lines.append(f"| {key} | {sentence} | {check} | {faults[0] if faults else '–'} |")
    return "\n".join(lines)
