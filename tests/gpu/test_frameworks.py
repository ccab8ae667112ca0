"""JAX and Keras on a GPU: values, gradients and training as of the NumPy layers, and no call goes to the host."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

import qstore_core
from tests.support.keras_worker import CASES, DTYPES, STEPS, data, make, targets
from tests.support.tolerances import FRAMEWORK, FRAMEWORK_GRADIENT

from .conftest import DEVICE

pytestmark = pytest.mark.gpu

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others test beside it

_KERAS = """
import sys
import numpy as np
import keras
if keras.config.backend() == "jax":
    import jax
    jax.config.update("jax_enable_x64", True)
import qstore_tf
from tests.support.keras_worker import CASES, computed_and_trained
found = {}
for case in CASES:
    layer = computed_and_trained(keras, qstore_tf, case, found)
    found[f"{case} device"] = str(layer.theta.value.device)
np.savez(sys.argv[1], **found)
"""


def numpy_results(case):
    theta, x, cotangents = data(case)
    layer = make(qstore_core, case)
    layer.theta = theta
    return layer(x), *layer.vjp(x, cotangents)


def agree(case, dtype, found):
    for what, a, e in zip(("y", "theta", "x"), found, numpy_results(case), strict=True):
        tolerance = FRAMEWORK if what == "y" else FRAMEWORK_GRADIENT
        assert a.dtype == dtype
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance[dtype], err_msg=f"{case} {dtype} {what}")


@pytest.fixture(scope="module", params=["jax", "torch"])
def keras_results(request, tmp_path_factory):
    """What Keras finds on one of its backends, in a process of its own."""
    if missing := [name for name in ("keras", request.param) if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{missing[0]} is not installed")  # importing it would choose a backend here
    file = tmp_path_factory.mktemp("keras") / "found.npz"
    environment = os.environ | {"KERAS_BACKEND": request.param}
    command = [sys.executable, "-c", _KERAS, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    with np.load(file) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("case", CASES)
def test_keras(keras_results, case):
    for dtype in DTYPES:
        agree(case, dtype, [keras_results[f"{case} {dtype} {what}"] for what in ("y", "theta", "x")])
    assert DEVICE in str(keras_results[f"{case} device"])
    if f"{case} losses" in keras_results:
        losses = keras_results[f"{case} losses"]
        assert len(losses) == STEPS
        assert losses[-1] < 0.8 * losses[0]
        assert np.abs(keras_results[f"{case} predictions"]).max() < FRAMEWORK["float32"]


@pytest.fixture
def jax():
    """JAX, where it sees the device."""
    jax = pytest.importorskip("jax")
    if DEVICE == "cuda" and jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")
    return jax


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_jax(jax, case, dtype):
    import qstore_jax

    with jax.enable_x64(True):
        theta, x, cotangents = data(case, dtype)
        apply = jax.jit(make(qstore_jax, case).apply)
        outputs, vjp_fn = jax.vjp(apply, theta, x)
        assert {device.platform for device in outputs.devices()} == {jax.default_backend()}
        agree(case, dtype, (outputs, *vjp_fn(cotangents)))
        if DEVICE == "cuda":
            assert "callback" not in str(jax.make_jaxpr(apply)(theta, x))


@pytest.mark.parametrize("n_qubits", [8, 12, 16])
def test_jax_of_many_qubits(jax, n_qubits):
    """Float32 products keep their digits: a GPU's shorter formats are not asked for."""
    import qstore_jax

    more = {"n_qubits": n_qubits, "depth": 2, "encoding": "angle", "seed": 0}
    x = np.random.default_rng(1).uniform(-1, 1, (8, n_qubits))
    reference = qstore_core.QuantumFeatureExtractor(**more)
    layer = qstore_jax.QuantumFeatureExtractor(**more)
    theta = np.asarray(reference.theta)
    found = jax.jit(layer.apply)(theta.astype("float32"), x.astype("float32"))
    assert np.abs(np.asarray(found) - reference(x)).max() < FRAMEWORK["float32"]


@pytest.mark.parametrize("case", [case for case in CASES if case != "encoder"])
def test_jax_learns(jax, case):
    import qstore_jax

    x, y = targets(case)
    layer, theta, losses = make(qstore_jax, case), data(case, "float32")[0], []
    step = jax.jit(jax.value_and_grad(lambda theta: ((layer.apply(theta, x) - y) ** 2).mean()))
    for _ in range(STEPS):
        loss, slope = step(theta)
        theta = theta - 0.2 * slope
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
