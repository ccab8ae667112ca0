"""Shapes, dtypes, arguments and seeds of the Keras layers."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

import qstore_tf
from qstore_core import Circuit, InputError, MemoryLimitError, Pauli, ShapeError, SpecError, UnknownBackendError
from qstore_tf import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
from tests.support.strategies import batches, layer_arguments

BACKENDS = ("tensorflow", "statevector", "auto")
# One of each kind, for what hypothesis would be too slow for: (name, arguments, features).
EACH_KIND = [
    ("QuantumEncoder", {"n_qubits": 3}, 6),
    ("QuantumFeatureExtractor", {"n_qubits": 3, "measurement_bases": ("Z", "X")}, 8),
    ("QuantumPooling", {"n_qubits": 4, "encoding": "angle"}, 4),
    ("QuantumReadout", {"n_qubits": 3, "n_classes": 5}, 7),
    ("QuantumReadout", {"n_qubits": 2, "encoding": "zz", "reuploading": True, "depth": 2}, 2),
]


def build(kind, arguments, **more):
    if kind == "QuantumEncoder":
        more.pop("backend", None), more.pop("seed", None)
    return getattr(qstore_tf, kind)(**arguments, **more)


def each_kind(**more):
    return [(build(kind, arguments, **more), features) for kind, arguments, features in EACH_KIND]


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, shape).astype("float32")


def close(actual, expected, atol=2e-6):
    np.testing.assert_allclose(np.asarray(actual, "float64"), np.asarray(expected, "float64"), rtol=0, atol=atol)


# -- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["tensorflow", "statevector"])
@settings(max_examples=30)
@given(drawn=layer_arguments(), batch=batches())
def test_the_promised_shape_is_the_actual_one(backend, drawn, batch):
    layer = build(*drawn, backend=backend, dtype=batch.dtype)
    x = batch.features(layer.spec)
    outputs = layer(x)
    assert tuple(outputs.shape) == layer.compute_output_shape(x.shape) == (*batch.lead, layer.output_dim)
    assert outputs.dtype == batch.dtype
    assert np.isfinite(outputs).all()


@settings(max_examples=30)
@given(drawn=layer_arguments(), batch=batches())
def test_symbolic_shapes(drawn, batch):
    layer = build(*drawn)
    features = batch.features(layer.spec).shape[-1]
    unknown = keras.Input((*batch.lead[1:], features))
    assert layer(unknown).shape == (None, *batch.lead[1:], layer.output_dim)
    assert layer.compute_output_shape((None, None, features)) == (None, None, layer.output_dim)


@pytest.mark.parametrize("backend", BACKENDS)
def test_static_shapes_in_a_graph(backend):
    for layer, features in each_kind(backend=backend):
        run = tf.function(
            lambda x, layer=layer: layer(x, training=True), input_signature=[tf.TensorSpec((None, 3, features))]
        )
        for rows in (0, 1, 4):
            assert run(tf.constant(uniform(rows, 3, features))).shape == (rows, 3, layer.output_dim)
        assert tuple(run.get_concrete_function().output_shapes) == (None, 3, layer.output_dim)


def test_theta_is_the_only_weight_and_has_the_promised_size():
    layer = QuantumFeatureExtractor(3, depth=2)
    with pytest.raises(AttributeError, match="no theta yet"):
        layer.theta  # noqa: B018
    layer.build((None, 8))
    assert [w.name for w in layer.weights] == [w.name for w in layer.trainable_weights] == ["theta"]
    assert layer.theta.shape == (layer.spec.n_weights,) == (12,)
    layer.trainable = False
    assert layer.trainable_weights == []


def test_the_theta_of_a_layer_without_weights_behaves_as_a_weight():
    for layer in (QuantumEncoder(2), QuantumPooling(2, depth=0, mode="partial_trace")):
        x = tf.constant(uniform(3, 4))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        assert layer.trainable_weights == []
        assert [w.path for w in layer.weights] == [layer.theta.path]
        assert (layer.theta.shape, layer.theta.name, layer.theta.dtype) == ((0,), "theta", "float32")
        layer.theta.assign(np.zeros(0))
        layer.set_weights(layer.get_weights())
        assert tape.gradient(y, x).shape == x.shape


def test_layers_compose_in_functional_and_sequential_models():
    layers = [
        keras.layers.Dense(8), QuantumFeatureExtractor(3), QuantumPooling(3, 3, encoding="angle"),
        keras.layers.Dense(2), QuantumEncoder(1), QuantumReadout(1, n_classes=2),
    ]  # fmt: skip
    inputs = keras.Input((5,))
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    functional = keras.Model(inputs, outputs)
    sequential = keras.Sequential([keras.Input((5,)), *layers])
    assert functional.output_shape == sequential.output_shape == (None, 2)
    x = uniform(7, 5)
    close(functional(x), sequential(x))
    close(functional.predict(x, verbose=0).sum(axis=1), np.ones(7))
    # The layers' parameters are counted where summaries count them.
    assert sequential.count_params() == sum(layer.count_params() for layer in layers)


def test_a_circuit_without_inputs_takes_batches_without_features():
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0], 0)
    layer = QuantumLayer(circuit, Pauli("Z"), init=lambda rng, size: np.full(size, 0.3), backend="tensorflow")
    close(layer(tf.zeros((4, 0))), np.full((4, 1), math.cos(0.3)))


# -- dtypes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16", "float32", "float64"])
def test_the_output_has_the_dtype_of_the_policy(backend, policy):
    for (layer, features), (wide, _) in zip(
        each_kind(backend=backend, seed=0, dtype=policy),
        each_kind(backend="tensorflow", seed=0, dtype="float64"),
        strict=True,
    ):
        compute = layer.compute_dtype
        x = tf.cast(uniform(3, features), compute)
        for given_ in (x, tf.cast(x, "float64"), tf.cast(x, "float32")):
            assert layer(given_).dtype == compute
        if layer.weights:
            assert layer.theta.dtype == layer.variable_dtype
            wide.build(x.shape)
            wide.theta.assign(tf.cast(layer.theta, "float64"))
        eps = {"float16": 2**-10, "bfloat16": 2**-7}.get(compute, 2e-6)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        close(tf.cast(y, "float64"), wide(tf.cast(x, "float64")), eps)
        gradient = tape.gradient(y, x)
        assert gradient.dtype == compute
        assert np.isfinite(tf.cast(gradient, "float32")).all()


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_a_dtype_that_is_no_floating_point_one_is_named(dtype):
    with pytest.raises(SpecError, match=f"dtype is a policy of floating-point numbers, received '{dtype}'"):
        QuantumReadout(2, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("policy", ["mixed_float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_whole_numbers_are_taken_as_numbers(backend, policy, dtype):
    layer = QuantumReadout(2, n_classes=3, encoding="basis", backend=backend, seed=0, dtype=policy)
    bits = tf.cast([[0, 1], [1, 1]], dtype)
    outputs = layer(bits)
    assert outputs.dtype == layer.compute_dtype == layer(keras.Input((2,), dtype=dtype)).dtype
    close(outputs, layer(tf.cast(bits, "float64")), 0)


def test_mixed_precision_in_a_model():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), QuantumFeatureExtractor(3, seed=0)])
    finally:
        keras.config.set_dtype_policy("float32")
    x = uniform(5, 4)
    y = model(x)
    assert y.dtype == "float16"
    assert model.layers[1].theta.dtype == "float32"
    features = tf.cast(model.layers[0](x), "float32")
    plain = QuantumFeatureExtractor(3, seed=0)
    close(y, plain(features), 2**-10)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    before = model.layers[1].theta.numpy()
    model.fit(x, np.ones((5, 3), "float32"), epochs=2, verbose=0)
    assert (model.layers[1].theta.numpy() != before).any()


# -- theta ------------------------------------------------------------------------------------------------------------


def test_set_random_seed_decides_theta_where_seed_is_none():
    def draw():
        keras.utils.set_random_seed(7)
        layers = [QuantumFeatureExtractor(3) for _ in range(2)]
        for layer in layers:
            layer.build((None, 8))
        return [layer.theta.numpy() for layer in layers]

    first, second = draw(), draw()
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).all()


def test_a_seed_of_its_own_wins():
    thetas = []
    for seed in (5, 5, 6):
        layer = QuantumReadout(3, seed=seed)
        layer(uniform(1, 8))
        thetas.append(layer.theta.numpy())
    np.testing.assert_array_equal(thetas[0], thetas[1])
    assert (thetas[0] != thetas[2]).all()


def test_presets_and_names():
    layer = QuantumFeatureExtractor.from_preset("research", 4, name="features")
    assert (layer.output_dim, layer.name) == (12, "features")
    with pytest.raises(InputError, match=r"^features: row 0"):
        layer(np.full((1, 16), np.nan))
    assert "quantum_readout" in QuantumReadout(2).explain()


# -- bad input --------------------------------------------------------------------------------------------------------


def usable(layer, features):
    outputs = layer(uniform(2, features))
    return outputs.shape == (2, layer.output_dim) and bool(np.isfinite(outputs).all())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_names_its_row(backend, value):
    for layer, features in each_kind(backend=backend):
        bad = uniform(4, features)
        bad[2, 1] = bad[3] = value
        for training in (False, True):
            with pytest.raises(InputError, match=r"row 2 has .* in feature 1") as caught:
                layer(bad, training=training)
            assert (caught.value.row, caught.value.column) == (2, 1)
        assert usable(layer, features)


GRAPHS = {"graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}


@pytest.mark.parametrize(
    ("backend", "how"), [*((backend, "graph") for backend in BACKENDS), ("tensorflow", "xla"), ("auto", "xla")]
)
@pytest.mark.parametrize("training", [None, False, True])
def test_in_a_graph_what_eager_calls_refuse_is_nan(backend, how, training):
    """`fit` must go on to the callbacks, of which TerminateOnNaN is one."""

    def outputs_and_gradients(layer, x):
        with tf.GradientTape() as tape:
            if layer.spec.encoding.differentiable:
                tape.watch(x)
            y = layer(x, training=training)
        return (y, *tape.gradient(y, [layer.theta.value, x]))

    bad = uniform(4, 8)
    bad[2, 1] = np.nan
    bits = np.array([[0, 1, 1], [0, 0.5, 1], [np.nan, 0, 1], [1e30, 0, 1], [1, 1, 0]], "float32")
    logarithm = Circuit(1)
    logarithm.ry(logarithm.inputs(1)[0].log() * logarithm.weights(1)[0], 0)
    for layer, rows, wrong in [
        (QuantumFeatureExtractor(3, backend=backend, seed=0), bad, [2]),
        (QuantumFeatureExtractor(3, encoding="zz", backend=backend, seed=0), bad[:, :3], [2]),
        (QuantumReadout(3, encoding="basis", backend=backend, seed=0), bits, [1, 2, 3]),
        (QuantumLayer(logarithm, Pauli("Z"), backend=backend, seed=0), np.array([[0.5], [-1], [2]], "float32"), [1]),
    ]:
        layer.build(rows.shape)
        good = np.delete(rows, wrong, axis=0)
        run = GRAPHS[how](lambda x, layer=layer: outputs_and_gradients(layer, x))
        y, d_theta, d_x = run(tf.constant(rows))
        assert np.isnan(y.numpy()[wrong]).all()
        assert np.isnan(d_theta).any()
        expected, _, expected_d_x = run(tf.constant(good))
        close(np.delete(y, wrong, axis=0), expected)
        if d_x is not None:
            close(np.delete(d_x, wrong, axis=0), expected_d_x)
        layer.theta.assign(np.where(np.arange(layer.spec.n_weights) == 0, np.nan, 0.1))
        assert np.isnan(run(tf.constant(good))[0]).all()


def test_terminate_on_nan_can_act():
    for backend in BACKENDS:
        x = uniform(8, 4)
        x[5] = np.inf
        model = keras.Sequential([keras.Input((4,)), QuantumReadout(2, backend=backend)])
        model.compile("sgd", "mse")
        model.fit(x, uniform(8, 2), batch_size=4, epochs=3, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()])
        assert model.stop_training


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["eager", "graph", "symbolic"])
def test_wrong_shapes_say_what_to_do(backend, how):
    def call(layer, shape):
        if how == "symbolic" and len(shape) > 1:  # others cannot be written down
            return layer(keras.Input(shape[1:]))
        return (tf.function(layer) if how == "graph" else layer)(tf.zeros(shape))

    fitted = QuantumFeatureExtractor(3, backend=backend)
    fitted(uniform(2, 8))
    for layer in (QuantumFeatureExtractor(3, backend=backend), fitted):
        for shape, advice in [
            ((4, 9), "n_qubits=4"), ((4, 300), "Dense/Linear layer to 8"), ((4, 0), "at least one feature"),
            ((8,), r"x\[None, :\]"), ((), "scalar"),
        ]:  # fmt: skip
            with pytest.raises(ShapeError, match=advice):
                call(layer, shape)
        assert usable(layer, 8)
    angles = QuantumFeatureExtractor(3, encoding="angle", backend=backend)
    for features in (2, 4):
        with pytest.raises(ShapeError, match="takes 3 features"):
            call(angles, (4, features))
    assert usable(angles, 3)


def test_features_of_unknown_size_are_refused():
    for layer in (QuantumFeatureExtractor(3), QuantumFeatureExtractor(3, encoding="angle")):
        with pytest.raises(ShapeError, match="last axis is known"):
            layer(keras.Input((None,)))
        layer.build((None, layer.spec.n_features))
        unknown = tf.function(layer, input_signature=[tf.TensorSpec((None, None))])
        with pytest.raises(ShapeError, match=r"x.set_shape\(\(None, \d\)\)"):
            unknown(uniform(2, layer.spec.n_features))


def test_wrong_kinds_of_input():
    layer = QuantumFeatureExtractor(2)
    for bad in (tf.zeros((2, 4), tf.complex64), tf.constant([["a", "b", "c", "d"]])):
        with pytest.raises(InputError, match=f"real numbers, received dtype {bad.dtype.name}"):
            layer(bad)
    assert usable(layer, 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_basis_encoding_takes_bits_only(backend):
    layer = QuantumReadout(2, encoding="basis", backend=backend)
    with pytest.raises(InputError, match=r"row 1 has 0.5 in feature 0"):
        layer(np.array([[0.0, 1.0], [0.5, 1.0]]))
    assert layer(np.array([[0, 1], [1, 1]])).shape == (2, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_rows_and_empty_batches_are_fine(backend):
    for layer, features in each_kind(backend=backend, seed=0):
        x = uniform(3, features)
        x[1] = 0
        for rows in (x, x[:0]):
            rows = tf.constant(rows)
            with tf.GradientTape() as tape:
                tape.watch(rows)
                y = layer(rows, training=True)
                loss = tf.square(y)
            gradient = tape.gradient(loss, rows)
            assert y.shape == (len(rows), layer.output_dim)
            assert np.isfinite(y).all()
            assert np.isfinite(gradient).all()
            if layer.spec.encoding.is_amplitude and len(rows):
                assert not gradient[1].numpy().any()
                close(y[1], layer(np.eye(1, features, dtype="float32"))[0])


def test_wrong_arguments():
    for make, error, message in [
        (lambda: QuantumFeatureExtractor(0), SpecError, "at least 1"),
        (lambda: QuantumFeatureExtractor(60), MemoryLimitError, "GiB"),
        (lambda: QuantumFeatureExtractor(3, encoding="amplitud"), SpecError, "Did you mean 'amplitude'"),
        (lambda: QuantumFeatureExtractor(3, measurement_bases="W"), SpecError, "measurement_bases"),
        (lambda: QuantumFeatureExtractor(3, backend="tensorflo"), UnknownBackendError, "Did you mean 'tensorflow'"),
        (lambda: QuantumFeatureExtractor(3, init="zero"), SpecError, "Did you mean 'zeros'"),
        (lambda: QuantumPooling(5, 2), SpecError, "must divide"),
        (lambda: QuantumReadout(2, n_classes=5), SpecError, "at least 3 qubits"),
    ]:
        with pytest.raises(error, match=message):
            make()


@pytest.mark.filterwarnings("error")
def test_our_operations_are_silent(caplog):
    for layer, features in each_kind(backend="tensorflow"):
        x = tf.constant(uniform(3, features))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        tape.gradient(y, x)
    assert [r for r in caplog.records if r.name.startswith("tensorflow")] == []  # such as casts from complex to real
