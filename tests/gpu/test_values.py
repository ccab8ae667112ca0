"""Values and gradients on a GPU: those of the NumPy engine in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import qstore_core
import qstore_torch
from tests.support.strategies import KINDS, Batch, batches, layer_arguments
from tests.support.tolerances import GRADIENT, VALUE, allow, angle_stretch

pytestmark = pytest.mark.gpu


def make(module, kind, arguments, backend, **more):
    more |= {} if kind == "QuantumEncoder" else {"backend": backend}
    return getattr(module, kind)(**arguments, **more)


def expected(kind, arguments, theta, x, cotangents):
    """Outputs, d_theta, d_x by the NumPy engine in float64; None for d_x where bits have no gradient."""
    layer = make(qstore_core, kind, arguments, "statevector")
    layer.theta = theta
    x, cotangents = x.astype(np.float64), cotangents.astype(np.float64)
    smooth = layer.spec.encoding.differentiable
    return layer(x), *(layer.vjp(x, cotangents) if smooth else (None, None))


def received(kind, arguments, backend, device, theta, x, cotangents):
    """The same by a PyTorch layer on the device, through autograd."""
    dtype = torch.from_numpy(x).dtype
    layer = make(qstore_torch, kind, arguments, backend, dtype=dtype).to(device)
    with torch.no_grad():
        layer.theta.copy_(torch.from_numpy(theta))
    smooth = layer.spec.encoding.differentiable
    leaf = torch.from_numpy(x).to(device).requires_grad_(smooth)
    outputs = layer(leaf)
    assert outputs.device == leaf.device
    assert outputs.dtype == dtype
    if outputs.requires_grad:
        outputs.backward(torch.from_numpy(cotangents).to(device))
    d_theta = layer.theta.grad if layer.spec.n_weights else torch.zeros(0)
    return outputs, d_theta, leaf.grad if smooth else None


def agree(kind, arguments, backend, device, batch, spec):
    theta, x, cotangents = batch.theta(spec), batch.features(spec), batch.cotangents(spec)
    wanted = expected(kind, arguments, theta, x, cotangents)
    got = received(kind, arguments, backend, device, theta, x, cotangents)
    stretch = angle_stretch(spec, theta, x) if batch.dtype == "float32" else 1.0
    for number, reference, tolerance in zip(got, wanted, (VALUE, GRADIENT, GRADIENT), strict=True):
        if reference is not None:
            number = number.detach().cpu().double().numpy()
            assert number.shape == reference.shape
            limit = allow(reference, stretch * tolerance[batch.dtype])
            assert np.abs(number - reference).max(initial=0.0) <= limit


@settings(max_examples=100)
@given(drawn=layer_arguments(kinds=KINDS, max_qubits=6), batch=batches())
def test_any_layer(backend, device, drawn, batch):
    kind, arguments = drawn
    spec = make(qstore_core, kind, arguments, "statevector").spec
    agree(kind, arguments, backend, device, batch, spec)


# Around the sizes at which an engine may change how it computes: registers, shared memory, passes over memory.
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_qubits", [1, 2, 5, 8, 9, 10, 11, 12, 13, 14, 16, 18])
def test_every_size(backend, device, fitting, n_qubits, dtype):
    fitting(n_qubits, dtype)
    rows = 33 if n_qubits <= 10 else 5 if n_qubits <= 14 else 2
    for arguments in (
        {"n_qubits": n_qubits, "depth": 2},
        {"n_qubits": n_qubits, "depth": 2, "encoding": "angle", "measurement_bases": ("Z", "X", "Y")},
        {"n_qubits": n_qubits, "depth": 2, "encoding": "angle", "reuploading": True},
    ):
        spec = qstore_core.QuantumFeatureExtractor(**arguments).spec
        agree("QuantumFeatureExtractor", arguments, backend, device, Batch((rows,), dtype, 0), spec)


@pytest.mark.parametrize("n_qubits", [6, 11, 15])
@pytest.mark.parametrize("kind", ["QuantumPooling", "QuantumReadout"])
def test_other_measurements(backend, device, fitting, kind, n_qubits):
    fitting(n_qubits)
    more = {"pool_size": 3 if n_qubits % 3 == 0 else n_qubits} if kind == "QuantumPooling" else {"n_classes": 10}
    arguments = {"n_qubits": n_qubits, "depth": 2, **more}
    spec = getattr(qstore_core, kind)(**arguments).spec
    agree(kind, arguments, backend, device, Batch((3,), "float32", 0), spec)


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 257, 4096])
def test_every_batch(backend, device, rows):
    arguments = {"n_qubits": 4, "depth": 1}
    spec = qstore_core.QuantumFeatureExtractor(**arguments).spec
    agree("QuantumFeatureExtractor", arguments, backend, device, Batch((rows,), "float32", 0), spec)


def test_one_qubit_is_the_cosine(backend, device):
    layer = qstore_torch.QuantumFeatureExtractor(1, 1, encoding="angle", backend=backend).to(device)
    x = torch.linspace(-math.pi, math.pi, 17, device=device)[:, None].requires_grad_()
    with torch.no_grad():
        layer.theta.zero_()
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(y, x.cos(), atol=VALUE["float32"], rtol=0.0)
    torch.testing.assert_close(x.grad, -x.detach().sin(), atol=GRADIENT["float32"], rtol=0.0)


@pytest.mark.parametrize("n_qubits", [4, 10, 14])
def test_the_same_bits_every_run(backend, device, fitting, n_qubits):
    fitting(n_qubits)
    layer = qstore_torch.QuantumFeatureExtractor(n_qubits, backend=backend, init="normal", seed=0).to(device)
    x = torch.randn(300, 1 << n_qubits, generator=torch.Generator().manual_seed(0)).to(device)
    runs = []
    for _ in range(3):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        d_theta, d_x = torch.autograd.grad(y.square().sum(), (layer.theta, leaf))
        runs.append((y.detach(), d_theta, d_x))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("n_qubits", [3, 12])
def test_rows_of_zeros_and_subnormals(backend, device, n_qubits):
    layer = qstore_torch.QuantumFeatureExtractor(n_qubits, backend=backend, init="normal", seed=0).to(device)
    x = torch.zeros(4, 1 << n_qubits)
    x[1, 0], x[2, 1], x[3] = 1.0, 1e-40, torch.finfo(torch.float32).tiny
    leaf = x.to(device).requires_grad_()
    y = layer(leaf)
    y.sum().backward()
    torch.testing.assert_close(y[0], y[1])  # a row of zeros encodes to |0…0⟩
    torch.testing.assert_close(y[2], y[1])  # and so does one below the smallest normal number
    torch.testing.assert_close(y[3:], layer(torch.ones_like(leaf[3:])))
    assert not leaf.grad[0].any()
    assert not leaf.grad[2].any()
    assert leaf.grad[1].isfinite().all()


def test_any_layout(backend, device):
    layer = qstore_torch.QuantumFeatureExtractor(3, backend=backend, init="normal", seed=0).to(device)
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(16, 16, generator=generator).to(device)
    for x in (wide[:, ::2], wide.T[:, :8], wide[3:, 4:12], wide[:1, :8].expand(5, 8), wide[:, :8].flip(0)):
        torch.testing.assert_close(layer(x), layer(x.clone(memory_format=torch.contiguous_format)))
    theta = torch.randn(2 * layer.theta.numel(), generator=generator).to(device)[::2]
    moved = torch.func.functional_call(layer, {"theta": theta}, (wide[:, :8],))
    torch.testing.assert_close(moved, torch.func.functional_call(layer, {"theta": theta.clone()}, (wide[:, :8],)))
    gradient = torch.ones(1, 1, device=device).expand(16, 3)  # strides of zero
    (d_theta,) = torch.autograd.grad(layer(wide[:, :8]), layer.theta, gradient)
    torch.testing.assert_close(d_theta, *torch.autograd.grad(layer(wide[:, :8]).sum(), layer.theta))
