"""Qiskit in and out: values and gradients as Qiskit's, round trips, networks whole, refusals by name and position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import Circuit, Expectation, LogProbabilities, Pauli, Probabilities, QuantumLayer, SpecError
from tests.support.strategies import circuits, measurements, points
from tests.support.tolerances import EXACT, EXACT_GRADIENT, VALUE, allow

qiskit = pytest.importorskip("qiskit")
pytest.importorskip("qiskit_machine_learning")
from qiskit.circuit import (  # noqa: E402 - after the library is there
    AnnotatedOperation,
    ControlModifier,
    InverseModifier,
    Parameter,
    ParameterVector,
    QuantumCircuit,
)
from qiskit.circuit.library import (  # noqa: E402
    CUGate,
    GlobalPhaseGate,
    PauliEvolutionGate,
    PermutationGate,
    RXGate,
    UnitaryGate,
    efficient_su2,
    n_local,
    real_amplitudes,
    zz_feature_map,
)
from qiskit.quantum_info import Operator, SparseObservable, SparsePauliOp, Statevector  # noqa: E402

from qstore_core.interchange.qiskit import from_qiskit  # noqa: E402


def expectations(program, observables, values):
    state = Statevector(program.assign_parameters(values).decompose(reps=2))
    return [np.real(state.expectation_value(o)) for o in observables]


def assert_same(program, observables, inputs, weights=None):
    """The layer of a circuit has its expectation values; gradients are compared with differences of Qiskit's."""
    layer = QuantumLayer.from_qiskit(program, observables, inputs, weights, backend="statevector")
    rng = np.random.default_rng(0)
    theta, x = rng.normal(size=layer.spec.n_weights), rng.normal(size=(2, layer.spec.n_features))
    layer.theta = theta
    order = (
        [*inputs, *(p for p in program.parameters if p not in list(inputs))] if weights is None else [*inputs, *weights]
    )

    def theirs(row, angles):
        return expectations(program, observables, dict(zip(order, [*row, *angles], strict=True)))

    np.testing.assert_allclose(layer(x), [theirs(row, theta) for row in x], rtol=0, atol=VALUE["float64"])


# -- in ---------------------------------------------------------------------------------------------------------------


def test_labels_read_the_other_way_round():
    program = QuantumCircuit(3)
    program.x(0)
    out = QuantumLayer.from_qiskit(program, ["IIZ", "ZII", SparsePauliOp(["IIZ", "ZZI"], [2, 1])])(np.zeros((1, 0)))
    np.testing.assert_allclose(out, [[-1, 1, -1]], atol=EXACT)


def ansatz_of(name, n):
    return {
        "real_amplitudes": real_amplitudes(n, reps=2),
        "efficient_su2": efficient_su2(n, reps=1, entanglement="circular"),
        "two_local": n_local(n, ["ry", "crz"], "rzz", reps=1),
    }[name]


@pytest.mark.parametrize("name", ["real_amplitudes", "efficient_su2", "two_local"])
def test_library_circuits(name):
    features, ansatz = zz_feature_map(3, reps=1), ansatz_of(name, 3)
    whole = features.compose(ansatz)
    observables = [SparsePauliOp(["ZII", "XXI"], [1, 0.5]), SparsePauliOp("IYZ")]
    assert_same(whole, observables, list(features.parameters), list(ansatz.parameters))


def test_gates_and_composites():
    x, w = ParameterVector("x", 2), ParameterVector("w", 2)
    program, inner = QuantumCircuit(3), QuantumCircuit(2, name="inner")
    inner.ry(w[0], 0), inner.cx(0, 1, ctrl_state=0), inner.rz(x[0] * x[1] / 2, 1)
    program.append(inner.to_gate(), [2, 0])
    program.append(AnnotatedOperation(inner.to_gate(), [InverseModifier(), ControlModifier(1, 0)]), [1, 2, 0])
    program.append(AnnotatedOperation(RXGate(w[1] ** 2 - 1), [ControlModifier(2, 1)]), [0, 2, 1])
    program.append(UnitaryGate(Operator(RXGate(0.3)).tensor(Operator(RXGate(0.7)))), [1, 2])
    program.append(PauliEvolutionGate(SparsePauliOp(["XZI", "XIZ"], [0.5, 1]), time=w[1]), [0, 1, 2])
    program.append(PermutationGate([2, 0, 1]), [1, 0, 2])
    program.mcx([0, 1], 2), program.mcp(x[1], [2, 0], 1), program.cu(0.1, w[0], 0.3, 0.4, 0, 1), program.rccx(0, 1, 2)
    assert_same(program, [SparsePauliOp("ZIX"), SparsePauliOp(["IZI", "YYI"], [1, 2])], list(x), list(w))


def test_controls_of_cu_and_unitaries_on_nothing():
    w = ParameterVector("w", 4)
    program = QuantumCircuit(3)
    program.h(range(3))
    program.append(CUGate(*w).control(1, ctrl_state=0), [2, 0, 1])
    program.append(GlobalPhaseGate(0.3).power(0.5), [])
    program.h(range(3))
    assert_same(program, [SparsePauliOp("ZIX"), SparsePauliOp("IZI")], [], list(w))


def test_parameters_in_every_form():
    x, b, a = ParameterVector("x", 11), Parameter("b"), Parameter("a")
    program = QuantumCircuit(1)
    for p in (*x, b, a):
        program.ry(p, 0)
    every = {
        "names": from_qiskit(program, "Z", ["x"]),
        "a vector": from_qiskit(program, "Z", [x]),
        "parameters": from_qiskit(program, "Z", list(x), [a, b]),
        "weights alone": from_qiskit(program, "Z", weight_params=["a", "b"]),
    }
    for found in every.values():
        angles = [str(op.params[0]) for op in found.circuit.operations]
        assert angles == [*(f"x{k}" for k in range(11)), "w1", "w0"]
    assert from_qiskit(program, "Z").circuit.n_weights == 13


def test_observables_in_every_form():
    program = QuantumCircuit(2)
    program.ry(0.4, 0)
    forms = [SparsePauliOp("IZ"), "IZ", Operator.from_label("IZ"), SparseObservable("IZ"), Pauli("ZI"),
             qiskit.quantum_info.Pauli("IZ")]  # fmt: skip
    np.testing.assert_allclose(
        QuantumLayer.from_qiskit(program, forms)(np.zeros((1, 0))), [[np.cos(0.4)] * 6], atol=EXACT
    )


def test_initial_states_are_gates():
    program = QuantumCircuit(2)
    program.initialize([0.6, 0, 0, 0.8])
    np.testing.assert_allclose(QuantumLayer.from_qiskit(program, "IZ")(np.zeros((1, 0))), [[0.36 - 0.64]], atol=EXACT)


def test_measured_bits_are_probabilities():
    program = QuantumCircuit(3, 2)
    program.ry(0.5, 0), program.x(2)
    program.measure([2, 0], [0, 1])
    layer = QuantumLayer.from_qiskit(program)
    one = np.sin(0.25) ** 2
    np.testing.assert_allclose(layer(np.zeros((1, 0))), [[0, 1 - one, 0, one]], atol=EXACT)
    parity = QuantumLayer.from_qiskit(program, interpret=lambda k: f"{k:b}".count("1") % 2, output_shape=2)
    np.testing.assert_allclose(parity(np.zeros((1, 0))), [[one, 1 - one]], atol=EXACT)


def deep():
    x, program = Parameter("x"), QuantumCircuit(1, 1)
    program.ry(x, 0)
    return x, program


def test_what_cannot_be_said_is_named_with_its_position():
    x, program = deep()
    late, nested = program.copy(), QuantumCircuit(1, 1)
    late.measure(0, 0), late.ry(0.1, 0)
    inner = QuantumCircuit(1, name="inner")
    inner.h(0), inner.rx(x.abs(), 0)
    nested.append(inner.to_gate(), [0])
    middle = program.copy()
    with middle.if_test((middle.clbits[0], 1)):
        middle.x(0)
    for source, arguments, message in (
        (late, {}, "instruction 2 is 'ry' on qubit 0, after it was measured"),
        (nested, {}, r"instruction 0 \(inner\), step 1 \(rx\): angle .* is neither a polynomial"),
        (middle, {}, "instruction 1 is 'if_else'"),
        (program, {"observables": "ZZ"}, "observable 0 is on 2 qubits, the circuit has 1"),
        (program, {"observables": [SparsePauliOp("Z", [1j])]}, "observable 0: coefficient 0\\+1j of Z is not real"),
        (program, {"observables": ["Z", 3]}, "observable 1: 3 is no observable"),
        (program, {"input_params": ["y"]}, "no parameter 'y'. Known: x"),
        (program, {"input_params": [x], "weight_params": [x]}, "x cannot be inputs and weights"),
        (program, {"input_params": [Parameter("x")]}, "x are other parameters of the same names"),
        (program, {"input_params": [x, x]}, "names a parameter twice"),
        (program, {"input_params": [], "weight_params": []}, "parameters x are neither inputs nor weights"),
        (program, {"input_params": [3]}, "are parameters or their names"),
        ("text", {}, "a QuantumCircuit, EstimatorQNN"),
    ):
        with pytest.raises(SpecError, match=message):
            from_qiskit(source, **({"observables": "Z"} | arguments))
    with pytest.raises(SpecError, match="measures nothing: say what, with measurement="):
        QuantumLayer.from_qiskit(program)


# -- networks ---------------------------------------------------------------------------------------------------------


def test_estimator_networks_come_whole():
    networks = pytest.importorskip("qiskit_machine_learning.neural_networks")
    from qiskit.primitives import StatevectorEstimator

    features, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    theirs = networks.EstimatorQNN(
        circuit=features.compose(ansatz), observables=[SparsePauliOp("IZ"), SparsePauliOp("XX")],
        input_params=features.parameters, weight_params=ansatz.parameters, input_gradients=True,
        estimator=StatevectorEstimator(), default_precision=0.0,
    )  # fmt: skip
    layer, rng = QuantumLayer.from_qiskit(theirs, backend="statevector"), np.random.default_rng(0)
    layer.theta, x = rng.normal(size=layer.spec.n_weights), rng.normal(size=(3, 2))
    np.testing.assert_allclose(layer(x), theirs.forward(x, layer.theta), atol=VALUE["float64"])
    by_inputs, by_weights = theirs.backward(x, layer.theta)
    cotangents = rng.normal(size=(3, 2))
    d_theta, d_x = layer.vjp(x, cotangents)
    np.testing.assert_allclose(d_theta, np.einsum("bo,bow->w", cotangents, by_weights), atol=VALUE["float64"])
    np.testing.assert_allclose(d_x, np.einsum("bo,boi->bi", cotangents, by_inputs), atol=VALUE["float64"])


def test_sampler_networks_come_whole_and_weights_with_them():
    networks = pytest.importorskip("qiskit_machine_learning.neural_networks")
    torch = pytest.importorskip("torch")
    from qiskit.primitives import StatevectorSampler
    from qiskit_machine_learning.circuit.library import raw_feature_vector
    from qiskit_machine_learning.connectors import TorchConnector

    ansatz = real_amplitudes(2, reps=1)
    arguments = {"weight_params": ansatz.parameters, "sampler": StatevectorSampler()}
    plain = networks.SamplerQNN(circuit=ansatz, input_params=[], **arguments)
    assert from_qiskit(plain).measurement == Probabilities((1, 0))
    connector = TorchConnector(plain, initial_weights=np.array([0.1, 0.2, 0.3, 0.4]))
    layer = QuantumLayer.from_qiskit(connector, backend="statevector")
    np.testing.assert_allclose(layer.theta, [0.1, 0.2, 0.3, 0.4], atol=VALUE["float32"])
    exact = Statevector(ansatz.assign_parameters(layer.theta)).probabilities()
    np.testing.assert_allclose(layer(np.zeros((1, 0))), [exact], atol=VALUE["float64"])
    assert torch.is_tensor(connector.weight)

    raw = raw_feature_vector(4)
    whole = raw.compose(ansatz)
    network = networks.SamplerQNN(
        circuit=whole,
        input_params=raw.parameters,
        interpret=lambda k: f"{k:b}".count("1") % 2,
        output_shape=2,
        **arguments,
    )
    layer, x = QuantumLayer.from_qiskit(network, init=[0.1, 0.2, 0.3, 0.4]), np.array([[1.0, 2, 3, -4]])
    values = dict(zip(raw.parameters, x[0] / np.linalg.norm(x), strict=True))
    values |= dict(zip(ansatz.parameters, layer.theta, strict=True))
    states = Statevector(whole.assign_parameters(values).decompose()).probabilities()
    np.testing.assert_allclose(layer(x), [[states[0] + states[3], states[1] + states[2]]], atol=VALUE["float64"])


# -- out --------------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.data())
def test_round_trips_keep_values_and_gradients(data):
    circuit = data.draw(circuits(max_qubits=3))
    theta, x = data.draw(points(circuit))
    layer = QuantumLayer(circuit, data.draw(measurements(circuit.n_qubits)), backend="statevector")
    there = layer.to_qiskit()
    again = QuantumLayer.from_qiskit(
        *there[:4], backend="statevector", **dict(zip(there._fields[4:], there[4:], strict=True))
    )
    layer.theta = again.theta = theta
    values = layer(x)
    np.testing.assert_allclose(again(x), values, rtol=0, atol=allow(values, EXACT))
    cotangents = np.random.default_rng(0).normal(size=values.shape)
    for ours, theirs in zip(layer.vjp(x, cotangents), again.vjp(x, cotangents), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=allow(ours, EXACT_GRADIENT))


@settings(max_examples=15)
@given(st.data())
def test_circuits_of_qiskit_compute_what_layers_do(data):
    circuit = data.draw(circuits(max_qubits=3, max_gates=6))
    theta, x = data.draw(points(circuit, max_rows=1))
    layer = QuantumLayer(circuit, Expectation(("Z", "Y")), backend="statevector")
    layer.theta, (program, observables, inputs, weights, *_) = theta, layer.to_qiskit()
    values = {p: v for p, v in zip([*inputs, *weights], [*x[0], *theta], strict=True) if p in program.parameters}
    np.testing.assert_allclose(layer(x)[0], expectations(program, observables, values), atol=VALUE["float64"])


def test_functions_of_parameters_come_and_go():
    circuit = Circuit(1)
    (x,), (w,) = circuit.inputs(1), circuit.weights(1)
    for function in ("arccos", "arcsin", "arctan", "cos", "exp", "log", "sin", "sqrt", "tan"):
        circuit.ry(2 * x.of(function) * w + 1, 0), circuit.rx((x * w).of(function), 0)
    layer = QuantumLayer(circuit, Expectation(("Z", "X")), init=[0.7])
    again = QuantumLayer.from_qiskit(*layer.to_qiskit()[:4], init=[0.7])
    np.testing.assert_allclose(again(np.array([[0.4]])), layer(np.array([[0.4]])), atol=EXACT)
    assert "ry(1 + 2*w0*arccos(x0)) q[0];" in layer.to_openqasm()
    circuit = Circuit(1)
    circuit.rx(circuit.inputs(1)[0].tanh(), 0)
    with pytest.raises(SpecError, match="no tanh"):
        circuit.to_qiskit()
    circuit = Circuit(1)
    circuit.bit_flip(0.1, 0)
    with pytest.raises(SpecError, match="is a channel, which gates cannot say"):
        circuit.to_qiskit()


def test_controlled_gates_stay_controlled():
    circuit = Circuit(4)
    circuit.controlled("ry", [0, 3], [2], [circuit.weights(1)[0]], values=[1, 0])
    assert from_qiskit(circuit.to_qiskit(), "IIII").circuit == circuit


def test_what_qiskit_cannot_say_is_named():
    with pytest.raises(SpecError, match="no measurement for LogProbabilities"):
        QuantumLayer(Circuit(1), LogProbabilities()).to_qiskit()
