"""The circuit cache: compiled circuits by what they are compiled from, up to a number of bytes; never results.

Example:
    >>> cache_clear()
    >>> cache_info()
    CacheInfo(hits=0, misses=0, circuits=0, nbytes=0, max_nbytes=536870912)
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from types import GetSetDescriptorType
from typing import Any, NamedTuple

from ..backends.contract import Backend, Executable
from ..backends.forking import on_fork
from ..circuit.circuit import Circuit
from ..circuit.measurements.measurement import Measurement

__all__ = ["CacheInfo", "Recipe", "cache_clear", "cache_generation", "cache_info", "compile_recipe", "compiled"]


class CacheInfo(NamedTuple):
    """Counters of the circuit cache: lookups, circuits in it, their size and its bound in bytes."""

    hits: int
    misses: int
    circuits: int
    nbytes: int
    max_nbytes: int


@dataclass(frozen=True)
class Recipe:
    """All that a compiled circuit depends on. The hash is computed once: a layer looks up at every call.

    The backend counts by identity: two instances with other options are two backends.
    """

    circuit: Circuit
    measurement: Measurement
    backend: Backend
    dtype: str = "float32"
    shots: int | None = None

    def __post_init__(self) -> None:
        """Compute the hash."""
        parts = (self.circuit, self.measurement, id(self.backend), self.dtype, self.shots)
        object.__setattr__(self, "_hash", hash(parts))

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Recipe)
            and self.backend is other.backend
            and (self.dtype, self.shots) == (other.dtype, other.shots)
            and self.measurement == other.measurement
            and self.circuit == other.circuit
        )


class _Entry:
    __slots__ = ("executable", "lock", "nbytes")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executable: Executable | None = None
        self.nbytes = 0


class _Cache:
    """Least recently used goes first. Two threads that ask at once compile once."""

    def __init__(self, max_nbytes: int) -> None:
        self.max_nbytes = max_nbytes
        self._lock, self.generation = threading.Lock(), 0
        self._entries: OrderedDict[Recipe, _Entry] = OrderedDict()
        self.hits = self.misses = 0

    def renew(self) -> None:
        """In a forked child: what the parent's threads were compiling, and the locks they held, are not for us."""
        self._lock = threading.Lock()
        self._entries = OrderedDict[Recipe, _Entry](
            item for item in self._entries.items() if item[1].executable is not None
        )

    def clear(self) -> None:
        with self._lock:
            self._entries = OrderedDict()
            self.hits = self.misses = 0
            self.generation += 1

    def get(self, recipe: Recipe) -> Executable:
        with self._lock:
            entry = self._entries.get(recipe)
            if entry is not None and entry.executable is not None:
                self._entries.move_to_end(recipe)
                self.hits += 1
                return entry.executable
            if entry is None:
                entry = self._entries[recipe] = _Entry()
        with entry.lock:
            if entry.executable is None:
                try:
                    entry.executable = compile_recipe(recipe)
                except BaseException:
                    with self._lock:
                        if self._entries.get(recipe) is entry:
                            del self._entries[recipe]
                    raise
                with self._lock:
                    self.misses += 1
                    self._entries.setdefault(recipe, entry)  # it was removed where another thread failed before
                    self._entries.move_to_end(recipe)
                    self._shrink()
            else:
                with self._lock:
                    self.hits += 1
        return entry.executable

    def _shrink(self) -> None:
        """Drop the oldest until the rest fits. Sizes are asked for anew: some executables grow with use."""
        total = sum(_measure(entry) for entry in self._entries.values())
        while total > self.max_nbytes and len(self._entries) > 1:
            total -= self._entries.popitem(last=False)[1].nbytes

    def info(self) -> CacheInfo:
        with self._lock:
            total = sum(_measure(entry) for entry in self._entries.values())
            return CacheInfo(self.hits, self.misses, len(self._entries), total, self.max_nbytes)


_LEAST_NBYTES = 4096  # of a compiled circuit, whatever it says
_MOST_OBJECTS = 4096


def _measure(entry: _Entry) -> int:
    """Bytes of a compiled circuit: what its `nbytes` says, else an estimate that is made once."""
    if entry.executable is not None:
        said = getattr(entry.executable, "nbytes", None)
        if isinstance(said, int):
            entry.nbytes = max(said, _LEAST_NBYTES)
        elif not entry.nbytes:
            entry.nbytes = max(_estimate(entry.executable), _LEAST_NBYTES)
    return entry.nbytes


def _estimate(executable: Any) -> int:
    """Bytes of the arrays and containers that an object leads to; circuits, backends and modules are others'."""
    total, waiting = 0, [executable]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_OBJECTS:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _SHARED) or hasattr(type(thing), "compile"):
            continue  # what compiles is a backend; asking the object itself could run code of others
        seen.add(id(thing))
        if isinstance(getattr(type(thing), "nbytes", None), _FIELDS) and isinstance(thing.nbytes, int):
            total += thing.nbytes
            continue
        total += sys.getsizeof(thing)
        if isinstance(thing, dict):
            waiting += [value for value in thing.values() if not isinstance(value, _SCALARS)]
        elif isinstance(thing, list | tuple | set | frozenset):
            waiting += [value for value in thing if not isinstance(value, _SCALARS)]
        else:
            with suppress(Exception):  # some make attributes up, and fail at it
                inside = vars(thing)
                waiting += [inside] if type(inside) is dict else []
            for name in getattr(type(thing), "__slots__", ()):
                with suppress(Exception):
                    waiting.append(object.__getattribute__(thing, name))
    return total


_FIELDS = property | GetSetDescriptorType
_SHARED = type | Circuit | Measurement
_SCALARS = (int, float, complex, str, bytes, bool, type(None), type(sys))


def compile_recipe(recipe: Recipe) -> Executable:
    """Compile anew, past the cache; job-type executables get their `forward` here."""
    backend, circuit, measurement = recipe.backend, recipe.circuit, recipe.measurement
    options = {"dtype": recipe.dtype, "shots": recipe.shots}
    executable = backend.compile(circuit, measurement, **options)  # type: ignore[arg-type]
    if not hasattr(executable, "submit"):
        return executable
    from ..backends.jobs.runner import as_executable  # imports asyncio

    return as_executable(executable, backend, circuit, measurement, **options)  # type: ignore[arg-type]


_cache = _Cache(512 << 20)
on_fork(_cache.renew)


def compiled(recipe: Recipe) -> Executable:
    """The compiled circuit of `recipe`, from the cache where it is there.

    Raises:
        Whatever the backend raises; nothing is kept then, the next call tries again.
    """
    return _cache.get(recipe)


def cache_info() -> CacheInfo:
    """Hits, misses, circuits, bytes."""
    return _cache.info()


def cache_generation() -> int:
    """A number that changes when the cache is cleared. Who keeps what `compiled` returned lets go of it then."""
    return _cache.generation


def cache_clear() -> None:
    """Forget all compiled circuits and reset the counters."""
    _cache.clear()
