"""A layer on Aer against qiskit-machine-learning's `EstimatorQNN`, on two estimators, of which the faster one counts.

Angle encoding, ⟨Z⟩ of every qubit, exact values, forward; outputs are checked equal first, and the libraries alternate.
Needs qiskit-machine-learning (`benchmarks/requirements-peers.txt`) and qiskit-aer in this interpreter.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from qstore_core import QuantumFeatureExtractor, get_backend

from ..problem import Problem
from ..report import duration

_CLOSE = 1e-6  # outputs of float64 simulations differ by less


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--qubits", type=int, default=8)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--rounds", type=int, default=7)


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    from qiskit.primitives import StatevectorEstimator
    from qiskit_aer import AerSimulator
    from qiskit_aer.primitives import EstimatorV2

    submitted: list[int] = []

    class Counting(AerSimulator):
        def run(self, *arguments: Any, **more: Any) -> Any:
            submitted.append(1)
            return super().run(*arguments, **more)

    problem = Problem(options.qubits, options.batch, encoding="angle")
    aer = get_backend("aer", backend=Counting(method="statevector", runtime_parameter_bind_enable=True))
    layer = QuantumFeatureExtractor(**problem.layer(), backend=aer, fallback=None)
    layer.theta, x = problem.angles().ravel(), problem.features().astype(np.float64)
    statevector, by_aer = (estimator_qnn(problem, estimator) for estimator in (StatevectorEstimator(), EstimatorV2()))
    calls = {
        "qstore, backend aer": lambda: layer(x),
        "EstimatorQNN, StatevectorEstimator": lambda: statevector.forward(x, layer.theta),
        "EstimatorQNN, Aer's EstimatorV2": lambda: by_aer.forward(x, layer.theta),
    }
    expected = layer(x)
    for name, call in calls.items():
        off = np.abs(np.asarray(call()) - expected).max()
        if off > _CLOSE:
            raise SystemExit(f"{name} computes something else: off by {off:.1e}")
    submitted.clear()
    layer(x)
    print(f"{problem.n_qubits} qubits, depth {problem.depth}, batch {problem.batch}; submissions: {len(submitted)}")
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"  {name:36} {duration(seconds):>9}")
    ours, *theirs = medians.values()
    print(f"the faster EstimatorQNN takes {min(theirs) / ours:.1f} times as long")


def estimator_qnn(problem: Problem, estimator: object) -> Any:
    """The same circuit in Qiskit; its qubit 0 is the last of a Pauli string."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    n = problem.n_qubits
    circuit, x, w = QuantumCircuit(n), ParameterVector("x", n), ParameterVector("w", problem.n_weights)
    for q in range(n):
        circuit.ry(x[q], q)
    for level in range(problem.depth):
        for q in range(n):
            circuit.ry(w[2 * (level * n + q)], q)
            circuit.rz(w[2 * (level * n + q) + 1], q)
        for pair in problem.pairs():
            circuit.cx(*pair)
    return EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        observables=[SparsePauliOp("I" * (n - 1 - q) + "Z" + "I" * q) for q in range(n)],
        input_params=list(x),
        weight_params=list(w),
        default_precision=0.0,
    )
