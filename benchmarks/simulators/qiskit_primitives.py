"""qiskit-machine-learning's EstimatorQNN on qstore's Estimator and on StatevectorEstimator, in one run.

ZZ feature map and real amplitudes, ⟨Z⟩ of every qubit, exact values; forward, and backward for weights and features by
the shift rule on both estimators and by qstore's EstimatorGradient. Results are checked equal first, and the three
alternate. Needs Qiskit and qiskit-machine-learning.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from ..report import duration

_CLOSE = 1e-8  # float64 simulations and sums of shifted ones differ by less


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--qubits", type=int, default=4)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--forward", action="store_true", help="no gradients, which take Qiskit minutes at 8 qubits")


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    from qiskit.primitives import StatevectorEstimator
    from qstore_plugins.qiskit_gradients import EstimatorGradient
    from qstore_plugins.qiskit_primitives import Estimator

    n = options.qubits
    networks = {
        "Estimator, EstimatorGradient": network(n, Estimator(), EstimatorGradient()),
        "Estimator, shift rule": network(n, Estimator(), None),
        "StatevectorEstimator, shift rule": network(n, StatevectorEstimator(), None),
    }
    rng = np.random.default_rng(0)
    first = next(iter(networks.values()))
    x, w = rng.uniform(0, 1, (options.batch, first.num_inputs)), rng.uniform(0, 1, first.num_weights)
    for what in ("forward",) if options.forward else ("forward", "backward"):
        times: dict[str, list[float]] = {name: [] for name in networks}
        expected: Any = None
        for number in range(options.rounds + 1):
            for name, one in networks.items():
                begin = time.perf_counter()
                made = getattr(one, what)(x, w)
                times[name].append(time.perf_counter() - begin)
                if number == 0:
                    expected = made if expected is None else expected
                    off = max(np.abs(a - b).max() for a, b in zip(_parts(made), _parts(expected), strict=True))
                    if off > _CLOSE:
                        raise SystemExit(f"{name} computes something else: off by {off:.1e}")
        medians = {name: statistics.median(values[1:]) for name, values in times.items()}
        print(f"EstimatorQNN, {n} qubits, {len(w)} weights, batch {options.batch}, {what}:")
        for name, seconds in medians.items():
            print(f"  {name:34} {duration(seconds):>9}  {seconds / min(medians.values()):7.1f}")


def _parts(made: Any) -> tuple[np.ndarray, ...]:
    return made if isinstance(made, tuple) else (made,)


def network(n: int, estimator: Any, gradient: Any) -> Any:
    """The network on one estimator."""
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import real_amplitudes, zz_feature_map
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    features, ansatz = zz_feature_map(n, reps=1), real_amplitudes(n, reps=2)
    circuit = QuantumCircuit(n)
    circuit.compose(features, inplace=True)
    circuit.compose(ansatz, inplace=True)
    return EstimatorQNN(
        circuit=circuit, estimator=estimator, gradient=gradient, input_gradients=True, default_precision=0.0,
        observables=[SparsePauliOp("I" * (n - 1 - q) + "Z" + "I" * q) for q in range(n)],
        input_params=list(features.parameters), weight_params=list(ansatz.parameters),
    )  # fmt: skip
