"""Circuits in passes over memory: values and gradients equal the NumPy engine's, with few amplitudes to a program."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

from qstore_core import Circuit, Expectation, MemoryLimitError, Pauli, Probabilities, lower
from qstore_core.circuit.spec import layer_spec as specs
from tests.support.strategies import problems

from .needed import DEVICE, skip_where_it_cannot_run

skip_where_it_cannot_run()
from qstore_torch.triton.wide import WideCircuit  # noqa: E402 - imports Triton

from .test_values import AGREE, compare, reference, run  # noqa: E402

# On a GPU a program has a warp at least.
HELD = 4 if DEVICE == "cpu" else 7


def wide(plan, dtype, held=HELD, low=1, registers=2):
    return WideCircuit(plan, getattr(torch, dtype), held, low, registers)


@settings(max_examples=5)
@given(problems(max_qubits=4, max_gates=5, max_rows=1))
def test_any_circuit_and_measurement(problem):
    plan = lower(problem.circuit, problem.measurement)
    assume(plan.n_qubits > 2)
    circuit = wide(plan, "float64", held=plan.n_qubits - 1, low=0, registers=2)
    compare(plan, "float64", problem.theta, problem.inputs, circuit=circuit)


FIXED = {
    "amplitudes": (specs.feature_extractor, {"n_qubits": 6}),
    "three bases": (specs.feature_extractor, {"n_qubits": 5, "measurement_bases": ("Z", "X", "Y"), "depth": 1}),
    "re-uploading": (specs.feature_extractor, {"n_qubits": 5, "encoding": "angle", "reuploading": True}),
    "polynomial angles": (specs.feature_extractor, {"n_qubits": 5, "encoding": "zz", "depth": 1}),
    "three angles a rotation": (specs.feature_extractor, {"n_qubits": 5, "ansatz": "strongly_entangling"}),
    "classes": (specs.readout, {"n_qubits": 5, "n_classes": 10}),
    "pooling": (specs.pooling, {"n_qubits": 6, "depth": 1}),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_layers(name, dtype):
    make, arguments = FIXED[name]
    spec = make(**arguments)
    plan, rng = lower(spec.circuit, spec.measurement), np.random.default_rng(1)
    x = rng.normal(size=(1 if dtype == "float64" else 2, spec.n_features))
    compare(plan, dtype, rng.uniform(-3, 3, spec.n_weights), x, circuit=wide(plan, dtype))


def test_sums_of_strings_and_probabilities():
    circuit = Circuit(5, amplitudes=True)
    for k, w in enumerate(circuit.weights(5)):
        circuit.ry(w, k)
    circuit.cnot(0, 2)
    x = np.random.default_rng(2).normal(size=(2, 32))
    diagonal = (Pauli("ZZIII") + Pauli("IIZII", 0.5), Pauli("IIIII", 2.0), Pauli("IIZII"))
    crossed = (Pauli("XYZII") + Pauli("ZZIII", 0.5), Pauli("YIIII"))
    for observables in (diagonal, crossed):
        plan = lower(circuit, Expectation(observables=observables))
        compare(plan, "float64", [0.1, -2.0, 0.7, 1.1, 0.2], x, circuit=wide(plan, "float64"))
    plan = lower(circuit, Probabilities(qubits=(2, 0)))
    compare(plan, "float64", [0.1, -2.0, 0.7, 1.1, 0.2], x, circuit=wide(plan, "float64"))


@pytest.mark.parametrize("n_gates", [0, 1])
def test_circuits_of_nearly_nothing(n_gates):
    circuit = Circuit(5, amplitudes=True)
    if n_gates:
        circuit.ry(circuit.weights(1)[0], 3)
    plan = lower(circuit, Expectation("Z"))
    x = np.random.default_rng(3).normal(size=(2, 32))
    compare(plan, "float64", [0.4] * n_gates, x, circuit=wide(plan, "float64"))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_amplitude_rows_of_any_size(dtype):
    spec = specs.feature_extractor(n_qubits=5, depth=1)
    plan, tiny = lower(spec.circuit, spec.measurement), np.finfo(dtype).tiny
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 19)) * np.array([1, 1e-30, 1e30, 1, 1, 2 * tiny])[:, None]
    x[3], x[5, 1:3] = 0.0, (tiny / 2, -4 * tiny)
    theta, x[4] = rng.normal(size=spec.n_weights), tiny / 4  # below the smallest normal number: a row of zeros
    cotangents = rng.normal(size=(6, 5))
    outputs, _, d_x = run(plan, dtype, theta, x, cotangents, wide(plan, dtype))
    x[np.abs(x) < tiny] = 0.0
    expected, _, expected_d_x = reference(plan, theta, x, cotangents)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=AGREE[dtype])
    assert not d_x[3:5].any()
    scale = np.abs(x).max(1, keepdims=True) + 1.0 * (x == 0).all(1, keepdims=True)
    np.testing.assert_allclose(d_x * scale, expected_d_x * scale, rtol=0, atol=10 * AGREE[dtype])


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
def test_what_is_not_finite_makes_its_row_nan(encoding):
    spec = specs.feature_extractor(n_qubits=5, depth=1, encoding=encoding)
    plan = lower(spec.circuit, spec.measurement)
    for bad in (np.nan, np.inf):
        x = np.random.default_rng(4).normal(size=(2, spec.n_features))
        x[1, 3] = bad
        with np.errstate(invalid="ignore"):  # the interpreter computes with NumPy, which warns of NaN
            outputs, _, d_x = run(
                plan, "float32", np.full(spec.n_weights, 0.3), x, np.ones((2, 5)), wide(plan, "float32")
            )
        assert np.isnan(outputs).all(1).tolist() == [False, True]
        assert np.isnan(d_x).all(1).tolist() == [False, True]


def test_what_no_output_depends_on_must_be_finite_too():
    circuit = Circuit(5)
    w = circuit.weights(2)
    circuit.ry(w[0], 0)
    circuit.rz(w[1], 0)
    plan = lower(circuit, Expectation("Z"))
    outputs = run(plan, "float64", np.array([0.0, np.nan]), np.zeros((1, 0)), np.ones((1, 5)), wide(plan, "float64"))[0]
    assert np.isnan(outputs).all()


def test_no_rows():
    spec = specs.feature_extractor(n_qubits=5, depth=1, encoding="angle")
    plan = lower(spec.circuit, spec.measurement)
    compare(plan, "float32", np.ones(spec.n_weights), np.zeros((0, 5)), circuit=wide(plan, "float32"))


def test_gradients_can_be_pulled_again_and_have_the_same_bits():
    spec = specs.feature_extractor(n_qubits=6, depth=2)
    plan = lower(spec.circuit, spec.measurement)
    circuit, rng = wide(plan, "float32"), np.random.default_rng(6)
    theta, x, cotangents = (
        torch.as_tensor(rng.normal(size=shape), device=DEVICE).float() for shape in (spec.n_weights, (1, 64), (1, 6))
    )
    assert len(circuit.program.passes) > 1
    outputs, kept = circuit.forward(theta, x, keep=True)
    first, again = (circuit.backward(theta, x, kept, cotangents) for _ in range(2))
    other_outputs, other = circuit.forward(theta, x, keep=True)
    assert torch.equal(outputs, other_outputs)
    for received in (again, circuit.backward(theta, x, other, cotangents)):
        for a, b in zip(first, received, strict=True):
            assert torch.equal(a, b)


def test_memory_is_looked_at_before_it_is_taken(monkeypatch):
    spec = specs.feature_extractor(n_qubits=14, depth=1, encoding="angle")
    circuit = WideCircuit(lower(spec.circuit, spec.measurement), torch.float32)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 34))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    circuit._check_memory(1 << 13, 2, torch.device("cuda", 0))
    with pytest.raises(MemoryLimitError, match=r"3 of each of 8192 states of 14 qubits .* 3 GiB, 2 GiB available"):
        circuit._check_memory(1 << 13, 3, torch.device("cuda", 0))
