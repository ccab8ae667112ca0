"""What models on a GPU go through: transforms, compiled and exported graphs, CUDA graphs, streams, autocast, DDP."""

from __future__ import annotations

import contextlib
import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from qstore_torch import QuantumFeatureExtractor, QuantumPooling, QuantumReadout
from tests.support.tolerances import GRADIENT, VALUE

pytestmark = [
    pytest.mark.gpu,
    # torch._dynamo, torch.export and DDP warn about themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CLOSE = {"atol": GRADIENT["float32"], "rtol": GRADIENT["float32"]}


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def model(backend, device):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 16),
        QuantumFeatureExtractor(4, backend=backend, seed=0),
        QuantumPooling(4, encoding="angle", reuploading=True, depth=2, backend=backend, seed=1),
        nn.Linear(2, 8),
        QuantumReadout(3, n_classes=4, backend=backend, seed=2),
    ).to(device)


def rows(count, width, device, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).to(device)


def value_and_gradients(module, run, x):
    module.zero_grad()
    y = run(x)
    y.square().sum().backward()
    return y.detach(), [p.grad.clone() for p in module.parameters()]


# -- devices ----------------------------------------------------------------------------------------------------------


def test_moving_to_the_gpu_and_back(backend, device):
    layer = QuantumFeatureExtractor(3, backend=backend, seed=0)
    x = rows(4, 8, "cpu")
    there = layer.to(device)(x.to(device))
    assert there.device.type == device.type
    other = QuantumFeatureExtractor(3, backend="statevector", seed=0)
    torch.testing.assert_close(there.cpu(), other(x), **CLOSE)
    loaded = QuantumFeatureExtractor(3, backend="statevector", seed=1)
    loaded.load_state_dict({name: value.cpu() for name, value in layer.state_dict().items()})
    torch.testing.assert_close(loaded(x), other(x), **CLOSE)


def test_auto_stays_on_the_gpu(device, cuda_only):
    layer = QuantumFeatureExtractor(3, seed=0).to(device)
    x = rows(4, 8, device)
    layer(x).sum().backward()
    layer.zero_grad()
    torch.cuda.synchronize()
    with no_synchronisation():
        y = layer(x)
        y.sum().backward()
    assert y.device == layer.theta.grad.device == x.device


def test_every_gpu(backend, cuda_only):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    layer, x = QuantumFeatureExtractor(3, backend=backend, seed=0), rows(4, 8, "cpu")
    results = [copy.deepcopy(layer).to(f"cuda:{k}")(x.to(f"cuda:{k}")).cpu() for k in range(2)]
    assert torch.equal(*results)


# -- no wait for the device -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_synchronisation():
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("encoding", ["amplitude", "angle", "zz"])
@pytest.mark.parametrize("n_qubits", [4, 10, 14])
def test_a_training_step_does_not_wait(backend, device, cuda_only, fitting, n_qubits, encoding):
    fitting(n_qubits)
    layer = QuantumFeatureExtractor(n_qubits, encoding=encoding, backend=backend, seed=0)
    module = nn.Sequential(nn.Linear(5, layer.spec.n_features), layer).to(device)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    x = rows(7, 5, device)

    def step():
        optimizer.zero_grad()
        module(x).square().sum().backward()
        optimizer.step()

    step()  # what is compiled or uploaded once may wait
    torch.cuda.synchronize()
    with no_synchronisation():
        step()
        with torch.no_grad():
            module(x)
    assert all(p.isfinite().all() for p in module.parameters())


def test_nothing_outlives_the_backward_pass(backend, device, cuda_only):
    layer = QuantumFeatureExtractor(12, backend=backend, seed=0).to(device)
    x = rows(64, 1 << 12, device).requires_grad_()
    layer(x).sum().backward()
    torch.cuda.synchronize()
    x.grad = None
    before, losses = torch.cuda.memory_allocated(), []
    for _ in range(8):
        losses.append(layer(x).sum())
        losses[-1].backward()
        x.grad = None
    one_state = 8 * 64 << 12
    assert torch.cuda.memory_allocated() - before < one_state


# -- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled_models_agree(backend, device, compiler):
    module = model(backend, device)
    compiled = torch.compile(module, fullgraph=True, backend=compiler)
    for count in (4, 7, 3):  # the second one makes the batch size a symbol
        x = rows(count, 5, device)
        got, wanted = value_and_gradients(module, compiled, x), value_and_gradients(module, module, x)
        torch.testing.assert_close(got, wanted, **CLOSE)


def test_exported_programs_agree_in_a_fresh_process(backend, device, tmp_path):
    module = model(backend, device).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(module, (rows(4, 5, device),), dynamic_shapes=({0: batch},))
    x = rows(6, 5, device)
    torch.save((x, module(x).detach()), tmp_path / "values.pt")
    torch.export.save(program, tmp_path / "model.pt2")
    code = (
        "import sys, torch, qstore_torch\n"
        "x, y = torch.load(sys.argv[2])\n"
        "torch.testing.assert_close(torch.export.load(sys.argv[1]).module()(x), y, atol=1e-5, rtol=1e-5)\n"
    )
    files = [str(tmp_path / "model.pt2"), str(tmp_path / "values.pt")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_cuda_graph_of_a_training_step(backend, device, cuda_only):
    module, other = (model(backend, device) for _ in range(2))
    x = rows(8, 5, device)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (module, other)]

    def step(m, optimizer, x):
        optimizer.zero_grad(set_to_none=True)
        loss = m(x).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(module, optimizers[0], x)
    torch.cuda.current_stream().wait_stream(side)
    graph, static = torch.cuda.CUDAGraph(), x.clone()
    optimizers[0].zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = step(module, optimizers[0], static)
    other.load_state_dict(module.state_dict())
    for seed in range(3):
        new = rows(8, 5, device, seed)
        static.copy_(new)
        graph.replay()
        torch.testing.assert_close(loss, step(other, optimizers[1], new), **CLOSE)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_graphed_callables(backend, device, cuda_only):
    layer = QuantumFeatureExtractor(4, backend=backend, seed=0).to(device)
    plain = copy.deepcopy(layer)
    graphed = torch.cuda.make_graphed_callables(layer, (rows(8, 16, device).requires_grad_(),))
    x = rows(8, 16, device, 1).requires_grad_()
    torch.testing.assert_close(value_and_gradients(layer, graphed, x), value_and_gradients(plain, plain, x), **CLOSE)


def test_streams(backend, device, cuda_only):
    layer = QuantumFeatureExtractor(6, backend=backend, seed=0).to(device)
    inputs = [rows(64, 64, device, seed) for seed in range(4)]
    wanted = [layer(x).detach() for x in inputs]
    torch.cuda.synchronize()
    streams, got = [torch.cuda.Stream() for _ in inputs], []
    for stream, x in zip(streams, inputs, strict=True):
        with torch.cuda.stream(stream):
            for _ in range(5):
                y = layer(x)
            got.append(y.detach())
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


# -- transforms -------------------------------------------------------------------------------------------------------


def test_gradcheck(backend, device):
    layer = QuantumReadout(3, n_classes=5, backend=backend, seed=0, dtype=torch.float64).to(device)
    x = rows(2, 8, device).double().requires_grad_()

    def run(theta, x):
        return torch.func.functional_call(layer, {"theta": theta}, (x,))

    assert torch.autograd.gradcheck(run, (layer.theta, x))
    assert torch.autograd.gradgradcheck(run, (layer.theta, x))


def test_function_transforms(backend, device):
    layer = QuantumFeatureExtractor(3, backend=backend, init="normal", seed=0).to(device)
    x, theta = rows(4, 8, device), layer.theta.detach()

    def loss(theta, row):
        return torch.func.functional_call(layer, {"theta": theta}, (row[None],)).square().sum()

    each = torch.stack([torch.func.grad(loss)(theta, row) for row in x])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss), (None, 0))(theta, x), each, **CLOSE)
    together = torch.autograd.grad(layer(x).square().sum(), layer.theta)[0]
    torch.testing.assert_close(each.sum(0), together, **CLOSE)

    def outputs(theta):
        return torch.func.functional_call(layer, {"theta": theta}, (x,))

    reverse, forward = torch.func.jacrev(outputs)(theta), torch.func.jacfwd(outputs)(theta)
    torch.testing.assert_close(forward, reverse, **CLOSE)
    tangent = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1)).to(device)
    values, along = torch.func.jvp(outputs, (theta,), (tangent,))
    torch.testing.assert_close(values, outputs(theta), atol=VALUE["float32"], rtol=0.0)
    torch.testing.assert_close(along, reverse @ tangent, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(backend, device, dtype):
    module = model(backend, device)
    x = rows(4, 5, device)
    with torch.autocast(device.type, dtype):
        y = module(x)
    y.float().square().sum().backward()
    assert y.dtype == dtype
    assert all(p.grad.dtype == p.dtype and p.grad.isfinite().all() for p in module.parameters())
    # The layers compute in float32: what is rounded is what goes in and out, eps = 2^-8 at the most.
    torch.testing.assert_close(y.float(), module(x), atol=0.05, rtol=0.0)


def test_checkpoint(backend, device):
    module = model(backend, device)
    x = rows(4, 5, device).requires_grad_()

    def run(x):
        return torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)

    torch.testing.assert_close(value_and_gradients(module, run, x), value_and_gradients(module, module, x))


def test_ddp_over_nccl(backend, device, cuda_only, tmp_path):
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    if not distributed.is_nccl_available():
        pytest.skip("PyTorch without NCCL")
    plain = model(backend, device)
    distributed.init_process_group("nccl", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        module = copy.deepcopy(plain)
        parallel = DistributedDataParallel(module, device_ids=[torch.cuda.current_device()])
        x = rows(8, 5, device)
        got, wanted = value_and_gradients(module, parallel, x), value_and_gradients(plain, plain, x)
        torch.testing.assert_close(got, wanted, **CLOSE)
    finally:
        distributed.destroy_process_group()


def test_a_model_learns(backend, device):
    module = model(backend, device)
    x = rows(64, 5, device)
    target = (x[:, 0] > 0).long()
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    history = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.nll_loss(module(x).clamp_min(1e-6).log(), target)
        loss.backward()
        optimizer.step()
        history.append(loss.detach())
    history = torch.stack(history).cpu()
    assert history[-5:].mean() < 0.7 * history[:5].mean()
