"""How a layer is computed: QSTORE_FALLBACK, and the gradient methods of layers."""

from __future__ import annotations

import numpy as np
import pytest

from qstore_core import (
    Circuit,
    Expectation,
    FallbackWarning,
    GradientError,
    QuantumFeatureExtractor,
    QuantumLayer,
    SpecError,
    UnknownBackendError,
)
from qstore_core.runtime.execution import Execution
from tests.core.testing.broken_backends import Over
from tests.support.tolerances import DIFFERENCE_STEP, EXACT_GRADIENT, FINITE_DIFFERENCE


def down(name="down"):
    def fail(outputs):
        raise OSError("no route to host")

    return Over(name, outputs=fail, vjp=False)


def layer_on(backend, **options):
    return QuantumFeatureExtractor(2, depth=1, encoding="angle", backend=backend, seed=0, **options)


CHAINS = {
    None: ["statevector"],
    "auto": ["statevector"],
    "": ["statevector"],
    "none": [],
    "b, statevector": ["b", "statevector"],
}


@pytest.mark.parametrize(("value", "chain"), CHAINS.items())
def test_the_environment_names_the_default_chain(monkeypatch, register, value, chain):
    register("b", Over("b"))
    if value is None:
        monkeypatch.delenv("QSTORE_FALLBACK", raising=False)
    else:
        monkeypatch.setenv("QSTORE_FALLBACK", value)
    layer = layer_on(down())
    assert [backend.name for backend in layer._program.backends] == ["down", *chain]
    assert [backend.name for backend in layer_on("statevector")._program.backends] == ["statevector"]
    assert len(layer_on(down(), fallback=None)._program.backends) == 1  # a layer's own word counts more
    assert [b.name for b in layer_on(Over("b"))._program.backends] == ["b", *(n for n in chain if n != "b")]


def test_it_computes(monkeypatch, register):
    register("b", Over("b"))
    monkeypatch.setenv("QSTORE_FALLBACK", "b")
    layer = layer_on(down())
    with pytest.warns(FallbackWarning, match="'b' computes"):
        layer(np.ones((1, 2)))
    assert layer.last_run.backend == "b"


def test_what_it_names_must_be_there(monkeypatch):
    monkeypatch.setenv("QSTORE_FALLBACK", "statevectr")
    with pytest.raises(UnknownBackendError, match=r"QSTORE_FALLBACK: .*Did you mean 'statevector'"):
        layer_on(down())
    for value in ("a,,b", "none,statevector", "auto,b", ","):
        monkeypatch.setenv("QSTORE_FALLBACK", value)
        with pytest.raises(SpecError, match="QSTORE_FALLBACK is 'none', 'auto', or names"):
            layer_on(down())


def test_gradient_methods_by_name():
    assert Execution(gradient="finite_difference").gradient == "finite-difference"
    with pytest.raises(SpecError, match="Did you mean 'spsa'"):
        Execution(gradient="spas")


@pytest.mark.parametrize("backend", [Over("plain", vjp=False), "statevector"])
def test_methods_agree_and_say_who_they_are(backend):
    x, cotangents = np.array([[0.3, 1.0], [0.2, -0.4]]), np.array([[1.0, 2.0], [-1.0, 0.5]])
    expected = layer_on("statevector").vjp(x, cotangents)
    for method, tolerance in (("parameter-shift", EXACT_GRADIENT), ("finite-difference", FINITE_DIFFERENCE)):
        layer = layer_on(backend, gradient=method)
        for a, b in zip(layer.vjp(x, cotangents), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
        assert layer.last_run.backward.gradient == method
    one, again = (layer_on(backend, gradient="spsa") for _ in range(2))
    np.testing.assert_array_equal(one.vjp(x, cotangents)[0], again.vjp(x, cotangents)[0])  # from the seed
    assert one.last_run.backward.gradient == "spsa"


def test_amplitudes_on_a_backend_without_a_vjp():
    options = {"depth": 1, "seed": 0}
    backend = Over("plain", vjp=False)
    x, cotangents = np.array([[0.3, 1.0, 0.5]]), np.array([[1.0, 2.0]])
    with pytest.raises(GradientError, match=r'gradient="finite-difference" or "spsa"'):
        QuantumFeatureExtractor(2, backend=backend, **options).vjp(x, cotangents)
    layer = QuantumFeatureExtractor(2, backend=backend, gradient="finite-difference", **options)
    expected = QuantumFeatureExtractor(2, backend="statevector", **options).vjp(x, cotangents)
    for a, b in zip(layer.vjp(x, cotangents), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=4 * FINITE_DIFFERENCE)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_finite_differences_are_as_exact_as_the_dtype_allows(dtype):
    """cos(3 x) has a third derivative of 27: a step of 1e-3 cost 5e-6 of the gradient."""
    circuit = Circuit(1)
    circuit.ry(3 * circuit.inputs(1)[0], 0)
    layer = QuantumLayer(circuit, Expectation("Z"), backend="statevector", gradient="finite-difference")
    x = np.linspace(-1, 1, 9, dtype=dtype)[:, None]
    _, slopes = layer.vjp(x, np.ones((9, 1), dtype))
    exact = -3 * np.sin(3 * x.astype(np.float64))
    np.testing.assert_allclose(slopes, exact, rtol=0, atol=DIFFERENCE_STEP[dtype])
