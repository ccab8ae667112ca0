"""One library in its own process: reads commands (one JSON object per line), measures, answers in kind.

{"do": "build", "problem": {…}}                    → {"seconds": …, "info": {…}}
{"do": "first", "mode": "forward" | "step"}        → {"seconds": …, "memory": bytes}
{"do": "check", "mode": …, "reference": path}      → {"difference": …, "inputs": true | false}
{"do": "time", "mode": …, "seconds": s}            → {"samples": [seconds, …], "memory": bytes}
{"do": "launches", "mode": …}                      → {"launches": kernels and copies of a call on the GPU}
{"do": "drop"}                                     → {}
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
import time
import traceback
import warnings
from typing import Any, TextIO

import numpy as np

from .peers import LIBRARIES, Running, to_numpy
from .problem import Problem, difference

MAX_SAMPLES = 2000
QUEUED = 2e-3  # seconds of calls that are queued on a GPU between two waits


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
        self.library = LIBRARIES[name]
        for module in self.library.imports:
            importlib.import_module(module)
        self.problem: Problem
        self.running: Running | None = None
        self.cotangents: Any = None

    def build(self, problem: dict[str, Any]) -> dict[str, Any]:
        self.drop()
        self.problem = Problem(**problem)
        begin = time.perf_counter()
        self.running = self.library.build(self.problem)
        self.cotangents = self.running.native(self.problem.cotangents())
        seconds = time.perf_counter() - begin
        # Memory is counted from here: libraries, data and parameters are there, nothing has run.
        self.base = resident()
        reset_peak()
        return {"seconds": seconds, "info": self.running.info}

    def drop(self) -> dict[str, Any]:
        self.running = self.cotangents = None
        if self.library.device == "cuda":
            gc.collect()
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()
        return {}

    def _run(self, mode: str, cotangents: Any = None, calls: int = 1) -> Any:
        assert self.running is not None
        cotangents = self.cotangents if cotangents is None else cotangents
        for _ in range(calls):
            out = self.running.forward() if mode == "forward" else self.running.step(cotangents)
        if self.running.finish is not None:
            self.running.finish(out)
        return out

    def _memory(self) -> int:
        assert self.running is not None
        return peak() - self.base if self.running.peak is None else self.running.peak()

    def first(self, mode: str) -> dict[str, Any]:
        begin = time.perf_counter()
        self._run(mode)
        return {"seconds": time.perf_counter() - begin, "memory": self._memory()}

    def check(self, mode: str, reference: str) -> dict[str, Any]:
        assert self.running is not None
        expected, rows = np.load(reference), self.problem.checked_rows()
        if mode == "forward":
            return {"difference": difference(to_numpy(self._run(mode), rows), expected["outputs"]), "inputs": None}
        outputs, d_theta, d_inputs = self._run(mode, self.running.native(self.problem.cotangents(rows)))
        worst = [
            difference(to_numpy(outputs, rows), expected["outputs"]),
            difference(to_numpy(d_theta).ravel(), expected["d_theta"]),
        ]
        if d_inputs is not None:
            d_inputs = to_numpy(d_inputs, rows)
            if self.running.info.get("unit"):  # unit rows: gradients before the projection of the normalisation
                x = self.problem.features()[rows]
                norm = np.linalg.norm(x, axis=1, keepdims=True)
                unit = x / norm
                d_inputs = (d_inputs - (d_inputs * unit).sum(1, keepdims=True) * unit) / norm
            worst.append(difference(d_inputs, expected["d_inputs"]))
        return {"difference": max(worst), "inputs": d_inputs is not None}

    def time(self, mode: str, seconds: float) -> dict[str, Any]:
        assert self.running is not None
        samples: list[float] = []
        calls = 1
        if self.running.finish is not None and self.library.device == "cuda":
            begin = time.perf_counter()
            self._run(mode, calls=3)
            calls = max(1, int(3 * QUEUED / (time.perf_counter() - begin)))
        reset_peak()
        begin = now = time.perf_counter()
        while now - begin < seconds and len(samples) < MAX_SAMPLES:
            self._run(mode, calls=calls)
            last, now = now, time.perf_counter()
            samples.append((now - last) / calls)
        return {"samples": samples, "memory": self._memory()}

    def launches(self, mode: str) -> dict[str, Any]:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as record:
            self._run(mode)
        return {"launches": sum(str(event.device_type).endswith("CUDA") for event in record.events())}


def main() -> None:
    """Serve until standard input ends."""
    warnings.filterwarnings("ignore")
    answers: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    try:
        worker = Worker(sys.argv[1])
    except (ImportError, OSError) as error:
        answers.write(json.dumps({"error": "unavailable", "message": str(error)}) + "\n")
        return
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # noqa: BLE001 (a library's failure is a result)
            traceback.print_exc()
            kind, status = type(error).__name__, "failed"
            if kind in ("UnknownBackendError", "BackendUnavailableError", "CapabilityError"):
                status = "unavailable"
            elif kind in ("MemoryError", "OutOfMemoryError") or "RESOURCE_EXHAUSTED" in str(error):
                status = "memory"
            answer = {"error": status, "message": f"{kind}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
