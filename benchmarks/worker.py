"""One library in its own process: `serve` answers commands that come through a pipe, which are methods of `Worker`."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import time
import warnings
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from qstore_core import BackendUnavailableError, CapabilityError, UnknownBackendError

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


class NoAnswerError(Exception):
    """There is no answer; `status` names why."""

    def __init__(self, status: str, message: str = "") -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


class Worker:
    """Sets a library up for a problem, and calls it."""

    def __init__(self, name: str) -> None:
        self.library = LIBRARIES[name]
        for module in self.library.imports:
            importlib.import_module(module)
        self.problem: Problem
        self.running: Running | None = None
        self.cotangents: Any = None

    def build(self, problem: Problem) -> dict[str, Any]:
        self.drop()
        self.problem = problem
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

    def check(self, mode: str, expected: dict[str, np.ndarray]) -> dict[str, Any]:
        assert self.running is not None
        rows = self.problem.checked_rows()
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
        on_gpu = [event for event in record.events() if str(event.device_type).endswith("CUDA")]
        return {"launches": len(on_gpu), "busy": 1e-6 * sum(event.time_range.elapsed_us() for event in on_gpu)}


def serve(name: str, pipe: Connection) -> None:
    """Answer (command, arguments) until the pipe ends; what goes wrong is answered as a `NoAnswerError`."""
    warnings.filterwarnings("ignore")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what libraries print
        os.dup2(nowhere, stream)
    try:
        worker = Worker(name)
    except (ImportError, OSError) as error:
        pipe.send(NoAnswerError("unavailable", str(error)))
        return
    pipe.send({})
    with contextlib.suppress(EOFError):
        while True:
            command, arguments = pipe.recv()
            try:
                answer = getattr(worker, command)(**arguments)
            except Exception as error:  # noqa: BLE001 (a library's failure is a result)
                answer = NoAnswerError(_status(error), f"{type(error).__name__}: {error}"[:500])
            pipe.send(answer)


def _status(error: Exception) -> str:
    if isinstance(error, BackendUnavailableError | CapabilityError | UnknownBackendError):
        return "unavailable"
    out_of_memory = type(error).__name__ in ("MemoryError", "OutOfMemoryError") or "RESOURCE_EXHAUSTED" in str(error)
    return "memory" if out_of_memory else "failed"
