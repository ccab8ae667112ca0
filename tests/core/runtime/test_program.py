"""One path: remembered checks, arrays of any kind, errors, records and counts, on the `numba` engine."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import assume, given

import qstore_core
from qstore_core import (
    Circuit,
    Expectation,
    InputError,
    QuantumFeatureExtractor,
    QuantumLayer,
    ShapeError,
    cache_clear,
    profile,
)
from qstore_core.runtime.program import Execution, LayerProgram
from tests.support.strategies import batches, layer_specs
from tests.support.tolerances import GRADIENT, allow

pytest.importorskip("numba")

X = np.random.default_rng(0).normal(size=(5, 8))
ENCODINGS = [("amplitude", 8), ("angle", 3)]


def layer_of(encoding, **more):
    return QuantumFeatureExtractor(3, depth=2, encoding=encoding, backend="numba", seed=0, name="it", **more)


# -- arrays of any kind -----------------------------------------------------------------------------------------------


def misaligned(x):
    """The same numbers one byte off."""
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype)
    raw[:] = x.ravel()
    return raw.reshape(x.shape)


def read_only(x):
    x = x.copy()
    x.setflags(write=False)
    return x


ANYHOW = {
    "Fortran": np.asfortranarray,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "columns": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "big-endian": lambda x: x.astype(">f8"),
    "list": lambda x: x.tolist(),
    "misaligned": misaligned,
    "read-only": read_only,
}


@pytest.mark.parametrize("kind", ANYHOW)
@pytest.mark.parametrize(("encoding", "features"), ENCODINGS)
@pytest.mark.parametrize("which", ["theta", "x", "cotangents"])
def test_arrays_of_any_layout_give_the_same(encoding, features, kind, which):
    program = layer_of(encoding)._program
    arrays = {"theta": np.linspace(0, 1, program.spec.n_weights), "x": X[:, :features].copy()}
    expected, vjp_fn = program.value_and_vjp(**arrays)
    cotangents = np.arange(15.0).reshape(5, 3)
    gradients = vjp_fn(cotangents)
    if which == "cotangents":
        if kind != "list":
            np.testing.assert_array_equal(vjp_fn(ANYHOW[kind](cotangents))[1], gradients[1])
        return
    arrays[which] = ANYHOW[kind](arrays[which])
    for _ in range(2):  # checked, then remembered
        np.testing.assert_array_equal(program.forward(**arrays), expected)
        for ours, theirs in zip(program.value_and_vjp(**arrays)[1](cotangents), gradients, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("length", [0, 1, 3, 11, 13, 24])
@pytest.mark.parametrize("backend", ["numba", "statevector"])
def test_a_theta_of_another_length_reaches_no_engine(length, backend):
    program = QuantumFeatureExtractor(3, depth=2, backend=backend)._program
    for theta in (np.zeros(length), np.zeros((12, 1)), np.zeros((1, 12)), np.float64(1.0)):
        for call in (program.forward, program.value_and_vjp):
            with pytest.raises(ShapeError, match="theta has shape"):
                call(theta, X)
    assert program.forward(np.zeros(12), X).shape == (5, 3)


def test_masks_are_refused_not_ignored():
    with pytest.raises(InputError, match="mask"):
        layer_of("amplitude")(np.ma.masked_greater(X, 0.5))


@given(spec=layer_specs(), batch=batches(min_rows=1))
def test_both_engines_agree_and_a_second_pull_starts_anew(spec, batch):
    assume(spec.measurement is not None and spec.encoding.differentiable)
    theta, x, cotangents = batch.theta(spec), batch.features(spec), batch.cotangents(spec)
    results = []
    for backend in ("numba", "statevector"):
        outputs, pull = LayerProgram(spec, Execution(backend=backend), name="layer").value_and_vjp(theta, x)
        results.append((outputs, *pull(cotangents), *pull(2 * cotangents)))
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=allow(theirs, GRADIENT[batch.dtype]))


def test_two_passes_at_once_keep_their_scratch_apart():
    layer = layer_of("amplitude")
    program, theta = layer._program, layer.theta
    alone = []
    for x in (X, X[::-1].copy()):
        outputs, pull = program.value_and_vjp(theta, x)
        alone.append((outputs, *pull(np.ones_like(outputs))))
    begun = [program.value_and_vjp(theta, x) for x in (X, X[::-1].copy())]
    layer(2 - X)
    for (outputs, pull), before in zip(begun, alone, strict=True):
        for ours, expected in zip((outputs, *pull(np.ones_like(outputs))), before, strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_weights_may_change_between_the_passes():
    layer = layer_of("amplitude")
    expected = layer.vjp(X, np.ones((5, 3)))
    theta = layer.theta.copy()
    _, pull = layer._program.value_and_vjp(theta, X)
    theta[:] = 0
    for ours, before in zip(pull(np.ones((5, 3))), expected, strict=True):
        np.testing.assert_array_equal(ours, before)


def test_many_threads():
    layer = layer_of("amplitude")
    batches_ = [np.random.default_rng(k).normal(size=(1 + k % 7, 8)) for k in range(8)]
    expected = [layer.vjp(x, np.ones((len(x), 3))) for x in batches_]
    wrong = []

    def work(k):
        for _ in range(50):
            found = layer.vjp(batches_[k], np.ones((len(batches_[k]), 3)))
            if not all(np.array_equal(a, b) for a, b in zip(found, expected[k], strict=True)):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# -- nothing hidden ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("encoding", "features"), ENCODINGS)
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_features_that_are_not_finite_are_refused(encoding, features, what, dtype, rows):
    layer = layer_of(encoding)
    x = np.random.default_rng(1).normal(size=(rows, features)).astype(dtype)
    before = layer(x)
    bad = x.copy()
    bad[-1, 1] = what
    with pytest.raises(InputError, match=f"row {rows - 1}"):
        layer(bad)
    with pytest.raises(InputError, match=f"row {rows - 1}"):
        layer.vjp(bad, np.ones_like(before))
    np.testing.assert_array_equal(layer(x), before)


@pytest.mark.parametrize("what", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["before", "read", "after", "dropped"])
def test_angles_that_are_not_finite_are_refused_wherever_they_stand(place, what):
    """Also where no output depends on them: on |0⟩, behind the last measured gate, on a qubit that nobody reads."""
    circuit = Circuit(2)
    x, w = circuit.inputs(1), circuit.weights(4)
    circuit.rz(w[0], 0)
    circuit.ry(x[0], 0)
    circuit.ry(w[1], 0)
    circuit.rz(w[2], 0)
    circuit.ry(w[3], 1)
    layer = QuantumLayer(circuit, Expectation("Z", qubits=(0,)), backend="numba", seed=0, name="it")
    rows = np.full((3, 1), 0.3)
    before, theta = layer(rows), layer.theta.copy()
    theta[{"before": 0, "read": 1, "after": 2, "dropped": 3}[place]] = what
    layer.theta = theta
    with pytest.raises(InputError, match="theta has"):
        layer(rows)
    with pytest.raises(InputError, match="theta has"):
        layer.vjp(rows, np.ones((3, 1)))
    theta[~np.isfinite(theta)] = 0.0
    layer.theta = theta
    assert layer(rows).shape == before.shape


def test_angles_of_inputs_that_nothing_reads_are_looked_at():
    circuit = Circuit(2)
    x = circuit.inputs(2)
    circuit.ry(x[0], 0)
    circuit.ry(x[1], 1)
    layer = QuantumLayer(circuit, Expectation("Z", qubits=(0,)), backend="numba")
    with pytest.raises(InputError, match="row 0"):
        layer(np.array([[0.3, np.nan]]))


@pytest.mark.parametrize(("x", "kind"), [(X[:, :2], ShapeError), (np.ones((2, 9)), ShapeError), (X[0], ShapeError)])
def test_wrong_shapes_are_named(x, kind):
    layer = layer_of("angle")
    with pytest.raises(kind):
        layer(np.ascontiguousarray(x))
    assert layer(X[:, :3].copy()).shape == (5, 3)


# -- records ----------------------------------------------------------------------------------------------------------


def test_calls_are_counted_and_recorded():
    layer = layer_of("amplitude")
    with profile() as times:
        layer(X)
        layer.vjp(X, np.ones((5, 3)))
    assert (times.calls("it", "forward"), times.calls("it", "backward")) == (2, 1)
    run = layer.last_run
    assert (run.backend, run.shots, run.seed, run.gradient, run.fallback) == ("numba", None, 0, None, None)
    assert run.backward.gradient == "vjp"
    assert 0 < run.seconds < 60
    assert 0 < run.backward.seconds < 60


def test_a_cleared_cache_compiles_anew():
    layer = layer_of("amplitude")
    before = layer(X)
    compiled = qstore_core.cache_info().misses
    layer(X)
    assert qstore_core.cache_info().misses == compiled
    cache_clear()
    np.testing.assert_array_equal(layer(X), before)
    assert qstore_core.cache_info().misses == 1
