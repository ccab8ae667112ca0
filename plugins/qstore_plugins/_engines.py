"""The engines on which other libraries run: exact, on arrays, in this process."""

from __future__ import annotations

from typing import Any

from qstore_core import BackendUnavailableError, OptionError, get_backend

__all__ = ["OnEngine", "engine"]


def engine(name: str) -> Any:
    """An engine by name; "auto" is the fastest that is installed.

    Raises:
        OptionError: the backend of that name samples, is remote, or computes on a framework's tensors.
    """
    if name == "auto":
        try:
            return get_backend("numba")
        except BackendUnavailableError:
            return get_backend("statevector")
    backend = get_backend(name)
    can = backend.capabilities
    if not (can.embedded and can.vjp) or can.framework:
        raise OptionError(
            f"backend={name!r} is no engine of qstore that computes on arrays in this process: "
            'use "numba", "statevector" or "auto".',
            argument="backend",
            backend=name,
        )
    return backend


class OnEngine:
    """What keeps the name of its engine, so that copies and pickles share compiled circuits with it."""

    _engine: str

    @property
    def _backend(self) -> Any:
        return engine(self._engine)

    def _choose(self, name: str) -> None:
        engine(name)  # refuses what is none
        self._engine = name
