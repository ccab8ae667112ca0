"""The reusable event loop: inside running loops, from many threads, across fork, at exit, under Ctrl-C."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from qstore_core.backends import runner as runner_module
from qstore_core.backends.runner import Runner, portal, run_sync
from qstore_core.errors import DeadlineError, RunnerError

LONG = 60.0


@pytest.fixture
def runner():
    with Runner("test") as runner:
        yield runner
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-")]


async def double(x):
    await asyncio.sleep(0)
    return 2 * x


async def where():
    return threading.get_ident(), asyncio.get_running_loop()


class Sleeper:
    """A coroutine that says when it starts, when it is cancelled and when its clean-up is over."""

    def __init__(self, cleanup=0.0):
        self.started, self.cancelled, self.cleaned = threading.Event(), threading.Event(), threading.Event()
        self.cleanup = cleanup

    async def __call__(self):
        self.started.set()
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            self.cancelled.set()
            await asyncio.sleep(self.cleanup)
            self.cleaned.set()
            raise


# ---- values and errors pass through


@pytest.mark.parametrize("call", [lambda: (double, 21), lambda: (double(21),), lambda: (lambda: double(21),)])
def test_function_coroutine_and_factory_give_the_value(runner, call):
    assert runner.run_sync(*call()) == 42


def test_nothing_starts_before_the_first_call(runner):
    assert not runner.running
    runner.run_sync(double, 1)
    assert runner.running


def test_every_call_uses_the_same_thread_and_loop(runner):
    first, second = runner.run_sync(where), runner.run_sync(where)
    assert first == second
    assert first[0] != threading.get_ident()


def test_what_lives_on_the_loop_serves_later_calls(runner):
    """The point of a reused loop: an asyncio lock (or a connection) made in one call works in the next."""
    state = {}

    async def make():
        state["lock"] = asyncio.Lock()
        await state["lock"].acquire()

    async def use():
        asyncio.get_running_loop().call_later(0.01, state["lock"].release)
        async with state["lock"]:
            return "acquired"

    runner.run_sync(make)
    assert runner.run_sync(use) == "acquired"


def test_the_coroutine_error_reaches_the_caller_unchanged(runner):
    error = KeyError("mine")

    async def fail():
        raise error

    with pytest.raises(KeyError) as caught:
        runner.run_sync(fail)
    assert caught.value is error


def test_the_coroutine_own_timeout_error_is_not_taken_for_ours(runner):
    async def fail():
        raise TimeoutError("from the service")

    with pytest.raises(TimeoutError, match="from the service") as caught:
        runner.run_sync(fail, timeout=LONG)
    assert not isinstance(caught.value, DeadlineError)


def test_context_variables_of_the_caller_are_seen(runner):
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("caller")

    async def read():
        return variable.get()

    async def read_in_thread():
        return await runner.to_thread(variable.get)

    assert runner.run_sync(read) == "caller"
    assert runner.run_sync(read_in_thread) == "caller"


@pytest.mark.parametrize("bad", [abs, lambda x: x])
def test_a_blocking_function_is_refused_with_the_alternative(runner, bad):
    with pytest.raises(TypeError, match="to_thread"):
        runner.run_sync(bad, 1)


def test_arguments_beside_a_coroutine_are_refused(runner):
    with pytest.raises(TypeError, match="pass the function"):
        runner.run_sync(double(1), 2)


def test_system_exit_in_a_coroutine_reaches_its_caller_and_the_loop_lives_on(runner):
    async def leave():
        sys.exit(3)

    loop = runner.run_sync(where)
    with pytest.raises(SystemExit):
        runner.run_sync(leave)
    assert runner.run_sync(where) == loop


# ---- inside running loops


def test_synchronous_call_inside_a_running_loop(runner):
    async def cell():  # a notebook's cell, a server's handler
        return runner.run_sync(double, 21)

    assert asyncio.run(cell()) == 42


def test_asynchronous_call_from_a_foreign_loop_leaves_that_loop_free(runner):
    async def main():
        here = asyncio.get_running_loop()
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticker = asyncio.create_task(tick())
        _, there = await runner.run_async(where)
        await runner.run_async(asyncio.sleep, 0.05)
        ticker.cancel()
        return here is not there and ticks > 3

    assert asyncio.run(main())


def test_asynchronous_calls_from_two_foreign_loops_meet_on_one(runner):
    loops = [asyncio.run(runner.run_async(where)) for _ in range(2)]
    assert loops[0] == loops[1]


def test_asynchronous_call_from_the_shared_loop_itself(runner):
    async def outer():
        return await runner.run_async(double, 21)

    assert runner.run_sync(outer) == 42


def test_synchronous_call_from_the_loop_itself_is_refused_with_the_alternative(runner):
    async def outer():
        return runner.run_sync(double, 1)

    async def outer_with_coroutine():  # it must not be left un-awaited either: the warning would be an error
        return runner.run_sync(double(1))

    for call in (outer, outer_with_coroutine):
        with pytest.raises(RunnerError, match=r"await layer\.call_async"):
            runner.run_sync(call)
    gc.collect()
    assert runner.run_sync(double, 1) == 2


# ---- threads


def test_many_threads_at_once_start_one_loop(runner):
    barrier = threading.Barrier(32)

    def work(i):
        barrier.wait()
        return runner.run_sync(double, i), runner.run_sync(where)

    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(work, range(32)))
    assert [value for value, _ in results] == [2 * i for i in range(32)]
    assert len({place for _, place in results}) == 1


def test_calls_from_threads_run_concurrently(runner):
    """Each waits for all the others: a loop that served them one after the other would hang."""
    arrived = []

    async def meet():
        arrived.append(1)
        while len(arrived) < 8:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: runner.run_sync(meet, timeout=LONG), range(8)))


def test_to_thread_keeps_the_callers_loop_free_and_is_bounded():
    active, most, lock = 0, 0, threading.Lock()

    def block(i):
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.01)
        with lock:
            active -= 1
        return i, threading.current_thread().name

    async def main(runner):
        return await asyncio.gather(*(runner.to_thread(block, i) for i in range(12)))

    with Runner("bounded", max_threads=3) as runner:
        results = asyncio.run(main(runner))
        assert not runner.running  # no loop is needed for it
    assert [i for i, _ in results] == list(range(12))
    assert all(name.startswith("bounded-worker") for _, name in results)
    assert 1 < most <= 3


def test_a_worker_thread_may_call_the_loop(runner):
    async def main():
        return await runner.to_thread(runner.run_sync, double, 21)

    assert asyncio.run(main()) == 42
    assert runner.run_sync(main) == 42


# ---- time limits and cancellation


def test_time_limit_of_the_synchronous_call(runner):
    sleeper = Sleeper()
    with pytest.raises(DeadlineError, match=r"no result within 0\.05 s") as caught:
        runner.run_sync(sleeper, timeout=0.05)
    assert caught.value.seconds == 0.05
    assert sleeper.cleaned.wait(5)


def test_a_coroutine_that_ignores_cancellation_does_not_hold_its_caller(runner):
    async def stubborn():
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(LONG)
        await asyncio.sleep(0.5)
        raise ValueError("late, and nobody listens")

    start = time.monotonic()
    with pytest.raises(DeadlineError):
        runner.run_sync(stubborn, timeout=0.02)
    assert time.monotonic() - start < 0.4


def test_time_limit_of_the_asynchronous_call(runner):
    sleeper = Sleeper()
    with pytest.raises(DeadlineError):
        asyncio.run(runner.run_async(sleeper, timeout=0.05))
    assert sleeper.cleaned.wait(5)


def test_time_limit_on_the_shared_loop_itself(runner):
    with pytest.raises(DeadlineError):
        runner.run_sync(lambda: runner.run_async(asyncio.sleep, LONG, timeout=0.02))


def test_cancelling_the_awaiting_task_cancels_the_coroutine(runner):
    sleeper = Sleeper()

    async def main():
        task = asyncio.create_task(runner.run_async(sleeper))
        await asyncio.to_thread(sleeper.started.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert sleeper.cleaned.wait(5)


def test_cancelling_the_future_cancels_the_coroutine(runner):
    sleeper = Sleeper()
    future = runner.submit(sleeper)
    assert sleeper.started.wait(5)
    assert future.cancel()
    assert sleeper.cleaned.wait(5)


def test_cancelling_before_the_coroutine_starts(runner):
    """It never runs, and Python has nothing to say about a coroutine that was never awaited."""
    release = threading.Event()
    blocker = runner.submit(_blocking(release))
    future = runner.submit(double(1))
    assert future.cancel()
    release.set()
    blocker.result(5)
    assert runner.run_sync(double, 1) == 2
    gc.collect()


async def _blocking(event):
    event.wait(LONG)


def test_a_coroutine_that_cancels_itself_is_a_named_error(runner):
    async def leave():
        raise asyncio.CancelledError

    with pytest.raises(RunnerError, match="cancelled"):
        runner.run_sync(leave)
    with pytest.raises(RunnerError, match="cancelled"):
        asyncio.run(runner.run_async(leave))


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_keyboard_interrupt_cancels_the_coroutine_and_waits_for_its_clean_up(runner):
    """A real SIGINT to the main thread, as Ctrl-C sends it."""
    sleeper = Sleeper(cleanup=0.05)
    main = threading.main_thread()
    assert threading.current_thread() is main

    def interrupt():
        sleeper.started.wait(5)
        signal.pthread_kill(main.ident, signal.SIGINT)

    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            runner.run_sync(sleeper)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, old)
    assert sleeper.cleaned.is_set()
    assert runner.run_sync(double, 21) == 42


# ---- closing


def test_close_cancels_what_runs_and_tells_its_caller(runner):
    sleeper = Sleeper(cleanup=0.02)
    errors = []

    def work():
        try:
            runner.run_sync(sleeper)
        except RunnerError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    assert sleeper.started.wait(5)
    runner.close()
    thread.join(5)
    assert sleeper.cleaned.is_set()
    assert len(errors) == 1
    assert "closed" in errors[0]


def test_close_tells_callers_on_foreign_loops(runner):
    sleeper = Sleeper()

    async def main():
        task = asyncio.create_task(runner.run_async(sleeper))
        await asyncio.to_thread(sleeper.started.wait, 5)
        runner.close()
        with pytest.raises(RunnerError, match="closed"):
            await task

    asyncio.run(main())


def test_close_is_idempotent_and_the_next_call_starts_anew(runner):
    runner.close()
    first = runner.run_sync(where)
    runner.close()
    runner.close()
    assert not runner.running
    second = runner.run_sync(where)
    assert first[1].is_closed()
    assert first[1] is not second[1]


def test_close_from_its_own_threads_is_refused(runner):
    async def main():
        runner.close()

    with pytest.raises(RunnerError, match="own threads"):
        runner.run_sync(main)
    with pytest.raises(RunnerError, match="own threads"):
        asyncio.run(runner.to_thread(runner.close))


def test_a_coroutine_that_blocks_the_loop_is_reported_and_nobody_waits_for_it(monkeypatch):
    monkeypatch.setattr("qstore_core.backends._loop.GRACE", 0.1)
    runner, release = Runner("blocked"), threading.Event()
    blocked = runner.submit(_blocking(release))
    queued = runner.submit(double, 1)
    with pytest.raises(RunnerError, match="blocks its thread"):
        runner.close()
    assert blocked.cancelled()
    assert queued.cancelled()
    release.set()


CLOSE_AGAIN_AND_AGAIN = """
import os, threading
from qstore_core.backends.runner import Runner

async def double(x):
    return 2 * x

def rounds(runner, n):
    for _ in range(n):
        runner.run_sync(double, 1)
        runner.run_sync(runner.to_thread, int)
        runner.close()
    return len(os.listdir("/proc/self/fd")), threading.active_count()

runner = Runner("again")
print(rounds(runner, 3), rounds(runner, 20), sep="|")
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_closing_again_and_again_leaks_no_descriptor_and_no_thread():
    """In a process of its own: descriptors that other tests left come and go here."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CLOSE_AGAIN_AND_AGAIN], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    after_3, after_23 = done.stdout.strip().split("|")
    assert after_23 == after_3


def test_the_portal_is_one_for_all():
    assert portal() is portal()
    assert runner_module.run_sync.__self__ is portal()
    assert run_sync(double, 21) == 42


# ---- fork


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def _in_forked_child(work):
    """Run work in a forked child; return its exit code: 0 where it returned True."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of fork beside threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                code = 0 if work() else 2
                gc.collect()
        finally:
            os._exit(code)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "the child hung"


@needs_fork
def test_a_forked_child_starts_a_loop_of_its_own(runner):
    parent = runner.run_sync(where)
    asyncio.run(runner.to_thread(int))

    def work():
        asyncio.run(runner.to_thread(int))
        ok = not runner.running and runner.run_sync(double, 21) == 42 and runner.run_sync(where)[1] is not parent[1]
        runner.close()
        return ok

    assert _in_forked_child(work) == 0
    assert runner.run_sync(where) == parent


@needs_fork
def test_fork_disturbs_neither_the_parents_jobs_nor_its_sockets(runner):
    """The parent's loop waits on a socket while children come, use the layer and go."""
    left, right = socket.socketpair()
    left.setblocking(False)
    cleaned = []

    async def receive():
        try:
            return await asyncio.get_running_loop().sock_recv(left, 16)
        finally:
            cleaned.append(os.getpid())

    with left, right:
        future = runner.submit(receive)
        runner.run_sync(asyncio.sleep, 0.01)
        for _ in range(3):
            assert _in_forked_child(lambda: runner.run_sync(double, 21) == 42 and not cleaned) == 0
        assert not future.done()
        right.send(b"still there")
        assert future.result(5) == b"still there"
    assert runner.run_sync(double, 21, timeout=5) == 42


@needs_fork
def test_fork_while_another_thread_holds_the_lock(runner):
    runner.run_sync(double, 1)
    held, release = threading.Event(), threading.Event()

    def hold():
        with runner._lock:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    try:
        assert _in_forked_child(lambda: runner.run_sync(double, 21, timeout=5) == 42) == 0
    finally:
        release.set()
        thread.join()


@needs_fork
def test_grandchildren_and_multiprocessing_workers(runner):
    runner.run_sync(double, 1)

    def child():
        return runner.run_sync(double, 21) == 42 and _in_forked_child(lambda: runner.run_sync(double, 4) == 8) == 0

    assert _in_forked_child(child) == 0


# ---- exit of the interpreter


def _python(code, *options):
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", *options, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "end",
    ["", "sys.exit(0)", "run_sync(asyncio.sleep, 0.01)", "submit(asyncio.sleep, 60)", "submit(stubborn)"],
    ids=["plain", "sys.exit", "used again", "a job runs", "a job cleans up"],
)
def test_exit_is_clean(end):
    """Development mode, every warning an error: nothing is printed, and nobody waits for the running job."""
    result = _python(f"""
        import asyncio, sys, threading
        from qstore_core.backends.runner import run_sync, submit, to_thread
        async def stubborn():
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.05)
                print("cleaned")
        run_sync(asyncio.sleep, 0)
        asyncio.run(to_thread(int))
        {end}
    """)
    assert result.stderr == ""
    assert result.returncode == 0
    assert result.stdout == ("cleaned\n" if "stubborn" in end else "")


def test_exit_after_fork_is_clean_in_both():
    result = _python("""
        import asyncio, os, sys, warnings
        from qstore_core.backends.runner import run_sync, submit
        submit(asyncio.sleep, 60)
        run_sync(asyncio.sleep, 0)
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        run_sync(asyncio.sleep, 0)
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert result.stderr == ""
    assert result.returncode == 0


def test_a_call_while_the_interpreter_exits_is_a_named_error():
    result = _python("""
        import atexit, asyncio
        def late():
            try:
                run_sync(asyncio.sleep, 0)
            except Exception as error:
                print(type(error).__name__)
        atexit.register(late)
        from qstore_core.backends.runner import run_sync
        run_sync(asyncio.sleep, 0)
    """)
    assert (result.stdout, result.stderr) == ("RunnerError\n", "")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_ends_a_waiting_program():
    """SIGINT to a whole program: it dies of KeyboardInterrupt, and its job has cleaned up."""
    code = """
        import asyncio, signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        from qstore_core.backends.runner import run_sync
        async def job():
            print("started", flush=True)
            try:
                await asyncio.sleep(60)
            finally:
                print("cleaned", flush=True)
        run_sync(job)
    """
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert stdout == "cleaned\n"
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT
