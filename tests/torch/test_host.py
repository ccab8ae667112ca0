"""The host bridge in PyTorch: named backends, fallback, threads, event loops, forked data-loader workers."""

from __future__ import annotations

import asyncio
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.utils.data import DataLoader, Dataset

import qstore_torch
from qstore_core import (
    BackendError,
    Capabilities,
    FallbackWarning,
    InputError,
    PaddingWarning,
    fallback_counts,
    profile,
)
from qstore_core import QuantumReadout as NumpyReadout
from qstore_torch import QuantumFeatureExtractor, QuantumReadout
from tests.support.faults import Fault, FaultyBackend
from tests.support.strategies import batches, faults, layer_arguments

KINDS = ("QuantumFeatureExtractor", "QuantumPooling", "QuantumReadout", "QuantumLayer")


def value_and_gradients(layer, x):
    x = x.clone().requires_grad_(layer.spec.encoding.differentiable)
    layer.zero_grad()
    y = layer(x)
    if y.requires_grad:
        y.square().sum().backward()
    return y.detach(), layer.theta.grad, x.grad


# -- fallback ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(drawn=layer_arguments(kinds=KINDS), batch=batches(min_rows=1), fault=faults())
def test_fallback_keeps_value_and_gradients(drawn, batch, fault):
    kind, arguments = drawn
    make = getattr(qstore_torch, kind)
    expected = make(**arguments, backend="statevector", seed=0)
    layer = make(**arguments, backend=FaultyBackend("flaky", fault), seed=0)
    x = torch.from_numpy(batch.features(layer.spec))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            torch.testing.assert_close(value_and_gradients(layer, x), value_and_gradients(expected, x))
    said = [w for w in caught if issubclass(w.category, FallbackWarning)]
    others = [w for w in caught if w not in said and not issubclass(w.category, PaddingWarning)]
    assert not others
    assert len(said) == (1 if layer.fallbacks else 0)
    if fault.place != "backward" or layer.spec.n_weights:
        assert {(e.failed, e.used, e.cause) for e in layer.fallbacks} == {("flaky", "statevector", fault.cause)}


def test_one_warning_names_layer_and_cause(register, zero_fallback_counts):
    backend = FaultyBackend("flaky", Fault("loses connection", "forward"))
    register("flaky", backend)
    layer = QuantumReadout(2, backend="flaky", name="head", seed=0)
    with pytest.warns(FallbackWarning, match=r"layer 'head'.*'flaky' failed \(ConnectionResetError") as caught:
        first = layer(torch.rand(3, 4))
    assert len(caught) == 1
    layer(torch.rand(3, 4))  # counted, not said again
    assert first.shape == (3, 2)
    assert sum(layer.fallbacks.values()) == sum(fallback_counts().values()) == 2
    backend.fault = None
    layer(torch.rand(3, 4))
    assert sum(layer.fallbacks.values()) == 2


def test_without_fallback_the_error_is_raised(register):
    register("flaky", FaultyBackend("flaky", Fault("raises", "backward")))
    layer = QuantumReadout(2, backend="flaky", fallback=None)
    y = layer(torch.rand(3, 4))
    with pytest.raises(BackendError, match="the device reported an error") as caught:
        y.sum().backward()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_the_callers_mistake_takes_no_fallback():
    backend = FaultyBackend("flaky", None)
    layer = QuantumReadout(2, backend=backend)
    with pytest.raises(InputError):
        layer(torch.full((1, 4), torch.nan))
    assert not layer.fallbacks
    assert backend.calls["forward"] == 0


# -- arrays of backends -----------------------------------------------------------------------------------------------


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


def test_read_only_arrays_are_copied():
    layer = QuantumFeatureExtractor(2, encoding="angle", backend=ReadOnly(), fallback=None)
    x = torch.rand(3, 2, requires_grad=True)
    y = layer(x)
    y.mul(1).sum().backward()
    assert y.dtype == layer.theta.grad.dtype == x.grad.dtype == torch.float32
    assert (y == 1).all()
    assert (layer.theta.grad == 2).all()
    assert (x.grad == 3).all()


def test_lazily_conjugated_tensors():
    z = torch.randn(3, 4, dtype=torch.complex64)
    x = z.conj().imag
    assert x.is_neg()
    layer = QuantumFeatureExtractor(2, backend="statevector", seed=0)
    torch.testing.assert_close(layer(x), layer(x.resolve_neg().clone()))


def test_host_work_is_timed():
    layer = QuantumReadout(2, backend="statevector", name="head")
    with profile() as times:
        layer(torch.rand(3, 4)).sum().backward()
        with torch.no_grad():
            layer(torch.rand(3, 4))
    assert (times.calls("head", "forward"), times.calls("head", "backward")) == (2, 1)


# -- threads, loops, processes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
def test_call_async_inside_a_running_loop(backend):
    layer = QuantumFeatureExtractor(3, backend=backend, seed=0)
    x = torch.rand(4, 8, requires_grad=True)

    async def main():
        several = await asyncio.gather(*(layer.call_async(x * k) for k in (1, 2, 3)))
        with torch.no_grad():
            assert not (await layer.call_async(x)).requires_grad
        return several

    outputs = asyncio.run(main())
    for y in outputs:
        torch.testing.assert_close(y, layer(x))  # amplitudes do not see the scale
    (grad,) = torch.autograd.grad(outputs[1].sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(layer(x).sum(), x)[0])


def test_call_async_raises_what_a_call_raises():
    layer = QuantumFeatureExtractor(2)
    with pytest.raises(InputError, match="row 1"):
        asyncio.run(layer.call_async(torch.tensor([[1.0, 2], [torch.nan, 0]])))


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
def test_many_threads_share_a_layer(backend, empty_cache):
    layer = QuantumFeatureExtractor(3, backend=backend, seed=0)
    xs = [torch.rand(2, 8, generator=torch.Generator().manual_seed(k)) for k in range(16)]
    start = threading.Barrier(4)

    def work(part):
        start.wait()  # all ask for the circuit at once
        return [(layer(x), torch.autograd.grad(layer(x).sum(), layer.theta)[0]) for x in part]

    with ThreadPoolExecutor(4) as pool:
        results = [pair for part in pool.map(work, [xs[k::4] for k in range(4)]) for pair in part]
    expected = [(layer(x), torch.autograd.grad(layer(x).sum(), layer.theta)[0]) for k in range(4) for x in xs[k::4]]
    torch.testing.assert_close(results, expected)


class Encoded(Dataset):
    """A data set that runs a quantum layer where it loads its samples."""

    def __init__(self, layer):
        self.layer = layer
        self.x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        with torch.no_grad():
            return self.layer(self.x[index][None])[0]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("backend", ["statevector", "auto"])
def test_forked_data_loader_workers(backend):
    layer = QuantumReadout(2, n_classes=3, backend=backend, seed=0)
    data = Encoded(layer)
    asyncio.run(layer.call_async(data.x))  # the loop and its threads are up: none of them reaches the child
    batches = list(DataLoader(data, batch_size=3, num_workers=2, multiprocessing_context="fork", timeout=60))
    torch.testing.assert_close(torch.cat(batches), layer(data.x).detach())


def test_one_backend_per_layer_in_one_model():
    model = nn.Sequential(
        QuantumFeatureExtractor(3, backend="torch", seed=1), QuantumFeatureExtractor(3, backend="statevector", seed=2)
    )
    x = torch.rand(4, 8, requires_grad=True)
    model(x).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in (x, *model.parameters()))


def test_the_numpy_layer_agrees():
    layer = QuantumReadout(2, n_classes=3, backend="statevector", seed=3)
    x = torch.rand(5, 4)
    np.testing.assert_allclose(
        layer(x).detach().numpy(), NumpyReadout(2, n_classes=3, backend="statevector", seed=3)(x.numpy()), atol=1e-6
    )
