"""Time per layer: how often each one ran, forward and backward, and how long it took.

    with profile() as times:
        model.fit(...)
    print(times)

A layer wraps its work in `timed(name, phase)`. While no profile is open that is one test of an empty list and no
clock is read. What is measured is wall time on the thread that does the work; for work that an accelerator or a
compiled graph does on its own, that is the time to hand it over.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ..backends.forking import new_lock

__all__ = ["Profile", "Timing", "note", "profile", "timed"]


@dataclass(frozen=True)
class Timing:
    """One layer in one phase.

    Attributes:
        layer: Name of the layer.
        phase: "forward" or "backward".
        calls: How often it ran.
        total: Seconds over all calls, added over threads.
    """

    layer: str
    phase: str
    calls: int
    total: float

    @property
    def mean(self) -> float:
        """Seconds per call."""
        return self.total / self.calls


class Profile:
    """What `profile()` collects; prints as a table."""

    def __init__(self) -> None:
        """Start the wall clock."""
        self._lock = new_lock(self, "_lock")
        self._sums: dict[tuple[str, str], tuple[int, float]] = {}
        self._begin = time.perf_counter()
        self._end: float | None = None

    @property
    def wall(self) -> float:
        """Seconds from the beginning of the profile to its end, or to now while it is open."""
        return (time.perf_counter() if self._end is None else self._end) - self._begin

    @property
    def timings(self) -> tuple[Timing, ...]:
        """All layers and phases, in the order of their first call."""
        with self._lock:
            return tuple(Timing(*key, *sums) for key, sums in self._sums.items())

    def total(self, layer: str | None = None, phase: str | None = None) -> float:
        """Seconds in one layer and phase, None meaning all of them."""
        return sum(t.total for t in self.timings if layer in (None, t.layer) and phase in (None, t.phase))

    def calls(self, layer: str | None = None, phase: str | None = None) -> int:
        """Calls of one layer in one phase, None meaning all of them."""
        return sum(t.calls for t in self.timings if layer in (None, t.layer) and phase in (None, t.phase))

    def add(self, layer: str, phase: str, seconds: float) -> None:
        """Count one call; safe from any thread."""
        key = (layer, phase)
        with self._lock:
            calls, total = self._sums.get(key, (0, 0.0))
            self._sums[key] = (calls + 1, total + seconds)

    def __str__(self) -> str:
        """The table: one line per layer and phase, and a line for all."""
        timings, wall = self.timings, self.wall
        rows = [("layer", "phase", "calls", "total ms", "mean ms", "share")]
        rows += [
            (
                t.layer,
                t.phase,
                str(t.calls),
                f"{t.total * 1e3:.1f}",
                f"{t.mean * 1e3:.3f}",
                f"{t.total / wall:.1%}",
            )
            for t in timings
        ]
        spent = self.total()
        rows.append(("all layers", "", str(self.calls()), f"{spent * 1e3:.1f}", "", f"{spent / wall:.1%}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join(lines)

    def _close(self) -> None:
        self._end = time.perf_counter()


profiles: tuple[Profile, ...] = ()
"""Those that are open. Replaced, never changed: readers need no lock."""

_lock = new_lock(__name__, "_lock")


@contextlib.contextmanager
def profile() -> Iterator[Profile]:
    """Collect the times of all layers, in all threads, while the block runs. Profiles may nest.

    Example:
        >>> with profile() as times:
        ...     for _ in range(3):
        ...         with timed("readout", "forward"):
        ...             pass
        >>> [(t.layer, t.phase, t.calls) for t in times.timings]
        [('readout', 'forward', 3)]
    """
    global profiles
    mine = Profile()
    with _lock:
        profiles = (*profiles, mine)
    try:
        yield mine
    finally:
        with _lock:
            profiles = tuple(other for other in profiles if other is not mine)
        mine._close()


class _Timer:
    __slots__ = ("_begin", "_layer", "_phase", "_profiles")

    def __init__(self, profiles: tuple[Profile, ...], layer: str, phase: str) -> None:
        self._profiles, self._layer, self._phase = profiles, layer, phase

    def __enter__(self) -> None:
        self._begin = time.perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        seconds = time.perf_counter() - self._begin
        for mine in self._profiles:
            mine.add(self._layer, self._phase, seconds)


class _Nothing:
    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        pass


_NOTHING = _Nothing()


def note(layer: str, phase: str, seconds: float) -> None:
    """Count a block that was timed already, for every open profile."""
    for mine in profiles:
        mine.add(layer, phase, seconds)


def timed(layer: str, phase: str) -> AbstractContextManager[None]:
    """Count and time a block for every open profile; does nothing while none is open.

    Args:
        layer: Name of the layer.
        phase: "forward" or "backward".

    Example:
        >>> with timed("readout", "forward"):
        ...     result = 1 + 1
    """
    return _Timer(profiles, layer, phase) if profiles else _NOTHING
