"""Circuits of a gradient: as many as what is wanted needs, and none twice; counted on a backend that counts rows."""

from __future__ import annotations

import numpy as np
import pytest

import qstore_core
from qstore_core import Capabilities, Circuit, QuantumFeatureExtractor, get_backend
from qstore_core.circuit.gates.table import GATES, SHIFT_RULES
from tests.support.tolerances import EXACT

BATCH = 3
ENCODINGS = ("angle", "iqp", "zz")
WANTED = [(True, True), (True, False), (False, True)]


class Counting:
    """Statevector without a vjp; keeps every row that it runs."""

    name = "counting"
    capabilities = Capabilities(remote=True)

    def __init__(self):
        self.rows = []

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        good = get_backend("statevector").compile(circuit, measurement, dtype=dtype)
        owner, what = self, hash(circuit)

        class Executable:
            def forward(self, theta, inputs):
                owner.rows += [(what, theta.tobytes(), row.tobytes()) for row in inputs]
                return good.forward(theta, inputs)

        return Executable()


def shifted_rows(circuit: Circuit, wrt_theta, wrt_inputs):
    """One circuit per shift of each angle that depends on what is wanted."""
    kinds = {kind for kind, wanted in (("w", wrt_theta), ("x", wrt_inputs)) if wanted}
    return sum(
        len(SHIFT_RULES[GATES[op.gate].shift])
        for op in circuit.operations
        for angle in op.params
        if any(kind in kinds for kind, _ in angle.slots)
    )


def extractor(encoding, module=qstore_core, **options):
    backend = Counting()
    layer = module.QuantumFeatureExtractor(
        3, depth=1, encoding=encoding, backend=backend, fallback=None, seed=1, **options
    )
    return layer, backend


def features(dtype=np.float64):
    return np.random.default_rng(0).uniform(0.2, 1.2, (BATCH, 3)).astype(dtype)


def check(backend, layer, wrt_theta, wrt_inputs):
    expected = BATCH * (1 + shifted_rows(layer.spec.circuit, wrt_theta, wrt_inputs))
    assert len(backend.rows) == expected
    assert len(set(backend.rows)) == expected


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("wrt_theta", "wrt_inputs"), WANTED)
def test_core(encoding, wrt_theta, wrt_inputs):
    layer, backend = extractor(encoding)
    whole, _ = extractor(encoding)
    x, cotangents = features(), np.random.default_rng(1).normal(size=(BATCH, 3))
    wanted = whole.vjp(x, cotangents)
    _, vjp_fn = layer._program.value_and_vjp(layer.theta, x, wrt_theta=wrt_theta, wrt_inputs=wrt_inputs)
    found = vjp_fn(cotangents)
    check(backend, layer, wrt_theta, wrt_inputs)
    for gradient, want, asked in zip(found, wanted, (wrt_theta, wrt_inputs), strict=True):
        if asked:
            np.testing.assert_allclose(gradient, want, rtol=0, atol=EXACT)
        else:
            assert gradient is None


def test_nothing_is_shared_by_angles_of_theta_and_of_inputs():
    """The counts differ, so that the tests above can fail."""
    for encoding in ENCODINGS:
        circuit = QuantumFeatureExtractor(3, depth=1, encoding=encoding, backend="statevector").circuit
        counts = [shifted_rows(circuit, *wanted) for wanted in WANTED]
        assert counts[0] == counts[1] + counts[2]
        assert min(counts) > 0


@pytest.mark.parametrize("gradient", ["finite-difference", "spsa"])
def test_approximations_move_only_what_is_wanted(gradient):
    for wrt_theta, wrt_inputs in WANTED:
        layer, backend = extractor("angle", gradient=gradient)
        _, vjp_fn = layer._program.value_and_vjp(layer.theta, features(), wrt_theta=wrt_theta, wrt_inputs=wrt_inputs)
        vjp_fn(np.ones((BATCH, 3)))
        moved = 1 if gradient == "spsa" else layer.theta.size * wrt_theta + 3 * wrt_inputs
        assert len(backend.rows) == BATCH * (1 + 2 * moved)


def test_rows_whose_cotangents_are_zero_need_no_circuits():
    layer, backend = extractor("iqp")
    outputs, vjp_fn = layer._program.value_and_vjp(layer.theta, features())
    cotangents = np.ones_like(outputs)
    cotangents[1] = 0.0
    d_theta, d_x = vjp_fn(cotangents)
    assert len(backend.rows) == BATCH + (BATCH - 1) * shifted_rows(layer.spec.circuit, True, True)
    assert not d_x[1].any()
    alone, _ = extractor("iqp")
    np.testing.assert_allclose(alone.vjp(features()[[0, 2]], cotangents[[0, 2]])[0], d_theta, rtol=0, atol=EXACT)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("wrt_theta", "wrt_inputs"), WANTED)
def test_torch(encoding, wrt_theta, wrt_inputs, compiled):
    torch = pytest.importorskip("torch")
    import qstore_torch

    layer, backend = extractor(encoding, qstore_torch)
    layer.theta.requires_grad_(wrt_theta)
    x = torch.from_numpy(features(np.float32)).requires_grad_(wrt_inputs)
    torch.compiler.reset()
    call = torch.compile(layer, backend="aot_eager", fullgraph=True) if compiled else layer
    call(x).sum().backward()
    check(backend, layer, wrt_theta, wrt_inputs)
    assert (layer.theta.grad is not None, x.grad is not None) == (wrt_theta, wrt_inputs)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("wrt_theta", "wrt_inputs"), WANTED)
def test_keras(encoding, wrt_theta, wrt_inputs, compiled):
    tf = pytest.importorskip("tensorflow")
    import qstore_tf

    layer, backend = extractor(encoding, qstore_tf)
    layer.build((None, 3))
    layer.trainable = wrt_theta
    x = tf.constant(features(np.float32))

    def gradients(x):
        with tf.GradientTape() as tape:
            if wrt_inputs:
                tape.watch(x)
            loss = tf.reduce_sum(layer(x))
        return tape.gradient(loss, [*layer.trainable_variables, *([x] if wrt_inputs else [])])

    found = (tf.function(gradients) if compiled else gradients)(x)
    check(backend, layer, wrt_theta, wrt_inputs)
    assert len(found) == wrt_theta + wrt_inputs
    assert all(gradient is not None for gradient in found)
