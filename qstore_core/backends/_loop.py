"""The pieces of the runner: a loop in a thread, the jobs on it, and what a forked child must not touch.

Internal to `qstore_core.backends.runner`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import selectors
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeAlias, TypeVar

__all__ = ["GRACE", "Call", "Job", "LoopThread", "discard", "inherited", "invoke"]

T = TypeVar("T")
Call: TypeAlias = Callable[..., Awaitable[T]] | Coroutine[Any, Any, T]

GRACE = 5.0
"""Seconds that a cancelled call gets for its clean-up, before nobody waits for it any longer."""

inherited: list[object] = []
"""What a forked child got of its parent's loop: kept, so that nothing finalises it."""

_log = logging.getLogger("qstore.runner")


class LoopThread:
    """One life of a runner: a loop, its thread and the jobs on it."""

    def __init__(self, name: str) -> None:
        self.loop = _Loop(_Selector())
        self.jobs: set[Job[Any]] = set()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self.loop.close()
            raise

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def start(self, job: Job[Any]) -> None:
        job.owner = self
        self.jobs.add(job)
        self.loop.call_soon_threadsafe(job.start)

    def stop(self) -> bool:
        """End loop and thread; False where a coroutine blocks them."""
        with contextlib.suppress(RuntimeError):  # closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(2 * GRACE)
        for job in list(self.jobs):  # none, unless a coroutine refused to end: whoever waits for it must hear
            job.give_up()
        return not self._thread.is_alive()

    def _main(self) -> None:
        while True:
            try:
                self.loop.run_forever()
                break
            except (KeyboardInterrupt, SystemExit):
                pass  # raised by a coroutine: asyncio gave it to whoever waits for that one, and the loop lives on
        try:
            self.loop.run_until_complete(self._cancel_all())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)


class Job(Generic[T]):
    """One coroutine on the loop, and the future that the rest of the program sees of it."""

    def __init__(self, call: Call[T], args: tuple[object, ...]) -> None:
        self.future: Future[T] = Future()
        self.owner: LoopThread | None = None
        self._finished = threading.Event()  # after the clean-up of a cancelled coroutine; its future ends before that
        self._call, self._args = call, args
        self._task: asyncio.Task[T] | None = None

    def start(self) -> None:
        """Make the task; runs on the loop."""
        if self.future.cancelled():
            self._end()
            return
        assert self.owner is not None
        self._task = self.owner.loop.create_task(invoke(self._call, self._args))
        self._task.add_done_callback(self._finish)
        self.future.add_done_callback(self._pass_on_cancellation)

    def cancel_and_wait(self) -> None:
        """Cancel, and give the clean-up its time; for the one who waits for the result."""
        if self.future.cancel() and self.owner is not None:
            self._finished.wait(GRACE)

    def discard(self) -> None:
        """Forget a job that never reached the loop."""
        if self.owner is None:
            discard(self._call)

    def give_up(self) -> None:
        self.future.cancel()
        self._finished.set()

    def _pass_on_cancellation(self, future: Future[T]) -> None:
        if future.cancelled() and self.owner is not None and self._task is not None and not self._task.done():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.owner.loop.call_soon_threadsafe(self._task.cancel)

    def _finish(self, task: asyncio.Task[T]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            self.future.cancel()
        elif not self.future.set_running_or_notify_cancel():
            if error is not None:
                _log.warning("a cancelled call failed while it cleaned up", exc_info=error)
        elif error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())
        self._end()

    def _end(self) -> None:
        discard(self._call)
        if self.owner is not None:
            self.owner.jobs.discard(self)
        self._finished.set()


class _Selector(selectors.BaseSelector):
    """The platform's selector, which a forked child can drop without disturbing its parent.

    An epoll set is shared by parent and child: unregistering in the child would deafen the parent's loop.
    """

    def __init__(self) -> None:
        self._inner: selectors.BaseSelector = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._inner.select(timeout)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()

    def forget(self) -> None:
        inherited.append(list(self._inner.get_map().values()))  # transports: theirs to close, not ours
        self._inner.close()
        self._inner = selectors.SelectSelector()  # empty: nothing to unregister


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that knows which process it belongs to."""

    def __init__(self, selector: _Selector) -> None:
        self._own_selector = selector
        self._pid = os.getpid()
        super().__init__(selector)

    def is_running(self) -> bool:
        return os.getpid() == self._pid and super().is_running()

    def forget(self) -> None:
        """Release a forked child's copies of the parent's descriptors, and let its tasks sleep for ever."""
        inherited.append(asyncio.all_tasks(self))
        self.set_exception_handler(lambda loop, context: None)
        self._own_selector.forget()
        self.close()


async def invoke(call: Call[T], args: tuple[object, ...]) -> T:
    if callable(call):
        awaitable: Awaitable[T] = call(*args)
    elif args:
        raise TypeError(f"arguments {args!r} given together with a coroutine that has its own: pass the function")
    else:
        awaitable = call
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"expected a coroutine function or a coroutine, received {call!r}. "
            "A blocking function belongs in `await to_thread(...)`."
        )
    return await awaitable


def discard(call: object) -> None:
    """Close a coroutine that never ran, so that Python does not complain of one that was never awaited."""
    if inspect.iscoroutine(call):
        call.close()
