"""Every measurement in every framework, against the NumPy layers; and against PennyLane and Qiskit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pennylane as qml
import pytest
import tensorflow as tf
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector, entropy, partial_trace, state_fidelity

import qstore_jax
import qstore_tf
import qstore_torch
from qstore_core import (
    Counts,
    DensityMatrix,
    Entropy,
    Fidelity,
    GradientError,
    Purity,
    QuantumLayer,
    Samples,
    load,
    save,
)
from tests.support.measured import CASES, VECTOR, circuit_and_point
from tests.support.tolerances import GRADIENT, VALUE, allow

CIRCUIT, THETA, X = circuit_and_point()
EVERY = list(CASES)


def problem(name, dtype):
    """`(x, cotangents, [values, d theta, d x])` of the NumPy layer."""
    layer = QuantumLayer(CIRCUIT, CASES[name])
    layer.theta = THETA
    x = X.astype(dtype)
    values = layer(x)
    rng = np.random.default_rng(1)
    cotangents = rng.normal(size=values.shape).astype(dtype)
    if values.dtype.kind == "c":
        cotangents = (cotangents + 1j * rng.normal(size=values.shape)).astype(values.dtype)
    return x, cotangents, [values, *layer.vjp(x, cotangents)]


def agree(actual, wanted, dtype):
    for a, w in zip(actual, wanted, strict=True):
        a = np.asarray(a)
        assert a.shape == w.shape
        np.testing.assert_allclose(a, w, rtol=0, atol=allow(w, GRADIENT[dtype]))
    assert np.asarray(actual[0]).dtype == wanted[0].dtype


@pytest.mark.parametrize("name", EVERY)
def test_in_pytorch(name):
    for dtype, backend in (("float32", "auto"), ("float64", "auto"), ("float64", "torch"), ("float64", "statevector")):
        x, cotangents, wanted = problem(name, dtype)
        layer = qstore_torch.QuantumLayer(CIRCUIT, CASES[name], backend=backend, dtype=getattr(torch, dtype))
        layer.theta.data.copy_(torch.from_numpy(THETA))
        xt = torch.from_numpy(x).requires_grad_()
        out = layer(xt)
        out.backward(torch.from_numpy(cotangents))
        agree([out.detach(), layer.theta.grad, xt.grad], wanted, dtype)
        assert layer(xt[:, None]).shape == (3, 1, *out.shape[1:])
        assert layer(xt[:0]).shape == (0, *out.shape[1:])


@pytest.mark.parametrize("name", EVERY)
def test_in_keras(name):
    for dtype, backend in (("float32", "auto"), ("float64", "tensorflow")):
        x, cotangents, wanted = problem(name, dtype)
        layer = qstore_tf.QuantumLayer(CIRCUIT, CASES[name], backend=backend, dtype=dtype)
        layer.build(x.shape)
        layer.theta.assign(THETA)
        for run in (lambda call: call, tf.function) if dtype == "float32" else (lambda call: call,):
            xk = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(xk)
                out = run(layer)(xk, training=True)
            agree([out, *tape.gradient(out, [layer.theta.value, xk], tf.constant(cotangents))], wanted, dtype)
        spec = layer.compute_output_spec(tf.keras.KerasTensor((None, 2, 3)))
        assert (spec.shape, spec.dtype) == ((None, 2, *out.shape[1:]), out.dtype.name)
        assert layer(tf.constant(x[:, None])).shape == (3, 1, *out.shape[1:])


@pytest.mark.parametrize(("name", "backend"), [("entropy", "auto"), ("density matrix", "auto"), ("state", "auto")])
def test_in_jax(name, backend):
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            x, cotangents, wanted = problem(name, dtype)
            layer = qstore_jax.QuantumLayer(CIRCUIT, CASES[name], backend=backend)
            arguments = jnp.asarray(THETA.astype(dtype)), jnp.asarray(x)
            out, vjp_fn = jax.vjp(jax.jit(layer.apply), *arguments)
            agree([out, *vjp_fn(jnp.asarray(cotangents.conj()))], wanted, dtype)  # JAX: dL/dRe - i dL/dIm
            if dtype == "float32":
                assert layer.apply(arguments[0], arguments[1][:, None]).shape == (3, 1, *out.shape[1:])


def test_half_precision_is_kept_real_and_never_narrows_complex_outputs():
    for measurement, dtype in ((Purity((0,)), torch.float16), (DensityMatrix((0,)), torch.complex64)):
        assert qstore_torch.QuantumLayer(CIRCUIT, measurement)(torch.ones(2, 3, dtype=torch.float16)).dtype == dtype


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own call
@pytest.mark.parametrize("name", ["variance", "density matrix", "entropy of order 5"])
def test_second_derivatives_and_vmap_in_pytorch(name):
    layer = qstore_torch.QuantumLayer(CIRCUIT, CASES[name], dtype=torch.float64)
    x, theta = torch.from_numpy(X), torch.from_numpy(THETA)

    def loss(theta, row):
        out = torch.func.functional_call(layer, {"theta": theta}, row[None])
        return (torch.view_as_real(out) if out.is_complex() else out).square().sum()

    rows = torch.stack([loss(theta, row) for row in x])
    torch.testing.assert_close(torch.func.vmap(loss, (None, 0))(theta, x), rows)
    hessian = torch.func.hessian(loss)(theta, x[0])
    step = 1e-5 * torch.eye(len(theta), dtype=torch.float64)
    slope = torch.func.grad(loss)
    by_differences = torch.stack([(slope(theta + h, x[0]) - slope(theta - h, x[0])) / 2e-5 for h in step])
    torch.testing.assert_close(hessian, by_differences, rtol=0, atol=1e-8)  # truncation and rounding are below 1e-9


def test_entropies_of_pure_states_have_finite_gradients():
    """Eigenvalues 1, 0, 0, 0: equal ones have no slopes of their eigenvectors, which nobody needs."""
    measurement = Entropy((0, 1))
    layer = qstore_torch.QuantumLayer(CIRCUIT, measurement, init="zeros")
    x = torch.zeros(1, 3, requires_grad=True)
    layer(x).sum().backward()
    assert torch.isfinite(layer.theta.grad).all()
    assert torch.isfinite(x.grad).all()
    keras_layer = qstore_tf.QuantumLayer(CIRCUIT, measurement, init="zeros")
    with tf.GradientTape() as tape:
        out = keras_layer(tf.zeros((1, 3)))
    assert np.isfinite(tape.gradient(out, keras_layer.theta.value)).all()
    jax_layer = qstore_jax.QuantumLayer(CIRCUIT, measurement, init="zeros")
    grads = jax.grad(lambda t, x: jax_layer.apply(t, x).sum(), (0, 1))(jnp.zeros(5), jnp.zeros((1, 3)))
    assert all(np.isfinite(g).all() for g in grads)


# -- other libraries -------------------------------------------------------------------------------------------------


def in_pennylane(theta, x, read):
    """`read()` after the circuit of `measured`, for one row."""

    @qml.qnode(qml.device("default.qubit", wires=3), interface="torch", diff_method="backprop")
    def circuit(theta, x):
        for q in range(3):
            qml.RY(x[q], q)
            qml.RZ(theta[q], q)
        qml.CNOT([0, 1])
        qml.ControlledPhaseShift(theta[3], [2, 0])
        qml.Hadamard(1)
        qml.CNOT([1, 2])
        qml.RX(theta[4] - x[0], 0)
        qml.T(2)
        return read()

    return circuit(theta, x)


def pauli(observable):
    letters = {"X": qml.X, "Y": qml.Y, "Z": qml.Z}

    def string(text):
        return qml.prod(*(letters[c](q) for q, c in enumerate(text) if c != "I")) if set(text) != {"I"} else qml.I(0)

    return qml.dot([c for _, c in observable.terms], [string(s) for s, _ in observable.terms])


def mutual(name):
    """What PennyLane calls a case; None where it has no such measurement."""
    m = CASES[name]
    return {
        "variance": lambda: qml.var(pauli(m.observables[0])),
        "density matrix": lambda: qml.density_matrix([2, 0]),
        "purity": lambda: qml.purity([1]),
        "entropy": lambda: qml.vn_entropy([0, 2]),
        "state": qml.state,
        "fidelity with a vector": qml.state,
    }.get(name)


@pytest.mark.parametrize("name", [name for name in EVERY if mutual(name)])
def test_against_pennylane(name):
    _, cotangents, wanted = problem(name, "float64")
    theta, x = torch.from_numpy(THETA).requires_grad_(), torch.from_numpy(X).requires_grad_()
    out = torch.stack([in_pennylane(theta, row, mutual(name)) for row in x])
    if isinstance(CASES[name], Fidelity):
        vector = torch.tensor(VECTOR)
        out = torch.stack([qml.math.fidelity_statevector(state, vector) for state in out])
    out = out.reshape(cotangents.shape)
    (torch.from_numpy(cotangents).conj() * out).real.sum().backward()
    tolerances = (VALUE["float64"], GRADIENT["float64"], GRADIENT["float64"])
    for actual, w, tolerance in zip((out.detach(), theta.grad, x.grad), wanted, tolerances, strict=True):
        np.testing.assert_allclose(actual, w, rtol=0, atol=allow(w, tolerance))


def in_qiskit(row):
    """The state, whose phase Qiskit keeps as well."""
    qc = QuantumCircuit(3)
    for q in range(3):
        qc.ry(row[q], q)
        qc.rz(THETA[q], q)
    qc.cx(0, 1)
    qc.cp(THETA[3], 2, 0)
    qc.h(1)
    qc.cx(1, 2)
    qc.rx(THETA[4] - row[0], 0)
    qc.t(2)
    return Statevector(qc)


def test_against_qiskit():
    """Qiskit's qubit 0 is the least significant."""
    layers = {name: QuantumLayer(CIRCUIT, CASES[name]) for name in ("state", "density matrix", "entropy", "purity")}
    for layer in layers.values():
        layer.theta = THETA
    values = {name: layer(X) for name, layer in layers.items()}
    fidelity = QuantumLayer(CIRCUIT, CASES["fidelity with a vector"])
    fidelity.theta = THETA
    for k, row in enumerate(X):
        psi = in_qiskit(row)
        rho = partial_trace(psi, [1])
        little = lambda v: np.asarray(v).reshape(2, 2, 2).transpose(2, 1, 0).ravel()  # noqa: E731
        for name, wanted in (
            ("state", little(psi.data)),
            ("density matrix", rho.data),  # of qubits (2, 0): Qiskit's order
            ("entropy", [entropy(rho, base=np.e)]),
            ("purity", [partial_trace(psi, [0, 2]).purity().real]),
        ):
            np.testing.assert_allclose(values[name][k], wanted, rtol=0, atol=VALUE["float64"], err_msg=name)
        wanted = state_fidelity(psi, Statevector(little(VECTOR)))
        np.testing.assert_allclose(fidelity(row[None])[0, 0], wanted, rtol=0, atol=VALUE["float64"])


# -- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "aer"])
def test_samples_in_all_frameworks(backend):
    measurement, shots = Samples(50, (2, 0)), 50
    wanted = QuantumLayer(CIRCUIT, measurement, backend=backend, seed=2)(X)
    layer = qstore_torch.QuantumLayer(CIRCUIT, measurement, backend=backend, seed=2, dtype=torch.float64)
    x = torch.from_numpy(X)
    out = layer(x)
    assert out.shape == (3, shots, 2)
    np.testing.assert_array_equal(out.detach(), wanted)
    with pytest.raises(GradientError, match="drawn at random"):
        out.sum().backward()
    half = layer(x.half())
    assert half.dtype == torch.float32
    keras_layer = qstore_tf.QuantumLayer(CIRCUIT, measurement, backend=backend, seed=2, dtype="float64")
    with tf.GradientTape() as tape:
        out = keras_layer(tf.constant(X))
    np.testing.assert_array_equal(out, wanted)
    with pytest.raises(GradientError, match="drawn at random"):
        tape.gradient(out, keras_layer.theta.value)
    counts = qstore_tf.QuantumLayer(CIRCUIT, Counts(shots), backend=backend, seed=2)
    graph = tf.function(counts)
    one, two = graph(tf.constant(X)), graph(tf.constant(X))
    assert (tf.reduce_sum(one, 1) == shots).numpy().all()
    assert (one != two).numpy().any()
    jax_layer = qstore_jax.QuantumLayer(CIRCUIT, measurement, backend=backend, seed=2)
    theta = jax_layer.init()
    out = jax.jit(jax_layer.apply)(theta, jnp.asarray(X, jnp.float32))
    assert out.shape == (3, shots, 2)
    assert set(np.unique(out)) == {0.0, 1.0}
    with pytest.raises(GradientError, match="drawn at random"):
        jax.grad(lambda t: jax_layer.apply(t, jnp.asarray(X)).sum())(theta)


def test_compiled_samples_differ_from_call_to_call():
    layer = qstore_torch.QuantumLayer(CIRCUIT, Counts(1000), seed=2)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with torch.no_grad():
        one, two = (compiled(torch.from_numpy(X).float()) for _ in range(2))
    assert (one.sum(1) == 1000).all()
    assert (one != two).any()


def test_compiled_states():
    layer = qstore_torch.QuantumLayer(CIRCUIT, CASES["state"])
    matrix = qstore_torch.QuantumLayer(CIRCUIT, CASES["density matrix"])
    x = torch.from_numpy(X).float()
    for module in (layer, matrix):
        out = torch.compile(module, backend="eager", fullgraph=True)(x)
        torch.testing.assert_close(out, module(x))
        out.abs().square().sum().backward()


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")  # Keras
@pytest.mark.parametrize("name", ["state", "density matrix", "fidelity with a circuit"])
def test_models_train_and_are_saved(name, tmp_path):
    inputs = keras.Input((3,))
    layer = qstore_tf.QuantumLayer(CIRCUIT, CASES[name], seed=1)
    model = keras.Model(inputs, keras.ops.abs(layer(inputs)))
    model.compile("adam", "mse")
    model.fit(X, np.zeros((3, *model.output_shape[1:])), epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    save(tmp_path / "layer.safetensors", layer)
    other = load(tmp_path / "layer.safetensors")
    np.testing.assert_allclose(other(X.astype(np.float32)), layer(X), rtol=0, atol=VALUE["float32"])


def test_mixed_precision_narrows_real_outputs_alone():
    x = X.astype(np.float16)
    for measurement, dtype in ((CASES["state"], "complex64"), (Counts(5000), "float32"), (CASES["purity"], "float16")):
        layer = qstore_tf.QuantumLayer(CIRCUIT, measurement, dtype="mixed_float16")
        out = layer(x)
        assert out.dtype.name == dtype == layer.compute_output_spec(keras.KerasTensor(x.shape)).dtype
