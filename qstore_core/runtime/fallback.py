"""Fallback: another backend computes the same circuit, or, where the user named it, something else; and says so.

A fallback is taken on a backend's failure only, never on the caller's own mistake. Each one is counted. The first of
each layer and cause is a warning; of the others the 10th, 100th and so on are logged, so that an outage of hours fills
neither a terminal nor a disk.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..backends.forking import new_lock
from ..errors import (
    BackendError,
    CapabilityError,
    FallbackWarning,
    InputError,
    QstoreError,
    ResourceLimitError,
    RunnerError,
    ShapeError,
    SpecError,
    warn,
)

__all__ = ["Chain", "FallbackEvent", "fallback_counts", "is_callers_mistake", "reset_fallback_counts"]

_T = TypeVar("_T")
_log = logging.getLogger("qstore.fallback")
_lock = new_lock(__name__, "_lock")
_counts: Counter[FallbackEvent] = Counter()


@dataclass(frozen=True)
class FallbackEvent:
    """One kind of fallback: which layer, from which backend to which, and why."""

    layer: str
    failed: str
    used: str
    cause: str


def fallback_counts() -> dict[FallbackEvent, int]:
    """How often each kind of fallback was taken in this process.

    Example:
        >>> reset_fallback_counts()
        >>> fallback_counts()
        {}
    """
    with _lock:
        return dict(_counts)


def reset_fallback_counts() -> None:
    """Set the counters to zero."""
    with _lock:
        _counts.clear()


def is_callers_mistake(error: BaseException) -> bool:
    """True for errors that another backend would meet as well."""
    kinds = (ShapeError, InputError, SpecError, CapabilityError, RunnerError, ResourceLimitError)
    return isinstance(error, kinds) or not isinstance(error, Exception)


class Chain:
    """The backends of one layer, first to last resort.

    Args:
        layer: Name of the layer, for messages.
        names: Names of the backends.
        changes: What each computes differently from the first; "" where it computes the same.
    """

    def __init__(self, layer: str, names: Sequence[str], changes: Sequence[str] = ()) -> None:
        """Start with nothing warned."""
        self.layer, self.names = layer, tuple(names)
        self.changes = tuple(changes) or ("",) * len(self.names)
        self.counts: Counter[FallbackEvent] = Counter()
        self._seen: Counter[tuple[str, str]] = Counter()

    def run(self, attempt: Callable[[int], _T], start: int = 0, *, failures: list[str] | None = None) -> tuple[_T, int]:
        """Try `attempt(index)` from backend number `start` on.

        Args:
            attempt: Computes on one backend, or raises.
            start: Number of the first backend.
            failures: Told what failed before the backend that computed, as "backend: error".

        Returns:
            The result, and the number of the backend that computed it.

        Raises:
            BackendError: the last backend failed; the causes are chained. Other errors of ours keep their class.
        """
        for number in range(start, len(self.names)):
            try:
                return attempt(number), number
            except BaseException as error:
                if is_callers_mistake(error):
                    raise
                if number + 1 == len(self.names):
                    if isinstance(error, QstoreError):
                        raise
                    raise BackendError(
                        f"backend {self.names[number]!r} failed in layer {self.layer!r}: "
                        f"{type(error).__name__}: {error}",
                        backend=self.names[number],
                        cause=error,
                    ) from error
                cause = self._record(number, error)
                if failures is not None:
                    failures.append(f"{self.names[number]}: {type(cause).__name__}: {cause}")
        raise BackendError(f"layer {self.layer!r} has no backend left to try.")

    def _record(self, number: int, error: BaseException) -> BaseException:
        """Count a fallback, and say so where it is time."""
        failed, used, change = self.names[number], self.names[number + 1], self.changes[number + 1]
        cause = error.cause if isinstance(error, BackendError) and error.cause is not None else error
        event = FallbackEvent(self.layer, failed, used, type(cause).__name__)
        with _lock:
            _counts[event] += 1
            self.counts[event] += 1
            self._seen[failed, event.cause] += 1
            times = self._seen[failed, event.cause]
        instead = f"takes its place: {change}" if change else "computes the same circuit"
        text = (
            f"layer {self.layer!r}: backend {failed!r} failed ({type(cause).__name__}: {cause}); {used!r} {instead}. "
            "Use fallback=None to raise instead."
        )
        if times == 1:
            _log.info(text, extra={"qstore_event": event}, exc_info=error)
            warn(FallbackWarning(text, backend=failed, used=used, cause=cause))
        elif times == 10 ** (len(str(times)) - 1):
            _log.warning("%s So far %s times.", text, f"{times:,}", extra={"qstore_event": event})
        return cause
