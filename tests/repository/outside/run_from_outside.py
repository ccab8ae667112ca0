"""A gate, an encoding, an ansatz and a measurement, each added by one file and one registration.

They work on every engine, in every framework, in drawings, gradients and files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import qstore_core
import qstore_tf
import qstore_torch
from qstore_core import Circuit, LayerSpec, SpecError
from qstore_core.circuit.gates.table import GATES
from tests.repository.outside import echo_gate
from tests.repository.outside.brick_ansatz import Bricks
from tests.repository.outside.chebyshev_encoding import Mixed
from tests.repository.outside.variance_measurement import Variances
from tests.support import reference
from tests.support.reference import difference_vjp
from tests.support.tolerances import EXACT, EXACT_GRADIENT, FINITE_DIFFERENCE, GRADIENT, VALUE, allow

NUMPY = ["statevector", "numba", "aer", "pennylane:default.qubit"]
MODULES = "echo_gate", "chebyshev_encoding", "brick_ansatz", "variance_measurement"


def gate_circuit():
    circuit = Circuit(3)
    x, w = circuit.inputs(6), circuit.weights(3)
    for qubit in range(3):
        circuit.ry(x[2 * qubit], qubit)
        circuit.rx(x[2 * qubit + 1], qubit)
    circuit.zx(w[0], 0, 1)
    circuit.zx(2 * w[1] + x[0], 2, 0)
    circuit.rz(w[2], 1)
    circuit.zx(0.3, 1, 2)
    return circuit


LAYERS = {
    "gate": ("QuantumLayer", {"circuit": gate_circuit(), "measurement": qstore_core.Expectation(("Z", "X"))}),
    "encoding": ("QuantumFeatureExtractor", {"n_qubits": 3, "depth": 1, "encoding": Mixed((1.0, 0.5))}),
    "ansatz": ("QuantumPooling", {"n_qubits": 3, "pool_size": 3, "depth": 2, "encoding": "mixed", "ansatz": Bricks(1)}),
    "measurement": ("QuantumLayer", {"circuit": gate_circuit(), "measurement": Variances("X")}),
}
each = pytest.mark.parametrize("which", LAYERS)


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()


def make(module, which, **more):
    kind, arguments = LAYERS[which]
    return getattr(module, kind)(**arguments, **{"seed": 1, "init": "uniform"} | more)


def features(rows=4):
    return np.random.default_rng(3).uniform(-1, 1, (rows, 6))


def expected_outputs(layer, theta, x):
    """By gate-by-gate simulation with the registered matrices."""
    spec = layer.spec
    values = reference.simulate(spec.circuit, spec.measurement.primitive(3), theta, x)
    if isinstance(spec.measurement, Variances):
        values = 1 - values**2
        return np.concatenate([values, values.mean(axis=1, keepdims=True)], axis=1)
    return values


@each
@pytest.mark.parametrize("backend", NUMPY)
def test_on_every_backend_with_exact_gradients(which, backend):
    layer, x = make(qstore_core, which, backend=backend, fallback=None), features()
    expected = expected_outputs(layer, layer.theta, x)
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=VALUE["float64"])
    cotangents = np.random.default_rng(0).normal(size=expected.shape)
    wanted = difference_vjp(lambda theta, x: expected_outputs(layer, theta, x), cotangents, layer.theta, x)
    for actual, difference in zip(layer.vjp(x, cotangents), wanted, strict=True):
        np.testing.assert_allclose(actual, difference, rtol=0, atol=allow(difference, FINITE_DIFFERENCE))


@each
def test_the_parameter_shift_rule_gives_the_same(which):
    x = features()
    layer, shifted = (make(qstore_core, which, gradient=g) for g in ("adjoint", "parameter-shift"))
    cotangents = np.random.default_rng(0).normal(size=(4, layer.output_dim))
    for one, other in zip(layer.vjp(x, cotangents), shifted.vjp(x, cotangents), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=EXACT_GRADIENT)


@each
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_in_pytorch(which, backend, tmp_path):
    numpy_layer, x = make(qstore_core, which), features()
    layer = make(qstore_torch, which, backend=backend, dtype=torch.float64)
    xt = torch.from_numpy(x).requires_grad_()
    out = layer(xt)
    out.sum().backward()
    wanted = numpy_layer.vjp(x, np.ones(out.shape))
    np.testing.assert_allclose(out.detach(), numpy_layer(x), rtol=0, atol=EXACT)
    for actual, expected in zip((layer.theta.grad, xt.grad), wanted, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=EXACT_GRADIENT)
    again = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(xt.detach()), out.detach())
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(xt.detach()), out.detach())


@each
@pytest.mark.parametrize("backend", ["auto", "tensorflow"])
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")  # Keras
def test_in_keras_and_in_a_file(which, backend, tmp_path):
    numpy_layer, x = make(qstore_core, which), features().astype("float32")
    layer = make(qstore_tf, which, backend=backend)
    model = keras.Sequential([keras.Input((6,)), layer])
    with tf.GradientTape() as tape:
        out = model(x, training=True)
    gradient = tape.gradient(out, layer.theta.value)
    np.testing.assert_allclose(out, numpy_layer(x), rtol=0, atol=VALUE["float32"])
    expected = numpy_layer.vjp(x, np.ones(out.shape, "float32"))[0]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=allow(expected, GRADIENT["float32"]))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
    assert again.layers[0].spec == layer.spec


@each
def test_as_text_and_drawn(which):
    layer = make(qstore_core, which)
    text = json.dumps(layer.spec.to_dict())
    assert LayerSpec.from_dict(json.loads(text)) == layer.spec
    assert len(layer.draw().splitlines()) == 3
    assert ("ZX(w0)" in layer.draw()) == (which in ("gate", "measurement"))


@each
def test_a_process_without_the_file_says_what_to_import(which):
    """Nothing is imported because a file says so; the error names the module."""
    module = dict(zip(("gate", "encoding", "ansatz", "measurement"), MODULES, strict=True))[which]
    text = json.dumps(make(qstore_core, which).spec.to_dict())
    if which == "measurement":
        text = json.dumps({"name": "variances", "module": f"tests.repository.outside.{module}", "basis": "X"})
    code = f"""
import json, sys
from qstore_core import LayerSpec, SpecError
from qstore_core.circuit.measurements.measurement import as_measurement
read = as_measurement if {which == "measurement"} else LayerSpec.from_dict
try:
    read(json.load(sys.stdin))
except SpecError as error:
    print(error)
print("tests.repository.outside" in sys.modules)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True, cwd=root
    )
    message, imported = done.stdout.splitlines()
    first = "chebyshev_encoding" if which == "ansatz" else module
    assert f"'tests.repository.outside.{first}': import that first" in message
    assert imported == "False"


def test_an_encoding_checks_its_features_everywhere():
    x = features()
    x[2, 1] = 101
    for module, batch in ((qstore_core, x), (qstore_torch, torch.from_numpy(x)), (qstore_tf, tf.constant(x))):
        layer = make(module, "encoding")
        with pytest.raises(qstore_core.InputError, match="up to 100"):
            layer(batch)
        assert layer(batch[:2]).shape == (2, 3)
    for jit in (False, True):
        out = tf.function(make(qstore_tf, "encoding", backend="tensorflow"), jit_compile=jit)(tf.constant(x)).numpy()
        assert np.isnan(out[2]).all()
        assert np.isfinite(out[:2]).all()


def test_what_is_not_registered_works_and_says_how_to_save_it():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Local(Mixed):
        name = "local"

    layer = qstore_core.QuantumReadout(2, encoding=Local(), seed=0)
    same = qstore_core.QuantumReadout(2, encoding=Mixed(), seed=0)
    x = features()[:, :4]
    np.testing.assert_array_equal(layer(x), same(x))
    assert layer.spec.fingerprint == same.spec.fingerprint
    for attempt in (layer.get_config, layer.spec.to_dict):
        with pytest.raises(SpecError, match=r"run_from_outside\..*Local is not registered.*register_encoding"):
            attempt()
    module = qstore_torch.QuantumReadout(2, encoding=Local(), seed=0)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(torch.from_numpy(x)), module(torch.from_numpy(x)))


BAD = {
    "no class": lambda: qstore_core.register_encoding(3),
    "no dataclass": lambda: qstore_core.register_encoding(type("A", (qstore_core.Encoding,), {"name": "a"})),
    "taken": lambda: qstore_core.register_encoding(qstore_core.IQP),
    "unknown": lambda: qstore_core.unregister_ansatz("nobody"),
    "ours": lambda: qstore_core.unregister_measurement("expectation"),
    "init": lambda: qstore_core.register_init("zeros")(len),
    "gate's name": lambda: qstore_core.register_gate(gate(name="inputs")),
    "gate twice": lambda: qstore_core.register_gate(GATES["zx"]),
    "steps of another gate": lambda: qstore_core.register_gate(gate(steps=echo_gate.STEPS[1:])),
    "matrix of another size": lambda: qstore_core.register_gate(gate(matrix=lambda a: np.eye(2))),
    "not unitary": lambda: qstore_core.register_gate(gate(matrix=lambda a: 2 * np.eye(4))),
    "wrong rule": lambda: qstore_core.register_gate(
        gate(matrix=lambda a: echo_gate.matrix(3 * a),
             steps=tuple(s if isinstance(s, qstore_core.Cnot) or not s.coefficients
                         else qstore_core.AxisRotation(s.qubit, s.axis, (3.0,)) for s in echo_gate.STEPS))
    ),
    "no rule": lambda: qstore_core.register_gate(gate(shift="")),
    "qubit": lambda: qstore_core.register_gate(gate(steps=(qstore_core.Cnot(0, 2),))),
    "axis": lambda: qstore_core.register_gate(gate(steps=(qstore_core.AxisRotation(0, (1.0, 1.0, 0.0)),))),
}  # fmt: skip


def gate(**changes):
    entry = {"name": "mine", "n_qubits": 2, "n_params": 1, "matrix": echo_gate.matrix, "steps": echo_gate.STEPS,
             "shift": "two-term", "help": "."}  # fmt: skip
    return qstore_core.Gate(**entry | changes)


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_registered(case):
    before = set(GATES)
    with pytest.raises(SpecError):
        BAD[case]()
    assert set(GATES) == before


def test_init_functions_are_saved_by_name():
    @qstore_core.register_init("quarter")
    def quarter(rng, size):
        return np.full(size, 0.25)

    try:
        for init in ("quarter", quarter):
            layer = qstore_core.QuantumReadout(2, init=init)
            config = json.loads(json.dumps(layer.get_config()))
            assert config["init"] == {"name": "quarter", "module": __name__}
            np.testing.assert_array_equal(qstore_core.QuantumReadout.from_config(config).theta, layer.theta)
    finally:
        qstore_core.unregister_init("quarter")
    with pytest.raises(SpecError, match=f"registered by module '{__name__}'"):
        qstore_core.QuantumReadout.from_config(config)


def test_a_trained_layer_moves_to_another_backend_in_one_line():
    x = features()
    layer = make(qstore_core, "gate")
    layer.theta = layer.theta + 0.1
    moved = layer.on("aer")
    assert (moved.backend_name, moved.spec) == ("aer", layer.spec)
    np.testing.assert_allclose(moved(x), layer(x), rtol=0, atol=VALUE["float64"])
    module = make(qstore_torch, "gate", dtype=torch.float64)
    torch.testing.assert_close(module.on("statevector")(torch.from_numpy(x)), module(torch.from_numpy(x)))
    kept = make(qstore_tf, "gate", dtype="float64")
    before = kept(x)
    np.testing.assert_allclose(kept.on("statevector")(x), before, rtol=0, atol=VALUE["float64"])
    with pytest.raises(SpecError, match="Did you mean 'shots'"):
        layer.on("aer", shot=3)
    assert layer.on("aer", shots=50).get_config()["shots"] == 50
