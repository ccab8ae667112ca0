"""A dozen fixed circuits against PennyLane (values, gradients) and Qiskit Aer (values), translated gate by gate here.

Both libraries know nothing of ours: they check the gate table, the encodings, the order of qubits and outputs, and the
normalisation of amplitudes all at once.
"""

from __future__ import annotations

import numpy as np
import pytest

import qstore_core
from qstore_core import IQP, Amplitudes, Circuit, Pauli, Probabilities
from tests.support.tolerances import GRADIENT, VALUE, angle_stretch

pytest.importorskip("pennylane")
pytest.importorskip("qiskit_aer")
torch = pytest.importorskip("torch")

BATCH = 3


def one_qubit_gates():
    c = Circuit(4)
    x, w = c.inputs(3), c.weights(7)
    for q in range(4):
        c.h(q)
    c.rx(x[0], 0), c.ry(x[1] + w[0], 1), c.rz(w[1], 2), c.p(2 * x[2], 3)
    c.rot(w[2], x[0], w[3], 1), c.u3(w[4], w[5], w[6], 2)
    c.cnot(0, 1), c.cnot(2, 3), c.cnot(1, 2)
    c.x(0), c.y(1), c.z(2), c.s(0), c.sdg(1), c.t(2), c.tdg(3), c.sx(1), c.sx(3), c.id(0)
    return c


def controlled_gates():
    c = Circuit(4)
    x, w = c.inputs(4), c.weights(3)
    for q in range(4):
        c.ry(x[q], q)
    c.cy(1, 2), c.cz(2, 3), c.ch(3, 0)
    c.crx(w[0], 0, 3), c.cry(x[1], 3, 1), c.crz(w[1] * x[2], 1, 0), c.cp(w[2], 2, 1), c.cry(w[2], 0, 2)
    return c


def gates_of_several_qubits():
    c = Circuit(4)
    x, w = c.inputs(4), c.weights(3)
    for q in range(4):
        c.rx(x[q], q)
    c.swap(0, 2), c.iswap(1, 3)
    c.rxx(w[0], 0, 1), c.ryy(x[0] * x[1], 1, 2), c.rzz(w[1], 3, 2)
    c.ccx(0, 1, 2), c.ccz(1, 2, 3), c.cswap(3, 0, 1), c.ry(w[2], 2)
    return c


def mixed():
    c = Circuit(3, amplitudes=True)
    x, w = c.inputs(2), c.weights(2)
    c.ry(w[0] * x[0], 0), c.cnot(0, 2), c.rx(x[1] - w[1], 2), c.cz(2, 1), c.ry(w[1], 1)
    return c


STRINGS = (Pauli("ZXYI"), 0.5 * Pauli("IZZY") - 1.5 * Pauli("XIII"), Pauli("IIII") + Pauli("YYYY"))
LAYERS = {
    "guide": lambda: qstore_core.QuantumFeatureExtractor(8, seed=0),
    "original": lambda: qstore_core.QuantumFeatureExtractor(4, 3, measurement_bases=("Z", "X", "Y"), seed=1),
    "padded": lambda: qstore_core.QuantumFeatureExtractor(3, seed=2),
    "angle": lambda: qstore_core.QuantumFeatureExtractor(3, encoding="angle", entanglement="circular", seed=3),
    "reuploading": lambda: qstore_core.QuantumReadout(3, 5, depth=3, encoding="angle", reuploading=True, seed=4),
    "iqp": lambda: qstore_core.QuantumFeatureExtractor(3, encoding=IQP(2), measurement_bases="X", seed=5),
    "zz": lambda: qstore_core.QuantumFeatureExtractor(3, encoding="zz", ansatz="real_amplitudes", seed=6),
    "strongly": lambda: qstore_core.QuantumFeatureExtractor(4, ansatz="strongly_entangling", seed=7),
    "pooling": lambda: qstore_core.QuantumPooling(6, seed=8),
    "pooling of three": lambda: qstore_core.QuantumPooling(6, 3, encoding="angle", depth=2, seed=9),
    "one-qubit gates": lambda: qstore_core.QuantumLayer(one_qubit_gates(), STRINGS, seed=10),
    "controlled gates": lambda: qstore_core.QuantumLayer(controlled_gates(), STRINGS, seed=10),
    "gates of several qubits": lambda: qstore_core.QuantumLayer(gates_of_several_qubits(), STRINGS, seed=10),
    "amplitudes and angles": lambda: qstore_core.QuantumLayer(mixed(), Probabilities(qubits=(2, 0)), seed=11),
    "classes": lambda: qstore_core.QuantumReadout(4, 3, seed=12),
}


@pytest.fixture(params=LAYERS)
def problem(request):
    """A layer, weights far from its small initial ones, features and cotangents."""
    layer = LAYERS[request.param]()
    rng = np.random.default_rng(99)
    layer.theta = rng.uniform(-np.pi, np.pi, layer.spec.n_weights)
    width = 5 if request.param == "padded" else layer.spec.n_features
    return layer, rng.normal(size=(BATCH, width)), rng.normal(size=(BATCH, layer.output_dim))


def unit_amplitudes(circuit, x):
    """The features that are amplitudes, as padded unit rows (a tensor or None), and those that are angles."""
    if not circuit.n_amplitudes:
        return None, x
    count = x.shape[1] - circuit.n_inputs
    amplitudes = torch.nn.functional.pad(x[:, :count], (0, circuit.n_amplitudes - count))
    return amplitudes / amplitudes.norm(dim=1, keepdim=True), x[:, count:]


def by_pennylane(layer, theta, x, device="default.qubit", diff_method="backprop"):
    """Outputs (B, O) as a tensor that remembers theta and x."""
    import pennylane as qml

    gates = {
        "id": qml.I, "x": qml.X, "y": qml.Y, "z": qml.Z, "h": qml.Hadamard, "s": qml.S, "t": qml.T, "sx": qml.SX,
        "sdg": lambda wires: qml.adjoint(qml.S(wires)), "tdg": lambda wires: qml.adjoint(qml.T(wires)),
        "rx": qml.RX, "ry": qml.RY, "rz": qml.RZ, "p": qml.PhaseShift, "rot": qml.Rot, "u3": qml.U3, "cnot": qml.CNOT,
        "cy": qml.CY, "cz": qml.CZ, "ch": qml.CH, "swap": qml.SWAP, "iswap": qml.ISWAP, "cp": qml.ControlledPhaseShift,
        "crx": qml.CRX, "cry": qml.CRY, "crz": qml.CRZ, "rxx": qml.IsingXX, "ryy": qml.IsingYY, "rzz": qml.IsingZZ,
        "ccx": qml.Toffoli, "ccz": qml.CCZ, "cswap": qml.CSWAP,
    }  # fmt: skip
    paulis = {"I": qml.I, "X": qml.X, "Y": qml.Y, "Z": qml.Z}
    circuit, measurement = layer.circuit, layer.spec.measurement
    n = circuit.n_qubits
    amplitudes, angles = unit_amplitudes(circuit, x)

    @qml.qnode(qml.device(device, wires=n), interface="torch", diff_method=diff_method)
    def run():
        if amplitudes is not None:
            qml.StatePrep(amplitudes, wires=range(n))
        for op in circuit.operations:
            gates[op.gate](*[angle.value(theta, angles.T) for angle in op.params], wires=list(op.qubits))
        if isinstance(measurement, Amplitudes):
            return qml.state()
        if isinstance(measurement, Probabilities):
            return qml.probs(wires=range(n) if measurement.qubits is None else list(measurement.qubits))
        return [
            qml.expval(qml.sum(*[c * qml.prod(*[paulis[p](q) for q, p in enumerate(s)]) for s, c in observable.terms]))
            for observable in measurement.as_observables(n)
        ]

    outputs = run()
    if isinstance(measurement, Amplitudes):
        parts = torch.cat([outputs.real, outputs.imag], dim=-1)
        return torch.broadcast_to(parts, (len(x), parts.shape[-1]))
    if not isinstance(measurement, Probabilities):
        return torch.stack([torch.broadcast_to(output, (len(x),)) for output in outputs], dim=1)
    outputs = torch.broadcast_to(outputs, (len(x), outputs.shape[-1]))
    if measurement.n_classes is None:
        return outputs
    k = measurement.n_classes
    return torch.stack([outputs[:, start::k].sum(dim=1) for start in range(k)], dim=1)


def append_to_qiskit(c, circuit, theta, angles):
    """The gates of a circuit at one row of angles, by Qiskit's methods."""
    names = {"cnot": "cx", "u3": "u"}
    for op in circuit.operations:
        values = [float(angle.value(theta, angles)) for angle in op.params]
        if op.gate == "rot":
            for gate, value in zip((c.rz, c.ry, c.rz), values, strict=True):
                gate(value, op.qubits[0])
        else:
            getattr(c, names.get(op.gate, op.gate))(*values, *op.qubits)


def operator(observable):
    """An observable as Qiskit's: the last qubit first."""
    from qiskit.quantum_info import SparsePauliOp

    return SparsePauliOp.from_list([(string[::-1], coefficient) for string, coefficient in observable.terms])


def by_aer(layer, theta, x):
    """Outputs (B, O) from the state vectors of Aer, one circuit per row."""
    from qiskit import QuantumCircuit, transpile
    from qiskit.quantum_info import Statevector
    from qiskit_aer import AerSimulator

    circuit, measurement = layer.circuit, layer.spec.measurement
    n = circuit.n_qubits
    amplitudes, angles = unit_amplitudes(circuit, torch.from_numpy(x))
    simulator, outputs = AerSimulator(method="statevector"), []
    for row in range(len(x)):
        c = QuantumCircuit(n)
        if amplitudes is not None:
            c.set_statevector(amplitudes[row].numpy().reshape((2,) * n).transpose().ravel().astype(complex))
        append_to_qiskit(c, circuit, theta, angles[row])
        c.save_statevector()
        run = simulator.run(transpile(c, simulator, optimization_level=0))  # Aer has no ch and no iswap
        state = Statevector(run.result().get_statevector())
        if isinstance(measurement, Probabilities):
            qubits = range(n) if measurement.qubits is None else measurement.qubits
            chances = state.probabilities(list(qubits)[::-1])
            k = measurement.n_classes or len(chances)
            outputs.append([chances[start::k].sum() for start in range(k)])
        else:
            outputs.append([
                state.expectation_value(operator(o)).real
                for o in measurement.as_observables(n)
            ])  # fmt: skip
    return np.array(outputs)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_pennylane(problem, dtype):
    layer, x, cotangents = problem
    theta_, x_ = (torch.from_numpy(array).requires_grad_() for array in (np.array(layer.theta, float), x))
    expected = by_pennylane(layer, theta_, x_)
    expected.backward(torch.from_numpy(cotangents))
    layer.theta = layer.theta.astype(dtype)
    outputs = layer(x.astype(dtype))
    assert outputs.dtype == dtype
    stretch = 1.0 if dtype == "float64" else angle_stretch(layer.spec, layer.theta, x)
    np.testing.assert_allclose(outputs, expected.detach(), rtol=0, atol=VALUE[dtype] * stretch)
    for actual, tensor in zip(layer.vjp(x.astype(dtype), cotangents.astype(dtype)), (theta_, x_), strict=True):
        np.testing.assert_allclose(actual, tensor.grad, rtol=0, atol=GRADIENT[dtype] * stretch)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_aer(problem, dtype):
    layer, x, _ = problem
    stretch = 1.0 if dtype == "float64" else angle_stretch(layer.spec, layer.theta, x)
    expected = by_aer(layer, layer.theta, x)
    np.testing.assert_allclose(layer(x.astype(dtype)), expected, rtol=0, atol=VALUE[dtype] * stretch)
