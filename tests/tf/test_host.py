"""The host bridge in TensorFlow: fallback, graphs, data sets, threads, event loops."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

import qstore_tf
from qstore_core import BackendError, Capabilities, FallbackWarning, InputError, fallback_counts, profile
from qstore_tf import QuantumFeatureExtractor, QuantumPooling, QuantumReadout
from tests.support.faults import Fault, FaultyBackend, OtherEngine
from tests.support.strategies import batches, faults, layer_arguments

KINDS = ("QuantumFeatureExtractor", "QuantumPooling", "QuantumReadout", "QuantumLayer")


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, shape).astype("float32")


def value_and_gradients(layer, x):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        if layer.spec.encoding.differentiable:
            tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(tf.square(y))
    sources = [*layer.trainable_variables, *([x] if layer.spec.encoding.differentiable else [])]
    return [y, *tape.gradient(loss, sources)]


def same(actual, expected, atol=1e-6):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=atol)


# -- fallback ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(drawn=layer_arguments(kinds=KINDS), batch=batches(min_rows=1), fault=faults())
def test_fallback_keeps_value_and_gradients(drawn, batch, fault):
    kind, arguments = drawn
    make = getattr(qstore_tf, kind)
    expected = make(**arguments, backend="statevector", seed=0, dtype=batch.dtype)
    layer = make(**arguments, backend=FaultyBackend("flaky", fault), seed=0, dtype=batch.dtype)
    x = batch.features(layer.spec)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            same(value_and_gradients(layer, x), value_and_gradients(expected, x))
    said = [w for w in caught if issubclass(w.category, FallbackWarning)]
    assert len(said) == (1 if layer.fallbacks else 0)
    if fault.place != "backward" or layer.spec.n_weights:
        assert {(e.failed, e.used, e.cause) for e in layer.fallbacks} == {("flaky", "statevector", fault.cause)}


@pytest.mark.parametrize("place", ["compile", "forward", "backward"])
def test_fallback_in_fit(place, register, zero_fallback_counts):
    register("flaky", FaultyBackend("flaky", Fault("loses connection", place)))
    x, y = uniform(8, 4), uniform(8, 2, seed=1)
    losses = []
    for backend in ("statevector", "flaky"):
        layer = QuantumReadout(2, backend=backend, seed=0, name="head")
        model = keras.Sequential([keras.Input((4,)), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            losses.append(model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0).history["loss"])
    said = [str(w.message) for w in caught if issubclass(w.category, FallbackWarning)]
    assert len(said) == 1
    assert "layer 'head': backend 'flaky' failed (ConnectionResetError" in said[0]
    assert sum(layer.fallbacks.values()) == sum(fallback_counts().values()) >= 6  # every step, counted
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_without_fallback_the_error_is_raised(register):
    register("flaky", FaultyBackend("flaky", Fault("raises", "backward")))
    layer = QuantumReadout(2, backend="flaky", fallback=None)
    with tf.GradientTape() as tape:
        y = layer(uniform(3, 4))
    with pytest.raises(BackendError, match="the device reported an error") as caught:
        tape.gradient(y, layer.theta.value)
    assert isinstance(caught.value.__cause__, RuntimeError)
    register("broken", FaultyBackend("broken", Fault("raises", "forward")))
    graph = tf.function(QuantumReadout(2, backend="broken", fallback=None, name="head"))
    with pytest.raises(tf.errors.OpError, match="BackendError: backend 'broken' failed in layer 'head'"):
        graph(uniform(3, 4))


def test_the_callers_mistake_takes_no_fallback():
    backend = FaultyBackend("flaky", None)
    layer = QuantumReadout(2, backend=backend)
    with pytest.raises(InputError):
        layer(np.full((1, 4), np.nan))
    assert not layer.fallbacks
    assert backend.calls["forward"] == 0


# -- graphs -----------------------------------------------------------------------------------------------------------


class ReadOnly:
    """Hands out read-only, Fortran-ordered, float64 arrays, as wrappers of other libraries do."""

    name, capabilities = "readonly", Capabilities(vjp=True)

    def compile(self, circuit, measurement, **options):
        class Executable:
            def forward(self, theta, inputs):
                return ReadOnly.spoil(np.ones((len(inputs), measurement.n_outputs(circuit.n_qubits))))

            def vjp(self, theta, inputs, cotangents):
                return ReadOnly.spoil(np.full(theta.shape, 2.0)), ReadOnly.spoil(np.full(inputs.shape, 3.0))

        return Executable()

    @staticmethod
    def spoil(array):
        array = np.asfortranarray(array)
        array.setflags(write=False)
        return array


@pytest.mark.parametrize("how", ["eager", "graph"])
def test_arrays_of_any_layout_and_precision(how):
    layer = QuantumFeatureExtractor(2, encoding="angle", backend=ReadOnly(), fallback=None)
    x = tf.constant(uniform(3, 2))
    layer(x)

    run = tf.function(value_and_gradients) if how == "graph" else value_and_gradients
    y, d_theta, d_x = run(layer, x)
    assert y.dtype == d_theta.dtype == d_x.dtype == "float32"
    same([y, d_theta, d_x], [np.ones((3, 2)), np.full(8, 2), np.full((3, 2), 3)])


def test_host_layers_do_not_support_jit():
    assert QuantumReadout(2, backend="tensorflow").supports_jit
    assert QuantumReadout(2).supports_jit  # TensorFlow operations take its place
    assert not QuantumReadout(
        2, gradient="parameter-shift"
    ).supports_jit  # no engine differentiates like that in a graph
    host = QuantumReadout(2, backend=FaultyBackend("host", None))
    assert not host.supports_jit
    model = keras.Sequential([keras.Input((4,)), host])
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)
    model.fit(uniform(4, 4), uniform(4, 2), verbose=0)  # Keras goes on without


def test_the_static_shape_is_known():
    layer = QuantumPooling(4, backend="statevector")
    shape = tf.function(layer, input_signature=[tf.TensorSpec((None, 16))]).get_concrete_function().output_shapes
    assert tuple(shape) == (None, 2)


@pytest.mark.parametrize("backend", ["tensorflow", "statevector", "auto"])
def test_in_a_data_set_with_threads(backend):
    layer = QuantumReadout(2, n_classes=3, backend=backend, seed=0)
    x = uniform(24, 4)
    data = tf.data.Dataset.from_tensor_slices(x).batch(3, drop_remainder=True)
    data = data.map(layer, num_parallel_calls=4).prefetch(2)
    assert tuple(data.element_spec.shape) == (3, 3)
    np.testing.assert_allclose(np.concatenate(list(data)), layer(x), atol=1e-6)


def test_host_work_is_timed_under_kerass_name():
    layer = QuantumReadout(2, backend="statevector", name="head")
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile("sgd", "mse")
    with profile() as times:
        model.fit(uniform(8, 4), uniform(8, 2), batch_size=4, verbose=0)
    assert times.calls("head", "backward") == 2
    assert times.calls("head", "forward") >= 2


# -- threads and loops ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["tensorflow", "statevector", "auto"])
def test_call_async_inside_a_running_loop(backend):
    layer = QuantumFeatureExtractor(3, backend=backend, seed=0)
    x = uniform(4, 8)
    layer.build(x.shape)

    async def main():
        return await asyncio.gather(*(layer.call_async(x * k) for k in (1, 2, 3)))

    for y in asyncio.run(main()):
        np.testing.assert_allclose(y, layer(x), atol=1e-6)  # amplitudes do not see the scale


def test_call_async_raises_what_a_call_raises():
    layer = QuantumFeatureExtractor(2)
    with pytest.raises(InputError, match="row 1"):
        asyncio.run(layer.call_async(np.array([[1.0, 2], [np.nan, 0]])))


@pytest.mark.parametrize("backend", ["tensorflow", "statevector", "auto"])
def test_many_threads_share_a_layer(backend, empty_cache):
    layer = QuantumFeatureExtractor(3, backend=backend, seed=0)
    layer.build((None, 8))
    xs = [uniform(2, 8, seed=k) for k in range(16)]
    start = threading.Barrier(4)

    def work(part):
        start.wait()  # all ask for the circuit at once
        return [value_and_gradients(layer, x) for x in part]

    with ThreadPoolExecutor(4) as pool:
        results = [one for part in pool.map(work, [xs[k::4] for k in range(4)]) for one in part]
    for actual, x in zip(results, [x for k in range(4) for x in xs[k::4]], strict=True):
        same(actual, value_and_gradients(layer, x))


@pytest.mark.parametrize("fault", [None, RuntimeError("out of memory")])
def test_an_engine_of_somebody_else_and_where_it_fails_the_host(fault):
    """On tensors as ours; eagerly the default fallback takes its place, and says so."""
    backend = OtherEngine("tensorflow")
    layer, ours = (QuantumReadout(2, encoding="angle", backend=b, seed=0, dtype="float64") for b in (backend, "auto"))
    x = tf.constant([[0.3, 0.4], [0.1, 0.9]], tf.float64)
    backend.fault = fault

    def gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.square(layer(x))
        return [y, *tape.gradient(y, [layer.theta.value, x])]

    with contextlib.nullcontext() if fault is None else pytest.warns(FallbackWarning, match="out of memory"):
        found = gradients(layer)
    for one, other in zip(found, gradients(ours), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    assert layer.last_run.backend == ("other-tensorflow" if fault is None else "statevector")
    assert sum(layer.fallbacks.values()) == (fault is not None)
