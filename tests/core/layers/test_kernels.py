"""Kernels: closed forms, states against pairs, gradients against differences, and scikit-learn's SVC."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import (
    CapabilityError,
    Channel,
    Circuit,
    InputError,
    NoiseModel,
    QuantumFeatureExtractor,
    QuantumKernel,
    ShapeError,
    SpecError,
    get_backend,
)
from qstore_core.circuit.gates.table import GATES, gate
from qstore_core.layers import kernels as module
from tests.support.strategies import circuits
from tests.support.tolerances import EXACT, FINITE_DIFFERENCE, SIGMAS, SUM, VALUE, allow


def feature_map(n=3, levels=2):
    """RY(w x) and RZ(x) on each qubit and CNOTs in a row, `levels` times."""
    c = Circuit(n)
    x = c.inputs(n)
    for _ in range(levels):
        for q, w in enumerate(c.weights(n)):
            c.ry(w * x[q], q)
            c.rz(x[q] + w, q)
        for q in range(n - 1):
            c.cnot(q, q + 1)
    return c


def by_matrices(circuit, theta, x):
    """States (n, 2**n), by multiplying the gates' matrices out."""
    out = []
    n = circuit.n_qubits
    for row in x:
        state = np.zeros(1 << n, complex)
        state[0] = 1.0
        for op in circuit.operations:
            matrix = GATES[op.gate].matrix(*(angle.value(theta, row) for angle in op.params))
            k = gate(op.gate).n_qubits
            tensor = np.moveaxis(state.reshape((2,) * n), op.qubits, range(k))
            tensor = (matrix @ tensor.reshape(1 << k, -1)).reshape((2,) * n)
            state = np.moveaxis(tensor, range(k), op.qubits).ravel()
        out.append(state)
    return np.array(out)


def test_rotations_about_one_axis_give_cosines():
    x, y = np.random.default_rng(0).normal(size=(5, 3)), np.random.default_rng(1).normal(size=(4, 3))
    expected = np.prod(np.cos((x[:, None] - y[None]) / 2) ** 2, axis=-1)
    np.testing.assert_allclose(QuantumKernel("angle", n_qubits=3)(x, y), expected, rtol=0, atol=EXACT)


def test_amplitudes_give_squared_cosines_of_the_angle_between_rows():
    x = np.random.default_rng(0).normal(size=(5, 6))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(QuantumKernel("amplitude", n_qubits=3)(x), (unit @ unit.T) ** 2, rtol=0, atol=EXACT)


@settings(max_examples=25)
@given(circuits(max_qubits=3, amplitudes=False), st.integers(0, 99))
def test_any_circuit_equals_its_matrices(circuit, seed):
    rng = np.random.default_rng(seed)
    kernel = QuantumKernel(circuit)
    kernel.theta = rng.normal(size=circuit.n_weights)
    x, y = rng.normal(size=(3, circuit.n_inputs)), rng.normal(size=(2, circuit.n_inputs))
    a, b = (by_matrices(circuit, kernel.theta, rows) for rows in (x, y))
    np.testing.assert_allclose(kernel(x, y), np.abs(a @ b.conj().T) ** 2, rtol=0, atol=EXACT)
    np.testing.assert_allclose(kernel(x), np.abs(a @ a.conj().T) ** 2, rtol=0, atol=EXACT)


@pytest.mark.parametrize("encoding", ["angle", "iqp", "zz", "basis"])
def test_pairs_of_circuits_equal_states(encoding):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (4, 3)).astype(float) if encoding == "basis" else rng.normal(size=(4, 3))
    by_states = QuantumKernel(encoding, n_qubits=3)
    by_pairs = QuantumKernel(encoding, n_qubits=3)
    by_pairs._by_states, by_pairs._pairs = False, by_pairs._compute_uncompute()
    np.testing.assert_allclose(by_pairs(x), by_states(x), rtol=0, atol=EXACT)
    np.testing.assert_allclose(by_pairs(x, x[:2].copy()), by_states(x, x[:2].copy()), rtol=0, atol=EXACT)


def test_pairs_share_the_weights_of_a_trained_circuit():
    kernel = QuantumKernel(feature_map(), seed=0, init="uniform")
    pairs = QuantumKernel(feature_map(), seed=0, init="uniform")
    pairs._by_states, pairs._pairs = False, pairs._compute_uncompute()
    x = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(pairs(x), kernel(x), rtol=0, atol=EXACT)
    with pytest.raises(CapabilityError, match='backend="auto"'):
        pairs.alignment_and_gradient(x, [0, 1, 0, 1])


def test_noise_of_a_backend_is_in_every_entry():
    """Depolarising behind each of two rotations shrinks Bloch vectors by s each: (1 + s² cos(x - y)) / 2."""
    model = NoiseModel().after("ry", Channel.depolarizing(0.1))
    kernel = QuantumKernel("angle", n_qubits=1, backend=get_backend("density", noise_model=model))
    x = np.array([[0.2], [1.1]])
    gram = kernel(x)
    shrunk = 2 * gram[0, 0] - 1
    assert 0.7 < shrunk < 0.9
    np.testing.assert_allclose(gram, (1 + shrunk * np.cos(x - x.T)) / 2, rtol=0, atol=EXACT)
    noisy = Circuit(1)
    noisy.depolarizing(0.1, 0)
    with pytest.raises(SpecError, match="Noise belongs to the backend"):
        QuantumKernel(noisy)


def test_samples_of_a_backend_are_near():
    pytest.importorskip("qiskit_aer")
    x = np.array([[0.2], [1.1], [2.0]])
    sampled = QuantumKernel("angle", n_qubits=1, backend="aer", shots=4000, seed=0)(x)
    exact = np.cos((x - x.T) / 2) ** 2
    assert (np.abs(sampled - exact) <= SIGMAS * np.sqrt(exact * (1 - exact) / 4000) + EXACT).all()


def test_blocks_do_not_change_a_gram_matrix(monkeypatch):
    kernel, x = QuantumKernel("zz", n_qubits=2), np.random.default_rng(0).normal(size=(150, 2))
    whole = kernel(x), kernel(x, x[:70].copy())
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1 << 10)
    for got, expected in zip((kernel(x), kernel(x, x[:70].copy())), whole, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=EXACT)
    np.testing.assert_array_equal(kernel(x), kernel(x).T)


def test_float32_stays_float32_and_near():
    kernel, x = QuantumKernel("zz", n_qubits=6), np.random.default_rng(0).uniform(0, 1, (20, 6))
    single = kernel(x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(
        single, kernel(x.astype(np.float32).astype(float)), rtol=0, atol=20 * SUM
    )  # angles to 40


@pytest.mark.parametrize("classes", [[0, 1, 1, 0, 1, 1], ["a", "b", "c", "a", "b", "c"]])
def test_the_gradient_of_the_alignment_equals_differences(classes):
    kernel, rng, h = QuantumKernel(feature_map(), seed=1, init="uniform"), np.random.default_rng(0), 1e-6
    x, along = rng.normal(size=(6, 3)), rng.normal(size=kernel.theta.shape)
    value, gradient = kernel.alignment_and_gradient(x, classes)
    assert value == pytest.approx(kernel.alignment(x, classes), abs=EXACT)
    theta, ends = kernel.theta, []
    for sign in (1, -1):
        kernel.theta = theta + sign * h * along
        ends.append(kernel.alignment(x, classes))
    slope = (ends[0] - ends[1]) / (2 * h)
    assert gradient @ along == pytest.approx(slope, abs=allow(slope, FINITE_DIFFERENCE))


def test_an_alignment_by_hand():
    """K is 1 in each class and 0 between; T = y yᵀ with y = (-1/2, -1/2, 1)."""
    kernel = QuantumKernel("basis", n_qubits=1)
    found = kernel.alignment([[0.0], [0.0], [1.0]], [1, 1, 2])
    assert found == pytest.approx((4 / 4 + 1) / (np.sqrt(5) * 1.5), abs=EXACT)


def test_matrix_and_alignment_equal_those_of_pennylane():
    qml = pytest.importorskip("pennylane")
    device = qml.device("default.qubit", wires=3)

    @qml.qnode(device)
    def overlap(a, b):
        qml.IQPEmbedding(a, wires=range(3))
        qml.adjoint(qml.IQPEmbedding)(b, wires=range(3))
        return qml.probs(wires=range(3))

    x = np.random.default_rng(0).normal(size=(5, 3))
    labels, kernel = np.array([1, -1, -1, 1, -1]), QuantumKernel("iqp", n_qubits=3)
    theirs = qml.kernels.square_kernel_matrix(x, lambda a, b: overlap(a, b)[0])
    np.testing.assert_allclose(kernel(x), theirs, rtol=0, atol=VALUE["float64"])
    theirs = qml.kernels.target_alignment(x, labels, lambda a, b: overlap(a, b)[0])
    assert kernel.alignment(x, labels) == pytest.approx(theirs, abs=VALUE["float64"])


def test_functions_of_features_and_weights():
    c = Circuit(1)
    (x,), (w,) = c.inputs(1), c.weights(1)
    c.ry(2 * x.arccos() * w.exp(), 0)
    kernel, points = QuantumKernel(c, init=lambda rng, size: [0.1]), np.array([[0.3], [-0.5], [0.9]])
    half = np.arccos(points[:, 0]) * np.exp(0.1)
    np.testing.assert_allclose(kernel(points), np.cos(half[:, None] - half) ** 2, rtol=0, atol=EXACT)
    _, gradient = kernel.alignment_and_gradient(points, [0, 1, 0])
    kernel.theta = [0.1 + 1e-6]
    above = kernel.alignment(points, [0, 1, 0])
    kernel.theta = [0.1 - 1e-6]
    assert gradient[0] == pytest.approx((above - kernel.alignment(points, [0, 1, 0])) / 2e-6, abs=FINITE_DIFFERENCE)
    with pytest.raises(InputError, match="arccos"):
        kernel([[1.5]])


def test_training_separates_two_classes():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (30, 2))
    labels = (x.sum(axis=1) > 0).astype(int)
    kernel = QuantumKernel(feature_map(2), seed=0)
    values = kernel.train(x, labels, steps=15, batch_size=20, seed=1)
    assert len(values) == 15
    assert kernel.alignment(x, labels) > values[0] + 0.1


def test_a_layer_gives_its_circuit_and_weights():
    layer = QuantumFeatureExtractor(2, encoding="angle", reuploading=True, init="uniform", seed=0)
    kernel = QuantumKernel(layer)
    np.testing.assert_array_equal(kernel.theta, layer.theta)
    x = np.random.default_rng(0).normal(size=(3, 2))
    states = by_matrices(layer.circuit, layer.theta, x)
    np.testing.assert_allclose(kernel(x), np.abs(states @ states.conj().T) ** 2, rtol=0, atol=EXACT)


def test_a_support_vector_machine_takes_it_as_a_function_and_as_a_matrix():
    svm = pytest.importorskip("sklearn.svm")
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (40, 2))
    labels = np.where(np.linalg.norm(x, axis=1) > 0.75, "out", "in")
    kernel = QuantumKernel("zz", n_qubits=2)
    by_function = svm.SVC(kernel=kernel).fit(x[:30], labels[:30])
    by_matrix = svm.SVC(kernel="precomputed").fit(kernel(x[:30]), labels[:30])
    np.testing.assert_array_equal(by_function.predict(x[30:]), by_matrix.predict(kernel(x[30:], x[:30])))
    again = pickle.loads(pickle.dumps(by_function))
    np.testing.assert_array_equal(again.predict(x), by_function.predict(x))


def test_batches_of_one_class_are_drawn_anew():
    x, labels = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) < 1
    values = QuantumKernel(feature_map(), seed=0).train(x, labels, steps=5, batch_size=2, seed=0)
    assert np.isfinite(values).all()
    assert len(values) == 5


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: QuantumKernel("angle"), SpecError, "n_qubits="),
        (lambda: QuantumKernel("angel", n_qubits=2), SpecError, "angle"),
        (lambda: QuantumKernel(Circuit(2), n_qubits=2), SpecError, "for an encoding"),
        (lambda: QuantumKernel("angle", n_qubits=2)(np.zeros((3, 5))), ShapeError, "takes 2 features"),
        (lambda: QuantumKernel("angle", n_qubits=2)(np.zeros(3)), ShapeError, "samples, features"),
        (lambda: QuantumKernel("angle", n_qubits=2)([[0.0, np.nan]]), InputError, "row 0"),
        (lambda: QuantumKernel("basis", n_qubits=2)([[0.0, 0.5]]), InputError, "bits"),
        (lambda: QuantumKernel("angle", n_qubits=2).train(np.zeros((2, 2)), [0, 1]), SpecError, "no weights"),
        (lambda: QuantumKernel("angle", n_qubits=2).alignment(np.zeros((2, 2)), [0]), ShapeError, "as many labels"),
        (lambda: QuantumKernel("angle", n_qubits=2).alignment(np.zeros((2, 2)), [0, 0]), SpecError, "two classes"),
        (lambda: QuantumKernel("angle", n_qubits=2).alignment(np.zeros((2, 2)), [0, np.nan]), InputError, "labels"),
        (lambda: setattr(QuantumKernel(feature_map()), "theta", [1.0]), ShapeError, "weights"),
        (lambda: setattr(QuantumKernel(feature_map()), "theta", ["a"]), InputError, "real numbers"),
        (lambda: setattr(QuantumKernel(feature_map()), "theta", [[1.0], [1.0, 2.0]]), InputError, "numbers"),
        (lambda: setattr(QuantumKernel(feature_map()), "theta", [np.nan] * 6), InputError, "finite"),
        (lambda: QuantumKernel(feature_map()).train(np.zeros((4, 3)), [0, 1, 0, 1], batch_size=1), SpecError, "2"),
        (lambda: QuantumKernel(feature_map()).train(np.zeros((4, 3)), [0, 1]), ShapeError, "as many labels"),
        (lambda: QuantumKernel(feature_map()).train(np.zeros((2, 3)), [0, 1], learning_rate=np.nan), SpecError, "rate"),
        (lambda: QuantumKernel("angle", n_qubits=40)(np.zeros((3, 40))), MemoryError, "states of 40 qubits"),
    ],
)
def test_what_is_wrong_is_said(call, error, match):
    with pytest.raises(error, match=match):
        call()
