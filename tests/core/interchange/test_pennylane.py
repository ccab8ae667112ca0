"""PennyLane in and out: values and gradients as PennyLane's, round trips, and refusals by name and position."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import (
    CapabilityError,
    Circuit,
    Expectation,
    LogProbabilities,
    Pauli,
    Probabilities,
    QuantumLayer,
    SpecError,
)
from qstore_core.layers import numpy as numpy_layers
from qstore_core.layers.numpy import QuantumEncoder, QuantumFeatureExtractor, QuantumReadout
from tests.support.strategies import KINDS, Batch, circuits, layer_arguments, measurements, points
from tests.support.tolerances import EXACT, EXACT_GRADIENT, VALUE, allow

qml = pytest.importorskip("pennylane")
torch = pytest.importorskip("torch")
from qstore_core.interchange.pennylane import from_pennylane  # noqa: E402 - after the library is there
from qstore_core.interchange.pennylane_writing import to_qnode  # noqa: E402

Z4 = [qml.Z(q) for q in range(4)]


def node(function, wires):
    return qml.QNode(function, qml.device("default.qubit", wires=wires), interface="torch", diff_method="backprop")


def expvals(observables):
    return [qml.expval(o) for o in observables]


def flat(results):
    several = results if isinstance(results, list | tuple) else [results]
    return torch.cat([torch.as_tensor(r).reshape(-1) for r in several])


def assert_same(qnode, shapes, features, *, batched=False, **arguments):
    """The layer of a QNode has its values, and its gradients for weights and inputs."""
    rng = np.random.default_rng(0)
    layer = QuantumLayer.from_pennylane(qnode, shapes, backend="statevector", **arguments)
    weights = {
        name: torch.tensor(rng.normal(size=shape if isinstance(shape, tuple) else () if shape == 1 else (shape,)))
        for name, shape in shapes.items()
    }
    layer.theta = np.concatenate([np.zeros(0), *(w.numpy().ravel() for w in weights.values())])
    x = torch.tensor(rng.normal(size=(2, features)), requires_grad=True)
    for w in weights.values():
        w.requires_grad_()
    theirs = torch.stack([flat(qnode(x[k : k + 1] if batched else x[k], **weights)) for k in range(2)])
    cotangents = rng.normal(size=theirs.shape)
    (theirs * torch.tensor(cotangents)).sum().backward()
    np.testing.assert_allclose(layer(x.detach().numpy()), theirs.detach().numpy(), rtol=0, atol=VALUE["float64"])
    d_theta, d_x = layer.vjp(x.detach().numpy(), cotangents)
    expected = np.concatenate([np.zeros(0), *(w.grad.numpy().ravel() for w in weights.values())])
    np.testing.assert_allclose(d_theta, expected, rtol=0, atol=VALUE["float64"])
    np.testing.assert_allclose(d_x, np.zeros_like(d_x) if x.grad is None else x.grad, rtol=0, atol=VALUE["float64"])


# -- in ---------------------------------------------------------------------------------------------------------------


def test_one_rotation_is_a_cosine():
    @qml.qnode(qml.device("default.qubit", wires=1))
    def circuit(inputs, weights):
        qml.RY(inputs[0], wires=0)
        qml.RY(2 * weights, wires=0)
        return qml.expval(qml.Z(0))

    layer = QuantumLayer.from_pennylane(circuit, {"weights": 1})
    layer.theta = [0.25]
    np.testing.assert_allclose(layer(np.array([[0.3]])), [[np.cos(0.8)]], atol=EXACT)


def strongly(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(4))
    qml.StronglyEntanglingLayers(weights, wires=range(4))
    return expvals(Z4)


def basic(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(4), rotation="Z")
    qml.BasicEntanglerLayers(weights, wires=range(4), rotation=qml.RY)
    return qml.probs(wires=[2, 0])


def two_design(inputs, first, weights):
    qml.IQPEmbedding(inputs, wires=range(4), n_repeats=2)
    qml.SimplifiedTwoDesign(first, weights, wires=range(4))
    return expvals(Z4)


def qaoa(inputs, weights):
    qml.QAOAEmbedding(inputs, weights, wires=range(4))
    return qml.expval(qml.Z(0) @ qml.X(3)), qml.probs(wires=1)


def amplitudes(inputs, weights):
    qml.AmplitudeEmbedding(inputs, wires=range(3), normalize=True)
    qml.StronglyEntanglingLayers(weights, wires=range(3))
    return qml.probs()


def amplitudes_of_some(inputs, weights):
    qml.AmplitudeEmbedding(inputs, wires=[1, 0], normalize=True)
    qml.StronglyEntanglingLayers(weights, wires=range(3))
    return qml.probs()


def amplitudes_and_angles(inputs, weights):
    qml.StatePrep(inputs[:4], wires=range(2), normalize=True)
    qml.RX(inputs[4] * weights[0], wires=0)
    return expvals(Z4[:2])


def by_torch(inputs, weights):
    for q in range(3):
        qml.RX(torch.pi * inputs[..., q] ** 2 + torch.tensor(0.5), wires=q)
    both = torch.stack([weights[0], weights[1]]).reshape(2, 1)
    qml.RY(both[0, 0] / 2 - both[1, 0], wires=1)
    qml.RandomLayers(weights[None, :], wires=range(3), seed=3)
    qml.MottonenStatePreparation(np.array([0.6, 0.8]), wires=[2])
    return expvals(Z4[:3])


def by_math(inputs, weights):
    both = qml.math.concatenate([qml.math.stack([weights[0], weights[1]]), inputs])
    qml.RX(both[0] * qml.math.arctan(both[1]), wires=0)
    qml.RY(both[2] / (1 + weights[1] * weights[1]), wires=1)
    qml.Rot(weights[0], qml.math.sin(weights)[1], weights[0], wires=0)
    qml.layer(lambda w: (qml.RX(w, wires=0), qml.CNOT([0, 1])), 2, weights)
    qml.cond(qml.measure(0), qml.RY, qml.RX)(weights[0] * inputs[1], wires=1)
    return qml.expval(qml.sum(qml.Z(1), qml.s_prod(0.5, qml.X(1))))


def convolutional(features, weights, last):
    qml.AngleEmbedding(features, wires=range(4))
    wires = list(range(4))
    for level in range(2):
        for first, second in itertools.pairwise(wires):
            qml.U3(*weights[level, :3], wires=first)
            qml.IsingZZ(weights[level, 3], wires=[first, second])
            qml.IsingYY(weights[level, 4], wires=[first, second])
            qml.IsingXX(weights[level, 5], wires=[first, second])
        for kept, dropped in zip(wires[::2], wires[1::2], strict=True):
            qml.cond(qml.measure(dropped), qml.U3)(*weights[level, 6:9], wires=kept)
        wires = wires[::2]
    qml.ArbitraryUnitary(last, wires)
    return qml.probs(wires=0)


def evolution(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(2))
    energy = qml.Hamiltonian([1, 0.5], [qml.Z(0) @ qml.Z(1), qml.X(0)])
    qml.ApproxTimeEvolution(energy, weights[0], 2)
    qml.qaoa.cost_layer(weights[1], qml.Hamiltonian([1.0], [qml.Z(0) @ qml.Z(1)]))
    qml.TrotterProduct(energy, 0.3, n=2, order=2)
    qml.evolve(qml.X(0) @ qml.Y(1), 0.4)
    qml.evolve(qml.X(0) @ qml.Z(1), weights[0])
    qml.exp(qml.Z(1), 0.5j * weights[1])
    qml.FermionicSWAP(weights[0], wires=[0, 1])
    return qml.expval(energy)


def gates(inputs, w):
    qml.ctrl(qml.RX, control=[1, 2], control_values=[0, 1])(w[0] * inputs[0], wires=0)
    qml.adjoint(qml.Rot)(w[0], w[1], inputs[1] ** 2, wires=1)
    qml.CRot(w[0], w[1], w[2], wires=[1, 2])
    qml.MultiRZ(w[2] - inputs[2], wires=[0, 1, 2])
    qml.PauliRot(w[1], "XIY", wires=[0, 1, 2])
    qml.ctrl(qml.PauliRot(w[1], "II", wires=[0, 1]), control=2, control_values=0)
    qml.IsingXY(w[0], wires=[0, 1])
    qml.ctrl(qml.PhaseShift(w[3], wires=0), control=1, control_values=0)
    qml.ctrl(qml.adjoint(qml.S(0)), control=2)
    qml.QubitUnitary(qml.matrix(qml.Rot(0.1, 0.2, 0.3, wires=0) @ qml.T(1)), wires=[1, 0])
    qml.ctrl(qml.QubitUnitary(np.diag([1, 1j]), wires=0), control=1)
    qml.ctrl(qml.GlobalPhase(w[2]), control=1, control_values=0)
    qml.ctrl(qml.GlobalPhase(0.7), control=[1, 2])
    qml.ctrl(qml.QFT(wires=[0, 1]), control=2)
    qml.ctrl(qml.adjoint(qml.SX(0)), control=1)
    qml.ctrl(qml.ISWAP([0, 1]), control=2)
    qml.ctrl(qml.U2(w[0], w[1], wires=1), control=0)
    qml.SingleExcitation(w[0], wires=[0, 1])
    qml.pow(qml.SX(0), 3)
    qml.prod(qml.RX(w[0], wires=0), qml.RY(w[1], wires=0))
    qml.MultiControlledX(wires=[0, 1, 2], control_values=[0, 1])
    return (
        qml.expval(qml.Hermitian(np.array([[1, 1j], [-1j, 0.3]]), wires=1)),
        qml.probs(wires=[2, 1]),
        qml.expval(qml.Projector([0, 1], wires=[0, 2])),
        qml.expval(qml.Hadamard(0)),
        qml.expval(qml.Hamiltonian([0.5, 2.0], [qml.Z(0) @ qml.X(2), qml.Identity(0)])),
    )


def without_a_decomposition(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(5), rotation="Y")
    qml.DoubleExcitationPlus(w[0] * inputs[0], wires=[3, 1, 0, 2])
    qml.ctrl(qml.DoubleExcitationMinus(w[1], wires=[0, 1, 2, 3]), 4, control_values=[0])
    qml.adjoint(qml.U3(w[2], inputs[1], w[3], wires=0))
    qml.ctrl(qml.adjoint(qml.U2(w[0], inputs[2], wires=4)), 1)
    qml.adjoint(qml.DoubleExcitationPlus)(w[3], wires=[4, 1, 0, 2])
    qml.AngleEmbedding(inputs, wires=range(5))
    return [qml.expval(qml.Z(k)) for k in range(5)]


@pytest.mark.parametrize(
    ("function", "shapes", "features", "wires"),
    [
        (strongly, {"weights": (2, 4, 3)}, 4, 4),
        (basic, {"weights": (2, 4)}, 4, 4),
        (two_design, {"first": 4, "weights": (2, 3, 2)}, 4, 4),
        (qaoa, {"weights": (2, 8)}, 4, 4),
        (amplitudes, {"weights": (1, 3, 3)}, 8, 3),
        (amplitudes_of_some, {"weights": (1, 3, 3)}, 4, 3),
        (amplitudes_and_angles, {"weights": (1,)}, 5, 2),
        (by_torch, {"weights": (4,)}, 3, 3),
        (by_math, {"weights": (2,)}, 2, 2),
        (convolutional, {"weights": (2, 9), "last": 3}, 4, 4),
        (evolution, {"weights": (2,)}, 2, 2),
        (gates, {"w": (4,)}, 3, 3),
        (without_a_decomposition, {"w": (4,)}, 5, 5),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_templates_and_gates_have_the_values_and_gradients_of_pennylane(function, shapes, features, wires):
    given_features = {"n_features": features} if function in (amplitudes_of_some, amplitudes_and_angles) else {}
    assert_same(node(function, wires), shapes, features, **given_features)


def test_time_may_be_a_parameter_of_trotter_steps():
    def function(inputs, weights):
        qml.RX(inputs[0], wires=0)
        qml.TrotterProduct(qml.dot([1.0, 0.5], [qml.X(0), qml.Z(0)]), weights[0], n=2, order=2)
        return qml.expval(qml.Z(0))

    layer, x = QuantumLayer.from_pennylane(function, weights={"weights": [0.7]}), np.array([[0.3]])
    qnode = qml.QNode(function, qml.device("default.qubit", wires=1))  # with PyTorch it rounds to 1e-10
    np.testing.assert_allclose(layer(x), [[qnode(x[0], layer.theta)]], atol=VALUE["float64"])


def test_functions_of_a_batch_are_read_as_one_sample():
    def function(inputs, weights):
        qml.RX(inputs[:, 0], wires=0)
        qml.RY(inputs[:, 1] * weights[0], wires=1)
        return qml.expval(qml.X(0) @ qml.Z(1))

    assert_same(node(function, 2), {"weights": (1,)}, 2, batched=True)


def test_padded_amplitudes():
    def function(inputs):
        qml.AmplitudeEmbedding(inputs, wires=range(2), pad_with=0.0)
        return qml.probs()

    layer = QuantumLayer.from_pennylane(node(function, 2), n_features=3)
    np.testing.assert_allclose(layer(np.array([[3.0, 0, 4]])), [[0.36, 0, 0.64, 0]], atol=EXACT)
    assert layer.spec.n_features == 3


def test_bits_are_rotations():
    def function(inputs, weights):
        qml.BasisEmbedding(inputs, wires=range(3))
        qml.BasicEntanglerLayers(weights, wires=range(3))
        return qml.probs()

    layer, weights = QuantumLayer.from_pennylane(node(function, 3), {"weights": (1, 3)}), np.array([[0.1, 0.2, 0.3]])
    layer.theta, bits = weights.ravel(), np.array([1.0, 0, 1])
    np.testing.assert_allclose(layer(bits[None]), [node(function, 3)(bits.astype(int), weights)], atol=VALUE["float64"])


def test_the_weights_of_a_torch_layer_come_along_in_every_precision():
    theirs = qml.qnn.TorchLayer(node(strongly, 4), {"weights": (1, 4, 3)})
    x = torch.randn((5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = QuantumLayer.from_pennylane(theirs)
    np.testing.assert_allclose(ours(x.numpy()), theirs(x).detach().numpy(), atol=VALUE["float64"])
    from qstore_torch import QuantumLayer as TorchLayer

    layer = TorchLayer.from_pennylane(theirs, dtype=torch.float64)
    np.testing.assert_allclose(layer(x).detach().numpy(), theirs(x).detach().numpy(), atol=VALUE["float32"])
    again = TorchLayer.from_config(layer.config())
    np.testing.assert_array_equal(again.theta.detach(), layer.theta.detach())


def test_a_tape_has_its_parameters_as_weights():
    with qml.queuing.AnnotatedQueue() as queue:
        qml.RX(0.3, wires="a")
        qml.BasicEntanglerLayers([[0.1, 0.2]], wires=["a", "b"])
        qml.QubitUnitary(np.eye(2)[::-1], wires="b")
        qml.expval(qml.Z("b"))
    tape = qml.tape.QuantumScript.from_queue(queue, shots=50)
    found = from_pennylane(tape)
    np.testing.assert_array_equal(found.theta, [0.3, 0.1, 0.2])
    assert found.shots == 50
    layer = QuantumLayer.from_pennylane(tape, shots=None)
    theirs = qml.execute([tape.copy(shots=None)], qml.device("default.qubit"))
    np.testing.assert_allclose(layer(np.zeros((1, 0))), [theirs], atol=VALUE["float64"])
    tape.trainable_params = [1]
    assert from_pennylane(tape).circuit.n_weights == 2


def test_shots_come_along():
    sampled, shapes = qml.set_shots(node(strongly, 4), 100), {"weights": (1, 4, 3)}
    with pytest.raises(CapabilityError, match="shots=100 needs a backend that samples"):
        QuantumLayer.from_pennylane(sampled, shapes)
    assert QuantumLayer.from_pennylane(sampled, shapes, backend="pennylane", seed=0).config()["shots"] == 100
    assert QuantumLayer.from_pennylane(sampled, shapes, shots=None).config()["shots"] is None


def any_number(inputs):
    for q in range(len(inputs)):
        qml.RX(inputs[q], wires=q % 2)
    return qml.expval(qml.Z(0))


def asks_for_a_value(inputs):
    qml.RX(0.1, wires=0)
    if inputs[0] > 0:
        qml.RX(inputs[0], wires=0)
    return qml.expval(qml.Z(0))


def noisy(inputs):
    qml.RX(inputs[0], wires=0)
    qml.DepolarizingChannel(inputs[0], wires=0)
    return qml.expval(qml.Z(0))


def weights_as_amplitudes(inputs, weights):
    qml.RX(inputs[0], wires=0)
    qml.StatePrep(weights, wires=1, normalize=True)
    return qml.expval(qml.Z(0))


def matrix_of_weights(inputs, weights):
    qml.RX(inputs[0], wires=0)
    qml.QubitUnitary(np.array([[weights[0], weights[1]], [weights[1], weights[0]]]), wires=0)
    return qml.expval(qml.Z(0))


def information(inputs):
    qml.RX(inputs[0], wires=0)
    return qml.mutual_info(wires0=0, wires1=1)


def state_but_for_a_phase(inputs):
    qml.RX(inputs[0], wires=0)
    qml.GlobalPhase(0.3)
    return qml.state()


def padded_with_ones(inputs):
    qml.AmplitudeEmbedding(inputs, wires=range(2), pad_with=1.0)
    return qml.probs()


def two_inputs(one, two):
    qml.RX(one[0] + two[0], wires=0)
    return qml.probs()


def complex_time(inputs):
    qml.RX(inputs[0], wires=0)
    qml.exp(qml.Z(0), (1 + 1j) * inputs[0])


def fails_late(inputs):
    qml.AngleEmbedding(inputs, wires=range(2))
    raise RuntimeError("out of ideas")


@pytest.mark.parametrize(
    ("function", "shapes", "message"),
    [
        (any_number, None, "takes any number of features in 'inputs': say how many"),
        (asks_for_a_value, None, "cannot be traced after 1 operations, the last one RX: TypeError"),
        (noisy, None, r"operation 1, DepolarizingChannel on wires \[0\] is a channel: its prob"),
        (weights_as_amplitudes, {"weights": 2}, r"operation 1, StatePrep on wires \[1\]: amplitudes are the features"),
        (matrix_of_weights, {"weights": 2}, "operation 1, QubitUnitary|cannot be traced after 1 operations"),
        (information, None, "measurement 0, mutualinfo.* is nothing that layers measure"),
        (state_but_for_a_phase, None, "measurement 0, state.* but for a phase"),
        (padded_with_ones, None, "pad_with=1.0: amplitudes are padded with 0"),
        (
            complex_time,
            None,
            r"after 2 operations, the last one PauliZ: TypeError: a parameter times 1\+1j is neither real nor imag",
        ),
        (two_inputs, None, "has parameters one, two: one takes the features"),
        (fails_late, None, "the last one AngleEmbedding: RuntimeError: out of ideas"),
        (strongly, {"weight": (1, 4, 3)}, "no parameter of strongly 'weight'. Known: inputs, weights"),
        (strongly, [3], "weight_shapes is a mapping"),
        ("text", None, "a QNode, a quantum function, a tape or a"),
    ],
)
def test_what_cannot_be_said_is_named_with_its_position(function, shapes, message):
    source = node(function, 2) if callable(function) and function is not strongly else function
    with pytest.raises(SpecError, match=message):
        QuantumLayer.from_pennylane(source, shapes, **({"n_features": 3} if function is padded_with_ones else {}))


def test_wires_beyond_the_device_are_named():
    with pytest.raises(SpecError, match=r"wires \[2, 3\] are not on the device, which has \[0, 1\]"):
        from_pennylane(node(strongly, 2), {"weights": (1, 4, 3)}, n_features=4)


def test_other_measurements_and_noise():
    def function(inputs, measure):
        qml.RY(inputs[0], wires=0)
        qml.CRX(inputs[1], wires=[0, 1])
        return measure()

    x, node_of = (
        np.array([0.7, 0.4]),
        lambda measure, **more: qml.QNode(
            lambda inputs: function(inputs, measure), qml.device(more.pop("device", "default.qubit"), wires=2, **more)
        ),
    )
    for measure in (
        lambda: [qml.var(qml.Z(0)), qml.var(qml.X(0) @ qml.Z(1) + qml.Y(1))], lambda: qml.density_matrix([1, 0]),
        lambda: qml.purity(1), lambda: qml.vn_entropy(0, log_base=2), qml.state,
    ):  # fmt: skip
        qnode = node_of(measure)
        layer = QuantumLayer.from_pennylane(qnode)
        np.testing.assert_allclose(layer(x[None])[0], qnode(x), atol=VALUE["float64"])
        again = QuantumLayer.from_pennylane(layer.to_pennylane(), {"weights": (0,)})
        assert (again.circuit, again.spec.measurement) == (layer.circuit, layer.spec.measurement)

    def with_channels():
        qml.DepolarizingChannel(0.1, wires=0), qml.AmplitudeDamping(0.2, wires=1), qml.PhaseDamping(0.1, wires=0)
        qml.BitFlip(0.05, wires=1), qml.GeneralizedAmplitudeDamping(0.1, 0.3, wires=0)
        return qml.expval(qml.Z(0) @ qml.X(1)), qml.expval(qml.X(0)), qml.probs(wires=1)

    qnode = node_of(with_channels, device="default.mixed")
    theirs = np.concatenate([np.ravel(r) for r in qnode(x)])
    np.testing.assert_allclose(QuantumLayer.from_pennylane(qnode)(x[None])[0], theirs, atol=VALUE["float64"])
    layer = QuantumLayer.from_pennylane(node_of(with_channels, device="default.mixed", readout_prob=0.03))
    assert layer.circuit.noisy
    misread = [0.94**2 * theirs[0], 0.94 * theirs[1], *(0.94 * theirs[2:] + 0.03)]  # ⟨Z⟩ shrinks by 1 - 2p
    np.testing.assert_allclose(layer(x[None])[0], misread, atol=VALUE["float64"])
    with pytest.raises(SpecError, match=r"readout_error\(0.03, 0.03\) 0 is a channel, which gates cannot say"):
        layer.to_pennylane()
    quiet = QuantumLayer.from_pennylane(node_of(with_channels, device="default.mixed"))
    there = quiet.to_pennylane()
    np.testing.assert_allclose(np.ravel(there(x, [])), quiet(x[None])[0], atol=VALUE["float64"])


def test_functions_of_parameters_come_and_go():
    def function(inputs, weights):
        qml.RY(2 * np.arccos(inputs[0]), wires=0)
        qml.RX(torch.sin(weights[0]) * qml.math.sqrt(inputs[1] + 2), wires=1)
        qml.AngleEmbedding(np.arctan(inputs), wires=range(2))
        qml.CNOT([0, 1])
        return expvals(Z4[:2])

    layer = QuantumLayer.from_pennylane(function, weights={"weights": [0.3]})
    assert str(layer.circuit.operations[0]) == "ry(2*arccos(x0)) 0"
    x = np.array([[0.4, -0.6]])
    qnode = layer.to_pennylane()
    np.testing.assert_allclose(np.transpose(qnode(x, layer.theta)), layer(x), atol=VALUE["float64"])
    assert QuantumLayer.from_pennylane(qnode, {"weights": 1 * (1,)}).circuit == layer.circuit


# -- out --------------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.data())
def test_round_trips_keep_values_and_gradients(data):
    circuit = data.draw(circuits(max_qubits=3))
    measurement = data.draw(measurements(circuit.n_qubits))
    theta, x = data.draw(points(circuit))
    qnode = to_qnode(circuit, measurement)
    again = QuantumLayer.from_pennylane(
        qnode, {"weights": (circuit.n_weights,)}, n_features=x.shape[1], backend="statevector"
    )
    layer = QuantumLayer(circuit, measurement, backend="statevector")
    layer.theta = again.theta = theta
    values = layer(x)
    np.testing.assert_allclose(again(x), values, rtol=0, atol=allow(values, EXACT))
    cotangents = np.random.default_rng(0).normal(size=values.shape)
    for ours, theirs in zip(layer.vjp(x, cotangents), again.vjp(x, cotangents), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=allow(ours, EXACT_GRADIENT))


@settings(max_examples=15)
@given(st.data())
def test_qnodes_compute_what_layers_do(data):
    circuit = data.draw(circuits(max_qubits=3, max_gates=6))
    measurement = data.draw(measurements(circuit.n_qubits))
    theta, x = data.draw(points(circuit, max_rows=1))
    layer = QuantumLayer(circuit, measurement, backend="statevector")
    layer.theta = theta
    theirs = np.concatenate([np.ravel(r) for r in np.atleast_1d(layer.to_pennylane()(x[0], theta))])
    np.testing.assert_allclose(theirs, layer(x)[0], rtol=0, atol=allow(theirs, VALUE["float64"]))


@settings(max_examples=10)
@given(layer_arguments(kinds=KINDS[1:], max_qubits=3, max_depth=2), st.integers(0, 99))
def test_every_kind_of_layer_goes_there_and_back(drawn, seed):
    kind, arguments = drawn
    arguments.pop("log", None)  # PennyLane measures no logarithms
    layer = getattr(numpy_layers, kind)(**arguments, backend="statevector")
    batch = Batch((2,), "float64", seed)
    layer.theta, x = batch.theta(layer.spec), batch.features(layer.spec)
    features = {"n_features": layer.spec.n_features}
    again = QuantumLayer.from_pennylane(
        layer.to_pennylane(), weights={"weights": layer.theta}, **features, backend="statevector"
    )
    np.testing.assert_allclose(again(x), layer(x), rtol=0, atol=allow(layer(x), EXACT))


def test_gates_of_any_size_go_there_and_back():
    circuit = Circuit(4)
    (w,) = circuit.weights(1)
    for q in range(4):
        circuit.ry(0.3 + q, q)
    circuit.controlled("ry", [0, 1], [2], [w], values=[1, 0]), circuit.pauli_rot(w * w, "XYZ", 3, 1, 0), circuit.qft()
    circuit.controlled("sdg", [3], [2]), circuit.controlled("controlled_0_rot", [0], [1, 2], [w, 0.1, 0.2])
    layer = QuantumLayer(circuit, Expectation(("Z", "X")), seed=0)
    again = QuantumLayer.from_pennylane(layer.to_pennylane(), weights={"weights": layer.theta}, n_features=0)
    x = np.zeros((1, 0))
    np.testing.assert_allclose(again(x), layer(x), atol=EXACT)
    np.testing.assert_allclose(np.ravel(layer.to_pennylane()([], layer.theta)), layer(x)[0], atol=VALUE["float64"])


@pytest.mark.parametrize(
    "layer",
    [
        QuantumFeatureExtractor(2, depth=1, seed=0, measurement_bases=("Z", "X")),
        QuantumReadout(3, 3, encoding="zz", ansatz="strongly_entangling", seed=0),
    ],
)
def test_a_torch_layer_of_a_layer(layer):
    theirs = qml.qnn.TorchLayer(layer.to_pennylane(), {"weights": layer.theta.shape})
    theirs.weights.data = torch.from_numpy(layer.theta)
    x = np.random.default_rng(0).normal(size=(4, layer.spec.n_features))
    np.testing.assert_allclose(theirs(torch.from_numpy(x)).detach().numpy(), layer(x), atol=VALUE["float64"])


def test_what_pennylane_has_no_measurement_for_is_named():
    circuit = Circuit(1)
    with pytest.raises(SpecError, match="no measurement for LogProbabilities"):
        QuantumLayer(circuit, LogProbabilities()).to_pennylane()
    with pytest.raises(SpecError, match="runs no circuit"):
        QuantumEncoder(2).to_pennylane()
    with pytest.raises(SpecError, match="measures nothing"):
        QuantumLayer.from_pennylane(lambda: qml.RX(0.1, wires=0))
    layer = QuantumLayer.from_pennylane(lambda: qml.RX(0.0, wires=0), measurement=[Pauli("Z")])
    assert layer(np.zeros((1, 0))) == 1
    assert isinstance(from_pennylane(lambda: qml.probs(wires=0)).measurement, Probabilities)
