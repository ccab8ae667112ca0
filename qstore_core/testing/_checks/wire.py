"""What a client's requests meet, and what its coroutines do to the loop: for the checks of jobs.

Answers of an HTTP service are changed where this process reads them from a socket, so that a client can be shown a 429
or a cut connection whatever library it uses. Calls that block are seen through Python's audit events.
"""

from __future__ import annotations

import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

__all__ = ["Answers", "answers", "blocking_calls"]

_STATUS = re.compile(rb"^(HTTP/1\.[01] )(\d{3})")


class Answers:
    """How many answers were changed."""

    def __init__(self) -> None:
        """None yet."""
        self.changed = 0


@contextmanager
def answers(status: int | None) -> Iterator[Answers]:
    """While this is active every HTTP answer that this process reads has another status; None cuts the connection."""
    seen = Answers()

    def change(data: bytes) -> bytes:
        if not _STATUS.match(data):
            return data
        seen.changed += 1
        return b"" if status is None else _STATUS.sub(rb"\g<1>%d" % status, data)

    def filling(read: Callable[..., int]) -> Callable[..., int]:
        def fill(self: Any, buffer: Any, *arguments: Any) -> int:
            count = read(self, buffer, *arguments)
            data = change(bytes(memoryview(buffer)[:count]))
            memoryview(buffer)[: len(data)] = data
            return len(data)

        return fill

    def reading(read: Callable[..., Any]) -> Callable[..., Any]:
        def tls_read(self: Any, length: int = 1024, buffer: Any = None) -> Any:
            if buffer is None:
                return change(read(self, length))
            return filling(lambda self, buffer, length: read(self, length, buffer))(self, buffer, length)

        return tls_read

    with ExitStack() as stack:
        receive = socket.socket.recv
        stack.enter_context(_replaced(socket.socket, "recv", lambda self, *a: change(receive(self, *a))))
        stack.enter_context(_replaced(socket.socket, "recv_into", filling(socket.socket.recv_into)))
        for kind in (ssl.SSLSocket, ssl.SSLObject):
            stack.enter_context(_replaced(kind, "read", reading(kind.read)))
        yield seen


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


_watched: dict[int, list[str]] = {}  # by thread
_installed = threading.Event()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    calls = _watched.get(threading.get_ident()) if _watched else None
    if calls is None:
        return
    if event in ("socket.getaddrinfo", "subprocess.Popen"):
        calls.append(event)
    elif event == "socket.connect" and arguments[0].gettimeout() != 0:
        calls.append(f"socket.connect to {arguments[1]} on a socket that blocks")


@contextmanager
def blocking_calls() -> Iterator[list[str]]:
    """What this thread calls meanwhile that blocks it: sleeps, name look-ups, sockets that block."""
    if not _installed.is_set():  # an audit hook stays as long as the process
        sys.addaudithook(_audit)
        _installed.set()
    calls: list[str] = []
    receive, fill, pause = socket.socket.recv, socket.socket.recv_into, time.sleep
    me = threading.get_ident()

    def sleep(seconds: float) -> None:
        if threading.get_ident() == me:
            calls.append(f"time.sleep({seconds:.3g})")
        pause(seconds)

    def seen(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(self: Any, *arguments: Any) -> Any:
            if threading.get_ident() == me and self.gettimeout() != 0:
                calls.append("recv on a socket that blocks")
            return read(self, *arguments)

        return reading

    _watched[me] = calls
    try:
        with (
            _replaced(socket.socket, "recv", seen(receive)),
            _replaced(socket.socket, "recv_into", seen(fill)),
            _replaced(time, "sleep", sleep),
        ):
            yield calls
    finally:
        del _watched[me]
