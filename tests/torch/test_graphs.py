"""Layers in compiled and exported graphs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from qstore_torch import QuantumFeatureExtractor, QuantumPooling, QuantumReadout

# torch._dynamo and torch.export warn about themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def model(backend):
    return nn.Sequential(
        nn.Linear(5, 8),
        QuantumFeatureExtractor(3, backend=backend, seed=0),
        QuantumPooling(3, 3, encoding="angle", backend=backend, seed=1),
        nn.Linear(1, 2),
        QuantumReadout(1, backend=backend, seed=2),
    )


def value_and_gradients(module, run, x):
    module.zero_grad()
    y = run(x)
    y.square().sum().backward()
    return y.detach(), [p.grad.clone() for p in module.parameters()]


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
@pytest.mark.parametrize("warm", [False, True])
def test_compiled_models_agree(backend, warm, empty_cache):
    module = model(backend)
    if warm:
        module(torch.rand(2, 5))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for rows in (4, 7, 3):  # the second one makes the batch size a symbol
        x = torch.rand(rows, 5)
        torch.testing.assert_close(value_and_gradients(module, compiled, x), value_and_gradients(module, module, x))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x))


def test_compiled_in_float64_and_under_autocast():
    layer = QuantumFeatureExtractor(2, seed=0, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.rand(3, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(compiled(x), layer(x))
    assert compiled(x).dtype == torch.float64
    mixed = nn.Sequential(nn.Linear(4, 16), QuantumReadout(4, n_classes=5, seed=0, backend="torch"))
    compiled = torch.compile(mixed, fullgraph=True, backend="aot_eager")
    x, results = torch.rand(3, 4), []
    for run in (mixed, compiled):
        with torch.autocast("cpu", torch.bfloat16):
            results.append(value_and_gradients(mixed, run, x))
    assert results[1][0].dtype == torch.bfloat16
    torch.testing.assert_close(*results)


def test_inductor():
    module = model("torch")
    x = torch.rand(4, 5)
    compiled = torch.compile(module, fullgraph=True)
    torch.testing.assert_close(value_and_gradients(module, compiled, x), value_and_gradients(module, module, x))


def test_inductor_has_a_gradient_of_each_sample():
    """Inductor adds up what a vmapped `index_add` gives for all samples, and `index_select` leads back to one."""
    layer = QuantumFeatureExtractor(2, depth=1, encoding="angle", seed=0, dtype=torch.float64)
    torch.manual_seed(0)
    x, theta = torch.rand(3, 2, dtype=torch.float64), layer.theta.detach()

    def loss(theta, x):
        return torch.func.functional_call(layer, {"theta": theta}, (x[None],)).square().sum()

    run = torch.compile(torch.func.vmap(torch.func.grad(loss), (None, 0)), fullgraph=True)
    one_by_one = [torch.autograd.grad(layer(row[None]).square().sum(), layer.theta)[0] for row in x]
    torch.testing.assert_close(run(theta, x), torch.stack(one_by_one))


@pytest.mark.parametrize("exported", [True, False])
def test_graphs_made_of_tensors_without_gradients_give_them(exported):
    """To the weights, and to what comes before the layer."""
    before, layer = nn.Linear(3, 2), QuantumFeatureExtractor(2, encoding="angle", seed=0)
    x, found = torch.rand(4, 3), []
    with torch.no_grad():
        features = torch.rand(4, 2)
        graph = torch.export.export(layer, (features,)).module() if exported else torch.jit.trace(layer, features)
    for run in (layer, graph):
        inner = dict(run.named_parameters())["theta"]
        found.append(torch.autograd.grad(run(before(x)).square().sum(), (inner, before.weight)))
    torch.testing.assert_close(*found)
    assert all(g.abs().max() > 1e-3 for g in found[0])


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_exported_programs_agree_and_leave_the_layer_usable(backend, empty_cache):
    module = model(backend)
    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(module, (torch.rand(4, 5),), dynamic_shapes=({0: rows},))
    x = torch.rand(6, 5)
    torch.testing.assert_close(program.module()(x), module(x))
    assert type(module(x)) is torch.Tensor


def test_fake_tensors_leave_nothing_behind(empty_cache):
    layer = QuantumFeatureExtractor(3, measurement_bases=("Z", "X"), backend="torch", seed=0)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = layer(mode.from_tensor(torch.rand(4, 8)))
    assert fake.shape == (4, 6)
    x = torch.rand(4, 8, requires_grad=True)
    y = layer(x)
    assert type(y.detach()) is torch.Tensor
    y.sum().backward()


def test_a_second_process_compiles_nothing(tmp_path):
    """Inductor and autograd find their graphs on disk: what the operator holds is the same text in each process."""
    code = """
import torch
from torch._dynamo.utils import counters
from qstore_torch import QuantumFeatureExtractor
layer = QuantumFeatureExtractor(2, encoding="angle", seed=0)
torch.compile(layer, fullgraph=True)(torch.ones(3, 2)).backward(torch.ones(3, 2))
caches = ("inductor", "fxgraph_cache"), ("aot_autograd", "autograd_cache")
print(*(f"{name}_{end}" for group, name in caches for end in ("hit", "miss") if counters[group][f"{name}_{end}"]))
"""
    printed = []
    for _ in range(2):
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        environment.pop("PYTHONWARNINGS", None)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=300
        )
        printed.append(done.stdout.split())
    # The file of a whole joint graph holds inductor's, which are counted too.
    assert printed == [[f"{name}_{end}" for name in ("fxgraph_cache", "autograd_cache")] for end in ("miss", "hit")]
