"""Says how much memory a state needs, before anything is allocated."""

from __future__ import annotations

import os

from ..errors import MemoryLimitError

__all__ = ["check_memory"]

_WORKING_COPIES = 3  # psi, the result of a step, and lambda or the probabilities


def check_memory(n_qubits: int, rows: int = 1, dtype: str = "float32", *, backend: str = "") -> None:
    """Raise where `rows` states of `n_qubits` cannot fit this machine.

    Raises:
        MemoryLimitError: with the memory it would need.
    """
    if n_qubits <= 16 and rows <= 1024:  # under 2 GiB whatever the dtype
        return
    needed = _WORKING_COPIES * max(rows, 1) * (1 << n_qubits) * (16 if dtype == "float64" else 8)
    available = _physical_memory()
    if needed <= available:
        return
    what = f"{rows} states of {n_qubits} qubits" if rows > 1 else f"a state of {n_qubits} qubits"
    raise MemoryLimitError(
        f"{what} cannot be simulated here{f' by backend {backend!r}' if backend else ''}. Use fewer qubits or a "
        "smaller batch, or a backend that does not hold the state",
        needed_bytes=needed,
        available_bytes=available,
    )


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no sysconf on this platform
        return 64 << 30
