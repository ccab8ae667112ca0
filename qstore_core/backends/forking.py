"""What a forked child makes anew: locks that another thread of its parent may have held, and threads.

A child has one thread, a copy of the one that forked. A lock that any other thread held then stays locked for ever, so
every lock that a child may need is made by `new_lock`. OpenMP's pools of threads belong to the thread that used them:
libraries that have such pools (Aer, Lightning) are called through `off_forked_thread`.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

__all__ = ["is_forked", "new_lock", "off_forked_thread", "on_fork"]

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")

_locks: dict[tuple[int, str], tuple[weakref.ref[Any], Callable[[], Any]]] = {}
_actions: list[Callable[[], None]] = []
_forked: int | None = None  # in a child, the thread that it began with
_elsewhere: ThreadPoolExecutor | None = None


def new_lock(owner: Any, name: str, make: Callable[[], Any] = threading.Lock) -> Any:
    """A lock for attribute `name` of `owner`, which is set to another one in a forked child.

    Args:
        owner: An object that allows weak references, or the name of a module.
        name: Of the attribute.
        make: Makes the lock.

    Example:
        >>> class Counter: ...
        >>> counter = Counter()
        >>> counter.lock = new_lock(counter, "lock")
    """
    owner = sys.modules[owner] if isinstance(owner, str) else owner
    key = id(owner), name
    _locks[key] = weakref.ref(owner, lambda _: _locks.pop(key, None)), make
    return make()


def on_fork(action: Callable[[], None]) -> None:
    """Run `action` in every forked child, before anything else of it."""
    _actions.append(action)


def is_forked() -> bool:
    """True in a forked child."""
    return _forked is not None


def off_forked_thread(function: Callable[P, T]) -> Callable[P, T]:
    """In a forked child, run calls from the thread that it began with on another thread."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if _forked is None or threading.get_ident() != _forked:
            return function(*args, **kwargs)
        global _elsewhere
        if _elsewhere is None:
            from concurrent.futures import ThreadPoolExecutor

            _elsewhere = ThreadPoolExecutor(1, "qstore-forked")
        return _elsewhere.submit(function, *args, **kwargs).result()

    return run


def _in_child() -> None:
    global _forked, _elsewhere
    _forked, _elsewhere = threading.get_ident(), None
    for (_, name), (reference, make) in list(_locks.items()):
        if (owner := reference()) is not None:
            setattr(owner, name, make())
    for action in _actions:
        action()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
