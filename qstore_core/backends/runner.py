"""One event loop in one daemon thread, started on first use and reused by every call.

A job-type backend (hardware, a cluster, an HTTP service) is written with `async def`. Layers are called from plain
code, from notebooks and servers whose own loop is running, and from data-loader workers. This module is the bridge:

    run_sync(call, *args)          from plain code, or inside somebody's running loop: blocks the calling thread
    await run_async(call, *args)   from any asyncio loop: the coroutine runs on the shared loop
    await to_thread(call, *args)   from any asyncio loop: a blocking function runs in a shared pool of threads
    submit(call, *args)            returns a concurrent.futures.Future; the first two are made of it

The loop lives as long as the process does, and with it whatever is expensive to make anew: connections, sessions,
locks, job queues. Exit and `close()` cancel what still runs, wait a bounded time for its clean-up and release the
thread, the loop and its sockets. A forked child starts a loop of its own at its first call.

What limits or repeats calls (bounded concurrency, a time-out per job, retries) is written as coroutines over this
seam, not in it: they all run on one loop, so an ordinary `asyncio.Semaphore` or `TaskGroup` serves every thread.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import functools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

from ..errors import DeadlineError, RunnerError
from ._loop import GRACE, Call, Job, LoopThread, discard, inherited, invoke
from .forking import on_fork

__all__ = ["Runner", "close", "portal", "run_async", "run_sync", "submit", "to_thread"]

T = TypeVar("T")

_open: set[Runner] = set()  # runners to close at exit
_all: weakref.WeakSet[Runner] = weakref.WeakSet()  # to renew after fork: a lock may be held before anything is open
_exiting = False


class Runner:
    """A loop in a thread. Most programs share the one that `portal()` returns.

    Args:
        name: Begins the names of its threads, for debuggers and profilers.
        max_threads: Bound of the pool behind `to_thread`; by default as many as asyncio's own.

    Example:
        >>> async def double(x):
        ...     await asyncio.sleep(0)
        ...     return 2 * x
        >>> with Runner() as runner:
        ...     runner.run_sync(double, 21)
        42
    """

    def __init__(self, name: str = "qstore", *, max_threads: int | None = None) -> None:
        """Start nothing yet: the first call does."""
        self._name = name
        self._max_threads = max_threads
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may call us while we hold it
        self._thread: LoopThread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._here = threading.local()  # has the attribute `pool` in the pool's threads

    def __enter__(self) -> Self:
        """Return the runner itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    @property
    def running(self) -> bool:
        """Whether the loop is up. It starts with the first call, and again with the first after `close()`."""
        return self._thread is not None

    def submit(self, call: Call[T], *args: object) -> Future[T]:
        """Start a coroutine on the loop and return at once.

        Args:
            call: Coroutine function, or a coroutine.
            *args: Arguments of the coroutine function. It is called on the loop's thread, in the caller's context.

        Returns:
            The future. Cancelling it cancels the coroutine.
        """
        job = Job(call, args)
        self._start(job)
        return job.future

    def run_sync(self, call: Call[T], *args: object, timeout: float | None = None) -> T:
        """Run a coroutine on the loop and wait for its result, blocking the calling thread only.

        Args:
            call: Coroutine function, or a coroutine.
            *args: Arguments of the coroutine function.
            timeout: Seconds to wait, None for as long as it takes.

        Returns:
            What the coroutine returns.

        Raises:
            RunnerError: called from the loop's own thread, where waiting would never end; or the runner was closed
                before the coroutine finished.
            DeadlineError: no result within `timeout`; the coroutine is cancelled.
        """
        if self._on_loop():
            discard(call)
            raise RunnerError(
                "a synchronous call from the event loop's own thread would wait for itself forever. "
                "Inside a coroutine that qstore runs, await the asynchronous form: "
                "`await layer.call_async(x)` for a layer, `await run_async(...)` for a coroutine."
            )
        job = Job(call, args)
        try:
            self._start(job)
            return job.future.result(timeout)
        except CancelledError:
            if job.future.cancelled():
                raise _cancelled() from None
            raise
        except TimeoutError:
            if job.future.cancel():
                raise _too_late(timeout) from None
            return job.future.result()  # the coroutine's own TimeoutError, or a result in this very instant
        except BaseException:  # KeyboardInterrupt: what runs for us must not go on without us
            job.cancel_and_wait()
            raise

    async def run_async(self, call: Call[T], *args: object, timeout: float | None = None) -> T:  # noqa: ASYNC109
        """Run a coroutine on the shared loop and await it from any asyncio loop, the shared one included.

        Args:
            call: Coroutine function, or a coroutine.
            *args: Arguments of the coroutine function.
            timeout: Seconds to wait, None for as long as it takes.

        Returns:
            What the coroutine returns. Cancelling the caller cancels the coroutine.

        Raises:
            DeadlineError: no result within `timeout`; the coroutine is cancelled.
            RunnerError: the runner was closed before the coroutine finished.
        """
        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                if self._on_loop():
                    return await invoke(call, args)
                return await _await(self.submit(call, *args))
        except TimeoutError:
            if scope.expired():
                raise _too_late(timeout) from None
            raise

    async def to_thread(self, call: Callable[..., T], *args: object) -> T:
        """Run a blocking function in the pool of threads, so that the caller's loop goes on meanwhile.

        Args:
            call: Function; it sees the caller's context variables.
            *args: Its arguments.

        Returns:
            What the function returns. One that has begun cannot be cancelled: it runs to its end, unheard.
        """
        with self._lock:
            _refuse_at_exit()
            if self._pool is None:
                mark = functools.partial(setattr, self._here, "pool", True)
                self._pool = ThreadPoolExecutor(self._max_threads, f"{self._name}-worker", initializer=mark)
                _open.add(self)
            future = self._pool.submit(contextvars.copy_context().run, call, *args)
        return await _await(future)

    def close(self) -> None:
        """Cancel what runs, wait for its clean-up and release loop and threads. The next call starts anew.

        Raises:
            RunnerError: called from one of the threads that would have to end; or a coroutine that neither awaits
                nor returns blocks the loop.
        """
        if self._on_loop() or hasattr(self._here, "pool"):
            raise RunnerError("a runner cannot be closed from its own threads. Close it from the thread that uses it.")
        with self._lock:
            thread, self._thread = self._thread, None
            pool, self._pool = self._pool, None
            _open.discard(self)
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        stopped = thread is None or thread.stop()
        if pool is not None:
            pool.shutdown(wait=True)
        if not stopped:
            raise RunnerError(
                f"the event loop did not stop within {2 * GRACE:g} s: a coroutine blocks its thread. "
                "Blocking calls belong in `await to_thread(...)`."
            )

    def _on_loop(self) -> bool:
        thread = self._thread
        return thread is not None and thread.ident == threading.get_ident()

    def _start(self, job: Job[Any]) -> None:
        with self._lock:
            try:
                _refuse_at_exit()
                if self._thread is None:
                    self._thread = LoopThread(f"{self._name}-loop")
                    _open.add(self)
                self._thread.start(job)
            except BaseException:
                job.discard()
                raise

    def _renew(self) -> None:
        """In a forked child, where the threads are the parent's: drop all and start anew when asked."""
        thread, pool = self._thread, self._pool
        self._reset()
        inherited.append(pool)
        if thread is not None:
            thread.loop.forget()


async def _await(future: Future[T]) -> T:
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if future.cancelled() and not (task is not None and task.cancelling()):
            raise _cancelled() from None  # not our caller was cancelled, but the call itself
        raise


def _cancelled() -> RunnerError:
    return RunnerError("the call was cancelled before it had a result: the runner was closed, or it cancelled itself.")


def _too_late(timeout: float | None) -> DeadlineError:
    return DeadlineError(
        f"no result within {timeout:g} s; the call has been cancelled. Allow more with timeout=, or None for no limit.",
        seconds=timeout,
    )


def _refuse_at_exit() -> None:
    if _exiting:
        raise RunnerError("the interpreter is exiting: no call can start any more.")


def _close_all() -> None:
    global _exiting
    _exiting = True
    for runner in list(_open):
        with contextlib.suppress(RunnerError):
            runner.close()


def _renew_all() -> None:
    for runner in list(_all):
        runner._renew()
    _open.clear()


atexit.register(_close_all)
on_fork(_renew_all)

_portal = Runner()


def portal() -> Runner:
    """Return the one runner that the whole process shares.

    Example:
        >>> portal().run_sync(asyncio.sleep, 0, "woken")
        'woken'
    """
    return _portal


submit = _portal.submit
run_sync = _portal.run_sync
run_async = _portal.run_async
to_thread = _portal.to_thread
close = _portal.close
