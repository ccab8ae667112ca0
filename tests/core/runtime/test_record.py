"""`layer.last_run`: who really computed, and what is known about the outputs."""

from __future__ import annotations

import copy
import time

import numpy as np
import pytest

from qstore_core import (
    BackendError,
    FallbackWarning,
    QuantumEncoder,
    QuantumFeatureExtractor,
    RunReport,
    ShapeError,
    TransientError,
)
from tests.core.backends.test_jobs import MemoryBackend, failing, features, layer_on
from tests.core.testing.broken_backends import Over
from tests.support.faults import Fault, FaultyBackend


def test_nothing_has_run():
    assert QuantumFeatureExtractor(2, encoding="angle").last_run is None


def test_a_local_engine():
    layer = QuantumFeatureExtractor(2, encoding="angle", backend="statevector", seed=4)
    begin = time.time()
    layer(features(3))
    run = layer.last_run
    assert (run.backend, run.shots, run.seed, run.gradient, run.jobs, run.retries, run.fallback) == (
        ("statevector", None, 4, None, (), 0, None)
    )
    assert begin <= run.start <= run.start + run.seconds <= time.time() + 1e-3
    assert run.std_error is run.backward is None
    layer.vjp(features(3), np.ones((3, 2)))
    assert layer.last_run.backward.gradient == "vjp"
    assert layer.last_run.start > run.start
    assert layer.last_run.backward.start >= layer.last_run.start


@pytest.mark.parametrize("backend", ["statevector", "auto"])
@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
def test_every_path_is_noted(backend, encoding):
    layer = QuantumFeatureExtractor(2, encoding=encoding, backend=backend)
    for rows in (3, 0):
        layer(features(rows))
        assert layer.last_run.backend == layer.backend_name
        before = layer.last_run.start
        layer.vjp(features(rows), np.ones((rows, 2)))
        assert layer.last_run.start > before
        assert layer.last_run.backward.backend == layer.backend_name


def test_a_layer_without_a_circuit():
    layer = QuantumEncoder(2)
    layer(features(3))
    assert layer.last_run.backend == "none"


def test_jobs_and_retries():
    backend = MemoryBackend(failing(2, TransientError("busy")), max_batch=2)
    layer = layer_on(backend)
    layer(features(5))
    assert set(layer.last_run.jobs) == {"job-0", "job-1", "job-2"}
    assert layer.last_run.retries == 2
    layer.vjp(features(2), np.ones((2, 2)))
    back = layer.last_run.backward
    assert back.gradient == "parameter-shift"
    assert len(back.jobs) > 1
    assert layer.last_run.jobs == ("job-3",)


def test_standard_errors_keep_the_shape_of_the_outputs():
    backend = MemoryBackend(change=lambda outputs, number: (outputs, np.abs(outputs) / 10), max_batch=2)
    layer = layer_on(backend)
    x = features(6).reshape(3, 2, 2)
    outputs = layer(x)
    np.testing.assert_allclose(layer.last_run.std_error, np.abs(outputs) / 10)


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_a_fallback_says_who_computed_and_why(place):
    layer = QuantumFeatureExtractor(2, encoding="angle", backend=FaultyBackend("flaky", Fault("raises", place)))
    with pytest.warns(FallbackWarning):
        layer.vjp(features(2), np.ones((2, 2)))
    run, back = layer.last_run, layer.last_run.backward
    assert (run.backend, back.backend) == ("statevector" if place == "forward" else "flaky", "statevector")
    failed, fine = (run, back) if place == "forward" else (back, run)
    assert failed.fallback == "flaky: RuntimeError: the device reported an error"
    assert fine.fallback is None


def test_a_fallback_computes_exact_values_and_says_so():
    class Down(Over):
        def compile(self, *args, **kwargs):
            raise OSError("no route to host")

    layer = layer_on(Down("down", sample=lambda y, *_: y, exact=False), shots=100, fallback="statevector")
    with pytest.warns(FallbackWarning):
        layer(features(2))
    assert (layer.last_run.backend, layer.last_run.shots) == ("statevector", None)


class Reporting(Over):
    """Each executable reports what `report(outputs)` returns."""

    def __init__(self, report):
        super().__init__("reporting", vjp=False)
        self.report = report

    def compile(self, *args, **kwargs):
        executable = super().compile(*args, **kwargs)

        def value_and_report(theta, inputs):
            outputs = executable.forward(theta, inputs)
            return outputs, self.report(outputs)

        executable.value_and_report = value_and_report
        return executable


def test_a_local_backend_may_report():
    layer = layer_on(Reporting(lambda y: RunReport(jobs=("7",), std_error=y * 0 + 0.5)))
    layer(features(2))
    assert layer.last_run.jobs == ("7",)
    np.testing.assert_array_equal(layer.last_run.std_error, np.full((2, 2), 0.5))


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (lambda y: {"std_error": y}, "returned a dict, expected (outputs, RunReport)"),
        (lambda y: RunReport(std_error=y[0]), "standard errors of shape (2,) for outputs (2, 2)"),
    ],
)
def test_a_report_that_is_none_is_a_failure(report, words):
    layer = layer_on(Reporting(report), fallback="statevector")
    with pytest.warns(FallbackWarning):
        layer(features(2))
    assert words in layer.last_run.fallback


def test_a_call_that_raises_leaves_the_record_of_the_one_before():
    layer = QuantumFeatureExtractor(2, encoding="angle")
    layer(features(2))
    start = layer.last_run.start
    with pytest.raises(ShapeError):
        layer(np.zeros((1, 5)))
    assert layer.last_run.start == start


def test_a_copy_has_run_nothing():
    layer = QuantumFeatureExtractor(2, encoding="angle")
    layer(features(2))
    assert copy.deepcopy(layer).last_run is None


def test_in_torch():
    torch = pytest.importorskip("torch")
    import qstore_torch

    for backend in ("auto", "torch", "statevector"):
        layer = qstore_torch.QuantumReadout(2, encoding="angle", backend=backend)
        x = torch.rand(3, 2, requires_grad=True)
        with torch.no_grad():
            layer(x)
        assert layer.last_run.backend == layer.backend_name
        assert layer.last_run.backward is None
        before = layer.last_run.start
        layer(x).sum().backward()
        assert layer.last_run.start > before
    assert layer.last_run.backward.gradient == "vjp"
    layer = qstore_torch.QuantumReadout(2, backend="auto", encoding="angle")
    torch.func.vmap(layer)(torch.rand(4, 3, 2))
    assert layer.last_run.backend == "numba"  # rows that share theta go to the host together


def test_in_keras():
    tf = pytest.importorskip("tensorflow")
    import qstore_tf

    x = np.ones((3, 2), np.float32)
    for backend in ("tensorflow", "statevector"):
        layer = qstore_tf.QuantumReadout(2, encoding="angle", backend=backend)
        layer(x)
        assert layer.last_run.backend == backend
    with tf.GradientTape() as tape:
        y = layer(x)
    tape.gradient(y, layer.trainable_weights)
    assert layer.last_run.backward.gradient == "vjp"
    for backend, noted in (("tensorflow", False), ("statevector", True)):
        layer = qstore_tf.QuantumReadout(2, encoding="angle", backend=backend)
        layer.build((None, 2))
        tf.function(layer)(tf.constant(x))
        assert (layer.last_run is not None) == noted


def test_jobs_that_are_resumed_are_counted(tmp_path):
    backend = MemoryBackend(failing(1, ConnectionError("down"), "result"), retries=0, resume=str(tmp_path))
    layer, x = layer_on(backend), features(2)
    with pytest.raises(BackendError, match="down"):
        layer(x)
    layer(x)
    assert (layer.last_run.resumed, layer.last_run.jobs) == (1, ("job-0",))
