"""The layer against PennyLane's `TorchLayer`, in one run: `python -m benchmarks.layer_vs_pennylane`.

8 qubits, depth 2, batch 32; forward, and forward + backward for weights and features. Values and gradients
are checked against qstore's NumPy engine in float64 first. Needs torch, tensorflow and pennylane in this
interpreter's environment (the extras `dev`, `torch` and `tf`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .lab import Lab
from .problem import Problem
from .report import cell, seconds
from .subjects import SUBJECTS

PEER = "pennylane"
LAYERS = ("torch-engine", "keras-xla")
PASSES = 5  # over both measurements, so that a machine that slows down slows both


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layer_vs_pennylane", description=__doc__)
    parser.add_argument("--qubits", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each, interleaved")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn")
    parser.add_argument("--threads", type=int, help="per library; default: what it takes")
    arguments = parser.parse_args()
    names = (PEER, *LAYERS)
    with tempfile.TemporaryDirectory() as scratch:
        lab = Lab(
            python=sys.executable,
            rounds=-(-arguments.rounds // PASSES),
            seconds=arguments.seconds,
            threads=arguments.threads,
            scratch=Path(scratch),
        )
        problems = {b: Problem(arguments.qubits, arguments.batch, arguments.depth, b) for b in ("Z", "ZXY")}
        measured = lab.measure_by_turns([(p, names) for p in problems.values()], PASSES, keep=True)
        lab.close()
        points = {bases: {"results": measured[problem.key]} for bases, problem in problems.items()}
    print(
        f"{arguments.qubits} qubits, depth {arguments.depth}, batch {arguments.batch}, float32, {os.cpu_count()} cores"
    )
    print(f"load average {os.getloadavg()[0]:.1f}; medians of {arguments.rounds} interleaved turns\n")
    head = (
        "",
        "forward",
        "× PennyLane",
        "forward + backward",
        "× PennyLane",
        "Z, X, Y",
        "÷ Z alone",
        "difference",
    )
    rows = [head]
    for name in names:
        row = [SUBJECTS[name].label]
        for mode in ("forward", "step"):
            mine, theirs = seconds(points["Z"], name, mode), seconds(points["Z"], PEER, mode)
            row += [
                cell(points["Z"]["results"][name].get(mode)),
                f"{theirs / mine:.1f}" if mine and theirs else "–",
            ]
        one, three = seconds(points["Z"], name, "step"), seconds(points["ZXY"], name, "step")
        result = points["Z"]["results"][name].get("step", {})
        row += [
            cell(points["ZXY"]["results"][name].get("step")),
            f"{three / one:.2f}" if one and three else "–",
            f"{result['difference']:.0e}" if "difference" in result else result.get("message", "–"),
        ]
        rows.append(row)
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    for row in rows:
        print(
            "  ".join(
                text.ljust(w) if k == 0 else text.rjust(w) for k, (text, w) in enumerate(zip(row, widths, strict=True))
            )
        )


if __name__ == "__main__":
    main()
