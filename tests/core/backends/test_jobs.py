"""Job-type backends over a service in memory: splitting, order, limits, retries, deadlines, cancelling, resuming."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from qstore_core import (
    BackendError,
    Capabilities,
    CapabilityError,
    DeadlineError,
    JobLostError,
    JobPolicy,
    QuantumFeatureExtractor,
    SpecError,
    TransientError,
    get_backend,
    profile,
    with_jobs,
)
from qstore_core.backends.jobs.policy import LoopLocal, is_transient
from qstore_core.backends.jobs.store import JobStore
from qstore_core.backends.runner import to_thread
from qstore_core.testing import run_checks

SOON = 10.0  # seconds: far below the time-outs that would be waited for otherwise, with room for a busy machine
QUICK = {"backoff": 0.001, "max_backoff": 0.01, "grace": 0.5}


class MemoryBackend:
    """Jobs are computed with statevector when they are submitted. `before` is awaited as (call, number, job)."""

    name = "memory"

    def __init__(self, before=None, *, seconds=0.0, shots=False, change=None, **policy):
        self.capabilities = Capabilities(exact=True, shots=shots, remote=True)
        self.jobs = JobPolicy(**(QUICK | policy))
        self.before, self.seconds, self.change = before, seconds, change or (lambda outputs, number: outputs)
        self.results, self.rows, self.counts, self.cancelled = {}, [], Counter(), []
        self.running = self.most_running = 0
        self.times = []

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        asked = None if self.capabilities.shots else shots  # refused there
        return MemoryExecutable(
            self, get_backend("statevector").compile(circuit, measurement, dtype=dtype, shots=asked)
        )


class MemoryExecutable:
    def __init__(self, owner, good):
        self.owner, self.good = owner, good

    async def _step(self, call, job=None):
        number = self.owner.counts[call]
        self.owner.counts[call] += 1
        if self.owner.before is not None:
            await self.owner.before(call, number, job)

    async def submit(self, theta, inputs, *, seed=None):
        owner = self.owner
        owner.times.append(time.monotonic())
        await self._step("submit")
        job = f"job-{len(owner.results)}"
        owner.results[job] = None  # its number is taken
        owner.results[job] = await to_thread(self.good.forward, theta, inputs)
        owner.rows.append(len(inputs))
        owner.running += 1
        owner.most_running = max(owner.most_running, owner.running)
        return job

    async def result(self, job):
        await self._step("result", job)
        await asyncio.sleep(self.owner.seconds)
        if job not in self.owner.results:
            raise JobLostError(f"no job {job}")
        outputs = self.owner.change(self.owner.results[job], int(job.partition("-")[2]))
        self.owner.running -= 1
        return outputs

    async def cancel(self, job):
        await self._step("cancel", job)
        self.owner.cancelled.append(job)


def layer_on(backend, **options):
    options = {"fallback": None, "seed": 1} | options
    return QuantumFeatureExtractor(2, depth=1, encoding="angle", backend=backend, **options)


def features(rows, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, (rows, 2))


def expected(x, **options):
    return layer_on("statevector", **options)(x)


def failing(times, error, call="submit"):
    """Raise for the first calls."""

    async def before(kind, number, job):
        if kind == call and number < times:
            raise error

    return before


def deadline_error(call):
    with pytest.raises(DeadlineError) as caught:
        call()
    return caught.value


def backend_error(call):
    with pytest.raises(BackendError) as caught:
        call()
    return caught.value


# ---- values


def test_it_is_an_ordinary_backend():
    report = run_checks(MemoryBackend(max_batch=3))
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("rows", "max_batch", "jobs"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (5, None, [5]), (1, 4, [1])]
)
def test_a_batch_is_split_and_order_is_kept(rows, max_batch, jobs):
    async def reversing(call, number, job):
        if call == "result":
            await asyncio.sleep(0.02 * (3 - number))  # the last one is ready first

    backend = MemoryBackend(reversing, max_batch=max_batch)
    x = features(rows)
    np.testing.assert_allclose(layer_on(backend)(x), expected(x), atol=1e-12)
    assert sorted(backend.rows, reverse=True) == jobs


def test_equal_rows_are_computed_once():
    backend = MemoryBackend(max_batch=2)
    x = features(3)[[0, 1, 0, 2, 1, 0, 0]]
    np.testing.assert_allclose(layer_on(backend)(x), expected(x), atol=1e-12)
    assert sum(backend.rows) == 3
    backend = MemoryBackend(unique=False)
    layer_on(backend)(x)
    assert sum(backend.rows) == 7


def test_samples_are_never_shared_between_equal_rows():
    backend = MemoryBackend(shots=True)
    layer_on(backend, shots=100)(features(1)[[0, 0, 0]])
    assert backend.rows == [3]


def test_gradients_are_one_batch_of_jobs():
    backend = MemoryBackend(max_batch=64)
    x, cotangents = features(4), features(4, 1)
    got, want = layer_on(backend).vjp(x, cotangents), layer_on("statevector").vjp(x, cotangents)
    for mine, exact in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, exact, atol=1e-10)
    assert len(backend.rows) <= 2


# ---- limits


def test_bounded_concurrency_over_all_layers_and_threads():
    backend = MemoryBackend(seconds=0.01, max_batch=1, max_jobs=3)
    x = features(6)
    threads = [threading.Thread(target=layer_on(backend), args=(x,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backend.most_running == 3
    assert len(backend.rows) == 24


def test_rate_limit():
    backend = MemoryBackend(max_batch=1, max_jobs=10, rate=100.0)
    begin = time.monotonic()
    layer_on(backend)(features(8))
    assert (np.array(sorted(backend.times)) >= begin + 0.01 * np.arange(8)).all()  # each in its own slot, or later


def test_a_service_that_asks_to_wait_is_not_asked_by_others_meanwhile():
    backend = MemoryBackend(failing(1, TransientError("429", retry_after=0.15)), max_batch=1, max_jobs=1)
    begin = time.monotonic()
    layer_on(backend)(features(3))
    assert time.monotonic() - begin >= 0.15
    assert len(backend.rows) == 3


# ---- retries


@pytest.mark.parametrize("call", ["submit", "result"])
@pytest.mark.parametrize(
    "error",
    [TransientError("busy"), ConnectionResetError("reset"), TimeoutError("slow"), JobLostError("gone")],
    ids=repr,
)
def test_what_may_pass_is_tried_again(call, error):
    backend = MemoryBackend(failing(3, error, call))
    x = features(2)
    np.testing.assert_allclose(layer_on(backend)(x), expected(x), atol=1e-12)
    again = isinstance(error, JobLostError) and call == "result"
    assert len(backend.rows) == (4 if again else 1)  # an answer that was lost is fetched again, a job is not run again


def test_any_error_may_say_that_it_passes():
    class BusyError(Exception):
        transient = True

    assert is_transient(BusyError())
    assert not is_transient(ValueError())
    layer_on(MemoryBackend(failing(1, BusyError())))(features(1))


def test_retries_end():
    backend = MemoryBackend(failing(9, TransientError("the queue is full")), retries=2)
    error = backend_error(lambda: layer_on(backend)(features(1)))
    assert "backend 'memory': job 1 failed 3 times, at last with TransientError: the queue is full." in str(error)
    assert isinstance(error.cause, TransientError)
    assert backend.counts["submit"] == 3


def test_what_does_not_pass_is_not_tried_again():
    backend = MemoryBackend(failing(1, ValueError("no such device")))
    assert "no such device" in str(backend_error(lambda: layer_on(backend)(features(1))))
    assert backend.counts["submit"] == 1
    backend = MemoryBackend(failing(1, CapabilityError("not this gate")))
    with pytest.raises(CapabilityError):
        layer_on(backend, fallback="statevector")(features(1))


SPOILED = {
    "too few rows": lambda y: y[:-1],
    "too few outputs": lambda y: y[:, :-1],
    "flat": lambda y: y.ravel(),
    "ragged": lambda y: [[0.0], [1.0, 2.0]],
    "text": lambda y: y.astype(str),
    "complex": lambda y: y.astype(complex),
    "nan": lambda y: y * np.nan,
    "nothing": lambda y: None,
    "wrong errors": lambda y: (y, y[:-1]),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_unusable_outputs_are_fetched_anew_and_never_returned(kind):
    x = features(2)
    once = MemoryBackend(change=lambda y, number: SPOILED[kind](y) if number == 0 else y)
    np.testing.assert_allclose(layer_on(once)(x), expected(x), atol=1e-12)
    assert once.cancelled == ["job-0"]
    always = MemoryBackend(change=lambda y, number: SPOILED[kind](y), retries=1)
    assert "a job returned" in str(backend_error(lambda: layer_on(always)(x)))


def test_lists_and_integers_are_numbers():
    backend = MemoryBackend(change=lambda y, number: np.rint(y).astype(int).tolist())
    assert layer_on(backend)(features(2)).dtype == np.float64


@pytest.mark.parametrize("asked", [None, "soon", -1, float("nan"), float("inf")])
def test_nonsense_in_retry_after_is_no_wait(asked):
    begin = time.monotonic()
    layer_on(MemoryBackend(failing(1, TransientError("busy", retry_after=asked))))(features(1))
    assert time.monotonic() - begin < SOON


# ---- time


def never(call_to_hang):
    async def before(call, number, job):
        if call == call_to_hang:
            await asyncio.sleep(3600)

    return before


@pytest.mark.parametrize("call", ["submit", "result"])
def test_deadline(call):
    backend = MemoryBackend(never(call), deadline=0.2, grace=0.1)
    begin = time.monotonic()
    error = deadline_error(lambda: layer_on(backend)(features(2)))
    assert 0.2 <= time.monotonic() - begin < SOON
    assert "gave no result within 0.2 s" in str(error)
    assert backend.cancelled == (["job-0"] if call == "result" else [])


def test_a_wait_beyond_the_deadline_is_not_begun():
    backend = MemoryBackend(failing(9, TransientError("later", retry_after=60.0)), deadline=5.0)
    begin = time.monotonic()
    error = deadline_error(lambda: layer_on(backend)(features(1)))
    assert time.monotonic() - begin < SOON
    assert "later" in str(error.__cause__)


def test_a_job_that_takes_too_long_is_cancelled_and_submitted_again():
    async def first_hangs(call, number, job):
        if job == "job-0" and call == "result":
            await asyncio.sleep(3600)

    backend = MemoryBackend(first_hangs, job_timeout=0.05)
    x = features(2)
    np.testing.assert_allclose(layer_on(backend)(x), expected(x), atol=1e-12)
    assert backend.cancelled == ["job-0"]


def test_a_cancel_that_hangs_costs_the_grace_only():
    async def stuck(call, number, job):
        if call == "cancel" or call == "result":
            await asyncio.sleep(3600)

    begin = time.monotonic()
    deadline_error(lambda: layer_on(MemoryBackend(stuck, deadline=0.1, grace=0.2))(features(1)))
    assert time.monotonic() - begin < SOON


def test_a_plugin_that_does_not_let_itself_be_cancelled_holds_nobody():
    async def deaf(call, number, job):
        for _ in range(30):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)

    begin = time.monotonic()
    deadline_error(lambda: layer_on(MemoryBackend(deaf, deadline=0.1, grace=0.1))(features(1)))
    assert time.monotonic() - begin < 2.5  # it would take 3


# ---- cancelling


def test_the_first_failure_for_good_cancels_all_others():
    async def third_fails(call, number, job):
        if call == "result":
            await asyncio.sleep(0.05)
            if job == "job-2":
                raise ValueError("the device broke")
            await asyncio.sleep(3600)

    backend = MemoryBackend(third_fails, max_batch=1, max_jobs=10)
    assert "the device broke" in str(backend_error(lambda: layer_on(backend)(features(5))))
    assert {"job-0", "job-1", "job-3", "job-4"} <= set(backend.cancelled)


def test_a_job_that_was_being_submitted_is_cancelled_too():
    async def slow(call, number, job):
        if call == "submit":
            await asyncio.sleep(0.2)

    backend = MemoryBackend(slow, deadline=0.1)
    deadline_error(lambda: layer_on(backend)(features(1)))
    assert backend.cancelled == ["job-0"]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_keyboard_interrupt_cancels_all():
    backend = MemoryBackend(never("result"), max_batch=1)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    # A shell's background jobs ignore SIGINT, and so would this process there.
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            layer_on(backend)(features(4))
    finally:
        signal.signal(signal.SIGINT, old)
    assert sorted(backend.cancelled) == ["job-0", "job-1", "job-2", "job-3"]


# ---- resuming


def test_jobs_of_an_earlier_life_are_fetched_and_not_submitted(tmp_path):
    folder = str(tmp_path / "jobs")
    backend = MemoryBackend(never("result"), max_batch=1, deadline=0.2)
    x = features(3)
    error = deadline_error(lambda: layer_on(with_jobs(backend, resume=folder))(x))
    assert "3 jobs in flight are kept in" in str(error)
    assert backend.cancelled == []
    assert len(JobStore(folder).pending()) == 3

    backend.before = None
    np.testing.assert_allclose(layer_on(with_jobs(backend, resume=folder))(x), expected(x), atol=1e-12)
    assert backend.counts["submit"] == 3
    assert JobStore(folder).pending() == {}
    layer_on(with_jobs(backend, resume=folder))(x)
    assert backend.counts["submit"] == 6  # results are never kept


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a\nb", b"x" * 5000, b"\0"])
def test_a_file_that_holds_no_job_id_is_named(tmp_path, content):
    store = JobStore(tmp_path)
    store.release(store.keep("0123abcd", "job-1"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    with pytest.raises(SpecError, match="holds no job id"):
        store.pending()
    with pytest.raises(SpecError, match="Remove the file"):
        store.claim("0123abcd")
    for path in tmp_path.iterdir():
        path.unlink()
    store.release(store.keep("0123abcd", "job-2"))
    assert store.claim("0123abcd")[0] == "job-2"


def test_other_values_do_not_fetch_them(tmp_path):
    backend = MemoryBackend(never("result"), deadline=0.1)
    configured = with_jobs(backend, resume=str(tmp_path))
    deadline_error(lambda: layer_on(configured)(features(3)))
    backend.before = None
    for layer, x in ((layer_on(configured), features(3, 1)), (layer_on(configured, seed=2), features(3))):
        np.testing.assert_allclose(layer(x), expected(x, seed=layer._program.execution.seed), atol=1e-12)
    assert backend.counts["submit"] == 3
    assert len(JobStore(tmp_path).pending()) == 1


def test_a_lost_job_of_an_earlier_life_is_submitted_again(tmp_path):
    backend = MemoryBackend(never("result"), deadline=0.1)
    configured = with_jobs(backend, resume=str(tmp_path))
    x = features(3)
    deadline_error(lambda: layer_on(configured)(x))
    backend.before = None
    backend.results = {"other": None}
    np.testing.assert_allclose(layer_on(configured)(x), expected(x), atol=1e-12)
    assert JobStore(tmp_path).pending() == {}


def test_a_failure_for_good_leaves_nothing_behind(tmp_path):
    backend = MemoryBackend(failing(1, ValueError("broken"), "result"), max_batch=1)
    backend_error(lambda: layer_on(with_jobs(backend, resume=str(tmp_path)))(features(3)))
    assert JobStore(tmp_path).pending() == {}
    assert backend.cancelled


def test_a_store_gives_each_job_to_one_claimant(tmp_path):
    left = JobStore(tmp_path)
    names = [left.keep("abc", f"job-{number}") for number in range(20)]
    assert left.claim("abc") is None  # this process waits for them itself
    for name in names:
        left.release(name)
    found = []

    def take():
        while (claimed := JobStore(tmp_path).claim("abc")) is not None:
            found.append(claimed[0])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"job-{number}" for number in range(20))


def test_a_store_knows_who_is_alive(tmp_path):
    code = """
import sys, time
from qstore_core.backends.jobs.store import JobStore
JobStore(sys.argv[1]).keep("abc", "job-7")
print("kept", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "kept\n"
        assert JobStore(tmp_path).claim("abc") is None
        other.kill()
        other.wait()
    claimed = JobStore(tmp_path).claim("abc")
    assert claimed[0] == "job-7"
    JobStore(tmp_path).drop(claimed[1])
    assert JobStore(tmp_path).pending() == {}


# ---- configuration


@pytest.mark.parametrize(
    "changes",
    [{"max_batch": 0}, {"max_jobs": True}, {"retries": -1}, {"rate": 0}, {"deadline": float("nan")}, {"backoff": "1"}],
    ids=str,
)
def test_a_wrong_policy_is_refused(changes):
    with pytest.raises(SpecError, match=next(iter(changes))):
        JobPolicy(**changes)


def test_unknown_field():
    with pytest.raises(SpecError, match="Did you mean 'retries'"):
        with_jobs(MemoryBackend(), retry=3)


def test_a_local_backend_has_no_jobs():
    with pytest.raises(SpecError, match="runs no jobs"):
        layer_on(with_jobs(get_backend("statevector"), retries=3))(features(1))


def test_a_policy_pickles_with_the_layer():
    backend = with_jobs(PICKLED, deadline=7.0)
    copy = pickle.loads(pickle.dumps(backend))
    assert copy.jobs == backend.jobs
    assert copy.jobs.deadline == 7.0


PICKLED = get_backend("statevector")


def test_loop_local():
    local = LoopLocal(object)

    async def get():
        return local.get()

    first, second = asyncio.run(get()), asyncio.run(get())
    assert first is not second


def test_a_profile_says_what_jobs_cost():
    layer = layer_on(MemoryBackend(failing(1, TransientError("busy")), seconds=0.02, max_batch=2), name="mine")
    with profile() as times:
        layer(features(6))
    wait, submit = (next(t for t in times.parts if t.part == part) for part in ("wait", "submit"))
    assert wait.total >= 0.02
    assert submit.total > 0
    assert times.counts["jobs"] == 3
    assert times.counts["retries"] == 1
    assert times.counts["circuits"] == 6
