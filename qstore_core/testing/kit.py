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
from . import _checks  # noqa: F401 - they register themselves
from .compare import ConformanceError
from .sentences import SENTENCES
from .subject import Check, Subject, registered

__all__ = ["Outcome", "Report", "conformance_checks", "run_checks"]

_WIDTH = 34  # of the names of checks


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        check: Its name.
        status: "passed", "failed" or "skipped".
        reason: Why it failed or was skipped.
        seconds: How long it took.
        sentences: Ids of the sentences of the contract that it checks; see docs/plugins.md.
    """

    check: str
    status: str
    reason: str
    seconds: float
    sentences: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"  {self.check:{_WIDTH}}  {self.status:7}  {self.seconds * 1e3:7.0f} ms"
        reason = textwrap.wrap(self.reason, 100) or [""]
        if self.status == "failed":
            for sentence in self.sentences:
                reason += textwrap.wrap(f"{sentence}: {SENTENCES[sentence]}", 100, subsequent_indent="    ")
        lines = [f"{head}  {reason[0]}".rstrip()]
        return "\n".join(lines + [f"{'':{len(head)}}  {line}" for line in reason[1:]])


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

    @property
    def heading(self) -> str:
        """The first line of the table."""
        return f"backend {self.backend!r}, qstore contract version {CONTRACT_VERSION}"

    @property
    def counts(self) -> str:
        """The last line of the table."""
        counts = {status: sum(o.status == status for o in self.outcomes) for status in ("passed", "skipped", "failed")}
        return f"  {', '.join(f'{count} {status}' for status, count in counts.items())}"

    def __str__(self) -> str:
        return "\n".join([self.heading, *map(str, self.outcomes), self.counts])


def conformance_checks(
    backend: str | Backend,
    *,
    shots: int = 4096,
    qubits: int = 12,
    thorough: bool = False,
    skip: Iterable[str] = (),
    **options: Any,
) -> list[Check]:
    """All checks of a backend, each to be called; nothing is loaded before the first call.

    Args:
        backend: Name, or a `Backend`.
        shots: Samples per circuit where the backend cannot give exact values.
        qubits: Most qubits to try: fewer for a simulator of density matrices.
        thorough: More and larger circuits and batches; may take minutes.
        skip: Names of checks to leave out; say why in a comment.
        **options: For `get_backend`.

    Returns:
        Checks; `str(check)` is the name, `check()` raises `ConformanceError`, or `unittest.SkipTest` where it does
        not apply.

    Example:
        >>> checks = conformance_checks("statevector")
        >>> [str(check) for check in checks][:3]
        ['backend: parts', 'backend: options', 'backend: max_qubits']
    """
    checks = registered(Subject(backend, options, shots, qubits=qubits, thorough=thorough))
    names, left_out = [check.name for check in checks], set(skip)
    for name in left_out.difference(names):
        raise SpecError(f"no check {name!r}. Known: {', '.join(names)}.{nearest(name, names)}", argument="skip")
    return [check for check in checks if check.name not in left_out]


def run_checks(
    backend: str | Backend,
    *,
    shots: int = 4096,
    qubits: int = 12,
    thorough: bool = False,
    skip: Iterable[str] = (),
    progress: Callable[[str | Outcome], None] | None = None,
    **options: Any,
) -> Report:
    """Run all checks.

    Args:
        backend: As in `conformance_checks`, with the next four arguments.
        shots: See there.
        qubits: See there.
        thorough: See there.
        skip: See there.
        progress: Called with the name of each check before it runs, and with its outcome afterwards.
        **options: For `get_backend`.

    Returns:
        The report.

    Raises:
        QstoreError: the backend cannot be loaded; see `get_backend`.
    """
    checks = conformance_checks(backend, shots=shots, qubits=qubits, thorough=thorough, skip=skip, **options)
    name = checks[0].subject.backend.name if checks else str(backend)
    outcomes = []
    for check in checks:
        if progress is not None:
            progress(check.name)
        outcomes.append(_outcome(check))
        if progress is not None:
            progress(outcomes[-1])
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
    return Outcome(check.name, status, reason, time.perf_counter() - begin, check.sentences)
