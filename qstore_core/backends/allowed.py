"""Which backends a file may name: loading a model imports no plugin that its user has not asked for.

A saved layer names its backend. Our own engines, backends registered in this process and those that it has loaded
already are always taken from a file; another plugin, whose package would be imported only because the file says so, is
taken where the user allows it: by `allow_backends`, or by QSTORE_ALLOW_BACKENDS ("all", or names of backends or
packages with commas).
"""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Iterable, Iterator

from ..errors import SpecError
from .registry import is_loaded, list_backends

__all__ = ["ALLOW_VARIABLE", "allow_backends", "check_allowed"]

ALLOW_VARIABLE = "QSTORE_ALLOW_BACKENDS"
_OUR_PACKAGES = ("qstore_core", "qstore_torch", "qstore_tf", "qstore_jax")

_allowed: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar(
    "qstore_allowed_backends", default=frozenset()
)


@contextlib.contextmanager
def allow_backends(*names: str) -> Iterator[None]:
    """Within this scope files may name these backends.

    Args:
        names: Of backends ("aer", "pennylane:lightning.qubit"; "pennylane" for any of its devices) or of packages;
            "all" for every one that is installed.

    Example:
        >>> with allow_backends("aer"):
        ...     pass  # model = keras.saving.load_model("model.keras")
    """
    if not all(isinstance(name, str) for name in names):
        raise SpecError(f"allow_backends takes names of backends, received {names!r}.", argument="names")
    token = _allowed.set(_allowed.get() | frozenset(names))
    try:
        yield
    finally:
        _allowed.reset(token)


def check_allowed(names: Iterable[object], what: str) -> None:
    """Raise `SpecError` where a file may not name one of these backends; nothing is imported.

    Args:
        names: As they stand in the file. What is no name of an installed backend is left to `get_backend`.
        what: What names them, for the message.
    """
    asked_for = [name for name in names if isinstance(name, str) and not is_loaded(name)]
    known = {info.name: info for info in (reversed(list_backends()) if asked_for else ())}
    for name in asked_for:
        base = name.partition(":")[0]
        info = known.get(name) or known.get(base)
        if info is None or not info.distribution:
            continue
        if info.own and info.module.partition(".")[0] in _OUR_PACKAGES:
            continue
        asked = {part.strip() for part in os.environ.get(ALLOW_VARIABLE, "").split(",")} | _allowed.get()
        if asked & {"all", name, base, info.distribution}:
            continue
        raise SpecError(
            f"{what} names the backend {name!r}, from package {info.distribution!r}: loading it would run that "
            f"package's code because a file says so. If you trust it, load within "
            f"`with qstore_core.allow_backends({base!r}):`, set {ALLOW_VARIABLE}={base}, or call "
            f"qstore_core.get_backend({name!r}) first; or change the backend in the configuration.",
            argument="backend",
        )
