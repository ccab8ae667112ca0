"""The layers on NumPy arrays: shapes, dtypes, mistakes, and that a layer stays usable after one."""

from __future__ import annotations

import asyncio
import pickle

import numpy as np
import pytest
from hypothesis import given

import qstore_core
from qstore_core import (
    Circuit,
    InputError,
    MemoryLimitError,
    Pauli,
    QuantumEncoder,
    QuantumFeatureExtractor,
    QuantumLayer,
    QuantumPooling,
    QuantumReadout,
    ShapeError,
    SpecError,
    UnknownBackendError,
)
from qstore_core.layers.presets import PRESETS
from tests.support.strategies import batches, layer_arguments
from tests.support.tolerances import EXACT, VALUE

X = np.random.default_rng(0).normal(size=(5, 8))


def same_rows(layer, x=X):
    np.testing.assert_allclose(layer(x), np.stack([layer(row[None])[0] for row in x]), rtol=0, atol=EXACT)


# -- shapes and dtypes ------------------------------------------------------------------------------------------------


@given(drawn=layer_arguments(), batch=batches())
def test_the_promised_shape_is_the_actual_one(drawn, batch):
    kind, arguments = drawn
    layer = getattr(qstore_core, kind)(**arguments)
    x = batch.features(layer.spec)
    outputs = layer(x)
    assert outputs.shape == layer.compute_output_shape(x.shape) == (*batch.lead, layer.output_dim)
    assert outputs.dtype == x.dtype
    assert np.isfinite(outputs).all()
    if layer.spec.encoding.differentiable:
        d_theta, d_x = layer.vjp(x, np.ones_like(outputs))
        assert (d_theta.shape, d_x.shape) == (layer.theta.shape, x.shape)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64"), ("int64", "float32"), ("bool", "float32")],
)
def test_the_output_has_the_dtype_of_the_input(given_, expected):
    layer = QuantumReadout(3, n_classes=2, seed=0)
    x = (np.abs(X) > 0.5).astype(given_)
    assert layer(x).dtype == expected
    np.testing.assert_allclose(layer(x), layer(x.astype("float64")), rtol=0, atol=VALUE["float32"])


def test_lists_and_foreign_layouts_are_taken():
    layer = QuantumFeatureExtractor(3, seed=0)
    np.testing.assert_array_equal(layer(X.tolist()), layer(X))
    np.testing.assert_array_equal(layer(np.asfortranarray(X)), layer(X))
    np.testing.assert_array_equal(layer(X[::-1]), layer(X[::-1].copy()))
    np.testing.assert_array_equal(layer(X.astype(">f8")), layer(X))


def test_empty_batches_and_leading_dimensions():
    layer = QuantumPooling(4, seed=0)
    assert layer(np.zeros((0, 16))).shape == (0, 2)
    assert [g.shape for g in layer.vjp(np.zeros((0, 16)), np.zeros((0, 2)))] == [layer.theta.shape, (0, 16)]
    x = np.random.default_rng(1).normal(size=(2, 3, 16))
    np.testing.assert_array_equal(layer(x), layer(x.reshape(6, 16)).reshape(2, 3, 2))


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (np.ones((2, 9)), ShapeError, "9"),
        (np.ones(8), ShapeError, "batch"),
        (np.array([[1.0] * 8, [np.nan] * 8]), InputError, "row 1"),
        (np.array([[1.0] * 8, [1.0] * 7 + [-np.inf]]), InputError, "row 1"),
        (np.ones((2, 8), complex), InputError, "complex"),
        (np.array([["a"] * 8]), InputError, "numbers"),
    ],
)
def test_wrong_features_are_named_and_the_layer_stays_usable(x, kind, message):
    layer = QuantumReadout(3, n_classes=3, seed=0)
    before = layer(X)
    with pytest.raises(kind, match=message):
        layer(x)
    with pytest.raises(kind, match=message):
        layer.vjp(x, np.ones((2, 3)))
    np.testing.assert_array_equal(layer(X), before)


def test_zero_rows_encode_to_the_first_basis_state():
    x = X.copy()
    x[1] = 0
    np.testing.assert_array_equal(QuantumEncoder(3)(x)[1], np.eye(8)[0])
    layer = QuantumFeatureExtractor(3, seed=0)
    _, d_x = layer.vjp(x, np.ones((5, 3)))
    assert not d_x[1].any()
    assert d_x[[0, 2, 3, 4]].any(axis=1).all()
    same_rows(layer, x)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: QuantumFeatureExtractor(0), SpecError, "n_qubits"),
        (lambda: QuantumFeatureExtractor(2.5), SpecError, "n_qubits"),
        (lambda: QuantumFeatureExtractor(60), MemoryLimitError, r"\d+ GiB, \d+ GiB available"),
        (lambda: QuantumPooling(5, 2), SpecError, "5"),
        (lambda: QuantumReadout(2, n_classes=5), SpecError, "4"),
        (lambda: QuantumFeatureExtractor(2, encoding="angel"), SpecError, "angle"),
        (lambda: QuantumFeatureExtractor(2, ansatz="hardware_eficient"), SpecError, "hardware_efficient"),
        (lambda: QuantumFeatureExtractor(2, entanglement="ful"), SpecError, "full"),
        (lambda: QuantumFeatureExtractor(2, measurement_bases="W"), SpecError, "Z"),
        (lambda: QuantumFeatureExtractor(2, gradient="parameter-shft"), SpecError, "parameter-shift"),
        (lambda: QuantumFeatureExtractor(2, init="small"), SpecError, "small_normal"),
        (lambda: QuantumFeatureExtractor(2, backend="statevectr"), UnknownBackendError, "statevector"),
        (lambda: QuantumFeatureExtractor(2, backend="statevector", shots=0), SpecError, "shots"),
        (lambda: QuantumLayer(Circuit(2), Pauli("ZZZ")), SpecError, "3"),
    ],
)
def test_wrong_arguments_are_named(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_theta_keeps_its_shape():
    layer = QuantumReadout(2, seed=0)
    before = layer(X[:, :4])
    with pytest.raises(ShapeError, match=r"theta has shape \(4,\), .*received \(3,\)"):
        layer.theta = np.zeros(3)
    with pytest.raises(ShapeError, match="cotangents"):
        layer.vjp(X[:, :4], np.ones((5, 3)))
    np.testing.assert_array_equal(layer(X[:, :4]), before)
    for wrong in (np.zeros(4, complex), ["a"] * 4, [None] * 4, np.ma.MaskedArray(np.zeros(4), mask=[True] * 4)):
        with pytest.raises(InputError, match="a theta"):
            layer.theta = wrong
    for wrong in (np.ones((5, 2), complex), np.full((5, 2), "a"), np.full((5, 2), None)):
        with pytest.raises(InputError, match="cotangents of dtype"):
            layer.vjp(X[:, :4], wrong)
    np.testing.assert_array_equal(layer(X[:, :4]), before)
    layer.theta = [0, 0, 0, 0]
    assert layer.theta.dtype == np.float64


# -- what else a layer can do -----------------------------------------------------------------------------------------


def test_calls_from_a_running_loop():
    layer = QuantumFeatureExtractor(3, seed=0)

    async def both():
        return layer(X), await layer.call_async(X), await asyncio.gather(*(layer.call_async(X) for _ in range(4)))

    inside, awaited, gathered = asyncio.run(both())
    for outputs in (inside, awaited, *gathered):
        np.testing.assert_array_equal(outputs, layer(X))


def test_one_line_says_what_was_picked_and_why():
    layer = QuantumFeatureExtractor(3, backend="statevector")
    assert layer.backend_name == "statevector"
    assert "\n" not in layer.explain()
    assert "statevector" in layer.explain()
    assert len(layer.draw().splitlines()) == 3


def test_presets_differ_and_can_be_overridden():
    layers = [QuantumFeatureExtractor.from_preset(name, n_qubits=3) for name in ("speed", "accuracy", "research")]
    assert len({layer.spec for layer in layers}) == 3
    assert QuantumFeatureExtractor.from_preset("speed", n_qubits=3, depth=7).spec.n_weights == 42
    sizes = {name: QuantumFeatureExtractor.from_preset(name, backend="statevector") for name in PRESETS}
    assert {name: (layer.spec.n_qubits, layer.output_dim, layer.spec.n_weights) for name, layer in sizes.items()} == {
        "speed": (6, 6, 12), "accuracy": (8, 8, 48), "research": (8, 24, 48),
    }  # fmt: skip
    with pytest.raises(TypeError, match="n_qubits"):
        QuantumPooling.from_preset("speed")
    with pytest.raises(SpecError, match="accuracy"):
        QuantumFeatureExtractor.from_preset("acuracy", n_qubits=3)


def test_pickled_layers_compute_the_same():
    layer = QuantumReadout(3, n_classes=4, seed=5)
    copy = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(copy(X), layer(X))
    assert copy.spec == layer.spec


def test_seeds_decide_theta():
    one, same, other = (QuantumReadout(3, seed=seed).theta for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
