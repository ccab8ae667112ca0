"""Which backends are installed, read from package metadata alone: no plugin is imported to be listed.

Internal to `qstore_core.backends.registry`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..notebook import table
from .forking import new_lock

if TYPE_CHECKING:
    from importlib import metadata

__all__ = ["GROUP", "BackendInfo", "BackendList", "entries", "installed", "pip_command", "switched_off"]

GROUP = "qstore.backends"
OWN_DISTRIBUTION = "qstore"
OFF_SWITCH = "QSTORE_DISABLE_PLUGINS"

_EXTRAS = {  # what may be missing for a backend of ours → the extra that brings it
    "dask": "dask",
    "distributed": "dask",
    "jax": "jax",
    "keras": "tf",
    "llvmlite": "fast",
    "numba": "fast",
    "pennylane": "pennylane",
    "qiskit": "aer",
    "qiskit_aer": "aer",
    "tensorflow": "tf",
    "torch": "torch",
}
_LIBRARIES = {  # backends of ours → the library without which they cannot be loaded
    "aer": "qiskit_aer",
    "dask": "distributed",
    "jax": "jax",
    "numba": "numba",
    "pennylane": "pennylane",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "triton": "triton",
}


@dataclass(frozen=True)
class BackendInfo:
    """What is known of a backend without importing it.

    Attributes:
        name: What `backend=` and `get_backend` take.
        distribution: Installed package that brings it; "" for one registered in this process.
        version: Version of that package.
        module: Module with its hook.
        status: "ready" (loaded in this process), "installed" (not loaded yet), "unavailable" (a library of it is
            missing), "disabled" (by QSTORE_DISABLE_PLUGINS), "duplicate" (two packages claim the name) or "broken".
        reason: Why it is not usable, and what mends it; "" where it is.
    """

    name: str
    distribution: str
    version: str
    module: str
    status: str = "installed"
    reason: str = ""

    @property
    def usable(self) -> bool:
        """Whether nothing is known that keeps it from being loaded."""
        return self.status in ("ready", "installed")

    @property
    def own(self) -> bool:
        """Whether it comes with qstore itself."""
        return _normal(self.distribution) == OWN_DISTRIBUTION


class BackendList(tuple[BackendInfo, ...]):
    """An immutable sequence of `BackendInfo` that prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The table."""
        if not self:
            return "no backend is installed"
        rows = [("name", "status", "from", "module", "")]
        for info in self:
            origin = f"{info.distribution} {info.version}".strip() or "this process"
            rows.append((info.name, info.status, origin, info.module, info.reason))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:4]
        return "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
            for row in rows
        )

    def _repr_html_(self) -> str:
        return table(asdict(info) for info in self)


_cache: tuple[object, tuple[tuple[BackendInfo, metadata.EntryPoint], ...]] | None = None
_lock = new_lock(__name__, "_lock")


def entries() -> tuple[tuple[BackendInfo, metadata.EntryPoint], ...]:
    """All entry points of the group, sorted; read again when a package was installed, removed or put on the path.

    Metadata is parsed here, once: that of a package takes a millisecond.
    """
    global _cache
    state = tuple(_path_state())
    with _lock:
        if _cache is not None and _cache[0] == state:
            return _cache[1]
    from importlib import metadata  # imports much, and not every process asks

    found = [(_named(entry), entry) for entry in metadata.entry_points(group=GROUP)]
    found.sort(key=lambda pair: (pair[0].name, pair[0].distribution, pair[1].value))
    with _lock:
        _cache = (state, tuple(found))
        return _cache[1]


def _path_state() -> Iterator[tuple[str, int]]:
    for place in sys.path:
        try:
            yield place, os.stat(place or ".").st_mtime_ns
        except OSError:
            yield place, -1


def installed() -> list[tuple[BackendInfo, metadata.EntryPoint]]:
    """Every entry point with what can be said of it without an import."""
    found = [(_describe(info, entry), entry) for info, entry in entries()]
    origins: dict[str, set[str]] = {}
    for info, _ in found:
        if info.status != "disabled":
            origins.setdefault(info.name, set()).add(info.distribution)
    result = []
    for info, entry in found:
        rivals = origins.get(info.name, set())
        if info.status != "disabled" and len(rivals) > 1:
            info = replace(info, status="duplicate", reason=_duplicate_reason(info.name, rivals))
        result.append((info, entry))
    return result


def _named(entry: metadata.EntryPoint) -> BackendInfo:
    if entry.dist is None:
        return BackendInfo(entry.name, "", "", entry.module)
    return BackendInfo(entry.name, entry.dist.name, entry.dist.version, entry.module)


def _describe(info: BackendInfo, entry: metadata.EntryPoint) -> BackendInfo:
    if switched_off(info):
        return replace(info, status="disabled", reason=f"turned off by {OFF_SWITCH}={os.environ[OFF_SWITCH]}")
    if info.own:
        library = _LIBRARIES.get(info.name)
        if library is not None and not _exists(library):
            return replace(info, status="unavailable", reason=pip_command(info, entry, library))
    elif not _exists(entry.module.partition(".")[0]):
        return replace(info, status="broken", reason=f"its module {entry.module!r} does not exist")
    return info


def switched_off(info: BackendInfo) -> bool:
    """Whether QSTORE_DISABLE_PLUGINS turns this one off: "1" or "all", or names of backends or packages."""
    value = os.environ.get(OFF_SWITCH, "").strip()
    if info.own or value.lower() in ("", "0", "false", "no"):
        return False
    if value.lower() in ("1", "true", "yes", "all"):
        return True
    names = {_normal(name.strip()) for name in value.split(",")}
    return _normal(info.name) in names or _normal(info.distribution) in names


def pip_command(info: BackendInfo, entry: metadata.EntryPoint | None, missing: str | None) -> str:
    """The sentence that says how to get a missing module of a backend."""
    if missing is None:
        return f"Its libraries do not fit together. Try: pip install --upgrade {_extra(info, '')}"
    top = missing.partition(".")[0]
    if top == "triton":
        return "It comes with PyTorch's builds for CUDA: https://pytorch.org."
    if info.own and top in _EXTRAS:
        return f"Install it with: pip install {_extra(info, _EXTRAS[top])}"
    requires = entry.dist.requires if entry is not None and entry.dist is not None else None
    for requirement in requires or ():
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        if match is None or _normal(match[0]) != _normal(top):
            continue
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        return f"Install it with: pip install {_extra(info, extra[1]) if extra else match[0]}"
    if info.distribution:
        return (
            f"Install the package that provides {top!r}, or repair its own with: "
            f"pip install --upgrade {info.distribution}"
        )
    return f"Install the package that provides {top!r}."


def _extra(info: BackendInfo, extra: str) -> str:
    return f'"{info.distribution}[{extra}]"' if extra else (info.distribution or OWN_DISTRIBUTION)


def _duplicate_reason(name: str, rivals: set[str]) -> str:
    first, second = sorted(rivals)[:2]
    foreign = next(rival for rival in (second, first) if _normal(rival) != OWN_DISTRIBUTION)
    return (
        f"packages {' and '.join(map(repr, sorted(rivals)))} both provide {name!r}. "
        f"Uninstall one, or set {OFF_SWITCH}={foreign}"
    )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _exists(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
