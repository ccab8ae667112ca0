"""Qiskit Machine Learning: `EstimatorQNN` in a `TorchConnector`. Its amplitude encoding has no gradient."""

from __future__ import annotations

from typing import Any

from ..problem import Problem
from . import Library, Running, _torch, only_z


def layer(problem: Problem) -> Running:
    """On the exact estimator. Qiskit's qubit 0 is the least significant bit: qubit q here is its qubit n - 1 - q."""
    from qiskit.circuit import ParameterVector, QuantumCircuit
    from qiskit.primitives import StatevectorEstimator
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_machine_learning.circuit.library import raw_feature_vector
    from qiskit_machine_learning.connectors import TorchConnector
    from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    only_z(problem)

    class Gradient(ParamShiftEstimatorGradient):  # as it comes it refuses circuits with an amplitude encoding
        SUPPORTED_GATES = (*ParamShiftEstimatorGradient.SUPPORTED_GATES, "ParameterizedInitialize")

    n = problem.n_qubits
    estimator = StatevectorEstimator()
    encoder = raw_feature_vector(1 << n)  # normalises
    weights = ParameterVector("w", problem.n_weights)
    circuit = QuantumCircuit(n)
    circuit.compose(encoder, inplace=True)
    for level in range(problem.depth):
        for q in range(n):
            circuit.ry(weights[2 * (level * n + q)], n - 1 - q)
            circuit.rz(weights[2 * (level * n + q) + 1], n - 1 - q)
        for control, target in problem.pairs():
            circuit.cx(n - 1 - control, n - 1 - target)
    network = EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        gradient=Gradient(estimator),
        observables=[SparsePauliOp.from_sparse_list([("Z", [n - 1 - q], 1.0)], n) for q in range(n)],
        input_params=list(encoder.parameters),
        weight_params=list(weights),
        input_gradients=False,
        default_precision=0.0,
    )
    module = TorchConnector(network, initial_weights=problem.angles().ravel())

    def run(features: Any) -> Any:
        return module(features.detach())

    return _torch.running(run, [module.weight], problem)


LIBRARIES = (
    Library(
        "qiskit",
        "Qiskit ML",
        layer,
        "qiskit-machine-learning",
        ("torch", "qiskit_machine_learning"),
        "`EstimatorQNN` in a `TorchConnector`, `StatevectorEstimator`; no gradient for the features, whose amplitude "
        "encoding it cannot differentiate: it does less than the others",
    ),
)
