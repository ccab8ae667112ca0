"""NumPy = PyTorch = Keras: one layer, one set of weights, one answer, for values and both gradients."""

from __future__ import annotations

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import given, settings

import qstore_core
import qstore_tf
import qstore_torch
from qstore_core import Circuit, Expectation
from tests.support import reference
from tests.support.strategies import KINDS, Batch, batches, layer_arguments
from tests.support.tolerances import EXACT, EXACT_GRADIENT, GRADIENT, VALUE, allow, angle_stretch

FIXED = KINDS[:-1]  # their angles are weights, features and products of two features
TORCH, TENSORFLOW = ("torch", "statevector", "auto"), ("tensorflow", "statevector", "auto")


def make(module, kind, arguments, backend, **more):
    more |= {} if kind == "QuantumEncoder" else {"backend": backend}
    return getattr(module, kind)(**arguments, **more)


# Each returns outputs, d_theta and d_x; None for d_x where bits have no gradient.


def numpy_results(kind, arguments, batch, theta, x, cotangents):
    layer = make(qstore_core, kind, arguments, "statevector")
    layer.theta = theta
    if layer.spec.encoding.differentiable:
        return layer(x), *layer.vjp(x, cotangents)
    d_theta, _ = layer._program.value_and_vjp(theta, x, wrt_inputs=False)[1](cotangents)
    return layer(x), d_theta, None


def torch_results(backend, kind, arguments, batch, theta, x, cotangents):
    layer = make(qstore_torch, kind, arguments, backend, dtype=getattr(torch, batch.dtype))
    with torch.no_grad():
        layer.theta.copy_(torch.from_numpy(theta))
    smooth = layer.spec.encoding.differentiable
    leaf = torch.from_numpy(x).requires_grad_(smooth)
    outputs = layer(leaf)
    assert outputs.dtype == leaf.dtype
    if outputs.requires_grad:
        outputs.backward(torch.from_numpy(cotangents))
    d_theta = layer.theta.grad if layer.spec.n_weights else np.zeros(0)
    return outputs.detach().numpy(), np.asarray(d_theta), leaf.grad.numpy() if smooth else None


def keras_results(backend, kind, arguments, batch, theta, x, cotangents, run=lambda call: call, training=True):
    layer = make(qstore_tf, kind, arguments, backend, dtype=batch.dtype)
    layer.build(x.shape)
    if layer.spec.n_weights:
        layer.theta.assign(theta)
    smooth = layer.spec.encoding.differentiable

    def call(x):
        with tf.GradientTape(persistent=True) as tape:
            if smooth:
                tape.watch(x)
            outputs = layer(x, training=training)
        sources = [*layer.trainable_variables, *([x] if smooth else [])]
        gradients = tape.gradient(outputs, sources, cotangents)
        # TensorFlow says None where nothing depends on a source.
        return outputs, [
            tf.zeros(s.shape, x.dtype) if g is None else g for s, g in zip(sources, gradients, strict=True)
        ]

    outputs, gradients = run(call)(tf.constant(x))
    assert outputs.dtype == batch.dtype
    d_theta = gradients[0] if layer.spec.n_weights else np.zeros(0)
    return outputs.numpy(), np.asarray(d_theta), gradients[-1].numpy() if smooth else None


def compare(expected, actual, value, gradient):
    for name, tolerance, e, a in zip(
        ("outputs", "d_theta", "d_x"), (value, gradient, gradient), expected, actual, strict=True
    ):
        if e is not None:
            np.testing.assert_allclose(a, e, rtol=0, atol=allow(e, tolerance), err_msg=name)


def problem(drawn, batch):
    kind, arguments = drawn
    spec = make(qstore_core, kind, arguments, "statevector").spec
    return kind, arguments, batch, batch.theta(spec), batch.features(spec), batch.cotangents(spec)


@settings(max_examples=60)
@given(drawn=layer_arguments(), batch=batches(("float64",)))
def test_all_frameworks_agree_in_float64(drawn, batch):
    given_ = problem(drawn, batch)
    expected = numpy_results(*given_)
    for backend in ("torch", "statevector"):
        compare(expected, torch_results(backend, *given_), EXACT, EXACT_GRADIENT)
    for backend in ("tensorflow", "statevector"):
        compare(expected, keras_results(backend, *given_), EXACT, EXACT_GRADIENT)


@settings(max_examples=60)
@given(drawn=layer_arguments(kinds=FIXED), batch=batches(("float32",), min_rows=1))
def test_all_frameworks_agree_in_float32(drawn, batch):
    kind, arguments, batch, theta, x, cotangents = problem(drawn, batch)
    spec = make(qstore_core, kind, arguments, "statevector").spec
    exact = numpy_results(
        kind,
        arguments,
        Batch(batch.lead, "float64", batch.seed),
        theta,
        x.astype("float64"),
        cotangents.astype("float64"),
    )
    stretch = angle_stretch(spec, theta, x)
    value, gradient = VALUE["float32"] * stretch, GRADIENT["float32"] * stretch
    given_ = kind, arguments, batch, theta, x, cotangents
    compare(exact, numpy_results(*given_), value, gradient)
    for backend in ("torch", "statevector"):
        compare(exact, torch_results(backend, *given_), value, gradient)
    for backend in ("tensorflow", "statevector"):
        compare(exact, keras_results(backend, *given_), value, gradient)


def circuit():
    c = qstore_core.Circuit(3, amplitudes=True)
    x, w = c.inputs(2), c.weights(4)
    c.ry(w[0] + 0.5 * x[0], 0)
    c.crx(w[1], 0, 2)
    c.cnot(2, 1)
    c.rzz(x[0] * x[1], 0, 1)
    c.rot(w[2], w[3], x[1], 1)
    c.swap(1, 2)
    c.ry(0.3 * w[0], 2)
    return c


PAULIS = (qstore_core.Pauli("ZXY"), 0.5 * qstore_core.Pauli("IZZ") - 2 * qstore_core.Pauli("YII"))
EACH_KIND = [
    ("QuantumEncoder", {"n_qubits": 3}),
    ("QuantumFeatureExtractor", {"n_qubits": 4, "measurement_bases": ("Z", "X", "Y"), "ansatz": "strongly_entangling"}),
    ("QuantumPooling", {"n_qubits": 4, "encoding": "iqp", "depth": 2}),
    ("QuantumReadout", {"n_qubits": 3, "n_classes": 5, "encoding": "angle", "reuploading": True, "depth": 2}),
    ("QuantumReadout", {"n_qubits": 3, "encoding": "basis", "entanglement": [(2, 0), (0, 1)]}),
    ("QuantumLayer", {"circuit": circuit(), "measurement": PAULIS}),
    ("QuantumLayer", {"circuit": circuit(), "measurement": qstore_core.Probabilities(qubits=(2, 0))}),
]


@pytest.mark.parametrize(("kind", "arguments"), EACH_KIND, ids=[f"{k}-{i}" for i, (k, _) in enumerate(EACH_KIND)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_layer_on_every_path(kind, arguments, dtype):
    """Eager, graph and XLA, with the backends that "auto" stands for, in training and inference."""
    given_ = problem((kind, arguments), Batch((2, 3), dtype, 5))
    _, _, batch, theta, x, cotangents = given_
    expected = numpy_results(kind, arguments, batch, theta, x.astype("float64"), cotangents.astype("float64"))
    spec = make(qstore_core, kind, arguments, "statevector").spec
    np.testing.assert_allclose(expected[0], reference.layer_outputs(spec, theta, x), rtol=0, atol=EXACT)
    value, gradient = VALUE[dtype], GRADIENT[dtype]
    for backend in TORCH:
        compare(expected, torch_results(backend, *given_), value, gradient)
    for backend in TENSORFLOW:
        for training in (True, False):
            compare(expected, keras_results(backend, *given_, training=training), value, gradient)
    if dtype == "float32":  # tracing takes seconds, and knows no dtypes
        for backend in TENSORFLOW:
            compare(expected, keras_results(backend, *given_, run=tf.function), value, gradient)
        xla = keras_results("auto", *given_, run=lambda call: tf.function(call, jit_compile=True))
        compare(expected, xla, value, gradient)


def test_zero_rows_agree():
    kind, arguments, batch, theta, x, cotangents = problem(EACH_KIND[1], Batch((4,), "float64", 1))
    x[[0, 2]] = 0
    given_ = kind, arguments, batch, theta, x, cotangents
    expected = numpy_results(*given_)
    assert not expected[2][[0, 2]].any()
    compare(expected, torch_results("torch", *given_), EXACT, EXACT_GRADIENT)
    compare(expected, keras_results("tensorflow", *given_), EXACT, EXACT_GRADIENT)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_have_the_same_arguments_and_attributes(kind):
    arguments = next(a for k, a in EACH_KIND if k == kind)
    core, *others = (make(module, kind, arguments, "auto") for module in (qstore_core, qstore_torch, qstore_tf))
    for other in others:
        other(np.zeros((1, other.spec.n_features))) if isinstance(other, keras.Layer) else None
        own = set(type(other)._framework_arguments) | set(type(core)._framework_arguments)
        names = [list(inspect.signature(type(layer)).parameters) for layer in (core, other)]
        assert [n for n in names[0] if n not in own] == [n for n in names[1] if n not in own]
        assert set(names[1]) - set(names[0]) <= own
        assert all(f"        {name}: " in type(other).__doc__ for name in names[1])
        public = {name for name in dir(core) if not name.startswith("_")}
        assert not public - set(dir(other)) - {"vjp"}  # frameworks have gradients of their own


def test_one_seed_makes_one_theta():
    layers = [module.QuantumReadout(3, n_classes=2, seed=11) for module in (qstore_core, qstore_torch, qstore_tf)]
    layers[2].build((None, 8))
    thetas = [np.asarray(layers[0].theta), layers[1].theta.detach().numpy(), np.asarray(layers[2].theta)]
    np.testing.assert_allclose(thetas[0], thetas[1], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(thetas[1], thetas[2])


def test_configurations_move_between_frameworks():
    layer = qstore_tf.QuantumPooling(4, 2, measurement_bases=("Z", "X"), encoding=qstore_core.IQP(2), seed=3)
    own = {*keras.Layer().get_config(), "theta_initializer", "theta_regularizer", "theta_constraint"}  # Keras's
    config = {key: value for key, value in layer.get_config().items() if key not in own}
    for module in (qstore_core, qstore_torch):
        other = module.QuantumPooling(**config)
        assert other.spec == layer.spec
        assert other.get_config() == config


@pytest.mark.parametrize(
    ("arguments", "x"),
    [
        ({"n_qubits": 2}, [[1.0, float("nan"), 0.0, 0.0]]),
        ({"n_qubits": 2}, [[1.0] * 5]),
        ({"n_qubits": 2}, [1.0] * 4),
        ({"n_qubits": 2, "encoding": "angle"}, [[1.0] * 3]),
        ({"n_qubits": 2, "encoding": "basis"}, [[0.0, 1.0], [0.0, 2.0]]),
        ({"n_qubits": 0}, None),
        ({"n_qubits": 60}, None),
        ({"n_qubits": 2, "n_classes": 5}, None),
        ({"n_qubits": 2, "encoding": "angel"}, None),
        ({"n_qubits": 2, "backend": "statevectr"}, None),
    ],
)
def test_one_mistake_is_one_error(arguments, x):
    """Type, message and attributes; the layers' own names aside."""
    messages = []
    for module, tensor in [
        (qstore_core, np.array), (qstore_torch, torch.tensor), (qstore_tf, lambda v: tf.constant(v, "float32")),
    ]:  # fmt: skip
        with pytest.raises(qstore_core.QstoreError) as caught:  # noqa: PT012 - construction or call
            layer = module.QuantumReadout(**arguments, name="head")
            layer(tensor(x))
        text = re.sub(r"by backend '\w+'", "", str(caught.value))  # frameworks choose different ones
        messages.append((type(caught.value), getattr(caught.value, "row", None), text.split(", ")[0]))
    assert messages[0] == messages[1] == messages[2]


def test_a_circuit_of_pennylane_is_one_layer_in_every_framework():
    qml = pytest.importorskip("pennylane")

    def function(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.BasicEntanglerLayers(weights, wires=range(2))
        return qml.expval(qml.X(0)), qml.probs(wires=1)

    weights, x = {"weights": np.array([[0.1, 0.2], [0.3, 0.4]])}, np.array([[0.5, -0.5]], np.float32)
    ours, in_torch, in_keras = (
        module.QuantumLayer.from_pennylane(function, weights=weights)
        for module in (qstore_core, qstore_torch, qstore_tf)
    )
    np.testing.assert_array_equal(ours.theta, [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(in_torch(torch.from_numpy(x)).detach(), ours(x), atol=VALUE["float32"])
    np.testing.assert_allclose(in_keras(x), ours(x), atol=VALUE["float32"])
    drawn = qstore_tf.QuantumLayer.from_pennylane(function, {"weights": (2, 2)}, init="zeros")
    np.testing.assert_allclose(drawn(np.zeros((1, 2))), [[0.0, 1.0, 0.0]], atol=VALUE["float32"])
    theirs = in_keras.to_pennylane()(x[0], ours.theta)
    np.testing.assert_allclose(np.stack(theirs), ours(x)[0], atol=VALUE["float32"])


def test_functions_of_angles_are_the_same_in_graphs():
    circuit = Circuit(1)
    (x,), (w,) = circuit.inputs(1), circuit.weights(1)
    circuit.ry(2 * np.arccos(x), 0)
    circuit.rx(np.exp(w * x) + np.sin(w), 0)
    arguments = {"circuit": circuit, "measurement": Expectation("Z"), "init": [0.4]}
    ours, x = qstore_core.QuantumLayer(**arguments, backend="statevector"), np.array([[0.3], [-0.6]], np.float32)
    d_theta, d_x = ours.vjp(x, np.ones((2, 1), np.float32))
    layer = qstore_tf.QuantumLayer(**arguments)
    for jit in (False, True):

        @tf.function(jit_compile=jit)
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                out = layer(x)
            return out, *tape.gradient(out, (layer.theta, x))

        for got, expected in zip(step(tf.constant(x)), (ours(x), d_theta, d_x), strict=True):
            np.testing.assert_allclose(got, expected, atol=GRADIENT["float32"])
