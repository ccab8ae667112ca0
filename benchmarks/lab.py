"""Workers as seen from outside: a process per library and point, limits, interleaved measurement."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .problem import Problem, reference
from .subjects import SUBJECTS

ROOT = Path(__file__).resolve().parent.parent
MODES = ("forward", "step")
TOGETHER = 1 << 23  # bytes of the batch of states up to which the libraries of a point wait side by side
PATIENCE = 5  # a call that should take more than this part of the limit, by a smaller point, is not tried
_SLOW = 0.5  # seconds from which on a call's time is taken to grow in proportion to the batch of states
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


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
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONWARNINGS": "ignore",
        }
        if threads is not None:
            environment |= dict.fromkeys(THREADS, str(threads))
            environment |= {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_NUM_INTEROP_THREADS": str(threads)}
        self.name, self.memory = name, memory
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

    def ask(self, timeout: float, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise NoAnswerError("died") from None
        return self.answer(timeout)

    def answer(self, timeout: float) -> dict[str, Any]:
        """The next answer, within the limits of time and memory."""
        assert self._process.stdout is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0:
                self.close()
                raise NoAnswerError("over", f"more than {timeout:.0f} s")
            if self._resident() > self.memory:
                self.close()
                raise NoAnswerError("memory", f"more than {self.memory / 2**30:.0f} GiB")
            if select.select([self._process.stdout], [], [], min(left, 0.1))[0]:
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    code = self._process.wait()
                    status = "memory" if code == -signal.SIGKILL else "died"
                    raise NoAnswerError(status, f"exit status {code}")
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
    """Measures points. Results are plain dictionaries, ready for JSON.

    Args:
        python: Interpreter of the workers.
        limit: Seconds that the first call, or any later one, may take.
        memory: Bytes that a worker may hold.
        rounds: Turns that every library gets at a point.
        seconds: Length of a turn; one call at least.
        threads: Per library; None leaves it to the library.
        scratch: Folder for reference values.
        say: Receives what is being done.
    """

    python: str = sys.executable
    limit: float = 60.0
    memory: int = field(default_factory=lambda: int(0.7 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    rounds: int = 5
    seconds: float = 0.1
    threads: int | None = None
    scratch: Path = Path("/tmp")
    say: Callable[[str], None] = lambda text: None
    beyond: dict[tuple[str, str], list[tuple[Problem, str]]] = field(default_factory=dict)
    slow: dict[tuple[str, str], list[tuple[Problem, float]]] = field(default_factory=dict)
    _idle: dict[str, Remote] = field(default_factory=dict)

    def close(self) -> None:
        """End the workers that wait for another point."""
        while self._idle:
            self._idle.popitem()[1].close()

    def measure_by_turns(
        self, points: Iterable[tuple[Problem, Sequence[str]]], passes: int, keep: bool = False
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Several points, each `passes` times in turn, so that a machine that slows down slows all: key → results."""
        points = list(points)
        every = [{p.key: self.measure(p, names, keep=keep) for p, names in points} for _ in range(passes)]
        return {key: _merged([results[key] for results in every]) for key in every[0]}

    def measure(
        self, problem: Problem, names: Sequence[str], modes: Iterable[str] = MODES, keep: bool = False
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """All libraries at one point: name → mode → result. With `keep`, workers stay for the next one."""
        modes = tuple(modes)
        results: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
        tried = [name for name in names if self._worth_trying(name, problem, modes, results)]
        tried = [name for name in tried if problem.n_qubits <= SUBJECTS[name].most_qubits]
        if not tried:
            return results
        self.say(f"{problem.key}: reference values")
        path = self.scratch / f"reference-{problem.key}.npz"
        np.savez(path, **reference(problem))
        together = problem.state_bytes <= TOGETHER
        for group in [tried] if together else [[name] for name in tried]:
            self._measure_group(problem, group, modes, str(path), results, keep and together)
        path.unlink()
        return results

    def _worth_trying(self, name: str, problem: Problem, modes: Sequence[str], results: dict[str, Any]) -> bool:
        for mode in modes:
            for smaller, status in self.beyond.get((name, mode), ()):
                if (
                    smaller.n_qubits <= problem.n_qubits
                    and smaller.batch <= problem.batch
                    and smaller.depth <= problem.depth
                ):
                    results[name][mode] = {"status": "skipped", "message": f"{status} at {smaller.key}"}
            for smaller, seconds in self.slow.get((name, mode), ()):
                sizes = 2.0 ** (problem.n_qubits - smaller.n_qubits) * problem.batch / smaller.batch
                if smaller.depth == problem.depth and sizes * seconds > self.limit / PATIENCE and sizes >= 1:
                    results[name][mode] = {"status": "skipped", "message": f"{seconds:.1f} s at {smaller.key}"}
        return any(mode not in results[name] for mode in modes)

    def _measure_group(
        self,
        problem: Problem,
        names: Sequence[str],
        modes: Sequence[str],
        path: str,
        results: dict[str, Any],
        keep: bool,
    ) -> None:
        remotes: dict[str, Remote] = {}
        new = [name for name in names if name not in self._idle]
        for name in names:
            remotes[name] = self._idle.pop(name, None) or Remote(name, self.python, self.threads, self.memory)

        def fail(name: str, mode: str, failure: NoAnswerError) -> None:
            for m in modes[modes.index(mode) :]:
                results[name].setdefault(m, {}).update({"status": failure.status, "message": str(failure)})
                if failure.status in ("over", "memory", "died"):
                    self.beyond.setdefault((name, m), []).append((problem, failure.status))
            remotes.pop(name).close()

        info: dict[str, Any] = {}
        try:
            for name in list(remotes):
                try:
                    if name in new:
                        remotes[name].answer(300)
                    info[name] = remotes[name].ask(self.limit, do="build", problem=problem.to_dict())
                except NoAnswerError as failure:
                    fail(name, modes[0], failure)
            for mode in modes:
                for name in list(remotes):
                    if mode in results[name]:
                        continue
                    self.say(f"{problem.key}: {name}, {mode}")
                    try:
                        begun = self._begin(remotes[name], mode, path, problem.tolerance)
                        results[name][mode] = begun | info[name]["info"]
                        results[name][mode]["build"] = info[name]["seconds"]
                    except NoAnswerError as failure:
                        fail(name, mode, failure)
                self.say(f"{problem.key}: {mode}, timing")
                self._rounds(remotes, mode, results, fail)
                for name in remotes:
                    if results[name][mode].get("seconds", 0.0) > _SLOW:
                        self.slow.setdefault((name, mode), []).append((problem, results[name][mode]["seconds"]))
        finally:
            for name, remote in remotes.items():
                if keep:
                    self._idle[name] = remote
                else:
                    remote.close()

    def _begin(self, remote: Remote, mode: str, path: str, tolerance: float) -> dict[str, Any]:
        first = remote.ask(self.limit, do="first", mode=mode)
        if not SUBJECTS[remote.name].computes:
            return {"status": "ok", "first": first["seconds"], "memory": first["memory"], "samples": []}
        check = remote.ask(2 * self.limit, do="check", mode=mode, reference=path)
        if not check["difference"] <= tolerance:
            raise NoAnswerError("wrong", f"differs from the reference by {check['difference']:.1e}")
        return {"status": "ok", "first": first["seconds"], "memory": first["memory"], "samples": []} | check

    def _rounds(self, remotes: dict[str, Remote], mode: str, results: Any, fail: Callable[..., None]) -> None:
        spent = dict.fromkeys(remotes, 0.0)
        for _ in range(self.rounds):
            for name in list(remotes):
                result = results[name][mode]
                if "samples" not in result or spent[name] > self.limit / 10:
                    continue
                try:
                    answer = remotes[name].ask(self.limit + 10, do="time", mode=mode, seconds=self.seconds)
                except NoAnswerError as failure:
                    fail(name, mode, failure)
                    continue
                result["samples"] += answer["samples"]
                result["memory"] = max(result["memory"], answer["memory"])
                spent[name] += sum(answer["samples"])
        for name in remotes:
            _summarise(results[name][mode])


def _summarise(result: dict[str, Any]) -> None:
    samples = result.pop("samples", None)
    if not samples:
        return
    quartiles = statistics.quantiles(samples, n=4) if len(samples) > 1 else [samples[0]] * 3
    result |= {
        "seconds": statistics.median(samples),
        "low": quartiles[0],
        "high": quartiles[2],
        "best": min(samples),
        "calls": len(samples),
    }


def _merged(passes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Results of several passes over one point as one: medians of their medians; a failure stays one."""
    out = passes[0]
    for name, modes in out.items():
        for mode, result in modes.items():
            every = [p[name][mode] for p in passes]
            failed = [r for r in every if r["status"] != "ok"]
            if failed:
                modes[mode] = failed[0]
            else:
                result["seconds"] = statistics.median(r["seconds"] for r in every)
    return out
