"""One run: the grid, how cost grows, and the share of the machine's peak."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from qstore_core import QuantumFeatureExtractor, lower
from qstore_core.circuit.plan import Plan

from .arithmetic import multiply_adds, peak, scheduled_multiply_adds
from .lab import ROOT, Lab
from .problem import Problem
from .report import cell, write
from .subjects import NOTHING, OURS, PEERS, SUBJECTS

QUBITS = tuple(range(2, 21, 2))
BATCHES = (1, 32, 256)
DEPTHS = (1, 2, 5, 10, 20, 50, 100)
MEMORY_DEPTHS = (2, 10, 30, 100)
GROWTH_BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
_KEPT_QUBITS = 12  # up to here a worker serves all batches of a size: starting it takes longer than measuring
PASSES = 3  # over both points of a ratio that no turns of one point interleave
ENGINES = ("engine-numba", "engine-numpy")


def machine() -> dict[str, Any]:
    """What ran."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags"))
        model += " (AVX-512)" if "avx512f" in flags else " (AVX2)" if "avx2" in flags else ""
    except (OSError, StopIteration):
        pass
    versions = {}
    for name in sorted({s.distribution for s in SUBJECTS.values()} | {"numpy", "numba", "torch", "tensorflow", "jax"}):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def plan_cost(problem: Problem, count: Callable[[Plan], dict[str, int]] = multiply_adds) -> dict[str, int]:
    """Multiply-adds of the whole batch, by mode."""
    spec = QuantumFeatureExtractor(problem.n_qubits, problem.depth, measurement_bases=tuple(problem.bases)).spec
    assert spec.measurement is not None
    counts = count(lower(spec.circuit, spec.measurement))
    return {mode: number * problem.batch for mode, number in counts.items()}


def sections(arguments: argparse.Namespace) -> dict[str, list[tuple[Problem, tuple[str, ...]]]]:
    """What is measured: section → points and libraries."""
    quick = arguments.quick
    qubits = arguments.qubits or ((2, 4, 8) if quick else QUBITS)
    batches = arguments.batches or ((1, 32) if quick else BATCHES)
    names = arguments.only or (*OURS, *PEERS)
    ours = tuple(name for name in ("torch-auto", "torch-engine", "keras-xla", "numpy") if name in names)
    contrast = tuple(
        name for name in ("torch-auto", "torch-engine", "numpy", "tensorcircuit", "pennylane") if name in names
    )
    middle = 32 if 32 in batches else batches[-1]  # first: it is reported from processes that did nothing before
    order = sorted(batches, key=lambda b: b != middle)
    grid = {"grid": [(Problem(n, b), tuple(names)) for n in qubits for b in order]}
    if arguments.no_growth:
        return grid
    out: dict[str, list[tuple[Problem, tuple[str, ...]]]] = {}
    size = 10 if quick else 14
    out["depth"] = [(Problem(8, 32, d), ours) for d in (DEPTHS[:3] if quick else DEPTHS)]
    out["batch"] = [(Problem(8, b), ours) for b in (GROWTH_BATCHES[:4] if quick else GROWTH_BATCHES)]
    out["memory"] = [(Problem(size, 16, d), contrast) for d in (MEMORY_DEPTHS[:2] if quick else MEMORY_DEPTHS)]
    bases = tuple(name for name in (*ours, "numpy-numba", "keras-auto", "pennylane") if name in names)
    out["bases"] = [(Problem(8, 32, 2, letters), bases) for letters in ("Z", "ZXY")]
    out["nothing"] = [(Problem(4, 32), NOTHING)]
    return out | grid


def run(arguments: argparse.Namespace) -> None:
    """Measure and write the report."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers end with it
    console = Console()
    output = arguments.output or (ROOT / "benchmarks" / "results")
    name = "quick" if arguments.quick else "grid"
    output.mkdir(parents=True, exist_ok=True)
    if arguments.report is not None:
        write(
            json.loads(arguments.report.read_text()),
            output,
            name,
            docs=not arguments.quick and not arguments.output,
        )
        return
    plan = sections(arguments)
    results: dict[str, Any] = {
        "machine": machine(),
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "options": {k: getattr(arguments, k) for k in ("limit", "rounds", "seconds", "threads", "quick")},
        "command": "python -m benchmarks" + "".join(f" {a}" for a in _without_python(sys.argv[1:])),
        "load": [],
    }
    saved = output / f"{name}.json"
    if arguments.resume and saved.exists():
        results = json.loads(saved.read_text())
    console.print(f"{results['machine']['cpu']}, {results['machine']['cores']} cores; peak multiply-adds:")
    cores = os.cpu_count() or 1
    results["peak"] = results.get("peak") or {"one": peak(1, 1.0), "all": peak(cores, 1.0)}
    for which in results["peak"].values():
        console.print(f"  {which['threads']} threads: {which['peak'] / 1e9:.1f} · 10⁹ per second")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total = sum(len(points) for points in plan.values())
    with Progress(*columns, console=console) as progress, tempfile.TemporaryDirectory() as scratch:
        task = progress.add_task("", total=total + (0 if arguments.no_growth else 1))
        for section, points in plan.items():
            lab = _lab(arguments, Path(scratch), lambda text: progress.update(task, description=text))
            done, kept_for = results.setdefault(section, {}), 0
            together = lab.measure_by_turns(points, PASSES) if section == "bases" and not done else {}
            for problem, names in points:
                if problem.key in done:
                    progress.advance(task)
                    continue
                results["load"].append(round(os.getloadavg()[0], 2))
                if kept_for != problem.n_qubits:
                    lab.close()
                kept_for = problem.n_qubits
                keep = section == "grid" and problem.n_qubits <= _KEPT_QUBITS
                measured = together.get(problem.key) or lab.measure(problem, names, keep=keep)
                results[section][problem.key] = {
                    "problem": problem.to_dict(),
                    "multiply_adds": plan_cost(problem),
                    "results": measured,
                }
                progress.console.print(_line(section, problem, measured))
                progress.advance(task)
                saved.write_text(json.dumps(results, indent=1))
            lab.close()
        if not arguments.no_growth:
            lab = _lab(arguments, Path(scratch), lambda text: progress.update(task, description=text))
            lab.threads, lab.rounds = 1, PASSES * lab.rounds  # two engines at a point: more turns cost little
            results["arithmetic"] = {}
            for n in (4, 8) if arguments.quick else (4, 6, 8, 10, 12):
                problem = Problem(n, 256)
                measured = lab.measure(problem, ENGINES)
                results["arithmetic"][problem.key] = {
                    "problem": problem.to_dict(),
                    "multiply_adds": plan_cost(problem),
                    "scheduled": plan_cost(problem, scheduled_multiply_adds),
                    "results": measured,
                }
                progress.console.print(_line("one thread", problem, measured))
            progress.advance(task)
    results["finished"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    saved.write_text(json.dumps(results, indent=1))
    for path in write(results, output, name, docs=not arguments.quick and not arguments.output):
        console.print(f"wrote {path}")


def _lab(arguments: argparse.Namespace, scratch: Path, say: Any) -> Lab:
    lab = Lab(
        python=arguments.python,
        limit=arguments.limit,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        threads=arguments.threads,
        scratch=scratch,
        say=say,
    )
    if arguments.memory is not None:
        lab.memory = int(arguments.memory * 2**30)
    return lab


def _line(section: str, problem: Problem, measured: dict[str, Any]) -> str:
    parts = [f"{name} {cell(modes.get('step'))}" for name, modes in measured.items()]
    depth = "" if problem.depth == 2 else f", depth {problem.depth}"
    return f"{section}: {problem.n_qubits} qubits, batch {problem.batch}{depth}, {problem.bases}: " + " · ".join(parts)


def _without_python(arguments: list[str]) -> list[str]:
    out = list(arguments)
    while "--python" in out:
        k = out.index("--python")
        del out[k : k + 2]
    return out
