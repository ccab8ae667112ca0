"""Says how much memory a circuit needs, before anything is allocated, and what this process may have."""

from __future__ import annotations

import contextlib
import math
import os
from functools import cache
from pathlib import Path

from ..errors import MemoryLimitError

__all__ = ["STATES", "available_memory", "check_bytes", "check_drawn", "check_ensemble", "check_memory", "check_table"]

STATES = 6  # ψ, λ and the result of a step on each, phases, probabilities
_TABLES = 64  # bytes per basis state for permutations, sorted rows and what is needed to make them
_ALWAYS = 1 << 26  # less than this is not looked at


def check_memory(
    n_qubits: int,
    rows: int = 1,
    dtype: str = "float32",
    *,
    at_once: int | None = None,
    backend: str = "",
    why: str = "",
) -> None:
    """Raise where `rows` states of `n_qubits`, their gradient and measurement do not fit what this process may have.

    Args:
        n_qubits: Of the circuit.
        rows: Of the batch.
        dtype: Of the layer.
        at_once: Most rows whose states the engine holds at a time; None: all.
        backend: Its name.
        why: Why the circuit is computed as one state of all its qubits, for the message.

    Raises:
        MemoryLimitError: with the memory it would need.
    """
    held = max(rows if at_once is None else min(rows, at_once), 1)
    needed = (_TABLES + STATES * held * (16 if dtype == "float64" else 8)) << n_qubits
    what = f"{rows} states of {n_qubits} qubits" if rows > 1 else f"a state of {n_qubits} qubits"
    check_bytes(needed, f"{what} cannot be simulated here{f' by backend {backend!r}' if backend else ''}{why}")


def check_bytes(needed: int, problem: str) -> None:
    """Raise `MemoryLimitError`, which begins with `problem`, where `needed` bytes are more than there are."""
    if needed <= _ALWAYS:
        return
    available = available_memory()
    if needed > available:
        raise MemoryLimitError(
            f"{problem}. Use fewer qubits or a smaller batch, or a backend that does not hold the state",
            needed_bytes=needed,
            available_bytes=available,
        )


def check_table(strings: int, outputs: int) -> None:
    """Raise where the coefficients of so many Pauli strings in so many outputs do not fit."""
    check_bytes(16 * strings * outputs, f"{outputs} outputs of {strings} different Pauli strings do not fit")


def check_drawn(rows: int, n_outputs: int) -> None:
    """Raise where counts, or bits, of so many rows do not fit: whole numbers as they are drawn, ordered and given."""
    check_bytes(24 * rows * n_outputs, f"{rows} rows of {n_outputs} counts or bits do not fit")


def check_ensemble(members: int, features: tuple[int, ...], n_outputs: int, itemsize: int) -> None:
    """Raise where the outputs (E, …, O) of an ensemble do not fit: its members are run one by one, for long."""
    rows = math.prod(features[:-1])
    if not isinstance(rows, int):  # a symbol in a graph that is being made
        return
    check_bytes(
        2 * members * rows * n_outputs * itemsize,  # of all members, and as one array
        f"{n_outputs} outputs for {rows} rows of features from each of {members} members do not fit",
    )


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, its control group and its own limits."""
    pages = (0, 0)  # of address space, and resident
    with contextlib.suppress(OSError, ValueError, IndexError):
        size, resident = Path("/proc/self/statm").read_text().split()[:2]
        pages = int(size), int(resident)
    page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
    free = min(_physical_memory(), _group_limit()) - pages[1] * page
    with contextlib.suppress(ImportError, OSError):  # no limits of this kind on Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            free = min(free, limit - pages[0] * page)
    return max(free, 0)


@cache
def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no sysconf on this platform
        return 64 << 30


@cache
def _group_limit() -> int:
    """The least memory limit of the control groups (Linux, version 2 and 1) that this process is in."""
    limits = [1 << 62]
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root, name = (
                (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
                if controllers
                else (Path("/sys/fs/cgroup"), "memory.max")
            )
            parts = [part for part in group.split("/") if part and part != ".."]
            for depth in range(len(parts) + 1):
                with contextlib.suppress(OSError, ValueError):  # "max" is no number
                    limits.append(int(root.joinpath(*parts[:depth], name).read_text()))
    return min(limits)
