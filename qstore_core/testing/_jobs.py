"""Checks of job-type executables: jobs in any order, cancelled before and after they finish."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ..backends import runner
from ..backends.jobs.policy import JobExecutable
from ..circuit.measurement import Expectation
from . import reference
from ._values import random_point, rotations
from .subject import SEED, ConformanceError, NotDeclared, Subject, arrays, check, same

_NO_JOBS = "executables have forward, not submit, result and cancel"
_PATIENCE = 5.0


def _executable(subject: Subject) -> JobExecutable:
    options = {"dtype": "float64", "shots": subject.shots}
    executable = subject.backend.compile(rotations(2), Expectation(), **options)  # type: ignore[arg-type]
    if not isinstance(executable, JobExecutable):
        raise NotDeclared(_NO_JOBS)
    return executable


@check("jobs: order")
def _jobs_order(subject: Subject) -> None:
    """Jobs in flight together are fetched in any order, each with its own outputs."""
    executable, circuit, measured = _executable(subject), rotations(2), Expectation()
    points = [arrays(*random_point(circuit, 2, seed), "float64") for seed in range(3)]

    seeds: dict[str, Any] = {} if subject.shots is None else {"seed": SEED}

    async def run() -> list:
        jobs = [await executable.submit(*point, **seeds) for point in points]
        if len(set(jobs)) != len(jobs):
            raise ConformanceError(f"three jobs got the ids {jobs}: each needs its own.")
        return [await executable.result(job) for job in reversed(jobs)]

    for number, (result, point) in enumerate(zip(runner.run_sync(run), reversed(points), strict=True)):
        outputs = result[0] if isinstance(result, tuple) else result
        want = reference.outputs(circuit, measured, *point)
        same(outputs, want, subject.tolerance(circuit, measured), f"job {3 - number} of 3, fetched in reverse order")


@check("jobs: cancel")
def _jobs_cancel(subject: Subject) -> None:
    """A job can be cancelled while it runs and after it finished, and waiting for it can be given up."""
    executable = _executable(subject)
    point = arrays(*random_point(rotations(2), 1), "float64")
    seeds: dict[str, Any] = {} if subject.shots is None else {"seed": SEED}

    async def run() -> float:
        finished = await executable.submit(*point, **seeds)
        await executable.result(finished)
        await executable.cancel(finished)
        job = await executable.submit(*point, **seeds)
        waiting = asyncio.ensure_future(executable.result(job))
        await asyncio.sleep(0)
        begin = time.monotonic()
        waiting.cancel()
        await asyncio.wait([waiting], timeout=_PATIENCE)
        await asyncio.wait_for(executable.cancel(job), _PATIENCE)
        return time.monotonic() - begin

    seconds = runner.run_sync(run)
    if seconds > _PATIENCE:
        raise ConformanceError(f"giving up a job took {seconds:.1f} s: result does not let itself be cancelled.")
