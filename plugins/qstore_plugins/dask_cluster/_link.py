"""The connection to a Dask scheduler: opened at the first call, and again where it was lost or the process forked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

from qstore_core import BackendError, RunnerError
from qstore_core.backends.jobs.policy import LoopLocal
from qstore_core.backends.runner import Runner

__all__ = ["Link"]

_open: list[Client] = []  # a forked child keeps its copies of the parent's clients, so that nothing finalises them


class Link:
    """Runs functions on the workers of one cluster.

    Args:
        address: Of the scheduler.
        client: The user's own client, in place of an address; it is used in the process that made it.
        security: For `Client`.
        timeout: Seconds without a scheduler that answers or without a worker, after which a call gives up.
    """

    def __init__(self, address: str, client: Client | None, security: Any, timeout: float) -> None:
        self.address, self.timeout = address, timeout
        self.security = security
        self._given, self._pid = client, os.getpid()
        self._runner = Runner("qstore-dask")
        self._own = LoopLocal(_Own)

    def run(self, function: Callable[[Any], Any], split: Callable[[int], Sequence[Any]]) -> list[Any]:
        """`function` of each argument, on the workers; results in the order of the arguments.

        Args:
            function: Importable on the workers.
            split: Number of worker threads → arguments.

        Raises:
            BackendError: scheduler or workers are out of reach; or a worker died too often while it computed.
        """
        client = self._given if os.getpid() == self._pid else None
        if client is None:
            return self._runner.run_sync(self._run_own, function, split)
        if client.asynchronous:
            raise RunnerError("a layer on this Client cannot be called from the Client's own event loop.")
        if client.status != "running":
            raise self._lost(f"its Client is {client.status}")
        return client.sync(self._run, client, function, split)

    def close(self) -> None:
        """Close the connection, unless it is the user's own. The next call opens another."""
        if self._runner.running:
            with contextlib.suppress(RunnerError):
                self._runner.run_sync(self._close_own)
        self._runner.close()

    async def _run_own(self, function: Callable[[Any], Any], split: Callable[[int], Sequence[Any]]) -> list[Any]:
        own, begin = self._own.get(), time.monotonic()
        async with own.lock:
            if own.error is not None and own.failed > begin:  # another thread tried, while this one waited
                raise self._lost(own.error)
            if own.client is None or own.client.status != "running":
                await self._close_own()
                try:
                    own.client, own.error = await self._connect(), None
                except (OSError, ImportError) as error:  # TimeoutError among them; ImportError is for other versions
                    own.error, own.failed = error, time.monotonic()
                    raise self._lost(error) from error
            client = own.client
        return await self._run(client, function, split)

    async def _connect(self) -> Client:
        client = Client(
            self.address, asynchronous=True, timeout=self.timeout, security=self.security, set_as_default=False
        )
        _open.append(client)
        try:
            async with asyncio.timeout(self.timeout):
                return await client
        except BaseException:
            await _close(client)
            raise

    async def _close_own(self) -> None:
        own = self._own.get()
        client, own.client = own.client, None
        if client is not None:
            await _close(client)

    async def _run(
        self, client: Client, function: Callable[[Any], Any], split: Callable[[int], Sequence[Any]]
    ) -> list[Any]:
        threads = await self._threads(client)
        # pure=False: equal shards are computed anew, and sampled anew. A worker's death is the scheduler's to mend.
        futures = [client.submit(function, part, pure=False) for part in split(threads)]
        gathering = asyncio.ensure_future(client.gather(futures, asynchronous=True))
        try:
            await self._watch(client, gathering)
            return await gathering
        except BackendError:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._lost("the call was cancelled") from None  # with another one's, whose results it waited for
        except Exception as error:
            raise BackendError(
                f"the Dask cluster at {self.address} did not finish: {_named(error)}", backend="dask"
            ) from error
        finally:
            gathering.cancel()
            for future in futures:
                future.release()  # what has not begun is not computed any more

    async def _threads(self, client: Client) -> int:
        """How many there are; waits for the first worker."""
        deadline = time.monotonic() + self.timeout
        while not (threads := await self._ask(client, deadline)):
            if time.monotonic() > deadline:
                raise self._lost("it has no workers")
            await asyncio.sleep(min(0.1, self.timeout / 4))
        return threads

    async def _watch(self, client: Client, work: asyncio.Future[Any]) -> None:
        """Return when `work` is done; raise where nobody has been there to do it for too long."""
        seen = time.monotonic()
        while True:
            await asyncio.wait([work], timeout=min(1.0, self.timeout / 4))
            if work.done():
                return
            if await self._ask(client, seen + self.timeout):
                seen = time.monotonic()
            elif time.monotonic() > seen + self.timeout:
                raise self._lost("all of its workers are gone")

    async def _ask(self, client: Client, deadline: float) -> int:
        """The number of worker threads that the scheduler knows.

        Raises:
            BackendError: it does not answer before the deadline.
        """
        scheduler = client.scheduler
        if scheduler is None or client.status in ("closing", "closed"):
            raise self._lost("the connection was lost")
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.01)):
                return sum((await scheduler.ncores()).values())
        except OSError as error:  # TimeoutError among them
            raise self._lost(error) from error

    def _lost(self, why: str | BaseException) -> BackendError:
        return BackendError(
            f"no Dask scheduler with workers at {self.address} within {self.timeout:g} s: {_named(why)}. "
            "Is the cluster up? timeout= allows more.",
            backend="dask",
        )


def _named(why: str | BaseException) -> str:
    return why if isinstance(why, str) else f"{type(why).__name__}: {why}".removesuffix(": ")


class _Own:
    """The client of one event loop, and why there is none."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.client: Client | None = None
        self.error: Exception | None = None
        self.failed = 0.0


async def _close(client: Client) -> None:
    with contextlib.suppress(OSError):
        await client.close()
    _open.remove(client)
