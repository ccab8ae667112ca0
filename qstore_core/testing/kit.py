"""Run the checks of one backend, and print what came of them."""

from __future__ import annotations

import textwrap
import time
import unittest
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..backends.contract import CONTRACT_VERSION, Backend
from ..errors import SpecError, nearest
from . import _behaviour, _gradients, _jobs, _sampling, _values  # noqa: F401 - their checks
from .subject import Check, ConformanceError, Subject, registered

__all__ = ["Outcome", "Report", "conformance_checks", "run_checks"]


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        check: Its name.
        status: "passed", "failed" or "skipped".
        reason: Why it failed or was skipped.
        seconds: How long it took.
    """

    check: str
    status: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """All outcomes for one backend; prints as a table.

    Attributes:
        backend: Its name.
        outcomes: In the order of the kit.
    """

    backend: str
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """What failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    def __str__(self) -> str:
        width = max((len(outcome.check) for outcome in self.outcomes), default=0)
        lines = [f"backend {self.backend!r}, qstore contract version {CONTRACT_VERSION}"]
        for outcome in self.outcomes:
            head = f"  {outcome.check.ljust(width)}  {outcome.status:7}  {outcome.seconds * 1e3:7.0f} ms"
            reason = textwrap.wrap(outcome.reason, 100) or [""]
            lines.append(f"{head}  {reason[0]}".rstrip())
            lines += [f"{'':{len(head)}}  {line}" for line in reason[1:]]
        counts = {status: sum(o.status == status for o in self.outcomes) for status in ("passed", "skipped", "failed")}
        lines.append(f"  {', '.join(f'{count} {status}' for status, count in counts.items())}")
        return "\n".join(lines)


def conformance_checks(
    backend: str | Backend, *, shots: int = 4096, skip: Iterable[str] = (), **options: Any
) -> list[Check]:
    """All checks of a backend, each to be called; nothing is loaded before the first call.

    Args:
        backend: Name, or a `Backend`.
        shots: Samples per circuit where the backend cannot give exact values.
        skip: Names of checks to leave out; say why in a comment.
        **options: For `get_backend`.

    Returns:
        Checks; `str(check)` is the name, `check()` raises `ConformanceError`, or `unittest.SkipTest` where it does
        not apply.

    Example:
        >>> checks = conformance_checks("statevector")
        >>> [str(check) for check in checks][:3]
        ['contract', 'output shape', 'dtypes']
    """
    checks = registered(Subject(backend, options, shots))
    names, left_out = [check.name for check in checks], set(skip)
    for name in left_out.difference(names):
        raise SpecError(f"no check {name!r}. Known: {', '.join(names)}.{nearest(name, names)}", argument="skip")
    return [check for check in checks if check.name not in left_out]


def run_checks(
    backend: str | Backend,
    *,
    shots: int = 4096,
    skip: Iterable[str] = (),
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Report:
    """Run all checks.

    Args:
        backend: As in `conformance_checks`, with the next two arguments.
        shots: See there.
        skip: See there.
        progress: Called with the name of each check before it runs.
        **options: For `get_backend`.

    Returns:
        The report.

    Raises:
        QstoreError: the backend cannot be loaded; see `get_backend`.
    """
    checks = conformance_checks(backend, shots=shots, skip=skip, **options)
    name = checks[0].subject.backend.name if checks else str(backend)
    outcomes = []
    for check in checks:
        if progress is not None:
            progress(check.name)
        outcomes.append(_outcome(check))
    return Report(name, tuple(outcomes))


def _outcome(check: Check) -> Outcome:
    begin = time.perf_counter()
    status, reason = "passed", ""
    try:
        check()
    except unittest.SkipTest as error:
        status, reason = "skipped", str(error)
    except ConformanceError as error:
        status, reason = "failed", str(error)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's backend raises is a failed check
        status, reason = "failed", f"raised {type(error).__name__}: {error}"
    return Outcome(check.name, status, reason, time.perf_counter() - begin)
