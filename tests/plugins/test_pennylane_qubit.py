"""`qml.device("qstore.qubit")`: values, derivatives, batches and samples, against closed forms and default.qubit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import InputError, MemoryLimitError, OptionError, cache_clear, cache_info
from tests.plugins.pennylane_suite import run_suite
from tests.support.tolerances import EXACT, EXACT_GRADIENT, SIGMAS, VALUE

qml = pytest.importorskip("pennylane")
WIRES = ["a", 7, 0]


def device(wires=3, **options):
    return qml.device("qstore.qubit", wires=wires, **options)


def lookups(call):
    """How often `call` asks for a compiled circuit: once for every call of the engine."""
    cache_clear()
    call()
    info = cache_info()
    return info.hits + info.misses


def tape_of(ops, measurements, **more):
    return qml.tape.QuantumScript(ops, measurements, **more)


def both(tapes, **config):
    """Results here, of several tapes in one call, and of default.qubit; preprocessed."""
    out = []
    for one in (device(None), qml.device("default.qubit")):
        program, config_there = one.preprocess(qml.devices.ExecutionConfig(**config))
        made, back = program(tapes)
        out.append(back(one.execute(made, config_there)))
    return out


def flat(results):
    """All numbers of nested results."""
    if isinstance(results, tuple | list):
        return np.concatenate([flat(one) for one in results]) if len(results) else np.zeros(0)
    return np.ravel(np.asarray(results, complex))


# -- what is computed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "statevector"])
def test_expectation_is_cosine(backend):
    @qml.qnode(device(1, backend=backend))
    def circuit(x):
        qml.RY(x, wires=0)
        return qml.expval(qml.Z(0))

    x = qml.numpy.array([0.3, 1.2], requires_grad=True)
    assert np.abs(circuit(x) - np.cos(x)).max() < EXACT
    assert np.abs(qml.jacobian(circuit)(x) - np.diag(-np.sin(x))).max() < EXACT_GRADIENT


ANGLE = st.floats(-7, 7)
ONE = [qml.RX, qml.RY, qml.RZ, qml.PhaseShift, qml.U1]
TWO = [qml.CRX, qml.CRY, qml.CRZ, qml.ControlledPhaseShift, qml.IsingXX, qml.IsingYY, qml.IsingZZ, qml.IsingXY]
PLAIN_ONE = [qml.X, qml.Y, qml.Z, qml.Hadamard, qml.S, qml.T, qml.SX, qml.Identity]
PLAIN_TWO = [qml.CNOT, qml.CY, qml.CZ, qml.CH, qml.SWAP, qml.ISWAP, qml.SISWAP, qml.ECR]
PLAIN_THREE = [qml.Toffoli, qml.CCZ, qml.CSWAP]


@st.composite
def operations(draw, batch=None):
    """One operation on WIRES; a batch of angles now and then."""

    def angle():
        if batch is not None and draw(st.booleans()):
            return np.array(draw(st.lists(ANGLE, min_size=batch, max_size=batch)))
        return draw(ANGLE)

    wires = draw(st.permutations(WIRES))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.sampled_from(ONE))(angle(), wires[0])
    if kind == 1:
        return draw(st.sampled_from(TWO))(angle(), wires[:2])
    if kind == 2:
        return draw(st.sampled_from(PLAIN_ONE))(wires[0])
    if kind == 3:
        return draw(st.sampled_from(PLAIN_TWO))(wires[:2])
    if kind == 4:
        return draw(st.sampled_from(PLAIN_THREE))(wires)
    if kind == 5:
        return draw(st.sampled_from([qml.Rot, qml.U3]))(angle(), angle(), angle(), wires[0])
    if kind == 6:
        return qml.PauliRot(angle(), draw(st.text("IXYZ", min_size=3, max_size=3)), wires)
    if kind == 7:
        values = draw(st.lists(st.booleans(), min_size=2, max_size=2))
        base = draw(st.sampled_from([qml.RX(angle(), wires[2]), qml.PhaseShift(angle(), wires[2]), qml.S(wires[2])]))
        return qml.ctrl(base, wires[:2], control_values=values)
    if kind == 8:
        return draw(st.sampled_from([qml.adjoint(qml.T(wires[0])), qml.adjoint(qml.RX(draw(ANGLE), wires[1])),
                                     qml.GlobalPhase(angle()), qml.U2(angle(), angle(), wires[0])]))  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    q, _ = np.linalg.qr(rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4)))
    return qml.QubitUnitary(q, wires[:2])


MEASUREMENTS = [
    qml.expval(qml.Z("a") @ qml.X(0)),
    qml.var(qml.Y(7) + 0.3 * qml.Z("a")),
    qml.probs([0, "a"]),
    qml.expval(qml.Hermitian(np.array([[1, 0.2j], [-0.2j, 3]]), 7)),
    qml.var(qml.Projector([1, 0], [0, 7])),
    qml.probs(op=qml.X(7)),
    qml.expval(qml.Hamiltonian([0.5, -2.0], [qml.Z(0) @ qml.Z(7), qml.Identity("a")])),
]


@settings(max_examples=15)
@given(st.lists(operations(), min_size=1, max_size=8))
def test_results_are_those_of_default_qubit(ops):
    ours, theirs = both([tape_of(ops, [*MEASUREMENTS, qml.state(), qml.density_matrix([7, 0]), qml.purity(["a"])])])
    assert np.abs(flat(ours) - flat(theirs)).max() < VALUE["float64"]


@settings(max_examples=10)
@given(st.lists(operations(batch=3), min_size=1, max_size=6))
def test_batches_are_those_of_default_qubit(ops):
    (ours,), (theirs,) = both([tape_of(ops, [*MEASUREMENTS, qml.state()])])
    assert [np.shape(one) for one in ours] == [np.shape(one) for one in theirs]
    assert np.abs(flat(ours) - flat(theirs)).max() < VALUE["float64"]


@settings(max_examples=10)
@given(st.lists(operations(batch=2), min_size=1, max_size=6), st.integers(0, 9))
def test_derivatives_are_those_of_the_shift_rule(ops, seed):
    """The vjp of every parameter that has a shift rule, also of batches; the Jacobian and the jvp agree with it."""
    ours = device(WIRES)
    program, config = ours.preprocess(qml.devices.ExecutionConfig(gradient_method="adjoint"))
    (tape,), _ = program([tape_of(ops, MEASUREMENTS)])
    tape.trainable_params = [
        k for k, info in enumerate(tape.par_info)
        if info["op"].grad_method == "A" and info["op_idx"] < len(tape.operations)
    ]  # fmt: skip
    (results,) = ours.execute([tape], config)
    rng = np.random.default_rng(seed)
    cotangents = tuple(rng.normal(size=np.shape(one)) for one in results)
    (gradients,) = ours.compute_vjp([tape], [cotangents], config)
    assert [np.shape(g) for g in gradients] == [np.shape(p) for p in tape.get_parameters()]
    steps = [rng.normal(size=np.shape(p)) for p in tape.get_parameters()]
    h = 1e-4

    def along(t):
        moved = [p + t * d for p, d in zip(tape.get_parameters(), steps, strict=True)]
        (values,) = ours.execute([tape.bind_new_parameters(moved, tape.trainable_params)])
        return flat(values).real

    slope = (8 * (along(h) - along(-h)) - along(2 * h) + along(-2 * h)) / (12 * h)  # error of order h⁴ and 1e-16/h
    pulled = sum(float(np.sum(g * d)) for g, d in zip(gradients, steps, strict=True))
    assert abs(pulled - flat(cotangents).real @ slope) < 1e-8 * max(1.0, abs(pulled))
    if tape.trainable_params:
        ((pushed,), (jacobian,)) = ours.compute_jvp([tape], [steps], config), ours.compute_derivatives([tape], config)
        assert np.abs(flat(pushed).real - slope).max() < 1e-8
        assert len(jacobian) == len(MEASUREMENTS)


def test_a_real_start_state_has_a_gradient():
    """On a part of the wires; as default.qubit's, for which a state may have any length."""
    torch = pytest.importorskip("torch")

    def gradients(one, method):
        @qml.qnode(one, interface="torch", diff_method=method)
        def circuit(x, w):
            qml.StatePrep(x, wires=[0, "a"])
            qml.CRX(w, wires=["a", 7])
            return qml.expval(qml.X(0) @ qml.Z(7) + 0.5 * qml.Identity(0)), qml.var(qml.Z("a"))

        x = torch.tensor([0.5, -0.1, 0.7, 0.5], dtype=torch.float64, requires_grad=True)
        w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        sum(circuit(x, w)).backward()
        return x.grad.numpy(), float(w.grad)

    ours = gradients(device(WIRES), "adjoint")
    theirs = gradients(qml.device("default.qubit", wires=WIRES), "backprop")
    assert all(np.abs(a - b).max() < EXACT_GRADIENT for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("name", ["state", "density_matrix", "purity", "vn_entropy", "mutual_info"])
def test_states_and_what_is_computed_from_them_have_gradients(name, batch):
    """By angles, phases of gates and amplitudes, of complex results too; as default.qubit's by back-propagation."""
    torch = pytest.importorskip("torch")
    measure = {
        "state": qml.state, "density_matrix": lambda: qml.density_matrix([0, "a"]), "purity": lambda: qml.purity([7]),
        "vn_entropy": lambda: qml.vn_entropy(["a"]), "mutual_info": lambda: qml.mutual_info(["a"], [0]),
    }[name]  # fmt: skip

    def gradients(one, method):
        rng = torch.Generator().manual_seed(0)
        x = torch.rand(batch, dtype=torch.float64, generator=rng, requires_grad=True)
        w = torch.rand(2, dtype=torch.float64, generator=rng, requires_grad=True)
        start = torch.tensor([0.6, 0.8], dtype=torch.float64, requires_grad=True)

        @qml.qnode(one, interface="torch", diff_method=method)
        def circuit():
            qml.StatePrep(start, wires=0)
            qml.RX(x, wires="a")
            qml.PhaseShift(w[0], wires="a")
            qml.CRY(w[1], wires=["a", 7])
            qml.PhaseShift(x, wires=7)
            qml.CRX(w[0], wires=[7, 0])
            qml.QubitUnitary(np.array([[0, 1j], [1, 0]]), wires=7)
            return measure()

        found = circuit()
        (found * torch.randn(found.shape, dtype=found.dtype, generator=rng)).real.sum().backward()
        return [one.detach().numpy() for one in (found, x.grad, w.grad, start.grad)]

    ours, theirs = gradients(device(WIRES), "best"), gradients(qml.device("default.qubit", wires=WIRES), "backprop")
    assert all(np.abs(a - b).max() < EXACT_GRADIENT for a, b in zip(ours, theirs, strict=True))


def test_complex_start_states_and_basis_states():
    rng = np.random.default_rng(0)
    state = rng.normal(size=4) + 1j * rng.normal(size=4)
    for prep in (qml.StatePrep(state / np.linalg.norm(state), [7, 0]), qml.BasisState([1, 0, 1], WIRES)):
        ours, theirs = both([tape_of([prep, qml.RY(0.3, "a"), qml.CNOT(["a", 7])], [qml.state(), *MEASUREMENTS])])
        assert np.abs(flat(ours) - flat(theirs)).max() < VALUE["float64"]


def test_coefficients_of_a_hamiltonian_have_a_gradient():
    @qml.qnode(device(2))
    def circuit(c, x):
        qml.RY(x, wires=0)
        return qml.expval(qml.Hamiltonian([c[0], c[1]], [qml.Z(0), qml.X(0) @ qml.Z(1)]))

    c, x = qml.numpy.array([0.2, 0.3], requires_grad=True), qml.numpy.array(0.4, requires_grad=True)
    d_c, d_x = qml.grad(circuit)(c, x)
    assert np.abs(d_c - np.array([np.cos(x), np.sin(x)])).max() < EXACT_GRADIENT
    assert abs(d_x - (-0.2 * np.sin(x) + 0.3 * np.cos(x))) < EXACT_GRADIENT


# -- calls of the engine -------------------------------------------------------------------------------------------


def test_a_broadcast_tape_is_one_call():
    @qml.qnode(device(2))
    def circuit(x):
        qml.AngleEmbedding(x, wires=range(2))
        return qml.expval(qml.Z(0)), qml.expval(qml.X(1))

    assert lookups(lambda: circuit(np.ones((32, 2)))) == 1


def test_tapes_of_equal_structure_are_one_call_and_one_compiled_circuit():
    tape = tape_of([qml.RX(0.1, 0), qml.RY(0.2, 1), qml.CNOT([0, 1])], [qml.expval(qml.Z(1))])
    tapes, back = qml.gradients.param_shift(tape)
    ours = device(2)
    assert len(tapes) == 4
    assert lookups(lambda: ours.execute(tapes)) == 1
    assert (
        np.abs(np.array(back(ours.execute(tapes))) - [-np.sin(0.1) * np.cos(0.2), -np.cos(0.1) * np.sin(0.2)]).max()
        < EXACT
    )
    ours.execute(tapes)
    assert cache_info().circuits == 1


def test_new_numbers_need_no_new_circuit():
    @qml.qnode(device(2))
    def circuit(x):
        qml.RX(x, wires=0)
        return qml.expval(qml.Z(0))

    cache_clear()
    assert [float(circuit(x)) for x in (0.1, 0.2)] == pytest.approx(np.cos([0.1, 0.2]), abs=EXACT)
    assert cache_info().circuits == 1


def test_the_backward_pass_takes_the_states_of_the_forward_pass():
    torch = pytest.importorskip("torch")
    x = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    @qml.qnode(device(1), interface="torch")
    def circuit(x):
        qml.RX(x, wires=0)
        return qml.expval(qml.Z(0))

    assert lookups(lambda: circuit(x).backward()) == 1
    assert abs(float(x.grad) + np.sin(0.3)) < EXACT_GRADIENT


# -- models that exist ---------------------------------------------------------------------------------------------


def test_a_torch_layer_runs_unchanged():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    def layer(one):
        @qml.qnode(one)
        def circuit(inputs, weights):
            qml.AngleEmbedding(inputs, wires=range(3))
            qml.StronglyEntanglingLayers(weights, wires=range(3))
            return [qml.expval(qml.Z(k)) for k in range(3)]

        return qml.qnn.TorchLayer(circuit, {"weights": (2, 3, 3)}).double()

    ours, theirs = layer(device(3)), layer(qml.device("default.qubit", wires=3))
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(5, 3, dtype=torch.float64)
    found = []
    for model in (ours, theirs):
        mine = x.clone().requires_grad_()
        out = model(mine)
        out.sin().sum().backward()
        found.append((out.detach(), mine.grad, model.weights.grad))
    assert all(float((a - b).abs().max()) < VALUE["float64"] for a, b in zip(*found, strict=True))


def test_copies_go_on_where_the_device_stands():
    one = device(1, seed=3)
    tape = tape_of([qml.RX(1.0, 0)], [qml.sample(wires=0)], shots=50)
    one.execute(tape)
    copies = [copy.deepcopy(one), pickle.loads(pickle.dumps(one))]
    expected = one.execute(tape)
    assert all(np.array_equal(other.execute(tape), expected) for other in copies)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:jax.core:DeprecationWarning")  # PennyLane's own calls
def test_jax_gradients_jacobians_and_jit():
    jax = pytest.importorskip("jax")

    @qml.qnode(device(2), interface="jax")
    def circuit(x):
        qml.RX(x[0], wires=0)
        qml.CRY(x[1], wires=[0, 1])
        return qml.probs(wires=1)

    with jax.enable_x64(True):
        x = jax.numpy.array([0.3, 0.4])
        p = np.sin(0.15) ** 2 * np.sin(0.2) ** 2
        slopes = [np.sin(0.3) / 2 * np.sin(0.2) ** 2, np.sin(0.15) ** 2 * np.sin(0.4) / 2]
        assert abs(float(circuit(x)[1]) - p) < EXACT
        for jacobian in (jax.jacobian(circuit), jax.jit(jax.jacobian(circuit)), jax.jit(jax.jacrev(circuit))):
            assert np.abs(np.asarray(jacobian(x)) - [[-s for s in slopes], slopes]).max() < EXACT_GRADIENT


def test_second_derivatives_come_from_the_shift_rule():
    @qml.qnode(device(1), max_diff=2)
    def circuit(x):
        qml.RX(x, wires=0)
        return qml.expval(qml.Z(0))

    x = qml.numpy.array(0.3, requires_grad=True)
    assert abs(qml.grad(qml.grad(circuit))(x) + np.cos(0.3)) < EXACT_GRADIENT


def test_measurements_in_the_middle_are_deferred():
    @qml.qnode(device(2))
    def circuit(x):
        qml.RY(x, wires=0)
        m = qml.measure(0)
        qml.cond(m, qml.X)(1)
        return qml.expval(qml.Z(1)), qml.expval(m)

    assert flat(circuit(0.7)).real == pytest.approx([np.cos(0.7), np.sin(0.35) ** 2], abs=EXACT)


# -- samples -------------------------------------------------------------------------------------------------------


def sampled(seed, shots, x=0.7, batch=False):
    @qml.set_shots(shots)
    @qml.qnode(device(2, seed=seed))
    def circuit(x):
        qml.RY(x, wires=0)
        qml.CNOT([0, 1])
        return (
            qml.expval(qml.Z(0)), qml.expval(0.5 * qml.X(0) @ qml.X(1) + qml.Z(1)), qml.var(qml.Z(1)),
            qml.probs(wires=[1]), qml.counts(wires=[0, 1]), qml.sample(wires=[0, 1]),
        )  # fmt: skip

    return circuit(x)


def test_samples_have_the_distribution_of_the_circuit():
    shots, c = 4000, np.cos(0.7)
    mean, energy, variance, probs, counts, samples = sampled(1, shots)
    deviation = np.sqrt((1 - c**2) / shots)
    assert abs(mean - c) < SIGMAS * deviation
    assert abs(energy - (0.5 * np.sin(0.7) + c)) < SIGMAS * (deviation + 0.5 / np.sqrt(shots))
    assert abs(variance - (1 - c**2)) < SIGMAS * 2 * c * deviation + 1 / shots
    assert abs(probs[0] - (1 + c) / 2) < SIGMAS * deviation / 2
    assert set(counts) <= {"00", "11"}
    assert sum(counts.values()) == shots
    assert samples.shape == (shots, 2)
    assert np.array_equal(samples[:, 0], samples[:, 1])


def test_equal_seeds_give_equal_samples_call_by_call():
    one, other = device(1, seed=3), device(1, seed=3)
    tape = tape_of([qml.RX(1.0, 0)], [qml.sample(wires=0)], shots=50)
    first, second = one.execute(tape), one.execute(tape)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, other.execute(tape))
    assert np.array_equal(second, other.execute(tape))


def test_batches_and_partitions_of_shots():
    mean, *_, samples = sampled(1, 100, x=np.array([0.1, 0.2, 0.3]))
    assert mean.shape == (3,)
    assert samples.shape == (3, 100, 2)
    few, many = sampled(1, (10, 20))
    assert [sum(one[4].values()) for one in (few, many)] == [10, 20]


def test_gradients_with_shots_come_from_the_shift_rule_and_one_call():
    @qml.set_shots(2000)
    @qml.qnode(device(1, seed=5))
    def circuit(x):
        qml.RX(x, wires=0)
        return qml.expval(qml.Z(0))

    x = qml.numpy.array(0.4, requires_grad=True)
    assert abs(qml.grad(circuit)(x) + np.sin(0.4)) < SIGMAS / np.sqrt(2 * 2000)


def test_classical_shadows_of_several_wires():
    @qml.qnode(device(WIRES, seed=2))
    def circuit(x):
        qml.RX(x, wires=0), qml.CNOT([0, 7]), qml.X("a")
        return qml.shadow_expval([qml.Z(7) @ qml.Z(0), qml.Z("a") @ qml.Z(0), qml.Y("a")])

    found = qml.set_shots(circuit, 4000)(0.5)
    # A snapshot's estimate of a word of k letters is 0, or 3**k with a sign: its variance is at most 3**k.
    bounds = SIGMAS * np.sqrt(np.array([9, 9, 3]) / 4000)
    assert (np.abs(found - np.array([1.0, -np.cos(0.5), 0.0])) < bounds).all()

    @qml.qnode(device([1, 0], seed=2))
    def flipped():
        qml.X(1)
        return qml.shadow_expval(qml.Z(1))

    assert abs(qml.set_shots(flipped, 4000)() + 1.0) < SIGMAS * np.sqrt(3 / 4000)


# -- what is refused -----------------------------------------------------------------------------------------------


def refused(measure, *ops, match, error=qml.exceptions.QuantumFunctionError, shots=None, **options):
    def circuit(x):
        for op in ops:
            op(x)
        qml.RX(x, wires=0)
        return measure(x)

    with pytest.raises(error, match=match):
        qml.jacobian(qml.set_shots(qml.QNode(circuit, device(2), **options), shots))(
            qml.numpy.array(0.3, requires_grad=True)
        )


def test_what_has_no_derivative_is_refused():
    z = lambda x: qml.expval(qml.Z(0))  # noqa: E731
    refused(lambda x: qml.state(), lambda x: qml.GlobalPhase(x), match="by the parameter of GlobalPhase")
    refused(lambda x: qml.classical_shadow(wires=0), match="does not support adjoint", diff_method="adjoint", shots=9)
    refused(z, match="does not support adjoint", diff_method="adjoint", shots=10)
    refused(z, match="does not support backprop", diff_method="backprop")
    refused(
        lambda x: qml.expval(qml.Hermitian(qml.numpy.array([[1, 0], [0, 1]]) * x, 0)),
        match="parameter of the observable Hermitian",
    )

    def complex_start(x):
        qml.StatePrep(qml.math.stack([qml.math.cos(x), 1j * qml.math.sin(x)]), wires=1)

    refused(z, complex_start, match="real start state", diff_method="adjoint")


def test_what_cannot_run_is_refused():
    @qml.qnode(device(2))
    def selected(x):
        qml.RX(x, wires=0)
        m = qml.measure(0, postselect=1)
        return qml.expval(m)

    with pytest.raises((ValueError, qml.exceptions.DeviceError), match=r"[Pp]ostselect"):
        selected(0.3)

    @qml.qnode(device(1))
    def unknown_wire():
        return qml.expval(qml.Z(4))

    with pytest.raises(qml.exceptions.WireError, match="not found on the device"):
        unknown_wire()
    with pytest.raises(InputError, match="NaN or infinite"):
        device(1).execute(tape_of([qml.RX(np.nan, 0)], [qml.expval(qml.Z(0))]))
    with pytest.raises(OptionError, match="is no engine of qstore"):
        device(1, backend="pennylane")
    with pytest.raises(qml.exceptions.DeviceError, match="one-shot"):
        qml.set_shots(qml.QNode(lambda: qml.expval(qml.measure(0)), device(1), mcm_method="one-shot"), 10)()

    @qml.qnode(device(60))
    def large():
        for wire in range(60):
            qml.Hadamard(wire)
        return qml.probs(wires=range(60))

    with pytest.raises(MemoryLimitError):
        large()


# -- PennyLane's own tests -----------------------------------------------------------------------------------------

SOME = "TestHamiltonianSupport or test_var or test_wire or test_projector or TestSample or TestTracker"


@pytest.mark.slow
@pytest.mark.parametrize("shots", [None, 20_000])
def test_a_part_of_pennylanes_own_device_tests(shots):
    """`python -m tests.plugins.pennylane_suite` runs all of them."""
    counts = run_suite(shots, "-k", SOME, files=["test_measurements.py", "test_wires.py", "test_tracker.py"])
    assert counts["passed"] > 30
    assert counts.get("failed", 0) + counts.get("error", 0) == 0
