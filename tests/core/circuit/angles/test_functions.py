"""Functions of angles: closed forms, both gradients against differences, every engine, files, domains."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import Circuit, Expectation, InputError, QstoreError, QuantumLayer, SpecError, lower
from qstore_core.circuit.angles.angle import FUNCTIONS, Angle, as_angle, input_, weight
from qstore_core.circuit.angles.functions import flattened
from qstore_core.runtime.graph_values import forward_or_nan, value_and_vjp_or_nan
from tests.support import reference
from tests.support.tolerances import EXACT, EXACT_GRADIENT, FINITE_DIFFERENCE, GRADIENT, VALUE, allow

Z = Expectation(("Z", "X"))


def chebyshev(degree=1):
    circuit = Circuit(1)
    circuit.ry(2 * degree * np.arccos(circuit.inputs(1)[0]), 0)
    return circuit


def mixed(amplitudes=False):
    """Functions of inputs, of weights, of both, and of each other."""
    circuit = Circuit(2, amplitudes=amplitudes)
    x, w = circuit.inputs(2), circuit.weights(3)
    circuit.ry(2 * x[0].arccos() * w[2], 0)
    circuit.rx(w[0].sin() * x[1] + 1, 1)
    circuit.cnot(0, 1)
    circuit.ry((w[1] * w[1] + x[0] * x[0].exp() + 1).sqrt(), 0)
    circuit.cry((w[2] * x[1]).arctan().tanh(), 0, 1)
    return circuit


def differences(f, at, step=1e-6):
    moves = step * np.eye(at.size).reshape(-1, *at.shape)
    return np.array([(f(at + m) - f(at - m)) / (2 * step) for m in moves]).reshape(at.shape)


@pytest.mark.parametrize("backend", ["statevector", "numba", "density"])
def test_a_chebyshev_map_is_a_polynomial(backend):
    layer, x = QuantumLayer(chebyshev(), Expectation("Z"), backend=backend), np.array([[0.3], [-0.8]])
    np.testing.assert_allclose(layer(x), 2 * x**2 - 1, atol=EXACT)
    np.testing.assert_allclose(layer.vjp(x, np.ones((2, 1)))[1], 4 * x, atol=EXACT_GRADIENT)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_has_its_derivative(function):
    circuit = Circuit(1)
    circuit.ry(getattr(np, function)(circuit.inputs(1)[0] * circuit.weights(1)[0]), 0)
    layer, x = QuantumLayer(circuit, Expectation("Z"), init=[0.7], backend="statevector"), np.array([[0.4]])
    np.testing.assert_allclose(layer(x), [[math.cos(getattr(np, function)(0.28))]], atol=EXACT)
    slope = layer.vjp(x, np.ones((1, 1)))[1]
    np.testing.assert_allclose(slope, differences(lambda at: layer(at)[0, 0], x), atol=FINITE_DIFFERENCE)


@pytest.mark.parametrize("amplitudes", [False, True])
@pytest.mark.parametrize(
    "arguments", [{"backend": "statevector"}, {"backend": "numba"}, {"gradient": "parameter-shift"}]
)
def test_gradients_of_weights_and_inputs(arguments, amplitudes):
    layer = QuantumLayer(mixed(amplitudes), Z, init=[0.3, 2.0, 0.5], **arguments)
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.9, 0.9, (3, layer.spec.n_features))
    theta, cotangents = layer.theta.copy(), rng.normal(size=(3, 4))

    def loss(theta, x):
        layer.theta = theta
        return (layer(x) * cotangents).sum()

    if amplitudes and arguments.get("gradient"):
        _, vjp_fn = layer._program.value_and_vjp(theta, x, wrt_inputs=False)
        with pytest.raises(QstoreError, match="amplitude"):  # through inputs that depend on weights
            vjp_fn(cotangents)
        return
    d_theta, d_x = layer.vjp(x, cotangents)
    np.testing.assert_allclose(d_theta, differences(lambda t: loss(t, x), theta), atol=FINITE_DIFFERENCE)
    np.testing.assert_allclose(d_x, differences(lambda at: loss(theta, at), x), atol=FINITE_DIFFERENCE)


def test_weights_alone_have_their_gradient_through_inputs():
    layer = QuantumLayer(mixed(), Z, init=[0.3, 2.0, 0.5], gradient="parameter-shift", backend="statevector")
    x, cotangents = np.array([[0.2, -0.4]]), np.ones((1, 4))
    expected, _ = layer.vjp(x, cotangents)
    d_theta, d_x = layer._program.value_and_vjp(layer.theta, x, wrt_inputs=False)[1](cotangents)
    np.testing.assert_allclose(d_theta, expected, atol=EXACT)
    assert d_x is None


@settings(max_examples=25)
@given(st.data())
def test_flat_circuits_have_the_same_states(data):
    slots = (*(input_(k) for k in range(2)), *(weight(k) for k in range(2)))
    functions = st.sampled_from([name for name in FUNCTIONS if name in ("sin", "cos", "arctan", "exp", "tanh")])
    angles = st.recursive(
        st.one_of(st.sampled_from(slots), st.floats(-2, 2).map(as_angle)),
        lambda inner: st.one_of(
            st.builds(lambda a, f: a.of(f), inner, functions), st.builds(lambda a, b: a * b - 0.5 * a, inner, inner)
        ),
        max_leaves=5,
    )
    circuit = Circuit(1)
    circuit.inputs(2), circuit.weights(2)
    for gate in data.draw(st.lists(st.sampled_from(("rx", "ry", "rz")), min_size=1, max_size=3)):
        circuit.append(gate, [0], [data.draw(angles)])
    theta, x = np.array([0.3, -0.7]), np.array([[0.2, 0.9], [1.1, -0.4]])
    layer = QuantumLayer(circuit, Expectation("Z"), init=theta, backend="statevector")
    states = [reference.state(circuit, theta, row) for row in x]
    expected = [[abs(psi[0]) ** 2 - abs(psi[1]) ** 2] for psi in states]
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=allow(np.array(expected), EXACT))
    assert Circuit.from_dict(json.loads(json.dumps(circuit.to_dict()))) == circuit


def test_flat_circuits_share_what_is_equal_and_keep_polynomials():
    circuit = mixed()
    flat, derived = flattened(circuit)
    assert (flat.n_weights, flat.n_inputs) == (4, 7)
    assert derived.count("w") == 1  # sin(w0)
    plain = Circuit(1)
    plain.ry(plain.inputs(1)[0] * 2, 0)
    assert flattened(plain) == (plain, None)


def test_what_has_no_value_is_named():
    layer = QuantumLayer(chebyshev(), Expectation("Z"))
    with pytest.raises(
        InputError, match=r"row 1: arccos\(x0\) is nan where its argument is 1.5. Arguments are from -1"
    ) as e:
        layer(np.array([[0.5], [1.5]]))
    assert e.value.row == 1
    with pytest.raises(InputError, match="row 0 has nan in feature 0"):
        layer(np.array([[np.nan]]))
    with pytest.raises(SpecError, match="finite"):
        as_angle(2.0).arccos()
    with pytest.raises(SpecError, match=r"no function of angles 'gamma'. Known: arccos"):
        input_(0).of("gamma")
    nested = input_(0)
    for _ in range(8):
        nested = nested.sin()
    with pytest.raises(SpecError, match="nested at most 8 deep"):
        nested.sin()
    with pytest.raises(SpecError, match=r"operation 0, .* has a function of an angle, which layers compute"):
        lower(chebyshev(), Expectation("Z"))
    assert str(np.arccos(input_(0)) * 2) == "2*arccos(x0)"
    assert np.sqrt(as_angle(4.0)) == as_angle(2.0)


def test_in_graphs_rows_outside_a_domain_are_nan():
    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0].log() * circuit.weights(1)[0].sqrt(), 0)
    layer, x = QuantumLayer(circuit, Expectation(), init=[0.25]), np.array([[0.5], [-1.0], [0.2]])
    program, rows = layer._program, [0, 2]
    assert np.isnan(forward_or_nan(program, layer.theta, x)).ravel().tolist() == [False, True, False]
    outputs, vjp_fn = value_and_vjp_or_nan(program, layer.theta, x)
    np.testing.assert_array_equal(outputs[rows], layer(x[rows]))
    d_theta, d_x = vjp_fn(np.ones((3, 1)))
    assert np.isnan(d_theta).all()
    assert np.isnan(d_x[1]).all()
    np.testing.assert_array_equal(d_x[rows], layer.vjp(x[rows], np.ones((2, 1)))[1])
    assert np.isnan(forward_or_nan(program, -layer.theta, x)).all()


@pytest.mark.parametrize(
    "broken", [[[[["gamma", [[[["x", 0]], 1.0]]]], 1.0]], [[[["sin", 3]], 1.0]], [[[["sin"]], 1.0]]]
)
def test_damaged_files_are_refused(broken):
    with pytest.raises(SpecError):
        Angle.from_list(broken)
    deep = [[[["x", 0]], 1.0]]
    for _ in range(2000):
        deep = [[[["sin", deep]], 1.0]]
    with pytest.raises(SpecError):
        Angle.from_list(deep)


def test_circuits_from_circuits_keep_functions():
    circuit = mixed()
    swapped = circuit.map_inputs(lambda x: [x[1] * 0.5, x[0]])
    theta, row = np.array([0.3, 2.0, 0.5]), np.array([0.4, 0.6])
    np.testing.assert_allclose(
        reference.state(swapped, theta, row), reference.state(circuit, theta, np.array([0.3, 0.4])), atol=EXACT
    )
    both = circuit.compose(circuit.inverse(), inputs=[input_(0), input_(1)],
                           weights=[weight(k) for k in range(3)])  # fmt: skip
    psi = reference.state(both, theta, row)
    assert abs(psi[0]) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own call
def test_torch_computes_and_differentiates_them_on_every_path():
    torch = pytest.importorskip("torch")
    from qstore_torch import QuantumLayer as TorchLayer

    reference_layer = QuantumLayer(mixed(), Z, init=[0.3, 2.0, 0.5], backend="statevector")
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 2))
    d_theta, d_x = reference_layer.vjp(x, np.ones((3, 4)))
    for backend in ("auto", "torch"):
        layer = TorchLayer(mixed(), Z, init=[0.3, 2.0, 0.5], backend=backend, dtype=torch.float64)
        leaf = torch.tensor(x, requires_grad=True)
        out = layer(leaf)
        out.sum().backward()
        np.testing.assert_allclose(out.detach(), reference_layer(x), atol=VALUE["float64"])
        np.testing.assert_allclose(layer.theta.grad, d_theta, atol=GRADIENT["float64"])
        np.testing.assert_allclose(leaf.grad, d_x, atol=GRADIENT["float64"])
    assert torch.autograd.gradgradcheck(lambda at: layer(at), (leaf.detach()[:1].requires_grad_(),))
    tangent = torch.func.jvp(lambda at: layer(at).sum(), (leaf.detach(),), (torch.ones_like(leaf),))[1]
    np.testing.assert_allclose(tangent.detach(), d_x.sum(), atol=GRADIENT["float64"])
    with pytest.raises(InputError, match="arccos"):
        TorchLayer(chebyshev(), Expectation("Z"))(torch.tensor([[1.5]]))
