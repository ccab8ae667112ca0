"""One spec and one theta in every framework: values, gradients and training, against the NumPy layers.

Keras computes with one backend per process: `tests.support.keras_worker` runs in a process for each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
import torch

import qstore_core
import qstore_jax
import qstore_torch
from tests.support.formats import run
from tests.support.keras_worker import CASES, DTYPES, STEPS, data, make, rows, targets
from tests.support.tolerances import EXPORTED, FRAMEWORK, FRAMEWORK_GRADIENT

KERAS = ("tensorflow", "jax", "torch")
FRAMEWORKS = ("NumPy", "PyTorch", "JAX", *(f"Keras on {name}" for name in KERAS))
TRAINED = [case for case in CASES if case != "encoder"]
RATE = 0.2


class Worker(threading.Thread):
    """`tests.support.keras_worker` on one backend, under way while others compute."""

    def __init__(self, name, folder):
        super().__init__()
        self.backend, self.folder = name, folder
        self.start()

    def run(self):
        more = {"KERAS_BACKEND": self.backend, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
        command = [sys.executable, "-m", "tests.support.keras_worker", self.folder]
        self.done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | more)

    def results(self):
        self.join()
        assert self.done.returncode == 0, self.done.stdout[-1000:] + self.done.stderr[-4000:]
        with np.load(self.folder / f"{self.backend}.npz") as file:
            return dict(file)


@pytest.fixture(scope="module")
def keras_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("keras")


@pytest.fixture(scope="module")
def keras_results(keras_folder):
    """What each backend of Keras found, by name."""
    folder = keras_folder
    first = Worker("tensorflow", folder)
    found = {"tensorflow": first.results()}  # writes the file that the others read
    others = [Worker(name, folder) for name in KERAS[1:]]
    return found | {worker.backend: worker.results() for worker in others}


# ---- each gives `(outputs, d_theta, d_x)`, and the losses of a training


def numpy_results(case, dtype):
    theta, x, cotangents = data(case, dtype)
    layer = make(qstore_core, case)
    layer.theta = theta
    return layer(x), *layer.vjp(x, cotangents)


def numpy_losses(case):
    x, y = targets(case)
    layer, losses = make(qstore_core, case), []
    layer.theta = data(case)[0]
    for _ in range(STEPS):
        error = layer(x) - y
        losses.append((error**2).mean())
        layer.theta = layer.theta - RATE * layer.vjp(x, 2 * error / error.size)[0]
    return losses


def torch_layer(case, dtype):
    layer = make(qstore_torch, case, dtype=getattr(torch, dtype))
    with torch.no_grad():
        layer.theta.copy_(torch.from_numpy(data(case, dtype)[0]))
    return layer


def torch_results(case, dtype):
    _, x, cotangents = data(case, dtype)
    layer, x = torch_layer(case, dtype), torch.from_numpy(x).requires_grad_()
    outputs = layer(x)
    d_theta, d_x = torch.autograd.grad(outputs, [layer.theta, x], torch.from_numpy(cotangents), materialize_grads=True)
    return tuple(tensor.detach().numpy() for tensor in (outputs, d_theta, d_x))


def torch_losses(case):
    x, y = map(torch.from_numpy, targets(case))
    layer, losses = torch_layer(case, "float32"), []
    optimizer = torch.optim.SGD(layer.parameters(), RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = ((layer(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def jax_results(case, dtype):
    with jax.enable_x64(True):
        theta, x, cotangents = data(case, dtype)
        outputs, vjp_fn = jax.vjp(jax.jit(make(qstore_jax, case).apply), theta, x)
        return outputs, *vjp_fn(cotangents)


def jax_losses(case):
    x, y = targets(case)
    layer, theta, losses = make(qstore_jax, case), data(case, "float32")[0], []
    step = jax.jit(jax.value_and_grad(lambda theta: ((layer.apply(theta, x) - y) ** 2).mean()))
    for _ in range(STEPS):
        loss, slope = step(theta)
        theta = theta - RATE * slope
        losses.append(float(loss))
    return losses


RESULTS = {"NumPy": numpy_results, "PyTorch": torch_results, "JAX": jax_results}
LOSSES = {"NumPy": numpy_losses, "PyTorch": torch_losses, "JAX": jax_losses}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", CASES)
def test_every_layer_in_every_framework(case, framework, request):
    """Values and both gradients, in both precisions; then its own way of training brings the loss down."""
    exact = numpy_results(case, "float64")
    in_keras = framework.startswith("Keras")
    if in_keras:
        kept = request.getfixturevalue("keras_results")[framework.split()[-1]]
    for dtype in DTYPES:
        found = [kept[f"{case} {dtype} {what}"] for what in ("y", "theta", "x")] if in_keras else RESULTS[framework](
            case, dtype
        )  # fmt: skip
        for what, a, e in zip(("outputs", "d_theta", "d_x"), found, exact, strict=True):
            tolerance = FRAMEWORK if what == "outputs" else FRAMEWORK_GRADIENT
            assert a.dtype == dtype
            np.testing.assert_allclose(a, e, rtol=0, atol=tolerance[dtype], err_msg=f"{dtype} {what}")
    if case in TRAINED:
        losses = kept[f"{case} losses"] if in_keras else LOSSES[framework](case)
        np.testing.assert_allclose(losses, numpy_losses(case), rtol=1e-4, atol=FRAMEWORK["float32"])
        assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("backend", KERAS)
def test_what_keras_users_expect(keras_results, backend):
    found = keras_results[backend]
    for case in TRAINED:  # `predict` computes what a call does
        assert np.abs(found[f"{case} predictions"]).max() < FRAMEWORK["float32"]
    assert np.abs(found["half"] - found["whole"]).max() < 0.01  # outputs in bfloat16: three digits
    assert np.abs(found["masked"] - found["short"]).max() < FRAMEWORK["float32"]


@pytest.mark.parametrize("backend", KERAS[1:])
def test_a_file_of_one_backend_is_loaded_on_another(keras_results, backend):
    assert np.abs(keras_results[backend]["loaded"] - keras_results["tensorflow"]["saved"]).max() < FRAMEWORK["float32"]


@pytest.mark.parametrize("backend", KERAS[1:])
def test_what_keras_exports_on_other_backends_computes_the_same(keras_results, backend):
    found = keras_results[backend]
    assert np.abs(found["exported"] - found["to export"]).max() < FRAMEWORK["float32"]


def test_keras_on_pytorch_writes_onnx_that_runs_without_qstore(keras_results, keras_folder):
    pytest.importorskip("onnxruntime")
    np.savez(keras_folder / "onnx.npz", x=rows(), y=keras_results["torch"]["to export"])
    run("onnx", keras_folder / "of_torch.onnx", keras_folder / "onnx.npz", EXPORTED)


@pytest.mark.parametrize(("format_", "why"), [("tf_saved_model", "no eigenvalues"), ("openvino", "no OpenVINO files")])
def test_keras_on_jax_says_where_to_export(keras_results, format_, why):
    if format_ == "openvino":
        pytest.importorskip("openvino")
    message = str(keras_results["jax"][f"no {format_}"])
    assert why in message
    assert 'load it with KERAS_BACKEND="tensorflow", and export it there' in message


@pytest.mark.parametrize("backend", KERAS)
def test_terminate_on_nan_acts(keras_results, backend):
    """A call names the row; the loops of Keras see NaN, also eagerly, and end after one of three epochs."""
    found = keras_results[backend]
    assert found["refused row"] == 2
    for eager in (False, True):
        assert np.isnan(found[f"nan {eager}"]).all(1).tolist() == [row == 2 for row in range(len(rows()))]
        assert found[f"epochs {eager}"] == 1


def test_another_backend_of_keras_is_refused():
    code = """
import qstore_tf
try:
    qstore_tf.QuantumReadout(2)
except qstore_tf.layers.SpecError as error:
    print(error)
"""
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "tensorflow, jax, torch, this process runs Keras on 'numpy'" in done.stdout
