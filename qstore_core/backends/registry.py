"""Backends by name, from entry points in group `qstore.backends`; ours come in by the same door.

Names are listed from package metadata; a plugin is imported when its name is asked for, alone, so that one with a
missing library harms nobody else. Two packages that claim one name are refused, never ranked by chance.
QSTORE_DISABLE_PLUGINS turns others' plugins off: "1" for all of them, or names of backends or packages with commas.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pluggy

from ..errors import (
    BackendUnavailableError,
    OptionError,
    PluginError,
    QstoreError,
    SpecError,
    UnknownBackendError,
    nearest,
)
from ._discovery import BackendInfo, BackendList, installed, pip_command
from .contract import CONTRACT_VERSION, Backend, contract_problems, hookimpl
from .forking import new_lock

if TYPE_CHECKING:
    from importlib import metadata

__all__ = [
    "BackendInfo",
    "BackendList",
    "get_backend",
    "is_loaded",
    "list_backends",
    "register_backend",
    "unregister_backend",
]

_HOOK = "qstore_backend"
_PLAIN = (str, int, float, bool, type(None))


class _Hooks:
    """What a plugin implements."""

    @pluggy.HookspecMarker("qstore")
    def qstore_backend(self, options: dict[str, Any]) -> Backend:
        """Return the backend; called with the options given to `get_backend`."""
        raise NotImplementedError


_manager = pluggy.PluginManager("qstore")
_manager.add_hookspecs(_Hooks)
# Never held during an import or a hook: both may come back here from other threads.
_lock = new_lock(__name__, "_lock", threading.RLock)
_registered: dict[str, object] = {}  # by register_backend: name → plugin
_shared: dict[tuple[object, ...], Backend] = {}  # (plugin's identity, options) → backend
_failures: dict[tuple[str, str], tuple[str, str]] = {}  # (name, distribution) → (status, reason), of the last attempt
_ready: set[tuple[str, str]] = set()
_asked: set[str] = set()  # names, with devices, under which a backend was loaded


def list_backends() -> BackendList:
    """Every backend there is, usable or not, without importing any.

    Returns:
        A frozen list of `BackendInfo`, sorted by name; it prints as a table.

    Example:
        >>> register_backend("example", lambda: None)
        >>> print([info.status for info in list_backends() if info.name == "example"])
        ['installed']
        >>> unregister_backend("example")
    """
    return BackendList(info for info, _ in _known())


def get_backend(name: str | Backend, /, **options: Any) -> Backend:
    """Load one backend; nothing else is imported.

    Args:
        name: Name of a backend; "name:device" is short for the option `device`. A `Backend` is returned unchanged.
        **options: Handed to the backend. Two calls with the same plain options return the same backend.

    Returns:
        The backend.

    Raises:
        UnknownBackendError: no backend has this name.
        BackendUnavailableError: a library of it is missing, or it is turned off.
        OptionError: it does not know an option.
        PluginError: it breaks the contract, fails to start, or shares its name with another package's.

    Example:
        >>> get_backend("statevectr")
        Traceback (most recent call last):
        ...
        qstore_core.errors.UnknownBackendError: no backend named 'statevectr'. ... Did you mean 'statevector'?
    """
    if not isinstance(name, str):
        return _given(name, options)
    asked = name
    info, entry = _find(name)
    if info.name != name:
        device = name[len(info.name) + 1 :]
        if "device" in options:
            raise OptionError(
                f"backend {name!r} names a device, and so does device={options['device']!r}. Use one of them.",
                argument="device",
                backend=info.name,
            )
        options = {"device": device, **options}
    plugin = _plugin(info, entry)
    key = _sharing_key(plugin, options)
    backend = _shared.get(key) if key is not None else None
    if backend is None:
        backend = _start(plugin, info, entry, options)
        with _lock:
            if key is not None:
                backend = _shared.setdefault(key, backend)
            _ready.add((info.name, info.distribution))
            _failures.pop((info.name, info.distribution), None)
    _asked.add(asked)
    return backend


def is_loaded(name: str) -> bool:
    """Whether this process has loaded the backend of this name, and of this device where it names one."""
    return name in _asked or any(info.name == name and info.status == "ready" for info in list_backends())


def register_backend(name: str, backend: object) -> None:
    """Add a backend to this process, by the same door as an installed one.

    Args:
        name: Its name.
        backend: A module or object with a `@hookimpl qstore_backend(options)`; or a `Backend`; or a function or
            class that returns one, called with the options as keywords.

    Raises:
        PluginError: the name is taken, or `backend` is none of these.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.-]*", name) or name == "auto":
        raise SpecError(
            f"a backend's name has letters, digits, '_', '-' and '.', and is not 'auto'; received {name!r}.",
            argument="name",
        )
    if hasattr(backend, _HOOK):
        plugin = backend
    elif not contract_problems(backend):
        plugin = _Factory(name, lambda: backend)
    elif callable(backend):
        plugin = _Factory(name, backend)
    else:
        raise PluginError(
            f"cannot register {backend!r} as backend {name!r}: expected a module with a hook {_HOOK}, a Backend, or a "
            f"function that returns one. As a Backend it has {', '.join(contract_problems(backend))}.",
            backend=name,
        )
    with _lock:
        taken = [info for info, _ in _known() if info.name == name]
        if taken:
            origin = taken[0].distribution or "this process"
            raise PluginError(f"backend {name!r} exists already, from {origin}. Choose another name.", backend=name)
        if not _manager.is_registered(plugin):  # one plugin may go by two names
            _admit(plugin, BackendInfo(name, "", "", _module_of(backend)))
        _registered[name] = plugin


def unregister_backend(name: str) -> None:
    """Remove a backend that `register_backend` added.

    Raises:
        UnknownBackendError: there is none of this name.
    """
    with _lock:
        plugin = _registered.pop(name, None)
        if plugin is None:
            raise UnknownBackendError(
                f"no backend named {name!r} was registered in this process.{nearest(name, _registered)}",
                backend=name,
            )
        _ready.discard((name, ""))
        _asked.discard(name)
        _failures.pop((name, ""), None)
        if plugin not in _registered.values():
            _manager.unregister(plugin)
            for key in [key for key in _shared if key[0] == id(plugin)]:
                del _shared[key]


class _Factory:
    """A function or class in the place of a plugin module."""

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self._name, self.make = name, make

    @hookimpl
    def qstore_backend(self, options: dict[str, Any]) -> Backend:
        try:
            inspect.signature(self.make).bind(**options)
        except TypeError as error:
            raise OptionError(
                f"backend {self._name!r} does not take these options: {error}.", backend=self._name
            ) from None
        except ValueError:
            pass  # a builtin without a signature: let it speak for itself
        backend: Backend = self.make(**options)
        return backend


def _known() -> list[tuple[BackendInfo, metadata.EntryPoint | None]]:
    """Installed and registered backends with their present status, sorted by name."""
    known: list[tuple[BackendInfo, metadata.EntryPoint | None]] = [*installed()]
    with _lock:
        known += [(BackendInfo(name, "", "", _module_of(plugin)), None) for name, plugin in _registered.items()]
        for i, (info, entry) in enumerate(known):
            key = (info.name, info.distribution)
            if info.usable and key in _ready:
                known[i] = replace(info, status="ready"), entry
            elif info.usable and key in _failures:
                status, reason = _failures[key]
                known[i] = replace(info, status=status, reason=reason), entry
    return sorted(known, key=lambda pair: (pair[0].name, pair[0].distribution))


def _find(name: str) -> tuple[BackendInfo, metadata.EntryPoint | None]:
    """The one backend that `name` stands for."""
    known = _known()
    for wanted in dict.fromkeys((name, name.partition(":")[0])):
        found = [(info, entry) for info, entry in known if info.name == wanted]
        active = [pair for pair in found if pair[0].status != "disabled"]
        if len(active) == 1:
            return active[0]
        if active:
            info = active[0][0]
            raise PluginError(
                f"backend {wanted!r}: {info.reason or 'its package declares it twice'}.",
                backend=wanted,
                distribution=tuple(sorted({info.distribution for info, _ in active})),
            )
        if found:
            info = found[0][0]
            raise BackendUnavailableError(
                f"backend {wanted!r}, from package {info.distribution!r}, is {info.reason}. "
                "Unset it to use the backend.",
                backend=wanted,
            )
    names = sorted({info.name for info, _ in known})
    have = f"Installed: {', '.join(names)}." if names else "None is installed, not even ours: run pip install qstore."
    raise UnknownBackendError(
        f"no backend named {name!r}. {have}{nearest(name.partition(':')[0], names)}", backend=name
    )


def _plugin(info: BackendInfo, entry: metadata.EntryPoint | None) -> object:
    """Import the plugin and hand it to pluggy."""
    if entry is None:
        return _registered[info.name]
    with _noting_failure(info, entry):
        plugin = entry.load()
        with _lock:
            if not _manager.is_registered(plugin):
                _admit(plugin, info)
    return plugin


def _admit(plugin: object, info: BackendInfo) -> None:
    """Register with pluggy, and check what can be checked before the hook runs."""
    where = f"backend {info.name!r} ({_origin(info)})"
    version = getattr(plugin, "QSTORE_CONTRACT", CONTRACT_VERSION)
    if version != CONTRACT_VERSION:
        newer = isinstance(version, int) and version > CONTRACT_VERSION
        raise PluginError(
            f"{where} is written for contract version {version!r}, this qstore has version {CONTRACT_VERSION}. "
            f"Upgrade {'qstore' if newer else 'the plugin'}.",
            backend=info.name,
            distribution=info.distribution,
        )
    try:
        _manager.register(plugin, name=f"{info.distribution or 'process'}:{info.name}")
        hooks = [caller.name for caller in _manager.get_hookcallers(plugin) or ()]
        if _HOOK not in hooks:
            has = f"It has hooks {hooks}." if hooks else "It has no hook at all: is @hookimpl missing?"
            raise PluginError(
                f"{where}: its module {info.module!r} has no hook implementation {_HOOK}(options). {has}"
                f"{nearest(_HOOK, hooks) and ' Is the name misspelt?'}",
                backend=info.name,
                distribution=info.distribution,
            )
    except (PluginError, pluggy.PluginValidationError, ValueError) as error:
        with contextlib.suppress(AssertionError, ValueError):
            _manager.unregister(plugin)
        if isinstance(error, PluginError):
            raise
        raise PluginError(
            f"{where}: its hook does not fit {_HOOK}(options): {error}",
            backend=info.name,
            distribution=info.distribution,
        ) from error


def _start(plugin: object, info: BackendInfo, entry: metadata.EntryPoint | None, options: dict[str, Any]) -> Backend:
    """Call the hook of this plugin only, and check what it returns."""
    implementation = next(i for i in _manager.hook.qstore_backend.get_hookimpls() if i.plugin is plugin)
    if options and "options" not in implementation.argnames:
        raise OptionError(
            f"backend {info.name!r} takes no options, received {', '.join(sorted(options))}.",
            backend=info.name,
        )
    with _noting_failure(info, entry):
        others = [other for other in _manager.get_plugins() if other is not plugin]
        returned = _manager.subset_hook_caller(_HOOK, others)(options=dict(options))
        problems = contract_problems(returned[0]) if returned else ["its hook returned None"]
        if problems:
            raise PluginError(
                f"backend {info.name!r} ({_origin(info)}) breaks the contract: {'; '.join(problems)}.",
                backend=info.name,
                distribution=info.distribution,
            )
    backend: Backend = returned[0]
    return backend


@contextlib.contextmanager
def _noting_failure(info: BackendInfo, entry: metadata.EntryPoint | None) -> Any:
    """Turn what goes wrong into our errors, and remember the reason for `list_backends`."""
    try:
        yield
    except QstoreError as error:
        if isinstance(error, BackendUnavailableError) and error.backend is None:
            # From a package of layers, which does not know what it is imported for.
            message = f"backend {info.name!r} is registered but cannot be imported: {error}"
            raise _note(info, BackendUnavailableError(message, backend=info.name, name=error.name)) from error
        if isinstance(error, PluginError | BackendUnavailableError):
            _note(info, error)
        raise
    except ImportError as error:
        own = info.module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name and f"{info.module}.".startswith(f"{error.name}."):
            raise _note(info, _broken(info, f"its module {error.name!r} does not exist")) from error
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and missing.partition(".")[0] == own:
            raise _note(info, _broken(info, f"{error}")) from error
        unavailable = BackendUnavailableError(
            f"backend {info.name!r} is registered but cannot be imported: {error}. {pip_command(info, entry, missing)}",
            backend=info.name,
            name=error.name,
        )
        raise _note(info, unavailable) from error
    except Exception as error:
        raise _note(info, _broken(info, f"{type(error).__name__}: {error}")) from error


def _note(info: BackendInfo, error: QstoreError) -> QstoreError:
    status = "unavailable" if isinstance(error, BackendUnavailableError) else "broken"
    with _lock:
        _failures[info.name, info.distribution] = (status, str(error))
    return error


def _broken(info: BackendInfo, why: str) -> PluginError:
    return PluginError(
        f"backend {info.name!r} ({_origin(info)}) failed to start: {why}. Every other backend still works.",
        backend=info.name,
        distribution=info.distribution,
    )


def _given(backend: Any, options: dict[str, Any]) -> Backend:
    problems = contract_problems(backend)
    if problems:
        raise SpecError(
            f"backend must be a name or a Backend, received {backend!r}: {'; '.join(problems)}.",
            argument="backend",
        )
    if options:
        raise OptionError(
            f"options {', '.join(sorted(options))} cannot be given to a backend that exists already. "
            "Give them where it is made.",
            backend=backend.name,
        )
    result: Backend = backend
    return result


def _sharing_key(plugin: object, options: dict[str, Any]) -> tuple[object, ...] | None:
    """What a shared backend is known by; None where an option is an object, which nobody else may mean."""

    def plain(value: object) -> bool:
        return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(plain, value)))

    if not all(map(plain, options.values())):
        return None
    return (id(plugin), *((key, repr(value)) for key, value in sorted(options.items())))


def _module_of(thing: object) -> str:
    thing = thing.make if isinstance(thing, _Factory) else thing
    return str(getattr(thing, "__name__" if inspect.ismodule(thing) else "__module__", "") or "")


def _origin(info: BackendInfo) -> str:
    return f"package {info.distribution!r} {info.version}" if info.distribution else "registered in this process"
