"""Workers as seen from outside: a process per library, limits of time and memory, libraries that alternate."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .peers import LIBRARIES
from .problem import Problem, reference

ROOT = Path(__file__).resolve().parent.parent
MODES = ("forward", "step")
PATIENCE = 5  # a call that should take more than this part of the limit, by a smaller point, is not tried
_START = 300  # seconds that importing a library may take
_SLOW = 0.5  # seconds from which on a call's time is taken to grow in proportion to the batch of states
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Result = dict[str, Any]  # what was found about one library in one mode at one point


class NoAnswerError(Exception):
    """A worker gave no answer; `status` names why."""

    def __init__(self, status: str, message: str = "") -> None:
        super().__init__(message)
        self.status = status


class Remote:
    """A worker process."""

    def __init__(self, name: str, python: str, threads: int | None, memory: int) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONWARNINGS": "ignore",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        if threads is not None:
            environment |= dict.fromkeys((*_THREADS, "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(threads))
        self.name, self.memory, self.started = name, memory, False
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", name],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self._buffer = b""
        self._until = 0.0

    def send(self, timeout: float, **command: Any) -> None:
        """Give a command, to be answered within `timeout` seconds."""
        assert self._process.stdin is not None
        if not self.started:
            self._until = time.monotonic() + _START
            self.answer()
            self.started = True
        self._until = time.monotonic() + timeout
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise NoAnswerError("died") from None

    def ask(self, timeout: float, **command: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.send(timeout, **command)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next answer, within the limits of time and memory."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            left = self._until - time.monotonic()
            ready = select.select([self._process.stdout], [], [], min(max(left, 0), 0.1))[0]
            if not ready and left <= 0:
                raise NoAnswerError("over", "took longer than the limit")
            if self._resident() > self.memory:
                raise NoAnswerError("memory", f"more than {self.memory / 2**30:.0f} GiB")
            if ready:
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    code = self._process.wait()
                    raise NoAnswerError("memory" if code == -signal.SIGKILL else "died", f"exit status {code}")
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise NoAnswerError(answer["error"], answer["message"])
        return answer

    def _resident(self) -> int:
        with contextlib.suppress(OSError), open(f"/proc/{self._process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()


@dataclass
class Lab:
    """Measures points.

    Args:
        python: Interpreter of the workers.
        limit: Seconds that the first call, or any later one, may take.
        memory: Bytes that a worker may hold.
        rounds: Times that every library is measured at a point, the libraries alternating.
        seconds: Length of one such measurement; one call at least.
        threads: Per library; None leaves it to the library.
        side_by_side: Bytes of the batch of states up to which the libraries of a point wait side by side.
        at_once: Whether libraries are built and checked all at once; times are taken one by one in any case.
        say: Receives what is being done.
    """

    python: str = sys.executable
    limit: float = 60.0
    memory: int = field(default_factory=lambda: int(0.7 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    rounds: int = 5
    seconds: float = 0.1
    threads: int | None = None
    side_by_side: int = 1 << 23
    at_once: bool = False
    say: Callable[[str], None] = lambda text: None
    _beyond: dict[tuple[str, str], list[tuple[Problem, str]]] = field(default_factory=dict)
    _slow: dict[tuple[str, str], list[tuple[Problem, float]]] = field(default_factory=dict)
    _idle: dict[str, Remote] = field(default_factory=dict)

    def close(self) -> None:
        """End the workers that wait for another point."""
        while self._idle:
            self._idle.popitem()[1].close()

    def measure(
        self,
        problem: Problem,
        names: Sequence[str],
        modes: Sequence[str] = MODES,
        keep: bool = False,
        launches: bool = False,
    ) -> dict[tuple[str, str], Result]:
        """All libraries at one point: (name, mode) → result. With `keep`, workers stay for the next point."""
        results: dict[tuple[str, str], Result] = {}
        for name in names:
            for mode in modes:
                if why := self._not_worth_trying(name, mode, problem):
                    results[name, mode] = {"status": "skipped", "message": why}
        tried = [n for n in names if not all((n, m) in results for m in modes)]
        tried = [n for n in tried if problem.n_qubits in LIBRARIES[n].qubits]
        if not tried:
            return results
        self.say(f"{problem.key}: reference values")
        together = problem.state_bytes <= self.side_by_side
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, "reference.npz")
            np.savez(path, **reference(problem))
            for group in [tried] if together else [[name] for name in tried]:
                self._measure_group(problem, group, modes, path, results, keep, launches)
        return results

    def _not_worth_trying(self, name: str, mode: str, problem: Problem) -> str:
        def no_larger(p: Problem) -> bool:
            return p.n_qubits <= problem.n_qubits and p.batch <= problem.batch and p.depth <= problem.depth

        for smaller, status in self._beyond.get((name, mode), ()):
            if no_larger(smaller):
                return f"{status} at {smaller.key}"
        for smaller, seconds in self._slow.get((name, mode), ()):
            growth = 2.0 ** (problem.n_qubits - smaller.n_qubits) * problem.batch / smaller.batch
            if smaller.depth == problem.depth and growth >= 1 and growth * seconds > self.limit / PATIENCE:
                return f"{seconds:.1f} s at {smaller.key}"
        return ""

    def _measure_group(
        self,
        problem: Problem,
        names: Sequence[str],
        modes: Sequence[str],
        path: str,
        results: dict[tuple[str, str], Result],
        keep: bool,
        launches: bool,
    ) -> None:
        remotes = {
            name: self._idle.pop(name, None) or Remote(name, self.python, self.threads, self.memory) for name in names
        }

        def fail(name: str, mode: str, failure: NoAnswerError) -> None:
            for m in modes[modes.index(mode) :]:
                results.setdefault((name, m), {}).update({"status": failure.status, "message": str(failure)})
                results[name, m].pop("samples", None)
                if failure.status in ("over", "memory", "died"):
                    self._beyond.setdefault((name, m), []).append((problem, failure.status))
            remote = remotes.pop(name)
            if keep and failure.status in ("failed", "wrong"):
                self._idle[name] = remote
            else:
                remote.close()

        def ask_all(names: Iterable[str], since: str, limit: float, **command: Any) -> dict[str, dict[str, Any]]:
            answers: dict[str, dict[str, Any]] = {}
            names = [name for name in names if name in remotes]
            for group in [names] if self.at_once else [[name] for name in names]:
                sent = []
                for call in ("send", "answer"):
                    for name in group if call == "send" else sent:
                        try:
                            if call == "send":
                                remotes[name].send(limit, **command)
                                sent.append(name)
                            else:
                                answers[name] = remotes[name].answer()
                        except NoAnswerError as failure:
                            fail(name, since, failure)
            return answers

        try:
            self.say(f"{problem.key}: {', '.join(names)}")
            built = ask_all(names, modes[0], self.limit, do="build", problem=problem.to_dict())
            for mode in modes:
                wanted = [name for name in remotes if (name, mode) not in results]
                first = ask_all(wanted, mode, self.limit, do="first", mode=mode)
                computing = [name for name in first if LIBRARIES[name].kind != "nothing"]
                checks = ask_all(computing, mode, 2 * self.limit, do="check", mode=mode, reference=path)
                for name in (n for n in first if n in remotes):
                    results[name, mode] = {
                        "status": "ok",
                        "build": built[name]["seconds"],
                        "first": first[name]["seconds"],
                        "memory": first[name]["memory"],
                        "samples": [],
                        **built[name]["info"],
                        **checks.get(name, {}),
                    }
                    off = results[name, mode].get("difference", 0.0)
                    if not off <= problem.tolerance:
                        fail(name, mode, NoAnswerError("wrong", f"differs from the reference by {off:.1e}"))
                self._time(remotes, mode, results, fail)
                if launches:
                    timed = [name for name in wanted if "torch" in LIBRARIES[name].imports]
                    for name, answer in ask_all(timed, mode, self.limit, do="launches", mode=mode).items():
                        results[name, mode] |= answer
                for name in remotes:
                    if results[name, mode].get("seconds", 0.0) > _SLOW:
                        self._slow.setdefault((name, mode), []).append((problem, results[name, mode]["seconds"]))
        finally:
            for name, remote in remotes.items():
                if keep:
                    self._idle[name] = remote
                    if len(names) == 1:
                        with contextlib.suppress(NoAnswerError):
                            remote.ask(self.limit, do="drop")
                else:
                    remote.close()

    def _time(self, remotes: dict[str, Remote], mode: str, results: Any, fail: Callable[..., None]) -> None:
        spent = dict.fromkeys(remotes, 0.0)
        for _ in range(self.rounds):
            for name in list(remotes):
                result = results[name, mode]
                if "samples" not in result or spent[name] > self.limit / 10:
                    continue
                begin = time.monotonic()
                try:
                    answer = remotes[name].ask(self.limit + 10, do="time", mode=mode, seconds=self.seconds)
                except NoAnswerError as failure:
                    fail(name, mode, failure)
                    continue
                result["samples"] += answer["samples"]
                result["memory"] = max(result["memory"], answer["memory"])
                spent[name] += time.monotonic() - begin
        for name in remotes:
            samples = results[name, mode].pop("samples", None)
            if samples:
                low, middle, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else samples * 3
                best = min(samples)
                results[name, mode] |= {
                    "seconds": middle,
                    "low": low,
                    "high": high,
                    "best": best,
                    "calls": len(samples),
                }


def alternate(lab: Lab, points: Sequence[tuple[Problem, Sequence[str]]], passes: int) -> list[dict[Any, Result]]:
    """Several points, each `passes` times in turn, so that a machine that slows down slows all; medians of medians."""
    every = [[lab.measure(problem, names, keep=True) for problem, names in points] for _ in range(passes)]
    lab.close()
    merged = every[0]
    for k, point in enumerate(merged):
        for key, result in point.items():
            again = [one[k][key] for one in every]
            failed = [r for r in again if r["status"] != "ok"]
            if failed:
                point[key] = failed[0]
            else:
                result["seconds"] = statistics.median(r["seconds"] for r in again)
    return merged
