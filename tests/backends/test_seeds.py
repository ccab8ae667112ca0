"""A seed fixes a layer's samples, call by call, whatever else runs; passes draw independently."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import qstore_core
from qstore_core import Circuit, Expectation, QuantumLayer, QuantumReadout, cache_clear, cache_info
from qstore_core.backends.seeds import SeedStream, child_seed
from tests.support.tolerances import SIGMAS

BACKENDS = [
    name
    for name, module in {
        "aer": "qiskit_aer",
        "pennylane:default.qubit": "pennylane",
        "pennylane:lightning.qubit": "pennylane_lightning",
        "pennylane:default.mixed": "pennylane",
    }.items()
    if importlib.util.find_spec(module) is not None
]
X = np.linspace(0.1, 1.5, 6).reshape(3, 2)

pytestmark = pytest.mark.skipif(not BACKENDS, reason="no backend that samples is installed")


def readout(backend, seed=3, module=qstore_core, **options):
    options = {"encoding": "angle", "shots": 50, "fallback": None} | options
    return module.QuantumReadout(2, backend=backend, seed=seed, **options)


def calls(layer, number=3):
    return np.array([layer(X) for _ in range(number)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_spec_and_seed_give_equal_samples_call_by_call(backend):
    cache_clear()
    layer = readout(backend)
    first = calls(layer)
    assert not np.array_equal(first[0], first[1])
    others = [readout(backend), copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))]
    for number, other in enumerate(others):
        if number == 2:  # shares its program with the first one, and goes on with it
            continue
        other.theta = layer.theta
        np.testing.assert_array_equal(calls(other), first)
    cache_clear()  # cold again
    np.testing.assert_array_equal(calls(readout(backend)), first)
    assert not np.array_equal(calls(readout(backend, seed=4)), first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_layers_that_run_by_turns_or_at_once_do_not_disturb_each_other(backend):
    expected = {seed: calls(readout(backend, seed)) for seed in (1, 2)}
    one, two = readout(backend, 1), readout(backend, 2)
    mixed = [(one(X), two(X)) for _ in range(3)]
    np.testing.assert_array_equal([a for a, _ in mixed], expected[1])
    np.testing.assert_array_equal([b for _, b in mixed], expected[2])
    with ThreadPoolExecutor(2) as pool:
        for seed, values in zip((1, 2), pool.map(calls, (readout(backend, 1), readout(backend, 2))), strict=True):
            np.testing.assert_array_equal(values, expected[seed])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backward_pass_does_not_move_later_forward_passes(backend):
    plain = calls(readout(backend))
    layer = readout(backend)
    trained = []
    for _ in range(3):
        outputs, vjp_fn = layer._program.value_and_vjp(layer.theta, X)
        trained.append(outputs)
        vjp_fn(np.ones_like(outputs))
    np.testing.assert_array_equal(trained, plain)


def train(layer, steps=5):
    """Gradient descent on the squared outputs; theta of every step."""
    path = []
    for _ in range(steps):
        outputs, vjp_fn = layer._program.value_and_vjp(layer.theta, X)
        layer.theta = layer.theta - 0.1 * vjp_fn(2 * outputs)[0]
        path.append(layer.theta)
    return np.array(path)


@pytest.mark.parametrize("gradient", ["auto", "finite-difference", "spsa"])
def test_a_training_run_repeats_bit_for_bit(gradient):
    first = train(readout(BACKENDS[0], gradient=gradient))
    cache_clear()
    readout(BACKENDS[0], seed=9)(X)
    np.testing.assert_array_equal(train(readout(BACKENDS[0], gradient=gradient)), first)


def test_one_compiled_circuit_serves_all_seeds():
    cache_clear()
    for seed in range(10):
        readout(BACKENDS[0], seed)(X)
    assert cache_info()[:3] == (9, 1, 1)


def test_forward_and_shifted_circuits_sample_independently():
    """Correlation of the noise of an output and of its slope, over rows and seeds; it was 0.15."""
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0] + circuit.inputs(1)[0], 0)
    x = np.full((400, 1), 0.9)
    outputs, slopes = [], []
    for seed in range(10):
        layer = QuantumLayer(circuit, Expectation("Z"), backend=BACKENDS[0], shots=50, seed=seed, fallback=None)
        layer.theta = np.array([0.3])
        values, vjp_fn = layer._program.value_and_vjp(layer.theta, x)
        outputs.append(values[:, 0])
        slopes.append(vjp_fn(np.ones((400, 1)))[1][:, 0])
    size = 400 * 10
    correlation = np.corrcoef(np.concatenate(outputs), np.concatenate(slopes))[0, 1]
    assert abs(correlation) < SIGMAS / np.sqrt(size)


def test_without_a_seed_samples_are_new_ones():
    assert not np.array_equal(calls(readout(BACKENDS[0], None)), calls(readout(BACKENDS[0], None)))


def test_manual_seed_reaches_samples_of_torch_layers_without_a_seed():
    torch = pytest.importorskip("torch")
    import qstore_torch

    layer, x = readout(BACKENDS[0], None, qstore_torch), torch.from_numpy(X)
    x.requires_grad_()

    def step():
        torch.manual_seed(7)
        outputs = [layer(x) for _ in range(2)]
        sum(out.pow(2).sum() for out in outputs).backward()
        gradients = layer.theta.grad.clone(), x.grad.clone()
        layer.theta.grad = x.grad = None
        return [*outputs, *gradients]

    first, again = step(), step()
    assert not torch.equal(first[0], first[1])
    assert all(map(torch.equal, first, again))
    torch.manual_seed(8)
    assert not torch.equal(layer(x), first[0])


def test_a_seed_of_its_own_leaves_torchs_generator_alone():
    torch = pytest.importorskip("torch")
    import qstore_torch

    layer = readout(BACKENDS[0], 1, qstore_torch)
    exact = QuantumReadout(2, encoding="angle", backend="statevector")
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    layer(torch.from_numpy(X))
    exact(X)
    assert torch.equal(torch.rand(1), expected)


def test_compiled_torch_layers_of_equal_seeds_give_equal_samples():
    torch = pytest.importorskip("torch")
    import qstore_torch

    x = torch.from_numpy(X)
    layer = readout(BACKENDS[0], 3, qstore_torch)
    expected = [layer(x) for _ in range(2)]
    others = [readout(BACKENDS[0], 3, qstore_torch), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    for other in others:
        torch.compiler.reset()
        call = torch.compile(other, backend="eager", fullgraph=True)
        with torch.no_grad():
            assert all(torch.equal(call(x), want) for want in expected)


@pytest.mark.parametrize("graph", [False, True])
def test_set_random_seed_reaches_samples_of_keras_layers_without_a_seed(graph):
    tf = pytest.importorskip("tensorflow")
    import keras

    import qstore_tf

    layer = readout(BACKENDS[0], None, qstore_tf)
    call = tf.function(lambda x: layer(x, training=True)) if graph else lambda x: layer(x, training=True)
    x = tf.constant(X, tf.float32)
    call(x)
    values = []
    for seed in (7, 7, 8):
        keras.utils.set_random_seed(seed)
        values.append([call(x).numpy() for _ in range(2)])
    np.testing.assert_array_equal(values[0], values[1])
    assert not np.array_equal(values[0][0], values[0][1])
    assert not np.array_equal(values[0], values[2])


def test_children_of_a_seed_are_distinct_and_in_range():
    seeds = {child_seed(5, call, part) for call in range(100) for part in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    stream = SeedStream(5)
    one, two = stream.call(), stream.call()
    second = two.next()
    assert [one.next(), one.next(), second] == [child_seed(5, 0, 0), child_seed(5, 0, 1), child_seed(5, 1, 0)]
