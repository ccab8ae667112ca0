"""The contract of job-type backends: submit, wait, fetch.

An executable of such a backend has three coroutines instead of `forward`:

    async def submit(self, theta, inputs) -> str      # an id that the service knows
    async def result(self, job) -> outputs            # (B, O); or (outputs, standard errors)
    async def cancel(self, job) -> None               # of no use any more; may be called for a finished job

One that was compiled with shots has `submit(theta, inputs, *, seed)`, as `forward` has elsewhere.

The circuit cache hands it out as an ordinary executable with `forward` (see `job_runner`), which runs its jobs as a
`JobPolicy` says: the backend's attribute `jobs`, changed by `with_jobs`.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.measurements.measurement import Measurement
from ...errors import SpecError, TransientError, nearest
from ..contract import Backend

__all__ = [
    "JobExecutable",
    "JobPolicy",
    "LoopLocal",
    "is_transient",
    "policy_of",
    "with_jobs",
]

T = TypeVar("T")


@runtime_checkable
class JobExecutable(Protocol):
    """A compiled circuit at a service that takes jobs. All three run on qstore's event loop and must not block it."""

    async def submit(self, theta: np.ndarray, inputs: np.ndarray) -> str:
        """Hand in `theta` (W,), `inputs` (B, I), with shots also `seed=`; return the job's id."""
        ...

    async def result(self, job: str) -> Any:
        """Wait for a job and fetch its outputs (B, O), or `(outputs, standard errors)`.

        Raises:
            TransientError: ask again, for the same job; `retry_after` says when.
            JobLostError: the service does not know the job any more; it will be submitted again.
        """
        ...

    async def cancel(self, job: str) -> None:
        """Give a job up; it may have finished meanwhile."""
        ...


@dataclass(frozen=True)
class JobPolicy:
    """How jobs are run.

    Attributes:
        max_batch: Rows per job; None for all in one.
        max_jobs: Jobs in flight at once, over all layers and threads of this process that use the backend.
        rate: Submissions per second, likewise; None for no limit.
        job_timeout: Seconds from submitting a job to its outputs; then it is cancelled and counts as failed.
        deadline: Seconds for a whole call; None for no limit. Cancelling what is left takes up to `grace` more.
        retries: How often one job may fail in ways that may pass.
        backoff: Seconds; retry k waits a random time up to `backoff · 2**(k-1)`, on top of what the service asks for.
        max_backoff: Bound of that, in seconds.
        grace: Seconds for cancelling what is left at the end of a call.
        unique: Compute equal rows of a batch once (exact values only: samples are never shared).
        resume: Folder with the ids of jobs in flight. After a crash, and after an outage that outlasted retries or the
            deadline, whoever asks for the same values fetches these jobs instead of submitting again. None: not kept.
    """

    max_batch: int | None = None
    max_jobs: int = 8
    rate: float | None = None
    job_timeout: float | None = 600.0
    deadline: float | None = None
    retries: int = 5
    backoff: float = 0.5
    max_backoff: float = 30.0
    grace: float = 2.0
    unique: bool = True
    resume: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_batch", 1), ("max_jobs", 1), ("retries", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not (whole and value >= least) and not (value is None and name == "max_batch"):
                raise SpecError(f"{name} is a whole number of at least {least}, received {value!r}.", argument=name)
        for name in ("rate", "job_timeout", "deadline", "backoff", "max_backoff", "grace"):
            value = getattr(self, name)
            optional, positive = (
                name in ("rate", "job_timeout", "deadline"),
                name not in ("backoff", "max_backoff", "grace"),
            )
            good = (
                isinstance(value, int | float) and math.isfinite(value) and (value > 0 or (value == 0 and not positive))
            )
            if not good and not (value is None and optional):
                unit = "jobs per second" if name == "rate" else "seconds"
                raise SpecError(
                    f"{name} is a number of {unit}{' greater than 0' if positive else ''}"
                    f"{', or None for no limit' if optional else ''}; received {value!r}.",
                    argument=name,
                )


class LoopLocal(Generic[T]):
    """One object per event loop: for sessions, connections and locks, which belong to the loop that they were made on.

    A forked child has a loop of its own, and so has a runner that was closed and started again.

    Args:
        make: Called on the loop, without arguments.

    Example:
        >>> lock = LoopLocal(asyncio.Lock)
        >>> async def same():
        ...     return lock.get() is lock.get()
        >>> asyncio.run(same())
        True
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        # No lock: each loop touches its own entry only, and a fork could leave one locked.
        self._made: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, T] = weakref.WeakKeyDictionary()

    def get(self) -> T:
        """The running loop's own object."""
        loop = asyncio.get_running_loop()
        made = self._made.get(loop)
        if made is None:
            made = self._made[loop] = self._make()
        return made


def is_transient(error: BaseException) -> bool:
    """Whether a failure may pass: a TransientError, a lost connection, a time-out, or one with `transient = True`."""
    return (
        isinstance(error, TransientError | ConnectionError | TimeoutError) or getattr(error, "transient", False) is True
    )


def policy_of(backend: Backend) -> JobPolicy:
    """The policy of a backend: its attribute `jobs`, or the defaults."""
    policy: JobPolicy = getattr(backend, "jobs", None) or JobPolicy()
    return policy


def with_jobs(backend: Backend, **changes: Any) -> Backend:
    """The same backend with another `JobPolicy`; its limits are its own.

    Args:
        backend: A job-type backend.
        **changes: Fields of `JobPolicy`.

    Example:
        A layer that waits a minute at most, and that can be resumed:

            backend = with_jobs(get_backend("mine"), max_jobs=4, deadline=60, resume="runs/jobs")
            layer = QuantumReadout(4, encoding="angle", backend=backend)
    """
    known = [field.name for field in fields(JobPolicy)]
    for name in changes:
        if name not in known:
            raise SpecError(
                f"JobPolicy has no field {name!r}. Fields: {', '.join(known)}.{nearest(name, known)}", argument=name
            )
    return _Configured(backend, replace(policy_of(backend), **changes))


class _Configured:
    """A backend with a policy of the user's."""

    def __init__(self, backend: Backend, policy: JobPolicy) -> None:
        self.name, self.capabilities = backend.name, backend.capabilities
        self.jobs = policy
        self._backend = backend

    def compile(
        self,
        circuit: Circuit,
        measurement: Measurement,
        *,
        dtype: str = "float32",
        shots: int | None = None,
    ) -> Any:
        executable = self._backend.compile(circuit, measurement, dtype=dtype, shots=shots)
        if not isinstance(executable, JobExecutable):
            raise SpecError(
                f"backend {self.name!r} runs no jobs: its circuits have no submit, result and cancel. "
                "Use it without with_jobs."
            )
        return executable
