"""Every transform of PyTorch: right, or refused by a sentence. A test for each row of `support.outcomes.TORCH`."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vmap
from torch.utils.checkpoint import checkpoint

import qstore_core
import qstore_torch
from qstore_core import GradientError, InputError, QstoreError, ShapeError, SpecError, cache_clear
from qstore_torch import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
from tests.support.faults import FaultyBackend
from tests.support.outcomes import NAMED, OUTCOMES, PAGE, TORCH, page

# torch._dynamo, torch.jit and torch.export warn about themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

BACKENDS = ["auto", "torch", "statevector"]
FEATURES = {"amplitude": 8, "angle": 3, "iqp": 3, "zz": 3}
# Central differences in float64 with step 1e-5: truncation 1e-10, rounding 1e-11.
STEP, DIFFERENCE = 1e-5, 1e-8

checks = {}


def row(start):
    """The test of the row whose transform begins like this."""

    def keep(test):
        found = [outcome for outcome in TORCH if outcome.transform.startswith(start)]
        assert len(found) == 1, (start, found)
        checks[found[0].transform] = test
        return test

    return keep


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def layer_of(backend="auto", encoding="amplitude", **more):
    return QuantumFeatureExtractor(3, 1, encoding=encoding, backend=backend, seed=0, dtype=torch.float64, **more)


def other_host():
    """A layer on an exact host backend of somebody else."""
    return layer_of(FaultyBackend("elsewhere", None))


def point(layer, rows=4):
    features = FEATURES[layer.spec.encoding.name]
    return torch.rand(rows, features, dtype=torch.float64), torch.rand(rows, features, dtype=torch.float64)


def difference(run, x, v):
    with torch.no_grad():
        return (run(x + STEP * v) - run(x - STEP * v)) / (2 * STEP)


def close(found, expected):
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=DIFFERENCE)


def with_theta(layer):
    return lambda theta, x: functional_call(layer, {"theta": theta}, (x,))


# -- forward mode -----------------------------------------------------------------------------------------------------


@row("forward mode of features: `torch.func.jvp`")
def check_jvp(layer):
    x, v = point(layer)
    close(jvp(layer, (x,), (v,))[1], difference(layer, x, v))


@row("forward mode of features: `torch.func.jacfwd`")
def check_jacfwd(layer):
    x, v = point(layer)
    close(torch.einsum("bocf,cf->bo", jacfwd(layer)(x), v), difference(layer, x, v))


@row("forward mode of features: `torch.func.linearize`")
def check_linearize(layer):
    x, v = point(layer)
    close(linearize(layer, x)[1](v), difference(layer, x, v))


@row("forward mode of features: `dual_level`")
def check_dual_level(layer):
    x, v = point(layer)
    expected = difference(layer, x, v)
    for mode in (contextlib.nullcontext, torch.no_grad):
        for frozen in (False, True):
            for wanted in (False, True):
                layer.theta.requires_grad_(not frozen)
                with mode(), forward_ad.dual_level():
                    y = layer(forward_ad.make_dual(x.clone().requires_grad_(wanted), v))
                    close(forward_ad.unpack_dual(y).tangent.detach(), expected)
    layer.theta.requires_grad_()
    assert layer(x).requires_grad


@row("forward mode of features: `jacobian")
def check_jacobian(layer):
    x, v = point(layer)
    jacobian = torch.autograd.functional.jacobian(layer, x, strategy="forward-mode", vectorize=True)
    close(torch.einsum("bocf,cf->bo", jacobian, v), difference(layer, x, v))


@row("forward mode of theta")
def check_dual_theta(layer):
    x, _ = point(layer)
    run, theta = with_theta(layer), layer.theta.detach()
    v = torch.rand_like(theta)
    expected = difference(lambda t: run(t, x), theta, v)
    with forward_ad.dual_level():
        close(forward_ad.unpack_dual(run(forward_ad.make_dual(theta, v), x)).tangent, expected)
    close(jvp(lambda t: run(t, x), (theta,), (v,))[1], expected)


@row("forward mode inside `torch.compile`")
def check_compiled_jvp(layer):
    x, v = point(layer)
    run = torch.compile(lambda x: jvp(layer, (x,), (v,))[1], backend="aot_eager", fullgraph=True)
    close(run(x), difference(layer, x, v))


@row("forward mode in `inference_mode`")
def check_inference_mode(layer):
    x, v = point(layer)
    with torch.inference_mode(), forward_ad.dual_level():
        layer(forward_ad.make_dual(x, v))


@row("forward mode on a host backend that is not ours")
def check_dual_elsewhere(_):
    layer = other_host()
    x, v = point(layer)
    with forward_ad.dual_level():
        layer(forward_ad.make_dual(x, v))


# -- higher order and batches -----------------------------------------------------------------------------------------


@row("second and third derivatives")
def check_higher_orders(layer):
    x, v = point(layer)
    x.requires_grad_()
    slope = lambda x: (torch.autograd.grad(layer(x).sum(), x, create_graph=True)[0] * v).sum()  # noqa: E731
    second = torch.autograd.grad(slope(x), x, create_graph=True)[0]
    with torch.enable_grad():
        ends = [slope((x + s * STEP * v).detach().requires_grad_()) for s in (1, -1)]
    close((second * v).sum().detach(), ((ends[0] - ends[1]) / (2 * STEP)).detach())
    (third,) = torch.autograd.grad((second * v).sum(), layer.theta)
    assert torch.isfinite(third).all()
    assert third.abs().max() > 0


@row("derivatives of constant outputs")
def check_derivatives_of_constants(layer):
    circuit = qstore_core.Circuit(2)
    (x0,), (w0,) = circuit.inputs(1), circuit.weights(1)
    circuit.rz(w0, 0)
    circuit.ry(x0, 1)
    for observable, depends in ((qstore_core.Pauli("ZI"), False), (qstore_core.Pauli("IZ"), True)):
        constant = QuantumLayer(circuit, observable, backend=layer.backend_name, dtype=torch.float64)
        x = torch.tensor([[0.3], [0.4]], dtype=torch.float64, requires_grad=True)

        def loss(theta, x, constant=constant):
            return functional_call(constant, {"theta": theta}, (x,)).square().sum()

        slopes = torch.autograd.grad(constant(x).square().sum(), (constant.theta, x), create_graph=True)
        seconds = torch.autograd.grad(sum(slope.square().sum() for slope in slopes), (constant.theta, x))
        assert [bool(d.any()) for d in (*slopes, *seconds)] == [False, depends] * 2
        for twice in (hessian, lambda f, k: jacfwd(jacfwd(f, k), k), lambda f, k: jacrev(jacrev(f, k), k)):
            (tt, tx), (xt, xx) = twice(loss, (0, 1))(constant.theta.detach(), x.detach())
            assert not any(bool(d.any()) for d in (tt, tx, xt))
            assert bool(xx.any()) == depends


@row("second derivatives on a host backend that is not ours")
def check_second_elsewhere(_):
    layer = other_host()
    x = point(layer)[0].requires_grad_()
    torch.autograd.grad(layer(x).sum(), x, create_graph=True)


@row("second derivatives through a compiled graph")
def check_compiled_second(layer):
    x = point(layer)[0].requires_grad_()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    (slope,) = torch.autograd.grad(compiled(x).square().sum(), x, create_graph=True)
    slope.sum().backward()


def penalty(run, theta, x):
    """A function of the slopes of `run`: (theta, x) → its gradients, and those of the slopes' squares."""
    slopes = torch.autograd.grad(run(theta, x).square().sum(), (theta, x), create_graph=True)
    return *slopes, *torch.autograd.grad(sum(slope.square().sum() for slope in slopes), (theta, x))


@row("second derivatives in graphs of `torch.export`")
def check_graphs_second(layer):
    """Also of graphs that were made from features and weights without gradients, or of gradients alone."""
    from torch.fx.experimental.proxy_tensor import make_fx

    run, x = with_theta(layer), point(layer)[0].requires_grad_()
    theta = layer.theta.detach().clone().requires_grad_()
    expected = penalty(run, theta, x)
    assert all(g.abs().max() > 1e-3 for g in expected)
    with torch.no_grad():
        exported = torch.export.export(layer, (x.detach(),)).module()
        traced = torch.jit.trace(layer, x.detach())
        recorded = make_fx(run)(theta.detach(), x.detach())
    theta_of = dict(exported.named_parameters())["theta"]
    torch.testing.assert_close(penalty(lambda _, x: exported(x), theta_of, x), expected)
    torch.testing.assert_close(penalty(lambda _, x: traced(x), layer.theta, x), expected)
    torch.testing.assert_close(penalty(recorded, theta, x), expected)

    def gradients(theta, x):
        return torch.autograd.grad(run(theta, x).square().sum(), (theta, x))

    first = make_fx(gradients)(theta, x)
    assert "qstore.layer_vjp" in first.code
    slopes = first(theta, x)
    assert slopes[0].requires_grad
    second = torch.autograd.grad(sum(slope.square().sum() for slope in slopes), (theta, x))
    torch.testing.assert_close((*slopes, *second), expected)
    twice = make_fx(lambda theta, x: penalty(run, theta, x))(theta, x)
    torch.testing.assert_close(twice(theta, x), expected)


def test_a_compiled_gradient_penalty(monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "trace_autograd_ops", True)
    layer = layer_of("auto")
    x = point(layer)[0].requires_grad_()

    def loss(x):
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        return slope.square().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found, expected = (torch.autograd.grad(run(x), (layer.theta, x)) for run in (compiled, loss))
    torch.testing.assert_close(found, expected)


def test_second_derivatives_of_per_sample_gradients():
    """`TransformedFunction` is differentiated by eager autograd: in PyTorch operations, not lost."""
    layer, tensor = layer_of("auto"), layer_of("torch")
    x, _ = point(layer)
    found = []
    for module in (layer, tensor):
        theta = module.theta.detach().clone().requires_grad_()
        leaf = x.clone().requires_grad_()
        per_sample(module)(theta, leaf).square().sum().backward()
        found.append((theta.grad, leaf.grad))
    torch.testing.assert_close(*found)
    assert all(g.abs().max() > 1e-3 for g in found[0])


@row("`torch.func.hessian`, `jacrev`")
def check_hessian(layer):
    x, _ = point(layer, 2)
    torch.testing.assert_close(
        hessian(lambda x: layer(x).square().sum())(x),
        torch.autograd.functional.hessian(lambda x: layer(x).square().sum(), x),
    )
    torch.testing.assert_close(jacrev(layer)(x), torch.autograd.functional.jacobian(layer, x))


def per_sample(layer):
    run = with_theta(layer)
    return vmap(grad(lambda theta, x: run(theta, x[None]).square().sum()), (None, 0))


def one_by_one(layer, x):
    return torch.stack([torch.autograd.grad(layer(one[None]).square().sum(), layer.theta)[0] for one in x])


@row("`torch.func.vmap(grad)`")
def check_per_sample(layer):
    x, _ = point(layer)
    torch.testing.assert_close(per_sample(layer)(layer.theta.detach(), x), one_by_one(layer, x))


@pytest.mark.parametrize("each", [False, True])
def test_per_sample_gradients_of_no_samples(each):
    """Of one theta for all, and of one each: as empty as PyTorch's own layers give them."""
    layer = QuantumReadout(2, encoding="angle", seed=0)
    theta = layer.theta.detach().expand(0, -1) if each else layer.theta.detach()

    def value(theta, row):
        return functional_call(layer, {"theta": theta}, (row[None],)).sum()

    dims = (0 if each else None, 0)
    assert vmap(value, dims)(theta, torch.rand(0, 2)).shape == (0,)
    both = vmap(grad(value, (0, 1)), dims)(theta, torch.rand(0, 2))
    assert [tuple(d.shape) for d in both] == [(0, layer.spec.n_weights), (0, 2)]


@row("`torch.func.vmap`, `grad` and `jacrev` on a host backend that is not ours")
def check_func_elsewhere(ours):
    layer = other_host()
    x, _ = point(layer)
    torch.testing.assert_close(vmap(lambda x: layer(x[None])[0])(x), layer(x))
    torch.testing.assert_close(per_sample(layer)(layer.theta.detach(), x), one_by_one(ours, x))
    torch.testing.assert_close(jacrev(layer)(x), jacrev(ours)(x))
    torch.testing.assert_close(grad(lambda x: layer(x).sum())(x), torch.func.grad(lambda x: ours(x).sum())(x))
    thetas = torch.stack([layer.theta.detach(), 2 * layer.theta.detach()])
    found = vmap(with_theta(layer), (0, None))(thetas, x)
    torch.testing.assert_close(found, torch.stack([with_theta(ours)(theta, x) for theta in thetas]))


@row("nested `torch.func` on a host backend that is not ours")
def check_nested_elsewhere(_):
    layer = other_host()
    hessian(lambda x: layer(x).sum())(point(layer)[0])


@row("`torch.func.grad` and `vmap` inside `torch.compile`")
def check_compiled_func(layer):
    x, _ = point(layer)
    run = torch.compile(per_sample(layer), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(layer.theta.detach(), x), one_by_one(layer, x))


@row("`is_grads_batched=True`")
def check_batched(layer):
    x = point(layer)[0].requires_grad_()
    y = layer(x)
    directions = torch.eye(y.numel(), dtype=y.dtype).reshape(-1, *y.shape)
    (found,) = torch.autograd.grad(y, x, directions, is_grads_batched=True, retain_graph=True)
    expected = torch.stack([torch.autograd.grad(y, x, d, retain_graph=True)[0] for d in directions])
    torch.testing.assert_close(found, expected)


# -- graphs -----------------------------------------------------------------------------------------------------------


def step(run, layer, x):
    x = x.clone().requires_grad_()
    y = run(x)
    return y.detach(), *torch.autograd.grad(y.square().sum(), (x, layer.theta))


@row("`torch.compile(fullgraph=True)`")
def check_compile(layer):
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for rows in (4, 7, 3):
        x, _ = point(layer, rows)
        torch.testing.assert_close(step(compiled, layer, x), step(layer, layer, x))
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), layer(x))
    columns = point(layer)[0].t().contiguous().t()
    torch.testing.assert_close(compiled(columns), layer(columns))


class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.before, self.inner, self.after = nn.Linear(8, 8), inner, nn.Linear(3, 8)

    def forward(self, x):
        return x + self.after(self.inner(self.before(x)))


def graphs(make):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    blocks = [torch.compile(Block(make()), backend=counter, fullgraph=True) for _ in range(12)]
    nn.Sequential(*blocks)(torch.rand(4, 8)).sum().backward()
    return counter.frame_count


@row("blocks compiled one by one")
def check_blocks(layer):
    backend = layer.backend_name
    expected = graphs(lambda: nn.Linear(8, 3))
    assert graphs(lambda: QuantumFeatureExtractor(3, 1, backend=backend)) == expected


@row("`torch.export`, saved and loaded in a fresh process")
def check_export(layer, tmp_path):
    x, _ = point(layer)
    exported = torch.export.export(layer, (x,))
    text = str(exported.graph)
    assert str(id(layer._program)) not in text
    torch.export.save(exported, tmp_path / "layer.pt2")
    torch.save((x, layer(x).detach()), tmp_path / "expected.pt")
    del layer
    gc.collect()
    torch.testing.assert_close(exported.module()(x), torch.load(tmp_path / "expected.pt")[1])
    code = """
        import torch, qstore_torch
        x, expected = torch.load("expected.pt")
        torch.testing.assert_close(torch.export.load("layer.pt2").module()(x), expected)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@row("`torch.export` of a backend that was given as an object")
def check_export_of_an_object(_):
    layer = other_host()
    x, _ = point(layer)
    exported = torch.export.export(layer, (x,))
    torch.testing.assert_close(exported.module()(x), layer(x))
    del layer
    gc.collect()
    qstore_torch.graph._program.cache_clear()
    cache_clear()
    gc.collect()
    exported.module()(x)


@row("`make_fx`, fake and meta tensors")
def check_fakes(layer):
    from torch.fx.experimental.proxy_tensor import make_fx

    x, _ = point(layer)
    graph = make_fx(layer)(x)
    assert "qstore.layer" in graph.code
    torch.testing.assert_close(graph(2 * x + 1), layer(2 * x + 1))
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert layer(mode.from_tensor(x)).shape == (4, 3)
    assert layer_of(layer.backend_name).to("meta")(x.to("meta")).shape == (4, 3)


@row("`torch.jit.trace`")
def check_trace(layer):
    x, _ = point(layer)
    traced = torch.jit.trace(layer, x)
    for rows in (4, 2):
        x, _ = point(layer, rows)
        torch.testing.assert_close(traced(x), layer(x))


@row("TensorBoard's `add_graph`")
def check_tensorboard(layer):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            writer.add_graph(layer, point(layer)[0])
        events = EventAccumulator(folder).Reload()
        assert "qstore::layer" in {node.op for node in events.Graph().node}


@row("`torch.fx.symbolic_trace`")
def check_symbolic_trace(layer):
    x, _ = point(layer)
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Identity(), layer))
    assert [node.op for node in traced.graph.nodes][-2] == "call_module"
    torch.testing.assert_close(traced(x), layer(x))


@row("`torch.profiler`")
def check_profiler(layer):
    with torch.profiler.profile() as profile:
        layer(point(layer)[0])
    assert layer.name in {event.key for event in profile.key_averages()}


# -- tensors of any kind ----------------------------------------------------------------------------------------------


@row("any stride, offset and layout")
def check_layouts(layer):
    x, _ = point(layer)
    run, theta = with_theta(layer), layer.theta.detach()
    expected = layer(x)
    kinds = (
        lambda t: t,
        lambda t: torch.stack([t, t], -1)[..., 0],
        lambda t: torch.cat([t, t])[len(t) :],
        lambda t: t.t().contiguous().t(),
        lambda t: torch.stack([t])[0],
    )
    for of_theta in kinds:
        for of_x in kinds:
            torch.testing.assert_close(run(of_theta(theta), of_x(x)), expected)
    rows = x[:1].expand(4, -1)
    torch.testing.assert_close(layer(rows), layer(rows.clone()))
    layer.load_state_dict(layer.state_dict() | {"theta": kinds[1](theta)}, assign=True)
    torch.testing.assert_close(step(layer, layer, x)[0], expected.detach())


@row("weights of another length")
def check_wrong_theta(layer):
    run, (x, _) = with_theta(layer), point(layer)
    for theta in (torch.zeros(0), torch.zeros(1), torch.zeros(5), torch.zeros(7), torch.zeros(6, 1), torch.zeros(())):
        for call in (run, torch.compile(run, backend="aot_eager")):
            with pytest.raises(ShapeError, match="theta has shape"):
                call(theta.double(), x)
        with pytest.raises(ShapeError, match="theta has shape"):
            vmap(lambda x, theta=theta: run(theta.double(), x[None]))(x)
    run(torch.zeros(3, dtype=torch.float64), x)


@row("one-dimensional features")
def check_one_dimension(layer):
    for run in (layer, torch.compile(layer, backend="aot_eager")):
        with pytest.raises(ShapeError, match="batch, features"):
            run(point(layer)[0][0])
    torch.compile(layer, backend="aot_eager", fullgraph=True)(point(layer)[0][0])


@row("sparse features")
def check_sparse(layer):
    x, _ = point(layer)
    for sparse in (x.to_sparse(), x.to_sparse_csr(), x.to_sparse_csc()):
        torch.testing.assert_close(layer(sparse), layer(x))
    leaf = x.to_sparse().requires_grad_()
    layer(leaf).sum().backward()
    assert leaf.grad is not None


@row("nested features")
def check_nested(layer):
    x, _ = point(layer)
    with pytest.raises(InputError, match="nested"):
        layer(torch.nested.nested_tensor([x[0], x[1]]))
    layer(torch.nested.nested_tensor([x[:1], x[1:]], layout=torch.jagged))


@row("a DTensor")
def check_distributed(layer, tmp_path):
    """Tensors whose parts lie in several processes."""
    from torch import distributed
    from torch.distributed.tensor import Replicate, distribute_tensor

    x, _ = point(layer)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        with pytest.raises(InputError, match="received a DTensor"):
            layer(distribute_tensor(x, mesh, [Replicate()]))
        with_theta(layer)(distribute_tensor(layer.theta.detach(), mesh, [Replicate()]), x)
    finally:
        distributed.destroy_process_group()


@row("masked features")
def check_masked(layer):
    x, _ = point(layer)
    layer(torch.masked.masked_tensor(x, x > 0.5))


# -- memory and processes ---------------------------------------------------------------------------------------------


@row("activation checkpointing")
def check_checkpoint(layer):
    x, _ = point(layer)
    expected = step(layer, layer, x)
    torch.testing.assert_close(step(lambda x: checkpoint(layer, x, use_reentrant=False), layer, x), expected)
    leaf = x.clone().requires_grad_()
    layer.zero_grad()
    checkpoint(layer, leaf, use_reentrant=True).square().sum().backward()
    torch.testing.assert_close((leaf.grad, layer.theta.grad), expected[1:])
    with torch.autograd.graph.save_on_cpu():
        torch.testing.assert_close(step(layer, layer, x), expected)

    def copied(run):
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda t: t):
            return run()

    torch.testing.assert_close(copied(lambda: step(layer, layer, x)), expected)


@row("FSDP 1 and 2")
def check_fsdp(layer, tmp_path):
    if layer.backend_name == "statevector":
        pytest.skip("as on numba: one host function for both")
    code = FSDP.replace("BACKEND", repr(layer.backend_name))
    (tmp_path / "train.py").write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "train.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 3


FSDP = """
    import os, sys
    import torch, torch.distributed as dist
    from torch import nn
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP, ShardingStrategy, fully_shard
    from qstore_torch import QuantumFeatureExtractor

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), QuantumFeatureExtractor(3, 1, backend=BACKEND), nn.Linear(3, 2))

    def train(module, x, steps=3):
        optimizer, losses = torch.optim.SGD(module.parameters(), 0.5), []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = module(x).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def work(rank, port):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        dist.init_process_group("gloo", rank=rank, world_size=2)
        torch.set_num_threads(1)
        x = torch.rand(8, 4, generator=torch.Generator().manual_seed(1))
        half = x[4 * rank : 4 * rank + 4]
        expected = train(model(), x)
        one = lambda: FSDP(model(), device_id=torch.device("cpu"), use_orig_params=True)
        grad_only = lambda: FSDP(model(), device_id=torch.device("cpu"), use_orig_params=True,
                                 sharding_strategy=ShardingStrategy.SHARD_GRAD_OP)
        def two():
            module = model()
            for layer in module:
                fully_shard(layer, mesh=mesh)
            return fully_shard(module, mesh=mesh)
        mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
        for make in (one, grad_only, two):
            losses = train(make(), half)
            dist.all_reduce(losses)
            torch.testing.assert_close(losses / 2, expected)
            if rank == 0:
                print("equal", flush=True)
        dist.destroy_process_group()

    if __name__ == "__main__":
        import socket, torch.multiprocessing as mp
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        mp.spawn(work, args=(port,), nprocs=2)
"""


@row("`nn.utils.skip_init`")
def check_skip_init(layer):
    made = nn.utils.skip_init(QuantumFeatureExtractor, 3, 1, backend=layer.backend_name, dtype=torch.float64, name="it")
    assert (made.name, made.theta.dtype, made.theta.device.type) == ("it", torch.float64, "cpu")
    made.reset_parameters()
    assert made(point(layer)[0]).shape == (4, 3)
    assert QuantumReadout(2, device="meta").theta.is_meta


@row("a checkpoint of another circuit")
def check_checkpoint_file(layer):
    layer.load_state_dict(layer_of(layer.backend_name, entanglement="none").state_dict())


# -- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("outcome", TORCH, ids=lambda outcome: outcome.transform)
def test_outcome(outcome, backend, tmp_path, empty_cache):
    check = checks[outcome.transform]
    arguments = (layer_of(backend), tmp_path)[: check.__code__.co_argcount]
    if outcome.outcome == "works":
        check(*arguments)
        return
    with pytest.raises((QstoreError, RuntimeError)) as caught:
        check(*arguments)
    assert outcome.how in str(caught.value)


def test_every_row_has_a_test():
    assert {outcome.transform for outcome in TORCH} == set(checks)


def test_the_page_is_fresh():
    """`python -m tests.support.outcomes` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()
    assert all(row.outcome in ("works", "refused") for rows in OUTCOMES.values() for row in rows)


def test_every_named_test_is_there():
    for folder, rows in NAMED.items():
        for *_, name in rows:
            module, test = name.split(".")
            assert f"def {test}(" in (Path(__file__).parents[1] / folder / f"{module}.py").read_text(), name


FORWARD = [check_jvp, check_dual_level, check_dual_theta, check_per_sample, check_hessian, check_compiled_jvp]


@pytest.mark.parametrize("encoding", ["angle", "iqp", "zz"])
@pytest.mark.parametrize("check", FORWARD)
def test_other_encodings(check, encoding, empty_cache):
    check(layer_of("auto", encoding))


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: QuantumPooling(4, encoding="angle", **k),
        lambda **k: QuantumReadout(3, n_classes=5, **k),
        lambda **k: QuantumEncoder(3, **{name: v for name, v in k.items() if name == "dtype"}),
        lambda **k: QuantumReadout(1, encoding="zz", **k),
        lambda **k: QuantumReadout(2, encoding="angle", reuploading=True, depth=2, measurement_bases="X", **k),
    ],
)
def test_other_layers_in_forward_mode(make):
    layer = make(seed=0, dtype=torch.float64)
    x, v = (torch.rand(4, layer.spec.n_features, dtype=torch.float64) for _ in range(2))
    close(jvp(layer, (x,), (v,))[1], difference(layer, x, v))
    with forward_ad.dual_level():
        close(forward_ad.unpack_dual(layer(forward_ad.make_dual(x, v))).tangent.detach(), difference(layer, x, v))


@row("gradients and tangents of bits")
def check_bits(layer):
    bits = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    jvp(QuantumReadout(2, encoding="basis", backend=layer.backend_name), (bits,), (bits,))


NO_GRADIENT = {
    "grad": lambda run, x: grad(lambda x: run(x).sum())(x),
    "jvp": lambda run, x: jvp(run, (x,), (x,)),
    "jacfwd": lambda run, x: jacfwd(run)(x),
    "dual_level": lambda run, x: in_dual_level(lambda x, v: run(forward_ad.make_dual(x, v)))(x, x.clone()),
    "compiled jvp": lambda run, x: torch.compile(lambda x: jvp(run, (x,), (x,)), backend="aot_eager")(x),
    "backward": lambda run, x: run(x.requires_grad_()).sum().backward(),
}


@pytest.mark.parametrize("name", NO_GRADIENT)
@pytest.mark.parametrize("how", ["auto", "torch", "as_operations"])
def test_bits_have_no_derivative(how, name):
    layer = QuantumReadout(2, encoding="basis", backend="auto" if how == "as_operations" else how, seed=0)
    layer = layer.as_operations() if how == "as_operations" else layer
    bits, theta = torch.tensor([[0.0, 1.0], [1.0, 1.0]]), layer.theta.detach()
    with pytest.raises((GradientError, RuntimeError), match="basis encoding has no gradient"):  # Dynamo has its own
        NO_GRADIENT[name](layer, bits.clone())
    assert jacfwd(with_theta(layer))(theta, bits).abs().max() > 0  # that of theta is there


def test_parameter_shift_refuses_tangents():
    layer = layer_of("statevector", "angle", gradient="parameter-shift")
    x, v = point(layer)
    with forward_ad.dual_level(), pytest.raises(GradientError, match="tangents need a circuit"):
        layer(forward_ad.make_dual(x, v))


def test_a_dual_level_without_tangents_changes_nothing():
    layer = other_host()
    x, _ = point(layer)
    with forward_ad.dual_level():
        torch.testing.assert_close(layer(x), layer_of()(x))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_outlives_the_backward_pass(backend):
    layer = layer_of(backend)
    x, _ = point(layer)
    y = layer(x)
    y.sum().backward()
    assert getattr(y.grad_fn, "vjp_fn", None) is None  # what holds the states of engines on the host
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.grad_fn.saved_tensors  # noqa: B018


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_runs_the_forward_pass_once(backend, monkeypatch):
    begun = []
    begin = qstore_torch.graph._begin
    monkeypatch.setattr(qstore_torch.graph, "_begin", lambda *a: begun.append(1) or begin(*a))
    layer = layer_of(backend)
    compiled = torch.compile(layer, fullgraph=True)
    x, _ = point(layer)
    step(compiled, layer, x)
    begun.clear()
    step(compiled, layer, x)
    assert len(begun) == 1


def test_a_circuit_in_a_graph_is_its_own():
    """Also after many layers have come and gone: a graph holds content, no address."""
    x, _ = point(layer_of())
    kept = []
    for depth in range(1, 4):
        layer = QuantumFeatureExtractor(3, depth, seed=depth, dtype=torch.float64)
        kept.append((torch.export.export(layer, (x,)), layer(x).detach()))
        del layer
    gc.collect()
    others = [QuantumFeatureExtractor(3, 4, seed=k) for k in range(50)]
    for exported, expected in kept:
        torch.testing.assert_close(exported.module()(x), expected)
    assert len(others) == 50


def test_a_user_built_circuit_is_content():
    from qstore_core import Circuit, Expectation

    circuit = Circuit(2)
    x, w = circuit.inputs(2), circuit.weights(1)
    circuit.ry(x[0], 0)
    circuit.rx(w[0] * x[1], 1)
    layer = QuantumLayer(circuit, Expectation(("Z", "Y")), seed=0)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.rand(3, 2)
    torch.testing.assert_close(compiled(x), layer(x))


def test_autocast_and_half_precision():
    layer = layer_of("auto").float()
    x = torch.rand(4, 8)
    for dtype in (torch.float16, torch.bfloat16):
        y = layer(x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), layer(x.to(dtype).float()), rtol=0, atol=torch.finfo(dtype).eps)


def test_what_the_errors_are():
    for kind in (GradientError, InputError, ShapeError, SpecError):
        assert issubclass(kind, QstoreError)


def in_dual_level(f):
    def run(theta, x):
        with forward_ad.dual_level():
            return f(theta, x)

    return run


RECORDED = {
    "grad": lambda f: grad(lambda theta, x: f(theta, x).square().sum()),
    "grad of features": lambda f: grad(lambda theta, x: f(theta, x).square().sum(), 1),
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": lambda f: hessian(lambda theta, x: f(theta, x).square().sum()),
    "vmap": lambda f: lambda theta, x: vmap(lambda row: f(theta, row[None])[0])(x),
    "vmap of grad": lambda f: (
        lambda theta, x: vmap(lambda row: grad(lambda t: f(t, row[None]).square().sum())(theta))(x)
    ),
    "dual_level": in_dual_level,
}


@pytest.mark.parametrize("transform", RECORDED)
def test_a_recorded_transform_holds_no_values(transform):
    """What `make_fx` records inside of a transform is computed anew, from other theta and features."""
    from torch.fx.experimental.proxy_tensor import make_fx

    layer = QuantumFeatureExtractor(2, 1, encoding="angle", reuploading=True, dtype=torch.float64, seed=0)
    function = RECORDED[transform](lambda theta, x: functional_call(layer, {"theta": theta}, x))
    theta, x = layer.theta.detach(), torch.randn(3, 2, dtype=torch.float64)
    graph = make_fx(function)(theta, x)
    torch.testing.assert_close(graph(2 * theta + 1, x - 1), function(2 * theta + 1, x - 1))


@pytest.mark.parametrize("transform", ["grad", "vmap", "dual_level"])
def test_a_recorded_transform_of_a_host_backend_is_refused(transform):
    from torch.fx.experimental.proxy_tensor import make_fx

    layer = QuantumFeatureExtractor(2, 1, encoding="angle", backend=FaultyBackend("elsewhere", None), seed=0)
    function = RECORDED[transform](lambda theta, x: functional_call(layer, {"theta": theta}, x))
    with pytest.raises(GradientError, match="PyTorch operations"):
        make_fx(function)(layer.theta.detach(), torch.ones(3, 2))
