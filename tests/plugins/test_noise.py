"""With a noise model a circuit runs as it is written: exact values, samples and gradients of noisy circuits."""

from __future__ import annotations

import numpy as np
import pytest

from qstore_core import (
    CapabilityError,
    Channel,
    Circuit,
    Expectation,
    NoiseModel,
    OptionError,
    Pauli,
    Probabilities,
    QuantumLayer,
    SpecError,
    get_backend,
    noise_model_from_aer,
)
from qstore_core.circuit.gates.table import GATES
from qstore_core.circuit.noise.channels import transfer_matrix
from qstore_core.testing import conformance_checks, reference
from tests.support.tolerances import EXACT, FINITE_DIFFERENCE, NOISY, SIGMAS

from .noisy import channel, expected, noisy_circuit

qml = pytest.importorskip("pennylane")
qiskit_aer = pytest.importorskip("qiskit_aer")

from qiskit.providers.fake_provider import GenericBackendV2  # noqa: E402
from qiskit_aer import AerSimulator  # noqa: E402
from qiskit_aer.noise import NoiseModel as NoiseModelOfAer  # noqa: E402
from qiskit_aer.noise import ReadoutError, depolarizing_error, kraus_error  # noqa: E402

QISKIT = {"cnot": "cx", "u3": "u"}


def little_endian(matrix):
    k = matrix.shape[0].bit_length() - 1
    order = [*reversed(range(k)), *reversed(range(k, 2 * k))]
    return matrix.reshape((2,) * 2 * k).transpose(order).reshape(matrix.shape)


def aer_model(problem):
    model = NoiseModelOfAer()
    for name, kraus in problem.channels.items():
        error = kraus_error([little_endian(one) for one in kraus])
        model.add_all_qubit_quantum_error(error, QISKIT.get(name, name), warnings=False)
    for qubit, matrix in problem.confusion.items():
        model.add_readout_error(ReadoutError(matrix), [qubit])
    return model


def on_aer(problem, **options):
    return get_backend("aer", noise_model=aer_model(problem), **options)


@pytest.mark.parametrize("seed", range(60))
def test_aer_gives_what_kraus_operators_by_hand_give(seed):
    problem = noisy_circuit(seed)
    backend = on_aer(problem)
    for measurement in problem.measurements:
        values = backend.compile(problem.circuit, measurement, dtype="float64").forward(problem.theta, problem.inputs)
        np.testing.assert_allclose(values, expected(problem, measurement), rtol=0, atol=NOISY)


def one_noisy_gate(name):
    """One gate with noise of its own, all of its angles variable, on qubits in descending order."""
    gate = GATES[name]
    problem = noisy_circuit(0, gates=("h", "ry"), readout=False, amplitudes=False)
    circuit = Circuit(3)
    w, x = circuit.weights(3), circuit.inputs(2)
    for q in range(3):
        circuit.ry(w[q], q)
    circuit.append(name, [2, 0, 1][: gate.n_qubits], [x[0], w[1], x[1]][: gate.n_params])
    problem.circuit = circuit
    problem.channels = {name: channel(np.random.default_rng(1), gate.n_qubits)}
    problem.measurements = [Expectation(("Z", "X", "Y")), Expectation(observables=(Pauli("XYZ"), Pauli("ZZZ")))]
    return problem


@pytest.mark.parametrize("name", GATES)
def test_aer_keeps_every_gate(name):
    problem = one_noisy_gate(name)
    for measurement in problem.measurements:
        executable = on_aer(problem).compile(problem.circuit, measurement, dtype="float64")
        values = executable.forward(problem.theta, problem.inputs)
        np.testing.assert_allclose(values, expected(problem, measurement), rtol=0, atol=NOISY)


# -- the density engine -----------------------------------------------------------------------------------------------

SMALL = tuple(name for name in GATES if GATES[name].n_qubits <= 2)


def core_model(problem):
    model = NoiseModel()
    for name, kraus in problem.channels.items():
        model = model.after(name, Channel.kraus(kraus))
    for qubit, ((_, p_01), (p_10, _)) in problem.confusion.items():
        model = model.readout_error(p_01, p_10, [qubit])
    return model


@pytest.mark.parametrize("seed", range(20))
def test_the_density_engine_gives_what_default_mixed_and_aer_give(seed):
    """By a model of its own, and by Aer's, converted."""
    problem = noisy_circuit(seed, gates=SMALL)
    model = core_model(problem)
    own, converted = (get_backend("density", noise_model=m) for m in (model, noise_model_from_aer(aer_model(problem))))
    for number, measurement in enumerate(problem.measurements):
        point = problem.theta, problem.inputs
        values = own.compile(problem.circuit, measurement, dtype="float64").forward(*point)
        again = converted.compile(problem.circuit, measurement, dtype="float64").forward(*point)
        np.testing.assert_allclose(again, values, rtol=0, atol=NOISY)
        np.testing.assert_allclose(values, expected(problem, measurement), rtol=0, atol=NOISY)
        written = reference.outputs(model.applied(problem.circuit), measurement, *point)
        np.testing.assert_allclose(values, written, rtol=0, atol=EXACT)
        if number == seed % 4:
            theirs = on_aer(problem).compile(problem.circuit, measurement, dtype="float64").forward(*point)
            np.testing.assert_allclose(values, theirs, rtol=0, atol=NOISY)


@pytest.mark.parametrize("seed", range(6))
def test_aer_takes_a_noise_model_of_the_core(seed):
    problem = noisy_circuit(seed, gates=SMALL)
    model, point = core_model(problem), (problem.theta, problem.inputs)
    backend = get_backend("aer", noise_model=model)
    assert backend.capabilities.noisy
    for measurement in problem.measurements:
        values = backend.compile(problem.circuit, measurement, dtype="float64").forward(*point)
        np.testing.assert_allclose(values, expected(problem, measurement), rtol=0, atol=NOISY)
    sampled = backend.compile(problem.circuit, measurement, dtype="float64", shots=4000)
    samples, report = sampled.value_and_report(*point, seed=seed)
    assert (np.abs(samples - values) < SIGMAS * np.sqrt(report.std_error**2 + 1 / 4000**2)).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise_model": NoiseModel(), "method": "statevector"}, "method='statevector'"),
        ({"noise_model": "depolarising"}, "received str"),
    ],
    ids=str,
)
def test_another_noise_model_is_refused(options, said):
    with pytest.raises(OptionError, match=said):
        get_backend("aer", **options)


CHECKS = [c for c in conformance_checks("aer", method="density_matrix") if str(c) == "noise: channels"]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_aer_runs_channels_of_a_circuit(check):
    """Exact, by the conformance kit; and samples of them."""
    check()
    circuit = Circuit(2)
    circuit.x(0), circuit.amplitude_damping(0.3, 0), circuit.readout_error(0.05, 0.2, 0)
    backend = get_backend("aer", method="density_matrix")
    run = backend.compile(circuit, Expectation(), dtype="float64", shots=5000)
    values, report = run.value_and_report(np.zeros(0), np.zeros((1, 0)), seed=1)
    exact = get_backend("density").compile(circuit, Expectation(), dtype="float64")
    bound = SIGMAS * np.sqrt(report.std_error**2 + 1 / 5000**2)
    assert (np.abs(values - exact.forward(np.zeros(0), np.zeros((1, 0)))) < bound).all()
    for other in (get_backend("aer"), get_backend("aer", noise_model=depolarising(0.1, ["x"], 1))):
        with pytest.raises(CapabilityError, match='backend="density"'):
            other.compile(circuit, Expectation())


def test_channels_are_those_of_pennylane_and_aer_by_the_table_of_the_docs():
    p, theirs = 0.3, qiskit_aer.noise
    table = [
        (Channel.depolarizing(p), qml.DepolarizingChannel(3 * p / 4, wires=0), theirs.depolarizing_error(p, 1)),
        (Channel.depolarizing(p, 2), None, theirs.depolarizing_error(p, 2)),
        (Channel.amplitude_damping(p), qml.AmplitudeDamping(p, wires=0), theirs.amplitude_damping_error(p)),
        (Channel.phase_damping(p), qml.PhaseDamping(p, wires=0), theirs.phase_damping_error(p)),
        (Channel.bit_flip(p), qml.BitFlip(p, wires=0), theirs.pauli_error([("X", p), ("I", 1 - p)])),
        (Channel.phase_flip(p), qml.PhaseFlip(p, wires=0), theirs.pauli_error([("Z", p), ("I", 1 - p)])),
    ]
    for own_channel, by_pennylane, by_aer in table:
        own = transfer_matrix(own_channel.operators)
        model = NoiseModelOfAer()
        model.add_all_qubit_quantum_error(by_aer, ["x" if own_channel.n_qubits == 1 else "cx"])
        ((taken_over,),) = (rule.channels for rule in noise_model_from_aer(model).rules)
        np.testing.assert_allclose(
            transfer_matrix(taken_over.operators), own, rtol=0, atol=NOISY, err_msg=str(own_channel)
        )
        if by_pennylane is not None:
            found = transfer_matrix([np.array(k) for k in by_pennylane.kraus_matrices()])
            np.testing.assert_allclose(found, own, rtol=0, atol=EXACT, err_msg=str(own_channel))


def test_what_the_core_cannot_say_of_a_model_of_aer_is_refused():
    cases = {
        "no gate of qstore's table": depolarising(0.1, ["ecr"], 2),
        "'measure'": depolarising(0.1, ["measure"], 1),
        "dimension 8": depolarising(0.1, ["ccx"], 3),
    }
    together = NoiseModelOfAer()
    together.add_readout_error(ReadoutError(np.full((4, 4), 0.25)), [0, 1])
    for message, model in {**cases, "several qubits together": together}.items():
        with pytest.raises(SpecError, match=message):
            noise_model_from_aer(model)
    with pytest.raises(SpecError, match="expected a qiskit_aer"):
        noise_model_from_aer(NoiseModel())


def test_an_error_of_aer_on_certain_qubits_stays_there():
    model = NoiseModelOfAer()
    model.add_all_qubit_quantum_error(depolarizing_error(0.2, 1), ["x"])
    model.add_quantum_error(depolarizing_error(0.4, 1), ["x"], [1])
    circuit = Circuit(2)
    circuit.x(0), circuit.x(1)
    for backend in (
        get_backend("density", noise_model=noise_model_from_aer(model)),
        get_backend("aer", noise_model=model),
    ):
        values = backend.compile(circuit, Expectation(), dtype="float64").forward(np.zeros(0), np.zeros((1, 0)))
        np.testing.assert_allclose(values, [[-0.8, -0.6]], rtol=0, atol=NOISY)


# -- pennylane --------------------------------------------------------------------------------------------------------


PENNYLANE = {
    "id": "Identity", "x": "PauliX", "y": "PauliY", "z": "PauliZ", "h": "Hadamard", "s": "S", "sdg": "Adjoint(S)",
    "t": "T", "tdg": "Adjoint(T)", "sx": "SX", "rx": "RX", "ry": "RY", "rz": "RZ", "p": "PhaseShift", "rot": "Rot",
    "u3": "U3", "cnot": "CNOT", "cy": "CY", "cz": "CZ", "ch": "CH", "swap": "SWAP", "iswap": "ISWAP",
    "cp": "ControlledPhaseShift", "crx": "CRX", "cry": "CRY", "crz": "CRZ", "rxx": "IsingXX", "ryy": "IsingYY",
    "rzz": "IsingZZ", "ccx": "Toffoli", "ccz": "CCZ", "cswap": "CSWAP",
}  # fmt: skip


def on_pennylane(problem):
    def named(name):
        return qml.BooleanFn(lambda op: op.name == PENNYLANE[name])

    def adding(kraus):
        return lambda op, **_: qml.QubitChannel(kraus, wires=op.wires)

    model = qml.NoiseModel({named(name): adding(kraus) for name, kraus in problem.channels.items()})
    noisy = qml.add_noise(qml.device("default.mixed", wires=problem.circuit.n_qubits), model)
    return get_backend("pennylane", device=noisy)


@pytest.mark.parametrize("seed", range(60))
def test_pennylane_gives_what_kraus_operators_by_hand_give(seed):
    problem = noisy_circuit(seed, readout=False)
    backend = on_pennylane(problem)
    assert backend.capabilities.exact
    assert not backend.capabilities.vjp
    for measurement in problem.measurements:
        values = backend.compile(problem.circuit, measurement, dtype="float64").forward(problem.theta, problem.inputs)
        np.testing.assert_allclose(values, expected(problem, measurement), rtol=0, atol=NOISY)


@pytest.mark.parametrize("name", GATES)
def test_pennylane_keeps_every_gate(name):
    problem = one_noisy_gate(name)
    for measurement in problem.measurements:
        executable = on_pennylane(problem).compile(problem.circuit, measurement, dtype="float64")
        values = executable.forward(problem.theta, problem.inputs)
        np.testing.assert_allclose(values, expected(problem, measurement), rtol=0, atol=NOISY)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_samples_of_a_noisy_pennylane_device_have_the_exact_values_as_their_mean(seed):
    problem = noisy_circuit(seed, readout=False)
    backend = on_pennylane(problem)
    for measurement in problem.measurements:
        executable = backend.compile(problem.circuit, measurement, dtype="float64", shots=5000)
        values, report = executable.value_and_report(problem.theta, problem.inputs, seed=seed)
        bound = SIGMAS * np.sqrt(report.std_error**2 + 1 / 5000**2)
        assert (np.abs(values - expected(problem, measurement)) <= bound).all()
        np.testing.assert_array_equal(executable.forward(problem.theta, problem.inputs, seed=seed), values)


# -- aer --------------------------------------------------------------------------------------------------------------


def cancelling(count):
    circuit = Circuit(2)
    circuit.h(0)
    for _ in range(count):
        circuit.cnot(0, 1)
    return circuit


def depolarising(probability, names, qubits):
    model = NoiseModelOfAer()
    model.add_all_qubit_quantum_error(depolarizing_error(probability, qubits), names, warnings=False)
    return model


@pytest.mark.parametrize("count", [1, 3, 5])
def test_gates_that_cancel_keep_their_noise(count):
    backend = get_backend("aer", noise_model=depolarising(0.05, ["cx"], 2))
    values = backend.compile(cancelling(count), Expectation(observables=(Pauli("ZZ"),)), dtype="float64")
    np.testing.assert_allclose(values.forward(np.zeros(0), np.zeros((1, 0))), 0.95**count, rtol=0, atol=NOISY)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_samples_have_the_exact_values_as_their_mean(seed):
    problem = noisy_circuit(seed)
    backend = on_aer(problem)
    for measurement in problem.measurements:
        executable = backend.compile(problem.circuit, measurement, dtype="float64", shots=20_000)
        values, report = executable.value_and_report(problem.theta, problem.inputs, seed=seed)
        bound = SIGMAS * np.sqrt(report.std_error**2 + 1 / 20_000**2)
        assert (np.abs(values - expected(problem, measurement)) <= bound).all()


def test_readout_errors_of_exact_values():
    model = NoiseModelOfAer()
    model.add_all_qubit_readout_error(ReadoutError([[0.9, 0.1], [0.2, 0.8]]))
    circuit = Circuit(1)
    circuit.x(0)
    backend = get_backend("aer", noise_model=model)
    exact = {
        Expectation(): [[-0.6]],
        Probabilities(): [[0.2, 0.8]],
        Expectation("X"): [[0.05 + 0.05]],  # a fair coin, read with errors: 0.55 - 0.45
    }
    for measurement, values in exact.items():
        found = backend.compile(circuit, measurement, dtype="float64").forward(np.zeros(0), np.zeros((1, 0)))
        np.testing.assert_allclose(found, values, rtol=0, atol=NOISY)


def test_what_exact_values_cannot_have_is_refused():
    circuit = Circuit(2)
    together = NoiseModelOfAer()
    together.add_readout_error(ReadoutError(np.full((4, 4), 0.25)), [0, 1])
    with pytest.raises(CapabilityError, match="several qubits together"):
        get_backend("aer", noise_model=together)
    backend = get_backend("aer", noise_model=depolarising(0.1, ["measure"], 1))
    with pytest.raises(CapabilityError, match="error on 'measure'"):
        backend.compile(circuit, Expectation())
    values = backend.compile(circuit, Expectation(), dtype="float64", shots=5000)
    found = values.forward(np.zeros(0), np.zeros((1, 0)), seed=1)
    assert (np.abs(found - 0.9) < SIGMAS / np.sqrt(5000)).all()


def test_a_noisy_gate_that_a_device_does_not_have_is_an_error():
    device = GenericBackendV2(
        2, basis_gates=["rz", "sx", "x", "cx"], coupling_map=[[0, 1], [1, 0]], noise_info=False, seed=1
    )
    simulator = AerSimulator.from_backend(device, noise_model=depolarising(0.05, ["cp"], 2))
    circuit = Circuit(2)
    circuit.cp(circuit.weights(1)[0], 0, 1)
    for shots in (None, 10):
        with pytest.raises(CapabilityError, match="errors on cp"):
            get_backend("aer", backend=simulator).compile(circuit, Expectation(), shots=shots)


def test_on_a_device_nothing_cancels_either():
    device = GenericBackendV2(
        2, basis_gates=["rz", "sx", "x", "cx"], coupling_map=[[0, 1], [1, 0]], noise_info=False, seed=1
    )
    simulator = AerSimulator.from_backend(device, noise_model=depolarising(0.05, ["cx"], 2))
    for count in (1, 3):
        executable = get_backend("aer", backend=simulator).compile(
            cancelling(count), Expectation(observables=(Pauli("ZZ"),))
        )
        values = executable.forward(np.zeros(0, np.float32), np.zeros((1, 0), np.float32))
        np.testing.assert_allclose(values, 0.95**count, rtol=0, atol=NOISY)


def test_parameter_shift_through_noise():
    problem = noisy_circuit(5, amplitudes=False)
    layer = QuantumLayer(problem.circuit, Expectation(("Z", "Y")), backend=on_aer(problem), fallback=None)
    layer.theta = problem.theta
    cotangents = np.random.default_rng(1).normal(size=(3, layer.output_dim))
    d_theta, d_x = layer.vjp(problem.inputs, cotangents)
    step = 1e-5

    def loss():
        return (expected(problem, Expectation(("Z", "Y"))) * cotangents).sum()

    for array, gradient in ((problem.theta, d_theta), (problem.inputs, d_x)):
        for place in np.ndindex(array.shape):
            array[place] += step
            above = loss()
            array[place] -= 2 * step
            slope = (above - loss()) / (2 * step)
            array[place] += step
            assert gradient[place] == pytest.approx(slope, abs=FINITE_DIFFERENCE)
