"""Values and gradients of the kernels equal the NumPy engine's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from qstore_core import Circuit, Expectation, Pauli, Probabilities, lower
from qstore_core.circuit.spec import layer_spec as specs
from qstore_core.circuit.spec.encoding import unit_rows_and_vjp
from qstore_core.engines.arrays.numpy_ops import NumpyOps
from qstore_core.engines.statevector import StatevectorExecutable
from tests.support.strategies import circuits, layer_specs, problems
from tests.support.tolerances import allow, angle_stretch

from .needed import DEVICE, skip_where_it_cannot_run

skip_where_it_cannot_run()
from qstore_torch.triton.backend import TritonExecutable  # noqa: E402 - imports Triton

# What the project promises of this engine, against float64. Gradients carry the slopes of polynomial angles, and are
# compared on their own scale; float32 angles of many turns lose what `angle_stretch` says.
AGREE = {"float64": 1e-10, "float32": 1e-5}


def reference(plan, theta, x, cotangents):
    """Outputs and gradients by the NumPy engine in float64; `x` are features (B, F)."""
    executable, width = StatevectorExecutable(plan, "float64"), plan.n_amplitudes
    split = x.shape[1] - plan.n_inputs
    if not width:
        outputs, vjp = executable.value_and_vjp(theta, x)
        return outputs, *vjp(cotangents)
    unit, unit_vjp = unit_rows_and_vjp(NumpyOps(), x[:, :split], width)
    outputs, vjp = executable.value_and_vjp(theta, np.concatenate([unit, x[:, split:]], 1))
    d_theta, d_inputs = vjp(cotangents)
    return outputs, d_theta, np.concatenate([unit_vjp(d_inputs[:, :width])[:, :split], d_inputs[:, width:]], 1)


def run(plan, dtype, theta, x, cotangents, circuit=None):
    """The same by the kernels; `circuit` in the place of what the engine takes."""
    executable, kind = TritonExecutable(plan, dtype), getattr(torch, dtype)
    executable._circuit = circuit or executable._circuit
    tensors = [torch.as_tensor(a, device=DEVICE).to(kind) for a in (theta, x, cotangents)]
    outputs, vjp_fn = executable.apply_and_vjp(*tensors[:2])
    assert torch.allclose(executable.apply(*tensors[:2]), outputs, rtol=0, atol=0, equal_nan=True)
    return [t.cpu().double().numpy() for t in (outputs, *vjp_fn(tensors[2]))]


def compare(plan, dtype, theta, x, stretch=1.0, seed=0, circuit=None):
    """Values and both gradients."""
    theta, x = (np.asarray(a).astype(dtype).astype(float) for a in (theta, x))  # what a float32 engine is given
    cotangents = np.random.default_rng(seed).normal(size=(len(x), plan.n_outputs)).astype(dtype).astype(float)
    received = run(plan, dtype, theta, x, cotangents, circuit)
    for got, expected in zip(received, reference(plan, theta, x, cotangents), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=stretch * allow(expected, AGREE[dtype]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(max_examples=12)
@given(problems(max_qubits=4))
def test_any_circuit_and_measurement(dtype, problem):
    plan = lower(problem.circuit, problem.measurement)
    angles = [abs(a.value(problem.theta, row[plan.n_amplitudes :])) for op in problem.circuit.operations
              for a in op.params for row in problem.inputs]  # fmt: skip
    compare(plan, dtype, problem.theta, problem.inputs, stretch=max([1.0, *angles]))


@settings(max_examples=10)
@given(layer_specs(kinds=("QuantumFeatureExtractor", "QuantumPooling", "QuantumReadout"), max_qubits=8, max_depth=2))
def test_any_layer(spec):
    rng = np.random.default_rng(spec.n_weights)
    x = (
        rng.integers(0, 2, (2, spec.n_features))
        if spec.encoding.name == "basis"
        else rng.normal(size=(2, spec.n_features))
    )
    theta = rng.uniform(-3, 3, spec.n_weights)
    compare(lower(spec.circuit, spec.measurement), "float64", theta, x, angle_stretch(spec, theta, x))


FIXED = {
    "one qubit": (specs.feature_extractor, {"n_qubits": 1}),
    "three bases": (specs.feature_extractor, {"n_qubits": 5, "measurement_bases": ("Z", "X", "Y")}),
    "re-uploading": (specs.feature_extractor, {"n_qubits": 5, "encoding": "angle", "reuploading": True}),
    "polynomial angles": (specs.feature_extractor, {"n_qubits": 5, "encoding": "zz"}),
    "three angles a rotation": (specs.feature_extractor, {"n_qubits": 7, "ansatz": "strongly_entangling"}),
    "classes": (specs.readout, {"n_qubits": 6, "n_classes": 10}),
    "pooling": (specs.pooling, {"n_qubits": 6}),
    "9 qubits": (specs.feature_extractor, {"n_qubits": 9, "depth": 1}),
    "13 qubits": (specs.feature_extractor, {"n_qubits": 13, "depth": 1}),
    "14 qubits": (specs.feature_extractor, {"n_qubits": 14, "depth": 1}),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_layers(name, dtype):
    make, arguments = FIXED[name]
    spec = make(**arguments)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1 if spec.n_qubits > 8 else 3, spec.n_features))
    compare(lower(spec.circuit, spec.measurement), dtype, rng.uniform(-3, 3, spec.n_weights), x)


def test_rotations_of_more_angles_than_a_kernel_takes_are_split():
    circuit = Circuit(2)
    for k, w in enumerate(circuit.weights(7)):
        (circuit.ry if k % 2 else circuit.rx)(w, 0)
    circuit.cnot(0, 1)
    compare(lower(circuit, Expectation("Z")), "float64", np.linspace(-1, 2, 7), np.zeros((2, 0)))


def test_a_sum_of_strings_and_all_probabilities():
    circuit = Circuit(3, amplitudes=True)
    w = circuit.weights(3)
    for k in range(3):
        circuit.ry(w[k], k)
    circuit.cnot(0, 2)
    x = np.random.default_rng(2).normal(size=(3, 8))
    strings = (Pauli("XYZ") + Pauli("ZZI", 0.5), Pauli("YII"), Pauli("III", 2.0))
    for measurement in (Expectation(observables=strings), Probabilities(), Probabilities(qubits=(2, 0))):
        compare(lower(circuit, measurement), "float64", [0.1, -2.0, 0.7], x)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_amplitude_rows_of_any_size(dtype):
    spec = specs.feature_extractor(n_qubits=3, depth=1)
    plan, tiny = lower(spec.circuit, spec.measurement), np.finfo(dtype).tiny
    rng = np.random.default_rng(3)
    x = rng.normal(size=(7, 5)) * np.array([1, 1e-30, 1e30, 1, 1, 1, 2 * tiny])[:, None]
    x[3], x[6, 1:3] = 0.0, (tiny / 2, -4 * tiny)
    theta, x[4] = rng.normal(size=spec.n_weights), tiny / 4  # below the smallest normal number: a row of zeros
    cotangents = rng.normal(size=(7, 3))
    outputs, _, d_x = run(plan, dtype, theta, x, cotangents)
    x[np.abs(x) < tiny] = 0.0
    expected, _, expected_d_x = reference(plan, theta, x, cotangents)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=AGREE[dtype])
    assert not d_x[3:5].any()
    scale = np.abs(x).max(1, keepdims=True) + 1.0 * (x == 0).all(1, keepdims=True)
    np.testing.assert_allclose(d_x * scale, expected_d_x * scale, rtol=0, atol=10 * AGREE[dtype])


def test_what_is_not_finite_makes_its_row_nan():
    for spec, columns in ((specs.feature_extractor(n_qubits=3, depth=1), (0, 7)),
                          (specs.feature_extractor(n_qubits=3, depth=1, encoding="angle"), (0, 2))):  # fmt: skip
        plan, theta = lower(spec.circuit, spec.measurement), np.full(spec.n_weights, 0.3)
        for column in columns:
            for bad in (np.nan, np.inf):
                x = np.random.default_rng(4).normal(size=(3, spec.n_features))
                x[1, column] = bad
                with np.errstate(invalid="ignore"):  # the interpreter computes with NumPy, which warns of NaN
                    outputs, _, d_x = run(plan, "float32", theta, x, np.ones((3, 3)))
                assert np.isnan(outputs[1]).all()
                assert np.isnan(d_x[1]).all()
                assert np.isfinite(outputs[[0, 2]]).all()
                assert np.isfinite(d_x[[0, 2]]).all()


def test_what_no_output_depends_on_must_be_finite_too():
    circuit = Circuit(2)
    x, w = circuit.inputs(2), circuit.weights(2)
    circuit.ry(x[0] + w[0], 0)
    circuit.rz(x[1] + w[1], 0)
    plan = lower(circuit, Probabilities(qubits=(0,)))
    rows = np.array([[0.1, 0.2], [0.1, np.nan]])
    outputs = run(plan, "float64", np.zeros(2), rows, np.ones((2, 2)))[0]
    assert np.isnan(outputs).all(1).tolist() == [False, True]
    assert np.isnan(run(plan, "float64", np.array([0.0, np.nan]), rows, np.ones((2, 2)))[0]).all()


@pytest.mark.parametrize("batch", [0, 1, 65])
def test_any_batch(batch):
    spec = specs.feature_extractor(n_qubits=2, depth=1, encoding="angle")  # 32 samples a program
    rng = np.random.default_rng(5)
    plan = lower(spec.circuit, spec.measurement)
    compare(plan, "float32", rng.normal(size=spec.n_weights), rng.normal(size=(batch, 2)))


@settings(max_examples=5)
@given(circuits(max_qubits=3, amplitudes=False, max_inputs=0))
def test_a_circuit_without_inputs(circuit):
    plan = lower(circuit, Expectation("Z"))
    theta = np.random.default_rng(6).normal(size=circuit.n_weights)
    compare(plan, "float64", theta, np.zeros((2, 0)))
