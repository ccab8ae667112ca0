"""A job-type backend with a service in this process, and faults of such backends."""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from qstore_core import BackendError, Capabilities, JobLostError, JobPolicy, TransientError
from qstore_core.backends.jobs.policy import LoopLocal
from qstore_core.backends.runner import to_thread
from tests.support.job_service import HttpBackend, LocalService, request

from .backend import QulacsBackend, QulacsExecutable
from .faults import fault

KIND = "jobs"


class RefusedError(Exception):
    """An answer of the service that is no success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Service:
    """Computes jobs one after the other; at most 16 may be open, as at a service with a quota.

    Jobs wait until one is asked for or the quota is met, so that a burst meets it however fast jobs are computed.
    """

    def __init__(self) -> None:
        self.pool, self.lock, self.begin = ThreadPoolExecutor(1), threading.Lock(), threading.Event()
        self.jobs: dict[str, Future] = {}
        self.numbers = itertools.count()

    def post(self, compute, *arguments) -> str:
        with self.lock:
            n_open = sum(not job.done() for job in self.jobs.values())
            if n_open >= 16:
                self.begin.set()
                raise RefusedError(429)
            if not n_open:
                self.begin.clear()
            job = f"job-{next(self.numbers):08d}"
            self.jobs[job] = self.pool.submit(self.computed, compute, *arguments)
            return job

    def computed(self, compute, *arguments):
        self.begin.wait(2.0)  # of a job that nobody asks for
        return compute(*arguments)

    def get(self, job):
        self.begin.set()
        with self.lock:
            if job not in self.jobs:
                raise RefusedError(404)
            future = self.jobs[job]
        return future.result(0.002) if future.done() else None

    def delete(self, job) -> None:
        with self.lock:
            self.jobs.pop(job, Future()).cancel()


class JobBackend:
    """qulacs at a service. Each step that can be wrong is a method."""

    name = "qulacs_jobs"
    capabilities = Capabilities(exact=True, shots=True, remote=True, max_qubits=16)
    jobs = JobPolicy(backoff=0.002, max_backoff=0.02)

    def __init__(self) -> None:
        self.service = Service()
        self.slots = LoopLocal(lambda: asyncio.Semaphore(4))  # the client's connections, which belong to a loop
        self.executable = JobExecutable

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        QulacsBackend.check(self, circuit)
        return self.executable(self, QulacsExecutable(circuit, measurement, dtype, shots))


class JobExecutable:
    """One circuit at the service."""

    def __init__(self, backend, local) -> None:
        self.backend, self.local, self.service = backend, local, backend.service

    def connection(self):
        return self.backend.slots.get()

    def error(self, refused):
        """What the service's refusal means."""
        return JobLostError(str(refused)) if refused.status == 404 else TransientError(str(refused))

    async def ask(self, call, *arguments):
        async with self.connection():
            await asyncio.sleep(0)
            try:
                return await to_thread(call, *arguments)
            except RefusedError as refused:
                raise self.error(refused) from refused

    def compute(self, theta, inputs, seed):
        outputs, report = self.local.value_and_report(theta, inputs, seed=seed)
        return outputs if seed is None else (outputs, report.std_error)

    async def submit(self, theta, inputs, *, seed=None):
        return await self.ask(self.service.post, self.compute, theta.copy(), inputs.copy(), seed)

    async def result(self, job):
        while True:
            outputs = await self.ask(self.service.get, job)
            if outputs is not None:
                return outputs
            await asyncio.sleep(0.002)

    async def cancel(self, job):
        await self.ask(self.service.delete, job)


def faulty(name, refused_by, *, only=False, slots=None, **methods):
    def make():
        backend = JobBackend()
        backend.executable = type("FaultyJobs", (JobExecutable,), methods)
        if slots is not None:
            backend.slots = slots()
        return backend

    fault(KIND, name, refused_by, make, only=only)


class OneForAll:
    """What should be one per loop, made once."""

    def __init__(self) -> None:
        self.made = asyncio.Semaphore(1)

    def get(self):
        return self.made


async def nothing(self, job):
    return None


async def submit_computing(self, theta, inputs, *, seed=None):
    outputs = self.compute(theta, inputs, seed)
    return self.service.post(lambda: outputs)


async def submit_sleeping(self, theta, inputs, *, seed=None):
    time.sleep(0.001)  # noqa: ASYNC251 - that is the fault
    return await JobExecutable.submit(self, theta, inputs, seed=seed)


async def result_waiting(self, job):
    while (outputs := self.service.get(job)) is None:
        pass
    return outputs


async def cancel_refuses_finished(self, job):
    if self.service.get(job) is not None:
        raise BackendError(f"{job} has finished")
    await JobExecutable.cancel(self, job)


def job_ids(change, back):
    """Ids of another kind than the service's."""

    async def submit(self, theta, inputs, *, seed=None):
        return change(await JobExecutable.submit(self, theta, inputs, seed=seed))

    async def result(self, job):
        return await JobExecutable.result(self, back(job))

    async def cancel(self, job):
        await JobExecutable.cancel(self, back(job))

    return {"submit": submit, "result": result, "cancel": cancel}


async def newest(self, job):
    """The result of the job that was submitted last."""
    return await JobExecutable.result(self, list(self.service.jobs)[-1])


def number_of(text):
    return int(text.removeprefix("job-"))


def status_is(change):
    return {"error": lambda self, refused: change(refused.status) or JobExecutable.error(self, refused)}


def once_per_point(self, theta, inputs, *, seed=None):
    key = hash((theta.tobytes(), inputs.tobytes()))
    known = self.__dict__.setdefault("known", {})

    async def submit():
        if key not in known:
            known[key] = await JobExecutable.submit(self, theta, inputs, seed=seed)
        return known[key]

    return submit()


faulty("429 is final", "jobs: outages", **status_is(lambda s: BackendError("busy") if s == 429 else None))
faulty("404 is a KeyError", "jobs: lost", only=True, **status_is(lambda s: KeyError("job") if s == 404 else None))
faulty("404 may pass", "jobs: lost", **status_is(lambda s: TransientError("job") if s == 404 else None))
faulty("cancel does nothing", "jobs: cancel", only=True, cancel=nothing)
faulty("cancelling a finished job is an error", "jobs: cancel", only=True, cancel=cancel_refuses_finished)
faulty("submit computes on the loop", "jobs: loop", submit=submit_computing)
faulty("submit sleeps on the loop", "jobs: loop", only=True, submit=submit_sleeping)
faulty("result waits on the loop", "jobs: loop", result=result_waiting)
faulty("a client shared by loops", "jobs: loops", only=True, slots=OneForAll)
faulty(
    "ids are numbers",
    "jobs: ids",
    only=True,
    **job_ids(number_of, lambda job: job if isinstance(job, str) else f"job-{job:08d}"),
)
faulty("ids are bytes", "jobs: ids", **job_ids(str.encode, lambda job: job if isinstance(job, str) else job.decode()))
faulty("one job for equal arguments", "jobs: ids", submit=once_per_point)
faulty("the newest job whichever is asked for", "jobs: order", result=newest)


async def transposed(self, job):
    answer = await JobExecutable.result(self, job)
    return answer if isinstance(answer, tuple) else np.asarray(answer)[::-1]


faulty("rows of a result reversed", "jobs: order", result=transposed)


async def forgetting(self, job):
    """Fetching a job forgets those before it."""
    answer = await JobExecutable.result(self, job)
    for older in [other for other in self.service.jobs if other < job]:
        self.service.delete(older)
    return answer


faulty("fetching a job forgets those before it", "jobs: order", only=True, result=forgetting)


# -- over HTTP


@functools.cache
def local_service():
    service = LocalService()
    atexit.register(service.close)
    return service


class OverHttp(HttpBackend):
    """The client of tests.support.job_service, with what its answers mean changed."""

    def __init__(self, meaning=None, ask=request) -> None:
        super().__init__(local_service().port)
        self.meaning, self.ask = meaning, ask

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        executable = super().compile(circuit, measurement, dtype=dtype, shots=shots)

        async def ask(method, path, **body):
            try:
                return await self.ask(self.port, method, path, {**executable.what, **body})
            except (BackendError, TransientError, JobLostError) as error:
                changed = self.meaning(error) if self.meaning else None
                if changed is None:
                    raise
                raise changed from error

        executable._ask = ask
        return executable


def http(name, refused_by, meaning, **flags):
    fault(KIND, name, refused_by, lambda: OverHttp(meaning), **flags)


def said(text, other):
    return lambda error: other(str(error)) if text in str(error) else None


http("HTTP 429 is final", "jobs: outages", said("HTTP 429", BackendError), only=True)
http("HTTP 503 is final", "jobs: outages", said("HTTP 503", BackendError))
http("a cut connection is final", "jobs: outages", said("without an answer", BackendError))
http("HTTP 400 may pass", "jobs: outages", said("HTTP 400", TransientError))
http("HTTP 404 is final", "jobs: lost", lambda e: BackendError(str(e)) if isinstance(e, JobLostError) else None)
