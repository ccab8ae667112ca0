"""One library in its own process: reads commands (one JSON object per line), measures, answers in kind.

{"do": "build", "problem": {…}}                    → {"seconds": …, "info": {…}}
{"do": "first", "mode": "forward" | "step"}        → {"seconds": …, "memory": bytes}
{"do": "check", "mode": …, "reference": path}      → {"difference": …, "inputs": true | false}
{"do": "time", "mode": …, "seconds": s}            → {"samples": [seconds, …], "memory": bytes}
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from typing import Any, TextIO

import numpy as np

from .problem import Problem, difference
from .subjects import SUBJECTS, Running, to_numpy

MAX_SAMPLES = 2000


def resident() -> int:
    """Resident bytes now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """Largest resident bytes since `reset_peak`, or since the start where the kernel cannot reset it."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """Make `peak` count from now."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class Worker:
    """Answers commands."""

    def __init__(self, name: str) -> None:
        self.subject = SUBJECTS[name]
        for module in self.subject.imports:
            importlib.import_module(module)
        self.problem: Problem
        self.running: Running
        self.cotangents: Any

    def build(self, problem: dict[str, Any]) -> dict[str, Any]:
        self.problem = Problem(**problem)
        begin = time.perf_counter()
        self.running = self.subject.build(self.problem)
        self.cotangents = self.running.native(self.problem.cotangents())
        seconds = time.perf_counter() - begin
        # Memory is counted from here: libraries, data and parameters are there, nothing has run.
        self.base = resident()
        reset_peak()
        return {"seconds": seconds, "info": self.running.info}

    def _call(self, mode: str) -> Any:
        return self.running.forward() if mode == "forward" else self.running.step(self.cotangents)

    def first(self, mode: str) -> dict[str, Any]:
        begin = time.perf_counter()
        self._call(mode)
        return {"seconds": time.perf_counter() - begin, "memory": peak() - self.base}

    def check(self, mode: str, reference: str) -> dict[str, Any]:
        expected, rows = np.load(reference), self.problem.checked_rows()
        if mode == "forward":
            received = to_numpy(self.running.forward())[rows]
            return {"difference": difference(received, expected["outputs"]), "inputs": None}
        masked = self.running.native(self.problem.cotangents(rows))
        outputs, d_theta, d_inputs = self.running.step(masked)
        worst = [
            difference(to_numpy(outputs)[rows], expected["outputs"]),
            difference(to_numpy(d_theta).ravel(), expected["d_theta"]),
        ]
        if d_inputs is not None:
            d_inputs, wanted = to_numpy(d_inputs)[rows], expected["d_inputs"]
            if self.running.info.get("unit"):  # unit rows: gradients before the projection of the normalisation
                x = self.problem.features()[rows]
                norm = np.linalg.norm(x, axis=1, keepdims=True)
                unit = x / norm
                d_inputs = (d_inputs - (d_inputs * unit).sum(1, keepdims=True) * unit) / norm
            worst.append(difference(d_inputs, wanted))
        return {"difference": max(worst), "inputs": d_inputs is not None}

    def time(self, mode: str, seconds: float) -> dict[str, Any]:
        samples = []
        reset_peak()
        begin = now = time.perf_counter()
        while now - begin < seconds and len(samples) < MAX_SAMPLES:
            self._call(mode)
            last, now = now, time.perf_counter()
            samples.append(now - last)
        return {"samples": samples, "memory": peak() - self.base}


def main() -> None:
    """Serve until standard input ends."""
    answers: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    try:
        worker = Worker(sys.argv[1])
    except ImportError as error:
        answers.write(json.dumps({"error": "unavailable", "message": str(error)}) + "\n")
        return
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # noqa: BLE001 (a library's failure is a result)
            traceback.print_exc()
            kind = type(error).__name__
            status = {"UnknownBackendError": "unavailable", "BackendUnavailableError": "unavailable"}.get(
                kind, "failed"
            )
            status = "memory" if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) else status
            answer = {"error": status, "message": f"{kind}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
