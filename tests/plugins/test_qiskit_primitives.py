"""`Estimator`, `Sampler` and the gradients for qiskit-machine-learning, against closed forms and Qiskit's own."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import InputError, OptionError, SpecError, cache_clear, cache_info
from tests.support.tolerances import EXACT, EXACT_GRADIENT, SIGMAS, VALUE

qiskit = pytest.importorskip("qiskit")

from qiskit import ClassicalRegister, QuantumCircuit  # noqa: E402
from qiskit.circuit import Parameter  # noqa: E402
from qiskit.circuit.library import real_amplitudes, zz_feature_map  # noqa: E402
from qiskit.circuit.random import random_circuit  # noqa: E402
from qiskit.primitives import StatevectorEstimator, StatevectorSampler  # noqa: E402
from qiskit.quantum_info import SparseObservable, SparsePauliOp  # noqa: E402
from qstore_plugins.qiskit_primitives import Estimator, Sampler  # noqa: E402


def lookups(call):
    """How often `call` asks for a compiled circuit: once for every call of the engine."""
    cache_clear()
    call()
    info = cache_info()
    return info.hits + info.misses


def evs(estimator, *pubs, **options):
    return [result.data.evs for result in estimator.run(pubs, **options).result()]


def model(n=3):
    """A circuit, and its inputs and weights."""
    features, ansatz = zz_feature_map(n, reps=1), real_amplitudes(n, reps=1)
    circuit = QuantumCircuit(n)
    circuit.compose(features, inplace=True)
    circuit.compose(ansatz, inplace=True)
    return circuit, list(features.parameters), list(ansatz.parameters)


# -- estimator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "statevector"])
def test_expectation_is_cosine(backend):
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("x"), 0)
    x = np.array([[0.3], [1.2]])
    first, second = evs(Estimator(backend=backend), (circuit, "IZ", x), (circuit, [["IX"], ["ZI"]], x))
    assert np.abs(first - np.cos(x[:, 0])).max() < EXACT
    assert np.abs(second - [np.sin(x[:, 0]), np.ones(2)]).max() < EXACT


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_values_are_those_of_qiskit(seed):
    circuit = random_circuit(3, 4, max_operands=3, seed=seed)
    observables = ["XYZ", SparsePauliOp(["IZX", "ZZI", "III"], [0.5, -2.0, 1.0])]
    ours, theirs = (evs(one, (circuit, observables))[0] for one in (Estimator(), StatevectorEstimator()))
    assert np.abs(ours - theirs).max() < VALUE["float64"]


@pytest.mark.parametrize(("observables", "batch"), [((), (4,)), ((2, 1), (4,)), ((4,), (2, 4)), ((3,), ())])
def test_parameters_and_observables_broadcast(observables, batch):
    circuit, inputs, weights = model()
    rng = np.random.default_rng(0)
    labels = np.array(["".join(rng.choice(list("IXYZ"), 3)) for _ in range(int(np.prod(observables, dtype=int)))])
    pub = (circuit, labels.reshape(observables).tolist(), rng.normal(size=(*batch, len(inputs) + len(weights))))
    ours, theirs = (evs(one, pub)[0] for one in (Estimator(), StatevectorEstimator()))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < VALUE["float64"]


def test_angles_are_functions_of_parameters():
    """Their gradients too; circuits that differ in the function alone are different."""
    gradients = pytest.importorskip("qstore_plugins.qiskit_gradients")
    circuits, x, y = [], Parameter("x"), Parameter("y")
    for angle in (x.sin() * y, x.cos() * y):
        circuits.append(QuantumCircuit(1))
        circuits[-1].ry(angle, 0)
    row = [0.3, 0.5]
    values = evs(Estimator(), *((circuit, "Z", row) for circuit in circuits))
    assert np.abs(np.array(values) - np.cos(0.5 * np.array([np.sin(0.3), np.cos(0.3)]))).max() < EXACT
    job = gradients.EstimatorGradient().run(circuits, [SparsePauliOp("Z")] * 2, [row] * 2)
    for found, f, slope in zip(job.result().gradients, (np.sin, np.cos), (np.cos, lambda a: -np.sin(a)), strict=True):
        outer = -np.sin(0.5 * f(0.3))
        assert np.abs(found - outer * np.array([0.5 * slope(0.3), f(0.3)])).max() < EXACT_GRADIENT


@pytest.mark.parametrize("backend", ["numba", "statevector"])
def test_amplitudes_that_are_parameters(backend):
    """Of a vector of any length; the first qubit is the least significant bit of their number."""
    raw_feature_vector = pytest.importorskip("qiskit_machine_learning.circuit.library").raw_feature_vector
    gradients = pytest.importorskip("qstore_plugins.qiskit_gradients")
    circuit, x = raw_feature_vector(4), np.array([0.2, 1.0, 1.4, 1.0])
    signs = np.array([1, -1, 1, -1])

    def first(row):
        return signs @ row**2 / (row @ row)

    assert abs(evs(Estimator(backend=backend), (circuit, "IZ", x))[0] - first(x)) < EXACT
    job = gradients.EstimatorGradient(backend).run([circuit], [SparsePauliOp("IZ")], [x])
    expected = 2 * x * (signs - first(x)) / (x @ x)
    assert np.abs(job.result().gradients[0] - expected).max() < EXACT_GRADIENT
    measured = circuit.copy()
    measured.add_register(ClassicalRegister(1, "c"))
    measured.measure(0, 0)
    ones = Sampler(backend=backend, seed=1).run([(measured, x)], shots=4000).result()[0].data.c.get_counts()["1"]
    assert abs(1 - 2 * ones / 4000 - first(x)) < SIGMAS / np.sqrt(4000)


def test_precision_is_noise_as_in_qiskit():
    circuit, inputs, weights = model()
    pub = (circuit, ["ZII", "IXI"], np.ones(len(inputs) + len(weights)))
    results = [one.run([pub, pub], precision=0.1).result() for one in (Estimator(seed=3), StatevectorEstimator(seed=3))]
    for ours, theirs in zip(*results, strict=True):
        assert np.abs(ours.data.evs - theirs.data.evs).max() < VALUE["float64"]
        assert ours.metadata == theirs.metadata
        assert np.all(ours.data.stds == 0.1)


@pytest.mark.parametrize("precision", [0.0, 0.1])
def test_one_number_is_an_array_without_axes(precision):
    circuit = QuantumCircuit(1)
    circuit.h(0)
    pub = (circuit, SparsePauliOp("X"))
    results = [
        one.run([pub], precision=precision).result()[0].data
        for one in (Estimator(seed=0), StatevectorEstimator(seed=0))
    ]
    for data in results:
        assert isinstance(data.evs, np.ndarray)
        assert data.evs.shape == data.stds.shape == ()
        assert abs(data.evs - 1) <= SIGMAS * precision + EXACT


def test_projectors_are_observables():
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.x(1)
    observable = SparseObservable.from_list([("10", 1.0), ("1+", 2.0)])
    expected = np.cos(0.35) ** 2 + 2 * (1 + np.sin(0.7)) / 2
    assert abs(evs(Estimator(), (circuit, observable))[0] - expected) < EXACT


def test_a_circuit_that_changes_is_read_anew():
    circuit = QuantumCircuit(1)
    circuit.ry(0.1, 0)
    estimator = Estimator()
    assert abs(evs(estimator, (circuit, "Z"))[0] - np.cos(0.1)) < EXACT
    circuit.data[0] = circuit.data[0].replace(operation=qiskit.circuit.library.RYGate(0.1 + 1e-11))
    assert evs(estimator, (circuit, "X"))[0] - np.sin(0.1) > 5e-12
    circuit.ry(0.2, 0)
    assert abs(evs(estimator, (circuit, "Z"))[0] - np.cos(0.3)) < EXACT


# -- sampler ------------------------------------------------------------------------------------------------------


def registers():
    """Two registers; bits 1 of the first, and most of the second, are never written to."""
    circuit = QuantumCircuit(3)
    circuit.add_register(ClassicalRegister(2, "few"), ClassicalRegister(9, "many"))
    circuit.x(0)
    circuit.ry(Parameter("x"), 1)
    circuit.cx(1, 2)
    circuit.measure(0, 0)
    circuit.measure([1, 2, 0], [3, 4, 8])
    return circuit


def test_registers_are_those_of_qiskit():
    pub = (registers(), np.linspace(0.2, 2.8, 6).reshape(3, 2, 1), 50)
    ours, theirs = (one.run([pub]).result()[0] for one in (Sampler(seed=1), StatevectorSampler(seed=1)))
    assert ours.metadata == theirs.metadata
    assert ours.data.shape == theirs.data.shape == (3, 2)
    for name in ("few", "many"):
        mine, other = getattr(ours.data, name), getattr(theirs.data, name)
        assert (mine.shape, mine.num_shots, mine.num_bits) == (other.shape, other.num_shots, other.num_bits)
        assert mine.array.dtype == other.array.dtype
        assert set(mine.get_counts()) == set(other.get_counts())


def test_samples_have_the_distribution_of_the_circuit():
    shots, x = 4000, 0.9
    data = Sampler(seed=1).run([(registers(), [x])], shots=shots).result()[0].data
    counts = data.many.get_counts()
    p = np.sin(x / 2) ** 2
    assert set(counts) == {"001000000", "001000110"}
    assert abs(counts["001000110"] / shots - p) < SIGMAS * np.sqrt(p * (1 - p) / shots)
    assert data.few.get_counts() == {"01": shots}


def test_equal_seeds_give_equal_samples():
    pub = (registers(), [[0.5], [1.5]])
    first, again, other = (Sampler(seed=s).run([pub, pub]).result() for s in (3, 3, 4))
    assert np.array_equal(first[0].data.many.array, again[0].data.many.array)
    assert not np.array_equal(first[0].data.many.array, first[1].data.many.array)
    assert not np.array_equal(first[0].data.many.array, other[0].data.many.array)


# -- calls of the engine ------------------------------------------------------------------------------------------


def test_pubs_of_one_circuit_are_one_call():
    circuit, inputs, weights = model()
    rows = np.random.default_rng(0).normal(size=(5, len(inputs) + len(weights)))
    estimator = Estimator()
    assert lookups(lambda: evs(estimator, *((circuit, label, rows) for label in ("ZII", "IZI", "XXI")))) == 1
    assert lookups(lambda: evs(estimator, *((circuit, "ZII", row) for row in rows))) == 1
    assert lookups(lambda: Sampler().run([(registers(), [[0.1], [0.2]])] * 1).result()) == 1


def test_copies_share_compiled_circuits():
    circuit = QuantumCircuit(1)
    circuit.ry(0.3, 0)
    estimators = [
        Estimator(),
        *(make(Estimator()) for make in (copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e)))),
    ]
    cache_clear()
    assert all(abs(evs(one, (circuit, "Z"))[0] - np.cos(0.3)) < EXACT for one in estimators)
    assert cache_info().circuits == 1


# -- qiskit-machine-learning --------------------------------------------------------------------------------------


def test_an_estimator_network_has_equal_results_and_gradients():
    networks = pytest.importorskip("qiskit_machine_learning.neural_networks")
    from qstore_plugins.qiskit_gradients import EstimatorGradient

    circuit, inputs, weights = model()
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, len(inputs))), rng.normal(size=len(weights))

    def network(**more):
        return networks.EstimatorQNN(
            circuit=circuit, observables=[SparsePauliOp("IIZ"), SparsePauliOp(["XYI", "ZZI"], [0.5, 2])],
            input_params=inputs, weight_params=weights, default_precision=0.0, input_gradients=True, **more,
        )  # fmt: skip

    theirs = network(estimator=StatevectorEstimator())
    expected = theirs.forward(x, w), *theirs.backward(x, w)
    for ours in (network(estimator=Estimator()), network(estimator=Estimator(), gradient=EstimatorGradient())):
        assert np.abs(ours.forward(x, w) - expected[0]).max() < VALUE["float64"]
        for found, slope in zip(ours.backward(x, w), expected[1:], strict=True):
            assert np.abs(found - slope).max() < EXACT_GRADIENT
        assert lookups(lambda ours=ours: ours.forward(x, w)) == 1
        assert lookups(lambda ours=ours: ours.backward(x, w)) == 1


def test_a_sampler_network_has_equal_results_and_gradients():
    networks = pytest.importorskip("qiskit_machine_learning.neural_networks")
    from qstore_plugins.qiskit_gradients import SamplerGradient

    circuit, inputs, weights = model(2)
    rng = np.random.default_rng(0)
    x, w, shots = rng.normal(size=(2, len(inputs))), rng.normal(size=len(weights)), 2000

    def network(sampler, **more):
        return networks.SamplerQNN(
            circuit=circuit, sampler=sampler, input_params=inputs, weight_params=weights,
            interpret=lambda k: k.bit_count() % 2, output_shape=2, input_gradients=True, **more,
        )  # fmt: skip

    exact = networks.EstimatorQNN(
        circuit=circuit, estimator=StatevectorEstimator(), observables=[SparsePauliOp("ZZ")], input_params=inputs,
        weight_params=weights, default_precision=0.0, input_gradients=True,
    )  # fmt: skip
    parity, slopes = exact.forward(x, w)[:, 0], exact.backward(x, w)
    ours = network(Sampler(default_shots=shots, seed=1), gradient=SamplerGradient())
    assert np.abs(ours.forward(x, w)[:, 0] - (1 + parity) / 2).max() < SIGMAS / 2 / np.sqrt(shots)
    for found, slope in zip(ours.backward(x, w), slopes, strict=True):
        assert np.abs(found - np.stack([slope[:, 0], -slope[:, 0]], 1) / 2).max() < EXACT_GRADIENT
    sampled = network(Sampler(default_shots=shots, seed=2))
    # ZZ maps have up to 6 gates for a feature, each with two shifted circuits whose angles go with 2 (pi - x).
    assert np.abs(sampled.backward(x, w)[1][:, 0] - slopes[1][:, 0] / 2).max() < SIGMAS / np.sqrt(8 * shots)


# -- what is refused ----------------------------------------------------------------------------------------------


def one_qubit(*more):
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    for name in more:
        circuit.measure(0, 0) if name == "measure" else getattr(circuit, name)(0)
    return circuit


@pytest.mark.parametrize(
    ("circuit", "match"),
    [
        (one_qubit("measure", "x", "measure"), "instruction 2 is 'x' on qubit 0, after it was measured"),
        (one_qubit("reset", "measure"), "'reset'"),
        (QuantumCircuit(1), "no classical register"),
    ],
    ids=["middle", "reset", "nothing"],
)
def test_a_sampler_refuses_by_name(circuit, match):
    with pytest.raises(SpecError, match=match):
        Sampler().run([circuit]).result()


def test_what_depends_on_results_is_refused():
    circuit = QuantumCircuit(2, 1)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    with pytest.raises(SpecError, match="instruction 1 is 'if_else'"):
        Sampler().run([circuit]).result()


def test_an_estimator_refuses_by_name():
    with pytest.raises(SpecError, match="measurements of its own"):
        Estimator().run([(one_qubit("measure"), "Z")]).result()
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("x"), 0)
    with pytest.raises(InputError, match="NaN or infinite"):
        Estimator().run([(circuit, "Z", [np.inf])]).result()
    with pytest.raises(OptionError, match="is no engine of qstore"):
        Estimator(backend="aer")
