"""What reaches a compiled kernel has the length, dtype and layout that it reads; slots that do not exist never do."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import Circuit, Expectation, ShapeError, SpecError, get_backend
from qstore_core.circuit.angles.angle import Angle
from qstore_core.circuit.lowering.plan import Rotation, lower
from qstore_core.engines.arrays.program import ArrayProgram

pytest.importorskip("numba")

from qstore_core.engines.numba.lowering.tables import Program

ROOT = Path(__file__).parents[3]


def circuit(amplitudes=True):
    c = Circuit(3, amplitudes=amplitudes)
    x, w = c.inputs(2), c.weights(4)
    for q in range(3):
        c.ry(w[q], q)
    c.rz(w[3] * x[0], 0)
    c.ry(x[1], 1)
    return c


def executable(amplitudes=True, dtype="float32"):
    return get_backend("numba").compile(circuit(amplitudes), Expectation(("Z", "X")), dtype=dtype)


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    out = raw[1:].view(array.dtype).reshape(array.shape)
    out[...] = array
    assert not out.flags.aligned
    return out


GOOD = np.linspace(0.1, 0.4, 4, dtype=np.float32), np.ones((5, 10), np.float32)
BAD = {
    "theta too short": (GOOD[0][:3].copy(), GOOD[1]),
    "theta of one": (GOOD[0][:1].copy(), GOOD[1]),
    "theta too long": (np.ones(5, np.float32), GOOD[1]),
    "theta a column": (GOOD[0][:, None], GOOD[1]),
    "theta a scalar": (np.float32(1.0), GOOD[1]),
    "theta a list": ([0.1, 0.2, 0.3, 0.4], GOOD[1]),
    "theta in float64": (GOOD[0].astype(np.float64), GOOD[1]),
    "theta in float16": (GOOD[0].astype(np.float16), GOOD[1]),
    "theta in another byte order": (GOOD[0].astype(">f4"), GOOD[1]),
    "theta of integers": (np.ones(4, np.int32), GOOD[1]),
    "theta strided": (np.ones(8, np.float32)[::2], GOOD[1]),
    "theta expanded": (np.broadcast_to(np.float32(1.0), (4,)), GOOD[1]),
    "theta misaligned": (misaligned(GOOD[0]), GOOD[1]),
    "inputs too narrow": (GOOD[0], np.ones((5, 2), np.float32)),
    "inputs too wide": (GOOD[0], np.ones((5, 11), np.float32)),
    "inputs of one row": (GOOD[0], np.ones(10, np.float32)),
    "inputs of three axes": (GOOD[0], np.ones((5, 1, 10), np.float32)),
    "inputs in float64": (GOOD[0], np.ones((5, 10))),
    "inputs in Fortran order": (GOOD[0], np.asfortranarray(GOOD[1])),
    "inputs strided": (GOOD[0], np.ones((5, 20), np.float32)[:, ::2]),
    "inputs expanded": (GOOD[0], np.broadcast_to(np.ones(10, np.float32), (5, 10))),
    "inputs misaligned": (GOOD[0], misaligned(GOOD[1])),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_the_kernel_cannot_read_are_refused(case):
    """And the executable stays usable."""
    run = executable()
    expected = run.forward(*GOOD)
    cotangents = np.ones((5, 6), np.float32)
    calls = (run.forward, run.value_and_vjp, lambda theta, inputs: run.vjp(theta, inputs, cotangents))
    for call in calls:
        with pytest.raises(ShapeError, match="received"):
            call(*BAD[case])
    np.testing.assert_array_equal(run.forward(*GOOD), expected)


@pytest.mark.parametrize("shape", [(5,), (4, 6), (5, 5), (6, 5), (5, 6, 1), ()])
def test_cotangents_of_another_shape_are_refused(shape):
    _, vjp_fn = executable().value_and_vjp(*GOOD)
    with pytest.raises(ShapeError, match=r"cotangents of this call have shape \(5, 6\)"):
        vjp_fn(np.ones(shape, np.float32))


@given(st.data())
def test_any_layout_is_refused_or_right(data):
    """Lengths, strides, offsets, dtypes, read-only and misaligned memory."""
    run = executable()
    arrays = []
    for good in GOOD:
        shape = tuple(data.draw(st.integers(0, 2 * n)) if data.draw(st.booleans()) else n for n in good.shape)
        array = np.resize(good, shape).astype(data.draw(st.sampled_from((np.float32, np.float32, np.float64, np.int8))))
        change = data.draw(st.sampled_from(("none", "none", "reverse", "transpose", "misalign", "slice", "read-only")))
        if change == "reverse":
            array = array[::-1]
        if change == "transpose":
            array = array.T
        if change == "misalign" and array.itemsize > 1 and array.size:
            array = misaligned(array)
        if change == "slice":
            array = np.repeat(array, 2, axis=-1)[..., ::2]
        if change == "read-only":
            array = array.copy()
            array.setflags(write=False)
        arrays.append(array)
    theta, inputs = arrays
    try:
        outputs = run.forward(theta, inputs)
    except ShapeError:
        return
    copies = np.array(theta, np.float32), np.array(inputs, np.float32)
    np.testing.assert_array_equal(outputs, run.forward(*copies))
    assert outputs.shape == (len(inputs), 6)


@pytest.mark.parametrize(("kind", "index"), [("w", -1), ("w", 4), ("w", -5000), ("x", 2), ("x", -1)])
def test_slots_that_do_not_exist_reach_no_engine(kind, index):
    plan = lower(circuit(), Expectation("Z"))
    bad = Angle(((((kind, index),), 1.0),))
    steps = tuple(
        dataclasses.replace(step, factors=((step.factors[0][0], bad),)) if isinstance(step, Rotation) else step
        for step in plan.steps
    )
    plan = dataclasses.replace(plan, steps=steps)
    for engine in (ArrayProgram, lambda p: Program(p, 8, np.dtype("float32"))):
        with pytest.raises(SpecError, match=f"an angle uses .* {index} of a circuit"):
            engine(plan)


EVERYTHING = """
import itertools
import numpy as np
from numba.core import config
from qstore_core import Circuit, Expectation, Pauli, Probabilities, get_backend
assert config.BOUNDSCHECK
numba, reference = get_backend("numba", threads=1), get_backend("statevector")
rng = np.random.default_rng(0)
for n, amplitudes, rows in itertools.product((1, 2, 3, 5, 8), (True, False), (1, 7, 8, 17)):
    c = Circuit(n, amplitudes=amplitudes)
    x, w = c.inputs(n), c.weights(4 * n)
    for q in range(n):
        c.ry(w[q], q); c.rz(w[n + q] * x[q], q); c.rx(x[q] * x[q], q); c.h(q)
    for a, b in itertools.combinations(range(n), 2):
        c.cnot(a, b); c.rzz(x[a] * x[b], a, b)
    for q in range(n):
        c.u3(w[2 * n + q], w[3 * n + q], x[q], q)
    strings = tuple(Pauli("".join(rng.choice(list("IXYZ"), n))) for _ in range(5))
    measurements = (Expectation(("Z", "X", "Y")), Expectation(observables=strings), Probabilities(),
                    Probabilities((0,)), Probabilities(n_classes=min(3, 1 << n)))
    for m in measurements:
        theta, inputs = rng.normal(size=4 * n), rng.normal(size=(rows, c.n_amplitudes + n))
        unit = inputs[:, : c.n_amplitudes]
        unit /= np.sqrt((unit * unit).sum(axis=1, keepdims=True))
        found, vjp_fn = numba.compile(c, m, dtype="float64").value_and_vjp(theta, inputs)
        expected, expected_vjp = reference.compile(c, m, dtype="float64").value_and_vjp(theta, inputs)
        cotangents = rng.normal(size=found.shape)
        assert np.abs(found - expected).max() < 1e-10
        d_theta, d_inputs = vjp_fn(cotangents)
        e_theta, e_inputs = expected_vjp(cotangents)
        assert np.abs(d_theta - e_theta).max() < 1e-8
        angles = np.s_[:, c.n_amplitudes :]  # this one takes features, that one unit rows
        assert np.abs(d_inputs[angles] - e_inputs[angles]).max() < 1e-8
from qstore_core.engines.numba.lowering import tables
put = tables.Program._put_block
def wrong(self, block):
    return *put(self, block)[:3], 10**6
tables.Program._put_block = wrong  # the checks are on: a table that leads astray is noticed
try:
    numba.compile(Circuit(1, amplitudes=True), Expectation(("X", "Y")), dtype="float64")
    c = Circuit(4, amplitudes=True)
    for q, angle in enumerate(c.weights(4)):
        c.ry(angle, q)
    numba.compile(c, Expectation("Z"), dtype="float64").forward(np.ones(4), np.ones((9, 16)))
except IndexError as error:
    print(error)
"""


@pytest.mark.slow
def test_no_kernel_reads_beside_an_array(tmp_path):
    """Every access of every kernel checked, on one circuit of each kind."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "a kernel reads or writes beside an array"


LENGTHS = [(3, 10), (5, 10), (1, 10), (4, 9), (4, 11), (4, 8)]  # of theta and of a row of inputs; right are 4 and 10


@pytest.mark.parametrize("engine", ["statevector", "density", "trajectories", "torch", "jax"])
@pytest.mark.parametrize(("weights", "inputs"), LENGTHS)
def test_every_engine_refuses_arrays_of_another_length(engine, weights, inputs):
    """Too long ones were taken, and the rest of them left out; too short ones ended in an IndexError."""
    backend = get_backend(engine)
    sampled = not backend.capabilities.exact
    run = backend.compile(circuit(), Expectation(("Z", "X")), dtype="float64", shots=10 if sampled else None)
    theta, rows = np.ones(weights), np.ones((5, inputs))
    calls = [lambda: run.forward(theta, rows, **({"seed": 1} if sampled else {}))]
    if not sampled:
        calls.append(lambda: run.vjp(theta, rows, np.ones((5, 6))))
    for call in calls:
        with pytest.raises(ShapeError, match=r"takes (theta of shape \(4,\)|inputs of shape \(batch, 10\))"):
            call()
