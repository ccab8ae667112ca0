"""The `numba` engine: the same numbers as the reference, whatever the threads, the batch and the process."""

from __future__ import annotations

import ast
import doctest
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import (
    CapabilityError,
    Circuit,
    Expectation,
    InputError,
    OptionError,
    Pauli,
    Probabilities,
    QuantumFeatureExtractor,
    get_backend,
)
from qstore_core.circuit.lowering.plan import lower, parity
from qstore_core.runtime.program import Execution, LayerProgram
from tests.support.strategies import layer_specs, problems
from tests.support.tolerances import EXACT, allow

pytest.importorskip("numba")

from qstore_core.engines import numba as engine
from qstore_core.engines.numba import threads as pool
from qstore_core.engines.numba.lowering import tables
from qstore_core.engines.numba.lowering.schedule import PhaseLayer, RotationLayer, duals, rank, schedule
from qstore_core.engines.numba.records import HEADER

BACKEND = get_backend("numba")
REFERENCE = get_backend("statevector")
ROOT = Path(__file__).parents[3]

# What the two engines may differ by: both are exact, so a few roundings on numbers of order 1.
AGREE = {"float64": 1e-10, "float32": 1e-5}


def hardware_efficient(n, depth, amplitudes=True, bases=("Z",), per_sample=False):
    circuit = Circuit(n, amplitudes=amplitudes)
    x = circuit.inputs(0 if amplitudes else n)
    w = iter(circuit.weights(2 * n * depth))
    for level in range(depth):
        for q in range(n):
            if x and (level == 0 or per_sample):
                circuit.ry(x[q], q)
            circuit.ry(next(w), q)
            circuit.rz(next(w), q)
        for i in range(n):
            for j in range(i + 1, n):
                circuit.cnot(i, j)
    return circuit, Expectation(bases)


def numbers(circuit, rows, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(rows, circuit.n_amplitudes + circuit.n_inputs))
    amplitudes = inputs[:, : circuit.n_amplitudes]
    amplitudes /= np.linalg.norm(amplitudes, axis=1, keepdims=True)
    return rng.normal(size=circuit.n_weights).astype(dtype), inputs.astype(dtype)


def everything(backend, circuit, measurement, theta, inputs, dtype="float64"):
    """Outputs and both gradients, for fixed cotangents."""
    executable = backend.compile(circuit, measurement, dtype=dtype)
    outputs, pull = executable.value_and_vjp(theta.astype(dtype), np.ascontiguousarray(inputs, dtype))
    cotangents = np.random.default_rng(7).normal(size=outputs.shape).astype(dtype)
    return (outputs, *pull(cotangents))


def assert_agrees(circuit, measurement, theta, inputs, dtype):
    outputs, d_theta, d_inputs = everything(REFERENCE, circuit, measurement, theta, inputs)
    unit, d_unit = inputs[:, : circuit.n_amplitudes], d_inputs[:, : circuit.n_amplitudes]
    d_unit -= (unit * d_unit).sum(axis=1, keepdims=True) * unit  # this engine's are gradients of features
    expected = outputs, d_theta, d_inputs
    found = everything(BACKEND, circuit, measurement, theta, inputs, dtype)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=allow(b, AGREE[dtype]))


# -- agreement with the statevector engine ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(problems(max_rows=3, max_qubits=5, max_gates=16))
def test_any_circuit_agrees(dtype, problem):
    theta, inputs = problem.theta, problem.inputs
    if dtype == "float32":  # polynomials of angles reach hundreds of radians: compare at the numbers float32 can hold
        theta, inputs = theta.astype(dtype).astype("float64") / 4, inputs.astype(dtype).astype("float64")
    assert_agrees(problem.circuit, problem.measurement, theta, inputs, dtype)


@given(
    layer_specs(kinds=("QuantumFeatureExtractor", "QuantumPooling", "QuantumReadout"), max_qubits=5), st.integers(0, 99)
)
def test_any_layer_agrees(spec, seed):
    theta, inputs = numbers(spec.circuit, 19, seed=seed)
    assert_agrees(spec.circuit, spec.measurement, theta, inputs, "float64")
    assert_agrees(spec.circuit, spec.measurement, theta, inputs, "float32")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 15, 16, 17, 32, 33, 100])
def test_any_batch_agrees(rows, dtype):
    """Full vectors, their remainders, one and several chunks."""
    for amplitudes in (True, False):
        circuit, measurement = hardware_efficient(5, 2, amplitudes, bases=("Z", "X", "Y"))
        assert_agrees(circuit, measurement, *numbers(circuit, rows), dtype)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 9, 11])
def test_any_number_of_qubits_agrees(n):
    for amplitudes in (True, False):
        circuit, measurement = hardware_efficient(n, 2, amplitudes, per_sample=True)
        assert_agrees(circuit, measurement, *numbers(circuit, 18), "float64")


@pytest.mark.parametrize("bases", [("X",), ("Y",), ("X", "Y"), ("Z", "X", "Y")])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_any_bases_agree(n, bases):
    """One qubit in a group, two and three; X alone, whose rows no Y string chooses."""
    circuit, measurement = hardware_efficient(n, 2, bases=bases)
    assert_agrees(circuit, measurement, *numbers(circuit, 17), "float64")
    head = dict(zip(HEADER, tables.Program(lower(circuit, measurement), 8, np.dtype("float64")).ints, strict=False))
    assert (head["n_pairs"], head["n_shifts"]) == (n // 3 + (n % 3 == 2), int(n % 3 == 1))


@given(st.lists(st.integers(1, 2**9 - 1), min_size=1, max_size=9, unique=True))
def test_duals_are_dual_or_the_vectors_depend_on_each_other(vectors):
    masks = duals(vectors)
    if rank(vectors) < len(vectors):
        assert masks == [0] * len(vectors)
    else:
        assert [[parity(u & v) for v in vectors] for u in masks] == np.eye(len(vectors), dtype=int).tolist()


def test_many_dependent_strings_agree():
    """More Z strings than bits, strings that share their X part, an identity: every branch of the sums."""
    n = 4
    circuit, _ = hardware_efficient(n, 2)
    pairs = ["".join("Z" if q in pair else "I" for q in range(n)) for pair in combinations(range(n), 2)]
    observables = [Pauli(p) for p in pairs] + [Pauli("ZIII"), Pauli("ZZZZ", 0.5) + Pauli("IIII", 2.0), Pauli("XYZX")]
    observables += [Pauli("XXII"), Pauli("YYII"), Pauli("XXZZ"), Pauli("YXIZ") + Pauli("XYII"), Pauli("IIII")]
    assert_agrees(circuit, Expectation(observables=tuple(observables)), *numbers(circuit, 20), "float64")


@pytest.mark.parametrize("measurement", [Probabilities(), Probabilities((2, 0)), Probabilities((0, 1, 3), 5)])
def test_probabilities_agree(measurement):
    circuit, _ = hardware_efficient(4, 2)
    assert_agrees(circuit, measurement, *numbers(circuit, 21), "float64")
    outputs = everything(BACKEND, circuit, measurement, *numbers(circuit, 21))[0]
    np.testing.assert_allclose(outputs.sum(axis=1), 1.0, atol=1e-13)


def test_many_dependent_phases_agree():
    """All pairs of qubits shift each other's phase, by weights and by inputs."""
    n = 5
    circuit = Circuit(n)
    x, w = circuit.inputs(n), circuit.weights(n * (n - 1) // 2)
    for q in range(n):
        circuit.h(q)
    for _ in range(2):
        for q in range(n):
            circuit.rz(x[q], q)
        for k, (a, b) in enumerate(combinations(range(n), 2)):
            circuit.rzz(w[k] * x[a] * x[b] if k % 2 else w[k], a, b)
        for q in range(n):
            circuit.rx(x[q] * x[q], q)
    assert_agrees(circuit, Expectation(("Z", "Y")), *numbers(circuit, 20), "float64")


def test_real_circuits_agree():
    """RY only: the imaginary plane is never written, but measured."""
    circuit = Circuit(4, amplitudes=True)
    w = circuit.weights(8)
    for k in range(8):
        circuit.ry(w[k], k % 4)
        circuit.cnot(k % 4, (k + 1) % 4)
    for measurement in (Expectation("Z"), Expectation(("Z", "X", "Y")), Probabilities((1,))):
        assert_agrees(circuit, measurement, *numbers(circuit, 20), "float64")


def test_no_gates_and_no_numbers():
    circuit = Circuit(2)
    assert_agrees(circuit, Expectation(("Z", "X")), np.zeros(0), np.zeros((3, 0)), "float64")
    circuit = Circuit(2, amplitudes=True)
    assert_agrees(circuit, Expectation(("Z", "X")), *numbers(circuit, 3), "float64")


def test_an_empty_batch():
    circuit, measurement = hardware_efficient(3, 1)
    outputs, d_theta, d_inputs = everything(BACKEND, circuit, measurement, *numbers(circuit, 0))
    assert outputs.shape == (0, 3)
    assert d_inputs.shape == (0, 8)
    np.testing.assert_array_equal(d_theta, np.zeros(6))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", [1.0, 1e2, 1e4, 1e5, 1e7])
def test_large_input_angles(size, dtype):
    """The reduction of angles holds as far as the number itself has digits."""
    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0], 0)
    x = np.random.default_rng(3).uniform(-size, size, (64, 1)).astype(dtype)
    outputs = BACKEND.compile(circuit, Expectation(), dtype=dtype).forward(np.zeros(0, dtype), x)
    np.testing.assert_allclose(outputs, np.cos(x.astype("float64")), rtol=0, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_reported(value):
    circuit, measurement = hardware_efficient(3, 1, amplitudes=False)
    theta, inputs = numbers(circuit, 20)
    executable = BACKEND.compile(circuit, measurement, dtype="float64")
    for array in (theta, inputs):
        kept, array.flat[-1] = array.flat[-1], value
        for call in (executable.forward, executable.value_and_vjp):
            with pytest.raises(InputError, match="not finite"):
                call(theta, inputs)
        array.flat[-1] = kept
    assert np.isfinite(executable.forward(theta, inputs)).all()


# -- gradients on demand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("amplitudes", [True, False])
@pytest.mark.parametrize(("n", "rows"), [(1, 1), (3, 4), (5, 2), (10, 1), (11, 2)])
def test_one_sample_at_a_time_agrees(n, rows, amplitudes, dtype, monkeypatch):
    monkeypatch.setattr(engine, "SINGLE", ((1, rows),))
    circuit, measurement = hardware_efficient(n, 2, amplitudes, bases=("Z", "X", "Y"), per_sample=True)
    executable = BACKEND.compile(circuit, measurement, dtype=dtype)
    assert (executable.layout(rows).lanes, executable.layout(rows + 1).lanes > 1) == (1, True)
    assert_agrees(circuit, measurement, *numbers(circuit, rows), dtype)


@given(problems(max_rows=3, max_qubits=4, max_gates=12))
def test_any_circuit_agrees_one_sample_at_a_time(problem):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "SINGLE", ((1, 3),))
        assert_agrees(problem.circuit, problem.measurement, problem.theta, problem.inputs, "float64")


@pytest.mark.parametrize("single", [0, 1 << 10])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "features", "rows"), [(1, 2, 3), (2, 3, 5), (4, 16, 33), (8, 200, 17)])
def test_features_are_normalised_as_elsewhere(n, features, rows, dtype, single, monkeypatch):
    """Padding, a row of zeros, and rows whose squares leave the range of float32."""
    monkeypatch.setattr(engine, "SINGLE", ((1, single),))
    x = np.random.default_rng(n).normal(size=(rows, features))
    scale = np.ones((rows, 1))
    scale[:3, 0] = 1e25, 0.0, 1e-30
    x = (scale * x).astype(dtype)
    spec = QuantumFeatureExtractor(n, 2, measurement_bases=("Z", "X")).spec
    layers = [LayerProgram(spec, Execution(backend=name), name="layer") for name in ("numba", "statevector")]
    theta = np.random.default_rng(1).normal(size=spec.n_weights).astype(dtype)
    cotangents = np.random.default_rng(2).normal(size=(rows, spec.output_dim)).astype(dtype)
    (found, pull), (expected, pull_expected) = (layer.value_and_vjp(theta, x) for layer in layers)
    np.testing.assert_allclose(found, expected, rtol=0, atol=AGREE[dtype])
    np.testing.assert_array_equal(layers[0].forward(theta, x), found)
    for a, b, factor in zip(pull(cotangents), pull_expected(cotangents), (1.0, np.sqrt(features) * scale), strict=True):
        wanted = factor * b.astype(np.float64)
        np.testing.assert_allclose(factor * a.astype(np.float64), wanted, rtol=0, atol=allow(wanted, AGREE[dtype]))
    assert not pull(cotangents)[1][1].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(value):
    x = np.ones((18, 4), np.float32)
    x[17, 2] = value
    program = LayerProgram(QuantumFeatureExtractor(2).spec, Execution(backend="numba"), name="layer")
    theta = np.zeros(program.spec.n_weights, np.float32)
    for call in (program.forward, program.value_and_vjp):
        with pytest.raises(InputError, match="layer: row 17 has "):
            call(theta, x)


@pytest.mark.parametrize("amplitudes", [True, False])
def test_phase_tables_beyond_the_budget_change_nothing(amplitudes, monkeypatch):
    """Built once a call, or where they are applied, where their rounding is not taken off outputs."""
    circuit, measurement = hardware_efficient(5, 6, amplitudes, per_sample=True)
    numbers_of_it = numbers(circuit, 20)
    expected = everything(BACKEND, circuit, measurement, *numbers_of_it)
    monkeypatch.setattr(tables, "KEPT_PHASES", 1)
    for received, value in zip(everything(BACKEND, circuit, measurement, *numbers_of_it), expected, strict=True):
        np.testing.assert_allclose(received, value, rtol=0, atol=EXACT)


def test_tables_and_scratch_stay_small_at_any_depth():
    """Only angles take room: 2n per level, each of a few numbers per lane."""
    n = 12
    sizes = []
    for depth in (2, 102):
        layout = BACKEND.compile(*hardware_efficient(n, depth), dtype="float32")._wide.program
        sizes.append(layout.ints.size + layout.work_size)
    per_level = (sizes[1] - sizes[0]) / 100
    assert per_level < 1 << n  # a table of a level's phases alone would be twice that


@pytest.mark.parametrize("keep", [0, 1 << 25])
def test_a_pullback_may_be_called_again(keep, monkeypatch):
    """With the final states kept, and without."""
    monkeypatch.setattr(engine.batch, "KEEP_BYTES", keep)
    circuit, measurement = hardware_efficient(4, 2, bases=("Z", "X"))
    theta, inputs = numbers(circuit, 40)
    executable = BACKEND.compile(circuit, measurement, dtype="float64")
    outputs, pull = executable.value_and_vjp(theta, inputs)
    cotangents = np.random.default_rng(1).normal(size=outputs.shape)
    first = pull(cotangents)
    for again in (pull(cotangents), executable.vjp(numbers(circuit, 40)[0], inputs, cotangents)):
        for a, b in zip(again, first, strict=True):
            np.testing.assert_array_equal(a, b)


def test_pullbacks_do_not_share_states():
    circuit, measurement = hardware_efficient(4, 2)
    theta, inputs = numbers(circuit, 20)
    executable = BACKEND.compile(circuit, measurement, dtype="float64")
    cotangents = np.ones((20, 4))
    alone = [executable.vjp(theta, x, cotangents) for x in (inputs, inputs[::-1].copy())]
    pulls = [executable.value_and_vjp(theta, x)[1] for x in (inputs, inputs[::-1].copy())]
    for pull, expected in zip(reversed(pulls), reversed(alone), strict=True):
        for a, b in zip(pull(cotangents), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_read_only_arrays_are_taken():
    circuit, measurement = hardware_efficient(3, 1)
    theta, inputs = numbers(circuit, 5)
    theta.setflags(write=False)
    inputs.setflags(write=False)
    assert_agrees(circuit, measurement, theta, inputs, "float64")


def test_cotangents_of_another_layout_are_taken():
    circuit, measurement = hardware_efficient(3, 1)
    executable = BACKEND.compile(circuit, measurement, dtype="float64")
    theta, inputs = numbers(circuit, 5)
    expected = executable.vjp(theta, inputs, np.ones((5, 3)))
    for cotangents in (np.ones((3, 5)).T, np.broadcast_to(1.0, (5, 3))):
        for a, b in zip(executable.vjp(theta, inputs, cotangents), expected, strict=True):
            np.testing.assert_array_equal(a, b)


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def eager_threads(monkeypatch):
    """Share out any batch of more than one chunk."""
    monkeypatch.setattr(engine.batch, "_PARALLEL_SECONDS", 0.0)
    monkeypatch.setattr(engine.batch, "_TASK_SECONDS", 1e-9)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.usefixtures("eager_threads")
def test_threads_do_not_change_a_bit(dtype, per_sample):
    circuit, measurement = hardware_efficient(6, 2, not per_sample, per_sample=per_sample)
    theta, inputs = numbers(circuit, 300)
    one, *others = (
        everything(get_backend("numba", threads=k), circuit, measurement, theta, inputs, dtype) for k in (1, 2, 3, 8)
    )
    for other in others:
        for a, b in zip(other, one, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("eager_threads")
def test_several_threads_at_once():
    circuit, measurement = hardware_efficient(6, 2)
    backend = get_backend("numba", threads=2)
    theta, inputs = numbers(circuit, 100)
    expected = everything(backend, circuit, measurement, theta, inputs)
    executable = backend.compile(circuit, measurement, dtype="float64")
    cotangents = np.random.default_rng(7).normal(size=expected[0].shape)
    failures = []

    def call():
        for _ in range(50):
            outputs, pull = executable.value_and_vjp(theta, inputs)
            found = (outputs, *pull(cotangents))
            if not all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)):
                failures.append(found)

    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_a_task_that_fails_is_reported():
    def fail():
        raise ZeroDivisionError("task")

    done = []
    with pytest.raises(ZeroDivisionError, match="task"):
        pool.run_all([fail, *[lambda: done.append(1)] * 20], 3)
    pool.run_all([lambda: done.append(2)] * 20, 3)
    assert done.count(2) == 20


def test_thread_count_follows_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert pool.thread_count() == 1
    assert pool.thread_count(3) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "nonsense")
    assert pool.thread_count() >= 1


def test_thread_count_follows_the_frameworks(monkeypatch):
    class Torch:
        @staticmethod
        def get_num_threads():
            return 1

    monkeypatch.setitem(sys.modules, "torch", Torch)
    assert pool.thread_count() == 1


# -- processes --------------------------------------------------------------------------------------------------------

CALL = """
import numpy as np
from qstore_core import Circuit, Expectation, get_backend
from qstore_core.engines import numba as engine
engine._PARALLEL_SECONDS, engine._TASK_SECONDS = 0.0, 1e-9
circuit = Circuit(4)
x, w = circuit.inputs(4), circuit.weights(4)
for q in range(4):
    circuit.ry(x[q], q)
    circuit.cnot(q, (q + 1) % 4)
    circuit.ry(w[q], q)
executable = get_backend("numba", threads=2).compile(circuit, Expectation())
def call():
    outputs, pull = executable.value_and_vjp(np.ones(4, "float32"), np.ones((200, 4), "float32"))
    return np.concatenate([a.ravel() for a in (outputs, *pull(np.ones_like(outputs)))])
first = call()
"""


def python(code, cwd=ROOT, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_it_works_in_a_forked_process():
    """The threads of the parent are not there: the child makes its own."""
    code = """
import os
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(call(), first) else 1)
import time
for _ in range(600):
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
    raise SystemExit("the child hangs")
assert status == 0 and np.array_equal(call(), first)
print("same")
"""
    assert python(CALL + code) == "same"


@pytest.mark.slow
@pytest.mark.parametrize("home", [True, False])
def test_it_works_where_the_package_cannot_be_written_to(tmp_path, home):
    """With a cache in the user's folder, or none at all. A folder that is a file refuses root, too."""
    package = tmp_path / "qstore_core"
    shutil.copytree(ROOT / "qstore_core", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "engines" / "numba" / "kernels" / "__pycache__").write_text("in the way")
    user = tmp_path / "user"
    if home:
        user.mkdir()
    else:
        user.write_text("in the way")
    environment = {"XDG_CACHE_HOME": str(user), "HOME": str(user), "PYTHONPATH": str(tmp_path), "IPYTHONDIR": str(user)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    code = CALL + "import qstore_core; print(qstore_core.__file__)"
    assert python(code, cwd=tmp_path, **environment) == str(package / "__init__.py")
    assert bool(list(user.rglob("*.nbi"))) == home


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_the_number_of_threads_is_checked(threads):
    with pytest.raises(OptionError, match="threads is a whole number of at least 1"):
        get_backend("numba", threads=threads)


def test_options_are_checked():
    with pytest.raises(OptionError, match="Did you mean 'threads'"):
        get_backend("numba", thread=1)


def test_shots_are_refused():
    with pytest.raises(CapabilityError, match="exact expectation values, but shots=10"):
        BACKEND.compile(*hardware_efficient(2, 1), shots=10)


def test_importing_the_engine_does_not_import_numba():
    code = "import sys, qstore_core.engines.numba; print('numba' in sys.modules)"
    assert python(code) == "False"


# -- the schedule -----------------------------------------------------------------------------------------------------


def test_a_layer_of_gates_is_one_layer_of_rotations_and_one_of_phases():
    circuit, measurement = hardware_efficient(8, 2)
    layers = schedule(lower(circuit, measurement))
    assert [type(layer) for layer in layers] == [RotationLayer, PhaseLayer, RotationLayer]
    assert [len(layer.rotations) for layer in layers if isinstance(layer, RotationLayer)] == [8, 8]


def test_phases_of_the_zero_state_vanish():
    circuit = Circuit(2)
    circuit.rz(circuit.inputs(1)[0], 0)
    circuit.rx(circuit.weights(1)[0], 1)
    kinds = [type(layer) for layer in schedule(lower(circuit, Expectation(("Z", "Y"))))]
    assert kinds == [RotationLayer, PhaseLayer]


# -- what this folder promises ----------------------------------------------------------------------------------------


def test_the_worked_example_of_the_readme():
    readme = Path(engine.__file__).with_name("README.md")
    done = doctest.testfile(str(readme), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert done.attempted > 20
    assert not done.failed


def test_private_modules_of_numba_are_few_and_its_version_is_bounded():
    """What is not in numba's documented interface may change with any version: the newest one tried is the last."""
    private = set()
    for path in Path(engine.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("numba."):
                private.add(node.module)
    assert private == {"numba.core", "numba.core.typing.templates", "numba.extending", "numba.np.arrayobj"}
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["fast"]
    (requirement,) = (item for item in extra if item.startswith("numba"))
    assert "<" in requirement
    newest = tuple(int(part) for part in requirement.split("<")[1].split(".")[:2])
    assert tuple(int(part) for part in version("numba").split(".")[:2]) < newest
