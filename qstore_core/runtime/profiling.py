"""Time per layer: how often each one ran, forward and backward, how long it took, and what its time went into.

    with profile() as times:
        model.fit(...)
    print(times)

While no profile is open a layer tests one empty tuple and reads no clock. What is measured is wall time on the thread
that does the work; for work that an accelerator or a compiled graph does on its own, that is the time to hand it over.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..backends.forking import new_lock
from ..notebook import table
from .cache import cache_info
from .fallback import fallback_counts

__all__ = ["PARTS", "Profile", "Timing", "note", "profile", "timed"]

PARTS = {
    "encode": "features to the amplitudes that a backend takes; engines that encode themselves have it in simulate",
    "compile": "the circuit, where it was not in the cache",
    "simulate": "the circuits and what is measured of them",
    "submit": "handing jobs over, added up over jobs",
    "wait": "until a remote backend had answered",
    "measure": "what is computed from the measured values",
    "gradient": "the backward pass of the circuits, with those that it runs",
}
"""What a pass consists of. Parts may hold others: a gradient by parameter shift simulates."""

_MOST_SPANS = 200_000  # kept for a trace; sums have no bound
_COLLECT = 10_000

_Span = tuple[str, str, str, float, float, int]  # layer, phase, part, begin, end, thread
_Noted = tuple[str, str, str, float, float, int, Any]  # and the record of a whole pass


@dataclass(frozen=True)
class Timing:
    """One layer in one phase, or a part of that.

    Attributes:
        layer: Name of the layer.
        phase: "forward" or "backward".
        calls: How often it ran.
        total: Seconds over all calls, added over threads.
        part: "" for whole passes; else one of `PARTS`.
    """

    layer: str
    phase: str
    calls: int
    total: float
    part: str = ""

    @property
    def mean(self) -> float:
        """Seconds per call."""
        return self.total / self.calls


class Profile:
    """What `profile()` collects; prints as a table."""

    def __init__(self) -> None:
        """Start the wall clock."""
        self._lock = new_lock(self, "_lock")
        self._new: deque[_Noted] = deque()  # appending needs no lock
        self._spans: list[_Span] = []
        self._sums: dict[tuple[str, str, str], tuple[int, float]] = {}
        self._counts: Counter[str] = Counter()
        self._dropped = 0
        self._before = _process_counts()
        self._after: dict[str, int] | None = None
        self._begin = time.perf_counter()
        self._end: float | None = None

    # -- what was collected ---------------------------------------------------------------------------------------

    @property
    def wall(self) -> float:
        """Seconds from the beginning of the profile to its end, or to now while it is open."""
        return (time.perf_counter() if self._end is None else self._end) - self._begin

    @property
    def timings(self) -> tuple[Timing, ...]:
        """All layers and phases, in the order of their first call."""
        return tuple(t for t in self._all() if not t.part)

    @property
    def parts(self) -> tuple[Timing, ...]:
        """What the phases consist of; see `PARTS`."""
        return tuple(t for t in self._all() if t.part)

    @property
    def counts(self) -> dict[str, int]:
        """What happened meanwhile.

        Returns:
            "circuits" (rows of circuit batches, those of gradients too), "shots", "jobs", "retries", "resumed" of all
            layers; "cache hits", "cache misses" and "fallbacks" of the whole process.
        """
        self._collect()
        after = _process_counts() if self._after is None else self._after
        with self._lock:
            own = {name: self._counts[name] for name in ("circuits", "shots", "jobs", "retries", "resumed")}
        return own | {name: max(0, after[name] - self._before[name]) for name in after}

    def total(self, layer: str | None = None, phase: str | None = None) -> float:
        """Seconds in one layer and phase, None meaning all of them."""
        return sum(t.total for t in self.timings if layer in (None, t.layer) and phase in (None, t.phase))

    def calls(self, layer: str | None = None, phase: str | None = None) -> int:
        """Calls of one layer in one phase, None meaning all of them."""
        return sum(t.calls for t in self.timings if layer in (None, t.layer) and phase in (None, t.phase))

    # -- how it leaves --------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "wall": self.wall,
            "timings": [asdict(t) for t in self.timings],
            "parts": [asdict(t) for t in self.parts],
            "counts": self.counts,
        }

    def scalars(self) -> dict[str, float]:
        """Milliseconds per call by "layer/phase" and "layer/phase/part", for TensorBoard and the like.

        Example:
            >>> with profile() as times, timed("readout", "forward"):
            ...     pass
            >>> list(times.scalars())
            ['readout/forward ms']
        """
        return {"/".join(filter(None, (t.layer, t.phase, t.part))) + " ms": t.mean * 1e3 for t in self._all()}

    def write_trace(self, path: str | os.PathLike[str]) -> Path:
        """A timeline in Chrome's trace format, for https://ui.perfetto.dev or chrome://tracing.

        Returns:
            The path. Of more than 200,000 blocks the last ones are left out; how many, stands under "otherData".

        Source:
            Trace Event Format, "complete events" (ph "X"), in microseconds.
        """
        self._collect()
        with self._lock:
            spans, dropped = sorted(self._spans, key=lambda span: (span[3], -span[4])), self._dropped
        events = [
            {
                "name": part or f"{layer} {phase}",
                "cat": phase,
                "ph": "X",
                "ts": round((begin - self._begin) * 1e6, 3),
                "dur": round((end - begin) * 1e6, 3),
                "pid": os.getpid(),
                "tid": thread,
                "args": {"layer": layer},
            }
            for layer, phase, part, begin, end, thread in spans
        ]
        other = {"dropped": dropped, "counts": self.counts}
        place = Path(path)
        place.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}), "utf-8")
        return place

    def __str__(self) -> str:
        """The table: a line per layer and phase, its parts below it, and a line for all."""
        wall = self.wall
        rows = [("layer", "phase", "calls", "total ms", "mean ms", "share")]
        everything = self._all()
        for t in (t for t in everything if not t.part):
            rows.append((t.layer, t.phase, *_figures(t, wall)))
            own = (p for p in everything if p.part and (p.layer, p.phase) == (t.layer, t.phase))
            rows += [("", f"  {p.part}", *_figures(p, wall)) for p in own]
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
        happened = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        return "\n".join([*lines, happened] if happened else lines)

    def _repr_html_(self) -> str:
        names = ("calls", "total ms", "mean ms", "share")
        rows = [
            {"layer": t.layer, "phase": t.phase, "part": t.part} | dict(zip(names, _figures(t, self.wall), strict=True))
            for t in sorted(self._all(), key=lambda t: (t.layer, t.phase))
        ]
        return table(rows) + table([self.counts])

    # -- collecting -----------------------------------------------------------------------------------------------

    def add(self, layer: str, phase: str, part: str, begin: float, end: float, record: Any = None) -> None:
        """Count one block; safe from any thread. What takes longer is left to `_collect`."""
        self._new.append((layer, phase, part, begin, end, _thread(), record))
        if len(self._new) >= _COLLECT:
            self._collect()

    def _collect(self) -> None:
        with self._lock:
            new: list[_Span] = []
            with contextlib.suppress(IndexError):
                while True:
                    *span, record = self._new.popleft()
                    new.append(tuple(span))  # type: ignore[arg-type]
                    if record is not None:
                        self._counts.update(record.counts())
                        if record.fused:
                            new.append((*span[:2], record.fused, *span[3:]))
            for layer, phase, part, begin, end, _ in new:
                key = (layer, phase, part)
                calls, total = self._sums.get(key, (0, 0.0))
                self._sums[key] = (calls + 1, total + end - begin)
            room = max(0, _MOST_SPANS - len(self._spans))
            self._spans += new[:room]
            self._dropped += len(new[room:])

    def _all(self) -> list[Timing]:
        self._collect()
        with self._lock:
            return [Timing(layer, phase, *sums, part) for (layer, phase, part), sums in self._sums.items()]

    def _close(self) -> None:
        self._end, self._after = time.perf_counter(), _process_counts()


def _figures(timing: Timing, wall: float) -> tuple[str, str, str, str]:
    return (
        str(timing.calls),
        f"{timing.total * 1e3:.1f}",
        f"{timing.mean * 1e3:.3f}",
        f"{timing.total / wall:.1%}",
    )


def _process_counts() -> dict[str, int]:
    cache = cache_info()
    return {
        "cache hits": cache.hits,
        "cache misses": cache.misses,
        "fallbacks": sum(fallback_counts().values()),
    }


profiles: tuple[Profile, ...] = ()
"""Those that are open. Replaced, never changed: readers need no lock."""

_lock = new_lock(__name__, "_lock")
_thread = threading.get_ident


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
    __slots__ = ("_begin", "_what")

    def __init__(self, layer: str, phase: str, part: str) -> None:
        self._what = layer, phase, part

    def __enter__(self) -> None:
        self._begin = time.perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        note(*self._what, self._begin, time.perf_counter())


class _Nothing:
    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        pass


_NOTHING = _Nothing()


def note(layer: str, phase: str, part: str, begin: float, end: float, record: Any = None) -> None:
    """Count a block that was timed already, for every open profile.

    Args:
        layer: Name of the layer.
        phase: "forward" or "backward".
        part: One of `PARTS`; "" for a whole pass.
        begin: By `time.perf_counter`.
        end: The same.
        record: Of a whole pass: its `counts()`, and in `fused` the one part that it consists of.
    """
    for mine in profiles:
        mine.add(layer, phase, part, begin, end, record)


def timed(layer: str, phase: str, part: str = "") -> AbstractContextManager[None]:
    """Count and time a block for every open profile; does nothing while none is open.

    Args:
        layer: Name of the layer.
        phase: "forward" or "backward".
        part: One of `PARTS`; "" for a whole pass.

    Example:
        >>> with timed("readout", "forward"):
        ...     result = 1 + 1
    """
    return _Timer(layer, phase, part) if profiles else _NOTHING
