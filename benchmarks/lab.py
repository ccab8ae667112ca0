"""Workers as seen from outside: a process per library, limits of time and memory, libraries that alternate."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from .peers import LIBRARIES
from .problem import Problem, reference
from .worker import NoAnswerError, serve

ROOT = Path(__file__).resolve().parent.parent
MODES = ("forward", "step")
PATIENCE = 5  # a call that should take more than this part of the limit, by a smaller point, is not tried
_START = 300  # seconds that importing a library may take
_SLOW = 0.5  # seconds from which on a call's time is taken to grow in proportion to the batch of states
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
_SPAWN = multiprocessing.get_context("spawn")

Result = dict[str, Any]  # what was found about one library in one mode at one point


class Remote:
    """A worker process, and the limits within which it answers."""

    def __init__(self, name: str, threads: int | None, memory: int) -> None:
        self.memory, self.started, self._until = memory, False, time.monotonic() + _START
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=serve, args=(name, theirs), daemon=True)
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        os.environ.update(environment)
        with patch.dict(os.environ, dict.fromkeys(_THREADS, str(threads))) if threads else contextlib.nullcontext():
            self._process.start()
        theirs.close()

    def send(self, limit: float, command: str, **arguments: Any) -> None:
        """Give a command, to be answered within `limit` seconds."""
        if not self.started:
            self.answer()
            self.started = True
        self._until = time.monotonic() + limit
        try:
            self._pipe.send((command, arguments))
        except OSError:
            raise NoAnswerError("died") from None

    def ask(self, limit: float, command: str, **arguments: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.send(limit, command, **arguments)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next answer, within the limits of time and memory."""
        while not self._pipe.poll(min(0.1, max(0.0, self._until - time.monotonic()))):
            if time.monotonic() > self._until:
                raise NoAnswerError("over", "took longer than the limit")
            if self._resident() > self.memory:
                raise NoAnswerError("memory", f"more than {self.memory / 2**30:.0f} GiB")
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            raise NoAnswerError("memory" if code == -signal.SIGKILL else "died", f"exit status {code}") from None
        if isinstance(answer, NoAnswerError):
            raise answer
        return answer

    def _resident(self) -> int:
        with contextlib.suppress(OSError), open(f"/proc/{self._process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


@dataclass
class Lab:
    """Measures points.

    Args:
        limit: Seconds that the first call, or any later one, may take.
        memory: Bytes that a worker may hold.
        rounds: Times that every library is measured at a point, the libraries alternating.
        seconds: Length of one such measurement; one call at least.
        threads: Per library; None leaves it to the library.
        side_by_side: Bytes of the batch of states up to which the libraries of a point wait side by side.
        at_once: Whether libraries are built and checked all at once; times are taken one by one in any case.
        say: Receives what is being done.
    """

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
        launches: Sequence[str] = (),
    ) -> dict[tuple[str, str], Result]:
        """All libraries at one point: (name, mode) → result.

        With `keep`, workers stay for the next point; of those in `launches` the kernels of a call are counted.
        """
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
        expected = reference(problem)
        for group in [tried] if together else [[name] for name in tried]:
            self._measure_group(problem, group, modes, expected, results, keep, launches)
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
        expected: dict[str, np.ndarray],
        results: dict[tuple[str, str], Result],
        keep: bool,
        launches: Sequence[str],
    ) -> None:
        remotes = {name: self._idle.pop(name, None) or Remote(name, self.threads, self.memory) for name in names}

        def fail(name: str, mode: str, failure: NoAnswerError) -> None:
            for m in modes[modes.index(mode) :]:
                results.setdefault((name, m), {}).update({"status": failure.status, "message": failure.message})
                results[name, m].pop("samples", None)
                if failure.status in ("over", "memory", "died"):
                    self._beyond.setdefault((name, m), []).append((problem, failure.status))
            remote = remotes.pop(name)
            if keep and failure.status in ("failed", "wrong"):
                self._idle[name] = remote
            else:
                remote.close()

        def ask_all(
            names: Iterable[str], since: str, limit: float, command: str, **arguments: Any
        ) -> dict[str, dict[str, Any]]:
            answers: dict[str, Any] = {}
            names = [name for name in names if name in remotes]
            for group in [names] if self.at_once else [[name] for name in names]:
                sent = []
                for call in ("send", "answer"):
                    for name in group if call == "send" else sent:
                        try:
                            if call == "send":
                                remotes[name].send(limit, command, **arguments)
                                sent.append(name)
                            else:
                                answers[name] = remotes[name].answer()
                        except NoAnswerError as failure:
                            fail(name, since, failure)
            return answers

        try:
            self.say(f"{problem.key}: {', '.join(names)}")
            built = ask_all(names, modes[0], self.limit, "build", problem=problem)
            for mode in modes:
                wanted = [name for name in remotes if (name, mode) not in results]
                first = ask_all(wanted, mode, self.limit, "first", mode=mode)
                computing = [name for name in first if LIBRARIES[name].kind != "nothing"]
                checks = ask_all(computing, mode, 2 * self.limit, "check", mode=mode, expected=expected)
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
                for name in [name for name in wanted if name in launches and name in remotes]:
                    try:  # one by one: they share a GPU
                        results[name, mode] |= remotes[name].ask(self.limit, "launches", mode=mode)
                    except NoAnswerError as failure:
                        if failure.status != "failed":
                            fail(name, mode, failure)
                for name in remotes:
                    if results[name, mode].get("seconds", 0.0) > _SLOW:
                        self._slow.setdefault((name, mode), []).append((problem, results[name, mode]["seconds"]))
        finally:
            for name, remote in remotes.items():
                if keep:
                    self._idle[name] = remote
                    if len(names) == 1:
                        with contextlib.suppress(NoAnswerError):
                            remote.ask(self.limit, "drop")
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
                    answer = remotes[name].ask(self.limit + 10, "time", mode=mode, seconds=self.seconds)
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
