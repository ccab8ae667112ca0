"""A layer on Aer against qiskit-machine-learning's `EstimatorQNN`.

8 qubits, depth 2, batch 32, angle encoding, ⟨Z⟩ of every qubit, exact values, forward pass; outputs are checked equal
first, and the two take turns. EstimatorQNN runs on `StatevectorEstimator` and on Aer's `EstimatorV2`; the faster one
counts. Needs qiskit-machine-learning (`benchmarks/requirements-peers.txt`) and qiskit-aer in this interpreter.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from qstore_core import QuantumFeatureExtractor, get_backend


def qnn(n_qubits: int, depth: int, estimator: object) -> Any:
    """The same circuit in Qiskit; its qubit 0 is the last of a Pauli string."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    circuit = QuantumCircuit(n_qubits)
    x, w = ParameterVector("x", n_qubits), ParameterVector("w", depth * n_qubits * 2)
    for q in range(n_qubits):
        circuit.ry(x[q], q)
    for level in range(depth):
        for q in range(n_qubits):
            circuit.ry(w[2 * (level * n_qubits + q)], q)
            circuit.rz(w[2 * (level * n_qubits + q) + 1], q)
        for a in range(n_qubits):
            for b in range(a + 1, n_qubits):
                circuit.cx(a, b)
    strings = ["I" * (n_qubits - 1 - q) + "Z" + "I" * q for q in range(n_qubits)]
    return EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        observables=[SparsePauliOp(string) for string in strings],
        input_params=list(x),
        weight_params=list(w),
        default_precision=0.0,
    )


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--qubits", type=int, default=8)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--depth", type=int, default=2)
    p.add_argument("--rounds", type=int, default=7)


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    from qiskit.primitives import StatevectorEstimator
    from qiskit_aer import AerSimulator
    from qiskit_aer.primitives import EstimatorV2

    submitted: list[int] = []

    class Counting(AerSimulator):
        """AerSimulator that counts what is submitted to it."""

        def run(self, *arguments, **options):
            submitted.append(1)
            return super().run(*arguments, **options)

    simulator = Counting(method="statevector", runtime_parameter_bind_enable=True)
    layer = QuantumFeatureExtractor(
        options.qubits,
        options.depth,
        encoding="angle",
        backend=get_backend("aer", backend=simulator),
        fallback=None,
        seed=0,
    )
    rng = np.random.default_rng(0)
    layer.theta = rng.uniform(-np.pi, np.pi, layer.spec.n_weights)
    x = rng.uniform(-np.pi, np.pi, (options.batch, options.qubits))
    networks = {
        "EstimatorQNN, StatevectorEstimator": qnn(options.qubits, options.depth, StatevectorEstimator()),
        "EstimatorQNN, Aer's EstimatorV2": qnn(options.qubits, options.depth, EstimatorV2()),
    }
    calls = {"qstore, backend aer": lambda: layer(x)}
    calls |= {name: lambda network=network: network.forward(x, layer.theta) for name, network in networks.items()}

    expected = layer(x)
    for name, call in calls.items():
        difference = np.abs(np.asarray(call()) - expected).max()
        if difference > 1e-6:
            raise SystemExit(f"{name} computes something else: off by {difference:.1e}")
    submitted.clear()
    layer(x)
    submissions = len(submitted)

    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours, *theirs = medians.values()
    print(f"{options.qubits} qubits, depth {options.depth}, batch {options.batch}, forward, float64, exact")
    for name, seconds in medians.items():
        print(f"  {name:36} {seconds * 1e3:9.2f} ms")
    print(f"one forward pass on aer: {submissions} submission{'s' * (submissions != 1)}")
    print(f"the faster EstimatorQNN takes {min(theirs) / ours:.1f} times as long")
