"""One layer, one theta, one answer: every backend of ours, exact and sampled, values and both gradients."""

from __future__ import annotations

import numpy as np
import pytest

import qstore_core
from qstore_core import Circuit, Pauli
from tests.support.tolerances import GRADIENT, SIGMAS, VALUE, allow

EXACT = (
    "numba",
    "density",
    "torch",
    "tensorflow",
    "aer",
    "pennylane:default.qubit",
    "pennylane:lightning.qubit",
    "dask",
)
SAMPLED = ("trajectories", "aer", "pennylane:default.qubit", "pennylane:lightning.qubit")
SHOTS = 4000
ROWS = 3


def own_circuit():
    """Amplitudes and angles, products, gates of one to three qubits."""
    c = Circuit(3, amplitudes=True)
    x, w = c.inputs(2), c.weights(4)
    c.ry(w[0] * x[0], 0), c.crz(w[1], 0, 1), c.u3(w[2], x[1], w[3], 2), c.iswap(1, 2), c.ccx(0, 2, 1), c.ch(2, 0)
    return c


SUMS = (Pauli("ZXI") - 0.5 * Pauli("IIY"), Pauli("YYY") + 2.0 * Pauli("III"))
LAYERS = {
    "amplitude": lambda **b: qstore_core.QuantumFeatureExtractor(3, **b),
    "padded": lambda **b: qstore_core.QuantumFeatureExtractor(3, depth=1, entanglement="linear", **b),
    "angle": lambda **b: qstore_core.QuantumFeatureExtractor(3, encoding="angle", **b),
    "re-uploading": lambda **b: qstore_core.QuantumFeatureExtractor(2, 3, encoding="angle", reuploading=True, **b),
    "ZZ map": lambda **b: qstore_core.QuantumFeatureExtractor(3, 1, encoding="zz", ansatz="real_amplitudes", **b),
    "three bases": lambda **b: qstore_core.QuantumFeatureExtractor(3, measurement_bases=("Z", "X", "Y"), **b),
    "pooling": lambda **b: qstore_core.QuantumPooling(4, encoding="angle", **b),
    "probabilities": lambda **b: qstore_core.QuantumReadout(3, 3, encoding="angle", **b),
    "amplitude probabilities": lambda **b: qstore_core.QuantumReadout(3, 8, **b),
    "own circuit": lambda **b: qstore_core.QuantumLayer(own_circuit(), SUMS, **b),
}


OURS = {info.name for info in qstore_core.list_backends() if info.distribution == "qstore"}


def require(backend):
    """Skip where the plugin, or the library that it drives, is not installed."""
    if backend.partition(":")[0] not in OURS:
        pytest.skip(f"no plugin {backend!r}")
    try:
        qstore_core.get_backend(backend)
    except qstore_core.BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def cluster():
    """A client of two worker processes."""
    distributed = pytest.importorskip("distributed")
    options = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    with (
        distributed.LocalCluster(n_workers=2, processes=True, threads_per_worker=1, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def exact(request):
    """The backend that a parameter names: by its name where that is enough."""
    if request.param == "dask":
        return qstore_core.get_backend("dask", client=request.getfixturevalue("cluster"), backend="aer")
    require(request.param)
    return request.param


def problem(name, **options):
    """A layer on `options`, the same on `statevector`, features and cotangents."""
    layer = LAYERS[name](fallback=None, seed=0, **options)
    reference = LAYERS[name](backend="statevector", seed=0)
    assert reference.spec == layer.spec
    rng = np.random.default_rng(7)
    layer.theta = reference.theta = rng.uniform(-np.pi, np.pi, layer.spec.n_weights)
    x = rng.normal(size=(ROWS, 5 if name == "padded" else layer.spec.n_features))
    return layer, reference, x, rng.normal(size=(ROWS, layer.output_dim))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("exact", EXACT, indirect=True)
def test_exact_values_and_gradients(exact, name):
    layer, reference, x, cotangents = problem(name, backend=exact)
    assert layer.backend_name == getattr(exact, "name", exact)
    expected = reference(x)
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=allow(expected, VALUE["float64"]))
    for found, wanted in zip(layer.vjp(x, cotangents), reference.vjp(x, cotangents), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=allow(wanted, GRADIENT["float64"]))


@pytest.mark.parametrize("exact", EXACT, indirect=True)
def test_float32(exact):
    layer, reference, x, cotangents = problem("angle", backend=exact)
    layer.theta, x32 = layer.theta.astype(np.float32), x.astype(np.float32)
    outputs = layer(x32)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, reference(x), rtol=0, atol=VALUE["float32"])
    gradients = layer.vjp(x32, cotangents.astype(np.float32))
    for found, wanted in zip(gradients, reference.vjp(x, cotangents), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=allow(wanted, GRADIENT["float32"]))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("backend", SAMPLED)
def test_sampled_values(backend, name):
    require(backend)
    layer, reference, x, _ = problem(name, backend=backend, shots=SHOTS)
    # A mean of SHOTS runs, its values at most `largest` from 0, has a standard error of at most largest / √SHOTS.
    largest = 2.5 if name == "own circuit" else 1.0
    np.testing.assert_allclose(layer(x), reference(x), rtol=0, atol=SIGMAS * largest / np.sqrt(SHOTS))


def test_no_backend_of_ours_is_left_out():
    elsewhere = {"statevector", "jax", "triton"}  # the reference; tests/jax; tests/torch/triton
    assert OURS - elsewhere == {name.partition(":")[0] for name in (*EXACT, *SAMPLED)}
