"""The circuit cache: compiled circuits by what they are compiled from. Results are never cached.

Example:
    >>> cache_clear()
    >>> cache_info()
    CacheInfo(hits=0, misses=0, maxsize=256, currsize=0)
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from ..backends.contract import Backend, Executable
from ..backends.jobs.runner import as_executable
from ..circuit.circuit import Circuit
from ..circuit.measurement import Measurement

__all__ = ["CacheInfo", "Recipe", "cache_clear", "cache_generation", "cache_info", "compile_recipe", "compiled"]


class CacheInfo(NamedTuple):
    """Counters of the circuit cache."""

    hits: int
    misses: int
    maxsize: int
    currsize: int


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
    seed: int | None = None

    def __post_init__(self) -> None:
        """Compute the hash."""
        parts = (self.circuit, self.measurement, id(self.backend), self.dtype, self.shots, self.seed)
        object.__setattr__(self, "_hash", hash(parts))

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Recipe)
            and self.backend is other.backend
            and (self.dtype, self.shots, self.seed) == (other.dtype, other.shots, other.seed)
            and self.measurement == other.measurement
            and self.circuit == other.circuit
        )


class _Entry:
    __slots__ = ("executable", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executable: Executable | None = None


class _Cache:
    """Least recently used goes first. Two threads that ask at once compile once."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self._lock, self.generation = threading.Lock(), 0
        self.clear()

    def clear(self) -> None:
        with self._lock:
            self._entries: OrderedDict[Recipe, _Entry] = OrderedDict()
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
                    while len(self._entries) > self.maxsize:
                        self._entries.popitem(last=False)
            else:
                with self._lock:
                    self.hits += 1
        return entry.executable

    def info(self) -> CacheInfo:
        with self._lock:
            return CacheInfo(self.hits, self.misses, self.maxsize, len(self._entries))


def compile_recipe(recipe: Recipe) -> Executable:
    """Compile anew, past the cache; job-type executables get their `forward` here."""
    backend, circuit, measurement = recipe.backend, recipe.circuit, recipe.measurement
    options = {"dtype": recipe.dtype, "shots": recipe.shots, "seed": recipe.seed}
    executable = backend.compile(circuit, measurement, **options)  # type: ignore[arg-type]
    return as_executable(executable, backend, circuit, measurement, **options)  # type: ignore[arg-type]


_cache = _Cache(256)


def compiled(recipe: Recipe) -> Executable:
    """The compiled circuit of `recipe`, from the cache where it is there.

    Raises:
        Whatever the backend raises; nothing is kept then, the next call tries again.
    """
    return _cache.get(recipe)


def cache_info() -> CacheInfo:
    """Hits, misses, maximal and current size."""
    return _cache.info()


def cache_generation() -> int:
    """A number that changes when the cache is cleared. Who keeps what `compiled` returned lets go of it then."""
    return _cache.generation


def cache_clear() -> None:
    """Forget all compiled circuits and reset the counters."""
    _cache.clear()
