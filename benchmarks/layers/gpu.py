"""Layers on a CUDA GPU: qubits × batch, values checked first, the machine's limits beside the times.

Same circuit as on the CPU. Each library runs in a process of its own, in eager mode and, where it can, recorded in a
CUDA graph. First all that compiles is compiled side by side, into the libraries' caches on disk; then times are
taken one library after the other, in rounds. A time is that of a call in a row of calls with one wait at the end, as in
a training loop that does not read its loss. `--minutes` bounds the whole; points that are left are listed.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import report
from ..arithmetic import counts
from ..lab import MODES, ROOT, Remote
from ..peers import LIBRARIES, names
from ..problem import Problem
from ..results import Results, command, machine, now
from ..sections import add_lab_options, make_lab
from ..worker import NoAnswerError
from . import passes

QUBITS, BATCHES = (8, 10, 4, 12, 16, 18, 20, 14, 6, 2), (32, 4096, 256, 1)  # in the order of interest
_ONE_PROGRAM = 13  # qubits of one program of the triton engine; more are passes over memory
_WARM = 1 << 28  # bytes of the batch of states up to which a point is compiled ahead
_SIDE_BY_SIDE = 1 << 28  # bytes of the batch of states up to which libraries hold a point at the same time


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    add_lab_options(p, limit=20.0, rounds=3, seconds=0.05)
    p.add_argument("--minutes", type=float, default=30.0, help="for all of it")
    p.add_argument("--amplitudes", type=int, default=28, help="largest batch × 2**qubits, as a power of two")
    p.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.jsonl")
    p.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")


def main(options: argparse.Namespace) -> None:
    """Measure, or say that there is no GPU."""
    try:
        import torch

        there = torch.cuda.is_available()
    except ImportError:
        there = False
    if not there:
        print("There is no GPU here that PyTorch can use; nothing was measured.")
        return
    end = time.monotonic() + 60 * options.minutes
    some = [n for kind in ("ours", "peer") for n in names(kind, "cuda") if options.only is None or n in options.only]
    results = Results(options.output, resume=False)
    kept = {k: getattr(options, k) for k in ("limit", "rounds", "seconds", "minutes")}
    about = machine(some) | {"gpu": torch.cuda.get_device_name()}
    results.add("run", command=command(), started=now(), options=kept, machine=about, ceilings=ceilings())
    problems = [Problem(n, b) for b in options.batches or BATCHES for n in options.qubits or QUBITS]
    problems = [p for p in problems if p.batch << p.n_qubits <= 1 << options.amplitudes]
    unfinished = compile_ahead(problems, some, end)
    counted = [
        n for n in names("ours", "cuda") if "torch" in LIBRARIES[n].imports and not n.endswith(("-graph", "-inline"))
    ]
    lab = make_lab(options, side_by_side=_SIDE_BY_SIDE, at_once=True)
    for problem in problems:
        if time.monotonic() > end:
            results.add("left", **problem.to_dict())
            continue
        ready = [n for n in some if (n, problem) not in unfinished]
        ready += names("nothing", "cuda") if problem == problems[0] else ()
        measured = lab.measure(problem, ready, keep=True, launches=counted if problem.batch in (32, 4096) else ())
        late = {"status": "over", "message": "not compiled in half of the time"}
        measured |= {(n, mode): dict(late) for n in some if n not in ready for mode in MODES}
        for (_, mode), result in measured.items():
            result |= limits(problem, mode, results.lines[0]["ceilings"])
        results.add_point("gpu", problem, measured)
        print("\n".join(report.lines_of_point(measured)), flush=True)
        if problem.n_qubits > _ONE_PROGRAM and ("gpu-triton", problem) not in unfinished and "gpu-triton" in some:
            lab.close()  # memory for one more
            lines = passes.measure(problem)
            results.add("passes", **problem.to_dict(), lines=lines)
            print(
                "\n".join(report.table(passes.HEAD, passes.shares(lines, results.lines[0]["ceilings"]["copy"]))),
                flush=True,
            )
    lab.close()
    results.add("finished", at=now())
    print("\n".join(report.tables(results)))
    if options.docs:
        report.write_page(results)


def compile_ahead(problems: list[Problem], some: list[str], end: float) -> set[tuple[str, Problem]]:
    """Call everything once, many processes side by side, so that what compiles is in the caches on disk.

    Returns:
        Libraries and points that half of the time was too short for.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "/tmp/qstore-benchmarks-jax")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    begin = time.monotonic()
    until = begin + (end - begin) / 2
    compiling = [n for n in some if {"jax", "triton_qml"} & set(LIBRARIES[n].imports) or n.endswith("triton")]
    small = [p for p in problems if p.state_bytes <= _WARM]

    def call(name: str, points: list[Problem]) -> set[tuple[str, Problem]]:
        left = list(points)
        remote = Remote(name, None, 1 << 36) if time.monotonic() < until else None
        try:
            while remote and left:
                for command, more in (("build", {"problem": left[0]}), *(("first", {"mode": mode}) for mode in MODES)):
                    remote.ask(max(until - time.monotonic(), 0.0), command, **more)
                del left[0]
        except NoAnswerError as failure:
            print(f"  compiling ahead: {name}, {left[0].key}: {failure.status}", flush=True)
            if failure.status != "over":
                left = []  # the measurement will say what is wrong
        if remote:
            remote.close()
        return {(name, problem) for problem in left}

    tasks = [
        (name, [p for p in small if p.n_qubits == n])
        for n in dict.fromkeys(p.n_qubits for p in small)
        for name in compiling
        if n in LIBRARIES[name].qubits
    ]
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        unfinished = set().union(*pool.map(lambda task: call(*task), tasks))
    print(f"compiled ahead in {time.monotonic() - begin:.0f} s", flush=True)
    return unfinished


def ceilings() -> dict[str, float]:
    """What this GPU can do: bytes of a copy and multiply-adds of a product per second, seconds of a launch."""
    import torch

    def median(call: Any, repeats: int = 10, per: int = 1) -> float:
        times = []
        for _ in range(repeats + 2):
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(per):
                call()
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop) * 1e-3 / per)
        return sorted(times[2:])[repeats // 2]

    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.numel() * 4 / median(lambda: target.copy_(source))
    a = torch.randn(4096, 4096, device="cuda")
    product = 4096**3 / median(lambda: a @ a)
    one = torch.zeros(1, device="cuda")
    launch = median(lambda: one.add_(1.0), per=200)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(200):
            one.add_(1.0)
    replay = median(graph.replay) / 200
    torch.cuda.empty_cache()
    return {"copy": copy, "multiply_adds": product, "launch": launch, "launch_in_graph": replay}


def limits(problem: Problem, mode: str, ceilings: dict[str, float]) -> dict[str, float]:
    """The least that a call must do: features read (twice with gradients, which are written once), and arithmetic."""
    bytes_ = (1 if mode == "forward" else 3) * 4 * problem.batch << problem.n_qubits
    adds = counts(problem, "", mode)["multiply_adds"]
    floor = max(bytes_ / ceilings["copy"], adds / ceilings["multiply_adds"], ceilings["launch_in_graph"])
    return {"bytes": bytes_, "multiply_adds": adds, "floor": floor}
