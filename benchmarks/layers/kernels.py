"""Gram matrices: `QuantumKernel` beside `qml.kernels` of PennyLane, in one process.

A ZZ feature map. PennyLane runs one circuit per pair, so that its time for all samples is that of a few, times the
number of pairs; the few are compared with ours, entry by entry. Needs pennylane beside qstore.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from qstore_core import QuantumKernel

from ..report import duration


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--samples", type=int, default=5000)
    p.add_argument("--qubits", type=int, default=8)
    p.add_argument("--few", type=int, default=12, help="samples for PennyLane")
    p.add_argument("--rounds", type=int, default=3)


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    n, samples, few = options.qubits, options.samples, options.few
    x = np.random.default_rng(0).uniform(0, 1, (samples, n))
    ours, theirs = QuantumKernel("zz", n_qubits=n), pennylane_kernel(n)
    ours(x[:few])
    difference = np.abs(ours(x[:few]) - theirs(x[:few])).max()
    times: dict[str, list[float]] = {"float32": [], "float64": [], "pennylane": []}
    for _ in range(options.rounds):
        for dtype in ("float32", "float64"):
            rows = x.astype(dtype)
            times[dtype].append(_seconds(lambda rows=rows: ours(rows)))
        times["pennylane"].append(_seconds(lambda: theirs(x[:few])))
    pairs, measured = samples * (samples + 1) // 2, few * (few + 1) // 2
    there = statistics.median(times["pennylane"]) * pairs / measured
    print(f"{samples} x {samples} entries, {n} qubits, ZZ feature map")
    print(f"  largest difference of {few} x {few}: {difference:.1e}")
    for dtype in ("float32", "float64"):
        here = statistics.median(times[dtype])
        print(f"  qstore QuantumKernel, {dtype}            {duration(here):>9}   1/{there / here:,.0f} of PennyLane's")
    times_more = f"{measured} pairs, times {pairs / measured:,.0f}"
    print(f"  PennyLane qml.kernels, default.qubit     {duration(there):>9}   {times_more}")


def pennylane_kernel(n: int) -> Any:
    """The same feature map in PennyLane, as a Gram matrix of samples."""
    import pennylane as qml

    def embed(x: np.ndarray) -> None:
        for _ in range(2):
            for q in range(n):
                qml.Hadamard(q)
                qml.PhaseShift(2 * x[q], q)
            for i in range(n):
                for j in range(i + 1, n):
                    qml.CNOT([i, j])
                    qml.PhaseShift(2 * (np.pi - x[i]) * (np.pi - x[j]), j)
                    qml.CNOT([i, j])

    @qml.qnode(qml.device("default.qubit", wires=n))
    def overlap(a: np.ndarray, b: np.ndarray) -> Any:
        embed(a)
        qml.adjoint(embed)(b)
        return qml.probs(wires=range(n))

    return lambda x: np.array(qml.kernels.square_kernel_matrix(x, lambda a, b: overlap(a, b)[0]))


def _seconds(call: Any) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
