"""Threads for chunks of samples: few, started on first use, made anew after a fork.

numba's own pools are no choice here: one of them must not be entered by two threads at once, the others hang in a
process forked after their first use (data-loader workers). Kernels release the GIL, so Python threads do.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from ...errors import OptionError

__all__ = ["check_threads", "run_all", "thread_count"]

Task = Callable[[], Any]


def check_threads(threads: Any, *, backend: str) -> None:
    """Raise `OptionError` for a `threads` option that is neither None nor a whole number of at least 1."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise OptionError(
            f"threads is a whole number of at least 1 or None, received {threads!r}.",
            argument="threads",
            backend=backend,
        )


def thread_count(limit: int | None = None) -> int:
    """How many threads to use: `limit`, or what the machine and the frameworks in this process are set to.

    A framework that was told to use one thread (as torch's data-loader workers are) is not overruled.
    """
    if limit is not None:
        return limit
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            count = min(count, int(value))
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        count = min(count, torch.get_num_threads())
    tensorflow = sys.modules.get("tensorflow")
    threading_config = getattr(getattr(tensorflow, "config", None), "threading", None)
    if threading_config is not None:
        count = min(count, threading_config.get_intra_op_parallelism_threads() or count)
    return max(count, 1)


def run_all(tasks: Sequence[Task], threads: int) -> list[Any]:
    """Run tasks on up to `threads` threads, the caller's among them; returns their results when all are done.

    The first exception of a task is raised. A worker that wakes up late finds nothing left and is not waited for.
    """
    job = _Job(tasks)
    workers = min(threads, len(tasks)) - 1
    for _ in range(workers):
        _pool.submit(job, workers)
    job.work()
    job.join()
    return job.results


class _Job:
    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks, self._next = tasks, itertools.count()
        self.results: list[Any] = [None] * len(tasks)
        self._lock, self._idle = threading.Lock(), threading.Event()
        self._active, self._closed = 0, False
        self._error: BaseException | None = None

    def work(self) -> None:
        """Take tasks until none is left."""
        with self._lock:
            if self._closed:
                return
            self._active += 1
            self._idle.clear()
        try:
            while self._error is None and (number := next(self._next)) < len(self._tasks):
                self.results[number] = self._tasks[number]()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread, by `join`
            self._error = error
        finally:
            with self._lock:
                self._active -= 1
                if not self._active:
                    self._idle.set()

    def join(self) -> None:
        """Wait for the workers that have begun."""
        with self._lock:
            self._closed = True
            done = not self._active
        if not done:
            self._idle.wait()
        if self._error is not None:
            raise self._error


class _WorkerPool:
    """Daemon threads that wait for jobs."""

    def __init__(self) -> None:
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._size, self._lock = 0, threading.Lock()

    def submit(self, job: _Job, size: int) -> None:
        """Queue a job for one worker; start workers up to `size`."""
        with self._lock:
            while self._size < size:
                self._size += 1
                threading.Thread(target=_serve, args=(self._jobs,), name="qstore-numba", daemon=True).start()
        self._jobs.put(job)


def _serve(jobs: SimpleQueue[_Job]) -> None:
    while True:
        jobs.get().work()


_pool = _WorkerPool()
