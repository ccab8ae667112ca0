"""Every encoding and ansatz that cites a source is that source's circuit, compared as states."""

from __future__ import annotations

import numpy as np
import pytest

from qstore_core import IQP, ZZ, AngleEncoding, HardwareEfficient, RealAmplitudes, StronglyEntangling
from qstore_core.circuit.spec import layer_spec as specs
from qstore_core.circuit.spec.encoding import unit_rows
from qstore_core.engines.arrays.numpy_ops import NumpyOps
from tests.support import reference
from tests.support.tolerances import EXACT

qml = pytest.importorskip("pennylane")
library = pytest.importorskip("qiskit.circuit.library")
quantum_info = pytest.importorskip("qiskit.quantum_info")

PATTERNS = ("linear", "circular", "full")


def random(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, shape)


def ours(spec, theta, x):
    return reference.state(spec.circuit, theta, x)


def same_state(one, two):
    """Equal up to a global phase, which no measurement sees."""
    assert abs(abs(np.vdot(one, two)) - 1) < EXACT


def by_qiskit(circuit, values):
    """The state of a Qiskit circuit, its parameters in their order; qubit 0 made the most significant."""
    bound = circuit.assign_parameters(np.asarray(values)).decompose(reps=3) if len(circuit.parameters) else circuit
    return np.asarray(quantum_info.Statevector(bound).reverse_qargs())


def by_pennylane(n_qubits, template):
    @qml.qnode(qml.device("default.qubit", wires=n_qubits))
    def run():
        template(range(n_qubits))
        return qml.state()

    return np.asarray(run())


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_real_amplitudes_is_qiskits(pattern, depth, n):
    spec = specs.feature_extractor(n, depth, encoding="angle", ansatz=RealAmplitudes(pattern))
    theta = random(spec.n_weights)
    expected = by_qiskit(library.real_amplitudes(n, pattern, depth), theta)
    same_state(ours(spec, theta, np.zeros(n)), expected)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("pattern", ["linear", "full"])
def test_hardware_efficient_is_qiskits_n_local(pattern, depth, n):
    spec = specs.feature_extractor(n, depth, encoding="angle", ansatz=HardwareEfficient(pattern))
    theta = random(depth, n, 2)
    circuit = library.n_local(n, ["ry", "rz"], "cx", pattern, depth, skip_final_rotation_layer=True)
    same_state(ours(spec, theta.ravel(), np.zeros(n)), by_qiskit(circuit, theta.transpose(0, 2, 1).ravel()))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_strongly_entangling_is_pennylanes(depth, n):
    spec = specs.feature_extractor(n, depth, encoding="angle", ansatz=StronglyEntangling())
    theta = random(depth, n, 3)
    expected = by_pennylane(n, lambda wires: qml.StronglyEntanglingLayers(theta, wires))
    same_state(ours(spec, theta.ravel(), np.zeros(n)), expected)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_zz_is_qiskits_feature_map(repeats, n):
    spec = specs.feature_extractor(n, 0, encoding=ZZ(repeats))
    x = random(n)
    same_state(ours(spec, [], x), by_qiskit(library.zz_feature_map(n, repeats, "full"), x))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_iqp_is_pennylanes_embedding(repeats, n):
    spec = specs.feature_extractor(n, 0, encoding=IQP(repeats))
    x = random(n)
    same_state(ours(spec, [], x), by_pennylane(n, lambda wires: qml.IQPEmbedding(x, wires, n_repeats=repeats)))


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_angle_is_pennylanes_embedding(axis):
    spec = specs.feature_extractor(3, 0, encoding=AngleEncoding(axis))
    x = random(3)
    expected = by_pennylane(3, lambda wires: qml.AngleEmbedding(x, wires, rotation=axis.upper()))
    same_state(ours(spec, [], x), expected)


@pytest.mark.parametrize("features", [1, 5, 8])
def test_amplitude_is_pennylanes_embedding(features):
    x = random(features)
    expected = by_pennylane(3, lambda wires: qml.AmplitudeEmbedding(x, wires, pad_with=0.0, normalize=True))
    same_state(unit_rows(NumpyOps(), x[None], 8)[0], expected)


@pytest.mark.parametrize("bits", [(0, 0, 1), (1, 1, 0)])
def test_basis_is_pennylanes_embedding(bits):
    spec = specs.feature_extractor(3, 0, encoding="basis")
    expected = by_pennylane(3, lambda wires: qml.BasisEmbedding(np.array(bits), wires))
    same_state(ours(spec, [], np.array(bits, float)), expected)


@pytest.mark.parametrize("bits", [(0, 1), (1, 1)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_reuploaded_bits_apply_x_again(depth, bits):
    """X on the state as it is, not a rotation that takes |0⟩ to |1⟩: RY(π) differs on every other state."""
    spec = specs.feature_extractor(2, depth, encoding="basis", reuploading=True)
    theta = random(depth, 2, 2, seed=depth)

    def circuit(wires):
        for level in range(depth):
            for wire, bit in zip(wires, bits, strict=True):
                if bit:
                    qml.X(wire)
            for wire in wires:
                qml.RY(theta[level, wire, 0], wire)
            for wire in wires:
                qml.RZ(theta[level, wire, 1], wire)
            qml.CNOT([0, 1])

    same_state(ours(spec, theta.ravel(), np.array(bits, float)), by_pennylane(2, circuit))
