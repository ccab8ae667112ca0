"""Runs the jobs of job-type backends: what they all need, composed once over submit, result and cancel.

One call splits its batch into jobs of at most `max_batch` rows, keeps at most `max_jobs` of them in flight, retries
what may pass, bounds every wait, cancels all where one fails for good or the user interrupts, checks every result and
puts the rows back in order.

Retries are not left to a library: what there is to retry depends on the stage (a lost answer is fetched again, a lost
job is submitted again), and the wait on the service's Retry-After and on the time that is left. The formula itself is
one line, and job-type backends work with NumPy and pluggy alone.

Source:
    Exponential backoff with full jitter: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
import time
import weakref
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.measurements.measurement import Measurement
from ...errors import BackendError, DeadlineError, JobLostError, TransientError
from .. import runner
from ..contract import Backend, RunReport
from ..seeds import child_seed
from .policy import JobExecutable, JobPolicy, LoopLocal, is_transient, policy_of
from .store import JobStore, digest

__all__ = ["JobRunner", "as_executable"]

_Outputs = tuple[np.ndarray, "np.ndarray | None"]
_log = logging.getLogger("qstore.jobs")


def as_executable(
    executable: Any,
    backend: Backend,
    circuit: Circuit,
    measurement: Measurement,
    *,
    dtype: str,
    shots: int | None,
) -> Any:
    """What `backend` compiled, with `forward`; a local executable is returned unchanged."""
    if not isinstance(executable, JobExecutable):
        return executable
    what = b""
    if policy_of(backend).resume is not None:
        parts = [circuit.to_dict(), repr(measurement), backend.name, dtype, shots]
        what = json.dumps(parts).encode()
    return JobRunner(executable, backend, width=measurement.n_outputs(circuit.n_qubits), exact=shots is None, what=what)


class JobRunner:
    """A job-type executable as an ordinary one.

    Args:
        executable: Its three coroutines.
        backend: Its backend, with the policy; its executables share the limits.
        width: Outputs per row.
        exact: Whether outputs are exact, so that equal rows have equal outputs.
        what: Names the compiled circuit in the folder of jobs in flight.
    """

    def __init__(self, executable: JobExecutable, backend: Backend, *, width: int, exact: bool, what: bytes) -> None:
        """Start nothing yet."""
        self.executable, self.name, self.width, self.exact, self.what = executable, backend.name, width, exact, what
        self.policy = policy_of(backend)
        self.gate = _gate_of(backend)
        self.store = None if self.policy.resume is None else JobStore(self.policy.resume)

    def forward(self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None) -> np.ndarray:
        """`theta` (W,), `inputs` (B, I) → outputs (B, O); blocks the calling thread."""
        return self.value_and_report(theta, inputs, seed=seed)[0]

    def value_and_report(
        self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None
    ) -> tuple[np.ndarray, RunReport]:
        """The same, with what came of it. Each job samples from a seed of its own.

        Raises:
            DeadlineError: no outputs within the policy's deadline.
            BackendError: a job failed for good, more often than allowed, or with unusable outputs.
        """
        return runner.run_sync(_Call(self, theta, inputs, seed).run, timeout=self._backstop)

    @property
    def _backstop(self) -> float | None:
        """For a plugin that blocks the loop or does not let itself be cancelled."""
        policy = self.policy
        return None if policy.deadline is None else policy.deadline + 2 * policy.grace + 1.0


class _Gate:
    """What all calls on one backend share, on one loop: slots, and a clock for submissions."""

    def __init__(self, policy: JobPolicy) -> None:
        self.slots = asyncio.Semaphore(policy.max_jobs)
        self._interval = 1.0 / policy.rate if policy.rate else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Wait until the next submission is allowed."""
        now = time.monotonic()
        begin = max(now, self._next)
        self._next = begin + self._interval
        if begin > now:
            await asyncio.sleep(begin - now)

    def hold(self, seconds: float) -> None:
        """Let nobody submit for a while: the service asked for it."""
        self._next = max(self._next, time.monotonic() + seconds)


_gates: dict[
    int, tuple[LoopLocal[_Gate], Any]
] = {}  # by id of the backend, for as long as that lives; no lock, see fork


def _gate_of(backend: Backend) -> LoopLocal[_Gate]:
    key = id(backend)
    if key not in _gates:
        policy = policy_of(backend)
        held: Any
        try:
            held = weakref.ref(backend, lambda _: _gates.pop(key, None))
        except TypeError:  # no weak references: its id must never become another's
            held = backend
        _gates.setdefault(key, (LoopLocal(lambda: _Gate(policy)), held))
    return _gates[key][0]


@dataclass
class _Part:
    """Some rows, and the job that computes them."""

    number: int
    rows: np.ndarray
    key: str = ""
    job: str | None = None
    kept: str | None = None  # name in the store


class _Call:
    """One call of one executable."""

    def __init__(self, owner: JobRunner, theta: np.ndarray, inputs: np.ndarray, seed: int | None) -> None:
        self.owner, self.policy = owner, owner.policy
        self.theta, self.inputs, self.seed = theta, inputs, seed
        self.retries = self.resumed = 0
        self.submitting = 0.0  # seconds, over all jobs
        self.ends = math.inf
        self.open: dict[int, _Part] = {}  # parts with a job whose outputs have not come
        self.strays: set[asyncio.Task[str]] = set()  # submissions that nobody waits for any longer

    async def run(self) -> tuple[np.ndarray, RunReport]:
        """Outputs in the order of the rows, and what came of it."""
        self.gate = self.owner.gate.get()
        rows, inverse = self._distinct()
        size = self.policy.max_batch or max(1, len(rows))
        parts = [_Part(k, np.ascontiguousarray(rows[i : i + size])) for k, i in enumerate(range(0, len(rows), size))]
        try:
            computed = await self._all(parts)
        except BaseException as error:
            outage = isinstance(error, DeadlineError) or is_transient(getattr(error, "cause", None) or error)
            await self._leave(keep=outage and self.owner.store is not None)
            raise
        await self._leave(keep=False)  # nothing, but for submissions that took too long
        outputs = np.concatenate([values for values, _ in computed])
        errors = [error for _, error in computed if error is not None]
        std_error = np.concatenate(errors) if len(errors) == len(computed) else None
        if inverse is not None:
            outputs = outputs[inverse]
            std_error = None if std_error is None else std_error[inverse]
        jobs = tuple(str(part.job) for part in parts)
        return outputs, RunReport(jobs, self.retries, self.resumed, std_error, {"submit": self.submitting})

    def _distinct(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows that differ, in order of appearance, and where each one goes."""
        rows = np.ascontiguousarray(self.inputs)
        if not (self.policy.unique and self.owner.exact and len(rows) > 1):
            return rows, None
        seen: dict[bytes, int] = {}
        first: list[int] = []
        inverse = np.empty(len(rows), np.intp)
        for place, row in enumerate(rows):
            inverse[place] = seen.setdefault(row.tobytes(), len(first))
            if inverse[place] == len(first):
                first.append(place)
        return (rows, None) if len(first) == len(rows) else (rows[first], inverse)

    async def _all(self, parts: list[_Part]) -> list[_Outputs]:
        """Every part's outputs; where one fails, the others are cancelled."""
        if self.policy.deadline is not None:
            self.ends = time.monotonic() + self.policy.deadline
        scope = asyncio.timeout(self.policy.deadline)
        try:
            async with scope, asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._compute(part)) for part in parts]
        except TimeoutError:
            raise self._late() from None
        except BaseExceptionGroup as errors:
            first: BaseException = errors
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from first.__cause__
        return [task.result() for task in tasks]

    async def _compute(self, part: _Part) -> _Outputs:
        """One part's outputs, however often it takes."""
        async with self.gate.slots:
            self._resume(part)
            failures = 0
            while True:
                try:
                    return await self._attempt(part)
                except Exception as error:
                    if not is_transient(error):
                        raise
                    failures += 1
                    await self._before_retry(part, error, failures)

    async def _attempt(self, part: _Part) -> _Outputs:
        if part.job is None:
            await self.gate.turn()
        scope = asyncio.timeout(self.policy.job_timeout)
        try:
            async with scope:
                if part.job is None:
                    await self._submit(part)
                assert part.job is not None
                result = await self.owner.executable.result(part.job)
            outputs = self._usable(result, len(part.rows))
        except JobLostError:
            self._forget(part)
            part.job = None
            raise
        except _BadResultError:
            await self._abandon(part)
            raise
        except TimeoutError as error:
            if not scope.expired():
                raise
            job = part.job
            await self._abandon(part)
            raise TransientError(f"job {job} had no result within {self.policy.job_timeout:g} s") from error
        self._forget(part)
        return outputs

    async def _submit(self, part: _Part) -> None:
        """Submit; where we are cancelled meanwhile, the id must still become known, for the job to be cancelled."""
        begin = time.perf_counter()
        seeds = {} if self.seed is None else {"seed": child_seed(self.seed, part.number)}
        task = asyncio.ensure_future(self.owner.executable.submit(self.theta, part.rows, **seeds))
        try:
            part.job = await asyncio.shield(task)
        except asyncio.CancelledError:
            self.strays.add(task)
            raise
        finally:
            self.submitting += time.perf_counter() - begin
        self.open[part.number] = part
        if self.owner.store is not None:
            part.kept = self.owner.store.keep(part.key, str(part.job))

    def _resume(self, part: _Part) -> None:
        store = self.owner.store
        if store is not None:
            part.key = digest(self.owner.what, self.theta.tobytes(), part.rows.tobytes())
            found = store.claim(part.key)
            if found is not None:
                part.job, part.kept = found
                self.open[part.number] = part
                self.resumed += 1

    async def _before_retry(self, part: _Part, error: Exception, failures: int) -> None:
        """Wait; or raise, where waiting is of no use."""
        name, policy = self.owner.name, self.policy
        said = f"{type(error).__name__}: {error}".removesuffix(".")
        if failures > policy.retries:
            raise BackendError(
                f"backend {name!r}: job {part.number + 1} failed {failures} times, at last with {said}. "
                f"It may pass later; more is allowed with retries={2 * policy.retries + 1}.{self._kept_note()}",
                backend=name,
                cause=error,
            ) from error
        most = min(policy.max_backoff, policy.backoff * 2 ** (failures - 1))
        asked = _seconds(getattr(error, "retry_after", None), policy.job_timeout)
        delay = asked + random.uniform(0.0, most)
        if time.monotonic() + delay >= self.ends:
            raise self._late() from error
        self.gate.hold(asked)
        self.retries += 1
        _log.info("backend %r: job %d: %s; again in %.2f s", name, part.number + 1, said, delay)
        await asyncio.sleep(delay)

    def _usable(self, result: Any, rows: int) -> _Outputs:
        outputs, error = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        checked = self._array(outputs, "outputs", rows)
        return checked, None if error is None else self._array(error, "standard errors", rows, unknown=True)

    def _array(self, values: Any, what: str, rows: int, *, unknown: bool = False) -> np.ndarray:
        try:
            array = np.asarray(values)
        except ValueError as problem:  # rows of different lengths
            raise _BadResultError(f"a job returned {what} that are no array: {problem}") from problem
        if array.dtype.kind not in "fiu":
            raise _BadResultError(f"a job returned {what} of dtype {array.dtype}, expected real numbers")
        if array.shape != (rows, self.owner.width):
            raise _BadResultError(f"a job returned {what} of shape {array.shape}, expected {(rows, self.owner.width)}")
        if not (unknown or np.isfinite(array).all()):  # a standard error of one shot is unknown: NaN
            raise _BadResultError(f"a job returned {what} that are not finite")
        return array.astype(self.inputs.dtype, copy=False)

    def _late(self) -> DeadlineError:
        seconds = self.policy.deadline
        return DeadlineError(
            f"backend {self.owner.name!r} gave no result within {seconds:g} s. Allow more with deadline=, or None for "
            f"no limit.{self._kept_note()}",
            seconds=seconds,
        )

    def _kept_note(self) -> str:
        jobs = [part.job for part in self.open.values()]
        if self.owner.store is None or not jobs:
            return ""
        return f" {len(jobs)} jobs in flight are kept in {self.policy.resume!r}: ask for the same values to fetch them."

    def _forget(self, part: _Part) -> None:
        self.open.pop(part.number, None)
        if part.kept is not None and self.owner.store is not None:
            self.owner.store.drop(part.kept)
            part.kept = None

    async def _abandon(self, part: _Part) -> None:
        """Give up a job whose outputs do not come or are of no use."""
        job, part.job = part.job, None
        self._forget(part)
        if job is not None:
            await self._within_grace([self.owner.executable.cancel(job)])

    async def _leave(self, *, keep: bool) -> None:
        """Cancel what is still open, or keep it for whoever asks again."""
        calls: list[Awaitable[None]] = []
        for part in list(self.open.values()):
            if keep and part.kept is not None and self.owner.store is not None:
                self.owner.store.release(part.kept)
                continue
            self._forget(part)
            if part.job is not None:
                calls.append(self.owner.executable.cancel(part.job))
        await self._within_grace([*calls, *map(self._cancel_stray, self.strays)])

    async def _cancel_stray(self, task: asyncio.Task[str]) -> None:
        await self.owner.executable.cancel(await task)

    async def _within_grace(self, calls: list[Awaitable[None]]) -> None:
        tasks = [asyncio.ensure_future(call) for call in calls]
        if not tasks:
            return
        for task in tasks:  # whether or not we are still here when it ends
            task.add_done_callback(self._after_cancelling)
        _, late = await asyncio.wait(tasks, timeout=self.policy.grace)
        for task in late:
            task.cancel()

    def _after_cancelling(self, task: asyncio.Future[None]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            if task.exception() is not None:
                _log.info("backend %r: a job could not be cancelled: %r", self.owner.name, task.exception())


def _seconds(asked: Any, most: float | None) -> float:
    """How long a service wants us to wait: what it said, where that makes sense."""
    try:
        seconds = float(asked)
    except (TypeError, ValueError):
        return 0.0
    return min(seconds, most or math.inf) if 0.0 <= seconds < math.inf else 0.0


class _BadResultError(TransientError):
    """Outputs of the wrong shape or kind: perhaps not the next time."""
