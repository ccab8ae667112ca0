"""What is measured on a CPU: the grid, how cost grows, three bases, and the share of the machine's peak."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import report
from .arithmetic import counts, peak
from .lab import ROOT, Lab, alternate
from .peers import names
from .problem import Problem
from .results import Results, command, machine, now

SECTIONS = {
    "depth": "time against depth, 8 qubits, batch 32",
    "batch": "time against batch, 8 qubits",
    "memory": "peak memory against depth",
    "bases": "Z, X and Y against Z alone, in alternation",
    "nothing": "what a framework takes for a call by itself",
    "crossover": "Keras without XLA: TensorFlow's operations or two host calls",
    "grid": "every library, qubits × batch",
    "arithmetic": "engines by themselves on one thread: share of the machine's peak",
}
WHOLE = tuple(name for name in SECTIONS if name != "crossover")  # what the page shows
QUBITS, BATCHES = tuple(range(2, 21, 2)), (32, 1, 256)  # batch 32 first: in processes that did nothing before
DEPTHS, MEMORY_DEPTHS = (1, 2, 5, 10, 20, 50, 100), (2, 10, 30, 100)
GROWTH_BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
_KEPT_QUBITS = 12  # up to here a worker serves all batches of a size: starting it takes longer than measuring
_PASSES = 3  # over both points of a ratio that no rounds of one point interleave


def whole(text: str) -> tuple[int, ...]:
    """Numbers from "2,4,8"."""
    return tuple(int(part) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    """Names from "a,b"."""
    return tuple(text.split(","))


def add_lab_options(p: argparse.ArgumentParser, limit: float, rounds: int, seconds: float) -> None:
    """Options of everything that measures libraries in processes of their own."""
    p.add_argument("--qubits", type=whole, help="such as 2,4,8")
    p.add_argument("--batches", type=whole, help="such as 1,32")
    p.add_argument("--only", type=words, help="names of libraries, such as torch-auto,pennylane")
    p.add_argument("--limit", type=float, default=limit, help="seconds that a call may take, compilation included")
    p.add_argument("--rounds", type=int, default=rounds, help="times that every library is measured at a point")
    p.add_argument("--seconds", type=float, default=seconds, help="length of one such measurement")
    p.add_argument("--memory", type=float, help="GiB that a library may hold; default: 70 %% of the machine's")


def add_options(p: argparse.ArgumentParser) -> None:
    """Options of the sections."""
    add_lab_options(p, limit=60.0, rounds=5, seconds=0.1)
    p.add_argument("--python", help="interpreter that has the libraries; default: that of .venv-peers")
    p.add_argument("--threads", type=int, help="per library; default: what the library takes")
    p.add_argument("--quick", action="store_true", help="few points; leaves docs/ alone")
    p.add_argument("--resume", action="store_true", help="go on with a run that ended early; keeps what it measured")
    p.add_argument("--output", type=Path, help="where the JSON lines go; default: benchmarks/results/NAME.jsonl")


def make_lab(options: argparse.Namespace, **more: Any) -> Lab:
    """A lab as the options say."""
    lab = Lab(options.limit, rounds=options.rounds, seconds=options.seconds, **more)
    lab.say = lambda text: print(f"  {text}", flush=True)
    if options.memory is not None:
        lab.memory = int(options.memory * 2**30)
    return lab


def points(section: str, options: argparse.Namespace) -> list[tuple[Problem, Sequence[str]]]:
    """Points and libraries of a section."""
    quick, every = options.quick, (*names("ours"), *names("peer"))

    def chosen(*wanted: str) -> tuple[str, ...]:
        return tuple(n for n in (wanted or every) if options.only is None or n in options.only)

    ours = chosen("torch-auto", "torch-engine", "keras-xla", "numpy")
    if section == "depth":
        return [(Problem(8, 32, d), ours) for d in (DEPTHS[:3] if quick else DEPTHS)]
    if section == "batch":
        return [(Problem(8, b), ours) for b in (GROWTH_BATCHES[:4] if quick else GROWTH_BATCHES)]
    if section == "memory":
        some = chosen("torch-auto", "torch-engine", "numpy", "tensorcircuit", "pennylane")
        return [(Problem(10 if quick else 14, 16, d), some) for d in (MEMORY_DEPTHS[:2] if quick else MEMORY_DEPTHS)]
    if section == "bases":
        some = chosen("torch-auto", "torch-engine", "keras-xla", "numpy", "numpy-numba", "keras-auto", "pennylane")
        return [(Problem(8, 32, 2, bases), some) for bases in ("Z", "ZXY")]
    if section == "nothing":
        return [(Problem(4, 32), names("nothing"))]
    if section == "crossover":
        sizes = [(n, b) for n in options.qubits or (1, 2, 3, 4, 6, 8, 10) for b in options.batches or (1, 32, 256)]
        return [(Problem(n, b, encoding=e), names("variant")) for e in ("amplitude", "angle") for n, b in sizes]
    if section == "arithmetic":
        return [(Problem(n, 256), names("engine")) for n in ((4, 8) if quick else (4, 6, 8, 10, 12))]
    qubits = options.qubits or ((2, 4, 8) if quick else QUBITS)
    batches = options.batches or ((32, 1) if quick else BATCHES)
    return [(Problem(n, b), chosen()) for n in qubits for b in batches]


def measure(section: str, options: argparse.Namespace, results: Results) -> None:
    """Measure what a section lacks, and print it."""
    lab = make_lab(options, threads=options.threads)
    todo = [(p, some) for p, some in points(section, options) if not results.get(section, **p.to_dict())]
    print(f"{section}: {SECTIONS[section]}", flush=True)
    if section == "bases" and todo:
        for (problem, _), measured in zip(todo, alternate(lab, todo, _PASSES), strict=True):
            results.add_point(section, problem, measured)
        todo = []
    if section == "arithmetic":
        lab.threads, lab.rounds = 1, _PASSES * lab.rounds  # two engines at a point: more rounds cost little
        for threads in (1, os.cpu_count() or 1):
            results.get("peak", threads=threads) or results.add("peak", **peak(threads))
    kept_for = 0
    for problem, some in todo:
        if kept_for != problem.n_qubits:
            lab.close()
        kept_for = problem.n_qubits
        results.add("load", average=round(os.getloadavg()[0], 2))
        measured = lab.measure(
            problem, some, keep=section in ("grid", "crossover") and problem.n_qubits <= _KEPT_QUBITS
        )
        for (name, mode), result in measured.items():
            if section == "arithmetic":
                result |= counts(problem, name, mode)
        results.add_point(section, problem, measured)
        print("\n".join(report.lines_of_point(measured)), flush=True)
    lab.close()


def main(options: argparse.Namespace) -> None:
    """Measure, print, and for a whole run write the page."""
    whole_run = options.command == "page"
    name = "quick" if options.quick else "grid" if whole_run else options.command
    path = options.output or ROOT / "benchmarks" / "results" / f"{name}.jsonl"
    results = Results(path, resume=options.resume)
    if not results.get("run"):
        kept = {k: getattr(options, k) for k in ("limit", "rounds", "seconds", "threads", "quick")}
        about = machine((*names("ours"), *names("peer")))
        results.add("run", command=command(), started=now(), options=kept, machine=about)
    for section in WHOLE if whole_run else (options.command,):
        measure(section, options, results)
    results.add("finished", at=now())
    print("\n".join(report.tables(results)))
    if whole_run and not options.quick and options.output is None:
        report.write_page(results)
    print(f"\nwrote {path}")
