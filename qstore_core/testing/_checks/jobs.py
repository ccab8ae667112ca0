"""Checks of job-type executables: ids, order, cancelling, lost jobs, outages, and what they do to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import numpy as np

from ...backends import runner
from ...backends.jobs.policy import JobExecutable, is_transient
from ...circuit.circuit import Circuit
from ...circuit.measurements.measurement import Expectation
from ...errors import JobLostError
from .. import reference
from ..compare import ConformanceError, same, shaped
from ..points import generic, random_circuit, random_point
from ..subject import NotDeclared, Subject, arrays, check
from .wire import answers, blocking_calls

__all__: list[str] = []

_NO_JOBS = "executables have forward, not submit, result and cancel"
_PATIENCE = 10.0  # seconds for what should take none
_LONGER = 60.0
_TRIES = 60
_ZX = Expectation(("Z", "X"))

_Point = tuple[np.ndarray, np.ndarray]


class _Jobs:
    """A job-type executable; what may pass is tried again, as the core does."""

    def __init__(self, subject: Subject, circuit: Circuit) -> None:
        self.subject, self.circuit = subject, circuit
        raw = subject.backend.compile(circuit, _ZX, dtype="float64", shots=subject.shots)
        if not isinstance(raw, JobExecutable):
            raise NotDeclared(_NO_JOBS)
        self.raw, self._seed = raw, 0

    async def submit_once(self, point: _Point) -> Any:
        """The id of a new job, or what the client makes of the service's answer."""
        self._seed += 1
        options: dict[str, Any] = {} if self.subject.shots is None else {"seed": self._seed}
        return await self.raw.submit(*point, **options)

    async def submit(self, point: _Point) -> Any:
        """The id of a new job."""
        return await _again(lambda: self.submit_once(point))

    async def result(self, job: Any) -> np.ndarray:
        """A job's outputs."""
        answer = await _again(lambda: self.raw.result(job))
        return np.asarray(answer[0] if isinstance(answer, tuple) else answer)

    async def compute(self, point: _Point) -> np.ndarray:
        """Outputs, whatever gets lost on the way."""
        for _ in range(_TRIES):
            try:
                return await self.result(await self.submit(point))
            except JobLostError:
                await asyncio.sleep(0.02)
        raise ConformanceError(f"a job was lost {_TRIES} times.")

    def compare(self, outputs: np.ndarray, point: _Point, what: str) -> None:
        """Outputs against the reference."""
        want = reference.outputs(self.circuit, _ZX, *point)
        tolerance = self.subject.tolerance(self.circuit, _ZX, *point, shots=self.subject.shots)
        same(shaped(outputs, len(want), want.shape[1], "result"), want, tolerance, what)


async def _again(call: Callable[[], Awaitable[Any]]) -> Any:
    for left in range(_TRIES, -1, -1):
        try:
            return await call()
        except Exception as error:
            if isinstance(error, JobLostError) or not is_transient(error) or not left:
                raise
            asked = getattr(error, "retry_after", None)
            await asyncio.sleep(min(asked if isinstance(asked, int | float) else 0.0, 0.5) + 0.02)
    raise AssertionError


def _run(work: Callable[[], Coroutine[Any, Any, Any]], what: str, seconds: float = _LONGER) -> Any:
    """On qstore's loop, within a time."""

    async def bounded() -> Any:
        return await asyncio.wait_for(work(), seconds)

    try:
        return runner.run_sync(bounded)
    except TimeoutError as error:
        raise ConformanceError(f"{what} did not end within {seconds:g} s.") from error


def _small(subject: Subject) -> tuple[_Jobs, list[_Point]]:
    circuit = generic(2)
    return _Jobs(subject, circuit), [arrays(*random_point(circuit, 2, seed)) for seed in range(64)]


@check("jobs: ids", "J1")
def _ids(subject: Subject) -> None:
    """The id of a job is a str, and no other job has it; equal arguments make two jobs."""
    jobs, points = _small(subject)

    async def run() -> list[Any]:
        ids = [await jobs.submit(points[k]) for k in (0, 0, 1)]
        for job in ids:
            await jobs.result(job)
        return ids

    ids = _run(run, "three jobs")
    for job in ids:
        if not isinstance(job, str) or not job:
            raise ConformanceError(f"submit returned {job!r}, a {type(job).__name__}; the id of a job is a str.")
    if len(set(ids)) != len(ids):
        raise ConformanceError(f"three jobs got the ids {ids}: each needs its own.")


@check("jobs: order", "J2")
def _order(subject: Subject) -> None:
    """Jobs in flight together are fetched in any order, one after the other and at once, each with its outputs."""
    jobs, points = _small(subject)

    async def run() -> list[np.ndarray]:
        ids = [await jobs.submit(point) for point in points[:8]]
        last = [await jobs.result(job) for job in reversed(ids[4:])]
        return [*await asyncio.gather(*map(jobs.result, ids[:4])), *reversed(last)]

    for number, (outputs, point) in enumerate(zip(_run(run, "8 jobs"), points, strict=False)):
        jobs.compare(outputs, point, f"job {number + 1} of 8, fetched in another order")


@check("jobs: cancel", "J3")
def _cancel(subject: Subject) -> None:
    """A job is cancelled while it runs and after it finished; waiting for it can be given up."""
    jobs, points = _small(subject)
    circuit = random_circuit(min(8, subject.sizes(8)[0]), 60, np.random.default_rng(0))
    large = _Jobs(subject, circuit)

    async def finished() -> None:
        job = await jobs.submit(points[0])
        await jobs.result(job)
        try:
            await _again(lambda: jobs.raw.cancel(job))
        except Exception as error:
            raise ConformanceError(_other("cancel of a job that had finished", error, "nothing")) from error

    async def given_up() -> None:
        job = await jobs.submit(points[0])
        waiting = asyncio.ensure_future(jobs.result(job))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await _again(lambda: jobs.raw.cancel(job))

    async def whole(rows: int) -> float:
        """Seconds that a job's outputs are waited for."""
        job = await large.submit(arrays(*random_point(circuit, rows)))
        begin = time.monotonic()
        await large.result(job)
        return time.monotonic() - begin

    async def running(rows: int) -> float:
        """Seconds until a job that was cancelled while it ran gives its outputs, asked anew; 0 where it gives none."""
        job = await large.submit(arrays(*random_point(circuit, rows)))
        waiting = asyncio.ensure_future(large.result(job))
        await asyncio.sleep(0.005)
        await _again(lambda: large.raw.cancel(job))
        begin = time.monotonic()
        asked = asyncio.ensure_future(large.result(job))
        await asyncio.wait([waiting, asked], timeout=_PATIENCE)
        both = (waiting, asked)
        gave = all(task.done() and not task.cancelled() and task.exception() is None for task in both)
        for task in (waiting, asked):  # where the service does not say, the core gives up waiting
            task.cancel()
        await asyncio.wait([waiting, asked], timeout=_PATIENCE)
        return time.monotonic() - begin if gave else 0.0

    _run(finished, "cancelling a job that had finished")
    _run(given_up, "giving up to wait for a job, and cancelling it", _PATIENCE)
    rows, seconds = 32, 0.0
    while seconds < 0.25 and rows < 4096:
        rows *= 2
        seconds = _run(partial(whole, rows), f"a job of {rows} rows")
    if seconds < 0.05:
        raise NotDeclared("jobs are too quick to be cancelled while they run")
    seconds = min(seconds, _run(partial(whole, rows), f"a job of {rows} rows"))
    late = [_run(partial(running, rows), "a job that was cancelled while it ran") for _ in range(3)]
    if sum(wait > 0.3 * seconds for wait in late) >= 2:  # outputs that were on their way by then come sooner
        raise ConformanceError(
            f"cancel does nothing: a job of {seconds:.2g} s that was cancelled at its beginning gave its outputs "
            f"{max(late):.2g} s after that."
        )


def _unknown(job: Any) -> str:
    """An id that looks like one of the service's, and is none."""
    job = str(job)
    letters, figures = "abcdefghijklmnopqrstuvwxyz", "0123456789"
    other = {
        a: b for text in (letters, letters.upper(), figures) for a, b in zip(text, text[5:] + text[:5], strict=True)
    }
    hexadecimal = dict(zip("0123456789abcdef", "fedcba9876543210", strict=True))
    table = hexadecimal if set(job) <= set("0123456789abcdef-") and len(job) > 16 else other
    return "".join(table.get(letter, letter) for letter in job)


@check("jobs: lost", "J4")
def _lost(subject: Subject) -> None:
    """The result of a job that the service does not know, and of one that it answers with 404, is a JobLostError."""
    jobs, points = _small(subject)

    async def ask() -> None:
        job = await jobs.submit(points[0])
        await jobs.result(job)
        await _raises(lambda: jobs.result(_unknown(job)), JobLostError, f"result of an unknown job {_unknown(job)!r}")
        job = await jobs.submit(points[0])
        with answers(404) as seen:
            try:
                await jobs.raw.result(job)
            except JobLostError:
                return
            except Exception as error:
                if seen.changed:
                    raise ConformanceError(_other("result, answered with HTTP 404", error, "JobLostError")) from error
                raise
        if seen.changed:
            raise ConformanceError("result, answered with HTTP 404: nothing was raised, expected JobLostError.")

    _run(ask, "asking for a job that the service does not know")


async def _raises(call: Callable[[], Awaitable[Any]], kind: type[Exception], what: str) -> None:
    try:
        await call()
    except kind:
        return
    except Exception as error:
        raise ConformanceError(_other(what, error, kind.__name__)) from error
    raise ConformanceError(f"{what}: nothing was raised, expected {kind.__name__}.")


def _other(what: str, error: Exception, expected: str) -> str:
    return f"{what}: raised {type(error).__name__}: {error}; expected {expected}."


@check("jobs: loop", "J5")
def _loop(subject: Subject) -> None:
    """While jobs are submitted, fetched and cancelled, the loop is free for others."""
    jobs, points = _small(subject)
    circuit = random_circuit(min(8, subject.sizes(8)[0]), 60, np.random.default_rng(0))
    large = _Jobs(subject, circuit)

    async def calls() -> list[str]:
        with blocking_calls() as seen:
            job = await jobs.submit(points[0])
            await jobs.result(job)
            job = await jobs.submit(points[1])
            with contextlib.suppress(Exception):  # whether it may be cancelled is another check's question
                await jobs.raw.cancel(job)
        return seen

    if seen := _run(calls, "a job"):
        raise ConformanceError(f"submit, result or cancel blocked the loop: {', '.join(dict.fromkeys(seen))}.")

    async def held(rows: int) -> tuple[float, float]:
        """Seconds that a job took, and for how long nothing else ran on the loop."""
        point, gaps, stop = arrays(*random_point(circuit, rows)), [0.0], False

        async def tick() -> None:
            last = time.monotonic()
            while not stop:
                await asyncio.sleep(0.001)
                last, before = time.monotonic(), last
                gaps.append(last - before)

        ticking = asyncio.ensure_future(tick())
        await asyncio.sleep(0.005)
        begin = time.monotonic()
        await large.compute(point)
        seconds = time.monotonic() - begin
        await asyncio.sleep(0.002)
        stop = True
        await ticking
        return seconds, max(gaps)

    rows, seconds, longest = 16, 0.0, 0.0
    while seconds < 0.2 and rows < 4096:
        rows *= 2
        seconds, longest = _run(partial(held, rows), f"a job of {rows} rows")
    attempts = [(seconds, longest)]
    while attempts[-1][1] > max(0.03, 0.4 * attempts[-1][0]) and len(attempts) < 4:
        attempts.append(_run(partial(held, rows), f"a job of {rows} rows"))
    if len(attempts) == 4:
        raise ConformanceError(
            f"submit or result blocked the loop: in a job of {attempts[-1][0]:.2g} s nothing else ran for "
            f"{attempts[-1][1]:.2g} s. What computes or waits goes through `await to_thread(...)`."
        )


@check("jobs: loops", "J6")
def _loops(subject: Subject) -> None:
    """One executable on qstore's loop, on another one, on both at once, and on the first again, 8 jobs each."""
    jobs, points = _small(subject)

    async def run() -> list[np.ndarray]:
        return list(await asyncio.gather(*map(jobs.compute, points[:8])))

    async def bounded() -> list[np.ndarray]:
        return await asyncio.wait_for(run(), _LONGER)

    found: list[Any] = []

    def elsewhere() -> None:
        try:
            found.append(asyncio.run(bounded()))
        except BaseException as error:  # noqa: BLE001 - it is raised where the check runs
            found.append(error)

    for turn in ("on one loop", "on another loop", "on both loops at once", "on the first loop again"):
        found.clear()
        other = threading.Thread(target=elsewhere)
        if "another" in turn or "both" in turn:
            other.start()
        try:
            if "another" not in turn:
                found.append(_run(run, f"8 jobs {turn}"))
        except Exception as error:
            raise ConformanceError(f"8 jobs {turn}: raised {type(error).__name__}: {error}") from error
        finally:
            if other.ident is not None:
                other.join()
        for values in found:
            if isinstance(values, BaseException):
                raise ConformanceError(
                    f"8 jobs {turn}: raised {type(values).__name__}: {values}. What belongs to a loop is held in a "
                    "LoopLocal."
                ) from values
            for outputs, point in zip(values, points, strict=False):
                jobs.compare(outputs, point, f"a job {turn}")


@check("jobs: outages", "J7")
def _outages(subject: Subject) -> None:
    """64 jobs at once; answers of 429, 5xx and cut connections may pass, and 400 does not."""
    jobs, points = _small(subject)

    large = [arrays(*random_point(jobs.circuit, 24, seed)) for seed in range(64)]

    async def fetched(job: Any, point: _Point) -> np.ndarray:
        try:
            return await jobs.result(job)
        except JobLostError:
            return await jobs.compute(point)

    async def burst() -> list[np.ndarray]:
        ids = await asyncio.gather(*map(jobs.submit, large))
        return list(await asyncio.gather(*map(fetched, ids, large)))

    try:
        values = _run(burst, "64 jobs at once")
    except Exception as error:
        if isinstance(error, ConformanceError):
            raise
        raise ConformanceError(_other("64 jobs at once", error, "outputs, or a TransientError")) from error
    for outputs, point in zip(values, large, strict=True):
        jobs.compare(outputs, point, "a job of 64 at once")

    async def meet(status: int | None, method: str) -> bool:
        """Whether the client's request was answered so; what it makes of that is checked."""
        job = await jobs.submit(points[0]) if method == "result" else ""
        what = f"{method}, {'whose connection is cut' if status is None else f'answered with HTTP {status}'}"
        passes = status != 400
        with answers(status) as seen:
            try:
                await (jobs.submit_once(points[0]) if method == "submit" else jobs.raw.result(job))
            except Exception as error:
                if seen.changed and (passes != is_transient(error) or isinstance(error, JobLostError)):
                    expected = "a TransientError: it may pass" if passes else "an error that is final"
                    raise ConformanceError(_other(what, error, expected)) from error
                if not seen.changed:
                    raise
            else:
                if seen.changed:
                    raise ConformanceError(f"{what}: nothing was raised.")
        return seen.changed > 0

    met = [
        _run(partial(meet, status, method), f"{method} answered with {status}", 30.0)
        for method in ("submit", "result")
        for status in (429, 500, 502, 503, None, 400)
    ]
    if not any(met):
        raise NotDeclared("64 jobs at once went through; no answers over HTTP were seen that could be changed")
